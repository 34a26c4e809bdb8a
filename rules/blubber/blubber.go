// Package blubber reads Blubber's configuration, version 4, and says what the images of its variants are made of, in steps that rules carry out.
//
// It follows Blubber's documentation of that version (docs/configuration.md) and, where that is silent, what it does: scalars of later
// parts win, packages of apt and copies add up, requirements and commands are replaced as a whole. A key that has no meaning here is an error
// with its place, of each variant that it is part of. Not supported are python, mounts, patterns in what is copied from a variant, and variables in paths
// other than those of caches.
package blubber

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Local names the folder of the configuration as the place that files come from.
const Local = "local"

// libDir is where libraries of an application are kept, besides its own folder.
const libDir = "/opt/lib"

// A Config is one file.
type Config struct {
	file     string
	top      *part
	variants map[string]*part
	order    []string // of variants, as they stand
}

// Variants are the names of all, as they stand in the file.
func (c *Config) Variants() []string { return slices.Clone(c.order) }

// Whole are the names of those that no other includes.
func (c *Config) Whole() []string {
	return slices.DeleteFunc(c.Variants(), func(name string) bool {
		return slices.ContainsFunc(c.order, func(o string) bool {
			return slices.ContainsFunc(c.variants[o].includes, func(in *yaml.Node) bool { return in.Value == name })
		})
	})
}

// Has tells whether there is a variant of that name.
func (c *Config) Has(variant string) bool { return c.variants[variant] != nil }

// A variant is what a variant asks for, by keys of the configuration; what is not set is zero.
type variant struct {
	base        string // "" is scratch
	apt         apt
	lives, runs user
	livesIn     string            // the application's folder
	runsIn      string            // where it runs, if not there
	environment map[string]string // when it runs
	insecurely  *bool             // it runs as who owns its files
	builders    []builder         // in the order in which they run
	listed      bool              // builders stand in a list
	copies      []artifact
	entrypoint  []string
	arguments   map[string]string
}

// A user is a name and numbers.
type user struct {
	as       string
	uid, gid int64
}

func (u *user) merge(o user) {
	if o.as != "" {
		u.as = o.as
	}
	if o.uid != 0 {
		u.uid = o.uid
	}
	if o.gid != 0 {
		u.gid = o.gid
	}
}

func (u user) String() string { return fmt.Sprintf("%d:%d", u.uid, u.gid) }

// apt is what to install, by target release, and from where.
type apt struct {
	packages map[string][]string // by target release; defaultRelease is that of the base
	sources  []source
	proxies  []proxy
}

const defaultRelease = "default"

// A source is one archive, to be used while packages are installed and after.
type source struct {
	url, distribution string
	components        []string
	signedBy          string
}

// A proxy is for all sources of its own scheme, or for one.
type proxy struct{ url, source string }

// The kinds of builders, in the order in which they run if they stand outside a list.
const (
	custom = "custom"
	node   = "node"
	php    = "php"
)

var builderOrder = []string{node, php, custom}

// A builder is one step: files that it needs, then what it runs.
type builder struct {
	kind         string
	command      []string // of custom; nil where there is none
	script       string   // of custom
	caches       []cache  // of custom; nil where there are none
	requirements []artifact
	required     bool // requirements are set

	env                   string // of node: NODE_ENV
	useNpmCi, allowDedupe *bool
	production            *bool // of php
}

// A cache is a folder that outlives a step.
type cache struct{ destination, id string }

// merge lays o over b: what o sets wins.
func (b *builder) merge(o builder) {
	if o.command != nil {
		b.command = o.command
	}
	if o.script != "" {
		b.script = o.script
	}
	if o.caches != nil {
		b.caches = o.caches
	}
	if o.required {
		b.requirements, b.required = o.requirements, true
	}
	if o.env != "" {
		b.env = o.env
	}
	b.useNpmCi = later(b.useNpmCi, o.useNpmCi)
	b.allowDedupe = later(b.allowDedupe, o.allowDedupe)
	b.production = later(b.production, o.production)
}

func later(a, b *bool) *bool {
	if b != nil {
		return b
	}
	return a
}

// An artifact is files taken from the configuration's folder, or from another variant.
type artifact struct {
	from, source, destination string
	exclude                   []string
	pos                       string
}

func (a artifact) same(b artifact) bool {
	return a.from == b.from && a.source == b.source && a.destination == b.destination && slices.Equal(a.exclude, b.exclude)
}

