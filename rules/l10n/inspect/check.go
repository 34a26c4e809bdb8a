package inspect

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mwbuild/mwbuild/internal/spell"
	"github.com/mwbuild/mwbuild/rules/l10n/message"
	"github.com/mwbuild/mwbuild/rules/l10n/php"
)

// A CheckInfo is one thing that [Check] looks for.
type CheckInfo struct {
	Name    string `json:"name"`
	Doc     string `json:"doc"` // in a line
	Default bool   `json:"default"`
}

const (
	duplicateKey        = "duplicate-key"
	emptyTranslation    = "empty-translation"
	invalidFile         = "invalid-file"
	leadingSpace        = "leading-space"
	missingMetadata     = "missing-metadata"
	missingParameter    = "missing-parameter"
	missingQqq          = "missing-qqq"
	missingSource       = "missing-source"
	sameTranslation     = "same-translation"
	trailingSpace       = "trailing-space"
	undocumented        = "undocumented"
	unknownParameter    = "unknown-parameter"
	unusedDocumentation = "unused-documentation"
	unusedTranslation   = "unused-translation"
	upperCaseKey        = "upper-case-key"
)

// Checks returns all checks, by name. What banana-checker looks for by default is on by default, and so is what MediaWiki
// itself would trip over.
func Checks() []CheckInfo {
	return []CheckInfo{
		{duplicateKey, "a key that is in a file twice: the last text counts", true},
		{emptyTranslation, "a translation without text, where English has one", true},
		{invalidFile, "a file that MediaWiki cannot read", true},
		{leadingSpace, "white space before an English message or its documentation", false},
		{missingMetadata, "English or documentation without @metadata", true},
		{missingParameter, "a translation that does not use a parameter, such as $1, that English uses", false},
		{missingQqq, "a folder without qqq.json, the documentation of its messages", true},
		{missingSource, "a folder without en.json, the messages themselves", true},
		{sameTranslation, "a translation that is the same as English", false},
		{trailingSpace, "white space after an English message or its documentation", true},
		{undocumented, "an English message that qqq.json does not document", true},
		{unknownParameter, "a translation that uses a parameter, such as $1, that English does not use", false},
		{unusedDocumentation, "documentation of a message that English does not have", true},
		{unusedTranslation, "a translation of a message that English does not have", false},
		{upperCaseKey, "an English message whose key has upper-case letters", false},
	}
}

// SelectChecks reads the names of checks. Names alone are the checks to run; names that begin with + or - are added to those
// that run by default, or taken out of these. "all" is all of them. No name at all is the default.
func SelectChecks(names []string) (map[string]bool, error) {
	known := Checks()
	on := map[string]bool{}
	if len(names) == 0 || names[0] != "" && strings.ContainsRune("+-", rune(names[0][0])) {
		for _, c := range known {
			on[c.Name] = c.Default
		}
	}
	for _, n := range names {
		name := strings.TrimLeft(n, "+-")
		want := !strings.HasPrefix(n, "-")
		if name == "all" {
			for _, c := range known {
				on[c.Name] = want
			}
			continue
		}
		if !slices.ContainsFunc(known, func(c CheckInfo) bool { return c.Name == name }) {
			var all []string
			for _, c := range known {
				all = append(all, c.Name)
			}
			if near := spell.Nearest(name, all); near != "" {
				return nil, fmt.Errorf("there is no check %q\n    did you mean %s?", name, near)
			}
			return nil, fmt.Errorf("there is no check %q\n    --list names them", name)
		}
		on[name] = want
	}
	maps.DeleteFunc(on, func(_ string, v bool) bool { return !v })
	return on, nil
}

// A Finding is one thing that is wrong.
type Finding struct {
	Check string
	Label string // the component's target
	Msg   string
	Hint  string // what to do next
	place place
}

// Pos is where it is, as file:line:col.
func (f Finding) Pos() string { return f.place.String() }

