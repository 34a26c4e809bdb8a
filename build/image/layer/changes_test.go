package layer_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/internal/blobtest"
	"github.com/mwbuild/mwbuild/build/image/layer"
)

// tb is a *testing.T or a *rapid.T.
type tb interface {
	Helper()
	Fatal(...any)
}

// tarOf is a tar of members, those of type 0 being files that hold their own names' length in x.
func tarOf(t tb, members ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range members {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = map[byte]int64{tar.TypeDir: 0o755, tar.TypeSymlink: 0o777}[h.Typeflag]
			if h.Mode == 0 {
				h.Mode = 0o644
			}
		}
		data := strings.Repeat("x", int(h.Size))
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(tw, data)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func put(t tb, b *blobtest.Store, raw []byte) ocispecs.Descriptor {
	t.Helper()
	d, err := b.Put(ctx, ocispecs.MediaTypeImageLayer, raw)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var (
	longAgo = time.Unix(1000, 0)
	lately  = time.Unix(5000, 0)
	now     = time.Unix(9000, 500)
)

// What engines write is put in one order, with times up to the epoch, and what they mount is left out.
func TestChanges(t *testing.T) {
	b := blobtest.New(t)
	below := []ocispecs.Descriptor{
		put(t, b, tarOf(t,
			tar.Header{Name: "etc/", Typeflag: tar.TypeDir}, tar.Header{Name: "etc/gone"}, tar.Header{Name: "etc/edited"},
			tar.Header{Name: "same/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 3}, tar.Header{Name: "old/d/f"}, tar.Header{Name: "old/g"},
			tar.Header{Name: "refilled/", Typeflag: tar.TypeDir}, tar.Header{Name: "refilled/a"}, tar.Header{Name: "refilled/d/b"},
			tar.Header{Name: "turned/d/", Typeflag: tar.TypeDir}, tar.Header{Name: "lower"}, tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"},
		)),
		put(t, b, tarOf(t, tar.Header{Name: ".wh.lower"}, tar.Header{Name: "turned"}, tar.Header{Name: "usr/bin/", Typeflag: tar.TypeDir})),
	}
	diff := put(t, b, tarOf(t,
		tar.Header{Name: "same/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 3, ModTime: now}, // only its time
		tar.Header{Name: "etc/", Typeflag: tar.TypeDir, ModTime: now},
		tar.Header{Name: "etc/edited", Mode: 0o600, ModTime: now, Uid: 1, Gid: 2, Uname: "daemon", Size: 2},
		tar.Header{Name: "etc/.wh.gone", ModTime: now},
		tar.Header{Name: "etc/.wh.never"},
		tar.Header{Name: ".wh.lower"},
		tar.Header{Name: "old", Size: 1, ModTime: longAgo},
		tar.Header{Name: "old/.wh.d"},
		tar.Header{Name: "refilled/", Typeflag: tar.TypeDir},
		tar.Header{Name: "refilled/.wh..wh..opq"},
		tar.Header{Name: "refilled/d/", Typeflag: tar.TypeDir},
		tar.Header{Name: "refilled/d/new", Mode: 0o4755, ModTime: lately, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "cap", "SCHILY.xattr.user.x": "y"}},
		tar.Header{Name: "usr/bin/tool", ModTime: lately, Mode: 0o755, Size: 3},
		tar.Header{Name: "usr/bin/again", Typeflag: tar.TypeLink, Linkname: "usr/bin/tool"},
		tar.Header{Name: "proc/", Typeflag: tar.TypeDir}, tar.Header{Name: "etc/hosts"}, tar.Header{Name: "mnt/in/", Typeflag: tar.TypeDir},
		tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o622}, tar.Header{Name: "turned/d/", Typeflag: tar.TypeDir},
	))
	l, err := layer.Changes(ctx, b, below, diff, []string{"proc", "etc/hosts", "mnt/in"}, lately)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"5 0755 0:0 etc/ @5000",
		"0 0644 0:0 etc/.wh.gone @5000",
		"0 0600 1:2 etc/edited xx @5000",
		"6 0622 0:0 fifo @0",
		"0 0644 0:0 old x @1000",
		"5 0755 0:0 refilled/ @5000",
		"0 0644 0:0 refilled/.wh.a @5000",
		"5 0755 0:0 refilled/d/ @5000",
		"0 0644 0:0 refilled/d/.wh.b @5000",
		"0 4755 0:0 refilled/d/new @5000 cap",
		"5 0755 0:0 turned/ @5000",
		"5 0755 0:0 turned/d/ @5000",
		"5 0755 0:0 usr/ @5000",
		"5 0755 0:0 usr/bin/ @5000",
		"0 0755 0:0 usr/bin/again xxx @5000",
		"1 0755 0:0 usr/bin/tool -> usr/bin/again @5000",
	}
	if diff := cmp.Diff(want, timed(t, b, l)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	none, err := layer.Changes(ctx, b, below, ocispecs.Descriptor{}, nil, lately)
	if err != nil || len(timed(t, b, none)) != 0 {
		t.Errorf("no changes: %v, %v", timed(t, b, none), err)
	}
	device := put(t, b, tarOf(t, tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}))
	if _, err := layer.Changes(ctx, b, below, device, nil, lately); err == nil || !strings.Contains(err.Error(), "null is a device") {
		t.Errorf("a device: %v", err)
	}
}

// timed lists a layer's members with their times.
func timed(t tb, b *blobtest.Store, l image.Layer) (out []string) {
	t.Helper()
	err := layer.Walk(ctx, b.Content(), l.Descriptor, func(h *tar.Header, _ io.Reader) error {
		s := fmt.Sprintf("%c %04o %d:%d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name)
		if h.Linkname != "" {
			s += " -> " + h.Linkname
		}
		if h.Size > 0 {
			s += " " + strings.Repeat("x", int(h.Size))
		}
		s += fmt.Sprintf(" @%d", h.ModTime.Unix())
		if h.Uname+h.Gname != "" {
			s += " " + h.Uname + h.Gname
		}
		for _, v := range slices.Sorted(maps.Values(h.PAXRecords)) {
			s += " " + v
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A state is a filesystem: what stands at each path, a directory ("d" and a mode) or a file ("f" and what it holds).
type state map[string]string

func (s state) members() (all []tar.Header) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		all = append(all, s.member(name))
	}
	return all
}

func (s state) member(name string) tar.Header {
	if mode, ok := strings.CutPrefix(s[name], "d"); ok {
		h := tar.Header{Name: name + "/", Typeflag: tar.TypeDir, ModTime: now}
		fmt.Sscanf(mode, "%o", &h.Mode)
		return h
	}
	return tar.Header{Name: name, Size: int64(len(s[name]) - 1), ModTime: longAgo}
}

// apply puts a layer on s as an unpacker does.
func (s state) apply(t tb, b *blobtest.Store, d ocispecs.Descriptor) state {
	next := maps.Clone(s)
	remove := func(name string, self bool) {
		for n := range next {
			if self && n == name || name == "." || strings.HasPrefix(n, name+"/") {
				delete(next, n)
			}
		}
	}
	var put []func()
	err := layer.Walk(ctx, b.Content(), d, func(h *tar.Header, _ io.Reader) error {
		name := path.Clean(h.Name)
		dir, base := path.Dir(name), path.Base(name)
		switch {
		case base == ".wh..wh..opq":
			remove(dir, false)
		case strings.HasPrefix(base, ".wh."):
			remove(path.Join(dir, base[4:]), true)
		case h.Typeflag == tar.TypeDir:
			put = append(put, func() { next[name] = fmt.Sprintf("d%o", h.Mode) })
		default:
			put = append(put, func() { remove(name, true); next[name] = "f" + strings.Repeat("x", int(h.Size)) })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range put {
		f()
	}
	return next
}

// drawState draws a filesystem over s: some things go, some come, some change.
func (s state) draw(t *rapid.T, what string) state {
	next := maps.Clone(s)
	for range rapid.IntRange(0, 8).Draw(t, what+" edits") {
		var parts []string
		for range rapid.IntRange(1, 3).Draw(t, "depth") {
			parts = append(parts, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"))
		}
		name := strings.Join(parts, "/")
		rm := func(name string) {
			for n := range next {
				if n == name || strings.HasPrefix(n, name+"/") {
					delete(next, n)
				}
			}
		}
		switch rapid.IntRange(0, 3).Draw(t, "edit") {
		case 0:
			rm(name)
			continue
		case 1: // a file, whatever was there
			rm(name)
			next[name] = "f" + strings.Repeat("x", rapid.IntRange(0, 3).Draw(t, "size"))
		default:
			if !strings.HasPrefix(next[name], "d") {
				rm(name)
			}
			next[name] = rapid.SampledFrom([]string{"d755", "d700"}).Draw(t, "mode")
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if !strings.HasPrefix(next[dir], "d") {
				next[dir] = "d755"
			}
		}
	}
	return next
}

// However an engine writes a change down, it becomes the same layer; put on what was, that gives what is, and it holds nothing
// that did not change but the directories above what did.
func TestChangesProperty(t *testing.T) {
	b := blobtest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		first := state{}.draw(rt, "first")
		old := first.draw(rt, "second")
		is := old.draw(rt, "last")
		// write is a layer as engines may write it: with whiteouts below whiteouts, directories that did not change, and opaque ones.
		write := func(was, is state, odd, opaque bool) []byte {
			var members []tar.Header
			for name := range was {
				if _, ok := is[name]; ok {
					continue
				}
				up := path.Dir(name)
				if _, ok := is[up]; ok || up == "." || odd {
					members = append(members, tar.Header{Name: path.Join(up, ".wh."+path.Base(name))})
				}
			}
			for name, v := range is {
				isDir := strings.HasPrefix(v, "d")
				if was[name] != v || isDir && odd {
					members = append(members, is.member(name))
				}
				if isDir && opaque && rapid.Bool().Draw(rt, "opaque") {
					// It hides all that was in it, and so all that is there stands again in the layer.
					members = append(members, is.member(name), tar.Header{Name: name + "/.wh..wh..opq"})
					for n := range is {
						if strings.HasPrefix(n, name+"/") {
							members = append(members, is.member(n))
						}
					}
				}
			}
			slices.SortFunc(members, func(a, b tar.Header) int { return strings.Compare(a.Name, b.Name) })
			return tarOf(rt, slices.CompactFunc(members, func(a, b tar.Header) bool { return a.Name == b.Name })...)
		}
		below := []ocispecs.Descriptor{put(rt, b, tarOf(rt, first.members()...)), put(rt, b, write(first, old, false, false))}
		var plain image.Layer
		for i, how := range [][2]bool{{false, false}, {true, false}, {true, true}} {
			l, err := layer.Changes(ctx, b, below, put(rt, b, write(old, is, how[0], how[1])), nil, lately)
			if err != nil {
				rt.Fatal(err)
			}
			if got := old.apply(rt, b, l.Descriptor); !maps.Equal(got, is) {
				rt.Fatalf("%v, changed to %v, became %v by %v", old, is, got, timed(rt, b, l))
			}
			switch {
			case i == 0:
				plain = l
			case i == 1 && l.DiffID != plain.DiffID:
				rt.Fatalf("%v, changed to %v, is\n%v and\n%v", old, is, timed(rt, b, l), timed(rt, b, plain))
			}
			for _, m := range timed(rt, b, l) {
				if strings.Contains(m, ".wh..wh.") {
					rt.Fatalf("an opaque directory is left: %s", m)
				}
			}
		}
	})
}

// A tar that is streamed becomes the blob that it would have become by Pack, and nothing if it breaks off.
func TestStream(t *testing.T) {
	b := blobtest.New(t)
	packed, err := layer.Pack(ctx, b, []layer.Entry{{Path: "a/b", Size: 3, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("abc")), nil }}}, layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := layer.OpenBlob(ctx, b.Content(), packed.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	streamed, err := layer.Stream(ctx, b, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(packed, streamed); diff != "" {
		t.Errorf("streamed (-packed +streamed):\n%s", diff)
	}
	broken := errors.New("broken")
	if _, err := layer.Stream(ctx, b, func(w io.Writer) error { fmt.Fprint(w, "some"); return broken }); !errors.Is(err, broken) {
		t.Errorf("broken off: %v", err)
	}
}
