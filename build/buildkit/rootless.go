package buildkit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"golang.org/x/sys/unix"
)

// An ordinary user's engine is root in namespaces of its own: of users, where the user stands for root and the user's
// subordinate ids for everybody else; of mounts; and of processes, so that whatever it runs ends with it. The way there:
//
//  1. [startProcess] starts it in new, unmapped namespaces. It has no rights there, and waits.
//  2. newuidmap and newgidmap, which are setuid root, map the ids from outside.
//  3. [enterNamespace], in the engine, executes its program once more: only then the kernel gives it root's rights.

const (
	// stageEnv tells the engine's process how far it is on its way.
	stageEnv    = "MWBUILD_ENGINE_STAGE"
	stageWait   = "wait"   // and the number of the descriptor that tells when the ids are mapped
	stageMapped = "mapped" // and root

	// neededIDs are those that a usual image has: 1 to 65534, nobody, and one more.
	neededIDs = 65535
)

// runtimes are the programs that can run a container for the embedded engine, in the order in which it looks.
var runtimes = []string{"buildkit-runc", "runc"}

// StartAsRoot starts cmd with the rights to mount and to run containers: for an ordinary user in namespaces of its own, in which the user is root
// and state, a folder of the user's, is where a runtime keeps its own. cmd.SysProcAttr must be set; cmd's program calls [EnterNamespace] first. The caller waits for cmd.
// An [ErrNoEngine] says what is missing on this machine.
func StartAsRoot(cmd *exec.Cmd, state string) error {
	if err := thisMachine().canEmbed(); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(state, "tmp"), runDir(state)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return startProcess(cmd, state)
}

// EnterNamespace does the started process's part of [StartAsRoot], and tells whether it is root of a user namespace only.
func EnterNamespace() (userNamespace bool, err error) {
	err = enterNamespace()
	return inUserNamespace(), err
}

// Runtime is the path of the program that runs containers.
func Runtime() (string, error) { return thisMachine().runtime() }

// A machine is what [machine.missing] looks at.
type machine struct {
	uid  int
	name string // of the user; "" where it is not known

	look func(program string) (string, error)
	read func(file string) (string, error)
}

func thisMachine() machine {
	m := machine{uid: os.Geteuid(), look: lookProgram, read: func(file string) (string, error) {
		b, err := os.ReadFile(file)
		return string(b), err
	}}
	if u, err := user.LookupId(strconv.Itoa(m.uid)); err == nil {
		m.name = u.Username
	}
	return m
}

// lookProgram is exec.LookPath that looks where administrators' programs are, too: runc is one, and an ordinary user's
// path does not have it.
func lookProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
			return path, nil
		}
	}
	return "", err
}

// runtime is the program that runs containers.
func (m machine) runtime() (string, error) {
	for _, r := range runtimes {
		if path, err := m.look(r); err == nil {
			return path, nil
		}
	}
	return "", errors.New("runc is not installed: install your distribution's runc package")
}

// canEmbed says all that keeps the embedded engine from running here, with what to do about it.
func (m machine) canEmbed() error {
	missing := m.missing()
	if len(missing) == 0 {
		return nil
	}
	who := "as root"
	if m.uid != 0 {
		who = fmt.Sprintf("as user %s (%d)", m.name, m.uid)
	}
	missing = append(missing, "or point --builder (BUILDKIT_HOST) at a BuildKit that is running")
	return fmt.Errorf("%w: the embedded engine cannot run here %s\n    %s", ErrNoEngine, who, strings.Join(missing, "\n    "))
}

