package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// groupSize is how many packages lie in one folder.
const groupSize = 50

// targetsOf are the targets of every package, sorted.
var targetsOf = []string{"layer", "lib", "src", "tests"}

// A monorepo is the graph behind the three trees: packages by number, each with the numbers of those that it depends on.
// It is a function of its size and seed alone.
type monorepo struct {
	deps [][]int // ascending, each less than its own index
}

// newMonorepo makes the graph of n packages. The first fiftieth are libraries that the others reach for at times, so that an edit of one of
// them reaches far. All other dependencies but one in two hundred are neighbours in the same folder, so that most edits reach a few packages.
func newMonorepo(n int, seed uint64) monorepo {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	m := monorepo{deps: make([][]int, n)}
	libraries := max(1, n/50)
	for i := range m.deps {
		first := i - i%groupSize
		for range []int{0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4, 4}[r.IntN(20)] {
			var d int
			switch k := r.IntN(200); {
			case k == 0:
				d = r.IntN(i + 1)
			case k < 20:
				d = r.IntN(libraries)
			default:
				d = max(first, i-1-r.IntN(12))
			}
			if d < i && !slices.Contains(m.deps[i], d) {
				m.deps[i] = append(m.deps[i], d)
			}
		}
		slices.Sort(m.deps[i])
	}
	return m
}

// folderOf is the folder of package i.
func folderOf(i int) string { return fmt.Sprintf("g%03d/p%04d", i/groupSize, i) }

// users are the packages that depend on each package.
func (m monorepo) users() [][]int {
	users := make([][]int, len(m.deps))
	for i, deps := range m.deps {
		for _, d := range deps {
			users[d] = append(users[d], i)
		}
	}
	return users
}

// closure is everything reached from i by edges, i among it, ascending.
func closure(edges [][]int, i int) []int {
	seen := map[int]bool{i: true}
	all := []int{i}
	for k := 0; k < len(all); k++ {
		for _, j := range edges[all[k]] {
			if !seen[j] {
				seen[j] = true
				all = append(all, j)
			}
		}
	}
	slices.Sort(all)
	return all
}

// affected are the labels of the targets that differ when a source of package i does: the sources, the library and the layer of i itself, and
// libraries and layers of what depends on it, sorted.
func (m monorepo) affected(i int) []string {
	var labels []string
	for _, p := range closure(m.users(), i) {
		labels = append(labels, "//"+folderOf(p)+":layer", "//"+folderOf(p)+":lib")
		if p == i {
			labels = append(labels, "//"+folderOf(p)+":src")
		}
	}
	slices.Sort(labels)
	return labels
}

// typical is a package of whose kind there are most: as many packages depend on it, directly or not, as on the median one that is used at
// all. It is neither a library nor the last of its folder.
func (m monorepo) typical() int {
	users := m.users()
	type used struct{ i, by int }
	var all []used
	step := max(1, len(m.deps)/1000) // a sample is enough
	for i := 0; i < len(m.deps); i += step {
		if len(users[i]) > 0 {
			all = append(all, used{i, len(closure(users, i))})
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.SortStableFunc(all, func(x, y used) int { return x.by - y.by })
	return all[len(all)/2].i
}
