package layers

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Check reads every Go file of the module rooted at fsys, whatever its build
// constraints, and returns one line "file: fault" for each fault, in the order
// of the files. It returns an error only when a file cannot be read or parsed.
//
// Beside the direction of imports it refuses source files of more than 450
// lines, init functions and time.Sleep, and outside tests any way to open a
// connection but those listed in exits.
func Check(fsys fs.FS) ([]string, error) {
	c := checker{table: make(map[string]pkg)}
	for _, p := range packages() {
		c.table[p.path] = p
	}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && ignored(name):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		return c.file(name, src)
	})
	if err != nil {
		return nil, fmt.Errorf("read the module's files: %w", err)
	}
	return c.faults, nil
}

// ignored reports whether the go command, too, would pass over the folder.
func ignored(dir string) bool {
	base := path.Base(dir)
	return dir != "." && (base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_"))
}

type checker struct {
	table  map[string]pkg
	faults []string
}

func (c *checker) report(file, format string, args ...any) {
	c.faults = append(c.faults, file+": "+fmt.Sprintf(format, args...))
}

func (c *checker) file(name string, src []byte) error {
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	test := strings.HasSuffix(name, "_test.go")
	if n := bytes.Count(src, []byte("\n")); n > maxLines && !test {
		c.report(name, "has %d lines; %d is the limit", n, maxLines)
	}
	c.body(name, f)

	from, ok := c.table[path.Dir(name)]
	if !ok {
		c.report(name, "package %s is not in the table of internal/layers", path.Dir(name))
		return nil
	}
	if !test && from.kind != testOnly {
		c.connections(name, from.path, f)
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		if rel, ours := inModule(imported); ours {
			c.arrow(name, from, rel, test)
		} else {
			c.foreign(name, from, imported, test)
		}
	}
	return nil
}

// inModule returns the path below the module and whether imported is part of it.
func inModule(imported string) (string, bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// arrow checks an import of another package of this module.
func (c *checker) arrow(name string, from pkg, imported string, test bool) {
	to, ok := c.table[imported]
	switch {
	case !ok:
		c.report(name, "imports %s, which is not in the table of internal/layers", imported)
	case imported == from.path:
		// An external test imports the package beside it.
	case to.kind == command:
		c.report(name, "imports %s: nothing imports a command", imported)
	case to.kind == testOnly && !test:
		c.report(name, "imports %s, which only tests may import", imported)
	case matches(from.imports, imported) || test && matches(family(from.path), imported):
	default:
		c.report(name, "%s must not import %s", from.path, imported)
	}
}

// foreign checks an import of the standard library or of another module.
func (c *checker) foreign(name string, from pkg, imported string, test bool) {
	gated := false
	for _, t := range technologies() {
		if !covers(t.paths, imported) {
			continue
		}
		gated = true
		if test && !t.tests || matches(t.in, from.path) {
			continue
		}
		if !t.tests && (from.kind == command || from.kind == testOnly) {
			continue
		}
		c.report(name, "imports %s: %s belongs to %s", imported, t.name, strings.Join(t.in, ", "))
	}
	if gated || test || from.kind == testOnly {
		return
	}
	if covers(testLibraries(), imported) {
		c.report(name, "imports %s, which only tests may import", imported)
		return
	}
	host, _, _ := strings.Cut(imported, "/")
	if from.kind == domain && strings.Contains(host, ".") && !covers(domainLibraries(), imported) {
		c.report(name, "imports %s: a domain package knows no library that is not in the table of internal/layers", imported)
	}
}

// body checks what the file declares and calls.
func (c *checker) body(name string, f *ast.File) {
	clock := importName(f, "time")
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				c.report(name, "declares an init function: call it from main, or build the value where it is used")
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == clock && n.Sel.Name == "Sleep" {
				c.report(name, "uses time.Sleep: wait for an event, or select on a timer and ctx.Done()")
			}
		}
		return true
	})
}

// connections reports what opens connections where no exit is.
func (c *checker) connections(name, from string, f *ast.File) {
	if _, listed := exits()[from]; listed {
		return
	}
	for imported, symbols := range dialers() {
		local := importName(f, imported)
		if local == "" {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if n, ok := n.(*ast.SelectorExpr); ok && slices.Contains(symbols, n.Sel.Name) {
				if x, ok := n.X.(*ast.Ident); ok && x.Name == local {
					c.report(name, "uses %s.%s: connections to addresses that others choose go through internal/safehttp, others through the exits of internal/layers",
						imported, n.Sel.Name)
				}
			}
			return true
		})
	}
}

// importName returns the name under which f imports a package of the standard
// library, "" if it does not.
func importName(f *ast.File, imported string) string {
	for _, spec := range f.Imports {
		switch {
		case spec.Path.Value != strconv.Quote(imported):
		case spec.Name != nil:
			return spec.Name.Name
		default:
			return path.Base(imported)
		}
	}
	return ""
}
