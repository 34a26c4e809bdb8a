// Package lower turns actions into LLB, the language that BuildKit solves.
//
// Content enters as layers, by digest: every layer is an [llb.OCILayout] source over a manifest that names just that
// layer. These manifests are made here, deterministically, and have to be served beside the store's blobs. Layers are
// put on one another by one flat merge, so the depth of a graph does not grow with the number of components, and the
// engine fetches its inputs in parallel.
//
// A graph depends on content alone: no label, host path, clock or revision enters what the engine keys its cache by.
// Names are display metadata. The package is pure; package buildkit solves what it returns.
package lower

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"

	"github.com/mwbuild/mwbuild/graph/action"
)

// StoreID names the content store that a solve must offer for the layers of a [Graph]; with buildctl it is the name in
// --oci-layout NAME=DIR.
const StoreID = "mwbuild"

const (
	outDir   = "/out"
	tmpDir   = "/tmp"
	runDir   = "/run"  // of a step that keeps changes
	rootHome = "/root" // likewise
	hostname = "mwbuild"
	// The path that an image without one gets. An engine would fill in its own, which may change with its version.
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// Files become 0644, or 0755 where anyone may execute them; directories 0755; set-id and sticky bits go.
	outMode = "a=rX,u+w,-t"
)

var epoch = time.Unix(0, 0).UTC()

// A Layer is one layer of a root filesystem, an image or a mount: a blob of the client's store, or, where From is set,
// the result of another graph, solved as part of this one. From is for graphs that leave the machine, as in
// `mwbuild llb`; a build solves one step at a time and knows the blob.
type Layer struct {
	Descriptor ocispecs.Descriptor // media type, digest and size; the rest is ignored
	DiffID     digest.Digest
	On         *Layer // what it is stacked on, since it may delete some of that; no graph
	From       *Graph // from [Run]; then Descriptor and DiffID are not looked at
}

// A Root is a root filesystem with what its image says of processes in it.
//
// The first BaseLayers of Layers, those of an image made elsewhere and up to the last that a step's changes are, are stacked
// in order, whiteouts included; all others are merged, and must hold no whiteouts but for what they are On. Where Remote is set the engine itself fetches the base layers from a
// registry: their blobs need not be in the store.
type Root struct {
	Layers     []Layer
	BaseLayers int
	Remote     string // repository@digest
	Platform   string // os/arch[/variant]; "" is linux on this machine's architecture
	Env        []string
	WorkingDir string
	User       string
}

// A Graph is something to solve.
type Graph struct {
	// Definition is a marshalled pb.Definition, as `buildctl build` reads it from its standard input.
	Definition []byte
	// Manifests are the manifests and configurations that the layer sources name, by digest. They must be served
	// from the store [StoreID] beside the blobs of the layers.
	Manifests map[digest.Digest][]byte
}

