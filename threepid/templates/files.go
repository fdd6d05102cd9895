package templates

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/language"
)

// maxFile is the largest template in bytes. Mail programs cut longer messages.
const maxFile = 100 << 10

// brandPattern is what the folder of a brand may be called: what a client can
// ask for without meaning something else to a file system.
var brandPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

// file is the two halves of a template before they are parsed.
type file struct {
	name     string // for messages, without its ending
	tag      language.Tag
	untagged bool
	text     string
	html     string
	hasText  bool
	hasHTML  bool
}

// layer is what one folder holds, by kind.
type layer map[string][]*file

// loader gathers the faults of all files.
type loader struct {
	dir      string // of the operator's own templates
	fallback language.Tag
	kinds    []Kind
	parsed   map[*file]*Template
	faults   []error
	warnings []string
}

func (l *loader) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Errorf("template "+format, args...))
}

// folders lists the brands that have a folder. Hidden ones belong to tools, such
// as Kubernetes' ..data.
func (l *loader) folders(dir fs.FS) []string {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil // reported by read
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		info, err := fs.Stat(dir, name) // follows links, which the entry does not
		switch {
		case strings.HasPrefix(name, "."), err != nil, !info.IsDir():
		case !brandPattern.MatchString(name):
			l.fault("folder %q: a brand's name has up to 64 letters, digits, dots, dashes and underscores", name)
		default:
			names = append(names, name)
		}
	}
	return names
}

// read returns the templates in one folder.
func (l *loader) read(fsys fs.FS, folder, origin string) layer {
	entries, err := fs.ReadDir(fsys, folder)
	if err != nil {
		var cause *fs.PathError
		if errors.As(err, &cause) {
			err = cause.Err // the path in it begins at the folder
		}
		l.fault("folder %s: %w", filepath.Join(l.dir, folder), err)
		return nil
	}
	found := make(layer)
	for _, e := range entries {
		name := e.Name()
		ext := path.Ext(name)
		if strings.HasPrefix(name, ".") || ext != ".txt" && ext != ".html" {
			continue
		}
		full := path.Join(folder, name)
		content, err := readFile(fsys, full)
		if err != nil {
			l.fault("%s%s: %w", origin, full, err)
			continue
		}
		l.add(found, origin+strings.TrimSuffix(full, ext), ext, content)
	}
	return found
}

// add puts a file with its other half.
func (l *loader) add(to layer, name, ext, content string) {
	base, tag, tagged := strings.Cut(path.Base(strings.TrimPrefix(name, "built-in ")), ".")
	i := slices.IndexFunc(l.kinds, func(k Kind) bool { return k.Name == base })
	if i < 0 {
		l.fault("%s%s: no message has this name; there are: %s", name, ext, strings.Join(l.names(), ", "))
		return
	}
	if ext == ".html" && !l.kinds[i].HTML {
		l.fault("%s%s: this message has no HTML", name, ext)
		return
	}
	f := &file{name: name, tag: l.fallback, untagged: !tagged}
	if tagged {
		parsed, err := language.Parse(tag)
		if err != nil {
			l.fault("%s%s: %q is not a BCP 47 tag, such as en or pt-BR", name, ext, tag)
			return
		}
		f.tag = parsed
	}
	if j := slices.IndexFunc(to[base], func(other *file) bool { return other.tag == f.tag }); j >= 0 {
		if to[base][j].name != name {
			l.fault("%s%s: %s is for the same language", name, ext, to[base][j].name)
			return
		}
		f = to[base][j]
	} else {
		to[base] = append(to[base], f)
	}
	if ext == ".html" {
		f.html, f.hasHTML = content, true
	} else {
		f.text, f.hasText = content, true
	}
}

func (l *loader) names() []string {
	names := make([]string, len(l.kinds))
	for i, k := range l.kinds {
		names[i] = k.Name
	}
	return names
}

// assemble joins what the layers have for a kind, the first layer first.
func (l *loader) assemble(k Kind, layers []layer) *selection {
	var chosen []*file
	for _, layer := range layers {
		hides := false
		for _, f := range layer[k.Name] {
			hides = hides || f.untagged
			if !slices.ContainsFunc(chosen, func(c *file) bool { return c.tag == f.tag }) {
				chosen = append(chosen, f)
			}
		}
		if hides {
			break
		}
	}
	slices.SortFunc(chosen, func(a, b *file) int {
		switch {
		case a.tag == l.fallback:
			return -1
		case b.tag == l.fallback:
			return 1
		}
		return strings.Compare(a.tag.String(), b.tag.String())
	})
	if len(chosen) == 0 || chosen[0].tag != l.fallback {
		l.fault("%s.txt is missing, in the default language %s", k.Name, l.fallback)
		return nil
	}
	sel := new(selection)
	tags := make([]language.Tag, len(chosen))
	for i, f := range chosen {
		tags[i] = f.tag
		sel.templates = append(sel.templates, l.template(k, f))
	}
	sel.matcher = language.NewMatcher(tags)
	return sel
}

func readFile(fsys fs.FS, name string) (string, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return "", err
	case len(content) > maxFile:
		return "", fmt.Errorf("is larger than %d bytes", maxFile)
	case !utf8.Valid(content):
		return "", fmt.Errorf("is not UTF-8")
	}
	return strings.ReplaceAll(string(content), "\r\n", "\n"), nil
}