// Check looks for what is wrong with the message files of components, as banana-checker does, folder by folder. on names the
// checks to run. Findings are sorted by place. It looks at the languages that MediaWiki would read, and at qqq.json.
func Check(ctx context.Context, l *Localisation, on map[string]bool) ([]Finding, error) {
	var folders []*folder
	index := map[string]*folder{}
	add := func(label, dir string) *folder {
		f := index[dir]
		if f == nil {
			f = &folder{label, dir, map[string]string{}}
			index[dir] = f
			folders = append(folders, f)
		}
		return f
	}
	for _, c := range l.Components {
		for _, fr := range c.fragments {
			for _, file := range fr.messages() {
				add(c.Label, path.Dir(file)).codes[fr.language] = file
			}
		}
		dirs, err := l.registered(&c)
		if err != nil {
			return nil, err
		}
		for _, dir := range dirs {
			add(c.Label, dir)
		}
	}
	return checkFolders(ctx, reader{l.tree}, folders, on)
}

// folder is one folder of messages.
type folder struct {
	label string
	dir   string
	codes map[string]string // files by language
}

// Files is where [CheckFolders] reads.
type Files interface {
	Has(path string) bool
	ReadFile(path string) ([]byte, error)
}

// reader is a Tree as Files.
type reader struct{ Tree }

func (r reader) Has(path string) bool {
	_, ok := r.Lookup(path)
	return ok
}

// CheckFolders is [Check] of folders that are known: of each its files of messages by language, [Documentation] not among them.
// label names whose they are.
func CheckFolders(ctx context.Context, files Files, label string, codes map[string]map[string]string, on map[string]bool) ([]Finding, error) {
	var folders []*folder
	for _, dir := range slices.Sorted(maps.Keys(codes)) {
		folders = append(folders, &folder{label, dir, codes[dir]})
	}
	return checkFolders(ctx, files, folders, on)
}

func checkFolders(ctx context.Context, files Files, folders []*folder, on map[string]bool) ([]Finding, error) {
	found := make([][]Finding, len(folders))
	err := each(ctx, len(folders), func(i int) error {
		f := folders[i]
		c := &checker{ctx: ctx, tree: files, on: on, label: f.label, dir: f.dir}
		err := c.folder(f.codes)
		found[i] = c.found
		return err
	})
	if err != nil {
		return nil, err
	}
	all := slices.Concat(found...)
	slices.SortFunc(all, func(a, b Finding) int {
		return cmp.Or(a.place.compare(b.place), cmp.Compare(a.Check, b.Check), cmp.Compare(a.Msg, b.Msg))
	})
	return all, nil
}

// registered returns the folders that a component's manifests register for messages, whether or not there are files in them.
func (l *Localisation) registered(c *Component) ([]string, error) {
	var dirs []string
	for _, name := range c.manifests {
		data, err := l.tree.ReadFile(name)
		if err != nil {
			return nil, err
		}
		v, err := message.ReadValue(name, data)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, MessageDirs(name, v)...)
	}
	return dirs, nil
}

// MessageDirs are the folders that a manifest, the file name of value v, registers for messages.
func MessageDirs(name string, v php.Value) (dirs []string) {
	m, _ := v.(*php.Array)
	section, _ := m.Get(php.StringKey("MessagesDirs"))
	registered, _ := section.(*php.Array)
	for _, v := range registered.All() {
		list, ok := v.(*php.Array)
		if !ok {
			list = php.List(v)
		}
		for _, v := range list.All() {
			if dir, ok := v.(string); ok {
				dirs = append(dirs, path.Join(path.Dir(name), dir))
			}
		}
	}
	return dirs
}

// checker checks one folder.
type checker struct {
	ctx   context.Context
	tree  Files
	on    map[string]bool
	label string
	dir   string
	found []Finding
}

// texts is a message file that was read.
type texts struct {
	file string
	data []byte
	list []message.Message
	// by is nil until it is asked for
	by map[string]*message.Message
}

func (t *texts) get(key string) *message.Message {
	if t == nil {
		return nil
	}
	if t.by == nil {
		t.by = make(map[string]*message.Message, len(t.list))
		for i := range t.list {
			t.by[t.list[i].Key] = &t.list[i]
		}
	}
	return t.by[key]
}

