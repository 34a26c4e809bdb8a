package uptodate

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/plan"
)

func descriptor(text string) ocispecs.Descriptor {
	return ocispecs.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
}

func sample() *Result {
	return &Result{
		Command: "program\x00//...", Paths: []string{".mwbuildignore", "a", "b/c"}, Stamp: [32]byte{1, 2, 255}, Index: "12 34",
		Blobs: []ocispecs.Descriptor{descriptor("one"), descriptor("")}, Targets: 300, Stdout: "//a:a sha256:…\n",
	}
}

func TestEncode(t *testing.T) {
	for _, want := range []*Result{sample(), {Blobs: []ocispecs.Descriptor{}}} {
		got, err := Decode(want.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("decoded (-want +got):\n%s", diff)
		}
	}
}

// What is cut short, or has any byte changed, is broken.
func TestDecodeBroken(t *testing.T) {
	whole := sample().Encode()
	for i := range whole {
		if _, err := Decode(whole[:i]); !errors.Is(err, ErrBroken) {
			t.Errorf("%d bytes of %d: error %v", i, len(whole), err)
		}
		bad := append([]byte{}, whole...)
		bad[i] ^= 0x10
		if _, err := Decode(bad); !errors.Is(err, ErrBroken) {
			t.Errorf("byte %d changed: error %v", i, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := Decode(data); err == nil {
			if again, err := Decode(r.Encode()); err != nil || !cmp.Equal(r, again) {
				t.Errorf("not the same again: %v", err)
			}
		}
	})
}

// A build looks for the blobs of every step, and so does what remembers it; layers of a remote base need not be here.
func TestBlobs(t *testing.T) {
	layer := func(text, source string) image.Layer {
		return image.Layer{Descriptor: descriptor(text), Source: source}
	}
	p := &plan.Plan{Steps: []*plan.Step{
		{Record: &plan.Record{Layers: []image.Layer{layer("a", "")}}},
		{Record: &plan.Record{Image: &image.Image{
			Manifest: descriptor("m"), Config: descriptor("c"), Layers: []image.Layer{layer("base", "registry/base"), layer("a", ""), layer("b", "")},
		}}},
		{}, // nobody needed it
	}}
	if diff := cmp.Diff([]ocispecs.Descriptor{descriptor("a"), descriptor("m"), descriptor("c"), descriptor("b")}, Blobs(p)); diff != "" {
		t.Errorf("blobs (-want +got):\n%s", diff)
	}
}
