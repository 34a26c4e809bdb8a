package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mwbuild/mwbuild/build"
	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/build/image/layer"
	"github.com/mwbuild/mwbuild/build/plan"
	"github.com/mwbuild/mwbuild/build/progress"
	"github.com/mwbuild/mwbuild/cache/store"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/rules/filecheck"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// testFlags are what mwbuild test was asked for.
type testFlags struct {
	runs      int
	timeout   time.Duration
	tags      []string
	keepGoing bool
	stop      bool
	noCache   bool
	jobs      int
	show      string
	output    string
	junit     string
}

func (a *app) testCommand() *cobra.Command {
	var f testFlags
	c := &cobra.Command{
		Use:   "test [FLAGS] TARGET…",
		Short: "Run tests, and only those that a change can have broken",
		Long: `Run tests: targets of rules whose names end in _test, and those of a test_suite. Other targets are passed over.

A test that passed is not run again before something that it reads changes; one that failed is. There is a line for each on the standard
output, and the end of the log of each that failed on the other. The exit code is 3 if a test failed, 1 if something that a test needs could not be built, and
4 if there is no test.`,
		Example: `  mwbuild test //...
  mwbuild test //extensions/... --test-tag-filters=-slow --junit=results.xml
  mwbuild test $(mwbuild affected --tests --since origin/master)`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.output != "text" && f.output != "json":
				return usagef("--output=%s: want text or json", f.output)
			case !slices.Contains([]string{"errors", "all", "summary"}, f.show):
				return usagef("--test-output=%s: want errors, all or summary", f.show)
			case f.runs < 1:
				return usagef("--runs=%d: want 1 or more", f.runs)
			case f.timeout < 0 || f.timeout == 0 && cmd.Flags().Changed("timeout"):
				return usagef("--timeout=%s: want a time such as 90s or 10m", f.timeout)
			}
			f.keepGoing = f.keepGoing && !f.stop
			return a.test(cmd.Context(), f, args)
		},
	}
	fl := c.Flags()
	fl.IntVar(&f.runs, "runs", 1, "how `many` times each test runs; all but the first run whether it passed before or not")
	fl.DurationVar(&f.timeout, "timeout", 0, "how long each test may take, such as `90s`, in place of what it says itself")
	fl.StringSliceVar(&f.tags, "test-tag-filters", nil, "only tests with one of these `tags`, and with none of those that begin with -")
	fl.BoolVarP(&f.keepGoing, "keep-going", "k", true, "after a failure run the other tests, too")
	fl.BoolVar(&f.stop, "no-keep-going", false, "end with the first failure")
	fl.BoolVar(&f.noCache, "no-cache-results", false, "run tests although they passed before")
	fl.IntVarP(&f.jobs, "jobs", "j", 0, "how many actions run at once (default one for each processor)")
	fl.StringVar(&f.show, "test-output", "errors", "whose logs are shown: errors (the end of each that failed), all, or summary (none)")
	fl.StringVar(&f.output, "output", "text", "text, or json: one object on the standard output")
	fl.StringVar(&f.junit, "junit", "", "write the results to this `file`, as JUnit's XML")
	a.handed.add(fl)
	return c
}

// errTests ends a command of which tests failed.
var errTests = errors.New("tests failed")

var testKind = regexp.MustCompile(`(^|_)test$`)

// isTest tells whether t is a test: what its outputs are is then done by `mwbuild test`.
func isTest(t *graph.Target) bool { return testKind.MatchString(t.Kind) }

const suiteKind = "test_suite"

// testAttempts is how often a flaky test is run until it passes.
const testAttempts = 3

// withoutTests is targets as a build sees them: of tests it makes what they need.
func withoutTests(targets []*graph.Target) []*graph.Target {
	targets = slices.Clone(targets)
	for i, t := range targets {
		if !isTest(t) {
			continue
		}
		needs := *t
		needs.Outputs = nil
		for _, n := range t.Outputs {
			for _, d := range n.Deps() {
				if !slices.Contains(needs.Outputs, d) {
					needs.Outputs = append(needs.Outputs, d)
				}
			}
		}
		targets[i] = &needs
	}
	return targets
}

