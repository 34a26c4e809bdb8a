// Package buildkit is the one place that talks to an engine: a BuildKit that is running somewhere, or mwbuild's own.
//
// [New] starts nothing. The first [Engine.Solve] connects to the address that it was given, or, without one, starts the
// embedded engine as a supervised child, which [Engine.Close] ends. [Serve] is what that child runs.
//
// A failed step is final: [StepError] has its exit code and the end of its log. An engine that went away is another
// matter: the whole solve is tried again, since steps are pure.
package buildkit

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/moby/buildkit/client"
)

// ErrNoEngine says that there is no engine and none can be started here. The error that wraps it names what is missing.
var ErrNoEngine = errors.New("no build engine")

// Options say which engine to use. Only Addr, or Root and Exe, must be set.
type Options struct {
	Addr string // as CheckAddr takes it; "" is the embedded engine
	Root string // absolute: the embedded engine's state
	Exe  string // run as `Exe engine --root Root --socket PATH` it must call Serve

	Wait func(msg string) // told why the embedded engine does not start yet; may be nil
	Log  *slog.Logger     // debug messages, the embedded engine's too; nil discards them
}

// An Engine solves graphs. It may be used by several goroutines at once.
type Engine struct {
	o    Options
	used atomic.Bool

	mu     sync.Mutex
	child  *child
	closed bool
}

// New returns an engine that connects to nothing and starts nothing yet.
func New(o Options) *Engine {
	if o.Wait == nil {
		o.Wait = func(string) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return &Engine{o: o}
}

// Used says whether any solve asked for the engine.
func (e *Engine) Used() bool { return e.used.Load() }

// Close ends the embedded engine and what it runs, if it was started: it is asked to end, and killed when it has not
// after three seconds. A solve that is under way fails. Close may be called more than once.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	c := e.child
	e.child = nil
	e.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.stop()
}

// connect returns a client, and what to do with it afterwards. A remote engine gets one client per solve, which lets a
// balancer in front of several spread them; the embedded one shares the client of the child.
func (e *Engine) connect(ctx context.Context) (*client.Client, func(), error) {
	e.used.Store(true)
	if e.o.Addr != "" {
		r, err := parseRemote(e.o.Addr)
		if err != nil {
			return nil, nil, err
		}
		c, err := r.connect(ctx)
		if err != nil {
			return nil, nil, err
		}
		return c, func() { c.Close() }, nil
	}
	if err := thisMachine().canEmbed(); err != nil {
		return nil, nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, nil, errors.New("build engine: used after it was closed")
	}
	if e.child != nil && e.child.dead() {
		e.o.Log.Debug("embedded engine died; starting another", "stderr", e.child.stderr.String())
		e.child.stop()
		e.child = nil
	}
	if e.child == nil {
		c, err := startChild(ctx, e.o)
		if err != nil {
			return nil, nil, err
		}
		e.child = c
	}
	return e.child.client, func() {}, nil
}
