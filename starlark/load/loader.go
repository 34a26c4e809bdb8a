package load

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// A Tree is the files that loading may see: a working tree or a revision.
type Tree interface {
	Packages() []string
	BuildFiles(pkg string) []string
	Lookup(path string) (workspace.File, bool)
	ReadFile(path string) ([]byte, error)
	Glob(pkg string, include, exclude []string) ([]string, error)
	Owned(pkg string) iter.Seq[workspace.File]
	Blob(path string) (string, error)
}

// Options are what a loader needs. Tree and Prelude must be set.
type Options struct {
	Tree      Tree
	Prelude   fs.FS             // *.star files whose public globals every BUILD and .bzl file has
	Version   string            // of mwbuild, for minimum_version() in WORKSPACE; "" passes every check
	Jobs      int               // how many files are evaluated at once; 0 means 4
	BuildArgs map[string]string // values that the command line gives for build_args of steps
	Config    Config            // that targets are loaded in; an error of it is a [ConfigError]
	// Functions are what ctx.call finds, by name.
	Functions map[string]Function
	// Unlocked leaves LockFile unread, for the command that writes it: targets that need it cannot be loaded, but surveyed.
	Unlocked bool
	// Layers stands in place of LayersLock, for the command that writes it.
	Layers *Layers
	// Program tells this version of mwbuild and of Functions from others, for what is remembered.
	Program string
}

// maxSteps bounds the evaluation of one file, and of one implementation. The real tree's largest BUILD file needs a few
// thousand; ten million take about a second.
const maxSteps = 10_000_000

// Loader evaluates the files of one tree. It keeps what it evaluated: make a new one when the tree changes.
type Loader struct {
	opts        Options
	workspace   Workspace
	config      *configs
	predeclared starlark.StringDict // of BUILD and .bzl files

	asked map[string]bool // build arguments that steps have; guarded by mu

	loading sync.Mutex // held by Load: targets are changed by one at a time

	mu          sync.Mutex // guards the maps
	modules     map[string]*module
	pkgs        map[string]*pkg
	isPkg       map[string]bool
	ruleTexts   map[string]string // by file; see ruleText
	environment [32]byte
}

// Result is what was loaded.
type Result struct {
	Graph   *graph.Graph
	Targets []*graph.Target // what the patterns matched, in order of label
	Modules []string        // the .bzl files of the workspace that were loaded so far, sorted
}

// New evaluates WORKSPACE and the prelude.
func New(opts Options) (*Loader, []error) {
	if opts.Jobs == 0 {
		opts.Jobs = 4
	}
	l := &Loader{
		opts:    opts,
		modules: map[string]*module{}, pkgs: map[string]*pkg{}, isPkg: map[string]bool{}, ruleTexts: map[string]string{},
	}
	for _, p := range opts.Tree.Packages() {
		l.isPkg[p] = true
	}
	var errs []error
	if l.workspace, l.config, errs = evalWorkspace(opts.Tree, opts.Version, opts.Config); len(errs) > 0 {
		return nil, errs
	}
	if errs = l.loadPrelude(); len(errs) > 0 {
		return nil, errs
	}
	var err error
	if !opts.Unlocked {
		if l.workspace.Locked, err = readLock(opts.Tree); err != nil {
			return nil, []error{err}
		}
	}
	if opts.Layers != nil {
		l.workspace.Layers = *opts.Layers
	} else if l.workspace.Layers, err = readLayers(opts.Tree); err != nil {
		return nil, []error{err}
	}
	if l.environment, err = l.digestEnvironment(); err != nil {
		return nil, []error{err}
	}
	return l, nil
}

// Workspace returns what the WORKSPACE file says.
func (l *Loader) Workspace() Workspace { return l.workspace }

// fileOptions is the language: Starlark as Bazel has it, with sets.
var fileOptions = &syntax.FileOptions{Set: true}

