package inspect

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/rules/l10n/message"
)

// A Side is one of the two trees that [Diff] compares.
type Side struct {
	*Localisation
	Name string // for errors: a revision, or "" for the working tree
	// Natives compute the actions of rules/l10n.star in the tree, by kind. They may be called concurrently.
	Natives map[string]func(context.Context, *action.Native) ([]action.Made, error)
}

// A Difference is what differs between two sides.
type Difference struct {
	Messages []MessageChange // by component, language and key
	Outputs  []OutputChange  // by target and language
	Compared map[string]int  // how many compiled languages each target has, on either side
}

// Kinds of changes.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// A MessageChange is a message of a component in a language that differs. The same text in another place is no change.
type MessageChange struct {
	Label     string  `json:"label"`
	Component string  `json:"component"` // its Name
	Language  string  `json:"language"`
	Key       string  `json:"key"`
	Change    string  `json:"change"`
	Old       *string `json:"old,omitempty"`
	New       *string `json:"new,omitempty"`
	Pos       string  `json:"pos"` // file:line:col, of a removed message where it was
}

// An OutputChange is a compiled language that differs, deps aside.
type OutputChange struct {
	Target   string `json:"target"`
	Language string `json:"language"`
	Change   string `json:"change"`
	Messages int    `json:"messages"` // keys that come, go, or have another text or one of another language
	Order    bool   `json:"order"`    // the messages are the same, in another order
	Other    bool   `json:"other"`    // what is no message differs: aliases, magic words, plural rules, names, the fallback chain
}

// Diff compares two sides: the messages of their components, matched by label, and the compiled languages of their mw_l10n
// targets.
//
// Whether a compiled language differs is found out, not guessed. Its messages are put together from the fragments that its
// action reads, as the compiler does, on both sides. What else it holds is compared by what the actions that read the sources
// make of them and, where that differs, compiled on both sides without messages. Files that are the same in both are not
// read unless a language that changes reads them; then once.
func Diff(ctx context.Context, from, to Side) (*Difference, error) {
	d := &differ{from: from, to: to, parsed: map[string]*pieceText{}, keys: map[string]int32{}}
	res := &Difference{}
	var err error
	if res.Messages, err = d.messages(ctx); err != nil {
		return nil, err
	}
	if res.Outputs, res.Compared, err = d.outputs(ctx); err != nil {
		return nil, err
	}
	return res, nil
}

func (s Side) wrap(err error) error {
	if err == nil || s.Name == "" {
		return err
	}
	return fmt.Errorf("at %s: %w", s.Name, err)
}

type differ struct {
	from, to Side
	parsed   map[string]*pieceText // by id
	keysMu   sync.Mutex
	keys     map[string]int32 // numbers of keys
}

// contentID names the bytes of files, in this order.
func (s Side) contentID(files []string) (string, error) {
	ids := make([]string, len(files))
	for i, f := range files {
		var err error
		if ids[i], err = blobID(s.tree, f); err != nil {
			return "", s.wrap(err)
		}
	}
	return strings.Join(ids, " "), nil
}

