package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestDivide(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, tc := range []struct {
		targets []string
		n       int
		took    map[string]time.Duration
		want    [][]string
	}{
		{nil, 3, nil, nil},
		{[]string{"a"}, 3, nil, [][]string{{"a"}}},
		{[]string{"a", "b", "c", "d", "e"}, 2, nil, [][]string{{"a", "c", "e"}, {"b", "d"}}},
		{[]string{"a", "b", "c", "d"}, 2, map[string]time.Duration{"a": ms(1), "b": ms(2), "c": ms(3), "d": ms(10)}, [][]string{{"d"}, {"a", "b", "c"}}},
		{[]string{"a", "b", "c", "d"}, 2, map[string]time.Duration{"a": ms(7), "b": ms(6), "c": ms(5), "d": ms(4)}, [][]string{{"a", "d"}, {"b", "c"}}},
		// d is taken for the median, 3: neither nothing nor the most.
		{[]string{"a", "b", "c", "d"}, 2, map[string]time.Duration{"a": ms(1), "b": ms(3), "c": ms(9)}, [][]string{{"c"}, {"a", "b", "d"}}},
		{[]string{"a", "b", "c", "d"}, 2, map[string]time.Duration{"a": ms(3), "b": ms(3), "c": ms(3)}, [][]string{{"a", "c"}, {"b", "d"}}},
	} {
		var got [][]string
		for i, s := range divide(tc.targets, tc.n, tc.took) {
			if s.Shard != i+1 {
				t.Errorf("part %d has number %d", i+1, s.Shard)
			}
			got = append(got, s.Targets)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("divide(%q, %d, %v) (-want +got):\n%s", tc.targets, tc.n, tc.took, diff)
		}
	}
}

// Each target is in one part, in order; no part is empty; and no part takes longer than the mean and the longest target do,
// which is what giving the longest first promises.
func TestDivideProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var targets, all []string
		took := map[string]time.Duration{}
		var sum, longest time.Duration
		for i := range rapid.IntRange(1, 40).Draw(t, "targets") {
			lab := fmt.Sprintf("//p%d", 100+i)
			targets = append(targets, lab)
			took[lab] = time.Duration(rapid.IntRange(1, 1000).Draw(t, "took"))
			sum, longest = sum+took[lab], max(longest, took[lab])
		}
		n := rapid.IntRange(1, 12).Draw(t, "n")
		shards := divide(targets, n, took)
		if len(shards) != min(n, len(targets)) {
			t.Fatalf("%d parts of %d targets, want %d", len(shards), len(targets), n)
		}
		for _, s := range shards {
			var load time.Duration
			for _, lab := range s.Targets {
				load += took[lab]
			}
			if len(s.Targets) == 0 || !slices.IsSorted(s.Targets) || load > sum/time.Duration(len(shards))+longest {
				t.Errorf("part %v takes %d of %d, the longest target %d", s, load, sum, longest)
			}
			all = append(all, s.Targets...)
		}
		slices.Sort(all)
		if diff := cmp.Diff(targets, all); diff != "" {
			t.Errorf("targets (-want +got):\n%s", diff)
		}
	})
}
