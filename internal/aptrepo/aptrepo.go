// Package aptrepo makes small archives of Debian packages for tests: .deb files, their lists, and a key to sign these with.
package aptrepo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// A Package is one to be made. Control is its control file but for its name, version and architecture where it is no all.
type Package struct {
	Name, Version string
	Control       string            // more fields, a line each
	Files         map[string]string // by path; a target after "-> " makes a symlink, "=> " a hard link, "x:" an executable file
	Scripts       map[string]string // other control files
}

// Deb makes the .deb.
func (p Package) Deb() []byte {
	control := map[string]string{"control": p.stanza()}
	for name, text := range p.Scripts {
		control[name] = text
	}
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	member(&b, "debian-binary", []byte("2.0\n"))
	member(&b, "control.tar.gz", tarball(control))
	member(&b, "data.tar.gz", tarball(p.Files))
	return b.Bytes()
}

func (p Package) stanza() string {
	s := fmt.Sprintf("Package: %s\nVersion: %s\n", p.Name, p.Version)
	if !strings.Contains(p.Control, "Architecture:") {
		s += "Architecture: all\n"
	}
	if p.Control != "" {
		s += strings.TrimRight(p.Control, "\n") + "\n"
	}
	return s + "Maintainer: Nobody <nobody@example.org>\nDescription: a package for tests\n"
}

func member(b *bytes.Buffer, name string, data []byte) {
	fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", name, 0, 0, 0, 0o100644, len(data))
	b.Write(data)
	if len(data)%2 == 1 {
		b.WriteByte('\n')
	}
}

// tarball has folders before what is in them, as dpkg-deb makes it.
func tarball(files map[string]string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	made := map[string]bool{}
	write := func(h *tar.Header, data string) {
		h.ModTime = time.Unix(1_600_000_000, 0)
		h.Size = int64(len(data))
		if err := t.WriteHeader(h); err != nil {
			panic(err)
		}
		if _, err := t.Write([]byte(data)); err != nil {
			panic(err)
		}
	}
	var folder func(name string)
	folder = func(name string) {
		if made[name] {
			return
		}
		made[name] = true
		if name != "." {
			folder(filepath.Dir(name))
		}
		write(&tar.Header{Typeflag: tar.TypeDir, Name: "./" + strings.TrimPrefix(name+"/", "./"), Mode: 0o755}, "")
	}
	folder(".")
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		folder(filepath.Dir(name))
		data := files[name]
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "./" + name, Mode: 0o644}
		if target, ok := strings.CutPrefix(data, "-> "); ok {
			h.Typeflag, h.Linkname, data = tar.TypeSymlink, target, ""
		} else if target, ok := strings.CutPrefix(data, "=> "); ok {
			h.Typeflag, h.Linkname, data = tar.TypeLink, "./"+target, ""
		} else if text, ok := strings.CutPrefix(data, "x:"); ok {
			h.Mode, data = 0o755, text
		}
		write(h, data)
	}
	if err := t.Close(); err != nil {
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// A Key signs archives.
type Key struct{ entity *openpgp.Entity }

// NewKey makes a key that was there before any date of a test.
func NewKey() (*Key, error) {
	e, err := openpgp.NewEntity("Archive for tests", "", "archive@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return time.Unix(1_500_000_000, 0) },
	})
	return &Key{e}, err
}

// Public is the keyring that a user of the archive has.
func (k *Key) Public() []byte {
	var b bytes.Buffer
	if err := k.entity.Serialize(&b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// A Suite is one to be written.
type Suite struct {
	Name       string
	Date       time.Time
	ValidUntil time.Time // zero is without an end
	Packages   []Package
}

// Write writes a suite into the archive at dir, which may have others.
func (k *Key) Write(dir string, s Suite) error {
	var list bytes.Buffer
	for _, p := range s.Packages {
		deb := p.Deb()
		path := fmt.Sprintf("pool/main/%s/%s_%s_all.deb", p.Name, p.Name, strings.ReplaceAll(p.Version, ":", "%3a"))
		if err := write(dir, path, deb); err != nil {
			return err
		}
		fmt.Fprintf(&list, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", p.stanza(), path, len(deb), sha256.Sum256(deb))
	}
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	zw.Write(list.Bytes())
	zw.Close()
	const name = "main/binary-amd64/Packages.gz"
	if err := write(dir, "dists/"+s.Name+"/"+name, z.Bytes()); err != nil {
		return err
	}
	text := fmt.Sprintf("Suite: %s\nCodename: %s\nDate: %s\n", s.Name, s.Name, s.Date.UTC().Format(time.RFC1123))
	if !s.ValidUntil.IsZero() {
		text += "Valid-Until: " + s.ValidUntil.UTC().Format(time.RFC1123) + "\n"
	}
	text += fmt.Sprintf("SHA256:\n %x %d %s\n", sha256.Sum256(z.Bytes()), z.Len(), name)
	var signed bytes.Buffer
	w, err := clearsign.Encode(&signed, k.entity.PrivateKey, &packet.Config{Time: func() time.Time { return s.Date }})
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return write(dir, "dists/"+s.Name+"/InRelease", append(signed.Bytes(), '\n'))
}

func write(dir, name string, data []byte) error {
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
