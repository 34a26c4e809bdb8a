package php

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var testConstants = map[string]Value{
	"NS_TALK": int64(1), "NS_USER": int64(2), "LIST_C": List("a", List("b")), "STRING_C": "text", "FLOAT_C": 1.5,
}

// evaluated are sources behind <?php and newline, with their variables, serialized in the order of names.
var evaluated = []struct{ src, want string }{
	{"", "a:0:{}"},
	{"$a = 1;", `a:1:{s:1:"a";i:1;}`},
	{"$a = 1 ?>\n", `a:1:{s:1:"a";i:1;}`},
	{"$a = [ 'x' => 1, 2, '5' => true, 'y', ];", `a:1:{s:1:"a";a:4:{s:1:"x";i:1;i:0;i:2;i:5;b:1;i:6;s:1:"y";}}`},
	{"$a = array( 1, array(), );", `a:1:{s:1:"a";a:2:{i:0;i:1;i:1;a:0:{}}}`},
	{"$a = [ 'x' => 1, 'y' => 2, 'x' => 3 ];", `a:1:{s:1:"a";a:2:{s:1:"x";i:3;s:1:"y";i:2;}}`},
	{"$a = [ true => 1, false => 2, null => 3, 2.0 => 4, '01' => 5, '-0' => 6, -7 => 8 ];",
		`a:1:{s:1:"a";a:7:{i:1;i:1;i:0;i:2;s:0:"";i:3;i:2;i:4;s:2:"01";i:5;s:2:"-0";i:6;i:-7;i:8;}}`},
	{"$a = [ -5 => 1, 2 ];", `a:1:{s:1:"a";a:2:{i:-5;i:1;i:-4;i:2;}}`},
	{"$a = []; $a[-5] = 1; $a[] = 2;", `a:1:{s:1:"a";a:2:{i:-5;i:1;i:0;i:2;}}`},
	{"$a[-5] = 1; $a[] = 2;", `a:1:{s:1:"a";a:2:{i:-5;i:1;i:-4;i:2;}}`},
	{"$a = [ 'x' => [ 1 ] ]; $a['x'][] = 2; $a['y']['z'][] = 3;",
		`a:1:{s:1:"a";a:2:{s:1:"x";a:2:{i:0;i:1;i:1;i:2;}s:1:"y";a:1:{s:1:"z";a:1:{i:0;i:3;}}}}`},
	{"$a = [ [ 1 ] ]; $b = $a; $b[0][] = 2; $c = $a[0][0];",
		`a:3:{s:1:"a";a:1:{i:0;a:1:{i:0;i:1;}}s:1:"b";a:1:{i:0;a:2:{i:0;i:1;i:1;i:2;}}s:1:"c";i:1;}`},
	{"$a = [ 1 ]; $a[] = $a;", `a:1:{s:1:"a";a:2:{i:0;i:1;i:1;a:1:{i:0;i:1;}}}`},
	{"$a = [ 1, 2, 3 ]; unset( $a[2], $a[7], $b, ); $a[] = 4;", `a:1:{s:1:"a";a:3:{i:0;i:1;i:1;i:2;i:3;i:4;}}`},
	{"$t = 'x'; $a = \"<$t\";", ""},
	{"$t = 'x'; $a = '<' . $t . 1 . null . true . -2 . '>'; unset( $t );", `a:1:{s:1:"a";s:7:"<x11-2>";}`},
	{"$a = [ 'x' => 1 ] + [ 'x' => 2, 'y' => 3 ];", `a:1:{s:1:"a";a:2:{s:1:"x";i:1;s:1:"y";i:3;}}`},
	{"$a = -9223372036854775807-1; $b = 1 + 2 - 4;", `a:2:{s:1:"a";i:-9223372036854775808;s:1:"b";i:-1;}`},
	{`$a = '\'\\\n$x'; $b = "\n\t\r\v\e\f\\\$\"\101\x4a\u{e9}\u{10FFFF}\q$ {";`,
		"a:2:{s:1:\"a\";s:6:\"'\\\\n$x\";s:1:\"b\";s:22:\"\n\t\r\v\x1b\f\\$\"AJé\U0010ffff\\q$ {\";}"},
	{"$a = <<<X\n\\x41\\\"\n  b\nX\n. 'c'; $b = <<<'X'\nX; $c = <<< \"X\"\r\n\\n\r\n\r\nX;",
		"a:3:{s:1:\"a\";s:8:\"A\\\"\n  bc\";s:1:\"b\";s:0:\"\";s:1:\"c\";s:3:\"\n\r\n\";}"},
	{"$a = [ 0x1F, 0b11, 017, 0o17, 1_000, 9223372036854775808, 1e3, .5, 1., 0xFFFFFFFFFFFFFFFFF ];",
		`a:1:{s:1:"a";a:10:{i:0;i:31;i:1;i:3;i:2;i:15;i:3;i:15;i:4;i:1000;i:5;d:9.223372036854776E+18;i:6;d:1000;i:7;d:0.5;i:8;d:1;i:9;d:2.9514790517935283E+20;}}`},
	{"$a = [ -1, - 1, +1, - -1, -1.5, -0, -0.0, -9223372036854775808 ];",
		`a:1:{s:1:"a";a:8:{i:0;i:-1;i:1;i:-1;i:2;i:1;i:3;i:1;i:4;d:-1.5;i:5;i:0;i:6;d:-0;i:7;d:-9.223372036854776E+18;}}`},
	{"$a = [ NS_TALK => \\NS_USER, TRUE, False, nULL ]; $b = LIST_C; $b[1][] = 'c'; $c = LIST_C;",
		`a:3:{s:1:"a";a:4:{i:1;i:2;i:2;b:1;i:3;b:0;i:4;N;}s:1:"b";a:2:{i:0;s:1:"a";i:1;a:2:{i:0;s:1:"b";i:1;s:1:"c";}}s:1:"c";a:2:{i:0;s:1:"a";i:1;a:1:{i:0;s:1:"b";}}}`},
	{"if ( !defined( 'OWN' ) ) { define( 'OWN', 3000 ); } $a = OWN; if ( !defined( 'NS_TALK' ) ) { define( 'NS_TALK', 9 ); } $b = NS_TALK;",
		`a:2:{s:1:"a";i:3000;s:1:"b";i:1;}`},
	{"if ( !defined( 'MEDIAWIKI' ) ) { die( 'no' ); } if ( !defined( \"MEDIAWIKI\" ) ) exit; defined( 'MEDIAWIKI' ) || exit( 1 ); $a = 1;",
		`a:1:{s:1:"a";i:1;}`},
	{"declare( strict_types=1 );\nnamespace A\\B;\nuse C\\D, \\E\\F as G;\n$a = NS_TALK;", `a:1:{s:1:"a";i:1;}`},
	{"namespace A;\nfinal class N {\n\tpublic static $n = self::C + self::B;\n\tprivate const B = [ 'x' => self::C ], C = [ 1 ];\n\tprotected static array $e = [];\n\tstatic $z;\n}\n",
		`a:5:{s:1:"B";a:1:{s:1:"x";a:1:{i:0;i:1;}}s:1:"C";a:1:{i:0;i:1;}s:1:"e";a:0:{}s:1:"n";a:2:{i:0;i:1;s:1:"x";a:1:{i:0;i:1;}}s:1:"z";N;}`},
	{"if ( !defined( 'NS_TALK' ) ) { $a = 2; unset( $b ); }", `a:0:{}`},
	{"$a = [ 0b1111111111111111111111111111111111111111111111111111111111111111111, 07777777777777777777777777 ];",
		`a:1:{s:1:"a";a:2:{i:0;d:1.475739525896764E+20;i:1;d:3.777893186295716E+22;}}`},
	{"$a = 1 // x ?>\n", `a:1:{s:1:"a";i:1;}`},
	{"# ' \n// \" ?" + "\n/* ; */$a/**/=/* [ */1#\n;;", `a:1:{s:1:"a";i:1;}`},
	{"$a = 1; // ?>\n", `a:1:{s:1:"a";i:1;}`},
}

