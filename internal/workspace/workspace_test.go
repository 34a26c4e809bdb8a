package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// gitCmd runs git as a user without settings would.
func gitCmd(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.org",
		"-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// write makes files below dir. A text that starts with "-> " makes a symlink, with "#!" an executable.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		os.Remove(p)
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, p)
		} else if strings.HasPrefix(text, "#!") {
			err = os.WriteFile(p, []byte(text), 0o755)
		} else {
			err = os.WriteFile(p, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, root string, memo Memo) *Disk {
	t.Helper()
	d, err := Open(t.Context(), root, memo)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// commit makes dir a git repository with everything in one commit.
func commit(t *testing.T, dir string) {
	t.Helper()
	gitCmd(t, dir, "init", "-q")
	gitCmd(t, dir, "add", "-A")
	gitCmd(t, dir, "commit", "-qm", "all")
}

func wantFiles(t *testing.T, d *Disk, want ...string) {
	t.Helper()
	want = append([]string{}, want...)
	slices.Sort(want)
	if diff := cmp.Diff(want, d.Files()); diff != "" {
		t.Errorf("Files (-want +got):\n%s", diff)
	}
}

// tree returns all that a build sees of a tree.
func tree(t *testing.T, d *Disk) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, p := range d.Files() {
		f, ok := d.Lookup(p)
		if !ok || f.Path != p {
			t.Fatalf("Lookup(%q) = %v, %v", p, f, ok)
		}
		sum, err := d.Digest(p)
		if err != nil {
			t.Fatal(err)
		}
		all[p] = fmt.Sprintf("%s %q %x %x %d", f.Mode, f.Target, sum.SHA256, sum.Blob, sum.Size)
	}
	return all
}

func TestGitAndNoGitAgree(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{
		"WORKSPACE": "", "BUILD": "x", "a/b/c.php": "<?php", "a/run": "#!/bin/sh", "a/link": "-> b/c.php", "dangling": "-> nowhere",
		"new\nline": "n", "quo\"te\\": "q", "\xff\xfe": "not UTF-8", "ü": "UTF-8", " space ": "s", "a.b": "sorts before a/", "a-": "so does this",
	})
	if err := os.Mkdir(filepath.Join(root, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := tree(t, open(t, root, nil))
	if len(plain) != 13 {
		t.Errorf("%d files without git, want 13: %q", len(plain), slices.Sorted(maps.Keys(plain)))
	}
	commit(t, root)
	if diff := cmp.Diff(plain, tree(t, open(t, root, nil))); diff != "" {
		t.Errorf("-without +with git:\n%s", diff)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	gitCmd(t, root, "clone", "-q", root, clone)
	if diff := cmp.Diff(plain, tree(t, open(t, clone, nil))); diff != "" {
		t.Errorf("-original +clone:\n%s", diff)
	}

	blobs := gitCmd(t, root, "ls-tree", "-rz", "HEAD")
	for _, line := range strings.Split(strings.TrimSuffix(blobs, "\x00"), "\x00") {
		meta, name, _ := strings.Cut(line, "\t")
		if id := strings.Fields(meta)[2]; !strings.Contains(plain[name], " "+id+" ") {
			t.Errorf("%q: %s, git's blob id is %s", name, plain[name], id)
		}
	}
}

// Without the git program a checkout, at the root or nested, is an error; what is none is listed whole.
func TestGitMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	root := t.TempDir()
	write(t, root, map[string]string{"f": "", "sub/g": ""})
	wantFiles(t, open(t, root, nil), "f", "sub/g")
	for _, dotGit := range []string{"sub/.git", ".git"} {
		root := t.TempDir()
		write(t, root, map[string]string{"f": "", "sub/g": "", dotGit: "gitdir: elsewhere"})
		if _, err := Open(t.Context(), root, nil); err == nil || !strings.Contains(err.Error(), "install git") {
			t.Errorf("with %s: %v, want an error that says install git", dotGit, err)
		}
	}
}

func TestWhatGitShows(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{
		".gitignore": "*.log\n/LocalSettings.php\nnode_modules/\n",
		"kept":       "", "gone": "", "mode": "", "becomes/a/folder": "", "file": "", "linked/x": "",
		"forced.log": "",
	})
	gitCmd(t, root, "init", "-q")
	gitCmd(t, root, "add", "-Af")
	gitCmd(t, root, "commit", "-qm", "all")

	write(t, root, map[string]string{"LocalSettings.php": "secret", "node_modules/m/i.js": "", "a.log": "", "untracked": "", "elsewhere/x": "", "elsewhere/y": ""})
	os.Remove(filepath.Join(root, "gone"))
	os.Chmod(filepath.Join(root, "mode"), 0o744)
	os.Remove(filepath.Join(root, "file"))
	write(t, root, map[string]string{"file/is/folder": ""})
	os.RemoveAll(filepath.Join(root, "becomes"))
	write(t, root, map[string]string{"becomes": "a file"})
	os.RemoveAll(filepath.Join(root, "linked")) // git still has linked/x, which can be reached through the link
	write(t, root, map[string]string{"linked": "-> elsewhere"})
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := open(t, root, nil)
	wantFiles(t, d, ".gitignore", "kept", "mode", "becomes", "file/is/folder", "linked", "elsewhere/x", "elsewhere/y", "untracked", "forced.log")
	for p, want := range map[string]Mode{"kept": Regular, "mode": Executable, "linked": Symlink, "becomes": Regular} {
		if f, _ := d.Lookup(p); f.Mode != want {
			t.Errorf("mode of %s = %s, want %s", p, f.Mode, want)
		}
	}
	_, err := d.ReadFile("LocalSettings.php")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "ignore") {
		t.Errorf("ReadFile of an ignored file: %v", err)
	}
}

