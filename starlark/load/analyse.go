package load

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
)

// defaultInfo is the provider that every target has: what stands for it where no special provider is asked for.
var defaultInfo = &provider{
	name:   "DefaultInfo",
	doc:    "files: the files that the target stands for, as a list or depset. outputs: the layers and images that building it makes; without them it is the actions that make its files.",
	fields: []string{"files", "outputs"},
}

// targetValue is what an implementation sees of a dependency.
type targetValue struct {
	label     string
	providers []*instance
}

var _ starlark.Mapping = (*targetValue)(nil)

func (t *targetValue) String() string        { return "<target " + t.label + ">" }
func (t *targetValue) Type() string          { return "Target" }
func (t *targetValue) Truth() starlark.Bool  { return true }
func (t *targetValue) Hash() (uint32, error) { return starlark.String(t.label).Hash() }
func (t *targetValue) AttrNames() []string   { return []string{"label"} }
func (t *targetValue) Freeze()               {}
func (t *targetValue) Attr(name string) (starlark.Value, error) {
	if name == "label" {
		return starlark.String(t.label), nil
	}
	return nil, nil
}
func (t *targetValue) Get(k starlark.Value) (starlark.Value, bool, error) {
	p, ok := k.(*provider)
	if !ok {
		return nil, false, fmt.Errorf("a target is indexed by a provider, not by a %s", k.Type())
	}
	if in := t.get(p); in != nil {
		return in, true, nil
	}
	return nil, false, nil
}

func (t *targetValue) get(p *provider) *instance {
	for _, in := range t.providers {
		if in.provider == p {
			return in
		}
	}
	return nil
}

// fileValue is a file or folder, of the workspace or made by an action.
type fileValue struct {
	path string       // workspace-relative; of a made file, as if it lay in its package
	node *action.Node // that makes it, or nil
	sub  string       // its path in the node's output
}

var _ starlark.Comparable = (*fileValue)(nil)

func (f *fileValue) String() string       { return "<file " + f.path + ">" }
func (f *fileValue) Type() string         { return "File" }
func (f *fileValue) Freeze()              {}
func (f *fileValue) Truth() starlark.Bool { return true }
func (f *fileValue) Hash() (uint32, error) {
	return starlark.String(f.path).Hash()
}
func (f *fileValue) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	same := *f == *y.(*fileValue)
	switch op {
	case syntax.EQL:
		return same, nil
	case syntax.NEQ:
		return !same, nil
	}
	return false, fmt.Errorf("files have no order: sort them by key = lambda f: f.path")
}
func (f *fileValue) AttrNames() []string {
	return []string{"basename", "dirname", "extension", "is_source", "path"}
}
func (f *fileValue) Attr(name string) (starlark.Value, error) {
	switch name {
	case "path":
		return starlark.String(f.path), nil
	case "basename":
		return starlark.String(path.Base(f.path)), nil
	case "dirname":
		return starlark.String(strings.TrimPrefix(path.Dir(f.path), ".")), nil
	case "extension":
		return starlark.String(strings.TrimPrefix(path.Ext(f.path), ".")), nil
	case "is_source":
		return starlark.Bool(f.node == nil), nil
	}
	return nil, nil
}

// nodeValue is a layer or an image, as the action that makes it.
type nodeValue struct {
	node *action.Node
}

func (n *nodeValue) String() string        { return "<" + n.Type() + " " + n.node.ID() + ">" }
func (n *nodeValue) Type() string          { return n.node.Kind() }
func (n *nodeValue) Freeze()               {}
func (n *nodeValue) Truth() starlark.Bool  { return true }
func (n *nodeValue) Hash() (uint32, error) { return starlark.String(n.node.ID()).Hash() }

// An implementation runs the rule of a target and fills in its node.
type implementation func(ctx context.Context, t *target, node *graph.Target) error

