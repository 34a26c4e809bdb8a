package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
	"golang.org/x/sys/unix"
)

// The floor is what loading a tree costs anybody who evaluates BUILD files with go.starlark.net: one walk of the tree, then each BUILD file
// read, parsed, compiled and executed, with globs that are answered from the walk, and rules that keep what they are given and do nothing
// else. It answers what mwbuild query //... answers, so the answers can be compared. It checks nothing, resolves nothing, asks git nothing and
// remembers nothing.

// floorJobs is how many goroutines the floor has: as many as the machine of the goals has processors.
const floorJobs = 2

// floor is the command that loads a tree, or with -walk only walks it with an lstat of each file. Labels go to stdout, counts to stderr.
func floor(args []string, stdout, stderr io.Writer) error {
	fl := flag.NewFlagSet("floor", flag.ExitOnError)
	only := fl.Bool("walk", false, "only walk, with an lstat of every file")
	if err := fl.Parse(args); err != nil {
		return err
	}
	if fl.NArg() != 1 {
		return errors.New("floor: want one folder")
	}
	w := &walker{root: fl.Arg(0), stat: *only}
	if err := w.walk(); err != nil {
		return err
	}
	if *only {
		fmt.Fprintln(stderr, w.files.Load(), "files")
		return nil
	}
	f := newEvaluation(w)
	labels, err := f.run()
	if err != nil {
		return err
	}
	slices.Sort(labels)
	b := bufio.NewWriter(stdout)
	for _, l := range labels {
		fmt.Fprintln(b, l)
	}
	fmt.Fprintln(stderr, f.globbed.Load(), "files globbed")
	return b.Flush()
}

// inParallel calls do for 0 to n-1 in floorJobs goroutines.
func inParallel(n int, do func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, floorJobs)
	for j := range errs {
		wg.Go(func() {
			for errs[j] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[j] = do(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// A folder is a package: a folder with a BUILD file.
type folder struct {
	name  string
	files []string // relative to it, and in no package below it
	made  []target
}

// A target is what a rule was called with.
type target struct {
	rule string
	args []starlark.Tuple
}

type walker struct {
	root  string
	stat  bool
	files atomic.Int64

	mu   sync.Mutex
	pkgs []*folder
}

// walk goes through the tree once; the folders of the root are divided among the goroutines.
func (w *walker) walk() error {
	top, err := os.ReadDir(w.root)
	if err != nil {
		return err
	}
	return inParallel(len(top), func(i int) error {
		if !top[i].IsDir() {
			return w.file(top[i].Name())
		}
		if top[i].Name() == ".git" {
			return nil
		}
		return w.folder(top[i].Name(), nil)
	})
}

func (w *walker) file(name string) error {
	w.files.Add(1)
	if !w.stat {
		return nil
	}
	var st unix.Stat_t
	return unix.Lstat(filepath.Join(w.root, name), &st)
}

func (w *walker) folder(dir string, in *folder) error {
	entries, err := os.ReadDir(filepath.Join(w.root, dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "BUILD" && e.Type().IsRegular() {
			in = &folder{name: dir}
			w.mu.Lock()
			w.pkgs = append(w.pkgs, in)
			w.mu.Unlock()
		}
	}
	for _, e := range entries {
		name := dir + "/" + e.Name()
		if e.IsDir() {
			err = w.folder(name, in)
		} else {
			if in != nil {
				in.files = append(in.files, name[len(in.name)+1:])
			}
			err = w.file(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// An evaluation executes the BUILD files of a walk.
type evaluation struct {
	*walker
	predeclared starlark.StringDict
	globbed     atomic.Int64
	modules     sync.Map // of functions that evaluate a file once, by its name
}

var options = &syntax.FileOptions{Set: true}

func newEvaluation(w *walker) *evaluation {
	f := &evaluation{walker: w, predeclared: starlark.StringDict{}}
	in := func(t *starlark.Thread) *folder { return t.Local("package").(*folder) }
	type call = func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error)
	for name, do := range map[string]call{
		"package": func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
			return starlark.None, nil
		},
		"package_name": func(t *starlark.Thread, _ *starlark.Builtin, _ starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
			return starlark.String(in(t).name), nil
		},
		"glob": func(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			var include *starlark.List
			if err := starlark.UnpackArgs(b.Name(), args, kwargs, "include", &include); err != nil {
				return nil, err
			}
			return f.glob(in(t), include)
		},
	} {
		f.predeclared[name] = starlark.NewBuiltin(name, do)
	}
	for _, rule := range []string{"filegroup", "layer", "mw_component"} {
		keep := func(t *starlark.Thread, _ *starlark.Builtin, _ starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			p := in(t)
			p.made = append(p.made, target{rule, kwargs})
			return starlark.None, nil
		}
		f.predeclared[rule] = starlark.NewBuiltin(rule, keep)
	}
	return f
}

// run evaluates all packages and returns the labels of their targets.
func (f *evaluation) run() ([]string, error) {
	if err := inParallel(len(f.pkgs), func(i int) error { return f.build(f.pkgs[i]) }); err != nil {
		return nil, err
	}
	var labels []string
	for _, p := range f.pkgs {
		for _, t := range p.made {
			for _, kv := range t.args {
				if kv[0] == starlark.String("name") {
					labels = append(labels, "//"+p.name+":"+string(kv[1].(starlark.String)))
				}
			}
		}
	}
	return labels, nil
}

func (f *evaluation) build(p *folder) error {
	t := &starlark.Thread{Load: f.load}
	t.SetLocal("package", p)
	_, err := f.exec(t, p.name+"/BUILD")
	return err
}

func (f *evaluation) exec(t *starlark.Thread, file string) (starlark.StringDict, error) {
	src, err := os.ReadFile(filepath.Join(f.root, file))
	if err != nil {
		return nil, err
	}
	return starlark.ExecFileOptions(options, t, file, src, f.predeclared)
}

// load evaluates the file that a label names, once.
func (f *evaluation) load(_ *starlark.Thread, label string) (starlark.StringDict, error) {
	file := strings.Replace(strings.TrimPrefix(label, "//"), ":", "/", 1)
	once, _ := f.modules.LoadOrStore(file, sync.OnceValues(func() (starlark.StringDict, error) {
		globals, err := f.exec(&starlark.Thread{Load: f.load}, file)
		globals.Freeze()
		return globals, err
	}))
	return once.(func() (starlark.StringDict, error))()
}

// glob returns the files of a package that match one of patterns, in order.
func (f *evaluation) glob(p *folder, patterns *starlark.List) (starlark.Value, error) {
	var names []string
	for _, name := range p.files {
		for i := range patterns.Len() {
			pattern, ok := starlark.AsString(patterns.Index(i))
			if !ok {
				return nil, errors.New("glob: want strings")
			}
			if matches(pattern, name) {
				names = append(names, name)
				break
			}
		}
	}
	slices.Sort(names)
	f.globbed.Add(int64(len(names)))
	values := make([]starlark.Value, len(names))
	for i, name := range names {
		values[i] = starlark.String(name)
	}
	return starlark.NewList(values), nil
}

// matches tells whether name matches a pattern, part by part; ** stands for any number of folders.
func matches(pattern, name string) bool {
	first, rest, more := strings.Cut(pattern, "/")
	if first == "**" {
		for {
			if !more || matches(rest, name) {
				return true
			}
			_, below, ok := strings.Cut(name, "/")
			if !ok {
				return false
			}
			name = below
		}
	}
	part, below, deeper := strings.Cut(name, "/")
	if ok, err := path.Match(first, part); err != nil || !ok {
		return false
	}
	return more == deeper && (!more || matches(rest, below))
}
