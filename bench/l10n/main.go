//go:build ignore

// The program behind bench/l10n/run: it compiles all languages of a real tree with MediaWiki and with mwbuild, in turn, and
// prints medians of CPU seconds (user and system, of all processes) and their ratios.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A measure is one line of the result.
type measure struct {
	What      string  `json:"what"`
	MediaWiki float64 `json:"mediawiki_cpu_s,omitempty"`
	Mwbuild   float64 `json:"mwbuild_cpu_s"`
	Ratio     float64 `json:"ratio,omitempty"`
	Memory    int64   `json:"mwbuild_max_rss_mb"`
}

type bench struct {
	work, tree, mwbuild string
	runs                int
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench/l10n: ")
	asJSON := flag.Bool("json", false, "print one JSON object")
	runs := flag.Int("runs", 3, "how often each is measured; the median counts")
	tree := flag.String("tree", "", "a MediaWiki tree as examples/mediawiki/lay makes it; one is laid without it. It is changed and not changed back")
	flag.Parse()
	if err := run(*asJSON, *runs, *tree); err != nil {
		log.Fatal(err)
	}
}

func run(asJSON bool, runs int, tree string) error {
	work, err := os.MkdirTemp("", "bench-l10n-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &bench{work: work, tree: tree, mwbuild: filepath.Join(work, "mwbuild"), runs: runs}
	if _, err := b.exec(nil, "go", "build", "-buildvcs=false", "-o", b.mwbuild, "./cmd/mwbuild"); err != nil {
		return err
	}
	if b.tree == "" {
		b.tree = filepath.Join(work, "tree")
		if _, err := b.exec([]string{"MWBUILD=" + b.mwbuild}, "examples/mediawiki/lay", b.tree); err != nil {
			return err
		}
	}
	var all []measure
	add := func(m measure) {
		if m.MediaWiki > 0 {
			m.Ratio = m.MediaWiki / m.Mwbuild
		}
		all = append(all, m)
		if !asJSON {
			if len(all) == 1 {
				fmt.Printf("%-58s %10s %9s %7s %8s\n", fmt.Sprintf("CPU seconds, median of %d", runs), "MediaWiki", "mwbuild", "ratio", "max RSS")
			}
			theirs, ratio := "", ""
			if m.MediaWiki > 0 {
				theirs, ratio = fmt.Sprintf("%.2f", m.MediaWiki), fmt.Sprintf("%.1fx", m.Ratio)
			}
			fmt.Printf("%-58s %10s %9.2f %7s %5d MB\n", m.What, theirs, m.Mwbuild, ratio, m.Memory)
		}
	}
	nothing, err := b.noop()
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, target, store string }{
		{"StaticArray", "//:l10n_php", "LCStoreStaticArray"}, {"CDB", "//:l10n", "LCStoreCDB"},
	} {
		theirs, err := b.median(func(i int) (usage, error) { return b.mediawiki(f.store) })
		if err != nil {
			return err
		}
		files, err := b.median(func(i int) (usage, error) {
			return b.cold(f.target, "-o", "type=dir,dest="+b.path(fmt.Sprintf("out-%s-%d", f.name, i)))
		})
		if err != nil {
			return err
		}
		add(measure{What: f.name + ": compile and write all languages", MediaWiki: theirs.cpu, Mwbuild: files.cpu, Memory: files.rss})
		packed, err := b.median(func(int) (usage, error) { return b.cold(f.target) })
		if err != nil {
			return err
		}
		add(measure{What: f.name + ": compile, digest and pack into layers", MediaWiki: theirs.cpu, Mwbuild: packed.cpu, Memory: packed.rss})
	}
	add(nothing)
	edits, err := b.edits()
	if err != nil {
		return err
	}
	for _, m := range edits {
		add(m)
	}
	if asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Runs     int       `json:"runs"`
			Measures []measure `json:"measures"`
		}{runs, all})
	}
	return nil
}

func (b *bench) path(name string) string { return filepath.Join(b.work, name) }

// A usage is what a process and its children took.
type usage struct {
	cpu float64 // seconds
	rss int64   // MB, of the largest
}

func (b *bench) exec(env []string, name string, args ...string) (usage, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return usage{}, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out.Bytes())
	}
	r := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return usage{(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), r.Maxrss >> 10}, nil
}

func (b *bench) median(f func(i int) (usage, error)) (usage, error) {
	var all []usage
	for i := range b.runs {
		u, err := f(i)
		if err != nil {
			return u, err
		}
		all = append(all, u)
	}
	slices.SortFunc(all, func(x, y usage) int {
		if x.cpu < y.cpu {
			return -1
		}
		return 1
	})
	return all[len(all)/2], nil
}

// mediawiki compiles everything into an empty folder.
func (b *bench) mediawiki(store string) (usage, error) {
	out := b.path("mediawiki")
	if err := os.RemoveAll(out); err != nil {
		return usage{}, err
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		return usage{}, err
	}
	settings, err := filepath.Abs("bench/l10n/settings.php")
	if err != nil {
		return usage{}, err
	}
	return b.exec([]string{"STORE=" + store, "OUT=" + out}, "php", filepath.Join(b.tree, "maintenance/run.php"), "rebuildLocalisationCache",
		"--conf="+settings, "--force", "--no-progress", "--no-database", "--skip-message-purge")
}

// cold builds with an empty cache.
func (b *bench) cold(args ...string) (usage, error) {
	cache := b.path("cold")
	if err := os.RemoveAll(cache); err != nil {
		return usage{}, err
	}
	return b.build(cache, args...)
}

func (b *bench) build(cache string, args ...string) (usage, error) {
	return b.exec(nil, b.mwbuild, append([]string{"-C", b.tree, "--cache-dir", cache, "--progress", "quiet"}, args...)...)
}

// noop measures a build that has nothing to do.
func (b *bench) noop() (measure, error) {
	cache := b.path("warm")
	if _, err := b.build(cache, "//:l10n"); err != nil {
		return measure{}, err
	}
	u, err := b.median(func(int) (usage, error) { return b.build(cache, "//:l10n") })
	return measure{What: "CDB: nothing changed", Mwbuild: u.cpu, Memory: u.rss}, err
}

// edits measures what follows from one changed message.
func (b *bench) edits() ([]measure, error) {
	var all []measure
	for _, e := range []struct{ what, file string }{
		{"CDB: one message in Cite's de.json", "extensions/Cite/i18n/de.json"},
		{"CDB: one message in Cite's en.json", "extensions/Cite/i18n/en.json"},
	} {
		file := filepath.Join(b.tree, e.file)
		src, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		u, err := b.median(func(i int) (usage, error) {
			edited := bytes.Replace(src, []byte("cite-desc\": \""), fmt.Appendf(nil, "cite-desc\": \"%d ", i), 1)
			if bytes.Equal(edited, src) {
				return usage{}, fmt.Errorf("%s has no cite-desc to change", e.file)
			}
			if err := os.WriteFile(file, edited, 0o644); err != nil {
				return usage{}, err
			}
			return b.build(b.path("warm"), "//:l10n")
		})
		if err := os.WriteFile(file, src, 0o644); err != nil {
			return nil, err
		}
		if err != nil {
			return nil, err
		}
		if _, err := b.build(b.path("warm"), "//:l10n"); err != nil {
			return nil, err
		}
		all = append(all, measure{What: e.what, Mwbuild: u.cpu, Memory: u.rss})
	}
	return all, nil
}
