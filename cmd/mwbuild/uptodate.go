package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/build/progress"
	"github.com/mwbuild/mwbuild/build/uptodate"
	"github.com/mwbuild/mwbuild/cache/store"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// buildCommandLine is all that decides, beside files, what a build does that writes nothing but to the standard output.
func (o *opened) buildCommandLine(patterns []label.Pattern, json bool) string {
	line := []string{program(), o.root, fmt.Sprint(json), o.configuration()}
	for _, p := range patterns {
		line = append(line, p.String())
	}
	return strings.Join(line, "\x00")
}

func (o *opened) resultFile(command string) string {
	return filepath.Join(o.cacheDir, "results", fmt.Sprintf("%x", sha256.Sum256([]byte(command))))
}

// upToDate prints what the same build printed when it had nothing to do, if it would have nothing to do now, and tells
// whether it did. The workspace need not be listed. Flags that a build refuses are left for it to refuse.
func (o *opened) upToDate(ctx context.Context, command string) (bool, error) {
	if _, err := progress.New(o.app.std.err, o.app.progress); err != nil || buildkit.CheckAddr(o.app.builder) != nil {
		return false, nil
	}
	data, err := os.ReadFile(o.resultFile(command))
	if err != nil {
		return false, nil
	}
	r, err := uptodate.Decode(data)
	if err != nil || r.Command != command || r.Index != o.indexIdentity() {
		return false, nil
	}
	if slices.Equal(r.Paths, []string{""}) {
		if err := o.list(ctx); err != nil {
			return false, err
		}
		if sum, _ := o.tree.Stamp(r.Paths, time.Now()); sum != r.Stamp {
			return false, nil
		}
	} else if sum, ok, err := workspace.StampBelow(ctx, o.root, r.Paths); err != nil || !ok || sum != r.Stamp {
		return false, err
	}
	st, err := store.Open(o.cacheDir)
	if err != nil {
		return false, nil
	}
	defer st.Close()
	if err := st.Sweep(); err != nil { // what a killed build left half written
		return false, nil
	}
	var missing atomic.Bool
	var g errgroup.Group
	jobs := runtime.GOMAXPROCS(0)
	for j := range jobs {
		g.Go(func() error {
			for _, d := range r.Blobs[len(r.Blobs)*j/jobs : len(r.Blobs)*(j+1)/jobs] {
				if missing.Load() || !st.Has(d) {
					missing.Store(true)
					break
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil || missing.Load() {
		return false, err
	}
	o.app.log.Debug("nothing differs from the same build before")
	o.app.note("%s up to date", plural(r.Targets, "target"))
	_, err = io.WriteString(o.app.std.out, r.Stdout)
	return err == nil, err
}

// rememberResult keeps what a build found that had nothing to do, or would have now.
// It looked at paths.
func (o *opened) rememberResult(command string, paths []string, res *build.Result, print func(*app) error) {
	sum, settled := o.tree.Stamp(paths, o.listed)
	if !settled || len(res.Targets) == 0 {
		return
	}
	// Where a part is stamped alone later, it must be possible now.
	if !slices.Equal(paths, []string{""}) {
		if below, ok, err := workspace.StampBelow(context.Background(), o.root, paths); err != nil || !ok || below != sum {
			return
		}
	}
	var out bytes.Buffer
	quiet := *o.app
	quiet.std.out = &out
	if print(&quiet) != nil {
		return
	}
	r := uptodate.Result{
		Command: command, Paths: paths, Stamp: sum, Index: o.indexIdentity(), Blobs: uptodate.Blobs(res.Plan), Targets: len(res.Targets), Stdout: out.String(),
	}
	file := o.resultFile(command)
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = renameio.WriteFile(file, r.Encode(), 0o644)
	}
	if err != nil {
		o.app.log.Debug("the result is not remembered", "error", err)
	}
}

// looksAt returns the files and folders that decide what patterns mean, what their targets are and what these are made of. No rule reads files
// of a package that it has no target of; what links lead to may lie anywhere.
func (o *opened) looksAt(patterns []label.Pattern, loaded *load.Result) []string {
	if o.tree.FollowedLinks() || slices.ContainsFunc(patterns, func(p label.Pattern) bool { return p.Below }) {
		return []string{""} // below a pattern a package may come
	}
	paths := map[string]bool{".mwbuildignore": true}
	for _, name := range load.RootFiles {
		paths[name] = true
	}
	for _, p := range patterns {
		paths[p.Label.Pkg] = true
	}
	for _, t := range loaded.Graph.Targets() {
		paths[t.Label.Pkg] = true
	}
	for _, m := range loaded.Modules {
		paths[m] = true
	}
	if paths[""] {
		return []string{""}
	}
	return slices.Sorted(maps.Keys(paths))
}

// indexIdentity tells states of the store's list of images apart.
func (o *opened) indexIdentity() string {
	fi, err := os.Stat(filepath.Join(o.cacheDir, "index.json"))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d %d", fi.Size(), fi.ModTime().UnixNano())
}
