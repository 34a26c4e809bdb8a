package main

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"
)

func TestDirectWriter(t *testing.T) {
	// A place that blocks begin at, whatever the allocator does.
	data := make([]byte, 4*directMin)
	rand.NewChaCha8([32]byte{1}).Read(data)
	data = data[directAlign-int(uintptr(unsafe.Pointer(&data[0]))%directAlign):]
	for _, tt := range []struct {
		name     string
		from, to int
		off      bool
	}{
		{"empty", 0, 0, false},
		{"small", 0, directMin - 1, false},
		{"whole blocks", 0, directMin, false},
		{"and a tail", 0, directMin + 17, false},
		{"a tail of all but one byte", 0, directMin + directAlign - 1, false},
		{"not aligned", 1, 2 * directMin, false},
		{"given up", 0, directMin + 17, true},
	} {
		d := &directWriter{off: tt.off}
		name := filepath.Join(t.TempDir(), "f")
		if err := d.writeFile(name, data[tt.from:tt.to], 0o644); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, data[tt.from:tt.to]) {
			t.Errorf("%s: %d bytes came back, which are not the %d written; %v", tt.name, len(got), tt.to-tt.from, err)
		}
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o644 {
			t.Errorf("%s: mode %v, %v", tt.name, fi.Mode(), err)
		}
		if err := d.writeFile(name, data, 0o644); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: a file that is there: %v, want an error", tt.name, err)
		}
	}
}

func TestDirectWriterGivesUp(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes int
		took  time.Duration
		err   error
		off   bool
	}{
		{"a fast disk", 2 * directTrial, 20 * time.Millisecond, nil, false},
		{"a slow one", directTrial, time.Second, nil, true},
		{"one that is slow at first", 1 << 20, time.Second, nil, false},
		{"one that refuses", 0, 0, fs.ErrInvalid, true},
	} {
		var d directWriter
		if d.note(tt.bytes, tt.took, tt.err); d.off != tt.off {
			t.Errorf("%s: given up: %v, want %v", tt.name, d.off, tt.off)
		}
	}
}
