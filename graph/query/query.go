// Package query is Bazel's query language over the targets of a workspace: a parser, an evaluator, and the orders, ranks and
// drawings of a result.
//
//	deps(//wiki:image) intersect kind(mw_component, //extensions/...)
//
// Functions, operators and target patterns mean what Bazel's query reference says. What differs:
//
//   - A dependency on a file is followed only where Options.Files says so, or where the expression names the file: a component
//     has thousands of them. So deps(//a:b) is targets alone, and rdeps(//..., //a:x.json) the file and all targets that
//     come to it. The functions that are about files (labels, buildfiles, loadfiles) give them always.
//   - A file that no attribute names is no error: it is in no closure.
//   - allrdeps needs no special mode: its universe is Options.Universe, by default every target.
//   - Regular expressions are Go's.
//   - The order of a result, and the edges of a drawing, follow all dependencies that were loaded, not only those that a
//     function of the expression went along.
//
// The package knows no files and no Starlark: a [Source] loads what an expression needs, as it needs it. Targets have dense
// numbers inside, and a set of them is a bitset.
package query

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mwbuild/mwbuild/graph/label"
)

// A Target is one declared target.
type Target interface {
	Label() label.Label
	Kind() string             // name of its rule
	Edges() []Edge            // what its attributes name, in order of attributes, then of values
	VisibleFrom(string) bool  // tells whether targets of that package may depend on it
	Attr(name string) []Value // nothing where its rule has no such attribute, or it is None
}

// A Value is an attribute in the two forms that the functions need.
type Value struct {
	Text string   // as Bazel has it: a list is [a, b], labels are in full, a bool is 0 or 1
	List []string // of a list its elements
}

// An Edge is one label in an attribute of a target: To, or a file.
type Edge struct {
	Attr     string
	To       label.Label
	File     string // workspace-relative, or ""
	Implicit bool   // no one wrote it into the BUILD file
}

// A Source is a workspace as queries see it.
type Source interface {
	// Load returns the targets that patterns match, manual ones too, and all that these need. A pattern that matches nothing
	// is no error. It may return targets that it returned before.
	Load(ctx context.Context, patterns []label.Pattern) ([]Target, error)
	// Missing says why a pattern, after Load, matches nothing; "" is for what was said already.
	Missing(p label.Pattern) (msg string, hints []string)
	IsPackage(name string) bool
	HasFile(file string) bool
	Owner(file string) string // package that a file belongs to
	// PackageFiles returns the BUILD file of a package and the .bzl files that it loads, directly and not, by their paths.
	PackageFiles(ctx context.Context, name string) (build string, loads []string)
}

// Options of an evaluation. The zero value is a query from the root of the workspace.
type Options struct {
	Folder     string          // package that relative patterns start from
	Universe   []label.Pattern // of allrdeps; nil is every target
	Files      bool            // follow dependencies on files, and let //a:* match them
	NoImplicit bool            // leave out edges that are implicit
	KeepGoing  bool            // take what is missing for empty; Result.Errors tells of it
}

// A Node is a target or a file in a result.
type Node struct {
	Label  label.Label
	Target Target // nil for a file
	File   string // its path
}

// Kind is what kind() matches: "layer rule", or "source file".
func (n Node) Kind() string {
	if n.Target == nil {
		return "source file"
	}
	return n.Target.Kind() + " rule"
}

// A param is the type of a parameter, as messages name it.
type param string

const (
	paramExpr  param = "an expression"
	paramName  param = "an attribute's name"
	paramRegex param = "a regular expression"
	paramDepth param = "a depth"
	paramCount param = "a number"
)

// number tells whether p is a number, which may be left out.
func (p param) number() bool { return p == paramDepth || p == paramCount }

type function struct {
	params []param
	eval   func(*evaluator, *Call) *set
}

func (f function) needed() int {
	n := len(f.params)
	if n > 0 && f.params[n-1].number() {
		n--
	}
	return n
}

