package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/rules/blubber"
	"github.com/mwbuild/mwbuild/starlark/buildfile"
)

// blubberFlags say what `mwbuild gen --from-blubber` reads.
type blubberFlags struct {
	file      string
	variants  []string
	baseEnv   []string
	arguments []string
}

// genBlubber writes rules that make the images of a Blubber configuration into the BUILD file of its folder.
func (a *app) genBlubber(ctx context.Context, f blubberFlags, mode rewriteMode) error {
	config, err := filepath.Abs(a.path(f.file))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(config)
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("--from-blubber=%s: there is no such file", f.file)
	}
	if err != nil {
		return err
	}
	if config, err = filepath.EvalSymlinks(config); err != nil {
		return err
	}
	folder := filepath.Dir(config)
	if filepath.Base(folder) == ".pipeline" {
		folder = filepath.Dir(folder)
	}
	root, err := workspace.FindRoot(folder)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return err
	}
	rel := func(file string) string {
		r, _ := filepath.Rel(root, file)
		return filepath.ToSlash(r)
	}
	pkg := strings.TrimPrefix(rel(folder), ".")
	tree, err := workspace.Open(ctx, root, nil)
	if err != nil {
		return err
	}
	c, errs := blubber.Parse(rel(config), text)
	if len(errs) > 0 {
		(&opened{app: a}).report(errs)
		return errReported
	}
	opts := blubber.Options{}
	if opts.BaseEnv, err = assignments("base-env", f.baseEnv); err != nil {
		return err
	}
	if opts.Arguments, err = assignments("argument", f.arguments); err != nil {
		return err
	}
	if opts.Files, err = tree.Glob(pkg, []string{"**"}, []string{"BUILD", "BUILD.star", ".git/**"}); err != nil {
		return err
	}
	if ignore := path.Join(pkg, ".dockerignore"); slices.Contains(opts.Files, ".dockerignore") {
		if opts.Ignore, err = tree.ReadFile(ignore); err != nil {
			return err
		}
	}
	variants := f.variants
	if len(variants) == 0 {
		variants = c.Whole()
	}
	made, err := c.Generate(pkg, variants, opts)
	if err != nil {
		return err
	}
	r := rewrite{path: path.Join(pkg, "BUILD"), file: filepath.Join(folder, "BUILD")}
	for _, name := range []string{"BUILD.star", "BUILD"} {
		file := filepath.Join(folder, name)
		if old, err := os.ReadFile(file); err == nil {
			r = rewrite{path: path.Join(pkg, name), file: file, old: old}
			break
		} else if fi, statErr := os.Stat(file); statErr == nil && fi.IsDir() {
			r = rewrite{path: path.Join(pkg, "BUILD.star"), file: filepath.Join(folder, "BUILD.star")}
		}
	}
	if r.new, err = appended(r.path, r.old, made); err != nil {
		return err
	}
	if err := a.rewrite([]rewrite{r}, mode); err != nil {
		return err
	}
	a.note("%s: %s for %s; mwbuild lock looks up what the bases' tags mean", r.path, plural(len(made), "rule"), strings.Join(variants, ", "))
	if mode.check {
		return errReported
	}
	return nil
}

// appended is a BUILD file with more rules in it.
func appended(file string, old []byte, made []blubber.Rule) ([]byte, error) {
	f, err := buildfile.Parse(file, old)
	if err != nil {
		return nil, err
	}
	have := map[string]*buildfile.Rule{}
	for _, r := range f.Rules() {
		have[r.Name()] = r
	}
	var all bytes.Buffer
	var errs []error
	for _, m := range made {
		if r := have[m.Name]; r != nil {
			errs = append(errs, fmt.Errorf("%s: %s: there is a target of that name already: remove it, or give it another name", r.Pos(), m.Name))
		}
		all.WriteString("\n" + m.Text)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := f.Append(all.String()); err != nil {
		return nil, err
	}
	return f.Bytes()
}

// assignments reads the values NAME=VALUE of a flag.
func assignments(flag string, values []string) (map[string]string, error) {
	all := map[string]string{}
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, usagef("--%s=%s: want NAME=VALUE", flag, v)
		}
		all[name] = value
	}
	return all, nil
}
