package php

import (
	"math"
	"strconv"
	"strings"
)

// expr reads an expression.
func (p *parser) expr() (Value, error) {
	v, err := p.signed()
	if err != nil {
		return nil, err
	}
	return p.operators(v)
}

// operators reads what is joined to v.
func (p *parser) operators(v Value) (Value, error) {
	v, err := p.sum(v)
	if err != nil || p.peek() != '.' {
		return v, err
	}
	var text []byte
	for {
		s, ok := ToString(v)
		if _, isFloat := v.(float64); isFloat || !ok {
			return nil, p.errorf(p.i, "an array or a float is joined to a string; PHP's result is not fixed")
		}
		if p.joined += len(s); p.joined > maxJoined {
			return nil, p.errorf(p.i, "strings too long")
		}
		text = append(text, s...)
		if p.peek() != '.' {
			return string(text), nil
		}
		if p.i++; p.i < len(p.s) && isDigit(p.s[p.i]) {
			return nil, p.unexpected("a string")
		}
		if v, err = p.signed(); err == nil {
			v, err = p.sum(v)
		}
		if err != nil {
			return nil, err
		}
	}
}

// sum reads what + and - join to v, from left to right.
func (p *parser) sum(v Value) (Value, error) {
	var err error
	for err == nil {
		op := p.peek()
		if op != '+' && op != '-' {
			break
		}
		at := p.i
		if p.i++; p.i < len(p.s) && p.s[p.i] == op {
			return nil, p.unexpected("a value")
		}
		var w Value
		if w, err = p.signed(); err == nil {
			v, err = p.add(at, op, v, w)
		}
	}
	return v, err
}

// add is v op w. It may change v, which is nobody else's.
func (p *parser) add(at int, op byte, v, w Value) (Value, error) {
	switch a := v.(type) {
	case *Array:
		if b, ok := w.(*Array); ok && op == '+' {
			plus(a, b)
			return a, nil
		}
	case int64:
		if b, ok := w.(int64); ok {
			if op == '-' && b != math.MinInt64 {
				b, op = -b, '+'
			}
			if sum := a + b; op == '+' && (sum > a) == (b > 0) {
				return sum, nil
			}
			return nil, p.errorf(at, "sum too large")
		}
	}
	return nil, p.errorf(at, "%c is understood for integers, and + for arrays", op)
}

// signed reads a value with signs before it.
func (p *parser) signed() (Value, error) {
	signs, minuses, start := 0, 0, p.i
	for c := p.peek(); c == '-' || c == '+'; c = p.peek() {
		start = p.i
		if p.i++; p.i < len(p.s) && p.s[p.i] == c {
			return nil, p.unexpected("a value")
		}
		signs++
		if c == '-' {
			minuses++
		}
	}
	v, err := p.primary()
	if err != nil || signs == 0 {
		return v, err
	}
	switch n := v.(type) {
	case int64:
		switch {
		case minuses > 0 && n == math.MinInt64:
			f := float64(n)
			if minuses%2 == 1 {
				f = -f
			}
			return f, nil
		case minuses%2 == 1:
			return -n, nil
		}
		return n, nil
	case float64:
		if minuses%2 == 1 {
			return -n, nil
		}
		return n, nil
	}
	return nil, p.errorf(start, "sign before what is no number")
}

// primary reads a value without operators.
func (p *parser) primary() (Value, error) {
	switch c := p.peek(); {
	case c == '\'':
		s, err := p.single()
		return s, err
	case c == '[':
		p.i++
		return p.array(']')
	case isDigit(c), c == '.' && p.i+1 < len(p.s) && isDigit(p.s[p.i+1]):
		return p.number()
	case isNameStart(c), c == '\\':
		return p.word()
	case c == '"':
		return p.double()
	case c == '$':
		return p.read()
	case c == '(':
		if p.depth >= maxDepth {
			return nil, p.errorf(p.i, "nested too deep")
		}
		p.i++
		p.depth++
		v, err := p.expr()
		p.depth--
		if err != nil {
			return nil, err
		}
		return v, p.expect(')')
	case c == '<' && strings.HasPrefix(p.s[p.i:], "<<<"):
		return p.heredoc()
	}
	return nil, p.unexpected("a value")
}

