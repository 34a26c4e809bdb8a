package php

// Plus is PHP's a + b in a new array: what a has, then what b has at other keys. Values are shared.
func Plus(a, b *Array) *Array {
	sum := a.Clone()
	plus(sum, b)
	return sum
}

// plus adds to a what b has at other keys.
func plus(a, b *Array) {
	for k, v := range b.All() {
		if a.find(k) < 0 {
			a.add(k, v)
		}
	}
}

// Merge is PHP's array_merge( a, b ), a new array: b's value at a string key replaces a's in its place, values at integer
// keys are put in line and numbered from 0. Values are shared.
func Merge(a, b *Array) *Array {
	sum := &Array{}
	for _, from := range []*Array{a, b} {
		for k, v := range from.All() {
			if k.IsInt {
				sum.Append(v)
			} else {
				sum.Set(k, v)
			}
		}
	}
	return sum
}

// MergeRecursive is PHP's array_merge_recursive( a, b ), a new array: as [Merge], but where both have a string key, both values
// are taken for arrays (a scalar for a list of it) and merged in turn: a's keep their keys, b's are put behind.
// a and b are unchanged; values are shared. Where PHP throws for want of an integer ([Array.Append]), the value is left out.
func MergeRecursive(a, b *Array) *Array {
	sum := &Array{}
	for k, v := range a.All() {
		if k.IsInt {
			sum.Append(v)
		} else {
			sum.Set(k, v)
		}
	}
	mergeInto(sum, b)
	return sum
}

// mergeInto merges b into a, which it changes; arrays within a it replaces.
func mergeInto(a, b *Array) {
	for k, v := range b.All() {
		if k.IsInt {
			a.Append(v)
			continue
		}
		i := a.find(k)
		if i < 0 {
			a.add(k, v)
			continue
		}
		into, ok := a.vals[i].(*Array)
		if ok {
			into = into.Clone()
		} else {
			into = List(a.vals[i])
		}
		if from, ok := v.(*Array); ok {
			mergeInto(into, from)
		} else {
			into.Append(v)
		}
		a.vals[i] = into
	}
}

// Slice1 is PHP's array_slice( a, 1 ), a new array: all but the first entry, integer keys numbered from 0.
func Slice1(a *Array) *Array {
	rest := &Array{}
	first := true
	for k, v := range a.All() {
		switch {
		case first:
			first = false
		case k.IsInt:
			rest.Append(v)
		default:
			rest.add(k, v)
		}
	}
	return rest
}

// UniqueValues is PHP's array_unique( a ), a new array: of values that are the same as strings ([ToString]; an array is
// "Array"), the first stays, at its key.
func UniqueValues(a *Array) *Array {
	unique := &Array{}
	seen := make(map[string]bool, a.Len())
	for k, v := range a.All() {
		s, ok := ToString(v)
		if !ok {
			s = "Array"
		}
		if !seen[s] {
			seen[s] = true
			unique.add(k, v)
		}
	}
	return unique
}
