package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"

	"github.com/mwbuild/mwbuild/build/image"
)

// DeltaVersion stands in the key of every layer that stands on a base, beside [PackerVersion]. It rises whenever the same entries on the same base would become other bytes.
const DeltaVersion = 2

// A Listing is what a layer holds: each member's kind, mode, owner, and the digest of its bytes.
type Listing struct{ members map[string]member }

type member struct {
	kind     byte // of tar
	mode     int64
	uid, gid int
	link     string
	size     int64
	sum      [sha256.Size]byte
}

// List reads a whole layer that [Pack] made, and checks its digests. One with whiteouts is an error: what they delete is in another.
func List(ctx context.Context, p content.Provider, of image.Layer) (*Listing, error) {
	blob, err := OpenBlob(ctx, p, of.Descriptor)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	l := &Listing{map[string]member{}}
	diffID := sha256.New()
	err = walk(io.TeeReader(blob, diffID), func(h *tar.Header, r io.Reader) error {
		it, err := foreignItem(h)
		if err != nil || it == nil || it.Name == "" {
			return err
		}
		if isWhiteout(it.Name) {
			return fmt.Errorf("%s: a layer that deletes something cannot be a base", it.Name)
		}
		m := member{kind: it.Typeflag, mode: it.Mode, uid: it.Uid, gid: it.Gid, link: it.Linkname}
		if it.Typeflag == tar.TypeReg {
			hash := sha256.New()
			if m.size, err = io.Copy(hash, r); err != nil {
				return err
			}
			m.sum = [sha256.Size]byte(hash.Sum(nil))
		}
		l.members[it.Name] = m
		return nil
	})
	if sum := digest.NewDigest(digest.SHA256, diffID); err == nil && sum != of.DiffID {
		err = fmt.Errorf("its diff id is %s, not %s", sum, of.DiffID)
	}
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", of.Descriptor.Digest, err)
	}
	return l, nil
}

// listingForm is the first line of a listing that was written down.
const listingForm = "mwbuild listing 1\n"

