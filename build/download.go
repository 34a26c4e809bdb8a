package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/cache/store"
	"github.com/mwbuild/mwbuild/graph/action"
)

// A NativeLayer writes the layer of a native action of its kind to w, as an uncompressed tar. What it writes must depend on
// the action alone, as for a [Native], and so be in an order of its own, with times that are no clock's. open gives one of the action's
// downloads, from the store; all its bytes are checked by the end. Several goroutines call it.
type NativeLayer func(ctx context.Context, do *action.Native, open func(sha256 string) (io.ReadCloser, error), w io.Writer) error

// nativeLayer executes a native action that makes a layer. A download that is damaged in the store is fetched again, once.
func (b *Builder) nativeLayer(ctx context.Context, n *action.Node, do *action.Native) (*plan.Record, error) {
	f := b.NativeLayers[do.Kind]
	if f == nil {
		return nil, fmt.Errorf("there is no native action %q that makes a layer", do.Kind)
	}
	blobs := make(map[string]ocispecs.Descriptor, len(do.Downloads))
	r := &plan.Record{}
	for _, d := range do.Downloads {
		blobs[d.SHA256] = blobOf(d)
		r.Downloads = append(r.Downloads, blobs[d.SHA256].Digest)
	}
	for again := false; ; again = true {
		if err := b.download(ctx, n, do.Downloads); err != nil {
			return nil, err
		}
		in := &downloads{store: b.Store, blobs: blobs}
		l, err := layer.Stream(ctx, b.Store, func(w io.Writer) error {
			err := f(ctx, do, in.open, w)
			return cmp.Or(in.close(), err) // what was damaged is the reason of other errors
		})
		if errors.Is(err, store.ErrDamaged) && !again {
			if _, err := b.Store.Heal(ctx, in.damaged); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		r.Layers = []image.Layer{l}
		return r, nil
	}
}

// blobOf is what d is in the store.
func blobOf(d action.Download) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: "application/octet-stream", Digest: digest.NewDigestFromEncoded(digest.SHA256, d.SHA256), Size: d.Size}
}

// downloads opens blobs, and knows in the end whether all that was opened was as it should be.
type downloads struct {
	store   *store.Store
	blobs   map[string]ocispecs.Descriptor
	mu      sync.Mutex
	opened  []*downloadReader
	damaged []ocispecs.Descriptor
}

func (in *downloads) open(sum string) (io.ReadCloser, error) {
	d, ok := in.blobs[sum]
	if !ok {
		return nil, fmt.Errorf("sha256:%s is none of the action's downloads", sum)
	}
	f, err := in.store.Open(d.Digest)
	if err != nil {
		return nil, err
	}
	r := &downloadReader{in: in, blob: d, f: f, sum: sha256.New()}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.opened = append(in.opened, r)
	return r, nil
}

// close closes what was left open, and returns an error that is store.ErrDamaged if a blob is.
func (in *downloads) close() error {
	var err error
	for _, r := range in.opened {
		err = cmp.Or(err, r.Close())
	}
	return err
}

// A downloadReader reads a blob, and fails at its end if the blob is damaged. Closing reads the rest. One goroutine uses it.
type downloadReader struct {
	in   *downloads
	blob ocispecs.Descriptor
	f    *os.File
	sum  hash.Hash
	err  error // that reading ended with
}

func (r *downloadReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.f.Read(p)
	r.sum.Write(p[:n])
	if err == io.EOF && digest.NewDigestFromBytes(digest.SHA256, r.sum.Sum(nil)) != r.blob.Digest {
		err = fmt.Errorf("download %s: %w", r.blob.Digest, store.ErrDamaged)
		r.in.mu.Lock()
		r.in.damaged = append(r.in.damaged, r.blob)
		r.in.mu.Unlock()
	}
	r.err = err
	return n, err
}

