package transport_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/internal/blobtest"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/graph/action"
)

// indexed pushes an index of two platforms, in Docker's media types, and says what it is.
func indexed(t *testing.T, repo string) (idx v1.ImageIndex, byArch map[string]v1.Image) {
	t.Helper()
	idx, byArch = empty.Index, map[string]v1.Image{}
	for _, arch := range []string{"arm64", "amd64"} {
		img, err := random.Image(500, 2)
		if err != nil {
			t.Fatal(err)
		}
		cfg, _ := img.ConfigFile()
		cfg.OS, cfg.Architecture = "linux", arch
		if img, err = mutate.ConfigFile(img, cfg); err != nil {
			t.Fatal(err)
		}
		byArch[arch] = img
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	ref, err := name.ParseReference(repo + ":x")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, idx); err != nil {
		t.Fatal(err)
	}
	return idx, byArch
}

func TestImportRegistry(t *testing.T) {
	reg := newServer(t)
	repo := reg.host + "/debian"
	idx, byArch := indexed(t, repo)
	digest, _ := idx.Digest()
	for arch, want := range byArch {
		b := blobtest.New(t)
		imp := action.Import{Registry: repo, Digest: digest.String(), Platform: "linux/" + arch}
		reg.forget()
		img, err := transport.Import(ctx, b, imp, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if d, _ := want.Digest(); img.Manifest.Digest.String() != d.String() {
			t.Errorf("%s: manifest is %s, want %s", arch, img.Manifest.Digest, d)
		}
		if n := reg.count("GET", "/blobs/"); n != 1 {
			t.Errorf("%s: %d blobs were fetched, want the config alone", arch, n)
		}
		layers, _ := want.Layers()
		for i, l := range layers {
			d, _ := l.Digest()
			diffID, _ := l.DiffID()
			got := img.Layers[i]
			if got.Descriptor.Digest.String() != d.String() || got.DiffID.String() != diffID.String() || got.Source != repo {
				t.Errorf("%s: layer %d is %+v", arch, i, got)
			}
		}

		// Again, from the store alone.
		reg.forget()
		again, err := transport.Import(ctx, b, imp, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(img, again); diff != "" {
			t.Errorf("the second import gives another image:\n%s", diff)
		}
		if n := reg.count("GET", "/debian/"); n != 0 {
			t.Errorf("the second import fetched %d things", n)
		}

		// Layers come when they are needed.
		for range 2 {
			if err := transport.EnsureLayer(ctx, b, img.Layers[1], nil); err != nil {
				t.Fatal(err)
			}
		}
		if !b.Has(img.Layers[1].Descriptor) || b.Has(img.Layers[0].Descriptor) {
			t.Error("EnsureLayer: not exactly the one layer is there")
		}
		if n := reg.count("GET", "/blobs/"); n != 1 {
			t.Errorf("EnsureLayer twice fetched %d blobs", n)
		}
		// An image on this base has OCI types.
		if ours := assemblePlatform(t, b, &img, arch); ours.Layers[0].Descriptor.MediaType != ocispecs.MediaTypeImageLayerGzip {
			t.Errorf("the base layer has type %s in our image", ours.Layers[0].Descriptor.MediaType)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	reg := newServer(t)
	repo := reg.host + "/debian"
	idx, _ := indexed(t, repo)
	digest, _ := idx.Digest()
	missing := "sha256:" + strings.Repeat("1", 64)
	dir := t.TempDir()
	notTar := []byte(strings.Repeat("no tar at all ", 100))
	os.WriteFile(filepath.Join(dir, "x.tar"), notTar, 0o644)
	for _, tt := range []struct {
		name string
		imp  action.Import
		want string
	}{
		{"platform", action.Import{Registry: repo, Digest: digest.String(), Platform: "linux/s390x"}, "no image for linux/s390x in the index; it has linux/arm64, linux/amd64"},
		{"absent", action.Import{Registry: repo, Digest: missing}, "MANIFEST_UNKNOWN"},
		{"tag", action.Import{Registry: repo, Digest: "x"}, "no sha256 digest"},
		{"nowhere", action.Import{Digest: missing}, "neither registry, layout nor tar"},
		{"no layout", action.Import{Layout: "none", Digest: missing}, "the layout has no blob"},
		{"no tar", action.Import{Tar: "none.tar", Digest: missing}, "no such file"},
		{"other tar", action.Import{Tar: "x.tar", Digest: missing}, "the file has digest " + sum(notTar)},
		{"not a tar", action.Import{Tar: "x.tar", Digest: sum(notTar)}, "read tar"},
	} {
		b := blobtest.New(t)
		_, err := transport.Import(ctx, b, tt.imp, dir, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error is %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestImportLayoutAndArchive(t *testing.T) {
	b := blobtest.New(t)
	img := sampleImage(t, b)
	want := contents(t, b, img)
	dir := t.TempDir()
	for _, dest := range []string{"layout", "image.tar"} {
		if _, err := transport.Export(ctx, b, img, transport.ExportOptions{Type: "oci", Dest: filepath.Join(dir, dest)}); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "image.tar.gz"), gz(raw), 0o644)
	for name, imp := range map[string]action.Import{
		"layout":  {Layout: "layout", Digest: img.Manifest.Digest.String()},
		"archive": {Tar: "image.tar", Digest: sum(raw)},
		"gzipped": {Tar: "image.tar.gz", Digest: sum(gz(raw))},
	} {
		imp.Platform = "linux/amd64"
		b := blobtest.New(t)
		got, err := transport.Import(ctx, b, imp, dir, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(img, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(want, contents(t, b, got)); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", name, diff)
		}
	}

	// A damaged layer leaves no layer behind.
	damaged := filepath.Join(dir, "layout/blobs/sha256", img.Layers[0].Descriptor.Digest.Encoded())
	text, _ := os.ReadFile(damaged)
	text[10] ^= 1
	os.WriteFile(damaged, text, 0o644)
	fresh := blobtest.New(t)
	_, err = transport.Import(ctx, fresh, action.Import{Layout: "layout", Digest: img.Manifest.Digest.String()}, dir, nil)
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged layer: error is %v", err)
	}
	if n := len(fresh.Blobs(t)); n != 2 {
		t.Errorf("%d blobs after a damaged layer, want manifest and config", n)
	}
}

func gz(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

// dockerSave is an archive of the old kind: a folder for each layer, one layer twice by a link, config at the top.
func dockerSave(t *testing.T, compress func([]byte) []byte) (archive []byte, config string) {
	t.Helper()
	one := tarballOf(t, map[string]string{"etc/one": "1"}, tar.Header{Typeflag: tar.TypeReg, Name: "etc/one"})
	two := tarballOf(t, map[string]string{"etc/two": "2"}, tar.Header{Typeflag: tar.TypeReg, Name: "etc/two"})
	cfg, err := json.Marshal(ocispecs.Image{
		Platform: amd64,
		Config:   ocispecs.ImageConfig{Cmd: []string{"sh"}},
		RootFS:   ocispecs.RootFS{Type: "layers", DiffIDs: digests(one, two, one)},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := map[string]string{
		"abc.json":      string(cfg),
		"1/layer.tar":   string(compress(one)),
		"2/layer.tar":   string(compress(two)),
		"manifest.json": `[{"Config":"abc.json","RepoTags":["x:1"],"Layers":["1/layer.tar","2/layer.tar","3/layer.tar"]}]`,
	}
	return tarballOf(t, text,
		tar.Header{Typeflag: tar.TypeReg, Name: "1/layer.tar"}, tar.Header{Typeflag: tar.TypeReg, Name: "2/layer.tar"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "3/layer.tar", Linkname: "../1/layer.tar"},
		tar.Header{Typeflag: tar.TypeReg, Name: "abc.json"}, tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json"}), string(cfg)
}

func TestImportDockerArchive(t *testing.T) {
	for name, tt := range map[string]struct {
		compress  func([]byte) []byte
		mediaType string
	}{
		"plain": {func(b []byte) []byte { return b }, ocispecs.MediaTypeImageLayerZstd},
		"gzip":  {gz, ocispecs.MediaTypeImageLayerGzip},
	} {
		raw, config := dockerSave(t, tt.compress)
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "saved.tar"), raw, 0o644)
		b := blobtest.New(t)
		img, err := transport.Import(ctx, b, action.Import{Tar: "saved.tar", Digest: sum(raw)}, dir, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(img.ConfigJSON) != config {
			t.Errorf("%s: the config is another: %s", name, img.ConfigJSON)
		}
		for _, l := range img.Layers {
			if l.Descriptor.MediaType != tt.mediaType {
				t.Errorf("%s: a layer has type %s", name, l.Descriptor.MediaType)
			}
		}
		if diff := cmp.Diff([]string{"etc/one 1", "etc/two 2", "etc/one 1"}, contents(t, b, img)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		loaded, err := image.LoadImage(ctx, b, img.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(img, loaded); diff != "" {
			t.Errorf("%s: the image in the store is another:\n%s", name, diff)
		}
	}
	// A layer that is not what the config says.
	raw, _ := dockerSave(t, func(b []byte) []byte { return append(b[:len(b):len(b)], make([]byte, 512)...) })
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "saved.tar"), raw, 0o644)
	_, err := transport.Import(ctx, blobtest.New(t), action.Import{Tar: "saved.tar", Digest: sum(raw)}, dir, nil)
	if err == nil || !strings.Contains(err.Error(), "diff id") {
		t.Errorf("wrong layer: error is %v", err)
	}
}

// What we export for docker, we import.
func TestDockerRoundTrip(t *testing.T) {
	b := blobtest.New(t)
	img := sampleImage(t, b)
	dir := t.TempDir()
	for _, compression := range []string{"", "gzip", "zstd"} {
		var buf bytes.Buffer
		_, err := transport.Export(ctx, b, img, transport.ExportOptions{Type: "docker", Dest: "-", Stdout: &buf, Compression: compression, Name: "wiki:1"})
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(dir, "d.tar"), buf.Bytes(), 0o644)
		fresh := blobtest.New(t)
		got, err := transport.Import(ctx, fresh, action.Import{Tar: "d.tar", Digest: sum(buf.Bytes())}, dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got.Config.Digest != img.Config.Digest {
			t.Errorf("%q: the config changed", compression)
		}
		// Plain layers that our packer made compress to the same bytes again.
		if compression != "gzip" && got.Manifest.Digest != img.Manifest.Digest {
			t.Errorf("%q: the image changed", compression)
		}
		if diff := cmp.Diff(contents(t, b, img), contents(t, fresh, got)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", compression, diff)
		}
	}
}

func TestImportRootFilesystem(t *testing.T) {
	text := map[string]string{"./etc/os-release": "ID=x", "./manifest/x.json": "{}", "./bin/su": "su"}
	raw := tarballOf(t, text,
		tar.Header{Typeflag: tar.TypeReg, Name: "./etc/os-release", Uname: "root"},
		tar.Header{Typeflag: tar.TypeReg, Name: "./bin/su", Mode: 0o4755, Gid: 5},
		tar.Header{Typeflag: tar.TypeChar, Name: "./dev/null", Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeReg, Name: "./manifest/x.json"})
	dir := t.TempDir()
	layers := map[string]string{}
	for file, blob := range map[string][]byte{"root.tar": raw, "root.tar.gz": gz(raw)} {
		os.WriteFile(filepath.Join(dir, file), blob, 0o644)
		b := blobtest.New(t)
		img, err := transport.Import(ctx, b, action.Import{Tar: file, Digest: sum(blob), Platform: "linux/arm64"}, dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"bin/su su", "etc/os-release ID=x", "manifest/x.json {}"}
		if diff := cmp.Diff(want, contents(t, b, img)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
		layers[img.Manifest.Digest.String()] = file
		var c ocispecs.Image
		if err := json.Unmarshal(img.ConfigJSON, &c); err != nil || c.Architecture != "arm64" {
			t.Errorf("%s: config %s", file, img.ConfigJSON)
		}
		n := 0
		layer.Walk(ctx, b.Content(), img.Layers[0].Descriptor, func(h *tar.Header, _ io.Reader) error {
			if h.Name == "bin/su" && (h.Mode != 0o4755 || h.Gid != 5) {
				t.Errorf("%s: bin/su has mode %o and group %d", file, h.Mode, h.Gid)
			}
			n++
			return nil
		})
		if n != 3 {
			t.Errorf("%s: %d members, want 3: no device", file, n)
		}
	}
	if len(layers) != 1 {
		t.Errorf("compression of the tar changes the image: %v", layers)
	}
}
