package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/graph/query"
)

func (a *app) aqueryCommand() *cobra.Command {
	var q queryFlags
	var output string
	var manifest bool
	c := &cobra.Command{
		Use:   "aquery [FLAGS] EXPRESSION",
		Short: "Show the actions of targets, their keys, and what went into these",
		Long: `Show the actions that targets declare, with what each reads and the key under which its result is kept. Nothing is built.

    mwbuild aquery //extensions/Cite:image             its own actions
    mwbuild aquery 'deps(//extensions/Cite:image)'     and those that it needs
    mwbuild aquery --manifest //extensions/Cite:l10n   and all that a key is made of

The expression is in the language of mwbuild query. The key of an action that reads what others make is known once these have run.
What enters keys from the command line is given as to a build: --config, --build-arg, and the --secret whose digest a step asks for.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return usagef("--output=%s: want text or json", output)
			}
			return a.aquery(cmd.Context(), q, args, manifest, output == "json")
		},
	}
	f := c.Flags()
	q.add(f)
	a.handed.add(f)
	f.BoolVar(&manifest, "manifest", false, "show every field that went into a key")
	f.StringVar(&output, "output", "text", "text, or json: an array with an object for each action")
	return c
}

// queriedAction is one action as aquery shows it. The names of its JSON form stay.
type queriedAction struct {
	Action    string          `json:"action"`
	Title     string          `json:"title"`
	Kind      string          `json:"kind"`
	Target    string          `json:"target"`
	Location  string          `json:"location"`
	State     string          `json:"state"`         // cached, run or pending
	Key       string          `json:"key,omitempty"` // unknown while pending
	Behind    []string        `json:"behind,omitempty"`
	Files     []string        `json:"files"`               // of the workspace, that it reads
	Inputs    []string        `json:"inputs"`              // actions whose outputs it reads
	Outputs   *int            `json:"outputs,omitempty"`   // how many files, layers or images it makes, where that is known
	Downloads []string        `json:"downloads,omitempty"` // names of what it fetches
	noun      string          // for what it makes
	Manifest  []manifestField `json:"manifest,omitempty"`
}

type manifestField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (a *app) aquery(ctx context.Context, q queryFlags, args []string, manifest, asJSON bool) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	s, res, err := o.evaluate(ctx, q, args)
	if err != nil {
		return err
	}
	var patterns []label.Pattern
	for _, n := range res.Nodes(query.Auto) {
		if n.Target != nil {
			patterns = append(patterns, label.Pattern{Label: n.Label})
		}
	}
	targets := []*graph.Target{}
	if len(patterns) > 0 {
		loaded, errs := s.loader.Load(ctx, patterns)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = slices.DeleteFunc(errs, func(err error) bool { return s.seen[err.Error()] })
		o.report(errs)
		if s.errs = append(s.errs, errs...); len(errs) > 0 && !q.keepGoing {
			return errReported
		}
		targets = loaded.Targets
	}
	if len(s.errs) == 0 {
		a.warnOfBuildArgs(s.loader)
	}
	b, closeBuilder, err := o.builder(0, false)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := closeBuilder(); err == nil {
			err = cerr
		}
	}()
	// All actions of the targets are planned, also those that none of their outputs needs.
	whole := make([]*graph.Target, len(targets))
	for i, t := range targets {
		whole[i] = &graph.Target{ID: t.ID, Outputs: t.Actions}
	}
	p, err := b.Plan(ctx, whole)
	if err != nil {
		return err
	}
	out := []queriedAction{}
	for _, t := range targets {
		for _, n := range t.Actions {
			out = append(out, describeAction(t, p.Step(n), manifest))
		}
	}
	if asJSON {
		err = a.printJSON(out)
	} else {
		err = a.printActions(out)
	}
	if err != nil {
		return err
	}
	if len(out) == 0 {
		a.note("nothing has an action there")
	}
	return s.incomplete(res)
}

func describeAction(t *graph.Target, s *plan.Step, manifest bool) queriedAction {
	n := s.Node
	x := queriedAction{
		Action: n.ID(), Title: n.Title(), Kind: n.Kind(), Target: t.Label.String(), Location: t.Pos, Files: actionFiles(n), Inputs: []string{},
	}
	for _, d := range s.Deps {
		x.Inputs = append(x.Inputs, d.Node.ID())
	}
	switch s.State {
	case plan.Pending:
		x.State = "pending"
		for _, d := range s.Deps {
			if d.Record == nil {
				x.Behind = append(x.Behind, d.Node.ID())
			}
		}
	case plan.Hit:
		x.State = "cached"
	default:
		x.State = "run"
	}
	if s.Manifest != nil {
		x.Key = s.Key.String()
		if manifest {
			for _, f := range s.Manifest.Fields() {
				x.Manifest = append(x.Manifest, manifestField(f))
			}
		}
	}
	switch {
	case n.MakesLayer():
		x.noun = "layer"
	case n.MakesFiles():
		x.noun = "file"
	default:
		x.noun = "image"
	}
	if do, ok := n.Do.(*action.Native); ok {
		for _, d := range do.Downloads {
			x.Downloads = append(x.Downloads, d.Name)
		}
	}
	switch {
	case s.Record != nil:
		n := len(s.Record.Descriptors())
		x.Outputs = &n
	case !n.MakesFiles():
		one := 1
		x.Outputs = &one
	}
	return x
}

// actionFiles returns the files of the workspace that an action reads, sorted, each once.
func actionFiles(n *action.Node) []string {
	files := []string{}
	switch do := n.Do.(type) {
	case *action.Layer:
		for _, e := range do.Entries {
			if e.File != "" {
				files = append(files, e.File)
			}
		}
	case *action.Native:
		for _, f := range do.Files {
			files = append(files, f.Path)
		}
	}
	slices.Sort(files)
	return slices.Compact(files)
}

func (a *app) printActions(actions []queriedAction) error {
	w := bufio.NewWriter(a.std.out)
	for _, x := range actions {
		fmt.Fprintf(w, "%s\n  kind %s\n", x.Action, x.Title)
		if x.Key == "" {
			fmt.Fprintf(w, "  key known once %s\n", hasRun(x.Behind))
		} else {
			fmt.Fprintf(w, "  key %s, %s\n", x.Key, states[x.State])
		}
		inputs := []string{}
		if n := len(x.Files); n > 0 {
			inputs = append(inputs, counted(n, "file"))
		}
		if n := len(x.Downloads); n > 0 {
			inputs = append(inputs, counted(n, "download"))
		}
		for i, in := range x.Inputs {
			if i == mostChanges {
				inputs = append(inputs, fmt.Sprintf("and what %d more make", len(x.Inputs)-i))
				break
			}
			inputs = append(inputs, in)
		}
		if len(inputs) > 0 {
			fmt.Fprintf(w, "  reads %s\n", strings.Join(inputs, ", "))
		}
		if x.Outputs != nil {
			fmt.Fprintf(w, "  makes %s\n", counted(*x.Outputs, x.noun))
		}
		if x.Manifest != nil {
			fmt.Fprintln(w, "  manifest")
		}
		for _, f := range x.Manifest {
			value := f.Value
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				value = fmt.Sprintf("%q", value)
			}
			fmt.Fprintf(w, "    %s = %s\n", f.Name, value)
		}
	}
	return w.Flush()
}

// hasRun says that actions have run.
func hasRun(actions []string) string {
	verb := " have run"
	if len(actions) == 1 {
		verb = " has run"
	}
	more := ""
	if n := len(actions) - mostChanges; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(actions[:min(len(actions), mostChanges)], ", ") + more + verb
}
