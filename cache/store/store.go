// Package store keeps blobs on disk by their digest: image layers, configurations, manifests, outputs of steps.
//
// The folder is an OCI image layout, so any tool that reads one can read it:
//
//	oci-layout           the layout's version
//	index.json           the images that were asked for by name, and nothing else
//	blobs/sha256/…       one file per blob, read-only
//	ingest/              blobs that are being written
//	.lock, .index.lock   see below; other tools ignore them
//
// A blob is written to ingest/ and renamed into place, so what stands under blobs/ was complete when it came there. It is
// not synced to disk first: that costs more than packing a small layer. After a power failure a blob can therefore be short,
// which [Store.Has] notices by its size, or, on some file systems, hold zeros, which only [Store.Verify] and [Store.Read]
// notice. Writing a blob again always replaces the file, and so heals it. index.json is synced.
//
// Every process that has a store open holds a shared lock on .lock. Who deletes takes it exclusively, and so knows that no
// other process is between writing a blob and recording it. The locks are flocks: they end with the process, however it ends.
package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	// ErrBusy says that another process has the store open, so nothing can be deleted now.
	ErrBusy = errors.New("another process is using the store")
	// ErrDamaged says that a blob's bytes are not those its digest names. Writing it again heals it.
	ErrDamaged = errors.New("blob is damaged")
)

// A Store is a folder of blobs. It is safe for concurrent use, by several processes too.
type Store struct {
	dir  string
	lock *flock.Flock // shared while the store is open; nil where the folder is read-only and has no lock file

	// mu is held for reading while a blob is written, and for writing while blobs are deleted: taking the exclusive lock
	// gives the shared one up for a moment.
	mu sync.RWMutex

	content content.Store
}

// Open opens the store in dir and makes what is missing of its layout. A folder that is complete may be read-only; it can be
// read then. Open waits while another process deletes blobs. containerd may log through its own logger that the file system
// has no fs-verity, which means nothing here.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	s := &Store{dir: dir}
	for _, d := range []string{"blobs/sha256", "ingest"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil && !(d == "ingest" && readOnly(err)) {
			return nil, fmt.Errorf("blob store: %w", err)
		}
	}
	s.lock = flock.New(filepath.Join(dir, ".lock"))
	if err := s.lock.RLock(); err != nil {
		if !readOnly(err) {
			return nil, fmt.Errorf("blob store %s: lock: %w", dir, err)
		}
		s.lock = nil
	}
	err = s.makeLayout()
	if err == nil {
		s.content, err = local.NewStore(dir)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("blob store %s: %w", dir, err)
	}
	return s, nil
}

func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

func (s *Store) makeLayout() error {
	layout := mustJSON(ocispecs.ImageLayout{Version: ocispecs.ImageLayoutVersion})
	for _, f := range []struct {
		name string
		data []byte
	}{{ocispecs.ImageLayoutFile, layout}, {ocispecs.ImageIndexFile, marshalIndex(nil)}} {
		path := filepath.Join(s.dir, f.name)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return err
			}
			continue
		}
		err := s.withIndexLock(func() error {
			if _, err := os.Stat(path); err == nil {
				return nil // another process was faster
			}
			return s.replace(f.name, f.data)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close gives up the lock that keeps other processes from deleting. It does not close what [Store.Open] returned.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Dir returns the absolute path of the store's folder.
func (s *Store) Dir() string { return s.dir }

// Content returns the store as containerd's, to hand to a BuildKit session. Its writers resume by ref, so a ref must not be
// used by two processes.
func (s *Store) Content() content.Store { return s.content }

// path returns where the blob d is. The digest may come from a foreign manifest, so it is checked first.
func (s *Store) path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("blob %q: %w", string(d), err)
	}
	return filepath.Join(s.dir, "blobs", d.Algorithm().String(), d.Encoded()), nil
}

// Has reports whether the blob is there and has the size that d says. It does not read it.
func (s *Store) Has(d ocispecs.Descriptor) bool {
	path, err := s.path(d.Digest)
	if err != nil {
		return false
	}
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Size() == d.Size
}

