//go:build live

package livetest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// blubberApt has users, folders, packages, arguments, a builder, and copies of all kinds.
const blubberApt = `
-- WORKSPACE --
-- BUILD --
debian_image(name = "base", suite = "@SUITE@", slim = True, packages = ["apt", "ca-certificates"], visibility = ["//visibility:public"])
-- app/BUILD --
blubber_image(
    name = "service",
    variant = "production",
    bases = {"registry.example/debian:1": "//:base"},
    base_env = {"PATH": "/usr/bin:/bin"},
    arguments = {"GREETING": "good morning"},
)
blubber_image(name = "bare", variant = "bare", bases = {"registry.example/debian:1": "//:base"}, base_env = {"PATH": "/usr/bin:/bin"}, arguments = {"GREETING": "good morning"})
-- app/.pipeline/blubber.yaml --
version: v4
apt:
  packages: [netbase]
  sources: [{ url: "@MIRROR@", distribution: "@SUITE@", components: [main] }]
lives: { in: /srv/service, as: deploy, uid: 1001, gid: 1002 }
runs: { as: web, uid: 901, gid: 902, environment: { PATH: "/srv/service/bin:${PATH}" } }
variants:
  common:
    base: registry.example/debian:1
    arguments: { GREETING: hello }
  build:
    includes: [common]
    builder:
      caches: [cache, { destination: "${HOME}/cache", id: words, access: locked }]
      requirements: [Makefile, src/, { from: local, source: conf.production, destination: etc/conf }]
      command: [sh, -c, 'set -e; touch cache/x $HOME/cache/x; id -u > ids; id -g >> ids; cat src/deep/b Makefile etc/conf > made; echo "$PATH, $HOME, $GREETING" >> made; ln -s made link; mkdir empty; chmod +x ids; echo lib > /opt/lib/lib']
  production:
    includes: [common]
    apt:
      packages: { default: [hello] }
      proxies: [{ url: "http://127.0.0.1:9", source: "http://nothing.example" }]
    runs: { environment: { WHO: "${GREETING}, world" }, in: /srv/service/etc }
    copies:
      - build
      - { from: local, source: ., destination: ./all/, exclude: [src/deep] }
      - { from: build, source: made, destination: /usr/local/bin/made }
      - { from: local, source: src/a, destination: /usr/local/share/ }
    entrypoint: [/bin/sh, -c, 'id -u; id -g; pwd; echo "$WHO, $HOME, $PATH"; hello -t; grep -c . /etc/protocols; cat made ../made; touch /srv/service/x || true']
  bare:
    base: null
    copies: [{ from: build, source: made, destination: /made }, { from: local, source: src/, destination: ./ }]
    entrypoint: [/made]
-- app/.dockerignore --
*.md
-- app/Makefile --
all:
-- app/README.md --
-- app/conf.production --
production
-- app/src/a --
a
-- app/src/deep/b --
b
`

// listing is the modes, owners and kinds of what lies in folders of an unpacked image.
func listing(t *testing.T, bundle string, paths ...string) string {
	t.Helper()
	args := append([]string{}, paths...)
	args = append(args, "-printf", "%m %U:%G %y %p %l\n")
	all := lines(command(t, filepath.Join(bundle, "rootfs"), "find", args...))
	for i := range all {
		all[i] = strings.TrimRight(all[i], " ")
	}
	return strings.Join(all, "\n")
}

// mirror is an archive of Debian that this machine's apt uses, and the release that it is of.
func mirror(t *testing.T) (url, suite string) {
	t.Helper()
	release := regexp.MustCompile(`(?m)^VERSION_CODENAME=(.*)$`).FindStringSubmatch(string(must(os.ReadFile("/etc/os-release"))))
	if release == nil {
		t.Fatal("this machine's Debian has no name")
	}
	list := func() []string {
		return lines(command(t, "", "apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: "+release[1], "Component: main", "Origin: Debian", "Created-By: Packages"))
	}
	all := list()
	if len(all) == 0 || all[0] == "" { // a machine that never asked does not know its archives yet
		command(t, "", "apt-get", "-qq", "update")
		all = list()
	}
	if len(all) == 0 || all[0] == "" {
		t.Fatal("apt has no archive of Debian")
	}
	return strings.TrimSuffix(all[0], "/"), release[1]
}

