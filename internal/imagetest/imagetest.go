// Package imagetest looks at an image from inside: it runs a command and a server, asks the server, looks at files, and compares all of it with what
// a [Spec] expects. mwbuild runs it as the step of an image_test, in any image.
package imagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Spec is what an image is expected to be. Regular expressions are Go's, and match anywhere; ^ and $ are the ends of a line.
type Spec struct {
	Cmd    []string `json:"cmd"`  // run if there is one
	Exit   int      `json:"exit"` // its exit code
	Stdout []string `json:"stdout"`
	Stderr []string `json:"stderr"`

	Server []string  `json:"server"` // started if there is one
	Port   int       `json:"port"`   // where it listens, on loopback
	Start  float64   `json:"start"`  // seconds that it may take until it does; 0 is 50
	HTTP   []Request `json:"http"`

	Tree map[string]string `json:"tree"` // what is at a path: "absent", or "file", "dir" or "link", a mode, uid:gid and ->TARGET
}

// A Request is sent to the server; redirections are not followed.
type Request struct {
	Method        string            `json:"method"`
	Path          string            `json:"path"`
	Headers       map[string]string `json:"headers"`
	Body          string            `json:"body"`
	Status        int               `json:"status"`
	ExpectHeaders map[string]string `json:"expect_headers"`
	Expect        []string          `json:"expect"` // that the body has a match of
	Refuse        []string          `json:"refuse"` // and of these none
}

// patience is how long a server may take to answer, and until it listens where nothing else is said. It is less than that of the smallest test.
const patience = 50 * time.Second

// most bounds what is kept of an output and read of a body; mostShown what is shown of a body.
const (
	most      = 8 << 20
	mostShown = 4 << 10
)

// Run does all that the spec says, and returns what is otherwise than it expects. Commands have env and print to out, which must take writes of several goroutines. The error is for
// a spec that says nothing that can be done.
func Run(ctx context.Context, s Spec, env []string, out io.Writer) ([]string, error) {
	t := &test{ctx: ctx, env: env, out: out}
	for _, p := range slices.Sorted(maps.Keys(s.Tree)) {
		if err := t.path(p, s.Tree[p]); err != nil {
			return nil, err
		}
	}
	if len(s.Cmd) > 0 {
		if err := t.command(s); err != nil {
			return nil, err
		}
	}
	if len(s.Server) > 0 {
		if err := t.serve(s); err != nil {
			return nil, err
		}
	}
	return t.wrong, ctx.Err()
}

type test struct {
	ctx   context.Context
	env   []string
	out   io.Writer
	wrong []string
}

func (t *test) add(format string, args ...any) {
	t.wrong = append(t.wrong, fmt.Sprintf(format, args...))
}

// path compares what is at a path with words.
func (t *test) path(p, words string) error {
	fields := strings.Fields(words)
	if len(fields) == 0 {
		return fmt.Errorf("tree: %s: nothing is said of it: want absent, file, dir or link", p)
	}
	fi, err := os.Lstat(p)
	if fields[0] == "absent" && len(fields) == 1 {
		if err == nil {
			t.add("%s is there, and should not be", p)
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.add("%v", err)
		}
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		t.add("%s is not there, want %s", p, words)
		return nil
	} else if err != nil {
		t.add("%v", err)
		return nil
	}
	st, _ := fi.Sys().(*syscall.Stat_t)
	for _, w := range fields {
		var is string
		target, link := strings.CutPrefix(w, "->")
		switch {
		case slices.Contains(kindNames, w):
			is = kindOf(fi.Mode())
		case link:
			w = target
			if is, err = os.Readlink(p); err != nil {
				is = "no link"
			}
		case strings.Contains(w, ":") && st != nil:
			is = fmt.Sprintf("%d:%d", st.Uid, st.Gid)
		case isMode(w):
			is = fmt.Sprintf("%04o", st.Mode&0o7777)
		default:
			return fmt.Errorf("tree: %s: %q: want absent, or file, dir or link, a mode such as 0644, uid:gid and ->TARGET", p, w)
		}
		if is != w {
			t.add("%s is %s, want %s", p, is, w)
		}
	}
	return nil
}

var kindNames = []string{"file", "dir", "link"}

