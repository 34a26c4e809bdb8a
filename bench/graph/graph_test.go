package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestGenerate looks at the trees of all tools: the same twice, and with the files that the runner expects.
func TestGenerate(t *testing.T) {
	m := newMonorepo(12, 7)
	for tool, more := range map[string]int{"mwbuild": 12 + 3, "ninja": 2, "turbo": 12 + 4} {
		t.Run(tool, func(t *testing.T) {
			var heads []string
			for i := range 2 {
				dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
				if err := m.generate(t.Context(), tool, dir); err != nil {
					t.Fatal(err)
				}
				head, err := git(t.Context(), dir, "rev-parse", "HEAD")
				if err != nil {
					t.Fatal(err)
				}
				heads = append(heads, string(head))
				files, err := git(t.Context(), dir, "ls-files")
				if err != nil {
					t.Fatal(err)
				}
				if got, want := bytes.Count(files, []byte("\n")), 12*10+more; got != want {
					t.Errorf("%d files, want %d", got, want)
				}
				if err := m.generate(t.Context(), tool, dir); err == nil {
					t.Error("a tree was written over another")
				}
			}
			if heads[0] != heads[1] {
				t.Error("the same graph made two different commits")
			}
		})
	}
}

// TestFloor loads a small tree and compares all its answers with the graph's.
func TestFloor(t *testing.T) {
	m := newMonorepo(60, 7)
	dir := filepath.Join(t.TempDir(), "tree")
	if err := m.generate(t.Context(), "mwbuild", dir); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if err := floor([]string{dir}, &out, &errs); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range m.deps {
		for _, name := range targetsOf {
			want = append(want, "//"+folderOf(i)+":"+name)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, strings.Fields(out.String())); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if got, want := errs.String(), "540 files globbed\n"; got != want {
		t.Errorf("it said %q, want %q", got, want)
	}
	errs.Reset()
	if err := floor([]string{"-walk", dir}, &out, &errs); err != nil || errs.String() != "663 files\n" {
		t.Errorf("-walk said %q, %v; want 663 files", errs.String(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, folderOf(3), "BUILD"), []byte("magic()"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := floor([]string{dir}, &out, &errs); err == nil || !strings.Contains(err.Error(), "undefined: magic") {
		t.Errorf("a BUILD file that is wrong gave error %v", err)
	}
}

// TestMatches compares the floor's globs with what mwbuild matches by.
func TestMatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		join := func(parts []string) string { return strings.Join(parts, "/") }
		pattern := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"**", "*", "a", "*b", "a*", "?"}), 1, 4), join).Draw(t, "pattern")
		name := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "ba", "aab"}), 1, 4), join).Draw(t, "name")
		if strings.HasSuffix(pattern, "/**") || strings.Contains(pattern, "**/**") {
			t.Skip("a/** matches a, too; no generated BUILD file has it")
		}
		if got, want := matches(pattern, name), doublestar.MatchUnvalidated(pattern, name); got != want {
			t.Errorf("matches(%q, %q) = %v, want %v", pattern, name, got, want)
		}
	})
}

// TestAffected compares what the runner expects with asking every package for its dependencies.
func TestAffected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMonorepo(rapid.IntRange(1, 150).Draw(t, "packages"), rapid.Uint64().Draw(t, "seed"))
		edited := rapid.IntRange(0, len(m.deps)-1).Draw(t, "edited")
		reaches := make([]bool, len(m.deps))
		var want []string
		for i, deps := range m.deps { // dependencies come first
			reaches[i] = i == edited
			for _, d := range deps {
				if d >= i {
					t.Fatalf("package %d depends on %d", i, d)
				}
				reaches[i] = reaches[i] || reaches[d]
			}
			if reaches[i] {
				want = append(want, "//"+folderOf(i)+":layer", "//"+folderOf(i)+":lib")
			}
		}
		want = append(want, "//"+folderOf(edited)+":src")
		slices.Sort(want)
		if diff := cmp.Diff(want, m.affected(edited)); diff != "" {
			t.Errorf("affected by package %d (-want +got):\n%s", edited, diff)
		}
	})
}

// TestReport tells medians and goals of measures that are given.
func TestReport(t *testing.T) {
	of := func(walls ...float64) (taken []measure) {
		for _, w := range walls {
			taken = append(taken, measure{wall: w, cpu: w / 2, rss: 100 * w})
		}
		return taken
	}
	r := &report{runs: 3, taken: map[int]map[string]map[string][]measure{
		2500:  {"mwbuild": {"load": of(3, 1, 2), "noop_one": of(0.2, 0.1, 0.05)}, "floor": {"load": of(1, 4)}, "turbo": {"affected_warm": of(1)}},
		25000: {"mwbuild": {"affected_warm": of(1.6), "load": of(11)}},
	}}
	want := []goal{
		{2500, "load / floor load", 1.3, 0.8, true},
		{2500, "noop_one (s)", 0.1, 0.1, true},
		{25000, "affected_warm (s)", 1.5, 1.6, false},
		{25000, "most memory (MB)", 1000, 1100, false},
	}
	if diff := cmp.Diff(want, r.goals()); diff != "" {
		t.Errorf("goals (-want +got):\n%s", diff)
	}
	var table, json bytes.Buffer
	if err := r.table(&table); err != nil {
		t.Fatal(err)
	}
	if err := r.json(&json); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"   2.000   1.000     200", "MISSED"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
	compact := strings.Join(strings.Fields(json.String()), "")
	for _, want := range []string{`"sizes":{"2500":{"floor":{"load":2.5},"mwbuild":{"load":2,"noop_one":0.1}`, `"cpu":{"2500":`, `"met":false`} {
		if !strings.Contains(compact, want) {
			t.Errorf("the JSON lacks %s:\n%s", want, json.String())
		}
	}
}
