package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	ctdsnapshot "github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/gofrs/flock"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/disk"
	"github.com/moby/buildkit/util/grpcerrors"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // the encoding of BuildKit's messages
	"github.com/moby/buildkit/util/network/cniprovider"
	"github.com/moby/buildkit/util/network/netproviders"
	"github.com/moby/buildkit/util/resolver"
	"github.com/moby/buildkit/version"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/moby/buildkit/worker/runc"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	snapshotterOverlay = "overlayfs"
	snapshotterNative  = "native"

	// What the engine may keep beside keepSpace.
	minFreeShare = 10 // percent of the disk
	keepDuration = 30 * 24 * time.Hour

	// drainLimit is how long cancelled containers get to die; it is shorter than what a parent waits for the engine.
	drainLimit = 2 * time.Second
)

// keepSpace bounds the engine's own copies of layers, snapshots and results: reserved is never taken from it, most is what
// it may use. All of it can be made again. BuildKit sees to it one second after the engine's start, and then every minute
// in which something was solved. Tests lower it.
var keepSpace = struct{ reserved, most int64 }{1 << 30, 20 << 30}

// Serve is the embedded engine: BuildKit's controller with the runc worker, its state below root, on a unix socket. It
// returns when ctx ends or stdin does (nil: no stdin to watch), after its containers are gone. It removes the socket,
// and the folder that held it if that is empty then.
//
// One engine at a time serves a root: another one waits, and says so on stderr. What a killed engine left running is
// ended first. Serve is for a process of its own: it sets the umask and the output of the logrus package.
func Serve(ctx context.Context, root, socket string, stdin io.Reader, stderr io.Writer) (err error) {
	if !filepath.IsAbs(root) {
		return fmt.Errorf("engine: root %q is not absolute", root)
	}
	defer func() { tellRefusal(stderr, err) }()
	if err := enterNamespace(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("engine: it needs the rights that mwbuild starts it with")
	}
	if err := thisMachine().canEmbed(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if stdin != nil {
		go func() {
			io.Copy(io.Discard, stdin)
			cancel()
		}()
	}
	// When the parent is killed stderr is a broken pipe, and a signal that nobody takes would end us before our
	// containers. Ignoring it instead would be inherited by them.
	//
	// SIGTERM is taken here too, though ctx ends with the first: a killed parent's death signal comes once for each of
	// its threads that the kernel made our parent in turn, and the second must not end us before our containers.
	taken := make(chan os.Signal, 1)
	signal.Notify(taken, syscall.SIGPIPE, syscall.SIGTERM)
	defer signal.Stop(taken)
	// BuildKit expects the modes that it asks for.
	defer syscall.Umask(syscall.Umask(0))
	logrus.SetOutput(stderr)
	logrus.SetLevel(logrus.WarnLevel)

	if err := os.MkdirAll(root, 0o700); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	// What is mounted is listed by its real path.
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	unlock, err := lockRoot(ctx, root, func(msg string) { fmt.Fprintln(stderr, waitPrefix+msg) })
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer unlock()
	if err := sweep(root); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(root, "tmp"), runDir(root)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	}
	c, err := newController(ctx, root)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()

	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(grpcerrors.UnaryServerInterceptor),
		grpc.ChainStreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
	)
	healthv1.RegisterHealthServer(server, health.NewServer())
	c.Register(server)

	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	defer func() {
		os.Remove(socket)
		os.Remove(filepath.Dir(socket)) // fails unless empty
	}()
	if err := os.Chmod(socket, 0o600); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("engine: %w", err)
	case <-ctx.Done():
	}
	// Not GracefulStop, which lets builds finish. Stop cancels them, and waits for none, so the containers are waited
	// for here.
	stopped := make(chan struct{})
	go func() {
		server.Stop()
		close(stopped)
	}()
	drain(root, drainLimit)
	select {
	case <-stopped:
	case <-time.After(drainLimit / 4):
	}
	return endContainers(root)
}

