package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// A report is all that was measured.
type report struct {
	runs  int
	taken map[int]map[string]map[string][]measure // by number of packages, tool and step
}

var (
	sides   = []string{"mwbuild", "ninja", "turbo", "floor"}
	columns = []struct {
		name string
		of   func(measure) float64
	}{
		{"wall s", func(m measure) float64 { return m.wall }},
		{"CPU s", func(m measure) float64 { return m.cpu }},
		{"MB", func(m measure) float64 { return m.rss }},
	}
)

// median is the middle one of what was taken, or the mean of the two in the middle; ok is false where nothing was.
func median(taken []measure, of func(measure) float64) (v float64, ok bool) {
	all := make([]float64, len(taken))
	for i, m := range taken {
		all[i] = of(m)
	}
	slices.Sort(all)
	n := len(all)
	if n == 0 {
		return 0, false
	}
	return (all[(n-1)/2] + all[n/2]) / 2, true
}

// A goal is something that the project wants to be, and what is.
type goal struct {
	Packages int     `json:"packages"`
	What     string  `json:"what"`
	Most     float64 `json:"most"`
	Is       float64 `json:"is"`
	Met      bool    `json:"met"`
}

// goals are what can be told from the measures that there are: below 100,000 targets those for 10,000.
func (r *report) goals() []goal {
	var goals []goal
	for _, n := range slices.Sorted(maps.Keys(r.taken)) {
		wall := func(tool, step string) (float64, bool) { return median(r.taken[n][tool][step], columns[0].of) }
		add := func(what string, most, is float64) { goals = append(goals, goal{n, what, most, is, is <= most}) }
		absolute := func(step string, most float64) {
			if v, ok := wall("mwbuild", step); ok {
				add(step+" (s)", most, v)
			}
		}
		relative := func(step, peer, theirs string, most float64) {
			ours, ok := wall("mwbuild", step)
			if v, ok2 := wall(peer, theirs); ok && ok2 {
				add(step+" / "+peer+" "+theirs, most, ours/v)
			}
		}
		relative("load", "floor", "load", 1.3)
		// What keeps a cache of files by their times, and asks git what is a source, does the other two as well.
		if ours, ok := wall("mwbuild", "load"); ok {
			sum := 0.0
			for _, step := range []string{"load", "walk", "ls_files"} {
				v, is := wall("floor", step)
				sum, ok = sum+v, ok && is
			}
			if ok {
				add("load / floor load + walk + ls_files", 1.3, ours/sum)
			}
		}
		if 4*n < 100_000 {
			relative("affected_warm", "turbo", "affected_warm", 0.5)
			relative("affected_cold", "turbo", "affected_cold", 1)
			relative("noop", "ninja", "noop", 1.5)
			absolute("noop_one", 0.1)
			continue
		}
		absolute("affected_warm", 1.5)
		most, ok := 0.0, false
		for _, taken := range r.taken[n]["mwbuild"] {
			if v, is := median(taken, columns[2].of); is {
				most, ok = max(most, v), true
			}
		}
		if ok {
			add("most memory (MB)", 1000, most)
		}
	}
	return goals
}

// table writes the report for people.
func (r *report) table(w io.Writer) error {
	for _, n := range slices.Sorted(maps.Keys(r.taken)) {
		fmt.Fprintf(w, "%d packages, %d targets, %d files; medians of %d\n%-16s", n, 4*n, 10*n, r.runs, "")
		for _, side := range sides {
			fmt.Fprintf(w, "  %24s", side)
		}
		fmt.Fprintf(w, "\n%-16s", "")
		for range sides {
			fmt.Fprint(w, "  ")
			for _, c := range columns {
				fmt.Fprintf(w, "%8s", c.name)
			}
		}
		fmt.Fprintln(w)
		for _, step := range order {
			fmt.Fprintf(w, "%-16s", step)
			for _, side := range sides {
				fmt.Fprint(w, "  ")
				for i, c := range columns {
					switch v, ok := median(r.taken[n][side][step], c.of); {
					case !ok:
						fmt.Fprintf(w, "%8s", "")
					case i == 2:
						fmt.Fprintf(w, "%8.0f", v)
					default:
						fmt.Fprintf(w, "%8.3f", v)
					}
				}
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w)
	}
	for _, g := range r.goals() {
		verdict := "met"
		if !g.Met {
			verdict = "MISSED"
		}
		if _, err := fmt.Fprintf(w, "%6d packages  %-38s %8.2f  at most %6.1f  %s\n", g.Packages, g.What, g.Is, g.Most, verdict); err != nil {
			return err
		}
	}
	return nil
}

// json writes the report for programs: seconds of wall, then in the same shape seconds of CPU and MB at the peak. What was not measured is left out.
func (r *report) json(w io.Writer) error {
	type shape = map[string]map[string]map[string]float64
	out := struct {
		Runs  int    `json:"runs"`
		Sizes shape  `json:"sizes"`
		CPU   shape  `json:"cpu"`
		RSS   shape  `json:"rss_mb"`
		Goals []goal `json:"goals"`
	}{r.runs, shape{}, shape{}, shape{}, r.goals()}
	for n, tools := range r.taken {
		for i, to := range []shape{out.Sizes, out.CPU, out.RSS} {
			bySide := map[string]map[string]float64{}
			to[strconv.Itoa(n)] = bySide
			for side, steps := range tools {
				bySide[side] = map[string]float64{}
				for step, taken := range steps {
					bySide[side][step], _ = median(taken, columns[i].of)
				}
			}
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
