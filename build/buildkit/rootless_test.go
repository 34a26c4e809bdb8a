package buildkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A pretended machine, on which nothing is missing for alice, and what a test takes away from it.
func pretend(change func(files map[string]string, programs map[string]bool)) machine {
	files := map[string]string{
		"/proc/sys/user/max_user_namespaces": "96364\n",
		"/proc/self/status":                  "Name:\tmwbuild\nCapEff:\t000001ffffffffff\n",
		"/etc/subuid":                        "bob:1:65536\nalice:100000:65536\n",
		"/etc/subgid":                        "1000:200000:65535\n",
	}
	programs := map[string]bool{"runc": true, "newuidmap": true, "newgidmap": true}
	if change != nil {
		change(files, programs)
	}
	return machine{
		uid: 1000, name: "alice",
		look: func(p string) (string, error) {
			if programs[p] {
				return "/bin/" + p, nil
			}
			return "", exec.ErrNotFound
		},
		read: func(f string) (string, error) {
			if text, ok := files[f]; ok {
				return text, nil
			}
			return "", fs.ErrNotExist
		},
	}
}

func TestCanEmbed(t *testing.T) {
	for _, test := range []struct {
		name   string
		root   bool
		change func(files map[string]string, programs map[string]bool)
		want   []string // parts of the error, in no order; none: it can
	}{
		{name: "all there"},
		{name: "root", root: true, change: func(f map[string]string, p map[string]bool) {
			delete(f, "/etc/subuid")
			delete(p, "newuidmap")
		}},
		{name: "no runc", change: func(_ map[string]string, p map[string]bool) { delete(p, "runc") }, want: []string{"runc is not installed"}},
		{name: "another runc", change: func(_ map[string]string, p map[string]bool) {
			delete(p, "runc")
			p["buildkit-runc"] = true
		}},
		{name: "root, no runc", root: true, change: func(_ map[string]string, p map[string]bool) { delete(p, "runc") },
			want: []string{"as root", "runc is not installed"}},
		{name: "root of a container", root: true, change: func(f map[string]string, _ map[string]bool) {
			f["/proc/self/status"] = "CapEff:\t00000000a80425fb\n"
		}, want: []string{"SYS_ADMIN"}},
		{name: "no uidmap", change: func(_ map[string]string, p map[string]bool) { delete(p, "newgidmap") }, want: []string{"newgidmap", "package uidmap"}},
		{name: "switched off", change: func(f map[string]string, _ map[string]bool) { f["/proc/sys/user/max_user_namespaces"] = "0\n" },
			want: []string{"switched off", "sysctl -w user.max_user_namespaces="}},
		{name: "switched off by Debian", change: func(f map[string]string, _ map[string]bool) { f["/proc/sys/kernel/unprivileged_userns_clone"] = "0\n" },
			want: []string{"switched off", "sysctl -w kernel.unprivileged_userns_clone=1"}},
		{name: "no ids", change: func(f map[string]string, _ map[string]bool) {
			f["/etc/subuid"] = "bob:1:65536\nalicexx:1:65536\n:1:65536\n"
		},
			want: []string{"/etc/subuid gives user alice 0 subordinate ids", "usermod --add-subuids"}},
		{name: "few ids", change: func(f map[string]string, _ map[string]bool) { f["/etc/subgid"] = "alice:1:60000\nalice:70000:5534\n" },
			want: []string{"/etc/subgid gives user alice 65534 subordinate ids", "usermod --add-subgids"}},
		{name: "ids in pieces", change: func(f map[string]string, _ map[string]bool) { f["/etc/subgid"] = "alice:1:60000\nalice:70000:5535\n" }},
		{name: "nothing", change: func(f map[string]string, p map[string]bool) {
			clear(f)
			clear(p)
		}, want: []string{"runc is not installed", "package uidmap", "/etc/subuid gives", "/etc/subgid gives"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := pretend(test.change)
			if test.root {
				m.uid, m.name = 0, "root"
			}
			err := m.canEmbed()
			if len(test.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrNoEngine) || !strings.Contains(err.Error(), "--builder") {
				t.Fatalf("error %v", err)
			}
			for _, w := range test.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v\ndoes not say %q", err, w)
				}
			}
		})
	}
}

