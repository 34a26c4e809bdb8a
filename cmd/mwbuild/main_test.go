package main

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mwbuild/mwbuild/cache"
)

// nobody is a user without rights, for when the tests run as root.
const nobody = 65534

// holdLock ROOT takes the lock of the workspace at ROOT, as another mwbuild would; releaselock gives it back.
func holdLock(ts *testscript.TestScript, _ bool, args []string) {
	unlock, err := cache.LockWorkspace(context.Background(), filepath.Join(ts.Getenv("XDG_CACHE_HOME"), "mwbuild"), ts.MkAbs(args[0]), nil)
	ts.Check(err)
	heldLocks.Store(ts.MkAbs(args[0]), unlock)
}

func releaseLock(ts *testscript.TestScript, _ bool, args []string) {
	unlock, _ := heldLocks.LoadAndDelete(ts.MkAbs(args[0]))
	unlock.(func())()
}

// heldLocks are functions that unlock, by folder.
var heldLocks sync.Map

// waitFor FILE PATTERN waits until the file holds the pattern.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	re := regexp.MustCompile(args[1])
	for range 500 {
		if b, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && re.Match(b) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("%s never held %s", args[0], args[1])
}

// readOnly DIR takes away the right to write in DIR from the user that unprivileged runs as.
func readOnly(ts *testscript.TestScript, _ bool, args []string) {
	set := func(dir, file fs.FileMode) error {
		return filepath.WalkDir(ts.MkAbs(args[0]), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if os.Getuid() == 0 {
				if err := os.Lchown(path, nobody, nobody); err != nil {
					return err
				}
			}
			if e.IsDir() {
				return os.Chmod(path, dir)
			}
			return os.Chmod(path, file)
		})
	}
	ts.Check(set(0o555, 0o444))
	ts.Defer(func() {
		_ = filepath.WalkDir(ts.MkAbs(args[0]), func(p string, e fs.DirEntry, _ error) error { return os.Chmod(p, 0o755) })
	})
}

// unprivileged STDOUT STDERR PROGRAM ARG… runs a program as a user whom permissions bind, also where the tests run as root.
func unprivileged(ts *testscript.TestScript, neg bool, args []string) {
	var env []string
	for _, name := range []string{"HOME", "XDG_CACHE_HOME", "PATH"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	program := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if file := filepath.Join(dir, args[2]); program == "" {
			if _, err := os.Stat(file); err == nil {
				program = file
			}
		}
	}
	cmd := exec.Command(program, args[3:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), env
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		// The folders that testing makes are for its own user only.
		for _, p := range []string{program, cmd.Dir} {
			for dir := filepath.Dir(p); strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
				ts.Check(os.Chmod(dir, 0o755))
			}
		}
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(stdout.String()), 0o666))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(stderr.String()), 0o666))
	if (err != nil) != neg {
		ts.Fatalf("%s: %v\n%s%s", args[2], err, stdout.String(), stderr.String())
	}
}
