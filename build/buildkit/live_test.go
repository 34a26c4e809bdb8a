//go:build live

package buildkit_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/build/lower"
	"github.com/mwbuild/mwbuild/graph/action"
)

// The test binary is the embedded engine, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 6 && os.Args[1] == "engine" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if most, err := strconv.ParseInt(os.Getenv("MWBUILD_TEST_KEEP"), 10, 64); err == nil {
			buildkit.SetKeepSpace(most)
		}
		if err := buildkit.Serve(ctx, os.Args[3], os.Args[5], os.Stdin, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var err error
	if os.Getenv("MWBUILD_TEST_PARENT") == "" { // which is killed, and could not remove it
		if stepDir, err = os.MkdirTemp("", "step"); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	os.RemoveAll(stepDir)
	os.Exit(code)
}

var stepDir string

// A bench has a store with a root that holds /step, and an engine of its own.
type bench struct {
	t     *testing.T
	e     *buildkit.Engine
	store content.Store
	root  lower.Root
	in    lower.Layer
	dir   string // the engine's root

	storeDir string
}

func newBench(t *testing.T, addr string) *bench {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "engine")
	b := &bench{t: t, dir: dir, e: newEngine(t, addr, dir)}
	b.storeDir = t.TempDir()
	var err error
	if b.store, err = local.NewStore(b.storeDir); err != nil {
		t.Fatal(err)
	}
	step, err := os.ReadFile(stepBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	b.root = lower.Root{Layers: []lower.Layer{b.pack(tarFile{"step", 0o755, step})}, Env: []string{"A=image"}, WorkingDir: "/work"}
	b.in = b.pack(tarFile{"hello", 0o644, []byte("hello")})
	return b
}

func newEngine(t *testing.T, addr, dir string) *buildkit.Engine {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := buildkit.Options{Addr: addr, Root: dir, Exe: exe, Wait: func(m string) { t.Log("wait: " + m) }}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	e := buildkit.New(o)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	fmt.Fprint(os.Stderr, string(p))
	return len(p), nil
}

var stepBinary = func() func(*testing.T) string {
	var once sync.Once
	var path string
	var out []byte
	var err error
	return func(t *testing.T) string {
		t.Helper()
		if step := os.Getenv("MWBUILD_TEST_STEP"); step != "" {
			return step
		}
		once.Do(func() {
			path = filepath.Join(stepDir, "step")
			cmd := exec.Command("go", "build", "-o", path, "./testdata/step")
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			out, err = cmd.CombinedOutput()
		})
		if err != nil {
			t.Fatalf("building the step: %v\n%s", err, out)
		}
		return path
	}
}()

type tarFile struct {
	name string
	mode int64
	data []byte
}

func (b *bench) pack(files ...tarFile) lower.Layer {
	b.t.Helper()
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: time.Unix(0, 0)}); err != nil {
			b.t.Fatal(err)
		}
		w.Write(f.data)
	}
	w.Close()
	z, _ := zstd.NewWriter(nil)
	blob := z.EncodeAll(raw.Bytes(), nil)
	d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerZstd, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	if err := content.WriteBlob(b.t.Context(), b.store, d.Digest.String(), bytes.NewReader(blob), d); err != nil {
		b.t.Fatal(err)
	}
	return lower.Layer{Descriptor: d, DiffID: digest.FromBytes(raw.Bytes())}
}

func (b *bench) run(ctx context.Context, r action.Run) (buildkit.Result, error) {
	b.t.Helper()
	node := &action.Node{Label: "//:in", Name: "layer"}
	r.Mounts = append(r.Mounts, action.Mount{From: node, Dest: "/mnt/in"})
	g, err := lower.Run(ctx, r, b.root, map[*action.Node][]lower.Layer{node: {b.in}}, "//:step")
	if err != nil {
		b.t.Fatal(err)
	}
	return b.e.Solve(ctx, buildkit.Request{Name: "//:step", Graph: g, Store: b.store})
}

func step(args ...string) action.Run {
	return action.Run{Args: append([]string{"/step"}, args...)}
}

func (b *bench) mustRun(r action.Run) buildkit.Result {
	b.t.Helper()
	res, err := b.run(b.t.Context(), r)
	if err != nil {
		b.t.Fatal(explain(err))
	}
	return res
}

