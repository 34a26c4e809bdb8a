package transport

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/layer"
)

// ExportOptions says what to write, and where.
type ExportOptions struct {
	// Type is "oci", an OCI layout; "docker", an archive for `docker load`, which is an OCI layout too; or "dir", the root filesystem.
	Type string
	// Dest is a file or folder. "-" is Stdout, for archives. An OCI layout is an archive if Dest is "-" or ends in ".tar", else a folder.
	Dest string
	// Compression is "zstd" or "" for the layers as they are, "gzip" or "none" to rewrite those that are otherwise. A docker archive without one has
	// "none", which every Docker loads. It means nothing for "dir".
	Compression string
	// Name is what the image is called in the layout or archive, "repository:tag". Without it, a layout calls it "latest", and a docker
	// archive leaves it without a name.
	Name     string
	Owners   bool           // with "dir", give files their owners; needs root
	Stdout   io.Writer      // for Dest "-"
	Keychain authn.Keychain // for layers that are still in a registry; nil is the user's own
}

// Export writes img as opt says, and returns the manifest that it wrote, which is img's own unless layers were compressed otherwise. Of a
// "dir", it is img's.
//
// What is at Dest is replaced in one step when all is written, or stays as it was. A folder is replaced only if it is empty or, for "oci",
// a layout. The same image and options give the same bytes.
func Export(ctx context.Context, b image.Blobs, img image.Image, opt ExportOptions) (ocispecs.Descriptor, error) {
	d, err := export(ctx, b, img, opt)
	if err != nil {
		return ocispecs.Descriptor{}, fmt.Errorf("export %s to %s: %w", opt.Type, opt.Dest, err)
	}
	return d, nil
}

func export(ctx context.Context, b image.Blobs, img image.Image, opt ExportOptions) (ocispecs.Descriptor, error) {
	var none ocispecs.Descriptor
	folder := opt.Type == "dir" || opt.Type == "oci" && opt.Dest != "-" && !strings.HasSuffix(opt.Dest, ".tar")
	switch {
	case opt.Type != "oci" && opt.Type != "docker" && opt.Type != "dir":
		return none, errors.New("the type must be oci, docker or dir")
	case !slices.Contains([]string{"", "zstd", "gzip", "none"}, opt.Compression):
		return none, fmt.Errorf("unknown compression %q; it may be zstd, gzip or none", opt.Compression)
	case opt.Dest == "":
		return none, errors.New("no destination")
	case opt.Dest == "-" && (folder || opt.Stdout == nil):
		return none, errors.New("a folder cannot be written to standard output")
	case opt.Type == "docker" && opt.Compression == "":
		opt.Compression = "none"
	}
	if folder {
		if err := replaceable(opt.Dest, opt.Type == "oci"); err != nil {
			return none, err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, l := range distinct(img.Layers) {
		g.Go(func() error { return EnsureLayer(gctx, b, l, opt.Keychain) })
	}
	if err := g.Wait(); err != nil {
		return none, err
	}

	// Beside the destination, so that the last step is a rename.
	parent := filepath.Dir(opt.Dest)
	if opt.Dest == "-" {
		parent = ""
	} else if err := os.MkdirAll(parent, 0o777); err != nil {
		return none, err
	}
	tmp, err := os.MkdirTemp(parent, ".mwbuild-export-")
	if err != nil {
		return none, err
	}
	defer removeAll(tmp)
	out := filepath.Join(tmp, "out")

	if opt.Type == "dir" {
		if err := unpack(ctx, b.Content(), img.Layers, out, opt.Owners); err != nil {
			return none, err
		}
		return img.Manifest, replace(out, opt.Dest)
	}
	p, err := prepare(ctx, b, img, opt, filepath.Join(tmp, "layers"))
	if err != nil {
		return none, err
	}
	switch {
	case folder:
		if err := p.writeFolder(ctx, out); err != nil {
			return none, err
		}
		return p.manifest, replace(out, opt.Dest)
	case opt.Dest == "-":
		return p.manifest, p.writeTar(ctx, opt.Stdout)
	}
	f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return none, err
	}
	defer f.Close()
	if err := p.writeTar(ctx, f); err != nil {
		return none, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return none, err
	}
	return p.manifest, os.Rename(out, opt.Dest)
}

// replaceable tells whether the folder may be replaced. We do not delete what we did not make.
func replaceable(dir string, layout bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	} else if err != nil {
		return err
	}
	if layout {
		if _, err := os.Stat(filepath.Join(dir, ocispecs.ImageLayoutFile)); err == nil {
			return nil
		}
		return errors.New("the folder is neither empty nor an OCI layout; name another, or remove it")
	}
	return errors.New("the folder is not empty; name another, or remove it")
}

