package php

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Options are what [Parse] needs to know beyond the source.
type Options struct {
	// Constants are those that are defined before the file is read, such as NS_TALK, by name; one of a namespace with it,
	// as in Foo\BAR. true, false, null, INF, NAN and MEDIAWIKI are known without being here; others of PHP's own are not.
	Constants map[string]Value
	// Only names the variables that are wanted; all are when it is empty. Assignments to others are passed over where they
	// are plainly literals: their brackets and strings must match, but they are not evaluated, and an error in them may go
	// unseen.
	Only []string
}

// A File is what a PHP file defines.
type File struct {
	// Vars are the variables that are set at its end, by name, in the order of their first assignment. The constants and
	// static properties of a class are among them, by their names.
	Vars *Array
	// Constants are the names of all constants that the file looked up, sorted: Vars depends on the source, and on what
	// Options.Constants has under these names, which may be nothing for a name in defined().
	Constants []string
}

// An Error refuses a source that is not PHP, or that is more than literals. The way out for the latter is to write literals
// there, or to have PHP evaluate the file. Columns count bytes from 1.
type Error struct {
	File      string
	Line, Col int
	What      string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.What) }

const (
	// maxDepth bounds how deep arrays, parentheses and blocks may nest.
	maxDepth = 200
	// maxCopied bounds the array entries that reading variables copies.
	maxCopied = 1 << 20
	// maxJoined bounds the bytes that concatenation writes.
	maxJoined = 1 << 26
	// maxDeferred bounds how many members of a class may refer to a constant below them.
	maxDeferred = 100
)

// Parse evaluates PHP source, strictly: what it accepts, PHP 8.2 accepts too when it includes the file in a function, with
// the same variables at its end, and nothing is printed. It evaluates
//
//   - assignments to variables and elements of them ($x, $x['a']['b'], $x[]), unset(), and reading these again;
//   - arrays, strings of all kinds without variables in them, numbers, true, false, null, constants;
//   - concatenation, + of arrays and integers, - of integers, signs and parentheses;
//   - define(), under if ( !defined() ) too, and guards of the kind of if ( !defined( 'MEDIAWIKI' ) ) { exit; };
//   - declare(strict_types), namespace, use;
//   - one class made of constants and static properties, which may use constants of that class by self.
//
// In a namespace, a constant that is not known there is the global one, as in PHP; functions and constants that other files add to the
// namespace are not seen. Classes of other files are not seen either: one of the same name is an error of PHP's alone.
// All else is an [*Error], which begins with name and the line: a constant that is not known, reading what was not set,
// an operation at which PHP would warn. Parse never panics; nesting, copies and lengths are bounded.
func Parse(name string, src []byte, opt Options) (*File, error) {
	p := &parser{name: name, s: string(src), opt: opt}
	if len(opt.Only) > 0 {
		f, err := p.file()
		if !errors.Is(err, errIntricate) {
			return f, err
		}
		// What is wanted may depend on what was passed over.
		p = &parser{name: name, s: p.s, opt: opt, whole: true}
	}
	return p.file()
}

// errIntricate tells that an assignment cannot be passed over.
var errIntricate = errors.New("php: more than a literal")

// A parser evaluates as it reads.
type parser struct {
	name string
	s    string
	i    int // the next byte of s
	opt  Options

	whole bool // evaluate all, though only some is wanted

	vars      Array
	passed    map[string]bool // variables that were passed over
	defined   map[string]Value
	asked     map[string]bool // constants that were looked up
	namespace string          // with a \ at its end
	imported  map[string]bool // names of use, in lower case
	stage     stage
	dry       bool // in a block that is not executed

	class      string           // the class, in lower case
	members    map[string]Value // its constants while it is read
	properties Array            // its constants and properties
	early      bool             // whether self:: met a constant that is not there yet

	depth  int
	copied int
	joined int
	stack  []entry // of the arrays being read
}

// A stage tells which statements may still come: some must be the first.
type stage int

const (
	atStart stage = iota
	afterDeclare
	afterNamespace // or use
	inBody
)

// file reads all.
func (p *parser) file() (*File, error) {
	if len(p.s) < 5 || !strings.EqualFold(p.s[:5], "<?php") {
		return nil, p.errorf(0, "does not begin with <?php")
	}
	if p.i = 5; p.i < len(p.s) && !isSpace(p.s[p.i]) {
		return nil, p.errorf(5, "no space behind <?php")
	}
	for {
		p.space()
		if p.i == len(p.s) {
			break
		}
		if strings.HasPrefix(p.s[p.i:], "?>") {
			if rest := p.s[p.i+2:]; rest != "" && rest != "\n" && rest != "\r\n" && rest != "\r" {
				return nil, p.errorf(p.i, "text behind ?> would be printed; remove it, and best the ?> as well")
			}
			break
		}
		if err := p.statement(); err != nil {
			return nil, err
		}
	}
	for k, v := range p.properties.All() {
		if _, ok := p.vars.Get(k); ok {
			return nil, p.errorf(len(p.s), "both a variable and a member of the class are called %s", k.Str)
		}
		p.vars.Set(k, v)
	}
	f := &File{Vars: &p.vars, Constants: slices.Sorted(maps.Keys(p.asked))}
	if len(p.opt.Only) > 0 {
		f.Vars = &Array{}
		for k, v := range p.vars.All() {
			if p.wants(k.Str) {
				f.Vars.Set(k, v)
			}
		}
	}
	return f, nil
}

// wants tells whether the variable is asked for.
func (p *parser) wants(name string) bool {
	return len(p.opt.Only) == 0 || slices.Contains(p.opt.Only, name)
}

