package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/aptrepo"
	"github.com/mwbuild/mwbuild/rules/debian/lockfile"
)

// system is a small one: what is essential, a server with configuration, and libraries.
var system = []aptrepo.Package{
	{Name: "base-files", Version: "1", Control: "Essential: yes\nDepends: base-passwd\n", Files: map[string]string{"etc/hostname": "h\n", "bin/true": "x:#!", "usr/share/doc/base-files/x": "x"}},
	{Name: "base-passwd", Version: "1", Files: map[string]string{"usr/share/base-passwd/passwd": "root"}, Scripts: map[string]string{"preinst": "#!/bin/sh\n"}},
	{Name: "usrmerge", Version: "1", Control: "Essential: yes\n", Files: map[string]string{"bin": "-> usr/bin"}},
	{
		Name: "server", Version: "1:2-3", Control: "Architecture: amd64\nDepends: libx, tool\nConflicts: rival\nBuilt-Using:\n a (= 1),\n b (= 2)\n",
		Files: map[string]string{"etc/server.conf": "a=1\n", "etc/link.conf": "=> etc/server.conf", "sbin/server": "x:#!", "lib/server/mod.so": "m", "etc/alias": "-> server.conf"},
		Scripts: map[string]string{
			"conffiles": "/etc/server.conf\nremove-on-upgrade /etc/old.conf\n", "postinst": "#!/bin/sh\n", "preinst": "#!/bin/sh\n",
			"triggers": "# when\ninterest-noawait /usr/share/server\ninterest server-reload\nactivate other\n", "md5sums": "0123  sbin/server\n",
		},
	},
	{Name: "libx", Version: "4", Control: "Architecture: amd64\nMulti-Arch: same\nSource: x (4-1)\n", Files: map[string]string{"usr/lib/libx.so": "x"}, Scripts: map[string]string{"shlibs": "libx 4 libx\n", "triggers": "interest-await /usr/lib\n"}},
	{Name: "acl", Version: "1", Scripts: map[string]string{"preinst": "#!/bin/sh\n"}}, // before all others but for one
	{Name: "tool", Version: "1", Control: "Depends: base-files\n", Files: map[string]string{"usr/bin/tool": "x:#!"}, Scripts: map[string]string{"preinst": "#!/bin/sh\n"}},
}

// debs makes a lock of packages, and their .deb files by digest.
func debs(t *testing.T, packages []aptrepo.Package) (*lockfile.File, map[string][]byte) {
	t.Helper()
	f := &lockfile.File{Version: lockfile.Version, Algorithm: lockfile.Algorithm, Suite: "s", Architecture: "amd64", Epoch: 1_700_000_000, Releases: []lockfile.Release{}, Roots: []string{}}
	store := map[string][]byte{}
	for _, p := range packages {
		data := p.Deb()
		sum := sha256.Sum256(data)
		l := lockfile.Package{Name: p.Name, Version: p.Version, Architecture: "all", Source: p.Name, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data)), Path: "pool/" + p.Name + ".deb"}
		for _, line := range strings.Split(p.Control, "\n") {
			k, v, _ := strings.Cut(line, ": ")
			switch k {
			case "Essential":
				l.Essential = true
			case "Architecture":
				l.Architecture = v
			case "Source":
				l.Source, _, _ = strings.Cut(v, " ")
			case "Depends":
				l.Depends = strings.Split(v, ", ")
			}
		}
		store[l.SHA256] = data
		f.Packages = append(f.Packages, l)
	}
	return f, store
}

type memFiles map[string]string

func (m memFiles) Has(file string) bool { _, ok := m[file]; return ok }

func (m memFiles) Read(file string) ([]byte, error) { return []byte(m[file]), nil }

func ask(more map[string]any) map[string]any {
	args := map[string]any{"lock": "d.lock.json", "suite": "s", "packages": []any{}, "slim": false, "architecture": "amd64"}
	maps.Copy(args, more)
	return args
}

