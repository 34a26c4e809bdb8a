package gen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/mwbuild/mwbuild/graph"
)

// A manifest is what gen reads of an extension.json or skin.json.
type manifest struct {
	path     string
	name     string // "" if it has none
	version  bool   // has a manifest_version
	requires []want // of requires.extensions and requires.skins, in order
}

// A want is a name that a file asks for.
type want struct {
	name string
	at   string // file:line:col
}

// parseManifest reads a manifest. MediaWiki's version, PHP's, and what is below requires.platform name no components.
func parseManifest(path string, src []byte) (*manifest, error) {
	if err := checkJSON(path, src); err != nil {
		return nil, err
	}
	m := &manifest{path: path}
	d := &jsonReader{path: path, src: src, dec: json.NewDecoder(bytes.NewReader(src))}
	err := d.object("a manifest", func(key string, _ int) error {
		switch key {
		case "name":
			at := d.offset()
			var v any
			if err := d.dec.Decode(&v); err != nil {
				return err
			}
			name, ok := v.(string)
			if !ok {
				return d.errorf(at, "name: want a string")
			}
			m.name = name
			return nil
		case "manifest_version":
			m.version = true
			return d.skip()
		case "requires":
			return d.object("requires", func(key string, _ int) error {
				if key != "extensions" && key != "skins" {
					return d.skip()
				}
				return d.object("requires."+key, func(name string, at int) error {
					m.requires = append(m.requires, want{name, position(path, src, at)})
					return d.skip()
				})
			})
		}
		return d.skip()
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// checkJSON returns where src is no JSON.
func checkJSON(path string, src []byte) error {
	var raw json.RawMessage
	err := json.Unmarshal(src, &raw)
	var serr *json.SyntaxError
	if errors.As(err, &serr) {
		// The offset is behind the character that is wrong.
		return &graph.Error{Pos: position(path, src, int(max(serr.Offset-1, 0))), Msg: "no JSON: " + serr.Error(), Err: err}
	}
	return err
}

// A jsonReader reads JSON that is known to be well-formed, and knows where it stands.
type jsonReader struct {
	path string
	src  []byte
	dec  *json.Decoder
}

// offset returns where the next token starts.
func (d *jsonReader) offset() int {
	at := int(d.dec.InputOffset())
	return at + len(d.src[at:]) - len(bytes.TrimLeft(d.src[at:], " \t\r\n,:"))
}

// object calls f for each key of the object that comes next, with the key's offset. f reads the value. PHP writes an empty
// object as an empty list, which is read as one.
func (d *jsonReader) object(what string, f func(key string, at int) error) error {
	start := d.offset()
	t, err := d.dec.Token()
	if err != nil {
		return err
	}
	if t == json.Delim('[') && !d.dec.More() {
		_, err := d.dec.Token()
		return err
	}
	if t != json.Delim('{') {
		return d.errorf(start, "%s: want an object", what)
	}
	for d.dec.More() {
		at := d.offset()
		t, err := d.dec.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return io.ErrUnexpectedEOF
		}
		if err := f(key, at); err != nil {
			return err
		}
	}
	_, err = d.dec.Token()
	return err
}

func (d *jsonReader) skip() error {
	var raw json.RawMessage
	return d.dec.Decode(&raw)
}

func (d *jsonReader) errorf(at int, format string, args ...any) error {
	return &graph.Error{Pos: position(d.path, d.src, at), Msg: fmt.Sprintf(format, args...)}
}

// position returns an offset as file:line:col, counted from 1, columns in characters.
func position(path string, src []byte, offset int) string {
	before := string(src[:min(offset, len(src))])
	line := strings.Count(before, "\n")
	col := len([]rune(before[strings.LastIndexByte(before, '\n')+1:]))
	return fmt.Sprintf("%s:%d:%d", path, line+1, col+1)
}
