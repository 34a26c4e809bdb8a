//go:build live

package livetest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// site is a package of a real tree: a wiki of all of it, that can be run. @COMPONENTS@ is filled in.
const site = `
debian_image(
    name = "debian",
    suite = "bookworm",
    visibility = ["//visibility:public"],
    packages = ["php8.2-apcu", "php8.2-fpm", "php8.2-intl", "php8.2-mbstring", "php8.2-sqlite3", "php8.2-xml", "nginx-light"],
    slim = True,
)

wiki_server_image(name = "server", base = ":debian", php_version = "8.2")

mw_image(
    name = "wiki",
    base = ":server",
    core = "//:core",
    components = [@COMPONENTS@],
    l10n = "//:l10n",
    load_components = True,
    settings = "LocalSettings.php",
)

mw_debug_image(name = "debug", wiki = ":wiki")

mw_cli_image(name = "cli", wiki = ":wiki")

mw_wiki_test(
    name = "pages_test",
    http = [
        http_request("/index.php?title=Main_Page", expect = ["MediaWiki has been installed"], refuse = ["Fatal error"]),
        http_request("/index.php?title=Main_Page&uselang=de", expect = ["Hauptseite", "lang=\"de\""]),
        http_request("/index.php?title=Special:Version", expect = ["AbuseFilter", "MonoBook"]),
        http_request("/index.php?title=Nothing", status = 404),
        http_request("/api.php?action=query&meta=siteinfo&format=json", expect = ["\"sitename\":\"test\""], expect_headers = {"Content-Type": "application/json"}),
    ],
    image = ":wiki",
)
`

// addSite adds the package: with the components that //:wiki has.
func (p *place) addSite() {
	p.t.Helper()
	var components []string
	for _, l := range lines(p.ok("query", `kind("mw_component rule", deps(//:wiki, 1)) - //:core`).stdout) {
		components = append(components, fmt.Sprintf("%q", l))
	}
	if len(components) < 30 {
		p.t.Fatalf("//:wiki has only %q", components)
	}
	p.write("site/LocalSettings.php", "<?php\n$wgLanguageCode = getenv( 'WIKI_LANGUAGE' ) ?: 'en';\n")
	p.write("site/BUILD", strings.ReplaceAll(site, "@COMPONENTS@", strings.Join(components, ", ")))
}

// addLint adds a test to each extension and skin.
func (p *place) addLint() (tests []string) {
	p.t.Helper()
	for _, l := range lines(p.ok("query", `kind("mw_component rule", deps(//:wiki, 1)) - //:core - //vendor:all`).stdout) {
		pkg, name, _ := strings.Cut(strings.TrimPrefix(l, "//"), ":")
		file := pkg + "/BUILD"
		if _, err := os.Stat(filepath.Join(p.dir, file)); err != nil {
			file += ".star" // where there is a folder called build
		}
		p.write(file, p.read(file)+fmt.Sprintf("\nmw_lint_test(name = \"lint\", component = \":%s\", php_image = \"//site:debian\")\n", name))
		tests = append(tests, "//"+pkg+":lint")
	}
	return tests
}

// A wiki that runs.
type runningWiki struct {
	t       *testing.T
	s       *started
	address string
	client  *http.Client
}

var (
	addressLine  = regexp.MustCompile(`(?m)^http://127\.0\.0\.1:\d+/$`)
	passwordLine = regexp.MustCompile(`user Admin, password (\S+)`)
)

func (p *place) runWiki(t *testing.T, args ...string) *runningWiki {
	t.Helper()
	target := "//site:wiki"
	if len(args) > 0 && strings.HasPrefix(args[0], "//") {
		target, args = args[0], args[1:]
	}
	w := &runningWiki{t: t, s: p.start(append([]string{"run", target}, args...)...)}
	stat := fmt.Sprintf("/proc/%d/stat", w.s.cmd.Process.Pid)
	until(t, 5*time.Minute, "the wiki's address", func() bool {
		w.address = strings.TrimSuffix(addressLine.FindString(w.s.out.String()), "/")
		state, err := os.ReadFile(stat)
		return w.address != "" || err != nil || strings.Contains(string(state), ") Z ")
	})
	if w.address == "" {
		t.Fatalf("it ended:\n%s%s", w.s.out.String(), w.s.errout.String())
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.client = &http.Client{Jar: jar}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the wiki said:\n%s", w.s.errout.String())
		}
	})
	return w
}

// stop ends it, as Ctrl-C does.
func (w *runningWiki) stop() {
	w.t.Helper()
	if err := w.s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		w.t.Error(err)
	}
	if r := w.s.wait(); r.code != 0 {
		w.t.Errorf("exit code %d after Ctrl-C\n%s", r.code, r.stderr)
	}
}

