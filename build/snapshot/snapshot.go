// Package snapshot remembers what loading and planning came to, so that the next run of the same command needs neither while nothing but the bytes
// of packed files changed: a backport.
//
// What loading came to is a function of the program, the command line, the names, modes and link targets of all files of the workspace, and the bytes of
// those that loading read. Where any of these differs a snapshot is of no use, and everything is loaded. So it never knows more than loading would:
// keys are made, and records found, by package build as ever.
//
// What changes mostly is held apart: the images that were asked for, those below them, and the layers that pack files of the workspace and nothing else. Of
// what these stand on, such as layers of compiled localisation, the keys are kept too, so that where only packed files changed not even the thousands of
// actions behind them have to be looked at.
package snapshot

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// A Snapshot is what one command came to.
type Snapshot struct {
	head   head
	state  []byte // of the workspace
	roles  []byte // of files: an uvarint for each, in their order
	layers []byte // what the layers that are held apart pack
	all    []byte // all actions
}

// head is the part of a snapshot that is small: the actions that are held apart, and those that they stand on.
type head struct {
	Command string
	Config  string // the configuration that the targets are in
	Extra   json.RawMessage
	Nodes   []node         // dependencies first
	Packers [][]int        // sets of indices in Nodes of the layers that pack a file
	Targets []target       // in the order asked for
	Omitted map[string]int // how many other actions there are, by the title of their kind
}

type node struct {
	Label, Name, Pos string
	Key              string
	Image            *image `json:",omitempty"`
	Layer            *layer `json:",omitempty"`
	Other            string `json:",omitempty"` // the kind of a Native that makes a layer
	Run              bool   `json:",omitempty"`
}

type image struct {
	Imported bool  `json:",omitempty"`
	Base     int   // index in Nodes, or -1
	Layers   []int // likewise
	Config   action.Config
	Platform string
}

type layer struct {
	Owner       action.Owner
	Base        *action.Base `json:",omitempty"`
	First, Last string       // of the places that it puts something at
	From, To    int          // in Snapshot.layers; the same where it is not held apart
	Merges      []int        `json:",omitempty"` // indices in Nodes
	Shared      []string     `json:",omitempty"`
	KeepFolders bool         `json:",omitempty"`
}

type target struct {
	Package, Name, Kind, Pos string
	Tags                     []string
	Outputs                  []int // indices in Nodes
}

// Roles of files beside 2 and more, which stand for a set of Packers.
const (
	unread = iota // its bytes count for nothing
	loaded        // loading read it
	source        // an action reads it that is not held apart
	packed
)

// Take makes the snapshot of a plan of which every step has its record, in a listing of the workspace that began when listed says. read are the files
// whose bytes loading asked for; extra is the caller's. It is nil where there is nothing that a snapshot could help with, or where files did not hold still.
func Take(command, config string, extra any, targets []*graph.Target, p *plan.Plan, tree *workspace.Disk, listed time.Time, read []string) *Snapshot {
	text, err := json.Marshal(extra)
	if err != nil {
		return nil
	}
	s := &Snapshot{state: tree.State(listed), head: head{Command: command, Config: config, Extra: text, Omitted: map[string]int{}}}
	if s.state == nil {
		return nil
	}
	t := taker{plan: p, whole: map[*action.Node]bool{}, index: map[*action.Node]int{}, snapshot: s}
	t.decide()
	role := make([]int, len(tree.Files())) // packed and the index of a set where it is packed
	at := map[string]int{}
	for i, f := range tree.Files() {
		at[f] = i
	}
	for _, f := range read {
		if i, ok := at[f]; ok {
			role[i] = loaded
		}
	}
	for _, tg := range targets {
		saved := target{Package: tg.Label.Pkg, Name: tg.Label.Name, Kind: tg.Kind, Pos: tg.Pos, Tags: tg.Tags}
		for _, n := range tg.Outputs {
			i, ok := t.add(n)
			if !ok {
				return nil
			}
			saved.Outputs = append(saved.Outputs, i)
		}
		s.head.Targets = append(s.head.Targets, saved)
	}
	packers := map[int][]int{} // layers by file
	for _, st := range p.Steps {
		i, in := t.index[st.Node]
		if in && t.whole[st.Node] {
			if do, ok := st.Node.Do.(*action.Layer); ok {
				for _, e := range do.Entries {
					if e.File == "" {
						continue
					}
					f, ok := at[e.File]
					if !ok {
						return nil
					}
					if l := packers[f]; !slices.Contains(l, i) {
						packers[f] = append(l, i)
					}
				}
			}
			continue
		}
		for _, f := range plan.FilesOf(st.Node) {
			i, ok := at[f]
			if !ok {
				return nil
			}
			if role[i] == unread {
				role[i] = source
			}
		}
	}
	sets := map[string]int{}
	for f, l := range packers {
		if role[f] != unread {
			continue
		}
		name := fmt.Sprint(l)
		if _, ok := sets[name]; !ok {
			sets[name] = len(s.head.Packers)
			s.head.Packers = append(s.head.Packers, l)
		}
		role[f] = packed + sets[name]
	}
	for _, r := range role {
		s.roles = binary.AppendUvarint(s.roles, uint64(r))
	}
	t.omit()
	s.all = t.encode()
	return s
}

