//go:build live

package livetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const layersWorkspace = `
-- beside.bzl --
def _impl(ctx):
    made = ctx.actions.run(
        image = ctx.attr.image[ImageInfo].image,
        argv = ["/bin/sh", "-euc", "find /in | sort > $OUT; cat /in/data/words/new >> $OUT"],
        env = {"OUT": "/out/list"},
        mounts = {"/in": ctx.attr.layer[LayerInfo].layers[0]},
        outs = ["list"],
    )
    return [DefaultInfo(files = made)]

beside = rule(implementation = _impl, attrs = {
    "image": attr.label(providers = [ImageInfo]),
    "layer": attr.label(providers = [LayerInfo]),
})
-- BUILD --
load("//:beside.bzl", "beside")

package(default_visibility = ["//visibility:public"])

image_import(name = "base", BASE)

layer(name = "words", srcs = glob(["words/**"]), prefix = "data")

layer(name = "more", srcs = glob(["more/**"]), prefix = "data")

mw_image(name = "image", base = ":base", layers = [":words", ":more"])

genrule(name = "inside", outs = ["list"], cmd = "find /data | sort > $OUT; cat /data/words/new >> $OUT", image = ":image")

beside(name = "beside", layer = ":words", image = ":base")
-- words/big --
-- words/old/one --
1
-- words/old/two --
2
-- words/same --
-- words/new --
before
-- more/big --
-- more/gone/one --
1
`

// A step sees a layer that stands on a base as it is: with what is new, without what is gone, mounted and as a part of its root.
func TestStepsOnBases(t *testing.T) {
	t.Parallel()
	p := workspace(t, layersWorkspace)
	noise := randomness(t)
	for _, name := range []string{"words/big", "more/big"} {
		big := make([]byte, 100<<10)
		noise.Read(big)
		p.write(name, string(big))
	}
	p.ok("layers", "plan", "//:image")
	if got := strings.Count(p.read("layers.lock"), `"digest"`); got != 2 {
		t.Fatalf("layers.lock has %d bases, want 2:\n%s", got, p.read("layers.lock"))
	}
	p.build("//:all")
	p.write("words/new", "after\n")
	for _, name := range []string{"words/old", "more/gone"} {
		if err := os.RemoveAll(filepath.Join(p.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	p.build("//:image").wantActions(t, 4, false) // the layers' deltas, what they share, and the image

	tarball := filepath.Join(shortDir(t), "out.tar")
	// In this order: builds are compared between engines by their number.
	for _, seen := range []struct{ target, files string }{
		{"//:inside", "list=/data\n/data/more\n/data/more/big\n/data/words\n/data/words/big\n/data/words/new\n/data/words/same\nafter\n"},
		{"//:beside", "list=/in\n/in/data\n/in/data/words\n/in/data/words/big\n/in/data/words/new\n/in/data/words/same\nafter\n"},
	} {
		p.build(seen.target).wantActions(t, 1, true)
		p.ok(seen.target, "-o", "type=oci,compression=none,dest="+tarball)
		if got := strings.Join(layerFiles(t, tarball), " "); got != seen.files {
			t.Errorf("%s made\n%s\nwant\n%s", seen.target, got, seen.files)
		}
	}
}
