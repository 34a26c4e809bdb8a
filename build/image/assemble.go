package image

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/graph/action"
)

// MaxLayers is how many layers, base included, a caller should let an image have. It leaves room below what runtimes
// can mount for those who build on top of the image.
const MaxLayers = 100

// runtimeLayers is where container runtimes end; BuildKit and registries do not check it.
const runtimeLayers = 127

// A NamedLayer is a layer and the text that stands for it in the image's history.
type NamedLayer struct {
	Layer
	CreatedBy string
}

// Named are an image's layers with what its history says of them, or nothing where that does not tell.
func (im *Image) Named() ([]NamedLayer, error) {
	var config ocispecs.Image
	if err := json.Unmarshal(im.ConfigJSON, &config); err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	var names []string
	for _, h := range config.History {
		if !h.EmptyLayer {
			names = append(names, h.CreatedBy)
		}
	}
	named := make([]NamedLayer, len(im.Layers))
	for i, l := range im.Layers {
		named[i].Layer = l
		if len(names) == len(im.Layers) {
			named[i].CreatedBy = names[i]
		}
	}
	return named, nil
}

// epoch is the one time that images of ours carry.
var epoch = time.Unix(0, 0).UTC()

// Assemble makes the image of layers on top of base (nil for scratch) and writes its config and manifest to b.
//
// What is zero in cfg is taken from base. Env and Labels are merged by name (Env in base's order, new names after it,
// sorted); ExposedPorts and Volumes are united; setting Entrypoint drops base's Cmd unless Cmd is set too. Settings of
// base that cfg does not know (Healthcheck, Shell, …) are kept. With a base, the image has the base's platform, and
// platform must be zero or agree in os and architecture.
//
// The bytes equal what BuildKit's exporter writes for the same layers, given this config, oci-mediatypes=true,
// compression=zstd and source-date-epoch=0: top-level keys sorted, compact and HTML-escaped JSON for the config, an
// indented manifest, OCI media types, no annotations. The exporter moves every time in the history back to the epoch, base's
// entries included, unless it is told the base's config; so all times here are the epoch.
//
// More layers than a runtime can mount is an error; see [MaxLayers] for what to stay below.
func Assemble(ctx context.Context, b Blobs, base *Image, layers []NamedLayer, cfg action.Config, platform ocispecs.Platform) (Image, error) {
	var img Image
	var baseConfig []byte
	if base != nil {
		img.Layers = slices.Clone(base.Layers)
		baseConfig = base.ConfigJSON
	}
	for _, l := range layers {
		img.Layers = append(img.Layers, l.Layer)
	}
	switch n := len(img.Layers); {
	case n == 0:
		return Image{}, fmt.Errorf("an image needs at least one layer, or a base")
	case n > runtimeLayers:
		return Image{}, fmt.Errorf("%d layers are more than container runtimes can mount (%d): pack several components into one layer, to at most %d", n, runtimeLayers, MaxLayers)
	}
	for i := range img.Layers {
		l := &img.Layers[i]
		if l.DiffID == "" {
			return Image{}, fmt.Errorf("layer %s has no diff id", l.Descriptor.Digest)
		}
		l.Descriptor = bare(l.Descriptor)
	}
	config, err := configJSON(baseConfig, img.Layers, layers, cfg, platform)
	if err != nil {
		return Image{}, err
	}
	return Write(ctx, b, config, img.Layers)
}

// Write puts config as it is into b, and a manifest of it and layers.
func Write(ctx context.Context, b Blobs, config []byte, layers []Layer) (Image, error) {
	img := Image{Layers: layers, ConfigJSON: config}
	var err error
	if img.Config, err = b.Put(ctx, ocispecs.MediaTypeImageConfig, config); err != nil {
		return Image{}, fmt.Errorf("write image config: %w", err)
	}
	img.Config = bare(img.Config)
	raw, err := MarshalManifest(img.Config, layers)
	if err != nil {
		return Image{}, err
	}
	if img.Manifest, err = b.Put(ctx, ocispecs.MediaTypeImageManifest, raw); err != nil {
		return Image{}, fmt.Errorf("write image manifest: %w", err)
	}
	img.Manifest = bare(img.Manifest)
	return img, nil
}

