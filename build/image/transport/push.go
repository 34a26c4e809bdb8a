package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/mwbuild/mwbuild/build/image"
)

// PushOptions says how to push.
type PushOptions struct {
	Keychain authn.Keychain // nil is the user's own
	Jobs     int            // blobs at a time; 0 is 8
	Progress func(Event)    // called once for each blob, when it is there; by one goroutine at a time
	Deep     bool           // ask for every blob, even where a manifest says that it is there
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

// Push carries img to ref, "registry/repository:tag", as [Pusher.Upload] and [Pusher.Tag] do.
func Push(ctx context.Context, b image.Blobs, img image.Image, ref string, opt PushOptions) (Stats, error) {
	to, err := name.ParseReference(ref)
	if err != nil {
		return Stats{}, fmt.Errorf("push: %w", err)
	}
	p, err := NewPusher(ctx, b, opt)
	if err != nil {
		return Stats{}, fmt.Errorf("push %s: %w", ref, err)
	}
	st, err := p.Upload(ctx, img, to.Context().Name(), to.Identifier())
	if err != nil {
		return st, err
	}
	if _, isDigest := to.(name.Digest); isDigest {
		return st, nil
	}
	moved, err := p.Tag(ctx, img, to.Context().Name(), to.Identifier())
	st.Manifest = st.Manifest || moved
	return st, err
}

// A Pusher carries images into repositories, several at once if you like. What one repository of a registry has, others of it mount.
type Pusher struct {
	b      image.Blobs
	opt    PushOptions
	seen   *observer
	remote *remote.Pusher
	puller *remote.Puller
	slots  chan struct{}
	scopes sync.Map // of *scopes, by repository

	mu      sync.Mutex
	flights map[string]*flight // by registry and digest
	report  sync.Mutex
}

// A flight is a blob that is on its way into a registry, or there.
type flight struct {
	repository name.Repository
	done       chan struct{}
	err        error
}

// NewPusher returns a pusher of images whose blobs are in b, or may be had from where their layers say.
func NewPusher(ctx context.Context, b image.Blobs, opt PushOptions) (*Pusher, error) {
	p := &Pusher{b: b, opt: opt, seen: &observer{next: remote.DefaultTransport}, flights: map[string]*flight{}}
	jobs := opt.Jobs
	if jobs <= 0 {
		jobs = 8
	}
	p.slots = make(chan struct{}, jobs)
	options := remoteOptions(ctx, opt.Keychain, remote.WithTransport(p.seen))
	var err error
	if p.remote, err = remote.NewPusher(options...); err != nil {
		return nil, err
	}
	p.puller, err = remote.NewPuller(options...)
	return p, err
}

// Upload puts img into a repository, under its digest and no tag. Where the repository has the manifest, nothing is sent. Blobs that the repository has are
// not sent either: those of the image that previous, a tag or "", names there are not even asked for, since a manifest keeps its blobs. Those whose Source is another
// repository of the registry, or that this pusher put into one, are mounted from there if it allows; the rest is uploaded, from the store, or through the store from the
// Source where it lacks them. The manifest goes last.
func (p *Pusher) Upload(ctx context.Context, img image.Image, repository, previous string) (Stats, error) {
	fail := func(st Stats, err error) (Stats, error) {
		return st, fmt.Errorf("push %s@%s: %w", repository, img.Manifest.Digest, denied(err))
	}
	var st Stats
	to, err := name.NewRepository(repository)
	if err != nil {
		return fail(st, err)
	}
	manifest, err := image.ReadJSON(ctx, p.b.Content(), img.Manifest)
	if err != nil {
		return fail(st, fmt.Errorf("manifest: %w", err))
	}
	ref := to.Digest(img.Manifest.Digest.String())
	blobs := distinctBlobs(img)
	var there []image.Layer
	if !p.opt.Deep {
		if _, err := p.puller.Head(ctx, ref); err == nil {
			for _, l := range blobs {
				p.tell(&st, Event{l.Descriptor, Existing})
			}
			return st, nil
		} else if ctx.Err() != nil {
			return fail(st, err)
		}
		known := p.blobsOf(ctx, to, previous)
		there = slices.DeleteFunc(slices.Clone(blobs), func(l image.Layer) bool { return !known[l.Descriptor.Digest] })
		blobs = slices.DeleteFunc(blobs, func(l image.Layer) bool { return known[l.Descriptor.Digest] })
	}
	push := func() error {
		return p.remote.Push(ctx, ref, rawManifest{manifest, types.MediaType(img.Manifest.MediaType)})
	}
	if err := p.upload(ctx, to, blobs, &st); err != nil {
		return fail(st, err)
	}
	err = push()
	if err != nil && len(there) > 0 && unknownBlob(err) {
		// The registry lost what the previous image needs.
		if err = p.upload(ctx, to, there, &st); err != nil {
			return fail(st, err)
		}
		err, there = push(), nil
	}
	if err != nil {
		return fail(st, fmt.Errorf("manifest: %w", err))
	}
	for _, l := range there {
		p.tell(&st, Event{l.Descriptor, Existing})
	}
	st.Manifest = p.seen.sent(to, ref.DigestStr())
	return st, nil
}

// Manifest puts a manifest of the store, such as an index, into a repository that has all it names, under its digest and no tag.
func (p *Pusher) Manifest(ctx context.Context, d ocispecs.Descriptor, repository string) error {
	to, err := name.NewDigest(repository + "@" + d.Digest.String())
	if err != nil {
		return fmt.Errorf("push %s@%s: %w", repository, d.Digest, err)
	}
	text, err := image.ReadJSON(ctx, p.b.Content(), d)
	if err == nil {
		err = p.remote.Push(ctx, to, rawManifest{text, types.MediaType(d.MediaType)})
	}
	if err != nil {
		return fmt.Errorf("push %s: %w", to, denied(err))
	}
	return nil
}

// Tag lets a tag of a repository mean an image that was uploaded there, and tells whether it meant another before, or nothing.
func (p *Pusher) Tag(ctx context.Context, img image.Image, repository, tag string) (moved bool, err error) {
	to, err := name.NewTag(repository + ":" + tag)
	if err != nil {
		return false, fmt.Errorf("tag %s:%s: %w", repository, tag, err)
	}
	manifest, err := image.ReadJSON(ctx, p.b.Content(), img.Manifest)
	if err == nil {
		err = p.remote.Push(ctx, to, rawManifest{manifest, types.MediaType(img.Manifest.MediaType)})
	}
	if err != nil {
		return false, fmt.Errorf("tag %s: %w", to, denied(err))
	}
	return p.seen.sent(to.Context(), tag), nil
}

// A Presence is what a repository has of an image.
type Presence struct {
	Manifest bool                     // the image itself
	Missing  []ocispecs.Descriptor    // blobs that it lacks, of those that were asked for
	Tags     map[string]digest.Digest // what tags mean now; "" for none
}

// Check asks a repository what it has of img, by HEAD requests. Blobs are asked for where it lacks the manifest, and with Deep of [PushOptions]
// always. An img without a manifest is one that is not built yet: its Layers are those that are known.
func (p *Pusher) Check(ctx context.Context, img image.Image, repository string, tags []string) (is Presence, err error) {
	fail := func(err error) (Presence, error) { return is, fmt.Errorf("ask %s: %w", repository, denied(err)) }
	to, err := name.NewRepository(repository)
	if err != nil {
		return fail(err)
	}
	head := func(ref name.Reference) (digest.Digest, error) {
		d, err := p.puller.Head(ctx, ref)
		if notFound(err) {
			return "", nil
		} else if err != nil {
			return "", err
		}
		return digest.Digest(d.Digest.String()), nil
	}
	is.Tags = map[string]digest.Digest{}
	for _, t := range tags {
		if is.Tags[t], err = head(to.Tag(t)); err != nil {
			return fail(err)
		}
	}
	if d := img.Manifest.Digest; d != "" {
		sum, err := head(to.Digest(d.String()))
		if err != nil {
			return fail(err)
		}
		if is.Manifest = sum == d; is.Manifest && !p.opt.Deep {
			return is, nil
		}
	}
	blobs := distinctBlobs(img)
	missing := make([]bool, len(blobs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cap(p.slots))
	for i, l := range blobs {
		if l.Descriptor.Digest == "" {
			continue // the configuration of what is not built
		}
		g.Go(func() error {
			blob, err := p.puller.Layer(ctx, to.Digest(l.Descriptor.Digest.String()))
			if err != nil {
				return err
			}
			there, err := partial.Exists(blob)
			missing[i] = !there
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fail(err)
	}
	for i, l := range blobs {
		if missing[i] {
			is.Missing = append(is.Missing, l.Descriptor)
		}
	}
	return is, nil
}

func notFound(err error) bool {
	var e *transport.Error
	return errors.As(err, &e) && e.StatusCode == http.StatusNotFound
}

// distinctBlobs are the blobs of an image, each once, its config among them.
func distinctBlobs(img image.Image) []image.Layer {
	var all []image.Layer
	done := map[digest.Digest]bool{}
	for _, l := range append([]image.Layer{{Descriptor: img.Config}}, img.Layers...) {
		if d := l.Descriptor.Digest; !done[d] {
			done[d] = true
			all = append(all, l)
		}
	}
	return all
}

// blobsOf are the blobs of an image that a tag of a repository names; none if there is no such image.
func (p *Pusher) blobsOf(ctx context.Context, repository name.Repository, tag string) map[digest.Digest]bool {
	known := map[digest.Digest]bool{}
	ref, err := name.NewTag(repository.Name() + ":" + tag)
	if err != nil {
		return known
	}
	d, err := p.puller.Get(ctx, ref)
	if err != nil {
		return known
	}
	var m ocispecs.Manifest
	if json.Unmarshal(d.Manifest, &m) != nil || m.Config.Digest == "" {
		return known
	}
	for _, b := range append(m.Layers, m.Config) {
		known[b.Digest] = true
	}
	return known
}

// unknownBlob tells whether a registry refuses a manifest since it lacks a blob.
func unknownBlob(err error) bool {
	var e *transport.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, d := range e.Errors {
		if d.Code == transport.ManifestBlobUnknownErrorCode || d.Code == transport.BlobUnknownErrorCode {
			return true
		}
	}
	return false
}

// denied says what to do about an error by which a registry wants to know who asks.
func denied(err error) error {
	var e *transport.Error
	if errors.As(err, &e) && (e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden) && e.Request != nil {
		return fmt.Errorf("%w\n    the registry does not let you: docker login %s (or podman's, or crane auth login) says who you are", err, e.Request.URL.Host)
	}
	return err
}

// tell counts a blob.
func (p *Pusher) tell(st *Stats, e Event) {
	p.report.Lock()
	defer p.report.Unlock()
	switch e.How {
	case Uploaded:
		st.Uploaded++
		st.Bytes += e.Descriptor.Size
	case Mounted:
		st.Mounted++
	case Existing:
		st.Existing++
	}
	if p.opt.Progress != nil {
		p.opt.Progress(e)
	}
}

// upload puts blobs into a repository.
func (p *Pusher) upload(ctx context.Context, to name.Repository, blobs []image.Layer, st *Stats) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range blobs {
		g.Go(func() error {
			how, err := p.blob(gctx, to, l)
			if err != nil {
				return fmt.Errorf("%s: %w", l.Descriptor.Digest, err)
			}
			p.tell(st, Event{l.Descriptor, how})
			return nil
		})
	}
	return g.Wait()
}

// blob puts one blob into a repository. Another repository of the registry to which the same blob is on its way comes first, and it is mounted from there.
func (p *Pusher) blob(ctx context.Context, to name.Repository, l image.Layer) (How, error) {
	key := to.RegistryStr() + " " + l.Descriptor.Digest.String()
	p.mu.Lock()
	f := p.flights[key]
	first := f == nil
	if first {
		f = &flight{repository: to, done: make(chan struct{})}
		p.flights[key] = f
	}
	p.mu.Unlock()
	if !first {
		select {
		case <-f.done:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		if f.err == nil && f.repository != to {
			l.Source = f.repository.Name()
		}
	}
	how, err := p.send(ctx, to, l)
	if first {
		f.err = err
		close(f.done)
	}
	return how, err
}

func (p *Pusher) send(ctx context.Context, to name.Repository, l image.Layer) (How, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	blob := &remoteBlob{ctx: ctx, b: p.b, l: l, kc: p.opt.Keychain}
	m := mountable(blob, to)
	defer p.mounting(to, m)()
	if err := p.remote.Upload(ctx, to, m); err != nil {
		return "", err
	}
	switch {
	case blob.read.Load():
		return Uploaded, nil
	case p.seen.mounted(to, l.Descriptor.Digest.String()):
		return Mounted, nil
	}
	return Existing, nil
}

// mounting returns what is to be called when a blob is sent. The first mount from a repository asks for a token of more scope, and remote.Pusher changes its
// client for that while others use it; so nothing else goes into the repository meanwhile.
func (p *Pusher) mounting(to name.Repository, l v1.Layer) (done func()) {
	lock, _ := p.scopes.LoadOrStore(to.Name(), &scopes{from: map[string]bool{}})
	s := lock.(*scopes)
	if m, ok := l.(*remote.MountableLayer); ok {
		from := m.Reference.Context().Name()
		s.Lock()
		if !s.from[from] {
			s.from[from] = true
			return s.Unlock
		}
		s.Unlock()
	}
	s.RLock()
	return s.RUnlock
}

// scopes are the repositories that one repository mounts from.
type scopes struct {
	sync.RWMutex
	from map[string]bool
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
	next http.RoundTripper
	did  sync.Map // repository and digest that was mounted, or reference whose manifest was sent → true
}

func (o *observer) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.next.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusCreated {
		return resp, err
	}
	switch d := r.URL.Query().Get("mount"); {
	case r.Method == http.MethodPost && d != "":
		o.did.Store("mount "+r.URL.Host+strings.TrimSuffix(r.URL.Path, "/blobs/uploads/")+" "+d, true)
	case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/"):
		o.did.Store("put "+r.URL.Host+r.URL.Path, true)
	}
	return resp, nil
}

func (o *observer) mounted(to name.Repository, d string) bool {
	_, ok := o.did.Load("mount " + to.RegistryStr() + "/v2/" + to.RepositoryStr() + " " + d)
	return ok
}

// sent tells whether a manifest was sent for a tag or digest since it was asked last.
func (o *observer) sent(to name.Repository, identifier string) bool {
	_, ok := o.did.LoadAndDelete("put " + to.RegistryStr() + "/v2/" + to.RepositoryStr() + "/manifests/" + identifier)
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
