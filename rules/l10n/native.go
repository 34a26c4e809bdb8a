package l10n

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/rules/l10n/php"
	"github.com/mwbuild/mwbuild/rules/l10n/plural"
)

// The kinds of native actions. The number is the version of what computes it: raise it when the same inputs would give
// something else, and then raise it in rules/l10n.star too.
const (
	FragmentKind = "l10n fragment 1" // a component's messages in a language
	CoreKind     = "l10n core 1"     // MediaWiki's MessagesXx.php
	PluralsKind  = "l10n plurals 1"  // plural rules, a file for each language
	AliasesKind  = "l10n aliases 1"  // a component's PHP files, a file for each language
	OutputKind   = "l10n output 1"   // one compiled language
)

// formatNames are what mw_l10n calls the formats.
var formatNames = map[string]Format{"cdb": CDB, "php": StaticArray}

// Tree is where native actions read files.
type Tree interface {
	ReadDigested(path string) ([]byte, error) // what has the digest in the action's key, or an error
}

// Natives computes the native actions. Fragments and their like are kept parsed, up to a bound, for the outputs that
// read them; what was dropped is read from its files again.
type Natives struct {
	Commits *Commits // where updates find what a commit has; nil for no updates from commits

	tree Tree

	// What is read is read for all versions; what a version leaves out is left out by the outputs.
	compiler *Compiler

	mu     sync.Mutex
	parsed map[*action.Native]*list.Element // of *parsedEntry
	recent *list.List                       // latest first
	size   int
}

// parsedSize bounds the memory of what is kept parsed, as its Size tells.
const parsedSize = 80 << 20

type parsedEntry struct {
	do    *action.Native
	once  sync.Once
	value any
	err   error
	size  int
}

// NewNatives returns the native actions over a tree.
func NewNatives(tree Tree) *Natives {
	return &Natives{tree: tree, compiler: NewCompiler(Version{}), parsed: map[*action.Native]*list.Element{}, recent: list.New()}
}

// Functions are the functions of all kinds.
func (n *Natives) Functions() map[string]func(context.Context, *action.Native) ([]action.Made, error) {
	return map[string]func(context.Context, *action.Native) ([]action.Made, error){
		FragmentKind: n.fragment, NewerKind: n.fragment, UpdateKind: n.update, CoreKind: n.core, PluralsKind: n.plurals, AliasesKind: n.aliases, OutputKind: n.output,
	}
}

