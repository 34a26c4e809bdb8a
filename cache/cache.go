// Package cache keeps what mwbuild remembers between builds: digests of files, and records and manifests of actions. It is a
// Badger database of small values; blobs are in package store beside it. It knows nothing of what the values mean.
//
// A cache folder belongs to one user and serves all of the user's workspaces:
//
//	badger/            the database; badger.lock is its lock, badger.opening counts openings that did not end
//	badger.damaged/    the last database that could not be opened
//	locks/             one lock file per workspace, see [LockWorkspace]
//
// Losing any of it costs time and never correctness. So nothing is synced to disk before [DB.Close], and a database that
// cannot be opened is moved aside for an empty one. Badger can end the process on a damaged table, where nobody can catch it:
// after the second opening in a row that did not end, the database counts as damaged too.
//
// A key in Badger is a namespace's byte, its version, and the caller's key. A value starts with a byte that says whether it
// follows (0) or lies in pieces (1), as Badger takes only small ones: then it is the number of pieces and the SHA-256 of the
// whole, and piece i is at 'x', 1, SHA-256, i as two bytes. Pieces are named by what they hold, so an interrupted write
// cannot mix two values.
//
// The database is opened for a moment only, twice in a build. Measured by BenchmarkOpenClose with 30,000 entries (10 MB) on ext4,
// with two cores: opening and closing takes 8 ms, most of it the syncing of Badger's own new files; 16 to 24 ms where something
// was written, merging of tables included; 0.5 ms for reading alone. 4,000 calls of Get take 14 ms.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/gofrs/flock"
)

var (
	// ErrReadOnly says that the cache folder cannot be written, so the caller must go without.
	ErrReadOnly = errors.New("cache folder is read-only")
	// ErrLocked says that another process has the database open.
	ErrLocked = errors.New("cache is locked by another process")
)

// A Namespace separates keys of one kind. Its low byte is a version: change it when the values' form changes.
type Namespace uint16

const (
	Files     Namespace = 'f'<<8 | 1 // absolute path of a directory → digests of its files
	Records   Namespace = 'r'<<8 | 1 // action key → what the action made
	Manifests Namespace = 'm'<<8 | 1 // action key → the manifest it is the digest of
	Last      Namespace = 'l'<<8 | 1 // workspace and action id → the action key it had last, for explain
	pieces    Namespace = 'x'<<8 | 1
)

const (
	maxKey   = 1 << 15   // Badger's limit is a little below 1<<16
	maxPiece = 512 << 10 // well below Badger's limit of 15 % of a memtable for one transaction
)

// A DB is an open database. Its methods may be called concurrently.
type DB struct {
	b    *badger.DB
	lock *flock.Flock
}

// Open opens the database in the cache folder dir, for reading and writing, and makes both where missing. While another process
// has it open, Open tries again until ctx ends; wait is called once, after half a second, with what to tell the user. The error
// is [ErrReadOnly] when dir cannot be written.
func Open(ctx context.Context, dir string, wait func(msg string)) (*DB, error) {
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		var lock *flock.Flock
		lock, err = lockDB(ctx, dir, wait)
		if err == nil {
			b, err := openOrRenew(dir)
			if err == nil {
				return &DB{b, lock}, nil
			}
			lock.Close()
			return nil, fmt.Errorf("cache %s: %w", dir, err)
		}
	}
	if readOnly(err) {
		err = fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return nil, fmt.Errorf("cache %s: %w", dir, err)
}

