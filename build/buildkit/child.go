package buildkit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/buildkit/client"
)

const (
	startLimit = 20 * time.Second // from its last sign of waiting to a socket that answers
	stopLimit  = 3 * time.Second
	// waitPrefix marks lines of the child's stderr that tell why it does not start yet.
	waitPrefix = "wait: "
	// refusedPrefix marks the line that says why it cannot run here at all.
	refusedPrefix = "refused: "
	// socketLimit is what fits into a socket address, with room for the file's name.
	socketLimit = 80
)

// A child is the embedded engine, running. It ends when its standard input does, so also when this process is killed.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	client *client.Client
	dir    string // holds the socket
	root   string
	stderr tail
	waits  chan string
	refuse chan string
	done   chan struct{} // closed after err is set
	err    error
	once   sync.Once
}

// startChild starts the engine and waits until it answers. The error is an ErrNoEngine where it refuses to run here.
func startChild(ctx context.Context, o Options) (_ *child, err error) {
	if !filepath.IsAbs(o.Root) {
		return nil, fmt.Errorf("build engine: root %q is not absolute", o.Root)
	}
	tmp := os.TempDir()
	if len(tmp) > socketLimit {
		tmp = "/tmp"
	}
	dir, err := os.MkdirTemp(tmp, "mwbuild-")
	if err != nil {
		return nil, fmt.Errorf("build engine: folder for its socket: %w", err)
	}
	socket := filepath.Join(dir, "s")
	c := &child{dir: dir, root: o.Root, waits: make(chan string, 16), refuse: make(chan string, 1), done: make(chan struct{})}
	c.cmd = exec.Command(o.Exe, "engine", "--root", o.Root, "--socket", socket)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // a terminal's Ctrl-C is for us; the child hears of it from us
		Pdeathsig: syscall.SIGTERM,
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("build engine: %w", err)
	}
	c.stdin = stdin
	// A pipe of our own, and not StderrPipe: a process that outlives the child and holds the other end must not make
	// Wait hang.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("build engine: %w", err)
	}
	c.cmd.Stderr = w
	started := make(chan error, 1)
	go func() {
		// The death signal is bound to the thread that started the child, so that one has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := startProcess(c.cmd, o.Root)
		w.Close()
		started <- err
		if err != nil {
			return
		}
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	if err := <-started; err != nil {
		r.Close()
		if errors.Is(err, ErrNoEngine) {
			return nil, err
		}
		return nil, fmt.Errorf("build engine: %w", err)
	}
	go c.read(r, o)

	if err := c.ready(ctx, socket, o.Wait); err != nil {
		c.stop()
		return nil, err
	}
	c.client, err = client.New(ctx, "unix://"+socket)
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("build engine: %w", err)
	}
	return c, nil
}

// read keeps the end of the child's stderr.
func (c *child) read(r io.ReadCloser, o Options) {
	defer r.Close()
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if msg, ok := strings.CutPrefix(s.Text(), waitPrefix); ok {
			select {
			case c.waits <- msg:
			default:
			}
			continue
		}
		if why, ok := strings.CutPrefix(s.Text(), refusedPrefix); ok {
			select {
			case c.refuse <- why:
			default:
			}
		}
		c.stderr.Write(append(s.Bytes(), '\n'))
		o.Log.Debug(s.Text(), "from", "engine")
	}
	io.Copy(io.Discard, r) // a line too long to keep
}

func (c *child) ready(ctx context.Context, socket string, wait func(string)) error {
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.done:
			select {
			case why := <-c.refuse:
				return fmt.Errorf("%w: %s", ErrNoEngine, why)
			case <-time.After(50 * time.Millisecond): // its last words may still be on their way
			}
			return fmt.Errorf("the build engine ended at its start (%v); state in %s; it said:\n%s", c.err, c.root, c.stderr.String())
		case msg := <-c.waits:
			limit.Reset(startLimit)
			if msg != last {
				last = msg
				wait(msg)
			}
		case <-limit.C:
			return fmt.Errorf("the build engine did not start within %v; state in %s; it said:\n%s", startLimit, c.root, c.stderr.String())
		case <-tick.C:
			if conn, err := net.Dial("unix", socket); err == nil {
				conn.Close()
				return nil
			}
		}
	}
}

func (c *child) dead() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// stop ends the child and removes what it could not.
func (c *child) stop() (err error) {
	c.once.Do(func() {
		if c.client != nil {
			c.client.Close()
		}
		c.stdin.Close()
		killed := c.dead()
		if !killed {
			c.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-c.done:
			case <-time.After(stopLimit):
				killed = true
				c.cmd.Process.Kill()
				<-c.done
			}
		}
		if killed {
			root := c.root
			if real, e := filepath.EvalSymlinks(root); e == nil {
				root = real
			}
			err = reap(root)
		}
		os.RemoveAll(c.dir)
	})
	return err
}

// A tail keeps the last bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 32 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 2*tailBytes {
		t.b = append([]byte(nil), t.b[len(t.b)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(lastLines(t.bytes(), 20)) }

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.b...)
}

// lastLines is the last n lines of b.
func lastLines(b []byte, n int) []byte {
	for i := len(b) - 1; i > 0; i-- {
		if b[i-1] != '\n' {
			continue
		}
		if n--; n == 0 {
			return b[i:]
		}
	}
	return b
}