// complaints looks for any of PHP's in the log.
func (w *runningWiki) complaints() {
	w.t.Helper()
	if found := phpComplains(w.s.errout.String()); len(found) > 0 {
		w.t.Errorf("PHP complains: %q", found)
	}
}

func phpComplains(log string) []string {
	return regexp.MustCompile(`PHP (Warning|Notice|Deprecated|Fatal|Parse).*`).FindAllString(log, -1)
}

func (w *runningWiki) page(query string) string {
	w.t.Helper()
	res, err := w.client.Get(w.address + "/index.php?" + query)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		w.t.Errorf("%s: %s, %v\n%.2000s", query, res.Status, err, b)
	}
	return string(b)
}

// api posts to MediaWiki's API and returns the answer.
func (w *runningWiki) api(values ...string) map[string]any {
	w.t.Helper()
	form := url.Values{"format": {"json"}, "formatversion": {"2"}}
	for i := 0; i < len(values); i += 2 {
		form.Set(values[i], values[i+1])
	}
	res, err := w.client.PostForm(w.address+"/api.php", form)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	var m map[string]any
	if err != nil || json.Unmarshal(b, &m) != nil || m["error"] != nil {
		w.t.Fatalf("%q: %s %v\n%.3000s", values, res.Status, err, b)
	}
	return m
}

// token is one of the API's.
func (w *runningWiki) token(kind string) string {
	w.t.Helper()
	m := w.api("action", "query", "meta", "tokens", "type", kind)
	return m["query"].(map[string]any)["tokens"].(map[string]any)[kind+"token"].(string)
}

func (w *runningWiki) wantPage(query string, says ...string) {
	w.t.Helper()
	page := w.page(query)
	for _, s := range says {
		if !strings.Contains(page, s) {
			w.t.Errorf("%s lacks %q\n%.1500s", query, s, page)
		}
	}
}

