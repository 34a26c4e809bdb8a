//go:build live

package livetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// servedWorkspace has bases of Debian packages, the servers on them, and a site. What stands between @ is filled in.
const servedWorkspace = `
-- WORKSPACE --
workspace(name = "served")
image_defaults(user = "900:900")
-- BUILD --
debian_image(
    name = "debian",
    suite = "@SUITE@",
    packages = ["php@PHP@-fpm", "php@PHP@-intl", "php@PHP@-sqlite3", "@PACKAGE@"],
    slim = @SLIM@,
    mirrors = [],
)
php_fpm_image(name = "php", base = ":debian", php_version = "@PHP@", listen = "127.0.0.1:@FPM@", ini = {"memory_limit": "77M"}, pool = {"pm.max_children": "2"})
httpd_image(name = "httpd", base = ":debian", server = "@SERVER@", port = "@HTTP@", fastcgi = "127.0.0.1:@FPM@", article_path = "/wiki/")
layer(name = "site", srcs = ["index.php", "hello.txt", "includes/secret.txt"], prefix = "srv/mediawiki")
image(name = "app", base = ":php", layers = [":site"])
image(name = "web", base = ":httpd", layers = [":site"])
-- index.php --
<?php
header( 'X-Served: yes' );
echo 'PHP ', PHP_VERSION, ' as ', posix_getuid(), ' memory ', ini_get( 'memory_limit' ), ' ', extension_loaded( 'intl' ) ? 'intl' : '', ' ',
	$_SERVER['REQUEST_URI'], ' ', isset( opcache_get_status( false )['opcache_enabled'] ) ? 'opcache' : '', ' ',
	( new PDO( 'sqlite::memory:' ) )->query( 'select 6*7' )->fetchColumn(), ' ', (int)is_writable( __DIR__ ), "\n";
echo $_GET['none'] ?? '';
trigger_error( 'a warning for the log', E_USER_WARNING );
-- hello.txt --
hello
-- includes/secret.txt --
nobody is to see this
`

func debianPlace(t *testing.T, suite, php, server string, slim bool) (p *place, port string) {
	t.Helper()
	port = "19017" // not any free ones: they are in the images, and so in their digests
	pkg := map[string]string{"nginx": "nginx-light", "apache": "apache2"}[server]
	text := strings.NewReplacer("@SUITE@", suite, "@PHP@", php, "@SERVER@", server, "@PACKAGE@", pkg, "@FPM@", "19018", "@HTTP@", port,
		"@SLIM@", map[bool]string{true: "True", false: "False"}[slim]).Replace(servedWorkspace)
	p = newPlace(t, shortDir(t))
	for _, f := range txtar.Parse([]byte(text)).Files {
		p.write(f.Name, string(f.Data))
	}
	return p, port
}

