// Package layer makes and reads the blobs that layers are.
//
// [Pack] turns entries into a tar+zstd blob whose bytes depend on the entries alone: neither their order, nor the
// machine, its clock, umask or number of cores enter. [Walk] and [Open] read layers that others made, [Normalise]
// repacks one of those by our own rules.
package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/graph/action"
)

// PackerVersion stands in the key of everything packed. It rises whenever the same entries would become other bytes, be it
// by a change here, in archive/tar or in the compressor; a golden test notices.
const PackerVersion = 2

// A Kind says what an [Entry] is.
type Kind uint8

// The kinds of entries. Devices, sockets and fifos cannot be packed.
const (
	File Kind = iota
	Symlink
	Dir
	Hardlink // to another entry of the same layer
)

// An Entry is one thing to pack.
type Entry struct {
	Path   string // slash-separated, clean, relative to the image's root
	Kind   Kind
	Exec   bool   // of a file: mode 0755, else 0644
	Target string // of a symlink: its text, kept as it is; of a hard link: the Path of another entry
	Owner  action.Owner
	Size   int64    // of a file
	SHA256 [32]byte // of a file's bytes; zero is not checked
	Open   func() (io.ReadCloser, error)
}

// Options says how entries are packed.
type Options struct {
	Owner action.Owner // of directories that are not entries but contain one
}

// ChangedError says that a file did not have the bytes it was announced with when it was packed. Building again will
// see the new ones.
type ChangedError struct {
	Path string // in the layer
	Err  error  // what differs
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s changed while it was being packed: %v; build again", e.Path, e.Err)
}

func (e *ChangedError) Unwrap() error { return e.Err }

// Pack writes entries as one layer to b.
//
// The tar in it is sorted by path and holds every directory above an entry (0755, opt.Owner) whether it is an entry or
// not; note that such a directory gives its mode and owner to the one in a layer below. Files have mode 0644 or 0755, directories 0755,
// symlinks 0777; all times are the Unix epoch and there are no user or group names. Of hard links to one file, the first in the
// order holds the bytes. A name is PAX-encoded only where ustar cannot hold it.
//
// One path twice is an error, unless both are directories of the same owner. So are paths below a file or symlink, and
// names beginning ".wh.", which would delete files of lower layers. A file whose bytes do not match its Size and SHA256
// is a *[ChangedError]. After any error, nothing is recorded.
func Pack(ctx context.Context, b image.Blobs, entries []Entry, opt Options) (image.Layer, error) {
	items, err := plan(entries, opt.Owner)
	if err != nil {
		return image.Layer{}, err
	}
	return write(ctx, b, items)
}

// An item is a tar header and where the bytes come from. The header's names are clean, without a slash at either end.
type item struct {
	tar.Header
	sum  [32]byte // zero is not checked
	open func() (io.ReadCloser, error)
}

const whiteoutPrefix = ".wh."

func isWhiteout(name string) bool { return strings.HasPrefix(path.Base(name), whiteoutPrefix) }

// sortKey orders a directory before what is in it, and in a directory whiteouts first, for whoever applies them one by one.
func sortKey(name string) string {
	if !isWhiteout(name) {
		return name
	}
	dir, base := path.Split(name)
	return dir + "\x00" + base
}

func sortItems(items []*item) {
	slices.SortFunc(items, func(a, b *item) int { return strings.Compare(sortKey(a.Name), sortKey(b.Name)) })
}

// plan makes sorted items of entries, with the directories above them.
func plan(entries []Entry, owner action.Owner) ([]*item, error) {
	items := make([]*item, 0, len(entries)+len(entries)/4)
	byName := make(map[string]*item, cap(items))
	add := func(e Entry) error {
		it, err := newItem(e)
		if err != nil {
			return err
		}
		if old := byName[e.Path]; old != nil {
			if e.Kind == Dir && old.Typeflag == tar.TypeDir && old.Uid == it.Uid && old.Gid == it.Gid {
				return nil
			}
			return fmt.Errorf("%s is put into the layer twice", e.Path)
		}
		byName[e.Path] = it
		items = append(items, it)
		return nil
	}
	for _, e := range entries {
		if err := add(e); err != nil {
			return nil, err
		}
	}
	for _, e := range entries {
		for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
			if up := byName[dir]; up == nil {
				if err := add(Entry{Path: dir, Kind: Dir, Owner: owner}); err != nil {
					return nil, err
				}
			} else if up.Typeflag != tar.TypeDir {
				return nil, fmt.Errorf("%s is no directory, but %s is put below it", dir, e.Path)
			} else {
				break // and so are those above it, or will be
			}
		}
	}
	sortItems(items)
	return items, settleLinks(items, byName, true)
}

