package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mwbuild/mwbuild/rules/l10n/php"
)

func TestRead(t *testing.T) {
	m := func(pos int, key, value string) Message { return Message{Key: key, Value: value, Pos: pos} }
	for _, c := range []struct {
		name, in string
		want     []Message
	}{
		{"empty object", "{}", nil},
		{"empty list", " [\n] ", nil},
		{"texts", `{"a":"x","b":""}`, []Message{m(1, "a", "x"), m(9, "b", "")}},
		{"white space", "\t{\r\n \"a\" \n:\t\"x\"\r ,\"b\":\"y\" \n}\n", []Message{m(5, "a", "x"), m(18, "b", "y")}},
		{"again", `{"a":"1","b":"2","a":"3"}`, []Message{m(17, "a", "3"), m(9, "b", "2")}},
		{"again, by another spelling", `{"ab":"1","\u0061b":"2"}`, []Message{m(10, "ab", "2")}},
		{"again and again", `{"a":"1","a":"2","b":"3","a":null,"b":"4"}`,
			[]Message{{Key: "a", Null: true, Pos: 25}, m(34, "b", "4")}},
		{"metadata", `{"@metadata":{"authors":["A",{"b":[[]]}]},"a":"x","@":1,"":"y"}`, []Message{m(42, "a", "x")}},
		{"escaped metadata", `{"\u0040metadata":[],"a":"x"}`, []Message{m(21, "a", "x")}},
		{"only metadata", `{"@metadata":{}}`, nil},
		{"integers as keys", `{"1":"a","01":"b","-1":"c","-0":"d","1":"e"}`,
			[]Message{m(36, "1", "e"), m(9, "01", "b"), m(18, "-1", "c"), m(27, "-0", "d")}},
		{"null and booleans", `{"a":null,"b":true,"c":false}`, []Message{{Key: "a", Null: true, Pos: 1}, m(10, "b", "1"), m(19, "c", "")}},
		{"numbers", `[0,-0,-0.0,7,-12,1.50,1e3,1E+25,1e-7,0.1,9223372036854775807,9223372036854775808,-9223372036854775808,1e999,-1e999,1e-999]`,
			[]Message{m(1, "0", "0"), m(3, "1", "0"), m(6, "2", "-0"), m(11, "3", "7"), m(13, "4", "-12"), m(17, "5", "1.5"), m(22, "6", "1000"),
				m(26, "7", "1.0E+25"), m(32, "8", "1.0E-7"), m(37, "9", "0.1"), m(41, "10", "9223372036854775807"),
				m(61, "11", "9.2233720368548E+18"), m(81, "12", "-9223372036854775808"), m(102, "13", "INF"), m(108, "14", "-INF"),
				m(115, "15", "0")}},
		{"list", `["a",null,"b"]`, []Message{m(1, "0", "a"), {Key: "1", Null: true, Pos: 5}, m(10, "2", "b")}},
		{"escapes", `{"a":"\"\\\/\b\f\n\r\t\u00e9\u20AC\ud83d\ude00\u0000."}`, []Message{m(1, "a", "\"\\/\b\f\n\r\té€😀\x00.")}},
		{"beyond ASCII", `{"ключ":"значение, 😀 \" — é"}`, []Message{m(1, "ключ", "значение, 😀 \" — é")}},
		{"DEL and noncharacters", "{\"a\":\"\x7f\uffff\"}", []Message{m(1, "a", "\x7f\uffff")}},
		{"NUL in keys", `{"\u0000a":"x","\u0000":"y"}`, []Message{m(1, "\x00a", "x"), m(15, "\x00", "y")}},
		{"array, then a text", `{"a":[1],"a":"x"}`, []Message{m(9, "a", "x")}},
		{"as deep as can be", `{"@":` + strings.Repeat("[", 510) + strings.Repeat("]", 510) + `,"a":"x"}`, []Message{m(1026, "a", "x")}},
		{"many side by side", `{"@":[` + strings.Repeat("[{}],", 600) + `0],"a":"x"}`, []Message{m(3009, "a", "x")}},
	} {
		got, err := Read("f", []byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(got) == 0 {
			got = nil
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: Read(%s) (-want +got):\n%s", c.name, c.in, diff)
		}
	}
}

func TestReadErrors(t *testing.T) {
	deep := strings.Repeat("[", 511) + strings.Repeat("]", 511)
	for _, c := range []struct{ in, want string }{
		{"", "f:1:1: the file ends here; expected a value"},
		{" \n ", "f:2:2: the file ends here; expected a value"},
		{"null", "f:1:1: a message file is an object of keys and texts; wrap this in { }"},
		{`"x"`, "f:1:1: a message file is an object of keys and texts; wrap this in { }"},
		{"7 8", "f:1:3: unexpected '8'; expected the end of the file"},
		{"{} x", "f:1:4: unexpected 'x'; expected the end of the file"},
		{"{}\x00", `f:1:3: unexpected '\x00'; expected the end of the file`},
		{"\xef\xbb\xbf{}", "f:1:1: the file begins with a byte order mark, which PHP does not take for JSON; save it without"},
		{"{\n\t\"a\": \"x\xff\"\n}", "f:2:9: byte 0xff is not UTF-8"},
		{`{"a":"` + "\xed\xa0\x80" + `"}`, "f:1:7: byte 0xed is not UTF-8"},
		{`{"a":"\ud800"}`, "f:1:7: half of a surrogate pair; write the character itself, or both halves"},
		{`{"a":"\udc00\ud800"}`, "f:1:7: half of a surrogate pair; write the character itself, or both halves"},
		{`{"a":"\udc00\udc00"}`, "f:1:7: half of a surrogate pair; write the character itself, or both halves"},
		{`{"a":"\ud800\ue000"}`, "f:1:7: half of a surrogate pair; write the character itself, or both halves"},
		{`{"a":"\ud800\u0041"}`, "f:1:7: half of a surrogate pair; write the character itself, or both halves"},
		{`{"@a":"\ud800"}`, "f:1:8: half of a surrogate pair; write the character itself, or both halves"},
		{`{"a":"\x"}`, "f:1:7: not an escape sequence of JSON"},
		{`{"a":"\u12g4"}`, "f:1:7: not an escape sequence of JSON"},
		{`{"a":"\U0041"}`, "f:1:7: not an escape sequence of JSON"},
		{`{"a":"\`, "f:1:7: not an escape sequence of JSON"},
		{"{\"a\":\"x\ny\"}", "f:1:8: control character 0x0a in a string; write it as an escape sequence"},
		{"{\"a\":\"x\x00\"}", "f:1:8: control character 0x00 in a string; write it as an escape sequence"},
		{`{"a":"x`, "f:1:6: the string that begins here has no end"},
		{`{"a":"x\n`, "f:1:6: the string that begins here has no end"},
		{`{"a":"x",}`, "f:1:10: unexpected '}' after a comma; remove the comma"},
		{`["x",]`, "f:1:6: unexpected ']' after a comma; remove the comma"},
		{`{,}`, "f:1:2: unexpected ','; expected a key in double quotes"},
		{`[,]`, "f:1:2: unexpected ','; expected a value"},
		{`{"a"}`, "f:1:5: unexpected '}'; expected ':'"},
		{`{"a":}`, "f:1:6: unexpected '}'; expected a value"},
		{`{"a":"x" "b":"y"}`, "f:1:10: unexpected '\"'; expected ',' or '}'"},
		{`{"a":"x"]`, "f:1:9: unexpected ']'; expected ',' or '}'"},
		{`["x"}`, "f:1:5: unexpected '}'; expected ',' or ']'"},
		{`{a:"x"}`, "f:1:2: unexpected 'a'; expected a key in double quotes"},
		{`{'a':"x"}`, "f:1:2: unexpected '\\''; expected a key in double quotes"},
		{`{"a":"x"`, "f:1:9: the file ends here; expected ',' or '}'"},
		{`{"a":é}`, "f:1:6: unexpected 'é'; expected a value"},
		{`{"a":TRUE}`, "f:1:6: unexpected 'T'; expected a value"},
		{`{"a":nul}`, "f:1:6: unexpected 'n'; expected a value"},
		{`{"a":truex}`, "f:1:10: unexpected 'x'; expected ',' or '}'"},
		{`{"a":01}`, "f:1:7: unexpected '1'; expected ',' or '}'"},
		{`{"a":.5}`, "f:1:6: unexpected '.'; expected a value"},
		{`{"a":5.}`, "f:1:8: unexpected '}'; expected a digit"},
		{`{"a":-}`, "f:1:7: unexpected '}'; expected a digit"},
		{`{"a":+1}`, "f:1:6: unexpected '+'; expected a value"},
		{`{"a":1e}`, "f:1:8: unexpected '}'; expected a digit"},
		{`{"a":0x1}`, "f:1:7: unexpected 'x'; expected ',' or '}'"},
		{"{\"a\":\v1}", `f:1:6: unexpected '\v'; expected a value`},
		{`{"@":` + deep + `}`, "f:1:516: more than 511 arrays and objects within one another"},
		{`// x` + "\n{}", "f:1:1: unexpected '/'; expected a value"},
		{`{"b":"x","a":{}}`, `f:1:10: message "a" is an array or an object, of which MediaWiki would show the word "Array"; ` +
			"make it a string, or begin its key with @ if it is no message"},
		{`{"a":"x","b":1,"a":["y"]}`, `f:1:16: message "a" is an array or an object, of which MediaWiki would show the word ` +
			`"Array"; make it a string, or begin its key with @ if it is no message`},
	} {
		got, err := Read("f", []byte(c.in))
		if err == nil {
			t.Errorf("Read(%s) = %v, want error %q", c.in, got, c.want)
			continue
		}
		if err.Error() != c.want {
			t.Errorf("Read(%s):\n got %s\nwant %s", c.in, err, c.want)
		}
		if e := (*Error)(nil); !errors.As(err, &e) || got != nil {
			t.Errorf("Read(%s): %T with %v, want *Error with nothing", c.in, err, got)
		}
	}
}

func TestReadValue(t *testing.T) {
	in := `{"a":[1,"x",null,{"b":2,"b":[],"10":1.5}],"5":true,"a2":-0,"5":false,"":"","@":99999999999999999999}`
	v, err := ReadValue("f", []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	want := `{s"a":{i0:1,i1:"x",i2:<nil>,i3:{s"b":{},i10:1.5}},i5:false,s"a2":0,s"":"",s"@":1e+20}`
	if got := dump(v); got != want {
		t.Errorf("ReadValue(%s)\n got %s\nwant %s", in, got, want)
	}
	for in, want := range map[string]string{"null": "<nil>", " 7 ": "7", `"\u00e9"`: `"é"`, "[]": "{}", "1.0": "1.0"} {
		v, err := ReadValue("f", []byte(in))
		if err != nil {
			t.Errorf("ReadValue(%s): %v", in, err)
		} else if got := dump(v); got != want {
			t.Errorf("ReadValue(%s) = %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"", "{", `{"a":[1,]}`, `[1] 2`, "\xff", `{"a" 1}`, strings.Repeat("[", 512) + strings.Repeat("]", 512)} {
		if v, err := ReadValue("f", []byte(in)); err == nil || v != nil {
			t.Errorf("ReadValue(%s) = %v, %v; want an error alone", in, v, err)
		}
	}
}

// dump writes a value so that every difference shows.
func dump(v php.Value) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case float64:
		if s := strconv.FormatFloat(v, 'g', -1, 64); strings.ContainsAny(s, ".eI") {
			return s
		}
		return fmt.Sprintf("%.1f", v)
	case *php.Array:
		var parts []string
		for k, e := range v.All() {
			key := "s" + strconv.Quote(k.Str)
			if k.IsInt {
				key = "i" + k.String()
			}
			parts = append(parts, key+":"+dump(e))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	return fmt.Sprint(v)
}

// Floats become strings as PHP's default precision of 14 has it.
func TestPHPFloat(t *testing.T) {
	for _, c := range []struct {
		f    float64
		want string
	}{
		{1, "1"}, {-1.5, "-1.5"}, {0.1, "0.1"}, {1.0 / 3, "0.33333333333333"}, {100, "100"}, {123456.789, "123456.789"},
		{1e13, "10000000000000"}, {1e14, "1.0E+14"}, {99999999999999, "99999999999999"}, {999999999999999, "1.0E+15"},
		{12345678901234567, "1.2345678901235E+16"}, {0.0001, "0.0001"}, {0.00012345, "0.00012345"}, {0.00001, "1.0E-5"},
		{-2.5e-10, "-2.5E-10"}, {1e100, "1.0E+100"}, {5e-324, "4.9406564584125E-324"},
	} {
		if got := phpFloat(c.f); got != c.want {
			t.Errorf("phpFloat(%v) = %s, want %s", c.f, got, c.want)
		}
	}
}

// Many messages, all kinds of repetition: the table of keys grows and is used again.
func TestReadMany(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 3))
	for range 200 {
		n := r.IntN(300)
		var order []string
		values := map[string]string{}
		var b strings.Builder
		for i := range n {
			k := "k" + strconv.Itoa(r.IntN(400))
			if _, ok := values[k]; !ok {
				order = append(order, k)
			}
			values[k] = strings.Repeat("\n", r.IntN(3)) + strconv.Itoa(i)
			fmt.Fprintf(&b, `%s"%s":%q`, strings.Repeat(",", min(i, 1)), k, values[k])
		}
		got, err := Read("f", []byte("{"+b.String()+"}"))
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, m := range got {
			keys = append(keys, m.Key)
			if values[m.Key] != m.Value {
				t.Fatalf("%s is %q, want %q", m.Key, m.Value, values[m.Key])
			}
		}
		if !slices.Equal(keys, order) {
			t.Fatalf("order: got %v, want %v", keys, order)
		}
	}
}

// Keys whose hashes are equal, or differ in one half only, are told apart.
func TestTableCollisions(t *testing.T) {
	for _, hash := range []func(i int) uint64{
		func(int) uint64 { return 0 },
		func(int) uint64 { return math.MaxUint64 },
		func(i int) uint64 { return uint64(i) },
		func(i int) uint64 { return uint64(i) << 32 },
	} {
		var tab table
		const n = 50
		tab.reset(n)
		var kept []Message
		for i := range 2 * n {
			key := strconv.Itoa(i % n)
			at, ok := tab.add(hash(i%n), key, kept)
			if ok != (i >= n) || ok && at != i%n {
				t.Fatalf("add(%s) = %d, %v", key, at, ok)
			}
			if !ok {
				kept = append(kept, Message{Key: key})
			}
		}
	}
}

// stop finds each byte that ends plain text, wherever it is, and no other.
func TestStop(t *testing.T) {
	for _, fill := range []byte{' ', '!', '#', '[', ']', 0x7f, 0x80, 0xa2, 0xdc, 0xff} {
		for c := range 256 {
			for at := range 20 {
				data := bytes.Repeat([]byte{fill}, 24)
				data[at] = byte(c)
				want := len(data)
				if c < ' ' || c == '"' || c == '\\' {
					want = at
				}
				for from := range at + 1 {
					if got := stop(data, from); got != want {
						t.Fatalf("stop(%q, %d) = %d, want %d", data, from, got, want)
					}
				}
			}
		}
	}
}

// A string with more escapes than there was room for is whole, and leaves those before it alone.
func TestReadLongEscapes(t *testing.T) {
	long := strings.Repeat("xy\n", 3000)
	got, err := Read("f", fmt.Appendf(nil, `{"a":%q,"b":%q,"c":%q}`, "a\n", long, "c\n"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"a\n", long, "c\n"} {
		if got[i].Value != want {
			t.Errorf("%s is %.80q with %d bytes, want %d bytes", got[i].Key, got[i].Value, len(got[i].Value), len(want))
		}
	}
}

// A normal file costs three allocations however many messages it has: the text, the messages, what was escaped.
func TestReadAllocations(t *testing.T) {
	data := sampleFile("abcdefgh", 400)
	if n := testing.AllocsPerRun(20, func() {
		if _, err := Read("f", data); err != nil {
			t.Fatal(err)
		}
	}); n > 4 {
		t.Errorf("%v allocations", n)
	}
}

// oracle reads a message file by way of encoding/json's tokens, which accept everything that PHP accepts.
func oracle(data []byte) ([]Message, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var found []Message
	var nested []bool
	add := func(key string, v any) {
		m := Message{Key: key}
		switch v := v.(type) {
		case nil:
			m.Null = true
		case bool:
			m.Value = map[bool]string{true: "1"}[v]
		case string:
			m.Value = v
		case json.Number:
			n, err := strconv.ParseInt(v.String(), 10, 64)
			if m.Value = strconv.FormatInt(n, 10); err != nil {
				f, _ := strconv.ParseFloat(v.String(), 64)
				m.Value = phpFloat(f)
			}
		}
		i := slices.IndexFunc(found, func(o Message) bool { return o.Key == key })
		if i < 0 {
			i = len(found)
			found, nested = append(found, m), append(nested, false)
		}
		_, nested[i] = v.(json.Delim)
		found[i] = m
	}
	start, err := d.Token()
	if err != nil {
		return nil, err
	}
	if start != json.Delim('{') && start != json.Delim('[') {
		return nil, errors.New("no object")
	}
	for n := 0; d.More(); n++ {
		key := strconv.Itoa(n)
		if start == json.Delim('{') {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			key = k.(string)
		}
		v, err := d.Token()
		if err != nil {
			return nil, err
		}
		add(key, v)
		for depth := 0; ; {
			switch v {
			case json.Delim('{'), json.Delim('['):
				depth++
			case json.Delim('}'), json.Delim(']'):
				depth--
			}
			if depth == 0 {
				break
			}
			if v, err = d.Token(); err != nil {
				return nil, err
			}
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var kept []Message
	for i, m := range found {
		if m.Key == "" || m.Key[0] == '@' {
			continue
		}
		if nested[i] {
			return nil, errors.New("nested")
		}
		kept = append(kept, m)
	}
	return kept, nil
}

// What Read accepts the oracle reads alike. What it refuses is no JSON, or one of the things that only PHP refuses.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		`{"a":"x","a":"y","1":null,"@metadata":{"authors":[1,true,{"a":null}]},"":"z","b":1.5e3}`,
		`["a",false,-0,12345678901234567890]`, `{"a":"\ud83d\ude00\n\u0000\"","b":{}}`, "{\"é\":\"\\/\"}\n", `{"a":{},"a":1}`,
		`{"a":"\ud800"}`, `{"a":1,}`, `[[]]`, `{`, "\ufeff{}", "{\"a\":\"\xff\"}", `null`, `{"long key with \" in it":"and a long \\ value"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Read("f", data)
		want, oracleErr := oracle(data)
		value, valueErr := ReadValue("f", data)
		if err != nil {
			e := (*Error)(nil)
			if !errors.As(err, &e) || e.Line < 1 || e.Col < 1 || e.File != "f" || e.What == "" {
				t.Fatalf("%#v", err)
			}
			ours := strings.Contains(e.What, "UTF-8") || strings.Contains(e.What, "surrogate") || strings.Contains(e.What, "more than 511")
			if json.Valid(data) && oracleErr == nil && !ours {
				t.Fatalf("refused: %v", err)
			}
			return
		}
		if !json.Valid(data) || oracleErr != nil || valueErr != nil {
			t.Fatalf("accepted %q as %v; oracle: %v; ReadValue: %v", data, got, oracleErr, valueErr)
		}
		for i, m := range got {
			if at := data[m.Pos]; data[0] == '{' && at != '"' {
				t.Fatalf("message %q is said to be at %d, where %q stands", m.Key, m.Pos, at)
			}
			v, ok := value.(*php.Array).Get(php.StringKey(m.Key))
			if !ok || phpString(v) != m.Value && v != m.Value {
				t.Fatalf("%q is %q to Read and %v to ReadValue", m.Key, m.Value, v)
			}
			got[i].Pos = 0
		}
		if len(got) == 0 {
			got = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-oracle +Read):\n%s", data, diff)
		}
	})
}
