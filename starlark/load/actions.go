package load

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// actions is ctx.actions.
func (c *ruleContext) actions() *instance {
	members := starlark.StringDict{}
	for name, f := range map[string]func(*starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error){
		"layer": c.layer, "run": c.run, "image": c.image, "import_image": c.importImage,
		"native": c.native, "made": c.made,
	} {
		members[name] = starlark.NewBuiltin(name, func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			return f(b, args, kwargs)
		})
	}
	return &instance{fields: members}
}

// declare makes the node of an action. Names are unique in a target.
func (c *ruleContext) declare(name string, do action.Action) (*action.Node, error) {
	if c.declared[name] {
		return nil, fmt.Errorf("action %q is declared twice: give one of the two another name", name)
	}
	c.declared[name] = true
	n := &action.Node{Label: c.target.label.String(), Name: name, Pos: c.graph.Pos, Do: do}
	if l, ok := do.(*action.Layer); ok {
		if b, ok := c.loader.workspace.Layers.Bases[n.ID()]; ok {
			l.Base = &b
		}
	}
	c.graph.Actions = append(c.graph.Actions, n)
	return n, nil
}

func parseOwner(what, s string) (action.Owner, error) {
	if !userPattern.MatchString(s) {
		return action.Owner{}, fmt.Errorf("%s: %q: want numbers, uid:gid", what, s)
	}
	uid, gid, _ := strings.Cut(s, ":")
	u, errU := strconv.ParseUint(uid, 10, 31)
	g, errG := strconv.ParseUint(gid, 10, 31)
	if errU != nil || errG != nil {
		return action.Owner{}, fmt.Errorf("%s: %q: a number is too large", what, s)
	}
	return action.Owner{UID: int(u), GID: int(g)}, nil
}

// cleanDest returns the place dest below prefix as a path in a layer.
func cleanDest(prefix, dest string) (string, error) {
	d := strings.TrimPrefix(path.Clean("/"+prefix+"/"+dest), "/")
	if d == "" || strings.Contains(d, "\x00") || slices.Contains(strings.Split(prefix+"/"+dest, "/"), "..") {
		return "", fmt.Errorf("%q is no place in an image: want a path without \"..\" in it", path.Join(prefix, "/")+"/"+dest)
	}
	return d, nil
}

// layer is ctx.actions.layer. srcs go to prefix, less strip_prefix (the package by default); files and texts to the
// places that they name.
func (c *ruleContext) layer(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	name, prefix, owner, dirsOwner := "layer", "", c.loader.workspace.Owner, ""
	strip := c.target.label.Pkg
	var srcs starlark.Value
	var files, texts, folders *starlark.Dict
	var dirs *starlark.List
	var allowCase bool
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name?", &name, "srcs?", &srcs, "strip_prefix?", &strip,
		"prefix?", &prefix, "files?", &files, "texts?", &texts, "dirs?", &dirs, "dirs_owner?", &dirsOwner,
		"owner?", &owner, "folder_owners?", &folders, "allow_case_collisions?", &allowCase); err != nil {
		return nil, err
	}
	l := &action.Layer{}
	var err error
	if l.Owner, err = parseOwner("owner", owner); err != nil {
		return nil, err
	}
	add := func(dest string, e action.Entry) error {
		if e.From != nil && path.Clean("/"+prefix+"/"+dest) == "/" {
			// What an action made can be a folder, which can stand for the root.
			l.Entries = append(l.Entries, e)
			return nil
		}
		if e.Dest, err = cleanDest(prefix, dest); err == nil {
			l.Entries = append(l.Entries, e)
		}
		return err
	}
	sources, err := sequence("srcs", srcs)
	if err != nil {
		return nil, err
	}
	for _, v := range sources {
		f, ok := v.(*fileValue)
		if !ok {
			return nil, fmt.Errorf("layer: srcs holds a %s, want files", v.Type())
		}
		// What an action made can be a folder, which is what lies in it.
		if !inside(f.path, strip) && (f.node == nil || f.path != strip) {
			return nil, fmt.Errorf("srcs: %s is not below %s, so it has no place in the layer", f.path, strip)
		}
		if err := c.checkSymlink(f, strip); err != nil {
			return nil, fmt.Errorf("srcs: %w", err)
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(f.path, strip), "/")
		if err := add(rel, entry(f)); err != nil {
			return nil, err
		}
	}
	if files != nil {
		for _, kv := range files.Items() {
			dest, isString := starlark.AsString(kv[0])
			f, isFile := kv[1].(*fileValue)
			if !isString || !isFile {
				return nil, fmt.Errorf("layer: files[%s] is a %s, want a file", kv[0], kv[1].Type())
			}
			if err := c.checkSymlink(f, c.target.label.Pkg); err != nil {
				return nil, fmt.Errorf("files: %w", err)
			}
			if err := add(dest, entry(f)); err != nil {
				return nil, err
			}
		}
	}
	if texts != nil {
		for _, kv := range texts.Items() {
			dest, isString := starlark.AsString(kv[0])
			text, isText := starlark.AsString(kv[1])
			if !isString || !isText {
				return nil, fmt.Errorf("layer: texts[%s] is a %s, want a string", kv[0], kv[1].Type())
			}
			if err := add(dest, action.Entry{Text: &text}); err != nil {
				return nil, err
			}
		}
	}
	dirNames, err := stringList(dirs)
	if err != nil {
		return nil, fmt.Errorf("dirs: %w", err)
	}
	for _, d := range dirNames {
		e := action.Entry{Dir: true}
		if dirsOwner != "" {
			o, err := parseOwner("dirs_owner", dirsOwner)
			if err != nil {
				return nil, err
			}
			e.User = &o
		}
		if err := add(d, e); err != nil {
			return nil, err
		}
	}
	if folders != nil {
		for _, kv := range folders.Items() {
			dest, okD := starlark.AsString(kv[0])
			text, okO := starlark.AsString(kv[1])
			if !okD || !okO {
				return nil, fmt.Errorf("folder_owners: %s = %s: want strings", kv[0], kv[1])
			}
			e := action.Entry{Dir: true}
			o, err := parseOwner("folder_owners", text)
			if err == nil {
				e.User = &o
				e.Dest, err = cleanDest("", dest)
			}
			if err != nil {
				return nil, err
			}
			l.Entries = append(l.Entries, e)
		}
	}
	slices.SortFunc(l.Entries, func(a, b action.Entry) int { return strings.Compare(a.Dest, b.Dest) })
	if err := checkEntries(l.Entries, allowCase); err != nil {
		return nil, err
	}
	n, err := c.declare(name, l)
	if err != nil {
		return nil, err
	}
	return &nodeValue{n}, nil
}

