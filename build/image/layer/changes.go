package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
)

// opaque marks a directory that hides what a lower layer has in it.
const opaque = whiteoutPrefix + whiteoutPrefix + ".opq"

// Changes packs diff, what a process changed in the filesystem of below, lowest layer first, as an engine wrote it down. A diff without a
// digest is an empty one.
//
// Engines write the same change in several ways; the layer is the same for all of them. It holds every changed file, symlink,
// fifo and hard link with its permissions, set-id bits, numeric owner and file capabilities, sorted as by [Pack]; a directory
// where it is new, has another mode or owner, or something in it changed; and a whiteout for what is gone, one for a whole
// tree. A directory that was put in place of another is told by whiteouts of what was in that. Times after epoch become it,
// earlier ones stay; directories have it always, whose times an engine changes itself.
//
// A new hard link to a file of a layer below is a file of its own on overlayfs, as is one of its names that is written to. What lies at or below own, the places where the engine mounted something, is left out. A device is an error.
func Changes(ctx context.Context, b image.Blobs, below []ocispecs.Descriptor, diff ocispecs.Descriptor, own []string, epoch time.Time) (image.Layer, error) {
	c := &Contents{}
	var old tree
	if diff.Digest != "" {
		var err error
		if c, err = Open(ctx, b.Content(), diff); err != nil {
			return image.Layer{}, err
		}
		defer c.Close()
		if old, err = readTree(ctx, b, below); err != nil {
			return image.Layer{}, err
		}
	}
	items, err := canonical(c.items, old, own)
	if err != nil {
		return image.Layer{}, err
	}
	return compress(ctx, b, func(p *packer, w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, it := range items {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := p.addAt(tw, it, epoch); err != nil {
				return err
			}
		}
		return tw.Close()
	})
}

// addAt writes it with its own time, if that is not after epoch.
func (p *packer) addAt(tw *tar.Writer, it *item, epoch time.Time) error {
	h := it.Header
	h.ModTime = h.ModTime.Truncate(time.Second)
	if h.ModTime.After(epoch) || h.ModTime.Unix() < 0 || h.Typeflag == tar.TypeDir || isWhiteout(h.Name) {
		h.ModTime = epoch
	}
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if err := tw.WriteHeader(&h); err != nil {
		return fmt.Errorf("%s: %w", it.Name, err)
	}
	if h.Typeflag != tar.TypeReg || it.open == nil {
		return nil
	}
	r, err := it.open()
	if err != nil {
		return fmt.Errorf("%s: %w", it.Name, err)
	}
	defer r.Close()
	return p.copy(tw, r, it)
}

// A tree is what a filesystem holds, without its root, and nothing of the bytes.
type tree map[string]*tar.Header

// readTree is what layers hold on one another. Directories that no layer holds but something below them are as an engine
// makes them.
func readTree(ctx context.Context, b image.Blobs, layers []ocispecs.Descriptor) (tree, error) {
	t := tree{}
	for _, d := range layers {
		// Whiteouts are of what is below this layer, wherever they stand in it.
		upper := map[string]*item{}
		var gone []string
		err := Walk(ctx, b.Content(), d, func(h *tar.Header, _ io.Reader) error {
			it, err := foreignItem(h)
			if err != nil || it == nil || it.Name == "" {
				return err
			}
			if isWhiteout(it.Name) {
				gone = append(gone, it.Name)
			} else {
				upper[it.Name] = it
			}
			return ctx.Err()
		})
		if err != nil {
			return nil, err
		}
		children := t.children()
		for _, w := range gone {
			dir, name := path.Dir(w), path.Base(w)
			if name != opaque {
				t.remove(path.Join(dir, strings.TrimPrefix(name, whiteoutPrefix)), children)
				continue
			}
			for _, c := range children[dir] {
				t.remove(c, children)
			}
		}
		for name, it := range upper {
			if was := t[name]; was != nil && was.Typeflag == tar.TypeDir && it.Typeflag != tar.TypeDir {
				t.remove(name, children)
			}
			t[name] = &it.Header
		}
		for name := range upper {
			for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
				if up := t[dir]; up != nil && up.Typeflag == tar.TypeDir {
					break
				}
				t[dir] = &tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}
			}
		}
	}
	return t, nil
}

