// Package filecheck is a native action that makes nothing: it fails where files of a component are wrong. It is a test's.
package filecheck

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/rules/l10n/inspect"
	"github.com/mwbuild/mwbuild/rules/l10n/message"
)

// Kind is the kind of the native action. The number is its version: raise it, and that of rules/testing.star, when it finds something else in the same files.
const Kind = "check files 1"

// Roles of the action's files. All of them must be JSON that PHP reads; manifests name folders of messages.
const (
	jsonRole     = "json"
	manifestRole = "manifest"
)

// Parameters of the action.
const (
	dirsParam   = "message dirs" // further folders of messages, workspace paths, one a line
	checksParam = "checks"       // as of inspect.SelectChecks, one a line
	labelParam  = "component"    // whose files they are, for messages
)

// A Tree is where files are read.
type Tree interface {
	ReadDigested(path string) ([]byte, error) // what has the digest in the action's key, or an error
}

// Functions are the native actions of this package, by kind.
func Functions(tree Tree) map[string]func(context.Context, *action.Native) ([]action.Made, error) {
	return map[string]func(context.Context, *action.Native) ([]action.Made, error){
		Kind: func(ctx context.Context, do *action.Native) ([]action.Made, error) { return nil, Check(ctx, tree, do) },
	}
}

// Failure is an error that lists what is wrong with the files; there is at least one finding.
type Failure struct{ Findings []string }

// mostFindings is how many findings are shown.
const mostFindings = 50

func (f *Failure) Error() string {
	shown := f.Findings[:min(len(f.Findings), mostFindings)]
	text := fmt.Sprintf("%d things are wrong with its files", len(f.Findings))
	if len(f.Findings) == 1 {
		text = "one thing is wrong with its files"
	}
	text += "\n    " + strings.ReplaceAll(strings.Join(shown, "\n"), "\n", "\n    ")
	if n := len(f.Findings) - len(shown); n > 0 {
		text += fmt.Sprintf("\n    … and %d more", n)
	}
	return text
}

// Check does the action: every file must be JSON as PHP reads it, and in the folders of messages, those that manifests register
// and those of the parameter, [inspect.CheckFolders] must find nothing. What is wrong is a [*Failure], by file.
func Check(ctx context.Context, tree Tree, do *action.Native) error {
	on, err := inspect.SelectChecks(strings.Fields(do.Params[checksParam]))
	if err != nil {
		return err
	}
	delete(on, "invalid-file") // every file is read anyway
	files := given{tree, map[string]bool{}}
	for _, f := range do.Files {
		files.all[f.Path] = true
	}
	var dirs []string
	if p := do.Params[dirsParam]; p != "" {
		dirs = strings.Split(p, "\n")
	}
	failure := &Failure{}
	for _, f := range do.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := tree.ReadDigested(f.Path)
		if err != nil {
			return err
		}
		v, err := message.ReadValue(f.Path, data)
		if wrong := (*message.Error)(nil); errors.As(err, &wrong) {
			failure.Findings = append(failure.Findings, wrong.Error()+": PHP cannot read it as JSON")
			continue
		} else if err != nil {
			return err
		}
		if f.Role == manifestRole {
			dirs = append(dirs, inspect.MessageDirs(f.Path, v)...)
		}
	}
	folders := map[string]map[string]string{}
	for _, dir := range dirs {
		folders[dir] = map[string]string{}
	}
	for f := range files.all {
		if codes, ok := folders[path.Dir(f)]; ok && path.Ext(f) == ".json" {
			if code := strings.TrimSuffix(path.Base(f), ".json"); code != inspect.Documentation {
				codes[code] = f
			}
		}
	}
	found, err := inspect.CheckFolders(ctx, files, do.Params[labelParam], folders, on)
	if err != nil {
		return err
	}
	for _, f := range found {
		failure.Findings = append(failure.Findings, fmt.Sprintf("%s: %s [%s]\n  %s", f.Pos(), f.Msg, f.Check, f.Hint))
	}
	if len(failure.Findings) > 0 {
		return failure
	}
	return nil
}

// given is the files of an action.
type given struct {
	tree Tree
	all  map[string]bool
}

// Has tells whether the action has the file.
func (g given) Has(file string) bool { return g.all[file] }

// ReadFile reads it.
func (g given) ReadFile(file string) ([]byte, error) { return g.tree.ReadDigested(file) }
