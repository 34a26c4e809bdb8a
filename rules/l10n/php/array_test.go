package php

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// literal is the value of a PHP expression.
func literal(t *testing.T, expr string) *Array {
	t.Helper()
	f, err := Parse("literal", []byte("<?php $v = "+expr+";"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, _ := f.Vars.Get(StringKey("v"))
	return v.(*Array)
}

func TestOperations(t *testing.T) {
	first := func(f func(a *Array) *Array) func(a, b *Array) *Array {
		return func(a, _ *Array) *Array { return f(a) }
	}
	tests := []struct {
		name       string
		op         func(a, b *Array) *Array
		a, b, want string
	}{
		{"plus", Plus, "['x' => 1, 5 => 2]", "[5 => 3, 'y' => 4, 0 => 5]", "['x' => 1, 5 => 2, 'y' => 4, 0 => 5]"},
		{"plus of lists", Plus, "['a', 'b']", "['c', 'd', 'e']", "['a', 'b', 'e']"},
		{"plus does not descend", Plus, "['x' => []]", "['x' => [1]]", "['x' => []]"},
		{"merge", Merge, "['x' => 1, 5 => 2, 'y' => 3]", "[5 => 4, 'x' => 5, 'z' => 6]",
			"['x' => 5, 0 => 2, 'y' => 3, 1 => 4, 'z' => 6]"},
		{"merge does not descend", Merge, "['x' => [1]]", "['x' => [2]]", "['x' => [2]]"},
		{"recursive", MergeRecursive, "['x' => [1], 'y' => 'a', 7 => 'i']", "['x' => [2], 'y' => 'b', 7 => ['j'], 'z' => 3]",
			"['x' => [1, 2], 'y' => ['a', 'b'], 0 => 'i', 1 => ['j'], 'z' => 3]"},
		{"recursive, scalars and arrays", MergeRecursive, "['x' => 'a', 'y' => ['k' => 'b'], 'n' => null]",
			"['x' => ['k' => 'c', 'd'], 'y' => 'e', 'n' => null]",
			"['x' => ['a', 'k' => 'c', 'd'], 'y' => ['k' => 'b', 'e'], 'n' => [null, null]]"},
		{"recursive keeps inner keys of the first", MergeRecursive, "['x' => [7 => 'a'], 'y' => [3 => 'b']]",
			"['x' => [7 => 'c']]", "['x' => [7 => 'a', 8 => 'c'], 'y' => [3 => 'b']]"},
		{"recursive, negative keys", MergeRecursive, "['x' => [-3 => 'a']]", "['x' => 'b']", "['x' => [-3 => 'a', -2 => 'b']]"},
		{"recursive, same deeper", MergeRecursive, "['x' => ['y' => ['a']]]", "['x' => ['y' => ['a']]]",
			"['x' => ['y' => ['a', 'a']]]"},
		{"slice", first(Slice1), "['x' => 1, 5 => 2, 'y' => 3, 9 => 4]", "[]", "[0 => 2, 'y' => 3, 1 => 4]"},
		{"slice of a list", first(Slice1), "['0', 'a', 'b']", "[]", "['a', 'b']"},
		{"slice of nothing", first(Slice1), "[]", "[]", "[]"},
		{"unique", first(UniqueValues), "['a', 'b', 'x' => 'a', 'A', 'b', 'c']", "[]", "['a', 'b', 2 => 'A', 4 => 'c']"},
		{"unique as strings", first(UniqueValues), "[1, '1', true, '01', 1.0, null, '', false, 0, 1.5, '1.5']", "[]",
			"[0 => 1, 3 => '01', 5 => null, 8 => 0, 9 => 1.5]"},
	}
	for _, tt := range tests {
		a, b := literal(t, tt.a), literal(t, tt.b)
		if diff := cmp.Diff(string(AppendExport(nil, literal(t, tt.want))), string(AppendExport(nil, tt.op(a,
			b)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if !a.Equal(literal(t, tt.a)) || !b.Equal(literal(t, tt.b)) {
			t.Errorf("%s changes its arguments", tt.name)
		}
	}
}
