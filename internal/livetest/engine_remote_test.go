//go:build live

package livetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/csv"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// engineAt starts a buildkitd that listens at addr, in namespaces of its own, so that whatever it runs and mounts ends
// with it, also when it is killed.
func engineAt(t testing.TB, addr string, flags ...string) *exec.Cmd {
	t.Helper()
	dir := shortDir(t)
	args := append([]string{"-c", `mount --make-rprivate / && mount -t proc proc /proc && exec "$@"`, "sh", tool(t, "buildkitd"), "--addr", addr,
		"--root", dir, "--otel-socket-path", filepath.Join(dir, "otel.sock"), "--oci-worker-net=host"}, flags...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	log := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		stuck := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		stuck.Stop()
		if t.Failed() {
			last := lines(log.String())
			t.Logf("buildkitd at %s said last:\n%s", addr, strings.Join(last[max(0, len(last)-5):], "\n"))
		}
	})
	network, where, _ := strings.Cut(addr, "://")
	until(t, 20*time.Second, "buildkitd answers at "+addr, func() bool {
		c, err := net.Dial(network, where)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return cmd
}

// programs puts shell scripts of these names before all others in p's path.
func (p *place) programs(scripts map[string]string) {
	p.t.Helper()
	bin := filepath.Join(shortDir(p.t), "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		p.t.Fatal(err)
	}
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	p.env = append(p.env, "PATH="+bin+":"+os.Getenv("PATH"))
}

// Whatever way leads to an engine, and whichever that is, the digests are the same.
func TestRemoteEngines(t *testing.T) {
	t.Parallel()
	p := workspace(t, stepWorkspace)
	want := p.build("//...").digests()
	check := func(t *testing.T, p *place, addr string) {
		t.Helper()
		got := p.build("//...", "--builder", addr)
		if !got.Engine.Used {
			t.Error("no engine was used")
		}
		if diff := cmp.Diff(want, got.digests()); diff != "" {
			t.Errorf("digests (-embedded +%s):\n%s", addr, diff)
		}
		if _, err := os.Stat(filepath.Join(p.cache, "engine")); err == nil {
			t.Error("the embedded engine was started, too")
		}
	}
	socket := filepath.Join(shortDir(t), "s")
	engineAt(t, "unix://"+socket)
	t.Run("unix", func(t *testing.T) { check(t, p.freshCache(), "unix://"+socket) })
	t.Run("environment", func(t *testing.T) {
		q := p.freshCache()
		q.env = append(q.env, "BUILDKIT_HOST=unix://"+socket)
		if diff := cmp.Diff(want, q.build("//...").digests()); diff != "" {
			t.Errorf("digests (-embedded +remote):\n%s", diff)
		}
	})

	// The programs that lead to an engine elsewhere stand here for one that leads to ours, if it is called as it has to be.
	dial := func(accepts ...string) string {
		return "case \"$*\" in\n" + "'" + strings.Join(accepts, "'|'") + "') exec " + tool(t, "buildctl") + " --addr unix://" + socket + " dial-stdio;;\n" +
			"*) echo \"unexpected: $*\" >&2; exit 9;;\nesac\n"
	}
	for addr, scripts := range map[string]map[string]string{
		"docker-container://box":                            {"docker": dial("exec -i box buildctl dial-stdio")},
		"docker-container://box?context=far":                {"docker": dial("--context=far exec -i box buildctl dial-stdio")},
		"podman-container://box":                            {"podman": dial("exec -i box buildctl dial-stdio")},
		"kube-pod://pod?namespace=ci&container=c&context=x": {"kubectl": dial("--context=x --namespace=ci exec --container=c -i pod -- buildctl dial-stdio")},
		"ssh://me@far:2222/run/other.sock":                  {"ssh": dial("-l me -p 2222 -- far buildctl --addr unix:///run/other.sock dial-stdio")},
		"buildx://mine":                                     {"docker": dial("buildx dial-stdio --builder mine")},
	} {
		t.Run(addr, func(t *testing.T) {
			q := p.freshCache()
			q.programs(scripts)
			check(t, q, addr)
		})
	}
	t.Run("a program fails", func(t *testing.T) {
		q := p.freshCache()
		q.programs(map[string]string{"docker": "echo 'ERROR: no builder \"gone\" found' >&2; exit 1\n"})
		r := q.fails(1, []string{"docker buildx dial-stdio --builder gone: exit status 1: ERROR: no builder \"gone\" found\n", "the engine at buildx://gone", "is it running?"}, "//:upper", "--builder", "buildx://gone")
		if r.took > 10*time.Second {
			t.Errorf("it took %v to say so", r.took)
		}
	})
	t.Run("no program", func(t *testing.T) {
		q := p.freshCache()
		q.env = append(q.env, "PATH="+shortDir(t))
		q.fails(1, []string{"reached through kubectl, which is not installed"}, "//:upper", "--builder", "kube-pod://pod")
	})
	t.Run("no address", func(t *testing.T) {
		p.fails(2, []string{"want the name of a builder"}, "//:upper", "--builder", "buildx://")
	})
}

// An engine with TLS is believed by its certificate, and believes by ours.
func TestRemoteTLS(t *testing.T) {
	t.Parallel()
	p := workspace(t, stepWorkspace)
	want := p.build("//:upper").digests()
	good, bad := certificates(t), certificates(t)
	addr := "tcp://" + freePort(t)
	engineAt(t, addr, "--tlscacert", good+"/ca.pem", "--tlscert", good+"/server.pem", "--tlskey", good+"/server-key.pem")
	q := p.freshCache()
	if diff := cmp.Diff(want, q.build("//:upper", "--builder", addr+"?tlsdir="+good).digests()); diff != "" {
		t.Errorf("digests (-embedded +TLS):\n%s", diff)
	}
	for _, test := range []struct{ query, says string }{
		{"", ""},
		{"?tlsdir=" + bad, "certificate signed by unknown authority"},
		{"?tlscacert=" + good + "/ca.pem", "if it asks for a certificate, give one: tlscert and tlskey, or tlsdir"},
		{"?tlsservername=127.0.0.1", "certificate signed by unknown authority"},
		{"?tlsservername=other.test&tlsdir=" + good, "not other.test"},
	} {
		r := p.freshCache().fails(1, []string{"//:upper", "is it running?", test.says}, "//:upper", "--builder", addr+test.query)
		if r.took > 15*time.Second {
			t.Errorf("%q: it took %v to fail", test.query, r.took)
		}
	}
	q = p.freshCache()
	ok := q.build("//:upper", "--builder", addr+"?tlsservername=engine.test&tlscacert="+good+"/ca.pem&tlscert="+good+"/cert.pem&tlskey="+good+"/key.pem")
	if diff := cmp.Diff(want, ok.digests()); diff != "" {
		t.Errorf("digests (-embedded +TLS):\n%s", diff)
	}
}

// certificates makes a folder with an authority, a server's and a client's certificate.
func certificates(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	write := func(name, kind string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var authority *x509.Certificate
	var authorityKey *ecdsa.PrivateKey
	for i, c := range []struct {
		cert, key string
		use       x509.ExtKeyUsage
	}{{"ca.pem", "ca-key.pem", 0}, {"server.pem", "server-key.pem", x509.ExtKeyUsageServerAuth}, {"cert.pem", "key.pem", x509.ExtKeyUsageClientAuth}} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cert := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: c.cert}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature,
		}
		if authority == nil {
			cert.IsCA, cert.BasicConstraintsValid, cert.KeyUsage = true, true, x509.KeyUsageCertSign
			authority, authorityKey = cert, key
		} else {
			cert.ExtKeyUsage = []x509.ExtKeyUsage{c.use}
			cert.DNSNames, cert.IPAddresses = []string{"engine.test"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, authority, &key.PublicKey, authorityKey)
		if err != nil {
			t.Fatal(err)
		}
		b, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(c.cert, "CERTIFICATE", der)
		write(c.key, "PRIVATE KEY", b)
	}
	return dir
}

