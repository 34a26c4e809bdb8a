package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/graph"
)

// LockFile is the file at the root of a workspace in which `mwbuild lock` writes what image references mean.
const LockFile = "mwbuild.lock"

// RootFiles are the files at the root of a workspace that every package sees.
var RootFiles = []string{"WORKSPACE", "WORKSPACE.star", LockFile, LayersLock}

// lockVersion is that of the form of a [LockFile].
const lockVersion = 1

// refPattern is REPOSITORY:TAG, as the distribution specification has it; the registry may have a port.
var refPattern = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*(:[0-9]+)?/)?[a-z0-9][a-z0-9._/-]*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// CheckRef tells whether ref is a repository and a tag.
func CheckRef(ref string) error {
	if refPattern.MatchString(ref) {
		return nil
	}
	return fmt.Errorf("ref: %q: want a repository and a tag, such as registry.example/php:8.2; what is known by its digest has attributes registry and digest", ref)
}

// ParseLock reads a [LockFile]: digests by reference.
func ParseLock(text []byte) (map[string]string, error) {
	var f struct {
		Version int               `json:"version"`
		Images  map[string]string `json:"images"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if f.Version != lockVersion {
		return nil, fmt.Errorf("it is of version %d, and this mwbuild reads %d", f.Version, lockVersion)
	}
	for _, ref := range slices.Sorted(maps.Keys(f.Images)) {
		if !refPattern.MatchString(ref) || !digestPattern.MatchString(f.Images[ref]) {
			return nil, fmt.Errorf("%q: %q: want a repository, a colon and a tag, and sha256: with 64 hexadecimal digits", ref, f.Images[ref])
		}
	}
	return f.Images, nil
}

// FormatLock writes a [LockFile], one image a line, sorted.
func FormatLock(images map[string]string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n \"version\": %d,\n \"images\": {", lockVersion)
	for i, ref := range slices.Sorted(maps.Keys(images)) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n  %q: %q", ref, images[ref])
	}
	b.WriteString("\n }\n}\n")
	return b.Bytes()
}

// readLock reads the tree's lock; there need not be one.
func readLock(tree Tree) (map[string]string, error) {
	if _, ok := tree.Lookup(LockFile); !ok {
		return nil, nil
	}
	text, err := tree.ReadFile(LockFile)
	var images map[string]string
	if err == nil {
		images, err = ParseLock(text)
	}
	if err != nil {
		return nil, &graph.Error{Pos: LockFile + ":1:1", Msg: err.Error(), Hints: []string{"mwbuild lock writes it anew; git may have left a conflict in it"}, Err: err}
	}
	return images, nil
}

// locked is the repository of a reference, and the digest that it is locked to.
func (l *Loader) locked(ref string) (repository, digest string, err error) {
	if err := CheckRef(ref); err != nil {
		return "", "", err
	}
	for _, p := range l.config.policies {
		if !p.refs {
			return "", "", fmt.Errorf("ref: %s is a tag, which may mean another image tomorrow: the %s refuses it\n    name the image by registry and digest", ref, p.where())
		}
	}
	repository = ref[:strings.LastIndex(ref, ":")]
	digest, ok := l.workspace.Locked[ref]
	if !ok {
		return "", "", fmt.Errorf("ref: %s is not in %s\n    mwbuild lock asks the registry for its digest, and writes it down", ref, LockFile)
	}
	return repository, digest, nil
}
