package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/internal/blobtest"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/graph/action"
)

var ctx = context.Background()

// file is an entry with its bytes, and the right sum.
func file(path, text string) layer.Entry {
	return layer.Entry{
		Path: path, Size: int64(len(text)), SHA256: sha256.Sum256([]byte(text)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil },
	}
}

func executable(e layer.Entry) layer.Entry { e.Exec = true; return e }

func owned(e layer.Entry, uid, gid int) layer.Entry {
	e.Owner = action.Owner{UID: uid, GID: gid}
	return e
}

func pack(t testing.TB, b image.Blobs, opt layer.Options, entries ...layer.Entry) image.Layer {
	t.Helper()
	l, err := layer.Pack(ctx, b, entries, opt)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// list shows a layer's members, one a line.
func list(t testing.TB, b image.Blobs, l image.Layer) []string {
	t.Helper()
	var got []string
	err := layer.Walk(ctx, b.Content(), l.Descriptor, func(h *tar.Header, r io.Reader) error {
		text, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if !h.ModTime.Equal(time.Unix(0, 0)) || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s: time %v, user %q, group %q", h.Name, h.ModTime, h.Uname, h.Gname)
		}
		line := fmt.Sprintf("%c %04o %d:%d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if len(text) > 0 {
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

var sample = []layer.Entry{
	file("srv/mediawiki/index.php", "<?php\n"),
	executable(file("srv/mediawiki/maintenance/run", "#!/bin/sh\n")),
	{Path: "srv/mediawiki/latest", Kind: layer.Symlink, Target: "../elsewhere/no"},
	{Path: "srv/mediawiki/cache", Kind: layer.Dir, Owner: action.Owner{UID: 33, GID: 33}},
	file("srv/mediawiki-config", ""),
	file("srv/Ünï/"+strings.Repeat("long-", 30)+"/"+strings.Repeat("x", 120), "deep"),
	{Path: "a-link", Kind: layer.Hardlink, Target: "srv/mediawiki/index.php"},
	{Path: "z-link", Kind: layer.Hardlink, Target: "a-link"},
	owned(file("big-owner", "b"), 5_000_000, 5_000_000),
}

func TestPack(t *testing.T) {
	b := blobtest.New(t)
	l := pack(t, b, layer.Options{Owner: action.Owner{UID: 1, GID: 2}}, sample...)
	want := []string{
		"0 0644 0:0 a-link <?php\n",
		"0 0644 5000000:5000000 big-owner b",
		"5 0755 1:2 srv/",
		"5 0755 1:2 srv/mediawiki/",
		"0 0644 0:0 srv/mediawiki-config",
		"5 0755 33:33 srv/mediawiki/cache/",
		"1 0644 0:0 srv/mediawiki/index.php -> a-link",
		"2 0777 0:0 srv/mediawiki/latest -> ../elsewhere/no",
		"5 0755 1:2 srv/mediawiki/maintenance/",
		"0 0755 0:0 srv/mediawiki/maintenance/run #!/bin/sh\n",
		"5 0755 1:2 srv/Ünï/",
		"5 0755 1:2 srv/Ünï/" + strings.Repeat("long-", 30) + "/",
		"0 0644 0:0 srv/Ünï/" + strings.Repeat("long-", 30) + "/" + strings.Repeat("x", 120) + " deep",
		"1 0644 0:0 z-link -> a-link",
	}
	if diff := cmp.Diff(want, list(t, b, l)); diff != "" {
		t.Errorf("Pack (-want +got):\n%s", diff)
	}
}

// The bytes of layers are in registries and caches: if one of these digests changes, PackerVersion must rise with it.
func TestPackGolden(t *testing.T) {
	if layer.PackerVersion != 2 {
		t.Errorf("PackerVersion is %d: replace the digests, then this number", layer.PackerVersion)
	}
	// Compressible and incompressible bytes, over several blocks and more than one window.
	rnd := rand.New(rand.NewChaCha8([32]byte{1}))
	var text bytes.Buffer
	for text.Len() < 9<<20 {
		fmt.Fprintf(&text, "function f%d() { return %d; }\n", rnd.IntN(500), rnd.Uint64N(1<<40))
		if rnd.IntN(1000) == 0 {
			text.Write(text.Bytes()[:rnd.IntN(text.Len())])
		}
	}
	for _, tt := range []struct {
		name    string
		entries []layer.Entry
		blob    string
		diffID  string
	}{
		{"empty", nil,
			"sha256:2c1ce468d9f3d941396801f6e3afc8921466650dd05430fe644cd3537713d27f", "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"},
		{"sample", sample,
			"sha256:40055f018ab49de15c26a80ae14bcb43ee4dc2e31bc8efdc2bb8e74f4ebf2206", "sha256:e48a88f2be193a2531979300b9ac0f6461f96c4ca81b1221f51c03d435159470"},
		{"large", []layer.Entry{file("large", text.String()), file("small", "small")},
			"sha256:6e1ae6f9c090034284ca3a74a85a0161321257912fc97d39843f527a9642c830", "sha256:066fac2fd96a8f013a18e0ae3f147c09f0b4c1dbe3cd3851b7a70db1c8ee05d2"},
	} {
		// The second time, with an encoder that was used before.
		for range 2 {
			l := pack(t, blobtest.New(t), layer.Options{}, tt.entries...)
			if got := l.Descriptor.Digest.String(); got != tt.blob {
				t.Errorf("%s: blob is %s, want %s", tt.name, got, tt.blob)
			}
			if got := l.DiffID.String(); got != tt.diffID {
				t.Errorf("%s: diff id is %s, want %s", tt.name, got, tt.diffID)
			}
		}
	}
}

func TestPackRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entries []layer.Entry
		want    string
	}{
		{"twice", []layer.Entry{file("a", "1"), file("a", "1")}, "a is put into the layer twice"},
		{"dir and file", []layer.Entry{file("a", "1"), {Path: "a", Kind: layer.Dir}}, "twice"},
		{"dirs of two owners", []layer.Entry{{Path: "a", Kind: layer.Dir}, owned(layer.Entry{Path: "a", Kind: layer.Dir}, 1, 1)}, "twice"},
		{"below a file", []layer.Entry{file("a", "1"), file("a/b/c", "1")}, "a is no directory"},
		{"below a symlink", []layer.Entry{{Path: "a", Kind: layer.Symlink, Target: "b"}, file("a/c", "1")}, "a is no directory"},
		{"absolute", []layer.Entry{file("/a", "1")}, "no clean path"},
		{"escaping", []layer.Entry{file("../a", "1")}, "no clean path"},
		{"root", []layer.Entry{{Path: ".", Kind: layer.Dir}}, "no clean path"},
		{"whiteout", []layer.Entry{file("a/.wh.b", "")}, "means a deletion"},
		{"dangling link", []layer.Entry{{Path: "a", Kind: layer.Hardlink, Target: "b"}}, "no file of the layer"},
		{"link to a directory", []layer.Entry{file("b/c", "1"), {Path: "a", Kind: layer.Hardlink, Target: "b"}}, "no file of the layer"},
		{"links in a circle", []layer.Entry{{Path: "a", Kind: layer.Hardlink, Target: "b"}, {Path: "b", Kind: layer.Hardlink, Target: "a"}}, "circle"},
	} {
		b := blobtest.New(t)
		_, err := layer.Pack(ctx, b, tt.entries, layer.Options{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error is %v, want %q", tt.name, err, tt.want)
		}
		if got := b.Blobs(t); len(got) > 0 {
			t.Errorf("%s: left %v in the store", tt.name, got)
		}
	}
}

func TestPackSameDirTwice(t *testing.T) {
	b := blobtest.New(t)
	d := layer.Entry{Path: "cache", Kind: layer.Dir}
	want := []string{"5 0755 0:0 cache/"}
	if diff := cmp.Diff(want, list(t, b, pack(t, b, layer.Options{}, d, d))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPackChanged(t *testing.T) {
	with := func(f func(*layer.Entry)) layer.Entry {
		e := file("dir/f", "twelve bytes")
		f(&e)
		return e
	}
	for name, e := range map[string]layer.Entry{
		"other bytes": with(func(e *layer.Entry) { e.SHA256[0]++ }),
		"grown":       with(func(e *layer.Entry) { e.Size-- }),
		"shrunk":      with(func(e *layer.Entry) { e.Size++ }),
		"deleted": with(func(e *layer.Entry) {
			e.Open = func() (io.ReadCloser, error) { return os.Open("/nonexistent") }
		}),
	} {
		b := blobtest.New(t)
		_, err := layer.Pack(ctx, b, []layer.Entry{file("a", "a"), e}, layer.Options{})
		var changed *layer.ChangedError
		if !errors.As(err, &changed) || changed.Path != "dir/f" {
			t.Errorf("%s: error is %v, want a ChangedError of dir/f", name, err)
		}
		if got := b.Blobs(t); len(got) > 0 {
			t.Errorf("%s: left %v in the store", name, got)
		}
		// What failed does not spoil the next one.
		want := pack(t, blobtest.New(t), layer.Options{}, file("a", "a"))
		if got := pack(t, b, layer.Options{}, file("a", "a")); got.Descriptor.Digest != want.Descriptor.Digest {
			t.Errorf("%s: the next layer is another", name)
		}
	}
}

// inMemory is a layer.InMemory.
type inMemory struct{ *bytes.Buffer }

func (inMemory) Close() error { return nil }

// Where the bytes come from makes no difference, nor does how the reader cuts them.
func TestPackInMemory(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 100_000)
	kept := func(e layer.Entry, text string) layer.Entry {
		e.Open = func() (io.ReadCloser, error) { return inMemory{bytes.NewBufferString(text)}, nil }
		return e
	}
	b := blobtest.New(t)
	for _, size := range []int{0, 1, 256 << 10, 256<<10 + 1, 700_000, len(text)} {
		entries := []layer.Entry{file("a", "a"), file("b", text[:size]), file("c", "c")}
		want := pack(t, b, layer.Options{}, entries...)
		entries[1] = kept(entries[1], text[:size])
		if got := pack(t, b, layer.Options{}, entries...); got.Descriptor.Digest != want.Descriptor.Digest {
			t.Errorf("%d bytes: %s, want %s", size, got.Descriptor.Digest, want.Descriptor.Digest)
		}
		entries[1].Open = func() (io.ReadCloser, error) {
			return io.NopCloser(iotest.OneByteReader(strings.NewReader(text[:size]))), nil
		}
		if size < 300_000 {
			if got := pack(t, b, layer.Options{}, entries...); got.Descriptor.Digest != want.Descriptor.Digest {
				t.Errorf("%d bytes, one by one: %s, want %s", size, got.Descriptor.Digest, want.Descriptor.Digest)
			}
		}
	}
	for _, other := range []string{"", "texts", "tex", "tixt"} {
		_, err := layer.Pack(ctx, b, []layer.Entry{kept(file("f", "text"), other)}, layer.Options{})
		if changed := new(*layer.ChangedError); !errors.As(err, changed) {
			t.Errorf("%q for text: error is %v, want a ChangedError", other, err)
		}
	}
}

func TestPackCancelled(t *testing.T) {
	cctx, cancel := context.WithCancel(ctx)
	cancel()
	b := blobtest.New(t)
	if _, err := layer.Pack(cctx, b, sample, layer.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want Canceled", err)
	}
	if got := b.Blobs(t); len(got) > 0 {
		t.Errorf("left %v in the store", got)
	}
}

// tree gives the entries of a folder, as the build does: of a mode, only whether it is executable.
func tree(t testing.TB, root string) []layer.Entry {
	t.Helper()
	var entries []layer.Entry
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		e := layer.Entry{Path: filepath.ToSlash(rel)}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			e.Kind = layer.Symlink
			e.Target, err = os.Readlink(p)
		case fi.Mode().IsRegular():
			e.Size, e.Exec = fi.Size(), fi.Mode()&0o111 != 0
			e.Open = func() (io.ReadCloser, error) { return os.Open(p) }
		default:
			return nil
		}
		entries = append(entries, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestSameTreeSameDigest(t *testing.T) {
	lay := func(perm fs.FileMode, when time.Time) string {
		dir := t.TempDir()
		for name, text := range map[string]string{"x/one.php": "1", "x/y/two.php": "2", "bin/run": "r"} {
			p := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(p), perm|0o111); err != nil {
				t.Fatal(err)
			}
			mode := perm &^ 0o111
			if name == "bin/run" {
				mode |= 0o100
			}
			if err := os.WriteFile(p, []byte(text), mode); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Chmod(p, mode), os.Chtimes(p, when, when)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("two.php", filepath.Join(dir, "x/y/link")); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	a := pack(t, blobtest.New(t), layer.Options{}, tree(t, lay(0o700, time.Unix(1e9, 5)))...)
	b := pack(t, blobtest.New(t), layer.Options{}, tree(t, lay(0o777, time.Now()))...)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("two folders with the same tree differ:\n%s", diff)
	}
}

// genEntries draws a tree of entries: files, links and directories under few names, so that they meet.
func genEntries(t *rapid.T) []layer.Entry {
	part := rapid.SampledFrom([]string{"a", "b", "a-b", "ab", "-", "é", strings.Repeat("n", 101)})
	seen := map[string]layer.Kind{}
	var files []string
	var entries []layer.Entry
	for range rapid.IntRange(0, 15).Draw(t, "entries") {
		p := strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "path"), "/")
		free := true
		for q := range seen {
			free = free && !strings.HasPrefix(q+"/", p+"/") && !strings.HasPrefix(p+"/", q+"/")
		}
		if !free {
			continue
		}
		e := file(p, string(rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "bytes")))
		e.Owner = action.Owner{UID: rapid.IntRange(0, 3).Draw(t, "uid"), GID: rapid.IntRange(0, 3).Draw(t, "gid")}
		switch k := rapid.SampledFrom([]layer.Kind{layer.File, layer.Symlink, layer.Dir, layer.Hardlink}).Draw(t, "kind"); {
		case k == layer.Hardlink && len(files) > 0:
			e = layer.Entry{Path: p, Kind: k, Target: rapid.SampledFrom(files).Draw(t, "target")}
		case k == layer.Symlink:
			e = layer.Entry{Path: p, Kind: k, Target: rapid.StringMatching(`[a-zé./]{1,120}`).Draw(t, "text"), Owner: e.Owner}
		case k == layer.Dir:
			e = layer.Entry{Path: p, Kind: k, Owner: e.Owner}
		default:
			e.Exec = rapid.Bool().Draw(t, "exec")
			files = append(files, p)
		}
		seen[p] = e.Kind
		entries = append(entries, e)
	}
	return entries
}

// members is what a layer means: by path, the kind, mode, owner and bytes, hard links resolved.
func members(t *rapid.T, b image.Blobs, l image.Layer) map[string]string {
	m := map[string]string{}
	var last string
	err := layer.Walk(ctx, b.Content(), l.Descriptor, func(h *tar.Header, r io.Reader) error {
		name := strings.TrimSuffix(h.Name, "/")
		text, err := io.ReadAll(r)
		if h.Typeflag == tar.TypeLink {
			if m[name] = m[h.Linkname]; m[name] == "" {
				t.Errorf("%s comes before the file %s that it links to", name, h.Linkname)
			}
			return err
		}
		if dir := filepath.Dir(name); dir != "." && m[dir] == "" {
			t.Errorf("%s comes before its directory", name)
		}
		if name <= last {
			t.Errorf("%s comes after %s", name, last)
		}
		last = name
		m[name] = fmt.Sprintf("%c %o %d:%d %q %q", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPackWalkRoundTrip(t *testing.T) {
	b := blobtest.New(t)
	rapid.Check(t, func(t *rapid.T) {
		entries := genEntries(t)
		l, err := layer.Pack(ctx, b, entries, layer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for _, e := range entries {
			for d := filepath.Dir(e.Path); d != "."; d = filepath.Dir(d) {
				if want[d] == "" {
					want[d] = `5 755 0:0 "" ""`
				}
			}
			switch e.Kind {
			case layer.File:
				r, _ := e.Open()
				text, _ := io.ReadAll(r)
				mode := 0o644
				if e.Exec {
					mode = 0o755
				}
				want[e.Path] = fmt.Sprintf("0 %o %d:%d %q %q", mode, e.Owner.UID, e.Owner.GID, "", text)
			case layer.Symlink:
				want[e.Path] = fmt.Sprintf("2 777 %d:%d %q %q", e.Owner.UID, e.Owner.GID, e.Target, "")
			case layer.Dir:
				want[e.Path] = fmt.Sprintf("5 755 %d:%d %q %q", e.Owner.UID, e.Owner.GID, "", "")
			}
		}
		for _, e := range entries {
			if e.Kind == layer.Hardlink {
				want[e.Path] = want[e.Target]
			}
		}
		if diff := cmp.Diff(want, members(t, b, l)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}

		shuffled := slices.Clone(entries)
		for i, j := range rapid.Permutation(seq(len(entries))).Draw(t, "order") {
			shuffled[i] = entries[j]
		}
		again, err := layer.Pack(ctx, b, shuffled, layer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(l, again); diff != "" {
			t.Fatalf("another order of the entries gives another layer:\n%s", diff)
		}

		// A layer of ours is normal already, and taking it apart loses nothing.
		normal, err := layer.Normalise(ctx, b, l.Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(l, normal); diff != "" {
			t.Fatalf("Normalise changed our own layer:\n%s", diff)
		}
		c, err := layer.Open(ctx, b.Content(), l.Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		parts, err := c.Entries("", "")
		if err != nil {
			t.Fatal(err)
		}
		repacked, err := layer.Pack(ctx, b, parts, layer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(l, repacked); diff != "" {
			t.Fatalf("packing the layer's entries gives another layer:\n%s", diff)
		}
	})
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}
