package buildkit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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
	i := slices.IndexFunc(runtimes, func(r string) bool { _, err := exec.LookPath(r); return err == nil })
	if i < 0 {
		return fmt.Errorf("%w: containers of a killed engine are left, and there is no runc to end them", ErrNoEngine)
	}
	var errs []error
	for _, dir := range left {
		id := filepath.Base(dir)
		// --force: also one that runs; and no error where there is none of this name.
		if out, err := exec.Command(runtimes[i], "delete", "--force", id).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("engine: container %s of a killed engine: %w: %s", id, err, strings.TrimSpace(string(out))))
		}
	}
	return errors.Join(errs...)
}

// sweep removes what a killed engine left at root: running containers, mounts and their folders. The caller holds the
// root's lock.
func sweep(root string) error {
	if err := endContainers(root); err != nil {
		return err
	}
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
	if err := errors.Join(errs...); err != nil {
		return err // and remove nothing: what is below a mount may not be ours
	}
	for _, dir := range append(bundles(root), filepath.Join(root, "tmp")) {
		if err := os.RemoveAll(dir); err != nil {
			errs = append(errs, fmt.Errorf("engine: %w", err))
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
