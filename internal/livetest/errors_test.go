//go:build live

package livetest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const plainWorkspace = `
-- BUILD --
image_import(name = "base", BASE)
genrule(name = "step", outs = ["out"], cmd = "echo made > $OUT", image = ":base")
layer(name = "files", srcs = ["a.txt"], prefix = "data")
mw_image(name = "image", layers = [":files"])
-- a.txt --
a
`

// What is missing around mwbuild is named, with what to do about it.
func TestMissing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		says []string
		make func(p *place) (args []string)
	}{
		{"runc", []string{"runc is not installed", "install", "--builder"}, func(p *place) []string {
			p.hide("runc")
			return []string{"//:step"}
		}},
		{"base", []string{"BUILD:1:1", "//:base", "no-such.tar"}, func(p *place) []string {
			p.write("BUILD", fmt.Sprintf("image_import(name = \"base\", tar = \"no-such.tar\", digest = %q)\n", busybox(p.t).digest))
			return []string{"//:base"}
		}},
		{"other base", []string{"//:base", busybox(t).digest.String()}, func(p *place) []string {
			p.write("other.tar", "not that tar")
			p.write("BUILD", fmt.Sprintf("image_import(name = \"base\", tar = \"other.tar\", digest = %q)\n", busybox(p.t).digest))
			return []string{"//:base"}
		}},
		{"registry to push to", []string{"push to 127.0.0.1:1/wiki", "refused"}, func(*place) []string {
			return []string{"//:image", "--push", "127.0.0.1:1/wiki"}
		}},
		{"registry of a base", []string{"//:base", "127.0.0.1:1", "refused"}, func(p *place) []string {
			p.write("BUILD", fmt.Sprintf("image_import(name = \"base\", registry = \"127.0.0.1:1/base\", digest = %q)\n", busybox(p.t).digest))
			return []string{"//:base"}
		}},
		{"builder", []string{"tcp://127.0.0.1:1", "refused"}, func(*place) []string {
			return []string{"//:step", "--builder", "tcp://127.0.0.1:1"}
		}},
		{"folder to export to", []string{"/proc/no"}, func(*place) []string {
			return []string{"//:image", "-o", "type=oci,dest=/proc/no/layout"}
		}},
		{"file to export to", []string{"/proc/no"}, func(*place) []string {
			return []string{"//:image", "-o", "type=docker,dest=/proc/no/image.tar"}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := workspace(t, plainWorkspace)
			args := test.make(p)
			r := p.fails(1, test.says, args...)
			if strings.Contains(r.stderr, "internal error") {
				t.Errorf("it crashed:\n%s", r.stderr)
			}
			t.Logf("%s", r.stderr)
		})
	}
}

// hide takes a program of the machine away from p's mwbuild alone.
func (p *place) hide(program string) {
	p.t.Helper()
	var mounts strings.Builder
	hidden := map[string]bool{}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin", "/sbin") {
		file, err := filepath.EvalSymlinks(filepath.Join(dir, program))
		if err == nil && !hidden[file] {
			hidden[file] = true
			fmt.Fprintf(&mounts, "%s --bind /dev/null '%s'\n", tool(p.t, "mount"), file)
		}
	}
	if len(hidden) == 0 {
		p.t.Fatalf("%s is nowhere", program)
	}
	p.under = []string{tool(p.t, "unshare"), "--mount", "/bin/sh", "-euc", mounts.String() + `exec "$@"`, "sh"}
}

// mount mounts a tmpfs for the test.
func mount(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("live", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// On a full disk a build fails and says so; with room again it goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, target string
		room         int64 // left on the disk
	}{{"at once", "//:image", 0}, {"packing", "//:image", 2 << 20}, {"engine's start", "//:step", 2 << 20}, {"step", "//:big", 16 << 20}} {
		t.Run(test.name, func(t *testing.T) {
			p := workspace(t, plainWorkspace)
			random := make([]byte, 4<<20)
			if _, err := randomness(t).Read(random); err != nil {
				t.Fatal(err)
			}
			p.write("a.txt", string(random))
			p.write("BUILD", p.read("BUILD")+`
genrule(name = "big", srcs = ["a.txt"], outs = ["out"], cmd = "for i in 1 2 3 4 5 6 7 8; do cat a.txt; done > $OUT", image = ":base")
`)
			mount(t, p.cache, "size=192m")
			p.build("//:base") // the database is there already
			if test.target == "//:big" {
				p.build("//:step") // the engine's too
			}
			fill := filepath.Join(p.cache, "fill")
			f, err := os.Create(fill)
			if err != nil {
				t.Fatal(err)
			}
			for {
				if _, err := f.Write(random[:64<<10]); err != nil {
					break
				}
			}
			at, err := f.Seek(0, io.SeekCurrent)
			if err := errors.Join(err, f.Truncate(max(0, at-test.room)), f.Close()); err != nil {
				t.Fatal(err)
			}
			r := p.fails(1, []string{"o space left on device"}, test.target)
			t.Logf("%s", r.stderr)
			if strings.Contains(r.stderr, "internal error") {
				t.Errorf("it crashed:\n%s", r.stderr)
			}
			if err := os.Remove(fill); err != nil {
				t.Fatal(err)
			}
			got := p.build(test.target).digest(t, test.target)
			if want := p.freshCache().build(test.target).digest(t, test.target); got != want {
				t.Errorf("after the full disk %s, in a fresh cache %s", got, want)
			}
		})
	}
}

// A cache that may only be read serves what it has.
func TestReadOnlyCache(t *testing.T) {
	t.Parallel()
	p := workspace(t, plainWorkspace)
	mount(t, p.cache, "size=256m")
	want := p.build("//...").digests()
	if err := syscall.Mount("live", p.cache, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	r := p.build("//...")
	r.wantActions(t, 0, false)
	if got := r.digests(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("read-only %v, before %v", got, want)
	}
	tarball := filepath.Join(shortDir(t), "image.tar")
	p.ok("//:image", "-o", "type=oci,compression=none,dest="+tarball)
	if got := layerFiles(t, tarball); !slices.Equal(got, []string{"data/a.txt=a\n"}) {
		t.Errorf("exported %q", got)
	}

	p.write("a.txt", "changed\n")
	res := p.fails(1, []string{"read-only file system"}, "//:image")
	t.Logf("%s", res.stderr)
}
