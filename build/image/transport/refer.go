package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Document is a text about an image, which a registry keeps beside it: an image manifest of OCI 1.1 whose subject is the image.
type Document struct {
	Type        string // media type of the text, and type of the artifact
	File        string // what a client calls it that fetches it
	Text        []byte
	Annotations map[string]string // of the manifest, by which its maker knows it again
}

// Referrers returns what refers to an image in a repository, with its type and annotations. With Deep of [PushOptions] what lacks a blob is left out.
//
// The registry tells by its API for that, or else by the tag that stands for it, sha256-…. Not all that registries and other clients say there of a manifest
// is complete, so what has no annotations is read itself.
func (p *Pusher) Referrers(ctx context.Context, repository string, subject digest.Digest) ([]ocispecs.Descriptor, error) {
	fail := func(err error) ([]ocispecs.Descriptor, error) {
		return nil, fmt.Errorf("ask %s what refers to %s: %w", repository, subject, denied(err))
	}
	to, err := name.NewRepository(repository)
	if err != nil {
		return fail(err)
	}
	list, err := remote.Referrers(to.Digest(subject.String()), remote.WithContext(ctx), remote.Reuse(p.puller))
	if err != nil {
		return fail(err)
	}
	raw, err := list.RawManifest()
	if err != nil {
		return fail(err)
	}
	var index ocispecs.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return fail(err)
	}
	var all []ocispecs.Descriptor
	for _, d := range index.Manifests {
		if len(d.Annotations) == 0 || p.opt.Deep {
			m, err := p.manifest(ctx, to, d)
			if notFound(err) {
				continue // a tag can name what is gone
			} else if err != nil {
				return fail(err)
			}
			whole, err := p.whole(ctx, to, m)
			if err != nil {
				return fail(err)
			}
			if !whole || m.Subject == nil || m.Subject.Digest != subject {
				continue
			}
			d.ArtifactType, d.Annotations = m.ArtifactType, m.Annotations
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b ocispecs.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return all, nil
}

func (p *Pusher) manifest(ctx context.Context, to name.Repository, d ocispecs.Descriptor) (m ocispecs.Manifest, err error) {
	got, err := p.puller.Get(ctx, to.Digest(d.Digest.String()))
	if err == nil && got.MediaType == types.OCIManifestSchema1 {
		err = json.Unmarshal(got.Manifest, &m)
	}
	return m, err
}

// whole tells whether a repository has the blobs of a manifest, which it is asked with Deep of [PushOptions] alone.
func (p *Pusher) whole(ctx context.Context, to name.Repository, m ocispecs.Manifest) (bool, error) {
	if !p.opt.Deep {
		return true, nil
	}
	for _, d := range append(slices.Clone(m.Layers), m.Config) {
		blob, err := p.puller.Layer(ctx, to.Digest(d.Digest.String()))
		if err != nil {
			return false, err
		}
		if there, err := partial.Exists(blob); err != nil || !there {
			return false, err
		}
	}
	return true, nil
}

// Attach puts a document into a repository, for an image that was uploaded there. Where the registry has no API for referrers, the tag that stands for it
// names the document afterwards; two programs that write it at once can lose one of theirs, which the specification leaves so.
func (p *Pusher) Attach(ctx context.Context, repository string, subject ocispecs.Descriptor, doc Document) (ocispecs.Descriptor, error) {
	fail := func(err error) (ocispecs.Descriptor, error) {
		return ocispecs.Descriptor{}, fmt.Errorf("attach %s to %s@%s: %w", doc.Type, repository, subject.Digest, denied(err))
	}
	to, err := name.NewRepository(repository)
	if err != nil {
		return fail(err)
	}
	empty := ocispecs.DescriptorEmptyJSON
	text := ocispecs.Descriptor{
		MediaType: doc.Type, Digest: digest.FromBytes(doc.Text), Size: int64(len(doc.Text)), Annotations: map[string]string{ocispecs.AnnotationTitle: doc.File},
	}
	for _, blob := range []struct {
		ocispecs.Descriptor
		bytes []byte
	}{{empty, empty.Data}, {text, doc.Text}} {
		if err := p.remote.Upload(ctx, to, static.NewLayer(blob.bytes, types.MediaType(blob.MediaType))); err != nil {
			return fail(err)
		}
	}
	manifest, err := json.Marshal(ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: doc.Type, Config: empty,
		Layers: []ocispecs.Descriptor{text}, Subject: &ocispecs.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}, Annotations: doc.Annotations,
	})
	if err != nil {
		return fail(err)
	}
	d := ocispecs.Descriptor{
		MediaType: ocispecs.MediaTypeImageManifest, ArtifactType: doc.Type, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)), Annotations: doc.Annotations,
	}
	// Put and not Push, which does nothing where the manifest is there: a program that ended before the tag named it comes here again.
	put := func() error {
		return p.remote.Put(ctx, to.Digest(d.Digest.String()), rawManifest{manifest, ocispecs.MediaTypeImageManifest})
	}
	tag := to.Tag(strings.Replace(subject.Digest.String(), ":", "-", 1))
	if err := put(); err != nil {
		// Registries refuse a list that names what is gone, such as manifests that had no tag, to who cleans up.
		if pruned, perr := p.prune(ctx, tag); perr != nil || !pruned {
			return fail(err)
		}
		if err := put(); err != nil {
			return fail(err)
		}
	}
	if p.seen.sent(to, tag.TagStr()) {
		_, err := p.changeIndex(ctx, tag, func(all []ocispecs.Descriptor) ([]ocispecs.Descriptor, error) {
			for i := range all {
				if all[i].Digest == d.Digest {
					all[i] = d // remote.Pusher leaves annotations out
				}
			}
			return all, nil
		})
		if err != nil {
			return fail(err)
		}
	}
	return d, nil
}

// prune takes manifests out of the list under a tag that its repository has no more.
func (p *Pusher) prune(ctx context.Context, tag name.Tag) (pruned bool, err error) {
	return p.changeIndex(ctx, tag, func(all []ocispecs.Descriptor) (left []ocispecs.Descriptor, err error) {
		for _, d := range all {
			if _, err := p.puller.Head(ctx, tag.Context().Digest(d.Digest.String())); err == nil {
				left = append(left, d)
			} else if !notFound(err) {
				return nil, err
			}
		}
		return left, nil
	})
}

// changeIndex puts another list under a tag, if it is another.
func (p *Pusher) changeIndex(ctx context.Context, tag name.Tag, change func([]ocispecs.Descriptor) ([]ocispecs.Descriptor, error)) (changed bool, err error) {
	got, err := p.puller.Get(ctx, tag)
	if notFound(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	var index ocispecs.Index
	if err := json.Unmarshal(got.Manifest, &index); err != nil {
		return false, err
	}
	if index.Manifests, err = change(index.Manifests); err != nil {
		return false, err
	}
	if index.Manifests == nil {
		index.Manifests = []ocispecs.Descriptor{}
	}
	raw, err := json.Marshal(index)
	if err != nil || bytes.Equal(raw, got.Manifest) {
		return false, err
	}
	err = p.remote.Put(ctx, tag, rawManifest{raw, ocispecs.MediaTypeImageIndex})
	p.seen.sent(tag.Context(), tag.TagStr()) // nobody asks for this one
	return err == nil, err
}
