// Package buildfile parses, edits and formats BUILD files without evaluating them.
//
// It sees a file as a person wrote it: rules are the calls that stand at the top level, and what a macro, a loop or a loaded
// file makes of them stays unknown. An edit touches what it is about and leaves everything else, comments and order included,
// where it was. A comment "# keep", or "# keep: why", takes a rule, an attribute or an element of a list out of the reach of
// edits:
//
//	# keep
//	mw_extension(
//	    name = "Cite",
//	    # keep: measured, see T1234
//	    manifests = ["extension.json"],
//	    deps = [
//	        "//extensions/Gadgets",  # keep
//	    ],
//	)
//
// Formatting is buildifier's, by its own library; by the file's name it is that of BUILD files, of WORKSPACE files, of .bzl
// files or of Starlark in general. It departs from buildifier in one thing: files are UTF-8, as Starlark's are, where Bazel's are
// Latin-1. Buildifier makes 'Größe' "Gr\303\266\303\237e", which means something else here and cannot be loaded; this package
// makes it "Größe".
package buildfile

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bazelbuild/buildtools/build"

	"github.com/mwbuild/mwbuild/graph/label"
)

// A SyntaxError says where a file cannot be parsed.
type SyntaxError struct {
	File      string // as it was given to Parse or Format
	Line, Col int    // counted from 1; Col in characters
	Msg       string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
}

// parse reads src as what the name of the file says it is.
func parse(file string, src []byte) (*build.File, error) {
	for rest, line := src, 1; !utf8.Valid(rest); line++ {
		text, after, _ := bytes.Cut(rest, []byte("\n"))
		for col := 1; !utf8.Valid(text); col++ {
			r, n := utf8.DecodeRune(text)
			if r == utf8.RuneError && n == 1 {
				return nil, &SyntaxError{file, line, col, "not UTF-8"}
			}
			text = text[n:]
		}
		rest = after
	}
	// The parser appends a line end, in place, whether there is one or not.
	f, err := build.Parse(file, bytes.Clone(bytes.TrimSuffix(src, []byte("\n"))))
	var perr build.ParseError
	if errors.As(err, &perr) {
		return nil, &SyntaxError{File: file, Line: perr.Pos.Line, Col: perr.Pos.LineRune, Msg: perr.Message}
	}
	return f, err
}

