// Package graph holds the targets of a workspace and the edges between them, as plain data.
//
// It is what loading produces and what planning, querying and explaining consume. It knows no files, no Starlark and
// no build: a target carries the action nodes that its rule declared, and positions for messages.
package graph

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
)

// An ID is what a node of the graph is: a label in a configuration. The default one is "". All nodes of a graph that was
// loaded have the same.
type ID struct {
	Label  label.Label
	Config string
}

// String is the label, followed by the configuration where it has one.
func (id ID) String() string {
	if id.Config == "" {
		return id.Label.String()
	}
	return id.Label.String() + " (" + id.Config + ")"
}

func (id ID) compare(o ID) int {
	return cmp.Or(id.Label.Compare(o.Label), cmp.Compare(id.Config, o.Config))
}

// A Target is one declared thing in one package.
type Target struct {
	ID
	Kind    string         // name of its rule
	Pos     string         // file:line:col of the call in the BUILD file that made it
	Tags    []string       // "manual" keeps it out of patterns that end in ... or :all
	Deps    []Edge         // in order of attributes, then of values
	Srcs    []string       // workspace files that its attributes name, sorted
	Reads   bool           // its rule read files of the package, Srcs among them: their bytes count by what it found
	Read    []string       // those of the package's files whose bytes it read at analysis, sorted
	Actions []*action.Node // what its rule declared, in that order
	Outputs []*action.Node // those nodes, of whatever target, that make up its default output
	Files   []File         // made by actions, that the target stands for
}

// A File is one file, or folder, that an action makes.
type File struct {
	From *action.Node
	Path string // in what From makes
}

// Manual tells whether the target is built only when it is named or needed.
func (t *Target) Manual() bool { return slices.Contains(t.Tags, "manual") }

// An Edge is one mention of a target in an attribute of another.
type Edge struct {
	To   ID
	Attr string
	Pos  string // file:line:col of the mention where it is known, else of the target
	// Condition: To is a config_setting that select() asks in the attribute. It hands nothing over.
	Condition bool
}

// A Graph is a set of targets. Once built it is only read.
type Graph struct{ targets map[ID]*Target }

// New returns the graph of the given targets.
func New(targets []*Target) *Graph {
	g := &Graph{make(map[ID]*Target, len(targets))}
	for _, t := range targets {
		g.targets[t.ID] = t
	}
	return g
}

// Target returns the target of that identity, or nil.
func (g *Graph) Target(id ID) *Target { return g.targets[id] }

// Targets returns all targets in order of label.
func (g *Graph) Targets() []*Target {
	return slices.SortedFunc(maps.Values(g.targets), func(a, b *Target) int { return a.compare(b.ID) })
}

// A CycleError is a circle of dependencies: every edge of it, the last one leading back to the first target.
type CycleError struct {
	From  []ID
	Edges []Edge // Edges[i] stands in an attribute of From[i]
}

func (e *CycleError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: dependency cycle", e.Edges[0].Pos, e.From[0])
	for i, edge := range e.Edges {
		fmt.Fprintf(&b, "\n    %s: %s needs %s (%s)", edge.Pos, e.From[i], edge.To, edge.Attr)
	}
	b.WriteString("\n    remove one of these edges")
	return b.String()
}

// Sort returns the targets reachable from roots, each after everything that it depends on, in an order that does not
// depend on the order of roots, and every cycle found on the way, once. Edges to targets that the graph does not hold
// are passed over. Targets on or above a cycle are in the result too, in some order.
func (g *Graph) Sort(roots []ID) ([]*Target, []*CycleError) {
	const (
		unseen = iota
		open
		done
	)
	var (
		state  = map[ID]int{}
		path   []ID
		edges  []Edge
		sorted []*Target
		cycles []*CycleError
		visit  func(ID)
	)
	visit = func(id ID) {
		t := g.targets[id]
		if t == nil || state[id] == done {
			return
		}
		state[id] = open
		path = append(path, id)
		for _, e := range t.Deps {
			if state[e.To] == open {
				from := slices.Index(path, e.To)
				cycles = append(cycles, &CycleError{slices.Clone(path[from:]), append(slices.Clone(edges[from:]), e)})
				continue
			}
			edges = append(edges, e)
			visit(e.To)
			edges = edges[:len(edges)-1]
		}
		path = path[:len(path)-1]
		state[id] = done
		sorted = append(sorted, t)
	}
	for _, id := range slices.SortedFunc(slices.Values(roots), ID.compare) {
		visit(id)
	}
	return sorted, cycles
}

// An Error is what is wrong with a workspace: where, in which target, what, and what to do next.
type Error struct {
	Pos   string // file:line:col, file, or ""
	Label string // the target, or ""
	Msg   string
	Hints []string // each on a line of its own
	Err   error    // wrapped cause, or nil
}

func (e *Error) Error() string {
	var b strings.Builder
	for _, part := range []string{e.Pos, e.Label} {
		if part != "" {
			b.WriteString(part + ": ")
		}
	}
	b.WriteString(e.Msg)
	for _, h := range e.Hints {
		b.WriteString("\n    " + h)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// PathTo returns the shortest chain of dependencies from a target to one of which has is true, both included; nil if there is none. Where several are as short,
// it is the one that attributes name first. Conditions that a select() asks hand nothing over, and are not followed.
func (g *Graph) PathTo(from ID, has func(*Target) bool) []*Target {
	type link struct {
		t    *Target
		from *link
	}
	first := g.targets[from]
	if first == nil {
		return nil
	}
	seen := map[ID]bool{from: true}
	for queue := []*link{{t: first}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if has(at.t) {
			var path []*Target
			for ; at != nil; at = at.from {
				path = append(path, at.t)
			}
			slices.Reverse(path)
			return path
		}
		for _, e := range at.t.Deps {
			if to := g.targets[e.To]; to != nil && !e.Condition && !seen[e.To] {
				seen[e.To] = true
				queue = append(queue, &link{to, at})
			}
		}
	}
	return nil
}
