//go:build live

package message

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mwbuild/mwbuild/internal/laid"
	"github.com/mwbuild/mwbuild/rules/l10n/php"
)

// decoder answers each line, a document in base64 or the name of a file, with two: what readJSONFile makes of it ("!" where
// that fails, "A" where it holds arrays), and what json_decode does. Of files it tells the digests of these.
const decoder = `<?php
function dump( $v ) {
	if ( is_array( $v ) ) {
		$s = '{';
		foreach ( $v as $k => $e ) {
			$s .= ( is_int( $k ) ? "i$k" : 's' . bin2hex( $k ) ) . ':' . dump( $e );
		}
		return "$s}";
	}
	if ( is_string( $v ) ) { return '"' . bin2hex( $v ) . '"'; }
	if ( is_float( $v ) ) { return 'f' . bin2hex( pack( 'E', $v ) ); }
	if ( is_int( $v ) ) { return "d$v"; }
	return $v === null ? 'null' : ( $v ? 'true' : 'false' );
}
function messages( $data ) {
	if ( !is_array( $data ) ) { return '!'; }
	foreach ( $data as $key => $unused ) {
		if ( $key === '' || $key[0] === '@' ) { unset( $data[$key] ); }
	}
	$s = '';
	foreach ( $data as $key => $value ) {
		if ( is_array( $value ) ) { return 'A'; }
		$s .= bin2hex( $key ) . ( $value === null ? '~' : '=' ) . bin2hex( (string)$value ) . ' ';
	}
	return $s;
}
// $key[0] of an integer is null, with a warning.
error_reporting( E_ALL & ~E_WARNING );
while ( ( $line = fgets( STDIN ) ) !== false ) {
	$line = rtrim( $line, "\n" );
	$file = $line !== '' && $line[0] === '/';
	$data = json_decode( $file ? file_get_contents( $line ) : base64_decode( substr( $line, 1 ) ), true );
	$bad = json_last_error() !== JSON_ERROR_NONE;
	$m = messages( $data );
	$d = $bad ? '!' : dump( $data );
	echo $file ? sha1( $m ) : $m, "\n", $file ? sha1( $d ) : $d, "\n";
}
`

// decode has PHP answer lines.
func decode(t *testing.T, lines []string) []string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "decode.php")
	if err := os.WriteFile(script, []byte(decoder), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command("php", "-d", "memory_limit=-1", "-d", "precision=14", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.Join(lines, "\n")+"\n"), &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("php: %v\n%s", err, errs.Bytes())
	}
	var answers []string
	s := bufio.NewScanner(&out)
	s.Buffer(nil, 1<<26)
	for s.Scan() {
		answers = append(answers, s.Text())
	}
	if s.Err() != nil || len(answers) != 2*len(lines) {
		t.Fatalf("%d answers for %d lines: %v", len(answers), len(lines), s.Err())
	}
	return answers
}

// answer is what decoder should say of a document.
func answer(data []byte) (messages, value string) {
	found, err := Read("f", data)
	switch {
	case err != nil && strings.Contains(err.Error(), "is an array or an object"):
		messages = "A"
	case err != nil:
		messages = "!"
	default:
		var b strings.Builder
		for _, m := range found {
			sign := "="
			if m.Null {
				sign = "~"
			}
			fmt.Fprintf(&b, "%x%s%x ", m.Key, sign, m.Value)
		}
		messages = b.String()
	}
	v, err := ReadValue("f", data)
	if err != nil {
		return messages, "!"
	}
	return messages, dumpHex(v)
}

func dumpHex(v php.Value) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return fmt.Sprintf(`"%x"`, v)
	case float64:
		return "f" + hex.EncodeToString(binary.BigEndian.AppendUint64(nil, math.Float64bits(v)))
	case int64:
		return fmt.Sprintf("d%d", v)
	case *php.Array:
		var b strings.Builder
		b.WriteByte('{')
		for k, e := range v.All() {
			if k.IsInt {
				b.WriteString("i" + k.String())
			} else {
				fmt.Fprintf(&b, "s%x", k.Str)
			}
			b.WriteString(":" + dumpHex(e))
		}
		return b.String() + "}"
	}
	return fmt.Sprint(v)
}

// generator makes JSON and what is nearly JSON.
type generator struct {
	*rand.Rand
	b     bytes.Buffer
	wrong bool // whether to make mistakes
}

func (g *generator) pick(s ...string) { g.b.WriteString(s[g.IntN(len(s))]) }

// mistake writes one of s, rarely.
func (g *generator) mistake(s ...string) {
	if g.wrong && g.IntN(40) == 0 {
		g.pick(s...)
	}
}

