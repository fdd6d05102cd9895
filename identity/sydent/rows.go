package sydent

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Reasons for which rows are left out.
const (
	reasonSuperseded   = "another entry for the same address is as new or newer"
	reasonMedium       = "the medium is neither email nor msisdn"
	reasonEmail        = "not an email address that mail can be sent to"
	reasonPhone        = "not a telephone number that can exist"
	reasonDomain       = "Sydent may have turned the domain into another one (ß into ss, ς into σ)"
	reasonTime         = "no time of binding"
	reasonInvalid      = "not valid at present: notBefore and notAfter"
	reasonUserID       = "not a user ID"
	reasonAccount      = "of no account, so that Sydent does not accept it either"
	reasonInviteMedium = "the medium is not email"
	reasonReceived     = "no time of receipt"
	reasonExpired      = "older than an invite waits (90 days)"
	reasonRemoved      = "removed here: unbound, logged out, cancelled or erased"
	reasonBound        = "the address is bound already"
	reasonKey          = "not a public key"
	reasonText         = "empty, or not text that can be stored"
)

// validUserID reports whether s has the form of a user ID (Matrix appendices,
// "User Identifiers", historical ones included).
func validUserID(s string) bool {
	const longest = 255
	_, server, _ := strings.Cut(s, ":")
	return strings.HasPrefix(s, "@") && server != "" && len(s) <= longest && storable(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) })
}

// storable reports whether s is text that every database takes.
func storable(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsRune(s, 0)
}
