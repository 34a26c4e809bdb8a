package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/build/progress"
	"github.com/mwbuild/mwbuild/cache"
	"github.com/mwbuild/mwbuild/cache/store"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/rules"
	"github.com/mwbuild/mwbuild/rules/blubber"
	"github.com/mwbuild/mwbuild/rules/debian"
	"github.com/mwbuild/mwbuild/rules/debian/mirror"
	"github.com/mwbuild/mwbuild/rules/filecheck"
	"github.com/mwbuild/mwbuild/rules/l10n"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// opened is a workspace with everything that a command works on.
type opened struct {
	app      *app
	root     string // absolute, symlinks resolved
	pkg      string // folder that the user stands in, relative to root
	cacheDir string
	tree     *workspace.Disk
	watched  *watchedTree // tree, as loading sees it
	listed   time.Time    // when listing the tree began
	records  *build.Records
	commits  *l10n.Commits
	handed   handed
	loaded   *load.Loader // by load
}

// open finds and lists the workspace.
func (a *app) open(ctx context.Context) (*opened, error) {
	o, err := a.locate(ctx, false)
	if err != nil {
		return nil, err
	}
	return o, o.list(ctx)
}

// locate finds the workspace; with bare, a git repository without files is one.
func (a *app) locate(ctx context.Context, bare bool) (*opened, error) {
	start := a.dir
	if start == "" {
		start = "."
	}
	if fi, err := os.Stat(start); err != nil || !fi.IsDir() {
		return nil, usagef("-C %s: there is no such folder", start)
	}
	root, err := workspace.FindRoot(start)
	if err != nil && bare {
		if repo := workspace.RepositoryAlone(ctx, start); repo != "" {
			root, start, err = repo, repo, nil
		}
	}
	if err != nil {
		return nil, usageError{err}
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, err
	}
	here, err := filepath.Abs(start)
	if err == nil {
		here, err = filepath.EvalSymlinks(here)
	}
	if err != nil {
		return nil, err
	}
	pkg, err := filepath.Rel(root, here)
	if err != nil || strings.HasPrefix(pkg, "..") {
		return nil, fmt.Errorf("%s is not in workspace %s", here, root)
	}
	if pkg == "." {
		pkg = ""
	}
	o := &opened{app: a, root: root, pkg: filepath.ToSlash(pkg)}
	if o.cacheDir, err = a.cache(); err != nil {
		return nil, err
	}
	o.commits = l10n.NewCommits(ctx, root)
	if o.handed, err = a.handed.read(filepath.Join(root, filepath.FromSlash(o.pkg))); err != nil {
		return nil, err
	}
	o.records = &build.Records{Dir: o.cacheDir, Workspace: root, Wait: func(msg string) { a.note("%s", msg) }}
	return o, nil
}

// list lists the working tree, once.
func (o *opened) list(ctx context.Context) (err error) {
	if o.tree != nil {
		return nil
	}
	begun := time.Now()
	if o.tree, err = workspace.Open(ctx, o.root, o.records); err != nil {
		return err
	}
	o.listed = begun
	o.watched = &watchedTree{Disk: o.tree, read: map[string]bool{}}
	o.app.log.Debug("listed the workspace", "files", len(o.tree.Files()), "packages", len(o.tree.Packages()), "took", time.Since(begun))
	return nil
}

// openTargets opens the workspace and reads the targets of a command line in it.
func (a *app) openTargets(ctx context.Context, args []string) (*opened, []label.Pattern, error) {
	o, err := a.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	patterns, err := o.patterns(args)
	return o, patterns, err
}

