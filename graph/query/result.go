package query

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Result is the nodes that an expression stands for, with the graph that they form.
type Result struct {
	Errors []error // what was taken for empty; see Options.KeepGoing

	u     *universe
	set   *set
	path  bool              // somepath is in the expression
	files bool              // Options.Files
	nexts map[int32][]int32 // what successors found
	marks []int32           // by node: the walk that came to it last
	mark  int32
}

// Len returns how many nodes there are.
func (r *Result) Len() int { return r.set.len() }

// An Order is how the nodes of a result are sorted.
type Order string

// The orders of Bazel's --order_output.
const (
	Auto Order = "auto" // by label, or as Deps where the expression has somepath
	Deps Order = "deps" // each node before those that it depends on
	Full Order = "full" // as Deps, and wherever that leaves it open, the reverse of a post-order walk in order of label
	Free Order = "no"   // as they come
)

// Orders are the names of all orders.
var Orders = []string{string(Auto), string(Deps), string(Full), string(Free)}

// Nodes returns the nodes in that order. The nodes of a cycle stand together.
func (r *Result) Nodes(o Order) []Node {
	ids := slices.Collect(r.set.all())
	switch {
	case o == Free:
	case o == Auto && !r.path:
		r.u.sort(ids)
	default:
		ids, _ = r.topological()
	}
	nodes := make([]Node, len(ids))
	for i, id := range ids {
		nodes[i] = r.u.nodes[id]
	}
	return nodes
}

// topological returns the nodes in the reverse of a post-order walk that begins at each in order of label, those of a cycle
// drawn together, and the number of each one's strongly connected component.
func (r *Result) topological() ([]int32, map[int32]int) {
	ids := slices.Collect(r.set.all())
	r.u.sort(ids)
	type frame struct {
		id   int32
		next int
	}
	var post []int32
	seen := &set{}
	for _, id := range ids {
		if seen.has(id) {
			continue
		}
		seen.add(id)
		stack := []frame{{id, 0}}
		for len(stack) > 0 {
			f := &stack[len(stack)-1]
			if to := r.successors(f.id); f.next < len(to) {
				id := to[f.next]
				if f.next++; !seen.has(id) {
					seen.add(id)
					stack = append(stack, frame{id, 0})
				}
				continue
			}
			post = append(post, f.id)
			stack = stack[:len(stack)-1]
		}
	}
	slices.Reverse(post)
	component := r.components(post)
	slices.SortStableFunc(post, func(a, b int32) int { return cmp.Compare(component[a], component[b]) })
	return post, component
}

// successors returns the nodes of the result that id depends on, directly or by way of nodes that are not in the result,
// in order of label.
func (r *Result) successors(id int32) []int32 {
	if to, ok := r.nexts[id]; ok {
		return to
	}
	if r.nexts == nil {
		r.nexts = map[int32][]int32{}
		for id := range r.set.all() {
			if r.u.nodes[id].Target == nil {
				r.u.indexFiles()
				break
			}
		}
	}
	if len(r.marks) < len(r.u.nodes) {
		r.marks = make([]int32, len(r.u.nodes))
	}
	r.mark++
	var to []int32
	r.marks[id] = r.mark
	for stack := []int32{id}; len(stack) > 0; {
		from := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, ds := range [][]int32{r.u.deps[from], r.u.uses[from]} {
			for _, d := range ds {
				if r.marks[d] == r.mark {
					continue
				}
				r.marks[d] = r.mark
				if r.set.has(d) {
					to = append(to, d)
				} else {
					stack = append(stack, d)
				}
			}
		}
	}
	r.u.sort(to)
	r.nexts[id] = to
	return to
}

// Deps returns the targets and, with Options.Files, the files that n depends on directly, in order of label.
func (r *Result) Deps(n Node) []Node {
	id := r.u.target(n.Label)
	if n.Target == nil || id < 0 {
		return nil
	}
	ids := slices.Clone(r.u.deps[id])
	if r.files {
		r.u.indexFiles()
		ids = append(ids, r.u.uses[id]...)
	}
	r.u.sort(ids)
	deps := make([]Node, len(ids))
	for i, id := range ids {
		deps[i] = r.u.nodes[id]
	}
	return deps
}

// A Ranked node is one with its distance from those that no other node of the result depends on.
type Ranked struct {
	Rank int
	Node
}

