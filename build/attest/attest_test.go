package attest

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	intoto "github.com/in-toto/attestation/go/v1"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"
	"google.golang.org/protobuf/encoding/protojson"
)

var update = flag.Bool("update", false, "rewrite the documents in testdata")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func bill() *Bill {
	src := &Source{URL: "git+https://git.example/core.git", Commit: "c0ffee", Path: "extensions/Cite"}
	b := &Bill{Version: "1.0", Created: time.Unix(1700000000, 0), Image: Package{
		ID: "image", Name: "registry.example/mw/wiki", Version: "sha256:" + digest, Kind: Container, Location: noAssertion,
		URL: ImageURL("registry.example/mw/wiki", "", "sha256:"+digest, "linux/amd64"), Checksums: []Checksum{{"SHA256", digest}},
		Source: &Source{Commit: "c0ffee", Dirty: true},
	}}
	b.Add(Package{ID: "component extensions/Cite", Name: "Cite", Version: "1.0.0", Kind: Application, License: "MIT", Source: src, URL: ComponentURL("extensions/Cite", "1.0.0", src)}, "image", Contains, "component extensions/Cite")
	b.Add(Package{ID: "component core", Name: "MediaWiki", Version: "1.43.1", Kind: Application, CPE: CoreCPE("1.43.1"), URL: ComponentURL("", "1.43.1", nil)}, "image", Contains, "component core")
	b.Relate("component extensions/Cite", DependsOn, "component core")
	// Names that SPDX would have alike.
	for _, name := range []string{"g++", "g--", "libc6"} {
		id := "deb " + name + " 1:2~3+b1"
		b.Add(Package{ID: id, Name: name, Version: "1:2~3+b1", Kind: Library, URL: DebURL(name, "1:2~3+b1", "amd64", "bookworm"), Checksums: []Checksum{{"SHA256", digest}, {"SHA1", digest[:40]}}}, "image", Contains, id)
	}
	return b
}

func TestSPDX(t *testing.T) {
	text, err := bill().SPDX()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "wiki.spdx.json", text)
	// In another order, and twice.
	b := bill()
	first := b.Image
	b.Image = first
	b.Add(b.packages["deb g++ 1:2~3+b1"], "image", Contains, "deb g++ 1:2~3+b1")
	if again, err := b.SPDX(); err != nil || !bytes.Equal(text, again) {
		t.Errorf("another time: %v\n%s", err, cmp.Diff(string(text), string(again)))
	}
	doc, err := spdxjson.Read(bytes.NewReader(text))
	if err == nil {
		err = spdxlib.ValidateDocument(doc)
	}
	if err != nil {
		t.Errorf("SPDX's own tools: %v", err)
	}
	// Another commit, the same image: another document.
	b.Image.Source = &Source{Commit: "decaf"}
	other, err := b.SPDX()
	if err != nil {
		t.Fatal(err)
	}
	if namespace(text) == namespace(other) {
		t.Errorf("two documents have the namespace %s", namespace(text))
	}
}

func namespace(text []byte) string {
	_, rest, _ := strings.Cut(string(text), `"documentNamespace": "`)
	is, _, _ := strings.Cut(rest, `"`)
	return is
}

func TestStatement(t *testing.T) {
	b := Build{
		Image: "registry.example/mw/wiki", Digest: digest, Version: "1.0", Target: "//:wiki", Config: "prod", Platform: "linux/amd64",
		Defines: map[string]string{"debug": "off"}, Args: []string{"Z", "A"},
		Sources: []Checkout{
			{Source{URL: "git+https://git.example/cite.git", Commit: strings.Repeat("b", 40)}, "extensions/Cite"},
			{Source{Commit: strings.Repeat("a", 40), Dirty: true}, ""},
		},
		Bases: []Base{{ImageURL("registry.example/php", "", "sha256:"+digest, "linux/amd64"), digest}},
		Files: []File{{"layers.lock", digest}, {"base/php.lock.json", digest}},
	}
	text, err := b.Statement()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "wiki.slsa.json", text)
	var s intoto.Statement
	if err := protojson.Unmarshal(text, &s); err != nil {
		t.Fatalf("in-toto's own reader: %v", err)
	}
	if err := s.Validate(); err != nil {
		t.Errorf("in-toto's own reader: %v", err)
	}
}

