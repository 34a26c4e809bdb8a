package transport_test

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/internal/blobtest"
	"github.com/mwbuild/mwbuild/build/image/transport"
)

func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, text
}

// pushed is an image in a repository, and a pusher for it.
func pushed(t *testing.T, reg *server, deep bool) (*transport.Pusher, image.Image, string) {
	t.Helper()
	b := blobtest.New(t)
	p, err := transport.NewPusher(ctx, b, transport.PushOptions{Deep: deep})
	if err != nil {
		t.Fatal(err)
	}
	img, repository := sampleImage(t, b), reg.host+"/wiki"
	if _, err := p.Upload(ctx, img, repository, ""); err != nil {
		t.Fatal(err)
	}
	return p, img, repository
}

func attach(t *testing.T, p *transport.Pusher, img image.Image, repository, what string) ocispecs.Descriptor {
	t.Helper()
	d, err := p.Attach(ctx, repository, img.Manifest, transport.Document{
		Type: "application/" + what, File: what + ".json", Text: []byte("{}\n" + what), Annotations: map[string]string{"by": "test", "what": what},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func referrers(t *testing.T, p *transport.Pusher, img image.Image, repository string) []ocispecs.Descriptor {
	t.Helper()
	all, err := p.Referrers(ctx, repository, img.Manifest.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// byType makes a set of descriptors.
func byType(all ...ocispecs.Descriptor) map[string]ocispecs.Descriptor {
	m := map[string]ocispecs.Descriptor{}
	for _, d := range all {
		m[d.ArtifactType] = d
	}
	return m
}

// A registry with the API for referrers, which says little of them, and one without.
func TestAttach(t *testing.T) {
	for _, api := range []bool{false, true} {
		reg := newServer(t)
		reg.next = registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(api))
		p, img, repository := pushed(t, reg, false)
		if all := referrers(t, p, img, repository); len(all) != 0 {
			t.Errorf("api=%t: before: %v", api, all)
		}
		a, b := attach(t, p, img, repository, "a"), attach(t, p, img, repository, "b")
		want := byType(a, b)
		if a.ArtifactType != "application/a" || a.Annotations["what"] != "a" {
			t.Errorf("api=%t: it is %+v", api, a)
		}
		if diff := cmp.Diff(want, byType(referrers(t, p, img, repository)...)); diff != "" {
			t.Errorf("api=%t: referrers (-want +got):\n%s", api, diff)
		}

		// What other clients see.
		tag := "http://" + reg.host + "/v2/wiki/manifests/" + strings.Replace(img.Manifest.Digest.String(), ":", "-", 1)
		status, text := get(t, tag)
		if (status == http.StatusOK) == api {
			t.Errorf("api=%t: the tag in place of the API: %d", api, status)
		}
		if !api {
			var index ocispecs.Index
			if err := json.Unmarshal(text, &index); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, byType(index.Manifests...)); diff != "" || index.MediaType != ocispecs.MediaTypeImageIndex {
				t.Errorf("the tag (-want +got):\n%s", diff)
			}
		}
		_, text = get(t, "http://"+reg.host+"/v2/wiki/manifests/"+a.Digest.String())
		var m ocispecs.Manifest
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		if m.ArtifactType != "application/a" || m.Subject == nil || m.Subject.Digest != img.Manifest.Digest || m.Config.MediaType != ocispecs.MediaTypeEmptyJSON || len(m.Layers) != 1 {
			t.Errorf("api=%t: manifest %s", api, text)
		}
		if _, blob := get(t, "http://"+reg.host+"/v2/wiki/blobs/"+m.Layers[0].Digest.String()); string(blob) != "{}\na" {
			t.Errorf("api=%t: the document is %q", api, blob)
		}
		if _, config := get(t, "http://"+reg.host+"/v2/wiki/blobs/"+m.Config.Digest.String()); string(config) != "{}" {
			t.Errorf("api=%t: the configuration is %q", api, config)
		}

		// The same again is the same.
		if again := attach(t, p, img, repository, "a"); again.Digest != a.Digest {
			t.Errorf("api=%t: again it is %s, and was %s", api, again.Digest, a.Digest)
		}
		if diff := cmp.Diff(want, byType(referrers(t, p, img, repository)...)); diff != "" {
			t.Errorf("api=%t: again (-want +got):\n%s", api, diff)
		}
	}
}

// A program that ended after the manifest was sent, and before the tag named it; and a tag that names what was cleaned up.
func TestAttachAfterDamage(t *testing.T) {
	reg := newServer(t)
	p, img, repository := pushed(t, reg, false)
	a := attach(t, p, img, repository, "a")
	tag := strings.Replace(img.Manifest.Digest.String(), ":", "-", 1)
	remove := func(identifier string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodDelete, "http://"+reg.host+"/v2/wiki/manifests/"+identifier, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode/100 != 2 {
			t.Fatalf("delete %s: %v %v", identifier, resp, err)
		}
		resp.Body.Close()
	}
	remove(tag)
	if all := referrers(t, p, img, repository); len(all) != 0 {
		t.Errorf("without the tag: %v", all)
	}
	if again := attach(t, p, img, repository, "a"); again.Digest != a.Digest {
		t.Errorf("again it is %s, and was %s", again.Digest, a.Digest)
	}
	if diff := cmp.Diff(byType(a), byType(referrers(t, p, img, repository)...)); diff != "" {
		t.Errorf("after the tag was lost (-want +got):\n%s", diff)
	}

	remove(a.Digest.String())
	b := attach(t, p, img, repository, "b")
	if diff := cmp.Diff(byType(b), byType(referrers(t, p, img, repository)...)); diff != "" {
		t.Errorf("after the manifest was lost (-want +got):\n%s", diff)
	}
}

// With Deep, what lacks its bytes counts for nothing.
func TestReferrersDeep(t *testing.T) {
	reg := newServer(t)
	p, img, repository := pushed(t, reg, true)
	a, b := attach(t, p, img, repository, "a"), attach(t, p, img, repository, "b")
	reg.mu.Lock()
	delete(reg.has, "wiki "+sum([]byte("{}\na")))
	reg.mu.Unlock()
	if diff := cmp.Diff(byType(b), byType(referrers(t, p, img, repository)...)); diff != "" {
		t.Errorf("one lacks its document (-want +got):\n%s", diff)
	}
	p, err := transport.NewPusher(ctx, blobtest.New(t), transport.PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(byType(a, b), byType(referrers(t, p, img, repository)...)); diff != "" {
		t.Errorf("without deep (-want +got):\n%s", diff)
	}
}

func TestAttachFails(t *testing.T) {
	p, err := transport.NewPusher(ctx, blobtest.New(t), transport.PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := blobtest.New(t)
	img := sampleImage(t, b)
	doc := transport.Document{Type: "application/a", File: "a.json", Text: []byte("{}")}
	if _, err := p.Attach(ctx, "127.0.0.1:1/wiki", img.Manifest, doc); err == nil || !strings.HasPrefix(err.Error(), "attach application/a to 127.0.0.1:1/wiki@sha256:") {
		t.Errorf("no registry: %v", err)
	}
	if _, err := p.Referrers(ctx, "127.0.0.1:1/wiki", img.Manifest.Digest); err == nil || !strings.HasPrefix(err.Error(), "ask 127.0.0.1:1/wiki what refers to sha256:") {
		t.Errorf("no registry: %v", err)
	}
	if _, err := p.Attach(ctx, "Not a name", img.Manifest, doc); err == nil {
		t.Error("a bad name: no error")
	}
}
