package query

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/graph/label"
)

// The oracle evaluates expressions by the definitions, over sets of strings and a matrix of what reaches what.

type labelSet = map[string]bool

type oracle struct {
	src     *fakeSource
	opts    Options
	nodes   []string // labels of all targets and files
	direct  map[string]labelSet
	named   labelSet                  // files in the expression
	lengths map[string]map[string]int // of the shortest way, as far as there is one
}

func newOracle(src *fakeSource, opts Options) *oracle {
	o := &oracle{src: src, opts: opts, direct: map[string]labelSet{}, named: labelSet{}, lengths: map[string]map[string]int{}}
	for _, lab := range slices.SortedFunc(maps.Keys(src.targets), label.Label.Compare) {
		t := src.targets[lab]
		o.nodes = append(o.nodes, lab.String())
		o.direct[lab.String()] = labelSet{}
		for _, e := range t.edges {
			if e.Implicit && opts.NoImplicit {
				continue
			}
			to := e.To.String()
			if e.File != "" {
				to = o.fileLabel(e.File)
			}
			o.direct[lab.String()][to] = true
		}
	}
	for f := range src.files {
		o.nodes = append(o.nodes, o.fileLabel(f))
	}
	slices.Sort(o.nodes)
	for _, n := range o.nodes {
		o.lengths[n] = map[string]int{n: 0}
		for m := range o.direct[n] {
			if m != n {
				o.lengths[n][m] = 1
			}
		}
	}
	for _, via := range o.nodes {
		for _, from := range o.nodes {
			a, ok := o.lengths[from][via]
			if !ok {
				continue
			}
			for to, b := range o.lengths[via] {
				if l, ok := o.lengths[from][to]; !ok || a+b < l {
					o.lengths[from][to] = a + b
				}
			}
		}
	}
	return o
}

func (o *oracle) fileLabel(f string) string {
	pkg := o.src.Owner(f)
	return label.Label{Pkg: pkg, Name: strings.TrimPrefix(strings.TrimPrefix(f, pkg), "/")}.String()
}

func (o *oracle) target(n string) *fakeTarget {
	lab, err := label.Parse(n, "")
	if err != nil {
		panic(err)
	}
	return o.src.targets[lab]
}

func (o *oracle) pkg(n string) string {
	pkg, _, _ := strings.Cut(strings.TrimPrefix(n, "//"), ":")
	return pkg
}

func (o *oracle) where(f func(n string) bool) labelSet {
	out := labelSet{}
	for _, n := range o.nodes {
		if f(n) {
			out[n] = true
		}
	}
	return out
}

// reaches tells whether a node of s reaches n in at most depth steps.
func (o *oracle) reaches(s labelSet, n string, depth int) bool {
	for m := range s {
		if l, ok := o.lengths[m][n]; ok && (depth < 0 || l <= depth) {
			return true
		}
	}
	return false
}

func (o *oracle) depth(c *Call, i int) int {
	n := -1
	if len(c.Args) > i {
		fmt.Sscan(c.Args[i].(*Word).Text, &n)
	}
	return n
}

func (o *oracle) rdeps(u, x labelSet, depth int) labelSet {
	in := func(n string) bool { return o.reaches(u, n, -1) }
	start := labelSet{}
	for n := range x {
		if in(n) {
			start[n] = true
		}
	}
	return o.where(func(n string) bool {
		if !in(n) || o.target(n) == nil && !start[n] {
			return false
		}
		for m := range start {
			// What is on a way to a node of the closure is in the closure, so ways need not be looked at one by one.
			if l, ok := o.lengths[n][m]; ok && (depth < 0 || l <= depth) {
				return true
			}
		}
		return false
	})
}

