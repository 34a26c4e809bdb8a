package plan

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// Versions of what turns inputs into outputs. Each rises when the same inputs would give another output; mwbuild's own
// version enters no key.
const (
	runVersion     = "1" // of package lower's Run
	imageVersion   = "1" // of image.Assemble
	importVersion  = "1" // of the image import
	changesVersion = "1" // of layer.Changes and of what lower.Run makes otherwise for it
)

// Files tells what the files of the workspace hold.
type Files interface {
	Lookup(path string) (workspace.File, bool)
	Digest(path string) (workspace.Digest, error)
}

// A Record is what an action made: a layer, an image, or the files of a Native by name and digest.
type Record struct {
	Layers []image.Layer `json:",omitempty"`
	Image  *image.Image  `json:",omitempty"`
	Files  []action.File `json:",omitempty"`

	// Downloads are the digests of what was fetched for it. They need not be there for the record to be good.
	Downloads []digest.Digest `json:",omitempty"`

	// Took is how long the action took, at least a microsecond, or 0 if nobody knows. It enters no key.
	Took time.Duration `json:",omitempty"`
}

// Descriptors returns what the record's action made, for display: its layers or files, or the image's manifest.
func (r *Record) Descriptors() []ocispecs.Descriptor {
	if r.Image != nil {
		return []ocispecs.Descriptor{r.Image.Manifest}
	}
	ds := make([]ocispecs.Descriptor, 0, len(r.Layers)+len(r.Files))
	for _, l := range r.Layers {
		ds = append(ds, l.Descriptor)
	}
	for _, f := range r.Files {
		ds = append(ds, ocispecs.Descriptor{MediaType: "application/octet-stream", Digest: digest.NewDigestFromEncoded(digest.SHA256, f.SHA256), Size: f.Size})
	}
	return ds
}

// File returns the file of a Native at path, or nil.
func (r *Record) File(path string) *action.File {
	for i := range r.Files {
		if r.Files[i].Path == path {
			return &r.Files[i]
		}
	}
	return nil
}

// inputs says how a manifest names what an action reads.
type inputs struct {
	file   func(path string) (string, error)   // mode and identity of a file of the workspace
	layers func(*action.Node) []string         // the layer that was made, by what is in it
	files  func(*action.Node, string) []string // the files of a Native: one, or none, or all if the path is ""
	blobs  func(*action.Node) []string         // the layer that was made, as a blob of an image
	image  func(*action.Node) string           // an image as a whole
	root   func(*action.Node) ([]Field, error) // an image as the root of a process
	secret func(id string) (string, error)     // a digest of a secret's value
}

// byOutput names inputs by what the actions before made and by the bytes of files: for action keys. record is called
// for actions that have one.
func byOutput(files Files, record func(*action.Node) *Record) inputs {
	return inputs{
		file: func(p string) (string, error) {
			return fileField(files, p)
		},
		layers: func(n *action.Node) []string {
			var ids []string
			for _, l := range record(n).Layers {
				ids = append(ids, l.DiffID.String())
			}
			return ids
		},
		files: func(n *action.Node, p string) []string {
			if p != "" {
				if f := record(n).File(p); f != nil {
					return []string{f.SHA256}
				}
				return nil
			}
			var ids []string
			for _, f := range record(n).Files {
				ids = append(ids, f.SHA256+" "+f.Path)
			}
			return ids
		},
		blobs: func(n *action.Node) []string {
			var ids []string
			for _, l := range record(n).Layers {
				ids = append(ids, l.Descriptor.Digest.String())
			}
			return ids
		},
		image: func(n *action.Node) string { return record(n).Image.Manifest.Digest.String() },
		root: func(n *action.Node) ([]Field, error) {
			im := record(n).Image
			var cfg ocispecs.Image
			if err := json.Unmarshal(im.ConfigJSON, &cfg); err != nil {
				return nil, fmt.Errorf("%s: its configuration cannot be read: %w", n.ID(), err)
			}
			m := &Manifest{}
			for i, l := range im.Layers {
				m.Add(fmt.Sprintf("image layer[%d]", i), l.DiffID.String())
			}
			m.list("image env", cfg.Config.Env)
			m.set("image workdir", cfg.Config.WorkingDir)
			m.set("image user", cfg.Config.User)
			m.Add("platform", path.Join(cfg.OS, cfg.Architecture, cfg.Variant))
			return m.Fields(), nil
		},
	}
}

