package load

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/graph/action"
)

func TestLayersLock(t *testing.T) {
	sum := "sha256:" + strings.Repeat("0a", 32)
	want := Layers{
		Groups: map[string]string{"//b:b layer": "small-00", "//a:a layer": "small-01"},
		Bases: map[string]action.Base{
			"//:wiki group small-00": {Digest: sum, DiffID: sum, Size: 7},
			"//core:core layer":      {Digest: sum, DiffID: sum, Size: 1 << 40, Repository: "registry.example/a/b"},
		},
	}
	text := FormatLayers(want)
	got, err := ParseLayers(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("parsed (-want +got):\n%s", d)
	}
	if again := FormatLayers(got); string(again) != string(text) {
		t.Errorf("formatted again:\n%s", again)
	}
	golden := `{
 "version": 1,
 "groups": {
  "//a:a layer": "small-01",
  "//b:b layer": "small-00"
 },
 "bases": {
  "//:wiki group small-00": {"digest":"` + sum + `","diff_id":"` + sum + `","size":7},
  "//core:core layer": {"digest":"` + sum + `","diff_id":"` + sum + `","size":1099511627776,"repository":"registry.example/a/b"}
 }
}
`
	if d := cmp.Diff(golden, string(text)); d != "" {
		t.Errorf("the form (-want +got):\n%s", d)
	}
	for _, tt := range []struct{ from, to, want string }{
		{`"version": 1`, `"version": 2`, "it is of version 2"},
		{`small-01`, `a b`, `"//a:a layer": group "a b"`},
		{`"size":7`, `"size":0`, `"//:wiki group small-00": want digest and diff_id`},
		{`"size":7`, `"length":7`, "unknown field"},
		{sum, "sha256:1", "want digest and diff_id"},
		{`"groups"`, `<<<<<<< HEAD`, "invalid character"},
		{"}\n", "}\n}\n", "after its end"},
	} {
		text := string(text)
		if tt.want == "after its end" {
			text += "}"
		}
		if _, err := ParseLayers([]byte(strings.Replace(text, tt.from, tt.to, 1))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s for %s: %v", tt.to, tt.from, err)
		}
	}
}
