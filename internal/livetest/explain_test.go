//go:build live

package livetest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// manifest is the digest of a target that is built, as explain shortens it.
func (p *place) manifest(target string) string {
	return p.build(target).digest(p.t, target)[:19]
}

// explained is what `mwbuild explain --output=json` says of the actions of some state: their ids, and why.
func explained(p *place, state string) map[string][]string {
	p.t.Helper()
	var all []struct {
		Action, State string
		Changes       []struct{ Text string }
	}
	out := p.ok("explain", "//...", "--output=json").stdout
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		p.t.Fatal(err)
	}
	found := map[string][]string{}
	for _, e := range all {
		if e.State == state {
			found[e.Action] = nil
			for _, c := range e.Changes {
				found[e.Action] = append(found[e.Action], c.Text)
			}
		}
	}
	return found
}

// Each field of a key changes once. Before the build explain names that change and no other, of the one action that must run
// for sure; after it, it tells the same of why that action ran last.
func TestExplainNamesTheCause(t *testing.T) {
	const archive = `
-- BUILD --
load(":rules.bzl", "step", "text")

image_import(name = "base", platform = "linux/amd64", BASE)

image_import(name = "other", platform = "linux/amd64", tar = "one.tar", digest = "ONE")

step(name = "step", image = ":base", srcs = ["src.txt"], outs = ["o"], env = {"K": "1"}, network = False, workdir = "/", owner = "2:2")

layer(name = "l", srcs = glob(["data/**"]) + [":step"], prefix = "p", dirs = ["d"], dirs_owner = "1:1", owner = "2:2")

text(name = "t", text = "one")

layer(name = "l2", dirs = ["l2"])

mw_image(
    name = "img",
    base = ":base",
    layers = [":l"],
    user = "1:1",
    env = {"E": "1"},
    entrypoint = ["/e"],
    cmd = ["/c"],
    workdir = "/w",
    labels = {"x": "1"},
    ports = ["80/tcp"],
    volumes = ["/v"],
    stop_signal = "TERM",
)

mw_image(name = "scratch", layers = [":l2"])
-- rules.bzl --
def _step(ctx):
    files = ctx.actions.run(
        image = ctx.attr.image[ImageInfo].image,
        argv = ["/bin/sh", "-c", "cat /src/src.txt > /out/o; echo p > /out/p"],
        srcs = ctx.files.srcs,
        outs = ctx.attr.outs,
        env = ctx.attr.env,
        network = ctx.attr.network,
        workdir = ctx.attr.workdir,
        owner = ctx.attr.owner,
    )
    return [DefaultInfo(files = files)]

step = rule(implementation = _step, attrs = {
    "image": attr.label(providers = [ImageInfo]),
    "srcs": attr.label_list(allow_files = True),
    "outs": attr.string_list(),
    "env": attr.string_dict(),
    "network": attr.bool(),
    "workdir": attr.string(),
    "owner": attr.string(),
})

def _text(ctx):
    layer = ctx.actions.layer(texts = {"t": ctx.attr.text})
    return [DefaultInfo(outputs = [layer]), LayerInfo(layers = [layer])]

text = rule(implementation = _text, attrs = {"text": attr.string()})
-- src.txt --
source
-- data/a.txt --
a
-- data/b.txt --
b
`
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// Two images that are never run in, so any tar will do.
	tars := shortDir(t)
	digests := map[string]string{}
	for _, name := range []string{"one.tar", "two.tar"} {
		must(os.WriteFile(filepath.Join(tars, name[:3]), []byte(name), 0o644))
		command(t, tars, "tar", "--sort=name", "--mtime=@0", "-cf", name, name[:3])
		b, err := os.ReadFile(filepath.Join(tars, name))
		must(err)
		digests[name] = digest.FromBytes(b).String()
	}
	one, two := digests["one.tar"], digests["two.tar"]
	at := func(name string) string { return filepath.Join(tars, name) }
	p := workspace(t, strings.NewReplacer(`"one.tar"`, strconv.Quote(at("one.tar")), "ONE", one).Replace(archive))
	if err := os.Symlink("a.txt", filepath.Join(p.dir, "data/link")); err != nil {
		t.Fatal(err)
	}
	p.ok("//...")
	build, rules := p.read("BUILD"), p.read("rules.bzl")
	file := func(name string) string { return filepath.Join(p.dir, name) }
	in := func(name, text string) func(old, new string) func() {
		return func(old, new string) func() {
			return func() {
				t.Helper()
				if strings.Count(text, old) != 1 {
					t.Fatalf("%q stands %d times in %s", old, strings.Count(text, old), name)
				}
				p.write(name, strings.Replace(text, old, new, 1))
			}
		}
	}
	buildFile, ruleFile := in("BUILD", build), in("rules.bzl", rules)
	for _, tc := range []struct {
		change       func()
		action, text string
	}{
		// Files.
		{func() { p.write("data/a.txt", "other\n") }, "//:l layer", "file data/a.txt changed"},
		{func() { p.write("data/new.txt", "new\n") }, "//:l layer", "file data/new.txt was added"},
		{func() { must(os.Remove(file("data/b.txt"))) }, "//:l layer", "file data/b.txt was removed"},
		{func() { must(os.Chmod(file("data/a.txt"), 0o755)) }, "//:l layer", "file data/a.txt changed its mode from 100644 to 100755"},
		{func() { must(os.Remove(file("data/link"))); must(os.Symlink("b.txt", file("data/link"))) }, "//:l layer", "file data/link changed"},
		{func() { p.write("src.txt", "other source\n") }, "//:step run-srcs", "file src.txt changed"},
		// Layers.
		{buildFile(`owner = "2:2")

text`, `owner = "3:3")

text`), "//:l layer", `owner changed from "2:2" to "3:3"`},
		{buildFile(`dirs = ["d"]`, `dirs = ["d", "e"]`), "//:l layer", `dir p/e was added: "1:1"`},
		{buildFile(`dirs_owner = "1:1"`, `dirs_owner = "5:5"`), "//:l layer", `dir p/d changed from "1:1" to "5:5"`},
		{buildFile(`text = "one"`, `text = "two"`), "//:t layer", `text t changed from "one" to "two"`},
		// Steps.
		{ruleFile("echo p > /out/p", "echo q > /out/p"), "//:step run", `argv[2] changed from "cat /src/src.txt > /out/o; echo p > /out/p" to "cat /src/src.txt > /out/o; echo q > /out/p"`},
		{buildFile(`"K": "1"`, `"K": "2"`), "//:step run", `env[K] changed from "1" to "2"`},
		{buildFile(`outs = ["o"]`, `outs = ["o", "p"]`), "//:step run", `out[1] was added: "p"`},
		{buildFile("network = False", "network = True"), "//:step run", `network changed from "false" to "true"`},
		{buildFile(`workdir = "/"`, `workdir = "/tmp"`), "//:step run", `workdir changed from "/" to "/tmp"`},
		{buildFile(`owner = "2:2")

layer`, `owner = "4:4")

layer`), "//:step run", `owner changed from "2:2" to "4:4"`},
		// Images.
		{buildFile(`user = "1:1"`, `user = "7:7"`), "//:img image", `user changed from "1:1" to "7:7"`},
		{buildFile(`"E": "1"`, `"E": "2"`), "//:img image", `env[E] changed from "1" to "2"`},
		{buildFile(`entrypoint = ["/e"]`, `entrypoint = ["/f"]`), "//:img image", `entrypoint[0] changed from "/e" to "/f"`},
		{buildFile(`cmd = ["/c"]`, `cmd = ["/c", "d"]`), "//:img image", `cmd[1] was added: "d"`},
		{buildFile(`workdir = "/w"`, `workdir = "/x"`), "//:img image", `workdir changed from "/w" to "/x"`},
		{buildFile(`"x": "1"`, `"x": "2"`), "//:img image", `label[x] changed from "1" to "2"`},
		{buildFile(`"80/tcp"`, `"81/tcp"`), "//:img image", `port[0] changed from "80/tcp" to "81/tcp"`},
		{buildFile(`"/v"`, `"/u"`), "//:img image", `volume[0] changed from "/v" to "/u"`},
		{buildFile(`"TERM"`, `"QUIT"`), "//:img image", `stop signal changed from "TERM" to "QUIT"`},
		{func() { p.write("WORKSPACE", `image_defaults(platform = "linux/arm64")`+"\n") }, "//:scratch image", `platform changed from "linux/amd64" to "linux/arm64"`},
		{buildFile(fmt.Sprintf("tar = %q, digest = %q", at("one.tar"), one), fmt.Sprintf("tar = %q, digest = %q", at("two.tar"), two)),
			"//:other image", fmt.Sprintf("digest changed from %s to %s", one[:19], two[:19])},
		{buildFile(`base = ":base"`, `base = ":other"`), "//:img image", fmt.Sprintf("base changed from %s to %s", p.manifest("//:base"), p.manifest("//:other"))},
		{buildFile(`layers = [":l2"]`, `layers = [":l2", ":t"]`), "//:scratch image", ""},
	} {
		tc.change()
		runs := explained(p, "run")
		if tc.text == "" { // a layer more: its digest is in the text
			texts := runs[tc.action]
			if len(texts) != 1 || !strings.HasPrefix(texts[0], "layer / (2)[0] was added: sha256:") {
				t.Errorf("another layer: %v", runs)
			}
		} else {
			want := map[string][]string{tc.action: {tc.text}}
			if diff := cmp.Diff(want, runs); diff != "" {
				t.Errorf("before the build with %q (-want +got):\n%s", tc.text, diff)
			}
			p.ok("//...")
			if runs := explained(p, "run"); len(runs) > 0 {
				t.Errorf("after the build with %q these would run: %v", tc.text, runs)
			}
			if diff := cmp.Diff([]string{tc.text}, explained(p, "cached")[tc.action]); diff != "" {
				t.Errorf("after the build with %q (-want +got):\n%s", tc.text, diff)
			}
		}
		// Back to where it was, which is in the cache.
		p.write("WORKSPACE", "")
		p.write("BUILD", build)
		p.write("rules.bzl", rules)
		p.write("src.txt", "source\n")
		p.write("data/a.txt", "a\n")
		p.write("data/b.txt", "b\n")
		must(os.Chmod(file("data/a.txt"), 0o644))
		must(os.RemoveAll(file("data/new.txt")))
		must(os.Remove(file("data/link")))
		must(os.Symlink("a.txt", file("data/link")))
		p.build("//...").wantActions(t, 0, false)
	}
}
