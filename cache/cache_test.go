package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestMain lets the test binary be the other process of a test: it opens the database or locks the workspace, says so, and
// hangs; or it fills the database and dies without closing it.
func TestMain(m *testing.M) {
	dir := os.Getenv("CACHE_TEST_DIR")
	switch os.Getenv("CACHE_TEST_DO") {
	case "open":
		if _, err := Open(context.Background(), dir, nil); err != nil {
			panic(err)
		}
		fmt.Println("ready")
		select {}
	case "lock":
		if _, err := LockWorkspace(context.Background(), dir, "/some/root", nil); err != nil {
			panic(err)
		}
		fmt.Println("ready")
		select {}
	case "die":
		db, err := Open(context.Background(), dir, nil)
		if err != nil {
			panic(err)
		}
		if err := db.Put(Entry{Records, []byte("k"), []byte("v")}); err != nil {
			panic(err)
		}
		os.Exit(0)
	case "get":
		db, err := Open(context.Background(), dir, nil)
		if err != nil {
			panic(err)
		}
		v, ok, err := db.Get(Records, []byte("k"))
		fmt.Println(string(v), ok, err, db.Close())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(dir, do string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CACHE_TEST_DIR="+dir, "CACHE_TEST_DO="+do)
	return cmd
}

// hang starts a child that has said "ready" when hang returns, and kills it at the end of the test or by the function returned.
func hang(t *testing.T, dir, do string) (pid int, kill func()) {
	t.Helper()
	cmd := child(dir, do)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(kill)
	if n, err := out.Read(make([]byte, 8)); n == 0 {
		t.Fatal(err)
	}
	return cmd.Process.Pid, kill
}

func open(t testing.TB, dir string) *DB {
	t.Helper()
	db, err := Open(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func closeDB(t testing.TB, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, db *DB, ns Namespace, key string) (string, bool) {
	t.Helper()
	b, ok, err := db.Get(ns, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), ok
}

func TestPutGetAcrossOpens(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there")
	if _, err := OpenRead(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenRead of nothing = %v, want fs.ErrNotExist", err)
	}
	big := make([]byte, 3<<20+17)
	rand.Read(big)
	db := open(t, dir)
	err := db.Put(
		Entry{Records, []byte("k"), []byte("record")},
		Entry{Manifests, []byte("k"), big},
		Entry{Last, []byte{}, nil},
	)
	if err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)

	for name, reopen := range map[string]func(string) (*DB, error){
		"Open":     func(dir string) (*DB, error) { return Open(t.Context(), dir, nil) },
		"OpenRead": OpenRead,
	} {
		db, err := reopen(dir)
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := get(t, db, Records, "k"); !ok || v != "record" {
			t.Errorf("%s: record = %q, %v", name, v, ok)
		}
		if v, ok := get(t, db, Manifests, "k"); !ok || v != string(big) {
			t.Errorf("%s: big value: %v, %d bytes, want %d", name, ok, len(v), len(big))
		}
		if v, ok := get(t, db, Last, ""); !ok || v != "" {
			t.Errorf("%s: empty value under empty key = %q, %v", name, v, ok)
		}
		if v, ok := get(t, db, Files, "k"); ok {
			t.Errorf("%s: another namespace has %q", name, v)
		}
		closeDB(t, db)
	}
	if _, _, err := db.Get(Records, []byte("k")); err == nil {
		t.Error("Get after Close: no error")
	}
}

func TestEach(t *testing.T) {
	db := open(t, t.TempDir())
	defer closeDB(t, db)
	long := strings.Repeat("long", maxPiece)
	want := map[string]string{"a/1": "x", "a/2": long, "a/": ""}
	for k, v := range want {
		if err := db.Put(Entry{Last, []byte(k), []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	err := db.Put(Entry{Last, []byte("b"), nil}, Entry{Records, []byte("a/3"), nil}, Entry{pieces, []byte("a/"), nil})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	var order []string
	err = db.Each(Last, []byte("a/"), func(k, v []byte) error {
		got[string(k)] = string(v)
		order = append(order, string(k))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Each (-want +got):\n%s", diff)
	}
	if !slices.IsSorted(order) {
		t.Errorf("order %q", order)
	}
	stop := errors.New("stop")
	if err := db.Each(Last, nil, func(k, v []byte) error { return stop }); err != stop {
		t.Errorf("Each = %v, want the callback's error", err)
	}
}

// The database is a map, whatever is put in however many openings.
func TestMapProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "cache")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		want := map[string]string{}
		for range rapid.IntRange(1, 4).Draw(t, "openings") {
			db, err := Open(context.Background(), dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range rapid.SliceOfN(rapid.StringN(0, 3, -1), 0, 20).Draw(t, "keys") {
				n := rapid.SampledFrom([]int{0, 1, 100, maxPiece, maxPiece + 1}).Draw(t, "size")
				v := bytes.Repeat([]byte{byte(n), byte(len(want))}, n/2+1)[:n]
				if err := db.Put(Entry{Records, []byte(k), v}); err != nil {
					t.Fatal(err)
				}
				want[k] = string(v)
			}
			got := map[string]string{}
			if err := db.Each(Records, nil, func(k, v []byte) error { got[string(k)] = string(v); return nil }); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(want, got) {
				t.Fatalf("%d keys, want %d", len(got), len(want))
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestKeyTooLong(t *testing.T) {
	db := open(t, t.TempDir())
	defer closeDB(t, db)
	if err := db.Put(Entry{Records, make([]byte, maxKey+1), nil}); err == nil {
		t.Error("no error")
	}
	if err := db.Put(Entry{Records, make([]byte, maxKey), []byte("v")}); err != nil {
		t.Error(err)
	}
}

// Many short openings leave few tables, and nothing is lost when they are merged.
func TestCompaction(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 60 {
		db := open(t, dir)
		if err := db.Put(Entry{Records, fmt.Appendf(nil, "%d", i), []byte("v")}, Entry{Last, []byte("a"), fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
		closeDB(t, db)
	}
	tables, _ := filepath.Glob(filepath.Join(dbDir(dir), "*.sst"))
	if len(tables) > 20 {
		t.Errorf("%d tables after 60 openings", len(tables))
	}
	db := open(t, dir)
	defer closeDB(t, db)
	for i := range 60 {
		if _, ok := get(t, db, Records, fmt.Sprint(i)); !ok {
			t.Errorf("key %d is lost", i)
		}
	}
	if v, _ := get(t, db, Last, "a"); v != "59" {
		t.Errorf("overwritten key = %q, want 59", v)
	}
}

func TestOpenWaits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, kill := hang(t, dir, "open")
	if _, err := OpenRead(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("OpenRead = %v, want ErrLocked", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, dir, func(string) { t.Error("told the user within 50 ms") }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open = %v, want the context's error", err)
	}
	var told []string
	db, err := Open(t.Context(), dir, func(msg string) {
		told = append(told, msg)
		go func() {
			time.Sleep(50 * time.Millisecond)
			kill()
		}()
	})
	if err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	if len(told) != 1 || !strings.Contains(told[0], dir) {
		t.Errorf("told %q", told)
	}
}

func TestReadersBesideReaders(t *testing.T) {
	dir := t.TempDir()
	closeDB(t, open(t, dir))
	a, err := OpenRead(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenRead(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Put(Entry{Records, []byte("k"), nil}); err == nil {
		t.Error("Put to a database opened for reading: no error")
	}
	closeDB(t, a)
	closeDB(t, b)
	closeDB(t, open(t, dir))
}

func TestKilledWriterKeepsWhatWasPut(t *testing.T) {
	t.Parallel()
	for range 3 { // dying with the database open is not dying while opening it
		dir := t.TempDir()
		if out, err := child(dir, "die").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		db, err := OpenRead(dir)
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := get(t, db, Records, "k"); !ok || v != "v" {
			t.Errorf("OpenRead: k = %q, %v", v, ok)
		}
		closeDB(t, db)
		if out, err := child(dir, "die").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		db = open(t, dir)
		if v, ok := get(t, db, Records, "k"); !ok || v != "v" {
			t.Errorf("k = %q, %v", v, ok)
		}
		closeDB(t, db)
	}
}

// However a file of the database is damaged, at the latest the third process gets a database that works.
func TestDamage(t *testing.T) {
	t.Parallel()
	good := t.TempDir()
	db := open(t, good)
	for i := range 500 {
		if err := db.Put(Entry{Records, fmt.Appendf(nil, "k%d", i), bytes.Repeat([]byte("v"), 100)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Put(Entry{Records, []byte("k"), []byte("v")}); err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	names, err := filepath.Glob(filepath.Join(dbDir(good), "*"))
	if err != nil || len(names) < 4 {
		t.Fatal(names, err)
	}
	flip := func(b []byte, from, step int) []byte {
		for i := from; i < len(b); i += step {
			b[i] ^= 0x55
		}
		return b
	}
	for _, name := range names {
		for how, damage := range map[string]func([]byte) []byte{
			"empty":   func(b []byte) []byte { return nil },
			"half":    func(b []byte) []byte { return b[:len(b)/2] },
			"flipped": func(b []byte) []byte { return flip(b, len(b)/4, len(b)/10+1) },
			"garbage": func(b []byte) []byte { return flip(b, 0, 1) },
			"tail":    func(b []byte) []byte { return flip(b, max(0, len(b)-12), 1) },
		} {
			t.Run(filepath.Base(name)+" "+how, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dbDir(dir), filepath.Base(name))
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, damage(b), 0o644); err != nil {
					t.Fatal(err)
				}
				for try := 1; ; try++ {
					out, err := child(dir, "get").CombinedOutput()
					if err == nil {
						if got := string(out); got != "v true <nil> <nil>\n" && got != " false <nil> <nil>\n" {
							t.Errorf("Get after damage: %s", got)
						}
						break
					}
					if try == 3 {
						t.Fatalf("%v: %s", err, out)
					}
				}
				db := open(t, dir)
				defer closeDB(t, db)
				if err := db.Put(Entry{Records, []byte("new"), []byte("v")}); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestReadOnly(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "cache")
	db := open(t, dir)
	if err := db.Put(Entry{Records, []byte("k"), []byte("v")}); err != nil {
		t.Fatal(err)
	}
	closeDB(t, db)
	asStranger(t, parent, func() {
		if _, err := Open(t.Context(), dir, nil); !errors.Is(err, ErrReadOnly) {
			t.Errorf("Open = %v, want ErrReadOnly", err)
		}
		if _, err := Open(t.Context(), filepath.Join(parent, "new"), nil); !errors.Is(err, ErrReadOnly) {
			t.Errorf("Open of a new folder = %v, want ErrReadOnly", err)
		}
		if _, err := LockWorkspace(t.Context(), dir, "/root", nil); !errors.Is(err, ErrReadOnly) {
			t.Errorf("LockWorkspace = %v, want ErrReadOnly", err)
		}
	})
}

// asStranger runs f as a user who may read everything under dir and write nothing. Root can become one; anybody else takes
// their own right to write away.
func asStranger(t *testing.T, dir string, f func()) {
	t.Helper()
	chmod := func(folder, file fs.FileMode) {
		filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			mode := file
			if err != nil || e.IsDir() {
				mode = folder
			}
			return os.Chmod(path, mode)
		})
	}
	root := os.Getuid() == 0
	chmod(0o555, 0o444)
	t.Cleanup(func() { chmod(0o755, 0o644) })
	for up := filepath.Dir(dir); root && up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		os.Chmod(up, 0o755)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if root {
			runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
			syscall.Setfsuid(65534)
		}
		f()
	}()
	<-done
}

func TestLockWorkspace(t *testing.T) {
	dir := t.TempDir()
	pid, kill := hang(t, dir, "lock")
	other, err := LockWorkspace(t.Context(), dir, "/another/root", func(string) { t.Error("waits for another workspace") })
	if err != nil {
		t.Fatal(err)
	}
	other()

	ctx, cancel := context.WithCancel(t.Context())
	_, err = LockWorkspace(ctx, dir, "/some/root", func(holder string) {
		if want := fmt.Sprintf("process %d", pid); holder != want {
			t.Errorf("holder = %q, want %q", holder, want)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("LockWorkspace = %v, want context.Canceled", err)
	}

	n := 0
	unlock, err := LockWorkspace(t.Context(), dir, "/some/root", func(string) {
		n++
		go kill()
	})
	if err != nil {
		t.Fatal(err)
	}
	if n != 1 {
		t.Errorf("wait called %d times", n)
	}
	unlock()
	unlock, err = LockWorkspace(t.Context(), dir, "/some/root", func(string) { t.Error("waits after unlock") })
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestLockWorkspaceThroughSymlink(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	unlock, err := LockWorkspace(t.Context(), dir, root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := LockWorkspace(ctx, dir, link, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("the same workspace by another path: %v", err)
	}
}

func BenchmarkOpenClose(b *testing.B) {
	dir := b.TempDir()
	db := open(b, dir)
	entries := make([]Entry, 30000)
	for i := range entries {
		v := make([]byte, 300)
		rand.Read(v)
		entries[i] = Entry{Files, fmt.Appendf(nil, "/some/workspace/dir%d", i), v}
	}
	if err := db.Put(entries...); err != nil {
		b.Fatal(err)
	}
	closeDB(b, db)
	b.Run("idle", func(b *testing.B) {
		for b.Loop() {
			closeDB(b, open(b, dir))
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			db, err := OpenRead(dir)
			if err != nil {
				b.Fatal(err)
			}
			closeDB(b, db)
		}
	})
	b.Run("put", func(b *testing.B) {
		n := 0
		for b.Loop() {
			db := open(b, dir)
			n++
			if err := db.Put(Entry{Last, fmt.Append(nil, n), make([]byte, 100)}); err != nil {
				b.Fatal(err)
			}
			closeDB(b, db)
		}
	})
	b.Run("4000gets", func(b *testing.B) {
		db, err := OpenRead(dir)
		if err != nil {
			b.Fatal(err)
		}
		defer closeDB(b, db)
		for b.Loop() {
			for i := range 4000 {
				if _, ok, err := db.Get(Files, entries[i*7].Key); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		}
	})
}