func TestMergeConflictListedOnce(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"f": "base\n"})
	commit(t, root)
	main := gitCmd(t, root, "branch", "--show-current")
	gitCmd(t, root, "checkout", "-qb", "other")
	write(t, root, map[string]string{"f": "theirs\n"})
	gitCmd(t, root, "commit", "-qam", "theirs")
	gitCmd(t, root, "checkout", "-q", main)
	write(t, root, map[string]string{"f": "ours\n"})
	gitCmd(t, root, "commit", "-qam", "ours")
	cmd := exec.Command("git", "merge", "other")
	cmd.Dir = root
	if cmd.Run() == nil {
		t.Fatal("no conflict")
	}
	wantFiles(t, open(t, root, nil), "f")
}

func TestRootBelowRepository(t *testing.T) {
	repo := t.TempDir()
	write(t, repo, map[string]string{".gitignore": "*.o\n/ignored\n", "outside": "", "wiki/in": "", "wiki/.gitignore": "*.p", "wiki/x.o": "", "wiki/x.p": "", "ignored/x.o": ""})
	commit(t, repo)
	wantFiles(t, open(t, filepath.Join(repo, "wiki"), nil), ".gitignore", "in")
	// A folder that the repository around it ignores is none of git's business.
	wantFiles(t, open(t, filepath.Join(repo, "ignored"), nil), "x.o")
	empty := t.TempDir()
	gitCmd(t, empty, "init", "-q")
	wantFiles(t, open(t, empty, nil))
}

func TestGitEnvironment(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"f": ""})
	commit(t, root)
	t.Setenv("GIT_DIR", "/nonexistent")
	t.Setenv("GIT_INDEX_FILE", "/nonexistent")
	t.Setenv("GIT_WORK_TREE", "/nonexistent")
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	wantFiles(t, open(t, root, nil), "f")
}

func TestListingWritesNothing(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"f": "1"})
	commit(t, root)
	index := filepath.Join(root, ".git", "index")
	before, err := os.Stat(index)
	if err != nil {
		t.Fatal(err)
	}
	write(t, root, map[string]string{"f": "1"}) // the index could be refreshed now
	open(t, root, nil)
	after, err := os.Stat(index)
	if err != nil || after.ModTime() != before.ModTime() || !os.SameFile(before, after) {
		t.Errorf("git's index was written: %v", err)
	}
}

