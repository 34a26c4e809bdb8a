package buildkit

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// A sourceStore serves a store and a few blobs beside it, for reading.
type sourceStore struct {
	content.Store
	extra map[digest.Digest][]byte
}

func (s *sourceStore) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	if b, ok := s.extra[d]; ok {
		return content.Info{Digest: d, Size: int64(len(b))}, nil
	}
	return s.Store.Info(ctx, d)
}

func (s *sourceStore) ReaderAt(ctx context.Context, desc ocispecs.Descriptor) (content.ReaderAt, error) {
	if b, ok := s.extra[desc.Digest]; ok {
		return blob{bytes.NewReader(b)}, nil
	}
	return s.Store.ReaderAt(ctx, desc)
}

func (s *sourceStore) Writer(context.Context, ...content.WriterOpt) (content.Writer, error) {
	return nil, fmt.Errorf("the source store is read-only: %w", errdefs.ErrPermissionDenied)
}

func (s *sourceStore) Delete(context.Context, digest.Digest) error {
	return fmt.Errorf("the source store is read-only: %w", errdefs.ErrPermissionDenied)
}

func (s *sourceStore) Abort(context.Context, string) error {
	return fmt.Errorf("the source store is read-only: %w", errdefs.ErrPermissionDenied)
}

func (s *sourceStore) Update(context.Context, content.Info, ...string) (content.Info, error) {
	return content.Info{}, fmt.Errorf("the source store is read-only: %w", errdefs.ErrPermissionDenied)
}

type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }

// An exportStore is what one solve writes its result to. A content store lets one writer at a time work on a reference,
// and engines derive theirs from the digest; solves with equal results must not shut each other out, so each gets
// references of its own. Deleting is not for engines.
type exportStore struct {
	content.Store
	id string

	mu   sync.Mutex
	refs []string
}

func (s *exportStore) ref(ref string) string { return s.id + "-" + ref }

func (s *exportStore) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	ref := s.ref(o.Ref)
	s.mu.Lock()
	s.refs = append(s.refs, ref)
	s.mu.Unlock()
	return s.Store.Writer(ctx, content.WithRef(ref), content.WithDescriptor(o.Desc))
}

func (s *exportStore) Status(ctx context.Context, ref string) (content.Status, error) {
	st, err := s.Store.Status(ctx, s.ref(ref))
	st.Ref = ref
	return st, err
}

func (s *exportStore) Abort(ctx context.Context, ref string) error {
	return s.Store.Abort(ctx, s.ref(ref))
}

func (s *exportStore) Delete(context.Context, digest.Digest) error {
	return fmt.Errorf("the engine may not delete: %w", errdefs.ErrPermissionDenied)
}

// abort removes what a failed solve left half written.
func (s *exportStore) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range s.refs {
		s.Store.Abort(context.Background(), ref) // most are committed or gone
	}
}
