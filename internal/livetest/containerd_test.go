//go:build live

package livetest

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/image-spec/identity"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// A daemon is Debian's containerd, with an overlayfs snapshotter and all that it keeps in a folder of its own.
type daemon struct {
	t   *testing.T
	dir string
}

// startContainerd starts one until the test ends. It is the first process of a namespace: its shims and their containers end with it, and it
// with this process, even if that is killed; what they mounted goes with the last of them. It has a /run/containerd of its own, where shims and
// runc keep theirs, and its containers have no cgroups, so nothing is left on the machine but an empty folder.
func startContainerd(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{t, shortDir(t)}
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		d.path("root"), d.path("state"), d.path("sock"))
	if err := os.WriteFile(d.path("config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Remove("/run/containerd") // if no other containerd has anything in it
		var left map[int]string
		var mounts string
		if !eventually(5*time.Second, func() bool {
			left, mounts = processes(d.dir), string(must(os.ReadFile("/proc/self/mountinfo")))
			return len(left) == 0 && !strings.Contains(mounts, d.dir)
		}) {
			t.Errorf("containerd left behind: %v\n%s", left, mounts)
		}
	})
	cmd := exec.Command("/bin/sh", "-euc", `mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /run/containerd
mount -t tmpfs tmpfs /run/containerd
exec "$0" --config "$1"`, tool(t, "containerd"), d.path("config.toml"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	serve(t, d.path("sock"), cmd)
	return d
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

// ctr is one of its commands, not yet started; it ends with the test.
func (d *daemon) ctr(args ...string) *exec.Cmd {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), tool(d.t, "ctr"), append([]string{"--address", d.path("sock")}, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERD_SNAPSHOTTER=overlayfs")
	cmd.WaitDelay = time.Second
	return cmd
}

// ok is one that must succeed, and what it prints.
func (d *daemon) ok(args ...string) string {
	d.t.Helper()
	cmd := d.ctr(args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		d.t.Fatalf("ctr %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// runArgs are those of `ctr run` but for the command: with a read-only root, /tmp to write to, and the network of this machine.
func (d *daemon) runArgs(ref, id string, flags ...string) []string {
	args := []string{"run", "--rm", "--cgroup", "", "--fifo-dir", d.path("fifo"), "--net-host", "--read-only",
		"--mount", "type=tmpfs,src=tmpfs,dst=/tmp,options=nosuid:nodev:noexec:mode=1777"}
	return append(append(args, flags...), ref, id)
}

// run runs a command in a container of an image, as the image's user, and returns what it prints.
func (d *daemon) run(ref string, command ...string) string {
	d.t.Helper()
	return d.ok(append(d.runArgs(ref, "once"), command...)...)
}

// read parses a blob that containerd has.
func (d *daemon) read(digest string, to any) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.ok("content", "get", digest)), to); err != nil {
		d.t.Fatal(err)
	}
}

// A pulledImage is what containerd has of one.
type pulledImage struct {
	ref      string
	manifest ocispecs.Manifest
	config   ocispecs.Image
}

// blobs are the digests of the configuration and the layers.
func (p *pulledImage) blobs() (all []string) {
	for _, desc := range append(p.manifest.Layers, p.manifest.Config) {
		all = append(all, desc.Digest.String())
	}
	return all
}

// pull pulls an image by its tag and unpacks it. The tag must mean digest, whose layers these are, and each of them must be a snapshot on the
// one below it, all of which a container has for its root.
func (d *daemon) pull(ref, digest string, layers []string) *pulledImage {
	t := d.t
	t.Helper()
	d.ok("images", "pull", "--plain-http", ref)
	if f := strings.Fields(lines(d.ok("images", "list", "name=="+ref))[1]); f[0] != ref || f[2] != digest {
		t.Errorf("containerd pulled %q, want %s", f, digest)
	}
	p := &pulledImage{ref: ref}
	d.read(digest, &p.manifest)
	d.read(p.manifest.Config.Digest.String(), &p.config)
	if got := p.blobs()[:len(p.manifest.Layers)]; !slices.Equal(got, layers) || len(p.config.RootFS.DiffIDs) != len(layers) {
		t.Fatalf("containerd has the layers\n%q, want\n%q", got, layers)
	}
	snapshots := map[string]string{} // "parent kind" by key
	for _, line := range lines(d.ok("snapshots", "list"))[1:] {
		f := strings.Fields(line)
		snapshots[f[0]] = strings.Join(f[1:], " ")
	}
	parent := ""
	for i, chain := range identity.ChainIDs(slices.Clone(p.config.RootFS.DiffIDs)) {
		if got, want := snapshots[chain.String()], strings.TrimSpace(parent+" Committed"); got != want {
			t.Errorf("layer %d has the snapshot %q, want %q", i, got, want)
		}
		parent = chain.String()
	}
	root := ""
	for _, line := range lines(d.run(ref, "cat", "/proc/self/mountinfo")) {
		if f := strings.Fields(line); f[4] == "/" {
			root = line
		}
	}
	if _, lower, _ := strings.Cut(root, "lowerdir="); strings.Count(lower, ":")+1 != len(layers) || !strings.Contains(root, " - overlay ") {
		t.Errorf("the container's root is not of %d layers: %s", len(layers), root)
	}
	if got := strings.TrimSpace(d.run(ref, "sh", "-c", "echo $(id -u):$(id -g)")); got != p.config.Config.User || strings.HasPrefix(got, "0:") {
		t.Errorf("a container runs as %s, the image says %s", got, p.config.Config.User)
	}
	return p
}

// files tells of each file in a container what it is and what it holds.
func (d *daemon) files(ref string) map[string]string {
	d.t.Helper()
	all := map[string]string{}
	script := `find /srv /usr -xdev -printf '%p\t%y %m %U:%G %l\n'; find /srv /usr -xdev -type f -exec sha256sum {} +`
	for _, line := range lines(d.run(ref, "sh", "-euc", script)) {
		if name, info, ok := strings.Cut(line, "\t"); ok {
			all[name] = info
		} else {
			sum, name, _ := strings.Cut(line, "  ")
			all[name] += sum
		}
	}
	return all
}

// A database is one for a wiki that containers serve, and the settings with which they find it.
type database struct {
	flags   []string // of ctr run
	address string
}

func (d *daemon) newDatabase(p *pulledImage, port string) *database {
	t, dir := d.t, shortDir(d.t)
	t.Helper()
	db := &database{address: "http://127.0.0.1:" + port}
	settings := fmt.Sprintf("<?php\n$wgServer = %q;\n$wgScriptPath = '';\n$wgSitename = 'test';\n$wgDBtype = 'sqlite';\n$wgDBname = 'wiki';\n"+
		"$wgSQLiteDataDir = '/data/sqlite';\n$wgSecretKey = $wgUpgradeKey = 'of a test';\n$wgTmpDirectory = '/tmp';\n$wgShowExceptionDetails = true;\n$wgPhpCli = false;\n", db.address)
	for _, folder := range []string{"data", "settings"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	uid, gid, _ := strings.Cut(p.config.Config.User, ":")
	err := errors.Join(os.WriteFile(filepath.Join(dir, "settings/settings.php"), []byte(settings), 0o644),
		os.Chown(filepath.Join(dir, "data"), must(strconv.Atoi(uid)), must(strconv.Atoi(gid))))
	if err != nil {
		t.Fatal(err)
	}
	db.flags = []string{"--env", "MEDIAWIKI_SETTINGS=/run/mwbuild/settings.php",
		"--mount", "type=bind,src=" + filepath.Join(dir, "data") + ",dst=/data,options=rbind:rw",
		"--mount", "type=bind,src=" + filepath.Join(dir, "settings") + ",dst=/run/mwbuild,options=rbind:ro"}
	d.ok(append(d.runArgs(p.ref, "setup", db.flags...), "/bin/sh", "/etc/mwbuild/setup-wiki", p.config.Config.WorkingDir, "/data", "one", "test", db.address, "the password of a test")...)
	return db
}

// serve runs what the image says that it runs, while ask asks it.
func (d *daemon) serve(p *pulledImage, db *database, ask func(*runningWiki)) {
	t := d.t
	t.Helper()
	server := d.ctr(d.runArgs(p.ref, "wiki", db.flags...)...)
	var log lockedBuffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	until(t, time.Minute, "the wiki answers", func() bool {
		if len(ended) > 0 {
			t.Fatalf("it ended: %v\n%s", <-ended, log.String())
		}
		c, err := net.Dial("tcp", strings.TrimPrefix(db.address, "http://"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	ask(&runningWiki{t: t, address: db.address, client: http.DefaultClient})
	if found := phpComplains(log.String()); len(found) > 0 {
		t.Errorf("PHP complains: %q", found)
	}
	d.ok("tasks", "kill", "wiki") // with the signal that the image says
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the wiki ended: %v\n%s", err, log.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("the wiki does not end\n%s", log.String())
	}
}

// containerd pulls, unpacks and runs the wiki with all its layers: as it is built from nothing, and on bases that layers.lock names, of which
// something changed and something is gone. There whiteouts have to delete what they mean to, and nothing else.
func TestContainerd(t *testing.T) {
	p, reg, d := copyMediaWiki(t), registry(t), startContainerd(t)
	p.addSite()
	_, port, _ := net.SplitHostPort(freePort(t))
	p.replace("site/BUILD", `php_version = "8.2"`, fmt.Sprintf(`php_version = "8.2", port = %q`, port))
	p.write("WORKSPACE", p.read("WORKSPACE")+fmt.Sprintf("registry(repository = %q)\n", reg.addr+"/mw/{target}"))
	p.ok("lock", "//site:all")
	publish := func(tag string) *pulledImage {
		t.Helper()
		im := p.publish("//site:wiki", "--tag", tag).Images[0]
		return d.pull(im.Repository+":"+tag, im.Digest, p.layers(t, "//site:wiki"))
	}

	whole := publish("whole")
	command(t, "", tool(t, "crane"), "validate", "--fast", "--remote", whole.ref)
	was := d.files(whole.ref)
	db := d.newDatabase(whole, port)
	d.serve(whole, db, func(w *runningWiki) {
		w.wantPage("title=Main_Page", "MediaWiki has been installed", `lang="en"`)
		w.wantPage("title=Special:RecentChanges&uselang=de", `lang="de"`, "Letzte Änderungen")
		w.wantPage("title=Special:Version&uselang=ar&useskin=timeless", `dir="rtl"`, "Scribunto", "1.43.", "8.2.")
	})

	p.ok("layers", "plan", "//site:wiki")
	p.ok("publish", "//site:wiki", "--tag", "planned")
	// Files belong to none of the image's users.
	const mediawiki, owner = "/srv/mediawiki/", "65533:65533"
	want := map[string]string{} // what becomes of files, in the container
	remove := func(name string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(p.dir, name)); err != nil {
			t.Fatal(err)
		}
		n := 0
		for file := range was {
			if file == mediawiki+name || strings.HasPrefix(file, mediawiki+name+"/") {
				want[file], n = "", n+1
			}
		}
		if n == 0 {
			t.Fatalf("there was no %s", name)
		}
	}
	write := func(name, text string) {
		p.write(name, text)
		want[mediawiki+name] = fmt.Sprintf("f 644 %s %x", owner, sha256.Sum256([]byte(text)))
	}
	edit := func(name, from, to string) {
		t.Helper()
		p.replace(name, from, to)
		write(name, p.read(name))
	}
	edit("extensions/Cite/extension.json", `"name": "Cite"`, `"name": "Cite at work"`)
	edit("languages/i18n/de.json", `"recentchanges": "Letzte Änderungen"`, `"recentchanges": "In Containern geändert"`)
	for _, l := range []string{"de", "de-at", "de-formal"} { // those without a word of their own for it
		want[mediawiki+"cache/l10n/l10n_cache-"+l+".cdb"] = "compiled"
	}
	remove("skins/README") // core has nothing else in this folder, in which the skins lie
	remove("skins/MonoBook/resources/mobile-echo.js")
	remove("extensions/WikiEditor/modules/images")
	remove("extensions/VisualEditor/images")
	write("extensions/VisualEditor/images", "a file now\n")
	remove("extensions/CodeEditor/modules/ace.less")
	want[mediawiki+"extensions/CodeEditor/modules/ace.less"] = "d 755 " + owner + " "
	write("extensions/CodeEditor/modules/ace.less/inside", "a folder now\n")

	reg.requests()
	changed := publish("changed")
	if got := count(reg.requests(), `^GET /v2/.*/blobs/.* 200$`); got != 3 || len(changed.blobs()) != len(whole.blobs())+2 {
		t.Errorf("containerd fetched %d blobs for an image of %d, want 3 for %d: a configuration and two layers", got, len(changed.blobs()), len(whole.blobs())+2)
	}
	got, is := map[string]string{}, d.files(changed.ref)
	for name, info := range is {
		if was[name] != info {
			got[name] = info
			if want[name] == "compiled" {
				want[name] = info
			}
		}
	}
	for name := range was {
		if _, ok := is[name]; !ok {
			got[name] = ""
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what differs in the container (-want +got):\n%s", diff)
	}
	d.serve(changed, db, func(w *runningWiki) {
		w.wantPage("title=Special:Version", "Cite at work")
		w.wantPage("title=Special:RecentChanges&uselang=de", "In Containern geändert")
	})

	// crane's validator reads every layer, if it is gzip.
	layout := filepath.Join(shortDir(t), "layout")
	p.ok("//site:wiki", "-o", "type=oci,compression=gzip,dest="+layout)
	command(t, "", tool(t, "crane"), "push", layout, reg.addr+"/mw/gzip:changed")
	command(t, "", tool(t, "crane"), "validate", "--remote", reg.addr+"/mw/gzip:changed")
}
