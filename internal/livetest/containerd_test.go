//go:build live

package livetest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A runtime is Debian's containerd, with a state of its own.
type runtime struct {
	t      *testing.T
	socket string
}

// containerd starts one until the test ends.
func containerd(t *testing.T) *runtime {
	t.Helper()
	dir, metrics := shortDir(t), freePort(t)
	r := &runtime{t, filepath.Join(dir, "sock")}
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[metrics]\naddress = %q\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "state"), r.socket, metrics)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, metrics, exec.Command(tool(t, "containerd"), "--config", config))
	return r
}

// ctr is one of its commands, not yet started.
func (r *runtime) ctr(args ...string) *exec.Cmd {
	r.t.Helper()
	return exec.Command(tool(r.t, "ctr"), append([]string{"--address", r.socket}, args...)...)
}

func (r *runtime) ok(args ...string) string {
	r.t.Helper()
	out, err := r.ctr(args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// pull pulls and unpacks an image, and checks that it is the one with that digest, and that there is a snapshot for each of its layers.
func (r *runtime) pull(ref, digest string, layers int) {
	r.t.Helper()
	r.ok("images", "pull", "--plain-http", "--snapshotter", "overlayfs", ref)
	if got := r.ok("images", "list", "name=="+ref); !strings.Contains(got, digest) {
		r.t.Errorf("pulled\n%s, want %s", got, digest)
	}
	var manifest struct{ Config struct{ Digest string } }
	if err := json.Unmarshal([]byte(r.ok("content", "get", digest)), &manifest); err != nil {
		r.t.Fatal(err)
	}
	var config struct {
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal([]byte(r.ok("content", "get", manifest.Config.Digest)), &config); err != nil {
		r.t.Fatal(err)
	}
	if got := len(config.Rootfs.DiffIDs); got != layers {
		r.t.Errorf("%d layers, want %d", got, layers)
	}
	parents := map[string]string{}
	for _, line := range lines(r.ok("snapshots", "--snapshotter", "overlayfs", "list"))[1:] {
		if f := strings.Fields(line); len(f) == 2 {
			parents[f[0]] = ""
		} else if len(f) == 3 {
			parents[f[0]] = f[1]
		}
	}
	depth := map[string]int{}
	var walk func(key string) int
	walk = func(key string) int {
		if key == "" {
			return 0
		}
		if depth[key] == 0 {
			depth[key] = 1 + walk(parents[key])
		}
		return depth[key]
	}
	most := 0
	for key := range parents {
		most = max(most, walk(key))
	}
	if most < layers {
		r.t.Errorf("the longest chain of snapshots has %d, want one for each of %d layers", most, layers)
	}
}

// run runs a command in a container of an image, and returns what it printed.
func (r *runtime) run(ref string, args ...string) string {
	r.t.Helper()
	return r.ok(append([]string{"run", "--rm", "--snapshotter", "overlayfs", ref, "once"}, args...)...)
}

// testContainerd has containerd pull, unpack and run the wiki: as it was built, and on bases, where something was deleted since.
func testContainerd(t *testing.T, p *place) {
	reg := registry(t)
	was := p.read("WORKSPACE")
	p.write("WORKSPACE", was+fmt.Sprintf("\nregistry(repository = %q)\n", reg.addr+"/mw/{target}"))
	defer p.write("WORKSPACE", was)
	published := func(tag string) (ref, digest string) {
		out := p.publish("//site:wiki", "--tag", tag)
		return out.Images[0].Repository + ":" + tag, out.Images[0].Digest
	}
	r := containerd(t)
	ref, digest := published("v1")
	r.pull(ref, digest, len(p.layers(t, "//site:wiki")))
	// crane's validator reads every layer, if it is gzip.
	layout, zipped := filepath.Join(shortDir(t), "layout"), reg.addr+"/mw/zipped:v1"
	p.ok("//site:wiki", "-o", "type=oci,compression=gzip,dest="+layout)
	command(t, "", tool(t, "crane"), "push", layout, zipped)
	command(t, "", tool(t, "crane"), "validate", "--remote", zipped)
	command(t, "", tool(t, "crane"), "validate", "--fast", "--remote", ref)

	// The server, as the image's own user, on a database of its own.
	server := r.ctr("run", "--rm", "--net-host", "--snapshotter", "overlayfs", ref, "wiki", "/bin/sh", "/etc/mwbuild/serve-test")
	var log lockedBuffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	stop := func() {
		r.ctr("tasks", "kill", "--signal", "SIGTERM", "wiki").Run()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			r.ctr("tasks", "kill", "--all", "--signal", "SIGKILL", "wiki").Run()
			<-ended
		}
	}
	defer func() { stop() }()
	page := func(query string) string {
		res, err := http.Get("http://127.0.0.1:8080/index.php?" + query)
		if err != nil {
			return ""
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return string(b)
	}
	until(t, 3*time.Minute, "the wiki's main page", func() bool {
		if len(ended) > 0 {
			t.Fatalf("it ended:\n%s", log.String())
		}
		return strings.Contains(page("title=Main_Page"), "MediaWiki has been installed")
	})
	for query, want := range map[string]string{
		"title=Main_Page&uselang=de": "Hauptseite", "title=Special:Version": "Scribunto", "title=Special:Version&uselang=ar&useskin=timeless": `dir="rtl"`,
	} {
		if got := page(query); !strings.Contains(got, want) {
			t.Errorf("%s lacks %q: %.500s", query, want, got)
		}
	}
	stop()
	stop = func() {}
	if got := strings.TrimSpace(r.run(ref, "id", "-u")); got == "0" || got == "" {
		t.Errorf("it runs as user %q", got)
	}

	// On bases, with a line more and a file and a folder less.
	p.ok("layers", "plan", "//site:wiki")
	defer os.Remove(filepath.Join(p.dir, "layers.lock"))
	cite, gone, folder := "extensions/Cite/src/Cite.php", "skins/MonoBook/resources/mobile-echo.js", "extensions/Math/src"
	kept, away := p.read(cite), shortDir(t)
	p.write(cite, kept+"// one line\n")
	for _, name := range []string{gone, folder} {
		if err := os.Rename(filepath.Join(p.dir, name), filepath.Join(away, filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
		defer os.Rename(filepath.Join(away, filepath.Base(name)), filepath.Join(p.dir, name))
	}
	defer p.write(cite, kept)
	ref, digest = published("v2")
	r.pull(ref, digest, len(p.layers(t, "//site:wiki")))
	got := r.run(ref, "/bin/sh", "-c", "tail -n 1 "+cite+"; for f in "+gone+" "+folder+" extensions/Math/extension.json skins/MonoBook/i18n/en.json; do [ -e $f ] && echo $f; done; true")
	if want := "// one line\nextensions/Math/extension.json\nskins/MonoBook/i18n/en.json"; strings.TrimSpace(strings.ReplaceAll(got, "\r", "")) != want {
		t.Errorf("the container has\n%s\nwant\n%s", got, want)
	}
	command(t, "", tool(t, "crane"), "validate", "--fast", "--remote", ref)
	if left := lines(r.ok("containers", "list", "--quiet")); len(left) > 0 {
		t.Errorf("containers are left: %q", left)
	}
}
