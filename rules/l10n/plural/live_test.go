//go:build live

package plural

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mwbuild/mwbuild/internal/laid"
)

// reference runs the classes of the tree that is its argument. It reads one rule per line, in base64, and answers in JSON:
// the rules of all languages as LocalisationCache's own functions have them, and the compiled form of each rule, or null.
const reference = `<?php
$root = $argv[1];
require "$root/vendor/autoload.php";
$code = file_get_contents( "$root/includes/language/LocalisationCache.php" );
// MediaWiki's own text of one function, without the wiki around it.
preg_match( '/^\t[a-z ]+function loadPluralFile\b.*?^\t}/ms', $code, $m ) || exit( 1 );
eval( 'class Files { public static $pluralRules = []; public static $pluralRuleTypes = []; ' .
	str_replace( '$this->plural', 'self::$plural', preg_replace( '/^\t[a-z ]+function/', 'public static function', $m[0] ) ) . '}' );
`

// rules of all languages, then of the lines.
const answers = `
Files::loadPluralFile( "$root/languages/data/plurals.xml" );
Files::loadPluralFile( "$root/languages/data/plurals-mediawiki.xml" );
$out = [ 'Languages' => [], 'Lines' => [] ];
foreach ( Files::$pluralRules as $lang => $rules ) {
	try {
		$compiled = CLDRPluralRuleParser\Evaluator::compile( $rules );
	} catch ( CLDRPluralRuleParser\Error $e ) {
		$compiled = [];
	}
	$out['Languages'][$lang] = [ 'Rules' => $rules, 'Types' => Files::$pluralRuleTypes[$lang], 'Compiled' => $compiled ];
}
while ( ( $line = fgets( STDIN ) ) !== false ) {
	try {
		$out['Lines'][] = CLDRPluralRuleParser\Evaluator::compile( [ base64_decode( $line ) ] )[0];
	} catch ( CLDRPluralRuleParser\Error $e ) {
		$out['Lines'][] = null;
	}
}
echo json_encode( $out, JSON_THROW_ON_ERROR );
`

// Load and Compile give what MediaWiki's own code gives, for all languages and for rules good and bad.
func TestAgainstMediaWiki(t *testing.T) {
	rules := randomRules(10_000)
	var lines strings.Builder
	for _, r := range rules {
		lines.WriteString(base64.StdEncoding.EncodeToString([]byte(r)) + "\n")
	}
	script := filepath.Join(t.TempDir(), "reference.php")
	if err := os.WriteFile(script, []byte(reference+answers), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, suite := range []string{"trixie", "bookworm"} {
		root := laid.Tree(t, suite)
		var stdout, stderr bytes.Buffer
		cmd := exec.Command("php", script, root)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(lines.String()), &stdout, &stderr
		if err := cmd.Run(); err != nil || stderr.Len() > 0 {
			t.Fatalf("%s: php: %v\n%s%.1000s", suite, err, stderr.Bytes(), stdout.Bytes())
		}
		var want struct {
			Languages map[string]*Rules
			Lines     []*string
		}
		if err := json.Unmarshal(stdout.Bytes(), &want); err != nil {
			t.Fatalf("%s: %v\n%.1000s", suite, err, stdout.Bytes())
		}

		var files []File
		for _, name := range []string{"plurals.xml", "plurals-mediawiki.xml"} {
			data, err := os.ReadFile(filepath.Join(root, "languages/data", name))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, File{name, data})
		}
		got, err := Load(files...)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range want.Languages { // JSON has empty lists where we have none
			for _, list := range []*[]string{&r.Rules, &r.Types, &r.Compiled} {
				if len(*list) == 0 {
					*list = nil
				}
			}
		}
		if diff := cmp.Diff(want.Languages, got); diff != "" {
			t.Errorf("%s: Load (-MediaWiki +ours):\n%s", suite, diff)
		}

		accepted := 0
		for i, r := range rules {
			rpn, err := Compile(r)
			switch w := want.Lines[i]; {
			case w == nil && err == nil:
				t.Errorf("%s: Compile(%q) = %q; MediaWiki refuses it", suite, r, rpn)
			case w != nil && (err != nil || rpn != *w):
				t.Errorf("%s: Compile(%q) = %q, %v; MediaWiki has %q", suite, r, rpn, err, *w)
			case w != nil:
				accepted++
			}
		}
		t.Logf("%s: %d languages; %d rules, %d of them accepted", suite, len(got), len(rules), accepted)
		if len(got) < 100 || accepted < len(rules)/10 || accepted > len(rules)*9/10 {
			t.Errorf("%s: too few of one kind for the test to tell much", suite)
		}
	}
}

// randomRules are rules: a third sound, a third with a little damage, a third mere tokens.
func randomRules(n int) []string {
	r := rand.New(rand.NewPCG(11, 12))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	number := func() string { return pick("0", "1", "2", "10", "11", "100", "007", "99999999999999999999") }
	operand := func() string { return pick("n", "i", "v", "w", "f", "t", "N", "n", "i", number()) }
	tokens := []string{"n", "i", "V", "t", "ni", "iv", "nivwft", "vwf", "e", "0", "12", "=", "!=", "%", ",", "..", "and", "or", "is", "not",
		"in", "within", "mod", "is not", "not in", "not within", "AND", "Is Not", "isnot", "not-in", "@integer", "@decimal", "@", "@x", "…", "~", ".", "!", "-1", "1.5",
		"\v", "\x00", "\xff", "é", "(", ";", ""}
	blank := func() string { return pick(" ", " ", " ", "", "  ", "\t", "\r\n", "\n", "\f") }
	var all []string
	for i := range n {
		var parts []string
		if i%3 == 2 {
			for range r.IntN(9) {
				parts = append(parts, pick(tokens...))
			}
		} else {
			for j := range 1 + r.IntN(4) {
				if j > 0 {
					parts = append(parts, pick("and", "or", "AND"))
				}
				parts = append(parts, operand())
				for r.IntN(3) == 0 {
					parts = append(parts, pick("%", "mod"), operand())
				}
				parts = append(parts, pick("=", "!=", "is", "is not", "in", "not in", "within", "not within", "Is nOT"))
				parts = append(parts, operand())
				for r.IntN(3) == 0 {
					parts = append(parts, pick(",", "..", ",", "%"), operand())
				}
			}
			if r.IntN(3) == 0 {
				parts = append(parts, pick("@integer 1, 2~3, …", "@decimal 1.0", "@integer", "@INTEGER x @decimal"))
			}
			if i%3 == 1 {
				switch at := r.IntN(len(parts)); r.IntN(3) {
				case 0:
					parts[at] = pick(tokens...)
				case 1:
					parts = append(parts[:at], parts[at+1:]...)
				case 2:
					parts = append(parts[:at+1], append([]string{pick(tokens...)}, parts[at+1:]...)...)
				}
			}
		}
		var b strings.Builder
		for _, p := range parts {
			if i%3 == 0 {
				b.WriteString(p + " ")
			} else {
				b.WriteString(p + blank())
			}
		}
		all = append(all, b.String())
	}
	return append(all, "", " ", "@integer", "n", "n=1", "n = 1 and", "n is not", "n not")
}
