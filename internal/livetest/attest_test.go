//go:build live

package livetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/santhosh-tekuri/jsonschema/v6"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"
)

// spdxSchema is SPDX's own schema of its documents, from the module that has it for the tests of another program.
var spdxSchema = once(func(dir string) (*jsonschema.Schema, error) {
	const module, file = "github.com/anchore/syft@v1.57.0", "schema/spdx-json/spdx-schema-2.3.json"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module schema\n"), 0o644); err != nil {
		return nil, err
	}
	get := exec.Command("go", "mod", "download", "-json", module)
	get.Dir = dir
	out, err := get.Output()
	var got struct{ Dir, Error string }
	if jerr := json.Unmarshal(out, &got); err != nil || jerr != nil {
		return nil, fmt.Errorf("%s: %v %v %s", module, err, jerr, got.Error)
	}
	c := jsonschema.NewCompiler()
	s, err := c.Compile(filepath.Join(got.Dir, file))
	if err == nil && s.Types == nil {
		err = fmt.Errorf("%s of %s is no schema", file, module)
	}
	return s, err
})

// checkSPDX returns a document that the schema and SPDX's own tools find right, what they say of it that is not, and that the schema finds something at all.
func checkSPDX(t testing.TB, text []byte) *v2_3.Document {
	t.Helper()
	schema := spdxSchema(t)
	valid := func(text []byte) error {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return err
		}
		return schema.Validate(v)
	}
	if err := valid(text); err != nil {
		t.Errorf("SPDX's schema: %v\n%.2000s", err, text)
	}
	if valid(bytes.Replace(text, []byte(`"SPDXID"`), []byte(`"ID"`), 1)) == nil || valid(bytes.Replace(text, []byte(`"CONTAINS"`), []byte(`"HAS"`), 1)) == nil {
		t.Error("SPDX's schema finds nothing wrong with what is")
	}
	doc, err := spdxjson.Read(bytes.NewReader(text))
	if err == nil {
		err = spdxlib.ValidateDocument(doc)
	}
	if err != nil {
		t.Fatalf("SPDX's tools: %v", err)
	}
	return doc
}

// purls are the package URLs of a document that begin with some text, sorted.
func purls(doc *v2_3.Document, prefix string) (all []string) {
	for _, p := range doc.Packages {
		for _, r := range p.PackageExternalReferences {
			if strings.HasPrefix(r.Locator, prefix) {
				all = append(all, r.Locator)
			}
		}
	}
	slices.Sort(all)
	return all
}

// componentsIn are the labels of the components that a document names, sorted.
func componentsIn(doc *v2_3.Document) (all []string) {
	for _, p := range doc.Packages {
		if _, lab, ok := strings.Cut(p.PackageComment, ", //"); ok {
			all = append(all, "//"+lab)
		}
	}
	slices.Sort(all)
	return all
}

// sbom is what mwbuild prints of an image, which must be right.
func (p *place) sbom(label string) *v2_3.Document {
	p.t.Helper()
	return checkSPDX(p.t, []byte(p.ok("sbom", label).stdout))
}

// referrers are what oras discovers of an image: artifact types by digest.
func referrers(t testing.TB, ref string, more ...string) map[string]string {
	t.Helper()
	var out struct {
		Referrers []struct{ Digest, ArtifactType string }
	}
	text := command(t, "", tool(t, "oras"), append([]string{"discover", "--plain-http", "--format=json", ref}, more...)...)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	all := map[string]string{}
	for _, r := range out.Referrers {
		all[r.Digest] = r.ArtifactType
	}
	return all
}

