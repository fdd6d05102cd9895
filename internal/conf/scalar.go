package conf

import (
	"encoding"
	"errors"
	"reflect"
	"strconv"
	"strings"
)

// setText sets dst, whose type satisfies isScalar, from text. On failure it
// returns what to write instead, without the text, and leaves dst alone.
func setText(dst reflect.Value, text string) (remedy string) {
	if u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return unmarshalText(u, text, dst.Type())
	}
	switch kind := dst.Kind(); kind {
	case reflect.String:
		dst.SetString(text)
	case reflect.Bool:
		switch strings.ToLower(text) {
		case "true":
			dst.SetBool(true)
		case "false":
			dst.SetBool(false)
		default:
			return "write true or false"
		}
	case reflect.Float32, reflect.Float64:
		n, err := strconv.ParseFloat(text, dst.Type().Bits())
		if err != nil {
			return numberRemedy(err)
		}
		dst.SetFloat(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 0, dst.Type().Bits())
		if err != nil {
			return numberRemedy(err)
		}
		dst.SetUint(n)
	default:
		n, err := strconv.ParseInt(text, 0, dst.Type().Bits())
		if err != nil {
			return numberRemedy(err)
		}
		dst.SetInt(n)
	}
	return ""
}

// Remedy is an error of UnmarshalText that says what to write instead. Load shows
// it, unlike other errors, whose text may quote the value: that may be a secret in
// the wrong place.
type Remedy string

// Error returns the remedy.
func (r Remedy) Error() string { return string(r) }

func unmarshalText(u encoding.TextUnmarshaler, text string, t reflect.Type) string {
	err := u.UnmarshalText([]byte(text))
	if err == nil {
		return ""
	}
	if remedy, ok := errors.AsType[Remedy](err); ok {
		return remedy.Error()
	}
	return "is not a valid " + t.Name()
}

func numberRemedy(err error) string {
	if errors.Is(err, strconv.ErrRange) {
		return "the number is out of range"
	}
	return "write a number, without a unit"
}

// setList sets a list of single values from their comma-separated text.
func setList(dst reflect.Value, text string) (remedy string) {
	list := reflect.MakeSlice(dst.Type(), 0, strings.Count(text, ",")+1)
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		value := reflect.New(dst.Type().Elem()).Elem()
		if remedy := setText(value, item); remedy != "" {
			return remedy
		}
		list = reflect.Append(list, value)
	}
	dst.Set(list)
	return ""
}