func (f function) usage(name string) string {
	words := map[param]string{paramExpr: "EXPR", paramName: "ATTRIBUTE", paramRegex: "REGEXP", paramDepth: "DEPTH", paramCount: "NUMBER"}
	var b strings.Builder
	for i, p := range f.params {
		switch {
		case p.number():
			b.WriteString("[, " + words[p] + "]")
		case i > 0:
			b.WriteString(", " + words[p])
		default:
			b.WriteString(words[p])
		}
	}
	return fmt.Sprintf("write %s(%s)", name, b.String())
}

// functions is filled in by init, because they call one another.
var functions map[string]function

func init() {
	functions = map[string]function{
		"deps":                  {[]param{paramExpr, paramDepth}, (*evaluator).deps},
		"rdeps":                 {[]param{paramExpr, paramExpr, paramDepth}, (*evaluator).rdeps},
		"allrdeps":              {[]param{paramExpr, paramDepth}, (*evaluator).allRdeps},
		"somepath":              {[]param{paramExpr, paramExpr}, (*evaluator).somePath},
		"allpaths":              {[]param{paramExpr, paramExpr}, (*evaluator).allPaths},
		"kind":                  {[]param{paramRegex, paramExpr}, (*evaluator).kind},
		"filter":                {[]param{paramRegex, paramExpr}, (*evaluator).filter},
		"attr":                  {[]param{paramName, paramRegex, paramExpr}, (*evaluator).attr},
		"labels":                {[]param{paramName, paramExpr}, (*evaluator).labels},
		"tests":                 {[]param{paramExpr}, (*evaluator).tests},
		"buildfiles":            {[]param{paramExpr}, (*evaluator).buildFiles},
		"loadfiles":             {[]param{paramExpr}, (*evaluator).loadFiles},
		"siblings":              {[]param{paramExpr}, (*evaluator).siblings},
		"same_pkg_direct_rdeps": {[]param{paramExpr}, (*evaluator).samePkgDirectRdeps},
		"visible":               {[]param{paramExpr, paramExpr}, (*evaluator).visible},
		"some":                  {[]param{paramExpr, paramCount}, (*evaluator).some},
	}
}

// everything is the pattern //....
var everything = []label.Pattern{{Below: true}}

// Eval evaluates x, which Parse made from query. The source loads what the target patterns of x name, at once, and later
// what functions such as siblings add. Without KeepGoing the first thing that is missing ends it, with an [*Error].
func Eval(ctx context.Context, query string, x Expr, src Source, opts Options) (res *Result, err error) {
	e := &evaluator{
		ctx: ctx, query: query, src: src, opts: opts,
		u: newUniverse(opts.NoImplicit), scope: map[string]*set{}, loaded: map[label.Pattern]bool{}, files: &set{},
	}
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(stop)
			if !ok {
				panic(r)
			}
			res, err = nil, f.err
		}
	}()
	var patterns []label.Pattern
	words(x, func(w *Word) {
		for _, p := range e.resolve(w).patterns {
			if !p.Negative {
				patterns = append(patterns, p)
			}
		}
	})
	if calls(x, "allrdeps") {
		if e.opts.Universe == nil {
			e.opts.Universe = everything
		}
		e.load(e.opts.Universe...)
	}
	e.load(patterns...)
	// Files that the expression names take part in what deps follows.
	words(x, func(w *Word) {
		if f := e.fileOf(w); f != "" {
			e.files.add(e.u.file(f, src.Owner(f)))
		}
	})
	s := e.eval(x)
	return &Result{u: e.u, set: s, path: calls(x, "somepath"), files: opts.Files, Errors: e.errs}, nil
}

// stop carries an error up to Eval.
type stop struct{ err error }

type evaluator struct {
	ctx    context.Context
	query  string
	src    Source
	opts   Options
	u      *universe
	scope  map[string]*set // variables
	loaded map[label.Pattern]bool
	files  *set // named by the expression
	errs   []error
}

// fail ends the evaluation, or notes the error where it may go on.
func (e *evaluator) fail(x Expr, msg string, hints ...string) {
	from, to := x.span()
	err := &Error{Query: e.query, Pos: from, End: to, Msg: msg, Hints: hints}
	if !e.opts.KeepGoing {
		panic(stop{err})
	}
	e.errs = append(e.errs, err)
}