// children are the names in each directory, "." for the root.
func (t tree) children() map[string][]string {
	c := map[string][]string{}
	for name := range t {
		c[path.Dir(name)] = append(c[path.Dir(name)], name)
	}
	return c
}

func (t tree) remove(name string, children map[string][]string) {
	delete(t, name)
	for _, c := range children[name] {
		t.remove(c, children)
	}
}

// canonical is the one way to write down the changes of items, which are sorted, to old.
func canonical(items []*item, old tree, own []string) ([]*item, error) {
	mine := func(name string) bool {
		return slices.ContainsFunc(own, func(dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") })
	}
	kept := map[string]*item{}
	gone := map[string]bool{}
	var replaced []string // directories that hide what was in them
	for _, it := range items {
		dir, name := path.Split(it.Name)
		dir = strings.TrimSuffix(dir, "/")
		switch {
		case it.Name == "" || mine(it.Name):
		case name == opaque:
			replaced = append(replaced, dir)
		case isWhiteout(it.Name):
			gone[path.Join(dir, strings.TrimPrefix(name, whiteoutPrefix))] = true
		case it.Typeflag == tar.TypeChar || it.Typeflag == tar.TypeBlock:
			return nil, fmt.Errorf("%s is a device, which an image cannot hold: let the command remove it", it.Name)
		default:
			kept[it.Name] = it
		}
	}
	children := old.children()
	var hide func(dir string)
	hide = func(dir string) {
		for _, c := range children[dir] {
			if now := kept[c]; now == nil {
				gone[c] = true
			} else if now.Typeflag == tar.TypeDir {
				hide(c)
			}
		}
	}
	for _, dir := range replaced {
		if dir == "" {
			dir = "."
		}
		hide(dir)
	}
	// A whiteout says nothing where nothing was, where something new took the place, or where all around it is gone too.
	for name := range gone {
		if old[name] == nil || mine(name) {
			delete(gone, name)
			continue
		}
		if now := kept[name]; now != nil {
			// Put in its place: what was in it, if it was a directory as this is, is gone.
			if now.Typeflag == tar.TypeDir {
				hide(name)
			}
			delete(gone, name)
		}
	}
	for name := range gone {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if now := kept[dir]; gone[dir] || now != nil && now.Typeflag != tar.TypeDir {
				delete(gone, name)
				break
			}
		}
	}
	// Directories count for what changed in them, and every directory above a change is there.
	above := map[string]bool{}
	need := func(name string) {
		for dir := path.Dir(name); dir != "." && !above[dir]; dir = path.Dir(dir) {
			above[dir] = true
			if kept[dir] == nil {
				it := &item{Header: tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}}
				if was := old[dir]; was != nil && was.Typeflag == tar.TypeDir {
					it.Mode, it.Uid, it.Gid = was.Mode, was.Uid, was.Gid
				}
				kept[dir] = it
			}
		}
	}
	var names []string
	for name, it := range kept {
		was := old[name]
		if it.Typeflag != tar.TypeDir || was == nil || was.Typeflag != tar.TypeDir || was.Mode != it.Mode || was.Uid != it.Uid || was.Gid != it.Gid {
			names = append(names, name)
		}
	}
	changed := make(map[string]bool, len(names))
	for _, name := range names {
		changed[name] = true
		need(name)
	}
	for name := range gone {
		need(name)
	}
	var out []*item
	for name, it := range kept {
		if changed[name] || above[name] {
			out = append(out, it)
		}
	}
	for name := range gone {
		out = append(out, &item{Header: tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(name), whiteoutPrefix+path.Base(name)), Mode: 0o644}})
	}
	sortItems(out)
	return out, checkLinks(out, kept)
}

// checkLinks sees that what hard links lead to was not left out, and gives each the time of its file.
func checkLinks(items []*item, kept map[string]*item) error {
	for _, it := range items {
		if it.Typeflag != tar.TypeLink {
			continue
		}
		to := kept[it.Linkname]
		if to == nil {
			return fmt.Errorf("%s is a hard link to %s, which did not change", it.Name, it.Linkname)
		}
		it.ModTime = to.ModTime
	}
	return nil
}
