package progress

import (
	"bytes"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// A prefixer puts the name of its step before each line that one prints, where lines of several stand among each other.
type prefixer struct {
	names  map[digest.Digest]string
	within map[stream]bool // a line that has not ended
}

type stream struct {
	vertex digest.Digest
	number int
}

func newPrefixer() *prefixer {
	return &prefixer{names: map[digest.Digest]string{}, within: map[stream]bool{}}
}

// status is s with prefixes. s stays as it is.
func (p *prefixer) status(s *client.SolveStatus) *client.SolveStatus {
	for _, v := range s.Vertexes {
		p.names[v.Digest] = v.Name
	}
	if len(s.Logs) == 0 {
		return s
	}
	c := *s
	c.Logs = make([]*client.VertexLog, len(s.Logs))
	for i, l := range s.Logs {
		more := *l
		more.Data = nil
		id := stream{l.Vertex, l.Stream}
		for line := range bytes.Lines(l.Data) {
			if name := p.names[l.Vertex]; name != "" && !p.within[id] {
				more.Data = append(append(more.Data, name...), ": "...)
			}
			more.Data = append(more.Data, line...)
			p.within[id] = !bytes.HasSuffix(line, []byte("\n"))
		}
		c.Logs[i] = &more
	}
	return &c
}