// base is what every file has.
func (l *Loader) base() starlark.StringDict {
	builtin := func(name string, f func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error)) starlark.Value {
		return starlark.NewBuiltin(name, f)
	}
	ws := &instance{fields: starlark.StringDict{
		"name": starlark.String(l.workspace.Name), "user": starlark.String(l.workspace.User),
		"owner": starlark.String(l.workspace.Owner), "root": starlark.String(l.workspace.Root),
		"platform": starlark.String(l.workspace.Platform),
	}}
	return starlark.StringDict{
		"rule": builtin("rule", makeRule), "provider": builtin("provider", makeProvider),
		"depset": builtin("depset", makeDepset), "struct": builtin("struct", makeStruct), "attr": attrModule,
		"glob": builtin("glob", l.glob), "read_json": builtin("read_json", l.readJSON),
		"package": builtin("package", declarePackage), "package_name": builtin("package_name", packageName),
		"DefaultInfo": defaultInfo, "WORKSPACE": ws, "json": jsonModule,
		"config_setting": configSetting, "select": builtin("select", makeSelect),
	}
}

func (l *Loader) loadPrelude() []error {
	l.predeclared = l.base()
	l.predeclared["range"] = starlark.NewBuiltin("range", boundedRange)
	names, err := fs.Glob(l.opts.Prelude, "*.star")
	if err != nil {
		return []error{err}
	}
	public := starlark.StringDict{}
	for _, name := range names {
		m := l.module(context.Background(), "@mwbuild//rules:"+name, nil, "")
		if m.err != nil {
			return explainEval(m.file, m.err)
		}
		for k, v := range m.globals {
			if !strings.HasPrefix(k, "_") {
				public[k] = v
			}
		}
	}
	// Built-in files see one another through load only; users' files see the public names of all.
	l.predeclared = maps.Clone(l.predeclared)
	maps.Copy(l.predeclared, public)
	return nil
}

// A module is one evaluated .bzl or .star file.
type module struct {
	id      string // label of the file
	file    string // how messages name it
	done    chan struct{}
	globals starlark.StringDict
	err     error
	loads   []loadEdge
}

// A loadEdge is one load statement.
type loadEdge struct {
	to  *module
	pos string
}

// module returns the file that id names, evaluated once whoever asks. from is the module that loads it at pos, nil for a
// package.
func (l *Loader) module(ctx context.Context, id string, from *module, pos string) *module {
	l.mu.Lock()
	m := l.modules[id]
	if m != nil {
		if from != nil {
			from.loads = append(from.loads, loadEdge{m, pos})
			if cycle := loadCycle(from, m); cycle != nil {
				l.mu.Unlock()
				return &module{err: cycle}
			}
		}
		l.mu.Unlock()
		select {
		case <-m.done:
		case <-ctx.Done():
			return &module{err: ctx.Err()}
		}
		return m
	}
	m = &module{id: id, done: make(chan struct{})}
	l.modules[id] = m
	if from != nil {
		from.loads = append(from.loads, loadEdge{m, pos})
	}
	l.mu.Unlock()
	defer close(m.done)

	src, file, pkgName, err := l.source(id)
	m.file = file
	if err != nil {
		m.err = err
		return m
	}
	thread, done := l.thread(ctx, file)
	defer done()
	thread.Load = func(thread *starlark.Thread, ref string) (starlark.StringDict, error) {
		to, err := l.loadStatement(ctx, thread, ref, pkgName, m)
		return to.globals, err
	}
	globals, err := starlark.ExecFileOptions(fileOptions, thread, file, src, l.predeclared)
	if err != nil {
		m.err = err
		return m
	}
	for name, v := range globals {
		switch v := v.(type) {
		case *rule:
			if v.name == "" && v.file == file {
				v.name = strings.TrimPrefix(name, "_")
			}
		case *provider:
			if v.name == "" && v.file == file {
				v.name = strings.TrimPrefix(name, "_")
			}
		}
	}
	globals.Freeze()
	m.globals = globals
	return m
}

// loadCycle tells of the circle that the newest edge of from, to m, closes, or returns nil. It does not depend on which of
// the circle's files was evaluated first. l.mu is held.
func loadCycle(from, m *module) error {
	chain := loadChain(m, from, map[*module]bool{})
	if chain == nil {
		return nil
	}
	chain = append(chain, link{from, from.loads[len(from.loads)-1]})
	first := 0
	for i := range chain {
		if chain[i].from.file < chain[first].from.file {
			first = i
		}
	}
	chain = slices.Concat(chain[first:], chain[:first])
	e := &graph.Error{Pos: chain[0].pos, Msg: "load cycle"}
	for _, l := range chain {
		e.Hints = append(e.Hints, fmt.Sprintf("%s: %s loads %s", l.pos, l.from.file, l.to.file))
	}
	e.Hints = append(e.Hints, "move what both need into a file of its own")
	return e
}

