package load

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
)

// defaultCondition is the key of select() that holds where no other does.
var defaultCondition = label.Label{Pkg: "conditions", Name: "default"}

// A selection is the value of select(), alone or in a sum with others and with plain values. BUILD files and macros cannot
// look into it: what it is depends on the configuration, and is known once config_settings are. It follows Bazel.
type selection struct {
	parts []selectPart
	union bool // made with |, which is for dicts
}

// A selectPart is a plain value, or a choice.
type selectPart struct {
	value  starlark.Value
	choice *choice
}

// A choice is one select().
type choice struct {
	keys    []string
	labels  []label.Label // of keys, once the package is known
	values  []starlark.Value
	noMatch string
}

var _ starlark.HasBinary = (*selection)(nil)

func makeSelect(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	c := &choice{}
	var branches *starlark.Dict
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "branches", &branches, "no_match_error?", &c.noMatch); err != nil {
		return nil, err
	}
	if branches.Len() == 0 {
		return nil, fmt.Errorf("select: the dict is empty, so nothing can ever be chosen")
	}
	for _, kv := range branches.Items() {
		key, ok := starlark.AsString(kv[0])
		if !ok {
			return nil, fmt.Errorf("select: key %s is a %s, want the label of a config_setting", kv[0], kv[0].Type())
		}
		if _, nested := kv[1].(*selection); nested {
			return nil, fmt.Errorf("select: the value of %s is a select itself: add one to the other with +, or make a config_setting that asks for both", key)
		}
		c.keys, c.values = append(c.keys, key), append(c.values, kv[1])
	}
	return &selection{parts: []selectPart{{choice: c}}}, nil
}

// String shows all of it: two that print alike are alike.
func (s *selection) String() string {
	var b strings.Builder
	for i, p := range s.parts {
		if i > 0 {
			b.WriteString(" + ")
		}
		if p.choice == nil {
			b.WriteString(p.value.String())
			continue
		}
		b.WriteString("select({")
		for j, key := range p.choice.keys {
			if j > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s: %s", starlark.String(key), p.choice.values[j])
		}
		b.WriteString("}")
		if p.choice.noMatch != "" {
			fmt.Fprintf(&b, ", no_match_error = %s", starlark.String(p.choice.noMatch))
		}
		b.WriteString(")")
	}
	return b.String()
}
func (s *selection) Type() string          { return "select" }
func (s *selection) Truth() starlark.Bool  { return true }
func (s *selection) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: select") }
func (s *selection) Freeze() {
	for _, p := range s.parts {
		if p.choice == nil {
			p.value.Freeze()
			continue
		}
		for _, v := range p.choice.values {
			v.Freeze()
		}
	}
}

// Binary is starlark.HasBinary's: + concatenates lists, strings and dicts, | is for dicts alone, as between plain values.
func (s *selection) Binary(op syntax.Token, y starlark.Value, side starlark.Side) (starlark.Value, error) {
	var other []selectPart
	union := op == syntax.PIPE
	switch y := y.(type) {
	case *selection:
		other, union = y.parts, union || y.union
	case starlark.String, *starlark.List, starlark.Tuple:
		if union {
			return nil, nil
		}
		other = []selectPart{{value: y}}
	case *starlark.Dict:
		other = []selectPart{{value: y}}
	default:
		return nil, nil
	}
	if op != syntax.PLUS && op != syntax.PIPE {
		return nil, nil
	}
	sum := &selection{union: union || s.union}
	if side == starlark.Left {
		sum.parts = slices.Concat(s.parts, other)
	} else {
		sum.parts = slices.Concat(other, s.parts)
	}
	return sum, nil
}

// A conditional is a selection as the value of an attribute of a target: its branches are checked, and its choices are made
// when somebody asks. It is a starlark.Value only to stand among the other attributes; no Starlark code sees it.
type conditional struct {
	selection
	target *target
	name   string
	attr   *attribute

	once     sync.Once
	chosen   starlark.Value // None while something is wrong
	settings []dep          // the config_settings that were asked
	errs     []error
}