// messages compares the components' own messages.
func (d *differ) messages(ctx context.Context) ([]MessageChange, error) {
	type pair struct {
		c        *Component // the newer one, where there are both
		language string
		files    [2][]string // old, new
	}
	var pairs []*pair
	byKey := map[[2]string]*pair{}
	for i, side := range []Side{d.to, d.from} {
		for j := range side.Components {
			c := &side.Components[j]
			for _, f := range c.fragments {
				key := [2]string{c.Label, f.language}
				p := byKey[key]
				if p == nil {
					p = &pair{c: c, language: f.language}
					byKey[key] = p
					pairs = append(pairs, p)
				}
				p.files[1-i] = f.messages()
			}
		}
	}
	order := map[string]int{}
	for _, p := range pairs {
		if _, ok := order[p.c.Label]; !ok {
			order[p.c.Label] = len(order)
		}
	}
	slices.SortStableFunc(pairs, func(a, b *pair) int {
		return cmp.Or(cmp.Compare(order[a.c.Label], order[b.c.Label]), cmp.Compare(a.language, b.language))
	})
	found := make([][]MessageChange, len(pairs))
	err := each(ctx, len(pairs), func(i int) error {
		p := pairs[i]
		was, err1 := d.from.contentID(p.files[0])
		is, err2 := d.to.contentID(p.files[1])
		if err := errors.Join(err1, err2); err != nil || was == is {
			return err
		}
		before, err1 := d.from.located(p.files[0])
		after, err2 := d.to.located(p.files[1])
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		change := func(key, what string, old, new *located, at *located) {
			c := MessageChange{Label: p.c.Label, Component: p.c.Name, Language: p.language, Key: key, Change: what}
			if old != nil {
				c.Old = &old.Value
			}
			if new != nil {
				c.New = &new.Value
			}
			c.Pos = placeOf(at.file, at.data, at.Pos).String()
			found[i] = append(found[i], c)
		}
		all := maps.Clone(before)
		maps.Copy(all, after)
		for _, key := range slices.Sorted(maps.Keys(all)) {
			old, new := before[key], after[key]
			switch {
			case old == nil:
				change(key, Added, nil, new, new)
			case new == nil:
				change(key, Removed, old, nil, old)
			case old.Value != new.Value:
				change(key, Changed, old, new, new)
			}
		}
		return nil
	})
	return slices.Concat(found...), err
}

// located is a message in its file.
type located struct {
	message.Message
	file string
	data []byte
}

// located returns the messages of a fragment by key.
func (s Side) located(files []string) (map[string]*located, error) {
	all := map[string]*located{}
	for _, file := range files {
		data, err := s.tree.ReadFile(file)
		if err != nil {
			return nil, s.wrap(err)
		}
		messages, err := message.Read(file, data)
		if err != nil {
			return nil, s.wrap(err)
		}
		for _, m := range messages {
			if all[m.Key] == nil { // the first folder that has a key wins
				all[m.Key] = &located{m, file, data}
			}
		}
	}
	return all, nil
}

// A view is a compiled language of one side, in the parts in which it is compared.
type view struct {
	side   *Side
	do     *action.Native
	pieces []piece // of messages, in the order in which they count
	rest   []part  // everything else
	shared bool    // components have folders under one key, which then stand together, or replace one another
}

// piece is the messages of one fragment.
type piece struct {
	language string
	files    []string
	id       string // of the bytes of files
}

// part is an input of a compiled language that is no message.
type part struct {
	in action.Input
	id string // of the sources of what it reads
}

// view splits the inputs of an output's action.
func (s *Side) view(do *action.Native, memo *memo) (*view, error) {
	v := &view{side: s, do: do}
	owners := map[string]string{}
	for _, in := range do.Inputs {
		from, ok := in.From.Do.(*action.Native)
		if !ok {
			return nil, s.wrap(fmt.Errorf("input %s comes from no native action", in.Role))
		}
		x, err := memo.split(s, in.From, from)
		if err != nil {
			return nil, err
		}
		if x.rest == in.From {
			v.rest = append(v.rest, part{in, x.restID})
			continue
		}
		for _, f := range from.Files {
			if owner, ok := owners[f.Role]; ok && owner != in.From.Label {
				v.shared = true
			}
			owners[f.Role] = in.From.Label
		}
		if len(x.files) > 0 {
			v.pieces = append(v.pieces, piece{from.Params["language"], x.files, x.filesID})
		}
		if x.rest != nil {
			v.rest = append(v.rest, part{action.Input{Role: in.Role, From: x.rest, Path: in.Path}, x.restID})
		}
	}
	return v, nil
}

// memo remembers what actions read: one is an input of many outputs.
type memo struct {
	mu       sync.Mutex
	seen     map[*action.Node]*splitInput
	made     map[*action.Node]*madeFiles
	messages map[string]bool // by id: whether a part that is no plain fragment may hold messages
}

// splitInput is an action's sources: message files, and the action without them, if it then still reads something.
type splitInput struct {
	once    sync.Once
	err     error
	files   []string
	filesID string
	rest    *action.Node
	restID  string
}

type madeFiles struct {
	once  sync.Once
	err   error
	files map[string]string // digests by path
}

