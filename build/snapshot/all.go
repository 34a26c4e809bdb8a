package snapshot

import (
	"encoding/binary"
	"encoding/json"

	"github.com/mwbuild/mwbuild/graph/action"
)

// Kinds of actions in Snapshot.all, which has a table of strings, and then the actions, dependencies first. Numbers are uvarints; a string is its index in
// the table, and another action its index among the actions.
const (
	kindApart = iota // held apart, at an index in the head
	kindNative
	kindLayer
	kindOther // an image or a step, as JSON
)

// other is an image or a step. What they stand on is in Nodes, in the order of their fields; where there is none, -1.
type other struct {
	Image *action.Image `json:",omitempty"`
	Run   *action.Run   `json:",omitempty"`
	Nodes []int
}

// encode returns all actions of the plan.
func (t *taker) encode() []byte {
	w := writer{strings: map[string]int{}}
	index := map[*action.Node]int{}
	at := func(n *action.Node) int {
		if n == nil {
			return -1
		}
		return index[n]
	}
	w.number(len(t.plan.Steps))
	for i, st := range t.plan.Steps {
		n := st.Node
		index[n] = i
		if j, ok := t.index[n]; ok && t.whole[n] {
			w.number(kindApart)
			w.number(j)
			continue
		}
		head := func(kind int) {
			w.number(kind)
			w.text(n.Label)
			w.text(n.Name)
			w.text(n.Pos)
			j, ok := t.index[n]
			if !ok {
				j = -1
			}
			w.number(j + 1)
		}
		switch do := n.Do.(type) {
		case *action.Native:
			head(kindNative)
			w.native(do, at)
		case *action.Layer:
			head(kindLayer)
			w.layer(do, at)
		case *action.Image:
			head(kindOther)
			im := *do
			o := other{Image: &im, Nodes: []int{at(do.Base)}}
			for _, l := range do.Layers {
				o.Nodes = append(o.Nodes, at(l))
			}
			im.Base, im.Layers = nil, nil
			w.json(o)
		case *action.Run:
			head(kindOther)
			run := *do
			o := other{Run: &run, Nodes: []int{at(do.Root)}}
			run.Root, run.Mounts = nil, append([]action.Mount{}, do.Mounts...)
			for i, m := range do.Mounts {
				o.Nodes = append(o.Nodes, at(m.From))
				run.Mounts[i].From = nil
			}
			w.json(o)
		}
	}
	table := binary.AppendUvarint(nil, uint64(len(w.table)))
	for _, s := range w.table {
		table = binary.AppendUvarint(table, uint64(len(s)))
		table = append(table, s...)
	}
	return append(table, w.b...)
}

// A writer appends to b. Its strings go to a table.
type writer struct {
	b       []byte
	strings map[string]int
	table   []string
}

func (w *writer) number(n int) { w.b = binary.AppendUvarint(w.b, uint64(n)) }

func (w *writer) text(s string) {
	i, ok := w.strings[s]
	if !ok {
		i = len(w.table)
		w.strings[s] = i
		w.table = append(w.table, s)
	}
	w.number(i)
}

func (w *writer) json(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // actions are plain data
	}
	w.text(string(b))
}

func (w *writer) flag(b bool) {
	if b {
		w.number(1)
	} else {
		w.number(0)
	}
}

func (w *writer) native(do *action.Native, at func(*action.Node) int) {
	w.text(do.Kind)
	w.number(len(do.Params))
	for k, v := range do.Params {
		w.text(k)
		w.text(v)
	}
	w.number(len(do.Files))
	for _, f := range do.Files {
		w.text(f.Role)
		w.text(f.Path)
	}
	w.number(len(do.Inputs))
	for _, in := range do.Inputs {
		w.text(in.Role)
		w.number(at(in.From))
		w.text(in.Path)
	}
	w.json(do.Downloads)
	w.flag(do.Layer)
}

func (w *writer) layer(do *action.Layer, at func(*action.Node) int) {
	w.number(len(do.Merges))
	for _, n := range do.Merges {
		w.number(at(n))
	}
	w.json(do.Shared)
	w.flag(do.KeepFolders)
	w.json(do.Owner)
	w.json(do.Base)
	w.number(len(do.Entries))
	for _, e := range do.Entries {
		w.text(e.Dest)
		w.text(e.File)
		w.number(at(e.From) + 1)
		w.text(e.Path)
		w.flag(e.Text != nil)
		if e.Text != nil {
			w.text(*e.Text)
		}
		w.flag(e.Exec)
		w.flag(e.Dir)
		w.json(e.User)
	}
}

