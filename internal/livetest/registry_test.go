//go:build live

package livetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A running is a registry: distribution's, which logs every request.
type running struct {
	t    testing.TB
	addr string
	log  *lockedBuffer
	read int // of the log
}

// registry starts one with an empty folder.
func registry(t testing.TB) *running {
	t.Helper()
	dir, addr := shortDir(t), freePort(t)
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), addr)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool(t, "registry"), "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	return &running{t: t, addr: addr, log: serve(t, addr, cmd)}
}

// requests are those since it was asked last: "PUT /v2/…" and status.
func (r *running) requests() (all []string) {
	r.t.Helper()
	time.Sleep(50 * time.Millisecond) // a request is logged after it was answered
	text := r.log.String()
	for _, m := range requestLine.FindAllStringSubmatch(text[r.read:], -1) {
		all = append(all, m[1]+" "+m[2])
	}
	r.read = len(text)
	return all
}

var requestLine = regexp.MustCompile(`"([A-Z]+ [^" ]+) HTTP/[0-9.]+" ([0-9]+)`)

func count(requests []string, expr string) (n int) {
	re := regexp.MustCompile(expr)
	for _, r := range requests {
		if re.MatchString(r) {
			n++
		}
	}
	return n
}

const uploaded = `^PUT /v2/.*/blobs/uploads/.* 201$`

// uploads counts the blobs that it got since it was asked last.
func (r *running) uploads() int { return count(r.requests(), uploaded) }

// A base in a registry is composed with by descriptor: its layers are neither downloaded nor uploaded.
func TestRemoteBase(t *testing.T) {
	t.Parallel()
	reg := registry(t)
	bases := workspace(t, `
-- BUILD --
image_import(name = "busybox", BASE)
layer(name = "more", srcs = ["more.txt"], prefix = "etc")
mw_image(name = "base", base = ":busybox", layers = [":more"], env = {"FROM": "base"})
-- more.txt --
more
`)
	digest := bases.build("//:base").digest(t, "//:base")
	bases.ok("//:base", "--push", reg.addr+"/bases/busybox:1")
	bases.ok("//:base", "--push", reg.addr+"/bases/busybox:1").want(t, 0, ": 0 blobs uploaded, 0 mounted, 3 there")
	reg.requests()

	p := workspace(t, fmt.Sprintf(`
-- BUILD --
image_import(name = "base", registry = %q, digest = %q)
layer(name = "files", srcs = ["a.txt"], prefix = "data")
mw_image(name = "image", base = ":base", layers = [":files"])
genrule(name = "step", outs = ["env"], cmd = "echo $FROM > $OUT; cat /etc/more.txt >> $OUT", image = ":base")
-- a.txt --
a
`, reg.addr+"/bases/busybox", digest))
	built := p.build("//:image")
	built.wantActions(t, 3, false)
	target := reg.addr + "/wikis/wiki"
	p.ok("//:image", "--push", target+":1").want(t, 0, ": 2 blobs uploaded, 2 mounted, 0 there")
	requests := reg.requests()
	// The one blob that is read is the base's configuration.
	if n := count(requests, `^GET /v2/bases/busybox/blobs/`); n != 1 {
		t.Errorf("%d blobs of the base were downloaded, want its configuration alone:\n%s", n, strings.Join(requests, "\n"))
	}
	if up, mounted := count(requests, uploaded), count(requests, `^POST /v2/wikis/wiki/blobs/uploads/\?.*mount=.* 201$`); up != 2 || mounted != 2 {
		t.Errorf("%d blobs were uploaded and %d mounted, want 2 and 2:\n%s", up, mounted, strings.Join(requests, "\n"))
	}
	command(t, "", tool(t, "crane"), "validate", "--fast", "--remote", target+"@"+built.digest(t, "//:image"))

	// A step needs them, an export too.
	tarball := filepath.Join(shortDir(t), "env.tar")
	p.ok("//:step", "-o", "type=oci,compression=none,dest="+tarball)
	if got := strings.Join(layerFiles(t, tarball), ""); got != "env=base\nmore\n" {
		t.Errorf("the step made %q", got)
	}
	p.freshCache().ok("//:image", "-o", "type=oci,dest="+filepath.Join(shortDir(t), "layout"))
}
