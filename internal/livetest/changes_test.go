//go:build live

package livetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// list prints what is in a root, without what an engine mounts there: kind, mode, owner and what it holds; of new files the
// number of links too, which a file of a layer below may lose.
const list = `
list() {
	find / -xdev | sort | while read -r f; do
		case $f in /list|/proc*|/sys*|/dev*|/run*|/tmp*|/src*|/out*|/etc/hosts|/etc/resolv.conf) continue;; esac
		busybox stat -c '%F %a %u:%g %n' "$f"
		if [ -h "$f" ]; then busybox readlink "$f"; elif [ -f "$f" ]; then busybox sha256sum < "$f"; fi
		case $f in /srv/new*) busybox stat -c '%h links' "$f";; esac
	done
}
`

const changesWorkspace = `
-- BUILD --
package(default_visibility = ["//visibility:public"])

LIST = """` + list + `"""

image_import(name = "base", BASE)

image_run(
    name = "first",
    base = ":base",
    srcs = ["words.txt"],
    cmd = """
        mkdir -p /srv/old/deep /srv/refilled/d /srv/emptied /srv/becomes-file/d /usr/share /var/lib
        echo 1 > /srv/old/deep/f; echo 2 > /srv/old/g; echo 3 > /srv/refilled/a; echo 4 > /srv/refilled/d/b; echo 5 > /srv/emptied/x
        echo 6 > /srv/becomes-file/d/e; echo 7 > /srv/edited; echo 8 > /srv/gone; echo 9 > /srv/moded; echo 10 > /srv/becomes-dir
        cat words.txt > /srv/words; echo 11 > /srv/linked; ln -s words /srv/pointer; echo 12 > /srv/touched; echo 13 > /srv/moved
        busybox touch -d 1970-01-02 /srv/touched; echo 14 > /srv/pair; ln /srv/pair /srv/pair2
    """,
)

image_run(
    name = "second",
    base = ":first",
    cmd = LIST + """
        busybox rm -r /srv/old /srv/gone /srv/emptied/x /srv/becomes-file /srv/becomes-dir
        echo file > /srv/becomes-file; mkdir /srv/becomes-dir; echo in > /srv/becomes-dir/f
        busybox rm -r /srv/refilled; mkdir -p /srv/refilled/d; echo new > /srv/refilled/d/c
        echo more >> /srv/edited; busybox chmod 4755 /srv/moded; busybox chown 7:8 /srv/moded; busybox chmod 4755 /srv/moded
        ln -sfn linked /srv/pointer; busybox mv /srv/moved /srv/moved-away; busybox mkfifo /srv/fifo
        busybox chmod 700 /var/lib; busybox mkdir -m 1777 /srv/sticky; echo x > /srv/coming; busybox rm /srv/coming; busybox chmod u+s /bin/busybox
        echo y > /srv/.hidden; mkdir -p /root/.config; echo $HOME > /root/.config/home; echo 16 > /srv/new; ln /srv/new /srv/new-too; echo z > /tmp/t; echo z > /run/r
        id -u > /srv/who
        list > /list
    """,
)

# A file of a layer below parts from its other names on overlayfs, when it is written or linked.
image_run(name = "links", base = ":second", cmd = "ln /srv/linked /srv/linked-too; echo 15 > /srv/pair")

image_run(
    name = "capable",
    base = ":first",
    srcs = ["capability"],
    cmd = "cat capability > /srv/c; busybox chmod 755 /srv/c; cat /bin/busybox > /srv/ping; /srv/c set /srv/ping; busybox rm /srv/c",
)

image(name = "capable-too", base = ":capable", layers = [":words"])

layer(name = "words", srcs = ["words.txt"], prefix = "w")

genrule(
    name = "capability-seen",
    outs = ["capabilities"],
    srcs = ["capability"],
    cmd = "cat capability > /out/c; busybox chmod 755 /out/c; /out/c get /srv/ping > $OUT; busybox rm /out/c",
    image = ":capable-too",
)

image_run(name = "nothing", base = ":second", cmd = "true")

image_run(name = "as-user", base = ":second", run_as = "65534:65534", cmd = "echo mine > /srv/sticky/f; echo $HOME >> /srv/sticky/f; busybox touch -d '1970-01-01 12:00:00' /srv/sticky/noon", env = {"SOURCE_DATE_EPOCH": "86400"})

genrule(
    name = "seen",
    outs = ["saw", "sees"],
    cmd = LIST + "list > /out/sees; cat /list > /out/saw; cat /srv/sticky/f >> /out/saw || true; ls -A /proc/1 > /dev/null",
    image = ":nothing",
)

genrule(name = "user-seen", outs = ["f"], cmd = "cat /srv/sticky/f > $OUT; busybox stat -c '%u:%g %Y' /srv/sticky/f /srv/sticky/noon /bin/busybox >> $OUT", image = ":as-user")

image_run(
    name = "given",
    base = ":first",
    secrets = {"token": "/run/secrets/token"},
    caches = {"/var/cache/kept": "live-changes"},
    srcs = ["words.txt"],
    timeout = "5m",
    cmd = "cat /run/secrets/token words.txt > /srv/sum; echo c > /var/cache/kept/f; echo $PWD >> /srv/sum",
    tags = ["manual"],
)

layer(name = "on-top", srcs = [":seen", ":user-seen", ":capability-seen"])

image(name = "all", base = ":as-user", layers = [":on-top"])

image(name = "scratch", layers = [":on-top"])
-- words.txt --
some words
`

