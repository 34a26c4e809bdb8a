//go:build live

package livetest

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// examples/compiled: a program that a step compiled, alone in its image, runs as the user that the image names, who is not
// root and owns nothing there. Another user is another image, and nothing is compiled for it.
func TestStaticProgram(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shortDir(t), "compiled")
	command(t, repo, "examples/compiled/lay", dir)
	p := newPlace(t, dir)
	first := p.build("//who:image")
	first.wantActions(t, 5, true)

	root := unpackImage(t, p, "//who:image")
	if got := treeFiles(t, filepath.Join(root, "rootfs")); fmt.Sprint(got) != "[usr/bin/who]" {
		t.Errorf("the image holds %v", got)
	}
	program, err := elf.Open(filepath.Join(root, "rootfs/usr/bin/who"))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if needs, err := program.ImportedLibraries(); err != nil || len(needs) > 0 || program.Section(".interp") != nil {
		t.Errorf("the program is not static: it needs %v, %v", needs, err)
	}
	if got, want := runImage(t, root), "uid 900, gid 900, groups []\nopen /usr/bin/who: permission denied\n"; got != want {
		t.Errorf("it says\n%s, want\n%s", got, want)
	}

	p.write("who/BUILD", strings.Replace(p.read("who/BUILD"), "    entrypoint", "    user = \"1234:5678\",\n    entrypoint", 1))
	p.build("//who:image").wantActions(t, 1, false)
	if got := runImage(t, unpackImage(t, p, "//who:image")); !strings.HasPrefix(got, "uid 1234, gid 5678, ") {
		t.Errorf("as another user it says\n%s", got)
	}

	// What the policy of the example refuses, at the value that wants it.
	b := busybox(t)
	p.write("other/BUILD", fmt.Sprintf("image_import(name = \"other\", tar = %q, digest = %q, visibility = [\"//visibility:public\"])\n", b.tar, b.digest))
	build := p.read("who/BUILD")
	for _, test := range []struct{ old, new, says string }{
		{`user = "1234:5678"`, `user = "0:0"`,
			"//who:image: user: 0:0 is root, who can change every file of the image\n    name another, such as 900:900; if it must be root, set allow_root = True"},
		{`user = "1234:5678"`, `user = "0", allow_root = True`, "//who:image: user: 0 is root, which the policy() in WORKSPACE refuses"},
		{`user = "1234:5678"`, `base = "//other"`,
			"//who:image: base: it stands on //other:other, which the policy() in WORKSPACE does not allow\n    bases are //go, scratch"},
		{`image = "//go"`, `network = True, image = "//go"`, "//who:compile: network: it uses the network, which the policy() in WORKSPACE refuses"},
	} {
		before, _, ok := strings.Cut(build, test.old)
		if !ok {
			t.Fatalf("no %s in the example", test.old)
		}
		line := strings.Count(before, "\n") + 1
		column := len(before) - strings.LastIndex(before, "\n") + strings.Index(test.new, "= ") + len("= ")
		p.write("who/BUILD", strings.Replace(build, test.old, test.new, 1))
		p.fails(1, []string{fmt.Sprintf("who/BUILD:%d:%d: %s", line, column, test.says)}, "//who:image")
	}
	p.write("who/BUILD", build)
	p.build("//who:image").wantActions(t, 0, false)
}

// unpackImage exports an image and has umoci make a bundle of it, for runc.
func unpackImage(t *testing.T, p *place, target string) (bundle string) {
	t.Helper()
	dir := shortDir(t)
	layout := filepath.Join(dir, "layout")
	p.ok(target, "-o", "type=oci,compression=gzip,dest="+layout)
	bundle = filepath.Join(dir, "bundle")
	command(t, "", tool(t, "umoci"), "unpack", "--image", layout+":latest", bundle)
	return bundle
}

// treeFiles are the files below dir, folders left out.
func treeFiles(t *testing.T, dir string) []string {
	t.Helper()
	return lines(command(t, dir, "find", ".", "!", "-type", "d", "-printf", "%P\n"))
}

// runImage runs a bundle's program in a container, as whom and how its image says, and returns what it prints.
func runImage(t *testing.T, bundle string) string {
	t.Helper()
	file := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(b, &config); err != nil {
		t.Fatal(err)
	}
	config["process"].(map[string]any)["terminal"] = false
	config["root"].(map[string]any)["readonly"] = true
	if b, err = json.Marshal(config); err == nil {
		err = os.WriteFile(file, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	runc := "/usr/sbin/runc"
	if !isFile(runc) {
		runc = tool(t, "runc")
	}
	return command(t, bundle, runc, "--root", filepath.Join(shortDir(t), "runc"), "run", "live-"+filepath.Base(filepath.Dir(bundle)))
}
