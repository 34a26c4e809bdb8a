package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/build/container"
	"github.com/mwbuild/mwbuild/build/image"
	"github.com/mwbuild/mwbuild/build/image/transport"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// runFlags are what mwbuild run was asked for.
type runFlags struct {
	ports   []string
	env     []string
	volumes []string
	fresh   bool
	jobs    int
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [FLAGS] TARGET [-- ARGS…]",
		Short: "Start an image here, until Ctrl-C",
		Long: `Build an image and start its program in a container here: as the image's user, with a read-only root, an empty /tmp, and no network but the
ports that the image names, which are reached on 127.0.0.1. The addresses are printed on the standard output once something listens there.

A wiki (mw_image with load_components = True) gets a database, which is kept between starts; --fresh makes a new one. The first start sets it up, and
one with other files than the last brings it up to date.

Arguments after -- take the place of the image's own. The exit code is that of the program.`,
		Example: `  mwbuild run //:wiki
  mwbuild run //:wiki --port 8081 --fresh
  mwbuild run //who:image -- --verbose`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var more []string
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				args, more = args[:n], args[n:]
			}
			if len(args) != 1 {
				return usagef("run: want one target, and what it is to be given after --")
			}
			return a.run(cmd.Context(), f, args[0], more)
		},
	}
	fl := c.Flags()
	fl.StringArrayVarP(&f.ports, "port", "p", nil, "`[HOST:]PORT`: where port PORT of the container, or its only one, is reached on 127.0.0.1; may be repeated")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "`NAME=VALUE` in the program's environment; may be repeated")
	fl.StringArrayVarP(&f.volumes, "volume", "v", nil, "`PATH:PLACE[:ro]`: a file or folder of this machine in the container; may be repeated")
	fl.BoolVar(&f.fresh, "fresh", false, "begin with an empty database")
	fl.IntVarP(&f.jobs, "jobs", "j", 0, "how many actions run at once (default one for each processor)")
	a.handed.add(fl)
	return c
}

// exitError makes mwbuild end with a code of a program's own.
type exitError struct{ code int }

// errStopped ends a run that was ended as it is meant to be, by Ctrl-C.
var errStopped = errors.New("stopped")

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func (a *app) run(ctx context.Context, f runFlags, target string, args []string) error {
	o, patterns, err := a.openTargets(ctx, []string{target})
	if err != nil {
		return err
	}
	t, decls, im, err := o.buildImage(ctx, patterns, f)
	if err != nil {
		return err
	}
	var config ocispecs.Image
	if err := json.Unmarshal(im.ConfigJSON, &config); err != nil {
		return err
	}
	spec, err := o.container(f, config, im, args)
	if err != nil {
		return err
	}
	if wiki, ok := wikiOf(t, decls); ok {
		unlock, err := o.addWiki(f, wiki, config, &spec, im.Manifest.Digest.String())
		if err != nil {
			return err
		}
		defer unlock()
	} else if f.fresh {
		return usagef("--fresh: %s is no wiki: mw_image with load_components = True", t.Label)
	}
	return a.serve(ctx, o, spec)
}

// buildImage builds the one image that patterns name, with all layers in the store.
func (o *opened) buildImage(ctx context.Context, patterns []label.Pattern, f runFlags) (t *graph.Target, decls []load.Declared, im *image.Image, err error) {
	unlock, err := o.lock(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	defer unlock()
	loader, errs := o.loader()
	if len(errs) > 0 {
		return nil, nil, nil, o.reported(errs)
	}
	loaded, errs := loader.Load(ctx, patterns)
	if ctx.Err() != nil {
		return nil, nil, nil, ctx.Err()
	}
	if len(errs) > 0 {
		return nil, nil, nil, o.reported(errs)
	}
	o.app.warnOfBuildArgs(loader)
	if n := len(loaded.Targets); n != 1 {
		return nil, nil, nil, usagef("run takes one target, and %d match", n)
	}
	t = loaded.Targets[0]
	decls = loader.Declared()
	b, closeBuilder, err := o.builder(f.jobs, false)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, closeBuilder()) }()
	work := func() (*build.Result, error) {
		res, err := b.Build(ctx, loaded.Targets)
		if err != nil || len(res.Errors) > 0 {
			return res, err
		}
		for _, r := range res.Targets[0].Outputs {
			if r.Image != nil && im == nil {
				im = r.Image
			}
		}
		if im == nil {
			return res, usagef("%s is no image", t.Label)
		}
		for _, l := range im.Layers {
			if err := transport.EnsureLayer(ctx, b.Store, l, nil); err != nil {
				return res, err
			}
		}
		return res, nil
	}
	res, err := o.app.healing(ctx, b, work)
	if cerr := b.Display.Close(); err == nil {
		err = cerr
	}
	if ctx.Err() != nil {
		return nil, nil, nil, ctx.Err()
	}
	if err == nil && len(res.Errors) > 0 {
		err = o.reported(res.Errors)
	}
	return t, decls, im, err
}

