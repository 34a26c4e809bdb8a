package php

import (
	"math"
	"strings"
)

// statement reads one statement and does what it says, unless p.dry.
func (p *parser) statement() error {
	start := p.i
	was := p.stage
	p.stage = inBody
	switch c := p.peek(); {
	case c == ';':
		p.i++
		return nil
	case c == '$':
		return p.assignment()
	case !isNameStart(c):
		return p.unexpected("a statement")
	}
	word, err := p.ident("")
	if err != nil {
		return err
	}
	switch strings.ToLower(word) {
	case "unset":
		return p.unset()
	case "define":
		return p.define(start)
	case "if":
		return p.conditional()
	case "defined":
		return p.guard()
	case "exit", "die":
		p.i = start
		if err := p.exit(); err != nil {
			return err
		}
		return p.end()
	case "declare":
		if was == atStart {
			p.stage = afterDeclare
			return p.declare()
		}
	case "namespace":
		if was <= afterDeclare {
			p.stage = afterNamespace
			return p.namespaced()
		}
	case "use":
		if was <= afterNamespace {
			p.stage = afterNamespace
			return p.use()
		}
	case "final", "abstract":
		if p.depth == 0 {
			if next, err := p.ident("class"); err != nil || !strings.EqualFold(next, "class") {
				break
			}
			return p.classBody()
		}
	case "class":
		if p.depth == 0 {
			return p.classBody()
		}
	}
	p.i = start
	return p.unexpected("a statement")
}

// A dim is one [key] behind a variable; [] appends.
type dim struct {
	key  Key
	next bool
}

// assignment reads $x['a'][] = …;
func (p *parser) assignment() error {
	start := p.i
	name, err := p.variable()
	if err != nil {
		return err
	}
	if !p.whole && !p.wants(name) {
		p.pass(name)
		if err := p.skip(); err != nil {
			return err
		}
		return p.end()
	}
	dims, err := p.dims(true)
	if err != nil {
		return err
	}
	if err := p.expect('='); err != nil {
		return err
	}
	p.depth += len(dims)
	v, err := p.expr()
	p.depth -= len(dims)
	if err != nil {
		return err
	}
	if err := p.end(); err != nil || p.dry {
		return err
	}
	return p.store(start, name, dims, v)
}

// dims reads the [key] behind a variable. [] is one that appends, where that may be.
func (p *parser) dims(appends bool) ([]dim, error) {
	var dims []dim
	for p.peek() == '[' {
		if p.depth+len(dims) >= maxDepth {
			return nil, p.errorf(p.i, "nested too deep")
		}
		p.i++
		if appends && p.accept(']') {
			dims = append(dims, dim{next: true})
			continue
		}
		k, err := p.key()
		if err != nil {
			return nil, err
		}
		if err := p.expect(']'); err != nil {
			return nil, err
		}
		dims = append(dims, dim{key: k})
	}
	return dims, nil
}

// key reads an expression that is a key.
func (p *parser) key() (Key, error) {
	p.peek()
	start := p.i
	p.depth++
	v, err := p.expr()
	p.depth--
	if err != nil {
		return Key{}, err
	}
	return p.toKey(start, v)
}

// toKey makes a key of v as PHP does for an array's.
func (p *parser) toKey(at int, v Value) (Key, error) {
	switch v := v.(type) {
	case string:
		return StringKey(v), nil
	case int64:
		return IntKey(v), nil
	case nil:
		return Key{}, nil
	case bool:
		if v {
			return IntKey(1), nil
		}
		return IntKey(0), nil
	case float64:
		if v == math.Trunc(v) && v >= math.MinInt64 && v < math.MaxInt64 {
			return IntKey(int64(v)), nil
		}
		return Key{}, p.errorf(at, "key is a float that is no integer")
	}
	return Key{}, p.errorf(at, "key is an array")
}

// store sets what $name and dims stand for. All arrays in p.vars are its own.
func (p *parser) store(at int, name string, dims []dim, v Value) error {
	into, d := &p.vars, dim{key: Key{Str: name}}
	for _, below := range dims {
		var old Value
		if !d.next {
			old, _ = into.Get(d.key)
		}
		inner, ok := old.(*Array)
		if !ok {
			if old != nil {
				return p.errorf(at, "%s is not an array, so it has no elements to set", d.name(name))
			}
			inner = &Array{low: true}
			if !into.put(d, inner) {
				return p.errorf(at, "no integer is left for []")
			}
		}
		into, d = inner, below
	}
	if !into.put(d, v) {
		return p.errorf(at, "no integer is left for []")
	}
	return nil
}

