package buildkit

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"github.com/moby/buildkit/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	solvererrdefs "github.com/moby/buildkit/solver/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	logLines = 100
	// logErrLines of a log are stderr's if it has them: the engine reads the two streams apart, so a message on stderr
	// may arrive before much that was printed earlier to stdout.
	logErrLines = 50
	lineBytes   = 4 << 10

	stderrStream = 2
)

// logs keeps the end of what each step of a solve printed.
type logs struct {
	mu    sync.Mutex
	names map[digest.Digest]string
	steps map[digest.Digest]*stepLog
}

func newLogs() *logs {
	return &logs{names: map[digest.Digest]string{}, steps: map[digest.Digest]*stepLog{}}
}

func (l *logs) add(s *client.SolveStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range s.Vertexes {
		l.names[v.Digest] = v.Name
	}
	for _, v := range s.Logs {
		t := l.steps[v.Vertex]
		if t == nil {
			t = &stepLog{streams: map[int]*stream{}}
			l.steps[v.Vertex] = t
		}
		t.add(v.Stream, v.Data)
	}
}

// stepError is err as a *StepError if a step is to blame.
func (l *logs) stepError(err error) error {
	var vertex *solvererrdefs.VertexError
	var exit *gatewaypb.ExitError
	isVertex, isExit := errors.As(err, &vertex), errors.As(err, &exit)
	if !isVertex || !isExit || engineGone(err) {
		return err
	}
	se := &StepError{ExitCode: -1, Err: err}
	if exit.ExitCode != gatewaypb.UnknownExitStatus {
		se.ExitCode = int(exit.ExitCode)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d := digest.Digest(vertex.Vertex.Digest)
	se.Name = l.names[d]
	if t := l.steps[d]; t != nil {
		se.Log = t.end()
	}
	return se
}

// A stepLog is the end of what one step printed, a bounded number of lines per stream.
type stepLog struct {
	n       int // lines so far
	streams map[int]*stream
}

type stream struct {
	lines   []line
	partial []byte // a line that has not ended yet
}

type line struct {
	n    int // its place in the order of arrival
	text []byte
}

func (s *stepLog) add(id int, data []byte) {
	st := s.streams[id]
	if st == nil {
		st = &stream{}
		s.streams[id] = st
	}
	for piece := range bytes.Lines(data) {
		text, ended := bytes.CutSuffix(piece, []byte("\n"))
		if room := lineBytes - len(st.partial); len(text) > room {
			text = text[:room]
		}
		st.partial = append(st.partial, text...)
		if ended {
			s.endLine(st)
		}
	}
}

func (s *stepLog) endLine(st *stream) {
	st.lines = append(st.lines, line{s.n, st.partial})
	st.partial = nil
	s.n++
	if len(st.lines) > 2*logLines {
		st.lines = slices.Clone(st.lines[len(st.lines)-logLines:])
	}
}

// end is the last lines of all streams, in the order in which they arrived.
func (s *stepLog) end() []byte {
	var first, rest []line
	for id, st := range s.streams {
		if len(st.partial) > 0 {
			s.endLine(st)
		}
		lines := st.lines
		if id == stderrStream {
			at := max(0, len(lines)-logErrLines)
			first, lines = lines[at:], lines[:at]
		}
		rest = append(rest, lines...)
	}
	byArrival := func(a, b line) int { return a.n - b.n }
	slices.SortFunc(rest, byArrival)
	all := slices.Concat(first, rest[max(0, len(rest)-(logLines-len(first))):])
	slices.SortFunc(all, byArrival)
	var out []byte
	for _, l := range all {
		out = append(append(out, l.text...), '\n')
	}
	return out
}
