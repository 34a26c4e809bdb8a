package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	starjson "go.starlark.net/lib/json"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
)

// A pkg is one evaluated BUILD file.
type pkg struct {
	name       string
	loader     *Loader
	file       string       // workspace-relative path of the BUILD file
	syntax     *syntax.File // nil if it could not be parsed
	indexCalls sync.Once
	calls      map[[2]int32]*syntax.CallExpr // of syntax, by line and column of their parentheses
	targets    map[string]*target
	visibility []string // default
	declared   bool     // package() was called
	loads      []*module
	reads      []string // files that read_json read
	missing    int      // files that labels name
	errs       errorList
	broken     bool // evaluation did not reach the end: targets may be missing
}

// eval runs the package's BUILD file. What goes wrong lands in p.errs.
func (p *pkg) eval(ctx context.Context) {
	l := p.loader
	files := l.opts.Tree.BuildFiles(p.name)
	if len(files) != 1 {
		p.broken = true
		if len(files) > 1 {
			p.errs.add(&graph.Error{Pos: path.Join(p.name, files[1]) + ":1:1", Msg: fmt.Sprintf("package //%s has both %s", p.name, strings.Join(files, " and ")), Hints: []string{"keep one of them"}})
		}
		return
	}
	p.file = path.Join(p.name, files[0])
	src, err := l.opts.Tree.ReadFile(p.file)
	if err != nil {
		p.broken = true
		p.errs.add(&graph.Error{Pos: p.file + ":1:1", Msg: err.Error(), Err: err})
		return
	}
	thread, done := l.thread(ctx, p.file)
	defer done()
	thread.SetLocal(pkgKey, p)
	thread.Load = func(thread *starlark.Thread, ref string) (starlark.StringDict, error) {
		m, err := l.loadStatement(ctx, thread, ref, p.name, nil)
		p.loads = append(p.loads, m)
		return m.globals, err
	}
	file, prog, err := starlark.SourceProgramOptions(fileOptions, p.file, src, l.predeclared.Has)
	p.syntax = file
	if err == nil {
		_, err = prog.Init(thread, l.predeclared)
	}
	if err != nil {
		p.broken = true
		for _, e := range l.suggest(explainEval(p.file, err)) {
			p.errs.add(e)
		}
	}
}

func currentPkg(thread *starlark.Thread, b *starlark.Builtin) (*pkg, error) {
	p, ok := thread.Local(pkgKey).(*pkg)
	if !ok {
		return nil, fmt.Errorf("%s is for BUILD files, and for macros that a BUILD file calls", b.Name())
	}
	return p, nil
}

func declarePackage(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	p, err := currentPkg(thread, b)
	if err != nil {
		return nil, err
	}
	var visibility *starlark.List
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "default_visibility?", &visibility); err != nil {
		return nil, err
	}
	if len(p.targets) > 0 {
		return nil, fmt.Errorf("package() comes before the first target")
	}
	if p.declared {
		return nil, fmt.Errorf("package() stands twice; once is enough")
	}
	p.declared = true
	if visibility != nil {
		if p.visibility, err = stringList(visibility); err != nil {
			return nil, fmt.Errorf("package: default_visibility: %w", err)
		}
		if _, err := parseVisibility(p.visibility, p.name); err != nil {
			return nil, err
		}
	}
	return starlark.None, nil
}

func packageName(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	p, err := currentPkg(thread, b)
	if err != nil {
		return nil, err
	}
	return starlark.String(p.name), starlark.UnpackArgs(b.Name(), args, kwargs)
}

