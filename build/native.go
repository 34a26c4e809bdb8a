package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/build/progress"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
)

// A Native computes the files of a native action of its kind. What it returns must depend on the action alone: on its
// parameters, the bytes of its files, and what the actions behind its inputs make. It is asked again for files whose
// bytes are needed and were not kept. Several goroutines call it.
//
// SHA256 and Size of what has Data are filled in by the caller.
type Native func(ctx context.Context, do *action.Native) ([]action.Made, error)

// A Receiver takes the files that a target stands for, from several goroutines.
type Receiver interface {
	Has(f action.File) bool // tells whether it needs not be given f
	Put(f action.File, data []byte) error
}

// native executes a native action: it records what was made, and keeps bytes that the actions behind it will ask for.
func (b *Builder) native(ctx context.Context, s *plan.Step, do *action.Native) (*plan.Record, error) {
	made, err := b.make(ctx, s.Node, do)
	if err != nil {
		return nil, err
	}
	r := &plan.Record{Files: make([]action.File, len(made))}
	for i, m := range made {
		r.Files[i] = m.File
		if m.Data == nil {
			continue
		}
		if b.receiver != nil && b.wanted[graph.File{From: s.Node, Path: m.Path}] {
			if err := b.receiver.Put(m.File, m.Data); err != nil {
				return nil, err
			}
		}
		if len(s.Users) == 0 || !b.spool.put(m) {
			free(m)
		}
	}
	return r, nil
}

// make calls the function of a native action.
func (b *Builder) make(ctx context.Context, n *action.Node, do *action.Native) ([]action.Made, error) {
	f := b.Natives[do.Kind]
	if f == nil {
		return nil, fmt.Errorf("there is no native action %q", do.Kind)
	}
	made, err := f(ctx, do)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(made))
	for i := range made {
		m := &made[i]
		if m.Data != nil {
			sum := sha256.Sum256(m.Data)
			m.SHA256, m.Size = hex.EncodeToString(sum[:]), int64(len(m.Data))
		}
		if m.Path == "" || seen[m.Path] || len(m.SHA256) != 2*sha256.Size {
			return nil, fmt.Errorf("native action %q made %q, which has no digest or no name of its own", do.Kind, m.Path)
		}
		seen[m.Path] = true
	}
	return made, nil
}

func free(m action.Made) {
	if m.Free != nil {
		m.Free()
	}
}

// remake returns f, a file of n, with its bytes: as they were kept, or made again. The caller frees it.
func (b *Builder) remake(ctx context.Context, n *action.Node, f *action.File) (action.Made, error) {
	if m, ok := b.spool.take(f.SHA256); ok {
		return m, nil
	}
	made, err := b.make(ctx, n, n.Do.(*action.Native))
	if err != nil {
		return action.Made{}, err
	}
	for _, m := range made {
		switch {
		case m.Path != f.Path || m.Data == nil:
			free(m)
		case m.SHA256 != f.SHA256:
			return m, fmt.Errorf("%s made other bytes of %s than before: a file that it reads changed meanwhile; build again", n.ID(), f.Path)
		default:
			return m, nil
		}
	}
	return action.Made{}, fmt.Errorf("%s does not give the bytes of %s", n.ID(), f.Path)
}

// madeReader reads the bytes of m, and frees it in the end. It is a [layer.InMemory].
type madeReader struct {
	*bytes.Reader
	m action.Made
}

func (r madeReader) Bytes() []byte { return r.m.Data[len(r.m.Data)-r.Len():] }

func (r madeReader) Close() error {
	free(r.m)
	return nil
}

// spoolSize bounds the memory for bytes on their way from one action to the next. What does not fit is made again.
const spoolSize = 64 << 20

// A spool keeps what Natives made until it is packed. The zero spool is empty.
type spool struct {
	mu   sync.Mutex
	made map[string]action.Made // by SHA-256
	size int
}

// put tells whether m is kept now.
func (s *spool) put(m action.Made) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.made[m.SHA256]; ok || s.size+cap(m.Data) > spoolSize {
		return false
	}
	if s.made == nil {
		s.made = map[string]action.Made{}
	}
	s.made[m.SHA256] = m
	s.size += cap(m.Data)
	return true
}

func (s *spool) take(sum string) (action.Made, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.made[sum]
	if ok {
		delete(s.made, sum)
		s.size -= cap(m.Data)
	}
	return m, ok
}

// A crowd shows native actions, of which there may be thousands, as one task for each kind. The zero crowd is empty.
type crowd struct {
	mu    sync.Mutex
	kinds map[string]*throng
}

type throng struct {
	task *progress.Task
	done int
	told time.Time
	err  error
}

func (c *crowd) begin(d *progress.Display, n *action.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := n.Do.(*action.Native).Kind
	if c.kinds == nil {
		c.kinds = map[string]*throng{}
	}
	if c.kinds[kind] == nil {
		t := &throng{task: d.Task(n.Title()), told: time.Now()}
		t.task.Start()
		c.kinds[kind] = t
	}
}

func (c *crowd) end(n *action.Node, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.kinds[n.Do.(*action.Native).Kind]
	t.done++
	if err != nil && t.err == nil {
		t.err = err
	}
	if now := time.Now(); now.Sub(t.told) > time.Second {
		t.told = now
		t.task.Log(fmt.Appendf(nil, "%d done, %s\n", t.done, n.Label))
	}
}

// close ends the tasks.
func (c *crowd) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.kinds {
		t.task.Done(t.err)
	}
	c.kinds = nil
}