func (a *Array) put(d dim, v Value) bool {
	if d.next {
		return a.Append(v)
	}
	a.Set(d.key, v)
	return true
}

// name is the variable or the element for a message.
func (d dim) name(variable string) string {
	if d.key.Str == variable {
		return "$" + variable
	}
	return "element " + d.key.String()
}

// unset reads unset( $x, $y['a'] );
func (p *parser) unset() error {
	if err := p.expect('('); err != nil {
		return err
	}
	for first := true; first || p.peek() != ')'; first = false {
		p.peek()
		start := p.i
		name, err := p.variable()
		if err != nil {
			return err
		}
		dims, err := p.dims(false)
		if err != nil {
			return err
		}
		if p.passed[name] && len(dims) == 0 && !p.dry {
			delete(p.passed, name)
		}
		if !p.dry {
			if err := p.remove(start, name, dims); err != nil {
				return err
			}
		}
		if !p.accept(',') {
			break
		}
	}
	if err := p.expect(')'); err != nil {
		return err
	}
	return p.end()
}

// remove unsets what $name and dims stand for. The last of these may be missing, as in PHP.
func (p *parser) remove(at int, name string, dims []dim) error {
	from, k := &p.vars, Key{Str: name}
	for _, d := range dims {
		v, ok := from.Get(k)
		inner, isArray := v.(*Array)
		switch {
		case !ok && p.passed[name]:
			return errIntricate
		case !ok:
			return p.errorf(at, "%s is not set, so it has no elements to unset", dim{key: k}.name(name))
		case v == nil:
			return nil
		case !isArray:
			return p.errorf(at, "%s is not an array, so it has no elements to unset", dim{key: k}.name(name))
		}
		from, k = inner, d.key
	}
	from.Delete(k)
	return nil
}

// constantName reads the name that define and defined begin with, and the bracket before it.
func (p *parser) constantName() (string, error) {
	if err := p.expect('('); err != nil {
		return "", err
	}
	p.peek()
	start := p.i
	v, err := p.expr()
	if err != nil {
		return "", err
	}
	name, ok := v.(string)
	// PHP has constants of its own under the last two.
	if !ok || name == "" || isDigit(name[0]) || nameLen(name) < len(name) || reserved[strings.ToLower(name)] ||
		strings.HasPrefix(name, "__") || strings.HasPrefix(name, "PHP_") {
		return "", p.errorf(start, "not the name of a constant")
	}
	return name, nil
}

// closeCall reads the end of a call; a comma may be before it.
func (p *parser) closeCall() error {
	p.accept(',')
	return p.expect(')')
}

// define reads define( 'X', … );
func (p *parser) define(start int) error {
	name, err := p.constantName()
	if err != nil {
		return err
	}
	if err := p.expect(','); err != nil {
		return err
	}
	v, err := p.expr()
	if err != nil {
		return err
	}
	if err := p.closeCall(); err != nil {
		return err
	}
	if err := p.end(); err != nil || p.dry {
		return err
	}
	if _, ok := p.lookup(name); ok {
		return p.errorf(start, "constant %s is defined already; ask defined() first", name)
	}
	if p.defined == nil {
		p.defined = map[string]Value{}
	}
	p.defined[name] = v
	return nil
}

// isDefined reads the arguments of defined() and tells its value.
func (p *parser) isDefined() (bool, error) {
	name, err := p.constantName()
	if err != nil {
		return false, err
	}
	_, ok := p.lookup(name)
	return ok, p.closeCall()
}

