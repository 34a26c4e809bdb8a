package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/plan"
)

func (a *app) explainCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "explain [FLAGS] TARGET…",
		Short: "Tell why each action of a target would run, or why it ran last",
		Long: `Tell, for each action that a target needs, why it would run now: what differs between its inputs and those that it had
when it was built here before. For an action that is up to date it tells what made it run last. Nothing is executed.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.explain(cmd.Context(), args, all) },
	}
	c.Flags().BoolVar(&all, "all", false, "show every changed field, however many")
	return c
}

// mostChanges is how many changed fields of one action are shown.
const mostChanges = 12

func (a *app) explain(ctx context.Context, args []string, all bool) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	patterns, err := o.patterns(args)
	if err != nil {
		return err
	}
	loaded, _, err := o.load(ctx, patterns, false)
	if err != nil {
		return err
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
	explanations, err := b.Explain(ctx, loaded.Targets)
	if err != nil {
		return err
	}
	for _, e := range explanations {
		if err := a.printExplanation(e, all); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printExplanation(e build.Explanation, all bool) error {
	var head, because string
	changes := e.Changes
	switch e.Step.State {
	case plan.Pending:
		head = "may run"
		names := make([]string, len(e.Behind))
		for i, d := range e.Behind {
			names[i] = d.Node.ID()
		}
		because = "it reads what these make, and runs if that is new: " + strings.Join(names, ", ")
		changes = nil
	case plan.Hit:
		head = "is up to date"
		switch {
		case len(changes) > 0:
			because = "it ran last because"
		default:
			because = "it has not changed since it was first built here"
		}
	default:
		head = "runs"
		switch {
		case e.Lost:
			because = "what it made is no longer in the cache"
		case e.Never:
			because = "it was never built here"
		case len(changes) == 0:
			because = "what it made is no longer in the cache, and its inputs are as before"
		default:
			because = "because"
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s\n  %s\n", e.Step.Node.ID(), head, because)
	for i, c := range changes {
		if i == mostChanges && !all {
			fmt.Fprintf(&out, "    … and %d more; --all shows them\n", len(changes)-i)
			break
		}
		fmt.Fprintf(&out, "    %s\n", build.Describe(e.Step.Node, c))
	}
	_, err := fmt.Fprint(a.std.out, out.String())
	return err
}
