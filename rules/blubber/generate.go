package blubber

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/moby/patternmatcher/ignorefile"
)

// A Rule is the text of one target, to be formatted.
type Rule struct{ Name, Text string }

// Generate returns rules of package pkg that make the images of variants, and those that they copy from, without the configuration.
// Each image has its variant's name. Bases are imports by their tags, which `mwbuild lock` resolves.
func (c *Config) Generate(pkg string, variants []string, opts Options) ([]Rule, error) {
	g := &generator{pkg: pkg, opts: opts, bases: map[string]string{}}
	done := map[string]bool{}
	for _, v := range variants {
		images, err := c.Plan(v, opts)
		if err != nil {
			return nil, err
		}
		for _, im := range images {
			if done[im.Variant] {
				continue
			}
			done[im.Variant] = true
			if err := g.image(im); err != nil {
				return nil, fmt.Errorf("%s: variant %s: %w", c.file, im.Variant, err)
			}
		}
	}
	return g.rules, nil
}

type generator struct {
	pkg   string
	opts  Options
	bases map[string]string // names by reference
	rules []Rule
}

var noName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// An attr is one line of a rule; those without a value are left out.
type attr struct{ name, value string }

func (g *generator) add(kind, name string, attrs ...attr) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s(\n    name = %s,\n", kind, strconv.Quote(name))
	for _, a := range attrs {
		if a.value != "" {
			fmt.Fprintf(&b, "    %s = %s,\n", a.name, a.value)
		}
	}
	b.WriteString(")\n")
	g.rules = append(g.rules, Rule{name, b.String()})
	return ":" + name
}

