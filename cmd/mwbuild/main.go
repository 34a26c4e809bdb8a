// Command mwbuild builds a MediaWiki monorepo: extensions, skins and wikis, from BUILD files to container images.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends what is under way in order; the second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, std stdio) (code int) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(std.err, "mwbuild: internal error: %v\n%s\nThis is a bug in mwbuild: please report it with the lines above.\n", r, debug.Stack())
			code = exitInternal
		}
	}()
	if len(args) == 0 || args[0] != "engine" {
		tuneMemory()
	}
	a := &app{std: std}
	return a.exitCode(ctx, a.execute(ctx, args))
}
