package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mwbuild/mwbuild/build/lower"
)

func (a *app) llbCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "llb TARGET",
		Short: "Write a target as LLB, for buildctl build",
		Long: `Write the LLB of an image or of a genrule to the standard output, and tell which options of buildctl go with it.

Layers enter by digest from mwbuild's store, so what they hold is built first. An image is its layers merged; a genrule
is its step.`,
		Example: `  mwbuild llb //:wiki | buildctl build --oci-layout mwbuild=$HOME/.cache/mwbuild --output type=oci,dest=wiki.tar`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.llb(cmd.Context(), args[0]) },
	}
}

func (a *app) llb(ctx context.Context, target string) (err error) {
	if f, ok := a.std.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return usagef("LLB is binary: send it to a file or into buildctl build")
	}
	o, patterns, err := a.openTargets(ctx, []string{target})
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
	if len(loaded.Targets) != 1 {
		return usagef("llb takes one target, and %d match", len(loaded.Targets))
	}
	b, closeBuilder, err := o.builder(0, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBuilder()) }()
	g, config, errs, err := b.LLB(ctx, loaded.Targets[0])
	if err == nil {
		err = b.Display.Close()
	}
	if err != nil {
		return err
	}
	if len(errs) > 0 {
		o.report(errs)
		return errReported
	}
	if _, err := a.std.out.Write(g.Definition); err != nil {
		return err
	}
	output := "type=oci,dest=OUT.tar,oci-mediatypes=true,compression=zstd,source-date-epoch=0"
	if config != "" {
		// One field of a CSV record, in quotes because JSON has commas and quotes of its own.
		output += fmt.Sprintf(`,\"containerimage.config=$(sed 's/"/""/g' %s)\"`, filepath.Join(o.cacheDir, "blobs", config.Algorithm().String(), config.Encoded()))
	}
	a.note("run it with\n  buildctl build --oci-layout %s=%s --output \"%s\"", lower.StoreID, o.cacheDir, output)
	return nil
}
