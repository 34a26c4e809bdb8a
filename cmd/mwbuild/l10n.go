package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build/progress"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/rules/l10n/inspect"
	"github.com/mwbuild/mwbuild/starlark/load"
)

func (a *app) l10nCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "l10n stats|diff|check",
		Short: "Look at localisation: what is translated, what changed, what is wrong",
		Long: `Look at localisation: what is translated, what changed, what is wrong. Nothing is compiled into the cache, and no engine is needed.

A TARGET is an mw_l10n, such as //:l10n, which is the default, or what one component says, such as //extensions/Cite:l10n.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("l10n: what to do?\n    want mwbuild l10n stats, diff or check")
			}
			return usagef("l10n: there is no %q\n    want mwbuild l10n stats, diff or check", args[0])
		},
		RunE: func(*cobra.Command, []string) error { return nil }, // Args lets nothing pass
	}
	c.AddCommand(a.l10nStatsCommand(), a.l10nDiffCommand(), a.l10nCheckCommand())
	return c
}

// outputFlag adds --output, and returns what tells whether it asks for JSON.
func outputFlag(c *cobra.Command, doc string) func() (bool, error) {
	output := c.Flags().String("output", "text", "text, or json: "+doc)
	return func() (bool, error) {
		if *output != "text" && *output != "json" {
			return false, usagef("--output=%s: want text or json", *output)
		}
		return *output == "json", nil
	}
}

// localisation is targets that were loaded, in one tree.
type localisation struct {
	*inspect.Localisation
	targets []*graph.Target
}

// defaultL10n is the target that is meant where none is named.
const defaultL10n = "//:l10n"

// l10nPatterns reads the targets of a command line.
func (o *opened) l10nPatterns(args []string) ([]label.Pattern, error) {
	if len(args) == 0 {
		args = []string{defaultL10n}
	}
	return o.patterns(args)
}

// loadL10n loads targets of localisation from a tree.
func (o *opened) loadL10n(ctx context.Context, tree interface {
	load.Tree
	inspect.Tree
}, patterns []label.Pattern) (*localisation, []error) {
	loader, errs := o.loaderOf(tree, false)
	if len(errs) > 0 {
		return nil, errs
	}
	res, errs := loader.Load(ctx, patterns)
	if ctx.Err() != nil {
		return nil, []error{ctx.Err()}
	}
	if len(errs) > 0 {
		there := slices.ContainsFunc(loader.Declared(), func(d load.Declared) bool { return d.Label().String() == defaultL10n })
		if len(patterns) == 1 && patterns[0].String() == defaultL10n && !there {
			return nil, []error{usagef("there is no target %s, which is meant where none is named\n"+
				"    declare one with mw_l10n, as mwbuild gen does, or name a component's, such as //extensions/Cite:l10n", defaultL10n)}
		}
		return nil, errs
	}
	one := slices.ContainsFunc(patterns, func(p label.Pattern) bool { return !p.Negative && p.One() })
	targets := res.Targets
	if !one {
		targets = slices.DeleteFunc(slices.Clone(targets), func(t *graph.Target) bool {
			return !slices.Contains([]string{inspect.ComponentRule, inspect.StoreRule, inspect.UpdateRule}, t.Kind)
		})
	}
	if len(targets) == 0 {
		return nil, []error{usagef("no target of localisation matches\n    they are tagged manual, so name them: %s, //extensions/Cite:l10n", defaultL10n)}
	}
	l, err := inspect.New(tree, res.Graph, targets)
	if err != nil {
		return nil, []error{usageError{err}}
	}
	return &localisation{l, targets}, nil
}

// openL10n opens the workspace and loads targets of localisation.
func (a *app) openL10n(ctx context.Context, args []string) (*opened, *localisation, []label.Pattern, error) {
	o, err := a.open(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	patterns, err := o.l10nPatterns(args)
	if err != nil {
		return nil, nil, nil, err
	}
	begun := time.Now()
	l, errs := o.loadL10n(ctx, o.tree, patterns)
	a.log.Debug("loaded", "took", time.Since(begun))
	return o, l, patterns, o.reported(errs)
}

// reported shows errors of loading, and returns what then ends the command; a wrong command line does by itself.
func (o *opened) reported(errs []error) error {
	var usage usageError
	switch {
	case len(errs) == 0:
		return nil
	case len(errs) == 1 && (errors.As(errs[0], &usage) || errors.Is(errs[0], context.Canceled)):
		return errs[0]
	}
	o.report(errs)
	return errReported
}

// late is how long work goes on unseen.
const late = 500 * time.Millisecond

// working does what may take long, and shows it if it does.
func (a *app) working(name string, do func() error) error {
	display, err := progress.New(a.std.err, a.progress)
	if err != nil {
		return usageError{err}
	}
	task := display.Task(name)
	timer := time.AfterFunc(late, task.Start)
	err = do()
	if !timer.Stop() {
		task.Done(err)
	}
	return errors.Join(err, display.Close())
}

func (a *app) l10nStatsCommand() *cobra.Command {
	var opt statsOptions
	c := &cobra.Command{
		Use:   "stats [FLAGS] [TARGET…]",
		Short: "Count how much is translated, by language and component",
		Long: `Count how many of the English messages are translated: those whose keys are in the language's own files. Messages that English
