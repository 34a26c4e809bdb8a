package php

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// AppendExport writes v as PHP's var_export( v, true ) does with serialize_precision=-1, arrays in its two-space layout.
// null is NULL, in capitals.
func AppendExport(dst []byte, v Value) []byte { return appendExport(dst, v, 0) }

func appendExport(dst []byte, v Value, indent int) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "NULL"...)
	case bool:
		return strconv.AppendBool(dst, v)
	case int64:
		if v == math.MinInt64 {
			// Without its sign that is no integer to PHP.
			return append(dst, "-9223372036854775807-1"...)
		}
		return strconv.AppendInt(dst, v, 10)
	case float64:
		n := len(dst)
		dst = appendFloat(dst, v, exact)
		if !bytes.ContainsAny(dst[n:], ".NE") {
			dst = append(dst, ".0"...)
		}
		return dst
	case string:
		return appendQuoted(dst, v)
	}
	a := v.(*Array)
	dst = append(dst, "array (\n"...)
	for k, v := range a.All() {
		dst = appendSpaces(dst, indent+2)
		if k.IsInt {
			dst = strconv.AppendInt(dst, k.Int, 10)
		} else {
			dst = appendQuoted(dst, k.Str)
		}
		dst = append(dst, " => "...)
		if _, ok := v.(*Array); ok {
			dst = append(dst, '\n')
			dst = appendSpaces(dst, indent+2)
		}
		dst = appendExport(dst, v, indent+2)
		dst = append(dst, ",\n"...)
	}
	dst = appendSpaces(dst, indent)
	return append(dst, ')')
}

func appendSpaces(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, ' ')
	}
	return dst
}

// appendQuoted writes s in single quotes.
func appendQuoted(dst []byte, s string) []byte {
	return append(AppendEscaped(append(dst, '\''), s), '\'')
}

// AppendEscaped writes what stands between the single quotes where var_export writes s: quotes and backslashes behind a
// backslash, a NUL as ' . "\0" . '.
func AppendEscaped(dst []byte, s string) []byte {
	for {
		i := escapable(s)
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		if s[i] == 0 {
			dst = append(dst, `' . "\0" . '`...)
		} else {
			dst = append(dst, '\\', s[i])
		}
		s = s[i+1:]
	}
}

// escapable finds the first quote, backslash or NUL.
func escapable(s string) int {
	if len(s) < 16 {
		for i := range len(s) {
			if c := s[i]; c == '\'' || c == '\\' || c == 0 {
				return i
			}
		}
		return -1
	}
	least := strings.IndexByte(s, '\'')
	for _, c := range []byte{'\\', 0} {
		if least >= 0 {
			s = s[:least]
		}
		if i := strings.IndexByte(s, c); i >= 0 {
			least = i
		}
	}
	return least
}

// AppendStaticArray writes a as MediaWiki's StaticArrayWriter does (encodeArray), the closing bracket behind indent tabs. With
// listForm, as from MediaWiki 1.42, lists go without their keys; without, as in 1.39, every key is written.
func AppendStaticArray(dst []byte, a *Array, indent int, listForm bool) []byte {
	dst = append(dst, "[\n"...)
	keyless := listForm && a.IsList()
	for k, v := range a.All() {
		dst = appendTabs(dst, indent+1)
		if !keyless {
			if k.IsInt {
				dst = AppendExport(dst, k.Int)
			} else {
				dst = appendQuoted(dst, k.Str)
			}
			dst = append(dst, " => "...)
		}
		switch v := v.(type) {
		case *Array:
			dst = AppendStaticArray(dst, v, indent+1, listForm)
		case nil:
			dst = append(dst, "null"...)
		default:
			dst = AppendExport(dst, v)
		}
		dst = append(dst, ",\n"...)
	}
	dst = appendTabs(dst, indent)
	return append(dst, ']')
}

func appendTabs(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, '\t')
	}
	return dst
}
