// Package build carries a plan out and records what it made.
//
// Each action is executed by the part of mwbuild that is made for it: layers are packed and images assembled in this
// process, a Run step is lowered to LLB and solved by an engine, which is started when the first one must run and not
// before. Records are written as actions end, so that what an interrupted build finished is not done again.
package build

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/build/progress"
	"github.com/mwbuild/mwbuild/build/snapshot"
	"github.com/mwbuild/mwbuild/cache/store"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// A Builder builds targets of one workspace. All but Natives, NativeLayers, Fetch, Jobs and KeepGoing must be set.
type Builder struct {
	Root    string // absolute path of the workspace
	Tree    *workspace.Disk
	Store   *store.Store
	Records *Records
	Engine  *buildkit.Engine
	Display *progress.Display
	Natives map[string]Native // by kind
	// NativeLayers are the functions of native actions that make a layer, by kind.
	NativeLayers map[string]NativeLayer
	// Fetch opens a download where it may be had; how many bytes it has and what they are is checked. Its error says what
	// to do. Several goroutines call it.
	Fetch     func(ctx context.Context, d action.Download) (io.ReadCloser, error)
	Jobs      int  // how many actions run at once; 0 is one for each processor
	KeepGoing bool // build what can be built after a failure
	Log       *slog.Logger
	Secrets   map[string][]byte   // values that steps may ask for, by id
	SSH       map[string][]string // ssh agents likewise: sockets or keys, the user's own agent where there are none

	secretMu   sync.Mutex
	secretSums map[string]string

	spool    spool
	crowd    crowd
	fetches  fetches
	receiver Receiver            // of BuildFiles
	wanted   map[graph.File]bool // what it receives
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

// A Count is of the actions of a plan, those of the same key taken as one.
type Count struct {
	Total    int `json:"total"`
	Executed int `json:"executed"`
	Cached   int `json:"cached"` // were there already
}

// Counts returns how many actions the plan has, in all and by the title of their kind.
func (r *Result) Counts() (all Count, kinds map[string]Count) {
	kinds = map[string]Count{}
	seen := map[plan.Key]bool{}
	for _, s := range r.Plan.Steps {
		if s.Key != (plan.Key{}) {
			if seen[s.Key] {
				continue
			}
			seen[s.Key] = true
		}
		title := s.Node.Title()
		kind := kinds[title]
		for _, c := range []*Count{&all, &kind} {
			c.Total++
			switch s.State {
			case plan.Hit, plan.Unchanged:
				c.Cached++
			case plan.Done:
				c.Executed++
			}
		}
		kinds[title] = kind
	}
	for title, n := range r.Plan.Omitted {
		kind := kinds[title]
		for _, c := range []*Count{&all, &kind} {
			c.Total += n
			c.Cached += n
		}
		kinds[title] = kind
	}
	return all, kinds
}

// Build makes the outputs of targets. A failed action is in the result; the error is for what ends a build as a whole,
// such as a cancelled context or a full disk.
func (b *Builder) Build(ctx context.Context, targets []*graph.Target) (*Result, error) {
	return b.build(ctx, targets, func(t *graph.Target) []*action.Node { return t.Outputs }, &snapshot.Recall{})
}

// BuildRecalled is Build of targets that a snapshot holds. The error is [plan.ErrForgotten] where it must be done from the workspace instead.
func (b *Builder) BuildRecalled(ctx context.Context, r *snapshot.Recall) (*Result, error) {
	return b.build(ctx, r.Targets, func(t *graph.Target) []*action.Node { return t.Outputs }, r)
}

// HasFiles tells whether t stands for files that Natives make, which BuildFiles can build.
func HasFiles(t *graph.Target) bool {
	return len(t.Files) > 0 && !slices.ContainsFunc(t.Files, func(f graph.File) bool { return f.From == nil || !f.From.MakesFiles() })
}

// BuildFiles makes the files that t stands for, and hands each to to once: as soon as it is made, or in the end where its
// action had not to be executed. They are packed into no layer. t must be one that HasFiles.
func (b *Builder) BuildFiles(ctx context.Context, t *graph.Target, to Receiver) (*Result, error) {
	b.receiver, b.wanted = to, map[graph.File]bool{}
	defer func() { b.receiver, b.wanted = nil, nil }()
	var nodes []*action.Node
	for _, f := range t.Files {
		b.wanted[f] = true
		nodes = append(nodes, f.From)
	}
	res, err := b.build(ctx, []*graph.Target{t}, func(*graph.Target) []*action.Node { return nodes }, &snapshot.Recall{})
	if err != nil || len(res.Errors) > 0 {
		return res, err
	}
	task := b.Display.Task("write " + t.Label.String())
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(b.jobs())
	for _, f := range t.Files {
		s := res.Plan.Step(f.From)
		made := s.Record.File(f.Path)
		if made == nil {
			return res, fmt.Errorf("%s made no file %s", f.From.ID(), f.Path)
		}
		if s.State == plan.Done {
			continue
		}
		eg.Go(func() error {
			if ctx.Err() != nil || to.Has(*made) {
				return ctx.Err()
			}
			task.Start()
			m, err := b.remake(ctx, f.From, made)
			if err != nil {
				return err
			}
			defer free(m)
			return to.Put(*made, m.Data)
		})
	}
	err = eg.Wait()
	task.Done(err)
	return res, err
}

// build makes what outputs names of the targets.
func (b *Builder) build(ctx context.Context, targets []*graph.Target, outputs func(*graph.Target) []*action.Node, recalled *snapshot.Recall) (*Result, error) {
	var nodes []*action.Node
	for _, t := range targets {
		nodes = append(nodes, outputs(t)...)
	}
	p := b.newPlan(nodes)
	p.Omitted = recalled.Omitted
	res := &Result{Plan: p}
	begun := time.Now()
	errs, err := b.run(ctx, p, recalled.Known)
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
			case s.State == plan.Unchanged:
				return
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
		for _, n := range outputs(t) {
			visit(p.Step(n))
		}
		if tr.Status == Built || tr.Status == Cached {
			for _, n := range outputs(t) {
				tr.Outputs = append(tr.Outputs, p.Step(n).Record)
			}
		}
		res.Targets = append(res.Targets, tr)
	}
	return res, nil
}

