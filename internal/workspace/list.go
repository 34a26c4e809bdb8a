package workspace

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// list returns the files of the tree at root, sorted.
func list(ctx context.Context, root string) ([]File, error) {
	ignore, err := readIgnore(root)
	if err != nil {
		return nil, err
	}
	l := &lister{root: root, ignore: ignore}
	return l.checkout(ctx, "")
}

type lister struct {
	root   string
	ignore *ignore
}

func (l *lister) abs(p string) string { return filepath.Join(l.root, filepath.FromSlash(p)) }

// checkout returns the files of the folder dir, the root or a nested git checkout: as git lists it, or all where git does not
// know it.
func (l *lister) checkout(ctx context.Context, dir string) ([]File, error) {
	if files, ok, err := l.tracked(ctx, dir); ok || err != nil {
		return files, err
	}
	names, err := gitFiles(ctx, l.abs(dir))
	if errors.Is(err, errNoGit) {
		names, err = l.walk(ctx, dir)
	} else {
		below(dir, names)
	}
	if err != nil {
		return nil, err
	}
	return l.stat(ctx, names)
}

// tracked is checkout for the most common case, done in less time: while git looks through all folders for what it does not
// track, the files that it does track are looked at already. It is not ok where git's index, which both commands read, may
// have been written meanwhile, and where git has little to list or complains.
func (l *lister) tracked(ctx context.Context, dir string) (files []File, ok bool, err error) {
	before, ok := indexStat(l.abs(dir))
	if !ok {
		return nil, false, nil
	}
	g, gctx := errgroup.WithContext(ctx)
	var others []string
	g.Go(func() (err error) {
		others, err = lsFiles(gctx, l.abs(dir), "--others", "--exclude-standard")
		return err
	})
	var statErr error
	g.Go(func() error {
		names, err := lsFiles(gctx, l.abs(dir), "--cached")
		if err != nil || len(names) == 0 {
			return err
		}
		below(dir, names)
		files, statErr = l.stat(gctx, names)
		return nil
	})
	if err := g.Wait(); err != nil || len(files) == 0 && statErr == nil {
		return nil, false, ctx.Err()
	}
	if after, ok := indexStat(l.abs(dir)); !ok || after != before {
		return nil, false, nil
	}
	if statErr != nil {
		return nil, false, statErr
	}
	if len(others) == 0 {
		return files, true, nil
	}
	below(dir, others)
	more, err := l.stat(ctx, others)
	if err != nil {
		return nil, false, err
	}
	return merge(files, more), true, nil
}

// indexStat finds the index of the git checkout that dir is in, and what tells that it was written.
func indexStat(dir string) (st stat, ok bool) {
	for ; ; dir = filepath.Dir(dir) {
		var dot, index unix.Stat_t
		if lstat(filepath.Join(dir, ".git"), &dot) == nil {
			if dot.Mode&unix.S_IFMT != unix.S_IFDIR || lstat(filepath.Join(dir, ".git", "index"), &index) != nil {
				return st, false // of a worktree or submodule, or none
			}
			return statOf(&index), true
		}
		if dir == filepath.Dir(dir) {
			return st, false
		}
	}
}

// below makes names in dir names in the tree.
func below(dir string, names []string) {
	if dir == "" {
		return
	}
	for i, n := range names {
		names[i] = dir + "/" + n
	}
}

// errNoGit says that a folder is in no git repository.
var errNoGit = errors.New("not a git checkout")

// gitFiles returns the names of the files that git tracks or would track, relative to dir. A name that ends in a slash is an
// untracked nested checkout; a submodule has none.
func gitFiles(ctx context.Context, dir string) ([]string, error) {
	names, err := lsFiles(ctx, dir, "--cached", "--others", "--exclude-standard")
	if err == nil && len(names) == 0 {
		// Empty, or inside a checkout that ignores all of it: then git has no say in what it holds.
		if _, err := git(ctx, dir, "check-ignore", "-q", "."); err == nil {
			return nil, errNoGit
		}
	}
	return names, err
}

func lsFiles(ctx context.Context, dir string, which ...string) ([]string, error) {
	out, err := git(ctx, dir, append([]string{"ls-files", "-z"}, which...)...)
	if err != nil || len(out) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), nil
}

// localEnv are the variables by which a git hook or alias points its children at one repository.
var localEnv = []string{
	"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY",
	"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_IMPLICIT_WORK_TREE", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_INTERNAL_SUPER_PREFIX",
	"GIT_OPTIONAL_LOCKS", "LC_ALL",
}

