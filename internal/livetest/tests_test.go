//go:build live

package livetest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const testsWorkspace = `
-- BUILD --
image_import(name = "base", BASE, visibility = ["//visibility:public"])
-- a/BUILD --
sh_test(name = "script", src = "check.sh", srcs = ["words.txt"], args = ["some words"], image = "//:base", size = "small")
sh_test(name = "cmd", cmd = "echo in $PWD for $1; test ! -e words.txt; touch $TEST_TMPDIR/x", args = ["one"], image = "//:base", tags = ["quick"])
sh_test(name = "junit", argv = ["/bin/sh", "-c", "cp /src/a/cases.xml $XML_OUTPUT_FILE"], srcs = ["cases.xml"], image = "//:base")
test_suite(name = "quick", tests = [":script", ":cmd"], tags = ["quick"])
-- a/check.sh --
#!/bin/sh
echo "looking for $1"
grep -q "$1" words.txt || { echo "they are gone" >&2; exit 3; }
-- a/words.txt --
some words
-- a/cases.xml --
<testsuites><testsuite name="cases" tests="1"><testcase name="one case" time="0.1"/></testsuite></testsuites>
-- bad/BUILD --
sh_test(name = "fails", cmd = "for i in $(seq 100); do echo line $i; done; exit 7", image = "//:base")
sh_test(name = "hangs", cmd = "echo it begins; sleep 600.5", image = "//:base", timeout = "2s")
sh_test(name = "flaky", cmd = "echo attempt >> /left/n; test $(wc -l < /left/n) -ge 3", caches = {"/left": "flaky-attempts"}, flaky = True, image = "//:base")
-- needs/BUILD --
image_import(name = "gone", tar = "gone.tar", digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000")
sh_test(name = "none", cmd = "true", image = ":gone")
`

var seconds = regexp.MustCompile(` in [0-9.]+s$`)

// tests runs mwbuild test and returns its lines by label, without the seconds.
func (p *place) tests(code int, args ...string) (map[string]string, result) {
	p.t.Helper()
	r := p.run(append([]string{"test"}, args...)...)
	r.want(p.t, code)
	status := map[string]string{}
	for _, l := range lines(r.stdout) {
		lab, rest, _ := strings.Cut(l, " ")
		status[lab] = seconds.ReplaceAllString(rest, "")
	}
	return status, r
}

func wantStatus(t *testing.T, got, want map[string]string) {
	t.Helper()
	for lab, w := range want {
		if got[lab] != w {
			t.Errorf("%s is %q, want %q", lab, got[lab], w)
		}
	}
	for lab, g := range got {
		if _, ok := want[lab]; !ok {
			t.Errorf("%s is %q, and should not be there", lab, g)
		}
	}
}

