package build

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mwbuild/mwbuild/graph/action"
)

// A StepLog is what the last execution of a step in this workspace printed.
type StepLog struct {
	Action string // its name
	Path   string
	Ended  time.Time
}

// Logs returns the logs of a target's steps, by name.
func (r *Records) Logs(label string) ([]StepLog, error) {
	dir := r.logDir(label)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var logs []StepLog
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			continue // another build is writing it anew
		}
		logs = append(logs, StepLog{Action: strings.TrimSuffix(e.Name(), ".log"), Path: filepath.Join(dir, e.Name()), Ended: fi.ModTime()})
	}
	slices.SortFunc(logs, func(a, b StepLog) int { return strings.Compare(a.Action, b.Action) })
	return logs, nil
}

func (r *Records) logDir(label string) string {
	return filepath.Join(r.Dir, "logs", fmt.Sprintf("%x", sha256.Sum256([]byte(r.Workspace+"\n"+label))))
}

// newLog begins the log of a step anew. A log that cannot be written costs nobody a build: then it is nil.
func (r *Records) newLog(n *action.Node) *os.File {
	dir := r.logDir(n.Label)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(dir, n.Name+".log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil
	}
	return f
}
