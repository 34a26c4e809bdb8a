package attest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A composerPackage is one package of composer.lock or of composer's installed.json.
type composerPackage struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	License oneOrMore `json:"license"`
	Source  struct{ Type, URL, Reference string }
	Dist    struct{ Type, URL, Shasum string }
}

// oneOrMore is a list of strings, or one of them.
type oneOrMore []string

func (s *oneOrMore) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*s = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(s))
}

// ComposerLock returns the packages that a composer.lock names, those for development where dev is set.
func ComposerLock(text []byte, dev bool) ([]Package, error) {
	var lock struct {
		Packages    []composerPackage `json:"packages"`
		PackagesDev []composerPackage `json:"packages-dev"`
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		return nil, err
	}
	if dev {
		lock.Packages = append(lock.Packages, lock.PackagesDev...)
	}
	return composerPackages(lock.Packages)
}

// ComposerInstalled returns the packages that installed.json of composer's vendor folder names, which are those in it.
func ComposerInstalled(text []byte) ([]Package, error) {
	var installed struct {
		Packages []composerPackage `json:"packages"`
	}
	// Composer 1 wrote the list alone.
	if err := json.Unmarshal(text, &installed.Packages); err != nil {
		if err := json.Unmarshal(text, &installed); err != nil {
			return nil, err
		}
	}
	return composerPackages(installed.Packages)
}

func composerPackages(all []composerPackage) ([]Package, error) {
	var packages []Package
	for _, c := range all {
		namespace, name, ok := strings.Cut(c.Name, "/")
		if !ok {
			return nil, fmt.Errorf("%q is no name of a package", c.Name)
		}
		p := Package{
			ID: "composer " + c.Name + " " + c.Version, Name: c.Name, Version: c.Version, Kind: Library, License: License(c.License...),
			URL: purl("composer", namespace, name, c.Version), Location: location(c.Dist.URL),
		}
		if c.Source.Type == "git" && c.Source.Reference != "" {
			if u := GitURL(c.Source.URL); u != "" {
				p.Location = u + "@" + c.Source.Reference
			}
			p.ID += " " + c.Source.Reference
		}
		if sha1Sum.MatchString(c.Dist.Shasum) {
			p.Checksums = []Checksum{{"SHA1", c.Dist.Shasum}}
		}
		packages = append(packages, p)
	}
	return packages, nil
}

var sha1Sum = regexp.MustCompile(`^[0-9a-f]{40}$`)

// An npmPackage is one package of package-lock.json.
type npmPackage struct {
	Name         string          `json:"name"` // where it differs from its folder's
	Version      string          `json:"version"`
	Resolved     string          `json:"resolved"`
	Integrity    string          `json:"integrity"`
	License      any             `json:"license"`
	Link         bool            `json:"link"`
	Dependencies json.RawMessage `json:"dependencies"` // packages, before version 2; ranges from then on
}

// NPMLock returns the packages that a package-lock.json of any version names. What lies in the tree itself is none.
func NPMLock(text []byte) ([]Package, error) {
	var lock struct {
		LockfileVersion int                   `json:"lockfileVersion"`
		Packages        map[string]npmPackage `json:"packages"`
		Dependencies    json.RawMessage       `json:"dependencies"`
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		return nil, err
	}
	byID := map[string]Package{}
	add := func(name string, n npmPackage) {
		if n.Version != "" && !n.Link && !strings.HasPrefix(n.Version, "file:") {
			p := n.pack(name)
			byID[p.ID] = p
		}
	}
	for place, n := range lock.Packages {
		if i := strings.LastIndex(place, "node_modules/"); i >= 0 {
			add(place[i+len("node_modules/"):], n)
		}
	}
	if lock.LockfileVersion < 2 {
		if err := walkDependencies(lock.Dependencies, add); err != nil {
			return nil, err
		}
	}
	return slices.SortedFunc(maps.Values(byID), func(a, b Package) int { return strings.Compare(a.ID, b.ID) }), nil
}

// walkDependencies calls add for the packages of a lock of version 1.
func walkDependencies(text json.RawMessage, add func(string, npmPackage)) error {
	if len(text) == 0 {
		return nil
	}
	var all map[string]npmPackage
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	for name, n := range all {
		add(name, n)
		if err := walkDependencies(n.Dependencies, add); err != nil {
			return err
		}
	}
	return nil
}

func (n npmPackage) pack(name string) Package {
	if n.Name != "" {
		name = n.Name
	}
	namespace, base := "", name
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		namespace, base = name[:i], name[i+1:]
	}
	p := Package{
		ID: "npm " + name + " " + n.Version, Name: name, Version: n.Version, Kind: Library, URL: purl("npm", namespace, base, n.Version),
		Location: location(n.Resolved), Checksums: integrity(n.Integrity),
	}
	if l, ok := n.License.(string); ok {
		p.License = License(l)
	}
	return p
}

// integrity reads checksums as npm has them: an algorithm and base64, several of them divided by spaces.
func integrity(s string) (sums []Checksum) {
	for _, one := range strings.Fields(s) {
		name, value, _ := strings.Cut(one, "-")
		value, _, _ = strings.Cut(value, "?")
		algorithm, ok := map[string]string{"sha1": "SHA1", "sha256": "SHA256", "sha384": "SHA384", "sha512": "SHA512"}[name]
		if sum, err := base64.StdEncoding.DecodeString(value); ok && err == nil {
			sums = append(sums, Checksum{algorithm, hex.EncodeToString(sum)})
		}
	}
	return sums
}

// About is what a component's own files say about it.
type About struct{ Name, Version, License string }

// Manifest reads an extension.json or skin.json. What it does not say, or not as a word, is "".
func Manifest(text []byte) About {
	var m struct {
		Name    any `json:"name"`
		Version any `json:"version"`
		License any `json:"license-name"`
	}
	if json.Unmarshal(text, &m) != nil {
		return About{}
	}
	return About{Name: word(m.Name), Version: word(m.Version), License: License(word(m.License))}
}

// ComposerJSON reads the licence of a composer.json.
func ComposerJSON(text []byte) About {
	var c struct {
		License oneOrMore `json:"license"`
	}
	if json.Unmarshal(text, &c) != nil {
		return About{}
	}
	return About{License: License(c.License...)}
}

var coreVersion = regexp.MustCompile(`define\(\s*'MW_VERSION',\s*'([^']+)'\s*\)`)

// Defines reads the version of MediaWiki from its includes/Defines.php.
func Defines(text []byte) About {
	if m := coreVersion.FindSubmatch(text); m != nil {
		return About{Version: string(m[1])}
	}
	return About{}
}

// CoreCPE is what lists of vulnerabilities call a version of MediaWiki.
func CoreCPE(version string) string {
	if !plainVersion.MatchString(version) {
		return ""
	}
	return "cpe:2.3:a:mediawiki:mediawiki:" + version + ":*:*:*:*:*:*:*"
}

var plainVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*$`)

func word(v any) string {
	s, _ := v.(string)
	return s
}

// IsInstalled tells whether a file is composer's list of what is in a vendor folder.
func IsInstalled(file string) bool {
	return path.Base(file) == "installed.json" && path.Base(path.Dir(file)) == "composer"
}
