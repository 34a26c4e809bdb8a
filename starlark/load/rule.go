package load

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
)

// rule is the value of rule(): calling it in a package declares a target.
type rule struct {
	name  string // set when the module that defines it ends
	file  string // of that module
	doc   string
	impl  *starlark.Function
	attrs map[string]*attribute
	order []string // attribute names as declared
	reads bool     // the implementation reads files of the package, through ctx.call
	// check finds what is wrong with a target of which each attribute is sound, in which of them; it may be nil.
	check func(t *target) (attr string, err error)
}

func (r *rule) String() string        { return "<rule " + r.Name() + ">" }
func (r *rule) Type() string          { return "rule" }
func (r *rule) Freeze()               {}
func (r *rule) Truth() starlark.Bool  { return true }
func (r *rule) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: rule") }
func (r *rule) Name() string {
	if r.name == "" {
		return "rule"
	}
	return r.name
}

// attribute is the value of attr.*().
type attribute struct {
	kind       string // "string", "int", "bool", "string_list", "string_dict", "label", "label_list"
	doc        string
	def        starlark.Value
	mandatory  bool
	values     []string    // for a string: what it may be, nil for anything
	providers  []*provider // for labels: what the target must provide
	allowFiles bool        // for labels: a file of the package will do
	deprecated string      // what to do in its place, "" while it is current
	fixed      bool        // it takes no select()
}

func (a *attribute) String() string        { return "<attr." + a.kind + ">" }
func (a *attribute) Type() string          { return "attribute" }
func (a *attribute) Freeze()               {}
func (a *attribute) Truth() starlark.Bool  { return true }
func (a *attribute) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: attribute") }

func (a *attribute) labels() bool { return a.kind == "label" || a.kind == "label_list" }

// commonAttrs are the attributes that every rule has.
var commonAttrs = map[string]*attribute{
	"name":       {kind: "string", mandatory: true, fixed: true, doc: "Name of the target, unique in its package."},
	"visibility": {kind: "string_list", def: starlark.None, fixed: true, doc: "Who may depend on it: //visibility:public, //visibility:private, //pkg:__pkg__, //pkg:__subpackages__."},
	"tags":       {kind: "string_list", def: noStrings, fixed: true, doc: "Free words; \"manual\" keeps the target out of patterns like //...."},
}

// frozen freezes what all loaders of a process share: an unfrozen list counts who iterates over it.
func frozen(v starlark.Value) starlark.Value {
	v.Freeze()
	return v
}

var noStrings = frozen(starlark.NewList(nil))

// attrModule is the value of attr.
var attrModule = &starlarkstruct.Module{Name: "attr", Members: func() starlark.StringDict {
	members := starlark.StringDict{}
	for kind, zero := range map[string]starlark.Value{
		"string": starlark.String(""), "int": starlark.MakeInt(0), "bool": starlark.False,
		"string_list": noStrings, "string_dict": frozen(starlark.NewDict(0)),
		"label": starlark.None, "label_list": noStrings,
	} {
		members[kind] = starlark.NewBuiltin("attr."+kind, func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			a := &attribute{kind: kind}
			var values, providers *starlark.List
			params := []any{"default?", &a.def, "mandatory?", &a.mandatory, "doc?", &a.doc}
			switch kind {
			case "string":
				params = append(params, "values?", &values)
			case "label", "label_list":
				params = append(params, "providers?", &providers, "allow_files?", &a.allowFiles)
			}
			params = append(params, "deprecated?", &a.deprecated)
			if err := starlark.UnpackArgs(b.Name(), args, kwargs, params...); err != nil {
				return nil, err
			}
			if values != nil {
				for v := range starlark.Elements(values) {
					s, ok := starlark.AsString(v)
					if !ok {
						return nil, fmt.Errorf("%s: values holds a %s, want strings", b.Name(), v.Type())
					}
					a.values = append(a.values, s)
				}
			}
			if providers != nil {
				for v := range starlark.Elements(providers) {
					p, ok := v.(*provider)
					if !ok {
						return nil, fmt.Errorf("%s: providers holds a %s, want providers", b.Name(), v.Type())
					}
					a.providers = append(a.providers, p)
				}
			}
			if a.def == nil {
				a.def = zero
			} else {
				var err error
				if a.def, err = a.check(a.def); err != nil {
					return nil, fmt.Errorf("%s: default: %w", b.Name(), err)
				}
			}
			return a, nil
		})
	}
	return members
}()}

