//go:build live

package livetest

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/crypto/ssh/agent"
)

// An ordinary is a user of the machine who may do nothing special, made for one test, with a workspace.
type ordinary struct {
	t          *testing.T
	name       string
	cred       *syscall.Credential
	home       string // everything of the user's
	dir, cache string
	exe        string
}

// ordinaryUser makes a user, and lays the archive as its workspace. In the archive BASE stands for the busybox base, and
// DEBIAN for the Debian one.
func ordinaryUser(t *testing.T, name, archive string, useradd ...string) *ordinary {
	t.Helper()
	home, err := os.MkdirTemp("", "user")
	if err != nil {
		t.Fatal(err)
	}
	u := &ordinary{t: t, name: name, home: home, dir: filepath.Join(home, "ws"), cache: filepath.Join(home, "cache"), exe: filepath.Join(home, "mwbuild")}
	t.Cleanup(func() { os.RemoveAll(home) })
	command(t, "", "useradd", append(useradd, "--no-create-home", "--home-dir", home, name)...)
	t.Cleanup(func() {
		u.checkClean()
		exec.Command("userdel", name).Run()
	})
	if u.cred, err = credential(name); err != nil {
		t.Fatal(err)
	}
	for text, b := range map[string]func(testing.TB) base{"BASE": busybox, "DEBIAN": debian} {
		if strings.Contains(archive, text) {
			got := b(t)
			own := filepath.Join(home, strings.ToLower(text)+".tar")
			command(t, "", "cp", got.tar, own)
			archive = strings.ReplaceAll(archive, text, fmt.Sprintf("tar = %q, digest = %q", own, got.digest))
		}
	}
	for _, f := range append(txtar.Parse([]byte(archive)).Files, txtar.File{Name: "WORKSPACE", Data: []byte("workspace(name = \"live\")\n")}) {
		path := filepath.Join(u.dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	command(t, "", "cp", binary, u.exe)
	if err := os.Mkdir(filepath.Join(home, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "", "chown", "-R", name+":", home)
	command(t, "", "chmod", "-R", "a+rX", home)
	return u
}

// credential is what makes a process that of a user.
func credential(name string) (*syscall.Credential, error) {
	who, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// cmd is mwbuild as the user, not yet started. The path is that of an ordinary user: without sbin.
func (u *ordinary) cmd(args ...string) (*exec.Cmd, *lockedBuffer, *lockedBuffer) {
	cmd := exec.Command(u.exe, append([]string{"--cache-dir", u.cache}, args...)...)
	cmd.Dir = u.dir
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + u.home, "TMPDIR=" + filepath.Join(u.home, "tmp"), "LC_ALL=C.UTF-8", "USER=" + u.name}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: u.cred}
	out, errout := &lockedBuffer{}, &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, errout
	cmd.WaitDelay = 5 * time.Second
	return cmd, out, errout
}

func (u *ordinary) run(args ...string) result {
	u.t.Helper()
	cmd, out, errout := u.cmd(args...)
	begun := time.Now()
	if err := cmd.Run(); cmd.ProcessState == nil {
		u.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errout.String(), time.Since(begun)}
}

func (u *ordinary) build(args ...string) report {
	u.t.Helper()
	r := u.run(append(args, "--output=json")...)
	if r.code != 0 {
		u.t.Fatalf("mwbuild %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return parseReport(u.t, r.stdout)
}

// mine are the user's processes, those of its subordinate ids that mwbuild started among them.
func (u *ordinary) mine() (pids []int) {
	for pid := range processes("") {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for _, line := range lines(string(status)) {
			var real int
			if _, err := fmt.Sscanf(line, "Uid:\t%d", &real); err != nil {
				continue
			}
			if real == int(u.cred.Uid) || u.subordinate(real) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func (u *ordinary) subordinate(id int) bool {
	b, _ := os.ReadFile("/etc/subuid")
	for _, line := range lines(string(b)) {
		var start, count int
		if rest, ok := strings.CutPrefix(line, u.name+":"); ok {
			fmt.Sscanf(rest, "%d:%d", &start, &count)
			if id >= start && id < start+count {
				return true
			}
		}
	}
	return false
}

func (u *ordinary) checkClean() {
	u.t.Helper()
	var left []string
	if !eventually(5*time.Second, func() bool {
		left = nil
		for _, pid := range u.mine() {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			left = append(left, fmt.Sprintf("process %d: %q", pid, line))
		}
		for _, pattern := range []string{"/tmp/*", "/cache/ingest/*", "/cache/engine/runc-*/executor/*/rootfs"} {
			files, _ := filepath.Glob(u.home + pattern)
			left = append(left, files...)
		}
		return len(left) == 0
	}) {
		u.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// userWorkspace has steps as root, as nobody and as other users, in bases of several owners, and makes all kinds of files.
const userWorkspace = stepWorkspace + `
-- more/BUILD --
image_import(name = "debian", DEBIAN)

genrule(
    name = "debian-step",
    outs = ["sums", "tree"],
    cmd = "stat -c '%u:%g %a' /bin/sh /usr /tmp > /out/sums; id >> /out/sums; mkdir -p /out/tree/a/b; chmod 700 /out/tree/a; ln -s ../x /out/tree/a/l; ln /out/sums /out/tree/hard",
    image = ":debian",
)

mw_image(name = "nobody", base = "//:base", user = "65534")

genrule(
    name = "as-nobody",
    outs = ["who"],
    cmd = "id > $OUT; touch /tmp/x; ls -ln /tmp/x | cut -c1-10 >> $OUT; cat /proc/1/comm >> $OUT",
    image = ":nobody",
)

genrule(
    name = "whiteout",
    outs = ["kept"],
    cmd = "mkdir -p /out/kept/d /tmp/w; touch /out/kept/d/f /out/kept/g; rm -r /out/kept/d; mkdir /out/kept/d; mv /out/kept/g /out/kept/d/h",
    image = "//:base",
)

mw_image(name = "all", base = ":debian", layers = [":packed"])

layer(name = "packed", srcs = [":debian-step", ":as-nobody", ":whiteout"], prefix = "data")

genrule(
    name = "sleeper",
    outs = ["slept"],
    cmd = "sleep 4; echo done > $OUT",
    image = ":nobody",
    tags = ["manual"],
)
`

// Without root the embedded engine makes the same, byte for byte, and leaves as little behind.
func TestOrdinaryUser(t *testing.T) {
	u := ordinaryUser(t, "mwlive-user", userWorkspace)
	begun := time.Now()
	got := u.build("//...")
	t.Logf("an ordinary user's first build took %v", time.Since(begun))
	if !got.Engine.Used || got.Actions.Executed != got.Actions.Total {
		t.Errorf("first build: %+v, engine %v", got.Actions, got.Engine.Used)
	}
	root := newPlace(t, u.dir)
	want := root.build("//...")
	if diff := cmp.Diff(want.digests(), got.digests()); diff != "" {
		t.Errorf("digests (-root +ordinary user):\n%s", diff)
	}
	if n := len(got.digests()); n < 10 {
		t.Errorf("only %d targets: %v", n, slices.Sorted(maps.Keys(got.digests())))
	}
	u.build("//...").wantActions(t, 0, false)
	if u.checkClean(); t.Failed() {
		return
	}

	// Its state has files of the subordinate ids, which clean removes all the same; and then the same comes of it.
	if r := u.run("clean", "--engine"); r.code != 0 || fileThere(u.cache+"/engine") {
		t.Fatalf("clean --engine: %+v", r)
	}
	if err := os.WriteFile(filepath.Join(u.dir, "words.txt"), []byte("other words\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	again := u.build("//...")
	if !again.Engine.Used {
		t.Error("no step ran again")
	}
	if diff := cmp.Diff(root.build("//...").digests(), again.digests()); diff != "" {
		t.Errorf("digests after clean --engine (-root +ordinary user):\n%s", diff)
	}
	if r := u.run("clean", "--expunge"); r.code != 0 || fileThere(u.cache+"/engine") {
		t.Fatalf("clean --expunge: %+v", r)
	}
}

func fileThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// An ordinary user's engine that is killed in mid-step takes its containers along, and the step is run again; an
// interrupted build leaves nothing running.
func TestOrdinaryUserKilled(t *testing.T) {
	u := ordinaryUser(t, "mwlive-kill", userWorkspace)
	start := func() (*exec.Cmd, *lockedBuffer, map[string]int) {
		cmd, _, errout := u.cmd("//more:sleeper")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if cmd.ProcessState == nil {
				cmd.Process.Kill()
				cmd.Wait()
			}
		})
		found := map[string]int{}
		until(t, 30*time.Second, "the step runs", func() bool {
			for _, pid := range u.mine() {
				line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				switch args := strings.Split(string(line), "\x00"); {
				case len(args) > 2 && args[1] == "engine":
					found["engine"] = pid
				case args[0] == "sleep":
					found["step"] = pid
				}
			}
			return found["engine"] != 0 && found["step"] != 0
		})
		return cmd, errout, found
	}
	cmd, errout, first := start()
	syscall.Kill(first["engine"], syscall.SIGKILL)
	until(t, 2*time.Second, "the step ends with its engine", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", first["step"]))
		return err != nil
	})
	if err := cmd.Wait(); err != nil {
		t.Errorf("the build failed with its engine: %v\n%s", err, errout)
	}
	u.checkClean()

	// Both are killed, and nobody is left to clear up: the next engine does it.
	u.run("clean", "--expunge")
	cmd, _, first = start()
	cmd.Process.Kill()
	syscall.Kill(first["engine"], syscall.SIGKILL)
	cmd.Wait()
	until(t, 2*time.Second, "the step ends with its engine", func() bool { return len(u.mine()) == 0 })
	if left, _ := filepath.Glob(u.cache + "/engine/runc-*/executor/*/rootfs"); len(left) == 0 {
		t.Error("two killed processes left no folders to sweep: this test sees nothing")
	}
	u.build("//:upper")
	u.clearTmp()
	u.checkClean()

	for signal, code := range map[syscall.Signal]int{syscall.SIGINT: 8, syscall.SIGKILL: -1} {
		u.run("clean", "--expunge")
		cmd, errout, _ := start()
		cmd.Process.Signal(signal)
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("%v: exit code %d, want %d\n%s", signal, got, code, errout)
		}
		if signal == syscall.SIGKILL {
			until(t, 5*time.Second, "everything ends", func() bool { return len(u.mine()) == 0 })
			u.clearTmp()
		}
		u.checkClean()
	}
}

// clearTmp removes the sockets' folders of killed processes, which nobody is left to remove.
func (u *ordinary) clearTmp() {
	files, _ := filepath.Glob(u.home + "/tmp/*")
	for _, f := range files {
		os.RemoveAll(f)
	}
}

// What the machine lacks is named, with the way to get it, and the build fails as one that cannot be done.
func TestOrdinaryUserLacks(t *testing.T) {
	u := ordinaryUser(t, "mwlive-lacks", stepWorkspace, "--system") // gets no subordinate ids
	r := u.run("//:upper")
	r.want(t, 1, "no build engine: the embedded engine cannot run here as user mwlive-lacks",
		"/etc/subuid gives user mwlive-lacks 0 subordinate ids", "usermod --add-subuids", "usermod --add-subgids", "--builder")
	if strings.Contains(r.stderr, "runc is not installed") {
		t.Errorf("runc in sbin is not found:\n%s", r.stderr)
	}
	command(t, "", "usermod", "--add-subuids", "300000-365535", "--add-subgids", "300000-365535", u.name)
	u.build("//:upper")
	command(t, "", "usermod", "--del-subuids", "300000-365535", "--del-subgids", "300000-365535", u.name)
}

// Whatever a step may ask for it gets without root, too: secrets, an agent, caches, the network, an end at its timeout. An
// owner that the user has no id for is an error in words.
func TestOrdinaryUserHands(t *testing.T) {
	u := ordinaryUser(t, "mwlive-hands", `
-- BUILD --
image_import(name = "base", BASE)
genrule(name = "secret", outs = ["out"], cmd = "wc -c < /run/secrets/token > $OUT; stat -c %a:%u /run/secrets/token >> $OUT",
    secrets = {"token": "/run/secrets/token"}, image = ":base")
genrule(name = "agent", outs = ["out"], cmd = "stat -c %F $SSH_AUTH_SOCK > $OUT", ssh = ["default"], image = ":base")
genrule(name = "cached", outs = ["out"], cmd = "echo x >> /var/cache/n; wc -l < /var/cache/n > $OUT", caches = {"/var/cache": "count"}, image = ":base")
genrule(name = "network", outs = ["out"], cmd = "wget -q -O $OUT http://ADDRESS/", network = True, image = ":base")
genrule(name = "none", outs = ["out"], cmd = "if wget -T 2 -q -O $OUT http://ADDRESS/; then exit 9; fi; echo none > $OUT", image = ":base")
genrule(name = "slow", outs = ["out"], cmd = "sleep 600.75; echo > $OUT", timeout = "2s", image = ":base", tags = ["manual"])
layer(name = "far", srcs = ["a.txt"], owner = "100000:100000")
mw_image(name = "far-image", base = ":base", layers = [":far"])
genrule(name = "foreign", outs = ["out"], cmd = "cat /a.txt > $OUT", image = ":far-image", tags = ["manual"])
-- a.txt --
`)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "from the network") })}
	go server.Serve(l)
	defer server.Close()
	file := filepath.Join(u.dir, "BUILD")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(b), "ADDRESS", l.Addr().String())), 0o644); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(u.home, "agent")
	a, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	keys := agent.NewKeyring()
	go func() {
		for {
			c, err := a.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(keys, c)
		}
	}()
	token := filepath.Join(u.home, "token")
	if err := errors.Join(os.Chmod(socket, 0o666), os.WriteFile(token, []byte("hush"), 0o644)); err != nil {
		t.Fatal(err)
	}
	hand := []string{"--secret", "id=token,src=" + token, "--ssh", "default=" + socket}
	got := u.build(append(hand, "//...")...)
	root := newPlace(t, u.dir)
	if diff := cmp.Diff(root.build(append(hand, "//...")...).digests(), got.digests()); diff != "" {
		t.Errorf("digests (-root +ordinary user):\n%s", diff)
	}
	for label, want := range map[string]string{"//:secret": "4\n400:0\n", "//:network": "from the network\n", "//:none": "none\n", "//:cached": "1\n"} {
		dir := filepath.Join(u.home, "out"+label[3:])
		u.run(append(hand, label, "-o", "type=dir,dest="+dir)...)
		if b, err := os.ReadFile(filepath.Join(dir, "out")); string(b) != want {
			t.Errorf("%s made %q, want %q (%v)", label, b, want, err)
		}
	}
	r := u.run("//:slow")
	r.want(t, 1, "//:slow: the command was still running after 2s")
	if r.took > 20*time.Second {
		t.Errorf("it took %v to end", r.took)
	}
	u.run("//:foreign").want(t, 1, "//:foreign", "subordinate IDs in /etc/subuid")
}