// Every id below the number of ids is mapped once, in the order of the ranges.
func TestMapArgs(t *testing.T) {
	if diff := cmp.Diff([]string{"7", "0", "1000", "1", "1", "100000", "60000", "60001", "300000", "10"},
		mapArgs(7, 1000, []idRange{{100000, 60000}, {300000, 10}})); diff != "" {
		t.Errorf("mapArgs (-want +got):\n%s", diff)
	}
	rapid.Check(t, func(t *rapid.T) {
		var ranges []idRange
		for range rapid.IntRange(0, 4).Draw(t, "ranges") {
			ranges = append(ranges, idRange{rapid.Uint64Range(1, 1<<20).Draw(t, "start"), rapid.Uint64Range(1, 50).Draw(t, "count")})
		}
		args := mapArgs(1, 5, ranges)[1:]
		want := []uint64{5}
		for _, r := range ranges {
			for i := range r.count {
				want = append(want, r.start+i)
			}
		}
		var got []uint64
		for ; len(args) > 0; args = args[3:] {
			var inside, outside, count uint64
			if _, err := fmt.Sscan(strings.Join(args[:3], " "), &inside, &outside, &count); err != nil {
				t.Fatal(err)
			}
			if inside != uint64(len(got)) {
				t.Fatalf("%d ids are mapped, and the next one is %d", len(got), inside)
			}
			for i := range count {
				got = append(got, outside+i)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ids (-want +got):\n%s", diff)
		}
	})
}

func TestServeRefuses(t *testing.T) {
	if err := Serve(t.Context(), "relative", "s", nil, nil); err == nil {
		t.Error("a relative root was served")
	}
	// What another mwbuild's child would do whose parent could not map its ids.
	t.Setenv(stageEnv, stageMapped)
	if os.Geteuid() != 0 { // root would mount
		if err := enterNamespace(); !errors.Is(err, ErrNoEngine) {
			t.Errorf("error %v", err)
		}
	}
}

// A lock that is removed while somebody waits for it is made anew.
func TestLockRoot(t *testing.T) {
	root := filepath.Join(t.TempDir(), "engine")
	unlock, err := lockRoot(t.Context(), root, func(string) { t.Error("waits for nobody") })
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 1000)
	done := make(chan error, 1)
	go func() {
		unlock, err := lockRoot(t.Context(), root, func(m string) { told <- m })
		if err == nil {
			defer unlock()
			_, err = os.Stat(filepath.Join(root, "lock"))
		}
		done <- err
	}()
	if m := <-told; !strings.Contains(m, root) {
		t.Errorf("message %q", m)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	root := filepath.Join(t.TempDir(), "engine")
	if err := Remove(t.Context(), Options{Root: root}); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(root, "runc-overlayfs", "executor", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockRoot(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	err = Remove(t.Context(), Options{Root: root, Wait: func(string) {
		said++
		unlock()
	}})
	if err != nil || said != 1 {
		t.Errorf("error %v, said %d times that it waits", err, said)
	}
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", root, err)
	}
}

func TestGCPolicy(t *testing.T) {
	policy := gcPolicy(t.TempDir())
	if len(policy) != 3 {
		t.Fatalf("%d rules", len(policy))
	}
	for i, p := range policy {
		if p.MaxUsedSpace != keepSpace.most || p.MinFreeSpace <= 0 || p.ReservedSpace >= p.MaxUsedSpace {
			t.Errorf("rule %d: %+v", i, p)
		}
	}
	if policy[0].KeepDuration == 0 || !policy[2].All {
		t.Errorf("what is old does not go first, or not all can go: %+v", policy)
	}
}