// analyse makes the graph of all reached targets, and runs implement, if there is one, on those that it did not run on
// before, dependencies first and several at once.
func (l *Loader) analyse(ctx context.Context, matched []*target, reached map[*target]bool, implement implementation, errs *errorList) (*Result, []error) {
	all := slices.Collect(maps.Keys(reached))
	l.each(len(all), func(i int) { all[i].declare() })
	a := newAnalysis(all)
	a.run(l.opts.Jobs, func(t *target) {
		switch {
		case t.bad || slices.ContainsFunc(t.deps, func(d dep) bool { return d.to != nil && d.to.bad }):
			t.bad = true
		case ctx.Err() != nil:
			t.bad = true
		case implement != nil && t.provided == nil:
			if err := implement(ctx, t, t.node); err != nil {
				t.bad = true
				t.errs = append(t.errs, err)
			}
		}
	})
	if err := ctx.Err(); err != nil {
		errs.add(err)
	}
	for _, c := range a.cycles() {
		errs.add(c)
	}
	var good []*graph.Target
	for _, t := range all {
		for _, err := range t.errs {
			errs.add(err)
		}
		if !t.bad {
			good = append(good, t.node)
		}
	}
	res := &Result{Graph: graph.New(good), Modules: l.moduleFiles()}
	for _, t := range matched {
		if !t.bad {
			res.Targets = append(res.Targets, t.node)
		}
	}
	return res, errs.sorted()
}

// declare makes the node of t, without what its rule declares.
func (t *target) declare() {
	if t.node != nil {
		return
	}
	config := t.pkg.loader.workspace.Config
	t.node = &graph.Target{ID: graph.ID{Label: t.label, Config: config}, Kind: t.rule.Name(), Pos: t.attrPos(""), Tags: t.strings("tags"), Reads: t.rule.reads}
	for _, d := range t.deps {
		if d.to != nil {
			t.node.Deps = append(t.node.Deps, graph.Edge{To: graph.ID{Label: d.to.label, Config: config}, Attr: d.attr, Pos: t.attrPos(d.attr, d.text), Condition: d.condition})
		} else {
			t.node.Srcs = append(t.node.Srcs, d.file)
		}
	}
	slices.Sort(t.node.Srcs)
}

// An analysis visits targets after all that they depend on.
type analysis struct {
	targets []*target
	users   [][]int32      // of each target: those that depend on it
	left    []atomic.Int32 // of each target: how many dependencies were not visited yet
}

func newAnalysis(targets []*target) *analysis {
	a := &analysis{targets, make([][]int32, len(targets)), make([]atomic.Int32, len(targets))}
	number := make(map[*target]int32, len(targets))
	for i, t := range targets {
		number[t] = int32(i)
	}
	for i, t := range targets {
		n := int32(0)
		for _, d := range t.deps {
			if d.to != nil {
				to := number[d.to]
				a.users[to] = append(a.users[to], int32(i))
				n++
			}
		}
		a.left[i].Store(n)
	}
	return a
}

// run visits, with up to jobs at once, every target that no cycle keeps from being visited.
func (a *analysis) run(jobs int, visit func(*target)) {
	ready := make(chan int32, len(a.targets)) // never full
	var under atomic.Int64                    // ready or being visited
	for i := range a.targets {
		if a.left[i].Load() == 0 {
			under.Add(1)
			ready <- int32(i)
		}
	}
	if under.Load() == 0 {
		return
	}
	var g sync.WaitGroup
	for range max(1, jobs) {
		g.Go(func() {
			for i := range ready {
				visit(a.targets[i])
				for _, u := range a.users[i] {
					if a.left[u].Add(-1) == 0 {
						under.Add(1)
						ready <- u
					}
				}
				if under.Add(-1) == 0 {
					close(ready)
				}
			}
		})
	}
	g.Wait()
}

// cycles returns the circles that kept targets from being visited, which are bad now.
func (a *analysis) cycles() []*graph.CycleError {
	var stuck []*graph.Target
	var ids []graph.ID
	for i, t := range a.targets {
		if a.left[i].Load() > 0 {
			t.bad = true
			stuck = append(stuck, t.node)
			ids = append(ids, t.node.ID)
		}
	}
	if len(stuck) == 0 {
		return nil
	}
	_, cycles := graph.New(stuck).Sort(ids)
	return cycles
}

