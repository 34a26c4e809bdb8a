package buildkit

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/opencontainers/go-digest"
)

// attachables are what a solve may ask this process for.
func attachables(req Request) ([]session.Attachable, error) {
	all := []session.Attachable{credentials()}
	if len(req.Secrets) > 0 {
		all = append(all, secretsprovider.FromMap(req.Secrets))
	}
	if len(req.SSH) > 0 {
		var agents []sshprovider.AgentConfig
		for _, id := range slices.Sorted(maps.Keys(req.SSH)) {
			agents = append(agents, sshprovider.AgentConfig{ID: id, Paths: req.SSH[id]})
		}
		p, err := sshprovider.NewSSHAgentProvider(agents)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// shortSecret is the length in bytes below which a value is not masked: it would be found in any text.
const shortSecret = 4

// mask is what stands for a secret in what a step printed.
var mask = []byte("***")

// A redactor takes secrets out of what steps print, wherever the engine cuts it into pieces. It knows values as they are,
// and line by line; not what a step made of them.
type redactor struct {
	secrets [][]byte // longest first
	held    map[logID][]byte
}

type logID struct {
	vertex digest.Digest
	stream int
}

func newRedactor(secrets map[string][]byte) *redactor {
	var values [][]byte
	for _, v := range secrets {
		whole := bytes.TrimRight(v, "\r\n")
		for _, part := range append(bytes.Split(whole, []byte("\n")), whole) {
			if part = bytes.TrimSuffix(part, []byte("\r")); len(part) >= shortSecret {
				values = append(values, part)
			}
		}
	}
	slices.SortFunc(values, func(a, b []byte) int { return cmp.Or(len(b)-len(a), bytes.Compare(a, b)) })
	return &redactor{secrets: slices.CompactFunc(values, bytes.Equal), held: map[logID][]byte{}}
}

// status redacts s in place. What may be the beginning of a secret is held back until more comes, or the step ends.
func (r *redactor) status(s *client.SolveStatus) {
	if len(r.secrets) == 0 {
		return
	}
	for _, l := range s.Logs {
		id := logID{l.Vertex, l.Stream}
		l.Data, r.held[id] = r.redact(append(r.held[id], l.Data...), true)
	}
	for _, v := range s.Vertexes {
		if v.Completed != nil {
			s.Logs = append(s.Logs, r.flush(v.Digest)...)
		}
		v.Error = r.text(v.Error)
	}
}

// flush returns what is held of a step, or of all where vertex is "". The beginning of a secret is no secret.
func (r *redactor) flush(vertex digest.Digest) []*client.VertexLog {
	var logs []*client.VertexLog
	for id, data := range r.held {
		if vertex != "" && id.vertex != vertex {
			continue
		}
		if data, _ = r.redact(data, false); len(data) > 0 {
			logs = append(logs, &client.VertexLog{Vertex: id.vertex, Stream: id.stream, Data: data})
		}
		delete(r.held, id)
	}
	slices.SortFunc(logs, func(a, b *client.VertexLog) int {
		return cmp.Or(strings.Compare(string(a.Vertex), string(b.Vertex)), a.Stream-b.Stream)
	})
	return logs
}

func (r *redactor) text(s string) string {
	for _, v := range r.secrets {
		s = strings.ReplaceAll(s, string(v), string(mask))
	}
	return s
}

// redact returns data without secrets and, where more may come, the end of data that may go on as one.
func (r *redactor) redact(data []byte, more bool) (clean, held []byte) {
	for len(data) > 0 {
		at, length := len(data), 0
		for _, v := range r.secrets { // the earliest, and of these the longest
			if i := bytes.Index(data[:min(len(data), at+len(v))], v); i >= 0 && i < at {
				at, length = i, len(v)
			}
		}
		// A longer secret may begin before the one that was found, and end in what has not come yet.
		for n := max(0, len(data)-len(r.secrets[0])+1); more && (n < at || length > 0 && n == at); n++ {
			if r.begins(data[n:], length) {
				return append(clean, data[:n]...), data[n:]
			}
		}
		clean = append(clean, data[:at]...)
		if length > 0 {
			clean = append(clean, mask...)
		}
		data = data[at+length:]
	}
	return clean, nil
}

// begins tells whether data is the beginning of a secret longer than both data and length.
func (r *redactor) begins(data []byte, length int) bool {
	return slices.ContainsFunc(r.secrets, func(v []byte) bool {
		return len(v) > max(len(data), length) && bytes.HasPrefix(v, data)
	})
}
