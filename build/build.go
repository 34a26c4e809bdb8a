// Package build carries a plan out and records what it made.
//
// Each action is executed by the part of mwbuild that is made for it: layers are packed and images assembled in this
// process, a Run step is lowered to LLB and solved by an engine, which is started when the first one must run and not
// before. Records are written as actions end, so that what an interrupted build finished is not done again.
package build

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/build/lower"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/build/progress"
	"github.com/mwbuild/mwbuild/cache/store"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// A Native computes the layers of an action.Native of its kind. What it returns must depend on the action's parameters,
// files and inputs alone; inputs holds the layers of each of the action's inputs.
type Native func(ctx context.Context, do *action.Native, tree *workspace.Disk, inputs [][]image.Layer, blobs image.Blobs) ([]image.Layer, error)

// A Builder builds targets of one workspace. All but Natives, Jobs and KeepGoing must be set.
type Builder struct {
	Root      string // absolute path of the workspace
	Tree      *workspace.Disk
	Store     *store.Store
	Records   *Records
	Engine    *buildkit.Engine
	Display   *progress.Display
	Natives   map[string]Native // by kind
	Jobs      int               // how many actions run at once; 0 is one for each processor
	KeepGoing bool              // build what can be built after a failure
	Log       *slog.Logger
}

// Status is what became of a target.
type Status string

// The states of a target after a build.
const (
	Built   Status = "built"   // at least one action that it needs was executed
	Cached  Status = "cached"  // nothing had to be done
	Failed  Status = "failed"  // one of its own actions failed
	Skipped Status = "skipped" // it needs an action that failed, or the build ended before
)

// A Result is what a build made.
type Result struct {
	Plan    *plan.Plan
	Targets []TargetResult // in the order asked for
	Errors  []error        // of failed actions, by position; every other error is returned by Build
	Why     []Explanation  // why each action that had to be executed had to be
}

// A TargetResult is what became of one target.
type TargetResult struct {
	Target  *graph.Target
	Status  Status
	Outputs []*plan.Record // of Target.Outputs, where Status is Built or Cached
}

// Counts returns how many actions the plan has, how many were executed, and how many were there already. Actions of
// the same key count as one.
func (r *Result) Counts() (total, executed, cached int) {
	seen := map[plan.Key]bool{}
	for _, s := range r.Plan.Steps {
		if s.Manifest != nil {
			if seen[s.Key] {
				continue
			}
			seen[s.Key] = true
		}
		total++
		switch s.State {
		case plan.Hit:
			cached++
		case plan.Done:
			executed++
		}
	}
	return total, executed, cached
}

// Build makes the outputs of targets. A failed action is in the result; the error is for what ends a build as a whole,
// such as a cancelled context or a full disk.
func (b *Builder) Build(ctx context.Context, targets []*graph.Target) (*Result, error) {
	var nodes []*action.Node
	for _, t := range targets {
		nodes = append(nodes, t.Outputs...)
	}
	p := plan.New(nodes, b.Tree)
	res := &Result{Plan: p}
	begun := time.Now()
	errs, err := b.run(ctx, p)
	res.Why = errs.why
	if err != nil {
		return res, err
	}
	b.Log.Debug("built", "actions", len(p.Steps), "took", time.Since(begun))
	res.Errors = errs.sorted()
	for _, t := range targets {
		tr := TargetResult{Target: t, Status: Cached}
		var visit func(s *plan.Step)
		seen := map[*plan.Step]bool{}
		visit = func(s *plan.Step) {
			if seen[s] {
				return
			}
			seen[s] = true
			switch {
			case s.Record == nil && errs.failed[s] && s.Node.Label == t.Label.String():
				tr.Status = Failed
			case s.Record == nil && tr.Status != Failed:
				tr.Status = Skipped
			case s.State == plan.Done && tr.Status == Cached:
				tr.Status = Built
			}
			for _, d := range s.Deps {
				visit(d)
			}
		}
		for _, n := range t.Outputs {
			visit(p.Step(n))
		}
		if tr.Status == Built || tr.Status == Cached {
			for _, n := range t.Outputs {
				tr.Outputs = append(tr.Outputs, p.Step(n).Record)
			}
		}
		res.Targets = append(res.Targets, tr)
	}
	return res, nil
}

