package lint

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Every check has a section in docs/lint.md, in order, and no section is about another; the page says which checks --fix repairs.
func TestPages(t *testing.T) {
	page, err := os.ReadFile("../../docs/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(page), "\n## ")[1:]
	var names, want []string
	for _, c := range Checks() {
		want = append(want, c.Name)
	}
	for _, s := range sections {
		name, text, _ := strings.Cut(s, "\n")
		names = append(names, name)
		for _, c := range Checks() {
			if c.Name == name && strings.HasPrefix(text, "\n`--fix` repairs this.") != c.Fixable {
				t.Errorf("docs/lint.md, %s: does it say that --fix repairs it? want %v", name, c.Fixable)
			}
		}
		if len(text) < 100 {
			t.Errorf("docs/lint.md, %s: says next to nothing", name)
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("docs/lint.md has sections %q, want %q", names, want)
	}
	if !slices.IsSorted(want) {
		t.Errorf("checks %q are not in order", want)
	}
}
