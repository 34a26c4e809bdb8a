package debian

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/mwbuild/mwbuild/rules/debian/archive"
	"github.com/mwbuild/mwbuild/rules/debian/lockfile"
	"github.com/mwbuild/mwbuild/rules/debian/mirror"
	"github.com/mwbuild/mwbuild/rules/debian/resolve"
)

// A Locker chooses packages for locks. It keeps what it fetched: several locks of one suite are chosen from the same lists.
type Locker struct {
	Fetcher  *mirror.Fetcher
	AptDir   string   // apt's configuration, which says where the archives are unless somebody else does
	Mirrors  []string // archives, in place of all others
	Keyrings []string // files of keys that archives are signed with; without any, those of the machine

	lists map[mirror.Source]*mirror.List
}

// keyrings are where Debian's package debian-archive-keyring has its keys.
var keyrings = []string{"/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"}

// A Spec is what a lock is wanted for.
type Spec struct {
	Suite, Architecture string
	Packages            []string
	Slim                bool
	Mirrors             []string // archives; empty: those of apt
}

// A Change is one package in which two locks differ. Was or Is is "" where the package is in one of them only.
type Change struct {
	Name string `json:"name"`
	Was  string `json:"was,omitempty"`
	Is   string `json:"is,omitempty"`
}

// Lock chooses the packages of s. Of those in old, which may be nil, the versions are kept that are still to be had, but of what upgrade
// accepts. Where that leaves all packages as they are in old, so is the result.
func (l *Locker) Lock(ctx context.Context, s Spec, old *lockfile.File, upgrade func(name string) bool) (*lockfile.File, error) {
	lists, err := l.fetch(ctx, s)
	if err != nil {
		return nil, err
	}
	f := &lockfile.File{
		Version: lockfile.Version, Algorithm: lockfile.Algorithm, Suite: s.Suite, Architecture: s.Architecture, Slim: s.Slim,
		Roots: slices.Sorted(slices.Values(s.Packages)),
	}
	f.Roots = append([]string{}, slices.Compact(f.Roots)...)
	var available []*archive.Package
	for _, list := range lists {
		available = append(available, list.Packages...)
		r := lockfile.Release{Suite: list.Suite, Date: list.Release.Date.Format(time.RFC3339), SHA256: list.SHA256}
		if !list.Release.ValidUntil.IsZero() {
			r.ValidUntil = list.Release.ValidUntil.Format(time.RFC3339)
		}
		f.Releases = append(f.Releases, r)
		f.Epoch = max(f.Epoch, list.Release.Date.Unix())
	}
	req := resolve.Request{Packages: f.Roots, Slim: s.Slim, Keep: map[string]string{}}
	if old != nil && old.Suite == s.Suite && old.Architecture == s.Architecture {
		for _, p := range old.Packages {
			if !upgrade(p.Name) {
				req.Keep[p.Name] = p.Version
			}
		}
	}
	chosen, depends, problems := resolve.Resolve(available, req)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	for _, p := range chosen {
		f.Packages = append(f.Packages, lockfile.Package{
			Name: p.Name, Version: p.Version, Architecture: p.Architecture, Source: p.Source, Essential: p.Essential, Depends: depends[p.Name],
			SHA256: p.SHA256, Size: p.Size, Path: p.Path,
		})
	}
	if old != nil && old.Suite == f.Suite && old.Architecture == f.Architecture && old.Slim == f.Slim && slices.Equal(old.Roots, f.Roots) &&
		slices.EqualFunc(old.Packages, f.Packages, equal) {
		return old, nil
	}
	return f, nil
}

func equal(a, b lockfile.Package) bool {
	return a.Name == b.Name && a.Version == b.Version && a.SHA256 == b.SHA256 && a.Path == b.Path && a.Essential == b.Essential && slices.Equal(a.Depends, b.Depends)
}

// Changes are what differs between the packages of two locks, by name. Either may be nil.
func Changes(old, new *lockfile.File) []Change {
	is := map[string]Change{}
	if old != nil {
		for _, p := range old.Packages {
			is[p.Name] = Change{Name: p.Name, Was: p.Version}
		}
	}
	if new != nil {
		for _, p := range new.Packages {
			is[p.Name] = Change{p.Name, is[p.Name].Was, p.Version}
		}
	}
	var all []Change
	for _, c := range is {
		if c.Was != c.Is {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b Change) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

// fetch gets the lists of all suites of s.
func (l *Locker) fetch(ctx context.Context, s Spec) ([]*mirror.List, error) {
	var sources []mirror.Source
	var err error
	switch {
	case len(l.Mirrors) > 0:
		sources = mirror.FromURLs(s.Suite, l.Mirrors)
	case len(s.Mirrors) > 0:
		sources = mirror.FromURLs(s.Suite, s.Mirrors)
	default:
		if sources, err = mirror.FromApt(l.AptDir, s.Suite); err != nil {
			return nil, err
		}
	}
	var lists []*mirror.List
	for _, source := range sources {
		key := source
		key.URL += " " + s.Architecture
		list := l.lists[key]
		if list == nil {
			keys, err := archive.ReadKeyring(l.keyrings(source)...)
			if err != nil {
				return nil, err
			}
			if len(keys) == 0 {
				return nil, errors.New("there are no keys to check Debian's archives with\n    install the package debian-archive-keyring, or name a file of keys with --keyring")
			}
			list, err = l.Fetcher.Suite(ctx, source, s.Architecture, keys)
			if errors.Is(err, mirror.ErrNotFound) && source.Suite != s.Suite {
				continue // an archive without updates or security
			}
			if err != nil {
				return nil, err
			}
			if l.lists == nil {
				l.lists = map[mirror.Source]*mirror.List{}
			}
			l.lists[key] = list
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// keyrings are the files of keys that a source may be signed with.
func (l *Locker) keyrings(s mirror.Source) []string {
	if len(l.Keyrings) > 0 {
		return l.Keyrings
	}
	var there []string
	for _, file := range append([]string{s.SignedBy}, keyrings...) {
		if _, err := os.Stat(file); file != "" && err == nil && !slices.Contains(there, file) {
			there = append(there, file)
		}
	}
	return there
}
