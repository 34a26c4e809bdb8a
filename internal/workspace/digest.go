package workspace

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Digest identifies a file's bytes, or a symlink's target. Mode and path are no part of it.
type Digest struct {
	SHA256 [32]byte
	Blob   [20]byte // git's blob id of these bytes; it is not the index's where a clean filter or eol conversion applies
	Size   int64
}

// A ChangedError says that a file is not, or does not stay, what it was when the tree was listed. Building again helps.
type ChangedError struct {
	Path string
	What string // what happened to it: "changed", "deleted", …
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s was %s while mwbuild was reading the workspace: build again", e.Path, e.What)
}

// A Memo keeps digests between builds: one value per directory, by its absolute path. It may lose values. A value that is not
// as it was stored is ignored. Load may be called concurrently.
type Memo interface {
	Load(absDir string) ([]byte, bool)
	Store(byDir map[string][]byte) error
}

// A dir is what is known of the digests of the files directly in one folder.
type dir struct {
	mu     sync.Mutex
	loaded bool
	memo   map[string]memoEntry // by name; from the memo and to go there
	known  map[string]Digest    // by name; found in this process
	dirty  bool                 // memo has what the Memo has not
}

// Digest returns the digest of the file at path; a symlink is not followed. It reads the file only when the memo does not know
// it with the same size, times and inode. The error is a *[ChangedError] when the file does not hold still, or has become
// something else since the tree was listed.
func (d *Disk) Digest(path string) (Digest, error) {
	f, err := d.lookup(path)
	if err != nil {
		return Digest{}, err
	}
	folder, name := split(path)
	dir := d.dirs[folder]
	dir.mu.Lock()
	dir.load(d.memo, d.abs(folder))
	sum, ok := dir.known[name]
	e, remembered := dir.memo[name]
	if !ok && remembered && e.stat == f.stat && !f.special {
		sum, ok = e.digest(), true
		dir.known[name] = sum
	}
	dir.mu.Unlock()
	if ok {
		return sum, nil
	}

	sum, st, err := d.hash(f)
	if err != nil {
		return Digest{}, err
	}
	racy := st.racy(time.Now())
	dir.mu.Lock()
	defer dir.mu.Unlock()
	dir.known[name] = sum
	if !racy {
		dir.memo[name] = memoEntry{st, sum.SHA256, sum.Blob}
		dir.dirty = true
	}
	return sum, nil
}

// Blob returns the blob id of the bytes at path, or of a symlink's target; see [Digest].
func (d *Disk) Blob(path string) (string, error) {
	sum, err := d.Digest(path)
	return hex.EncodeToString(sum.Blob[:]), err
}

// load fills in dir from the memo, once.
func (d *dir) load(m Memo, absDir string) {
	if d.loaded {
		return
	}
	d.loaded = true
	d.known = map[string]Digest{}
	if m != nil {
		if b, ok := m.Load(absDir); ok {
			d.memo, _ = decodeMemo(b) // what is broken is not known
		}
	}
	if d.memo == nil {
		d.memo = map[string]memoEntry{}
	}
}

// DigestAll finds the digests of paths, as [Disk.Digest] does, with up to jobs at once. It returns the first error.
func (d *Disk) DigestAll(ctx context.Context, paths []string, jobs int) error {
	return parallelN(ctx, len(paths), max(1, jobs), func(i int) error {
		_, err := d.Digest(paths[i])
		return err
	}, nil)
}

// FlushMemo hands what was found out since to the memo. Files changed so recently that another change might not show in their
// times are left out.
func (d *Disk) FlushMemo() error {
	if d.memo == nil {
		return nil
	}
	out := map[string][]byte{}
	var flushed []*dir
	for folder, dir := range d.dirs {
		dir.mu.Lock()
		if dir.dirty {
			for name := range dir.memo {
				if _, ok := d.Lookup(join(folder, name)); !ok {
					delete(dir.memo, name)
				}
			}
			out[d.abs(folder)] = encodeMemo(dir.memo)
			flushed = append(flushed, dir)
		}
		dir.mu.Unlock()
	}
	if len(out) == 0 {
		return nil
	}
	if err := d.memo.Store(out); err != nil {
		return fmt.Errorf("remember digests of files: %w", err)
	}
	for _, dir := range flushed {
		dir.mu.Lock()
		dir.dirty = false
		dir.mu.Unlock()
	}
	return nil
}

func join(folder, name string) string {
	if folder == "" {
		return name
	}
	return folder + "/" + name
}

// hash reads a file, or a symlink's target, and returns what it was when it was read.
func (d *Disk) hash(f File) (Digest, stat, error) {
	if f.special {
		return Digest{}, stat{}, specialError(f.Path)
	}
	for range 3 {
		sum, st, err := d.hashOnce(f)
		if err != errUnstable {
			return sum, st, err
		}
	}
	return Digest{}, stat{}, &ChangedError{Path: f.Path, What: "changed"}
}

var errUnstable = errors.New("changed while being read")