func (c *checker) add(check string, at place, msg, hint string) {
	if c.on[check] {
		c.found = append(c.found, Finding{check, c.label, msg, hint, at})
	}
}

// message adds a finding about a message.
func (c *checker) message(check string, t *texts, m *message.Message, msg, hint string) {
	if c.on[check] {
		c.add(check, placeOf(t.file, t.data, m.Pos), msg, hint)
	}
}

// read reads a file, unless it cannot be read, which it notes.
func (c *checker) read(file string) (*texts, error) {
	data, err := c.tree.ReadFile(file)
	if err != nil {
		return nil, err
	}
	list, err := message.Read(file, data)
	if wrong := (*message.Error)(nil); errors.As(err, &wrong) {
		c.add(invalidFile, place{wrong.File, wrong.Line, wrong.Col}, wrong.What, "MediaWiki cannot read the file: correct it")
		return nil, nil
	}
	return &texts{file: file, data: data, list: list}, err
}

func (c *checker) folder(codes map[string]string) error {
	var source, docs *texts
	var err error
	if file, ok := codes[English]; ok {
		source, err = c.read(file)
	} else {
		c.add(missingSource, place{path.Join(c.dir, English+".json"), 1, 1}, "there is no such file, so the folder has no messages in English",
			"write it, or take the folder out of MessagesDirs")
	}
	if err != nil {
		return err
	}
	qqq := path.Join(c.dir, Documentation+".json")
	if c.tree.Has(qqq) {
		docs, err = c.read(qqq)
	} else if source != nil {
		c.add(missingQqq, place{qqq, 1, 1}, "there is no such file, so translators are told nothing about the messages",
			"write it, with a sentence about each message of "+English+".json")
	}
	if err != nil {
		return err
	}
	for _, t := range []*texts{source, docs} {
		if t != nil {
			c.written(t)
		}
	}
	if source != nil {
		c.documented(source, docs)
	}
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		if code == English {
			continue
		}
		t, err := c.read(codes[code])
		if err != nil {
			return err
		}
		if t != nil {
			c.duplicates(t, members(t.data))
			if source != nil {
				c.translation(source, t)
			}
		}
	}
	return nil
}

// written checks what developers write: English and documentation.
func (c *checker) written(t *texts) {
	all := members(t.data)
	c.duplicates(t, all)
	if !slices.ContainsFunc(all, func(m member) bool { return m.key() == "@metadata" }) {
		c.add(missingMetadata, place{t.file, 1, 1}, "there is no @metadata", `write "@metadata": { "authors": [] } before the first message`)
	}
	for i := range t.list {
		m := &t.list[i]
		if strings.TrimLeftFunc(m.Value, unicode.IsSpace) != m.Value {
			c.message(leadingSpace, t, m, fmt.Sprintf("%q begins with white space", m.Key), "remove it; where it must be, write &#32;")
		}
		if strings.TrimRightFunc(m.Value, unicode.IsSpace) != m.Value {
			c.message(trailingSpace, t, m, fmt.Sprintf("%q ends in white space", m.Key), "remove it; where it must be, write &#32;")
		}
	}
}

// documented compares English with documentation, which may be nil.
func (c *checker) documented(source, docs *texts) {
	for i := range source.list {
		m := &source.list[i]
		if strings.ContainsFunc(m.Key, unicode.IsUpper) {
			c.message(upperCaseKey, source, m, fmt.Sprintf("the key %q has upper-case letters", m.Key), "write keys in lower case")
		}
		if docs != nil && docs.get(m.Key) == nil {
			c.message(undocumented, source, m, fmt.Sprintf("%q is not documented", m.Key), "tell translators in "+c.dir+"/qqq.json what it is for")
		}
	}
	if docs == nil {
		return
	}
	for i := range docs.list {
		m := &docs.list[i]
		if source.get(m.Key) == nil {
			c.message(unusedDocumentation, docs, m, fmt.Sprintf("%q is documented, but there is no such message", m.Key), "remove it, or correct the key")
		}
	}
}

