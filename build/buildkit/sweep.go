package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// bundles are the folders of the containers that an engine at root has, or had when it was killed.
func bundles(root string) []string {
	dirs, _ := filepath.Glob(filepath.Join(root, "runc-*", "executor", "*", "rootfs"))
	for i, d := range dirs {
		dirs[i] = filepath.Dir(d)
	}
	return dirs
}

// drain waits until the engine at root has no containers, or limit is over.
func drain(root string, limit time.Duration) {
	for end := time.Now().Add(limit); len(bundles(root)) > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

// endContainers kills what the engine at root runs. The caller holds the root's lock.
func endContainers(root string) error {
	left := bundles(root)
	if len(left) == 0 {
		return nil
	}
	program, err := thisMachine().runtime()
	if err != nil {
		return fmt.Errorf("%w: containers of a killed engine are left: %w", ErrNoEngine, err)
	}
	var errs []error
	for _, dir := range left {
		id := filepath.Base(dir)
		// --force: also one that runs; and no error where there is none of this name.
		if out, err := exec.Command(program, "delete", "--force", id).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("engine: container %s of a killed engine: %w: %s", id, err, strings.TrimSpace(string(out))))
		}
	}
	return errors.Join(errs...)
}

// sweep removes what a killed engine left at root: running containers, mounts and their folders. The caller holds the
// root's lock.
//
// An ordinary user's engine leaves neither containers nor mounts: they ended with its namespaces. What it noted of them
// would name other processes now. From outside of a namespace, folders that are somebody else's there stay, for the next
// engine to remove.
func sweep(root string) error {
	if os.Geteuid() != 0 {
		for _, dir := range leftovers(root) {
			os.RemoveAll(dir)
		}
		return nil
	}
	if !entered {
		if err := endContainers(root); err != nil {
			return err
		}
		if err := unmount(root); err != nil {
			return err // and remove nothing: what is below a mount may not be ours
		}
	}
	var errs []error
	for _, dir := range leftovers(root) {
		if err := os.RemoveAll(dir); err != nil {
			errs = append(errs, fmt.Errorf("engine: %w", err))
		}
	}
	return errors.Join(errs...)
}

// leftovers are what only a running engine needs.
func leftovers(root string) []string {
	return append(bundles(root), filepath.Join(root, "tmp"), runDir(root))
}

func unmount(root string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	var errs []error
	for _, m := range slices.Backward(mounts) {
		if m.Mountpoint == root {
			continue // the user's
		}
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("engine: unmounting %s, left by a killed engine: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}

// reap ends the containers of an engine at root that was killed, unless another one has taken over the root, and with
// it that task.
func reap(root string) error {
	lock := flock.New(filepath.Join(root, "lock"))
	ok, err := lock.TryLock()
	if err != nil || !ok {
		return err
	}
	defer lock.Unlock()
	return sweep(root)
}

// Remove removes the embedded engine's state, o.Root, after it has waited for the engine that uses it. What a killed one
// left running ends first. An ordinary user's engine has files of other ids, which only a process in a namespace may
// remove: `o.Exe engine --root Root --erase` must call [Erase].
func Remove(ctx context.Context, o Options) error {
	root, err := filepath.EvalSymlinks(o.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if o.Wait == nil {
		o.Wait = func(string) {}
	}
	said := ""
	unlock, err := lockRoot(ctx, root, func(msg string) {
		if msg != said {
			o.Wait(msg)
		}
		said = msg
	})
	if err != nil {
		return err
	}
	defer unlock()
	if os.Geteuid() == 0 {
		return Erase(root)
	}
	if empty(root) == nil {
		return os.RemoveAll(root)
	}
	if err := thisMachine().canEmbed(); err != nil {
		return fmt.Errorf("%s has files of your subordinate ids, for which the engine's means are needed: %w", root, err)
	}
	cmd := exec.CommandContext(ctx, o.Exe, "engine", "--root", root, "--erase")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	var stderr tail
	cmd.Stderr = &stderr
	err = startProcess(cmd, root)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("engine: removing %s: %w\n%s", root, err, stderr.String())
	}
	return nil
}

// Erase is what [Remove] has done in a process of its own. The caller of Remove holds the root's lock.
func Erase(root string) error {
	if err := enterNamespace(); err != nil {
		return err
	}
	if err := sweep(root); err != nil {
		return err
	}
	if err := empty(root); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return os.RemoveAll(root)
}

// empty removes all that is in root but its lock, which goes last: until then nobody else makes anything there.
func empty(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != "lock" {
			errs = append(errs, os.RemoveAll(filepath.Join(root, e.Name())))
		}
	}
	return errors.Join(errs...)
}
