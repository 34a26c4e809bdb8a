package message

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// maxDepth is how many arrays and objects json_decode, at its default depth of 512, lets stand in one another.
const maxDepth = 511

// scanner reads JSON tokens. The text is known to be UTF-8.
type scanner struct {
	name  string
	data  []byte
	text  string // the same, for substrings
	pos   int
	depth int
	arena []byte // unescaped strings; a full one is left to its strings, and another begun
}

// fail is an error at pos.
func (s *scanner) fail(pos int, what string) *Error {
	before := s.data[:pos]
	return &Error{
		File: s.name,
		Line: bytes.Count(before, newline) + 1,
		Col:  pos - bytes.LastIndexByte(before, '\n'),
		What: what,
	}
}

// checkUTF8 refuses text that is not UTF-8, or begins with a byte order mark.
func (s *scanner) checkUTF8() error {
	if strings.HasPrefix(s.text, "\uFEFF") {
		return s.fail(0, "the file begins with a byte order mark, which PHP does not take for JSON; save it without")
	}
	if utf8.Valid(s.data) {
		return nil
	}
	for i := 0; ; {
		r, n := utf8.DecodeRune(s.data[i:])
		if r == utf8.RuneError && n == 1 {
			return s.fail(i, fmt.Sprintf("byte 0x%02x is not UTF-8", s.data[i]))
		}
		i += n
	}
}

// peek is the next byte, or 0 at the end, which no token begins with.
func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

// space skips white space.
func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// unexpected is an error at the next byte: not what was wanted.
func (s *scanner) unexpected(wanted string) error {
	if s.pos >= len(s.data) {
		return s.fail(s.pos, "the file ends here; expected "+wanted)
	}
	r, _ := utf8.DecodeRune(s.data[s.pos:])
	return s.fail(s.pos, fmt.Sprintf("unexpected %q; expected %s", r, wanted))
}

// end refuses what follows the value.
func (s *scanner) end() error {
	if s.space(); s.pos < len(s.data) {
		return s.unexpected("the end of the file")
	}
	return nil
}

// enter counts an array or object that begins at the next byte, and steps over its first byte.
func (s *scanner) enter() error {
	if s.depth++; s.depth > maxDepth {
		return s.fail(s.pos, fmt.Sprintf("more than %d arrays and objects within one another", maxDepth))
	}
	s.pos++
	s.space()
	return nil
}

// members reads an object; each reads one member, from its key to the end of its value.
func (s *scanner) members(each func() error) error {
	if err := s.enter(); err != nil {
		return err
	}
	for first := true; ; first = false {
		switch c := s.peek(); {
		case c == '"':
		case c == '}' && first:
			return s.leave()
		case c == '}':
			return s.fail(s.pos, "unexpected '}' after a comma; remove the comma")
		default:
			return s.unexpected("a key in double quotes")
		}
		if err := each(); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case '}':
			return s.leave()
		default:
			return s.unexpected("',' or '}'")
		}
	}
}

// elements reads an array; each reads one element.
func (s *scanner) elements(each func() error) error {
	if err := s.enter(); err != nil {
		return err
	}
	if s.peek() == ']' {
		return s.leave()
	}
	for {
		if err := each(); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			if s.space(); s.peek() == ']' {
				return s.fail(s.pos, "unexpected ']' after a comma; remove the comma")
			}
		case ']':
			return s.leave()
		default:
			return s.unexpected("',' or ']'")
		}
	}
}

// leave steps over the last byte of an array or object.
func (s *scanner) leave() error {
	s.depth--
	s.pos++
	return nil
}

// key reads a member's key and stops at its value.
func (s *scanner) key() (string, error) {
	k, err := s.str()
	if err != nil {
		return "", err
	}
	if s.space(); s.peek() != ':' {
		return "", s.unexpected("':'")
	}
	s.pos++
	s.space()
	return k, nil
}

// skip reads a value and forgets it.
func (s *scanner) skip() error {
	switch s.peek() {
	case '"':
		_, err := s.str()
		return err
	case '{':
		return s.members(func() error {
			if _, err := s.key(); err != nil {
				return err
			}
			return s.skip()
		})
	case '[':
		return s.elements(s.skip)
	}
	_, err := s.scalar()
	return err
}