func entry(f *fileValue) action.Entry {
	if f.node != nil {
		return action.Entry{From: f.node, Path: f.sub}
	}
	return action.Entry{File: f.path}
}

// checkSymlink refuses a link of the workspace that leads out of folder root.
func (c *ruleContext) checkSymlink(f *fileValue, root string) error {
	if f.node != nil {
		return nil
	}
	file, ok := c.loader.opts.Tree.Lookup(f.path)
	if !ok || file.Mode != workspace.Symlink {
		return nil
	}
	to := path.Join(path.Dir(f.path), file.Target)
	if path.IsAbs(file.Target) || to != root && !inside(to, root) {
		return fmt.Errorf("symlink %s leads out of its component, to %s: make it relative and inside, or exclude it", f.path, file.Target)
	}
	return nil
}

// checkEntries refuses what cannot lie in one folder together. es is sorted by Dest.
func checkEntries(es []action.Entry, allowCase bool) error {
	kinds := make(map[string]action.Entry, len(es))
	folded := map[string]string{}
	for _, e := range es {
		if first, ok := kinds[e.Dest]; ok {
			return fmt.Errorf("srcs: %s and %s both go to %s", source(first), source(e), e.Dest)
		}
		kinds[e.Dest] = e
		for p := e.Dest; p != "."; p = path.Dir(p) {
			low := strings.ToLower(p)
			other, ok := folded[low]
			if ok && other == p {
				break // and so are all folders above it
			}
			if ok && !allowCase {
				return fmt.Errorf("srcs: %s and %s differ only in case, which some disks cannot hold: rename one, or set allow_case_collisions = True", other, p)
			}
			folded[low] = p
		}
	}
	for _, e := range es {
		for p := path.Dir(e.Dest); p != "."; p = path.Dir(p) {
			if above, ok := kinds[p]; ok && !above.Dir && above.From == nil {
				return fmt.Errorf("srcs: %s would lie below %s, which is no folder", e.Dest, source(above))
			}
		}
	}
	return nil
}

func source(e action.Entry) string {
	switch {
	case e.File != "":
		return e.File
	case e.From != nil:
		return e.From.ID() + " " + e.Path
	case e.Dir:
		return "dirs"
	}
	return "texts"
}

// maxLayers is how many layers an image has at most, its base included. Runtimes stop at 127.
const maxLayers = 100

// baseLayers is how many of these are kept for a base, whose count is not known before it was fetched.
const baseLayers = 24

// groupStep is what the number of groups is a multiple of.
const groupStep = 16