// readOptions have git start no file system monitor, which would live on, and tell changes of files by all their times, also
// where the user settles for less.
var readOptions = []string{"-c", "core.fsmonitor=false", "-c", "core.trustCTime=true", "-c", "core.checkStat=default"}

// gitCommand is a git command that reads.
func gitCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", slices.Concat(readOptions, args)...)
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return slices.Contains(localEnv, k)
	})
	cmd.Env = append(cmd.Env, "GIT_OPTIONAL_LOCKS=0", "LC_ALL=C")
	return cmd
}

func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := gitCommand(ctx, dir, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	msg := strings.TrimSpace(errs.String())
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		// Listing a checkout without git would let ignored files into images.
		for d := dir; ; d = filepath.Dir(d) {
			if _, err := os.Lstat(filepath.Join(d, ".git")); err == nil {
				return nil, fmt.Errorf("%s is a git checkout, and there is no git program to list it\ninstall git", d)
			}
			if d == filepath.Dir(d) {
				return nil, errNoGit
			}
		}
	case strings.Contains(msg, "not a git repository (or any"):
		return nil, errNoGit
	case strings.Contains(msg, "dubious ownership"):
		return nil, fmt.Errorf("git refuses to read %s, which belongs to another user\n"+
			"if you trust it, run: git config --global --add safe.directory %s", dir, safeDirectory(msg, dir))
	}
	return nil, fmt.Errorf("git %s in %s: %w\n%s", args[0], dir, err, msg)
}

// safeDirectory returns the repository that git's message names, which can lie above dir.
func safeDirectory(msg, dir string) string {
	_, rest, ok := strings.Cut(msg, "'")
	if repo, _, ok2 := strings.Cut(rest, "'"); ok && ok2 {
		return repo
	}
	return dir
}