lacks do not count.`,
	}
	asJSON := outputFlag(c, "an array with an object for each component and language")
	c.Flags().StringSliceVar(&opt.components, "component", nil, "only these components, by `path` or label: extensions/Cite, core")
	c.Flags().StringSliceVar(&opt.languages, "language", nil, "only these languages, by `code`: de,fr")
	c.Flags().StringVar(&opt.by, "by", "language", "what a line is about: language, component or both")
	c.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if opt.json, err = asJSON(); err != nil {
			return err
		}
		if !slices.Contains([]string{"language", "component", "both"}, opt.by) {
			return usagef("--by=%s: want language, component or both", opt.by)
		}
		return a.l10nStats(cmd.Context(), args, opt)
	}
	return c
}

type statsOptions struct {
	components []string
	languages  []string
	by         string
	json       bool
}

func (a *app) l10nStats(ctx context.Context, args []string, opt statsOptions) error {
	_, l, _, err := a.openL10n(ctx, args)
	if err != nil {
		return err
	}
	if len(opt.components) > 0 {
		if err := l.only(opt.components); err != nil {
			return err
		}
	}
	var all []inspect.Coverage
	err = a.working("count messages", func() (err error) {
		all, err = inspect.Stats(ctx, l.Localisation)
		return err
	})
	if err != nil {
		return err
	}
	for _, code := range opt.languages {
		if !slices.ContainsFunc(all, func(c inspect.Coverage) bool { return c.Language == code }) {
			return usagef("--language=%s: nothing is translated into it; codes are those of files, such as %s for i18n/pt-br.json", code, "pt-br")
		}
	}
	if len(opt.languages) > 0 {
		all = slices.DeleteFunc(all, func(c inspect.Coverage) bool { return !slices.Contains(opt.languages, c.Language) })
	}
	if opt.json {
		if all == nil {
			all = []inspect.Coverage{}
		}
		return a.printJSON(all)
	}
	return a.printCoverage(all, opt.by)
}

// only keeps the components that are named.
func (l *localisation) only(names []string) error {
	named := func(c inspect.Component, name string) bool {
		return c.Name == strings.TrimSuffix(name, "/") || c.Label == name || c.Core && name == "core"
	}
	for _, n := range names {
		if !slices.ContainsFunc(l.Components, func(c inspect.Component) bool { return named(c, n) }) {
			return usagef("--component=%s: no component of the targets has that path; --by=component names them", n)
		}
	}
	l.Components = slices.DeleteFunc(l.Components, func(c inspect.Component) bool {
		return !slices.ContainsFunc(names, func(n string) bool { return named(c, n) })
	})
	return nil
}

// coverageLine is a line of the table: a language, a component, or both.
type coverageLine struct {
	component, language         string
	languages                   int // with a translation
	translated, messages, total int // messages in English; total is those for each language
}

func (a *app) printCoverage(all []inspect.Coverage, by string) error {
	type at struct{ component, language string }
	index := map[at]*coverageLine{}
	var lines []*coverageLine
	for _, c := range all {
		l := at{c.Component, c.Language}
		if by == "language" {
			l.component = ""
		} else if by == "component" {
			l.language = ""
		}
		if index[l] == nil {
			index[l] = &coverageLine{component: l.component, language: l.language}
			lines = append(lines, index[l])
		}
		sum := index[l]
		sum.translated += c.Translated
		sum.total += c.Total
		sum.messages = c.Total
		if c.Translated > 0 {
			sum.languages++
		}
	}
	slices.SortStableFunc(lines, func(a, b *coverageLine) int {
		return cmp.Or(cmp.Compare(b.translated*a.total, a.translated*b.total), cmp.Compare(a.language, b.language), cmp.Compare(a.component, b.component))
	})
	rows := [][]string{{by, "translated", "messages", "percent"}}
	switch by {
	case "component":
		rows[0] = []string{by, "languages", "messages", "percent"}
	case "both":
		rows[0] = []string{"component", "language", "translated", "messages", "percent"}
	}
	for _, l := range lines {
		counts := []string{strconv.Itoa(l.translated), strconv.Itoa(l.total), percent(l.translated, l.total)}
		switch by {
		case "language":
			rows = append(rows, append([]string{l.language}, counts...))
		case "component":
			rows = append(rows, []string{l.component, strconv.Itoa(l.languages), strconv.Itoa(l.messages), counts[2]})
		default:
			rows = append(rows, append([]string{l.component, l.language}, counts...))
		}
	}
	words := len(rows[0]) - 3 // columns that begin the line; numbers follow, aligned on the right
	var widths [5]int
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var out strings.Builder
	for _, r := range rows {
		for i, cell := range r {
			switch {
			case i == 0:
				fmt.Fprintf(&out, "%-*s", widths[i], cell)
			case i < words:
				fmt.Fprintf(&out, "  %-*s", widths[i], cell)
			default:
				fmt.Fprintf(&out, "  %*s", widths[i], cell)
			}
		}
		out.WriteString("\n")
	}
	_, err := fmt.Fprint(a.std.out, out.String())
	return err
}

// percent is n of total, rounded down, so that 100 % is all.
func percent(n, total int) string {
	if total == 0 {
		return "-"
	}
	tenths := n * 1000 / total
	return fmt.Sprintf("%d.%d %%", tenths/10, tenths%10)
}

func (a *app) l10nDiffCommand() *cobra.Command {
	var full bool
	c := &cobra.Command{
		Use:   "diff [FLAGS] REV [TARGET…]",
		Short: "Tell which messages differ from a git revision, and which compiled languages change",
		Long: `Tell which messages of which languages differ between the git revision REV and the working tree, and which compiled languages
