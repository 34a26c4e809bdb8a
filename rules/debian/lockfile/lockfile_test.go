package lockfile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// text is how a lock stands on disk, to the byte.
const text = `{
 "version": 1,
 "algorithm": 1,
 "suite": "bookworm",
 "architecture": "amd64",
 "epoch": 1700000000,
 "slim": true,
 "releases": [
  {
   "suite": "bookworm",
   "date": "2026-01-02T03:04:05Z",
   "sha256": "` + sum + `"
  }
 ],
 "roots": [
  "server"
 ],
 "packages": [
  {"name":"libc6","version":"2.36-9","architecture":"amd64","source":"glibc","essential":true,"sha256":"` + sum + `","size":10,"path":"pool/libc6.deb"},
  {"name":"server","version":"1:2~3+b1","architecture":"all","source":"server","depends":["libc6"],"sha256":"` + sum + `","size":20,"path":"pool/s/server_1%3a2.deb"}
 ]
}
`

func lock() *File {
	return &File{
		Version: 1, Algorithm: 1, Suite: "bookworm", Architecture: "amd64", Epoch: 1700000000, Slim: true,
		Releases: []Release{{Suite: "bookworm", Date: "2026-01-02T03:04:05Z", SHA256: sum}}, Roots: []string{"server"},
		Packages: []Package{
			{Name: "libc6", Version: "2.36-9", Architecture: "amd64", Source: "glibc", Essential: true, SHA256: sum, Size: 10, Path: "pool/libc6.deb"},
			{Name: "server", Version: "1:2~3+b1", Architecture: "all", Source: "server", Depends: []string{"libc6"}, SHA256: sum, Size: 20, Path: "pool/s/server_1%3a2.deb"},
		},
	}
}

func TestFormat(t *testing.T) {
	f := lock()
	f.Packages[0], f.Packages[1] = f.Packages[1], f.Packages[0]
	if diff := cmp.Diff(text, string(f.Format())); diff != "" {
		t.Errorf("Format (-want +got):\n%s", diff)
	}
	got, err := Parse([]byte(text))
	if diff := cmp.Diff(lock(), got); diff != "" || err != nil {
		t.Errorf("Parse: %v (-want +got):\n%s", err, diff)
	}
	if again := string(got.Format()); again != text {
		t.Errorf("written again:\n%s", again)
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ from, to, says string }{
		{`"version": 1`, `"version": 2`, "run mwbuild lock"},
		{`"algorithm": 1`, `"algorithm": 0`, "run mwbuild lock"},
		{`"suite": "bookworm",
 "arch`, `"suite": "",
 "arch`, "are missing"},
		{`"slim"`, `"slimmer"`, `unknown field "slimmer"`},
		{`"name":"libc6"`, `"name":"server"`, "it is there twice"},
		{`"name":"libc6"`, `"name":"../libc6"`, "no name"},
		{`"size":20`, `"size":0`, "no size"},
		{`"size":20`, `"size":"20"`, "size"},
		{`"pool/libc6.deb"`, `"../libc6.deb"`, "no path below a mirror"},
		{`"pool/libc6.deb"`, `"/libc6.deb"`, "no path below a mirror"},
		{`"pool/libc6.deb"`, `"pool/../../libc6.deb"`, "no path below a mirror"},
		{`"sha256":"01`, `"sha256":"0X`, "no digest"},
		{`"architecture":"all"`, `"architecture":"arm64"`, "architecture"},
		{`"version":"2.36-9"`, `"version":""`, "no version"},
		{`"depends":["libc6"]`, `"depends":["libc7"]`, "depends on libc7, which is missing"},
		{`"roots": [
  "server"`, `"roots": [
  "servers"`, "servers was asked for, and is missing"},
		{"]\n}\n", "]\n}\n{}", "something follows"},
		{"]\n}\n", "]\n", "unexpected EOF"},
		{text, "<<<<<<< HEAD\n", "invalid character"},
	} {
		bad := strings.Replace(text, c.from, c.to, 1)
		if bad == text {
			t.Fatalf("there is no %s", c.from)
		}
		if _, err := Parse([]byte(bad)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error that says %s", c.to, err, c.says)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(text))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(file.Format())
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if diff := cmp.Diff(file.Format(), again.Format()); diff != "" {
			t.Error(diff)
		}
	})
}
