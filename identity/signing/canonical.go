// Package signing owns Matrix canonical JSON and ed25519 signatures over it:
// reading JSON strictly enough to be signed, encoding it canonically, and
// signing and verifying objects. Where keys are stored and whose keys are
// trusted is decided elsewhere.
package signing

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays may nest in canonical JSON.
const MaxDepth = 64

// maxInteger is the largest integer that every JSON library keeps exactly,
// 2^53-1 (Matrix appendices, "Canonical JSON"); -maxInteger is the smallest.
const maxInteger = 1<<53 - 1

// Errors of values and documents that have no canonical JSON. They are returned
// wrapped with what was wrong, never with the content.
var (
	ErrSyntax      = errors.New("not JSON")
	ErrUTF8        = errors.New("text is not Unicode")
	ErrDuplicate   = errors.New("duplicate object member")
	ErrDepth       = errors.New("nested too deeply")
	ErrNumber      = errors.New("number is not an integer of at most 53 bits")
	ErrUnsupported = errors.New("value has no JSON form")
)

// Canonical returns the canonical JSON of v: the shortest UTF-8 encoding with
// object members sorted by code point. It takes nil, bool, string,
// json.Number, signed and unsigned integers, []any and map[string]any; nil maps
// and slices are empty ones.
//
// A json.Number whose value is an integer is written in plain decimal: -0 is 0,
// 1e10 is 10000000000, 1.0 is 1. Canonical returns ErrNumber for any other
// number and beyond ±(2^53-1), ErrUTF8 for a string that is not valid UTF-8,
// ErrDepth beyond MaxDepth, and ErrUnsupported for other types, floats included.
func Canonical(v any) ([]byte, error) { return appendValue(nil, v, 0) }

// CanonicalJSON returns the canonical form of the JSON document data. It
// returns the errors of Parse and of Canonical.
func CanonicalJSON(data []byte) ([]byte, error) {
	v, err := Parse(data)
	if err != nil {
		return nil, err
	}
	return Canonical(v)
}

func appendValue(b []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendString(b, v)
	case json.Number:
		n, ok := integer(string(v))
		if !ok {
			return nil, ErrNumber
		}
		return appendInteger(b, n)
	case int:
		return appendInteger(b, int64(v))
	case int32:
		return appendInteger(b, int64(v))
	case int64:
		return appendInteger(b, v)
	case uint32:
		return appendInteger(b, int64(v))
	case uint64:
		return appendInteger(b, int64(min(v, maxInteger+1)))
	case []any:
		return appendArray(b, v, depth+1)
	case map[string]any:
		return appendObject(b, v, depth+1)
	default:
		return nil, fmt.Errorf("%w: %T", ErrUnsupported, v)
	}
}

func appendInteger(b []byte, n int64) ([]byte, error) {
	if n < -maxInteger || n > maxInteger {
		return nil, ErrNumber
	}
	return strconv.AppendInt(b, n, 10), nil
}

func appendArray(b []byte, a []any, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, ErrDepth
	}
	b = append(b, '[')
	for i, v := range a {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendValue(b, v, depth); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendObject(b []byte, o map[string]any, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, ErrDepth
	}
	b = append(b, '{')
	// Go compares strings by byte, which for UTF-8 is by code point.
	for i, name := range slices.Sorted(maps.Keys(o)) {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendString(b, name); err != nil {
			return nil, err
		}
		if b, err = appendValue(append(b, ':'), o[name], depth); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// appendString escapes what JSON demands and nothing else, in the shortest way.
func appendString(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, ErrUTF8
	}
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ':
			b = append(b, c)
		case strings.IndexByte("\b\t\n\f\r", c) >= 0:
			b = append(b, '\\', "btn_fr"[c-'\b'])
		default:
			const hex = "0123456789abcdef"
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&0xf])
		}
	}
	return append(b, '"'), nil
}

// integer returns the value of a JSON number if it is an integer that fits
// int64, however it is written. It works on the digits: a float would round,
// and big numbers would let 1e999999999 take all memory.
func integer(s string) (int64, bool) {
	if !isNumber(s) {
		return 0, false
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(mantissa, "-"), ".")
	all := strings.TrimLeft(whole+fraction, "0")
	digits := strings.TrimRight(all, "0")
	if digits == "" {
		return 0, true
	}
	exp := 0
	if exponent != "" {
		var err error
		if exp, err = strconv.Atoi(exponent); err != nil {
			return 0, false
		}
	}
	zeros := exp - len(fraction) + len(all) - len(digits)
	const most = 19 // digits of the largest int64
	if zeros < 0 || zeros > most || len(digits)+zeros > most {
		return 0, false
	}
	n, err := strconv.ParseInt(digits+strings.Repeat("0", zeros), 10, 64)
	if strings.HasPrefix(s, "-") {
		n = -n
	}
	return n, err == nil
}

// isNumber reports whether s is a number of the JSON grammar and nothing more.
func isNumber(s string) bool {
	return s != "" && (s[0] == '-' || '0' <= s[0] && s[0] <= '9') &&
		'0' <= s[len(s)-1] && s[len(s)-1] <= '9' && json.Valid([]byte(s))
}
