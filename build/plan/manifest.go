package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Manifest is everything that can change the output of an action, as named fields. Its digest is the action's key,
// and it is kept beside the action's record, so that what explain tells is the difference of two manifests and cannot
// disagree with the decision.
//
// The encoding delimits names and values by their lengths, so that no two lists of fields encode alike:
//
//	<len(name)> <len(value)> <name>=<value>\n
//
// Fields stand in the order in which they were added, which follows sorted data only. Nothing that differs between two
// machines may enter: no clock, host name, absolute path, label or revision.
type Manifest struct{ fields []Field }

// A Field is one named input.
type Field struct{ Name, Value string }

// Add appends a field.
func (m *Manifest) Add(name, value string) { m.fields = append(m.fields, Field{name, value}) }

// list adds the values under one name, numbered, and so their order counts.
func (m *Manifest) list(name string, values []string) {
	for i, v := range values {
		m.Add(fmt.Sprintf("%s[%d]", name, i), v)
	}
}

// dict adds the values in order of their keys.
func (m *Manifest) dict(name string, values map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(values)) {
		m.Add(name+"["+k+"]", values[k])
	}
}

// set adds a value if there is one. An absent field is an input too: it differs from every present one.
func (m *Manifest) set(name, value string) {
	if value != "" {
		m.Add(name, value)
	}
}

// Fields returns the fields in their order.
func (m *Manifest) Fields() []Field { return m.fields }

// Encode returns the preimage of the key.
func (m *Manifest) Encode() []byte {
	size := 0
	for i := range m.fields {
		size += len(m.fields[i].Name) + len(m.fields[i].Value) + len("12 1234 =\n")
	}
	return m.append(make([]byte, 0, size))
}

// append appends the preimage of the key.
func (m *Manifest) append(b []byte) []byte {
	for i := range m.fields {
		f := &m.fields[i]
		b = strconv.AppendInt(b, int64(len(f.Name)), 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(len(f.Value)), 10)
		b = append(b, ' ')
		b = append(b, f.Name...)
		b = append(b, '=')
		b = append(b, f.Value...)
		b = append(b, '\n')
	}
	return b
}

// DecodeManifest reads what Encode wrote.
func DecodeManifest(b []byte) (*Manifest, error) {
	m := &Manifest{}
	for len(b) > 0 {
		var n [2]int
		for i := range n {
			digits, rest, ok := bytes.Cut(b, []byte{' '})
			v, err := strconv.Atoi(string(digits))
			if !ok || err != nil || v < 0 || strconv.Itoa(v) != string(digits) {
				return nil, fmt.Errorf("manifest: field %d: bad length %q", len(m.fields), digits)
			}
			n[i], b = v, rest
		}
		if n[0] > len(b) || n[1] > len(b) || len(b) < n[0]+n[1]+2 || b[n[0]] != '=' || b[n[0]+1+n[1]] != '\n' {
			return nil, fmt.Errorf("manifest: field %d: does not have the lengths that it tells", len(m.fields))
		}
		m.Add(string(b[:n[0]]), string(b[n[0]+1:n[0]+1+n[1]]))
		b = b[n[0]+n[1]+2:]
	}
	return m, nil
}

// A Key is the digest of a manifest.
type Key [sha256.Size]byte

// Key returns the digest of m.
func (m *Manifest) Key() Key {
	b := preimages.Get().(*[]byte)
	defer preimages.Put(b)
	*b = m.append((*b)[:0])
	return sha256.Sum256(*b)
}

var preimages = sync.Pool{New: func() any { return new([]byte) }}

// String is the key in hexadecimal.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// A Change is one field that two manifests do not share. Old or New is nil where the field is absent. Where all fields are
// shared and only their order differs, both are nil and Name is Reordered.
type Change struct {
	Name     string  `json:"name"`
	Old, New *string `json:",omitempty"`
}

// Reordered names the change of two manifests that have the same fields in another order.
const Reordered = "order"

// Derived tells whether the change is only that an action before made something else.
func (c Change) Derived() bool {
	if c.Old == nil || c.New == nil {
		return false
	}
	kind, _, _ := strings.Cut(c.Name, " ")
	kind, _, _ = strings.Cut(kind, "[")
	switch kind {
	case "from", "made", "mount", "layer", "base", "input", "image":
		return true
	}
	return false
}

// Diff returns what differs between two manifests, in order of name.
func Diff(old, new *Manifest) []Change {
	index := func(m *Manifest) map[string]*string {
		idx := make(map[string]*string, len(m.fields))
		for i := range m.fields {
			idx[m.fields[i].Name] = &m.fields[i].Value
		}
		return idx
	}
	was, is := index(old), index(new)
	var changes []Change
	for name, v := range was {
		if w := is[name]; w == nil || *w != *v {
			changes = append(changes, Change{name, v, w})
		}
	}
	for name, w := range is {
		if was[name] == nil {
			changes = append(changes, Change{name, nil, w})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Name, b.Name) })
	if len(changes) == 0 && !slices.Equal(old.fields, new.fields) {
		return []Change{{Name: Reordered}}
	}
	return changes
}
