package workspace

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRevisionIsTheTree compares a revision with the working tree that it was made from, in a folder of a repository, with a
// submodule.
func TestRevisionIsTheTree(t *testing.T) {
	top := t.TempDir()
	sub := filepath.Join(top, "sub")
	write(t, sub, map[string]string{"BUILD": "", "i18n/en.json": `{"sub": "1"}`})
	gitCmd(t, sub, "init", "-q")
	commit(t, sub)

	repo := filepath.Join(top, "repo")
	root := filepath.Join(repo, "wiki")
	write(t, root, map[string]string{
		"WORKSPACE": "", "BUILD": "# root", "a b.json": "x", "ext/Foo/BUILD.star": "", "ext/Foo/i18n/en.json": `{"a": "b"}`, "ext/Foo/i18n/ünï.json": "",
		"ext/none/x.json": "up", "ignored.txt": "# no\n/out/\n*.log\nbuild\n", "out/x.json": "", "a.log": "", "ext/a.log": "", "build": "", "ext/build": "",
		"lib/out": "a file",
	})
	write(t, repo, map[string]string{"outside.json": "x"})
	for name, target := range map[string]string{
		"lib/link.json": "../ext/Foo/i18n/en.json", "lib/second.json": "link.json",
		// .. is where the folder is that a symlink leads to, not where the symlink is.
		"lib/deep": "../ext/Foo", "lib/in.json": "deep/i18n/en.json", "lib/up.json": "deep/../none/x.json",
		"lib/circle.json": "circle.json", "lib/far.json": "/etc/passwd", "lib/out.json": "../../outside.json", "lib/gone.json": "gone",
		".mwbuildignore": "ignored.txt",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "a b.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	gitCmd(t, repo, "init", "-q")
	gitCmd(t, repo, "submodule", "--quiet", "add", sub, "wiki/ext/Sub")
	commit(t, repo)

	disk, err := Open(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenRevision(t.Context(), root, "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	var tree Tree = r
	if diff := cmp.Diff(disk.Files(), tree.Files()); diff != "" {
		t.Errorf("files (-disk +revision):\n%s", diff)
	}
	if diff := cmp.Diff(disk.Packages(), tree.Packages()); diff != "" {
		t.Errorf("packages (-disk +revision):\n%s", diff)
	}
	if want := strings.TrimSpace(gitCmd(t, repo, "rev-parse", "HEAD")); r.Commit != want {
		t.Errorf("commit %s, want %s", r.Commit, want)
	}
	for _, pkg := range disk.Packages() {
		if diff := cmp.Diff(disk.BuildFiles(pkg), tree.BuildFiles(pkg)); diff != "" {
			t.Errorf("%s: BUILD files (-disk +revision):\n%s", pkg, diff)
		}
		for _, patterns := range [][]string{{"**"}, {"*.json"}, {"i18n/*.json"}, {"{lib,ext}/**/*.json", "WORKSPACE"}} {
			want, err1 := disk.Glob(pkg, patterns, []string{"**/second.*"})
			got, err2 := tree.Glob(pkg, patterns, []string{"**/second.*"})
			if diff := cmp.Diff(want, got); diff != "" || err1 != nil || err2 != nil {
				t.Errorf("%s: glob %v: %v, %v (-disk +revision):\n%s", pkg, patterns, err1, err2, diff)
			}
		}
	}
	for _, p := range disk.Files() {
		want, _ := disk.Lookup(p)
		got, ok := tree.Lookup(p)
		if !ok || got.Mode != want.Mode || got.Target != want.Target || got.Path != p {
			t.Errorf("%s: %+v, want %+v", p, got, want)
		}
		if ok && got.Mode == Symlink {
			a, err1 := disk.ReadFile(p)
			b, err2 := tree.ReadFile(p)
			if string(a) != string(b) || (err1 == nil) != (err2 == nil) {
				t.Errorf("%s: %q, %v, want %q, %v", p, b, err2, a, err1)
			}
			if text, ok := map[string]string{"lib/second.json": `{"a": "b"}`, "lib/in.json": `{"a": "b"}`, "lib/up.json": "up"}[p]; ok && string(b) != text {
				t.Errorf("%s: %q, %v, want %q", p, b, err2, text)
			}
			continue
		}
		a, err1 := disk.Digest(p)
		b, err2 := tree.Digest(p)
		if a != b || err1 != nil || err2 != nil {
			t.Errorf("%s: digest %v, %v, want %v, %v", p, b, err2, a, err1)
		}
		if id, err := r.Blob(p); id != hex.EncodeToString(a.Blob[:]) || err != nil {
			t.Errorf("%s: blob %s, %v, want %x", p, id, err, a.Blob)
		}
	}
	if _, err := r.ReadFile("ext/nothing"); err == nil {
		t.Error("a file that is not there can be read")
	}
	if _, err := r.Glob("lib", []string{"*"}, nil); err == nil {
		t.Error("a folder that is no package has a glob")
	}

	// What changes afterwards is not seen, ...
	write(t, root, map[string]string{"ext/Foo/i18n/en.json": "new", "ext/New/BUILD": "", "ext/Sub/i18n/en.json": "new", "BUILD": "# new", "rules.bzl": "x"})
	if data, err := r.ReadFile("ext/Foo/i18n/en.json"); err != nil || string(data) != `{"a": "b"}` {
		t.Errorf("after a change: %s, %v", data, err)
	}
	// ... BUILD files of folders that are there aside, if these are wanted.
	if disk, err = Open(t.Context(), root, nil); err != nil {
		t.Fatal(err)
	}
	mixed := r.WithBuildFiles(disk)
	for p, want := range map[string]string{"BUILD": "# new", "rules.bzl": "x", "ext/Foo/i18n/en.json": `{"a": "b"}`, "ext/Sub/i18n/en.json": `{"sub": "1"}`} {
		data, err := mixed.ReadFile(p)
		if err != nil || string(data) != want {
			t.Errorf("mixed: %s: %s, %v, want %s", p, data, err, want)
		}
		id, err := mixed.Blob(p)
		if d, derr := mixed.Digest(p); err != nil || derr != nil || id != hex.EncodeToString(d.Blob[:]) {
			t.Errorf("mixed: %s: blob %s, %v, %v", p, id, err, derr)
		}
	}
	if want := []string{"", "ext/Foo", "ext/Sub"}; !slices.Equal(mixed.Packages(), want) {
		t.Errorf("mixed: packages %q, want %q", mixed.Packages(), want)
	}

	// A submodule that lacks its commit says so; one that is not checked out is empty.
	gitCmd(t, repo, "update-index", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",wiki/ext/Sub")
	gitCmd(t, repo, "commit", "-qm", "another")
	if _, err := OpenRevision(t.Context(), root, "HEAD"); err == nil || !strings.Contains(err.Error(), "the submodule ext/Sub lacks a commit that is recorded for it: run git -C ext/Sub fetch") {
		t.Errorf("a submodule without its commit: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(root, "ext", "Sub")); err != nil {
		t.Fatal(err)
	}
	bare, err := OpenRevision(t.Context(), root, "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "ext/Foo"}; !slices.Equal(bare.Packages(), want) {
		t.Errorf("without the submodule: packages %q, want %q", bare.Packages(), want)
	}
	if err := bare.Close(); err != nil {
		t.Error(err)
	}
}

func TestRevisionErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenRevision(t.Context(), dir, "HEAD"); !errors.Is(err, ErrNoGit) {
		t.Errorf("no checkout: %v", err)
	}
	gitCmd(t, dir, "init", "-q")
	for _, rev := range []string{"HEAD", "nope", "--help", ""} {
		if _, err := OpenRevision(t.Context(), dir, rev); !errors.Is(err, ErrNoRevision) {
			t.Errorf("%q: %v", rev, err)
		}
	}
	write(t, dir, map[string]string{"a": "a"})
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	commit(t, dir)
	r, err := OpenRevision(t.Context(), dir, "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadFile("loop"); err == nil || !strings.Contains(err.Error(), "in a circle") {
		t.Errorf("loop: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.ReadFile("a"); err == nil {
		t.Error("a closed revision can be read")
	}
	if err := os.RemoveAll(filepath.Join(dir, ".git", "objects")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRevision(t.Context(), dir, "HEAD"); err == nil {
		t.Error("a damaged repository can be listed")
	}
	t.Setenv("PATH", "")
	if _, err := OpenRevision(t.Context(), dir, "HEAD"); !errors.Is(err, ErrNoGit) {
		t.Errorf("no git: %v", err)
	}
}