// wrong ends the evaluation of an expression that means nothing.
func (e *evaluator) wrong(x Expr, msg string, hints ...string) {
	from, to := x.span()
	panic(stop{&Error{Query: e.query, Pos: from, End: to, Msg: msg, Hints: hints, Syntax: true}})
}

// load makes the universe hold what patterns match, and all that needs.
func (e *evaluator) load(patterns ...label.Pattern) {
	negative := slices.ContainsFunc(patterns, func(p label.Pattern) bool { return p.Negative })
	fresh := slices.DeleteFunc(slices.Clone(patterns), func(p label.Pattern) bool { return e.loaded[p] && !negative })
	if len(fresh) == 0 {
		return
	}
	targets, err := e.src.Load(e.ctx, fresh)
	if err == nil {
		err = e.ctx.Err()
	}
	if err != nil {
		panic(stop{err})
	}
	e.u.add(targets)
	if !negative {
		for _, p := range fresh {
			e.loaded[p] = true
		}
	}
}

// loadPackages makes the universe hold all targets of the packages of s.
func (e *evaluator) loadPackages(s *set) []string {
	var names []string
	seen := map[string]bool{}
	for id := range s.all() {
		if p := e.u.nodes[id].Label.Pkg; !seen[p] {
			seen[p] = true
			names = append(names, p)
		}
	}
	var patterns []label.Pattern
	for _, p := range names {
		if e.src.IsPackage(p) {
			patterns = append(patterns, label.Pattern{Label: label.Label{Pkg: p}, All: true})
		}
	}
	e.load(patterns...)
	return names
}

// A resolved word is patterns, of which the first is meant: the others are what it may mean too.
type resolved struct {
	patterns []label.Pattern // one, or none for a path that can only be a file
	star     bool            // it ends in :*, so files match too
	file     string          // what it means where no target is of that name
}

// resolve reads a target pattern.
func (e *evaluator) resolve(w *Word) resolved {
	text := w.Text
	if strings.HasPrefix(text, "-") {
		e.wrong(w, fmt.Sprintf("%s begins with a dash", w), "write A - B for what is in A and not in B")
	}
	var r resolved
	for _, suffix := range []string{":*", ":all-targets"} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			r.star, text = true, rest+":all"
		}
	}
	if rest, ok := strings.CutSuffix(text, "/...:all"); ok {
		text = rest + "/..."
	} else if text == "...:all" {
		text = "..."
	}
	if dir, relative := e.relative(text); relative {
		// A path is the package of that folder, else something in the nearest package above.
		pkg := e.src.Owner(dir)
		if !e.src.IsPackage(dir) && (e.src.IsPackage(pkg) || e.src.HasFile(dir)) {
			name := strings.TrimPrefix(strings.TrimPrefix(dir, pkg), "/")
			if e.src.HasFile(dir) {
				r.file = dir
			}
			if label.CheckName(name) == nil {
				r.patterns = []label.Pattern{{Label: label.Label{Pkg: pkg, Name: name}}}
			} else if r.file == "" {
				e.wrong(w, fmt.Sprintf("%s is no target and no file", w))
			}
			return r
		}
	}
	p, err := label.ParsePattern(text, e.opts.Folder)
	if err != nil {
		// The name of a file may hold what a target's may not.
		if pkg, name, ok := strings.Cut(strings.TrimPrefix(text, "//"), ":"); ok && strings.HasPrefix(text, "//") && e.src.HasFile(path.Join(pkg, name)) {
			return resolved{file: path.Join(pkg, name)}
		}
		e.wrong(w, err.Error())
	}
	r.patterns = []label.Pattern{p}
	if f := path.Join(p.Label.Pkg, p.Label.Name); p.One() && e.src.HasFile(f) {
		r.file = f
	}
	return r
}

// relative tells whether text is a path relative to the folder one stands in, and which one of the workspace it is.
func (e *evaluator) relative(text string) (string, bool) {
	if strings.HasPrefix(text, "//") || strings.Contains(text, ":") || text == "..." || strings.HasSuffix(text, "/...") {
		return "", false
	}
	dir := path.Join(e.opts.Folder, text)
	return dir, dir != "." && dir != ".." && !strings.HasPrefix(dir, "../") && text != ""
}

