package resolve_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/rules/debian/archive"
	"github.com/mwbuild/mwbuild/rules/debian/resolve"
)

// list reads packages, one a line: name, version, then fields as Name=value with commas, spaces left out.
func list(t interface {
	Helper()
	Fatal(...any)
}, text string) []*archive.Package {
	t.Helper()
	var all []*archive.Package
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		s := archive.Stanza{{Name: "Package", Value: f[0]}, {Name: "Version", Value: f[1]}, {Name: "Architecture", Value: "all"}}
		for _, kv := range f[2:] {
			k, v, _ := strings.Cut(kv, ":")
			for _, op := range []string{"<<", ">>", "<=", ">="} {
				v = strings.ReplaceAll(v, "("+op, " ("+op+" ")
			}
			s = append(s, archive.Field{Name: k, Value: strings.ReplaceAll(v, "(=", " (= ")})
		}
		p, err := archive.PackageOf(s, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

const small = `
base 1 Essential:yes Pre-Depends:libc(>=2)
must 1 Priority:required
libc 2
libc 3
smaller 1 Provides:big
usr-is-merged 1
systemd-standalone-tmpfiles 1 Provides:tmpfiles
big 1 Depends:more
more 1
server 1 Depends:big|smaller,mail-agent,tmpfiles
old-server 1 Depends:libc(<<3)
postal 1 Provides:mail-agent(=2) Priority:optional
agent 1 Provides:mail-agent Priority:extra
virtual-user 1 Depends:mail-agent(>=2)
rival 1 Conflicts:postal
fighter 1 Depends:rival,server
broken 1 Depends:no-such
breaker 1 Breaks:libc(>=3)
self 1 Provides:mail-agent Conflicts:mail-agent
tmp 1 Provides:tmpfiles Priority:required
script 1 Depends:big
`

// What apt chooses of these (apt-get -s install --no-install-recommends, with a list of just them), but for slim, which apt does not have.
func TestResolve(t *testing.T) {
	for _, c := range []struct {
		want  string // packages asked for; "slim" first
		got   string
		fails []string
	}{
		{want: "", got: "base/1 libc/3 must/1 tmp/1"},
		{want: "slim", got: "base/1 libc/3 systemd-standalone-tmpfiles/1 usr-is-merged/1"},
		{want: "server", got: "base/1 big/1 libc/3 more/1 must/1 postal/1 server/1 tmp/1"},
		{want: "slim server", got: "base/1 big/1 libc/3 more/1 postal/1 server/1 systemd-standalone-tmpfiles/1 usr-is-merged/1"},
		{want: "server smaller", got: "base/1 libc/3 must/1 postal/1 server/1 smaller/1 tmp/1"},
		{want: "script", got: "base/1 big/1 libc/3 more/1 must/1 script/1 tmp/1"},
		{want: "script smaller", got: "base/1 libc/3 must/1 script/1 smaller/1 tmp/1"},
		{want: "server agent", got: "agent/1 base/1 big/1 libc/3 more/1 must/1 server/1 tmp/1"},
		{want: "virtual-user", got: "base/1 libc/3 must/1 postal/1 tmp/1 virtual-user/1"},
		{want: "fighter", got: "agent/1 base/1 big/1 fighter/1 libc/3 more/1 must/1 rival/1 server/1 tmp/1"},
		{want: "self server", got: "base/1 big/1 libc/3 more/1 must/1 self/1 server/1 tmp/1"},
		{want: "old-server", fails: []string{"old-server 1 depends on libc (<< 3), which cannot be had: there is libc 3\n    old-server is here because it was asked for, or is essential"}},
		{want: "broken", fails: []string{"broken 1 depends on no-such, which cannot be had: there is no such package\n    broken is here because it was asked for, or is essential"}},
		{want: "mail-agent", fails: []string{"mail-agent is no package, several provide it\n    ask for one of postal, agent, self"}},
		{want: "serve nothing-like-it", fails: []string{"there is no package nothing-like-it", "there is no package serve\n    did you mean server?"}},
		{want: "breaker", fails: []string{"breaker 1 and libc 3 exclude one another\n    breaker is here because it was asked for, or is essential, libc because base needs it"}},
		{want: "rival postal", fails: []string{"postal 1 and rival 1 exclude one another\n    postal is here because it was asked for, or is essential, rival because it was asked for, or is essential"}},
	} {
		names := strings.Fields(c.want)
		slim := len(names) > 0 && names[0] == "slim"
		if slim {
			names = names[1:]
		}
		chosen, depends, errs := resolve.Resolve(list(t, small), resolve.Request{Packages: names, Slim: slim})
		var got, fails []string
		for _, p := range chosen {
			got = append(got, p.Name+"/"+p.Version)
			if _, ok := depends[p.Name]; !ok {
				t.Errorf("%s: what %s depends on is missing", c.want, p.Name)
			}
		}
		for _, err := range errs {
			fails = append(fails, err.Error())
		}
		if diff := cmp.Diff(c.fails, fails); diff != "" || strings.Join(got, " ") != c.got {
			t.Errorf("%q: %s, want %s\nerrors (-want +got):\n%s", c.want, got, c.got, diff)
		}
	}
}

func TestKeep(t *testing.T) {
	for keep, want := range map[string]string{"2": "2", "3": "3", "1": "3", "": "3"} {
		chosen, _, errs := resolve.Resolve(list(t, "libc 2\nlibc 3"), resolve.Request{Packages: []string{"libc"}, Keep: map[string]string{"libc": keep}})
		if len(errs) > 0 || chosen[0].Version != want {
			t.Errorf("keep %q: %v %v, want %s", keep, chosen, errs, want)
		}
	}
}

// Whatever there is: what is chosen holds together, has what was asked for, and does not depend on the order of the lists.
func TestResolveProperties(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(append([]string{"v", "w"}, names...))
		relation := rapid.Custom(func(t *rapid.T) string {
			n := name.Draw(t, "name")
			return n + rapid.SampledFrom([]string{"", "", "", "(>=2)", "(<<2)", "(=1)"}).Draw(t, "version")
		})
		var lines []string
		for _, n := range names {
			for _, v := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"1", "2", "3"}), 0, 2, rapid.ID).Draw(t, "versions") {
				line := n + " " + v
				var groups []string
				for range rapid.IntRange(0, 3).Draw(t, "groups") {
					groups = append(groups, strings.Join(rapid.SliceOfN(relation, 1, 3).Draw(t, "group"), "|"))
				}
				line += " Depends:" + strings.Join(groups, ",")
				if rapid.IntRange(0, 3).Draw(t, "provides") == 0 {
					line += " Provides:" + rapid.SampledFrom([]string{"v", "w", "v(=1)", "w(=2)"}).Draw(t, "what")
				}
				if rapid.IntRange(0, 5).Draw(t, "conflicts") == 0 {
					line += " Conflicts:" + relation.Draw(t, "conflict")
				}
				if rapid.IntRange(0, 9).Draw(t, "essential") == 0 {
					line += " Essential:yes"
				}
				lines = append(lines, line)
			}
		}
		if len(lines) == 0 {
			return
		}
		req := resolve.Request{Packages: rapid.SliceOfN(rapid.SampledFrom(names), 1, 3).Draw(t, "asked")}
		chosen, depends, errs := resolve.Resolve(list(t, strings.Join(lines, "\n")), req)
		again, _, errsAgain := resolve.Resolve(list(t, strings.Join(rapid.Permutation(lines).Draw(t, "order"), "\n")), req)
		if a, b := fmt.Sprint(chosen, errs), fmt.Sprint(again, errsAgain); a != b {
			t.Fatalf("%s, in another order %s", a, b)
		}
		if len(errs) > 0 {
			return
		}
		found++
		for _, n := range req.Packages {
			if !slices.ContainsFunc(chosen, func(p *archive.Package) bool { return p.Name == n }) {
				t.Errorf("%s was asked for", n)
			}
		}
		for _, p := range chosen {
			for _, g := range p.Depends {
				met := slices.ContainsFunc(chosen, func(c *archive.Package) bool {
					return slices.ContainsFunc(g, func(r archive.Relation) bool { return satisfies(c, r) })
				})
				if !met {
					t.Errorf("%s lacks %v, %v", p, g, chosen)
				}
			}
			for _, g := range p.Conflicts {
				for _, c := range chosen {
					if c != p && satisfies(c, g[0]) {
						t.Errorf("%s and %s are both there", p, c)
					}
				}
			}
			for _, d := range depends[p.Name] {
				if !slices.ContainsFunc(chosen, func(c *archive.Package) bool { return c.Name == d }) {
					t.Errorf("%s depends on %s, which is not chosen", p, d)
				}
			}
		}
	})
	if found == 0 {
		t.Error("nothing was ever resolved")
	}
}

// satisfies is the meaning of a relation, written anew.
func satisfies(p *archive.Package, r archive.Relation) bool {
	holds := func(v string) bool {
		switch r.Op {
		case ">=":
			return v >= r.Version // one digit
		case "<<":
			return v < r.Version
		case "=":
			return v == r.Version
		}
		return true
	}
	if p.Name == r.Name && holds(p.Version) {
		return true
	}
	for _, g := range p.Provides {
		if g[0].Name == r.Name && (r.Op == "" || g[0].Op != "" && holds(g[0].Version)) {
			return true
		}
	}
	return false
}