// describe lists everything that can change the output of n: its own description, what it reads as in names it, and the
// version of what executes it. Left out are where it stands (label, name, position), the text of the rule that declared
// it, owners, times and other modes of files, and where an import or a download may be had: none of them can change the
// output.
func describe(n *action.Node, in inputs) (*Manifest, error) {
	m := &Manifest{}
	m.Add("action", n.Kind())
	fail := func(err error) error {
		return &graph.Error{Pos: n.Pos, Label: n.Label, Msg: err.Error(), Err: err}
	}
	switch do := n.Do.(type) {
	case *action.Layer:
		if len(do.Merges) > 0 {
			m.Add("merge", fmt.Sprint(layer.PackerVersion, layer.DeltaVersion))
			m.layers(do.Merges, nil, in)
			m.list("shared", do.Shared)
			if do.KeepFolders {
				m.Add("keep folders", "true")
			}
			break
		}
		m.Add("packer", fmt.Sprint(layer.PackerVersion))
		m.Add("owner", owner(do.Owner))
		if do.Base != nil {
			m.Add("base", do.Base.Digest)
			m.Add("delta", fmt.Sprint(layer.DeltaVersion))
		}
		for _, e := range do.Entries {
			switch {
			case e.File != "":
				v, err := in.file(e.File)
				if err != nil {
					return nil, fail(err)
				}
				m.Add("file "+e.Dest, v)
			case e.From != nil && e.From.MakesFiles():
				made := in.files(e.From, e.Path)
				if len(made) != 1 {
					return nil, fail(fmt.Errorf("%s made no file %s", e.From.ID(), e.Path))
				}
				m.Add("made "+e.Dest, made[0])
			case e.From != nil:
				m.list("from "+e.Dest, in.layers(e.From))
				m.Add("path "+e.Dest, e.Path)
			case e.Text != nil:
				m.Add("text "+e.Dest, *e.Text)
				if e.Exec {
					m.Add("exec "+e.Dest, "true")
				}
			default:
				o := do.Owner
				if e.User != nil {
					o = *e.User
				}
				m.Add("dir "+e.Dest, owner(o))
			}
		}
	case *action.Run:
		m.Add("run", runVersion)
		root, err := in.root(do.Root)
		if err != nil {
			return nil, fail(err)
		}
		m.fields = append(m.fields, root...)
		for _, mt := range do.Mounts {
			m.list("mount "+mt.Dest, in.layers(mt.From))
		}
		m.list("argv", do.Args)
		m.dict("env", do.Env)
		m.set("workdir", do.Dir)
		m.list("out", do.Outs)
		m.Add("network", fmt.Sprint(do.Network))
		m.Add("owner", owner(do.Owner))
		for _, c := range do.Caches {
			m.Add("cache "+c.Dest, c.ID)
		}
		for _, s := range do.Secrets {
			m.Add("secret "+s.ID, cmp.Or(s.Dest, s.Env))
			if !s.Keyed {
				continue
			}
			sum, err := in.secret(s.ID)
			if err != nil {
				return nil, fail(err)
			}
			m.Add("secret digest "+s.ID, sum)
		}
		m.list("ssh", do.SSH)
		m.set("user", do.User)
		if do.Changes {
			m.Add("changes", changesVersion)
			m.Add("packer", fmt.Sprint(layer.PackerVersion))
		}
	case *action.Native:
		m.fields = slices.Grow(m.fields, 1+len(do.Params)+len(do.Files)+len(do.Inputs)+len(do.Downloads))
		m.Add("native", do.Kind)
		m.dict("param", do.Params)
		for _, f := range do.Files {
			v, err := in.file(f.Path)
			if err != nil {
				return nil, fail(err)
			}
			mode, id, _ := strings.Cut(v, " ")
			if mode == gitModes[workspace.Symlink] {
				return nil, fail(fmt.Errorf("%s is a symlink, which cannot be read here: put the file in its place", f.Path))
			}
			m.Add("source "+f.Path, f.Role+" "+id)
		}
		// By role and not by number: an input that comes or goes renames no other. Their order counts all the same, and
		// one that is absent has no field.
		roles := make(map[string]int, len(do.Inputs))
		for _, n := range do.Inputs {
			name := "input " + n.Role
			if roles[name]++; roles[name] > 1 {
				name += fmt.Sprintf(" (%d)", roles[name])
			}
			made := in.files(n.From, n.Path)
			if n.Path == "" {
				m.list(name, made)
			} else if len(made) == 1 {
				m.Add(name, made[0])
			}
		}
		// Their order counts, and one that comes or goes renames no other.
		for _, d := range do.Downloads {
			m.Add("download "+d.SHA256, "")
		}
		if do.Layer {
			m.Add("makes", "layer")
			m.Add("packer", fmt.Sprint(layer.PackerVersion))
		}
	case *action.Image:
		if do.Import != nil {
			m.Add("import", importVersion)
			m.Add("digest", do.Import.Digest)
			m.Add("platform", do.Import.Platform)
			m.Add("as", importForm(do.Import))
			break
		}
		m.Add("image", imageVersion)
		if do.Base != nil {
			m.Add("base", in.image(do.Base))
		} else {
			m.Add("platform", do.Platform)
		}
		m.layers(do.Layers, do.Merged(), in)
		c := do.Config
		m.set("user", c.User)
		m.dict("env", c.Env)
		m.list("entrypoint", c.Entrypoint)
		m.list("cmd", c.Cmd)
		m.set("workdir", c.WorkingDir)
		m.dict("label", c.Labels)
		m.list("port", c.ExposedPorts)
		m.list("volume", c.Volumes)
		m.set("stop signal", c.StopSignal)
	default:
		return nil, fail(fmt.Errorf("no key for action %T", do))
	}
	return m, nil
}

