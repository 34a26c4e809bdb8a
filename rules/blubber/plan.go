package blubber

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// An Image is one variant, as steps on a base.
type Image struct {
	Variant    string
	Base       string // a reference, as the configuration has it; "" is scratch
	Steps      []Step
	User       string // uid:gid
	Env        map[string]string
	Workdir    string
	Entrypoint []string
}

// A Step makes one layer: of files, where Files are set, of files of another variant, where From is, and else of what a script changes.
type Step struct {
	Name string // unique in its image

	// What a program changes in the image so far.
	Argv    []string
	User    string // uid:gid that runs it
	Env     map[string]string
	Workdir string
	Network bool              // it may need one
	Caches  map[string]string // folders that outlive it, and their names

	// Files of the configuration's folder, which go to Prefix by their paths less Strip; or, where one is Renamed, to that path.
	Files         []string
	Strip, Prefix string
	Renamed       string
	// What the files are, for who writes them down: folders are all that is below them, but what matches Exclude.
	Folder  bool
	Exclude []string

	// A file or folder of another variant's image: Source goes to Prefix, and if that is a folder for certain, a file below it.
	From, Source string
	Into         bool

	Owner   string            // of the files
	Folders map[string]string // owners of folders of the image that hold them, where they differ
}

// Options is what a configuration leaves to who uses it.
type Options struct {
	Files     []string          // of the configuration's folder, relative to it
	Ignore    []byte            // .dockerignore, if there is one
	Arguments map[string]string // values in place of defaults
	BaseEnv   map[string]string // variables of the base that environments refer to
}

// Plan returns the images that variant name is made of: those that it copies from, and itself as the last.
func (c *Config) Plan(name string, opts Options) ([]Image, error) {
	p := &planner{config: c, opts: opts, images: map[string]*Image{}, variants: map[string]*variant{}}
	if err := p.ignore(); err != nil {
		return nil, err
	}
	if !c.Has(name) {
		return nil, &Error{c.file, fmt.Sprintf("there is no variant %s: there are %s", name, strings.Join(c.order, ", "))}
	}
	if err := p.variant(name, nil); err != nil {
		return nil, err
	}
	for _, k := range slices.Sorted(maps.Keys(opts.Arguments)) {
		if !slices.ContainsFunc(slices.Collect(maps.Values(p.variants)), func(v *variant) bool { _, ok := v.arguments[k]; return ok }) {
			return nil, fmt.Errorf("arguments: %s has no argument %s", c.file, k)
		}
	}
	images := make([]Image, len(p.order))
	for i, n := range p.order {
		images[i] = *p.images[n]
	}
	return images, nil
}

type planner struct {
	config   *Config
	opts     Options
	files    []string // without what is ignored
	images   map[string]*Image
	variants map[string]*variant
	order    []string
}

// ignore leaves out what .dockerignore names.
func (p *planner) ignore() error {
	p.files = slices.Clone(p.opts.Files)
	patterns, err := ignorefile.ReadAll(strings.NewReader(string(p.opts.Ignore)))
	if err == nil {
		p.files, err = without(p.files, "", patterns)
	}
	if err != nil {
		return &Error{".dockerignore", err.Error()}
	}
	return nil
}

// without returns the files that patterns, as of a .dockerignore file, do not match. They are relative to folder.
func without(files []string, folder string, patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return files, nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	var left []string
	for _, f := range files {
		ignored, err := m.MatchesOrParentMatches(relative(f, folder))
		if err != nil {
			return nil, err
		}
		if !ignored {
			left = append(left, f)
		}
	}
	return left, nil
}

// relative is a path less a folder above it.
func relative(file, folder string) string {
	if folder == "" {
		return file
	}
	return strings.TrimPrefix(file, folder+"/")
}

// below tells whether a file is a folder or in it; all are below "".
func below(file, folder string) bool {
	return folder == "" || file == folder || strings.HasPrefix(file, folder+"/")
}

