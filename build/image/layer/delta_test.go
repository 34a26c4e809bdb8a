package layer_test

import (
	"archive/tar"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/internal/blobtest"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/graph/action"
)

// flatten is what layers mean, one put on another as runtimes do: by path, the kind, mode, owner and bytes.
func flatten(t tb, b image.Blobs, layers ...image.Layer) map[string]string {
	m := map[string]string{}
	for _, l := range layers {
		next := maps.Clone(m)
		remove := func(name string) {
			for n := range next {
				if n == name || strings.HasPrefix(n, name+"/") {
					delete(next, n)
				}
			}
		}
		err := layer.Walk(ctx, b.Content(), l.Descriptor, func(h *tar.Header, r io.Reader) error {
			name := path.Clean(h.Name)
			dir, file := path.Split(name)
			if gone, ok := strings.CutPrefix(file, ".wh."); ok {
				remove(dir + gone)
				return nil
			}
			text, err := io.ReadAll(r)
			is := fmt.Sprintf("%c %o %d:%d %q %q", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, text)
			if h.Typeflag == tar.TypeLink {
				if is = next[h.Linkname]; is == "" {
					return fmt.Errorf("%s links to %s, which is not there", name, h.Linkname)
				}
			}
			if h.Typeflag != tar.TypeDir || !strings.HasPrefix(next[name], string(rune(tar.TypeDir))) {
				remove(name)
			}
			next[name] = is
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		m = next
	}
	return m
}

// On the layer that it was made for, a delta gives what packing everything gives, and it holds nothing that did not change but the folders above what did.
func TestPackOnProperty(t *testing.T) {
	b := blobtest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		was := genEntries(rt)
		if rapid.Bool().Draw(rt, "much stays") {
			was = append(was, file("~", strings.Repeat("x", 10000)))
		}
		opt := layer.Options{Owner: action.Owner{UID: rapid.IntRange(0, 1).Draw(rt, "owner"), GID: 7}}
		base, err := layer.Pack(ctx, b, was, opt)
		if err != nil {
			rt.Fatal(err)
		}
		var is []layer.Entry
		for _, e := range was {
			edit := 5
			if e.Path != "~" {
				edit = rapid.IntRange(0, 4).Draw(rt, "edit")
			}
			switch edit {
			case 0:
				continue // gone
			case 1:
				text := string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(rt, "bytes"))
				if e.Kind == layer.File {
					owner := e.Owner
					e = file(e.Path, text)
					e.Owner = owner
				}
			case 2:
				e.Owner.UID ^= 1
			}
			if e.Kind == layer.File && rapid.Bool().Draw(rt, "unknown digest") {
				e.SHA256 = [32]byte{}
			}
			is = append(is, e)
		}
		for _, e := range genEntries(rt) {
			if !slices.ContainsFunc(is, func(o layer.Entry) bool {
				return strings.HasPrefix(o.Path+"/", e.Path+"/") || strings.HasPrefix(e.Path+"/", o.Path+"/")
			}) {
				is = append(is, e)
			}
		}
		full, err := layer.Pack(ctx, b, is, opt)
		if err != nil {
			return // a hard link lost what it leads to
		}
		listing, err := layer.List(ctx, b.Content(), base)
		if err != nil {
			rt.Fatal(err)
		}
		if listing, err = layer.ParseListing(listing.Marshal()); err != nil {
			rt.Fatal(err)
		}
		delta, how, err := layer.PackOn(ctx, b, listing, is, opt)
		if err != nil {
			rt.Fatal(err)
		}
		want, got := flatten(rt, b, full), flatten(rt, b, base)
		switch how {
		case layer.Whole:
			if delta.Descriptor.Digest != full.Descriptor.Digest {
				rt.Fatalf("packed anew it is %s, and %s by Pack", delta.Descriptor.Digest, full.Descriptor.Digest)
			}
			if wasted := size(rt, b, base) > size(rt, b, full)*5/4 || size(rt, b, full) < 5000; !wasted {
				rt.Fatalf("it is packed anew, although most of it is in the base")
			}
			return
		case layer.Delta:
			got = flatten(rt, b, base, delta)
			if size(rt, b, base) > size(rt, b, full)*3/2+100 {
				rt.Fatalf("the base is of little use, and kept")
			}
		}
		differs := how != layer.Same
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatalf("packed whole and in two (-whole +two):\n%s", d)
		}
		before := flatten(rt, b, base)
		if same := maps.Equal(before, want); same == differs && !hasLinks(was, is) {
			rt.Fatalf("the layers mean the same: %t, and there is a delta: %t", same, differs)
		}
		if !differs || hasLinks(was, is) {
			return
		}
		held := flatten(rt, b, delta)
		for name, text := range held {
			above := slices.ContainsFunc(slices.Collect(maps.Keys(held)), func(n string) bool { return strings.HasPrefix(n, name+"/") })
			if before[name] == text && !above && !strings.HasPrefix(text, "5") {
				rt.Fatalf("%s did not change, and is in the delta", name)
			}
		}
	})
}