// OpenRead opens the database for reading, beside other readers and without waiting. Only a database that a killed process left
// unfinished is written, to finish it. The error is [ErrLocked] while another process writes, and fs.ErrNotExist when there is
// no database yet.
func OpenRead(dir string) (*DB, error) {
	if _, err := os.Stat(dbDir(dir)); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	db, err := openRead(dir)
	if err != nil && !errors.Is(err, ErrLocked) && finish(dir) == nil {
		db, err = openRead(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cache %s: %w", dir, err)
	}
	return db, nil
}

func openRead(dir string) (*DB, error) {
	lock := flock.New(dbDir(dir) + ".lock")
	ok, err := lock.TryRLock()
	if err != nil && !readOnly(err) { // where nobody can write, no lock is needed
		return nil, err
	}
	if err == nil && !ok {
		return nil, ErrLocked
	}
	b, err := openBadger(dbDir(dir), true)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &DB{b, lock}, nil
}

// finish opens the database for writing, if that can be had at once, and closes it.
func finish(dir string) error {
	lock := flock.New(dbDir(dir)+".lock", flock.SetFlag(os.O_CREATE|os.O_RDWR))
	if ok, err := lock.TryLock(); err != nil || !ok {
		return errors.Join(err, ErrLocked)
	}
	defer lock.Close()
	b, err := openOrRenew(dir)
	if err != nil {
		return err
	}
	return b.Close()
}

func dbDir(dir string) string { return filepath.Join(dir, "badger") }

func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

func lockDB(ctx context.Context, dir string, wait func(string)) (*flock.Flock, error) {
	lock := flock.New(dbDir(dir)+".lock", flock.SetFlag(os.O_CREATE|os.O_RDWR)) // RDWR: fails where the folder is read-only
	told := false
	for start := time.Now(); ; {
		ok, err := lock.TryLock()
		if err != nil || ok {
			return lock, err
		}
		if !told && wait != nil && time.Since(start) >= 500*time.Millisecond {
			told = true
			wait("waiting for another mwbuild to let go of the cache in " + dir)
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return nil, fmt.Errorf("waiting for another process to let go of it: %w", err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// openOrRenew opens the database, or an empty one in its place. The caller holds the exclusive lock.
func openOrRenew(dir string) (*badger.DB, error) {
	db, damaged, opening := dbDir(dir), dbDir(dir)+".damaged", dbDir(dir)+".opening"
	deaths := int64(0)
	if fi, err := os.Stat(opening); err == nil {
		deaths = fi.Size()
	}
	if err := appendByte(opening); err != nil {
		return nil, err
	}
	err := errors.New("two processes ended while opening it")
	if deaths < 2 {
		var b *badger.DB
		if b, err = openBadger(db, false); err == nil {
			return opened(b, opening)
		}
	}
	if rerr := os.RemoveAll(damaged); rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	if rerr := os.Rename(db, damaged); rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	b, nerr := openBadger(db, false)
	if nerr != nil { // not its fault, then: a full disk, say. Put it back.
		return nil, errors.Join(err, os.RemoveAll(db), os.Rename(damaged, db), os.Remove(opening))
	}
	return opened(b, opening)
}

// opened ends the counting of an opening that ended well.
func opened(b *badger.DB, opening string) (*badger.DB, error) {
	if err := os.Remove(opening); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func appendByte(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString("x")
	return errors.Join(err, f.Close())
}

// openBadger opens Badger shrunk from a server to a tool that runs for a second: no caches, no compactors (Close compacts), a
// small memtable, and the lock is ours.
func openBadger(dir string, readOnly bool) (b *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("badger: %v", p)
		}
	}()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return nil, err
	}
	b, err = badger.Open(badger.DefaultOptions(dir).
		WithReadOnly(readOnly).
		WithBypassLockGuard(true).
		WithLogger(nil).
		WithMetricsEnabled(false).
		WithDetectConflicts(false).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithMemTableSize(16 << 20).
		WithNumMemtables(1).
		WithNumGoroutines(1).
		WithNumCompactors(0).
		WithNumLevelZeroTablesStall(1 << 20). // without compactors a stall would never end
		WithValueLogFileSize(1 << 20).        // stays empty: every value is below the threshold
		WithChecksumVerificationMode(options.OnBlockRead))
	if err != nil {
		return nil, err
	}
	if err := checkTables(b, tables); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// checkTables tells whether b lacks one of the tables that were there before it was opened, and are still there. Badger opens each in a goroutine of
// its own, and where that panics, Open may return without the table a moment before the process dies of it.
func checkTables(b *badger.DB, tables []string) error {
	known := map[string]bool{}
	for _, t := range b.Tables() {
		known[fmt.Sprintf("%06d.sst", t.ID)] = true
	}
	for _, t := range tables {
		if _, err := os.Stat(t); err == nil && !known[filepath.Base(t)] {
			return fmt.Errorf("badger: it did not open %s", t)
		}
	}
	return nil
}

// Close writes out what was put and lets other processes in.
func (db *DB) Close() error {
	if !db.b.Opts().ReadOnly {
		db.compact()
	}
	err := errors.Join(db.b.Close(), db.lock.Close())
	if err != nil {
		return fmt.Errorf("close cache: %w", err)
	}
	return nil
}

// compact merges the tables that single openings left, when they are many and not small beside the rest: so the cost stays in
// proportion to what was written. Its failure loses nothing and is tried again by the next.
func (db *DB) compact() {
	var n, size, all int64
	for _, l := range db.b.Levels() {
		if l.Level == 0 {
			n, size = int64(l.NumTables), l.Size
		}
		all += l.Size
	}
	if n >= 48 || n >= 12 && size*4 >= all {
		_ = db.b.Flatten(1)
	}
}

func fullKey(ns Namespace, key []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(key)), uint16(ns)), key...)
}

// Get returns the value of key, and whether there is one.
func (db *DB) Get(ns Namespace, key []byte) (value []byte, ok bool, err error) {
	err = db.b.View(func(tx *badger.Txn) error {
		item, err := tx.Get(fullKey(ns, key))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		value, ok, err = load(tx, item)
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("read cache: %w", err)
	}
	return value, ok, nil
}

// load returns an item's value. A value of which a piece is missing is none.
func load(tx *badger.Txn, item *badger.Item) ([]byte, bool, error) {
	b, err := item.ValueCopy(nil)
	if err != nil || len(b) == 0 {
		return nil, false, err
	}
	if b[0] == 0 {
		return b[1:], true, nil
	}
	if len(b) != 3+sha256.Size {
		return nil, false, nil
	}
	var value []byte
	for i := range binary.BigEndian.Uint16(b[1:]) {
		item, err := tx.Get(pieceKey(b[3:], i))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		if err := item.Value(func(p []byte) error { value = append(value, p...); return nil }); err != nil {
			return nil, false, err
		}
	}
	return value, sha256.Sum256(value) == [sha256.Size]byte(b[3:]), nil
}

func pieceKey(sum []byte, i uint16) []byte {
	return fullKey(pieces, binary.BigEndian.AppendUint16(sum[:sha256.Size:sha256.Size], i))
}

// An Entry is one key and its value.
type Entry struct {
	NS         Namespace
	Key, Value []byte
}

// Put writes entries, in their order, and replaces what is there. Each is written whole or not at all; a process that ends in
// between has written the first of them.
func (db *DB) Put(entries ...Entry) error {
	wb := db.b.NewWriteBatch()
	defer wb.Cancel()
	for _, e := range entries {
		if err := put(wb, e); err != nil {
			return fmt.Errorf("write cache: %w", err)
		}
	}
	if err := wb.Flush(); err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	return nil
}

func put(wb *badger.WriteBatch, e Entry) error {
	if len(e.Key) > maxKey {
		return fmt.Errorf("key of %d bytes: more than %d", len(e.Key), maxKey)
	}
	if len(e.Value) <= maxPiece {
		return wb.Set(fullKey(e.NS, e.Key), append([]byte{0}, e.Value...))
	}
	n := (len(e.Value) + maxPiece - 1) / maxPiece
	if n > 1<<16-1 {
		return fmt.Errorf("value of %d bytes is too big for the cache", len(e.Value))
	}
	sum := sha256.Sum256(e.Value)
	for i := range n {
		piece := e.Value[i*maxPiece : min((i+1)*maxPiece, len(e.Value))]
		if err := wb.Set(pieceKey(sum[:], uint16(i)), append([]byte{}, piece...)); err != nil {
			return err
		}
	}
	head := append(binary.BigEndian.AppendUint16([]byte{1}, uint16(n)), sum[:]...)
	return wb.Set(fullKey(e.NS, e.Key), head)
}

// Each calls f for every key of ns that starts with prefix, in the order of their bytes, until f returns an error, which it
// returns. f may keep key and value.
func (db *DB) Each(ns Namespace, prefix []byte, f func(key, value []byte) error) error {
	return db.b.View(func(tx *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = fullKey(ns, prefix)
		it := tx.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			value, ok, err := load(tx, it.Item())
			if err != nil {
				return fmt.Errorf("read cache: %w", err)
			}
			if !ok {
				continue
			}
			if err := f(it.Item().KeyCopy(nil)[2:], value); err != nil {
				return err
			}
		}
		return nil
	})
}

// A FileMemo keeps the digests of files, one value per directory, in the form that package workspace asks for.
type FileMemo struct{ DB *DB }

// Load returns what was stored for a directory. What cannot be read is not there.
func (m FileMemo) Load(absDir string) ([]byte, bool) {
	b, ok, err := m.DB.Get(Files, []byte(absDir))
	return b, ok && err == nil
}

// Store keeps the values of several directories.
func (m FileMemo) Store(byDir map[string][]byte) error {
	entries := make([]Entry, 0, len(byDir))
	for dir, b := range byDir {
		entries = append(entries, Entry{Files, []byte(dir), b})
	}
	return m.DB.Put(entries...)
}

// LockWorkspace makes builds of one workspace wait for one another. It locks the workspace at root, a file in the cache folder
// dir, and returns the function that unlocks it. While another process has the lock, LockWorkspace tries again until ctx ends;
// wait is called once, with who has it ("process 4711"). The lock ends with its process, however that ends. The error is
// [ErrReadOnly] when dir cannot be written.
func LockWorkspace(ctx context.Context, dir, root string, wait func(holder string)) (unlock func(), err error) {
	if real, err := filepath.EvalSymlinks(root); err == nil {
		root = real
	}
	root, err = filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("lock workspace: %w", err)
	}
	path := filepath.Join(dir, "locks", fmt.Sprintf("%x", sha256.Sum256([]byte(root))))
	unlock, err = lockWorkspace(ctx, path, wait)
	if readOnly(err) {
		err = fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock workspace %s: %w", root, err)
	}
	return unlock, nil
}

func lockWorkspace(ctx context.Context, path string, wait func(string)) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR))
	told := false
	for {
		ok, err := lock.TryLock()
		if err != nil {
			return nil, err
		}
		if ok {
			break
		}
		if !told && wait != nil {
			told = true
			wait(holder(path))
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "process %d\n", os.Getpid()), 0o644); err != nil {
		lock.Close()
		return nil, err
	}
	return func() {
		_ = os.Truncate(path, 0) // for the message only
		_ = lock.Close()
	}, nil
}

// holder says who has a lock file.
func holder(path string) string {
	b, err := os.ReadFile(path)
	if s := strings.TrimSpace(string(b)); err == nil && s != "" {
		return s
	}
	return "another process" // it has only just taken the lock, or is just letting go of it
}