// pulled is what oras fetches as a referrer's one file.
func pulled(t testing.TB, repository, digest, file string) []byte {
	t.Helper()
	dir := shortDir(t)
	command(t, dir, tool(t, "oras"), "pull", "--plain-http", repository+"@"+digest)
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The real wiki and its components, each with its documents: oras lists them, the bill is right by SPDX's schema and names every component, and digests are what they
// are without.
func TestAttested(t *testing.T) {
	t.Parallel()
	clone := filepath.Join(shortDir(t), "wiki")
	command(t, "/", "git", "clone", "-q", mediawiki(t), clone)
	git := func(args ...string) string {
		return command(t, clone, "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
	}
	git("remote", "set-url", "origin", "https://me:s3cret@git.example/wiki.git")
	p := newPlace(t, clone)
	p.env = append(p.env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0="+clone)
	before := p.build("//...")

	reg := registry(t)
	p.write("WORKSPACE", p.read("WORKSPACE")+fmt.Sprintf("\nregistry(name = \"plain\", repository = \"%s/mw/{target}\", attest = True)\n", reg.addr))
	git("commit", "-qam", "another commit")
	head := strings.TrimSpace(git("rev-parse", "HEAD"))
	first := p.publish("//...", "--tag=one")
	var components []string // labels
	for _, im := range first.Images {
		if want := before.digest(t, im.Label); im.Digest != want {
			t.Errorf("%s: %s with documents and at another commit, %s without", im.Label, im.Digest, want)
		}
		if name, ok := strings.CutSuffix(im.Label, ":image"); ok {
			pkg := strings.TrimPrefix(name, "//")
			label := name + ":" + pkg[strings.LastIndexByte(pkg, '/')+1:]
			if pkg == "" {
				label = "//:core"
			}
			components = append(components, label)
		}
	}
	slices.Sort(components)
	if len(components) != 39 {
		t.Fatalf("%d component images, want 39: %v", len(components), components)
	}
	var wiki string
	for _, im := range first.Images {
		repository := reg.addr + "/" + strings.SplitN(im.Repository, "/", 2)[1]
		all := referrers(t, repository+":one")
		if len(all) != 2 || len(im.Attestations) != 2 {
			t.Fatalf("%s: referrers %v, and mwbuild tells of %v", im.Label, all, im.Attestations)
		}
		for _, a := range im.Attestations {
			if all[a.Digest] != a.Type || !a.Uploaded {
				t.Errorf("%s: mwbuild tells of %+v, oras of %v", im.Label, a, all)
			}
		}
		spdx := pulled(t, repository, im.Attestations[0].Digest, "sbom.spdx.json")
		slsa := pulled(t, repository, im.Attestations[1].Digest, "provenance.intoto.json")
		doc := checkSPDX(t, spdx)
		for _, text := range [][]byte{spdx, slsa} {
			if !bytes.Contains(text, []byte(head)) || !bytes.Contains(text, []byte("git+https://git.example/wiki.git@")) || bytes.Contains(text, []byte("s3cret")) {
				t.Errorf("%s: not the commit and the address without password:\n%.2000s", im.Label, text)
			}
		}
		if !bytes.Contains(slsa, []byte(`"dirty": false`)) {
			t.Errorf("%s: the work tree is said to differ:\n%s", im.Label, slsa)
		}
		named := componentsIn(doc)
		if im.Label == "//:wiki" {
			wiki = im.Digest
			if !slices.Equal(named, components) {
				t.Errorf("the wiki's bill names %v, want %v", named, components)
			}
			if n := len(purls(doc, "pkg:composer/")); n < 20 {
				t.Errorf("the wiki's bill has %d packages of composer", n)
			}
			if !strings.HasPrefix(purls(doc, "pkg:generic/mediawiki@")[0], "pkg:generic/mediawiki@1.43.") {
				t.Errorf("core is %q", purls(doc, "pkg:generic/mediawiki@"))
			}
			t.Logf("the wiki's bill: %d packages, %d bytes", len(doc.Packages), len(spdx))
		} else if len(named) != 1 || !strings.HasPrefix(named[0], strings.TrimSuffix(im.Label, "image")) {
			t.Errorf("the bill of %s names %v", im.Label, named)
		}
	}
	// crane knows the tag that stands for the API.
	if text := command(t, "", tool(t, "crane"), "manifest", reg.addr+"/mw/wiki:"+strings.Replace(wiki, ":", "-", 1)); strings.Count(text, "com.github.mwbuild.document") != 2 {
		t.Errorf("the tag in place of the API: %s", text)
	}

	t.Run("again", func(t *testing.T) {
		reg.requests()
		p.publish("//...", "--tag=one")
		requests := reg.requests()
		if n := count(requests, "^(PUT|POST|PATCH) "); n != 0 {
			t.Errorf("%d requests that write", n)
		}
		if n := count(requests, "/referrers/|/manifests/sha256-"); n != 0 {
			t.Errorf("%d requests for referrers", n)
		}
		// At another commit, under another tag: one manifest each.
		git("commit", "-q", "--allow-empty", "-m", "empty")
		next := p.publish("//...", "--tag=two")
		if n := count(reg.requests(), "^(PUT|POST|PATCH) "); n != len(next.Images) || next.uploaded() != 0 {
			t.Errorf("%d requests that write and %d uploads, want %d tags", n, next.uploaded(), len(next.Images))
		}
		if n := count(reg.requests(), "^(PUT|POST|PATCH) "); n != 0 {
			t.Errorf("%d more", n)
		}
	})

	t.Run("api", func(t *testing.T) {
		s := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true)))
		t.Cleanup(s.Close)
		addr := strings.TrimPrefix(s.URL, "http://")
		p.write("WORKSPACE", strings.ReplaceAll(p.read("WORKSPACE"), reg.addr, addr))
		p.publish("//:wiki", "--tag=one")
		if all := referrers(t, addr+"/mw/wiki:one", "--distribution-spec=v1.1-referrers-api"); len(all) != 2 {
			t.Errorf("referrers %v, want two", all)
		}
		if text := command(t, "", tool(t, "crane"), "ls", addr+"/mw/wiki"); text != "one\n" {
			t.Errorf("tags are %q", text)
		}
	})
}
