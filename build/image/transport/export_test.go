package transport_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/internal/blobtest"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/graph/action"
)

// show lists a folder: mode, path, link or text.
func show(t testing.TB, dir string) []string {
	t.Helper()
	var got []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%v %s", fi.Mode(), rel)
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			line += " -> " + target
		case fi.Mode().IsRegular():
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + string(text)
		}
		got = append(got, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestExportLayout(t *testing.T) {
	b := blobtest.New(t)
	img := sampleImage(t, b)
	img.Layers = append(img.Layers, img.Layers[0]) // twice the same layer; the manifest must say so too
	img = assemble(t, b, nil, image.NamedLayer{Layer: img.Layers[0]}, image.NamedLayer{Layer: img.Layers[1]}, image.NamedLayer{Layer: img.Layers[0]})
	for _, tt := range []struct{ compression, suffix string }{
		{"", "+zstd"}, {"zstd", "+zstd"}, {"gzip", "+gzip"}, {"none", ".tar"},
	} {
		var first ocispecs.Descriptor
		var index string
		dest := filepath.Join(t.TempDir(), "sub", "layout")
		for range 2 { // the second time over the first
			d, err := transport.Export(ctx, b, img, transport.ExportOptions{Type: "oci", Dest: dest, Compression: tt.compression, Name: "example.org/wiki:v1"})
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := os.ReadFile(filepath.Join(dest, "index.json"))
			if index != "" && (d.Digest != first.Digest || string(raw) != index) {
				t.Errorf("%q: the second export differs", tt.compression)
			}
			first, index = d, string(raw)
		}
		if same := first.Digest == img.Manifest.Digest; same != (tt.suffix == "+zstd") {
			t.Errorf("%q: manifest is %s, the image's own is %s", tt.compression, first.Digest, img.Manifest.Digest)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dest), ".*")); len(left) > 0 {
			t.Errorf("%q: left %v", tt.compression, left)
		}
		idx, err := layout.ImageIndexFromPath(dest)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := idx.IndexManifest()
		if len(m.Manifests) != 1 || m.Manifests[0].Annotations[ocispecs.AnnotationRefName] != "v1" || m.Manifests[0].Platform.Architecture != "amd64" {
			t.Errorf("%q: index.json is %s", tt.compression, index)
		}
		got, err := idx.Image(m.Manifests[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		opts := []validate.Option{}
		if tt.compression != "gzip" {
			opts = append(opts, validate.Fast) // the slow way knows gzip only
		}
		if err := validate.Image(got, opts...); err != nil {
			t.Errorf("%q: %v", tt.compression, err)
		}
		manifest, _ := got.Manifest()
		for _, l := range manifest.Layers {
			if !strings.HasSuffix(string(l.MediaType), tt.suffix) {
				t.Errorf("%q: a layer has type %s", tt.compression, l.MediaType)
			}
		}
		if files, _ := filepath.Glob(filepath.Join(dest, "blobs/sha256/*")); len(files) != 4 {
			t.Errorf("%q: %d blobs, want manifest, config and two layers", tt.compression, len(files))
		}
	}
}

func TestExportArchivesAreDeterministic(t *testing.T) {
	b := blobtest.New(t)
	img := sampleImage(t, b)
	for _, typ := range []string{"oci", "docker"} {
		for _, compression := range []string{"", "gzip", "none"} {
			var out [2]bytes.Buffer
			for i := range out {
				opt := transport.ExportOptions{Type: typ, Dest: "-", Stdout: &out[i], Compression: compression, Name: "wiki"}
				if _, err := transport.Export(ctx, b, img, opt); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(out[0].Bytes(), out[1].Bytes()) {
				t.Errorf("%s %q: two exports differ", typ, compression)
			}
		}
	}
}

func TestExportDocker(t *testing.T) {
	b := blobtest.New(t)
	img := sampleImage(t, b)
	dest := filepath.Join(t.TempDir(), "d.tar")
	if _, err := transport.Export(ctx, b, img, transport.ExportOptions{Type: "docker", Dest: dest, Name: "example.org/wiki:v1"}); err != nil {
		t.Fatal(err)
	}
	tag, _ := name.NewTag("example.org/wiki:v1")
	got, err := tarball.ImageFromPath(dest, &tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	if d, _ := got.ConfigName(); d.String() != img.Config.Digest.String() {
		t.Errorf("config is %s, want %s", d, img.Config.Digest)
	}
}

func TestExportDir(t *testing.T) {
	b := blobtest.New(t)
	base := rawLayer(t, b, tarballOf(t, map[string]string{"usr/bin/su": "su", "var/old/a": "a", "var/old/b": "b", "opt/x/y": "y", "gone": "g", "file": "f", "dir/in": "i"},
		tar.Header{Typeflag: tar.TypeReg, Name: "usr/bin/su", Mode: 0o4755},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "bin", Linkname: "usr/bin"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "abs", Linkname: "/usr/bin"},
		tar.Header{Typeflag: tar.TypeDir, Name: "locked/", Mode: 0o555},
		tar.Header{Typeflag: tar.TypeReg, Name: "locked/key"},
		tar.Header{Typeflag: tar.TypeReg, Name: "var/old/a"},
		tar.Header{Typeflag: tar.TypeReg, Name: "var/old/b"},
		tar.Header{Typeflag: tar.TypeReg, Name: "opt/x/y"},
		tar.Header{Typeflag: tar.TypeReg, Name: "gone"},
		tar.Header{Typeflag: tar.TypeReg, Name: "file"},
		tar.Header{Typeflag: tar.TypeReg, Name: "dir/in"},
		tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeLink, Name: "link", Linkname: "usr/bin/su"},
	))
	top := rawLayer(t, b, tarballOf(t, map[string]string{"bin/new": "n", "abs/newer": "m", "var/old/c": "c", "file/now": "d", "dir": "f", "opt/x/z": "z"},
		tar.Header{Typeflag: tar.TypeReg, Name: ".wh.gone"},
		tar.Header{Typeflag: tar.TypeReg, Name: "var/old/c"}, // before the whiteout that must not hit it
		tar.Header{Typeflag: tar.TypeReg, Name: "var/old/.wh..wh..opq"},
		tar.Header{Typeflag: tar.TypeReg, Name: "opt/x/z"},
		tar.Header{Typeflag: tar.TypeReg, Name: "opt/.wh.x"},
		tar.Header{Typeflag: tar.TypeReg, Name: "bin/new"},
		tar.Header{Typeflag: tar.TypeReg, Name: "abs/newer"},
		tar.Header{Typeflag: tar.TypeReg, Name: "locked/more"},
		tar.Header{Typeflag: tar.TypeDir, Name: "file/"},
		tar.Header{Typeflag: tar.TypeReg, Name: "file/now"},
		tar.Header{Typeflag: tar.TypeReg, Name: "dir"},
		tar.Header{Typeflag: tar.TypeReg, Name: ".wh.not-there"},
	))
	img := assemble(t, b, nil, image.NamedLayer{Layer: base}, image.NamedLayer{Layer: top})
	dest := filepath.Join(t.TempDir(), "root")
	opt := transport.ExportOptions{Type: "dir", Dest: dest}
	if _, err := transport.Export(ctx, b, img, opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dest, "locked"), 0o755) })
	want := []string{
		"Lrwxrwxrwx abs -> /usr/bin",
		"Lrwxrwxrwx bin -> usr/bin",
		"drwxr-xr-x dev",
		"-rw-r--r-- dir f",
		"drwxr-xr-x file",
		"-rw-r--r-- file/now d",
		"urwxr-xr-x link su",
		"dr-xr-xr-x locked",
		"-rw-r--r-- locked/key ",
		"-rw-r--r-- locked/more ",
		"drwxr-xr-x opt",
		"drwxr-xr-x opt/x",
		"-rw-r--r-- opt/x/z z",
		"drwxr-xr-x usr",
		"drwxr-xr-x usr/bin",
		"-rw-r--r-- usr/bin/new n",
		"-rw-r--r-- usr/bin/newer m",
		"urwxr-xr-x usr/bin/su su",
		"drwxr-xr-x var",
		"drwxr-xr-x var/old",
		"-rw-r--r-- var/old/c c",
	}
	if diff := cmp.Diff(want, show(t, dest)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if fi, err := os.Stat(filepath.Join(dest, "dir")); err != nil || !fi.ModTime().Equal(time.Unix(0, 0)) {
		t.Errorf("time of a file: %v %v", fi.ModTime(), err)
	}

	// Never over what somebody has there.
	if _, err := transport.Export(ctx, b, img, opt); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("export over a folder with files: error is %v", err)
	}
}

