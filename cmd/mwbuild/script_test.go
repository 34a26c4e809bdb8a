package main

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
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