// translation compares a translation with English.
func (c *checker) translation(source, t *texts) {
	for i := range t.list {
		m := &t.list[i]
		en := source.get(m.Key)
		if en == nil {
			c.message(unusedTranslation, t, m, fmt.Sprintf("%q is translated, but there is no such message in English", m.Key),
				"remove it, or correct the key")
			continue
		}
		if strings.TrimSpace(m.Value) == "" && strings.TrimSpace(en.Value) != "" {
			c.message(emptyTranslation, t, m, fmt.Sprintf("%q has no text", m.Key), "translate it, or remove it, so that another language takes its place")
			continue
		}
		if m.Value == en.Value {
			c.message(sameTranslation, t, m, fmt.Sprintf("%q is the same as in English", m.Key), "remove it, unless it is meant to stay when English changes")
			continue
		}
		wants, has := parameters(en.Value), parameters(m.Value)
		for n := range numbers(has &^ wants) {
			c.message(unknownParameter, t, m, fmt.Sprintf("%q uses $%d, and English does not", m.Key, n), "compare with "+source.file+": "+clip(en.Value))
		}
		for n := range numbers(wants &^ has) {
			c.message(missingParameter, t, m, fmt.Sprintf("%q does not use $%d, and English does", m.Key, n), "compare with "+source.file+": "+clip(en.Value))
		}
	}
}

// duplicates finds keys that are there twice. all are the members of t.
func (c *checker) duplicates(t *texts, all []member) {
	n := 0
	for _, m := range all {
		if key := m.key(); key != "" && key[0] != '@' {
			n++
		}
	}
	if n <= len(t.list) {
		return
	}
	seen := map[string]int{}
	for _, m := range all {
		key := m.key()
		if key == "" || key[0] == '@' {
			continue
		}
		at := placeOf(t.file, t.data, m.pos)
		if line, ok := seen[key]; ok {
			c.add(duplicateKey, at, fmt.Sprintf("%q is here again; what line %d says of it is lost", key, line), "remove one of the two")
		}
		seen[key] = at.line
	}
}

// member is a key of the object that a file is.
type member struct {
	raw []byte // with quotes
	pos int
}

func (m member) key() string {
	if !bytes.ContainsRune(m.raw, '\\') {
		return string(m.raw[1 : len(m.raw)-1])
	}
	var s string
	_ = json.Unmarshal(m.raw, &s) // the file was read before
	return s
}

// members returns the keys of a file that message.Read accepts; none of a list.
func members(data []byte) []member {
	var all []member
	depth, value := 0, false
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			if depth++; depth == 1 && data[i] == '[' {
				return nil
			}
		case '}', ']':
			depth--
		case ':':
			value = value || depth == 1
		case ',':
			value = false
		case '"':
			start := i
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
			if depth == 1 && !value {
				all = append(all, member{data[start : i+1], start})
			}
		}
	}
	return all
}

// parameters returns the numbers of the parameters that a text uses, $1 to $63, one bit each, wherever they are.
func parameters(text string) uint64 {
	var set uint64
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 {
			return set
		}
		text = text[i+1:]
		n := 0
		for len(text) > 0 && '0' <= text[0] && text[0] <= '9' && n < 64 {
			n = 10*n + int(text[0]-'0')
			text = text[1:]
		}
		if n < 64 {
			set |= 1 << n &^ 1
		}
	}
}

// numbers yields the numbers of the bits of set.
func numbers(set uint64) func(func(int) bool) {
	return func(yield func(int) bool) {
		for ; set != 0; set &= set - 1 {
			if !yield(bits.TrailingZeros64(set)) {
				return
			}
		}
	}
}

// clip is a text in quotes, on one line, and not too long.
func clip(text string) string {
	const most = 100
	short := text
	if len(short) > most {
		short = short[:most]
		for !utf8.ValidString(short) {
			short = short[:len(short)-1]
		}
		short += "…"
	}
	return fmt.Sprintf("%q", short)
}
