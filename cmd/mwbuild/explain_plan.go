package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
)

type planFlags struct {
	registry string
	tags     []string
	verify   string
}

// A planned is what a build of the targets would do, and publishing them after it. The names of its JSON form stay.
type planned struct {
	Run     []plannedRun   `json:"run"`
	Cached  int            `json:"cached"` // actions that are up to date
	Fetch   []plannedFetch `json:"fetch"`
	Push    []plannedPush  `json:"push"`
	Damaged []string       `json:"damaged,omitempty"` // blobs here that are not what their names say: made again
}

type plannedRun struct {
	Action string   `json:"action"`
	State  string   `json:"state"` // run, or pending: it runs if what it reads is new
	Why    []string `json:"why"`
}

type plannedFetch struct {
	What  string `json:"what"`
	From  string `json:"from"`
	Bytes int64  `json:"bytes"` // 0 if not known yet
}

type plannedPush struct {
	Label      string            `json:"label"`
	Repository string            `json:"repository"`
	Digest     string            `json:"digest,omitempty"` // unknown before it is built
	State      string            `json:"state"`            // there, missing, or unbuilt
	Missing    int               `json:"missing"`          // blobs that the repository lacks, of those that are known
	Bytes      int64             `json:"bytes"`            // of them
	Tags       map[string]string `json:"tags"`             // what they mean now; "" for nothing
}

func (a *app) explainPlan(ctx context.Context, args []string, f planFlags, asJSON bool) (err error) {
	o, patterns, err := a.openTargets(ctx, args)
	if err != nil {
		return err
	}
	var tags []string
	for _, t := range f.tags {
		tag, err := registryTag(t)
		if err != nil {
			return err
		}
		tags = append(tags, tag)
	}
	loaded, _, err := o.load(ctx, patterns, false)
	if err != nil {
		return err
	}
	targets := withoutTests(loaded.Targets)
	images := slices.DeleteFunc(slices.Clone(targets), func(t *graph.Target) bool { return !makesImage(t) })
	var to []*published
	if registries := o.loaded.Workspace().Registries; len(registries) > 0 || f.registry != "" || len(tags) > 0 {
		r, err := chosenRegistry(registries, f.registry)
		if err != nil {
			return err
		}
		var errs []error
		if to, errs = places(images, r); len(errs) > 0 {
			return o.reported(errs)
		}
	}
	b, closeBuilder, err := o.builder(0, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBuilder()) }()
	is := planned{Run: []plannedRun{}, Fetch: []plannedFetch{}, Push: []plannedPush{}}
	if f.verify == "deep" {
		if is.Damaged, err = damaged(ctx, b, targets); err != nil {
			return err
		}
	}
	explanations, p, err := b.Explain(ctx, targets)
	if err != nil {
		return err
	}
	counted := map[plan.Key]bool{}
	for _, e := range explanations {
		x := a.explanation(e)
		switch {
		case x.State != "cached":
			is.Run = append(is.Run, plannedRun{x.Action, x.State, whyPlanned(x)})
		case !counted[e.Step.Key]:
			counted[e.Step.Key] = true
			is.Cached++
		}
	}
	for _, fetch := range b.Fetches(p) {
		is.Fetch = append(is.Fetch, plannedFetch(fetch))
	}
	if is.Push, err = o.plannedPushes(ctx, b, p, images, to, tags, f.verify == "deep"); err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(is)
	}
	return a.printPlanned(is, tags)
}

// damaged removes damaged blobs of what the targets are made of, and names them.
func damaged(ctx context.Context, b *build.Builder, targets []*graph.Target) ([]string, error) {
	p, err := b.Plan(ctx, targets)
	if err != nil {
		return nil, err
	}
	blobs, err := b.Heal(ctx, &build.Result{Plan: p})
	var names []string
	for _, d := range blobs {
		names = append(names, d.String())
	}
	return names, err
}

func whyPlanned(x explanation) []string {
	var why []string
	for _, c := range x.Changes {
		why = append(why, c.Text)
	}
	switch {
	case x.State == "pending":
		for _, b := range x.Behind {
			why = append(why, "it reads "+b)
		}
	case len(why) == 0:
		why = append(why, x.Because)
	}
	return why
}

