package load

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// An Outline is what evaluating one package gave, without the values: enough to know what its targets depend on, and
// whether another tree gives the same. It holds for every tree in which its [Inputs] are the same.
type Outline struct {
	Inputs  [32]byte // digest of all that evaluation saw
	File    string   // the BUILD file
	Modules []string // labels of the .bzl files that it loads and that these load, sorted
	Reads   []string // files that read_json read
	Targets []OutlineTarget
	// Volatile: a select() asks a config_setting of another package, which is not among the inputs. The outline holds for
	// no other tree.
	Volatile bool
}

// An OutlineTarget is a target of an [Outline].
type OutlineTarget struct {
	Name  string
	Kind  string
	Tags  []string
	Reads bool     // its rule reads files of the package, be they named by an attribute or not
	Sum   [16]byte // digest of the rule and the attributes
	Seen  string   // by whom: its visibility, separated by spaces
	Srcs  []string // files that attributes name, relative to the package, sorted
	Deps  []OutlineDep
}

// An OutlineDep is a target that another names in an attribute. It need not exist.
type OutlineDep struct {
	Attr string
	To   label.Label
}

// outlineVersion rises when the same inputs give another outline.
const outlineVersion = 3

// A digest hashes strings, each behind its length.
type digest struct{ b []byte }

func (d *digest) add(ss ...string) {
	for _, s := range ss {
		d.b = binary.AppendUvarint(d.b, uint64(len(s)))
		d.b = append(d.b, s...)
	}
}

func (d *digest) sum() [32]byte { return sha256.Sum256(d.b) }

// Environment is a digest of what every package's evaluation sees: what WORKSPACE says, the configuration, the built-in
// rules, and the program behind them.
func (l *Loader) Environment() [32]byte { return l.environment }

func (l *Loader) digestEnvironment() ([32]byte, error) {
	var f digest
	f.add(fmt.Sprint(outlineVersion), l.opts.Program, fmt.Sprintf("%+v", l.workspace))
	// What a config_setting may name.
	f.add(fmt.Sprintf("%q %+v", l.config.names(), l.config.defines))
	for _, id := range slices.Sorted(maps.Keys(l.modules)) { // of the prelude: nothing else is there yet
		text, _, _, err := l.source(id)
		if err != nil {
			return [32]byte{}, err
		}
		f.add(id, string(text))
	}
	return f.sum(), nil
}

// Inputs is a digest of what the evaluation of a package of tree sees, if it loads those modules and reads those files: the
// environment (see [Loader.Environment]), the names and modes of its files, and the text of its BUILD file, of modules
// and of read files, by blob id.
func Inputs(tree Tree, environment [32]byte, pkg string, modules, reads []string) ([32]byte, error) {
	f := digest{append(make([]byte, 0, 1024), environment[:]...)}
	var err error
	blob := func(kind, file string) {
		id, e := TextID(tree, file)
		if e != nil && err == nil {
			err = e
		}
		f.add(kind, file, id)
	}
	for _, name := range tree.BuildFiles(pkg) {
		blob("BUILD", path.Join(pkg, name))
	}
	for _, id := range modules {
		if lab, err := label.Parse(id, ""); err == nil {
			blob("load", path.Join(lab.Pkg, lab.Name))
		}
	}
	for _, file := range reads {
		blob("read", file)
	}
	for file := range tree.Owned(pkg) {
		f.b = append(f.b, byte(file.Mode))
		f.add(file.Path)
	}
	return f.sum(), err
}

// TextID tells texts of a file apart: it is the file's blob id, or, as a symlink may lead anywhere in the tree, a digest of
// what it leads to. It is "" where there is nothing to read.
func TextID(tree Tree, file string) (string, error) {
	f, ok := tree.Lookup(file)
	if !ok {
		return "", nil
	}
	if f.Mode != workspace.Symlink {
		return tree.Blob(file)
	}
	text, err := tree.ReadFile(file)
	if err != nil {
		return "", nil // who needs it finds out
	}
	return fmt.Sprintf("symlink %x", sha256.Sum256(text)), nil
}

// Outlines evaluates the packages named and returns the outline of each, in their order, without looking at what they
// depend on; that a label names no target is found by [Loader.Resolve]. Errors come sorted by position; a package that
// has some has no outline.
func (l *Loader) Outlines(ctx context.Context, names []string) ([]*Outline, []error) {
	l.loading.Lock()
	defer l.loading.Unlock()
	l.packages(ctx, names)
	out := make([]*Outline, len(names))
	var errs errorList
	l.each(len(names), func(i int) {
		p := l.pkg(names[i])
		found := p.errs.all()
		if len(found) == 0 && ctx.Err() == nil {
			var err error
			if out[i], err = p.outline(); err != nil {
				found = []error{err}
			}
		}
		for _, err := range found {
			errs.add(err)
		}
	})
	if err := ctx.Err(); err != nil {
		return nil, []error{err}
	}
	return out, errs.sorted()
}