func TestGitURL(t *testing.T) {
	for remote, want := range map[string]string{
		"https://git.example/a/b.git":                  "git+https://git.example/a/b.git",
		"https://alice:s3cret@git.example:8443/a%20b":  "git+https://git.example:8443/a%20b",
		"https://s3cret@git.example/a":                 "git+https://git.example/a",
		"https://git.example/a?private_token=s3cret#x": "git+https://git.example/a",
		"HTTPS://git.example/a":                        "git+https://git.example/a",
		"ssh://alice@gerrit.example:29418/mediawiki":   "git+ssh://gerrit.example:29418/mediawiki",
		"git@git.example:group/repo.git":               "git+ssh://git.example/group/repo.git",
		"alice:s3cret@git.example:group/repo":          "",
		"git.example:/srv/git/repo":                    "git+ssh://git.example/srv/git/repo",
		"[::1]:repo":                                   "",
		"git://git.example/a":                          "git+git://git.example/a",
		"/home/alice/core":                             "",
		"../core":                                      "",
		"file:///home/alice/core":                      "",
		"C:\\core":                                     "",
		"codecommit::eu-west-1://alice@core":           "",
		"ext::ssh -i s3cret alice@git.example %S repo": "",
		"https:s3cret":                                 "",
		"https://%zz":                                  "",
		"ftp://git.example/a":                          "",
		"":                                             "",
	} {
		if got := GitURL(remote); got != want {
			t.Errorf("GitURL(%q) = %q, want %q", remote, got, want)
		}
	}
}

func TestLicense(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"GPL-2.0-or-later"}, "GPL-2.0-or-later"},
		{[]string{"mit"}, "MIT"},
		{[]string{"MIT", "GPL-2.0-only AND BSD-3-Clause"}, "MIT OR (GPL-2.0-only AND BSD-3-Clause)"},
		{[]string{"MIT", "MIT"}, "MIT"},
		{[]string{"MIT", "proprietary"}, ""},
		{[]string{"LicenseRef-own"}, ""},
		{[]string{"GPL v2"}, ""},
		{[]string{""}, ""},
		{nil, ""},
	} {
		if got := License(c.names...); got != c.want {
			t.Errorf("License(%q) = %q, want %q", c.names, got, c.want)
		}
	}
}

// lines shows packages, one a line.
func lines(all []Package, err error) string {
	var b strings.Builder
	for _, p := range all {
		b.WriteString(strings.Join([]string{p.URL, p.License, p.Location}, " "))
		for _, c := range p.Checksums {
			b.WriteString(" " + c.Algorithm + ":" + c.Value)
		}
		b.WriteByte('\n')
	}
	if err != nil {
		b.WriteString("error: " + err.Error() + "\n")
	}
	return b.String()
}

