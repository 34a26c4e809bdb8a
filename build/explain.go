package build

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
)

// An Explanation says why one action would run now, or why it ran last.
type Explanation struct {
	Step    *plan.Step
	Never   bool          // it was never built here
	Changes []plan.Change // what differs from the manifest before; of a Hit, what made it run last
	Lost    bool          // its record or blob is gone, with nothing changed
	Behind  []*plan.Step  // the steps whose outputs a Pending one waits for
}

// Explain tells of every action that the targets need, dependencies first, why it would run now. It executes nothing.
func (b *Builder) Explain(ctx context.Context, targets []*graph.Target) ([]Explanation, *plan.Plan, error) {
	p, err := b.Plan(ctx, targets)
	if err != nil {
		return nil, nil, err
	}
	var all []Explanation
	return all, p, b.Records.session(ctx, func(db *session) error {
		for _, s := range p.Steps {
			e, err := explain(db, s)
			if err != nil {
				return err
			}
			all = append(all, e)
		}
		return nil
	})
}

// explain compares the manifest of a resolved step with the one that it had before.
func explain(db *session, s *plan.Step) (Explanation, error) {
	e := Explanation{Step: s}
	if s.State == plan.Pending {
		for _, d := range s.Deps {
			if d.Record == nil {
				e.Behind = append(e.Behind, d)
			}
		}
		return e, nil
	}
	last, err := db.last(s.Node)
	if err != nil {
		return e, err
	}
	before := last.Key
	if before == s.Key {
		if e.Lost = s.State == plan.Dirty; e.Lost {
			return e, nil
		}
		before = last.Before
	}
	was, err := db.manifest(before)
	if was == nil || err != nil {
		e.Never = true
		return e, err
	}
	e.Changes = plan.Diff(was, s.Manifest)
	return e, nil
}

// Summary says in one line why the explained actions, those that a build executed, had to run: by cause, without what only
// follows from another one.
func Summary(why []Explanation) string {
	const firstTime, lost = "built for the first time", "no longer in the cache"
	var causes []string
	counts := map[string]int{}
	count := func(cause string) {
		if counts[cause]++; counts[cause] == 1 {
			causes = append(causes, cause)
		}
	}
	for _, e := range why {
		pkg, _, _ := strings.Cut(strings.TrimPrefix(e.Step.Node.Label, "//"), ":")
		where := "//" + pkg
		switch {
		case e.Never:
			count(firstTime)
			continue
		case e.Lost:
			count(lost)
			continue
		}
		files, own := 0, false
		for _, c := range e.Changes {
			switch {
			case c.Derived():
			case strings.HasPrefix(c.Name, "file "), strings.HasPrefix(c.Name, "source "):
				files++
			default:
				own = true
			}
		}
		if files > 0 {
			noun := "files"
			if files == 1 {
				noun = "file"
			}
			causes = append(causes, fmt.Sprintf("%d %s changed in %s", files, noun, where))
		}
		if own {
			count("definition of " + e.Step.Node.Label + " changed")
		}
	}
	for i, c := range causes {
		if c == firstTime || c == lost {
			causes[i] = fmt.Sprintf("%d %s", counts[c], c)
		}
	}
	const most = 4
	if len(causes) > most {
		causes = append(causes[:most:most], fmt.Sprintf("and %d more causes", len(causes)-most))
	}
	return strings.Join(causes, ", ")
}

// Describe says in a few words what a change of an action's manifest means to a person, with the workspace's name for a
// file where n still knows it.
func Describe(n *action.Node, c plan.Change) string {
	kind, what, _ := strings.Cut(c.Name, " ")
	if kind == "source" {
		verb := " changed"
		switch {
		case c.Old == nil:
			verb = " was added"
		case c.New == nil:
			verb = " was removed"
		}
		return "file " + what + verb
	}
	if kind == "download" && c.Old == nil {
		return "download " + downloadName(n, what) + " was added"
	} else if kind == "download" && c.New == nil {
		return "download " + downloadName(n, what) + " was removed"
	}
	if kind == "file" {
		name := sourceName(n, what)
		switch {
		case c.Old == nil:
			return "file " + name + " was added"
		case c.New == nil:
			return "file " + name + " was removed"
		}
		oldMode, oldDigest, _ := strings.Cut(*c.Old, " ")
		newMode, newDigest, _ := strings.Cut(*c.New, " ")
		switch {
		case oldDigest == newDigest:
			return fmt.Sprintf("file %s changed its mode from %s to %s", name, oldMode, newMode)
		case oldMode != newMode:
			return fmt.Sprintf("file %s changed, and its mode from %s to %s", name, oldMode, newMode)
		}
		return "file " + name + " changed"
	}
	switch {
	case c.Name == plan.Reordered && c.Old == nil && c.New == nil:
		return "the order of its inputs changed"
	case c.Old == nil:
		return fmt.Sprintf("%s was added: %s", c.Name, short(*c.New))
	case c.New == nil:
		return fmt.Sprintf("%s was removed: %s", c.Name, short(*c.Old))
	}
	return fmt.Sprintf("%s changed from %s to %s", c.Name, short(*c.Old), short(*c.New))
}

// downloadName is what people call a download of n, or its digest where n has it no more.
func downloadName(n *action.Node, sum string) string {
	if do, ok := n.Do.(*action.Native); ok {
		for _, d := range do.Downloads {
			if d.SHA256 == sum {
				return d.Name
			}
		}
	}
	return short("sha256:" + sum)
}

// sourceName is the workspace's name of the file that n puts at dest, or put there when it was still in the workspace: then
// as the other files of the layer tell, whose places and names end alike.
func sourceName(n *action.Node, dest string) string {
	l, ok := n.Do.(*action.Layer)
	if !ok {
		return dest
	}
	guess := dest
	for _, e := range l.Entries {
		if e.Dest == dest && e.File != "" {
			return e.File
		}
		if e.File == "" || guess != dest {
			continue
		}
		place, name := e.Dest, e.File
		for path.Base(place) == path.Base(name) && name != "." {
			place, name = path.Dir(place), path.Dir(name)
		}
		if rest, ok := strings.CutPrefix(dest, place+"/"); ok {
			guess = path.Join(name, rest)
		}
	}
	return guess
}

func short(s string) string {
	if algorithm, hex, ok := strings.Cut(s, ":"); ok && algorithm == "sha256" && len(hex) == 64 {
		return "sha256:" + hex[:12]
	}
	if len(s) > 60 {
		return fmt.Sprintf("%q…", s[:60])
	}
	return fmt.Sprintf("%q", s)
}