func (l *Loader) glob(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	p, err := currentPkg(thread, b)
	if err != nil {
		return nil, err
	}
	var include, exclude *starlark.List
	allowEmpty := true
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "include", &include, "exclude?", &exclude, "allow_empty?", &allowEmpty); err != nil {
		return nil, err
	}
	in, err := stringList(include)
	if err != nil {
		return nil, fmt.Errorf("glob: include: %w", err)
	}
	ex, err := stringList(exclude)
	if err != nil {
		return nil, fmt.Errorf("glob: exclude: %w", err)
	}
	files, err := l.opts.Tree.Glob(p.name, in, ex)
	if err != nil {
		return nil, fmt.Errorf("glob: %w", err)
	}
	if len(files) == 0 && !allowEmpty {
		return nil, fmt.Errorf("glob: %s matches no file", strings.Join(in, ", "))
	}
	return fromStrings(files), nil
}

func (l *Loader) readJSON(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	p, err := currentPkg(thread, b)
	if err != nil {
		return nil, err
	}
	var name string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path", &name); err != nil {
		return nil, err
	}
	file := path.Join(p.name, name)
	if path.IsAbs(name) || !inside(file, p.name) {
		return nil, fmt.Errorf("read_json: %s is not in package //%s: a package reads its own files", name, p.name)
	}
	if owner := l.owner(file); owner != p.name {
		return nil, fmt.Errorf("read_json: %s belongs to package //%s", name, owner)
	}
	if _, ok := l.opts.Tree.Lookup(file); !ok {
		return nil, fmt.Errorf("read_json: no file %s", file)
	}
	p.reads = append(p.reads, file)
	src, err := l.opts.Tree.ReadFile(file)
	if err != nil {
		return nil, err
	}
	v, err := starlark.Call(thread, starlark.NewBuiltin("json.decode", decodeJSON), starlark.Tuple{starlark.String(src)}, nil)
	if err != nil {
		return nil, fmt.Errorf("read_json: %s: %s", file, strings.TrimPrefix(rootCause(err).Error(), "json.decode: "))
	}
	return v, nil
}

// jsonModule is Starlark's json, with input that would exhaust the stack refused.
var jsonModule = &starlarkstruct.Module{Name: "json", Members: func() starlark.StringDict {
	members := maps.Clone(starjson.Module.Members)
	members["decode"] = starlark.NewBuiltin("json.decode", decodeJSON)
	return members
}()}

func decodeJSON(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(args) > 0 {
		if s, ok := starlark.AsString(args[0]); ok {
			depth, quoted := 0, false
			for i := 0; i < len(s); i++ {
				switch c := s[i]; {
				case c == '\\' && quoted:
					i++
				case c == '"':
					quoted = !quoted
				case quoted:
				case c == '[' || c == '{':
					if depth++; depth > maxDepth {
						return nil, fmt.Errorf("json.decode: at offset %d, nested more than %d deep", i, maxDepth)
					}
				case c == ']' || c == '}':
					depth--
				}
			}
		}
	}
	return starlark.Call(thread, starjson.Module.Members["decode"], args, kwargs)
}

func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// owner is the package that a file belongs to: the nearest folder above it that is one.
func (l *Loader) owner(file string) string {
	for dir := path.Dir(file); ; dir = path.Dir(dir) {
		if dir == "." {
			return ""
		}
		if l.isPkg[dir] {
			return dir
		}
	}
}

// inside tells whether the clean path p lies in folder dir ("" holds everything).
func inside(p, dir string) bool {
	if p == ".." || strings.HasPrefix(p, "../") {
		return false
	}
	return dir == "" || strings.HasPrefix(p, dir+"/")
}

func stringList(l *starlark.List) ([]string, error) {
	if l == nil {
		return nil, nil
	}
	var out []string
	for v := range starlark.Elements(l) {
		s, ok := starlark.AsString(v)
		if !ok {
			return nil, fmt.Errorf("element %d is %s, want a string", len(out), describe(v))
		}
		out = append(out, s)
	}
	return out, nil
}

func fromStrings(ss []string) *starlark.List {
	elems := make([]starlark.Value, len(ss))
	for i, s := range ss {
		elems[i] = starlark.String(s)
	}
	return starlark.NewList(elems)
}

