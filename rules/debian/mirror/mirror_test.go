package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/internal/aptrepo"
	"github.com/mwbuild/mwbuild/rules/debian/archive"
	"github.com/mwbuild/mwbuild/rules/debian/mirror"
)

func TestFromURLs(t *testing.T) {
	for _, c := range []struct {
		urls []string
		want []mirror.Source
	}{
		{[]string{"http://a/debian/"}, []mirror.Source{{"http://a/debian", "b", ""}, {"http://a/debian", "b-updates", ""}, {"http://a/debian", "b-security", ""}}},
		{[]string{"http://a/debian-security", "file:/m"}, []mirror.Source{{"http://a/debian-security", "b-security", ""}, {"file:/m", "b", ""}, {"file:/m", "b-updates", ""}}},
	} {
		if diff := cmp.Diff(c.want, mirror.FromURLs("b", c.urls)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.urls, diff)
		}
	}
}

const oneLine = `# said before
deb http://a.example/debian bookworm main contrib # and after
deb-src http://a.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian/ bookworm-updates main
deb [signed-by=ABCD] http://a.example/debian-security bookworm-security main
deb cdrom:[Debian]/ bookworm main
deb http://other.example/apt stable main
deb http://a.example/debian bookworm contrib
`

const stanzas = `Types: deb deb-src
URIs: http://a.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/k.gpg

Types: deb
URIs: http://a.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 x
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: http://other.example/apt
Suites: stable
Components: main
`

