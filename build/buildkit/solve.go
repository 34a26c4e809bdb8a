package buildkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/docker/cli/cli/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/mwbuild/mwbuild/build/lower"
)

const (
	// tries is how often a solve is begun when the engine goes away.
	tries = 3
	// cancelLimit is how long a cancelled solve may take to wind up before it is left to itself.
	cancelLimit = 3 * time.Second
)

// A Request is one graph to solve.
type Request struct {
	Name  string // of the target, for messages
	Graph lower.Graph
	Store content.Store // holds the layers that Graph names, and gets the result

	// Config, where set, is an image configuration: the result is then the image of that configuration, with Manifest
	// and Layers, and not a single layer. Its rootfs and history are as the exporter makes them.
	Config []byte

	// Secrets are values that steps may ask for, by id, and SSH the sockets or keys of the agents, by id (the user's own
	// agent, where that is empty). Secrets are taken out of what is said of the solve.
	Secrets map[string][]byte
	SSH     map[string][]string

	// Log gets all that steps print, as it comes. What cannot be written to it is lost. It may be nil.
	Log io.Writer

	// Status is told of progress, from one goroutine at a time, and should not block. It may be nil.
	Status func(*client.SolveStatus)
}

// A Result is what a solve left in the request's store. The exporter's own manifest and configuration are there too,
// even where only the layer was asked for; nothing refers to them.
type Result struct {
	Layer    ocispecs.Descriptor // the one layer; zero where Config was set, or where the graph's result is empty
	DiffID   digest.Digest
	Manifest ocispecs.Descriptor // of the exported image
	Layers   []ocispecs.Descriptor
}

// A StepError is a step that failed, or whose program could not be started (the log says so). It is never tried again.
type StepError struct {
	Name     string // of the step, as given to package lower
	ExitCode int    // -1 where it is not known
	Log      []byte // the last lines of its output, stdout and stderr together
	Err      error
}

func (e *StepError) Error() string {
	if e.ExitCode >= 0 {
		return fmt.Sprintf("%s: exit code %d", e.Name, e.ExitCode)
	}
	return fmt.Sprintf("%s: %v", e.Name, e.Err)
}

func (e *StepError) Unwrap() error { return e.Err }

// Solve solves one graph, starting the engine if need be. A cancelled ctx ends it within a few seconds, with an error
// that is context.Canceled (or the deadline's).
func (e *Engine) Solve(ctx context.Context, req Request) (Result, error) {
	var err error
	for try := 1; ; try++ {
		var res Result
		res, err = e.solve(ctx, req)
		var step *StepError
		switch {
		case err == nil:
			return res, nil
		case ctx.Err() != nil:
			return Result{}, fmt.Errorf("%s: %w", req.Name, ctx.Err())
		case errors.As(err, &step), errors.Is(err, ErrNoEngine):
			return Result{}, err
		case !engineGone(err):
			return Result{}, fmt.Errorf("%s: %w", req.Name, err)
		case try == tries:
			return Result{}, fmt.Errorf("%s: %w", req.Name, &goneError{e.o.Addr, err})
		}
		e.o.Log.Debug("engine went away; trying again", "target", req.Name, "err", err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(try) * 200 * time.Millisecond):
		}
	}
}

