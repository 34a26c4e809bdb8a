package query

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// An Expr is an expression of the query language. Its String is the canonical form, which Parse reads back: operators as
// symbols, and words quoted where they must be.
type Expr interface {
	String() string
	span() (from, to int) // byte offsets in what was parsed
}

// A Word is a target pattern, or a variable where it begins with a dollar sign; as an argument of a function it may be a
// regular expression or a name.
type Word struct {
	Text string
	Pos  int // byte offset of its first character or quote
	End  int
}

// A Let binds a value to a name in its body.
type Let struct {
	Name        string
	Value, Body Expr
	Pos         int
}

// A Chain is operators of equal precedence, applied from left to right.
type Chain struct {
	First Expr
	Rest  []Term
}

// A Term is one operator of a [Chain] with its right operand.
type Term struct {
	Op byte // '+', '-' or '^'
	X  Expr
}

// A Set is set(word word …): the union of target patterns.
type Set struct {
	Words    []*Word
	Pos, End int
}

// A Call is a function with its arguments. A word or number among them is a *Word.
type Call struct {
	Func     string
	Args     []Expr
	Pos, End int
}

func (w *Word) span() (int, int) { return w.Pos, w.End }
func (l *Let) span() (int, int)  { _, end := l.Body.span(); return l.Pos, end }
func (s *Set) span() (int, int)  { return s.Pos, s.End }
func (c *Call) span() (int, int) { return c.Pos, c.End }
func (c *Chain) span() (int, int) {
	from, to := c.First.span()
	if n := len(c.Rest); n > 0 {
		_, to = c.Rest[n-1].X.span()
	}
	return from, to
}

func (w *Word) String() string { return quote(w.Text) }
func (l *Let) String() string {
	return "let " + l.Name + " = " + l.Value.String() + " in " + l.Body.String()
}

func (c *Chain) String() string {
	var b strings.Builder
	b.WriteString(operand(c.First))
	for _, t := range c.Rest {
		b.WriteString(" " + string(t.Op) + " " + operand(t.X))
	}
	return b.String()
}

func operand(x Expr) string {
	switch x.(type) {
	case *Chain, *Let:
		return "(" + x.String() + ")"
	}
	return x.String()
}

func (s *Set) String() string {
	words := make([]string, len(s.Words))
	for i, w := range s.Words {
		words[i] = w.String()
	}
	return "set(" + strings.Join(words, " ") + ")"
}

func (c *Call) String() string {
	args := make([]string, len(c.Args))
	for i, a := range c.Args {
		args[i] = a.String()
	}
	return c.Func + "(" + strings.Join(args, ", ") + ")"
}

// quote writes a word so that it is read back as one.
func quote(s string) string {
	plain := s != "" && s[0] != '-' && s[0] != '*' && keywords[s] == 0
	for i := 0; i < len(s) && plain; i++ {
		plain = wordByte(s[i])
	}
	switch {
	case plain:
		return s
	case strings.Contains(s, `"`):
		return "'" + s + "'" // no word holds both kinds of quote: the language has no escapes
	}
	return `"` + s + `"`
}

// wordByte tells whether a word that holds c needs no quotes.
func wordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("*/@.-_:$~[]", c) >= 0
}

// The types of tokens: punctuation and operators stand for themselves.
const (
	tokEnd  = 'e'
	tokWord = 'w'
	tokLet  = 'l'
	tokIn   = 'i'
	tokSet  = 's'
)

var keywords = map[string]byte{
	"let": tokLet, "in": tokIn, "set": tokSet, "union": '+', "except": '-', "intersect": '^',
}

type token struct {
	typ      byte
	text     string // of a word, without its quotes
	quoted   bool
	pos, end int
}

// An Error is what is wrong with an expression, or with a place in it.
type Error struct {
	Query    string // the whole expression
	Pos, End int    // byte offsets of the place; both len(Query) where something is missing at its end
	Msg      string
	Hints    []string // each on a line of its own
	Syntax   bool     // the expression is at fault, and not what it is about
	// Unknown is a word that is none of Candidates: whoever shows the error may tell which one was meant.
	Unknown    string
	Candidates []string
}

// Error is the message, the line of the expression with a caret under the place, and the hints.
func (e *Error) Error() string {
	pos := min(max(e.Pos, 0), len(e.Query))
	from := strings.LastIndexByte(e.Query[:pos], '\n') + 1
	line, _, _ := strings.Cut(e.Query[from:], "\n")
	width := utf8.RuneCountInString(e.Query[pos:min(max(e.End, pos), from+len(line))])
	// Where a line is long, the part around the place is enough.
	const most = 120
	before, shown := e.Query[from:pos], line
	if utf8.RuneCountInString(line) > most {
		runes := []rune(before)
		skip := max(0, len(runes)-most/2)
		before = string(runes[skip:])
		all := []rune(line)[skip:]
		shown = string(all[:min(len(all), most)])
		if skip > 0 {
			before, shown = "…"+before, "…"+shown
		}
		if len(all) > most {
			shown += "…"
		}
		width = min(width, most/2)
	}
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, s)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n    %s\n    %s%s", e.Msg, clean(shown), strings.Repeat(" ", utf8.RuneCountInString(before)), strings.Repeat("^", max(1, width)))
	for _, h := range e.Hints {
		b.WriteString("\n    " + h)
	}
	return b.String()
}