// parse returns what an action reads, parsed: a *Fragment, *Core, *Aliases, or map of plural rules.
func (n *Natives) parse(do *action.Native) (any, error) {
	n.mu.Lock()
	el := n.parsed[do]
	if el == nil {
		el = n.recent.PushFront(&parsedEntry{do: do})
		n.parsed[do] = el
	} else {
		n.recent.MoveToFront(el)
	}
	n.mu.Unlock()
	e := el.Value.(*parsedEntry)
	e.once.Do(func() {
		e.value, e.err = n.parseNow(do)
		size := 1 << 10
		if s, ok := e.value.(interface{ Size() int }); ok && e.err == nil {
			size += s.Size()
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		e.size = size
		n.size += size
		for last := n.recent.Back(); n.size > parsedSize && last != nil && last != el; last = n.recent.Back() {
			old := last.Value.(*parsedEntry)
			if old.size == 0 {
				break // being parsed
			}
			n.recent.Remove(last)
			delete(n.parsed, old.do)
			n.size -= old.size
		}
	})
	return e.value, e.err
}

func (n *Natives) parseNow(do *action.Native) (any, error) {
	c := n.compiler
	data := make([][]byte, len(do.Files))
	for i, f := range do.Files {
		var err error
		if data[i], err = n.tree.ReadDigested(f.Path); err != nil {
			return nil, err
		}
	}
	switch do.Kind {
	case FragmentKind:
		in := FragmentInput{Component: do.Params["component"] != ""}
		for i, f := range do.Files {
			in.add(f.Role, Source{f.Path, data[i]})
		}
		return c.Fragment(do.Params["language"], in)
	case UpdateKind:
		return n.updated(do, data)
	case NewerKind:
		in, err := n.newer(do, data)
		if err != nil {
			return nil, err
		}
		return c.Fragment(do.Params["language"], in)
	case CoreKind:
		return c.Core(do.Files[0].Path, data[0])
	case AliasesKind:
		consts := map[string]php.Value{}
		for name, value := range do.Params {
			if name, ok := strings.CutPrefix(name, "constant "); ok {
				num, err := strconv.ParseInt(value, 10, 64)
				if err != nil {
					return nil, fmt.Errorf("constants: %s = %q is no number", name, value)
				}
				consts[name] = num
			}
		}
		var files []AliasFile
		for i, f := range do.Files {
			files = append(files, AliasFile{Key: strings.TrimPrefix(f.Role, "file "), Name: f.Path, Data: data[i]})
		}
		return c.Aliases(files, consts)
	case PluralsKind:
		var files []plural.File
		for i, f := range do.Files {
			files = append(files, plural.File{Name: f.Path, Data: data[i]})
		}
		return plural.Load(files...)
	}
	return nil, fmt.Errorf("%s is no input of localisation", do.Kind)
}

// add adds a file in the role "messages KEY" or "aliases KEY".
func (in *FragmentInput) add(role string, file Source) {
	role, key, _ := strings.Cut(role, " ")
	sections := &in.Messages
	if role == "aliases" {
		sections = &in.Aliases
	}
	at := slices.IndexFunc(*sections, func(s Section) bool { return s.Key == key })
	if at < 0 {
		at = len(*sections)
		*sections = append(*sections, Section{Key: key})
	}
	(*sections)[at].Files = append((*sections)[at].Files, file)
}

func file(name string, digest [32]byte, size int) action.Made {
	return action.Made{File: action.File{Path: name, SHA256: hex.EncodeToString(digest[:]), Size: int64(size)}}
}

func (n *Natives) fragment(_ context.Context, do *action.Native) ([]action.Made, error) {
	v, err := n.parse(do)
	if err != nil {
		return nil, err
	}
	f := v.(*Fragment)
	return []action.Made{file("fragment", f.Digest(), f.Size())}, nil
}

func (n *Natives) core(_ context.Context, do *action.Native) ([]action.Made, error) {
	v, err := n.parse(do)
	if err != nil {
		return nil, err
	}
	return []action.Made{file("core", v.(*Core).Digest(), 0)}, nil
}

func (n *Natives) aliases(_ context.Context, do *action.Native) ([]action.Made, error) {
	v, err := n.parse(do)
	if err != nil {
		return nil, err
	}
	a := v.(*Aliases)
	var made []action.Made
	for _, language := range a.Languages() {
		made = append(made, file(language, a.Part(language).Digest(), 0))
	}
	return made, nil
}

func (n *Natives) plurals(_ context.Context, do *action.Native) ([]action.Made, error) {
	v, err := n.parse(do)
	if err != nil {
		return nil, err
	}
	all := v.(map[string]*plural.Rules)
	var made []action.Made
	for _, language := range sortedKeys(all) {
		made = append(made, file(language, pluralDigest(all[language]), 0))
	}
	return made, nil
}

// pluralDigest digests what the rules say; what is compiled follows from that.
func pluralDigest(r *plural.Rules) [32]byte {
	h := sha256.New()
	for _, list := range [][]string{r.Rules, r.Types} {
		fmt.Fprintf(h, "%d\n", len(list))
		for _, s := range list {
			fmt.Fprintf(h, "%d %s\n", len(s), s)
		}
	}
	return [32]byte(h.Sum(nil))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// output compiles one language from what its inputs' actions read. The roles of inputs are "core LANGUAGE", "plurals
// LANGUAGE", "fragment LANGUAGE COMPONENT" and "aliases LANGUAGE COMPONENT", by language in the order of the chain, and
// in that by component.
func (n *Natives) output(ctx context.Context, do *action.Native) ([]action.Made, error) {
	v, err := ParseVersion(do.Params["version"])
	if err != nil {
		return nil, err
	}
	in := &Input{Language: do.Params["language"], SkipFiles: map[string]bool{}}
	lines := func(param string) []string {
		if do.Params[param] == "" {
			return nil
		}
		return strings.Split(do.Params[param], "\n")
	}
	for _, key := range lines("skip") {
		in.SkipFiles[key] = true
	}
	in.MessageKeys, in.AliasKeys = lines("message keys"), lines("alias keys")
	for _, i := range do.Inputs {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		role, rest, _ := strings.Cut(i.Role, " ")
		language, _, _ := strings.Cut(rest, " ")
		if len(in.Links) == 0 || in.Links[len(in.Links)-1].Language != language {
			in.Links = append(in.Links, Link{Language: language})
		}
		link := &in.Links[len(in.Links)-1]
		from, ok := i.From.Do.(*action.Native)
		if !ok {
			return nil, fmt.Errorf("input %s comes from no native action", i.Role)
		}
		value, err := n.parse(from)
		if err != nil {
			return nil, err
		}
		switch role {
		case "core":
			link.Core = value.(*Core)
		case "plurals":
			link.Plural = value.(map[string]*plural.Rules)[language]
		case "fragment":
			link.Fragments = append(link.Fragments, value.(*Fragment))
		case "aliases":
			link.Aliases = append(link.Aliases, value.(*Aliases).Part(language)) // nil keeps the others' places
		default:
			return nil, fmt.Errorf("input %s has no role in an output", i.Role)
		}
	}
	format, ok := formatNames[do.Params["format"]]
	if !ok {
		return nil, fmt.Errorf("there is no format %q", do.Params["format"])
	}
	buf := buffers.Get().(*[]byte)
	data, err := n.compiler.For(v).Compile((*buf)[:0], format, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Language, err)
	}
	return []action.Made{{File: action.File{Path: path.Base(format.FileName(in.Language))}, Data: data, Free: func() {
		*buf = data
		buffers.Put(buf)
	}}}, nil
}

// buffers are for compiled languages, which are all of about the same size.
var buffers = sync.Pool{New: func() any { return new([]byte) }}
