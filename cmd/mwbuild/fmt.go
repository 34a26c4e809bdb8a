package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/starlark/buildfile"
)

func (a *app) fmtCommand() *cobra.Command {
	var mode rewriteMode
	var stdinName string
	c := &cobra.Command{
		Use:   "fmt [FLAGS] [FILE or FOLDER…]",
		Short: "Format BUILD, WORKSPACE, .bzl and .star files",
		Long: `Format BUILD, BUILD.star, WORKSPACE, *.bzl and *.star files as buildifier does: those that are named, those in and below the folders
that are named, or, without either, all of the workspace. The argument - stands for the standard input, which is formatted to the standard output.

A file that cannot be parsed is an error, and stays as it is; the others are formatted.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.fmt(cmd.Context(), args, mode, stdinName) },
	}
	mode.flags(c)
	c.Flags().StringVar(&stdinName, "stdin-name", "BUILD", "`name` that the standard input has as a file: it decides on the format and stands in errors")
	return c
}

func (a *app) fmt(ctx context.Context, args []string, mode rewriteMode, stdinName string) error {
	if slices.Contains(args, "-") {
		if len(args) > 1 {
			return usagef("- stands alone: it formats the standard input to the standard output")
		}
		return a.fmtStdin(mode, stdinName)
	}
	files, err := a.fmtFiles(ctx, args)
	if err != nil {
		return err
	}
	var changes []rewrite
	var errs []error
	for _, f := range files {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if f.old, err = os.ReadFile(f.file); err != nil {
			errs = append(errs, err)
			continue
		}
		if f.new, err = buildfile.Format(f.path, f.old); err != nil {
			errs = append(errs, err)
			continue
		}
		if !bytes.Equal(f.old, f.new) {
			changes = append(changes, f)
		}
	}
	(&opened{app: a}).report(errs)
	if err := a.rewrite(changes, mode); err != nil {
		return err
	}
	a.note("%s: %s", counted(len(files), "file"), mode.summary(len(changes)))
	if len(errs) > 0 || mode.check && len(changes) > 0 {
		return errReported
	}
	return nil
}

func (a *app) fmtStdin(mode rewriteMode, name string) error {
	src, err := io.ReadAll(a.std.in)
	if err != nil {
		return err
	}
	out, err := buildfile.Format(name, src)
	if err != nil {
		(&opened{app: a}).report([]error{err})
		return errReported
	}
	same := bytes.Equal(src, out)
	switch {
	case mode.diff && !same:
		out = diff.Diff("a/"+name, src, "b/"+name, out)
	case mode.diff:
		out = nil
	case mode.check && !same:
		out = []byte("would update " + name + "\n")
	case mode.check:
		out = nil
	}
	if _, err := a.std.out.Write(out); err != nil {
		return err
	}
	if mode.check && !same {
		return errReported
	}
	return nil
}

// formattable tells whether fmt formats a file that it was not told to.
func formattable(file string) bool {
	switch path.Base(file) {
	case "BUILD", "WORKSPACE":
		return true
	}
	return strings.HasSuffix(file, ".star") || strings.HasSuffix(file, ".bzl")
}

// fmtFiles returns the files that a command line names, each once.
func (a *app) fmtFiles(ctx context.Context, args []string) ([]rewrite, error) {
	start := a.path(".")
	root, noRoot := workspace.FindRoot(start)
	if noRoot == nil {
		var err error
		if root, err = filepath.EvalSymlinks(root); err != nil {
			return nil, err
		}
	}
	if len(args) == 0 {
		if noRoot != nil {
			return nil, usageError{noRoot}
		}
		return listFormattable(ctx, root, root, "")
	}
	var files []rewrite
	var errs []error
	seen := map[string]bool{}
	for _, arg := range args {
		at := a.path(arg)
		found, err := func() ([]rewrite, error) {
			at, err := filepath.EvalSymlinks(at)
			if err != nil {
				return nil, err
			}
			if at, err = filepath.Abs(at); err != nil {
				return nil, err
			}
			rel, inside := arg, false
			if r, err := filepath.Rel(root, at); noRoot == nil && err == nil && filepath.IsLocal(r) {
				rel, inside = filepath.ToSlash(r), true
			}
			fi, err := os.Stat(at)
			switch {
			case err != nil:
				return nil, err
			case !fi.IsDir():
				return []rewrite{{path: rel, file: at}}, nil
			case inside:
				return listFormattable(ctx, root, at, "")
			}
			// A folder outside of any workspace is one for now.
			return listFormattable(ctx, at, at, filepath.ToSlash(arg))
		}()
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("no file or folder %s", arg)
		}
		if err != nil {
			errs = append(errs, err)
		}
		for _, f := range found {
			if !seen[f.file] {
				seen[f.file] = true
				files = append(files, f)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, usageError{err}
	}
	return files, nil
}

// listFormattable returns the files below folder that fmt formats, as workspace root shows them, with prefix before their paths.
// A symlink is not followed.
func listFormattable(ctx context.Context, root, folder, prefix string) ([]rewrite, error) {
	tree, err := workspace.Open(ctx, root, nil)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(root, folder)
	if err != nil {
		return nil, err
	}
	below := filepath.ToSlash(rel) + "/"
	var files []rewrite
	for _, p := range tree.Files() {
		if f, _ := tree.Lookup(p); formattable(p) && f.Mode != workspace.Symlink && (rel == "." || strings.HasPrefix(p, below)) {
			files = append(files, rewrite{path: path.Join(prefix, p), file: filepath.Join(root, filepath.FromSlash(p))})
		}
	}
	return files, nil
}

// A rewrite is a file that is to become another.
type rewrite struct {
	path     string // as it is shown
	file     string // where it is
	old, new []byte // nil: there is no file
}

// verb says what happens to the file.
func (r rewrite) verb() string {
	switch {
	case r.old == nil:
		return "create"
	case r.new == nil:
		return "delete"
	}
	return "update"
}

// rewriteMode is what a command that writes files does instead of writing them.
type rewriteMode struct{ check, diff bool }

func (m *rewriteMode) flags(c *cobra.Command) {
	c.Flags().BoolVar(&m.check, "check", false, "write nothing; name the files that would change, and exit with 1 if there are any")
	c.Flags().BoolVar(&m.diff, "diff", false, "write nothing; show what would change")
}

func (m rewriteMode) summary(changes int) string {
	switch {
	case changes == 0:
		return "up to date"
	case m.check || m.diff:
		return counted(changes, "file") + " would change"
	}
	return counted(changes, "file") + " written"
}

// rewrite writes the files, or shows what would be written.
func (a *app) rewrite(changes []rewrite, mode rewriteMode) error {
	for _, r := range changes {
		var out []byte
		switch {
		case mode.diff:
			from, to := "a/"+r.path, "b/"+r.path
			if r.old == nil {
				from = "/dev/null"
			}
			if r.new == nil {
				to = "/dev/null"
			}
			out = diff.Diff(from, r.old, to, r.new)
		case mode.check:
			out = fmt.Appendf(nil, "would %s %s\n", r.verb(), r.path)
		default:
			if err := r.write(); err != nil {
				return err
			}
			out = fmt.Appendf(nil, "%sd %s\n", r.verb(), r.path)
		}
		if _, err := a.std.out.Write(out); err != nil {
			return err
		}
	}
	return nil
}

// write replaces the file as a whole, so that nobody ever reads half of one.
func (r rewrite) write() error {
	if r.new == nil {
		return os.Remove(r.file)
	}
	return renameio.WriteFile(r.file, r.new, 0o644, renameio.WithExistingPermissions())
}
