package gen

import (
	"bytes"
	"strings"
)

// A use is one call of isLoaded with a constant name.
type use struct {
	name   string
	offset int // of the name's quote
}

// isLoadedCalls returns the calls ->isLoaded( 'X' ), ?->isLoaded( 'X' ) and ::isLoaded( 'X' ) of a PHP file, in order. Whose
// method it is cannot be known without types: a name that no component has is no dependency.
//
// Comments, text outside of <?php, and what strings only say do not count; what a string evaluates, "{$r->isLoaded( 'X' )}",
// does. A name that is put together is unknown and left out.
func isLoadedCalls(src []byte) []use {
	// Nearly all files end here.
	if !containsFold(src, "isloaded") {
		return nil
	}
	s := &phpScanner{src: src}
	s.html()
	return s.uses
}

// containsFold tells whether src holds word, which is lower case ASCII, in any case.
func containsFold(src []byte, word string) bool {
	for i := range len(src) - len(word) + 1 {
		if src[i]|0x20 == word[0] && strings.EqualFold(string(src[i:i+len(word)]), word) {
			return true
		}
	}
	return false
}

// phpScanner finds the calls. It knows as much of PHP's lexical grammar as tells code from comments and strings, and follows the
// tokens of a call with a small state machine.
type phpScanner struct {
	src   []byte
	pos   int
	state callState
	arg   use
	uses  []use
}

// callState is how much of a call has been seen.
type callState int

const (
	nothing  callState = iota
	arrow              // -> or ::
	method             // isLoaded
	open               // (
	argument           // 'X'
)

// A token is what the machine tells apart. Names and constant strings have their text.
type token struct {
	kind   tokenKind
	text   string
	offset int
}

type tokenKind int

const (
	other tokenKind = iota
	access
	name
	str
	lparen
	comma
	rparen
)

// token moves the machine.
func (s *phpScanner) token(t token) {
	next := nothing
	switch {
	case t.kind == access:
		next = arrow
	case s.state == arrow && t.kind == name && strings.EqualFold(t.text, "isLoaded"):
		next = method
	case s.state == method && t.kind == lparen:
		next = open
	case s.state == open && t.kind == str:
		s.arg = use{t.text, t.offset}
		next = argument
	case s.state == argument && (t.kind == comma || t.kind == rparen):
		s.uses = append(s.uses, s.arg)
	}
	s.state = next
}

// html passes over what is not PHP, and scans what is.
func (s *phpScanner) html() {
	for {
		n := bytes.Index(s.src[s.pos:], []byte("<?"))
		if n < 0 {
			s.pos = len(s.src)
			return
		}
		s.pos += n + 2
		switch rest := s.src[s.pos:]; {
		case bytes.HasPrefix(rest, []byte("=")):
			s.pos++
		case len(rest) >= 3 && bytes.EqualFold(rest[:3], []byte("php")):
			s.pos += 3
		default:
			continue
		}
		s.state = nothing
		s.code(false)
	}
}

// code scans PHP up to ?> or the end, or, as the code in a string is, up to the brace that closes it.
func (s *phpScanner) code(inString bool) {
	depth := 0
	for s.pos < len(s.src) {
		c, rest := s.src[s.pos], s.src[s.pos:]
		start := s.pos
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			s.pos++
		case bytes.HasPrefix(rest, []byte("?>")):
			s.pos += 2
			s.token(token{kind: other})
			if inString {
				continue
			}
			return
		case c == '#' && !bytes.HasPrefix(rest, []byte("#[")), bytes.HasPrefix(rest, []byte("//")):
			s.lineComment()
		case bytes.HasPrefix(rest, []byte("/*")):
			s.skipPast("*/", 2)
		case c == '\'':
			text, ok := s.single()
			s.literal(text, ok, start)
		case c == '"':
			text, ok := s.double()
			s.literal(text, ok, start)
		case c == '`':
			s.pos++
			s.template(func() int { return btoi(s.src[s.pos] == '`') })
			s.token(token{kind: other})
		case bytes.HasPrefix(rest, []byte("<<<")):
			if !s.heredoc() {
				s.pos += 3
			}
			s.token(token{kind: other})
		case isNameByte(c):
			for s.pos < len(s.src) && isNameByte(s.src[s.pos]) {
				s.pos++
			}
			s.token(token{kind: name, text: string(s.src[start:s.pos])})
		case bytes.HasPrefix(rest, []byte("->")), bytes.HasPrefix(rest, []byte("::")):
			s.pos += 2
			s.token(token{kind: access})
		default:
			s.pos++
			switch c {
			case '{':
				depth++
			case '}':
				if depth--; inString && depth < 0 {
					s.token(token{kind: other})
					return
				}
			}
			kinds := map[byte]tokenKind{'(': lparen, ',': comma, ')': rparen}
			s.token(token{kind: kinds[c]})
		}
	}
}

