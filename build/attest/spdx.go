package attest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/github/go-spdx/v2/spdxexp"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// SPDXType is the media type of an SPDX document in JSON.
const SPDXType = "application/spdx+json"

const noAssertion = "NOASSERTION"

// SPDX writes the bill as a document of SPDX 2.3, in JSON.
//
// Files are not among its packages; of each package it says what the bill says, and NOASSERTION for the rest. The document's namespace has the
// image's digest and a digest of the document, since the same image may be built again from another commit.
func (b *Bill) SPDX() ([]byte, error) {
	doc := v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: documentID, DocumentName: b.Image.Name,
		CreationInfo: &v2_3.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "mwbuild-" + b.Version}},
			Created:  b.Created.UTC().Format(time.RFC3339),
		},
	}
	packages := maps.Clone(b.packages)
	if packages == nil {
		packages = map[string]Package{}
	}
	packages[b.Image.ID] = b.Image
	ids := elementIDs(slices.Sorted(maps.Keys(packages)))
	for _, id := range slices.Sorted(maps.Keys(packages)) {
		doc.Packages = append(doc.Packages, spdxPackage(packages[id], ids[id]))
	}
	relate := func(from common.ElementID, how Relation, to common.ElementID) {
		doc.Relationships = append(doc.Relationships, &v2_3.Relationship{
			RefA: common.DocElementID{ElementRefID: from}, Relationship: string(how), RefB: common.DocElementID{ElementRefID: to},
		})
	}
	relate(documentID, describes, ids[b.Image.ID])
	for _, l := range slices.SortedFunc(maps.Keys(b.links), func(a, b link) int {
		return cmp.Or(strings.Compare(a.from, b.from), strings.Compare(string(a.how), string(b.how)), strings.Compare(a.to, b.to))
	}) {
		relate(ids[l.from], l.how, ids[l.to])
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	doc.DocumentNamespace = project + "/spdx/" + b.digest() + "/" + hex.EncodeToString(sum[:8])
	return indented(doc)
}

// digest is the image's, hexadecimal.
func (b *Bill) digest() string {
	for _, c := range b.Image.Checksums {
		if c.Algorithm == "SHA256" {
			return c.Value
		}
	}
	return ""
}

func indented(v any) ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(v)
	return text.Bytes(), err
}

func spdxPackage(p Package, id common.ElementID) *v2_3.Package {
	is := &v2_3.Package{
		PackageName: p.Name, PackageSPDXIdentifier: id, PackageVersion: p.Version, PrimaryPackagePurpose: string(p.Kind),
		PackageDownloadLocation: cmp.Or(p.Location, p.Source.in(), noAssertion), IsFilesAnalyzedTagPresent: true,
		PackageLicenseConcluded: noAssertion, PackageLicenseDeclared: cmp.Or(p.License, noAssertion), PackageCopyrightText: noAssertion,
		PackageComment: p.Comment, PackageSourceInfo: p.Source.info(),
	}
	for _, c := range sorted(p.Checksums) {
		is.PackageChecksums = append(is.PackageChecksums, common.Checksum{Algorithm: common.ChecksumAlgorithm(c.Algorithm), Value: c.Value})
	}
	if p.URL != "" {
		is.PackageExternalReferences = append(is.PackageExternalReferences, &v2_3.PackageExternalReference{
			Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: p.URL,
		})
	}
	if p.CPE != "" {
		is.PackageExternalReferences = append(is.PackageExternalReferences, &v2_3.PackageExternalReference{
			Category: common.CategorySecurity, RefType: common.TypeSecurityCPE23Type, Locator: p.CPE,
		})
	}
	return is
}

// info says of which commit the files are, for people.
func (s *Source) info() string {
	if s == nil {
		return ""
	}
	text := "git commit " + s.Commit
	if s.Path != "" {
		text += ", " + s.Path
	}
	if s.Dirty {
		text += "; the work tree had changes that were not committed"
	}
	return text
}

var outsideID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// elementIDs are names that SPDX allows. What it does not allow becomes a dash, and where names become the same by that, a digest tells them apart.
func elementIDs(names []string) map[string]common.ElementID {
	clean := map[string][]string{}
	for _, n := range names {
		id := outsideID.ReplaceAllString(n, "-")
		clean[id] = append(clean[id], n)
	}
	ids := map[string]common.ElementID{}
	for id, names := range clean {
		for _, n := range names {
			ids[n] = common.ElementID("Package-" + id)
			if len(names) > 1 {
				sum := sha256.Sum256([]byte(n))
				ids[n] += common.ElementID("-" + hex.EncodeToString(sum[:4]))
			}
		}
	}
	return ids
}

// License returns what names say, any of which may be chosen, as an SPDX expression; "" where one of them is none.
func License(names ...string) string {
	var all []string
	for _, n := range names {
		if n = strings.TrimSpace(n); strings.Contains(n, "Ref-") {
			return "" // it would need the licence's text
		}
		norm, bad := spdxexp.ValidateAndNormalizeLicensesWithOptions([]string{n}, spdxexp.ValidateLicensesOptions{})
		if len(bad) > 0 || len(norm) != 1 {
			return ""
		}
		if n = norm[0]; strings.Contains(n, " ") && len(names) > 1 && !strings.HasPrefix(n, "(") {
			n = "(" + n + ")"
		}
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return strings.Join(all, " OR ")
}
