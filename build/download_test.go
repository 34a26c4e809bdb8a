package build

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
)

// A mirror has files to download.
type mirror struct {
	mu      sync.Mutex
	files   map[string]string // by name
	fetched []string
}

func (m *mirror) fetch(_ context.Context, d action.Download) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, ok := m.files[d.Name]
	if !ok {
		return nil, errors.New("no mirror has it\n    lock again")
	}
	m.fetched = append(m.fetched, d.Name)
	time.Sleep(20 * time.Millisecond) // so that others come to want it, too
	return io.NopCloser(strings.NewReader(text)), nil
}

func download(name, text string) action.Download {
	sum := sha256.Sum256([]byte(text))
	return action.Download{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(text)), Name: name, Path: "pool/" + name}
}

// joined is a target of an image of one layer for each of the lists of downloads.
func joined(params string, lists ...[]action.Download) *graph.Target {
	img := &action.Image{Platform: "linux/amd64"}
	for i, ds := range lists {
		img.Layers = append(img.Layers, &action.Node{Label: "//:joined", Name: fmt.Sprint("join-", i), Pos: "BUILD:1:1", Do: &action.Native{
			Kind: "join 1", Params: map[string]string{"to": fmt.Sprint(params, i)}, Downloads: ds, Layer: true,
		}})
	}
	n := &action.Node{Label: "//:joined", Name: "image", Pos: "BUILD:1:1", Do: img}
	return &graph.Target{ID: graph.ID{Label: label.Label{Name: "joined"}}, Outputs: []*action.Node{n}}
}

// newJoiner is a lab whose native action puts downloads into a layer, one file after the other.
func newJoiner(t *testing.T, m *mirror) *lab {
	l := newLab(t)
	l.fetch = m.fetch
	var mu sync.Mutex
	l.layers = map[string]NativeLayer{"join 1": func(_ context.Context, do *action.Native, open func(string) (io.ReadCloser, error), w io.Writer) error {
		mu.Lock()
		l.ran++
		mu.Unlock()
		tw := tar.NewWriter(w)
		for _, d := range do.Downloads {
			r, err := open(d.SHA256)
			if err != nil {
				return err
			}
			// As some formats are read: not to the end, and left open.
			text := make([]byte, d.Size)
			if _, err := io.ReadFull(r, text); err != nil {
				return err
			}
			if bytes.HasPrefix(text, []byte("!")) {
				return fmt.Errorf("%s begins badly", d.Name)
			}
			if err := tw.WriteHeader(&tar.Header{Name: do.Params["to"] + "/" + d.Name, Mode: 0o644, Size: d.Size}); err != nil {
				return err
			}
			if _, err := tw.Write(text); err != nil {
				return err
			}
		}
		return tw.Close()
	}}
	return l
}

func (l *lab) blob(d digest.Digest) string {
	return filepath.Join(l.cache, "blobs/sha256", d.Encoded())
}

func (l *lab) blobOf(d action.Download) string { return l.blob(blobOf(d).Digest) }

