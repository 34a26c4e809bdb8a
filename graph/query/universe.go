package query

import (
	"cmp"
	"iter"
	"math/bits"
	"slices"

	"github.com/mwbuild/mwbuild/graph/label"
)

// A set is numbers of nodes, as bits. It grows with what is added to it.
type set struct{ words []uint64 }

func (s *set) add(id int32) {
	w := int(id) / 64
	if w >= len(s.words) {
		s.words = append(s.words, make([]uint64, w+1-len(s.words))...)
	}
	s.words[w] |= 1 << (id % 64)
}

func (s *set) has(id int32) bool {
	w := int(id) / 64
	return w < len(s.words) && s.words[w]&(1<<(id%64)) != 0
}

func (s *set) clone() *set { return &set{slices.Clone(s.words)} }

func (s *set) empty() bool {
	return !slices.ContainsFunc(s.words, func(w uint64) bool { return w != 0 })
}

func (s *set) len() int {
	n := 0
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

func (s *set) union(o *set) {
	if n := len(o.words) - len(s.words); n > 0 {
		s.words = append(s.words, make([]uint64, n)...)
	}
	for i, w := range o.words {
		s.words[i] |= w
	}
}

func (s *set) subtract(o *set) {
	for i := range min(len(s.words), len(o.words)) {
		s.words[i] &^= o.words[i]
	}
}

func (s *set) intersect(o *set) {
	for i := range s.words {
		if i < len(o.words) {
			s.words[i] &= o.words[i]
		} else {
			s.words[i] = 0
		}
	}
}

// all yields the members in order of their numbers.
func (s *set) all() iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for i, w := range s.words {
			for ; w != 0; w &= w - 1 {
				if !yield(int32(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// A universe is the nodes that were loaded so far, by number: targets, and files that something came to.
type universe struct {
	noImplicit bool
	nodes      []Node
	ids        map[label.Label]int32 // of targets
	fileIDs    map[string]int32
	byPkg      map[string][]int32 // targets
	deps       [][]int32          // of targets, to targets
	rdeps      [][]int32
	uses       [][]int32 // of targets, to files; as far as indexed
	users      [][]int32 // of files
	indexed    int       // the nodes before it have their uses
}

func newUniverse(noImplicit bool) *universe {
	return &universe{noImplicit: noImplicit, ids: map[label.Label]int32{}, fileIDs: map[string]int32{}, byPkg: map[string][]int32{}}
}

func (u *universe) node(n Node) int32 {
	id := int32(len(u.nodes))
	u.nodes = append(u.nodes, n)
	u.deps, u.rdeps = append(u.deps, nil), append(u.rdeps, nil)
	u.uses, u.users = append(u.uses, nil), append(u.users, nil)
	return id
}

// add takes in the targets that are new, with their edges to all that are known.
func (u *universe) add(targets []Target) {
	first := len(u.nodes)
	for _, t := range targets {
		lab := t.Label()
		if _, known := u.ids[lab]; known {
			continue
		}
		id := u.node(Node{Label: lab, Target: t})
		u.ids[lab] = id
		u.byPkg[lab.Pkg] = append(u.byPkg[lab.Pkg], id)
	}
	for id := first; id < len(u.nodes); id++ {
		for _, e := range u.nodes[id].Target.Edges() {
			if e.File != "" || e.Implicit && u.noImplicit {
				continue
			}
			// A target that names another twice did so last.
			if to, ok := u.ids[e.To]; ok && last(u.rdeps[to]) != int32(id) {
				u.deps[id] = append(u.deps[id], to)
				u.rdeps[to] = append(u.rdeps[to], int32(id))
			}
		}
	}
}

// last returns the last number, or -1.
func last(ids []int32) int32 {
	if len(ids) == 0 {
		return -1
	}
	return ids[len(ids)-1]
}

// target returns the number of a target, or -1.
func (u *universe) target(lab label.Label) int32 {
	if id, ok := u.ids[lab]; ok {
		return id
	}
	return -1
}

// file returns the number of a file, whose package is pkg. Its users are known after indexFiles.
func (u *universe) file(file, pkg string) int32 {
	id, ok := u.fileIDs[file]
	if !ok {
		name := file
		if pkg != "" {
			name = file[len(pkg)+1:]
		}
		id = u.node(Node{Label: label.Label{Pkg: pkg, Name: name}, File: file})
		u.fileIDs[file] = id
	}
	return id
}

// indexFiles links all targets with the files that their attributes name.
func (u *universe) indexFiles() {
	for ; u.indexed < len(u.nodes); u.indexed++ {
		id := u.indexed
		t := u.nodes[id].Target
		if t == nil {
			continue
		}
		for _, e := range t.Edges() {
			if e.File == "" || e.Implicit && u.noImplicit {
				continue
			}
			if f := u.file(e.File, t.Label().Pkg); last(u.users[f]) != int32(id) {
				u.uses[id] = append(u.uses[id], f)
				u.users[f] = append(u.users[f], int32(id))
			}
		}
	}
}

// forward returns what can be reached from x in at most depth steps, or in any number where depth is negative. Of files those in
// follow are reached; with nil, all.
func (u *universe) forward(x *set, depth int, follow *set) *set {
	files := follow == nil || !follow.empty()
	if files {
		u.indexFiles()
	}
	out := x.clone()
	wave := slices.Collect(x.all())
	for step := 0; len(wave) > 0 && step != depth; step++ {
		var next []int32
		for _, id := range wave {
			for _, to := range u.deps[id] {
				if !out.has(to) {
					out.add(to)
					next = append(next, to)
				}
			}
			if !files {
				continue
			}
			for _, f := range u.uses[id] {
				if follow == nil || follow.has(f) {
					out.add(f)
				}
			}
		}
		wave = next
	}
	return out
}

// backward returns what comes to x in at most depth steps, or in any number where depth is negative, x included, as far as it
// is in the closure of within. Every file that a target uses belongs to its closure.
func (u *universe) backward(within, x *set, depth int) *set {
	closure := u.forward(within, -1, &set{})
	out := &set{}
	var wave []int32
	for id := range x.all() {
		in := closure.has(id)
		if !in && u.nodes[id].Target == nil {
			u.indexFiles()
			in = slices.ContainsFunc(u.users[id], closure.has)
		}
		if in {
			out.add(id)
			wave = append(wave, id)
		}
	}
	for step := 0; len(wave) > 0 && step != depth; step++ {
		var next []int32
		for _, id := range wave {
			from := u.rdeps[id]
			if u.nodes[id].Target == nil {
				u.indexFiles()
				from = u.users[id]
			}
			for _, id := range from {
				if closure.has(id) && !out.has(id) {
					out.add(id)
					next = append(next, id)
				}
			}
		}
		wave = next
	}
	return out
}

// path returns the nodes of a shortest path from a member of from to one of to: always the same one, or none.
func (u *universe) path(from, to *set) *set {
	for id := range to.all() {
		if u.nodes[id].Target == nil {
			u.indexFiles()
			break
		}
	}
	out := &set{}
	wave := slices.Collect(from.all())
	u.sort(wave)
	for _, id := range wave {
		if to.has(id) {
			out.add(id)
			return out
		}
	}
	came := map[int32]int32{}
	seen := from.clone()
	for len(wave) > 0 {
		var next []int32
		for _, id := range wave {
			for _, d := range [][]int32{u.deps[id], u.uses[id]} {
				for _, d := range d {
					if seen.has(d) {
						continue
					}
					seen.add(d)
					came[d] = id
					if !to.has(d) {
						next = append(next, d)
						continue
					}
					for at := d; ; at = came[at] {
						if out.add(at); from.has(at) {
							return out
						}
					}
				}
			}
		}
		wave = next
	}
	return out
}

// sort puts nodes in order of label; a target comes before a file of the same one.
func (u *universe) sort(ids []int32) {
	slices.SortFunc(ids, func(a, b int32) int {
		return cmp.Or(u.nodes[a].Label.Compare(u.nodes[b].Label), cmp.Compare(u.nodes[a].File, u.nodes[b].File))
	})
}
