package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/docker/cli/cli/connhelper/commandconn"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/connhelper"

	// Ways to reach an engine: docker-container://, kube-pod://, podman-container://, ssh://.
	_ "github.com/moby/buildkit/client/connhelper/dockercontainer"
	_ "github.com/moby/buildkit/client/connhelper/kubepod"
	_ "github.com/moby/buildkit/client/connhelper/podmancontainer"
	_ "github.com/moby/buildkit/client/connhelper/ssh"
)

// schemes are the forms of an engine's address, and examples of them.
var schemes = []struct{ name, example string }{
	{"unix", "unix:///run/buildkit/buildkitd.sock"},
	{"tcp", "tcp://HOST:PORT"},
	{"ssh", "ssh://[USER@]HOST[:PORT]"},
	{"docker-container", "docker-container://NAME"},
	{"podman-container", "podman-container://NAME"},
	{"kube-pod", "kube-pod://POD[?namespace=NS&container=NAME&context=CONTEXT]"},
	{"buildx", "buildx://BUILDER"},
}

// A remote is how to reach an engine. Programs are those that can do it, each with its first arguments, of which one must
// be there; most ways need none.
type remote struct {
	dial     string // for client.New
	options  []client.ClientOpt
	programs [][]string
	through  dialer // of the program, where there is one
	builder  string // of buildx
}

type dialer = func(ctx context.Context, addr string) (net.Conn, error)

var (
	programsOf = map[string]string{"ssh": "ssh", "docker-container": "docker", "podman-container": "podman", "kube-pod": "kubectl"}
	buildx     = [][]string{{"docker", "buildx"}, {"buildx"}, {"docker-buildx"}}

	builderName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)
)

// CheckAddr tells whether addr may be an engine's address, or is "" for the embedded one, and whether the certificates
// that it names can be read. It connects to nothing.
func CheckAddr(addr string) error {
	if addr == "" {
		return nil
	}
	_, err := parseRemote(addr)
	return err
}

func parseRemote(addr string) (remote, error) {
	u, err := url.Parse(addr)
	if err != nil {
		return remote{}, fmt.Errorf("builder %q: %w", addr, err)
	}
	r := remote{dial: addr}
	if p, ok := programsOf[u.Scheme]; ok {
		r.programs = [][]string{{p}}
	}
	switch u.Scheme {
	case "unix":
		if u.Path == "" || u.Host != "" {
			err = errors.New("want the absolute path of a socket")
		}
	case "tcp":
		err = r.tcp(u)
	case "buildx":
		r.builder = strings.TrimPrefix(addr, "buildx://")
		if !builderName.MatchString(r.builder) {
			err = errors.New("want the name of a builder, as docker buildx ls shows it")
		}
		r.programs = buildx
	case "ssh", "docker-container", "podman-container", "kube-pod":
		var h *connhelper.ConnectionHelper
		if h, err = connhelper.GetConnectionHelper(addr); err == nil {
			r.through = h.ContextDialer
		}
	default:
		var known []string
		for _, s := range schemes {
			known = append(known, s.name+"://")
		}
		return remote{}, fmt.Errorf("builder %q: want one of %s", addr, strings.Join(known, ", "))
	}
	if err != nil {
		i := slices.IndexFunc(schemes, func(s struct{ name, example string }) bool { return s.name == u.Scheme })
		return remote{}, fmt.Errorf("builder %q: %w: the form is %s", addr, err, schemes[i].example)
	}
	return r, nil
}

