package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// lockUnpacked takes the lock of a folder of unpacked layers: alone, if that can be had at once, or with others.
func lockUnpacked(dir string, alone bool) (unlock func(), ok bool, err error) {
	if _, err := os.Stat(dir); alone && errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, false, err
	}
	l := flock.New(filepath.Join(dir, "lock"))
	if alone {
		ok, err = l.TryLock()
	} else {
		ok, err = true, l.RLock()
	}
	return func() { l.Close() }, ok, err
}

// unpack returns the folders with the layers' files, lowest first, and unpacks those that are not there.
func unpack(ctx context.Context, s Spec) ([]string, error) {
	store, err := local.NewStore(s.Store)
	if err != nil {
		return nil, err
	}
	dirs := make([]string, len(s.Layers))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	begun := map[string]bool{}
	for i, l := range s.Layers {
		dirs[i] = filepath.Join(s.Unpacked, strings.TrimPrefix(l.DiffID, "sha256:"))
		if _, err := os.Stat(dirs[i]); err == nil || begun[dirs[i]] {
			continue
		}
		begun[dirs[i]] = true
		g.Go(func() error {
			if err := unpackLayer(ctx, store, l, dirs[i], s.UserNamespace); err != nil {
				return fmt.Errorf("unpack layer %s: %w", l.Descriptor.Digest, err)
			}
			return nil
		})
	}
	return dirs, g.Wait()
}

// unpackLayer makes the folder dir, whole or not at all.
func unpackLayer(ctx context.Context, store content.Provider, l Layer, dir string, userNamespace bool) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	blob, err := store.ReaderAt(ctx, l.Descriptor)
	if err != nil {
		return err
	}
	defer blob.Close()
	r, err := compression.DecompressStream(content.NewReader(blob))
	if err != nil {
		return err
	}
	defer r.Close()
	want := digest.Digest(l.DiffID)
	verifier := want.Verifier()
	data := io.TeeReader(r, verifier)
	if _, err := archive.Apply(ctx, tmp, data, archive.WithConvertWhiteout(whiteouts(userNamespace))); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, data); err != nil {
		return err
	}
	if !verifier.Verified() {
		return errors.New("it is damaged in the cache: build again")
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return os.RemoveAll(tmp) // if somebody else was faster
}

const (
	whiteoutPrefix = ".wh."
	opaqueMark     = ".wh..wh..opq"
)

// whiteouts says what is deleted as overlayfs wants to hear it: below root a device of number 0, and an attribute of folders that hide all that is below.
func whiteouts(userNamespace bool) archive.ConvertWhiteout {
	opaque := "trusted.overlay.opaque"
	if userNamespace {
		opaque = "user.overlay.opaque"
	}
	return func(h *tar.Header, file string) (bool, error) {
		dir, base := filepath.Split(file)
		if base == opaqueMark {
			return false, unix.Setxattr(dir, opaque, []byte("y"), 0)
		}
		name, ok := strings.CutPrefix(base, whiteoutPrefix)
		if !ok {
			return true, nil
		}
		hidden := filepath.Join(dir, name)
		if err := unix.Mknod(hidden, unix.S_IFCHR, 0); err != nil {
			return false, err
		}
		return false, os.Lchown(hidden, h.Uid, h.Gid)
	}
}
