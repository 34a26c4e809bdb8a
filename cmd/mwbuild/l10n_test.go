package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/mwbuild/mwbuild/rules/l10n/inspect"
)

// TestReadmeL10n wants every command, flag and check of mwbuild l10n in README.md.
func TestReadmeL10n(t *testing.T) {
	text := readDoc(t, "README.md")
	want := func(s string) {
		t.Helper()
		if !strings.Contains(text, s) {
			t.Errorf("README.md lacks %s", s)
		}
	}
	for _, c := range (&app{}).l10nCommand().Commands() {
		want("| `mwbuild l10n " + c.Name())
		c.Flags().VisitAll(func(f *pflag.Flag) {
			row := ""
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "| `--"+f.Name) {
					row = line
				}
			}
			if !strings.Contains(row, "l10n") {
				t.Errorf("README.md does not tell of --%s of mwbuild l10n %s", f.Name, c.Name())
			}
		})
	}
	for _, c := range inspect.Checks() {
		want(fmt.Sprintf("| `%s` | %s | %s |", c.Name, map[bool]string{true: "on", false: "off"}[c.Default], c.Doc))
	}
}
