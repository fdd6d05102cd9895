package mxhttp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxPath bounds the bytes of a member path quoted in an error.
	maxPath = 128
	// maxItems is how many items a list, and members an object, may have that ReadJSON
	// reads.
	maxItems = 10_000
)

// WriteJSON answers with v as JSON, encoded as by encoding/json but without
// HTML escapes and without a newline at the end. When v cannot be encoded,
// nothing is written and the error says so; other errors are those of writing
// to the client.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode the response: %w", err)
	}
	return WriteBody(w, status, bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
}

// WriteBody answers with body, which is JSON already. Errors are those of
// writing to the client.
func WriteBody(w http.ResponseWriter, status int, body []byte) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("write the response: %w", err)
	}
	return nil
}

// ReadJSON decodes the request body, a JSON object of at most limit bytes, into
// dst, a pointer to a struct or map. The Content-Type of the request does not
// matter. Member names match in exact case, unknown members are ignored, a null
// leaves the zero value, and of members with the same name the last one counts.
//
// Struct tags have the meaning of github.com/go-json-experiment/json; to keep a
// member as it came, give it the type jsontext.Value.
//
// Every error is an [*Error] for the client: 413 M_TOO_LARGE, also for a list or
// an object of more than 10,000, which is not read any further; 408 M_UNKNOWN
// for what arrives too slowly; 503 for what [Options.BytesInFlight] has no room
// for; 400 M_NOT_JSON for what is not UTF-8, not JSON or followed by more; 400
// M_BAD_JSON, naming the member, for JSON of the wrong shape or nested too deeply.
func ReadJSON(w http.ResponseWriter, r *http.Request, limit int64, dst any) error {
	data, err := readText(w, r, limit, shape{most: maxItems})
	if err != nil {
		return err
	}
	if err := exchangeOf(r.Context()).holdDecoded(len(data)); err != nil {
		return err
	}
	// Escaped lone surrogates are let through, as U+FFFD: Python and JavaScript
	// homeservers produce them, and encoding/json does the same.
	tolerant := jsontext.AllowInvalidUTF8(true)
	if !jsontext.Value(data).IsValid(tolerant) {
		// Either this is no JSON or a name occurs twice. The decoder would merge
		// the two values, so leave only the last.
		object, err := DecodeObject(data)
		if err != nil {
			return err
		}
		if data, err = json.Marshal(object); err != nil {
			return fmt.Errorf("encode the request without duplicate members: %w", err)
		}
	}
	if firstByte(data) != '{' {
		return ErrNotObject()
	}
	if err := jsonv2.Unmarshal(data, dst, tolerant); err != nil {
		return shapeError(err)
	}
	return nil
}

// DecodeObject decodes a JSON object into the types of encoding/json, with
// numbers as json.Number. Of members with the same name the last one counts.
// Every error is an [*Error] as described for [ReadJSON].
func DecodeObject(data []byte) (map[string]any, error) {
	if err := checkText(data); err != nil {
		return nil, err
	}
	var v any
	if err := new(Decoders).decode(nil, data, func(d Decoder) (err error) {
		v, err = d.Value()
		return err
	}); err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, ErrNotObject()
	}
	return object, nil
}

// firstByte returns the first byte of data that is no JSON white space, 0 if
// there is none.
func firstByte(data []byte) byte {
	data = bytes.TrimLeft(data, " \t\r\n")
	if len(data) == 0 {
		return 0
	}
	return data[0]
}

// shapeError turns an error of decoding valid JSON into the answer.
func shapeError(err error) error {
	semantic, ok := errors.AsType[*jsonv2.SemanticError](err)
	if !ok {
		return badJSON("The request body has the wrong shape")
	}
	var path strings.Builder
	for token := range semantic.JSONPointer.Tokens() {
		if path.Len() > 0 {
			path.WriteByte('.')
		}
		path.WriteString(token)
	}
	if path.Len() == 0 {
		return badJSON("The request body has the wrong shape")
	}
	// Cut after maxPath bytes: some names are the client's own. ToValidUTF8
	// drops a character that was cut in two.
	name := path.String()
	name = strings.ToValidUTF8(name[:min(len(name), maxPath)], "")
	return badJSON(name + ": expected " + expected(semantic.GoType))
}

// expected describes the JSON that t is decoded from.
func expected(t reflect.Type) string {
	if t == nil {
		return "another type"
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "an integer in range"
	case reflect.Float32, reflect.Float64:
		return "a number in range"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return "another type"
	}
}

func errTooLarge(limit int64) error {
	return &Error{
		Status: http.StatusRequestEntityTooLarge,
		Code:   codeTooLarge,
		Msg:    fmt.Sprintf("The request body is larger than %d bytes", limit),
	}
}

func errNotJSON(msg string) error {
	return &Error{Status: http.StatusBadRequest, Code: codeNotJSON, Msg: msg}
}

func badJSON(msg string) error {
	return &Error{Status: http.StatusBadRequest, Code: codeBadJSON, Msg: msg}
}

// ErrNotObject returns the answer to a body that is JSON but no object.
func ErrNotObject() error { return badJSON("The request body is wrong: expected an object") }