func (m *memo) split(s *Side, n *action.Node, do *action.Native) (*splitInput, error) {
	m.mu.Lock()
	x := m.seen[n]
	if x == nil {
		x = &splitInput{}
		m.seen[n] = x
	}
	m.mu.Unlock()
	x.once.Do(func() { x.err = x.fill(m, s, n, do) })
	return x, x.err
}

func (x *splitInput) fill(m *memo, s *Side, n *action.Node, do *action.Native) error {
	x.rest = n
	rest := do
	if strings.HasPrefix(do.Kind, fragmentKind) {
		x.files = messageFiles(do)
		var err error
		if x.filesID, err = s.contentID(x.files); err != nil {
			return err
		}
		rest = &action.Native{Kind: do.Kind, Params: do.Params, Inputs: do.Inputs}
		for _, f := range do.Files {
			if !strings.HasPrefix(f.Role, "messages ") {
				rest.Files = append(rest.Files, f)
			}
		}
		if x.rest = nil; len(rest.Files) == 0 {
			return nil
		}
		x.rest = &action.Node{Label: n.Label, Name: n.Name, Pos: n.Pos, Do: rest}
	}
	h := sha256.New()
	field := func(name, value string) { fmt.Fprintf(h, "%d %s %d %s\n", len(name), name, len(value), value) }
	field("kind", rest.Kind)
	for _, p := range slices.Sorted(maps.Keys(rest.Params)) {
		field("param "+p, rest.Params[p])
	}
	for _, f := range rest.Files {
		id, err := s.contentID([]string{f.Path})
		if err != nil {
			return err
		}
		field("file "+f.Role, id)
	}
	for _, in := range rest.Inputs {
		from, ok := in.From.Do.(*action.Native)
		if !ok {
			return s.wrap(fmt.Errorf("input %s comes from no native action", in.Role))
		}
		y, err := m.split(s, in.From, from)
		if err != nil {
			return err
		}
		field("input "+in.Role, in.Path)
		field("messages", y.filesID)
		field("rest", y.restID)
	}
	x.restID = string(h.Sum(nil))
	return nil
}

// hidden tells whether messages may not be what the pieces of a view, one behind the other, amount to: where components share
// a key, and where what is not compared as messages may hold some all the same, which are PHP files that set $messages, and updates.
func (m *memo) hidden(views ...*view) (bool, error) {
	for _, v := range views {
		if v.shared {
			return true, nil
		}
		for _, p := range v.rest {
			m.mu.Lock()
			has, known := m.messages[p.id]
			m.mu.Unlock()
			if !known {
				var err error
				if has, err = v.side.hasMessages(p.in.From.Do.(*action.Native)); err != nil {
					return false, err
				}
				m.mu.Lock()
				m.messages[p.id] = has
				m.mu.Unlock()
			}
			if has {
				return true, nil
			}
		}
	}
	return false, nil
}

func (s *Side) hasMessages(do *action.Native) (bool, error) {
	if len(do.Inputs) > 0 {
		return true, nil
	}
	for _, f := range do.Files {
		if strings.Contains(f.Role, "messages ") {
			return true, nil
		}
		if strings.HasSuffix(f.Path, ".php") {
			data, err := s.tree.ReadFile(f.Path)
			if err != nil || bytes.Contains(data, []byte("$messages")) {
				return true, s.wrap(err)
			}
		}
	}
	return false, nil
}

// digest returns the digest of what an action makes at a path, "" if it makes nothing there.
func (m *memo) digest(ctx context.Context, s *Side, in action.Input) (string, error) {
	m.mu.Lock()
	x := m.made[in.From]
	if x == nil {
		x = &madeFiles{files: map[string]string{}}
		m.made[in.From] = x
	}
	m.mu.Unlock()
	x.once.Do(func() {
		made, err := s.run(ctx, in.From.Do.(*action.Native))
		x.err = err
		for _, f := range made {
			x.files[f.Path] = f.SHA256
		}
	})
	return x.files[in.Path], x.err
}

