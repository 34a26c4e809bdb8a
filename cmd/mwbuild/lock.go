package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/rules/debian"
	"github.com/mwbuild/mwbuild/rules/debian/lockfile"
	"github.com/mwbuild/mwbuild/rules/debian/mirror"
	"github.com/mwbuild/mwbuild/starlark/load"
)

type lockFlags struct {
	upgrade           []string
	check             bool
	mirrors, keyrings []string
	output            string
}

// allPackages is the value of --upgrade without one.
const allPackages = "*"

// importRules are the rules whose ref is a tag in a registry.
var importRules = []string{"image_import", "mw_component_import"}

func (a *app) lockCommand() *cobra.Command {
	var f lockFlags
	c := &cobra.Command{
		Use:   "lock [FLAGS] [PATTERN…]",
		Short: "Write lock files: packages of Debian images, digests of tags",
		Long: `Write the lock files of debian_image targets, of all by default: the packages that they ask for, and all that these need, each
by version and digest. And write mwbuild.lock: the digest of each image that an image_import or mw_component_import names by a tag. It is the one command that
asks archives and registries what there is; a build takes what the locks say.

Versions that are locked stay while the archive has them, and digests stay; --upgrade takes the newest. A lock of which nothing changes is left as it is.

The archives are those of apt's configuration on this machine, or of the target's mirrors. Their lists are checked by their signatures, with
the keys of the package debian-archive-keyring.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.output != "text" && f.output != "json" {
				return usagef("--output=%s: want text or json", f.output)
			}
			if len(args) == 0 {
				args = []string{"//..."}
			}
			return a.lock(cmd.Context(), f, args)
		},
	}
	fl := c.Flags()
	fl.StringSliceVar(&f.upgrade, "upgrade", nil, "take the newest versions, of these `packages` and images or of all")
	fl.Lookup("upgrade").NoOptDefVal = allPackages
	fl.BoolVar(&f.check, "check", false, "write nothing; exit with 1 if a lock would change")
	fl.StringSliceVar(&f.mirrors, "mirror", nil, "`URL` of an archive, in place of all others; may be repeated")
	fl.StringSliceVar(&f.keyrings, "keyring", nil, "`file` of keys that archives are signed with, in place of the machine's; may be repeated")
	fl.StringVar(&f.output, "output", "text", "text, or json: an array with an object for each lock")
	return c
}

// writtenLock is a lock as its JSON form has it.
type writtenLock struct {
	Label    string          `json:"label,omitempty"` // of the target that it belongs to, if to one
	Lock     string          `json:"lock"`            // its file, in the workspace
	Packages int             `json:"packages,omitempty"`
	Images   int             `json:"images,omitempty"`
	Written  bool            `json:"written"` // or would be, with --check
	Changes  []debian.Change `json:"changes"`
}

// upgrades tells whether the newest of what has this name is wanted.
func (f *lockFlags) upgrades(name string) bool {
	return slices.Contains(f.upgrade, allPackages) || slices.Contains(f.upgrade, name)
}

func (a *app) lock(ctx context.Context, f lockFlags, args []string) error {
	o, patterns, err := a.openTargets(ctx, args)
	if err != nil {
		return err
	}
	loader, errs := o.loaderOf(o.tree, true)
	if len(errs) > 0 {
		return o.reported(errs)
	}
	declared, errs := loader.Survey(ctx, patterns)
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(errs) > 0 {
		return o.reported(errs)
	}
	declared = slices.DeleteFunc(declared, func(d load.Declared) bool {
		return !slices.ContainsFunc(patterns, func(p label.Pattern) bool { return p.Match(d.Label()) })
	})
	l := &debian.Locker{Fetcher: &mirror.Fetcher{}, AptDir: aptDir, Mirrors: f.mirrors, Keyrings: f.keyrings}
	all := []writtenLock{}
	failed, change := false, false
	done := func(w writtenLock, errs ...error) {
		for _, err := range errs {
			fmt.Fprintln(a.std.err, err)
			failed = true
		}
		if len(errs) > 0 {
			return
		}
		all = append(all, w)
		change = change || w.Written
		if f.output == "text" {
			a.printLock(w, f.check)
		}
	}
	for _, d := range declared {
		if d.Kind() != "debian_image" {
			continue
		}
		w, err := o.lockTarget(ctx, l, f, d)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			done(w, fmt.Errorf("%s: %s: %w", d.Pos(""), d.Label(), err))
		} else {
			done(w)
		}
	}
	if w, errs := o.lockImages(ctx, f, declared, patterns); ctx.Err() != nil {
		return ctx.Err()
	} else if w.Lock != "" {
		done(w, errs...)
	}
	if len(all) == 0 && !failed {
		a.note("there is nothing to lock: no debian_image, and no image_import or mw_component_import with a ref")
	}
	if f.output == "json" {
		err = a.printJSON(all)
	}
	if failed || f.check && change {
		err = errors.Join(err, errReported)
	}
	return err
}

func (a *app) printLock(t writtenLock, check bool) {
	for _, c := range t.Changes {
		switch {
		case c.Was == "":
			fmt.Fprintf(a.std.out, "%s: + %s %s\n", t.Lock, c.Name, c.Is)
		case c.Is == "":
			fmt.Fprintf(a.std.out, "%s: - %s %s\n", t.Lock, c.Name, c.Was)
		default:
			fmt.Fprintf(a.std.out, "%s: %s %s -> %s\n", t.Lock, c.Name, c.Was, c.Is)
		}
	}
	state := "as before"
	switch {
	case t.Written && check:
		state = "would be written: run this without --check"
	case t.Written:
		state = "written"
	}
	what := plural(t.Packages, "package")
	if t.Label == "" {
		what = plural(t.Images, "image")
	}
	a.note("%s: %s, %s", t.Lock, what, state)
}

// lockTarget brings one lock up to date.
func (o *opened) lockTarget(ctx context.Context, l *debian.Locker, f lockFlags, d load.Declared) (writtenLock, error) {
	text := func(name string) string { v, _ := d.Attr(name); s, _ := v.(string); return s }
	list := func(name string) []string { v, _ := d.Attr(name); s, _ := v.([]string); return s }
	slim, _ := d.Attr("slim")
	s := debian.Spec{
		Suite: text("suite"), Architecture: text("architecture"), Packages: list("packages"), Slim: slim == true, Mirrors: list("mirrors"),
	}
	lab := d.Label()
	t := writtenLock{Label: lab.String(), Lock: path.Join(lab.Pkg, cmp.Or(text("lock"), lab.Name+".lock.json")), Changes: []debian.Change{}}
	file := filepath.Join(o.root, filepath.FromSlash(t.Lock))
	var old *lockfile.File
	was, err := os.ReadFile(file)
	if err == nil {
		if old, err = lockfile.Parse(was); err != nil {
			o.app.note("%s is written anew: %v", t.Lock, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	begun := time.Now()
	stop := time.AfterFunc(time.Second/2, func() { o.app.note("asking archives for the packages of %s …", s.Suite) })
	locked, err := l.Lock(ctx, s, old, f.upgrades)
	stop.Stop()
	if err != nil {
		return t, err
	}
	o.app.log.Debug("locked", "target", lab, "packages", len(locked.Packages), "took", time.Since(begun))
	t.Packages = len(locked.Packages)
	t.Changes = append(t.Changes, debian.Changes(old, locked)...)
	t.Written = string(was) != string(locked.Format())
	if t.Written && !f.check {
		err = renameio.WriteFile(file, locked.Format(), 0o644)
	}
	return t, err
}

// lockImages brings mwbuild.lock up to date, if there is anything to lock in it. What it holds for targets that patterns do not match stays, unless they match
// all. There is an error for each image of which the digest cannot be had.
func (o *opened) lockImages(ctx context.Context, f lockFlags, declared []load.Declared, patterns []label.Pattern) (writtenLock, []error) {
	w := writtenLock{Lock: load.LockFile, Changes: []debian.Change{}}
	was, err := os.ReadFile(filepath.Join(o.root, load.LockFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w, []error{err}
	}
	old := map[string]string{}
	if err == nil {
		if old, err = load.ParseLock(was); err != nil {
			o.app.note("%s is written anew: %v", load.LockFile, err)
		}
	}
	is := map[string]string{}
	if !slices.ContainsFunc(patterns, func(p label.Pattern) bool { return p.Below && p.Label.Pkg == "" && !p.Negative }) {
		maps.Copy(is, old)
	}
	wanted := map[string]load.Declared{}
	for _, d := range declared {
		if !slices.Contains(importRules, d.Kind()) {
			continue
		}
		for _, ref := range d.Strings("ref") {
			if _, ok := wanted[ref]; !ok && ref != "" {
				wanted[ref] = d
			}
		}
	}
	if len(wanted) == 0 && len(old) == 0 {
		return writtenLock{}, nil
	}
	var errs []error
	for _, ref := range slices.Sorted(maps.Keys(wanted)) {
		if is[ref] = old[ref]; is[ref] != "" && !f.upgrades(ref) {
			continue
		}
		stop := time.AfterFunc(time.Second/2, func() { o.app.note("asking for %s …", ref) })
		var d digest.Digest
		err := load.CheckRef(ref)
		if err == nil {
			d, err = transport.Lookup(ctx, ref, nil)
		}
		stop.Stop()
		if ctx.Err() != nil {
			return w, nil
		}
		if err != nil {
			by := wanted[ref]
			errs = append(errs, fmt.Errorf("%s: %s: %s: %w", by.Pos("ref"), by.Label(), ref, err))
		}
		is[ref] = d.String()
	}
	if len(errs) > 0 {
		return w, errs
	}
	w.Images = len(is)
	for _, ref := range slices.Sorted(maps.Keys(is)) {
		if is[ref] != old[ref] {
			w.Changes = append(w.Changes, debian.Change{Name: ref, Was: old[ref], Is: is[ref]})
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(old)) {
		if is[ref] == "" {
			w.Changes = append(w.Changes, debian.Change{Name: ref, Was: old[ref]})
		}
	}
	text := load.FormatLock(is)
	w.Written = string(was) != string(text)
	if w.Written && !f.check {
		if err := renameio.WriteFile(filepath.Join(o.root, load.LockFile), text, 0o644); err != nil {
			return w, []error{err}
		}
	}
	return w, nil
}
