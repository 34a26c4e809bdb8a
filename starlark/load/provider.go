package load

import (
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/mwbuild/mwbuild/internal/spell"
)

// provider is the value of provider(): calling it makes an instance, and target[provider] finds it.
type provider struct {
	name   string // set when the module that defines it ends
	file   string // of that module
	doc    string
	fields []string // allowed field names, nil for any
}

var (
	_ starlark.Callable   = (*provider)(nil)
	_ starlark.HasAttrs   = (*instance)(nil)
	_ starlark.Comparable = (*instance)(nil)
)

func (p *provider) String() string       { return "<provider " + p.Name() + ">" }
func (p *provider) Type() string         { return "provider" }
func (p *provider) Freeze()              {}
func (p *provider) Truth() starlark.Bool { return true }

// Hash is the same for all: a provider has no name yet where its own module uses it as a key.
func (p *provider) Hash() (uint32, error) { return starlark.String("provider").Hash() }
func (p *provider) Name() string {
	if p.name == "" {
		return "provider"
	}
	return p.name
}

func (p *provider) CallInternal(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(args) > 0 {
		return nil, fmt.Errorf("%s: fields are given by name", p.Name())
	}
	in := &instance{provider: p, fields: make(starlark.StringDict, len(kwargs))}
	for _, kv := range kwargs {
		field := string(kv[0].(starlark.String))
		if p.fields != nil && !slices.Contains(p.fields, field) {
			return nil, fmt.Errorf("%s has no field %s%s", p.Name(), field, didYouMean(field, p.fields))
		}
		in.fields[field] = kv[1]
	}
	return in, nil
}

// An instance is what a provider makes: a struct that knows its provider. struct() makes one without.
type instance struct {
	provider *provider // nil for struct()
	fields   starlark.StringDict
}

func (i *instance) typeName() string {
	if i.provider == nil {
		return "struct"
	}
	return i.provider.Name()
}

func (i *instance) String() string {
	var b strings.Builder
	b.WriteString(i.typeName() + "(")
	for n, k := range i.fields.Keys() {
		if n > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s = %s", k, i.fields[k])
	}
	return b.String() + ")"
}
func (i *instance) Type() string         { return i.typeName() }
func (i *instance) Freeze()              { i.fields.Freeze() }
func (i *instance) Truth() starlark.Bool { return true }
func (i *instance) Hash() (uint32, error) {
	var h uint32 = 9677
	for _, k := range i.fields.Keys() {
		name, _ := starlark.String(k).Hash()
		v, err := i.fields[k].Hash()
		if err != nil {
			return 0, fmt.Errorf("unhashable: %s, because its field %s is a %s", i.Type(), k, i.fields[k].Type())
		}
		h = (h*31+name)*31 + v
	}
	return h, nil
}

// CompareSameType makes two instances of one provider equal when their fields are.
func (i *instance) CompareSameType(op syntax.Token, y starlark.Value, depth int) (bool, error) {
	if op != syntax.EQL && op != syntax.NEQ {
		return false, fmt.Errorf("%s %s %s: they have no order", i.Type(), op, y.Type())
	}
	o := y.(*instance)
	same := i.provider == o.provider && len(i.fields) == len(o.fields)
	for _, k := range i.fields.Keys() {
		v, ok := o.fields[k]
		if !same || !ok {
			same = false
			break
		}
		var err error
		if same, err = starlark.EqualDepth(i.fields[k], v, depth-1); err != nil {
			return false, err
		}
	}
	return same == (op == syntax.EQL), nil
}

func (i *instance) AttrNames() []string { return i.fields.Keys() }
func (i *instance) Attr(name string) (starlark.Value, error) {
	if v, ok := i.fields[name]; ok {
		return v, nil
	}
	if i.provider != nil && slices.Contains(i.provider.fields, name) {
		return starlark.None, nil
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("%s has no field %s%s", i.Type(), name, didYouMean(name, i.AttrNames())))
}

func makeStruct(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	v, err := (&provider{name: b.Name()}).CallInternal(thread, args, kwargs)
	if err != nil {
		return nil, err
	}
	v.(*instance).provider = nil
	return v, nil
}

func makeProvider(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	p := &provider{file: thread.Name}
	var fields starlark.Value = starlark.None
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "doc?", &p.doc, "fields?", &fields); err != nil {
		return nil, err
	}
	if it, ok := fields.(starlark.Iterable); ok { // a list of names, or a dict of name to documentation
		p.fields = []string{}
		for v := range starlark.Elements(it) {
			s, ok := starlark.AsString(v)
			if !ok {
				return nil, fmt.Errorf("provider: fields holds %s, want a name", v.Type())
			}
			p.fields = append(p.fields, s)
		}
	} else if fields != starlark.None {
		return nil, fmt.Errorf("provider: fields is a %s, want a list of names", fields.Type())
	}
	return p, nil
}

// depset is Bazel's: a set that is cheap to merge, flattened only by to_list(), children before parents, each element
// once, in an order that depends on its construction alone.
type depset struct {
	direct     []starlark.Value
	transitive []*depset
	depth      int
}

// maxDepth bounds how deep depsets, and what JSON holds, are nested: walking them takes a stack.
const maxDepth = 3500

func (d *depset) String() string        { return "depset(" + starlark.NewList(d.list()).String() + ")" }
func (d *depset) Type() string          { return "depset" }
func (d *depset) Truth() starlark.Bool  { return len(d.list()) > 0 }
func (d *depset) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: depset") }
func (d *depset) Freeze() {
	for _, v := range d.direct {
		v.Freeze()
	}
}
func (d *depset) AttrNames() []string { return []string{"to_list"} }
func (d *depset) Attr(name string) (starlark.Value, error) {
	if name != "to_list" {
		return nil, nil
	}
	return starlark.NewBuiltin(name, func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := starlark.UnpackArgs(b.Name(), args, kwargs); err != nil {
			return nil, err
		}
		return starlark.NewList(d.list()), nil
	}), nil
}

func (d *depset) list() []starlark.Value {
	var (
		all   []starlark.Value
		seen  starlark.Set
		sets  = map[*depset]bool{}
		visit func(*depset)
	)
	visit = func(d *depset) {
		if sets[d] {
			return
		}
		sets[d] = true
		for _, t := range d.transitive {
			visit(t)
		}
		for _, v := range d.direct {
			if found, _ := seen.Has(v); !found {
				_ = seen.Insert(v) // hashable: makeDepset saw to it
				all = append(all, v)
			}
		}
	}
	visit(d)
	return all
}

func makeDepset(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var direct, transitive starlark.Iterable
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "direct?", &direct, "transitive?", &transitive); err != nil {
		return nil, err
	}
	d := &depset{}
	if direct != nil {
		for v := range starlark.Elements(direct) {
			if _, err := v.Hash(); err != nil {
				return nil, fmt.Errorf("depset: %w", err)
			}
			d.direct = append(d.direct, v)
		}
	}
	if transitive != nil {
		for v := range starlark.Elements(transitive) {
			t, ok := v.(*depset)
			if !ok {
				return nil, fmt.Errorf("depset: transitive holds a %s, want depsets", v.Type())
			}
			d.transitive = append(d.transitive, t)
			if d.depth = max(d.depth, t.depth+1); d.depth > maxDepth {
				return nil, fmt.Errorf("depset: nested more than %d deep: merge the list of all in one depset, not one at a time", maxDepth)
			}
		}
	}
	return d, nil
}

func didYouMean(word string, candidates []string) string {
	if near := spell.Nearest(word, candidates); near != "" {
		return fmt.Sprintf(" (did you mean %s?)", near)
	}
	return ""
}
