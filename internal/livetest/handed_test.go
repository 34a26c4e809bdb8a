//go:build live

package livetest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/ssh/agent"
)

const secretWorkspace = `
-- BUILD --
image_import(name = "base", BASE)
genrule(
    name = "file",
    outs = ["out"],
    cmd = "cat /run/secrets/token | wc -c > $OUT; echo the token is $(cat /run/secrets/token), it is; cat /run/secrets/token >&2; stat -c %a:%u /run/secrets/token >> $OUT",
    secrets = {"token": "/run/secrets/token"},
    image = ":base",
)
genrule(
    name = "variable",
    outs = ["out"],
    cmd = "printf %s $TOKEN | wc -c > $OUT; echo $TOKEN",
    secrets = {"token": "TOKEN"},
    keyed_secrets = ["token"],
    image = ":base",
)
genrule(
    name = "failing",
    outs = ["out"],
    cmd = "echo this is $TOKEN; exit 3",
    secrets = {"token": "TOKEN"},
    image = ":base",
)
`

// A secret reaches the step, and nothing else: neither the cache with all its blobs, records, logs and the engine's state,
// nor what mwbuild prints, nor a process's arguments. Another value runs what asked for its digest, and nothing else.
func TestSecrets(t *testing.T) {
	t.Parallel()
	p := workspace(t, secretWorkspace)
	const first, second = "correct-horse-battery-1", "correct-horse-battery-22"
	p.fails(1, []string{`BUILD:2:1: //:file: the command needs the secret "token", which was not given`, "--secret id=token,src=FILE"}, "//:file")
	p.fails(1, []string{"//:variable", `the secret "token"`, "--secret id=token,src=FILE"}, "//:variable")
	p.fails(2, []string{"--secret id=token,src=no-such-file", "no such file"}, "//:file", "--secret", "id=token,src=no-such-file")
	p.fails(2, []string{"NO_SUCH_VARIABLE is not set"}, "//:file", "--secret", "id=token,env=NO_SUCH_VARIABLE")

	keep := filepath.Join(shortDir(t), "token")
	if err := os.WriteFile(keep, []byte(first+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	src := "id=token,src=" + keep
	out := p.ok("//:file", "//:variable", "--secret", src, "--output=json", "--progress=plain", "--debug")
	if r := parseReport(t, out.stdout); r.Actions.Executed != 2 {
		t.Errorf("first build: %+v", r.Actions)
	}
	if !strings.Contains(out.stderr, "the token is ***, it is") {
		t.Errorf("the step's own words are missing:\n%s", out.stderr)
	}
	log := p.ok("log", "//:file")
	if log.stdout != "the token is ***, it is\n***\n" && log.stdout != "***\nthe token is ***, it is\n" {
		t.Errorf("mwbuild log: %q", log.stdout)
	}
	failed := p.fails(1, []string{"exit code 3", "this is ***"}, "//:failing", "--secret", src)
	for _, s := range []string{out.stdout, out.stderr, failed.stderr, failed.stdout, p.ok("explain", "//:variable", "--all", "--secret", src).stdout} {
		if strings.Contains(s, first) {
			t.Errorf("the secret was printed:\n%s", s)
		}
	}

	// A second engine with an empty cache of its own stands for another machine; here the same one goes on.
	p.build("//:file", "//:variable", "--secret", src).wantActions(t, 0, false)
	p.env = append(p.env, "THE_TOKEN="+second)
	p.build("//:file", "--secret", "id=token,env=THE_TOKEN").wantActions(t, 0, false)
	p.build("//:file").wantActions(t, 0, false) // what is there needs no secret
	rotated := p.build("//:file", "//:variable", "--secret", "id=token,env=THE_TOKEN")
	rotated.wantActions(t, 1, true)
	dir := filepath.Join(shortDir(t), "out")
	p.ok("//:variable", "-o", "type=dir,dest="+dir, "--secret", "id=token,env=THE_TOKEN")
	if b, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || strings.TrimSpace(string(b)) != "24" {
		t.Errorf("the rotated secret had length %q, %v; want 24: the engine must not hand back what it had", b, err)
	}
	for _, value := range []string{first, second} {
		wantNowhere(t, p.cache, []byte(value))
	}
}

// wantNowhere looks for value in every file below dir, and in what is compressed there.
func wantNowhere(t *testing.T, dir string, value []byte) {
	t.Helper()
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	files := 0
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if plain, err := d.DecodeAll(b, nil); err == nil {
			b = append(b, plain...)
		}
		if bytes.Contains(b, value) {
			t.Errorf("%s holds the secret", path)
		}
		return nil
	})
	if err != nil || files < 20 {
		t.Errorf("looked into %d files: %v", files, err)
	}
}

