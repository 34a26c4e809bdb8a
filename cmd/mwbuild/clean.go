package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/cache/store"
)

func (a *app) cleanCommand() *cobra.Command {
	var expunge, engine bool
	c := &cobra.Command{
		Use:   "clean",
		Short: "Free the room that the cache takes",
		Long: `Remove blobs that no record names, what interrupted builds left, and what is remembered of packages, of plans and of results.

The cache belongs to all workspaces of its user. Losing it costs time and nothing else.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.clean(cmd.Context(), expunge, engine) },
	}
	c.Flags().BoolVar(&expunge, "expunge", false, "remove the whole cache: records, blobs and the engine's state")
	c.Flags().BoolVar(&engine, "engine", false, "remove the embedded engine's state")
	return c
}

// cacheParts are what mwbuild makes in a cache folder. Nothing else in it is touched.
var cacheParts = []string{"badger", "badger.damaged", "badger.lock", "badger.opening", "locks", "blobs", "ingest", "index.json", "oci-layout", "engine", "packages", "results", "snapshots", "listings", "logs", "run"}

func (a *app) clean(ctx context.Context, expunge, engine bool) (err error) {
	dir, err := a.cache()
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		a.note("there is no cache at %s", dir)
		return nil
	}
	var remove []string
	switch {
	case expunge:
		remove = cacheParts
	case engine:
		remove = []string{"engine"}
	}
	for _, part := range remove {
		switch part {
		case "engine":
			err = a.removeEngine(ctx, filepath.Join(dir, part))
		case "run":
			err = removeUnpacked(dir)
		default:
			err = os.RemoveAll(filepath.Join(dir, part))
		}
		if err != nil {
			return err
		}
	}
	if len(remove) > 0 {
		a.note("removed %s", map[bool]string{true: "the cache " + dir, false: "the engine's state"}[expunge])
		return nil
	}
	st, err := store.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := st.Sweep(); err != nil {
		return err
	}
	// They may be of workspaces that are gone, and are soon made again.
	if err := removeUnpacked(dir); err != nil {
		return err
	}
	for _, part := range []string{"packages", "results", "snapshots", "listings"} {
		if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
			return err
		}
	}
	records := &build.Records{Dir: dir, Wait: func(msg string) { a.note("%s", msg) }}
	keep := map[digest.Digest]bool{}
	if err := records.Blobs(ctx, func(d digest.Digest) { keep[d] = true }); err != nil {
		return err
	}
	freed, err := st.GC(ctx, keep)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.std.out, "freed %d bytes\n", freed)
	return err
}

// removeEngine removes the embedded engine's state, once no build uses it.
func (a *app) removeEngine(ctx context.Context, root string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return buildkit.Remove(ctx, buildkit.Options{Root: root, Exe: exe, Wait: func(msg string) { a.note("%s", msg) }})
}