func TestDubiousOwnership(t *testing.T) {
	repo := t.TempDir()
	write(t, repo, map[string]string{"sub/f": ""})
	commit(t, repo)
	t.Setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	_, err := Open(t.Context(), filepath.Join(repo, "sub"), nil)
	if want := "git config --global --add safe.directory " + repo; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("Open = %v\nwant it to end in %s", err, want)
	}
}

func TestBrokenRepository(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{".git": "gitdir: /nonexistent", "LocalSettings.php": "secret"})
	if d, err := Open(t.Context(), root, nil); err == nil {
		t.Errorf("Open lists %q although git cannot say what is ignored", d.Files())
	}
}

func TestNestedCheckouts(t *testing.T) {
	upstream := t.TempDir()
	write(t, upstream, map[string]string{"in": "x", ".gitignore": "*.tmp\n", "deep/in": "y"})
	commit(t, upstream)

	root := t.TempDir()
	write(t, root, map[string]string{"top": "", "s-sorts-before-slash": ""})
	commit(t, root)
	gitCmd(t, root, "submodule", "add", "-q", upstream, "s")
	gitCmd(t, root, "submodule", "add", "-q", upstream, "ext/fetched")
	gitCmd(t, root, "submodule", "add", "-q", upstream, "ext/unfetched")
	gitCmd(t, root, "commit", "-qm", "submodules")
	gitCmd(t, root, "submodule", "--quiet", "deinit", "-f", "ext/unfetched")
	gitCmd(t, root, "clone", "-q", upstream, filepath.Join(root, "cloned"))
	gitCmd(t, root, "init", "-q", filepath.Join(root, "new"))
	write(t, root, map[string]string{"s/x.tmp": "", "s/untracked": "", "cloned/x.tmp": "", "new/f": "", "cloned/inner/f": ""})
	gitCmd(t, root, "init", "-q", filepath.Join(root, "cloned/inner"))
	want := []string{".gitmodules", "top", "s-sorts-before-slash", "s/in", "s/deep/in", "s/.gitignore", "s/untracked",
		"ext/fetched/in", "ext/fetched/deep/in", "ext/fetched/.gitignore",
		"cloned/in", "cloned/deep/in", "cloned/.gitignore", "cloned/inner/f", "new/f"}
	d := open(t, root, nil)
	wantFiles(t, d, want...)
	if !slices.IsSorted(d.Files()) {
		t.Error("not sorted")
	}
	if b, err := d.ReadFile("s/deep/in"); err != nil || string(b) != "y" {
		t.Errorf("ReadFile = %q, %v", b, err)
	}
	// The same checkouts under a root without git are listed by git too.
	if err := os.RemoveAll(filepath.Join(root, "s")); err != nil { // its repository is in the one that goes
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(root, "ext"))
	os.RemoveAll(filepath.Join(root, ".git"))
	want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, "s/") || strings.HasPrefix(s, "ext/") })
	wantFiles(t, open(t, root, nil), want...)

	write(t, root, map[string]string{".mwbuildignore": "cloned/\nnew/f\n"})
	wantFiles(t, open(t, root, nil), ".mwbuildignore", ".gitmodules", "top", "s-sorts-before-slash")
}

func TestIgnoreFile(t *testing.T) {
	files := map[string]string{}
	for _, p := range []string{"a/x", "a/b/x", "b/x", "build", "c/build/x", "x.md", "c/x.md", "docs/x", "c/docs/x", "file", "c/file", "sub/c/d", "with space"} {
		files[p] = ""
	}
	for _, tt := range []struct {
		name, text string
		gone       []string
	}{
		{"none", "", nil},
		{"comments and blanks", "# a/x\n\n  \n", nil},
		{"a file", "a/x\n", []string{"a/x"}},
		{"a folder without slash", "docs", []string{"docs/x"}},
		{"a folder with slashes", "/docs/\r\n", []string{"docs/x"}},
		{"a slash means folder", "file/\nbuild/", nil},
		{"anchored", "x.md", []string{"x.md"}},
		{"anywhere", "**/x.md\n**/build", []string{"x.md", "c/x.md", "build", "c/build/x"}},
		{"anywhere, folder", "**/build/", []string{"c/build/x"}},
		{"two stars", "a/**", []string{"a/x", "a/b/x"}},
		{"braces", "{a,b}/x", []string{"a/x", "b/x"}},
		{"space", "with space", []string{"with space"}},
		{"deep folder", "sub/c/", []string{"sub/c/d"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, files)
			write(t, root, map[string]string{".mwbuildignore": tt.text})
			want := []string{".mwbuildignore"}
			for p := range files {
				if !slices.Contains(tt.gone, p) {
					want = append(want, p)
				}
			}
			wantFiles(t, open(t, root, nil), want...)
			commit(t, root)
			wantFiles(t, open(t, root, nil), want...)
		})
	}
	root := t.TempDir()
	write(t, root, map[string]string{".mwbuildignore": "ok\n!a/x\n[\n../x\n"})
	_, err := Open(t.Context(), root, nil)
	for _, want := range []string{".mwbuildignore:2: !a/x", ".mwbuildignore:3: [", ".mwbuildignore:4: ../x"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not contain %q", err, want)
		}
	}
}