func (p *planner) variant(name string, through []string) error {
	c := p.config
	if slices.Contains(through, name) {
		return &Error{c.variants[name].pos, fmt.Sprintf("variant %s copies from itself: %s", name, chain(through, name))}
	}
	if p.images[name] != nil {
		return nil
	}
	v, err := c.expand(name)
	if err != nil {
		return err
	}
	through = append(slices.Clone(through), name)
	needed := slices.Clone(v.copies)
	if v.base != "" {
		for _, b := range v.builders {
			needed = append(needed, b.requirements...)
		}
	}
	for _, a := range needed {
		if a.from == Local {
			continue
		}
		if err := p.variant(a.from, through); err != nil {
			return err
		}
		if p.variants[a.from].base == "" {
			return &Error{a.pos, fmt.Sprintf("from: variant %s has no base, and files are copied by a program of the image that they lie in: copy them from where it has them", a.from)}
		}
	}
	v.arguments = over(v.arguments, nil)
	for k := range v.arguments {
		if given, ok := p.opts.Arguments[k]; ok {
			v.arguments[k] = given
		}
	}
	b := &imageBuilder{p: p, v: v, image: &Image{Variant: name, Base: v.base, Entrypoint: v.entrypoint}}
	if err := b.build(); err != nil {
		return err
	}
	p.variants[name], p.images[name] = v, b.image
	p.order = append(p.order, name)
	return nil
}

type imageBuilder struct {
	p     *planner
	v     *variant
	image *Image
}

func (b *imageBuilder) build() error {
	v, im := b.v, b.image
	im.User = v.runs.String()
	if v.base == "" {
		// Nothing but copies has a meaning there.
		im.Env, im.Workdir = map[string]string{}, "/"
		return b.copies("/", "0:0")
	}
	env, expand, err := b.environment()
	if err != nil {
		return err
	}
	runs := v.runs
	if v.insecurely != nil && *v.insecurely {
		runs = v.lives
	}
	im.User = runs.String()
	im.Workdir = cmp.Or(v.runsIn, v.livesIn)
	if script := v.apt.script(); script != "" {
		env["DEBIAN_FRONTEND"] = "noninteractive"
		im.Steps = append(im.Steps, Step{Name: "apt", Argv: shell("-euc", script), User: "0:0", Env: map[string]string{"DEBIAN_FRONTEND": "noninteractive"}, Workdir: "/", Network: true})
	}
	im.Steps = append(im.Steps, Step{Name: "users", Argv: shell("-euc", v.users()), User: "0:0", Workdir: "/"})
	// What the image has as its environment later, the builders have too; but that they are who owns the application, and that caches of package managers
	// are not kept.
	building := over(env, map[string]string{"HOME": home(v.lives), "npm_config_cache": "/tmp/npm", "COMPOSER_CACHE_DIR": "/tmp/composer"})
	for i, builder := range v.builders {
		script := builder.commands()
		if script == "" {
			continue
		}
		name := fmt.Sprintf("%s %d", builder.kind, i+1)
		if err := b.artifacts(name, builder.requirements, v.livesIn, v.lives.String()); err != nil {
			return err
		}
		env := building
		if builder.kind == node && builder.env != "" {
			env = over(building, map[string]string{"NODE_ENV": builder.env})
		}
		caches := map[string]string{}
		for _, c := range builder.caches {
			dest := expand(c.destination)
			if !path.IsAbs(dest) {
				dest = path.Join(v.livesIn, dest)
			}
			caches[path.Clean(dest)] = "blubber_" + strings.Trim(noName.ReplaceAllString(cmp.Or(expand(c.id), path.Clean(dest)), "_"), "_")
		}
		im.Steps = append(im.Steps, Step{Name: name, Argv: shell("-c", script), User: v.lives.String(), Env: env, Caches: caches, Workdir: v.livesIn, Network: true})
	}
	if err := b.copies(v.livesIn, v.lives.String()); err != nil {
		return err
	}
	im.Env = over(env, map[string]string{"HOME": home(runs)})
	for _, builder := range v.builders {
		if builder.kind == node && (builder.env != "" || len(builder.requirements) > 0) {
			im.Env["NODE_ENV"] = builder.env
		}
	}
	return nil
}

func shell(flags, script string) []string { return []string{"/bin/sh", flags, script} }

func home(u user) string {
	if u.as == "root" {
		return "/root"
	}
	return "/home/" + u.as
}