// A native action's layer is made of downloads in the store; what is missing is fetched, once, and what is damaged again.
func TestDownloads(t *testing.T) {
	m := &mirror{files: map[string]string{"a": "text of a", "b": "text of b", "c": "text of c"}}
	a, b, c := download("a", m.files["a"]), download("b", m.files["b"]), download("c", m.files["c"])
	l := newJoiner(t, m)
	l.jobs = 2
	var last *Result
	check := func(what string, target *graph.Target, ran int, fetched ...string) {
		t.Helper()
		l.ran, m.fetched = 0, nil
		res, err := l.build(t.Context(), false, target)
		if err != nil || len(res.Errors) > 0 {
			t.Fatal(what, err, res.Errors)
		}
		counts := map[string]int{}
		for _, f := range m.fetched {
			counts[f]++
		}
		want := map[string]int{}
		for _, f := range fetched {
			want[f] = 1
		}
		if diff := cmp.Diff(want, counts); diff != "" || l.ran != ran {
			t.Errorf("%s: %d ran, want %d; fetched (-want +got):\n%s", what, l.ran, ran, diff)
		}
		last = res
	}
	one := func(params string) *graph.Target {
		return joined(params, []action.Download{a, b}, []action.Download{b, c})
	}
	remove := func(paths ...string) {
		t.Helper()
		for _, p := range paths {
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	check("first", one("x"), 2, "a", "b", "c")
	if _, kinds := last.Counts(); kinds["join"] != (Count{Total: 2, Executed: 2}) {
		t.Errorf("counts: %v", kinds)
	}
	image := last.Targets[0].Outputs[0].Image
	layers := image.Layers
	check("but not again", one("x"), 0)
	remove(l.blobOf(a), l.blobOf(b))
	check("what was downloaded is not needed any more", one("x"), 0)
	check("other places", one("y"), 2, "a", "b")
	remove(l.blob(layers[0].Descriptor.Digest))
	m.files = nil
	check("a layer is lost, and the network", one("x"), 1)
	if got := last.Targets[0].Outputs[0].Image.Manifest.Digest; got != image.Manifest.Digest {
		t.Errorf("the same again has another digest: %s, was %s", got, image.Manifest.Digest)
	}

	m.files = map[string]string{"a": "text of a"}
	for what, text := range map[string]string{"damaged": "text of A", "damaged so that it cannot be read": "!!!!!!!!!"} {
		if err := errors.Join(os.Chmod(l.blobOf(a), 0o644), os.WriteFile(l.blobOf(a), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		check(what, joined(what, []action.Download{a, b}), 2, "a")
	}
	if err := os.Truncate(l.blobOf(a), 3); err != nil {
		t.Fatal(err)
	}
	check("short", joined("short", []action.Download{a, b}), 1, "a")

	kept := map[digest.Digest]bool{}
	l.with(t.Context(), false, func(b *Builder) error {
		return b.Records.Blobs(t.Context(), func(d digest.Digest) { kept[d] = true })
	})
	for _, d := range []action.Download{a, b, c} {
		if !kept[blobOf(d).Digest] {
			t.Errorf("clean would remove %s", d.Name)
		}
	}
	kinds := joined("x", []action.Download{a}).Outputs[0].Do.(*action.Image).Layers[0]
	for _, tc := range []struct{ name, want string }{{a.SHA256, "download a was"}, {b.SHA256, "download sha256:" + b.SHA256[:12] + " was"}} {
		one := ""
		for _, ch := range []struct {
			old, new *string
			verb     string
		}{{nil, &one, " added"}, {&one, nil, " removed"}} {
			change := plan.Change{Name: "download " + tc.name, Old: ch.old, New: ch.new}
			if got := Describe(kinds, change); got != tc.want+ch.verb {
				t.Errorf("Describe: %q, want %q", got, tc.want+ch.verb)
			}
		}
	}
}

// What cannot be fetched, or is not what was asked for, is told by its name, and leaves nothing in the store.
func TestDownloadErrors(t *testing.T) {
	a, b := download("a", "text of a"), download("b", "text of b")
	for want, files := range map[string]map[string]string{
		"BUILD:1:1: //:joined: download b: no mirror has it\n    lock again":                                      {"a": "text of a"},
		"download b: it is another file: its sha256 is " + download("", "text of B").SHA256 + ", not " + b.SHA256: {"a": "text of a", "b": "text of B"},
		"download b: it has not the 9 bytes that it should have":                                                  {"a": "text of a", "b": "text of b and more"},
		"download b: it has not the 9 bytes that it should have: try again, or name another mirror":               {"a": "text of a", "b": "text"},
	} {
		m := &mirror{files: files}
		l := newJoiner(t, m)
		res, err := l.build(t.Context(), false, joined("x", []action.Download{a, b}))
		if err != nil || len(res.Errors) != 1 || !strings.Contains(res.Errors[0].Error(), want) {
			t.Errorf("%v, %v, want %s", err, res.Errors, want)
		}
		if _, err := os.Stat(l.blobOf(b)); err == nil {
			t.Errorf("%s: b is in the store", want)
		}
		if left, _ := filepath.Glob(filepath.Join(l.cache, "ingest/*")); len(left) > 0 {
			t.Errorf("%s: left behind: %v", want, left)
		}
		m.files = map[string]string{"a": "text of a", "b": "text of b"}
		if res, err := l.build(t.Context(), false, joined("x", []action.Download{a, b})); err != nil || len(res.Errors) > 0 {
			t.Errorf("%s: again: %v, %v", want, err, res.Errors)
		}
	}

	l := newJoiner(t, &mirror{files: map[string]string{"a": "!ext of a"}})
	bad := download("a", "!ext of a")
	for want, target := range map[string]*graph.Target{
		"a begins badly": joined("x", []action.Download{bad}),
		`there is no native action "none 1" that makes a layer`: func() *graph.Target {
			j := joined("x", []action.Download{bad})
			j.Outputs[0].Do.(*action.Image).Layers[0].Do.(*action.Native).Kind = "none 1"
			return j
		}(),
	} {
		if res, err := l.build(t.Context(), false, target); err != nil || len(res.Errors) != 1 || !strings.Contains(res.Errors[0].Error(), want) {
			t.Errorf("%v, %v, want %s", err, res.Errors, want)
		}
	}
	if blobs, _ := filepath.Glob(filepath.Join(l.cache, "blobs/sha256/*")); len(blobs) != 1 {
		t.Errorf("a layer that failed left %v", blobs)
	}
	l.fetch = nil
	if res, err := l.build(t.Context(), false, joined("x", []action.Download{a})); err != nil || len(res.Errors) != 1 || !strings.Contains(res.Errors[0].Error(), "nothing here can fetch it") {
		t.Errorf("no Fetch: %v, %v", err, res.Errors)
	}
}

// Actions that wait for the same download end with it, whoever fetches it, and with the build.
func TestDownloadInterrupted(t *testing.T) {
	a := download("a", "text of a")
	l := newJoiner(t, &mirror{})
	l.jobs = 3
	ctx, cancel := context.WithCancel(t.Context())
	l.fetch = func(ctx context.Context, _ action.Download) (io.ReadCloser, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	target := joined("x", []action.Download{a}, []action.Download{a}, []action.Download{a})
	if _, err := l.build(ctx, false, target); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if _, err := os.Stat(l.blobOf(a)); err == nil {
		t.Error("there is a blob")
	}
}