// fileOf returns the file that w means, or "" where it means targets.
func (e *evaluator) fileOf(w *Word) string {
	r := e.resolve(w)
	if r.file != "" && (r.patterns == nil || e.u.target(r.patterns[0].Label) < 0) {
		return r.file
	}
	return ""
}

// word evaluates a target pattern or a variable.
func (e *evaluator) word(w *Word) *set {
	if name, ok := strings.CutPrefix(w.Text, "$"); ok {
		s := e.scope[name]
		if s == nil {
			e.wrong(w, fmt.Sprintf("there is no variable %s here", w.Text), "define it: let "+name+" = EXPR in EXPR")
		}
		return s
	}
	r := e.resolve(w)
	out := &set{}
	if f := e.fileOf(w); f != "" {
		owner := e.src.Owner(f)
		if r.patterns != nil && r.patterns[0].Label.Pkg != owner {
			lab := label.Label{Pkg: owner, Name: strings.TrimPrefix(strings.TrimPrefix(f, owner), "/")}
			e.fail(w, fmt.Sprintf("file %s belongs to package //%s", f, owner), "did you mean "+lab.String())
			return out
		}
		out.add(e.u.file(f, owner))
		return out
	}
	p := r.patterns[0]
	if !p.One() {
		found := false
		for pkg, ids := range e.u.byPkg {
			if p.MatchPackage(pkg) {
				found = found || len(ids) > 0
				for _, id := range ids {
					out.add(id)
				}
			}
		}
		if r.star && e.opts.Files {
			e.u.indexFiles()
			for id := range e.u.nodes {
				if n := &e.u.nodes[id]; n.Target == nil && p.MatchPackage(n.Label.Pkg) && e.u.users[id] != nil {
					out.add(int32(id))
				}
			}
		}
		if found {
			return out
		}
	} else if id := e.u.target(p.Label); id >= 0 {
		out.add(id)
		return out
	}
	if msg, hints := e.src.Missing(p); msg != "" {
		e.fail(w, msg, hints...)
	}
	return out
}

func (e *evaluator) eval(x Expr) *set {
	switch x := x.(type) {
	case *Word:
		return e.word(x)
	case *Set:
		out := &set{}
		for _, w := range x.Words {
			out.union(e.word(w))
		}
		return out
	case *Let:
		value := e.eval(x.Value)
		before, shadowed := e.scope[x.Name]
		e.scope[x.Name] = value
		s := e.eval(x.Body)
		if delete(e.scope, x.Name); shadowed {
			e.scope[x.Name] = before
		}
		return s
	case *Chain:
		out := e.eval(x.First).clone()
		for _, t := range x.Rest {
			switch s := e.eval(t.X); t.Op {
			case '+':
				out.union(s)
			case '-':
				out.subtract(s)
			case '^':
				out.intersect(s)
			}
		}
		return out
	case *Call:
		if err := e.ctx.Err(); err != nil {
			panic(stop{err})
		}
		return functions[x.Func].eval(e, x)
	}
	panic(fmt.Sprintf("query: expression of type %T", x))
}

// depth returns the last argument where it is there, else no bound.
func (e *evaluator) depth(c *Call, at int) int {
	if len(c.Args) <= at {
		return -1
	}
	n, _ := strconv.Atoi(c.Args[at].(*Word).Text) // checked by Parse
	return n
}

func (e *evaluator) deps(c *Call) *set {
	x := e.eval(c.Args[0])
	follow := e.files
	if e.opts.Files {
		follow = nil
	}
	return e.u.forward(x, e.depth(c, 1), follow)
}

func (e *evaluator) rdeps(c *Call) *set {
	within, x := e.eval(c.Args[0]), e.eval(c.Args[1])
	return e.u.backward(within, x, e.depth(c, 2))
}

