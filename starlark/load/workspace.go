package load

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/mwbuild/mwbuild/graph"
)

// Workspace is what the WORKSPACE file says: defaults that rules read, not inputs of their own.
type Workspace struct {
	Name     string // of the workspace, for display and for OCI labels
	Root     string // absolute path of MediaWiki in images
	User     string // uid:gid that a container runs as
	Owner    string // uid:gid that owns files in images
	Platform string // of images without a base: os/arch
	// Config is the configuration in force by its one name, "" for the default one: that of its configuration(), and where
	// flags differ from it "platform=OS/ARCH" and "define NAME=VALUE", all separated by spaces.
	Config  string
	Defines map[string]string // what define()s are in that configuration, those that are "" left out
	Locked  map[string]string // what mwbuild.lock says: digests of images by reference

	Registries []Registry // in their order
	Layers     Layers     // what layers.lock says
}

var defaultWorkspace = Workspace{Root: "/srv/mediawiki", User: "900:900", Owner: "65533:65533", Platform: "linux/amd64"}

var (
	userPattern     = regexp.MustCompile(`^[0-9]+:[0-9]+$`)
	platformPattern = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$`)
)

// workspaceStatements are what WORKSPACE may call.
var workspaceStatements = []string{"configuration", "define", "image_defaults", "minimum_version", "policy", "registry", "workspace"}

// evalWorkspace runs WORKSPACE or WORKSPACE.star at the root of the tree, and puts a configuration in force.
func evalWorkspace(tree Tree, version string, want Config) (Workspace, *configs, []error) {
	w, c := defaultWorkspace, newConfigs()
	file := "WORKSPACE"
	if _, ok := tree.Lookup(file); !ok {
		file = "WORKSPACE.star"
	}
	if _, both := tree.Lookup("WORKSPACE.star"); both && file == "WORKSPACE" {
		return w, c, []error{&graph.Error{Pos: "WORKSPACE.star:1:1", Msg: "the workspace has both WORKSPACE and WORKSPACE.star", Hints: []string{"keep one of them"}}}
	}
	src, err := tree.ReadFile(file)
	if err != nil {
		return w, c, []error{&graph.Error{Pos: file + ":1:1", Msg: err.Error(), Hints: []string{"git must not ignore the WORKSPACE file"}, Err: err}}
	}
	once := map[string]bool{}
	statement := func(name string, f func(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) error) starlark.Value {
		return starlark.NewBuiltin(name, func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			if once[name] {
				return nil, fmt.Errorf("%s stands twice; once is enough", name)
			}
			once[name] = name != "configuration" && name != "define" && name != "policy" && name != "registry"
			return starlark.None, f(b, args, kwargs)
		})
	}
	predeclared := starlark.StringDict{
		"workspace": statement("workspace", func(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) error {
			return starlark.UnpackArgs(b.Name(), args, kwargs, "name", &w.Name)
		}),
		"minimum_version": statement("minimum_version", func(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) error {
			var want string
			if err := starlark.UnpackArgs(b.Name(), args, kwargs, "version", &want); err != nil {
				return err
			}
			if version != "" && olderThan(version, want) {
				return fmt.Errorf("this workspace needs mwbuild %s or newer; this is %s: upgrade it", want, version)
			}
			return nil
		}),
		"image_defaults": statement("image_defaults", func(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) error {
			if err := starlark.UnpackArgs(b.Name(), args, kwargs, "root?", &w.Root, "user?", &w.User, "owner?", &w.Owner, "platform?", &w.Platform); err != nil {
				return err
			}
			switch {
			case !strings.HasPrefix(w.Root, "/") || strings.HasSuffix(w.Root, "/"):
				return fmt.Errorf("root %q: an absolute path without a slash at its end is wanted", w.Root)
			case !userPattern.MatchString(w.User):
				return fmt.Errorf("user %q: want numbers, uid:gid", w.User)
			case rootUser.MatchString(w.User):
				return fmt.Errorf("user %q is root: name another here, and set allow_root = True on the images that must run as root", w.User)
			case !userPattern.MatchString(w.Owner):
				return fmt.Errorf("owner %q: want numbers, uid:gid", w.Owner)
			case !platformPattern.MatchString(w.Platform):
				return fmt.Errorf("platform %q: want os/arch, such as linux/amd64", w.Platform)
			}
			return nil
		}),
		"configuration": statement("configuration", c.declareConfig),
		"define":        statement("define", c.declareDefine),
		"policy":        statement("policy", c.declarePolicy),
		"registry": statement("registry", func(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (err error) {
			w.Registries, err = declareRegistry(b, args, kwargs, w.Registries)
			return err
		}),
	}
	thread, done := (&Loader{}).thread(context.Background(), file)
	defer done()
	thread.Load = func(*starlark.Thread, string) (starlark.StringDict, error) {
		return nil, fmt.Errorf("WORKSPACE loads nothing: rules of your own are loaded in the BUILD files that use them")
	}
	if _, err := starlark.ExecFileOptions(fileOptions, thread, file, src, predeclared); err != nil {
		return w, c, explainEval(file, err)
	}
	if err := c.choose(&w, want); err != nil {
		return w, c, []error{err}
	}
	c.inForce()
	return w, c, nil
}

// olderThan compares dotted versions number by number. What is not a number counts as zero.
func olderThan(a, b string) bool {
	as, bs := strings.Split(strings.TrimPrefix(a, "v"), "."), strings.Split(strings.TrimPrefix(b, "v"), ".")
	at := func(parts []string, i int) int {
		if i >= len(parts) {
			return 0
		}
		n, _ := strconv.Atoi(parts[i])
		return n
	}
	for i := range max(len(as), len(bs)) {
		if c := cmp.Compare(at(as, i), at(bs, i)); c != 0 {
			return c < 0
		}
	}
	return false
}
