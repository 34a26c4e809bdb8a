//go:build live

package livetest

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mediawiki is the real tree.
var mediawiki = once(func(dir string) (string, error) { return layTree(dir, "trixie") })

// layTree lays MediaWiki as a suite of Debian has it.
func layTree(dir, suite string) (string, error) {
	tree := filepath.Join(dir, "mediawiki")
	lay := exec.Command(filepath.Join(repo, "examples/mediawiki/lay"), tree, suite)
	lay.Env = append(os.Environ(), "MWBUILD="+binary)
	out, err := lay.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("lay: %w\n%s", err, out)
	}
	return tree, nil
}

// The real tree, from its 39 component images to a push of the whole wiki.
func TestMediaWiki(t *testing.T) {
	p := newPlace(t, mediawiki(t))
	first := p.build("//...")
	var images, components []string
	for _, target := range first.Targets {
		if name, ok := strings.CutSuffix(target.Label, ":image"); ok {
			images = append(images, target.Label)
			components = append(components, name)
		}
	}
	if len(images) != 39 {
		t.Errorf("%d component images, want 39: %v", len(images), images)
	}
	if first.Engine.Used {
		t.Error("an engine was used for files alone")
	}
	p.build("//...").wantActions(t, 0, false)

	reg := registry(t)
	t.Run("accepted", func(t *testing.T) { testAccepted(t, p, reg, first, append(slices.Clone(images), "//:wiki")) })
	t.Run("composed", func(t *testing.T) { testComposed(t, reg, first, components) })
	t.Run("unpacked", func(t *testing.T) { testUnpacked(t, p, components) })
	t.Run("one line", func(t *testing.T) { testOneLine(t, p, first) })
	t.Run("clone", func(t *testing.T) {
		defer syscall.Umask(syscall.Umask(0o077))
		clone := filepath.Join(shortDir(t), "a clone elsewhere")
		command(t, "/", "git", "clone", "-q", p.dir, clone)
		command(t, "/", "chown", "-R", "1234:1234", clone)
		same := newPlace(t, clone)
		same.env = append(same.env, "TZ=Pacific/Apia", "LC_ALL=C",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0="+clone)
		if diff := cmp.Diff(first.digests(), same.build("//...").digests()); diff != "" {
			t.Errorf("another clone, owner, cache, umask, locale and time zone (-first +here):\n%s", diff)
		}
		same.cache = p.cache
		same.build("//...").wantActions(t, 0, false)
	})
	t.Run("push", func(t *testing.T) { testPush(t, p) })
}

// testAccepted exports and pushes every image, and has crane and skopeo look at it.
func testAccepted(t *testing.T, p *place, reg *running, built report, images []string) {
	crane, skopeo := tool(t, "crane"), tool(t, "skopeo")
	for _, label := range images {
		digest := built.digest(t, label)
		name := reg.addr + "/" + strings.ToLower(strings.Trim(strings.ReplaceAll(label, ":", "/"), "/"))
		layout := filepath.Join(shortDir(t), "layout")
		p.ok(label, "-o", "type=oci,dest="+layout, "--push", name+":v1")
		if got := strings.TrimSpace(command(t, "", skopeo, "inspect", "--format", "{{.Digest}}", "oci:"+layout)); got != digest {
			t.Errorf("%s: skopeo sees %s in the layout, mwbuild built %s", label, got, digest)
		}
		if got := strings.TrimSpace(command(t, "", skopeo, "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+name+":v1")); got != digest {
			t.Errorf("%s: skopeo sees %s in the registry, mwbuild built %s", label, got, digest)
		}
		command(t, "", crane, "manifest", name+"@"+digest)
		// Fast: crane's validator reads gzip alone, and the layers are zstd.
		command(t, "", crane, "validate", "--fast", "--remote", name+"@"+digest)
		// skopeo reads every layer, and compares it with what manifest and configuration say.
		command(t, "", skopeo, "copy", "--dest-decompress", "oci:"+layout, "dir:"+filepath.Join(shortDir(t), "unpacked"))
	}
}

// testComposed makes the wiki of the component images that testAccepted pushed, where there are neither sources nor a cache.
func testComposed(t *testing.T, reg *running, built report, components []string) {
	p := workspace(t, `
-- BUILD --
[mw_component_import(
    name = p.split("/")[-1] or "core",
    path = p,
    ref = ("REGISTRY/%s/image:v1" % p if p else "REGISTRY/image:v1").lower(),
) for p in PATHS]

mw_image(
    name = "wiki",
    core = ":core",
    components = [":" + p.split("/")[-1] for p in PATHS if p],
)
`)
	var paths []string
	for _, c := range components {
		paths = append(paths, fmt.Sprintf("%q", strings.TrimPrefix(c, "//")))
	}
	p.write("BUILD", strings.NewReplacer("REGISTRY", reg.addr, "PATHS", "["+strings.Join(paths, ", ")+"]").Replace(p.read("BUILD")))
	p.ok("lock")
	reg.requests()
	r := p.build("//:wiki")
	r.wantActions(t, len(components)+1, false)
	if got, want := r.digest(t, "//:wiki"), built.digest(t, "//:wiki"); got != want {
		t.Errorf("composed %s, built from the sources %s", got, want)
	}
	// Of each component the manifest and the configuration.
	if got, want := count(reg.requests(), "^GET /v2/.*/(blobs|manifests)/"), 2*len(components); got != want {
		t.Errorf("%d things were fetched, want %d", got, want)
	}
	err := filepath.WalkDir(filepath.Join(p.cache, "blobs"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if err == nil && !bytes.HasPrefix(data, []byte("{")) {
			t.Errorf("%s was fetched, %d bytes", e.Name(), len(data))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	p.ok("//:wiki", "--push", reg.addr+"/week/wiki:v1").want(t, 0, ": 1 blobs uploaded, 39 mounted, 0 there")
	if got := reg.uploads(); got != 1 {
		t.Errorf("the registry got %d blobs, want a configuration", got)
	}
	command(t, "", tool(t, "crane"), "validate", "--fast", "--remote", reg.addr+"/week/wiki:v1")
}

// exclusions are the patterns of a list in the rules, as text: rules/mediawiki.star is where they are documented.
func exclusions(t *testing.T, start, end string) (patterns []string) {
	t.Helper()
	rules, err := os.ReadFile(filepath.Join(repo, "rules/mediawiki.star"))
	if err != nil {
		t.Fatal(err)
	}
	_, list, ok := strings.Cut(string(rules), start)
	list, _, ok2 := strings.Cut(list, end)
	if !ok || !ok2 {
		t.Fatalf("no list %q in the rules", start)
	}
	for _, line := range strings.Split(list, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for _, m := range regexp.MustCompile(`"([^"]*)"`).FindAllStringSubmatch(line, -1) {
			patterns = append(patterns, m[1])
		}
	}
	if len(patterns) < 3 {
		t.Fatalf("the list %q is %v", start, patterns)
	}
	return patterns
}

// testUnpacked compares what umoci unpacks of //:wiki with what git tracks, file by file. Which files are left out is
// found by git's own matching of the documented patterns.
func testUnpacked(t *testing.T, p *place, components []string) {
	layout, bundle := filepath.Join(shortDir(t), "layout"), filepath.Join(t.TempDir(), "bundle")
	p.ok("//:wiki", "-o", "type=oci,compression=gzip,dest="+layout)
	reg := registry(t)
	command(t, "", tool(t, "crane"), "push", layout, reg.addr+"/wiki:gzip")
	command(t, "", tool(t, "crane"), "validate", "--remote", reg.addr+"/wiki:gzip")
	command(t, "", tool(t, "umoci"), "unpack", "--image", layout+":latest", bundle)

	type file struct{ mode, blob string }
	want, byName := map[string]file{}, map[string]file{}
	for _, line := range strings.Split(command(t, p.dir, "git", "ls-files", "-s", "-z"), "\x00") {
		if info, name, ok := strings.Cut(line, "\t"); ok {
			f := strings.Fields(info)
			byName[name] = file{f[0], f[1]}
		}
	}
	packages := map[string]bool{}
	for _, c := range components {
		packages[strings.TrimPrefix(c, "//")] = true
	}
	owner := func(name string) string {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if packages[dir] {
				return dir
			}
		}
		return ""
	}
	development := exclusions(t, "DEVELOPMENT_FILES = [", "\n]")
	inVendor := exclusions(t, "def mw_vendor(name, srcs = None, exclude = [", "]")
	left := map[string]bool{}
	for pkg := range packages {
		patterns := development
		if pkg == "vendor" {
			patterns = inVendor
		}
		args := []string{"ls-files", "-z", "--"}
		for _, pattern := range patterns {
			args = append(args, ":(glob)"+path.Join(pkg, pattern))
		}
		for _, build := range []string{"BUILD", "BUILD.star"} {
			args = append(args, ":(literal)"+path.Join(pkg, build))
		}
		for _, name := range strings.Split(command(t, p.dir, "git", args...), "\x00") {
			if owner(name) == pkg { // git knows of no packages: core's patterns stop at them
				left[name] = true
			}
		}
	}
	for name, f := range byName {
		if !left[name] {
			want["srv/mediawiki/"+name] = f
		}
	}
	t.Logf("%d files tracked, %d left out", len(byName), len(byName)-len(want))
	if len(byName)-len(want) < 50 || len(want) < 20000 {
		t.Error("that cannot be")
	}

	got := map[string]file{}
	root := filepath.Join(bundle, "rootfs")
	var regular []string
	dirs := map[string]bool{"": true}
	for name := range want {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	err := filepath.WalkDir(root, func(file_ string, e fs.DirEntry, err error) error {
		if err != nil || file_ == root {
			return err
		}
		name, _ := filepath.Rel(root, file_)
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if st := fi.Sys().(*syscall.Stat_t); st.Uid != 65533 || st.Gid != 65533 {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
		if fi.ModTime().Unix() != 0 {
			t.Errorf("%s is of %v", name, fi.ModTime())
		}
		switch mode := fi.Mode(); {
		case mode.IsDir():
			if mode.Perm() != 0o755 || !dirs[name] {
				t.Errorf("folder %s: mode %v, known to git: %v", name, mode, dirs[name])
			}
		case mode&fs.ModeSymlink != 0:
			target, err := os.Readlink(file_)
			if err != nil {
				return err
			}
			blob := gitHash(t, []byte(target))
			got[name] = file{"120000", blob}
		case mode == 0o644:
			got[name] = file{mode: "100644"}
			regular = append(regular, name)
		case mode == 0o755:
			got[name] = file{mode: "100755"}
			regular = append(regular, name)
		default:
			t.Errorf("%s has mode %v", name, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	hash := exec.Command("git", "hash-object", "--no-filters", "--stdin-paths")
	hash.Dir, hash.Stdin = root, strings.NewReader(strings.Join(regular, "\n")+"\n")
	out, err := hash.Output()
	if err != nil {
		t.Fatal(err)
	}
	for i, blob := range lines(string(out)) {
		got[regular[i]] = file{got[regular[i]].mode, blob}
	}
	bad := 0
	names := slices.Collect(maps.Keys(want))
	for name := range got {
		if _, ok := want[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if w, g := want[name], got[name]; w != g {
			if bad++; bad <= 20 {
				t.Errorf("%s: git has %+v, the image %+v", name, w, g)
			}
		}
	}
	t.Logf("%d files compared, %d differ", len(names), bad)
}

func gitHash(t *testing.T, b []byte) string {
	t.Helper()
	cmd := exec.Command("git", "hash-object", "--no-filters", "--stdin")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// edit appends to a file of the tree for the rest of a test.
func edit(t *testing.T, p *place, name, text string) {
	t.Helper()
	before := p.read(name)
	t.Cleanup(func() { p.write(name, before) })
	p.write(name, before+text)
}

func testOneLine(t *testing.T, p *place, first report) {
	edit(t, p, "extensions/Cite/src/Cite.php", "// one line\n")
	r := p.build("//...")
	r.wantActions(t, 3, false)
	was, is := first.digests(), r.digests()
	var changed []string
	for label, d := range is {
		if was[label] != d {
			changed = append(changed, label)
		}
	}
	slices.Sort(changed)
	if diff := cmp.Diff([]string{"//:wiki", "//extensions/Cite:Cite", "//extensions/Cite:image"}, changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	p.build("//...").wantActions(t, 0, false)
}

// testPush pushes the wiki, pulls it by digest, and pushes again.
func testPush(t *testing.T, p *place) {
	reg := registry(t)
	wiki := reg.addr + "/mediawiki/wiki"
	built := p.build("//:wiki")
	digest := built.digest(t, "//:wiki")
	r := p.ok("//:wiki", "--push", wiki+":v1")
	r.want(t, 0, "pushed "+wiki+":v1@"+digest+": 40 blobs uploaded")
	if got := reg.uploads(); got != 40 {
		t.Errorf("the registry got %d blobs, want 39 layers and a config", got)
	}
	layout := filepath.Join(shortDir(t), "pulled")
	command(t, "", tool(t, "crane"), "pull", "--format=oci", wiki+"@"+digest, layout)
	if got := strings.TrimSpace(command(t, "", tool(t, "skopeo"), "inspect", "--format", "{{.Digest}}", "oci:"+layout)); got != digest {
		t.Errorf("pulled %s, want %s", got, digest)
	}

	p.ok("//:wiki", "--push", wiki+":v1").want(t, 0, ": 0 blobs uploaded, 0 mounted, 40 there")
	if got := reg.uploads(); got != 0 {
		t.Errorf("the second push uploaded %d blobs", got)
	}

	edit(t, p, "extensions/Cite/src/Cite.php", "// another line\n")
	p.ok("//:wiki", "--push", wiki+":v2").want(t, 0, ": 2 blobs uploaded, 0 mounted, 38 there")
	if got := reg.uploads(); got != 2 {
		t.Errorf("one line uploaded %d blobs, want a layer and a config", got)
	}
	command(t, "", tool(t, "crane"), "validate", "--fast", "--remote", wiki+":v2")
}
