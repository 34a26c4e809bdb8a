package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/graph/action"
)

// Decompress reads gzip, zstd or plain bytes from r, telling them apart by how they begin. Closing leaves r open.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 128<<10)
	magic, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(br)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}): // a skippable frame
		d, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}

// OpenBlob reads the uncompressed bytes of d from p. At the end it fails if the blob did not have d's digest: what was read
// until then is not to be trusted before io.EOF.
func OpenBlob(ctx context.Context, p content.Provider, d ocispecs.Descriptor) (io.ReadCloser, error) {
	ra, err := p.ReaderAt(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	raw := &verifier{r: io.NewSectionReader(ra, 0, ra.Size()), hash: digest.SHA256.Hash(), want: d.Digest, ctx: ctx}
	r, err := Decompress(raw)
	if err != nil {
		ra.Close()
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	return &blobReader{ReadCloser: r, raw: raw, ra: ra}, nil
}

type blobReader struct {
	io.ReadCloser // of the uncompressed bytes
	raw           io.Reader
	ra            io.Closer
}

func (b *blobReader) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		// The decompressor may stop short of the blob's end; the digest is over all of it.
		if _, cerr := io.Copy(io.Discard, b.raw); cerr != nil {
			return n, cerr
		}
	}
	return n, err
}

func (b *blobReader) Close() error {
	return errors.Join(b.ReadCloser.Close(), b.ra.Close())
}

// A verifier fails in place of io.EOF if what went through it has another digest.
type verifier struct {
	ctx  context.Context
	r    io.Reader
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
	want digest.Digest
}

func (v *verifier) Read(p []byte) (int, error) {
	if err := v.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	if err == io.EOF {
		if got := digest.NewDigestFromBytes(digest.SHA256, v.hash.Sum(nil)); got != v.want {
			return n, fmt.Errorf("the blob is damaged: its digest is %s", got)
		}
	}
	return n, err
}

// Walk calls fn for each member of a layer's tar in its order, with a reader of the member's bytes. The layer may be plain, gzip or
// zstd, whatever its media type says. The last error may be that the blob is damaged, so what fn saw counts only after
// Walk returned nil.
func Walk(ctx context.Context, p content.Provider, d ocispecs.Descriptor, fn func(*tar.Header, io.Reader) error) error {
	r, err := OpenBlob(ctx, p, d)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := walk(r, fn); err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	return nil
}

// WalkTar is [Walk] over a tar that is no blob: plain, gzip or zstd, read to the end of r.
func WalkTar(r io.Reader, fn func(*tar.Header, io.Reader) error) error {
	u, err := Decompress(r)
	if err != nil {
		return err
	}
	defer u.Close()
	return walk(u, fn)
}

func walk(r io.Reader, fn func(*tar.Header, io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			_, err := io.Copy(io.Discard, r) // a tar ends before its file does
			return err
		} else if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := fn(h, tr); err != nil {
			return err
		}
	}
}

// Contents is an opened layer: an index of its members, and their bytes outside the compressed stream, so that they
// can be read in any order. Close frees it; entries taken from it are readable until then.
type Contents struct {
	items  []*item // sorted, each name once
	byName map[string]*item
	bytes  spool
}