// A taker makes the nodes of a snapshot.
type taker struct {
	plan     *plan.Plan
	whole    map[*action.Node]bool // what can be held apart
	index    map[*action.Node]int  // in Nodes
	snapshot *Snapshot
}

// decide finds what can be held apart: images that are made here, and layers of nothing but files and texts, that nothing else reads.
func (t *taker) decide() {
	opaque := map[*action.Node]bool{}
	for _, st := range slices.Backward(t.plan.Steps) { // users first
		n := st.Node
		switch do := n.Do.(type) {
		case *action.Image:
			opaque[n] = opaque[n] || do.Import != nil
		case *action.Layer:
			opaque[n] = opaque[n] || slices.ContainsFunc(do.Entries, func(e action.Entry) bool { return e.From != nil })
		default:
			opaque[n] = true
		}
		t.whole[n] = !opaque[n]
		if opaque[n] {
			for _, d := range st.Deps {
				opaque[d.Node] = true
			}
		}
	}
}

// add adds n, and what it stands on where it is an image, and returns its index. It is not ok where a key or record is missing.
func (t *taker) add(n *action.Node) (int, bool) {
	if i, ok := t.index[n]; ok {
		return i, true
	}
	st := t.plan.Step(n)
	if st.Record == nil || st.Key == (plan.Key{}) || st.State == plan.Unchanged {
		return 0, false
	}
	saved := node{Label: n.Label, Name: n.Name, Pos: n.Pos, Key: st.Key.String()}
	switch do := n.Do.(type) {
	case *action.Image:
		im := &image{Base: -1, Imported: do.Import != nil, Layers: []int{}}
		if t.whole[n] {
			im.Config, im.Platform = do.Config, do.Platform
			if do.Base != nil {
				i, ok := t.add(do.Base)
				if !ok {
					return 0, false
				}
				im.Base = i
			}
			for _, l := range do.Layers {
				i, ok := t.add(l)
				if !ok {
					return 0, false
				}
				im.Layers = append(im.Layers, i)
			}
		}
		saved.Image = im
	case *action.Layer:
		l := &layer{Owner: do.Owner, Base: do.Base, Shared: do.Shared, KeepFolders: do.KeepFolders}
		if k := len(do.Entries); k > 0 {
			l.First, l.Last = do.Entries[0].Dest, do.Entries[k-1].Dest
		}
		if t.whole[n] {
			for _, m := range do.Merges {
				i, ok := t.add(m)
				if !ok {
					return 0, false
				}
				l.Merges = append(l.Merges, i)
			}
		}
		l.From = len(t.snapshot.layers)
		if t.whole[n] {
			t.snapshot.layers = appendEntries(t.snapshot.layers, do.Entries)
		}
		l.To = len(t.snapshot.layers)
		saved.Layer = l
	case *action.Native:
		saved.Other = do.Kind
	default:
		saved.Run = true
	}
	t.index[n] = len(t.snapshot.head.Nodes)
	t.snapshot.head.Nodes = append(t.snapshot.head.Nodes, saved)
	return t.index[n], true
}

// omit counts the actions of the plan that are not held, those of the same key taken as one.
func (t *taker) omit() {
	seen := map[plan.Key]bool{}
	for _, held := range []bool{true, false} {
		for _, st := range t.plan.Steps {
			if _, in := t.index[st.Node]; in != held || seen[st.Key] && st.Key != (plan.Key{}) {
				continue
			}
			seen[st.Key] = true
			if !held {
				t.snapshot.head.Omitted[st.Node.Title()]++
			}
		}
	}
}

// Config is the configuration that the targets are in.
func (s *Snapshot) Config() string { return s.head.Config }

// Extra reads what Take was given.
func (s *Snapshot) Extra(v any) error { return json.Unmarshal(s.head.Extra, v) }

// Of tells whether s is of a command line.
func (s *Snapshot) Of(command string) bool { return s.head.Command == command }

