package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mwbuild is this project's side, and the floor, which has the same tree.
type mwbuild struct {
	tree
	cache string
}

func (t *mwbuild) mwbuild(cache string, args ...string) command {
	return command{dir: t.dir, args: append([]string{t.bench.mwbuild, "--cache-dir", cache}, args...)}
}

func (t *mwbuild) cold() string { return t.cache + "-cold" }

// forget removes the cache of what is measured without one.
func (t *mwbuild) forget(context.Context) error { return os.RemoveAll(t.cold()) }

func (t *mwbuild) one() string { return "//" + folderOf(t.edited) + ":layer" }

func (t *mwbuild) affected(cache string) command {
	return t.mwbuild(cache, "affected", "--since", "HEAD~1", "--output=label")
}

// labels are the targets of all packages, and srcs what these name as sources, sorted.
func (t *mwbuild) labels() (labels, srcs []string) {
	for i := range t.n {
		for _, name := range targetsOf {
			labels = append(labels, "//"+folderOf(i)+":"+name)
		}
		srcs = append(srcs, "//"+folderOf(i)+":src", "//"+folderOf(i)+":lib")
		for _, name := range filesOf {
			srcs = append(srcs, "//"+folderOf(i)+":"+name)
		}
	}
	slices.Sort(labels)
	slices.Sort(srcs)
	return labels, srcs
}

// prepare builds everything, makes a commit of one edit and looks at it, so that what follows has the cache of a commit before.
func (t *mwbuild) prepare(ctx context.Context) error {
	_, srcs := t.labels()
	for _, s := range []struct {
		command
		check func(output) error
	}{
		{t.mwbuild(t.cold(), "query", "labels(srcs, //...)"), func(o output) error { return same(o.out, srcs) }},
		{t.mwbuild(t.cache, "//..."), nil},
		{t.mwbuild(t.cache, "//..."), t.upToDate(4 * t.n)},
	} {
		if err := t.do(ctx, s.command, s.check); err != nil {
			return err
		}
	}
	if err := t.edit(ctx); err != nil {
		return err
	}
	if err := t.commit(ctx); err != nil {
		return err
	}
	if err := t.do(ctx, t.mwbuild(t.cache, "//..."), t.rebuilt); err != nil {
		return err
	}
	return t.do(ctx, t.affected(t.cache), t.affects)
}

func (t *mwbuild) upToDate(n int) func(output) error {
	return func(o output) error {
		if n == 1 {
			return says(o.err, "mwbuild: 1 target up to date")
		}
		return says(o.err, fmt.Sprintf("mwbuild: %d targets up to date", n))
	}
}

// rebuilt finds that the library and the layer of the edited package were built, and that most was not.
func (t *mwbuild) rebuilt(o output) error {
	return says(o.err, fmt.Sprintf("2 of %d actions executed: 1 file changed in //%s", 2*t.n, folderOf(t.edited)))
}

func (t *mwbuild) affects(o output) error { return same(o.out, t.graph.affected(t.edited)) }

func (t *mwbuild) steps() []step {
	labels, _ := t.labels()
	all := func(o output) error { return same(o.out, labels) }
	globbed := func(o output) error {
		if err := all(o); err != nil {
			return err
		}
		return says(o.err, fmt.Sprintf("%d files globbed", 9*t.n)) // all but the README.md of each package
	}
	one := t.mwbuild(t.cache, t.one())
	return []step{
		{"mwbuild", "load", t.forget, t.mwbuild(t.cold(), "query", "//...", "--output=label"), all},
		{"mwbuild", "load_warm", nil, t.mwbuild(t.cold(), "query", "//...", "--output=label"), all},
		{"mwbuild", "noop", nil, t.mwbuild(t.cache, "//..."), t.upToDate(4 * t.n)},
		{"mwbuild", "noop_one_first", nil, one, t.upToDate(1)},
		{"mwbuild", "noop_one", nil, one, t.upToDate(1)},
		{"mwbuild", "edit", t.edit, t.mwbuild(t.cache, "//..."), t.rebuilt},
		{"mwbuild", "affected_warm", t.commit, t.affected(t.cache), t.affects},
		{"mwbuild", "affected_cold", t.forget, t.affected(t.cold()), t.affects},
		{"floor", "load", nil, command{args: []string{t.self, "floor", t.dir}}, globbed},
		{"floor", "load_nogc", nil, command{args: []string{t.self, "floor", t.dir}, env: []string{"GOGC=off"}}, globbed},
		{"floor", "walk", nil, command{args: []string{t.self, "floor", "-walk", t.dir}}, func(o output) error {
			return says(o.err, fmt.Sprintf("%d files", 11*t.n+3)) // BUILD files, WORKSPACE and tools, too
		}},
		{"floor", "ls_files", nil, command{dir: t.dir, args: []string{"git", "ls-files"}}, func(o output) error {
			if n := strings.Count(o.out, "\n"); n != 11*t.n+3 {
				return fmt.Errorf("%d files", n)
			}
			return nil
		}},
	}
}

// ninja has one edge for each target.
type ninja struct{ tree }

func (t *ninja) ninja(args ...string) command {
	return command{dir: t.dir, args: append([]string{t.bench.ninja}, args...)}
}

