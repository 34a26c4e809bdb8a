package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/build/progress"
	"github.com/mwbuild/mwbuild/cache/store"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// lab is a workspace, a cache, and two targets: //:up has a native action that turns the first line of a file into upper
// case, and //:image is an image of it.
type lab struct {
	t       *testing.T
	root    string
	cache   string
	natives map[string]Native
	layers  map[string]NativeLayer
	fetch   func(context.Context, action.Download) (io.ReadCloser, error)
	ran     int // executions of the native action
	jobs    int
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, root: t.TempDir(), cache: t.TempDir()}
	l.natives = map[string]Native{"upper": func(_ context.Context, do *action.Native) ([]action.Made, error) {
		l.ran++
		b, err := os.ReadFile(filepath.Join(l.root, do.Files[0].Path))
		if err != nil {
			return nil, err
		}
		line, _, _ := bytes.Cut(b, []byte("\n"))
		return []action.Made{{File: action.File{Path: do.Params["to"]}, Data: bytes.ToUpper(line)}}, nil
	}}
	l.write("WORKSPACE", "")
	return l
}

func (l *lab) write(name, text string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.root, name), []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) targets() []*graph.Target {
	up := &action.Node{Label: "//:up", Name: "native", Pos: "BUILD:1:1", Do: &action.Native{
		Kind: "upper", Params: map[string]string{"to": "up"}, Files: []action.Source{{Path: "a.txt"}},
	}}
	packed := &action.Node{Label: "//:image", Name: "layer", Pos: "BUILD:2:1", Do: &action.Layer{Entries: []action.Entry{{Dest: "data", From: up, Path: "up"}}}}
	img := &action.Node{Label: "//:image", Name: "image", Pos: "BUILD:2:1", Do: &action.Image{Layers: []*action.Node{packed}, Platform: "linux/amd64"}}
	return []*graph.Target{
		{ID: graph.ID{Label: label.Label{Name: "up"}}, Actions: []*action.Node{up}, Outputs: []*action.Node{up}},
		{ID: graph.ID{Label: label.Label{Name: "image"}}, Actions: []*action.Node{packed, img}, Outputs: []*action.Node{img}},
	}
}

func (l *lab) build(ctx context.Context, keepGoing bool, targets ...*graph.Target) (res *Result, err error) {
	l.t.Helper()
	err = l.builder(ctx, keepGoing, func(b *Builder) (err error) {
		res, err = b.Build(ctx, targets)
		return err
	})
	return res, err
}

// builder calls f with a builder of the lab, opened as a process would.
func (l *lab) builder(ctx context.Context, keepGoing bool, f func(*Builder) error) error {
	l.t.Helper()
	records := &Records{Dir: l.cache, Workspace: l.root, Wait: func(string) {}}
	tree, err := workspace.Open(context.WithoutCancel(ctx), l.root, records)
	if err != nil {
		l.t.Fatal(err)
	}
	st, err := store.Open(l.cache)
	if err != nil {
		l.t.Fatal(err)
	}
	defer st.Close()
	display, err := progress.New(io.Discard, "plain")
	if err != nil {
		l.t.Fatal(err)
	}
	defer display.Close()
	return f(&Builder{
		Root: l.root, Tree: tree, Store: st, Records: records, Engine: buildkit.New(buildkit.Options{}), Display: display,
		Natives: l.natives, NativeLayers: l.layers, Fetch: l.fetch, Jobs: l.jobs, KeepGoing: keepGoing, Log: slog.New(slog.DiscardHandler),
	})
}

// tally says what became of a build in one line.
func tally(res *Result) string {
	var out []string
	for _, t := range res.Targets {
		out = append(out, fmt.Sprintf("%s %s", t.Target.Label, t.Status))
	}
	all, _ := res.Counts()
	return fmt.Sprintf("%s; %d executed, %d cached", strings.Join(out, ", "), all.Executed, all.Cached)
}

func TestNativeAndCutOff(t *testing.T) {
	l := newLab(t)
	l.write("a.txt", "hello\nfirst")
	check := func(what, want, why string, ran int) {
		t.Helper()
		l.ran = 0
		res, err := l.build(t.Context(), false, l.targets()...)
		if err != nil || len(res.Errors) > 0 {
			t.Fatal(what, err, res.Errors)
		}
		if got := tally(res); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
		if got := Summary(res.Why); got != why {
			t.Errorf("%s: because %q, want %q", what, got, why)
		}
		if l.ran != ran {
			t.Errorf("%s: the native action ran %d times, want %d", what, l.ran, ran)
		}
	}
	check("first", "//:up built, //:image built; 3 executed, 0 cached", "3 built for the first time", 1)
	check("nothing changed", "//:up cached, //:image cached; 0 executed, 3 cached", "", 0)
	l.write("a.txt", "hello\nsecond")
	check("the same output", "//:up built, //:image built; 1 executed, 2 cached", "1 file changed in //", 1)
	l.write("a.txt", "bye\nsecond")
	check("another output", "//:up built, //:image built; 3 executed, 0 cached", "1 file changed in //", 1)
	if err := os.RemoveAll(filepath.Join(l.cache, "blobs")); err != nil {
		t.Fatal(err)
	}
	// What the native action made is no blob; it is made again for the layer.
	check("the blobs are gone", "//:up cached, //:image built; 2 executed, 1 cached", "2 no longer in the cache", 1)
}

