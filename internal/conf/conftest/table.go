package conftest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/internal/conf"
)

const module = "github.com/matrix-herald/herald/"

// Table returns the options as a table in Markdown. What an option means is the
// comment of its field. root is the repository's folder, and main the package
// that the test is in.
func Table(t testing.TB, root, main string, options []conf.Option) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("|option|default|meaning|\n|---|---|---|\n")
	r := reader{root: root, main: main, packages: make(map[string]map[string]string)}
	for _, o := range options {
		meaning, err := r.meaning(o)
		if err != nil {
			t.Fatal(err)
		}
		if meaning == "" {
			t.Errorf("the field of %s needs a comment that says what the option means: %s", o.Path, o.Source)
		}
		if len(o.Kinds) > 0 {
			meaning = "(" + strings.Join(o.Kinds, ", ") + ") " + meaning
		}
		if o.File != "" {
			meaning = "or `" + o.File + "`: " + meaning
		}
		fmt.Fprintf(&b, "|`%s`|%s|%s|\n", o.Path, code(o.Default), strings.ReplaceAll(meaning, "|", "\\|"))
	}
	return b.String()
}

// reader reads the comments of fields.
type reader struct {
	root, main string
	packages   map[string]map[string]string // by package path; "Type.Field" to its comment
}

// meaning returns what an option means, "" if nothing says so.
func (r *reader) meaning(o conf.Option) (string, error) {
	slash := strings.LastIndex(o.Source, "/")
	pkg, name, _ := strings.Cut(o.Source[slash+1:], ".")
	dir := filepath.Join(r.root, r.main)
	if slash >= 0 {
		dir = filepath.Join(r.root, strings.TrimPrefix(o.Source[:slash+1], module), pkg)
	}
	if r.packages[dir] == nil {
		comments, err := fieldComments(dir)
		if err != nil {
			return "", err
		}
		r.packages[dir] = comments
	}
	if text := r.packages[dir][name]; text != "" {
		return text, nil
	}
	return "", nil
}

// fieldComments returns the comments of the options among the fields of a
// package's structs, as a table shows them.
func fieldComments(dir string) (map[string]string, error) {
	comments := make(map[string]string)
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					addComments(comments, spec.Name.Name, s)
				}
			}
			return true
		})
	}
	return comments, nil
}

var yamlName = regexp.MustCompile(`yaml:"([a-z0-9_]+)`)

func addComments(comments map[string]string, typ string, s *ast.StructType) {
	options := make(map[string]string) // by the field's name
	for _, f := range s.Fields.List {
		if f.Tag == nil || len(f.Names) != 1 {
			continue
		}
		if tag := yamlName.FindStringSubmatch(f.Tag.Value); tag != nil {
			options[f.Names[0].Name] = tag[1]
		}
	}
	for _, f := range s.Fields.List {
		if len(f.Names) == 1 && f.Doc != nil {
			name := f.Names[0].Name
			comments[typ+"."+name] = asCell(name, strings.Join(strings.Fields(f.Doc.Text()), " "), options)
		}
	}
}

var hump = regexp.MustCompile(`\b[A-Z]+[a-z]+[A-Z][A-Za-z]*\b`)

// asCell makes the comment of a field a cell of a table: without the field's name
// at its beginning, and with other options under their own names.
func asCell(name, comment string, options map[string]string) string {
	for _, begin := range []string{name + " is ", name + " are ", name + " says ", name + " "} {
		if rest, ok := strings.CutPrefix(comment, begin); ok {
			comment = rest
			break
		}
	}
	comment = hump.ReplaceAllStringFunc(comment, func(word string) string {
		if option := options[word]; option != "" {
			return "`" + option + "`"
		}
		return word
	})
	return strings.TrimSuffix(comment, ".")
}
