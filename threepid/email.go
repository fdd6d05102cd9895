package threepid

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// MaxEmailBytes is the longest email address that is taken, before and after it
// is made canonical.
const MaxEmailBytes = 500

// Email is an email address. Its canonical form is the case-folded local part
// and the domain in lower case, internationalised domains in Unicode
// (U-labels). Two addresses with the same canonical form are one mailbox. The
// zero Email is no address.
type Email struct {
	local   string // folded
	domain  string // U-labels
	ascii   string // A-labels
	lowered string // the address as given in lower case, "" where that would be another mailbox
}

// ParseEmail is the one reading of an email address: what it accepts is what is
// stored, hashed and mailed to. It accepts one bare local@domain with a dotted
// domain name and returns ErrInvalidEmail for everything else, display names,
// lists, quoted local parts, domain literals and white space included.
//
// The local part goes through Unicode full case folding ("Strauß" and "STRAUSS"
// are one mailbox) without normalisation. The domain goes through UTS 46
// non-transitional processing, as browsers and resolvers do, because it decides
// where the mail goes: straße.de and strasse.de are two domains.
func ParseEmail(s string) (Email, error) {
	e, ok := canonicalEmail(s)
	if !ok {
		return Email{}, ErrInvalidEmail
	}
	// JavaScript clients hash toLowerCase() of what was typed. That spelling
	// counts only if it reads as this very mailbox, or a binding could answer
	// for somebody else's address.
	lowered := cases.Lower(language.Und).String(s)
	if l, ok := canonicalEmail(lowered); ok && l == e {
		e.lowered = lowered
	}
	return e, nil
}

func canonicalEmail(s string) (Email, bool) {
	if len(s) > MaxEmailBytes || !utf8.ValidString(s) {
		return Email{}, false
	}
	local, domain, found := strings.Cut(s, "@")
	if !found || !validLocal(local) {
		return Email{}, false
	}
	e := Email{local: fold(local)}
	var ok bool
	if e.ascii, e.domain, ok = canonicalDomain(domain); !ok {
		return Email{}, false
	}
	if max(len(e.address()), len(e.MailAddress())) > MaxEmailBytes {
		return Email{}, false
	}
	return e, true
}

// validLocal reports whether s is a dot-atom of RFC 5322, widened by RFC 6531
// to visible characters beyond ASCII. Invisible ones (controls, formats,
// spaces, unassigned) would make two addresses that look alike.
func validLocal(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" || strings.ContainsFunc(atom, notAtext) {
			return false
		}
	}
	return true
}

func notAtext(r rune) bool {
	if r >= utf8.RuneSelf {
		return !unicode.IsPrint(r)
	}
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' ||
		strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r))
}

// domains is how domain names are read: UTS 46 non-transitional processing for
// lookups.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false),
	idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// canonicalDomain returns the domain name s in A-labels and in U-labels. It
// refuses what is no domain name with at least two labels, IPv4 addresses too.
func canonicalDomain(s string) (ascii, uni string, ok bool) {
	// UTS 46 mapped U+1E9E to "ss" before Unicode 15.1 and maps it to "ß" since:
	// the same address must not move to another domain with the next Go release.
	if strings.ContainsRune(s, 'ẞ') {
		return "", "", false
	}
	ascii, err := domains.ToASCII(s)
	if err != nil {
		return "", "", false
	}
	i := strings.LastIndexByte(ascii, '.')
	if i < 0 || strings.Trim(ascii[i+1:], "0123456789") == "" { // no dot, a trailing dot, or an IPv4 address
		return "", "", false
	}
	uni, err = domains.ToUnicode(ascii)
	if err != nil {
		return "", "", false
	}
	if back, err := domains.ToASCII(uni); err != nil || back != ascii {
		return "", "", false
	}
	return ascii, uni, true
}

// fold is Unicode full case folding (CaseFolding.txt, status C and F). The fold
// of x/text swaps the two cases of the 86 Cherokee letters; Unicode folds both
// to the older, upper-case ones.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 0xAB70 <= r && r <= 0xABBF:
			return r - 0xAB70 + 0x13A0
		case 0x13F8 <= r && r <= 0x13FD:
			return r - 0x13F8 + 0x13F0
		}
		return r
	}, cases.Fold().String(s))
}

func (e Email) address() string { return e.local + "@" + e.domain }

// ID returns the address in canonical form; the zero ID for the zero Email.
func (e Email) ID() ID {
	if e.local == "" {
		return ID{}
	}
	return ID{Medium: MediumEmail, Address: e.address()}
}

// MailAddress returns the address to send mail to: the canonical one with its
// domain in A-labels, which DNS and every mail relay understand. The local part
// may need SMTPUTF8 (RFC 6531).
func (e Email) MailAddress() string { return e.local + "@" + e.ascii }

// Spellings returns every string under which clients may hash this address, the
// canonical one first: folded with U-labels, folded with A-labels, and
// toLowerCase() of the address as it was given. Each of them parses as this
// mailbox. It is nil for the zero Email.
func (e Email) Spellings() []string {
	if e.local == "" {
		return nil
	}
	all := []string{e.address()}
	for _, s := range []string{e.MailAddress(), e.lowered} {
		if s != "" && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// Format writes the redacted ID for every verb.
func (e Email) Format(s fmt.State, verb rune) { e.ID().Format(s, verb) }

// LogValue logs the redacted ID.
func (e Email) LogValue() slog.Value { return e.ID().LogValue() }
