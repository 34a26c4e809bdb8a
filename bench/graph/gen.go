package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// editedFile is the file of a package that edits change.
const editedFile = "src/a.php"

// filesOf are the files of every package beside its BUILD file, package.json, or lines in build.ninja.
var filesOf = []string{
	"README.md", "i18n/en.json", editedFile, "src/b.php", "src/c.php", "src/d.php", "src/sub/e.php", "src/sub/f.php", "tests/a_test.php", "tests/b_test.php",
}

// generate writes the tree for a tool to dir, which must be empty or absent, and commits it to a new repository there.
func (m monorepo) generate(ctx context.Context, tool, dir string) error {
	if entries, err := os.ReadDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if len(entries) > 0 {
		return fmt.Errorf("%s is not empty: name a new folder", dir)
	}
	root, perPackage, err := m.files(tool)
	if err != nil {
		return err
	}
	for name, content := range root {
		if err := write(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for w := range errs {
		wg.Go(func() {
			for i := w; i < len(m.deps); i += len(errs) {
				if errs[w] = m.writePackage(filepath.Join(dir, folderOf(i)), i, perPackage); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return commitTree(ctx, dir)
}

func (m monorepo) writePackage(dir string, i int, perPackage func(i int) map[string]string) error {
	for _, name := range filesOf {
		if err := write(filepath.Join(dir, name), source(i, name, 0)); err != nil {
			return err
		}
	}
	for name, content := range perPackage(i) {
		if err := write(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return nil
}

// source is the content of a file of package i at its n-th edit.
func source(i int, name string, n int) string {
	if strings.HasSuffix(name, ".json") {
		return fmt.Sprintf("{\n\t\"p%04d-name\": \"Package %d\",\n\t\"p%04d-desc\": \"Edit %d\"\n}\n", i, i, i, n)
	}
	return fmt.Sprintf("<?php\n// %s of package %d, edit %d\nnamespace P%d;\n\nfunction f( int $x ): int {\n\treturn $x + %d;\n}\n", name, i, n, i, n)
}

func write(name, content string) error {
	err := os.WriteFile(name, []byte(content), 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		err = os.WriteFile(name, []byte(content), 0o644)
	}
	return err
}

// files are what a tool needs beside the sources, at the root and in package i.
func (m monorepo) files(tool string) (root map[string]string, perPackage func(i int) map[string]string, err error) {
	switch tool {
	case "mwbuild":
		root = map[string]string{"WORKSPACE": "workspace(name = \"synthetic\")\n", "tools/BUILD": "", "tools/defs.bzl": macro}
		return root, func(i int) map[string]string { return map[string]string{"BUILD": m.buildFile(i)} }, nil
	case "ninja":
		root = map[string]string{".gitignore": "/out/\n/.ninja_*\n", "build.ninja": m.ninjaFile()}
		return root, func(int) map[string]string { return nil }, nil
	case "turbo":
		return m.turboFiles()
	}
	return nil, nil, fmt.Errorf("no tree for %q: want mwbuild, ninja or turbo", tool)
}

// macro declares what the BUILD files that do not load it spell out.
const macro = `"""What a package is made of."""

def php_package(deps = []):
    filegroup(name = "src", srcs = glob(["src/**/*.php"]))
    mw_component(
        name = "lib",
        srcs = [":src"] + glob(["i18n/*.json"]),
        kind = "extension",
        path = package_name(),
        deps = [d + ":lib" for d in deps],
    )
    layer(name = "layer", srcs = [":lib", "README.md"], prefix = package_name())
    filegroup(name = "tests", srcs = glob(["tests/**/*_test.php"]))
`

// buildFile is the BUILD file of package i: every fourth one uses the macro.
func (m monorepo) buildFile(i int) string {
	var b strings.Builder
	list := func(indent, suffix string) {
		for _, d := range m.deps[i] {
			fmt.Fprintf(&b, "%s\"//%s%s\",\n", indent, folderOf(d), suffix)
		}
	}
	if i%4 == 0 {
		b.WriteString("load(\"//tools:defs.bzl\", \"php_package\")\n\npackage(default_visibility = [\"//visibility:public\"])\n\nphp_package(deps = [\n")
		list("    ", "")
		b.WriteString("])\n")
		return b.String()
	}
	b.WriteString("package(default_visibility = [\"//visibility:public\"])\n\n")
	b.WriteString("filegroup(\n    name = \"src\",\n    srcs = glob([\"src/**/*.php\"]),\n)\n\n")
	b.WriteString("mw_component(\n    name = \"lib\",\n    srcs = [\":src\"] + glob([\"i18n/*.json\"]),\n    kind = \"extension\",\n")
	fmt.Fprintf(&b, "    path = %q,\n    deps = [\n", folderOf(i))
	list("        ", ":lib")
	b.WriteString("    ],\n)\n\nlayer(\n    name = \"layer\",\n    srcs = [\n        \":lib\",\n        \"README.md\",\n    ],\n")
	fmt.Fprintf(&b, "    prefix = %q,\n)\n\n", folderOf(i))
	b.WriteString("filegroup(\n    name = \"tests\",\n    srcs = glob([\"tests/**/*_test.php\"]),\n)\n")
	return b.String()
}

// ninjaFile has one edge for each target, of its own files and of the outputs that it uses.
func (m monorepo) ninjaFile() string {
	var b strings.Builder
	b.WriteString("rule made\n  command = touch $out\n  description = $out\n")
	for i := range m.deps {
		p := folderOf(i)
		edge := func(target string, inputs ...string) {
			fmt.Fprintf(&b, "build out/%s/%s: made", p, target)
			for _, in := range inputs {
				b.WriteString(" " + in)
			}
		}
		own := func(folder string) (files []string) {
			for _, f := range filesOf {
				if strings.HasPrefix(f, folder) {
					files = append(files, p+"/"+f)
				}
			}
			return files
		}
		edge("src", own("src/")...)
		b.WriteByte('\n')
		edge("lib", append([]string{"out/" + p + "/src"}, own("i18n/")...)...)
		for _, d := range m.deps[i] {
			fmt.Fprintf(&b, " out/%s/lib", folderOf(d))
		}
		b.WriteByte('\n')
		edge("layer", "out/"+p+"/lib", p+"/README.md")
		b.WriteByte('\n')
		edge("tests", own("tests/")...)
		b.WriteByte('\n')
	}
	return b.String()
}

// turboScript is the build of every npm package.
const turboScript = "mkdir -p dist && touch dist/out"

// turboName is what package i is called as an npm package.
func turboName(i int) string { return fmt.Sprintf("@mono/p%04d", i) }

// turboFiles make a workspace of npm packages, with the lock file that npm itself would write.
func (m monorepo) turboFiles() (root map[string]string, perPackage func(i int) map[string]string, err error) {
	type object = map[string]any
	encode := func(v any) string {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if e.Encode(v) != nil {
			panic("a map of strings that is no JSON")
		}
		return b.String()
	}
	describe := func(i int) object {
		o := object{"name": turboName(i), "version": "1.0.0"}
		deps := object{}
		for _, d := range m.deps[i] {
			deps[turboName(d)] = "1.0.0"
		}
		if len(deps) > 0 {
			o["dependencies"] = deps
		}
		return o
	}
	locked := object{"": object{"name": "synthetic", "version": "1.0.0", "workspaces": []string{"g*/*"}}}
	for i := range m.deps {
		locked[folderOf(i)] = describe(i)
		locked["node_modules/"+turboName(i)] = object{"resolved": folderOf(i), "link": true}
	}
	root = map[string]string{
		".gitignore": "node_modules/\ndist/\n.turbo/\n",
		"package.json": encode(object{
			"name": "synthetic", "version": "1.0.0", "private": true, "packageManager": "npm@11.0.0", "workspaces": []string{"g*/*"},
		}),
		"package-lock.json": encode(object{"name": "synthetic", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": locked}),
		"turbo.json":        encode(object{"tasks": object{"build": object{"dependsOn": []string{"^build"}, "outputs": []string{"dist/**"}}}}),
	}
	return root, func(i int) map[string]string {
		o := describe(i)
		o["scripts"] = object{"build": turboScript}
		return map[string]string{"package.json": encode(o)}
	}, nil
}

// commitTree makes dir a repository of one packed commit, the same every time.
func commitTree(ctx context.Context, dir string) error {
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"}, {"config", "gc.auto", "0"}, {"config", "maintenance.auto", "false"}, {"add", "-A"},
		{"commit", "-q", "-m", "a synthetic monorepo"}, {"gc", "-q"},
	} {
		if _, err := git(ctx, dir, args...); err != nil {
			return err
		}
	}
	return nil
}

// git runs git in dir as a fixed author at a fixed time, without the user's own configuration.
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=bench", "GIT_AUTHOR_EMAIL=bench@example.org", "GIT_AUTHOR_DATE=2025-01-01T00:00:00Z",
		"GIT_COMMITTER_NAME=bench", "GIT_COMMITTER_EMAIL=bench@example.org", "GIT_COMMITTER_DATE=2025-01-01T00:00:00Z")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	return out, nil
}