// Verify reads the whole blob and compares size and digest. The error is [ErrDamaged] or fs.ErrNotExist where that is the cause.
func (s *Store) Verify(ctx context.Context, d ocispecs.Descriptor) error {
	f, err := s.Open(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	v := d.Digest.Verifier()
	n, err := io.Copy(v, &ctxReader{ctx, f})
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if n != d.Size {
		return fmt.Errorf("blob %s: %w: %d bytes, want %d", d.Digest, ErrDamaged, n, d.Size)
	}
	if !v.Verified() {
		return fmt.Errorf("blob %s: %w", d.Digest, ErrDamaged)
	}
	return nil
}

// Put writes b as a blob.
func (s *Store) Put(ctx context.Context, mediaType string, b []byte) (ocispecs.Descriptor, error) {
	return s.Ingest(ctx, mediaType, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// Ingest makes a blob of what write writes. Any number of goroutines and processes may ingest at once, the same bytes too. When
// write fails, or ctx ends, nothing is left behind.
func (s *Store) Ingest(ctx context.Context, mediaType string, write func(io.Writer) error) (desc ocispecs.Descriptor, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f, err := os.CreateTemp(filepath.Join(s.dir, "ingest"), "blob-*")
	if err != nil {
		return desc, fmt.Errorf("write blob: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()

	hash := digest.Canonical.Digester()
	size := &counter{}
	buf := bufio.NewWriterSize(io.MultiWriter(f, hash.Hash(), size), 256<<10)
	if err := write(&ctxWriter{ctx, buf}); err != nil {
		return desc, err
	}
	if err := errors.Join(ctx.Err(), buf.Flush()); err != nil {
		return desc, fmt.Errorf("write blob: %w", err)
	}
	if err := errors.Join(f.Chmod(0o444), f.Close()); err != nil {
		return desc, fmt.Errorf("write blob: %w", err)
	}
	path, err := s.path(hash.Digest())
	if err != nil {
		return desc, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return desc, fmt.Errorf("write blob: %w", err)
	}
	return ocispecs.Descriptor{MediaType: mediaType, Digest: hash.Digest(), Size: size.n}, nil
}

// Open opens a blob for reading, without checking it. The error is fs.ErrNotExist when it is not there.
func (s *Store) Open(d digest.Digest) (*os.File, error) {
	path, err := s.path(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	return f, nil
}

// Read returns the bytes of a small blob, checked against its digest: the error is [ErrDamaged] when they differ.
func (s *Store) Read(d digest.Digest) ([]byte, error) {
	f, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	if d.Algorithm().FromBytes(b) != d {
		return nil, fmt.Errorf("blob %s: %w", d, ErrDamaged)
	}
	return b, nil
}

// Heal deletes those of the blobs that are damaged, so that they are written anew, and returns them. It reads every blob.
func (s *Store) Heal(ctx context.Context, blobs []ocispecs.Descriptor) (damaged []digest.Digest, err error) {
	for _, d := range blobs {
		err := s.Verify(ctx, d)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !errors.Is(err, ErrDamaged) {
			return damaged, err
		}
		path, err := s.path(d.Digest)
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return damaged, fmt.Errorf("blob store: %w", err)
		}
		damaged = append(damaged, d.Digest)
	}
	return damaged, nil
}

// Tag lists images in index.json by name, each in place of what had the name before. The file is left alone if that changes
// nothing.
func (s *Store) Tag(images map[string]ocispecs.Descriptor) error {
	tags, err := s.Tags()
	if err != nil {
		return err
	}
	have := map[string]ocispecs.Descriptor{}
	for _, t := range tags {
		have[t.Annotations[ocispecs.AnnotationRefName]] = t
	}
	fresh := map[string]ocispecs.Descriptor{}
	for name, d := range images {
		if name == "" {
			return errors.New("tag image: empty name")
		}
		if h, ok := have[name]; !ok || h.Digest != d.Digest {
			d.Annotations = cloneWith(d.Annotations, ocispecs.AnnotationRefName, name)
			fresh[name] = d
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return s.editIndex(func(tags []ocispecs.Descriptor) []ocispecs.Descriptor {
		tags = slices.DeleteFunc(tags, func(t ocispecs.Descriptor) bool {
			_, replaced := fresh[t.Annotations[ocispecs.AnnotationRefName]]
			return replaced
		})
		return slices.AppendSeq(tags, maps.Values(fresh))
	})
}

// Tags returns the images listed in index.json, sorted by name.
func (s *Store) Tags() ([]ocispecs.Descriptor, error) {
	path := filepath.Join(s.dir, ocispecs.ImageIndexFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	var index ocispecs.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, fmt.Errorf("%s: %w\nremove the file: it is made anew, and images are listed again when they are built", path, err)
	}
	return index.Manifests, nil
}

// Sweep removes what killed processes left half written. It does nothing while another process has the store open (a later
// sweep will) or where the folder is read-only. Writers made from [Store.Content] in this process must be finished: call it before the first.
func (s *Store) Sweep() error {
	err := s.exclusively(func() error {
		left, err := filepath.Glob(filepath.Join(s.dir, "."+ocispecs.ImageIndexFile+"*")) // renameio's
		if err != nil {
			return err
		}
		checks, err := filepath.Glob(filepath.Join(s.dir, ".fsverity-check-*")) // containerd's
		if err != nil {
			return err
		}
		ingests, err := filepath.Glob(filepath.Join(s.dir, "ingest", "*"))
		if err != nil {
			return err
		}
		for _, path := range slices.Concat(left, checks, ingests) {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, ErrBusy) || readOnly(err) {
		return nil
	}
	return err
}

// GC deletes every blob that keep does not hold, and the entries of index.json that point at one. It returns how many bytes
// that freed. The error is [ErrBusy] while another process has the store open. Writers made from [Store.Content] in this
// process must be finished.
func (s *Store) GC(ctx context.Context, keep map[digest.Digest]bool) (freed int64, err error) {
	err = s.exclusively(func() error {
		err := s.editIndex(func(tags []ocispecs.Descriptor) []ocispecs.Descriptor {
			return slices.DeleteFunc(tags, func(t ocispecs.Descriptor) bool { return !keep[t.Digest] })
		})
		if err != nil {
			return err
		}
		return filepath.WalkDir(filepath.Join(s.dir, "blobs"), func(path string, e fs.DirEntry, err error) error {
			if err := errors.Join(err, ctx.Err()); err != nil || e.IsDir() {
				return err
			}
			d := digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(path))), e.Name())
			if keep[d] {
				return nil
			}
			fi, err := e.Info()
			if err != nil {
				return err
			}
			if err := os.Remove(path); err != nil {
				return err
			}
			freed += fi.Size()
			return nil
		})
	})
	return freed, err
}

// exclusively runs f while no other process has the store open and this one writes no blob.
func (s *Store) exclusively(f func() error) error {
	if s.lock == nil {
		return fmt.Errorf("blob store %s: %w", s.dir, syscall.EROFS)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ok, err := s.lock.TryLock()
	if err == nil && !ok {
		err = fmt.Errorf("%w: try again when it has ended", ErrBusy)
	}
	if err == nil {
		err = f()
	}
	// The exclusive lock becomes the shared one again. A failed attempt has lost the shared one too: unlock to start afresh.
	if uerr := errors.Join(s.lock.Unlock(), s.lock.RLock()); err == nil {
		err = uerr
	}
	if err != nil {
		return fmt.Errorf("blob store %s: %w", s.dir, err)
	}
	return nil
}

// editIndex replaces the list in index.json by what edit makes of it.
func (s *Store) editIndex(edit func([]ocispecs.Descriptor) []ocispecs.Descriptor) error {
	return s.withIndexLock(func() error {
		tags, err := s.Tags()
		if err != nil {
			return err
		}
		return s.replace(ocispecs.ImageIndexFile, marshalIndex(edit(tags)))
	})
}

func (s *Store) withIndexLock(f func() error) error {
	l := flock.New(filepath.Join(s.dir, ".index.lock"))
	if err := l.Lock(); err != nil {
		return fmt.Errorf("lock index.json: %w", err)
	}
	defer l.Close()
	return f()
}

func (s *Store) replace(name string, b []byte) error {
	return renameio.WriteFile(filepath.Join(s.dir, name), b, 0o644, renameio.WithTempDir(s.dir))
}

// marshalIndex sorts tags by name and returns index.json.
func marshalIndex(tags []ocispecs.Descriptor) []byte {
	tags = append([]ocispecs.Descriptor{}, tags...) // never null
	slices.SortStableFunc(tags, func(a, b ocispecs.Descriptor) int {
		return strings.Compare(a.Annotations[ocispecs.AnnotationRefName], b.Annotations[ocispecs.AnnotationRefName])
	})
	return mustJSON(ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispecs.MediaTypeImageIndex,
		Manifests: tags,
	})
}

func mustJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		panic(err) // plain structs: cannot fail
	}
	return b.Bytes()
}

func cloneWith(m map[string]string, k, v string) map[string]string {
	c := map[string]string{k: v}
	for key, val := range m {
		if key != k {
			c[key] = val
		}
	}
	return c
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// ctxWriter and ctxReader end with their context.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w *ctxWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
