package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
)

func (a *app) buildCommand() *cobra.Command {
	var (
		exports   []string
		push      []string
		keepGoing bool
		jobs      int
		output    string
	)
	c := &cobra.Command{
		Use:   "build [FLAGS] TARGET…",
		Short: "Build targets; the word build may be left out",
		Long: `Build targets, and only what changed since they were built last.

Each target is printed with the digests of what it is: the manifest of an image, or layers. A target in a pattern that
begins with a dash is left out: mwbuild //... -//extensions/Foo/...`,
		Example: `  mwbuild //extensions/Cite:image -o type=oci,dest=cite.tar
  mwbuild //:wiki --push registry.example/wiki:latest
  mwbuild //... --keep-going --output=json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return usagef("--output=%s: want text or json", output)
			}
			var exs []export
			for _, e := range exports {
				ex, err := parseExport(e)
				if err != nil {
					return usageError{err}
				}
				exs = append(exs, ex)
			}
			for _, ref := range push {
				if err := transport.CheckReference(ref); err != nil {
					return usageError{err}
				}
			}
			return a.build(cmd.Context(), args, buildOptions{exs, push, keepGoing, jobs, output == "json"})
		},
	}
	f := c.Flags()
	f.StringArrayVarP(&exports, "export", "o", nil, "write the one image to type=oci|docker|dir,dest=`PATH`[,compression=zstd|gzip|none][,name=REF]; dest ending .tar is one file, - the standard output")
	f.StringArrayVar(&push, "push", nil, "push the one image to this `reference`")
	f.BoolVarP(&keepGoing, "keep-going", "k", false, "after a failure build what does not need it")
	f.IntVarP(&jobs, "jobs", "j", 0, "how many actions run at once (default one for each processor)")
	f.StringVar(&output, "output", "text", "text, or json: one object on the standard output")
	a.handed.add(f)
	return c
}

type buildOptions struct {
	exports   []export
	push      []string
	keepGoing bool
	jobs      int
	json      bool
}

// An export is one -o.
type export struct{ kind, dest, compression, name string }

func parseExport(s string) (export, error) {
	e := export{}
	for _, field := range strings.Split(s, ",") {
		k, v, ok := strings.Cut(field, "=")
		to := map[string]*string{"type": &e.kind, "dest": &e.dest, "compression": &e.compression, "name": &e.name}[k]
		if !ok || to == nil {
			return e, fmt.Errorf("-o %s: %q: want type=…,dest=…[,compression=…][,name=…]", s, field)
		}
		*to = v
	}
	switch {
	case e.kind != "oci" && e.kind != "docker" && e.kind != "dir":
		return e, fmt.Errorf("-o %s: type: want oci, docker or dir", s)
	case e.dest == "":
		return e, fmt.Errorf("-o %s: dest is missing: where to?", s)
	case e.compression != "" && e.compression != "zstd" && e.compression != "gzip" && e.compression != "none":
		return e, fmt.Errorf("-o %s: compression: want zstd, gzip or none", s)
	}
	return e, nil
}

// report is what --output=json prints. Its names stay.
type report struct {
	Targets []reportTarget `json:"targets"`
	Actions struct {
		build.Count
		Kinds map[string]build.Count `json:"kinds"`
	} `json:"actions"`
	Engine struct {
		Used bool `json:"used"`
	} `json:"engine"`
	Errors []string `json:"errors,omitempty"`
}

type reportTarget struct {
	Label   string         `json:"label"`
	Status  build.Status   `json:"status"`
	Outputs []reportOutput `json:"outputs"`
}

type reportOutput struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
}

func (a *app) build(ctx context.Context, args []string, opt buildOptions) (err error) {
	o, err := a.locate(ctx, false)
	if err != nil {
		return err
	}
	patterns, err := o.patterns(args)
	if err != nil {
		return err
	}
	plain := len(opt.exports) == 0 && len(opt.push) == 0 && a.handed.none()
	command, snapshotOf := o.buildCommandLine(patterns, opt.json), o.buildCommandLine(patterns, false)
	if plain {
		if done, err := o.upToDate(ctx, command); done || err != nil {
			return err
		}
	}
	if err := o.list(ctx); err != nil {
		return err
	}
	for _, e := range opt.exports {
		if err := o.checkDest(ctx, e.dest); err != nil {
			return err
		}
	}
	unlock, err := o.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if plain {
		done, err := o.buildRecalled(ctx, command, snapshotOf, opt)
		if done || err != nil {
			return err
		}
	}
	loaded, loadErrs, err := o.load(ctx, patterns, opt.keepGoing)
	if err != nil {
		if opt.json && loaded != nil {
			return errors.Join(err, a.printJSON(jsonReport(nil, false, loadErrs)))
		}
		return err
	}
	loaded.Targets = withoutTests(loaded.Targets)
	if n := len(loaded.Targets); (len(opt.exports) > 0 || len(opt.push) > 0) && n != 1 {
		return usagef("-o and --push take one target, and %d match", n)
	}
	if errs := embargoOf(o.loaded, loaded.Graph, loaded.Targets, opt.push); len(errs) > 0 {
		return o.reported(errs)
	}
	res, err := o.carryOut(ctx, opt, loadErrs, func(b *build.Builder) (*build.Result, error) {
		if len(opt.exports) == 1 && len(opt.push) == 0 && opt.exports[0].kind == "dir" && build.HasFiles(loaded.Targets[0]) {
			return a.buildFiles(ctx, b, loaded.Targets[0], opt.exports[0].dest)
		}
		res, err := b.Build(ctx, loaded.Targets)
		if err == nil && len(res.Errors) == 0 {
			err = a.deliver(ctx, b, res, opt)
		}
		return res, err
	})
	if plain && err == nil {
		paths := o.looksAt(patterns, loaded)
		o.rememberBuild(command, paths, res, opt)
		o.keepSnapshot(snapshotOf, paths, loaded.Targets, res)
	}
	return err
}

// buildRecalled builds what a snapshot holds, where there is one that still tells, and tells whether it did.
func (o *opened) buildRecalled(ctx context.Context, command, snapshotOf string, opt buildOptions) (done bool, err error) {
	s, r := o.recall(snapshotOf)
	var paths []string
	if s == nil || s.Extra(&paths) != nil {
		return false, nil
	}
	res, err := o.carryOut(ctx, opt, nil, func(b *build.Builder) (*build.Result, error) {
		res, err := b.BuildRecalled(ctx, r)
		if err == nil && len(res.Errors) == 0 {
			err = o.app.deliver(ctx, b, res, opt)
		}
		return res, err
	})
	if errors.Is(err, plan.ErrForgotten) {
		return false, nil
	}
	if err == nil {
		o.rememberBuild(command, paths, res, opt)
		o.renewSnapshot(snapshotOf, s, r, res)
	}
	return true, err
}

func (o *opened) rememberBuild(command string, paths []string, res *build.Result, opt buildOptions) {
	o.rememberResult(command, paths, res, func(a *app) error {
		if opt.json {
			return a.printJSON(jsonReport(res, false, nil).again())
		}
		return a.printTargets(res)
	})
}

// carryOut does work, twice if need be, and says what came of it. loadErrs are said already.
func (o *opened) carryOut(ctx context.Context, opt buildOptions, loadErrs []error, work func(*build.Builder) (*build.Result, error)) (res *build.Result, err error) {
	a := o.app
	b, closeBuilder, err := o.builder(opt.jobs, opt.keepGoing)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeBuilder()) }()
	res, err = a.healing(ctx, b, func() (*build.Result, error) { return work(b) })
	used := b.Engine.Used()
	// The display ends before anything else is said.
	if cerr := b.Display.Close(); err == nil {
		err = cerr
	}
	if ctx.Err() != nil {
		return res, ctx.Err()
	}
	if err != nil {
		return res, err
	}
	o.report(res.Errors)
	all, _ := res.Counts()
	if len(res.Errors) == 0 {
		if len(res.Targets) == 0 {
			a.note("no target matches; those tagged manual must be named")
		} else if all.Executed == 0 {
			a.note("%s up to date", plural(len(res.Targets), "target"))
		} else {
			a.note("%s built, %d of %s executed: %s", plural(len(res.Targets), "target"), all.Executed, plural(all.Total, "action"), build.Summary(res.Why))
		}
	}
	if opt.json {
		err = a.printJSON(jsonReport(res, used, append(loadErrs, res.Errors...)))
	} else {
		err = a.printTargets(res)
	}
	if len(res.Errors) > 0 || len(loadErrs) > 0 {
		err = errors.Join(err, errReported)
	}
	return res, err
}

// healing does work, and once more if it failed where blobs of the cache are damaged: a disk that lost bytes looks like a failure of whatever read
// them. Once they are gone they are made again.
func (a *app) healing(ctx context.Context, b *build.Builder, work func() (*build.Result, error)) (*build.Result, error) {
	res, err := work()
	if res == nil || err == nil && len(res.Errors) == 0 {
		return res, err
	}
	if damaged, herr := b.Heal(ctx, res); herr == nil && len(damaged) > 0 {
		a.note("%s in the cache was damaged: building again", plural(len(damaged), "blob"))
		return work()
	}
	return res, err
}

// checkDest refuses a place in the workspace that the next build would take for a source.
func (o *opened) checkDest(ctx context.Context, dest string) error {
	if dest == "-" {
		return nil
	}
	abs, err := filepath.Abs(dest)
	if err != nil {
		return err
	}
	// The folder may be reached through links; what is to be made in it need not exist.
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(dir, filepath.Base(abs))
	}
	rel, err := filepath.Rel(o.root, abs)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return nil
	}
	if rel == "." || !o.tree.Ignored(ctx, filepath.ToSlash(rel)) {
		return usagef("%s lies in the workspace, where the next build would take it for a source\n    write it elsewhere, or have git or .mwbuildignore ignore it", dest)
	}
	return nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (a *app) printTargets(res *build.Result) error {
	for _, t := range res.Targets {
		for _, r := range t.Outputs {
			for _, d := range r.Descriptors() {
				if _, err := fmt.Fprintf(a.std.out, "%s %s\n", t.Target.Label, d.Digest); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.std.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func jsonReport(res *build.Result, engine bool, errs []error) report {
	r := report{Targets: []reportTarget{}}
	r.Actions.Kinds = map[string]build.Count{}
	for _, err := range errs {
		r.Errors = append(r.Errors, err.Error())
	}
	r.Engine.Used = engine
	if res == nil {
		return r
	}
	for _, t := range res.Targets {
		rt := reportTarget{Label: t.Target.Label.String(), Status: t.Status, Outputs: []reportOutput{}}
		for _, rec := range t.Outputs {
			for _, d := range rec.Descriptors() {
				rt.Outputs = append(rt.Outputs, reportOutput{d.Digest.String(), d.MediaType, d.Size})
			}
		}
		r.Targets = append(r.Targets, rt)
	}
	r.Actions.Count, r.Actions.Kinds = res.Counts()
	return r
}

// again is the report of the same build once more, with nothing to do.
func (r report) again() report {
	for i := range r.Targets {
		r.Targets[i].Status = build.Cached
	}
	r.Actions.Count = idle(r.Actions.Count)
	for title, c := range r.Actions.Kinds {
		r.Actions.Kinds[title] = idle(c)
	}
	return r
}

func idle(c build.Count) build.Count {
	return build.Count{Total: c.Total, Cached: c.Cached + c.Executed}
}

// tagName is what other tools can call an image: extensions/Cite:image, or wiki for //:wiki, and wiki@prod in configuration prod.
func tagName(id graph.ID) string {
	name := strings.TrimPrefix(strings.TrimPrefix(id.Label.String(), "//"), ":")
	if id.Config != "" {
		name += "@" + strings.NewReplacer(" ", "-", "=", "-", `"`, "").Replace(id.Config)
	}
	return name
}