// replace puts the folder src at dest.
func replace(src, dest string) error {
	if entries, err := os.ReadDir(dest); err == nil && len(entries) > 0 {
		old := src + ".old" // below the temporary folder, which goes
		if err := os.Rename(dest, old); err != nil {
			return err
		}
		if err := os.Rename(src, dest); err != nil {
			return errors.Join(err, os.Rename(old, dest))
		}
		return nil
	}
	return os.Rename(src, dest)
}

// removeAll removes a folder even if there are folders in it that must not be written to.
func removeAll(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	os.RemoveAll(dir)
}

func distinct(layers []image.Layer) []image.Layer {
	seen := map[digest.Digest]bool{}
	return slices.DeleteFunc(slices.Clone(layers), func(l image.Layer) bool {
		old := seen[l.Descriptor.Digest]
		seen[l.Descriptor.Digest] = true
		return old
	})
}

// A parcel is what an OCI layout holds: small files, and blobs.
type parcel struct {
	manifest ocispecs.Descriptor
	files    map[string][]byte // by path in the layout
	blobs    []blobSource      // by digest, each once
}

type blobSource struct {
	ocispecs.Descriptor
	open func() (io.ReadCloser, error)
}

func (s blobSource) path() string { return "blobs/sha256/" + s.Digest.Encoded() }

// prepare compresses layers as opt says, into tmp, and makes what goes around them.
func prepare(ctx context.Context, b image.Blobs, img image.Image, opt ExportOptions, tmp string) (*parcel, error) {
	p := &parcel{manifest: img.Manifest, files: map[string][]byte{}}
	stored := func(d ocispecs.Descriptor) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) {
			ra, err := b.Content().ReaderAt(ctx, d)
			if err != nil {
				return nil, err
			}
			return struct {
				io.Reader
				io.Closer
			}{io.NewSectionReader(ra, 0, ra.Size()), ra}, nil
		}
	}
	layers := slices.Clone(img.Layers)
	if opt.Compression == "gzip" || opt.Compression == "none" {
		changed, err := recompress(ctx, b, layers, opt.Compression, tmp)
		if err != nil {
			return nil, err
		}
		if len(changed) > 0 {
			raw, err := image.MarshalManifest(img.Config, layers)
			if err != nil {
				return nil, err
			}
			p.manifest = ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
			p.files["blobs/sha256/"+p.manifest.Digest.Encoded()] = raw
			p.blobs = changed
		}
	}
	here := map[digest.Digest]bool{}
	for _, s := range p.blobs {
		here[s.Digest] = true
	}
	needed := []ocispecs.Descriptor{img.Config}
	if p.manifest.Digest == img.Manifest.Digest {
		needed = append(needed, img.Manifest)
	}
	for _, l := range layers {
		needed = append(needed, l.Descriptor)
	}
	for _, d := range needed {
		if !here[d.Digest] {
			here[d.Digest] = true
			p.blobs = append(p.blobs, blobSource{d, stored(d)})
		}
	}
	slices.SortFunc(p.blobs, func(a, b blobSource) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return p, p.describe(img, layers, opt)
}

// describe makes index.json and its like.
func (p *parcel) describe(img image.Image, layers []image.Layer, opt ExportOptions) error {
	var config ocispecs.Image
	if err := json.Unmarshal(img.ConfigJSON, &config); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	d := ocispecs.Descriptor{
		MediaType: p.manifest.MediaType, Digest: p.manifest.Digest, Size: p.manifest.Size,
		Annotations: map[string]string{ocispecs.AnnotationRefName: "latest"},
		Platform:    &config.Platform,
	}
	tags := []string{}
	if opt.Name != "" {
		ref, err := name.NewTag(opt.Name)
		if err != nil {
			return err
		}
		d.Annotations[ocispecs.AnnotationRefName] = ref.TagStr()
		d.Annotations["io.containerd.image.name"] = ref.Name()
		tags = []string{strings.TrimSuffix(opt.Name, ":"+ref.TagStr()) + ":" + ref.TagStr()}
	}
	p.files[ocispecs.ImageLayoutFile] = []byte(`{"imageLayoutVersion":"` + ocispecs.ImageLayoutVersion + `"}`)
	var err error
	p.files[ocispecs.ImageIndexFile], err = json.Marshal(ocispecs.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispecs.MediaTypeImageIndex,
		Manifests: []ocispecs.Descriptor{d},
	})
	if err != nil || opt.Type != "docker" {
		return err
	}
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	e := entry{Config: "blobs/sha256/" + img.Config.Digest.Encoded(), RepoTags: tags, Layers: []string{}}
	for _, l := range layers {
		e.Layers = append(e.Layers, "blobs/sha256/"+l.Descriptor.Digest.Encoded())
	}
	p.files["manifest.json"], err = json.Marshal([]entry{e})
	return err
}

