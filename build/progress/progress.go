// Package progress shows a build: BuildKit's own display, with mwbuild's own work in it as if it were the engine's.
//
// A [Task] is something that mwbuild does itself; a solve's statuses go to [Display.Update]. Nothing is written before
// the first of either. Showing never holds up the build: what is to be shown is queued, and once the display has ended
// it is dropped.
package progress

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"
	"golang.org/x/term"
)

// Modes are what [New] accepts.
var Modes = []string{"auto", "plain", "tty", "rawjson", "quiet"}

// A Display shows tasks and solves until it is closed. Its methods may be called by several goroutines at once.
type Display struct {
	ui     progressui.Display
	prefix *prefixer // or nil; guarded by mu

	mu      sync.Mutex
	queue   []*client.SolveStatus
	more    *sync.Cond
	closed  bool
	started bool
	tasks   int
	done    chan struct{}
	err     error
}

// New returns a display on w, which is meant to be the standard error. "auto" is "tty" on a terminal and "plain"
// elsewhere; "tty" elsewhere is an error. In "plain" what a step prints has the step's name before each line.
func New(w io.Writer, mode string) (*Display, error) {
	ui, err := progressui.NewDisplay(w, progressui.DisplayMode(mode))
	if err != nil {
		return nil, fmt.Errorf("progress %q (want one of %q): %w", mode, Modes, err)
	}
	d := &Display{ui: ui, done: make(chan struct{})}
	if f, ok := w.(*os.File); mode == "plain" || mode == "auto" && !(ok && term.IsTerminal(int(f.Fd()))) {
		d.prefix = newPrefixer()
	}
	d.more = sync.NewCond(&d.mu)
	return d, nil
}

// Update shows what a solve reports. s must not be changed afterwards.
func (d *Display) Update(s *client.SolveStatus) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || s == nil {
		return
	}
	if !d.started {
		d.started = true
		go d.show()
	}
	if d.prefix != nil {
		s = d.prefix.status(s)
	}
	d.queue = append(d.queue, s)
	d.more.Signal()
}

// Close waits until everything has been shown. A terminal's cursor is visible again afterwards. Later updates are
// dropped; closing again does nothing.
func (d *Display) Close() error {
	d.mu.Lock()
	d.closed = true
	started := d.started
	d.more.Signal()
	d.mu.Unlock()
	if started {
		<-d.done
	}
	return d.err
}

// show feeds the user interface from the queue.
func (d *Display) show() {
	defer close(d.done)
	ch := make(chan *client.SolveStatus)
	ended := make(chan error, 1)
	go func() {
		_, err := d.ui.UpdateFrom(context.Background(), ch)
		ended <- err
	}()
	for {
		d.mu.Lock()
		for len(d.queue) == 0 && !d.closed {
			d.more.Wait()
		}
		batch := d.queue
		d.queue = nil
		closed := d.closed
		d.mu.Unlock()
		for _, s := range batch {
			select {
			case ch <- s:
			case d.err = <-ended:
				d.mu.Lock()
				d.closed, d.queue = true, nil
				d.mu.Unlock()
				return
			}
		}
		if closed {
			break
		}
	}
	close(ch)
	d.err = <-ended
}

// Task announces work of mwbuild's own. It is shown once it is started, or cached.
func (d *Display) Task(name string) *Task {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tasks++
	// Any unique digest will do: it is how the display tells its lines apart.
	id := digest.FromString("mwbuild task " + strconv.Itoa(d.tasks))
	return &Task{d: d, v: client.Vertex{Digest: id, Name: name}}
}

// A Task is one line of the display. It ends with Done, or with Cached.
type Task struct {
	d  *Display
	mu sync.Mutex
	v  client.Vertex
}

// Start shows the task as running.
func (t *Task) Start() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start()
}

// Cached shows that the task needs not be done: its result is there.
func (t *Task) Cached() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.v.Cached = true
	t.end(nil)
}

// Done shows the task's end, as failed if err is not nil. It may be called without Start, and only the first call of
// Done and Cached counts.
func (t *Task) Done(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(err)
}

func (t *Task) start() {
	if t.v.Started == nil {
		now := time.Now()
		t.v.Started = &now
		t.send(client.SolveStatus{})
	}
}

func (t *Task) end(err error) {
	if t.v.Completed != nil {
		return
	}
	t.start()
	now := time.Now()
	t.v.Completed = &now
	if err != nil {
		t.v.Error = err.Error()
	}
	t.send(client.SolveStatus{})
}

// Log shows lines below the task. p should end in a newline; it is copied.
func (t *Task) Log(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start()
	t.send(client.SolveStatus{Logs: []*client.VertexLog{
		{Vertex: t.v.Digest, Stream: 1, Data: append([]byte(nil), p...), Timestamp: time.Now()},
	}})
}

// Status shows a part of the task, such as one blob's upload, by the name that it has within the task.
func (t *Task) Status(id string) *Status {
	return &Status{t: t, s: client.VertexStatus{ID: id, Name: id, Vertex: t.v.Digest}}
}

// send passes on s with the task's present state. The caller holds t.mu, so that states arrive in order.
func (t *Task) send(s client.SolveStatus) {
	v := t.v
	s.Vertexes = []*client.Vertex{&v}
	t.d.Update(&s)
}

// A Status is a part of a task.
type Status struct {
	t *Task
	s client.VertexStatus
}

// Update shows current of total bytes; a total of 0 is one that is not known.
func (s *Status) Update(current, total int64) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.s.Current, s.s.Total = current, total
	s.send()
}

// Done shows the part's end.
func (s *Status) Done() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.s.Completed == nil {
		now := time.Now()
		s.s.Completed = &now
		s.send()
	}
}

func (s *Status) send() {
	s.t.start()
	now := time.Now()
	if s.s.Started == nil {
		s.s.Started = &now
	}
	s.s.Timestamp = now
	st := s.s
	s.t.send(client.SolveStatus{Statuses: []*client.VertexStatus{&st}})
}
