package gen

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/starlark/buildfile"
)

// Whatever people wrote before: after Generate, deps and soft_deps are exactly what manifests and code say and what is kept,
// test_deps are what they were, the wiki holds each component once, all is formatted, and a second run changes nothing.
func TestGenerateProperties(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "components")
		name := func(i int) string { return fmt.Sprintf("The %d", i) }
		folder := func(i int) string { return fmt.Sprintf("extensions/E%d", i) }
		anyOf := rapid.SliceOfNDistinct(rapid.IntRange(0, n), 0, n, rapid.ID) // n does not exist
		m := memory{files: map[string]string{"WORKSPACE": ""}, reads: make(chan string, 1000)}
		targets := make([]string, n)
		var hard, soft, keep, test [][]int
		for i := range n {
			hard, soft = append(hard, anyOf.Draw(t, "requires")), append(soft, anyOf.Draw(t, "asks"))
			var requires, code []string
			for _, to := range hard[i] {
				requires = append(requires, fmt.Sprintf("%q: \"*\"", name(to)))
			}
			for _, to := range soft[i] {
				code = append(code, fmt.Sprintf("$r->isLoaded( '%s' );\n", name(to)))
			}
			m.files[folder(i)+"/extension.json"] = fmt.Sprintf(`{"name": %q, "requires": {"extensions": {%s}}}`, name(i), strings.Join(requires, ", "))
			m.files[folder(i)+"/a.php"] = "<?php\n" + strings.Join(code, "")
			targets[i] = fmt.Sprintf("E%d", i)
			keep, test = append(keep, nil), append(test, nil)
			if !rapid.Bool().Draw(t, "written before") {
				continue
			}
			targets[i] = rapid.SampledFrom([]string{targets[i], "other"}).Draw(t, "target")
			src := fmt.Sprintf("# Mine.\n\nmw_extension(\n  name = '%s',\n", targets[i])
			if test[i] = anyOf.Draw(t, "test_deps"); len(test[i]) > 0 {
				src += "  test_deps = ["
				for _, to := range test[i] {
					src += fmt.Sprintf("'//%s', ", folder(to))
				}
				src += "],\n"
			}
			src += "  deps = [\n"
			for _, to := range anyOf.Draw(t, "deps before") {
				src += fmt.Sprintf("    \"//%s:E%d\",", folder(to), to)
				if rapid.Bool().Draw(t, "keep") {
					src += " # keep"
					keep[i] = append(keep[i], to)
				}
				src += "\n"
			}
			m.files[folder(i)+"/BUILD"] = src + "  ],\n)\n"
		}
		if rapid.Bool().Draw(t, "wiki before") {
			m.files["BUILD"] = "mw_image(name = \"wiki\", components = [\"//extensions/E1\", \"//extensions/E9\", \"//my:own\"])\n"
		}
		run := func() *Result {
			res, err := Generate(t.Context(), Options{Root: root, Tree: m})
			if err != nil || len(res.Errors) > 0 {
				t.Fatal(err, res.Errors)
			}
			for len(m.reads) > 0 {
				<-m.reads
			}
			return res
		}
		for _, c := range run().Changes {
			m.files[c.Path] = string(c.New)
			if formatted, err := buildfile.Format(c.Path, c.New); err != nil || string(formatted) != string(c.New) {
				t.Fatalf("%s is not as fmt would have it: %v\n%s", c.Path, err, c.New)
			}
		}
		if again := run(); len(again.Changes) > 0 {
			t.Fatalf("a second run changes\n%s", show(again))
		}

		label := func(i int) string {
			if i < n && targets[i] != fmt.Sprintf("E%d", i) {
				return "//" + folder(i) + ":" + targets[i]
			}
			return "//" + folder(i)
		}
		var wiki []string
		for i := range n {
			wiki = append(wiki, label(i))
			rule := ruleOf(t, m, folder(i)+"/BUILD", targets[i])
			deps, softs, tests := map[string]bool{}, map[string]bool{}, map[string]bool{}
			for _, to := range hard[i] {
				if to < n && to != i {
					deps[label(to)] = true
				}
			}
			for _, to := range soft[i] {
				if to < n && to != i && !deps[label(to)] {
					softs[label(to)] = true
				}
			}
			for _, to := range keep[i] {
				deps["//"+folder(to)] = true
			}
			for _, to := range test[i] {
				tests["//"+folder(to)] = true
			}
			for attr, want := range map[string]map[string]bool{"deps": deps, "soft_deps": softs, "test_deps": tests} {
				if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), short(rule.Strings(attr))); diff != "" && len(want)+len(rule.Strings(attr)) > 0 {
					t.Fatalf("%s of %s (-want +got):\n%s\n%s", attr, folder(i), diff, m.files[folder(i)+"/BUILD"])
				}
			}
		}
		components := slices.DeleteFunc(ruleOf(t, m, "BUILD", "wiki").Strings("components"), func(s string) bool { return s == "//my:own" })
		if diff := cmp.Diff(wiki, short(components)); diff != "" {
			t.Fatalf("components of the wiki (-want +got):\n%s", diff)
		}
	})
}