// container is what to run of an image.
func (o *opened) container(f runFlags, config ocispecs.Image, im *image.Image, args []string) (container.Spec, error) {
	s := container.Spec{
		Store: o.cacheDir, Unpacked: unpackedDir(o.cacheDir), StopLimit: 3 * time.Second,
		Dir: filepath.Join(o.cacheDir, "run", strconv.Itoa(os.Getpid())+"-"+strconv.FormatInt(time.Now().UnixNano(), 36)),
	}
	var err error
	if s.Stale, err = staleContainers(filepath.Dir(s.Dir)); err != nil {
		return s, err
	}
	if s.Runc, err = buildkit.Runtime(); err != nil {
		return s, err
	}
	for _, l := range im.Layers {
		s.Layers = append(s.Layers, container.Layer{Descriptor: l.Descriptor, DiffID: l.DiffID.String()})
	}
	p := container.Process{Cwd: config.Config.WorkingDir, Stdin: true}
	if p.UID, p.GID, err = numericUser(config.Config.User); err != nil {
		return s, err
	}
	p.Args = slices.Concat(config.Config.Entrypoint, config.Config.Cmd)
	if len(args) > 0 {
		p.Args = slices.Concat(config.Config.Entrypoint, args)
	}
	if len(p.Args) == 0 {
		return s, usagef("the image has no program: name one after --")
	}
	if p.Env, err = environment(config.Config.Env, f.env); err != nil {
		return s, err
	}
	for _, v := range f.volumes {
		parts := strings.Split(v, ":")
		if len(parts) < 2 || len(parts) > 3 || !strings.HasPrefix(parts[1], "/") || len(parts) == 3 && parts[2] != "ro" {
			return s, usagef("--volume %s: want PATH:PLACE or PATH:PLACE:ro, PLACE an absolute path in the container", v)
		}
		src, err := filepath.Abs(parts[0])
		if err == nil {
			_, err = os.Stat(src)
		}
		if err != nil {
			return s, usagef("--volume %s: %w", v, err)
		}
		s.Volumes = append(s.Volumes, container.Volume{Source: src, Dest: parts[1], ReadOnly: len(parts) == 3})
	}
	if s.Ports, err = ports(f.ports, config.Config.ExposedPorts); err != nil {
		return s, err
	}
	if len(s.Ports) > 0 {
		p.Stdin, p.ToStderr = false, true // what it says is a log; the addresses are what people want
	}
	s.Processes = []container.Process{p}
	return s, nil
}

// staleContainers are the folders of containers whose mwbuild is gone: what is named PID-TIME.
func staleContainers(dir string) (stale []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		pid, _, ok := strings.Cut(e.Name(), "-")
		if n, perr := strconv.Atoi(pid); !ok || perr != nil || syscall.Kill(n, 0) == nil {
			continue
		}
		stale = append(stale, filepath.Join(dir, e.Name()))
	}
	return stale, err
}

// numericUser reads uid, or uid:gid. An image without a user runs as root of its container.
func numericUser(user string) (uid, gid uint32, err error) {
	if user == "" {
		return 0, 0, nil
	}
	u, g, both := strings.Cut(user, ":")
	if !both {
		g = u
	}
	a, err1 := strconv.ParseUint(u, 10, 32)
	b, err2 := strconv.ParseUint(g, 10, 32)
	if err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("the image's user %q is a name, and only numbers can be run here: set user on an image of your own", user)
	}
	return uint32(a), uint32(b), nil
}

