package main

import (
	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build/buildkit"
)

// engineCommand is the embedded engine's process. mwbuild starts it as a child; nobody else should.
func (a *app) engineCommand() *cobra.Command {
	var root, socket string
	var erase bool
	c := &cobra.Command{
		Use:    "engine",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if erase {
				return buildkit.Erase(root)
			}
			return buildkit.Serve(cmd.Context(), root, socket, a.std.in, a.std.err)
		},
	}
	c.Flags().StringVar(&root, "root", "", "")
	c.Flags().StringVar(&socket, "socket", "", "")
	c.Flags().BoolVar(&erase, "erase", false, "")
	return c
}
