package templates

import (
	"fmt"
	"html"
	htmltemplate "html/template"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	texttemplate "text/template"
	"unicode"

	"golang.org/x/text/language"
)

// maxSubject is the longest subject in bytes; RFC 5322 allows 998 on a line,
// and encoding triples some.
const maxSubject = 250

// Template is a message in one language.
type Template struct {
	name    string
	tag     language.Tag
	subject *texttemplate.Template // nil without one
	text    *texttemplate.Template
	html    *htmltemplate.Template // nil without one
}

// Message is a rendered Template. Subject and HTML are empty where the template
// has none.
type Message struct {
	Subject string // one line
	Text    string // lines end in "\n", the last one in nothing
	HTML    string
}

// Language returns the BCP 47 tag of the language the template is in.
func (t *Template) Language() string { return t.tag.String() }

// Render fills in data. The error names the template and nothing of the data.
func (t *Template) Render(data any) (Message, error) {
	m, err := t.render(data)
	if err != nil {
		return Message{}, fmt.Errorf("template %s does not fit what it was rendered with", t.name)
	}
	return m, nil
}

type executor interface {
	Execute(w io.Writer, data any) error
}

func (t *Template) render(data any) (m Message, err error) {
	run := func(e executor) string {
		var b strings.Builder
		if err == nil {
			err = e.Execute(&b, data)
		}
		return strings.TrimSpace(b.String())
	}
	m.Text = run(t.text)
	if t.subject != nil {
		m.Subject = run(t.subject)
		if err == nil && (m.Subject == "" || len(m.Subject) > maxSubject || strings.ContainsFunc(m.Subject, unicode.IsControl)) {
			err = fmt.Errorf("the subject must be one line of 1 to %d bytes", maxSubject)
		}
	}
	if t.html != nil {
		m.HTML = run(t.html)
	}
	return m, err
}

// template parses a file once, however many brands use it. It returns nil after
// a fault.
func (l *loader) template(k Kind, f *file) *Template {
	t, known := l.parsed[f]
	if !known {
		t = l.parse(k, f)
		l.parsed[f] = t
	}
	return t
}

// parse makes a template of a file and tries it with the samples.
func (l *loader) parse(k Kind, f *file) *Template {
	if !f.hasText {
		l.fault("%s.html has no %s.txt beside it: a message needs its text", f.name, f.name)
		return nil
	}
	if k.HTML && !f.hasHTML {
		l.warnings = append(l.warnings, fmt.Sprintf("template %s.txt has no .html beside it: this message is text only", f.name))
	}
	t := &Template{name: f.name, tag: f.tag}
	if err := t.compile(k, f); err != nil {
		l.faults = append(l.faults, err)
		return nil
	}
	var faults []string
	for _, sample := range k.Samples {
		m, err := t.render(sample)
		if err != nil {
			faults = append(faults, unknown(f, sample, err)...)
			break
		}
		for _, member := range k.Shows {
			want := reflect.ValueOf(sample).FieldByName(member).String()
			if !strings.Contains(m.Text, want) {
				faults = append(faults, fmt.Sprintf("%s.txt: must show {{.%s}}", f.name, member))
			}
			if t.html != nil && !strings.Contains(html.UnescapeString(m.HTML), want) {
				faults = append(faults, fmt.Sprintf("%s.html: must show {{.%s}}", f.name, member))
			}
		}
	}
	slices.Sort(faults)
	for _, fault := range slices.Compact(faults) {
		l.fault("%s", fault)
	}
	return t
}

// members are those that a template names.
var (
	actions = regexp.MustCompile(`\{\{.*?\}\}`)
	members = regexp.MustCompile(`\.[A-Z]\w*`)
)

// unknown returns what is wrong with a template that data cannot be rendered with:
// all members that data does not have, or else err.
func unknown(f *file, data any, err error) (faults []string) {
	known := ""
	for _, field := range reflect.VisibleFields(reflect.TypeOf(data)) {
		if !field.Anonymous {
			known += " {{." + field.Name + "}}"
		}
	}
	for _, half := range [][2]string{{".txt", f.text}, {".html", f.html}} {
		for _, action := range actions.FindAllString(half[1], -1) {
			for _, member := range members.FindAllString(action, -1) {
				if !strings.Contains(known, "{{"+member+"}}") {
					faults = append(faults, fmt.Sprintf("%s%s: there is no {{%s}}, but%s", f.name, half[0], member, known))
				}
			}
		}
	}
	if len(faults) == 0 {
		faults = []string{fmt.Sprintf("%s: %v", f.name, err)}
	}
	return faults
}

func (t *Template) compile(k Kind, f *file) (err error) {
	body := f.text
	if k.Subject {
		first, rest, _ := strings.Cut(body, "\n")
		subject, ok := strings.CutPrefix(first, "Subject: ")
		if !ok || !strings.HasPrefix(rest, "\n") {
			return fmt.Errorf("template %s.txt: must begin with a line \"Subject: …\" and an empty line", f.name)
		}
		body = rest
		if t.subject, err = texttemplate.New(f.name + ".txt (subject)").Parse(subject); err != nil {
			return err
		}
	}
	if t.text, err = texttemplate.New(f.name + ".txt").Parse(body); err != nil {
		return err
	}
	if f.hasHTML {
		t.html, err = htmltemplate.New(f.name + ".html").Parse(f.html)
	}
	return err
}
