//go:build live

package php

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/mwbuild/mwbuild/internal/laid"
)

// evaluator answers each line, a file's name or a source in base64 behind "=", with the variables that including it leaves,
// and the members of a class of it: serialized, in base64; "!" where PHP throws, warns, prints, or ends. Each is a process of its
// own, so that constants and classes do not pile up.
const evaluator = `<?php
$own = get_declared_classes();
foreach ( unserialize( base64_decode( $argv[1] ) ) as $name => $value ) {
	define( $name, $value );
}
while ( ( $line = fgets( STDIN ) ) !== false ) {
	$line = rtrim( $line, "\n" );
	$file = $line;
	if ( $line[0] === '=' ) {
		$file = $argv[2];
		file_put_contents( $file, base64_decode( substr( $line, 1 ) ) );
	}
	$pid = pcntl_fork();
	if ( $pid === 0 ) {
		set_error_handler( static function ( $level, $text ) { throw new Exception( $text ); } );
		ob_start( static fn () => '' );
		try {
			$vars = ( static function () {
				include func_get_arg( 0 );
				return get_defined_vars();
			} )( $file );
			$printed = ob_get_contents() !== '';
			foreach ( array_diff( get_declared_classes(), $own ) as $class ) {
				$r = new ReflectionClass( $class );
				$vars += $r->getConstants() + $r->getStaticProperties();
			}
			ksort( $vars, SORT_STRING );
			if ( !$printed && error_get_last() === null ) {
				fwrite( STDOUT, base64_encode( serialize( $vars ) ) . "\n" );
				posix_kill( getmypid(), SIGTERM );
			}
		} catch ( Throwable $e ) {
		}
		exit( 1 );
	}
	pcntl_waitpid( $pid, $status );
	if ( !pcntl_wifsignaled( $status ) || pcntl_wtermsig( $status ) !== SIGTERM ) {
		echo "!\n";
	}
}
`

// run has PHP run a script on lines, and returns its lines.
func run(t *testing.T, script string, lines []string, args ...string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script.php")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	options := []string{"-d", "memory_limit=-1", "-d", "precision=14", "-d", "serialize_precision=-1", "-d",
		"display_errors=0", "-d", "log_errors=0", file}
	cmd := exec.Command("php", append(options, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.Join(lines, "\n")+"\n"), &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("php: %v\n%s", err, errs.Bytes())
	}
	var answers []string
	r := bufio.NewReader(&out)
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			break
		}
		answers = append(answers, strings.TrimSuffix(line, "\n"))
	}
	if len(answers) != len(lines) {
		t.Fatalf("%d answers to %d lines", len(answers), len(lines))
	}
	return answers
}

// include has PHP include files or sources ("=…").
func include(t *testing.T, consts map[string]Value, lines []string) []string {
	t.Helper()
	defines := &Array{}
	for name, v := range consts {
		defines.Set(StringKey(name), v)
	}
	answers := run(t, evaluator, lines, base64.StdEncoding.EncodeToString(AppendSerialize(nil, defines)),
		filepath.Join(t.TempDir(), "source.php"))
	for i, a := range answers {
		if a != "!" {
			text, err := base64.StdEncoding.DecodeString(a)
			if err != nil {
				t.Fatal(err)
			}
			answers[i] = string(text)
		}
	}
	return answers
}

// sorted serializes variables by name.
func sorted(vars *Array) string {
	s := &Array{}
	names := []string{}
	for k := range vars.All() {
		names = append(names, k.Str)
	}
	slices.Sort(names)
	for _, n := range names {
		v, _ := vars.Get(Key{Str: n})
		s.Set(Key{Str: n}, v)
	}
	return string(AppendSerialize(nil, s))
}