// Run lowers one step. Its result is what the step wrote to /out, as one layer at the image's root, with modes 0644
// and 0755, all times the epoch, and r.Owner. That the step made what r.Outs names is for the caller to check, in the
// layer. mounts holds the layers of every node that r mounts; name is for the display.
//
// The step sees a read-only root, read-only mounts, an empty /tmp, and no network unless r.Network is set. Its
// environment is the image's, HOME=/tmp, SOURCE_DATE_EPOCH=0, then r.Env; its user is the image's, or r.User.
//
// Where r.Changes is set, the result is instead what the step changed in its root, as the engine finds it: one layer or, where nothing
// did, none. Then the root is writable, /run an empty tmpfs too, there is no /out, and HOME=/root for root.
func Run(ctx context.Context, r action.Run, root Root, mounts map[*action.Node][]Layer, name string) (Graph, error) {
	if len(r.Args) == 0 {
		return Graph{}, fmt.Errorf("%s: a run step needs a command", name)
	}
	if r.Changes && len(r.Outs) > 0 {
		return Graph{}, fmt.Errorf("%s: a step that keeps what it changes has no outs", name)
	}
	user := cmp.Or(r.User, root.User)
	l, err := newLowering(root.Platform, name)
	if err != nil {
		return Graph{}, err
	}
	rootfs, err := l.root(root)
	if err != nil {
		return Graph{}, err
	}
	dir := r.Dir
	if dir == "" {
		dir = root.WorkingDir
	}
	if dir == "" {
		dir = "/"
	}
	if !path.IsAbs(dir) {
		return Graph{}, fmt.Errorf("%s: working directory %q is not absolute", name, dir)
	}
	st := rootfs.Dir(path.Clean(dir)).Hostname(hostname).User(user)
	home := tmpDir
	if r.Changes && isRoot(user) {
		home = rootHome
	}
	for _, kv := range environ(root.Env, r.Env, home) {
		st = st.AddEnv(kv[0], kv[1])
	}
	opts := []llb.RunOption{
		llb.Args(r.Args),
		llb.AddMount(tmpDir, llb.Scratch(), llb.Tmpfs()),
		llb.WithCustomName(name),
		l.platform,
	}
	if r.Changes {
		opts = append(opts, llb.AddMount(runDir, llb.Scratch(), llb.Tmpfs()))
	} else {
		opts = append(opts, llb.ReadonlyRootFS())
	}
	if !r.Network {
		opts = append(opts, llb.Network(llb.NetModeNone))
	}
	byDest := map[string][]Layer{}
	for _, m := range r.Mounts {
		dest := path.Clean(m.Dest)
		if err := checkDest(dest); err != nil {
			return Graph{}, fmt.Errorf("%s: %w", name, err)
		}
		if r.Changes && dest == runDir {
			return Graph{}, fmt.Errorf("%s: mount %s: it belongs to the step itself; mount it elsewhere", name, m.Dest)
		}
		layers, ok := mounts[m.From]
		if !ok {
			return Graph{}, fmt.Errorf("%s: mount %s: the layers of %s are not known", name, m.Dest, m.From.ID())
		}
		byDest[dest] = append(byDest[dest], layers...)
	}
	for _, dest := range slices.Sorted(maps.Keys(byDest)) {
		if len(byDest[dest]) == 0 {
			return Graph{}, fmt.Errorf("%s: mount %s: nothing to mount", name, dest)
		}
		src, err := l.merge(byDest[dest])
		if err != nil {
			return Graph{}, err
		}
		opts = append(opts, llb.AddMount(dest, src, llb.Readonly))
	}
	extra, err := l.extras(r, user)
	if err != nil {
		return Graph{}, fmt.Errorf("%s: %w", name, err)
	}
	run := st.Run(append(opts, extra...)...)
	if r.Changes {
		return l.marshal(ctx, llb.Diff(rootfs, run.Root(), l.platform, llb.WithCustomName(name+": keep changes")))
	}

	from := "/"
	scratch, mountOpts := l.writable(user)
	if len(mountOpts) > 0 {
		from = outDir
	}
	out := run.AddMount(outDir, scratch, mountOpts...)
	return l.marshal(ctx, llb.Scratch().File(llb.Copy(out, from, "/", &llb.CopyInfo{
		CopyDirContentsOnly: true,
		Mode:                &llb.ChmodOpt{ModeStr: outMode},
		ChownOpt: &llb.ChownOpt{
			User:  &llb.UserOpt{UID: r.Owner.UID},
			Group: &llb.UserOpt{UID: r.Owner.GID},
		},
		CreatedTime: &epoch,
	}), l.platform, llb.WithCustomName(name+": keep "+outDir)))
}

// writable is an empty folder that user can write to: the root of a mount would be root's.
func (l *lowering) writable(user string) (llb.State, []llb.MountOption) {
	if isRoot(user) {
		return llb.Scratch(), nil
	}
	return llb.Scratch().File(llb.Mkdir(outDir, 0o777, llb.WithCreatedTime(epoch)), l.platform, l.group()), []llb.MountOption{llb.SourcePath(outDir)}
}

func isRoot(user string) bool {
	u, _, _ := strings.Cut(user, ":")
	return u == "" || u == "0" || u == "root"
}

// OwnPlaces are the paths, relative to the root, where a step of r finds what an engine mounts there, and so nothing that it
// changed.
func OwnPlaces(r action.Run) []string {
	own := []string{"dev", "proc", "sys", "run", "tmp", "etc/hosts", "etc/resolv.conf"}
	for _, m := range r.Mounts {
		own = append(own, path.Clean(m.Dest)[1:])
	}
	for _, c := range r.Caches {
		own = append(own, c.Dest[1:])
	}
	for _, s := range r.Secrets {
		if s.Dest != "" {
			own = append(own, s.Dest[1:])
		}
	}
	return own
}

