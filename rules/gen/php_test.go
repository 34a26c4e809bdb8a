package gen

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func names(src string) []string {
	var names []string
	for _, u := range isLoadedCalls([]byte(src)) {
		names = append(names, u.name)
	}
	return names
}

func TestIsLoadedCalls(t *testing.T) {
	for name, tc := range map[string]struct {
		code string // after <?php
		want []string
	}{
		"instance":              {`ExtensionRegistry::getInstance()->isLoaded( 'Cite' );`, []string{"Cite"}},
		"static":                {`X::isLoaded("Cite")`, []string{"Cite"}},
		"null-safe":             {`$r?->isLoaded( 'Cite' )`, []string{"Cite"}},
		"version":               {`$r->isLoaded( 'Abuse Filter', '>= 1' )`, []string{"Abuse Filter"}},
		"spread out":            {"$r // the registry's\n  ->isLoaded /* really */ (\n\t# this one\n\t'Cite'\n)", []string{"Cite"}},
		"two":                   {`$r->isLoaded( 'A' ) && $r->isLoaded( 'B' )`, []string{"A", "B"}},
		"nested":                {`$r->isLoaded( $r->isLoaded( 'A' ) ? 'B' : 'C' )`, []string{"A"}},
		"any case":              {`$r->ISLOADED( 'Cite' )`, []string{"Cite"}},
		"quoted":                {`$r->isLoaded( 'It\'s \\ \n' )`, []string{`It's \ \n`}},
		"a function":            {`isLoaded( 'Cite' )`, nil},
		"its declaration":       {`function isLoaded( $name = 'Cite' ) {}`, nil},
		"another method":        {`$r->isLoadedNot( 'Cite' )`, nil},
		"a variable method":     {`$r->$isLoaded( 'Cite' )`, nil},
		"a variable":            {`$r->isLoaded( $name )`, nil},
		"concatenated":          {`$r->isLoaded( 'Ci' . $te )`, nil},
		"interpolated":          {`$r->isLoaded( "Ci$te" )`, nil},
		"line comment":          {"// $r->isLoaded( 'Cite' )\n# $r->isLoaded( 'Cite' )\n", nil},
		"block comment":         {"/* ' */ /** $r->isLoaded( 'Cite' ) */", nil},
		"comment in a string":   {`$a = '// '; $r->isLoaded( 'Cite' ); $b = "/*";`, []string{"Cite"}},
		"comment ends at tag":   {"// ?> $r->isLoaded( 'A' ) <?php $r->isLoaded( 'B' );", []string{"B"}},
		"attribute":             {"#[Foo( '//' )] function f() { $r->isLoaded( 'Cite' ); }", []string{"Cite"}},
		"single quotes":         {`$a = '$r->isLoaded( "Cite" ) \' $r->isLoaded( "Cite" )';`, nil},
		"double quotes":         {`$a = "$r->isLoaded( 'Cite' ) \" $r->isLoaded( 'Cite' )";`, nil},
		"backticks":             {"$a = `$r->isLoaded( 'Cite' )`;", nil},
		"heredoc":               {"$a = <<<END\n$r->isLoaded( 'A' ) \" '\nENDS\n  END . $r->isLoaded( 'B' );", []string{"B"}},
		"quoted heredoc":        {"$a = <<< \"END\"\n$r->isLoaded( 'A' ) '\nEND;\n$r->isLoaded( 'B' );", []string{"B"}},
		"nowdoc":                {"$a = <<<'END'\n{$r->isLoaded( 'A' )} '\nEND;\n$r->isLoaded( 'B' );", []string{"B"}},
		"empty heredoc":         {"$a = <<<END\nEND;\n$r->isLoaded( 'B' );", []string{"B"}},
		"a shift":               {"$a = 1 <<<<2; $r->isLoaded( 'B' );", []string{"B"}},
		"evaluated":             {`$a = "x {$r->isLoaded( 'A' )} y {$b["c"]} ${d} $r->isLoaded( 'N' )"; $r->isLoaded( 'B' );`, []string{"A", "B"}},
		"evaluated, with brace": {`$a = "{$f( function () { return '}'; } )}"; $r->isLoaded( 'B' );`, []string{"B"}},
		"evaluated in heredoc":  {"$a = <<<END\n{$r->isLoaded( 'A' )} $r->isLoaded( 'N' )\nEND;\n$r->isLoaded( 'B' );", []string{"A", "B"}},
		"outside":               {`?> $r->isLoaded( 'A' ) ' <?= $r->isLoaded( 'B' ) ?> ' <?xml isLoaded( 'C' ) ?> <?PHP $r->isLoaded( 'D' );`, []string{"B", "D"}},
		"non-ASCII":             {`$ré->isLoaded( 'Größe' )`, []string{"Größe"}},
		"unfinished":            {`$r->isLoaded( 'Cite' `, nil},
		"unfinished string":     {`$r->isLoaded( 'Cite`, nil},
	} {
		if diff := cmp.Diff(tc.want, names("<?php\n"+tc.code)); diff != "" {
			t.Errorf("%s: %s (-want +got):\n%s", name, tc.code, diff)
		}
	}
	if got := names(`$r->isLoaded( 'Cite' )`); got != nil {
		t.Errorf("text without <?php: %v", got)
	}
	src := "<?php\n$é->isLoaded( 'Cite' );"
	if got := position("a.php", []byte(src), isLoadedCalls([]byte(src))[0].offset); got != "a.php:2:15" {
		t.Errorf("position %s", got)
	}
}

