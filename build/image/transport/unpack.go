package transport

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/layer"
)

// unpack makes dir, and in it the root filesystem that layers give one upon the other. Modes and times are kept, owners only if asked for;
// devices, fifos and extended attributes are left out.
//
// No layer can write outside: everything goes through an os.Root, and on the way to a file, absolute links lead to below the root, as they do
// in a container. A link that climbs out by ".." is an error.
func unpack(ctx context.Context, p content.Provider, layers []image.Layer, dir string, owners bool) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{root: root, owners: owners, dirs: map[string]*tar.Header{".": implied}}
	for _, l := range layers {
		u.written = map[string]bool{}
		if err := layer.Walk(ctx, p, l.Descriptor, u.add); err != nil {
			return err
		}
	}
	return u.finish()
}

type unpacker struct {
	root    *os.Root
	owners  bool
	dirs    map[string]*tar.Header // modes and times of directories, for when nothing more is written into them
	written map[string]bool        // by the layer at hand

	// What dir found last. Members stand together by directory, and each look-up costs a system call for each part of the name.
	lastName, lastDir string
}

// implied stands for a directory that no layer holds, but something in it.
var implied = &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0)}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

func (u *unpacker) add(h *tar.Header, r io.Reader) error {
	dir, base := path.Split(strings.TrimRight(h.Name, "/"))
	if base == "" || base == "." {
		if h.Typeflag == tar.TypeDir && strings.Trim(dir, "./") == "" {
			u.dirs["."] = h
			return nil
		}
	}
	if base == "" || base == "." || base == ".." {
		return fmt.Errorf("%q is no name for a file", h.Name)
	}
	parent, err := u.dir(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	switch {
	case base == opaque:
		err = u.clear(parent)
	case strings.HasPrefix(base, whiteout+whiteout): // aufs' own
	case base == whiteout:
		err = errors.New("a deletion of nothing")
	case strings.HasPrefix(base, whiteout):
		if base = base[len(whiteout):]; base == "." || base == ".." {
			err = errors.New("a deletion of no file")
			break
		}
		err = u.remove(path.Join(parent, base))
	default:
		err = u.create(path.Join(parent, base), h, r)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// dir follows name to a path without links in it, and makes the directories that are missing.
func (u *unpacker) dir(name string) (string, error) {
	if name == u.lastName && name != "" {
		return u.lastDir, nil
	}
	cur := "."
	parts := strings.Split(name, "/")
	for links := 0; len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if cur == "." {
				return "", errors.New("it leads out of the image")
			}
			cur = path.Dir(cur)
			continue
		}
		next := path.Join(cur, part)
		fi, err := u.root.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := u.root.Mkdir(next, 0o700); err != nil {
				return "", err
			}
			u.dirs[next] = implied
		case err != nil:
			return "", err
		case fi.Mode()&fs.ModeSymlink != 0:
			if links++; links > 255 {
				return "", errors.New("too many symbolic links")
			}
			target, err := u.root.Readlink(next)
			if err != nil {
				return "", err
			}
			if path.IsAbs(target) {
				cur = "."
			}
			parts = append(strings.Split(target, "/"), parts...)
			continue
		case !fi.IsDir():
			return "", fmt.Errorf("%s is no directory", next)
		}
		cur = next
	}
	u.lastName, u.lastDir = name, cur
	return cur, nil
}

// remove deletes p as lower layers made it, keeping what this layer wrote.
func (u *unpacker) remove(p string) error {
	fi, err := u.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if !u.written[p] {
		return u.removeAll(p)
	}
	if fi.IsDir() {
		return u.clear(p)
	}
	return nil
}

// clear removes what is in the directory p.
func (u *unpacker) clear(p string) error {
	entries, err := fs.ReadDir(u.root.FS(), p)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := u.remove(path.Join(p, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) removeAll(p string) error {
	u.lastName = ""
	maps.DeleteFunc(u.dirs, func(d string, _ *tar.Header) bool { return d == p || strings.HasPrefix(d, p+"/") })
	return u.root.RemoveAll(p)
}

func (u *unpacker) create(p string, h *tar.Header, r io.Reader) error {
	for d := p; d != "."; d = path.Dir(d) {
		u.written[d] = true
	}
	if fi, err := u.root.Lstat(p); err == nil && !(fi.IsDir() && h.Typeflag == tar.TypeDir) {
		if err := u.removeAll(p); err != nil {
			return err
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		u.dirs[p] = h
		if err := u.root.Mkdir(p, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(p, h, r)
	case tar.TypeSymlink:
		if err := u.root.Symlink(h.Linkname, p); err != nil {
			return err
		}
		return u.chown(p, h)
	case tar.TypeLink:
		dir, base := path.Split(strings.TrimRight(h.Linkname, "/"))
		parent, err := u.dir(dir)
		if err != nil {
			return fmt.Errorf("hard link to %s: %w", h.Linkname, err)
		}
		if base == "" || base == "." || base == ".." {
			return fmt.Errorf("hard link to %q", h.Linkname)
		}
		return u.root.Link(path.Join(parent, base), p)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("unknown type of tar member %q", h.Typeflag)
}

func (u *unpacker) file(p string, h *tar.Header, r io.Reader) error {
	f, err := u.root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return u.settle(p, h)
}

// settle gives p its owner, mode and time. The owner comes first: changing it clears setuid bits.
func (u *unpacker) settle(p string, h *tar.Header) error {
	return errors.Join(
		u.chown(p, h),
		u.root.Chmod(p, h.FileInfo().Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)),
		u.root.Chtimes(p, h.ModTime, h.ModTime),
	)
}

func (u *unpacker) chown(p string, h *tar.Header) error {
	if !u.owners {
		return nil
	}
	return u.root.Lchown(p, h.Uid, h.Gid)
}

// finish settles directories, the deepest first.
func (u *unpacker) finish() error {
	names := slices.Sorted(maps.Keys(u.dirs))
	for _, d := range slices.Backward(names) {
		if err := u.settle(d, u.dirs[d]); err != nil {
			return err
		}
	}
	return nil
}