// One command starts a wiki of the real tree: every extension and skin, languages that were compiled here, an edit that is still there after
// a restart, and a translation that is seen after the next.
func TestRunWiki(t *testing.T) {
	p := copyMediaWiki(t)
	p.addSite()
	p.ok("lock", "//site:all")
	p.fails(1, []string{"//site:wiki has no database yet: start it once, with mwbuild run //site:wiki"}, "run", "//site:cli", "--", "version")
	w := p.runWiki(t)
	password := passwordLine.FindStringSubmatch(w.s.errout.String())
	if password == nil {
		t.Fatalf("no password is told:\n%s", w.s.errout.String())
	}

	t.Run("pages", func(t *testing.T) {
		w.wantPage("title=Main_Page", `lang="en"`, "MediaWiki has been installed")
		w.wantPage("title=Main_Page&uselang=de", `lang="de"`, "Hauptseite", "Letzte Änderungen")
		w.wantPage("title=Main_Page&uselang=ar", `lang="ar"`, `dir="rtl"`, "أحدث التغييرات")
		w.wantPage("title=Main_Page&uselang=sr-el", "Skorašnje izmene")
		w.wantPage("title=Special:Version", "Cite", "AbuseFilter", "Scribunto", "Vector", "MonoBook", "8.2.")
		w.wantPage("title=Special:Version&useskin=monobook", "skin-monobook")
		w.wantPage("title=Special:Version&useskin=vector", "skin-vector")
		w.wantPage("title=Special:SpecialPages&uselang=de", "Spezialseiten")
		w.wantPage("title=Special:AbuseFilter", "Abuse filter")
	})
	t.Run("resources", func(t *testing.T) {
		res, err := w.client.Get(w.address + "/load.php?lang=de&modules=startup&only=scripts&raw=1&skin=vector-2022")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || !strings.Contains(string(b), "mw.loader.register") {
			t.Errorf("load.php: %s, %v %.500s", res.Status, err, b)
		}
	})
	w.api("action", "login", "lgname", "Admin", "lgpassword", password[1], "lgtoken", w.token("login"))
	text := "A line of ''ours'' with a note<ref>the note</ref> and {{#expr: 6*7}} things.\n<references/>"
	edit := w.api("action", "edit", "title", "Ours", "text", text, "token", w.token("csrf"))
	if r, _ := edit["edit"].(map[string]any); r["result"] != "Success" {
		t.Errorf("the edit: %v", edit)
	}
	w.wantPage("title=Ours", "A line of <i>ours</i>", "the note", "42 things")
	p.fails(1, []string{"//site:wiki runs already: end that one first"}, "run", "//site:wiki", "--fresh")
	p.fails(1, []string{"//site:wiki runs already: end that one first"}, "run", "//site:debug")
	p.fails(2, []string{"//site:cli has no database of its own: mwbuild run --fresh //site:wiki"}, "run", "--fresh", "//site:cli")
	// Scripts run beside it, on its database.
	if r := p.ok("run", "//site:cli", "--", "showSiteStats"); !regexp.MustCompile(`(?m)^Total edits *: 2$`).MatchString(r.stdout) {
		t.Errorf("the script says %s", r.stdout)
	}
	w.stop()
	w.complaints()

	// A translation: saved, built, started again, seen; what was written is still there.
	begun := time.Now()
	p.replace("languages/i18n/de.json", `"recentchanges": "Letzte Änderungen"`, `"recentchanges": "Ganz frische Änderungen"`)
	w = p.runWiki(t, "--env", "WIKI_LANGUAGE=de")
	w.wantPage("title=Ours", "42 things")
	w.wantPage("title=Main_Page&uselang=de", "Ganz frische Änderungen")
	t.Logf("from saving to seeing: %v", time.Since(begun).Round(time.Millisecond))
	// Of a wiki in German special pages and namespaces have German names.
	w.wantPage("title=Spezial:Letzte_%C3%84nderungen", `lang="de"`, "Ganz frische Änderungen", `href="/index.php?title=Spezial:Spezialseiten"`)
	w.wantPage("title=Ours", "title=Diskussion:Ours")
	w.stop()

	t.Run("variants", func(t *testing.T) {
		built := p.build("//site:wiki", "//site:debug", "//site:cli")
		wiki, debug, cli := p.layers(t, "//site:wiki"), p.layers(t, "//site:debug"), p.layers(t, "//site:cli")
		if !slices.Equal(cli, wiki) {
			t.Errorf("the layers of the image for scripts are not the wiki's: %q, %q", cli, wiki)
		}
		if len(debug) != len(wiki)+1 || !slices.Equal(debug[:len(wiki)], wiki) {
			t.Errorf("the layers for debugging are not the wiki's and one more: %q, %q", debug, wiki)
		}
		if built.digest(t, "//site:cli") == built.digest(t, "//site:wiki") {
			t.Error("the image for scripts is the wiki")
		}
		// A folder of the tree stands over that of the image, and each change of it is seen at once.
		w := p.runWiki(t, "//site:debug", "--volume", filepath.Join(p.dir, "extensions/Cite")+":/srv/mediawiki/extensions/Cite:ro")
		w.wantPage("title=Ours", "the note", "42 things")
		file := "extensions/Cite/extension.json"
		was := p.read(file)
		p.write(file, strings.Replace(was, `"name": "Cite"`, `"name": "Cite at work"`, 1))
		w.wantPage("title=Special:Version", "Cite at work")
		p.write(file, was)
		w.stop()
	})

	t.Run("tests", func(t *testing.T) {
		all := map[string]string{"//site:pages_test": "PASSED"}
		for _, l := range p.addLint() {
			all[l] = "PASSED"
		}
		if len(all) < 35 {
			t.Errorf("there are only %d tests", len(all))
		}
		got, _ := p.tests(0, "//...")
		wantStatus(t, got, all)
		for l := range all {
			all[l] = "(cached) PASSED"
		}
		got, _ = p.tests(0, "//...")
		wantStatus(t, got, all)
		// One file: its tests, and those of the wiki that it is in.
		p.write("extensions/Cite/src/Cite.php", p.read("extensions/Cite/src/Cite.php")+"// a comment\n")
		all["//extensions/Cite:lint"], all["//site:pages_test"] = "PASSED", "PASSED"
		got, _ = p.tests(0, "//...")
		wantStatus(t, got, all)
	})

	// A new one knows nothing of it.
	w = p.runWiki(t, "--fresh")
	if res, err := w.client.Get(w.address + "/index.php?title=Ours"); err != nil || res.StatusCode != 404 {
		t.Errorf("a fresh wiki has the page: %v %v", res, err)
	}
	w.stop()
}

// The same with MediaWiki 1.39, and all of it in German.
func TestRunOlderWiki(t *testing.T) {
	p := copyTree(t, bookworm(t))
	p.addSite()
	p.ok("lock", "//site:all")
	w := p.runWiki(t, "--env", "WIKI_LANGUAGE=de")
	w.wantPage("title=Main_Page", `lang="de"`, "Letzte Änderungen", "Hauptseite")
	w.wantPage("title=Spezial:Letzte_%C3%84nderungen", "Auf dieser Seite")
	w.wantPage("title=Spezial:Version&uselang=ar&useskin=timeless", `dir="rtl"`, "1.39.", "Scribunto")
	if r := p.ok("run", "//site:cli", "--", "maintenance/showSiteStats.php"); !strings.Contains(r.stdout, "Total edits") {
		t.Errorf("the script says %s", r.stdout)
	}
	w.stop()
	w.complaints()
}

