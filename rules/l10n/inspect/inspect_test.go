package inspect

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
)

func TestNew(t *testing.T) {
	id := func(pkg, name string) graph.ID { return graph.ID{Label: label.Label{Pkg: pkg, Name: name}} }
	component := func(id graph.ID, kind string) *graph.Target {
		return &graph.Target{ID: id, Kind: ComponentRule, Actions: []*action.Node{{Do: &action.Native{Kind: kind}}, {Do: &action.Layer{}}}}
	}
	edges := func(attr string, to ...graph.ID) []graph.Edge {
		var es []graph.Edge
		for _, i := range to {
			es = append(es, graph.Edge{To: i, Attr: attr})
		}
		return es
	}
	foo, bar, core, other := id("extensions/Foo", "l10n"), id("extensions/Foo", "bar_l10n"), id("", "core_l10n"), id("base", "image")
	update, all, more := id("", "newer"), id("", "l10n"), id("", "more")
	targets := []*graph.Target{
		component(foo, "l10n aliases 1"), component(bar, "l10n aliases 1"), component(core, "l10n plurals 1"),
		{ID: other, Kind: "image_import", Pos: "base/BUILD:1:1"},
		{ID: update, Kind: UpdateRule, Deps: edges("base", bar)},
		{ID: all, Kind: StoreRule, Deps: append(edges("components", foo, update, core), edges("compiler", other)...)},
		{ID: more, Kind: StoreRule, Deps: edges("components", all)},
	}
	l, err := New(memTree{}, graph.New(targets), []*graph.Target{targets[6], targets[0]})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range l.Components {
		got = append(got, c.Label+" "+c.Name)
	}
	want := []string{"//:core_l10n core", "//extensions/Foo:l10n extensions/Foo", "//extensions/Foo:bar_l10n extensions/Foo:bar_l10n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
	if _, err := New(memTree{}, graph.New(targets), targets[3:4]); err == nil || !strings.HasPrefix(err.Error(), "base/BUILD:1:1: //base:image: image_import has no localisation") {
		t.Errorf("an image: %v", err)
	}
}

func TestMessageFiles(t *testing.T) {
	do := &action.Native{Files: []action.Source{
		{Role: "messages A", Path: "1"}, {Role: "messages B", Path: "2"}, {Role: "aliases A", Path: "3"}, {Role: "messages A", Path: "4"},
	}}
	if got := messageFiles(do); !slices.Equal(got, []string{"1", "4", "2"}) {
		t.Errorf("files %v: folders of one key do not follow one another", got)
	}
}
