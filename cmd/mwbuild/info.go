package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build/plan"
)

// release is set by the linker for released binaries: -ldflags "-X main.release=1.2.3".
var release string

// version is what this binary calls itself: a release, else "" for one built from a working tree.
func version() string { return release }

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print mwbuild's version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := version()
			if v == "" {
				v = "development"
			}
			line := "mwbuild " + v
			if info, ok := debug.ReadBuildInfo(); ok {
				line += " " + info.GoVersion
				for _, d := range info.Deps {
					if d.Path == "github.com/moby/buildkit" {
						line += " buildkit " + d.Version
					}
				}
			}
			_, err := fmt.Fprintln(a.std.out, line)
			return err
		},
	}
}

func (a *app) infoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "info [TARGET…]",
		Short: "Tell about the workspace and the cache, or about targets",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.info(cmd.Context())
			}
			return a.infoTargets(cmd.Context(), args)
		},
	}
}

func (a *app) info(ctx context.Context) error {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	engine := "embedded"
	if a.builder != "" {
		engine = a.builder
	}
	_, err = fmt.Fprintf(a.std.out, "workspace %s\npackages %d\nfiles %d\ncache %s\nengine %s\n",
		o.root, len(o.tree.Packages()), len(o.tree.Files()), o.cacheDir, engine)
	return err
}

func (a *app) infoTargets(ctx context.Context, args []string) (err error) {
	o, patterns, err := a.openTargets(ctx, args)
	if err != nil {
		return err
	}
	loaded, _, err := o.load(ctx, patterns, false)
	if err != nil {
		return err
	}
	keys, err := plan.SourceKeys(loaded.Graph, o.tree)
	if err != nil {
		return err
	}
	var out strings.Builder
	for _, t := range loaded.Targets {
		fmt.Fprintf(&out, "%s\n  kind %s\n  declared at %s\n  source key %s\n", t.Label, t.Kind, t.Pos, keys.Targets[t.ID])
		for _, d := range t.Deps {
			fmt.Fprintf(&out, "  needs %s (%s)\n", d.To.Label, d.Attr)
		}
		if len(t.Srcs) > 0 {
			fmt.Fprintf(&out, "  files %d\n", len(t.Srcs))
		}
		for _, n := range t.Actions {
			fmt.Fprintf(&out, "  action %s: %s\n", n.Name, n.Kind())
		}
	}
	_, err = fmt.Fprint(a.std.out, out.String())
	return err
}