const programs = `
-- BUILD --
image_import(name = "base", BASE)
layer(name = "files", srcs = ["hello.txt"], prefix = "srv")
image(name = "program", base = ":base", layers = [":files"], entrypoint = ["/bin/sh", "-c", "id -u; cat /srv/hello.txt; echo \"$@\"; echo $MORE; touch /srv/x || touch /tmp/x; exit 7", "sh"], cmd = ["one"], user = "900:900")
image(name = "stdin", base = ":base", entrypoint = ["/bin/cat"], user = "900:900")
image(name = "server", base = ":base", layers = [":files"], entrypoint = ["/bin/sh", "-c", "exec busybox httpd -f -p 8080 -h /srv"], ports = ["8080/tcp"], user = "900:900")
image_run(name = "changed", base = ":base", cmd = "busybox rm /bin/seq; busybox mkdir /opaque; echo x > /opaque/y")
image(name = "deleted", base = ":changed", entrypoint = ["/bin/ls", "/bin/seq", "/opaque"], user = "900:900")
image(name = "none", layers = [":files"])
-- hello.txt --
hello
`

// Programs of images: as their users, with what they are given, and their exit codes.
func testPrograms(t *testing.T, p *place) {
	r := p.run("run", "//:program")
	if want := "900\nhello\none\n\n"; r.code != 7 || r.stdout != want || !strings.Contains(r.stderr, "Read-only file system") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	p.write("given/f", "given\n")
	r = p.run("run", "//:program", "--env", "MORE=of it", "--volume", filepath.Join(p.dir, "given/f")+":/srv/hello.txt:ro", "--", "two", "three")
	if want := "900\ngiven\ntwo three\nof it\n"; r.code != 7 || r.stdout != want {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	cmd := p.cmd("run", "//:stdin")
	cmd.Stdin = strings.NewReader("through\n")
	if out, err := cmd.Output(); string(out) != "through\n" || err != nil {
		t.Errorf("its standard input: %q, %v", out, err)
	}
	r = p.run("run", "//:deleted")
	if r.code == 0 || !strings.Contains(r.stderr, "/bin/seq: No such file") || !strings.Contains(r.stdout, "y\n") {
		t.Errorf("what was deleted: %d %s%s", r.code, r.stdout, r.stderr)
	}
	p.fails(2, []string{"the image has no program"}, "run", "//:none")
	p.fails(2, []string{"is no image"}, "run", "//:files")
	p.fails(2, []string{"--fresh: //:program is no wiki"}, "run", "//:program", "--fresh")
	p.fails(2, []string{"want one target"}, "run", "//:program", "//:stdin")
	p.fails(2, []string{"--port x"}, "run", "//:server", "--port", "x")

	_, port, _ := strings.Cut(freePort(t), ":")
	s := p.start("run", "//:server", "--port", port)
	until(t, 30*time.Second, "the address", func() bool { return strings.Contains(s.out.String(), "http://127.0.0.1:"+port+"/\n") })
	for range 3 {
		res, err := http.Get("http://127.0.0.1:" + port + "/hello.txt")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if string(b) != "hello\n" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
	// What is in use is not removed.
	p.ok("clean")
	if left := unpackedLayers(p); len(left) == 0 {
		t.Error("clean removed layers that a container uses")
	}
	// The same again, beside it; and what a killed mwbuild leaves behind.
	other := p.start("run", "//:server")
	until(t, 30*time.Second, "the other address", func() bool { return addressLine.MatchString(other.out.String()) })
	if left := processes("busybox httpd -f -p 8080"); len(left) != 2 {
		t.Errorf("servers: %v", left)
	}
	other.cmd.Process.Kill()
	other.wait()
	until(t, 10*time.Second, "the killed one's server is gone", func() bool { return len(processes("busybox httpd -f -p 8080")) == 1 })
	s.cmd.Process.Signal(syscall.SIGINT)
	if r := s.wait(); r.code != 0 {
		t.Errorf("exit code %d after Ctrl-C: %s", r.code, r.stderr)
	}
	if left := processes("busybox httpd -f -p 8080"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if len(unpackedLayers(p)) == 0 {
		t.Error("no layer is kept unpacked")
	}
	p.ok("clean")
	if left := unpackedLayers(p); len(left) > 0 {
		t.Errorf("after clean: %v", left)
	}
}

// unpackedLayers are the folders of layers that lie unpacked.
func unpackedLayers(p *place) []string {
	found, _ := filepath.Glob(filepath.Join(p.cache, "run/layers/*"))
	return slices.DeleteFunc(found, func(f string) bool { return filepath.Base(f) == "lock" })
}

func TestRunProgram(t *testing.T) {
	testPrograms(t, workspace(t, programs))
}
