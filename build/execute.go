package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/renameio/v2"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/build/lower"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// ErrTimeout is wrapped by the error of a step that was still running after its timeout.
var ErrTimeout = errors.New("timeout")

// execute makes the output of s.
func (b *Builder) execute(ctx context.Context, p *plan.Plan, s *plan.Step) (r *plan.Record, err error) {
	n := s.Node
	switch {
	case n.Kind() == "Run": // the engine shows its own steps
	case n.MakesFiles():
		b.crowd.begin(b.Display, n)
		defer func() { b.crowd.end(n, err) }()
	default:
		task := b.Display.Task(n.ID())
		task.Start()
		defer func() { task.Done(err) }()
	}
	begun := time.Now()
	record := func(n *action.Node) *plan.Record { return p.Step(n).Record }
	switch do := n.Do.(type) {
	case *action.Layer:
		r, err = b.pack(ctx, do, record)
	case *action.Run:
		r, err = b.runStep(ctx, n, do, record)
	case *action.Native:
		if do.Layer {
			r, err = b.nativeLayer(ctx, n, do)
		} else {
			r, err = b.native(ctx, s, do)
		}
	case *action.Image:
		r, err = b.image(ctx, do, record)
	}
	if err != nil {
		var own *graph.Error
		if errors.As(err, &own) || errors.Is(err, context.Canceled) {
			return nil, err
		}
		return nil, &graph.Error{Pos: n.Pos, Label: n.Label, Msg: err.Error(), Hints: nextStep(err), Err: err}
	}
	r.Took = max(time.Since(begun).Round(time.Microsecond), time.Microsecond)
	return r, nil
}

// nextStep says what to do about an error that comes from the machine.
func nextStep(err error) []string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return []string{"the disk is full: make room (mwbuild clean frees some), or name another cache folder with --cache-dir"}
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return []string{"if that is the cache folder, name another one with --cache-dir"}
	}
	return nil
}

// merge makes one layer of what differs from several bases.
func (b *Builder) merge(ctx context.Context, do *action.Layer, record func(*action.Node) *plan.Record) (*plan.Record, error) {
	var stacks []layer.Stack
	differ := false
	for _, n := range do.Merges {
		made := record(n).Layers
		s := layer.Stack{Bottom: made[0]} // its base, or all of it
		if len(made) > 1 {
			s.Delta, differ = &made[1], true
		}
		stacks = append(stacks, s)
	}
	if !differ {
		return &plan.Record{}, nil
	}
	known := map[digest.Digest]*layer.Listing{}
	l, err := layer.Merge(ctx, b.Store, stacks, do.Shared, do.KeepFolders, func(l image.Layer) (_ *layer.Listing, err error) {
		at := l.Descriptor.Digest
		if known[at] == nil {
			known[at], err = b.listing(ctx, l)
		}
		return known[at], err
	})
	if err != nil {
		return nil, err
	}
	return &plan.Record{Layers: []image.Layer{l}}, nil
}