// implement runs the rule of t and fills in g.
func (l *Loader) implement(ctx context.Context, t *target, g *graph.Target) error {
	fail := func(attr, value, msg string, hints ...string) error {
		return &graph.Error{Pos: t.attrPos(attr, value), Label: t.label.String(), Msg: msg, Hints: append(hints, t.via...)}
	}
	c := &ruleContext{loader: l, target: t, graph: g, declared: map[string]bool{}}
	c.attr, c.files, c.file = &instance{fields: starlark.StringDict{}}, &instance{fields: starlark.StringDict{}}, &instance{fields: starlark.StringDict{}}
	for name, a := range t.rule.attrs {
		if !a.labels() {
			c.attr.fields[name] = t.value(name)
			continue
		}
		var targets, files []starlark.Value
		for _, d := range t.deps {
			if d.attr != name || d.condition {
				continue
			}
			v := l.depValue(d)
			targets = append(targets, v)
			for _, p := range a.providers {
				if v.get(p) == nil && d.to != nil {
					return fail(name, d.text, fmt.Sprintf("%s: %s does not provide %s", name, d.to.label, p.Name()),
						fmt.Sprintf("it is a %s; see docs/rules.md for what fits here", d.to.rule.Name()))
				}
			}
			if !a.allowFiles && len(a.providers) == 0 && v.get(defaultInfo) == nil {
				return fail(name, d.text, fmt.Sprintf("%s: %s provides nothing", name, d.text))
			}
			fs, err := filesOf(v)
			if err != nil {
				return fail(name, d.text, err.Error())
			}
			files = append(files, fs...)
		}
		c.files.fields[name] = starlark.NewList(files)
		if a.kind == "label_list" {
			c.attr.fields[name] = starlark.NewList(targets)
			continue
		}
		c.attr.fields[name], c.file.fields[name] = starlark.None, starlark.None
		if len(targets) == 1 {
			c.attr.fields[name] = targets[0]
		}
		if len(files) == 1 {
			c.file.fields[name] = files[0]
		}
	}
	for _, in := range []*instance{c.attr, c.files, c.file} {
		in.Freeze()
	}
	thread, done := l.thread(ctx, t.label.String())
	defer done()
	result, err := starlark.Call(thread, t.rule.impl, starlark.Tuple{c}, nil)
	if err != nil {
		e := explainEval("", err)[0] // a call that failed has one error
		ge, ok := e.(*graph.Error)
		if !ok {
			return e
		}
		ge = &graph.Error{Pos: t.attrPos(""), Label: t.label.String(), Msg: ge.Msg, Hints: append(slices.Clone(t.via), ge.Hints...), Err: ge.Err}
		// Where the rule blames an attribute ("srcs: …"), point at it.
		if attr, _, ok := strings.Cut(ge.Msg, ": "); ok && t.rule.attrs[attr] != nil {
			ge.Pos = t.attrPos(attr)
		}
		return ge
	}
	if t.provided, err = makeTargetValue(t.label, result); err != nil {
		return fail("", "", fmt.Sprintf("rule %s: %v", t.rule.Name(), err))
	}
	for _, p := range t.provided.providers {
		p.Freeze()
	}
	return setOutputs(g, t.provided)
}

func (l *Loader) depValue(d dep) *targetValue {
	if d.to != nil {
		return d.to.provided
	}
	return &targetValue{label: d.file, providers: []*instance{{provider: defaultInfo, fields: starlark.StringDict{
		"files": starlark.NewList([]starlark.Value{&fileValue{path: d.file}}),
	}}}}
}

