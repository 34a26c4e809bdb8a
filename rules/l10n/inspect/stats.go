package inspect

import (
	"context"
	"maps"
	"slices"

	"github.com/mwbuild/mwbuild/rules/l10n/message"
)

// A Coverage is how much of what a component says in English it says in a language.
type Coverage struct {
	Label      string `json:"label"`
	Component  string `json:"component"` // its Name
	Language   string `json:"language"`
	Translated int    `json:"translated"` // messages in the language's own files that English has too
	Total      int    `json:"total"`      // messages in English
}

// Stats returns the coverage of every component in every language that any of the components has a file for, in the order of
// components, and by language. Each message file is read once. Messages that are the same as in English count as
// translated; those that English lacks count nowhere.
func Stats(ctx context.Context, l *Localisation) ([]Coverage, error) {
	type job struct {
		component int
		fragment  *fragment
	}
	var jobs []job
	codes := map[string]bool{English: true}
	english := make([]map[string]bool, len(l.Components))
	var sources []job
	for i := range l.Components {
		english[i] = map[string]bool{}
		for j := range l.Components[i].fragments {
			f := &l.Components[i].fragments[j]
			codes[f.language] = true
			if f.language == English {
				sources = append(sources, job{i, f})
			} else {
				jobs = append(jobs, job{i, f})
			}
		}
	}
	err := each(ctx, len(sources), func(i int) error {
		return l.keys(sources[i].fragment, func(key string) { english[sources[i].component][key] = true })
	})
	if err != nil {
		return nil, err
	}
	counts := make([]int, len(jobs))
	err = each(ctx, len(jobs), func(i int) error {
		j := jobs[i]
		source := english[j.component]
		if files := j.fragment.messages(); len(files) == 1 {
			return l.keys(j.fragment, func(key string) {
				if source[key] {
					counts[i]++
				}
			})
		}
		seen := map[string]bool{}
		err := l.keys(j.fragment, func(key string) {
			if source[key] {
				seen[key] = true
			}
		})
		counts[i] = len(seen)
		return err
	})
	if err != nil {
		return nil, err
	}
	translated := make([]map[string]int, len(l.Components))
	for i := range translated {
		translated[i] = map[string]int{English: len(english[i])}
	}
	for i, j := range jobs {
		translated[j.component][j.fragment.language] = counts[i]
	}
	var all []Coverage
	for i, c := range l.Components {
		for _, code := range slices.Sorted(maps.Keys(codes)) {
			all = append(all, Coverage{c.Label, c.Name, code, translated[i][code], len(english[i])})
		}
	}
	return all, nil
}

// keys calls f for each key of a fragment's messages; twice for one that is in two files.
func (l *Localisation) keys(fr *fragment, f func(string)) error {
	for _, file := range fr.messages() {
		data, err := l.tree.ReadFile(file)
		if err != nil {
			return err
		}
		messages, err := message.Read(file, data)
		if err != nil {
			return err
		}
		for _, m := range messages {
			f(m.Key)
		}
	}
	return nil
}
