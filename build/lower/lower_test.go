package lower_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/build/lower"
	"github.com/mwbuild/mwbuild/graph/action"
)

var update = flag.Bool("update", false, "rewrite the goldens")

func layer(name string) lower.Layer {
	return lower.Layer{
		Descriptor: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerZstd, Digest: digest.FromString("blob " + name), Size: int64(len(name))},
		DiffID:     digest.FromString("diff " + name),
	}
}

func layers(names ...string) (ls []lower.Layer) {
	for _, n := range names {
		ls = append(ls, layer(n))
	}
	return ls
}

const platform = "linux/amd64"

func node(name string) *action.Node { return &action.Node{Label: "//:" + name, Name: "layer"} }

func TestGolden(t *testing.T) {
	one, two := node("one"), node("two")
	mounts := map[*action.Node][]lower.Layer{one: layers("one"), two: layers("two", "three")}
	debian := lower.Root{
		Layers: layers("debian", "debian update", "core", "cite"), BaseLayers: 2, Platform: platform,
		Env: []string{"PATH=/bin", "A=image", "B=image"}, WorkingDir: "/srv",
	}
	remote := debian
	remote.Remote = "registry.test/debian@" + digest.FromString("debian image").String()
	user := lower.Root{Layers: layers("one"), Platform: "linux/arm64/v8", User: "65533:65533"}
	full := action.Run{
		Args:   []string{"/bin/sh", "-c", "make > /out/x"},
		Mounts: []action.Mount{{From: two, Dest: "/src"}, {From: one, Dest: "/src"}, {From: one, Dest: "/lib/one/"}},
		Env:    map[string]string{"Z": "1", "B": "action", "LC_ALL": "C"},
		Dir:    "/src", Network: true, Owner: action.Owner{UID: 33, GID: 34},
	}
	small := action.Run{Args: []string{"/step"}}
	beyond := action.Run{
		Args: []string{"/step"}, Caches: []action.Cache{{ID: "npm", Dest: "/npm"}}, SSH: []string{"default", "other"},
		Secrets: []action.Secret{{ID: "file", Dest: "/run/secrets/file"}, {ID: "env", Env: "TOKEN", Keyed: true}},
	}

	changes := action.Run{
		Args: []string{"/setup"}, Changes: true, User: "0:0", Env: map[string]string{"SOURCE_DATE_EPOCH": "1730000000"},
		Mounts: []action.Mount{{From: one, Dest: "/mwbuild"}}, Caches: []action.Cache{{ID: "npm", Dest: "/npm"}}, Secrets: []action.Secret{{ID: "file", Dest: "/run/secrets/file"}},
	}

	for name, lowered := range map[string]func() (lower.Graph, error){
		"run":        func() (lower.Graph, error) { return lower.Run(t.Context(), full, debian, mounts, "//:gen") },
		"run_user":   func() (lower.Graph, error) { return lower.Run(t.Context(), small, user, nil, "//:gen") },
		"run_beyond": func() (lower.Graph, error) { return lower.Run(t.Context(), beyond, user, nil, "//:gen") },
		"run_changes": func() (lower.Graph, error) {
			r := debian
			r.User = "900:900"
			return lower.Run(t.Context(), changes, r, mounts, "//:base")
		},
		"run_changes_user": func() (lower.Graph, error) {
			return lower.Run(t.Context(), action.Run{Args: []string{"/setup"}, Changes: true}, user, nil, "//:base")
		},
		"run_scratch": func() (lower.Graph, error) {
			return lower.Run(t.Context(), small, lower.Root{Platform: platform}, nil, "//:gen")
		},
		"image":        func() (lower.Graph, error) { return lower.Image(t.Context(), debian, "//:image") },
		"image_remote": func() (lower.Graph, error) { return lower.Image(t.Context(), remote, "//:image") },
		"image_single": func() (lower.Graph, error) {
			return lower.Image(t.Context(), lower.Root{Layers: layers("one"), Platform: platform}, "//:image")
		},
		"image_inlined": func() (lower.Graph, error) {
			g, err := lower.Run(t.Context(), full, debian, mounts, "//:gen")
			if err != nil {
				return g, err
			}
			r := remote
			r.Layers = append(r.Layers[:3:3], lower.Layer{From: &g}, layer("last"))
			return lower.Image(t.Context(), r, "//:image")
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := lowered()
			if err != nil {
				t.Fatal(err)
			}
			got := dump(t, g)
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s; -update rewrites it (-want +got):\n%s", file, diff)
			}
		})
	}
}

