//go:build live

package buildfile

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// released installs the buildifier that npm has, for this test alone. It is older than our library.
func released(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	npm := exec.Command("npm", "install", "--silent", "--no-save", "--prefix", dir, "@bazel/buildifier@8.2.1")
	if os.Getenv("NODE_EXTRA_CA_CERTS") == "" {
		// npm has certificates of its own; those of the machine count too, as for Go and apt.
		npm.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt")
	}
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm: %v\n%s", err, out)
	}
	return filepath.Join(dir, "node_modules/.bin/buildifier")
}

// ofLibrary builds the buildifier of our library's version.
func ofLibrary(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	install := exec.Command("go", "install", "github.com/bazelbuild/buildtools/buildifier@"+version)
	install.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("go install: %v\n%s", err, out)
	}
	return filepath.Join(dir, "buildifier")
}

// Format agrees with buildifier itself: with npm's on our fixtures, on the built-in rules and on what the generator reads and
// writes, and with that of our library's version on its library's own test files too.
func TestAgreesWithBuildifier(t *testing.T) {
	sources := map[string][]byte{} // by a path whose last element says how to format it
	add := func(name, file string) {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sources[name] = src
	}
	glob := func(pattern string) []string {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, "matches nothing", err)
		}
		return files
	}
	for _, f := range glob("testdata/format/*.in") {
		base := strings.TrimSuffix(filepath.Base(f), ".in")
		name, file, _ := strings.Cut(base, ".")
		if file == "bzl" || file == "star" {
			file = base
		}
		add("fixture/"+name+"/"+file, f)
	}
	for _, f := range glob("../../rules/*.star") {
		add("rules/"+filepath.Base(f), f)
	}
	for _, f := range glob("../../rules/gen/testdata/*.txtar") {
		archive, err := txtar.ParseFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range archive.Files {
			switch path.Base(file.Name) {
			case "BUILD", "BUILD.star", "WORKSPACE":
				sources["gen/"+filepath.Base(f)+"/"+file.Name] = file.Data
			}
		}
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", "github.com/bazelbuild/buildtools").Output()
	if err != nil {
		t.Fatal(err)
	}
	ours := len(sources)
	dir, version, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	for _, f := range glob(filepath.Join(dir, "build/testdata/*.in")) {
		for _, as := range []string{"BUILD", "WORKSPACE", "x.bzl", "x.star"} {
			add("buildtools/"+filepath.Base(f)+"/"+as, f)
		}
	}

	t.Run("npm", func(t *testing.T) {
		bin := released(t)
		if alike := compare(t, bin, sources, func(name string) bool { return !strings.HasPrefix(name, "buildtools/") }); alike != ours {
			t.Errorf("%d files compared, want %d", alike, ours)
		}
	})
	t.Run("library", func(t *testing.T) {
		compare(t, ofLibrary(t, version), sources, func(string) bool { return true })
	})
}

// compare formats sources with a buildifier and with Format, and returns how many it compared.
func compare(t *testing.T, bin string, sources map[string][]byte, use func(name string) bool) int {
	formatted, refused := 0, 0
	for name, src := range sources {
		if !use(name) {
			continue
		}
		cmd := exec.Command(bin, "-path="+path.Base(name), "-type="+fileType(name))
		cmd.Stdin = bytes.NewReader(src)
		want, theirErr := cmd.Output()
		got, err := formatOnce(name, src)
		var serr *SyntaxError
		switch {
		case errors.As(err, &serr) && theirErr != nil:
			refused++
			continue
		case err != nil || theirErr != nil:
			t.Errorf("%s: error %v, buildifier's %v", name, err, theirErr)
			continue
		}
		formatted++
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-buildifier +Format):\n%s", name, diff)
		}
		if final, err := Format(name, src); err != nil || !bytes.Equal(final, got) {
			t.Logf("%s: buildifier needs a second run for its final form (%v)", name, err)
		}
	}
	t.Logf("%d files formatted alike, %d refused by both", formatted, refused)
	return formatted + refused
}

// fileType is what buildifier calls the type of a file.
func fileType(name string) string {
	switch base := path.Base(name); {
	case base == "BUILD" || base == "BUILD.star":
		return "build"
	case base == "WORKSPACE":
		return "workspace"
	case path.Ext(base) == ".bzl":
		return "bzl"
	}
	return "default"
}
