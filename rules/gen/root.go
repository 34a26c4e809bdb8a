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

// wikiName is the target at the root that holds every component.
const wikiName = "wiki"

// inWiki tells whether a component is there and has a target, so that the wiki can hold it.
func (g *generator) inWiki(c *component) bool {
	if c.gone() && (c.rule == nil || !c.rule.Keep()) {
		return false
	}
	return c.rule != nil || c.theirs
}

// root brings the files at the root up to date.
func (g *generator) root() {
	if !g.selected("") {
		return
	}
	var wiki []string
	for _, c := range g.components {
		if g.inWiki(c) {
			wiki = append(wiki, c.label())
		}
	}
	if len(wiki) == 0 && !g.isCore && !g.has("BUILD") && !g.has("BUILD.star") {
		return // no MediaWiki tree
	}
	if !g.has("WORKSPACE") && !g.has("WORKSPACE.star") {
		g.createWorkspace()
	}
	err := func() error {
		for _, name := range buildNames {
			if g.has(name) {
				return g.updateRoot(name, wiki)
			}
		}
		return g.createRoot(wiki)
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

func (g *generator) createRoot(wiki []string) error {
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
	if err := f.Append(src.String()); err != nil {
		return err
	}
	rules := f.Rules()
	rules[len(rules)-1].EditList("components", buildfile.ListEdit{Want: wiki})
	g.change(name, nil, f)
	return nil
}

// updateRoot keeps the components of the wiki current. A root without a wiki is as people want it.
func (g *generator) updateRoot(name string, wiki []string) error {
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
		if r.Kind() != imageKind || r.Name() != wikiName {
			continue
		}
		edit := buildfile.ListEdit{Want: wiki, Stale: g.leftWiki, Compare: func(a, b string) int { return compareFolders(folderOf(a), folderOf(b)) }}
		if r.EditList("components", edit) == buildfile.Opaque {
			g.notes = append(g.notes, fmt.Sprintf("%s: components is an expression, which is left as it is; it lacks a component of the tree", r.AttrPos("components")))
		}
	}
	if f.Changed() {
		g.change(name, src, f)
	}
	return nil
}

func folderOf(s string) string {
	l, err := label.Parse(s, "")
	if err != nil {
		return ""
	}
	return l.Pkg
}

// leftWiki tells whether a label among the wiki's components is that of a component that went away or was renamed. What is not
// in a folder for components is people's.
func (g *generator) leftWiki(s string) bool {
	l, err := label.Parse(s, "")
	if err != nil {
		return false
	}
	c := g.byFolder[l.Pkg]
	if c == nil {
		dir, _, _ := strings.Cut(l.Pkg, "/")
		return dir == "extensions" || dir == "skins" || l.Pkg == "vendor"
	}
	if c.broken || c.theirs {
		return false
	}
	return c.file == nil || !slices.ContainsFunc(c.file.Rules(), func(r *buildfile.Rule) bool { return r.Name() == l.Name })
}
