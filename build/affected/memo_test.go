package affected

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/starlark/load"
)

func sampleMemo() *Memo {
	return &Memo{outlines: map[string]*load.Outline{
		"": {File: "BUILD.star"},
		"a/b": {
			Inputs: [32]byte{1, 255}, File: "a/b/BUILD", Modules: []string{"//t:x.bzl", "//t:y.bzl"}, Reads: []string{"a/b/extension.json"},
			Targets: []load.OutlineTarget{
				{Name: "image", Kind: "mw_component_image", Sum: [16]byte{7}, Seen: "//visibility:public", Deps: []load.OutlineDep{{Attr: "component", To: label.Label{Pkg: "a/b", Name: "b"}}, {Attr: "component", To: label.Label{Name: "x"}}}},
				{Name: "b", Kind: "mw_component", Tags: []string{"manual", "x"}, Srcs: []string{"é", "f", "with\nfeed"}, Reads: true},
			},
		},
	}}
}

func TestMemo(t *testing.T) {
	for _, want := range []*Memo{sampleMemo(), {outlines: map[string]*load.Outline{}}} {
		got, err := DecodeMemo(want.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.outlines, got.outlines, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("decoded (-want +got):\n%s", diff)
		}
		if string(got.Encode()) != string(want.Encode()) {
			t.Error("it encodes in another way again")
		}
	}
}

// What is cut short, or has any byte changed, is broken.
func TestMemoBroken(t *testing.T) {
	whole := sampleMemo().Encode()
	for i := range whole {
		if _, err := DecodeMemo(whole[:i]); err == nil {
			t.Errorf("%d bytes of %d are whole", i, len(whole))
		}
		bad := append([]byte{}, whole...)
		bad[i] ^= 0x10
		if _, err := DecodeMemo(bad); err == nil {
			t.Errorf("byte %d changed, and nobody noticed", i)
		}
	}
}

// Where the sum is right and the rest is not, nothing is read past the end and no memory is taken for what is not there.
func FuzzDecodeMemo(f *testing.F) {
	whole := sampleMemo().Encode()
	f.Add(whole[:len(whole)-4])
	f.Add([]byte{memoVersion, 255, 255, 255, 255, 15})
	f.Add([]byte{memoVersion, 0, 255, 255, 255, 15, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := DecodeMemo(appendSum(body))
		if err != nil {
			return
		}
		if again, err := DecodeMemo(m.Encode()); err != nil || !cmp.Equal(m.outlines, again.outlines, cmpopts.EquateEmpty()) {
			t.Errorf("not the same again: %v", err)
		}
	})
}
