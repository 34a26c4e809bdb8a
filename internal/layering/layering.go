// Package layering holds the directions in which mwbuild's packages may import one another. Its test reads the imports of
// the whole module and compares them with the tables here, which ARCHITECTURE.md explains.
package layering

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const module = "github.com/mwbuild/mwbuild/"

// order is how folders stand on one another: a package imports from its own folder and from those below. Folders of one
// line do not import one another.
var order = [][]string{
	{"cmd", "bench"},
	{"build"},
	{"rules"},
	{"starlark"},
	{"internal"},
	{"graph", "cache"},
}

// Libraries that a row can name, as prefixes of import paths.
const (
	badgerLib   = "github.com/dgraph-io/badger"
	buildkitLib = "github.com/moby/buildkit"
	llbLib      = "github.com/moby/buildkit/client/llb"
	starlarkLib = "go.starlark.net"
)

// A row is one package of the table.
type row struct {
	reach   []string // what it must not import, itself or through others; a prefix of import paths, with or without the module's
	direct  []string // what it must not import itself
	modules []string // where set, all packages of this module that it may import
}

// table covers every package of the module. What the design forbids stands here; a row may forbid more.
var table = map[string]row{
	"graph/label":                   {modules: []string{}, reach: []string{badgerLib, buildkitLib, starlarkLib}},
	"graph/action":                  {modules: []string{}, reach: []string{badgerLib, buildkitLib, starlarkLib}},
	"graph":                         {reach: []string{"internal/workspace", badgerLib, buildkitLib, starlarkLib}, direct: []string{"os", "io/fs", "path/filepath"}},
	"graph/query":                   {reach: []string{"cache", "internal/workspace", badgerLib, buildkitLib, starlarkLib}, direct: []string{"os", "os/exec"}},
	"cache":                         {reach: []string{"graph", buildkitLib, starlarkLib}},
	"cache/store":                   {reach: []string{"graph", badgerLib, buildkitLib, starlarkLib}},
	"internal/spell":                {modules: []string{}},
	"internal/imagetest":            {modules: []string{}},
	"internal/aptrepo":              {modules: []string{}},
	"internal/laid":                 {modules: []string{}},
	"internal/layering":             {modules: []string{}},
	"internal/livetest":             {modules: []string{}},
	"internal/workspace":            {reach: []string{"cache", badgerLib, buildkitLib, starlarkLib}},
	"starlark/load":                 {reach: []string{"cache", "rules", "build", badgerLib, buildkitLib}},
	"starlark/buildfile":            {modules: []string{"graph/label"}, reach: []string{badgerLib, buildkitLib}},
	"rules":                         {reach: []string{badgerLib, buildkitLib}},
	"rules/docgen":                  {reach: []string{badgerLib, buildkitLib}},
	"rules/gen":                     {reach: []string{badgerLib, buildkitLib}},
	"rules/blubber":                 {modules: []string{}},
	"rules/debian":                  {reach: []string{badgerLib, buildkitLib, starlarkLib}},
	"rules/debian/archive":          {modules: []string{}},
	"rules/debian/deb":              {modules: []string{"rules/debian/archive"}},
	"rules/debian/lockfile":         {modules: []string{}},
	"rules/debian/mirror":           {modules: []string{"rules/debian/archive"}},
	"rules/debian/resolve":          {modules: []string{"rules/debian/archive", "internal/spell"}},
	"rules/lint":                    {reach: []string{badgerLib, buildkitLib}},
	"rules/filecheck":               {reach: []string{badgerLib, buildkitLib, starlarkLib}},
	"rules/l10n":                    {reach: []string{badgerLib, buildkitLib, starlarkLib}},
	"rules/l10n/message":            {reach: []string{badgerLib, buildkitLib, starlarkLib}},
	"rules/l10n/php":                {modules: []string{}},
	"rules/l10n/plural":             {modules: []string{}},
	"rules/l10n/inspect":            {reach: []string{badgerLib, buildkitLib, starlarkLib}},
	"build/attest":                  {modules: []string{}, reach: []string{badgerLib, buildkitLib, starlarkLib}},
	"build/affected":                {reach: []string{"cache", badgerLib, buildkitLib}, direct: []string{starlarkLib}},
	"build/snapshot":                {reach: []string{"cache", "starlark", badgerLib, buildkitLib, starlarkLib}},
	"build/uptodate":                {reach: []string{"cache", "starlark", badgerLib, buildkitLib, starlarkLib}},
	"build/plan":                    {reach: []string{"cache", "starlark", badgerLib, buildkitLib}},
	"build/lower":                   {reach: []string{"cache", "starlark", badgerLib}},
	"build/image":                   {reach: []string{"cache", "starlark", badgerLib, buildkitLib, starlarkLib}},
	"build/image/layer":             {reach: []string{"cache", "starlark", badgerLib, buildkitLib, starlarkLib}},
	"build/image/transport":         {reach: []string{"cache", "starlark", badgerLib, buildkitLib, starlarkLib}},
	"build/image/internal/blobtest": {reach: []string{"cache", "starlark", badgerLib, buildkitLib, starlarkLib}},
	"build/buildkit":                {reach: []string{"build/plan", "cache", "starlark"}},
	"build/container":               {modules: []string{}, reach: []string{badgerLib, buildkitLib, starlarkLib}},
	"build/progress":                {reach: []string{"build/plan", "cache", "starlark", badgerLib}},
	"build":                         {reach: []string{"starlark", starlarkLib}, direct: []string{buildkitLib}},
	"cmd/mwbuild":                   {direct: []string{buildkitLib, badgerLib, starlarkLib}},
	"bench/publish":                 {modules: []string{}, reach: []string{badgerLib, buildkitLib}},
	"bench/graph":                   {modules: []string{}, reach: []string{badgerLib, buildkitLib}},
}

