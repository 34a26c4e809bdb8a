package inspect

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/rules/l10n/message"
)

// memTree is a tree of regular files in memory.
type memTree map[string]string

func (t memTree) Lookup(p string) (workspace.File, bool) {
	_, ok := t[p]
	return workspace.File{Path: p}, ok
}

func (t memTree) ReadFile(p string) ([]byte, error) {
	s, ok := t[p]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return []byte(s), nil
}

func (t memTree) Digest(p string) (workspace.Digest, error) {
	data, err := t.ReadFile(p)
	if err != nil {
		return workspace.Digest{}, err
	}
	blob := sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(data), data))
	return workspace.Digest{SHA256: sha256.Sum256(data), Blob: blob, Size: int64(len(data))}, nil
}

// dirs returns the folders of the JSON files below a component's, sorted.
func (t memTree) dirs(below string) []string {
	var dirs []string
	for p := range t {
		if strings.HasPrefix(p, below+"/") && path.Ext(p) == ".json" && path.Dir(p) != below {
			dirs = append(dirs, path.Dir(p))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// load makes the targets that rules/l10n.star would: //PATH:l10n for each of components, in whose folders all JSON files are
// messages, with PATH/alias.php, and //:l10n of them all. With a file "shared" all components register the same keys. The first is core. chains are those of the languages to compile.
func (t memTree) load(components []string, chains map[string][]string) *Localisation {
	store := &graph.Target{ID: graph.ID{Label: label.Label{Name: "l10n"}}, Kind: StoreRule}
	targets := []*graph.Target{store}
	type made struct {
		path      string
		fragments map[string]*action.Node
		aliases   *action.Node
	}
	var all []made
	for i, c := range components {
		id := graph.ID{Label: label.Label{Pkg: c, Name: "l10n"}}
		target := &graph.Target{ID: id, Kind: ComponentRule}
		m := made{path: c, fragments: map[string]*action.Node{}}
		add := func(do *action.Native) *action.Node {
			n := &action.Node{Label: id.String(), Do: do}
			target.Actions = append(target.Actions, n)
			return n
		}
		files := map[string][]action.Source{}
		for _, dir := range t.dirs(c) {
			for p := range t {
				if code, ok := strings.CutSuffix(path.Base(p), ".json"); ok && path.Dir(p) == dir && code != Documentation {
					key := path.Base(dir)
					if t["shared"] == "" {
						key = dir
					}
					files[code] = append(files[code], action.Source{Role: "messages " + key, Path: p})
				}
			}
		}
		for _, code := range slices.Sorted(maps.Keys(files)) {
			slices.SortFunc(files[code], func(a, b action.Source) int { return strings.Compare(a.Path, b.Path) })
			m.fragments[code] = add(&action.Native{Kind: fragmentKind + "1", Params: map[string]string{"language": code}, Files: files[code]})
		}
		if _, ok := t[c+"/alias.php"]; ok {
			m.aliases = add(&action.Native{Kind: "l10n aliases 1", Files: []action.Source{{Role: "file", Path: c + "/alias.php"}}})
		}
		if i == 0 {
			add(&action.Native{Kind: pluralsKind + "1"})
		}
		if manifest := c + "/extension.json"; t[manifest] != "" {
			target.Srcs = []string{manifest}
		}
		all = append(all, m)
		targets = append(targets, target)
		store.Deps = append(store.Deps, graph.Edge{To: id, Attr: "components"})
	}
	for _, code := range slices.Sorted(maps.Keys(chains)) {
		do := &action.Native{Kind: outputKind + "1", Params: map[string]string{"language": code}}
		for _, link := range chains[code] {
			for _, m := range all {
				if n := m.fragments[link]; n != nil {
					do.Inputs = append(do.Inputs, action.Input{Role: "fragment " + link + " " + m.path, From: n, Path: "fragment"})
				}
				if m.aliases != nil {
					do.Inputs = append(do.Inputs, action.Input{Role: "aliases " + link + " " + m.path, From: m.aliases, Path: link})
				}
			}
		}
		store.Actions = append(store.Actions, &action.Node{Label: "//:l10n", Name: "output " + code, Do: do})
	}
	l, err := New(t, graph.New(targets), targets[:1])
	if err != nil {
		panic(err)
	}
	return l
}

// natives compute the actions: an alias.php has lines "LANGUAGE NAME=VALUE", of which those named $messages.KEY are messages
// behind those in JSON. A compiled language is what the chain says, text by text.
func (t memTree) natives() map[string]func(context.Context, *action.Native) ([]action.Made, error) {
	return map[string]func(context.Context, *action.Native) ([]action.Made, error){
		"l10n aliases 1": func(_ context.Context, do *action.Native) ([]action.Made, error) {
			by := map[string]string{}
			for line := range strings.Lines(t[do.Files[0].Path]) {
				code, rest, _ := strings.Cut(line, " ")
				by[code] += rest
			}
			var made []action.Made
			for code, text := range by {
				sum := sha256.Sum256([]byte(text))
				made = append(made, action.Made{File: action.File{Path: code, SHA256: hex.EncodeToString(sum[:])}})
			}
			return made, nil
		},
		outputKind + "1": func(_ context.Context, do *action.Native) ([]action.Made, error) {
			data, err := t.compile(do)
			return []action.Made{{Data: data}}, err
		},
	}
}

// compile is the oracle: all texts of a language, in order, then what is no message.
func (t memTree) compile(do *action.Native) ([]byte, error) {
	var messages, others []string
	seen := map[string]bool{}
	add := func(to *[]string, key, text string) {
		if !seen[key] {
			seen[key] = true
			*to = append(*to, key+text)
		}
	}
	var chain []string
	for _, in := range do.Inputs {
		if code := strings.Fields(in.Role)[1]; !slices.Contains(chain, code) {
			chain = append(chain, code)
		}
	}
	for _, code := range chain {
		var later []func()
		var files []action.Source
		place := map[string]int{}
		for _, in := range do.Inputs {
			if strings.Fields(in.Role)[1] != code {
				continue
			}
			from := in.From.Do.(*action.Native)
			if from.Kind == fragmentKind+"1" {
				files = append(files, from.Files...)
				continue
			}
			for line := range strings.Lines(t[from.Files[0].Path]) {
				if lang, rest, _ := strings.Cut(line, " "); lang == code {
					name, value, _ := strings.Cut(rest, "=")
					if key, ok := strings.CutPrefix(name, "$messages."); ok {
						later = append(later, func() { add(&messages, "message "+key, "="+code+":"+value) })
					} else {
						add(&others, "other "+name, "="+value)
					}
				}
			}
		}
		for i, f := range files {
			if _, ok := place[f.Role]; !ok {
				place[f.Role] = i
			}
		}
		slices.SortStableFunc(files, func(a, b action.Source) int { return place[a.Role] - place[b.Role] })
		for _, f := range files {
			list, err := message.Read(f.Path, []byte(t[f.Path]))
			if err != nil {
				return nil, err
			}
			for _, m := range list {
				add(&messages, "message "+m.Key, "="+code+":"+m.Value)
			}
		}
		for _, f := range later {
			f()
		}
	}
	return []byte(do.Params["version"] + "\n" + strings.Join(messages, "\n") + "\n\n" + strings.Join(others, "\n")), nil
}

func (t memTree) side(name string, components []string, chains map[string][]string) Side {
	return Side{Localisation: t.load(components, chains), Name: name, Natives: t.natives()}
}