// conditional reads if ( !defined( 'X' ) ) { … }, without else.
func (p *parser) conditional() error {
	if err := p.expect('('); err != nil {
		return err
	}
	not := p.accept('!')
	if err := p.keyword("defined"); err != nil {
		return err
	}
	yes, err := p.isDefined()
	if err != nil {
		return err
	}
	if err := p.expect(')'); err != nil {
		return err
	}
	if p.depth >= maxDepth {
		return p.errorf(p.i, "nested too deep")
	}
	was := p.dry
	p.dry = was || yes == not
	p.depth++
	defer func() { p.dry = was; p.depth-- }()
	if !p.accept('{') {
		return p.statement()
	}
	for !p.accept('}') {
		if err := p.statement(); err != nil {
			return err
		}
	}
	return nil
}

// keyword passes a word, in any case.
func (p *parser) keyword(want string) error {
	p.peek()
	start := p.i
	if word, err := p.ident(want); err != nil || !strings.EqualFold(word, want) {
		p.i = start
		return p.unexpected(want)
	}
	return nil
}

// guard reads the rest of defined( 'X' ) || die( … );
func (p *parser) guard() error {
	yes, err := p.isDefined()
	if err != nil {
		return err
	}
	if p.peek() == '|' && strings.HasPrefix(p.s[p.i:], "||") {
		p.i += 2
	} else if err := p.keyword("or"); err != nil {
		return err
	}
	was := p.dry
	p.dry = was || yes
	defer func() { p.dry = was }()
	if err := p.exit(); err != nil {
		return err
	}
	return p.end()
}

// exit reads exit or die, which must not be executed.
func (p *parser) exit() error {
	p.peek()
	start := p.i
	word, err := p.ident("exit")
	if err == nil && !strings.EqualFold(word, "exit") && !strings.EqualFold(word, "die") {
		p.i = start
		err = p.unexpected("exit")
	}
	if err != nil {
		return err
	}
	if p.accept('(') && !p.accept(')') {
		if _, err := p.expr(); err != nil {
			return err
		}
		if err := p.expect(')'); err != nil {
			return err
		}
	}
	if !p.dry {
		return p.errorf(start, "ends PHP here: is a constant missing that the file asks for?")
	}
	return nil
}

// declare reads declare( strict_types=1 );
func (p *parser) declare() error {
	if err := p.expect('('); err != nil {
		return err
	}
	if err := p.keyword("strict_types"); err != nil {
		return err
	}
	if err := p.expect('='); err != nil {
		return err
	}
	if c := p.peek(); c != '0' && c != '1' {
		return p.unexpected("0 or 1")
	}
	p.i++
	if err := p.expect(')'); err != nil {
		return err
	}
	if p.peek() != ';' {
		return p.unexpected(";")
	}
	return p.end()
}

