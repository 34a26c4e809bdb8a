package l10n

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// Kinds of the native actions of updates; see [FragmentKind].
const (
	UpdateKind = "l10n update 1" // a component's messages in a language, with newer translations from elsewhere
	NewerKind  = "l10n newer 1"  // a component's messages in a language, as they are elsewhere
)

// AnalyseNewer finds newer message files: args has "dirs", pairs of role and folder as [AnalyseComponent] returns them,
// and "folder", the folder of the package below which these folders are looked for.
//
// The result has "files": for each language pairs of role and path.
func AnalyseNewer(_ context.Context, files Files, pkg string, args map[string]any) (any, error) {
	folder, _ := args["folder"].(string)
	if !fs.ValidPath(folder) || folder == "." {
		return nil, fmt.Errorf("newer: %q is no folder of this package: name one below it, such as newer", folder)
	}
	dirs, err := messageDirs(args)
	if err != nil {
		return nil, err
	}
	a := newAnalysis(files, pkg)
	for _, d := range dirs {
		if err := a.messages(d.role, path.Join(pkg, folder, d.path)); err != nil {
			return nil, fmt.Errorf("newer: %w", err)
		}
	}
	return map[string]any{"files": a.result()["fragments"]}, nil
}

// A messageDir is a folder of message files, of which role is "messages" and the key of MessagesDirs.
type messageDir struct{ role, path string }

// messageDirs reads "dirs" of args, less folders of aliases.
func messageDirs(args map[string]any) ([]messageDir, error) {
	var out []messageDir
	dirs, _ := args["dirs"].([]any)
	for _, d := range dirs {
		pair, ok := d.([]any)
		if !ok || len(pair) != 2 {
			return nil, fmt.Errorf("dirs holds %v, want pairs", d)
		}
		role, _ := pair[0].(string)
		dir, _ := pair[1].(string)
		if strings.HasPrefix(role, "messages ") {
			out = append(out, messageDir{role, dir})
		}
	}
	return out, nil
}

// Commits are the commits of a workspace's repository whose messages updates take. An action names such a file by its
// SHA-256 and path and not by its commit, so that another commit with the same files makes nothing again; which commit has
// it, analysis tells here, and execution asks. It may be used concurrently.
type Commits struct {
	ctx  context.Context
	root string

	mu    sync.Mutex
	open  map[string]*openCommit
	files map[string]*workspace.Revision // by SHA-256 and path, as parameters have them
}

type openCommit struct {
	once     sync.Once
	revision *workspace.Revision
	err      error
}

// NewCommits returns the commits of the workspace at root. Nothing is read yet. What is opened is closed when ctx ends.
func NewCommits(ctx context.Context, root string) *Commits {
	return &Commits{ctx: ctx, root: root, open: map[string]*openCommit{}, files: map[string]*workspace.Revision{}}
}

// commitID is a full name: what a short one, a branch or a tag means depends on the day.
var commitID = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

func (c *Commits) revision(id string) (*workspace.Revision, error) {
	if !commitID.MatchString(id) {
		return nil, fmt.Errorf("revision: %q is no full id of a commit: give 40 hexadecimal digits, as git rev-parse %s prints them; "+
			"a branch or tag would mean another commit some day", id, id)
	}
	c.mu.Lock()
	o := c.open[id]
	if o == nil {
		o = &openCommit{}
		c.open[id] = o
	}
	c.mu.Unlock()
	o.once.Do(func() {
		o.revision, o.err = workspace.OpenRevision(c.ctx, c.root, id)
		if o.err == nil && o.revision.Commit != id {
			o.err = errors.Join(fmt.Errorf("%s: %w", id, workspace.ErrNoRevision), o.revision.Close())
		}
		if o.err != nil {
			o.err = fmt.Errorf("revision: %w", o.err)
		} else {
			context.AfterFunc(c.ctx, func() { _ = o.revision.Close() }) // its programs end with the context
		}
	})
	return o.revision, o.err
}

