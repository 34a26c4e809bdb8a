package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/mwbuild/mwbuild/build/affected"
)

// memoFile is where what is known of the workspace's packages, in one configuration, lies. It is a file of its own: commands
// that only read neither wait for a build's database nor lock it.
func (o *opened) memoFile() string {
	return filepath.Join(o.cacheDir, "packages", fmt.Sprintf("%x", sha256.Sum256([]byte(o.root+o.configuration()))))
}

// memo returns what is remembered of packages; nothing, where that cannot be read.
func (o *opened) memo() *affected.Memo {
	if data, err := os.ReadFile(o.memoFile()); err == nil {
		if m, err := affected.DecodeMemo(data); err == nil {
			return m
		}
	}
	return &affected.Memo{}
}

// remember keeps what was learned of packages. A cache that cannot be written costs time, no more.
func (o *opened) remember(m *affected.Memo) {
	if !m.Fresh() {
		return
	}
	err := os.MkdirAll(filepath.Dir(o.memoFile()), 0o755)
	if err == nil {
		err = renameio.WriteFile(o.memoFile(), m.Encode(), 0o644)
	}
	if err != nil {
		o.app.log.Debug("packages are not remembered", "error", err)
	}
}

// program tells this binary from others, for what is remembered.
func program() string {
	exe, err := os.Executable()
	if err != nil {
		return version()
	}
	fi, err := os.Stat(exe)
	if err != nil {
		return version()
	}
	return fmt.Sprintf("%s %d %d", version(), fi.Size(), fi.ModTime().UnixNano())
}