// makeTargetValue reads what an implementation returned: a list of provider instances, or a target to stand for.
func makeTargetValue(lab label.Label, result starlark.Value) (*targetValue, error) {
	v := &targetValue{label: lab.String()}
	switch result := result.(type) {
	case *targetValue:
		v.providers = result.providers
		return v, nil
	case starlark.NoneType:
	case starlark.Sequence:
		for e := range starlark.Elements(result) {
			in, ok := e.(*instance)
			if !ok || in.provider == nil {
				return nil, fmt.Errorf("returned a list with a %s, want providers", e.Type())
			}
			if v.get(in.provider) != nil {
				return nil, fmt.Errorf("returned %s twice", in.provider.Name())
			}
			v.providers = append(v.providers, in)
		}
	default:
		return nil, fmt.Errorf("returned a %s, want a list of providers", result.Type())
	}
	if v.get(defaultInfo) == nil {
		v.providers = append(v.providers, &instance{provider: defaultInfo, fields: starlark.StringDict{}})
	}
	return v, nil
}

// sequence flattens a list, tuple or depset.
func sequence(what string, v starlark.Value) ([]starlark.Value, error) {
	switch v := v.(type) {
	case nil, starlark.NoneType:
		return nil, nil
	case *depset:
		return v.list(), nil
	case starlark.Sequence:
		return slices.AppendSeq(slices.Grow([]starlark.Value(nil), v.Len()), starlark.Elements(v)), nil
	}
	return nil, fmt.Errorf("%s is a %s, want a list", what, v.Type())
}

func filesOf(v *targetValue) ([]starlark.Value, error) {
	in := v.get(defaultInfo)
	if in == nil {
		return nil, nil
	}
	files, err := sequence("DefaultInfo.files", in.fields["files"])
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if _, ok := f.(*fileValue); !ok {
			return nil, fmt.Errorf("%s: DefaultInfo.files holds a %s, want files", v.label, f.Type())
		}
	}
	return files, nil
}

// setOutputs finds the actions that building the target means.
func setOutputs(g *graph.Target, v *targetValue) error {
	fail := func(err error) error { return &graph.Error{Pos: g.Pos, Label: g.Label.String(), Msg: err.Error()} }
	files, err := filesOf(v)
	if err != nil {
		return fail(err)
	}
	for _, f := range files {
		if f := f.(*fileValue); f.node != nil {
			g.Files = append(g.Files, graph.File{From: f.node, Path: f.sub})
		}
	}
	add := func(n *action.Node) {
		if n != nil && !slices.Contains(g.Outputs, n) {
			g.Outputs = append(g.Outputs, n)
		}
	}
	outputs, err := sequence("DefaultInfo.outputs", v.get(defaultInfo).fields["outputs"])
	if err != nil {
		return fail(err)
	}
	for _, o := range outputs {
		n, ok := o.(*nodeValue)
		if !ok {
			return fail(fmt.Errorf("DefaultInfo.outputs holds a %s, want layers and images", o.Type()))
		}
		add(n.node)
	}
	if len(outputs) == 0 {
		for _, f := range files {
			add(f.(*fileValue).node)
		}
	}
	return nil
}

// ruleContext is ctx.
type ruleContext struct {
	loader            *Loader
	target            *target
	graph             *graph.Target
	attr, files, file *instance
	declared          map[string]bool // names of actions
	actionsValue      *instance       // nil until it is asked for
}

func (c *ruleContext) String() string        { return "<ctx " + c.target.label.String() + ">" }
func (c *ruleContext) Type() string          { return "ctx" }
func (c *ruleContext) Freeze()               {}
func (c *ruleContext) Truth() starlark.Bool  { return true }
func (c *ruleContext) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: ctx") }
func (c *ruleContext) AttrNames() []string {
	return []string{"actions", "attr", "call", "file", "files", "label"}
}
func (c *ruleContext) Attr(name string) (starlark.Value, error) {
	switch name {
	case "attr":
		return c.attr, nil
	case "files":
		return c.files, nil
	case "file":
		return c.file, nil
	case "actions":
		if c.actionsValue == nil {
			c.actionsValue = c.actions()
		}
		return c.actionsValue, nil
	case "call":
		return starlark.NewBuiltin("call", c.call), nil
	case "label":
		return &instance{fields: starlark.StringDict{
			"package": starlark.String(c.target.label.Pkg), "name": starlark.String(c.target.label.Name),
		}}, nil
	}
	return nil, nil
}
