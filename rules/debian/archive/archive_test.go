package archive_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/internal/aptrepo"
	"github.com/mwbuild/mwbuild/rules/debian/archive"
)

func TestReadControl(t *testing.T) {
	var got []archive.Stanza
	err := archive.ReadControl(strings.NewReader("# said before\nA: 1\nLong:\n first\n  second\n .\n\n\nB:2\n# said between\nC: x: y\n"), func(s archive.Stanza) error {
		got = append(got, s)
		return nil
	})
	want := []archive.Stanza{{{"A", "1"}, {"Long", "\nfirst\n second\n."}}, {{"B", "2"}, {"C", "x: y"}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for text, says := range map[string]string{" more\n": "line 1", "A: 1\nnothing\n": "line 2", "A: 1\n: v\n": "line 2", "A B: 1\n": "line 1"} {
		err := archive.ReadControl(strings.NewReader(text), func(archive.Stanza) error { return nil })
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want an error that says %s", text, err, says)
		}
	}
}

func FuzzReadControl(f *testing.F) {
	for _, s := range []string{"", "A: 1\n\nB: 2\n", "A:\n x\n y\n", "#\n\n \n", "A: 1\n\tx"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		archive.ReadControl(bytes.NewReader(data), func(s archive.Stanza) error {
			if len(s) == 0 {
				t.Error("an empty stanza")
			}
			_, _ = archive.PackageOf(s, "amd64")
			return nil
		})
	})
}

// The order is that of deb-version(7), with what dpkg --compare-versions says of each.
func TestCompareVersions(t *testing.T) {
	for _, order := range []string{
		"1.0~~ 1.0~~a 1.0~ 1.0~rc1-1 1.0 1.0-0.1 1.0-1 1.0-1+b1 1.0-1+deb12u1 1.0-1.1 1.0-2 1.0-10 1.0a 1.0+a 1.0.1 1.1 2 10 1:0.1 1:1 2:0",
		"a b aa z A0", // letters by their codes
	} {
		all := strings.Fields(order)
		if order[0] == 'a' {
			slices.SortFunc(all, archive.CompareVersions)
		}
		for i, a := range all {
			for j, b := range all {
				want := 0
				if i < j {
					want = -1
				} else if i > j {
					want = 1
				}
				if got := archive.CompareVersions(a, b); got != want {
					t.Errorf("%s against %s: %d, want %d", a, b, got, want)
				}
			}
		}
	}
	for _, same := range [][2]string{{"1.0", "0:1.0"}, {"1.0", "1.00"}, {"1.0-0", "1.0"}, {"1.0-", "1.0"}, {"01", "1"}} {
		if archive.CompareVersions(same[0], same[1]) != 0 {
			t.Errorf("%s and %s differ", same[0], same[1])
		}
	}
}

func TestVersionsAreOrdered(t *testing.T) {
	version := rapid.StringMatching(`([0-9]:)?[0-9][0-9a-bA-B.+~]{0,6}(-[0-9a-b.+~]{1,4})?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := version.Draw(t, "a"), version.Draw(t, "b"), version.Draw(t, "c")
		ab, ba := archive.CompareVersions(a, b), archive.CompareVersions(b, a)
		if ab != -ba {
			t.Errorf("%s, %s: %d there and %d back", a, b, ab, ba)
		}
		if ab <= 0 && archive.CompareVersions(b, c) <= 0 && archive.CompareVersions(a, c) > 0 {
			t.Errorf("%s <= %s <= %s, and not the first <= the last", a, b, c)
		}
	})
}

func TestParseRelations(t *testing.T) {
	for field, want := range map[string]string{
		"":                          "",
		"a":                         "a",
		"a, b | c (>= 1.0) ,d":      "a; b|c (>= 1.0); d",
		"a (<< 2), b (<1), c (> 1)": "a (<< 2); b (<= 1); c (>= 1)",
		"a:any, b:amd64, c:i386":    "a; b",
		"a [amd64], b [i386], c [!i386], d [!amd64 !i386]": "a; c",
		"a\n (= 1.0-1)":              "a (= 1.0-1)",
		"a <!nocheck>, b | c [i386]": "a; b",
	} {
		groups, err := archive.ParseRelations(field, "amd64")
		var got []string
		for _, g := range groups {
			var all []string
			for _, r := range g {
				all = append(all, r.String())
			}
			got = append(got, strings.Join(all, "|"))
		}
		if s := strings.Join(got, "; "); s != want || err != nil {
			t.Errorf("%q is %q, %v; want %q", field, s, err, want)
		}
	}
	for _, field := range []string{"a (1.0)", "a (>= )", "a (>= 1", "a b", "(>= 1)", "a [amd64", "a (~ 1)"} {
		if g, err := archive.ParseRelations(field, "amd64"); err == nil {
			t.Errorf("%q is %v, want an error", field, g)
		}
	}
}

var day = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestParseRelease(t *testing.T) {
	dir := t.TempDir()
	key, err := aptrepo.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := aptrepo.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Write(dir, aptrepo.Suite{Name: "stable", Date: day, ValidUntil: day.Add(7 * 24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	ring, otherRing := filepath.Join(dir, "key"), filepath.Join(dir, "other")
	for file, k := range map[string]*aptrepo.Key{ring: key, otherRing: other} {
		if err := os.WriteFile(file, k.Public(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	signed, err := os.ReadFile(filepath.Join(dir, "dists/stable/InRelease"))
	if err != nil {
		t.Fatal(err)
	}
	parse := func(text []byte, now time.Time, rings ...string) (*archive.Release, error) {
		t.Helper()
		keys, err := archive.ReadKeyring(rings...)
		if err != nil {
			t.Fatal(err)
		}
		return archive.ParseRelease(text, keys, now)
	}
	r, err := parse(signed, day.Add(time.Hour), otherRing, ring)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Date.Equal(day) || r.Codename != "stable" || len(r.Files) != 1 {
		t.Errorf("read %+v", r)
	}
	if _, err := parse(signed, day.Add(8*24*time.Hour), ring); !errors.Is(err, archive.ErrExpired) {
		t.Errorf("after its end: %v", err)
	}
	if _, err := parse(signed, day, otherRing); err == nil {
		t.Error("another key is good enough")
	}
	for name, text := range map[string][]byte{
		"a changed digest":   bytes.Replace(signed, []byte("Packages.gz"), []byte("Packages.xz"), 1),
		"no signature":       []byte("Suite: stable\n"),
		"something after it": append(slices.Clone(signed), "Suite: other\n"...),
		"something before":   bytes.Replace(signed, []byte("\n\nSuite"), []byte("\n\nOrigin: me\nSuite"), 1),
		"cut":                signed[:len(signed)/2],
	} {
		if r, err := parse(text, day, ring); err == nil {
			t.Errorf("%s is accepted: %+v", name, r)
		}
	}
	// What stands before the signed part is not read.
	r, err = parse(append([]byte("Suite: other\nDate: never\n\n"), signed...), day, ring)
	if err != nil || r.Suite != "stable" {
		t.Errorf("with a text before it: %+v, %v", r, err)
	}
}