func (o *oracle) eval(x Expr, scope map[string]labelSet) labelSet {
	switch x := x.(type) {
	case *Word:
		if v, ok := strings.CutPrefix(x.Text, "$"); ok {
			return scope[v]
		}
		p, err := label.ParsePattern(x.Text, "")
		if err != nil {
			panic(err)
		}
		return o.where(func(n string) bool {
			if o.target(n) == nil {
				return n == p.String()
			}
			return p.Match(o.target(n).label)
		})
	case *Set:
		out := labelSet{}
		for _, w := range x.Words {
			maps.Copy(out, o.eval(w, scope))
		}
		return out
	case *Let:
		inner := map[string]labelSet{}
		maps.Copy(inner, scope)
		inner[x.Name] = o.eval(x.Value, scope)
		return o.eval(x.Body, inner)
	case *Chain:
		out := o.eval(x.First, scope)
		for _, t := range x.Rest {
			a, b := out, o.eval(t.X, scope)
			out = o.where(func(n string) bool {
				switch t.Op {
				case '+':
					return a[n] || b[n]
				case '-':
					return a[n] && !b[n]
				}
				return a[n] && b[n]
			})
		}
		return out
	}
	c := x.(*Call)
	arg := func(i int) labelSet { return o.eval(c.Args[i], scope) }
	word := func(i int) string { return c.Args[i].(*Word).Text }
	switch c.Func {
	case "deps":
		s, depth := arg(0), o.depth(c, 1)
		return o.where(func(n string) bool {
			return s[n] || o.reaches(s, n, depth) && (o.target(n) != nil || o.opts.Files || o.named[n])
		})
	case "rdeps":
		return o.rdeps(arg(0), arg(1), o.depth(c, 2))
	case "allrdeps":
		return o.rdeps(o.where(func(n string) bool { return o.target(n) != nil }), arg(0), o.depth(c, 1))
	case "allpaths":
		from, to := arg(0), arg(1)
		return o.where(func(n string) bool {
			return o.reaches(from, n, -1) && (o.target(n) != nil || to[n]) && o.any(to, n)
		})
	case "kind":
		s := arg(1)
		return o.where(func(n string) bool {
			return s[n] && (o.target(n) == nil && word(0) == "source file" || o.target(n) != nil && strings.Contains(o.target(n).kind+" rule", word(0)))
		})
	case "filter":
		s := arg(1)
		return o.where(func(n string) bool { return s[n] && strings.Contains(n, word(0)) })
	case "attr":
		s := arg(2)
		return o.where(func(n string) bool {
			return s[n] && o.target(n) != nil && o.target(n).attrs[word(0)] != nil && strings.Contains("["+strings.Join(o.target(n).attrs[word(0)], ", ")+"]", word(1))
		})
	case "labels":
		out := labelSet{}
		for n := range arg(1) {
			if t := o.target(n); t != nil {
				for _, e := range t.edges {
					if e.Attr == word(0) && e.File != "" {
						out[o.fileLabel(e.File)] = true
					} else if e.Attr == word(0) {
						out[e.To.String()] = true
					}
				}
			}
		}
		return out
	case "tests":
		s := arg(0)
		return o.where(func(n string) bool { return s[n] && o.target(n) != nil && strings.HasSuffix(o.target(n).kind, "_test") })
	case "siblings":
		s := arg(0)
		return o.where(func(n string) bool {
			for m := range s {
				if o.pkg(m) != o.pkg(n) || !o.src.packages[o.pkg(n)] {
					continue
				}
				if o.target(n) != nil {
					return true
				}
				for _, user := range o.nodes {
					if o.opts.Files && o.direct[user][n] {
						return true
					}
				}
			}
			return false
		})
	case "same_pkg_direct_rdeps":
		s := arg(0)
		return o.where(func(n string) bool {
			for m := range s {
				if o.direct[n][m] && o.pkg(m) == o.pkg(n) {
					return true
				}
			}
			return false
		})
	case "visible":
		to, s := arg(0), arg(1)
		return o.where(func(n string) bool {
			for m := range to {
				if o.pkg(m) != o.pkg(n) && (o.target(n) == nil || !o.target(n).VisibleFrom(o.pkg(m))) {
					return false
				}
			}
			return s[n]
		})
	case "buildfiles", "loadfiles":
		out := labelSet{}
		for n := range arg(0) {
			if !o.src.packages[o.pkg(n)] {
				continue
			}
			files := slices.Clone(o.src.loads[o.pkg(n)])
			if c.Func == "buildfiles" {
				for _, f := range o.src.loads[o.pkg(n)] {
					files = append(files, o.src.Owner(f)+"/BUILD")
				}
				files = append(files, o.pkg(n)+"/BUILD")
			}
			for _, f := range files {
				out[o.fileLabel(f)] = true
			}
		}
		return out
	}
	panic("oracle: " + c.Func)
}

// any tells whether n reaches one of to.
func (o *oracle) any(to labelSet, n string) bool {
	for m := range to {
		if _, ok := o.lengths[n][m]; ok {
			return true
		}
	}
	return false
}

