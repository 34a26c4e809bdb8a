package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// repository makes a git repository with one commit, and returns a function that makes another one on the branch it stands on.
func repository(t *testing.T) (dir string, next func(name string) string) {
	t.Helper()
	dir = t.TempDir()
	write(t, dir, map[string]string{"WORKSPACE": ""})
	gitCmd(t, dir, "init", "-q", "-b", "main")
	next = func(name string) string {
		write(t, dir, map[string]string{name: name})
		gitCmd(t, dir, "add", "-A")
		gitCmd(t, dir, "commit", "-qm", name)
		return gitCmd(t, dir, "rev-parse", "HEAD")
	}
	next("first")
	return dir, next
}

func TestMergeBase(t *testing.T) {
	dir, next := repository(t)
	fork := next("fork")
	gitCmd(t, dir, "tag", "-a", "-m", "annotated", "v1")
	gitCmd(t, dir, "checkout", "-qb", "side")
	next("side")
	side := next("side2")
	gitCmd(t, dir, "checkout", "-q", "main")
	main := next("main")
	sub := filepath.Join(dir, "folder")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ dir, a, b, want string }{
		{dir, "side", "main", fork},
		{dir, "main", "side", fork},
		{sub, "side", "HEAD", fork},
		{dir, "v1", "main", fork},
		{dir, "main~1", "side~2", fork},
		{dir, "main", "main", main},
		{dir, side, side[:12], side},
	} {
		if got, err := MergeBase(t.Context(), tc.dir, tc.a, tc.b); got != tc.want || err != nil {
			t.Errorf("MergeBase(%s, %s) = %s, %v, want %s", tc.a, tc.b, got, err, tc.want)
		}
	}
	// A repository without files is a workspace: one that is bare, or of which nothing is checked out.
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	bare, empty := filepath.Join(top, "x.git"), filepath.Join(top, "empty")
	gitCmd(t, dir, "clone", "-q", "--bare", dir, bare)
	gitCmd(t, dir, "clone", "-q", "--no-checkout", dir, empty)
	for at, want := range map[string]string{bare: bare, filepath.Join(bare, "refs"): bare, empty: empty, top: "", dir: ""} {
		if repo := RepositoryAlone(t.Context(), at); repo != want {
			t.Errorf("RepositoryAlone(%s) = %q, want %q", at, repo, want)
		}
	}
}

// Whatever is not there, the error says what gets it.
func TestMissingRevision(t *testing.T) {
	dir, next := repository(t)
	gitCmd(t, dir, "branch", "topic")
	next("second")
	none := strings.Repeat("1", 40)
	clone := filepath.Join(t.TempDir(), "clone")
	gitCmd(t, dir, "clone", "-q", "file://"+dir, clone)
	shallow := filepath.Join(t.TempDir(), "shallow")
	gitCmd(t, dir, "clone", "-q", "--depth=1", "-o", "up", "file://"+dir, shallow)
	gitCmd(t, shallow, "fetch", "-q", "--depth=1", "up", "topic:refs/remotes/up/topic")
	empty := t.TempDir()
	gitCmd(t, empty, "init", "-q")
	const commitHint = "\n    name a commit, branch or tag, such as HEAD or HEAD~1; git log --oneline lists commits"
	for _, tc := range []struct {
		dir, rev, want string
		is             error
	}{
		{dir, "nope", "nope: git knows no such revision" + commitHint, ErrNoRevision},
		{dir, "--all", "--all: git knows no such revision" + commitHint, ErrNoRevision},
		{dir, "HEAD~9", "HEAD~9: git knows no such revision" + commitHint, ErrNoRevision},
		{dir, "HEAD:first", "HEAD:first: git knows no such revision" + commitHint, ErrNoRevision},
		{dir, "origin/main", "origin/main: git knows no such revision" + commitHint, ErrNoRevision},
		{dir, none, none + ": git knows no such revision\n    fetch the commit: git fetch origin " + none, ErrNoRevision},
		{clone, "topic", "topic: git knows no such revision\n    did you mean origin/topic?", ErrNoRevision},
		{clone, "topic~1", "topic~1: git knows no such revision\n    did you mean origin/topic~1?", ErrNoRevision},
		{clone, "origin/other", "origin/other: git knows no such revision\n    git fetch origin other:refs/remotes/origin/other fetches it, if origin has it", ErrNoRevision},
		{shallow, "HEAD~1", "HEAD~1: git knows no such revision in this shallow clone\n    git fetch --unshallow fetches all that it lacks", ErrNoRevision},
		{shallow, "up/other^", "up/other^: git knows no such revision\n    git fetch --unshallow up other:refs/remotes/up/other fetches it, if up has it", ErrNoRevision},
		{shallow, none + "~2", none + "~2: git knows no such revision in this shallow clone\n    git fetch --unshallow fetches all that it lacks" +
			"\n    fetch the commit: git fetch up " + none, ErrNoRevision},
		{shallow, "up/topic", "up/topic and HEAD have no commit in common in this shallow clone\n    git fetch --unshallow fetches all history; git fetch --deepen=100 some of it", nil},
		{empty, "HEAD", "HEAD: git knows no such revision: the repository has no commit yet\n    git commit makes one", ErrNoRevision},
	} {
		_, err := MergeBase(t.Context(), tc.dir, tc.rev, "HEAD")
		if err == nil || err.Error() != tc.want || tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("MergeBase(%s):\n%v\nwant\n%s", tc.rev, err, tc.want)
		}
	}
	gitCmd(t, dir, "checkout", "-q", "--orphan", "alone")
	next("alone")
	if _, err := MergeBase(t.Context(), dir, "main", "alone"); err == nil || err.Error() != "main and alone have no commit in common\n    main..alone compares them as they are" {
		t.Errorf("without a common commit: %v", err)
	}
	if _, err := MergeBase(t.Context(), t.TempDir(), "a", "b"); !errors.Is(err, ErrNoGit) || !strings.Contains(err.Error(), "is no git checkout\n    git clone") {
		t.Errorf("outside of git: %v", err)
	}
	t.Setenv("PATH", "")
	if _, err := MergeBase(t.Context(), dir, "a", "b"); !errors.Is(err, ErrNoGit) || !strings.Contains(err.Error(), "install git") {
		t.Errorf("without git: %v", err)
	}
}
