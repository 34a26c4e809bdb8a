package layer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/internal/blobtest"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/graph/action"
)

// foreign is a layer as others write them: unsorted, with names, times, whiteouts, odd modes.
func foreign(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "./usr/bin/sudo", Mode: 0o4755, Uname: "root", Size: 4},
		{Typeflag: tar.TypeReg, Name: "./usr/bin/ping", Mode: 0o755, Size: 4,
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "cap", "SCHILY.xattr.user.note": "x"}},
		{Typeflag: tar.TypeLink, Name: "usr/bin/ping4", Linkname: "./usr/bin/ping"},
		{Typeflag: tar.TypeDir, Name: "usr/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "usr/bin", Mode: 0o555, Uid: 7, Gid: 8},
		{Typeflag: tar.TypeReg, Name: "usr/bin/.wh.old", Mode: 0o600},
		{Typeflag: tar.TypeReg, Name: "usr/.wh..wh..opq"},
		{Typeflag: tar.TypeSymlink, Name: "sbin", Linkname: "usr/bin"},
		{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeReg, Name: "dup", Mode: 0o644, Size: 5},
		{Typeflag: tar.TypeReg, Name: "dup", Mode: 0o600, Size: 6},
	} {
		h.ModTime = time.Now()
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(tw, "abcdef"[:h.Size])
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

func zstded(b []byte) []byte {
	e, _ := zstd.NewWriter(nil)
	return e.EncodeAll(b, nil)
}

var foreignNormal = []string{
	"5 0755 0:0 ./",
	"3 0666 0:0 dev/null",
	"0 0600 0:0 dup abcdef",
	"2 0777 0:0 sbin -> usr/bin",
	"5 0755 0:0 usr/",
	"0 0000 0:0 usr/.wh..wh..opq",
	"5 0555 7:8 usr/bin/",
	"0 0600 0:0 usr/bin/.wh.old",
	"0 0755 0:0 usr/bin/ping abcd",
	"1 0755 0:0 usr/bin/ping4 -> usr/bin/ping",
	"0 4755 0:0 usr/bin/sudo abcd",
}

func TestNormalise(t *testing.T) {
	raw := foreign(t)
	b := blobtest.New(t)
	var first string
	for name, blob := range map[string][]byte{"plain": raw, "gzip": gzipped(raw), "zstd": zstded(raw)} {
		// A media type that lies must not matter.
		d, err := b.Put(ctx, ocispecs.MediaTypeImageLayerGzip, blob)
		if err != nil {
			t.Fatal(err)
		}
		l, err := layer.Normalise(ctx, b, d)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(foreignNormal, list(t, b, l)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if first == "" {
			first = l.Descriptor.Digest.String()
		} else if got := l.Descriptor.Digest.String(); got != first {
			t.Errorf("%s gives another layer, %s and not %s", name, got, first)
		}
		xattrs := map[string]map[string]string{}
		layer.Walk(ctx, b.Content(), l.Descriptor, func(h *tar.Header, _ io.Reader) error {
			if len(h.PAXRecords) > 0 {
				xattrs[h.Name] = h.PAXRecords
			}
			return nil
		})
		want := map[string]map[string]string{"usr/bin/ping": {"SCHILY.xattr.security.capability": "cap"}}
		if diff := cmp.Diff(want, xattrs); diff != "" {
			t.Errorf("%s: extended attributes (-want +got):\n%s", name, diff)
		}
	}
}

func TestFromTar(t *testing.T) {
	b := blobtest.New(t)
	l, err := layer.FromTar(ctx, b, bytes.NewReader(gzipped(foreign(t))))
	if err != nil {
		t.Fatal(err)
	}
	want := append([]string{foreignNormal[0]}, foreignNormal[2:]...)
	if diff := cmp.Diff(want, list(t, b, l)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNormaliseRefuses(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"escape":      {Typeflag: tar.TypeReg, Name: "../etc/passwd"},
		"escape deep": {Typeflag: tar.TypeReg, Name: "a/../../etc/passwd"},
		"hard link":   {Typeflag: tar.TypeLink, Name: "a", Linkname: "../../etc/passwd"},
		"root link":   {Typeflag: tar.TypeSymlink, Name: ".", Linkname: "etc"},
	} {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		tw.Close()
		b := blobtest.New(t)
		d, _ := b.Put(ctx, ocispecs.MediaTypeImageLayer, buf.Bytes())
		if l, err := layer.Normalise(ctx, b, d); err == nil {
			t.Errorf("%s: got %v, want an error", name, list(t, b, l))
		}
	}
}

func TestDamagedBlob(t *testing.T) {
	b := blobtest.New(t)
	l := pack(t, b, layer.Options{}, sample...)
	b.Damage(t, l.Descriptor)
	err := layer.Walk(ctx, b.Content(), l.Descriptor, func(*tar.Header, io.Reader) error { return nil })
	if err == nil || !strings.Contains(err.Error(), l.Descriptor.Digest.String()) {
		t.Errorf("Walk of a damaged blob: error is %v", err)
	}
	if _, err := layer.Open(ctx, b.Content(), l.Descriptor); err == nil {
		t.Error("Open of a damaged blob: no error")
	}
	// Trailing bytes that no decompressor looks at count too.
	d, _ := b.Put(ctx, ocispecs.MediaTypeImageLayer, append(foreign(t), 0, 0, 0, 1))
	b.Damage(t, d)
	if err := layer.Walk(ctx, b.Content(), d, func(*tar.Header, io.Reader) error { return nil }); err == nil {
		t.Error("Walk of a blob damaged at its end: no error")
	}
}

func TestEntries(t *testing.T) {
	b := blobtest.New(t)
	l := pack(t, b, layer.Options{},
		owned(file("out/i18n/en.json", "{}"), 33, 33),
		executable(file("out/bin/run", "#!")),
		layer.Entry{Path: "out/bin/again", Kind: layer.Symlink, Target: "../../out/bin/run"},
		layer.Entry{Path: "out/link", Kind: layer.Hardlink, Target: "out/bin/run"},
		layer.Entry{Path: "out/zlink", Kind: layer.Hardlink, Target: "out/bin/run"},
		layer.Entry{Path: "out/empty", Kind: layer.Dir, Owner: action.Owner{UID: 33, GID: 33}},
		file("outside", "x"),
	)
	c, err := layer.Open(ctx, b.Content(), l.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tt := range []struct {
		from, dest string
		want       []string
	}{
		{"out", "srv/x", []string{
			"5 0755 0:0 srv/", "5 0755 0:0 srv/x/", "5 0755 0:0 srv/x/bin/",
			"2 0777 0:0 srv/x/bin/again -> ../../out/bin/run",
			"0 0755 0:0 srv/x/bin/run #!",
			"5 0755 33:33 srv/x/empty/", "5 0755 0:0 srv/x/i18n/", "0 0644 33:33 srv/x/i18n/en.json {}",
			"1 0755 0:0 srv/x/link -> srv/x/bin/run", "1 0755 0:0 srv/x/zlink -> srv/x/bin/run"}},
		{"out/i18n/en.json", "en.json", []string{"0 0644 33:33 en.json {}"}},
		{"out/link", "a/run", []string{"5 0755 0:0 a/", "0 0755 0:0 a/run #!"}},
		{"out/i18n", "", []string{"0 0644 33:33 en.json {}"}},
		{"out/empty", "images", []string{"5 0755 33:33 images/"}},
		{"outside", "outside", []string{"0 0644 0:0 outside x"}},
	} {
		entries, err := c.Entries(tt.from, tt.dest)
		if err != nil {
			t.Errorf("Entries(%q, %q): %v", tt.from, tt.dest, err)
			continue
		}
		if diff := cmp.Diff(tt.want, list(t, b, pack(t, b, layer.Options{}, entries...))); diff != "" {
			t.Errorf("Entries(%q, %q) (-want +got):\n%s", tt.from, tt.dest, diff)
		}
	}
	for _, from := range []string{"ou", "out/i18n/de.json", "out/link/x"} {
		if _, err := c.Entries(from, "x"); err == nil || !strings.Contains(err.Error(), "it holds out, outside") {
			t.Errorf("Entries(%q): error is %v", from, err)
		}
	}
	for _, bad := range [][2]string{{"../x", "x"}, {"out", "../x"}, {"outside", ""}} {
		if _, err := c.Entries(bad[0], bad[1]); err == nil {
			t.Errorf("Entries(%q): no error", bad)
		}
	}
}

func TestEntriesForeign(t *testing.T) {
	b := blobtest.New(t)
	d, _ := b.Put(ctx, ocispecs.MediaTypeImageLayer, foreign(t))
	c, err := layer.Open(ctx, b.Content(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Entries("", "x"); err == nil || !strings.Contains(err.Error(), "dev/null") {
		t.Errorf("Entries with a device: error is %v", err)
	}
	entries, err := c.Entries("usr", "usr")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"5 0755 0:0 usr/", "5 0755 7:8 usr/bin/", "0 0755 0:0 usr/bin/ping abcd",
		"1 0755 0:0 usr/bin/ping4 -> usr/bin/ping", "0 0755 0:0 usr/bin/sudo abcd",
	}
	if diff := cmp.Diff(want, list(t, b, pack(t, b, layer.Options{}, entries...))); diff != "" {
		t.Errorf("whiteouts out, modes reduced (-want +got):\n%s", diff)
	}
}

// A layer larger than what is kept in memory.
func TestOpenLarge(t *testing.T) {
	b := blobtest.New(t)
	one, two := strings.Repeat("0123456789abcdef", 1<<20), strings.Repeat("x", 5<<20)
	l := pack(t, b, layer.Options{}, file("a", one), file("b", two), file("c", "end"))
	again, err := layer.Normalise(ctx, b, l.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l, again); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCompress(t *testing.T) {
	b := blobtest.New(t)
	raw := foreign(t)
	l, err := layer.Compress(ctx, b, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	r, err := layer.OpenBlob(ctx, b.Content(), l.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%d bytes, %v; want those that were compressed", len(got), err)
	}
	if want := ocispecs.MediaTypeImageLayerZstd; l.Descriptor.MediaType != want {
		t.Errorf("media type is %s", l.Descriptor.MediaType)
	}
}

// A memory keeps the last blob.
type memory struct {
	image.Blobs
	blob bytes.Buffer
}

func (m *memory) Ingest(ctx context.Context, t string, write func(io.Writer) error) (ocispecs.Descriptor, error) {
	m.blob.Reset()
	err := write(&m.blob)
	return ocispecs.Descriptor{}, err
}

// FuzzFromTar: any bytes at all are an error or a layer that is normal already.
func FuzzFromTar(f *testing.F) {
	f.Add(foreign(f))
	f.Add(gzipped(foreign(f)))
	f.Add(zstded(foreign(f)))
	f.Fuzz(func(t *testing.T, blob []byte) {
		var m memory
		if _, err := layer.FromTar(ctx, &m, io.LimitReader(bytes.NewReader(blob), 1<<20)); err != nil {
			return
		}
		first := bytes.Clone(m.blob.Bytes())
		if _, err := layer.FromTar(ctx, &m, bytes.NewReader(first)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, m.blob.Bytes()) {
			t.Error("what FromTar packed is packed otherwise the second time")
		}
	})
}