func TestExportDirRefusesEscapes(t *testing.T) {
	reg := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	for name, headers := range map[string][]tar.Header{
		"name":               {reg("../evil")},
		"name in the middle": {reg("a/../../evil")},
		"dot dot":            {{Typeflag: tar.TypeDir, Name: "a/.."}},
		"symlink":            {{Typeflag: tar.TypeSymlink, Name: "out", Linkname: "../.."}, reg("out/evil")},
		"symlink chain":      {{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "b/.."}, {Typeflag: tar.TypeSymlink, Name: "b", Linkname: ".."}, reg("a/evil")},
		"whiteout":           {{Typeflag: tar.TypeSymlink, Name: "out", Linkname: ".."}, reg("out/.wh.victim")},
		"whiteout of dots":   {reg("a/.wh..")},
		"opaque":             {{Typeflag: tar.TypeSymlink, Name: "out", Linkname: ".."}, reg("out/.wh..wh..opq")},
		"hard link":          {{Typeflag: tar.TypeLink, Name: "evil", Linkname: "../victim"}},
		"hard link by link":  {{Typeflag: tar.TypeSymlink, Name: "out", Linkname: ".."}, {Typeflag: tar.TypeLink, Name: "evil", Linkname: "out/victim"}},
		"loop":               {{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "a"}, reg("a/b")},
	} {
		parent := t.TempDir()
		victim := filepath.Join(parent, "victim")
		os.WriteFile(victim, []byte("v"), 0o644)
		os.Chmod(victim, 0o644)
		b := blobtest.New(t)
		img := assemble(t, b, nil, image.NamedLayer{Layer: rawLayer(t, b, tarballOf(t, nil, headers...))})
		if _, err := transport.Export(ctx, b, img, transport.ExportOptions{Type: "dir", Dest: filepath.Join(parent, "root")}); err == nil {
			t.Errorf("%s: no error", name)
		}
		if diff := cmp.Diff([]string{"-rw-r--r-- victim v"}, show(t, parent)); diff != "" {
			t.Errorf("%s: around the export (-want +got):\n%s", name, diff)
		}
	}
	// An absolute link leads to where it leads in a container.
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	os.Mkdir(outside, 0o755)
	b := blobtest.New(t)
	img := assemble(t, b, nil, image.NamedLayer{Layer: rawLayer(t, b, tarballOf(t, nil,
		tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: outside}, reg("out/file")))})
	if _, err := transport.Export(ctx, b, img, transport.ExportOptions{Type: "dir", Dest: filepath.Join(dir, "root")}); err != nil {
		t.Fatal(err)
	}
	if got := show(t, outside); len(got) > 0 {
		t.Errorf("written outside: %v", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "root", outside, "file")); err != nil {
		t.Error(err)
	}
}

