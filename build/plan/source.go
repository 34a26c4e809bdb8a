package plan

import (
	"fmt"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// Blobs names the files of a tree as git does: [workspace.Tree] has them.
type Blobs interface {
	Lookup(path string) (workspace.File, bool)
	Blob(path string) (string, error)
}

// Sources are the source keys of a graph's targets.
type Sources struct {
	Targets map[graph.ID]Key

	files Blobs
	file  func(path string) (string, error) // names a file
	nodes map[*action.Node]nodeSum
}

// A nodeSum is a node's digest, and as it stands in the manifests of those that read it.
type nodeSum struct {
	key  Key
	text string
}

// SourceKeys returns the source key of every target of g: the Merkle digest of what evaluation made of it, that is, the
// name of its rule, the descriptions of its actions, its files by git blob id, and the keys of its dependencies. It is
// known without building anything, so two revisions can be compared by it. Where the rule read the files itself, they count
// by what it found in them, and not by their bytes.
//
// An action is described as for its action key, but for the outputs of others, which stand by those actions' own
// descriptions; so nothing that cannot change an output enters here either.
func SourceKeys(g *graph.Graph, files Blobs) (*Sources, error) {
	var ids []graph.ID
	for _, t := range g.Targets() {
		ids = append(ids, t.ID)
	}
	sorted, cycles := g.Sort(ids)
	if len(cycles) > 0 {
		return nil, cycles[0]
	}
	s := &Sources{Targets: make(map[graph.ID]Key, len(sorted)), files: files, nodes: map[*action.Node]nodeSum{}}
	s.file = s.File
	for _, t := range sorted {
		m := &Manifest{}
		m.Add("rule", t.Kind)
		for _, list := range []struct {
			name  string
			nodes []*action.Node
		}{{"action", t.Actions}, {"output", t.Outputs}} {
			for i, n := range list.nodes {
				k, err := s.Node(n)
				if err != nil {
					return nil, err
				}
				m.Add(fmt.Sprintf("%s[%d]", list.name, i), k.String())
			}
		}
		srcs := t.Srcs
		if t.Reads {
			srcs = nil
		}
		for _, f := range srcs {
			v, err := s.File(f)
			if err != nil {
				return nil, &graph.Error{Pos: t.Pos, Label: t.Label.String(), Msg: err.Error(), Err: err}
			}
			m.Add("file "+f, v)
		}
		i := 0
		for _, e := range t.Deps {
			if e.Condition {
				continue // what was selected counts, not why
			}
			if k, ok := s.Targets[e.To]; ok {
				m.Add(fmt.Sprintf("%s[%d]", e.Attr, i), k.String())
			}
			i++
		}
		s.Targets[t.ID] = m.Key()
	}
	return s, nil
}

// File identifies the mode and the bytes of a file.
func (s *Sources) File(p string) (string, error) {
	f, ok := s.files.Lookup(p)
	if !ok {
		return "", fmt.Errorf("%s: no such file in the workspace", p)
	}
	id, err := s.files.Blob(p)
	return gitModes[f.Mode] + " " + id, err
}

// Node returns the digest of what an action is described by, known without building it.
func (s *Sources) Node(n *action.Node) (Key, error) {
	if k, ok := s.nodes[n]; ok {
		return k.key, nil
	}
	for _, d := range n.Deps() {
		if _, err := s.Node(d); err != nil {
			return Key{}, err
		}
	}
	k, err := s.sum(n)
	if err == nil {
		s.add(n, k)
	}
	return k, err
}

func (s *Sources) add(n *action.Node, k Key) { s.nodes[n] = nodeSum{k, k.String()} }

// sum is Node of one whose inputs are known.
func (s *Sources) sum(n *action.Node) (Key, error) {
	one := func(n *action.Node) string { return s.nodes[n].text }
	list := func(n *action.Node) []string { return []string{one(n)} }
	m, err := describe(n, inputs{
		file: s.file, layers: list, blobs: list, image: one,
		files:  func(n *action.Node, path string) []string { return []string{one(n) + " " + path} },
		root:   func(n *action.Node) ([]Field, error) { return []Field{{"image", one(n)}}, nil },
		secret: func(string) (string, error) { return "", nil }, // no source
	})
	if err != nil {
		return Key{}, err
	}
	return m.Key(), nil
}
