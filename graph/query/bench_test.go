package query

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/mwbuild/mwbuild/graph/label"
)

// monorepo is 25,000 packages of four targets, each package depending on up to three before it.
func monorepo() *fakeSource {
	const packages = 25000
	s := &fakeSource{targets: map[label.Label]*fakeTarget{}, packages: map[string]bool{}, files: map[string]bool{}, loads: map[string][]string{}, loaded: map[string]bool{}}
	for i := range packages {
		pkg := fmt.Sprintf("ext/g%d/p%d", i%100, i)
		s.packages[pkg] = true
		name := func(n string) label.Label { return label.Label{Pkg: pkg, Name: n} }
		lib := []Edge{{Attr: "srcs", File: pkg + "/a.php"}, {Attr: "srcs", File: pkg + "/b.php"}}
		s.files[pkg+"/a.php"], s.files[pkg+"/b.php"] = true, true
		for _, d := range []int{i / 2, i / 3, i - 100} {
			if d >= 0 && d < i {
				lib = append(lib, Edge{Attr: "deps", To: label.Label{Pkg: fmt.Sprintf("ext/g%d/p%d", d%100, d), Name: "lib"}})
			}
		}
		for _, t := range []*fakeTarget{
			{label: name("lib"), kind: "component", edges: lib},
			{label: name("l10n"), kind: "component_l10n", edges: []Edge{{Attr: "component", To: name("lib")}}},
			{label: name("image"), kind: "component_image", edges: []Edge{{Attr: "component", To: name("lib")}, {Attr: "l10n", To: name("l10n")}}},
			{label: name("lib_test"), kind: "php_test", edges: []Edge{{Attr: "lib", To: name("lib")}}},
		} {
			t.visibility = "public"
			s.targets[t.label] = t
		}
	}
	return s
}

// benchSource keeps what Load gives: what is measured is the query and not the loading.
type benchSource struct {
	*fakeSource
	kept map[label.Pattern][]Target
}

func (s benchSource) Load(ctx context.Context, patterns []label.Pattern) ([]Target, error) {
	var all []Target
	for _, p := range patterns {
		if s.kept[p] == nil {
			s.kept[p], _ = s.fakeSource.Load(ctx, []label.Pattern{p})
		}
		all = append(all, s.kept[p]...)
	}
	return all, nil
}

// BenchmarkQuery evaluates and prints queries over 100,000 targets that are loaded.
func BenchmarkQuery(b *testing.B) {
	src := benchSource{monorepo(), map[label.Pattern][]Target{}}
	for _, c := range []struct {
		name, query string
		print       func(*Result)
	}{
		{"all", "//...", func(r *Result) { r.Nodes(Auto) }},
		{"deps", "deps(//ext/g99/p24999:image)", func(r *Result) { r.Nodes(Auto) }},
		{"rdeps", "rdeps(//..., //ext/g0/p0:lib)", func(r *Result) { r.Nodes(Auto) }},
		{"rdeps_file", "rdeps(//..., //ext/g0/p100:a.php)", func(r *Result) { r.Nodes(Auto) }},
		{"allpaths", "allpaths(//ext/g99/..., //ext/g0/p0:lib)", func(r *Result) { r.Nodes(Auto) }},
		{"algebra", "kind(image, //...) - deps(//ext/g1/...) + tests(//ext/g2/...) ^ filter(p1, //...)", func(r *Result) { r.Nodes(Auto) }},
		{"full", "//...", func(r *Result) { r.Nodes(Full) }},
		{"maxrank", "//...", func(r *Result) { r.Ranks(true) }},
		{"images_maxrank", "kind(image, //...) + //ext/g0/p0:lib", func(r *Result) { r.Ranks(true) }},
		{"dot", "//...", func(r *Result) { _ = r.Dot(io.Discard, DotOptions{Factored: true}) }},
	} {
		x, err := Parse(c.query)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				res, err := Eval(b.Context(), c.query, x, src, Options{})
				if err != nil {
					b.Fatal(err)
				}
				c.print(res)
				n = res.Len()
			}
			b.ReportMetric(float64(n), "results")
		})
	}
}
