package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/internal/blobtest"
	"github.com/mwbuild/mwbuild/graph/action"
)

var (
	ctx   = context.Background()
	amd64 = ocispecs.Platform{OS: "linux", Architecture: "amd64"}
)

func fakeLayer(n int) image.NamedLayer {
	text := fmt.Sprint("layer ", n)
	return image.NamedLayer{
		Layer: image.Layer{
			Descriptor: ocispecs.Descriptor{
				MediaType: ocispecs.MediaTypeImageLayerZstd, Digest: digest.FromString(text), Size: int64(n + 1),
				Annotations: map[string]string{"some": "note"},
			},
			DiffID: digest.FromString("tar of " + text),
		},
		CreatedBy: "//extensions/E:E <layer> & more",
	}
}

func fakeLayers(n int) []image.NamedLayer {
	var ls []image.NamedLayer
	for i := range n {
		ls = append(ls, fakeLayer(i))
	}
	return ls
}

// baseConfig is as Docker writes it, with what OCI does not know.
const baseConfig = `{
  "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05.6789Z", "id": "legacy", "container_config": {"Cmd": ["x"]},
  "author": "A <a@example.org>",
  "config": {"Env": ["PATH=/bin", "B=1", "A=2"], "Cmd": ["bash"], "Labels": {"keep": "1", "over": "base"}, "Image": null,
    "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}}, "Healthcheck": {"Test": ["NONE"]}, "User": "www", "WorkingDir": "/w", "StopSignal": "SIGINT"},
  "history": [
    {"created": "2026-01-01T00:00:00Z", "created_by": "ADD rootfs"},
    {"created": "2026-01-01T00:00:00Z", "created_by": "CMD bash", "empty_layer": true, "comment": "c"}
  ],
  "rootfs": {"type": "layers", "diff_ids": ["` + baseDiffID + `", "` + baseDiffID + `"]}
}`

const baseDiffID = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

func baseImage(t *testing.T, b image.Blobs) *image.Image {
	t.Helper()
	cfg, err := b.Put(ctx, "application/vnd.docker.container.image.v1+json", []byte(baseConfig))
	if err != nil {
		t.Fatal(err)
	}
	l := func(n int) ocispecs.Descriptor {
		return ocispecs.Descriptor{
			MediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip", Digest: digest.FromString(fmt.Sprint("base", n)), Size: 99,
			Annotations: map[string]string{"base": "annotation"},
		}
	}
	raw, _ := json.Marshal(ocispecs.Manifest{Config: cfg, Layers: []ocispecs.Descriptor{l(1), l(2)}})
	m, err := b.Put(ctx, "application/vnd.docker.distribution.manifest.v2+json", raw)
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.LoadImage(ctx, b, m)
	if err != nil {
		t.Fatal(err)
	}
	return &img
}

