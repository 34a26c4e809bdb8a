package gen

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseManifest(t *testing.T) {
	for name, tc := range map[string]struct {
		src  string
		want manifest
		err  string
	}{
		"full": {
			src: "{\n\t\"manifest_version\": 2,\n\t\"name\": \"Größe \\u00e4\",\n\t\"requires\": {\n\t\t\"MediaWiki\": \">= 1.43\",\n\t\t\"platform\": { \"php\": \"*\", \"ext-intl\": \"*\" },\n" +
				"\t\t\"skins\": { \"Vector\": \"*\" },\n\t\t\"extensions\": {\n\t\t\t\"Ü\": \"*\", \"Abuse Filter\": [ 1 ]\n\t\t}\n\t},\n\t\"config\": { \"name\": \"no\", \"requires\": 1 }\n}\n",
			want: manifest{name: "Größe ä", version: true, requires: []want{{"Vector", "m.json:7:14"}, {"Ü", "m.json:9:4"}, {"Abuse Filter", "m.json:9:14"}}},
		},
		"PHP's empty lists": {src: `{"name": "A", "requires": {"extensions": [], "skins": [ ]}}`, want: manifest{name: "A"}},
		"nothing in it":     {src: `{}`},
		"a list":            {src: " [1]", err: "m.json:1:2: a manifest: want an object"},
		"a number":          {src: "1", err: "m.json:1:1: a manifest: want an object"},
		"odd name":          {src: `{"name": 3}`, err: "m.json:1:10: name: want a string"},
		"odd requires":      {src: "{\n \"requires\": \"all\"}", err: "m.json:2:14: requires: want an object"},
		"odd extensions":    {src: `{"requires": {"extensions": ["Cite"]}}`, err: "m.json:1:29: requires.extensions: want an object"},
		"comma":             {src: "{\n  \"ä\": 1,\n}", err: "m.json:3:1: no JSON: invalid character '}' looking for beginning of object key string"},
		"cut":               {src: "{\"name\": \"A\",", err: "m.json:1:13: no JSON: unexpected end of JSON input"},
		"empty":             {src: "", err: "m.json:1:1: no JSON: unexpected end of JSON input"},
		"two":               {src: "{} {}", err: "m.json:1:4: no JSON: invalid character '{' after top-level value"},
	} {
		got, err := parseManifest("m.json", []byte(tc.src))
		if err != nil || tc.err != "" {
			if err == nil || err.Error() != tc.err {
				t.Errorf("%s: error %v, want %s", name, err, tc.err)
			}
			continue
		}
		tc.want.path = "m.json"
		if diff := cmp.Diff(&tc.want, got, cmp.AllowUnexported(manifest{}, want{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"name": "A", "manifest_version": 2, "requires": {"extensions": {"B": "*"}, "skins": []}}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		if m, err := parseManifest("m.json", src); (m == nil) == (err == nil) {
			t.Errorf("%v, %v", m, err)
		}
	})
}
