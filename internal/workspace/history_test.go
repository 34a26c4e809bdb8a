package workspace

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The history is what commits changed below the workspace, a merge as what it brought.
func TestHistory(t *testing.T) {
	repo := t.TempDir()
	root := filepath.Join(repo, "tree")
	history := func() [][]string {
		t.Helper()
		commits, err := History(context.Background(), root, 3)
		if err != nil {
			t.Fatal(err)
		}
		return commits
	}
	write(t, repo, map[string]string{"tree/a": "1", "tree/b c": "1", "out": "1"})
	if got := history(); got != nil {
		t.Errorf("without git: %v", got)
	}
	gitCmd(t, repo, "init", "-q", "-b", "main")
	if got := history(); got != nil {
		t.Errorf("before a commit: %v", got)
	}
	commit(t, repo)
	gitCmd(t, repo, "checkout", "-q", "-b", "side")
	write(t, repo, map[string]string{"tree/side": "1"})
	commit(t, repo)
	gitCmd(t, repo, "checkout", "-q", "main")
	write(t, repo, map[string]string{"tree/ä": "2", "out": "2"})
	commit(t, repo)
	gitCmd(t, repo, "-c", "user.email=a@b", "-c", "user.name=a", "merge", "-q", "--no-ff", "-m", "merge", "side")
	if diff := cmp.Diff([][]string{{"side"}, {"ä"}, {"a", "b c"}}, history()); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	if err := os.Remove(filepath.Join(root, "a")); err != nil {
		t.Fatal(err)
	}
	commit(t, repo)
	if diff := cmp.Diff([][]string{{"a"}, {"side"}, {"ä"}}, history()); diff != "" {
		t.Errorf("the latest three (-want +got):\n%s", diff)
	}
}