// print returns the text of a syntax tree.
func print(file string, f *build.File) ([]byte, error) {
	var err error
	build.Walk(f, func(x build.Expr, _ []build.Expr) {
		switch x := x.(type) {
		case *build.StringExpr:
			if isASCII(x.Value) || keepsToken(x) {
				return
			}
			if !utf8.ValidString(x.Value) {
				err = &SyntaxError{file, x.Start.Line, x.Start.LineRune, "the string is not UTF-8"}
				return
			}
			x.Token = quote(x.Value, x.TripleQuote)
		case *build.LoadStmt:
			for _, id := range slices.Concat(x.From, x.To) {
				if !isASCII(id.Name) {
					err = &SyntaxError{file, id.NamePos.Line, id.NamePos.LineRune, "the name of what is loaded is not ASCII, which cannot be formatted"}
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return build.FormatWithoutRewriting(f), nil
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// keepsToken tells whether the library prints a string as it stands in the file, and not in its own quotes.
func keepsToken(x *build.StringExpr) bool {
	s, triple, err := build.Unquote(x.Token)
	if err != nil || s != x.Value || triple != x.TripleQuote {
		return false
	}
	if x.Token[0] == 'r' {
		return true
	}
	for i := 0; i+1 < len(x.Token); i++ {
		if x.Token[i] == '\\' {
			if i++; x.Token[i] >= utf8.RuneSelf {
				return false // the library fails at such an escape
			}
		}
	}
	return (x.Token[0] == '"' || strings.Contains(x.Value, `"`)) && build.IsCorrectEscaping(x.Token)
}

// quote returns a string literal in double quotes that leaves what is not ASCII as it is.
func quote(s string, triple bool) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' && triple:
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '"' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	if triple {
		return `"""` + b.String() + `"""`
	}
	return `"` + b.String() + `"`
}

// Format returns src in buildifier's format. It returns a [SyntaxError] if src cannot be parsed.
//
// The name decides how: BUILD and BUILD.star, WORKSPACE and WORKSPACE.star, and *.bzl have formats of their own, and any other
// name is plain Starlark. The folders in it do not matter.
func Format(file string, src []byte) ([]byte, error) {
	out, err := formatOnce(file, src)
	// Buildifier's rewrites can make room for one another, so its result is formatted until it stays as it is.
	for range 3 {
		if err != nil {
			return nil, err
		}
		again, err := formatOnce(file, out)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(again, out) {
			return out, nil
		}
		out = again
	}
	return out, err
}

func formatOnce(file string, src []byte) (out []byte, err error) {
	// One file that the library fails at must not keep others from being formatted.
	defer func() {
		if r := recover(); r != nil {
			out, err = nil, fmt.Errorf("%s: the formatter failed: %v", file, r)
		}
	}()
	f, err := parse(file, src)
	if err != nil {
		return nil, err
	}
	build.Rewrite(f)
	return print(file, f)
}

// A File is a parsed BUILD file.
type File struct {
	name    string
	pkg     string
	syntax  *build.File
	changed bool
	ignored map[string]bool // "LINE CHECK" of comments that silence a check; nil until it is asked for
}

// Parse reads a BUILD file. file is its path relative to the workspace's root: its folder is the package that relative labels
// in it are of. It returns a [SyntaxError] if src cannot be parsed.
func Parse(file string, src []byte) (*File, error) {
	f, err := parse(file, src)
	if err != nil {
		return nil, err
	}
	pkg := path.Dir(file)
	if pkg == "." {
		pkg = ""
	}
	return &File{name: file, pkg: pkg, syntax: f}, nil
}

// Changed tells whether an edit changed anything.
func (f *File) Changed() bool { return f.changed }

// Bytes returns the file, formatted.
func (f *File) Bytes() ([]byte, error) {
	// The syntax tree holds edits without positions, so the text is formatted once more from what it then says.
	src, err := print(f.name, f.syntax)
	if err != nil {
		return nil, err
	}
	return Format(f.name, src)
}

// Rules returns the calls at the top level, in order.
func (f *File) Rules() []*Rule {
	var rules []*Rule
	for _, stmt := range f.syntax.Stmt {
		if call, ok := stmt.(*build.CallExpr); ok {
			rules = append(rules, &Rule{f, build.NewRule(call)})
		}
	}
	return rules
}

// Hidden tells whether a function is called below the top level: in a loop, a comprehension, a function or an argument. The rules
// that such calls make are not among [File.Rules].
func (f *File) Hidden(kind string) bool {
	calls := 0
	build.Walk(f.syntax, func(x build.Expr, _ []build.Expr) {
		if call, ok := x.(*build.CallExpr); ok && build.NewRule(call).Kind() == kind {
			calls++
		}
	})
	for _, r := range f.Rules() {
		if r.Kind() == kind {
			calls--
		}
	}
	return calls > 0
}

// Append parses src, statements of a BUILD file, and puts them at the end.
func (f *File) Append(src string) error {
	more, err := parse(f.name, []byte(src))
	if err != nil {
		return err
	}
	f.syntax.Stmt = append(f.syntax.Stmt, more.Stmt...)
	f.changed = true
	return nil
}

// Remove takes a rule out, with the comments that are attached to it.
func (f *File) Remove(r *Rule) {
	for i, stmt := range f.syntax.Stmt {
		if stmt == build.Expr(r.rule.Call) {
			f.syntax.Stmt = append(f.syntax.Stmt[:i:i], f.syntax.Stmt[i+1:]...)
			f.changed = true
			return
		}
	}
}

// Bare tells whether nothing stands in the file but a call of package: no other statement and no comment.
func (f *File) Bare() bool {
	bare := true
	for _, stmt := range f.syntax.Stmt {
		call, ok := stmt.(*build.CallExpr)
		bare = bare && ok && build.NewRule(call).Kind() == "package"
	}
	build.Walk(f.syntax, func(x build.Expr, _ []build.Expr) { bare = bare && !hasComment(x) })
	return bare
}

// NoRules tells whether the file holds no statement but comments and loads.
func (f *File) NoRules() bool {
	for _, stmt := range f.syntax.Stmt {
		switch stmt.(type) {
		case *build.CommentBlock, *build.LoadStmt:
		default:
			return false
		}
	}
	return true
}

// canonical returns what a string in a list means: a label in full where it is one, so that "//a/b" equals "//a/b:b".
func (f *File) canonical(s string) string {
	if l, err := label.Parse(s, f.pkg); err == nil {
		return l.String()
	}
	return s
}

// A Rule is a call at the top level of a BUILD file.
type Rule struct {
	file *File
	rule *build.Rule
}

// Is tells whether r and o are the same call in a file.
func (r *Rule) Is(o *Rule) bool { return r.rule.Call == o.rule.Call }

// Kind returns the name of the function that is called, such as "mw_extension"; "" if it is not a plain name.
func (r *Rule) Kind() string { return r.rule.Kind() }

// SetKind makes the rule one of another kind.
func (r *Rule) SetKind(kind string) {
	r.rule.SetKind(kind)
	r.file.changed = true
}

// Name returns the attribute name; "" if it is absent or no plain string.
func (r *Rule) Name() string { return r.rule.ExplicitName() }

// Pos returns where the rule stands, as file:line:col.
func (r *Rule) Pos() string { return r.file.pos(r.rule.Call) }

// AttrPos returns where an attribute stands, as file:line:col; that of the rule, where it has no such attribute.
func (r *Rule) AttrPos(attr string) string {
	if as := r.rule.AttrDefn(attr); as != nil {
		return r.file.pos(as)
	}
	return r.Pos()
}

func (f *File) pos(x build.Expr) string {
	start, _ := x.Span()
	return fmt.Sprintf("%s:%d:%d", f.name, start.Line, start.LineRune)
}

// Has tells whether the rule has an attribute.
func (r *Rule) Has(attr string) bool { return r.rule.AttrDefn(attr) != nil }

// Strings returns the strings that stand anywhere in the value of an attribute: of a list its elements, of
// select({...}) + ["a"] those of all branches.
func (r *Rule) Strings(attr string) []string {
	as := r.rule.AttrDefn(attr)
	if as == nil {
		return nil
	}
	var all []string
	build.Walk(as.RHS, func(x build.Expr, _ []build.Expr) {
		if s, ok := x.(*build.StringExpr); ok {
			all = append(all, s.Value)
		}
	})
	return all
}

// Keep tells whether a comment keeps the whole rule as it is: one before it, behind it, or at its name, to which the formatter
// moves one that stands behind the opening parenthesis.
func (r *Rule) Keep() bool {
	call := r.rule.Call
	if keeps(call.Comments) || keeps(*call.X.Comment()) || keeps(call.End.Comments) {
		return true
	}
	name := r.rule.AttrDefn("name")
	return name != nil && keeps(name.Comments)
}

// KeepAttr tells whether a comment before or behind an attribute keeps it as it is. One behind an opening bracket is about the
// first element: the formatter moves it there.
func (r *Rule) KeepAttr(attr string) bool {
	as := r.rule.AttrDefn(attr)
	if as == nil {
		return false
	}
	list, ok := as.RHS.(*build.ListExpr)
	return keeps(as.Comments) || keeps(*as.RHS.Comment()) || ok && keeps(build.Comments{Suffix: list.End.Suffix})
}

// keeps tells whether one of the comments at an expression says keep.
func keeps(c build.Comments) bool {
	for _, comments := range [][]build.Comment{c.Before, c.Suffix} {
		for _, c := range comments {
			if isKeep(c.Token) {
				return true
			}
		}
	}
	return false
}

// isKeep tells whether a comment is "# keep" or "# keep: why". "# keep sorted" is buildifier's and says something else.
func isKeep(comment string) bool {
	word, _, _ := strings.Cut(strings.TrimPrefix(comment, "#"), ":")
	return strings.TrimSpace(word) == "keep"
}

// hasComment tells whether any comment is attached to x itself.
func hasComment(x build.Expr) bool {
	if x == nil {
		return false
	}
	some := func(c build.Comments) bool { return len(c.Before)+len(c.Suffix)+len(c.After) > 0 }
	switch x := x.(type) {
	case *build.CallExpr:
		if some(x.End.Comments) {
			return true
		}
	case *build.ListExpr:
		if some(x.End.Comments) {
			return true
		}
	}
	return some(*x.Comment())
}

// A ListEdit says what a list of strings is to hold. Strings are compared as labels where they are some.
type ListEdit struct {
	// Want is what the list is to hold, in the order in which a new list has it.
	Want []string
	// Stale tells which other strings are to go; nil means all.
	Stale func(string) bool
	// Compare orders strings: one that is new goes before the first that is greater, else to the end. Nil compares bytes.
	Compare func(a, b string) int
}

// An Outcome is what became of an edit.
type Outcome int

const (
	// Current says that the attribute holds what it should, edited or not.
	Current Outcome = iota
	// Kept says that a comment keeps the attribute as it is.
	Kept
	// Opaque says that the value is an expression that is left alone, and that something wanted stands nowhere in it.
	Opaque
)

// EditList brings a list of strings up to date. Elements that are no plain strings stay, and so do those that a comment keeps. A
// label that goes while another of its package comes is replaced where it stands, with its comments. An attribute that is not a plain list is left as it is. A list that becomes empty goes, unless it holds a comment.
func (r *Rule) EditList(attr string, edit ListEdit) Outcome {
	if r.Keep() || r.KeepAttr(attr) {
		return Kept
	}
	if edit.Compare == nil {
		edit.Compare = strings.Compare
	}
	as := r.rule.AttrDefn(attr)
	if as == nil {
		if len(edit.Want) > 0 {
			list := &build.ListExpr{}
			for _, s := range edit.Want {
				list.List = append(list.List, &build.StringExpr{Value: s})
			}
			r.rule.SetAttr(attr, list)
			r.rule.Call.ForceMultiLine, r.rule.Call.ForceCompact = true, false
			r.file.changed = true
		}
		return Current
	}
	want := map[string]bool{}
	for _, s := range edit.Want {
		want[r.file.canonical(s)] = true
	}
	list, ok := as.RHS.(*build.ListExpr)
	if !ok {
		for _, s := range r.Strings(attr) {
			delete(want, r.file.canonical(s))
		}
		if len(want) > 0 {
			return Opaque
		}
		return Current
	}
	have := map[string]bool{}
	for _, x := range list.List {
		if s, ok := x.(*build.StringExpr); ok {
			have[r.file.canonical(s.Value)] = true
		}
	}
	renamed := map[string]string{} // package to what is wanted of it and new
	for _, w := range edit.Want {
		if l, err := label.Parse(w, r.file.pkg); err == nil && l.Pkg != r.file.pkg && !have[l.String()] {
			renamed[l.Pkg] = w
		}
	}
	clear(have)
	var elems []build.Expr
	removed, added := false, false
	for _, x := range list.List {
		if s, ok := x.(*build.StringExpr); ok {
			id := r.file.canonical(s.Value)
			stale := have[id] || !want[id] && (edit.Stale == nil || edit.Stale(s.Value))
			if stale && !keeps(s.Comments) {
				l, err := label.Parse(s.Value, r.file.pkg)
				to := renamed[l.Pkg]
				if err != nil || to == "" {
					removed = true
					continue
				}
				delete(renamed, l.Pkg)
				x, id, added = &build.StringExpr{Comments: s.Comments, Value: to}, r.file.canonical(to), true
			}
			have[id] = true
		}
		elems = append(elems, x)
	}
	for _, w := range edit.Want {
		if have[r.file.canonical(w)] {
			continue
		}
		at := len(elems)
		for i, x := range elems {
			if s, ok := x.(*build.StringExpr); ok && edit.Compare(s.Value, w) > 0 {
				at = i
				break
			}
		}
		elems = append(elems[:at:at], append([]build.Expr{&build.StringExpr{Value: w}}, elems[at:]...)...)
		added = true
	}
	if !removed && !added {
		return Current
	}
	r.file.changed = true
	list.List = elems
	if len(elems) == 0 && !hasComment(as) && !hasComment(list) {
		r.rule.DelAttr(attr)
		return Current
	}
	// What stood in one line may have become too many elements for it.
	list.ForceMultiLine = list.ForceMultiLine || len(elems) > 1
	return Current
}
