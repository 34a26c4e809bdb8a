// Package inspect looks at what MediaWiki's components say in their languages: how much of it is translated ([Stats]),
// what differs between two trees and which compiled languages change by that ([Diff]), and what is wrong with the files
// ([Check]).
//
// What belongs to a component, and what a compiled language reads in which order, is taken from the actions of the targets
// of rules/l10n.star, so it is what a build would take. A tree is a working tree, or a [workspace.Revision].
package inspect

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// English is the language that messages are written in first.
const English = "en"

// Documentation is the code of what is no language: remarks on messages for translators.
const Documentation = "qqq"

// Rules whose targets can be looked at. Of an update it is what it updates.
const (
	ComponentRule = "mw_component_l10n"
	StoreRule     = "mw_l10n"
	UpdateRule    = "mw_l10n_update"
)

// A Tree is where files are read. A [workspace.Disk] and a [workspace.Revision] are trees.
type Tree interface {
	Lookup(path string) (workspace.File, bool)
	ReadFile(path string) ([]byte, error)
	Digest(path string) (workspace.Digest, error)
}

// A Localisation is what some targets say, in one tree.
type Localisation struct {
	tree       Tree
	Components []Component // core first, then in the order in which they register
	outputs    []output
}

// A Component is core, an extension or a skin.
type Component struct {
	Label     string
	Name      string // for people: its package, "core" for core at the workspace's root
	Core      bool
	fragments []fragment // sorted by language
	manifests []string   // extension.json or skin.json
}

// fragment is what a component says in one language.
type fragment struct {
	language string
	do       *action.Native
}

// messages are the fragment's message files in the order in which they count.
func (f *fragment) messages() []string { return messageFiles(f.do) }

// output is one compiled language of one target.
type output struct {
	label    string
	language string
	do       *action.Native
}

// Kinds of native actions, as rules/l10n.star names them, up to the version that follows.
const (
	fragmentKind = "l10n fragment "
	pluralsKind  = "l10n plurals "
	outputKind   = "l10n output "
)

// New returns what targets of g say, each an mw_l10n or an mw_component_l10n. tree is the one that g was loaded from.
func New(tree Tree, g *graph.Graph, targets []*graph.Target) (*Localisation, error) {
	l := &Localisation{tree: tree}
	seen := map[graph.ID]bool{}
	var add func(t *graph.Target) error
	add = func(t *graph.Target) error {
		switch {
		case seen[t.ID]:
			return nil
		case t.Kind == ComponentRule:
			seen[t.ID] = true
			l.Components = append(l.Components, component(t))
			return nil
		case t.Kind != StoreRule && t.Kind != UpdateRule:
			return fmt.Errorf("%s: %s: %s has no localisation to look at; name an %s, or a component's %s", t.Pos, t.Label, t.Kind, StoreRule, ComponentRule)
		}
		seen[t.ID] = true
		for _, e := range t.Deps {
			if to := g.Target(e.To); to != nil && (e.Attr == "components" || e.Attr == "base") {
				if err := add(to); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, t := range targets {
		if err := add(t); err != nil {
			return nil, err
		}
		for _, n := range t.Actions {
			if do, ok := n.Do.(*action.Native); ok && strings.HasPrefix(do.Kind, outputKind) {
				l.outputs = append(l.outputs, output{t.Label.String(), do.Params["language"], do})
			}
		}
	}
	slices.SortStableFunc(l.Components, func(a, b Component) int {
		switch {
		case a.Core == b.Core:
			return 0
		case a.Core:
			return -1
		}
		return 1
	})
	slices.SortFunc(l.outputs, output.compare)
	return l, nil
}

func (o output) compare(p output) int {
	return cmp.Or(cmp.Compare(o.label, p.label), cmp.Compare(o.language, p.language))
}

func component(t *graph.Target) Component {
	c := Component{Label: t.Label.String(), Name: t.Label.Pkg, manifests: t.Srcs}
	for _, n := range t.Actions {
		do, ok := n.Do.(*action.Native)
		switch {
		case !ok:
		case strings.HasPrefix(do.Kind, fragmentKind):
			c.fragments = append(c.fragments, fragment{do.Params["language"], do})
		case strings.HasPrefix(do.Kind, pluralsKind):
			c.Core = true
		}
	}
	if c.Core && c.Name == "" {
		c.Name = "core"
	} else if !c.Core && t.Label.Name != "l10n" {
		c.Name = strings.TrimPrefix(c.Label, "//") // a folder may hold several components
	}
	slices.SortFunc(c.fragments, func(a, b fragment) int { return cmp.Compare(a.language, b.language) })
	return c
}

// messageFiles returns the message files of a fragment in the order in which MediaWiki reads them: folders that are
// registered under one key follow one another.
func messageFiles(do *action.Native) []string { return filesOf(do, "messages ") }

func filesOf(do *action.Native, role string) []string {
	var keys []string
	byKey := map[string][]string{}
	for _, f := range do.Files {
		if key, ok := strings.CutPrefix(f.Role, role); ok {
			if byKey[key] == nil {
				keys = append(keys, key)
			}
			byKey[key] = append(byKey[key], f.Path)
		}
	}
	var files []string
	for _, k := range keys {
		files = append(files, byKey[k]...)
	}
	return files
}

// blobID returns git's name of the bytes at path, hexadecimal.
func blobID(t interface {
	Digest(string) (workspace.Digest, error)
}, path string) (string, error) {
	if r, ok := t.(*workspace.Revision); ok {
		return r.Blob(path)
	}
	d, err := t.Digest(path)
	return hex.EncodeToString(d.Blob[:]), err
}

// each calls f for 0 to n-1, several at once, until the context ends. It returns all errors, in order.
func each(ctx context.Context, n int, f func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	var mu sync.Mutex
	failed := map[int]error{}
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := f(i); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[i] = err
			}
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var errs []error
	for i := range n {
		if err := failed[i]; err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// place is where an offset of a file is, as file:line:col; columns are in bytes.
type place struct {
	file      string
	line, col int
}

func (p place) String() string { return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.col) }

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.file, q.file), cmp.Compare(p.line, q.line), cmp.Compare(p.col, q.col))
}

func placeOf(file string, data []byte, pos int) place {
	before := string(data[:pos])
	return place{file, strings.Count(before, "\n") + 1, pos - strings.LastIndexByte(before, '\n')}
}
