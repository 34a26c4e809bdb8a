package workspace

import (
	"encoding/binary"
	"time"
)

// State returns what the listing tells of every file, for [Disk.ChangedSince] of a later listing; nil if a file that was read was not the one that was
// listed. A file that was not settled by the time the listing began will count as changed.
func (d *Disk) State(listed time.Time) []byte {
	if d.reads.strays.Load() {
		return nil
	}
	b := make([]byte, 0, len(d.files)*64)
	last := ""
	for i := range d.files {
		f := &d.files[i]
		b = f.appendName(b, last)
		last = f.Path
		if f.stat.racy(listed) {
			b = append(b, 0)
			continue
		}
		b = f.stat.append(append(b, 1))
	}
	return appendSum(b)
}

// appendName appends all that tells f from others but its bytes. The path is what it shares with the one before, and the rest.
func (f *File) appendName(b []byte, before string) []byte {
	shared := 0
	for shared < min(len(f.Path), len(before)) && f.Path[shared] == before[shared] {
		shared++
	}
	b = binary.AppendUvarint(b, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(f.Path)-shared))
	b = append(b, f.Path[shared:]...)
	kind := byte(f.Mode)
	if f.special {
		kind |= 0x80
	}
	b = append(b, kind)
	if f.Mode == Symlink {
		b = binary.AppendUvarint(b, uint64(len(f.Target)))
		b = append(b, f.Target...)
	}
	return b
}

// ChangedSince returns the indices, in [Disk.Files], of the files that may have other bytes than when [Disk.State] was called of the same workspace. It is
// not ok where there are other files now, or some of another mode or leading elsewhere, and where state is no state.
func (d *Disk) ChangedSince(state []byte) (changed []int, ok bool) {
	body, ok := checkSum(state)
	if !ok {
		return nil, false
	}
	r := memoReader{b: body}
	last := ""
	var name []byte
	for i := range d.files {
		f := &d.files[i]
		name = f.appendName(name[:0], last)
		last = f.Path
		if string(r.take(uint64(len(name)))) != string(name) {
			return nil, false
		}
		switch settled := r.take(1); {
		case r.bad:
			return nil, false
		case settled[0] == 0 || r.stat() != f.stat:
			changed = append(changed, i)
		}
	}
	return changed, !r.bad && len(r.b) == 0
}
