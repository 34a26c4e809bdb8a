package l10n

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/rules/l10n/message"
)

// UpdateKind is a component's messages in a language, with newer translations from elsewhere.
const UpdateKind = "l10n update 1"

// AnalyseNewer finds newer message files: args has "dirs", pairs of role and folder as [AnalyseComponent] returns them,
// and "folder", the folder of the package below which these folders are looked for.
//
// The result has "files": for each language pairs of role and path.
func AnalyseNewer(_ context.Context, files Files, pkg string, args map[string]any) (any, error) {
	folder, _ := args["folder"].(string)
	a := newAnalysis(files, pkg)
	dirs, _ := args["dirs"].([]any)
	for _, d := range dirs {
		pair, ok := d.([]any)
		if !ok || len(pair) != 2 {
			return nil, fmt.Errorf("dirs holds %v, want pairs", d)
		}
		role, _ := pair[0].(string)
		dir, _ := pair[1].(string)
		if strings.HasPrefix(role, "messages ") {
			if err := a.messages(role, path.Join(pkg, folder, dir)); err != nil {
				return nil, err
			}
		}
	}
	return map[string]any{"files": a.result()["fragments"]}, nil
}

// A section is the messages under one key of MessagesDirs, each key once, as MediaWiki's array holds them.
type section struct {
	key      string
	messages []message.Message
}

// add puts messages behind those that are there; what is there already stays.
func (s *section) add(more []message.Message) {
	seen := make(map[string]bool, len(s.messages))
	for _, m := range s.messages {
		seen[m.Key] = true
	}
	for _, m := range more {
		if !seen[m.Key] {
			seen[m.Key] = true
			s.messages = append(s.messages, m)
		}
	}
}

// sections reads message files whose roles are prefix and a key.
func (n *Natives) sections(files []action.Source, prefix string) ([]section, error) {
	var all []section
	at := map[string]int{}
	for _, f := range files {
		key, ok := strings.CutPrefix(f.Role, prefix)
		if !ok {
			continue
		}
		data, err := n.read(f.Path)
		if err != nil {
			return nil, err
		}
		messages, err := message.Read(f.Path, data)
		if err != nil {
			return nil, err
		}
		if _, ok := at[key]; !ok {
			at[key] = len(all)
			all = append(all, section{key: key})
		}
		all[at[key]].add(messages)
	}
	return all, nil
}

// messagesOf returns what a fragment or an update says.
func (n *Natives) messagesOf(do *action.Native) ([]section, error) {
	if do.Kind == UpdateKind {
		return n.updated(do)
	}
	return n.sections(do.Files, "messages ")
}

// updated is the messages of an update: the base's, where the newer files do not have another translation of the same
// English message.
func (n *Natives) updated(do *action.Native) ([]section, error) {
	newer, err := n.sections(do.Files, "newer messages ")
	if err != nil {
		return nil, err
	}
	newerEnglish, err := n.sections(do.Files, "newer english messages ")
	if err != nil {
		return nil, err
	}
	var base, english []section
	for _, in := range do.Inputs {
		from, ok := in.From.Do.(*action.Native)
		if !ok {
			return nil, fmt.Errorf("input %s comes from no native action", in.Role)
		}
		to := &base
		if in.Role == "english" {
			to = &english
		}
		if *to, err = n.messagesOf(from); err != nil {
			return nil, err
		}
	}
	return update(base, english, newer, newerEnglish), nil
}

// updateInput is what an update's fragment is made of: its messages, and the JSON aliases of its base.
func (n *Natives) updateInput(do *action.Native) (FragmentInput, error) {
	var in FragmentInput
	all, err := n.updated(do)
	if err != nil {
		return in, err
	}
	for _, s := range all {
		file, err := s.source("update of " + s.key)
		if err != nil {
			return in, err
		}
		in.add("messages "+s.key, file)
	}
	for base := do; base != nil; {
		for _, f := range base.Files {
			if base.Kind == FragmentKind && strings.HasPrefix(f.Role, "aliases ") {
				data, err := n.read(f.Path)
				if err != nil {
					return in, err
				}
				in.add(f.Role, Source{f.Path, data})
			}
		}
		at := slices.IndexFunc(base.Inputs, func(i action.Input) bool { return i.Role == "base" })
		if at < 0 {
			break
		}
		base, _ = base.Inputs[at].From.Do.(*action.Native)
	}
	return in, nil
}

// update takes from newer each translation whose English message is the same in both. What base has keeps its place, what
// it lacks comes behind, in the order of newer.
func update(base, english, newer, newerEnglish []section) []section {
	index := func(all []section, key string) map[string]message.Message {
		m := map[string]message.Message{}
		for _, s := range all {
			if s.key == key {
				for _, msg := range s.messages {
					m[msg.Key] = msg
				}
			}
		}
		return m
	}
	same := func(a, b message.Message) bool { return a.Value == b.Value && a.Null == b.Null }
	out := make([]section, len(base))
	at := map[string]int{}
	for i, s := range base {
		out[i] = section{s.key, append([]message.Message(nil), s.messages...)}
		at[s.key] = i
	}
	for _, s := range newer {
		was, is := index(english, s.key), index(newerEnglish, s.key)
		if _, ok := at[s.key]; !ok {
			at[s.key] = len(out)
			out = append(out, section{key: s.key})
		}
		to := &out[at[s.key]]
		place := map[string]int{}
		for i, m := range to.messages {
			place[m.Key] = i
		}
		for _, m := range s.messages {
			old, there := was[m.Key]
			now, still := is[m.Key]
			if !there || !still || !same(old, now) {
				continue
			}
			if i, ok := place[m.Key]; ok {
				to.messages[i] = m
			} else {
				to.messages = append(to.messages, m)
			}
		}
	}
	return out
}

// source writes messages as a message file, so that a fragment is made of them as of any other.
func (s section) source(name string) (Source, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range s.messages {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(m.Key)
		if err != nil {
			return Source{}, err
		}
		value := []byte("null")
		if !m.Null {
			if value, err = json.Marshal(m.Value); err != nil {
				return Source{}, err
			}
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return Source{Name: name, Data: b.Bytes()}, nil
}
