// Package uptodate remembers that a command had nothing to do, so that the same command sees it at a glance while nothing
// changed: no package is loaded, no plan made and no database opened for it.
//
// It decides by what a build depends on: the program, its arguments and what the listing tells of files (see
// workspace.Disk.Stamp). So it never knows more than the build that it remembers; where anything differs, the build decides.
package uptodate

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/plan"
)

// A Result is what a build that had nothing to do printed, and what it depended on.
type Result struct {
	Command string   // program, workspace and arguments
	Paths   []string // files and folders that it looked at, sorted; "" is the whole workspace
	Stamp   [32]byte // of them
	Index   string   // identifies the store's list of images, which a build may have to put right
	Blobs   []ocispecs.Descriptor
	Targets int
	Stdout  string
}

// Blobs returns what must be in the store for all steps of p to be up to date, each once: digests and sizes only.
func Blobs(p *plan.Plan) []ocispecs.Descriptor {
	seen := map[digest.Digest]bool{}
	var blobs []ocispecs.Descriptor
	add := func(d ocispecs.Descriptor) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			blobs = append(blobs, ocispecs.Descriptor{Digest: d.Digest, Size: d.Size})
		}
	}
	for _, s := range p.Steps {
		if s.Record == nil {
			continue
		}
		layers := s.Record.Layers
		if im := s.Record.Image; im != nil {
			add(im.Manifest)
			add(im.Config)
			layers = slices.Concat(layers, im.Layers)
		}
		for _, l := range layers {
			if !remote(l) {
				add(l.Descriptor)
			}
		}
	}
	return blobs
}

// remote tells whether a layer is left where it came from until somebody needs its bytes.
func remote(l image.Layer) bool { return l.Source != "" }

// The form of a result: the version, its fields in order, and a CRC-32C of it all, least significant byte first. Numbers
// are varints; a string, and a list, comes behind its length.
const formVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns r as bytes.
func (r *Result) Encode() []byte {
	b := []byte{formVersion}
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	text(r.Command)
	b = binary.AppendUvarint(b, uint64(len(r.Paths)))
	for _, p := range r.Paths {
		text(p)
	}
	b = append(b, r.Stamp[:]...)
	text(r.Index)
	b = binary.AppendUvarint(b, uint64(len(r.Blobs)))
	for _, d := range r.Blobs {
		text(d.Digest.String())
		b = binary.AppendUvarint(b, uint64(d.Size))
	}
	b = binary.AppendUvarint(b, uint64(r.Targets))
	text(r.Stdout)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// ErrBroken says that bytes are no encoded result.
var ErrBroken = errors.New("broken result")

// Decode reads what [Result.Encode] wrote; else the error is [ErrBroken].
func Decode(data []byte) (*Result, error) {
	if len(data) < 5 || data[0] != formVersion {
		return nil, ErrBroken
	}
	body, sum := data[:len(data)-4], data[len(data)-4:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(sum) {
		return nil, ErrBroken
	}
	rest, bad := string(body[1:]), false
	number := func() int {
		n, width := binary.Uvarint([]byte(rest[:min(len(rest), binary.MaxVarintLen64)]))
		if width <= 0 || n > 1<<62 {
			rest, bad = "", true
			return 0
		}
		rest = rest[width:]
		return int(n)
	}
	take := func(n int) string {
		if n > len(rest) {
			rest, bad = "", true
			return ""
		}
		s := rest[:n]
		rest = rest[n:]
		return s
	}
	text := func() string { return take(number()) }
	r := &Result{Command: text()}
	for n := number(); n > 0 && !bad; n-- {
		r.Paths = append(r.Paths, text())
	}
	copy(r.Stamp[:], take(32))
	r.Index = text()
	n := number()
	r.Blobs = make([]ocispecs.Descriptor, 0, min(n, len(rest)))
	for ; n > 0 && !bad; n-- {
		r.Blobs = append(r.Blobs, ocispecs.Descriptor{Digest: digest.Digest(text()), Size: int64(number())})
	}
	r.Targets, r.Stdout = number(), text()
	if bad || rest != "" {
		return nil, ErrBroken
	}
	return r, nil
}
