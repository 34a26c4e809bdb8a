package transport_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/mwbuild/mwbuild/build/image/internal/blobtest"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/graph/action"
)

func TestPush(t *testing.T) {
	reg := newServer(t)
	b := blobtest.New(t)
	img := sampleImage(t, b)
	var size int64
	var events []string
	opt := transport.PushOptions{Progress: func(e transport.Event) { events = append(events, string(e.How)) }}
	for _, l := range img.Layers {
		size += l.Descriptor.Size
	}
	size += img.Config.Size

	st, err := transport.Push(ctx, b, img, reg.host+"/wiki:one", opt)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(transport.Stats{Uploaded: 3, Bytes: size, Manifest: true}, st); diff != "" {
		t.Errorf("first push (-want +got):\n%s", diff)
	}
	if want := []string{"uploaded", "uploaded", "uploaded"}; !slices.Equal(events, want) {
		t.Errorf("events are %v", events)
	}

	reg.forget()
	st, err = transport.Push(ctx, b, img, reg.host+"/wiki:one", opt)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(transport.Stats{Existing: 3}, st); diff != "" {
		t.Errorf("second push (-want +got):\n%s", diff)
	}
	if n := reg.count("PUT", "") + reg.count("POST", "") + reg.count("PATCH", ""); n != 0 {
		t.Errorf("the second push sent %d requests that write", n)
	}

	st, err = transport.Push(ctx, b, img, reg.host+"/wiki:two", opt)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(transport.Stats{Existing: 3, Manifest: true}, st); diff != "" {
		t.Errorf("push under another tag (-want +got):\n%s", diff)
	}

	// What another client sees.
	ref, _ := name.ParseReference(reg.host + "/wiki@" + img.Manifest.Digest.String())
	pulled, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(pulled, validate.Fast); err != nil { // the slow way knows gzip only
		t.Errorf("the pulled image is not valid: %v", err)
	}
	fresh := blobtest.New(t)
	back, err := transport.Import(ctx, fresh, action.Import{Registry: reg.host + "/wiki", Digest: img.Manifest.Digest.String()}, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range back.Layers {
		if err := transport.EnsureLayer(ctx, fresh, l, nil); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(contents(t, b, img), contents(t, fresh, back)); diff != "" {
		t.Errorf("pulled back (-want +got):\n%s", diff)
	}
}

func TestPushMounts(t *testing.T) {
	for _, noMount := range []bool{false, true} {
		reg := newServer(t)
		reg.noMount = noMount
		b := blobtest.New(t)
		base := sampleImage(t, b)
		if _, err := transport.Push(ctx, b, base, reg.host+"/base:1", transport.PushOptions{}); err != nil {
			t.Fatal(err)
		}

		// On another machine.
		b = blobtest.New(t)
		imported, err := transport.Import(ctx, b, action.Import{Registry: reg.host + "/base", Digest: base.Manifest.Digest.String(), Platform: "linux/amd64"}, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range imported.Layers {
			if b.Has(l.Descriptor) {
				t.Errorf("import downloaded layer %s", l.Descriptor.Digest)
			}
		}
		ours := pack(t, b, file("srv/c.php", "c"))
		img := assemble(t, b, &imported, ours)
		st, err := transport.Push(ctx, b, img, reg.host+"/wiki:1", transport.PushOptions{Jobs: 1})
		if err != nil {
			t.Fatal(err)
		}
		want := transport.Stats{Uploaded: 2, Mounted: 2, Bytes: ours.Descriptor.Size + img.Config.Size, Manifest: true}
		if noMount {
			want.Uploaded, want.Mounted = 4, 0
			want.Bytes += base.Layers[0].Descriptor.Size + base.Layers[1].Descriptor.Size
		}
		if diff := cmp.Diff(want, st); diff != "" {
			t.Errorf("noMount=%t (-want +got):\n%s", noMount, diff)
		}
		if got := b.Has(base.Layers[0].Descriptor); got != noMount {
			t.Errorf("noMount=%t: the base layer was downloaded: %t", noMount, got)
		}
	}
}

// A base in one registry, the image in another: layers go through the store.
func TestPushToOtherRegistry(t *testing.T) {
	from, to := newServer(t), newServer(t)
	b := blobtest.New(t)
	base := sampleImage(t, b)
	if _, err := transport.Push(ctx, b, base, from.host+"/base:1", transport.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	b = blobtest.New(t)
	img, err := transport.Import(ctx, b, action.Import{Registry: from.host + "/base", Digest: base.Manifest.Digest.String(), Platform: "linux/amd64"}, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	st, err := transport.Push(ctx, b, img, to.host+"/copy:1", transport.PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if st.Uploaded != 3 {
		t.Errorf("%+v, want 3 uploaded", st)
	}
	ref, _ := name.ParseReference(to.host + "/copy@" + base.Manifest.Digest.String())
	if _, err := remote.Get(ref); err != nil {
		t.Errorf("the copy has another digest: %v", err)
	}
}

func TestPushFails(t *testing.T) {
	reg := newServer(t)
	b := blobtest.New(t)
	img := sampleImage(t, b)
	if _, err := transport.Push(ctx, b, img, "Not A Reference", transport.PushOptions{}); err == nil {
		t.Error("bad reference: no error")
	}
	img.Layers[1].Descriptor.Digest = "sha256:" + "11111111111111111111111111111111" + "11111111111111111111111111111111"
	_, err := transport.Push(ctx, b, img, reg.host+"/wiki:1", transport.PushOptions{})
	if err == nil || !strings.Contains(err.Error(), "not in the store, and no registry is known") {
		t.Errorf("missing layer: error is %v", err)
	}
	if reg.count("PUT", "/manifests/") > 0 {
		t.Error("the manifest was sent, although a layer was not")
	}
	cctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := transport.Push(cctx, b, sampleImage(t, b), reg.host+"/wiki:1", transport.PushOptions{}); err == nil {
		t.Error("cancelled: no error")
	}
}
