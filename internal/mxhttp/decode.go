package mxhttp

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Decoder reads a JSON text value by value, for handlers to which even the maps
// of a general decoder are too slow. It takes half of the time encoding/json
// does. Of the methods of jsontext.Decoder, SkipValue passes over a value.
type Decoder struct {
	*jsontext.Decoder

	// whole is the JSON text. The strings of it that have no escapes are parts of
	// this one, and keep it in memory.
	whole string
}

// decoders are those that no request needs at the moment.
var decoders = sync.Pool{New: func() any { return new(jsontext.Decoder) }}

// ReadDecoder reads the request body, of at most limit bytes, and returns a
// decoder for it, to be released after use. The body has been checked to be
// UTF-8 and not to nest too deeply; its errors are those of [ReadJSON]. Errors of
// the decoder's methods are turned into an answer by [Decoder.Fault].
func ReadDecoder(w http.ResponseWriter, r *http.Request, limit int64) (Decoder, error) {
	data, err := readBody(w, r, limit)
	if err != nil {
		return Decoder{}, err
	}
	if err := checkText(data); err != nil {
		return Decoder{}, err
	}
	return newDecoder(data), nil
}

func newDecoder(data []byte) Decoder {
	d := decoders.Get().(*jsontext.Decoder)
	d.Reset(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return Decoder{d, string(data)}
}

// Release leaves the decoder to another request. What it has decoded may still be
// used, but no name that it lent and none of its methods.
func (d Decoder) Release() {
	d.Reset(http.NoBody) // lets go of the body
	decoders.Put(d.Decoder)
}

// Fault returns the answer to an error of reading: err itself if it is one
// already, else 400 M_NOT_JSON.
func (d Decoder) Fault(err error) error {
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	return errNotJSON("The request body is not valid JSON")
}

// End returns an error unless the text ends here.
func (d Decoder) End() error {
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errNotJSON("The request body goes on after the JSON value")
	}
	return nil
}

// Members calls read for each member of the object that comes next, after its
// name and before its value, which read must read or skip. The name is valid
// until then, and still quoted if that makes a difference: compare it in
// quotes. It reports false, and skips the value, if the next one is no object.
func (d Decoder) Members(read func(quotedName []byte) error) (bool, error) {
	if d.PeekKind() != '{' {
		return false, d.SkipValue()
	}
	if _, err := d.ReadToken(); err != nil {
		return true, err
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadValue()
		if err != nil {
			return true, err
		}
		if bytes.IndexByte(name, '\\') >= 0 { // an escape in a name: as rare as legal
			if name, err = jsontext.AppendQuote(nil, unquote(name)); err != nil {
				return true, err
			}
		}
		if err := read(name); err != nil {
			return true, err
		}
	}
	_, err := d.ReadToken()
	return true, err
}

// Value decodes the next value into the types of encoding/json, with numbers as
// json.Number. Of members with the same name the last one counts.
func (d Decoder) Value() (any, error) {
	switch d.PeekKind() {
	case '{':
		return d.object()
	case '[':
		return d.array()
	case '"':
		return d.text()
	case '0':
		number, err := d.ReadValue()
		return json.Number(number), err
	}
	token, err := d.ReadToken()
	if err != nil || token.Kind() == 'n' {
		return nil, err
	}
	return token.Bool(), nil
}

// Text decodes the next value if it is a string. Otherwise it skips it and
// reports false. A lone surrogate becomes U+FFFD, as in encoding/json.
func (d Decoder) Text() (text string, ok bool, err error) {
	if d.PeekKind() != '"' {
		return "", false, d.SkipValue()
	}
	text, err = d.text()
	return text, err == nil, err
}

func (d Decoder) object() (any, error) {
	object := make(map[string]any)
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	for d.PeekKind() != '}' {
		name, err := d.text()
		if err != nil {
			return nil, err
		}
		if object[name], err = d.Value(); err != nil {
			return nil, err
		}
	}
	_, err := d.ReadToken()
	return object, err
}

func (d Decoder) array() (any, error) {
	array := []any{}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	for d.PeekKind() != ']' {
		item, err := d.Value()
		if err != nil {
			return nil, err
		}
		array = append(array, item)
	}
	_, err := d.ReadToken()
	return array, err
}

var errNotText = errors.New("member name is not a string")

func (d Decoder) text() (string, error) {
	quoted, err := d.ReadValue()
	switch {
	case err != nil:
		return "", err
	case quoted[0] != '"':
		return "", errNotText
	}
	if bytes.IndexByte(quoted, '\\') >= 0 {
		return string(unquote(quoted)), nil
	}
	end := d.InputOffset() - 1
	return d.whole[end-int64(len(quoted)-2) : end], nil
}

// unquote returns the text of a string literal whose syntax has been checked.
func unquote(quoted []byte) []byte {
	text, _ := jsontext.AppendUnquote(nil, quoted) // only lone surrogates can be wrong
	return text
}
