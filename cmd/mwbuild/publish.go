package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/starlark/load"
)

type publishFlags struct {
	tags     []string
	registry string
	deep     bool
	noWait   bool
	jobs     int
	output   string
	attest   *bool // nil is what the registry says
}

func (a *app) publishCommand() *cobra.Command {
	var f publishFlags
	var verify string
	var attest bool
	c := &cobra.Command{
		Use:   "publish [FLAGS] TARGET…",
		Short: "Build images and push them to the workspace's registry",
		Long: `Build images, and push each to its repository of a registry that WORKSPACE declares: all of them by digest first, and then the tags, so that tags move when
everything is there, and never mean an image of which something is missing. In a tag, : and / become -: wmf/1.47.0-wmf.5 is wmf-1.47.0-wmf.5.

What is there is not sent: twice the same is no action and no upload. It may be ended at any time and run again, so a periodic job is this command alone. Another
mwbuild in the workspace is waited for, or with --no-wait an error.

With several platforms, as --platform=linux/amd64,linux/arm64, each target is built for all of them, and its tags mean an index of these images.

With attest = True in registry(), or --attest, each image has its bill of materials (SPDX) and its provenance (SLSA) beside it before a tag means it.

Nothing that is made of an embargoed target goes to a registry that is public.`,
		Example: `  mwbuild publish //... --tag wmf/1.47.0-wmf.5
  mwbuild publish //:wiki --registry public --tag latest --tag 1.47 --output=json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.output != "text" && f.output != "json":
				return usagef("--output=%s: want text or json", f.output)
			case verify != "" && verify != "deep":
				return usagef("--verify=%s: want deep", verify)
			}
			f.deep = verify == "deep"
			if cmd.Flags().Changed("attest") {
				f.attest = &attest
			}
			return a.publish(cmd.Context(), f, args)
		},
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.tags, "tag", nil, "`tag` that is to mean the images; may be repeated; without one they are pushed by digest alone")
	fl.StringVar(&f.registry, "registry", "", "`name` of a registry() of WORKSPACE; the first by default")
	fl.BoolVar(&attest, "attest", false, "put what images are made of, and how, beside them; --attest=false puts nothing, whatever registry() says")
	fl.StringVar(&verify, "verify", "", "deep asks the registry for every blob, even where its manifests say that it is there")
	fl.BoolVar(&f.noWait, "no-wait", false, "fail at once if another mwbuild works in this workspace")
	fl.IntVarP(&f.jobs, "jobs", "j", 0, "how many actions run, and blobs are sent, at once")
	fl.StringVar(&f.output, "output", "text", "text, or json: one object on the standard output")
	a.handed.add(fl)
	return c
}

// publishReport is what publish prints as JSON. Its names stay.
type publishReport struct {
	Images  []published `json:"images"`
	Actions counts      `json:"actions"`
	Engine  struct {
		Used bool `json:"used"`
	} `json:"engine"`
	Errors []string `json:"errors,omitempty"`
}

// A published image is one that is in its repository, and what was done for that.
type published struct {
	Label      string   `json:"label"`
	Repository string   `json:"repository"`
	Digest     string   `json:"digest"`
	Tags       []string `json:"tags"`
	Moved      []string `json:"moved"` // those of the tags that meant something else before
	Uploaded   int      `json:"uploaded"`
	Mounted    int      `json:"mounted"`
	Existing   int      `json:"existing"`
	Bytes      int64    `json:"bytes"` // of what was uploaded
	// Platforms are those of an index.
	Platforms []platformImage `json:"platforms,omitempty"`
	// Attestations are those that were asked for: none where all tags meant the image already.
	Attestations []attestation `json:"attestations,omitempty"`

	image image.Image
	id    graph.ID
}

var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// registryTag is a tag as registries can have it.
func registryTag(tag string) (string, error) {
	t := strings.NewReplacer(":", "-", "/", "-").Replace(tag)
	if !tagPattern.MatchString(t) {
		return "", usagef("--tag=%s: want letters, digits, and _ . - after the first of these, at most 128", tag)
	}
	return t, nil
}

func (a *app) publish(ctx context.Context, f publishFlags, args []string) (err error) {
	var tags []string
	for _, t := range f.tags {
		tag, err := registryTag(t)
		if err != nil {
			return err
		}
		if !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	o, patterns, err := a.openTargets(ctx, args)
	if err != nil {
		return err
	}
	unlock, err := o.lockOr(ctx, f.noWait)
	if err != nil {
		return err
	}
	defer unlock()
	if all, err := platformsOf(a.config.Platform); err != nil || len(all) > 1 {
		if err == nil {
			err = o.publishPlatforms(ctx, patterns, all, tags, f)
		}
		return err
	}
	attests := ""
	if f.attest != nil {
		attests = fmt.Sprint(*f.attest)
	}
	command := "publish\x00" + attests + "\x00" + f.registry + "\x00" + o.buildCommandLine(patterns, false)
	if a.handed.none() {
		if done, err := o.publishRecalled(ctx, command, tags, f); done || err != nil {
			return err
		}
	}
	p, err := o.publication(ctx, patterns, f)
	if err != nil {
		return err
	}
	res, err := o.publishAll(ctx, p.all, p.attester, tags, f, func(b *build.Builder) (*build.Result, error) { return b.Build(ctx, p.targets) })
	if err == nil && a.handed.none() && p.attester == nil {
		var repositories []string
		for _, p := range p.all {
			repositories = append(repositories, p.Repository)
		}
		o.keepSnapshot(command, repositories, p.targets, res)
	}
	return err
}

// A publication is what is to be published.
type publication struct {
	targets  []*graph.Target
	all      []*published
	attester *attester // nil if nothing is to be said about the images
}

// publishRecalled publishes what a snapshot holds, where there is one that still tells, and tells whether it did.
func (o *opened) publishRecalled(ctx context.Context, command string, tags []string, f publishFlags) (done bool, err error) {
	s, r := o.recall(command)
	var repositories []string
	if s == nil || s.Extra(&repositories) != nil || len(repositories) != len(r.Targets) {
		return false, nil
	}
	var all []*published
	for i, repository := range repositories {
		all = append(all, toPublish(r.Targets[i], repository))
	}
	res, err := o.publishAll(ctx, all, nil, tags, f, func(b *build.Builder) (*build.Result, error) { return b.BuildRecalled(ctx, r) })
	if errors.Is(err, plan.ErrForgotten) {
		return false, nil
	}
	if err == nil {
		o.renewSnapshot(command, s, r, res)
	}
	return true, err
}

// publication loads the images that patterns match, and finds where each goes.
func (o *opened) publication(ctx context.Context, patterns []label.Pattern, f publishFlags) (*publication, error) {
	loader, errs := o.loader()
	if len(errs) > 0 {
		return nil, o.reported(errs)
	}
	registry, err := chosenRegistry(loader.Workspace().Registries, f.registry)
	if err != nil {
		return nil, err
	}
	loaded, errs := loader.Load(ctx, patterns)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if len(errs) > 0 {
		return nil, o.reported(errs)
	}
	o.app.warnOfBuildArgs(loader)
	targets := slices.DeleteFunc(withoutTests(loaded.Targets), func(t *graph.Target) bool { return !makesImage(t) })
	if len(targets) == 0 {
		return nil, usagef("no image matches: publish takes targets such as //:wiki and //extensions/Cite:image")
	}
	if errs := embargo(loader, loaded.Graph, targets, registry); len(errs) > 0 {
		return nil, o.reported(errs)
	}
	all, errs := places(targets, registry)
	if len(errs) > 0 {
		return nil, o.reported(errs)
	}
	var at *attester
	if f.attest == nil && registry.Attest || f.attest != nil && *f.attest {
		if at, err = o.attester(loader, loaded.Graph); err != nil {
			return nil, err
		}
	}
	return &publication{targets, all, at}, nil
}

// publishAll builds, pushes, and says what came of it.
func (o *opened) publishAll(ctx context.Context, all []*published, at *attester, tags []string, f publishFlags, buildWith func(*build.Builder) (*build.Result, error)) (res *build.Result, err error) {
	a := o.app
	b, closeBuilder, err := o.builder(f.jobs, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeBuilder()) }()
	work := func() (*build.Result, error) {
		res, err := buildWith(b)
		if err != nil || len(res.Errors) > 0 {
			return res, err
		}
		return res, a.carry(ctx, b, res, all, tags, f, at)
	}
	res, err = a.healing(ctx, b, work)
	used := b.Engine.Used()
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
	if len(res.Errors) > 0 {
		err = errReported
		all = nil
	}
	counts := newCounts()
	counts.add(res)
	return res, errors.Join(err, a.printPublished(f, all, counts, res.Errors, used))
}

// chosenRegistry is the registry of that name, or the first.
func chosenRegistry(all []load.Registry, name string) (load.Registry, error) {
	if len(all) == 0 {
		return load.Registry{}, usagef("WORKSPACE declares no registry\n    add registry(repository = \"registry.example/wiki/{target}\"), or push one image with mwbuild TARGET --push REFERENCE")
	}
	if name == "" {
		return all[0], nil
	}
	var names []string
	for _, r := range all {
		if r.Name == name {
			return r, nil
		}
		names = append(names, cmp.Or(r.Name, "one without a name"))
	}
	return load.Registry{}, usagef("--registry=%s: WORKSPACE declares %s", name, strings.Join(names, ", "))
}

// makesImage tells whether a target's output is an image that is made here, and not one that comes from elsewhere as it is.
func makesImage(t *graph.Target) bool {
	return slices.ContainsFunc(t.Outputs, func(n *action.Node) bool {
		im, ok := n.Do.(*action.Image)
		return ok && im.Import == nil
	})
}

// places are the repositories of targets, each its own.
func places(targets []*graph.Target, r load.Registry) ([]*published, []error) {
	var all []*published
	var errs []error
	by := map[string]*graph.Target{}
	for _, t := range targets {
		repository := r.For(t.Label)
		switch o := by[repository]; {
		case o != nil:
			errs = append(errs, fmt.Errorf("%s: %s: its repository is %s, and so is that of %s: publish one of them, or let registry() in WORKSPACE tell them apart, by {target}", t.Pos, t.Label, repository, o.Label))
			continue
		case transport.CheckReference(repository+":x") != nil:
			errs = append(errs, fmt.Errorf("%s: %s: %s is no name for a repository", t.Pos, t.Label, repository))
			continue
		}
		by[repository] = t
		all = append(all, toPublish(t, repository))
	}
	return all, errs
}

func toPublish(t *graph.Target, repository string) *published {
	return &published{Label: t.Label.String(), Repository: repository, Tags: []string{}, Moved: []string{}, id: t.ID}
}

// imagesOf are the images that a build made, by target.
func imagesOf(res *build.Result) map[graph.ID]*image.Image {
	images := map[graph.ID]*image.Image{}
	for _, t := range res.Targets {
		for _, r := range t.Outputs {
			if r.Image != nil {
				images[t.Target.ID] = r.Image
			}
		}
	}
	return images
}

// carry pushes images by digest, all of them, then with at the documents about them, and then lets tags mean them.
func (a *app) carry(ctx context.Context, b *build.Builder, res *build.Result, all []*published, tags []string, f publishFlags, at *attester) error {
	images := imagesOf(res)
	var total int64
	for _, im := range images {
		total += im.Config.Size
		for _, l := range im.Layers {
			total += l.Descriptor.Size
		}
	}
	task := b.Display.Task("push " + plural(len(all), "image"))
	task.Start()
	status, there := task.Status("blobs"), int64(0)
	p, err := transport.NewPusher(ctx, b.Store, transport.PushOptions{Keychain: authn.DefaultKeychain, Jobs: f.jobs, Deep: f.deep, Progress: func(e transport.Event) {
		there += e.Descriptor.Size
		status.Update(there, total)
	}})
	if err == nil {
		err = each(ctx, all, func(ctx context.Context, to *published) error {
			to.image = *images[to.id]
			previous := ""
			if len(tags) > 0 {
				previous = tags[0]
			}
			st, err := p.Upload(ctx, to.image, to.Repository, previous)
			to.Digest, to.Uploaded, to.Mounted, to.Existing, to.Bytes = to.image.Manifest.Digest.String(), st.Uploaded, st.Mounted, st.Existing, st.Bytes
			return err
		})
	}
	if err == nil && at != nil {
		err = each(ctx, all, func(ctx context.Context, to *published) error { return at.attach(ctx, p, to, tags, f.deep) })
	}
	if err == nil {
		err = tagAll(ctx, p, all, tags)
	}
	task.Done(err)
	return err
}

// tagAll lets tags mean what is in its repository.
func tagAll(ctx context.Context, p *transport.Pusher, all []*published, tags []string) error {
	return each(ctx, all, func(ctx context.Context, to *published) error {
		for _, tag := range tags {
			moved, err := p.Tag(ctx, to.image, to.Repository, tag)
			if err != nil {
				return err
			}
			to.Tags = append(to.Tags, tag)
			if moved {
				to.Moved = append(to.Moved, tag)
			}
		}
		return nil
	})
}

// each does something for all images, several at once, even where it fails for some.
func each(ctx context.Context, all []*published, do func(context.Context, *published) error) error {
	var g errgroup.Group
	g.SetLimit(16)
	var mu sync.Mutex
	var errs []error
	for _, to := range all {
		g.Go(func() error {
			if err := do(ctx, to); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", to.Label, err))
			}
			return nil
		})
	}
	g.Wait()
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// counts are of the actions of one build or several.
type counts struct {
	build.Count
	Kinds map[string]build.Count `json:"kinds"`
}

func newCounts() *counts { return &counts{Kinds: map[string]build.Count{}} }

func (c *counts) add(res *build.Result) {
	sum := func(a, b build.Count) build.Count {
		return build.Count{Total: a.Total + b.Total, Executed: a.Executed + b.Executed, Cached: a.Cached + b.Cached}
	}
	all, kinds := res.Counts()
	c.Count = sum(c.Count, all)
	for title, n := range kinds {
		c.Kinds[title] = sum(c.Kinds[title], n)
	}
}

func (a *app) printPublished(f publishFlags, all []*published, actions *counts, errs []error, engine bool) error {
	r := publishReport{Images: []published{}, Actions: *actions}
	r.Engine.Used = engine
	for _, e := range errs {
		r.Errors = append(r.Errors, e.Error())
	}
	var bytes int64
	uploaded, attached := 0, 0
	for _, p := range all {
		r.Images = append(r.Images, *p)
		bytes += p.Bytes
		uploaded += p.Uploaded
		for _, at := range p.Attestations {
			if at.Uploaded {
				attached++
			}
		}
	}
	if f.output == "json" {
		return a.printJSON(r)
	}
	for _, p := range all {
		names := []string{p.Repository}
		if len(p.Tags) > 0 {
			names = nil
			for _, t := range p.Tags {
				names = append(names, p.Repository+":"+t)
			}
		}
		for _, n := range names {
			if _, err := fmt.Fprintf(a.std.out, "%s %s@%s\n", p.Label, n, p.Digest); err != nil {
				return err
			}
		}
	}
	if len(all) > 0 {
		documents := ""
		if attached > 0 {
			documents = ", " + plural(attached, "document") + " attached"
		}
		a.note("%s, %d of %s executed, %s uploaded (%d bytes)%s", plural(len(all), "image"), r.Actions.Executed, plural(r.Actions.Total, "action"), plural(uploaded, "blob"), bytes, documents)
	}
	return nil
}