// capability is a static program that gives a file the right to bind small ports, or tells what capabilities it has.
var capability = once(func(dir string) (string, error) {
	const source = `package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	const name = "security.capability"
	value := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	var err error
	if os.Args[1] == "set" {
		err = syscall.Setxattr(os.Args[2], name, value, 0)
	} else {
		got := make([]byte, 100)
		var n int
		n, err = syscall.Getxattr(os.Args[2], name, got)
		fmt.Printf("%x\n", got[:max(n, 0)])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
`
	file, out := filepath.Join(dir, "main.go"), filepath.Join(dir, "capability")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", out, file)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	return string(b), err
})

// What a step changes in its root is one layer, which gives on the base what the step saw in the end; every engine makes the same.
func TestChanges(t *testing.T) {
	t.Parallel()
	p := workspace(t, changesWorkspace)
	p.write("capability", capability(t))
	first := p.build("//...")
	if !first.Engine.Used {
		t.Error("no engine was used")
	}
	p.build("//...").wantActions(t, 0, false)
	out := p.exportDir(t, "//:scratch")
	here := &place{t: t, dir: out}
	if diff := cmp.Diff(here.read("saw"), here.read("sees")); diff != "" {
		t.Errorf("the image (-what the step saw +what is in it):\n%s", diff)
	}
	saw := here.read("saw")
	for _, want := range []string{
		"regular file 4755 7:8 /srv/moded", "regular file 4755 0:0 /bin/busybox", "directory 700 0:0 /var/lib", "directory 1777 0:0 /srv/sticky",
		"symbolic link 777 0:0 /srv/pointer\nlinked\n", "fifo 644 0:0 /srv/fifo", "/srv/refilled/d/c\n", "2 links\nregular file 644 0:0 /srv/new-too\n",
	} {
		if !strings.Contains(saw, want) {
			t.Errorf("the image lacks %q", want)
		}
	}
	for _, no := range []string{"/srv/old", "/srv/gone", "/srv/refilled/a", "/srv/refilled/d/b", "/srv/emptied/x", "/srv/becomes-file/", "/srv/coming"} {
		if strings.Contains(saw, no) {
			t.Errorf("the image has %s", no)
		}
	}
	if got, want := here.read("capabilities"), "0100000200040000000000000000000000000000\n"; got != want {
		t.Errorf("the program has the capabilities %swant %s", got, want)
	}
	if t.Failed() {
		t.Logf("the image:\n%s", saw)
	}
	if got, want := here.read("f"), "mine\n/tmp\n65534:65534 86400\n65534:65534 43200\n0:0 0\n"; !strings.HasPrefix(got, want) {
		t.Errorf("the step of another user saw\n%swant\n%s", got, want)
	}

	if diff := cmp.Diff(first.digests(), p.freshCache().build("//...").digests()); diff != "" {
		t.Errorf("digests (-first +fresh cache):\n%s", diff)
	}
	for _, snapshotter := range []string{"overlayfs", "native"} { // they tell changes in ways of their own
		addr := "unix://" + shortDir(t) + "/s"
		engineAt(t, addr, "--oci-worker-snapshotter="+snapshotter)
		want, got := first.digests(), p.freshCache().build("//...", "--builder", addr).digests()
		if snapshotter == "native" {
			delete(want, "//:links")
			delete(got, "//:links")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("digests (-embedded +buildkitd with %s):\n%s", snapshotter, diff)
		}
	}

	unpacked := p.exportDir(t, "//:second")
	for name, there := range map[string]bool{"srv/gone": false, "srv/old": false, "srv/refilled/a": false, "srv/refilled/d/c": true, "srv/becomes-dir/f": true, "srv/.wh.gone": false} {
		if fileThere(filepath.Join(unpacked, name)) != there {
			t.Errorf("unpacked, the image has %s: %v", name, !there)
		}
	}

	// What is mounted leaves no trace.
	p.write("token", "hush\n")
	tarball := filepath.Join(shortDir(t), "given.tar")
	p.ok("//:given", "--secret", "id=token,src=token", "-o", "type=oci,compression=none,dest="+tarball)
	files := layerFiles(t, tarball)
	if last := files[len(files)-1]; !slices.Contains(files, "srv/sum=hush\nsome words\n/src\n\n") && !slices.Contains(files, "srv/sum=hush\nsome words\n/src\n") {
		t.Errorf("the step that was given things made %q", last)
	}
	for _, f := range files {
		for _, no := range []string{"run/", "src/", "tmp/", "var/cache", "proc/", "etc/"} {
			if strings.HasPrefix(f, no) {
				t.Errorf("the image holds %s", f)
			}
		}
	}

	p.write("BUILD", strings.Replace(p.read("BUILD"), `cmd = "true"`, `cmd = "busybox mknod /dice c 1 9"`, 1))
	says := "//:nothing: dice is a device"
	if host.cred != nil {
		says = "Operation not permitted" // the kernel refuses it already
	}
	p.fails(1, []string{"BUILD:", says}, "//:nothing")
}

// Without root the same changes are kept.
func TestChangesOfOrdinaryUser(t *testing.T) {
	u := ordinaryUser(t, "mwlive-changes", changesWorkspace)
	(&place{t: t, dir: u.dir}).write("capability", capability(t))
	got := u.build("//...")
	if diff := cmp.Diff(newPlace(t, u.dir).build("//...").digests(), got.digests()); diff != "" {
		t.Errorf("digests (-root +ordinary user):\n%s", diff)
	}
}
