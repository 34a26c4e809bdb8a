package affected

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// A Cause is why a target is affected: a file that differs, and how that reaches the target.
type Cause struct {
	File  string // of the workspace; "" if none can be named
	What  string // what happened to it: "added", "deleted", "changed", "changed in mode", "moved"
	Part  string // what of the first target differs for it, such as "attribute srcs"; "" where it is the file itself
	Chain []Link // from the target that the file belongs to, to the one asked about
}

// A Link is a target of a chain.
type Link struct {
	Label label.Label
	Attr  string // by which it depends on the one before it; "" in the first
}

// Why returns the shortest way from a file that differs to the target, which must be one of r's.
func (r *Result) Why(ctx context.Context, lab label.Label) (Cause, error) {
	f := r.find
	i := f.after.find(lab)
	if i < 0 {
		c := f.declared(f.before, lab.Pkg)
		c.Chain = []Link{{Label: lab}}
		return c, nil
	}
	if f.parent == nil {
		f.search()
	}
	var chain []Link
	for {
		t := f.after.nodes[i]
		from := f.parent[i]
		if from == i || from < 0 {
			break
		}
		link := Link{Label: t.label()}
		for _, d := range t.Deps {
			if f.after.find(d.To) == from {
				link.Attr = d.Attr
				break
			}
		}
		chain = append(chain, link)
		i = from
	}
	chain = append(chain, Link{Label: f.after.nodes[i].label()})
	slices.Reverse(chain)
	c, ok := f.causes[i]
	if !ok {
		var err error
		if c, err = f.ownCause(ctx, i); err != nil {
			return Cause{}, err
		}
		f.causes[i] = c
	}
	c.Chain = chain
	return c, nil
}

// search finds, from all targets that differ by themselves at once, the way to those that differ by their dependencies.
func (f *finder) search() {
	f.parent, f.causes = make([]int32, len(f.after.nodes)), map[int32]Cause{}
	users := make([][]int32, len(f.after.nodes))
	var queue []int32
	for i := range f.parent {
		f.parent[i] = -1
		for _, d := range f.deps[i] {
			users[d] = append(users[d], int32(i))
		}
	}
	for i, own := range f.own {
		if own != same && f.state[i] != same {
			f.parent[i] = int32(i)
			queue = append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, u := range users[i] {
			if f.parent[u] < 0 && f.state[u] != same {
				f.parent[u] = i
				queue = append(queue, u)
			}
		}
	}
}

// ownCause is why a target differs by itself.
func (f *finder) ownCause(ctx context.Context, i int32) (Cause, error) {
	t := f.after.nodes[i]
	j := f.before.find(t.label())
	if j < 0 {
		return f.declared(f.after, t.pkg), nil
	}
	was := f.before.nodes[j]
	for _, c := range f.files[t.pkg] {
		if c.what == "moved" {
			return Cause{File: c.path, What: c.what}, nil
		}
	}
	// A source that differs, or is in one of the trees only.
	for _, c := range f.files[t.pkg] {
		name := strings.TrimPrefix(strings.TrimPrefix(c.path, t.pkg), "/")
		if _, ok := slices.BinarySearch(t.Srcs, name); ok {
			return Cause{File: c.path, What: c.what}, nil
		}
		if _, ok := slices.BinarySearch(was.Srcs, name); ok {
			return Cause{File: c.path, What: c.what}, nil
		}
	}
	if t.Reads {
		if c := f.usedFile(t.label()); c != nil {
			return Cause{File: c.path, What: c.what}, nil
		}
		if link := f.link(t.pkg); link != "" && len(f.files[t.pkg]) == 0 {
			return Cause{File: link, What: "leads to another text"}, nil
		}
	}
	if was.Sum == t.Sum && f.sameEnv && len(f.files[t.pkg]) > 0 {
		c := f.files[t.pkg][0]
		return Cause{File: c.path, What: c.what}, nil
	}
	c := f.declared(f.after, t.pkg)
	// Where a select() chose something else, the config_setting that it asks may stand in another package.
	for _, d := range t.Deps {
		if to := f.after.find(d.To); c.File == "" && to >= 0 && f.own[to] != same {
			c = f.declared(f.after, d.To.Pkg)
		}
	}
	attrs, err := f.attributes(ctx, t.label())
	switch {
	case len(attrs) > 0:
		c.Part = "attribute " + strings.Join(attrs, ", ")
	case was.Sum != t.Sum:
		c.Part = "rule " + t.Kind
	}
	return c, err
}

// usedFile returns a file that differs among those that the actions of a target read, in either tree, or nil.
func (f *finder) usedFile(lab label.Label) *fileChange {
	used := map[string]bool{}
	for _, s := range []*side{f.before, f.after} {
		t := s.targets[lab]
		if t == nil {
			continue
		}
		for _, file := range t.Read {
			used[file] = true
		}
		for _, n := range t.Actions {
			switch do := n.Do.(type) {
			case *action.Native:
				for _, file := range do.Files {
					used[file.Path] = true
				}
			case *action.Layer:
				for _, e := range do.Entries {
					used[e.File] = true
				}
			}
		}
	}
	for i, c := range f.files[lab.Pkg] {
		if used[c.path] {
			return &f.files[lab.Pkg][i]
		}
	}
	return nil
}

// declared is a cause in what declares the targets of a package.
func (f *finder) declared(s *side, pkg string) Cause {
	var files []string
	for _, tree := range []*side{s, f.before, f.after} {
		o := tree.outlines[pkg]
		if o == nil {
			continue
		}
		files = append(files, o.File)
		for _, id := range o.Modules {
			if lab, err := label.Parse(id, ""); err == nil {
				files = append(files, path.Join(lab.Pkg, lab.Name))
			}
		}
		files = append(files, o.Reads...)
	}
	files = append(files, load.RootFiles...)
	for _, c := range f.files[pkg] {
		files = append(files, c.path)
	}
	for _, file := range files {
		if what := f.changed[file]; what != "" {
			return Cause{File: file, What: what}
		}
	}
	// The package above ended where this one begins, or the other way round.
	for _, name := range []string{"BUILD", "BUILD.star"} {
		if what := f.changed[path.Join(pkg, name)]; what != "" {
			return Cause{File: path.Join(pkg, name), What: what}
		}
	}
	return Cause{}
}

// attributes are the names of those that differ between the trees, sorted.
func (f *finder) attributes(ctx context.Context, lab label.Label) ([]string, error) {
	var sums [2]map[string][32]byte
	for n, s := range []*side{f.before, f.after} {
		loader, errs := s.load()
		if len(errs) > 0 {
			return nil, errs[0]
		}
		var err error
		if sums[n], err = loader.AttributeSums(ctx, lab); err != nil {
			return nil, err
		}
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(sums[1])) {
		if sums[0][name] != sums[1][name] {
			names = append(names, name)
		}
	}
	return names, nil
}
