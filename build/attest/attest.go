// Package attest writes down what an image is made of and how, for others to read: an SPDX document, which is the bill of materials, and a statement of
// in-toto with SLSA's provenance.
//
// Documents are a function of what is handed over here. No clock, host name or map order is in them, so the same image built from the same commit has
// the same documents, to the byte. They say nothing of what is not handed over: whoever collects takes what is in the image, and nothing else of the tree.
// URLs are written without user names, passwords and queries.
package attest

import (
	"slices"
	"strings"
	"time"
)

// project is where mwbuild is at home; what has a URI of its own has it below this one.
const project = "https://github.com/mwbuild/mwbuild"

// A Package is one thing that an image is made of, or the image itself.
type Package struct {
	ID        string // of its own in the document: "extensions/Cite", "deb libc6 2.36-9"
	Name      string
	Version   string
	Kind      Kind
	URL       string // package URL (purl), or ""
	CPE       string // name in the lists of vulnerabilities, or ""
	License   string // an SPDX expression, or ""
	Location  string // where it may be had, or ""
	Source    *Source
	Checksums []Checksum
	Comment   string
}

// Kind is what a package is for, by SPDX's words.
type Kind string

// The kinds of packages.
const (
	Container   Kind = "CONTAINER"
	Application Kind = "APPLICATION"
	Library     Kind = "LIBRARY"
)

// A Checksum is of a package as it is downloaded.
type Checksum struct {
	Algorithm string // "SHA1", "SHA256", "SHA512"
	Value     string // hexadecimal
}

// A Source is where files were when an image was built from them.
type Source struct {
	URL    string // as GitURL writes it, or ""
	Commit string
	Dirty  bool   // the work tree differed from the commit
	Path   string // of the files in the repository, "" for all of it
}

// A Relation is how one package has to do with another, by SPDX's words: from contains to.
type Relation string

// The relations of packages.
const (
	Contains   Relation = "CONTAINS"
	DependsOn  Relation = "DEPENDS_ON"
	StandsOn   Relation = "DESCENDANT_OF"       // an image on its base
	NeededFor  Relation = "BUILD_DEPENDENCY_OF" // a package for what it helped to make
	describes  Relation = "DESCRIBES"
	documentID          = "DOCUMENT"
)

// A Bill is all that an image is made of.
type Bill struct {
	Image    Package // with the digest among its Checksums
	Version  string  // of mwbuild
	Created  time.Time
	packages map[string]Package
	links    map[link]bool
}

type link struct {
	from, to string
	how      Relation
}

// Add adds a package, once, and how it has to do with another of the bill.
func (b *Bill) Add(p Package, from string, how Relation, to string) {
	if b.packages == nil {
		b.packages = map[string]Package{}
	}
	b.packages[p.ID] = p
	b.Relate(from, how, to)
}

// Relate says how one package of the bill has to do with another.
func (b *Bill) Relate(from string, how Relation, to string) {
	if b.links == nil {
		b.links = map[link]bool{}
	}
	b.links[link{from, to, how}] = true
}

// Has tells whether a package of that ID was added.
func (b *Bill) Has(id string) bool {
	_, ok := b.packages[id]
	return ok
}

// sorted returns sums in a fixed order.
func sorted(sums []Checksum) []Checksum {
	return slices.SortedFunc(slices.Values(sums), func(a, b Checksum) int { return strings.Compare(a.Algorithm+a.Value, b.Algorithm+b.Value) })
}
