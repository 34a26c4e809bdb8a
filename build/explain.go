package build

import (
	"context"
	"fmt"
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
func (b *Builder) Explain(ctx context.Context, targets []*graph.Target) ([]Explanation, error) {
	p, err := b.Plan(ctx, targets)
	if err != nil {
		return nil, err
	}
	var all []Explanation
	return all, b.Records.session(ctx, func(db *session) error {
		for _, s := range p.Steps {
			e := Explanation{Step: s}
			last, err := db.last(s.Node)
			if err != nil {
				return err
			}
			if s.State == plan.Pending {
				for _, d := range s.Deps {
					if d.Record == nil {
						e.Behind = append(e.Behind, d)
					}
				}
				all = append(all, e)
				continue
			}
			before := last.Key
			if before == s.Key {
				if e.Lost = s.State == plan.Dirty; !e.Lost {
					before = last.Before
				}
			}
			was, err := db.manifest(before)
			if err != nil {
				return err
			}
			if was == nil {
				e.Never = !e.Lost
			} else {
				e.Changes = plan.Diff(was, s.Manifest)
			}
			all = append(all, e)
		}
		return nil
	})
}

// Describe says in a few words what a change of an action's manifest means to a person, with the workspace's name for a
// file where n still knows it.
func Describe(n *action.Node, c plan.Change) string {
	kind, what, _ := strings.Cut(c.Name, " ")
	if kind == "file" {
		name := what
		if l, ok := n.Do.(*action.Layer); ok {
			for _, e := range l.Entries {
				if e.Dest == what && e.File != "" {
					name = e.File
				}
			}
		}
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
	case c.Old == nil:
		return fmt.Sprintf("%s was added: %s", c.Name, short(*c.New))
	case c.New == nil:
		return fmt.Sprintf("%s was removed: %s", c.Name, short(*c.Old))
	}
	return fmt.Sprintf("%s changed from %s to %s", c.Name, short(*c.Old), short(*c.New))
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