// A Recall is a snapshot in the workspace as it is now.
type Recall struct {
	Targets []*graph.Target           // without dependencies and sources
	Known   map[*action.Node]plan.Key // of actions that nothing changed for; what they do is not told in full
	Omitted map[string]int            // how many actions there are beside those of Targets, by the title of their kind
	Changed int                       // how many files have other bytes, perhaps

	nodes []*action.Node // of Snapshot.head
}

// Whole tells whether all actions are behind Targets.
func (r *Recall) Whole() bool { return r.Known == nil }

// Recall tells what the command comes to now. It is nil where that takes loading: where files came or went, or some changed that loading read.
func (s *Snapshot) Recall(tree *workspace.Disk) *Recall {
	changed, ok := tree.ChangedSince(s.state)
	if !ok {
		return nil
	}
	r := &Recall{}
	dirty := make([]bool, len(s.head.Nodes))
	whole := false
	roles := s.roles
	for i, next := 0, 0; next < len(changed); i++ {
		role, n := binary.Uvarint(roles)
		if n <= 0 {
			return nil
		}
		roles = roles[n:]
		if i != changed[next] {
			continue
		}
		next++
		if role != unread {
			r.Changed++
		}
		switch set := int(role) - packed; {
		case role == loaded || set >= len(s.head.Packers):
			return nil
		case role == source:
			whole = true
		case role != unread:
			for _, l := range s.head.Packers[set] {
				dirty[l] = true
			}
		}
	}
	if whole {
		ok = s.recallAll(r)
	} else {
		ok = s.recallApart(r, dirty)
	}
	if !ok {
		return nil
	}
	for _, t := range s.head.Targets {
		g := &graph.Target{ID: graph.ID{Label: label.Label{Pkg: t.Package, Name: t.Name}, Config: s.head.Config}, Kind: t.Kind, Pos: t.Pos, Tags: t.Tags}
		for _, i := range t.Outputs {
			g.Outputs = append(g.Outputs, r.nodes[i])
		}
		r.Targets = append(r.Targets, g)
	}
	return r
}

// recallApart makes the actions that are held apart, of which some are dirty.
func (s *Snapshot) recallApart(r *Recall, dirty []bool) bool {
	r.Known, r.Omitted = map[*action.Node]plan.Key{}, s.head.Omitted
	for i, n := range s.head.Nodes {
		an, ok := s.node(n, r.nodes, dirty, i)
		if !ok {
			return false
		}
		r.nodes = append(r.nodes, an)
		if !dirty[i] {
			var k plan.Key
			if b, err := hex.DecodeString(n.Key); err != nil || copy(k[:], b) != len(k) {
				return false
			}
			r.Known[an] = k
		}
	}
	return true
}

// node makes the action of n, whose index is i: whole if it is dirty, which an image is where what it stands on is. made are those before.
func (s *Snapshot) node(n node, made []*action.Node, dirty []bool, i int) (*action.Node, bool) {
	an := &action.Node{Label: n.Label, Name: n.Name, Pos: n.Pos}
	all := func(indices []int) (nodes []*action.Node, ok bool) {
		for _, j := range indices {
			if j < 0 || j >= i || made[j] == nil {
				return nil, false
			}
			dirty[i] = dirty[i] || dirty[j]
			nodes = append(nodes, made[j])
		}
		return nodes, true
	}
	ok := true
	switch {
	case n.Image != nil:
		im := &action.Image{Config: n.Image.Config, Platform: n.Image.Platform}
		if n.Image.Imported {
			im.Import = &action.Import{}
		}
		if n.Image.Base >= 0 {
			base, ok := all([]int{n.Image.Base})
			if !ok {
				return nil, false
			}
			im.Base = base[0]
		}
		if im.Layers, ok = all(n.Image.Layers); !ok {
			return nil, false
		}
		an.Do = im
	case n.Layer != nil:
		do := &action.Layer{Owner: n.Layer.Owner, Base: n.Layer.Base, Shared: n.Layer.Shared, KeepFolders: n.Layer.KeepFolders}
		if do.Merges, ok = all(n.Layer.Merges); !ok {
			return nil, false
		}
		if n.Layer.First != "" {
			do.Entries = []action.Entry{{Dest: n.Layer.First, Dir: true}, {Dest: n.Layer.Last, Dir: true}} // what its place is told by
		}
		if dirty[i] {
			if n.Layer.From < 0 || n.Layer.From >= n.Layer.To || n.Layer.To > len(s.layers) {
				return nil, false
			}
			if do.Entries, ok = readEntries(s.layers[n.Layer.From:n.Layer.To]); !ok {
				return nil, false
			}
		}
		an.Do = do
	case n.Run:
		an.Do = &action.Run{}
	default:
		an.Do = &action.Native{Kind: n.Other, Layer: true}
	}
	return an, true
}