func makeRule(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	r := &rule{file: thread.Name, attrs: maps.Clone(commonAttrs), order: []string{"name"}}
	var attrs *starlark.Dict
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "implementation", &r.impl, "attrs?", &attrs, "doc?", &r.doc, "reads_files?", &r.reads); err != nil {
		return nil, err
	}
	if r.impl.NumParams() != 1 {
		return nil, fmt.Errorf("rule: implementation %s takes %d parameters, want one (ctx)", r.impl.Name(), r.impl.NumParams())
	}
	if attrs != nil {
		for _, kv := range attrs.Items() {
			name, _ := starlark.AsString(kv[0])
			a, ok := kv[1].(*attribute)
			if !ok || name == "" {
				return nil, fmt.Errorf("rule: attrs[%s] is a %s, want attr.*()", kv[0], kv[1].Type())
			}
			if commonAttrs[name] != nil {
				return nil, fmt.Errorf("rule: attribute %s is one that every rule has", name)
			}
			r.attrs[name] = a
			r.order = append(r.order, name)
		}
	}
	r.order = append(r.order, "visibility", "tags")
	return r, nil
}

// check returns v as a value of the attribute's kind, frozen and safe to keep.
func (a *attribute) check(v starlark.Value) (starlark.Value, error) {
	want := func() error { return fmt.Errorf("got %s, want %s", describe(v), kindNames[a.kind]) }
	switch a.kind {
	case "string", "label":
		s, ok := v.(starlark.String)
		if a.kind == "label" && v == starlark.None {
			return v, nil
		}
		if !ok {
			return nil, want()
		}
		if a.values != nil && !slices.Contains(a.values, string(s)) {
			return nil, fmt.Errorf("%s is none of %s%s", describe(s), strings.Join(a.values, ", "), didYouMean(string(s), a.values))
		}
		return s, nil
	case "int":
		if _, ok := v.(starlark.Int); !ok {
			return nil, want()
		}
		return v, nil
	case "bool":
		if _, ok := v.(starlark.Bool); !ok {
			return nil, want()
		}
		return v, nil
	case "string_list", "label_list":
		if v == starlark.None {
			return v, nil
		}
		it, ok := v.(starlark.Sequence)
		if _, dict := v.(*starlark.Dict); !ok || dict {
			return nil, want()
		}
		var elems []starlark.Value
		for e := range starlark.Elements(it) {
			if _, ok := e.(starlark.String); !ok {
				return nil, fmt.Errorf("element %d is %s, want a string", len(elems), describe(e))
			}
			elems = append(elems, e)
		}
		list := starlark.NewList(elems)
		list.Freeze()
		return list, nil
	case "string_dict":
		d, ok := v.(*starlark.Dict)
		if !ok {
			return nil, want()
		}
		copied := starlark.NewDict(d.Len())
		for _, kv := range d.Items() {
			for i, part := range []string{"key", "value"} {
				if _, ok := kv[i].(starlark.String); !ok {
					return nil, fmt.Errorf("%s %s is %s, want a string", part, kv[i], describe(kv[i]))
				}
			}
			if err := copied.SetKey(kv[0], kv[1]); err != nil {
				return nil, err
			}
		}
		copied.Freeze()
		return copied, nil
	}
	panic("attribute of kind " + a.kind)
}

var kindNames = map[string]string{
	"string": "a string", "int": "an int", "bool": "True or False", "string_list": "a list of strings",
	"string_dict": "a dict of strings", "label": "a label", "label_list": "a list of labels",
}

func describe(v starlark.Value) string {
	switch s := v.String(); {
	case v == starlark.None:
		return "None"
	case len(s) <= 40:
		return v.Type() + " " + s
	default:
		return "a " + v.Type()
	}
}

