package load

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.starlark.net/starlark"
)

// A Config is the configuration that is asked for: what the flags --config, --platform and --define say. The zero value is
// the default one.
type Config struct {
	Name     string   // of a configuration() of WORKSPACE, or ""
	Platform string   // os/arch, in place of that of the configuration or of image_defaults, or ""
	Define   []string // NAME=VALUE, in place of what the configuration says; of several for one name the last one counts
}

// A ConfigError is a [Config] that a workspace does not know: a mistake of the command line.
type ConfigError struct {
	Flag  string // as it was given: "--config=prdo"
	Msg   string
	Hints []string
}

func (e *ConfigError) Error() string {
	return strings.Join(append([]string{e.Flag + ": " + e.Msg}, e.Hints...), "\n    ")
}

var (
	configPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`) // names of configurations and of defines
	plainPattern  = regexp.MustCompile(`^[A-Za-z0-9_.:/+-]+$`)         // values that the name of a configuration shows unquoted
)

// A declaredConfig is one configuration() of WORKSPACE.
type declaredConfig struct {
	platform string // "" for that of image_defaults
	define   map[string]string
}

// A declaredDefine is one define() of WORKSPACE.
type declaredDefine struct {
	values []string // nil for anything
	def    string
}

// check returns an error unless the define may have that value.
func (d declaredDefine) check(name, value string) error {
	if d.values == nil || value == d.def || slices.Contains(d.values, value) {
		return nil
	}
	return fmt.Errorf("%s is %q, which is none of %s%s", name, value, strings.Join(d.values, ", "), didYouMean(value, d.values))
}

// configs is what WORKSPACE says of configurations, and the one in force.
type configs struct {
	declared map[string]declaredConfig
	defines  map[string]declaredDefine
	// facts are what the conditions of config_settings are held against: config, os, cpu, variant, and "define NAME" for
	// each that is declared.
	facts    map[string]string
	policies []policy // those of the file, and once a configuration is chosen those in force
	// loading is held while packages of config_settings are evaluated.
	loading sync.Mutex
}

func newConfigs() *configs {
	return &configs{declared: map[string]declaredConfig{}, defines: map[string]declaredDefine{}}
}

// declareConfig is configuration() of WORKSPACE.
func (c *configs) declareConfig(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) error {
	var name string
	var d declaredConfig
	var define *starlark.Dict
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &name, "platform?", (*noneOrString)(&d.platform), "define?", &define); err != nil {
		return err
	}
	if !configPattern.MatchString(name) {
		return fmt.Errorf("configuration %q: a name has letters, digits, and . _ - after the first of these", name)
	}
	if _, twice := c.declared[name]; twice {
		return fmt.Errorf("configuration %s stands twice; once is enough", name)
	}
	if d.platform != "" && !platformPattern.MatchString(d.platform) {
		return fmt.Errorf("configuration %s: platform %q: want os/arch, such as linux/amd64", name, d.platform)
	}
	values, err := stringDict("define", define)
	if err != nil {
		return fmt.Errorf("configuration %s: %w", name, err)
	}
	for _, n := range slices.Sorted(maps.Keys(values)) {
		if err := c.checkDefine(n, values[n]); err != nil {
			return fmt.Errorf("configuration %s: %w", name, err)
		}
	}
	d.define = values
	c.declared[name] = d
	return nil
}

// declareDefine is define() of WORKSPACE.
func (c *configs) declareDefine(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) error {
	var name string
	var values *starlark.List
	var d declaredDefine
	err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &name, "values?", &values, "default?", &d.def)
	if err != nil {
		return err
	}
	if !configPattern.MatchString(name) {
		return fmt.Errorf("define %q: a name has letters, digits, and . _ - after the first of these", name)
	}
	if _, twice := c.defines[name]; twice {
		return fmt.Errorf("define %s stands twice; once is enough", name)
	}
	if d.values, err = stringList(values); err != nil {
		return fmt.Errorf("define %s: values: %w", name, err)
	}
	if d.def != "" && d.values != nil && !slices.Contains(d.values, d.def) {
		return fmt.Errorf("define %s: default %q is none of %s", name, d.def, strings.Join(d.values, ", "))
	}
	c.defines[name] = d
	return nil
}

// checkDefine returns an error unless WORKSPACE declares that define, with that value.
func (c *configs) checkDefine(name, value string) error {
	d, ok := c.defines[name]
	if !ok {
		hint := "declare it in WORKSPACE, above what uses it: define(name = " + strconv.Quote(name) + ")"
		if near := didYouMean(name, slices.Collect(maps.Keys(c.defines))); near != "" {
			hint = strings.Trim(near, " ()")
		}
		return &hintedError{msg: fmt.Sprintf("define %s is not declared", name), hints: []string{hint}}
	}
	return d.check(name, value)
}

// names are those of the configurations that are declared.
func (c *configs) names() []string { return slices.Sorted(maps.Keys(c.declared)) }

// unknown says of a configuration's name that it is not declared.
func (c *configs) unknown(name string) *hintedError {
	e := &hintedError{msg: "WORKSPACE declares no configuration " + name}
	if names := c.names(); len(names) == 0 {
		e.hints = []string{fmt.Sprintf("declare it: configuration(name = %q)", name)}
	} else {
		e.hints = []string{hint(name, names, "it declares "+strings.Join(names, ", "))}
	}
	return e
}

// choose puts a configuration in force: it sets c.facts, and in w the platform, the name of the configuration and its defines.
func (c *configs) choose(w *Workspace, want Config) error {
	platform, own := w.Platform, declaredConfig{}
	var name []string
	if want.Name != "" {
		var ok bool
		if own, ok = c.declared[want.Name]; !ok {
			e := c.unknown(want.Name)
			return &ConfigError{Flag: "--config=" + want.Name, Msg: e.msg, Hints: e.hints}
		}
		if own.platform != "" {
			platform = own.platform
		}
		name = append(name, want.Name)
	}
	if p := want.Platform; p != "" {
		if !platformPattern.MatchString(p) {
			return &ConfigError{Flag: "--platform=" + p, Msg: "want os/arch, such as linux/amd64"}
		}
		if p != platform {
			name = append(name, "platform="+p)
		}
		platform = p
	}
	values := map[string]string{}
	for n, d := range c.defines {
		values[n] = d.def
	}
	maps.Copy(values, own.define)
	before := maps.Clone(values)
	for _, word := range want.Define {
		flag := "--define=" + word
		n, v, ok := strings.Cut(word, "=")
		if !ok {
			return &ConfigError{Flag: flag, Msg: "want --define=NAME=VALUE"}
		}
		if err := c.checkDefine(n, v); err != nil {
			e := &ConfigError{Flag: flag, Msg: err.Error()}
			if h, ok := err.(*hintedError); ok {
				e.Hints = h.hints
			}
			return e
		}
		values[n] = v
	}
	for _, n := range slices.Sorted(maps.Keys(values)) {
		if v := values[n]; v != before[n] {
			if !plainPattern.MatchString(v) {
				v = strconv.Quote(v)
			}
			name = append(name, "define "+n+"="+v)
		}
	}
	c.facts = platformFacts(platform)
	c.facts["config"] = want.Name
	for n, v := range values {
		c.facts["define "+n] = v
	}
	w.Platform, w.Config, w.Defines = platform, strings.Join(name, " "), nil
	maps.DeleteFunc(values, func(_, v string) bool { return v == "" })
	if len(values) > 0 {
		w.Defines = values
	}
	return nil
}

// platformFacts takes a platform apart: os, cpu and variant, which may be "".
func platformFacts(platform string) map[string]string {
	parts := append(strings.Split(platform, "/"), "")
	return map[string]string{"os": parts[0], "cpu": parts[1], "variant": parts[2]}
}

// platformOf puts them together again.
func platformOf(facts map[string]string) string {
	return strings.TrimSuffix(facts["os"]+"/"+facts["cpu"]+"/"+facts["variant"], "/")
}

// describe tells the configuration in force, for messages.
func (c *configs) describe() string {
	words := []string{"platform " + platformOf(c.facts)}
	if name := c.facts["config"]; name != "" {
		words = append([]string{"config " + name}, words...)
	}
	for _, n := range slices.Sorted(maps.Keys(c.defines)) {
		words = append(words, fmt.Sprintf("define %s=%s", n, c.facts["define "+n]))
	}
	return strings.Join(words, ", ")
}

// holds tells whether all conditions do in the configuration in force.
func (c *configs) holds(conditions map[string]string) bool {
	for k, v := range conditions {
		if c.facts[k] != v {
			return false
		}
	}
	return true
}

// settingKeys are what values of a config_setting may name.
var settingKeys = []string{"config", "cpu", "os", "platform"}

// configSetting is the rule config_setting. It has no actions: [choice] reads its attributes.
var configSetting = &rule{
	name: "config_setting", file: "@mwbuild//rules:config_setting",
	doc: "A condition for select(): it holds when the configuration has all of these values.",
	attrs: map[string]*attribute{
		"name": commonAttrs["name"], "visibility": commonAttrs["visibility"], "tags": commonAttrs["tags"],
		"values":        {kind: "string_dict", def: frozen(starlark.NewDict(0)), fixed: true, doc: "config, platform, os and cpu → what it must be."},
		"define_values": {kind: "string_dict", def: frozen(starlark.NewDict(0)), fixed: true, doc: "Names that WORKSPACE declares with define() → values."},
	},
	order: []string{"name", "values", "define_values", "visibility", "tags"},
	impl:  settingImplementation(),
	check: checkSetting,
}

func settingImplementation() *starlark.Function {
	globals, err := starlark.ExecFileOptions(fileOptions, &starlark.Thread{}, "@mwbuild//rules:config_setting", "def impl(ctx):\n    return []\n", nil)
	if err != nil {
		panic(err) // the text is constant
	}
	globals.Freeze()
	return globals["impl"].(*starlark.Function)
}

// checkSetting finds what is wrong with a config_setting that is otherwise sound, in which attribute.
func checkSetting(t *target) (attr string, err error) {
	c := t.pkg.loader.config
	values, defines := dictOf(t.attrs["values"]), dictOf(t.attrs["define_values"])
	if len(values)+len(defines) == 0 {
		return "", fmt.Errorf("config_setting needs values or define_values: without any it says nothing")
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch v := values[key]; key {
		case "config":
			if _, ok := c.declared[v]; !ok {
				return "values", c.unknown(v)
			}
		case "platform":
			if !platformPattern.MatchString(v) {
				return "values", fmt.Errorf("platform %q: want os/arch, such as linux/amd64; os or cpu alone are keys of their own", v)
			}
			for _, part := range []string{"os", "cpu"} {
				if _, both := values[part]; both {
					return "values", fmt.Errorf("platform holds %s already: leave one of them out", part)
				}
			}
		case "os", "cpu":
			if v == "" || strings.Contains(v, "/") {
				return "values", fmt.Errorf("%s %q: want one word, such as linux or arm64", key, v)
			}
		default:
			e := &hintedError{msg: fmt.Sprintf("values know no %s", key), hints: []string{hint(key, settingKeys, "they know "+strings.Join(settingKeys, ", "))}}
			if _, ok := c.defines[key]; ok {
				e.hints = []string{"what define() declares stands in define_values"}
			}
			return "values", e
		}
	}
	for _, name := range slices.Sorted(maps.Keys(defines)) {
		if err := c.checkDefine(name, defines[name]); err != nil {
			return "define_values", err
		}
	}
	return "", nil
}

// conditions are what a config_setting asks for, as facts: a platform is its os, cpu and variant, so that it counts as more
// specific than an os alone.
func (t *target) conditions() map[string]string {
	all := map[string]string{}
	for k, v := range dictOf(t.attrs["values"]) {
		if k == "platform" {
			maps.Copy(all, platformFacts(v))
		} else {
			all[k] = v
		}
	}
	for k, v := range dictOf(t.attrs["define_values"]) {
		all["define "+k] = v
	}
	return all
}

// refines tells whether a has all conditions of b and more.
func refines(a, b map[string]string) bool {
	if len(a) <= len(b) {
		return false
	}
	for k, v := range b {
		if w, ok := a[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// dictOf returns the strings of a dict that was checked when it was set.
func dictOf(v starlark.Value) map[string]string {
	d, _ := v.(*starlark.Dict)
	m, _ := stringDict("", d)
	return m
}

func stringDict(what string, d *starlark.Dict) (map[string]string, error) {
	if d == nil {
		return nil, nil
	}
	m := make(map[string]string, d.Len())
	for _, kv := range d.Items() {
		k, ok := starlark.AsString(kv[0])
		v, ok2 := starlark.AsString(kv[1])
		if !ok || !ok2 {
			return nil, fmt.Errorf("%s holds %s: %s, want strings", what, kv[0], kv[1])
		}
		m[k] = v
	}
	return m, nil
}

// noneOrString unpacks a string, or None as "".
type noneOrString string

// Unpack is starlark.Unpacker's.
func (s *noneOrString) Unpack(v starlark.Value) error {
	str, ok := starlark.AsString(v)
	if !ok && v != starlark.None {
		return fmt.Errorf("got %s, want a string or None", v.Type())
	}
	*s = noneOrString(str)
	return nil
}
