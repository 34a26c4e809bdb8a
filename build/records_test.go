package build

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/cache"
	"github.com/mwbuild/mwbuild/graph/action"
)

// How long a target's own actions took is known after a build, and still when what they made is found again.
func TestTook(t *testing.T) {
	l := newLab(t)
	l.write("a.txt", "hello")
	good, nap := l.natives["upper"], 30*time.Millisecond
	l.natives["upper"] = func(ctx context.Context, do *action.Native) ([]action.Made, error) {
		time.Sleep(nap)
		return good(ctx, do)
	}
	r := &Records{Dir: l.cache, Workspace: l.root, Wait: func(string) {}}
	labels := []string{"//:up", "//:image", "//:u", "//:none"}
	if took, err := (&Records{Dir: t.TempDir(), Workspace: l.root}).Took(labels); len(took) > 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a cache: %v, %v", took, err)
	}
	check := func(what string) map[string]time.Duration {
		t.Helper()
		if _, err := l.build(t.Context(), false, l.targets()...); err != nil {
			t.Fatal(err)
		}
		took, err := r.Took(labels)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"//:image", "//:up"}, slices.Sorted(maps.Keys(took))); diff != "" {
			t.Errorf("%s: known (-want +got):\n%s", what, diff)
		}
		if took["//:up"] < nap || took["//:image"] <= 0 {
			t.Errorf("%s: took %v, want at least %v for //:up", what, took, nap)
		}
		return took
	}
	first := check("first")
	if diff := cmp.Diff(first, check("nothing changed")); diff != "" {
		t.Errorf("a build that had nothing to do took (-first +now):\n%s", diff)
	}
	nap = 2 * first["//:up"]
	l.write("a.txt", "hello\nother")
	check("built again")
	// Of another workspace nothing is known, and what was recorded before durations were still reads.
	if took, err := (&Records{Dir: l.cache, Workspace: l.root + "2"}).Took(labels); len(took) > 0 || err != nil {
		t.Errorf("another workspace: %v, %v", took, err)
	}
	db, err := cache.Open(t.Context(), l.cache, nil)
	if err != nil {
		t.Fatal(err)
	}
	if took, err := r.Took(labels); len(took) > 0 || !errors.Is(err, cache.ErrLocked) {
		t.Errorf("beside one who writes: %v, %v", took, err)
	}
	var old []cache.Entry
	err = db.Each(cache.Records, nil, func(key, value []byte) error {
		var rec plan.Record
		if err := json.Unmarshal(value, &rec); err != nil {
			return err
		}
		rec.Took = 0
		value, err := json.Marshal(rec)
		old = append(old, cache.Entry{NS: cache.Records, Key: key, Value: value})
		return err
	})
	if err := errors.Join(err, db.Put(old...), db.Close()); err != nil {
		t.Fatal(err)
	}
	if took, err := r.Took(labels); len(took) > 0 || err != nil {
		t.Errorf("old records: %v, %v", took, err)
	}
	res, err := l.build(t.Context(), false, l.targets()...)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tally(res), "//:up cached, //:image cached; 0 executed, 3 cached"; got != want {
		t.Errorf("old records: %s, want %s", got, want)
	}
}
