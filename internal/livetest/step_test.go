//go:build live

package livetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const stepWorkspace = `
-- BUILD --
package(default_visibility = ["//visibility:public"])

image_import(name = "base", BASE)

genrule(
    name = "upper",
    srcs = ["words.txt"],
    outs = ["upper.txt", "made"],
    cmd = "tr a-z A-Z < words.txt > /out/upper.txt; mkdir /out/made; echo $GREETING > /out/made/greeting; ln -s greeting /out/made/link",
    env = {"GREETING": "hello"},
    image = ":base",
)

layer(name = "packed", srcs = [":upper", "words.txt"], prefix = "data")

mw_image(name = "image", base = ":base", layers = [":packed"])

mw_image(name = "scratch", layers = [":packed"])

genrule(
    name = "nested",
    srcs = ["words.txt"],
    outs = ["n"],
    cmd = "cat /data/upper.txt words.txt > $OUT",
    image = ":image",
)

mw_image(name = "wiki", components = ["//extensions/Ext"])
-- extensions/Ext/BUILD --
package(default_visibility = ["//visibility:public"])

genrule(
    name = "made",
    srcs = ["//:upper"],
    outs = ["made.php"],
    cmd = "cat /src/upper.txt > $OUT",
    image = "//:base",
)

mw_extension(name = "Ext", srcs = glob(["*.php"]) + [":made"])
-- extensions/Ext/extension.json --
{}
-- extensions/Ext/Ext.php --
<?php
-- words.txt --
some words
`

// A genrule works in a base made of Debian's packages, what it makes goes into layers, and all of it is kept.
func TestGenrule(t *testing.T) {
	t.Parallel()
	p := workspace(t, stepWorkspace)
	first := p.build("//...")
	if !first.Engine.Used || first.Actions.Executed != first.Actions.Total {
		t.Errorf("first build: %+v, engine %v", first.Actions, first.Engine.Used)
	}
	p.build("//...").wantActions(t, 0, false)

	tarball := filepath.Join(shortDir(t), "image.tar")
	p.ok("//:scratch", "-o", "type=oci,compression=none,dest="+tarball)
	want := "data/made/greeting=hello\n data/made/link->greeting data/upper.txt=SOME WORDS\n data/words.txt=some words\n"
	if got := strings.Join(layerFiles(t, tarball), " "); got != want {
		t.Errorf("the image holds\n%s\nwant\n%s", got, want)
	}
	p.ok("//:wiki", "-o", "type=oci,compression=none,dest="+tarball)
	if got := strings.Join(layerFiles(t, tarball), " "); !strings.Contains(got, "srv/mediawiki/extensions/Ext/made.php=SOME WORDS") {
		t.Errorf("the wiki holds\n%s", got)
	}
	p.ok("//:nested", "-o", "type=oci,compression=none,dest="+tarball)
	if got := strings.Join(layerFiles(t, tarball), " "); got != "n=SOME WORDS\nsome words\n" {
		t.Errorf("the step in an image with a step's output made\n%s", got)
	}

	// What makes no difference to the output ends there.
	p.write("BUILD", strings.Replace(p.read("BUILD"), "tr a-z A-Z <", "tr '[a-z]' '[A-Z]' <", 1))
	p.build("//:image", "//:scratch", "//:nested").wantActions(t, 1, true)
}

// layerFiles lists the files, links and contents of the uncompressed layers of an OCI archive.
func layerFiles(t *testing.T, archive string) (files []string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(h.Name, "blobs/") || h.Typeflag != tar.TypeReg {
			continue
		}
		blob, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(blob, []byte("{")) {
			continue // a manifest or configuration
		}
		for l := tar.NewReader(bytes.NewReader(blob)); ; {
			h, err := l.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("blob %s: %v", h.Name, err)
			}
			switch h.Typeflag {
			case tar.TypeReg:
				text, err := io.ReadAll(l)
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, h.Name+"="+string(text))
			case tar.TypeSymlink:
				files = append(files, h.Name+"->"+h.Linkname)
			}
		}
	}
}

