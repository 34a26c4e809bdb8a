package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/mwbuild/mwbuild/build/attest"
	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/rules/debian/lockfile"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// documentNote is the annotation by which mwbuild knows a document of its own again, among those of others that have the same type.
const documentNote = "com.github.mwbuild.document"

// The documents that an image gets.
var documentKinds = []struct{ format, mediaType, note, file string }{
	{"spdx", attest.SPDXType, "spdx-2.3", "sbom.spdx.json"},
	{"slsa", attest.InTotoType, "slsa-provenance-1", "provenance.intoto.json"},
}

// An attestation is a document that an image has in its repository.
type attestation struct {
	Type     string `json:"type"`
	Digest   string `json:"digest"` // of the manifest that refers to the image
	Uploaded bool   `json:"uploaded"`
}

// An attester says what images are made of and how. It looks at what an image's own actions name, and at nothing else of the tree: what is not in an image
// can be in no document about it.
type attester struct {
	o         *opened
	graph     *graph.Graph
	workspace load.Workspace
	declared  map[string]load.Declared // by label
	created   time.Time                // by SOURCE_DATE_EPOCH, or zero

	mu       sync.Mutex
	sources  map[string]func() (*workspace.Source, error) // by checkout
	checkout map[string]string                            // by folder
}

func (o *opened) attester(l *load.Loader, g *graph.Graph) (*attester, error) {
	a := &attester{
		o: o, graph: g, workspace: l.Workspace(), declared: map[string]load.Declared{},
		sources: map[string]func() (*workspace.Source, error){}, checkout: map[string]string{},
	}
	for _, d := range l.Declared() {
		a.declared[d.Label().String()] = d
	}
	if s := os.Getenv("SOURCE_DATE_EPOCH"); s != "" {
		seconds, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, usagef("SOURCE_DATE_EPOCH=%s: want seconds since 1970", s)
		}
		a.created = time.Unix(seconds, 0)
	}
	return a, nil
}

// attach gives an image the documents that it lacks in its repository. Where all tags mean the image they are not asked for, but for deep: they came before the tags.
func (a *attester) attach(ctx context.Context, p *transport.Pusher, to *published, tags []string, deep bool) error {
	to.Attestations = nil
	if len(tags) > 0 && !deep {
		is, err := p.Check(ctx, image.Image{}, to.Repository, tags)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(tags, func(t string) bool { return is.Tags[t] != to.image.Manifest.Digest }) {
			return nil
		}
	}
	there, err := p.Referrers(ctx, to.Repository, to.image.Manifest.Digest)
	if err != nil {
		return err
	}
	write := sync.OnceValues(func() (map[string][]byte, error) { return a.documents(ctx, to.id, to.image, to.Repository) })
	for _, k := range documentKinds {
		i := slices.IndexFunc(there, func(d ocispecs.Descriptor) bool {
			return d.ArtifactType == k.mediaType && d.Annotations[documentNote] == k.note
		})
		if i >= 0 {
			to.Attestations = append(to.Attestations, attestation{k.mediaType, there[i].Digest.String(), false})
			continue
		}
		texts, err := write()
		if err != nil {
			return err
		}
		d, err := p.Attach(ctx, to.Repository, to.image.Manifest, transport.Document{
			Type: k.mediaType, File: k.file, Text: texts[k.format], Annotations: map[string]string{documentNote: k.note},
		})
		if err != nil {
			return err
		}
		to.Attestations = append(to.Attestations, attestation{k.mediaType, d.Digest.String(), true})
	}
	return nil
}

// documents writes what mwbuild knows of an image that a target made, by format. The repository may be "".
func (a *attester) documents(ctx context.Context, id graph.ID, im image.Image, repository string) (map[string][]byte, error) {
	t := a.graph.Target(id)
	var made *action.Node
	for _, n := range t.Outputs {
		if do, ok := n.Do.(*action.Image); ok && do.Import == nil {
			made = n
		}
	}
	v := cmp.Or(version(), "development")
	b, err := a.build(ctx, t, made)
	if err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	b.Image, b.Digest, b.Version = cmp.Or(repository, t.Label.String()), im.Manifest.Digest.Encoded(), v
	slsa, err := b.Statement()
	if err != nil {
		return nil, err
	}
	bill, err := a.bill(ctx, t, made, im, repository)
	if err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	bill.Version = v
	spdx, err := bill.SPDX()
	return map[string][]byte{"spdx": spdx, "slsa": slsa}, err
}