func (b *Builder) newPlan(nodes []*action.Node) *plan.Plan {
	p := plan.New(nodes, b.Tree)
	p.Secret = b.secretDigest
	return p
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
	p := b.newPlan(nodes)
	return p, b.Records.session(ctx, func(db *session) error {
		if err := b.digest(ctx, p.SourceFiles()); err != nil {
			return err
		}
		if err := b.Tree.FlushMemo(); err != nil {
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

// keptSources bounds how many bytes of what native actions read are kept from when they are digested, a sourceBatch of actions
// at once. So the memory is used again for the next, and most files are read once.
const (
	keptSources = 32 << 20
	sourceBatch = 1000
)

// prune has the plan leave out what is below layers where nothing changed since their last build.
func (b *Builder) prune(ctx context.Context, db *session, p *plan.Plan) error {
	remembered := map[*plan.Step]plan.Subtree{}
	var files []string
	seen := map[*plan.Step]bool{}
	var visit func(*plan.Step)
	visit = func(s *plan.Step) {
		if seen[s] {
			return
		}
		seen[s] = true
		if do, ok := s.Node.Do.(*action.Native); ok {
			for _, f := range do.Files {
				files = append(files, f.Path)
			}
		}
		for _, d := range s.Deps {
			visit(d)
		}
	}
	for _, s := range p.Subtrees() {
		was, err := db.last(s.Node)
		if err != nil {
			return err
		}
		if was.Sum != (plan.Key{}) {
			remembered[s] = plan.Subtree{Sum: was.Sum, Key: was.Key}
			visit(s)
		}
	}
	if len(remembered) == 0 {
		return nil
	}
	if err := b.digest(ctx, files); err != nil {
		return err
	}
	return p.Prune(remembered, func(k plan.Key) (*plan.Record, error) { return b.find(db, k) })
}

// digest reads the files that are not in the memo, in parallel. It must run in a session. A file that cannot be read is no
// error here: the step that reads it tells, with its target.
func (b *Builder) digest(ctx context.Context, files []string) error {
	begun := time.Now()
	defer func() { b.Log.Debug("digested", "files", len(files), "took", time.Since(begun)) }()
	if err := b.Tree.DigestAll(ctx, files, b.jobs()); ctx.Err() != nil {
		return err
	}
	return nil
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

// native tells whether s is one of those actions that are short and many.
func native(s *plan.Step) bool { return s.Node.MakesFiles() }

// takesLong tells whether s is one of those that wait for somebody else: an engine, or a registry.
func takesLong(s *plan.Step) bool {
	do, ok := s.Node.Do.(*action.Native)
	return s.Node.Kind() == "Run" || imports(s) || ok && len(do.Downloads) > 0
}

// reads tells whether s is a native action that reads files of the workspace.
func reads(s *plan.Step) bool {
	do, ok := s.Node.Do.(*action.Native)
	return ok && len(do.Files) > 0
}

// without returns those of all that are not in less.
func without(all, less []string) []string {
	gone := make(map[string]bool, len(less))
	for _, s := range less {
		gone[s] = true
	}
	return slices.DeleteFunc(all, func(s string) bool { return gone[s] })
}

// imports tells whether s fetches an image from the place that its target names.
func imports(s *plan.Step) bool { return s.Node.Imports() }

// An opening of the database costs some ten milliseconds, so what has ended waits for the next one while there is other
// work: a while if that leaves a worker idle, longer if it does not. While only native actions run, which are short and many,
// it stays open for longSession, and what waits for them begins at once; and for quickSession while something is packed, which is mostly small.
const (
	sessionPause     = 100 * time.Millisecond
	busySessionPause = 300 * time.Millisecond
	longSession      = 2 * time.Second
	quickSession     = 50 * time.Millisecond
)

// Native actions may take less time than it takes to wake a goroutine, so one executes several of them: as many as crewSize,
// if they take no longer than crewTime.
const (
	crewSize = 64
	crewTime = 5 * time.Millisecond
)

// run executes what must be executed. It is the only goroutine that changes steps.
//
// Of what is ready, what comes first in the plan is executed first: a step soon after those that it reads, whose
// bytes may still be at hand.
// Steps whose keys are known already are not looked at.
func (b *Builder) run(ctx context.Context, p *plan.Plan, known map[*action.Node]plan.Key) (*failures, error) {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer b.crowd.close()
	type ending struct {
		step   *plan.Step
		record *plan.Record
		err    error
		late   bool   // it was not begun
		bug    string // a panic, for the goroutine that can tell of it
	}
	var (
		errs     = &failures{failed: map[*plan.Step]bool{}}
		inflight = map[plan.Key][]*plan.Step{} // all steps of that key: one executes, the others wait for it
		endings  = make(chan []ending, b.jobs())
		own      = map[*plan.Step]error{} // why a step's own execution failed, where several share one
		ready    stepHeap                 // to be executed
		running  int
		lacking  []int32      // by the step's order: how many of those that it reads have made nothing yet
		next     stepHeap     // whatever they read is there: to be resolved
		held     stepHeap     // the same, but of readers
		readers  []*plan.Step // native ones whose files are not digested yet
		unsaved  []*plan.Step
		first    error // what ends the build
		draining bool
		digested bool
		db       *session // open, or nil
		opened   time.Time
		looked   time.Time                    // when what is ready was found out last
		saved    time.Time                    // when records were kept last
		others   int                          // how many of those that run are not native
		long     int                          // how many of those that run may take long
		usual    = map[string]time.Duration{} // how long a native action of a kind took lately
	)
	defer func() {
		if db != nil {
			_ = db.close() // after a panic
		}
	}()
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
	start := func(steps []*plan.Step) {
		running++
		if !native(steps[0]) {
			others++
		}
		if takesLong(steps[0]) {
			long++
		}
		go func() {
			var ended []ending
			defer func() { endings <- ended }()
			begun := time.Now()
			for i, s := range steps {
				if i > 0 && time.Since(begun) > crewTime {
					ended = append(ended, ending{step: s, late: true})
					continue
				}
				func() {
					e := ending{step: s}
					defer func() {
						if r := recover(); r != nil {
							e.bug = fmt.Sprintf("%v\n%s", r, debug.Stack())
						}
						ended = append(ended, e)
					}()
					e.record, e.err = b.execute(ctx, p, s)
				}()
			}
		}()
	}
	// arrived lets those go on that waited for s, of which there is a record now.
	arrived := func(s *plan.Step) {
		for _, u := range s.Users {
			if lacking[u.Order]--; lacking[u.Order] == 0 && u.State == plan.Pending {
				heap.Push(&next, u)
			}
		}
	}
	end := func(e ending) {
		if e.bug != "" {
			panic(e.bug)
		}
		if e.late {
			heap.Push(&ready, e.step)
			return
		}
		steps := inflight[e.step.Key]
		if e.err != nil && ctx.Err() == nil {
			// An image that cannot be had at one place may be had where another target says that it is.
			own[e.step] = e.err
			if i := slices.IndexFunc(steps, func(s *plan.Step) bool { return imports(s) && own[s] == nil }); i >= 0 {
				heap.Push(&ready, steps[i])
				return
			}
		}
		delete(inflight, e.step.Key)
		if e.err == nil && native(e.step) {
			kind := e.step.Node.Title()
			usual[kind] += (e.record.Took - usual[kind]) / 8
		}
		for _, s := range steps {
			switch {
			case e.err == nil:
				s.Finish(e.record)
				arrived(s)
				unsaved = append(unsaved, s)
			case own[s] != nil:
				fail(s, own[s])
			default:
				fail(s, e.err)
			}
		}
	}
	save := func() error {
		steps := unsaved
		unsaved, saved = nil, time.Now()
		return db.save(p, steps)
	}
	// resolve finds out what is ready now.
	var resolve func() error
	resolve = func() error {
		if draining {
			return nil
		}
		if !digested {
			digested = true
			if err := p.Recall(known, func(k plan.Key) (*plan.Record, error) { return b.find(db, k) }); err != nil {
				return err
			}
			kept := p.NativeSources()
			b.Tree.Keep(kept, keptSources)
			if err := b.digest(ctx, without(p.SourceFiles(), kept)); err != nil {
				return err
			}
			if err := b.prune(ctx, db, p); err != nil {
				return err
			}
			lacking = make([]int32, len(p.Steps))
			for _, s := range p.Steps {
				if s.State != plan.Pending {
					continue
				}
				for _, d := range s.Deps {
					if d.Record == nil {
						lacking[s.Order]++
					}
				}
				if lacking[s.Order] == 0 {
					next = append(next, s) // in order, which is a heap
				}
				if reads(s) {
					readers = append(readers, s)
				}
			}
		}
		if len(ready) < crewSize && len(readers) > 0 {
			var files []string
			n := min(len(readers), sourceBatch)
			for _, s := range readers[:n] {
				for _, f := range s.Node.Do.(*action.Native).Files {
					files = append(files, f.Path)
				}
			}
			readers = readers[n:]
			if err := b.digest(ctx, files); err != nil {
				return err
			}
		}
		for len(held) > 0 && (len(readers) == 0 || held[0].Order < readers[0].Order) {
			heap.Push(&next, heap.Pop(&held))
		}
		var hits []*plan.Step
		for len(next) > 0 {
			s := heap.Pop(&next).(*plan.Step)
			if len(readers) > 0 && reads(s) && s.Order >= readers[0].Order {
				heap.Push(&held, s)
				continue
			}
			err := p.Resolve(s, func(k plan.Key) (*plan.Record, error) { return b.find(db, k) })
			switch {
			case err != nil:
				fail(s, err)
			case s.State == plan.Hit:
				arrived(s)
				hits = append(hits, s)
			default:
				e, err := explain(db, s)
				if err != nil {
					return err
				}
				errs.why = append(errs.why, e)
				inflight[s.Key] = append(inflight[s.Key], s)
				if len(inflight[s.Key]) == 1 {
					heap.Push(&ready, s)
				}
			}
		}
		if err := db.seen(p, hits); err != nil || draining || len(ready) >= crewSize || len(readers) == 0 {
			return err
		}
		return resolve() // the next batch
	}
	pause := func() time.Duration {
		if len(ready) > 0 {
			return busySessionPause
		}
		return sessionPause
	}
	// closeDB keeps what has ended, and ends the session.
	closeDB := func() error {
		err := save()
		if digested && err == nil && (len(readers) == 0 || ctx.Err() != nil) {
			err = b.Tree.FlushMemo()
		}
		cerr := db.close()
		db = nil
		return cmp.Or(err, cerr)
	}
	// stays is how much longer a session may stay open, for what ends soon.
	stays := func() time.Duration {
		left := longSession - time.Since(opened)
		switch {
		case long > 0:
			return 0
		case others > 0:
			left = min(left, quickSession-time.Since(looked))
		}
		return left
	}
	// look keeps what has ended and finds out what is ready, in a session that stays open if it may.
	look := func() (err error) {
		if db == nil {
			if db, err = b.Records.open(ctx); err != nil {
				return err
			}
			opened, saved = time.Now(), time.Time{}
		}
		if time.Since(saved) >= busySessionPause {
			err = save()
		}
		if err == nil {
			err = resolve()
		}
		looked = time.Now()
		if err == nil && (len(ready) > 0 && !takesLong(ready[0]) || len(ready) == 0 && running > 0) && stays() > 0 {
			return nil
		}
		return cmp.Or(err, closeDB())
	}
	for more := true; more; {
		if first == nil && (db != nil || running == 0 && len(ready) == 0 || len(unsaved) > 0 && time.Since(saved) >= pause()) {
			if err := look(); err != nil && !draining {
				first, draining = err, true
				cancel()
			}
		}
		if ctx.Err() != nil {
			ready = nil
		}
		for len(ready) > 0 && running < b.jobs() {
			s := heap.Pop(&ready).(*plan.Step)
			steps := []*plan.Step{s}
			for time := usual[s.Node.Title()]; native(s) && len(steps) < crewSize && len(ready) > b.jobs() && native(ready[0]); {
				if time += usual[ready[0].Node.Title()]; time > crewTime {
					break
				}
				steps = append(steps, heap.Pop(&ready).(*plan.Step))
			}
			start(steps)
		}
		if db != nil && stays() <= 0 {
			if err := closeDB(); err != nil && !draining {
				first, draining = err, true
				cancel()
			}
		}
		if more = running > 0; more {
			var wait <-chan time.Time
			switch {
			case db != nil:
				wait = time.After(stays())
			case len(unsaved) > 0 && first == nil:
				wait = time.After(pause() - time.Since(saved))
			}
			select {
			case ended := <-endings:
				running--
				if !native(ended[0].step) {
					others--
				}
				if takesLong(ended[0].step) {
					long--
				}
				for _, e := range ended {
					end(e)
				}
			case <-wait:
			}
		}
	}
	if len(unsaved) > 0 && db == nil {
		// What was finished is kept, also when the build was ended from outside.
		var err error
		if db, err = b.Records.open(context.WithoutCancel(ctx)); err != nil {
			return errs, cmp.Or(outer.Err(), first, err)
		}
	}
	if db != nil {
		first = cmp.Or(first, closeDB())
	}
	return errs, cmp.Or(outer.Err(), first)
}

// A stepHeap is a heap of steps, the first of the plan on top.
type stepHeap []*plan.Step

func (h stepHeap) Len() int           { return len(h) }
func (h stepHeap) Less(i, j int) bool { return h[i].Order < h[j].Order }
func (h stepHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *stepHeap) Push(s any)        { *h = append(*h, s.(*plan.Step)) }
func (h *stepHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	*h = old[:len(old)-1]
	return s
}