// Whatever stood in the root before: after Generate, localisation holds what speaks once each, in the order of manifests' paths
// if it was in that order before, what people put in stays in its order, and a second run changes nothing.
func TestGenerateL10nProperties(t *testing.T) {
	root := t.TempDir()
	all := []string{
		"extensions/3D", "extensions/A", "extensions/A B", "extensions/A-B", "extensions/A.B", "extensions/A0", "extensions/AB", "extensions/A_B",
		"extensions/a", "extensions/Ä", "skins/A", "skins/A-B", "skins/a",
	}
	// What a component's BUILD file says, and whether it has a target :l10n.
	builds := map[string]bool{
		"":                               true,
		"mw_extension(name = 'other')\n": true,
		"mw_skin(name = 'other')\n":      true,
		"[mw_extension(name = n) for n in ['x']]\n":                     true,
		"our_extension(name = 'FOLDER')\n":                              false,
		"our_extension(name = 'FOLDER')\nour_l10n(name = 'l10n')\n":     true,
		"our_extension(name = 'x', manifests = ['MANIFEST'])\n":         false,
		"filegroup(name = 'files')\nmw_extension(name = 'FOLDER')\n":    true,
		"mw_extension(name = 'FOLDER', manifests = ['MANIFEST'])\n\n\n": true,
	}
	people := []string{":core_l10n", "//site:l10n", "//site/extensions/A:l10n", "//my:own"}
	rapid.Check(t, func(t *rapid.T) {
		isCore := rapid.Bool().Draw(t, "core")
		m := memory{files: map[string]string{"WORKSPACE": "", "vendor/autoload.php": "<?php"}, reads: make(chan string, 1000)}
		if isCore {
			m.files["includes/Defines.php"] = "<?php"
		}
		var want []string // paths of manifests
		silent := map[string]bool{}
		for _, folder := range rapid.SliceOfDistinct(rapid.SampledFrom(all), rapid.ID).Draw(t, "folders") {
			manifest := "extension.json"
			if strings.HasPrefix(folder, "skins/") {
				manifest = "skin.json"
			}
			m.files[folder+"/"+manifest] = fmt.Sprintf(`{"name": %q}`, folder)
			build := rapid.SampledFrom(slices.Sorted(maps.Keys(builds))).Draw(t, "BUILD")
			if build != "" {
				m.files[folder+"/BUILD"] = strings.NewReplacer("FOLDER", path.Base(folder), "MANIFEST", manifest).Replace(build)
			}
			if builds[build] {
				want = append(want, folder+"/"+manifest)
			} else {
				silent[folder] = true // people's: what they say of it stays
			}
		}
		slices.Sort(want)

		var before []string
		written := rapid.Bool().Draw(t, "root before")
		sorted := true
		stays := []string{}
		if written {
			entries := rapid.SliceOfDistinct(rapid.SampledFrom(slices.Concat(all, people)), rapid.ID).Draw(t, "components before")
			if sorted = rapid.Bool().Draw(t, "in order"); sorted {
				entries = inOrder(entries)
			}
			src := "mw_l10n(\n    name = 'l10n',\n    components = [\n"
			for _, e := range entries {
				label, keep := e, false
				if !slices.Contains(people, e) {
					label = "//" + e + ":l10n"
					keep = rapid.IntRange(0, 4).Draw(t, "keep") == 0
				}
				before = append(before, label)
				src += fmt.Sprintf("        %q,", label)
				if keep {
					src += "  # keep"
				}
				src += "\n"
				if keep || silent[e] || slices.Contains(people, e) {
					stays = append(stays, label)
				}
			}
			m.files["BUILD"] = src + "    ],\n)\n"
		} else if isCore {
			stays = append(stays, ":core_l10n")
		}

		run := func() *Result {
			res, err := Generate(t.Context(), Options{Root: root, Tree: m})
			if err != nil || len(res.Errors) > 0 {
				t.Fatal(err, res.Errors)
			}
			for len(m.reads) > 0 {
				<-m.reads
			}
			return res
		}
		for _, c := range run().Changes {
			m.files[c.Path] = string(c.New)
			if formatted, err := buildfile.Format(c.Path, c.New); err != nil || string(formatted) != string(c.New) {
				t.Fatalf("%s is not as fmt would have it: %v\n%s", c.Path, err, c.New)
			}
		}
		if again := run(); len(again.Changes) > 0 {
			t.Fatalf("a second run changes\n%s", show(again))
		}
		if !written && !isCore {
			if strings.Contains(m.files["BUILD"], "l10n") {
				t.Fatalf("localisation without core:\n%s", m.files["BUILD"])
			}
			return
		}

		got := ruleOf(t, m, "BUILD", "l10n").Strings("components")
		var speaks, stayed, components []string
		for _, s := range got {
			if slices.Contains(stays, s) {
				stayed = append(stayed, s)
			}
			if !slices.Contains(people, s) {
				components = append(components, strings.TrimSuffix(strings.TrimPrefix(s, "//"), ":l10n"))
			}
		}
		if diff := cmp.Diff(stays, append([]string{}, stayed...)); diff != "" {
			t.Fatalf("what people put in (-want +got):\n%s\nbefore: %q\nafter:  %q", diff, before, got)
		}
		for _, w := range want {
			speaks = append(speaks, "//"+path.Dir(w)+":l10n")
		}
		allowed := slices.Concat(speaks, stays)
		slices.Sort(allowed)
		if diff := cmp.Diff(slices.Compact(allowed), slices.Sorted(slices.Values(got))); diff != "" && len(allowed)+len(got) > 0 {
			t.Fatalf("components of localisation (-want +got):\n%s\nbefore: %q", diff, before)
		}
		if sorted && !slices.Equal(components, inOrder(components)) {
			t.Fatalf("out of order: %q\nbefore: %q", components, before)
		}
	})
}

// inOrder puts the folders of components in the order of their manifests' paths, and leaves everything else where it is.
func inOrder(entries []string) []string {
	isFolder := func(s string) bool { return strings.HasPrefix(s, "extensions/") || strings.HasPrefix(s, "skins/") }
	var paths []string
	for _, e := range entries {
		if isFolder(e) {
			paths = append(paths, e+"/manifest.json")
		}
	}
	slices.Sort(paths)
	out := slices.Clone(entries)
	for i, e := range out {
		if isFolder(e) {
			out[i], paths = path.Dir(paths[0]), paths[1:]
		}
	}
	return out
}

// short returns labels, sorted, in their short form: a file that is up to date may say the same with more words.
func short(labels []string) []string {
	var out []string
	for _, s := range labels {
		pkg, name, _ := strings.Cut(s, ":")
		if name == path.Base(pkg) {
			s = pkg
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func ruleOf(t *rapid.T, m memory, file, name string) *buildfile.Rule {
	f, err := buildfile.Parse(file, []byte(m.files[file]))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range f.Rules() {
		if r.Name() == name {
			return r
		}
	}
	t.Fatalf("%s has no rule %s:\n%s", file, name, m.files[file])
	return nil
}
