package email

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"mime"
	netmail "net/mail"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wneessen/go-mail"
)

// maxLine is the longest line of a header in characters (RFC 2047).
const maxLine = 76

// message is a mail before it is encoded.
type message struct {
	sender
	to       string // with its domain in A-labels
	subject  string
	text     string
	html     string // "" for text only
	language string
	private  []string // what of it no log may hold, beside addresses
	// say is told what goes on, as in fmt.Printf.
	say func(format string, args ...any)
}

// encode writes m as MIME. Every field that a person could choose ends in the
// body, in quoted-printable; the header holds what this service says about
// itself, the subject and the one recipient.
func encode(m message, now time.Time) ([]byte, error) {
	_, domain, _ := strings.Cut(m.from.Address, "@")
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent(), mail.WithEncoding(mail.EncodingQP))
	msg.SetDateWithValue(now)
	msg.SetMessageIDWithValue(rand.Text() + "@" + domain)
	// RFC 3834, and what Exchange reads instead: nobody's out-of-office note is
	// wanted.
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")
	msg.SetGenHeader("Content-Language", m.language)
	msg.SetBodyString(mail.TypeTextPlain, m.text+"\n")
	if m.html != "" {
		msg.AddAlternativeString(mail.TypeTextHTML, m.html+"\n")
	}
	var b bytes.Buffer
	writeAddress(&b, "From", m.from)
	if m.replyTo != nil {
		writeAddress(&b, "Reply-To", m.replyTo)
	}
	writeAddress(&b, "To", &netmail.Address{Address: m.to})
	writeField(&b, "Subject", m.subject, "")
	if _, err := msg.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("encode mail: %w", err)
	}
	return b.Bytes(), nil
}

func writeAddress(b *bytes.Buffer, name string, a *netmail.Address) {
	if needsUTF8(a.Name) {
		writeField(b, name, a.Name, "<"+a.Address+">")
	} else {
		writeField(b, name, "", a.String())
	}
}

// writeField writes a field of the header: a text, encoded if it has to be, and
// what stands behind it as it is. The first encoded word is short enough to stand
// beside the field's name; the mail client would leave the first line empty, which
// mail programs show as a blank.
func writeField(b *bytes.Buffer, name, text, rest string) {
	start := name + ":"
	// A stranger's words must not look encoded, or a mail program would decode them.
	text = strings.ReplaceAll(text, "=?", "=\u2060?")
	encoded := mime.QEncoding.Encode("utf-8", start+" "+text)
	if word, ok := strings.CutPrefix(encoded, "=?utf-8?q?"+start+"_"); ok {
		encoded = start + " =?utf-8?q?" + word
	}
	column := 0
	for word := range strings.SplitSeq(strings.TrimRight(strings.TrimRight(encoded, " ")+" "+rest, " "), " ") {
		switch {
		case column == 0:
		case column+1+len(word) > maxLine && column > len(start):
			b.WriteString("\r\n ")
			column = 1
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	b.WriteString("\r\n")
}

// needsUTF8 reports whether an address goes through SMTPUTF8 relays only.
func needsUTF8(address string) bool {
	return strings.ContainsFunc(address, func(r rune) bool { return r >= utf8.RuneSelf })
}