func TestExportDirOwners(t *testing.T) {
	b := blobtest.New(t)
	e := file("a/f", "x")
	e.Owner = action.Owner{UID: 33, GID: 34}
	img := assemble(t, b, nil, pack(t, b, e))
	for _, owners := range []bool{false, true} {
		dest := filepath.Join(t.TempDir(), "root")
		_, err := transport.Export(ctx, b, img, transport.ExportOptions{Type: "dir", Dest: dest, Owners: owners})
		if owners && os.Geteuid() != 0 {
			if !errors.Is(err, fs.ErrPermission) {
				t.Errorf("owners without root: error is %v, want that it is not permitted", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Lstat(filepath.Join(dest, "a/f"))
		if err != nil {
			t.Fatal(err)
		}
		st := fi.Sys().(*syscall.Stat_t)
		want := [2]int{os.Geteuid(), os.Getegid()}
		if owners {
			want = [2]int{33, 34}
		}
		if got := [2]int{int(st.Uid), int(st.Gid)}; got != want {
			t.Errorf("owners=%t: owner is %v, want %v", owners, got, want)
		}
	}
}

// A failing or interrupted export leaves what was there.
func TestExportIsAtomic(t *testing.T) {
	b := blobtest.New(t)
	img := sampleImage(t, b)
	dir := t.TempDir()
	for _, opt := range []transport.ExportOptions{
		{Type: "oci", Dest: filepath.Join(dir, "x.tar")},
		{Type: "docker", Dest: filepath.Join(dir, "y.tar")},
		{Type: "oci", Dest: filepath.Join(dir, "layout"), Compression: "gzip"},
		{Type: "dir", Dest: filepath.Join(dir, "root")},
	} {
		if opt.Type != "dir" {
			if _, err := transport.Export(ctx, b, img, opt); err != nil {
				t.Fatal(err)
			}
		}
		before := show(t, dir)
		cctx, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := transport.Export(cctx, b, img, opt); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error is %v, want Canceled", opt.Dest, err)
		}
		damaged := blobtest.New(t)
		other := sampleImage(t, damaged)
		damaged.Damage(t, other.Layers[1].Descriptor)
		if _, err := transport.Export(ctx, damaged, other, opt); err == nil {
			t.Errorf("%s: a damaged layer is no error", opt.Dest)
		}
		if diff := cmp.Diff(before, show(t, dir)); diff != "" {
			t.Errorf("%s: failing exports changed (-before +after):\n%s", opt.Dest, diff)
		}
	}
}

func TestExportRefuses(t *testing.T) {
	b := blobtest.New(t)
	img := sampleImage(t, b)
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "mine"), nil, 0o644)
	for _, tt := range []struct {
		opt  transport.ExportOptions
		want string
	}{
		{transport.ExportOptions{Type: "zip", Dest: "x"}, "must be oci, docker or dir"},
		{transport.ExportOptions{Type: "oci", Dest: "x", Compression: "xz"}, "unknown compression"},
		{transport.ExportOptions{Type: "oci"}, "no destination"},
		{transport.ExportOptions{Type: "dir", Dest: "-", Stdout: io.Discard}, "cannot be written to standard output"},
		{transport.ExportOptions{Type: "oci", Dest: dir}, "neither empty nor an OCI layout"},
		{transport.ExportOptions{Type: "dir", Dest: dir}, "not empty"},
		{transport.ExportOptions{Type: "docker", Dest: "-", Stdout: io.Discard, Name: "UPPER case"}, "repository can only contain"},
	} {
		_, err := transport.Export(ctx, b, img, tt.opt)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: error is %v, want %q", tt.opt, err, tt.want)
		}
	}
}

// What a layout holds besides blobs is JSON that others read.
func TestExportIndexJSON(t *testing.T) {
	b := blobtest.New(t)
	img := sampleImage(t, b)
	dest := filepath.Join(t.TempDir(), "l")
	if _, err := transport.Export(ctx, b, img, transport.ExportOptions{Type: "oci", Dest: dest}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dest, "oci-layout"))
	if err != nil || string(raw) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout is %s, %v", raw, err)
	}
	var idx ocispecs.Index
	raw, _ = os.ReadFile(filepath.Join(dest, "index.json"))
	if err := json.Unmarshal(raw, &idx); err != nil {
		t.Fatal(err)
	}
	want := ocispecs.Descriptor{
		MediaType: ocispecs.MediaTypeImageManifest, Digest: img.Manifest.Digest, Size: img.Manifest.Size,
		Annotations: map[string]string{ocispecs.AnnotationRefName: "latest"}, Platform: &amd64,
	}
	if diff := cmp.Diff([]ocispecs.Descriptor{want}, idx.Manifests); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
