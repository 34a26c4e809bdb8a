// Package transport carries images in from elsewhere and out again.
//
// [Import] takes an image from a registry, an OCI layout or a tar, always by digest. [Push] and [Export] carry one out.
// The manifest that leaves is the one in the store, byte for byte, except where Export is asked for another compression.
// Layers of a registry stay there until somebody needs their bytes: see [EnsureLayer].
package transport

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
)

// remoteOptions are those of every request. A nil keychain is Docker's and Podman's configuration of the user.
func remoteOptions(ctx context.Context, kc authn.Keychain, more ...remote.Option) []remote.Option {
	if kc == nil {
		kc = authn.DefaultKeychain
	}
	return append([]remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(kc), remote.WithUserAgent("mwbuild"),
	}, more...)
}

// EnsureLayer downloads a layer that is not in b from its Source, and verifies it. A nil keychain is the user's own.
func EnsureLayer(ctx context.Context, b image.Blobs, l image.Layer, kc authn.Keychain) error {
	d := l.Descriptor
	if b.Has(d) {
		return nil
	}
	if l.Source == "" {
		return fmt.Errorf("layer %s is not in the store, and no registry is known to have it; build it again", d.Digest)
	}
	repo, err := name.NewRepository(l.Source)
	if err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	blob, err := remote.Layer(repo.Digest(d.Digest.String()), remoteOptions(ctx, kc)...)
	if err != nil {
		return fmt.Errorf("layer %s of %s: %w", d.Digest, l.Source, err)
	}
	r, err := blob.Compressed()
	if err != nil {
		return fmt.Errorf("download layer %s of %s: %w", d.Digest, l.Source, err)
	}
	defer r.Close()
	if err := ingest(ctx, b, d, r); err != nil {
		return fmt.Errorf("download layer of %s: %w", l.Source, err)
	}
	return nil
}

// ingest copies r into b. If it is not d, nothing is recorded.
func ingest(ctx context.Context, b image.Blobs, d ocispecs.Descriptor, r io.Reader) error {
	_, err := b.Ingest(ctx, d.MediaType, func(w io.Writer) error { return copyVerified(ctx, w, r, d) })
	return err
}

// copyVerified fails unless r holds exactly d.
func copyVerified(ctx context.Context, w io.Writer, r io.Reader, d ocispecs.Descriptor) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(ctxReader{ctx, r}, d.Size+1))
	if err != nil {
		return fmt.Errorf("%s: %w", d.Digest, err)
	}
	if got := digest.NewDigest(digest.SHA256, h); n != d.Size || got != d.Digest {
		return fmt.Errorf("%s: damaged: expected %d bytes, got %d or more with digest %s", d.Digest, d.Size, n, got)
	}
	return nil
}

// A ctxReader ends with ctx, for reads that do not know it.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