// selectTests returns the tests among targets and in the suites among them, by label.
func selectTests(g *graph.Graph, targets []*graph.Target, filters []string) []*graph.Target {
	chosen := map[label.Label]*graph.Target{}
	var add func(t *graph.Target, wanted func(*graph.Target) bool, above []*graph.Target)
	add = func(t *graph.Target, wanted func(*graph.Target) bool, above []*graph.Target) {
		switch {
		case t == nil:
		case isTest(t) && wanted(t):
			chosen[t.Label] = t
		case t.Kind == suiteKind && !slices.Contains(above, t):
			for _, e := range t.Deps {
				if e.Attr == "tests" && !e.Condition {
					add(g.Target(e.To), func(o *graph.Target) bool { return wanted(o) && inSuite(t.Tags, o.Tags) }, append(above, t))
				}
			}
		}
	}
	for _, t := range targets {
		add(t, func(o *graph.Target) bool { return hasTags(filters, o.Tags) }, nil)
	}
	return slices.SortedFunc(maps.Values(chosen), func(a, b *graph.Target) int { return a.Label.Compare(b.Label) })
}

// hasTags tells whether tags hold one of filters, if any does not begin with a dash, and none of those that do.
func hasTags(filters, tags []string) bool {
	any, asked := false, false
	for _, f := range filters {
		not, negative := strings.CutPrefix(f, "-")
		if negative && slices.Contains(tags, not) {
			return false
		}
		asked = asked || !negative
		any = any || !negative && slices.Contains(tags, strings.TrimPrefix(f, "+"))
	}
	return any || !asked
}

// inSuite tells whether a suite's own tags choose a test of it: it has all of them but those that begin with a dash.
func inSuite(suite, tags []string) bool {
	for _, f := range suite {
		not, negative := strings.CutPrefix(f, "-")
		if f != "manual" && slices.Contains(tags, strings.TrimPrefix(not, "+")) == negative {
			return false
		}
	}
	return true
}

// A testStatus is what became of a test.
type testStatus string

const (
	testPassed   testStatus = "passed"
	testFlaky    testStatus = "flaky" // it passed in the end
	testFailed   testStatus = "failed"
	testTimeout  testStatus = "timeout"
	testNoStatus testStatus = "no status" // something that it needs failed, or the command ended before
)

// testResult is one test in the form of --output=json. Its names stay.
type testResult struct {
	Label   string     `json:"label"`
	Status  testStatus `json:"status"`
	Cached  bool       `json:"cached"`
	Runs    int        `json:"runs"`    // that ended, now or before
	Failed  int        `json:"failed"`  // of these
	Seconds float64    `json:"seconds"` // of all of them

	target *graph.Target
	flaky  bool
	pos    string
	xml    []byte  // the JUnit file of a run that passed
	errs   []error // of runs that failed
}

// testReport is the form of --output=json.
type testReport struct {
	Tests  []*testResult `json:"tests"`
	Errors []string      `json:"errors,omitempty"` // of what tests need
}

// testRun is one run of a test: a copy of its target, of which the actions may have another timeout or key.
type testRun struct {
	of       *testResult
	target   *graph.Target
	attempts int
}

// newRuns makes the runs of a test. The first one has the key that the test has; each other one a key of its own, by a
// variable in its environment, so neither a record nor the engine knows it.
func newRuns(r *testResult, f testFlags, nonce int64) []*testRun {
	var runs []*testRun
	for i := range f.runs {
		t := *r.target
		t.Outputs = slices.Clone(t.Outputs)
		for j, n := range t.Outputs {
			do, ok := n.Do.(*action.Run)
			if !ok {
				continue // computed here, by content
			}
			run := *do
			run.Timeout = cmp.Or(f.timeout, run.Timeout)
			c := &action.Node{Label: n.Label, Name: n.Name, Pos: n.Pos, Do: &run}
			if i > 0 || f.noCache {
				run.Env = maps.Clone(run.Env)
				if run.Env == nil {
					run.Env = map[string]string{}
				}
				run.Env["MWBUILD_TEST_RUN"] = fmt.Sprintf("%d-%d", nonce, i+1)
			}
			if i > 0 {
				c.Name += "-" + strconv.Itoa(i+1)
			}
			t.Outputs[j] = c
		}
		runs = append(runs, &testRun{of: r, target: &t})
	}
	return runs
}