// analysed is what Analyse says of a lock: by action its parameters and packages.
func analysed(t *testing.T, f *lockfile.File) map[string]*action.Native {
	t.Helper()
	got, err := Analyse(t.Context(), memFiles{"p/d.lock.json": string(f.Format())}, "p", ask(nil))
	if err != nil {
		t.Fatal(err)
	}
	m := got.(map[string]any)
	if m["epoch"] != f.Epoch || m["architecture"] != "amd64" {
		t.Errorf("epoch %v, architecture %v", m["epoch"], m["architecture"])
	}
	actions := map[string]*action.Native{}
	add := func(name, kind string, v any) {
		do := &action.Native{Kind: kind, Params: map[string]string{}, Layer: true}
		for k, p := range v.(map[string]any)["params"].(map[string]any) {
			do.Params[k] = p.(string)
		}
		for _, d := range v.(map[string]any)["downloads"].([]any) {
			d := d.(map[string]any)
			do.Downloads = append(do.Downloads, action.Download{SHA256: d["sha256"].(string), Size: d["size"].(int64), Name: d["name"].(string), Path: d["path"].(string)})
		}
		actions[name] = do
	}
	for i, g := range m["groups"].([]any) {
		name := g.(map[string]any)["name"].(string)
		if i == 0 && f.Packages[0].Essential && name != "essential packages" {
			t.Errorf("the lowest group is %s", name)
		}
		add(name, unpackKind, g)
	}
	add("setup", setupKind, m["setup"])
	return actions
}

func names(do *action.Native) (all []string) {
	for _, d := range do.Downloads {
		all = append(all, d.Name)
	}
	return all
}

// A new version of one package changes the group that it is in, and the setup; packages of one source are in one group.
func TestGroups(t *testing.T) {
	many := slices.Clone(system)
	for i := range 40 {
		many = append(many, aptrepo.Package{Name: fmt.Sprintf("lib%d", i), Version: "1", Control: fmt.Sprintf("Source: s%d\n", i/2)})
	}
	lock, _ := debs(t, many)
	before := analysed(t, lock)
	if diff := cmp.Diff([]string{"base-files 1", "base-passwd 1", "usrmerge 1"}, names(before["essential packages"])); diff != "" {
		t.Errorf("essential (-want +got):\n%s", diff)
	}
	if len(before) < 8 || len(before) > 2+groups {
		t.Errorf("there are %d actions", len(before))
	}
	group := map[string]string{}
	for name, do := range before {
		if name == "setup" {
			if len(do.Downloads) != len(many) {
				t.Errorf("the setup has %d packages of %d", len(do.Downloads), len(many))
			}
			continue
		}
		for _, p := range names(do) {
			if group[p] != "" {
				t.Errorf("%s is in two groups", p)
			}
			group[p] = name
		}
	}
	if len(group) != len(many) {
		t.Errorf("%d packages of %d are in groups", len(group), len(many))
	}
	for i := 0; i < 40; i += 2 {
		if a, b := group[fmt.Sprintf("lib%d 1", i)], group[fmt.Sprintf("lib%d 1", i+1)]; a != b {
			t.Errorf("packages of one source are in %s and in %s", a, b)
		}
	}
	for i, p := range many {
		next := slices.Clone(many)
		next[i].Version += "+new"
		lock, _ := debs(t, next)
		lock.Epoch += 1000 // of newer lists
		after := analysed(t, lock)
		var differ []string
		for name := range before {
			if cmp.Diff(before[name], after[name]) != "" {
				differ = append(differ, name)
			}
		}
		slices.Sort(differ)
		if diff := cmp.Diff([]string{group[p.Name+" "+p.Version], "setup"}, differ); diff != "" {
			t.Errorf("with another %s (-want +got):\n%s", p.Name, diff)
		}
	}
}

