package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRunPorts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, busy, _ := net.SplitHostPort(taken.Addr().String())
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	exposed := func(ports ...string) map[string]struct{} {
		m := map[string]struct{}{}
		for _, p := range ports {
			m[p] = struct{}{}
		}
		return m
	}
	for _, c := range []struct {
		flags   []string
		exposed map[string]struct{}
		want    string // HOST>CONTAINER, ? for any other port than the taken one
		fails   string
	}{
		{nil, nil, "", ""},
		{nil, exposed(own + "/tcp"), own + ">" + own, ""},
		{nil, exposed(own), own + ">" + own, ""},
		{nil, exposed("53/udp"), "", ""},
		{nil, exposed(busy + "/tcp"), "?>" + busy, ""},
		{[]string{own}, exposed("80/tcp"), own + ">80", ""},
		{[]string{"0"}, exposed("80/tcp"), "?>80", ""},
		{[]string{own + ":81"}, exposed("80/tcp", "81/tcp"), "?>80 " + own + ">81", ""},
		{[]string{own + ":9"}, nil, own + ">9", ""},
		{[]string{busy}, exposed("80/tcp"), "", "--port"},
		{[]string{own}, exposed("80/tcp", "81/tcp"), "", "say which"},
		{[]string{"x"}, exposed("80/tcp"), "", "in numbers"},
		{[]string{"1:0"}, nil, "", "in numbers"},
		{[]string{"70000:80"}, nil, "", "in numbers"},
	} {
		got, err := ports(c.flags, c.exposed)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%q of %v: %v, want an error that says %s", c.flags, c.exposed, err, c.fails)
			}
			continue
		}
		var shown []string
		wants := strings.Fields(c.want)
		for i, p := range got {
			host, port, _ := net.SplitHostPort(p.Host)
			if host != "127.0.0.1" {
				t.Errorf("%q: at %s", c.flags, p.Host)
			}
			if i < len(wants) && strings.HasPrefix(wants[i], "?") && port != busy {
				port = "?"
			}
			shown = append(shown, port+">"+strconv.Itoa(p.Container))
		}
		if diff := cmp.Diff(c.want, strings.Join(shown, " ")); diff != "" || err != nil {
			t.Errorf("%q of %v: %v (-want +got):\n%s", c.flags, c.exposed, err, diff)
		}
	}
}

func TestRunEnvironment(t *testing.T) {
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, c := range []struct{ image, given, want []string }{
		{nil, nil, []string{path}},
		{[]string{"PATH=/p", "A=1", "AB=2"}, []string{"A=3=4", "C="}, []string{"PATH=/p", "AB=2", "A=3=4", "C="}},
	} {
		got, err := environment(c.image, c.given)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%q, %q: %v (-want +got):\n%s", c.image, c.given, err, diff)
		}
	}
	for _, bad := range []string{"A", "=1", ""} {
		if _, err := environment(nil, []string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for user, want := range map[string]string{"900:901": "900 901", "33": "33 33", "": "0 0", "www-data": "bad", "1:x": "bad", "-1:1": "bad"} {
		uid, gid, err := numericUser(user)
		got := strconv.Itoa(int(uid)) + " " + strconv.Itoa(int(gid))
		if err != nil {
			got = "bad"
		}
		if got != want {
			t.Errorf("user %q is %s, want %s", user, got, want)
		}
	}
}

func TestStaleContainers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"layers", "tmp", strconv.Itoa(os.Getpid()) + "-abc", "2147483000-abc", "x-1"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := staleContainers(dir)
	if diff := cmp.Diff([]string{filepath.Join(dir, "2147483000-abc")}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := staleContainers(filepath.Join(dir, "none")); len(got) > 0 || err != nil {
		t.Errorf("without a folder: %v, %v", got, err)
	}
}

func TestWriteSettings(t *testing.T) {
	dir := t.TempDir()
	s, err := wikiSecretsIn(dir, false)
	if err != nil || len(s.SecretKey) != 64 || len(s.Password) != 16 {
		t.Fatalf("%+v, %v", s, err)
	}
	if again, err := wikiSecretsIn(dir, false); again != s || err != nil {
		t.Errorf("they are others the next time: %v", err)
	}
	if fresh, err := wikiSecretsIn(dir, true); fresh == s || err != nil {
		t.Errorf("they are the same for a new wiki: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secrets.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := wikiSecretsIn(dir, false); err == nil || !strings.Contains(err.Error(), "start with --fresh") {
		t.Errorf("damaged: %v", err)
	}
	if err := writeSettings(dir, `it's \ here`, "http://127.0.0.1:8080", s); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "settings.php"))
	if err != nil || !strings.Contains(string(text), `$wgSitename = 'it\'s \\ here';`) || !strings.Contains(string(text), "$wgServer = 'http://127.0.0.1:8080';") {
		t.Errorf("%v\n%s", err, text)
	}
}
