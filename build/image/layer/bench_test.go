package layer_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/layer"
)

// discard is a store that keeps nothing, to measure the packer alone.
type discard struct{ image.Blobs }

func (discard) Ingest(ctx context.Context, t string, write func(io.Writer) error) (ocispecs.Descriptor, error) {
	return ocispecs.Descriptor{}, write(io.Discard)
}

// benchTree is a folder to pack: that of MWBUILD_BENCH_TREE, or 4000 files of invented PHP.
func benchTree(b *testing.B) (dir string, entries []layer.Entry, size int64) {
	dir = os.Getenv("MWBUILD_BENCH_TREE")
	if dir == "" {
		dir = b.TempDir()
		rnd := rand.New(rand.NewChaCha8([32]byte{}))
		for i := range 4000 {
			sub := filepath.Join(dir, fmt.Sprintf("d%d", i/50))
			os.MkdirAll(sub, 0o755)
			var text []byte
			for n := rnd.IntN(400); n >= 0; n-- {
				text = fmt.Appendf(text, "\tpublic function get%d( $value%d ) { return $this->%x; }\n", rnd.IntN(900), rnd.IntN(50), rnd.Uint32())
			}
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d.php", i)), text, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	entries = tree(b, dir)
	for _, e := range entries {
		size += e.Size
	}
	return dir, entries, size
}

func BenchmarkPack(b *testing.B) {
	_, entries, size := benchTree(b)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := layer.Pack(ctx, discard{}, entries, layer.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStdlib packs the same by archive/tar and compress/gzip.
func BenchmarkStdlib(b *testing.B) {
	_, entries, size := benchTree(b)
	b.SetBytes(size)
	for b.Loop() {
		z := gzip.NewWriter(io.Discard)
		tw := tar.NewWriter(z)
		for _, e := range entries {
			if e.Kind != layer.File {
				continue
			}
			if err := tw.WriteHeader(&tar.Header{Name: e.Path, Mode: 0o644, Size: e.Size}); err != nil {
				b.Fatal(err)
			}
			f, err := e.Open()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(tw, f); err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
		if err := tw.Close(); err != nil {
			b.Fatal(err)
		}
		z.Close()
	}
}

// BenchmarkTarZstd packs the same by the programs tar and zstd, each in a process of its own.
func BenchmarkTarZstd(b *testing.B) {
	if _, err := exec.LookPath("zstd"); err != nil {
		b.Skip("no zstd on this machine")
	}
	dir, _, size := benchTree(b)
	b.SetBytes(size)
	for b.Loop() {
		cmd := exec.Command("sh", "-c", "tar --sort=name --mtime=@0 --owner=0 --group=0 -cf - . | zstd -q -T1 > /dev/null")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}
