// Package lockfile is the model of the file in which mwbuild lock writes which packages make up a Debian image, to the byte.
// It is JSON with one package a line, sorted, so that differences can be read and merged.
package lockfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Version is that of the file's form, and Algorithm that of how packages are chosen and unpacked: locks of another one have to
// be written anew.
const (
	Version   = 1
	Algorithm = 1
)

// A File is what one lock file says.
type File struct {
	Version      int       `json:"version"`
	Algorithm    int       `json:"algorithm"`
	Suite        string    `json:"suite"`        // codename: "bookworm"
	Architecture string    `json:"architecture"` // Debian's name: "amd64"
	Epoch        int64     `json:"epoch"`        // seconds since 1970: the newest date of the releases. What configuring makes has this time
	Slim         bool      `json:"slim"`
	Releases     []Release `json:"releases"` // what the packages were chosen from
	Roots        []string  `json:"roots"`    // the packages that were asked for, sorted
	Packages     []Package `json:"packages"` // sorted by name
}

// A Release is one signed list of an archive.
type Release struct {
	Suite      string `json:"suite"` // "bookworm-security"
	Date       string `json:"date"`  // as it stands there
	ValidUntil string `json:"valid_until,omitempty"`
	SHA256     string `json:"sha256"` // of InRelease
}

// A Package is one .deb.
type Package struct {
	Name         string   `json:"name"`
	Version      string   `json:"version"`
	Architecture string   `json:"architecture"` // of the package: "all" is one
	Source       string   `json:"source"`
	Essential    bool     `json:"essential,omitempty"`
	Depends      []string `json:"depends,omitempty"` // the packages here that it depends on, sorted
	SHA256       string   `json:"sha256"`
	Size         int64    `json:"size"`
	Path         string   `json:"path"` // below a mirror
}

// Format writes the file.
func (f *File) Format() []byte {
	head := *f
	head.Packages = nil
	slices.SortFunc(f.Packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	text, err := json.MarshalIndent(head, "", " ")
	if err != nil {
		panic(err) // strings, numbers and lists of them
	}
	var b bytes.Buffer
	b.Write(bytes.TrimSuffix(text, []byte("null\n}")))
	b.WriteByte('[')
	for i, p := range f.Packages {
		line, err := json.Marshal(p)
		if err != nil {
			panic(err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n  ")
		b.Write(line)
	}
	b.WriteString("\n ]\n}\n")
	return b.Bytes()
}

var (
	hexSum = regexp.MustCompile(`^[0-9a-f]{64}$`)
	name   = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
)

// Parse reads what Format wrote. What it returns can be trusted as far as names, digests and paths go: they are of the right
// form, no package is there twice, and all that a package depends on is there.
func Parse(text []byte) (*File, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	f := &File{}
	if err := d.Decode(f); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("something follows the lock")
	}
	if f.Version != Version || f.Algorithm != Algorithm {
		return nil, fmt.Errorf("it is of version %d.%d, and this mwbuild reads %d.%d: run mwbuild lock", f.Version, f.Algorithm, Version, Algorithm)
	}
	if f.Suite == "" || f.Architecture == "" || f.Epoch <= 0 || len(f.Packages) == 0 {
		return nil, errors.New("suite, architecture, epoch or packages are missing")
	}
	there := map[string]bool{}
	for _, p := range f.Packages {
		bad := func(what, value string) error { return fmt.Errorf("package %q: %s %q", p.Name, what, value) }
		switch {
		case !name.MatchString(p.Name):
			return nil, bad("no name", p.Name)
		case there[p.Name]:
			return nil, bad("it is there twice", p.Name)
		case !hexSum.MatchString(p.SHA256):
			return nil, bad("no digest", p.SHA256)
		case p.Size <= 0:
			return nil, bad("no size", fmt.Sprint(p.Size))
		case p.Version == "" || p.Source == "":
			return nil, bad("no version or no source", p.Version)
		case p.Architecture != f.Architecture && p.Architecture != "all":
			return nil, bad("architecture", p.Architecture)
		case path.Clean(p.Path) != p.Path || path.IsAbs(p.Path) || strings.HasPrefix(p.Path, ".."):
			return nil, bad("no path below a mirror", p.Path)
		}
		there[p.Name] = true
	}
	for _, p := range f.Packages {
		for _, d := range p.Depends {
			if !there[d] {
				return nil, fmt.Errorf("package %s depends on %s, which is missing", p.Name, d)
			}
		}
	}
	for _, r := range f.Roots {
		if !there[r] {
			return nil, fmt.Errorf("package %s was asked for, and is missing", r)
		}
	}
	return f, nil
}
