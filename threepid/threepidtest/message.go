package threepidtest

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
)

// Message is a mail that the relay accepted.
type Message struct {
	From     string   // of the envelope
	To       []string // of the envelope
	Data     []byte   // header and body, as they came
	UTF8     bool     // sent with SMTPUTF8
	TLS      bool     // came over TLS
	Username string   // who sent it, "" without AUTH
}

// Header returns the decoded value of a header field, "" without one.
func (m Message) Header(t testing.TB, name string) string {
	t.Helper()
	parsed, err := mail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatal(err)
	}
	value, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get(name))
	if err != nil {
		t.Fatalf("header %s: %v", name, err)
	}
	return value
}

// Text returns the decoded text/plain part, "" without one.
func (m Message) Text(t testing.TB) string { t.Helper(); return m.part(t, "text/plain") }

// HTML returns the decoded text/html part, "" without one.
func (m Message) HTML(t testing.TB) string { t.Helper(); return m.part(t, "text/html") }

func (m Message) part(t testing.TB, contentType string) string {
	t.Helper()
	parsed, err := mail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatal(err)
	}
	body, err := find(textproto.MIMEHeader(parsed.Header), parsed.Body, contentType)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// find returns the first part of a type in a part and those inside it.
func find(header textproto.MIMEHeader, body io.Reader, want string) (string, error) {
	got, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return "", err
	}
	if got == want {
		b, err := io.ReadAll(decoded(header, body))
		return string(b), err
	}
	if !strings.HasPrefix(got, "multipart/") {
		return "", nil
	}
	parts := multipart.NewReader(body, params["boundary"])
	for {
		part, err := parts.NextRawPart()
		if err == io.EOF {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if text, err := find(part.Header, part, want); text != "" || err != nil {
			return text, err
		}
	}
}

func decoded(header textproto.MIMEHeader, body io.Reader) io.Reader {
	switch strings.ToLower(header.Get("Content-Transfer-Encoding")) {
	case "quoted-printable":
		return quotedprintable.NewReader(body)
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, body)
	default:
		return body
	}
}
