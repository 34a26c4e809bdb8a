package graph_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
)

// PathTo against distances that are found by widening a set of targets step by step.
func TestPathTo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "targets")
		id := func(i int) graph.ID { return graph.ID{Label: label.Label{Name: fmt.Sprint(i)}} }
		var targets []*graph.Target
		marked := map[graph.ID]bool{}
		follows := map[graph.ID]map[graph.ID]bool{}
		for i := range n {
			target := &graph.Target{ID: id(i)}
			follows[target.ID] = map[graph.ID]bool{}
			for _, to := range rapid.SliceOfN(rapid.IntRange(0, n), 0, 4).Draw(t, "deps") { // one that is not there, too
				condition := rapid.Bool().Draw(t, "condition")
				target.Deps = append(target.Deps, graph.Edge{To: id(to), Condition: condition})
				if !condition && to < n {
					follows[target.ID][id(to)] = true
				}
			}
			marked[target.ID] = rapid.IntRange(0, 3).Draw(t, "marked") == 0
			targets = append(targets, target)
		}
		g := graph.New(targets)
		path := g.PathTo(id(0), func(t *graph.Target) bool { return marked[t.ID] })

		distance := -1
		reached := map[graph.ID]bool{id(0): true}
		for step := 0; step <= n && distance < 0; step++ {
			next := map[graph.ID]bool{}
			for at := range reached {
				if marked[at] {
					distance = step
				}
				next[at] = true
				for to := range follows[at] {
					next[to] = true
				}
			}
			reached = next
		}
		if len(path)-1 != distance {
			t.Fatalf("the path has %d targets, the distance is %d", len(path), distance)
		}
		for i, at := range path {
			if (i == len(path)-1) != marked[at.ID] || i == 0 && at.ID != id(0) || i > 0 && !follows[path[i-1].ID][at.ID] {
				t.Fatalf("%v is no step of a shortest path", at.ID)
			}
		}
	})
	if graph.New(nil).PathTo(graph.ID{}, func(*graph.Target) bool { return true }) != nil {
		t.Error("there is a path from a target that is not there")
	}
}
