// Package container runs programs of an image on this machine: its layers, unpacked once each and laid over one another, and runc. It is for
// looking at what was built, not for production: one container at a time, with the rights of its user and no more, in a network of its own of
// which single ports can be reached from loopback.
//
// [Run] is for a process that is root in a mount namespace of its own, which ends what it started when it ends itself.
package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A Spec is what is to be run.
type Spec struct {
	Store    string   // folder of the content store that has the layers
	Unpacked string   // folder in which unpacked layers are kept
	Dir      string   // folder of this container, which Run makes and removes
	Stale    []string // such folders of others that were killed, which Run removes
	Layers   []Layer  // lowest first
	Runc     string   // its path
	// UserNamespace says that this process is root of a user namespace only.
	UserNamespace bool

	Processes []Process // one after the other; what follows one that failed does not run
	Volumes   []Volume
	Ports     []Port // of the last process
	StopLimit time.Duration
}

// A Layer is one layer of the image.
type Layer struct {
	Descriptor ocispecs.Descriptor
	DiffID     string
}

// A Process is one program in a container of its own: all of them see the same files.
type Process struct {
	Args     []string
	Env      []string
	Cwd      string
	UID, GID uint32
	Quiet    bool   // its output is shown only if it fails
	Stdin    bool   // it reads this process's standard input
	ToStderr bool   // its standard output goes to standard error
	Says     string // told before it starts
	Fails    string // told if it fails
}

// A Volume is a file or folder of this machine in the container.
type Volume struct {
	Source, Dest string
	ReadOnly     bool
	// Owned makes a folder, if it is not there, that belongs to the last process's user. Fresh empties it before.
	Owned, Fresh bool
}

// A Port of the container, and where it can be reached.
type Port struct {
	Host      string // 127.0.0.1:PORT
	Container int
	Says      string // told once something listens at it
}

// An ExitError tells how a process ended.
type ExitError struct {
	Args []string
	Code int
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit code %d", strings.Join(e.Args, " "), e.Code)
}

// Run runs the processes. It returns when the last one has ended, or after it ended all when ctx did. The error is an [*ExitError] where a process failed.
// What Says says goes to say.
func Run(ctx context.Context, s Spec, say func(string)) (err error) {
	for _, dir := range s.Stale {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.Dir, 0o711); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.Dir)) }()
	unlock, _, err := lockUnpacked(s.Unpacked, false)
	if err != nil {
		return err
	}
	defer unlock()
	lowers, err := unpack(ctx, s)
	if err != nil {
		return err
	}
	if err := s.volumes(); err != nil {
		return err
	}
	root, unmount, err := s.mount(lowers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(unmount(), err) }()
	for i, p := range s.Processes {
		var ports []Port
		if i == len(s.Processes)-1 {
			ports = s.Ports
		}
		if err := s.process(ctx, root, i, p, ports, say); err != nil {
			return err
		}
	}
	return nil
}

// volumes makes the folders that are to be there.
func (s Spec) volumes() error {
	last := s.Processes[len(s.Processes)-1]
	for _, v := range s.Volumes {
		if v.Fresh {
			if err := os.RemoveAll(v.Source); err != nil {
				return err
			}
		}
		if !v.Owned {
			continue
		}
		if err := os.MkdirAll(v.Source, 0o755); err != nil {
			return err
		}
		if err := os.Chown(v.Source, int(last.UID), int(last.GID)); err != nil {
			return err
		}
	}
	return nil
}

