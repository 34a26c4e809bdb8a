// Package workspace is the tree of files that a build sees.
//
// In a git workspace these are the tracked files and the untracked ones that git does not ignore, without git all files; in
// both, less what the file .mwbuildignore at the root names. A nested git checkout, a submodule for one, is listed by its own
// rules. Of a file there is its path, whether its owner may execute it, a symlink's target, and its bytes. Owner, group, the
// other mode bits and times are no inputs, and directories exist only as part of a path. So a tree on disk and a revision in git
// are the same thing, a [Tree].
//
// A path is relative to the root, slash-separated and clean, and otherwise any bytes: it need not be UTF-8.
package workspace

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Tree is what a build reads its inputs from.
type Tree interface {
	// Files returns the paths of all files, sorted.
	Files() []string
	// Lookup returns the file at path.
	Lookup(path string) (File, bool)
	// ReadFile returns the bytes of the file at path, or of the file of the tree that a symlink there leads to.
	ReadFile(path string) ([]byte, error)
	// Packages returns the folders that hold a BUILD or BUILD.star, sorted; "" is the root.
	Packages() []string
	// BuildFiles returns which of BUILD and BUILD.star the folder pkg holds.
	BuildFiles(pkg string) []string
	// Owned yields the files that belong to package pkg and to none below it, BUILD files included, sorted.
	Owned(pkg string) iter.Seq[File]
	// Glob returns the files of package pkg that match; see [Disk.Glob].
	Glob(pkg string, include, exclude []string) ([]string, error)
	// Digest returns the digest of the file at path.
	Digest(path string) (Digest, error)
	// Blob returns git's name of the bytes at path, or of a symlink's target, hexadecimal.
	Blob(path string) (string, error)
}

var _ Tree = (*Disk)(nil)

// A Mode is what kind of file a file is.
type Mode uint8

const (
	Regular Mode = iota
	Executable
	Symlink
)

func (m Mode) String() string { return [...]string{"regular", "executable", "symlink"}[m] }

// A File is one file of a tree.
type File struct {
	Path   string
	Mode   Mode
	Target string // of a symlink, as it stands there

	special bool // tracked by git, but a socket, fifo or device on disk: an error when read
	stat    stat
}

var buildFiles = []string{"BUILD", "BUILD.star"}

// rootFiles are the names of the file that is at the root of a workspace.
var rootFiles = []string{"WORKSPACE", "WORKSPACE.star"}

// FindRoot returns the nearest folder, dir or one above it, that holds a regular file WORKSPACE or WORKSPACE.star.
func FindRoot(dir string) (root string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find workspace: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		for _, name := range rootFiles {
			if fi, err := os.Lstat(filepath.Join(d, name)); err == nil && fi.Mode().IsRegular() {
				return d, nil
			}
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no WORKSPACE file in %s or a folder above it\n"+
				"make one at the root of the tree (an empty file will do), or say where the tree is with -C DIR", dir)
		}
	}
}

// A Disk is a tree on disk, as it was listed when it was opened. It may be used concurrently.
type Disk struct {
	listing
	root string
	dir  *os.Root        // root; closed with the last reference to it
	top  *os.File        // the same
	dirs map[string]*dir // every folder with a file directly in it
	memo Memo

	kept      kept
	reads     readNotes
	noOpenat2 atomic.Bool // the system does not know it

	onRead func(path string) // for tests: called when a file was read to be hashed
}

// Open lists the tree at root. memo may be nil; it then costs a reading of every file whose digest is asked for.
func Open(ctx context.Context, root string, memo Memo) (*Disk, error) {
	root, err := filepath.Abs(root)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return nil, fmt.Errorf("open workspace: %w", err)
	}
	files, err := list(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("list workspace %s: %w", root, err)
	}
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("open workspace: %w", err)
	}
	top, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open workspace: %w", err)
	}
	return &Disk{listing: newListing(files), root: root, dir: dir, top: top, dirs: folders(files), memo: memo}, nil
}

// folders returns a dir for each folder that holds one of files.
func folders(files []File) map[string]*dir {
	dirs := map[string]*dir{}
	last := "\x00"
	for _, f := range files {
		if folder, _ := split(f.Path); folder != last {
			last = folder
			if dirs[folder] == nil {
				dirs[folder] = &dir{}
			}
		}
	}
	return dirs
}

