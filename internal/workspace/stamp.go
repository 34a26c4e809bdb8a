package workspace

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// readNotes is what there is to tell of all that was read of a [Disk].
type readNotes struct {
	linked atomic.Bool // a symlink was followed
	strays atomic.Bool // a file was not the one that was listed
}

// note notes what a file was when it was read. It may be the one that was listed again later, where a folder was moved
// away and back: then its times do not tell.
func (r *readNotes) note(f File, is stat) {
	if is != f.stat {
		r.strays.Store(true)
	}
}

// FollowedLinks tells whether a file was read through a symlink until now. It may lie anywhere in the tree.
func (d *Disk) FollowedLinks() bool { return d.reads.linked.Load() }

// Stamp digests what the listing tells of the files at and below paths, which are sorted; "" is the whole tree: names,
// kinds, sizes, times, inodes. While it stays the same, so do their bytes, if they were settled: old enough for another
// change to show in their times. If all that was read so far was not as listed, nothing is settled.
func (d *Disk) Stamp(paths []string, now time.Time) (sum [32]byte, settled bool) {
	sum, settled = stamp(&d.listing, paths, now)
	return sum, settled && !d.reads.strays.Load()
}

// StampBelow lists the files at and below paths, as [Open] would, and returns what [Disk.Stamp] would. ok is false where a
// part of the tree cannot be listed alone: without git, and where a checkout lies in another.
func StampBelow(ctx context.Context, root string, paths []string) (sum [32]byte, ok bool, err error) {
	ignore, err := readIgnore(root)
	if err != nil {
		return sum, false, err
	}
	args := []string{"--literal-pathspecs", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"}
	out, err := git(ctx, root, append(args, paths...)...)
	if err != nil {
		return sum, false, ctx.Err() // what is wrong is found by listing all
	}
	names := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	l := &lister{root: root, ignore: ignore}
	files, nested, err := l.statAll(ctx, names)
	if err != nil || len(nested) > 0 {
		return sum, false, err
	}
	list := newListing(files)
	sum, _ = stamp(&list, paths, time.Now())
	return sum, true, nil
}

func stamp(l *listing, paths []string, now time.Time) (sum [32]byte, settled bool) {
	b := make([]byte, 0, len(l.files)*64)
	settled = true
	add := func(f *File) {
		b = binary.AppendUvarint(b, uint64(len(f.Path)))
		b = append(b, f.Path...)
		b = append(b, byte(f.Mode))
		b = binary.AppendUvarint(b, uint64(len(f.Target)))
		b = append(b, f.Target...)
		b = f.stat.append(b)
		settled = settled && !f.stat.racy(now)
	}
	for _, p := range paths {
		from, to := 0, len(l.files)
		if p != "" {
			if n, ok := slices.BinarySearch(l.paths, p); ok {
				add(&l.files[n])
			}
			from, _ = slices.BinarySearch(l.paths, p+"/")
			to, _ = slices.BinarySearch(l.paths, p+"0") // what follows a slash
		}
		for n := from; n < to; n++ {
			add(&l.files[n])
		}
	}
	return sha256.Sum256(b), settled
}
