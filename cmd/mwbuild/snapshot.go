package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/google/renameio/v2"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/build/snapshot"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// A watchedTree is the tree on disk that loading sees. It notes the files whose bytes were asked for.
type watchedTree struct {
	*workspace.Disk
	mu   sync.Mutex
	read map[string]bool
}

func (t *watchedTree) note(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.read[path] = true
}

// ReadFile is Disk's.
func (t *watchedTree) ReadFile(path string) ([]byte, error) {
	t.note(path)
	if at, err := t.Resolve(path); err == nil && at != path {
		t.note(at)
	}
	return t.Disk.ReadFile(path)
}

// Blob is Disk's.
func (t *watchedTree) Blob(path string) (string, error) {
	t.note(path)
	return t.Disk.Blob(path)
}

// Digest is Disk's.
func (t *watchedTree) Digest(path string) (workspace.Digest, error) {
	t.note(path)
	return t.Disk.Digest(path)
}

// keptSnapshots is how many snapshots the cache folder keeps: some megabytes each.
const keptSnapshots = 8

// staleFiles is how many files may be in layers that were built since their snapshot before it is brought up to date: each costs a little every time.
const staleFiles = 20

func (o *opened) snapshotFile(command string) string {
	return filepath.Join(o.cacheDir, "snapshots", fmt.Sprintf("%x", sha256.Sum256([]byte(command))))
}

// recall returns what is remembered of a command, if it need not be loaded; else nil.
func (o *opened) recall(command string) (*snapshot.Snapshot, *snapshot.Recall) {
	data, err := os.ReadFile(o.snapshotFile(command))
	if err != nil {
		return nil, nil
	}
	s, err := snapshot.Decode(data)
	if err != nil || !s.Of(command) {
		return nil, nil
	}
	r := s.Recall(o.tree)
	if r == nil {
		return nil, nil
	}
	o.records.Config = s.Config()
	o.app.log.Debug("nothing was loaded", "whole", r.Whole(), "files", r.Changed)
	return s, r
}

// keepSnapshot remembers what a command came to that was loaded, and succeeded.
func (o *opened) keepSnapshot(command string, extra any, targets []*graph.Target, res *build.Result) {
	if s := snapshot.Take(command, o.records.Config, extra, targets, res.Plan, o.tree, o.listed, slices.Collect(maps.Keys(o.watched.read))); s != nil {
		o.writeSnapshot(command, s)
	}
}

// renewSnapshot brings a snapshot up to date that was used, if that is worth it.
func (o *opened) renewSnapshot(command string, s *snapshot.Snapshot, r *snapshot.Recall, res *build.Result) {
	stale := 0
	for _, st := range res.Plan.Steps {
		if _, known := r.Known[st.Node]; !known && st.State == plan.Hit {
			stale += len(plan.FilesOf(st.Node))
		}
	}
	if stale > staleFiles && s.Renew(r, res.Plan, o.tree, o.listed) {
		o.writeSnapshot(command, s)
	}
}

// writeSnapshot keeps a snapshot, and the newest of the others. A cache that cannot be written costs time, no more.
func (o *opened) writeSnapshot(command string, s *snapshot.Snapshot) {
	file := o.snapshotFile(command)
	data, err := s.Encode()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err == nil {
		err = renameio.WriteFile(file, data, 0o644)
	}
	if err != nil {
		o.app.log.Debug("the snapshot is not kept", "error", err)
		return
	}
	entries, _ := os.ReadDir(filepath.Dir(file))
	var infos []fs.FileInfo
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			infos = append(infos, fi)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for i, fi := range infos {
		if i >= keptSnapshots {
			os.Remove(filepath.Join(filepath.Dir(file), fi.Name()))
		}
	}
}