// A link is a load statement with the module that it stands in.
type link struct {
	from *module
	loadEdge
}

// loadChain is how m comes to load target, or nil if it does not. It is empty where they are the same.
func loadChain(m, target *module, seen map[*module]bool) []link {
	if m == target {
		return []link{}
	}
	seen[m] = true
	for _, next := range m.loads {
		if seen[next.to] {
			continue
		}
		if chain := loadChain(next.to, target, seen); chain != nil {
			return append([]link{{m, next}}, chain...)
		}
	}
	return nil
}

// source finds a module's text. file is how messages name it.
func (l *Loader) source(id string) (src []byte, file, pkgName string, err error) {
	if name, ok := strings.CutPrefix(id, "@mwbuild//rules:"); ok {
		src, err = fs.ReadFile(l.opts.Prelude, name)
		return src, id, "@mwbuild//rules", err
	}
	lab, err := label.Parse(id, "")
	if err != nil {
		return nil, id, "", err
	}
	file = path.Join(lab.Pkg, lab.Name)
	if _, ok := l.opts.Tree.Lookup(file); !ok {
		e := &hintedError{msg: "no file " + file + " in the workspace"}
		if near, err := l.opts.Tree.Glob(l.owner(file), []string{"**/*.bzl", "**/*.star"}, nil); err == nil {
			pkgName := l.owner(file)
			if s := didYouMean(strings.TrimPrefix(strings.TrimPrefix(file, pkgName), "/"), near); s != "" {
				e.hints = []string{strings.Trim(s, " ()")}
			}
		}
		return nil, file, "", e
	}
	src, err = l.opts.Tree.ReadFile(file)
	return src, file, lab.Pkg, err
}

// loadStatement returns what load() in a file of package pkgName loads. Where there is an error, it is empty.
func (l *Loader) loadStatement(ctx context.Context, thread *starlark.Thread, ref, pkgName string, from *module) (*module, error) {
	id := ref
	if !strings.HasPrefix(ref, "@mwbuild//rules:") {
		if strings.HasPrefix(pkgName, "@") {
			id = "@mwbuild//rules:" + strings.TrimPrefix(ref, ":")
		} else {
			lab, err := label.Parse(ref, pkgName)
			if err != nil {
				return &module{}, err
			}
			if ext := path.Ext(lab.Name); ext != ".bzl" && ext != ".star" {
				return &module{}, fmt.Errorf("load takes .bzl and .star files, not %s", ref)
			}
			id = lab.String()
		}
	}
	m := l.module(ctx, id, from, thread.CallFrame(0).Pos.String())
	if m.err == nil {
		return m, nil
	}
	var missing *hintedError
	if ctx.Err() != nil || errors.As(m.err, &missing) && !errors.As(m.err, new(*starlark.EvalError)) {
		return &module{}, m.err // told at the load statement
	}
	// What is wrong in the loaded file is told at its own place.
	return &module{}, severalErrors(l.suggest(explainEval(m.file, m.err)))
}

const (
	pkgKey = "mwbuild:pkg"
	ctxKey = "mwbuild:context"
)

// thread returns a thread for one evaluation, and what ends its guard.
func (l *Loader) thread(ctx context.Context, name string) (t *starlark.Thread, done func()) {
	t = &starlark.Thread{Name: name, Print: func(*starlark.Thread, string) {}}
	t.SetMaxExecutionSteps(maxSteps)
	t.OnMaxSteps = func(t *starlark.Thread) {
		t.Cancel(fmt.Sprintf("it ran for more than %d steps: move the work into a rule's command", maxSteps))
	}
	t.SetLocal(ctxKey, ctx)
	return t, guard(ctx, t)
}

