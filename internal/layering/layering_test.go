package layering

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestModule holds the imports of the module as they are to the tables.
func TestModule(t *testing.T) {
	// Looked at here, every Go file is an input that the cache of test results knows of; what go list reads is not.
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	imports := map[string][]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		imports[p.ImportPath] = p.Imports
	}
	if len(imports[module+"cmd/mwbuild"]) == 0 {
		t.Fatal("cmd/mwbuild is not among the packages that were listed")
	}
	for _, v := range violations(imports) {
		t.Error(v)
	}
}

// TestViolations breaks each kind of rule once.
func TestViolations(t *testing.T) {
	for _, c := range []struct {
		name    string
		imports map[string][]string
		want    string // in the one violation; "" is none
	}{
		{"allowed", map[string][]string{module + "build/plan": {module + "graph", "fmt"}}, ""},
		{"no row", map[string][]string{module + "build/magic": {}}, "build/magic: no row"},
		{"folder above", map[string][]string{module + "internal/workspace": {module + "starlark/load"}}, "internal does not stand on starlark"},
		{"folder beside", map[string][]string{module + "graph": {module + "cache"}}, "graph does not stand on cache"},
		{"library elsewhere", map[string][]string{module + "cmd/mwbuild": {"go.etcd.io/bbolt"}}, "only build/buildkit may"},
		{"direct", map[string][]string{module + "graph": {"os"}}, "graph imports os"},
		{"through a library", map[string][]string{module + "graph": {"example.org/lib"}, "example.org/lib": {"go.starlark.net/syntax"}}, "graph → example.org/lib → go.starlark.net/syntax"},
		{"through another package", map[string][]string{module + "build/plan": {module + "build/image"}, module + "build/image": {}, module + "graph": {}}, ""},
		{"row of names", map[string][]string{module + "starlark/buildfile": {module + "graph"}}, "may import only"},
		{"longer name", map[string][]string{module + "build/lower": {"example.org/cache"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := violations(c.imports)
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
				t.Errorf("violations = %q, want one with %q", got, c.want)
			}
		})
	}
}