// image is ctx.actions.image.
func (c *ruleContext) image(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	name := "image"
	var base *nodeValue
	var baseValue, layers starlark.Value
	var env, labels *starlark.Dict
	var entrypoint, cmdLine, ports, volumes *starlark.List
	var allowRoot bool
	im := &action.Image{Platform: c.loader.workspace.Platform}
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name?", &name, "base?", &baseValue, "layers?", &layers,
		"user?", &im.Config.User, "env?", &env, "entrypoint?", &entrypoint, "cmd?", &cmdLine, "workdir?", &im.Config.WorkingDir,
		"labels?", &labels, "ports?", &ports, "volumes?", &volumes, "stop_signal?", &im.Config.StopSignal, "allow_root?", &allowRoot); err != nil {
		return nil, err
	}
	budget := maxLayers
	if baseValue != nil && baseValue != starlark.None {
		var ok bool
		if base, ok = baseValue.(*nodeValue); !ok || base.node.Kind() != "Image" {
			return nil, fmt.Errorf("base: a %s is no image", baseValue.Type())
		}
		im.Base = base.node
		budget -= baseLayers
	}
	im.Config.User = cmp.Or(im.Config.User, c.loader.workspace.User)
	err := errors.Join(c.loader.checkUser(im.Config.User, allowRoot), c.loader.checkBase(im.Base))
	if err != nil {
		return nil, err
	}
	for _, list := range []struct {
		name string
		from *starlark.List
		to   *[]string
	}{{"entrypoint", entrypoint, &im.Config.Entrypoint}, {"cmd", cmdLine, &im.Config.Cmd}, {"ports", ports, &im.Config.ExposedPorts}, {"volumes", volumes, &im.Config.Volumes}} {
		if *list.to, err = stringList(list.from); err != nil {
			return nil, fmt.Errorf("%s: %w", list.name, err)
		}
	}
	for _, dict := range []struct {
		name string
		from *starlark.Dict
		to   *map[string]string
	}{{"env", env, &im.Config.Env}, {"labels", labels, &im.Config.Labels}} {
		if dict.from == nil {
			continue
		}
		*dict.to = map[string]string{}
		for _, kv := range dict.from.Items() {
			k, okK := starlark.AsString(kv[0])
			v, okV := starlark.AsString(kv[1])
			if !okK || !okV {
				return nil, fmt.Errorf("%s: %s = %s: want strings", dict.name, kv[0], kv[1])
			}
			(*dict.to)[k] = v
		}
	}
	items, err := sequence("layers", layers)
	if err != nil {
		return nil, err
	}
	for _, v := range items {
		n, ok := v.(*nodeValue)
		if ok && n.node.MakesFiles() {
			return nil, fmt.Errorf("layers: %s makes files: put them into a layer by ctx.actions.made, or set its layer = True if what it makes is one", n.node.ID())
		}
		if ok && n.node.Kind() == "Image" && !n.node.Imports() {
			return nil, fmt.Errorf("layers: %s is an image that is made here: take its layers, or put it below as the base", n.node.ID())
		}
		if !ok || !n.node.MakesLayer() && !n.node.Imports() {
			return nil, fmt.Errorf("layers holds a %s, want layers, or images that are imported", v.Type())
		}
		if !slices.Contains(im.Layers, n.node) {
			im.Layers = append(im.Layers, n.node)
		}
	}
	if im.Layers, err = c.group(im.Layers, budget); err != nil {
		return nil, err
	}
	n, err := c.declare(name, im)
	if err != nil {
		return nil, err
	}
	return &nodeValue{n}, nil
}

