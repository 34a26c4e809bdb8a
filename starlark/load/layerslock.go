package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
)

// LayersLock is the file at the root of a workspace in which `mwbuild layers plan` writes which layers are packed together, and which stand on a base.
const LayersLock = "layers.lock"

// layersVersion is that of the form of [LayersLock].
const layersVersion = 1

// Layers is what a [LayersLock] says. Actions have their names, as in "//extensions/Cite:Cite layer".
type Layers struct {
	Groups map[string]string      // what is packed together in images: names of groups, by action
	Bases  map[string]action.Base // what stands on a base, by action; that of a group is "//:wiki group NAME"
}

type layersFile struct {
	Version int                   `json:"version"`
	Groups  map[string]string     `json:"groups"`
	Bases   map[string]lockedBase `json:"bases"`
}

type lockedBase struct {
	Digest     string `json:"digest"`
	DiffID     string `json:"diff_id"`
	Size       int64  `json:"size"`
	Repository string `json:"repository,omitempty"`
}

// ParseLayers reads a [LayersLock].
func ParseLayers(text []byte) (l Layers, err error) {
	var f layersFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return l, err
	}
	if _, err := d.Token(); err != io.EOF {
		return l, fmt.Errorf("something stands after its end")
	}
	if f.Version != layersVersion {
		return l, fmt.Errorf("it is of version %d, and this mwbuild reads %d", f.Version, layersVersion)
	}
	l = Layers{f.Groups, make(map[string]action.Base, len(f.Bases))}
	for _, name := range slices.Sorted(maps.Keys(f.Groups)) {
		if !configPattern.MatchString(f.Groups[name]) {
			return Layers{}, fmt.Errorf("%q: group %q: a name has letters, digits, and . _ - after the first of these", name, f.Groups[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Bases)) {
		b := f.Bases[name]
		if !digestPattern.MatchString(b.Digest) || !digestPattern.MatchString(b.DiffID) || b.Size <= 0 {
			return Layers{}, fmt.Errorf("%q: want digest and diff_id, sha256: with 64 hexadecimal digits, and a size", name)
		}
		l.Bases[name] = action.Base{Digest: b.Digest, DiffID: b.DiffID, Size: b.Size, Repository: b.Repository}
	}
	return l, nil
}

// FormatLayers writes a [LayersLock], one layer a line, sorted.
func FormatLayers(l Layers) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n \"version\": %d,\n \"groups\": {", layersVersion)
	for i, name := range slices.Sorted(maps.Keys(l.Groups)) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n  %q: %q", name, l.Groups[name])
	}
	b.WriteString("\n },\n \"bases\": {")
	for i, name := range slices.Sorted(maps.Keys(l.Bases)) {
		if i > 0 {
			b.WriteByte(',')
		}
		is := l.Bases[name]
		line, err := json.Marshal(lockedBase{is.Digest, is.DiffID, is.Size, is.Repository})
		if err != nil {
			panic(err) // strings and a number
		}
		fmt.Fprintf(&b, "\n  %q: %s", name, line)
	}
	b.WriteString("\n }\n}\n")
	return b.Bytes()
}

// readLayers reads the tree's lock of layers; there need not be one.
func readLayers(tree Tree) (l Layers, err error) {
	if _, ok := tree.Lookup(LayersLock); !ok {
		return l, nil
	}
	text, err := tree.ReadFile(LayersLock)
	if err == nil {
		l, err = ParseLayers(text)
	}
	if err != nil {
		return l, &graph.Error{Pos: LayersLock + ":1:1", Msg: err.Error(), Hints: []string{"mwbuild layers plan writes it anew; git may have left a conflict in it"}, Err: err}
	}
	return l, nil
}