func imageConfig(t *testing.T, layout string) map[string]any {
	t.Helper()
	var index, manifest struct {
		Manifests []struct{ Digest string }
		Config    struct{ Digest string }
	}
	var config struct{ Config map[string]any }
	for _, step := range []struct {
		file func() string
		into any
	}{
		{func() string { return filepath.Join(layout, "index.json") }, &index},
		{func() string { return blobIn(layout, index.Manifests[0].Digest) }, &manifest},
		{func() string { return blobIn(layout, manifest.Config.Digest) }, &config},
	} {
		if err := json.Unmarshal(must(os.ReadFile(step.file())), step.into); err != nil {
			t.Fatal(err)
		}
	}
	return config.Config
}

// What Blubber's documentation says of each key, of what was built.
func TestBlubberApt(t *testing.T) {
	t.Parallel()
	url, suite := mirror(t)
	p := newPlace(t, shortDir(t))
	for _, f := range txtar.Parse([]byte(strings.NewReplacer("@SUITE@", suite, "@MIRROR@", url).Replace(blubberApt))).Files {
		p.write(f.Name, string(f.Data))
	}
	p.ok("lock")
	first := p.build("//app:service", "//app:bare")
	p.build("//app:service", "//app:bare").wantActions(t, 0, false)

	bundle := unpackImage(t, p, "//app:service")
	want := `755 0:0 d srv
755 1001:1002 d srv/service
755 1001:1002 d srv/service/all
755 1001:1002 d srv/service/all/src
755 1001:1002 d srv/service/empty
755 1001:1002 d srv/service/etc
755 1001:1002 d srv/service/src
755 1001:1002 d srv/service/src/deep
755 1001:1002 f srv/service/ids
644 1001:1002 f srv/service/all/.dockerignore
644 1001:1002 f srv/service/all/.pipeline/blubber.yaml
644 1001:1002 f srv/service/all/Makefile
644 1001:1002 f srv/service/all/conf.production
644 1001:1002 f srv/service/all/src/a
644 1001:1002 f srv/service/Makefile
644 1001:1002 f srv/service/etc/conf
644 1001:1002 f srv/service/made
644 1001:1002 f srv/service/src/a
644 1001:1002 f srv/service/src/deep/b
777 1001:1002 l srv/service/link made
755 1001:1002 d srv/service/all/.pipeline
755 0:0 d usr/local/bin
644 1001:1002 f usr/local/bin/made
644 1001:1002 f usr/local/share/a
755 1001:1002 d opt/lib
644 1001:1002 f opt/lib/lib
755 901:902 d home/web
755 1001:1002 d home/deploy`
	got := listing(t, bundle, "srv", "usr/local/bin", "usr/local/share/a", "opt/lib", "home/web", "home/deploy")
	if !sameLines(got, want) {
		t.Errorf("the image holds\n%s\nwant\n%s", got, want)
	}
	for _, gone := range []string{"etc/apt/apt.conf.d/99blubber-proxies", "var/log/apt", "var/lib/apt/lists/lock", "srv/service/README.md"} {
		if _, err := os.Lstat(filepath.Join(bundle, "rootfs", gone)); err == nil {
			t.Errorf("%s is left", gone)
		}
	}
	if got := string(must(os.ReadFile(filepath.Join(bundle, "rootfs/etc/apt/sources.list.d/99blubber.list")))); got != fmt.Sprintf("deb %s %s main\n", url, suite) {
		t.Errorf("the list of sources is %q", got)
	}
	for _, line := range []string{"deploy:x:1001:1002::/home/deploy:/bin/sh", "web:x:901:902::/home/web:/bin/sh"} {
		if !strings.Contains(string(must(os.ReadFile(filepath.Join(bundle, "rootfs/etc/passwd")))), "\n"+line+"\n") {
			t.Errorf("/etc/passwd has no %s", line)
		}
	}
	if got := string(must(os.ReadFile(filepath.Join(bundle, "rootfs/srv/service/ids")))); got != "1001\n1002\n" {
		t.Errorf("the builder ran as %q", got)
	}

	// The application's folder is not whose runs it, and the folder of runs.in is where it starts.
	said := string(must(os.ReadFile(filepath.Join(bundle, "rootfs/srv/service/made"))))
	if want := "b\nall:\nproduction\n/srv/service/bin:/usr/bin:/bin, /home/deploy, good morning\n"; said != want {
		t.Errorf("the builder made %q, want %q", said, want)
	}
	config := imageConfig(t, filepath.Join(filepath.Dir(bundle), "layout"))
	delete(config, "Entrypoint")
	if d := cmp.Diff(map[string]any{
		"User": "901:902", "WorkingDir": "/srv/service/etc",
		"Env": []any{
			"DEBIAN_FRONTEND=noninteractive", "GREETING=good morning", "HOME=/home/web", "PATH=/srv/service/bin:/usr/bin:/bin", "WHO=good morning, world",
		},
		"Labels": map[string]any{"blubber.variant": "production", "org.opencontainers.image.title": "service"},
	}, config); d != "" {
		t.Errorf("the image's configuration: %s", d)
	}
	out := runImage(t, bundle)
	if !strings.HasPrefix(out, "901\n902\n/srv/service/etc\ngood morning, world, /home/web, /srv/service/bin:/usr/bin:/bin\nhello, world\n") {
		t.Errorf("it says %q", out)
	}

	bare := unpackImage(t, p, "//app:bare")
	if got, want := listing(t, bare, ".", "-mindepth", "1"), "755 0:0 d ./deep\n644 0:0 f ./a\n644 0:0 f ./deep/b\n644 0:0 f ./made"; !sameLines(got, want) {
		t.Errorf("the image on nothing has %s, want %s", got, want)
	}

	// Rules written in place of the configuration make the same image, byte for byte.
	p.write("app/BUILD", "")
	p.ok("-C", filepath.Join(p.dir, "app"), "gen", "--from-blubber", ".pipeline/blubber.yaml", "--variant=production,bare", "--base-env=PATH=/usr/bin:/bin", "--argument=GREETING=good morning")
	build := strings.ReplaceAll(p.read("app/BUILD"), `":base_debian_1"`, `"//:base"`)
	build = regexp.MustCompile(`(?s)image_import\(.*?\n\)\n`).ReplaceAllString(build, "")
	p.write("app/BUILD", strings.NewReplacer(`name = "production"`, `name = "service"`).Replace(build))
	second := p.build("//app:service", "//app:bare")
	for _, name := range []string{"//app:service", "//app:bare"} {
		if first.digest(t, name) != second.digest(t, name) {
			t.Errorf("%s is another image with rules of its own", name)
		}
	}
}

