package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/cache"
	"github.com/mwbuild/mwbuild/graph/action"
)

// Records is what is remembered of earlier builds of one workspace, in the user's cache database. The database is open
// only inside a session, because it is locked against other processes for that time.
//
// It is a memo of file digests too (workspace.Memo), which finds and keeps nothing outside a session.
type Records struct {
	Dir       string           // cache folder
	Workspace string           // absolute path of the workspace's root
	Config    string           // the configuration that targets are loaded in: each has had builds of its own
	Wait      func(msg string) // told when another process holds the database

	mu sync.Mutex
	db *cache.DB // nil outside a session
	ro bool      // the folder cannot be written
}

// session runs f with the database open.
func (r *Records) session(ctx context.Context, f func(*session) error) error {
	s, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	return errors.Join(f(s), s.close())
}

// open opens the database until the session is closed. Without a folder that can be written, the session reads what there is
// and keeps nothing.
func (r *Records) open(ctx context.Context) (*session, error) {
	open := func() (*cache.DB, error) { return cache.Open(ctx, r.Dir, r.Wait) }
	if r.ro {
		open = func() (*cache.DB, error) { return cache.OpenRead(r.Dir) }
	}
	db, err := open()
	if errors.Is(err, cache.ErrReadOnly) && !r.ro {
		r.ro = true
		db, err = cache.OpenRead(r.Dir)
	}
	if err != nil {
		if r.ro {
			return &session{r: r}, nil
		}
		return nil, fmt.Errorf("cache: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.db = db
	return &session{r, db}, nil
}

// close ends the session; a closed one stays closed.
func (s *session) close() error {
	if s.db == nil {
		return nil
	}
	s.r.mu.Lock()
	s.r.db = nil
	s.r.mu.Unlock()
	err := s.db.Close()
	s.db = nil
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

// Load is workspace.Memo's.
func (r *Records) Load(absDir string) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.db == nil {
		return nil, false
	}
	return cache.FileMemo{DB: r.db}.Load(absDir)
}

// Store is workspace.Memo's.
func (r *Records) Store(byDir map[string][]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.db == nil || r.ro {
		return nil
	}
	return cache.FileMemo{DB: r.db}.Store(byDir)
}

// A session is Records with the database open.
type session struct {
	r  *Records
	db *cache.DB // nil: remember nothing
}

// record returns what is recorded for k, or nil.
func (s *session) record(k plan.Key) (*plan.Record, error) {
	if s.db == nil {
		return nil, nil
	}
	v, ok, err := s.db.Get(cache.Records, k[:])
	if !ok || err != nil {
		return nil, err
	}
	r := &plan.Record{}
	if json.Unmarshal(v, r) != nil {
		return nil, nil // not ours: a miss
	}
	return r, nil
}

// last is what explain needs of an action of the workspace: the key it had at its latest build, and the one before; and, of some, the sum
// of what the latest followed from.
type last struct{ Key, Before, Sum plan.Key }

// scope begins the keys of all actions of the workspace in the configuration.
func (r *Records) scope() string {
	if r.Config == "" {
		return r.Workspace + "\n"
	}
	return r.Workspace + "\x00" + r.Config + "\n"
}

func (s *session) lastKey(n *action.Node) []byte { return []byte(s.r.scope() + n.ID()) }

// last returns the keys that n had, zero if it was never built here.
func (s *session) last(n *action.Node) (last, error) {
	var l last
	if s.db == nil {
		return l, nil
	}
	v, ok, err := s.db.Get(cache.Last, s.lastKey(n))
	if n := len(l.Key); ok && (len(v) == 2*n || len(v) == 3*n) {
		copy(l.Key[:], v)
		copy(l.Before[:], v[n:])
		copy(l.Sum[:], v[2*n:])
	}
	return l, err
}

// seen keeps that the steps of p had their keys in this build.
func (s *session) seen(p *plan.Plan, steps []*plan.Step) error {
	if s.db == nil || s.r.ro {
		return nil
	}
	var entries []cache.Entry
	subtrees := map[*plan.Step]bool{}
	for _, st := range p.Subtrees() {
		subtrees[st] = true
	}
	for _, st := range steps {
		was, err := s.last(st.Node)
		if err != nil {
			return err
		}
		var sum plan.Key
		if subtrees[st] {
			if sum, err = p.Sum(st); err != nil {
				sum = plan.Key{} // a file changed just now
			}
		}
		before := was.Before
		if was.Key != st.Key {
			before = was.Key
		} else if was.Sum == sum {
			continue
		}
		value := slices.Concat(st.Key[:], before[:])
		if sum != (plan.Key{}) {
			value = append(value, sum[:]...)
		}
		entries = append(entries, cache.Entry{NS: cache.Last, Key: s.lastKey(st.Node), Value: value})
	}
	if entries == nil {
		return nil
	}
	return s.db.Put(entries...)
}

// save keeps what executed steps of p made, and the manifests of their keys.
func (s *session) save(p *plan.Plan, steps []*plan.Step) error {
	if s.db == nil || s.r.ro || len(steps) == 0 {
		return nil
	}
	entries := make([]cache.Entry, 0, 2*len(steps))
	for _, st := range steps {
		record, err := json.Marshal(st.Record)
		if err != nil {
			return err
		}
		entries = append(entries,
			cache.Entry{NS: cache.Manifests, Key: st.Key[:], Value: deflate(st.Manifest.Encode())},
			cache.Entry{NS: cache.Records, Key: st.Key[:], Value: record})
	}
	if err := s.db.Put(entries...); err != nil {
		return err
	}
	return s.seen(p, steps)
}

// manifest returns the manifest that k is the digest of, or nil.
func (s *session) manifest(k plan.Key) (*plan.Manifest, error) {
	if s.db == nil || k == (plan.Key{}) {
		return nil, nil
	}
	v, ok, err := s.db.Get(cache.Manifests, k[:])
	if !ok || err != nil {
		return nil, err
	}
	m, err := inflate(v)
	if err != nil || m.Key() != k {
		return nil, nil // damaged: as if there were none
	}
	return m, nil
}

// Blobs calls f with every blob that a record names, whatever workspace made it, downloads included: with them an action runs
// again where nobody has them any more.
func (r *Records) Blobs(ctx context.Context, f func(digest.Digest)) error {
	return r.session(ctx, func(s *session) error {
		if s.db == nil {
			return nil
		}
		return s.db.Each(cache.Records, nil, func(_, value []byte) error {
			var rec plan.Record
			if json.Unmarshal(value, &rec) != nil {
				return nil
			}
			layers := rec.Layers
			if rec.Image != nil {
				layers = rec.Image.Layers
				f(rec.Image.Manifest.Digest)
				f(rec.Image.Config.Digest)
			}
			for _, l := range layers {
				f(l.Descriptor.Digest)
			}
			for _, d := range rec.Downloads {
				f(d)
			}
			return nil
		})
	})
}

// Took returns how long the actions of targets took when they were executed, each as it was built last: by label, where any
// of it is recorded. It waits for nobody: [cache.ErrLocked] is the error while another process writes.
func (r *Records) Took(labels []string) (map[string]time.Duration, error) {
	db, err := cache.OpenRead(r.Dir)
	if err != nil {
		return nil, err
	}
	s := &session{r, db}
	took := map[string]time.Duration{}
	for _, lab := range labels {
		err = errors.Join(err, db.Each(cache.Last, []byte(r.scope()+lab+" "), func(_, value []byte) error {
			var k plan.Key
			copy(k[:], value)
			rec, err := s.record(k)
			if rec != nil && rec.Took > 0 {
				took[lab] += rec.Took
			}
			return err
		}))
	}
	return took, errors.Join(err, db.Close())
}

// One of each serves all: there may be thousands of manifests, each small.
var (
	deflater = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
		if err != nil {
			panic(err) // the options are constant
		}
		return e
	})
	inflater = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// smallManifest is the length up to which a manifest is not compressed. It begins with a digit, which no zstd frame does.
const smallManifest = 1 << 10

func deflate(b []byte) []byte {
	if len(b) <= smallManifest {
		return b
	}
	return deflater().EncodeAll(b, make([]byte, 0, len(b)/2))
}

func inflate(b []byte) (*plan.Manifest, error) {
	if len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		return plan.DecodeManifest(b)
	}
	raw, err := inflater().DecodeAll(b, nil)
	if err != nil {
		return nil, err
	}
	return plan.DecodeManifest(raw)
}
