package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The kinds of commits, and how many of a hundred there are of each at Wikimedia.
const (
	translations = "translation"
	english      = "en.json"
	code         = "code"

	translationsPart = 0.3
	englishPart      = 0.025
)

// A replayed commit is what one publication took, and what the image is after it.
type replayed struct {
	Kind     string  `json:"kind"`
	Files    int     `json:"files"`
	Wall     float64 `json:"wall_s"`
	Uploaded int64   `json:"uploaded_bytes"` // by which the registry's blobs grew
	Executed int     `json:"actions_executed"`
	Targets  int     `json:"targets_affected"`
	Layers   int     `json:"layers"`
	Size     int64   `json:"image_bytes"`
}

type summary struct {
	Seed     uint64     `json:"seed"`
	P50      float64    `json:"p50_s"`
	P95      float64    `json:"p95_s"`
	P50Bytes int64      `json:"p50_uploaded_bytes"`
	P95Bytes int64      `json:"p95_uploaded_bytes"`
	Total    int64      `json:"uploaded_bytes"`
	Layers   float64    `json:"layers_max_by_min"`
	Size     float64    `json:"image_bytes_max_by_min"`
	Trend    float64    `json:"wall_last_third_by_first"` // medians
	Commits  []replayed `json:"commits"`
}

func replay(args []string) (err error) {
	f, asJSON := newFlags("replay")
	commits := f.Int("commits", 46, "how many commits are made: a day at Wikimedia has 46")
	seed := f.Uint64("seed", 1, "decides what they change")
	plot := f.String("plot", "", "an SVG file to be written")
	_ = f.Parse(args)
	s, err := newSite()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := s.publish("wmf"); err != nil {
		return err
	}
	d, err := newDay(s, *seed, *commits)
	if err != nil {
		return err
	}
	sum := summary{Seed: *seed}
	for i, kind := range d.kinds {
		r, err := d.replay(i, kind)
		if err != nil {
			return err
		}
		log.Printf("%d of %d: %-11s %.2f s, %d kB", i+1, *commits, kind, r.Wall, r.Uploaded/1000)
		sum.Commits = append(sum.Commits, r)
	}
	sum.finish()
	if *plot != "" {
		if err := os.WriteFile(*plot, drawReplay(sum), 0o644); err != nil {
			return err
		}
	}
	if *asJSON {
		return printJSON(sum)
	}
	sum.print()
	return nil
}

func (s *summary) finish() {
	var walls, bytes, layers, sizes []float64
	for _, r := range s.Commits {
		walls, bytes = append(walls, r.Wall), append(bytes, float64(r.Uploaded))
		layers, sizes = append(layers, float64(r.Layers)), append(sizes, float64(r.Size))
		s.Total += r.Uploaded
	}
	s.P50, s.P95 = quantile(walls, 0.5), quantile(walls, 0.95)
	s.P50Bytes, s.P95Bytes = int64(quantile(bytes, 0.5)), int64(quantile(bytes, 0.95))
	s.Layers, s.Size = slices.Max(layers)/slices.Min(layers), slices.Max(sizes)/slices.Min(sizes)
	third := max(1, len(walls)/3)
	s.Trend = quantile(walls[len(walls)-third:], 0.5) / quantile(walls[:third], 0.5)
}

func (s *summary) print() {
	fmt.Printf("%4s  %-11s %6s %8s %10s %8s %8s %7s %9s\n", "", "commit", "files", "seconds", "kB pushed", "actions", "targets", "layers", "image MB")
	for i, r := range s.Commits {
		fmt.Printf("%4d  %-11s %6d %8.2f %10d %8d %8d %7d %9.2f\n", i+1, r.Kind, r.Files, r.Wall, (r.Uploaded+999)/1000, r.Executed, r.Targets, r.Layers, float64(r.Size)/1e6)
	}
	fmt.Printf("p50 %.2f s, p95 %.2f s; p50 %d kB, p95 %d kB, %d kB in all\n", s.P50, s.P95, s.P50Bytes/1000, s.P95Bytes/1000, s.Total/1000)
	fmt.Printf("the most by the least: layers %.3f, image %.3f; the last third's time by the first's: %.2f\n", s.Layers, s.Size, s.Trend)
}

// A day is what commits are drawn from: the same for the same tree and seed.
type day struct {
	*site
	rand  *rand.Rand
	kinds []string
	files map[string][]string // by kind, sorted
	added []string            // by commits before
}