// walk lists all files under dir, except what .mwbuildignore names and git's own. A git checkout in it is listed by git.
func (l *lister) walk(ctx context.Context, dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(l.abs(dir), func(abs string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if e.Name() == ".git" {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(l.root, abs)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch t := e.Type(); {
		case name == ".":
		case e.IsDir():
			if l.ignore.folder(name) {
				return fs.SkipDir
			}
			if name != dir && l.isCheckout(name) {
				names = append(names, name+"/")
				return fs.SkipDir
			}
		case t.IsRegular() || t&fs.ModeSymlink != 0:
			names = append(names, name)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w\nname it in .mwbuildignore if no build needs it", err)
	}
	return names, err
}

func (l *lister) isCheckout(dir string) bool {
	_, err := os.Lstat(l.abs(dir + "/.git"))
	return err == nil
}

// stat finds out what names are, lists the nested checkouts among them, and returns the files, sorted. Names that are not on
// disk, as of files deleted but still tracked, are passed over.
func (l *lister) stat(ctx context.Context, names []string) ([]File, error) {
	files, nested, err := l.statAll(ctx, names)
	if err != nil || len(nested) == 0 {
		return files, err
	}
	more := make([][]File, len(nested))
	err = parallel(ctx, len(nested), func(i int) (err error) {
		more[i], err = l.checkout(ctx, nested[i])
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	return merge(files, more...), nil
}

// merge returns all the files, sorted, each once.
func merge(files []File, more ...[]File) []File {
	files = append(files, slices.Concat(more...)...)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return slices.CompactFunc(files, func(a, b File) bool { return a.Path == b.Path })
}

// statAll returns the files among names, sorted, and the nested checkouts, whose files are not among them.
func (l *lister) statAll(ctx context.Context, names []string) (list []File, nested []string, err error) {
	names = slices.DeleteFunc(names, func(n string) bool { return l.ignore.file(strings.TrimSuffix(n, "/")) })
	slices.Sort(names)
	names = slices.Compact(names) // git names a file in a merge conflict more than once

	// A folder on the way to a name may be a symlink, if git still has a name from when it was none.
	folders := l.folders(names)
	real := make(map[string]bool, len(folders))
	infos := make([]unix.Stat_t, len(folders))
	err = parallel(ctx, len(folders), func(i int) error { return lstat(l.abs(folders[i]), &infos[i]) }, isGone)
	if err != nil {
		return nil, nil, err
	}
	for i, f := range folders { // sorted, so what is above comes first
		up, _ := split(f)
		real[f] = infos[i].Mode&unix.S_IFMT == unix.S_IFDIR && (f == "" || real[up])
	}

	files := make([]File, len(names))
	nested = make([]string, len(names))
	found := make([]bool, len(names))
	err = parallel(ctx, len(names), func(i int) error {
		name := strings.TrimSuffix(names[i], "/")
		folder, _ := split(name)
		if !real[folder] {
			return nil
		}
		var st unix.Stat_t
		if err := lstat(l.abs(name), &st); err != nil {
			return err
		}
		f := File{Path: name, stat: statOf(&st)}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if st.Mode&0o100 != 0 {
				f.Mode = Executable
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(l.abs(name))
			if err != nil {
				return err
			}
			f.Mode, f.Target = Symlink, target
		case unix.S_IFDIR:
			// A submodule that was not fetched has no .git, nor files of its own.
			if l.isCheckout(name) {
				nested[i] = name
			}
			return nil
		default:
			f.special = true
		}
		files[i], found[i] = f, true
		return nil
	}, isGone)
	if err != nil {
		return nil, nil, err
	}

	n := 0
	for i, ok := range found {
		if ok {
			files[n] = files[i]
			n++
		}
	}
	files = files[:n]
	nested = slices.DeleteFunc(nested, func(s string) bool { return s == "" })
	return files, nested, nil
}

// folders returns every folder on the way to names, sorted.
func (l *lister) folders(names []string) []string {
	seen := map[string]bool{"": true}
	last := ""
	for _, n := range names {
		f, _ := split(strings.TrimSuffix(n, "/"))
		if f == last {
			continue
		}
		last = f
		for !seen[f] {
			seen[f] = true
			f, _ = split(f)
		}
	}
	folders := make([]string, 0, len(seen))
	for f := range seen {
		folders = append(folders, f)
	}
	slices.Sort(folders)
	return folders
}

// isGone reports whether a name that git has is not on disk.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// parallel calls f for 0 to n-1, several at once, until one returns an error that is not to be passed over.
func parallel(ctx context.Context, n int, f func(i int) error, pass func(error) bool) error {
	return parallelN(ctx, n, 2*runtime.GOMAXPROCS(0), f, pass)
}

func parallelN(parent context.Context, n, jobs int, f func(i int) error, pass func(error) bool) error {
	g, ctx := errgroup.WithContext(parent)
	chunk := min(max(1, n/(8*jobs)), 256)
	g.SetLimit(jobs)
	for start := 0; start < n && ctx.Err() == nil; start += chunk {
		g.Go(func() error {
			for i := start; i < min(start+chunk, n); i++ {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := f(i); err != nil && (pass == nil || !pass(err)) {
					return err
				}
			}
			return nil
		})
	}
	return cmp.Or(g.Wait(), parent.Err())
}

// An ignore is what .mwbuildignore says: one doublestar pattern per line, anchored at the root. A pattern that ends in a slash
// names folders, any other files and folders; of a folder it means everything in it.
type ignore struct {
	any, onlyFolders []pattern

	mu      sync.Mutex
	folders map[string]bool // what folder returned
}

const ignoreFile = ".mwbuildignore"

func readIgnore(root string) (*ignore, error) {
	b, err := os.ReadFile(filepath.Join(root, ignoreFile))
	if errors.Is(err, fs.ErrNotExist) {
		return &ignore{}, nil
	}
	if err != nil {
		return nil, err
	}
	return parseIgnore(string(b))
}

func parseIgnore(text string) (*ignore, error) {
	ig := &ignore{folders: map[string]bool{}}
	var errs []error
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fail := func(msg string) { errs = append(errs, fmt.Errorf("%s:%d: %s: %s", ignoreFile, i+1, line, msg)) }
		if line[0] == '!' {
			fail("a pattern cannot take back another; name what to leave out only")
			continue
		}
		p := strings.TrimPrefix(line, "/")
		name := strings.TrimSuffix(p, "/")
		c, err := compile(name)
		switch {
		case err != nil:
			fail(err.Error())
		case name != p:
			ig.onlyFolders = append(ig.onlyFolders, c)
		default:
			ig.any = append(ig.any, c)
		}
	}
	return ig, errors.Join(errs...)
}

func (ig *ignore) empty() bool { return len(ig.any)+len(ig.onlyFolders) == 0 }

// folder reports whether a folder, or one above it, is named.
func (ig *ignore) folder(name string) bool {
	if ig.empty() {
		return false
	}
	ig.mu.Lock()
	defer ig.mu.Unlock()
	return ig.within(name)
}

func (ig *ignore) within(name string) bool {
	if name == "" {
		return false
	}
	if v, ok := ig.folders[name]; ok {
		return v
	}
	up, _ := split(name)
	v := ig.within(up) || matchAny(ig.any, name) || matchAny(ig.onlyFolders, name)
	ig.folders[name] = v
	return v
}

// file reports whether a file, or a folder above it, is named.
func (ig *ignore) file(name string) bool {
	if ig.empty() {
		return false
	}
	folder, _ := split(name)
	return ig.folder(folder) || matchAny(ig.any, name)
}