// group packs layers together until there are at most budget. Which go together is decided for each by its own name
// alone, so that a component that comes or goes, or changes, moves no other. Layers that put something at the
// same place keep their order only in a group of their own, so they are left as they are. So is all below what a run changed,
// which may delete and replace it.
func (c *ruleContext) group(layers []*action.Node, budget int) ([]*action.Node, error) {
	layers, err := c.lockedGroups(layers)
	if err == nil {
		layers, err = c.mergeDeltas(layers)
	}
	if err != nil {
		return nil, err
	}
	// A layer on a base can be two.
	based := 0
	shares := (&action.Image{Layers: layers}).Merged()
	for _, n := range layers {
		if onBase(n) && !shares[n] {
			based++
		}
	}
	if len(layers)+based <= budget {
		return layers, nil
	}
	budget -= based
	shared := sharedPlaces(layers, false)
	groups := map[uint32][]*action.Layer{}
	var alone []*action.Node
	last := len(layers) - 1
	for last >= 0 && !covers(layers[last]) {
		last--
	}
	for i, n := range layers {
		l, ok := n.Do.(*action.Layer)
		if i < last || !ok || l.Base != nil || len(l.Entries) == 0 || slices.ContainsFunc(l.Entries, shared) {
			alone = append(alone, n)
			continue
		}
		sum := sha256.Sum256([]byte(n.ID()))
		h := binary.BigEndian.Uint32(sum[:])
		groups[h] = append(groups[h], l)
	}
	buckets := budget - len(alone)
	if buckets < 1 {
		return nil, fmt.Errorf("layers: %d of %d cannot be packed together, and an image has at most %d: merge some", len(alone), len(layers), budget)
	}
	// In steps, so that one more layer that stands alone seldom changes how the others are packed.
	if buckets > groupStep {
		buckets -= buckets % groupStep
	}
	merged := make([]*action.Layer, buckets)
	for _, h := range slices.Sorted(maps.Keys(groups)) {
		i := int(h % uint32(buckets))
		for _, l := range groups[h] {
			if merged[i] == nil {
				merged[i] = &action.Layer{Owner: l.Owner}
			}
			if merged[i].Owner != l.Owner {
				return nil, fmt.Errorf("layers: more than %d layers with different owners cannot be packed together", budget)
			}
			merged[i].Entries = append(merged[i].Entries, l.Entries...)
		}
	}
	out := alone
	for i, l := range merged {
		if l == nil {
			continue
		}
		slices.SortFunc(l.Entries, func(a, b action.Entry) int { return strings.Compare(a.Dest, b.Dest) })
		n, err := c.declare(fmt.Sprintf("group-%02d", i), l)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// sharedPlaces tells of which entries the place may be that of another layer, too. Unless files is set, it may be so of all that actions make; else
// not of what is known to be one file.
func sharedPlaces(layers []*action.Node, files bool) func(action.Entry) bool {
	places := map[string]int{}
	made := map[string]bool{} // what lies at and below these is not known yet
	for _, n := range layers {
		if l, ok := n.Do.(*action.Layer); ok {
			for _, e := range l.Entries {
				places[e.Dest]++
				made[e.Dest] = made[e.Dest] || e.From != nil && !(files && isFile(e))
			}
		}
	}
	return func(e action.Entry) bool {
		for p := path.Dir(e.Dest); p != "."; p = path.Dir(p) {
			if made[p] {
				return true
			}
		}
		return made[e.Dest] || places[e.Dest] > 1
	}
}

// lockedGroups packs layers together as layers.lock says. A group stands where its first layer stood. Layers whose order counts are left alone.
func (c *ruleContext) lockedGroups(layers []*action.Node) ([]*action.Node, error) {
	locked := c.loader.workspace.Layers.Groups
	members := map[string][]*action.Node{}
	if len(locked) > 0 {
		shared := sharedPlaces(layers, false)
		last := len(layers) - 1
		for last >= 0 && !covers(layers[last]) {
			last--
		}
		for i, n := range layers {
			l, ok := n.Do.(*action.Layer)
			if name := locked[n.ID()]; ok && name != "" && i > last && len(l.Entries) > 0 && !slices.ContainsFunc(l.Entries, shared) {
				members[name] = append(members[name], n)
			}
		}
	}
	var out []*action.Node
	of := map[*action.Node]string{}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		owner := members[name][0].Do.(*action.Layer).Owner
		all := slices.DeleteFunc(members[name], func(n *action.Node) bool { return n.Do.(*action.Layer).Owner != owner })
		// A target that makes several images has the group in the first.
		if len(all) > 1 && !c.declared["group "+name] {
			for _, n := range all {
				of[n] = name
			}
		}
	}
	done := map[string]bool{}
	for _, n := range layers {
		name := of[n]
		if name == "" {
			out = append(out, n)
			continue
		}
		if done[name] {
			continue
		}
		done[name] = true
		merged := &action.Layer{Owner: n.Do.(*action.Layer).Owner}
		for _, m := range layers {
			if of[m] == name {
				merged.Entries = append(merged.Entries, m.Do.(*action.Layer).Entries...)
			}
		}
		slices.SortFunc(merged.Entries, func(a, b action.Entry) int { return strings.Compare(a.Dest, b.Dest) })
		g, err := c.declare("group "+name, merged)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

// mergeDeltas has layers that stand on bases share the one with what differs, so that an image does not grow by a layer for each component that changes: those
// of sources one, and those of what actions make, which is larger, another. It stands behind the last of them. Layers whose order counts are left alone, and
// so are those on either side of one of which nobody knows before it is made where it puts something.
func (c *ruleContext) mergeDeltas(layers []*action.Node) ([]*action.Node, error) {
	if !slices.ContainsFunc(layers, onBase) || len(layers) == 1 {
		return layers, nil
	}
	shared := sharedPlaces(layers, true)
	var out []*action.Node
	merged := map[string]*action.Layer{}
	merge := func(name string) error {
		m := merged[name]
		if delete(merged, name); m == nil {
			return nil
		}
		free := name
		for i := 2; c.declared[free]; i++ {
			free = fmt.Sprintf("%s %d", name, i)
		}
		if !m.KeepFolders {
			m.Shared = foldersOf(layers, m.Merges)
		}
		d, err := c.declare(free, m)
		if err != nil {
			return err
		}
		at := slices.Index(out, m.Merges[len(m.Merges)-1])
		out = slices.Insert(out, at+1, d)
		return nil
	}
	const sources, made = "deltas", "made deltas"
	for _, n := range layers {
		l, ok := n.Do.(*action.Layer)
		if !ok || slices.ContainsFunc(l.Entries, func(e action.Entry) bool { return e.From != nil && !isFile(e) }) {
			if err := errors.Join(merge(sources), merge(made)); err != nil {
				return nil, err
			}
		}
		out = append(out, n)
		if !onBase(n) || slices.ContainsFunc(l.Entries, shared) {
			continue
		}
		name := sources
		if slices.ContainsFunc(l.Entries, isFile) {
			name = made
		}
		m := merged[name]
		if m == nil {
			m = &action.Layer{Owner: l.Owner, KeepFolders: name == made}
			merged[name] = m
		}
		if m.Owner == l.Owner {
			m.Merges = append(m.Merges, n)
		}
	}
	err := errors.Join(merge(sources), merge(made))
	return out, err
}

// isFile tells whether an entry is one file that an action makes.
func isFile(e action.Entry) bool { return e.From != nil && e.From.MakesFiles() && e.Path != "" }

// foldersOf are the folders in which layers have something, but for some of them, as far as one knows, sorted.
func foldersOf(layers, but []*action.Node) []string {
	folders := map[string]bool{}
	for _, n := range layers {
		l, ok := n.Do.(*action.Layer)
		if !ok || slices.Contains(but, n) {
			continue
		}
		for _, e := range l.Entries {
			for dir := path.Dir(e.Dest); dir != "." && !folders[dir]; dir = path.Dir(dir) {
				folders[dir] = true
			}
			if e.Dir {
				folders[e.Dest] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(folders))
}

// onBase tells whether a node packs what differs from a layer that was made before.
func onBase(n *action.Node) bool {
	l, ok := n.Do.(*action.Layer)
	return ok && l.Base != nil
}

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// importImage is ctx.actions.import_image.
func (c *ruleContext) importImage(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	name := "image"
	in := &action.Import{Platform: c.loader.workspace.Platform}
	ref := ""
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "digest?", &in.Digest, "registry?", &in.Registry,
		"layout?", &in.Layout, "tar?", &in.Tar, "platform?", &in.Platform, "name?", &name, "ref?", &ref); err != nil {
		return nil, err
	}
	if in.Platform == "" {
		in.Platform = c.loader.workspace.Platform
	}
	given := 0
	for _, s := range []string{in.Registry, in.Layout, in.Tar, ref} {
		if s != "" {
			given++
		}
	}
	if given != 1 {
		return nil, fmt.Errorf("one of ref, registry, layout and tar says where the image is; %d are given", given)
	}
	if ref != "" {
		if in.Digest != "" {
			return nil, fmt.Errorf("digest: that of ref = %q stands in %s: leave it out, or name the image by registry and digest", ref, LockFile)
		}
		var err error
		if in.Registry, in.Digest, err = c.loader.locked(ref); err != nil {
			return nil, err
		}
	}
	switch {
	case !digestPattern.MatchString(in.Digest):
		return nil, fmt.Errorf("digest: %q: want sha256: and 64 hexadecimal digits", in.Digest)
	case strings.Contains(in.Registry, "@"):
		return nil, fmt.Errorf("registry: %q: the digest stands in attribute digest, not here", in.Registry)
	case !platformPattern.MatchString(in.Platform):
		return nil, fmt.Errorf("platform: %q: want os/arch, such as linux/amd64", in.Platform)
	}
	for _, p := range []*string{&in.Layout, &in.Tar} {
		if *p != "" && !path.IsAbs(*p) {
			*p = path.Join(c.target.label.Pkg, *p)
		}
	}
	n, err := c.declare(name, &action.Image{Import: in})
	if err != nil {
		return nil, err
	}
	return &nodeValue{n}, nil
}
