package threepid

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"
)

// maxMSISDNDigits is the length of the longest international number (E.164).
const maxMSISDNDigits = 15

// unknownRegion is what phonenumbers calls a region it does not know. Only
// numbers that carry their own calling code can be parsed with it.
const unknownRegion = "ZZ"

// Phone is a telephone number that may exist somewhere in the world. The zero
// Phone is no number.
type Phone struct {
	msisdn        string // E.164 without "+"
	international string
	region        string
}

// ParsePhone reads a number as a person in country would dial it (Identity
// Service API, "Phone associations"). Country is an ISO 3166-1 alpha-2 code in
// whatever case; it is ignored, right or wrong, when the number carries its own
// calling code ("+44 …", or a tel: URI that does). Punctuation, letters of
// vanity numbers and the digits of other scripts are understood; an extension
// is dropped.
//
// It returns ErrInvalidCountry when the country is needed and is not one, and
// ErrInvalidPhone when the number cannot be dialled from abroad: wrong length,
// no area code, more than 15 digits, or no number at all. A number that may
// exist but is not known to be assigned is accepted, as the specification's own
// example needs.
func ParsePhone(country, number string) (Phone, error) {
	if !utf8.ValidString(number) || strings.ContainsFunc(number, unicode.IsControl) {
		return Phone{}, ErrInvalidPhone
	}
	country = strings.ToUpper(country)
	n, err := phonenumbers.Parse(dialled(number), country)
	if errors.Is(err, phonenumbers.ErrInvalidCountryCode) && phonenumbers.GetCountryCodeForRegion(country) == 0 {
		return Phone{}, ErrInvalidCountry
	}
	if err != nil {
		return Phone{}, ErrInvalidPhone
	}
	// An extension is in no MSISDN; left here it would still be shown.
	n.Extension = nil
	e164 := phonenumbers.Format(n, phonenumbers.E164)
	// IsPossibleNumber would also take numbers that only work inside one area.
	if phonenumbers.IsPossibleNumberWithReason(n) != phonenumbers.IS_POSSIBLE || len(e164) > 1+maxMSISDNDigits {
		return Phone{}, ErrInvalidPhone
	}
	// Some numbering plans read an international number that begins like a trunk
	// prefix as a different number. A number without one lasting form has no ID.
	again, err := phonenumbers.Parse(e164, unknownRegion)
	if err != nil || phonenumbers.Format(again, phonenumbers.E164) != e164 {
		return Phone{}, ErrInvalidPhone
	}
	return Phone{
		msisdn:        strings.TrimPrefix(e164, "+"),
		international: phonenumbers.Format(again, phonenumbers.INTERNATIONAL),
		region:        regionOf(again),
	}, nil
}

// dialled returns a number without what is pasted along with it: characters that
// cannot be seen, such as those that keep it from left to right, and signs behind
// it. The library means to remove the latter, but see docs/upstream.md.
func dialled(number string) string {
	number = strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, number)
	return strings.TrimRightFunc(number, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsNumber(r) && r != '#' // which ends an extension
	})
}

// parseMSISDN reads digits with or without a leading "+".
func parseMSISDN(s string) (Phone, error) {
	digits := strings.TrimPrefix(s, "+")
	if len(digits) > maxMSISDNDigits || strings.Trim(digits, "0123456789") != "" {
		return Phone{}, ErrInvalidPhone
	}
	return ParsePhone(unknownRegion, "+"+digits)
}

func regionOf(n *phonenumbers.PhoneNumber) string {
	if r := phonenumbers.GetRegionCodeForNumber(n); r != "" {
		return r
	}
	return phonenumbers.GetRegionCodeForCountryCode(int(n.GetCountryCode()))
}

// ID returns the number as a Matrix identifier: E.164 digits without "+". It is
// the zero ID for the zero Phone.
func (p Phone) ID() ID {
	if p.msisdn == "" {
		return ID{}
	}
	return ID{Medium: MediumMSISDN, Address: p.msisdn}
}

// International returns the number as people abroad write it, for example
// "+44 7700 900001".
func (p Phone) International() string { return p.international }

// Region returns the ISO 3166-1 alpha-2 code of the region the number belongs
// to, whatever country it was dialled from, and "001" for numbers that belong to
// none (+800, satellites). Where several regions share a calling code and the
// number is in no range that is known to belong to one of them, it is the main
// region of that code: GB for an unassigned +44 number.
func (p Phone) Region() string { return p.region }

// Format writes the redacted ID for every verb.
func (p Phone) Format(s fmt.State, verb rune) { p.ID().Format(s, verb) }

// LogValue logs the redacted ID.
func (p Phone) LogValue() slog.Value { return p.ID().LogValue() }
