package buildkit

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// redactNaive replaces the leftmost secret, and of these the longest.
func redactNaive(text string, secrets []string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		longest := 0
		for _, s := range secrets {
			if len(s) >= shortSecret && strings.HasPrefix(text[i:], s) {
				longest = max(longest, len(s))
			}
		}
		if longest > 0 {
			b.WriteString("***")
			i += longest
			continue
		}
		b.WriteByte(text[i])
		i++
	}
	return b.String()
}

func TestRedactionAnyPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secrets := rapid.SliceOfN(rapid.StringMatching(`[ab]{1,7}`), 1, 3).Draw(t, "secrets")
		pieces := rapid.SliceOf(rapid.StringMatching(`[ab]{0,9}`)).Draw(t, "pieces")
		values := map[string][]byte{}
		for i, s := range secrets {
			values[string(rune('0'+i))] = []byte(s)
		}
		r := newRedactor(values)
		step, now := digest.FromString("step"), time.Now()
		var got bytes.Buffer
		tell := func(s *client.SolveStatus) {
			r.status(s)
			for _, l := range s.Logs {
				got.Write(l.Data)
			}
		}
		for _, p := range pieces {
			tell(&client.SolveStatus{Logs: []*client.VertexLog{{Vertex: step, Stream: 1, Data: []byte(p)}}})
		}
		tell(&client.SolveStatus{Vertexes: []*client.Vertex{{Digest: step, Completed: &now}}})
		if want := redactNaive(strings.Join(pieces, ""), secrets); got.String() != want {
			t.Fatalf("got  %q\nwant %q", got.String(), want)
		}
		if len(r.held) > 0 {
			t.Fatalf("still holds %v", r.held)
		}
	})
}

func TestRedactionOfLinesStreamsAndErrors(t *testing.T) {
	r := newRedactor(map[string][]byte{"key": []byte("-----BEGIN-----\r\nsecond line\r\n"), "pin": []byte("123")})
	a, b := digest.FromString("a"), digest.FromString("b")
	s := &client.SolveStatus{
		Vertexes: []*client.Vertex{{Digest: a, Error: "failed at second line"}},
		Logs: []*client.VertexLog{
			{Vertex: a, Stream: 1, Data: []byte("x second ")},
			{Vertex: a, Stream: 2, Data: []byte("line\n")}, // another stream does not go on with it
			{Vertex: b, Stream: 1, Data: []byte("123 -----BEGIN-----\nsecond line.\n")},
			{Vertex: a, Stream: 1, Data: []byte("line\n")},
		},
	}
	r.status(s)
	var got []string
	for _, l := range s.Logs {
		got = append(got, string(l.Data))
	}
	if want := []string{"x ", "line\n", "123 ***\n***.\n", "***\n"}; strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("logs %q, want %q", got, want)
	}
	if s.Vertexes[0].Error != "failed at ***" {
		t.Errorf("error %q", s.Vertexes[0].Error)
	}
}
