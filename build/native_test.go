package build

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
)

// received is a Receiver.
type received struct {
	mu   sync.Mutex
	has  map[string]bool // by path
	data map[string]string
	err  error
}

func (r *received) Has(f action.File) bool { return r.has[f.Path] }

func (r *received) Put(f action.File, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.data == nil {
		r.data = map[string]string{}
	}
	r.data[f.Path] = string(data)
	return r.err
}

// Files go to their receiver when they are made, or are made again for it; they are never packed.
func TestBuildFiles(t *testing.T) {
	l := newLab(t)
	l.write("a.txt", "hello")
	build := func(to *received) *Result {
		t.Helper()
		up := l.targets()[0]
		up.Files = []graph.File{{From: up.Outputs[0], Path: "up"}}
		if !HasFiles(up) {
			t.Fatal("HasFiles: false")
		}
		l.ran = 0
		var res *Result
		l.with(t.Context(), false, func(b *Builder) (err error) {
			res, err = b.BuildFiles(t.Context(), up, to)
			return err
		})
		if len(res.Errors) > 0 && to.err == nil {
			t.Fatal(res.Errors)
		}
		return res
	}
	check := func(what string, to *received, want map[string]string, ran int) {
		t.Helper()
		if diff := cmp.Diff(want, to.data); diff != "" || l.ran != ran {
			t.Errorf("%s: after %d runs, want %d (-want +got):\n%s", what, l.ran, ran, diff)
		}
	}
	first := &received{}
	build(first)
	check("first", first, map[string]string{"up": "HELLO"}, 1)
	again := &received{}
	if all, kinds := build(again).Counts(); all.Executed != 0 || kinds["upper"] != (Count{Total: 1, Cached: 1}) {
		t.Errorf("nothing changed, but %+v, %+v", all, kinds)
	}
	check("nothing changed", again, map[string]string{"up": "HELLO"}, 1)
	there := &received{has: map[string]bool{"up": true}}
	build(there)
	check("it is there already", there, nil, 0)
	if files, err := filepath.Glob(filepath.Join(l.cache, "blobs/sha256/*")); err != nil || len(files) > 0 {
		t.Errorf("blobs were made: %v %v", files, err)
	}
	l.write("a.txt", "bye")
	full := &received{err: fmt.Errorf("no room")}
	if res := build(full); len(res.Errors) != 1 || !strings.Contains(res.Errors[0].Error(), "no room") {
		t.Errorf("a receiver that fails: %v", res.Errors)
	}
	if HasFiles(l.targets()[1]) {
		t.Error("HasFiles of an image: true")
	}
}

// many is a native action for each letter, and a layer of what they make.
func (l *lab) many(letters string) *graph.Target {
	packed := &action.Layer{}
	for i := range len(letters) {
		c := letters[i : i+1]
		n := &action.Node{Label: "//:many", Name: c, Pos: "BUILD:1:1", Do: &action.Native{Kind: "letter 1", Params: map[string]string{"c": c}}}
		packed.Entries = append(packed.Entries, action.Entry{Dest: c, From: n, Path: c})
	}
	n := &action.Node{Label: "//:many", Name: "layer", Pos: "BUILD:1:1", Do: packed}
	return &graph.Target{ID: graph.ID{Label: label.Label{Name: "many"}}, Outputs: []*action.Node{n}}
}

// What was just made is packed as it is; what does not fit into memory, or was made by an earlier build, is made again, and must
// be the same.
func TestMadeAgain(t *testing.T) {
	l := newLab(t)
	var mu sync.Mutex
	made := map[string]int{}
	size := 1
	l.natives["letter 1"] = func(_ context.Context, do *action.Native) ([]action.Made, error) {
		c := do.Params["c"]
		mu.Lock()
		defer mu.Unlock()
		made[c]++
		data := strings.Repeat(c, size)
		if c == "!" {
			data = fmt.Sprint(made[c])
		}
		return []action.Made{{File: action.File{Path: c}, Data: []byte(data)}}, nil
	}
	check := func(what, letters string, want map[string]int) {
		t.Helper()
		clear(made)
		res, err := l.build(t.Context(), false, l.many(letters))
		if err != nil || len(res.Errors) > 0 {
			t.Fatal(what, err, res.Errors)
		}
		if diff := cmp.Diff(want, made); diff != "" {
			t.Errorf("%s: times that each was made (-want +got):\n%s", what, diff)
		}
	}
	check("first", "ab", map[string]int{"a": 1, "b": 1})
	check("nothing changed", "ab", map[string]int{})
	check("one more", "abc", map[string]int{"a": 1, "b": 1, "c": 1}) // a and b for the layer
	size, l.jobs = spoolSize/2+1, 1
	check("too large to keep two", "xy", map[string]int{"x": 1, "y": 2})
	size = 1
	// What is not the same each time is an error as soon as it matters.
	if res, err := l.build(t.Context(), false, l.many("!")); err != nil || len(res.Errors) > 0 {
		t.Fatal(err, res.Errors)
	}
	res, err := l.build(t.Context(), false, l.many("!?"))
	if err != nil || len(res.Errors) != 1 || !strings.Contains(res.Errors[0].Error(), "made other bytes of !") {
		t.Errorf("unstable: %v %v", err, res.Errors)
	}
}

// A native action must name what it makes.
func TestMadeWrong(t *testing.T) {
	l := newLab(t)
	for what, files := range map[string][]action.Made{
		"no name":  {{Data: []byte("x")}},
		"twice":    {{File: action.File{Path: "a"}, Data: []byte("x")}, {File: action.File{Path: "a"}, Data: []byte("x")}},
		"no bytes": {{File: action.File{Path: "a"}}},
	} {
		l.natives["letter 1"] = func(context.Context, *action.Native) ([]action.Made, error) { return files, nil }
		if res, err := l.build(t.Context(), false, l.many("a")); err != nil || len(res.Errors) != 1 {
			t.Errorf("%s: %v %v", what, err, res.Errors)
		}
	}
	l.natives["letter 1"] = func(context.Context, *action.Native) ([]action.Made, error) {
		return []action.Made{{File: action.File{Path: "b"}, Data: []byte("x")}}, nil
	}
	if res, err := l.build(t.Context(), false, l.many("a")); err != nil || len(res.Errors) != 1 || !strings.Contains(res.Errors[0].Error(), "made no file a") {
		t.Errorf("another file: %v %v", err, res.Errors)
	}
}

// Steps run in the order of the plan as far as they are ready, so a layer comes soon after what it holds.
func TestOrder(t *testing.T) {
	l := newLab(t)
	var order []string
	l.natives["letter 1"] = func(_ context.Context, do *action.Native) ([]action.Made, error) {
		order = append(order, do.Params["c"])
		return []action.Made{{File: action.File{Path: do.Params["c"]}, Data: []byte(do.Params["c"])}}, nil
	}
	letters := "qwertyuiopasdfghjklzxcvbnm"
	l.jobs = 1
	if res, err := l.build(t.Context(), false, l.many(letters)); err != nil || len(res.Errors) > 0 {
		t.Fatal(err, res.Errors)
	}
	if got := strings.Join(order, ""); got != letters {
		t.Errorf("executed in the order %s, want %s", got, letters)
	}
}

func (l *lab) with(ctx context.Context, keepGoing bool, f func(*Builder) error) {
	l.t.Helper()
	if err := l.builder(ctx, keepGoing, f); err != nil {
		l.t.Fatal(err)
	}
}
