// Command graph times mwbuild on synthetic monorepos beside Ninja and Turborepo on the same ones, and beside the floor: what parts of the work
// cost alone.
//
//	bench/graph/run [--sizes 250,2500,25000] [--runs 5] [--tools mwbuild,ninja,turbo] [--json] [--dir DIR]
//	bench/graph/run gen --packages 2500 [--seed 1] --for mwbuild|ninja|turbo DIR
//	bench/graph/run floor [-walk] DIR
//
// A monorepo of N packages has 4 N targets and 10 N files, besides what each tool wants for itself. The graph is the same for all tools; in
// Turborepo a package is one task, so it has a quarter of the work. What is measured:
//
//	load           what all targets are: query //... without a cache; ninja -t targets all; turbo ls
//	load_warm      the same with the cache that this left
//	noop           everything is built and is built again
//	noop_one       the same of one target, for the second time
//	noop_one_first the same for the first time after all was built
//	edit           one source file changed, and everything is built
//	affected_warm  what a commit of one file reaches, with the cache of the commit before; turbo ls --affected
//	affected_cold  the same without a cache (Turborepo has none for it)
//
// and of the floor load (see floor.go), load_nogc (the same without garbage collection, which mwbuild tunes for itself), walk (one walk with an
// lstat of every file), and ls_files (git ls-files).
//
// Answers are checked, each time: what is loaded, that a no-op runs nothing and an edit something, and that affected names exactly what the
// generator's own graph says. The rounds of all tools are interleaved; the median counts. CPU seconds, of user and system, tell noise from work
// where the machine is not quiet. Without Ninja and Turborepo in DIR/peers they are installed there by npm.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench/graph: ")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		stop()
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "gen" {
		return gen(ctx, args[1:])
	}
	if len(args) > 0 && args[0] == "floor" {
		return floor(args[1:], os.Stdout, os.Stderr)
	}
	b := &bench{}
	fl := flag.NewFlagSet("run", flag.ExitOnError)
	sizes := fl.String("sizes", "2500", "numbers of packages, separated by commas")
	tools := fl.String("tools", "mwbuild,ninja,turbo", "whom to measure, separated by commas")
	asJSON := fl.Bool("json", false, "print one JSON object")
	fl.IntVar(&b.runs, "runs", 5, "how often each is measured; the median counts")
	fl.StringVar(&b.dir, "dir", "", "where trees, caches and peers are; kept, and used again. Without it a temporary folder")
	fl.StringVar(&b.mwbuild, "mwbuild", "", "the mwbuild to measure; without it, it is built")
	fl.IntVar(&b.turboBuilds, "turbo-builds", 2500, "the largest number of packages that Turborepo builds: above, it is asked only")
	if err := fl.Parse(args); err != nil {
		return err
	}
	if fl.NArg() > 0 || b.runs < 1 {
		return fmt.Errorf("%q: want flags only, and at least one run", fl.Args())
	}
	b.tools = strings.Split(*tools, ",")
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("--sizes: %q is no number of packages", s)
		}
		b.sizes = append(b.sizes, n)
	}
	report, err := b.run(ctx)
	if err != nil {
		return err
	}
	if *asJSON {
		return report.json(os.Stdout)
	}
	return report.table(os.Stdout)
}

// gen is the command that writes one tree.
func gen(ctx context.Context, args []string) error {
	fl := flag.NewFlagSet("gen", flag.ExitOnError)
	packages := fl.Int("packages", 2500, "how many packages, of 4 targets and 10 files each")
	seed := fl.Uint64("seed", 1, "another number is another graph")
	tool := fl.String("for", "mwbuild", "mwbuild, ninja or turbo")
	if err := fl.Parse(args); err != nil {
		return err
	}
	if fl.NArg() != 1 || *packages < 1 {
		return fmt.Errorf("gen: want one folder to write to, and at least one package")
	}
	return newMonorepo(*packages, *seed).generate(ctx, *tool, fl.Arg(0))
}