// A step asks an agent that runs here, and only where it was handed in.
func TestSSH(t *testing.T) {
	t.Parallel()
	p := workspace(t, `
-- BUILD --
image_import(name = "base", BASE)
genrule(name = "asks", outs = ["out"], cmd = "test -S $SSH_AUTH_SOCK; stat -c %F $SSH_AUTH_SOCK > $OUT", ssh = ["default"], image = ":base")
`)
	p.fails(1, []string{`//:asks: the command needs the ssh agent "default", which was not given`, "--ssh default"}, "//:asks")
	p.fails(2, []string{"--ssh default: no agent runs"}, "//:asks", "--ssh", "default")

	keys := agent.NewKeyring()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err == nil {
		err = keys.Add(agent.AddedKey{PrivateKey: key, Comment: "a key of the test"})
	}
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(shortDir(t), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(keys, c)
		}
	}()
	p.build("//:asks", "--ssh", "default="+socket).wantActions(t, 1, true)
	p.build("//:asks").wantActions(t, 0, false)
}

// A cache outlives its step, and a step that takes too long is ended, with its log kept.
func TestCachesTimeoutsAndBuildArgs(t *testing.T) {
	t.Parallel()
	p := workspace(t, `
-- BUILD --
image_import(name = "base", BASE)
genrule(name = "one", outs = ["n"], cmd = "echo x >> /var/cache/n; wc -l < /var/cache/n > $OUT", caches = {"/var/cache": "count"}, image = ":base")
genrule(name = "two", outs = ["n"], cmd = "echo y >> /else/n; wc -l < /else/n > $OUT", caches = {"/else": "count"}, image = ":base")
genrule(name = "slow", outs = ["n"], cmd = "echo it begins; sleep 600.25; echo > $OUT", timeout = "2s", image = ":base")
genrule(name = "args", outs = ["n"], cmd = "echo $VERSION > $OUT", build_args = {"VERSION": "1"}, image = ":base")
`)
	content := func(label string, more ...string) string {
		t.Helper()
		dir := filepath.Join(shortDir(t), "out")
		p.ok(append([]string{label, "-o", "type=dir,dest=" + dir}, more...)...)
		b, err := os.ReadFile(filepath.Join(dir, "n"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if got := content("//:one") + content("//:two"); got != "12" {
		t.Errorf("the two steps found %q lines in their cache, want 1 and 2", got)
	}
	p.build("//:one", "//:two").wantActions(t, 0, false)

	begun := time.Now()
	p.fails(1, []string{"BUILD:4:1: //:slow: the command was still running after 2s", "mwbuild log //:slow"}, "//:slow")
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("it took %s to end", took)
	}
	if log := p.ok("log", ":slow"); log.stdout != "it begins\n" || !strings.Contains(log.stderr, "//:slow run, ended") {
		t.Errorf("mwbuild log: %q, %q", log.stdout, log.stderr)
	}
	p.fails(1, []string{"//:args: no step of it ran in this workspace"}, "log", "//:args")

	if got := content("//:args") + content("//:args", "--build-arg", "VERSION=2") + content("//:args", "--build-arg=VERSION=1"); got != "121" {
		t.Errorf("build arguments gave %q, want 1, 2, 1", got)
	}
	p.build("//:args", "--build-arg", "VERSION=2").wantActions(t, 0, false)
	if r := p.ok("//:args", "--build-arg", "VERSON=2"); !strings.Contains(r.stderr, "did you mean VERSION?") {
		t.Errorf("a mistyped build argument passes without a word:\n%s", r.stderr)
	}
}
