package conf

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxDocument bounds a configuration file, in bytes. Thousands of apps fit.
const maxDocument = 1 << 20

// LoadOptions says where a configuration comes from.
type LoadOptions struct {
	Name string // file name for messages, such as "pushgw.yaml"
	Data []byte // the file's content, at most 1 MiB of YAML
	Dir  string // what relative paths in *_file options start from

	// EnvPrefix begins the names of overriding environment variables, such
	// as "PUSHGW_". Without it there are no overrides.
	EnvPrefix string
	// Environ lists the environment as os.Environ does. A variable in it that
	// has the prefix and nearly the name of an option is a fault, because it is a
	// typo; others that name no option are told to Warn: they are somebody else's.
	Environ []string
	// Warn, unless nil, is told what is suspicious but no fault.
	Warn func(text string)
	// Gone says what became of options that were removed or renamed, by path, with
	// "*" for any name in it: "trouble" is all of a section, "guard.*" all below an
	// option that was one. "apps.*.type=gcm" is a type that an app cannot have.
	Gone map[string]string
	// LookupEnv reads one variable. By default it is looked up in Environ.
	LookupEnv func(string) (string, bool)
}

// loader carries one Load through its steps.
type loader struct {
	LoadOptions
	known    map[string]bool // environment variables that options or ${…} name
	problems *Problems
}

// Load reads a configuration into dst, a pointer to a struct that holds the
// defaults. Options are the fields with a yaml tag; an embedded or named
// struct tagged `yaml:",inline"` lends its options to the outer one. Where an
// option named type decides which others there are, each set of them is a
// pointer to a struct tagged `yaml:",inline" conf:"type=NAME"`: the one of that
// name is made and the others are nil; a type that is missing or has no such
// field is a fault.
//
// The file is decoded strictly. Then each single value or list of single
// values is overridden by the environment variable named EnvPrefix plus its
// path in capitals joined by "_" (http.drain_delay: PUSHGW_HTTP_DRAIN_DELAY);
// a list is separated by commas there. Fields tagged `conf:"expand"` have no
// overrides; instead ${NAME} in the values below them is replaced by the
// environment variable, and $${ stands for ${ itself.
//
// Fields tagged `conf:"hidden"` are for tests: they are read like others, and
// neither listed by [Options] nor named in faults. A Secret that is tagged
// `conf:"file"` stands in a file of its own alone.
//
// Last, string options whose name ends in _file become absolute paths, and
// where a sibling of type Secret has the same name without _file, it is filled
// with the file's content (at most 64 KiB, without one trailing newline). So
// after Load both are set; that the operator set only one has been checked.
//
// The error lists every fault, one per line, and unwraps to them. It names
// lines, options and variables, never a value. After an error dst is to be
// thrown away.
func Load(opts LoadOptions, dst any) error {
	var p Problems
	p.Load(opts, dst)
	return p.Err()
}

// Load does what the function Load does and adds the faults to p. Faults that are
// added to p afterwards say where their option was set.
func (p *Problems) Load(opts LoadOptions, dst any) {
	root := reflect.ValueOf(dst)
	if root.Kind() != reflect.Pointer || root.IsNil() || root.Elem().Kind() != reflect.Struct {
		p.errs = append(p.errs, errors.New("configuration must be loaded into a pointer to a struct"))
		return
	}
	p.where, p.unread = make(map[string]string), make(map[string]bool)
	l := &loader{LoadOptions: opts, known: make(map[string]bool), problems: p}
	if l.LookupEnv == nil {
		l.LookupEnv = l.lookupEnviron
	}
	if body := l.parse(); body != nil {
		l.decode(body, root.Elem(), place{})
	}
	if l.EnvPrefix != "" {
		l.overrideFields(root.Elem(), l.EnvPrefix, "")
		l.checkEnviron()
	}
	l.resolveFiles(root.Elem())
}

// parse returns the document's root, or nil when it is empty or broken.
func (l *loader) parse() ast.Node {
	if len(l.Data) > maxDocument {
		l.problems.Add(l.Name, nil, "is larger than 1 MiB: this is hardly a configuration file")
		return nil
	}
	if !utf8.Valid(l.Data) {
		l.problems.Add(l.Name, nil, "is not UTF-8 text: save it in this encoding")
		return nil
	}
	// Some editors put a byte order mark before the text.
	data := bytes.TrimPrefix(l.Data, []byte("\ufeff"))
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		l.syntaxFault(err)
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case body != nil:
			l.fault(doc.Body, "", "a second YAML document begins: a configuration file holds one")
			return nil
		default:
			body = doc.Body
		}
	}
	return body
}

// syntaxFault reports where the YAML is broken. The library's own text quotes
// lines of the file, which may hold secrets, and some of its messages quote a
// value.
func (l *loader) syntaxFault(err error) {
	where, what := l.Name, "cannot be read"
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) {
		if syntax.Token != nil && syntax.Token.Position != nil {
			where = fmt.Sprintf("%s:%d", where, syntax.Token.Position.Line)
		}
		switch {
		case strings.ContainsRune(syntax.Message, '\t'), strings.Contains(syntax.Message, "tab"):
			what = "a tab stands where only spaces may stand: indent with spaces"
		case !strings.Contains(syntax.Message, `"`):
			what = syntax.Message
		}
	}
	l.problems.Add(where, nil, "is not valid YAML: "+what)
}

// fault records a fault of the file at node's line.
func (l *loader) fault(node ast.Node, path, remedy string) {
	where := l.line(node)
	if path != "" {
		where += ": " + path
	}
	l.problems.errs = append(l.problems.errs, fmt.Errorf("%s: %s", where, remedy))
}

// line returns the file's name and node's line.
func (l *loader) line(node ast.Node) string {
	if token := node.GetToken(); token != nil && token.Position != nil {
		return fmt.Sprintf("%s:%d", l.Name, token.Position.Line)
	}
	return l.Name
}

// lookupEnviron finds name in Environ; as in the operating system's own list
// the first entry counts.
func (l *loader) lookupEnviron(name string) (string, bool) {
	for _, entry := range l.Environ {
		if key, value, _ := strings.Cut(entry, "="); key == name {
			return value, true
		}
	}
	return "", false
}
