package workspace

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// ErrNoRevision says that git does not know a revision.
var ErrNoRevision = errors.New("git knows no such revision")

// ErrNoGit says that a workspace is no git checkout, or that there is no git program.
var ErrNoGit = errors.New("revisions are git's")

// A Revision is the workspace as git recorded it: what a working tree would hold, less what .mwbuildignore of that
// revision names. Bytes are those of git's blobs; no clean or smudge filter is applied. A submodule is what its
// recorded commit holds, if it is checked out and has that commit; one that is not checked out is empty, as on disk. It
// may be used concurrently.
type Revision struct {
	Commit string // its full name

	repos  []*repo
	files  map[string]recorded
	listed *Disk // the list of files, with no disk behind it
}

var _ Tree = (*Revision)(nil)

// recorded is one file of a Revision.
type recorded struct {
	File
	blob string // hexadecimal
	repo *repo
	from Tree // where its bytes are, if not in repo
}

// OpenRevision lists the revision rev of the workspace at root, which may lie anywhere in its checkout. Errors are
// [ErrNoRevision] or [ErrNoGit] where one of them is the cause. The caller closes it.
func OpenRevision(ctx context.Context, root, rev string) (*Revision, error) {
	out, err := revisionGit(ctx, root, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err != nil {
		// A revision that is not there is all that --quiet keeps quiet about.
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
			err := fmt.Errorf("%s: %w", rev, ErrNoRevision)
			if out, _ := git(ctx, root, "rev-parse", "--is-shallow-repository"); strings.TrimSpace(string(out)) == "true" {
				err = fmt.Errorf("%w in this shallow clone\n    git fetch --unshallow fetches all that it lacks", err)
			}
			return nil, err
		}
		return nil, err
	}
	r := &Revision{Commit: strings.TrimSpace(string(out)), files: map[string]recorded{}}
	if err := r.list(ctx, root, "", r.Commit); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	err = r.links()
	if err == nil {
		err = r.ignore()
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.index()
	return r, nil
}

// Close ends the programs that read blobs.
func (r *Revision) Close() error {
	var errs []error
	for _, repo := range r.repos {
		errs = append(errs, repo.close())
	}
	return errors.Join(errs...)
}

// WithBuildFiles returns the revision with BUILD, WORKSPACE, .bzl and .star files of another tree in place of its own.
// BUILD files in folders that the revision does not have are left out. r stays open, and must.
func (r *Revision) WithBuildFiles(from Tree) *Revision {
	rules := func(p string) bool {
		base := path.Base(p)
		return base == "BUILD" || base == "WORKSPACE" || path.Ext(p) == ".bzl" || path.Ext(p) == ".star"
	}
	mixed := &Revision{Commit: r.Commit, files: map[string]recorded{}}
	folders := map[string]bool{".": true}
	for p, f := range r.files {
		if rules(p) {
			continue
		}
		mixed.files[p] = f
		for dir := path.Dir(p); !folders[dir]; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	for _, p := range from.Files() {
		if rules(p) && folders[path.Dir(p)] {
			f, _ := from.Lookup(p)
			mixed.files[p] = recorded{File: f, from: from}
		}
	}
	mixed.index()
	return mixed
}

// list adds what commit records in and below the folder dir, which is at prefix in the workspace.
func (r *Revision) list(ctx context.Context, dir, prefix, commit string) error {
	out, err := revisionGit(ctx, dir, "ls-tree", "-r", "-z", commit)
	if err != nil {
		return err
	}
	rp := &repo{ctx: ctx, dir: dir}
	r.repos = append(r.repos, rp)
	for _, line := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		about, name, _ := strings.Cut(line, "\t")
		fields := strings.Fields(about) // mode, type, object
		if len(fields) != 3 {
			continue
		}
		f := recorded{File: File{Path: path.Join(prefix, name)}, blob: fields[2], repo: rp}
		switch fields[0] {
		case "160000":
			sub := filepath.Join(dir, filepath.FromSlash(name))
			if _, err := os.Lstat(filepath.Join(sub, ".git")); err != nil {
				continue
			}
			if err := r.list(ctx, sub, f.Path, fields[2]); err != nil {
				return fmt.Errorf("%w\n    the submodule %s lacks a commit that is recorded for it: run git -C %s fetch", err, f.Path, f.Path)
			}
			continue
		case "120000":
			f.Mode = Symlink
		case "100755":
			f.Mode = Executable
		}
		r.files[f.Path] = f
	}
	return nil
}

// links reads where symlinks lead to.
func (r *Revision) links() error {
	for p, f := range r.files {
		if f.Mode == Symlink {
			target, err := f.read()
			if err != nil {
				return err
			}
			f.Target = string(target)
			r.files[p] = f
		}
	}
	return nil
}

// ignore takes out what .mwbuildignore names.
func (r *Revision) ignore() error {
	f, ok := r.files[ignoreFile]
	if !ok {
		return nil
	}
	text, err := f.read()
	if err != nil {
		return err
	}
	ig, err := parseIgnore(string(text))
	if err != nil {
		return err
	}
	maps.DeleteFunc(r.files, func(p string, _ recorded) bool { return ig.file(p) })
	return nil
}

// index lists the files and finds the packages.
func (r *Revision) index() {
	r.listed = &Disk{}
	for _, f := range r.files {
		r.listed.files = append(r.listed.files, f.File)
	}
	slices.SortFunc(r.listed.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	r.listed.index()
}

// Files returns the paths of all files, sorted.
func (r *Revision) Files() []string { return r.listed.Files() }

// Packages returns the folders that hold a BUILD or BUILD.star, sorted.
func (r *Revision) Packages() []string { return r.listed.Packages() }

// BuildFiles returns which of BUILD and BUILD.star the folder pkg holds.
func (r *Revision) BuildFiles(pkg string) []string { return r.listed.BuildFiles(pkg) }

// Lookup returns the file at path.
func (r *Revision) Lookup(path string) (File, bool) {
	f, ok := r.files[path]
	return f.File, ok
}

// Glob returns the files of package pkg that match; see [Disk.Glob].
func (r *Revision) Glob(pkg string, include, exclude []string) ([]string, error) {
	return r.listed.Glob(pkg, include, exclude)
}

// maxLinks is how many symlinks may follow one another, as on Linux.
const maxLinks = 40

// lookup returns the file that path leads to.
func (r *Revision) lookup(p string) (recorded, error) {
	at := p
	for range maxLinks {
		f, ok := r.files[at]
		switch {
		case !ok:
			return f, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
		case f.Mode != Symlink:
			return f, nil
		}
		at = path.Join(path.Dir(at), f.Target)
	}
	return recorded{}, fmt.Errorf("%s: too many symlinks lead to one another", p)
}

// ReadFile returns the bytes of the file at path. A symlink is followed; a folder that is a symlink is not.
func (r *Revision) ReadFile(path string) ([]byte, error) {
	f, err := r.lookup(path)
	if err != nil {
		return nil, err
	}
	return f.read()
}

// Digest returns the digest of the file at path, which it reads. [Revision.Blob] does not.
func (r *Revision) Digest(path string) (Digest, error) {
	data, err := r.ReadFile(path)
	if err != nil {
		return Digest{}, err
	}
	return digestBytes(data), nil
}

// Blob returns git's name of the bytes at path, hexadecimal: SHA-1 or, where the repository says so, SHA-256.
func (r *Revision) Blob(path string) (string, error) {
	f, err := r.lookup(path)
	if err != nil || f.blob != "" {
		return f.blob, err
	}
	d, err := f.from.Digest(path)
	return hex.EncodeToString(d.Blob[:]), err
}

func (f recorded) read() ([]byte, error) {
	if f.from != nil {
		return f.from.ReadFile(f.Path)
	}
	data, err := f.repo.cat(f.blob)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return data, nil
}

// A repo reads blobs of one repository with one git program, which starts when it is needed.
type repo struct {
	ctx context.Context
	dir string

	mu  sync.Mutex
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err error
}

func (r *repo) cat(blob string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil && r.cmd == nil {
		r.err = r.start()
	}
	if r.err != nil {
		return nil, r.err
	}
	var data []byte
	data, r.err = r.ask(blob)
	if r.err != nil && r.ctx.Err() != nil {
		r.err = r.ctx.Err()
	}
	return data, r.err
}

func (r *repo) start() (err error) {
	r.cmd = gitCommand(r.ctx, r.dir, "cat-file", "--batch")
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	r.out = bufio.NewReaderSize(out, 1<<16)
	return r.cmd.Start()
}

func (r *repo) ask(blob string) ([]byte, error) {
	if _, err := io.WriteString(r.in, blob+"\n"); err != nil {
		return nil, fmt.Errorf("git cat-file: %w", err)
	}
	head, err := r.out.ReadString('\n') // "NAME blob SIZE"
	if err != nil {
		return nil, fmt.Errorf("git cat-file: %w", err)
	}
	fields := strings.Fields(head)
	if len(fields) != 3 || fields[1] != "blob" {
		return nil, fmt.Errorf("git cat-file: %s; run git fsck", strings.TrimSpace(head))
	}
	size, err := strconv.Atoi(fields[2])
	if err != nil {
		return nil, fmt.Errorf("git cat-file: %s: %w", strings.TrimSpace(head), err)
	}
	data := make([]byte, size+1) // and a line feed
	if _, err := io.ReadFull(r.out, data); err != nil {
		return nil, fmt.Errorf("git cat-file: %w", err)
	}
	return data[:size], nil
}

func (r *repo) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	cmd := r.cmd
	r.cmd, r.err = nil, errors.New("the revision is closed")
	if cmd == nil || cmd.Process == nil {
		return nil
	}
	err := r.in.Close()
	if werr := cmd.Wait(); err == nil && r.ctx.Err() == nil {
		err = werr
	}
	return err
}

// revisionGit runs a git command about revisions, which need git.
func revisionGit(ctx context.Context, dir string, args ...string) ([]byte, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return nil, fmt.Errorf("%w, and there is no git program: install git", ErrNoGit)
	}
	out, err := git(ctx, dir, args...)
	if errors.Is(err, errNoGit) {
		return nil, fmt.Errorf("%w, and %s is no git checkout", ErrNoGit, dir)
	}
	return out, err
}

// ReadDigested is ReadFile: a revision does not change.
func (r *Revision) ReadDigested(path string) ([]byte, error) { return r.ReadFile(path) }
