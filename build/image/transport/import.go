package transport

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/graph/action"
)

// Import makes the image that imp names known to b. Relative paths are below root. A nil keychain is the user's own.
//
// From a registry, manifest and config are fetched, unless they are in b already; the layers stay there. From a layout or a tar, the layers
// are copied to b. From an index the image of imp.Platform is taken (default: linux on this machine's architecture).
// Everything is verified; of a tar, the digest is that of the file, compressed or not as it lies there.
//
// The manifest is the one found, whatever its media types. Only a docker-archive and a root filesystem have none: those get one of ours. A
// docker-archive keeps its config, and plain layers in it are compressed. A root filesystem is packed into one layer, without its
// device nodes.
func Import(ctx context.Context, b image.Blobs, imp action.Import, root string, kc authn.Keychain) (image.Image, error) {
	where := imp.Registry + imp.Layout + imp.Tar
	fail := func(err error) (image.Image, error) {
		return image.Image{}, fmt.Errorf("import %s@%s: %w", where, imp.Digest, err)
	}
	want, err := digest.Parse(imp.Digest)
	if err != nil || want.Algorithm() != digest.SHA256 {
		return image.Image{}, fmt.Errorf("import %s: %q is no sha256 digest", where, imp.Digest)
	}
	platform := ocispecs.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if imp.Platform != "" {
		if platform, err = platforms.Parse(imp.Platform); err != nil {
			return fail(err)
		}
	}
	platform = platforms.Normalize(platform)

	local := func(p string) string {
		if filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(root, p)
	}
	var img image.Image
	switch {
	case imp.Registry != "":
		img, err = importRegistry(ctx, b, imp.Registry, want, platform, kc)
	case imp.Layout != "":
		img, err = importLayout(ctx, b, local(imp.Layout), want, platform)
	case imp.Tar != "":
		img, err = importTar(ctx, b, local(imp.Tar), want, platform)
	default:
		err = errors.New("neither registry, layout nor tar says where the image is")
	}
	if err != nil {
		return fail(err)
	}
	return img, nil
}

// maxJSON bounds what is read into memory of a manifest, index or config.
const maxJSON = 16 << 20

// A getter reads a manifest, index or config from where an image is.
type getter func(ctx context.Context, d digest.Digest, manifest bool) ([]byte, error)

// verified is get over b: what b has is not fetched, and what is fetched has its digest.
func verified(b image.Blobs, get getter) getter {
	return func(ctx context.Context, d digest.Digest, manifest bool) ([]byte, error) {
		if info, err := b.Content().Info(ctx, d); err == nil {
			if raw, err := image.ReadJSON(ctx, b.Content(), ocispecs.Descriptor{Digest: d, Size: info.Size}); err == nil {
				return raw, nil
			}
		}
		raw, err := get(ctx, d, manifest)
		if err != nil {
			return nil, err
		}
		if got := digest.FromBytes(raw); got != d {
			return nil, fmt.Errorf("%s: damaged where it comes from: its digest is %s", d, got)
		}
		return raw, nil
	}
}

// a document is a manifest or an index.
type document struct {
	MediaType string                `json:"mediaType"`
	Schema    int                   `json:"schemaVersion"`
	Config    *ocispecs.Descriptor  `json:"config"`
	Manifests []ocispecs.Descriptor `json:"manifests"`
}

