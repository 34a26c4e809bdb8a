//go:build live

package livetest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/crypto/bcrypt"
)

// A publication is what publish says as JSON.
type publication struct {
	Images []struct {
		Label, Repository, Digest   string
		Tags, Moved                 []string
		Uploaded, Mounted, Existing int
		Bytes                       int64
		Attestations                []struct {
			Type, Digest string
			Uploaded     bool
		}
	}
	Actions struct{ Total, Executed int }
	Engine  struct{ Used bool }
}

func (p *place) publish(args ...string) publication {
	p.t.Helper()
	var out publication
	r := p.ok(append([]string{"publish", "--output=json"}, args...)...)
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil {
		p.t.Fatalf("%v: %s", err, r.stdout)
	}
	return out
}

// uploaded counts the blobs that were sent.
func (p publication) uploaded() (n int) {
	for _, im := range p.Images {
		n += im.Uploaded
	}
	return n
}

// publishPlace is a workspace of n components, each with an image, and an image of them all, for the registry at addr.
func publishPlace(t *testing.T, n int, addr string) *place {
	p := synthetic(t, n)
	p.write("WORKSPACE", fmt.Sprintf("registry(repository = \"%s/mw/{target}\")\n", addr))
	return p
}

// A registry that asks for a password, over TLS: credentials come from where docker has them.
func TestPublishWithPassword(t *testing.T) {
	t.Parallel()
	dir, certs, addr := shortDir(t), certificates(t), freePort(t)
	hash := must(bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost))
	config := filepath.Join(dir, "config.yml")
	for name, text := range map[string]string{
		filepath.Join(dir, "htpasswd"): "releng:" + string(hash) + "\n",
		config: fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q, tls: {certificate: %q, key: %q}}\nauth: {htpasswd: {realm: test, path: %q}}\n",
			filepath.Join(dir, "data"), addr, filepath.Join(certs, "server.pem"), filepath.Join(certs, "server-key.pem"), filepath.Join(dir, "htpasswd")),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tool(t, "registry"), "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	serve(t, addr, cmd)

	p := publishPlace(t, 3, addr)
	p.fails(1, []string{"//:wiki: push " + addr + "/mw/wiki@sha256:", "certificate"}, "publish", "//:wiki", "--tag=one")
	p.env = append(p.env, "SSL_CERT_FILE="+filepath.Join(certs, "ca.pem"))
	p.fails(1, []string{"//:wiki: push " + addr + "/mw/wiki@sha256:", "401 Unauthorized", "docker login " + addr}, "publish", "//:wiki", "--tag=one")

	docker := filepath.Join(shortDir(t), "docker")
	login := func(text string) {
		t.Helper()
		if err := os.MkdirAll(docker, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(docker, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.env = append(p.env, "DOCKER_CONFIG="+docker)
	login(fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, addr, base64.StdEncoding.EncodeToString([]byte("releng:wrong"))))
	p.fails(1, []string{"401 Unauthorized", "docker login " + addr}, "publish", "//:wiki", "--tag=one")
	login(fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, addr, base64.StdEncoding.EncodeToString([]byte("releng:open sesame"))))
	first := p.publish("//...", "--tag=one")
	if len(first.Images) != 4 || first.uploaded() == 0 {
		t.Errorf("%+v", first)
	}
	// A helper of docker's in place of the file.
	p.programs(map[string]string{"docker-credential-vault": fmt.Sprintf("#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = %s ] && echo '{\"Username\": \"releng\", \"Secret\": \"open sesame\"}'\n", addr)})
	login(fmt.Sprintf(`{"credHelpers": {%q: "vault"}}`, addr))
	if again := p.publish("//...", "--tag=one", "--verify=deep"); again.uploaded() != 0 || again.Actions.Executed != 0 {
		t.Errorf("again: %+v", again)
	}

	// What another client says to it.
	crane := exec.Command(tool(t, "crane"), "validate", "--fast", "--remote", addr+"/mw/wiki:one")
	crane.Env = p.env
	if out, err := crane.CombinedOutput(); err != nil {
		t.Errorf("crane validate: %v: %s", err, out)
	}
}

// A flaky registry is one behind a proxy that fails at random, and notes what came through.
type flaky struct {
	*httptest.Server
	rate   atomic.Int64 // of failures in 1000 requests
	mu     sync.Mutex
	random *rand.Rand
	has    map[string]bool // "repository digest" of blobs
	twice  []string        // those that were sent although they were there
	failed int
}

var uploadPath = regexp.MustCompile(`^/v2/(.+)/blobs/uploads/`)

func newFlaky(t *testing.T, backend string) *flaky {
	to := must(url.Parse(backend))
	proxy := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // where it says that uploads go on
	}}
	f := &flaky{random: rand.New(randomness(t)), has: map[string]bool{}}
	proxy.ModifyResponse = func(resp *http.Response) error {
		m := uploadPath.FindStringSubmatch(resp.Request.URL.Path)
		q := resp.Request.URL.Query()
		digest := q.Get("digest") + q.Get("mount")
		if m == nil || digest == "" || resp.StatusCode != http.StatusCreated {
			return nil
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.has[m[1]+" "+digest] {
			f.twice = append(f.twice, m[1]+" "+digest)
		}
		f.has[m[1]+" "+digest] = true
		return nil
	}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		fails, how := f.random.Int64N(1000) < f.rate.Load(), f.random.IntN(4)
		if fails {
			f.failed++
		}
		f.mu.Unlock()
		if !fails {
			proxy.ServeHTTP(w, r)
			return
		}
		switch how {
		case 0:
			http.Error(w, "out of order", http.StatusInternalServerError)
		case 1:
			w.Header().Set("Retry-After", "0")
			http.Error(w, "slowly", http.StatusTooManyRequests)
		case 2: // the connection ends before anything was done
			panic(http.ErrAbortHandler)
		default: // and after it was
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
	}))
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(f.Close)
	return f
}