// conditional checks s as the value of an attribute.
func (t *target) conditional(name string, a *attribute, s *selection) (*conditional, error) {
	if a.fixed {
		return nil, fmt.Errorf("takes no select(): it is needed before the configuration is looked at")
	}
	c := &conditional{target: t, name: name, attr: a}
	one, several := *a, len(s.parts) > 1
	if several {
		if s.union && a.kind != "string_dict" || a.kind == "int" || a.kind == "bool" || a.kind == "label" {
			return nil, fmt.Errorf("select() of %s cannot be joined with something else", kindNames[a.kind])
		}
		one.values = nil // what may be is known of the whole
	}
	for _, p := range s.parts {
		if p.choice == nil {
			v, err := one.check(p.value)
			if err != nil {
				return nil, err
			}
			c.parts = append(c.parts, selectPart{value: v})
			continue
		}
		bound := &choice{keys: p.choice.keys, noMatch: p.choice.noMatch}
		for i, key := range p.choice.keys {
			lab, err := label.Parse(key, t.label.Pkg)
			if err != nil {
				return nil, fmt.Errorf("select: %w", err)
			}
			if j := slices.Index(bound.labels, lab); j >= 0 {
				return nil, fmt.Errorf("select: %s and %s are the same condition", bound.keys[j], key)
			}
			v := p.choice.values[i]
			switch {
			case v != starlark.None:
				if v, err = one.check(v); err != nil {
					return nil, fmt.Errorf("select: %s: %w", key, err)
				}
			case several:
				return nil, fmt.Errorf("select: %s: None stands for the default, so nothing can be joined with it", key)
			case a.mandatory:
				return nil, fmt.Errorf("select: %s: it is None, and %s needs a value", key, name)
			default:
				v = a.def
			}
			bound.labels, bound.values = append(bound.labels, lab), append(bound.values, v)
		}
		c.parts = append(c.parts, selectPart{choice: bound})
	}
	return c, nil
}

// value returns the value that an attribute has in the configuration in force.
func (t *target) value(name string) starlark.Value {
	v := t.attrs[name]
	if c, ok := v.(*conditional); ok {
		c.choose()
		return c.chosen
	}
	return v
}

// conditionLabels are the config_settings that select() asks in an attribute, each once.
func (t *target) conditionLabels(name string) []label.Label {
	c, ok := t.attrs[name].(*conditional)
	if !ok {
		return nil
	}
	var labs []label.Label
	for _, p := range c.parts {
		if p.choice == nil {
			continue
		}
		for _, lab := range p.choice.labels {
			if lab != defaultCondition && !slices.Contains(labs, lab) {
				labs = append(labs, lab)
			}
		}
	}
	return labs
}

