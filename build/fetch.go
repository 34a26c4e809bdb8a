package build

import (
	"encoding/hex"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph/action"
)

// A Fetch is something that a build would bring from elsewhere.
type Fetch struct {
	What  string // "manifest", "layer", "base layer", or what a download is called
	From  string // where it may be had: a repository, a layout or a tar, or the path of a download below its mirrors
	Bytes int64  // 0 where that is not known yet
}

// Fetches returns what carrying out a plan that was resolved would bring from elsewhere, each once, in the order of the plan: what dirty steps need and the store lacks. What an
// image holds whose manifest has to be fetched first is not known. A base layer is fetched only if the layer on it is not as it was.
func (b *Builder) Fetches(p *plan.Plan) []Fetch {
	var all []Fetch
	seen := map[Fetch]bool{}
	add := func(f Fetch) {
		if !seen[f] {
			seen[f] = true
			all = append(all, f)
		}
	}
	for _, s := range p.Steps {
		if s.State != plan.Dirty && s.State != plan.Pending {
			continue
		}
		switch do := s.Node.Do.(type) {
		case *action.Image:
			if im := do.Import; im != nil && im.Registry != "" {
				add(Fetch{What: "manifest", From: im.Registry + "@" + im.Digest})
			}
		case *action.Run:
			r := p.Step(do.Root).Record
			if r == nil {
				continue
			}
			for _, l := range r.Image.Layers {
				if !b.Store.Has(l.Descriptor) {
					add(Fetch{"layer", l.Source + "@" + l.Descriptor.Digest.String(), l.Descriptor.Size})
				}
			}
		case *action.Layer:
			if do.Base != nil && !b.Store.Has(baseLayer(do.Base).Descriptor) {
				add(Fetch{"base layer", do.Base.Repository + "@" + do.Base.Digest, do.Base.Size})
			}
		case *action.Native:
			for _, d := range do.Downloads {
				sum, err := hex.DecodeString(d.SHA256)
				if err == nil && !b.Store.Has(ocispecs.Descriptor{Digest: digest.NewDigestFromBytes(digest.SHA256, sum), Size: d.Size}) {
					add(Fetch{d.Name, d.Path, d.Size})
				}
			}
		}
	}
	return all
}

// baseLayer is a base as a layer of an image.
func baseLayer(base *action.Base) image.Layer {
	return image.Layer{
		Descriptor: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerZstd, Digest: digest.Digest(base.Digest), Size: base.Size},
		DiffID:     digest.Digest(base.DiffID), Source: base.Repository,
	}
}