// MarshalManifest is the manifest of config and layers: with OCI media types, without annotations.
func MarshalManifest(config ocispecs.Descriptor, layers []Layer) ([]byte, error) {
	m := ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispecs.MediaTypeImageManifest,
		Config:    bare(config),
	}
	m.Config.MediaType = ocispecs.MediaTypeImageConfig
	for _, l := range layers {
		m.Layers = append(m.Layers, bare(l.Descriptor))
	}
	return json.MarshalIndent(m, "", "  ")
}

// bare is d with nothing but what a manifest of ours holds, and the OCI name of its media type.
func bare(d ocispecs.Descriptor) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: ociMediaType(d.MediaType), Digest: d.Digest, Size: d.Size}
}

// ociMediaType is the OCI name of a Docker layer type; others stay as they are.
func ociMediaType(t string) string {
	switch t {
	case images.MediaTypeDockerSchema2Layer:
		return ocispecs.MediaTypeImageLayer
	case images.MediaTypeDockerSchema2LayerGzip:
		return ocispecs.MediaTypeImageLayerGzip
	case images.MediaTypeDockerSchema2LayerZstd:
		return ocispecs.MediaTypeImageLayerZstd
	case images.MediaTypeDockerSchema2LayerForeign:
		//lint:ignore SA1019 bases still have them
		return ocispecs.MediaTypeImageLayerNonDistributable
	case images.MediaTypeDockerSchema2LayerForeignGzip:
		//lint:ignore SA1019 bases still have them
		return ocispecs.MediaTypeImageLayerNonDistributableGzip
	}
	return t
}

// configJSON is the image config for all layers, of which the last len(added) stand on the base.
func configJSON(base []byte, all []Layer, added []NamedLayer, cfg action.Config, platform ocispecs.Platform) ([]byte, error) {
	top := map[string]json.RawMessage{}
	var history []ocispecs.History
	var baseSettings json.RawMessage
	if base != nil {
		var raw map[string]json.RawMessage
		if err := json.Unmarshal(base, &raw); err != nil {
			return nil, fmt.Errorf("config of the base image: %w", err)
		}
		// Docker keeps more at this level (id, container, container_config): how the base was once built.
		for _, k := range []string{"architecture", "os", "os.version", "os.features", "variant", "author"} {
			if v, ok := raw[k]; ok {
				top[k] = v
			}
		}
		baseSettings = raw["config"]
		var c ocispecs.Image
		if err := json.Unmarshal(base, &c); err != nil {
			return nil, fmt.Errorf("config of the base image: %w", err)
		}
		if platform.OS != "" && platform.OS != c.OS || platform.Architecture != "" && platform.Architecture != c.Architecture {
			return nil, fmt.Errorf("the base image is for %s/%s, the image for %s/%s", c.OS, c.Architecture, platform.OS, platform.Architecture)
		}
		platform = c.Platform
		history = c.History
	} else if err := marshalPlatform(top, platform); err != nil {
		return nil, err
	}
	if platform.OS == "" || platform.Architecture == "" {
		return nil, fmt.Errorf("an image needs a platform: os %q, architecture %q", platform.OS, platform.Architecture)
	}

	history = fullHistory(history, len(all)-len(added))
	for _, l := range added {
		history = append(history, ocispecs.History{Created: &epoch, CreatedBy: l.CreatedBy})
	}
	rootfs := ocispecs.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, l := range all {
		rootfs.DiffIDs = append(rootfs.DiffIDs, l.DiffID)
	}
	settings, err := mergeConfig(baseSettings, cfg)
	if err != nil {
		return nil, err
	}
	if err := setJSON(top, map[string]any{"config": settings, "created": epoch, "history": history, "rootfs": rootfs}); err != nil {
		return nil, err
	}
	return json.Marshal(top)
}