// Places where something is mounted are known, relative to the root.
func TestOwnPlaces(t *testing.T) {
	r := action.Run{
		Mounts: []action.Mount{{Dest: "/a/b/"}}, Caches: []action.Cache{{Dest: "/npm"}},
		Secrets: []action.Secret{{Dest: "/s"}, {Env: "S"}},
	}
	want := []string{"dev", "proc", "sys", "run", "tmp", "etc/hosts", "etc/resolv.conf", "a/b", "npm", "s"}
	if diff := cmp.Diff(want, lower.OwnPlaces(r)); diff != "" {
		t.Error(diff)
	}
}

// The number of components changes the width of a graph and never its depth.
func TestDepth(t *testing.T) {
	shape := func(n int) (depth, merges, widest int) {
		root := lower.Root{Platform: platform, Layers: layers("base", "update"), BaseLayers: 2}
		for i := range n {
			root.Layers = append(root.Layers, layer(fmt.Sprint(i)))
		}
		g, err := lower.Image(t.Context(), root, "//:wiki")
		if err != nil {
			t.Fatal(err)
		}
		_, ops, order := parse(t, g)
		depths := map[digest.Digest]int{}
		for _, d := range order {
			for _, in := range ops[d].Inputs {
				depths[d] = max(depths[d], depths[digest.Digest(in.Digest)])
			}
			depths[d]++
			depth = max(depth, depths[d])
			if m := ops[d].GetMerge(); m != nil {
				merges++
				widest = max(widest, len(m.Inputs))
			}
		}
		return depth, merges, widest
	}
	for _, n := range []int{1, 2, 39, 250, 1000} {
		depth, merges, widest := shape(n)
		if depth != 3 || merges != 1 || widest != n+1 { // source, merge, result
			t.Errorf("%d components: depth %d, %d merges, the widest of %d inputs", n, depth, merges, widest)
		}
	}
}