func newItem(e Entry) (*item, error) {
	if !fs.ValidPath(e.Path) || e.Path == "." || strings.ContainsRune(e.Path, 0) {
		return nil, fmt.Errorf("%q is no clean path relative to the image's root", e.Path)
	}
	if isWhiteout(e.Path) {
		return nil, fmt.Errorf("%s: a name that begins with %q means a deletion in an image; rename the file or exclude it", e.Path, whiteoutPrefix)
	}
	it := &item{open: e.Open, sum: e.SHA256}
	it.Name = e.Path
	it.Uid, it.Gid = e.Owner.UID, e.Owner.GID
	switch e.Kind {
	case File:
		it.Typeflag, it.Mode, it.Size = tar.TypeReg, 0o644, e.Size
		if e.Exec {
			it.Mode = 0o755
		}
		if e.Size < 0 || e.Open == nil && e.Size > 0 {
			return nil, fmt.Errorf("%s: a file entry needs a size and Open", e.Path)
		}
	case Symlink:
		it.Typeflag, it.Mode, it.Linkname = tar.TypeSymlink, 0o777, e.Target
		if e.Target == "" || strings.ContainsRune(e.Target, 0) {
			return nil, fmt.Errorf("%s: a symlink to %q cannot be packed", e.Path, e.Target)
		}
	case Dir:
		it.Typeflag, it.Mode = tar.TypeDir, 0o755
	case Hardlink:
		it.Typeflag, it.Mode, it.Linkname = tar.TypeLink, 0o644, e.Target
	default:
		return nil, fmt.Errorf("%s: unknown kind of entry %d", e.Path, e.Kind)
	}
	return it, nil
}

// settleLinks lets the first of each group of hard links, in the order of items, hold the bytes, and the others link
// to it: whoever extracts one by one finds it there, and the result does not depend on which link was the file. strict makes a
// target that is not in the layer an error; without it such a link is kept.
func settleLinks(items []*item, byName map[string]*item, strict bool) error {
	groups := map[*item][]*item{} // by the item with the bytes, in order
	for _, it := range items {
		if it.Typeflag != tar.TypeLink {
			continue
		}
		data := it
		for hops := 0; data != nil && data.Typeflag == tar.TypeLink; hops++ {
			if hops > len(items) {
				return fmt.Errorf("%s: hard links lead in a circle", it.Name)
			}
			data = byName[data.Linkname]
		}
		switch {
		case data != nil && data.Typeflag != tar.TypeDir:
			groups[data] = append(groups[data], it)
		case strict || data != nil:
			return fmt.Errorf("%s is a hard link to %s, which is no file of the layer", it.Name, it.Linkname)
		}
	}
	for data, links := range groups {
		// links are sorted, as items are: the first takes data's place if it comes before it.
		if first := links[0]; sortKey(first.Name) < sortKey(data.Name) {
			first.swapContent(data)
			data, links[0] = first, data
		}
		for _, l := range links {
			l.Header = tar.Header{
				Typeflag: tar.TypeLink, Name: l.Name, Linkname: data.Name,
				Mode: data.Mode, Uid: data.Uid, Gid: data.Gid,
			}
		}
	}
	return nil
}

// swapContent exchanges everything but the names.
func (it *item) swapContent(o *item) {
	*it, *o = *o, *it
	it.Name, o.Name = o.Name, it.Name
}

// A packer holds the memory that one layer needs, to be used again for the next.
type packer struct {
	zstd *zstd.Encoder
	out  *bufio.Writer // to the store
	in   *gatherer     // from the tar writer
	diff hash.Hash     // over the tar
	file hash.Hash     // over the file being copied
	buf  []byte
}

// A gatherer gathers small writes. What is as large as its buffer goes on as it is.
type gatherer struct {
	w   io.Writer
	buf []byte
}

func (g *gatherer) Write(b []byte) (int, error) {
	if len(g.buf)+len(b) > cap(g.buf) {
		if err := g.Flush(); err != nil {
			return 0, err
		}
	}
	if len(b) >= cap(g.buf) {
		return g.w.Write(b)
	}
	g.buf = append(g.buf, b...)
	return len(b), nil
}

func (g *gatherer) Flush() error {
	_, err := g.w.Write(g.buf)
	g.buf = g.buf[:0]
	return err
}

// Everything here enters the compressed bytes, and with them PackerVersion.
func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(8<<20),     // the most that every decoder must be ready for (RFC 8878, 3.1.1.1.2)
		zstd.WithEncoderConcurrency(1), // more makes the bytes depend on timing
		zstd.WithConcurrentBlocks(false),
		zstd.WithEncoderCRC(true),
	)
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