// deliver exports and pushes the one target.
func (a *app) deliver(ctx context.Context, b *build.Builder, res *build.Result, opt buildOptions) error {
	tags := map[string]ocispecs.Descriptor{}
	for _, t := range res.Targets {
		for _, r := range t.Outputs {
			if r.Image != nil {
				tags[tagName(t.Target.ID)] = r.Image.Manifest
			}
		}
	}
	if err := b.Store.Tag(tags); err != nil {
		a.log.Debug("index.json was not written", "err", err) // a convenience for other tools, as with a read-only cache
	}
	if len(opt.exports) == 0 && len(opt.push) == 0 {
		return nil
	}
	t := res.Targets[0]
	var im *image.Image
	var layers []image.Layer
	for _, r := range t.Outputs {
		layers = append(layers, r.Layers...)
		if r.Image != nil {
			if im != nil {
				return usagef("%s makes several images; name one of them", t.Target.Label)
			}
			im = r.Image
		}
	}
	if im == nil {
		if len(layers) == 0 {
			return usagef("%s makes nothing to export", t.Target.Label)
		}
		// Layers alone can be looked at: they become an image without configuration.
		named := make([]image.NamedLayer, len(layers))
		for i, l := range layers {
			named[i] = image.NamedLayer{Layer: l, CreatedBy: "mwbuild layer"}
		}
		if len(opt.push) > 0 {
			return usagef("%s is no image, so it cannot be pushed; a component has an :image", t.Target.Label)
		}
		made, err := image.Assemble(ctx, b.Store, nil, named, action.Config{}, ocispecs.Platform{OS: "linux", Architecture: "amd64"})
		if err != nil {
			return err
		}
		im = &made
	}
	for _, e := range opt.exports {
		task := b.Display.Task("export to " + e.dest)
		task.Start()
		err := a.export(ctx, b, *im, e, t.Target.Label.String())
		task.Done(err)
		if err != nil {
			return err
		}
	}
	for _, ref := range opt.push {
		task := b.Display.Task("push to " + ref)
		task.Start()
		blobs, there, total := task.Status("blobs"), int64(0), im.Config.Size
		for _, l := range im.Layers {
			total += l.Descriptor.Size
		}
		stats, err := transport.Push(ctx, b.Store, *im, ref, transport.PushOptions{
			Keychain: authn.DefaultKeychain, Jobs: opt.jobs,
			Progress: func(e transport.Event) {
				there += e.Descriptor.Size
				blobs.Update(there, total)
			},
		})
		task.Done(err)
		if err != nil {
			return fmt.Errorf("push to %s: %w", ref, err)
		}
		a.note("pushed %s@%s: %d blobs uploaded, %d mounted, %d there", ref, im.Manifest.Digest, stats.Uploaded, stats.Mounted, stats.Existing)
	}
	return nil
}

func (a *app) export(ctx context.Context, b *build.Builder, im image.Image, e export, label string) error {
	if e.name == "" && e.kind == "docker" {
		// //extensions/Cite:image is loaded as extensions/cite:image.
		pkg, name, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(label, "//")), ":")
		e.name = strings.TrimPrefix(pkg+":"+name, ":")
	}
	_, err := transport.Export(ctx, b.Store, im, transport.ExportOptions{
		Type: e.kind, Dest: e.dest, Compression: e.compression, Name: e.name, Stdout: a.std.out, Keychain: authn.DefaultKeychain,
	})
	return err
}
