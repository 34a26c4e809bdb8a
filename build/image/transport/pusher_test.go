package transport_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/internal/blobtest"
	"github.com/mwbuild/mwbuild/build/image/transport"
)

func newPusher(t *testing.T, b image.Blobs, opt transport.PushOptions) *transport.Pusher {
	t.Helper()
	p, err := transport.NewPusher(ctx, b, opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Of an image like the one that a tag names only what differs is asked for and sent; all of it is where the registry lost something, or where that is asked for.
func TestUploadAfterPrevious(t *testing.T) {
	for _, test := range []struct {
		name         string
		deep, broken bool
		heads        int // of blobs
	}{
		{"one layer differs", false, false, 2},
		{"asked for all", true, false, 4},
		{"the registry lost a layer", false, true, 4}, // two that are new, then the others
	} {
		t.Run(test.name, func(t *testing.T) {
			reg := newServer(t)
			b := blobtest.New(t)
			same := []image.NamedLayer{pack(t, b, file("a", "a")), pack(t, b, file("b", "b"))}
			first := assemble(t, b, nil, append(same, pack(t, b, file("c", "c")))...)
			second := assemble(t, b, nil, append(same, pack(t, b, file("c", "changed")))...)
			if _, err := transport.Push(ctx, b, first, reg.host+"/wiki:one", transport.PushOptions{}); err != nil {
				t.Fatal(err)
			}
			if test.broken {
				reg.lose("wiki", same[0].Descriptor.Digest.String())
			}
			reg.forget()
			p := newPusher(t, b, transport.PushOptions{Deep: test.deep})
			st, err := p.Upload(ctx, second, reg.host+"/wiki", "one")
			if err != nil {
				t.Fatal(err)
			}
			want := transport.Stats{Uploaded: 2, Existing: 2, Bytes: second.Config.Size + second.Layers[2].Descriptor.Size, Manifest: true}
			if test.broken {
				want.Uploaded, want.Existing, want.Bytes = 3, 1, want.Bytes+same[0].Descriptor.Size
			}
			if d := cmp.Diff(want, st); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if n := reg.count("HEAD", "/blobs/"); n != test.heads {
				t.Errorf("%d blobs were asked for, want %d", n, test.heads)
			}
			if reg.tagged("wiki", "one") != first.Manifest.Digest.String() {
				t.Error("the tag moved before it was to")
			}
			for _, moves := range []bool{true, false} {
				if moved, err := p.Tag(ctx, second, reg.host+"/wiki", "one"); err != nil || moved != moves {
					t.Errorf("the tag: %t %v", moved, err)
				}
			}
			if reg.tagged("wiki", "one") != second.Manifest.Digest.String() {
				t.Error("the tag did not move")
			}

			// Once more, by another run: one question, and nothing is sent.
			reg.forget()
			p = newPusher(t, b, transport.PushOptions{})
			if st, err := p.Upload(ctx, second, reg.host+"/wiki", "one"); err != nil || st != (transport.Stats{Existing: 4}) {
				t.Errorf("again: %+v %v", st, err)
			}
			if moved, err := p.Tag(ctx, second, reg.host+"/wiki", "one"); err != nil || moved {
				t.Errorf("the tag moved again: %t %v", moved, err)
			}
			if n := reg.count("HEAD", "/blobs/") + reg.count("PUT", "") + reg.count("POST", ""); n != 0 {
				t.Errorf("%d requests for an image that is there", n)
			}
		})
	}
}

// A layer that goes into many repositories of a registry at once is sent once, and mounted.
func TestUploadTogether(t *testing.T) {
	reg := newServer(t)
	b := blobtest.New(t)
	shared := pack(t, b, file("shared", strings.Repeat("text", 1000)))
	p := newPusher(t, b, transport.PushOptions{Jobs: 3})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var total transport.Stats
	for _, name := range []string{"aa", "bb", "cc", "dd", "ee", "ff"} {
		img := assemble(t, b, nil, shared, pack(t, b, file(name, name)))
		wg.Go(func() {
			st, err := p.Upload(ctx, img, reg.host+"/"+name, "")
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			total.Uploaded += st.Uploaded
			total.Mounted += st.Mounted
		})
	}
	wg.Wait()
	if total.Uploaded != 13 || total.Mounted != 5 {
		t.Errorf("%+v: want the shared layer once, and six layers and configs", total)
	}
}

// lose takes a blob away, and lets the registry refuse manifests that name it.
func (s *server) lose(repository, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.has, repository+" "+digest)
	s.strict = true
}

// tagged is the digest that a tag means.
func (s *server) tagged(repository, tag string) string {
	r, _ := http.NewRequest(http.MethodHead, "http://"+s.host+"/v2/"+repository+"/manifests/"+tag, nil)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	resp.Body.Close()
	return resp.Header.Get("Docker-Content-Digest")
}
