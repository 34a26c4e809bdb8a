package workspace

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// names returns git's name of each file of the worktree.
func names(t testing.TB, root string) map[string]string {
	t.Helper()
	d, err := Open(context.Background(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWorktree(context.Background(), d)
	ids := map[string]string{}
	for _, p := range w.Files() {
		if ids[p], err = w.Blob(p); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// recordedNames returns those of a revision.
func recordedNames(t testing.TB, root, rev string) map[string]string {
	t.Helper()
	r, err := OpenRevision(context.Background(), root, rev)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ids := map[string]string{}
	for _, p := range r.Files() {
		if ids[p], err = r.Blob(p); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// TestWorktreeIsTheNextCommit changes files in every way, and compares their names with those that a commit of all would give
// them; git's index stays as it is.
func TestWorktreeIsTheNextCommit(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		for _, folder := range []string{".", "a wiki"} {
			t.Run(format+" "+folder, func(t *testing.T) {
				repo := t.TempDir()
				root := filepath.Join(repo, folder)
				write(t, root, map[string]string{
					"WORKSPACE": "", "same": "same", "edited": "1", "staged": "1", "both": "1", "mode": "1", "gone": "1", "unstaged": "1",
					"kind": "1", "link": "-> same", "ü/a b": "1", "cr.txt": "a\r\nb\r\n", "clean.crlf": "a\nb\n", "touched.crlf": "a\nb\n", "ident.id": "$Id$\n", "typed": "1",
					".gitattributes": "*.crlf text eol=crlf\n*.txt text\n*.id ident\n",
				})
				gitCmd(t, repo, "init", "-q", "--object-format="+format)
				gitCmd(t, repo, "add", "-A")
				gitCmd(t, repo, "commit", "-qm", "all")
				for _, f := range []string{"clean.crlf", "touched.crlf", "ident.id"} {
					if err := os.Remove(filepath.Join(root, f)); err != nil {
						t.Fatal(err)
					}
					gitCmd(t, root, "checkout", "-q", "--", f)
				}
				if b, err := os.ReadFile(filepath.Join(root, "clean.crlf")); string(b) != "a\r\nb\r\n" || err != nil {
					t.Fatalf("git checked out %q, %v", b, err)
				}
				if diff := cmp.Diff(recordedNames(t, root, "HEAD"), names(t, root)); diff != "" {
					t.Errorf("nothing changed (-HEAD +worktree):\n%s", diff)
				}

				write(t, root, map[string]string{"staged": "2", "both": "2"})
				gitCmd(t, repo, "add", "-A")
				write(t, root, map[string]string{
					"both": "3", "edited": "2", "mode": "#!1", "kind": "-> same", "link": "-> edited", "ü/a b": "2", "cr.txt": "a\r\nc\r\n", "new.crlf": "a\r\n", "new.txt": "x\r\n",
					"new\nline": "x", `"quote`: "x", `back\slash`: "x", "tab\t": "x", "ü/new": "-> nowhere", "return\r": "x", " space ": "x", "new.id": "$Id: abc $\n",
				})
				if err := errors.Join(os.Remove(filepath.Join(root, "gone")), os.Chtimes(filepath.Join(root, "touched.crlf"), time.Unix(1, 0), time.Unix(1, 0))); err != nil {
					t.Fatal(err)
				}
				gitCmd(t, root, "rm", "-q", "--cached", "unstaged")
				write(t, root, map[string]string{"intent": "x"})
				gitCmd(t, root, "add", "-N", "intent")

				index := filepath.Join(repo, ".git", "index")
				if err := os.Chtimes(index, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
					t.Fatal(err)
				}
				got := names(t, root)
				if fi, err := os.Stat(index); err != nil || !fi.ModTime().Equal(time.Unix(1, 0)) {
					t.Errorf("the index was written: %v, %v", fi.ModTime(), err)
				}
				gitCmd(t, repo, "add", "-A")
				gitCmd(t, repo, "commit", "-qm", "next")
				want := recordedNames(t, root, "HEAD")
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("names (-next commit +worktree):\n%s", diff)
				}
				if len(want) != 27 {
					t.Errorf("only %d files: %q", len(want), slices.Sorted(maps.Keys(want)))
				}
			})
		}
	}
}

// TestWorktreeProperty does the same with random changes of a few files, some staged.
func TestWorktreeProperty(t *testing.T) {
	repo := t.TempDir()
	write(t, repo, map[string]string{"WORKSPACE": "", ".gitattributes": "*.txt text eol=crlf\n"})
	gitCmd(t, repo, "init", "-q")
	commit(t, repo)
	files := []string{"a", "b.txt", "d/c", "d/e.txt", "f ü"}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 6).Draw(rt, "changes") {
			f := rapid.SampledFrom(files).Draw(rt, "file")
			switch text := rapid.SampledFrom([]string{"1", "a\n", "a\r\n", "#!x", "-> a", "gone", "stage", "reset"}).Draw(rt, "text"); text {
			case "gone":
				os.Remove(filepath.Join(repo, f))
			case "stage":
				gitCmd(t, repo, "add", "-A")
			case "reset":
				gitCmd(t, repo, "reset", "-q")
			default:
				write(t, repo, map[string]string{f: text})
			}
		}
		got := names(t, repo)
		gitCmd(t, repo, "add", "-A")
		gitCmd(t, repo, "commit", "-q", "--allow-empty", "-m", "next")
		if diff := cmp.Diff(recordedNames(t, repo, "HEAD"), got); diff != "" {
			rt.Fatalf("names (-next commit +worktree):\n%s", diff)
		}
	})
}

// Submodules are named by what stands in them; one that is not there is told.
func TestWorktreeSubmodules(t *testing.T) {
	sub := t.TempDir()
	write(t, sub, map[string]string{"x": "1", "y.crlf": "a\n", ".gitattributes": "*.crlf text eol=crlf\n"})
	commit(t, sub)
	repo := t.TempDir()
	write(t, repo, map[string]string{"wiki/WORKSPACE": ""})
	commit(t, repo)
	gitCmd(t, repo, "submodule", "--quiet", "add", sub, "wiki/ext/S")
	gitCmd(t, repo, "submodule", "--quiet", "add", sub, "wiki/ext/T")
	gitCmd(t, repo, "commit", "-qam", "submodules")
	root := filepath.Join(repo, "wiki")
	if diff := cmp.Diff(recordedNames(t, root, "HEAD"), names(t, root)); diff != "" {
		t.Errorf("nothing changed (-HEAD +worktree):\n%s", diff)
	}
	write(t, root, map[string]string{"ext/S/x": "2", "ext/S/new.crlf": "n\r\n"})
	got := names(t, root)
	gitCmd(t, filepath.Join(root, "ext/S"), "add", "-A")
	gitCmd(t, filepath.Join(root, "ext/S"), "commit", "-qm", "two")
	id := gitCmd(t, filepath.Join(root, "ext/T"), "rev-parse", "HEAD")
	gitCmd(t, repo, "add", "-A")
	gitCmd(t, repo, "commit", "-qm", "two")
	if diff := cmp.Diff(recordedNames(t, root, "HEAD"), got); diff != "" {
		t.Errorf("a submodule changed (-next commit +worktree):\n%s", diff)
	}
	gitCmd(t, repo, "submodule", "--quiet", "deinit", "-f", "wiki/ext/T")
	w := NewWorktree(t.Context(), open(t, root, nil))
	absent, err := w.Absent()
	if diff := cmp.Diff(map[string]string{"ext/T": id}, absent); diff != "" || err != nil {
		t.Errorf("absent: %v (-want +got):\n%s", err, diff)
	}
	if _, err := w.Blob("ext/S/x"); err != nil {
		t.Error(err)
	}
}

func TestWorktreeErrors(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"WORKSPACE": "", "a": "a"})
	d := open(t, root, nil)
	if _, err := NewWorktree(t.Context(), d).Blob("a"); !errors.Is(err, ErrNoGit) {
		t.Errorf("outside of git: %v", err)
	}
	commit(t, root)
	d = open(t, root, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewWorktree(ctx, d).Blob("a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := NewWorktree(t.Context(), d).Blob("nothing"); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("no such file: %v", err)
	}
	// What changes between the listing and the question is an error, or the new bytes; never a wrong name for the old.
	write(t, root, map[string]string{"new": "n"})
	d = open(t, root, nil)
	if err := os.Remove(filepath.Join(root, "new")); err != nil {
		t.Fatal(err)
	}
	if id, err := NewWorktree(t.Context(), d).Blob("new"); err == nil {
		t.Errorf("a file that went has the name %s", id)
	} else if !strings.Contains(fmt.Sprint(err), "new") {
		t.Errorf("a file that went: %v", err)
	}
}