// A lockedPackage is one as a lock has it.
type lockedPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`
	Path    string `json:"path"`
}

func (p *place) locked(file string) map[string]lockedPackage {
	p.t.Helper()
	var lock struct{ Packages []lockedPackage }
	if err := json.Unmarshal([]byte(p.read(file)), &lock); err != nil {
		p.t.Fatal(err)
	}
	all := map[string]lockedPackage{}
	for _, l := range lock.Packages {
		all[l.Name] = l
	}
	return all
}

// blob is the file of a blob in the store.
func (p *place) blob(sha256 string) string { return filepath.Join(p.cache, "blobs", "sha256", sha256) }

// Bookworm, from Debian's own archives: the same lock gives the same image, whatever happens to the network and to the store, and a new
// version of a package changes what it must and nothing else.
func TestDebianImage(t *testing.T) {
	p, port := debianPlace(t, "bookworm", "8.2", "nginx", true)
	p.ok("lock")
	if r := p.ok("lock", "--check"); r.stdout != "" {
		t.Errorf("the lock would change at once: %s", r.stdout)
	}
	first := p.build("//...")
	want := first.digests()

	t.Run("bill of materials", func(t *testing.T) {
		doc := p.sbom("//:app")
		lock := p.locked("debian.lock.json")
		if got := purls(doc, "pkg:deb/debian/"); len(got) != len(lock) {
			t.Errorf("%d packages of Debian, and the lock has %d: %q", len(got), len(lock), got)
		}
		for _, is := range doc.Packages {
			if l, ok := lock[is.PackageName]; ok && (l.Version != is.PackageVersion || len(is.PackageChecksums) != 1 || is.PackageChecksums[0].Value != l.SHA256) {
				t.Errorf("%+v, and the lock has %+v", is, l)
			}
		}
	})

	t.Run("served", func(t *testing.T) { testServer(t, p, port, "8.2") })

	t.Run("equal", func(t *testing.T) {
		other := newPlace(t, shortDir(t))
		copyFolder(t, p.dir, other.dir)
		// What was fetched is there, and nothing else: no record, no layer, and no network either.
		for _, l := range p.locked("debian.lock.json") {
			if err := os.MkdirAll(filepath.Dir(other.blob(l.SHA256)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Link(p.blob(l.SHA256), other.blob(l.SHA256)); err != nil {
				t.Fatal(err)
			}
		}
		other.give([]string{other.cache})
		other.write("BUILD", strings.Replace(other.read("BUILD"), "mirrors = []", `mirrors = ["http://127.0.0.1:9/nothing"]`, 1))
		again := other.build("//...")
		if diff := cmp.Diff(want, again.digests()); diff != "" {
			t.Errorf("in another folder and cache (-want +got):\n%s", diff)
		}
	})

	t.Run("damage", func(t *testing.T) {
		lock := p.locked("debian.lock.json")
		libc := lock["libc6"]
		build := p.read("BUILD")
		nowhere := strings.Replace(build, "mirrors = []", `mirrors = ["http://127.0.0.1:9/nothing", "file:/nowhere"]`, 1)
		forget := func() { // the layer's record and blob
			if err := os.RemoveAll(filepath.Join(p.cache, "badger")); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(p.blob(libc.SHA256))
		if err != nil {
			t.Fatal(err)
		}
		// Missing, and not to be had.
		p.write("BUILD", nowhere)
		forget()
		if err := os.Remove(p.blob(libc.SHA256)); err != nil {
			t.Fatal(err)
		}
		p.fails(1, []string{"BUILD:1:1: //:debian: ", "libc6 " + libc.Version, libc.SHA256, "--cache-dir", "mirrors", "mwbuild lock --upgrade"}, "//:debian")
		// Corrupted, and to be had.
		p.write("BUILD", build)
		bad := bytes.Clone(data)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(p.blob(libc.SHA256), bad, 0o644); err != nil {
			t.Fatal(err)
		}
		again := p.build("//...")
		if diff := cmp.Diff(want, again.digests()); diff != "" {
			t.Errorf("after damage (-want +got):\n%s", diff)
		}
		if now, err := os.ReadFile(p.blob(libc.SHA256)); err != nil || !bytes.Equal(now, data) {
			t.Errorf("the damaged blob is still there: %v", err)
		}
	})

	t.Run("upgrade", func(t *testing.T) {
		before := p.layers(t, "//:debian")
		appBefore := p.layers(t, "//:app")
		lock := p.locked("debian.lock.json")
		old := lock["libargon2-1"]
		// The next version of one package, in an archive of its own.
		r, err := os.ReadFile(p.blob(old.SHA256))
		if err != nil {
			t.Fatal(err)
		}
		version := old.Version + "+live1"
		deb := newVersion(t, r, old.Version, version)
		sum := sha256.Sum256(deb)
		mirror := shortDir(t)
		if err := os.WriteFile(filepath.Join(mirror, "new.deb"), deb, 0o644); err != nil {
			t.Fatal(err)
		}
		text := p.read("debian.lock.json")
		line := regexp.MustCompile(`(?m)^  \{"name":"libargon2-1".*$`).FindString(text)
		line2 := strings.NewReplacer(`"`+old.Version+`"`, `"`+version+`"`, old.SHA256, hex.EncodeToString(sum[:]), fmt.Sprintf(`"size":%d`, old.Size), fmt.Sprintf(`"size":%d`, len(deb)), old.Path, "new.deb").Replace(line)
		text = strings.Replace(text, line, line2, 1)
		// A lock that is written anew has the date of newer lists, too.
		text = regexp.MustCompile(`"epoch": (\d+)`).ReplaceAllStringFunc(text, func(was string) string {
			var epoch int64
			fmt.Sscanf(was, `"epoch": %d`, &epoch)
			return fmt.Sprintf(`"epoch": %d`, epoch+1000)
		})
		p.write("debian.lock.json", text)
		p.write("BUILD", strings.Replace(p.read("BUILD"), "mirrors = []", fmt.Sprintf("mirrors = [%q]", "file:"+mirror), 1))
		rep := p.build("//...")
		after := p.layers(t, "//:debian")
		appAfter := p.layers(t, "//:app")
		differ := 0
		for i := range before {
			if before[i] != after[i] {
				differ++
			}
		}
		if len(before) != len(after) || differ != 2 || before[len(before)-1] == after[len(after)-1] || before[0] != after[0] {
			t.Errorf("of %d layers %d differ:\n%s\n%s", len(before), differ, before, after)
		}
		if n := len(after); !slices.Equal(appBefore[n:], appAfter[n:]) {
			t.Errorf("layers above the base changed:\n%s\n%s", appBefore[n:], appAfter[n:])
		}
		if k := rep.Actions.Kinds["layer"]; k.Executed != 0 {
			t.Errorf("%d layers of files were packed", k.Executed)
		}
		if k := rep.Actions.Kinds["run"]; k.Executed != 1 {
			t.Errorf("%d steps ran, want the one that configures", k.Executed)
		}
	})
}

// Trixie, with what is of priority required and with Apache; and what apt itself would choose.
func TestDebianImageTrixie(t *testing.T) {
	p, port := debianPlace(t, "trixie", "8.4", "apache", false)
	p.ok("lock")
	p.build("//...")
	testServer(t, p, port, "8.4")
}

// The packages are those that apt chooses, version by version, for a machine that has none yet.
func TestLockIsApts(t *testing.T) {
	t.Parallel()
	for suite, packages := range map[string][]string{
		"bookworm": {"php8.2-fpm", "php8.2-intl", "php8.2-mysql", "nginx-light", "ca-certificates", "imagemagick", "git", "python3"},
		"trixie":   {"php8.4-fpm", "php8.4-intl", "apache2", "ca-certificates", "ffmpeg", "nodejs"},
	} {
		p := workspace(t, "-- BUILD --\n"+fmt.Sprintf("debian_image(name = \"debian\", suite = %q, packages = %s)\n", suite, strings.ReplaceAll(fmt.Sprintf("%q", packages), " ", ",")))
		p.ok("lock")
		var got []string
		for _, l := range p.locked("debian.lock.json") {
			got = append(got, l.Name+" "+l.Version)
		}
		slices.Sort(got)
		if diff := cmp.Diff(aptChooses(t, suite, packages), got); diff != "" {
			t.Errorf("%s (-apt +lock):\n%s", suite, diff)
		}
	}
}

// aptChooses asks apt for the same packages, with the archives of this machine's apt but for the name of the release.
func aptChooses(t *testing.T, suite string, packages []string) []string {
	t.Helper()
	dir := shortDir(t)
	sources, err := os.ReadFile("/etc/apt/sources.list.d/debian.sources")
	if err != nil {
		t.Fatal(err)
	}
	codename := regexp.MustCompile(`(?m)^VERSION_CODENAME=(.*)$`).FindStringSubmatch(string(must(os.ReadFile("/etc/os-release"))))[1]
	for name, text := range map[string]string{
		"debian.sources": strings.ReplaceAll(string(sources), codename, suite), "status": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial", "parts"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	apt := func(args ...string) string {
		return command(t, dir, "apt-get", append([]string{
			"-o", "Dir::Etc::SourceList=" + dir + "/debian.sources", "-o", "Dir::Etc::SourceParts=" + dir + "/parts", "-o", "Dir::State::Lists=" + dir + "/lists",
			"-o", "Dir::Cache=" + dir + "/cache", "-o", "Dir::State::status=" + dir + "/status", "-o", "APT::Sandbox::User=root", "-o", "APT::Architecture=amd64",
			"-o", "APT::Install-Recommends=false", "-o", "Acquire::Languages=none",
		}, args...)...)
	}
	apt("-qq", "update")
	out := apt(append([]string{"-s", "install", "?essential", "?priority(required)"}, packages...)...)
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^Inst (\S+) \((\S+) `).FindAllStringSubmatch(out, -1) {
		all = append(all, m[1]+" "+m[2])
	}
	slices.Sort(all)
	return all
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// layers are the digests of a target's layers, lowest first.
func (p *place) layers(t *testing.T, target string) []string {
	t.Helper()
	layout := filepath.Join(shortDir(t), "layout")
	p.ok(target, "-o", "type=oci,dest="+layout)
	return layersIn(t, layout)
}