func (a *app) test(ctx context.Context, f testFlags, args []string) (err error) {
	o, patterns, err := a.openTargets(ctx, args)
	if err != nil {
		return err
	}
	if f.junit != "" {
		if err := o.checkDest(ctx, f.junit); err != nil {
			return err
		}
	}
	unlock, err := o.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	results, loadErrs, err := o.loadTests(ctx, patterns, f)
	if err != nil {
		return err
	}
	rep := testReport{Tests: results}
	for _, err := range loadErrs {
		rep.Errors = append(rep.Errors, err.Error())
	}
	b, closeBuilder, err := o.builder(f.jobs, f.keepGoing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBuilder()) }()
	if a.progress == "auto" && !isTerminal(a.std.err) {
		// All that steps print would hide what is wrong; on a terminal it only passes by.
		if b.Display, err = progress.New(a.std.err, "quiet"); err != nil {
			return err
		}
	}
	needs, err := runTests(ctx, b, results, f)
	// The display ends before anything else is said.
	if cerr := b.Display.Close(); err == nil {
		err = cerr
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	o.report(needs)
	for _, err := range needs {
		rep.Errors = append(rep.Errors, err.Error())
	}
	if err := o.showTests(results, f); err != nil {
		return err
	}
	if f.junit != "" {
		if err := o.writeJUnit(f.junit, results); err != nil {
			return err
		}
	}
	if f.output == "json" {
		err = a.printJSON(rep)
	} else {
		err = a.printTests(results)
	}
	failed := 0
	for _, r := range results {
		if r.Failed > 0 && r.Status != testFlaky {
			failed++
		}
	}
	switch {
	case err != nil:
	case len(rep.Errors) > 0:
		err = errReported
	case failed > 0:
		err = errTests
	case len(results) == 0:
		a.note("no test matches; those tagged manual must be named, or be in a test_suite")
		err = errNothing
	}
	if len(results) > 0 {
		a.noteTests(results)
	}
	return err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// loadTests evaluates the packages that the patterns need, and returns the tests in them.
func (o *opened) loadTests(ctx context.Context, patterns []label.Pattern, f testFlags) ([]*testResult, []error, error) {
	loader, errs := o.loader()
	if len(errs) > 0 {
		return nil, nil, o.reported(errs)
	}
	loaded, errs := loader.Load(ctx, patterns)
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	o.report(errs)
	if len(errs) > 0 && (!f.keepGoing || len(loaded.Targets) == 0) {
		return nil, nil, errReported
	}
	if len(errs) == 0 {
		o.app.warnOfBuildArgs(loader)
	}
	declared := map[label.Label]load.Declared{}
	for _, d := range loader.Declared() {
		if d.True("flaky") {
			declared[d.Label()] = d
		}
	}
	results := []*testResult{}
	for _, t := range selectTests(loaded.Graph, loaded.Targets, f.tags) {
		_, flaky := declared[t.Label]
		results = append(results, &testResult{Label: t.Label.String(), target: t, flaky: flaky, pos: t.Pos})
	}
	return results, errs, nil
}

// runTests runs the tests and fills in what became of them. It returns what is wrong with what they need; the error is for what ends the command.
func runTests(ctx context.Context, b *build.Builder, results []*testResult, f testFlags) (needs []error, err error) {
	var runs []*testRun
	nonce := time.Now().UnixNano()
	for _, r := range results {
		runs = append(runs, newRuns(r, f, nonce)...)
		r.Cached = true
	}
	healed := false
	for len(runs) > 0 {
		targets := make([]*graph.Target, len(runs))
		for i, r := range runs {
			targets[i] = r.target
		}
		res, err := b.Build(ctx, targets)
		if err != nil {
			return nil, err
		}
		errs := byLabel(res.Errors)
		var again []*testRun
		own := map[string]bool{} // whose errors are the tests'
		for _, r := range runs {
			lab := r.of.Label
			failed, undone := r.look(ctx, b, res.Plan, slices.ContainsFunc(errs[lab], testFailure))
			own[lab] = own[lab] || failed
			switch {
			case failed:
				r.of.Failed++
				r.attempts++
				if r.of.flaky && r.attempts < testAttempts {
					again = append(again, r)
				} else {
					r.of.Status = testFailed
				}
			case undone && r.of.Status == "":
				r.of.Status = testNoStatus
			}
		}
		needs = nil
		for lab, es := range errs {
			if !own[lab] {
				needs = append(needs, es...)
			}
		}
		// A disk that lost bytes looks like a failure of whatever read them. Once they are gone they are made again.
		if len(needs) > 0 && !healed {
			healed = true
			if damaged, herr := b.Heal(ctx, res); herr == nil && len(damaged) > 0 {
				for _, r := range results {
					*r = testResult{Label: r.Label, target: r.target, flaky: r.flaky, pos: r.pos, Cached: true}
				}
				continue
			}
		}
		for _, r := range results {
			if own[r.Label] {
				r.errs = errs[r.Label]
			}
		}
		runs = again
	}
	slices.SortFunc(needs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	for _, r := range results {
		switch {
		case r.Status == testFailed && slices.ContainsFunc(r.errs, func(err error) bool { return errors.Is(err, build.ErrTimeout) }):
			r.Status = testTimeout
		case r.Status != "":
		case r.Failed > 0:
			r.Status = testFlaky
		default:
			r.Status = testPassed
		}
		r.Cached = r.Cached && r.Status == testPassed
	}
	return needs, nil
}

// byLabel shares errors out to the targets that they are about.
func byLabel(errs []error) map[string][]error {
	m := map[string][]error{}
	for _, err := range errs {
		lab := ""
		if e := (*graph.Error)(nil); errors.As(err, &e) {
			lab = e.Label
		}
		m[lab] = append(m[lab], err)
	}
	return m
}

// testFailure tells whether err says of a test that it failed, and not that it could not be run: that the engine is gone, or the disk full.
func testFailure(err error) bool {
	return errors.As(err, new(*buildkit.StepError)) || errors.Is(err, build.ErrTimeout) || errors.As(err, new(*filecheck.Failure))
}

// look counts a run as it ended in p: it passed, or failed itself, or is undone because something else failed.
func (r *testRun) look(ctx context.Context, b *build.Builder, p *plan.Plan, wrong bool) (failed, undone bool) {
	cached, took := true, time.Duration(0)
	var records []*plan.Record
	for _, n := range r.target.Outputs {
		s := p.Step(n)
		switch {
		case s.Record != nil:
			cached = cached && s.State == plan.Hit
			took += s.Record.Took
			records = append(records, s.Record)
		case wrong && s.Manifest != nil:
			failed = true // all that it needs was there
		default:
			undone = true
		}
	}
	undone = undone && !failed
	if undone {
		return false, true
	}
	r.of.Runs++
	r.of.Cached = r.of.Cached && cached && !failed
	r.of.Seconds += took.Seconds()
	if !failed && r.of.xml == nil {
		r.of.xml = junitOf(ctx, b.Store, records)
	}
	return failed, false
}

// mostJUnit bounds what is read of a JUnit file.
const mostJUnit = 16 << 20

// junitOf is the JUnit file that a test wrote, or nil.
func junitOf(ctx context.Context, st *store.Store, records []*plan.Record) []byte {
	for _, rec := range records {
		for _, l := range rec.Layers {
			c, err := layer.Open(ctx, st.Content(), l.Descriptor)
			if err != nil {
				continue
			}
			defer c.Close()
			es, err := c.Entries(junitFile, junitFile)
			if err != nil || len(es) != 1 || es[0].Open == nil || es[0].Size > mostJUnit {
				continue
			}
			rd, err := es[0].Open()
			if err != nil {
				continue
			}
			data, err := io.ReadAll(rd)
			if rd.Close(); err == nil {
				return data
			}
		}
	}
	return nil
}

// junitFile is where a test may write one, below /out.
const junitFile = "test.xml"

// words are how statuses are shown.
var testWords = map[testStatus]string{
	testPassed: "PASSED", testFlaky: "FLAKY", testFailed: "FAILED", testTimeout: "TIMEOUT", testNoStatus: "NO STATUS",
}

// String is a test's line.
func (r *testResult) String() string {
	line := r.Label + " "
	if r.Cached {
		line += "(cached) "
	}
	line += testWords[r.Status]
	if r.Failed > 0 && r.Runs > 1 {
		line += fmt.Sprintf(", failed in %d of %s", r.Failed, plural(r.Runs, "run"))
	} else if r.Runs > 1 {
		line += fmt.Sprintf(" in %d runs", r.Runs)
	}
	if r.Status == testPassed {
		line += fmt.Sprintf(" in %.1fs", r.Seconds)
	}
	return line
}

func (a *app) printTests(results []*testResult) error {
	for _, r := range results {
		if _, err := fmt.Fprintln(a.std.out, r); err != nil {
			return err
		}
	}
	return nil
}

// noteTests is the last line.
func (a *app) noteTests(results []*testResult) {
	counts := map[testStatus]int{}
	cached := 0
	for _, r := range results {
		counts[r.Status]++
		if r.Cached {
			cached++
		}
	}
	var parts []string
	for _, s := range []testStatus{testPassed, testFlaky, testFailed, testTimeout, testNoStatus} {
		if n := counts[s]; n > 0 {
			part := fmt.Sprintf("%d %s", n, map[testStatus]string{testTimeout: "timed out", testNoStatus: "without status"}[s])
			if s != testTimeout && s != testNoStatus {
				part = fmt.Sprintf("%d %s", n, s)
			}
			if s == testPassed && cached > 0 {
				part += fmt.Sprintf(" (%d cached)", cached)
			}
			parts = append(parts, part)
		}
	}
	a.note("%s: %s", plural(len(results), "test"), strings.Join(parts, ", "))
}

// showTests shows logs.
func (o *opened) showTests(results []*testResult, f testFlags) error {
	if f.show == "summary" {
		return nil
	}
	for _, r := range results {
		if r.Status == testFailed || r.Status == testTimeout {
			for _, err := range r.errs {
				fmt.Fprintln(o.app.std.err, err)
			}
		}
		if f.show != "all" && r.Status != testTimeout || r.Status == testNoStatus {
			continue
		}
		log, err := o.testLog(r)
		if err != nil {
			return err
		}
		if f.show != "all" {
			log = tail(log, testLogTail)
		}
		if log != "" {
			fmt.Fprintf(o.app.std.err, "log of %s:\n%s", r.Label, log)
		}
	}
	return nil
}

// testLogTail is how many lines of the log of a test that had to be ended are shown.
const testLogTail = 40

// tail is the last n lines of s, of which the last one ends.
func tail(s string, n int) string {
	lines := strings.SplitAfter(strings.TrimRight(s, "\n")+"\n", "\n")
	if s == "" {
		return ""
	}
	return strings.Join(lines[max(0, len(lines)-1-n):], "")
}

// testLog is what the runs of a test printed when they ran last in this workspace.
func (o *opened) testLog(r *testResult) (string, error) {
	logs, err := o.records.Logs(r.Label)
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, l := range logs {
		if !slices.ContainsFunc(r.target.Outputs, func(n *action.Node) bool { return n.Name == l.Action || strings.HasPrefix(l.Action, n.Name+"-") }) {
			continue
		}
		data, err := os.ReadFile(l.Path)
		if err != nil {
			return "", err
		}
		all.WriteString(tail(string(data), len(data)+1))
	}
	return all.String(), nil
}