func (t *ninja) prepare(ctx context.Context) error {
	if err := t.do(ctx, t.ninja(), nil); err != nil {
		return err
	}
	return t.do(ctx, t.ninja(), t.nothing)
}

func (t *ninja) nothing(o output) error { return says(o.out, "ninja: no work to do.") }

// rebuilt finds the edited sources, and all that depends on them.
func (t *ninja) rebuilt(o output) error {
	var want, got []string
	for _, l := range t.graph.affected(t.edited) {
		want = append(want, "out/"+strings.Replace(strings.TrimPrefix(l, "//"), ":", "/", 1))
	}
	for line := range strings.Lines(o.out) {
		_, made, _ := strings.Cut(strings.TrimSpace(line), " ")
		got = append(got, made)
	}
	slices.Sort(want)
	return same(strings.Join(got, "\n"), want)
}

func (t *ninja) steps() []step {
	one := t.ninja("out/" + folderOf(t.edited) + "/layer")
	return []step{
		{"ninja", "load", nil, t.ninja("-t", "targets", "all"), func(o output) error {
			if n := strings.Count(o.out, "\n"); n != 4*t.n {
				return fmt.Errorf("%d targets", n)
			}
			return nil
		}},
		{"ninja", "noop", nil, t.ninja(), t.nothing},
		{"ninja", "noop_one", nil, one, t.nothing},
		{"ninja", "edit", t.edit, t.ninja(), t.rebuilt},
	}
}

// turbo has one task for each package.
type turbo struct{ tree }

func (t *turbo) turbo(args ...string) command {
	return command{
		dir: t.dir, args: append([]string{t.bench.turbo}, args...),
		env: []string{"TURBO_TELEMETRY_DISABLED=1", "DO_NOT_TRACK=1", "TURBO_NO_UPDATE_NOTIFIER=1", "TURBO_SCM_BASE=HEAD~1"},
	}
}

func (t *turbo) build(more ...string) command {
	return t.turbo(append([]string{"run", "build", "--no-daemon", "--output-logs=none"}, more...)...)
}

// prepare builds everything, without starting npm 2,500 times: a stand-in for npm runs the scripts, of which all are the same.
func (t *turbo) prepare(ctx context.Context) error {
	if t.n > t.turboBuilds {
		return t.firstCommit(ctx)
	}
	bin, err := os.MkdirTemp(t.bench.dir, "npm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	if err := os.WriteFile(filepath.Join(bin, "npm"), []byte("#!/bin/sh\n"+turboScript+"\n"), 0o755); err != nil {
		return err
	}
	c := t.build()
	c.env = append(c.env, "PATH="+bin+":"+os.Getenv("PATH"))
	if err := t.do(ctx, c, nil); err != nil {
		return err
	}
	if err := t.do(ctx, t.build(), t.cached(t.n, t.n)); err != nil {
		return err
	}
	return t.firstCommit(ctx)
}

// firstCommit warms what the file system keeps of the objects of git.
func (t *turbo) firstCommit(ctx context.Context) error {
	if err := t.edit(ctx); err != nil {
		return err
	}
	if t.n <= t.turboBuilds {
		if err := t.do(ctx, t.build(), nil); err != nil {
			return err
		}
	}
	return t.commit(ctx)
}

func (t *turbo) cached(n, of int) func(output) error {
	return func(o output) error { return says(o.out, fmt.Sprintf("%d cached, %d total", n, of)) }
}

func (t *turbo) affects(o output) error {
	var got struct {
		Packages struct {
			Items []struct {
				Path string `json:"path"`
			} `json:"items"`
		} `json:"packages"`
	}
	if err := json.Unmarshal([]byte(o.out), &got); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(o.out))
	}
	var paths, want []string
	for _, p := range got.Packages.Items {
		paths = append(paths, p.Path)
	}
	for _, i := range closure(t.graph.users(), t.edited) {
		want = append(want, folderOf(i))
	}
	slices.Sort(want)
	return same(strings.Join(paths, "\n"), want)
}

func (t *turbo) steps() []step {
	ls := func(more ...string) command { return t.turbo(append([]string{"ls", "--output=json"}, more...)...) }
	steps := []step{{"turbo", "load", nil, ls(), func(o output) error { return says(o.out, fmt.Sprintf(`"count": %d`, t.n)) }}}
	change := func(ctx context.Context) error {
		if err := t.edit(ctx); err != nil {
			return err
		}
		return t.commit(ctx)
	}
	if t.n <= t.turboBuilds {
		of := len(closure(t.graph.deps, t.edited))
		steps = append(steps,
			step{"turbo", "noop", nil, t.build(), t.cached(t.n, t.n)},
			step{"turbo", "noop_one", nil, t.build("--filter=" + turboName(t.edited)), t.cached(of, of)},
			step{"turbo", "edit", t.edit, t.build(), t.cached(t.n-t.users(), t.n)},
		)
		change = t.commit
	}
	return append(steps,
		step{"turbo", "affected_warm", change, ls("--affected"), t.affects},
		step{"turbo", "affected_cold", nil, ls("--affected"), t.affects},
	)
}
