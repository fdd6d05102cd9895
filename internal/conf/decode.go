package conf

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// place is where in the configuration the decoder stands.
type place struct {
	path   string
	expand bool // below a field tagged `conf:"expand"`
}

// entry is one "key: value" of a mapping.
type entry struct {
	key     string
	keyNode ast.Node
	value   ast.Node
}

// decode sets dst from node. The library's decoder stops at the first fault
// and quotes the file in it; walking its syntax tree finds all of them.
func (l *loader) decode(node ast.Node, dst reflect.Value, at place) {
	switch node.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		l.fault(node, at.path, `anchors, aliases and tags are not supported: write the value out, and quote a text that begins with "&", "*" or "!"`)
		return
	case *ast.NullNode:
		// A section whose lines are all commented out sets nothing.
		if isScalar(elemType(dst.Type())) {
			l.fault(node, at.path, "has no value: write one or remove the line")
		}
		return
	}
	for dst.Kind() == reflect.Pointer {
		if dst.IsNil() {
			dst.Set(reflect.New(dst.Type().Elem()))
		}
		dst = dst.Elem()
	}
	switch t := dst.Type(); {
	case isScalar(t) && l.goneBelow(node, at):
	case isScalar(t):
		l.decodeScalar(node, dst, at)
	case t.Kind() == reflect.Struct:
		l.decodeStruct(node, dst, at)
	case t.Kind() == reflect.Map:
		l.decodeMap(node, dst, at)
	case t.Kind() == reflect.Slice:
		l.decodeSlice(node, dst, at)
	case t == reflect.TypeFor[any]():
		l.decodeAny(node, dst, at)
	default:
		l.fault(node, at.path, "cannot be set in a file")
	}
}

