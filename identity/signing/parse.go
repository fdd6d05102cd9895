package signing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Parse reads one JSON document as nil, bool, string, json.Number, []any and
// map[string]any. encoding/json repairs some documents silently, so that what
// is verified is not what was signed; Parse refuses them: ErrUTF8 for invalid
// UTF-8 and for an escaped surrogate without its partner, ErrDuplicate for an
// object that names a member twice, ErrDepth beyond MaxDepth, and ErrSyntax for
// all else that is not one JSON value, trailing data included.
func Parse(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, ErrUTF8
	}
	if tooDeep(data) {
		return nil, ErrDepth
	}
	if !json.Valid(data) {
		return nil, ErrSyntax
	}
	if loneSurrogate(data) {
		return nil, ErrUTF8
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return parseValue(d)
}

// ParseObject is Parse for a document that must be an object; it returns
// ErrSyntax if it is another value.
func ParseObject(data []byte) (map[string]any, error) {
	v, err := Parse(data)
	if err != nil {
		return nil, err
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%w object", ErrSyntax)
	}
	return o, nil
}

// parseValue reads the next value of a document that is known to be valid.
func parseValue(d *json.Decoder) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, ErrSyntax // not err, which quotes what it read
	}
	switch t {
	case json.Delim('['):
		return parseArray(d)
	case json.Delim('{'):
		return parseObject(d)
	default:
		return t, nil
	}
}

func parseArray(d *json.Decoder) (any, error) {
	a := []any{}
	for d.More() {
		v, err := parseValue(d)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	return a, closing(d)
}

func parseObject(d *json.Decoder) (any, error) {
	o := map[string]any{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, ErrSyntax
		}
		if _, twice := o[name]; twice {
			return nil, ErrDuplicate
		}
		if o[name], err = parseValue(d); err != nil {
			return nil, err
		}
	}
	return o, closing(d)
}

// closing reads the bracket that ends an array or object.
func closing(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return ErrSyntax
	}
	return nil
}

// tooDeep reports whether data nests deeper than MaxDepth. It looks at brackets
// outside strings only, before anything recurses over them.
func tooDeep(data []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// loneSurrogate reports whether valid JSON escapes half of a surrogate pair,
// which encoding/json replaces with U+FFFD.
func loneSurrogate(data []byte) bool {
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++ // a backslash in valid JSON has a companion
		if data[i] != 'u' {
			continue
		}
		first := hex4(data[i+1:])
		i += 4
		if !utf16.IsSurrogate(first) {
			continue
		}
		rest := data[i+1:]
		if !bytes.HasPrefix(rest, []byte(`\u`)) || utf16.DecodeRune(first, hex4(rest[2:])) == utf8.RuneError {
			return true
		}
		i += 6
	}
	return false
}

func hex4(data []byte) rune {
	n, _ := strconv.ParseUint(string(data[:4]), 16, 32) // four hex digits in valid JSON
	return rune(n)
}
