package debian

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/mwbuild/mwbuild/rules/debian/archive"
	"github.com/mwbuild/mwbuild/rules/debian/deb"
)

// A setup is what the step that configures the packages of an image needs beside their files: what dpkg would know had it
// unpacked them itself.
type setup struct {
	status   bytes.Buffer
	triggers map[string][]string         // lines of the files in dpkg's folder of triggers
	preinsts map[string]string           // lines for the script, by package
	paths    map[string]*archive.Package // by whom regular files are installed
}

func newSetup() *setup {
	return &setup{triggers: map[string][]string{}, preinsts: map[string]string{}, paths: map[string]*archive.Package{}}
}

// add takes in one package; they come in order of name.
func (s *setup) add(p *deb.Package) error {
	for _, line := range strings.Split(string(p.Scripts["md5sums"]), "\n") {
		_, file, ok := strings.Cut(line, " ")
		if !ok {
			continue
		}
		file = usr(strings.TrimLeft(strings.TrimSpace(file), "*/"))
		if other := s.paths[file]; other != nil {
			return overlap(file, other, p.Package)
		}
		s.paths[file] = p.Package
	}
	s.note(p)
	if _, ok := p.Scripts["preinst"]; ok {
		s.preinsts[p.Name] = fmt.Sprintf("%s %s %s", p.Name, p.Architecture, instance(p.Package))
	}
	return s.interests(p)
}

// note writes the package's paragraph of dpkg's status.
func (s *setup) note(p *deb.Package) {
	b := &s.status
	for _, f := range p.Stanza {
		if f.Name == "Package" {
			fmt.Fprintf(b, "Package: %s\nStatus: install ok unpacked\n", f.Value)
			continue
		}
		if strings.EqualFold(f.Name, "Status") || strings.EqualFold(f.Name, "Conffiles") {
			continue
		}
		b.WriteString(f.Name + ":")
		if first, more, several := strings.Cut(f.Value, "\n"); several {
			if first != "" {
				b.WriteString(" " + first)
			}
			for _, line := range strings.Split(more, "\n") {
				b.WriteString("\n " + line)
			}
		} else {
			b.WriteString(" " + f.Value)
		}
		b.WriteByte('\n')
	}
	if all := conffiles(p); len(all) > 0 {
		b.WriteString("Conffiles:\n")
		for _, c := range all {
			b.WriteString(" " + c.path + " newconffile")
			if c.remove {
				b.WriteString(" remove-on-upgrade")
			}
			b.WriteByte('\n')
		}
	}
	b.WriteByte('\n')
}

// interests notes what triggers the package waits for (deb-triggers(5)).
func (s *setup) interests(p *deb.Package) error {
	for _, line := range strings.Split(string(p.Scripts["triggers"]), "\n") {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "activate") {
			continue
		}
		who := instance(p.Package)
		if strings.HasSuffix(f[0], "-noawait") {
			who += "/noawait"
		}
		switch {
		case len(f) != 2 || !strings.HasPrefix(f[0], "interest"):
			return fmt.Errorf("triggers of %s: %q", p, line)
		case strings.HasPrefix(f[1], "/"):
			s.triggers["File"] = append(s.triggers["File"], f[1]+" "+who)
		case strings.Contains(f[1], "/"):
			return fmt.Errorf("triggers of %s: %q", p, line)
		default:
			s.triggers[f[1]] = append(s.triggers[f[1]], who)
		}
	}
	return nil
}

// order is the packages that have a preinst, those first that others depend on, and before all of them base-passwd, which
// makes the users that others need.
func (s *setup) order(depends map[string][]string) []string {
	var lines []string
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, d := range depends[name] {
			visit(d)
		}
		if line, ok := s.preinsts[name]; ok {
			lines = append(lines, line)
		}
	}
	if line, ok := s.preinsts["base-passwd"]; ok {
		seen["base-passwd"] = true
		lines = append(lines, line)
	}
	names := make([]string, 0, len(depends))
	for name := range depends {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		visit(name)
	}
	return lines
}

// configureScript is run in the image by its own shell, as root, with the setup at /mwbuild. It must leave nothing behind that
// tells when, where or in what order of events it ran.
const configureScript = `set -eu
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes
export LC_ALL=C.UTF-8 TZ=UTC HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022
db=/var/lib/dpkg
cp /mwbuild/status $db/status
for f in /mwbuild/triggers/*; do
    [ ! -e "$f" ] || cp "$f" $db/triggers/
done

# No service is started.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

export DPKG_ADMINDIR=$db DPKG_ROOT= DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1
DPKG_RUNNING_VERSION=$(dpkg-query -f '${Version}' -W dpkg)
export DPKG_RUNNING_VERSION
while read -r name arch instance; do
    DPKG_MAINTSCRIPT_PACKAGE=$name DPKG_MAINTSCRIPT_ARCH=$arch DPKG_MAINTSCRIPT_NAME=preinst $db/info/$instance.preinst install </dev/null
done </mwbuild/preinsts
unset DPKG_ADMINDIR DPKG_ROOT DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT DPKG_RUNNING_VERSION

dpkg --force-unsafe-io --force-confnew --configure -a </dev/null
left=$(dpkg --audit)
if [ -n "$left" ]; then
    echo "$left" >&2
    exit 1
fi

rm -f /usr/sbin/policy-rc.d
for d in /var/log/apt /var/cache/apt /var/lib/apt/lists; do
    [ ! -d $d ] || find $d -type f -exec rm -f {} +
done
rm -f /var/cache/ldconfig/aux-cache /var/log/alternatives.log /var/log/dpkg.log /var/log/bootstrap.log /etc/machine-id /var/lib/dbus/machine-id
rm -f $db/*-old $db/lock $db/lock-frontend $db/available $db/triggers/Lock /var/cache/debconf/*-old /etc/*- /etc/.pwd.lock
find / -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
`
