package attest

import (
	"net/url"
	"path"
	"regexp"
	"strings"

	packageurl "github.com/package-url/packageurl-go"
)

// scpLike is how git writes an address of ssh in short, USER@HOST:PATH. A host without a dot is a name of this machine's own.
var scpLike = regexp.MustCompile(`^(?:[^/@:]*@)?([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+):([^@:\\]+)$`)

// GitURL returns the address of a git remote in the form that SPDX and SLSA have, such as git+https://host/path. What may be a secret in it, or a person's
// name, is left out: user, password, query. It is "" for what names no other host, such as a folder.
func GitURL(remote string) string {
	if strings.Contains(remote, "::") {
		return "" // a program that knows what the rest means
	}
	if m := scpLike.FindStringSubmatch(remote); m != nil && !strings.Contains(remote, "://") {
		remote = "ssh://" + m[1] + "/" + strings.TrimLeft(m[2], "/")
	}
	u := plainURL(strings.TrimPrefix(remote, "git+"), "https", "http", "ssh", "git")
	if u == "" {
		return ""
	}
	return "git+" + u
}

// plainURL is a URL of one of the schemes without user, password, query and fragment, or "".
func plainURL(s string, schemes ...string) string {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return ""
	}
	for _, scheme := range schemes {
		if strings.EqualFold(u.Scheme, scheme) {
			return (&url.URL{Scheme: scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
		}
	}
	return ""
}

// location is where something may be had over the web, or "".
func location(s string) string { return plainURL(s, "https", "http") }

// in returns where the files are, as SPDX writes it, or "".
func (s *Source) in() string {
	if s == nil || s.URL == "" {
		return ""
	}
	at := s.URL + "@" + s.Commit
	if s.Path != "" {
		at += "#" + (&url.URL{Path: s.Path}).EscapedPath()
	}
	return at
}

// purl writes a package URL. Qualifiers come in pairs; those without a value are left out.
func purl(kind, namespace, name, version string, qualifiers ...string) string {
	var q packageurl.Qualifiers
	for i := 0; i+1 < len(qualifiers); i += 2 {
		if qualifiers[i+1] != "" {
			q = append(q, packageurl.Qualifier{Key: qualifiers[i], Value: qualifiers[i+1]})
		}
	}
	p := packageurl.NewPackageURL(kind, namespace, name, version, q, "")
	if p.Normalize() != nil {
		return ""
	}
	return p.ToString()
}

// ImageURL is the package URL of an image in a repository, which may be "" where nobody knows one: then it has the name alone.
func ImageURL(repository, name, digest, platform string) string {
	if repository != "" {
		name = path.Base(repository)
	}
	_, arch, _ := strings.Cut(platform, "/")
	return purl("oci", "", strings.ToLower(name), digest, "arch", arch, "repository_url", repository)
}

// DebURL is the package URL of a Debian package.
func DebURL(name, version, arch, suite string) string {
	return purl("deb", "debian", name, version, "arch", arch, "distro", suite)
}

// ComponentURL is the package URL of a component of MediaWiki, by its place below MediaWiki's root; core's is "".
func ComponentURL(place, version string, from *Source) string {
	namespace, name := "", "mediawiki"
	if place != "" {
		namespace, name = path.Join("mediawiki", path.Dir(place)), path.Base(place)
	}
	vcs := ""
	if from != nil && from.URL != "" {
		vcs = from.URL + "@" + from.Commit
	}
	return purl("generic", namespace, name, version, "vcs_url", vcs)
}