func (s *phpScanner) literal(text string, constant bool, offset int) {
	t := token{kind: other}
	if constant {
		t = token{str, text, offset}
	}
	s.token(t)
}

// lineComment passes over a comment that ends with its line, or before ?>.
func (s *phpScanner) lineComment() {
	for ; s.pos < len(s.src); s.pos++ {
		if c := s.src[s.pos]; c == '\n' || c == '\r' || bytes.HasPrefix(s.src[s.pos:], []byte("?>")) {
			return
		}
	}
}

func (s *phpScanner) skipPast(end string, from int) {
	s.pos = min(s.pos+from, len(s.src))
	if n := bytes.Index(s.src[s.pos:], []byte(end)); n >= 0 {
		s.pos += n + len(end)
		return
	}
	s.pos = len(s.src)
}

// single reads a string in single quotes.
func (s *phpScanner) single() (text string, constant bool) {
	var b []byte
	for s.pos++; s.pos < len(s.src); s.pos++ {
		c := s.src[s.pos]
		if c == '\'' {
			s.pos++
			return string(b), true
		}
		if c == '\\' && s.pos+1 < len(s.src) && (s.src[s.pos+1] == '\\' || s.src[s.pos+1] == '\'') {
			s.pos++
			c = s.src[s.pos]
		}
		b = append(b, c)
	}
	return "", false
}

// double reads a string in double quotes. It is constant where it neither holds a variable nor an escape, which no name does.
func (s *phpScanner) double() (text string, constant bool) {
	s.pos++
	start := s.pos
	s.template(func() int { return btoi(s.src[s.pos] == '"') })
	body := s.src[start:max(start, s.pos-1)]
	return string(body), !bytes.ContainsAny(body, `\$`)
}

// template passes over the text of a string that is evaluated, and scans the code in it. end returns the length of what ends the
// string, if that is at s.pos.
func (s *phpScanner) template(end func() int) {
	before := s.state
	for s.pos < len(s.src) {
		rest := s.src[s.pos:]
		if n := end(); n > 0 {
			s.pos += n
			break
		}
		switch {
		case rest[0] == '\\':
			s.pos = min(s.pos+2, len(s.src))
		case bytes.HasPrefix(rest, []byte("{$")), bytes.HasPrefix(rest, []byte("${")):
			// The brace of "${" is passed with the dollar sign, that of "{$" alone.
			s.pos += 1 + btoi(rest[0] == '$')
			s.state = nothing
			s.code(true)
		default:
			s.pos++
		}
	}
	s.state = before
}

// heredoc passes over a heredoc or nowdoc, and tells whether one is there.
func (s *phpScanner) heredoc() bool {
	p := s.pos + 3
	for p < len(s.src) && (s.src[p] == ' ' || s.src[p] == '\t') {
		p++
	}
	var quote byte
	if p < len(s.src) && (s.src[p] == '\'' || s.src[p] == '"') {
		quote = s.src[p]
		p++
	}
	start := p
	for p < len(s.src) && isNameByte(s.src[p]) {
		p++
	}
	id := s.src[start:p]
	if len(id) == 0 {
		return false
	}
	if quote != 0 {
		if p >= len(s.src) || s.src[p] != quote {
			return false
		}
		p++
	}
	if p >= len(s.src) || s.src[p] != '\n' && s.src[p] != '\r' {
		return false
	}
	s.pos = p
	// The identifier ends the text where it begins a line, indented or not.
	end := func() int {
		if c := s.src[s.pos-1]; c != '\n' && c != '\r' {
			return 0
		}
		q := s.pos
		for q < len(s.src) && (s.src[q] == ' ' || s.src[q] == '\t') {
			q++
		}
		if !bytes.HasPrefix(s.src[q:], id) {
			return 0
		}
		q += len(id)
		if q < len(s.src) && isNameByte(s.src[q]) {
			return 0
		}
		return q - s.pos
	}
	if quote != '\'' {
		s.template(end)
		return true
	}
	for ; s.pos < len(s.src); s.pos++ {
		if n := end(); n > 0 {
			s.pos += n
			break
		}
	}
	return true
}

// isNameByte tells whether PHP allows c in an identifier. Digits are included: no token that matters begins with one.
func isNameByte(c byte) bool {
	return c == '_' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
