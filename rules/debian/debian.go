// Package debian makes layers of images from Debian packages that a lock file names: it unpacks .deb files as dpkg would and
// prepares the one step that configures them, which needs no network. Neither apt nor dpkg has to be on the machine.
//
// What it does follows dpkg's own behaviour and file formats (deb(5), deb-conffiles(5), deb-triggers(5), dpkg's admindir), as
// far as a system that is made anew needs them: nothing is upgraded or removed, nothing is diverted before it is unpacked, and
// two packages cannot both install a file. Who may install what was decided when the lock was written (package resolve).
package debian

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/rules/debian/archive"
	"github.com/mwbuild/mwbuild/rules/debian/deb"
	"github.com/mwbuild/mwbuild/rules/debian/lockfile"
)

// The kinds of native actions. Raise a version when the same packages give another layer.
const (
	unpackKind = "debian unpack 1"
	setupKind  = "debian setup 1"
)

// groups is into how many layers packages are divided that are not of the base.
const groups = 9

// Files reads files of the package that a rule is called in.
type Files interface {
	Has(file string) bool
	Read(file string) ([]byte, error)
}

// Analyse tells a rule what the lock file args["lock"] of package pkg says: groups of packages, each for one layer, the base
// first, and what the step that configures them needs.
//
// A group is one of the essential packages with all that they need, or of other packages by a hash of their source's name, so a
// new version of a package changes no other group.
func Analyse(_ context.Context, files Files, pkg string, args map[string]any) (any, error) {
	name, _ := args["lock"].(string)
	file := path.Join(pkg, name)
	if !files.Has(file) {
		return nil, fmt.Errorf("lock: there is no %s\n    mwbuild lock writes it; git must not ignore it", file)
	}
	text, err := files.Read(file)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	lock, err := lockfile.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("lock: %s: %w\n    mwbuild lock writes it anew", file, err)
	}
	if err := agree(lock, args); err != nil {
		return nil, fmt.Errorf("lock: %s %w\n    mwbuild lock brings it up to date", file, err)
	}
	params := map[string]any{"arch": lock.Architecture}
	var layers []any
	all := make([]any, len(lock.Packages))
	for i, p := range lock.Packages {
		all[i] = download(p)
	}
	for i, members := range divide(lock.Packages) {
		if len(members) == 0 {
			continue
		}
		downloads := make([]any, len(members))
		for j, p := range members {
			downloads[j] = download(p)
		}
		group := map[string]any{"name": fmt.Sprintf("packages %d", i), "downloads": downloads, "params": params}
		if i == 0 {
			group["name"] = "essential packages"
			group["params"] = map[string]any{"arch": lock.Architecture, "base": "1"}
		}
		layers = append(layers, group)
	}
	return map[string]any{
		"groups": layers, "setup": map[string]any{"downloads": all, "params": params}, "epoch": lock.Epoch, "architecture": lock.Architecture,
	}, nil
}

// agree holds what the rule asks for against the lock.
func agree(lock *lockfile.File, args map[string]any) error {
	if suite, _ := args["suite"].(string); suite != lock.Suite {
		return fmt.Errorf("is of suite %s, and %s is asked for", lock.Suite, suite)
	}
	if slim, _ := args["slim"].(bool); slim != lock.Slim {
		return fmt.Errorf("has slim = %v, and %v is asked for", lock.Slim, slim)
	}
	if arch, _ := args["architecture"].(string); arch != lock.Architecture {
		return fmt.Errorf("is of architecture %s, and %s is asked for", lock.Architecture, arch)
	}
	asked, _ := args["packages"].([]any)
	want := map[string]bool{}
	for _, p := range asked {
		name, _ := p.(string)
		want[name] = true
		if !slices.Contains(lock.Roots, name) {
			return fmt.Errorf("was written without %s", name)
		}
	}
	for _, r := range lock.Roots {
		if !want[r] {
			return fmt.Errorf("was written with %s, which is asked for no more", r)
		}
	}
	return nil
}

