//go:build live

package livetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

var (
	repo   string // the checkout
	shared string // what tests share; removed at the end
	binary string // mwbuild
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the live tests start engines and mount file systems: run them as root")
		return 1
	}
	var err error
	if repo, err = filepath.Abs("../.."); err == nil {
		shared, err = os.MkdirTemp("", "live")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(shared)
	if err := host.read(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = filepath.Join(shared, "mwbuild")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/mwbuild").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building mwbuild: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := host.keep(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// tool returns the path of a program: a pinned one from .bin, else the system's.
func tool(t testing.TB, name string) string {
	t.Helper()
	if path := filepath.Join(repo, ".bin", name); isFile(path) {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v\n    .ci/setup installs what tests need, and builds the pinned tools", err)
	}
	return path
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

// command runs a program of someone else's, which must succeed, and returns its standard output.
func command(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

// A place is a workspace, and all else that one user's mwbuild touches.
type place struct {
	t     testing.TB
	dir   string // the workspace
	cache string
	tmp   string
	env   []string
	under []string // a command that runs mwbuild, which is given to it as arguments
}

// newPlace makes a place for the workspace dir. At the end of the test nothing of it may be left running or mounted, nor
// in the temporary folder.
func newPlace(t testing.TB, dir string) *place {
	t.Helper()
	own := shortDir(t)
	p := &place{t: t, dir: dir, cache: filepath.Join(own, "cache"), tmp: filepath.Join(own, "tmp")}
	home := filepath.Join(own, "home")
	for _, d := range []string{p.tmp, home} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + p.tmp, "LC_ALL=C.UTF-8"}, host.Env...)
	t.Cleanup(func() { p.checkClean() })
	return p
}

// shortDir is t.TempDir with a name short enough for sockets.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(shared, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// workspace lays the files of a txtar archive, in which BASE stands for the busybox base's tar and its digest.
func workspace(t testing.TB, archive string) *place {
	t.Helper()
	dir := shortDir(t)
	if strings.Contains(archive, "BASE") {
		b := busybox(t)
		archive = strings.ReplaceAll(archive, "BASE", fmt.Sprintf("tar = %q, digest = %q", b.tar, b.digest))
	}
	p := newPlace(t, dir)
	p.write("WORKSPACE", "workspace(name = \"live\")\n")
	for _, f := range txtar.Parse([]byte(archive)).Files {
		p.write(f.Name, string(f.Data))
	}
	return p
}

func (p *place) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) read(name string) string {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// freshCache is the same place with an empty cache.
func (p *place) freshCache() *place {
	p.t.Helper()
	return newPlace(p.t, p.dir)
}

// A result is how mwbuild ended.
type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// cmd is mwbuild, not yet started, in a process group of its own.
func (p *place) cmd(args ...string) *exec.Cmd {
	argv := slices.Concat(p.under, []string{binary, "--cache-dir", p.cache}, args)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = p.dir
	cmd.Env = p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: host.cred}
	p.give(args)
	return cmd
}

func (p *place) run(args ...string) result {
	p.t.Helper()
	s := p.start(args...)
	s.wait()
	return s.result
}

// ok is run for what must succeed.
func (p *place) ok(args ...string) result {
	p.t.Helper()
	r := p.run(args...)
	if r.code != 0 {
		p.t.Fatalf("mwbuild %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r
}

// fails is run for what must fail with this exit code and say all of these.
func (p *place) fails(code int, says []string, args ...string) result {
	p.t.Helper()
	r := p.run(args...)
	r.want(p.t, code, says...)
	return r
}

func (r result) want(t testing.TB, code int, says ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, s := range says {
		if !strings.Contains(r.stderr, s) {
			t.Errorf("it does not say %q", s)
		}
	}
	if t.Failed() {
		t.Logf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
	}
}

// A started mwbuild runs by itself.
type started struct {
	result
	t      testing.TB
	cmd    *exec.Cmd
	begun  time.Time
	out    lockedBuffer
	errout lockedBuffer
}

func (p *place) start(args ...string) *started {
	p.t.Helper()
	s := &started{t: p.t, cmd: p.cmd(args...), begun: time.Now()}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.errout
	// Whoever outlives mwbuild with its pipes in hand must not make us wait: that is for checkClean to find.
	s.cmd.WaitDelay = 5 * time.Second
	if err := s.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			s.cmd.Process.Kill()
			s.cmd.Wait()
		}
	})
	return s
}

func (s *started) wait() result {
	err := s.cmd.Wait()
	s.took = time.Since(s.begun)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Errorf("%s: %v", strings.Join(s.cmd.Args, " "), err)
	}
	s.code, s.stdout, s.stderr = s.cmd.ProcessState.ExitCode(), s.out.String(), s.errout.String()
	return s.result
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A report is what --output=json prints.
type report struct {
	Targets []struct {
		Label, Status string
		Outputs       []output
	}
	Actions struct {
		Total, Executed, Cached int
		Kinds                   map[string]struct{ Total, Executed, Cached int }
	}
	Engine struct{ Used bool }
	Errors []string
}