// A failure ends the build, or with KeepGoing just what needs it; either way what was finished is kept.
func TestFailure(t *testing.T) {
	l := newLab(t)
	l.write("a.txt", "hello")
	broken := errors.New("no such letter")
	good := l.natives["upper"]
	l.natives["upper"] = func(context.Context, *action.Native) ([]action.Made, error) {
		return nil, broken
	}
	l.natives["other"] = good
	other := &action.Node{Label: "//:other", Name: "native", Pos: "BUILD:3:1", Do: &action.Native{Kind: "other", Params: map[string]string{"to": "o"}, Files: []action.Source{{Path: "a.txt"}}}}
	targets := append(l.targets(), &graph.Target{ID: graph.ID{Label: label.Label{Name: "other"}}, Outputs: []*action.Node{other}})
	res, err := l.build(t.Context(), true, targets...)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tally(res), "//:up failed, //:image skipped, //:other built; 1 executed, 0 cached"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if len(res.Errors) != 1 || !errors.Is(res.Errors[0], broken) || res.Errors[0].Error() != "BUILD:1:1: //:up: no such letter" {
		t.Errorf("errors: %v", res.Errors)
	}
	if res, err = l.build(t.Context(), true, targets[2]); err != nil || res.Targets[0].Status != Cached {
		t.Errorf("what was finished was not kept: %v %v", tally(res), err)
	}
}

// A build that is interrupted keeps what it finished until then.
func TestInterrupt(t *testing.T) {
	l := newLab(t)
	l.write("a.txt", "hello")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	good := l.natives["upper"]
	l.natives["upper"] = func(c context.Context, do *action.Native) ([]action.Made, error) {
		made, err := good(c, do)
		cancel() // the user's Ctrl-C comes when the work is done, before it is recorded
		return made, err
	}
	if _, err := l.build(ctx, false, l.targets()...); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted build: %v", err)
	}
	l.natives["upper"] = good
	res, err := l.build(t.Context(), false, l.targets()...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("//:up cached, //:image built; 2 executed, 1 cached", tally(res)); diff != "" {
		t.Errorf("after the interrupt (-want +got):\n%s", diff)
	}
}

// Two targets that describe the same work do it once.
func TestSameWorkOnce(t *testing.T) {
	l := newLab(t)
	l.write("a.txt", "hello")
	a, b := l.targets(), l.targets()
	b[0].Label.Name, b[1].Label.Name = "up2", "image2"
	res, err := l.build(t.Context(), false, append(a, b...)...)
	if err != nil || len(res.Errors) > 0 {
		t.Fatal(err, res.Errors)
	}
	if got, want := tally(res), "//:up built, //:image built, //:up2 built, //:image2 built; 3 executed, 0 cached"; got != want || l.ran != 1 {
		t.Errorf("%s after %d runs, want %s after one", got, l.ran, want)
	}
}

// Two targets import the same image, one from a place where it is not: the other's place serves both.
func TestImportFromTheOtherPlace(t *testing.T) {
	l := newLab(t)
	tarball := "plain.tar"
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, Size: 1}), second(w.Write([]byte("x"))), w.Close()); err != nil {
		t.Fatal(err)
	}
	l.write(tarball, b.String())
	target := func(name, tar string) *graph.Target {
		n := &action.Node{Label: "//:" + name, Name: "image", Pos: "BUILD:1:1", Do: &action.Image{Import: &action.Import{
			Digest: digest.FromBytes(b.Bytes()).String(), Tar: tar, Platform: "linux/amd64",
		}}}
		return &graph.Target{ID: graph.ID{Label: label.Label{Name: name}}, Outputs: []*action.Node{n}}
	}
	res, err := l.build(t.Context(), false, target("gone", "nowhere.tar"), target("away", "elsewhere.tar"))
	if err != nil || len(res.Errors) != 2 || !strings.Contains(res.Errors[0].Error()+res.Errors[1].Error(), "nowhere.tar") || !strings.Contains(res.Errors[0].Error()+res.Errors[1].Error(), "elsewhere.tar") {
		t.Errorf("errors of two places that lack the image: %v %v", res.Errors, err)
	}
	res, err = l.build(t.Context(), false, target("gone", "nowhere.tar"), target("here", tarball))
	if err != nil || len(res.Errors) > 0 {
		t.Fatal(err, res.Errors)
	}
	if got, want := tally(res), "//:gone built, //:here built; 1 executed, 0 cached"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func second(_ int, err error) error { return err }
