package plural

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompile(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{"n = 1", "n 1 in"},
		{"n = 1 @integer 1 @decimal 1.0, 1.00", "n 1 in"},
		{"n is 1", "n 1 is"},
		{"n is not 1", "n 1 is-not"},
		{"n IS\t\r\nNOT 1", "n 1 is-not"},
		{"n not in 1..2", "n 1 2 .. not-in"},
		{"n not within 1..2", "n 1 2 .. not-within"},
		{"n within 1", "n 1 within"},
		{"n != 1,3", "n 1 3 , not-in"},
		{"i % 10 = 2..4", "i 10 mod 2 4 .. in"},
		{"i mod 10 in 2..4", "i 10 mod 2 4 .. in"},
		{"n = 0,2..4,7", "n 0 2 4 .. , 7 , in"},
		{"n % 10 % 3 = 1", "n 10 mod 3 mod 1 in"},
		{"v = 0 and i = 1", "v 0 in i 1 in and"},
		{"n = 0 or n = 1 and n = 2", "n 0 in n 1 in n 2 in and or"},
		{"n = 0 and n = 1 or n = 2", "n 0 in n 1 in and n 2 in or"},
		{"n = 0 or n = 1 or n = 2", "n 0 in n 1 in or n 2 in or"},
		{"v = 0 and i % 10 = 1 and i % 100 != 11 or f % 10 = 1 and f % 100 != 11 @integer 1, 21, …",
			"v 0 in i 10 mod 1 in and i 100 mod 11 not-in and f 10 mod 1 in f 100 mod 11 not-in and or"},
		{"  n=1  ", "n 1 in"},
		{"n=1@decimal", "n 1 in"},
		{"n=1 @INTEGER & rubbish", "n 1 in"},
		{"N = T", "n t in"},
		{"n = 007", "n 007 in"},
		{"1 = 1", "1 1 in"},
		{"n = 99999999999999999999", "n 99999999999999999999 in"},
		{"n = i,v,w", "n i v , w , in"},
		{"nis1", ""}, // a word, not three
		{"1is1", "1 1 is"},
		{"1is not1", "1 1 is-not"},
		{"n = 1..2,3", "n 1 2 .. 3 , in"},
	} {
		got, err := Compile(c.rule)
		if got != c.want || err == nil != (c.want != "") {
			t.Errorf("Compile(%q) = %q, %v; want %q", c.rule, got, err, c.want)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{"", "no condition"},
		{" \n", "no condition"},
		{"@integer 1", "no condition"},
		{"n", "not a condition, but a number or a range"},
		{"1..2", "not a condition, but a number or a range"},
		{"n % 2", "not a condition, but a number or a range"},
		{"= 1", `unexpected "in" at byte 1`},
		{"n =", `"in" lacks an operand`},
		{"n = @integer 1", `"in" lacks an operand`},
		{"n 1", `unexpected "1" at byte 3`},
		{"n = = 1", `unexpected "in" at byte 5`},
		{"ni = 1", `unexpected "i" at byte 2`},
		{"nivwft = 1", `unexpected "ivwft" at byte 2`},
		{"x = 1", `unknown word "x" at byte 1`},
		{"in", `unexpected "in" at byte 1`},
		{"n not 1", `unknown word "not" at byte 3`},
		{"n not is 1", `unknown word "not" at byte 3`},
		{"n is in 1", `unexpected "in" at byte 6`},
		{"n = 1 @sample", `unknown word "@sample" at byte 7`},
		{"n = 1 @", `unknown word "@" at byte 7`},
		{"n@integer = 1", `unknown word "n@integer" at byte 1`},
		{"n = -1", "unexpected character at byte 5"},
		{"n = 1.5", "unexpected character at byte 6"},
		{"n ! = 1", "unexpected character at byte 3"},
		{"é = 1", "unexpected character at byte 1"},
		{"n\v= 1", "unexpected character at byte 2"},
		{"n = 1 = 1", `what is left of "in" is a boolean, not a number`},
		{"n is 1..2", `what is right of "is" is a range, not a number`},
		{"1..2 = n", `what is left of "in" is a range, not a number`},
		{"1,2 % 3 = 1", `what is left of "mod" is a range, not a number`},
		{"n = i % 2,3", `what is right of "mod" is a range, not a number`},
		{"1..2..3 = 1", `what is left of ".." is a range, not a number`},
		{"n and n = 1", `what is left of "and" is a number, not a boolean`},
		{"n = 1 or 1", `what is right of "or" is a number, not a boolean`},
	} {
		got, err := Compile(c.rule)
		if err == nil {
			t.Errorf("Compile(%q) = %q, want an error", c.rule, got)
		} else if _, what, _ := strings.Cut(err.Error(), `": `); what != c.want {
			t.Errorf("Compile(%q):\n got %s\nwant %s", c.rule, what, c.want)
		}
	}
}

