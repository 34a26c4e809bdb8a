package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/starlark/load"
)

func (a *app) ownersCommand() *cobra.Command {
	var output string
	var exitCode bool
	c := &cobra.Command{
		Use:   "owners [FLAGS] FILE…",
		Short: "Tell which targets use a file",
		Long: `Tell which targets use a file: one of theirs, a BUILD or .bzl file that declares them, or one that their rule or BUILD file reads.
What depends on those targets in turn is for mwbuild query 'rdeps(//..., FILE)'.

Each line is a file, a target, and how it uses the file: the attribute that names it, "BUILD file", "load", "read_json", or "rule" for
what a rule reads by itself.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return usagef("--output=%s: want text or json", output)
			}
			return a.owners(cmd.Context(), args, output == "json", exitCode)
		},
	}
	c.Flags().StringVar(&output, "output", "text", "text, or json: an array with an object for each file")
	c.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 4 if no target uses one of the files")
	return c
}

// ownedFile is a file as owners shows it. The names of its JSON form stay.
type ownedFile struct {
	File    string  `json:"file"`
	Targets []owner `json:"targets"`
	note    string  // why there are none
}

type owner struct {
	Label label.Label `json:"-"`
	Name  string      `json:"label"`
	Kind  string      `json:"kind"`
	How   []string    `json:"how"`
}

func (a *app) owners(ctx context.Context, args []string, asJSON, exitCode bool) error {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	files := make([]ownedFile, len(args))
	var wrong []error
	for i, arg := range args {
		if files[i].File, err = o.fileArgument(arg); err != nil {
			wrong = append(wrong, err)
		}
		files[i].Targets = []owner{}
	}
	if len(wrong) > 0 {
		return usageError{errors.Join(wrong...)}
	}
	loader, errs := o.loader()
	if len(errs) > 0 {
		return o.reported(errs)
	}
	f := &ownerFinder{o: o, loader: loader, declared: map[string][]load.Declared{}, read: map[string]map[label.Label]bool{}, seen: map[string]bool{}}
	none := 0
	for i := range files {
		if err := f.find(ctx, &files[i]); err != nil {
			return err
		}
		if len(files[i].Targets) == 0 {
			none++
		}
	}
	o.report(f.errs)
	if asJSON {
		err = a.printJSON(files)
	} else {
		w := tabwriter.NewWriter(a.std.out, 0, 0, 2, ' ', 0)
		for _, file := range files {
			for _, t := range file.Targets {
				fmt.Fprintf(w, "%s\t%s\t%s\n", file.File, t.Name, strings.Join(t.How, ", "))
			}
			if file.note != "" {
				a.note("%s: %s", file.File, file.note)
			}
		}
		err = w.Flush()
	}
	switch {
	case err != nil:
		return err
	case len(f.errs) > 0:
		a.note("the result is of what could be loaded")
		return errReported
	case exitCode && none > 0:
		return errNothing
	}
	return nil
}

// fileArgument returns the workspace's path of a file that is named on the command line: relative to the folder one stands in,
// absolute, or as //package:file. There need be no such file.
func (o *opened) fileArgument(arg string) (string, error) {
	if rest, ok := strings.CutPrefix(arg, "//"); ok {
		pkg, name, _ := strings.Cut(rest, ":")
		return path.Join(pkg, name), nil
	}
	at, err := filepath.Abs(o.app.path(arg))
	if err != nil {
		return "", err
	}
	if fi, err := os.Stat(at); err == nil && fi.IsDir() {
		return "", fmt.Errorf("%s is a folder\n    name files in it: mwbuild owners %s/*", arg, strings.TrimSuffix(arg, "/"))
	}
	// The last element may be a symlink that is itself a file of the workspace, or be gone.
	if dir, err := filepath.EvalSymlinks(filepath.Dir(at)); err == nil {
		at = filepath.Join(dir, filepath.Base(at))
	}
	rel, err := filepath.Rel(o.root, at)
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s is not in workspace %s", arg, o.root)
	}
	return filepath.ToSlash(rel), nil
}

// ownerFinder looks for the targets that use files.
type ownerFinder struct {
	o        *opened
	loader   *load.Loader
	declared map[string][]load.Declared // by package, once loaded; by "..." those of all
	read     map[string]map[label.Label]bool
	readOf   map[string]bool // packages that are in read
	errs     []error
	seen     map[string]bool
}

// survey returns the targets of a package, or of all with "...".
func (f *ownerFinder) survey(ctx context.Context, pkg string) ([]load.Declared, error) {
	if ts, ok := f.declared[pkg]; ok {
		return ts, nil
	}
	p := label.Pattern{Label: label.Label{Pkg: pkg}, All: true}
	if pkg == "..." {
		p = label.Pattern{Below: true}
	}
	ts, errs := f.loader.Survey(ctx, []label.Pattern{p})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	f.note(errs)
	ts = slices.DeleteFunc(ts, func(d load.Declared) bool { return !p.Match(d.Label()) })
	f.declared[pkg] = ts
	return ts, nil
}

func (f *ownerFinder) note(errs []error) {
	for _, err := range errs {
		if msg := err.Error(); !f.seen[msg] {
			f.seen[msg] = true
			f.errs = append(f.errs, err)
		}
	}
}

// find fills in who uses a file.
func (f *ownerFinder) find(ctx context.Context, file *ownedFile) error {
	name := file.File
	if !f.loader.HasFile(name) {
		file.note = "no such file in the workspace"
		if _, err := os.Lstat(filepath.Join(f.o.root, filepath.FromSlash(name))); err == nil {
			file.note = "git ignores it, or .mwbuildignore names it: nothing sees it"
		}
		return nil
	}
	pkg := f.loader.Owner(name)
	at := map[label.Label]int{}
	add := func(d load.Declared, how string) {
		i, ok := at[d.Label()]
		if !ok {
			i = len(file.Targets)
			at[d.Label()] = i
			file.Targets = append(file.Targets, owner{Label: d.Label(), Name: d.Label().String(), Kind: d.Kind()})
		}
		if t := &file.Targets[i]; !slices.Contains(t.How, how) {
			t.How = append(t.How, how)
		}
	}
	if f.loader.IsPackage(pkg) {
		if err := f.findInPackage(ctx, pkg, name, add); err != nil {
			return err
		}
	}
	if name == load.LayersLock {
		all, err := f.survey(ctx, "...")
		if err != nil {
			return err
		}
		named := map[string]bool{}
		layers := f.loader.Workspace().Layers
		for _, action := range slices.Concat(slices.Collect(maps.Keys(layers.Groups)), slices.Collect(maps.Keys(layers.Bases))) {
			target, _, _ := strings.Cut(action, " ")
			named[target] = true
		}
		for _, d := range all {
			if named[d.Label().String()] {
				add(d, "lock")
			}
		}
	} else if name == load.LockFile {
		all, err := f.survey(ctx, "...")
		if err != nil {
			return err
		}
		for _, d := range all {
			if len(d.Strings("ref")) > 0 {
				add(d, "lock")
			}
		}
	} else if base := path.Base(name); name == base && (base == "WORKSPACE" || base == "WORKSPACE.star") {
		all, err := f.survey(ctx, "...")
		if err != nil {
			return err
		}
		for _, d := range all {
			add(d, "WORKSPACE")
		}
	} else if ext := path.Ext(name); ext == ".bzl" || ext == ".star" {
		all, err := f.survey(ctx, "...")
		if err != nil {
			return err
		}
		loads := map[string]bool{}
		for _, d := range all {
			pkg := d.Label().Pkg
			if _, known := loads[pkg]; !known {
				loads[pkg] = slices.Contains(f.loader.PackageFiles(ctx, pkg).Loads, name)
			}
			if loads[pkg] {
				add(d, "load")
			}
		}
	}
	slices.SortFunc(file.Targets, func(a, b owner) int { return a.Label.Compare(b.Label) })
	if len(file.Targets) == 0 {
		file.note = "no target uses it"
	}
	return nil
}

// findInPackage looks at the package that the file belongs to: no other's attributes, reads and rules can name it.
func (f *ownerFinder) findInPackage(ctx context.Context, pkg, name string, add func(load.Declared, string)) error {
	targets, err := f.survey(ctx, pkg)
	if err != nil {
		return err
	}
	files := f.loader.PackageFiles(ctx, pkg)
	reads := slices.Contains(files.Reads, name)
	if err := f.loadReaders(ctx, pkg, targets); err != nil {
		return err
	}
	for _, d := range targets {
		for _, e := range d.Edges() {
			if e.File == name {
				add(d, e.Attr)
			}
		}
		if files.Build == name {
			add(d, "BUILD file")
		}
		if reads {
			add(d, "read_json")
		}
		if f.read[name][d.Label()] {
			add(d, "rule")
		}
	}
	return nil
}

// loadReaders runs the rules of a package that read files by themselves, and notes which ones those are.
func (f *ownerFinder) loadReaders(ctx context.Context, pkg string, targets []load.Declared) error {
	if f.readOf[pkg] {
		return nil
	}
	if f.readOf == nil {
		f.readOf = map[string]bool{}
	}
	f.readOf[pkg] = true
	var patterns []label.Pattern
	for _, d := range targets {
		if d.ReadsFiles() {
			patterns = append(patterns, label.Pattern{Label: d.Label()})
		}
	}
	if len(patterns) == 0 {
		return nil
	}
	res, errs := f.loader.Load(ctx, patterns)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f.note(errs)
	for _, t := range res.Targets {
		read := slices.Clone(t.Read)
		for _, n := range t.Actions {
			read = append(read, actionFiles(n)...)
		}
		for _, file := range read {
			if f.read[file] == nil {
				f.read[file] = map[label.Label]bool{}
			}
			f.read[file][t.Label] = true
		}
	}
	return nil
}
