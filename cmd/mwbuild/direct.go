package main

import (
	"errors"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A directWriter writes new files past the page cache, with O_DIRECT: what is written there is hundreds of megabytes that nobody has
// asked to read. To copy 830 MB into the cache takes 0.4 s of CPU time, and on a virtual machine that gives free memory back to its
// host, and has to ask for each page again, more than 2 s; past it, 0.1 s.
//
// Then a write waits for the disk. So it is given up, for good, on a file system that refuses it or a disk that is too slow. Like a write to the
// cache, it promises nothing about a loss of power. The zero value is ready.
type directWriter struct {
	mu    sync.Mutex
	off   bool
	bytes int
	took  time.Duration
}

const (
	directAlign = 4096 // of memory, places and lengths; no disk asks for more
	directMin   = 256 << 10

	// Of a disk, a writer of directTrial bytes must be given directPace bytes a second.
	directTrial = 16 << 20
	directPace  = 200 << 20
)

// writeFile writes data as file name, which must not be there.
func (d *directWriter) writeFile(name string, data []byte, perm os.FileMode) (err error) {
	f, direct, err := d.create(name, data, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if direct {
		whole := len(data) &^ (directAlign - 1)
		begin := time.Now()
		n, err := f.Write(data[:whole])
		d.note(n, time.Since(begin), err)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
		// The rest, or all that the file system refused.
		data = data[n:]
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, 0); err != nil {
			return err
		}
	}
	_, err = f.Write(data)
	return err
}

// create creates the file, and tells whether its whole blocks are to be written past the cache.
func (d *directWriter) create(name string, data []byte, perm os.FileMode) (f *os.File, direct bool, err error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	d.mu.Lock()
	off := d.off
	d.mu.Unlock()
	if !off && len(data) >= directMin && uintptr(unsafe.Pointer(unsafe.SliceData(data)))%directAlign == 0 {
		f, err := os.OpenFile(name, flags|unix.O_DIRECT, perm)
		if err == nil {
			return f, true, nil
		}
		if !errors.Is(err, unix.EINVAL) {
			return nil, false, err
		}
		d.note(0, 0, err)
		os.Remove(name) // some create it first
	}
	f, err = os.OpenFile(name, flags, perm)
	return f, false, err
}

// note decides whether to go on.
func (d *directWriter) note(n int, took time.Duration, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes += n
	d.took += took
	slow := d.bytes >= directTrial && float64(d.bytes) < directPace*d.took.Seconds()
	if err != nil || slow {
		d.off = true
	}
}