func sameLines(a, b string) bool {
	in := map[string]int{}
	for _, l := range lines(a) {
		in[l]++
	}
	for _, l := range lines(b) {
		in[l]--
	}
	for _, n := range in {
		if n != 0 {
			return false
		}
	}
	return true
}

// Node's packages from the registry, with a builder after them, in an order of their own; and PHP's from a repository here.
func TestBlubberPackages(t *testing.T) {
	t.Parallel()
	n, c := nodeBase(t), composerBase(t)
	p := workspace(t, fmt.Sprintf(`
-- BUILD --
image_import(name = "node", tar = %q, digest = %q, visibility = ["//visibility:public"])
image_import(name = "php", tar = %q, digest = %q, visibility = ["//visibility:public"])
-- ui/BUILD --
blubber_image(
    name = "ui",
    variant = "production",
    bases = {"registry.example/node": "//:node"},
    secrets = {"npmrc": "/home/somebody/.npmrc", "trusted": "/run/secrets/trusted"},
    timeout = "5m",
)
-- ui/.pipeline/blubber.yaml --
version: v4
base: registry.example/node
variants:
  build:
    builders:
      - node: { requirements: [package.json, package-lock.json], use-npm-ci: true, env: production, allow-dedupe-failure: true }
      - custom: { requirements: [src/], command: "npm run build" }
  production:
    copies: [build]
    node: { env: production }
    runs: { insecurely: true }
    entrypoint: [node, -e, "console.log(require('fs').readFileSync('dist/odd.txt', 'utf8'), process.env.NODE_ENV, process.getuid())"]
-- ui/package.json --
{"name": "ui", "version": "1.0.0", "private": true, "scripts": {"build": "node src/build.js"}, "dependencies": {"is-odd": "3.0.1"}, "devDependencies": {"is-even": "1.0.0"}}
-- ui/src/build.js --
const isOdd = require( 'is-odd' ), fs = require( 'fs' );
fs.mkdirSync( 'dist' );
fs.writeFileSync( 'dist/odd.txt', [ 1, 2, 3 ].map( isOdd ).join( ' ' ) );
-- app/BUILD --
blubber_image(name = "app", variant = "production", bases = {"registry.example/php": "//:php"}, network = False)
-- app/blubber-old.yaml --
-- app/.pipeline/blubber.yaml --
version: v4
base: registry.example/php
php: { requirements: [composer.json, lib/], production: true }
variants:
  production:
    copies: [{ from: local, source: main.php }]
    entrypoint: [php, main.php]
-- app/main.php --
<?php require 'vendor/autoload.php';
echo Our\Greeter::greet(), file_exists( 'vendor/our/tests' ) ? ' with tests' : '', "\n";
-- app/lib/greeter/composer.json --
{"name": "our/greeter", "version": "1.0.0", "autoload": {"psr-4": {"Our\\": "src/"}}}
-- app/lib/greeter/src/Greeter.php --
<?php namespace Our;
class Greeter { public static function greet() { return 'greetings'; } }
-- app/lib/tests/composer.json --
{"name": "our/tests", "version": "1.0.0"}
-- app/composer.json --
{"name": "our/app", "require": {"our/greeter": "1.0.0"}, "require-dev": {"our/tests": "1.0.0"},
 "repositories": [{"type": "path", "url": "lib/*", "options": {"symlink": false}}, {"packagist.org": false}]}
`, n.tar, n.digest, c.tar, c.digest))
	_, secrets := npmLock(t, p, "ui")
	first := p.build(append([]string{"//ui"}, secrets...)...)
	p.build("//ui").wantActions(t, 0, false)
	bundle := unpackImage(t, p, "//ui")
	if got := runImage(t, bundle); got != "true false true production 65533\n" {
		t.Errorf("the image of node says %q", got)
	}
	for _, left := range []string{"home/somebody/.npmrc", "home/somebody/.npm", "srv/app/node_modules/is-even", "run/secrets"} {
		if _, err := os.Lstat(filepath.Join(bundle, "rootfs", left)); err == nil {
			t.Errorf("the image has %s", left)
		}
	}
	// Packages are installed again only for a builder's own requirements.
	p.write("ui/src/build.js", strings.Replace(p.read("ui/src/build.js"), "1, 2, 3", "1, 2", 1))
	p.write("ui/README", "not copied")
	if again := p.build(append([]string{"//ui"}, secrets...)...); again.Actions.Kinds["run"].Executed != 3 || again.digest(t, "//ui:ui") == first.digest(t, "//ui:ui") {
		t.Errorf("after a change of what the second builder needs: %+v", again.Actions)
	}

	p.build("//app")
	if got := runImage(t, unpackImage(t, p, "//app")); got != "greetings\n" {
		t.Errorf("the image of PHP says %q", got)
	}
	p.write("app/.pipeline/blubber.yaml", strings.Replace(p.read("app/.pipeline/blubber.yaml"), "php: {", "python: {", 1))
	p.fails(1, []string{"app/BUILD:1:1: //app:app: config: app/.pipeline/blubber.yaml:3:1: python is not supported here"}, "//app")
}
