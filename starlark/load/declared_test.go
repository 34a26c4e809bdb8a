package load

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Targets tell what their BUILD files say, and which deprecated attributes were given: None, and the default, are none.
func TestDeclared(t *testing.T) {
	l := newLoader(t, memTree{
		"r.bzl": `
def _impl(ctx):
    return [DefaultInfo(files = [])]

r = rule(implementation = _impl, attrs = {
    "old": attr.string(default = "x", deprecated = "use new"),
    "older": attr.label_list(deprecated = "remove it", allow_files = True),
    "new": attr.string(),
})

def m(name, old = None):
    r(name = name, old = old)
`,
		"BUILD": `load("//:r.bzl", "m", "r")
r(name = "a", new = "1")
r(name = "b", old = "1",
  older = [":a", "//p"], visibility = ["//p:__pkg__"], tags = ["manual"])
m(name = "c")
m(name = "d", old = "1")
`,
		"p/BUILD":    `thing(name = "p", visibility = ["//:__pkg__"])`,
		"none/BUILD": `thing(name = "none")`,
	})
	mustLoad(t, l, "//:all", "//:b", "-//none/...")
	var got []string
	for _, d := range l.Declared() {
		got = append(got, fmt.Sprint(d.Label(), " ", d.Kind(), " ", d.Pos("old"), " ", d.Manual(), " ", d.Uses(), " ", d.Strings("tags"), " ",
			d.VisibleFrom("p"), " ", d.Deprecated()))
	}
	want := []string{
		"//:a r BUILD:2:1 false [] [] false map[]",
		"//:b r BUILD:3:21 true [//:a //p:p] [manual] true map[old:use new older:remove it]",
		"//:c r BUILD:5:1 false [] [] false map[]",
		"//:d r BUILD:6:21 false [] [] false map[old:use new]",
		"//p:p thing p/BUILD:1:1 false [] [] true map[]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Declared (-want +got):\n%s", diff)
	}
}