// edges names the packages in which a heavy library is at home, so that nobody else imports it directly. build/progress
// shows BuildKit's own status messages; build/buildkit reads the graphs that build/lower made. bench/graph measures what go.starlark.net
// costs without any of ours.
var edges = map[string][]string{
	starlarkLib:        {"starlark/load", "starlark/buildfile", "bench/graph"},
	badgerLib:          {"cache"},
	llbLib:             {"build/lower", "build/buildkit"},
	buildkitLib:        {"build/lower", "build/buildkit", "build/progress"},
	"go.etcd.io/bbolt": {"build/buildkit"},
}

// below tells whether the import path p is, or lies below, the package or library prefix.
func below(p, prefix string) bool { return p == prefix || strings.HasPrefix(p, prefix+"/") }

// forbids tells whether an entry of a row means import path p.
func forbids(entry, p string) bool {
	return below(p, entry) || below(p, module+entry)
}

func rank(folder string) int {
	return slices.IndexFunc(order, func(line []string) bool { return slices.Contains(line, folder) })
}

// violations compares the imports of packages, by import path, with the tables, and returns what is wrong, sorted. The
// imports of tests are not among them: a test may reach up.
func violations(imports map[string][]string) []string {
	var wrong []string
	report := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, path := range slices.Sorted(maps.Keys(imports)) {
		pkg, ours := strings.CutPrefix(path, module)
		if !ours {
			continue
		}
		folder, _, _ := strings.Cut(pkg, "/")
		r, covered := table[pkg]
		if !covered {
			report("%s: no row in the table of internal/layering: add one, and one in ARCHITECTURE.md", pkg)
			continue
		}
		for _, to := range imports[path] {
			for _, entry := range r.direct {
				if forbids(entry, to) {
					report("%s imports %s, which it must not", pkg, to)
				}
			}
			for _, lib := range slices.Sorted(maps.Keys(edges)) {
				if below(to, lib) && !slices.Contains(edges[lib], pkg) {
					report("%s imports %s, which only %s may", pkg, to, strings.Join(edges[lib], ", "))
				}
			}
			other, ours := strings.CutPrefix(to, module)
			if !ours {
				continue
			}
			if r.modules != nil && !slices.Contains(r.modules, other) {
				report("%s imports %s, which it must not: of this module it may import only %q", pkg, other, r.modules)
			}
			otherFolder, _, _ := strings.Cut(other, "/")
			if from, down := rank(folder), rank(otherFolder); folder != otherFolder && from >= down {
				report("%s imports %s: %s does not stand on %s", pkg, other, folder, otherFolder)
			}
		}
		for _, entry := range r.reach {
			if chain := reach(imports, path, entry); chain != nil {
				report("%s reaches %s, which it must not: %s", pkg, entry, strings.ReplaceAll(strings.Join(chain, " → "), module, ""))
			}
		}
	}
	return wrong
}

// reach returns a shortest chain of imports from one package to one that entry means, or nil.
func reach(imports map[string][]string, from, entry string) []string {
	came := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at != from && forbids(entry, at) {
			chain := []string{}
			for ; at != ""; at = came[at] {
				chain = append([]string{at}, chain...)
			}
			return chain
		}
		for _, to := range imports[at] {
			if _, seen := came[to]; !seen {
				came[to] = at
				queue = append(queue, to)
			}
		}
	}
	return nil
}
