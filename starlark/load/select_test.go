package load

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
)

const selectWorkspace = `
image_defaults(platform = "linux/amd64")
define(name = "debug", values = ["on", "off"], default = "off")
define(name = "title")
configuration(name = "prod", platform = "linux/arm64")
configuration(name = "dev", define = {"debug": "on", "title": "Dev"})
configuration(name = "arm7", platform = "linux/arm/v7")
`

func configured(t rapid.TB, tree memTree, c Config) *Loader {
	t.Helper()
	l, errs := New(Options{Tree: tree, Prelude: os.DirFS("testdata/prelude"), Config: c})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return l
}

func TestSelect(t *testing.T) {
	tree := memTree{
		"WORKSPACE": selectWorkspace,
		"cfg/BUILD": `
package(default_visibility = ["//visibility:public"])
config_setting(name = "prod", values = {"config": "prod"})
config_setting(name = "arm64", values = {"cpu": "arm64"})
config_setting(name = "linux", values = {"os": "linux"})
config_setting(name = "arm7", values = {"platform": "linux/arm/v7"})
config_setting(name = "debug", define_values = {"debug": "on"})
config_setting(name = "prod_debug", values = {"config": "prod"}, define_values = {"debug": "on"})
config_setting(name = "untitled", define_values = {"title": ""})
`,
		"p/BUILD": `
load("//tools:m.bzl", "wrap")
thing(name = "dep")
wrap(
    name = "x",
    text = WORKSPACE.platform + select({"//cfg:prod": " prod", "//cfg:prod_debug": " both", "//cfg:debug": " debug", "//conditions:default": ""}),
    deps = select({"//cfg:untitled": [], "//conditions:default": [":dep"]}),
)
thing(name = "y",
    mode = select({"//cfg:arm7": "slow", "//cfg:linux": None}),
    count = select({"//cfg:arm64": 64, "//conditions:default": 1}),
    table = {"a": "1"} | select({"//cfg:debug": {"a": "2", "b": "3"}, "//conditions:default": {}}),
)
`,
		"tools/BUILD": "",
		"tools/m.bzl": `
def wrap(name, text, deps):
    srcs = glob(["*.c"]) + select({"//cfg:arm64": ["arm.s"], "//conditions:default": []})
    thing(name = name, text = "on " + text, srcs = srcs, deps = deps)
`,
		"p/a.c": "", "p/arm.s": "",
	}
	type values struct {
		Text  string
		Srcs  []string
		Deps  []string
		Mode  string
		Count int64
		Table map[string]string
	}
	plain := values{Text: "on linux/amd64", Srcs: []string{"//p:a.c"}, Deps: []string{}, Mode: "fast", Count: 1, Table: map[string]string{"a": "1"}}
	with := func(f func(*values)) values {
		v := plain
		f(&v)
		return v
	}
	arm := func(v *values) {
		v.Text, v.Srcs, v.Count = "on linux/arm64", []string{"//p:a.c", "//p:arm.s"}, 64
	}
	debug := map[string]string{"a": "2", "b": "3"}
	for _, tc := range []struct {
		config Config
		name   string
		want   values
	}{
		{Config{}, "", plain},
		{Config{Platform: "linux/amd64", Define: []string{"debug=off"}}, "", plain},
		{Config{Name: "prod"}, "prod", with(func(v *values) { arm(v); v.Text += " prod" })},
		{Config{Platform: "linux/arm64"}, "platform=linux/arm64", with(arm)},
		{Config{Name: "prod", Define: []string{"title=a b", "debug=on"}}, `prod define debug=on define title="a b"`, with(func(v *values) {
			arm(v)
			v.Text, v.Deps, v.Table = v.Text+" both", []string{"//p:dep"}, debug
		})},
		{Config{Name: "prod", Platform: "linux/amd64"}, "prod platform=linux/amd64", with(func(v *values) { v.Text += " prod" })},
		{Config{Name: "dev"}, "dev", with(func(v *values) { v.Text, v.Deps, v.Table = v.Text+" debug", []string{"//p:dep"}, debug })},
		{Config{Name: "dev", Define: []string{"debug=off", "title=", "title=Dev"}}, "dev define debug=off", with(func(v *values) { v.Deps = []string{"//p:dep"} })},
		{Config{Name: "arm7"}, "arm7", with(func(v *values) { v.Text, v.Mode = "on linux/arm/v7", "slow" })},
	} {
		l := configured(t, tree, tc.config)
		if got := l.Workspace().Config; got != tc.name {
			t.Errorf("%+v: name %q, want %q", tc.config, got, tc.name)
		}
		res, errs := l.Load(t.Context(), patterns(t, "//p:all"))
		if len(errs) > 0 {
			t.Errorf("%+v: %v", tc.config, errs)
			continue
		}
		got := values{}
		for _, d := range l.Declared() {
			get := func(name string) any { v, _ := d.Attr(name); return v }
			switch d.Label().String() {
			case "//p:x":
				got.Text, got.Srcs, got.Deps = get("text").(string), get("srcs").([]string), get("deps").([]string)
			case "//p:y":
				got.Mode, got.Count, got.Table = get("mode").(string), get("count").(int64), get("table").(map[string]string)
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tc.config, diff)
		}
		// The conditions are dependencies, of every configuration alike; nothing else knows that there was a choice.
		var conditions []string
		x := res.Graph.Target(graph.ID{Label: label.Label{Pkg: "p", Name: "x"}, Config: tc.name})
		for _, e := range x.Deps {
			if e.Condition {
				conditions = append(conditions, e.Attr+" "+e.To.Label.Name)
			}
		}
		slices.Sort(conditions)
		want := []string{"deps untitled", "srcs arm64", "text debug", "text prod", "text prod_debug"}
		if diff := cmp.Diff(want, conditions); diff != "" {
			t.Errorf("%+v: conditions of //p:x (-want +got):\n%s", tc.config, diff)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for _, tc := range []struct {
		config Config
		want   string
	}{
		{Config{Name: "prdo"}, "--config=prdo: WORKSPACE declares no configuration prdo\n    did you mean prod"},
		{Config{Name: "elsewhere"}, "--config=elsewhere: WORKSPACE declares no configuration elsewhere\n    it declares arm7, dev, prod"},
		{Config{Platform: "arm64"}, "--platform=arm64: want os/arch, such as linux/amd64"},
		{Config{Define: []string{"debug"}}, "--define=debug: want --define=NAME=VALUE"},
		{Config{Define: []string{"debgu=on"}}, "--define=debgu=on: define debgu is not declared\n    did you mean debug"},
		{Config{Define: []string{"xyz=on"}}, "--define=xyz=on: define xyz is not declared\n    declare it in WORKSPACE"},
		{Config{Define: []string{"debug=onn"}}, `--define=debug=onn: debug is "onn", which is none of on, off (did you mean on?)`},
		{Config{Define: []string{"debug="}}, `--define=debug=: debug is "", which is none of on, off`},
	} {
		_, errs := New(Options{Tree: memTree{"WORKSPACE": selectWorkspace}, Prelude: os.DirFS("testdata/prelude"), Config: tc.config})
		var e *ConfigError
		if len(errs) != 1 || !errors.As(errs[0], &e) || !strings.HasPrefix(e.Error(), tc.want) {
			t.Errorf("%+v\n got %v\nwant %s", tc.config, errs, tc.want)
		}
	}
	_, errs := New(Options{Tree: memTree{"WORKSPACE": ""}, Prelude: os.DirFS("testdata/prelude"), Config: Config{Name: "prod"}})
	if want := "--config=prod: WORKSPACE declares no configuration prod\n    declare it: configuration(name = \"prod\")"; len(errs) != 1 || errs[0].Error() != want {
		t.Errorf("got %v, want %s", errs, want)
	}
}

func TestConfigStatements(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{`configuration(name = "a b")`, `WORKSPACE:1:14: configuration "a b": a name has letters`},
		{`configuration()`, `WORKSPACE:1:14: configuration: missing argument for name`},
		{"configuration(name = \"a\")\nconfiguration(name = \"a\")", "WORKSPACE:2:14: configuration a stands twice"},
		{`configuration(name = "a", platform = "arm64")`, `WORKSPACE:1:14: configuration a: platform "arm64": want os/arch`},
		{`configuration(name = "a", define = {"x": 1})`, `WORKSPACE:1:14: configuration a: define holds "x": 1, want strings`},
		{`configuration(name = "a", define = {"x": "1"})`, `WORKSPACE:1:14: configuration a: define x is not declared`},
		{"define(name = \"x\", values = [\"1\"])\nconfiguration(name = \"a\", define = {\"x\": \"2\"})", `WORKSPACE:2:14: configuration a: x is "2", which is none of 1`},
		{`define(name = "")`, `WORKSPACE:1:7: define "": a name has letters`},
		{"define(name = \"a\")\ndefine(name = \"a\")", "WORKSPACE:2:7: define a stands twice"},
		{`define(name = "a", values = [1])`, "WORKSPACE:1:7: define a: values: "},
		{`define(name = "a", values = ["b"], default = "c")`, `WORKSPACE:1:7: define a: default "c" is none of b`},
	} {
		_, errs := New(Options{Tree: memTree{"WORKSPACE": tc.text}, Prelude: os.DirFS("testdata/prelude")})
		if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), tc.want) {
			t.Errorf("%s\n got %v\nwant %s", tc.text, errs, tc.want)
		}
	}
}