// lockRoot makes root and waits until no other engine uses it.
func lockRoot(ctx context.Context, root string, wait func(msg string)) (func(), error) {
	for {
		if err := os.MkdirAll(root, 0o700); err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
		lock := flock.New(filepath.Join(root, "lock"))
		ok, err := lock.TryLock()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed this moment
		}
		if err != nil {
			return nil, fmt.Errorf("engine: lock of %s: %w", root, err)
		}
		if ok && isLock(lock) {
			return func() { lock.Unlock() }, nil
		}
		if ok { // a lock of what Remove removed is nobody's
			lock.Unlock()
			continue
		}
		wait("another mwbuild is running steps with the engine in " + root)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// isLock says whether the file that is locked is still the one of that name.
func isLock(lock *flock.Flock) bool {
	held, err := lock.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(lock.Path())
	return err == nil && os.SameFile(held, named)
}

func newController(ctx context.Context, root string) (*control.Controller, error) {
	sessions, err := session.NewManager()
	if err != nil {
		return nil, err
	}
	hosts := resolver.NewRegistryConfig(nil) // plain HTTP to loopback, TLS elsewhere
	network := netproviders.Opt{Mode: "host", CNI: cniprovider.Opt{Root: root}}
	// No socket for traces: with one, every step gets environment variables that differ from run to run.
	rootless := inUserNamespace()
	snapshots, err := snapshotter(root, rootless)
	if err != nil {
		return nil, err
	}
	program, err := thisMachine().runtime()
	if err != nil {
		return nil, err
	}
	wo, err := runc.NewWorkerOpt(root, snapshots, rootless, oci.ProcessSandbox, nil, nil, network, nil, program, "", false, nil, "", "", nil)
	if err != nil {
		return nil, err
	}
	wo.RegistryHosts = hosts
	wo.GCPolicy = gcPolicy(root)
	wo.BuildkitVersion = client.BuildkitVersion{Package: version.Package, Version: version.Version, Revision: version.Revision}
	w, err := base.NewWorker(ctx, wo)
	if err != nil {
		return nil, err
	}
	workers := &worker.Controller{}
	if err := workers.Add(w); err != nil {
		return nil, err
	}
	cache, err := bboltcachestorage.NewStore(filepath.Join(root, "cache.db"))
	if err != nil {
		return nil, err
	}
	history, err := boltutil.SafeOpen(filepath.Join(root, "history.db"), 0o600, &bolt.Options{
		FreelistType:   bolt.FreelistMapType,
		NoFreelistSync: true,
	})
	if err != nil {
		return nil, err
	}
	return control.NewController(control.Opt{
		SessionManager:   sessions,
		WorkerController: workers,
		Frontends:        map[string]frontend.Frontend{}, // graphs only
		CacheManager:     solver.NewCacheManager(ctx, "local", cache, worker.NewCacheResultStorage(workers)),
		HistoryDB:        history,
		CacheStore:       cache,
		LeaseManager:     w.LeaseManager(),
		ContentStore:     w.ContentStore(),
		GarbageCollect:   w.GarbageCollect,
		GracefulStop:     ctx.Done(),
	})
}

// snapshotter is overlayfs, or for root, where the disk below root does not have it, native: correct, but it copies a
// whole root for every step.
func snapshotter(root string, rootless bool) (runc.SnapshotterFactory, error) {
	var err error
	if rootless {
		err = checkOverlay(root)
	} else if overlayutils.Supported(root) != nil {
		return runc.SnapshotterFactory{Name: snapshotterNative, New: native.NewSnapshotter}, nil
	}
	return runc.SnapshotterFactory{Name: snapshotterOverlay, New: func(root string) (ctdsnapshot.Snapshotter, error) {
		return overlay.NewSnapshotter(root, overlay.AsynchronousRemove)
	}}, err
}

// gcPolicy bounds what lies below root. Without one, a full disk stays full.
func gcPolicy(root string) []client.PruneInfo {
	var minFree int64
	if st, err := disk.GetDiskStat(root); err == nil {
		minFree = st.Total / 100 * minFreeShare
	}
	size := client.PruneInfo{ReservedSpace: keepSpace.reserved, MaxUsedSpace: keepSpace.most, MinFreeSpace: minFree}
	old, all := size, size
	old.KeepDuration = keepDuration
	all.All = true
	return []client.PruneInfo{old, size, all}
}
