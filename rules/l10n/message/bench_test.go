package message

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// sampleFile makes a message file as translators have them: tabs, @metadata, some escapes, words of the given letters.
func sampleFile(letters string, n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	alphabet := []rune(letters)
	words := func(k int) string {
		var b strings.Builder
		for i := range k {
			if i > 0 {
				b.WriteByte(' ')
			}
			for range 2 + r.IntN(8) {
				b.WriteRune(alphabet[r.IntN(len(alphabet))])
			}
		}
		return b.String()
	}
	var b strings.Builder
	b.WriteString("{\n\t\"@metadata\": {\n\t\t\"authors\": [\n")
	for i := range 8 {
		fmt.Fprintf(&b, "\t\t\t\"Author %d\"%s\n", i, strings.Repeat(",", min(1, 7-i)))
	}
	b.WriteString("\t\t]\n\t}")
	for i := range n {
		text := words(1 + r.IntN(12))
		switch r.IntN(8) {
		case 0:
			text += `\n\n[https://example.org $1]`
		case 1:
			text = `<span class=\"x\">` + text + `</span>`
		}
		fmt.Fprintf(&b, ",\n\t\"extension-message-%d-%s\": \"%s\"", i, "abcdefgh"[:r.IntN(8)], text)
	}
	b.WriteString("\n}\n")
	return []byte(b.String())
}

var scripts = []struct{ name, letters string }{
	{"latin", "abcdefghijklmnopqrstuvwxyz"},
	{"german", "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzäöüß"},
	{"cyrillic", "абвгдежзийклмнопрстуфхцчшщъыьэюя"},
	{"devanagari", "अआइईउऊऋएऐओऔकखगघचछजझटठडढणतथदधन"},
}

func BenchmarkRead(b *testing.B) {
	for _, s := range scripts {
		for _, n := range []int{20, 500} {
			data := sampleFile(s.letters, n)
			b.Run(fmt.Sprintf("%s-%d", s.name, n), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Read("x", data); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// What Read is measured against, which keeps neither the order nor what PHP makes of values.
func BenchmarkEncodingJSON(b *testing.B) {
	for _, s := range scripts {
		data := sampleFile(s.letters, 500)
		b.Run(s.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				m := map[string]any{}
				if err := json.Unmarshal(data, &m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