func download(p lockfile.Package) map[string]any {
	return map[string]any{"sha256": p.SHA256, "size": p.Size, "name": p.Name + " " + p.Version, "path": p.Path}
}

// divide returns the base and the other groups, in order of name each.
func divide(all []lockfile.Package) [1 + groups][]lockfile.Package {
	byName := map[string]lockfile.Package{}
	for _, p := range all {
		byName[p.Name] = p
	}
	base := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if !base[name] {
			base[name] = true
			for _, d := range byName[name].Depends {
				visit(d)
			}
		}
	}
	for _, p := range all {
		if p.Essential {
			visit(p.Name)
		}
	}
	var divided [1 + groups][]lockfile.Package
	for _, p := range slices.SortedFunc(slices.Values(all), func(a, b lockfile.Package) int { return strings.Compare(a.Name, b.Name) }) {
		n := 0
		if !base[p.Name] {
			h := fnv.New32a()
			h.Write([]byte(p.Source))
			n = 1 + int(h.Sum32()%groups)
		}
		divided[n] = append(divided[n], p)
	}
	return divided
}

// Layers are the functions of native actions that make layers, by kind.
func Layers() map[string]func(context.Context, *action.Native, func(string) (io.ReadCloser, error), io.Writer) error {
	return map[string]func(context.Context, *action.Native, func(string) (io.ReadCloser, error), io.Writer) error{
		unpackKind: unpackLayer, setupKind: setupLayer,
	}
}

// each opens the packages of an action, one after the other.
func each(ctx context.Context, do *action.Native, open func(string) (io.ReadCloser, error), got func(*deb.Package) error) error {
	for _, d := range do.Downloads {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := open(d.SHA256)
		if err != nil {
			return err
		}
		p, err := deb.Open(r, do.Params["arch"])
		if err == nil {
			err = got(p)
		}
		if err = cmp.Or(err, r.Close()); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	return nil
}

func unpackLayer(ctx context.Context, do *action.Native, open func(string) (io.ReadCloser, error), w io.Writer) error {
	u := newUnpacker(w, do.Params["arch"])
	if do.Params["base"] != "" {
		if err := u.base(); err != nil {
			return err
		}
	}
	if err := each(ctx, do, open, u.unpack); err != nil {
		return err
	}
	return u.tw.Close()
}

// setupLayer writes what configureScript reads.
func setupLayer(ctx context.Context, do *action.Native, open func(string) (io.ReadCloser, error), w io.Writer) error {
	s := newSetup()
	var all []*archive.Package
	if err := each(ctx, do, open, func(p *deb.Package) error {
		all = append(all, p.Package)
		return s.add(p)
	}); err != nil {
		return err
	}
	u := newUnpacker(w, do.Params["arch"])
	files := map[string]string{"status": s.status.String(), "configure": configureScript, "preinsts": lines(s.order(depends(all)))}
	for name, interests := range s.triggers {
		files["triggers/"+name] = lines(interests)
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := u.file(name, 0o644, []byte(files[name])); err != nil {
			return err
		}
	}
	return u.tw.Close()
}

func lines(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return strings.Join(all, "\n") + "\n"
}

// depends tells which of all each depends on.
func depends(all []*archive.Package) map[string][]string {
	byName := map[string][]*archive.Package{} // under their own names and those that they provide
	for _, p := range all {
		byName[p.Name] = append(byName[p.Name], p)
		for _, g := range p.Provides {
			byName[g[0].Name] = append(byName[g[0].Name], p)
		}
	}
	found := map[string][]string{}
	for _, p := range all {
		found[p.Name] = nil
		for _, g := range slices.Concat(p.PreDepends, p.Depends) {
			for _, rel := range g {
				for _, c := range byName[rel.Name] {
					if c != p && c.Satisfies(rel) {
						found[p.Name] = append(found[p.Name], c.Name)
					}
				}
			}
		}
		slices.Sort(found[p.Name])
	}
	return found
}