// plannedPushes asks the repositories what they have of images, several at once.
func (o *opened) plannedPushes(ctx context.Context, b *build.Builder, p *plan.Plan, targets []*graph.Target, to []*published, tags []string, deep bool) ([]plannedPush, error) {
	pushes := make([]plannedPush, len(to))
	if len(to) == 0 {
		return pushes, nil
	}
	pusher, err := transport.NewPusher(ctx, b.Store, transport.PushOptions{Keychain: authn.DefaultKeychain, Deep: deep})
	if err != nil {
		return nil, err
	}
	byID := map[graph.ID]*graph.Target{}
	for _, t := range targets {
		byID[t.ID] = t
	}
	return pushes, each(ctx, to, func(ctx context.Context, at *published) error {
		im := knownImage(p, byID[at.id])
		is, err := pusher.Check(ctx, im, at.Repository, tags)
		if err != nil {
			return err
		}
		x := plannedPush{Label: at.Label, Repository: at.Repository, Digest: im.Manifest.Digest.String(), State: "missing", Missing: len(is.Missing), Tags: map[string]string{}}
		switch {
		case x.Digest == "":
			x.State = "unbuilt"
		case is.Manifest:
			x.State = "there"
		}
		for _, d := range is.Missing {
			x.Bytes += d.Size
		}
		for t, d := range is.Tags {
			x.Tags[t] = d.String()
		}
		pushes[slices.Index(to, at)] = x
		return nil
	})
}

// knownImage is the image of a target, or, where it is to be built, the layers that it will have as far as they are known.
func knownImage(p *plan.Plan, t *graph.Target) (im image.Image) {
	for _, n := range t.Outputs {
		do, ok := n.Do.(*action.Image)
		if !ok {
			continue
		}
		if r := p.Step(n).Record; r != nil {
			return *r.Image
		}
		for _, l := range do.Layers {
			if r := p.Step(l).Record; r != nil {
				im.Layers = append(im.Layers, r.Layers...)
			}
		}
		if do.Base == nil {
			continue
		}
		if r := p.Step(do.Base).Record; r != nil {
			im.Layers = append(im.Layers, r.Image.Layers...)
		}
	}
	return im
}

func (a *app) printPlanned(is planned, tags []string) error {
	var b strings.Builder
	some := func(all []string) string {
		if n := len(all) - mostNatives; n > 0 {
			return fmt.Sprintf("%s, and %d more", strings.Join(all[:mostNatives], ", "), n)
		}
		return strings.Join(all, ", ")
	}
	for _, r := range is.Run {
		verb := "runs"
		if r.State == "pending" {
			verb = "may run"
		}
		fmt.Fprintf(&b, "%s %s: %s\n", r.Action, verb, some(r.Why))
	}
	for _, f := range is.Fetch {
		fmt.Fprintf(&b, "fetch: %s %s", f.What, f.From)
		if f.Bytes > 0 {
			fmt.Fprintf(&b, ", %d bytes", f.Bytes)
		}
		b.WriteByte('\n')
	}
	for _, d := range is.Damaged {
		fmt.Fprintf(&b, "damaged: %s, which is made again\n", d)
	}
	pushed := 0
	for _, p := range is.Push {
		lacks := fmt.Sprintf("%s lacks %s, %d bytes", p.Repository, plural(p.Missing, "blob"), p.Bytes)
		switch p.State {
		case "there":
			if p.Missing > 0 {
				fmt.Fprintf(&b, "push: %s: the manifest is there, but %s\n", p.Label, lacks)
				pushed++
			}
		case "missing":
			fmt.Fprintf(&b, "push: %s: %s\n", p.Label, lacks)
			pushed++
		default:
			fmt.Fprintf(&b, "push: %s, when it is built", p.Label)
			if p.Missing > 0 {
				fmt.Fprintf(&b, "; of the layers that are known %s", lacks)
			}
			b.WriteByte('\n')
			pushed++
		}
		for _, t := range tags {
			switch now := p.Tags[t]; {
			case now == "":
				fmt.Fprintf(&b, "tag: %s:%s is new\n", p.Repository, t)
			case now != p.Digest:
				fmt.Fprintf(&b, "tag: %s:%s means %s\n", p.Repository, t, now)
			}
		}
	}
	_, err := fmt.Fprint(a.std.out, b.String())
	a.note("%s to run, %d up to date; %s to fetch, %s to push", plural(len(is.Run), "action"), is.Cached, plural(len(is.Fetch), "thing"), plural(pushed, "image"))
	return err
}