func (b *Builder) pack(ctx context.Context, do *action.Layer, record func(*action.Node) *plan.Record) (*plan.Record, error) {
	if len(do.Merges) > 0 {
		return b.merge(ctx, do, record)
	}
	var entries []layer.Entry
	opened := map[*action.Node]*layer.Contents{}
	defer func() {
		for _, c := range opened {
			c.Close()
		}
	}()
	for _, e := range do.Entries {
		switch {
		case e.File != "":
			f, _ := b.Tree.Lookup(e.File)
			d, err := b.Tree.Digest(e.File)
			if err != nil {
				return nil, err
			}
			le := layer.Entry{
				Path: e.Dest, Owner: do.Owner, Exec: f.Mode == workspace.Executable, Size: d.Size, SHA256: d.SHA256,
				Open: func() (io.ReadCloser, error) { return b.Tree.Open(e.File) },
			}
			if f.Mode == workspace.Symlink {
				le = layer.Entry{Path: e.Dest, Owner: do.Owner, Kind: layer.Symlink, Target: f.Target}
			}
			entries = append(entries, le)
		case e.From != nil && e.From.MakesFiles():
			f := record(e.From).File(e.Path)
			le := layer.Entry{Path: e.Dest, Owner: do.Owner, Size: f.Size, Open: func() (io.ReadCloser, error) {
				m, err := b.remake(ctx, e.From, f)
				return madeReader{bytes.NewReader(m.Data), m}, err
			}}
			if do.Base != nil { // what is as it was need not be made again to be compared
				if sum, err := hex.DecodeString(f.SHA256); err == nil && len(sum) == len(le.SHA256) {
					le.SHA256 = [sha256.Size]byte(sum)
				}
			}
			entries = append(entries, le)
		case e.From != nil:
			c := opened[e.From]
			if c == nil {
				made := record(e.From).Layers
				if len(made) != 1 { // only a layer of sources stands on a base
					return nil, fmt.Errorf("%s made %d layers, want one", e.From.ID(), len(made))
				}
				var err error
				if c, err = layer.Open(ctx, b.Store.Content(), made[0].Descriptor); err != nil {
					return nil, err
				}
				opened[e.From] = c
			}
			es, err := c.Entries(e.Path, e.Dest)
			if err != nil {
				return nil, err
			}
			for i := range es {
				es[i].Owner = do.Owner
			}
			entries = append(entries, es...)
		case e.Text != nil:
			text := []byte(*e.Text)
			entries = append(entries, layer.Entry{
				Path: e.Dest, Owner: do.Owner, Exec: e.Exec, Size: int64(len(text)), SHA256: sha256.Sum256(text),
				Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil },
			})
		default:
			o := do.Owner
			if e.User != nil {
				o = *e.User
			}
			entries = append(entries, layer.Entry{Path: e.Dest, Kind: layer.Dir, Owner: o})
		}
	}
	opt := layer.Options{Owner: do.Owner}
	if do.Base != nil {
		return b.packOn(ctx, do.Base, entries, opt)
	}
	l, err := layer.Pack(ctx, b.Store, entries, opt)
	if err != nil {
		return nil, err
	}
	return &plan.Record{Layers: []image.Layer{l}}, nil
}

// packOn packs what differs from a base, which is fetched if it is not in the store.
func (b *Builder) packOn(ctx context.Context, base *action.Base, entries []layer.Entry, opt layer.Options) (*plan.Record, error) {
	below := baseLayer(base)
	if !b.Store.Has(below.Descriptor) {
		// Most are as they were.
		whole, err := layer.Pack(ctx, b.Store, entries, opt)
		if err != nil {
			return nil, err
		}
		if whole.Descriptor.Digest == below.Descriptor.Digest {
			return &plan.Record{Layers: []image.Layer{whole}}, nil
		}
	}
	if err := transport.EnsureLayer(ctx, b.Store, below, authn.DefaultKeychain); err != nil {
		return nil, fmt.Errorf("its base layer cannot be had: %w\n    mwbuild publish from a workspace that has it puts it there; mwbuild layers plan takes another", err)
	}
	listing, err := b.listing(ctx, below)
	if err != nil {
		return nil, err
	}
	below.Source = ""
	l, how, err := layer.PackOn(ctx, b.Store, listing, entries, opt)
	switch {
	case err != nil:
		return nil, err
	case how == layer.Same:
		return &plan.Record{Layers: []image.Layer{below}}, nil
	case how == layer.Delta:
		return &plan.Record{Layers: []image.Layer{below, l}}, nil
	}
	return &plan.Record{Layers: []image.Layer{l}}, nil
}

// listing is what a base layer holds. It is kept beside the store, since reading the layer takes longer than anything else of a small change.
func (b *Builder) listing(ctx context.Context, of image.Layer) (*layer.Listing, error) {
	file := filepath.Join(b.Store.Dir(), "listings", of.Descriptor.Digest.Encoded()+"-"+of.DiffID.Encoded())
	if text, err := os.ReadFile(file); err == nil {
		if l, err := layer.ParseListing(text); err == nil {
			return l, nil
		}
	}
	l, err := layer.List(ctx, b.Store.Content(), of)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err == nil {
		_ = renameio.WriteFile(file, l.Marshal(), 0o644) // it is only faster
	}
	return l, nil
}

