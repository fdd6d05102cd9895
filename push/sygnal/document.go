package sygnal

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// document is the YAML that is written. Every text in it is quoted, so that no
// value of the file that was read can become anything but a value.
type document struct{ buf bytes.Buffer }

const (
	indentWidth = 2
	// commentWidth is where comments wrap, in bytes.
	commentWidth = 80
)

// comment writes text as comment lines.
func (d *document) comment(level int, text string) {
	prefix := indent(level) + "#"
	line := prefix
	for word := range strings.FieldsSeq(text) {
		if line != prefix && len(line)+1+len(word) > commentWidth {
			d.buf.WriteString(line + "\n")
			line = prefix
		}
		line += " " + word
	}
	d.buf.WriteString(line + "\n")
}

// section begins a group of options.
func (d *document) section(level int, name string) {
	if level == 0 {
		d.buf.WriteByte('\n')
	}
	d.buf.WriteString(indent(level) + key(name) + ":\n")
}

// set writes one option. A mapping takes a line for each member, a list is
// written in one.
func (d *document) set(level int, name string, value any) {
	o, ok := value.(*object)
	if !ok || len(o.keys) == 0 {
		d.buf.WriteString(indent(level) + key(name) + ": " + flow(value) + "\n")
		return
	}
	d.section(level, name)
	for _, k := range o.keys {
		d.set(level+1, k, o.values[k])
	}
}

func indent(level int) string { return strings.Repeat(" ", indentWidth*level) }

// flow returns a value in one line.
func flow(value any) string {
	switch v := value.(type) {
	case string:
		return quote(v)
	case []string:
		items := make([]string, len(v))
		for i := range v {
			items[i] = quote(v[i])
		}
		return "[" + strings.Join(items, ", ") + "]"
	case []any:
		items := make([]string, len(v))
		for i := range v {
			items[i] = flow(v[i])
		}
		return "[" + strings.Join(items, ", ") + "]"
	case *object:
		items := make([]string, len(v.keys))
		for i, k := range v.keys {
			items[i] = key(k) + ": " + flow(v.values[k])
		}
		return "{" + strings.Join(items, ", ") + "}"
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default: // bool and integers
		return fmt.Sprint(v)
	}
}

// plain is a key that YAML takes for nothing but itself.
var plain = regexp.MustCompile(`^[a-z][a-z0-9]*([_-][a-z0-9]+)*$`)

func key(name string) string {
	if plain.MatchString(name) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off"}, name) {
		return name
	}
	return quote(name)
}

// quote returns s between double quotes. What does not print is escaped; YAML
// has all escapes that Go uses for it.
func quote(s string) string { return strconv.Quote(s) }