// localisation finds the PHP files of a tree that localisation reads, and the constants of namespaces: core's, and those of extensions.
func localisation(t testing.TB, root string) (files []string, core, all map[string]Value) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "languages/messages/Messages*.php"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join(root, "includes/languages/data/Names.php"))
	src, err := os.ReadFile(filepath.Join(root, "includes/Defines.php"))
	if err != nil {
		t.Fatal(err)
	}
	core = map[string]Value{"MEDIAWIKI": true}
	for _, m := range regexp.MustCompile(`(?m)^define\( '(NS_\w+)', (-?\d+) \);`).FindAllSubmatch(src, -1) {
		n, _ := strconv.ParseInt(string(m[2]), 10, 64)
		core[string(m[1])] = n
	}
	all = maps.Clone(core)
	for _, pattern := range []string{"extensions/*/extension*.json", "skins/*/skin.json"} {
		manifests, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, m := range manifests {
			var v struct {
				ExtensionMessagesFiles json.RawMessage
				Namespaces             []struct {
					ID       int64
					Constant string
				}
			}
			src, err := os.ReadFile(m)
			if err == nil {
				err = json.Unmarshal(src, &v)
			}
			if err != nil {
				t.Fatal(m, err)
			}
			var named map[string]string
			json.Unmarshal(v.ExtensionMessagesFiles, &named) // absent, or PHP's empty list
			for _, f := range slices.Sorted(maps.Values(named)) {
				files = append(files, filepath.Join(filepath.Dir(m), f))
			}
			for _, ns := range v.Namespaces {
				all[ns.Constant] = ns.ID
			}
		}
	}
	return files, core, all
}

// All PHP files of real trees that localisation reads are understood, and mean what they mean to PHP; reading one variable alone
// gives that variable.
func TestRealTrees(t *testing.T) {
	for _, suite := range []string{"trixie", "bookworm"} {
		t.Run(suite, func(t *testing.T) {
			root := laid.Tree(t, suite)
			files, core, all := localisation(t, root)
			if len(files) < 400 || len(all) <= len(core) {
				t.Fatalf("%d files, %d constants of core, %d in all", len(files), len(core), len(all))
			}
			for _, consts := range []map[string]Value{core, all} {
				vars := 0
				want := include(t, consts, files)
				for i, f := range files {
					src, err := os.ReadFile(f)
					if err != nil {
						t.Fatal(err)
					}
					rel, _ := filepath.Rel(root, f)
					got, err := Parse(rel, src, Options{Constants: consts})
					if err != nil {
						t.Error(err)
						continue
					}
					if s := sorted(got.Vars); s != want[i] {
						t.Errorf("%s: got\n%.2000s\nwant\n%.2000s", rel, s, want[i])
					}
					for k, v := range got.Vars.All() {
						vars++
						one, err := Parse(rel, src, Options{Constants: consts, Only: []string{k.Str}})
						if err != nil {
							t.Error(err)
							continue
						}
						if w, _ := one.Vars.Get(k); !Equal(v, w) || one.Vars.Len() != 1 {
							t.Errorf("%s: %s alone is another", rel, k)
						}
					}
					few := map[string]Value{}
					for _, c := range got.Constants {
						if v, ok := consts[c]; ok {
							few[c] = v
						}
					}
					if again, err := Parse(rel, src, Options{Constants: few}); err != nil || !again.Vars.Equal(got.Vars) {
						t.Errorf("%s: with %v alone: %v", rel, got.Constants, err)
					}
				}
				t.Logf("%d files, %d constants, %d variables", len(files), len(consts), vars)
			}
		})
	}
}

// BenchmarkRealMessages reads all Messages files of a real tree: all variables of them, and fallback alone.
func BenchmarkRealMessages(b *testing.B) {
	files, consts, _ := localisation(b, laid.Tree(b, "trixie"))
	var srcs [][]byte
	size := int64(0)
	for _, f := range files {
		if strings.HasPrefix(filepath.Base(f), "Messages") {
			src, err := os.ReadFile(f)
			if err != nil {
				b.Fatal(err)
			}
			srcs = append(srcs, src)
			size += int64(len(src))
		}
	}
	for name, only := range map[string][]string{"all": nil, "fallback": {"fallback"}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				for _, src := range srcs {
					if _, err := Parse("", src, Options{Constants: consts, Only: only}); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(len(srcs)), "files")
		})
	}
}

