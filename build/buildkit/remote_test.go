package buildkit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckAddr(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for _, f := range []string{"ca.pem", "cert.pem", "tls.key"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for addr, want := range map[string]string{ // part of the error; "" is none
		"":                                "",
		"unix:///run/buildkitd.sock":      "",
		"unix://relative":                 "absolute path of a socket: the form is unix:///run/",
		"unix://":                         "absolute path",
		"tcp://host:1234":                 "",
		"tcp://[::1]:1234":                "",
		"tcp://host":                      "a host and a port: the form is tcp://HOST:PORT",
		"tcp://host:1/path":               "a host and a port",
		"tcp://host:1?tlsdir=" + dir:      "",
		"tcp://host:1?tlsdir=" + other:    "has no ca.pem or ca.crt",
		"tcp://host:1?tlsservername=name": "",
		"tcp://host:1?tlscacert=" + dir + "/ca.pem&tlscert=" + dir + "/cert.pem&tlskey=" + dir + "/tls.key": "",
		"tcp://host:1?tlsdir=" + dir + "&tlskey=x":                                                          "give it alone",
		"tcp://host:1?tlscert=" + dir + "/cert.pem":                                                         "belong together",
		"tcp://host:1?tlscacert=" + dir + "/none":                                                           "no such file",
		"tcp://host:1?cacert=x":                                                                             `"cacert" is none of tlsdir, tlscacert`,
		"ssh://me@host:22/run/buildkitd.sock":                                                               "",
		"ssh://me:secret@host":                                                                              "password",
		"ssh://":                                                                                            "no host",
		"docker-container://name?context=c":                                                                 "",
		"docker-container://":                                                                               "container name: the form is docker-container://NAME",
		"podman-container://name":                                                                           "",
		"kube-pod://pod?namespace=ns&container=c&context=me":                                                "",
		"kube-pod://":                                                                                       "pod name",
		"kube-pod://pod?namespace=A_B":                                                                      "namespace",
		"buildx://my-builder_1.x":                                                                           "",
		"buildx://":                                                                                         "name of a builder",
		"buildx://--help":                                                                                   "name of a builder",
		"buildx://a/b":                                                                                      "name of a builder",
		"http://host":                                                                                       "want one of unix://, tcp://, ssh://, docker-container://",
		"/run/buildkitd.sock":                                                                               "want one of unix://",
		"buildkitd":                                                                                         "want one of unix://",
		"tcp://%":                                                                                           "invalid URL",
	} {
		err := CheckAddr(addr)
		switch {
		case want == "" && err != nil:
			t.Error(err)
		case want != "" && err == nil:
			t.Errorf("%q is an address", addr)
		case want != "" && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"`+addr+`"`)):
			t.Errorf("%v\nwant it to say %q", err, want)
		}
	}
}

// A program that an address needs, and the machine has not, is named; nothing is tried again.
func TestRemoteNeedsProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for addr, program := range map[string]string{
		"ssh://host": "ssh", "docker-container://c": "docker", "podman-container://c": "podman", "kube-pod://p": "kubectl",
		"buildx://b": "docker buildx or buildx or docker-buildx",
	} {
		_, err := New(Options{Addr: addr}).Solve(t.Context(), Request{Name: "//:step"})
		if !errors.Is(err, ErrNoEngine) || !strings.Contains(err.Error(), "through "+program+", which is not installed") || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// FuzzParseRemote holds that an address is refused in words or can be dialled.
func FuzzParseRemote(f *testing.F) {
	for _, s := range []string{"", "unix:///s", "tcp://h:1?tlsservername=n", "ssh://u@h:1/s", "kube-pod://p?namespace=n", "buildx://b", "tcp://[::1]:1", "://", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		r, err := parseRemote(addr)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "builder ") {
				t.Errorf("error %v", err)
			}
			return
		}
		if r.dial == "" || strings.Contains(r.dial, "tls") && strings.Contains(r.dial, "?") && strings.HasPrefix(r.dial, "tcp:") {
			t.Errorf("%q is dialled as %q", addr, r.dial)
		}
	})
}

func TestGoneReason(t *testing.T) {
	for text, want := range map[string]string{
		"rpc error: code = Unavailable": "rpc error: code = Unavailable",
		`failed: rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp [::1]:1: connect: connection refused"`:                                                                                     "transport: Error while dialing: dial tcp [::1]:1: connect: connection refused",
		`x desc = connection error: desc = "error reading server preface: command [docker exec c] has exited with exit status 1, make sure the URL is valid, and Docker 18.09 or later is installed on the remote host: stderr=no \"c\"\nat all\n"`: "docker exec c: exit status 1: no \"c\"\n    at all",
		`connection error: desc = "cut`: `connection error: desc = "cut`,
	} {
		if got := (&goneError{"", errors.New(text)}).reason(); got != want {
			t.Errorf("reason of %s\nis   %q\nwant %q", text, got, want)
		}
	}
}

// Who gives no certificate is told how to, where one may be asked for.
func TestGoneCertificate(t *testing.T) {
	for addr, want := range map[string]bool{
		"":                                       false,
		"unix:///s":                              false,
		"tcp://h:1":                              false,
		"tcp://h:1?tlscacert=/ca.pem":            true,
		"tcp://h:1?tlsservername=h":              true,
		"tcp://h:1?tlsdir=/d":                    false,
		"tcp://h:1?tlscert=/c.pem&tlskey=/k.pem": false,
	} {
		text := (&goneError{addr, errors.New("broken pipe")}).Error()
		if got := strings.Contains(text, "tlsdir, after the address"); got != want || !strings.Contains(text, "broken pipe") {
			t.Errorf("%q: %s", addr, text)
		}
	}
}
