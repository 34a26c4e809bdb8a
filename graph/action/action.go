// Package action is the closed vocabulary of what a build can do, as pure data.
//
// There are four kinds. A [Layer] packs files into one image layer. A [Run] executes a program in an image and keeps
// what it wrote to /out as a layer, or what it changed in the image. A [Native] computes files or a layer in this process,
// from files, downloads and what other Natives made. An [Image] is a configuration over a base and layers, or an image
// that was made elsewhere and is named by digest.
//
// A rule's implementation makes nodes; package plan turns each into a key, package lower into LLB. A node says nothing
// about how, where or whether it will be executed, and holds no digest of a file: those belong to the plan.
package action

import (
	"strings"
	"time"
)

// A Node is one action of one target. Nodes point at the nodes whose outputs they read, and so form a DAG; they are
// immutable once the target that made them is analysed.
type Node struct {
	Label string // target that declared the action, for display and records; never part of a key
	Name  string // distinguishes the actions of one target: "layer", "image", "run"
	Pos   string // file:line:col of the target in its BUILD file, for messages
	Do    Action
}

// ID names the node within one graph: "//extensions/Cite:Cite layer".
func (n *Node) ID() string { return n.Label + " " + n.Name }

// Kind is "Layer", "Run", "Native" or "Image".
func (n *Node) Kind() string { return n.Do.kind() }

// Title names the kind of the node to people: "layer", "run", "image", or a Native's kind without its version, "l10n
// fragment".
func (n *Node) Title() string {
	do, ok := n.Do.(*Native)
	if !ok {
		return strings.ToLower(n.Kind())
	}
	if i := strings.LastIndexByte(do.Kind, ' '); i > 0 {
		return do.Kind[:i]
	}
	return do.Kind
}

// Deps returns the nodes whose outputs n reads, each once, in order of first use.
func (n *Node) Deps() []*Node {
	var deps []*Node
	seen := map[*Node]bool{}
	n.Do.visit(func(d *Node) {
		if d != nil && !seen[d] {
			seen[d] = true
			deps = append(deps, d)
		}
	})
	return deps
}

// MakesLayer tells whether what n makes is a layer: of a Layer, a Run, and a Native that says so.
func (n *Node) MakesLayer() bool {
	switch do := n.Do.(type) {
	case *Layer, *Run:
		return true
	case *Native:
		return do.Layer
	}
	return false
}

// Merged are those of an image's Layers that another of them merges.
func (i *Image) Merged() map[*Node]bool {
	merged := map[*Node]bool{}
	for _, n := range i.Layers {
		if l, ok := n.Do.(*Layer); ok {
			for _, m := range l.Merges {
				merged[m] = true
			}
		}
	}
	return merged
}

// Imports tells whether n is an Image made elsewhere.
func (n *Node) Imports() bool {
	do, ok := n.Do.(*Image)
	return ok && do.Import != nil
}

// MakesFiles tells whether what n makes is files by name, as of a Native that makes no layer.
func (n *Node) MakesFiles() bool {
	do, ok := n.Do.(*Native)
	return ok && !do.Layer
}

// An Action is a *Layer, *Run, *Native or *Image.
type Action interface {
	kind() string
	visit(func(*Node))
}

// An Owner is the numeric user and group of files in a layer.
type Owner struct{ UID, GID int }

// A Layer packs entries into one deterministic layer.
//
// Where Merges is set, it makes one layer of all that differs from the bases of these, or none where nothing does, and the rest says nothing.
type Layer struct {
	Entries []Entry // sorted by Dest, no Dest twice
	Owner   Owner   // of every file and directory that does not name its own
	Base    *Base   // a layer made before, on which only what differs is packed; or nil
	Merges  []*Node // Layers with a Base, none of which has a place of another's
	// With Merges, folders in which other layers have something, sorted: none of these is deleted as a whole, and with KeepFolders none at all.
	Shared      []string
	KeepFolders bool
}

// A Base is a layer that was packed some time ago, and is known by its digest.
type Base struct {
	Digest, DiffID string
	Size           int64  // of the blob
	Repository     string // of a registry that should have it; no part of what is made
}

// An Entry puts one thing at Dest. Exactly one of File, From, Text and Dir says what.
type Entry struct {
	Dest string // slash-separated, relative to the image's root, clean
	File string // a file or symlink of the workspace, by its workspace-relative path
	From *Node  // a Layer, Run or Native whose output holds Path
	Path string // with From: file or directory in that output ("" is all of it); of a Native that makes files, one of them
	Text *string
	Exec bool   // with Text: mode 0755 and not 0644
	Dir  bool   // an empty directory
	User *Owner // with Dir: its owner, where it differs from the layer's
}

