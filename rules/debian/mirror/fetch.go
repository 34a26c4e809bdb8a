package mirror

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/mwbuild/mwbuild/rules/debian/archive"
)

// maxList bounds a list of packages: Debian's main has 50 MB.
const maxList = 1 << 30

// A Fetcher gets files from archives. The zero value works.
type Fetcher struct {
	Client *http.Client // nil is one that takes proxies from the environment
	Now    func() time.Time
}

// ErrNotFound is that of a file that an archive does not have, or has no more.
var ErrNotFound = errors.New("not found")

// Open opens a file below an archive. Only the error tells whether there is one: [ErrNotFound], or what kept it from being known.
func (f *Fetcher) Open(ctx context.Context, base, path string) (io.ReadCloser, error) {
	u, err := url.JoinPath(base, (&url.URL{Path: path}).EscapedPath())
	if err != nil {
		return nil, err
	}
	if file, ok := strings.CutPrefix(base, "file:"); ok {
		dir := "/" + strings.TrimLeft(file, "/")
		r, err := os.Open(dir + "/" + path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", u, ErrNotFound)
		}
		return r, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	client := f.Client
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	res.Body.Close()
	if res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone {
		return nil, fmt.Errorf("%s: %w", u, ErrNotFound)
	}
	return nil, fmt.Errorf("%s: %s", u, res.Status)
}

// A List is what one suite has.
type List struct {
	Suite    string
	Release  *archive.Release
	SHA256   string // of InRelease
	Packages []*archive.Package
}

// Suite fetches the packages that a suite has for an architecture, in its component main: the release, of which the signature
// is checked, and the list, of which the digest is.
func (f *Fetcher) Suite(ctx context.Context, s Source, arch string, keys openpgp.EntityList) (*List, error) {
	below := "dists/" + s.Suite
	signed, err := f.all(ctx, s.URL, below+"/InRelease", 64<<20)
	if err != nil {
		return nil, err
	}
	now := time.Now
	if f.Now != nil {
		now = f.Now
	}
	rel, err := archive.ParseRelease(signed, keys, now())
	if err != nil {
		hint := "somebody changed it, or it is signed with other keys: is the machine's debian-archive-keyring of that release? --keyring names other keys"
		if errors.Is(err, archive.ErrExpired) {
			hint = "the mirror is not up to date, or somebody holds it back: use another one (--mirror); is the clock right?"
		}
		return nil, fmt.Errorf("%s/%s/InRelease: %w\n    %s", s.URL, below, err, hint)
	}
	if rel.Codename != s.Suite && rel.Suite != s.Suite {
		return nil, fmt.Errorf("%s/%s/InRelease: it is of %s, not of %s", s.URL, below, rel.Codename, s.Suite)
	}
	sum := sha256.Sum256(signed)
	l := &List{Suite: s.Suite, Release: rel, SHA256: hex.EncodeToString(sum[:])}
	plain := "main/binary-" + arch + "/Packages"
	for _, form := range []struct {
		ending string
		open   func(io.Reader) (io.Reader, error)
	}{
		{".xz", func(r io.Reader) (io.Reader, error) { return xz.NewReader(r) }},
		{".zst", func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }},
		{".gz", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		{"", func(r io.Reader) (io.Reader, error) { return r, nil }},
	} {
		file, ok := rel.Files[plain+form.ending]
		if !ok {
			continue
		}
		path := below + "/" + plain + form.ending
		if rel.ByHash {
			path = below + "/main/binary-" + arch + "/by-hash/SHA256/" + file.SHA256
		}
		data, err := f.all(ctx, s.URL, path, file.Size)
		if err != nil {
			return nil, err
		}
		if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != file.SHA256 {
			return nil, fmt.Errorf("%s/%s: it is not what the release names: its digest is %x, not %s\n    the mirror is in the middle of an update, or somebody changed it on the way: try again", s.URL, path, got, file.SHA256)
		}
		r, err := form.open(bytes.NewReader(data))
		if err == nil {
			l.Packages, err = archive.ReadPackages(io.LimitReader(r, maxList), arch)
		}
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", s.URL, path, err)
		}
		return l, nil
	}
	return nil, fmt.Errorf("%s/%s/InRelease names no list of packages for %s", s.URL, below, arch)
}

// all reads a file of at most most bytes.
func (f *Fetcher) all(ctx context.Context, base, path string, most int64) ([]byte, error) {
	r, err := f.Open(ctx, base, path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", base, path, err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s/%s is larger than it should be", base, path)
	}
	return data, nil
}
