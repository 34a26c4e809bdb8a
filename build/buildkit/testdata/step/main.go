// Command step is what the live tests run in containers: static, and alone in its image.
package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

func main() {
	switch os.Args[1] {
	case "write":
		must(os.MkdirAll("/out/d/empty", 0o700))
		must(os.WriteFile("/out/d/plain", []byte("plain "+strings.Join(os.Args[2:], " ")+"\n"), 0o600))
		must(os.WriteFile("/out/d/tool", []byte("#!/bin/true\n"), 0o710))
		must(os.WriteFile("/out/open", []byte("open\n"), 0o600))
		must(os.Chmod("/out/open", 0o777|os.ModeSetuid))
		must(os.Chmod("/out/d", 0o777|os.ModeSticky))
		must(os.Symlink("d/plain", "/out/link"))
		must(os.Lchown("/out/open", 5, 6))
		must(os.Chtimes("/out/open", time.Now(), time.Now()))
	case "fail":
		code, err := strconv.Atoi(os.Args[2])
		must(err)
		for i := range 200 {
			fmt.Println("line", i)
		}
		fmt.Fprintln(os.Stderr, "now it fails")
		os.Exit(code)
	case "look":
		var b strings.Builder
		ifaces, err := net.Interfaces()
		must(err)
		for _, i := range ifaces {
			fmt.Fprintln(&b, "interface", i.Name)
		}
		_, err = net.DialTimeout("tcp", "192.0.2.1:80", time.Second)
		fmt.Fprintln(&b, "dial", err != nil)
		for _, f := range []string{"/new", "/mnt/in/new", "/tmp/new", "/out/new"} {
			fmt.Fprintln(&b, "write", f, os.WriteFile(f, nil, 0o644) == nil)
		}
		must(os.Remove("/out/new"))
		host, err := os.Hostname()
		must(err)
		dir, err := os.Getwd()
		must(err)
		fmt.Fprintln(&b, "host", host, "dir", dir, "uid", os.Getuid())
		in, err := os.ReadFile("/mnt/in/hello")
		fmt.Fprintf(&b, "in %q %v\n", in, err)
		env := os.Environ()
		sort.Strings(env)
		fmt.Fprintln(&b, strings.Join(env, "\n"))
		must(os.WriteFile("/out/seen", []byte(b.String()), 0o644))
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(1000 * time.Second)
	case "files":
		for _, f := range os.Args[2:] {
			_, err := os.Stat(f)
			fmt.Println(f, err == nil)
			if err == nil {
				must(os.WriteFile("/out/"+strings.ReplaceAll(f, "/", "_"), nil, 0o644))
			}
		}
	case "big":
		var b strings.Builder
		for i := range 1_000_000 {
			fmt.Fprintln(&b, i*i%9973, i)
		}
		must(os.WriteFile("/out/big", []byte(b.String()), 0o644))
	case "fill": // megabytes that no compression makes fewer
		seed, err := strconv.Atoi(os.Args[2])
		must(err)
		size, err := strconv.Atoi(os.Args[3])
		must(err)
		b := make([]byte, size<<20)
		rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
		must(os.WriteFile("/out/filled", b, 0o644))
	case "interfaces":
		ifaces, err := net.Interfaces()
		must(err)
		for _, i := range ifaces {
			must(os.WriteFile("/out/"+i.Name, nil, 0o644))
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