// Analyse finds the message files of a commit: args has "dirs", pairs of role and folder as [AnalyseComponent] returns them,
// and "revision", the commit's full id. Each file is read for its digest, at every analysis: git's own digests are SHA-1,
// which decides no key.
//
// The result has "files": for each language pairs of role and a text that stands for the file in a parameter.
func (c *Commits) Analyse(ctx context.Context, _ Files, _ string, args map[string]any) (any, error) {
	id, _ := args["revision"].(string)
	r, err := c.revision(id)
	if err != nil {
		return nil, err
	}
	dirs, err := messageDirs(args)
	if err != nil {
		return nil, err
	}
	all := r.Files()
	files := map[string]any{}
	for _, d := range dirs {
		first, _ := slices.BinarySearch(all, d.path+"/")
		for _, file := range all[first:] {
			name, ok := strings.CutPrefix(file, d.path+"/")
			if !ok {
				break
			}
			code, ok := messageLanguage(file)
			if !ok || strings.Contains(name, "/") {
				continue
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			data, err := r.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("revision: %s: %w", id, err)
			}
			sum := sha256.Sum256(data)
			ref := hex.EncodeToString(sum[:]) + " " + file
			c.mu.Lock()
			c.files[ref] = r
			c.mu.Unlock()
			list, _ := files[code].([]any)
			files[code] = append(list, []any{d.role, ref})
		}
	}
	return map[string]any{"files": files}, nil
}

// read returns the file that ref, part of what Analyse returned, stands for. Its name is as git writes it, commit:path.
func (c *Commits) read(ref string) (Source, error) {
	sum, file, _ := strings.Cut(ref, " ")
	var r *workspace.Revision
	if c != nil {
		c.mu.Lock()
		r = c.files[ref]
		c.mu.Unlock()
	}
	if r == nil {
		return Source{}, fmt.Errorf("%s: no commit is known that has it with SHA-256 %s", file, sum)
	}
	s := Source{Name: r.Commit + ":" + file}
	var err error
	if s.Data, err = r.ReadFile(file); err != nil {
		return s, err
	}
	if got := sha256.Sum256(s.Data); hex.EncodeToString(got[:]) != sum {
		return s, fmt.Errorf("%s has SHA-256 %x, and had %s before; run git fsck", s.Name, got, sum)
	}
	return s, nil
}

// newer is what an action takes from elsewhere: files, whose bytes are data, and parameters whose names are a number and a
// role.
func (n *Natives) newer(do *action.Native, data [][]byte) (in FragmentInput, err error) {
	for i, f := range do.Files {
		in.add(f.Role, Source{f.Path, data[i]})
	}
	for _, name := range slices.Sorted(maps.Keys(do.Params)) {
		if _, role, ok := strings.Cut(name, " "); ok {
			file, err := n.Commits.read(do.Params[name])
			if err != nil {
				return in, err
			}
			in.add(role, file)
		}
	}
	return in, nil
}

// updated is what an update says. Its inputs are "english" and "newer english", and "base" where the component has the
// language.
func (n *Natives) updated(do *action.Native, data [][]byte) (*Fragment, error) {
	in, err := n.newer(do, data)
	if err != nil {
		return nil, err
	}
	newer, err := n.compiler.Fragment(do.Params["language"], in)
	if err != nil {
		return nil, err
	}
	fragments := map[string]*Fragment{}
	for _, in := range do.Inputs {
		from, ok := in.From.Do.(*action.Native)
		if !ok {
			return nil, fmt.Errorf("input %s comes from no native action", in.Role)
		}
		v, err := n.parse(from)
		if err != nil {
			return nil, err
		}
		if fragments[in.Role], ok = v.(*Fragment); !ok {
			return nil, fmt.Errorf("input %s says no messages", in.Role)
		}
	}
	return n.compiler.Update(fragments["base"], fragments["english"], newer, fragments["newer english"]), nil
}