func (b *Builder) image(ctx context.Context, do *action.Image, record func(*action.Node) *plan.Record) (*plan.Record, error) {
	if do.Import != nil {
		im, err := transport.Import(ctx, b.Store, *do.Import, b.Root, authn.DefaultKeychain)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w\n    the image is not where the target says: put it there, or change its tar or layout", err)
		}
		if err != nil && do.Import.Registry != "" && ctx.Err() == nil {
			return nil, fmt.Errorf("%w\n    see that the registry answers, has that digest and lets you in (docker login); a layout or tar can stand in for it", err)
		}
		if err != nil {
			return nil, err
		}
		return &plan.Record{Image: &im}, nil
	}
	var base *image.Image
	var platform ocispecs.Platform
	if do.Base != nil {
		base = record(do.Base).Image
	} else {
		var err error
		if platform, err = platforms.Parse(do.Platform); err != nil {
			return nil, err
		}
	}
	var layers []image.NamedLayer
	merged := do.Merged()
	for _, n := range do.Layers {
		if im := record(n).Image; im != nil {
			named, err := im.Named()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", n.ID(), err)
			}
			layers = append(layers, named...)
			continue
		}
		made := record(n).Layers
		if merged[n] {
			made = made[:1]
		}
		for _, l := range made {
			layers = append(layers, image.NamedLayer{Layer: l, CreatedBy: plan.CreatedBy(n)})
		}
	}
	if len(layers) > image.MaxLayers {
		return nil, fmt.Errorf("the image would have %d layers; at most %d are allowed: take fewer images into it", len(layers), image.MaxLayers)
	}
	if base != nil && len(base.Layers)+len(layers) > image.MaxLayers {
		return nil, fmt.Errorf("the image would have %d layers, %d of them from its base; at most %d are allowed: use a base with fewer layers",
			len(base.Layers)+len(layers), len(base.Layers), image.MaxLayers)
	}
	im, err := image.Assemble(ctx, b.Store, base, layers, do.Config, platform)
	if err != nil {
		return nil, err
	}
	return &plan.Record{Image: &im}, nil
}

func (b *Builder) runStep(ctx context.Context, n *action.Node, do *action.Run, record func(*action.Node) *plan.Record) (*plan.Record, error) {
	if err := b.checkGiven(n, do); err != nil {
		return nil, err
	}
	if err := b.fetchRoot(ctx, record(do.Root).Image); err != nil {
		return nil, err
	}
	keyed, err := b.withSecretDigests(do)
	if err != nil {
		return nil, err
	}
	g, err := lowerRun(ctx, n.Label, keyed, record)
	if err != nil {
		return nil, err
	}
	solve, cancel := ctx, func() {}
	if do.Timeout > 0 {
		solve, cancel = context.WithTimeout(ctx, do.Timeout)
	}
	defer cancel()
	req := buildkit.Request{Name: n.Label, Graph: g, Store: b.Store.Content(), Status: b.Display.Update}
	req.Secrets, req.SSH = b.given(do)
	if log := b.Records.newLog(n); log != nil {
		defer log.Close()
		req.Log = log
	}
	res, err := b.Engine.Solve(solve, req)
	switch {
	case err != nil && ctx.Err() == nil && errors.Is(solve.Err(), context.DeadlineExceeded):
		return nil, &graph.Error{Pos: n.Pos, Label: n.Label, Msg: fmt.Sprintf("the command was still running after %s, its timeout", do.Timeout),
			Hints: []string{"what it printed: mwbuild log " + n.Label, "give it a longer timeout if it was not stuck"}, Err: ErrTimeout}
	case err != nil:
		return nil, stepError(n, do, err)
	}
	if do.Changes {
		return b.changes(ctx, do, record(do.Root).Image, res.Layer)
	}
	if res.Layer.Digest == "" {
		return nil, errors.New("the engine handed back no layer")
	}
	made := image.Layer{Descriptor: res.Layer, DiffID: res.DiffID}
	c, err := layer.Open(ctx, b.Store.Content(), made.Descriptor)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for _, out := range do.Outs {
		if _, err := c.Entries(out, out); err != nil {
			return nil, &graph.Error{Pos: n.Pos, Label: n.Label, Msg: fmt.Sprintf("the command did not make %s", out), Hints: []string{"it must write it to /out/" + out + " ($OUT)"}, Err: err}
		}
	}
	return &plan.Record{Layers: []image.Layer{made}}, nil
}

// changes packs what a step changed in its root.
func (b *Builder) changes(ctx context.Context, do *action.Run, root *image.Image, diff ocispecs.Descriptor) (*plan.Record, error) {
	epoch := time.Unix(0, 0)
	if s := do.Env["SOURCE_DATE_EPOCH"]; s != "" {
		n, err := strconv.ParseInt(s, 10, 33)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %q: want seconds since 1970", s)
		}
		epoch = time.Unix(n, 0)
	}
	var below []ocispecs.Descriptor
	for _, l := range root.Layers {
		below = append(below, l.Descriptor)
	}
	l, err := layer.Changes(ctx, b.Store, below, diff, lower.OwnPlaces(*do), epoch)
	if err != nil {
		return nil, err
	}
	return &plan.Record{Layers: []image.Layer{l}}, nil
}
