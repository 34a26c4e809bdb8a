package spell

import "testing"

func TestNearest(t *testing.T) {
	words := []string{"build", "explain", "clean", "Cite", "mw_extension"}
	for in, want := range map[string]string{
		"biuld": "build", "buil": "build", "cite": "Cite", "Ceti": "", "Ciet": "Cite",
		"mw_extenson": "mw_extension", "zebra": "", "clena": "clean", "build": "",
	} {
		if got := Nearest(in, words); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", in, got, want)
		}
	}
}