// merge lays o over v, as Blubber lays a variant over what it includes.
func (v *variant) merge(o *variant) {
	if o.base != "" {
		v.base = o.base
	}
	for _, release := range slices.Sorted(maps.Keys(o.apt.packages)) {
		if v.apt.packages == nil {
			v.apt.packages = map[string][]string{}
		}
		v.apt.packages[release] = append(slices.Clone(v.apt.packages[release]), o.apt.packages[release]...)
	}
	v.apt.sources = append(slices.Clone(v.apt.sources), o.apt.sources...)
	v.apt.proxies = append(slices.Clone(v.apt.proxies), o.apt.proxies...)
	v.lives.merge(o.lives)
	v.runs.merge(o.runs)
	if o.livesIn != "" {
		v.livesIn = o.livesIn
	}
	if o.runsIn != "" {
		v.runsIn = o.runsIn
	}
	v.environment = over(v.environment, o.environment)
	v.arguments = over(v.arguments, o.arguments)
	v.insecurely = later(v.insecurely, o.insecurely)
	if o.entrypoint != nil {
		v.entrypoint = o.entrypoint
	}
	v.copies = slices.DeleteFunc(slices.Clone(v.copies), func(a artifact) bool { return slices.ContainsFunc(o.copies, a.same) })
	v.copies = append(v.copies, o.copies...)
	v.mergeBuilders(o)
}

// mergeBuilders: those of a list follow one another, but there is one of each predefined kind, where it stands last. Outside a list there is one of each kind.
func (v *variant) mergeBuilders(o *variant) {
	v.listed = v.listed || o.listed
	theirs := slices.Clone(o.builders)
	var leading []builder
	for _, b := range v.builders {
		i := slices.IndexFunc(theirs, func(t builder) bool { return t.kind == b.kind && (b.kind != custom || !v.listed) })
		if i < 0 {
			leading = append(leading, b)
			continue
		}
		b.merge(theirs[i])
		theirs[i] = b
	}
	v.builders = append(leading, theirs...)
}

func over(under, on map[string]string) map[string]string {
	all := maps.Clone(under)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, on)
	return all
}

// expand returns a variant with all that it includes, on what stands at the top and Blubber's defaults.
func (c *Config) expand(name string) (*variant, error) {
	v := &variant{lives: user{"somebody", 65533, 65533}, runs: user{"runuser", 900, 900}, livesIn: "/srv/app"}
	v.merge(&c.top.variant)
	done := map[string]bool{}
	unsupported := slices.Clone(c.top.unsupported)
	var include func(name string, through []string) error
	include = func(name string, through []string) error {
		p := c.variants[name]
		if slices.Contains(through, name) {
			return &Error{p.pos, fmt.Sprintf("variant %s includes itself: %s", name, chain(through, name))}
		}
		if done[name] {
			return nil
		}
		for _, in := range p.includes {
			if err := include(in.Value, append(slices.Clone(through), name)); err != nil {
				return err
			}
		}
		done[name] = true
		unsupported = append(unsupported, p.unsupported...)
		v.merge(&p.variant)
		return nil
	}
	if err := include(name, nil); err != nil {
		return nil, err
	}
	if len(unsupported) > 0 {
		return nil, joined(unsupported)
	}
	if p := c.variants[name]; v.listed && slices.ContainsFunc(c.parts(done), func(p *part) bool { return len(p.builders) > 0 && !p.listed }) {
		return nil, &Error{p.pos, fmt.Sprintf("variant %s has builders, and builder, node or php beside it: put all into builders", name)}
	}
	if !v.listed {
		slices.SortStableFunc(v.builders, func(a, b builder) int {
			return slices.Index(builderOrder, a.kind) - slices.Index(builderOrder, b.kind)
		})
	}
	return v, nil
}

// chain is a cycle that ends where name comes again.
func chain(through []string, name string) string {
	return strings.Join(append(slices.Clone(through[slices.Index(through, name):]), name), " -> ")
}

// parts are the top and the variants that were included.
func (c *Config) parts(included map[string]bool) []*part {
	all := []*part{c.top}
	for _, name := range c.order {
		if included[name] {
			all = append(all, c.variants[name])
		}
	}
	return all
}

// Error is one mistake, at its place.
type Error struct{ Pos, Msg string }

func (e *Error) Error() string { return e.Pos + ": " + e.Msg }

