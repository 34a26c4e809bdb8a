//go:build live

package livetest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A base is a root file system in a tar.
type base struct {
	tar    string
	digest digest.Digest
}

// busybox is a base with a static busybox from Debian's package, under the names of what it can do.
var busybox = once(func(dir string) (base, error) {
	root := filepath.Join(dir, "root")
	if err := unpackDebs(dir, root, "busybox-static"); err != nil {
		return base{}, err
	}
	out := filepath.Join(dir, "busybox.tar")
	busybox, err := filepath.Glob(root + "/*bin/busybox")
	if usr, _ := filepath.Glob(root + "/usr/*bin/busybox"); err == nil {
		busybox = append(busybox, usr...)
	}
	if len(busybox) == 0 {
		return base{}, errors.Join(err, errors.New("there is no busybox in busybox-static"))
	}
	program, err := os.ReadFile(busybox[0])
	if err != nil {
		return base{}, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755, ModTime: time.Unix(0, 0)})
	w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program)), ModTime: time.Unix(0, 0)})
	w.Write(program)
	for _, name := range []string{"sh", "sleep", "cat", "echo", "mkdir", "ln", "ls", "wc", "tr", "true", "sort", "find", "id", "seq"} {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777, ModTime: time.Unix(0, 0)})
	}
	if err := w.Close(); err != nil {
		return base{}, err
	}
	return base{out, digest.FromBytes(b.Bytes())}, os.WriteFile(out, b.Bytes(), 0o644)
})

// debian is a base with Debian's own libc, shell and tools.
var debian = once(func(dir string) (base, error) {
	root := filepath.Join(dir, "root")
	// Debian's merged layout, whatever its packages still say.
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(root, "usr", d), 0o755), os.Symlink("usr/"+d, filepath.Join(root, d))); err != nil {
			return base{}, err
		}
	}
	if err := unpackDebs(dir, root, "dash", "coreutils", "libc6", "libacl1", "libattr1", "libgmp10", "libselinux1", "libpcre2-8-0"); err != nil {
		return base{}, err
	}
	sh := filepath.Join(root, "usr/bin/sh")
	if _, err := os.Lstat(sh); errors.Is(err, fs.ErrNotExist) {
		if err := os.Symlink("dash", sh); err != nil {
			return base{}, err
		}
	}
	out := filepath.Join(dir, "debian.tar")
	if b, err := exec.Command("tar", "-C", root, "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf", out, ".").CombinedOutput(); err != nil {
		return base{}, fmt.Errorf("tar: %w\n%s", err, b)
	}
	f, err := os.Open(out)
	if err != nil {
		return base{}, err
	}
	defer f.Close()
	d, err := digest.FromReader(f)
	return base{out, d}, err
})

// once makes a thing for all tests, in a folder of its own.
func once[T any](make func(dir string) (T, error)) func(testing.TB) T {
	made := sync.OnceValues(func() (t T, err error) {
		dir, err := os.MkdirTemp(shared, "")
		if err = errors.Join(err, os.Chmod(dir, 0o755)); err != nil {
			return t, err
		}
		return make(dir)
	})
	return func(t testing.TB) T {
		t.Helper()
		v, err := made()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// unpackDebs fetches packages of this machine's Debian and unpacks them into root. Nothing is installed.
func unpackDebs(dir, root string, packages ...string) error {
	debs := filepath.Join(dir, "debs")
	if err := errors.Join(os.MkdirAll(debs, 0o755), os.MkdirAll(root, 0o755)); err != nil {
		return err
	}
	apt := func(args ...string) ([]byte, error) {
		cmd := exec.Command("apt-get", append([]string{"-qq", "-o", "APT::Sandbox::User=root"}, args...)...)
		cmd.Dir = debs
		return cmd.CombinedOutput()
	}
	download := append([]string{"download"}, packages...)
	out, err := apt(download...)
	if err != nil {
		// A machine that never asked does not know its packages yet.
		if out, err = apt("update"); err == nil {
			out, err = apt(download...)
		}
	}
	if err != nil {
		return fmt.Errorf("apt-get: %w\n%s", err, out)
	}
	files, err := filepath.Glob(debs + "/*.deb")
	if err != nil {
		return err
	}
	if len(files) != len(packages) {
		return fmt.Errorf("apt-get fetched %d packages of %d", len(files), len(packages))
	}
	for _, deb := range files {
		// Not dpkg -x, which would replace the links of the merged layout by folders.
		fsys := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
		untar := exec.Command("tar", "-C", root, "--keep-directory-symlink", "-x", "-f", "-")
		r, w := io.Pipe()
		fsys.Stdout, untar.Stdin = w, r
		var said bytes.Buffer
		untar.Stderr = &said
		if err := untar.Start(); err != nil {
			return err
		}
		err := fsys.Run()
		w.Close()
		if err := errors.Join(err, untar.Wait()); err != nil {
			return fmt.Errorf("unpacking %s: %w\n%s", deb, err, said.Bytes())
		}
	}
	return nil
}