// environment is what arguments and runs.environment set, with what they refer to in its place, and a function that does the same for other texts.
func (b *imageBuilder) environment() (env map[string]string, expand func(string) string, err error) {
	v := b.v
	set := over(v.arguments, v.environment)
	done := map[string]string{"HOME": home(v.lives)}
	var errs []error
	var value func(name string, through []string) string
	value = func(name string, through []string) string {
		raw, ok := set[name]
		if x, is := done[name]; is {
			return x
		}
		if base, is := b.p.opts.BaseEnv[name]; is && (!ok || slices.Contains(through, name)) {
			return base
		}
		if !ok || slices.Contains(through, name) {
			errs = append(errs, &Error{b.p.config.file, fmt.Sprintf(
				"runs.environment: %s refers to %s, and what that is in the base is not known here: give it in base_env of the target", through[0], name)})
			return ""
		}
		return os.Expand(raw, func(other string) string { return value(other, append(slices.Clone(through), name)) })
	}
	env = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		env[name] = value(name, nil)
		done[name] = env[name]
	}
	return env, func(s string) string { return os.Expand(s, func(name string) string { return done[name] }) }, errors.Join(errs...)
}

// copies are the files of the application.
func (b *imageBuilder) copies(workdir, owner string) error {
	var all []artifact
	for _, a := range b.v.copies {
		switch {
		case a.source == "" && a.from == Local:
			a.source, a.destination = ".", "."
			all = append(all, a)
		case a.source == "":
			for _, folder := range []string{b.v.livesIn, libDir} {
				a.source, a.destination = folder, folder
				all = append(all, a)
			}
		default:
			a.destination = cmp.Or(a.destination, a.source)
			all = append(all, a)
		}
	}
	return b.artifacts("copies", all, workdir, owner)
}

// artifacts are steps that put files to where a step or an image has them: one for those that move from one folder to one other, in their order.
func (b *imageBuilder) artifacts(name string, all []artifact, workdir, owner string) error {
	for i, a := range all {
		s := Step{Name: fmt.Sprintf("%s: file %d", name, i+1), Owner: owner}
		dest, into := destination(a, workdir)
		if err := b.place(&s, a, dest); err != nil {
			return err
		}
		if a.from != Local {
			s.From, s.Source, s.Into = a.from, a.source, into
			if !path.IsAbs(s.Source) {
				s.Source = path.Join(b.p.variants[a.from].livesIn, s.Source)
			}
			s.Source, s.Prefix = path.Clean(s.Source), dest
			b.image.Steps = append(b.image.Steps, s)
			continue
		}
		if err := b.local(&s, a, dest, into); err != nil {
			return err
		}
		if last := len(b.image.Steps) - 1; last >= 0 && mergeable(b.image.Steps[last], s) {
			b.image.Steps[last].Files = append(b.image.Steps[last].Files, s.Files...)
			continue
		}
		b.image.Steps = append(b.image.Steps, s)
	}
	return nil
}

// mergeable tells whether two steps move files alike.
func mergeable(a, b Step) bool {
	return len(a.Files) > 0 && len(b.Files) > 0 && a.Strip == b.Strip && a.Prefix == b.Prefix && a.Renamed == "" && b.Renamed == "" &&
		!a.Folder && !b.Folder && a.Owner == b.Owner && maps.Equal(a.Folders, b.Folders)
}

// destination is the absolute path that an artifact goes to, and whether that is a folder for certain, so that a file goes below it.
func destination(a artifact, workdir string) (dest string, folder bool) {
	isFolder := func(s string) bool { return path.Clean(s) == "." || strings.HasSuffix(s, "/") }
	dest = a.destination
	if dest == "" {
		if dest = a.source; !isFolder(a.source) && a.from == Local {
			dest = path.Dir(a.source) + "/"
		}
	}
	folder = isFolder(dest) || isFolder(a.source)
	if !path.IsAbs(dest) {
		dest = path.Join(workdir, dest)
	}
	return path.Clean(dest), folder
}

