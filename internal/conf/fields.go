package conf

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	secretType      = reflect.TypeFor[Secret]()
)

// field is one option of a struct.
type field struct {
	name   string // in YAML
	index  []int  // for reflect.Value.FieldByIndex
	typ    reflect.Type
	expand bool // tagged `conf:"expand"`
	hidden bool // tagged `conf:"hidden"` or `conf:"file"`
	inFile bool // tagged `conf:"file"`
}

// variant is a field tagged `yaml:",inline" conf:"type=NAME"`.
type variant struct {
	kind  string
	index int
}

// fieldsOf lists the options of a struct in their order, those of inlined
// structs and of the variants that are set included.
func fieldsOf(v reflect.Value) []field {
	var list []field
	for sf, value := range v.Fields() {
		tag, tagged := sf.Tag.Lookup("yaml")
		name, flags, _ := strings.Cut(tag, ",")
		switch {
		case !tagged || name == "-" || !sf.IsExported():
		case flags == "inline":
			list = append(list, inlined(sf.Index, value)...)
		case name != "":
			list = append(list, field{
				name:   name,
				index:  sf.Index,
				typ:    sf.Type,
				expand: sf.Tag.Get("conf") == "expand",
				hidden: sf.Tag.Get("conf") == "hidden" || sf.Tag.Get("conf") == "file",
				inFile: sf.Tag.Get("conf") == "file",
			})
		}
	}
	return list
}

func inlined(index []int, v reflect.Value) []field {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	list := fieldsOf(v)
	for i := range list {
		list[i].index = append(slices.Clone(index), list[i].index...)
	}
	return list
}

func variantsOf(t reflect.Type) []variant {
	var list []variant
	for sf := range t.Fields() {
		if kind, ok := strings.CutPrefix(sf.Tag.Get("conf"), "type="); ok {
			list = append(list, variant{kind, sf.Index[0]})
		}
	}
	return list
}

// isScalar says whether a value of type t is written as one piece of text.
func isScalar(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		return true
	}
	return t.Kind() == reflect.String || needsPlainText(t)
}

// needsPlainText says whether t is a number or a bool, which YAML tells from
// text by the missing quotes.
func needsPlainText(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		return false
	}
	switch t.Kind() {
	case reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	default:
		return false
	}
}

// isScalarList says whether t is a list of single values.
func isScalarList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && !isScalar(t) && isScalar(t.Elem())
}

// join appends an option's name to a path.
func join(path, name string) string {
	if path == "" {
		return shown(name)
	}
	return path + "." + shown(name)
}

// index appends a map's key to a path.
func index(path, key string) string { return fmt.Sprintf("%s[%q]", path, shown(key)) }

// shown is key as a message may show it. Keys are names and worth showing, but
// a misplaced quote or colon can turn a secret into a key, so what does not
// look like a name is not.
func shown(key string) string {
	const longest = 128
	if key == "" || len(key) > longest {
		return "?"
	}
	for _, c := range []byte(key) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("._-:/[]*", c) >= 0:
		default:
			return "?"
		}
	}
	return key
}