// resolve brings manifest and config of want, or of what an index of that digest has for platform, into b.
func resolve(ctx context.Context, b image.Blobs, get getter, want digest.Digest, platform ocispecs.Platform) (image.Image, error) {
	get = verified(b, get)
	for range 4 { // an index of indexes is rare, deeper ones are a mistake
		raw, err := get(ctx, want, true)
		if err != nil {
			return image.Image{}, err
		}
		var doc document
		if err := json.Unmarshal(raw, &doc); err != nil {
			return image.Image{}, fmt.Errorf("%s is no manifest: %w", want, err)
		}
		switch {
		case doc.Config != nil && doc.Config.Digest != "":
			if doc.MediaType == "" {
				doc.MediaType = ocispecs.MediaTypeImageManifest
			}
			config, err := get(ctx, doc.Config.Digest, false)
			if err != nil {
				return image.Image{}, fmt.Errorf("config: %w", err)
			}
			if _, err := b.Put(ctx, doc.Config.MediaType, config); err != nil {
				return image.Image{}, err
			}
			d, err := b.Put(ctx, doc.MediaType, raw)
			if err != nil {
				return image.Image{}, err
			}
			return image.LoadImage(ctx, b, ocispecs.Descriptor{MediaType: doc.MediaType, Digest: d.Digest, Size: d.Size})
		case doc.Manifests != nil:
			if doc.MediaType == "" {
				doc.MediaType = ocispecs.MediaTypeImageIndex
			}
			if _, err := b.Put(ctx, doc.MediaType, raw); err != nil {
				return image.Image{}, err
			}
			if want, err = pick(doc.Manifests, platform); err != nil {
				return image.Image{}, err
			}
		default:
			return image.Image{}, fmt.Errorf("%s is neither an image manifest nor an index (media type %q, schema %d)", want, doc.MediaType, doc.Schema)
		}
	}
	return image.Image{}, fmt.Errorf("%s: indexes are nested too deep", want)
}

// pick chooses the image for platform. One that names no platform is taken only if it is alone.
func pick(all []ocispecs.Descriptor, platform ocispecs.Platform) (digest.Digest, error) {
	var here []string
	var best *ocispecs.Descriptor
	match := platforms.Only(platform)
	for i, d := range all {
		if d.Platform == nil {
			here = append(here, "no platform")
			if len(all) == 1 {
				best = &all[i]
			}
			continue
		}
		here = append(here, platforms.Format(*d.Platform))
		if match.Match(*d.Platform) && (best == nil || match.Less(*d.Platform, *best.Platform)) {
			best = &all[i]
		}
	}
	if best == nil {
		return "", fmt.Errorf("no image for %s in the index; it has %s", platforms.Format(platform), strings.Join(here, ", "))
	}
	return best.Digest, nil
}

// Lookup asks a registry which manifest or index a reference, REPOSITORY:TAG, names now. A nil keychain is the user's own.
func Lookup(ctx context.Context, ref string, kc authn.Keychain) (digest.Digest, error) {
	tag, err := name.NewTag(ref)
	if err != nil {
		return "", err
	}
	d, err := remote.Head(tag, remoteOptions(ctx, kc)...)
	if err != nil { // not every registry answers that
		got, gerr := remote.Get(tag, remoteOptions(ctx, kc)...)
		if gerr != nil {
			return "", gerr
		}
		return digest.FromBytes(got.Manifest), nil
	}
	return digest.Parse(d.Digest.String())
}

func importRegistry(ctx context.Context, b image.Blobs, repository string, want digest.Digest, platform ocispecs.Platform, kc authn.Keychain) (image.Image, error) {
	repo, err := name.NewRepository(repository)
	if err != nil {
		return image.Image{}, err
	}
	puller, err := remote.NewPuller(remoteOptions(ctx, kc)...)
	if err != nil {
		return image.Image{}, err
	}
	get := func(ctx context.Context, d digest.Digest, manifest bool) ([]byte, error) {
		ref := repo.Digest(d.String())
		if manifest {
			m, err := puller.Get(ctx, ref)
			if err != nil {
				return nil, err
			}
			return m.Manifest, nil
		}
		blob, err := puller.Layer(ctx, ref)
		if err != nil {
			return nil, err
		}
		r, err := blob.Compressed()
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(io.LimitReader(r, maxJSON))
	}
	img, err := resolve(ctx, b, get, want, platform)
	if err != nil {
		return image.Image{}, err
	}
	for i := range img.Layers {
		img.Layers[i].Source = repo.Name()
	}
	return img, nil
}

