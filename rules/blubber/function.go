package blubber

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
)

// Files reads files of the package that a rule is called in.
type Files interface {
	Has(file string) bool
	Read(file string) ([]byte, error)
}

// Analyse tells a rule the images of args["variant"] of the configuration args["config"] of package pkg, the one that is wanted last.
// args["files"] are the paths of the files that it may copy, in the workspace.
func Analyse(_ context.Context, files Files, pkg string, args map[string]any) (any, error) {
	name, _ := args["config"].(string)
	variant, _ := args["variant"].(string)
	file := path.Join(pkg, name)
	if !files.Has(file) {
		return nil, fmt.Errorf("config: there is no %s\n    it has to lie in the package of the target, and git must not ignore it", file)
	}
	text, err := files.Read(file)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	c, errs := Parse(file, text)
	if len(errs) > 0 {
		return nil, fmt.Errorf("config: %w", joined(errs))
	}
	opts := Options{Arguments: texts(args["arguments"]), BaseEnv: texts(args["base_env"])}
	all, _ := args["files"].([]any)
	for _, f := range all {
		p, _ := f.(string)
		rel := strings.TrimPrefix(p, pkg+"/")
		if pkg == "" || rel != p {
			opts.Files = append(opts.Files, rel)
		}
	}
	if ignore := path.Join(pkg, ".dockerignore"); files.Has(ignore) {
		if opts.Ignore, err = files.Read(ignore); err != nil {
			return nil, err
		}
	}
	if !c.Has(variant) {
		return nil, fmt.Errorf("variant: %s has no %s: it has %s", file, variant, strings.Join(c.order, ", "))
	}
	images, err := c.Plan(variant, opts)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	out := make([]any, len(images))
	for i, im := range images {
		steps := make([]any, len(im.Steps))
		for j, s := range im.Steps {
			steps[j] = map[string]any{
				"name": s.Name, "argv": list(s.Argv), "user": s.User, "env": dict(s.Env), "workdir": s.Workdir, "network": s.Network, "caches": dict(s.Caches),
				"files": list(s.Files), "strip": s.Strip, "prefix": s.Prefix, "renamed": s.Renamed,
				"from": s.From, "script": s.Copy(), "owner": s.Owner, "folders": dict(s.Folders),
			}
		}
		out[i] = map[string]any{
			"variant": im.Variant, "base": im.Base, "steps": steps, "user": im.User, "env": dict(im.Env), "workdir": im.Workdir, "entrypoint": list(im.Entrypoint),
		}
	}
	return out, nil
}

// Copy is the script that copies what a step takes from another variant's image to $OUT, "" for other steps: a folder's content, or a file.
func (s *Step) Copy() string {
	if s.From == "" {
		return ""
	}
	from := quote(s.Source)
	file := `mkdir -p "${OUT%/*}" && cp ` + from + ` "$OUT"`
	if s.Into {
		file = `mkdir -p "$OUT" && cp ` + from + ` "$OUT/"`
	}
	return fmt.Sprintf(`if [ -d %s ]; then mkdir -p "$OUT" && cp -R %s "$OUT/"; else %s; fi`, from, quote(s.Source+"/."), file)
}

// joined is many errors as one, each in its line, at most twenty of them.
func joined(errs []error) error {
	const most = 20
	var lines []string
	for i, err := range errs {
		if i == most {
			lines = append(lines, fmt.Sprintf("… and %d more", len(errs)-most))
			break
		}
		lines = append(lines, err.Error())
	}
	return errors.New(strings.Join(lines, "\n    "))
}

func texts(v any) map[string]string {
	m, _ := v.(map[string]any)
	out := map[string]string{}
	for k, x := range m {
		out[k], _ = x.(string)
	}
	return out
}

func list(all []string) []any {
	out := make([]any, len(all))
	for i, s := range all {
		out[i] = s
	}
	return out
}

func dict(m map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	return out
}
