package php

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestStringKey(t *testing.T) {
	for s, isInt := range map[string]bool{
		"0": true, "1": true, "-1": true, "10": true, "9223372036854775807": true, "-9223372036854775808": true,
		"": false, "-": false, "-0": false, "00": false, "01": false, "-01": false, "+1": false, " 1": false,
		"1 ": false, "1.0": false,
		"9223372036854775808": false, "-9223372036854775809": false, "18446744073709551616": false, "1_0": false, "x": false,
	} {
		k := StringKey(s)
		if k.IsInt != isInt || k.String() != s {
			t.Errorf("StringKey(%q) = %#v", s, k)
		}
	}
}

func TestAppend(t *testing.T) {
	a := &Array{}
	a.Set(IntKey(-5), "a")
	a.Append("b")
	a.Set(IntKey(7), "c")
	a.Delete(IntKey(7))
	a.Append("d")
	a.Set(IntKey(math.MaxInt64-1), "e")
	if !a.Append("f") || a.Append("g") {
		t.Error("Append does not go up to the greatest integer, and no further")
	}
	if got, want := string(AppendSerialize(nil, a)),
		`a:5:{i:-5;s:1:"a";i:0;s:1:"b";i:8;s:1:"d";i:9223372036854775806;s:1:"e";i:9223372036854775807;s:1:"f";}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	a.Delete(IntKey(math.MaxInt64))
	if !a.Append("g") {
		t.Error("the greatest integer is free again")
	}
}

// A nil Array reads as an empty one.
func TestNilArray(t *testing.T) {
	var a *Array
	if _, ok := a.Get(StringKey("x")); ok || a.Len() != 0 || !a.IsList() || a.Clone().Len() != 0 || !a.Equal(&Array{}) {
		t.Error("nil is not empty")
	}
	for range a.All() {
		t.Error("nil has an entry")
	}
	for _, b := range []*Array{Plus(a, a), Merge(a, a), MergeRecursive(a, a), Slice1(a), UniqueValues(a)} {
		if b == nil || b.Len() != 0 {
			t.Errorf("got %v", b)
		}
	}
}

func TestEqual(t *testing.T) {
	deleted := List(1, 2, 3)
	deleted.Delete(IntKey(1))
	gap := &Array{}
	gap.Set(IntKey(0), 1)
	gap.Set(IntKey(2), 3)
	turned := &Array{}
	turned.Set(IntKey(2), 3)
	turned.Set(IntKey(0), 1)
	tests := []struct {
		a, b Value
		want bool
	}{
		{nil, nil, true}, {nil, false, false}, {int64(1), 1.0, false}, {int64(1), "1", false}, {"a", "a", true},
		{math.NaN(), math.NaN(), true}, {0.0, math.Copysign(0, -1), false}, {1.5, 1.5, true}, {1.5, nil, false},
		{List(), List(), true}, {List(), nil, false}, {nil, List(), false}, {"", List(), false},
		{List("a", List("b")), List("a", List("b")), true}, {List("a", List("b")), List("a", List("c")), false},
		{deleted, gap, true}, {gap, deleted, true}, {gap, turned, false}, {List(1), gap, false},
	}
	for _, tt := range tests {
		if got := Equal(tt.a, tt.b); got != tt.want {
			t.Errorf("Equal(%s, %s) = %v", AppendExport(nil, tt.a), AppendExport(nil, tt.b), got)
		}
	}
}

// An Array does what a plain list of entries does, whatever is done to it, and its clone is left alone.
func TestArrayAgainstList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, model := &Array{}, []entry{}
		var clone *Array
		var was []entry
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			k := IntKey(rapid.Int64Range(-2, 30).Draw(t, "int"))
			if rapid.Bool().Draw(t, "string") {
				k = StringKey(rapid.StringMatching("[a-f]{0,2}").Draw(t, "key"))
			}
			at := slices.IndexFunc(model, func(e entry) bool { return e.key == k })
			switch v := Value(rapid.Int64().Draw(t, "value")); rapid.IntRange(0, 7).Draw(t, "op") {
			case 0:
				a.Delete(k)
				if at >= 0 {
					model = slices.Delete(model, at, at+1)
				}
			case 1, 2:
				k = IntKey(a.next)
				a.Append(v)
				model = append(model, entry{k, v})
			case 3:
				clone, was = a.Clone(), slices.Clone(model)
			default:
				a.Set(k, v)
				if at >= 0 {
					model[at].val = v
				} else {
					model = append(model, entry{k, v})
				}
			}
			got, ok := a.Get(k)
			if at := slices.IndexFunc(model,
				func(e entry) bool { return e.key == k }); ok != (at >= 0) || ok && got != model[at].val {
				t.Fatalf("Get(%v) = %v, %v", k, got, ok)
			}
		}
		check := func(a *Array, want []entry) {
			got, list := []entry{}, true
			for k, v := range a.All() {
				list = list && k == IntKey(int64(len(got)))
				got = append(got, entry{k, v})
			}
			if diff := cmp.Diff(want, got,
				cmp.AllowUnexported(entry{})); diff != "" || a.Len() != len(want) || a.IsList() != list {
				t.Fatalf("%d entries, list %v (-want +got):\n%s", a.Len(), a.IsList(), diff)
			}
		}
		for k := range a.All() {
			if i := slices.IndexFunc(was, func(e entry) bool { return e.key == k }); clone != nil {
				if v, ok := clone.Get(k); ok != (i >= 0) || ok && v != was[i].val {
					t.Fatalf("Get(%v) of the clone = %v, %v", k, v, ok)
				}
			}
		}
		check(a, model)
		if clone != nil {
			check(clone, was)
		}
	})
}

// Every key of a parsed array is found, however many there are.
func TestFindParsed(t *testing.T) {
	for n := range 40 {
		var src strings.Builder
		src.WriteString("<?php $a = [")
		for i := range n {
			fmt.Fprintf(&src, "'k%d' => %d, ", i, i)
		}
		src.WriteString("];")
		f, err := Parse("a.php", []byte(src.String()), Options{})
		if err != nil {
			t.Fatal(err)
		}
		v, _ := f.Vars.Get(StringKey("a"))
		for i := range n {
			if got, ok := v.(*Array).Get(StringKey(fmt.Sprintf("k%d", i))); !ok || got != int64(i) {
				t.Errorf("%d keys: k%d is %v, %v", n, i, got, ok)
			}
		}
	}
}