// missing looks only at what can be seen before an engine starts.
func (m machine) missing() (all []string) {
	if _, err := m.runtime(); err != nil {
		all = append(all, err.Error())
	}
	if m.uid == 0 {
		if !m.mayMount() {
			all = append(all, "root may not mount here: in a container, give it the capability SYS_ADMIN (docker run --privileged)")
		}
		return all
	}
	for file, setting := range map[string]string{
		"/proc/sys/user/max_user_namespaces":         "user.max_user_namespaces=65536",
		"/proc/sys/kernel/unprivileged_userns_clone": "kernel.unprivileged_userns_clone=1",
	} {
		if v, err := m.read(file); err == nil && strings.TrimSpace(v) == "0" {
			all = append(all, "user namespaces are switched off: as root, run sysctl -w "+setting)
		}
	}
	for _, p := range []string{"newuidmap", "newgidmap"} {
		if _, err := m.look(p); err != nil {
			all = append(all, "there is no "+p+": install the package uidmap (elsewhere shadow-utils)")
			break
		}
	}
	for file, flag := range map[string]string{"/etc/subuid": "--add-subuids", "/etc/subgid": "--add-subgids"} {
		if n := idCount(m.subordinate(file)); n < neededIDs {
			who := m.name
			if who == "" {
				who = strconv.Itoa(m.uid)
			}
			all = append(all, fmt.Sprintf("%s gives user %s %d subordinate ids, and %d are needed: as root, run usermod %s 100000-165535 %s (or a range that nobody else has)",
				file, who, n, neededIDs, flag, who))
		}
	}
	return all
}

// mayMount says whether the process has the right to mount, as root in a container may not.
func (m machine) mayMount() bool {
	status, err := m.read("/proc/self/status")
	if err != nil {
		return true // then let the mount say it
	}
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err != nil || caps&(1<<unix.CAP_SYS_ADMIN) != 0
		}
	}
	return true
}

// An idRange is a range of ids outside of a namespace.
type idRange struct{ start, count uint64 }

func idCount(ranges []idRange) (n uint64) {
	for _, r := range ranges {
		n += r.count
	}
	return n
}

// subordinate reads the user's ranges from /etc/subuid or /etc/subgid, which name users or their numbers. Ranges that a
// directory service gives are not seen.
func (m machine) subordinate(file string) (ranges []idRange) {
	text, err := m.read(file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || (f[0] != m.name || f[0] == "") && f[0] != strconv.Itoa(m.uid) {
			continue
		}
		start, err1 := strconv.ParseUint(f[1], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 == nil && err2 == nil && count > 0 {
			ranges = append(ranges, idRange{start, count})
		}
	}
	return ranges
}

// mapArgs are the arguments of newuidmap or newgidmap: id 0 is own, the others are the ranges, one after another.
func mapArgs(pid, own int, ranges []idRange) []string {
	args := []string{strconv.Itoa(pid), "0", strconv.Itoa(own), "1"}
	next := uint64(1)
	for _, r := range ranges {
		args = append(args, fmt.Sprint(next), fmt.Sprint(r.start), fmt.Sprint(r.count))
		next += r.count
	}
	return args
}

// startProcess starts cmd, which calls [Serve] or [Erase] for root, with the rights that these need: for an ordinary user
// in namespaces of its own. cmd.SysProcAttr must be set. The caller waits for cmd, and gives it a standard input that
// ends with the caller.
func startProcess(cmd *exec.Cmd, root string) error {
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(root, "tmp"))
	if os.Geteuid() == 0 && !inUserNamespace() {
		// Mounts of its own: whatever way it ends, none stays behind.
		cmd.SysProcAttr.Unshareflags |= syscall.CLONE_NEWNS
		return cmd.Start()
	}
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
	// runc keeps its state where XDG_RUNTIME_DIR says, unless the user is called root.
	cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+runDir(root), "USER=mwbuild")
	if os.Geteuid() == 0 { // in somebody else's namespace, as in a rootless container
		cmd.Env = append(cmd.Env, stageEnv+"="+stageMapped)
		return cmd.Start()
	}
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	cmd.Env = append(cmd.Env, stageEnv+"="+stageWait+strconv.Itoa(3+len(cmd.ExtraFiles)))
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	cmd.ExtraFiles = append(cmd.ExtraFiles, r)
	err = cmd.Start()
	r.Close()
	if err != nil {
		return fmt.Errorf("%w: the kernel does not let user %d have a user namespace: %w\n    in a container, run it with --security-opt seccomp=unconfined;"+
			" else see sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone", ErrNoEngine, os.Geteuid(), err)
	}
	if err := mapIDs(cmd.Process.Pid); err == nil {
		_, err = w.Write([]byte{1})
		return err
	} else {
		cmd.Process.Kill()
		cmd.Wait()
		return err
	}
}

// runDir is where the runtime of an ordinary user's engine keeps its state.
func runDir(root string) string { return filepath.Join(root, "run") }