// mount lays the layers over one another. Places to mount on are made in a layer above them, which is thrown away.
func (s Spec) mount(lowers []string) (root string, unmount func() error, err error) {
	root = filepath.Join(s.Dir, "rootfs")
	links := filepath.Join(s.Dir, "l") // short names: the options of a mount have to fit into a page
	for _, d := range []string{root, links, filepath.Join(s.Dir, "upper"), filepath.Join(s.Dir, "work")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", nil, err
		}
	}
	names := make([]string, len(lowers))
	for i, dir := range lowers {
		names[len(lowers)-1-i] = strconv.Itoa(i)
		if err := os.Symlink(dir, filepath.Join(links, strconv.Itoa(i))); err != nil {
			return "", nil, err
		}
	}
	if len(names) == 0 {
		if err := os.Mkdir(filepath.Join(links, "0"), 0o755); err != nil {
			return "", nil, err
		}
		names = []string{"0"}
	}
	options := "lowerdir=" + strings.Join(names, ":") + ",upperdir=../upper,workdir=../work"
	if s.UserNamespace {
		options += ",userxattr"
	}
	was, err := os.Getwd()
	if err != nil {
		return "", nil, err
	}
	if err := os.Chdir(links); err != nil {
		return "", nil, err
	}
	err = unix.Mount("overlay", root, "overlay", 0, options)
	if cerr := os.Chdir(was); err == nil {
		err = cerr
	}
	if err != nil {
		return "", nil, fmt.Errorf("mount the image: %w", err)
	}
	return root, func() error { return unix.Unmount(root, unix.MNT_DETACH) }, nil
}

// process runs one in a container.
func (s Spec) process(ctx context.Context, root string, n int, p Process, ports []Port, say func(string)) (err error) {
	bundle := filepath.Join(s.Dir, "bundle-"+strconv.Itoa(n))
	if err := os.Mkdir(bundle, 0o755); err != nil {
		return err
	}
	config, err := json.Marshal(s.config(root, p))
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644)
	}
	if err != nil {
		return err
	}
	if p.Says != "" {
		say(p.Says)
	}
	id := "mwbuild-" + filepath.Base(s.Dir) + "-" + strconv.Itoa(n)
	pidFile, state := filepath.Join(bundle, "pid"), filepath.Join(s.Dir, "runc")
	cmd := exec.Command(s.Runc, "--root", state, "run", "--pid-file", pidFile, "--bundle", bundle, id)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if p.ToStderr {
		cmd.Stdout = os.Stderr
	}
	if p.Stdin {
		cmd.Stdin = os.Stdin
	}
	var log *os.File
	if p.Quiet {
		if log, err = os.Create(filepath.Join(bundle, "log")); err != nil {
			return err
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	serving, stop := context.WithCancel(ctx)
	defer stop()
	if len(ports) > 0 {
		go func() {
			if err := forward(serving, pidFile, ports, say); err != nil && serving.Err() == nil {
				say(err.Error())
			}
		}()
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		// runc hands signals on.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		limit := s.StopLimit
		if limit == 0 {
			limit = 5 * time.Second
		}
		select {
		case <-ended:
		case <-time.After(limit):
			_ = exec.Command(s.Runc, "--root", state, "kill", id, "KILL").Run()
			<-ended
		}
		return ctx.Err()
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if log != nil {
		if _, err := log.Seek(0, io.SeekStart); err == nil {
			_, _ = io.Copy(os.Stderr, log)
		}
	}
	if p.Fails != "" {
		say(p.Fails)
	}
	return &ExitError{Args: p.Args, Code: exit.ExitCode()}
}

// config is the container: no capabilities, a root that cannot be written to, an empty /tmp, and namespaces of its own.
func (s Spec) config(root string, p Process) *specs.Spec {
	env := p.Env
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777"}},
	}
	if !s.UserNamespace {
		mounts = append(mounts, specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}})
	}
	for _, v := range s.Volumes {
		options := []string{"rbind", "rprivate", "nosuid", "nodev"}
		if v.ReadOnly {
			options = append(options, "ro")
		}
		mounts = append(mounts, specs.Mount{Destination: v.Dest, Type: "bind", Source: v.Source, Options: options})
	}
	spec := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Args: p.Args, Env: env, Cwd: path.Join("/", p.Cwd), NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{},
			User: specs.User{UID: p.UID, GID: p.GID},
		},
		Root:     &specs.Root{Path: root, Readonly: true},
		Hostname: "mwbuild",
		Mounts:   mounts,
		Linux: &specs.Linux{
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	for _, n := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace, specs.NetworkNamespace} {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: n})
	}
	return spec
}

// Clean removes the unpacked layers in a folder, if nothing runs that uses them.
func Clean(unpacked string) error {
	unlock, ok, err := lockUnpacked(unpacked, true)
	if err != nil || !ok {
		return err
	}
	defer unlock()
	entries, err := os.ReadDir(unpacked)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, os.RemoveAll(filepath.Join(unpacked, e.Name())))
		}
	}
	return err
}