// maxNesting bounds how deep parentheses, functions and lets stand in one another.
const maxNesting = 500

type parser struct {
	src   string
	at    int // where the next token is looked for
	tok   token
	depth int
}

// failure carries an *Error up to Parse.
type failure struct{ err *Error }

// Parse reads an expression of Bazel's query language:
//
//	expr = word | "let" name "=" expr "in" expr | "(" expr ")" | "set" "(" {word} ")"
//	     | word "(" [arg {"," arg}] ")"
//	     | expr op expr          op is + - ^ union except intersect, left-associative, of equal precedence
//
// A word is a run of letters, digits and */@.-_:$~[] that begins with neither - nor *, or anything between two quotes of one
// kind. The number and types of a function's arguments are checked. An error is an [*Error].
func Parse(src string) (expr Expr, err error) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			expr, err = nil, f.err
		}
	}()
	p := &parser{src: src}
	if !utf8.ValidString(src) {
		p.fail(0, 0, "the expression is not valid UTF-8")
	}
	p.next()
	x := p.expr()
	if p.tok.typ != tokEnd {
		hint := "join expressions with +, - or ^"
		if p.tok.typ == '=' || p.tok.typ == ')' || p.tok.typ == ',' {
			hint = "quote words that hold other characters than letters, digits and */@.-_:$~[]"
		}
		p.fail(p.tok.pos, p.tok.end, fmt.Sprintf("unexpected %s after the expression", p.describe()), hint)
	}
	return x, nil
}

func (p *parser) fail(pos, end int, msg string, hints ...string) {
	panic(failure{&Error{Query: p.src, Pos: pos, End: end, Msg: msg, Hints: slices.DeleteFunc(hints, func(h string) bool { return h == "" }), Syntax: true}})
}

func (p *parser) describe() string {
	if p.tok.typ == tokEnd {
		return "end of the expression"
	}
	return p.src[p.tok.pos:p.tok.end]
}

// next reads one token.
func (p *parser) next() {
	for p.at < len(p.src) && strings.IndexByte(" \t\r\n", p.src[p.at]) >= 0 {
		p.at++
	}
	from := p.at
	if from == len(p.src) {
		p.tok = token{typ: tokEnd, pos: from, end: from}
		return
	}
	switch c := p.src[from]; {
	case strings.IndexByte("()+-^=,", c) >= 0:
		p.at++
		p.tok = token{typ: c, pos: from, end: p.at}
	case c == '"' || c == '\'':
		n := strings.IndexByte(p.src[from+1:], c)
		if n < 0 {
			p.fail(from, len(p.src), "this quote is not closed", fmt.Sprintf("end the word with %c", c))
		}
		p.at = from + n + 2
		p.tok = token{typ: tokWord, text: p.src[from+1 : p.at-1], quoted: true, pos: from, end: p.at}
	case wordByte(c) && c != '*':
		for p.at < len(p.src) && wordByte(p.src[p.at]) {
			p.at++
		}
		text := p.src[from:p.at]
		p.tok = token{typ: tokWord, text: text, pos: from, end: p.at}
		if typ := keywords[text]; typ != 0 {
			p.tok.typ = typ
		}
	default:
		_, size := utf8.DecodeRuneInString(p.src[from:])
		p.fail(from, from+size, fmt.Sprintf("unexpected character %q", p.src[from:from+size]), "quote words that hold it")
	}
}

func (p *parser) expect(typ byte, what string) token {
	t := p.tok
	if t.typ != typ {
		p.fail(t.pos, t.end, fmt.Sprintf("want %s, not %s", what, p.describe()))
	}
	p.next()
	return t
}

func (p *parser) expr() Expr {
	if p.depth++; p.depth > maxNesting {
		p.fail(p.tok.pos, p.tok.end, fmt.Sprintf("expressions stand in one another more than %d deep", maxNesting))
	}
	defer func() { p.depth-- }()
	first := p.primary()
	var rest []Term
	for p.tok.typ == '+' || p.tok.typ == '-' || p.tok.typ == '^' {
		op := p.tok.typ
		p.next()
		rest = append(rest, Term{op, p.primary()})
	}
	if rest == nil {
		return first
	}
	return &Chain{first, rest}
}

