package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/graph/action"
)

// A machine builds worlds one after the other, and remembers what a build remembers.
type machine struct {
	records map[Key]*Record
	last    map[string]Subtree
}

// made is what an action of that key makes. Many make the same.
func made(n *action.Node, k Key) *Record {
	sum := sha256.Sum256([]byte{k[0] % 3})
	if n.MakesFiles() {
		return &Record{Files: []action.File{{Path: "f", SHA256: hex.EncodeToString(sum[:]), Size: 1}}}
	}
	d := digest.NewDigestFromBytes(digest.SHA256, sum[:])
	return &Record{Layers: []image.Layer{{Descriptor: ocispecs.Descriptor{Digest: d}, DiffID: d}}}
}

func (m *machine) build(t *rapid.T, outputs []*action.Node, files fakeFiles, prune bool) *Plan {
	p := New(outputs, files)
	find := func(k Key) (*Record, error) { return m.records[k], nil }
	if prune {
		remembered := map[*Step]Subtree{}
		for _, s := range p.Subtrees() {
			if was, ok := m.last[s.Node.ID()]; ok {
				remembered[s] = was
			}
		}
		if err := p.Prune(remembered, find); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range p.Steps {
		if s.State != Pending {
			continue
		}
		if !s.Ready() {
			t.Fatalf("%s is not ready in its turn", s.Node.ID())
		}
		if err := p.Resolve(s, find); err != nil {
			t.Fatal(err)
		}
		if s.State == Dirty {
			m.records[s.Key] = made(s.Node, s.Key)
			s.Finish(m.records[s.Key])
		}
	}
	for _, s := range p.Subtrees() {
		if s.State == Unchanged {
			continue
		}
		sum, err := p.Sum(s)
		if err != nil {
			t.Fatal(err)
		}
		m.last[s.Node.ID()] = Subtree{sum, s.Key}
	}
	return p
}

// Whatever changed between builds, what is pruned changes no output; and where nothing did, nothing below a layer is looked at.
func TestPrune(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := fakeFiles{}
		name := func() string { return fmt.Sprintf("f%d", rapid.IntRange(0, 3).Draw(t, "file")) }
		for i := range 4 {
			files[fmt.Sprintf("f%d", i)] = fakeFile{text: "0"}
		}
		var nodes []*action.Node
		draw := func(i int) action.Action {
			var below []*action.Node
			for _, n := range nodes[:i] {
				if n.MakesFiles() && rapid.Bool().Draw(t, "reads") {
					below = append(below, n)
				}
			}
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0, 1:
				do := &action.Layer{Entries: []action.Entry{{Dest: "a", File: name()}}}
				for j, n := range below {
					do.Entries = append(do.Entries, action.Entry{Dest: fmt.Sprintf("m%d", j), From: n, Path: "f"})
				}
				return do
			case 2:
				if len(below) > 0 {
					return &action.Native{Kind: "layer 1", Layer: true, Inputs: []action.Input{{Role: "r", From: below[0], Path: "f"}}}
				}
			}
			do := &action.Native{Kind: fmt.Sprintf("k %d", rapid.IntRange(1, 2).Draw(t, "version")), Files: []action.Source{{Path: name()}}}
			for _, n := range below {
				do.Inputs = append(do.Inputs, action.Input{Role: "r", From: n, Path: "f"})
			}
			return do
		}
		for i := range rapid.IntRange(2, 9).Draw(t, "nodes") {
			nodes = append(nodes, &action.Node{Label: fmt.Sprintf("//n:%d", i), Name: "x"})
			nodes[i].Do = draw(i)
		}
		pruning := &machine{map[Key]*Record{}, map[string]Subtree{}}
		full := &machine{map[Key]*Record{}, map[string]Subtree{}}
		for range rapid.IntRange(1, 5).Draw(t, "builds") {
			var outputs []*action.Node
			for _, n := range nodes {
				if rapid.IntRange(0, 2).Draw(t, "wanted") == 0 {
					outputs = append(outputs, n)
				}
			}
			p, q := pruning.build(t, outputs, files, true), full.build(t, outputs, files, false)
			for _, n := range outputs {
				if got, want := p.Step(n), q.Step(n); got.Key != want.Key || got.Record == nil {
					t.Fatalf("%s has key %s, want %s", n.ID(), got.Key, want.Key)
				}
			}
			again := pruning.build(t, outputs, files, true)
			for _, s := range again.Subtrees() {
				if s.State != Unchanged && (s.State != Hit || s.Manifest != nil) {
					t.Fatalf("nothing changed, and %s was looked at", s.Node.ID())
				}
			}
			for _, s := range again.Steps {
				above := slices.ContainsFunc(s.Users, func(u *Step) bool { return u.State != Unchanged && (u.State != Hit || u.Manifest != nil) })
				if asked := above || slices.Contains(outputs, s.Node); asked && s.State != Hit || !asked && s.State != Unchanged {
					t.Fatalf("nothing changed, and %s is in state %d", s.Node.ID(), s.State)
				}
			}
			switch i := rapid.IntRange(0, len(nodes)-1).Draw(t, "changed"); rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				files[name()] = fakeFile{text: rapid.SampledFrom([]string{"0", "1"}).Draw(t, "text")}
			case 1: // the tree says something else, of the same kind for those that read it
				if do := draw(i); (&action.Node{Do: do}).MakesFiles() == nodes[i].MakesFiles() {
					nodes[i].Do = do
				}
			case 2: // a record is lost
				delete(pruning.records, pruning.last[nodes[i].ID()].Key)
			}
		}
	})
}