// place says whose the folders above a destination are: root's, but those of the application.
func (b *imageBuilder) place(s *Step, a artifact, dest string) error {
	if b.v.base == "" {
		return nil
	}
	switch first, _, _ := strings.Cut(strings.TrimPrefix(dest, "/"), "/"); first {
	case "bin", "sbin", "lib", "lib32", "lib64":
		return &Error{a.pos, fmt.Sprintf("destination: /%s is often a link to /usr/%s, which a folder would replace: want /usr%s", first, first, dest)}
	}
	s.Folders = map[string]string{}
	inside := false
	for _, own := range []string{b.v.livesIn, libDir} {
		inside = inside || below(dest, own)
	}
	// What a folder of the base is, it has to stay; so is what lies outside the application.
	for dir := path.Dir(dest); dir != "/"; dir = path.Dir(dir) {
		if !inside || !below(dir, b.v.livesIn) && !below(dir, libDir) {
			s.Folders[dir] = "0:0"
		}
	}
	return nil
}

// local finds the files of the configuration's folder that an artifact means.
func (b *imageBuilder) local(s *Step, a artifact, dest string, into bool) error {
	from := path.Clean(a.source)
	if from == "." {
		from = ""
	}
	rel := strings.TrimPrefix(dest, "/")
	missing := &Error{a.pos, fmt.Sprintf("source: there is no %s\n    it has to lie in the package of the target, and git and .dockerignore must not ignore it", a.source)}
	switch {
	case slices.Contains(b.p.files, from):
		s.Files = []string{from}
		if into {
			s.Strip, s.Prefix = cleanDir(path.Dir(from)), rel
		} else if path.Base(from) == path.Base(rel) {
			s.Strip, s.Prefix = cleanDir(path.Dir(from)), cleanDir(path.Dir(rel))
		} else {
			s.Renamed = rel
		}
		if into && len(s.Folders) > 0 && s.Folders[path.Dir(dest)] == "0:0" && !below(dest, b.v.livesIn) && !below(dest, libDir) {
			s.Folders[dest] = "0:0"
		}
	case strings.ContainsAny(from, "*?["):
		for _, f := range b.p.files {
			ok, err := doublestar.Match(from, f)
			if err != nil {
				return &Error{a.pos, fmt.Sprintf("source: %s: %v", a.source, err)}
			}
			if ok {
				s.Files = append(s.Files, f)
			}
		}
		s.Strip, s.Prefix = cleanDir(path.Dir(from)), rel
		if strings.ContainsAny(s.Strip, "*?[") {
			return &Error{a.pos, fmt.Sprintf("source: %s: a pattern is supported in the last part of a path", a.source)}
		}
	default:
		for _, f := range b.p.files {
			if below(f, from) {
				s.Files = append(s.Files, f)
			}
		}
		s.Strip, s.Prefix, s.Folder, s.Exclude = from, rel, true, a.exclude
	}
	var err error
	if s.Files, err = without(s.Files, from, a.exclude); err != nil {
		return &Error{a.pos, fmt.Sprintf("exclude: %v", err)}
	}
	if len(s.Files) == 0 {
		return missing
	}
	// The same folders below both come to the same.
	for s.Renamed == "" && !s.Folder && s.Strip != "" && s.Prefix != "" && path.Base(s.Strip) == path.Base(s.Prefix) {
		s.Strip, s.Prefix = cleanDir(path.Dir(s.Strip)), cleanDir(path.Dir(s.Prefix))
	}
	return nil
}

// cleanDir is a folder without "." for the one that everything is in.
func cleanDir(dir string) string {
	if dir == "." {
		return ""
	}
	return dir
}

// The files that packages are installed by, as Blubber names them.
const (
	sourcesFile = "/etc/apt/sources.list.d/99blubber.list"
	proxiesFile = "/etc/apt/apt.conf.d/99blubber-proxies"
	keyringDir  = "/etc/apt/keyrings"
)

