package load

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/graph/action"
)

var someDigest = "sha256:" + strings.Repeat("0123456789abcdef", 4)

func TestLock(t *testing.T) {
	images := map[string]string{"registry.example:5000/php/fpm:8.2-1": someDigest, "localhost/a:latest": someDigest, "b:1": someDigest}
	want := `{
 "version": 1,
 "images": {
  "b:1": "` + someDigest + `",
  "localhost/a:latest": "` + someDigest + `",
  "registry.example:5000/php/fpm:8.2-1": "` + someDigest + `"
 }
}
`
	if diff := cmp.Diff(want, string(FormatLock(images))); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
	got, err := ParseLock([]byte(want))
	if diff := cmp.Diff(images, got); diff != "" || err != nil {
		t.Errorf("read: %v (-want +got):\n%s", err, diff)
	}
	if none, err := ParseLock(FormatLock(nil)); len(none) > 0 || err != nil {
		t.Errorf("an empty lock: %v, %v", none, err)
	}
	for text, says := range map[string]string{
		"": "EOF", "<<<<<<< ours\n": "invalid character", `{"version": 2, "images": {}}`: "version 2", `{"version": 1, "more": {}}`: "more",
		`{"version": 1, "images": {"a": "` + someDigest + `"}}`: `"a": `, `{"version": 1, "images": {"a:1": "sha256:12"}}`: "64 hexadecimal digits",
	} {
		if _, err := ParseLock([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that says %s", text, err, says)
		}
	}
	for _, ref := range []string{"a", "a:", ":1", "a@" + someDigest, "a:1@" + someDigest, "A/b:c d", "registry.example:5000/a", "https://a/b:1", "a:-1"} {
		if CheckRef(ref) == nil {
			t.Errorf("%s is a reference", ref)
		}
	}
}

// A reference stands for the digest that the lock has, and only for that.
func TestLockedImage(t *testing.T) {
	prelude := fstest.MapFS{"r.star": {Data: []byte(`
def _impl(ctx):
    return [DefaultInfo(outputs = [ctx.actions.import_image(ref = ctx.attr.ref, digest = ctx.attr.digest, registry = ctx.attr.registry)])]

base = rule(implementation = _impl, attrs = {"ref": attr.string(), "digest": attr.string(), "registry": attr.string()})
`)}}
	lock := string(FormatLock(map[string]string{"registry.example/php:8.2": someDigest}))
	for _, c := range []struct{ workspace, lock, attrs, says string }{
		{"", lock, `ref = "registry.example/php:8.2"`, ""},
		{"", lock, `ref = "registry.example/php:8.3"`, "a/BUILD:1:24: //a:x: ref: registry.example/php:8.3 is not in mwbuild.lock\n    mwbuild lock asks"},
		{"", "", `ref = "registry.example/php:8.2"`, "is not in mwbuild.lock"},
		{"", lock, `ref = "registry.example/php"`, "want a repository and a tag"},
		{"", lock, `ref = "registry.example/php:8.2", digest = "` + someDigest + `"`, "leave it out"},
		{"", lock, `ref = "registry.example/php:8.2", registry = "registry.example/php"`, "2 are given"},
		{"", "{}", `ref = "registry.example/php:8.2"`, "mwbuild.lock:1:1: it is of version 0"},
		{"policy(mutable_refs = False)", lock, `ref = "registry.example/php:8.2"`, "may mean another image tomorrow: the policy() in WORKSPACE refuses it"},
		{"policy(mutable_refs = False)", lock, `registry = "registry.example/php", digest = "` + someDigest + `"`, ""},
		{`policy(bases = ["registry.example/java"])`, lock, `ref = "registry.example/php:8.2"`, ""}, // of images that stand on it
	} {
		tree := memTree{"WORKSPACE": c.workspace, "a/BUILD": "base(name = \"x\", " + c.attrs + ")\n"}
		if c.lock != "" {
			tree[LockFile] = c.lock
		}
		l, errs := New(Options{Tree: tree, Prelude: prelude})
		var res *Result
		if len(errs) == 0 {
			res, errs = l.Load(t.Context(), patterns(t, "//a:x"))
		}
		if c.says != "" {
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), c.says) {
				t.Errorf("%s: %v, want %q", c.attrs, errs, c.says)
			}
			continue
		}
		if len(errs) > 0 {
			t.Errorf("%s: %v", c.attrs, errs)
			continue
		}
		want := &action.Import{Registry: "registry.example/php", Digest: someDigest, Platform: "linux/amd64"}
		if diff := cmp.Diff(want, res.Targets[0].Outputs[0].Do.(*action.Image).Import); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.attrs, diff)
		}
	}
	// What is in the lock is part of what every package sees.
	var sums [3][32]byte
	for i, text := range []string{lock, string(FormatLock(map[string]string{"registry.example/php:8.2": "sha256:" + strings.Repeat("f", 64)})), "nonsense"} {
		l, errs := New(Options{Tree: memTree{"WORKSPACE": "", LockFile: text}, Prelude: prelude, Unlocked: i == 2})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		sums[i] = l.Environment()
	}
	if sums[0] == sums[1] || sums[0] == sums[2] {
		t.Error("another lock gives the same environment")
	}
}