func newDay(s *site, seed uint64, commits int) (*day, error) {
	d := &day{site: s, rand: rand.New(rand.NewPCG(seed, 0)), files: map[string][]string{}}
	inEnglish := max(1, int(englishPart*float64(commits)+0.5))
	translated := int(translationsPart*float64(commits) + 0.5)
	for i := range commits {
		switch {
		case i < inEnglish:
			d.kinds = append(d.kinds, english)
		case i < inEnglish+translated:
			d.kinds = append(d.kinds, translations)
		default:
			d.kinds = append(d.kinds, code)
		}
	}
	d.rand.Shuffle(commits, func(i, j int) { d.kinds[i], d.kinds[j] = d.kinds[j], d.kinds[i] })
	err := filepath.WalkDir(s.tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			if err == nil && (e.Name() == ".git" || e.Name() == "tests" || e.Name() == "vendor") {
				return fs.SkipDir
			}
			return err
		}
		name, _ := filepath.Rel(s.tree, path)
		kind := ""
		switch base := filepath.Base(name); {
		case filepath.Base(filepath.Dir(name)) == "i18n" && base == "en.json":
			kind = english
		case filepath.Base(filepath.Dir(name)) == "i18n" && strings.HasSuffix(base, ".json") && base != "qqq.json":
			kind = translations
		case strings.HasSuffix(base, ".php") && strings.Contains(name, "/"), strings.HasSuffix(base, ".js"):
			if strings.HasPrefix(name, "includes/") || strings.HasPrefix(name, "resources/src/") || strings.HasPrefix(name, "extensions/") || strings.HasPrefix(name, "skins/") {
				kind = code
			}
		}
		if kind != "" && e.Type().IsRegular() {
			d.files[kind] = append(d.files[kind], name)
		}
		return nil
	})
	return d, err
}

func (d *day) replay(i int, kind string) (r replayed, err error) {
	r.Kind = kind
	if r.Files, err = d.change(i, kind); err != nil {
		return r, err
	}
	if err := d.commit(fmt.Sprintf("%s %d", kind, i)); err != nil {
		return r, err
	}
	before, err := d.stored()
	if err != nil {
		return r, err
	}
	begun := time.Now()
	p, err := d.publish("wmf")
	r.Wall = time.Since(begun).Seconds()
	if err != nil {
		return r, err
	}
	after, err := d.stored()
	if err != nil {
		return r, err
	}
	r.Uploaded, r.Executed = after-before, p.Actions.Executed
	out, err := d.exec(d.tree, d.mwbuild, d.flags("affected", "--since", "HEAD~1..HEAD", "--output", "label")...)
	if err != nil {
		return r, err
	}
	r.Targets = strings.Count(string(out), "\n")
	out, err = d.exec("", filepath.Join(d.bin, "crane"), "manifest", d.registry+"/mw/wiki@"+p.Images[0].Digest)
	if err != nil {
		return r, err
	}
	var manifest struct{ Layers []struct{ Size int64 } }
	if err := json.Unmarshal(out, &manifest); err != nil {
		return r, err
	}
	r.Layers = len(manifest.Layers)
	for _, l := range manifest.Layers {
		r.Size += l.Size
	}
	return r, nil
}

// change makes what a commit of that kind does, and returns how many files it touched.
func (d *day) change(i int, kind string) (int, error) {
	pick := func() string { return d.files[kind][d.rand.IntN(len(d.files[kind]))] }
	if kind != code {
		// A new text for one message.
		for range 100 {
			err := d.edit(pick(), func(text string) string {
				lines := strings.Split(text, "\n")
				at := d.rand.IntN(len(lines))
				for j := range lines {
					k := (at + j) % len(lines)
					if strings.HasPrefix(lines[k], "\t\"") && strings.HasSuffix(lines[k], "\",") && !strings.Contains(lines[k], "@metadata") {
						lines[k] = strings.TrimSuffix(lines[k], "\",") + fmt.Sprintf(" (%d)\",", i)
						break
					}
				}
				return strings.Join(lines, "\n")
			})
			if err == nil {
				return 1, nil
			}
		}
		return 0, fmt.Errorf("no %s file has a message that can be changed", kind)
	}
	n := 1 + d.rand.IntN(4)
	for range n {
		if err := d.edit(pick(), func(text string) string { return text + fmt.Sprintf("// commit %d\n", i) }); err != nil {
			return 0, err
		}
	}
	switch d.rand.IntN(10) {
	case 0: // a new file
		name := strings.TrimSuffix(filepath.Join(filepath.Dir(pick()), fmt.Sprintf("Added%d.php", i)), "/")
		d.added = append(d.added, name)
		return n + 1, os.WriteFile(filepath.Join(d.tree, name), fmt.Appendf(nil, "<?php\n// added by commit %d\n", i), 0o644)
	case 1: // one that is gone
		if len(d.added) > 0 {
			name := d.added[0]
			d.added = d.added[1:]
			return n + 1, os.Remove(filepath.Join(d.tree, name))
		}
	}
	return n, nil
}