change by that: those with another text of some message, the languages that they fall back to included, with other aliases, magic words or
plural rules. At REV everything is as REV has it: BUILD files, components, folders of messages, languages.`,
		Example: `  mwbuild l10n diff HEAD
  mwbuild l10n diff origin/master //extensions/Cite:l10n --full`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("l10n diff: compare with what?\n    name a git revision: mwbuild l10n diff HEAD")
			}
			return nil
		},
	}
	asJSON := outputFlag(c, "one object with all messages and compiled languages")
	c.Flags().BoolVar(&full, "full", false, "show every message and language, however many")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		j, err := asJSON()
		if err != nil {
			return err
		}
		if first := showPattern(args[0]); looksLikePattern(first) {
			return usagef("l10n diff: the first argument is a git revision, and %s is a target\n    did you mean mwbuild l10n diff HEAD %s?", first, first)
		}
		return a.l10nDiff(cmd.Context(), args[0], args[1:], full, j)
	}
	return c
}

// difference is what l10n diff prints as JSON. Its names stay.
type difference struct {
	Revision string                  `json:"revision"`
	Messages []inspect.MessageChange `json:"messages"`
	Outputs  []inspect.OutputChange  `json:"outputs"`
	Compared map[string]int          `json:"compared"` // compiled languages, by target
}