// Parse reads a configuration; file is its name in messages.
func Parse(file string, text []byte) (*Config, []error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, []error{&Error{file, strings.TrimPrefix(err.Error(), "yaml: ")}}
	}
	p := &parser{file: file}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, []error{&Error{file + ":1:1", "want a mapping, with version: v4"}}
	}
	c := &Config{file: file, variants: map[string]*part{}}
	root := doc.Content[0]
	switch version := lookup(root, "version"); {
	case version == nil:
		p.add(root, "version is missing: want v4")
	case version.Value != "v4":
		p.add(version, "version: %s is not supported: want v4", version.Value)
	}
	c.top = p.part(root, true)
	if variants := lookup(root, "variants"); variants != nil {
		p.mapping(variants, "variants", func(key, value *yaml.Node) {
			c.variants[key.Value] = p.part(value, false)
			c.variants[key.Value].pos = p.pos(key)
			c.order = append(c.order, key.Value)
			if key.Value == Local {
				p.add(key, "variants: %s means the folder of the configuration: want another name", Local)
			}
		})
	}
	for _, name := range c.order {
		v := c.variants[name]
		for _, in := range v.includes {
			if c.variants[in.Value] == nil {
				p.add(in, "includes: there is no variant %s: there are %s", in.Value, strings.Join(c.order, ", "))
			}
		}
	}
	for _, part := range c.parts(allOf(c.order)) {
		all := slices.Clone(part.copies)
		for _, b := range part.builders {
			all = append(all, b.requirements...)
		}
		for _, a := range all {
			if a.from != Local && a.from != "" && c.variants[a.from] == nil {
				p.errs = append(p.errs, &Error{a.pos, fmt.Sprintf("from: there is no variant %s: there are %s, %s", a.from, Local, strings.Join(c.order, ", "))})
			}
		}
	}
	if len(p.errs) > 0 {
		slices.SortStableFunc(p.errs, func(a, b error) int { return place(a) - place(b) })
		return nil, p.errs
	}
	return c, nil
}

// place is the line of a mistake, and the column in it, as one number to sort by.
func place(err error) int {
	var e *Error
	if !errors.As(err, &e) {
		return 0
	}
	var line, col int
	fmt.Sscanf(e.Pos[strings.LastIndex(e.Pos[:strings.LastIndex(e.Pos, ":")], ":")+1:], "%d:%d", &line, &col)
	return line<<16 + col
}

func allOf(names []string) map[string]bool {
	all := map[string]bool{}
	for _, n := range names {
		all[n] = true
	}
	return all
}

// A part is what stands at the top, or in a variant.
type part struct {
	variant
	pos      string
	includes []*yaml.Node
	single   *yaml.Node // a builder outside a list

	unsupported []error // keys that have no meaning here
}

type parser struct {
	file        string
	errs        []error
	unsupported []error // of the part that is read
}

func (p *parser) pos(n *yaml.Node) string { return fmt.Sprintf("%s:%d:%d", p.file, n.Line, n.Column) }

func (p *parser) add(n *yaml.Node, format string, args ...any) {
	p.errs = append(p.errs, &Error{p.pos(n), fmt.Sprintf(format, args...)})
}

// lookup is the value of a key of a mapping, or nil.
func lookup(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return resolve(m.Content[i+1])
		}
	}
	return nil
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// mapping calls got for each pair of a mapping.
func (p *parser) mapping(n *yaml.Node, what string, got func(key, value *yaml.Node)) {
	if n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.add(n, "%s: want a mapping", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Tag == "!!merge":
			p.add(key, "%s: << is not supported: write the keys out, or use includes", what)
			continue
		case seen[key.Value]:
			p.add(key, "%s: %s stands twice", what, key.Value)
			continue
		}
		seen[key.Value] = true
		got(key, resolve(n.Content[i+1]))
	}
}

// list calls got for each element of a list.
func (p *parser) list(n *yaml.Node, what string, got func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		p.add(n, "%s: want a list", what)
		return
	}
	for _, e := range n.Content {
		got(resolve(e))
	}
}

func (p *parser) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || strings.ContainsRune(n.Value, 0) {
		p.add(n, "%s: want a string", what)
		return ""
	}
	return n.Value
}

func (p *parser) texts(n *yaml.Node, what string) []string {
	all := []string{}
	p.list(n, what, func(e *yaml.Node) { all = append(all, p.text(e, what)) })
	return all
}

