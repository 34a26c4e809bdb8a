package label

import (
	"testing"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct{ in, pkg, want string }{
		{"//extensions/Cite:image", "", "//extensions/Cite:image"},
		{"//extensions/Cite", "x", "//extensions/Cite:Cite"},
		{":image", "skins/Vector", "//skins/Vector:image"},
		{"src/a.txt", "skins/Vector", "//skins/Vector:src/a.txt"},
		{"//:wiki", "a", "//:wiki"},
		{"//", "", ""},
		{"//a//b", "", ""},
		{"//a/../b", "", ""},
		{"../b", "a", ""},
		{"//a:", "", ""},
		{":a:b", "", ""},
		{"//a/...", "", ""},
		{"//a:/b", "", ""},
		{"", "a", ""},
	} {
		got, err := Parse(tc.in, tc.pkg)
		if (err == nil) != (tc.want != "") || err == nil && got.String() != tc.want {
			t.Errorf("Parse(%q, %q) = %v, %v; want %q", tc.in, tc.pkg, got, err, tc.want)
		}
	}
}

func TestParsePattern(t *testing.T) {
	for _, tc := range []struct{ in, pkg, want string }{
		{"//...", "a", "//..."},
		{"...", "a/b", "//a/b/..."},
		{"...", "", "//..."},
		{"c/...", "a", "//a/c/..."},
		{"-//a/...", "", "-//a/..."},
		{":all", "a", "//a:all"},
		{"//b:all", "a", "//b:all"},
		{":x", "a", "//a:x"},
		{"-:x", "a", "-//a:x"},
		{"sub:x", "a", "//a/sub:x"},
		{"sub", "a", "//a/sub:sub"},
		{"//a/../...", "", ""},
		{"//a:b:c", "", ""},
	} {
		got, err := ParsePattern(tc.in, tc.pkg)
		if (err == nil) != (tc.want != "") || err == nil && got.String() != tc.want {
			t.Errorf("ParsePattern(%q, %q) = %v, %v; want %q", tc.in, tc.pkg, got, err, tc.want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, label string
		want           bool
	}{
		{"//...", "//:wiki", true},
		{"//a/...", "//a:a", true},
		{"//a/...", "//a/b:c", true},
		{"//a/...", "//ab:c", false},
		{"//a:all", "//a/b:c", false},
		{"//a:all", "//a:b", true},
		{"//a:b", "//a:c", false},
	} {
		p, err := ParsePattern(tc.pattern, "")
		if err != nil {
			t.Fatal(err)
		}
		l, err := Parse(tc.label, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Match(l); got != tc.want {
			t.Errorf("%s matches %s: %v, want %v", p, l, got, tc.want)
		}
	}
}

// What is printed reads back as itself, for every label and pattern that can be read at all.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`-?(//)?[a-c./:]{0,12}(\.\.\.|:all)?`).Draw(t, "s")
		pkg := rapid.SampledFrom([]string{"", "a", "a/b"}).Draw(t, "pkg")
		if l, err := Parse(s, pkg); err == nil {
			if again, err := Parse(l.String(), "elsewhere"); err != nil || again != l {
				t.Errorf("Parse(%q) = %v, again %v, %v", s, l, again, err)
			}
		}
		if p, err := ParsePattern(s, pkg); err == nil {
			if again, err := ParsePattern(p.String(), "elsewhere"); err != nil || again != p {
				t.Errorf("ParsePattern(%q) = %v, again %v, %v", s, p, again, err)
			}
		}
	})
}
