package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"time"
)

// A Source is the commit that a folder of the workspace was at.
type Source struct {
	Commit string // its full name
	Time   time.Time
	Remote string // where origin is, as git's configuration has it: there may be a password in it. "" if there is none
	Prefix string // the folder's path in its repository, "" or ending in a slash
	Dirty  bool   // something below the folder differs from the commit, or is in none
}

// SourceOf asks git about a folder of the tree: the root, "", or that of a checkout in it. It is nil where git knows no commit: outside a repository, without git, and
// before the first one.
func (d *Disk) SourceOf(ctx context.Context, folder string) (*Source, error) {
	dir := d.abs(folder)
	out, err := git(ctx, dir, "rev-parse", "--show-prefix", "--verify", "--quiet", "HEAD^{commit}")
	var exit *exec.ExitError
	if errors.Is(err, errNoGit) || errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	prefix, commit, _ := strings.Cut(strings.TrimSuffix(string(out), "\n"), "\n")
	s := &Source{Commit: commit, Prefix: prefix}
	if out, err = git(ctx, dir, "rev-list", "--max-count=1", "--timestamp", commit, "--"); err != nil {
		return nil, err
	}
	stamp, _, _ := strings.Cut(string(out), " ")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("git rev-list in %s: %q is no time", dir, stamp)
	}
	s.Time = time.Unix(seconds, 0).UTC()
	// What git would fetch may have another address, by url.….insteadOf; that is this machine's matter.
	out, err = git(ctx, dir, "config", "--get", "remote.origin.url")
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return nil, err
	}
	s.Remote = strings.TrimSuffix(string(out), "\n")
	out, err = git(ctx, dir, "status", "--porcelain", "-z", "--untracked-files=normal", "--ignore-submodules=none", "--", ".")
	s.Dirty = len(bytes.TrimSpace(out)) > 0
	return s, err
}

// CheckoutOf returns the folder of the nearest git checkout in the tree, such as a submodule, that a file lies in; "" where that is the workspace's own.
func (d *Disk) CheckoutOf(file string) string {
	for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
		if _, err := os.Lstat(d.abs(dir + "/.git")); err == nil {
			return dir
		}
	}
	return ""
}