// dict reads names and their values.
func (p *parser) dict(n *yaml.Node, what string) map[string]string {
	all := map[string]string{}
	p.mapping(n, what, func(key, value *yaml.Node) {
		if !isName(key.Value) {
			p.add(key, "%s: %q is no name of a variable", what, key.Value)
		}
		all[key.Value] = p.text(value, what+"."+key.Value)
	})
	return all
}

// isName tells whether s can be a variable of a shell.
func isName(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

func (p *parser) flag(n *yaml.Node, what string) *bool {
	var b bool
	if n.Tag != "!!bool" || n.Decode(&b) != nil {
		p.add(n, "%s: want true or false", what)
	}
	return &b
}

func (p *parser) number(n *yaml.Node, what string) int64 {
	var i int64
	if n.Tag != "!!int" || n.Decode(&i) != nil || i < 0 || i > 1<<32-2 {
		p.add(n, "%s: want a number of a user or group", what)
	}
	return i
}

func (p *parser) folder(n *yaml.Node, what string) string {
	s := p.text(n, what)
	if !path.IsAbs(s) || path.Clean(s) == "/" || strings.Contains(s, "$") {
		p.add(n, "%s: %q: want the absolute path of a folder", what, s)
	}
	return path.Clean(s)
}

// unknown notes a key that has no meaning here.
func (p *parser) unknown(key *yaml.Node, in, more string) {
	p.unsupported = append(p.unsupported, &Error{p.pos(key), fmt.Sprintf("%s%s is not supported here%s", in, key.Value, more)})
}

// part reads what can stand at the top and in a variant, and what only one of them has.
func (p *parser) part(n *yaml.Node, top bool) *part {
	out := &part{pos: p.pos(n)}
	p.unsupported = nil
	defer func() { out.unsupported = p.unsupported }()
	v := &out.variant
	p.mapping(n, "variant", func(key, value *yaml.Node) {
		switch key.Value {
		case "version", "variants":
			if !top {
				p.add(key, "%s: it belongs at the top of the file", key.Value)
			}
		case "includes", "copies":
			if top {
				p.add(key, "%s: only a variant has it", key.Value)
			} else if key.Value == "includes" {
				p.list(value, "includes", func(e *yaml.Node) { out.includes = append(out.includes, e) })
			} else {
				v.copies = p.copies(value)
			}
		case "entrypoint":
			v.entrypoint = p.texts(value, "entrypoint")
		case "base":
			if value.Tag != "!!null" {
				v.base = p.text(value, "base")
			}
		case "apt":
			v.apt = p.apt(value)
		case "lives":
			v.lives, v.livesIn = p.user(key, value, nil)
		case "runs":
			v.runs, v.runsIn = p.user(key, value, func(k, x *yaml.Node) bool {
				switch k.Value {
				case "environment":
					v.environment = p.dict(x, "runs.environment")
				case "insecurely":
					v.insecurely = p.flag(x, "runs.insecurely")
				default:
					return false
				}
				return true
			})
		case "arguments":
			v.arguments = p.dict(value, "arguments")
		case "builder", node, php:
			kind := key.Value
			if kind == "builder" {
				kind = custom
			}
			v.builders = append(v.builders, p.builder(key, value, kind))
			out.single = key
		case "builders":
			v.listed = true
			p.list(value, "builders", func(e *yaml.Node) {
				p.mapping(e, "builders", func(k, x *yaml.Node) {
					switch k.Value {
					case node, php:
						if slices.ContainsFunc(v.builders, func(b builder) bool { return b.kind == k.Value }) {
							p.add(k, "builders: %s stands twice", k.Value)
						}
						fallthrough
					case custom:
						v.builders = append(v.builders, p.builder(k, x, k.Value))
					default:
						p.unknown(k, "builders: ", ": want custom, node or php")
					}
				})
			})
		default:
			p.unknown(key, "", "")
		}
	})
	if v.listed && out.single != nil {
		p.add(out.single, "%s: there are builders too: put it into that list", out.single.Value)
	}
	return out
}

// user reads lives or runs; more reads keys that only one of them has, and tells whether it did.
func (p *parser) user(key, n *yaml.Node, more func(key, value *yaml.Node) bool) (u user, in string) {
	what := key.Value + "."
	p.mapping(n, key.Value, func(k, x *yaml.Node) {
		switch k.Value {
		case "as":
			if u.as = p.text(x, what+"as"); u.as == "" || strings.ContainsAny(u.as, ":/ \n$'\"") {
				p.add(x, "%sas: %q is no name of a user", what, u.as)
			}
		case "uid":
			u.uid = p.number(x, what+"uid")
		case "gid":
			u.gid = p.number(x, what+"gid")
		case "in":
			in = p.folder(x, what+"in")
		default:
			if more == nil || !more(k, x) {
				p.unknown(k, what, "")
			}
		}
	})
	return u, in
}

func (p *parser) apt(n *yaml.Node) apt {
	var a apt
	p.mapping(n, "apt", func(key, value *yaml.Node) {
		switch key.Value {
		case "packages":
			a.packages = map[string][]string{}
			if value.Kind != yaml.MappingNode {
				a.packages[defaultRelease] = p.packages(value)
				return
			}
			p.mapping(value, "apt.packages", func(k, x *yaml.Node) { a.packages[p.word(k, "apt.packages")] = p.packages(x) })
		case "sources":
			p.list(value, "apt.sources", func(e *yaml.Node) {
				var s source
				p.mapping(e, "apt.sources", func(k, x *yaml.Node) {
					switch k.Value {
					case "url":
						s.url = p.word(x, "apt.sources.url")
					case "distribution":
						s.distribution = p.word(x, "apt.sources.distribution")
					case "components":
						p.list(x, "apt.sources.components", func(c *yaml.Node) { s.components = append(s.components, p.word(c, "apt.sources.components")) })
					case "signed-by":
						s.signedBy = p.text(x, "apt.sources.signed-by")
					default:
						p.unknown(k, "apt.sources.", "")
					}
				})
				if s.url == "" || s.distribution == "" {
					p.add(e, "apt.sources: want a url and a distribution")
				}
				a.sources = append(a.sources, s)
			})
		case "proxies":
			p.list(value, "apt.proxies", func(e *yaml.Node) {
				var x proxy
				if e.Kind == yaml.ScalarNode {
					x.url = p.address(e, "apt.proxies")
				} else {
					p.mapping(e, "apt.proxies", func(k, v *yaml.Node) {
						switch k.Value {
						case "url":
							x.url = p.address(v, "apt.proxies.url")
						case "source":
							x.source = p.address(v, "apt.proxies.source")
						default:
							p.unknown(k, "apt.proxies.", "")
						}
					})
				}
				if x.url == "" {
					p.add(e, "apt.proxies: want a url")
				}
				a.proxies = append(a.proxies, x)
			})
		default:
			p.unknown(key, "apt.", "")
		}
	})
	return a
}

func (p *parser) packages(n *yaml.Node) []string {
	all := []string{}
	p.list(n, "apt.packages", func(e *yaml.Node) { all = append(all, p.word(e, "apt.packages")) })
	return all
}

// word reads a string that stands in a shell script or in apt's files as it is.
func (p *parser) word(n *yaml.Node, what string) string {
	s := p.text(n, what)
	if s == "" || strings.HasPrefix(s, "-") || strings.ContainsAny(s, " \t\n'\"\\$`;&|<>()*?#") {
		p.add(n, "%s: %q has signs that it cannot have", what, s)
		return "x"
	}
	return s
}

func (p *parser) address(n *yaml.Node, what string) string {
	s := p.word(n, what)
	if scheme, rest, ok := strings.Cut(s, "://"); !ok || scheme != "http" && scheme != "https" || rest == "" {
		p.add(n, "%s: %q: want a URL of http or https", what, s)
	}
	return s
}

func (p *parser) builder(key, n *yaml.Node, kind string) builder {
	b := builder{kind: kind}
	what := key.Value + "."
	p.mapping(n, key.Value, func(k, x *yaml.Node) {
		switch kind + "." + k.Value {
		case "custom.command":
			if x.Kind == yaml.ScalarNode {
				b.command = []string{p.text(x, what+"command")}
			} else {
				b.command = p.texts(x, what+"command")
			}
		case "custom.script":
			if b.script = p.text(x, what+"script"); strings.HasPrefix(b.script, "#!") && !strings.HasPrefix(b.script, "#!/bin/sh\n") {
				p.add(x, "%sscript: only scripts of /bin/sh are supported", what)
			}
		case "custom.caches":
			b.caches = p.caches(x, what+"caches")
		case "custom.requirements", "node.requirements", "php.requirements":
			b.requirements, b.required = p.requirements(x, what+"requirements"), true
		case "node.env":
			b.env = p.text(x, what+"env")
		case "node.use-npm-ci":
			b.useNpmCi = p.flag(x, what+"use-npm-ci")
		case "node.allow-dedupe-failure":
			b.allowDedupe = p.flag(x, what+"allow-dedupe-failure")
		case "php.production":
			b.production = p.flag(x, what+"production")
		default:
			p.unknown(k, what, "")
		}
	})
	if b.command != nil && b.script != "" {
		p.add(n, "%s: give one of command and script", key.Value)
	}
	return b
}

// caches reads folders that outlive a builder. Whether several steps may use one at once is not asked: they do not.
func (p *parser) caches(n *yaml.Node, what string) []cache {
	all := []cache{}
	p.list(n, what, func(e *yaml.Node) {
		var c cache
		if e.Kind == yaml.ScalarNode {
			c.destination = p.text(e, what)
		} else {
			p.mapping(e, what, func(k, x *yaml.Node) {
				switch k.Value {
				case "destination":
					c.destination = p.text(x, what+".destination")
				case "id":
					c.id = p.text(x, what+".id")
				case "access":
					if access := p.text(x, what+".access"); !slices.Contains([]string{"locked", "private", "shared"}, access) {
						p.add(x, "%s.access: %q: want locked, private or shared", what, access)
					}
				default:
					p.unknown(k, what+".", "")
				}
			})
		}
		if c.destination == "" {
			p.add(e, "%s: want a destination", what)
		}
		all = append(all, c)
	})
	return all
}

// artifact reads the long form of what to copy.
func (p *parser) artifact(n *yaml.Node, what string) artifact {
	a := artifact{pos: p.pos(n)}
	p.mapping(n, what, func(k, x *yaml.Node) {
		switch k.Value {
		case "from":
			a.from = p.text(x, what+".from")
		case "source":
			a.source = p.text(x, what+".source")
		case "destination":
			a.destination = p.text(x, what+".destination")
		case "exclude":
			a.exclude = p.texts(x, what+".exclude")
		default:
			p.unknown(k, what+".", "")
		}
	})
	return a
}

// copies reads what an image holds: variants, or files of them.
func (p *parser) copies(n *yaml.Node) []artifact {
	all := []artifact{}
	p.list(n, "copies", func(e *yaml.Node) {
		a := artifact{pos: p.pos(e)}
		if e.Kind == yaml.ScalarNode {
			a.from = p.text(e, "copies")
		} else if a = p.artifact(e, "copies"); a.from == "" {
			p.add(e, "copies: want from: %s, or a variant", Local)
		}
		p.check(e, "copies", a)
		all = append(all, a)
	})
	return all
}

// requirements reads what a builder needs: files of the configuration's folder, or of variants.
func (p *parser) requirements(n *yaml.Node, what string) []artifact {
	all := []artifact{}
	p.list(n, what, func(e *yaml.Node) {
		a := artifact{pos: p.pos(e), from: Local}
		if e.Kind == yaml.ScalarNode {
			a.source = p.text(e, what)
		} else if a = p.artifact(e, what); a.from == "" {
			a.from = Local
		}
		if a.source == "" {
			p.add(e, "%s: want a source", what)
		}
		p.check(e, what, a)
		all = append(all, a)
	})
	return all
}

// check looks at paths.
func (p *parser) check(n *yaml.Node, what string, a artifact) {
	switch {
	case a.source == "" && a.destination != "":
		p.add(n, "%s: destination: it needs a source", what)
	case a.from == Local && (path.IsAbs(a.source) || path.Clean(a.source) == ".." || strings.HasPrefix(path.Clean(a.source), "../")):
		p.add(n, "%s: source: %s is not in the folder of the configuration", what, a.source)
	case strings.Contains(a.source, "$") || strings.Contains(a.destination, "$"):
		p.add(n, "%s: variables in paths are not supported here", what)
	case a.from != Local && strings.ContainsAny(a.source, "*?["):
		p.add(n, "%s: source: %s: patterns are not supported in what is copied from a variant", what, a.source)
	case a.from != Local && len(a.exclude) > 0:
		p.add(n, "%s: exclude is supported only for what is copied from %s", what, Local)
	}
}
