package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdxlib"
	"golang.org/x/tools/txtar"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
)

const (
	sumA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	sumB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	sumC = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

const attestTree = `
-- WORKSPACE --
define(name = "stage", default = "dev")
define(name = "unasked", default = "x")
-- mwbuild.lock --
{
 "version": 1,
 "images": {
  "registry.example/php:8": "sha256:AAAA"
 }
}
-- layers.lock --
{
 "version": 1,
 "groups": {
  "//extensions/A:A layer": "small-00",
  "//extensions/C:C layer": "small-00"
 },
 "bases": {}
}
-- base/BUILD --
package(default_visibility = ["//visibility:public"])
debian_image(name = "debian", suite = "small", packages = ["server"])
image_import(name = "php", ref = "registry.example/php:8")
image_import(name = "tools", registry = "tools.example/composer", digest = "sha256:BBBB")
-- base/debian.lock.json --
{"version":1,"algorithm":1,"suite":"small","architecture":"amd64","epoch":1700000000,"slim":false,"releases":[],"roots":["server"],"packages":[
{"name":"libc6","version":"2.36-9","architecture":"amd64","source":"glibc","essential":true,"sha256":"AAAA","size":10,"path":"pool/libc6.deb"},
{"name":"server","version":"1:2+b1","architecture":"all","source":"server","depends":["libc6"],"sha256":"BBBB","size":20,"path":"pool/server.deb"}]}
-- extensions/A/BUILD --
package(default_visibility = ["//visibility:public"])
mw_extension(name = "A", manifests = ["extension-client.json", "extension-repo.json"], srcs = ["extension-client.json", "extension-repo.json", "A.php"], deps = ["//:other_b"])
filegroup(name = "config", srcs = ["A.php"])
-- extensions/A/extension-client.json --
{"name": "A Client", "license-name": "nonsense"}
-- extensions/A/extension-repo.json --
{"name": "A Repo", "version": "2.0", "license-name": "GPL-2.0-or-later"}
-- extensions/A/A.php --
<?php
-- extensions/B/BUILD --
package(default_visibility = ["//visibility:public"])
mw_extension(name = "B", vendor = ":vendor_dir", srcs = ["extension.json", ":dist"])
composer_install(name = "vendor_dir", srcs = ["composer.json", "composer.lock"], image = "//base:tools")
npm_build(name = "dist", srcs = ["package.json", "package-lock.json"], outs = ["dist"], image = "//base:tools")
-- extensions/B/extension.json --
{"name": "B"}
-- extensions/B/composer.json --
{}
-- extensions/B/composer.lock --
{"packages": [{"name": "acme/used", "version": "1.0"}], "packages-dev": [{"name": "acme/dev", "version": "1.0"}]}
-- extensions/B/package.json --
{}
-- extensions/B/package-lock.json --
{"lockfileVersion": 3, "packages": {"node_modules/webpack": {"version": "5.0.0"}}}
-- extensions/C/BUILD --
mw_extension(name = "C", visibility = ["//visibility:public"])
filegroup(name = "config", srcs = ["config.php"], visibility = ["//visibility:public"])
-- extensions/C/extension.json --
{"name": "C"}
-- extensions/C/config.php --
<?php
-- extensions/Sub/BUILD --
mw_extension(name = "Sub", visibility = ["//visibility:public"])
-- extensions/Sub/extension.json --
{"name": "Sub"}
-- file --
-- BUILD --
alias(name = "other_b", actual = "//extensions/B", visibility = ["//visibility:public"])
layer(name = "files", srcs = ["file"])
config_setting(name = "prod", define_values = {"stage": "prod"})
mw_image(name = "alone", components = ["//extensions/B"])
mw_image(name = "grouped", base = "//base:debian", components = ["//extensions/A", "//extensions/B", "//extensions/C"])
mw_image(name = "moved", base = "//base:php", root = "/opt/mw", components = ["//extensions/A", ":other_b"])
mw_image(name = "settings", components = ["//extensions/B"], settings = "//extensions/C:config")
mw_image(name = "sub", components = ["//extensions/Sub"])
mw_image(name = "asks", components = select({":prod": [], "//conditions:default": ["//extensions/C"]}))
genrule(name = "step", srcs = ["//extensions/C:config"], outs = ["out"], cmd = "true", image = "//base:tools", build_args = {"V": "1", "W": "1"})
layer(name = "made", srcs = [":step"])
image(name = "stepped", base = ":alone", layers = [":made", "//base:php"])
mw_component_import(name = "D", path = "extensions/D", registry = "registry.example/d", digest = "sha256:CCCC")
mw_image(name = "composed", components = [":D", "//extensions/C"])
npm_build(name = "modules", srcs = ["package.json", "package-lock.json"], outs = ["node_modules"], image = "//base:tools")
layer(name = "modules_layer", srcs = [":modules"])
image(name = "node", layers = [":modules_layer"])
-- package.json --
{}
-- package-lock.json --
{"lockfileVersion": 3, "packages": {"node_modules/left": {"version": "1.0.0"}}}
`

// Of every image: what it holds, and what it was made from.
var attestWant = map[string]struct{ bill, build string }{
	"alone": {`
		B BUILD_DEPENDENCY_OF? webpack 5.0.0
		B CONTAINS acme/used 1.0
		image CONTAINS B
	`, `
		linux/amd64 map[]
		extensions/B/composer.lock
		extensions/B/package-lock.json
		pkg:oci/composer@sha256:BBBB?arch=amd64&repository_url=tools.example%2Fcomposer
		workspace
	`},
	// Packed together, in an action of the image.
	"grouped": {`
		A Client 2.0 DEPENDS_ON B
		B BUILD_DEPENDENCY_OF? webpack 5.0.0
		B CONTAINS acme/used 1.0
		image CONTAINS A Client 2.0
		image CONTAINS B
		image CONTAINS C
		image CONTAINS libc6 2.36-9
		image CONTAINS server 1:2+b1
	`, `
		linux/amd64 map[]
		base/debian.lock.json
		extensions/B/composer.lock
		extensions/B/package-lock.json
		layers.lock
		pkg:oci/composer@sha256:BBBB?arch=amd64&repository_url=tools.example%2Fcomposer
		workspace
	`},
	// Packed anew for another place.
	"moved": {`
		A Client 2.0 DEPENDS_ON B
		B BUILD_DEPENDENCY_OF? webpack 5.0.0
		B CONTAINS acme/used 1.0
		image CONTAINS A Client 2.0
		image CONTAINS B
		image DESCENDANT_OF registry.example/php sha256:AAAA
	`, `
		linux/amd64 map[]
		extensions/B/composer.lock
		extensions/B/package-lock.json
		mwbuild.lock
		pkg:oci/composer@sha256:BBBB?arch=amd64&repository_url=tools.example%2Fcomposer
		pkg:oci/php@sha256:AAAA?arch=amd64&repository_url=registry.example%2Fphp
		workspace
	`},
	// One file of a component is not the component.
	"settings": {`
		B BUILD_DEPENDENCY_OF? webpack 5.0.0
		B CONTAINS acme/used 1.0
		image CONTAINS B
	`, `
		linux/amd64 map[]
		extensions/B/composer.lock
		extensions/B/package-lock.json
		pkg:oci/composer@sha256:BBBB?arch=amd64&repository_url=tools.example%2Fcomposer
		workspace
	`},
	"sub": {`
		image CONTAINS Sub
	`, `
		linux/amd64 map[]
		extensions/Sub
		workspace
	`},
	"asks": {`
		image CONTAINS C
	`, `
		linux/amd64 map[stage:dev]
		workspace
	`},
	// What a step reads is not in the image; the images that it stands on and holds are.
	"stepped": {`
		B BUILD_DEPENDENCY_OF? webpack 5.0.0
		B CONTAINS acme/used 1.0
		image CONTAINS B
		image CONTAINS registry.example/php sha256:AAAA
	`, `
		linux/amd64 map[] V W
		extensions/B/composer.lock
		extensions/B/package-lock.json
		mwbuild.lock
		pkg:oci/composer@sha256:BBBB?arch=amd64&repository_url=tools.example%2Fcomposer
		pkg:oci/php@sha256:AAAA?arch=amd64&repository_url=registry.example%2Fphp
		workspace
	`},
	"composed": {`
		image CONTAINS C
		image CONTAINS D sha256:CCCC
	`, `
		linux/amd64 map[]
		pkg:oci/d@sha256:CCCC?arch=amd64&repository_url=registry.example%2Fd
		workspace
	`},
	"node": {`
		image CONTAINS left 1.0.0
	`, `
		linux/amd64 map[]
		package-lock.json
		pkg:oci/composer@sha256:BBBB?arch=amd64&repository_url=tools.example%2Fcomposer
		workspace
	`},
}

var attestSums = strings.NewReplacer("AAAA", sumA, "BBBB", sumB, "CCCC", sumC)

// attestPlace lays the tree, with one component in a repository of its own.
func attestPlace(t *testing.T) (*attester, func(name string) graph.ID) {
	t.Helper()
	root := t.TempDir()
	for _, f := range txtar.Parse([]byte(attestSums.Replace(attestTree))).Files {
		p := filepath.Join(root, f.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"extensions/Sub", "."} {
		for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"}} {
			cmd := exec.Command("git", args...)
			cmd.Dir = filepath.Join(root, dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
	}
	var stderr bytes.Buffer
	a := &app{std: stdio{out: io.Discard, err: &stderr}, dir: root, cacheDir: t.TempDir(), log: slog.New(slog.DiscardHandler)}
	a.handed.buildArgs = []string{"V=2", "W=2", "X=1"}
	o, patterns, err := a.openTargets(t.Context(), []string{"//:all"})
	if err != nil {
		t.Fatal(err)
	}
	loaded, _, err := o.load(t.Context(), patterns, false)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	at, err := o.attester(o.loaded, loaded.Graph)
	if err != nil {
		t.Fatal(err)
	}
	return at, func(name string) graph.ID {
		return graph.ID{Label: label.Label{Name: name}, Config: loaded.Targets[0].Config}
	}
}

func TestDocuments(t *testing.T) {
	at, id := attestPlace(t)
	im := image.Image{Manifest: ocispecs.Descriptor{Digest: "sha256:" + sumC}, ConfigJSON: []byte(`{"os": "linux", "architecture": "amd64"}`)}
	for name, want := range attestWant {
		texts, err := at.documents(t.Context(), id(name), im, "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		lines := func(s string) string { return attestSums.Replace(strings.ReplaceAll(strings.TrimSpace(s), "\t", "")) }
		if diff := cmp.Diff(lines(want.bill), relations(t, texts["spdx"])); diff != "" {
			t.Errorf("%s: bill (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(lines(want.build), dependencies(t, texts["slsa"])); diff != "" {
			t.Errorf("%s: provenance (-want +got):\n%s", name, diff)
		}
	}
}

// relations shows a document of SPDX that its own tools find right, one relation a line.
func relations(t *testing.T, text []byte) string {
	t.Helper()
	doc, err := spdxjson.Read(bytes.NewReader(text))
	if err == nil {
		err = spdxlib.ValidateDocument(doc)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	names := map[common.ElementID]string{"Package-image": "image"}
	for _, p := range doc.Packages {
		if p.PackageSPDXIdentifier != "Package-image" {
			names[p.PackageSPDXIdentifier] = strings.TrimSpace(p.PackageName + " " + p.PackageVersion)
		}
	}
	var all []string
	for _, r := range doc.Relationships {
		switch r.Relationship {
		case common.TypeRelationshipDescribe:
		case common.TypeRelationshipBuildDependencyOf:
			all = append(all, fmt.Sprintf("%s %s? %s", names[r.RefB.ElementRefID], r.Relationship, names[r.RefA.ElementRefID]))
		default:
			all = append(all, fmt.Sprintf("%s %s %s", names[r.RefA.ElementRefID], r.Relationship, names[r.RefB.ElementRefID]))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// dependencies shows the parameters and dependencies of a provenance, one a line.
func dependencies(t *testing.T, text []byte) string {
	t.Helper()
	var s struct {
		Predicate struct {
			BuildDefinition struct {
				ExternalParameters struct {
					Platform  string
					Defines   map[string]string
					BuildArgs []string
				}
				ResolvedDependencies []struct{ Name, URI string }
			}
		}
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	def := s.Predicate.BuildDefinition
	all := []string{}
	for _, d := range def.ResolvedDependencies {
		all = append(all, d.Name+d.URI)
	}
	slices.Sort(all)
	p := def.ExternalParameters
	return strings.Join(append([]string{strings.TrimSpace(fmt.Sprintf("%s %v %s", p.Platform, p.Defines, strings.Join(p.BuildArgs, " ")))}, all...), "\n")
}