// What several layers are with one delta for all is what each of them packed whole is, with folders that they share among themselves and with another layer.
func TestMergeProperty(t *testing.T) {
	b := blobtest.New(t)
	opt := layer.Options{Owner: action.Owner{UID: 3, GID: 4}}
	rapid.Check(t, func(rt *rapid.T) {
		// Files, each of one layer: the last is not merged.
		const layers = 4
		part := rapid.SampledFrom([]string{"a", "b"})
		owner := map[string]int{}
		for range rapid.IntRange(4, 30).Draw(rt, "files") {
			p := strings.Join(rapid.SliceOfN(part, 2, 4).Draw(rt, "path"), "/")
			free := true
			for q := range owner {
				free = free && !strings.HasPrefix(q+"/", p+"/") && !strings.HasPrefix(p+"/", q+"/")
			}
			if free {
				owner[p] = rapid.IntRange(0, layers-1).Draw(rt, "layer")
			}
		}
		entries := func(i int, when string) []layer.Entry {
			all := []layer.Entry{file(fmt.Sprintf("large/%d", i), strings.Repeat("x", 10000))}
			for _, p := range slices.Sorted(maps.Keys(owner)) {
				if owner[p] == i && rapid.Bool().Draw(rt, when+" "+p) {
					all = append(all, file(p, rapid.SampledFrom([]string{"1", "22"}).Draw(rt, "text")))
				}
			}
			return all
		}
		pack := func(e []layer.Entry) image.Layer {
			l, err := layer.Pack(ctx, b, e, opt)
			if err != nil {
				rt.Fatal(err)
			}
			return l
		}
		var whole, bottoms []image.Layer
		var stacks []layer.Stack
		for i := range layers - 1 {
			bottom := pack(entries(i, "was"))
			is := entries(i, "is")
			listing, err := layer.List(ctx, b.Content(), bottom)
			if err != nil {
				rt.Fatal(err)
			}
			s := layer.Stack{Bottom: bottom}
			delta, how, err := layer.PackOn(ctx, b, listing, is, opt)
			switch {
			case err != nil:
				rt.Fatal(err)
			case how == layer.Delta:
				s.Delta = &delta
			case how == layer.Whole:
				s.Bottom = delta
			}
			stacks = append(stacks, s)
			bottoms = append(bottoms, s.Bottom)
			whole = append(whole, pack(is))
		}
		other := entries(layers-1, "is")
		folders := map[string]bool{}
		for _, e := range other {
			for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
				folders[dir] = true
			}
		}
		keepFolders := rapid.Bool().Draw(rt, "keep folders")
		if keepFolders {
			clear(folders) // nobody knows them
		}
		merged, err := layer.Merge(ctx, b, stacks, slices.Sorted(maps.Keys(folders)), keepFolders, func(l image.Layer) (*layer.Listing, error) {
			return layer.List(ctx, b.Content(), l)
		})
		if err != nil {
			rt.Fatal(err)
		}
		names := map[string]bool{}
		err = layer.Walk(ctx, b.Content(), merged.Descriptor, func(h *tar.Header, _ io.Reader) error {
			dir, file := path.Split(strings.TrimSuffix(h.Name, "/"))
			names[dir+file] = true
			if names[dir+".wh."+file] {
				return fmt.Errorf("%s is deleted, and there", h.Name)
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		want := flatten(rt, b, append(whole, pack(other))...)
		for _, all := range [][]image.Layer{slices.Concat([]image.Layer{pack(other)}, bottoms, []image.Layer{merged}), slices.Concat(bottoms, []image.Layer{merged, pack(other)})} {
			got := flatten(rt, b, all...)
			if keepFolders {
				maps.DeleteFunc(got, func(name, text string) bool {
					return want[name] == "" && strings.HasPrefix(text, string(rune(tar.TypeDir)))
				})
			}
			if d := cmp.Diff(want, got); d != "" {
				rt.Fatalf("packed whole and merged (-whole +merged):\n%s", d)
			}
		}
	})
}

// size is how many bytes the files of a layer have.
func size(t tb, b image.Blobs, l image.Layer) (n int64) {
	t.Helper()
	if err := layer.Walk(ctx, b.Content(), l.Descriptor, func(h *tar.Header, _ io.Reader) error { n += h.Size; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func hasLinks(all ...[]layer.Entry) bool {
	return slices.ContainsFunc(slices.Concat(all...), func(e layer.Entry) bool { return e.Kind == layer.Hardlink })
}

// The bytes of deltas are part of every image that has one: other bytes need another DeltaVersion.
func TestPackOnGolden(t *testing.T) {
	b := blobtest.New(t)
	opt := layer.Options{Owner: action.Owner{UID: 65533, GID: 65533}}
	base := pack(t, b, opt, file("srv/a.php", "a"), file("srv/gone/x", "x"), file("srv/gone/y", "y"), file("srv/d/same", "s"), file("srv/d/old", "o"), file("z", "z"), file("big", strings.Repeat("big", 100)))
	listing, err := layer.List(ctx, b.Content(), base)
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("big", 100)
	l, how, err := layer.PackOn(ctx, b, listing, []layer.Entry{
		file("srv/a.php", "A"), file("srv/d/same", "s"), file("srv/new/n", "n"), executable(file("z", "z")), file("big", big),
	}, opt)
	if err != nil || how != layer.Delta {
		t.Fatal(how, err)
	}
	want := []string{
		"5 0755 65533:65533 srv/", "0 0644 65533:65533 srv/.wh.gone", "0 0644 0:0 srv/a.php A", "5 0755 65533:65533 srv/d/", "0 0644 65533:65533 srv/d/.wh.old",
		"5 0755 65533:65533 srv/new/", "0 0644 0:0 srv/new/n n", "0 0755 0:0 z z",
	}
	if d := cmp.Diff(want, list(t, b, l)); d != "" {
		t.Errorf("the delta (-want +got):\n%s", d)
	}
	if l.Descriptor.Digest.String() != goldenDelta {
		t.Errorf("the delta is %s, want %s", l.Descriptor.Digest, goldenDelta)
	}

	// A damaged or foreign listing is an error, and so is a base that deletes.
	whole := string(listing.Marshal())
	cut := strings.SplitAfter(whole, "\n")
	for _, text := range []string{"", "x", whole[:len(whole)-9], whole[1:], strings.Join(slices.Delete(cut, 1, 2), ""), strings.Replace(whole, "old", "bld", 1)} {
		if _, err := layer.ParseListing([]byte(text)); err == nil {
			t.Errorf("%q is a listing", text)
		}
	}
	other := base
	other.DiffID = l.DiffID
	if _, err := layer.List(ctx, b.Content(), other); err == nil || !strings.Contains(err.Error(), "its diff id is "+base.DiffID.String()) {
		t.Errorf("a base with another diff id: %v", err)
	}
	if _, err := layer.List(ctx, b.Content(), l); err == nil || !strings.Contains(err.Error(), "cannot be a base") {
		t.Errorf("a layer with whiteouts is a base: %v", err)
	}
}

const goldenDelta = "sha256:56b0e30e6789a854bff1bfb65505157068cb2afd60f99422c608cb947cfaf5c1"
