package main

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/graph"
)

func (a *app) sbomCommand() *cobra.Command {
	var format, registry string
	var jobs int
	c := &cobra.Command{
		Use:   "sbom [FLAGS] TARGET",
		Short: "Print what an image is made of, and how",
		Long: `Build an image, and print what mwbuild knows of it: as an SPDX document, its bill of materials, or as a statement of in-toto with SLSA's provenance. They are
those that mwbuild publish --attest puts beside it in a registry, where it has none yet.`,
		Example: `  mwbuild sbom //:wiki > wiki.spdx.json
  mwbuild sbom //:wiki --format=slsa`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "spdx" && format != "slsa" {
				return usagef("--format=%s: want spdx or slsa", format)
			}
			return a.sbom(cmd.Context(), args, format, registry, jobs)
		},
	}
	fl := c.Flags()
	fl.StringVar(&format, "format", "spdx", "spdx or slsa")
	fl.StringVar(&registry, "registry", "", "`name` of the registry() of WORKSPACE whose repository the image is named by; the first by default")
	fl.IntVarP(&jobs, "jobs", "j", 0, "how many actions run at once")
	a.handed.add(fl)
	return c
}

func (a *app) sbom(ctx context.Context, args []string, format, registry string, jobs int) (err error) {
	o, patterns, err := a.openTargets(ctx, args)
	if err != nil {
		return err
	}
	unlock, err := o.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	loaded, _, err := o.load(ctx, patterns, false)
	if err != nil {
		return err
	}
	targets := slices.DeleteFunc(withoutTests(loaded.Targets), func(t *graph.Target) bool { return !makesImage(t) })
	if len(targets) != 1 {
		return usagef("sbom takes one image, and %d match", len(targets))
	}
	repository := ""
	if registries := o.loaded.Workspace().Registries; len(registries) > 0 || registry != "" {
		r, err := chosenRegistry(registries, registry)
		if err != nil {
			return err
		}
		repository = r.For(targets[0].Label)
	}
	at, err := o.attester(o.loaded, loaded.Graph)
	if err != nil {
		return err
	}
	b, closeBuilder, err := o.builder(jobs, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBuilder()) }()
	res, err := a.healing(ctx, b, func() (*build.Result, error) { return b.Build(ctx, targets) })
	if cerr := b.Display.Close(); err == nil {
		err = cerr
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	if len(res.Errors) > 0 {
		return o.reported(res.Errors)
	}
	texts, err := at.documents(ctx, targets[0].ID, *imagesOf(res)[targets[0].ID], repository)
	if err != nil {
		return err
	}
	_, err = a.std.out.Write(texts[format])
	return err
}
