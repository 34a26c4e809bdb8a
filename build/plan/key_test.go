package plan

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

type fakeFile struct {
	mode workspace.Mode
	text string
}

type fakeFiles map[string]fakeFile

func (f fakeFiles) Lookup(p string) (workspace.File, bool) {
	file, ok := f[p]
	return workspace.File{Path: p, Mode: file.mode}, ok
}

func (f fakeFiles) Blob(p string) (string, error) {
	d, err := f.Digest(p)
	return hex.EncodeToString(d.Blob[:]), err
}

func (f fakeFiles) Digest(p string) (workspace.Digest, error) {
	b := []byte(f[p].text)
	return workspace.Digest{SHA256: sha256.Sum256(b), Blob: sha1.Sum(b), Size: int64(len(b))}, nil
}

func layerRecord(content string) *Record {
	return &Record{Layers: []image.Layer{{
		Descriptor: ocispecs.Descriptor{Digest: digest.FromString("blob " + content), Size: 1},
		DiffID:     digest.FromString(content),
	}}}
}

func imageRecord(t testing.TB, cfg ocispecs.Image, layers ...string) *Record {
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &Record{Image: &image.Image{ConfigJSON: b, Manifest: ocispecs.Descriptor{Digest: digest.FromString(string(b) + strings.Join(layers, ","))}}}
	for _, l := range layers {
		r.Image.Layers = append(r.Image.Layers, layerRecord(l).Layers...)
	}
	return r
}

// world is one action with what it reads: a fresh copy for each case to change.
type world struct {
	node    *action.Node
	files   fakeFiles
	records map[*action.Node]*Record
	secrets map[string]string // digests
}

func (w world) key(t testing.TB) Key {
	t.Helper()
	in := byOutput(w.files, func(n *action.Node) *Record { return w.records[n] })
	in.secret = func(id string) (string, error) { return w.secrets[id], nil }
	m, err := describe(w.node, in)
	if err != nil {
		t.Fatal(err)
	}
	return m.Key()
}

func text(s string) *string { return &s }

var (
	dep      = &action.Node{Label: "//d:d", Name: "run", Do: &action.Run{}}
	base     = &action.Node{Label: "//b:b", Name: "image", Do: &action.Image{}}
	madeNode = &action.Node{Label: "//n:n", Name: "native", Do: &action.Native{}}
)