func importLayout(ctx context.Context, b image.Blobs, dir string, want digest.Digest, platform ocispecs.Platform) (image.Image, error) {
	blob := func(d digest.Digest) string { return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded()) }
	get := func(_ context.Context, d digest.Digest, _ bool) ([]byte, error) {
		if err := d.Validate(); err != nil {
			return nil, err
		}
		f, err := os.Open(blob(d))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the layout has no blob %s; its index.json says what it has", d)
		} else if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, maxJSON))
	}
	img, err := resolve(ctx, b, get, want, platform)
	if err != nil {
		return image.Image{}, err
	}
	for _, l := range img.Layers {
		if b.Has(l.Descriptor) {
			continue
		}
		if err := l.Descriptor.Digest.Validate(); err != nil {
			return image.Image{}, err
		}
		f, err := os.Open(blob(l.Descriptor.Digest))
		if err != nil {
			return image.Image{}, fmt.Errorf("layer: %w", err)
		}
		err = ingest(ctx, b, l.Descriptor, f)
		f.Close()
		if err != nil {
			return image.Image{}, err
		}
	}
	return img, nil
}

// An archive is what a first pass over a tar finds: the JSON in it that may describe an image, and links, by clean name.
type archive struct {
	json  map[string][]byte
	links map[string]string
}

// importTar reads the tar twice: to check its digest and learn what it is, then to take it over.
func importTar(ctx context.Context, b image.Blobs, file string, want digest.Digest, platform ocispecs.Platform) (image.Image, error) {
	f, err := os.Open(file)
	if err != nil {
		return image.Image{}, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return image.Image{}, err
	}
	a, err := scan(ctx, f, want)
	if err != nil {
		return image.Image{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return image.Image{}, err
	}

	var img image.Image
	r := ctxReader{ctx, f}
	switch {
	case a.json["manifest.json"] != nil:
		img, err = importDockerArchive(ctx, b, a, r)
	case a.json["index.json"] != nil && a.json["oci-layout"] != nil:
		img, err = importOCIArchive(ctx, b, a, r, platform)
	default:
		var l image.Layer
		if l, err = layer.FromTar(ctx, b, r); err == nil {
			img, err = image.Assemble(ctx, b, nil, []image.NamedLayer{{Layer: l, CreatedBy: "imported root filesystem"}}, action.Config{}, platform)
		}
	}
	if err != nil {
		return image.Image{}, err
	}
	if after, err := f.Stat(); err != nil {
		return image.Image{}, err
	} else if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return image.Image{}, errors.New("the tar changed while it was being read; build again")
	}
	return img, nil
}

func scan(ctx context.Context, f io.Reader, want digest.Digest) (*archive, error) {
	h := sha256.New()
	raw := io.TeeReader(ctxReader{ctx, f}, h)
	a := &archive{json: map[string][]byte{}, links: map[string]string{}}
	err := layer.WalkTar(raw, func(hdr *tar.Header, r io.Reader) error {
		name := clean(hdr.Name)
		if hdr.Linkname != "" && strings.HasSuffix(name, ".tar") {
			if hdr.Typeflag == tar.TypeSymlink {
				a.links[name] = path.Join(path.Dir(name), hdr.Linkname)
			} else {
				a.links[name] = clean(hdr.Linkname)
			}
		}
		// A root filesystem has many JSON files, but not there.
		if hdr.Typeflag != tar.TypeReg || hdr.Size > maxJSON || strings.Contains(name, "/") && !strings.HasPrefix(name, "blobs/") {
			return nil
		}
		br := bufio.NewReader(r)
		if c, _ := br.Peek(1); len(c) == 1 && (c[0] == '{' || c[0] == '[') {
			text, err := io.ReadAll(br)
			a.json[name] = text
			return err
		}
		return nil
	})
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	// The digest first: that it is another file says more than that it is no tar.
	if _, cerr := io.Copy(io.Discard, raw); cerr != nil {
		return nil, cerr
	}
	if got := digest.NewDigest(digest.SHA256, h); got != want {
		return nil, fmt.Errorf("the file has digest %s; if it is the one you want, write that", got)
	}
	return a, err
}

// clean is how members of an archive are named here.
func clean(name string) string { return path.Clean("/" + name)[1:] }