// recallAll makes all actions.
func (s *Snapshot) recallAll(r *Recall) bool {
	rd := reader{b: s.all}
	rd.table = make([]string, rd.count())
	for i := range rd.table {
		rd.table[i] = string(rd.take(rd.number()))
	}
	var made []*action.Node
	at := func(i int) *action.Node {
		if i < 0 || i >= len(made) {
			rd.bad = rd.bad || i != -1
			return nil
		}
		return made[i]
	}
	r.nodes = make([]*action.Node, len(s.head.Nodes))
	whole := make([]bool, len(s.head.Nodes))
	for i := range whole {
		whole[i] = true
	}
	for left := rd.count(); left > 0 && !rd.bad; left-- {
		kind := rd.number()
		if kind == kindApart {
			j := rd.number()
			if j >= len(s.head.Nodes) || r.nodes[j] != nil {
				return false
			}
			n, ok := s.node(s.head.Nodes[j], r.nodes, whole, j)
			if !ok {
				return false
			}
			r.nodes[j] = n
			made = append(made, n)
			continue
		}
		n := &action.Node{Label: rd.text(), Name: rd.text(), Pos: rd.text()}
		if j := rd.number() - 1; j >= len(r.nodes) {
			return false
		} else if j >= 0 {
			r.nodes[j] = n
		}
		switch kind {
		case kindNative:
			n.Do = rd.native(at)
		case kindLayer:
			n.Do = rd.layer(at)
		default:
			var o other
			rd.json(&o)
			switch {
			case rd.bad || len(o.Nodes) == 0:
				return false
			case o.Image != nil:
				o.Image.Base = at(o.Nodes[0])
				for _, j := range o.Nodes[1:] {
					o.Image.Layers = append(o.Image.Layers, at(j))
				}
				n.Do = o.Image
			case o.Run != nil && len(o.Nodes) == len(o.Run.Mounts)+1:
				o.Run.Root = at(o.Nodes[0])
				for k, j := range o.Nodes[1:] {
					o.Run.Mounts[k].From = at(j)
				}
				n.Do = o.Run
			default:
				return false
			}
		}
		made = append(made, n)
	}
	for _, n := range r.nodes {
		rd.bad = rd.bad || n == nil
	}
	return !rd.bad && len(rd.b) == 0
}

// A reader reads what a writer wrote, until something is missing, and then zeros.
type reader struct {
	b     []byte
	table []string
	bad   bool
}

func (r *reader) number() int {
	n, width := binary.Uvarint(r.b)
	if width <= 0 || n > 1<<40 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[width:]
	return int(n)
}

// count is a number of things of which each takes at least a byte.
func (r *reader) count() int {
	n := r.number()
	if n > len(r.b) {
		r.b, r.bad = nil, true
		return 0
	}
	return n
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) text() string {
	i := r.number()
	if i >= len(r.table) {
		r.b, r.bad = nil, true
		return ""
	}
	return r.table[i]
}

func (r *reader) json(v any) {
	if s := r.text(); s != "null" && json.Unmarshal([]byte(s), v) != nil {
		r.bad = true
	}
}

func (r *reader) native(at func(int) *action.Node) *action.Native {
	do := &action.Native{Kind: r.text()}
	if n := r.count(); n > 0 {
		do.Params = make(map[string]string, n)
		for range n {
			k := r.text()
			do.Params[k] = r.text()
		}
	}
	do.Files = make([]action.Source, r.count())
	for i := range do.Files {
		do.Files[i] = action.Source{Role: r.text(), Path: r.text()}
	}
	do.Inputs = make([]action.Input, r.count())
	for i := range do.Inputs {
		do.Inputs[i] = action.Input{Role: r.text(), From: at(r.number()), Path: r.text()}
	}
	r.json(&do.Downloads)
	do.Layer = r.number() == 1
	return do
}

func (r *reader) layer(at func(int) *action.Node) *action.Layer {
	do := &action.Layer{}
	for n := r.count(); n > 0; n-- {
		do.Merges = append(do.Merges, at(r.number()))
	}
	r.json(&do.Shared)
	do.KeepFolders = r.number() == 1
	r.json(&do.Owner)
	r.json(&do.Base)
	do.Entries = make([]action.Entry, r.count())
	for i := range do.Entries {
		e := action.Entry{Dest: r.text(), File: r.text(), From: at(r.number() - 1), Path: r.text()}
		if r.number() == 1 {
			t := r.text()
			e.Text = &t
		}
		e.Exec, e.Dir = r.number() == 1, r.number() == 1
		r.json(&e.User)
		do.Entries[i] = e
	}
	return do
}