// held is what the output of actions is made of, as it lies there: files of the workspace, and what other actions made. What steps only read is not held.
type held struct {
	files map[string]bool
	nodes map[*action.Node]bool
}

func holding(nodes ...*action.Node) held {
	h := held{map[string]bool{}, map[*action.Node]bool{}}
	for _, n := range nodes {
		h.add(n)
	}
	return h
}

func (h held) add(n *action.Node) {
	if n == nil || h.nodes[n] {
		return
	}
	h.nodes[n] = true
	switch do := n.Do.(type) {
	case *action.Image:
		h.add(do.Base)
		for _, l := range do.Layers {
			h.add(l)
		}
	case *action.Layer:
		for _, e := range do.Entries {
			if e.File != "" {
				h.files[e.File] = true
			}
			h.add(e.From)
		}
	}
}

// covers tells whether h holds all that o does. Layers may be other ones: an image packs some together, or at another place.
func (h held) covers(o held) bool {
	some := false
	for f := range o.files {
		if some = true; !h.files[f] {
			return false
		}
	}
	for n := range o.nodes {
		if _, packs := n.Do.(*action.Layer); packs {
			some = some || h.nodes[n]
		} else if some = true; !h.nodes[n] {
			return false
		}
	}
	return some
}

// sortedNodes are the nodes that h holds of targets of some rules, one for each target, in order of label.
func (a *attester) sortedNodes(nodes map[*action.Node]bool, rules ...string) []*action.Node {
	byLabel := map[string]*action.Node{}
	for n := range nodes {
		if d, ok := a.declared[n.Label]; ok && slices.Contains(rules, d.Kind()) {
			byLabel[n.Label] = n
		}
	}
	var all []*action.Node
	for _, l := range slices.Sorted(maps.Keys(byLabel)) {
		all = append(all, byLabel[l])
	}
	return all
}

const imageID = "image"

// bill lists what an image is made of.
func (a *attester) bill(ctx context.Context, t *graph.Target, made *action.Node, im image.Image, repository string) (*attest.Bill, error) {
	root, err := a.source(ctx, "")
	if err != nil {
		return nil, err
	}
	var config ocispecs.Image
	if err := json.Unmarshal(im.ConfigJSON, &config); err != nil {
		return nil, err
	}
	sum := im.Manifest.Digest
	b := &attest.Bill{Created: a.created, Image: attest.Package{
		ID: imageID, Name: cmp.Or(repository, t.Label.String()), Version: sum.String(), Kind: attest.Container, Location: "NOASSERTION",
		URL:       attest.ImageURL(repository, t.Label.Name, sum.String(), config.OS+"/"+config.Architecture),
		Checksums: []attest.Checksum{{Algorithm: "SHA256", Value: sum.Encoded()}}, Comment: "made by " + t.Label.String(),
	}}
	if root != nil {
		b.Image.Source = publicSource(root, strings.TrimSuffix(root.Prefix, "/"))
		if b.Created.IsZero() {
			b.Created = root.Time
		}
	}
	if b.Created.IsZero() {
		b.Created = time.Unix(0, 0)
	}
	all := holding(made)
	rest := held{maps.Clone(all.files), maps.Clone(all.nodes)} // what is of no component
	closure, _ := a.graph.Sort([]graph.ID{t.ID})
	in := map[graph.ID]string{} // components of the image, by what the bill calls them
	for _, c := range closure {
		if c.Kind != "mw_component" && c.Kind != "mw_component_import" {
			continue
		}
		own := holding(c.Outputs...)
		if !all.covers(own) {
			continue
		}
		p, err := a.component(ctx, c, own)
		if err != nil {
			return nil, err
		}
		in[c.ID] = p.ID
		b.Add(p, imageID, attest.Contains, p.ID)
		if err := a.addPackages(b, own, p.ID); err != nil {
			return nil, err
		}
		for f := range own.files {
			delete(rest.files, f)
		}
		for n := range own.nodes {
			delete(rest.nodes, n)
		}
	}
	for id, from := range in {
		for _, e := range a.graph.Target(id).Deps {
			if to := in[a.actual(e.To)]; e.Attr == "deps" && to != "" {
				b.Relate(from, attest.DependsOn, to)
			}
		}
	}
	if err := a.addPackages(b, rest, imageID); err != nil {
		return nil, err
	}
	if err := a.addDebs(b, all); err != nil {
		return nil, err
	}
	base := made
	for base != nil && !base.Imports() {
		base = base.Do.(*action.Image).Base
	}
	for n := range rest.nodes {
		if n.Imports() {
			how := attest.Contains
			if n == base {
				how = attest.StandsOn
			}
			p := a.imported(n)
			b.Add(p, imageID, how, p.ID)
		}
	}
	return b, nil
}