// patterns reads the targets of a command line.
func (o *opened) patterns(args []string) ([]label.Pattern, error) {
	var patterns []label.Pattern
	var errs []error
	positive := false
	for _, arg := range args {
		p, err := label.ParsePattern(showPattern(arg), o.pkg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		positive = positive || !p.Negative
		patterns = append(patterns, p)
	}
	if len(errs) > 0 {
		return nil, usageError{errors.Join(errs...)}
	}
	if !positive {
		if len(patterns) == 0 {
			return nil, usagef("no target given\n    name some: //... is everything, :all is everything in this folder")
		}
		return nil, usagef("only targets to leave out are given\n    name what to build first: //... %s", showPattern(args[0]))
	}
	return patterns, nil
}

// load evaluates the packages that the patterns need. It reports what is wrong; without keepGoing it then returns
// errReported.
func (o *opened) load(ctx context.Context, patterns []label.Pattern, keepGoing bool) (*load.Result, []error, error) {
	begun := time.Now()
	res := &load.Result{}
	loader, errs := o.loader()
	if len(errs) > 0 {
		return res, errs, o.reported(errs)
	}
	o.loaded = loader
	res, errs = loader.Load(ctx, patterns)
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	o.app.log.Debug("loaded", "targets", len(res.Targets), "took", time.Since(begun))
	o.report(errs)
	if len(errs) == 0 {
		o.app.warnOfBuildArgs(loader)
	}
	if len(errs) > 0 && (!keepGoing || len(res.Targets) == 0) {
		return res, errs, errReported
	}
	return res, errs, nil
}

// loader evaluates WORKSPACE and the built-in rules, in the configuration that the flags name.
func (o *opened) loader() (*load.Loader, []error) {
	l, errs := o.loaderOf(o.watched, false)
	if len(errs) == 0 {
		o.records.Config = l.Workspace().Config
	}
	return l, errs
}

// loaderOf is loader over another tree, and with unlocked without its lock of images. A configuration that it does not know is an error of the command line.
func (o *opened) loaderOf(tree load.Tree, unlocked bool) (*load.Loader, []error) {
	return o.newLoader(o.loadOptions(tree, unlocked))
}

func (o *opened) loadOptions(tree load.Tree, unlocked bool) load.Options {
	return load.Options{
		Tree: tree, Prelude: rules.Prelude, Functions: o.functions(), Version: version(), Program: program(), Jobs: runtime.NumCPU(), Config: o.app.config,
		BuildArgs: o.handed.buildArgs, Unlocked: unlocked,
	}
}

func (o *opened) newLoader(opts load.Options) (*load.Loader, []error) {
	l, errs := load.New(opts)
	for i, err := range errs {
		if errors.As(err, new(*load.ConfigError)) {
			errs[i] = usageError{err}
		}
	}
	return l, errs
}

// configuration is what the flags say of the configuration, "" where they say nothing.
func (o *opened) configuration() string {
	var b strings.Builder
	c := o.app.config
	if c.Name != "" {
		b.WriteString("\x00--config=" + c.Name)
	}
	if c.Platform != "" {
		b.WriteString("\x00--platform=" + c.Platform)
	}
	for _, d := range c.Define {
		b.WriteString("\x00--define=" + d)
	}
	return b.String()
}

// functions are what the built-in rules call beyond Starlark.
func (o *opened) functions() map[string]load.Function {
	fs := map[string]load.Function{}
	for name, f := range map[string]func(context.Context, l10n.Files, string, map[string]any) (any, error){
		"l10n component": l10n.AnalyseComponent, "l10n core": l10n.AnalyseCore, "l10n families": l10n.AnalyseFamilies,
		"l10n newer": l10n.AnalyseNewer, "l10n recorded": o.commits.Analyse,
	} {
		fs[name] = func(ctx context.Context, files load.Files, args map[string]any) (any, error) {
			return f(ctx, files, files.Package, args)
		}
	}
	fs["debian lock"] = func(ctx context.Context, files load.Files, args map[string]any) (any, error) {
		return debian.Analyse(ctx, files, files.Package, args)
	}
	fs["blubber plan"] = func(ctx context.Context, files load.Files, args map[string]any) (any, error) {
		return blubber.Analyse(ctx, files, files.Package, args)
	}
	return fs
}

// aptDir is where apt's configuration says which archives this machine uses.
const aptDir = "/etc/apt"

// natives are the native actions over a tree.
func (o *opened) natives(tree l10n.Tree) map[string]func(context.Context, *action.Native) ([]action.Made, error) {
	n := l10n.NewNatives(tree)
	n.Commits = o.commits
	fs := n.Functions()
	maps.Copy(fs, filecheck.Functions(tree))
	return fs
}

// report shows errors, at most fifty of them.
func (o *opened) report(errs []error) {
	const most = 50
	for i, err := range errs {
		if i == most {
			fmt.Fprintf(o.app.std.err, "… and %d more errors\n", len(errs)-most)
			break
		}
		fmt.Fprintln(o.app.std.err, err)
	}
	if n := len(errs); n > 1 {
		o.app.note("%d errors", n)
	}
}

// builder returns what carries out builds. The caller closes it; nothing is locked or started yet.
func (o *opened) builder(jobs int, keepGoing bool) (*build.Builder, func() error, error) {
	a := o.app
	st, err := store.Open(o.cacheDir)
	if err != nil {
		return nil, nil, fmt.Errorf("%w\n    name another cache folder with --cache-dir", err)
	}
	// What a killed build left half written goes now, unless another one is at work.
	if err := st.Sweep(); err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	display, err := progress.New(a.std.err, a.progress)
	if err == nil {
		err = buildkit.CheckAddr(a.builder)
	}
	if err != nil {
		return nil, nil, errors.Join(usageError{err}, st.Close())
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	engine := buildkit.New(buildkit.Options{
		Addr: a.builder, Root: filepath.Join(o.cacheDir, "engine"), Exe: exe, Log: a.log,
		Wait: func(msg string) { a.note("%s", msg) },
	})
	b := &build.Builder{
		Root: o.root, Tree: o.tree, Store: st, Records: o.records, Engine: engine, Display: display,
		Natives: map[string]build.Native{}, Jobs: jobs, KeepGoing: keepGoing, Log: a.log,
		Secrets: o.handed.secrets, SSH: o.handed.ssh,
	}
	for kind, f := range o.natives(o.tree) {
		b.Natives[kind] = f
	}
	b.NativeLayers = map[string]build.NativeLayer{}
	for kind, f := range debian.Layers() {
		b.NativeLayers[kind] = f
	}
	b.NativeLayers[runnerKind] = runnerLayer
	b.Fetch = func(ctx context.Context, d action.Download) (io.ReadCloser, error) {
		return debian.Fetch(ctx, &mirror.Fetcher{}, aptDir, d)
	}
	return b, func() error { return errors.Join(engine.Close(), display.Close(), st.Close()) }, nil
}

// lock waits until no other mwbuild builds in this workspace.
func (o *opened) lock(ctx context.Context) (unlock func(), err error) { return o.lockOr(ctx, false) }

// lockOr is lock, and with noWait an error if another mwbuild has it.
func (o *opened) lockOr(ctx context.Context, noWait bool) (unlock func(), err error) {
	var held string
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	unlock, err = cache.LockWorkspace(wait, o.cacheDir, o.root, func(holder string) {
		if held = holder; noWait {
			cancel()
			return
		}
		o.app.note("waiting for another mwbuild in this workspace (%s)", holder)
	})
	if errors.Is(err, cache.ErrReadOnly) {
		o.app.note("the cache folder %s cannot be written: nothing new will be kept", o.cacheDir)
		return func() {}, nil
	}
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("another mwbuild works in this workspace (%s), and --no-wait was asked for", held)
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w\n    name another cache folder with --cache-dir", err)
	}
	return unlock, err
}
