package workspace

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A Worktree is a tree on disk whose files are named as git would name them if they were added now: by the index where they
// hold what it says, else by hashing, filters and line endings of .gitattributes applied. So it can be compared with a
// [Revision]. It reads the index and does not write it. It may be used concurrently.
type Worktree struct {
	*Disk
	ctx    context.Context
	once   sync.Once
	ids    map[string]string // by path
	absent map[string]string
	err    error
}

var _ Tree = (*Worktree)(nil)

// NewWorktree returns the worktree of a tree that was listed. Nothing is asked of git before it has to be.
func NewWorktree(ctx context.Context, d *Disk) *Worktree { return &Worktree{Disk: d, ctx: ctx} }

// Blob returns git's name of the bytes at path, or of a symlink's target, hexadecimal.
func (w *Worktree) Blob(path string) (string, error) {
	if err := w.ask(); err != nil {
		return "", err
	}
	if id, ok := w.ids[path]; ok {
		return id, nil
	}
	_, err := w.lookup(path)
	if err == nil {
		err = &ChangedError{Path: path, What: "made"}
	}
	return "", err
}

// Absent are the submodules that are not checked out, by path: the commit that the index has for each.
func (w *Worktree) Absent() (map[string]string, error) {
	err := w.ask()
	return w.absent, err
}

func (w *Worktree) ask() error {
	w.once.Do(func() {
		w.ids, w.absent = map[string]string{}, map[string]string{}
		w.err = w.name("")
	})
	return w.err
}

// name finds the names of the files in the checkout dir, the root or a submodule.
func (w *Worktree) name(dir string) error {
	at := w.abs(dir)
	staged, err := revisionGit(w.ctx, at, "ls-files", "-s", "-v", "-z")
	if err != nil {
		return err
	}
	changed, err := w.changed(dir)
	if err != nil {
		return err
	}
	var subs []string
	for rest := string(staged); rest != ""; {
		entry, after, _ := strings.Cut(rest, "\x00") // "TAG MODE OBJECT STAGE<tab>PATH"
		rest = after
		about, name, _ := strings.Cut(entry, "\t")
		fields := strings.Fields(about)
		if len(fields) != 4 {
			continue
		}
		// Of others git was told not to look whether they changed: they are assumed not to have, or not checked out.
		looked := fields[0] == "H"
		fields = fields[1:]
		path := join(dir, name)
		switch {
		case fields[0] == "160000":
			if _, err := os.Lstat(filepath.Join(w.abs(path), ".git")); err == nil {
				subs = append(subs, path)
			} else {
				w.absent[path] = fields[1]
			}
		case fields[2] == "0" && looked && !changed[path]:
			w.ids[path] = fields[1]
		}
	}
	for _, sub := range subs {
		if err := w.name(sub); err != nil {
			return err
		}
	}
	var rest []File
	for i, p := range w.paths {
		if _, ok := w.ids[p]; !ok && (dir == "" || strings.HasPrefix(p, dir+"/")) {
			rest = append(rest, w.files[i])
		}
	}
	return w.hash(dir, rest)
}

// changed returns the files of a checkout that are not, or may not be, what its index says.
func (w *Worktree) changed(dir string) (map[string]bool, error) {
	at, changed := w.abs(dir), map[string]bool{}
	out, err := revisionGit(w.ctx, at, "diff-files", "-z", "--name-only", "--relative", "--ignore-submodules=all")
	if err != nil || len(out) == 0 {
		return changed, err
	}
	// A file whose times alone differ is there too. Git reads these to tell, and knows best how it turns what it reads into
	// what it keeps. Its diff would do, but writes what it learns into the index.
	prefix, err := revisionGit(w.ctx, at, "rev-parse", "--show-prefix")
	if err != nil {
		return nil, err
	}
	out, err = revisionGit(w.ctx, at, "status", "--porcelain", "-z", "--untracked-files=no", "--no-renames", "--ignore-submodules=all", "--", ".")
	for entry := range strings.SplitSeq(string(out), "\x00") { // "XY PATH": of the index, and of the file
		name, ok := strings.CutPrefix(entry[min(3, len(entry)):], strings.TrimSuffix(string(prefix), "\n"))
		if ok && entry != "" && entry[1] != ' ' {
			changed[join(dir, name)] = true
		}
	}
	return changed, err
}

// hash names files by their bytes.
func (w *Worktree) hash(dir string, files []File) error {
	if len(files) == 0 {
		return nil
	}
	about, err := revisionGit(w.ctx, w.abs(dir), "rev-parse", "--show-object-format", "--show-prefix", "--show-toplevel")
	if err != nil {
		return err
	}
	format, places, _ := strings.Cut(string(about), "\n")
	prefix, top, _ := strings.Cut(places, "\n")
	var in strings.Builder
	var paths []string
	for _, f := range files {
		switch {
		case f.special:
			if _, err := w.Digest(f.Path); err != nil {
				return err
			}
		case f.Mode == Symlink: // no filter applies to it
			w.ids[f.Path] = blobName(format, f.Target)
		default:
			paths = append(paths, f.Path)
			in.WriteString(quoteLine(prefix+strings.TrimPrefix(strings.TrimPrefix(f.Path, dir), "/")) + "\n")
		}
	}
	if len(paths) == 0 {
		return nil
	}
	// Names on its standard input are those below the top, wherever it starts.
	cmd := gitCommand(w.ctx, strings.TrimSuffix(top, "\n"), "hash-object", "--stdin-paths")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in.String()), &out, &errs
	if err := cmd.Run(); err != nil {
		if w.ctx.Err() != nil {
			return w.ctx.Err()
		}
		return fmt.Errorf("git hash-object in %s: %w\n%s", w.abs(dir), err, strings.TrimSpace(errs.String()))
	}
	ids := strings.Fields(out.String())
	if len(ids) != len(paths) {
		return fmt.Errorf("git hash-object in %s named %d of %d files", w.abs(dir), len(ids), len(paths))
	}
	for i, p := range paths {
		w.ids[p] = ids[i]
	}
	return nil
}

// blobName is git's name of a text that no filter applies to, in a repository of that object format.
func blobName(format, text string) string {
	data := fmt.Appendf(nil, "blob %d\x00%s", len(text), text)
	if format == "sha256" {
		return fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return fmt.Sprintf("%x", sha1.Sum(data))
}

// quoteLine quotes a path in the way of C where git, reading one a line, would take it for another.
func quoteLine(path string) string {
	if !strings.HasPrefix(path, `"`) && !strings.ContainsAny(path, "\r\n") {
		return path
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", `\r`, "\n", `\n`).Replace(path) + `"`
}