// layersIn are the digests of the layers of the only image in an OCI layout, lowest first.
func layersIn(t *testing.T, layout string) (digests []string) {
	t.Helper()
	type descriptors []struct{ Digest string }
	read := func(file string, v any) {
		if err := json.Unmarshal(must(os.ReadFile(file)), v); err != nil {
			t.Fatal(err)
		}
	}
	var index struct{ Manifests descriptors }
	var manifest struct{ Layers descriptors }
	read(filepath.Join(layout, "index.json"), &index)
	read(blobIn(layout, index.Manifests[0].Digest), &manifest)
	for _, l := range manifest.Layers {
		digests = append(digests, l.Digest)
	}
	return digests
}

func blobIn(layout, digest string) string {
	return filepath.Join(layout, "blobs", strings.ReplaceAll(digest, ":", "/"))
}

// newVersion is a .deb under another version, with one file more.
func newVersion(t *testing.T, deb []byte, was, is string) []byte {
	t.Helper()
	dir := shortDir(t)
	if err := os.WriteFile(filepath.Join(dir, "old.deb"), deb, 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, dir, "dpkg-deb", "-R", "old.deb", "tree")
	control := filepath.Join(dir, "tree/DEBIAN/control")
	text := string(must(os.ReadFile(control)))
	if !strings.Contains(text, "Version: "+was+"\n") {
		t.Fatalf("no version %s in\n%s", was, text)
	}
	for name, text := range map[string]string{control: strings.Replace(text, "Version: "+was, "Version: "+is, 1), filepath.Join(dir, "tree/usr/share/doc/libargon2-1/live"): "new\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	command(t, dir, "env", "SOURCE_DATE_EPOCH=1700000000", "dpkg-deb", "--root-owner-group", "-b", "tree", "new.deb")
	return must(os.ReadFile(filepath.Join(dir, "new.deb")))
}

// testServer runs the two servers in containers of their images: as their user, with a read-only root and no capabilities.
func testServer(t *testing.T, p *place, port, php string) {
	app, web := unpackImage(t, p, "//:app"), unpackImage(t, p, "//:web")

	// dpkg finds nothing wrong with what it did not install.
	root := filepath.Join(app, "rootfs")
	for _, args := range [][]string{{"--audit"}, {"--verify"}} {
		cmd := exec.Command("chroot", append([]string{root, "/usr/bin/dpkg"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Errorf("dpkg %s: %v\n%s", args[0], err, out)
		}
	}
	lookForToday(t, p)

	logs := map[string]*lockedBuffer{"php-fpm": container(t, app), "httpd": container(t, web)}
	base := "http://127.0.0.1:" + port
	for _, port := range []string{port, regexp.MustCompile(`listen = "127.0.0.1:(\d+)"`).FindStringSubmatch(p.read("BUILD"))[1]} {
		until(t, 20*time.Second, "a server listens at "+port, func() bool {
			c, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	get := func(path string) (int, string, http.Header) {
		res, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode, string(must(io.ReadAll(res.Body))), res.Header
	}
	says := regexp.MustCompile(`^PHP ` + regexp.QuoteMeta(php) + `\.\d+ as 900 memory 77M intl (\S+) opcache 42 0\n`)
	for _, path := range []string{"/index.php?x=1", "/", "/index.php/Main_Page", "/wiki/Main_Page"} {
		code, body, header := get(path)
		m := says.FindStringSubmatch(body)
		if code != 200 || m == nil || m[1] != path || header.Get("X-Served") != "yes" {
			t.Errorf("%s: %d %s", path, code, body)
		}
		if strings.Contains(body, "warning") || header.Get("X-Powered-By") != "" {
			t.Errorf("%s tells too much: %s %v", path, body, header)
		}
	}
	for path, want := range map[string]int{"/hello.txt": 200, "/includes/secret.txt": 403, "/none.txt": 404, "/none.php": 404, "/.git/config": 403} {
		if code, body, _ := get(path); code != want || code == 200 && body != "hello\n" {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
	until(t, 5*time.Second, "PHP's log", func() bool { return strings.Contains(logs["php-fpm"].String(), "a warning for the log") })
	for name, log := range logs {
		if strings.Contains(log.String(), "ermission denied") || strings.Contains(log.String(), "Read-only file system") {
			t.Errorf("%s is hindered:\n%s", name, log)
		}
	}
}

// lookForToday looks for the time of now in what configuring the packages left. The clock of this machine cannot be set for a test.
func lookForToday(t *testing.T, p *place) {
	t.Helper()
	layout := filepath.Join(shortDir(t), "layout")
	p.ok("//:debian", "-o", "type=oci,compression=gzip,dest="+layout)
	digests := layersIn(t, layout)
	f := must(os.Open(blobIn(layout, digests[len(digests)-1])))
	defer f.Close()
	tr := tar.NewReader(must(gzip.NewReader(f)))
	now := time.Now().UTC()
	var today []string
	for _, form := range []string{"2006-01-02", "20060102", "Jan _2 15:", "02 Jan 2006"} {
		today = append(today, now.Format(form))
	}
	seconds := fmt.Sprint(now.Unix())[:6] // of some three hours
	today = append(today, seconds)
	entries := 0
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		entries++
		data := must(io.ReadAll(tr))
		if now.Sub(h.ModTime) < 3*time.Hour {
			t.Errorf("%s is of %v", h.Name, h.ModTime)
		}
		for _, s := range today {
			if bytes.Contains(data, []byte(s)) {
				t.Errorf("%s has %s in it", h.Name, s)
			}
		}
	}
	if entries < 20 {
		t.Errorf("the layer has %d entries", entries)
	}
}

// container starts a bundle's program until the test ends: as its image says, with a read-only root, no capabilities, and /tmp to write to, in the
// network of this machine. It returns what the program prints.
func container(t *testing.T, bundle string) *lockedBuffer {
	t.Helper()
	file := filepath.Join(bundle, "config.json")
	var config map[string]any
	if err := json.Unmarshal(must(os.ReadFile(file)), &config); err != nil {
		t.Fatal(err)
	}
	process := config["process"].(map[string]any)
	process["terminal"], process["noNewPrivileges"] = false, true
	process["capabilities"] = map[string]any{}
	config["root"].(map[string]any)["readonly"] = true
	linux := config["linux"].(map[string]any)
	linux["namespaces"] = slices.DeleteFunc(linux["namespaces"].([]any), func(n any) bool { return n.(map[string]any)["type"] == "network" })
	config["mounts"] = append(slices.DeleteFunc(config["mounts"].([]any), func(m any) bool { return m.(map[string]any)["destination"] == "/sys" }),
		map[string]any{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "nodev", "noexec", "mode=1777"}})
	if user := process["user"].(map[string]any); fmt.Sprint(user["uid"], user["gid"]) != "900 900" {
		t.Errorf("the user is %v", user)
	}
	if err := os.WriteFile(file, must(json.Marshal(config)), 0o644); err != nil {
		t.Fatal(err)
	}
	runc := "/usr/sbin/runc"
	if !isFile(runc) {
		runc = tool(t, "runc")
	}
	state, id := filepath.Join(shortDir(t), "runc"), "live-"+filepath.Base(filepath.Dir(bundle))
	log := &lockedBuffer{}
	cmd := exec.Command(runc, "--root", state, "run", id)
	cmd.Dir, cmd.Stdout, cmd.Stderr = bundle, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(runc, "--root", state, "kill", id, "KILL").CombinedOutput(); err != nil {
			t.Logf("runc kill: %v: %s", err, out)
		}
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", bundle, log)
		}
	})
	return log
}
