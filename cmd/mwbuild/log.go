package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build"
)

func (a *app) logCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "log TARGET [ACTION]",
		Short: "Show what a target's steps printed",
		Long: `Show all that the steps of a target printed when they ran last in this workspace, whether they failed or not.

Secrets that were handed in are not in it. Of several steps, name one by its action (mwbuild aquery lists them).`,
		Example: `  mwbuild log //tools:docs`,
		Args:    cobra.RangeArgs(1, 2),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.showLog(cmd.Context(), args) },
	}
}

func (a *app) showLog(ctx context.Context, args []string) error {
	o, err := a.locate(ctx, false)
	if err != nil {
		return err
	}
	patterns, err := o.patterns(args[:1])
	if err != nil {
		return err
	}
	p := patterns[0]
	if p.Below || p.All || p.Negative {
		return usagef("%s: want one target", args[0])
	}
	logs, err := o.records.Logs(p.Label.String())
	if err != nil {
		return err
	}
	if len(logs) == 0 {
		return fmt.Errorf("%s: no step of it ran in this workspace\n    what was found in the cache has no log here; mwbuild explain %[1]s tells which steps it has", p.Label)
	}
	if len(args) == 2 {
		i := slices.IndexFunc(logs, func(l build.StepLog) bool { return l.Action == args[1] })
		if i < 0 {
			var names []string
			for _, l := range logs {
				names = append(names, l.Action)
			}
			return usagef("%s has no log of an action %q\n    there are %s", p.Label, args[1], strings.Join(names, ", "))
		}
		logs = logs[i : i+1]
	}
	for _, l := range logs {
		a.note("%s %s, ended %s", p.Label, l.Action, l.Ended.Format(time.RFC1123))
		f, err := os.Open(l.Path)
		if err != nil {
			return err
		}
		_, err = io.Copy(a.std.out, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
