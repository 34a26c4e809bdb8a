// Package deb reads Debian's binary packages (deb(5)): an ar archive of a version, a tar of control files and a tar of the
// files to be installed. Nothing is written, and what is read is not trusted: names are clean paths, sizes are bounded.
package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/mwbuild/mwbuild/rules/debian/archive"
)

const (
	maxControl = 16 << 20 // all control files together
	arMagic    = "!<arch>\n"
	arHeader   = 60
)

// A Package is one that is open, with its control files at hand.
type Package struct {
	*archive.Package                   // what its control file says
	Stanza           archive.Stanza    // all of that
	Scripts          map[string][]byte // the other control files, "postinst", "conffiles", by name

	data io.Reader // the tar of files, or nil after Files
}

// Open reads the control files of the .deb that r begins with, for machines of the architecture arch. r is read on by
// [Package.Files].
func Open(r io.Reader, arch string) (*Package, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(b, magic); err != nil || string(magic) != arMagic {
		return nil, errors.New("it is no .deb: it is not an ar archive")
	}
	name, member, err := nextMember(b)
	if err != nil {
		return nil, err
	}
	version, err := io.ReadAll(io.LimitReader(member, 64))
	if err != nil || name != "debian-binary" || !strings.HasPrefix(string(version), "2.") {
		return nil, fmt.Errorf("it is no .deb of version 2: it begins with %q, %q", name, strings.TrimSpace(string(version)))
	}
	p := &Package{Scripts: map[string][]byte{}}
	if err := p.member(b, member, "control.tar"); err != nil {
		return nil, err
	}
	if err := p.control(arch); err != nil {
		return nil, err
	}
	if err := p.member(b, p.data, "data.tar"); err != nil {
		return nil, err
	}
	return p, nil
}

// member goes to the next member, which must be the tar want, compressed in some way or not, and makes it p.data. before is what
// is left of the one before.
func (p *Package) member(b *bufio.Reader, before io.Reader, want string) error {
	if before != nil {
		if m, ok := before.(*opened); ok {
			before = m.raw
		}
		if _, err := io.Copy(io.Discard, before); err != nil {
			return err
		}
	}
	for {
		name, member, err := nextMember(b)
		if err != nil {
			return fmt.Errorf("%s: %w", want, err)
		}
		if strings.HasPrefix(name, "_") { // for others, deb(5) says
			if _, err := io.Copy(io.Discard, member); err != nil {
				return err
			}
			continue
		}
		ending, ok := strings.CutPrefix(name, want)
		if !ok {
			return fmt.Errorf("there is %s where %s is wanted", name, want)
		}
		r, err := decompress(ending, member)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		p.data = &opened{r, member}
		return nil
	}
}

// opened is a member, decompressed.
type opened struct {
	io.Reader
	raw io.Reader
}

// nextMember reads the header of a member. The reader that it returns holds its bytes and the padding.
func nextMember(b *bufio.Reader) (string, io.Reader, error) {
	h := make([]byte, arHeader)
	if _, err := io.ReadFull(b, h); err != nil {
		if err == io.EOF {
			return "", nil, errors.New("it ends too early")
		}
		return "", nil, err
	}
	size, err := strconv.ParseInt(strings.TrimSpace(string(h[48:58])), 10, 64)
	if err != nil || size < 0 || string(h[58:]) != "`\n" {
		return "", nil, fmt.Errorf("%q is no header of an ar member", h)
	}
	name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	return name, &padded{io.LimitedReader{R: b, N: size}, b, size&1 == 1}, nil
}

// padded reads a member, and then the byte that makes its length even.
type padded struct {
	io.LimitedReader
	b   *bufio.Reader
	odd bool
}

func (p *padded) Read(buf []byte) (int, error) {
	n, err := p.LimitedReader.Read(buf)
	switch {
	case err == io.EOF && p.N > 0:
		err = io.ErrUnexpectedEOF
	case err == io.EOF && p.odd:
		p.odd = false
		if _, err := p.b.Discard(1); err != nil && err != io.EOF { // the last may lack it
			return n, err
		}
	}
	return n, err
}

func decompress(ending string, r io.Reader) (io.Reader, error) {
	switch ending {
	case "":
		return r, nil
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return xz.NewReader(r)
	case ".zst":
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
	}
	return nil, fmt.Errorf("%q is none of the ways to compress that are known", ending)
}

func (p *Package) control(arch string) error {
	t := tar.NewReader(io.LimitReader(p.data, maxControl))
	var text []byte
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("control.tar: %w", err)
		}
		name, err := clean(h.Name)
		if err != nil {
			return fmt.Errorf("control.tar: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return fmt.Errorf("control.tar: %s: %w", name, err)
		}
		switch {
		case strings.Contains(name, "/"):
			return fmt.Errorf("control.tar: %s is in a folder", name)
		case name == "control":
			text = data
		default:
			p.Scripts[name] = data
		}
	}
	if text == nil {
		return errors.New("control.tar has no control file")
	}
	err := archive.ReadControl(bytes.NewReader(text), func(s archive.Stanza) error {
		if p.Package != nil {
			return errors.New("it has two paragraphs")
		}
		p.Stanza = s
		var err error
		p.Package, err = archive.PackageOf(s, arch)
		return err
	})
	if err == nil && p.Package == nil {
		err = errors.New("it is empty")
	}
	if err != nil {
		return fmt.Errorf("the control file: %w", err)
	}
	return nil
}

// Files calls got for each file that the package installs, in the package's order, with a clean path without a slash at
// either end, "" for the root itself; that of a hard link's target is clean too. It can be called once.
func (p *Package) Files(got func(name string, h *tar.Header, r io.Reader) error) error {
	if p.data == nil {
		return errors.New("deb: Files was called before")
	}
	t := tar.NewReader(p.data)
	p.data = nil
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("data.tar: %w", err)
		}
		name, err := clean(h.Name)
		if err == nil && h.Typeflag == tar.TypeLink {
			h.Linkname, err = clean(h.Linkname)
		}
		if err != nil {
			return fmt.Errorf("data.tar: %w", err)
		}
		if err := got(name, h, t); err != nil {
			return err
		}
	}
}

// clean is a name in a tar as a path below the root.
func clean(name string) (string, error) {
	p := path.Clean("/" + name)[1:]
	if strings.Trim(strings.TrimPrefix(strings.TrimPrefix(name, "."), "/"), "/") != p || strings.Contains(p, "\x00") {
		return "", fmt.Errorf("%q is no clean path", name)
	}
	return p, nil
}