// actual is the target that an alias means.
func (a *attester) actual(id graph.ID) graph.ID {
	for t := a.graph.Target(id); t != nil && t.Kind == "alias"; t = a.graph.Target(id) {
		for _, e := range t.Deps {
			if e.Attr == "actual" && !e.Condition {
				id = e.To
			}
		}
		if id == t.ID {
			break
		}
	}
	return id
}

func (a *attester) attr(lab, name string) any {
	v, _ := a.declared[lab].Attr(name)
	return v
}

func (a *attester) text(lab, name string) string {
	s, _ := a.attr(lab, name).(string)
	return s
}

// component says what is known of one component of an image.
func (a *attester) component(ctx context.Context, t *graph.Target, own held) (attest.Package, error) {
	lab := t.Label.String()
	place := a.text(lab, "path")
	p := attest.Package{ID: "component " + cmp.Or(place, "core"), Kind: attest.Application, Comment: "component at " + cmp.Or(place, "MediaWiki's root") + ", " + lab}
	if t.Kind == "mw_component_import" {
		im := a.imported(t.Outputs[0])
		p.Name, p.Version, p.URL, p.Checksums = t.Label.Name, im.Version, im.URL, im.Checksums
		return p, nil
	}
	p.Comment = a.text(lab, "kind") + " at " + cmp.Or(place, "MediaWiki's root") + ", " + lab
	is := attest.About{}
	// What the component does not bring into the image is not looked at.
	learn := func(file string, read func([]byte) attest.About) error {
		if !own.files[file] {
			return nil
		}
		text, err := a.o.tree.ReadDigested(file)
		if err != nil {
			return err
		}
		more := read(text)
		is = attest.About{Name: cmp.Or(is.Name, more.Name), Version: cmp.Or(is.Version, more.Version), License: cmp.Or(is.License, more.License)}
		return nil
	}
	for _, m := range stringsOf(a.attr(lab, "manifests")) {
		if file, err := label.Parse(m, t.Label.Pkg); err == nil {
			if err := learn(path.Join(file.Pkg, file.Name), attest.Manifest); err != nil {
				return p, err
			}
		}
	}
	if err := learn(path.Join(t.Label.Pkg, "composer.json"), attest.ComposerJSON); err != nil {
		return p, err
	}
	p.Name = cmp.Or(is.Name, t.Label.Name)
	if a.text(lab, "kind") == "core" {
		if err := learn(path.Join(t.Label.Pkg, "includes/Defines.php"), attest.Defines); err != nil {
			return p, err
		}
		p.Name, p.CPE = "MediaWiki", attest.CoreCPE(is.Version)
	}
	p.Version, p.License = is.Version, is.License
	checkout := a.checkoutOf(path.Join(t.Label.Pkg, "BUILD"))
	src, err := a.source(ctx, checkout)
	if err != nil {
		return p, err
	}
	if src != nil {
		p.Source = publicSource(src, path.Join(src.Prefix, strings.TrimPrefix(strings.TrimPrefix(t.Label.Pkg, checkout), "/")))
	}
	p.URL = attest.ComponentURL(place, p.Version, p.Source)
	return p, nil
}