// errorf is an error at byte i of the source.
func (p *parser) errorf(i int, format string, args ...any) *Error {
	i = min(i, len(p.s))
	line, start := 1, 0
	for j := range i {
		// A lone return ends a line too.
		if c := p.s[j]; c == '\n' || c == '\r' && !(j+1 < len(p.s) && p.s[j+1] == '\n') {
			line++
			start = j + 1
		}
	}
	return &Error{p.name, line, i - start + 1, fmt.Sprintf(format, args...)}
}

// unexpected is the error that what is next should be something else.
func (p *parser) unexpected(want string) *Error {
	rest := p.s[p.i:]
	switch {
	case rest == "":
		return p.errorf(p.i, "the file ends where %s should be", want)
	case strings.HasPrefix(rest, "/*"):
		return p.errorf(p.i, "comment without end")
	case isNameStart(rest[0]):
		rest = rest[:nameLen(rest)]
		rest = rest[:min(len(rest), 40)]
	case rest[0] < 0x20 || rest[0] == 0x7f:
		return p.errorf(p.i, "byte %#02x where %s should be", rest[0], want)
	default:
		rest = rest[:1]
	}
	return p.errorf(p.i, "%s where %s should be: only literals are understood", rest, want)
}

// space passes space and comments. A comment that does not end stays.
func (p *parser) space() {
	for p.i < len(p.s) {
		switch c := p.s[p.i]; c {
		case ' ', '\t', '\n', '\r':
			p.i++
		case '#', '/':
			n := commentLen(p.s[p.i:])
			if n == 0 {
				return
			}
			p.i += n
		default:
			return
		}
	}
}

// commentLen is the length of the comment that s begins with, 0 where there is none or it does not end. A comment of one line ends
// before ?> too.
func commentLen(s string) int {
	switch {
	case s[0] == '/' && len(s) > 1 && s[1] == '*':
		n := strings.Index(s[2:], "*/")
		if n < 0 {
			return 0
		}
		return n + 4
	case s[0] == '/' && (len(s) == 1 || s[1] != '/'):
		return 0
	case s[0] == '#' && len(s) > 1 && s[1] == '[': // an attribute
		return 0
	}
	for n := range len(s) {
		if c := s[n]; c == '\n' || c == '\r' || c == '?' && strings.HasPrefix(s[n:], "?>") {
			return n
		}
	}
	return len(s)
}

// peek passes space and tells the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.i < len(p.s) && p.s[p.i] > '/' {
		return p.s[p.i]
	}
	p.space()
	if p.i == len(p.s) {
		return 0
	}
	return p.s[p.i]
}

// accept passes c if it is next.
func (p *parser) accept(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.i++
	return true
}

// expect passes c.
func (p *parser) expect(c byte) error {
	if !p.accept(c) {
		return p.unexpected(string(rune(c)))
	}
	return nil
}

// end passes the ; of a statement. ?> will do as well.
func (p *parser) end() error {
	switch p.peek() {
	case ';':
		p.i++
		return nil
	case '?':
		if strings.HasPrefix(p.s[p.i:], "?>") {
			return nil
		}
	}
	return p.unexpected(";")
}

// ident passes an identifier.
func (p *parser) ident(what string) (string, error) {
	if !isNameStart(p.peek()) {
		return "", p.unexpected(what)
	}
	n := nameLen(p.s[p.i:])
	p.i += n
	return p.s[p.i-n : p.i], nil
}

// qualified passes a name that may have \ in it and before it.
func (p *parser) qualified(what string) (string, error) {
	p.peek()
	start := p.i
	rest := strings.TrimPrefix(p.s[start:], `\`)
	p.i = len(p.s) - len(rest)
	for {
		if p.i == len(p.s) || !isNameStart(p.s[p.i]) {
			return "", p.unexpected(what)
		}
		p.i += nameLen(p.s[p.i:])
		if p.i == len(p.s) || p.s[p.i] != '\\' {
			return p.s[start:p.i], nil
		}
		p.i++
	}
}

// variable passes the name of a variable.
func (p *parser) variable() (string, error) {
	start := p.i
	if p.peek() != '$' {
		return "", p.unexpected("a variable")
	}
	p.i++
	if p.i == len(p.s) || !isNameStart(p.s[p.i]) {
		return "", p.unexpected("the name of a variable")
	}
	name, err := p.ident("")
	if err == nil && special[name] {
		err = p.errorf(start, "$%s is not of this file", name)
	}
	return name, err
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isNameStart(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 }

// nameLen is the length of the identifier that s begins with.
func nameLen(s string) int {
	n := 0
	for n < len(s) && (isNameStart(s[n]) || isDigit(s[n])) {
		n++
	}
	return n
}

// special variables exist without being set, or cannot be.
var special = set("this GLOBALS _GET _POST _COOKIE _FILES _SERVER _ENV _REQUEST _SESSION")

// reserved are PHP's words that name no constant and no class, in lower case.
var reserved = set(`
abstract and array as bool break callable case catch class clone const continue declare default die do echo
else elseif empty binary boolean double integer real enddeclare endfor endforeach endif endswitch endwhile
enum eval exit extends false final finally float fn for foreach from function global goto if implements
include include_once instanceof insteadof int interface isset iterable list match mixed namespace never new
null object or parent print private protected public readonly require require_once return self static string
switch throw trait true try unset use var void while xor yield __halt_compiler __class__ __dir__ __file__
__function__ __line__ __method__ __namespace__ __trait__`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}
