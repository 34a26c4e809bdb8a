//go:build live

package buildkit_test

import (
	"io/fs"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// What an engine keeps stays within its bounds, and what steps need is made again.
func TestKeepSpace(t *testing.T) {
	const most = 64 << 20
	b := newBench(t, "")
	first := b.mustRun(step("fill", "0", "20"))
	for i := range 5 {
		b.mustRun(step("fill", strconv.Itoa(i+1), "20"))
	}
	b.e.Close()
	full := used(t, b.dir)
	if full < 6*20<<20 {
		t.Fatalf("six steps of 20 MB left %d MB", full>>20)
	}
	t.Setenv("MWBUILD_TEST_KEEP", strconv.Itoa(most))
	second := &bench{t: t, store: b.store, root: b.root, in: b.in, dir: b.dir, e: newEngine(t, "", b.dir)}
	second.mustRun(step("write"))
	until(t, 20*time.Second, "the engine is within its bounds", func() bool { return used(t, b.dir) <= most+8<<20 })
	t.Logf("%d MB became %d MB, of at most %d MB", full>>20, used(t, b.dir)>>20, most>>20)
	if again := second.mustRun(step("fill", "0", "20")); again.Layer.Digest != first.Layer.Digest {
		t.Errorf("the first step made %s, and now %s", first.Layer.Digest, again.Layer.Digest)
	}
}

// used is how many bytes the files below dir have.
func used(t *testing.T, dir string) (n int64) {
	t.Helper()
	filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if fi, err := e.Info(); err == nil {
				n += fi.Size()
			}
		}
		return nil // files go while we look
	})
	return n
}