func baseConfig() ocispecs.Image {
	c := ocispecs.Image{Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"}}
	c.Config.Env, c.Config.WorkingDir, c.Config.User = []string{"A=1"}, "/w", "1:1"
	c.Config.Labels = map[string]string{"l": "1"}
	return c
}

func layerWorld(t testing.TB) world {
	return world{
		node: &action.Node{Label: "//a:a", Name: "layer", Pos: "a/BUILD:1:1", Do: &action.Layer{
			Owner: action.Owner{UID: 1, GID: 2},
			Entries: []action.Entry{
				{Dest: "dir", Dir: true, User: &action.Owner{UID: 3, GID: 4}},
				{Dest: "x/a.php", File: "a/a.php"},
				{Dest: "x/made", From: dep, Path: "out"},
				{Dest: "x/text", Text: text("hello")},
			},
		}},
		files:   fakeFiles{"a/a.php": {text: "<?php"}, "a/other.php": {text: "no input"}},
		records: map[*action.Node]*Record{dep: layerRecord("dep")},
	}
}

func runWorld(t testing.TB) world {
	return world{
		node: &action.Node{Label: "//a:a", Name: "run", Pos: "a/BUILD:1:1", Do: &action.Run{
			Root: base, Mounts: []action.Mount{{From: dep, Dest: "/src"}}, Args: []string{"/bin/sh", "-c", "x"},
			Env: map[string]string{"K": "V"}, Dir: "/src/a", Outs: []string{"o"}, Owner: action.Owner{UID: 1, GID: 2},
			Caches:  []action.Cache{{ID: "npm", Dest: "/npm"}},
			Secrets: []action.Secret{{ID: "keyed", Dest: "/run/keyed", Keyed: true}, {ID: "plain", Env: "PLAIN"}}, SSH: []string{"default"},
			Timeout: time.Minute,
		}},
		records: map[*action.Node]*Record{dep: layerRecord("dep"), base: imageRecord(t, baseConfig(), "base")},
		secrets: map[string]string{"keyed": "1", "plain": "1"},
	}
}

func imageWorld(t testing.TB) world {
	return world{
		node: &action.Node{Label: "//a:a", Name: "image", Pos: "a/BUILD:1:1", Do: &action.Image{
			Base: base, Layers: []*action.Node{dep}, Platform: "linux/amd64",
			Config: action.Config{
				User: "1:1", Env: map[string]string{"K": "V"}, Entrypoint: []string{"e"}, Cmd: []string{"c"}, WorkingDir: "/w",
				Labels: map[string]string{"l": "v"}, ExposedPorts: []string{"80/tcp"}, Volumes: []string{"/v"}, StopSignal: "TERM",
			},
		}},
		records: map[*action.Node]*Record{dep: layerRecord("dep"), base: imageRecord(t, baseConfig(), "base")},
	}
}

var (
	onBase  = &action.Node{Label: "//a:b", Name: "layer", Do: &action.Layer{Base: &action.Base{Digest: "sha256:1"}, Entries: []action.Entry{{Dest: "srv/b/b.php", File: "b.php"}}}}
	onOther = &action.Node{Label: "//a:c", Name: "layer", Do: &action.Layer{Base: &action.Base{Digest: "sha256:2"}, Entries: []action.Entry{{Dest: "srv/c/c.php", File: "c.php"}}}}
)

func mergeWorld(t testing.TB) world {
	onTwo := layerRecord("base1")
	onTwo.Layers = append(onTwo.Layers, layerRecord("delta").Layers...)
	return world{
		node:    &action.Node{Label: "//a:a", Name: "deltas", Do: &action.Layer{Merges: []*action.Node{onBase, onOther}, Shared: []string{"srv"}}},
		records: map[*action.Node]*Record{onBase: onTwo, onOther: layerRecord("base2 as it is")},
	}
}

func composedWorld(t testing.TB) world {
	return world{
		node: &action.Node{Label: "//a:a", Name: "image", Do: &action.Image{
			Layers: []*action.Node{dep, imported}, Platform: "linux/amd64",
		}},
		records: map[*action.Node]*Record{dep: layerRecord("dep"), imported: imageRecord(t, baseConfig(), "one", "two")},
	}
}

var imported = &action.Node{Label: "//a:b", Name: "image", Do: &action.Image{Import: &action.Import{Digest: "sha256:1"}}}

func importWorld(t testing.TB) world {
	return world{node: &action.Node{Label: "//a:a", Name: "image", Do: &action.Image{Import: &action.Import{
		Digest: "sha256:1", Registry: "registry.example/x", Platform: "linux/amd64",
	}}}}
}

func nativeWorld(t testing.TB) world {
	return world{
		node: &action.Node{Label: "//a:a", Name: "native", Do: &action.Native{
			Kind: "output 1", Params: map[string]string{"language": "de"}, Files: []action.Source{{Role: "core", Path: "a/a.php"}, {Role: "names", Path: "a/b.php"}},
			Inputs: []action.Input{{Role: "Cite de", From: dep, Path: "de"}, {Role: "Cite nds", From: dep, Path: "nds"}, {Role: "all", From: base}, {Role: "all", From: base, Path: "x"}},
		}},
		files: fakeFiles{"a/a.php": {text: "<?php"}, "a/b.php": {text: "<?php 2"}},
		records: map[*action.Node]*Record{
			dep:  {Files: []action.File{{Path: "de", SHA256: "01"}, {Path: "fr", SHA256: "02"}}},
			base: {Files: []action.File{{Path: "x", SHA256: "03"}, {Path: "y", SHA256: "04"}}},
		},
	}
}

func nativeLayerWorld(testing.TB) world {
	return world{node: &action.Node{Label: "//a:a", Name: "native", Do: &action.Native{
		Kind: "debian unpack 1", Params: map[string]string{"group": "1"}, Layer: true,
		Downloads: []action.Download{{SHA256: "0a", Size: 1, Name: "a 1", Path: "pool/a.deb"}, {SHA256: "0b", Size: 1, Name: "b 1", Path: "pool/b.deb"}},
	}}}
}

var madeLayer = &action.Node{Label: "//a:a", Name: "unpacked", Do: &action.Native{Kind: "debian unpack 1", Layer: true}}

func layerOfLayer() world {
	return world{
		node:    &action.Node{Label: "//a:a", Name: "layer", Do: &action.Layer{Entries: []action.Entry{{Dest: "x", From: madeLayer, Path: "etc"}}}},
		records: map[*action.Node]*Record{madeLayer: layerRecord("dep")},
	}
}

// What stands in keys of before there were steps that keep changes and natives that make layers is as it was then.
func TestKeysStay(t *testing.T) {
	for name, tc := range map[string]struct {
		world world
		want  string
	}{
		"Run":    {runWorld(t), "67efdc194f9a0d2a"},
		"Native": {nativeWorld(t), "1db4b721cfbf13ee"},
		"Layer":  {layerWorld(t), "17a675a77f76f892"},
		"Made":   {madeWorld(t), "84474b77ba3023b1"},
		"Image":  {imageWorld(t), "1a9e30192dfa5750"},
	} {
		if got := tc.world.key(t); got.String()[:16] != tc.want {
			t.Errorf("%s: key %.16s, was %s", name, got, tc.want)
		}
	}
}

func madeWorld(t testing.TB) world {
	w := nativeWorld(t)
	w.node = &action.Node{Label: "//a:a", Name: "layer", Do: &action.Layer{Entries: []action.Entry{{Dest: "x/de.cdb", From: madeNode, Path: "de"}}}}
	w.records = map[*action.Node]*Record{dep: w.records[dep], madeNode: w.records[dep]}
	return w
}

// Every part of an action's description and of what it reads is in its key; what cannot change its output is not.
func TestKeyFields(t *testing.T) {
	layerOf := func(w world) *action.Layer { return w.node.Do.(*action.Layer) }
	runOf := func(w world) *action.Run { return w.node.Do.(*action.Run) }
	imageOf := func(w world) *action.Image { return w.node.Do.(*action.Image) }
	nativeOf := func(w world) *action.Native { return w.node.Do.(*action.Native) }
	withConfig := func(f func(*ocispecs.Image)) func(world) {
		return func(w world) {
			c := baseConfig()
			f(&c)
			w.records[base] = imageRecord(t, c, "base")
		}
	}
	type cases map[string]func(world)
	for _, tc := range []struct {
		name            string
		world           func(testing.TB) world
		rebuild, ignore cases
	}{
		{"Layer", layerWorld, cases{
			"file's bytes":        func(w world) { w.files["a/a.php"] = fakeFile{text: "<?php 1"} },
			"file's mode":         func(w world) { w.files["a/a.php"] = fakeFile{workspace.Executable, "<?php"} },
			"file to symlink":     func(w world) { w.files["a/a.php"] = fakeFile{workspace.Symlink, "<?php"} },
			"file's place":        func(w world) { layerOf(w).Entries[1].Dest = "x/b.php" },
			"file gone":           func(w world) { layerOf(w).Entries = append(layerOf(w).Entries[:1:1], layerOf(w).Entries[2:]...) },
			"owner":               func(w world) { layerOf(w).Owner.GID++ },
			"dir's owner":         func(w world) { layerOf(w).Entries[0].User.UID++ },
			"dir's place":         func(w world) { layerOf(w).Entries[0].Dest = "dir2" },
			"text":                func(w world) { layerOf(w).Entries[3].Text = text("bye") },
			"text's mode":         func(w world) { layerOf(w).Entries[3].Exec = true },
			"dependency's output": func(w world) { w.records[dep] = layerRecord("dep2") },
			"path in dependency":  func(w world) { layerOf(w).Entries[2].Path = "out2" },
		}, cases{
			"label and name":  func(w world) { w.node.Label, w.node.Name, w.node.Pos = "//z:z", "other", "z/BUILD:9:9" },
			"another file":    func(w world) { w.files["a/other.php"] = fakeFile{text: "changed"} },
			"where it stands": func(w world) { w.files["b/b.php"] = w.files["a/a.php"]; layerOf(w).Entries[1].File = "b/b.php" },
			"dependency's compression": func(w world) {
				r := layerRecord("dep")
				r.Layers[0].Descriptor.Digest = digest.FromString("compressed otherwise")
				w.records[dep] = r
			},
		}},
		{"Layer on a base", func(t testing.TB) world {
			w := layerWorld(t)
			layerOf(w).Base = &action.Base{Digest: "sha256:1", DiffID: "sha256:11", Size: 7, Repository: "registry.example/wiki"}
			return w
		}, cases{
			"base":         func(w world) { layerOf(w).Base.Digest = "sha256:2" },
			"no base":      func(w world) { layerOf(w).Base = nil },
			"file's bytes": func(w world) { w.files["a/a.php"] = fakeFile{text: "<?php 1"} },
		}, cases{
			"base's place": func(w world) { layerOf(w).Base.Repository = "registry.example/elsewhere" },
			"another file": func(w world) { w.files["a/other.php"] = fakeFile{text: "changed"} },
		}},
		{"Layer that merges", mergeWorld, cases{
			"what differs":     func(w world) { w.records[onBase].Layers[1] = layerRecord("delta2").Layers[0] },
			"nothing differs":  func(w world) { w.records[onBase].Layers = w.records[onBase].Layers[:1] },
			"another of them":  func(w world) { w.records[onOther] = layerRecord("base2") },
			"one less":         func(w world) { layerOf(w).Merges = layerOf(w).Merges[:1] },
			"their order":      func(w world) { slices.Reverse(layerOf(w).Merges) },
			"a shared folder":  func(w world) { layerOf(w).Shared[0] = "opt" },
			"no shared folder": func(w world) { layerOf(w).Shared = nil },
			"folders kept":     func(w world) { layerOf(w).KeepFolders = true },
		}, cases{
			"label and name": func(w world) { w.node.Label, w.node.Name = "//z:z", "other" },
		}},
		{"Image of merged layers", func(t testing.TB) world {
			w := mergeWorld(t)
			merge := w.node
			w.node = &action.Node{Label: "//a:a", Name: "image", Do: &action.Image{Layers: []*action.Node{onBase, onOther, merge}, Platform: "linux/amd64"}}
			w.records[merge] = layerRecord("merged")
			return w
		}, cases{
			"a base": func(w world) { w.records[onBase].Layers[0] = layerRecord("base3").Layers[0] },
			"what differs, merged": func(w world) {
				w.records[imageOf(w).Layers[2]] = layerRecord("merged2")
			},
			"nothing differs": func(w world) { w.records[imageOf(w).Layers[2]] = &Record{} },
			"not merged":      func(w world) { imageOf(w).Layers = imageOf(w).Layers[:2] },
		}, cases{
			"what differs, and is in the merged one": func(w world) { w.records[onBase].Layers[1] = layerRecord("delta2").Layers[0] },
		}},
		{"Run", runWorld, cases{
			"root's layers":     func(w world) { w.records[base] = imageRecord(t, baseConfig(), "base", "more") },
			"root's env":        withConfig(func(c *ocispecs.Image) { c.Config.Env = []string{"A=2"} }),
			"root's workdir":    withConfig(func(c *ocispecs.Image) { c.Config.WorkingDir = "/" }),
			"root's user":       withConfig(func(c *ocispecs.Image) { c.Config.User = "" }),
			"root's platform":   withConfig(func(c *ocispecs.Image) { c.Architecture = "arm64" }),
			"sources":           func(w world) { w.records[dep] = layerRecord("dep2") },
			"mount's place":     func(w world) { runOf(w).Mounts[0].Dest = "/elsewhere" },
			"command":           func(w world) { runOf(w).Args[2] = "y" },
			"command split":     func(w world) { runOf(w).Args = []string{"/bin/sh", "-c x"} },
			"env's value":       func(w world) { runOf(w).Env["K"] = "W" },
			"env's name":        func(w world) { runOf(w).Env = map[string]string{"KV": ""} },
			"working directory": func(w world) { runOf(w).Dir = "" },
			"outputs":           func(w world) { runOf(w).Outs = []string{"p"} },
			"network":           func(w world) { runOf(w).Network = true },
			"owner":             func(w world) { runOf(w).Owner.UID++ },
			"cache":             func(w world) { runOf(w).Caches[0].ID = "yarn" },
			"cache's place":     func(w world) { runOf(w).Caches[0].Dest = "/yarn" },
			"keyed secret":      func(w world) { w.secrets["keyed"] = "2" },
			"no longer keyed":   func(w world) { runOf(w).Secrets[0].Keyed = false },
			"secret's place":    func(w world) { runOf(w).Secrets[1].Env = "OTHER" },
			"secret's name":     func(w world) { runOf(w).Secrets[1].ID = "other" },
			"ssh agent":         func(w world) { runOf(w).SSH = nil },
			"user":              func(w world) { runOf(w).User = "0" },
			"keeps changes":     func(w world) { runOf(w).Changes = true },
		}, cases{
			"plain secret":   func(w world) { w.secrets["plain"] = "2" },
			"timeout":        func(w world) { runOf(w).Timeout = 0 },
			"label and name": func(w world) { w.node.Label, w.node.Name, w.node.Pos = "//z:z", "other", "z/BUILD:9:9" },
			"root's labels":  withConfig(func(c *ocispecs.Image) { c.Config.Labels["l"] = "2" }),
		}},
		{"Native", nativeWorld, cases{
			"kind":           func(w world) { nativeOf(w).Kind = "output" },
			"parameter":      func(w world) { nativeOf(w).Params["language"] = "fr" },
			"file":           func(w world) { w.files["a/a.php"] = fakeFile{text: "x"} },
			"role of a file": func(w world) { nativeOf(w).Files[0].Role = "alias" },
			"order of files": func(w world) { slices.Reverse(nativeOf(w).Files) },
			"input":          func(w world) { w.records[dep].Files[0].SHA256 = "ff" },
			"input absent":   func(w world) { w.records[dep].Files[0].Path = "it" },
			"input appears":  func(w world) { w.records[dep].Files[1].Path = "nds" },
			"order of inputs": func(w world) {
				in := nativeOf(w).Inputs
				in[0], in[2] = in[2], in[0]
			},
			"role of an input":  func(w world) { nativeOf(w).Inputs[0].Role = "Cite fr" },
			"one of all inputs": func(w world) { w.records[base].Files[1].SHA256 = "ff" },
			"name of an input":  func(w world) { w.records[base].Files[1].Path = "z" },
			"makes a layer":     func(w world) { nativeOf(w).Layer = true },
		}, cases{
			"label and name":                func(w world) { w.node.Label, w.node.Name = "//z:z", "other" },
			"another language of the input": func(w world) { w.records[dep].Files[1].SHA256 = "ff" },
			"mode of a file":                func(w world) { w.files["a/a.php"] = fakeFile{workspace.Executable, "<?php"} },
			"size of an input":              func(w world) { w.records[dep].Files[0].Size = 9 },
		}},
		{"Native of a layer", nativeLayerWorld, cases{
			"download":           func(w world) { nativeOf(w).Downloads[0].SHA256 = "0c" },
			"download added":     func(w world) { nativeOf(w).Downloads = append(nativeOf(w).Downloads, action.Download{SHA256: "0c"}) },
			"download removed":   func(w world) { nativeOf(w).Downloads = nativeOf(w).Downloads[:1] },
			"order of downloads": func(w world) { slices.Reverse(nativeOf(w).Downloads) },
			"parameter":          func(w world) { nativeOf(w).Params["group"] = "2" },
		}, cases{
			"size, name and place of a download": func(w world) {
				nativeOf(w).Downloads[0] = action.Download{SHA256: "0a", Size: 2, Name: "other", Path: "other", Mirrors: []string{"https://mirror.example"}}
			},
		}},
		{"Layer of a layer", func(t testing.TB) world { return layerOfLayer() }, cases{
			"what was made":   func(w world) { w.records[madeLayer] = layerRecord("dep2") },
			"path in the one": func(w world) { layerOf(w).Entries[0].Path = "etc/hosts" },
		}, cases{}},
		{"Layer of made files", madeWorld, cases{
			"what was made": func(w world) { w.records[dep].Files[0].SHA256 = "ff" },
			"its place":     func(w world) { layerOf(w).Entries[0].Dest = "x/en.cdb" },
		}, cases{
			"another file that was made": func(w world) { w.records[dep].Files[1].SHA256 = "ff" },
		}},
		{"Image", imageWorld, cases{
			"base":           func(w world) { w.records[base] = imageRecord(t, baseConfig(), "base2") },
			"base's config":  withConfig(func(c *ocispecs.Image) { c.Config.Labels["l"] = "2" }),
			"no base":        func(w world) { imageOf(w).Base = nil },
			"layer":          func(w world) { w.records[dep] = layerRecord("dep2") },
			"layer twice":    func(w world) { imageOf(w).Layers = append(imageOf(w).Layers, dep) },
			"user":           func(w world) { imageOf(w).Config.User = "2:2" },
			"env":            func(w world) { imageOf(w).Config.Env["K"] = "W" },
			"entrypoint":     func(w world) { imageOf(w).Config.Entrypoint[0] = "f" },
			"cmd":            func(w world) { imageOf(w).Config.Cmd[0] = "d" },
			"cmd as entry":   func(w world) { imageOf(w).Config.Entrypoint, imageOf(w).Config.Cmd = nil, []string{"e", "c"} },
			"working folder": func(w world) { imageOf(w).Config.WorkingDir = "/" },
			"label":          func(w world) { imageOf(w).Config.Labels["l"] = "w" },
			"port":           func(w world) { imageOf(w).Config.ExposedPorts[0] = "81/tcp" },
			"volume":         func(w world) { imageOf(w).Config.Volumes[0] = "/u" },
			"stop signal":    func(w world) { imageOf(w).Config.StopSignal = "QUIT" },
		}, cases{
			"label and name": func(w world) { w.node.Label, w.node.Name = "//z:z", "other" },
			"platform of the workspace, which a base overrides": func(w world) { imageOf(w).Platform = "linux/arm64" },
		}},
		{"Image of imported layers", composedWorld, cases{
			"a layer of them":    func(w world) { w.records[imported] = imageRecord(t, baseConfig(), "one", "three") },
			"their order":        func(w world) { w.records[imported] = imageRecord(t, baseConfig(), "two", "one") },
			"order of the parts": func(w world) { slices.Reverse(imageOf(w).Layers) },
			"what their history says": func(w world) {
				c := baseConfig()
				c.History = []ocispecs.History{{CreatedBy: "one"}, {CreatedBy: "two"}}
				w.records[imported] = imageRecord(t, c, "one", "two")
			},
		}, cases{}},
		{"Import", importWorld, cases{
			"digest":                             func(w world) { imageOf(w).Import.Digest = "sha256:2" },
			"platform":                           func(w world) { imageOf(w).Import.Platform = "linux/arm64" },
			"a tar's digest is of another thing": func(w world) { imageOf(w).Import.Registry, imageOf(w).Import.Tar = "", "x.tar" },
		}, cases{
			"where it may be had": func(w world) { imageOf(w).Import.Registry, imageOf(w).Import.Layout = "", "layout" },
		}},
	} {
		was := tc.world(t).key(t)
		if again := tc.world(t).key(t); again != was {
			t.Errorf("%s: the same action has two keys", tc.name)
		}
		for name, change := range tc.rebuild {
			w := tc.world(t)
			change(w)
			if w.key(t) == was {
				t.Errorf("%s: %s changed, but its key did not", tc.name, name)
			}
		}
		for name, change := range tc.ignore {
			w := tc.world(t)
			change(w)
			if w.key(t) != was {
				t.Errorf("%s: %s cannot change the output, but changed the key", tc.name, name)
			}
		}
	}
}

// A field that is added to an action without a thought for its key fails here: every exported field must be known.
func TestKeyCoversActions(t *testing.T) {
	known := map[string]string{
		"Layer": "Entries Owner Base Merges Shared KeepFolders", "Base": "Digest DiffID Size Repository", "Entry": "Dest File From Path Text Exec Dir User", "Run": "Root Mounts Args Env Dir Outs Network Owner User Changes Caches Secrets SSH Timeout", "Cache": "ID Dest", "Secret": "ID Dest Env Keyed",
		"Mount": "From Dest", "Native": "Kind Params Files Inputs Downloads Layer", "Download": "SHA256 Size Name Path Mirrors", "Source": "Role Path", "Input": "Role From Path", "Image": "Import Base Layers Config Platform",
		"Import": "Digest Registry Layout Tar Platform",
		"Config": "User Env Entrypoint Cmd WorkingDir Labels ExposedPorts Volumes StopSignal",
	}
	for _, v := range []any{action.Layer{}, action.Base{}, action.Entry{}, action.Run{}, action.Mount{}, action.Cache{}, action.Secret{}, action.Native{}, action.Download{}, action.Source{}, action.Input{}, action.Image{}, action.Import{}, action.Config{}} {
		typ := reflect.TypeOf(v)
		var fields []string
		for i := range typ.NumField() {
			fields = append(fields, typ.Field(i).Name)
		}
		if got := strings.Join(fields, " "); got != known[typ.Name()] {
			t.Errorf("action.%s has fields %s; TestKeyFields knows %s: put the new one into describe and its cases into TestKeyFields", typ.Name(), got, known[typ.Name()])
		}
	}
}

func drawManifest(t *rapid.T, name string) *Manifest {
	m := &Manifest{}
	part := rapid.StringMatching(`[a-c0-9 =\n]{0,6}`)
	for range rapid.IntRange(0, 5).Draw(t, name+" fields") {
		m.Add(part.Draw(t, "name"), part.Draw(t, "value"))
	}
	return m
}

func TestManifestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawManifest(t, "a"), drawManifest(t, "b")
		back, err := DecodeManifest(a.Encode())
		if err != nil {
			t.Fatalf("decode %q: %v", a.Encode(), err)
		}
		if diff := cmp.Diff(a.Fields(), back.Fields()); diff != "" {
			t.Fatalf("round trip (-want +got):\n%s", diff)
		}
		if same := cmp.Equal(a.Fields(), b.Fields()); same != bytes.Equal(a.Encode(), b.Encode()) {
			t.Fatalf("fields equal: %v, encodings equal: %v\n%q\n%q", same, !same, a.Encode(), b.Encode())
		}
	})
}

