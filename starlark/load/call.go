package load

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"

	"go.starlark.net/starlark"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/workspace"
)

// A Function is what rules can call beyond Starlark, by ctx.call: Go code that must be pure in its arguments and the files
// that it sees. Arguments and results are nil, bool, int64, string, []any and map[string]any; a file is its path, and a
// map becomes a dict sorted by key. The context ends with the evaluation.
type Function func(ctx context.Context, files Files, args map[string]any) (any, error)

// Files is what a Function sees of the tree: the files of its target's package. Paths are the workspace's. Only rules that
// say reads_files have it: what a target is may then depend on every file of its package.
type Files struct {
	Package string
	loader  *Loader
	seen    *filesSeen
}

// filesSeen is what a Function looked at.
type filesSeen struct {
	any  bool
	read []string // paths of what it read
}

// Glob returns the files that match one of the patterns, which are relative to the package, sorted.
func (f Files) Glob(patterns ...string) ([]string, error) {
	f.seen.any = true
	names, err := f.loader.opts.Tree.Glob(f.Package, patterns, nil)
	for i, n := range names {
		names[i] = path.Join(f.Package, n)
	}
	return names, err
}

// Has tells whether the package has a file of that path.
func (f Files) Has(file string) bool {
	f.seen.any = true
	_, ok := f.loader.opts.Tree.Lookup(file)
	return ok && f.loader.owns(f.Package, file)
}

// owns tells whether a file belongs to a package.
func (l *Loader) owns(pkg, file string) bool { return inside(file, pkg) && l.owner(file) == pkg }

// Read returns a file of the package.
func (f Files) Read(file string) ([]byte, error) {
	if !f.Has(file) {
		return nil, fmt.Errorf("%s is no file of package //%s", file, f.Package)
	}
	f.seen.read = append(f.seen.read, file)
	return f.loader.opts.Tree.ReadFile(file)
}

// call is ctx.call.
func (c *ruleContext) call(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	name := ""
	if err := starlark.UnpackArgs("call", args, nil, "name", &name); err != nil {
		return nil, err
	}
	f := c.loader.opts.Functions[name]
	if f == nil {
		return nil, fmt.Errorf("call: there is no function %q%s", name, didYouMean(name, slices.Sorted(maps.Keys(c.loader.opts.Functions))))
	}
	in := map[string]any{}
	for _, kv := range kwargs {
		v, err := toGo(kv[1])
		if err != nil {
			return nil, fmt.Errorf("call %s: %s: %w", name, kv[0], err)
		}
		in[string(kv[0].(starlark.String))] = v
	}
	ctx, _ := thread.Local(ctxKey).(context.Context)
	if ctx == nil {
		ctx = context.Background()
	}
	var seen filesSeen
	out, err := f(ctx, Files{c.target.label.Pkg, c.loader, &seen}, in)
	if err != nil {
		return nil, err
	}
	if t := c.target.node; t != nil {
		t.Read = slices.Compact(slices.Sorted(slices.Values(append(t.Read, seen.read...))))
	}
	if seen.any && !c.target.rule.reads {
		return nil, fmt.Errorf("call %s: it reads files of the package, and rule %s does not say so: add reads_files = True to rule()", name, c.target.rule.Name())
	}
	return fromGo(out)
}

func toGo(v starlark.Value) (any, error) {
	switch v := v.(type) {
	case starlark.NoneType:
		return nil, nil
	case starlark.Bool:
		return bool(v), nil
	case starlark.String:
		return string(v), nil
	case starlark.Int:
		n, ok := v.Int64()
		if !ok {
			return nil, fmt.Errorf("%s is too large", v)
		}
		return n, nil
	case *fileValue:
		if v.node != nil {
			return nil, fmt.Errorf("%s is made by an action, so nobody can read it yet", v.path)
		}
		return v.path, nil
	case *starlark.Dict:
		m := map[string]any{}
		for _, kv := range v.Items() {
			k, ok := starlark.AsString(kv[0])
			if !ok {
				return nil, fmt.Errorf("a key is %s, want strings", describe(kv[0]))
			}
			e, err := toGo(kv[1])
			if err != nil {
				return nil, err
			}
			m[k] = e
		}
		return m, nil
	case starlark.Sequence:
		list := []any{}
		for e := range starlark.Elements(v) {
			g, err := toGo(e)
			if err != nil {
				return nil, err
			}
			list = append(list, g)
		}
		return list, nil
	}
	return nil, fmt.Errorf("a %s cannot be handed over", v.Type())
}

func fromGo(v any) (starlark.Value, error) {
	switch v := v.(type) {
	case nil:
		return starlark.None, nil
	case bool:
		return starlark.Bool(v), nil
	case string:
		return starlark.String(v), nil
	case int64:
		return starlark.MakeInt64(v), nil
	case []any:
		elems := make([]starlark.Value, len(v))
		for i, e := range v {
			var err error
			if elems[i], err = fromGo(e); err != nil {
				return nil, err
			}
		}
		return starlark.NewList(elems), nil
	case map[string]any:
		d := starlark.NewDict(len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			e, err := fromGo(v[k])
			if err != nil {
				return nil, err
			}
			if err := d.SetKey(starlark.String(k), e); err != nil {
				return nil, err
			}
		}
		return d, nil
	}
	return nil, fmt.Errorf("a %T is no value for Starlark", v)
}

