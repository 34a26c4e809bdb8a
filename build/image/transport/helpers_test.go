package transport_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/graph/action"
)

var (
	ctx   = context.Background()
	amd64 = ocispecs.Platform{OS: "linux", Architecture: "amd64"}
)

// A server is a registry in this process. It keeps the repositories apart and mounts, which the one below does not, and
// notes requests.
type server struct {
	host    string
	next    http.Handler
	noMount bool
	strict  bool // refuses manifests that name blobs which it lacks

	mu       sync.Mutex
	has      map[string]bool // "repository digest"
	requests []string        // "METHOD path"
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{next: registry.New(registry.Logger(log.New(io.Discard, "", 0))), has: map[string]bool{}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.host = strings.TrimPrefix(srv.URL, "http://")
	return s
}

var (
	manifestPath = regexp.MustCompile(`^/v2/(.+)/manifests/`)
	digestIn     = regexp.MustCompile(`sha256:[0-9a-f]{64}`)
)

var blobPath = regexp.MustCompile(`^/v2/(.+)/blobs/(uploads/.*|sha256:.*)$`)

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	m := blobPath.FindStringSubmatch(r.URL.Path)
	q := r.URL.Query()
	if at := manifestPath.FindStringSubmatch(r.URL.Path); s.strict && r.Method == http.MethodPut && at != nil {
		raw, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(raw))
		for _, d := range digestIn.FindAllString(string(raw), -1) {
			if !s.has[at[1]+" "+d] {
				w.WriteHeader(http.StatusBadRequest)
				io.WriteString(w, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}`)
				return
			}
		}
	}
	switch {
	case m == nil:
	case (r.Method == http.MethodHead || r.Method == http.MethodGet) && !s.has[m[1]+" "+m[2]]:
		http.NotFound(w, r)
		return
	case r.Method == http.MethodPost && q.Get("mount") != "" && !s.noMount && s.has[q.Get("from")+" "+q.Get("mount")]:
		s.has[m[1]+" "+q.Get("mount")] = true
		w.WriteHeader(http.StatusCreated)
		return
	case r.Method == http.MethodPut:
		s.has[m[1]+" "+q.Get("digest")] = true
	}
	s.next.ServeHTTP(w, r)
}

// count says how many requests of the method had part in their path, and forgets all.
func (s *server) count(method, part string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.HasPrefix(r, method+" ") && strings.Contains(r, part) {
			n++
		}
	}
	return n
}

func (s *server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

func file(name, text string) layer.Entry {
	return layer.Entry{
		Path: name, Size: int64(len(text)), SHA256: sha256.Sum256([]byte(text)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil },
	}
}

func pack(t testing.TB, b image.Blobs, entries ...layer.Entry) image.NamedLayer {
	t.Helper()
	l, err := layer.Pack(ctx, b, entries, layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return image.NamedLayer{Layer: l, CreatedBy: "test"}
}

func assemble(t testing.TB, b image.Blobs, base *image.Image, layers ...image.NamedLayer) image.Image {
	t.Helper()
	img, err := image.Assemble(ctx, b, base, layers, action.Config{User: "65534", Labels: map[string]string{"a": "b"}}, amd64)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// sampleImage has two layers, the second of which replaces and adds files.
func sampleImage(t testing.TB, b image.Blobs) image.Image {
	t.Helper()
	return assemble(t, b, nil,
		pack(t, b, file("etc/motd", "hello"), file("srv/a.php", "a"), layer.Entry{Path: "bin", Kind: layer.Symlink, Target: "usr/bin"}),
		pack(t, b, file("srv/a.php", "a2"), file("srv/sub/b.php", strings.Repeat("b", 5000))))
}

// tarballOf makes a tar; a size follows from the text in members, whose names are those of headers.
func tarballOf(t testing.TB, text map[string]string, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		h.Size = int64(len(text[h.Name]))
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, text[h.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// rawLayer stores a tar as a layer, as it is.
func rawLayer(t testing.TB, b image.Blobs, tarball []byte) image.Layer {
	t.Helper()
	l, err := layer.Compress(ctx, b, bytes.NewReader(tarball))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// contents lists the files of an image's layers, lowest first: "path text".
func contents(t testing.TB, b image.Blobs, img image.Image) []string {
	t.Helper()
	var got []string
	for _, l := range img.Layers {
		err := layer.Walk(ctx, b.Content(), l.Descriptor, func(h *tar.Header, r io.Reader) error {
			text, err := io.ReadAll(r)
			if h.Typeflag == tar.TypeReg {
				got = append(got, path.Clean(h.Name)+" "+string(text))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func sum(b []byte) string { return digest.FromBytes(b).String() }

func digests(blobs ...[]byte) []digest.Digest {
	var ds []digest.Digest
	for _, b := range blobs {
		ds = append(ds, digest.FromBytes(b))
	}
	return ds
}

func assemblePlatform(t testing.TB, b image.Blobs, base *image.Image, arch string) image.Image {
	t.Helper()
	img, err := image.Assemble(ctx, b, base, nil, action.Config{}, ocispecs.Platform{OS: "linux", Architecture: arch})
	if err != nil {
		t.Fatal(err)
	}
	return img
}
