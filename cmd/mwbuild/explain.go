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
	var output string
	var plan bool
	var f planFlags
	c := &cobra.Command{
		Use:   "explain [FLAGS] TARGET…",
		Short: "Tell why each action of a target would run, or why it ran last",
		Long: `Tell, for each action that a target needs, why it would run now: what differs between its inputs and those that it had
when it was built here before. For an action that is up to date it tells what made it run last. Nothing is executed.

With --plan it answers, for a build and for what mwbuild publish does after it: would anything run, be fetched, or be pushed, and why? The registry is asked
by HEAD requests; no engine is started.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return usagef("--output=%s: want text or json", output)
			}
			if f.verify != "" && f.verify != "deep" {
				return usagef("--verify=%s: want deep", f.verify)
			}
			if plan {
				return a.explainPlan(cmd.Context(), args, f, output == "json")
			}
			if f.registry != "" || len(f.tags) > 0 || f.verify != "" {
				return usagef("--registry, --tag and --verify belong to --plan")
			}
			return a.explain(cmd.Context(), args, all, output == "json")
		},
	}
	c.Flags().StringVar(&output, "output", "text", "text, or json: an array with an object for each action")
	a.handed.add(c.Flags())
	c.Flags().BoolVar(&plan, "plan", false, "tell what would run, be fetched and be pushed")
	c.Flags().StringVar(&f.registry, "registry", "", "with --plan: `name` of a registry() of WORKSPACE, in place of the first")
	c.Flags().StringArrayVar(&f.tags, "tag", nil, "with --plan: a `tag` that is to mean the images; may be repeated")
	c.Flags().StringVar(&f.verify, "verify", "", "with --plan: `deep` reads all blobs here, and asks the registry for each")
	c.Flags().BoolVar(&all, "all", false, "show every changed field and every action, however many")
	return c
}

// How much is shown without --all: changed fields of one action, and native actions of one kind and state, of which
// there may be thousands. Those that are up to date are only counted.
const (
	mostChanges = 12
	mostNatives = 5
)

func (a *app) explain(ctx context.Context, args []string, all, asJSON bool) (err error) {
	o, patterns, err := a.openTargets(ctx, args)
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
	explanations, _, err := b.Explain(ctx, loaded.Targets)
	if err != nil {
		return err
	}
	out := []explanation{}
	for _, e := range explanations {
		out = append(out, a.explanation(e))
	}
	if asJSON {
		return a.printJSON(out)
	}
	type group struct{ title, state string }
	more := map[group]int{}
	var order []group
	for i, e := range out {
		if n := explanations[i].Step.Node; n.MakesFiles() && !all {
			g := group{n.Title(), e.State}
			if more[g]++; more[g] == 1 {
				order = append(order, g)
			}
			if more[g] > mostNatives || e.State == "cached" {
				continue
			}
		}
		if err := a.printExplanation(e, all); err != nil {
			return err
		}
	}
	for _, g := range order {
		n := more[g]
		what := "more "
		if g.state == "cached" {
			what = ""
		} else if n -= mostNatives; n <= 0 {
			continue
		}
		if _, err := fmt.Fprintf(a.std.out, "%d %s%s: %s; --all shows them\n", n, what, g.title, states[g.state]); err != nil {
			return err
		}
	}
	return nil
}

// states are how explain says them.
var states = map[string]string{"pending": "may run", "cached": "up to date", "run": "to run"}

// explanation is one action as explain shows it. The names of its JSON form stay.
type explanation struct {
	Action  string   `json:"action"`
	Kind    string   `json:"kind"`
	State   string   `json:"state"`         // cached, run or pending
	Key     string   `json:"key,omitempty"` // unknown while pending
	Because string   `json:"because"`
	Changes []change `json:"changes"`
	Behind  []string `json:"behind,omitempty"` // actions that a pending one waits for
}

type change struct {
	Field string  `json:"field"`
	Old   *string `json:"old,omitempty"`
	New   *string `json:"new,omitempty"`
	Text  string  `json:"text"`
}

func (a *app) explanation(e build.Explanation) explanation {
	n := e.Step.Node
	x := explanation{Action: n.ID(), Kind: n.Kind(), Changes: []change{}}
	for _, c := range e.Changes {
		x.Changes = append(x.Changes, change{c.Name, c.Old, c.New, build.Describe(n, c)})
	}
	for _, d := range e.Behind {
		x.Behind = append(x.Behind, d.Node.ID())
	}
	switch e.Step.State {
	case plan.Pending:
		x.State = "pending"
		x.Because = "it reads what these make, and runs if that is new: " + strings.Join(x.Behind[:min(len(x.Behind), mostChanges)], ", ")
		if n := len(x.Behind) - mostChanges; n > 0 {
			x.Because += fmt.Sprintf(" and %d more", n)
		}
		return x
	case plan.Hit:
		x.State, x.Because = "cached", "it ran last because"
		if e.Never {
			x.Because = "it has not changed since it was first built here"
		}
	default:
		x.State, x.Because = "run", "because"
		switch {
		case e.Lost:
			x.Because = "what it made is no longer in the cache"
		case e.Never:
			x.Because = "it was never built here"
		}
	}
	x.Key = e.Step.Key.String()
	return x
}

func (a *app) printExplanation(e explanation, all bool) error {
	heads := map[string]string{"pending": "may run", "cached": "is up to date", "run": "runs"}
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s\n  %s\n", e.Action, heads[e.State], e.Because)
	for i, c := range e.Changes {
		if i == mostChanges && !all {
			fmt.Fprintf(&out, "    … and %d more; --all shows them\n", len(e.Changes)-i)
			break
		}
		fmt.Fprintf(&out, "    %s\n", c.Text)
	}
	_, err := fmt.Fprint(a.std.out, out.String())
	return err
}
