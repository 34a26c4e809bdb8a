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
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/moby/buildkit/client"
	// Ways to reach an engine: docker-container://, kube-pod://, podman-container://, ssh://.
	_ "github.com/moby/buildkit/client/connhelper/dockercontainer"
	_ "github.com/moby/buildkit/client/connhelper/kubepod"
	_ "github.com/moby/buildkit/client/connhelper/podmancontainer"
	_ "github.com/moby/buildkit/client/connhelper/ssh"
)

// ErrNoEngine says that there is no engine and none can be started here: the machine has no runc, or the user is not
// root.
var ErrNoEngine = errors.New("no build engine")

// Options say which engine to use. Only Addr, or Root and Exe, must be set.
type Options struct {
	Addr string // unix://, tcp://, docker-container://, kube-pod://, podman-container:// or ssh://; "" is the embedded engine
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

// schemes are the forms of an engine's address.
var schemes = []string{"unix", "tcp", "docker-container", "podman-container", "kube-pod", "ssh"}

// CheckAddr tells whether addr may be an engine's address, or is "" for the embedded one. It connects to nothing.
func CheckAddr(addr string) error {
	scheme, rest, ok := strings.Cut(addr, "://")
	if addr == "" || ok && rest != "" && slices.Contains(schemes, scheme) {
		return nil
	}
	return fmt.Errorf("builder %q: want one of %s://", addr, strings.Join(schemes, "://, "))
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
		c, err := client.New(ctx, e.o.Addr)
		if err != nil {
			return nil, nil, fmt.Errorf("engine at %s: %w", e.o.Addr, err)
		}
		return c, func() { c.Close() }, nil
	}
	if err := canEmbed(); err != nil {
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

// runtimes are the programs that can run a container for the embedded engine, in the order in which it looks.
var runtimes = []string{"buildkit-runc", "runc"}

func canEmbed() error {
	const other = "or point --builder (BUILDKIT_HOST) at a BuildKit that is running"
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: the embedded engine needs root: run mwbuild as root, %s", ErrNoEngine, other)
	}
	if !slices.ContainsFunc(runtimes, func(r string) bool { _, err := exec.LookPath(r); return err == nil }) {
		return fmt.Errorf("%w: runc is not installed: install your distribution's runc package, %s", ErrNoEngine, other)
	}
	return nil
}
