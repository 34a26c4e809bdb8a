package workspace

import (
	"context"
	"strconv"
	"strings"
)

// History returns the paths that each of the latest commits changed, at most n of them, the latest first: those below root, and of a submodule its folder. Of a
// merge it is what that brought. It is empty without git, and before the first commit.
func History(ctx context.Context, root string, n int) (commits [][]string, err error) {
	if _, err := git(ctx, root, "rev-parse", "--verify", "--quiet", "HEAD"); err != nil {
		return nil, ctx.Err()
	}
	const begin = "\x01" // of a commit; nobody names a file so
	out, err := git(ctx, root, "log", "-n", strconv.Itoa(n), "--format=%x01", "--name-only", "-z", "--relative", "-m", "--first-parent")
	if err != nil {
		return nil, err
	}
	for _, field := range strings.Split(string(out), "\x00") {
		if field == begin {
			commits = append(commits, nil)
		} else if path := strings.TrimPrefix(field, "\n"); path != "" && len(commits) > 0 {
			at := len(commits) - 1
			commits[at] = append(commits[at], path)
		}
	}
	return commits, nil
}
