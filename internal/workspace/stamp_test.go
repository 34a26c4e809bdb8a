package workspace

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A stamp changes with every change below its paths, and with no other; listed alone it is the same as in the whole tree.
func TestStamp(t *testing.T) {
	const later = time.Hour
	root := t.TempDir()
	gitCmd(t, root, "init", "-q")
	write(t, root, map[string]string{
		"a/BUILD": "", "a/f": "1", "a/sub/g": "2", "a-b/f": "3", "a.txt": "4", "b/f": "5", "b/link": "-> f", ".gitignore": "*.log\n", ".mwbuildignore": "a/left/\n",
		"a/x.log": "ignored", "a/left/f": "ignored",
	})
	paths := []string{"a", "b/link", "none"}
	stamps := func() (below, whole [32]byte) {
		t.Helper()
		d := open(t, root, nil)
		below, settled := d.Stamp(paths, time.Now().Add(later))
		if !settled {
			t.Error("old files are not settled")
		}
		if _, settled := d.Stamp(paths, time.Now().Add(-later)); settled {
			t.Error("new files are settled")
		}
		alone, ok, err := StampBelow(context.Background(), root, paths)
		if err != nil || !ok || alone != below {
			t.Errorf("listed alone: %v %v, the same: %v", ok, err, alone == below)
		}
		whole, _ = d.Stamp([]string{""}, time.Now())
		return below, whole
	}
	wasBelow, wasWhole := stamps()
	for _, tc := range []struct {
		name         string
		change       func() error
		below, whole bool // whether the stamp changes
	}{
		{"nothing", func() error { return nil }, false, false},
		{"beside", func() error { return os.WriteFile(filepath.Join(root, "a-b/f"), []byte("6"), 0o644) }, false, true},
		{"before the slash", func() error { return os.WriteFile(filepath.Join(root, "a.txt"), []byte("66"), 0o644) }, false, true},
		{"below", func() error { return os.WriteFile(filepath.Join(root, "a/sub/g"), []byte("66"), 0o644) }, true, true},
		{"same size, same time", func() error {
			f := filepath.Join(root, "a/f")
			fi, err := os.Lstat(f)
			if err == nil {
				if err = os.WriteFile(f, []byte("9"), 0o644); err == nil {
					err = os.Chtimes(f, fi.ModTime(), fi.ModTime())
				}
			}
			return err
		}, true, true},
		{"a mode", func() error { return os.Chmod(filepath.Join(root, "a/f"), 0o755) }, true, true},
		{"a new file", func() error { return os.WriteFile(filepath.Join(root, "a/new"), nil, 0o644) }, true, true},
		{"an ignored file", func() error { return os.WriteFile(filepath.Join(root, "a/y.log"), nil, 0o644) }, false, false},
		{"left out", func() error { return os.WriteFile(filepath.Join(root, "a/left/g"), nil, 0o644) }, false, false},
		{"a link", func() error {
			return os.Remove(filepath.Join(root, "b/link"))
		}, true, true},
		{"a file that was not there", func() error { return os.WriteFile(filepath.Join(root, "none"), nil, 0o644) }, true, true},
		{"not ignored any more", func() error { return os.WriteFile(filepath.Join(root, ".gitignore"), nil, 0o644) }, true, true},
	} {
		if err := tc.change(); err != nil {
			t.Fatal(err)
		}
		below, whole := stamps()
		if (below != wasBelow) != tc.below || (whole != wasWhole) != tc.whole {
			t.Errorf("%s: below changed %v, whole %v", tc.name, below != wasBelow, whole != wasWhole)
		}
		wasBelow, wasWhole = below, whole
	}
	// What is in another checkout cannot be listed from here.
	gitCmd(t, filepath.Join(root, "a/sub"), "init", "-q")
	if _, ok, err := StampBelow(context.Background(), root, paths); ok || err != nil {
		t.Errorf("with a checkout below: %v %v", ok, err)
	}
	if _, ok, err := StampBelow(context.Background(), t.TempDir(), []string{"a"}); ok || err != nil {
		t.Errorf("without git: %v %v", ok, err)
	}
}

// While a build runs, a folder is moved away, another takes its place, is read, and the first one comes back: a listing is as
// before, with old times, and what was read was of the other. Nothing is settled then.
func TestStampAfterStray(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"a/f": "1", "other/f": "2"})
	d := open(t, root, nil)
	later := time.Now().Add(time.Hour)
	swap := func() {
		t.Helper()
		for _, mv := range [][2]string{{"a", "away"}, {"other", "a"}, {"away", "other"}} {
			if err := os.Rename(filepath.Join(root, mv[0]), filepath.Join(root, mv[1])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := d.ReadFile("a/f"); err != nil {
		t.Fatal(err)
	}
	before, settled := d.Stamp([]string{"a"}, later)
	if !settled {
		t.Error("what was read as listed is not settled")
	}
	swap()
	text, err := d.ReadFile("a/f")
	if err != nil || string(text) != "2" {
		t.Fatalf("read %q, %v; want the other file", text, err)
	}
	swap()
	after, settled := open(t, root, nil).Stamp([]string{"a"}, later)
	if !settled || after != before {
		t.Errorf("a new listing: settled %v, as before %v; want both, or this test shows nothing", settled, after == before)
	}
	if _, settled := d.Stamp([]string{"a"}, later); settled {
		t.Error("settled, though another file was read")
	}
}
