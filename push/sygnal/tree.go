package sygnal

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxFile = 1 << 20 // bytes; thousands of apps fit
	// maxValues bounds what aliases of aliases can make of a small file.
	maxValues = 100_000
	maxDepth  = 64
)

// object is a mapping in the order of the file. Its values are nil, bool,
// int64, uint64, float64, string, []any and *object.
type object struct {
	keys   []string
	values map[string]any
}

// set adds or replaces a member: of two equal keys Python's reader takes the
// last.
func (o *object) set(key string, value any) {
	if _, there := o.values[key]; !there {
		o.keys = append(o.keys, key)
	}
	o.values[key] = value
}

// reader turns the library's syntax tree into values as PyYAML, which is what
// Sygnal reads its file with, understands them: with anchors and merge keys,
// and with yes and no as booleans.
type reader struct {
	anchors map[string]ast.Node
	values  int
}

// parse reads the one mapping that a configuration file is. Errors never quote
// the file, which holds secrets.
func parse(data []byte) (*object, error) {
	if len(data) > maxFile {
		return nil, errors.New("the file is larger than 1 MiB: this is hardly a configuration")
	}
	if !utf8.Valid(data) {
		return nil, errors.New("the file is not UTF-8 text")
	}
	file, err := parser.ParseBytes(bytes.TrimPrefix(data, []byte("\ufeff")), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(err)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case body != nil:
			return nil, errors.New("the file holds more than one YAML document")
		default:
			body = doc.Body
		}
	}
	r := &reader{anchors: make(map[string]ast.Node)}
	root, err := r.value(body, 0)
	if err != nil {
		return nil, err
	}
	o, ok := root.(*object)
	if !ok {
		return nil, errors.New("the file is not a mapping of Sygnal's sections")
	}
	return o, nil
}

func syntaxError(err error) error {
	syntax, ok := errors.AsType[*yaml.SyntaxError](err)
	if !ok || syntax.Token == nil || syntax.Token.Position == nil {
		return errors.New("the file is not valid YAML")
	}
	what := ""
	if !strings.Contains(syntax.Message, `"`) { // then it may quote a value
		what = ": " + syntax.Message
	}
	return fmt.Errorf("line %d is not valid YAML%s", syntax.Token.Position.Line, what)
}

func (r *reader) value(node ast.Node, depth int) (any, error) {
	if r.values++; r.values > maxValues || depth > maxDepth {
		return nil, errors.New("the file is nested too deeply, or its aliases make too much of it")
	}
	switch n := node.(type) {
	case *ast.AnchorNode:
		r.anchors[n.Name.GetToken().Value] = n.Value
		return r.value(n.Value, depth+1)
	case *ast.AliasNode:
		target, there := r.anchors[n.Value.GetToken().Value]
		if !there {
			return nil, fmt.Errorf("line %d refers to an anchor that is not there", n.Start.Position.Line)
		}
		return r.value(target, depth+1)
	case *ast.TagNode:
		return r.value(n.Value, depth+1)
	case ast.MapNode:
		return r.object(n, depth)
	case *ast.SequenceNode:
		list := make([]any, len(n.Values))
		for i, item := range n.Values {
			var err error
			if list[i], err = r.value(item, depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	default:
		return scalar(node), nil
	}
}

func (r *reader) object(node ast.MapNode, depth int) (any, error) {
	o := &object{values: make(map[string]any)}
	var merged []*object
	for pairs := node.MapRange(); pairs.Next(); {
		value, err := r.value(pairs.Value(), depth+1)
		if err != nil {
			return nil, err
		}
		if pairs.Key().IsMergeKey() {
			merged = append(merged, objects(value)...)
			continue
		}
		key, ok := keyText(pairs.Key())
		if !ok {
			return nil, fmt.Errorf("line %d has a key that is not a name", pairs.Key().GetToken().Position.Line)
		}
		o.set(key, value)
	}
	for _, m := range merged { // what is written out wins, then the first
		for _, key := range m.keys {
			if _, there := o.values[key]; !there {
				o.set(key, m.values[key])
			}
		}
	}
	return o, nil
}

// objects returns the mappings that a merge key lists.
func objects(value any) []*object {
	switch v := value.(type) {
	case *object:
		return []*object{v}
	case []any:
		var list []*object
		for _, item := range v {
			list = append(list, objects(item)...)
		}
		return list
	}
	return nil
}

func keyText(node ast.Node) (string, bool) {
	switch k := node.(type) {
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

func scalar(node ast.Node) any {
	switch n := node.(type) {
	case *ast.BoolNode:
		return n.Value
	case *ast.IntegerNode:
		return n.Value
	case *ast.FloatNode:
		return n.Value
	case *ast.LiteralNode:
		return n.Value.Value
	case *ast.StringNode:
		if n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType {
			return n.Value
		}
		switch strings.ToLower(n.Value) { // YAML 1.1
		case "yes", "on":
			return true
		case "no", "off":
			return false
		}
		return n.Value
	default: // null, infinities
		return nil
	}
}

// text returns a single value as it would be written.
func text(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case int64:
		return strconv.FormatInt(v, 10), true
	case uint64:
		return strconv.FormatUint(v, 10), true
	}
	return "", false
}

func integer(value any) (int64, bool) {
	s, ok := text(value)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