func (a *app) l10nDiff(ctx context.Context, rev string, args []string, full, asJSON bool) (err error) {
	o, now, patterns, err := a.openL10n(ctx, args)
	if err != nil {
		return err
	}
	revision, err := workspace.OpenRevision(ctx, o.root, rev)
	switch {
	case errors.Is(err, workspace.ErrNoRevision):
		return usageError{err}
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, revision.Close()) }()

	var diff *inspect.Difference
	var from inspect.Side
	var note string
	var errs []error
	err = a.working("compare with "+rev, func() (err error) {
		if from, note, errs = o.loadRevision(ctx, rev, revision, patterns); len(errs) > 0 {
			return nil
		}
		diff, err = inspect.Diff(ctx, from, inspect.Side{Localisation: now.Localisation, Natives: o.natives(o.tree)})
		return err
	})
	if note != "" {
		a.note("%s", note)
	}
	if err := cmp.Or(err, o.reported(errs)); err != nil {
		return err
	}
	if asJSON {
		out := difference{revision.Commit, diff.Messages, diff.Outputs, diff.Compared}
		if out.Messages == nil {
			out.Messages = []inspect.MessageChange{}
		}
		if out.Outputs == nil {
			out.Outputs = []inspect.OutputChange{}
		}
		return a.printJSON(out)
	}
	if len(diff.Compared) == 0 {
		a.note("which compiled languages change is told of an mw_l10n only, such as %s", defaultL10n)
	}
	if len(diff.Messages) == 0 && len(diff.Outputs) == 0 {
		a.note("nothing differs")
	}
	_, err = fmt.Fprint(a.std.out, diffText(diff, full))
	return err
}

// loadRevision loads targets as a revision has them. Where they cannot be loaded there, BUILD files are the working tree's, as note
// tells.
func (o *opened) loadRevision(
	ctx context.Context, rev string, revision *workspace.Revision, patterns []label.Pattern,
) (side inspect.Side, note string, errs []error) {
	side = inspect.Side{Name: rev, Natives: o.natives(revision)}
	l, errs := o.loadL10n(ctx, revision, patterns)
	if len(errs) > 0 && ctx.Err() == nil {
		mixed := revision.WithBuildFiles(o.tree)
		if second, more := o.loadL10n(ctx, mixed, patterns); len(more) == 0 {
			first, _, _ := strings.Cut(errs[0].Error(), "\n")
			note = fmt.Sprintf("at %s the targets cannot be loaded, so BUILD files are those of the working tree: %s", rev, first)
			l, errs = second, nil
			side.Natives = o.natives(mixed)
		}
	}
	if len(errs) > 0 {
		for i, err := range errs {
			errs[i] = fmt.Errorf("at %s: %w", rev, err)
		}
		return side, "", errs
	}
	side.Localisation = l.Localisation
	return side, note, nil
}

const (
	mostMessages  = 60 // messages, or lines that count them, that diff shows
	mostLanguages = 40 // compiled languages
	mostText      = 100
)