func (g *generator) space() {
	if g.IntN(4) == 0 {
		g.pick(" ", "\n", "\t", "\r\n", "  \n\t")
	}
	g.mistake("\v", "\f", "\u00a0", "\x00", "//\n", "/**/", "\ufeff", "\xff", ";", "\u2028")
}

func (g *generator) text() {
	g.b.WriteByte('"')
	for range g.IntN(6) {
		g.pick("a", "Hello, world", "é", "слово", "文字化", "😀", " ", "$1", "\x7f", "\u2028", "\ufffd", "\uffff", `\"`, `\\`, `\/`, `\b`, `\f`,
			`\n`, `\r`, `\t`, `\u0000`, `\u00e9`, `\u00E9`, `\u0040`, `\ud83d\ude00`, `\uD83D\uDE00`, `\uffff`, `\ufeff`, `\u07ff`, `\u0800`,
			`\u007f`, `\u0080`, `\udbff\udfff`, `\ud7ff`, `\ue000`, "<b>", "'", "{", "]", ":", ",", "@")
		g.mistake(`\`, `\x41`, `\u12`, `\u12g4`, `\U0041`, `\ud800`, `\udc00`, `\ud800\u0041`, `\ud800\ud800`, `\ud83d\n`, `\ud83d"`, `\'`, `\0`,
			"\n", "\t", "\x00", "\x1f", "\xff", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf0\x80\x80\x80", "\xc3", "\xe2\x82",
			`"`, `\u 123`, `\u+123`, `\u-001`)
	}
	if !g.wrong || g.IntN(80) > 0 {
		g.b.WriteByte('"')
	}
}

func (g *generator) key() {
	if g.IntN(5) == 0 {
		g.text()
		return
	}
	g.pick(`"a"`, `"b"`, `"\u0061"`, `"1"`, `"01"`, `"-1"`, `"-0"`, `"0"`, `"9223372036854775807"`, `"9223372036854775808"`,
		`"-9223372036854775808"`, `"-9223372036854775809"`, `"1.0"`, `" 1"`, `"1 "`, `"+1"`, `"@metadata"`, `"@"`, `"\u0040x"`, `""`, `"\u0000"`,
		`"\u0000*\u0000a"`, `"a@"`, `"long-message-key"`, `"Ключ"`, `"__proto__"`)
	g.mistake(`a`, `1`, `'a'`, `null`)
}

func (g *generator) number() {
	g.pick("", "", "-")
	g.pick("0", "1", "10", "7", "123456789", "99999999999999", "123456789012345", "9223372036854775807", "9223372036854775808", "9223372036854775809",
		"18446744073709551616", "100000000000000000000000000", "999999999999999999")
	if g.IntN(3) == 0 {
		g.pick(".0", ".5", ".25", ".10", ".000001", ".3333333333333333333", ".99999999999999999")
	}
	if g.IntN(3) == 0 {
		g.pick("e0", "E5", "e+20", "E-5", "e-7", "e13", "e14", "e15", "e308", "e309", "e-320", "e-400", "e00012", "e99999999999999999999")
	}
	g.mistake(".", "e", "0", "x1", "e+", ".e1", "_000", "f", "L", "..1", "+1")
}

func (g *generator) value(depth int) {
	g.mistake("TRUE", "Null", "nul", "NaN", "Infinity", "undefined", "+1", ".5", "01", "-", "-a", "0x1F", "'x'", "tru", "true1", ",")
	n := 12
	if depth > 0 {
		n = 16
	}
	switch g.IntN(n) {
	case 0:
		g.pick("null", "true", "false")
	case 1:
		g.number()
	case 12, 13:
		g.object(depth - 1)
	case 14, 15:
		g.array(depth - 1)
	default:
		g.text()
	}
}

func (g *generator) object(depth int) {
	g.pick("{")
	g.space()
	for i := range g.IntN(7) {
		if i > 0 {
			g.pick(",")
		}
		g.mistake(",", "}", "]")
		g.space()
		g.key()
		g.space()
		if !g.wrong || g.IntN(80) > 0 {
			g.pick(":")
		}
		g.mistake(":", "=")
		g.space()
		g.value(depth)
		g.space()
	}
	g.mistake(",", "]")
	g.pick("}")
}

func (g *generator) array(depth int) {
	g.pick("[")
	g.space()
	for i := range g.IntN(5) {
		if i > 0 {
			g.pick(",")
		}
		g.space()
		g.value(depth)
		g.space()
	}
	g.mistake(",", "}")
	g.pick("]")
}