// Tests that passed are not run again before something that they read changes; one changed file runs its tests alone.
func TestTests(t *testing.T) {
	t.Parallel()
	p := workspace(t, testsWorkspace)
	if err := os.Chmod(filepath.Join(p.dir, "a/check.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	// A build makes what tests need and runs none.
	p.ok("//bad/...", "//a/...")

	got, r := p.tests(0, "//a/...", "--test-output=all")
	wantStatus(t, got, map[string]string{"//a:script": "PASSED", "//a:cmd": "PASSED", "//a:junit": "PASSED"})
	r.want(t, 0, "log of //a:script:\nlooking for some words\n", "log of //a:cmd:\nin /src/a for one\n", "3 tests: 3 passed")
	junit := filepath.Join(shortDir(t), "junit.xml")
	got, r = p.tests(0, "//a/...", "--junit", junit)
	wantStatus(t, got, map[string]string{"//a:script": "(cached) PASSED", "//a:cmd": "(cached) PASSED", "//a:junit": "(cached) PASSED"})
	r.want(t, 0, "3 tests: 3 passed (3 cached)")
	xml, err := os.ReadFile(junit)
	if err != nil || !strings.Contains(string(xml), `<testcase name="one case" time="0.1"/>`) || !strings.Contains(string(xml), `name="script" classname="//a"`) {
		t.Errorf("JUnit's file: %v\n%s", err, xml)
	}

	p.write("a/words.txt", "other words\n")
	got, r = p.tests(3, "//a/...", "--junit", junit)
	wantStatus(t, got, map[string]string{"//a:script": "FAILED", "//a:cmd": "(cached) PASSED", "//a:junit": "(cached) PASSED"})
	r.want(t, 3, "a/BUILD:1:1: //a:script: the command failed with exit code 3", "they are gone", "3 tests: 2 passed (2 cached), 1 failed")
	if xml, _ := os.ReadFile(junit); !strings.Contains(string(xml), `<failure message="FAILED">`) || !strings.Contains(string(xml), "they are gone") {
		t.Errorf("JUnit's file lacks the failure:\n%s", xml)
	}
	p.write("a/words.txt", "some words\n")
	got, _ = p.tests(0, "//a:quick")
	wantStatus(t, got, map[string]string{"//a:cmd": "(cached) PASSED"})

	// More runs are runs, each time.
	for range 2 {
		r = p.run("test", "//a:cmd", "--runs=3", "--output=json")
		r.want(t, 0)
		var rep struct {
			Tests []struct {
				Label, Status string
				Cached        bool
				Runs, Failed  int
				Seconds       float64
			}
		}
		if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil {
			t.Fatal(err)
		}
		if len(rep.Tests) != 1 || rep.Tests[0].Runs != 3 || rep.Tests[0].Cached || rep.Tests[0].Status != "passed" || rep.Tests[0].Seconds == 0 {
			t.Errorf("three runs: %s", r.stdout)
		}
	}
	got, _ = p.tests(0, "//a:cmd", "--no-cache-results")
	wantStatus(t, got, map[string]string{"//a:cmd": "PASSED"})
	got, _ = p.tests(0, "//a:cmd")
	wantStatus(t, got, map[string]string{"//a:cmd": "(cached) PASSED"})
}

// What fails is told with the end of its log, and what hangs is ended in time, while the others go on.
func TestFailingTests(t *testing.T) {
	t.Parallel()
	p := workspace(t, testsWorkspace)
	p.ok("//bad/...") // the engine is there, and the image in it
	begun := time.Now()
	got, r := p.tests(3, "//bad/...", "//a:cmd")
	wantStatus(t, got, map[string]string{"//bad:fails": "FAILED", "//bad:hangs": "TIMEOUT", "//bad:flaky": "FLAKY, failed in 2 of 3 runs", "//a:cmd": "PASSED"})
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	r.want(t, 3, "//bad:fails: the command failed with exit code 7", "line 100", "//bad:hangs: the command was still running after 2s", "it begins",
		"4 tests: 1 passed, 1 flaky, 1 failed, 1 timed out")
	if strings.Contains(r.stderr, "line 10\n") {
		t.Errorf("the log is shown whole:\n%s", r.stderr)
	}
	if left := processes("sleep 600.5"); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	// What passed at last is kept; what failed is not.
	got, _ = p.tests(3, "//bad:fails", "//bad:flaky", "--test-output=summary")
	wantStatus(t, got, map[string]string{"//bad:fails": "FAILED", "//bad:flaky": "(cached) PASSED"})

	got, _ = p.tests(3, "//a:cmd", "//bad:fails", "--runs=2", "--timeout=30s")
	wantStatus(t, got, map[string]string{"//a:cmd": "PASSED in 2 runs", "//bad:fails": "FAILED, failed in 2 of 2 runs"})

	// What cannot be built for a test is no failure of the test.
	got, r = p.tests(1, "//needs:none", "//a:cmd")
	wantStatus(t, got, map[string]string{"//needs:none": "NO STATUS", "//a:cmd": "(cached) PASSED"})
	r.want(t, 1, "//needs:gone: ", "gone.tar")
}

const imageTestsWorkspace = `
-- BUILD --
image_import(name = "base", BASE)
layer(name = "pages", srcs = ["index.html", "secret.html"], prefix = "srv/www", owner = "0:0")
image(name = "web", base = ":base", layers = [":pages"], user = "900:900", workdir = "/srv/www", env = {"GREETING": "hello"})
image(name = "scratch", layers = [":pages"], user = "900:900")
image_test(
    name = "cmd",
    image = ":web",
    cmd = ["sh", "-c", "pwd; id -u; echo $GREETING $MORE; env | grep -c MWBUILD_; echo no >&2; exit 4"],
    env = {"MORE": "there"},
    exit_code = 4,
    stdout = ["^/srv/www\n900\nhello there\n0\n$"],
    stderr = ["^no$"],
)
image_test(
    name = "http",
    image = ":web",
    server = ["sh", "-c", "exec httpd -f -p 8080 -h /srv/www"],
    http = [
        http_request("/", expect = ["Wel+come"], refuse = ["Goodbye"], expect_headers = {"Content-Type": "^text/html"}),
        http_request("/none", status = 404),
    ],
)
image_test(
    name = "tree",
    image = ":scratch",
    tree = {"/srv/www/index.html": "file 0644 0:0", "/srv/www": "dir 0755", "/bin/sh": "absent"},
)
-- index.html --
Welcome
-- secret.html --
nothing
-- bad/BUILD --
image_test(
    name = "wrong",
    image = "//:web",
    cmd = ["sh", "-c", "echo what"],
    exit_code = 1,
    stdout = ["that"],
    server = ["sh", "-c", "exec httpd -f -p 8081 -h /srv/www"],
    port = 8081,
    http = [http_request("/", expect = ["Goodbye"], refuse = ["Welcome"], status = 301), http_request("/", method = "POST", status = 200)],
    tree = {"/srv/www/index.html": "link 0600 900:900", "/srv/none": "file", "/srv/www/secret.html": "absent"},
)
image_test(name = "ends", image = "//:web", server = ["sh", "-c", "echo I am leaving"], http = [http_request("/")])
image_test(name = "program", image = "//:web", cmd = ["no-such-program"])
`

// An image is looked at from inside, whether it has a shell or not: what its programs print, what its server answers, what it holds.
func TestImageTests(t *testing.T) {
	t.Parallel()
	p := workspace(t, strings.Replace(imageTestsWorkspace, "-- BUILD --", "-- BUILD --\npackage(default_visibility = [\"//visibility:public\"])", 1))
	all := map[string]string{"//:cmd": "PASSED", "//:http": "PASSED", "//:tree": "PASSED"}
	got, r := p.tests(0, "//:all", "--test-output=all")
	wantStatus(t, got, all)
	t.Logf("%s%s", r.stdout, r.stderr)
	p.write("index.html", "Wellcome\n")
	got, _ = p.tests(0, "//:all")
	wantStatus(t, got, all)
	got, _ = p.tests(0, "//:all")
	wantStatus(t, got, map[string]string{"//:cmd": "(cached) PASSED", "//:http": "(cached) PASSED", "//:tree": "(cached) PASSED"})

	got, r = p.tests(3, "//bad:all")
	wantStatus(t, got, map[string]string{"//bad:wrong": "FAILED", "//bad:ends": "FAILED", "//bad:program": "FAILED"})
	for _, says := range []string{
		"WRONG: /srv/none is not there, want file", "WRONG: /srv/www/index.html is file, want link", "WRONG: /srv/www/index.html is 0644, want 0600", "WRONG: /srv/www/index.html is 0:0, want 900:900",
		"WRONG: /srv/www/secret.html is there, and should not be", "WRONG: sh: exit code 0, want 1", `WRONG: stdout has no match of "that"`,
		"WRONG: GET /: status 200, want 301", `WRONG: GET /: body has no match of "Goodbye"`, "WRONG: POST /: status ",
		"WRONG: sh ended before it listened at port 8080: exit status 0", "I am leaving", "WRONG: no-such-program: exec: ",
	} {
		if !strings.Contains(r.stderr, says) {
			t.Errorf("it does not say %q", says)
		}
	}
	if t.Failed() {
		t.Logf("%s", r.stderr)
	}
	if left := processes("httpd -f -p 808"); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

const phpunitWorkspace = `
-- BUILD --
debian_image(name = "php", suite = "bookworm", packages = ["php-cli", "phpunit"], slim = True, visibility = ["//visibility:public"])
-- extensions/Sum/extension.json --
{"name": "Sum", "manifest_version": 2, "MessagesDirs": {"Sum": ["i18n"]}}
-- extensions/Sum/i18n/en.json --
{"@metadata": {"authors": []}, "sum-title": "Sum"}
-- extensions/Sum/i18n/qqq.json --
{"@metadata": {"authors": []}, "sum-title": "Title of the page"}
-- extensions/Sum/src/Sum.php --
<?php
namespace Sum;

class Sum {
	public static function of( int ...$numbers ): int {
		return array_sum( $numbers );
	}
}
-- extensions/Sum/tests/phpunit/bootstrap.php --
<?php
require_once __DIR__ . '/../../src/Sum.php';
-- extensions/Sum/tests/phpunit/unit/SumTest.php --
<?php
use PHPUnit\Framework\TestCase;
use Sum\Sum;

class SumTest extends TestCase {
	public function testEmpty(): void {
		$this->assertSame( 0, Sum::of() );
	}

	public function testSeveral(): void {
		$this->assertSame( 6, Sum::of( 1, 2, 3 ) );
	}
}
-- extensions/Sum/BUILD --
mw_extension(name = "Sum")

mw_lint_test(name = "lint", component = ":Sum", php_image = "//:php")

mw_phpunit_test(
    name = "unit_test",
    srcs = glob(["tests/phpunit/**"]),
    bootstrap = "tests/phpunit/bootstrap.php",
    component = ":Sum",
    php_image = "//:php",
    size = "small",
)
`

// PHPUnit's tests and PHP's own look at the code of an extension run in a base that is made from Debian's packages.
func TestPHPUnit(t *testing.T) {
	t.Parallel()
	p := workspace(t, phpunitWorkspace)
	p.ok("lock")
	got, _ := p.tests(0, "//...")
	wantStatus(t, got, map[string]string{"//extensions/Sum:lint": "PASSED", "//extensions/Sum:unit_test": "PASSED"})
	cached := map[string]string{"//extensions/Sum:lint": "(cached) PASSED", "//extensions/Sum:unit_test": "(cached) PASSED"}
	junit := filepath.Join(shortDir(t), "junit.xml")
	got, _ = p.tests(0, "//...", "--junit", junit)
	wantStatus(t, got, cached)
	if xml := string(must(os.ReadFile(junit))); !strings.Contains(xml, `name="testSeveral"`) || !strings.Contains(xml, `name="testEmpty"`) {
		t.Errorf("JUnit's file lacks PHPUnit's cases:\n%s", xml)
	}

	// A test alone is no runtime file: lint does not look at it.
	test := p.read("extensions/Sum/tests/phpunit/unit/SumTest.php")
	p.write("extensions/Sum/tests/phpunit/unit/SumTest.php", strings.Replace(test, "assertSame( 6", "assertSame( 7", 1))
	got, r := p.tests(3, "//...", "--junit", junit)
	wantStatus(t, got, map[string]string{"//extensions/Sum:lint": "(cached) PASSED", "//extensions/Sum:unit_test": "FAILED"})
	r.want(t, 3, "Failed asserting that 6 is identical to 7", "SumTest.php:")
	if xml := string(must(os.ReadFile(junit))); !strings.Contains(xml, "<failure") || !strings.Contains(xml, "Failed asserting that 6") {
		t.Errorf("JUnit's file lacks the failure:\n%s", xml)
	}
	p.write("extensions/Sum/tests/phpunit/unit/SumTest.php", test)
	got, _ = p.tests(0, "//...")
	wantStatus(t, got, cached)

	code := p.read("extensions/Sum/src/Sum.php")
	p.write("extensions/Sum/src/Sum.php", strings.Replace(code, "array_sum( $numbers )", "array_sum( $numbers", 1))
	got, r = p.tests(3, "//...")
	wantStatus(t, got, map[string]string{"//extensions/Sum:lint": "FAILED", "//extensions/Sum:unit_test": "FAILED"})
	r.want(t, 3, "Parse error: ", "src/Sum.php on line 6")
	p.write("extensions/Sum/src/Sum.php", code)

	p.write("extensions/Sum/i18n/de.json", `{"@metadata": {"authors": []}, "sum-title": "Summe",}`)
	got, r = p.tests(3, "//...")
	// A unit test reads the whole component.
	wantStatus(t, got, map[string]string{"//extensions/Sum:lint": "FAILED", "//extensions/Sum:unit_test": "PASSED"})
	r.want(t, 3, "extensions/Sum/i18n/de.json:1:")
}