func TestFindRoot(t *testing.T) {
	top := t.TempDir()
	write(t, top, map[string]string{"WORKSPACE": "", "a/WORKSPACE.star": "", "a/b/f": "", "c/WORKSPACE/f": "", "d/f": ""})
	for dir, want := range map[string]string{"": "", "a": "a", "a/b": "a", "c": "", "c/WORKSPACE": "", "d": ""} {
		got, err := FindRoot(filepath.Join(top, dir))
		if want = filepath.Join(top, want); err != nil || got != want {
			t.Errorf("FindRoot(%s) = %s, %v, want %s", dir, got, err, want)
		}
	}
	none := t.TempDir()
	if _, err := FindRoot(none); err == nil || !strings.Contains(err.Error(), none) || !strings.Contains(err.Error(), "-C") {
		t.Errorf("FindRoot(nothing) = %v", err)
	}
}

func TestSymlinksAndReading(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	write(t, filepath.Dir(outside), map[string]string{"secret": "secret"})
	root := t.TempDir()
	write(t, root, map[string]string{
		".gitignore": "ignored", "ignored": "i", "dir/f": "text", "dir/up": "-> ../top", "top": "top", "to/dir": "-> ../dir", "twice": "-> to/dir/../dir/f",
		"chain": "-> to/dir/up", "abs": "-> " + outside, "rel": "-> ../../../../../../../../.." + outside, "loop": "-> loop", "hidden": "-> ignored",
		"folder": "-> dir", "dangling": "-> nowhere",
	})
	commit(t, root)
	d := open(t, root, nil)
	for p, want := range map[string]string{"dir/f": "text", "dir/up": "top", "twice": "text", "chain": "top"} {
		if b, err := d.ReadFile(p); err != nil || string(b) != want {
			t.Errorf("ReadFile(%s) = %q, %v, want %q", p, b, err, want)
		}
	}
	for p, want := range map[string]string{
		"abs": "out of the workspace", "rel": "out of the workspace", "loop": "circle", "hidden": "ignore", "folder": "folder",
		"dangling": "not exist", "nowhere": "not exist", "../" + filepath.Base(root) + "/top": "not exist", "dir/../top": "not exist",
		outside: "not exist", "dir": "folder", "": "not exist",
	} {
		if b, err := d.ReadFile(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadFile(%s) = %q, %v, want an error with %q", p, b, err, want)
		}
	}
	if at, err := d.Resolve("chain"); at != "top" || err != nil {
		t.Errorf("Resolve(chain) = %s, %v", at, err)
	}

	// What becomes a symlink after the listing is not followed out.
	os.Remove(filepath.Join(root, "top"))
	os.RemoveAll(filepath.Join(root, "dir"))
	write(t, root, map[string]string{"top": "-> " + outside, "dir": "-> " + filepath.Dir(outside)})
	write(t, filepath.Dir(outside), map[string]string{"f": "secret"})
	for _, p := range []string{"top", "dir/f"} {
		if b, err := d.ReadFile(p); err == nil {
			t.Errorf("ReadFile(%s) = %q after it became a symlink", p, b)
		}
		if _, err := d.Digest(p); err == nil {
			t.Errorf("Digest(%s) succeeded after it became a symlink", p)
		}
	}
}