// Renew makes s the snapshot of the same command after p was built from what Recall returned, in a workspace that was listed again.
func (s *Snapshot) Renew(r *Recall, p *plan.Plan, tree *workspace.Disk, listed time.Time) bool {
	state := tree.State(listed)
	if state == nil {
		return false
	}
	for i, n := range r.nodes {
		st := p.Step(n)
		if st.Record == nil || st.Key == (plan.Key{}) {
			return false
		}
		s.head.Nodes[i].Key = st.Key.String()
	}
	s.state = state
	return true
}

// Entries of layers that are held apart are what their places share with the one before, the rest of it, and what stands there; a file's path likewise.
const (
	entryFile = iota
	entryText
	entryExecutable // text
	entryDir
	entryDirOwned
)

func appendEntries(b []byte, entries []action.Entry) []byte {
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	suffix := func(s, before string) {
		shared := 0
		for shared < min(len(s), len(before)) && s[shared] == before[shared] {
			shared++
		}
		b = binary.AppendUvarint(b, uint64(shared))
		text(s[shared:])
	}
	b = binary.AppendUvarint(b, uint64(len(entries)))
	dest, file := "", ""
	for _, e := range entries {
		suffix(e.Dest, dest)
		dest = e.Dest
		switch {
		case e.File != "":
			b = append(b, entryFile)
			suffix(e.File, file)
			file = e.File
		case e.Text != nil && e.Exec:
			b = append(b, entryExecutable)
			text(*e.Text)
		case e.Text != nil:
			b = append(b, entryText)
			text(*e.Text)
		case e.User != nil:
			b = append(b, entryDirOwned)
			b = binary.AppendUvarint(b, uint64(e.User.UID))
			b = binary.AppendUvarint(b, uint64(e.User.GID))
		default:
			b = append(b, entryDir)
		}
	}
	return b
}

func readEntries(b []byte) (entries []action.Entry, ok bool) {
	bad := false
	number := func() int {
		n, width := binary.Uvarint(b)
		if width <= 0 || n > 1<<40 {
			bad, b = true, nil
			return 0
		}
		b = b[width:]
		return int(n)
	}
	text := func() string {
		n := number()
		if n > len(b) {
			bad, b = true, nil
			return ""
		}
		t := string(b[:n])
		b = b[n:]
		return t
	}
	suffix := func(before string) string {
		shared := number()
		if shared > len(before) {
			bad = true
			return ""
		}
		return before[:shared] + text()
	}
	n := number()
	entries = make([]action.Entry, 0, min(n, len(b)))
	dest, file := "", ""
	for ; n > 0 && !bad; n-- {
		e := action.Entry{Dest: suffix(dest)}
		dest = e.Dest
		switch what := number(); what {
		case entryFile:
			e.File = suffix(file)
			file = e.File
		case entryText, entryExecutable:
			t := text()
			e.Text, e.Exec = &t, what == entryExecutable
		case entryDirOwned:
			e.Dir, e.User = true, &action.Owner{UID: number(), GID: number()}
		case entryDir:
			e.Dir = true
		default:
			bad = true
		}
		entries = append(entries, e)
	}
	return entries, !bad && len(b) == 0
}

// The form of a snapshot: the version, its parts, each behind its length, and a CRC-32C of it all, least significant byte first.
const formVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrBroken says that bytes are no snapshot.
var ErrBroken = errors.New("broken snapshot")

// Encode returns s as bytes.
func (s *Snapshot) Encode() ([]byte, error) {
	h, err := json.Marshal(s.head)
	if err != nil {
		return nil, err
	}
	b := []byte{formVersion}
	for _, part := range [][]byte{h, s.state, s.roles, s.layers, s.all} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// Decode reads what [Snapshot.Encode] wrote; else the error is [ErrBroken].
func Decode(data []byte) (*Snapshot, error) {
	if len(data) < 5 || data[0] != formVersion {
		return nil, ErrBroken
	}
	rest, sum := data[1:len(data)-4], data[len(data)-4:]
	if crc32.Checksum(data[:len(data)-4], castagnoli) != binary.LittleEndian.Uint32(sum) {
		return nil, ErrBroken
	}
	s := &Snapshot{}
	var h []byte
	for _, part := range []*[]byte{&h, &s.state, &s.roles, &s.layers, &s.all} {
		n, width := binary.Uvarint(rest)
		if width <= 0 || n > uint64(len(rest)-width) {
			return nil, ErrBroken
		}
		*part, rest = rest[width:width+int(n)], rest[width+int(n):]
	}
	if len(rest) > 0 || json.Unmarshal(h, &s.head) != nil {
		return nil, ErrBroken
	}
	return s, nil
}