func FuzzDecodeManifest(f *testing.F) {
	m := &Manifest{}
	m.Add("file a", "100644 x")
	f.Add(m.Encode())
	f.Add([]byte("1 1 a=b"))
	f.Add([]byte("99999999999999999999 1 a=b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := DecodeManifest(b); err == nil && !bytes.Equal(m.Encode(), b) {
			t.Errorf("decode %q, encode %q", b, m.Encode())
		}
	})
}

func TestDiff(t *testing.T) {
	old, new := &Manifest{}, &Manifest{}
	old.Add("same", "1")
	old.Add("gone", "1")
	old.Add("changed", "1")
	new.Add("changed", "2")
	new.Add("same", "1")
	new.Add("added", "")
	want := []Change{{"added", nil, text("")}, {"changed", text("1"), text("2")}, {"gone", text("1"), nil}}
	if diff := cmp.Diff(want, Diff(old, new)); diff != "" {
		t.Errorf("Diff (-want +got):\n%s", diff)
	}
	a, b := &Manifest{}, &Manifest{}
	a.Add("x", "1")
	a.Add("y", "2")
	b.Add("y", "2")
	b.Add("x", "1")
	if diff := cmp.Diff([]Change{{Name: Reordered}}, Diff(a, b)); diff != "" {
		t.Errorf("Diff of two orders (-want +got):\n%s", diff)
	}
	if got := Diff(a, a); got != nil {
		t.Errorf("Diff of equal manifests: %v", got)
	}
}