// Debian's own shell, libc and tools run too.
func TestDebianBase(t *testing.T) {
	t.Parallel()
	b := debian(t)
	p := workspace(t, fmt.Sprintf(`
-- BUILD --
image_import(name = "base", tar = %q, digest = %q)
genrule(name = "sums", srcs = glob(["*.txt"]), outs = ["sums"], cmd = "sha256sum $SRCS > $OUT; stat -c %%a $SRCS >> $OUT", image = ":base")
-- a.txt --
-- b.txt --
`, b.tar, b.digest))
	tarball := filepath.Join(shortDir(t), "sums.tar")
	p.ok("//:sums", "-o", "type=oci,compression=none,dest="+tarball)
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	want := "sums=" + empty + "  a.txt\n" + empty + "  b.txt\n644\n644\n"
	if got := strings.Join(layerFiles(t, tarball), " "); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A failed step tells where it was declared, what ran, how it ended and what it said last.
func TestFailedGenrule(t *testing.T) {
	t.Parallel()
	p := workspace(t, `
-- BUILD --
image_import(name = "base", BASE, visibility = ["//visibility:public"])
-- broken/BUILD --
genrule(
    name = "broken",
    outs = ["out"],
    cmd = "for i in $(seq 100); do echo line $i; done; echo it went wrong >&2; exit 7",
    image = "//:base",
)

genrule(
    name = "nothing",
    outs = ["out/put"],
    cmd = "true",
    image = "//:base",
)

genrule(
    name = "missing",
    outs = ["out"],
    argv = ["/no/such/program"],
    image = "//:base",
)

genrule(
    name = "fine",
    outs = ["out"],
    cmd = "echo fine > $OUT",
    image = "//:base",
)
`)
	r := p.fails(1, []string{"broken/BUILD:1:", "//broken:broken", "exit code 7", "command: /bin/sh -euc", "seq 100", "it went wrong", "line 100"}, "//broken:broken", "--progress=quiet")
	if strings.Contains(r.stderr, "line 10\n") {
		t.Errorf("the log is shown whole:\n%s", r.stderr)
	}
	p.fails(1, []string{"broken/BUILD:8:", "//broken:nothing", "did not make out/put", "/out/out/put"}, "//broken:nothing")
	p.fails(1, []string{"broken/BUILD:15:", "//broken:missing", "/no/such/program"}, "//broken:missing")

	r = p.fails(1, []string{"exit code 7", "did not make out/put", "/no/such/program"}, "//...", "--keep-going", "--output=json")
	status := map[string]string{}
	for _, target := range parseReport(t, r.stdout).Targets {
		status[target.Label] = target.Status
	}
	for label, want := range map[string]string{"//broken:broken": "failed", "//broken:nothing": "failed", "//broken:missing": "failed", "//broken:fine": "built", "//:base": "cached"} {
		if status[label] != want {
			t.Errorf("%s is %q, want %q", label, status[label], want)
		}
	}
	// A failure is not kept.
	p.fails(1, []string{"exit code 7"}, "//broken:broken")
	p.build("//broken:fine").wantActions(t, 0, false)
}

// A genrule's image has one digest, from the embedded engine with empty caches and from a buildkitd over TCP; what
// mwbuild llb writes is solved to the same by buildctl.
func TestOneDigest(t *testing.T) {
	t.Parallel()
	p := workspace(t, stepWorkspace)
	want := p.build("//...").digests()
	if got := p.freshCache().build("//...").digests(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("with another cache %v, with the first %v", got, want)
	}
	addr := buildkitd(t)
	remote := p.freshCache()
	if got := remote.build("//...", "--builder", addr).digests(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("over TCP %v, embedded %v", got, want)
	}
	if left := processes(remote.cache); len(left) != 0 {
		t.Errorf("an engine was started although --builder names one: %v", left)
	}

	addr = buildkitd(t)
	for _, target := range []string{"//:image", "//:scratch", "//:wiki"} {
		if got := buildctl(t, p, addr, target).digest; got != want[target] {
			t.Errorf("buildctl made %s of %s, mwbuild %s", got, target, want[target])
		}
	}
	buildctl(t, p, addr, "//:upper")
}

// A solve is what buildctl made of a target's LLB.
type solve struct {
	digest   string
	progress string // rawjson
	llb      []byte
}

// buildctl pipes `mwbuild llb` into `buildctl build`, with the options that mwbuild prints.
func buildctl(t *testing.T, p *place, addr, target string) solve {
	t.Helper()
	r := p.ok("llb", target)
	_, line, ok := strings.Cut(r.stderr, "\n  buildctl build ")
	if !ok {
		t.Fatalf("mwbuild llb %s prints no buildctl command:\n%s", target, r.stderr)
	}
	out := shortDir(t)
	script := strings.ReplaceAll("exec buildctl --addr "+addr+" build --progress rawjson --metadata-file meta "+strings.TrimSpace(line), "OUT.tar", "out.tar")
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Dir = out
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(tool(t, "buildctl"))+":"+os.Getenv("PATH"))
	cmd.Stdin = strings.NewReader(r.stdout)
	var progress bytes.Buffer
	cmd.Stderr = &progress
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, progress.Bytes())
	}
	meta, err := os.ReadFile(filepath.Join(out, "meta"))
	if err != nil {
		t.Fatal(err)
	}
	_, digest, _ := strings.Cut(string(meta), `"containerimage.digest": "`)
	digest, _, _ = strings.Cut(digest, `"`)
	return solve{digest, progress.String(), []byte(r.stdout)}
}

