package gen

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/starlark/buildfile"
)

// workspaceFile is a WORKSPACE file for a tree that has none. The name is the same everywhere: what is built must not depend on
// where a tree lies.
const workspaceFile = "workspace(name = \"mediawiki\")\n"

const coreComment = `# The root of this tree is core. Every folder below that is a package of its own, such as //extensions/Cite, is
# left out of what core's globs see.
`

const (
	// wikiName is the target at the root that holds every component.
	wikiName = "wiki"
	// l10nName is the target at the root that holds what every component says, and that of a component that says it.
	l10nName = "l10n"
)

// l10nRules is localisation at a new root that is core. Its targets are manual: to build everything is not to compile hundreds of
// languages, twice.
const l10nRules = `
mw_l10n(
    name = "l10n",
    tags = ["manual"],
)

mw_l10n(
    name = "l10n_php",
    components = [":l10n"],
    format = "php",
    tags = ["manual"],
)
`

// inWiki tells whether a component is there and has a target, so that the wiki can hold it.
func (g *generator) inWiki(c *component) bool {
	if c.gone() && (c.rule == nil || !c.rule.Keep()) {
		return false
	}
	return c.rule != nil || c.theirs
}

// inL10n tells whether a component has a target that says what it says in every language, so that localisation can hold it. The
// macros declare one; of what people declare in a way of their own, it is there where they call them or name one so.
func (g *generator) inL10n(c *component) bool {
	if c.kind == vendorKind || !g.inWiki(c) {
		return false
	}
	return c.rule != nil || c.file.Hidden(extensionKind) || c.file.Hidden(skinKind) || c.has(l10nName)
}

// has tells whether a rule at the top level of the component's BUILD file has a name.
func (c *component) has(name string) bool {
	return c.file != nil && slices.ContainsFunc(c.file.Rules(), func(r *buildfile.Rule) bool { return r.Name() == name })
}

// root brings the files at the root up to date.
func (g *generator) root() {
	if !g.selected("") {
		return
	}
	var wiki, l10n []string
	for _, c := range g.components {
		if g.inWiki(c) {
			wiki = append(wiki, c.label())
		}
		if g.inL10n(c) {
			l10n = append(l10n, label.Label{Pkg: c.folder, Name: l10nName}.String())
		}
	}
	slices.SortFunc(l10n, func(a, b string) int { return compareRegistered(folderOf(a), folderOf(b)) })
	if len(wiki) == 0 && !g.isCore && !g.has("BUILD") && !g.has("BUILD.star") {
		return // no MediaWiki tree
	}
	if !g.has("WORKSPACE") && !g.has("WORKSPACE.star") {
		g.createWorkspace()
	}
	err := func() error {
		for _, name := range buildNames {
			if g.has(name) {
				return g.updateRoot(name, wiki, l10n)
			}
		}
		return g.createRoot(wiki, l10n)
	}()
	if err != nil {
		g.errs = append(g.errs, err)
	}
}

func (g *generator) createWorkspace() {
	if _, err := os.Lstat(filepath.Join(g.opts.Root, "WORKSPACE")); err == nil {
		g.errs = append(g.errs, hidden("WORKSPACE"))
		return
	}
	g.changes = append(g.changes, Change{"WORKSPACE", nil, []byte(workspaceFile)})
}

func (g *generator) has(file string) bool {
	_, ok := g.tree.Lookup(file)
	return ok
}