var packers = sync.Pool{New: func() any {
	p := &packer{zstd: newEncoder(), diff: sha256.New(), file: sha256.New(), buf: make([]byte, 256<<10)}
	p.out = bufio.NewWriterSize(io.Discard, 256<<10)
	p.in = &gatherer{buf: make([]byte, 0, len(p.buf))}
	return p
}}

// compress streams what fill writes into b as zstd.
func compress(ctx context.Context, b image.Blobs, fill func(*packer, io.Writer) error) (image.Layer, error) {
	p := packers.Get().(*packer)
	defer packers.Put(p)
	var l image.Layer
	d, err := b.Ingest(ctx, ocispecs.MediaTypeImageLayerZstd, func(w io.Writer) error {
		p.diff.Reset()
		p.out.Reset(w)
		p.zstd.Reset(p.out)
		defer p.zstd.Reset(nil) // an encoder that failed is as good as new
		p.in.w, p.in.buf = io.MultiWriter(p.diff, p.zstd), p.in.buf[:0]
		if err := fill(p, p.in); err != nil {
			return err
		}
		if err := p.in.Flush(); err != nil {
			return err
		}
		if err := p.zstd.Close(); err != nil {
			return err
		}
		l.DiffID = digest.NewDigest(digest.SHA256, p.diff)
		return p.out.Flush()
	})
	if err != nil {
		return image.Layer{}, err
	}
	l.Descriptor = ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerZstd, Digest: d.Digest, Size: d.Size}
	return l, nil
}

// Compress stores the uncompressed tar r as a zstd layer, as it is.
func Compress(ctx context.Context, b image.Blobs, r io.Reader) (image.Layer, error) {
	return compress(ctx, b, func(p *packer, w io.Writer) error {
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := r.Read(p.buf)
			if _, werr := w.Write(p.buf[:n]); werr != nil {
				return werr
			}
			if err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
}

// write packs sorted items.
func write(ctx context.Context, b image.Blobs, items []*item) (image.Layer, error) {
	return compress(ctx, b, func(p *packer, w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, it := range items {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := p.add(tw, it); err != nil {
				return err
			}
		}
		return tw.Close()
	})
}

func (p *packer) add(tw *tar.Writer, it *item) error {
	h := it.Header
	h.ModTime = time.Unix(0, 0)
	if h.Typeflag == tar.TypeDir {
		h.Name += "/" // of the root: "./"
		if h.Name == "/" {
			h.Name = "./"
		}
	}
	if err := tw.WriteHeader(&h); err != nil {
		return fmt.Errorf("%s: %w", it.Name, err)
	}
	if h.Typeflag != tar.TypeReg || it.open == nil {
		return nil
	}
	r, err := it.open()
	if errors.Is(err, fs.ErrNotExist) {
		return &ChangedError{it.Name, err}
	} else if err != nil {
		return fmt.Errorf("%s: %w", it.Name, err)
	}
	defer r.Close()
	return p.copy(tw, r, it)
}

// InMemory is what Open may return of bytes that are in memory: they are read where they are.
type InMemory interface {
	io.ReadCloser
	Bytes() []byte // those that are not read yet
}

// copy moves the bytes of it, which must be those announced.
func (p *packer) copy(w io.Writer, r io.Reader, it *item) error {
	check := it.sum != [32]byte{}
	p.file.Reset()
	next := func() ([]byte, error) {
		n, err := r.Read(p.buf)
		return p.buf[:n], err
	}
	if m, ok := r.(InMemory); ok {
		rest := m.Bytes()
		next = func() (chunk []byte, err error) {
			chunk, rest = rest[:min(len(rest), len(p.buf))], rest[min(len(rest), len(p.buf)):]
			if len(rest) == 0 {
				err = io.EOF
			}
			return chunk, err
		}
	}
	var size int64
	for {
		chunk, err := next()
		if size += int64(len(chunk)); size > it.Size {
			return &ChangedError{it.Name, fmt.Errorf("more than the %d bytes seen before", it.Size)}
		}
		if check {
			p.file.Write(chunk)
		}
		if _, werr := w.Write(chunk); werr != nil {
			return werr
		}
		if err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("%s: %w", it.Name, err)
		}
	}
	if size < it.Size {
		return &ChangedError{it.Name, fmt.Errorf("%d bytes, not the %d seen before", size, it.Size)}
	}
	if check && [32]byte(p.file.Sum(nil)) != it.sum {
		return &ChangedError{it.Name, errors.New("other bytes of the same length")}
	}
	return nil
}