// importDockerArchive takes what `docker save` writes.
func importDockerArchive(ctx context.Context, b image.Blobs, a *archive, r io.Reader) (image.Image, error) {
	var manifests []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(a.json["manifest.json"], &manifests); err != nil {
		return image.Image{}, fmt.Errorf("manifest.json: %w", err)
	}
	if len(manifests) != 1 {
		return image.Image{}, fmt.Errorf("the archive holds %d images; save one only", len(manifests))
	}
	m := manifests[0]
	config := a.json[clean(m.Config)]
	var c ocispecs.Image
	if err := json.Unmarshal(config, &c); err != nil {
		return image.Image{}, fmt.Errorf("config %q: %w", m.Config, err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return image.Image{}, fmt.Errorf("manifest.json has %d layers, the config %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	layers := make([]image.Layer, len(m.Layers))
	places := map[string][]int{} // by name in the archive, which layers it is
	for i, name := range m.Layers {
		name = clean(name)
		for hops := 0; a.links[name] != "" && hops < 255; hops++ {
			name = a.links[name]
		}
		places[name] = append(places[name], i)
	}
	err := layer.WalkTar(r, func(h *tar.Header, r io.Reader) error {
		name := clean(h.Name)
		if len(places[name]) == 0 || h.Typeflag != tar.TypeReg {
			return nil
		}
		l, err := takeLayer(ctx, b, r)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, i := range places[name] {
			if want := c.RootFS.DiffIDs[i]; l.DiffID != want {
				return fmt.Errorf("%s: the layer's diff id is %s, but the config has %s", name, l.DiffID, want)
			}
			layers[i] = l
		}
		return nil
	})
	if err != nil {
		return image.Image{}, err
	}
	for i, l := range layers {
		if l.DiffID == "" {
			return image.Image{}, fmt.Errorf("the archive lacks layer %s", m.Layers[i])
		}
	}
	return image.Write(ctx, b, config, layers)
}

// takeLayer stores a tar compressed by us, or a compressed one as it is.
func takeLayer(ctx context.Context, b image.Blobs, r io.Reader) (image.Layer, error) {
	br := bufio.NewReader(r)
	magic, _ := br.Peek(4)
	mediaType := ""
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		mediaType = ocispecs.MediaTypeImageLayerGzip
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		mediaType = ocispecs.MediaTypeImageLayerZstd
	default:
		return layer.Compress(ctx, b, br)
	}
	d, err := b.Ingest(ctx, mediaType, func(w io.Writer) error {
		_, err := io.Copy(w, br)
		return err
	})
	if err != nil {
		return image.Layer{}, err
	}
	u, err := layer.OpenBlob(ctx, b.Content(), d)
	if err != nil {
		return image.Layer{}, err
	}
	defer u.Close()
	diffID, err := digest.FromReader(u)
	return image.Layer{Descriptor: d, DiffID: diffID}, err
}

// importOCIArchive takes a layout in a tar.
func importOCIArchive(ctx context.Context, b image.Blobs, a *archive, r io.Reader, platform ocispecs.Platform) (image.Image, error) {
	index := a.json["index.json"]
	get := func(_ context.Context, d digest.Digest, _ bool) ([]byte, error) {
		if d == digest.FromBytes(index) {
			return index, nil
		}
		raw, ok := a.json["blobs/sha256/"+d.Encoded()]
		if !ok {
			return nil, fmt.Errorf("the archive has no manifest or config %s", d)
		}
		return raw, nil
	}
	img, err := resolve(ctx, b, get, digest.FromBytes(index), platform)
	if err != nil {
		return image.Image{}, err
	}
	missing := map[string]ocispecs.Descriptor{}
	for _, l := range img.Layers {
		if !b.Has(l.Descriptor) {
			missing["blobs/sha256/"+l.Descriptor.Digest.Encoded()] = l.Descriptor
		}
	}
	err = layer.WalkTar(r, func(h *tar.Header, r io.Reader) error {
		name := clean(h.Name)
		d, ok := missing[name]
		if !ok {
			return nil
		}
		delete(missing, name)
		return ingest(ctx, b, d, r)
	})
	if err != nil {
		return image.Image{}, err
	}
	for name := range missing {
		return image.Image{}, fmt.Errorf("the archive lacks layer %s", name)
	}
	return img, nil
}
