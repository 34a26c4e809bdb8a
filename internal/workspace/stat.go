package workspace

import (
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// A stat is what tells that a file has not changed: nobody can write to a file and keep them all. The device is left out, as its
// number can differ from one mount to the next.
type stat struct {
	size         int64
	mtime, ctime timespec
	inode        uint64
}

type timespec struct {
	sec  int64
	nsec int32
}

func (t timespec) time() time.Time { return time.Unix(t.sec, int64(t.nsec)) }

func statOf(st *unix.Stat_t) stat {
	return stat{
		size:  st.Size,
		mtime: timespec{int64(st.Mtim.Sec), int32(st.Mtim.Nsec)},
		ctime: timespec{int64(st.Ctim.Sec), int32(st.Ctim.Nsec)},
		inode: st.Ino,
	}
}

// racy reports whether the file could be written again without a new time, as far as the clock tells: file systems give times
// in steps of up to some 10 ms, some of whole seconds, and a file from the future says nothing.
func (s stat) racy(now time.Time) bool {
	for _, t := range []timespec{s.mtime, s.ctime} {
		step := 100 * time.Millisecond
		if t.nsec == 0 || t.time().After(now) {
			step = 2 * time.Second
		}
		if t.time().Add(step).After(now) {
			return true
		}
	}
	return false
}

func lstat(path string, st *unix.Stat_t) error {
	for {
		err := unix.Lstat(path, st)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
	}
}
