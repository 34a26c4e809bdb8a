//go:build live

package livetest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// spine are the tests that hold with any engine: those that prove what a wiki is built by, from its files to a push. In CI
// each runs with one engine, the first with all of them, and some with none.
// MWBUILD_LIVE_SPINE=all is all with all (make live-engines).
var spine = []struct {
	test   string
	shows  string
	engine string // in CI; "" is all, "-" none
}{
	{"TestGenrule", "a step in a base, what it made in layers, and the early cut-off", ""},
	{"TestMediaWiki", "the real tree: accepted by crane and skopeo, equal to git file by file, one line, another clone, pushes", "-"},
	{"TestExplainNamesTheCause", "each field of a key, before and after its build", "buildx"},
	{"TestOneDigest", "fresh caches, buildkitd over TCP, and mwbuild llb | buildctl", "user"},
	{"TestStepsOnBases", "layers on bases, mounted and in a root", "user"},
	{"TestDebianBase", "Debian's own libc, shell and tools", "user"},
	{"TestFailedGenrule", "how a step failed", "balanced"},
	{"TestInterrupt", "Ctrl-C", "remote"},
	{"TestKill", "kill -9", "balanced"},
	{"TestTwoAtOnce", "two builds in one workspace, and with one cache", "remote"},
	{"TestManyComponents", "250 components", "buildx"},
	{"TestRemoteBase", "a base in a registry", "remote"},
	{"TestStaticProgram", "a compiled program alone in its image", "user"},
	{"TestSecrets", "a secret reaches its step and nothing else", "-"},
	{"TestSSH", "a step asks an agent that runs here", "-"},
	{"TestComposerInstall", "PHP packages from a lock", "-"},
	{"TestNpmBuild", "packages of npm from a lock", "-"},
	{"TestChanges", "what a step changed, as a layer", "-"},
	{"TestDebianImage", "Debian packages from a lock", "-"},
	{"TestRunProgram", "programs of images run here", "-"},
}

// hosted says how the places of this process run mwbuild. TestSpine starts this program again, with it in the environment.
type hosted struct {
	User    string   // as whom, with the embedded engine; "" is root
	Env     []string // what it takes to reach another engine, BUILDKIT_HOST above all
	Digests string   // a file for the digests that tests saw

	cred *syscall.Credential
	mu   sync.Mutex
	seen map[string]map[string]string // by test and number of its build, then by target
	n    map[string]int
}

var host = hosted{seen: map[string]map[string]string{}, n: map[string]int{}}

const hostVariable = "MWBUILD_LIVE_HOST"

func (h *hosted) read() error {
	text := os.Getenv(hostVariable)
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), h); err != nil || h.User == "" {
		return err
	}
	var err error
	if h.cred, err = credential(h.User); err != nil {
		return err
	}
	if err := os.Chmod(shared, 0o755); err != nil {
		return err
	}
	// What tests ask git, they ask it as root.
	config := filepath.Join(shared, "gitconfig")
	os.Setenv("GIT_CONFIG_GLOBAL", config)
	return os.WriteFile(config, []byte("[safe]\n\tdirectory = *\n"), 0o644)
}

// saw keeps the digests of one build.
func (h *hosted) saw(t testing.TB, r report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n[t.Name()]++
	h.seen[fmt.Sprintf("%s %d", t.Name(), h.n[t.Name()])] = r.digests()
}

func (h *hosted) keep() error {
	if h.Digests == "" {
		return nil
	}
	b, err := json.Marshal(h.seen)
	if err != nil {
		return err
	}
	return os.WriteFile(h.Digests, b, 0o644)
}

// check tells whether it was this host that ran p's mwbuild.
func (h *hosted) check(p *place) {
	p.t.Helper()
	cache, err := os.Stat(p.cache)
	if err != nil {
		return // nothing was built
	}
	if h.cred != nil && cache.Sys().(*syscall.Stat_t).Uid != h.cred.Uid {
		p.t.Errorf("mwbuild did not run as %s", h.User)
	}
	if len(h.Env) > 0 && fileThere(filepath.Join(p.cache, "engine")) {
		p.t.Errorf("the embedded engine was started with %v", h.Env)
	}
}

// give makes the workspace and the files and folders that arguments name the user's, as they would be.
func (p *place) give(args []string) {
	p.t.Helper()
	if host.cred == nil {
		return
	}
	own := func(path string) error { return os.Lchown(path, int(host.cred.Uid), int(host.cred.Gid)) }
	tree := func(dir string) {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := e.Info()
			if err == nil && fi.Sys().(*syscall.Stat_t).Uid != host.cred.Uid {
				err = own(path)
			}
			return err
		})
		if err != nil {
			p.t.Error(err)
		}
	}
	tree(p.dir)
	for _, dir := range []string{filepath.Dir(p.tmp), p.tmp, filepath.Join(filepath.Dir(p.tmp), "home")} {
		if err := own(dir); err != nil {
			p.t.Error(err)
		}
	}
	named := regexp.MustCompile(regexp.QuoteMeta(shared) + `/[^,=\n]+`)
	for _, path := range named.FindAllString(strings.Join(args, "\n"), -1) {
		if fileThere(path) {
			tree(path)
		}
		for dir := filepath.Dir(path); dir != shared; dir = filepath.Dir(dir) {
			if fileThere(dir) {
				own(dir)
			}
		}
	}
}

