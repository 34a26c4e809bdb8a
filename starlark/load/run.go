package load

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"github.com/mwbuild/mwbuild/graph/action"
)

// changes tells whether n is a run whose output is what it changed in its root.
func changes(n *action.Node) bool {
	r, ok := n.Do.(*action.Run)
	return ok && r.Changes
}

// covers tells whether what n puts into an image may delete or replace what lies below it: nobody knows before it is there.
func covers(n *action.Node) bool { return changes(n) || n.Imports() }

// run is ctx.actions.run. It returns the files that it makes, or the action where that keeps changes or is a test, which need
// not make any. Sources lie at /src under their workspace paths.
func (c *ruleContext) run(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	name, workdir, owner, timeout := "run", "", c.loader.workspace.Owner, ""
	var image *nodeValue
	var argv, outs, keyed, ssh *starlark.List
	var srcs starlark.Value
	var env, buildArgs, caches, secrets, mounts *starlark.Dict
	var test bool
	r := &action.Run{}
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "image", &image, "argv", &argv, "outs?", &outs, "name?", &name,
		"srcs?", &srcs, "env?", &env, "build_args?", &buildArgs, "network?", &r.Network, "workdir?", &workdir, "owner?", &owner,
		"caches?", &caches, "secrets?", &secrets, "keyed_secrets?", &keyed, "ssh?", &ssh, "timeout?", &timeout,
		"changes?", &r.Changes, "mounts?", &mounts, "user?", &r.User, "test?", &test); err != nil {
		return nil, err
	}
	var err error
	if r.Owner, err = parseOwner("owner", owner); err != nil {
		return nil, err
	}
	if image.node.Kind() != "Image" {
		return nil, fmt.Errorf("image: %s is no image", image.node.ID())
	}
	r.Root = image.node
	if err := c.loader.checkNetwork(r.Network); err != nil {
		return nil, err
	}
	if r.Args, err = stringList(argv); err != nil {
		return nil, fmt.Errorf("argv: %w", err)
	}
	if len(r.Args) == 0 {
		return nil, fmt.Errorf("argv is empty: there is nothing to run")
	}
	if r.Outs, err = stringList(outs); err != nil {
		return nil, fmt.Errorf("outs: %w", err)
	}
	switch {
	case r.Changes && len(r.Outs) > 0:
		return nil, fmt.Errorf("outs: changes = True keeps all that the command changes in the image, and there is no /out: leave outs out")
	case r.Changes && test:
		return nil, fmt.Errorf("test: a command that keeps what it changes in the image is no test: leave test or changes out")
	case !r.Changes && !test && len(r.Outs) == 0:
		return nil, fmt.Errorf("outs: empty: name the files that the command makes")
	}
	if r.User != "" && !numericUser.MatchString(r.User) {
		return nil, fmt.Errorf("user: %q: want numbers, uid or uid:gid: what a name means depends on the image", r.User)
	}
	for _, o := range r.Outs {
		if clean, err := cleanDest("", o); err != nil || clean != o {
			return nil, fmt.Errorf("outs: %q: want a path below the package, such as dist/app.js", o)
		}
	}
	slices.Sort(r.Outs)
	if r.Env, err = c.environment(env, buildArgs); err != nil {
		return nil, err
	}
	if epoch := r.Env["SOURCE_DATE_EPOCH"]; r.Changes && epoch != "" {
		if n, err := strconv.ParseInt(epoch, 10, 33); err != nil || n < 0 {
			return nil, fmt.Errorf("env: SOURCE_DATE_EPOCH: %q: want seconds since 1970", epoch)
		}
	}
	if timeout != "" {
		if r.Timeout, err = time.ParseDuration(timeout); err != nil || r.Timeout <= 0 {
			return nil, fmt.Errorf("timeout: %q: want a time such as 90s, 10m or 1h30m", timeout)
		}
	}
	in, err := c.runSources(srcs)
	if err != nil {
		return nil, err
	}
	r.Dir = workdir
	if test && srcs == nil {
		in.Entries = nil // it starts where its image says
	}
	if r.Changes && !slices.ContainsFunc(in.Entries, func(e action.Entry) bool { return !e.Dir }) {
		in.Entries = nil // no sources, and so no folder of this package where the command would start
	}
	if len(in.Entries) > 0 {
		inNode, err := c.declare(name+"-srcs", in)
		if err != nil {
			return nil, err
		}
		r.Mounts = []action.Mount{{From: inNode, Dest: "/src"}}
		if workdir == "" {
			r.Dir = path.Join("/src", c.target.label.Pkg)
		}
	}
	if !test || srcs != nil {
		r.Dir = cmp.Or(r.Dir, "/")
	}
	if err := addMounts(r, mounts); err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	if err := reachBeyond(r, caches, secrets, keyed, ssh); err != nil {
		return nil, err
	}
	n, err := c.declare(name, r)
	if err != nil {
		return nil, err
	}
	if r.Changes || test {
		return &nodeValue{n}, nil
	}
	made := make([]starlark.Value, len(r.Outs))
	for i, o := range r.Outs {
		made[i] = &fileValue{path: path.Join(c.target.label.Pkg, o), node: n, sub: o}
	}
	return starlark.NewList(made), nil
}