// environment is the image's, and what is given over it.
func environment(image, given []string) ([]string, error) {
	all := slices.Clone(image)
	for _, kv := range given {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return nil, usagef("--env %s: want NAME=VALUE", kv)
		}
		all = slices.DeleteFunc(all, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		all = append(all, kv)
	}
	if !slices.ContainsFunc(all, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		all = append(all, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return all, nil
}

// ports is where the image's ports are reached: at their own numbers, where these are free, and at others if not; or where flags say.
func ports(flags []string, exposed map[string]struct{}) ([]container.Port, error) {
	var own []int
	for p := range exposed {
		number, proto, _ := strings.Cut(p, "/")
		if n, err := strconv.Atoi(number); err == nil && cmp.Or(proto, "tcp") == "tcp" {
			own = append(own, n)
		}
	}
	slices.Sort(own)
	asked := map[int]int{} // by the container's
	for _, p := range flags {
		host, in, both := strings.Cut(p, ":")
		h, err1 := strconv.Atoi(host)
		c := 0
		var err2 error
		if both {
			c, err2 = strconv.Atoi(in)
		} else if len(own) == 1 {
			c = own[0]
		} else {
			return nil, usagef("--port %s: the image has %s: say which, HOST:PORT", p, plural(len(own), "port"))
		}
		if err1 != nil || err2 != nil || h < 0 || h > 65535 || c < 1 || c > 65535 {
			return nil, usagef("--port %s: want PORT or HOST:PORT, in numbers", p)
		}
		asked[c] = h
	}
	for _, c := range own {
		if _, ok := asked[c]; !ok {
			asked[c] = -1
		}
	}
	var all []container.Port
	for c, h := range asked {
		addr, err := freeAddress(h, c)
		if err != nil {
			return nil, fmt.Errorf("port %d: %w\n    name another with --port", h, err)
		}
		all = append(all, container.Port{Host: addr, Container: c, Says: "http://" + addr + "/"})
	}
	slices.SortFunc(all, func(a, b container.Port) int { return a.Container - b.Container })
	return all, nil
}

// freeAddress is an address on loopback with the port asked for, which must be free; with -1 own, if it is, and else any.
func freeAddress(asked, own int) (string, error) {
	try := []int{asked}
	if asked < 0 {
		try = []int{own, 0}
	}
	var err error
	for _, port := range try {
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
	}
	return "", err
}

// serve runs a spec in a process that has the rights for it.
func (a *app) serve(ctx context.Context, o *opened, s container.Spec) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	state := filepath.Join(o.cacheDir, "run")
	if err := os.MkdirAll(state, 0o711); err != nil {
		return err
	}
	r, w, err := os.Pipe() // first the spec; and the child ends when nobody is at this end of it any more
	if err != nil {
		return err
	}
	defer w.Close()
	said, says, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	cmd := exec.Command(exe, "container")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, a.std.out, a.std.err
	cmd.ExtraFiles = []*os.File{r, says}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // to which the death signal is bound
		defer runtime.UnlockOSThread()
		err := buildkit.StartAsRoot(cmd, state)
		r.Close()
		says.Close()
		if started <- err; err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return errors.Join(err, <-ended)
	}
	go a.relay(said)
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		return errStopped
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exitError{exit.ExitCode()}
	}
	return err
}

// relay shows what the child says: addresses on the standard output, and the rest on the other.
func (a *app) relay(said io.Reader) {
	d := json.NewDecoder(said)
	for {
		var line string
		if d.Decode(&line) != nil {
			return
		}
		if strings.HasPrefix(line, "http://") {
			fmt.Fprintln(a.std.out, line)
		} else {
			a.note("%s", line)
		}
	}
}

// unpackedDir is where layers of images that ran lie unpacked, in a cache.
func unpackedDir(cache string) string { return filepath.Join(cache, "run", "layers") }

// removeUnpacked removes them, if nothing runs that uses them. An ordinary user's belong to subordinate ids.
func removeUnpacked(cache string) error {
	dir := unpackedDir(cache)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if os.Geteuid() == 0 {
		return container.Clean(dir)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	var stderr strings.Builder
	cmd := exec.Command(exe, "container", "--clean", dir)
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if err = buildkit.StartAsRoot(cmd, filepath.Join(cache, "run")); err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w\n%s", dir, err, stderr.String())
	}
	return nil
}

// containerCommand is the process of mwbuild run that has the rights to run containers. mwbuild starts it; nobody else should.
func (a *app) containerCommand() *cobra.Command {
	clean := ""
	c := &cobra.Command{
		Use:    "container",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			userNamespace, err := buildkit.EnterNamespace()
			if err != nil {
				return err
			}
			if clean != "" {
				return container.Clean(clean)
			}
			for _, fd := range []int{3, 4} {
				syscall.CloseOnExec(fd)
			}
			in, says := os.NewFile(3, "spec"), json.NewEncoder(os.NewFile(4, "says"))
			d := json.NewDecoder(in)
			var s container.Spec
			if err := d.Decode(&s); err != nil {
				return usagef("container: %w", err)
			}
			s.UserNamespace = userNamespace
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() {
				_, _ = io.Copy(io.Discard, io.MultiReader(d.Buffered(), in))
				cancel()
			}()
			err = container.Run(ctx, s, func(line string) { _ = says.Encode(line) })
			if exit := (*container.ExitError)(nil); errors.As(err, &exit) {
				return exitError{exit.Code}
			}
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	c.Flags().StringVar(&clean, "clean", "", "")
	return c
}