// genSource makes a small workspace, with cycles where loops says so.
func genSource(t *rapid.T) *fakeSource {
	pkgs := []string{"a", "a/b", "c"}
	loops := rapid.IntRange(0, 3).Draw(t, "loops") == 0
	var text strings.Builder
	text.WriteString("file c/d.bzl a/e.bzl")
	for _, p := range pkgs {
		for f := range 3 {
			fmt.Fprintf(&text, " %s/f%d", p, f)
		}
	}
	text.WriteString("\nload a c/d.bzl\nload c a/e.bzl c/d.bzl\npackage a/b\n")
	n := rapid.IntRange(1, 10).Draw(t, "targets")
	home := make([]string, n)
	for i := range n {
		home[i] = rapid.SampledFrom(pkgs).Draw(t, "package")
	}
	for i := range n {
		kind := rapid.SampledFrom([]string{"lib", "image", "php_test"}).Draw(t, "kind")
		fmt.Fprintf(&text, "//%s:t%d %s", home[i], i, kind)
		for _, attr := range []string{"deps", "_base"} {
			var values []string
			for j := range n {
				if (j < i || loops) && rapid.IntRange(0, 3).Draw(t, "edge") == 0 {
					values = append(values, fmt.Sprintf("//%s:t%d", home[j], j))
				}
			}
			fmt.Fprintf(&text, " %s=%s", attr, strings.Join(values, ","))
		}
		files := rapid.SampledFrom([]string{"", "f0", "f1,f0", "f2"}).Draw(t, "srcs")
		written := rapid.SampledFrom([]string{"", "_"}).Draw(t, "written")
		fmt.Fprintf(&text, " %ssrcs=%s +%s\n", written, files, rapid.SampledFrom([]string{"public", "private", "a", "c"}).Draw(t, "visibility"))
	}
	return parseFake(text.String())
}

// genExpr makes an expression without errors, of at most that depth, and notes the files that it names.
func genExpr(t *rapid.T, src *fakeSource, depth int, vars []string) string {
	if depth == 0 || rapid.IntRange(0, 5).Draw(t, "leaf") == 0 {
		leaves := []string{"//...", "//a/...", "//a:all", "//c/...", "set()", "//a:f0", "//c:f1", "set(//a/... //c:f2)"}
		for _, lab := range slices.SortedFunc(maps.Keys(src.targets), label.Label.Compare) {
			leaves = append(leaves, lab.String())
		}
		for _, v := range vars {
			leaves = append(leaves, "$"+v)
		}
		return rapid.SampledFrom(leaves).Draw(t, "word")
	}
	sub := func() string { return genExpr(t, src, depth-1, vars) }
	bound := rapid.SampledFrom([]string{"", ", 0", ", 1", ", 2"}).Draw(t, "depth")
	switch what := rapid.SampledFrom([]string{
		"op", "op", "let", "deps", "rdeps", "allrdeps", "allpaths", "kind", "filter", "attr", "labels", "tests", "siblings",
		"same_pkg_direct_rdeps", "visible", "buildfiles", "loadfiles",
	}).Draw(t, "what"); what {
	case "op":
		op := rapid.SampledFrom([]string{"+", "-", "^", "union", "except", "intersect"}).Draw(t, "op")
		return "(" + sub() + " " + op + " " + sub() + " - " + sub() + ")"
	case "let":
		name := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "name")
		value := sub()
		return "(let " + name + " = " + value + " in " + genExpr(t, src, depth-1, append(slices.Clone(vars), name)) + ")"
	case "deps", "allrdeps":
		return what + "(" + sub() + bound + ")"
	case "rdeps":
		return what + "(" + sub() + ", " + sub() + bound + ")"
	case "allpaths", "visible":
		return what + "(" + sub() + ", " + sub() + ")"
	case "kind":
		return "kind(" + rapid.SampledFrom([]string{"lib", "rule", "'source file'", "test"}).Draw(t, "kind") + ", " + sub() + ")"
	case "filter":
		return "filter(" + rapid.SampledFrom([]string{"//a", "t1", "f", "/b:"}).Draw(t, "filter") + ", " + sub() + ")"
	case "attr":
		return "attr(" + rapid.SampledFrom([]string{"deps, //a", "srcs, f0", "none, a", "base, t"}).Draw(t, "attr") + ", " + sub() + ")"
	case "labels":
		return "labels(" + rapid.SampledFrom([]string{"deps", "srcs", "base", "none"}).Draw(t, "labels") + ", " + sub() + ")"
	default:
		return what + "(" + sub() + ")"
	}
}

// TestOracle evaluates random expressions over random workspaces, and by the definitions.
func TestOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src := genSource(t)
		opts := Options{Files: rapid.Bool().Draw(t, "files"), NoImplicit: rapid.Bool().Draw(t, "explicit")}
		query := genExpr(t, src, 3, nil)
		x, err := Parse(query)
		if err != nil {
			t.Fatal(err)
		}
		o := newOracle(src, opts)
		words(x, func(w *Word) {
			if f := strings.Replace(strings.TrimPrefix(w.Text, "//"), ":", "/", 1); src.files[f] {
				o.named[w.Text] = true
			}
		})
		want := slices.Sorted(maps.Keys(o.eval(x, nil)))
		res, err := Eval(t.Context(), query, x, src, opts)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Fields(names(res.Nodes(Free)))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%s (-want +got):\n%s", query, cmp.Diff(want, got))
		}
		checkOrder(t, o, res)
		checkRanks(t, o, res)
	})
}

