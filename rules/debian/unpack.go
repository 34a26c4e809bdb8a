package debian

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mwbuild/mwbuild/rules/debian/archive"
	"github.com/mwbuild/mwbuild/rules/debian/deb"
)

// info is where dpkg keeps the control files of what is installed.
const info = "var/lib/dpkg/info"

// merged are the folders at the root that are links into usr.
var merged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// linked are those of them that a machine has.
func linked(arch string) []string {
	links := []string{"bin", "sbin", "lib"}
	if arch == "amd64" {
		links = append(links, "lib64")
	}
	return links
}

// usr is where a path of a package lies with /bin and the like merged into /usr.
func usr(p string) string {
	if top, _, _ := strings.Cut(p, "/"); slices.Contains(merged, top) {
		return "usr/" + p
	}
	return p
}

// An unpacker writes the files of packages into one tar, as dpkg --unpack leaves them: configuration files under the name that
// they have until they are configured, and dpkg's notes of each package beside them.
type unpacker struct {
	tw   *tar.Writer
	arch string
	when time.Time // the time of what no package brought: that of the newest file of the package that it is about

	owner map[string]*archive.Package // of each path that is no folder, by whom it is installed
	dirs  map[string]bool
}

func newUnpacker(w io.Writer, arch string) *unpacker {
	return &unpacker{tar.NewWriter(w), arch, time.Unix(0, 0).UTC(), map[string]*archive.Package{}, map[string]bool{"": true}}
}

// base writes what every system has before its first package.
func (u *unpacker) base() error {
	for _, name := range linked(u.arch) {
		if err := u.dir("usr/" + name); err != nil {
			return err
		}
		if err := u.write(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "usr/" + name, Mode: 0o777}, nil); err != nil {
			return err
		}
		u.dirs[name] = true
	}
	for _, d := range []string{info, "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/lib/dpkg/alternatives", "var/lib/dpkg/parts"} {
		if err := u.dir(d); err != nil {
			return err
		}
	}
	if err := u.file("var/lib/dpkg/arch", 0o644, []byte(u.arch+"\n")); err != nil {
		return err
	}
	return u.file(info+"/format", 0o644, []byte("1\n"))
}

// unpack adds one package.
func (u *unpacker) unpack(p *deb.Package) error {
	u.when = time.Unix(0, 0).UTC()
	newest := u.when
	late := map[string]bool{}
	for _, c := range conffiles(p) {
		late[strings.TrimPrefix(c.path, "/")] = true
	}
	var list bytes.Buffer
	err := p.Files(func(name string, h *tar.Header, r io.Reader) error {
		list.WriteString("/" + strings.TrimPrefix(name, "/"))
		if name == "" {
			list.WriteString(".")
		}
		list.WriteByte('\n')
		if name == "" {
			return nil
		}
		if h.ModTime.After(newest) {
			newest = h.ModTime
		}
		to := usr(name)
		switch {
		case h.Typeflag == tar.TypeDir:
			if u.dirs[to] || u.dirs[name] {
				return nil
			}
			if err := u.dir(path.Dir(to)); err != nil {
				return err
			}
			u.dirs[to] = true
		case h.Typeflag == tar.TypeSymlink && u.dirs[name] && slices.Contains(merged, name):
			return nil // the package that ships the links into usr
		default:
			if other := u.owner[to]; other != nil && other.Name != p.Name {
				return overlap(to, other, p.Package)
			}
			u.owner[to] = p.Package
			if err := u.dir(path.Dir(to)); err != nil {
				return err
			}
			if late[name] {
				to += ".dpkg-new"
			}
		}
		out := &tar.Header{
			Typeflag: h.Typeflag, Name: to, Linkname: h.Linkname, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime, Size: h.Size,
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir:
		case tar.TypeSymlink:
			out.Mode = 0o777
		case tar.TypeLink:
			out.Size = 0
			out.Linkname = usr(h.Linkname)
			if late[h.Linkname] {
				out.Linkname += ".dpkg-new"
			}
		default:
			return fmt.Errorf("/%s is neither a file nor a folder nor a link", name)
		}
		return u.write(out, r)
	})
	if err != nil {
		return err
	}
	u.when = newest
	if err := u.file(u.note(p, "list"), 0o644, list.Bytes()); err != nil {
		return err
	}
	names := make([]string, 0, len(p.Scripts))
	for name := range p.Scripts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		mode := int64(0o644)
		if slices.Contains([]string{"preinst", "postinst", "prerm", "postrm", "config"}, name) {
			mode = 0o755
		}
		if err := u.file(u.note(p, name), mode, p.Scripts[name]); err != nil {
			return err
		}
	}
	return nil
}

func overlap(file string, a, b *archive.Package) error {
	return fmt.Errorf("/%s is in %s and in %s: an image cannot have both", file, a, b)
}

// note is the file in which dpkg keeps one control file of a package.
func (u *unpacker) note(p *deb.Package, kind string) string {
	return info + "/" + instance(p.Package) + "." + kind
}

// instance is the name of a package for dpkg: with its architecture where several can be there.
func instance(p *archive.Package) string {
	if p.MultiArch == "same" {
		return p.Name + ":" + p.Architecture
	}
	return p.Name
}

// dir makes a folder, and those above it, that no package brought.
func (u *unpacker) dir(name string) error {
	if name == "." || u.dirs[name] {
		return nil
	}
	if err := u.dir(path.Dir(name)); err != nil {
		return err
	}
	u.dirs[name] = true
	return u.write(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, nil)
}

func (u *unpacker) file(name string, mode int64, data []byte) error {
	if err := u.dir(path.Dir(name)); err != nil {
		return err
	}
	return u.write(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, bytes.NewReader(data))
}

// write adds one entry.
func (u *unpacker) write(h *tar.Header, r io.Reader) error {
	if h.ModTime.IsZero() {
		h.ModTime = u.when
	}
	h.ModTime = h.ModTime.Truncate(time.Second)
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if err := u.tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	if n, err := io.Copy(u.tw, r); err != nil || n != h.Size {
		return errors.Join(err, fmt.Errorf("/%s has %d bytes, %d were announced", h.Name, n, h.Size))
	}
	return nil
}

// A conffile is a file that is the administrator's to change.
type conffile struct {
	path   string // absolute
	remove bool   // on upgrade; it is not in the package
}

func conffiles(p *deb.Package) []conffile {
	var all []conffile
	for _, line := range strings.Split(string(p.Scripts["conffiles"]), "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case f[0] == "remove-on-upgrade" && len(f) == 2:
			all = append(all, conffile{f[1], true})
		default:
			all = append(all, conffile{path: strings.TrimSpace(line)})
		}
	}
	return all
}
