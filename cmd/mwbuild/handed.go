package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/mwbuild/mwbuild/internal/spell"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// handedFlags are what a command line hands in to steps.
type handedFlags struct{ secrets, ssh, buildArgs []string }

func (h *handedFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&h.secrets, "secret", nil, "value for steps that ask for it: id=`NAME`,src=FILE or id=NAME,env=VARIABLE")
	f.StringArrayVar(&h.ssh, "ssh", nil, "ssh agent for steps that ask for it: `NAME`, your own, or NAME=SOCKET or NAME=KEYFILE[,KEYFILE…]")
	f.StringArrayVar(&h.buildArgs, "build-arg", nil, "value of a build argument of steps, as `NAME=VALUE`")
}

func (h *handedFlags) none() bool { return len(h.secrets)+len(h.ssh)+len(h.buildArgs) == 0 }

// handed is what [handedFlags] hand in.
type handed struct {
	secrets   map[string][]byte
	ssh       map[string][]string
	buildArgs map[string]string
}

// maxSecret is the most that BuildKit takes, in bytes.
const maxSecret = 500 << 10

// read reads what the flags name. Files are relative to dir. Errors are of the command line.
func (h *handedFlags) read(dir string) (handed, error) {
	in := handed{secrets: map[string][]byte{}, ssh: map[string][]string{}, buildArgs: map[string]string{}}
	for _, s := range h.secrets {
		id, value, err := readSecret(dir, s)
		if err != nil {
			return in, usagef("--secret %s: %w", s, err)
		}
		in.secrets[id] = value
	}
	for _, s := range h.ssh {
		id, paths, _ := strings.Cut(s, "=")
		if id == "" {
			return in, usagef("--ssh %s: want a name, such as default, or default=SOCKET", s)
		}
		in.ssh[id] = nil
		for _, p := range strings.FieldsFunc(paths, func(r rune) bool { return r == ',' }) {
			if !filepath.IsAbs(p) {
				p = filepath.Join(dir, p)
			}
			if _, err := os.Stat(p); err != nil {
				return in, usagef("--ssh %s: %w", s, pathless(p, err))
			}
			in.ssh[id] = append(in.ssh[id], p)
		}
		if len(in.ssh[id]) == 0 && os.Getenv("SSH_AUTH_SOCK") == "" {
			return in, usagef("--ssh %s: no agent runs: SSH_AUTH_SOCK is not set\n    start one (eval $(ssh-agent); ssh-add), or name a key: --ssh %s=KEYFILE", s, id)
		}
	}
	for _, s := range h.buildArgs {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return in, usagef("--build-arg %s: want NAME=VALUE", s)
		}
		in.buildArgs[name] = value
	}
	return in, nil
}

// readSecret reads one --secret, in the form that docker build has.
func readSecret(dir, s string) (id string, value []byte, err error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return "", nil, errors.New("want id=NAME,src=FILE or id=NAME,env=VARIABLE")
	}
	var kind, src, env string
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		to := map[string]*string{"id": &id, "type": &kind, "src": &src, "source": &src, "env": &env}[k]
		if !ok || to == nil {
			return "", nil, fmt.Errorf("%q: want id=NAME,src=FILE or id=NAME,env=VARIABLE", f)
		}
		*to = v
	}
	if kind == "env" && env == "" {
		env, src = src, ""
	}
	switch {
	case id == "":
		return "", nil, errors.New("id is missing: want id=NAME,src=FILE or id=NAME,env=VARIABLE")
	case src != "" && env != "":
		return "", nil, errors.New("src and env are given: want one of them")
	case kind != "" && kind != "env" && kind != "file":
		return "", nil, fmt.Errorf("type=%s: want file or env", kind)
	case src == "" && env == "":
		env = id
	}
	if env != "" {
		v, ok := os.LookupEnv(env)
		if !ok {
			return "", nil, fmt.Errorf("the environment variable %s is not set", env)
		}
		value = []byte(v)
	} else {
		if !filepath.IsAbs(src) {
			src = filepath.Join(dir, src)
		}
		if value, err = os.ReadFile(src); err != nil {
			return "", nil, pathless(src, err)
		}
	}
	if len(value) > maxSecret {
		return "", nil, fmt.Errorf("%d bytes; a secret has at most %d", len(value), maxSecret)
	}
	return id, value, nil
}

// pathless is err, which is about path, in fewer words.
func pathless(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", path, pe.Err)
	}
	return err
}

// warnOfBuildArgs names build arguments that nothing asked for: they may be mistyped, or stand in .mwbuildrc for others.
func (a *app) warnOfBuildArgs(l *load.Loader) {
	unused, known := l.UnusedBuildArgs()
	for _, name := range unused {
		msg := fmt.Sprintf("--build-arg %s: none of the targets has such a build argument", name)
		switch near := spell.Nearest(name, known); {
		case near != "":
			msg += "; did you mean " + near + "?"
		case len(known) > 0:
			msg += "; they have " + strings.Join(known, ", ")
		}
		a.note("%s", msg)
	}
}