// native is ctx.actions.native. It returns the action: a layer, or what ctx.actions.made names the files of.
func (c *ruleContext) native(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	name := "native"
	var kind string
	var params *starlark.Dict
	var files, inputs, downloads starlark.Value
	var mirrors *starlark.List
	do := &action.Native{Params: map[string]string{}}
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "kind", &kind, "name?", &name, "params?", &params, "files?", &files, "inputs?", &inputs,
		"downloads?", &downloads, "mirrors?", &mirrors, "layer?", &do.Layer); err != nil {
		return nil, err
	}
	do.Kind = kind
	if params != nil {
		for _, kv := range params.Items() {
			k, okK := starlark.AsString(kv[0])
			v, okV := starlark.AsString(kv[1])
			if !okK || !okV {
				return nil, fmt.Errorf("params: %s = %s: want strings", kv[0], kv[1])
			}
			do.Params[k] = v
		}
	}
	sources, err := sequence("files", files)
	if err != nil {
		return nil, err
	}
	seen := make(map[action.Source]bool, len(sources))
	do.Files = slices.Grow(do.Files, len(sources))
	for _, v := range sources {
		t, ok := v.(starlark.Tuple)
		if !ok || len(t) != 2 {
			return nil, fmt.Errorf("files holds %s, want pairs of role and path", describe(v))
		}
		role, okR := starlark.AsString(t[0])
		file, okF := starlark.AsString(t[1])
		if f, ok := t[1].(*fileValue); ok && f.node == nil {
			file, okF = f.path, true
		}
		if !okR || !okF || seen[action.Source{Role: role, Path: file}] {
			return nil, fmt.Errorf("files holds %s, want pairs of role and path of a file of the workspace, each pair once", v)
		}
		if f, ok := c.loader.opts.Tree.Lookup(file); !ok || f.Mode == workspace.Symlink {
			return nil, fmt.Errorf("files: %s is no file of the workspace; a symlink cannot be read here", file)
		}
		// What a package holds can be named by the rules that say so; what others hold, by what depends on it.
		if _, named := starlark.AsString(t[1]); named && !(c.target.rule.reads && c.loader.owns(c.target.label.Pkg, file)) {
			return nil, fmt.Errorf("files: %s is named by a string: want a file of ctx.files or ctx.attr, or, with reads_files = True in rule(), the path of a file of the target's own package", file)
		}
		seen[action.Source{Role: role, Path: file}] = true
		do.Files = append(do.Files, action.Source{Role: role, Path: file})
	}
	items, err := sequence("inputs", inputs)
	if err != nil {
		return nil, err
	}
	do.Inputs = slices.Grow(do.Inputs, len(items))
	for _, v := range items {
		t, ok := v.(starlark.Tuple)
		if !ok || len(t) != 3 {
			return nil, fmt.Errorf("inputs holds %s, want a role, an action and a path in what it makes", describe(v))
		}
		role, okR := starlark.AsString(t[0])
		n, okN := t[1].(*nodeValue)
		p, okP := starlark.AsString(t[2])
		if okN && n.node.Kind() == "Native" && n.node.MakesLayer() {
			return nil, fmt.Errorf("inputs: %s makes a layer; a native action reads the files of one without layer = True", n.node.ID())
		}
		if !okR || !okN || !okP || n.node.Kind() != "Native" {
			return nil, fmt.Errorf("inputs holds %s, want a role, a native action and a path in what it makes", v)
		}
		do.Inputs = append(do.Inputs, action.Input{Role: role, From: n.node, Path: p})
	}
	urls, err := stringList(mirrors)
	if err != nil {
		return nil, fmt.Errorf("mirrors: %w", err)
	}
	if do.Downloads, err = parseDownloads(downloads, urls); err != nil {
		return nil, fmt.Errorf("downloads: %w", err)
	}
	if len(do.Downloads) > 0 && !do.Layer {
		return nil, fmt.Errorf("downloads: only a native action that makes a layer reads them: set layer = True")
	}
	n, err := c.declare(name, do)
	if err != nil {
		return nil, err
	}
	return &nodeValue{n}, nil
}

// parseDownloads reads a list of dicts, such as a [Function] returns.
func parseDownloads(v starlark.Value, mirrors []string) ([]action.Download, error) {
	items, err := sequence("it", v)
	if err != nil {
		return nil, err
	}
	var downloads []action.Download
	seen := map[string]bool{}
	for _, item := range items {
		g, err := toGo(item)
		m, isDict := g.(map[string]any)
		if err != nil || !isDict {
			return nil, fmt.Errorf("holds %s, want dicts of sha256, size, name and path", describe(item))
		}
		var d action.Download
		var ok [4]bool
		d.SHA256, ok[0] = m["sha256"].(string)
		d.Size, ok[1] = m["size"].(int64)
		d.Name, ok[2] = m["name"].(string)
		d.Path, ok[3] = m["path"].(string)
		switch {
		case ok != [4]bool{true, true, true, true} || len(m) != 4:
			return nil, fmt.Errorf("holds %s, want sha256, size, name and path and nothing else", item)
		case !digestPattern.MatchString("sha256:" + d.SHA256):
			return nil, fmt.Errorf("%s: sha256: %q: want 64 hexadecimal digits", d.Name, d.SHA256)
		case d.Size < 0 || d.Name == "":
			return nil, fmt.Errorf("holds %s, want a name, and a size that is not negative", item)
		case seen[d.SHA256]:
			return nil, fmt.Errorf("%s stands there twice, by its sha256", d.Name)
		}
		seen[d.SHA256] = true
		d.Mirrors = mirrors
		downloads = append(downloads, d)
	}
	return downloads, nil
}

// made is ctx.actions.made: a file that a native action makes, or one in a layer that an action makes.
func (c *ruleContext) made(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var n *nodeValue
	var file string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "action", &n, "path", &file); err != nil {
		return nil, err
	}
	if n.node.Kind() != "Native" && !changes(n.node) || file == "" {
		return nil, fmt.Errorf("made: want a native action, or a run with changes = True, and the path of a file that it makes")
	}
	return &fileValue{path: path.Join(c.target.label.Pkg, file), node: n.node, sub: file}, nil
}
