package graph

import (
	"fmt"
	"slices"
	"testing"

	"github.com/mwbuild/mwbuild/graph/label"
	"pgregory.net/rapid"
)

func id(n int) ID { return ID{Label: label.Label{Pkg: "p", Name: fmt.Sprintf("t%02d", n)}} }

func draw(t *rapid.T) (*Graph, int) {
	n := rapid.IntRange(1, 9).Draw(t, "n")
	var targets []*Target
	for i := range n {
		tg := &Target{ID: id(i)}
		for _, to := range rapid.SliceOfNDistinct(rapid.IntRange(0, n-1), 0, n, rapid.ID[int]).Draw(t, "deps") {
			tg.Deps = append(tg.Deps, Edge{To: id(to), Attr: "deps", Pos: "BUILD:1:1"})
		}
		targets = append(targets, tg)
	}
	return New(targets), n
}

// reach is the oracle: everything that can be reached from id by one edge or more, by repetition until nothing changes.
func reach(g *Graph, from ID) map[ID]bool {
	seen := map[ID]bool{}
	for changed, front := true, []ID{from}; changed; {
		changed = false
		for _, f := range front {
			for _, e := range g.Target(f).Deps {
				if !seen[e.To] {
					seen[e.To], changed = true, true
				}
			}
		}
		front = front[:0]
		for s := range seen {
			front = append(front, s)
		}
	}
	return seen
}

func TestSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, n := draw(t)
		root := id(rapid.IntRange(0, n-1).Draw(t, "root"))
		sorted, cycles := g.Sort([]ID{root})

		want := reach(g, root)
		want[root] = true
		if len(sorted) != len(want) {
			t.Fatalf("Sort gave %d targets, want %d", len(sorted), len(want))
		}
		cyclic := false
		for w := range want {
			cyclic = cyclic || reach(g, w)[w]
		}
		if cyclic != (len(cycles) > 0) {
			t.Fatalf("cycles %v, oracle says cyclic=%v", cycles, cyclic)
		}
		for _, c := range cycles {
			for i, e := range c.Edges {
				if e.To != c.From[(i+1)%len(c.From)] || !slices.ContainsFunc(g.Target(c.From[i]).Deps, func(d Edge) bool { return d.To == e.To }) {
					t.Fatalf("not a cycle: %v", c)
				}
			}
		}
		if cyclic {
			return
		}
		at := map[ID]int{}
		for i, s := range sorted {
			at[s.ID] = i
		}
		for _, s := range sorted {
			for _, e := range s.Deps {
				if at[e.To] >= at[s.ID] {
					t.Fatalf("%s comes before its dependency %s", s.ID, e.To)
				}
			}
		}
	})
}

func TestCycleError(t *testing.T) {
	g := New([]*Target{
		{ID: id(1), Deps: []Edge{{To: id(2), Attr: "deps", Pos: "p/BUILD:1:9"}}},
		{ID: id(2), Deps: []Edge{{To: id(1), Attr: "srcs", Pos: "p/BUILD:2:9"}}},
	})
	_, cycles := g.Sort([]ID{id(2), id(1)})
	want := "p/BUILD:1:9: //p:t01: dependency cycle\n" +
		"    p/BUILD:1:9: //p:t01 needs //p:t02 (deps)\n" +
		"    p/BUILD:2:9: //p:t02 needs //p:t01 (srcs)\n" +
		"    remove one of these edges"
	if len(cycles) != 1 || cycles[0].Error() != want {
		t.Errorf("got %v\nwant %s", cycles, want)
	}
}
