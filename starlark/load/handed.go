package load

import (
	"slices"

	"go.starlark.net/starlark"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
)

// Names say how [Loader.Handed] names what is not plain data.
type Names struct {
	Node func(*action.Node) (string, error)       // an action
	File func(path string) (id string, err error) // the mode and bytes of a file of the tree
}

// Handed is a digest of what a target that was loaded hands to those that depend on it: its providers. Where it is the same
// in two trees, a target that did not change by itself cannot tell them apart. ok is false where it cannot be told, as with
// a function among the values.
func (l *Loader) Handed(lab label.Label, names Names) (sum [32]byte, ok bool) {
	t, _, _ := l.find(lab)
	if t == nil || t.provided == nil {
		return sum, false
	}
	h := &hander{names: names, ok: true}
	for _, in := range t.provided.providers {
		h.value(in)
	}
	return h.sum(), h.ok
}

type hander struct {
	digest
	names Names
	ok    bool
}

func (h *hander) named(kind string, id string, err error) {
	h.ok = h.ok && err == nil
	h.add(kind, id)
}

func (h *hander) value(v starlark.Value) {
	if !h.ok {
		return
	}
	switch v := v.(type) {
	case *instance:
		if v.provider != nil {
			h.add("provider", v.provider.file, v.provider.Name())
		}
		h.add("{")
		keys := v.fields.Keys()
		slices.Sort(keys)
		for _, k := range keys {
			h.add(k)
			h.value(v.fields[k])
		}
		h.add("}")
	case *nodeValue:
		id, err := h.names.Node(v.node)
		h.named("node", id, err)
	case *fileValue:
		h.add("file", v.path, v.sub)
		if v.node != nil {
			id, err := h.names.Node(v.node)
			h.named("of", id, err)
		} else {
			id, err := h.names.File(v.path)
			h.named("is", id, err)
		}
	case *targetValue:
		h.add("target", v.label)
		for _, in := range v.providers {
			h.value(in)
		}
	case *depset:
		h.add("depset")
		h.sequence(slices.Values(v.list()))
	case *starlark.List:
		h.add("list")
		h.sequence(v.Elements())
	case starlark.Tuple:
		h.add("tuple")
		h.sequence(slices.Values(v))
	case *starlark.Set:
		h.add("set")
		h.sequence(v.Elements())
	case *starlark.Dict:
		h.add("dict")
		for _, kv := range v.Items() {
			h.value(kv[0])
			h.value(kv[1])
		}
		h.add("end")
	case starlark.NoneType, starlark.Bool, starlark.Int, starlark.Float, starlark.String, starlark.Bytes:
		h.add(v.Type(), v.String())
	default:
		h.ok = false
	}
}

func (h *hander) sequence(elems func(yield func(starlark.Value) bool)) {
	for e := range elems {
		h.value(e)
	}
	h.add("end")
}