func (r *downloadReader) Close() error {
	if r.f != nil {
		_, err := io.Copy(io.Discard, struct{ io.Reader }{r})
		err = cmp.Or(err, r.f.Close())
		r.f = nil
		return err
	}
	if r.err == io.EOF {
		return nil
	}
	return r.err
}

// fetchesAtOnce is how many downloads run at once.
const fetchesAtOnce = 8

// fetches are the downloads that are under way. Several actions may want the same. The zero value is ready.
type fetches struct {
	mu    sync.Mutex
	slots chan struct{}
	busy  map[digest.Digest]*fetching
}

type fetching struct {
	done chan struct{}
	err  error
}

// once calls f, unless another call for d runs, which it waits for instead.
func (fs *fetches) once(ctx context.Context, d digest.Digest, f func() error) error {
	fs.mu.Lock()
	if fs.busy == nil {
		fs.busy, fs.slots = map[digest.Digest]*fetching{}, make(chan struct{}, fetchesAtOnce)
	}
	one := fs.busy[d]
	if one != nil {
		fs.mu.Unlock()
		select {
		case <-one.done:
			return one.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	one = &fetching{done: make(chan struct{}), err: errors.New("the download ended by a panic")}
	fs.busy[d] = one
	fs.mu.Unlock()
	defer func() {
		fs.mu.Lock()
		delete(fs.busy, d)
		fs.mu.Unlock()
		close(one.done)
	}()
	select {
	case fs.slots <- struct{}{}:
		defer func() { <-fs.slots }()
		one.err = f()
	case <-ctx.Done():
		one.err = ctx.Err()
	}
	return one.err
}

// download sees that the store has all of ds, fetching what it has not. After a failure nothing more is begun.
func (b *Builder) download(ctx context.Context, n *action.Node, ds []action.Download) (err error) {
	var missing []action.Download
	var total int64
	for _, d := range ds {
		if !b.Store.Has(blobOf(d)) {
			missing = append(missing, d)
			total += d.Size
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if b.Fetch == nil {
		return fmt.Errorf("download %s: nothing here can fetch it", missing[0].Name)
	}
	task := b.Display.Task(n.ID() + ": download")
	task.Start()
	defer func() { task.Done(err) }()
	status := task.Status(fmt.Sprintf("%d files", len(missing)))
	var mu sync.Mutex
	var got int64
	tell := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		got += n
		status.Update(got, total)
	}
	var first error
	var wg sync.WaitGroup
	for _, d := range missing {
		wg.Go(func() {
			err := b.fetches.once(ctx, blobOf(d).Digest, func() error {
				mu.Lock()
				failed := first
				mu.Unlock()
				if failed != nil || b.Store.Has(blobOf(d)) {
					return failed
				}
				return b.fetch(ctx, d, tell)
			})
			mu.Lock()
			defer mu.Unlock()
			first = cmp.Or(first, err)
		})
	}
	wg.Wait()
	if first == nil {
		status.Done()
	}
	return first
}

// fetch puts d into the store, if what comes is what d names.
func (b *Builder) fetch(ctx context.Context, d action.Download, tell func(int64)) error {
	fail := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("download %s: %w", d.Name, err)
	}
	r, err := b.Fetch(ctx, d)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	sum := sha256.New()
	_, err = b.Store.Ingest(ctx, blobOf(d).MediaType, func(w io.Writer) error {
		buf := make([]byte, 128<<10)
		for size := int64(0); ; {
			n, err := r.Read(buf)
			size += int64(n)
			if size > d.Size || err == io.EOF && size < d.Size {
				return fmt.Errorf("it has not the %d bytes that it should have: try again, or name another mirror", d.Size)
			}
			sum.Write(buf[:n])
			tell(int64(n))
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err == io.EOF {
				break
			} else if err != nil {
				return err
			}
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != d.SHA256 {
			return fmt.Errorf("it is another file: its sha256 is %s, not %s\n    try again, or name another mirror", got, d.SHA256)
		}
		return nil
	})
	if err != nil {
		return fail(err)
	}
	return nil
}
