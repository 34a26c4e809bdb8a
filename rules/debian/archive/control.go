// Package archive reads what Debian's archives and packages say of themselves: control files, versions, relations between
// packages, and the signed lists of an archive. It fetches nothing and decides nothing.
//
// The forms are those of Debian's policy manual (chapters 5 and 7) and of deb822(5), deb-version(7) and the repository format
// (https://wiki.debian.org/DebianRepository/Format).
package archive

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A Stanza is one paragraph of a control file: fields in their order.
type Stanza []Field

// A Field of a stanza. The value of one that goes on over several lines has a newline before each further line, without the
// space that these begin with; a line that is a dot alone is kept.
type Field struct{ Name, Value string }

// Get returns the value of a field, "" where there is none. Names are compared without regard to case.
func (s Stanza) Get(name string) string {
	for _, f := range s {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// maxLine bounds a line of a control file: the longest known ones, of Provides and Package-List, have some 100 kB.
const maxLine = 4 << 20

// ReadControl calls got for each stanza of r, until it returns an error. Lines that begin with # are passed over. An error of
// the text itself names its line.
func ReadControl(r io.Reader, got func(Stanza) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	var s Stanza
	var value strings.Builder
	more := false // lines of the last field are in value
	close := func() {
		if more {
			s[len(s)-1].Value = value.String()
			value.Reset()
			more = false
		}
	}
	end := func() error {
		close()
		if len(s) == 0 {
			return nil
		}
		done := s
		s = nil
		return got(done)
	}
	n := 0
	for lines.Scan() {
		n++
		line := lines.Text()
		switch {
		case strings.TrimSpace(line) == "":
			if err := end(); err != nil {
				return err
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if len(s) == 0 {
				return fmt.Errorf("line %d: goes on where nothing began", n)
			}
			if !more {
				value.WriteString(s[len(s)-1].Value)
				more = true
			}
			value.WriteByte('\n')
			value.WriteString(strings.TrimRight(line[1:], " \t\r"))
		default:
			close()
			name, v, ok := strings.Cut(line, ":")
			if !ok || name == "" || strings.ContainsAny(name, " \t") {
				return fmt.Errorf("line %d: %.40q is no field", n, line)
			}
			s = append(s, Field{name, strings.TrimSpace(v)})
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return fmt.Errorf("line %d: longer than %d bytes", n+1, maxLine)
		}
		return err
	}
	return end()
}