// tcp reads the address of an engine over TCP. TLS is asked for in its query, by the names of buildctl's options:
// tlscacert, tlscert, tlskey and tlsservername, or tlsdir, a folder that has the first three as buildctl names them
// (ca.pem, cert.pem, key.pem; or ca.crt, tls.crt, tls.key). Without tlscacert the system's authorities are trusted.
func (r *remote) tcp(u *url.URL) error {
	if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" || u.Path != "" {
		return errors.New("want a host and a port")
	}
	q := u.Query()
	for name := range q {
		if !slices.Contains([]string{"tlsdir", "tlscacert", "tlscert", "tlskey", "tlsservername"}, name) {
			return fmt.Errorf("%q is none of tlsdir, tlscacert, tlscert, tlskey, tlsservername", name)
		}
	}
	ca, cert, key := q.Get("tlscacert"), q.Get("tlscert"), q.Get("tlskey")
	if dir := q.Get("tlsdir"); dir != "" {
		if ca+cert+key != "" {
			return errors.New("tlsdir stands for tlscacert, tlscert and tlskey: give it alone")
		}
		for _, f := range []struct {
			file  *string
			names []string
		}{{&ca, []string{"ca.pem", "ca.crt"}}, {&cert, []string{"cert.pem", "tls.crt"}}, {&key, []string{"key.pem", "tls.key"}}} {
			i := slices.IndexFunc(f.names, func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil })
			if i < 0 {
				return fmt.Errorf("tlsdir %s has no %s: %w", dir, strings.Join(f.names, " or "), fs.ErrNotExist)
			}
			*f.file = filepath.Join(dir, f.names[i])
		}
	}
	if len(q) == 0 {
		return nil
	}
	if (cert == "") != (key == "") {
		return errors.New("tlscert and tlskey belong together")
	}
	for _, file := range []string{ca, cert, key} {
		if file == "" {
			continue
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		f.Close()
	}
	u.RawQuery = ""
	r.dial = u.String()
	name := q.Get("tlsservername")
	if name == "" {
		name = u.Hostname()
	}
	if ca == "" {
		r.options = append(r.options, client.WithServerConfigSystem(name))
	} else {
		r.options = append(r.options, client.WithServerConfig(name, ca))
	}
	if cert != "" {
		r.options = append(r.options, client.WithCredentials(cert, key))
	}
	return nil
}

// connect returns a client. Most ways connect with its first request only.
func (r remote) connect(ctx context.Context) (*client.Client, error) {
	options := r.options
	if len(r.programs) > 0 {
		i := slices.IndexFunc(r.programs, func(p []string) bool { _, err := exec.LookPath(p[0]); return err == nil })
		if i < 0 {
			return nil, fmt.Errorf("%w: the engine at %s is reached through %s, which is not installed", ErrNoEngine, r.dial, alternatives(r.programs))
		}
		if r.builder != "" {
			p := slices.Concat(r.programs[i], []string{"dial-stdio", "--builder", r.builder})
			r.through = func(ctx context.Context, _ string) (net.Conn, error) { return commandconn.New(ctx, p[0], p[1:]...) }
		}
		options = append(slices.Clip(options), client.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := r.through(ctx, addr)
			if err != nil {
				return nil, err
			}
			return programConn{c}, nil
		}))
	}
	c, err := client.New(ctx, r.dial, options...)
	if err != nil {
		return nil, fmt.Errorf("engine at %s: %w", r.dial, err)
	}
	return c, nil
}

// A programConn is a connection through a program. When that has ended, its last words are the error.
type programConn struct{ net.Conn }

func (c programConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		// Reading waits for the program's end, and knows how it came.
		if _, why := c.Conn.Read(make([]byte, 1)); why != nil && why != io.EOF {
			err = why
		}
	}
	return n, err
}

func alternatives(programs [][]string) string {
	var names []string
	for _, p := range programs {
		names = append(names, strings.Join(p, " "))
	}
	return strings.Join(names, " or ")
}

// A goneError says that an engine went away, or cannot be reached, as often as it was tried.
type goneError struct {
	addr string // "" is the embedded one
	err  error
}

func (e *goneError) Error() string {
	where := "the embedded engine"
	if e.addr != "" {
		where = "the engine at " + e.addr
	}
	msg := fmt.Sprintf("%s went away or cannot be reached (tried %d times): is it running?\n    %s", where, tries, e.reason())
	if wantsCertificate(e.addr) {
		msg += "\n    if it asks for a certificate, give one: tlscert and tlskey, or tlsdir, after the address"
	}
	return msg
}

// wantsCertificate tells whether addr is reached with TLS but without a certificate of ours. An engine that asks for one ends
// the connection after the handshake of TLS 1.3, and whether its reason is read or the next write fails first, is chance.
func wantsCertificate(addr string) bool {
	u, err := url.Parse(addr)
	if err != nil || u.Scheme != "tcp" || u.RawQuery == "" {
		return false
	}
	return !u.Query().Has("tlscert") && !u.Query().Has("tlsdir")
}

func (e *goneError) Unwrap() error { return e.err }

var (
	connectionError = regexp.MustCompile(`connection error: desc = (".*)`)
	programExit     = regexp.MustCompile(`(?s)command \[(.*)\] has exited with (.*?), .*\bstderr=(.*)`)
)

// reason is what the connection's end had to say, without the layers that it came through: the system's error, or the
// last words of the program that should have connected.
func (e *goneError) reason() string {
	text := e.err.Error()
	if m := connectionError.FindStringSubmatch(text); m != nil {
		if quoted, err := strconv.QuotedPrefix(m[1]); err == nil {
			text, _ = strconv.Unquote(quoted)
		}
	}
	if m := programExit.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("%s: %s: %s", m[1], m[2], m[3])
	}
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}