func marshalPlatform(top map[string]json.RawMessage, p ocispecs.Platform) error {
	fields := map[string]any{"architecture": p.Architecture, "os": p.OS}
	if p.Variant != "" {
		fields["variant"] = p.Variant
	}
	if p.OSVersion != "" {
		fields["os.version"] = p.OSVersion
	}
	if len(p.OSFeatures) > 0 {
		fields["os.features"] = p.OSFeatures
	}
	return setJSON(top, fields)
}

func setJSON(m map[string]json.RawMessage, fields map[string]any) error {
	for k, v := range fields {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		m[k] = b
	}
	return nil
}

// fullHistory is a base's history with exactly one entry for each of its n layers, at the epoch. BuildKit adds entries of its own
// where they are missing, and marks surplus ones as empty; so both are settled here.
func fullHistory(h []ocispecs.History, n int) []ocispecs.History {
	h = slices.Clone(h)
	seen := 0
	for i := range h {
		h[i].Created = &epoch
		if !h[i].EmptyLayer && seen == n {
			h[i].EmptyLayer = true
		}
		if !h[i].EmptyLayer {
			seen++
		}
	}
	for ; seen < n; seen++ {
		h = append(h, ocispecs.History{Created: &epoch, CreatedBy: "base image"})
	}
	return h
}

// mergeConfig is base's settings with those of cfg put over them.
func mergeConfig(base json.RawMessage, cfg action.Config) (map[string]json.RawMessage, error) {
	merged := map[string]json.RawMessage{}
	var b ocispecs.ImageConfig
	if len(base) > 0 {
		if err := json.Unmarshal(base, &merged); err != nil {
			return nil, fmt.Errorf("config of the base image: %w", err)
		}
		if err := json.Unmarshal(base, &b); err != nil {
			return nil, fmt.Errorf("config of the base image: %w", err)
		}
		maps.DeleteFunc(merged, func(_ string, v json.RawMessage) bool { return string(v) == "null" })
		if merged == nil { // "config": null
			merged = map[string]json.RawMessage{}
		}
	}

	fields := map[string]any{}
	if cfg.User != "" {
		fields["User"] = cfg.User
	}
	if cfg.WorkingDir != "" {
		fields["WorkingDir"] = cfg.WorkingDir
	}
	if cfg.StopSignal != "" {
		fields["StopSignal"] = cfg.StopSignal
	}
	if len(cfg.Env) > 0 {
		fields["Env"] = mergeEnv(b.Env, cfg.Env)
	}
	if len(cfg.Labels) > 0 {
		labels := maps.Clone(b.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, cfg.Labels)
		fields["Labels"] = labels
	}
	if len(cfg.Entrypoint) > 0 {
		fields["Entrypoint"] = cfg.Entrypoint
		delete(merged, "Cmd")
	}
	if len(cfg.Cmd) > 0 {
		fields["Cmd"] = cfg.Cmd
	}
	if len(cfg.ExposedPorts) > 0 {
		ports := make([]string, len(cfg.ExposedPorts))
		for i, p := range cfg.ExposedPorts {
			if !strings.Contains(p, "/") {
				p += "/tcp"
			}
			ports[i] = p
		}
		fields["ExposedPorts"] = union(b.ExposedPorts, ports)
	}
	if len(cfg.Volumes) > 0 {
		fields["Volumes"] = union(b.Volumes, cfg.Volumes)
	}
	return merged, setJSON(merged, fields)
}

func mergeEnv(base []string, add map[string]string) []string {
	var env []string
	done := map[string]bool{}
	for _, kv := range base {
		name, _, _ := strings.Cut(kv, "=")
		v, ok := add[name]
		if !ok {
			env = append(env, kv)
			continue
		}
		if !done[name] {
			env = append(env, name+"="+v)
		}
		done[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(add)) {
		if !done[name] {
			env = append(env, name+"="+add[name])
		}
	}
	return env
}

func union(base map[string]struct{}, add []string) map[string]struct{} {
	u := maps.Clone(base)
	if u == nil {
		u = map[string]struct{}{}
	}
	for _, k := range add {
		u[k] = struct{}{}
	}
	return u
}