// checkOrder holds every order to the dependencies, where they form no cycle.
func checkOrder(t *rapid.T, o *oracle, res *Result) {
	for _, order := range []Order{Deps, Full} {
		nodes := res.Nodes(order)
		if len(nodes) != res.Len() {
			t.Fatalf("%d nodes in order %s, want %d", len(nodes), order, res.Len())
		}
		for i, a := range nodes {
			for _, b := range nodes[:i] {
				_, down := o.lengths[a.Label.String()][b.Label.String()]
				_, up := o.lengths[b.Label.String()][a.Label.String()]
				if down && !up {
					t.Fatalf("order %s: %s stands after %s, which it depends on", order, a.Label, b.Label)
				}
			}
		}
	}
}

// checkRanks computes ranks by going over all edges until nothing changes, on the matrix with cycles taken together.
func checkRanks(t *rapid.T, o *oracle, res *Result) {
	var nodes []string
	in := labelSet{}
	for _, n := range res.Nodes(Auto) {
		nodes = append(nodes, n.Label.String())
		in[n.Label.String()] = true
	}
	same := func(a, b string) bool {
		// On one cycle, of nodes of the result joined by what is between them.
		_, down := o.lengths[a][b]
		_, up := o.lengths[b][a]
		return down && up
	}
	// edge tells whether a leads to b without another node of the result between.
	edge := func(a, b string) bool {
		seen := labelSet{}
		var walk func(n string) bool
		walk = func(n string) bool {
			for m := range o.direct[n] {
				if m == b {
					return true
				}
				if !in[m] && !seen[m] {
					seen[m] = true
					if walk(m) {
						return true
					}
				}
			}
			return false
		}
		return a != b && walk(a)
	}
	for _, longest := range []bool{false, true} {
		rank := map[string]int{}
		for _, n := range nodes {
			root := true
			for _, m := range nodes {
				for _, twin := range nodes {
					root = root && !(same(twin, n) && !same(m, n) && edge(m, twin))
				}
			}
			rank[n] = -1
			if root {
				rank[n] = 0
			}
		}
		for range len(nodes) + 1 {
			for _, a := range nodes {
				for _, b := range nodes {
					if rank[a] < 0 {
						continue
					}
					if same(a, b) {
						if longest {
							rank[b] = max(rank[a], rank[b])
						} else if rank[b] < 0 || rank[a] < rank[b] {
							rank[b] = rank[a]
						}
					} else if edge(a, b) {
						if n := rank[a] + 1; rank[b] < 0 || longest && n > rank[b] || !longest && n < rank[b] {
							rank[b] = n
						}
					}
				}
			}
		}
		for _, r := range res.Ranks(longest) {
			if r.Rank != rank[r.Label.String()] {
				t.Fatalf("rank of %s (longest: %v) = %d, want %d", r.Label, longest, r.Rank, rank[r.Label.String()])
			}
		}
	}
}

// TestSomePath wants a shortest path, in its order, or nothing where there is none.
func TestSomePath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src := genSource(t)
		from, to := genExpr(t, src, 1, nil), genExpr(t, src, 1, nil)
		query := "somepath(" + from + ", " + to + ")"
		x, err := Parse(query)
		if err != nil {
			t.Fatal(err)
		}
		res, err := Eval(t.Context(), query, x, src, Options{})
		if err != nil {
			t.Fatal(err)
		}
		o := newOracle(src, Options{})
		words(x, func(w *Word) {
			if f := strings.Replace(strings.TrimPrefix(w.Text, "//"), ":", "/", 1); src.files[f] {
				o.named[w.Text] = true
			}
		})
		starts, ends := o.eval(x.(*Call).Args[0], nil), o.eval(x.(*Call).Args[1], nil)
		best := -1
		for a := range starts {
			for b := range ends {
				if l, ok := o.lengths[a][b]; ok && (best < 0 || l < best) {
					best = l
				}
			}
		}
		if res.Len() != best+1 {
			t.Fatalf("%s has %d nodes, want %d", query, res.Len(), best+1)
		}
		nodes := res.Nodes(Auto)
		loop := false
		for i, n := range nodes {
			for _, m := range nodes[i+1:] {
				_, up := o.lengths[m.Label.String()][n.Label.String()]
				loop = loop || up
			}
		}
		for i, n := range nodes {
			if i > 0 && !loop && !o.direct[nodes[i-1].Label.String()][n.Label.String()] {
				t.Fatalf("%s = %s: no edge to %s", query, names(nodes), n.Label)
			}
		}
		if !loop && best >= 0 && (!starts[nodes[0].Label.String()] || !ends[nodes[best].Label.String()]) {
			t.Fatalf("%s = %s: does not lead from the one to the other", query, names(nodes))
		}
	})
}