// run computes an action.
func (s *Side) run(ctx context.Context, do *action.Native) ([]action.Made, error) {
	f := s.Natives[do.Kind]
	if f == nil {
		return nil, s.wrap(fmt.Errorf("there is no native action %q", do.Kind))
	}
	made, err := f(ctx, do)
	return made, s.wrap(err)
}

// compile returns the compiled language without messages, or, if whole, with them.
func (v *view) compile(ctx context.Context, whole bool) ([]byte, error) {
	do := v.do
	if !whole {
		do = &action.Native{Kind: do.Kind, Params: do.Params}
		for _, p := range v.rest {
			do.Inputs = append(do.Inputs, p.in)
		}
	}
	made, err := v.side.run(ctx, do)
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, f := range made {
		all = append(all, f.Data...)
	}
	return all, nil
}

// outputs compares the compiled languages.
func (d *differ) outputs(ctx context.Context) ([]OutputChange, map[string]int, error) {
	memo := &memo{seen: map[*action.Node]*splitInput{}, made: map[*action.Node]*madeFiles{}, messages: map[string]bool{}}
	type pair struct {
		at       output
		from, to *view
	}
	var pairs []*pair
	index := map[[2]string]*pair{}
	for _, side := range []*Side{&d.from, &d.to} {
		for _, o := range side.outputs {
			key := [2]string{o.label, o.language}
			p := index[key]
			if p == nil {
				p = &pair{at: o}
				index[key] = p
				pairs = append(pairs, p)
			}
			v, err := side.view(o.do, memo)
			if err != nil {
				return nil, nil, err
			}
			if side == &d.from {
				p.from = v
			} else {
				p.to = v
			}
		}
	}
	slices.SortFunc(pairs, func(a, b *pair) int { return a.at.compare(b.at) })

	compared := map[string]int{}
	for _, p := range pairs {
		compared[p.at.label]++
		if p.from != nil && p.to != nil && !samePieces(p.from.pieces, p.to.pieces) {
			d.want(p.to)
			d.want(p.from)
		}
	}
	if err := d.parse(ctx); err != nil {
		return nil, nil, err
	}

	changes := make([]*OutputChange, len(pairs))
	scratches := sync.Pool{New: func() any { return &scratch{at: make([]int32, len(d.keys))} }}
	err := each(ctx, len(pairs), func(i int) error {
		p := pairs[i]
		c := &OutputChange{Target: p.at.label, Language: p.at.language, Change: Changed}
		switch {
		case p.from == nil:
			c.Change = Added
		case p.to == nil:
			c.Change = Removed
		default:
			if !samePieces(p.from.pieces, p.to.pieces) {
				s := scratches.Get().(*scratch)
				c.Messages, c.Order = d.compareTexts(s, p.from.pieces, p.to.pieces)
				scratches.Put(s)
			}
			var err error
			if c.Other, err = d.compareRest(ctx, memo, p.from, p.to); err != nil {
				return fmt.Errorf("%s: %s: %w", p.at.label, p.at.language, err)
			}
			if p.from.sameAs(p.to) {
				return nil
			}
			hidden, err := memo.hidden(p.from, p.to)
			if err != nil {
				return err
			}
			if hidden {
				differ, err := compileBoth(ctx, p.from, p.to, true)
				if err != nil || !differ {
					return err
				}
				c.Other = c.Other || c.Messages == 0 && !c.Order
			}
			if c.Messages == 0 && !c.Order && !c.Other {
				return nil
			}
		}
		changes[i] = c
		return nil
	})
	var out []OutputChange
	for _, c := range changes {
		if c != nil {
			out = append(out, *c)
		}
	}
	return out, compared, err
}

func samePieces(a, b []piece) bool {
	return slices.EqualFunc(a, b, func(a, b piece) bool { return a.language == b.language && a.id == b.id })
}

// sameAs tells whether v is made of the same bytes as w.
func (v *view) sameAs(w *view) bool {
	return maps.Equal(v.do.Params, w.do.Params) && v.do.Kind == w.do.Kind && samePieces(v.pieces, w.pieces) &&
		slices.EqualFunc(v.rest, w.rest, func(a, b part) bool { return a.id == b.id }) &&
		slices.EqualFunc(v.do.Inputs, w.do.Inputs, func(a, b action.Input) bool { return a.Role == b.Role && a.Path == b.Path })
}