// diffText is a difference for people: messages, or how many there are, then compiled languages.
func diffText(d *inspect.Difference, full bool) string {
	var out strings.Builder
	if len(d.Messages) <= mostMessages || full {
		for _, m := range d.Messages {
			fmt.Fprintf(&out, "%s: %s %s %s %s", m.Pos, m.Component, m.Language, m.Change, m.Key)
			switch {
			case m.Old == nil:
				fmt.Fprintf(&out, ": %s\n", quoted(*m.New, full))
			case m.New == nil:
				fmt.Fprintf(&out, ": %s\n", quoted(*m.Old, full))
			default:
				fmt.Fprintf(&out, ": %s → %s\n", quoted(*m.Old, full), quoted(*m.New, full))
			}
		}
	} else {
		counts := countChanges(d.Messages, func(m inspect.MessageChange) string { return m.Component + " " + m.Language })
		if len(counts) > mostMessages {
			counts = countChanges(d.Messages, func(m inspect.MessageChange) string { return m.Component })
		}
		for _, c := range counts {
			fmt.Fprintf(&out, "%s: %s\n", c.name, c)
		}
		fmt.Fprintf(&out, "%s in all; --full shows them\n", counted(len(d.Messages), "message"))
	}
	byTarget := map[string][]string{}
	var targets []string
	for _, o := range d.Outputs {
		name := o.Language
		if o.Change != inspect.Changed {
			name += " (" + o.Change + ")"
		} else if full {
			name += " (" + outputReasons(o) + ")"
		}
		if byTarget[o.Target] == nil {
			targets = append(targets, o.Target)
		}
		byTarget[o.Target] = append(byTarget[o.Target], name)
	}
	for _, t := range targets {
		names := byTarget[t]
		fmt.Fprintf(&out, "%s: compiled languages that change, %d of %d:", t, len(names), d.Compared[t])
		for i, n := range names {
			if i == mostLanguages && !full {
				fmt.Fprintf(&out, " … and %d more; --full names them", len(names)-i)
				break
			}
			if full {
				fmt.Fprintf(&out, "\n    %s", n)
			} else {
				fmt.Fprintf(&out, " %s", n)
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

func outputReasons(o inspect.OutputChange) string {
	var why []string
	if o.Messages > 0 {
		why = append(why, counted(o.Messages, "message"))
	}
	if o.Order {
		why = append(why, "order of messages")
	}
	if o.Other {
		why = append(why, "other than messages")
	}
	return strings.Join(why, ", ")
}

// quoted is a text on one line, cut unless all of it is wanted.
func quoted(text string, full bool) string {
	if rs := []rune(text); len(rs) > mostText && !full {
		text = string(rs[:mostText]) + "…"
	}
	return strconv.Quote(text)
}

// changeCount counts changes of messages.
type changeCount struct {
	name                    string
	added, removed, changed int
}

func (c *changeCount) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{c.added, inspect.Added}, {c.removed, inspect.Removed}, {c.changed, inspect.Changed}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

// countChanges counts by name, in order of first appearance.
func countChanges(ms []inspect.MessageChange, name func(inspect.MessageChange) string) []*changeCount {
	var all []*changeCount
	by := map[string]*changeCount{}
	for _, m := range ms {
		n := name(m)
		c := by[n]
		if c == nil {
			c = &changeCount{name: n}
			by[n] = c
			all = append(all, c)
		}
		switch m.Change {
		case inspect.Added:
			c.added++
		case inspect.Removed:
			c.removed++
		default:
			c.changed++
		}
	}
	return all
}

func (a *app) l10nCheckCommand() *cobra.Command {
	var checks []string
	var list bool
	c := &cobra.Command{
		Use:   "check [FLAGS] [TARGET…]",
		Short: "Find what is wrong with message files",
		Long: `Find what is wrong with message files, folder by folder, as banana-checker does: messages without documentation, translations without
text, files that MediaWiki cannot read. Exit with 1 if something was found.

--checks names the checks to run, or, with + and -, changes those that run by default; --list names all.`,
		Example: `  mwbuild l10n check //extensions/Cite:l10n
  mwbuild l10n check --checks=+missing-parameter,-trailing-space
  mwbuild l10n check --checks=unknown-parameter`,
	}
	asJSON := outputFlag(c, "an array with an object for each finding")
	c.Flags().StringSliceVar(&checks, "checks", nil, "`names` of checks to run; +name adds one to the default, -name takes one out; all is all")
	c.Flags().BoolVar(&list, "list", false, "name the checks and do nothing else")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		j, err := asJSON()
		if err != nil {
			return err
		}
		if list {
			return a.listL10nChecks(j)
		}
		on, err := inspect.SelectChecks(checks)
		if err != nil {
			return usagef("--checks: %w", err)
		}
		return a.l10nCheck(cmd.Context(), args, on, j)
	}
	return c
}

func (a *app) listL10nChecks(asJSON bool) error {
	checks := inspect.Checks()
	if asJSON {
		return a.printJSON(checks)
	}
	for _, c := range checks {
		off := ""
		if !c.Default {
			off = " (off)"
		}
		if _, err := fmt.Fprintf(a.std.out, "%-20s  %s%s\n", c.Name, c.Doc, off); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) l10nCheck(ctx context.Context, args []string, on map[string]bool, asJSON bool) error {
	_, l, _, err := a.openL10n(ctx, args)
	if err != nil {
		return err
	}
	var found []inspect.Finding
	err = a.working("check messages", func() (err error) {
		found, err = inspect.Check(ctx, l.Localisation, on)
		return err
	})
	if err != nil {
		return err
	}
	out := []finding{}
	var text strings.Builder
	for _, f := range found {
		out = append(out, finding{Check: f.Check, Pos: f.Pos(), Label: f.Label, Message: f.Msg, Next: f.Hint})
		fmt.Fprintf(&text, "%s: %s: %s [%s]\n    %s\n", f.Pos(), f.Label, f.Msg, f.Check, f.Hint)
	}
	if asJSON {
		err = a.printJSON(out)
	} else {
		_, err = fmt.Fprint(a.std.out, text.String())
	}
	if err != nil {
		return err
	}
	if len(found) == 0 {
		a.note("nothing found")
		return nil
	}
	a.note("%s", counted(len(found), "finding"))
	return errReported
}
