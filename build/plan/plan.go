// Package plan decides which actions must run, and knows why.
//
// For every action it makes the manifest of its inputs, whose digest is the key under which a record of an earlier
// execution may be found. The key of an action that reads another's output is known only when that output is: until then
// the action is pending. Because a key holds outputs and not keys of what comes before, an action that ran again and
// made the same bytes leaves those after it untouched (early cut-off).
//
// The package reads no database and runs nothing: package build feeds it records and carries it out.
package plan

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mwbuild/mwbuild/graph/action"
)

// State says what is known of a step.
type State int

// The states of a step. A step begins as Pending, becomes Hit or Dirty when its key is known, and a Dirty one Done when
// it was executed. [Plan.Prune] leaves it Unchanged instead.
const (
	Pending   State = iota // waits for the output of another
	Hit                    // a record of its key is there
	Dirty                  // must be executed
	Done                   // was executed in this build
	Unchanged              // nothing below it changed, and nobody asks what it made
)

// A Step is one action in a plan.
type Step struct {
	Node     *action.Node
	State    State
	Manifest *Manifest // nil while Pending, and where Prune found the key
	Key      Key       // of Manifest; of one that is Unchanged its Subtree's sum
	Record   *Record   // what it made, when Hit or Done
	Deps     []*Step
	Users    []*Step // steps that read its output
	Order    int     // its index in Plan.Steps
}

// A Plan is the steps that some outputs need, each after those that it reads.
type Plan struct {
	Steps []*Step
	// Secret returns a digest of a secret's value, for steps whose key has it. It must be set before Resolve meets one.
	Secret func(id string) (string, error)
	// Omitted is how many actions, by the title of their kind, are not among Steps because what needs them is known.
	Omitted map[string]int
	step    map[*action.Node]*Step
	files   Files

	outputs  []*action.Node
	subtrees []*Step
	grown    bool // subtrees is found out
	sums     *Sources
}

// New returns the plan that makes the outputs of nodes. Every step is pending.
func New(nodes []*action.Node, files Files) *Plan {
	p := &Plan{step: map[*action.Node]*Step{}, files: files, outputs: nodes}
	for _, n := range nodes {
		p.add(n)
	}
	return p
}

func (p *Plan) add(n *action.Node) *Step {
	if s := p.step[n]; s != nil {
		return s
	}
	s := &Step{Node: n}
	p.step[n] = s
	for _, d := range n.Deps() {
		dep := p.add(d)
		s.Deps = append(s.Deps, dep)
		dep.Users = append(dep.Users, s)
	}
	s.Order = len(p.Steps)
	p.Steps = append(p.Steps, s)
	return s
}

// ErrForgotten says that there is no record of a key that was known.
var ErrForgotten = errors.New("what was built before is no longer in the cache")

// Recall makes the steps of those nodes Hit whose keys are known. What find has no record of is [ErrForgotten].
func (p *Plan) Recall(known map[*action.Node]Key, find func(Key) (*Record, error)) error {
	for n, k := range known {
		s := p.step[n]
		if s == nil {
			continue
		}
		r, err := find(k)
		if err != nil {
			return err
		}
		if r == nil {
			return fmt.Errorf("%s: %w", n.ID(), ErrForgotten)
		}
		s.Record, s.State, s.Key = r, Hit, k
	}
	return nil
}

// Step returns the step of n, which must be in the plan.
func (p *Plan) Step(n *action.Node) *Step { return p.step[n] }

// Ready tells whether everything that s reads is there.
func (s *Step) Ready() bool {
	return !slices.ContainsFunc(s.Deps, func(d *Step) bool { return d.Record == nil })
}

// Resolve makes the key of s, which must be Ready, and asks find for a record. It leaves s Hit or Dirty. An error is
// about a file of the workspace.
func (p *Plan) Resolve(s *Step, find func(Key) (*Record, error)) error {
	if s.Manifest == nil {
		in := byOutput(p.files, func(n *action.Node) *Record { return p.step[n].Record })
		in.secret = p.Secret
		m, err := describe(s.Node, in)
		if err != nil {
			return err
		}
		s.Manifest, s.Key = m, m.Key()
	}
	r, err := find(s.Key)
	if err != nil {
		return err
	}
	s.Record, s.State = r, Hit
	if r == nil {
		s.State = Dirty
	}
	return nil
}

// Finish makes a Dirty step Done with what it made.
func (s *Step) Finish(r *Record) { s.Record, s.State = r, Done }

// NativeSources returns the workspace files that native actions read, in the order of the plan.
func (p *Plan) NativeSources() []string {
	var files []string
	for _, s := range p.Steps {
		if do, ok := s.Node.Do.(*action.Native); ok {
			for _, f := range do.Files {
				files = append(files, f.Path)
			}
		}
	}
	return files
}

// SourceFiles returns the workspace files that the plan's steps read, sorted, each once.
func (p *Plan) SourceFiles() []string {
	var files []string
	for _, s := range p.Steps {
		files = append(files, FilesOf(s.Node)...)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// FilesOf returns the workspace files that an action reads.
func FilesOf(n *action.Node) (files []string) {
	switch do := n.Do.(type) {
	case *action.Layer:
		for i := range do.Entries {
			if f := do.Entries[i].File; f != "" {
				files = append(files, f)
			}
		}
	case *action.Native:
		for _, f := range do.Files {
			files = append(files, f.Path)
		}
	}
	return files
}
