package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/mwbuild/mwbuild/build/image"
)

// PushOptions says how to push.
type PushOptions struct {
	Keychain authn.Keychain // nil is the user's own
	Jobs     int            // blobs at a time; 0 is 4
	Progress func(Event)    // called once for each blob, when it is there; by one goroutine at a time
}

// An Event says that a blob is in the registry, and how it came there.
type Event struct {
	Descriptor ocispecs.Descriptor
	How        How
}

// How a blob came into a repository.
type How string

// The ways of blobs.
const (
	Existing How = "existing" // was there
	Mounted  How = "mounted"  // from another repository of the registry, without a byte sent
	Uploaded How = "uploaded"
)

// Stats counts what a push did, by distinct blobs: layers and config.
type Stats struct {
	Uploaded, Mounted, Existing int
	Bytes                       int64 // of uploaded blobs
	Manifest                    bool  // the manifest was sent too
}

// CheckReference tells whether ref can be pushed to.
func CheckReference(ref string) error {
	if _, err := name.ParseReference(ref); err != nil {
		return fmt.Errorf("%q is no place to push to: want registry/repository:tag, in lower case", ref)
	}
	return nil
}

// Push carries img to ref, "registry/repository:tag". Blobs that the repository has are not sent; those whose Source is
// another repository of the same registry are mounted from there if it allows; the rest is uploaded, from b, or through b
// from the Source where b lacks it. The manifest goes last, and not at all if ref names it already.
func Push(ctx context.Context, b image.Blobs, img image.Image, ref string, opt PushOptions) (Stats, error) {
	var st Stats
	to, err := name.ParseReference(ref)
	if err != nil {
		return st, fmt.Errorf("push: %w", err)
	}
	manifest, err := image.ReadJSON(ctx, b.Content(), img.Manifest)
	if err != nil {
		return st, fmt.Errorf("push %s: manifest: %w", ref, err)
	}
	seen := &observer{next: remote.DefaultTransport}
	pusher, err := remote.NewPusher(remoteOptions(ctx, opt.Keychain, remote.WithTransport(seen))...)
	if err != nil {
		return st, fmt.Errorf("push %s: %w", ref, err)
	}

	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	if opt.Jobs > 0 {
		g.SetLimit(opt.Jobs)
	}
	done := map[string]bool{}
	for _, l := range append([]image.Layer{{Descriptor: img.Config}}, img.Layers...) {
		d := l.Descriptor
		if done[d.Digest.String()] {
			continue
		}
		done[d.Digest.String()] = true
		g.Go(func() error {
			blob := &remoteBlob{ctx: gctx, b: b, l: l, kc: opt.Keychain}
			if err := pusher.Upload(gctx, to.Context(), mountable(blob, to.Context())); err != nil {
				return fmt.Errorf("push %s: %s: %w", ref, d.Digest, err)
			}
			mu.Lock()
			defer mu.Unlock()
			e := Event{d, Existing}
			switch {
			case blob.read.Load():
				e.How = Uploaded
				st.Uploaded++
				st.Bytes += d.Size
			case seen.mounted(d.Digest.String()):
				e.How = Mounted
				st.Mounted++
			default:
				st.Existing++
			}
			if opt.Progress != nil {
				opt.Progress(e)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return st, err
	}
	if err := pusher.Push(ctx, to, rawManifest{manifest, types.MediaType(img.Manifest.MediaType)}); err != nil {
		return st, fmt.Errorf("push %s: manifest: %w", ref, err)
	}
	st.Manifest = seen.manifest.Load()
	return st, nil
}

// mountable offers to take the blob from another repository of the registry that it goes to.
func mountable(blob *remoteBlob, to name.Repository) v1.Layer {
	if from, err := name.NewRepository(blob.l.Source); err == nil && from.Registry == to.Registry && from != to {
		return &remote.MountableLayer{Layer: blob, Reference: from.Digest(blob.l.Descriptor.Digest.String())}
	}
	return blob
}

// An observer notes what the registry answered that the pusher does not tell.
type observer struct {
	next     http.RoundTripper
	mounts   sync.Map // digest → true
	manifest atomic.Bool
}

func (o *observer) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.next.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusCreated {
		return resp, err
	}
	switch d := r.URL.Query().Get("mount"); {
	case r.Method == http.MethodPost && d != "":
		o.mounts.Store(d, true)
	case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/"):
		o.manifest.Store(true)
	}
	return resp, nil
}

func (o *observer) mounted(d string) bool {
	_, ok := o.mounts.Load(d)
	return ok
}

// A rawManifest is pushed as it is.
type rawManifest struct {
	raw       []byte
	mediaType types.MediaType
}

func (m rawManifest) RawManifest() ([]byte, error)        { return m.raw, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return m.mediaType, nil }

// A remoteBlob is a blob of the store as the pusher wants it. It knows whether it was read, which is to be uploaded.
type remoteBlob struct {
	ctx  context.Context
	b    image.Blobs
	l    image.Layer
	kc   authn.Keychain
	read atomic.Bool
}

func (r *remoteBlob) Digest() (v1.Hash, error) { return v1.NewHash(r.l.Descriptor.Digest.String()) }
func (r *remoteBlob) DiffID() (v1.Hash, error) { return v1.NewHash(r.l.DiffID.String()) }
func (r *remoteBlob) Size() (int64, error)     { return r.l.Descriptor.Size, nil }
func (r *remoteBlob) MediaType() (types.MediaType, error) {
	return types.MediaType(r.l.Descriptor.MediaType), nil
}

func (r *remoteBlob) Compressed() (io.ReadCloser, error) {
	r.read.Store(true)
	if err := EnsureLayer(r.ctx, r.b, r.l, r.kc); err != nil {
		return nil, err
	}
	ra, err := r.b.Content().ReaderAt(r.ctx, r.l.Descriptor)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{content.NewReader(ra), ra}, nil
}

func (r *remoteBlob) Uncompressed() (io.ReadCloser, error) {
	return nil, errors.New("a blob is pushed compressed")
}
