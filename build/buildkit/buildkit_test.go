package buildkit

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/lower"
)

func TestLastLines(t *testing.T) {
	for _, test := range []struct {
		in   string
		n    int
		want string
	}{
		{"", 2, ""},
		{"a", 2, "a"},
		{"a\nb\n", 2, "a\nb\n"},
		{"a\nb\nc\n", 2, "b\nc\n"},
		{"a\nb\nc", 2, "b\nc"},
		{"\n\n\n", 1, "\n"},
	} {
		if got := string(lastLines([]byte(test.in), test.n)); got != test.want {
			t.Errorf("lastLines(%q, %d) = %q, want %q", test.in, test.n, got, test.want)
		}
	}
}

func TestStepLog(t *testing.T) {
	l := &stepLog{streams: map[int]*stream{}}
	l.add(2, []byte("error: the cause\n"))
	for i := range 1000 {
		l.add(1, fmt.Appendf(nil, "out %d\nout", i))
		l.add(1, []byte(" again\n"))
	}
	l.add(2, bytes.Repeat([]byte("x"), 3*lineBytes))
	l.add(2, []byte("x\nno newline"))
	got := strings.Split(string(l.end()), "\n")
	n := len(got) - 1 // all end in a newline
	if n != logLines || got[n] != "" {
		t.Fatalf("%d lines: %q", n, got)
	}
	for at, want := range map[int]string{0: "error: the cause", n - 4: "out 999", n - 3: "out again", n - 2: strings.Repeat("x", lineBytes), n - 1: "no newline"} {
		if got[at] != want {
			t.Errorf("line %d is %q, want %q", at, got[at], want)
		}
	}
}

func TestTailIsBounded(t *testing.T) {
	var l tail
	for i := range 100_000 {
		fmt.Fprintf(&l, "line %d\n", i)
	}
	if n := len(l.bytes()); n > 2*tailBytes {
		t.Errorf("keeps %d bytes", n)
	}
	if s := l.String(); !strings.HasSuffix(s, "line 99998\nline 99999\n") || strings.Count(s, "\n") != 20 {
		t.Errorf("end is %q", s)
	}
}

func TestStores(t *testing.T) {
	ctx := t.Context()
	base, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	blob, extra := []byte("in the store"), []byte("beside it")
	desc := func(b []byte) ocispecs.Descriptor {
		return ocispecs.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
	}
	// Two writers of one reference, which the store itself would not allow.
	a, b := &exportStore{Store: base, id: "a"}, &exportStore{Store: base, id: "b"}
	for _, s := range []*exportStore{a, b} {
		w, err := s.Writer(ctx, content.WithRef("ref"))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if s == b {
			w.Write(blob)
			if err := w.Commit(ctx, int64(len(blob)), desc(blob).Digest); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.Delete(ctx, desc(blob).Digest); !errdefs.IsPermissionDenied(err) {
		t.Errorf("the engine may delete: %v", err)
	}
	src := &sourceStore{Store: base, extra: map[digest.Digest][]byte{desc(extra).Digest: extra}}
	for _, want := range [][]byte{blob, extra} {
		got, err := content.ReadBlob(ctx, src, desc(want))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %q: %v", got, err)
		}
		if info, err := src.Info(ctx, desc(want).Digest); err != nil || info.Size != int64(len(want)) {
			t.Errorf("info %+v: %v", info, err)
		}
	}
	if _, err := src.Writer(ctx, content.WithRef("x")); !errdefs.IsPermissionDenied(err) {
		t.Errorf("the source can be written: %v", err)
	}
	if _, err := src.Info(ctx, digest.FromString("neither")); !errdefs.IsNotFound(err) {
		t.Errorf("info of what is not there: %v", err)
	}
}

func TestNoEngineThere(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g, err := lower.Image(t.Context(), lower.Root{Layers: []lower.Layer{{Descriptor: ocispecs.Descriptor{Digest: "sha256:x"}, DiffID: "sha256:y"}}}, "//:image")
	if err != nil {
		t.Fatal(err)
	}
	addr := "unix://" + filepath.Join(t.TempDir(), "s")
	e := New(Options{Addr: addr})
	_, err = e.Solve(t.Context(), Request{Name: "//:image", Graph: g, Store: store})
	if err == nil || !strings.HasPrefix(err.Error(), "//:image: ") || !strings.Contains(err.Error(), addr) {
		t.Errorf("error %v", err)
	}
	if !e.Used() {
		t.Error("not used, though a solve asked for it")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
