package build

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph/action"
)

// Layers are stacked up to the last one that may hold whiteouts, and merged above it.
func TestBaseLayers(t *testing.T) {
	node := func(do action.Action) *action.Node { return &action.Node{Label: "//:x", Name: "x", Do: do} }
	packed := func() *action.Node { return node(&action.Layer{}) }
	onBase := func() *action.Node { return node(&action.Layer{Base: &action.Base{}}) } // and its delta: two layers
	unpacked := func() *action.Node { return node(&action.Native{Layer: true}) }
	written := func() *action.Node { return node(&action.Run{}) }
	changes := func() *action.Node { return node(&action.Run{Changes: true}) }
	on := func(base *action.Node, layers ...*action.Node) *action.Node {
		return node(&action.Image{Base: base, Layers: layers})
	}
	imported := node(&action.Image{Import: &action.Import{}})
	deltas := func(of ...*action.Node) *action.Node { return node(&action.Layer{Merges: of}) }
	one, two := onBase(), onBase()
	records := map[*action.Node]*plan.Record{}
	const ofImport = 3
	var record func(n *action.Node) *plan.Record
	record = func(n *action.Node) *plan.Record {
		if r := records[n]; r != nil {
			return r
		}
		d := digest.FromString("layer")
		one := image.Layer{Descriptor: ocispecs.Descriptor{Digest: d}, DiffID: d}
		if l, ok := n.Do.(*action.Layer); ok && l.Base != nil {
			return &plan.Record{Layers: []image.Layer{one, one}}
		}
		do, ok := n.Do.(*action.Image)
		if !ok {
			return &plan.Record{Layers: []image.Layer{one}}
		}
		im := &image.Image{ConfigJSON: []byte(`{"os": "linux", "architecture": "amd64"}`)}
		count := 0
		for _, l := range do.Layers {
			if do.Merged()[l] {
				count++
				continue
			}
			count += len(record(l).Layers)
			if im := record(l).Image; im != nil {
				count += len(im.Layers)
			}
		}
		switch {
		case do.Import != nil:
			count = ofImport
		case do.Base != nil:
			count += len(record(do.Base).Image.Layers)
		}
		for range count {
			im.Layers = append(im.Layers, one)
		}
		records[n] = &plan.Record{Image: im}
		return records[n]
	}
	for name, tc := range map[string]struct {
		image *action.Node
		want  int // stacked
		rest  int // merged
	}{
		"scratch":                      {on(nil, packed(), unpacked(), written()), 0, 3},
		"imported":                     {on(imported, packed(), packed()), 3, 2},
		"imported, far below":          {on(on(imported, packed()), packed()), 3, 2},
		"changes":                      {on(nil, unpacked(), unpacked(), changes(), packed()), 3, 1},
		"changes on top":               {on(nil, unpacked(), changes()), 2, 0},
		"changes twice":                {on(nil, changes(), packed(), changes(), packed()), 3, 1},
		"changes of an imported image": {on(imported, packed(), changes(), packed()), 5, 1},
		"changes below":                {on(on(on(nil, unpacked(), changes(), packed()), packed()), packed()), 2, 3},
		"changes above changes":        {on(on(nil, unpacked(), changes()), packed(), changes(), packed()), 4, 1},
		"on bases":                     {on(nil, onBase(), packed(), onBase()), 0, 3},
		"on bases, over an import":     {on(on(imported, onBase()), onBase()), 3, 2},
		"sharing a delta":              {on(nil, one, packed(), two, deltas(one, two), packed()), 0, 3},
		"sharing one, around changes":  {on(imported, one, two, deltas(one, two), changes(), one, two, deltas(one, two)), 7, 1},
		"imported among the layers":    {on(nil, packed(), imported, packed()), 0, 3},
		"imported, below changes":      {on(imported, imported, changes(), packed()), 7, 1},
		"on bases, around changes":     {on(imported, onBase(), changes(), onBase()), 6, 1},
	} {
		got, err := root(tc.image, record)
		if err != nil || got.BaseLayers != tc.want || len(got.Layers) != tc.want+tc.rest {
			t.Errorf("%s: %d base layers of %d, want %d of %d; %v", name, got.BaseLayers, len(got.Layers), tc.want, tc.want+tc.rest, err)
		}
	}
}