// extras are the parts of a step that reach beyond it: caches, secrets and ssh agents.
func (l *lowering) extras(r action.Run, user string) ([]llb.RunOption, error) {
	var opts []llb.RunOption
	taken := map[string]bool{runDir: r.Changes}
	for _, m := range r.Mounts {
		taken[path.Clean(m.Dest)] = true
	}
	claim := func(dest string) error {
		if err := checkDest(dest); err != nil {
			return err
		}
		if taken[dest] {
			return fmt.Errorf("mount %q: something else is mounted there", dest)
		}
		taken[dest] = true
		return nil
	}
	for _, c := range r.Caches {
		if err := claim(c.Dest); err != nil {
			return nil, err
		}
		st, mountOpts := l.writable(user)
		opts = append(opts, llb.AddMount(c.Dest, st, append(mountOpts, llb.AsPersistentCacheDir("mwbuild "+c.ID, llb.CacheMountLocked))...))
	}
	for _, s := range r.Secrets {
		if s.Env != "" {
			opts = append(opts, llb.AddSecret(s.Env, llb.SecretID(s.ID), llb.SecretAsEnv(true)))
			continue
		}
		if err := claim(s.Dest); err != nil {
			return nil, err
		}
		uid, gid, mode := secretOwner(user)
		opts = append(opts, llb.AddSecret(s.Dest, llb.SecretID(s.ID), llb.SecretFileOpt(uid, gid, mode)))
	}
	for n, id := range r.SSH {
		// The first one is what programs find by themselves.
		uid, gid, mode := secretOwner(user)
		socket := fmt.Sprintf("/run/mwbuild/ssh-agent.%d", n)
		opts = append(opts, llb.AddSSHSocket(llb.SSHID(id), llb.SSHSocketOpt(socket, uid, gid, mode|mode>>1))) // to connect is to write
	}
	return opts, nil
}

// secretOwner says who may read a secret: the step's user alone, where that is known by number.
func secretOwner(user string) (uid, gid, mode int) {
	u, g, _ := strings.Cut(user, ":")
	if u == "" || u == "root" {
		return 0, 0, 0o400
	}
	uid, err := strconv.Atoi(u)
	if err != nil {
		return 0, 0, 0o444
	}
	gid, _ = strconv.Atoi(g) // 0 where it has a name
	return uid, gid, 0o400
}

// Image lowers an image's filesystem: the layers of root on one another, without its configuration, which is ours and
// is handed to the exporter. An image without layers is an error: no engine can solve nothing.
func Image(ctx context.Context, root Root, name string) (Graph, error) {
	if len(root.Layers) == 0 {
		return Graph{}, fmt.Errorf("%s: the image has no layers, so there is nothing to solve", name)
	}
	l, err := newLowering(root.Platform, name)
	if err != nil {
		return Graph{}, err
	}
	st, err := l.root(root)
	if err != nil {
		return Graph{}, err
	}
	return l.marshal(ctx, st)
}

// environ is the environment of a step, later entries replacing earlier ones in their place.
func environ(image []string, set map[string]string, home string) [][2]string {
	env := [][2]string{{"PATH", defaultPath}}
	add := func(k, v string) {
		for i := range env {
			if env[i][0] == k {
				env[i][1] = v
				return
			}
		}
		env = append(env, [2]string{k, v})
	}
	for _, kv := range image {
		if k, v, ok := strings.Cut(kv, "="); ok {
			add(k, v)
		}
	}
	add("HOME", home)
	add("SOURCE_DATE_EPOCH", "0")
	for _, k := range slices.Sorted(maps.Keys(set)) {
		add(k, set[k])
	}
	return env
}

func checkDest(dest string) error {
	if !path.IsAbs(dest) || dest == "/" {
		return fmt.Errorf("mount %q: not an absolute path below /", dest)
	}
	for _, own := range []string{outDir, tmpDir} {
		if dest == own || strings.HasPrefix(dest, own+"/") || strings.HasPrefix(own, dest+"/") {
			return fmt.Errorf("mount %q: %s belongs to the step itself; mount it elsewhere", dest, own)
		}
	}
	return nil
}

// A lowering collects what one graph needs.
type lowering struct {
	name      string
	spec      ocispecs.Platform
	platform  llb.ConstraintsOpt
	manifests map[digest.Digest][]byte
}

func newLowering(platform, name string) (*lowering, error) {
	spec := platforms.Normalize(ocispecs.Platform{OS: "linux", Architecture: platforms.DefaultSpec().Architecture})
	if platform != "" {
		var err error
		if spec, err = platforms.Parse(platform); err != nil {
			return nil, fmt.Errorf("%s: platform %q: %w", name, platform, err)
		}
	}
	return &lowering{name: name, spec: spec, platform: llb.Platform(spec), manifests: map[digest.Digest][]byte{}}, nil
}

