//go:build live

package laid

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Tree returns the tree of MediaWiki that a suite of Debian has, trixie or bookworm, for the test to read; who changes it
// clones it. $MEDIAWIKI_TREE_TRIXIE and its like name one that is there already.
func Tree(t testing.TB, suite string) string {
	t.Helper()
	if dir := os.Getenv("MEDIAWIKI_TREE_" + strings.ToUpper(suite)); dir != "" {
		return dir
	}
	dir := filepath.Join(t.TempDir(), "mediawiki")
	if out, err := exec.Command(script(t), dir, suite).CombinedOutput(); err != nil {
		t.Fatalf("lay: %v\n%s", err, out)
	}
	return dir
}

// script finds examples/mediawiki/lay: a test runs in the folder of its package.
func script(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		lay := filepath.Join(dir, "examples/mediawiki/lay")
		if _, err := os.Stat(lay); err == nil {
			return lay
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("examples/mediawiki/lay is in no folder above")
		}
		dir = filepath.Dir(dir)
	}
}
