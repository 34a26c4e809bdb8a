// The program behind bench/backport/run and bench/replay/run: what publishing costs on a real tree with all components and languages, into a registry on
// this machine. Run it from the root of the repository.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if len(os.Args) < 2 {
		log.Fatal("want backport or replay")
	}
	var err error
	switch flags := os.Args[2:]; os.Args[1] {
	case "backport":
		err = backport(flags)
	case "replay":
		err = replay(flags)
	default:
		err = fmt.Errorf("%s: want backport or replay", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// A site is a MediaWiki tree with BUILD files, a registry, and the program to be measured.
type site struct {
	work, tree, mwbuild, bin string
	registry                 string // its address
	data                     string // its blobs
	servers                  []*exec.Cmd
}

// newSite lays a tree, starts the registry, and publishes //:wiki with layers as bases.
func newSite() (*site, error) {
	work, err := os.MkdirTemp("", "bench-publish-")
	if err != nil {
		return nil, err
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	s := &site{work: work, tree: filepath.Join(work, "tree"), mwbuild: filepath.Join(work, "mwbuild"), bin: filepath.Join(here, ".bin"), data: filepath.Join(work, "registry")}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		s.close()
		os.Exit(8)
	}()
	if err := s.lay(); err != nil {
		return nil, fmt.Errorf("%w\n%v", err, s.close())
	}
	return s, nil
}

func (s *site) lay() error {
	if _, err := s.exec("", "go", "build", "-buildvcs=false", "-o", s.mwbuild, "./cmd/mwbuild"); err != nil {
		return err
	}
	lay := exec.Command("examples/mediawiki/lay", s.tree)
	lay.Env = append(os.Environ(), "MWBUILD="+s.mwbuild)
	if out, err := lay.CombinedOutput(); err != nil {
		return fmt.Errorf("lay: %w\n%s", err, out)
	}
	var err error
	if s.registry, err = freeAddress(); err != nil {
		return err
	}
	config := filepath.Join(s.work, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", s.data, s.registry)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	if err := s.serve("tcp", s.registry, filepath.Join(s.bin, "registry"), "serve", config); err != nil {
		return err
	}
	if err := s.edit("WORKSPACE", func(text string) string {
		return text + fmt.Sprintf("\nregistry(name = \"local\", repository = \"%s/mw/{target}\")\n", s.registry)
	}); err != nil {
		return err
	}
	if err := s.edit(s.rootBuild(), func(text string) string {
		return strings.Replace(text, "    core = \":core\",\n", "    core = \":core\",\n    l10n = \":l10n\",\n", 1)
	}); err != nil {
		return err
	}
	for _, args := range [][]string{{"publish", "//:wiki", "--tag", "first"}, {"layers", "plan", "//:wiki"}} {
		if _, err := s.exec(s.tree, s.mwbuild, s.flags(args...)...); err != nil {
			return err
		}
	}
	return s.commit("site")
}

// rootBuild is the name of the tree's own BUILD file.
func (s *site) rootBuild() string {
	if _, err := os.Stat(filepath.Join(s.tree, "BUILD")); err == nil {
		return "BUILD"
	}
	return "BUILD.star"
}

func (s *site) flags(args ...string) []string {
	return append(args, "--cache-dir", filepath.Join(s.work, "cache"), "--progress", "quiet")
}

// A publication is what mwbuild publish tells.
type publication struct {
	Images []struct {
		Digest string `json:"digest"`
		Bytes  int64  `json:"bytes"`
	} `json:"images"`
	Actions struct {
		Executed int `json:"executed"`
	} `json:"actions"`
}

func (s *site) publish(tag string) (p publication, err error) {
	out, err := s.exec(s.tree, s.mwbuild, s.flags("publish", "//:wiki", "--tag", tag, "--output", "json")...)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(out, &p); err != nil {
		return p, fmt.Errorf("publish: %w\n%s", err, out)
	}
	if len(p.Images) != 1 {
		return p, fmt.Errorf("publish: %s", out)
	}
	return p, nil
}

func (s *site) commit(message string) error {
	for _, args := range [][]string{
		{"add", "-A"},
		{"-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "commit.gpgsign=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false", "commit", "-q", "-m", message},
	} {
		if _, err := s.exec(s.tree, "git", args...); err != nil {
			return err
		}
	}
	return nil
}

// edit changes a file of the tree.
func (s *site) edit(name string, change func(string) string) error {
	return editFile(filepath.Join(s.tree, name), change)
}

func editFile(file string, change func(string) string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed := change(string(text))
	if changed == string(text) {
		return fmt.Errorf("%s: the edit changes nothing", file)
	}
	return os.WriteFile(file, []byte(changed), 0o644)
}

// stored is how many bytes of blobs the registry has.
func (s *site) stored() (n int64, err error) {
	err = filepath.WalkDir(filepath.Join(s.data, "docker/registry/v2/blobs"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "data" {
			fi, err := e.Info()
			if err != nil {
				return err
			}
			n += fi.Size()
		}
		return err
	})
	return n, err
}

// exec runs a program in dir, and returns what it wrote to stdout.
func (s *site) exec(dir, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes(), nil
}

// serve starts a program that ends with this one, and waits until somebody listens at address.
func (s *site) serve(network, address, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	logfile, err := os.Create(filepath.Join(s.work, filepath.Base(name)+".log"))
	if err != nil {
		return err
	}
	defer logfile.Close()
	cmd.Stdout, cmd.Stderr = logfile, logfile
	if err := cmd.Start(); err != nil {
		return err
	}
	s.servers = append(s.servers, cmd)
	for range 200 {
		if c, err := net.Dial(network, address); err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, _ := os.ReadFile(logfile.Name())
	return fmt.Errorf("%s does not listen at %s\n%s", name, address, text)
}

func (s *site) close() error {
	for _, cmd := range s.servers {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	return os.RemoveAll(s.work)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// quantile is the value below which a part of all lie.
func quantile(all []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))]
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func newFlags(name string) (*flag.FlagSet, *bool) {
	f := flag.NewFlagSet("bench/"+name+"/run", flag.ExitOnError)
	return f, f.Bool("json", false, "print one JSON object")
}