// A target is a declared target until its graph.Target is made.
type target struct {
	label label.Label
	rule  *rule
	pkg   *pkg
	call  syntax.Position // of the parenthesis, in the BUILD file, of the call that led here
	attrs map[string]starlark.Value
	via   []string // the macros between, for messages
	bad   bool     // something is wrong with it and was reported

	deprecated []string // attributes that are, and were given

	resolved bool
	deps     []dep
	errs     []error       // found by resolution and analysis
	node     *graph.Target // after analysis began
	provided *targetValue  // after analysis
}

// A dep is one string of a label attribute, resolved.
type dep struct {
	attr string
	text string
	to   *target // or
	file string  // a file of the workspace
	// condition: it is a config_setting that select() asks in the attribute, and no value of it.
	condition bool
}

func (t *target) display() string {
	if t.label.Name == "" {
		return ""
	}
	return t.label.String()
}

func (t *target) strings(attr string) []string {
	return stringsOf(t.value(attr)) // checked when it was set
}

func (t *target) manual() bool { return slices.Contains(t.strings("tags"), "manual") }

// packages names the packages that its attributes lead to, its conditions' too, for evaluating them. Its own may be missing.
func (t *target) packages() []string {
	var pkgs []string
	add := func(lab label.Label) {
		if lab.Pkg != t.label.Pkg && !slices.Contains(pkgs, lab.Pkg) {
			pkgs = append(pkgs, lab.Pkg)
		}
	}
	for _, name := range t.rule.order {
		for _, lab := range t.conditionLabels(name) {
			add(lab)
		}
		if !t.rule.attrs[name].labels() {
			continue
		}
		for _, s := range t.strings(name) {
			if !strings.HasPrefix(s, "//") {
				continue // a file, or a target beside it
			}
			if lab, err := label.Parse(s, t.label.Pkg); err == nil {
				add(lab)
			}
		}
	}
	return pkgs
}

// resolve finds what the label attributes name, once. The packages of all labels are evaluated.
func (t *target) resolve() {
	if t.resolved {
		return
	}
	t.resolved = true
	l := t.pkg.loader
	for _, name := range t.rule.order {
		a := t.rule.attrs[name]
		if c, ok := t.attrs[name].(*conditional); ok {
			c.choose()
			t.bad = t.bad || len(c.errs) > 0
			t.errs = append(t.errs, c.errs...)
			t.deps = append(t.deps, c.settings...)
		}
		if !a.labels() {
			continue
		}
		seen := map[string]bool{}
		for _, s := range t.strings(name) {
			fail := func(msg string, hints ...string) {
				t.bad = true
				t.errs = append(t.errs, &graph.Error{Pos: t.attrPos(name, s), Label: t.label.String(), Msg: fmt.Sprintf("%s: %s", name, msg), Hints: append(hints, t.via...)})
			}
			if seen[strings.TrimPrefix(s, ":")] {
				fail(fmt.Sprintf("%s is named twice", s), "remove one of the two")
				continue
			}
			seen[strings.TrimPrefix(s, ":")] = true
			// A file's name may hold what a label may not, so files come first; a target of that name hides its file.
			if !strings.HasPrefix(s, "//") && !strings.HasPrefix(s, ":") && t.pkg.targets[s] == nil {
				file := path.Join(t.label.Pkg, s)
				if _, ok := l.opts.Tree.Lookup(file); ok && inside(file, t.label.Pkg) {
					switch owner := l.owner(file); {
					case !a.allowFiles:
						fail(fmt.Sprintf("%s is a file; a target is wanted here", s))
					case owner != t.label.Pkg:
						fail(fmt.Sprintf("file %s belongs to package //%s", s, owner), "name a target of that package")
					default:
						t.deps = append(t.deps, dep{attr: name, text: s, file: file})
					}
					continue
				}
			}
			lab, err := label.Parse(s, t.label.Pkg)
			if err != nil {
				var hints []string
				if strings.Contains(s, "../") || strings.HasPrefix(s, "/") {
					hints = []string{"files of another package are named through a target of that package: //pkg:name"}
				}
				fail(err.Error(), hints...)
				continue
			}
			to, msg, hints := l.find(lab)
			if to == nil {
				t.bad = true
				if msg == "" {
					continue
				}
				if a.allowFiles && lab.Pkg == t.label.Pkg && !strings.HasPrefix(s, "//") {
					msg = fmt.Sprintf("no file or target %s in package //%s", strings.TrimPrefix(s, ":"), lab.Pkg)
					hints = []string{"make the file, or change " + name}
					if near := t.nearFile(lab.Name); near != "" {
						hints = []string{near}
					}
				}
				fail(msg, hints...)
				continue
			}
			if !to.visibleFrom(t.label.Pkg) {
				fail(fmt.Sprintf("%s is not visible from //%s", lab, t.label.Pkg),
					fmt.Sprintf("add visibility = [\"//%s:__pkg__\"] to it, at %s", t.label.Pkg, to.attrPos("")))
				continue
			}
			t.deps = append(t.deps, dep{attr: name, text: s, to: to})
		}
	}
	if _, err := parseVisibility(t.strings("visibility"), t.label.Pkg); err != nil {
		t.bad = true
		t.errs = append(t.errs, &graph.Error{Pos: t.attrPos("visibility"), Label: t.label.String(), Msg: err.Error(), Hints: t.via})
	}
}

