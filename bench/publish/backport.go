package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A cost is what one change took until its digest was in the registry: medians.
type cost struct {
	Wall  float64 `json:"wall_s"`
	Bytes int64   `json:"uploaded_bytes"` // by which the registry's blobs grew
}

type costs map[string]cost // by change

// A change is a backport. The same is made to the tree and to what the peers copy from.
type change struct {
	name, file string
	edit       func(text string, i int) string
	compile    bool // MediaWiki has to compile languages
}

var changes = []change{
	{"cite", "extensions/Cite/src/Cite.php", appendLine, false},
	{"core", "includes/Setup.php", appendLine, false},
	{"de", "extensions/Cite/i18n/de.json", func(text string, i int) string {
		before, rest, _ := strings.Cut(text, "\"cite-desc\": \"")
		return before + fmt.Sprintf("\"cite-desc\": \"Neu %d %d", i, time.Now().UnixNano()) + rest[strings.Index(rest, "\","):]
	}, true},
}

func appendLine(text string, i int) string {
	return text + fmt.Sprintf("// backport %d %d\n", i, time.Now().UnixNano())
}

// A peer publishes what lies in the folder image as /srv/mediawiki.
type peer struct {
	name    string
	publish func(i int) error
}

func backport(args []string) (err error) {
	f, asJSON := newFlags("backport")
	runs := f.Int("runs", 3, "how often each change is made; the median counts")
	_ = f.Parse(args)
	s, err := newSite()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := s.publish("first"); err != nil {
		return err
	}
	p := &peers{site: s, image: filepath.Join(s.work, "image")}
	defer func() { err = errors.Join(p.unmount(), err) }()
	if err := p.prepare(); err != nil {
		return err
	}
	all := []peer{{"copy", p.copy}, {"copy_link", p.copyLink}, {"rsync", p.rsync}}
	for _, peer := range all { // the first time
		if err := peer.publish(0); err != nil {
			return err
		}
	}
	ours, theirs := costs{}, map[string]costs{"copy": {}, "copy_link": {}, "rsync": {}}
	for _, c := range changes {
		walls, bytes := map[string][]float64{}, map[string][]float64{}
		measure := func(who string, publish func() error) error {
			before, err := s.stored()
			if err != nil {
				return err
			}
			begun := time.Now()
			if err := publish(); err != nil {
				return err
			}
			walls[who] = append(walls[who], time.Since(begun).Seconds())
			after, err := s.stored()
			bytes[who] = append(bytes[who], float64(after-before))
			return err
		}
		for i := range *runs {
			edit := func(text string) string { return c.edit(text, i) }
			if err := s.edit(c.file, edit); err != nil {
				return err
			}
			if err := measure("mwbuild", func() error { _, err := s.publish("wmf"); return err }); err != nil {
				return err
			}
			for _, peer := range all {
				// Each begins with a tree that has the change and nothing compiled.
				if err := editFile(filepath.Join(p.image, c.file), edit); err != nil {
					return err
				}
				if err := measure(peer.name, func() error {
					if c.compile {
						if err := p.compile(); err != nil {
							return err
						}
					}
					return peer.publish(i)
				}); err != nil {
					return err
				}
			}
			log.Printf("%s %d of %d: mwbuild %.2f s, copy %.2f s, copy_link %.2f s, rsync %.2f s", c.name, i+1, *runs, walls["mwbuild"][i], walls["copy"][i], walls["copy_link"][i], walls["rsync"][i])
		}
		result := func(who string) cost { return cost{quantile(walls[who], 0.5), int64(quantile(bytes[who], 0.5))} }
		ours[c.name] = result("mwbuild")
		for _, peer := range all {
			theirs[peer.name][c.name] = result(peer.name)
		}
	}
	ratio := map[string]float64{}
	for _, c := range changes {
		for _, of := range theirs {
			if r := of[c.name].Wall / ours[c.name].Wall; ratio[c.name] == 0 || r < ratio[c.name] {
				ratio[c.name] = r
			}
		}
	}
	if *asJSON {
		return printJSON(map[string]any{"mwbuild": ours, "peers": theirs, "ratio": ratio})
	}
	fmt.Printf("%-28s %18s %18s %18s\n", fmt.Sprintf("seconds and kB, median of %d", *runs), "a line in Cite", "a line in core", "de.json of Cite")
	line := func(name string, c costs) {
		fmt.Printf("%-28s", name)
		for _, ch := range changes {
			fmt.Printf(" %7.2f %10d", c[ch.name].Wall, (c[ch.name].Bytes+999)/1000)
		}
		fmt.Println()
	}
	line("mwbuild publish", ours)
	line("one COPY", theirs["copy"])
	line("COPY --link for each", theirs["copy_link"])
	line("rsync and commit", theirs["rsync"])
	fmt.Printf("%-28s", "best of the three / mwbuild")
	for _, ch := range changes {
		fmt.Printf(" %7.1f %10s", ratio[ch.name], "")
	}
	fmt.Println()
	return nil
}

type peers struct {
	*site
	image   string // what they copy
	socket  string // BuildKit's
	mounted bool
	last    string // the reference that rsync's next image stands on
}