// packages evaluates the named packages, those not yet known, concurrently.
func (l *Loader) packages(ctx context.Context, names []string) {
	var fresh []*pkg
	l.mu.Lock()
	for _, name := range names {
		if l.pkgs[name] == nil {
			l.pkgs[name] = &pkg{name: name, loader: l, targets: map[string]*target{}}
			fresh = append(fresh, l.pkgs[name])
		}
	}
	l.mu.Unlock()
	if tree, ok := l.opts.Tree.(interface{ Prefetch(paths []string) error }); ok {
		var files []string
		for _, p := range fresh {
			for _, f := range l.opts.Tree.BuildFiles(p.name) {
				files = append(files, path.Join(p.name, f))
			}
		}
		_ = tree.Prefetch(files) // what it could not read is read again, and fails there
	}
	l.each(len(fresh), func(i int) { fresh[i].eval(ctx) })
}

// each calls do for 0 to n-1, by as many goroutines as there are jobs: one for each call would grow a new stack every time.
func (l *Loader) each(n int, do func(i int)) {
	var next atomic.Int64
	var g sync.WaitGroup
	for range min(l.opts.Jobs, n) {
		g.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				do(i)
			}
		})
	}
	g.Wait()
}

// pkg returns an evaluated package, or nil if there is none of that name.
func (l *Loader) pkg(name string) *pkg {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pkgs[name]
}

// Load returns the targets that the patterns match, and the graph of everything that these need, with what their rules
// declare. Errors come sorted by position; where there are any, the result holds the targets that they do not touch.
func (l *Loader) Load(ctx context.Context, patterns []label.Pattern) (*Result, []error) {
	return l.load(ctx, patterns, l.implement)
}

// Resolve is Load without running the implementations of rules: its targets have no actions, outputs and files. What an
// implementation refuses is not found.
func (l *Loader) Resolve(ctx context.Context, patterns []label.Pattern) (*Result, []error) {
	return l.load(ctx, patterns, nil)
}

// load finds targets and runs implement on each, dependencies first.
func (l *Loader) load(ctx context.Context, patterns []label.Pattern, implement implementation) (*Result, []error) {
	l.loading.Lock()
	defer l.loading.Unlock()
	var errs errorList
	// Packages that a pattern can match, then, wave by wave, those of the labels in the attributes of what is wanted.
	entered := map[string]bool{}
	for p := range l.isPkg {
		if wants(patterns, p) {
			entered[p] = true
		}
	}
	l.packages(ctx, slices.Sorted(maps.Keys(entered)))
	matched := l.match(patterns, entered, &errs)

	reached := l.closure(ctx, matched, entered)
	if err := ctx.Err(); err != nil {
		return &Result{Graph: graph.New(nil)}, []error{err}
	}
	for name := range entered {
		for _, err := range l.pkg(name).errs.all() {
			errs.add(err)
		}
	}
	return l.analyse(ctx, matched, reached, implement, &errs)
}

// closure returns wanted and all that these need, resolved. The packages that it has to enter for them are evaluated, and
// added to entered.
func (l *Loader) closure(ctx context.Context, wanted []*target, entered map[string]bool) map[*target]bool {
	reached := make(map[*target]bool, len(wanted))
	var wave []*target // no target twice, those of a package in a row
	reach := func(t *target) {
		if !reached[t] {
			reached[t] = true
			wave = append(wave, t)
		}
	}
	for _, t := range wanted {
		reach(t)
	}
	for len(wave) > 0 && ctx.Err() == nil {
		slices.SortFunc(wave, func(a, b *target) int { return a.label.Compare(b.label) })
		var rows [][]*target
		for from, i := 0, 1; i <= len(wave); i++ {
			if i == len(wave) || wave[i].pkg != wave[from].pkg {
				rows = append(rows, wave[from:i])
				from = i
			}
		}
		needed := make([][]string, len(rows))
		l.each(len(rows), func(i int) {
			for _, t := range rows[i] {
				needed[i] = append(needed[i], t.packages()...)
			}
		})
		names := map[string]bool{}
		for _, name := range slices.Concat(needed...) {
			if l.isPkg[name] {
				names[name], entered[name] = true, true
			}
		}
		l.packages(ctx, slices.Sorted(maps.Keys(names)))
		l.each(len(rows), func(i int) {
			for _, t := range rows[i] {
				t.resolve()
			}
		})
		last := wave
		wave = nil
		for _, t := range last {
			for _, d := range t.deps {
				if d.to != nil {
					reach(d.to)
				}
			}
		}
	}
	return reached
}

