package php

import "strings"

// A member is a constant or static property of the class.
type member struct {
	name  string
	at    int // of its expression
	isVar bool
	array bool // declared to be one
}

// classBody reads the rest of class X { … }, made of constants and static properties. These go to p.properties and p.members.
func (p *parser) classBody() error {
	p.peek()
	start := p.i
	name, err := p.ident("the name of a class")
	if err != nil {
		return err
	}
	name = strings.ToLower(name)
	if reserved[name] || p.imported[name] || p.class != "" {
		return p.errorf(start, "no name for a class here, or a second class")
	}
	p.class = name
	if err := p.expect('{'); err != nil {
		return err
	}
	p.members = map[string]Value{}
	var deferred []member
	for !p.accept('}') {
		if deferred, err = p.member(deferred); err != nil {
			return err
		}
	}
	end := p.i
	for len(deferred) > 0 {
		var still []member
		for _, m := range deferred {
			p.i = m.at
			ok, err := p.value(m)
			switch {
			case ok:
			case p.early:
				still = append(still, m)
			default:
				return err
			}
			if !ok && len(still) == len(deferred) {
				return err
			}
		}
		deferred = still
	}
	p.i = end
	p.members = nil
	return nil
}

// member reads one declaration, of one member or more, and adds those that have to wait to deferred.
func (p *parser) member(deferred []member) ([]member, error) {
	var visible, static, constant bool
	var m member
modifiers:
	for p.peek() != '$' {
		at := p.i
		word, err := p.ident("a constant or static property")
		if err != nil {
			return nil, err
		}
		switch word = strings.ToLower(word); {
		case !visible && (word == "public" || word == "protected" || word == "private"):
			visible = true
		case word == "static" && !static:
			static = true
		case word == "array" && static && !m.array:
			m.array = true
			break modifiers
		case word == "const" && !static:
			constant = true
			break modifiers
		default:
			p.i = at
			return nil, p.unexpected("a constant or static property")
		}
	}
	if !constant && !static {
		return nil, p.errorf(p.i, "a property that is not static")
	}
	for {
		p.peek()
		start := p.i
		var err error
		if m.isVar = static; m.isVar {
			m.name, err = p.variable()
		} else {
			m.name, err = p.ident("the name of a constant")
		}
		if err != nil {
			return nil, err
		}
		if _, ok := p.properties.Get(Key{Str: m.name}); ok || strings.EqualFold(m.name, "class") {
			return nil, p.errorf(start, "%s is there already", m.name)
		}
		p.properties.Set(Key{Str: m.name}, nil)
		if p.peek() == '=' {
			p.i++
			m.at = p.i
			if ok, err := p.value(m); !ok {
				if !p.early {
					return nil, err
				}
				if deferred = append(deferred, m); len(deferred) > maxDeferred {
					return nil, err
				}
				p.i = m.at
				if p.skip() != nil {
					return nil, err
				}
			}
		} else if constant || m.array {
			return nil, p.unexpected("=")
		}
		if !p.accept(',') {
			return deferred, p.expect(';')
		}
	}
}

// value reads the value of m. Where that is false and p.early, a constant of the class may still come.
func (p *parser) value(m member) (bool, error) {
	p.early = false
	depth, stack := p.depth, len(p.stack)
	v, err := p.expr()
	if err != nil {
		p.depth, p.stack = depth, p.stack[:stack]
		return false, err
	}
	if c := p.peek(); c != ',' && c != ';' {
		return false, p.unexpected(";")
	}
	if _, ok := v.(*Array); m.array && !ok {
		return false, p.errorf(m.at, "not an array")
	}
	p.properties.Set(Key{Str: m.name}, v)
	if !m.isVar {
		p.members[m.name] = v
	}
	return true, nil
}

// ownConstant reads the rest of self::X.
func (p *parser) ownConstant(start int) (Value, error) {
	if p.members == nil || p.peek() != ':' || !strings.HasPrefix(p.s[p.i:], "::") {
		p.i = start
		return nil, p.unexpected("a value")
	}
	p.i += 2
	name, err := p.ident("a constant")
	if err != nil {
		return nil, err
	}
	v, ok := p.members[name]
	if !ok {
		p.early = true
		return nil, p.errorf(start, "self::%s is no constant of this class that has a value", name)
	}
	return p.copy(start, v, p.depth)
}