// TestSelectsMostSpecific compares what select() chooses with what the definition says, condition by condition.
func TestSelectsMostSpecific(t *testing.T) {
	facts := map[string][]string{
		"os": {"linux", "darwin"}, "cpu": {"amd64", "arm64"}, "define a": {"1", "2"}, "define b": {"1", "2"}, "config": {"x", "y"},
	}
	keys := slices.Sorted(maps.Keys(facts))
	rapid.Check(t, func(t *rapid.T) {
		now := map[string]string{}
		for _, k := range keys {
			now[k] = rapid.SampledFrom(facts[k]).Draw(t, k)
		}
		var build, branches strings.Builder
		n := rapid.IntRange(1, 6).Draw(t, "settings")
		settings, values := make([]map[string]string, n), make([]string, n)
		for i := range n {
			settings[i] = map[string]string{}
			for len(settings[i]) == 0 {
				for _, k := range keys {
					if rapid.IntRange(0, 2).Draw(t, "ask") > 0 {
						continue
					}
					// Mostly what is the case, so that several hold.
					settings[i][k] = now[k]
					if rapid.IntRange(0, 5).Draw(t, "other") == 0 {
						settings[i][k] = rapid.SampledFrom(facts[k]).Draw(t, "value")
					}
				}
			}
			values[i] = rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "branch")
			var plain, defines []string
			for _, k := range slices.Sorted(maps.Keys(settings[i])) {
				if name, define := strings.CutPrefix(k, "define "); define {
					defines = append(defines, fmt.Sprintf("%q: %q", name, settings[i][k]))
				} else {
					plain = append(plain, fmt.Sprintf("%q: %q", k, settings[i][k]))
				}
			}
			fmt.Fprintf(&build, "config_setting(name = \"s%d\", values = {%s}, define_values = {%s})\n", i, strings.Join(plain, ", "), strings.Join(defines, ", "))
			fmt.Fprintf(&branches, "\":s%d\": %q, ", i, values[i])
		}
		otherwise := rapid.Bool().Draw(t, "default")
		if otherwise {
			branches.WriteString(`"//conditions:default": "d"`)
		}
		fmt.Fprintf(&build, "thing(name = \"t\", text = select({%s}))\n", branches.String())

		// The definition: of those that hold, those than which no other that holds asks for strictly more.
		holds := func(s map[string]string) bool {
			for k, v := range s {
				if now[k] != v {
					return false
				}
			}
			return true
		}
		want := map[string]bool{}
		for i, s := range settings {
			beaten := false
			for _, o := range settings {
				more := len(o) > len(s)
				for k := range s {
					more = more && o[k] == s[k]
				}
				beaten = beaten || holds(o) && more
			}
			if holds(s) && !beaten {
				want[values[i]] = true
			}
		}
		if len(want) == 0 && otherwise {
			want["d"] = true
		}

		l := configured(t, memTree{
			"WORKSPACE": "define(name = \"a\")\ndefine(name = \"b\")\nconfiguration(name = \"x\")\nconfiguration(name = \"y\")\n",
			"p/BUILD":   build.String(),
		}, Config{Name: now["config"], Platform: now["os"] + "/" + now["cpu"], Define: []string{"a=" + now["define a"], "b=" + now["define b"]}})
		one := label.Label{Pkg: "p", Name: "t"}
		_, errs := l.Resolve(t.Context(), []label.Pattern{{Label: one}})
		if len(want) != 1 {
			msg := "both hold"
			if len(want) == 0 {
				msg = "none of the conditions holds"
			}
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), msg) {
				t.Fatalf("%s%+v\n%v, want an error: %s", build.String(), now, errs, msg)
			}
			return
		}
		if len(errs) > 0 {
			t.Fatalf("%s%+v\n%v, want %v", build.String(), now, errs, want)
		}
		for _, d := range l.Declared() {
			if got, _ := d.Attr("text"); d.Label() == one && !want[got.(string)] {
				t.Fatalf("%s%+v\ngot %v, want %v", build.String(), now, got, want)
			}
		}
	})
}
