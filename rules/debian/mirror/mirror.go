// Package mirror knows where Debian's archives are to be had, and fetches from there: the signed lists of a suite, and packages.
package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/rules/debian/archive"
)

// A Source is one suite of one archive.
type Source struct {
	URL      string // of the archive, without a slash at its end
	Suite    string // "bookworm-updates"
	SignedBy string // keyring of the machine, or ""
}

// kinds are the suites of a release that make it up, as endings of their names.
var kinds = []string{"", "-updates", "-security"}

// FromURLs returns the sources of a release at archives that were named. All of its suites but -security are wanted of each; the
// archive of -security is the one whose path ends in -security, or each where none does.
func FromURLs(suite string, urls []string) []Source {
	security := func(u string) bool { return strings.HasSuffix(strings.TrimRight(u, "/"), "-security") }
	apart := slices.ContainsFunc(urls, security)
	var all []Source
	for _, u := range urls {
		for _, kind := range kinds {
			if !apart || (kind == "-security") == security(u) {
				all = append(all, Source{URL: strings.TrimRight(u, "/"), Suite: suite + kind})
			}
		}
	}
	return all
}

// FromApt returns the sources of a release that apt's configuration in dir (/etc/apt) names. A release that is not configured
// is looked for where another one is.
func FromApt(dir, suite string) ([]Source, error) {
	all, err := aptSources(dir)
	if err != nil {
		return nil, err
	}
	for _, release := range []string{suite, otherRelease(all)} {
		var found []Source
		for _, s := range all {
			kind := strings.TrimPrefix(s.Suite, release)
			if release == "" || !strings.HasPrefix(s.Suite, release) || !slices.Contains(kinds, kind) {
				continue
			}
			s.Suite = suite + kind
			if release != suite {
				s.SignedBy = "" // of that release, perhaps
			}
			if !slices.Contains(found, s) {
				found = append(found, s)
			}
		}
		if slices.ContainsFunc(found, func(s Source) bool { return s.Suite == suite }) {
			return found, nil
		}
	}
	return nil, fmt.Errorf("apt's configuration in %s names no archive of Debian\n    name one with --mirror URL", dir)
}

// AptURLs returns the archives of Debian that apt's configuration in dir names.
func AptURLs(dir string) ([]string, error) {
	all, err := aptSources(dir)
	if err != nil {
		return nil, err
	}
	release := otherRelease(all)
	var urls []string
	for _, s := range all {
		if release != "" && strings.HasPrefix(s.Suite, release) && !slices.Contains(urls, s.URL) {
			urls = append(urls, s.URL)
		}
	}
	if len(urls) == 0 {
		return nil, fmt.Errorf("apt's configuration in %s names no archive of Debian\n    name some in the target's mirrors", dir)
	}
	return urls, nil
}

// otherRelease is a release that is configured with its updates or security, which tells Debian's archives from others.
func otherRelease(all []Source) string {
	for _, s := range all {
		for _, kind := range kinds[1:] {
			if release, ok := strings.CutSuffix(s.Suite, kind); ok && slices.ContainsFunc(all, func(o Source) bool { return o.Suite == release }) {
				return release
			}
		}
	}
	return ""
}

// aptSources reads sources.list(5) in both of its forms, as far as archives of binary packages with a component main.
func aptSources(dir string) ([]Source, error) {
	files := []string{filepath.Join(dir, "sources.list")}
	more, err := os.ReadDir(filepath.Join(dir, "sources.list.d"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range more {
		files = append(files, filepath.Join(dir, "sources.list.d", e.Name()))
	}
	var all []Source
	for _, name := range files {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		read := oneLine
		switch filepath.Ext(name) {
		case ".list":
		case ".sources":
			read = stanzas
		default:
			continue
		}
		found, err := read(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

func usable(url string) bool {
	return strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "https://") || strings.HasPrefix(url, "file:/")
}

// oneLine reads lines of the form "deb [option=value …] URL SUITE COMPONENT…".
func oneLine(text string) ([]Source, error) {
	var all []Source
	for _, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		s := Source{}
		if strings.HasPrefix(rest, "[") {
			options, after, _ := strings.Cut(rest[1:], "]")
			for _, o := range strings.Fields(options) {
				if file, ok := strings.CutPrefix(o, "signed-by="); ok {
					s.SignedBy = keyring(file)
				}
			}
			rest = after
		}
		f := strings.Fields(rest)
		if len(f) < 3 || !usable(f[0]) || !slices.Contains(f[2:], "main") {
			continue
		}
		s.URL, s.Suite = strings.TrimRight(f[0], "/"), f[1]
		all = append(all, s)
	}
	return all, nil
}

// stanzas reads the form of deb822.
func stanzas(text string) ([]Source, error) {
	var all []Source
	err := archive.ReadControl(strings.NewReader(text), func(s archive.Stanza) error {
		if !slices.Contains(strings.Fields(s.Get("Types")), "deb") || s.Get("Enabled") == "no" ||
			!slices.Contains(strings.Fields(s.Get("Components")), "main") {
			return nil
		}
		for _, url := range strings.Fields(s.Get("URIs")) {
			for _, suite := range strings.Fields(s.Get("Suites")) {
				if usable(url) {
					all = append(all, Source{strings.TrimRight(url, "/"), suite, keyring(s.Get("Signed-By"))})
				}
			}
		}
		return nil
	})
	return all, err
}

// keyring is the value of a signed-by option where it is a file.
func keyring(value string) string {
	value, _, _ = strings.Cut(cmp.Or(value, ""), ",")
	if filepath.IsAbs(value) {
		return value
	}
	return ""
}
