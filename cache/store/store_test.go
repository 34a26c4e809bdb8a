package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

const mediaType = ocispecs.MediaTypeImageLayerZstd

// TestMain lets the test binary be the other process of a test.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_TEST_HANG"); dir != "" {
		s, err := Open(dir)
		if err != nil {
			panic(err)
		}
		s.Ingest(context.Background(), mediaType, func(w io.Writer) error {
			w.Write(make([]byte, 1<<20))
			fmt.Println("writing")
			select {}
		})
	}
	os.Exit(m.Run())
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t *testing.T, s *Store, b string) ocispecs.Descriptor {
	t.Helper()
	d, err := s.Put(t.Context(), mediaType, []byte(b))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// files lists the files under the store, without the lock files.
func files(t *testing.T, s *Store) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(s.Dir(), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.HasSuffix(path, "lock") {
			rel, _ := filepath.Rel(s.Dir(), path)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPutReadHas(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a", "store"))
	for _, b := range []string{"", "x", strings.Repeat("long", 1<<20)} {
		d := put(t, s, b)
		want := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromString(b), Size: int64(len(b))}
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("Put (-want +got):\n%s", diff)
		}
		got, err := s.Read(d.Digest)
		if err != nil || string(got) != b {
			t.Errorf("Read = %d bytes, %v, want %d", len(got), err, len(b))
		}
		if !s.Has(d) {
			t.Errorf("Has(%d bytes) = false", len(b))
		}
		if err := s.Verify(t.Context(), d); err != nil {
			t.Errorf("Verify: %v", err)
		}
		if again := put(t, s, b); again.Digest != d.Digest {
			t.Errorf("second Put = %v", again)
		}
	}
	if _, err := s.Read(digest.FromString("absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of an absent blob: %v, want fs.ErrNotExist", err)
	}
	if _, err := s.Open("sha256:../../../../etc/passwd"); err == nil {
		t.Error("Open took a digest that is a path")
	}
}

func TestDamage(t *testing.T) {
	s := open(t, t.TempDir())
	d := put(t, s, "the right bytes")
	path, err := s.path(d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(b string) {
		os.Remove(path)
		if err := os.WriteFile(path, []byte(b), 0o444); err != nil {
			t.Fatal(err)
		}
	}

	damage("the right")
	if s.Has(d) {
		t.Error("Has(short blob) = true")
	}
	if err := s.Verify(t.Context(), d); !errors.Is(err, ErrDamaged) {
		t.Errorf("Verify(short blob) = %v", err)
	}
	damage("the wrong bytes")
	if !s.Has(d) {
		t.Error("Has only looks at the size, and said no")
	}
	if err := s.Verify(t.Context(), d); !errors.Is(err, ErrDamaged) {
		t.Errorf("Verify(wrong bytes) = %v", err)
	}
	if _, err := s.Read(d.Digest); !errors.Is(err, ErrDamaged) {
		t.Errorf("Read(wrong bytes) = %v", err)
	}
	put(t, s, "the right bytes")
	if err := s.Verify(t.Context(), d); err != nil {
		t.Errorf("Verify after writing it again: %v", err)
	}
	os.Remove(path)
	if s.Has(d) {
		t.Error("Has(missing blob) = true")
	}
	if err := s.Verify(t.Context(), d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Verify(missing blob) = %v", err)
	}
}

func TestIngestFails(t *testing.T) {
	s := open(t, t.TempDir())
	before := files(t, s)
	bad := errors.New("no more")
	_, err := s.Ingest(t.Context(), mediaType, func(w io.Writer) error {
		w.Write(make([]byte, 1<<20))
		return bad
	})
	if !errors.Is(err, bad) {
		t.Errorf("Ingest = %v, want the writer's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.Ingest(ctx, mediaType, func(w io.Writer) error {
		cancel()
		for {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return err
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Ingest = %v", err)
	}
	if _, err := s.Put(ctx, mediaType, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Put under a cancelled context = %v", err)
	}
	if diff := cmp.Diff(before, files(t, s)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

func TestSameBlobAtOnce(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir), open(t, dir)
	want := bytes.Repeat([]byte("same"), 1<<18)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			s := []*Store{a, b}[i%2]
			d, err := s.Ingest(t.Context(), mediaType, func(w io.Writer) error {
				_, err := io.Copy(w, bytes.NewReader(want))
				return err
			})
			if err != nil || !s.Has(d) {
				t.Errorf("Ingest = %v, %v", d, err)
			}
		})
	}
	wg.Wait()
	got := files(t, a)
	if diff := cmp.Diff([]string{"blobs/sha256/" + digest.FromBytes(want).Encoded(), "index.json", "oci-layout"}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestTags(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	one, two := put(t, s, "one"), put(t, s, "two")
	one.Annotations = map[string]string{"kept": "yes"}
	var wg sync.WaitGroup
	for i := range 20 { // every Store has its own lock, as a process has
		wg.Go(func() {
			other := open(t, dir)
			if err := other.Tag(map[string]ocispecs.Descriptor{fmt.Sprintf("n%02d", i): one}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.Tag(map[string]ocispecs.Descriptor{"n03": two}); err != nil {
		t.Fatal(err)
	}
	tags, err := s.Tags()
	if err != nil {
		t.Fatal(err)
	}
	if len(tags) != 20 {
		t.Fatalf("%d tags, want 20", len(tags))
	}
	for i, tag := range tags {
		want := one.Digest
		if i == 3 {
			want = two.Digest
		}
		if got := tag.Annotations[ocispecs.AnnotationRefName]; got != fmt.Sprintf("n%02d", i) || tag.Digest != want {
			t.Errorf("tag %d = %s %s", i, got, tag.Digest)
		}
	}
	if tags[0].Annotations["kept"] != "yes" || len(one.Annotations) != 1 {
		t.Errorf("annotations: tag %v, caller's %v", tags[0].Annotations, one.Annotations)
	}
}

// A reader of OCI layouts, containerd's store, sees our blobs, and we see its.
func TestContent(t *testing.T) {
	s := open(t, t.TempDir())
	c := s.Content()
	d := put(t, s, "ours")
	got, err := content.ReadBlob(t.Context(), c, d)
	if err != nil || string(got) != "ours" {
		t.Errorf("ReadBlob = %q, %v", got, err)
	}
	theirs := ocispecs.Descriptor{Digest: digest.FromString("theirs"), Size: 6}
	if err := content.WriteBlob(t.Context(), c, "ref", strings.NewReader("theirs"), theirs); err != nil {
		t.Fatal(err)
	}
	if !s.Has(theirs) {
		t.Error("Has(a blob that containerd wrote) = false")
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files(t, s) {
		if strings.HasPrefix(f, "ingest/") || strings.HasPrefix(f, ".") {
			t.Errorf("left over: %s", f)
		}
	}
}

func TestGC(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	kept, gone := put(t, s, "kept"), put(t, s, "gone!")
	for name, d := range map[string]ocispecs.Descriptor{"kept": kept, "gone": gone} {
		if err := s.Tag(map[string]ocispecs.Descriptor{name: d}); err != nil {
			t.Fatal(err)
		}
	}
	keep := map[digest.Digest]bool{kept.Digest: true}

	other := open(t, dir)
	if _, err := s.GC(t.Context(), keep); !errors.Is(err, ErrBusy) {
		t.Errorf("GC beside another process = %v, want ErrBusy", err)
	}
	if !s.Has(gone) {
		t.Error("a refused GC deleted a blob")
	}
	if _, err := other.GC(t.Context(), keep); !errors.Is(err, ErrBusy) {
		t.Errorf("the refused GC has lost its own lock: GC of the other = %v", err)
	}
	other.Close()

	freed, err := s.GC(t.Context(), keep)
	if err != nil || freed != 5 {
		t.Errorf("GC = %d, %v, want 5", freed, err)
	}
	if !s.Has(kept) || s.Has(gone) {
		t.Errorf("after GC: kept %v, gone %v", s.Has(kept), s.Has(gone))
	}
	tags, err := s.Tags()
	if err != nil || len(tags) != 1 || tags[0].Digest != kept.Digest {
		t.Errorf("Tags after GC = %v, %v", tags, err)
	}
}

func TestSweepAfterKill(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	clean := files(t, s)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_TEST_HANG="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	during := files(t, s)
	if len(during) != len(clean)+1 {
		t.Errorf("files while the other writes: %q", during)
	}
	if err := s.Sweep(); err != nil {
		t.Errorf("Sweep beside a live process: %v", err)
	}
	if diff := cmp.Diff(during, files(t, s)); diff != "" {
		t.Errorf("Sweep took a live process's file (-before +after):\n%s", diff)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(clean, files(t, s)); diff != "" {
		t.Errorf("after Sweep (-want +got):\n%s", diff)
	}
	put(t, s, "still usable")
}

func TestReadOnlyDir(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "store")
	d := put(t, open(t, dir), "there")
	asStranger(t, parent, func() {
		s, err := Open(dir)
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		if b, err := s.Read(d.Digest); err != nil || string(b) != "there" {
			t.Errorf("Read = %q, %v", b, err)
		}
		if err := s.Sweep(); err != nil {
			t.Errorf("Sweep = %v", err)
		}
		if _, err := s.Put(t.Context(), mediaType, []byte("new")); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Put = %v, want fs.ErrPermission", err)
		}
		if _, err := s.GC(t.Context(), nil); err == nil {
			t.Error("GC of a read-only store succeeded")
		}
		if _, err := Open(filepath.Join(parent, "new")); err == nil {
			t.Error("made a store in a folder that is not ours")
		}
	})
}

// asStranger runs f as a user who may read everything under dir and write nothing. Root can become one; anybody else takes
// their own right to write away.
func asStranger(t *testing.T, dir string, f func()) {
	t.Helper()
	root := os.Getuid() == 0
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		mode := fs.FileMode(0o444)
		if e.IsDir() {
			mode = 0o555
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Error(err)
		}
		return nil
	})
	for up := filepath.Dir(dir); root && up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		os.Chmod(up, 0o755)
	}
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(path string, e fs.DirEntry, _ error) error {
			if e.IsDir() {
				return os.Chmod(path, 0o755)
			}
			return nil
		})
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if root {
			runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
			syscall.Setfsuid(65534)
		}
		f()
	}()
	<-done
}
