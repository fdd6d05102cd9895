package conf

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
)

// Option describes one option for the documentation and for the tests that
// compare it with the code.
type Option struct {
	// Path is the option's dotted path; "*" stands for the keys of a map and
	// the items of a list ("apps.*.topic").
	Path string
	// Env is the variable that overrides it, "" if none does.
	Env string
	// Type is one of text, secret, bool, integer, number, duration and any, or
	// "list of" or "map of" one of these.
	Type string
	// File is the path of a secret's twin that names a file, "" if there is none.
	File string
	// Default is the text of the value dst holds; lists are separated by commas.
	Default string
	// Source is the struct and the field: "example.org/module/package.Type.Field".
	Source string
	// Kinds are the types of the variants that have the option, none where all do.
	Kinds []string
}

// Options lists the options of dst, a pointer to a struct that holds the
// defaults, in the order of its fields; of options that variants share the
// first is listed, and secrets stand for their twins. prefix is LoadOptions.EnvPrefix.
func Options(dst any, prefix string) []Option {
	return optionsOf(reflect.ValueOf(dst).Elem(), "", prefix)
}

// optionsOf lists the options of a struct; env is "" where nothing overrides.
func optionsOf(v reflect.Value, path, env string) []Option {
	v = withVariants(v)
	var list []Option
	seen := make(map[string]int) // variants may share options
	fields := fieldsOf(v)
	for _, f := range fields {
		secret, isTwin := find(fields, strings.TrimSuffix(f.name, fileSuffix))
		if f.hidden || isFileOption(f) && isTwin && secret.typ == secretType && !secret.hidden {
			continue
		}
		kinds := kindsOf(v.Type(), f.index[0])
		if first, again := seen[f.name]; again {
			list[first].Kinds = append(list[first].Kinds, kinds...)
			continue
		}
		seen[f.name] = len(list)
		name := ""
		if env != "" && !f.expand {
			name = envName(env, f.name)
		}
		for _, o := range optionOf(v.FieldByIndex(f.index), join(path, f.name), name) {
			if o.Source == "" {
				o.Source = sourceOf(v.Type(), f.index)
			}
			if _, there := find(fields, f.name+fileSuffix); there && f.typ == secretType {
				o.File = o.Path + fileSuffix
			}
			o.Kinds = append(o.Kinds, kinds...)
			list = append(list, o)
		}
	}
	return list
}

// kindsOf returns the type of the variant that the field i of a struct is.
func kindsOf(t reflect.Type, i int) []string {
	for _, v := range variantsOf(t) {
		if v.index == i {
			return []string{v.kind}
		}
	}
	return nil
}

func sourceOf(t reflect.Type, index []int) string {
	for _, i := range index[:len(index)-1] {
		t = elemType(t.Field(i).Type)
	}
	return t.PkgPath() + "." + t.Name() + "." + t.Field(index[len(index)-1]).Name
}

// withVariants returns a copy of a struct in which all variants are set.
func withVariants(v reflect.Value) reflect.Value {
	whole := reflect.New(v.Type()).Elem()
	whole.Set(v)
	for _, each := range variantsOf(v.Type()) {
		if options := whole.Field(each.index); options.IsNil() {
			options.Set(reflect.New(options.Type().Elem()))
		}
	}
	return whole
}

func optionOf(v reflect.Value, path, env string) []Option {
	switch t := v.Type(); {
	case t.Kind() == reflect.Pointer:
		if v.IsNil() && isScalar(t.Elem()) {
			return []Option{{Path: path, Env: env, Type: typeName(t.Elem())}}
		}
		if v.IsNil() {
			v = reflect.New(t.Elem())
		}
		return optionOf(v.Elem(), path, env)
	case isScalar(t), isScalarList(t):
		return []Option{{Path: path, Env: env, Type: typeName(t), Default: defaultText(v)}}
	case t.Kind() == reflect.Struct && env != "":
		return optionsOf(v, path, env+"_")
	case t.Kind() == reflect.Struct:
		return optionsOf(v, path, "")
	case hasItems(t) && elemType(t.Elem()).Kind() == reflect.Struct && !isScalar(t.Elem()):
		return optionsOf(reflect.New(elemType(t.Elem())).Elem(), path+".*", "")
	default:
		return []Option{{Path: path, Type: typeName(t)}}
	}
}

func hasItems(t reflect.Type) bool { return t.Kind() == reflect.Map || t.Kind() == reflect.Slice }

func typeName(t reflect.Type) string {
	switch {
	case t == secretType:
		return "secret"
	case t == reflect.TypeFor[Duration]():
		return "duration"
	case isScalar(t) && !needsPlainText(t):
		return "text"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "bool"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Slice:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "map of " + typeName(t.Elem())
	case reflect.Interface:
		return "any"
	default:
		return "integer"
	}
}

func defaultText(v reflect.Value) string {
	if isScalarList(v.Type()) {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = defaultText(v.Index(i))
		}
		return strings.Join(items, ",")
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(v.Interface())
}