func (e *evaluator) allRdeps(c *Call) *set {
	x := e.eval(c.Args[0])
	within := &set{}
	for id := range e.u.nodes {
		lab := e.u.nodes[id].Label
		for _, p := range slices.Backward(e.opts.Universe) {
			if e.u.nodes[id].Target != nil && p.Match(lab) {
				if !p.Negative {
					within.add(int32(id))
				}
				break
			}
		}
	}
	return e.u.backward(within, x, e.depth(c, 1))
}

func (e *evaluator) somePath(c *Call) *set {
	from, to := e.eval(c.Args[0]), e.eval(c.Args[1])
	return e.u.path(from, to)
}

func (e *evaluator) allPaths(c *Call) *set {
	from, to := e.eval(c.Args[0]), e.eval(c.Args[1])
	return e.u.backward(from, to, -1)
}

// regex compiles the argument at index i.
func (e *evaluator) regex(c *Call, i int) *regexp.Regexp {
	w := c.Args[i].(*Word)
	re, err := regexp.Compile(w.Text)
	if err != nil {
		msg := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		e.wrong(w, fmt.Sprintf("%s is no regular expression: %s", w, msg), "the syntax is that of Go, https://pkg.go.dev/regexp/syntax")
	}
	return re
}

func (e *evaluator) keep(s *set, f func(*Node) bool) *set {
	out := &set{}
	for id := range s.all() {
		if f(&e.u.nodes[id]) {
			out.add(id)
		}
	}
	return out
}

func (e *evaluator) kind(c *Call) *set {
	re := e.regex(c, 0)
	known := map[string]bool{}
	return e.keep(e.eval(c.Args[1]), func(n *Node) bool {
		k := n.Kind()
		match, ok := known[k]
		if !ok {
			match = re.MatchString(k)
			known[k] = match
		}
		return match
	})
}

func (e *evaluator) filter(c *Call) *set {
	re := e.regex(c, 0)
	return e.keep(e.eval(c.Args[1]), func(n *Node) bool { return re.MatchString(n.Label.String()) })
}

func (e *evaluator) attr(c *Call) *set {
	name, re := c.Args[0].(*Word).Text, e.regex(c, 1)
	return e.keep(e.eval(c.Args[2]), func(n *Node) bool {
		return n.Target != nil && slices.ContainsFunc(n.Target.Attr(name), func(v Value) bool { return re.MatchString(v.Text) })
	})
}

func (e *evaluator) labels(c *Call) *set {
	name := c.Args[0].(*Word).Text
	out := &set{}
	for id := range e.eval(c.Args[1]).all() {
		t := e.u.nodes[id].Target
		if t == nil {
			continue
		}
		for _, edge := range t.Edges() {
			if edge.Attr != name {
				continue
			}
			if edge.File != "" {
				out.add(e.u.file(edge.File, t.Label().Pkg))
			} else if to := e.u.target(edge.To); to >= 0 {
				out.add(to)
			}
		}
	}
	return out
}

// tests keeps test rules, by Bazel's naming, and expands test_suite rules: those that its attribute tests names, else all of its
// package that are not manual, as far as its tags allow.
func (e *evaluator) tests(c *Call) *set {
	suites := map[int32]*set{}
	var expand func(s *set) *set
	expand = func(s *set) *set {
		out := &set{}
		for id := range s.all() {
			t := e.u.nodes[id].Target
			switch {
			case t == nil:
			case strings.HasSuffix(t.Kind(), "_test"):
				out.add(id)
			case t.Kind() == "test_suite":
				if suites[id] == nil {
					suites[id] = &set{} // one that names itself adds nothing by that
					tags := list(t, "tags")
					suites[id] = e.keep(expand(e.suite(id)), func(n *Node) bool { return allowed(tags, n.Target) })
				}
				out.union(suites[id])
			}
		}
		return out
	}
	return expand(e.eval(c.Args[0]))
}

// suite returns what a test_suite names, or the tests of its package.
func (e *evaluator) suite(id int32) *set {
	t := e.u.nodes[id].Target
	out := &set{}
	for _, edge := range t.Edges() {
		if to := e.u.target(edge.To); edge.Attr == "tests" && to >= 0 {
			out.add(to)
		}
	}
	if len(list(t, "tests")) > 0 {
		return out
	}
	one := &set{}
	one.add(id)
	e.loadPackages(one)
	for _, id := range e.u.byPkg[t.Label().Pkg] {
		if o := e.u.nodes[id].Target; strings.HasSuffix(o.Kind(), "_test") && !slices.Contains(list(o, "tags"), "manual") {
			out.add(id)
		}
	}
	return out
}