// Whatever stands around them, calls are found and nothing else.
func TestIsLoadedCallsProperties(t *testing.T) {
	quiet := rapid.SampledFrom([]string{
		"// it's \"$r->isLoaded( 'no' )\n", "# <<<A ' ?\n", "/* $r->isLoaded( 'no' ) */", "'\\'$r->isLoaded( \"no\" )'", `"\"$r->isLoaded( 'no' ) '"`,
		"<<<A\n  \"$r->isLoaded( 'no' )\nAB\n  A", "<<<'A'\n{$r->isLoaded( 'no' )} \\\nA", "?> it's $r->isLoaded( 'no' ) <?php ", "{ }", "$a->b( 'c' )",
		"\"{$a['b']} {$c[\"d\"]}\"", "`ls '`", "; ", "isLoaded( 'no' )", "1 << 2", "->isLoaded( $x, 'no' )",
	})
	call := rapid.SampledFrom([]string{"$r->isLoaded( %s )", "R::isLoaded(%s,2)", "$r ?-> isLoaded /**/ ( \n%s )", "\"{$r->isLoaded(%s)}\""})
	rapid.Check(t, func(t *rapid.T) {
		src := "<?php "
		var want []string
		for range rapid.IntRange(0, 20).Draw(t, "pieces") {
			if rapid.Bool().Draw(t, "call") {
				name := rapid.StringMatching(`[A-Z][A-Za-z ]{0,5}`).Draw(t, "name")
				src += strings.ReplaceAll(call.Draw(t, "form"), "%s", "'"+name+"'")
				want = append(want, name)
			} else {
				src += quiet.Draw(t, "quiet")
			}
			src += " ;\n"
		}
		if got := names(src); !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q in\n%s", got, want, src)
		}
	})
}

// FuzzIsLoadedCalls: no input is too odd, and what is found stands there.
func FuzzIsLoadedCalls(f *testing.F) {
	f.Add("<?php $r->isLoaded( 'Cite' ); \"{$r->isLoaded( 'X' )}\"")
	f.Add("<?php <<<A\n{$a[<<<B\nB]}\nA; $r->isLoaded('X')")
	f.Fuzz(func(t *testing.T, src string) {
		for _, u := range isLoadedCalls([]byte(src)) {
			if c := src[u.offset]; c != '\'' && c != '"' {
				t.Errorf("use %v of %q stands at no quote", u, src)
			}
		}
	})
}
