//go:build live

package livetest

import (
	"archive/zip"
	"bytes"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// closure names packages of this machine's Debian and all that they depend on.
func closure(packages ...string) ([]string, error) {
	out, err := exec.Command("apt-get", append([]string{"-o", "Dir::State::status=/dev/null", "-s", "--no-install-recommends", "install"}, packages...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get -s install: %w", err)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Inst" {
			all = append(all, f[1])
		}
	}
	return all, nil
}

// debianBase is a base of Debian's packages with all that they need, unpacked and not configured, with the tree more, where
// there is one, and files over them.
func debianBase(dir, more string, files map[string]string, packages ...string) (base, error) {
	root := filepath.Join(dir, "root")
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(root, "usr", d), 0o755), os.Symlink("usr/"+d, filepath.Join(root, d))); err != nil {
			return base{}, err
		}
	}
	all, err := closure(packages...)
	if err != nil { // a machine that never asked does not know its packages yet
		if out, err := exec.Command("apt-get", "-qq", "update").CombinedOutput(); err != nil {
			return base{}, fmt.Errorf("apt-get update: %w\n%s", err, out)
		}
		if all, err = closure(packages...); err != nil {
			return base{}, err
		}
	}
	if err := unpackDebs(dir, root, all...); err != nil {
		return base{}, err
	}
	if more != "" {
		if out, err := exec.Command("cp", "-a", more+"/.", root).CombinedOutput(); err != nil {
			return base{}, fmt.Errorf("cp: %w\n%s", err, out)
		}
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(target, path); err != nil && !errors.Is(err, os.ErrExist) {
				return base{}, err
			}
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return base{}, err
		}
	}
	out := filepath.Join(dir, "base.tar")
	if b, err := exec.Command("tar", "-C", root, "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf", out, ".").CombinedOutput(); err != nil {
		return base{}, fmt.Errorf("tar: %w\n%s", err, b)
	}
	f, err := os.Open(out)
	if err != nil {
		return base{}, err
	}
	defer f.Close()
	d, err := digest.FromReader(f)
	return base{out, d}, err
}

var composerBase = once(func(dir string) (base, error) {
	version, err := exec.Command("php", "-r", "echo PHP_MAJOR_VERSION . '.' . PHP_MINOR_VERSION;").Output()
	if err != nil {
		return base{}, err
	}
	v := string(version)
	var ini strings.Builder
	for _, e := range []string{"ctype", "fileinfo", "iconv", "intl", "mbstring", "phar", "tokenizer"} {
		fmt.Fprintf(&ini, "extension=%s\n", e)
	}
	return debianBase(dir, "", map[string]string{
		"usr/bin/sh": "-> dash", "usr/bin/php": "-> php" + v, "etc/php/" + v + "/cli/conf.d/10-all.ini": ini.String(),
	}, "composer", "dash", "coreutils", "unzip", "php"+v+"-cli")
})

// nodeBase is Debian's shell and tools with this machine's own node and npm, wherever they came from.
var nodeBase = once(func(dir string) (base, error) {
	script := `
set -eu
node=$(readlink -f "$(command -v node)")
npm=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
mkdir -p usr/bin usr/lib/node_modules
cp "$node" usr/bin/node
cp -R "$npm" usr/lib/node_modules/npm
ln -s ../lib/node_modules/npm/bin/npm-cli.js usr/bin/npm
`
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Dir = filepath.Join(dir, "more")
	if err := os.Mkdir(cmd.Dir, 0o755); err != nil {
		return base{}, err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return base{}, fmt.Errorf("node and npm of this machine: %w\n%s", err, out)
	}
	return debianBase(dir, cmd.Dir, map[string]string{"usr/bin/sh": "-> dash", "etc/passwd": "root:x:0:0::/:/bin/sh\n"}, "dash", "coreutils", "libstdc++6")
})

// zipOf is an archive of one package and its SHA-1, as composer's repositories have it.
func zipOf(t *testing.T, files map[string]string) (data []byte, sum string) {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, text := range files {
		f, err := w.Create("package/" + name)
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), fmt.Sprintf("%x", sha1.Sum(b.Bytes()))
}

