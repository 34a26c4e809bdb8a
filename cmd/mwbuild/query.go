package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/graph/query"
	"github.com/mwbuild/mwbuild/internal/spell"
	"github.com/mwbuild/mwbuild/starlark/buildfile"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// queryFlags are what mwbuild query and aquery share.
type queryFlags struct {
	file       string
	universe   []string
	files      bool
	implicit   bool
	noImplicit bool
	keepGoing  bool
}

// add defines the flags. Bazel's spelling, with underscores, means the same.
func (q *queryFlags) add(f *pflag.FlagSet) {
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	f.StringVar(&q.file, "query-file", "", "read the expression from this `file`")
	f.StringSliceVar(&q.universe, "universe-scope", nil, "`patterns`, separated by commas, of the targets that allrdeps looks at (default //...)")
	f.BoolVar(&q.files, "include-source-files", false, "follow dependencies on files, and let //a:* match them")
	f.BoolVar(&q.implicit, "implicit-deps", true, "follow dependencies that nobody wrote into a BUILD file: defaults of rules and of macros")
	f.BoolVar(&q.noImplicit, "noimplicit-deps", false, "do not: the same as --implicit-deps=false")
	f.BoolVarP(&q.keepGoing, "keep-going", "k", false, "answer from what can be loaded, and take what is missing for empty; exit with 1 all the same")
}

// queryOutputs are the values of --output.
var queryOutputs = []string{"label", "label_kind", "location", "package", "build", "json", "graph", "maxrank", "minrank"}

