package wording

import (
	"fmt"
	"html"
	htmltemplate "html/template"
	"io"
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
	for _, s := range k.Samples {
		m, err := t.render(s.Data)
		if err != nil {
			l.fault("%s: %w", f.name, err)
			return nil
		}
		for _, want := range s.Shows {
			if !strings.Contains(m.Text, want) {
				l.fault("%s.txt: must show %s", f.name, want)
				return nil
			}
			if t.html != nil && !strings.Contains(html.UnescapeString(m.HTML), want) {
				l.fault("%s.html: must show %s", f.name, want)
				return nil
			}
		}
	}
	return t
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
