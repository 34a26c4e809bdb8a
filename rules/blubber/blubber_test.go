package blubber

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what the golden files are to be")

// show writes a plan as people read it.
func show(images []Image) string {
	var b strings.Builder
	dict := func(what string, m map[string]string) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(&b, "    %s %s = %s\n", what, k, m[k])
		}
	}
	for _, im := range images {
		fmt.Fprintf(&b, "variant %s on %q as %s in %s, entrypoint %q\n", im.Variant, im.Base, im.User, im.Workdir, im.Entrypoint)
		dict("env", im.Env)
		for _, s := range im.Steps {
			fmt.Fprintf(&b, "  %s:", s.Name)
			switch {
			case s.Argv != nil:
				fmt.Fprintf(&b, " %s, network %v, as %s in %s\n", s.Argv[1], s.Network, s.User, s.Workdir)
				for line := range strings.Lines(s.Argv[2]) {
					b.WriteString("    | " + strings.TrimSuffix(line, "\n") + "\n")
				}
				dict("env", s.Env)
			case s.From != "":
				fmt.Fprintf(&b, " %s of %s to %s (into a folder: %v) of %s\n", s.Source, s.From, s.Prefix, s.Into, s.Owner)
			case s.Renamed != "":
				fmt.Fprintf(&b, " %s becomes %s of %s\n", s.Files, s.Renamed, s.Owner)
			default:
				fmt.Fprintf(&b, " %s less %q below %q of %s (folder: %v)\n", s.Files, s.Strip, s.Prefix, s.Owner, s.Folder)
			}
			dict("folder", s.Folders)
			dict("cache", s.Caches)
		}
	}
	return b.String()
}

// Each archive of testdata has a configuration, the files beside it, options, and what becomes of them.
func TestPlan(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) < 3 {
		t.Fatal(archives, err)
	}
	for _, name := range archives {
		t.Run(filepath.Base(name), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var config, ignore []byte
			var o struct {
				Variant            string
				Arguments, BaseEnv map[string]string
			}
			var files []string
			keep := a.Files[:0:0]
			want := map[string]string{}
			for _, f := range a.Files {
				switch f.Name {
				case "want", "want.rules":
					want[f.Name] = string(f.Data)
					continue
				case "options":
					if err := json.Unmarshal(f.Data, &o); err != nil {
						t.Fatal(err)
					}
				case "blubber.yaml":
					config = f.Data
				case ".dockerignore":
					ignore = f.Data
					fallthrough
				default:
					files = append(files, f.Name)
				}
				keep = append(keep, f)
			}
			slices.Sort(files)
			opts := Options{Files: files, Ignore: ignore, Arguments: o.Arguments, BaseEnv: o.BaseEnv}
			c, errs := Parse("blubber.yaml", config)
			got := map[string]string{}
			if len(errs) > 0 {
				got["want"] = joined(errs).Error() + "\n"
			} else if images, err := c.Plan(o.Variant, opts); err != nil {
				got["want"] = err.Error() + "\n"
			} else {
				got["want"] = show(images)
				rules, err := c.Generate("app", []string{o.Variant}, opts)
				if err != nil {
					got["want.rules"] = err.Error() + "\n"
				}
				for _, r := range rules {
					got["want.rules"] += r.Text
				}
			}
			if *update {
				a.Files = keep
				for _, n := range slices.Sorted(maps.Keys(got)) {
					a.Files = append(a.Files, txtar.File{Name: n, Data: []byte(got[n])})
				}
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// Each piece of the file is a configuration, and after ### what is wrong with it.
func TestErrors(t *testing.T) {
	text, err := os.ReadFile("testdata/errors")
	if err != nil {
		t.Fatal(err)
	}
	pieces := strings.Split(string(text), "\n---\n")
	if len(pieces) < 20 {
		t.Fatalf("only %d pieces", len(pieces))
	}
	for i, piece := range pieces {
		config, want, _ := strings.Cut(piece, "### ")
		var got string
		c, errs := Parse("b.yaml", []byte(config))
		if len(errs) > 0 {
			got = joined(errs).Error()
		} else {
			for _, v := range c.Whole() {
				if _, err := c.Plan(v, Options{Files: []string{"a", "src/b"}}); err != nil {
					got = err.Error()
					break
				}
			}
		}
		want = strings.TrimSpace(strings.ReplaceAll(want, "\n### ", "\n    "))
		if got != want {
			t.Errorf("piece %d:\n%s\ngot:  %s\nwant: %s", i+1, config, got, want)
		}
	}
}

// Whatever a configuration says, it is read or refused.
func FuzzParse(f *testing.F) {
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range archives {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data)
	}
	f.Add([]byte("version: v4\nvariants: {a: {copies: [b], includes: [b]}, b: {includes: [a]}}\n"))
	f.Add([]byte("version: v4\na: &a [*a]\nvariants: {x: &x {includes: [x], <<: *x}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, errs := Parse("b.yaml", text)
		if len(errs) > 0 {
			return
		}
		for _, v := range c.Variants() {
			images, err := c.Plan(v, Options{Files: []string{"a", "src/b"}})
			if err == nil && images[len(images)-1].Variant != v {
				t.Errorf("the last image of %s is %s", v, images[len(images)-1].Variant)
			}
		}
	})
}
