package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/graph/label"
)

// platformsOf splits what --platform says for publish; it is one, but where several are to be published together.
func platformsOf(flag string) ([]string, error) {
	all := strings.Split(flag, ",")
	for i, p := range all {
		if p == "" && len(all) > 1 || slices.Contains(all[:i], p) {
			return nil, usagef("--platform=%s: want platforms such as linux/amd64,linux/arm64, each once", flag)
		}
	}
	return all, nil
}

// A platformImage is what an index has for one platform.
type platformImage struct {
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
}

// publishPlatforms publishes images for several platforms: of each target an index, which is what its tags mean.
func (o *opened) publishPlatforms(ctx context.Context, patterns []label.Pattern, all, tags []string, f publishFlags) (err error) {
	a := o.app
	b, closeBuilder, err := o.builder(f.jobs, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBuilder()) }()
	indices := map[string]*published{} // by repository
	parts := map[string][]ocispecs.Descriptor{}
	var order []*published
	var sum build.Result
	counts := newCounts()
	for _, platform := range all {
		a.config.Platform = platform
		p, err := o.publication(ctx, patterns, f)
		if err != nil {
			return err
		}
		res, err := a.healing(ctx, b, func() (*build.Result, error) {
			res, err := b.Build(ctx, p.targets)
			if err != nil || len(res.Errors) > 0 {
				return res, err
			}
			return res, a.carry(ctx, b, res, p.all, nil, f, p.attester)
		})
		if err == nil && len(res.Errors) > 0 {
			sum.Errors = append(sum.Errors, res.Errors...)
			continue
		}
		if err != nil {
			return errors.Join(ctx.Err(), err)
		}
		counts.add(res)
		for _, p := range p.all {
			to := indices[p.Repository]
			if to == nil {
				to = toPublish(res.Targets[0].Target, p.Repository)
				to.Label = p.Label
				indices[p.Repository], order = to, append(order, to)
			}
			part, err := platformDescriptor(p.image)
			if err != nil {
				return err
			}
			parts[p.Repository] = append(parts[p.Repository], part)
			to.Attestations = append(to.Attestations, p.Attestations...)
			to.Platforms = append(to.Platforms, platformImage{platforms.Format(*part.Platform), p.Digest})
			to.Uploaded, to.Mounted, to.Existing, to.Bytes = to.Uploaded+p.Uploaded, to.Mounted+p.Mounted, to.Existing+p.Existing, to.Bytes+p.Bytes
		}
	}
	used := b.Engine.Used()
	if len(sum.Errors) == 0 {
		err = a.carryIndices(ctx, b, order, parts, tags, f)
	}
	if cerr := b.Display.Close(); err == nil {
		err = cerr
	}
	if ctx.Err() != nil || err != nil {
		return errors.Join(ctx.Err(), err)
	}
	o.report(sum.Errors)
	if len(sum.Errors) > 0 {
		err, order = errReported, nil
	}
	return errors.Join(err, a.printPublished(f, order, counts, sum.Errors, used))
}

// platformDescriptor is an image's manifest as an index names it.
func platformDescriptor(im image.Image) (ocispecs.Descriptor, error) {
	var config ocispecs.Image
	if err := json.Unmarshal(im.ConfigJSON, &config); err != nil {
		return ocispecs.Descriptor{}, fmt.Errorf("image configuration: %w", err)
	}
	d := ocispecs.Descriptor{MediaType: im.Manifest.MediaType, Digest: im.Manifest.Digest, Size: im.Manifest.Size}
	p := ocispecs.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
	d.Platform = &p
	return d, nil
}

// carryIndices pushes an index for each of what is to be published, and then lets tags mean them.
func (a *app) carryIndices(ctx context.Context, b *build.Builder, all []*published, parts map[string][]ocispecs.Descriptor, tags []string, f publishFlags) error {
	p, err := transport.NewPusher(ctx, b.Store, transport.PushOptions{Keychain: authn.DefaultKeychain, Jobs: f.jobs})
	if err != nil {
		return err
	}
	err = each(ctx, all, func(ctx context.Context, to *published) error {
		text, err := json.Marshal(ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Manifests: parts[to.Repository]})
		if err != nil {
			return err
		}
		if to.image.Manifest, err = b.Store.Put(ctx, ocispecs.MediaTypeImageIndex, text); err != nil {
			return err
		}
		to.Digest = to.image.Manifest.Digest.String()
		return p.Manifest(ctx, to.image.Manifest, to.Repository)
	})
	if err != nil {
		return err
	}
	return tagAll(ctx, p, all, tags)
}