func (g *generator) createRoot(wiki, l10n []string) error {
	name, err := g.newBuild("")
	if err != nil {
		return err
	}
	f, err := buildfile.Parse(name, nil)
	if err != nil {
		return err
	}
	var src strings.Builder
	if g.isCore {
		src.WriteString(coreComment)
	}
	fmt.Fprintf(&src, "package(default_visibility = [%q])\n\n", public)
	if g.isCore {
		fmt.Fprintf(&src, "%s(name = \"core\")\n\n", coreKind)
	}
	fmt.Fprintf(&src, "%s(\n    name = %q,\n", imageKind, wikiName)
	if g.isCore {
		src.WriteString("    core = \":core\",\n")
	}
	src.WriteString(")\n")
	if g.isCore {
		src.WriteString(l10nRules)
	}
	if err := f.Append(src.String()); err != nil {
		return err
	}
	for _, r := range f.Rules() {
		switch r.Name() {
		case wikiName:
			r.EditList("components", buildfile.ListEdit{Want: wiki})
		case l10nName:
			r.EditList("components", buildfile.ListEdit{Want: append([]string{":core_l10n"}, l10n...)})
		}
	}
	g.change(name, nil, f)
	return nil
}

// updateRoot keeps the components of the wiki and of its localisation current. A root without them is as people want it.
func (g *generator) updateRoot(name string, wiki, l10n []string) error {
	if f, _ := g.tree.Lookup(name); f.Mode == workspace.Symlink {
		return &graph.Error{Pos: name, Msg: "is a symlink, which is never written through", Hints: []string{"put a file in its place"}}
	}
	src, err := g.tree.ReadFile(name)
	if err != nil {
		return &graph.Error{Pos: name, Msg: err.Error(), Err: err}
	}
	f, err := parseBuild(name, src)
	if err != nil {
		return err
	}
	for _, r := range f.Rules() {
		edit := buildfile.ListEdit{Stale: g.left}
		switch {
		case r.Kind() == imageKind && r.Name() == wikiName:
			edit.Want = wiki
			edit.Compare = func(a, b string) int { return compareFolders(folderOf(a), folderOf(b)) }
		case r.Kind() == l10nKind && r.Name() == l10nName:
			edit.Want = l10n
			edit.Compare = registered(r.Strings("components"))
		default:
			continue
		}
		if r.EditList("components", edit) == buildfile.Opaque {
			g.notes = append(g.notes, fmt.Sprintf("%s: components is an expression, which is left as it is; it lacks a component of the tree", r.AttrPos("components")))
		}
	}
	if f.Changed() {
		g.change(name, src, f)
	}
	return nil
}

// compareRegistered orders folders of components as the components register in a wiki that finds them by PHP's glob: by the bytes of
// their manifests' paths, so that extensions/A-B comes before extensions/A. Where two say the same thing, the first is heard.
func compareRegistered(a, b string) int { return strings.Compare(a+"/", b+"/") }

// registered returns what orders the labels in a list against the label of a component that is to come into it. Labels of other
// things have no place among components: those before all components stay there, each other one before what it stands before.
func registered(list []string) func(have, comes string) int {
	folders := map[string]string{}
	next := "~" // after all
	for _, s := range slices.Backward(list) {
		if f := folderOf(s); inComponents(f) {
			next = f
		}
		folders[s] = next
	}
	for _, s := range list {
		if inComponents(folderOf(s)) {
			break
		}
		folders[s] = ""
	}
	return func(have, comes string) int {
		folder, ok := folders[have]
		if !ok { // it has come itself
			folder = folderOf(have)
		}
		return compareRegistered(folder, folderOf(comes))
	}
}

// inComponents tells whether a package lies in a folder for extensions or skins.
func inComponents(pkg string) bool {
	dir, _, _ := strings.Cut(pkg, "/")
	return dir == "extensions" || dir == "skins"
}

func folderOf(s string) string {
	l, err := label.Parse(s, "")
	if err != nil {
		return ""
	}
	return l.Pkg
}

// left tells whether a label among the components of the wiki, or of its localisation, is that of a component that went away or
// was renamed. What is not in a folder for components is people's.
func (g *generator) left(s string) bool {
	l, err := label.Parse(s, "")
	if err != nil {
		return false
	}
	c := g.byFolder[l.Pkg]
	if c == nil {
		return inComponents(l.Pkg) || l.Pkg == "vendor"
	}
	return !c.broken && !c.theirs && !c.has(l.Name)
}
