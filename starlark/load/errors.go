package load

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/mwbuild/mwbuild/graph"
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
	return l.errs
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

// explainEval turns what go.starlark.net reports about a file into positioned errors: one for each undefined name of a
// file, else one with the calls that led to it.
func explainEval(file string, err error) []error {
	var (
		syn  syntax.Error
		res  resolve.ErrorList
		eval *starlark.EvalError
		own  *graph.Error
	)
	switch {
	case errors.As(err, &own):
		return []error{own}
	case errors.As(err, &res):
		var errs []error
		for _, e := range res {
			msg, _, _ := strings.Cut(e.Msg, " (did you mean ")
			ge := &graph.Error{Pos: e.Pos.String(), Msg: msg}
			errs = append(errs, ge)
		}
		return errs
	case errors.As(err, &syn):
		return []error{&graph.Error{Pos: syn.Pos.String(), Msg: "syntax error: " + syn.Msg}}
	case errors.As(err, &eval):
		ge := &graph.Error{Pos: file, Msg: strings.TrimPrefix(eval.Msg, "fail: "), Err: eval.Unwrap()}
		// Outermost first; builtins have no position of their own.
		for i, frame := range eval.CallStack {
			switch {
			case i == 0 && frame.Pos.Filename() == file:
				ge.Pos = frame.Pos.String()
			case frame.Pos.Line > 0 && frame.Name != "fail":
				ge.Hints = append(ge.Hints, fmt.Sprintf("at %s in %s", frame.Pos, frame.Name))
			}
		}
		return []error{ge}
	}
	return []error{&graph.Error{Pos: file, Msg: err.Error(), Err: err}}
}

// suggest adds to errors about undefined names which of the predeclared ones was probably meant.
func (l *Loader) suggest(errs []error) []error {
	for _, err := range errs {
		ge, ok := err.(*graph.Error)
		if !ok {
			continue
		}
		if name, ok := strings.CutPrefix(ge.Msg, "undefined: "); ok {
			candidates := slices.Concat(l.predeclared.Keys(), starlark.Universe.Keys())
			ge.Hints = []string{hint(name, candidates, "load it with load(), or see docs/rules.md for what is built in")}
		}
	}
	return errs
}

// callee is what the BUILD file calls to declare t: its rule, or a macro.
func (t *target) callee() string {
	name := t.rule.Name()
	if t.pkg.syntax != nil {
		syntax.Walk(t.pkg.syntax, func(n syntax.Node) bool {
			if call, ok := n.(*syntax.CallExpr); ok && call.Lparen == t.call {
				if id, ok := call.Fn.(*syntax.Ident); ok {
					name = id.Name
				}
			}
			return true
		})
	}
	return name
}

// attrPos is where attribute name stands in the call that declared t, or that call; where a macro stands between, the
// call of the macro, or its attribute of that name. The optional value narrows it to that string inside the attribute.
func (t *target) attrPos(name string, value ...string) string {
	file := t.pkg.syntax
	if file == nil {
		return t.call.String()
	}
	pos := t.call
	syntax.Walk(file, func(n syntax.Node) bool {
		call, ok := n.(*syntax.CallExpr)
		if !ok || call.Lparen != t.call {
			return true
		}
		start, _ := call.Span()
		pos = start
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
		return false
	})
	return pos.String()
}