// documents are n generated ones, then some by hand.
func documents(n int) [][]byte {
	var all [][]byte
	for i := range n {
		g := &generator{Rand: rand.New(rand.NewPCG(7, uint64(i))), wrong: i%2 == 1}
		g.space()
		switch g.IntN(10) {
		case 0:
			g.array(2)
		case 1:
			g.value(2)
		case 2:
			g.object(4)
		case 3:
			// A depth at or about the limit.
			deep := 505 + g.IntN(14)
			open, shut := "[", "]"
			if g.IntN(2) == 0 {
				open, shut = `{"@":`, "}"
			}
			g.pick(`{"@a":`)
			g.b.WriteString(strings.Repeat(open, deep) + "1" + strings.Repeat(shut, deep))
			g.pick("}", `,"a":"b"}`)
		default:
			// Messages, mostly flat, as a file of them is.
			g.object(g.IntN(2))
		}
		g.space()
		g.mistake("x", "{}", ",", "\x00", "]", "\x1a")
		doc := g.b.Bytes()
		if i%8 == 7 && len(doc) > 0 {
			// Damage of no particular kind.
			switch at := g.IntN(len(doc)); g.IntN(3) {
			case 0:
				doc = doc[:at]
			case 1:
				doc[at] ^= 1 << g.IntN(8)
			case 2:
				doc = append(doc[:at:at], doc[min(len(doc), at+1+g.IntN(3)):]...)
			}
		}
		all = append(all, doc)
	}
	for _, s := range []string{"", " ", "\n", "\x00", "{}\x00", "null", "true", "1", `"x"`, "[]", "{}", "\ufeff{}", "{}\n\n", "\xff", "[1]x",
		strings.Repeat("[", 511) + strings.Repeat("]", 511), strings.Repeat("[", 512) + strings.Repeat("]", 512), strings.Repeat("[", 100_000)} {
		all = append(all, []byte(s))
	}
	return all
}

// Read and ReadValue accept what PHP accepts, and read the same.
func TestAgainstPHP(t *testing.T) {
	docs := documents(20_000)
	lines := make([]string, len(docs))
	for i, d := range docs {
		lines[i] = "=" + base64.StdEncoding.EncodeToString(d)
	}
	answers := decode(t, lines)
	refused, nested, wrong := 0, 0, 0
	for i, d := range docs {
		m, v := answer(d)
		if m == "!" {
			refused++
		}
		if m == "A" {
			nested++
		}
		if m != answers[2*i] || v != answers[2*i+1] {
			if wrong++; wrong < 10 {
				t.Errorf("%.300q\nRead      %.300s\nPHP       %.300s\nReadValue %.300s\nPHP       %.300s", d, m, answers[2*i], v, answers[2*i+1])
			}
		}
	}
	t.Logf("%d documents: %d refused, %d with arrays as messages, %d differ", len(docs), refused, nested, wrong)
	if refused < len(docs)/5 || refused > len(docs)*4/5 || nested < 100 {
		t.Error("too few of one kind for the test to tell much")
	}
}

// Every message file of two releases, and every other JSON file, is read as PHP reads it.
func TestFilesAgainstPHP(t *testing.T) {
	for _, suite := range []string{"trixie", "bookworm"} {
		root := laid.Tree(t, suite)
		var files []string
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".json") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		answers := decode(t, files)
		i18n, bytes, wrong := 0, 0, 0
		for i, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			m, v := answer(data)
			if strings.Contains(f, "i18n/") {
				i18n++
				bytes += len(data)
			}
			if sha(m) != answers[2*i] || sha(v) != answers[2*i+1] {
				if wrong++; wrong < 10 {
					_, err := Read(f, data)
					t.Errorf("%s differs from PHP; Read: %v", f, err)
				}
			}
		}
		t.Logf("%s: %d JSON files, of these %d of messages with %d bytes; %d differ", suite, len(files), i18n, bytes, wrong)
		if i18n < 5000 {
			t.Errorf("%s: only %d message files", suite, i18n)
		}
	}
}

func sha(s string) string {
	sum := sha1.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// All message files at once, from memory.
func BenchmarkTree(b *testing.B) {
	root := os.Getenv("MEDIAWIKI_TREE_TRIXIE")
	if root == "" {
		b.Skip("$MEDIAWIKI_TREE_TRIXIE names no tree")
	}
	var files [][]byte
	size := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(path, "i18n/") && strings.HasSuffix(path, ".json") {
			var data []byte
			if data, err = os.ReadFile(path); err == nil {
				files = append(files, data)
				size += len(data)
			}
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		for _, data := range files {
			if _, err := Read("f", data); err != nil {
				b.Fatal(err)
			}
		}
	}
}