// A layer that comes or goes is one change of the image's manifest; it renames no other.
func TestImageLayerAdded(t *testing.T) {
	layer := func(place string) *action.Node {
		return &action.Node{Do: &action.Layer{Entries: []action.Entry{{Dest: place + "/f", Text: text("x")}}}}
	}
	nodes := []*action.Node{layer("a"), layer("b"), layer("b"), layer("c")}
	in := byOutput(nil, func(n *action.Node) *Record { return layerRecord("same") })
	manifest := func(layers ...*action.Node) *Manifest {
		m, err := describe(&action.Node{Do: &action.Image{Layers: layers}}, in)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	all := manifest(nodes...)
	for i, want := range []string{"layer /a[0]", "layer /b (2)[0]", "layer /b (2)[0]", "layer /c[0]"} {
		got := Diff(manifest(append(nodes[:i:i], nodes[i+1:]...)...), all)
		if len(got) != 1 || got[0].Name != want || got[0].Derived() {
			t.Errorf("without layer %d: %v, want %s alone", i, got, want)
		}
	}
	if got := Diff(manifest(nodes[1], nodes[0], nodes[2], nodes[3]), all); len(got) != 1 || got[0].Name != Reordered {
		t.Errorf("two layers swapped: %v", got)
	}
}

// Early cut-off: a dependency that ran again and made the same leaves what comes after it a hit, and an action behind a
// dirty one is pending until then.
func TestPlan(t *testing.T) {
	files := fakeFiles{"a": {text: "1"}}
	src := &action.Node{Label: "//a:a", Name: "srcs", Do: &action.Layer{Entries: []action.Entry{{Dest: "a", File: "a"}}}}
	top := &action.Node{Label: "//a:a", Name: "layer", Do: &action.Layer{Entries: []action.Entry{{Dest: "b", From: src}}}}
	records := map[Key]*Record{}
	find := func(k Key) (*Record, error) { return records[k], nil }

	build := func() (executed []string) {
		t.Helper()
		p := New([]*action.Node{top}, files)
		for _, s := range p.Steps {
			if !s.Ready() || s.State != Pending {
				t.Fatalf("%s: ready %v, state %v before anything was resolved", s.Node.ID(), s.Ready(), s.State)
			}
			if err := p.Resolve(s, find); err != nil {
				t.Fatal(err)
			}
			if s.State == Dirty {
				if len(s.Users) > 0 && s.Users[0].Ready() {
					t.Errorf("%s is ready though what it reads is not there", s.Users[0].Node.ID())
				}
				executed = append(executed, s.Node.Name)
				s.Finish(layerRecord("made by " + s.Node.Name)) // whatever it read
				records[s.Key] = s.Record
			}
		}
		return executed
	}
	if got := build(); !cmp.Equal(got, []string{"srcs", "layer"}) {
		t.Errorf("first build executed %v", got)
	}
	if got := build(); got != nil {
		t.Errorf("second build executed %v", got)
	}
	files["a"] = fakeFile{text: "2"}
	if got := build(); !cmp.Equal(got, []string{"srcs"}) {
		t.Errorf("after a change that makes the same output, executed %v", got)
	}
}

// Source keys are known without a build, change with the files' blobs and the descriptions, and reach dependents.
func TestSourceKeys(t *testing.T) {
	id := func(name string) graph.ID { return graph.ID{Label: label.Label{Pkg: "p", Name: name}} }
	keys := func(change func(files fakeFiles, a, b *graph.Target)) map[graph.ID]Key {
		t.Helper()
		files := fakeFiles{"p/a": {text: "1"}, "p/c": {text: "1"}, "p/json": {text: "1"}, "p/src": {text: "1"}}
		na := &action.Node{Label: "//p:a", Name: "layer", Do: &action.Layer{Entries: []action.Entry{{Dest: "a", File: "p/a"}}}}
		nb := &action.Node{Label: "//p:b", Name: "image", Do: &action.Image{Layers: []*action.Node{na}}}
		nc := &action.Node{Label: "//p:c", Name: "layer", Do: &action.Layer{Entries: []action.Entry{{Dest: "c", File: "p/c"}}}}
		a := &graph.Target{ID: id("a"), Kind: "layer", Actions: []*action.Node{na}, Outputs: []*action.Node{na}}
		b := &graph.Target{ID: id("b"), Kind: "image", Actions: []*action.Node{nb}, Outputs: []*action.Node{nb}, Deps: []graph.Edge{{To: a.ID, Attr: "layers"}}}
		c := &graph.Target{ID: id("c"), Kind: "layer", Actions: []*action.Node{nc}, Outputs: []*action.Node{nc}, Srcs: []string{"p/json", "p/c"}, Reads: true}
		a.Srcs = []string{"p/src"}
		change(files, a, b)
		got, err := SourceKeys(graph.New([]*graph.Target{a, b, c}), files)
		if err != nil {
			t.Fatal(err)
		}
		return got.Targets
	}
	was := keys(func(fakeFiles, *graph.Target, *graph.Target) {})
	for name, tc := range map[string]struct {
		change func(files fakeFiles, a, b *graph.Target)
		want   string // which targets' keys change
	}{
		"nothing":           {func(fakeFiles, *graph.Target, *graph.Target) {}, ""},
		"a file":            {func(f fakeFiles, _, _ *graph.Target) { f["p/a"] = fakeFile{text: "2"} }, "ab"},
		"a source":          {func(f fakeFiles, _, _ *graph.Target) { f["p/src"] = fakeFile{text: "2"} }, "ab"},
		"what a rule read":  {func(f fakeFiles, _, _ *graph.Target) { f["p/json"] = fakeFile{text: "2"} }, ""},
		"what it uses":      {func(f fakeFiles, _, _ *graph.Target) { f["p/c"] = fakeFile{text: "2"} }, "c"},
		"a file's mode":     {func(f fakeFiles, _, _ *graph.Target) { f["p/a"] = fakeFile{workspace.Executable, "1"} }, "ab"},
		"an attribute":      {func(_ fakeFiles, _, b *graph.Target) { b.Actions[0].Do.(*action.Image).Config.User = "1:1" }, "b"},
		"the rule":          {func(_ fakeFiles, a, _ *graph.Target) { a.Kind = "other" }, "ab"},
		"a position":        {func(_ fakeFiles, a, _ *graph.Target) { a.Pos = "p/BUILD:7:1" }, ""},
		"a dependency less": {func(_ fakeFiles, _, b *graph.Target) { b.Deps = nil }, "b"},
	} {
		got, changed := keys(tc.change), ""
		for _, n := range []string{"a", "b", "c"} {
			if got[id(n)] != was[id(n)] {
				changed += n
			}
		}
		if changed != tc.want {
			t.Errorf("%s changed: source keys of %q changed, want %q", name, changed, tc.want)
		}
	}
}
