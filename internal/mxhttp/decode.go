package mxhttp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
	x     *exchange // of the request, if it has one
	room  *int      // what a value may still take that Within decodes
}

// What a decoded value takes in memory, in bytes and as a rule.
const (
	sizeOfObject = 320 // with room for some members
	sizeOfMember = 64
	sizeOfArray  = 24
	sizeOfItem   = 48
)

// Decoders lends decoders to the requests of one API, which use one another's. The
// zero Decoders is ready for use, by many at once.
type Decoders struct {
	// MaxItems is how many items a list, and members an object, may have. More are not
	// read, and answered with 413. 0 means any number.
	MaxItems int
	// DeepIsAbsent reads what nests too deeply as an empty string, instead of
	// refusing the body.
	DeepIsAbsent bool

	free sync.Pool
}

// ReadBody has read read the request body, a JSON value of at most limit bytes.
// The body has been checked to be UTF-8 and not to nest too deeply. read must read
// or skip the whole value, unless it fails; its decoder, and the names that it
// lends, are valid until it returns. An [*Error] of read is returned as it is, all
// others stand for JSON that is none; beside them, the errors are those of
// [ReadJSON].
func (d *Decoders) ReadBody(w http.ResponseWriter, r *http.Request, limit int64, read func(Decoder) error) error {
	data, err := readText(w, r, limit, shape{most: d.MaxItems, lenient: d.DeepIsAbsent})
	if err != nil {
		return err
	}
	x := exchangeOf(r.Context())
	if err := x.holdDecoded(len(data)); err != nil {
		return err
	}
	err = d.decode(x, data, read)
	if _, ok := errors.AsType[*Error](err); !ok || jsontext.Value(data).IsValid(jsontext.AllowInvalidUTF8(true)) {
		return err
	}
	// Of members with the same name the last one counts, also where a former one is
	// of a wrong shape. So leave only the last.
	object, objectErr := DecodeObject(data)
	if objectErr != nil {
		return err
	}
	if data, err = json.Marshal(object); err != nil {
		return fmt.Errorf("encode the request without duplicate members: %w", err)
	}
	return d.decode(x, data, read)
}

func (d *Decoders) decode(x *exchange, data []byte, read func(Decoder) error) error {
	dec, ok := d.free.Get().(*jsontext.Decoder)
	if !ok {
		dec = new(jsontext.Decoder)
	}
	defer d.free.Put(dec)
	dec.Reset(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	defer dec.Reset(http.NoBody) // lets go of the body
	if err := read(Decoder{Decoder: dec, whole: string(data), x: x}); err != nil {
		if known, ok := errors.AsType[*Error](err); ok {
			return known
		}
		return errNotJSON("The request body is not valid JSON")
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
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

var errNoRoom = errors.New("value takes too much memory")

// Within decodes the next value if that takes at most limit bytes of memory, as a
// rule, and else passes over it and returns nil: what is not kept counts against
// no budget.
func (d Decoder) Within(limit int) (any, error) {
	depth, room := d.StackDepth(), limit
	bounded := d
	bounded.room = &room
	v, err := bounded.Value()
	if err == nil {
		return v, d.x.holdDecoded(limit - room)
	}
	if !errors.Is(err, errNoRoom) {
		return nil, err
	}
	for d.StackDepth() > depth {
		if kind := d.PeekKind(); kind == '}' || kind == ']' {
			_, err = d.ReadToken()
		} else {
			err = d.SkipValue()
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// take takes n bytes for what is decoded.
func (d Decoder) take(n int) error {
	if d.room == nil {
		return d.x.holdDecoded(n)
	}
	if *d.room -= n; *d.room < 0 {
		return errNoRoom
	}
	return nil
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
	if err := d.take(sizeOfObject); err != nil {
		return nil, err
	}
	object := make(map[string]any)
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	for d.PeekKind() != '}' {
		if err := d.take(sizeOfMember); err != nil {
			return nil, err
		}
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
	if err := d.take(sizeOfArray); err != nil {
		return nil, err
	}
	array := []any{}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	for d.PeekKind() != ']' {
		if err := d.take(sizeOfItem); err != nil {
			return nil, err
		}
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