// What the engine keys its cache by holds no name, and what is named by digest is there.
func TestContentOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,4}`), 1, 6).Draw(t, "layers")
		root := lower.Root{
			Layers: layers(names...), BaseLayers: rapid.IntRange(0, len(names)).Draw(t, "base"),
			Env: rapid.SliceOf(rapid.SampledFrom([]string{"A=1", "B=2", "PATH=/x"})).Draw(t, "env"),
		}
		in := node("in")
		r := action.Run{
			Args:   []string{"/step"},
			Mounts: []action.Mount{{From: in, Dest: "/in"}},
			Env:    rapid.MapOf(rapid.StringMatching(`[A-Z]{1,3}`), rapid.String()).Draw(t, "set"),
		}
		ctx := context.Background()
		lowered := func(name string) lower.Graph {
			g, err := lower.Run(ctx, r, root, map[*action.Node][]lower.Layer{in: layers("in")}, name)
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		a, same, b := lowered("//some:name"), lowered("//some:name"), lowered("//other:label")
		if !bytes.Equal(a.Definition, same.Definition) {
			t.Fatal("two runs differ")
		}
		if diff := cmp.Diff(a.Manifests, b.Manifests); diff != "" {
			t.Fatalf("manifests depend on the name:\n%s", diff)
		}
		da, ops, _ := parse(t, a)
		db, _, _ := parse(t, b)
		if diff := cmp.Diff(da.Def, db.Def); diff != "" {
			t.Fatalf("operations depend on the name:\n%s", diff)
		}
		if bytes.Equal(a.Definition, b.Definition) {
			t.Fatal("the name is not shown anywhere")
		}
		for d, m := range a.Manifests {
			if digest.FromBytes(m) != d {
				t.Fatalf("%s is not the digest of its manifest", d)
			}
		}
		for _, op := range ops {
			if s := op.GetSource(); s != nil {
				_, d, _ := strings.Cut(s.Identifier, "@")
				var m ocispecs.Manifest
				if err := json.Unmarshal(a.Manifests[digest.Digest(d)], &m); err != nil {
					t.Fatalf("%s: %v", s.Identifier, err)
				}
				if _, ok := a.Manifests[m.Config.Digest]; !ok {
					t.Fatalf("%s: no configuration %s", s.Identifier, m.Config.Digest)
				}
			}
		}
	})
}

func TestErrors(t *testing.T) {
	n := node("n")
	known := map[*action.Node][]lower.Layer{n: layers("n")}
	sh := []string{"/bin/sh"}
	for name, test := range map[string]struct {
		run    action.Run
		root   lower.Root
		mounts map[*action.Node][]lower.Layer
		want   string
	}{
		"no command":    {want: "needs a command"},
		"unknown mount": {run: action.Run{Args: sh, Mounts: []action.Mount{{From: n, Dest: "/x"}}}, want: "//:n layer are not known"},
		"empty mount":   {run: action.Run{Args: sh, Mounts: []action.Mount{{From: n, Dest: "/x"}}}, mounts: map[*action.Node][]lower.Layer{n: nil}, want: "nothing to mount"},
		"relative":      {run: action.Run{Args: sh, Mounts: []action.Mount{{From: n, Dest: "x"}}}, mounts: known, want: "not an absolute path"},
		"on the root":   {run: action.Run{Args: sh, Mounts: []action.Mount{{From: n, Dest: "/x/.."}}}, mounts: known, want: "not an absolute path below /"},
		"in /out":       {run: action.Run{Args: sh, Mounts: []action.Mount{{From: n, Dest: "/out/x"}}}, mounts: known, want: "/out belongs to the step"},
		"cache on mount": {
			run:    action.Run{Args: sh, Mounts: []action.Mount{{From: n, Dest: "/x/"}}, Caches: []action.Cache{{ID: "c", Dest: "/x"}}},
			mounts: known, want: "something else is mounted there",
		},
		"outs of changes": {run: action.Run{Args: sh, Changes: true, Outs: []string{"o"}}, want: "has no outs"},
		"changes on /run": {run: action.Run{Args: sh, Changes: true, Mounts: []action.Mount{{From: n, Dest: "/run"}}}, mounts: known, want: "belongs to the step itself"},
		"cache at /run":   {run: action.Run{Args: sh, Changes: true, Caches: []action.Cache{{ID: "c", Dest: "/run"}}}, want: "something else is mounted there"},
		"secret in /tmp":  {run: action.Run{Args: sh, Secrets: []action.Secret{{ID: "s", Dest: "/tmp/s"}}}, want: "/tmp belongs to the step"},
		"dir":             {run: action.Run{Args: sh, Dir: "x"}, want: "not absolute"},
		"platform":        {run: action.Run{Args: sh}, root: lower.Root{Platform: "a/b/c/d"}, want: "platform"},
		"base layers":     {run: action.Run{Args: sh}, root: lower.Root{BaseLayers: 1}, want: "1 base layers of 0"},
		"no diff id":      {run: action.Run{Args: sh}, root: lower.Root{Layers: []lower.Layer{{Descriptor: layer("x").Descriptor}}}, want: "diff id missing"},
		"bad sub-graph":   {run: action.Run{Args: sh}, root: lower.Root{Layers: []lower.Layer{{From: &lower.Graph{Definition: []byte("x")}}}}, want: "sub-graph"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := lower.Run(t.Context(), test.run, test.root, test.mounts, "//:gen")
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "//:gen: ") {
				t.Errorf("got %v, want //:gen: … %s", err, test.want)
			}
		})
	}
	if _, err := lower.Image(t.Context(), lower.Root{}, "//:image"); err == nil {
		t.Error("an image of nothing was lowered")
	}
}

type fataler interface {
	Helper()
	Fatal(...any)
}

func parse(t fataler, g lower.Graph) (*pb.Definition, map[digest.Digest]*pb.Op, []digest.Digest) {
	t.Helper()
	var def pb.Definition
	if err := proto.Unmarshal(g.Definition, &def); err != nil {
		t.Fatal(err)
	}
	ops := map[digest.Digest]*pb.Op{}
	var order []digest.Digest
	for _, b := range def.Def {
		var op pb.Op
		if err := proto.Unmarshal(b, &op); err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(b)
		ops[d] = &op
		order = append(order, d)
	}
	return &def, ops, order
}

// dump is a graph in words: one operation per line, inputs by number, then the manifests.
func dump(t *testing.T, g lower.Graph) string {
	t.Helper()
	def, ops, order := parse(t, g)
	short := func(d string) string {
		before, after, ok := strings.Cut(d, "sha256:")
		if !ok {
			return d
		}
		return before + after[:8]
	}
	number := map[digest.Digest]int{}
	var out strings.Builder
	for i, d := range order {
		op := ops[d]
		number[d] = i + 1
		var ins []string
		for _, in := range op.Inputs {
			ins = append(ins, fmt.Sprintf("%d.%d", number[digest.Digest(in.Digest)], in.Index))
		}
		fmt.Fprintf(&out, "%d [%s]", i+1, strings.Join(ins, " "))
		if p := op.Platform; p != nil {
			fmt.Fprintf(&out, " %s", strings.Trim(p.OS+"/"+p.Architecture+"/"+p.Variant, "/"))
		}
		switch {
		case op.GetSource() != nil:
			s := op.GetSource()
			fmt.Fprintf(&out, " source %s", short(s.Identifier))
			for _, k := range slices.Sorted(maps.Keys(s.Attrs)) {
				fmt.Fprintf(&out, " %s=%s", k, s.Attrs[k])
			}
		case op.GetMerge() != nil:
			fmt.Fprintf(&out, " merge %d", len(op.GetMerge().Inputs))
		case op.GetExec() != nil:
			e := op.GetExec()
			fmt.Fprintf(&out, " exec %q env=%q dir=%s user=%q host=%s net=%v", e.Meta.Args, e.Meta.Env, e.Meta.Cwd, e.Meta.User, e.Meta.Hostname, e.Network)
			for _, m := range e.Mounts {
				fmt.Fprintf(&out, " mount(%s", m.Dest)
				if c := m.CacheOpt; c != nil {
					fmt.Fprintf(&out, " %q %v", c.ID, c.Sharing)
				}
				if c := m.SecretOpt; c != nil {
					fmt.Fprintf(&out, " %q %d:%d %o", c.ID, c.Uid, c.Gid, c.Mode)
				}
				if c := m.SSHOpt; c != nil {
					fmt.Fprintf(&out, " %q %d:%d %o", c.ID, c.Uid, c.Gid, c.Mode)
				}
				if m.MountType != pb.MountType_BIND && m.Input < 0 {
					fmt.Fprintf(&out, " %v", m.MountType)
				} else if m.Input >= 0 {
					fmt.Fprintf(&out, " from %s%s", ins[m.Input], m.Selector)
				} else {
					out.WriteString(" empty")
				}
				if m.Readonly {
					out.WriteString(" ro")
				}
				if m.Output >= 0 {
					fmt.Fprintf(&out, " output=%d", m.Output)
				}
				out.WriteString(")")
			}
			for _, v := range e.Secretenv {
				fmt.Fprintf(&out, " secret(%s %q)", v.Name, v.ID)
			}
		case op.GetFile() != nil:
			for _, a := range op.GetFile().Actions {
				if c := a.GetCopy(); c != nil {
					fmt.Fprintf(&out, " copy %s -> %s mode=%s owner=%v:%v time=%d contents=%v",
						c.Src, c.Dest, c.ModeStr, c.Owner.User.GetByID(), c.Owner.Group.GetByID(), c.Timestamp, c.DirCopyContents)
				}
				if m := a.GetMkdir(); m != nil {
					fmt.Fprintf(&out, " mkdir %s mode=%o time=%d", m.Path, m.Mode, m.Timestamp)
				}
			}
		default:
			out.WriteString(" result")
		}
		if md := def.Metadata[string(d)]; md != nil {
			if n := md.Description["llb.customname"]; n != "" {
				fmt.Fprintf(&out, " # %s", n)
			}
			if md.ProgressGroup != nil {
				fmt.Fprintf(&out, " # %s", md.ProgressGroup.Name)
			}
		}
		out.WriteString("\n")
	}
	for _, d := range slices.Sorted(maps.Keys(g.Manifests)) {
		var m ocispecs.Manifest
		var c ocispecs.Image
		if err := json.Unmarshal(g.Manifests[d], &m); err != nil {
			t.Fatal(err)
		}
		if m.MediaType != "" {
			fmt.Fprintf(&out, "manifest %s config=%s", short(d.String()), short(m.Config.Digest.String()))
			for _, l := range m.Layers {
				fmt.Fprintf(&out, " %s(%d)", short(l.Digest.String()), l.Size)
			}
		} else {
			if err := json.Unmarshal(g.Manifests[d], &c); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, "config %s %s/%s", short(d.String()), c.OS, c.Architecture)
			for _, l := range c.RootFS.DiffIDs {
				fmt.Fprintf(&out, " %s", short(l.String()))
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}