// Marshal writes the listing down for [ParseListing].
func (l *Listing) Marshal() []byte {
	var b bytes.Buffer
	b.WriteString(listingForm)
	for _, name := range slices.Sorted(maps.Keys(l.members)) {
		m := l.members[name]
		fmt.Fprintf(&b, "%c %o %d %d %d %s %s %s\n", m.kind, m.mode, m.uid, m.gid, m.size, hex.EncodeToString(m.sum[:]), strconv.Quote(m.link), strconv.Quote(name))
	}
	fmt.Fprintf(&b, "%08x\n", crc32.Checksum(b.Bytes(), castagnoli))
	return b.Bytes()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ParseListing reads what [Listing.Marshal] wrote, all of it.
func ParseListing(text []byte) (*Listing, error) {
	end := max(0, len(text)-len("01234567\n"))
	rest, ok := bytes.CutPrefix(text[:end], []byte(listingForm))
	if !ok || string(text[end:]) != fmt.Sprintf("%08x\n", crc32.Checksum(text[:end], castagnoli)) {
		return nil, fmt.Errorf("it is no listing of a layer")
	}
	l := &Listing{map[string]member{}}
	for line := range strings.Lines(string(rest)) {
		name, m, err := parseMember(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		l.members[name] = m
	}
	return l, nil
}

func parseMember(line string) (name string, m member, err error) {
	f := strings.SplitN(line, " ", 7)
	if len(f) != 7 || len(f[0]) != 1 || len(f[5]) != 2*sha256.Size {
		return "", m, fmt.Errorf("it is no member of a listing")
	}
	m.kind = f[0][0]
	var errs [7]error
	m.mode, errs[0] = strconv.ParseInt(f[1], 8, 64)
	m.uid, errs[1] = strconv.Atoi(f[2])
	m.gid, errs[2] = strconv.Atoi(f[3])
	m.size, errs[3] = strconv.ParseInt(f[4], 10, 64)
	_, errs[4] = hex.Decode(m.sum[:], []byte(f[5]))
	quoted, err := strconv.QuotedPrefix(f[6])
	if err != nil {
		return "", m, err
	}
	m.link, errs[5] = strconv.Unquote(quoted)
	name, errs[6] = strconv.Unquote(strings.TrimPrefix(f[6][len(quoted):], " "))
	return name, m, errors.Join(errs[:]...)
}

// How a layer stands on its base.
type Stand int

// The ways for it to stand.
const (
	Same  Stand = iota // the base is all there is to it
	Delta              // what differs is packed, to lie on the base
	Whole              // all of it is packed: the base would be of no use
)

// WholeFrom is the part of a layer's bytes, 1/WholeFrom, that may be new on its base, or of no use in it. With more it is packed as a whole, so that an image does not
// hold most things twice.
const WholeFrom = 4

// PackOn packs what entries have that base has not: on a layer of that listing, the result holds what [Pack] of the entries does. It
// has what is new or differs, with the folders above it, and whiteouts for what is gone, one for a whole tree. There is no layer where all is the Same.
func PackOn(ctx context.Context, b image.Blobs, base *Listing, entries []Entry, opt Options) (l image.Layer, how Stand, err error) {
	items, err := plan(entries, opt.Owner)
	if err != nil {
		return image.Layer{}, Same, err
	}
	want := make(map[string]*item, len(items))
	for _, it := range items {
		want[it.Name] = it
	}
	taken := map[*item]bool{}
	links := map[string][]*item{} // hard links, by what they lead to
	for _, it := range items {
		if it.Typeflag == tar.TypeLink {
			links[it.Linkname] = append(links[it.Linkname], it)
		}
		old, ok := base.members[it.Name]
		if ok {
			if ok, err = old.same(it); err != nil {
				return image.Layer{}, Same, err
			}
		}
		if !ok {
			taken[it] = true
		}
	}
	// Names of one file stay together.
	for to, all := range links {
		all = append(all, want[to])
		if slices.ContainsFunc(all, func(it *item) bool { return taken[it] }) {
			for _, it := range all {
				taken[it] = true
			}
		}
	}
	var delta []*item
	for name := range base.members {
		dir, file := path.Split(name)
		above := want[strings.TrimSuffix(dir, "/")]
		if want[name] == nil && (dir == "" || above != nil && above.Typeflag == tar.TypeDir) {
			gone := &item{}
			gone.Header = tar.Header{Typeflag: tar.TypeReg, Name: dir + whiteoutPrefix + file, Mode: 0o644, Uid: opt.Owner.UID, Gid: opt.Owner.GID}
			delta = append(delta, gone)
		}
	}
	for _, it := range items {
		if taken[it] {
			delta = append(delta, it)
		}
	}
	if len(delta) == 0 {
		return image.Layer{}, Same, nil
	}
	var all, kept, had int64
	for _, it := range items {
		all += it.Size
		if !taken[it] {
			kept += it.Size
		}
	}
	for _, m := range base.members {
		had += m.size
	}
	if max(all, had)-kept > all/WholeFrom {
		l, err = write(ctx, b, items)
		return l, Whole, err
	}
	for _, it := range slices.Clone(delta) {
		for dir := path.Dir(it.Name); dir != "."; dir = path.Dir(dir) {
			if up := want[dir]; up != nil && !taken[up] {
				taken[up] = true
				delta = append(delta, up)
			}
		}
	}
	sortItems(delta)
	l, err = write(ctx, b, delta)
	return l, Delta, err
}

// A Stack is a layer and, where there is one, what [PackOn] made to lie on it.
type Stack struct {
	Bottom image.Layer
	Delta  *image.Layer
}

// Merge packs the deltas of several stacks as one, to lie on all of their bottoms. The stacks have nothing in common but folders.
//
// A delta deletes a folder as a whole that its stack has no more. Where another stack has that folder, or it is among those that other layers share, what the bottom
// had in it is deleted instead; with keepFolders that is so of every folder. list returns what a bottom holds.
func Merge(ctx context.Context, b image.Blobs, stacks []Stack, shared []string, keepFolders bool, list func(image.Layer) (*Listing, error)) (image.Layer, error) {
	deltas := make([]*Contents, len(stacks))
	for i, s := range stacks {
		if s.Delta == nil {
			continue
		}
		c, err := Open(ctx, b.Content(), s.Delta.Descriptor)
		if err != nil {
			return image.Layer{}, err
		}
		defer c.Close()
		deltas[i] = c
	}
	// others tells whether a stack but the i-th has a folder.
	others := func(folder string) (bool, error) {
		if keepFolders || slices.Contains(shared, folder) {
			return true, nil
		}
		for i, s := range stacks {
			if c := deltas[i]; c != nil {
				if c.byName[folder] != nil {
					return true, nil
				}
				if c.deletes(folder) {
					continue // as does the one that asks
				}
			}
			l, err := list(s.Bottom)
			if err != nil {
				return false, err
			}
			if _, ok := l.members[folder]; ok {
				return true, nil
			}
		}
		return false, nil
	}
	merged := map[string]*item{}
	for i, c := range deltas {
		if c == nil {
			continue
		}
		for _, it := range c.items {
			dir, file := path.Split(it.Name)
			gone, ok := strings.CutPrefix(file, whiteoutPrefix)
			if !ok {
				merged[it.Name] = it
				continue
			}
			base, err := list(stacks[i].Bottom)
			if err != nil {
				return image.Layer{}, err
			}
			var drop func(name string) error
			drop = func(name string) error {
				if base.members[name].kind == tar.TypeDir {
					keep, err := others(name)
					if err != nil {
						return err
					}
					if keep {
						for child := range base.members {
							if strings.TrimSuffix(path.Dir(child), ".") == name {
								if err := drop(child); err != nil {
									return err
								}
							}
						}
						return nil
					}
				}
				w := *it
				dir, file := path.Split(name)
				w.Name = dir + whiteoutPrefix + file
				merged[w.Name] = &w
				return nil
			}
			if err := drop(dir + gone); err != nil {
				return image.Layer{}, err
			}
		}
	}
	items := slices.Collect(maps.Values(merged))
	sortItems(items)
	return write(ctx, b, items)
}

// deletes tells whether a delta has a whiteout for a folder, or one above it.
func (c *Contents) deletes(folder string) bool {
	for ; folder != "."; folder = path.Dir(folder) {
		if c.byName[path.Join(path.Dir(folder), whiteoutPrefix+path.Base(folder))] != nil {
			return true
		}
	}
	return false
}

// same tells whether a layer has what is to be packed. The item's digest is filled in where it was not known and only the bytes can tell.
func (m member) same(it *item) (bool, error) {
	if m.kind != it.Typeflag || m.mode != it.Mode || m.uid != it.Uid || m.gid != it.Gid || m.link != it.Linkname || m.size != it.Size {
		return false, nil
	}
	if it.Typeflag != tar.TypeReg || it.Size == 0 {
		return true, nil
	}
	if it.sum == [sha256.Size]byte{} {
		r, err := it.open()
		if err != nil {
			return false, fmt.Errorf("%s: %w", it.Name, err)
		}
		defer r.Close()
		hash := sha256.New()
		if _, err := io.Copy(hash, r); err != nil {
			return false, fmt.Errorf("%s: %w", it.Name, err)
		}
		it.sum = [sha256.Size]byte(hash.Sum(nil))
	}
	return it.sum == m.sum, nil
}