// A Run executes a program. Its root is read-only, its network off unless Network is set, /tmp a tmpfs, and /out the one
// place that it can write to and that is kept.
//
// Where Changes is set, it may write everywhere instead, as RUN of a Dockerfile may: its output is what it changed in its
// root, deletions included. There are no Outs then and no /out, /run is a tmpfs too, and owners and modes are kept.
type Run struct {
	Root    *Node   // Image
	Mounts  []Mount // read-only inputs
	Args    []string
	Env     map[string]string // added to the image's own
	Dir     string            // working directory, absolute; "" is the image's
	Outs    []string          // files or directories that must exist below /out afterwards, sorted
	Network bool
	Owner   Owner  // of what it wrote
	User    string // that it runs as, uid[:gid]; "" is the image's
	Changes bool   // its output is what it changed in its root

	Caches  []Cache       // sorted by Dest
	Secrets []Secret      // sorted by ID
	SSH     []string      // ids of ssh agents that it may use, sorted
	Timeout time.Duration // 0 is none; no part of a key
}

// A Cache is a folder at Dest, an absolute path, that outlives the step: other steps that name it find what was left there,
// one after the other. It is for downloads; what lies there must not change what a step makes.
type Cache struct{ ID, Dest string }

// A Secret is a value that whoever builds hands in under ID: a file at Dest, an absolute path, or the environment variable
// Env. It is in no layer, and in no key but for a digest where Keyed is set.
type Secret struct {
	ID        string
	Dest, Env string // one of them
	Keyed     bool
}

// A Mount shows the output of From, which makes a layer, at Dest, an absolute path.
type Mount struct {
	From *Node
	Dest string
}

// A Native computes files in this process. What it makes depends on what is said here alone. Only names and digests of
// these files are kept: their bytes are computed again when a layer needs them that was not packed at once.
//
// Where Layer is set, what it makes is one layer, which is kept as any other and can stand wherever one can.
type Native struct {
	Kind      string // the function, and its version after the last space: "l10n fragment 1"
	Params    map[string]string
	Files     []Source
	Inputs    []Input
	Downloads []Download // each SHA256 once; only of one that makes a layer
	Layer     bool
}

// A Download is a file from elsewhere. Its SHA256 alone identifies it; the rest says where it may be had, and is no part of
// a key.
type Download struct {
	SHA256  string // of its bytes, hexadecimal
	Size    int64
	Name    string   // for people: "libssl3 3.0.15-1"
	Path    string   // below a mirror: "pool/main/o/openssl/libssl3_3.0.15-1_amd64.deb"
	Mirrors []string // URLs that Path is below; empty: whoever fetches it knows some
}

// A Source is a file of the workspace, no symlink, in a role that the Native knows. Its bytes count, its mode does not.
type Source struct{ Role, Path string }

// An Input is what another Native made: its file at Path, which need not exist, or all of its files if Path is "".
type Input struct {
	Role string
	From *Node
	Path string
}

// A File is one file that a Native made.
type File struct {
	Path   string // "de.cdb"; of one action, each is different
	SHA256 string // of its bytes, hexadecimal
	Size   int64
}

// Made is a File with its bytes, where its maker has them at hand. Of what only other Natives read there may be none.
type Made struct {
	File
	Data []byte
	Free func() // nil, or takes Data back when nobody needs it any more
}

// An Image is Layers over Base with Config, or, where Import is set, an image made elsewhere.
type Image struct {
	Import   *Import
	Base     *Node   // Image; nil is scratch
	Layers   []*Node // each makes layers, of which one that another of them Merges gives the first alone; or is an imported Image, of which it takes all
	Config   Config
	Platform string // os/arch[/variant] of an image without a base
}

// An Import is an image that exists already. Its Digest alone identifies it; Registry, Layout and Tar say where it may
// be had and are no part of a key. One of the three is set.
type Import struct {
	Digest   string // sha256:… of the manifest or index, for Tar of the tar file itself
	Registry string // repository without tag or digest
	Layout   string // OCI layout folder, absolute or relative to the workspace
	Tar      string // docker-archive, oci-archive, or a root filesystem; absolute or relative to the workspace
	Platform string // os/arch[/variant] picked from an index
}

// Config is what mwbuild sets of an OCI image configuration; what is zero is taken from the base.
type Config struct {
	User         string
	Env          map[string]string
	Entrypoint   []string
	Cmd          []string
	WorkingDir   string
	Labels       map[string]string
	ExposedPorts []string
	Volumes      []string
	StopSignal   string
}

func (*Layer) kind() string  { return "Layer" }
func (*Run) kind() string    { return "Run" }
func (*Native) kind() string { return "Native" }
func (*Image) kind() string  { return "Image" }

func (l *Layer) visit(f func(*Node)) {
	for _, n := range l.Merges {
		f(n)
	}
	for i := range l.Entries {
		f(l.Entries[i].From)
	}
}

func (r *Run) visit(f func(*Node)) {
	f(r.Root)
	for _, m := range r.Mounts {
		f(m.From)
	}
}

func (n *Native) visit(f func(*Node)) {
	for _, in := range n.Inputs {
		f(in.From)
	}
}

func (i *Image) visit(f func(*Node)) {
	f(i.Base)
	for _, l := range i.Layers {
		f(l)
	}
}