// apt's configuration in both of its forms, and what is read of it.
func TestFromApt(t *testing.T) {
	lay := func(files map[string]string) string {
		dir := t.TempDir()
		for name, text := range files {
			file := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	const a, security = "http://a.example/debian", "http://a.example/debian-security"
	for name, c := range map[string]struct {
		files map[string]string
		suite string
		want  []mirror.Source
	}{
		"one line": {map[string]string{"sources.list": oneLine, "sources.list.d/x.list.save": "deb nonsense"}, "bookworm",
			[]mirror.Source{{a, "bookworm", ""}, {a, "bookworm-updates", "/k.gpg"}, {security, "bookworm-security", ""}}},
		"stanzas": {map[string]string{"sources.list.d/debian.sources": stanzas}, "bookworm",
			[]mirror.Source{{a, "bookworm", "/usr/share/k.gpg"}, {a, "bookworm-updates", "/usr/share/k.gpg"}, {security, "bookworm-security", ""}}},
		"another release": {map[string]string{"sources.list.d/debian.sources": stanzas}, "trixie",
			[]mirror.Source{{a, "trixie", ""}, {a, "trixie-updates", ""}, {security, "trixie-security", ""}}},
		"twice": {map[string]string{"sources.list": "deb http://a.example/debian b main\ndeb http://a.example/debian b main\n"}, "b", []mirror.Source{{a, "b", ""}}},
	} {
		got, err := mirror.FromApt(lay(c.files), c.suite)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	urls, err := mirror.AptURLs(lay(map[string]string{"sources.list": oneLine}))
	if diff := cmp.Diff([]string{a, security}, urls); diff != "" || err != nil {
		t.Errorf("AptURLs: %v (-want +got):\n%s", err, diff)
	}
	for name, files := range map[string]map[string]string{
		"nothing": nil, "others": {"sources.list": "deb http://other.example/apt stable main\n"},
	} {
		dir := lay(files)
		if _, err := mirror.FromApt(dir, "bookworm"); err == nil || !strings.Contains(err.Error(), "names no archive of Debian") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := mirror.AptURLs(dir); err == nil || !strings.Contains(err.Error(), "names no archive of Debian") {
			t.Errorf("%s: AptURLs: %v", name, err)
		}
	}
	if _, err := mirror.FromApt(lay(map[string]string{"sources.list.d/x.sources": "nothing\n"}), "bookworm"); err == nil || !strings.Contains(err.Error(), "x.sources: line 1") {
		t.Errorf("a file that is wrong: %v", err)
	}
}

// A list is taken only if it is what somebody whose key is known signed, and that has not run out.
func TestSuite(t *testing.T) {
	key, err := aptrepo.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := aptrepo.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ring := func(k *aptrepo.Key) string {
		file := filepath.Join(t.TempDir(), "ring.gpg")
		if err := os.WriteFile(file, k.Public(), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	date := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	dir := t.TempDir()
	lay := func() {
		if err := key.Write(dir, aptrepo.Suite{Name: "s", Date: date, ValidUntil: date.Add(7 * 24 * time.Hour), Packages: []aptrepo.Package{{Name: "p", Version: "1"}, {Name: "q", Version: "2"}}}); err != nil {
			t.Fatal(err)
		}
	}
	lay()
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	keys, err := archive.ReadKeyring(ring(key))
	if err != nil {
		t.Fatal(err)
	}
	at := func(when time.Time) *mirror.Fetcher { return &mirror.Fetcher{Now: func() time.Time { return when }} }
	fetch := func(base string, f *mirror.Fetcher) (*mirror.List, error) {
		return f.Suite(t.Context(), mirror.Source{URL: base, Suite: "s"}, "amd64", keys)
	}
	in, packages := filepath.Join(dir, "dists/s/InRelease"), filepath.Join(dir, "dists/s/main/binary-amd64/Packages.gz")
	for _, base := range []string{server.URL, "file:" + dir, "file://" + dir} {
		l, err := fetch(base, at(date.Add(time.Hour)))
		if err != nil || len(l.Packages) != 2 || l.Packages[0].Name != "p" || len(l.SHA256) != 64 || !l.Release.Date.Equal(date) {
			t.Errorf("%s: %+v, %v", base, l, err)
		}
		for name, c := range map[string]struct {
			now    time.Time
			change func()
			says   []string
		}{
			"expired": {now: date.Add(8 * 24 * time.Hour), says: []string{"InRelease: ", "the mirror is not up to date"}},
			"tampered": {change: func() {
				data, _ := os.ReadFile(in)
				os.WriteFile(in, bytes.Replace(data, []byte("Suite: s"), []byte("Suite: t"), 1), 0o644)
			}, says: []string{"InRelease: ", "somebody changed it"}},
			"not signed":  {change: func() { os.WriteFile(in, []byte("Suite: s\nCodename: s\n"), 0o644) }, says: []string{"InRelease: "}},
			"another key": {change: func() { other.Write(dir, aptrepo.Suite{Name: "s", Date: date}) }, says: []string{"--keyring names other keys"}},
			"another suite": {change: func() {
				key.Write(dir, aptrepo.Suite{Name: "t", Date: date})
				data, _ := os.ReadFile(filepath.Join(dir, "dists/t/InRelease"))
				os.WriteFile(in, data, 0o644)
			}, says: []string{"it is of t, not of s"}},
			"another list": {change: func() {
				data, _ := os.ReadFile(packages)
				data[len(data)-1] ^= 1
				os.WriteFile(packages, data, 0o644)
			}, says: []string{"Packages.gz: it is not what the release names", "try again"}},
			"a longer list": {change: func() {
				data, _ := os.ReadFile(packages)
				os.WriteFile(packages, append(data, data...), 0o644)
			}, says: []string{"is larger than it should be"}},
			"no list": {change: func() { os.Remove(packages) }, says: []string{"not found"}},
		} {
			lay()
			if c.now.IsZero() {
				c.now = date.Add(time.Hour)
			}
			if c.change != nil {
				c.change()
			}
			_, err := fetch(base, at(c.now))
			for _, s := range c.says {
				if err == nil || !strings.Contains(err.Error(), s) {
					t.Errorf("%s: %s: %v, want an error that says %s", base, name, err, s)
				}
			}
		}
		lay()
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a b+c%3a.deb"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "broken") {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	f := &mirror.Fetcher{}
	for _, base := range []string{server.URL, "file:" + dir} {
		r, err := f.Open(t.Context(), base, "a b+c%3a.deb")
		if err != nil {
			t.Errorf("%s: %v", base, err)
			continue
		}
		data, err := io.ReadAll(r)
		if r.Close(); string(data) != "x" || err != nil {
			t.Errorf("%s: %q, %v", base, data, err)
		}
		if _, err := f.Open(t.Context(), base, "none"); !errors.Is(err, mirror.ErrNotFound) {
			t.Errorf("%s: a file that is not there: %v", base, err)
		}
	}
	if _, err := f.Open(t.Context(), server.URL, "broken"); err == nil || errors.Is(err, mirror.ErrNotFound) || !strings.Contains(err.Error(), "502") {
		t.Errorf("a server that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Open(ctx, server.URL, "none"); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
