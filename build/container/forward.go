package container

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// forward listens at the ports' places on this machine and connects who comes with the container, until ctx ends.
func forward(ctx context.Context, pidFile string, ports []Port, say func(string)) error {
	ns, err := network(ctx, pidFile)
	if err != nil {
		return err
	}
	d := newDialer(ctx, ns)
	for _, p := range ports {
		l, err := net.Listen("tcp", p.Host)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go d.connect(c, p.Container)
			}
		}()
	}
	for _, p := range ports {
		for {
			c, err := d.dial(p.Container)
			if err == nil {
				c.Close()
				break
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(20 * time.Millisecond):
			}
		}
		if p.Says != "" {
			say(p.Says)
		}
	}
	<-ctx.Done()
	return nil
}

// network opens the network namespace of the process that runc names in a file, once it does.
func network(ctx context.Context, pidFile string) (int, error) {
	for {
		if pid, err := os.ReadFile(pidFile); err == nil && len(pid) > 0 {
			return unix.Open("/proc/"+strings.TrimSpace(string(pid))+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		select {
		case <-ctx.Done():
			return -1, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// A dialer connects inside of a network namespace. One thread of this process is there.
type dialer struct {
	ctx   context.Context
	asked chan request
}

type request struct {
	port   int
	answer chan answer
}

type answer struct {
	c   net.Conn
	err error
}

func newDialer(ctx context.Context, ns int) *dialer {
	d := &dialer{ctx, make(chan request)}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		err := unix.Setns(ns, unix.CLONE_NEWNET)
		unix.Close(ns)
		for {
			select {
			case <-ctx.Done():
				return
			case r := <-d.asked:
				if err != nil {
					r.answer <- answer{nil, fmt.Errorf("enter the container's network: %w", err)}
					continue
				}
				c, err := connect(r.port)
				r.answer <- answer{c, err}
			}
		}
	}()
	return d
}

// connect connects with a port on loopback, in the network of the calling thread.
func connect(port int) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "container")
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

func (d *dialer) dial(port int) (net.Conn, error) {
	r := request{port, make(chan answer, 1)}
	select {
	case d.asked <- r:
		a := <-r.answer
		return a.c, a.err
	case <-d.ctx.Done():
		return nil, d.ctx.Err()
	}
}

// connect hands everything from c to the container's port, and back.
func (d *dialer) connect(c net.Conn, port int) {
	defer c.Close()
	in, err := d.dial(port)
	if err != nil {
		return
	}
	defer in.Close()
	done := context.AfterFunc(d.ctx, func() { c.Close(); in.Close() })
	defer done()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(c, in)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, c)
	_ = in.(*net.TCPConn).CloseWrite()
	<-back
}