// scalar reads null, a boolean or a number, as nil, bool, int64 or float64.
func (s *scanner) scalar() (any, error) {
	switch c := s.peek(); {
	case c == 'n' && s.literal("null"):
		return nil, nil
	case c == 't' && s.literal("true"):
		return true, nil
	case c == 'f' && s.literal("false"):
		return false, nil
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	return nil, s.unexpected("a value")
}

// literal steps over word if it is next.
func (s *scanner) literal(word string) bool {
	if !strings.HasPrefix(s.text[s.pos:], word) {
		return false
	}
	s.pos += len(word)
	return true
}

// number reads a number: an int64 if it is written as an integer and is one, else a float64, perhaps infinite.
func (s *scanner) number() (any, error) {
	start := s.pos
	if s.peek() == '-' {
		s.pos++
	}
	whole := true
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return nil, s.unexpected("a digit")
	}
	if s.peek() == '.' {
		whole = false
		if s.pos++; !s.digits() {
			return nil, s.unexpected("a digit")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		whole = false
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return nil, s.unexpected("a digit")
		}
	}
	text := s.text[start:s.pos]
	if whole {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
	}
	// The error of a number out of range comes with infinity or zero, which is what PHP takes it for.
	f, _ := strconv.ParseFloat(text, 64)
	return f, nil
}

// digits steps over digits, and tells whether there were any.
func (s *scanner) digits() bool {
	start := s.pos
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.pos++
	}
	return s.pos > start
}

// str reads a string. One without escapes is a piece of the text.
func (s *scanner) str() (string, error) {
	start := s.pos + 1
	end := stop(s.data, start)
	if end < len(s.data) && s.data[end] == '"' {
		s.pos = end + 1
		return s.text[start:end], nil
	}
	return s.escaped(start, end)
}

// escaped reads the rest of a string that begins at start and is no plain text from at on.
func (s *scanner) escaped(start, at int) (string, error) {
	begin := s.pos
	// An unescaped string is no longer than it was, and each piece of it is written after a look at what is free.
	from := len(s.arena)
	for {
		piece := s.text[start:at]
		if cap(s.arena)-len(s.arena) < len(piece)+utf8.UTFMax {
			from = s.renew(from, len(piece))
		}
		s.arena = append(s.arena, piece...)
		if at >= len(s.data) {
			return "", s.fail(begin, "the string that begins here has no end")
		}
		switch c := s.data[at]; c {
		case '"':
			s.pos = at + 1
			return alias(s.arena[from:]), nil
		case '\\':
			r, n := unescape(s.text[at:])
			if n == 0 {
				return "", s.fail(at, "not an escape sequence of JSON")
			}
			if r < 0 {
				return "", s.fail(at, "half of a surrogate pair; write the character itself, or both halves")
			}
			s.arena = utf8.AppendRune(s.arena, r)
			start = at + n
		default:
			return "", s.fail(at, fmt.Sprintf("control character 0x%02x in a string; write it as an escape sequence", c))
		}
		at = stop(s.data, start)
	}
}

// renew begins another arena with what the present one holds from from on, and room for n bytes and a character.
// It returns where that is now.
func (s *scanner) renew(from, n int) int {
	begun := s.arena[from:]
	need := len(begun) + n + utf8.UTFMax
	// Half of what is left of the file holds the escaped strings of most.
	s.arena = make([]byte, 0, max(2*need, min((len(s.data)-s.pos)/2, 1<<16)))
	s.arena = append(s.arena, begun...)
	return 0
}

// alias is b as a string, without a copy: b must not change while the string is in use.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// unescape reads the escape sequence that t begins with. n is its length, or 0 if it is none; the character is negative if
// it is an unpaired surrogate.
func unescape(t string) (r rune, n int) {
	if len(t) < 2 {
		return 0, 0
	}
	switch t[1] {
	case '"', '\\', '/':
		return rune(t[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := hex4(t)
		switch {
		case !ok:
			return 0, 0
		case r < 0xd800 || r > 0xdfff:
			return r, 6
		case r > 0xdbff:
			return -1, 6
		}
		low, ok := hex4(t[6:])
		if !ok || low < 0xdc00 || low > 0xdfff {
			return -1, 6
		}
		return 0x10000 + (r-0xd800)<<10 + (low - 0xdc00), 12
	}
	return 0, 0
}

// hex4 reads the four digits of the \u that t begins with.
func hex4(t string) (rune, bool) {
	if len(t) < 6 || t[0] != '\\' || t[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range []byte(t[2:6]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// stop is the index of the first byte from i on that no plain text holds: a quote, a backslash, a control character; else
// the length. It looks at eight bytes at once: x-1 &^ x has the high bit of a byte set if the byte is zero, and above
// that perhaps of others, so the lowest set bit is right.
func stop(data []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(data); i += 8 {
		w := binary.LittleEndian.Uint64(data[i:])
		quote, slash := w^ones*'"', w^ones*'\\'
		if hit := ((quote-ones)&^quote | (slash-ones)&^slash | (w-ones*' ')&^w) & highs; hit != 0 {
			return i + bits.TrailingZeros64(hit)/8
		}
	}
	for ; i < len(data); i++ {
		if c := data[i]; c == '"' || c == '\\' || c < ' ' {
			break
		}
	}
	return i
}