// layerOf runs an action and describes the entries of what it makes; contents holds the files of which more than a name is wanted.
func layerOf(t *testing.T, do *action.Native, store map[string][]byte, contents ...string) (string, error) {
	t.Helper()
	var b bytes.Buffer
	open := func(sum string) (io.ReadCloser, error) {
		data, ok := store[sum]
		if !ok {
			return nil, fmt.Errorf("%s: %w", sum, fs.ErrNotExist)
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	if err := Layers()[do.Kind](t.Context(), do, open, &b); err != nil {
		return "", err
	}
	var out strings.Builder
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out.String(), nil
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %o %d:%d %d", h.Name, h.Mode, h.Uid, h.Gid, h.ModTime.Unix()/100_000_000)
		if h.Linkname != "" {
			fmt.Fprintf(&out, " %c %s", h.Typeflag, h.Linkname)
		}
		if slices.Contains(contents, h.Name) {
			fmt.Fprintf(&out, "\n  %s", strings.ReplaceAll(strings.TrimSuffix(string(data), "\n"), "\n", "\n  "))
		}
		out.WriteByte('\n')
	}
}

// What dpkg --unpack would leave: links into usr, configuration under its new name, notes; and no time of now.
func TestUnpack(t *testing.T) {
	lock, store := debs(t, system)
	all := analysed(t, lock)
	got, err := layerOf(t, all["essential packages"], store, "var/lib/dpkg/info/base-files.list", "var/lib/dpkg/arch", "var/lib/dpkg/info/format")
	want := `usr/ 755 0:0 0
usr/bin/ 755 0:0 0
bin 777 0:0 0 2 usr/bin
usr/sbin/ 755 0:0 0
sbin 777 0:0 0 2 usr/sbin
usr/lib/ 755 0:0 0
lib 777 0:0 0 2 usr/lib
usr/lib64/ 755 0:0 0
lib64 777 0:0 0 2 usr/lib64
var/ 755 0:0 0
var/lib/ 755 0:0 0
var/lib/dpkg/ 755 0:0 0
var/lib/dpkg/info/ 755 0:0 0
var/lib/dpkg/updates/ 755 0:0 0
var/lib/dpkg/triggers/ 755 0:0 0
var/lib/dpkg/alternatives/ 755 0:0 0
var/lib/dpkg/parts/ 755 0:0 0
var/lib/dpkg/arch 644 0:0 0
  amd64
var/lib/dpkg/info/format 644 0:0 0
  1
usr/bin/true 755 0:0 16
etc/ 755 0:0 16
etc/hostname 644 0:0 16
usr/share/ 755 0:0 16
usr/share/doc/ 755 0:0 16
usr/share/doc/base-files/ 755 0:0 16
usr/share/doc/base-files/x 644 0:0 16
var/lib/dpkg/info/base-files.list 644 0:0 16
  /.
  /bin
  /bin/true
  /etc
  /etc/hostname
  /usr
  /usr/share
  /usr/share/doc
  /usr/share/doc/base-files
  /usr/share/doc/base-files/x
usr/share/base-passwd/ 755 0:0 16
usr/share/base-passwd/passwd 644 0:0 16
var/lib/dpkg/info/base-passwd.list 644 0:0 16
var/lib/dpkg/info/base-passwd.preinst 755 0:0 16
var/lib/dpkg/info/usrmerge.list 644 0:0 16
`
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("the base: %v (-want +got):\n%s", err, diff)
	}
	group := &action.Native{Kind: unpackKind, Params: map[string]string{"arch": "amd64"}}
	for _, d := range all["setup"].Downloads {
		if strings.HasPrefix(d.Name, "server") || strings.HasPrefix(d.Name, "libx") {
			group.Downloads = append(group.Downloads, d)
		}
	}
	got, err = layerOf(t, group, store, "var/lib/dpkg/info/server.list")
	want = `usr/ 755 0:0 16
usr/lib/ 755 0:0 16
usr/lib/libx.so 644 0:0 16
var/ 755 0:0 16
var/lib/ 755 0:0 16
var/lib/dpkg/ 755 0:0 16
var/lib/dpkg/info/ 755 0:0 16
var/lib/dpkg/info/libx:amd64.list 644 0:0 16
var/lib/dpkg/info/libx:amd64.shlibs 644 0:0 16
var/lib/dpkg/info/libx:amd64.triggers 644 0:0 16
etc/ 755 0:0 16
etc/alias 777 0:0 16 2 server.conf
etc/link.conf 644 0:0 16 1 etc/server.conf.dpkg-new
etc/server.conf.dpkg-new 644 0:0 16
usr/lib/server/ 755 0:0 16
usr/lib/server/mod.so 644 0:0 16
usr/sbin/ 755 0:0 16
usr/sbin/server 755 0:0 16
var/lib/dpkg/info/server.list 644 0:0 16
  /.
  /etc
  /etc/alias
  /etc/link.conf
  /etc/server.conf
  /lib
  /lib/server
  /lib/server/mod.so
  /sbin
  /sbin/server
var/lib/dpkg/info/server.conffiles 644 0:0 16
var/lib/dpkg/info/server.md5sums 644 0:0 16
var/lib/dpkg/info/server.postinst 755 0:0 16
var/lib/dpkg/info/server.preinst 755 0:0 16
var/lib/dpkg/info/server.triggers 644 0:0 16
`
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("a group: %v (-want +got):\n%s", err, diff)
	}
}

