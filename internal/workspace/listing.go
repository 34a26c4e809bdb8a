package workspace

import (
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
)

// A listing is the files of a tree, and which package each belongs to. It is only read.
type listing struct {
	files []File   // sorted by path
	paths []string // of files
	pkgs  []string // sorted
	pkg   map[string]*pkg
}

type pkg struct {
	build []string // which of buildFiles it holds
	files []int32  // of the package and no other, as indices into listing.files
}

// newListing finds the packages of files, which are sorted by path.
func newListing(files []File) listing {
	l := listing{files: files, paths: make([]string, len(files)), pkg: map[string]*pkg{}}
	for i, f := range files {
		l.paths[i] = f.Path
		folder, name := split(f.Path)
		if slices.Contains(buildFiles, name) && f.Mode != Symlink && !f.special {
			p := l.pkg[folder]
			if p == nil {
				p = &pkg{}
				l.pkg[folder] = p
				l.pkgs = append(l.pkgs, folder)
			}
			p.build = append(p.build, name)
		}
	}
	slices.Sort(l.pkgs)

	owners := map[string]*pkg{} // of folders
	var owner func(folder string) *pkg
	owner = func(folder string) *pkg {
		if p, ok := owners[folder]; ok {
			return p
		}
		p := l.pkg[folder]
		if p == nil && folder != "" {
			up, _ := split(folder)
			p = owner(up)
		}
		owners[folder] = p
		return p
	}
	last, p := "\x00", (*pkg)(nil)
	for i, f := range files {
		// Files of a folder mostly follow one another.
		if folder, _ := split(f.Path); folder != last {
			last, p = folder, owner(folder)
		}
		if p != nil {
			p.files = append(p.files, int32(i))
		}
	}
	return l
}

// Files returns the paths of all files, sorted. The caller must not change the slice.
func (l *listing) Files() []string { return l.paths }

// Lookup returns the file at path, as it was when the tree was listed.
func (l *listing) Lookup(path string) (File, bool) {
	i, ok := slices.BinarySearch(l.paths, path)
	if !ok {
		return File{}, false
	}
	return l.files[i], true
}

// Packages returns the folders that hold a regular file BUILD or BUILD.star, sorted; "" is the root. The caller must not change
// the slice.
func (l *listing) Packages() []string { return l.pkgs }

// BuildFiles returns which of BUILD and BUILD.star the folder pkg holds; none, if it is no package.
func (l *listing) BuildFiles(pkg string) []string {
	if p := l.pkg[pkg]; p != nil {
		return slices.Clone(p.build)
	}
	return nil
}

// Owned yields the files that belong to package pkg and to none below it, BUILD files included, sorted.
func (l *listing) Owned(pkg string) iter.Seq[File] {
	return func(yield func(File) bool) {
		p := l.pkg[pkg]
		if p == nil {
			return
		}
		for _, i := range p.files {
			if !yield(l.files[i]) {
				return
			}
		}
	}
}

// maxLinks is how many symlinks may follow one another, as on Linux.
const maxLinks = 40

// follow walks along p, and along the symlinks that it meets, of folders too. It returns where that ends, whether anything is there
// or not, and how many symlinks there were.
func (l *listing) follow(p string) (at string, links int, err error) {
	rest := strings.Split(p, "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if at == "" {
				return "", links, fmt.Errorf("symlink %s leads out of the workspace", p)
			}
			at, _ = split(at)
			continue
		}
		f, ok := l.Lookup(join(at, name))
		if !ok || f.Mode != Symlink {
			at = join(at, name)
			continue
		}
		if links++; links > maxLinks {
			return "", links, fmt.Errorf("symlink %s leads to too many others, or in a circle", p)
		}
		if path.IsAbs(f.Target) {
			return "", links, fmt.Errorf("symlink %s leads out of the workspace, to %s", p, f.Target)
		}
		rest = append(strings.Split(f.Target, "/"), rest...)
	}
	return at, links, nil
}