// whole tells what is wrong with the tags of a registry: each that is there must mean an image of which everything is there.
func whole(t *testing.T, base string, repositories, tags []string) {
	t.Helper()
	get := func(method, path string) (int, []byte) {
		req := must(http.NewRequestWithContext(context.Background(), method, base+path, nil))
		req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode, must(io.ReadAll(resp.Body))
	}
	for _, r := range repositories {
		for _, tag := range tags {
			status, text := get(http.MethodGet, "/v2/"+r+"/manifests/"+tag)
			if status == http.StatusNotFound {
				continue
			}
			var m struct {
				Config struct{ Digest string }
				Layers []struct{ Digest string }
			}
			if status != http.StatusOK || json.Unmarshal(text, &m) != nil || m.Config.Digest == "" {
				t.Errorf("%s:%s: %d %s", r, tag, status, text)
				continue
			}
			for _, b := range append(m.Layers, m.Config) {
				if status, _ := get(http.MethodHead, "/v2/"+r+"/blobs/"+b.Digest); status != http.StatusOK {
					t.Errorf("%s:%s lacks %s", r, tag, b.Digest)
				}
			}
		}
	}
}

// Whatever happens to the network and to mwbuild, no tag means an image that is not whole, and the next run sends what is missing and nothing else.
// MWBUILD_PUBLISH_ROUNDS says how often: `make live-publish` has 100.
func TestPublishInterrupted(t *testing.T) {
	t.Parallel()
	rounds := 8
	if s := os.Getenv("MWBUILD_PUBLISH_ROUNDS"); s != "" {
		rounds = must(strconv.Atoi(s))
	}
	for name, backend := range map[string]func(t *testing.T) string{
		"distribution": func(t *testing.T) string { return "http://" + registry(t).addr },
		"ggcr": func(t *testing.T) string {
			s := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
			t.Cleanup(s.Close)
			return s.URL
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := backend(t)
			f := newFlaky(t, direct)
			const components = 5
			p := publishPlace(t, components, strings.TrimPrefix(f.URL, "http://"))
			p.write("WORKSPACE", strings.Replace(p.read("WORKSPACE"), "{target}\"", "{target}\", attest = True", 1))
			random := rand.New(randomness(t))
			repositories := []string{"mw/wiki"}
			for i := range components {
				repositories = append(repositories, fmt.Sprintf("mw/extensions-e%03d", i))
			}
			tags := []string{"latest", "a", "b"}
			killed, failed := 0, 0
			for round := range rounds {
				file := fmt.Sprintf("extensions/E%03d/src/Main.php", random.IntN(components))
				p.write(file, p.read(file)+fmt.Sprintf("// %d\n", round))
				tag := tags[1+random.IntN(2)]
				f.rate.Store(int64(20 + random.IntN(200)))
				s := p.start("publish", "//...", "--tag", tag, "--tag=latest")
				if random.IntN(2) == 0 {
					time.AfterFunc(time.Duration(random.IntN(600))*time.Millisecond, func() { s.cmd.Process.Kill() })
				}
				switch code := s.wait().code; {
				case code < 0:
					killed++
				case code != 0:
					failed++
				}
				whole(t, direct, repositories, tags)
				f.rate.Store(0)
				f.mu.Lock()
				f.twice = nil
				f.mu.Unlock()
				done := p.publish("//...", "--tag", tag, "--tag=latest")
				if len(f.twice) > 0 {
					t.Errorf("round %d: sent again: %q", round, f.twice)
				}
				whole(t, direct, repositories, tags)
				for _, im := range done.Images {
					path := "/v2/" + strings.SplitN(im.Repository, "/", 2)[1] + "/manifests/latest"
					req := must(http.NewRequest(http.MethodHead, direct+path, nil))
					req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
					if resp, err := http.DefaultClient.Do(req); err != nil || resp.Header.Get("Docker-Content-Digest") != im.Digest {
						t.Errorf("round %d: %s does not mean %s: %v", round, path, im.Digest, err)
					}
				}
				for _, r := range repositories {
					types := slices.Sorted(maps.Values(referrers(t, strings.TrimPrefix(direct, "http://")+"/"+r+":latest")))
					if !slices.Equal(types, []string{"application/spdx+json", "application/vnd.in-toto+json"}) {
						t.Errorf("round %d: %s:latest has the documents %q", round, r, types)
					}
				}
				if again := p.publish("//...", "--tag", tag, "--tag=latest"); again.uploaded() != 0 || again.Actions.Executed != 0 {
					t.Errorf("round %d, again: %+v", round, again)
				}
				if t.Failed() {
					break
				}
			}
			t.Logf("%d rounds, %d killed, %d failed, %d requests disturbed", rounds, killed, failed, f.failed)
			if f.failed == 0 {
				t.Error("nothing was disturbed")
			}
		})
	}
}
