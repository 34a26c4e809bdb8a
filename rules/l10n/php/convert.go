package php

import (
	"math"
	"strconv"
)

// ToString is PHP's conversion of a scalar to a string: true is "1", false and nil are "". A float has up to 14 significant
// digits, PHP's default precision. It is false for an array, which PHP turns into "Array" with a warning.
func ToString(v Value) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", true
	case bool:
		if v {
			return "1", true
		}
		return "", true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return string(appendFloat(nil, v, 14)), true
	case string:
		return v, true
	}
	return "", false
}

// exact asks appendFloat for the fewest digits that give the same number again.
const exact = -1

// appendFloat writes f with up to precision digits, as PHP's printf does for %G and, for exact, with serialize_precision=-1.
func appendFloat(dst []byte, f float64, precision int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NAN"...)
	case math.IsInf(f, 1):
		return append(dst, "INF"...)
	case math.IsInf(f, -1):
		return append(dst, "-INF"...)
	}
	if math.Signbit(f) {
		dst = append(dst, '-')
		f = -f
	}
	if f == 0 {
		return append(dst, '0')
	}
	decimals, limit := precision-1, precision
	if precision == exact {
		decimals, limit = -1, 17
	}
	// d.ddde±dd
	var buf [32]byte
	text := strconv.AppendFloat(buf[:0], f, 'e', decimals, 64)
	digits := text[:0]
	i := 0
	for ; text[i] != 'e'; i++ {
		if text[i] != '.' {
			digits = append(digits, text[i])
		}
	}
	exp, _ := strconv.Atoi(string(text[i+1:]))
	for len(digits) > 1 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
	}
	switch {
	case exp < -4 || exp >= limit:
		dst = append(dst, digits[0], '.')
		if len(digits) == 1 {
			dst = append(dst, '0')
		}
		dst = append(dst, digits[1:]...)
		dst = append(dst, 'E')
		if exp >= 0 {
			dst = append(dst, '+')
		}
		return strconv.AppendInt(dst, int64(exp), 10)
	case exp < 0:
		dst = append(dst, "0."...)
		for range -exp - 1 {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	}
	for i := range max(len(digits), exp+1) {
		if i == exp+1 {
			dst = append(dst, '.')
		}
		if i < len(digits) {
			dst = append(dst, digits[i])
		} else {
			dst = append(dst, '0')
		}
	}
	return dst
}