// update computes an update. Where a language that base lacks got nothing, nothing is made, as if it were lacking still.
func (n *Natives) update(_ context.Context, do *action.Native) ([]action.Made, error) {
	v, err := n.parse(do)
	if err != nil {
		return nil, err
	}
	f := v.(*Fragment)
	if len(f.sections) == 0 && len(f.aliases) == 0 {
		return nil, nil
	}
	return []action.Made{file("fragment", f.Digest(), f.Size())}, nil
}

// A messageList is a section of a fragment, taken apart.
type messageList struct {
	key     string
	numbers []uint32
	texts   [][]byte
}

// Update returns base, which may be nil, with those messages of newer whose English text is the same in english and
// newerEnglish, under the same key of MessagesDirs: the texts of messages that base has take the places of these; others
// follow behind, in the order of newer. Null and the empty text, of which MediaWiki makes the same, are the same. Aliases are
// base's. All are of one component, and newer is of base's language.
func (c *Compiler) Update(base, english, newer, newerEnglish *Fragment) *Fragment {
	out := &Fragment{language: newer.language, keys: c.keys, component: english.component}
	var lists []messageList
	if base != nil {
		out.aliases = base.aliases
		for _, s := range base.sections {
			l := messageList{key: s.key, numbers: slices.Clone(base.numbers[s.from:s.to])}
			for i := s.from; i < s.to; i++ {
				l.texts = append(l.texts, base.value(i))
			}
			lists = append(lists, l)
		}
	}
	for _, s := range newer.sections {
		old, now := english.texts(s.key), newerEnglish.texts(s.key)
		var to *messageList
		var places map[uint32]int
		for i := s.from; i < s.to; i++ {
			number := newer.numbers[i]
			was, there := old[number]
			is, still := now[number]
			if !there || !still || !bytes.Equal(was, is) {
				continue
			}
			if to == nil {
				lists, to = listOf(lists, s.key, english)
				places = make(map[uint32]int, len(to.numbers))
				for i, n := range to.numbers {
					places[n] = i
				}
			}
			if at, ok := places[number]; ok {
				to.texts[at] = newer.value(i)
			} else {
				to.numbers, to.texts = append(to.numbers, number), append(to.texts, newer.value(i))
			}
		}
	}
	keys, _, _ := c.keys.all()
	for _, l := range lists {
		from := len(out.numbers)
		for i, number := range l.numbers {
			out.numbers = append(out.numbers, number)
			out.text = append(out.text, l.texts[i]...)
			out.ends = append(out.ends, uint32(len(out.text)))
			out.names += len(keys[number].key)
		}
		out.sections = append(out.sections, messageSection{l.key, from, len(out.numbers)})
	}
	return out
}

// listOf returns the list of that key; where there is none it comes in before those that follow it in English.
func listOf(lists []messageList, key string, english *Fragment) ([]messageList, *messageList) {
	at := slices.IndexFunc(lists, func(l messageList) bool { return l.key == key })
	if at < 0 {
		place := func(key string) int {
			return slices.IndexFunc(english.sections, func(s messageSection) bool { return s.key == key })
		}
		at = slices.IndexFunc(lists, func(l messageList) bool { return place(l.key) > place(key) })
		if at < 0 {
			at = len(lists)
		}
		lists = slices.Insert(lists, at, messageList{key: key})
	}
	return lists, &lists[at]
}

// texts returns the messages under a key of MessagesDirs by the numbers of their keys.
func (f *Fragment) texts(key string) map[uint32][]byte {
	for _, s := range f.sections {
		if s.key == key {
			m := make(map[uint32][]byte, s.to-s.from)
			for i := s.from; i < s.to; i++ {
				m[f.numbers[i]] = f.value(i)
			}
			return m
		}
	}
	return nil
}
