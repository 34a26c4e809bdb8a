// Package blobtest makes stores for the tests of the packages beside it.
package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Store is an image.Blobs over a folder.
type Store struct {
	Dir string
	cs  content.Store
	n   atomic.Int64
}

// New is an empty store that the test removes.
func New(t testing.TB) *Store {
	t.Helper()
	log.SetLevel("error") // the store tells of every file system without fs-verity
	dir := t.TempDir()
	cs, err := local.NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &Store{Dir: dir, cs: cs}
}

// Content gives the bytes.
func (s *Store) Content() content.Store { return s.cs }

// Has tells whether d is there.
func (s *Store) Has(d ocispecs.Descriptor) bool {
	_, err := s.cs.Info(context.Background(), d.Digest)
	return err == nil
}

// Put stores b.
func (s *Store) Put(ctx context.Context, mediaType string, b []byte) (ocispecs.Descriptor, error) {
	return s.Ingest(ctx, mediaType, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(b))
		return err
	})
}

// Ingest stores what write writes.
func (s *Store) Ingest(ctx context.Context, mediaType string, write func(io.Writer) error) (ocispecs.Descriptor, error) {
	ref := fmt.Sprintf("test-%d", s.n.Add(1))
	w, err := s.cs.Writer(ctx, content.WithRef(ref))
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	defer s.cs.Abort(ctx, ref)
	defer w.Close()
	if err := write(w); err != nil {
		return ocispecs.Descriptor{}, err
	}
	st, err := w.Status()
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	d := ocispecs.Descriptor{MediaType: mediaType, Digest: w.Digest(), Size: st.Offset}
	if err := w.Commit(ctx, 0, ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispecs.Descriptor{}, err
	}
	return d, nil
}

// Blobs names the blobs of the store.
func (s *Store) Blobs(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.Dir, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range names {
		names[i] = filepath.Base(n)
	}
	return names
}

// Damage flips a byte in the blob d.
func (s *Store) Damage(t testing.TB, d ocispecs.Descriptor) {
	t.Helper()
	name := filepath.Join(s.Dir, "blobs/sha256", d.Digest.Encoded())
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	os.Chmod(name, 0o644)
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