// group makes the sources of a graph one line of the display.
func (l *lowering) group() llb.ConstraintsOpt {
	return llb.ProgressGroup("mwbuild layers of "+l.name, l.name+": load layers", false)
}

func (l *lowering) root(r Root) (llb.State, error) {
	if r.BaseLayers < 0 || r.BaseLayers > len(r.Layers) {
		return llb.State{}, fmt.Errorf("%s: %d base layers of %d", l.name, r.BaseLayers, len(r.Layers))
	}
	base, rest := r.Layers[:r.BaseLayers], r.Layers[r.BaseLayers:]
	var states []llb.State
	switch {
	case len(base) == 0:
	case r.Remote != "":
		states = append(states, llb.Image(r.Remote, l.platform, l.group()))
	default:
		st, err := l.stack(base, "mwbuild/base")
		if err != nil {
			return llb.State{}, err
		}
		states = append(states, st)
	}
	return l.flat(states, rest)
}

func (l *lowering) merge(layers []Layer) (llb.State, error) { return l.flat(nil, layers) }

// flat is one merge of states and layers, or the one thing that there is.
func (l *lowering) flat(states []llb.State, layers []Layer) (llb.State, error) {
	for _, layer := range layers {
		st, err := l.layer(layer)
		if err != nil {
			return llb.State{}, err
		}
		states = append(states, st)
	}
	if len(states) == 0 {
		return llb.Scratch(), nil
	}
	// Merge passes on the working directory and environment of its first input; a root starts without either.
	return llb.Merge(states, l.platform, l.group()), nil
}

func (l *lowering) layer(layer Layer) (llb.State, error) {
	if layer.From == nil {
		stack := []Layer{layer}
		for on := layer.On; on != nil; on = on.On {
			stack = append(stack, *on)
		}
		slices.Reverse(stack)
		return l.stack(stack, "mwbuild/layer")
	}
	var def pb.Definition
	if err := proto.Unmarshal(layer.From.Definition, &def); err != nil {
		return llb.State{}, fmt.Errorf("%s: sub-graph: %w", l.name, err)
	}
	op, err := llb.NewDefinitionOp(&def)
	if err != nil {
		return llb.State{}, fmt.Errorf("%s: sub-graph: %w", l.name, err)
	}
	maps.Copy(l.manifests, layer.From.Manifests)
	return llb.NewState(op), nil
}

// stack is a source of layers in order, which an image manifest of just these names.
func (l *lowering) stack(layers []Layer, repo string) (llb.State, error) {
	manifest := ocispecs.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest}
	config := ocispecs.Image{
		Platform: ocispecs.Platform{Architecture: l.spec.Architecture, OS: l.spec.OS, Variant: l.spec.Variant},
		RootFS:   ocispecs.RootFS{Type: "layers"},
	}
	for _, layer := range layers {
		d := layer.Descriptor
		if layer.From != nil || d.Digest == "" || layer.DiffID == "" {
			return llb.State{}, fmt.Errorf("%s: layer %s: digest or diff id missing", l.name, d.Digest)
		}
		manifest.Layers = append(manifest.Layers, ocispecs.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.DiffID)
	}
	cd, err := l.put(config)
	if err != nil {
		return llb.State{}, err
	}
	manifest.Config = ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageConfig, Digest: cd, Size: int64(len(l.manifests[cd]))}
	md, err := l.put(manifest)
	if err != nil {
		return llb.State{}, err
	}
	return llb.OCILayout(repo+"@"+md.String(), llb.OCIStore("", StoreID), l.platform, l.group()), nil
}

func (l *lowering) put(v any) (digest.Digest, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("%s: %w", l.name, err)
	}
	d := digest.FromBytes(b)
	l.manifests[d] = b
	return d, nil
}

func (l *lowering) marshal(ctx context.Context, st llb.State) (Graph, error) {
	def, err := st.Marshal(ctx, l.platform)
	if err != nil {
		return Graph{}, fmt.Errorf("%s: %w", l.name, err)
	}
	// Deterministic, since the metadata is a map.
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(def.ToPB())
	if err != nil {
		return Graph{}, fmt.Errorf("%s: %w", l.name, err)
	}
	return Graph{Definition: b, Manifests: l.manifests}, nil
}
