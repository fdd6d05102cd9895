package threepid_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/threepid"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		medium, address string
		want            threepid.ID
		err             error
	}{
		"an email address":                       {"email", "Strauß@Example.com", threepid.ID{Medium: "email", Address: "strauss@example.com"}, nil},
		"no email address":                       {"email", "noat", threepid.ID{}, threepid.ErrInvalidEmail},
		"an MSISDN":                              {"msisdn", "18005552067", threepid.ID{Medium: "msisdn", Address: "18005552067"}, nil},
		"an MSISDN with a plus sign":             {"msisdn", "+18005552067", threepid.ID{Medium: "msisdn", Address: "18005552067"}, nil},
		"an MSISDN with a trunk zero":            {"msisdn", "4407700900001", threepid.ID{Medium: "msisdn", Address: "447700900001"}, nil},
		"two plus signs":                         {"msisdn", "++18005552067", threepid.ID{}, threepid.ErrInvalidPhone},
		"an empty MSISDN":                        {"msisdn", "", threepid.ID{}, threepid.ErrInvalidPhone},
		"an MSISDN with spaces":                  {"msisdn", "1 800 555 2067", threepid.ID{}, threepid.ErrInvalidPhone},
		"an MSISDN with letters":                 {"msisdn", "1800FLOWERS", threepid.ID{}, threepid.ErrInvalidPhone},
		"an MSISDN of 16 digits":                 {"msisdn", "1800555206700000", threepid.ID{}, threepid.ErrInvalidPhone},
		"an MSISDN that cannot be":               {"msisdn", "1800555", threepid.ID{}, threepid.ErrInvalidPhone},
		"a medium in capitals":                   {"Email", "a@b.example", threepid.ID{}, threepid.ErrUnsupportedMedium},
		"a medium nobody knows":                  {"fax", "18005552067", threepid.ID{}, threepid.ErrUnsupportedMedium},
		"no medium":                              {"", "a@b.example", threepid.ID{}, threepid.ErrUnsupportedMedium},
		"an email address where a phone belongs": {"msisdn", "a@b.example", threepid.ID{}, threepid.ErrInvalidPhone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := threepid.ParseAddress(tc.medium, tc.address)
			if got != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("%q, %v; want %q, %v", got.Address, err, tc.want.Address, tc.err)
			}
			spellings, err := threepid.Spellings(tc.medium, tc.address)
			if !errors.Is(err, tc.err) {
				t.Errorf("Spellings: %v, want %v", err, tc.err)
			}
			if err == nil && spellings[0] != tc.want.Address {
				t.Errorf("spellings %q do not begin with the canonical one", spellings)
			}
		})
	}
	if got, err := threepid.Spellings("msisdn", "+18005552067"); err != nil || !slices.Equal(got, []string{"18005552067"}) {
		t.Errorf("Spellings of a number: %q, %v", got, err)
	}
}

// Whatever is printed, the address does not show.
func TestNothingPrintsAnAddressByAccident(t *testing.T) {
	t.Parallel()
	email, err := threepid.ParseEmail("Mallory@Example.com")
	if err != nil {
		t.Fatal(err)
	}
	phone, err := threepid.ParsePhone("GB", "07700900001")
	if err != nil {
		t.Fatal(err)
	}
	type record struct{ Who threepid.ID }
	for _, v := range []any{
		email, &email, email.ID(), []threepid.ID{email.ID()}, record{email.ID()}, &record{email.ID()}, map[threepid.ID]bool{email.ID(): true},
		phone, &phone, phone.ID(), record{phone.ID()}, map[string]any{"to": phone},
	} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "% x", "%10v"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "v", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		for _, secret := range []string{
			"mallory", "Mallory", "example.com", "7700", "900001",
			fmt.Sprintf("%x", "mallory"), fmt.Sprintf("%X", "mallory"), fmt.Sprintf("% x", "mallory"), fmt.Sprintf("%x", "7700"), fmt.Sprintf("% x", "7700"),
		} {
			if strings.Contains(out.String(), secret) {
				t.Errorf("%T shows %q:\n%s", v, secret, out.String())
			}
		}
	}
}

func TestTheFingerprintTellsAddressesApart(t *testing.T) {
	t.Parallel()
	alice := threepid.ID{Medium: "email", Address: "alice@example.com"}
	bob := threepid.ID{Medium: "email", Address: "bob@example.com"}
	if got := alice.String(); len(got) != len("email:0000") || !strings.HasPrefix(got, "email:") {
		t.Errorf("alice prints as %q", got)
	}
	if alice.String() == bob.String() {
		t.Error("alice and bob print alike")
	}
	if alice.LogValue().String() != alice.String() || fmt.Sprint(alice) != alice.String() {
		t.Error("the log and the print differ")
	}
}