// split returns the folder of a path, "" for the root, and the name in it.
func split(p string) (folder, name string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

// Ignored tells whether what is at path, or will be, is left out of the tree by git or .mwbuildignore, be it a file or a folder.
func (d *Disk) Ignored(ctx context.Context, path string) bool {
	if ignore, err := readIgnore(d.root); err == nil && (ignore.file(path) || ignore.folder(path)) {
		return true
	}
	_, err := git(ctx, d.root, "check-ignore", "--", path, path+"/")
	return err == nil
}

// Root returns the absolute path of the root, free of symlinks.
func (d *Disk) Root() string { return d.root }

// lookup is Lookup with an error that says why there is no such file.
func (d *Disk) lookup(path string) (File, error) {
	f, ok := d.Lookup(path)
	if ok {
		return f, nil
	}
	err := &fs.PathError{Op: "read", Path: path, Err: fs.ErrNotExist}
	if !filepath.IsLocal(filepath.FromSlash(path)) {
		return f, err
	}
	fi, serr := os.Lstat(d.abs(path))
	switch {
	case serr != nil:
		return f, err
	case fi.IsDir():
		return f, fmt.Errorf("%w: it is a folder", err)
	}
	return f, fmt.Errorf("%w in the workspace: git or .mwbuildignore ignores it, or it is newer than the build", err)
}

func (d *Disk) abs(path string) string { return filepath.Join(d.root, filepath.FromSlash(path)) }

// Resolve follows symlinks, and returns the path of the file that path leads to: itself, where there is no symlink. It looks at
// the tree only, so a symlink to a file that the tree does not hold is an error.
func (d *Disk) Resolve(p string) (string, error) {
	if p != path.Clean(p) || !filepath.IsLocal(filepath.FromSlash(p)) {
		_, err := d.lookup(p)
		return "", err
	}
	at, links, err := d.follow(p)
	if links > 0 {
		d.reads.linked.Store(true)
	}
	if err != nil {
		return "", err
	}
	if _, err := d.lookup(at); err != nil {
		if links > 0 {
			err = fmt.Errorf("symlink %s: %w", p, err)
		}
		return "", err
	}
	return at, nil
}

// ReadFile returns the bytes of the file at path. A symlink is followed inside the tree; the [Digest] of what was read is then
// that of the path that [Disk.Resolve] returns.
func (d *Disk) ReadFile(path string) ([]byte, error) {
	r, err := d.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// With room for all of it, ReadFrom does not grow by and by.
	var b bytes.Buffer
	if f, ok := r.(*os.File); ok {
		if fi, err := f.Stat(); err == nil {
			b.Grow(int(min(fi.Size(), 64<<20)) + bytes.MinRead)
		}
	}
	if _, err := b.ReadFrom(r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b.Bytes(), nil
}

// Open opens the file at path for reading, and follows symlinks as [Disk.ReadFile] does. The bytes are those on disk now: who
// packs them compares with the digest.
func (d *Disk) Open(path string) (io.ReadCloser, error) {
	at, err := d.Resolve(path)
	if err != nil {
		return nil, err
	}
	f, err := d.lookup(at)
	if err != nil {
		return nil, err
	}
	r, err := d.open(f)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// open opens a listed file that is no symlink. A symlink that took the place of the file, or of a folder above it, since the
// tree was listed is not followed out of the root.
func (d *Disk) open(f File) (*os.File, error) {
	fd, st, err := d.openFD(f)
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, &ChangedError{Path: f.Path, What: "no regular file any more"}
	}
	d.reads.note(f, statOf(&st))
	return os.NewFile(uintptr(fd), d.abs(f.Path)), nil
}

// openFD is open for whoever reads thousands of small files, for which an os.File does too much. What it opens may be anything.
func (d *Disk) openFD(f File) (fd int, st unix.Stat_t, err error) {
	if f.special {
		return -1, st, specialError(f.Path)
	}
	fd, err = d.openBelow(f.Path)
	if err == nil {
		if err = unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
		}
	}
	if isGone(err) {
		return -1, st, &ChangedError{Path: f.Path, What: "deleted"}
	}
	if err != nil {
		return -1, st, fmt.Errorf("read %s: %w", f.Path, err)
	}
	return fd, st, nil
}

// openFlags do not wait at a fifo.
const openFlags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC

// openBelow opens what is at path, by no symlink that leads out of the root.
func (d *Disk) openBelow(path string) (int, error) {
	for !d.noOpenat2.Load() {
		fd, err := unix.Openat2(int(d.top.Fd()), path, &unix.OpenHow{Flags: openFlags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR, unix.EAGAIN: // a rename somewhere meanwhile
			continue
		case unix.ENOSYS, unix.EPERM: // an old kernel, or a sandbox
			d.noOpenat2.Store(true)
		default:
			return -1, err
		}
	}
	// The same, folder by folder.
	r, err := d.dir.OpenFile(filepath.FromSlash(path), openFlags, 0)
	if err != nil {
		return -1, err
	}
	defer r.Close()
	return unix.FcntlInt(r.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

func specialError(path string) error {
	return fmt.Errorf("%s is a socket, fifo or device: nothing can be built from it\n"+
		"remove it, or name it in .mwbuildignore", path)
}
