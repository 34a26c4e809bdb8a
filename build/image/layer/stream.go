package layer

import (
	"context"
	"io"

	"github.com/mwbuild/mwbuild/build/image"
)

// Stream stores the uncompressed tar that write writes as a zstd layer, as it is: compressed as [Pack] compresses, so that
// equal tars become equal blobs. Nothing is stored if write fails.
func Stream(ctx context.Context, b image.Blobs, write func(io.Writer) error) (image.Layer, error) {
	return compress(ctx, b, func(_ *packer, w io.Writer) error {
		if err := write(w); err != nil {
			return err
		}
		return ctx.Err()
	})
}
