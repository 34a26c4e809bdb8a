package gen

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/internal/workspace"
)

// Infer says what Generate writes, with places, and leaves out what a comment keeps and what has no rule.
func TestInfer(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"extensions/A/extension.json": "{\"name\": \"A\", \"manifest_version\": 2, \"requires\": {\"extensions\": {\"B\": \"*\"},\n\"skins\": {\"S\": \"*\"}}}",
		"extensions/A/a.php":          "<?php $r->isLoaded( 'B' ); $r->isLoaded( 'C' );\n$r->isLoaded( 'C' ); $r->isLoaded( 'Nobody' );",
		"extensions/A/BUILD":          "mw_extension(name = \"other\")\n",
		"extensions/B/extension.json": `{"name": "B", "manifest_version": 2, "requires": {"extensions": {"A": "*"}}}`,
		"extensions/B/b.php":          "<?php $r->isLoaded( 'C' );",
		"extensions/B/BUILD":          "mw_extension(\n    name = \"B\",\n    deps = [],  # keep\n)\n",
		"extensions/C/extension.json": `{"name": "C", "manifest_version": 2, "requires": {"extensions": {"A": "*"}}}`,
		"skins/S/skin.json":           `{"name": "S", "manifest_version": 2, "requires": {"extensions": {"A": "*"}}}`,
		"skins/S/BUILD":               "# keep\nmw_skin(name = \"S\")\n",
	} {
		write(t, root+"/"+name, []byte(text))
	}
	tree, err := workspace.Open(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := Infer(t.Context(), Options{Root: root, Tree: tree})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range all {
		for _, d := range c.Deps {
			got = append(got, c.Label.String()+" deps "+d.Label.String()+" "+d.Pos)
		}
		for _, d := range c.SoftDeps {
			got = append(got, c.Label.String()+" soft_deps "+d.Label.String()+" "+d.Pos)
		}
	}
	slices.Sort(got)
	want := []string{
		"//extensions/A:other deps //extensions/B:B extensions/A/extension.json:1:66",
		"//extensions/A:other deps //skins/S:S extensions/A/extension.json:2:11",
		"//extensions/A:other soft_deps //extensions/C:C extensions/A/a.php:1:42",
		"//extensions/B:B soft_deps //extensions/C:C extensions/B/b.php:1:21",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Infer (-want +got):\n%s", diff)
	}
}