func TestTrackedFifo(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"f": ""})
	commit(t, root)
	p := filepath.Join(root, "f")
	os.Remove(p)
	if err := syscall.Mkfifo(p, 0o644); err != nil {
		t.Fatal(err)
	}
	d := open(t, root, nil)
	wantFiles(t, d, "f")
	if _, err := d.ReadFile("f"); err == nil || !strings.Contains(err.Error(), "fifo") {
		t.Errorf("ReadFile = %v", err)
	}
	if _, err := d.Digest("f"); err == nil || !strings.Contains(err.Error(), "fifo") {
		t.Errorf("Digest = %v", err)
	}
	os.RemoveAll(filepath.Join(root, ".git"))
	wantFiles(t, open(t, root, nil))
}

func TestCancelled(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"f": ""})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, root, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Open without git = %v", err)
	}
	commit(t, root)
	if _, err := Open(ctx, root, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Open = %v", err)
	}
	if err := open(t, root, nil).DigestAll(ctx, []string{"f"}, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("DigestAll = %v", err)
	}
}

func TestIgnored(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{".gitignore": "*.log\n/out/\n", ".mwbuildignore": "dist/\n", "f": ""})
	gitCmd(t, root, "init", "-q")
	d := open(t, root, nil)
	for path, want := range map[string]bool{
		"a.log": true, "out": true, "out/wiki.tar": true, "dist": true, "dist/wiki.tar": true, "wiki.tar": false, "sub/out": false, "f": false,
	} {
		if got := d.Ignored(t.Context(), path); got != want {
			t.Errorf("Ignored(%q) = %v, want %v", path, got, want)
		}
	}
}

// However often git's index is written while a tree is listed, what lies there all the time is listed, tracked or not.
func TestListingWhileGitAdds(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"moved.txt": "", "folder/moved.txt": ""}
	for i := range 300 {
		files[fmt.Sprintf("d%d/a", i)] = ""
	}
	write(t, dir, files)
	commit(t, dir)
	want := slices.Sorted(maps.Keys(files))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			args := [][]string{{"rm", "-q", "-r", "--cached", "moved.txt", "folder"}, {"add", "moved.txt", "folder"}}[i%2]
			gitCmd(t, dir, args...)
		}
	})
	defer wg.Wait()
	defer cancel()
	for range 40 {
		if diff := cmp.Diff(want, open(t, dir, nil).Files()); diff != "" {
			t.Fatalf("files (-want +got):\n%s", diff)
		}
	}
}

// With openat2 and without it, the same is opened and the same refused.
func TestOpenBelow(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	write(t, outside, map[string]string{"f": "secret"})
	write(t, root, map[string]string{"d/f": "text", "d/near": "-> f", "d/up": "-> ../d/f", "near": "-> d", "out": "-> " + outside, "d/out": "-> ../../" + filepath.Base(outside) + "/f"})
	d := open(t, root, nil)
	for path, want := range map[string]string{
		"d/f": "text", "d/near": "text", "d/up": "text", "near/f": "text", "out/f": "escapes", "d/out": "escapes", "d/none": "no such file", "d/f/g": "not a directory",
	} {
		for _, old := range []bool{false, true} {
			d.noOpenat2.Store(old)
			got := ""
			fd, err := d.openBelow(path)
			switch {
			case errors.Is(err, unix.EXDEV): // what openat2 says
				got = "escapes"
			case err != nil:
				got = err.Error()
			default:
				b := make([]byte, 100)
				n, _ := unix.Read(fd, b)
				got = string(b[:n])
				unix.Close(fd)
			}
			if !strings.Contains(got, want) {
				t.Errorf("openBelow(%s), without openat2 %v: %s, want %s", path, old, got, want)
			}
		}
	}
	d.noOpenat2.Store(false)
	fd, err := d.openBelow("d/f")
	if err != nil || d.noOpenat2.Load() {
		t.Fatalf("this kernel has no openat2: %v", err)
	}
	unix.Close(fd)
}