func (p *pkg) outline() (*Outline, error) {
	o := &Outline{File: p.file, Targets: make([]OutlineTarget, 0, len(p.targets))}
	for m := range closure(p.loads) {
		if !strings.HasPrefix(m.id, "@") {
			o.Modules = append(o.Modules, m.id)
		}
	}
	slices.Sort(o.Modules)
	o.Reads = slices.Compact(slices.Sorted(slices.Values(p.reads)))
	var err error
	if o.Inputs, err = Inputs(p.loader.opts.Tree, p.loader.environment, p.name, o.Modules, o.Reads); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(p.targets)) {
		t, volatile, err := p.targets[name].outline()
		if err != nil {
			return nil, err
		}
		o.Volatile = o.Volatile || volatile
		o.Targets = append(o.Targets, t)
	}
	return o, nil
}

// closure is modules and all that they load.
func closure(modules []*module) map[*module]bool {
	all := map[*module]bool{}
	var add func(ms *module)
	add = func(m *module) {
		if !all[m] {
			all[m] = true
			for _, e := range m.loads {
				add(e.to)
			}
		}
	}
	for _, m := range modules {
		add(m)
	}
	return all
}

func (t *target) outline() (o OutlineTarget, volatile bool, err error) {
	o = OutlineTarget{Name: t.label.Name, Kind: t.rule.Name(), Tags: t.strings("tags"), Reads: t.rule.reads, Seen: strings.Join(t.visibility(), " ")}
	text, err := t.pkg.loader.ruleText(t.rule)
	sum := digest{make([]byte, 0, 512)}
	sum.add(t.rule.file, t.rule.name, text)
	for _, name := range t.rule.order {
		sum.add(name)
		digestValue(&sum, t.value(name))
		for _, lab := range t.conditionLabels(name) {
			o.Deps = append(o.Deps, OutlineDep{name, lab})
			volatile = volatile || lab.Pkg != t.label.Pkg
		}
		if c, ok := t.attrs[name].(*conditional); ok && len(c.errs) > 0 {
			return o, false, errors.Join(c.errs...)
		}
		if !t.rule.attrs[name].labels() {
			continue
		}
		for _, s := range t.strings(name) {
			// What a package below took is no file of this one: as a label it leads nowhere, and resolving it tells why.
			if t.namesFile(s) && t.pkg.loader.owner(path.Join(t.label.Pkg, s)) == t.label.Pkg {
				o.Srcs = append(o.Srcs, s)
			} else if lab, err := label.Parse(s, t.label.Pkg); err == nil {
				o.Deps = append(o.Deps, OutlineDep{name, lab})
			}
		}
	}
	slices.Sort(o.Srcs)
	o.Srcs = slices.Compact(o.Srcs)
	whole := sum.sum()
	copy(o.Sum[:], whole[:])
	return o, volatile, err
}

// AttributeSums returns a digest of each attribute of a target, by name. The packages that its labels name need not load.
func (l *Loader) AttributeSums(ctx context.Context, lab label.Label) (map[string][32]byte, error) {
	l.loading.Lock()
	defer l.loading.Unlock()
	if l.isPkg[lab.Pkg] {
		l.packages(ctx, []string{lab.Pkg})
	}
	t, msg, hints := l.find(lab)
	if t == nil {
		return nil, &graph.Error{Msg: msg, Hints: hints}
	}
	sums := map[string][32]byte{}
	for name := range t.attrs {
		var d digest
		digestValue(&d, t.value(name))
		sums[name] = d.sum()
	}
	return sums, ctx.Err()
}

// digestValue hashes the value of an attribute.
func digestValue(f *digest, v starlark.Value) {
	switch v := v.(type) {
	case starlark.String:
		f.add("s", string(v))
	case *starlark.List:
		f.add("[")
		for e := range v.Elements() {
			digestValue(f, e)
		}
		f.add("]")
	case *starlark.Dict:
		f.add("{")
		for _, kv := range v.Items() {
			digestValue(f, kv[0])
			digestValue(f, kv[1])
		}
		f.add("}")
	default:
		f.add(v.Type(), v.String())
	}
}

// ruleText identifies the text of the file that defines a rule and of all that this loads: the implementation is somewhere
// in it. The built-in rules are the same in all trees.
func (l *Loader) ruleText(r *rule) (string, error) {
	if strings.HasPrefix(r.file, "@") {
		return "", nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if text, ok := l.ruleTexts[r.file]; ok {
		return text, nil
	}
	var modules []*module
	for _, m := range l.modules {
		if m.file == r.file {
			modules = append(modules, m)
		}
	}
	var ids []string
	for m := range closure(modules) {
		if !strings.HasPrefix(m.id, "@") {
			id, err := TextID(l.opts.Tree, m.file)
			if err != nil {
				return "", err
			}
			ids = append(ids, m.file+" "+id)
		}
	}
	slices.Sort(ids)
	l.ruleTexts[r.file] = strings.Join(ids, "\n")
	return l.ruleTexts[r.file], nil
}

// namesFile tells whether s, in a label attribute, is a file of the package and no target.
func (t *target) namesFile(s string) bool {
	// A file's name may hold what a label may not, so files come first; a target of that name hides its file.
	if strings.HasPrefix(s, "//") || strings.HasPrefix(s, ":") || t.pkg.targets[s] != nil {
		return false
	}
	file := path.Join(t.label.Pkg, s)
	_, ok := t.pkg.loader.opts.Tree.Lookup(file)
	return ok && inside(file, t.label.Pkg)
}