func read(t *testing.T, b image.Blobs, d ocispecs.Descriptor) string {
	t.Helper()
	raw, err := image.ReadJSON(ctx, b.Content(), d)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestAssembleScratch(t *testing.T) {
	b := blobtest.New(t)
	img, err := image.Assemble(ctx, b, nil, fakeLayers(1), action.Config{
		User: "65534", Env: map[string]string{"B": "2", "A": "1"}, Entrypoint: []string{"/run"}, WorkingDir: "/srv",
		Labels: map[string]string{"l": "<v>"}, ExposedPorts: []string{"8080", "53/udp"}, Volumes: []string{"/v"}, StopSignal: "SIGTERM",
	}, amd64)
	if err != nil {
		t.Fatal(err)
	}
	l := fakeLayer(0)
	// As BuildKit's exporter writes them: top-level keys sorted, compact, HTML-escaped; an indented manifest.
	config := `{"architecture":"amd64",` +
		`"config":{"Entrypoint":["/run"],"Env":["A=1","B=2"],"ExposedPorts":{"53/udp":{},"8080/tcp":{}},"Labels":{"l":"\u003cv\u003e"},` +
		`"StopSignal":"SIGTERM","User":"65534","Volumes":{"/v":{}},"WorkingDir":"/srv"},` +
		`"created":"1970-01-01T00:00:00Z",` +
		`"history":[{"created":"1970-01-01T00:00:00Z","created_by":"//extensions/E:E \u003clayer\u003e \u0026 more"}],` +
		`"os":"linux","rootfs":{"type":"layers","diff_ids":["` + l.DiffID.String() + `"]}}`
	if diff := cmp.Diff(config, read(t, b, img.Config)); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	manifest := `{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "` + digest.FromString(config).String() + `",
    "size": ` + fmt.Sprint(len(config)) + `
  },
  "layers": [
    {
      "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
      "digest": "` + l.Descriptor.Digest.String() + `",
      "size": 1
    }
  ]
}`
	if diff := cmp.Diff(manifest, read(t, b, img.Manifest)); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
	loaded, err := image.LoadImage(ctx, b, img.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(img, loaded); diff != "" {
		t.Errorf("LoadImage gives another image than Assemble:\n%s", diff)
	}
}

func TestAssembleOnBase(t *testing.T) {
	b := blobtest.New(t)
	base := baseImage(t, b)
	base.Layers[0].Source = "registry.example/base"
	img, err := image.Assemble(ctx, b, base, fakeLayers(2), action.Config{
		Env: map[string]string{"B": "9", "Z": "z", "C": "c"}, Labels: map[string]string{"over": "ours"}, Volumes: []string{"/more"},
	}, ocispecs.Platform{})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Author  string
		Config  map[string]any
		History []struct {
			Created   string `json:"created"`
			CreatedBy string `json:"created_by"`
			Empty     bool   `json:"empty_layer"`
		}
		RootFS ocispecs.RootFS
	}
	if err := json.Unmarshal(img.ConfigJSON, &got); err != nil {
		t.Fatal(err)
	}
	none := map[string]any{}
	wantConfig := map[string]any{
		"Env": []any{"PATH=/bin", "B=9", "A=2", "C=c", "Z=z"}, "Cmd": []any{"bash"},
		"Labels":  map[string]any{"keep": "1", "over": "ours"},
		"Volumes": map[string]any{"/data": none, "/more": none}, "ExposedPorts": map[string]any{"80/tcp": none},
		"Healthcheck": map[string]any{"Test": []any{"NONE"}}, "User": "www", "WorkingDir": "/w", "StopSignal": "SIGINT",
	}
	if diff := cmp.Diff(wantConfig, got.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	var history []string
	for _, h := range got.History {
		history = append(history, fmt.Sprint(h.CreatedBy, " ", h.Empty))
		if h.Created != "1970-01-01T00:00:00Z" {
			t.Errorf("history entry %q was created at %s", h.CreatedBy, h.Created)
		}
	}
	// One entry for each layer: the base had two layers, but only one entry.
	wantHistory := []string{"ADD rootfs false", "CMD bash true", "base image false", fakeLayer(0).CreatedBy + " false", fakeLayer(1).CreatedBy + " false"}
	if diff := cmp.Diff(wantHistory, history); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	wantDiffIDs := []digest.Digest{baseDiffID, baseDiffID, fakeLayer(0).DiffID, fakeLayer(1).DiffID}
	if diff := cmp.Diff(wantDiffIDs, got.RootFS.DiffIDs); diff != "" {
		t.Errorf("diff ids (-want +got):\n%s", diff)
	}
	if strings.Contains(string(img.ConfigJSON), "legacy") || strings.Contains(string(img.ConfigJSON), "container_config") || got.Author != "A <a@example.org>" {
		t.Errorf("config keeps what it should not, or loses the author: %s", img.ConfigJSON)
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal([]byte(read(t, b, img.Manifest)), &m); err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Layers {
		if !strings.HasPrefix(d.MediaType, "application/vnd.oci.") || d.Annotations != nil {
			t.Errorf("layer %s has type %s and annotations %v", d.Digest, d.MediaType, d.Annotations)
		}
	}
	if img.Layers[0].Source != "registry.example/base" {
		t.Errorf("the base layer's source is %q", img.Layers[0].Source)
	}
	if base.Layers[0].Descriptor.Annotations == nil {
		t.Error("Assemble changed its base")
	}
}

func TestAssembleEntrypoint(t *testing.T) {
	b := blobtest.New(t)
	base := baseImage(t, b)
	for _, tt := range []struct {
		name string
		cfg  action.Config
		want ocispecs.ImageConfig
	}{
		{"nothing set", action.Config{}, ocispecs.ImageConfig{Cmd: []string{"bash"}}},
		{"cmd", action.Config{Cmd: []string{"sh"}}, ocispecs.ImageConfig{Cmd: []string{"sh"}}},
		{"entrypoint drops the base's cmd", action.Config{Entrypoint: []string{"e"}}, ocispecs.ImageConfig{Entrypoint: []string{"e"}}},
		{"both", action.Config{Entrypoint: []string{"e"}, Cmd: []string{"c"}}, ocispecs.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c"}}},
	} {
		img, err := image.Assemble(ctx, b, base, nil, tt.cfg, amd64)
		if err != nil {
			t.Fatal(err)
		}
		var c ocispecs.Image
		if err := json.Unmarshal(img.ConfigJSON, &c); err != nil {
			t.Fatal(err)
		}
		got := ocispecs.ImageConfig{Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// patch does to a config what BuildKit's exporter does with source-date-epoch=0, when it has the layers already: rootfs and history
// parsed and written anew, times moved back to the epoch, the rest taken over.
func patch(t *testing.T, config []byte) []byte {
	t.Helper()
	var m map[string]json.RawMessage
	var img struct {
		History []ocispecs.History
		RootFS  ocispecs.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &m); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(config, &img); err != nil {
		t.Fatal(err)
	}
	nonEmpty := 0
	for _, h := range img.History {
		if h.Created == nil || h.Created.Unix() > 0 {
			t.Errorf("the exporter would change the time of %q", h.CreatedBy)
		}
		if !h.EmptyLayer {
			nonEmpty++
		}
	}
	if nonEmpty != len(img.RootFS.DiffIDs) {
		t.Errorf("the exporter would change the history: %d entries for %d layers", nonEmpty, len(img.RootFS.DiffIDs))
	}
	m["history"], _ = json.Marshal(img.History)
	m["rootfs"], _ = json.Marshal(img.RootFS)
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestExporterWouldKeepConfig(t *testing.T) {
	b := blobtest.New(t)
	base := baseImage(t, b)
	surplus := *base
	surplus.ConfigJSON = bytes.ReplaceAll(slices.Clone(base.ConfigJSON), []byte(`, "empty_layer": true`), []byte(`}, {"created_by": "third"`))
	for name, base := range map[string]*image.Image{"scratch": nil, "missing history": base, "surplus history": &surplus} {
		img, err := image.Assemble(ctx, b, base, fakeLayers(3), action.Config{Labels: map[string]string{"<": "\u2028&"}}, amd64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(read(t, b, img.Config), string(patch(t, img.ConfigJSON))); diff != "" {
			t.Errorf("%s (-ours +exporter's):\n%s", name, diff)
		}
	}
}

func TestAssembleRefuses(t *testing.T) {
	b := blobtest.New(t)
	base := baseImage(t, b)
	for _, tt := range []struct {
		name     string
		base     *image.Image
		layers   []image.NamedLayer
		platform ocispecs.Platform
		want     string
	}{
		{"128 layers", nil, fakeLayers(128), amd64, "128 layers are more than"},
		{"126 layers on a base of 2", base, fakeLayers(126), amd64, "128 layers are more than"},
		{"no layer", nil, nil, amd64, "at least one layer"},
		{"no platform", nil, fakeLayers(1), ocispecs.Platform{}, "needs a platform"},
		{"other platform", base, fakeLayers(1), ocispecs.Platform{OS: "linux", Architecture: "arm64"}, "for linux/amd64, the image for linux/arm64"},
		{"no diff id", nil, []image.NamedLayer{{Layer: image.Layer{Descriptor: fakeLayer(0).Descriptor}}}, amd64, "no diff id"},
	} {
		_, err := image.Assemble(ctx, b, tt.base, tt.layers, action.Config{}, tt.platform)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error is %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := image.Assemble(ctx, b, nil, fakeLayers(127), action.Config{}, amd64); err != nil {
		t.Errorf("127 layers: %v", err)
	}
}

func TestLayerJSON(t *testing.T) {
	l := fakeLayer(1).Layer
	l.Source = "registry.example/x"
	raw, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var got image.Layer
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoadImageDamaged(t *testing.T) {
	b := blobtest.New(t)
	img, err := image.Assemble(ctx, b, nil, fakeLayers(1), action.Config{}, amd64)
	if err != nil {
		t.Fatal(err)
	}
	b.Damage(t, img.Config)
	if _, err := image.LoadImage(ctx, b, img.Manifest); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error is %v", err)
	}
	if _, err := image.LoadImage(ctx, b, ocispecs.Descriptor{Digest: digest.FromString("absent"), Size: 1}); err == nil {
		t.Error("LoadImage of an absent manifest: no error")
	}
}
