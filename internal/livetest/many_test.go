//go:build live

package livetest

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// synthetic is a workspace of n components and an image of them all.
func synthetic(t *testing.T, n int) *place {
	t.Helper()
	p := workspace(t, "")
	var names []string
	for i := range n {
		dir := fmt.Sprintf("extensions/E%03d", i)
		p.write(dir+"/BUILD", fmt.Sprintf("package(default_visibility = [\"//visibility:public\"])\n\nmw_extension(name = \"E%03d\")\n", i))
		p.write(dir+"/extension.json", fmt.Sprintf("{\"name\": \"E%03d\"}\n", i))
		// Of a size that takes a moment to carry.
		p.write(dir+"/src/Main.php", fmt.Sprintf("<?php\n// %d\n", i)+strings.Repeat(fmt.Sprintf("$x = %d * 7919;\n", i), 20_000))
		names = append(names, fmt.Sprintf("%q", "//"+dir))
	}
	p.write("BUILD", "mw_image(name = \"wiki\", components = ["+strings.Join(names, ", ")+"])\n")
	return p
}

// imageLayers are the layers of //:wiki as crane reads them from a registry.
func imageLayers(t *testing.T, p *place, reg *running) []string {
	t.Helper()
	p.ok("//:wiki", "--push", reg.addr+"/many:1")
	var m struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal([]byte(command(t, "", tool(t, "crane"), "manifest", reg.addr+"/many:1")), &m); err != nil {
		t.Fatal(err)
	}
	var digests []string
	for _, l := range m.Layers {
		digests = append(digests, l.Digest)
	}
	return digests
}

// 250 components become at most 100 layers, of which one changed file changes one. Their LLB is as deep as that of few,
// and an engine fetches its inputs at the same time.
func TestManyComponents(t *testing.T) {
	t.Parallel()
	p := synthetic(t, 250)
	reg := registry(t)
	before := imageLayers(t, p, reg)
	t.Logf("%d layers", len(before))
	if len(before) > 100 || len(before) < 50 {
		t.Errorf("%d layers", len(before))
	}
	reg.requests()
	p.write("extensions/E123/src/Main.php", "<?php\n// changed\n")
	after := imageLayers(t, p, reg)
	if got := reg.uploads(); got != 2 {
		t.Errorf("a changed file uploaded %d blobs, want a layer and a config", got)
	}
	changed := 0
	for i := range after {
		if i >= len(before) || before[i] != after[i] {
			changed++
		}
	}
	if changed != 1 || len(after) != len(before) {
		t.Errorf("%d layers of %d changed, and there were %d", changed, len(after), len(before))
	}

	addr := buildkitd(t)
	many := buildctl(t, p, addr, "//:wiki")
	if want := p.build("//:wiki").digest(t, "//:wiki"); many.digest != want {
		t.Errorf("buildctl made %s, mwbuild %s", many.digest, want)
	}
	checkOverlap(t, many.progress)
	few := synthetic(t, 10)
	if n, m := depth(t, few.ok("llb", "//:wiki").stdout), depth(t, string(many.llb)); n != m {
		t.Errorf("the LLB of 10 components is %d deep, that of 250 %d", n, m)
	}
}

// checkOverlap looks for inputs that were fetched at the same time in buildctl's rawjson.
func checkOverlap(t *testing.T, progress string) {
	t.Helper()
	type span struct{ from, to time.Time }
	spans := map[string]span{}
	for _, line := range lines(progress) {
		if !strings.HasPrefix(line, "{") {
			continue // buildctl's own log
		}
		var status struct {
			Vertexes []struct {
				Digest, Name       string
				Started, Completed *time.Time
			}
		}
		if err := json.Unmarshal([]byte(line), &status); err != nil {
			t.Fatalf("rawjson: %v\n%s", err, line)
		}
		for _, v := range status.Vertexes {
			if v.Started != nil && v.Completed != nil && !strings.Contains(v.Name, "export") {
				spans[v.Digest] = span{*v.Started, *v.Completed}
			}
		}
	}
	most := 0
	for _, at := range spans {
		n := 0
		for _, s := range spans {
			if !s.from.After(at.from) && s.to.After(at.from) {
				n++
			}
		}
		most = max(most, n)
	}
	t.Logf("%d inputs, up to %d at the same time", len(spans), most)
	if most < 2 {
		t.Error("no two inputs were fetched at the same time")
	}
}

// depth is the longest way through a definition, as buildctl reads it.
func depth(t *testing.T, llb string) int {
	t.Helper()
	cmd := exec.Command(tool(t, "buildctl"), "debug", "dump-llb")
	cmd.Stdin = strings.NewReader(llb)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("buildctl debug dump-llb: %v", err)
	}
	inputs := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var op struct {
			Op     struct{ Inputs []struct{ Digest string } }
			Digest string
		}
		if err := d.Decode(&op); err != nil {
			t.Fatal(err)
		}
		inputs[op.Digest] = nil
		for _, in := range op.Op.Inputs {
			inputs[op.Digest] = append(inputs[op.Digest], in.Digest)
		}
	}
	memo := map[string]int{}
	var deep func(string) int
	deep = func(d string) int {
		if memo[d] == 0 {
			memo[d] = 1
			for _, in := range inputs[d] {
				memo[d] = max(memo[d], 1+deep(in))
			}
		}
		return memo[d]
	}
	deepest := 0
	for d := range inputs {
		deepest = max(deepest, deep(d))
	}
	if deepest < 2 {
		t.Fatalf("the LLB of %d operations is %d deep:\n%s", len(inputs), deepest, out)
	}
	return deepest
}
