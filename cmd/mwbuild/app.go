package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/log"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mwbuild/mwbuild/internal/spell"
	"github.com/mwbuild/mwbuild/internal/workspace"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// Exit codes are Bazel's.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitTests       = 3
	exitNothing     = 4
	exitInterrupted = 8
	exitInternal    = 37
)

type stdio struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errReported ends a command whose errors have been shown.
var errReported = errors.New("failed")

// errNothing ends a command that found nothing, where that was asked to be told apart.
var errNothing = errors.New("nothing found")

// app is one invocation: the flags that all commands have, and what commands share.
type app struct {
	std      stdio
	dir      string // -C
	cacheDir string
	builder  string
	progress string
	debug    bool
	config   load.Config
	handed   handedFlags
	log      *slog.Logger
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "mwbuild [COMMAND] [FLAGS] [TARGET…]",
		Short: "Build a MediaWiki monorepo into container images",
		Long: `mwbuild builds a MediaWiki monorepo into container images, and only what changed.

What starts with //, :, -// or ... is a target and means build:

    mwbuild //extensions/Cite:image     one target
    mwbuild //extensions/... -//extensions/Cite/...
    mwbuild :image                      in the folder you stand in`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return fmt.Errorf("unknown command %q", args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.std.in)
	root.SetOut(a.std.out)
	root.SetErr(a.std.err)
	f := root.PersistentFlags()
	f.StringVarP(&a.dir, "directory", "C", "", "run as if started in this `folder`")
	f.StringVar(&a.cacheDir, "cache-dir", "", "cache `folder` (default $XDG_CACHE_HOME/mwbuild)")
	f.StringVar(&a.builder, "builder", os.Getenv("BUILDKIT_HOST"), "BuildKit `address` that runs steps: unix://, tcp://, docker-container://, kube-pod:// or ssh:// (default $BUILDKIT_HOST, else an engine of its own)")
	f.StringVar(&a.progress, "progress", "auto", "how progress is shown: auto, plain, tty, rawjson or quiet")
	f.BoolVar(&a.debug, "debug", false, "log what mwbuild does to the standard error")
	f.StringVar(&a.config.Name, "config", "", "configuration to use: the `name` of a configuration() in WORKSPACE")
	f.StringVar(&a.config.Platform, "platform", "", "`os/arch` to build for, in place of what the configuration or image_defaults() in WORKSPACE says")
	f.StringArrayVar(&a.config.Define, "define", nil, "`NAME=VALUE` of a define() in WORKSPACE, for select(); may be repeated, and the last value of a name counts")
	root.AddCommand(a.buildCommand(), a.testCommand(), a.publishCommand(), a.sbomCommand(), a.runCommand(), a.explainCommand(), a.affectedCommand(), a.queryCommand(), a.aqueryCommand(), a.ownersCommand(), a.llbCommand(), a.logCommand(), a.lockCommand(), a.layersCommand(), a.infoCommand(), a.cleanCommand(), a.genCommand(), a.fmtCommand(), a.lintCommand(), a.l10nCommand(), a.versionCommand(), a.engineCommand(), a.imageTestCommand(), a.containerCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// execute runs the command that args name.
func (a *app) execute(ctx context.Context, args []string) error {
	root := a.command()
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{flagHint(c, err)}
	})
	args = insertBuild(root, args)
	args, err := a.defaults(root, args)
	if err != nil {
		return err
	}
	root.SetArgs(hidePatterns(args))
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		level := slog.LevelError + 1
		if a.debug {
			level = slog.LevelDebug
		}
		// Libraries log through containerd's logger; what they say is for debugging too.
		if !a.debug {
			if err := log.SetLevel("fatal"); err != nil {
				return err
			}
		}
		a.log = slog.New(slog.NewTextHandler(a.std.err, &slog.HandlerOptions{Level: level}))
		return nil
	}
	err = root.ExecuteContext(ctx)
	var usage usageError
	if err != nil && !errors.As(err, &usage) {
		// Cobra's own errors have no type.
		switch msg := err.Error(); {
		case strings.HasPrefix(msg, "unknown command"):
			return usageError{errors.New(commandHint(root, args))}
		case strings.HasPrefix(msg, "required flag"), strings.HasPrefix(msg, "accepts "), strings.HasPrefix(msg, "requires "):
			return usageError{err}
		}
	}
	return err
}

// exitCode reports err, if it was not, and returns the code for it.
func (a *app) exitCode(ctx context.Context, err error) int {
	var usage usageError
	var exit exitError
	switch {
	case err == nil, errors.Is(err, errStopped):
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(a.std.err, "mwbuild: interrupted; what was finished is kept")
		return exitInterrupted
	case errors.As(err, &exit):
		return exit.code
	case errors.Is(err, errReported):
		return exitFailed
	case errors.Is(err, errTests):
		return exitTests
	case errors.Is(err, errNothing):
		return exitNothing
	case errors.As(err, &usage):
		fmt.Fprintf(a.std.err, "mwbuild: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(a.std.err, "mwbuild: %v\n", err)
	return exitFailed
}

func looksLikePattern(arg string) bool {
	return strings.HasPrefix(arg, "//") || strings.HasPrefix(arg, ":") || strings.HasPrefix(arg, "...") || negative(arg)
}

func negative(arg string) bool { return strings.HasPrefix(arg, "-//") || strings.HasPrefix(arg, "-:") }

// Patterns that begin with a dash would be taken for flags, so they go through the parser in disguise.
const disguise = "\x00"

func hidePatterns(args []string) []string {
	out := slices.Clone(args)
	for i, arg := range out {
		if arg == "--" {
			break
		}
		if negative(arg) {
			out[i] = disguise + arg
		}
	}
	return out
}

func showPattern(arg string) string { return strings.TrimPrefix(arg, disguise) }

// firstWord returns the index of the first argument that is neither a flag nor a flag's value, or -1.
func firstWord(root *cobra.Command, args []string) int {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.AddFlagSet(root.PersistentFlags())
	for _, c := range root.Commands() {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if flags.Lookup(f.Name) == nil && (f.Shorthand == "" || flags.ShorthandLookup(f.Shorthand) == nil) {
				flags.AddFlag(f)
			}
		})
	}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if negative(arg) || !strings.HasPrefix(arg, "-") || arg == "-" {
			return i
		}
		if arg == "--" {
			if i+1 < len(args) {
				return i + 1
			}
			return -1
		}
		var f *pflag.Flag
		if name, long := strings.CutPrefix(arg, "--"); long {
			f = flags.Lookup(name) // nil for --name=value, which takes no further argument
		} else if len(arg) == 2 {
			f = flags.ShorthandLookup(arg[1:])
		}
		if f != nil && f.NoOptDefVal == "" {
			i++
		}
	}
	return -1
}

