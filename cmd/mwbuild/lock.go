package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

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

func (a *app) lockCommand() *cobra.Command {
	var f lockFlags
	c := &cobra.Command{
		Use:   "lock [FLAGS] [PATTERN…]",
		Short: "Write lock files: choose the packages of Debian images",
		Long: `Write the lock files of debian_image targets, of all by default: the packages that they ask for, and all that these need, each
by version and digest. It is the one command that asks archives what there is; a build takes what the locks say.

Versions that are locked stay while the archive has them; --upgrade takes the newest. A lock of which no package changes is left as it is.

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
	fl.StringSliceVar(&f.upgrade, "upgrade", nil, "take the newest versions, of these `packages` or of all")
	fl.Lookup("upgrade").NoOptDefVal = allPackages
	fl.BoolVar(&f.check, "check", false, "write nothing; exit with 1 if a lock would change")
	fl.StringSliceVar(&f.mirrors, "mirror", nil, "`URL` of an archive, in place of all others; may be repeated")
	fl.StringSliceVar(&f.keyrings, "keyring", nil, "`file` of keys that archives are signed with, in place of the machine's; may be repeated")
	fl.StringVar(&f.output, "output", "text", "text, or json: an array with an object for each lock")
	return c
}

// lockedTarget is a lock as its JSON form has it.
type lockedTarget struct {
	Label    string          `json:"label"`
	Lock     string          `json:"lock"` // its file, in the workspace
	Packages int             `json:"packages"`
	Written  bool            `json:"written"` // or would be, with --check
	Changes  []debian.Change `json:"changes"`
}

func (a *app) lock(ctx context.Context, f lockFlags, args []string) error {
	o, patterns, err := a.openTargets(ctx, args)
	if err != nil {
		return err
	}
	loader, errs := o.loader()
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
	l := &debian.Locker{Fetcher: &mirror.Fetcher{}, AptDir: aptDir, Mirrors: f.mirrors, Keyrings: f.keyrings}
	all := []lockedTarget{}
	failed, change := false, false
	for _, d := range declared {
		if d.Kind() != "debian_image" || !slices.ContainsFunc(patterns, func(p label.Pattern) bool { return p.Match(d.Label()) }) {
			continue
		}
		t, err := o.lockTarget(ctx, l, f, d)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(a.std.err, "%s: %s: %v\n", d.Pos(""), d.Label(), err)
			failed = true
			continue
		}
		all = append(all, t)
		change = change || t.Written
		if f.output == "text" {
			a.printLock(t, f.check)
		}
	}
	if len(all) == 0 && !failed {
		a.note("there is no debian_image to lock")
	}
	if f.output == "json" {
		err = a.printJSON(all)
	}
	if failed || f.check && change {
		err = errors.Join(err, errReported)
	}
	return err
}

func (a *app) printLock(t lockedTarget, check bool) {
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
		state = "would be written: run mwbuild lock"
	case t.Written:
		state = "written"
	}
	a.note("%s: %s, %s", t.Lock, plural(t.Packages, "package"), state)
}

// lockTarget brings one lock up to date.
func (o *opened) lockTarget(ctx context.Context, l *debian.Locker, f lockFlags, d load.Declared) (lockedTarget, error) {
	text := func(name string) string { v, _ := d.Attr(name); s, _ := v.(string); return s }
	list := func(name string) []string { v, _ := d.Attr(name); s, _ := v.([]string); return s }
	slim, _ := d.Attr("slim")
	s := debian.Spec{
		Suite: text("suite"), Architecture: text("architecture"), Packages: list("packages"), Slim: slim == true, Mirrors: list("mirrors"),
	}
	lab := d.Label()
	t := lockedTarget{Label: lab.String(), Lock: path.Join(lab.Pkg, cmp.Or(text("lock"), lab.Name+".lock.json")), Changes: []debian.Change{}}
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
	locked, err := l.Lock(ctx, s, old, func(name string) bool {
		return slices.Contains(f.upgrade, allPackages) || slices.Contains(f.upgrade, name)
	})
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
