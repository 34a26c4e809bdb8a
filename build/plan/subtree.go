package plan

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mwbuild/mwbuild/graph/action"
)

// A Subtree is all that one step's output follows from, as it was when the step had a key: so that thousands of small actions
// need not be looked at one by one as long as nothing below that step changes.
type Subtree struct {
	Sum Key // of the step's own description, and those of all that it reads, with the bytes of their files
	Key Key // that the step had
}

// Subtrees returns the steps for which it is worth remembering their Subtree: layers of what native actions make.
func (p *Plan) Subtrees() []*Step {
	if !p.grown {
		p.grown = true
		pure := make([]bool, len(p.Steps)) // of nothing but files
		for i, s := range p.Steps {
			_, isNative := s.Node.Do.(*action.Native)
			do, isLayer := s.Node.Do.(*action.Layer)
			isLayer = isLayer && len(do.Merges) == 0 // what these are of has subtrees itself
			pure[i] = isNative || isLayer
			for _, d := range s.Deps {
				pure[i] = pure[i] && pure[d.Order]
			}
			if pure[i] && isLayer && len(s.Deps) > 0 {
				p.subtrees = append(p.subtrees, s)
			}
		}
	}
	return p.subtrees
}

// Sum returns the digest of a Subtree for s, which must be one of [Plan.Subtrees]. An error is about a file of the workspace.
func (p *Plan) Sum(s *Step) (Key, error) { return p.sources().Node(s.Node) }

// sources names files by their bytes.
func (p *Plan) sources() *Sources {
	if p.sums == nil {
		p.sums = &Sources{nodes: make(map[*action.Node]nodeSum, len(p.Steps)), file: func(path string) (string, error) { return fileField(p.files, path) }}
	}
	return p.sums
}

// sumBelow finds the sums of all below steps, several at a time. What fails is left out.
func (p *Plan) sumBelow(steps map[*Step]Subtree) {
	below := make([]bool, len(p.Steps))
	var visit func(*Step)
	visit = func(s *Step) {
		if below[s.Order] {
			return
		}
		below[s.Order] = true
		for _, d := range s.Deps {
			visit(d)
		}
	}
	for s := range steps {
		visit(s)
	}
	// Level by level: what reads only files, what reads that, and so on.
	var levels [][]*Step
	level := make([]int, len(p.Steps))
	for _, s := range p.Steps {
		if !below[s.Order] {
			continue
		}
		at := 0
		for _, d := range s.Deps {
			at = max(at, level[d.Order]+1)
		}
		if level[s.Order] = at; at == len(levels) {
			levels = append(levels, nil)
		}
		levels[at] = append(levels[at], s)
	}
	sources := p.sources()
	for _, steps := range levels {
		sums := make([]Key, len(steps))
		var next atomic.Int64
		var wg sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < len(steps); i = int(next.Add(1)) - 1 {
					if !slices.ContainsFunc(steps[i].Deps, func(d *Step) bool { return sources.nodes[d.Node].text == "" }) {
						sums[i], _ = sources.sum(steps[i].Node)
					}
				}
			})
		}
		wg.Wait()
		for i, k := range sums {
			if k != (Key{}) {
				sources.add(steps[i].Node, k)
			}
		}
	}
}

// Prune leaves the steps Unchanged that are needed for nothing but layers whose Subtree is as it was remembered; those layers are Hit, if
// find has the record of their key. The files below the remembered steps should be digested before.
func (p *Plan) Prune(remembered map[*Step]Subtree, find func(Key) (*Record, error)) error {
	p.sumBelow(remembered)
	for s, was := range remembered {
		sum, err := p.Sum(s)
		if err != nil || sum != was.Sum {
			continue // the step that cannot read a file will tell
		}
		r, err := find(was.Key)
		if err != nil {
			return err
		}
		if r != nil {
			s.Record, s.State, s.Key = r, Hit, was.Key
		}
	}
	needed := make([]bool, len(p.Steps))
	var need func(*Step)
	need = func(s *Step) {
		if needed[s.Order] {
			return
		}
		needed[s.Order] = true
		if s.State == Hit {
			return
		}
		for _, d := range s.Deps {
			need(d)
		}
	}
	for _, n := range p.outputs {
		need(p.step[n])
	}
	for _, s := range p.Steps {
		if !needed[s.Order] {
			s.State, s.Key = Unchanged, p.sums.nodes[s.Node].key
		}
	}
	return nil
}
