package build

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mwbuild/mwbuild/build/buildkit"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/action"
)

// logTail is how many of the last lines of a failed step are shown.
const logTail = 40

// stepError is a failed step as people see it: where it was declared, what ran, how it ended, and the end of its log.
func stepError(n *action.Node, do *action.Run, err error) error {
	var step *buildkit.StepError
	if !errors.As(err, &step) {
		// The engine names the step too.
		return &graph.Error{Pos: n.Pos, Label: n.Label, Msg: strings.TrimPrefix(err.Error(), n.Label+": "), Err: err}
	}
	e := &graph.Error{Pos: n.Pos, Label: n.Label, Msg: "the command could not be run: " + step.Err.Error(), Err: err}
	if step.ExitCode >= 0 {
		e.Msg = fmt.Sprintf("the command failed with exit code %d", step.ExitCode)
	}
	e.Hints = append(e.Hints, "command: "+quote(do.Args))
	lines := strings.Split(strings.TrimRight(string(step.Log), "\n"), "\n")
	if len(lines) > logTail {
		lines = append([]string{fmt.Sprintf("… more before: mwbuild log %s", n.Label)}, lines[len(lines)-logTail:]...)
	}
	if len(step.Log) > 0 {
		e.Hints = append(e.Hints, "log:")
		for _, l := range lines {
			e.Hints = append(e.Hints, "  "+l)
		}
	} else {
		e.Hints = append(e.Hints, "it printed nothing")
	}
	return e
}

// quote shows a command as a shell would take it.
func quote(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		if a == "" || strings.ContainsAny(a, " \t\n'\"$&|;<>()*?[]#~`\\!{}") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted[i] = a
	}
	return strings.Join(quoted, " ")
}