// importForm is the one thing beside its digest that decides how an import is read: a tar's digest is of the file, the
// others' of a manifest.
func importForm(in *action.Import) string {
	if in.Tar != "" {
		return "tar"
	}
	return "manifest"
}

func owner(o action.Owner) string { return fmt.Sprintf("%d:%d", o.UID, o.GID) }

// fileField is a file's mode, as git writes it, and the SHA-256 of its bytes or its link's target.
func fileField(files Files, p string) (string, error) {
	f, ok := files.Lookup(p)
	if !ok {
		return "", fmt.Errorf("%s: no such file in the workspace", p)
	}
	d, err := files.Digest(p)
	if err != nil {
		return "", err
	}
	return gitModes[f.Mode] + " " + hex.EncodeToString(d.SHA256[:]), nil
}

var gitModes = map[workspace.Mode]string{workspace.Regular: "100644", workspace.Executable: "100755", workspace.Symlink: "120000"}

// layers adds what nodes made, by place and not by number: a layer that comes or goes renames no other. Their order counts all the same. Of merged ones it is the first
// layer alone.
func (m *Manifest) layers(nodes []*action.Node, merged map[*action.Node]bool, in inputs) {
	places := map[string]int{}
	for _, l := range nodes {
		name := "layer " + place(l)
		if places[name]++; places[name] > 1 {
			name += fmt.Sprintf(" (%d)", places[name])
		}
		if l.Imports() { // its history counts, too
			m.Add(name, in.image(l))
			continue
		}
		made := in.blobs(l)
		if merged[l] {
			made = made[:1]
		}
		m.list(name, made)
	}
}

// CreatedBy is what stands in an image's history for the layer that n makes: what it holds, by place. It is part of the
// image, so it must not tell labels.
func CreatedBy(n *action.Node) string { return "mwbuild layer " + place(n) }

// place is the folder that holds everything that n puts into an image, or its kind where that is not known beforehand.
func place(n *action.Node) string {
	l, ok := n.Do.(*action.Layer)
	if ok && len(l.Merges) == 1 {
		return place(l.Merges[0])
	}
	if ok && len(l.Merges) > 0 {
		return "differences"
	}
	if !ok || len(l.Entries) == 0 {
		return n.Title()
	}
	// Entries are sorted, so what the first and the last share all share.
	first, last := l.Entries[0].Dest, l.Entries[len(l.Entries)-1].Dest
	common := path.Dir(first)
	for common != "." && !strings.HasPrefix(last, common+"/") {
		common = path.Dir(common)
	}
	return "/" + strings.TrimPrefix(common, ".")
}
