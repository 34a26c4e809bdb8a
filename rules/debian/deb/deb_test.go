package deb_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/mwbuild/mwbuild/internal/aptrepo"
	"github.com/mwbuild/mwbuild/rules/debian/deb"
)

// member is one of an ar archive.
type member struct {
	name string
	data []byte
}

func ar(members ...member) []byte {
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range members {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, 0, 0, 0, 0o100644, len(m.data))
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// tarOf has regular files only; names may be anything.
func tarOf(files ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))})
		w.Write([]byte(files[i+1]))
	}
	w.Close()
	return b.Bytes()
}

func compress(data []byte, ending string) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch ending {
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	default:
		return data
	}
	if err != nil {
		panic(err)
	}
	w.Write(data)
	w.Close()
	return b.Bytes()
}

const control = "Package: p\nVersion: 1:2-3\nArchitecture: all\nDescription: x\n"

var version = member{"debian-binary", []byte("2.0\n")}

// read is all that a .deb holds, as text.
func read(data []byte) (string, error) {
	p, err := deb.Open(bytes.NewReader(data), "amd64")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", p)
	for _, name := range slices.Sorted(maps.Keys(p.Scripts)) {
		fmt.Fprintf(&b, "%s: %s\n", name, p.Scripts[name])
	}
	err = p.Files(func(name string, h *tar.Header, r io.Reader) error {
		text, err := io.ReadAll(r)
		fmt.Fprintf(&b, "%q %c %s%s\n", name, h.Typeflag, h.Linkname, text)
		return err
	})
	if err == nil && p.Files(nil) == nil {
		err = fmt.Errorf("Files can be called twice")
	}
	return b.String(), err
}

func TestOpen(t *testing.T) {
	want := "p 1:2-3\npostinst: true\n\"usr/bin/p\" 0 x\n"
	for _, ending := range []string{"", ".gz", ".xz", ".zst"} {
		c, d := compress(tarOf("./control", control, "./postinst", "true"), ending), compress(tarOf("./usr/bin/p", "x"), ending)
		for name, data := range map[string][]byte{
			"plain":   ar(version, member{"control.tar" + ending, c}, member{"data.tar" + ending, d}),
			"slashes": ar(member{"debian-binary/", []byte("2.1\nmore\n")}, member{"control.tar" + ending + "/", c}, member{"data.tar" + ending + "/", d}),
			"others":  ar(version, member{"_gpgorigin", []byte("odd")}, member{"control.tar" + ending, c}, member{"_x", nil}, member{"data.tar" + ending, d}, member{"later", []byte("x")}),
		} {
			if got, err := read(data); got != want || err != nil {
				t.Errorf("%s%s: %v\n%s", name, ending, err, got)
			}
		}
	}
	// Everything that a package can hold.
	p := aptrepo.Package{Name: "full", Version: "1", Files: map[string]string{"bin/a": "x:run", "bin/b": "=> bin/a", "usr/lib/c": "-> ../d"}, Scripts: map[string]string{"conffiles": "/etc/x\n"}}
	got, err := read(p.Deb())
	if diff := cmp.Diff("full 1\nconffiles: /etc/x\n\n\"\" 5 \n\"bin\" 5 \n\"bin/a\" 0 run\n\"bin/b\" 1 bin/a\n\"usr\" 5 \n\"usr/lib\" 5 \n\"usr/lib/c\" 2 ../d\n", got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestOpenErrors(t *testing.T) {
	c, d := member{"control.tar", tarOf("control", control)}, member{"data.tar", tarOf("f", "x")}
	good := ar(version, c, d)
	for name, tc := range map[string]struct {
		data []byte
		says string
	}{
		"nothing":        {nil, "it is no .deb"},
		"another file":   {[]byte("PK\x03\x04 and more of it"), "not an ar archive"},
		"another ar":     {ar(member{"a.o", []byte("x")}), "it is no .deb of version 2"},
		"version 3":      {ar(member{"debian-binary", []byte("3.0\n")}, c, d), `"3.0"`},
		"no data":        {ar(version, c), "data.tar: it ends too early"},
		"order":          {ar(version, d, c), "there is data.tar where control.tar is wanted"},
		"half a member":  {good[:len(good)-700], "unexpected EOF"},
		"half a header":  {good[:100], "unexpected EOF"},
		"no header":      {append(bytes.Clone(good[:8]), bytes.Repeat([]byte("x"), 60)...), "is no header"},
		"other packer":   {ar(version, member{"control.tar.br", c.data}, d), `".br" is none of the ways to compress`},
		"not compressed": {ar(version, member{"control.tar.xz", c.data}, d), "control.tar.xz"},
		"no control":     {ar(version, member{"control.tar", tarOf("postinst", "")}, d), "has no control file"},
		"empty control":  {ar(version, member{"control.tar", tarOf("control", "\n")}, d), "it is empty"},
		"two paragraphs": {ar(version, member{"control.tar", tarOf("control", control+"\n"+control)}, d), "two paragraphs"},
		"no version":     {ar(version, member{"control.tar", tarOf("control", "Package: p\nArchitecture: all\n")}, d), "no name, version or architecture"},
		"a folder":       {ar(version, member{"control.tar", tarOf("control", control, "x/y", "")}, d), "x/y is in a folder"},
		"up":             {ar(version, c, member{"data.tar", tarOf("../etc/passwd", "")}), `"../etc/passwd" is no clean path`},
		"up inside":      {ar(version, c, member{"data.tar", tarOf("./a/../../b", "")}), "is no clean path"},
	} {
		if got, err := read(tc.data); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want an error that says %s\n%s", name, err, tc.says, got)
		}
	}
}

// Whatever it is: no panic, and no path that leads elsewhere.
func FuzzOpen(f *testing.F) {
	f.Add(aptrepo.Package{Name: "p", Version: "1", Files: map[string]string{"a/b": "x", "a/c": "=> a/b", "d": "-> /e"}, Scripts: map[string]string{"postinst": "x"}}.Deb())
	for _, ending := range []string{"", ".xz", ".zst"} {
		f.Add(ar(version, member{"control.tar" + ending, compress(tarOf("./control", control), ending)}, member{"data.tar" + ending, compress(tarOf("./usr/bin/p", "x"), ending)}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := deb.Open(bytes.NewReader(data), "amd64")
		if err != nil {
			return
		}
		if p.Name == "" || p.Version == "" {
			t.Error("a package without a name")
		}
		local := func(name string) bool { return name == "" || path.Clean("/"+name) == "/"+name }
		p.Files(func(name string, h *tar.Header, r io.Reader) error {
			if !local(name) || h.Typeflag == tar.TypeLink && !local(h.Linkname) {
				t.Errorf("%q, %q", name, h.Linkname)
			}
			_, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
			return err
		})
	})
}
