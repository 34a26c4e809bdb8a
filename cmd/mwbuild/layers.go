package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/starlark/load"
)

type layersFlags struct {
	check    bool
	all      bool
	registry string
	output   string
	jobs     int
}

// What a layer must be to stand on a base, and when its base is old.
const (
	smallestBase = 64 << 10                // bytes of the blob: below, the whole layer is as quick as a delta
	mostLayers   = image.MaxLayers * 4 / 5 // of an image, so that there is room for two more with what differs from bases, and for components that come
	groupSize    = 8 << 20                 // bytes that a group has at most
	commitsRead  = 1000                    // of the history, to see what changes often
	mostDeltas   = 2                       // layers that hold what differs from the bases of an image
)

func (a *app) layersCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "layers",
		Short: "Write layers.lock: which layers stand on a base",
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var f layersFlags
	p := &cobra.Command{
		Use:   "plan [FLAGS] [TARGET…]",
		Short: "Take layers as they are now for bases of what comes",
		Long: `Build images whole, by default all of //..., and write layers.lock: which layers are packed together, those first that the latest 1000 commits changed least often, until an image has at most 80, and the large ones,
each by digest, as bases. From then on a build packs what differs from its base into a small layer on top, so that a change of one line moves a few kilobytes; the layers of an image share two of these, one
for sources and one for what is made of them, and it does not grow with each component that changes.

Images are a function of the tree and the lock, and only this command writes it. It keeps groups, and a base of which less than a quarter changed, and says of each what
it does; --all takes everything anew. What no image has any more is left out. The bases lie in the registry once an image was published; others fetch them from there.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.output != "text" && f.output != "json" {
				return usagef("--output=%s: want text or json", f.output)
			}
			if len(args) == 0 {
				args = []string{"//..."}
			}
			return a.planLayers(cmd.Context(), f, args)
		},
	}
	fl := p.Flags()
	fl.BoolVar(&f.check, "check", false, "write nothing; exit with 1 if the lock would change")
	fl.BoolVar(&f.all, "all", false, "take every layer anew, however little of it changed")
	fl.StringVar(&f.registry, "registry", "", "`name` of the registry() of WORKSPACE that will have the bases; the first by default")
	fl.StringVar(&f.output, "output", "text", "text, or json: an array with an object for each layer")
	fl.IntVarP(&f.jobs, "jobs", "j", 0, "how many actions run at once")
	a.handed.add(fl)
	c.AddCommand(p)
	return c
}

// A plannedLayer is one layer of the images, as its JSON form has it.
type plannedLayer struct {
	Layer string `json:"layer"` // the action that packs it
	Base  string `json:"base"`  // its digest, "" for none
	Was   string `json:"was"`   // before, "" for none
	Size  int64  `json:"size"`  // of the whole layer as it is now
	Delta int64  `json:"delta"` // of what stands on the base that it had
	What  string `json:"what"`  // new, kept, replaced, or dropped
}

// A candidate is a layer that could stand on a base.
type candidate struct {
	id    string
	layer image.Layer
	full  bool // an image of it has no room for another layer
	repo  string
}

func (a *app) planLayers(ctx context.Context, f layersFlags, args []string) (err error) {
	o, patterns, err := a.openTargets(ctx, args)
	if err != nil {
		return err
	}
	unlock, err := o.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	file := filepath.Join(o.root, load.LayersLock)
	was, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var old load.Layers
	if err == nil {
		if old, err = load.ParseLayers(was); err != nil {
			a.note("%s is written anew: %v", load.LayersLock, err)
		}
	}
	if f.all {
		old = load.Layers{}
	}
	// Every layer by itself says what to pack together; that, packed whole, is what bases can be; and what stands on the bases that there are says which stay.
	images, _, err := o.buildImages(ctx, patterns, f, load.Layers{})
	if err != nil {
		return err
	}
	history, err := workspace.History(ctx, o.root, commitsRead)
	if err != nil {
		return err
	}
	is := load.Layers{Groups: chooseGroups(images, old.Groups, changes(images, history))}
	images, loader, err := o.buildImages(ctx, patterns, f, is)
	if err != nil {
		return err
	}
	deltas := map[string]int64{}
	if len(old.Bases) > 0 {
		if deltas, err = o.deltas(ctx, patterns, f, load.Layers{Groups: is.Groups, Bases: old.Bases}); err != nil {
			return err
		}
	}
	registry := load.Registry{}
	if all := loader.Workspace().Registries; len(all) > 0 {
		if registry, err = chosenRegistry(all, f.registry); err != nil {
			return err
		}
	}
	var layers []plannedLayer
	is.Bases, layers = chooseBases(candidates(images, registry, embargoedPackages(loader)), old.Bases, deltas)
	text := load.FormatLayers(is)
	changed := string(text) != string(was) && (len(is.Bases) > 0 || len(was) > 0)
	if changed && !f.check {
		if err := renameio.WriteFile(file, text, 0o644); err != nil {
			return err
		}
	}
	if f.output == "json" {
		err = a.printJSON(layers)
	} else {
		for _, l := range layers {
			if l.What == "kept" {
				fmt.Fprintf(a.std.out, "%s: kept, %d bytes of %d differ\n", l.Layer, l.Delta, l.Size)
			} else {
				fmt.Fprintf(a.std.out, "%s: %s, %d bytes\n", l.Layer, l.What, l.Size)
			}
		}
		state := "as before"
		switch {
		case changed && f.check:
			state = "would be written: run this without --check"
		case changed:
			state = "written; commit it, and publish the images so that others find the bases"
		}
		a.note("%s: %s packed together, %s, %s", load.LayersLock, plural(len(is.Groups), "layer"), plural(len(is.Bases), "base"), state)
	}
	if err == nil && f.check && changed {
		err = errReported
	}
	return err
}

// builtImage is an image and the actions that its own layers come from.
type builtImage struct {
	target *graph.Target
	do     *action.Image
	image  *image.Image
	plan   *plan.Plan
}

// layers are what an action made of the image.
func (im builtImage) layers(n *action.Node) []image.Layer { return im.plan.Step(n).Record.Layers }

// buildImages builds the images that patterns match, with layers as they are to be.
func (o *opened) buildImages(ctx context.Context, patterns []label.Pattern, f layersFlags, layers load.Layers) (images []builtImage, loader *load.Loader, err error) {
	opts := o.loadOptions(o.tree, false)
	opts.Layers = &layers
	loader, errs := o.newLoader(opts)
	if len(errs) > 0 {
		return nil, nil, o.reported(errs)
	}
	o.records.Config = loader.Workspace().Config
	loaded, errs := loader.Load(ctx, patterns)
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	if len(errs) > 0 {
		return nil, nil, o.reported(errs)
	}
	targets := slices.DeleteFunc(withoutTests(loaded.Targets), func(t *graph.Target) bool { return !makesImage(t) })
	if len(targets) == 0 {
		return nil, nil, usagef("no image matches")
	}
	b, closeBuilder, err := o.builder(f.jobs, false)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, closeBuilder()) }()
	res, err := o.app.healing(ctx, b, func() (*build.Result, error) { return b.Build(ctx, targets) })
	if cerr := b.Display.Close(); err == nil {
		err = cerr
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	if err != nil {
		return nil, nil, err
	}
	if len(res.Errors) > 0 {
		return nil, nil, o.reported(res.Errors)
	}
	for _, t := range res.Targets {
		for i, n := range t.Target.Outputs {
			if do, ok := n.Do.(*action.Image); ok && t.Outputs[i].Image != nil {
				images = append(images, builtImage{t.Target, do, t.Outputs[i].Image, res.Plan})
			}
		}
	}
	return images, loader, nil
}

// changes counts by layer how many commits changed what it packs.
func changes(images []builtImage, history [][]string) map[string]int {
	packs := map[string][]string{} // layers, by file
	for _, im := range images {
		for _, n := range im.do.Layers {
			if do, ok := n.Do.(*action.Layer); ok {
				for _, e := range do.Entries {
					if e.File != "" && !slices.Contains(packs[e.File], n.ID()) {
						packs[e.File] = append(packs[e.File], n.ID())
					}
				}
			}
		}
	}
	files := slices.Sorted(maps.Keys(packs))
	counts := map[string]int{}
	for _, paths := range history {
		touched := map[string]bool{}
		for _, p := range paths {
			// A path may be a submodule, and stand for all that it holds.
			first, _ := slices.BinarySearch(files, p)
			for _, f := range files[first:] {
				if f != p && !strings.HasPrefix(f, p+"/") {
					if strings.HasPrefix(f, p) {
						continue // as a.b is between a and a/b
					}
					break
				}
				for _, id := range packs[f] {
					touched[id] = true
				}
			}
		}
		for id := range touched {
			counts[id]++
		}
	}
	return counts
}

// chooseGroups says what to pack together: layers of sources of images with many layers, in groups of some megabytes, those first that change least often, and of these the
// smallest. What was together stays together, so that bases of groups do not change with each component that comes.
func chooseGroups(images []builtImage, old map[string]string, changes map[string]int) map[string]string {
	groups := map[string]string{}
	sizes := map[string]int64{} // of groups
	for _, im := range images {
		type small struct {
			id   string
			size int64
		}
		var all []small
		layers := len(im.image.Layers)
		here := map[string]int{} // members of groups in this image
		for _, n := range im.do.Layers {
			do, ok := n.Do.(*action.Layer)
			if !ok || slices.ContainsFunc(do.Entries, func(e action.Entry) bool { return e.From != nil }) {
				continue
			}
			size := im.layers(n)[0].Descriptor.Size
			name, grouped := groups[n.ID()]
			if !grouped {
				if name, grouped = old[n.ID()]; grouped {
					groups[n.ID()] = name
					sizes[name] += size
				}
			}
			if grouped {
				here[name]++
			} else {
				all = append(all, small{n.ID(), size})
			}
		}
		for _, n := range here {
			layers -= n - 1
		}
		slices.SortFunc(all, func(a, b small) int {
			return cmp.Or(cmp.Compare(changes[a.id], changes[b.id]), cmp.Compare(a.size, b.size), strings.Compare(a.id, b.id))
		})
		for _, s := range all {
			if layers <= mostLayers {
				break
			}
			name := ""
			for i := 0; name == ""; i++ {
				if g := fmt.Sprintf("small-%02d", i); sizes[g]+s.size <= groupSize || sizes[g] == 0 {
					name = g
				}
			}
			groups[s.id] = name
			sizes[name] += s.size
			if here[name]++; here[name] > 1 {
				layers--
			}
		}
	}
	return groups
}

// madeOf tells whether an action reads a file of one of the packages, itself or by others.
func madeOf(n *action.Node, packages map[string]string) bool {
	if len(packages) == 0 {
		return false
	}
	for _, f := range plan.FilesOf(n) {
		for dir := path.Dir(f); ; dir = path.Dir(dir) {
			if packages[strings.TrimPrefix(dir, ".")] != "" {
				return true
			}
			if dir == "." {
				break
			}
		}
	}
	return slices.ContainsFunc(n.Deps(), func(d *action.Node) bool { return madeOf(d, packages) })
}

// candidates are the layers that the images' own actions pack, each once; but not those of secret packages: a base stays in images when what it held is deleted.
func candidates(images []builtImage, r load.Registry, secret map[string]string) []*candidate {
	byID := map[string]*candidate{}
	for _, im := range images {
		full := len(im.image.Layers)+mostDeltas > image.MaxLayers
		for _, n := range im.do.Layers {
			do, ok := n.Do.(*action.Layer)
			if !ok || len(do.Entries) == 0 || im.layers(n)[0].Descriptor.Size < smallestBase || madeOf(n, secret) {
				continue
			}
			c := byID[n.ID()]
			if c == nil {
				c = &candidate{id: n.ID(), layer: im.layers(n)[0]}
				byID[n.ID()] = c
			}
			c.full = c.full || full
			// The image with the most layers is what is published anyway.
			if r.Repository != "" && (c.repo == "" || len(im.do.Layers) > 1) {
				c.repo = r.For(im.target.Label)
			}
		}
	}
	all := slices.Collect(maps.Values(byID))
	slices.SortFunc(all, func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(b.layer.Descriptor.Size, a.layer.Descriptor.Size), strings.Compare(a.id, b.id))
	})
	return all
}

// chooseBases says which layers stand on which base: all but those of images that have no room for another layer.
func chooseBases(all []*candidate, old map[string]action.Base, deltas map[string]int64) (map[string]action.Base, []plannedLayer) {
	bases := map[string]action.Base{}
	layers := []plannedLayer{}
	for _, c := range all {
		was, had := old[c.id]
		if c.full {
			continue
		}
		is := action.Base{Digest: c.layer.Descriptor.Digest.String(), DiffID: c.layer.DiffID.String(), Size: c.layer.Descriptor.Size, Repository: c.repo}
		p := plannedLayer{Layer: c.id, Was: was.Digest, Size: is.Size, What: "new"}
		if delta, known := deltas[c.id]; had {
			p.Delta, p.What = delta, "replaced"
			if known && delta*layer.WholeFrom <= was.Size || was.Digest == is.Digest {
				is, p.What = was, "kept"
			}
		}
		bases[c.id], p.Base = is, is.Digest
		layers = append(layers, p)
	}
	for _, id := range slices.Sorted(maps.Keys(old)) {
		if _, ok := bases[id]; !ok {
			layers = append(layers, plannedLayer{Layer: id, Was: old[id].Digest, What: "dropped"})
		}
	}
	return bases, layers
}

// deltas are the sizes of what stands on bases, by layer.
func (o *opened) deltas(ctx context.Context, patterns []label.Pattern, f layersFlags, layers load.Layers) (map[string]int64, error) {
	images, _, err := o.buildImages(ctx, patterns, f, layers)
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, im := range images {
		for _, n := range im.do.Layers {
			do, ok := n.Do.(*action.Layer)
			if !ok || do.Base == nil {
				continue
			}
			sizes[n.ID()] = 0
			if top := im.layers(n)[len(im.layers(n))-1]; top.Descriptor.Digest.String() != do.Base.Digest {
				sizes[n.ID()] = top.Descriptor.Size
			}
		}
	}
	return sizes, nil
}
