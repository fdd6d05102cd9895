package conf

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a string that must not be shown: fmt, slog and the JSON, YAML and
// text encoders all see "[redacted]", or "" when it is empty. Only Reveal
// gives the text away.
//
// fmt does not call methods of unexported struct fields, so a Secret belongs
// in an exported field, or in a struct that is never printed.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns "[redacted]", or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format implements fmt.Formatter, so that no verb (%x, %q, %#v, …) gets
// round String.
func (s Secret) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, s.String())
}

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, which JSON and YAML encoders
// use too. It never returns an error.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