// Open reads a whole layer. Of a name that occurs twice, the last counts. A large layer takes room in the folder for
// temporary files.
func Open(ctx context.Context, p content.Provider, d ocispecs.Descriptor) (*Contents, error) {
	r, err := OpenBlob(ctx, p, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	c, err := index(r)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	return c, nil
}

func index(r io.Reader) (*Contents, error) {
	c := &Contents{byName: map[string]*item{}}
	buf := make([]byte, 128<<10)
	err := walk(r, func(h *tar.Header, r io.Reader) error {
		it, err := foreignItem(h)
		if err != nil || it == nil {
			return err
		}
		if it.Typeflag == tar.TypeReg {
			off := c.bytes.size
			if _, err := io.CopyBuffer(&c.bytes, struct{ io.Reader }{r}, buf); err != nil {
				return err
			}
			size := c.bytes.size - off
			it.Size = size // what opens it must not ask it: a link may take its place
			it.open = func() (io.ReadCloser, error) { return io.NopCloser(c.bytes.section(off, size)), nil }
		}
		c.byName[it.Name] = it
		return nil
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	if err := c.bytes.finish(); err != nil {
		c.Close()
		return nil, err
	}
	c.items = slices.Collect(maps.Values(c.byName))
	sortItems(c.items)
	if err := settleLinks(c.items, c.byName, false); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// keptXattr is the one extended attribute that is part of what a program is.
const keptXattr = "SCHILY.xattr.security.capability"

// foreignItem is what we keep of a header that another packer wrote: name, kind, permissions, owner's numbers, file
// capabilities, and the time for [Changes] alone. It is nil for what is no member, such as a global header.
func foreignItem(h *tar.Header) (*item, error) {
	name, err := cleanName(h.Name)
	if err != nil {
		return nil, err
	}
	it := &item{}
	it.Header = tar.Header{
		Typeflag: h.Typeflag, Name: name, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid,
		Devmajor: h.Devmajor, Devminor: h.Devminor, ModTime: h.ModTime,
	}
	if v, ok := h.PAXRecords[keptXattr]; ok {
		it.PAXRecords = map[string]string{keptXattr: v}
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		it.Typeflag = tar.TypeReg
	case tar.TypeDir, tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
	case tar.TypeSymlink:
		it.Linkname = h.Linkname
		it.Mode = 0o777
	case tar.TypeLink:
		if it.Linkname, err = cleanName(h.Linkname); err != nil {
			return nil, err
		}
	case tar.TypeXGlobalHeader:
		return nil, nil
	default:
		return nil, fmt.Errorf("%s: unknown type of tar member %q", h.Name, h.Typeflag)
	}
	if name == "" && it.Typeflag != tar.TypeDir {
		return nil, fmt.Errorf("%q: the root of a layer must be a directory", h.Name)
	}
	return it, nil
}

// cleanName is a tar's name relative to the root, "" for the root.
func cleanName(name string) (string, error) {
	if slices.Contains(strings.Split(name, "/"), "..") {
		return "", fmt.Errorf("%q: a name in a layer must not contain \"..\"", name)
	}
	return path.Clean("/" + name)[1:], nil
}

// Entries gives the file, symlink or directory from of the layer, as entries to be packed at dest; from "" is
// everything in the layer, dest "" the root. Owners and executable bits are the layer's, other mode bits are not kept.
//
// Hard links within what is taken stay links. Symlinks keep their text. Whiteouts are left out: what they delete is not in this layer.
// A device, fifo or socket in what is taken is an error, and so is a from that the layer does not hold.
func (c *Contents) Entries(from, dest string) ([]Entry, error) {
	from, err := cleanName(from)
	if err != nil {
		return nil, err
	}
	if dest, err = cleanName(dest); err != nil {
		return nil, err
	}
	var entries []Entry
	first := map[*item]string{} // path of the entry that holds the bytes of an item
	found := false
	for _, it := range c.items {
		var rel string
		switch {
		case it.Name == "":
			continue
		case from == "" || strings.HasPrefix(it.Name, from+"/"):
			rel = strings.TrimPrefix(strings.TrimPrefix(it.Name, from), "/")
		case it.Name != from:
			continue
		}
		found = true
		if isWhiteout(it.Name) {
			continue
		}
		e := Entry{Path: path.Join(dest, rel), Owner: action.Owner{UID: it.Uid, GID: it.Gid}}
		if e.Path == "" {
			if it.Typeflag == tar.TypeDir {
				continue
			}
			return nil, fmt.Errorf("%s is a file, and cannot become the image's root", from)
		}
		data := it
		if it.Typeflag == tar.TypeLink {
			if data = c.byName[it.Linkname]; data == nil {
				return nil, fmt.Errorf("%s is a hard link to %s, which is in another layer", it.Name, it.Linkname)
			}
		}
		e.Exec = data.Mode&0o111 != 0
		switch data.Typeflag {
		case tar.TypeDir:
			e.Kind, e.Exec = Dir, false
		case tar.TypeSymlink:
			e.Kind, e.Target, e.Exec = Symlink, data.Linkname, false
		case tar.TypeReg:
			e.Kind, e.Size, e.Open = File, data.Size, data.open
		default:
			return nil, fmt.Errorf("%s is a device or fifo, which cannot be packed", it.Name)
		}
		if p, ok := first[data]; ok {
			e = Entry{Path: e.Path, Kind: Hardlink, Target: p, Owner: e.Owner}
		}
		first[data] = e.Path
		entries = append(entries, e)
	}
	if !found && from != "" {
		return nil, fmt.Errorf("no %s in the layer; it holds %s", from, c.summary())
	}
	return entries, nil
}

// summary names what is at the layer's top, for messages.
func (c *Contents) summary() string {
	tops := map[string]bool{}
	for _, it := range c.items {
		if it.Name != "" {
			top, _, _ := strings.Cut(it.Name, "/")
			tops[top] = true
		}
	}
	if len(tops) == 0 {
		return "nothing"
	}
	names := slices.Sorted(maps.Keys(tops))
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	return strings.Join(names, ", ")
}

// Close frees the memory or the temporary file.
func (c *Contents) Close() error { return c.bytes.close() }

// Normalise repacks a layer that another program wrote, by our packer: sorted, all times the Unix epoch, no user and
// group names. Permissions, numeric owners, devices, whiteouts and file capabilities stay; other extended attributes go. Directories that
// the layer does not hold are not added.
func Normalise(ctx context.Context, b image.Blobs, d ocispecs.Descriptor) (image.Layer, error) {
	c, err := Open(ctx, b.Content(), d)
	if err != nil {
		return image.Layer{}, err
	}
	defer c.Close()
	return write(ctx, b, c.items)
}

// FromTar packs the tar of a root filesystem, plain, gzip or zstd, as [Normalise] does, leaving out device nodes: the runtime
// makes those, and without root they could not be unpacked.
func FromTar(ctx context.Context, b image.Blobs, r io.Reader) (image.Layer, error) {
	u, err := Decompress(r)
	if err != nil {
		return image.Layer{}, err
	}
	defer u.Close()
	c, err := index(u)
	if err != nil {
		return image.Layer{}, err
	}
	defer c.Close()
	items := slices.DeleteFunc(c.items, func(it *item) bool {
		return it.Typeflag == tar.TypeChar || it.Typeflag == tar.TypeBlock
	})
	return write(ctx, b, items)
}

// spoolMemory is what a spool holds before it goes to disk.
const spoolMemory = 16 << 20

// A spool is bytes written once, then read at any place.
type spool struct {
	size int64
	mem  []byte
	file *os.File // with all bytes, once there were too many
	w    *bufio.Writer
}

func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && len(s.mem)+len(p) > spoolMemory {
		f, err := os.CreateTemp("", "mwbuild-layer-")
		if err != nil {
			return 0, err
		}
		os.Remove(f.Name()) // gone when it is closed, even if by a crash
		s.file, s.w = f, bufio.NewWriterSize(f, 256<<10)
		if _, err := s.w.Write(s.mem); err != nil {
			return 0, err
		}
		s.mem = nil
	}
	s.size += int64(len(p))
	if s.file != nil {
		return s.w.Write(p)
	}
	s.mem = append(s.mem, p...)
	return len(p), nil
}

// finish ends writing; section may be called, by many at once, after it.
func (s *spool) finish() error {
	if s.file == nil {
		return nil
	}
	return s.w.Flush()
}

func (s *spool) section(off, n int64) io.Reader {
	if s.file == nil {
		return bytes.NewReader(s.mem[off : off+n])
	}
	return io.NewSectionReader(s.file, off, n)
}

func (s *spool) close() error {
	s.mem = nil
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
