package load

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	fileLine = regexp.MustCompile(`^-- (\S+) --$`)
	expected = regexp.MustCompile(`### "((?:[^"\\]|\\.)*)"`)
	located  = regexp.MustCompile(`^(\S+):(\d+):(\d+): `)
)

// A wantError is one expected error of a chunk.
type wantError struct {
	file string
	line int
	re   *regexp.Regexp
	from string // where it is expected, for messages
	met  bool
}

// TestChunks loads the chunks of testdata/*.star. Every chunk, up to a line "---", is a workspace of its own: p/BUILD, and
// after lines "-- PATH --" other files. Every error must be expected by a comment ### "pattern" on its line, and every
// pattern must match an error there, position left out. "### never" says that none is meant.
func TestChunks(t *testing.T) {
	names, err := filepath.Glob("testdata/*.star")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		line := 1
		for _, chunk := range strings.SplitAfter(string(text), "\n---\n") {
			start := line
			line += strings.Count(chunk, "\n")
			t.Run(fmt.Sprintf("%s:%d", filepath.Base(name), start), func(t *testing.T) {
				t.Parallel()
				testChunk(t, name, start, strings.TrimSuffix(chunk, "---\n"))
			})
		}
	}
}

func testChunk(t *testing.T, name string, start int, chunk string) {
	tree := memTree{}
	var wants []*wantError
	file, lineInFile := "p/BUILD", 0
	var texts = map[string]*strings.Builder{file: {}}
	for i, l := range strings.Split(chunk, "\n") {
		if m := fileLine.FindStringSubmatch(l); m != nil {
			file, lineInFile = m[1], 0
			texts[file] = &strings.Builder{}
			continue
		}
		lineInFile++
		for _, m := range expected.FindAllStringSubmatch(l, -1) {
			re, err := regexp.Compile(strings.ReplaceAll(m[1], `\"`, `"`))
			if err != nil {
				t.Fatalf("%s:%d: %v", name, start+i, err)
			}
			if strings.Contains(l, "### never") {
				continue
			}
			wants = append(wants, &wantError{file: file, line: lineInFile, re: re, from: fmt.Sprintf("%s:%d", name, start+i)})
		}
		if code, _, ok := strings.Cut(l, " ###"); ok {
			l = code
		}
		texts[file].WriteString(l + "\n")
	}
	for f, b := range texts {
		tree[f] = b.String()
	}
	_, errs := newLoader(t, tree).Load(t.Context(), patterns(t, "//p:all"))
	for _, err := range errs {
		m := located.FindStringSubmatch(err.Error())
		if m == nil {
			t.Errorf("%s:%d: an error without position: %v", name, start, err)
			continue
		}
		line, _ := strconv.Atoi(m[2])
		msg, ok := err.Error()[len(m[0]):], false
		for _, w := range wants {
			if !w.met && w.file == m[1] && w.line == line && (w.re.MatchString(msg) || w.re.MatchString(withoutLabel(msg))) {
				w.met, ok = true, true
				break
			}
		}
		if !ok {
			t.Errorf("%s:%d: unexpected error: %v", name, start, err)
		}
	}
	for _, w := range wants {
		if !w.met {
			t.Errorf("%s: no error at %s:%d matches %s", w.from, w.file, w.line, w.re)
		}
	}
}

func withoutLabel(msg string) string {
	return regexp.MustCompile(`^//\S*: `).ReplaceAllString(msg, "")
}
