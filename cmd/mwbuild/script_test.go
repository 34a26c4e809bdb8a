package main

import (
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mwbuild/mwbuild/internal/aptrepo"
)

var updateScripts = flag.Bool("update", false, "rewrite the expected output in scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mwbuild": main})
}

// The scripts need no engine. Their names are COMMAND_CASE.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *updateScripts,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"appendline": appendLine, "touchall": touchAll, "samelines": compareLines(true), "difflines": compareLines(false),
			"holdlock": holdLock, "releaselock": releaseLock, "waitfor": waitFor, "readonly": readOnly, "unprivileged": unprivileged,
			"debianarchive": debianArchive, "startregistry": startRegistry, "documents": documents,
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir+"/.home")
			env.Setenv("XDG_CACHE_HOME", env.WorkDir+"/.cache")
			env.Setenv("TZ", "UTC")
			return nil
		},
	})
}

// appendLine FILE LINE adds a line to a file.
func appendLine(ts *testscript.TestScript, _ bool, args []string) {
	file := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(file, []byte(ts.ReadFile(args[0])+args[1]+"\n"), 0o666))
}

// touchAll DIR gives every file in DIR another time.
func touchAll(ts *testscript.TestScript, _ bool, args []string) {
	then := time.Now().Add(-time.Hour)
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chtimes(path, then, then)
	}))
}

// compareLines makes a command FILE FILE WORD…: the lines of both files that begin with each of the words, which are there,
// are the same in both, or differ.
func compareLines(same bool) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		pick := func(file, word string) (lines string) {
			for _, l := range strings.Split(ts.ReadFile(file), "\n") {
				if strings.HasPrefix(l, word+" ") {
					lines += l + "\n"
				}
			}
			if lines == "" {
				ts.Fatalf("%s: no line begins with %s", file, word)
			}
			return lines
		}
		for _, word := range args[2:] {
			a, b := pick(args[0], word), pick(args[1], word)
			if (a == b) != same {
				ts.Fatalf("%s: same lines: %v, want %v\n%s%s", word, a == b, same, a, b)
			}
		}
	}
}

// debianArchive DIR SUITE DATE FILE makes an archive of Debian packages, signed with a key that is written to DIR.gpg. A line of FILE is a
// package: its name, version, and fields such as Depends:a,b. DATE is "now", or a time.Duration before that; the archive is valid for a week.
func debianArchive(ts *testscript.TestScript, _ bool, args []string) {
	var packages []aptrepo.Package
	for _, line := range strings.Split(strings.TrimSpace(ts.ReadFile(args[3])), "\n") {
		f := strings.Fields(line)
		p := aptrepo.Package{Name: f[0], Version: f[1], Files: map[string]string{"usr/share/doc/" + f[0] + "/version": f[1]}}
		for _, field := range f[2:] {
			p.Control += strings.Replace(field, ":", ": ", 1) + "\n"
		}
		packages = append(packages, p)
	}
	date := time.Now()
	if args[2] != "now" {
		ago, err := time.ParseDuration(args[2])
		ts.Check(err)
		date = date.Add(-ago)
	}
	key, err := aptrepo.NewKey()
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(key.Write(dir, aptrepo.Suite{Name: args[1], Date: date, ValidUntil: date.Add(7 * 24 * time.Hour), Packages: packages}))
	ts.Check(os.WriteFile(dir+".gpg", key.Public(), 0o644))
}

// startRegistry VARIABLE [referrers] starts an empty registry, and puts where it listens into the environment. With referrers it has the API for them.
func startRegistry(ts *testscript.TestScript, _ bool, args []string) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(len(args) > 1)))
	ts.Defer(server.Close)
	ts.Setenv(args[0], strings.TrimPrefix(server.URL, "http://"))
}

// documents IMAGE DIR asks a registry, as any client can, what refers to an image. DIR/list gets a line of it each: the type, and the file that it becomes in DIR.
func documents(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	subject, err := remote.Head(ref)
	ts.Check(err)
	index, err := remote.Referrers(ref.Context().Digest(subject.Digest.String()))
	ts.Check(err)
	manifest, err := index.IndexManifest()
	ts.Check(err)
	dir := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(dir, 0o755))
	var lines []string
	for _, d := range manifest.Manifests {
		im, err := remote.Image(ref.Context().Digest(d.Digest.String()))
		ts.Check(err)
		m, err := im.Manifest()
		ts.Check(err)
		if m.Subject.Digest != subject.Digest {
			ts.Fatalf("%s refers to %s", d.Digest, m.Subject.Digest)
		}
		layers, err := im.Layers()
		ts.Check(err)
		text, err := layers[0].Compressed()
		ts.Check(err)
		b, err := io.ReadAll(text)
		ts.Check(err)
		file := m.Layers[0].Annotations["org.opencontainers.image.title"]
		ts.Check(os.WriteFile(filepath.Join(dir, file), b, 0o644))
		lines = append(lines, fmt.Sprintf("%s %s\n", m.Layers[0].MediaType, file))
	}
	slices.Sort(lines)
	ts.Check(os.WriteFile(filepath.Join(dir, "list"), []byte(strings.Join(lines, "")), 0o644))
}