// starts counts how often each step was started: steps tell it, over the network.
type starts struct {
	mu sync.Mutex
	n  map[string]int
}

func countStarts(t *testing.T) (*starts, string) {
	s := &starts{n: map[string]int{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.n[r.URL.Path]++
	}))
	t.Cleanup(server.Close)
	return s, server.URL
}

func (s *starts) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.n {
		n += k
	}
	return n
}

// Several engines behind a balancer are one to mwbuild. Each solve goes to any of them; of one that is killed in mid-build
// the solves that it had, and no others, are begun again elsewhere; and a step that fails is not tried on the next.
func TestBalancedEngines(t *testing.T) {
	const steps = 12
	count, url := countStarts(t)
	archive := "-- BUILD --\nimage_import(name = \"base\", BASE)\n"
	for i := range steps {
		archive += fmt.Sprintf("genrule(name = \"s%d\", outs = [\"o%d\"], cmd = \"wget -q -O /dev/null %s/s%d; sleep 2; echo %d > $OUT\", network = True, image = \":base\")\n", i, i, url, i, i)
	}
	archive += fmt.Sprintf("genrule(name = \"last\", srcs = [\":s0\", \":s1\"], outs = [\"last\"], cmd = \"wget -q -O /dev/null %s/last; cat $SRCS > $OUT\", network = True, image = \":base\")\n", url)
	archive += fmt.Sprintf("genrule(name = \"bad\", outs = [\"out\"], cmd = \"wget -q -O /dev/null %s/bad; exit 3\", network = True, image = \":base\", tags = [\"manual\"])\n", url)
	p := workspace(t, archive)
	want := p.build("//...").digests()
	count.n = map[string]int{}

	addr, stats, engines := balanced(t, 3)
	q := p.freshCache()
	build := q.start("//...", "--builder", "tcp://"+addr, "--jobs", "6", "--output=json")
	until(t, 60*time.Second, "six steps run", func() bool { return count.total() >= 6 })
	engines[1].cmd.Process.Kill()
	r := build.wait()
	if r.code != 0 {
		t.Fatalf("with one of three engines killed: exit code %d\n%s", r.code, r.stderr)
	}
	if diff := cmp.Diff(want, parseReport(t, r.stdout).digests()); diff != "" {
		t.Errorf("digests (-embedded +balanced):\n%s", diff)
	}
	lost := count.total() - steps - 1
	begun, _ := sessions(t, stats)
	t.Logf("%v; %d steps were begun twice; sessions: %v", r.took, lost, begun)
	if lost < 1 || lost > 3 {
		t.Errorf("the killed engine lost %d steps of 6 that ran on three: %v", lost, count.n)
	}
	for e, n := range begun {
		if n < 2 {
			t.Errorf("engine %s got %d connections, of %d steps", e, n, steps)
		}
	}
	q.fails(1, []string{"//:bad: the command failed with exit code 3"}, "//:bad", "--builder", "tcp://"+addr)
	if n := count.n["/bad"]; n != 1 {
		t.Errorf("the failing step was started %d times", n)
	}

	// With none left, that is what it says.
	engines[0].cmd.Process.Kill()
	engines[2].cmd.Process.Kill()
	p.freshCache().fails(1, []string{"the engine at tcp://" + addr, "is it running?"}, "//:s0", "--builder", "tcp://"+addr)
}