func (p *parser) primary() Expr {
	t := p.tok
	switch t.typ {
	case '(':
		p.next()
		x := p.expr()
		p.closing(t)
		return x
	case tokLet:
		p.next()
		name := p.expect(tokWord, "a name after let")
		if !identifier(name.text) {
			p.fail(name.pos, name.end, fmt.Sprintf("%q is no name for a variable", name.text), "a name is letters, digits and _, and does not begin with a digit")
		}
		p.expect('=', "=")
		value := p.expr()
		p.expect(tokIn, "in")
		return &Let{name.text, value, p.expr(), t.pos}
	case tokSet:
		p.next()
		open := p.expect('(', "( after set")
		s := &Set{Words: []*Word{}, Pos: t.pos}
		for p.tok.typ == tokWord {
			s.Words = append(s.Words, p.word())
		}
		if p.tok.typ == ',' {
			p.fail(p.tok.pos, p.tok.end, "the words of set() stand without commas between them")
		}
		s.End = p.tok.end
		p.closing(open)
		return s
	case tokWord:
		w := p.word()
		if p.tok.typ == '(' && !t.quoted {
			return p.call(w)
		}
		return w
	}
	hint := ""
	if t.typ == '-' || t.typ == '*' {
		hint = "quote a word that begins with it"
	}
	p.fail(t.pos, t.end, fmt.Sprintf("want an expression, not %s", p.describe()), hint)
	return nil
}

// closing reads the parenthesis that ends what open began.
func (p *parser) closing(open token) {
	if p.tok.typ == tokEnd {
		p.fail(open.pos, open.end, "this parenthesis is not closed")
	}
	p.expect(')', ")")
}

func (p *parser) word() *Word {
	w := &Word{p.tok.text, p.tok.pos, p.tok.end}
	p.next()
	return w
}

func identifier(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || i > 0 && '0' <= c && c <= '9') {
			return false
		}
	}
	return s != ""
}

// call reads the arguments of the function that w names.
func (p *parser) call(w *Word) Expr {
	f, ok := functions[w.Text]
	if !ok {
		names := slices.Sorted(maps.Keys(functions))
		panic(failure{&Error{
			Query: p.src, Pos: w.Pos, End: w.End, Msg: "there is no function " + w.Text, Syntax: true,
			Hints: []string{"functions are " + strings.Join(names, ", ")}, Unknown: w.Text, Candidates: append(names, "set"),
		}})
	}
	open := p.tok
	p.next()
	c := &Call{Func: w.Text, Pos: w.Pos}
	for i := 0; ; i++ {
		if p.tok.typ == ')' && i >= f.needed() {
			break
		}
		if p.tok.typ == tokEnd {
			p.closing(open)
		}
		if i > 0 && (i < len(f.params) || p.tok.typ != ',') {
			if p.tok.typ == ')' {
				p.fail(p.tok.pos, p.tok.end, fmt.Sprintf("%s needs %s", w.Text, f.params[i]), f.usage(w.Text))
			}
			p.expect(',', "a comma or )")
		}
		if i == len(f.params) {
			p.fail(p.tok.pos, p.tok.end, fmt.Sprintf("%s takes no more arguments", w.Text), f.usage(w.Text))
		}
		if p.tok.typ == ')' {
			p.fail(p.tok.pos, p.tok.end, fmt.Sprintf("%s needs %s", w.Text, f.params[i]), f.usage(w.Text))
		}
		switch f.params[i] {
		case paramExpr:
			c.Args = append(c.Args, p.expr())
		default:
			if p.tok.typ != tokWord {
				p.fail(p.tok.pos, p.tok.end, fmt.Sprintf("want %s, not %s", f.params[i], p.describe()), f.usage(w.Text))
			}
			arg := p.word()
			if n, err := strconv.Atoi(arg.Text); f.params[i].number() && (err != nil || n < 0) {
				p.fail(arg.Pos, arg.End, fmt.Sprintf("want %s, not %s", f.params[i], arg), f.usage(w.Text))
			}
			c.Args = append(c.Args, arg)
		}
	}
	c.End = p.tok.end
	p.next()
	return c
}

// words calls f for every word that can be a target pattern.
func words(x Expr, f func(*Word)) {
	switch x := x.(type) {
	case *Word:
		if !strings.HasPrefix(x.Text, "$") {
			f(x)
		}
	case *Let:
		words(x.Value, f)
		words(x.Body, f)
	case *Chain:
		words(x.First, f)
		for _, t := range x.Rest {
			words(t.X, f)
		}
	case *Set:
		for _, w := range x.Words {
			words(w, f)
		}
	case *Call:
		for i, a := range x.Args {
			if functions[x.Func].params[i] == paramExpr {
				words(a, f)
			}
		}
	}
}

// calls tells whether x calls function name.
func calls(x Expr, name string) bool {
	switch x := x.(type) {
	case *Let:
		return calls(x.Value, name) || calls(x.Body, name)
	case *Chain:
		return calls(x.First, name) || slices.ContainsFunc(x.Rest, func(t Term) bool { return calls(t.X, name) })
	case *Call:
		return x.Func == name || slices.ContainsFunc(x.Args, func(a Expr) bool { return calls(a, name) })
	}
	return false
}
