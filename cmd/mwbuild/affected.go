package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build/affected"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/graph/query"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// affectedFlags are what mwbuild affected was asked for.
type affectedFlags struct {
	since       string
	query       string
	uncommitted bool
	kind        string
	tests       bool
	images      bool
	why         bool
	output      string
	shards      int
	exitCode    bool
}

func (a *app) affectedCommand() *cobra.Command {
	var f affectedFlags
	c := &cobra.Command{
		Use:   "affected [--since REV] [FLAGS] [TARGET…]",
		Short: "Tell which targets a change reaches, and why",
		Long: `Tell which targets differ between two revisions of the workspace: those whose own files, attributes or rule differ, and
those that depend on such targets. Both revisions are read from git; nothing is checked out or built.

    mwbuild affected --since origin/master           what this branch changes
    mwbuild affected --since v1.2..v1.3              between two revisions, as they are
    mwbuild affected --uncommitted                   what is not committed yet
    mwbuild affected --since origin/master //... -//tests/...
    mwbuild build $(mwbuild affected --since origin/master //...)

Without targets all are looked at. With them, those that they match: //... leaves out what is tagged manual, as in a build.
What the newer revision does not have any more is in no output but json: nobody can build it.

An empty result is one: the exit code is 0, or 4 with --exit-code. Errors in the newer revision are errors here; a package that
cannot be evaluated in the older one counts as not there.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.since == "" && !f.uncommitted:
				return usagef("nothing says what to compare\n    --since REV compares with where this branch left REV, such as origin/master; --uncommitted with the last commit")
			case f.output != "label" && f.output != "json" && f.output != "matrix":
				return usagef("--output=%s: want label, json or matrix", f.output)
			case f.shards < 0 || f.shards == 0 && cmd.Flags().Changed("shards"):
				return usagef("--shards=%d: want 1 or more", f.shards)
			case f.shards > 0 && f.output != "matrix":
				return usagef("--shards is for --output=matrix")
			}
			return a.affected(cmd.Context(), f, args)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.since, "since", "", "`revision` to compare with: REV from where HEAD left it, A..B as they are, A...B from where B left A")
	fl.BoolVar(&f.uncommitted, "uncommitted", false, "compare with the working tree, untracked files included, in place of HEAD")
	fl.StringVar(&f.query, "query", "", "only targets in the result of this `expression`, as mwbuild query has it in the newer revision")
	fl.StringVar(&f.kind, "kind", "", "only targets whose kind, such as \"mw_image rule\", has a match of this regular `expression`")
	fl.BoolVar(&f.tests, "tests", false, "only tests: what a rule makes whose name ends in test or test_suite")
	fl.BoolVar(&f.images, "images", false, "only images: what a rule makes whose name ends in image")
	fl.BoolVar(&f.why, "why", false, "tell for each target the shortest way from a file that differs to it; json has that always")
	fl.StringVar(&f.output, "output", "label", "label (one a line), json (an object with base, head and targets) or matrix (for a CI matrix: {\"include\": [{\"shard\", \"targets\"}]})")
	fl.IntVar(&f.shards, "shards", 0, "with --output=matrix: into how many `parts` to divide the targets, at most (default 8)")
	fl.BoolVar(&f.exitCode, "exit-code", false, "exit with 4 if there is nothing to build")
	return c
}

var (
	testKinds  = regexp.MustCompile(`(^|_)test(_suite)?$`)
	imageKinds = regexp.MustCompile(`(^|_)image$`)
)

// affectedJSON is the form of --output=json.
type affectedJSON struct {
	Base    string           `json:"base"`
	Head    string           `json:"head"` // "" for the working tree
	Targets []affectedTarget `json:"targets"`
}

type affectedTarget struct {
	Label  string          `json:"label"`
	Kind   string          `json:"kind"`
	Change affected.Change `json:"change"`
	Why    []string        `json:"why,omitempty"`   // a file, and the labels from it to this one
	Cause  *affectedCause  `json:"cause,omitempty"` // what happened to the file
}

type affectedCause struct {
	File string `json:"file"`
	What string `json:"what"`
	Part string `json:"part,omitempty"`
}

func (a *app) affected(ctx context.Context, flags affectedFlags, args []string) error {
	o, err := a.locate(ctx, true)
	if err != nil {
		return err
	}
	var patterns []label.Pattern
	if len(args) > 0 {
		if patterns, err = o.patterns(args); err != nil {
			return err
		}
	}
	var kind *regexp.Regexp
	if flags.kind != "" {
		if kind, err = regexp.Compile(flags.kind); err != nil {
			return usageError{fmt.Errorf("--kind: %w", err)}
		}
	}
	var asked query.Expr
	if flags.query != "" {
		if asked, err = query.Parse(flags.query); err != nil {
			return queryError(err)
		}
	}
	begun := time.Now()
	before, after, err := o.revisions(ctx, flags)
	if err != nil {
		return err
	}
	defer before.Close()
	unknown, err := a.absent(before, after)
	if err != nil {
		return err
	}
	out := affectedJSON{Base: before.Commit, Targets: []affectedTarget{}}
	if r, ok := after.(*workspace.Revision); ok {
		out.Head = r.Commit
		defer r.Close()
	}
	a.log.Debug("listed both trees", "took", time.Since(begun))
	begun = time.Now()
	memo := o.memo()
	loaders := map[workspace.Tree]*load.Loader{}
	res, errs := affected.Find(ctx, affected.Options{
		Before: before, After: after, Unknown: unknown, Memo: memo,
		Loader: func(t workspace.Tree) (_ *load.Loader, errs []error) {
			loaders[t], errs = o.loaderOf(t, false)
			return loaders[t], errs
		},
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(errs) > 0 {
		return o.reported(errs)
	}
	o.remember(memo)
	o.records.Config = loaders[after].Workspace().Config // whose durations count
	o.records.Config = loaders[after].Workspace().Config
	a.log.Debug("compared", "affected", len(res.Targets), "packages evaluated", res.Loaded, "took", time.Since(begun))
	for i, p := range patterns {
		if !p.Negative && !res.Match(p) {
			return usagef("%s: neither revision has such a target", showPattern(args[i]))
		}
	}
	inQuery := map[label.Label]bool{}
	if asked != nil {
		_, found, err := o.ask(ctx, loaders[after], flags.query, asked, query.Options{Folder: o.pkg})
		if err != nil {
			return err
		}
		for _, n := range found.Nodes(query.Free) {
			inQuery[n.Label] = n.Target != nil
		}
	}
	buildable := 0
	for _, t := range res.Targets {
		if !wanted(t, patterns) || asked != nil && !inQuery[t.Label] || kind != nil && !kind.MatchString(t.Kind+" rule") ||
			flags.tests && !testKinds.MatchString(t.Kind) || flags.images && !imageKinds.MatchString(t.Kind) {
			continue
		}
		one := affectedTarget{Label: t.Label.String(), Kind: t.Kind, Change: t.Change}
		if flags.why || flags.output == "json" {
			c, err := res.Why(ctx, t.Label)
			if err != nil {
				return err
			}
			one.Cause = &affectedCause{c.File, c.What, c.Part}
			one.Why = append(one.Why, c.File)
			for _, l := range c.Chain {
				one.Why = append(one.Why, l.Label.String())
			}
		}
		if t.Change != affected.Removed {
			buildable++
		}
		out.Targets = append(out.Targets, one)
	}
	if err := o.printAffected(out, flags); err != nil {
		return err
	}
	switch {
	case buildable > 0:
	case flags.exitCode:
		return errNothing
	default:
		a.note("nothing is affected")
	}
	return nil
}

func (o *opened) printAffected(out affectedJSON, flags affectedFlags) error {
	enc := json.NewEncoder(o.app.std.out)
	enc.SetEscapeHTML(false)
	switch flags.output {
	case "json":
		enc.SetIndent("", "  ")
		return enc.Encode(out)
	case "matrix":
		// On one line, as a CI system wants the output of a step.
		var labels []string
		for _, t := range out.buildable() {
			labels = append(labels, t.Label)
		}
		took, err := o.records.Took(labels)
		if err != nil { // then the parts are equal in number
			o.app.log.Debug("what builds took is not known", "error", err)
		}
		return enc.Encode(matrix{divide(labels, cmp.Or(flags.shards, mostShards), took)})
	}
	var b strings.Builder
	for _, t := range out.buildable() {
		b.WriteString(t.Label + "\n")
		if t.Cause != nil {
			fmt.Fprintf(&b, "    %s\n", t.Cause)
			for _, l := range t.Why[1 : len(t.Why)-1] {
				fmt.Fprintf(&b, "    → %s\n", l)
			}
		}
	}
	_, err := o.app.std.out.Write([]byte(b.String()))
	return err
}

// String is how the cause is shown to people.
func (c affectedCause) String() string {
	s := cmp.Or(c.File, "no file of the workspace") + " " + c.What
	if c.File == "" {
		s = "no file of the workspace"
	}
	if c.Part != "" {
		s += ": " + c.Part
	}
	return s
}

// buildable are the targets that the tree after has.
func (out affectedJSON) buildable() []affectedTarget {
	return slices.DeleteFunc(slices.Clone(out.Targets), func(t affectedTarget) bool { return t.Change == affected.Removed })
}

// mostShards is how many parts a matrix has if nobody says.
const mostShards = 8

// A matrix is what GitHub's strategy.matrix takes: one job for each element of include.
type matrix struct {
	Include []shard `json:"include"`
}

// A shard is what one job builds. Targets are a list: a label may hold a space.
type shard struct {
	Shard   int      `json:"shard"` // from 1
	Targets []string `json:"targets"`
}

// divide shares targets, which are sorted, out to at most n shards, none of them empty, so that the longest takes as little
// time as giving the longest target first to the shard that has the least makes it. What a target took counts; where that
// is not known, it is taken for the median of the others.
func divide(targets []string, n int, took map[string]time.Duration) []shard {
	known := slices.Sorted(maps.Values(took))
	usual := time.Duration(1)
	if len(known) > 0 {
		usual = known[len(known)/2]
	}
	weight := func(lab string) time.Duration { return cmp.Or(took[lab], usual) }
	shards := make([]shard, min(n, len(targets)))
	loads := make([]time.Duration, len(shards))
	order := slices.Clone(targets)
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(weight(b), weight(a)) })
	for _, lab := range order {
		i := slices.Index(loads, slices.Min(loads))
		loads[i] += weight(lab)
		shards[i].Targets = append(shards[i].Targets, lab)
	}
	place := make(map[string]int, len(targets))
	for i, lab := range targets {
		place[lab] = i
	}
	for i := range shards {
		shards[i].Shard = i + 1
		slices.SortFunc(shards[i].Targets, func(a, b string) int { return cmp.Compare(place[a], place[b]) })
	}
	return shards
}

// wanted tells whether patterns, if there are any, match t.
func wanted(t affected.Target, patterns []label.Pattern) bool {
	want := len(patterns) == 0
	for _, p := range patterns {
		if p.Match(t.Label) && (p.Negative || p.One() || !slices.Contains(t.Tags, "manual")) {
			want = !p.Negative
		}
	}
	return want
}

// revisions opens the two trees to compare.
func (o *opened) revisions(ctx context.Context, flags affectedFlags) (before *workspace.Revision, after workspace.Tree, err error) {
	if _, err := workspace.FindRoot(o.root); err != nil && flags.uncommitted {
		return nil, nil, usagef("--uncommitted: nothing is checked out of %s\n    --since A..B compares two revisions", o.root)
	}
	base, head := "HEAD", "HEAD"
	if from, to, ok := strings.Cut(flags.since, ".."); ok {
		to, symmetric := strings.CutPrefix(to, ".")
		base, head = cmp.Or(from, "HEAD"), cmp.Or(to, "HEAD")
		if flags.uncommitted && to != "" {
			return nil, nil, usagef("--since=%s names both ends, and --uncommitted is another end: leave one of them out", flags.since)
		}
		if symmetric {
			base, err = workspace.MergeBase(ctx, o.root, base, head)
		}
	} else if flags.since != "" {
		base, err = workspace.MergeBase(ctx, o.root, flags.since, head)
	}
	if err != nil {
		return nil, nil, revisionError(err)
	}
	// Both are listed at once: git takes most of the time.
	var wg sync.WaitGroup
	var beforeErr, afterErr error
	wg.Go(func() { before, beforeErr = workspace.OpenRevision(ctx, o.root, base) })
	if flags.uncommitted {
		if afterErr = o.list(ctx); afterErr == nil {
			after = workspace.NewWorktree(ctx, o.tree)
		}
	} else if r, err := workspace.OpenRevision(ctx, o.root, head); err != nil {
		afterErr = err
	} else if after = r; !isWorkspace(r) {
		afterErr = usagef("%s has no WORKSPACE file where this workspace lies\n    name a revision that has one", head)
	}
	wg.Wait()
	if err := cmp.Or(beforeErr, afterErr); err != nil {
		err = revisionError(err)
		if before != nil {
			err = errors.Join(err, before.Close())
		}
		if r, ok := after.(*workspace.Revision); ok {
			err = errors.Join(err, r.Close())
		}
		return nil, nil, err
	}
	return before, after, nil
}

// isWorkspace tells whether a tree is one.
func isWorkspace(t workspace.Tree) bool {
	return slices.ContainsFunc([]string{"WORKSPACE", "WORKSPACE.star"}, func(name string) bool {
		_, ok := t.Lookup(name)
		return ok
	})
}

// revisionError makes a revision that git does not know an error of the command line.
func revisionError(err error) error {
	if errors.Is(err, workspace.ErrNoRevision) || errors.Is(err, workspace.ErrNoGit) {
		return usageError{err}
	}
	return err
}

// absent returns the submodules that differ and of which nothing is known, and notes them.
func (a *app) absent(before *workspace.Revision, after workspace.Tree) ([]string, error) {
	var is map[string]string
	switch t := after.(type) {
	case *workspace.Revision:
		is = t.Absent
	case *workspace.Worktree:
		var err error
		if is, err = t.Absent(); err != nil {
			return nil, err
		}
	}
	paths := slices.Collect(maps.Keys(before.Absent))
	paths = slices.AppendSeq(paths, maps.Keys(is))
	slices.Sort(paths)
	paths = slices.DeleteFunc(slices.Compact(paths), func(p string) bool { return before.Absent[p] == is[p] })
	for _, p := range paths {
		switch {
		case is[p] == "":
			a.note("the submodule %s is not there any more, or was not checked out: all that its folder belongs to counts as affected", p)
		case before.Absent[p] == "":
			a.note("the submodule %s is new and not checked out: all that its folder belongs to counts as affected\n"+
				"    git submodule update --init %s fetches it", p, p)
		default:
			a.note("the submodule %s moved and is not checked out: all that its folder belongs to counts as affected\n"+
				"    git submodule update --init %s fetches it, and shows what changed in it", p, p)
		}
	}
	return paths, nil
}