// className reads a name of a namespace or class, without a leading \.
func (p *parser) className() (string, error) {
	p.peek()
	start := p.i
	name, err := p.qualified("a name")
	if err != nil {
		return "", err
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(name, `\`), `\`) {
		if reserved[strings.ToLower(part)] {
			return "", p.errorf(start, "%s is a word of PHP's", part)
		}
	}
	return strings.TrimPrefix(name, `\`), nil
}

// namespaced reads namespace A\B;
func (p *parser) namespaced() error {
	if p.peek() == '\\' {
		return p.unexpected("a name")
	}
	name, err := p.className()
	if err != nil {
		return err
	}
	p.namespace = name + `\`
	if p.peek() != ';' {
		return p.unexpected(";")
	}
	return p.end()
}

// use reads use A\B, C as D; of classes.
func (p *parser) use() error {
	for {
		p.peek()
		start := p.i
		name, err := p.className()
		if err != nil {
			return err
		}
		alias := name[strings.LastIndexByte(name, '\\')+1:]
		if isNameStart(p.peek()) {
			if err := p.keyword("as"); err != nil {
				return err
			}
			if alias, err = p.ident("a name"); err != nil {
				return err
			}
		}
		alias = strings.ToLower(alias)
		if reserved[alias] || p.imported[alias] {
			return p.errorf(start, "%s names something else", alias)
		}
		if p.namespace == "" && !strings.Contains(name, `\`) && strings.EqualFold(alias, name) {
			return p.errorf(start, "PHP warns that this has no effect")
		}
		if p.imported == nil {
			p.imported = map[string]bool{}
		}
		p.imported[alias] = true
		if !p.accept(',') {
			return p.end()
		}
	}
}

// skip passes the rest of an assignment up to its ;, or that of a member of a class up to , or ;. It knows literals, operators and
// variables that are not wanted; these it passes as well. Anything that may do more than give a value is errIntricate.
func (p *parser) skip() error {
	s := p.s
	inClass := p.members != nil
	brackets, depth := uint64(1), 0 // a bit per open bracket: 1 for [
	prev := byte('=')               // the last byte that was no space
	i := p.i
	for i < len(s) {
		c := s[i]
		switch skipped[c] {
		case plain:
			i++
		case blank:
			i++
			continue
		case quote:
			n := strings.IndexByte(s[i+1:], '\'')
			if n < 0 {
				return errIntricate
			}
			if i += n + 2; s[i-2] != '\\' {
				break
			}
			// Escaped, or behind an escaped backslash.
			i -= n + 1
			for ; i < len(s) && s[i] != '\''; i++ {
				if s[i] == '\\' {
					i++
				}
			}
			i++
		case doubleQuote:
			n := doubleQuoted(s[i+1:])
			if n < 0 {
				return errIntricate
			}
			i += n + 2
		case word:
			n := nameLen(s[i:])
			name := s[i : i+n]
			i += n
			next := i
			for next < len(s) && isSpace(s[next]) {
				next++
			}
			if next == len(s) {
				return errIntricate
			}
			switch s[next] {
			case ',', ']', ')', ';', '.', '+', '=', '-':
				// Alone, these three end PHP or a function.
				if n <= 5 && (strings.EqualFold(name, "exit") || strings.EqualFold(name, "die") || strings.EqualFold(name, "yield")) {
					return errIntricate
				}
			case '(':
				if !strings.EqualFold(name, "array") {
					return errIntricate
				}
				c = '=' // no call
			case ':':
				if !inClass {
					return errIntricate
				}
			default:
				return errIntricate
			}
		case open:
			if c == '(' && strings.IndexByte("=,([.>+-", prev) < 0 || depth == 60 {
				return errIntricate
			}
			depth++
			brackets <<= 1
			if c == '[' {
				brackets |= 1
			}
			i++
		case closing:
			if depth == 0 || (brackets&1 == 1) != (c == ']') {
				return errIntricate
			}
			depth--
			brackets >>= 1
			i++
		case semicolon:
			if depth > 0 {
				return errIntricate
			}
			p.i = i
			return nil
		case comma:
			if depth == 0 {
				if !inClass {
					return errIntricate
				}
				p.i = i
				return nil
			}
			i++
		case comment:
			n := commentLen(s[i:])
			if n == 0 {
				return errIntricate
			}
			i += n
			continue
		case sigil:
			n := nameLen(s[i+1:])
			if n == 0 || isDigit(s[i+1]) || inClass {
				return errIntricate
			}
			name := s[i+1 : i+1+n]
			if p.wants(name) || special[name] {
				return errIntricate
			}
			p.pass(name)
			i += n + 1
		case sign:
			if i++; i < len(s) && (s[i] == c || s[i] == '>' && c == '-') {
				return errIntricate
			}
		case greater:
			if prev != '=' || s[i-1] != '=' {
				return errIntricate
			}
			i++
		case colon:
			if !inClass {
				return errIntricate
			}
			i++
		default:
			return errIntricate
		}
		prev = c
	}
	return errIntricate
}

// pass notes a variable that was passed over.
func (p *parser) pass(name string) {
	if p.passed == nil {
		p.passed = map[string]bool{}
	}
	p.passed[name] = true
}

// What skip does with a byte.
const (
	unknown = iota
	plain
	blank
	quote
	doubleQuote
	word
	open
	closing
	semicolon
	comma
	comment
	sigil
	sign
	greater
	colon
)

var skipped = func() (t [256]byte) {
	for c := range t {
		switch {
		case isNameStart(byte(c)):
			t[c] = word
		case isSpace(byte(c)):
			t[c] = blank
		}
	}
	for chars, class := range map[string]byte{
		`0123456789.=\`: plain, `'`: quote, `"`: doubleQuote, "[(": open, "])": closing, ";": semicolon, ",": comma, "#/": comment,
		"$": sigil, "+-": sign, ">": greater, ":": colon,
	} {
		for _, c := range []byte(chars) {
			t[c] = class
		}
	}
	return t
}()