// insertBuild makes a command line that begins with a target one of the build command.
func insertBuild(root *cobra.Command, args []string) []string {
	if i := firstWord(root, args); i >= 0 && looksLikePattern(args[i]) {
		return append([]string{"build"}, args...)
	}
	return args
}

func commandHint(root *cobra.Command, args []string) string {
	word := args[firstWord(root, args)]
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	msg := fmt.Sprintf("unknown command %q", word)
	if near := spell.Nearest(word, names); near != "" {
		return msg + "\n    did you mean mwbuild " + near
	}
	if strings.Contains(word, "/") || strings.Contains(word, ":") {
		return msg + "\n    a target starts with // or : — did you mean mwbuild //" + strings.Trim(word, "/")
	}
	return msg + "\n    commands are " + strings.Join(names, ", ") + "; targets start with // or :"
}

func flagHint(c *cobra.Command, err error) error {
	name, ok := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !ok {
		return fmt.Errorf("%w\n    see mwbuild help %s", err, c.Name())
	}
	var names []string
	for _, set := range []*pflag.FlagSet{c.Flags(), c.InheritedFlags()} {
		set.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	}
	if near := spell.Nearest(name, names); near != "" {
		return fmt.Errorf("%w\n    did you mean --%s", err, near)
	}
	return fmt.Errorf("%w\n    see mwbuild help %s", err, c.Name())
}

// defaults puts the flags of .mwbuildrc files before those of the command line, which so win over them: first the
// user's, ~/.mwbuildrc, then the workspace's.
//
// A line holds the name of a command, or "common" for all, and flags. Flags under common that a command does not have
// are passed over. A flag's value follows an equals sign.
func (a *app) defaults(root *cobra.Command, args []string) ([]string, error) {
	at := firstWord(root, args)
	if at < 0 {
		return args, nil
	}
	cmd, _, err := root.Find([]string{args[at]})
	if err != nil || cmd == root || cmd.Hidden {
		return args, nil
	}
	var files []string
	if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".mwbuildrc"))
	}
	dir := "."
	for i, arg := range args {
		if arg == "-C" || arg == "--directory" {
			if i+1 < len(args) {
				dir = args[i+1]
			}
		} else if d, ok := strings.CutPrefix(arg, "--directory="); ok {
			dir = d
		} else if d, ok := strings.CutPrefix(arg, "-C"); ok {
			dir = d
		}
	}
	if r, err := workspace.FindRoot(dir); err == nil {
		if f := filepath.Join(r, ".mwbuildrc"); !slices.Contains(files, f) {
			files = append(files, f)
		}
	}
	var flags []string
	for _, f := range files {
		more, err := readDefaults(f, root, cmd)
		if err != nil {
			return nil, err
		}
		flags = append(flags, more...)
	}
	out := append(append([]string{args[at]}, flags...), args[:at]...)
	return append(out, args[at+1:]...), nil
}

func readDefaults(file string, root, cmd *cobra.Command) ([]string, error) {
	r, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var flags []string
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		common := words[0] == "common"
		if c, _, err := root.Find(words[:1]); !common && (err != nil || c == root) {
			return nil, usagef("%s:%d:1: %q is no command\n    write a command's name or \"common\" before the flags", file, n, words[0])
		}
		if !common && words[0] != cmd.Name() {
			continue
		}
		for _, w := range words[1:] {
			name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
			var f *pflag.Flag
			if strings.HasPrefix(w, "--") {
				if f = cmd.Flags().Lookup(name); f == nil {
					f = root.PersistentFlags().Lookup(name)
				}
			}
			if f == nil && common && strings.HasPrefix(w, "--") {
				continue
			}
			if f == nil || f.NoOptDefVal == "" && !strings.Contains(w, "=") {
				return nil, usagef("%s:%d:1: %s: want --flag or --flag=value of mwbuild %s", file, n, w, cmd.Name())
			}
			flags = append(flags, w)
		}
	}
	return flags, lines.Err()
}

// cache returns the cache folder, absolute.
func (a *app) cache() (string, error) {
	if a.cacheDir != "" {
		return filepath.Abs(a.cacheDir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: %w\n    name one with --cache-dir", err)
	}
	return filepath.Join(dir, "mwbuild"), nil
}

func (a *app) note(format string, args ...any) {
	if a.progress != "quiet" {
		fmt.Fprintf(a.std.err, "mwbuild: "+format+"\n", args...)
	}
}
