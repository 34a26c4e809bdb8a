package workspace

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sourceOf(t *testing.T, root, folder string) *Source {
	t.Helper()
	s, err := open(t, root, nil).SourceOf(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSourceOf(t *testing.T) {
	top := t.TempDir()
	sub := filepath.Join(top, "sub")
	write(t, sub, map[string]string{"BUILD": ""})
	gitCmd(t, sub, "init", "-q")
	commit(t, sub)

	repo := filepath.Join(top, "repo")
	root := filepath.Join(repo, "wiki")
	write(t, root, map[string]string{"WORKSPACE": "", "BUILD": "", ".gitignore": "*.log\n", "a/b/c": ""})
	if s := sourceOf(t, root, ""); s != nil {
		t.Errorf("no repository: %+v", s)
	}
	gitCmd(t, repo, "init", "-q")
	if s := sourceOf(t, root, ""); s != nil {
		t.Errorf("no commit: %+v", s)
	}
	t.Setenv("GIT_COMMITTER_DATE", "2026-02-03T04:05:06+01:00")
	gitCmd(t, repo, "submodule", "--quiet", "add", sub, "wiki/ext/Sub")
	commit(t, repo)
	head := gitCmd(t, repo, "rev-parse", "HEAD")
	want := Source{Commit: head, Time: time.Date(2026, 2, 3, 3, 5, 6, 0, time.UTC), Prefix: "wiki/"}
	check := func(what string) {
		t.Helper()
		if diff := cmp.Diff(&want, sourceOf(t, root, "")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("a commit")

	// The address is that of the configuration, which is what everybody has; insteadOf is this machine's.
	gitCmd(t, repo, "remote", "add", "origin", "https://me:secret@git.example/a")
	gitCmd(t, repo, "config", "url.https://other:secret@mirror.example/.insteadOf", "https://me:secret@git.example/")
	want.Remote = "https://me:secret@git.example/a"
	check("with a remote")

	write(t, root, map[string]string{"x.log": ""})
	write(t, repo, map[string]string{"outside": ""})
	check("what is ignored or outside")
	for what, c := range map[string]struct{ file, text string }{
		"untracked": {"new", ""}, "changed": {"a/b/c", "x"}, "untracked in the submodule": {"ext/Sub/new", ""},
	} {
		was, err := os.ReadFile(filepath.Join(root, c.file))
		write(t, root, map[string]string{c.file: c.text})
		want.Dirty = true
		check(what)
		want.Dirty = false
		if err == nil {
			err = os.WriteFile(filepath.Join(root, c.file), was, 0o644)
		} else {
			err = os.Remove(filepath.Join(root, c.file))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	check("as before")

	// A submodule is asked itself.
	s := sourceOf(t, root, "ext/Sub")
	if s == nil || s.Commit != gitCmd(t, sub, "rev-parse", "HEAD") || s.Prefix != "" || s.Dirty || s.Remote != sub {
		t.Errorf("the submodule: %+v", s)
	}
	d := open(t, root, nil)
	for file, want := range map[string]string{"a/b/c": "", "WORKSPACE": "", "ext/Sub/BUILD": "ext/Sub", "ext/Sub/a/b": "ext/Sub", "ext/x": ""} {
		if got := d.CheckoutOf(file); got != want {
			t.Errorf("CheckoutOf(%s) = %q, want %q", file, got, want)
		}
	}
}