var sleeps atomic.Int64

// sleeper is a workspace with a step that sleeps, and how its process can be known. Beside it stands //:quick.
func sleeper(t *testing.T, seconds int64) (p *place, sleeping string) {
	t.Helper()
	// A number that no other process sleeps for.
	sleeping = fmt.Sprintf("sleep %d.%09d%03d", seconds, time.Now().UnixNano()%1e9, sleeps.Add(1))
	p = workspace(t, fmt.Sprintf(`
-- BUILD --
image_import(name = "base", BASE)
genrule(name = "slow", outs = ["out"], cmd = "%s && echo slept > $OUT", image = ":base")
genrule(name = "quick", outs = ["out"], cmd = "echo quick > $OUT", image = ":base")
`, sleeping))
	t.Cleanup(func() {
		for pid, line := range processes(sleeping) {
			t.Errorf("left running: %d %s", pid, line)
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return p, sleeping
}

// waitForStep waits until the step itself runs.
func waitForStep(t *testing.T, s *started, sleeping string) {
	t.Helper()
	until(t, 60*time.Second, "the step runs", func() bool {
		for _, line := range processes(sleeping) {
			if line == sleeping {
				return true
			}
		}
		return false
	})
}

// Ctrl-C ends a step within five seconds, and leaves nothing running. The same cache is good afterwards.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		kill func(pid int) error
	}{
		{"process", func(pid int) error { return syscall.Kill(pid, syscall.SIGINT) }},
		{"group", func(pid int) error { return syscall.Kill(-pid, syscall.SIGINT) }},
		{"terminate", func(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }},
		{"twice", func(pid int) error {
			err := syscall.Kill(-pid, syscall.SIGINT)
			time.Sleep(100 * time.Millisecond)
			syscall.Kill(-pid, syscall.SIGINT) // which ends mwbuild at once, and the engine after it
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, sleeping := sleeper(t, 100_000)
			s := p.start("//:slow", "//:quick")
			waitForStep(t, s, sleeping)
			begun := time.Now()
			if err := test.kill(s.cmd.Process.Pid); err != nil {
				t.Fatal(err)
			}
			r := s.wait()
			took := time.Since(begun)
			t.Log("ended after", took)
			if took > 5*time.Second {
				t.Errorf("it took %v to end", took)
			}
			if test.name != "twice" {
				if r.want(t, 8, "interrupted"); len(processes(sleeping))+len(processes(p.cache)) > 0 {
					t.Errorf("still running: %v %v", processes(sleeping), processes(p.cache))
				}
			}
			p.checkClean()
			p.write("BUILD", strings.Replace(p.read("BUILD"), sleeping, "sleep 0", 1))
			if r := p.build("//..."); r.Actions.Executed == 0 {
				t.Errorf("nothing was executed: %+v", r)
			}
		})
	}
}

// After kill -9, in a step or while packing, the same build gives the right result, and nothing is left.
func TestKill(t *testing.T) {
	t.Parallel()
	t.Run("step", func(t *testing.T) {
		p, sleeping := sleeper(t, 100_000)
		s := p.start("//...")
		waitForStep(t, s, sleeping)
		s.cmd.Process.Kill()
		s.wait()
		until(t, 5*time.Second, "all that it ran ends", func() bool { return len(processes(sleeping))+len(processes(p.cache)) == 0 })
		p.write("BUILD", strings.Replace(p.read("BUILD"), sleeping, "sleep 0", 1))
		got := p.build("//...").digests()
		if want := p.freshCache().build("//...").digests(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("after a kill %v, in a fresh cache %v", got, want)
		}
	})
	t.Run("engine and all", func(t *testing.T) {
		p, sleeping := sleeper(t, 100_000)
		s := p.start("//...")
		waitForStep(t, s, sleeping)
		// As when the machine runs out of memory: mwbuild and its engine at once. The container is an orphan then.
		for pid := range processes(p.cache) {
			if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe == binary {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		s.wait()
		p.write("BUILD", strings.Replace(p.read("BUILD"), sleeping, "sleep 0", 1))
		p.build("//...")
		if left := processes(sleeping); len(left) > 0 {
			t.Errorf("orphans: %v", left)
		}
		// Nobody was left to remove the folder of the socket, which is all that may stay.
		left, _ := filepath.Glob(p.tmp + "/mwbuild-*")
		for _, dir := range left {
			if files, _ := os.ReadDir(dir); len(files) > 1 {
				t.Errorf("%s holds %v", dir, files)
			}
			os.RemoveAll(dir)
		}
	})
	t.Run("packing", func(t *testing.T) {
		// Layers of random bytes, large enough to be found half written.
		const n = 8
		var build strings.Builder
		p := workspace(t, "")
		random, source := make([]byte, 24<<20), randomness(t)
		for i := range n {
			fmt.Fprintf(&build, "layer(name = \"l%d\", srcs = [\"f%d\"])\n", i, i)
			if _, err := io.ReadFull(source, random); err != nil {
				t.Fatal(err)
			}
			p.write(fmt.Sprintf("f%d", i), string(random))
		}
		fmt.Fprintf(&build, "mw_image(name = \"image\", layers = [%s])\n", strings.Join(labels("l", n), ", "))
		p.write("BUILD", build.String())
		want := p.freshCache().build("//:image").digests()

		interrupted := 0
		for range 4 {
			s := p.start("//:image")
			half := func() bool {
				files, _ := filepath.Glob(p.cache + "/ingest/*")
				return len(files) > 0 || len(processes(p.cache)) == 0
			}
			until(t, 30*time.Second, "a blob is being written", half)
			time.Sleep(30 * time.Millisecond)
			s.cmd.Process.Kill()
			if r := s.wait(); r.code != 0 {
				interrupted++
			}
		}
		if interrupted < 2 {
			t.Errorf("only %d builds were killed in time", interrupted)
		}
		if got := p.build("//:image").digests(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("after kills %v, in a fresh cache %v", got, want)
		}
		tarball := filepath.Join(shortDir(t), "image.tar")
		p.ok("//:image", "-o", "type=oci,compression=none,dest="+tarball)
		p.build("//:image").wantActions(t, 0, false)
	})
}

func labels(prefix string, n int) (quoted []string) {
	for i := range n {
		quoted = append(quoted, fmt.Sprintf("%q", fmt.Sprintf(":%s%d", prefix, i)))
	}
	return quoted
}

// Two builds of one workspace at once: the second waits, says so, and has nothing left to do.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	p, sleeping := sleeper(t, 4)
	first := p.start("//:slow", "--output=json")
	waitForStep(t, first, sleeping)
	second := p.start("//:slow", "--output=json")
	r2, r1 := second.wait(), first.wait()
	r1.want(t, 0)
	r2.want(t, 0, "waiting for another mwbuild in this workspace")
	parseReport(t, r2.stdout).wantActions(t, 0, false)
	if one, two := parseReport(t, r1.stdout).digests(), parseReport(t, r2.stdout).digests(); fmt.Sprint(one) != fmt.Sprint(two) {
		t.Errorf("the first made %v, the second %v", one, two)
	}

	// Another workspace with the same cache waits for the engine only, and has a step of its own.
	t.Run("other workspace", func(t *testing.T) {
		p, sleeping := sleeper(t, 3)
		other, _ := sleeper(t, 1)
		other.cache = p.cache
		first := p.start("//:slow")
		waitForStep(t, first, sleeping)
		other.ok("//:slow")
		first.wait().want(t, 0)
	})
}
