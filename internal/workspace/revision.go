package workspace

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	listing
	Commit string // its full name
	// Absent are the submodules that are not checked out, by path: the commit that is recorded for each. Their files are
	// not in the tree.
	Absent map[string]string

	repos []*repo
	blobs []blob // of listing.files
	read  sync.Map
}

var _ Tree = (*Revision)(nil)

// A blob is where the bytes of one file are.
type blob struct {
	id   string // git's name, hexadecimal, in
	repo *repo  // or else
	from Tree   // which has the file at the same path
}

// recorded is one file of a Revision.
type recorded struct {
	File
	blob
}

// OpenRevision lists the revision rev of the workspace at root, which may lie anywhere in its checkout. Errors are
// [ErrNoRevision] or [ErrNoGit] where one of them is the cause. The caller closes it.
func OpenRevision(ctx context.Context, root, rev string) (*Revision, error) {
	commit, err := resolve(ctx, root, rev)
	if err != nil {
		return nil, err
	}
	r := &Revision{Commit: commit, Absent: map[string]string{}}
	files, err := r.list(ctx, root, "", r.Commit)
	if err == nil {
		err = links(files)
	}
	if err == nil {
		r.index(files)
		err = r.ignore(files)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
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
	var files []recorded
	folders := map[string]bool{".": true}
	for i, f := range r.files {
		if rules(f.Path) {
			continue
		}
		files = append(files, recorded{f, r.blobs[i]})
		for dir := path.Dir(f.Path); !folders[dir]; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	for _, p := range from.Files() {
		if rules(p) && folders[path.Dir(p)] {
			f, _ := from.Lookup(p)
			files = append(files, recorded{f, blob{from: from}})
		}
	}
	mixed := &Revision{Commit: r.Commit, Absent: r.Absent}
	mixed.index(files)
	return mixed
}

// list returns what commit records in and below the folder dir, which is at prefix in the workspace.
func (r *Revision) list(ctx context.Context, dir, prefix, commit string) ([]recorded, error) {
	out, err := revisionGit(ctx, dir, "ls-tree", "-r", "-z", commit)
	if err != nil {
		return nil, err
	}
	rp := &repo{ctx: ctx, dir: dir}
	r.repos = append(r.repos, rp)
	files := make([]recorded, 0, bytes.Count(out, []byte{0}))
	// One entry is "MODE TYPE OBJECT<tab>PATH<nul>"; all of them share the text.
	for rest := string(out); rest != ""; {
		entry, after, _ := strings.Cut(rest, "\x00")
		rest = after
		about, name, _ := strings.Cut(entry, "\t")
		mode, object, _ := strings.Cut(about, " ")
		_, id, ok := strings.Cut(object, " ")
		if !ok {
			continue
		}
		f := recorded{File{Path: join(prefix, name)}, blob{id: id, repo: rp}}
		switch mode {
		case "160000":
			sub := filepath.Join(dir, filepath.FromSlash(name))
			if _, err := os.Lstat(filepath.Join(sub, ".git")); err != nil {
				r.Absent[f.Path] = id
				continue
			}
			more, err := r.list(ctx, sub, f.Path, id)
			if err != nil {
				return nil, fmt.Errorf("%w\n    the submodule %s lacks a commit that is recorded for it: run git -C %s fetch", err, f.Path, f.Path)
			}
			files = append(files, more...)
			continue
		case "120000":
			f.Mode = Symlink
		case "100755":
			f.Mode = Executable
		}
		files = append(files, f)
	}
	return files, nil
}

// links reads where symlinks lead to.
func links(files []recorded) error {
	absent := map[*repo][]string{}
	for _, f := range files {
		if f.Mode == Symlink {
			absent[f.repo] = append(absent[f.repo], f.id)
		}
	}
	for repo, ids := range absent {
		repo.fetch(ids)
	}
	for i, f := range files {
		if f.Mode == Symlink {
			target, err := f.read()
			if err != nil {
				return err
			}
			files[i].Target = string(target)
		}
	}
	return nil
}

// ignore takes out what .mwbuildignore names.
func (r *Revision) ignore(files []recorded) error {
	text, err := r.ReadFile(ignoreFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ig, err := parseIgnore(string(text))
	if err == nil {
		r.index(slices.DeleteFunc(files, func(f recorded) bool { return ig.file(f.Path) }))
	}
	return err
}

// index makes the listing.
func (r *Revision) index(files []recorded) {
	// Git's order is that of paths, but for what stands in submodules.
	byPath := func(a, b recorded) int { return strings.Compare(a.Path, b.Path) }
	if !slices.IsSortedFunc(files, byPath) {
		slices.SortFunc(files, byPath)
	}
	list := make([]File, len(files))
	r.blobs = make([]blob, len(files))
	for i, f := range files {
		list[i], r.blobs[i] = f.File, f.blob
	}
	r.listing = newListing(list)
}

// lookup returns the file that p leads to. It follows symlinks as [Disk.Resolve] does.
func (r *Revision) lookup(p string) (recorded, error) {
	at, _, err := r.follow(p)
	if err != nil {
		return recorded{}, err
	}
	i, ok := slices.BinarySearch(r.paths, at)
	if !ok {
		return recorded{}, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return recorded{r.files[i], r.blobs[i]}, nil
}

// ReadFile returns the bytes of the file at path. Symlinks are followed, those of folders too.
func (r *Revision) ReadFile(path string) ([]byte, error) {
	f, err := r.lookup(path)
	if err != nil {
		return nil, err
	}
	if text, ok := r.read.Load(f.id); ok && f.repo != nil {
		return text.([]byte), nil
	}
	return f.read()
}

// Prefetch reads the files at paths, all of them in one go, for [Revision.ReadFile] to have them at hand.
func (r *Revision) Prefetch(paths []string) error {
	ids := map[*repo][]string{}
	for _, p := range paths {
		if i, ok := slices.BinarySearch(r.paths, p); ok && r.files[i].Mode != Symlink && r.blobs[i].repo != nil {
			ids[r.blobs[i].repo] = append(ids[r.blobs[i].repo], r.blobs[i].id)
		}
	}
	for repo, ids := range ids {
		repo.fetch(ids)
		if err := repo.catAll(ids, func(id string, text []byte) { r.read.Store(id, text) }); err != nil {
			return err
		}
	}
	return nil
}

// Digest returns the digest of the file at path, which it reads. [Revision.Blob] does not.
func (r *Revision) Digest(path string) (Digest, error) {
	data, err := r.ReadFile(path)
	if err != nil {
		return Digest{}, err
	}
	return digestBytes(data), nil
}

// Blob returns git's name of the bytes at path, or of a symlink's target, hexadecimal: SHA-1 or, where the repository says so,
// SHA-256. Nothing is read.
func (r *Revision) Blob(path string) (string, error) {
	i, ok := slices.BinarySearch(r.paths, path)
	if !ok {
		return "", &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if b := r.blobs[i]; b.repo != nil {
		return b.id, nil
	}
	return r.blobs[i].from.Blob(path)
}

func (f recorded) read() ([]byte, error) {
	if f.from != nil {
		return f.from.ReadFile(f.Path)
	}
	data, err := f.repo.cat(f.id)
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
	var data []byte
	r.try(func() (err error) {
		if _, err := io.WriteString(r.in, blob+"\n"); err != nil {
			return fmt.Errorf("git cat-file: %w", err)
		}
		data, err = r.answer()
		return err
	})
	return data, r.err
}

// catAll calls got with each blob.
func (r *repo) catAll(blobs []string, got func(blob string, data []byte)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.try(func() error {
		asked := make(chan error, 1)
		go func() {
			_, err := io.WriteString(r.in, strings.Join(blobs, "\n")+"\n")
			asked <- err
		}()
		for _, b := range blobs {
			data, err := r.answer()
			if err != nil {
				return err
			}
			got(b, data)
		}
		return <-asked
	})
	return r.err
}

// fetch gets what of blobs a partial clone left out, in one go: git would ask for each when it is read. What cannot be had is
// an error there.
func (r *repo) fetch(blobs []string) {
	if len(blobs) < 2 {
		return
	}
	remote := r.promisor()
	if remote == "" {
		return
	}
	cmd := gitCommand(r.ctx, r.dir, "-c", "fetch.negotiationAlgorithm=noop", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head",
		"--no-recurse-submodules", "--filter=blob:none", "--stdin", remote)
	cmd.Stdin = strings.NewReader(strings.Join(blobs, "\n") + "\n")
	_ = cmd.Run()
}

// promisor is the remote that has what a partial clone lacks, "" in a clone that is whole.
func (r *repo) promisor() string {
	out, err := git(r.ctx, r.dir, "config", "--get-regexp", `^remote\..*\.promisor$`, "^true$")
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	line = strings.TrimSuffix(strings.TrimPrefix(line, "remote."), " true")
	return strings.TrimSuffix(line, ".promisor")
}

// try runs f with the program at work. What goes wrong once stays wrong: the program's answers would be to other questions.
func (r *repo) try(f func() error) {
	if r.err == nil && r.cmd == nil {
		r.err = r.start()
	}
	if r.err == nil {
		r.err = f()
	}
	switch {
	case r.err == nil:
	case r.ctx.Err() != nil:
		r.err = r.ctx.Err()
	case errors.Is(r.err, io.EOF) && r.promisor() != "":
		r.err = fmt.Errorf("%w\n    this is a partial clone, which gets files when they are needed: see that git fetch %s works", r.err, r.promisor())
	}
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

// answer reads what the program says of one blob.
func (r *repo) answer() ([]byte, error) {
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
		return nil, fmt.Errorf("%w, and %s is no git checkout\n    git clone gets one with its history; git init begins one", ErrNoGit, dir)
	}
	return out, err
}

// ReadDigested is ReadFile: a revision does not change.
func (r *Revision) ReadDigested(path string) ([]byte, error) { return r.ReadFile(path) }
