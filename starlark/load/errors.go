package load

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
)

// errorList collects errors from several goroutines.
type errorList struct {
	mu   sync.Mutex
	errs []error
}

func (l *errorList) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

// sorted returns the errors in order of file, line and column, equal ones once.
func (l *errorList) sorted() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortStableFunc(l.errs, func(a, b error) int { return comparePositions(a.Error(), b.Error()) })
	l.errs = slices.CompactFunc(l.errs, func(a, b error) bool { return a.Error() == b.Error() })
	return slices.Clone(l.errs)
}

// all returns the errors as they were added.
func (l *errorList) all() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.errs)
}

var positioned = regexp.MustCompile(`^([^\s:]*):(\d+):(\d+)`)

func comparePositions(a, b string) int {
	ma, mb := positioned.FindStringSubmatch(a), positioned.FindStringSubmatch(b)
	if ma == nil || mb == nil {
		return strings.Compare(a, b)
	}
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	return cmp.Or(strings.Compare(ma[1], mb[1]), cmp.Compare(number(ma[2]), number(mb[2])), cmp.Compare(number(ma[3]), number(mb[3])), strings.Compare(a, b))
}

// severalErrors is what is wrong with a loaded file, where it is more than one thing.
type severalErrors []error

func (e severalErrors) Error() string { return errors.Join(e...).Error() }

// A hintedError carries what to do next through the interpreter, which knows messages only.
type hintedError struct {
	msg   string
	hints []string
}

func (e *hintedError) Error() string { return e.msg }

// explainEval turns what go.starlark.net reports about a file into positioned errors: one for each undefined name of a
// file, else one with the calls that led to it.
func explainEval(file string, err error) []error {
	var (
		syn    syntax.Error
		res    resolve.ErrorList
		eval   *starlark.EvalError
		own    *graph.Error
		many   severalErrors
		hinted *hintedError
	)
	switch {
	case errors.As(err, &many):
		return many
	case errors.As(err, &own):
		return []error{own}
	case errors.As(err, &res):
		var errs []error
		for _, e := range res {
			msg, near, found := strings.Cut(strings.TrimSuffix(e.Msg, ")"), " (did you mean ")
			ge := &graph.Error{Pos: e.Pos.String(), Msg: msg}
			if found {
				ge.Hints = []string{"did you mean " + near}
			} else if file == "WORKSPACE" || file == "WORKSPACE.star" {
				ge.Hints = []string{hint(strings.TrimPrefix(msg, "undefined: "), workspaceStatements, "statements are "+strings.Join(workspaceStatements, ", "))}
			}
			errs = append(errs, ge)
		}
		return errs
	case errors.As(err, &syn):
		return []error{&graph.Error{Pos: syn.Pos.String(), Msg: "syntax error: " + syn.Msg}}
	case errors.As(err, &eval):
		ge := &graph.Error{Pos: file + ":1:1", Msg: strings.TrimPrefix(strings.TrimPrefix(eval.Msg, "fail: "), "Starlark computation cancelled: "), Err: eval.Unwrap()}
		if errors.As(err, &hinted) {
			ge.Hints = slices.Clone(hinted.hints)
		}
		// Outermost first; builtins have no position of their own, and inside the built-in rules the calls are of no use
		// to a person.
		for i, frame := range eval.CallStack {
			switch {
			case i == 0 && frame.Pos.Filename() == file:
				ge.Pos = frame.Pos.String()
			case frame.Pos.Line > 0 && !strings.HasPrefix(frame.Pos.Filename(), "@"):
				ge.Hints = append(ge.Hints, fmt.Sprintf("at %s in %s", frame.Pos, frame.Name))
			}
		}
		return []error{ge}
	}
	ge := &graph.Error{Pos: file + ":1:1", Msg: err.Error(), Err: err}
	if errors.As(err, &hinted) {
		ge.Hints = hinted.hints
	}
	return []error{ge}
}

var missingName = regexp.MustCompile(`^load: name (\S+) not found in module (\S+)`)

// suggest adds to errors about undefined names which one was probably meant.
func (l *Loader) suggest(errs []error) []error {
	for _, err := range errs {
		ge, ok := err.(*graph.Error)
		if !ok {
			continue
		}
		if m := missingName.FindStringSubmatch(ge.Msg); m != nil {
			ge.Msg = m[0]
			ge.Hints = l.exports(m[2], strings.TrimPrefix(path.Dir(ge.Pos), "."), m[1])
		}
		if name, ok := strings.CutPrefix(ge.Msg, "undefined: "); ok && ge.Hints == nil {
			candidates := slices.Concat(l.predeclared.Keys(), starlark.Universe.Keys())
			ge.Hints = []string{hint(name, candidates, "define it, load it with load(), or see docs/rules.md for what is built in")}
		}
	}
	return errs
}

// exports says which names can be loaded from ref in package pkgName in place of name.
func (l *Loader) exports(ref, pkgName, name string) []string {
	id := ref
	if lab, err := label.Parse(ref, pkgName); err == nil {
		id = lab.String()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.modules[id]
	if m == nil {
		return nil
	}
	names := slices.DeleteFunc(m.globals.Keys(), func(n string) bool { return strings.HasPrefix(n, "_") })
	return []string{hint(name, names, "it defines "+strings.Join(names, ", "))}
}

// callee is what the BUILD file calls to declare t: its rule, or a macro.
func (t *target) callee() string {
	if call := t.pkg.callAt(t.call); call != nil {
		if id, ok := call.Fn.(*syntax.Ident); ok {
			return id.Name
		}
	}
	return t.rule.Name()
}

// attrPos is where attribute name stands in the call that declared t, or that call; where a macro stands between, the
// call of the macro, or its attribute of that name. The optional value narrows it to that string inside the attribute.
func (t *target) attrPos(name string, value ...string) string {
	call := t.pkg.callAt(t.call)
	if call == nil {
		return t.call.String()
	}
	pos, _ := call.Span()
	for _, arg := range call.Args {
		b, ok := arg.(*syntax.BinaryExpr)
		if !ok || b.Op != syntax.EQ {
			continue
		}
		if id, ok := b.X.(*syntax.Ident); !ok || id.Name != name {
			continue
		}
		pos, _ = b.Y.Span()
		for _, want := range value {
			syntax.Walk(b.Y, func(n syntax.Node) bool {
				if l, ok := n.(*syntax.Literal); ok && l.Value == want {
					pos = l.TokenPos
				}
				return true
			})
		}
	}
	return pos.String()
}

// callAt returns the call in the BUILD file whose parenthesis is at pos, or nil.
func (p *pkg) callAt(pos syntax.Position) *syntax.CallExpr {
	p.indexCalls.Do(func() {
		p.calls = map[[2]int32]*syntax.CallExpr{}
		if p.syntax == nil {
			return
		}
		syntax.Walk(p.syntax, func(n syntax.Node) bool {
			if call, ok := n.(*syntax.CallExpr); ok {
				p.calls[[2]int32{call.Lparen.Line, call.Lparen.Col}] = call
			}
			return true
		})
	})
	return p.calls[[2]int32{pos.Line, pos.Col}]
}
