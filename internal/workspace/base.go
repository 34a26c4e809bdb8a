package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// MergeBase returns the commit where the histories of two revisions part, for the repository that dir lies in. Errors are
// [ErrNoRevision] or [ErrNoGit] where one of them is the cause, and say which command helps.
func MergeBase(ctx context.Context, dir, a, b string) (string, error) {
	for _, rev := range []string{a, b} {
		if _, err := resolve(ctx, dir, rev); err != nil {
			return "", err
		}
	}
	out, err := revisionGit(ctx, dir, "merge-base", "--end-of-options", a, b)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
		if shallow(ctx, dir) {
			return "", fmt.Errorf("%s and %s have no commit in common in this shallow clone\n    git fetch --unshallow fetches all history; git fetch --deepen=100 some of it", a, b)
		}
		return "", fmt.Errorf("%s and %s have no commit in common\n    %s..%s compares them as they are", a, b, a, b)
	}
	return strings.TrimSpace(string(out)), err
}

// resolve returns the full name of the commit that rev names.
func resolve(ctx context.Context, dir, rev string) (string, error) {
	out, err := revisionGit(ctx, dir, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	// A revision that is not there is all that --quiet keeps quiet about.
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
		return "", missingRevision(ctx, dir, rev)
	}
	return strings.TrimSpace(string(out)), err
}

// missingRevision says that there is no such revision, and what may bring it.
func missingRevision(ctx context.Context, dir, rev string) error {
	base, _, _ := strings.Cut(rev, "~")
	base, _, _ = strings.Cut(base, "^")
	switch remote, branch, ok := strings.Cut(base, "/"); {
	case ok && isRemote(ctx, dir, remote) && !isRef(ctx, dir, "refs/remotes/"+base):
		deepen := ""
		if shallow(ctx, dir) {
			deepen = "--unshallow " // or the branch would have no commit in common with this one
		}
		return fmt.Errorf("%s: %w\n    git fetch %s%s %s:refs/remotes/%s fetches it, if %s has it",
			rev, ErrNoRevision, deepen, remote, branch, base, remote)
	case shallow(ctx, dir):
		return fmt.Errorf("%s: %w in this shallow clone\n    git fetch --unshallow fetches all that it lacks%s", rev, ErrNoRevision, fetchCommit(ctx, dir, base))
	case fullName.MatchString(base):
		return fmt.Errorf("%s: %w%s", rev, ErrNoRevision, fetchCommit(ctx, dir, base))
	}
	for _, remote := range remotes(ctx, dir) {
		if isRef(ctx, dir, "refs/remotes/"+remote+"/"+base) {
			return fmt.Errorf("%s: %w\n    did you mean %s/%s?", rev, ErrNoRevision, remote, rev)
		}
	}
	if out, err := git(ctx, dir, "rev-parse", "--verify", "--quiet", "HEAD"); err != nil || len(out) == 0 {
		return fmt.Errorf("%s: %w: the repository has no commit yet\n    git commit makes one", rev, ErrNoRevision)
	}
	return fmt.Errorf("%s: %w\n    name a commit, branch or tag, such as HEAD or HEAD~1; git log --oneline lists commits", rev, ErrNoRevision)
}

// fullName is what a commit is called that no branch or tag may point to.
var fullName = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// fetchCommit is a line that says how to get one commit, if name is a full name.
func fetchCommit(ctx context.Context, dir, name string) string {
	if !fullName.MatchString(name) {
		return ""
	}
	remote := "origin"
	if known := remotes(ctx, dir); len(known) > 0 && !slices.Contains(known, remote) {
		remote = known[0]
	}
	return fmt.Sprintf("\n    fetch the commit: git fetch %s %s", remote, name)
}

func shallow(ctx context.Context, dir string) bool {
	out, _ := git(ctx, dir, "rev-parse", "--is-shallow-repository")
	return strings.TrimSpace(string(out)) == "true"
}

func remotes(ctx context.Context, dir string) []string {
	out, _ := git(ctx, dir, "remote")
	return strings.Fields(string(out))
}

func isRemote(ctx context.Context, dir, name string) bool {
	return slices.Contains(remotes(ctx, dir), name)
}

func isRef(ctx context.Context, dir, name string) bool {
	_, err := git(ctx, dir, "show-ref", "--verify", "--quiet", name)
	return err == nil
}

// RepositoryAlone returns the folder of the git repository that dir lies in, if it has no files: if it is bare, or nothing is checked out of
// it and HEAD has a WORKSPACE. Otherwise it is "".
func RepositoryAlone(ctx context.Context, dir string) string {
	out, err := git(ctx, dir, "rev-parse", "--is-bare-repository", "--absolute-git-dir")
	bare, repo, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil {
		return ""
	}
	if bare == "true" {
		return repo
	}
	if out, err = git(ctx, dir, "rev-parse", "--show-toplevel"); err != nil {
		return ""
	}
	top := strings.TrimSuffix(string(out), "\n")
	for _, name := range rootFiles {
		_, there := os.Lstat(filepath.Join(top, name))
		_, recorded := git(ctx, top, "cat-file", "-e", "HEAD:"+name)
		if there != nil && recorded == nil {
			return top
		}
	}
	return ""
}