// possible returns the strings that an attribute can have, in any configuration.
func (t *target) possible(name string) []string {
	c, ok := t.attrs[name].(*conditional)
	if !ok {
		return stringsOf(t.attrs[name])
	}
	var all []string
	add := func(v starlark.Value) {
		for _, s := range stringsOf(v) {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	for _, p := range c.parts {
		if p.choice == nil {
			add(p.value)
			continue
		}
		for _, v := range p.choice.values {
			add(v)
		}
	}
	return all
}

// stringsOf returns the strings of a checked value: of a list its elements.
func stringsOf(v starlark.Value) []string {
	switch v := v.(type) {
	case starlark.String:
		return []string{string(v)}
	case *starlark.List:
		ss, _ := stringList(v)
		return ss
	}
	return nil
}

// choose finds the config_settings and makes the choices, once. The packages that they are in are evaluated.
func (c *conditional) choose() {
	c.once.Do(func() {
		c.chosen = starlark.None
		l, pkgs := c.target.pkg.loader, []string(nil)
		for _, lab := range c.target.conditionLabels(c.name) {
			if l.isPkg[lab.Pkg] && !slices.Contains(pkgs, lab.Pkg) {
				pkgs = append(pkgs, lab.Pkg)
			}
		}
		l.config.loading.Lock()
		l.packages(context.Background(), pkgs)
		l.config.loading.Unlock()
		var values []starlark.Value
		good := true
		for _, p := range c.parts {
			v := p.value
			if p.choice != nil {
				if v = c.pick(p.choice); v == nil {
					good = false
					continue
				}
			}
			values = append(values, v)
		}
		if !good {
			return
		}
		v, err := concatenate(c.attr, values)
		if err != nil {
			c.fail("", err.Error())
			return
		}
		c.chosen = v
	})
}

// fail notes what is wrong, at a condition or, where that is "", at the attribute.
func (c *conditional) fail(key, msg string, hints ...string) {
	c.errs = append(c.errs, &graph.Error{
		Pos: c.target.attrPos(c.name, key), Label: c.target.label.String(), Msg: c.name + ": " + msg, Hints: append(hints, c.target.via...),
	})
}

// pick returns the value of the condition that holds: where several do, of the one that asks for all that the others ask
// for, and more. It returns nil, with an error noted, where there is none, or where equally good ones have different values.
func (c *conditional) pick(ch *choice) starlark.Value {
	t, l := c.target, c.target.pkg.loader
	var otherwise starlark.Value
	var best []int // indices of what holds and is not refined by another that holds
	asked := make([]map[string]string, len(ch.labels))
	good := true
	for i, lab := range ch.labels {
		if lab == defaultCondition {
			otherwise = ch.values[i]
			continue
		}
		to, msg, hints := l.find(lab)
		switch {
		case to == nil:
			if good = false; msg == "" {
				t.bad = true // its package has errors of its own, which explain it
			} else {
				c.fail(ch.keys[i], "select: "+msg, hints...)
			}
			continue
		case to.rule != configSetting:
			good = false
			c.fail(ch.keys[i], fmt.Sprintf("select: %s is a %s, and conditions are config_settings", lab, to.rule.Name()))
			continue
		case !to.visibleFrom(t.label.Pkg):
			good = false
			c.fail(ch.keys[i], fmt.Sprintf("select: %s is not visible from //%s", lab, t.label.Pkg),
				fmt.Sprintf("add visibility = [\"//%s:__pkg__\"] to it, at %s", t.label.Pkg, to.attrPos("")))
			continue
		}
		if !slices.ContainsFunc(c.settings, func(d dep) bool { return d.to == to }) {
			c.settings = append(c.settings, dep{attr: c.name, text: ch.keys[i], to: to, condition: true})
		}
		if good = good && !to.bad; to.bad {
			continue
		}
		asked[i] = to.conditions()
		if !l.config.holds(asked[i]) || slices.ContainsFunc(best, func(b int) bool { return refines(asked[b], asked[i]) }) {
			continue
		}
		best = slices.DeleteFunc(best, func(b int) bool { return refines(asked[i], asked[b]) })
		best = append(best, i)
	}
	switch {
	case !good:
		return nil
	case len(best) == 0 && otherwise != nil:
		return otherwise
	case len(best) == 0:
		var hints []string
		if ch.noMatch != "" {
			hints = append(hints, ch.noMatch)
		}
		for i, lab := range ch.labels {
			hints = append(hints, fmt.Sprintf("%s wants %s", lab, describeConditions(asked[i])))
		}
		hints = append(hints, "the configuration has "+l.config.describe(), "add a branch \"//conditions:default\", or choose another with --config, --platform or --define")
		c.fail("", "select: none of the conditions holds", hints...)
		return nil
	}
	for _, i := range best[1:] {
		if same, err := starlark.Equal(ch.values[best[0]], ch.values[i]); err != nil || !same {
			c.fail("", fmt.Sprintf("select: %s and %s both hold, and give different values", ch.labels[best[0]], ch.labels[i]),
				fmt.Sprintf("%s wants %s", ch.labels[best[0]], describeConditions(asked[best[0]])),
				fmt.Sprintf("%s wants %s", ch.labels[i], describeConditions(asked[i])),
				"the one that wants all that the other wants, and more, would win: make a config_setting of both, or give both one value")
			return nil
		}
	}
	return ch.values[best[0]]
}

// describeConditions tells what a config_setting asks for, for messages.
func describeConditions(conditions map[string]string) string {
	var words []string
	if _, ok := conditions["variant"]; ok {
		words = append(words, "platform "+platformOf(conditions))
	}
	for k, v := range conditions {
		switch {
		case k == "os" || k == "cpu" || k == "config":
			if _, whole := conditions["variant"]; !whole || k == "config" {
				words = append(words, k+" "+v)
			}
		case k != "variant":
			words = append(words, k+"="+v)
		}
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// concatenate joins values of an attribute into one.
func concatenate(a *attribute, values []starlark.Value) (starlark.Value, error) {
	if len(values) == 1 {
		return values[0], nil
	}
	var sum starlark.Value
	switch a.kind {
	case "string":
		var b strings.Builder
		for _, v := range values {
			b.WriteString(string(v.(starlark.String)))
		}
		sum = starlark.String(b.String())
	case "string_list", "label_list":
		var elems []starlark.Value
		for _, v := range values {
			elems = slices.AppendSeq(elems, starlark.Elements(v.(*starlark.List)))
		}
		sum = starlark.NewList(elems)
	case "string_dict":
		d := starlark.NewDict(0)
		for _, v := range values {
			for _, kv := range v.(*starlark.Dict).Items() {
				if err := d.SetKey(kv[0], kv[1]); err != nil {
					return nil, err
				}
			}
		}
		sum = d
	}
	return a.check(sum)
}