// CallInternal declares a target in the package that is being evaluated. What is wrong with its attributes is recorded
// with the package and the target left out, so that the rest of the file is still seen.
func (r *rule) CallInternal(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	p, ok := thread.Local(pkgKey).(*pkg)
	if !ok {
		return nil, fmt.Errorf("%s declares a target: call it in a BUILD file, or in a macro that a BUILD file calls", r.Name())
	}
	if r.name == "" {
		return nil, fmt.Errorf("a rule must be assigned to a global name of its .bzl file before it is called")
	}
	t := &target{rule: r, pkg: p, call: callPosition(thread), attrs: map[string]starlark.Value{}, via: macros(thread)}
	t.label.Pkg = p.name
	fail := func(attr, msg string, hints ...string) {
		p.errs.add(&graph.Error{Pos: t.attrPos(attr), Label: t.display(), Msg: msg, Hints: append(hints, t.via...)})
	}
	if len(args) > 0 {
		fail("", fmt.Sprintf("%s takes its attributes by name", r.Name()), "write name = …")
		return starlark.None, nil
	}
	// The name first: the messages about the others tell it.
	for _, kv := range kwargs {
		if kv[0].(starlark.String) == "name" {
			if s, ok := starlark.AsString(kv[1]); ok {
				t.label.Name = s
			}
		}
	}
	good := true
	for _, kv := range kwargs {
		name := string(kv[0].(starlark.String))
		a := r.attrs[name]
		if a == nil {
			good = false
			names := slices.Sorted(maps.Keys(r.attrs))
			fail(name, fmt.Sprintf("%s has no attribute %s", t.callee(), name), hint(name, names, "it has: "+strings.Join(names, ", ")))
			continue
		}
		if kv[1] == starlark.None {
			if a.mandatory {
				good = false
				fail(name, fmt.Sprintf("%s needs attribute %s, and it is None", r.Name(), name))
			}
			continue // None stands for the default, so that macros can pass it on
		}
		var v starlark.Value
		var err error
		if s, ok := kv[1].(*selection); ok {
			v, err = t.conditional(name, a, s)
		} else {
			v, err = a.check(kv[1])
		}
		if err != nil {
			good = false
			fail(name, fmt.Sprintf("attribute %s: %v", name, err))
			continue
		}
		t.attrs[name] = v
		if a.deprecated != "" {
			t.deprecated = append(t.deprecated, name)
		}
	}
	for _, name := range r.order {
		if _, given := t.attrs[name]; given {
			continue
		}
		if a := r.attrs[name]; !a.mandatory {
			t.attrs[name] = a.def
		} else if !slices.ContainsFunc(kwargs, func(kv starlark.Tuple) bool { return kv[0].(starlark.String) == starlark.String(name) }) {
			good = false
			fail("", fmt.Sprintf("%s needs attribute %s", t.callee(), name), "add "+name+" = …")
		}
	}
	if good && r.check != nil {
		if attr, err := r.check(t); err != nil {
			good = false
			var hints []string
			if h, ok := err.(*hintedError); ok {
				hints = h.hints
			}
			fail(attr, err.Error(), hints...)
		}
	}
	if t.label.Name != "" {
		if err := label.CheckName(t.label.Name); err != nil {
			good = false
			fail("name", err.Error())
		} else if first := p.targets[t.label.Name]; first != nil {
			good = false
			fail("name", "this name is taken", "the first one is at "+first.call.String())
		}
	}
	if good || t.label.Name != "" && p.targets[t.label.Name] == nil {
		t.bad = !good // it exists, so that labels naming it do not add errors of their own
		p.targets[t.label.Name] = t
	}
	return starlark.None, nil
}

// hint says what a mistyped name was probably meant to be, else the alternative.
func hint(word string, candidates []string, otherwise string) string {
	if s := didYouMean(word, candidates); s != "" {
		return strings.Trim(s, " ()")
	}
	return otherwise
}

// macros tells which functions stand between the BUILD file and the call being made, outermost first. Those of the
// built-in rules are left out: they are of no use to a person.
func macros(thread *starlark.Thread) []string {
	var via []string
	for i := thread.CallStackDepth() - 2; i >= 1; i-- {
		frame := thread.CallFrame(i)
		if file := frame.Pos.Filename(); frame.Pos.Line > 0 && !strings.HasPrefix(file, "@") {
			via = append(via, fmt.Sprintf("at %s in %s", frame.Pos, frame.Name))
		}
	}
	return via
}

// callPosition is where the BUILD file being evaluated makes the current call, itself or by a macro.
func callPosition(thread *starlark.Thread) syntax.Position {
	return thread.CallFrame(thread.CallStackDepth() - 1).Pos
}