func (a *app) queryCommand() *cobra.Command {
	var q queryFlags
	var output, order string
	var unfactored bool
	var limit int
	c := &cobra.Command{
		Use:   "query [FLAGS] EXPRESSION",
		Short: "Ask about targets and what depends on what, in Bazel's query language",
		Long: `Ask about targets and what depends on what, in Bazel's query language. No rule runs and nothing is built; only the packages
that the expression needs are loaded.

    mwbuild query 'deps(//wiki:image)'                        all that it needs
    mwbuild query 'rdeps(//..., //extensions/Cite)'           all that needs it
    mwbuild query 'somepath(//wiki:image, //extensions/Cite)' one reason why
    mwbuild query 'rdeps(//..., extensions/Cite/extension.json)'
    mwbuild query 'kind("mw_.* rule", //extensions/...) - attr(tags, manual, //...)'

Functions: deps(X[, DEPTH]) rdeps(UNIVERSE, X[, DEPTH]) allrdeps(X[, DEPTH]) somepath(X, Y) allpaths(X, Y) kind(REGEXP, X)
filter(REGEXP, X) attr(NAME, REGEXP, X) labels(ATTRIBUTE, X) tests(X) buildfiles(X) loadfiles(X) siblings(X) visible(Y, X)
same_pkg_direct_rdeps(X) some(X[, NUMBER]). Operators, of equal precedence, from left to right: + or union, - or except, ^ or
intersect. Besides set(WORD…) and let NAME = X in Y, where Y has $NAME.

Files are in a result where the expression names them, where labels, buildfiles or loadfiles give them, or with
--include-source-files. Bazel follows dependencies on files always; a component has thousands. Patterns match manual targets too.

An empty result is one: the exit code is 0.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(queryOutputs, output) {
				return usagef("--output=%s: want one of %s", output, strings.Join(queryOutputs, ", "))
			}
			if !slices.Contains(query.Orders, order) {
				return usagef("--order-output=%s: want one of %s", order, strings.Join(query.Orders, ", "))
			}
			return a.query(cmd.Context(), q, args, output, query.Order(order), query.DotOptions{Factored: !unfactored, Limit: limit})
		},
	}
	f := c.Flags()
	q.add(f)
	f.StringVar(&output, "output", "label", "label, label_kind, location, package, build (as in a BUILD file), json (an array with an object for each), graph (for Graphviz), maxrank or minrank")
	f.StringVar(&order, "order-output", "auto", "auto (by label; along the path for somepath), deps (what depends on others first), full (the same, and always the same way) or no")
	f.BoolVar(&unfactored, "nograph:factored", false, "with --output=graph: draw each target, also where several have the same neighbours")
	f.IntVar(&limit, "graph:node-limit", 1024, "with --output=graph: `bytes` that the text of a node may have, 0 for any number")
	return c
}

func (a *app) query(ctx context.Context, q queryFlags, args []string, output string, order query.Order, dot query.DotOptions) error {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	s, res, err := o.evaluate(ctx, q, args)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(a.std.out)
	switch output {
	case "json":
		err = a.queryJSON(w, res, order)
	case "graph":
		err = res.Dot(w, dot)
	case "maxrank", "minrank":
		for _, n := range res.Ranks(output == "maxrank") {
			fmt.Fprintf(w, "%d %s\n", n.Rank, n.Label)
		}
	case "package":
		pkgs := map[string]bool{}
		for _, n := range res.Nodes(query.Free) {
			pkgs[n.Label.Pkg] = true
		}
		for _, p := range slices.Sorted(maps.Keys(pkgs)) {
			fmt.Fprintln(w, p)
		}
	default:
		between := ""
		for _, n := range res.Nodes(order) {
			switch output {
			case "label":
				fmt.Fprintln(w, n.Label)
			case "label_kind":
				fmt.Fprintln(w, n.Kind(), n.Label)
			case "location":
				fmt.Fprintf(w, "%s: %s %s\n", location(n), n.Kind(), n.Label)
			case "build":
				if t, ok := n.Target.(*queryTarget); ok {
					fmt.Fprintf(w, "%s%s", between, t.source())
					between = "\n"
				}
			}
		}
	}
	if err := errors.Join(err, w.Flush()); err != nil {
		return err
	}
	if res.Len() == 0 {
		a.note("nothing matches")
	}
	return s.incomplete(res)
}

// evaluate parses and evaluates the expression of a command line.
func (o *opened) evaluate(ctx context.Context, q queryFlags, args []string) (*querySource, *query.Result, error) {
	for i, arg := range args {
		args[i] = showPattern(arg)
	}
	text := strings.Join(args, " ")
	switch {
	case q.file != "" && len(args) > 0:
		return nil, nil, usagef("--query-file stands in place of an expression")
	case q.file != "":
		b, err := os.ReadFile(o.app.path(q.file))
		if err != nil {
			return nil, nil, usageError{err}
		}
		text = strings.TrimSpace(string(b))
	case strings.TrimSpace(text) == "":
		return nil, nil, usagef("no expression given\n    write one, in quotes: mwbuild query 'deps(//wiki:image)'")
	}
	expr, err := query.Parse(text)
	if err != nil {
		return nil, nil, queryError(err)
	}
	opts := query.Options{Folder: o.pkg, Files: q.files, NoImplicit: q.noImplicit || !q.implicit, KeepGoing: q.keepGoing}
	for _, p := range q.universe {
		pattern, err := label.ParsePattern(p, o.pkg)
		if err != nil {
			return nil, nil, usageError{fmt.Errorf("--universe-scope: %w", err)}
		}
		opts.Universe = append(opts.Universe, pattern)
	}
	loader, errs := o.loader()
	if len(errs) > 0 {
		return nil, nil, o.reported(errs)
	}
	return o.ask(ctx, loader, text, expr, opts)
}

// ask evaluates the expression that text says over the packages of a loader.
func (o *opened) ask(ctx context.Context, loader *load.Loader, text string, expr query.Expr, opts query.Options) (*querySource, *query.Result, error) {
	begun := time.Now()
	s := &querySource{o: o, loader: loader, keepGoing: opts.KeepGoing, implicit: opts.NoImplicit, targets: map[label.Label]*queryTarget{}, seen: map[string]bool{}}
	res, err := query.Eval(ctx, text, expr, s, opts)
	if err != nil {
		return nil, nil, queryError(err)
	}
	o.app.log.Debug("evaluated the query", "results", res.Len(), "took", time.Since(begun))
	return s, res, nil
}

// queryError adds what was probably meant, and tells what is wrong in an expression from what is wrong in the workspace.
func queryError(err error) error {
	var e *query.Error
	if !errors.As(err, &e) {
		return err
	}
	if near := spell.Nearest(e.Unknown, e.Candidates); near != "" {
		e.Hints = []string{"did you mean " + near}
	}
	if e.Syntax {
		return usageError{e}
	}
	return e
}

// querySource is a workspace as package query sees it.
type querySource struct {
	o         *opened
	loader    *load.Loader
	keepGoing bool
	implicit  bool // which edges are implicit is asked for
	targets   map[label.Label]*queryTarget
	errs      []error
	seen      map[string]bool // errors that were reported
}

// Load is query.Source's. Errors are reported; with keepGoing they are no reason to stop.
func (s *querySource) Load(ctx context.Context, patterns []label.Pattern) ([]query.Target, error) {
	declared, errs := s.loader.Survey(ctx, patterns)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	errs = slices.DeleteFunc(errs, func(err error) bool { return s.seen[err.Error()] })
	for _, err := range errs {
		s.seen[err.Error()] = true
	}
	s.o.report(errs)
	s.errs = append(s.errs, errs...)
	if len(errs) > 0 && !s.keepGoing {
		return nil, errReported
	}
	targets := make([]query.Target, len(declared))
	for i, d := range declared {
		t := s.targets[d.Label()]
		if t == nil {
			t = &queryTarget{Declared: d, implicit: s.implicit}
			s.targets[d.Label()] = t
		}
		targets[i] = t
	}
	return targets, nil
}

func (s *querySource) Missing(p label.Pattern) (string, []string) { return s.loader.Missing(p) }
func (s *querySource) IsPackage(name string) bool                 { return s.loader.IsPackage(name) }
func (s *querySource) HasFile(file string) bool                   { return s.loader.HasFile(file) }
func (s *querySource) Owner(file string) string                   { return s.loader.Owner(file) }

func (s *querySource) PackageFiles(ctx context.Context, name string) (string, []string) {
	f := s.loader.PackageFiles(ctx, name)
	return f.Build, f.Loads
}

// incomplete reports what was missing where a query went on all the same.
func (s *querySource) incomplete(res *query.Result) error {
	for _, err := range res.Errors {
		fmt.Fprintln(s.o.app.std.err, err)
	}
	if len(s.errs)+len(res.Errors) > 0 {
		s.o.app.note("the result is of what could be loaded")
		return errReported
	}
	return nil
}

// queryTarget is a declared target as package query sees it.
type queryTarget struct {
	load.Declared
	implicit bool
}

// Edges is query.Target's. A config_setting that select() asks is needed by the target, and is in none of its attributes.
func (t *queryTarget) Edges() []query.Edge {
	declared := t.Declared.Edges()
	edges := make([]query.Edge, len(declared))
	for i, d := range declared {
		edges[i] = query.Edge{Attr: d.Attr, To: d.To, File: d.File, Implicit: t.implicit && !t.Written(d)}
		if d.Condition {
			edges[i].Attr = ""
		}
	}
	return edges
}

// Attr is query.Target's.
func (t *queryTarget) Attr(name string) []query.Value {
	v, ok := t.Declared.Attr(name)
	if !ok || v == nil {
		return nil
	}
	switch v := v.(type) {
	case []string:
		return []query.Value{{Text: "[" + strings.Join(v, ", ") + "]", List: v}}
	case map[string]string:
		var items []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			items = append(items, k+"="+v[k])
		}
		return []query.Value{{Text: "{" + strings.Join(items, ", ") + "}"}}
	case bool:
		if v {
			return []query.Value{{Text: "1"}}
		}
		return []query.Value{{Text: "0"}}
	}
	return []query.Value{{Text: fmt.Sprint(v)}}
}

// location is where a node stands: of a file, its first line.
func location(n query.Node) string {
	if t, ok := n.Target.(*queryTarget); ok {
		return t.Pos("")
	}
	return n.File + ":1:1"
}

// source is the call that would declare t in a BUILD file without any macro, with what does not say the default, formatted, and
// a comment about where it stands.
func (t *queryTarget) source() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s", t.Pos(""))
	if t.Callee() != t.Kind() {
		fmt.Fprintf(&b, ", made by %s", t.Callee())
	}
	fmt.Fprintf(&b, "\n%s(\n", t.Kind())
	for _, name := range t.Attrs() {
		if v := t.Literal(name); v != "" && t.Given(name) {
			fmt.Fprintf(&b, "    %s = %s,\n", name, v)
		}
	}
	b.WriteString(")\n")
	out, err := buildfile.Format("BUILD", b.Bytes())
	if err != nil {
		return b.Bytes() // it holds what the formatter cannot read: better unformatted than not at all
	}
	return out
}

// queryResult is one node as query shows it. The names of its JSON form stay.
type queryResult struct {
	Label    string         `json:"label"`
	Kind     string         `json:"kind"` // name of its rule, or "source file"
	Location string         `json:"location"`
	Attrs    map[string]any `json:"attrs"`
	Deps     []string       `json:"deps"` // direct ones
}

func (a *app) queryJSON(w io.Writer, res *query.Result, order query.Order) error {
	out := []queryResult{}
	for _, n := range res.Nodes(order) {
		one := queryResult{Label: n.Label.String(), Kind: n.Kind(), Location: location(n), Attrs: map[string]any{}, Deps: []string{}}
		if t, ok := n.Target.(*queryTarget); ok {
			one.Kind = t.Kind()
			for _, name := range t.Attrs() {
				if v, ok := t.Declared.Attr(name); ok {
					one.Attrs[name] = v
				}
			}
		}
		for _, d := range res.Deps(n) {
			one.Deps = append(one.Deps, d.Label.String())
		}
		out = append(out, one)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(out)
}
