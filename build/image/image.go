// Package image assembles images from layers, and defines what an image is to the rest of the build.
//
// mwbuild computes every image's config and manifest itself, from descriptors alone: the digest of that manifest is the
// image's identity, and engines and registries are only ways to carry it. No byte of a layer is read here. Package
// layer makes and reads the blobs, package transport brings images in from elsewhere and carries them out.
package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blobs is what this package and those below it need of the store.
type Blobs interface {
	// Ingest streams what write writes into the store and returns its descriptor. It records nothing if write fails,
	// and nothing new if the blob is there already.
	Ingest(ctx context.Context, mediaType string, write func(io.Writer) error) (ocispecs.Descriptor, error)
	// Put stores b.
	Put(ctx context.Context, mediaType string, b []byte) (ocispecs.Descriptor, error)
	// Has tells whether the blob is in the store.
	Has(d ocispecs.Descriptor) bool
	// Content gives the bytes.
	Content() content.Store
}

// A Layer is one layer of an image: the blob by descriptor, and the digest of the tar in it. It is plain data, made to
// stand in a cache record.
type Layer struct {
	Descriptor ocispecs.Descriptor
	DiffID     digest.Digest
	Source     string `json:",omitempty"` // registry repository the blob may be had from when it is not in the store
}

// An Image is a manifest and what it refers to. Manifest and config are in the store; a layer is there, or may be had
// from its Source.
type Image struct {
	Manifest   ocispecs.Descriptor
	Config     ocispecs.Descriptor
	Layers     []Layer         // lowest first
	ConfigJSON json.RawMessage // for reading; the bytes that Config names are those in the store
}

// maxJSON bounds a manifest or config read into memory. Registries bound manifests at 4 MiB.
const maxJSON = 16 << 20

// ReadJSON returns the manifest or config d from p, verified against its digest. Blobs above 16 MiB are refused.
func ReadJSON(ctx context.Context, p content.Provider, d ocispecs.Descriptor) ([]byte, error) {
	if d.Size > maxJSON {
		return nil, fmt.Errorf("%s: %d bytes is too large for a manifest or config", d.Digest, d.Size)
	}
	b, err := content.ReadBlob(ctx, p, d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	if got := digest.FromBytes(b); got != d.Digest {
		return nil, fmt.Errorf("%s: the blob in the store is damaged: its digest is %s", d.Digest, got)
	}
	return b, nil
}

// LoadImage reads the image whose manifest is in the store. Its layers have no Source, and need not be in the store.
// An index is an error: picking a platform is the caller's.
func LoadImage(ctx context.Context, b Blobs, manifest ocispecs.Descriptor) (Image, error) {
	raw, err := ReadJSON(ctx, b.Content(), manifest)
	if err != nil {
		return Image{}, fmt.Errorf("read manifest: %w", err)
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return Image{}, fmt.Errorf("manifest %s: %w", manifest.Digest, err)
	}
	if m.Config.Digest == "" {
		return Image{}, fmt.Errorf("%s is no image manifest (media type %q)", manifest.Digest, m.MediaType)
	}
	config, err := ReadJSON(ctx, b.Content(), m.Config)
	if err != nil {
		return Image{}, fmt.Errorf("read config of %s: %w", manifest.Digest, err)
	}
	var c ocispecs.Image
	if err := json.Unmarshal(config, &c); err != nil {
		return Image{}, fmt.Errorf("config of %s: %w", manifest.Digest, err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return Image{}, fmt.Errorf("image %s: the manifest has %d layers, the config %d", manifest.Digest, len(m.Layers), len(c.RootFS.DiffIDs))
	}
	img := Image{Manifest: manifest, Config: m.Config, ConfigJSON: config}
	for i, d := range m.Layers {
		img.Layers = append(img.Layers, Layer{Descriptor: d, DiffID: c.RootFS.DiffIDs[i]})
	}
	return img, nil
}
