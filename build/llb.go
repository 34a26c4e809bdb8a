package build

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/build/lower"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
)

// root returns the image that n made as package lower takes it. An imported image and what a step changed may hold whiteouts
// for anything below, so layers up to these are stacked in order; those put on them are merged.
func root(n *action.Node, record func(*action.Node) *plan.Record) (lower.Root, error) {
	im := record(n).Image
	var cfg ocispecs.Image
	if err := json.Unmarshal(im.ConfigJSON, &cfg); err != nil {
		return lower.Root{}, fmt.Errorf("image configuration: %w", err)
	}
	r := lower.Root{Platform: platforms.Format(cfg.Platform), Env: cfg.Config.Env, WorkingDir: cfg.Config.WorkingDir, User: cfg.Config.User}
	base := len(im.Layers)
	var merged [][]lower.Layer // of actions, the last first
down:
	for at := n; at != nil; {
		do := at.Do.(*action.Image)
		if do.Import != nil {
			break
		}
		inOther := do.Merged()
		for _, l := range slices.Backward(do.Layers) {
			if run, ok := l.Do.(*action.Run); ok && run.Changes {
				break down
			}
			if inOther[l] {
				base-- // what is merged lies on all that it may delete something of, below
				continue
			}
			layers := record(l).Layers
			base -= len(layers)
			if do, ok := l.Do.(*action.Layer); ok && len(do.Merges) > 0 {
				layers = nil
				for _, m := range do.Merges {
					layers = append(layers, record(m).Layers[0])
				}
				layers = append(layers, record(l).Layers...)
			}
			if im := record(l).Image; im != nil {
				layers = im.Layers // what it holds may delete some of its own
				base -= len(layers)
			}
			merged = append(merged, lowerLayers(layers))
		}
		at = do.Base
	}
	for _, l := range im.Layers[:base] {
		r.Layers = append(r.Layers, lower.Layer{Descriptor: l.Descriptor, DiffID: l.DiffID})
	}
	r.BaseLayers = base
	for _, layers := range slices.Backward(merged) {
		r.Layers = append(r.Layers, layers...)
	}
	return r, nil
}

// lowerLayers are the layers that one action made, as one: the last stands on those before it, of which it may delete something.
func lowerLayers(layers []image.Layer) []lower.Layer {
	var on *lower.Layer
	for _, l := range layers {
		on = &lower.Layer{Descriptor: l.Descriptor, DiffID: l.DiffID, On: on}
	}
	if on == nil {
		return nil
	}
	return []lower.Layer{*on}
}

// lowerRun lowers one Run action whose inputs have been built.
func lowerRun(ctx context.Context, label string, do *action.Run, record func(*action.Node) *plan.Record) (lower.Graph, error) {
	rootfs, err := root(do.Root, record)
	if err != nil {
		return lower.Graph{}, err
	}
	mounts := map[*action.Node][]lower.Layer{}
	for _, m := range do.Mounts {
		mounts[m.From] = lowerLayers(record(m.From).Layers)
	}
	return lower.Run(ctx, *do, rootfs, mounts, label)
}

// LLB returns the graph of a target: of an image its layers merged, with the image's configuration; of a target whose
// output a Run makes, that step. What the layers hold is built first, and the graph's manifests are put into the store,
// so that the store serves the graph. Errors are those of failed actions.
func (b *Builder) LLB(ctx context.Context, t *graph.Target) (g lower.Graph, config digest.Digest, errs []error, err error) {
	if len(t.Outputs) != 1 {
		return g, "", nil, fmt.Errorf("%s has %d outputs; LLB describes one: name an image or a genrule", t.Label, len(t.Outputs))
	}
	n := t.Outputs[0]
	needed := []*action.Node{n}
	if n.Kind() == "Run" {
		needed = n.Deps() // the step itself is for the other builder
	}
	p := b.newPlan(needed)
	failed, err := b.run(ctx, p, nil)
	if err != nil || len(failed.errs) > 0 {
		return g, "", failed.sorted(), err
	}
	record := func(n *action.Node) *plan.Record { return p.Step(n).Record }
	switch n.Kind() {
	case "Run":
		if err := b.fetchRoot(ctx, record(n.Do.(*action.Run).Root).Image); err != nil {
			return g, "", nil, err
		}
		g, err = lowerRun(ctx, n.Label, n.Do.(*action.Run), record)
	case "Image":
		im := record(n).Image
		if err := b.fetchRoot(ctx, im); err != nil {
			return g, "", nil, err
		}
		var rootfs lower.Root
		if rootfs, err = root(n, record); err != nil {
			return g, "", nil, err
		}
		config = im.Config.Digest
		g, err = lower.Image(ctx, rootfs, t.Label.String())
	default:
		return g, "", nil, fmt.Errorf("%s is a %s; LLB describes an image or a genrule: a component has an :image", t.Label, n.Kind())
	}
	if err != nil {
		return g, "", nil, err
	}
	for _, m := range g.Manifests {
		if _, err := b.Store.Put(ctx, ocispecs.MediaTypeImageManifest, m); err != nil {
			return g, "", nil, err
		}
	}
	return g, config, nil, nil
}

// fetchRoot downloads the layers of im that are known by descriptor only.
func (b *Builder) fetchRoot(ctx context.Context, im *image.Image) error {
	for _, l := range im.Layers {
		if err := transport.EnsureLayer(ctx, b.Store, l, authn.DefaultKeychain); err != nil {
			return err
		}
	}
	return nil
}