// array reads the rest of an array up to its bracket.
func (p *parser) array(bracket byte) (Value, error) {
	if p.depth >= maxDepth {
		return nil, p.errorf(p.i, "nested too deep")
	}
	p.depth++
	base := len(p.stack)
	next, low := int64(0), true
	list, full := true, false // full: the greatest integer is a key
	for {
		c := p.peek()
		if c == bracket {
			break
		}
		start := p.i
		e := entry{key: IntKey(next)}
		auto := true
		var err error
		if c == '\'' {
			// Nearly all keys and values are these. A key goes without being boxed as a Value.
			var s string
			if s, err = p.single(); err != nil {
				return nil, err
			}
			if p.peek() == '=' {
				e.key, auto = StringKey(s), false
			} else {
				e.val, err = p.operators(s)
			}
		} else {
			e.val, err = p.expr()
		}
		if err != nil {
			return nil, err
		}
		if p.peek() == '=' && strings.HasPrefix(p.s[p.i:], "=>") {
			if auto {
				auto = false
				if e.key, err = p.toKey(start, e.val); err != nil {
					return nil, err
				}
			}
			p.i += 2
			if e.val, err = p.expr(); err != nil {
				return nil, err
			}
		}
		if auto && full {
			return nil, p.errorf(start, "no integer is left for the key")
		}
		if e.key.IsInt {
			full = full || e.key.Int == math.MaxInt64
			list = list && e.key.Int == int64(len(p.stack)-base)
			next, low = following(e.key.Int, next, low)
		} else {
			list = false
		}
		p.stack = append(p.stack, e)
		if !p.accept(',') {
			break
		}
	}
	if err := p.expect(bracket); err != nil {
		return nil, err
	}
	p.depth--
	entries := p.stack[base:]
	p.stack = p.stack[:base]
	if !list {
		return arrayOf(entries, next, low), nil
	}
	a := &Array{vals: make([]Value, len(entries)), next: next}
	for i := range entries {
		a.vals[i] = entries[i].val
	}
	return a, nil
}

