package workspace

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// What changed since a state is told by name, or that the files are others.
func TestState(t *testing.T) {
	in := func(root, name string) string { return filepath.Join(root, name) }
	for _, tc := range []struct {
		name    string
		change  func(root string) error
		changed []string
		others  bool
	}{
		{"nothing", func(string) error { return nil }, nil, false},
		{"bytes", func(root string) error { return os.WriteFile(in(root, "a/f"), []byte("22"), 0o644) }, []string{"a/f"}, false},
		{"two", func(root string) error {
			if err := os.WriteFile(in(root, "z"), nil, 0o644); err != nil {
				return err
			}
			return os.WriteFile(in(root, "a/b/f"), nil, 0o644)
		}, []string{"a/b/f", "z"}, false},
		{"same size, same time", func(root string) error {
			fi, err := os.Lstat(in(root, "a/f"))
			if err != nil {
				return err
			}
			if err := os.WriteFile(in(root, "a/f"), []byte("9"), 0o644); err != nil {
				return err
			}
			return os.Chtimes(in(root, "a/f"), fi.ModTime(), fi.ModTime())
		}, []string{"a/f"}, false},
		{"a new file", func(root string) error { return os.WriteFile(in(root, "a/g"), nil, 0o644) }, nil, true},
		{"a file less", func(root string) error { return os.Remove(in(root, "a/f")) }, nil, true},
		{"the last file less", func(root string) error { return os.Remove(in(root, "z")) }, nil, true},
		{"another name", func(root string) error { return os.Rename(in(root, "a/f"), in(root, "a/g")) }, nil, true},
		{"mode", func(root string) error { return os.Chmod(in(root, "a/f"), 0o755) }, nil, true},
		{"no link any more", func(root string) error {
			if err := os.Remove(in(root, "link")); err != nil {
				return err
			}
			return os.WriteFile(in(root, "link"), []byte("a/f"), 0o644)
		}, nil, true},
		{"where a link leads", func(root string) error {
			if err := os.Remove(in(root, "link")); err != nil {
				return err
			}
			return os.Symlink("a/b", in(root, "link"))
		}, nil, true},
		{"a fifo", func(root string) error {
			if err := os.Remove(in(root, "a/f")); err != nil {
				return err
			}
			return syscall.Mkfifo(in(root, "a/f"), 0o644)
		}, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, map[string]string{"a/BUILD": "", "a/b/f": "1", "a/f": "2", "link": "-> a/f", "z": "3"})
			gitCmd(t, root, "init", "-q")
			gitCmd(t, root, "add", "-A")
			state := open(t, root, nil).State(time.Now().Add(time.Hour))
			if err := tc.change(root); err != nil {
				t.Fatal(err)
			}
			d := open(t, root, nil)
			indices, ok := d.ChangedSince(state)
			if ok == tc.others {
				t.Errorf("other files: %v", !ok)
			}
			var changed []string
			for _, i := range indices {
				changed = append(changed, d.Files()[i])
			}
			if !tc.others && !slices.Equal(changed, tc.changed) {
				t.Errorf("changed %v, want %v", changed, tc.changed)
			}
		})
	}
}

// A file of which another change might not show counts as changed; one that was not as it was listed makes a state of no use.
func TestStateOfUnsettled(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"f": "1"})
	d := open(t, root, nil)
	if changed, ok := d.ChangedSince(d.State(time.Now().Add(-time.Hour))); !ok || len(changed) != 1 {
		t.Errorf("%d files changed, %v", len(changed), ok)
	}
	if err := os.WriteFile(filepath.Join(root, "f"), []byte("22"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadFile("f"); err != nil {
		t.Fatal(err)
	}
	if state := d.State(time.Now()); state != nil {
		t.Error("there is a state, though a file changed after it was listed")
	}
}

// What is cut short, or has a byte changed, is no state.
func TestStateBroken(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"a/f": "1", "a/g": "2", "l": "-> a/f"})
	d := open(t, root, nil)
	state := d.State(time.Now().Add(time.Hour))
	if changed, ok := d.ChangedSince(state); !ok || len(changed) > 0 {
		t.Fatalf("%v %v", changed, ok)
	}
	for i := range state {
		if _, ok := d.ChangedSince(state[:i]); ok {
			t.Errorf("%d bytes of %d are a state", i, len(state))
		}
		bad := slices.Clone(state)
		bad[i] ^= 0x10
		if _, ok := d.ChangedSince(bad); ok {
			t.Errorf("byte %d changed, and it is a state", i)
		}
	}
}