func explain(err error) string {
	var se *buildkit.StepError
	if errors.As(err, &se) {
		return fmt.Sprintf("%v\n%v\n%s", err, se.Err, se.Log)
	}
	return err.Error()
}

// listing is the tar of a layer in words, and its files' text.
func (b *bench) listing(l ocispecs.Descriptor) (string, map[string]string) {
	b.t.Helper()
	blob, err := content.ReadBlob(b.t.Context(), b.store, l)
	if err != nil {
		b.t.Fatal(err)
	}
	z, err := zstd.NewReader(bytes.NewReader(blob))
	if err != nil {
		b.t.Fatal(err)
	}
	defer z.Close()
	var out strings.Builder
	text := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out.String(), text
		}
		if err != nil {
			b.t.Fatal(err)
		}
		data, _ := io.ReadAll(r)
		text[h.Name] = string(data)
		fmt.Fprintf(&out, "%c %04o %d:%d %d %s %s %q %v\n", h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.UnixNano(), h.Name, h.Linkname, h.Uname+h.Gname, h.PAXRecords)
	}
}

func TestRunIsNormalised(t *testing.T) {
	b := newBench(t, "")
	if b.e.Used() {
		t.Error("used before the first solve")
	}
	if _, err := os.Stat(b.dir); !os.IsNotExist(err) {
		t.Errorf("New made %s", b.dir)
	}
	r := step("write", "text")
	r.Owner = action.Owner{UID: 7, GID: 8}
	start := time.Now()
	res := b.mustRun(r)
	t.Log("cold start and first step:", time.Since(start))
	got, _ := b.listing(res.Layer)
	want := `5 0755 7:8 0 d/  "" map[]
5 0755 7:8 0 d/empty/  "" map[]
0 0644 7:8 0 d/plain  "" map[]
0 0755 7:8 0 d/tool  "" map[]
2 0777 7:8 0 link d/plain "" map[]
0 0755 7:8 0 open  "" map[]
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
	if res.Layer.MediaType != ocispecs.MediaTypeImageLayerZstd {
		t.Errorf("media type %s", res.Layer.MediaType)
	}
	start = time.Now()
	b.mustRun(step("write", "other"))
	t.Log("warm step:", time.Since(start))
	start = time.Now()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := b.run(t.Context(), step("write", strconv.Itoa(i))); err != nil {
				t.Error(explain(err))
			}
		}()
	}
	wg.Wait()
	t.Log("20 steps at once:", time.Since(start))
	start = time.Now()
	if err := b.e.Close(); err != nil {
		t.Error(err)
	}
	t.Log("close:", time.Since(start))

	second := newBench(t, "")
	if got := second.mustRun(r); got.Layer.Digest != res.Layer.Digest || got.DiffID != res.DiffID {
		t.Errorf("a fresh root gave %v, the first %v", got.Layer, res.Layer)
	}
}

// Solves with equal results must not disturb each other in the store.
func TestEqualResultsAtOnce(t *testing.T) {
	b := newBench(t, "")
	var wg sync.WaitGroup
	digests := make([]digest.Digest, 8)
	for i := range digests {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := step("write", "same")
			r.Env = map[string]string{"N": strconv.Itoa(i)} // a step of its own
			res, err := b.run(t.Context(), r)
			if err != nil {
				t.Error(explain(err))
			}
			digests[i] = res.Layer.Digest
		}()
	}
	wg.Wait()
	for _, d := range digests {
		if d != digests[0] {
			t.Errorf("digests %v", digests)
		}
	}
}

func TestSandbox(t *testing.T) {
	look := func(t *testing.T, user string) string {
		b := newBench(t, "")
		b.root.User = user
		r := step("look")
		r.Env = map[string]string{"B": "action", "A": "replaced"}
		_, text := b.listing(b.mustRun(r).Layer)
		return text["seen"]
	}
	want := `interface lo
dial true
write /new false
write /mnt/in/new false
write /tmp/new true
write /out/new true
host mwbuild dir /work uid %d
in "hello" <nil>
A=replaced
B=action
HOME=/tmp
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
SOURCE_DATE_EPOCH=0
`
	for user, uid := range map[string]int{"": 0, "65533": 65533} {
		t.Run("user "+user, func(t *testing.T) {
			if diff := cmp.Diff(fmt.Sprintf(want, uid), look(t, user)); diff != "" {
				t.Errorf("what the step saw (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailedStep(t *testing.T) {
	b := newBench(t, "")
	_, err := b.run(t.Context(), step("fail", "42"))
	var se *buildkit.StepError
	if !errors.As(err, &se) {
		t.Fatalf("not a StepError: %v", err)
	}
	if se.Name != "//:step" || se.ExitCode != 42 {
		t.Errorf("got name %q, exit code %d", se.Name, se.ExitCode)
	}
	log := strings.Split(strings.TrimSuffix(string(se.Log), "\n"), "\n")
	if len(log) != 100 || !slices.Contains(log, "now it fails") || !slices.Contains(log, "line 199") {
		t.Errorf("log of %d lines:\n%s", len(log), se.Log)
	}
	// A program that is not there.
	_, err = b.run(t.Context(), action.Run{Args: []string{"/no/such/program"}})
	if !errors.As(err, &se) {
		t.Fatalf("not a StepError: %v", err)
	}
	t.Logf("no program: code %d, log %q, err %v", se.ExitCode, se.Log, se.Err)
	if !strings.Contains(string(se.Log)+se.Err.Error(), "/no/such/program") {
		t.Errorf("the error does not name the program: %s", explain(err))
	}
}

// running lists processes whose command line is a sleeping step.
func running() []string {
	var pids []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if bytes.HasPrefix(b, []byte("/step\x00sleep\x00")) {
			pids = append(pids, strings.Split(f, "/")[2])
		}
	}
	return pids
}

// engines lists processes that serve an engine with this root.
func engines(root string) []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if bytes.Contains(b, []byte("\x00engine\x00--root\x00"+root+"\x00")) {
			pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func until(t *testing.T, limit time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

func asleep() bool { return len(running()) > 0 }

// sleeper starts a sleeping step and waits until it runs.
func (b *bench) sleeper(ctx context.Context) <-chan error {
	b.t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := b.run(ctx, step("sleep"))
		done <- err
	}()
	until(b.t, 20*time.Second, "step runs", asleep)
	return done
}

func TestCancel(t *testing.T) {
	b := newBench(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := b.sleeper(ctx)
	start := time.Now()
	cancel()
	err := <-done
	t.Log("cancelled after", time.Since(start))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is not context.Canceled: %v", err)
	}
	var se *buildkit.StepError
	if errors.As(err, &se) {
		t.Errorf("a cancelled step counts as failed: %v", err)
	}
	if err := b.e.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	t.Log("closed after", time.Since(start))
	if left := append(running(), fmt.Sprint(engines(b.dir))); len(left) != 1 || left[0] != "[]" {
		t.Errorf("left running: %v", left)
	}
	checkClean(t, b.dir)
}

// checkClean fails if anything of a run is left in an engine's root.
func checkClean(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(dir, "runc-*", "executor", "*", "rootfs")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("left mounted below %s:\n%s", dir, mounts)
	}
}

// Close while a step runs, as when the caller gives up without waiting.
func TestCloseEndsSteps(t *testing.T) {
	b := newBench(t, "")
	done := b.sleeper(t.Context())
	start := time.Now()
	if err := b.e.Close(); err != nil {
		t.Error(err)
	}
	t.Log("close took", time.Since(start))
	if left := running(); left != nil {
		t.Errorf("left running: %v", left)
	}
	if err := <-done; err == nil {
		t.Error("the solve succeeded")
	}
	checkClean(t, b.dir)
}

// The engine is killed: its container goes on as an orphan until the next engine, started for the second try, ends it.
func TestKilledEngine(t *testing.T) {
	b := newBench(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := b.sleeper(ctx)
	first, orphans := engines(b.dir), running()
	if len(first) != 1 {
		t.Fatalf("engines: %v", first)
	}
	syscall.Kill(first[0], syscall.SIGKILL)
	until(t, 20*time.Second, "second try", func() bool {
		now, steps := engines(b.dir), running()
		return len(now) == 1 && now[0] != first[0] && len(steps) == 1 && steps[0] != orphans[0]
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	b.mustRun(step("write", "still works"))
	if err := b.e.Close(); err != nil {
		t.Error(err)
	}
	if left := running(); left != nil {
		t.Errorf("left running: %v", left)
	}
	checkClean(t, b.dir)
}

// mwbuild itself is killed: the engine notices and ends what runs.
func TestKilledParent(t *testing.T) {
	if dir := os.Getenv("MWBUILD_TEST_PARENT"); dir != "" {
		b := newBench(t, "")
		if err := os.WriteFile(dir, []byte(b.dir), 0o644); err != nil {
			t.Fatal(err)
		}
		b.mustRun(step("sleep"))
		return
	}
	note := filepath.Join(t.TempDir(), "root")
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledParent$")
	cmd.Env = append(os.Environ(), "MWBUILD_TEST_PARENT="+note, "MWBUILD_TEST_STEP="+stepBinary(t))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, 30*time.Second, "step runs", asleep)
	root, err := os.ReadFile(note)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(filepath.Dir(filepath.Dir(string(root)))) // what t.TempDir made there
	sockets := socketDirs(string(root))
	cmd.Process.Kill()
	cmd.Wait()
	until(t, 5*time.Second, "everything ends", func() bool { return len(running())+len(engines(string(root))) == 0 })
	checkClean(t, string(root))
	for _, d := range sockets {
		if _, err := os.Stat(d); !os.IsNotExist(err) {
			t.Errorf("%s is left", d)
		}
	}
}

func socketDirs(root string) (dirs []string) {
	for _, pid := range engines(root) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		args := strings.Split(string(b), "\x00")
		dirs = append(dirs, filepath.Dir(args[5]))
	}
	return dirs
}

// Two engines on one root: the second waits, and says so.
func TestSecondEngineWaits(t *testing.T) {
	b := newBench(t, "")
	b.mustRun(step("write"))
	exe, _ := os.Executable()
	told := make(chan string, 1)
	second := &bench{t: t, store: b.store, root: b.root, in: b.in, dir: b.dir, e: buildkit.New(buildkit.Options{
		Root: b.dir, Exe: exe, Wait: func(m string) { told <- m },
	})}
	defer second.e.Close()
	done := make(chan error, 1)
	go func() {
		_, err := second.run(t.Context(), step("write", "second"))
		done <- err
	}()
	select {
	case m := <-told:
		if !strings.Contains(m, b.dir) {
			t.Errorf("message %q", m)
		}
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("no message")
	}
	b.e.Close()
	if err := <-done; err != nil {
		t.Error(explain(err))
	}
}

// Inputs of a merge load at the same time, and the result is an image of the same layers.
func TestImage(t *testing.T) {
	b := newBench(t, "")
	for i := range 8 {
		// Of a size that takes time to fetch.
		data := bytes.Repeat([]byte(fmt.Sprintf("%d %d\n", i, time.Now().UnixNano())), 100_000)
		b.root.Layers = append(b.root.Layers, b.pack(tarFile{fmt.Sprintf("file%d", i), 0o644, data}))
	}
	b.root.Layers = append(b.root.Layers, b.root.Layers[2]) // one twice
	g, err := lower.Image(t.Context(), b.root, "//:image")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	spans := map[digest.Digest][2]time.Time{}
	res, err := b.e.Solve(t.Context(), buildkit.Request{Name: "//:image", Graph: g, Store: b.store, Config: []byte(`{"architecture":"amd64","os":"linux","config":{"User":"7"},"rootfs":{"type":"layers","diff_ids":[]}}`), Status: func(s *client.SolveStatus) {
		mu.Lock()
		defer mu.Unlock()
		for _, v := range s.Vertexes {
			if v.Started != nil && v.Completed != nil {
				spans[v.Digest] = [2]time.Time{*v.Started, *v.Completed}
			}
		}
	}})
	if err != nil {
		t.Fatal(explain(err))
	}
	var got, want []digest.Digest
	for _, l := range res.Layers {
		got = append(got, l.Digest)
	}
	for _, l := range b.root.Layers {
		want = append(want, l.Descriptor.Digest)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	overlaps := 0
	for a, x := range spans {
		for b, y := range spans {
			if a < b && x[0].Before(y[1]) && y[0].Before(x[1]) {
				overlaps++
			}
		}
	}
	t.Logf("%d vertices, %d overlap", len(spans), overlaps)
	if overlaps == 0 {
		t.Error("no two inputs were fetched at the same time")
	}
	cfg, err := content.ReadBlob(t.Context(), b.store, res.Manifest)
	if err != nil || len(cfg) == 0 {
		t.Errorf("manifest: %v", err)
	}
}

// A sub-graph in place of a layer gives what the layer gives.
func TestInlinedRun(t *testing.T) {
	b := newBench(t, "")
	r := step("write", "inlined")
	g, err := lower.Run(t.Context(), r, b.root, nil, "//:inner")
	if err != nil {
		t.Fatal(err)
	}
	inner, err := b.e.Solve(t.Context(), buildkit.Request{Name: "//:inner", Graph: g, Store: b.store})
	if err != nil {
		t.Fatal(explain(err))
	}
	var digests []digest.Digest
	for _, l := range []lower.Layer{{From: &g}, {Descriptor: inner.Layer, DiffID: inner.DiffID}} {
		root := b.root
		root.Layers = append(root.Layers[:1:1], l, b.in)
		img, err := lower.Image(t.Context(), root, "//:image")
		if err != nil {
			t.Fatal(err)
		}
		res, err := b.e.Solve(t.Context(), buildkit.Request{Name: "//:image", Graph: img, Store: b.store, Config: []byte(`{"architecture":"amd64","os":"linux","history":[{"created":"1970-01-01T00:00:00Z"},{"created":"1970-01-01T00:00:00Z"},{"created":"1970-01-01T00:00:00Z"}],"rootfs":{"type":"layers","diff_ids":[]}}`)})
		if err != nil {
			t.Fatal(explain(err))
		}
		digests = append(digests, res.Manifest.Digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("inlined %s, from the store %s", digests[0], digests[1])
	}
}

// buildkitBin is a folder with buildkitd and buildctl: $MWBUILD_BUILDKIT_BIN, or built from the version that we embed.
func buildkitBin(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("MWBUILD_BUILDKIT_BIN"); dir != "" {
		return dir
	}
	// It needs modules that ours does not, hence a go.mod and go.sum of its own.
	dir := t.TempDir()
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(string(mod)), f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-mod=mod", "-modfile="+filepath.Join(dir, "go.mod"), "-o", dir+"/", "github.com/moby/buildkit/cmd/buildkitd", "github.com/moby/buildkit/cmd/buildctl")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building buildkitd; MWBUILD_BUILDKIT_BIN names a folder that has it: %v\n%s", err, out)
	}
	return dir
}

// What an image's later layer deletes stays deleted, and what is merged on it is there.
func TestBaseWhiteouts(t *testing.T) {
	b := newBench(t, "")
	b.root.Layers = append(b.root.Layers,
		b.pack(tarFile{"gone", 0o644, nil}, tarFile{"kept", 0o644, nil}), b.pack(tarFile{".wh.gone", 0o644, nil}), b.pack(tarFile{"merged", 0o644, nil}))
	b.root.BaseLayers = 3
	_, text := b.listing(b.mustRun(step("files", "/gone", "/kept", "/merged")).Layer)
	if diff := cmp.Diff(map[string]string{"_kept": "", "_merged": ""}, text); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// The engine compresses; how many processors it has must not show.
func TestDigestAcrossProcessors(t *testing.T) {
	var first digest.Digest
	for _, n := range []string{"1", "2", "7"} {
		t.Setenv("GOMAXPROCS", n)
		b := newBench(t, "")
		got := b.mustRun(step("big")).Layer.Digest
		if first == "" {
			first = got
		}
		if got != first {
			t.Errorf("with GOMAXPROCS=%s %s, with 1 %s", n, got, first)
		}
	}
}

// A step may write nothing at all: its layer is an empty one.
func TestNothingWritten(t *testing.T) {
	b := newBench(t, "")
	if got, _ := b.listing(b.mustRun(step("files")).Layer); got != "" {
		t.Errorf("layer holds %s", got)
	}
}

func TestNetwork(t *testing.T) {
	b := newBench(t, "")
	r := step("interfaces")
	r.Network = true
	_, got := b.listing(b.mustRun(r).Layer)
	ifaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, i := range ifaces {
		want[i.Name] = ""
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("interfaces (-want +got):\n%s", diff)
	}
}

// A base that only a registry on loopback has: the engine fetches it, by plain HTTP.
func TestRemoteBase(t *testing.T) {
	b := newBench(t, "")
	reg := httptest.NewServer(registry.New(registry.Logger(stdlog.New(io.Discard, "", 0))))
	defer reg.Close()
	step1, err := os.ReadFile(stepBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	w.WriteHeader(&tar.Header{Name: "step", Mode: 0o755, Size: int64(len(step1)), ModTime: time.Unix(0, 0)})
	w.Write(step1)
	w.Close()
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(raw.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	repo := strings.TrimPrefix(reg.URL, "http://") + "/base"
	ref, err := name.ParseReference(repo + ":latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	id := digest.FromBytes(raw.Bytes())
	base := lower.Layer{Descriptor: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: id, Size: int64(raw.Len())}, DiffID: id}
	b.root = lower.Root{Layers: []lower.Layer{base, b.in}, BaseLayers: 1, Remote: repo + "@" + d.String()}
	_, text := b.listing(b.mustRun(step("files", "/step", "/hello")).Layer)
	if diff := cmp.Diff(map[string]string{"_step": "", "_hello": ""}, text); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// The same step on a buildkitd over TCP has the same digest; and an engine that is not there is said to be so.
func TestRemote(t *testing.T) {
	bin := buildkitBin(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := "tcp://" + l.Addr().String()
	l.Close()

	gone := newBench(t, addr)
	if _, err := gone.run(t.Context(), step("write")); err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("no engine: %v", err)
	}

	dir := t.TempDir()
	cmd := exec.Command(filepath.Join(bin, "buildkitd"), "--addr", addr, "--root", dir, "--otel-socket-path", filepath.Join(dir, "otel.sock"), "--oci-worker-net=host")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	until(t, 20*time.Second, "buildkitd answers", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(addr, "tcp://"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	r := step("write", "remote")
	overTCP := newBench(t, addr).mustRun(r)
	embedded := newBench(t, "").mustRun(r)
	if overTCP.Layer.Digest != embedded.Layer.Digest {
		t.Errorf("over TCP %v, embedded %v", overTCP.Layer, embedded.Layer)
	}

	b := newBench(t, addr)
	testBuildctl(t, b, filepath.Join(bin, "buildctl"), addr)

	ctx, cancel := context.WithCancel(t.Context())
	done := b.sleeper(ctx)
	cancel()
	start := time.Now()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	t.Log("remote cancel took", time.Since(start))
	until(t, 5*time.Second, "remote step ends", func() bool { return !asleep() })
}

// buildctl solves what lower wrote, a step inlined, to the digest that we get.
func testBuildctl(t *testing.T, b *bench, buildctl, addr string) {
	t.Helper()
	run, err := lower.Run(t.Context(), step("write", "for buildctl"), b.root, nil, "//:inner")
	if err != nil {
		t.Fatal(err)
	}
	root := b.root
	root.Layers = append(root.Layers[:1:1], lower.Layer{From: &run}, b.in)
	g, err := lower.Image(t.Context(), root, "//:image")
	if err != nil {
		t.Fatal(err)
	}
	config := `{"architecture":"amd64","os":"linux","history":[{"created":"1970-01-01T00:00:00Z"},{"created":"1970-01-01T00:00:00Z"},{"created":"1970-01-01T00:00:00Z"}],"rootfs":{"type":"layers","diff_ids":[]}}`
	want, err := b.e.Solve(t.Context(), buildkit.Request{Name: "//:image", Graph: g, Store: b.store, Config: []byte(config)})
	if err != nil {
		t.Fatal(explain(err))
	}
	for d, m := range g.Manifests {
		if err := content.WriteBlob(t.Context(), b.store, d.String(), bytes.NewReader(m), ocispecs.Descriptor{Digest: d, Size: int64(len(m))}); err != nil {
			t.Fatal(err)
		}
	}
	meta := filepath.Join(t.TempDir(), "meta")
	cmd := exec.Command(buildctl, "--addr", addr, "build", "--oci-layout", lower.StoreID+"="+b.storeDir, "--metadata-file", meta, "--output",
		`type=oci,dest=`+meta+`.tar,oci-mediatypes=true,compression=zstd,source-date-epoch=0,"containerimage.config=`+strings.ReplaceAll(config, `"`, `""`)+`"`)
	cmd.Stdin = bytes.NewReader(g.Definition)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("buildctl: %v\n%s", err, out)
	}
	got, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(got), `"containerimage.digest": "`+want.Manifest.Digest.String()+`"`) {
		t.Errorf("buildctl gave %s, want %s", got, want.Manifest.Digest)
	}
}
