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
	unpacked := func() *action.Node { return node(&action.Native{Layer: true}) }
	written := func() *action.Node { return node(&action.Run{}) }
	changes := func() *action.Node { return node(&action.Run{Changes: true}) }
	on := func(base *action.Node, layers ...*action.Node) *action.Node {
		return node(&action.Image{Base: base, Layers: layers})
	}
	imported := node(&action.Image{Import: &action.Import{}})
	records := map[*action.Node]*plan.Record{}
	const ofImport = 3
	var record func(n *action.Node) *plan.Record
	record = func(n *action.Node) *plan.Record {
		if r := records[n]; r != nil {
			return r
		}
		im := &image.Image{ConfigJSON: []byte(`{"os": "linux", "architecture": "amd64"}`)}
		do := n.Do.(*action.Image)
		count := len(do.Layers)
		switch {
		case do.Import != nil:
			count = ofImport
		case do.Base != nil:
			count += len(record(do.Base).Image.Layers)
		}
		for range count {
			d := digest.FromString("layer")
			im.Layers = append(im.Layers, image.Layer{Descriptor: ocispecs.Descriptor{Digest: d}, DiffID: d})
		}
		records[n] = &plan.Record{Image: im}
		return records[n]
	}
	for name, tc := range map[string]struct {
		image *action.Node
		want  int
	}{
		"scratch":                      {on(nil, packed(), unpacked(), written()), 0},
		"imported":                     {on(imported, packed(), packed()), 3},
		"imported, far below":          {on(on(imported, packed()), packed()), 3},
		"changes":                      {on(nil, unpacked(), unpacked(), changes(), packed()), 3},
		"changes on top":               {on(nil, unpacked(), changes()), 2},
		"changes twice":                {on(nil, changes(), packed(), changes(), packed()), 3},
		"changes of an imported image": {on(imported, packed(), changes(), packed()), 5},
		"changes below":                {on(on(on(nil, unpacked(), changes(), packed()), packed()), packed()), 2},
		"changes above changes":        {on(on(nil, unpacked(), changes()), packed(), changes(), packed()), 4},
	} {
		got, err := root(tc.image, record)
		if err != nil || got.BaseLayers != tc.want {
			t.Errorf("%s: %d base layers of %d, want %d; %v", name, got.BaseLayers, len(got.Layers), tc.want, err)
		}
	}
}
