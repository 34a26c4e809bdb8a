package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/rules/lint"
)

func (a *app) lintCommand() *cobra.Command {
	var fix, list bool
	var output string
	c := &cobra.Command{
		Use:   "lint [FLAGS] [TARGET|FOLDER…]",
		Short: "Find what is wrong with BUILD files that build all the same",
		Long: `Find what is wrong with BUILD files that build all the same, by default with all of them. A folder stands for everything in and
below it. Exit with 1 if something was found.

A comment "# lint: ignore CHECK" at the end of a line, or above what begins on it, silences a check there. docs/lint.md tells about
each check.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return usagef("--output=%s: want text or json", output)
			}
			if list {
				return a.listChecks(output == "json")
			}
			return a.lint(cmd.Context(), args, fix, output == "json")
		},
	}
	c.Flags().BoolVar(&fix, "fix", false, "fix what can be fixed without asking, and format the files that change")
	c.Flags().BoolVar(&list, "list", false, "name the checks and do nothing else")
	c.Flags().StringVar(&output, "output", "text", "text, or json: an array with an object for each finding")
	return c
}

func (a *app) listChecks(asJSON bool) error {
	type check struct {
		Name    string `json:"name"`
		Doc     string `json:"doc"`
		Fixable bool   `json:"fixable"`
	}
	var checks []check
	for _, c := range lint.Checks() {
		checks = append(checks, check(c))
	}
	if asJSON {
		return a.printJSON(checks)
	}
	for _, c := range checks {
		fixable := ""
		if c.Fixable {
			fixable = " (--fix)"
		}
		if _, err := fmt.Fprintf(a.std.out, "%-20s  %s%s\n", c.Name, c.Doc, fixable); err != nil {
			return err
		}
	}
	return nil
}

// finding is one finding as lint shows it. The names of its JSON form stay.
type finding struct {
	Check   string `json:"check"`
	Pos     string `json:"pos"`
	Label   string `json:"label,omitempty"`
	Message string `json:"message"`
	Next    string `json:"next"`
	Fixed   bool   `json:"fixed"`
}

func (a *app) lint(ctx context.Context, args []string, fix, asJSON bool) error {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	patterns, err := o.lintPatterns(args)
	if err != nil {
		return err
	}
	loader, errs := o.loader()
	if len(errs) > 0 {
		return o.reported(errs)
	}
	res, err := lint.Run(ctx, lint.Options{Root: o.root, Tree: o.tree, Loader: loader, Patterns: patterns, Fix: fix})
	if err != nil {
		return err
	}
	o.report(res.Errors)
	if len(res.Errors) > 0 {
		a.note("what cannot be loaded is only checked in part")
	}
	for _, c := range res.Changes {
		r := rewrite{path: c.Path, file: filepath.Join(o.root, filepath.FromSlash(c.Path)), old: c.Old, new: c.New}
		if err := r.write(); err != nil {
			return err
		}
	}
	out := []finding{}
	var text strings.Builder
	fixed := 0
	for _, f := range res.Findings {
		out = append(out, finding{f.Check, f.Pos, f.Label, f.Msg, f.Hint, f.Fixed})
		what := f.Msg
		if f.Label != "" {
			what = f.Label + ": " + what
		}
		if f.Fixed {
			fixed++
			fmt.Fprintf(&text, "fixed %s: %s [%s]\n", f.Pos, what, f.Check)
		} else {
			fmt.Fprintf(&text, "%s: %s [%s]\n    %s\n", f.Pos, what, f.Check, f.Hint)
		}
	}
	if asJSON {
		err = a.printJSON(out)
	} else {
		_, err = fmt.Fprint(a.std.out, text.String())
	}
	if err != nil {
		return err
	}
	left := len(out) - fixed
	switch {
	case fixed > 0:
		a.note("%s, %d fixed in %s", counted(len(out), "finding"), fixed, counted(len(res.Changes), "file"))
	case left > 0:
		a.note("%s", counted(left, "finding"))
	case len(res.Errors) == 0:
		a.note("nothing found")
	}
	if left > 0 || len(res.Errors) > 0 {
		return errReported
	}
	return nil
}

// lintPatterns reads the targets and folders of a command line.
func (o *opened) lintPatterns(args []string) ([]label.Pattern, error) {
	if len(args) == 0 {
		return []label.Pattern{{Below: true}}, nil
	}
	var targets, folders []string
	for _, arg := range args {
		if looksLikePattern(showPattern(arg)) {
			targets = append(targets, arg)
		} else {
			folders = append(folders, arg)
		}
	}
	below, err := o.app.folders(o.root, folders)
	if err != nil {
		return nil, err
	}
	var patterns []label.Pattern
	for _, f := range below {
		patterns = append(patterns, label.Pattern{Label: label.Label{Pkg: f}, Below: true})
	}
	if !slices.ContainsFunc(args, func(arg string) bool { return !negative(showPattern(arg)) }) {
		patterns = append(patterns, label.Pattern{Below: true})
	}
	for _, arg := range targets {
		p, err := label.ParsePattern(showPattern(arg), o.pkg)
		if err != nil {
			return nil, usageError{err}
		}
		patterns = append(patterns, p)
	}
	for _, p := range patterns {
		if !p.Negative && !slices.ContainsFunc(o.tree.Packages(), p.MatchPackage) {
			return nil, usagef("no package matches %s", p)
		}
	}
	return patterns, nil
}