// script installs packages, and leaves nothing of what differs from day to day but the packages.
func (a *apt) script() string {
	if len(a.packages) == 0 && len(a.sources) == 0 && len(a.proxies) == 0 {
		return ""
	}
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	write := func(file, text string) { add("printf '%%s' %s > %s", quote(text), file) }
	if len(a.proxies) > 0 {
		var b strings.Builder
		for _, x := range a.proxies {
			of, _ := url.Parse(cmp.Or(x.source, x.url))
			name := "Acquire::" + of.Scheme + "::Proxy"
			if x.source != "" {
				name += "::" + of.Host
			}
			fmt.Fprintf(&b, "%s %q;\n", name, x.url)
		}
		write(proxiesFile, b.String())
	}
	if len(a.sources) > 0 {
		var b strings.Builder
		for _, s := range a.sources {
			b.WriteString("deb ")
			if s.signedBy != "" {
				sum := sha256.Sum256([]byte(s.signedBy))
				key := keyringDir + "/" + hex.EncodeToString(sum[:]) + ".asc"
				add("mkdir -p %s", keyringDir)
				write(key, s.signedBy)
				b.WriteString("[signed-by=" + key + "] ")
			}
			b.WriteString(strings.Join(append([]string{s.url, s.distribution}, s.components...), " ") + "\n")
		}
		add("apt-get update")
		add("apt-get install -y ca-certificates")
		write(sourcesFile, b.String())
	}
	if len(a.packages) > 0 {
		add("apt-get update")
	}
	for _, release := range slices.Sorted(maps.Keys(a.packages)) {
		target := ""
		if release != defaultRelease {
			target = "-t " + release + " "
		}
		if len(a.packages[release]) > 0 {
			add("apt-get install -y %s%s", target, strings.Join(a.packages[release], " "))
		}
	}
	add("rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old")
	add("rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/lib/dpkg/*-old")
	if len(a.proxies) > 0 {
		add("rm -f %s", proxiesFile)
	}
	return strings.Join(lines, "\n")
}

// users makes the two users, where the base has none of their numbers, and the application's folders. It needs no more than a shell, grep, mkdir and chown, and
// writes no dates.
func (v *variant) users() string {
	lines := []string{
		`known() { ! [ -f "/etc/$1" ] || grep -q "^[^:]*:[^:]*:$2:" "/etc/$1"; }`,
		`append() { if [ -n "$(tail -c 1 "/etc/$1")" ]; then echo >> "/etc/$1"; fi; printf '%s\n' "$2" >> "/etc/$1"; }`,
		`user() {`,
		`  known group "$3" || append group "$1:x:$3:"`,
		`  if ! known passwd "$2"; then`,
		`    append passwd "$1:x:$2:$3::$4:/bin/sh"`,
		`    if [ -f /etc/shadow ]; then append shadow "$1:!:1::::::"; fi`,
		`    mkdir -p "$4"`,
		`    chown "$2:$3" "$4"`,
		`  fi`,
		`}`,
		`for f in passwd group; do if ! [ -f "/etc/$f" ]; then : > "/etc/$f"; fi; done`,
	}
	for _, u := range []user{v.lives, v.runs} {
		lines = append(lines, fmt.Sprintf("user %s %d %d %s", u.as, u.uid, u.gid, home(u)))
	}
	for _, dir := range []string{v.livesIn, libDir} {
		lines = append(lines, fmt.Sprintf("mkdir -p %s", quote(dir)), fmt.Sprintf("chown %s %s", v.lives, quote(dir)))
	}
	return strings.Join(lines, "\n")
}

// commands is what a builder runs; nothing is "".
func (b *builder) commands() string {
	is := func(flag *bool) bool { return flag != nil && *flag }
	switch b.kind {
	case node:
		if len(b.requirements) == 0 {
			return ""
		}
		install := "npm install"
		if is(b.useNpmCi) {
			install = "npm ci"
		}
		if b.env != "production" {
			return install
		}
		dedupe := "npm dedupe"
		if is(b.allowDedupe) {
			dedupe = `{ npm dedupe || echo "WARNING: npm dedupe failed, continuing anyways"; }`
		}
		return install + " --only=production && " + dedupe
	case php:
		if len(b.requirements) == 0 {
			return ""
		}
		if is(b.production) {
			return "composer install --no-scripts --no-dev"
		}
		return "composer install --no-scripts"
	}
	if b.script != "" {
		return b.script
	}
	if len(b.command) == 0 {
		return ""
	}
	// The first is a piece of shell as it is; the others are words, in which variables have their values.
	line := b.command[0]
	for _, arg := range b.command[1:] {
		line += ` "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`").Replace(arg) + `"`
	}
	return line
}

// quote is a word for a shell, of which nothing has a meaning.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
