package workspace

import (
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// mapMemo is a Memo in memory.
type mapMemo map[string][]byte

func (m mapMemo) Load(dir string) ([]byte, bool) { b, ok := m[dir]; return b, ok }
func (m mapMemo) Store(values map[string][]byte) error {
	maps.Copy(m, values)
	return nil
}

func digestOf(text string) Digest {
	return Digest{sha256.Sum256([]byte(text)), sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(text), text)), int64(len(text))}
}

// settle makes what was written no longer racy.
func settle() { time.Sleep(150 * time.Millisecond) }

// reads opens the tree, digests everything, flushes the memo, and returns which files it read.
func reads(t *testing.T, root string, memo Memo, want map[string]string) []string {
	t.Helper()
	d := open(t, root, memo)
	var mu sync.Mutex
	got := map[string]int{}
	d.onRead = func(p string) {
		mu.Lock()
		got[p]++
		mu.Unlock()
	}
	if err := d.DigestAll(t.Context(), d.Files(), 3); err != nil {
		t.Fatal(err)
	}
	for p, text := range want {
		sum, err := d.Digest(p)
		if err != nil {
			t.Fatal(err)
		}
		if sum != digestOf(text) {
			t.Errorf("digest of %s is not that of %q", p, text)
		}
	}
	if err := d.FlushMemo(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range d.Files() {
		if got[p] > 1 {
			t.Errorf("%s was read %d times", p, got[p])
		}
		if got[p] > 0 {
			names = append(names, p)
		}
	}
	return names
}

func TestMemo(t *testing.T) {
	root, memo := t.TempDir(), mapMemo{}
	write(t, root, map[string]string{"a": "one", "d/b": "two", "d/e": "", "d/link": "-> b"})
	want := map[string]string{"a": "one", "d/b": "two", "d/e": "", "d/link": "b"}
	settle()
	step := func(what string, wantReads ...string) {
		t.Helper()
		if diff := cmp.Diff(wantReads, reads(t, root, memo, want)); diff != "" {
			t.Errorf("%s: read (-want +got):\n%s", what, diff)
		}
	}
	step("first", "a", "d/b", "d/e", "d/link")
	step("nothing changed")

	now := time.Now()
	if err := os.Chtimes(filepath.Join(root, "a"), now, now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	settle()
	step("touched", "a")
	step("touched, again")

	fi, err := os.Stat(filepath.Join(root, "d/b"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, map[string]string{"d/b": "TWO"}) // same size, and then the same mtime: ctime tells
	if err := os.Chtimes(filepath.Join(root, "d/b"), fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	want["d/b"] = "TWO"
	settle()
	step("edited", "d/b")

	if err := os.Chmod(filepath.Join(root, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	settle()
	step("mode", "a")

	write(t, root, map[string]string{"d/link": "-> e"})
	want["d/link"] = "e"
	settle()
	step("link", "d/link")

	os.Remove(filepath.Join(root, "d/e"))
	delete(want, "d/e")
	write(t, root, map[string]string{"d/new": "n"})
	settle()
	step("one deleted, one new", "d/new")
	entries, err := decodeMemo(memo[filepath.Join(root, "d")])
	if err != nil || len(entries) != 3 {
		t.Errorf("memo of d: %v, %v", entries, err)
	}

	memo[root][len(memo[root])/2] ^= 1
	step("broken value", "a")
	step("broken value, again")
	memo[filepath.Join(root, "d")] = []byte("junk")
	step("junk", "d/b", "d/link", "d/new")
	for dir := range memo {
		memo[dir] = nil
	}
	step("empty", "a", "d/b", "d/link", "d/new")
}

func TestRacyIsNotMemoised(t *testing.T) {
	root, memo := t.TempDir(), mapMemo{}
	write(t, root, map[string]string{"f": "1"})
	for range 3 {
		write(t, root, map[string]string{"f": "1"})
		if got := reads(t, root, memo, map[string]string{"f": "1"}); len(got) != 1 {
			t.Error("a file just written was not read")
		}
		if len(memo) != 0 {
			t.Errorf("a file just written was memoised: %q", memo)
		}
	}
	future := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(root, "f"), future, future); err != nil {
		t.Fatal(err)
	}
	settle()
	reads(t, root, memo, nil)
	if len(memo) != 0 {
		t.Error("a file from the future was memoised")
	}

	at := time.Unix(1000, 0)
	ts := func(d time.Duration) timespec {
		w := at.Add(d)
		return timespec{w.Unix(), int32(w.Nanosecond())}
	}
	old := ts(-time.Hour + 1)
	for _, tt := range []struct {
		mtime, ctime timespec
		want         bool
	}{
		{old, old, false},
		{old, ts(-99 * time.Millisecond), true},
		{ts(-99 * time.Millisecond), old, true},
		{old, ts(-101 * time.Millisecond), false},
		{ts(-time.Second), old, true}, // whole seconds
		{ts(-2 * time.Second), old, false},
		{ts(1), old, true},
		{ts(time.Hour), old, true},
	} {
		if got := (stat{mtime: tt.mtime, ctime: tt.ctime}).racy(at); got != tt.want {
			t.Errorf("racy(mtime %v, ctime %v) = %v", tt.mtime, tt.ctime, got)
		}
	}
}

func TestChangesWhileRead(t *testing.T) {
	root := t.TempDir()
	p := filepath.Join(root, "f")
	for _, tt := range []struct {
		name    string
		changes int // how often it changes while it is read
		change  func(i int) error
		want    string // of a ChangedError; "" is success
	}{
		{"twice", 2, func(i int) error { return os.WriteFile(p, fmt.Append(nil, i), 0o644) }, ""},
		{"always", 99, func(i int) error { return os.WriteFile(p, fmt.Append(nil, i), 0o644) }, "changed"},
		{"same size, old mtime", 99, func(i int) error {
			old := time.Unix(1e9, 5)
			return errors.Join(os.WriteFile(p, fmt.Append(nil, i%10), 0o644), os.Chtimes(p, old, old))
		}, "changed"},
		{"replaced", 99, func(i int) error {
			return errors.Join(os.WriteFile(p+".new", []byte("0"), 0o644), os.Rename(p+".new", p))
		}, "changed"},
		{"deleted", 1, func(int) error { return os.Remove(p) }, "deleted"},
		{"mode", 1, func(int) error { return os.Chmod(p, 0o755) }, "mode"},
		{"link", 1, func(int) error { return errors.Join(os.Remove(p), os.Symlink("x", p)) }, "mode"},
		{"folder", 1, func(int) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, "mode"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			os.RemoveAll(p)
			write(t, root, map[string]string{"f": "0"})
			memo := mapMemo{}
			d := open(t, root, memo)
			n := 0
			d.onRead = func(string) {
				if n++; n > tt.changes {
					return
				}
				time.Sleep(12 * time.Millisecond) // let the kernel's clock go on
				if err := tt.change(n); err != nil {
					t.Error(err)
				}
			}
			sum, err := d.Digest("f")
			if tt.want == "" {
				if err != nil || sum != digestOf("2") {
					t.Errorf("Digest = %v, %v, want that of the last text", sum, err)
				}
				return
			}
			var changed *ChangedError
			if !errors.As(err, &changed) || changed.Path != "f" || !strings.Contains(changed.What, tt.want) {
				t.Errorf("Digest = %v, want a ChangedError with %q", err, tt.want)
			}
			if n > 3 {
				t.Errorf("read %d times", n)
			}
			if err := d.FlushMemo(); err != nil || len(memo) != 0 {
				t.Errorf("memoised: %q, %v", memo, err)
			}
		})
	}
}

// An edit between listing and reading is read as it is now; a change of what the file is, is an error.
func TestChangedSinceListing(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"edited": "1", "deleted": "", "mode": "", "sub/f": ""})
	d := open(t, root, nil)
	write(t, root, map[string]string{"edited": "22"})
	os.Remove(filepath.Join(root, "deleted"))
	os.Chmod(filepath.Join(root, "mode"), 0o755)
	os.RemoveAll(filepath.Join(root, "sub"))
	write(t, root, map[string]string{"sub": ""})
	if sum, err := d.Digest("edited"); err != nil || sum != digestOf("22") {
		t.Errorf("Digest(edited) = %v, %v", sum, err)
	}
	for _, p := range []string{"deleted", "mode", "sub/f"} {
		var changed *ChangedError
		if _, err := d.Digest(p); !errors.As(err, &changed) {
			t.Errorf("Digest(%s) = %v, want a ChangedError", p, err)
		}
	}
	if _, err := d.Digest("absent"); err == nil {
		t.Error("Digest of a file that is not listed: no error")
	}
}

func TestDigestBigFile(t *testing.T) {
	root := t.TempDir()
	text := strings.Repeat("0123456789", 1<<20)
	write(t, root, map[string]string{"f": text})
	reads(t, root, nil, map[string]string{"f": text})
}

func FuzzMemo(f *testing.F) {
	e := memoEntry{stat: stat{1, timespec{-5, 7}, timespec{1 << 40, 999999999}, 1 << 63}, sha256: [32]byte{1}, blob: [20]byte{2}}
	f.Add(encodeMemo(nil))
	f.Add(encodeMemo(map[string]memoEntry{"a": e, "": {}, "b\n\xff": {}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeMemo(b)
		// A wrong checksum hides the rest: decode it with the right one, too.
		if got, err := decodeMemo(reseal(b)); err == nil {
			again, err := decodeMemo(encodeMemo(got))
			if err != nil || !maps.Equal(got, again) {
				t.Errorf("decode(encode(m)) = %v, %v, want %v", again, err, got)
			}
		}
	})
}

// reseal puts version and checksum around b.
func reseal(b []byte) []byte {
	sealed := encodeMemo(nil)
	sealed = append(sealed[:1:1], b...)
	return appendSum(sealed)
}

func TestMemoCodec(t *testing.T) {
	want := map[string]memoEntry{
		"a":          {stat: stat{1, timespec{-5, 7}, timespec{1 << 40, 999999999}, 1 << 63}, sha256: [32]byte{1}, blob: [20]byte{2}},
		"\xff\nlong": {stat: stat{size: 1 << 40}},
		"":           {},
	}
	b := encodeMemo(want)
	got, err := decodeMemo(b)
	if err != nil || !maps.Equal(got, want) {
		t.Fatalf("decode(encode(m)) = %v, %v", got, err)
	}
	for i := range b {
		if _, err := decodeMemo(b[:i]); err == nil {
			t.Errorf("the first %d bytes decode", i)
		}
		broken := append([]byte{}, b...)
		broken[i] ^= 0x10
		if _, err := decodeMemo(broken); err == nil {
			t.Errorf("with a flipped bit in byte %d it decodes", i)
		}
	}
}

// What is read to be digested is handed over once without another look at the disk; what is read later must be what was digested.
func TestReadDigested(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"WORKSPACE": "", "a": "first", "b": "second", "large": strings.Repeat("x", 100), "empty": ""})
	d := open(t, root, nil)
	d.Keep([]string{"a", "large", "empty"}, 50)
	if err := d.DigestAll(t.Context(), d.Files(), 2); err != nil {
		t.Fatal(err)
	}
	write(t, root, map[string]string{"a": "other", "b": "others", "large": strings.Repeat("y", 100)})
	var changed *ChangedError
	if b, err := d.ReadDigested("a"); err != nil || string(b) != "first" {
		t.Errorf("kept: %q, %v", b, err)
	}
	for _, p := range []string{"a", "b", "large"} { // taken, not asked for, too large to keep
		if b, err := d.ReadDigested(p); !errors.As(err, &changed) {
			t.Errorf("%s, which has changed: %q, %v", p, b, err)
		}
	}
	if b, err := d.ReadDigested("empty"); err != nil || len(b) != 0 {
		t.Errorf("empty: %q, %v", b, err)
	}
	write(t, root, map[string]string{"b": "second"})
	if b, err := d.ReadDigested("b"); err != nil || string(b) != "second" {
		t.Errorf("read again: %q, %v", b, err)
	}
	if _, err := d.ReadDigested("none"); err == nil {
		t.Error("a file that is not there could be read")
	}
}
