//go:build live

package livetest

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The real tree with a history of commits of many kinds: affected names what a change reaches and nothing else, and for each
// target a file that the commit changed.
func TestAffectedHistory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shortDir(t), "tree")
	command(t, "/", "git", "clone", "-q", mediawiki(t), dir)
	p := newPlace(t, dir)
	git := func(args ...string) string {
		t.Helper()
		return command(t, dir, "git", append([]string{"-c", "user.name=n", "-c", "user.email=e@example", "-c", "commit.gpgsign=false"}, args...)...)
	}
	sh := func(script string) func() {
		return func() {
			t.Helper()
			cmd := exec.Command("/bin/sh", "-euc", script)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
		}
	}
	const cite = "//:wiki //extensions/Cite:Cite //extensions/Cite:image"
	// With those that depend on it.
	const echo = "//extensions/Echo:Echo //extensions/Echo:image //extensions/LoginNotify:LoginNotify //extensions/LoginNotify:image //extensions/Thanks:Thanks //extensions/Thanks:image"
	for _, c := range []struct {
		name string
		edit func()
		want string // labels; a word with * is a prefix that must be there, "" is none
	}{
		{"code", sh(`echo '// x' >> extensions/Cite/src/Cite.php`), cite},
		{"translation", sh(`sed -i '0,/": "/s//": "x /' extensions/Cite/i18n/de.json`), cite + " //:l10n //:l10n_php //extensions/Cite:l10n"},
		{"comment in BUILD", sh(`sed -i '1i # a comment' extensions/Cite/BUILD`), ""},
		{"blank lines in BUILD", sh(`sed -i '1i \\' BUILD; printf '\n\n' >> extensions/Echo/BUILD`), ""},
		{"file in no target", sh(`echo y > extensions/Cite/.gitreview`), ""},
		{"mode", sh(`chmod +x extensions/Cite/src/Cite.php`), cite},
		{"rename", sh(`git mv extensions/Cite/src/Cite.php extensions/Cite/src/Quote.php`), cite},
		{"deletion", sh(`git rm -q extensions/Cite/src/Quote.php`), cite},
		{"two at once", sh(`echo '// x' >> extensions/Cite/src/ReferenceStack.php; echo '/* x */' >> skins/Vector/skin.json.css; echo '// x' >> skins/Vector/includes/Hooks.php`),
			cite + " //skins/Vector:Vector //skins/Vector:image"},
		{"link", sh(`ln -s ReferenceStack.php extensions/Cite/src/Link.php`), cite},
		{"moved between packages", sh(`git mv extensions/Cite/src/Link.php extensions/Echo/includes/Link.php; ln -sfn EchoServices.php extensions/Echo/includes/Link.php`),
			cite + " " + echo},
		{"core", sh(`echo '// x' >> includes/Setup.php`), "//:core //:image //:wiki"},
		{"vendor", sh(`echo '// x' >> vendor/autoload.php`), "//:wiki //vendor:vendor //vendor:image"},
		{"default of WORKSPACE", sh(`echo 'image_defaults(user = "901:901")' >> WORKSPACE`), "//:wiki //extensions/Cite:image //skins/Vector:image //*"},
		{"attribute", sh(`sed -i 's/^mw_extension(/mw_extension(\n    labels = {"x": "y"},/' extensions/Cite/BUILD`), "//extensions/Cite:image"},
		{"new extension", sh(`mkdir -p extensions/Ours; echo '{"name": "Ours", "manifest_version": 2}' > extensions/Ours/extension.json; echo 'mw_extension(name = "Ours")' > extensions/Ours/BUILD`),
			"//extensions/Ours:Ours //extensions/Ours:image //extensions/Ours:*"},
		{"removed again", sh(`git rm -rq extensions/Ours`), ""},
		{"nothing", func() {}, ""},
		{"alias of a special page", sh(`f=$(ls extensions/*/*.alias.php | head -1); sed -i "s/'qqq'/'qqq'/; \$ a // x" "$f"`), "//:wiki //*"},
		{"English text", sh(`sed -i '0,/": "/s//": "x /' extensions/Echo/i18n/en.json`), "//:l10n //:l10n_php //:wiki //extensions/Echo:l10n " + echo},
	} {
		c.edit()
		git("add", "-A")
		git("commit", "-q", "--allow-empty", "-m", c.name)
		var got struct {
			Targets []struct {
				Label, Change string
				Why           []string
			}
		}
		before := status(t, dir)
		r := p.ok("affected", "--since", "HEAD~1", "--output=json")
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
			t.Fatalf("%s: %v\n%s", c.name, err, r.stdout)
		}
		if after := status(t, dir); after != before {
			t.Errorf("%s: affected touched the working tree or the index", c.name)
		}
		changed := strings.Split(strings.TrimSpace(git("diff", "--no-renames", "--name-only", "HEAD~1", "HEAD")), "\n")
		var labels []string
		for _, target := range got.Targets {
			if target.Change != "removed" {
				labels = append(labels, target.Label)
			}
			if len(target.Why) == 0 || !slices.Contains(changed, target.Why[0]) {
				t.Errorf("%s: %s for %v; the commit changed %v", c.name, target.Label, target.Why, changed)
			} else if target.Change != "removed" && target.Why[len(target.Why)-1] != target.Label {
				t.Errorf("%s: the way to %s ends elsewhere: %v", c.name, target.Label, target.Why)
			}
		}
		open := false
		var exact []string
		for _, w := range strings.Fields(c.want) {
			prefix, isPrefix := strings.CutSuffix(w, "*")
			open = open || isPrefix
			if !isPrefix {
				exact = append(exact, w)
			} else if !slices.ContainsFunc(labels, func(l string) bool { return strings.HasPrefix(l, prefix) }) {
				t.Errorf("%s: nothing begins with %s in %v", c.name, prefix, labels)
			}
		}
		slices.Sort(labels)
		slices.Sort(exact)
		if !open && !slices.Equal(labels, exact) {
			t.Errorf("%s: affected are\n%v, want\n%v", c.name, labels, exact)
		}
		for _, w := range exact {
			if !slices.Contains(labels, w) {
				t.Errorf("%s: %s is not affected", c.name, w)
			}
		}
	}
}

// status is git's view of a checkout, and its index.
func status(t *testing.T, dir string) string {
	t.Helper()
	index, err := os.Stat(filepath.Join(dir, ".git/index"))
	out, err2 := exec.Command("git", "--no-optional-locks", "-C", dir, "status", "--porcelain").Output()
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return index.ModTime().String() + string(out)
}