func kindOf(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "file"
	case m.IsDir():
		return "dir"
	case m&fs.ModeSymlink != 0:
		return "link"
	}
	return "something else"
}

func isMode(w string) bool {
	_, err := strconv.ParseUint(w, 8, 12)
	return err == nil && len(w) == 4
}

// match compares text with expressions.
func (t *test) match(what, text string, want, refuse []string) error {
	for i, e := range slices.Concat(want, refuse) {
		re, err := regexp.Compile("(?m)" + e)
		if err != nil {
			return fmt.Errorf("%s: %q: %w", what, e, err)
		}
		switch found := re.MatchString(text); {
		case i < len(want) && !found:
			t.add("%s has no match of %q", what, e)
		case i >= len(want) && found:
			t.add("%s has a match of %q", what, e)
		}
	}
	return nil
}

func (t *test) command(s Spec) error {
	var stdout, stderr kept
	c := exec.CommandContext(t.ctx, s.Cmd[0], s.Cmd[1:]...)
	c.Env = t.env
	c.Stdout, c.Stderr = io.MultiWriter(&stdout, t.out), io.MultiWriter(&stderr, t.out)
	c.WaitDelay = time.Second
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.add("%s: %v", s.Cmd[0], err)
		return nil
	}
	if code := c.ProcessState.ExitCode(); code != s.Exit {
		t.add("%s: exit code %d, want %d", s.Cmd[0], code, s.Exit)
	}
	return errors.Join(t.match("stdout", stdout.String(), s.Stdout, nil), t.match("stderr", stderr.String(), s.Stderr, nil))
}

// kept keeps the first bytes that are written to it.
type kept struct{ bytes.Buffer }

func (k *kept) Write(p []byte) (int, error) {
	k.Buffer.Write(p[:min(len(p), most-k.Len())])
	return len(p), nil
}

func (t *test) serve(s Spec) error {
	c := exec.Command(s.Server[0], s.Server[1:]...)
	c.Env = t.env
	c.Stdout, c.Stderr = t.out, t.out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = time.Second
	if err := c.Start(); err != nil {
		t.add("%s: %v", s.Server[0], err)
		return nil
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // told by c.ProcessState
		close(ended)
	}()
	defer func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // it and its workers, if they are there yet
		<-ended
	}()
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
	for begun := time.Now(); ; {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-ended:
			t.add("%s ended before it listened at port %d: %v", s.Server[0], s.Port, c.ProcessState)
			return nil
		case <-t.ctx.Done():
			return t.ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		limit := patience
		if s.Start > 0 {
			limit = time.Duration(s.Start * float64(time.Second))
		}
		if time.Since(begun) > limit {
			t.add("%s: nothing listens at port %d after %v: %v", s.Server[0], s.Port, limit, err)
			return nil
		}
	}
	client := &http.Client{
		Transport: &http.Transport{}, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, r := range s.HTTP {
		if err := t.request(client, addr, r); err != nil {
			return err
		}
	}
	return nil
}

func (t *test) request(client *http.Client, addr string, r Request) error {
	name := r.Method + " " + r.Path
	req, err := http.NewRequestWithContext(t.ctx, r.Method, "http://"+addr+r.Path, strings.NewReader(r.Body))
	if err != nil {
		return err
	}
	for k, v := range r.Headers {
		req.Header.Set(k, v)
		if http.CanonicalHeaderKey(k) == "Host" {
			req.Host = v
		}
	}
	res, err := client.Do(req)
	if err != nil {
		t.add("%s: %v", name, err)
		return nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		t.add("%s: %v", name, err)
		return nil
	}
	before := len(t.wrong)
	if res.StatusCode != r.Status {
		t.add("%s: status %d, want %d", name, res.StatusCode, r.Status)
	}
	for _, k := range slices.Sorted(maps.Keys(r.ExpectHeaders)) {
		if err := t.match(name+": header "+k, strings.Join(res.Header.Values(k), ", "), []string{r.ExpectHeaders[k]}, nil); err != nil {
			return err
		}
	}
	err = t.match(name+": body", string(body), r.Expect, r.Refuse)
	if len(t.wrong) > before {
		fmt.Fprintf(t.out, "%s gave %s\n%s\n", name, res.Status, body[:min(len(body), mostShown)])
	}
	return err
}
