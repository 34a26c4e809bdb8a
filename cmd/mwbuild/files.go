package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
)

// buildFiles builds the files that t stands for into folder dest, flat.
//
// A folder that was not there appears when all is written. One that is there may hold nothing but files of these names;
// those that differ are replaced one by one, so that whoever reads them meanwhile finds each whole.
func (a *app) buildFiles(ctx context.Context, b *build.Builder, t *graph.Target, dest string) (*build.Result, error) {
	names := map[string]bool{}
	for _, f := range t.Files {
		names[filepath.Base(f.Path)] = true
	}
	entries, err := os.ReadDir(dest)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), partial) {
			if err := os.Remove(filepath.Join(dest, e.Name())); err != nil {
				return nil, err
			}
			continue
		}
		if !names[e.Name()] || !e.Type().IsRegular() {
			return nil, usagef("%s holds %s, which is none of the files of %s\n    mwbuild does not delete what it did not make: name an empty folder, or remove it", dest, e.Name(), t.Label)
		}
	}
	dir := dest
	if fresh {
		if err := os.MkdirAll(filepath.Dir(dest), 0o777); err != nil {
			return nil, err
		}
		if dir, err = os.MkdirTemp(filepath.Dir(dest), ".mwbuild-export-"); err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			return nil, err
		}
	}
	res, err := b.BuildFiles(ctx, t, folder{dir: dir, fresh: fresh, direct: &directWriter{}})
	if err == nil && len(res.Errors) == 0 && fresh {
		err = os.Rename(dir, dest)
	}
	if err != nil {
		err = fmt.Errorf("write to %s: %w", dest, err)
	}
	return res, err
}

// partial begins the names of files that are being written; a killed build may leave some.
const partial = ".mwbuild-partial-"

// folder is a build.Receiver that writes files below dir.
type folder struct {
	dir   string
	fresh bool // nobody sees it yet

	direct *directWriter
}

func (d folder) Has(f action.File) bool {
	if d.fresh {
		return false
	}
	file, err := os.Open(filepath.Join(d.dir, filepath.Base(f.Path)))
	if err != nil {
		return false
	}
	defer file.Close()
	if fi, err := file.Stat(); err != nil || fi.Size() != f.Size {
		return false
	}
	h := sha256.New()
	_, err = io.Copy(h, file)
	return err == nil && hex.EncodeToString(h.Sum(nil)) == f.SHA256
}

func (d folder) Put(f action.File, data []byte) error {
	name := filepath.Join(d.dir, filepath.Base(f.Path))
	if d.fresh {
		return d.direct.writeFile(name, data, 0o644)
	}
	tmp, err := os.CreateTemp(d.dir, partial)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}