type output struct {
	Digest, MediaType string
	Size              int64
}

func parseReport(t testing.TB, stdout string) report {
	t.Helper()
	var r report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("--output=json: %v\n%s", err, stdout)
	}
	host.saw(t, r)
	return r
}

// build builds targets, which must succeed.
func (p *place) build(args ...string) report {
	p.t.Helper()
	return parseReport(p.t, p.ok(append(args, "--output=json")...).stdout)
}

// digest is that of the only output of target.
func (r report) digest(t testing.TB, target string) string {
	t.Helper()
	for _, rt := range r.Targets {
		if rt.Label == target && len(rt.Outputs) == 1 {
			return rt.Outputs[0].Digest
		}
	}
	t.Fatalf("no one output of %s in %+v", target, r)
	return ""
}

func (r report) digests() map[string]string {
	m := map[string]string{}
	for _, t := range r.Targets {
		for _, o := range t.Outputs {
			m[t.Label] += o.Digest
		}
	}
	return m
}

// wantActions checks how many actions ran, and whether an engine was needed for it.
func (r report) wantActions(t testing.TB, executed int, engine bool) {
	t.Helper()
	if r.Actions.Executed != executed || r.Engine.Used != engine {
		t.Errorf("%d actions were executed, engine used: %v; want %d, %v", r.Actions.Executed, r.Engine.Used, executed, engine)
	}
}

// processes are the command lines of those that mention s.
func processes(s string) map[int]string {
	found := map[int]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		line := strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " ")
		var pid int
		fmt.Sscanf(f, "/proc/%d/", &pid)
		if err == nil && pid != os.Getpid() && strings.Contains(line, s) {
			found[pid] = line
		}
	}
	return found
}

// checkClean fails if anything is left of what ran here. What is under way to its end gets a moment.
func (p *place) checkClean() {
	p.t.Helper()
	var left []string
	look := func() bool {
		left = nil
		for pid, line := range processes(p.cache) {
			left = append(left, fmt.Sprintf("process %d: %s", pid, line))
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			p.t.Fatal(err)
		}
		for _, line := range strings.Split(string(mounts), "\n") {
			if strings.Contains(line, filepath.Join(p.cache, "engine")) {
				left = append(left, "mount: "+line)
			}
		}
		for _, pattern := range []string{p.tmp + "/*", p.cache + "/ingest/*", p.cache + "/engine/runc-*/executor/*/rootfs"} {
			files, _ := filepath.Glob(pattern)
			left = append(left, files...)
		}
		return len(left) == 0
	}
	if !eventually(5*time.Second, look) {
		p.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	host.check(p)
}

func eventually(limit time.Duration, f func() bool) bool {
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if f() {
			return true
		}
		if time.Since(begun) > limit {
			return false
		}
	}
}

func until(t testing.TB, limit time.Duration, what string, f func() bool) {
	t.Helper()
	if !eventually(limit, f) {
		t.Fatalf("not after %v: %s", limit, what)
	}
}

// freePort is a TCP address on loopback that nobody listens at.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serve runs a server of someone else's until the test ends, and waits until addr answers, host:port or the path of a socket.
// It returns what the server prints.
func serve(t testing.TB, addr string, cmd *exec.Cmd) *lockedBuffer {
	t.Helper()
	log := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		stuck := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		stuck.Stop()
		if t.Failed() {
			last := lines(log.String())
			t.Logf("%s said last:\n%s", cmd.Path, strings.Join(last[max(0, len(last)-5):], "\n"))
		}
	})
	network := "tcp"
	if filepath.IsAbs(addr) {
		network = "unix"
	}
	until(t, 20*time.Second, cmd.Path+" answers", func() bool {
		c, err := net.Dial(network, addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return log
}

// buildkitd starts a BuildKit of the version that mwbuild embeds, with empty state, and returns its address.
func buildkitd(t testing.TB) string {
	t.Helper()
	dir, addr := shortDir(t), freePort(t)
	serve(t, addr, exec.Command(tool(t, "buildkitd"), "--addr", "tcp://"+addr, "--root", dir,
		"--otel-socket-path", filepath.Join(dir, "otel.sock"), "--oci-worker-net=host"))
	return "tcp://" + addr
}

func lines(s string) []string {
	return slices.DeleteFunc(strings.Split(s, "\n"), func(l string) bool { return l == "" })
}

// randomness is the same in each run of a test.
func randomness(t testing.TB) *rand.ChaCha8 { return rand.NewChaCha8(sha256.Sum256([]byte(t.Name()))) }
