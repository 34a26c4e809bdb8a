package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/rules/debian/mirror"
)

// Fetch opens the .deb d at the first of its mirrors that has it, or, where it names none, of those that apt's configuration
// in aptDir (/etc/apt) names.
func Fetch(ctx context.Context, f *mirror.Fetcher, aptDir string, d action.Download) (io.ReadCloser, error) {
	urls := d.Mirrors
	if len(urls) == 0 {
		var err error
		if urls, err = mirror.AptURLs(aptDir); err != nil {
			return nil, fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	var tried []string
	reached := false
	for _, u := range urls {
		r, err := f.Open(ctx, u, d.Path)
		if err == nil {
			return r, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		reached = reached || errors.Is(err, mirror.ErrNotFound)
		tried = append(tried, err.Error())
	}
	next := "what was fetched once is kept, and mirrors drop versions that were replaced. Any of these helps:\n" +
		"    - a cache in which it still is (--cache-dir), or a blob of that digest put into its store\n" +
		"    - an archive that keeps old versions, in the target's mirrors\n" +
		"    - the version of now: mwbuild lock --upgrade"
	if !reached {
		next = "is the network there? " + next
	}
	return nil, fmt.Errorf("sha256:%s is not to be had:\n    %s\n    %s", d.SHA256, strings.Join(tried, "\n    "), next)
}