// What holds with the embedded engine of root holds with that of an ordinary user, and with any that runs elsewhere: over
// TCP, as a builder of docker buildx, and as three behind a balancer, of which one is killed in mid-build. Wherever the same
// was built, it has the same digest.
func TestSpine(t *testing.T) {
	asked := os.Getenv("MWBUILD_LIVE_SPINE") // all, or tests by name
	only := func(engine string) (tests []string) {
		for _, s := range spine {
			if asked != "" && asked != "all" {
				if slices.Contains(strings.Split(asked, ","), s.test) {
					tests = append(tests, s.test)
				}
				continue
			}
			if asked == "all" || s.engine == "" || s.engine == engine || engine == "" && s.engine != "-" {
				tests = append(tests, s.test)
			}
		}
		return tests
	}
	want := runSpine(t, &hosted{}, only(""), nil)
	compare := func(t *testing.T, tests []string, got map[string]map[string]string) {
		t.Helper()
		n := 0
		for _, build := range slices.Sorted(maps.Keys(want)) {
			name, _, _ := strings.Cut(strings.Fields(build)[0], "/")
			if !slices.Contains(tests, name) {
				continue
			}
			if diff := cmp.Diff(want[build], got[build]); diff != "" {
				t.Errorf("%s: digests (-embedded engine of root +here):\n%s", build, diff)
			}
			n += len(want[build])
		}
		for build := range got {
			if want[build] == nil {
				t.Errorf("%s was built here only", build)
			}
		}
		t.Logf("%d digests compared, of %d builds", n, len(got))
		if n == 0 {
			t.Error("nothing was compared")
		}
	}
	for _, e := range []struct {
		name  string
		start func(t *testing.T) (h *hosted, meanwhile func())
	}{
		{"user", func(t *testing.T) (*hosted, func()) {
			const name = "mwlive-spine"
			command(t, "", "useradd", "--no-create-home", name)
			t.Cleanup(func() { exec.Command("userdel", name).Run() })
			return &hosted{User: name}, nil
		}},
		{"remote", func(t *testing.T) (*hosted, func()) {
			addr := "tcp://" + freePort(t)
			engineAt(t, addr)
			return &hosted{Env: []string{"BUILDKIT_HOST=" + addr}}, nil
		}},
		{"buildx", func(t *testing.T) (*hosted, func()) {
			addr := "tcp://" + freePort(t)
			engineAt(t, addr)
			env := buildxBuilder(t, "live", addr)
			return &hosted{Env: append(env, "BUILDKIT_HOST=buildx://live")}, nil
		}},
		{"balanced", func(t *testing.T) (*hosted, func()) {
			addr, stats, engines := balanced(t, 3)
			killed := false
			t.Cleanup(func() {
				if !killed {
					t.Error("no engine was killed")
				}
			})
			return &hosted{Env: []string{"BUILDKIT_HOST=tcp://" + addr}}, func() {
				if killed {
					return
				}
				// Builds are under way, and some of them there.
				if ever, now := sessions(t, stats); ever["e0"] > 3 && ever["e2"] > 3 && now["e1"] > 0 {
					killed = true
					engines[1].cmd.Process.Kill()
					t.Logf("killed one of three engines, which had %d of the %d connections", now["e1"], now["e0"]+now["e1"]+now["e2"])
				}
			}
		}},
	} {
		t.Run(e.name, func(t *testing.T) {
			h, meanwhile := e.start(t)
			tests := only(e.name)
			compare(t, tests, runSpine(t, h, tests, meanwhile))
		})
	}
}

// runSpine runs tests again under h, and returns the digests that they saw.
func runSpine(t *testing.T, h *hosted, tests []string, meanwhile func()) map[string]map[string]string {
	t.Helper()
	h.Digests = filepath.Join(shortDir(t), "digests")
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.count=1", "-test.timeout=20m", "-test.run=^("+strings.Join(tests, "|")+")$")
	cmd.Env = append(os.Environ(), hostVariable+"="+string(text))
	log := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-tick.C:
			if meanwhile != nil {
				meanwhile()
			}
		}
	}
	passed := map[string]bool{}
	for s := bufio.NewScanner(strings.NewReader(log.String())); s.Scan(); {
		if name, ok := strings.CutPrefix(s.Text(), "--- PASS: "); ok {
			passed[strings.Fields(name)[0]] = true
			t.Log(s.Text())
		}
	}
	for _, s := range spine {
		if slices.Contains(tests, s.test) && !passed[s.test] {
			t.Errorf("%s (%s) did not pass", s.test, s.shows)
		}
	}
	t.Logf("%d tests in %.0f s", len(tests), time.Since(begun).Seconds())
	if err != nil || t.Failed() {
		t.Fatalf("%v\n%s", err, log)
	}
	b, err := os.ReadFile(h.Digests)
	if err != nil {
		t.Fatal(err)
	}
	var digests map[string]map[string]string
	if err := json.Unmarshal(b, &digests); err != nil {
		t.Fatal(err)
	}
	return digests
}

// buildxBuilder makes the engine at addr a builder of docker buildx, and returns the environment in which it is one.
func buildxBuilder(t *testing.T, name, addr string) (env []string) {
	t.Helper()
	dir := shortDir(t)
	plugins := filepath.Join(dir, "cli-plugins")
	bin := filepath.Join(dir, "bin")
	for _, link := range []string{filepath.Join(plugins, "docker-buildx"), filepath.Join(bin, "buildx")} {
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(tool(t, "buildx"), link); err != nil {
			t.Fatal(err)
		}
	}
	env = []string{"DOCKER_CONFIG=" + dir, "PATH=" + bin + ":" + os.Getenv("PATH")}
	create := exec.Command(tool(t, "buildx"), "create", "--name", name, "--driver", "remote", addr)
	create.Env = append(os.Environ(), env...)
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("buildx create: %v\n%s", err, out)
	}
	return env
}