// elemType returns t without its pointers.
func elemType(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

func (l *loader) decodeStruct(node ast.Node, dst reflect.Value, at place) {
	entries := l.entries(node, at, join)
	if variants := variantsOf(dst.Type()); len(variants) > 0 && !l.chooseVariant(node, entries, dst, variants, at) {
		return // whether its options are known depends on the type
	}
	fields := fieldsOf(dst)
	for _, e := range entries {
		f, found := find(fields, e.key)
		if !found || f.inFile {
			remedy := "unknown option: correct its name or remove it; known here: " + names(fields)
			if what, gone := l.Gone[pattern(join(at.path, e.key))]; gone {
				remedy = what
			}
			l.fault(e.keyNode, join(at.path, e.key), remedy)
			continue
		}
		l.problems.where[join(at.path, f.name)] = l.line(e.keyNode)
		l.decode(e.value, dst.FieldByIndex(f.index), place{join(at.path, f.name), at.expand || f.expand})
	}
}

// chooseVariant makes the variant that the option "type" names, and only that.
func (l *loader) chooseVariant(node ast.Node, entries []entry, dst reflect.Value, variants []variant, at place) bool {
	at.path = join(at.path, "type")
	kind := ""
	for _, e := range entries {
		if e.key == "type" {
			node = e.value
			text, _, ok := l.text(node, at)
			if !ok {
				return false
			}
			kind = text
		}
	}
	chosen := false
	kinds := make([]string, len(variants))
	for i, v := range variants {
		kinds[i] = v.kind
		options := dst.Field(v.index)
		if v.kind != kind {
			options.SetZero()
			continue
		}
		chosen = true
		if options.IsNil() {
			options.Set(reflect.New(options.Type().Elem()))
		}
	}
	if !chosen {
		remedy := "write one of " + strings.Join(kinds, ", ")
		if what, gone := l.Gone[pattern(at.path)+"="+kind]; gone {
			remedy = what
		}
		l.fault(node, at.path, remedy)
	}
	return chosen
}

// goneBelow reports options below one that has none any more.
func (l *loader) goneBelow(node ast.Node, at place) bool {
	what, gone := l.Gone[pattern(at.path)+".*"]
	if _, isMap := node.(ast.MapNode); !isMap || !gone {
		return false
	}
	l.fault(node, at.path, what)
	return true
}

// variable matches the parts of a path that are names of a map or places in a list.
var variable = regexp.MustCompile(`\[("[^"]*"|\d+)\]`)

// pattern returns path with "*" for these parts.
func pattern(path string) string { return variable.ReplaceAllString(path, ".*") }

func find(fields []field, name string) (field, bool) {
	for _, f := range fields {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

func names(fields []field) string {
	var list []string
	for _, f := range fields {
		if !f.hidden {
			list = append(list, f.name)
		}
	}
	return strings.Join(list, ", ")
}

// decodeMap adds the file's entries to those dst holds by default; an entry
// of the same key is changed, not replaced.
func (l *loader) decodeMap(node ast.Node, dst reflect.Value, at place) {
	entries := l.entries(node, at, index)
	if dst.IsNil() {
		dst.Set(reflect.MakeMapWithSize(dst.Type(), len(entries)))
	}
	for _, e := range entries {
		path := index(at.path, e.key)
		key := reflect.New(dst.Type().Key()).Elem()
		if remedy := setText(key, e.key); remedy != "" {
			l.fault(e.keyNode, path, "this name is wrong: "+remedy)
			continue
		}
		l.problems.where[path] = l.line(e.keyNode)
		value := reflect.New(dst.Type().Elem()).Elem()
		if old := dst.MapIndex(key); old.IsValid() {
			value.Set(old)
		}
		l.decode(e.value, value, place{path, at.expand})
		dst.SetMapIndex(key, value)
	}
}

func (l *loader) decodeSlice(node ast.Node, dst reflect.Value, at place) {
	seq, ok := node.(*ast.SequenceNode)
	if !ok {
		l.fault(node, at.path, `is a list: write each item on a line of its own after "- ", or [a, b]`)
		return
	}
	list := reflect.MakeSlice(dst.Type(), len(seq.Values), len(seq.Values))
	for i, value := range seq.Values {
		path := fmt.Sprintf("%s[%d]", at.path, i)
		l.problems.where[path] = l.line(value)
		l.decode(value, list.Index(i), place{path, at.expand})
	}
	dst.Set(list)
}

// decodeAny decodes what has no type of its own: map[string]any, []any,
// string, bool, int64, uint64 or float64.
func (l *loader) decodeAny(node ast.Node, dst reflect.Value, at place) {
	var value reflect.Value
	switch n := node.(type) {
	case ast.MapNode:
		value = reflect.New(reflect.TypeFor[map[string]any]()).Elem()
		l.decodeMap(node, value, at)
	case *ast.SequenceNode:
		value = reflect.New(reflect.TypeFor[[]any]()).Elem()
		l.decodeSlice(node, value, at)
	case *ast.StringNode, *ast.LiteralNode:
		text, _, ok := l.text(node, at)
		if !ok {
			return
		}
		value = reflect.ValueOf(text)
	case ast.ScalarNode:
		value = reflect.ValueOf(n.GetValue())
	}
	if value.IsValid() {
		dst.Set(value)
	}
}

func (l *loader) decodeScalar(node ast.Node, dst reflect.Value, at place) {
	text, quoted, ok := l.text(node, at)
	if !ok {
		return
	}
	switch _, isBool := node.(*ast.BoolNode); {
	case isBool && dst.Kind() == reflect.String:
		l.fault(node, at.path, "is a text: put quotes around it")
		return
	case quoted && needsPlainText(dst.Type()):
		l.fault(node, at.path, "is not a text: remove the quotes")
		return
	}
	if remedy := setText(dst, text); remedy != "" {
		l.fault(node, at.path, remedy)
	}
}

// text returns a scalar's text after expansion, and whether it was quoted.
func (l *loader) text(node ast.Node, at place) (text string, quoted, ok bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		text = n.Value
		quoted = n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
	case *ast.LiteralNode:
		text, quoted = n.Value.Value, true
	case ast.ScalarNode:
		return n.GetToken().Value, false, true // as written: a password may be 007
	default:
		l.fault(node, at.path, "is a single value, not a list or a group of options")
		return "", false, false
	}
	if !at.expand || !strings.Contains(text, "${") {
		return text, quoted, true
	}
	text, faults := l.expandVariables(text)
	for _, remedy := range faults {
		l.fault(node, at.path, remedy)
	}
	return text, false, len(faults) == 0
}

// entries lists a mapping's entries, without those whose key is not a name or
// stands there twice. name makes the path of an entry.
func (l *loader) entries(node ast.Node, at place, name func(path, key string) string) []entry {
	mapping, ok := node.(ast.MapNode)
	if !ok {
		l.fault(node, at.path, `is a group of options: write "name: value" lines`)
		return nil
	}
	var list []entry
	first := make(map[string]int)
	for pairs := mapping.MapRange(); pairs.Next(); {
		key, ok := keyText(pairs.Key())
		if !ok {
			l.fault(pairs.Key(), at.path, "holds a key that is not a name")
			continue
		}
		line := pairs.Key().GetToken().Position.Line
		if before, twice := first[key]; twice {
			l.fault(pairs.Key(), name(at.path, key), fmt.Sprintf("is set twice, first in line %d: remove one", before))
			continue
		}
		first[key] = line
		list = append(list, entry{key, pairs.Key(), pairs.Value()})
	}
	return list
}

func keyText(key ast.Node) (string, bool) {
	switch k := key.(type) {
	case *ast.MappingKeyNode: // "? key"
		return keyText(k.Value)
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return k.GetToken().Value, true
	default:
		return "", false
	}
}