// addMounts adds the layers that mounts names by their places.
func addMounts(r *action.Run, mounts *starlark.Dict) error {
	if mounts == nil {
		return nil
	}
	for _, kv := range mounts.Items() {
		dest, _ := starlark.AsString(kv[0])
		if !path.IsAbs(dest) || path.Clean(dest) != dest || dest == "/" || slices.ContainsFunc(r.Mounts, func(m action.Mount) bool { return m.Dest == dest }) {
			return fmt.Errorf("%s: want an absolute path where nothing else is mounted", kv[0])
		}
		n, ok := kv[1].(*nodeValue)
		switch {
		case ok && n.node.MakesFiles():
			return fmt.Errorf("%s: %s makes files: put them into a layer by ctx.actions.made, or set its layer = True if what it makes is one", dest, n.node.ID())
		case ok && changes(n.node):
			return fmt.Errorf("%s: %s makes changes of its own image: mount files of them, in a layer, by ctx.actions.made", dest, n.node.ID())
		case !ok || !n.node.MakesLayer():
			return fmt.Errorf("%s: a %s is no layer", dest, kv[1].Type())
		}
		r.Mounts = append(r.Mounts, action.Mount{From: n.node, Dest: dest})
	}
	slices.SortFunc(r.Mounts, func(a, b action.Mount) int { return strings.Compare(a.Dest, b.Dest) })
	return nil
}

// runSources is the layer of what a command may read.
func (c *ruleContext) runSources(srcs starlark.Value) (*action.Layer, error) {
	sources, err := sequence("srcs", srcs)
	if err != nil {
		return nil, err
	}
	in := &action.Layer{}
	if c.target.label.Pkg != "" {
		in.Entries = append(in.Entries, action.Entry{Dest: c.target.label.Pkg, Dir: true})
	}
	for _, v := range sources {
		f, ok := v.(*fileValue)
		if !ok {
			return nil, fmt.Errorf("srcs holds a %s, want files", v.Type())
		}
		if err := c.checkSymlink(f, ""); err != nil {
			return nil, fmt.Errorf("srcs: %w", err)
		}
		e := entry(f)
		e.Dest = f.path
		in.Entries = append(in.Entries, e)
	}
	slices.SortFunc(in.Entries, func(a, b action.Entry) int { return strings.Compare(a.Dest, b.Dest) })
	return in, checkEntries(in.Entries, true)
}

// environment is env, and of buildArgs the values that the command line gives, or those that stand there.
func (c *ruleContext) environment(env, buildArgs *starlark.Dict) (map[string]string, error) {
	vars, err := stringDict("env", env)
	if err != nil {
		return nil, err
	}
	defaults, err := stringDict("build_args", buildArgs)
	if err != nil {
		return nil, err
	}
	for _, set := range []map[string]string{vars, defaults} {
		for name := range set {
			if !envName.MatchString(name) {
				return nil, fmt.Errorf("env: %q is no name of a variable", name)
			}
		}
	}
	if vars == nil {
		vars = map[string]string{}
	}
	for name, value := range defaults {
		if _, ok := vars[name]; ok {
			return nil, fmt.Errorf("build_args: %s stands in env too", name)
		}
		vars[name] = c.loader.buildArg(name, value)
	}
	return vars, nil
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// buildArg is what the command line gives for a build argument, or value.
func (l *Loader) buildArg(name, value string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked == nil {
		l.asked = map[string]bool{}
	}
	l.asked[name] = true
	if v, ok := l.opts.BuildArgs[name]; ok {
		return v
	}
	return value
}

// UnusedBuildArgs returns the names of [Options.BuildArgs] that no target that was analysed so far has, sorted, and the
// names that they do have.
func (l *Loader) UnusedBuildArgs() (unused, known []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range l.opts.BuildArgs {
		if !l.asked[name] {
			unused = append(unused, name)
		}
	}
	slices.Sort(unused)
	return unused, slices.Sorted(maps.Keys(l.asked))
}

var handedID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// reachBeyond sets the caches, secrets and ssh agents of a step.
func reachBeyond(r *action.Run, caches, secrets *starlark.Dict, keyed, ssh *starlark.List) error {
	dests, err := stringDict("caches", caches)
	if err != nil {
		return err
	}
	for _, dest := range slices.Sorted(maps.Keys(dests)) {
		if !handedID.MatchString(dests[dest]) || !path.IsAbs(dest) || path.Clean(dest) != dest || dest == "/" {
			return fmt.Errorf(`caches: %q: %q: want a folder and a name, such as {"/root/.npm": "npm"}`, dest, dests[dest])
		}
		r.Caches = append(r.Caches, action.Cache{ID: dests[dest], Dest: dest})
	}
	where, err := stringDict("secrets", secrets)
	if err != nil {
		return err
	}
	keys, err := stringList(keyed)
	if err != nil {
		return fmt.Errorf("keyed_secrets: %w", err)
	}
	for _, id := range slices.Sorted(maps.Keys(where)) {
		s := action.Secret{ID: id, Keyed: slices.Contains(keys, id)}
		switch w := where[id]; {
		case handedID.MatchString(id) && path.IsAbs(w) && path.Clean(w) == w && w != "/":
			s.Dest = w
		case handedID.MatchString(id) && envName.MatchString(w):
			s.Env = w
			if _, ok := r.Env[w]; ok {
				return fmt.Errorf("secrets: %s stands in env too", w)
			}
		default:
			return fmt.Errorf(`secrets: %q: %q: want a name and a file or variable, such as {"token": "/run/secrets/token"} or {"token": "TOKEN"}`, id, w)
		}
		r.Secrets = append(r.Secrets, s)
	}
	for _, id := range keys {
		if _, ok := where[id]; !ok {
			return fmt.Errorf("keyed_secrets: %q is none of secrets", id)
		}
	}
	if r.SSH, err = stringList(ssh); err != nil {
		return fmt.Errorf("ssh: %w", err)
	}
	for _, id := range r.SSH {
		if !handedID.MatchString(id) {
			return fmt.Errorf(`ssh: %q: want the name of an agent, such as "default"`, id)
		}
	}
	slices.Sort(r.SSH)
	r.SSH = slices.Compact(r.SSH)
	return nil
}