// word reads array(…) or a constant.
func (p *parser) word() (Value, error) {
	start := p.i
	name, err := p.qualified("a name")
	if err != nil {
		return nil, err
	}
	global := strings.TrimPrefix(name, `\`)
	if len(global) == 4 || len(global) == 5 {
		switch strings.ToLower(global) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		case "null":
			return nil, nil
		case "array":
			if len(name) == 5 && p.accept('(') {
				return p.array(')')
			}
		case "self":
			if len(name) == 4 {
				return p.ownConstant(start)
			}
		}
	}
	if strings.Contains(global, `\`) && global == name {
		return nil, p.errorf(start, `constant %s may be more than one; begin its name with \`, name)
	}
	last := global[strings.LastIndexByte(global, '\\')+1:]
	if reserved[strings.ToLower(last)] {
		p.i = start
		return nil, p.unexpected("a value")
	}
	v, ok := Value(nil), false
	if global == name && p.namespace != "" {
		v, ok = p.lookup(p.namespace + name)
	}
	if !ok {
		v, ok = p.lookup(global)
	}
	if !ok {
		if c := p.peek(); c == '(' || c == ':' {
			p.i = start
			return nil, p.unexpected("a value")
		}
		return nil, p.errorf(start, "constant %s is not defined", global)
	}
	return p.copy(start, v, p.depth)
}

// lookup returns a constant, by its name without a leading \.
func (p *parser) lookup(name string) (Value, bool) {
	switch name {
	case "INF":
		return math.Inf(1), true
	case "NAN":
		return math.NaN(), true
	case "MEDIAWIKI":
		return true, true
	}
	if !p.asked[name] {
		if p.asked == nil {
			p.asked = map[string]bool{}
		}
		p.asked[name] = true
	}
	if v, ok := p.defined[name]; ok {
		return v, true
	}
	v, ok := p.opt.Constants[name]
	return v, ok
}

// read reads $x or an element of it.
func (p *parser) read() (Value, error) {
	start := p.i
	if p.members != nil {
		return nil, p.unexpected("a constant value")
	}
	name, err := p.variable()
	if err != nil {
		return nil, err
	}
	if p.passed[name] {
		return nil, errIntricate
	}
	v, ok := p.vars.Get(Key{Str: name})
	if !ok {
		return nil, p.errorf(start, "$%s is not set", name)
	}
	dims, err := p.dims(false)
	if err != nil {
		return nil, err
	}
	for _, d := range dims {
		a, ok := v.(*Array)
		if ok {
			v, ok = a.Get(d.key)
		}
		if !ok {
			return nil, p.errorf(start, "$%s has no such element: %s", name, d.key)
		}
	}
	return p.copy(start, v, p.depth)
}

// copy is v for a place of its own, so deep in an array.
func (p *parser) copy(at int, v Value, depth int) (Value, error) {
	a, ok := v.(*Array)
	if !ok {
		return v, nil
	}
	if depth >= maxDepth {
		return nil, p.errorf(at, "nested too deep")
	}
	if p.copied += a.Len() + 1; p.copied > maxCopied {
		return nil, p.errorf(at, "arrays too large")
	}
	c := a.Clone()
	for i, v := range c.vals {
		if _, ok := v.(*Array); ok {
			var err error
			if c.vals[i], err = p.copy(at, v, depth+1); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// number reads an integer or a float.
func (p *parser) number() (Value, error) {
	start := p.i
	rest := p.s[start:]
	if len(rest) > 2 && rest[0] == '0' {
		base, bits := 0.0, ""
		switch rest[1] | 0x20 {
		case 'x':
			base, bits = 16, "0123456789abcdefABCDEF"
		case 'o':
			base, bits = 8, "01234567"
		case 'b':
			base, bits = 2, "01"
		}
		if n := digitsLen(rest[2:], bits); n > 0 {
			p.i += 2 + n
			return based(strings.ReplaceAll(rest[2:2+n], "_", ""), base), nil
		}
	}
	const decimal = "0123456789"
	n := digitsLen(rest, decimal)
	isFloat := false
	if n < len(rest) && rest[n] == '.' {
		isFloat = true
		n++
		n += digitsLen(rest[n:], decimal)
	}
	if n < len(rest) && rest[n]|0x20 == 'e' {
		m := n + 1
		if m < len(rest) && (rest[m] == '+' || rest[m] == '-') {
			m++
		}
		if d := digitsLen(rest[m:], decimal); d > 0 {
			isFloat = true
			n = m + d
		}
	}
	p.i += n
	text := strings.ReplaceAll(rest[:n], "_", "")
	if !isFloat {
		if len(text) > 1 && text[0] == '0' {
			if strings.ContainsAny(text, "89") {
				return nil, p.errorf(start, "8 or 9 in an octal number")
			}
			return based(text, 8), nil
		}
		if v, err := strconv.ParseInt(text, 10, 64); err == nil {
			return v, nil
		}
	}
	// What is out of range is INF, as in PHP.
	f, _ := strconv.ParseFloat(text, 64)
	return f, nil
}

// digitsLen is the length of the digits that s begins with; single _ may be between them.
func digitsLen(s, digits string) int {
	n := 0
	for n < len(s) {
		if strings.IndexByte(digits, s[n]) < 0 && !(s[n] == '_' && n > 0 && s[n-1] != '_') {
			break
		}
		n++
	}
	if n > 0 && s[n-1] == '_' {
		n--
	}
	return n
}

// based is the value of digits: an integer if it fits, else the float that PHP gets digit by digit, rounding as it goes: that of
// an octal or binary digit is added as a character, before '0' is taken away.
func based(digits string, base float64) Value {
	if v, err := strconv.ParseInt(digits, int(base), 64); err == nil {
		return v
	}
	f := 0.0
	for _, c := range []byte(digits) {
		if base == 16 {
			d, _ := strconv.ParseUint(string(c), 16, 8)
			f = f*base + float64(d)
		} else {
			f = f*base + float64(c)
			f -= '0'
		}
	}
	return f
}

// single reads '…'.
func (p *parser) single() (string, error) {
	start := p.i
	body := p.s[start+1:]
	n := strings.IndexByte(body, '\'')
	if n > 0 && body[n-1] == '\\' {
		n = strings.IndexByte(body[:n], '\\')
		for n < len(body) && body[n] != '\'' {
			if body[n] == '\\' {
				n++
			}
			n++
		}
	}
	if n < 0 || n >= len(body) {
		return "", p.errorf(start, "string without end")
	}
	p.i += n + 2
	body = body[:n]
	i := strings.IndexByte(body, '\\')
	if i < 0 {
		return body, nil
	}
	text := make([]byte, 0, len(body))
	for ; i >= 0; i = strings.IndexByte(body, '\\') {
		// The last byte is no backslash, except behind one.
		text = append(text, body[:i]...)
		if c := body[i+1]; c != '\'' && c != '\\' {
			text = append(text, '\\')
		}
		text = append(text, body[i+1])
		body = body[i+2:]
	}
	return string(append(text, body...)), nil
}

// double reads "…".
func (p *parser) double() (Value, error) {
	start := p.i
	n := doubleQuoted(p.s[start+1:])
	switch n {
	case noEnd:
		return nil, p.errorf(start, "string without end")
	case hasVariable:
		return nil, p.errorf(start, "string with a variable in it: join it by dots")
	}
	p.i += n + 2
	return p.unescape(start, p.s[start+1:start+1+n], '"')
}

const (
	noEnd       = -1
	hasVariable = -2
)

// doubleQuoted is the length of s up to its ", or one of the above.
func doubleQuoted(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i
		case '\\':
			i++
		case '$', '{':
			if interpolates(s[i:]) {
				return hasVariable
			}
		}
	}
	return noEnd
}

// interpolates tells whether s begins as PHP's variables in strings do.
func interpolates(s string) bool {
	if len(s) < 2 {
		return false
	}
	return s[0] == '$' && (isNameStart(s[1]) || s[1] == '{') || s[0] == '{' && s[1] == '$'
}

// unescape is the value of a string between double quotes, or of a heredoc, which has no quote.
func (p *parser) unescape(at int, s string, quote byte) (Value, error) {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s, nil
	}
	text := make([]byte, 0, len(s))
	for ; i >= 0 && i+1 < len(s); i = strings.IndexByte(s, '\\') {
		text = append(text, s[:i]...)
		c := s[i+1]
		s = s[i+2:]
		switch {
		case c == '\\', c == '$', c == quote:
			text = append(text, c)
		case strings.IndexByte("nrtvfe", c) >= 0:
			text = append(text, "\n\r\t\v\f\x1b"[strings.IndexByte("nrtvfe", c)])
		case c|0x20 == 'x' && s != "" && isHex(s[0]):
			n := 1
			if len(s) > 1 && isHex(s[1]) {
				n = 2
			}
			v, _ := strconv.ParseUint(s[:n], 16, 8)
			text = append(text, byte(v))
			s = s[n:]
		case c == 'u' && strings.HasPrefix(s, "{"):
			n := strings.IndexByte(s, '}')
			if n < 0 {
				return nil, p.errorf(at, `\u{ without end`)
			}
			v, err := strconv.ParseUint(s[1:n], 16, 64)
			if err != nil || v > 0x10ffff {
				return nil, p.errorf(at, `\u%s is no code point`, s[:min(n+1, 40)])
			}
			text = appendCodePoint(text, uint32(v))
			s = s[n+1:]
		case c >= '0' && c <= '7':
			v := uint(c - '0')
			n := 0
			for ; n < 2 && n < len(s) && s[n] >= '0' && s[n] <= '7'; n++ {
				v = v*8 + uint(s[n]-'0')
			}
			if v > 0xff {
				return nil, p.errorf(at, `\%c%s is no byte`, c, s[:n])
			}
			text = append(text, byte(v))
			s = s[n:]
		default:
			text = append(text, '\\', c)
		}
	}
	return string(append(text, s...)), nil
}

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

// appendCodePoint writes c in UTF-8, as PHP even where it is one half of a surrogate pair.
func appendCodePoint(dst []byte, c uint32) []byte {
	tail := func(shift uint) byte { return byte(0x80 | c>>shift&0x3f) }
	switch {
	case c < 0x80:
		return append(dst, byte(c))
	case c < 0x800:
		return append(dst, byte(0xc0|c>>6), tail(0))
	case c < 0x10000:
		return append(dst, byte(0xe0|c>>12), tail(6), tail(0))
	}
	return append(dst, byte(0xf0|c>>18), tail(12), tail(6), tail(0))
}

// heredoc reads <<<X or <<<'X' up to X at the beginning of a line.
func (p *parser) heredoc() (Value, error) {
	start := p.i
	bad := func() error { return p.errorf(start, "heredoc that is not plain") }
	s := strings.TrimLeft(p.s[start+3:], " \t")
	quote := byte(0)
	if s != "" && (s[0] == '\'' || s[0] == '"') {
		quote = s[0]
		s = s[1:]
	}
	n := nameLen(s)
	if n == 0 || isDigit(s[0]) {
		return nil, bad()
	}
	label := s[:n]
	s = s[n:]
	if quote != 0 {
		if s == "" || s[0] != quote {
			return nil, bad()
		}
		s = s[1:]
	}
	n = newline(s)
	if n == 0 {
		return nil, bad()
	}
	s = s[n:]
	for line := 0; ; {
		text := strings.TrimLeft(s[line:], " \t")
		if strings.HasPrefix(text, label) && nameLen(text[len(label):]) == 0 {
			if len(text) != len(s)-line {
				return nil, p.errorf(start, "heredoc whose end is indented: begin its last line with %s", label)
			}
			p.i = len(p.s) - len(text) + len(label)
			s = s[:line]
			break
		}
		n := strings.IndexAny(s[line:], "\r\n")
		if n < 0 {
			return nil, p.errorf(start, "heredoc without end")
		}
		line += n + newline(s[line+n:])
	}
	s, crlf := strings.CutSuffix(s, "\r\n")
	if !crlf && s != "" {
		s = s[:len(s)-1]
	}
	if quote == '\'' {
		return s, nil
	}
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		} else if interpolates(s[i:]) {
			return nil, p.errorf(start, "heredoc with a variable in it: join it by dots")
		}
	}
	return p.unescape(start, s, 0)
}

// newline is the length of the line's end that s begins with.
func newline(s string) int {
	switch {
	case strings.HasPrefix(s, "\r\n"):
		return 2
	case s != "" && (s[0] == '\n' || s[0] == '\r'):
		return 1
	}
	return 0
}
