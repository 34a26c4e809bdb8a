package query

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var ignorePlaces = cmp.Options{
	cmpopts.IgnoreFields(Word{}, "Pos", "End"), cmpopts.IgnoreFields(Let{}, "Pos"),
	cmpopts.IgnoreFields(Set{}, "Pos", "End"), cmpopts.IgnoreFields(Call{}, "Pos", "End"),
}

func TestPrint(t *testing.T) {
	for query, want := range map[string]string{
		"a union b except c intersect d": "a + b - c ^ d",
		"a + (b - c)":                    "a + (b - c)",
		"(a + b) - c":                    "(a + b) - c",
		"((a))":                          "a",
		"set( a  'b c'\n)":               `set(a "b c")`,
		"let x=a in $x+b":                "let x = a in $x + b",
		"(let x = a in $x) + b":          "(let x = a in $x) + b",
		`"in" + 'say "x"' + "" + "-a"`:   `"in" + 'say "x"' + "" + "-a"`,
		"kind('^a',//b:c~[1]@2)":         `kind("^a", //b:c~[1]@2)`,
		"deps(a-b,3)":                    "deps(a-b, 3)",
	} {
		x, err := Parse(query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
		} else if got := x.String(); got != want {
			t.Errorf("%s is printed as %s, want %s", query, got, want)
		}
	}
}

// FuzzParse reads back what was printed.
func FuzzParse(f *testing.F) {
	for _, c := range expressions {
		f.Add(c.query)
	}
	f.Add("deps(")
	f.Add("let in = in in in")
	f.Add(`set("in" 'a"b' "")`)
	f.Add("a-b - -c")
	f.Fuzz(func(t *testing.T, query string) {
		x, err := Parse(query)
		if err != nil {
			_ = err.Error() // must not panic
			return
		}
		printed := x.String()
		y, err := Parse(printed)
		if err != nil {
			t.Fatalf("%q is printed as %q, which does not parse: %v", query, printed, err)
		}
		if diff := cmp.Diff(x, y, ignorePlaces); diff != "" {
			t.Fatalf("%q is printed as %q, which is another expression (-first +second):\n%s", query, printed, diff)
		}
		if again := y.String(); again != printed {
			t.Fatalf("%q is printed as %q and then as %q", query, printed, again)
		}
	})
}