// Ranks returns the nodes by rank, then by label: the length of the shortest way from a root or, with longest, of the longest
// one. The nodes of a cycle have one rank.
func (r *Result) Ranks(longest bool) []Ranked {
	order, component := r.topological()
	n := 0
	for _, c := range component {
		n = max(n, c+1)
	}
	members := make([][]int32, n)
	for _, id := range order {
		members[component[id]] = append(members[component[id]], id)
	}
	rank := make([]int, n)
	for c := range rank {
		rank[c] = -1
	}
	for c := range members {
		if rank[c] < 0 {
			rank[c] = 0 // nobody came here
		}
		for _, id := range members[c] {
			for _, to := range r.successors(id) {
				d := component[to]
				if d == c {
					continue
				}
				if next := rank[c] + 1; rank[d] < 0 || longest && next > rank[d] || !longest && next < rank[d] {
					rank[d] = next
				}
			}
		}
	}
	ids := slices.Clone(order)
	r.u.sort(ids)
	ranked := make([]Ranked, len(ids))
	for i, id := range ids {
		ranked[i] = Ranked{rank[component[id]], r.u.nodes[id]}
	}
	slices.SortStableFunc(ranked, func(a, b Ranked) int { return cmp.Compare(a.Rank, b.Rank) })
	return ranked
}

// components numbers the strongly connected components of the result such that an edge between two leads to the one of the
// higher number. order is a reversed post-order: taken along edges that are turned round, each walk of what is left is one
// component, and the first of them is one that nothing before comes to.
func (r *Result) components(order []int32) map[int32]int {
	back := map[int32][]int32{}
	for _, id := range order {
		for _, to := range r.successors(id) {
			back[to] = append(back[to], id)
		}
	}
	component := make(map[int32]int, len(order))
	n := 0
	for _, id := range order {
		if _, known := component[id]; known {
			continue
		}
		component[id] = n
		stack := []int32{id}
		for len(stack) > 0 {
			at := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			for _, from := range back[at] {
				if _, known := component[from]; !known {
					component[from] = n
					stack = append(stack, from)
				}
			}
		}
		n++
	}
	return component
}

// DotOptions say how a result is drawn.
type DotOptions struct {
	Factored bool // draw nodes that have the same neighbours as one
	Limit    int  // of bytes in the text of a node; 0 is none
}

// Dot writes the result as a directed graph in the language of Graphviz. Its edges are those of the targets, and one for each way
// over targets that are not in the result.
func (r *Result) Dot(w io.Writer, o DotOptions) error {
	ids := slices.Collect(r.set.all())
	r.u.sort(ids)
	before := map[int32][]int32{}
	for _, id := range ids {
		for _, to := range r.successors(id) {
			before[to] = append(before[to], id)
		}
	}
	groups := map[int32]int{}
	var members [][]int32
	same := map[string]int{}
	for _, id := range ids {
		key := fmt.Sprint(id)
		if o.Factored {
			key = fmt.Sprint(before[id], r.successors(id))
		}
		g, ok := same[key]
		if !ok {
			g = len(members)
			same[key] = g
			members = append(members, nil)
		}
		members[g] = append(members[g], id)
		groups[id] = g
	}
	names := make([]string, len(members))
	for g, ids := range members {
		names[g] = r.dotName(ids, o.Limit)
	}
	var b strings.Builder
	b.WriteString("digraph mygraph {\n  node [shape=box];\n")
	for g, ids := range members {
		fmt.Fprintf(&b, "  %s\n", names[g])
		drawn := map[int]bool{}
		for _, to := range r.successors(ids[0]) {
			if to := groups[to]; !drawn[to] {
				drawn[to] = true
				fmt.Fprintf(&b, "  %s -> %s\n", names[g], names[to])
			}
		}
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// dotName is the quoted name of one node that stands for all of ids. What does not fit is counted.
func (r *Result) dotName(ids []int32, limit int) string {
	var b strings.Builder
	for i, id := range ids {
		s := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(r.u.nodes[id].Label.String())
		if limit > 0 && i > 0 && b.Len()+len(s) > limit {
			fmt.Fprintf(&b, `\n...and %d more items`, len(ids)-i)
			break
		}
		if i > 0 {
			b.WriteString(`\n`)
		}
		b.WriteString(s)
	}
	return `"` + b.String() + `"`
}