func TestComposer(t *testing.T) {
	const a = `{"name": "acme/a", "version": "v1.0", "license": "MIT", "source": {"type": "git", "url": "https://u:p@git.example/a.git", "reference": "abc"}, "dist": {"url": "https://u:p@x.example/a.zip", "shasum": ""}}`
	const b = `{"name": "acme/b", "version": "dev-main", "license": ["MIT", "Apache-2.0"], "dist": {"url": "https://u:p@x.example/b.zip?t=1", "shasum": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}}`
	const lineA = "pkg:composer/acme/a@v1.0 MIT git+https://git.example/a.git@abc\n"
	const lineB = "pkg:composer/acme/b@dev-main MIT OR Apache-2.0 https://x.example/b.zip SHA1:da39a3ee5e6b4b0d3255bfef95601890afd80709\n"
	lock := []byte(`{"packages": [` + a + `], "packages-dev": [` + b + `]}`)
	for what, c := range map[string]struct{ got, want string }{
		"lock":           {lines(ComposerLock(lock, false)), lineA},
		"lock with dev":  {lines(ComposerLock(lock, true)), lineA + lineB},
		"installed by 2": {lines(ComposerInstalled([]byte(`{"packages": [` + a + `,` + b + `], "dev": false}`))), lineA + lineB},
		"installed by 1": {lines(ComposerInstalled([]byte(`[` + b + `]`))), lineB},
		"none":           {lines(ComposerInstalled([]byte(`{"packages": []}`))), ""},
		"a bad name":     {lines(ComposerInstalled([]byte(`[{"name": "a"}]`))), "error: \"a\" is no name of a package\n"},
		"no JSON":        {lines(ComposerLock([]byte(`<<<<<<<`), false)), "error: invalid character '<' looking for beginning of value\n"},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}

func TestNPM(t *testing.T) {
	const sum = "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
	const hex = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
	const want = "pkg:npm/%40acme/b@2.0.0  https://registry.example/b.tgz\n" +
		"pkg:npm/a@1.0.0 MIT https://registry.example/a.tgz SHA512:" + hex + "\n" +
		"pkg:npm/a@1.1.0  \n"
	v2 := `{"lockfileVersion": 3, "packages": {
		"": {"name": "me", "version": "0.1", "license": "MIT", "dependencies": {"a": "^1"}},
		"lib": {"name": "lib", "version": "0.1"}, "node_modules/lib": {"resolved": "lib", "link": true},
		"node_modules/a": {"version": "1.0.0", "resolved": "https://u:p@registry.example/a.tgz?t=1", "integrity": "` + sum + `", "license": "MIT", "dependencies": {"x": "1"}},
		"node_modules/@acme/b": {"version": "2.0.0", "resolved": "https://registry.example/b.tgz", "integrity": "md5-xx sha512-%%%", "license": {"type": "MIT"}},
		"node_modules/@acme/b/node_modules/other": {"name": "a", "version": "1.1.0"}}}`
	v1 := `{"lockfileVersion": 1, "dependencies": {
		"lib": {"version": "file:lib"},
		"a": {"version": "1.0.0", "resolved": "https://registry.example/a.tgz", "integrity": "` + sum + `", "license": "MIT"},
		"@acme/b": {"version": "2.0.0", "resolved": "https://registry.example/b.tgz", "dependencies": {"a": {"version": "1.1.0"}}}}}`
	for version, lock := range map[string]string{"3": v2, "1": v1} {
		if diff := cmp.Diff(want, lines(NPMLock([]byte(lock)))); diff != "" {
			t.Errorf("version %s (-want +got):\n%s", version, diff)
		}
	}
	if _, err := NPMLock([]byte(`{"lockfileVersion": 1, "dependencies": []}`)); err == nil {
		t.Error("a list of dependencies: no error")
	}
}

func TestAbout(t *testing.T) {
	for what, c := range map[string]struct{ got, want About }{
		"manifest":     {Manifest([]byte(`{"name": "Cite", "version": "1.0", "license-name": "GPL-2.0-or-later"}`)), About{"Cite", "1.0", "GPL-2.0-or-later"}},
		"odd manifest": {Manifest([]byte(`{"name": ["Cite"], "version": 3, "license-name": "free"}`)), About{}},
		"no manifest":  {Manifest([]byte(`[]`)), About{}},
		"composer":     {ComposerJSON([]byte(`{"license": ["MIT"]}`)), About{License: "MIT"}},
		"no licence":   {ComposerJSON([]byte(`{}`)), About{}},
		"core":         {Defines([]byte("<?php\n/** @var string */\ndefine( 'MW_VERSION', '1.47.0-alpha' );\n")), About{Version: "1.47.0-alpha"}},
		"no core":      {Defines([]byte("<?php\n")), About{}},
	} {
		if c.got != c.want {
			t.Errorf("%s: %+v, want %+v", what, c.got, c.want)
		}
	}
	if got := CoreCPE("1.47.0-wmf.5"); got != "" {
		t.Errorf("a version that no list has: %s", got)
	}
}
