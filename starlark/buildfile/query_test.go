package buildfile

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mentions(ms []Mention) []string {
	var all []string
	for _, m := range ms {
		all = append(all, m.Pos+" "+m.Text)
	}
	return all
}

func parsed(t *testing.T, src string) *File {
	t.Helper()
	f, err := Parse("p/BUILD", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestUnusedLoads(t *testing.T) {
	for _, tc := range []struct {
		name, src string
		want      []string
		fixed     string // "" is as it was
	}{
		{"used", "load(\":a.bzl\", \"a\", b = \"c\")\n\na(name = b)\n", nil, ""},
		{"one of two", "load(\":a.bzl\", \"a\", b = \"c\")\n\na()\n", []string{"p/BUILD:1:21 b"}, "load(\":a.bzl\", \"a\")\n\na()\n"},
		{"its other name", "load(\":a.bzl\", b = \"c\")\n\nc()\n", []string{"p/BUILD:1:16 b"}, "c()\n"},
		{"a parameter's name is no use", "load(\":a.bzl\", \"a\")\n\nr(a = 1)\n", []string{"p/BUILD:1:17 a"}, "r(a = 1)\n"},
		{"a parameter's value is", "load(\":a.bzl\", \"a\")\n\nr(a = a)\n", nil, ""},
		{"in a function", "load(\":a.bzl\", \"a\")\n\ndef f(x = a):\n    pass\n", nil, ""},
		{"in a comprehension", "load(\":a.bzl\", \"a\")\n\n[r(name = n) for n in a]\n", nil, ""},
		{"in a field", "load(\":a.bzl\", \"a\")\n\nr(name = a.b[0])\n", nil, ""},
		{"a string or a field is no use", "load(\":a.bzl\", \"a\")\n\nr(x = y.a + \"a\")\n", []string{"p/BUILD:1:17 a"}, "r(x = y.a + \"a\")\n"},
		{"two statements", "load(\":a.bzl\", \"a\")\nload(\":b.bzl\", \"b\")  # b\n\n# End.\n", []string{"p/BUILD:1:17 a", "p/BUILD:2:17 b"}, "# End.\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := parsed(t, tc.src)
			unused := f.UnusedLoads()
			if diff := cmp.Diff(tc.want, mentions(unused)); diff != "" {
				t.Errorf("UnusedLoads (-want +got):\n%s", diff)
			}
			for _, m := range unused {
				if !f.RemoveLoad(m) {
					t.Errorf("RemoveLoad(%v) found nothing", m)
				}
				if f.RemoveLoad(m) {
					t.Errorf("RemoveLoad(%v) found it twice", m)
				}
			}
			if tc.fixed == "" {
				if f.Changed() {
					t.Error("it is changed")
				}
				return
			}
			got, err := f.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.fixed, string(got)); diff != "" {
				t.Errorf("fixed (-want +got):\n%s", diff)
			}
			if again := parsed(t, string(got)).UnusedLoads(); len(again) > 0 {
				t.Errorf("unused again: %v", again)
			}
		})
	}
}

func TestGlobPatterns(t *testing.T) {
	f := parsed(t, `x = glob(["a"])
r(srcs = glob(["b", c] + (["d"]), exclude = ["e"]) + [glob(include = ["f"])])
glob(["g"], allow_empty = True)
glob(["h"], allow_empty = False)
glob([s + "/*" for s in ["i"]])
glob(exclude = ["j"])
other(["k"])
glob()
`)
	want := []string{"p/BUILD:1:11 a", "p/BUILD:2:16 b", "p/BUILD:2:28 d", "p/BUILD:2:71 f", "p/BUILD:4:7 h"}
	if diff := cmp.Diff(want, mentions(f.GlobPatterns())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestIgnored(t *testing.T) {
	f := parsed(t, `# lint: ignore one, two: why
# And more.
a(
    x = [  # lint: ignore three
        "y",  #lint:  ignore  four
        # lint: ignore five

        "z",
    ],  # lint: ignore six
)  # lint: ignore seven

# lint: ignore eight

b("# lint: ignore nine")  # lint: ignored one
load(":a.bzl", "c")  # lint: ignore ten
`)
	for _, tc := range []struct {
		check string
		line  string
		want  bool
	}{
		{"one", "3", true}, {"two", "3", true}, {"three", "3", false}, {"one", "4", false},
		{"three", "4", true}, {"six", "9", true}, {"six", "5", false}, {"seven", "10", true},
		{"four", "5", true}, {"five", "8", true}, {"five", "5", false},
		{"eight", "14", false}, {"nine", "14", false}, {"one", "14", false}, {"ten", "15", true}, {"why", "3", false},
	} {
		if got := f.Ignored(tc.check, "p/BUILD:"+tc.line+":5"); got != tc.want {
			t.Errorf("Ignored(%s, line %s) = %v", tc.check, tc.line, got)
		}
	}
}
