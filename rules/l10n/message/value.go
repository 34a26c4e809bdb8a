package message

import (
	"math"
	"strconv"
	"strings"

	"github.com/mwbuild/mwbuild/rules/l10n/php"
)

// ReadValue returns what json_decode with associative arrays makes of a JSON file: objects and lists are both
// *[php.Array], keys that look like integers are integers, a key that is there again keeps its place and takes the last
// value, an integer that PHP cannot hold is a float. null is nil, which json_decode also gives for what it refuses; here
// that is an *[Error], which begins with name.
func ReadValue(name string, data []byte) (php.Value, error) {
	s := &scanner{name: name, data: data, text: string(data)}
	if err := s.checkUTF8(); err != nil {
		return nil, err
	}
	s.space()
	v, err := s.value()
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// value reads a value.
func (s *scanner) value() (php.Value, error) {
	switch s.peek() {
	case '"':
		return s.str()
	case '{':
		a := &php.Array{}
		return a, s.members(func() error {
			k, err := s.key()
			if err != nil {
				return err
			}
			v, err := s.value()
			a.Set(php.StringKey(k), v)
			return err
		})
	case '[':
		a := &php.Array{}
		return a, s.elements(func() error {
			v, err := s.value()
			a.Append(v)
			return err
		})
	}
	return s.scalar()
}

// phpString is PHP's conversion of a scalar to a string.
func phpString(v any) string {
	switch v := v.(type) {
	case bool:
		if v {
			return "1"
		}
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return phpFloat(v)
	}
	return ""
}

// phpFloat is PHP's conversion of a float to a string with its default precision of 14 digits: 0.1, 100, 1.0E+25.
func phpFloat(f float64) string {
	const precision = 14
	sign := ""
	if math.Signbit(f) {
		sign, f = "-", -f
	}
	switch {
	case math.IsInf(f, 0):
		return sign + "INF"
	case f == 0:
		return sign + "0"
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', precision-1, 64), "e")
	digits := strings.TrimRight(mantissa[:1]+mantissa[2:], "0")
	exp, _ := strconv.Atoi(exponent)
	switch {
	case exp < -4 || exp >= precision:
		fraction := digits[1:]
		if fraction == "" {
			fraction = "0"
		}
		plus := ""
		if exp > 0 {
			plus = "+"
		}
		return sign + digits[:1] + "." + fraction + "E" + plus + strconv.Itoa(exp)
	case exp < 0:
		return sign + "0." + strings.Repeat("0", -exp-1) + digits
	case len(digits) <= exp+1:
		return sign + digits + strings.Repeat("0", exp+1-len(digits))
	}
	return sign + digits[:exp+1] + "." + digits[exp+1:]
}