// What only an engine that starts can see is named as well, and nothing falls back to what would be slow.
func TestOrdinaryUserRefused(t *testing.T) {
	u := ordinaryUser(t, "mwlive-refuse", stepWorkspace)
	for _, test := range []struct {
		name, before string
		says         []string
	}{
		{"masked proc", "mount -t tmpfs none /proc/sys", []string{"mounting in a user namespace is refused (/proc: operation not permitted)", "systempaths=unconfined"}},
		{"tmpfs", "mount -t tmpfs -o mode=777 none " + u.cache, []string{"is on a tmpfs", "--cache-dir"}},
		{"no namespaces", "mount --bind " + u.home + "/zero /proc/sys/user/max_user_namespaces", []string{"user namespaces are switched off", "sysctl -w user.max_user_namespaces"}},
		{"no setuid", "mount --bind /usr/bin /usr/bin && mount -o remount,bind,nosuid /usr/bin", []string{"newuidmap: exit status 1", "mounted nosuid"}},
		{"no uidmap", "mount --bind " + u.home + "/zero /usr/bin/newuidmap", []string{"there is no newuidmap", "package uidmap"}},
	} {
		if err := errors.Join(os.MkdirAll(u.cache, 0o777), os.Chmod(u.cache, 0o777), os.WriteFile(u.home+"/zero", []byte("0\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
		// In mounts of its own, root changes the machine before it becomes the user.
		cmd, out, errout := u.cmd("//:upper")
		become := fmt.Sprintf("%s && exec setpriv --reuid %d --regid %d --clear-groups -- \"$@\"", test.before, u.cred.Uid, u.cred.Gid)
		cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", become, "sh"}, cmd.Args...)
		cmd.Path, cmd.SysProcAttr.Credential = "/usr/bin/unshare", nil
		if err := cmd.Run(); cmd.ProcessState == nil {
			t.Fatal(err)
		}
		t.Run(test.name, func(t *testing.T) {
			result{cmd.ProcessState.ExitCode(), out.String(), errout.String(), 0}.want(t, 1, append(test.says, "//:upper: no build engine: ")...)
			if n := strings.Count(errout.String(), "no build engine"); n != 1 {
				t.Errorf("it says %d times that there is no engine:\n%s", n, errout.String())
			}
		})
	}
}

// Root of somebody else's user namespace, as in a rootless container, has an engine like that of an ordinary user.
func TestContainerRoot(t *testing.T) {
	u := ordinaryUser(t, "mwlive-inside", userWorkspace)
	want := newPlace(t, u.dir).build("//...").digests()
	cmd, out, errout := u.cmd("//...", "--output=json")
	cmd.Args = append([]string{"unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork", "--mount-proc"}, cmd.Args...)
	cmd.Path = "/usr/bin/unshare"
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), errout.String())
	}
	if diff := cmp.Diff(want, parseReport(t, out.String()).digests()); diff != "" {
		t.Errorf("digests (-root +root of a namespace):\n%s", diff)
	}
}