func (e *Engine) solve(ctx context.Context, req Request) (Result, error) {
	c, release, err := e.connect(ctx)
	if err != nil {
		return Result{}, err
	}
	def, err := llb.ReadFrom(bytes.NewReader(req.Graph.Definition))
	if err != nil {
		return Result{}, fmt.Errorf("the graph to solve: %w", err)
	}
	export := &exportStore{Store: req.Store, id: identity.NewID()}
	attrs := map[string]string{
		"tar":               "false",
		"oci-mediatypes":    "true",
		"compression":       "zstd",
		"source-date-epoch": "0",
	}
	if req.Config != nil {
		attrs[exptypes.ExporterImageConfigKey] = string(req.Config)
	}
	offered, err := attachables(req)
	if err != nil {
		return Result{}, err
	}
	opt := client.SolveOpt{
		Exports:   []client.ExportEntry{{Type: client.ExporterOCI, Attrs: attrs, OutputStore: export}},
		OCIStores: map[string]content.Store{lower.StoreID: &sourceStore{Store: req.Store, extra: req.Graph.Manifests}},
		Session:   offered,
		Internal:  true, // no build history, and none of the provenance that goes into it
	}
	logs, redactor := newLogs(), newRedactor(req.Secrets)
	tell := func(s *client.SolveStatus) {
		logs.add(s)
		if req.Log != nil {
			for _, l := range s.Logs {
				if _, err := req.Log.Write(l.Data); err != nil {
					break
				}
			}
		}
		if req.Status != nil {
			req.Status(s)
		}
	}
	status := make(chan *client.SolveStatus)
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		for s := range status {
			for _, v := range s.Vertexes {
				// The exporter's own lines do not say what they export.
				if strings.HasPrefix(v.Name, "exporting to ") {
					v.Name = req.Name + ": " + v.Name
				}
			}
			redactor.status(s)
			tell(s)
		}
		if rest := redactor.flush(""); len(rest) > 0 {
			tell(&client.SolveStatus{Logs: rest})
		}
	}()
	type outcome struct {
		resp *client.SolveResponse
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		defer release()
		resp, err := c.Solve(ctx, def, opt, status)
		<-seen
		if err != nil {
			export.abort()
		}
		ended <- outcome{resp, err}
	}()
	var out outcome
	select {
	case out = <-ended:
	case <-ctx.Done():
		select {
		case out = <-ended:
		case <-time.After(cancelLimit):
			return Result{}, context.Cause(ctx)
		}
	}
	if out.err != nil {
		return Result{}, logs.stepError(out.err)
	}
	return read(ctx, req, digest.Digest(out.resp.ExporterResponse[exptypes.ExporterImageDigestKey]))
}

// read finds what the exporter wrote.
func read(ctx context.Context, req Request, d digest.Digest) (Result, error) {
	if err := d.Validate(); err != nil {
		return Result{}, fmt.Errorf("the engine named no result: %w", err)
	}
	var m ocispecs.Manifest
	mb, err := content.ReadBlob(ctx, req.Store, ocispecs.Descriptor{Digest: d})
	if err == nil {
		err = json.Unmarshal(mb, &m)
	}
	if err != nil {
		return Result{}, fmt.Errorf("manifest of the result: %w", err)
	}
	res := Result{
		Manifest: ocispecs.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(mb))},
		Layers:   m.Layers,
	}
	if req.Config != nil {
		return res, nil
	}
	var img ocispecs.Image
	cb, err := content.ReadBlob(ctx, req.Store, m.Config)
	if err == nil {
		err = json.Unmarshal(cb, &img)
	}
	if err != nil {
		return Result{}, fmt.Errorf("configuration of the result: %w", err)
	}
	if len(m.Layers) == 0 && len(img.RootFS.DiffIDs) == 0 {
		return res, nil
	}
	if len(m.Layers) != 1 || len(img.RootFS.DiffIDs) != 1 {
		return Result{}, fmt.Errorf("the result has %d layers, not one", len(m.Layers))
	}
	l := m.Layers[0]
	res.Layer = ocispecs.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size}
	res.DiffID = img.RootFS.DiffIDs[0]
	return res, nil
}

// credentials offers the registry logins of the user's docker configuration to the engine.
func credentials() session.Attachable {
	return authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(config.LoadDefaultConfigFile(io.Discard)),
	})
}

// engineGone says whether err is the engine's end, and not the solve's. An engine that is killed is unavailable; one that
// is asked to end cancels what it does.
func engineGone(err error) bool {
	c := grpcerrors.Code(err)
	return c == codes.Unavailable || c == codes.Canceled
}