// The notation uses up its operands, one is left, and it is as long as the rule's tokens.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{"n = 1", "v = 0 and i % 10 = 2..4 or f != 12..14,7 @integer 1", "n is not 1 or n not in 2..3",
		"ni", "nivwft=1", "is", "not", "..", "1..2,3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, rule string) {
		rpn, err := Compile(rule)
		if err != nil {
			return
		}
		depth := 0
		for token := range strings.SplitSeq(rpn, " ") {
			if _, ok := operators[token]; ok {
				depth--
			} else {
				depth++
			}
			if depth < 1 || token == "" {
				t.Fatalf("Compile(%q) = %q", rule, rpn)
			}
		}
		if depth != 1 {
			t.Fatalf("Compile(%q) = %q leaves %d values", rule, rpn, depth)
		}
		if again, err := Compile(rule + " @integer 1"); err != nil || again != rpn {
			if !strings.Contains(rule, "@") {
				t.Fatalf("Compile(%q + samples) = %q, %v; want %q", rule, again, err, rpn)
			}
		}
	})
}

func TestLoad(t *testing.T) {
	first := `<?xml version="1.0" encoding="UTF-8" ?>
<!DOCTYPE supplementalData SYSTEM "ldmlSupplemental.dtd">
<!-- <pluralRules locales="no"/> -->
<supplementalData><plurals type="cardinal">
	<pluralRules locales="ja th"><pluralRule count="other"> @integer 0~15</pluralRule></pluralRules>
	<pluralRules locales="de	en
fr">
		<pluralRule count="one">i = 1 <!-- hidden -->and v &#61; <b>0</b><![CDATA[ @integer 1]]></pluralRule>
		<pluralRule count="other"/>
	</pluralRules>
	<pluralRules locales="bad"><pluralRule count="one">n = 1</pluralRule><pluralRule count="two">n = two</pluralRule></pluralRules>
	<pluralRules locales="a  b"><pluralRule>n = 1</pluralRule></pluralRules>
	<pluralRule count="stray">n = 1</pluralRule>
</plurals></supplementalData>`
	second := `<x><pluralRules locales="fr"><pluralRule count="other">n = 9</pluralRule><pluralRule count="two">n=2</pluralRule></pluralRules></x>`
	got, err := Load(File{"plurals.xml", []byte(first)}, File{"own.xml", []byte(second)})
	if err != nil {
		t.Fatal(err)
	}
	one := &Rules{Rules: []string{"i = 1 and v = 0 @integer 1"}, Types: []string{"one"}, Compiled: []string{"i 1 in v 0 in and"}}
	noName := &Rules{Rules: []string{"n = 1"}, Types: []string{""}, Compiled: []string{"n 1 in"}}
	want := map[string]*Rules{
		"ja": {}, "th": {}, "de": one, "en": one,
		"bad": {Rules: []string{"n = 1", "n = two"}, Types: []string{"one", "two"}},
		"fr":  {Rules: []string{"n=2"}, Types: []string{"two"}, Compiled: []string{"n 2 in"}},
		"a":   noName, "": noName, "b": noName,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
	if got, err := Load(); err != nil || len(got) != 0 {
		t.Errorf("Load() = %v, %v", got, err)
	}
}

func TestLoadErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "p.xml: plural rules: no XML element"},
		{"<!-- -->\n", "p.xml: plural rules: no XML element"},
		{"<a><b></a>", "p.xml: plural rules: XML syntax error on line 1: element <b> closed by </a>"},
		{"<a>", "p.xml: plural rules: XML syntax error on line 1: unexpected EOF"},
		{"<a>\n<pluralRules><pluralRules/></pluralRules></a>", "p.xml:2:28: <pluralRules> within <pluralRules>"},
		{"<pluralRules><pluralRule><pluralRule/></pluralRule></pluralRules>", "p.xml:1:39: <pluralRule> within <pluralRule>"},
	} {
		got, err := Load(File{"p.xml", []byte(c.in)})
		if err == nil || err.Error() != c.want || got != nil {
			t.Errorf("Load(%q) = %v, %v; want %s", c.in, got, err, c.want)
		}
	}
}