// recompress rewrites those of layers that are not compressed as wanted, into files below tmp, and changes their descriptors in place. It
// returns the new blobs, each once.
func recompress(ctx context.Context, b image.Blobs, layers []image.Layer, compression, tmp string) ([]blobSource, error) {
	want := ocispecs.MediaTypeImageLayerGzip
	if compression == "none" {
		want = ocispecs.MediaTypeImageLayer
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return nil, err
	}
	made := map[digest.Digest]*blobSource{} // by the old digest
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, l := range layers {
		// Docker's and OCI's types, distributable or not, end alike.
		t := l.Descriptor.MediaType
		gz := strings.HasSuffix(t, "gzip")
		plain := strings.HasSuffix(t, ".tar") || strings.HasSuffix(t, ".diff.tar")
		if compression == "gzip" && gz || compression == "none" && plain || made[l.Descriptor.Digest] != nil {
			continue
		}
		s := &blobSource{}
		made[l.Descriptor.Digest] = s
		g.Go(func() error {
			file := filepath.Join(tmp, fmt.Sprint(i))
			d, err := recompressOne(gctx, b, l.Descriptor, want, file)
			if err != nil {
				return err
			}
			*s = blobSource{d, func() (io.ReadCloser, error) { return os.Open(file) }}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var changed []blobSource
	for i := range layers {
		if s := made[layers[i].Descriptor.Digest]; s != nil {
			layers[i].Descriptor = s.Descriptor
		}
	}
	for _, s := range made {
		if !slices.ContainsFunc(changed, func(o blobSource) bool { return o.Digest == s.Digest }) {
			changed = append(changed, *s)
		}
	}
	return changed, nil
}

func recompressOne(ctx context.Context, b image.Blobs, d ocispecs.Descriptor, mediaType, file string) (ocispecs.Descriptor, error) {
	r, err := layer.OpenBlob(ctx, b.Content(), d)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	defer r.Close()
	f, err := os.Create(file)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	defer f.Close()
	h := digest.SHA256.Digester()
	out := io.MultiWriter(f, h.Hash())
	if mediaType == ocispecs.MediaTypeImageLayerGzip {
		// No name, no time: the bytes depend on the layer alone.
		z, err := gzip.NewWriterLevel(out, gzip.DefaultCompression)
		if err != nil {
			return ocispecs.Descriptor{}, err
		}
		if _, err = io.Copy(z, r); err == nil {
			err = z.Close()
		}
		if err != nil {
			return ocispecs.Descriptor{}, err
		}
	} else if _, err := io.Copy(out, r); err != nil {
		return ocispecs.Descriptor{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	return ocispecs.Descriptor{MediaType: mediaType, Digest: h.Digest(), Size: size}, f.Close()
}

func (p *parcel) writeFolder(ctx context.Context, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o777); err != nil {
		return err
	}
	for _, s := range p.blobs {
		f, err := os.Create(filepath.Join(dir, s.path()))
		if err != nil {
			return err
		}
		if err := errors.Join(s.copyTo(ctx, f), f.Close()); err != nil {
			return err
		}
	}
	for file, text := range p.files {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o666); err != nil {
			return err
		}
	}
	return nil
}

func (s blobSource) copyTo(ctx context.Context, w io.Writer) error {
	r, err := s.open()
	if err != nil {
		return err
	}
	defer r.Close()
	return copyVerified(ctx, w, r, s.Descriptor)
}

func (p *parcel) writeTar(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	header := func(h tar.Header) error {
		h.ModTime = time.Unix(0, 0)
		return tw.WriteHeader(&h)
	}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := header(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return err
		}
	}
	names := make([]string, 0, len(p.files))
	for file := range p.files {
		names = append(names, file)
	}
	slices.Sort(names)
	for _, file := range names {
		if err := header(tar.Header{Typeflag: tar.TypeReg, Name: file, Mode: 0o644, Size: int64(len(p.files[file]))}); err != nil {
			return err
		}
		if _, err := tw.Write(p.files[file]); err != nil {
			return err
		}
	}
	for _, s := range p.blobs {
		if err := header(tar.Header{Typeflag: tar.TypeReg, Name: s.path(), Mode: 0o644, Size: s.Size}); err != nil {
			return err
		}
		if err := s.copyTo(ctx, tw); err != nil {
			return err
		}
	}
	return tw.Close()
}