func list(t Target, attr string) []string {
	var all []string
	for _, v := range t.Attr(attr) {
		all = append(all, v.List...)
	}
	return all
}

// allowed tells whether a test has all the tags of a suite, its size counting as one, and none that begins with a dash there.
func allowed(suite []string, test Target) bool {
	tags := list(test, "tags")
	for _, v := range test.Attr("size") {
		tags = append(tags, v.Text)
	}
	for _, tag := range suite {
		if tag == "manual" {
			continue
		}
		not, negative := strings.CutPrefix(tag, "-")
		if negative == slices.Contains(tags, strings.TrimPrefix(not, "+")) {
			return false
		}
	}
	return true
}

func (e *evaluator) buildFiles(c *Call) *set { return e.packageFiles(c, true) }
func (e *evaluator) loadFiles(c *Call) *set  { return e.packageFiles(c, false) }

// packageFiles returns the files that the packages of the argument load and, with build, their BUILD files and those of the
// packages in which the loaded files lie.
func (e *evaluator) packageFiles(c *Call, build bool) *set {
	out := &set{}
	seen := map[string]bool{}
	add := func(file string) {
		if file != "" {
			out.add(e.u.file(file, e.src.Owner(file)))
		}
	}
	for id := range e.eval(c.Args[0]).all() {
		pkg := e.u.nodes[id].Label.Pkg
		if seen[pkg] || !e.src.IsPackage(pkg) {
			continue
		}
		seen[pkg] = true
		file, loads := e.src.PackageFiles(e.ctx, pkg)
		if build {
			add(file)
		}
		for _, f := range loads {
			add(f)
			if owner := e.src.Owner(f); build && e.src.IsPackage(owner) {
				file, _ := e.src.PackageFiles(e.ctx, owner)
				add(file)
			}
		}
	}
	return out
}

func (e *evaluator) siblings(c *Call) *set {
	out := &set{}
	names := e.loadPackages(e.eval(c.Args[0]))
	if e.opts.Files {
		e.u.indexFiles()
	}
	for _, p := range names {
		for _, id := range e.u.byPkg[p] {
			out.add(id)
			if e.opts.Files {
				for _, f := range e.u.uses[id] {
					out.add(f)
				}
			}
		}
	}
	return out
}

func (e *evaluator) samePkgDirectRdeps(c *Call) *set {
	x := e.eval(c.Args[0])
	e.loadPackages(x)
	e.u.indexFiles()
	out := &set{}
	for id := range x.all() {
		users := e.u.rdeps[id]
		if e.u.nodes[id].Target == nil {
			users = e.u.users[id]
		}
		for _, u := range users {
			if e.u.nodes[u].Label.Pkg == e.u.nodes[id].Label.Pkg {
				out.add(u)
			}
		}
	}
	return out
}

func (e *evaluator) visible(c *Call) *set {
	var pkgs []string
	for id := range e.eval(c.Args[0]).all() {
		pkgs = append(pkgs, e.u.nodes[id].Label.Pkg)
	}
	slices.Sort(pkgs)
	pkgs = slices.Compact(pkgs)
	return e.keep(e.eval(c.Args[1]), func(n *Node) bool {
		return !slices.ContainsFunc(pkgs, func(p string) bool {
			return p != n.Label.Pkg && (n.Target == nil || !n.Target.VisibleFrom(p))
		})
	})
}

func (e *evaluator) some(c *Call) *set {
	x := e.eval(c.Args[0])
	ids := slices.Collect(x.all())
	if len(ids) == 0 {
		e.fail(c.Args[0], "some() of nothing: this is empty")
	}
	n := 1
	if len(c.Args) > 1 {
		n = e.depth(c, 1)
	}
	e.u.sort(ids)
	out := &set{}
	for _, id := range ids[:min(n, len(ids))] {
		out.add(id)
	}
	return out
}
