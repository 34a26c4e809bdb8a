package main

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mwbuild/mwbuild/build/container"
	"github.com/mwbuild/mwbuild/graph"
	"github.com/mwbuild/mwbuild/graph/label"
	"github.com/mwbuild/mwbuild/starlark/load"
)

// A wiki that mwbuild run started: what it is kept by between starts.

const (
	wikiData     = "/data"                     // its database, in the container
	wikiSettings = "/run/mwbuild/settings.php" // which LocalSettings.php requires: rules/mediawiki.star
	settingsEnv  = "MEDIAWIKI_SETTINGS"
	setupWiki    = "/etc/mwbuild/setup-wiki" // of a wiki_server_image: rules/debian.star
)

// wikiSecrets are what only this wiki has.
type wikiSecrets struct {
	SecretKey  string `json:"secret_key"`
	UpgradeKey string `json:"upgrade_key"`
	Password   string `json:"password"` // of the user Admin
}

// A runnableWiki is what mwbuild run starts of a wiki.
type runnableWiki struct {
	label  label.Label
	id     graph.ID // of the wiki, whose database it is
	root   string   // of MediaWiki, "" where the image says it
	script bool     // it ends by itself, and serves nothing
}

// wikiOf tells whether a target is a wiki, or a variant of one.
func wikiOf(t *graph.Target, decls []load.Declared) (w runnableWiki, ok bool) {
	w = runnableWiki{label: t.Label, id: t.ID}
	switch t.Kind {
	case "mw_debug_image", "mw_cli_image":
		w.script = t.Kind == "mw_cli_image"
		for _, e := range t.Deps {
			if e.Attr == "wiki" {
				w.id = e.To
			}
		}
	case "mw_image":
	default:
		return w, false
	}
	for _, d := range decls {
		if d.Label() == w.id.Label {
			root, _ := d.Attr("root")
			w.root, _ = root.(string)
			ok = d.True("load_components")
		}
	}
	return w, ok
}

// addWiki makes a container of a wiki that has its database, which no other server uses before unlock. A script runs beside one.
func (o *opened) addWiki(f runFlags, w runnableWiki, config ocispecs.Image, s *container.Spec, digest string) (unlock func(), err error) {
	if len(s.Ports) == 0 && !w.script {
		return nil, usagef("%s has no ports: its base is no web server, such as a wiki_server_image", w.label)
	}
	dir, err := o.wikiDir(w.id)
	if err != nil {
		return nil, err
	}
	if w.script {
		return o.addScript(f, w, dir, s)
	}
	// Two at once would write to one database.
	lock := flock.New(filepath.Join(dir, "lock"))
	if ok, err := lock.TryLock(); err != nil {
		return nil, err
	} else if !ok {
		return nil, fmt.Errorf("%s runs already: end that one first", w.id.Label)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	secrets, err := wikiSecretsIn(dir, f.fresh)
	if err != nil {
		return nil, err
	}
	address := "http://" + s.Ports[0].Host
	name := w.id.Label.Name
	if err := writeSettings(dir, name, address, secrets); err != nil {
		return nil, err
	}
	root := cmp.Or(w.root, config.Config.WorkingDir)
	server := &s.Processes[0]
	server.Env = append(server.Env, settingsEnv+"="+wikiSettings)
	setup := container.Process{
		Args: []string{"/bin/sh", setupWiki, root, wikiData, digest, name, address, secrets.Password},
		Env:  server.Env, Cwd: root, UID: server.UID, GID: server.GID, Quiet: true,
		Fails: "the wiki's database could not be set up or brought up to date; --fresh begins with a new one",
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "installed")); err != nil || f.fresh {
		setup.Says = "setting up the wiki's database …"
	}
	s.Processes = append([]container.Process{setup}, s.Processes...)
	s.Volumes = append(s.Volumes, wikiVolumes(dir, f.fresh)...)
	s.Ports[0].Says = fmt.Sprintf("%s/", address)
	o.app.note("user Admin, password %s", secrets.Password)
	return func() { lock.Close() }, nil
}