// What dpkg would know: its status, what triggers wait for, and in which order packages prepare themselves.
func TestSetup(t *testing.T) {
	lock, store := debs(t, system)
	got, err := layerOf(t, analysed(t, lock)["setup"], store, "status", "preinsts", "triggers/File", "triggers/server-reload")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"preinsts 644 0:0 0\n  base-passwd all base-passwd\n  acl all acl\n  tool all tool\n  server amd64 server\n",
		"triggers/File 644 0:0 0\n  /usr/lib libx:amd64\n  /usr/share/server server/noawait\n",
		"triggers/server-reload 644 0:0 0\n  server\n",
		`  Package: server
  Status: install ok unpacked
  Version: 1:2-3
  Architecture: amd64
  Depends: libx, tool
  Conflicts: rival
  Built-Using:
   a (= 1),
   b (= 2)
  Maintainer: Nobody <nobody@example.org>
  Description: a package for tests
  Conffiles:
   /etc/server.conf newconffile
   /etc/old.conf newconffile remove-on-upgrade
  
`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the setup lacks\n%s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestRefused(t *testing.T) {
	p := func(name string, more aptrepo.Package) aptrepo.Package {
		more.Name, more.Version = name, "1"
		return more
	}
	for name, c := range map[string]struct {
		packages []aptrepo.Package
		says     string
	}{
		"overlap":          {[]aptrepo.Package{p("aa", aptrepo.Package{Files: map[string]string{"bin/x": "1"}}), p("bb", aptrepo.Package{Files: map[string]string{"usr/bin/x": "2"}})}, "bb 1: /usr/bin/x is in aa 1 and in bb 1: an image cannot have both"},
		"far overlap":      {[]aptrepo.Package{p("aa", aptrepo.Package{Scripts: map[string]string{"md5sums": "00  usr/bin/x\n"}}), p("bb", aptrepo.Package{Scripts: map[string]string{"md5sums": "11  bin/x\n"}})}, "an image cannot have both"},
		"odd trigger":      {[]aptrepo.Package{p("aa", aptrepo.Package{Scripts: map[string]string{"triggers": "interest\n"}})}, `triggers of aa 1: "interest"`},
		"trigger's folder": {[]aptrepo.Package{p("aa", aptrepo.Package{Scripts: map[string]string{"triggers": "interest a/b\n"}})}, `triggers of aa 1`},
	} {
		lock, store := debs(t, c.packages)
		setup := analysed(t, lock)["setup"]
		unpack := &action.Native{Kind: unpackKind, Params: setup.Params, Downloads: setup.Downloads}
		_, err1 := layerOf(t, unpack, store)
		_, err2 := layerOf(t, setup, store)
		if msg := fmt.Sprint(err1, err2); !strings.Contains(msg, c.says) {
			t.Errorf("%s: %s, want an error that says %s", name, msg, c.says)
		}
	}
	lock, store := debs(t, system)
	do := analysed(t, lock)["setup"]
	store[do.Downloads[0].SHA256] = []byte("no .deb")
	if _, err := layerOf(t, do, store); err == nil || !strings.Contains(err.Error(), do.Downloads[0].Name+": it is no .deb") {
		t.Errorf("what is no package: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Layers()[unpackKind](ctx, do, nil, io.Discard); err == nil {
		t.Error("an interrupted action goes on")
	}
}

func TestAnalyseErrors(t *testing.T) {
	lock, _ := debs(t, system)
	lock.Roots = []string{"server", "tool"}
	files := memFiles{"p/d.lock.json": string(lock.Format()), "p/bad.json": "{"}
	for _, c := range []struct {
		args map[string]any
		says []string
	}{
		{map[string]any{"lock": "none.json"}, []string{"lock: there is no p/none.json", "mwbuild lock writes it"}},
		{map[string]any{"lock": "bad.json"}, []string{"lock: p/bad.json: ", "mwbuild lock writes it anew"}},
		{map[string]any{"suite": "t"}, []string{"is of suite s, and t is asked for", "mwbuild lock brings it up to date"}},
		{map[string]any{"slim": true}, []string{"has slim = false, and true is asked for"}},
		{map[string]any{"architecture": "arm64"}, []string{"is of architecture amd64, and arm64 is asked for"}},
		{map[string]any{"packages": []any{"server", "tool", "more"}}, []string{"was written without more"}},
		{map[string]any{"packages": []any{"server"}}, []string{"was written with tool, which is asked for no more"}},
	} {
		_, err := Analyse(t.Context(), files, "p", ask(c.args))
		for _, s := range c.says {
			if err == nil || !strings.Contains(err.Error(), s) {
				t.Errorf("%v: %v, want an error that says %s", c.args, err, s)
			}
		}
	}
	if _, err := Analyse(t.Context(), files, "p", ask(map[string]any{"packages": []any{"tool", "server"}})); err != nil {
		t.Error(err)
	}
}