func (d *Disk) hashOnce(f File) (Digest, stat, error) {
	if f.Mode == Symlink {
		return d.hashLink(f)
	}
	fd, st, err := d.openFD(f)
	if err != nil {
		return Digest{}, stat{}, err
	}
	defer unix.Close(fd)
	before, err := d.same(f, &st)
	if err != nil {
		return Digest{}, stat{}, err
	}
	sum, bytes, err := digestFD(fd, before.size, d.kept.reserve(f.Path, before.size))
	if err != nil {
		if errors.As(err, new(syscall.Errno)) {
			err = fmt.Errorf("read %s: %w", f.Path, err)
		}
		return Digest{}, stat{}, err
	}
	if d.onRead != nil {
		d.onRead(f.Path)
	}
	// Another file at the path shows too: it takes a link from this one, which changes its time.
	if err := unix.Fstat(fd, &st); err != nil {
		return Digest{}, stat{}, fmt.Errorf("read %s: %w", f.Path, err)
	}
	after, err := d.same(f, &st)
	if err == nil && after != before {
		if _, err = d.restat(f); err == nil {
			err = errUnstable
		}
	}
	if err == nil && bytes != nil {
		d.kept.put(f.Path, bytes)
	}
	return sum, after, err
}

func (d *Disk) hashLink(f File) (Digest, stat, error) {
	before, err := d.restat(f)
	if err != nil {
		return Digest{}, stat{}, err
	}
	target, err := os.Readlink(d.abs(f.Path))
	if err != nil || target != f.Target {
		return Digest{}, stat{}, &ChangedError{Path: f.Path, What: "changed"}
	}
	if d.onRead != nil {
		d.onRead(f.Path)
	}
	after, err := d.restat(f)
	if err == nil && after != before {
		err = errUnstable
	}
	return digestBytes([]byte(target)), after, err
}

// restat looks at a file anew. It must be what it was when the tree was listed, but may have other bytes.
func (d *Disk) restat(f File) (stat, error) {
	var st unix.Stat_t
	if err := lstat(d.abs(f.Path), &st); err != nil {
		if isGone(err) {
			return stat{}, &ChangedError{Path: f.Path, What: "deleted"}
		}
		return stat{}, err
	}
	return d.same(f, &st)
}

// same tells whether st is that of a file as it was listed, but for its bytes.
func (d *Disk) same(f File, st *unix.Stat_t) (stat, error) {
	mode, kind := Regular, st.Mode&unix.S_IFMT
	switch {
	case kind == unix.S_IFLNK:
		mode = Symlink
	case st.Mode&0o100 != 0:
		mode = Executable
	}
	if mode != f.Mode || kind != unix.S_IFLNK && kind != unix.S_IFREG {
		return stat{}, &ChangedError{Path: f.Path, What: "changed in mode"}
	}
	d.reads.note(f, statOf(st))
	return statOf(st), nil
}

// kept is bytes that were read to be digested and will be read again soon.
type kept struct {
	mu   sync.Mutex
	want map[string]bool
	data map[string][]byte
	room int64
}

// Keep keeps the bytes of paths when their digests are found by reading, until [Disk.ReadDigested] takes them; at most room
// bytes of them. It must not be called while digests are being found.
func (d *Disk) Keep(paths []string, room int64) {
	d.kept.want = make(map[string]bool, len(paths))
	for _, p := range paths {
		d.kept.want[p] = true
	}
	d.kept.data, d.kept.room = map[string][]byte{}, room
}

// reserve makes room for the bytes of a file that should be kept.
func (k *kept) reserve(path string, size int64) []byte {
	if !k.want[path] {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if size > k.room {
		return nil
	}
	k.room -= size
	return make([]byte, 0, size+1)
}

func (k *kept) put(path string, b []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.data[path] = b
}

func (k *kept) take(path string) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.data[path]
	delete(k.data, path)
	k.room += int64(len(b))
	return b
}

// ReadDigested returns the bytes of the file at path, which have the digest that [Disk.Digest] tells; otherwise it is a
// *[ChangedError].
func (d *Disk) ReadDigested(path string) ([]byte, error) {
	want, err := d.Digest(path)
	if err != nil {
		return nil, err
	}
	if b := d.kept.take(path); b != nil {
		return b, nil
	}
	b, err := d.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(b) != want.SHA256 {
		return nil, &ChangedError{Path: path, What: "changed"}
	}
	return b, nil
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// digestFD reads an open file of that size. If keep is not nil, it returns the bytes in it. Whoever calls it looks afterwards whether the file
// is still the same.
func digestFD(fd int, size int64, keep []byte) (Digest, []byte, error) {
	s256, s1 := sha256.New(), sha1.New()
	io.WriteString(s1, "blob "+strconv.FormatInt(size, 10)+"\x00")
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	buf := *pooled
	var n int64
	for n < size || size == 0 {
		if keep != nil {
			buf = keep[n:cap(keep)]
		}
		k, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Digest{}, nil, err
		}
		if k == 0 {
			break
		}
		s256.Write(buf[:k])
		s1.Write(buf[:k])
		if n += int64(k); n > size {
			return Digest{}, nil, errUnstable
		}
	}
	if n != size {
		return Digest{}, nil, errUnstable
	}
	d := Digest{Size: n}
	s256.Sum(d.SHA256[:0])
	s1.Sum(d.Blob[:0])
	if keep != nil {
		keep = keep[:n]
	}
	return d, keep, nil
}

func digestBytes(b []byte) Digest {
	blob := append([]byte("blob "+strconv.Itoa(len(b))+"\x00"), b...)
	return Digest{sha256.Sum256(b), sha1.Sum(blob), int64(len(b))}
}
