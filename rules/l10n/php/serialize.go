package php

import "strconv"

// AppendSerialize writes v as PHP's serialize does with serialize_precision=-1.
func AppendSerialize(dst []byte, v Value) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "N;"...)
	case bool:
		if v {
			return append(dst, "b:1;"...)
		}
		return append(dst, "b:0;"...)
	case int64:
		return appendSerialInt(dst, v)
	case float64:
		dst = append(dst, "d:"...)
		dst = appendFloat(dst, v, exact)
		return append(dst, ';')
	case string:
		return appendSerialString(dst, v)
	}
	a := v.(*Array)
	dst = append(dst, "a:"...)
	dst = strconv.AppendInt(dst, int64(a.Len()), 10)
	dst = append(dst, ":{"...)
	for k, v := range a.All() {
		if k.IsInt {
			dst = appendSerialInt(dst, k.Int)
		} else {
			dst = appendSerialString(dst, k.Str)
		}
		dst = AppendSerialize(dst, v)
	}
	return append(dst, '}')
}

func appendSerialInt(dst []byte, n int64) []byte {
	dst = append(dst, "i:"...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, ';')
}

// appendSerialString tells the length in bytes, so nothing is escaped.
func appendSerialString(dst []byte, s string) []byte {
	dst = append(dst, "s:"...)
	dst = strconv.AppendInt(dst, int64(len(s)), 10)
	dst = append(dst, `:"`...)
	dst = append(dst, s...)
	return append(dst, `";`...)
}