// refused are whole sources, with the place and text of their error.
var refused = []struct{ src, want string }{
	{"", "x:1:1: does not begin with <?php"},
	{"\ufeff<?php\n", "x:1:1: does not begin with <?php"},
	{"<?phpx", "x:1:6: no space behind <?php"},
	{"<?php\n$a = [ NS_NONE => 1 ];", "x:2:8: constant NS_NONE is not defined"},
	{"<?php\n\n  $a = foo( 1 );", "x:3:8: foo where a value should be: only literals are understood"},
	{"<?php\n$a = Foo::BAR;", "x:2:6: Foo where a value should be: only literals are understood"},
	{"<?php\n$a = \"x $b\";", "x:2:6: string with a variable in it: join it by dots"},
	{"<?php\n$a = <<<X\n$b\nX;", "x:2:6: heredoc with a variable in it: join it by dots"},
	{"<?php\n$a = <<<X\n  b\n  X;", "x:2:6: heredoc whose end is indented: begin its last line with X"},
	{"<?php\r\n$a = $b;", "x:2:6: $b is not set"},
	{"<?php\n$a = [ 'x' => 1 ]; $b = $a['y'];", "x:2:25: $a has no such element: y"},
	{"<?php\n$a = 1; $a[] = 2;", "x:2:9: $a is not an array, so it has no elements to set"},
	{"<?php\n$a = [ 'x' ]; $a[0]['y'] = 2;", "x:2:15: element 0 is not an array, so it has no elements to set"},
	{"<?php\n$a = [ 1.5 => 1 ];", "x:2:8: key is a float that is no integer"},
	{"<?php\n$a = [ [] => 1 ];", "x:2:8: key is an array"},
	{"<?php\n$a = [ 9223372036854775807 => 1, 2 ];", "x:2:34: no integer is left for the key"},
	{"<?php\n$a = 1", "x:2:7: the file ends where ; should be"},
	{"<?php\n$a = 'x", "x:2:6: string without end"},
	{"<?php\n/* x", "x:2:1: comment without end"},
	{"<?php\n$a = [ 1, 2;", "x:2:12: ; where ] should be: only literals are understood"},
	{"<?php\n$a = 08;", "x:2:6: 8 or 9 in an octal number"},
	{"<?php\n$a = '1' + 1;", "x:2:10: + is understood for integers, and + for arrays"},
	{"<?php\n$a = 1.5 . 'x';", "x:2:10: an array or a float is joined to a string; PHP's result is not fixed"},
	{"<?php\n$a = \"\\u{110000}\";", `x:2:6: \u{110000} is no code point`},
	{"<?php\n$a = \"\\400\";", `x:2:6: \400 is no byte`},
	{"<?php\n$a = 9223372036854775807 + 1;", "x:2:26: sum too large"},
	{"<?php\n$a = -2 - 9223372036854775807;", "x:2:9: sum too large"},
	{"<?php\n$a = " + strings.Repeat("[", 201), "x:2:207: nested too deep"},
	{"<?php\n$a = " + strings.Repeat("(", 201), "x:2:206: nested too deep"},
	{"<?php\n$a = [];\n" + strings.Repeat("$a = [ $a ];\n", 201), "x:202:8: nested too deep"},
	{"<?php\n?>x", "x:2:1: text behind ?> would be printed; remove it, and best the ?> as well"},
	{"<?php\nfunction f() {}", "x:2:1: function where a statement should be: only literals are understood"},
	{"<?php\n$this = 1;", "x:2:1: $this is not of this file"},
	{"<?php\nif ( !defined( 'NONE' ) ) { exit; }", "x:2:29: ends PHP here: is a constant missing that the file asks for?"},
	{"<?php\ndefine( 'NS_TALK', 1 );", "x:2:1: constant NS_TALK is defined already; ask defined() first"},
	{"<?php\nif ( true ) { $a = 1; }", "x:2:6: true where defined should be: only literals are understood"},
	{"<?php\nif ( defined( 'X' ) ) { } else { $a = 1; }",
		"x:2:27: else where a statement should be: only literals are understood"},
	{"<?php\nclass A { const B = self::C; const C = self::B; }",
		"x:2:40: self::B is no constant of this class that has a value"},
	{"<?php\nclass A { function f() {} }",
		"x:2:11: function where a constant or static property should be: only literals are understood"},
	{"<?php\n$a = 1;\nnamespace A;", "x:3:1: namespace where a statement should be: only literals are understood"},
	{"<?php\n$a = A\\B;", `x:2:6: constant A\B may be more than one; begin its name with \`},
}

func TestParse(t *testing.T) {
	for _, tt := range evaluated {
		if tt.want == "" {
			continue
		}
		f, err := Parse("x", []byte("<?php\n"+tt.src), Options{Constants: testConstants})
		if err != nil {
			t.Errorf("%s: %v", tt.src, err)
			continue
		}
		if got := serialized(f.Vars); got != tt.want {
			t.Errorf("Parse(%s):\n%q\nwant\n%q", tt.src, got, tt.want)
		}
	}
}

// serialized is a file's variables in the order of their names.
func serialized(vars *Array) string {
	var names []string
	for k := range vars.All() {
		names = append(names, k.Str)
	}
	slices.Sort(names)
	sorted := &Array{}
	for _, n := range names {
		v, _ := vars.Get(Key{Str: n})
		sorted.Set(Key{Str: n}, v)
	}
	return string(AppendSerialize(nil, sorted))
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range refused {
		f, err := Parse("x", []byte(tt.src), Options{Constants: testConstants})
		var e *Error
		if f != nil || !errors.As(err, &e) {
			t.Errorf("Parse(%q) = %v, %v", tt.src, f, err)
		} else if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", tt.src, diff)
		}
	}
}

func TestConstantsUsed(t *testing.T) {
	src := "<?php\nnamespace A;\nif ( !defined( 'NONE' ) ) { define( 'OWN', [ NS_TALK, NS_TALK ] ); }\n$a = [ OWN, \\B\\C, true, INF ];\n"
	consts := map[string]Value{"NS_TALK": int64(1), `B\C`: "c", `A\OWN`: int64(5)}
	f, err := Parse("x", []byte(src), Options{Constants: consts})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`A\INF`, `A\NS_TALK`, `A\OWN`, `B\C`, "NONE", "NS_TALK", "OWN"}, f.Constants); diff != "" {
		t.Errorf("Constants (-want +got):\n%s", diff)
	}
	a, _ := f.Vars.Get(StringKey("a"))
	if got, want := string(AppendSerialize(nil, a)), `a:4:{i:0;i:5;i:1;s:1:"c";i:2;b:1;i:3;d:INF;}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Constants of the caller are not changed by assignments.
func TestConstantsStay(t *testing.T) {
	inner := List("b")
	consts := map[string]Value{"C": List(inner)}
	if _, err := Parse("x", []byte("<?php $a = C; $a[] = 1; $a[0][] = 2; $b = C + [ 5 => 1 ];"),
		Options{Constants: consts}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(List(List("b")), consts["C"]); diff != "" {
		t.Errorf("constant (-want +got):\n%s", diff)
	}
}

func TestOnly(t *testing.T) {
	tests := []struct{ src, want string }{
		{"$x = [ 'a' => [ NS_NONE, \"b'\" ], /* ' ; */ 'c\\'' => array( 1, 2.5 ) ]; # ;\n$fallback = 'de'; $y[] = 'q;';", `a:1:{s:8:"fallback";s:2:"de";}`},
		{"$fallback = 'de'; $fallback .= 'x';", "!"},
		{"$x = 'de'; $fallback = $x . 'x';", `a:1:{s:8:"fallback";s:3:"dex";}`},
		{"$x = NS_NONE; $fallback = $x;", "!"},
		{"$x = ( $fallback = 'de' );", "!"},
		{"$x =& $fallback; $x = 'de';", "!"},
		{"$x = \"{$fallback}\";", "!"},
		{"$x = \"$y\";", "!"},
		{"$x = extract( [ 'fallback' => 'de' ] );", "!"},
		{"$x = 'extract' ( [ 'fallback' => 'de' ] );", "!"},
		{"$x = include 'y.php';", "!"},
		{"$x = exit; $fallback = 'de';", "!"},
		{"$x = [ 1, 2 ); $fallback = 'de';", "!"},
		{"$x = 'y\\\\'; $fallback = 'de\\\\';", `a:1:{s:8:"fallback";s:3:"de\";}`},
		{"$x = 'y\\'; $fallback = \\'de'; $fallback = 'fr';", `a:1:{s:8:"fallback";s:2:"fr";}`},
		{"$x = <<<'E'\n; $fallback = 'de';\nE;\n$fallback = 'fr';", `a:1:{s:8:"fallback";s:2:"fr";}`},
		{"$x = 'a' // don't\n . 'b' # ;\n; $fallback = 'fr';", `a:1:{s:8:"fallback";s:2:"fr";}`},
		{"$x = fn() => 1; $fallback = 'fr';", "!"},
		{"$x = $y--; $fallback = 'fr';", "!"},
		{"$fallback['a'] = 1; $x[ NS_TALK ] = -1 + \\NS_TALK; unset( $fallback['a'] );", `a:1:{s:8:"fallback";a:0:{}}`},
		{"class A { public static $x = self::Y, $fallback = self::Y; const Y = [ '}' ]; }",
			`a:1:{s:8:"fallback";a:1:{i:0;s:1:"}";}}`},
	}
	for _, tt := range tests {
		f, err := Parse("x", []byte("<?php\n"+tt.src), Options{Constants: testConstants, Only: []string{"fallback"}})
		got := "!"
		if err == nil {
			got = serialized(f.Vars)
		} else if e := (*Error)(nil); !errors.As(err, &e) {
			t.Errorf("%s: %v", tt.src, err)
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s (%v)", tt.src, got, tt.want, err)
		}
	}
}

// Sources that would make a careless parser overflow, or take for ever, are refused or read in little time.
func TestBounds(t *testing.T) {
	const n = 200_000
	for name, src := range map[string]string{
		"arrays":        "$a = " + strings.Repeat("[", n),
		"brackets":      "$a = " + strings.Repeat("(", n),
		"signs":         "$a = " + strings.Repeat("- ", n) + "1;",
		"blocks":        strings.Repeat("if (defined('A')) ", n) + ";",
		"dims":          "$a" + strings.Repeat("['x']", n) + " = 1;",
		"inner dims":    "$a = []; $b = " + strings.Repeat("$a[", n),
		"deep values":   "$a = []; " + strings.Repeat("$a = [ $a ]; ", n),
		"deep elements": "$a = []; " + strings.Repeat("$a['x'] = $a; ", n),
		"doubled":       "$a = [ 1 ]; " + strings.Repeat("$a = [ $a, $a ]; ", 100),
		"long strings":  "$a = 'xxxxxxxx'; " + strings.Repeat("$a = $a . $a; ", 100),
		"dots":          "$a = 'x'" + strings.Repeat(" . 'x'", n) + ";",
		"sums":          "$a = [ 1, 2, 3 ]; $b = []" + strings.Repeat(" + $a", n) + ";",
		"comments":      strings.Repeat("//\r", n),
		"heredocs":      "$a = [ " + strings.Repeat("<<<A\rx\rA,", n) + "];",
		"open heredocs": "$a = [ " + strings.Repeat("<<<A\nx\nB\n", n) + "];",
		"members":       "class A { " + strings.Repeat("const A = self::Z; ", n) + "}",
		"deferred": func() string {
			s := "class A { "
			for i := range 200 {
				s += "const A" + strings.Repeat("x", i) + " = self::A" + strings.Repeat("x", i+1) + "; "
			}
			return s + " }"
		}(),
	} {
		for _, only := range [][]string{nil, {"b"}} {
			start := time.Now()
			Parse("x", []byte("<?php\n"+src), Options{Only: only})
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("%s: %v", name, d)
			}
		}
	}
}

// FuzzParse checks that Parse ends without a panic, that what it accepts is the same value once it is exported and read
// again, and that one variable alone is what it is among all.
func FuzzParse(f *testing.F) {
	for _, tt := range evaluated {
		f.Add([]byte("<?php\n" + tt.src))
	}
	for _, tt := range refused {
		f.Add([]byte(tt.src))
	}
	opt := Options{Constants: testConstants}
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := Parse("x", src, opt)
		if err != nil {
			return
		}
		text := []byte("<?php\n")
		for k, v := range file.Vars.All() {
			text = AppendExport(append(append(append(text, '$'), k.Str...), " = "...), v)
			text = append(text, ";\n"...)
		}
		static := append(AppendStaticArray([]byte("<?php $all = "), file.Vars, 0, true), ';')
		again, err := Parse("again", text, Options{})
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if diff := cmp.Diff(file.Vars, again.Vars); diff != "" {
			t.Fatalf("exported as\n%s\n(-want +got):\n%s", text, diff)
		}
		if again, err = Parse("static", static, Options{}); err != nil {
			t.Fatalf("%v in\n%s", err, static)
		}
		if all, _ := again.Vars.Get(StringKey("all")); !Equal(file.Vars, all) {
			t.Fatalf("static array\n%s is another value", static)
		}
		for k, v := range file.Vars.All() {
			one, err := Parse("x", src, Options{Constants: testConstants, Only: []string{k.Str}})
			if err != nil {
				t.Fatalf("%s alone: %v", k, err)
			}
			if w, ok := one.Vars.Get(k); !ok || !Equal(v, w) || one.Vars.Len() != 1 {
				t.Fatalf("%s alone is %s", k, AppendExport(nil, w))
			}
		}
	})
}

// BenchmarkParse reads a source as MediaWiki's are.
func BenchmarkParse(b *testing.B) {
	var src strings.Builder
	src.WriteString("<?php\n/** Deutsch */\n\n$fallback = 'en';\n")
	for _, name := range []string{"magicWords", "specialPageAliases", "namespaceNames"} {
		src.WriteString("\n/** @phpcs-require-sorted-array */\n$" + name + " = [\n")
		for i := range 150 {
			src.WriteString("\t'key" + strings.Repeat("x",
				i%17) + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "'         => [ '0', 'Überschrift_des_Wortes', 'OTHERWORD' ],\n")
		}
		src.WriteString("];\n")
	}
	text := []byte(src.String())
	for name, only := range map[string][]string{"all": nil, "only": {"fallback"}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse("x", text, Options{Only: only}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
