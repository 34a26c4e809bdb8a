package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/rules/gen"
)

func (a *app) genCommand() *cobra.Command {
	var mode rewriteMode
	var unresolved bool
	var from blubberFlags
	c := &cobra.Command{
		Use:   "gen [FLAGS] [FOLDER…]",
		Short: "Write or update BUILD files from extension.json, skin.json and PHP code",
		Long: `Write the BUILD files of extensions, skins and vendor, and at the root WORKSPACE and BUILD where there are none.

deps come from what a manifest requires, soft_deps from isLoaded( 'Name' ) in PHP code. What people wrote stays: comments, other
attributes and rules, and test_deps. A comment "# keep" on a rule, an attribute or an element of a list leaves that as it is.

With folders, only the files in and below them are written. Without a WORKSPACE file above, the root is the folder you stand in.

With --from-blubber, write rules that make the same images as a Blubber configuration, into the BUILD file beside it (or beside its folder .pipeline).`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case from.file == "" && (len(from.variants) > 0 || len(from.baseEnv) > 0 || len(from.arguments) > 0):
				return usagef("--variant, --base-env and --argument belong to --from-blubber")
			case from.file != "" && len(args) > 0:
				return usagef("--from-blubber: it takes no folders")
			case from.file != "":
				return a.genBlubber(cmd.Context(), from, mode)
			}
			return a.gen(cmd.Context(), args, mode, unresolved)
		},
	}
	mode.flags(c)
	c.Flags().BoolVar(&unresolved, "unresolved", false, "name also what only isLoaded() asks for and the tree does not hold")
	c.Flags().StringVar(&from.file, "from-blubber", "", "a Blubber configuration: the `file` .pipeline/blubber.yaml")
	c.Flags().StringSliceVar(&from.variants, "variant", nil, "with --from-blubber: these `variants`, in place of those that no other includes; may be repeated")
	c.Flags().StringArrayVar(&from.baseEnv, "base-env", nil, "with --from-blubber: a variable of the bases, as `NAME=VALUE`; may be repeated")
	c.Flags().StringArrayVar(&from.arguments, "argument", nil, "with --from-blubber: the value of an argument, as `NAME=VALUE`; may be repeated")
	return c
}

func (a *app) gen(ctx context.Context, args []string, mode rewriteMode, unresolved bool) error {
	root, err := a.genRoot()
	if err != nil {
		return err
	}
	folders, err := a.folders(root, args)
	if err != nil {
		return err
	}
	tree, err := workspace.Open(ctx, root, nil)
	if err != nil {
		return err
	}
	res, err := gen.Generate(ctx, gen.Options{Root: root, Tree: tree, Folders: folders})
	if err != nil {
		return err
	}
	for _, n := range res.Notes {
		a.note("%s", n)
	}
	a.noteMissing(res.Missing, unresolved)
	(&opened{app: a}).report(res.Errors)

	var changes []rewrite
	for _, c := range res.Changes {
		changes = append(changes, rewrite{path: c.Path, file: filepath.Join(root, filepath.FromSlash(c.Path)), old: c.Old, new: c.New})
	}
	if err := a.rewrite(changes, mode); err != nil {
		return err
	}
	if res.Components == 0 && len(res.Errors) == 0 {
		a.note("no component found: a folder in extensions/ or skins/ with an extension.json or skin.json is one")
	} else {
		a.note("%s: %s", counted(res.Components, "component"), mode.summary(len(changes)))
	}
	if len(res.Errors) > 0 || mode.check && len(changes) > 0 {
		return errReported
	}
	return nil
}

// genRoot returns the root of the tree: the workspace's, else the folder one stands in, if it looks like one.
func (a *app) genRoot() (string, error) {
	start := a.dir
	if start == "" {
		start = "."
	}
	root, err := workspace.FindRoot(start)
	if err != nil {
		isDir := func(name string) bool {
			fi, err := os.Stat(filepath.Join(start, name))
			return err == nil && fi.IsDir()
		}
		if !isDir("extensions") && !isDir("skins") {
			return "", usagef("there is neither extensions/ nor skins/ in %s, and no WORKSPACE file in it or above\n"+
				"    stand at the root of a MediaWiki tree, or say where it is with -C DIR", filepath.Clean(start))
		}
		if root, err = filepath.Abs(start); err != nil {
			return "", err
		}
	}
	return filepath.EvalSymlinks(root)
}

// folders returns folders of a command line as paths below root, slash-separated; "" is root itself.
func (a *app) folders(root string, args []string) ([]string, error) {
	var folders []string
	var errs []error
	for _, arg := range args {
		dir := a.path(arg)
		fi, err := os.Stat(dir)
		if err == nil && !fi.IsDir() {
			err = fmt.Errorf("%s is no folder", arg)
		}
		if err == nil {
			dir, err = filepath.EvalSymlinks(dir)
		}
		if err == nil {
			dir, err = filepath.Abs(dir)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		rel, err := filepath.Rel(root, dir)
		if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			errs = append(errs, fmt.Errorf("%s is not in workspace %s", arg, root))
			continue
		}
		if rel == "." {
			rel = ""
		}
		folders = append(folders, filepath.ToSlash(rel))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, usageError{err}
	}
	return folders, nil
}

// path returns a path of the command line as this process finds it.
func (a *app) path(arg string) string {
	if filepath.IsAbs(arg) {
		return arg
	}
	return filepath.Join(a.dir, arg)
}

// noteMissing tells of names that the tree does not hold, once each, with every place that wants them. That code asks for
// something that is not there is its normal case, so such names are only counted unless all is true.
func (a *app) noteMissing(missing []gen.Missing, all bool) {
	asked := 0
	for _, m := range missing {
		places := m.Required
		if all {
			places = append(places, m.Asked...)
		}
		if len(places) == 0 {
			asked++
			continue
		}
		verb := "asked for"
		if len(m.Required) > 0 {
			verb = "required"
		}
		a.note("%q is %s, but no component of this tree has that name\n    %s", m.Name, verb, strings.Join(places, "\n    "))
	}
	if asked > 0 {
		a.log.Debug("names that only isLoaded asks for and the tree does not hold; --unresolved shows them", "names", asked)
	}
}

func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