// compareRest tells whether what is no message differs.
func (d *differ) compareRest(ctx context.Context, memo *memo, from, to *view) (bool, error) {
	same := maps.Equal(from.do.Params, to.do.Params) && from.do.Kind == to.do.Kind && len(from.rest) == len(to.rest)
	for i := 0; same && i < len(from.rest); i++ {
		a, b := from.rest[i], to.rest[i]
		same = a.in.Role == b.in.Role && a.in.Path == b.in.Path
		if same && a.id != b.id {
			was, err := memo.digest(ctx, from.side, a.in)
			if err != nil {
				return false, err
			}
			is, err := memo.digest(ctx, to.side, b.in)
			if err != nil {
				return false, err
			}
			same = was == is
		}
	}
	if same {
		return false, nil
	}
	return compileBoth(ctx, from, to, false)
}

func compileBoth(ctx context.Context, from, to *view, whole bool) (differ bool, err error) {
	was, err := from.compile(ctx, whole)
	if err != nil {
		return false, err
	}
	is, err := to.compile(ctx, whole)
	return !bytes.Equal(was, is), err
}

// pieceText is a piece's messages in order, each key once.
type pieceText struct {
	side    *Side
	files   []string
	entries []entry
}

type entry struct {
	key   int32
	value string
}

// want notes that the messages of v are needed.
func (d *differ) want(v *view) {
	for _, p := range v.pieces {
		if d.parsed[p.id] == nil {
			d.parsed[p.id] = &pieceText{side: v.side, files: p.files}
		}
	}
}

// parse reads what is wanted.
func (d *differ) parse(ctx context.Context) error {
	ids := slices.Sorted(maps.Keys(d.parsed))
	return each(ctx, len(ids), func(i int) error {
		t := d.parsed[ids[i]]
		var all []message.Message
		for _, file := range t.files {
			data, err := t.side.tree.ReadFile(file)
			if err != nil {
				return t.side.wrap(err)
			}
			messages, err := message.Read(file, data)
			if err != nil {
				return t.side.wrap(err)
			}
			all = append(all, messages...)
		}
		t.entries = make([]entry, len(all))
		d.keysMu.Lock()
		defer d.keysMu.Unlock()
		for i, m := range all {
			n, ok := d.keys[m.Key]
			if !ok {
				n = int32(len(d.keys))
				d.keys[m.Key] = n
			}
			t.entries[i] = entry{n, m.Value}
		}
		return nil
	})
}

// scratch is what comparing needs, for use again and again.
type scratch struct {
	at       []int32 // by key: its index in from, plus 1
	from, to []effective
}

// effective is a message of a compiled language.
type effective struct {
	entry
	language string // that it comes from, which the compiled file names
}

// compareTexts counts the keys that come, go, or change their text or its language between two compiled languages, and, if
// there are none, tells whether the order differs.
func (d *differ) compareTexts(s *scratch, from, to []piece) (changed int, order bool) {
	s.to = d.effective(s, to, s.to[:0])
	s.forget(s.to)
	s.from = d.effective(s, from, s.from[:0])
	defer s.forget(s.from)
	common := 0
	for i, e := range s.to {
		at := s.at[e.key]
		if at == 0 {
			changed++
			continue
		}
		common++
		if s.from[at-1] != e {
			changed++
		}
		order = order || int(at-1) != i
	}
	changed += len(s.from) - common
	return changed, order && changed == 0
}

// effective appends the messages that pieces amount to, in order: of each key, the first. It leaves where they are in s.at.
func (d *differ) effective(s *scratch, pieces []piece, out []effective) []effective {
	for _, p := range pieces {
		for _, e := range d.parsed[p.id].entries {
			if s.at[e.key] == 0 {
				out = append(out, effective{e, p.language})
				s.at[e.key] = int32(len(out))
			}
		}
	}
	return out
}

// forget clears what effective left.
func (s *scratch) forget(es []effective) {
	for _, e := range es {
		s.at[e.key] = 0
	}
}