// exporter answers each line, a serialized value in base64, with what PHP makes of it.
const exporter = `<?php
while ( ( $line = fgets( STDIN ) ) !== false ) {
	$v = unserialize( base64_decode( $line ) );
	echo base64_encode( var_export( $v, true ) ), ' ', base64_encode( serialize( $v ) ), ' ',
		is_array( $v ) ? '!' : base64_encode( (string)$v ), "\n";
}
`

// values are some of all kinds, with awkward ones among them.
func values(depth int) *rapid.Generator[Value] {
	scalars := []*rapid.Generator[Value]{
		rapid.Just[Value](nil),
		rapid.Bool().AsAny(),
		rapid.Int64().AsAny(),
		rapid.SampledFrom([]Value{int64(math.MinInt64), int64(math.MaxInt64), 0.0, math.Copysign(0, -1), math.Inf(1),
			math.Inf(-1), math.NaN(), 1e14,
			1e15, 1e16, 1e17, 1e22, 1e25, 0.1, 1.0 / 3, 1e-4, 1e-5, 5e-324, math.MaxFloat64, 123456789012345678.0,
			100.0, 99999999999999.95}),
		rapid.Float64().AsAny(),
		rapid.Map(rapid.Float64Range(-1e6, 1e6), func(f float64) Value { return math.Round(f*100) / 100 }),
		rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "'", `\`, "\x00", "\"", "$", "\n", "é", "\xff",
			"𝄞", "long enough for more than one word"}), 0, 6),
			func(parts []string) Value { return strings.Join(parts, "") }),
		rapid.SampledFrom([]string{"", "0", "-0", "1", "-1", "01", "1.5", "9223372036854775807",
			"9223372036854775808", "-9223372036854775808", "x"}).AsAny(),
	}
	if depth == 0 {
		return rapid.OneOf(scalars...)
	}
	return rapid.OneOf(append(scalars, arrays(depth).AsAny(), arrays(depth).AsAny(), arrays(depth).AsAny())...)
}

func arrays(depth int) *rapid.Generator[*Array] {
	return rapid.Custom(func(t *rapid.T) *Array {
		a := &Array{}
		for range rapid.IntRange(0, 12).Draw(t, "n") {
			v := values(depth-1).Draw(t, "value")
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0, 1:
				a.Append(v)
			case 2:
				s, _ := ToString(values(0).Draw(t, "key"))
				a.Set(StringKey(s), v)
			default:
				a.Delete(IntKey(rapid.Int64Range(0, 9).Draw(t, "gone")))
			}
		}
		return a
	})
}

// What the writers make of random values is what PHP makes of them.
func TestWritersAgainstPHP(t *testing.T) {
	var vs []Value
	var lines []string
	for i := range 4000 {
		v := values(3).Example(i)
		vs = append(vs, v)
		lines = append(lines, base64.StdEncoding.EncodeToString(AppendSerialize(nil, v)))
	}
	for i, answer := range run(t, exporter, lines) {
		var want [3]string
		for j, word := range strings.Split(answer, " ") {
			if text, err := base64.StdEncoding.DecodeString(word); err != nil {
				want[j] = word
			} else {
				want[j] = string(text)
			}
		}
		text, ok := ToString(vs[i])
		if !ok {
			text = "!"
		}
		got := [3]string{string(AppendExport(nil, vs[i])), string(AppendSerialize(nil, vs[i])), text}
		if got != want {
			t.Fatalf("got\n%q\nwant\n%q", got, want)
		}
	}
}

// staticWriter answers each line, a serialized array in base64, with what MediaWiki's StaticArrayWriter makes of it.
const staticWriter = `<?php
require $argv[1];
while ( ( $line = fgets( STDIN ) ) !== false ) {
	echo base64_encode( Wikimedia\StaticArrayWriter::write( unserialize( base64_decode( $line ) ), 'x' ) ), "\n";
}
`

// AppendStaticArray writes what MediaWiki writes.
func TestStaticArrayAgainstMediaWiki(t *testing.T) {
	for _, suite := range []string{"trixie", "bookworm"} {
		t.Run(suite, func(t *testing.T) {
			var as []*Array
			var lines []string
			for i := range 1000 {
				a := arrays(3).Example(i)
				as = append(as, a)
				lines = append(lines, base64.StdEncoding.EncodeToString(AppendSerialize(nil, a)))
			}
			for i, answer := range run(t, staticWriter, lines, filepath.Join(laid.Tree(t, suite),
				"includes/libs/StaticArrayWriter.php")) {
				want, _ := base64.StdEncoding.DecodeString(answer)
				got := "<?php\n// x\nreturn " + string(AppendStaticArray(nil, as[i], 0, suite == "trixie")) + ";\n"
				if got != string(want) {
					t.Fatalf("got\n%s\nwant\n%s", got, want)
				}
			}
		})
	}
}

// asRead is v as unserialize makes it: the next integer is behind the greatest that is there, even if that is negative.
func asRead(v Value) Value {
	a, ok := v.(*Array)
	if !ok {
		return v
	}
	r := &Array{low: a.Len() > 0}
	for k, v := range a.All() {
		r.Set(k, asRead(v))
	}
	return r
}

// operator answers each line, two serialized arrays in base64, with what each operation makes of them.
const operator = `<?php
error_reporting( E_ALL & ~E_WARNING ); // of arrays as strings
while ( ( $line = fgets( STDIN ) ) !== false ) {
	[ $a, $b ] = array_map( static fn ( $s ) => unserialize( base64_decode( $s ) ), explode( ' ', $line ) );
	try {
		$r = array_merge_recursive( $a, $b );
	} catch ( Error $e ) {
		$r = '!';
	}
	echo base64_encode( serialize( [ $a + $b, array_merge( $a, $b ), $r, array_slice( $a, 1 ), array_unique( $a ), array_is_list( $a ) ] ) ), "\n";
}
`

// Operations on random arrays give what PHP's give.
func TestOperationsAgainstPHP(t *testing.T) {
	var lines []string
	var pairs [][2]*Array
	for i := range 4000 {
		a, b := arrays(3).Example(2*i), arrays(3).Example(2*i+1)
		if i%2 == 0 {
			// The same strings as keys at all levels.
			a.Set(Key{Str: "x"}, values(2).Example(i))
			b.Set(Key{Str: "x"}, values(2).Example(i+1))
			a.Set(Key{Str: "y"}, List("0", int64(0), nil, "", false, "a", "A", 1.0, "1", true))
			b.Set(Key{Str: "y"}, arrays(1).Example(i))
		}
		a, b = asRead(a).(*Array), asRead(b).(*Array)
		pairs = append(pairs, [2]*Array{a, b})
		lines = append(lines, base64.StdEncoding.EncodeToString(AppendSerialize(nil, a))+" "+
			base64.StdEncoding.EncodeToString(AppendSerialize(nil, b)))
	}
	for i, answer := range run(t, operator, lines) {
		a, b := pairs[i][0], pairs[i][1]
		want, _ := base64.StdEncoding.DecodeString(answer)
		var recursive Value = MergeRecursive(a, b)
		if bytes.Contains(want, []byte(`i:2;s:1:"!";i:3;`)) {
			recursive = "!"
		}
		got := AppendSerialize(nil, List(Plus(a, b), Merge(a, b), recursive, Slice1(a), UniqueValues(a), a.IsList()))
		if !bytes.Equal(got, want) {
			t.Fatalf("of\n%s\n%s: got\n%s\nwant\n%s", AppendSerialize(nil, a), AppendSerialize(nil, b), got, want)
		}
		if was := base64.StdEncoding.EncodeToString(AppendSerialize(nil, a)) + " " +
			base64.StdEncoding.EncodeToString(AppendSerialize(nil, b)); was != lines[i] {
			t.Fatalf("arguments were changed: %s", lines[i])
		}
	}
}

// A source from the table or made at random, whatever it holds, is refused or means what it means to PHP.
func TestSourcesAgainstPHP(t *testing.T) {
	var srcs []string
	for _, tt := range evaluated {
		srcs = append(srcs, "<?php\n"+tt.src)
	}
	for _, tt := range refused {
		srcs = append(srcs, tt.src)
	}
	known := len(srcs)
	r := rand.New(rand.NewPCG(1, 2))
	for range 6000 {
		srcs = append(srcs, randomSource(r))
	}
	var lines []string
	for _, s := range srcs {
		lines = append(lines, "="+base64.StdEncoding.EncodeToString([]byte(s)))
	}
	accepted, both := 0, 0
	consts := maps.Clone(testConstants)
	consts["MEDIAWIKI"] = true
	for i, want := range include(t, consts, lines) {
		f, err := Parse("x", []byte(srcs[i]), Options{Constants: testConstants})
		if err != nil {
			if want == "!" {
				both++
			}
			continue
		}
		accepted++
		if got := sorted(f.Vars); got != want {
			t.Errorf("%q: got\n%s\nwant\n%s", srcs[i], got, want)
		}
	}
	t.Logf("%d sources, %d accepted, %d refused by both", len(srcs), accepted, both)
	if accepted < known/2+2000 {
		t.Errorf("too few sources are accepted for a comparison")
	}
}

// randomSource makes PHP that is mostly understood; a third of it is wild.
func randomSource(r *rand.Rand) string {
	wild := r.IntN(3) == 0
	pick := func(ss ...string) string { return ss[r.IntN(len(ss))] }
	space := func() string {
		return pick("", "", "", " ", " ", "\n", "\t", "/* ; ' */", "// ' \" ]\n", "# ;\n", "/** x **/", "//\r", "#?\n", "\r\n")
	}
	var expr func(depth int) string
	text := func() string {
		s := ""
		for range r.IntN(5) {
			s += pick("a", "é", `\\`, `\'`, `\"`, `\n`, `\$`, `\x4`, `\X41`, `\u{1F600}`, `\u{d800}`, `\u`, `\101`,
				`\08`, `\0`, `\e\f\v\q`, "$ ", "{", "$1", "}", " ", "#", "//",
				"?>", "1", "0", "-", ".5", `\{`, "/*", "<<<", "\n", "\r\n", `\8`, `\377`, "\x00")
			if wild && r.IntN(20) == 0 {
				s += pick("$a", "{$", "${", `\400`, `\u{110000}`, `\u{}`, "'", `"`, `\`, `\u{ 1}`, `\u{1`)
			}
		}
		return s
	}
	literal := func() string {
		switch r.IntN(12) {
		case 0, 1, 2:
			return "'" + strings.ReplaceAll(text(), "'", "") + "'"
		case 3, 4:
			return `"` + strings.ReplaceAll(text(), `"`, "") + `"`
		case 5:
			return pick("0", "1", "-1", "- 1", "00", "017", "0x1F", "0b101", "0o17", "1_000", "0X7FFFFFFFFFFFFFFF",
				"9223372036854775807", "9223372036854775808",
				"-9223372036854775808", "0xFFFFFFFFFFFFFFFFF", "0777777777777777777777777", "+5", "- -1", "-+1",
				"0b1111111111111111111111111111111111111111111111111111111111111111111")
		case 6:
			if r.IntN(6) == 0 {
				base := r.IntN(3)
				s := []string{"0b", "0", "0x"}[base]
				for range 15 + r.IntN(70) {
					s += string("0101101711f"[r.IntN([]int{7, 8, 11}[base])])
				}
				return s
			}
			return pick("1.5", ".5", "1.", "1e3", "1E-3", "-0.0", "1_0.2_5e1_0", "010.5", "1e999", "0.1", "1.0",
				"-2.0", "3e0", "1e15", "010e1", "9.2e18", "9.3e18")
		case 7:
			return pick("true", "FALSE", "Null", `\true`, "NS_TALK", `\NS_USER`, "LIST_C", "INF", "STRING_C", "FLOAT_C")
		case 8:
			if !wild {
				break
			}
			return pick("08", "1__0", "1_", "0x", "NS_NONE", "exit", "++1", "--$a", "5 % 2", "1 <=> 2", "!1", "`:`",
				"new X", "__LINE__", "(int) 5", "b'x'", "PHP_OS", "fn() => 1", "&$a", "@1",
				"1...2", "0b2", "1 . 2", "1 .2", "1.2.3", "static::X", "A::B", "'a'[0]", "[1][0]")
		case 9:
			q := pick("", "'", `"`)
			nl := pick("\n", "\r\n", "\n")
			if !wild {
				return "<<<" + q + "EOT" + q + nl + text() + nl + "EOT"
			}
			return "<<<" + pick("", " ") + q + "EOT" + q + nl + text() + pick("", "EOTX", " EOTX", "\\",
				"\n") + nl + pick("", "", "", " ") + "EOT" + pick("", "\n")
		case 10:
			if !wild {
				return pick("$a", "$a['x']", "$a [ 1 ]", "$a['x'][0]", "$a")
			}
			return pick("$a", "$b", "$a['x']", "$b[0]", "$c", "$a[1]['x']", "$d['x']", "$d", "$a['none']")
		}
		return pick("[]", "array()", "''", "null", "'x'", "'1'", "'-5'", "-5")
	}
	expr = func(depth int) string {
		if depth == 0 || r.IntN(4) == 0 {
			return literal()
		}
		kind := r.IntN(9)
		if kind < 4 && !wild {
			switch kind {
			case 0:
				return "'x'" + space() + "." + space() + pick("'y'", "$a['x'][0]", "NS_TALK", "STRING_C", "-1",
					"null", "\"\\n\" . true", "(2)")
			case 1:
				return "[ " + expr(depth-1) + " ] +" + space() + "[" + expr(depth-1) + ",-3=>" + expr(depth-1) + "] + $a + LIST_C"
			case 2:
				return "(" + space() + expr(depth-1) + space() + ")"
			}
			return pick("-", "+", "- ", "- - ") + pick("1", "(5)", "1.5", "NS_TALK", "0") + pick("", " + 1", "-2")
		}
		switch kind {
		case 0:
			return literal() + space() + "." + pick(" ", "") + literal()
		case 1:
			return expr(depth-1) + space() + pick("+", "+", "+", "-") + space() + expr(depth-1)
		case 2:
			return "(" + space() + expr(depth-1) + space() + ")"
		case 3:
			return pick("-", "+", "- ", "!") + expr(depth-1)
		}
		left, right := "[", "]"
		if r.IntN(3) == 0 {
			left, right = pick("array(", "ARRAY (", "array\n("), ")"
		}
		s := left + space()
		for range r.IntN(5) {
			if r.IntN(2) == 0 {
				if wild {
					s += literal()
				} else {
					s += pick("'x'", "'1'", "1", "-5", "true", "NULL", "2.0", "NS_USER", "'é' . 1", "\"\\x41\"",
						"0x1F", "$a['x'][0]", "'x'", "7")
				}
				s += space() + "=>" + space()
			}
			s += expr(depth-1) + space() + "," + space()
		}
		if r.IntN(2) == 0 {
			s += expr(depth-1) + space()
		}
		return s + right
	}
	variable := func() string {
		if !wild {
			return pick("$b", "$c", "$d", "$a[]", "$a['z'][ 'x' ][]", "$a['y'] ['1']", "$a[true]", "$b", "$c", "$b")
		}
		s := pick("$a", "$b", "$c", "$d")
		for range r.IntN(3) * r.IntN(2) {
			s += space() + "[" + pick("", "'x'", "1", "'1'", "-5", "null", "true", "1.0", "1.5", literal()) + "]"
		}
		return s
	}
	var statement func(depth int) string
	statement = func(depth int) string {
		kind := r.IntN(16)
		if kind < 5 && !wild {
			kind = r.IntN(4)
			if kind == 0 || kind == 2 {
				return pick("unset( $b, $c );", "unset( $a['y'], );", "$d = $a; $d['x'][] = 1;",
					"defined( 'MEDIAWIKI' ) || die();", ";", "unset( $d, $e ); $d[-5] = 1; $d[] = 2;",
					"if ( !defined( 'OWN_C' ) ) { define( 'OWN_C', "+expr(1)+" ); } $c = OWN_C;",
					"$d = [ -7 => 1 ]; unset( $d[-7] ); $d[] = 1; $c = $d; $c[] = 2;")
			}
		}
		switch kind {
		case 0:
			return "unset(" + space() + strings.ReplaceAll(variable(), "[]", "") + pick("", ",") + ");"
		case 1:
			return "define( 'OWN_" + pick("A", "B") + "', " + literal() + " );"
		case 2:
			return "$c = " + pick("OWN_A", "OWN_B", "OWN_C") + ";"
		case 3:
			if depth == 0 {
				return ";"
			}
			return "if ( " + pick("", "!", "! ") + "defined( '" + pick("NS_TALK", "MEDIAWIKI", "OWN_A", "NONE") + "' ) ) " +
				pick("{ "+statement(depth-1)+statement(depth-1)+" }", statement(depth-1), "exit;", "{ die( 'x' ); }")
		case 4:
			return pick("defined( 'MEDIAWIKI' ) || die();", "defined( 'NONE' ) or exit( 1 );",
				"defined( 'MEDIAWIKI' ) or die( 'x' );", "{ }", "echo 'x';", "$a .= 'x';", "$a === 1;",
				"return;", "$a = $b = 1;", "$$a = 1;", "$this = 1;", "#[X]\n", "$a =& $b;", "[$a] = [1];", "$a++;",
				"?>x<?php ", "__halt_compiler();")
		}
		return variable() + space() + "=" + space() + expr(3) + space() + ";" + space()
	}
	s := pick("<?php\n", "<?php ", "<?PHP\r\n", "<?php\n\n/* x */", "<?php\ndeclare( strict_types=1 );\n",
		"<?php namespace A\\B;", "<?php\nuse A\\B, C\\D as E;\n",
		"<?php declare( strict_types=1 ); namespace A; use B\\C;")
	if !wild {
		s += "$a = [ 'x' => [ 1, 2 ], 1 => 'q', 'y' => null ];\n"
	}
	s += pick("", "", "", "$a = []; $b = [ -5 => 1 ]; $d = 'str';\n")
	for range 1 + r.IntN(4) {
		s += statement(2)
	}
	if r.IntN(8) == 0 {
		s += "class K" + pick("", "\n", " extends L") + " { " + pick("public ", "private ", "") + "const P = " + pick("self::Q", expr(2)) + ", Q = " + expr(2) + "; " +
			pick("", "public static $r = self::P; ", "static $r = [ self::Q => 1 ]; ", "protected static array $r = []; ", "static $s; ", "public $t = 1; ", "static array $r = 1;", "static $r = self::NONE;") + "}"
	}
	s += pick("", "", "", "\n", "?>", "?>\n", "?>\n\n", "// x ?>", "#")
	if wild && r.IntN(3) == 0 {
		i := r.IntN(len(s))
		s = s[:i] + pick("", "'", "[", "]", ";", ",", "\\", "$", "(", ".", "=", "{", "?>", "/*", "#", "\x00", "\v", "\xff", "0", "-") + s[min(len(s), i+r.IntN(3)):]
	}
	return s
}
