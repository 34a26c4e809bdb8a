package progress_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/console"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/mwbuild/mwbuild/build/progress"
)

func TestQuietWhenNothingHappened(t *testing.T) {
	for _, mode := range []string{"auto", "plain", "rawjson", "quiet"} {
		var b bytes.Buffer
		d := newDisplay(t, &b, mode)
		d.Task("announced, but never begun")
		if err := d.Close(); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if b.Len() != 0 {
			t.Errorf("%s: wrote %q", mode, b.String())
		}
	}
}

func TestPlain(t *testing.T) {
	var b bytes.Buffer
	d := newDisplay(t, &b, "auto") // not a terminal
	task := d.Task("pack //extensions/Cite:Cite")
	task.Start()
	task.Log([]byte("27 files\n"))
	up := task.Status("sha256:abc")
	up.Update(10, 2000)
	up.Update(2000, 2000)
	up.Done()
	task.Done(nil)
	d.Task("pack //:core").Cached()
	d.Task("pack //:skin").Done(errors.New("no such file"))
	now := time.Now()
	d.Update(&client.SolveStatus{Vertexes: []*client.Vertex{{Digest: digest.FromString("v"), Name: "//:gen", Started: &now, Completed: &now}}})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"#1 pack //extensions/Cite:Cite", "27 files", "sha256:abc", "#1 DONE", "pack //:core\n#2 CACHED", "ERROR: no such file", "//:gen",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
	before := b.Len()
	d.Task("late").Done(nil)
	if err := d.Close(); err != nil || b.Len() != before {
		t.Errorf("after Close: %v, wrote %q", err, b.String()[before:])
	}
}

func TestQuiet(t *testing.T) {
	var b bytes.Buffer
	d := newDisplay(t, &b, "quiet")
	d.Task("x").Done(errors.New("failed"))
	if err := d.Close(); err != nil || b.Len() != 0 {
		t.Errorf("%v, wrote %q", err, b.String())
	}
}

func TestRawJSONOfManyTasksAtOnce(t *testing.T) {
	var b bytes.Buffer
	d := newDisplay(t, &b, "rawjson")
	const n = 100
	var wg sync.WaitGroup
	for range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			task := d.Task("t")
			task.Start()
			s := task.Status("part")
			for i := range int64(10) {
				s.Update(i, 10)
			}
			s.Done()
			task.Done(nil)
			task.Done(errors.New("too late"))
		}()
	}
	wg.Wait()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	ended := map[digest.Digest]int{}
	for dec := json.NewDecoder(&b); ; {
		var s client.SolveStatus
		if err := dec.Decode(&s); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, v := range s.Vertexes {
			if v.Started == nil || v.Error != "" {
				t.Errorf("vertex %+v", v)
			}
			if v.Completed != nil {
				ended[v.Digest]++
			} else if ended[v.Digest] > 0 {
				t.Error("running again after its end")
			}
		}
	}
	if len(ended) != n {
		t.Errorf("%d tasks ended, want %d", len(ended), n)
	}
}

// A writer that blocks must not block the build.
func TestSlowWriter(t *testing.T) {
	r, w := io.Pipe()
	d := newDisplay(t, w, "plain")
	done := make(chan struct{})
	go func() {
		for range 1000 {
			d.Task("t").Done(nil)
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("blocked")
	}
	r.Close() // writes fail from here on
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestTerminal(t *testing.T) {
	pty, name, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string)
	go func() {
		b, _ := io.ReadAll(pty) // ends with an error when the other side closes
		out <- string(b)
	}()
	d := newDisplay(t, f, "auto")
	d.Task("pack //:core").Done(nil)
	d.Task("never ends, as after Ctrl-C").Start()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	f.Close()
	got := <-out
	if !strings.Contains(got, "pack //:core") || !strings.Contains(got, "[+] Building") {
		t.Errorf("terminal shows %q", got)
	}
	const hide, show = "\x1b[?25l", "\x1b[?25h"
	if strings.LastIndex(got, show) < strings.LastIndex(got, hide) {
		t.Errorf("the cursor stays hidden: %q", got)
	}
}

func TestUnknownMode(t *testing.T) {
	for _, mode := range []string{"fancy", "tty"} {
		if _, err := progress.New(&bytes.Buffer{}, mode); err == nil || !strings.Contains(err.Error(), "rawjson") {
			t.Errorf("%s: error %v", mode, err)
		}
	}
}

func newDisplay(t *testing.T, w io.Writer, mode string) *progress.Display {
	t.Helper()
	d, err := progress.New(w, mode)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Without a terminal, lines of steps that run at once tell whose they are, wherever the engine cuts them.
func TestPlainLinesHaveNames(t *testing.T) {
	var b bytes.Buffer
	d := newDisplay(t, &b, "plain")
	one, two := d.Task("//:one"), d.Task("//:two")
	one.Log([]byte("first\nhalf a "))
	two.Log([]byte("of another\n"))
	one.Log([]byte("line\n"))
	one.Done(nil)
	two.Done(nil)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" //:one: first\n", " //:one: half a line\n", " //:two: of another\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no line %q in:\n%s", want, b.String())
		}
	}
}
