package snapshot

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// A fixture is one action of each kind, in a wiki and in the image of one component, over a small tree.
type fixture struct {
	root             string
	packed           *action.Node // in both images, of files, texts and folders
	mounted          *action.Node // packed as well, but a step reads it
	fragment, family *action.Node // of de.json, and the layer of that
	step             *action.Node

	base, wiki, one *action.Node
	targets         []*graph.Target
	plan            *plan.Plan
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{root: t.TempDir()}
	for _, name := range []string{"a.php", "b.php", "de.json", "extension.json", "BUILD", "README"} {
		if err := os.WriteFile(filepath.Join(f.root, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.php", filepath.Join(f.root, "link.php")); err != nil {
		t.Fatal(err)
	}
	node := func(name string, do action.Action) *action.Node {
		return &action.Node{Label: "//:x", Name: name, Pos: "BUILD:1:1", Do: do}
	}
	text := "<?php"
	f.packed = node("layer", &action.Layer{Owner: action.Owner{UID: 33, GID: 34}, Base: &action.Base{Digest: "sha256:1", DiffID: "sha256:2", Size: 3, Repository: "r"}, Entries: []action.Entry{
		{Dest: "srv/a.php", File: "a.php"}, {Dest: "srv/cache", Dir: true, User: &action.Owner{UID: 1}}, {Dest: "srv/de.json", File: "de.json"}, {Dest: "srv/extension.json", File: "extension.json"}, {Dest: "srv/link.php", File: "link.php"},
		{Dest: "srv/run", Text: &text, Exec: true}, {Dest: "srv/settings.php", Text: &text}, {Dest: "srv/z", Dir: true},
	}})
	f.mounted = node("mounted", &action.Layer{Entries: []action.Entry{{Dest: "srv/b.php", File: "b.php"}}})
	f.fragment = node("fragment de", &action.Native{Kind: "l10n fragment 1", Params: map[string]string{"language": "de"}, Files: []action.Source{{Role: "messages", Path: "de.json"}}})
	output := node("output de", &action.Native{Kind: "l10n output 1", Inputs: []action.Input{{Role: "fragment", From: f.fragment, Path: "de"}}})
	f.family = node("family de", &action.Layer{Entries: []action.Entry{{Dest: "srv/l10n/de.cdb", From: output, Path: "de.cdb"}, {Dest: "srv/l10n/d", Dir: true, User: &action.Owner{GID: 5}}, {Dest: "srv/l10n/x", Text: &text, Exec: true}}})
	unpacked := node("unpack", &action.Native{Kind: "debian unpack 1", Layer: true, Downloads: []action.Download{{SHA256: "aa", Size: 1, Name: "n", Path: "p", Mirrors: []string{"m"}}}})
	f.base = node("base", &action.Image{Import: &action.Import{Digest: "sha256:9", Registry: "r"}})
	f.step = node("run", &action.Run{Root: f.base, Mounts: []action.Mount{{From: f.mounted, Dest: "/src"}}, Args: []string{"x"}, Env: map[string]string{"A": "B"}, Timeout: time.Minute, Changes: true})
	f.wiki = node("wiki", &action.Image{Base: f.base, Layers: []*action.Node{unpacked, f.packed, f.mounted, f.step, f.family}, Config: action.Config{User: "1:1", Labels: map[string]string{"l": "v"}}})
	f.one = node("image", &action.Image{Layers: []*action.Node{f.packed}, Platform: "linux/amd64"})
	for _, n := range []*action.Node{f.wiki, f.one} {
		f.targets = append(f.targets, &graph.Target{ID: graph.ID{Label: label.Label{Name: n.Name}, Config: "c"}, Kind: "image", Pos: "BUILD:2:1", Tags: []string{"t"}, Outputs: []*action.Node{n}})
	}
	f.plan = plan.New([]*action.Node{f.wiki, f.one}, nil)
	for i, s := range f.plan.Steps {
		s.State, s.Record, s.Key = plan.Hit, &plan.Record{}, plan.Key{byte(i + 1)}
	}
	return f
}

func (f *fixture) tree(t testing.TB) *workspace.Disk {
	t.Helper()
	tree, err := workspace.Open(context.Background(), f.root, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// take takes a snapshot, and reads it back.
func (f *fixture) take(t testing.TB) *Snapshot {
	t.Helper()
	s := Take("build //...", "c", []string{"extra"}, f.targets, f.plan, f.tree(t), time.Now().Add(time.Hour), []string{"BUILD", "extension.json"})
	if s == nil {
		t.Fatal("no snapshot")
	}
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Decode(data); err != nil {
		t.Fatal(err)
	}
	return s
}

// change has a file have other bytes.
func (f *fixture) change(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(f.root, name), []byte(time.Now().String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// What changed decides what is recalled.
func TestRecall(t *testing.T) {
	for _, tc := range []struct {
		name    string
		change  []string
		loads   bool
		whole   bool
		unknown []string // actions of which the key is not known
	}{
		{"nothing", nil, false, false, nil},
		{"a file that nobody reads", []string{"README"}, false, false, nil},
		{"a packed file", []string{"a.php"}, false, false, []string{"layer", "wiki", "image"}},
		{"what a step reads", []string{"b.php"}, false, true, nil},
		{"a message", []string{"de.json"}, false, true, nil},
		{"a packed file and a message", []string{"a.php", "de.json"}, false, true, nil},
		{"what was loaded", []string{"BUILD"}, true, false, nil},
		{"what is packed and was loaded", []string{"extension.json"}, true, false, nil},
		{"a packed file and what was loaded", []string{"a.php", "BUILD"}, true, false, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			s := f.take(t)
			f.change(t, tc.change...)
			r := s.Recall(f.tree(t))
			if (r == nil) != tc.loads {
				t.Fatalf("recalled %v", r)
			}
			if r == nil {
				return
			}
			if r.Whole() != tc.whole {
				t.Errorf("whole: %v", r.Whole())
			}
			p := plan.New([]*action.Node{r.Targets[0].Outputs[0], r.Targets[1].Outputs[0]}, nil)
			var unknown []string
			total := 0
			for _, n := range r.Omitted {
				total += n
			}
			for _, st := range p.Steps {
				total++
				key, known := r.Known[st.Node]
				if known && key == (plan.Key{}) {
					t.Errorf("%s has no key", st.Node.Name)
				}
				if !known {
					unknown = append(unknown, st.Node.Name)
				}
			}
			if total != len(f.plan.Steps) {
				t.Errorf("%d actions, want %d", total, len(f.plan.Steps))
			}
			if tc.whole {
				return
			}
			slices.Sort(unknown)
			slices.Sort(tc.unknown)
			if !slices.Equal(unknown, tc.unknown) {
				t.Errorf("not known are %v, want %v", unknown, tc.unknown)
			}
		})
	}
}

// What is recalled is what was loaded: all of it, or what a dirty action does.
func TestRecalledActions(t *testing.T) {
	opts := cmp.Options{cmpopts.EquateEmpty()}
	f := newFixture(t)
	s := f.take(t)
	f.change(t, "de.json")
	r := s.Recall(f.tree(t))
	for i, want := range f.targets {
		if diff := cmp.Diff(want, r.Targets[i], opts); diff != "" {
			t.Errorf("all actions (-want +got):\n%s", diff)
		}
	}

	f = newFixture(t)
	s = f.take(t)
	f.change(t, "a.php")
	r = s.Recall(f.tree(t))
	one := r.Targets[1].Outputs[0]
	if diff := cmp.Diff(f.one, one, opts); diff != "" {
		t.Errorf("the image of one component (-want +got):\n%s", diff)
	}
	wiki, ok := r.Targets[0].Outputs[0].Do.(*action.Image)
	if !ok || wiki.Layers[1] != one.Do.(*action.Image).Layers[0] {
		t.Error("two images do not share their layer")
	}
	for i, n := range f.wiki.Do.(*action.Image).Layers {
		got := wiki.Layers[i]
		if got.ID() != n.ID() || got.Pos != n.Pos || got.Title() != n.Title() || plan.CreatedBy(got) != plan.CreatedBy(n) {
			t.Errorf("layer %d: %s %s %s, want %s %s %s", i, got.ID(), got.Title(), plan.CreatedBy(got), n.ID(), n.Title(), plan.CreatedBy(n))
		}
		if want := f.plan.Step(n).Key; i != 1 && r.Known[got] != want {
			t.Errorf("layer %d: key %s, want %s", i, r.Known[got], want)
		}
	}
	var extra []string
	if err := s.Extra(&extra); err != nil || !slices.Equal(extra, []string{"extra"}) || s.Config() != "c" || !s.Of("build //...") || s.Of("build //a") {
		t.Errorf("extra %v %v, config %q", extra, err, s.Config())
	}
}

// After a build a snapshot can be brought up to date.
func TestRenew(t *testing.T) {
	f := newFixture(t)
	s := f.take(t)
	f.change(t, "a.php", "de.json")
	r := s.Recall(f.tree(t))
	p := plan.New([]*action.Node{r.Targets[0].Outputs[0], r.Targets[1].Outputs[0]}, nil)
	if s.Renew(r, p, f.tree(t), time.Now().Add(time.Hour)) {
		t.Error("renewed, and nothing was built")
	}
	for i, st := range p.Steps {
		st.State, st.Record, st.Key = plan.Done, &plan.Record{}, plan.Key{byte(100 + i)}
	}
	if !s.Renew(r, p, f.tree(t), time.Now().Add(time.Hour)) {
		t.Fatal("not renewed")
	}
	again := s.Recall(f.tree(t))
	if again == nil || again.Whole() || again.Changed != 0 {
		t.Fatalf("recalled %+v", again)
	}
	if got, want := again.Known[again.Targets[1].Outputs[0]], p.Step(r.Targets[1].Outputs[0]).Key; got != want {
		t.Errorf("key %s, want %s", got, want)
	}
}

// What lacks a record, or was not looked at, makes no snapshot.
func TestTakeNothing(t *testing.T) {
	for name, change := range map[string]func(*plan.Step){
		"no record":     func(s *plan.Step) { s.Record = nil },
		"no key":        func(s *plan.Step) { s.Key = plan.Key{} },
		"not looked at": func(s *plan.Step) { s.State = plan.Unchanged },
	} {
		f := newFixture(t)
		change(f.plan.Step(f.family))
		if Take("", "", nil, f.targets, f.plan, f.tree(t), time.Now(), nil) != nil {
			t.Errorf("%s: a snapshot", name)
		}
	}
}

// What is cut short, or has any byte changed, is broken.
func TestDecodeBroken(t *testing.T) {
	whole, err := newFixture(t).take(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		if _, err := Decode(whole[:i]); !errors.Is(err, ErrBroken) {
			t.Errorf("%d bytes of %d: error %v", i, len(whole), err)
		}
		bad := bytes.Clone(whole)
		bad[i] ^= 0x10
		if _, err := Decode(bad); !errors.Is(err, ErrBroken) {
			t.Errorf("byte %d changed: error %v", i, err)
		}
	}
}

// No bytes make it panic.
func FuzzRecallAll(f *testing.F) {
	fx := newFixture(f)
	s := fx.take(f)
	f.Add(s.all, s.layers)
	f.Add([]byte(strings.Repeat("\xff", 30)), []byte{1})
	f.Fuzz(func(t *testing.T, all, layers []byte) {
		c := *s
		c.all, c.layers = all, layers
		c.recallAll(&Recall{})
		c.recallApart(&Recall{}, slices.Repeat([]bool{true}, len(c.head.Nodes)))
	})
}