func text(s string) string {
	if s == "" {
		return ""
	}
	if strings.Contains(strings.TrimSuffix(s, "\n"), "\n") && !strings.Contains(s, `"""`) && !strings.HasSuffix(s, `"`) {
		return `"""` + strings.ReplaceAll(s, `\`, `\\`) + `"""`
	}
	return strconv.Quote(s)
}

func listText(all []string) string {
	if len(all) == 0 {
		return ""
	}
	quoted := make([]string, len(all))
	for i, s := range all {
		quoted[i] = text(s)
		if s == "" {
			quoted[i] = `""`
		}
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func dictText(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, strconv.Quote(k)+": "+strconv.Quote(m[k]))
	}
	return "{" + strings.Join(all, ", ") + "}"
}

// base is the label of an import.
func (g *generator) base(ref string) string {
	if name, ok := g.bases[ref]; ok {
		return name
	}
	repository, digest, pinned := strings.Cut(ref, "@")
	name := "base_" + strings.Trim(noName.ReplaceAllString(path.Base(repository), "_"), "_")
	if pinned {
		name = g.add("image_import", name, attr{"digest", text(digest)}, attr{"registry", text(repository)})
	} else {
		tagged := ref
		if !strings.Contains(path.Base(ref), ":") {
			tagged += ":latest"
		}
		name = g.add("image_import", name, attr{"ref", text(tagged)})
	}
	g.bases[ref] = name
	return name
}

func (g *generator) image(im Image) error {
	at, root := "", ""
	if im.Base != "" {
		at = g.base(im.Base)
		root = at
	}
	var layers []string
	for _, s := range im.Steps {
		name := im.Variant + "_" + strings.Trim(noName.ReplaceAllString(s.Name, "_"), "_")
		if s.Argv != nil {
			if len(layers) > 0 {
				at = g.add("image", "before_"+name, attr{"base", text(at)}, attr{"layers", listText(layers)}, attr{"user", text(im.User)})
				layers = nil
			}
			network := ""
			if s.Network {
				network = "True"
			}
			command := attr{"argv", listText(s.Argv)}
			if s.Argv[1] == "-euc" {
				command = attr{"cmd", text(s.Argv[2])}
			}
			at = g.add("image_run", name, attr{"base", text(at)}, attr{"caches", dictText(s.Caches)}, command, attr{"env", dictText(s.Env)}, attr{"network", network},
				attr{"run_as", text(s.User)}, attr{"user", text(im.User)}, attr{"workdir", text(s.Workdir)})
			continue
		}
		label, err := g.layer(s, name, root)
		if err != nil {
			return err
		}
		layers = append(layers, label)
	}
	g.add("image", im.Variant, attr{"base", text(at)}, attr{"entrypoint", listText(im.Entrypoint)}, attr{"env", dictText(im.Env)},
		attr{"labels", dictText(map[string]string{"blubber.variant": im.Variant})}, attr{"layers", listText(layers)}, attr{"user", text(im.User)}, attr{"workdir", text(im.Workdir)})
	return nil
}

// layer declares a layer of files; root is an image to rename one in.
func (g *generator) layer(s Step, name, root string) (string, error) {
	attrs := []attr{{"folder_owners", dictText(s.Folders)}, {"owner", text(s.Owner)}}
	switch {
	case s.From != "":
		tree := name + "/tree"
		from := g.add("genrule", name+"_of_"+s.From, attr{"cmd", text(s.Copy())}, attr{"image", text(":" + s.From)}, attr{"outs", listText([]string{tree})})
		attrs = append(attrs, attr{"prefix", text(strings.TrimPrefix(s.Prefix, "/"))}, attr{"srcs", listText([]string{from})}, attr{"strip_prefix", text(path.Join(g.pkg, tree))})
	case s.Renamed != "":
		if root == "" {
			return "", fmt.Errorf("%s becomes %s, for which a program is needed, and the variant has no base: give the file its name", s.Files[0], s.Renamed)
		}
		from := g.add("genrule", name+"_renamed", attr{"cmd", text(`mkdir -p "${OUT%/*}" && cp $SRCS "$OUT"`)}, attr{"image", text(root)},
			attr{"outs", listText([]string{name + "/" + path.Base(s.Renamed)})}, attr{"srcs", listText(s.Files)})
		attrs = append(attrs, attr{"prefix", text(cleanDir(path.Dir(s.Renamed)))}, attr{"srcs", listText([]string{from})}, attr{"strip_prefix", text(path.Join(g.pkg, name))})
	default:
		strip := ""
		if s.Strip != "" {
			strip = path.Join(g.pkg, s.Strip)
		}
		attrs = append(attrs, attr{"prefix", text(s.Prefix)}, attr{"srcs", g.srcs(s)}, attr{"strip_prefix", text(strip)})
	}
	slices.SortFunc(attrs, func(a, b attr) int { return strings.Compare(a.name, b.name) })
	return g.add("layer", name, attrs...), nil
}

// srcs are the files of a step: a glob where one gives the same, else their names.
func (g *generator) srcs(s Step) string {
	if !s.Folder {
		return listText(s.Files)
	}
	ignored, err := ignorefile.ReadAll(strings.NewReader(string(g.opts.Ignore)))
	if err != nil {
		return listText(s.Files)
	}
	pattern := path.Join(s.Strip, "**")
	var exclude []string
	for _, p := range ignored {
		exclude = append(exclude, p, p+"/**")
	}
	for _, p := range s.Exclude {
		exclude = append(exclude, path.Join(s.Strip, p), path.Join(s.Strip, p, "**"))
	}
	// What excludes nothing need not stand there.
	exclude = slices.DeleteFunc(exclude, func(x string) bool {
		return !slices.ContainsFunc(g.opts.Files, func(f string) bool { return matches(pattern, f) && matches(x, f) })
	})
	var found []string
	for _, f := range g.opts.Files {
		if matches(pattern, f) && !slices.ContainsFunc(exclude, func(x string) bool { return matches(x, f) }) {
			found = append(found, f)
		}
	}
	if !slices.Equal(found, s.Files) {
		return listText(s.Files)
	}
	if len(exclude) == 0 {
		return fmt.Sprintf("glob([%q])", pattern)
	}
	return fmt.Sprintf("glob([%q], exclude = %s)", pattern, listText(exclude))
}

func matches(pattern, file string) bool {
	ok, err := doublestar.Match(pattern, file)
	return ok && err == nil
}