// composer_install takes what the lock names, and fails where that is not all of it.
func TestComposerInstall(t *testing.T) {
	t.Parallel()
	b := composerBase(t)
	p := workspace(t, fmt.Sprintf(`
-- BUILD --
image_import(name = "composer", tar = %q, digest = %q, visibility = ["//visibility:public"])
-- app/BUILD --
composer_install(name = "vendor", srcs = ["composer.json", "composer.lock"] + glob(["repo/**"]), image = "//:composer", timeout = "5m")
genrule(
    name = "lock",
    srcs = ["composer.json"] + glob(["repo/**"]),
    outs = ["composer.lock"],
    cmd = "mkdir /tmp/w; cp -R . /tmp/w; cd /tmp/w; COMPOSER_HOME=/tmp/c COMPOSER_ALLOW_SUPERUSER=1 composer update --no-install --no-interaction --no-progress --ignore-platform-reqs; cp composer.lock $OUT",
    image = "//:composer",
)
genrule(
    name = "runs",
    srcs = [":vendor"],
    outs = ["said"],
    cmd = "php -d display_errors=stderr -r 'require \"vendor/autoload.php\"; echo Our\\Greeter::greet();' > $OUT",
    image = "//:composer",
)
mw_extension(name = "App", vendor = ":vendor", srcs = ["extension.json", "App.php"])
-- app/extension.json --
{"name": "App", "manifest_version": 2, "load_composer_autoloader": true}
-- app/App.php --
<?php require __DIR__ . '/vendor/autoload.php';
echo Our\Greeter::greet();
-- app/composer.json --
{"name": "our/app", "require": {"our/greeter": "^1.0"}, "require-dev": {"our/tests": "*"},
 "repositories": [{"type": "composer", "url": "file:///src/app/repo"}, {"packagist.org": false}], "config": {"lock": true}}
`, b.tar, b.digest))
	type pkg map[string]any
	repository := pkg{}
	add := func(name, version string, more pkg, files map[string]string) {
		data, sum := zipOf(t, files)
		archive := strings.ReplaceAll(name, "/", "-") + "-" + version + ".zip"
		p.write("app/repo/"+archive, string(data))
		one := pkg{"name": name, "version": version, "type": "library", "dist": pkg{"type": "zip", "url": "file:///src/app/repo/" + archive, "shasum": sum, "reference": sum}}
		for k, v := range more {
			one[k] = v
		}
		versions, _ := repository[name].(pkg)
		if versions == nil {
			versions = pkg{}
			repository[name] = versions
		}
		versions[version] = one
	}
	add("our/greeter", "1.0.0", pkg{"require": pkg{"our/words": "^2.0"}, "autoload": pkg{"psr-4": pkg{"Our\\": "src/"}}},
		map[string]string{"src/Greeter.php": `<?php namespace Our; class Greeter { static function greet() { return Words::HELLO; } }`})
	add("our/words", "2.1.0", pkg{"autoload": pkg{"psr-4": pkg{"Our\\": ""}}}, map[string]string{"Words.php": `<?php namespace Our; class Words { const HELLO = "hello"; }`})
	add("our/tests", "1.0.0", nil, map[string]string{"t.php": "<?php"})
	index, err := json.Marshal(pkg{"packages": repository})
	if err != nil {
		t.Fatal(err)
	}
	p.write("app/repo/packages.json", string(index))
	p.write("app/composer.lock", "{}")

	out := filepath.Join(shortDir(t), "lock")
	p.ok("//app:lock", "-o", "type=dir,dest="+out)
	text, err := os.ReadFile(filepath.Join(out, "composer.lock"))
	if err != nil {
		t.Fatal(err)
	}
	lock := string(text)
	p.write("app/composer.lock", lock)
	first := p.build("//app:vendor")
	p.build("//app:vendor").wantActions(t, 0, false)
	if got := purls(p.sbom("//app:image"), "pkg:composer/"); !slices.Equal(got, []string{"pkg:composer/our/greeter@1.0.0", "pkg:composer/our/words@2.1.0"}) {
		t.Errorf("the bill of materials has %q", got)
	}
	if again := p.freshCache().build("//app:vendor"); again.digest(t, "//app:vendor") != first.digest(t, "//app:vendor") {
		t.Errorf("the same lock gave %v and %v", first.digests(), again.digests())
	}
	out = filepath.Join(shortDir(t), "said")
	p.ok("//app:runs", "-o", "type=dir,dest="+out)
	if said, err := os.ReadFile(filepath.Join(out, "said")); err != nil || string(said) != "hello" {
		t.Errorf("the packages say %q, %v", said, err)
	}
	// An extension that has packages of its own.
	extension := filepath.Join(unpackImage(t, p, "//app:image"), "rootfs/srv/mediawiki/extensions/app")
	if said := command(t, "", "php", filepath.Join(extension, "App.php")); said != "hello" {
		t.Errorf("the extension says %q", said)
	}
	out = filepath.Join(shortDir(t), "vendor")
	p.ok("//app:vendor", "-o", "type=dir,dest="+out)
	if _, err := os.Stat(filepath.Join(out, "vendor/our/tests")); err == nil {
		t.Error("a package for development was installed")
	}

	for _, test := range []struct {
		name, from, to string
		says           []string
	}{
		{"tampered archive", `"shasum": "`, `"shasum": "0000`, []string{"//app:vendor", "checksum"}},
		{"stale lock", `"content-hash": "`, `"content-hash": "0000`, []string{"//app:vendor", "lock file is not up to date"}},
		{"archive that cannot be had", "our-words-2.1.0.zip", "our-words-2.1.1.zip", []string{"//app:vendor", "our/words"}},
	} {
		changed := strings.ReplaceAll(lock, test.from, test.to)
		if changed == lock {
			t.Fatalf("%s: the lock has no %q:\n%s", test.name, test.from, lock)
		}
		p.write("app/composer.lock", changed)
		p.fails(1, test.says, "//app:vendor")
	}
	// A lock from which somebody took what another package requires: composer installs the rest and calls it a success.
	var parsed map[string]any
	if err := json.Unmarshal(text, &parsed); err != nil {
		t.Fatal(err)
	}
	var rest []any
	for _, one := range parsed["packages"].([]any) {
		if one.(map[string]any)["name"] != "our/words" {
			rest = append(rest, one)
		}
	}
	parsed["packages"] = rest
	short, err := json.MarshalIndent(parsed, "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	p.write("app/composer.lock", string(short))
	p.fails(1, []string{"//app:vendor", "our/words"}, "//app:vendor")
	p.write("app/composer.lock", lock)
	p.build("//app:vendor").wantActions(t, 0, false)

	// What cannot be resolved has no lock at all.
	p.write("app/composer.json", strings.Replace(p.read("app/composer.json"), `"our/greeter": "^1.0"`, `"our/greeter": "^1.0", "our/nothing": "^1.0"`, 1))
	p.fails(1, []string{"//app:lock", "our/nothing"}, "//app:lock")
	p.fails(1, []string{"//app:vendor", "our/nothing"}, "//app:vendor")
}

// npmLock writes a package-lock.json for dir, and returns it, and flags that hand in how this machine's npm reaches its registry.
func npmLock(t *testing.T, p *place, dir string) (lock string, secrets []string) {
	t.Helper()
	npmrc := filepath.Join(shortDir(t), "npmrc")
	registry := strings.TrimSpace(command(t, "", "npm", "config", "get", "registry"))
	// A registry may be trusted by a certificate of this machine's own.
	trusted := "/etc/ssl/certs/ca-certificates.crt"
	if ca := strings.TrimSpace(command(t, "", "npm", "config", "get", "cafile")); ca != "null" && ca != "" {
		trusted = ca
	}
	if err := os.WriteFile(npmrc, []byte("registry="+registry+"\ncafile=/run/secrets/trusted\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lockDir := shortDir(t)
	if err := os.WriteFile(filepath.Join(lockDir, "package.json"), []byte(p.read(dir+"/package.json")), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, lockDir, "npm", "install", "--package-lock-only", "--no-audit", "--no-fund")
	text, err := os.ReadFile(filepath.Join(lockDir, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	p.write(dir+"/package-lock.json", string(text))
	return string(text), []string{"--secret", "id=npmrc,src=" + npmrc, "--secret", "id=trusted,src=" + trusted}
}

// npm_build installs real packages from the registry that this machine is set up for, runs a script, and keeps what it made.
func TestNpmBuild(t *testing.T) {
	t.Parallel()
	b := nodeBase(t)
	p := workspace(t, fmt.Sprintf(`
-- BUILD --
image_import(name = "node", tar = %q, digest = %q, visibility = ["//visibility:public"])
-- ui/BUILD --
npm_build(
    name = "ui",
    srcs = glob(["*.json", "src/**"]),
    outs = ["dist"],
    env = {"npm_config_cafile": "/run/secrets/trusted", "npm_config_userconfig": "/run/secrets/npmrc"},
    image = "//:node",
    network = True,
    secrets = {"npmrc": "/run/secrets/npmrc", "trusted": "/run/secrets/trusted"},
    timeout = "5m",
)
npm_test(
    name = "js_test",
    srcs = glob(["*.json", "test/**"]),
    env = {"npm_config_cafile": "/run/secrets/trusted", "npm_config_userconfig": "/run/secrets/npmrc"},
    image = "//:node",
    network = True,
    secrets = {"npmrc": "/run/secrets/npmrc", "trusted": "/run/secrets/trusted"},
)
-- ui/test/odd.js --
require( 'assert' ).ok( require( 'is-odd' )( 3 ) );
-- ui/package.json --
{"name": "ui", "version": "1.0.0", "private": true, "scripts": {"build": "node src/build.js", "test": "node test/odd.js"}, "dependencies": {"is-odd": "3.0.1"}}
-- ui/src/build.js --
const isOdd = require( 'is-odd' ), fs = require( 'fs' );
fs.mkdirSync( 'dist/deep', { recursive: true } );
fs.writeFileSync( 'dist/deep/odd.txt', [ 1, 2, 3 ].map( isOdd ).join( ' ' ) );
`, b.tar, b.digest))
	lock, secrets := npmLock(t, p, "ui")
	args := append([]string{"//ui"}, secrets...)
	first := p.build(args...)
	p.build("//ui").wantActions(t, 0, false)

	testArgs := append([]string{"//ui:js_test"}, args[1:]...)
	for _, want := range []string{"PASSED", "(cached) PASSED"} {
		got, _ := p.tests(0, testArgs...)
		wantStatus(t, got, map[string]string{"//ui:js_test": want})
	}
	p.write("ui/test/odd.js", strings.Replace(p.read("ui/test/odd.js"), "( 3 )", "( 4 )", 1))
	got, r := p.tests(3, testArgs...)
	wantStatus(t, got, map[string]string{"//ui:js_test": "FAILED"})
	r.want(t, 3, "AssertionError")

	out := filepath.Join(shortDir(t), "out")
	p.ok("//ui", "-o", "type=dir,dest="+out)
	if b, err := os.ReadFile(filepath.Join(out, "dist/deep/odd.txt")); err != nil || string(b) != "true false true" {
		t.Errorf("the script made %q, %v", b, err)
	}
	// A comment in the script: the step runs, and what it makes is the same.
	p.write("ui/src/build.js", p.read("ui/src/build.js")+"// a comment\n")
	if again := p.build(args...); again.digest(t, "//ui:ui") != first.digest(t, "//ui:ui") || again.Actions.Executed == 0 {
		t.Errorf("with a comment %v, %+v", again.digests(), again.Actions)
	}

	for _, test := range []struct{ name, from, to, says string }{
		{"tampered", `"integrity": "sha512-`, `"integrity": "sha512-AAAA`, "EINTEGRITY"},
		{"missing", `"version": "3.0.1"`, `"version": "3.0.999"`, "npm error"},
	} {
		changed := strings.ReplaceAll(lock, test.from, test.to)
		if changed == lock {
			t.Fatalf("%s: the lock has no %s:\n%s", test.name, test.from, lock)
		}
		p.write("ui/package-lock.json", changed)
		p.fails(1, []string{"//ui:ui: the command failed", test.says}, args...)
	}
	p.write("ui/package-lock.json", lock)
	manifest := p.read("ui/package.json")
	p.write("ui/package.json", strings.Replace(manifest, "3.0.1", "2.0.0", 1))
	p.fails(1, []string{"//ui:ui: the command failed", "npm ci", "in sync"}, args...)
	p.write("ui/package.json", strings.Replace(manifest, `"build":`, `"bild":`, 1))
	p.fails(1, []string{"//ui:ui", "build"}, args...)
}