// Heal removes the damaged ones among the blobs that the result names, and returns them. It reads them all.
func (b *Builder) Heal(ctx context.Context, res *Result) ([]digest.Digest, error) {
	blobs := map[digest.Digest]ocispecs.Descriptor{}
	for _, s := range res.Plan.Steps {
		if s.Record == nil {
			continue
		}
		layers := s.Record.Layers
		if im := s.Record.Image; im != nil {
			layers = im.Layers
			blobs[im.Manifest.Digest], blobs[im.Config.Digest] = im.Manifest, im.Config
		}
		for _, l := range layers {
			blobs[l.Descriptor.Digest] = l.Descriptor
		}
	}
	return b.Store.Heal(ctx, slices.Collect(maps.Values(blobs)))
}

// Plan resolves what can be resolved without executing anything: steps are Hit, Dirty, or Pending behind a Dirty one.
func (b *Builder) Plan(ctx context.Context, targets []*graph.Target) (*plan.Plan, error) {
	var nodes []*action.Node
	for _, t := range targets {
		nodes = append(nodes, t.Outputs...)
	}
	p := plan.New(nodes, b.Tree)
	return p, b.Records.session(ctx, func(db *session) error {
		if err := b.digest(ctx, p); err != nil {
			return err
		}
		for _, s := range p.Steps {
			if s.Ready() {
				if err := p.Resolve(s, func(k plan.Key) (*plan.Record, error) { return b.find(db, k) }); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// digest reads the files of the plan that are not in the memo, in parallel, and keeps their digests. It must run in a
// session. A file that cannot be read is no error here: the step that reads it tells, with its target.
func (b *Builder) digest(ctx context.Context, p *plan.Plan) error {
	begun := time.Now()
	defer func() { b.Log.Debug("digested", "files", len(p.SourceFiles()), "took", time.Since(begun)) }()
	if err := b.Tree.DigestAll(ctx, p.SourceFiles(), b.jobs()); ctx.Err() != nil {
		return err
	}
	return b.Tree.FlushMemo()
}

func (b *Builder) jobs() int {
	if b.Jobs > 0 {
		return b.Jobs
	}
	return runtime.NumCPU()
}

// find returns the record of k if what it names is still there.
func (b *Builder) find(db *session, k plan.Key) (*plan.Record, error) {
	r, err := db.record(k)
	if r == nil || err != nil {
		return nil, err
	}
	layers := r.Layers
	if r.Image != nil {
		layers = r.Image.Layers
		if !b.Store.Has(r.Image.Manifest) || !b.Store.Has(r.Image.Config) {
			return nil, nil
		}
	}
	if slices.ContainsFunc(layers, func(l image.Layer) bool { return l.Source == "" && !b.Store.Has(l.Descriptor) }) {
		return nil, nil
	}
	return r, nil
}

// failures is what run tells of actions beside their steps.
type failures struct {
	errs   []error
	failed map[*plan.Step]bool // whose own execution failed
	why    []Explanation
}

func (f *failures) sorted() []error {
	slices.SortFunc(f.errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return slices.CompactFunc(f.errs, func(a, b error) bool { return a.Error() == b.Error() })
}

// run executes what must be executed. It is the only goroutine that changes steps.
func (b *Builder) run(ctx context.Context, p *plan.Plan) (*failures, error) {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type ending struct {
		step   *plan.Step
		record *plan.Record
		err    error
		bug    string // a panic, for the goroutine that can tell of it
	}
	var (
		errs     = &failures{failed: map[*plan.Step]bool{}}
		inflight = map[plan.Key][]*plan.Step{} // all steps of that key: one executes, the others wait for it
		endings  = make(chan ending)
		limit    = make(chan struct{}, b.jobs())
		queue    = slices.Clone(p.Steps) // not yet resolved, dependencies first
		unsaved  []*plan.Step
		first    error // what ends the build
		draining bool
		digested bool
	)
	fail := func(s *plan.Step, err error) {
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return // it did not fail: another one did, or the user ended the build
		}
		errs.failed[s] = true
		errs.errs = append(errs.errs, err)
		if !b.KeepGoing {
			draining = true
			cancel()
		}
	}
	for {
		if first == nil {
			err := b.Records.session(ctx, func(db *session) error {
				for _, s := range unsaved {
					if err := db.save(s); err != nil {
						return err
					}
				}
				unsaved = nil
				if draining {
					return nil
				}
				if !digested {
					digested = true
					if err := b.digest(ctx, p); err != nil {
						return err
					}
				}
				var later []*plan.Step
				for _, s := range queue {
					if !s.Ready() {
						later = append(later, s)
						continue
					}
					err := p.Resolve(s, func(k plan.Key) (*plan.Record, error) { return b.find(db, k) })
					switch {
					case err != nil:
						fail(s, err)
					case s.State == plan.Hit:
						if err := db.seen(s); err != nil {
							return err
						}
					default:
						e, err := explain(db, s)
						if err != nil {
							return err
						}
						errs.why = append(errs.why, e)
						inflight[s.Key] = append(inflight[s.Key], s)
						if len(inflight[s.Key]) == 1 {
							go func() {
								defer func() {
									if r := recover(); r != nil {
										endings <- ending{step: s, bug: fmt.Sprintf("%v\n%s", r, debug.Stack())}
									}
								}()
								select {
								case limit <- struct{}{}:
									defer func() { <-limit }()
								case <-ctx.Done():
									endings <- ending{step: s, err: ctx.Err()}
									return
								}
								r, err := b.execute(ctx, p, s)
								endings <- ending{step: s, record: r, err: err}
							}()
						}
					}
				}
				queue = later
				return nil
			})
			if err != nil && !draining {
				first, draining = err, true
				cancel()
			}
		}
		if len(inflight) == 0 {
			break
		}
		// One ending, and all others that are there already: a session with the database serves them together.
		for e, more := <-endings, true; more; {
			if e.bug != "" {
				panic(e.bug)
			}
			steps := inflight[e.step.Key]
			delete(inflight, e.step.Key)
			for _, s := range steps {
				if e.err != nil {
					fail(s, e.err)
					continue
				}
				s.Finish(e.record)
				unsaved = append(unsaved, s)
			}
			select {
			case e = <-endings:
			default:
				more = false
			}
		}
	}
	if len(unsaved) > 0 {
		// What was finished is kept, also when the build was ended from outside.
		err := b.Records.session(context.WithoutCancel(ctx), func(db *session) error {
			for _, s := range unsaved {
				if err := db.save(s); err != nil {
					return err
				}
			}
			return nil
		})
		first = cmp.Or(first, err)
	}
	return errs, cmp.Or(outer.Err(), first)
}

// execute makes the output of s.
func (b *Builder) execute(ctx context.Context, p *plan.Plan, s *plan.Step) (r *plan.Record, err error) {
	n := s.Node
	task := b.Display.Task(n.ID())
	if n.Kind() != "Run" { // the engine shows its own steps
		task.Start()
	}
	defer func() {
		if n.Kind() != "Run" {
			task.Done(err)
		}
	}()
	record := func(n *action.Node) *plan.Record { return p.Step(n).Record }
	switch do := n.Do.(type) {
	case *action.Layer:
		r, err = b.pack(ctx, do, record)
	case *action.Run:
		r, err = b.runStep(ctx, n, do, record)
	case *action.Native:
		f := b.Natives[do.Kind]
		if f == nil {
			return nil, fmt.Errorf("%s: %s: there is no native action %q", n.Pos, n.Label, do.Kind)
		}
		var inputs [][]image.Layer
		for _, in := range do.Inputs {
			inputs = append(inputs, record(in).Layers)
		}
		var layers []image.Layer
		layers, err = f(ctx, do, b.Tree, inputs, b.Store)
		r = &plan.Record{Layers: layers}
	case *action.Image:
		r, err = b.image(ctx, do, record)
	}
	if err != nil {
		var own *graph.Error
		if errors.As(err, &own) || errors.Is(err, context.Canceled) {
			return nil, err
		}
		return nil, &graph.Error{Pos: n.Pos, Label: n.Label, Msg: err.Error(), Err: err}
	}
	return r, nil
}

func (b *Builder) pack(ctx context.Context, do *action.Layer, record func(*action.Node) *plan.Record) (*plan.Record, error) {
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
		case e.From != nil:
			c := opened[e.From]
			if c == nil {
				var err error
				if c, err = layer.Open(ctx, b.Store.Content(), record(e.From).Layers[0].Descriptor); err != nil {
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
	l, err := layer.Pack(ctx, b.Store, entries, layer.Options{Owner: do.Owner})
	if err != nil {
		return nil, err
	}
	return &plan.Record{Layers: []image.Layer{l}}, nil
}

func (b *Builder) image(ctx context.Context, do *action.Image, record func(*action.Node) *plan.Record) (*plan.Record, error) {
	if do.Import != nil {
		im, err := transport.Import(ctx, b.Store, *do.Import, b.Root, authn.DefaultKeychain)
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
	for _, n := range do.Layers {
		for _, l := range record(n).Layers {
			layers = append(layers, image.NamedLayer{Layer: l, CreatedBy: plan.CreatedBy(n)})
		}
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

// root returns the image that n made as package lower takes it. Only an imported image may hold whiteouts, so only its
// layers need be stacked in order; those put on it are merged.
func root(n *action.Node, record func(*action.Node) *plan.Record) (lower.Root, error) {
	im := record(n).Image
	var cfg ocispecs.Image
	if err := json.Unmarshal(im.ConfigJSON, &cfg); err != nil {
		return lower.Root{}, fmt.Errorf("image configuration: %w", err)
	}
	r := lower.Root{
		Layers: lowerLayers(im.Layers), Platform: platforms.Format(cfg.Platform),
		Env: cfg.Config.Env, WorkingDir: cfg.Config.WorkingDir, User: cfg.Config.User,
	}
	for at := n; at != nil; at = at.Do.(*action.Image).Base {
		if at.Do.(*action.Image).Import != nil {
			r.BaseLayers = len(record(at).Image.Layers)
		}
	}
	return r, nil
}

func lowerLayers(layers []image.Layer) []lower.Layer {
	out := make([]lower.Layer, len(layers))
	for i, l := range layers {
		out[i] = lower.Layer{Descriptor: l.Descriptor, DiffID: l.DiffID}
	}
	return out
}

// lowerRun lowers one Run action whose inputs have been built.
func lowerRun(ctx context.Context, n *action.Node, record func(*action.Node) *plan.Record) (lower.Graph, error) {
	do := n.Do.(*action.Run)
	rootfs, err := root(do.Root, record)
	if err != nil {
		return lower.Graph{}, err
	}
	mounts := map[*action.Node][]lower.Layer{}
	for _, m := range do.Mounts {
		mounts[m.From] = lowerLayers(record(m.From).Layers)
	}
	return lower.Run(ctx, *do, rootfs, mounts, n.Label)
}

func (b *Builder) runStep(ctx context.Context, n *action.Node, do *action.Run, record func(*action.Node) *plan.Record) (*plan.Record, error) {
	if err := b.fetchRoot(ctx, record(do.Root).Image); err != nil {
		return nil, err
	}
	g, err := lowerRun(ctx, n, record)
	if err != nil {
		return nil, err
	}
	res, err := b.Engine.Solve(ctx, buildkit.Request{Name: n.Label, Graph: g, Store: b.Store.Content(), Status: b.Display.Update})
	if err != nil {
		return nil, stepError(n, do, err)
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

// LLB returns the graph of a target: of an image its layers merged, with the image's configuration; of a target whose
// output a Run makes, that step. What the layers hold is built first, and the graph's manifests are put into the store,
// so that the store serves the graph. Errors are those of failed actions.
func (b *Builder) LLB(ctx context.Context, t *graph.Target) (g lower.Graph, config []byte, errs []error, err error) {
	if len(t.Outputs) != 1 {
		return g, nil, nil, fmt.Errorf("%s has %d outputs; LLB describes one: name an image or a genrule", t.Label, len(t.Outputs))
	}
	n := t.Outputs[0]
	needed := []*action.Node{n}
	if n.Kind() == "Run" {
		needed = n.Deps() // the step itself is for the other builder
	}
	p := plan.New(needed, b.Tree)
	failed, err := b.run(ctx, p)
	if err != nil || len(failed.errs) > 0 {
		return g, nil, failed.sorted(), err
	}
	record := func(n *action.Node) *plan.Record { return p.Step(n).Record }
	switch n.Kind() {
	case "Run":
		if err := b.fetchRoot(ctx, record(n.Do.(*action.Run).Root).Image); err != nil {
			return g, nil, nil, err
		}
		g, err = lowerRun(ctx, n, record)
	case "Image":
		im := record(n).Image
		if err := b.fetchRoot(ctx, im); err != nil {
			return g, nil, nil, err
		}
		var rootfs lower.Root
		if rootfs, err = root(n, record); err != nil {
			return g, nil, nil, err
		}
		config = im.ConfigJSON
		g, err = lower.Image(ctx, rootfs, t.Label.String())
	default:
		return g, nil, nil, fmt.Errorf("%s is a %s; LLB describes an image or a genrule: a component has an :image", t.Label, n.Kind())
	}
	if err != nil {
		return g, nil, nil, err
	}
	for _, m := range g.Manifests {
		if _, err := b.Store.Put(ctx, ocispecs.MediaTypeImageManifest, m); err != nil {
			return g, nil, nil, err
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