// addPackages adds what package managers brought into what h holds, which is called of: composer's packages by its list of what is installed or its lock, npm's
// by its lock.
func (a *attester) addPackages(b *attest.Bill, h held, of string) error {
	add := func(file string, text []byte, read func([]byte) ([]attest.Package, error), needed bool) error {
		packages, err := read(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, p := range packages {
			if needed {
				b.Add(p, p.ID, attest.NeededFor, of)
			} else {
				b.Add(p, of, attest.Contains, p.ID)
			}
		}
		return nil
	}
	for _, f := range slices.Sorted(maps.Keys(h.files)) {
		if !attest.IsInstalled(f) {
			continue
		}
		text, err := a.o.tree.ReadDigested(f)
		if err == nil {
			err = add(f, text, attest.ComposerInstalled, false)
		}
		if err != nil {
			return err
		}
	}
	for _, n := range a.sortedNodes(h.nodes, "composer_install", "npm_build") {
		d := a.declared[n.Label]
		file := a.lockOf(d)
		if file == "" {
			continue // a step makes it
		}
		text, err := a.o.tree.ReadFile(file)
		if err != nil {
			return err
		}
		if d.Kind() == "npm_build" {
			whole := slices.ContainsFunc(stringsOf(a.attr(n.Label, "outs")), func(out string) bool { return path.Clean(out) == "node_modules" })
			err = add(file, text, attest.NPMLock, !whole)
		} else {
			dev, _ := a.attr(n.Label, "dev").(bool)
			err = add(file, text, func(text []byte) ([]attest.Package, error) { return attest.ComposerLock(text, dev) }, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lockOf is the lock that a target works by, or "" where it is no file of the tree.
func (a *attester) lockOf(d load.Declared) string {
	name := ""
	switch d.Kind() {
	case "composer_install":
		name = "composer.lock"
	case "npm_build":
		name = "package-lock.json"
	case "debian_image":
		name = cmp.Or(a.text(d.Label().String(), "lock"), d.Label().Name+".lock.json")
	}
	file := path.Join(d.Label().Pkg, name)
	if _, ok := a.o.tree.Lookup(file); !ok {
		return ""
	}
	return file
}

// addDebs adds the Debian packages of an image, as locks name them.
func (a *attester) addDebs(b *attest.Bill, h held) error {
	for _, n := range a.sortedNodes(h.nodes, "debian_image") {
		file := a.lockOf(a.declared[n.Label])
		text, err := a.o.tree.ReadFile(file)
		if err != nil {
			return err
		}
		lock, err := lockfile.Parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, d := range lock.Packages {
			p := attest.Package{
				ID: "deb " + d.Name + " " + d.Version + " " + d.Architecture, Name: d.Name, Version: d.Version, Kind: attest.Library,
				URL:       attest.DebURL(d.Name, d.Version, d.Architecture, lock.Suite),
				Checksums: []attest.Checksum{{Algorithm: "SHA256", Value: d.SHA256}},
			}
			b.Add(p, imageID, attest.Contains, p.ID)
		}
	}
	return nil
}

// imported says what is known of an image that was made elsewhere.
func (a *attester) imported(n *action.Node) attest.Package {
	im := n.Do.(*action.Image).Import
	_, sum, _ := strings.Cut(im.Digest, ":")
	lab, _ := label.Parse(n.Label, "")
	return attest.Package{
		ID: "image " + sum, Name: cmp.Or(im.Registry, n.Label), Version: im.Digest, Kind: attest.Container,
		URL:       attest.ImageURL(im.Registry, lab.Name, im.Digest, im.Platform),
		Checksums: []attest.Checksum{{Algorithm: "SHA256", Value: sum}},
	}
}

// build says how an image came to be: what the command line asked for, and what everything in its build was made from.
func (a *attester) build(ctx context.Context, t *graph.Target, made *action.Node) (*attest.Build, error) {
	b := &attest.Build{
		Target: t.Label.String(), Config: a.o.app.config.Name, Platform: a.workspace.Platform, Defines: a.asked(t),
	}
	nodes, files := map[*action.Node]bool{}, map[string]bool{}
	checkouts := map[string]bool{"": true}
	args := map[string]bool{}
	from := func(file string) { checkouts[a.checkoutOf(file)] = true }
	var visit func(n *action.Node)
	visit = func(n *action.Node) {
		if nodes[n] {
			return
		}
		nodes[n] = true
		if strings.HasPrefix(n.Name, "group ") {
			files[load.LayersLock] = true
		}
		switch do := n.Do.(type) {
		case *action.Layer:
			for _, e := range do.Entries {
				if e.File != "" {
					from(e.File)
				}
			}
			if do.Base != nil {
				files[load.LayersLock] = true
			}
		case *action.Native:
			for _, f := range do.Files {
				from(f.Path)
			}
		case *action.Run:
			for name, value := range a.o.handed.buildArgs {
				if do.Env[name] == value {
					args[name] = true
				}
			}
		case *action.Image:
			if do.Import != nil {
				p := a.imported(n)
				b.Bases = append(b.Bases, attest.Base{URL: p.URL, Digest: p.Checksums[0].Value})
				if a.text(n.Label, "ref") != "" {
					files[load.LockFile] = true
				}
			}
		}
		for _, d := range n.Deps() {
			visit(d)
		}
	}
	visit(made)
	b.Args = slices.Collect(maps.Keys(args))
	for _, n := range a.sortedNodes(nodes, "composer_install", "npm_build", "debian_image") {
		if f := a.lockOf(a.declared[n.Label]); f != "" {
			files[f] = true
		}
	}
	for f := range files {
		text, err := a.o.tree.ReadFile(f)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		b.Files = append(b.Files, attest.File{Path: f, SHA256: hex.EncodeToString(sum[:])})
	}
	var g errgroup.Group // there may be hundreds of submodules
	g.SetLimit(8)
	for c := range checkouts {
		g.Go(func() error {
			_, err := a.source(ctx, c)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for c := range checkouts {
		src, err := a.source(ctx, c)
		if err != nil {
			return nil, err
		}
		if src != nil {
			b.Sources = append(b.Sources, attest.Checkout{Source: *publicSource(src, ""), Place: c})
		}
	}
	return b, nil
}

// asked are the defines that conditions of a target, or of what it needs, asked for. The others have no part in it, and may have names that are nobody's business.
func (a *attester) asked(t *graph.Target) map[string]string {
	defines := map[string]string{}
	closure, _ := a.graph.Sort([]graph.ID{t.ID})
	for _, c := range closure {
		for _, e := range c.Deps {
			if values, _ := a.attr(e.To.Label.String(), "define_values").(map[string]string); e.Condition {
				for name := range values {
					defines[name] = a.workspace.Defines[name]
				}
			}
		}
	}
	return defines
}

// publicSource is what documents say of a commit.
func publicSource(s *workspace.Source, path string) *attest.Source {
	return &attest.Source{URL: attest.GitURL(s.Remote), Commit: s.Commit, Dirty: s.Dirty, Path: path}
}

// checkoutOf is the git checkout in the tree that a file lies in, "" for that of the workspace.
func (a *attester) checkoutOf(file string) string {
	folder := path.Dir(file)
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.checkout[folder]
	if !ok {
		c = a.o.tree.CheckoutOf(file)
		a.checkout[folder] = c
	}
	return c
}

// source asks git about a checkout, once.
func (a *attester) source(ctx context.Context, checkout string) (*workspace.Source, error) {
	a.mu.Lock()
	ask := a.sources[checkout]
	if ask == nil {
		ask = sync.OnceValues(func() (*workspace.Source, error) { return a.o.tree.SourceOf(ctx, checkout) })
		a.sources[checkout] = ask
	}
	a.mu.Unlock()
	return ask()
}
