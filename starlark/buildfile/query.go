package buildfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bazelbuild/buildtools/build"
)

// A Mention is a word that stands somewhere in a file.
type Mention struct {
	Text string
	Pos  string // file:line:col
}

func (f *File) mention(x build.Expr, text string) Mention { return Mention{text, f.pos(x)} }

// UnusedLoads returns the names that load statements bring in and that the file does not use, in order. A parameter or a
// variable of the same name counts as use.
func (f *File) UnusedLoads() []Mention {
	used := map[string]bool{}
	var walk func(build.Expr)
	walk = func(x build.Expr) {
		switch x := x.(type) {
		case *build.LoadStmt:
			return
		case *build.Ident:
			used[x.Name] = true
		case *build.CallExpr:
			walk(x.X)
			for _, arg := range x.List {
				if as, ok := arg.(*build.AssignExpr); ok {
					arg = as.RHS // the parameter's name is no use
				}
				walk(arg)
			}
			return
		}
		build.WalkOnce(x, func(x *build.Expr) { walk(*x) })
	}
	walk(f.syntax)
	var unused []Mention
	for _, stmt := range f.syntax.Stmt {
		if l, ok := stmt.(*build.LoadStmt); ok {
			for i, to := range l.To {
				if !used[to.Name] {
					unused = append(unused, f.mention(l.To[i], to.Name))
				}
			}
		}
	}
	return unused
}

// RemoveLoad takes a name that a load statement at that place brings in out of it, and the statement, with the comments that are
// attached to it, where it was the only one. It tells whether it did.
func (f *File) RemoveLoad(m Mention) bool {
	for at, stmt := range f.syntax.Stmt {
		l, ok := stmt.(*build.LoadStmt)
		if !ok {
			continue
		}
		i := slices.IndexFunc(l.To, func(id *build.Ident) bool { return f.mention(id, id.Name) == m })
		if i < 0 {
			continue
		}
		l.From, l.To = slices.Delete(l.From, i, i+1), slices.Delete(l.To, i, i+1)
		if len(l.To) == 0 {
			f.syntax.Stmt = slices.Delete(f.syntax.Stmt, at, at+1)
		}
		f.changed = true
		return true
	}
	return false
}

// GlobPatterns returns the patterns that stand as plain strings in the lists that glob is to include, wherever it is called. Calls
// that say allow_empty = True are left out.
func (f *File) GlobPatterns() []Mention {
	var found []Mention
	var literals func(build.Expr)
	literals = func(x build.Expr) {
		switch x := x.(type) {
		case *build.ListExpr:
			for _, e := range x.List {
				if s, ok := e.(*build.StringExpr); ok {
					found = append(found, f.mention(s, s.Value))
				}
			}
		case *build.BinaryExpr:
			literals(x.X)
			literals(x.Y)
		case *build.ParenExpr:
			literals(x.X)
		}
	}
	build.Walk(f.syntax, func(x build.Expr, _ []build.Expr) {
		call, ok := x.(*build.CallExpr)
		if !ok || len(call.List) == 0 || build.NewRule(call).Kind() != "glob" {
			return
		}
		r := build.NewRule(call)
		if empty, ok := r.Attr("allow_empty").(*build.Ident); ok && empty.Name == "True" {
			return
		}
		if include := r.Attr("include"); include != nil {
			literals(include)
		} else if _, named := call.List[0].(*build.AssignExpr); !named {
			literals(call.List[0])
		}
	})
	return found
}

// StringsAt returns the strings that stand anywhere in the value of an attribute, as [Rule.Strings] does, with their places.
func (r *Rule) StringsAt(attr string) []Mention {
	as := r.rule.AttrDefn(attr)
	if as == nil {
		return nil
	}
	var all []Mention
	build.Walk(as.RHS, func(x build.Expr, _ []build.Expr) {
		if s, ok := x.(*build.StringExpr); ok {
			all = append(all, r.file.mention(s, s.Value))
		}
	})
	return all
}

// Ignored tells whether a comment "# lint: ignore CHECK", or "# lint: ignore CHECK, CHECK: why", silences a check for what stands at
// a place, file:line:col: one on the line, or one before the expression that begins there.
func (f *File) Ignored(check, pos string) bool {
	if f.ignored == nil {
		f.ignored = map[string]bool{}
		build.Walk(f.syntax, func(x build.Expr, _ []build.Expr) {
			start, _ := x.Span()
			f.ignore(*x.Comment(), start.Line)
			switch x := x.(type) {
			case *build.CallExpr:
				f.ignore(x.End.Comments, x.End.Pos.Line)
			case *build.ListExpr:
				f.ignore(x.End.Comments, x.End.Pos.Line)
			case *build.LoadStmt:
				f.ignore(x.Rparen.Comments, x.Rparen.Pos.Line)
			}
		})
	}
	rest := strings.TrimPrefix(pos, f.name+":")
	line, _, _ := strings.Cut(rest, ":")
	return f.ignored[line+" "+check]
}

func (f *File) ignore(c build.Comments, line int) {
	note := func(c build.Comment, line int) {
		text := strings.Join(strings.Fields(strings.TrimLeft(c.Token, "#")), " ")
		names, ok := strings.CutPrefix(text, "lint: ignore ")
		if !ok {
			return
		}
		names, _, _ = strings.Cut(names, ":")
		for name := range strings.SplitSeq(names, ",") {
			f.ignored[fmt.Sprintf("%d %s", line, strings.TrimSpace(name))] = true
		}
	}
	for _, b := range c.Before {
		note(b, line)
		note(b, b.Start.Line) // one behind an opening bracket is before the first element
	}
	for _, s := range c.Suffix {
		note(s, s.Start.Line)
	}
}