// wikiVolumes are what a wiki has of this machine.
func wikiVolumes(dir string, fresh bool) []container.Volume {
	return []container.Volume{
		{Source: filepath.Join(dir, "data"), Dest: wikiData, Owned: true, Fresh: fresh},
		{Source: filepath.Join(dir, "settings.php"), Dest: wikiSettings, ReadOnly: true},
	}
}

// addScript makes a container of a maintenance script, with the database of a wiki that has one. The wiki may run meanwhile.
func (o *opened) addScript(f runFlags, w runnableWiki, dir string, s *container.Spec) (unlock func(), err error) {
	if f.fresh {
		return nil, usagef("--fresh: %s has no database of its own: mwbuild run --fresh %s", w.label, w.id.Label)
	}
	if _, err := os.Stat(filepath.Join(dir, "settings.php")); err != nil {
		return nil, fmt.Errorf("%s has no database yet: start it once, with mwbuild run %[1]s", w.id.Label)
	}
	p := &s.Processes[0]
	p.Env = append(p.Env, settingsEnv+"="+wikiSettings)
	p.Stdin, p.ToStderr, s.Ports = true, false, nil
	s.Volumes = append(s.Volumes, wikiVolumes(dir, false)...)
	return func() {}, nil
}

// wikiDir is the folder of a wiki, below the user's data.
func (o *opened) wikiDir(id graph.ID) (string, error) {
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		data = filepath.Join(home, ".local", "share")
	}
	sum := sha256.Sum256([]byte(o.root + "\x00" + id.String()))
	dir := filepath.Join(data, "mwbuild", "wikis", path.Base(o.root)+"-"+id.Label.Name+"-"+hex.EncodeToString(sum[:4]))
	return dir, os.MkdirAll(dir, 0o711) // others are let through to the database, which belongs to the container's user
}

func wikiSecretsIn(dir string, fresh bool) (wikiSecrets, error) {
	var s wikiSecrets
	file := filepath.Join(dir, "secrets.json")
	text, err := os.ReadFile(file)
	if err == nil && !fresh {
		if err := json.Unmarshal(text, &s); err != nil {
			return s, fmt.Errorf("%s: %w\n    start with --fresh", file, err)
		}
		return s, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	s = wikiSecrets{SecretKey: random(32), UpgradeKey: random(8), Password: random(8)}
	if text, err = json.Marshal(s); err != nil {
		return s, err
	}
	return s, renameio.WriteFile(file, text, 0o600)
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// writeSettings writes what LocalSettings.php of the image requires: what is this wiki's own. Caches end with the container, since another image may
// have other messages.
func writeSettings(dir, name, address string, s wikiSecrets) error {
	php := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
	}
	text := "<?php\n// Written by mwbuild run.\n"
	for _, line := range [][2]string{
		{"Server", php(address)}, {"ScriptPath", "''"}, {"Sitename", php(cmp.Or(name, "wiki"))},
		{"DBtype", "'sqlite'"}, {"DBname", "'wiki'"}, {"SQLiteDataDir", "'/data/sqlite'"},
		{"SecretKey", php(s.SecretKey)}, {"UpgradeKey", php(s.UpgradeKey)},
		{"MainCacheType", "extension_loaded( 'apcu' ) ? CACHE_ACCEL : CACHE_NONE"}, {"MessageCacheType", "$wgMainCacheType"}, {"ParserCacheType", "$wgMainCacheType"},
		{"SessionCacheType", "CACHE_DB"}, {"CacheDirectory", "false"}, {"TmpDirectory", "'/tmp'"}, {"ShowExceptionDetails", "true"}, {"EnableUploads", "false"},
		{"UseFileCache", "false"}, {"PhpCli", "false"},
	} {
		text += fmt.Sprintf("$wg%s = %s;\n", line[0], line[1])
	}
	return renameio.WriteFile(filepath.Join(dir, "settings.php"), []byte(text), 0o644)
}
