package php

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What PHP 8.2 printed.
func TestScalars(t *testing.T) {
	tests := []struct {
		v                         Value
		export, serialize, string string
	}{
		{nil, "NULL", "N;", ""},
		{true, "true", "b:1;", "1"},
		{false, "false", "b:0;", ""},
		{int64(-7), "-7", "i:-7;", "-7"},
		{int64(math.MinInt64), "-9223372036854775807-1", "i:-9223372036854775808;", "-9223372036854775808"},
		{1.0, "1.0", "d:1;", "1"},
		{0.1, "0.1", "d:0.1;", "0.1"},
		{1.0 / 3, "0.3333333333333333", "d:0.3333333333333333;", "0.33333333333333"},
		{math.Copysign(0, -1), "-0.0", "d:-0;", "-0"},
		{1e14, "100000000000000.0", "d:100000000000000;", "1.0E+14"},
		{1e16, "10000000000000000.0", "d:10000000000000000;", "1.0E+16"},
		{1e17, "1.0E+17", "d:1.0E+17;", "1.0E+17"},
		{1.5e25, "1.5E+25", "d:1.5E+25;", "1.5E+25"},
		{0.0001, "0.0001", "d:0.0001;", "0.0001"},
		{0.00001, "1.0E-5", "d:1.0E-5;", "1.0E-5"},
		{-123.456, "-123.456", "d:-123.456;", "-123.456"},
		{math.Inf(1), "INF", "d:INF;", "INF"},
		{math.Inf(-1), "-INF", "d:-INF;", "-INF"},
		{math.NaN(), "NAN", "d:NAN;", "NAN"},
		{"é\n", "'é\n'", "s:3:\"é\n\";", "é\n"},
		{`it's \ "`, `'it\'s \\ "'`, `s:8:"it's \ "";`, `it's \ "`},
		{"a\x00b", `'a' . "\0" . 'b'`, "s:3:\"a\x00b\";", "a\x00b"},
		{"longer than sixteen bytes' \\ \x00", `'longer than sixteen bytes\' \\ ' . "\0" . ''`,
			"s:30:\"longer than sixteen bytes' \\ \x00\";", "longer than sixteen bytes' \\ \x00"},
	}
	for _, tt := range tests {
		s, ok := ToString(tt.v)
		got := []string{string(AppendExport(nil, tt.v)), string(AppendSerialize(nil, tt.v)), s}
		if diff := cmp.Diff([]string{tt.export, tt.serialize, tt.string}, got); diff != "" || !ok {
			t.Errorf("%v (-want +got):\n%s", tt.v, diff)
		}
	}
	if s, ok := ToString(List()); ok {
		t.Errorf("an array as a string is %q", s)
	}
}

func TestArrays(t *testing.T) {
	a := literal(t, `['x' => null, 'list' => ["it's", [], 1.0], 5 => [5 => "\0"], -9223372036854775807-1 => true]`)
	tests := []struct{ name, got, want string }{
		{"export", string(AppendExport([]byte(">"), a)), `>array (
  'x' => NULL,
  'list' => 
  array (
    0 => 'it\'s',
    1 => 
    array (
    ),
    2 => 1.0,
  ),
  5 => 
  array (
    5 => '' . "\0" . '',
  ),
  -9223372036854775808 => true,
)`},
		{"static array", string(AppendStaticArray([]byte(">"), a, 1, true)), `>[
		'x' => null,
		'list' => [
			'it\'s',
			[
			],
			1.0,
		],
		5 => [
			5 => '' . "\0" . '',
		],
		-9223372036854775807-1 => true,
	]`},
		{"static array of 1.39", string(AppendStaticArray(nil, a, 0, false)), `[
	'x' => null,
	'list' => [
		0 => 'it\'s',
		1 => [
		],
		2 => 1.0,
	],
	5 => [
		5 => '' . "\0" . '',
	],
	-9223372036854775807-1 => true,
]`},
		{"serialize", string(AppendSerialize(nil, a)),
			"a:4:{s:1:\"x\";N;s:4:\"list\";a:3:{i:0;s:4:\"it's\";i:1;a:0:{}i:2;d:1;}i:5;a:1:{i:5;s:1:\"\x00\";}i:-9223372036854775808;b:1;}"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
