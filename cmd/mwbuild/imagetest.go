package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mwbuild/mwbuild/graph/action"
	"github.com/mwbuild/mwbuild/internal/imagetest"
)

// specVariable holds the spec of an image_test, as JSON.
const specVariable = "MWBUILD_IMAGE_TEST"

// imageTestCommand is the process of an image_test, in the image. rules/testing.star has it run; nobody else should.
func (a *app) imageTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "image-test",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var spec imagetest.Spec
			if err := json.Unmarshal([]byte(os.Getenv(specVariable)), &spec); err != nil {
				return usagef("image-test: %s: %w", specVariable, err)
			}
			env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
				return strings.HasPrefix(kv, specVariable+"=") || strings.HasPrefix(kv, "LD_LIBRARY_PATH=")
			})
			wrong, err := imagetest.Run(cmd.Context(), spec, env, a.std.out)
			if err != nil {
				return err
			}
			for _, w := range wrong {
				fmt.Fprintf(a.std.out, "WRONG: %s\n", w)
			}
			if len(wrong) > 0 {
				return errReported
			}
			return nil
		},
	}
}

// runnerKind is the kind of the native action that makes the layer with this program in it. The number is the version of what imagetest.Run does: raise
// it, and that in rules/testing.star, when a test could end otherwise. The program itself is in no key, so a newer mwbuild runs no test again.
const runnerKind = "test runner 1"

// Where the layer is mounted, and in it the program, and the loader and libraries that it needs where it was not linked statically.
const (
	runnerDir    = "/.mwbuild"
	runnerName   = "mwbuild"
	runnerLoader = "ld.so"
	runnerLibs   = "lib"
)

// runnerLayer writes the layer. A program that needs libraries brings them along, since the image may have none, or others: its loader's path
// is replaced in it, and the step's LD_LIBRARY_PATH names the rest.
func runnerLayer(ctx context.Context, do *action.Native, _ func(string) (io.ReadCloser, error), w io.Writer) error {
	if here := runtime.GOOS + "/" + runtime.GOARCH; do.Params["platform"] != here {
		return fmt.Errorf("an image_test for %s cannot be run by mwbuild for %s: run it on such a machine", do.Params["platform"], here)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(exe)
	if err != nil {
		return err
	}
	loader, libs, err := libraries(ctx, exe, program)
	if err != nil {
		return fmt.Errorf("what %s is linked with cannot be found: %w\n    build it with CGO_ENABLED=0", exe, err)
	}
	t := tar.NewWriter(w)
	add := func(name string, data []byte) error {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(data)), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	}
	if loader != "" {
		data, err := os.ReadFile(loader)
		if err != nil {
			return err
		}
		if err := add(runnerLoader, data); err != nil {
			return err
		}
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: runnerLibs + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		for _, lib := range libs {
			if data, err = os.ReadFile(lib); err != nil {
				return err
			}
			if err := add(runnerLibs+"/"+filepath.Base(lib), data); err != nil {
				return err
			}
		}
	}
	if err := add(runnerName, program); err != nil {
		return err
	}
	return t.Close()
}

var loaderLine = regexp.MustCompile(`(?m)^\s*\S+ => (/\S+) \(`)

// libraries returns the loader of a program, "" if it needs none, and the libraries that it loads, sorted. In program the loader's path becomes the one
// that it has in the layer.
func libraries(ctx context.Context, exe string, program []byte) (loader string, libs []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return "", nil, err
	}
	i := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if i < 0 {
		return "", nil, nil
	}
	place := program[f.Progs[i].Off:][:f.Progs[i].Filesz]
	loader = strings.TrimRight(string(place), "\x00")
	if len(runnerDir+"/"+runnerLoader) >= len(place) {
		return "", nil, fmt.Errorf("its loader is %s, which is too short to be replaced", loader)
	}
	clear(place)
	copy(place, runnerDir+"/"+runnerLoader)
	out, err := exec.CommandContext(ctx, loader, "--list", exe).Output()
	if err != nil {
		return "", nil, fmt.Errorf("%s --list: %w", loader, err)
	}
	for _, m := range loaderLine.FindAllStringSubmatch(string(out), -1) {
		libs = append(libs, m[1])
	}
	slices.Sort(libs)
	return loader, slices.Compact(libs), nil
}
