//go:build live

package gen

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/internal/laid"
	"github.com/mwbuild/mwbuild/starlark/buildfile"
)

// The graph that Generate infers from a real tree is what an independent reading of manifests and a grep for isLoaded give: no
// edge is missed, none invented. The table shows both.
func TestGraphOfRealTree(t *testing.T) {
	root := laid.Tree(t, "trixie")
	got := map[string][2][]string{} // folder to deps and soft_deps
	res := generate(t, root)
	files := map[string][]byte{}
	for _, name := range buildNames {
		found, err := filepath.Glob(filepath.Join(root, "*/*", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel(root, f)
			files[rel] = src
		}
	}
	for _, c := range res.Changes {
		files[c.Path] = c.New
	}
	for name, src := range files {
		f, err := buildfile.Parse(name, src)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range f.Rules() {
			if r.Kind() == extensionKind || r.Kind() == skinKind {
				got[filepath.Dir(name)] = [2][]string{folders(r.Strings("deps")), folders(r.Strings("soft_deps"))}
			}
		}
	}

	want := independentGraph(t, root)
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	w.Write([]byte("component\trequires\tdeps\tisLoaded in PHP\tsoft_deps\t\n"))
	hard, soft, wrong := 0, 0, 0
	for _, folder := range slices.Sorted(maps.Keys(want)) {
		verdict := "same"
		// What is required is no soft dependency too.
		asked := slices.DeleteFunc(slices.Clone(want[folder][1]), func(s string) bool { return slices.Contains(want[folder][0], s) })
		if !slices.Equal(want[folder][0], got[folder][0]) || !slices.Equal(asked, got[folder][1]) {
			verdict = "DIFFERENT"
			wrong++
		}
		hard += len(got[folder][0])
		soft += len(got[folder][1])
		row := []string{folder}
		for i := range 2 {
			row = append(row, inShort(want[folder][i]), inShort(got[folder][i]))
		}
		w.Write([]byte(strings.Join(append(row, verdict), "\t") + "\n"))
	}
	w.Flush()
	t.Logf("%d components, %d hard and %d soft edges\n%s", len(want), hard, soft, table.String())
	if wrong > 0 {
		t.Errorf("%d components differ", wrong)
	}
	for folder := range got {
		if _, ok := want[folder]; !ok {
			t.Errorf("%s is no component", folder)
		}
	}
	if hard == 0 || soft == 0 {
		t.Error("there are no edges to compare")
	}
}

// The components of localisation of a real tree are those that PHP's glob finds, in its order.
func TestL10nOfRealTree(t *testing.T) {
	root := laid.Tree(t, "trixie")
	src, err := os.ReadFile(filepath.Join(root, "BUILD"))
	for _, c := range generate(t, root).Changes {
		if c.Path == "BUILD" {
			src, err = c.New, nil
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := buildfile.Parse("BUILD", src)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range f.Rules() {
		if r.Kind() == l10nKind && r.Name() == l10nName {
			got = r.Strings("components")
		}
	}

	const glob = `foreach (array_merge(glob('extensions/*/extension*.json'), glob('skins/*/skin.json')) as $f) { echo '//', dirname($f), ":l10n\n"; }`
	cmd := exec.Command("php", "-r", glob)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal("php:", err)
	}
	want := append([]string{":core_l10n"}, slices.Compact(strings.Split(strings.TrimSpace(string(out)), "\n"))...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("components of localisation (-want +got):\n%s", diff)
	}
	if len(want) < 2 {
		t.Error("there are no components to compare")
	}
}

// independentGraph reads the graph with encoding/json and grep. It shares nothing with the generator.
func independentGraph(t *testing.T, root string) map[string][2][]string {
	type meta struct {
		Name     string
		Requires struct{ Extensions, Skins json.RawMessage }
	}
	owner := map[string]string{}
	requires := map[string][]string{}
	graph := map[string][2][]string{}
	for _, depth := range []string{"*", "*/*"} { // the second for names alone
		for _, pattern := range []string{"extensions/" + depth + "/extension*.json", "skins/" + depth + "/skin.json"} {
			manifests, err := filepath.Glob(filepath.Join(root, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range manifests {
				var v meta
				src, err := os.ReadFile(m)
				if err == nil {
					err = json.Unmarshal(src, &v)
				}
				if err != nil {
					t.Fatal(m, err)
				}
				rel, _ := filepath.Rel(root, m)
				folder := strings.Join(strings.Split(rel, "/")[:2], "/")
				if owner[v.Name] == "" {
					owner[v.Name] = folder
				}
				if depth != "*" {
					continue
				}
				graph[folder] = [2][]string{}
				for _, raw := range []json.RawMessage{v.Requires.Extensions, v.Requires.Skins} {
					var names map[string]any
					json.Unmarshal(raw, &names) // absent, or PHP's empty list
					requires[folder] = append(requires[folder], slices.Collect(maps.Keys(names))...)
				}
			}
		}
	}
	quoted := regexp.MustCompile(`["'](.*)["']$`)
	for folder := range graph {
		cmd := exec.Command("grep", "-rohEi", "--include=*.php", "--exclude-dir=tests", "--exclude-dir=vendor", "--exclude-dir=node_modules",
			`(->|::)isLoaded\( *["'][^"']+["']`, ".")
		cmd.Dir = filepath.Join(root, folder)
		out, err := cmd.Output()
		if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() != 1) {
			t.Fatal("grep:", err)
		}
		var asked []string
		for line := range strings.Lines(string(out)) {
			asked = append(asked, quoted.FindStringSubmatch(strings.TrimSpace(line))[1])
		}
		edges := [2][]string{}
		for i, names := range [][]string{requires[folder], asked} {
			for _, n := range names {
				if to := owner[n]; to != "" && to != folder {
					edges[i] = append(edges[i], to)
				}
			}
			slices.Sort(edges[i])
			edges[i] = slices.Compact(edges[i])
		}
		graph[folder] = edges
	}
	return graph
}

func folders(labels []string) []string {
	var folders []string
	for _, l := range labels {
		folder, _, _ := strings.Cut(strings.TrimPrefix(l, "//"), ":")
		folders = append(folders, folder)
	}
	slices.Sort(folders)
	return folders
}

func inShort(folders []string) string {
	if len(folders) == 0 {
		return "-"
	}
	var names []string
	for _, f := range folders {
		names = append(names, filepath.Base(f))
	}
	return strings.Join(names, " ")
}