// moduleFiles returns the files of the workspace that load statements named.
func (l *Loader) moduleFiles() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var files []string
	for id, m := range l.modules {
		if !strings.HasPrefix(id, "@") {
			files = append(files, m.file)
		}
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// wants tells whether patterns can match a target of package p. What a later pattern takes out as a whole is not even
// looked at.
func wants(patterns []label.Pattern, p string) bool {
	want := false
	for _, pt := range patterns {
		if pt.MatchPackage(p) && (!pt.Negative || !pt.One()) {
			want = !pt.Negative
		}
	}
	return want
}

// match selects the targets that patterns match, and reports patterns that match nothing. Packages that are not entered
// are taken out by a later pattern.
func (l *Loader) match(patterns []label.Pattern, entered map[string]bool, errs *errorList) []*target {
	selected := map[*target]bool{}
	for _, pt := range patterns {
		if pt.Negative {
			maps.DeleteFunc(selected, func(t *target, _ bool) bool { return pt.Match(t.label) })
			continue
		}
		if pt.One() {
			if l.isPkg[pt.Label.Pkg] && !entered[pt.Label.Pkg] {
				continue
			}
			t, msg, hints := l.find(pt.Label)
			if t == nil {
				if msg != "" {
					errs.add(&graph.Error{Msg: msg, Hints: hints})
				}
				continue
			}
			selected[t] = true
			continue
		}
		found := false
		for name := range l.isPkg {
			if !pt.MatchPackage(name) {
				continue
			}
			found = true
			if !entered[name] {
				continue
			}
			for _, t := range l.pkg(name).targets {
				if !t.manual() {
					selected[t] = true
				}
			}
		}
		if !found {
			errs.add(&graph.Error{Msg: fmt.Sprintf("no package matches %s", pt), Hints: l.packageHints(pt.Label.Pkg)})
		}
	}
	return slices.SortedFunc(maps.Keys(selected), func(a, b *target) int { return a.label.Compare(b.label) })
}

// find returns the target of that label, or why there is none. The message is empty where its package has errors of its
// own that explain it.
func (l *Loader) find(lab label.Label) (t *target, msg string, hints []string) {
	p := l.pkg(lab.Pkg)
	if p == nil || !l.isPkg[lab.Pkg] {
		return nil, fmt.Sprintf("no package %s", "//"+lab.Pkg), l.packageHints(lab.Pkg)
	}
	if t := p.targets[lab.Name]; t != nil {
		return t, "", nil
	}
	if p.broken {
		return nil, "", nil
	}
	names := slices.Sorted(maps.Keys(p.targets))
	if near := didYouMean(lab.Name, names); near != "" {
		hints = []string{strings.Replace(strings.Trim(near, " ()"), "did you mean ", "did you mean "+label.Label{Pkg: lab.Pkg, Name: ""}.String(), 1)}
	} else if _, file := l.opts.Tree.Lookup(path.Join(lab.Pkg, lab.Name)); file {
		hints = []string{"it is a file: name it in a filegroup of that package"}
	} else if len(names) == 0 {
		hints = []string{p.file + " declares no target"}
	} else {
		hints = []string{fmt.Sprintf("%s declares %s", p.file, strings.Join(names, ", "))}
	}
	return nil, fmt.Sprintf("no target %s", lab), hints
}

func (l *Loader) packageHints(name string) []string {
	names := slices.Sorted(maps.Keys(l.isPkg))
	// The last element is what people get wrong most; a near name elsewhere is second best.
	siblings := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return path.Dir(n) != path.Dir(name) })
	for _, candidates := range [][]string{siblings, names} {
		if s := didYouMean(name, candidates); s != "" {
			return []string{strings.Replace(strings.Trim(s, " ()"), "did you mean ", "did you mean //", 1)}
		}
	}
	return []string{fmt.Sprintf("a package is a folder with a BUILD or BUILD.star file: make %s", path.Join(name, "BUILD"))}
}