// nearFile says what name was probably meant to be. It gives up in a package where nearly everything is missing.
func (t *target) nearFile(name string) string {
	const most = 50
	if t.pkg.missing++; t.pkg.missing > most {
		return ""
	}
	files, err := t.pkg.loader.opts.Tree.Glob(t.label.Pkg, []string{path.Join(path.Dir(name), "*")}, nil)
	if err != nil {
		return ""
	}
	s := didYouMean(name, append(files, slices.Sorted(maps.Keys(t.pkg.targets))...))
	return strings.Trim(s, " ()")
}

// visibility is the target's own or else its package's.
func (t *target) visibility() []string {
	if _, set := t.attrs["visibility"].(*starlark.List); set {
		return t.strings("visibility")
	}
	return t.pkg.visibility
}

// visibleFrom tells whether a target of package from may depend on t. Without a visibility of its own or of its package
// a target is private to its package.
func (t *target) visibleFrom(from string) bool {
	if from == t.label.Pkg {
		return true
	}
	match, err := parseVisibility(t.visibility(), t.label.Pkg)
	return err == nil && match(from)
}

// parseVisibility reads visibility specifications as Bazel has them.
func parseVisibility(specs []string, pkgName string) (func(pkg string) bool, error) {
	var patterns []label.Pattern
	for _, s := range specs {
		switch lab, err := label.Parse(s, pkgName); {
		case err != nil:
			return nil, fmt.Errorf("visibility: %w", err)
		case lab == label.Label{Pkg: "visibility", Name: "public"}:
			patterns = append(patterns, label.Pattern{Below: true})
		case lab == label.Label{Pkg: "visibility", Name: "private"}:
		case lab.Name == "__pkg__":
			patterns = append(patterns, label.Pattern{Label: label.Label{Pkg: lab.Pkg}, All: true})
		case lab.Name == "__subpackages__":
			patterns = append(patterns, label.Pattern{Label: label.Label{Pkg: lab.Pkg}, Below: true})
		default:
			return nil, fmt.Errorf("visibility: %q is none of //visibility:public, //visibility:private, //pkg:__pkg__, //pkg:__subpackages__", s)
		}
	}
	return func(pkg string) bool {
		return slices.ContainsFunc(patterns, func(p label.Pattern) bool { return p.MatchPackage(pkg) })
	}, nil
}