func mapIDs(pid int) error {
	m := thisMachine()
	for _, f := range []struct {
		program, file string
		own           int
	}{{"newuidmap", "/etc/subuid", os.Geteuid()}, {"newgidmap", "/etc/subgid", os.Getegid()}} {
		program, err := m.look(f.program)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNoEngine, err)
		}
		out, err := exec.Command(program, mapArgs(pid, f.own, m.subordinate(f.file))...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s: %w: %s\n    see that %s is as the package uidmap installs it (setuid root, and not on a file system mounted nosuid), and that %s is right",
				ErrNoEngine, f.program, err, strings.TrimSpace(string(out)), program, f.file)
		}
	}
	return nil
}

// enterNamespace does the engine's part of what startProcess begins. It does nothing in a process that has root's rights
// already.
func enterNamespace() error {
	stage := os.Getenv(stageEnv)
	if fd, ok := strings.CutPrefix(stage, stageWait); ok {
		n, err := strconv.Atoi(fd)
		if err != nil {
			return fmt.Errorf("engine: %s: %w", stageEnv, err)
		}
		return awaitMapping(n)
	}
	if stage == stageMapped {
		os.Unsetenv(stageEnv)
		entered = true
		// Those of a rootless container may be shared with processes that it has elsewhere.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("%w: mounting in a user namespace is refused: %w: %s", ErrNoEngine, err, mountHint())
		}
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("%w: mounting in a user namespace is refused (/proc: %w): %s", ErrNoEngine, err, mountHint())
		}
	}
	return nil
}

// awaitMapping waits until the ids are mapped, and begins this process's program again: it returns only if that fails.
func awaitMapping(fd int) error {
	f := os.NewFile(uintptr(fd), "mapped")
	n, err := f.Read(make([]byte, 1))
	f.Close()
	if n == 0 {
		return fmt.Errorf("engine: its ids were not mapped: %w", err)
	}
	if err := os.Setenv(stageEnv, stageMapped); err != nil {
		return err
	}
	return fmt.Errorf("engine: %w", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// entered says that this process is the first one of the namespaces that startProcess makes.
var entered bool

func mountHint() string {
	const sysctl = "kernel.apparmor_restrict_unprivileged_userns"
	b, _ := os.ReadFile("/proc/sys/" + strings.ReplaceAll(sysctl, ".", "/"))
	if strings.TrimSpace(string(b)) == "1" {
		return "AppArmor restricts user namespaces; as root, run sysctl -w " + sysctl + "=0, or give mwbuild a profile that allows userns"
	}
	return "in a container, run it with --security-opt systempaths=unconfined --security-opt apparmor=unconfined --security-opt seccomp=unconfined"
}

// inUserNamespace says whether this process is root of a user namespace, and not of the machine.
func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(b))
	return err == nil && !(len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295")
}

// checkOverlay says why overlayfs cannot be used below root in a user namespace. Without it every step would copy its
// whole root, silently and for seconds.
func checkOverlay(root string) error {
	const elsewhere = "name a cache folder on another file system with --cache-dir"
	if overlayutils.IsPathOnTmpfs(root) {
		return fmt.Errorf("%w: %s is on a tmpfs, which overlayfs in a user namespace cannot use: %s", ErrNoEngine, root, elsewhere)
	}
	err := overlayutils.Supported(root)
	if err == nil {
		err = userAttributes(root)
	}
	if err != nil {
		return fmt.Errorf("%w: overlayfs in a user namespace is refused: %w: it needs Linux 5.11 or later, or %s", ErrNoEngine, err, elsewhere)
	}
	return nil
}

// userAttributes tells whether files below root take the attributes in which overlayfs keeps its notes there.
func userAttributes(root string) error {
	f, err := os.CreateTemp(root, "attr")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := unix.Fsetxattr(int(f.Fd()), "user.overlay.mwbuild", []byte("y"), 0); err != nil {
		return fmt.Errorf("user attributes: %w", err)
	}
	return nil
}

// tellRefusal writes an ErrNoEngine to the stderr that a parent reads.
func tellRefusal(stderr io.Writer, err error) {
	if errors.Is(err, ErrNoEngine) {
		_, why, _ := strings.Cut(err.Error(), ErrNoEngine.Error()+": ")
		fmt.Fprintf(stderr, "%s%s\n", refusedPrefix, strings.ReplaceAll(why, "\n", " "))
	}
}