// prepare lays the files of the image as they would lie on a deployment host, with languages that MediaWiki compiled, and starts BuildKit.
func (p *peers) prepare() error {
	out := filepath.Join(p.work, "out")
	if _, err := p.exec(p.tree, p.mwbuild, p.flags("//:wiki", "-o", "type=dir,dest="+out)...); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(out, "srv/mediawiki"), p.image); err != nil {
		return err
	}
	if err := p.compile("--force"); err != nil {
		return err
	}
	p.socket = filepath.Join(p.work, "buildkit.sock")
	config := filepath.Join(p.work, "buildkitd.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "[registry.%q]\n  http = true\n", p.registry), 0o644); err != nil {
		return err
	}
	if err := p.serve("unix", p.socket, filepath.Join(p.bin, "buildkitd"), "--config", config, "--root", filepath.Join(p.work, "buildkit"), "--addr", "unix://"+p.socket, "--oci-worker-snapshotter", "overlayfs"); err != nil {
		return err
	}
	one := "FROM scratch\nCOPY . /srv/mediawiki/\n"
	link := "FROM scratch\nCOPY --link --exclude=extensions --exclude=skins --exclude=vendor --exclude=cache . /srv/mediawiki/\nCOPY --link cache /srv/mediawiki/cache\n"
	components, err := filepath.Glob(filepath.Join(p.image, "*", "*"))
	if err != nil {
		return err
	}
	for _, c := range append(components, filepath.Join(p.image, "vendor")) {
		name, _ := filepath.Rel(p.image, c)
		if fi, err := os.Stat(c); err != nil || !fi.IsDir() || name != "vendor" && !strings.HasPrefix(name, "extensions/") && !strings.HasPrefix(name, "skins/") {
			continue
		}
		link += fmt.Sprintf("COPY --link %s /srv/mediawiki/%[1]s\n", name)
	}
	for name, text := range map[string]string{"copy": one, "copy_link": link} {
		dir := filepath.Join(p.work, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// The last image of rsync is the whole tree, unpacked, and the same in the registry.
	lower := filepath.Join(p.work, "rsync", "lower", "srv")
	for _, dir := range []string{lower, filepath.Join(p.work, "rsync", "merged")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if _, err := p.exec("", "cp", "-a", p.image, filepath.Join(lower, "mediawiki")); err != nil {
		return err
	}
	p.last = p.registry + "/rsync:base"
	if _, err := p.exec(filepath.Join(p.work, "rsync"), "tar", "-czf", "base.tgz", "-C", "lower", "srv"); err != nil {
		return err
	}
	_, err = p.exec("", filepath.Join(p.bin, "crane"), "append", "--insecure", "--oci-empty-base", "-f", filepath.Join(p.work, "rsync", "base.tgz"), "-t", p.last)
	return err
}

// compile is what a deployment does about languages: MediaWiki's own compiler, which looks for what is stale.
func (p *peers) compile(flags ...string) error {
	settings, err := filepath.Abs("bench/l10n/settings.php")
	if err != nil {
		return err
	}
	store := filepath.Join(p.image, "cache", "l10n")
	if err := os.MkdirAll(store, 0o755); err != nil {
		return err
	}
	args := append([]string{"STORE=LCStoreCDB", "OUT=" + store, "php", "-d", "memory_limit=2G", filepath.Join(p.image, "maintenance", "rebuildLocalisationCache.php"), "--conf", settings, "--threads", "2"}, flags...)
	_, err = p.exec("", "env", args...)
	return err
}

func (p *peers) buildctl(name string) error {
	_, err := p.exec("", filepath.Join(p.bin, "buildctl"), "--addr", "unix://"+p.socket, "build", "--frontend", "dockerfile.v0", "--local", "context="+p.image,
		"--local", "dockerfile="+filepath.Join(p.work, name), "--output", fmt.Sprintf("type=image,name=%s/%s:wmf,push=true,compression=zstd,oci-mediatypes=true", p.registry, name))
	return err
}

func (p *peers) copy(int) error     { return p.buildctl("copy") }
func (p *peers) copyLink(int) error { return p.buildctl("copy_link") }

// rsync writes into an overlay of the last image, and makes a layer of what that changed, as committing a container does.
func (p *peers) rsync(i int) error {
	dir := filepath.Join(p.work, "rsync")
	for _, d := range []string{"upper", "workdir"} {
		if err := errors.Join(os.RemoveAll(filepath.Join(dir, d)), os.Mkdir(filepath.Join(dir, d), 0o755)); err != nil {
			return err
		}
	}
	merged := filepath.Join(dir, "merged")
	if _, err := p.exec(dir, "mount", "-t", "overlay", "overlay", "-o", "lowerdir=lower,upperdir=upper,workdir=workdir", merged); err != nil {
		return err
	}
	p.mounted = true
	if _, err := p.exec("", "rsync", "-a", "--delete", p.image+"/", filepath.Join(merged, "srv", "mediawiki")+"/"); err != nil {
		return err
	}
	if err := p.unmount(); err != nil {
		return err
	}
	if _, err := p.exec(dir, "tar", "-czf", "layer.tgz", "-C", "upper", "."); err != nil {
		return err
	}
	_, err := p.exec("", filepath.Join(p.bin, "crane"), "append", "--insecure", "-b", p.last, "-f", filepath.Join(dir, "layer.tgz"), "-t", p.registry+"/rsync:wmf")
	return err
}

func (p *peers) unmount() error {
	if !p.mounted {
		return nil
	}
	p.mounted = false
	_, err := p.exec("", "umount", filepath.Join(p.work, "rsync", "merged"))
	return err
}