// A backend is an engine behind a balancer.
type backend struct {
	addr string
	cmd  *exec.Cmd
}

// balanced starts n engines behind HAProxy at addr, which tells about them at the socket stats.
func balanced(t *testing.T, n int) (addr, stats string, engines []backend) {
	t.Helper()
	dir := shortDir(t)
	addr, stats = freePort(t), filepath.Join(dir, "stats")
	config := fmt.Sprintf("global\n stats socket %s\ndefaults\n mode tcp\n timeout connect 2s\n timeout client 1h\n timeout server 1h\n retries 3\n option redispatch 1\n"+
		"listen engines\n bind %s\n balance roundrobin\n", stats, addr)
	for i := range n {
		at := freePort(t)
		engines = append(engines, backend{"tcp://" + at, engineAt(t, "tcp://"+at)})
		config += fmt.Sprintf(" server e%d %s check inter 500ms\n", i, at)
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	haproxy := "/usr/sbin/haproxy"
	if !isFile(haproxy) {
		haproxy = tool(t, "haproxy")
	}
	serve(t, addr, exec.Command(haproxy, "-f", file, "-db"))
	return addr, stats, engines
}

// sessions are how many connections each of a balancer's servers ever got, and has now.
func sessions(t *testing.T, socket string) (ever, now map[string]int) {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "show stat\n")
	rows, err := csv.NewReader(c).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	ever, now = map[string]int{}, map[string]int{}
	for _, row := range rows[1:] {
		if strings.HasPrefix(row[1], "e") {
			now[row[1]], _ = strconv.Atoi(row[4])  // scur
			ever[row[1]], _ = strconv.Atoi(row[7]) // stot
		}
	}
	return ever, now
}
