package homeserver_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/homeserver"
)

// sig86 is base64 of 64 bytes; only its form matters to the parser.
var sig86 = strings.Repeat("Ab+/", 21) + "AA"

// Conformance (federation): the header by RFC 9110: spaces, unquoted values with colons, names in any case, backslashes, unknown parameters, `signature` | taken; nothing else (also TestParseXMatrixRefuses, FuzzParseXMatrix)
func TestParseXMatrixTakes(t *testing.T) {
	t.Parallel()
	type want struct {
		Origin, Destination, Key string
		HasDestination           bool
	}
	full := want{"a.example", "is.example", "ed25519:1", true}
	none := want{"a.example", "", "ed25519:1", false}
	tests := map[string]struct {
		header string
		want   want
	}{
		"the specification's example": {
			`X-Matrix origin="origin.hs.example.com",destination="destination.hs.example.com",key="ed25519:key1",sig="SIG"`,
			want{"origin.hs.example.com", "destination.hs.example.com", "ed25519:key1", true},
		},
		"what Synapse sends":                {`X-Matrix origin="a.example",key="ed25519:1",sig="SIG",destination="is.example"`, full},
		"the parameter called signature":    {`X-Matrix origin="a.example",key="ed25519:1",signature="SIG"`, none},
		"sig and signature, equal":          {`X-Matrix origin="a.example",key="ed25519:1",signature="SIG",sig="SIG"`, none},
		"no destination":                    {`X-Matrix origin="a.example",key="ed25519:1",sig="SIG"`, none},
		"an empty destination":              {`X-Matrix origin="a.example",key="ed25519:1",sig="SIG",destination=""`, want{"a.example", "", "ed25519:1", true}},
		"white space round commas":          {"X-Matrix origin=\"a.example\" , key=\"ed25519:1\"\t,\t sig=\"SIG\"", none},
		"white space round equals signs":    {"X-Matrix origin = \"a.example\",key\t=\ted25519:1,sig= \"SIG\"", none},
		"white space at the end":            {"X-Matrix origin=\"a.example\",key=\"ed25519:1\",sig=\"SIG\" \t", none},
		"several spaces after the scheme":   {`X-Matrix   origin="a.example",key="ed25519:1",sig="SIG"`, none},
		"scheme and names in any case":      {`x-MATRIX Origin="a.example",KEY="ed25519:1",sIg="SIG"`, none},
		"values keep their case":            {`X-Matrix origin="A.example",key="ed25519:Ab",sig="SIG"`, want{"A.example", "", "ed25519:Ab", false}},
		"unquoted values with colons":       {`X-Matrix origin=a.example:8448,key=ed25519:1,destination=is.example:443,sig="SIG"`, want{"a.example:8448", "is.example:443", "ed25519:1", true}},
		"an IPv6 origin in quotes":          {`X-Matrix origin="[::1]:8448",key="ed25519:1",sig="SIG"`, want{"[::1]:8448", "", "ed25519:1", false}},
		"escapes":                           {`X-Matrix origin="\a\.example",key="ed2551\9:1",destination="i\\s\"\é",sig="SIG"`, want{"a.example", `i\s"é`, "ed25519:1", true}},
		"a comma and an equals sign quoted": {`X-Matrix destination="a=b,key=c",origin="a.example",key="ed25519:1",sig="SIG"`, want{"a.example", "a=b,key=c", "ed25519:1", true}},
		"a destination with a path":         {`X-Matrix origin="a.example",key="ed25519:1",sig="SIG",destination="is.example/matrix"`, want{"a.example", "is.example/matrix", "ed25519:1", true}},
		"empty list elements":               {`X-Matrix ,origin="a.example",, ,key="ed25519:1",sig="SIG",`, none},
		"unknown parameters":                {`X-Matrix x=1,origin="a.example",key="ed25519:1",x-y="\"",sig="SIG",~="a"`, none},
		"a key name beyond the grammar":     {`X-Matrix origin="a.example",key="ed25519:my-key.1",sig="SIG"`, want{"a.example", "", "ed25519:my-key.1", false}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, err := homeserver.ParseXMatrix(strings.ReplaceAll(tc.header, "SIG", sig86))
			if err != nil {
				t.Fatal(err)
			}
			got := want{x.Origin.String(), x.Destination, x.Key, x.HasDestination}
			if diff := cmp.Diff(tc.want, got); diff != "" || x.Signature != sig86 {
				t.Errorf("signature %q, (-want +got):\n%s", x.Signature, diff)
			}
		})
	}
}

func TestParseXMatrixRefuses(t *testing.T) {
	t.Parallel()
	const good = `origin="a.example",key="ed25519:1",sig="SIG"`
	for name, header := range map[string]string{
		"nothing":                               "",
		"another scheme":                        "Bearer abc",
		"a scheme that only begins the same":    "X-Matrixx " + good,
		"the scheme alone":                      "X-Matrix",
		"no space after the scheme":             "X-Matrix," + good,
		"a tab after the scheme":                "X-Matrix\t" + good,
		"no origin":                             `X-Matrix key="ed25519:1",sig="SIG"`,
		"no key":                                `X-Matrix origin="a.example",sig="SIG"`,
		"no signature":                          `X-Matrix origin="a.example",key="ed25519:1"`,
		"an empty origin":                       `X-Matrix origin="",key="ed25519:1",sig="SIG"`,
		"an origin that is no server name":      `X-Matrix origin="a_b",key="ed25519:1",sig="SIG"`,
		"an origin with a path":                 `X-Matrix origin="a.example/x",key="ed25519:1",sig="SIG"`,
		"an origin with a login":                `X-Matrix origin="u@a.example",key="ed25519:1",sig="SIG"`,
		"an IPv6 origin without quotes":         `X-Matrix origin=[::1],key="ed25519:1",sig="SIG"`,
		"a key without algorithm":               `X-Matrix origin="a.example",key="1",sig="SIG"`,
		"a key of another algorithm":            `X-Matrix origin="a.example",key="rsa:1",sig="SIG"`,
		"a key without version":                 `X-Matrix origin="a.example",key="ed25519:",sig="SIG"`,
		"a key with a space":                    `X-Matrix origin="a.example",key="ed25519:a b",sig="SIG"`,
		"a key with letters beyond ASCII":       `X-Matrix origin="a.example",key="ed25519:é",sig="SIG"`,
		"an endless key":                        `X-Matrix origin="a.example",key="ed25519:` + strings.Repeat("a", 250) + `",sig="SIG"`,
		"a signature that is short":             `X-Matrix origin="a.example",key="ed25519:1",sig="ABCDEF"`,
		"a signature that is no base64":         `X-Matrix origin="a.example",key="ed25519:1",sig="` + strings.Repeat("%", 86) + `"`,
		"an unquoted signature with slashes":    `X-Matrix origin="a.example",key="ed25519:1",sig=SIG`,
		"a parameter given twice":               `X-Matrix origin="a.example",origin="a.example",key="ed25519:1",sig="SIG"`,
		"a parameter given twice in other case": `X-Matrix origin="a.example",ORIGIN="b.example",key="ed25519:1",sig="SIG"`,
		"an unknown parameter given twice":      `X-Matrix x=1,x=2,` + good,
		"sig and signature, different":          `X-Matrix ` + good + `,signature="` + strings.Repeat("A", 86) + `"`,
		"sig empty, signature good":             `X-Matrix origin="a.example",key="ed25519:1",sig="",signature="SIG"`,
		"no comma":                              `X-Matrix origin="a.example" key="ed25519:1",sig="SIG"`,
		"a semicolon":                           `X-Matrix origin="a.example";key="ed25519:1";sig="SIG"`,
		"no value":                              `X-Matrix x,` + good,
		"an empty unquoted value":               `X-Matrix x=,` + good,
		"no name":                               `X-Matrix ="x",` + good,
		"a name in quotes":                      `X-Matrix "origin"="a.example",key="ed25519:1",sig="SIG"`,
		"an open quote":                         `X-Matrix ` + good + `,x="`,
		"an escape of nothing":                  `X-Matrix ` + good + `,x="\`,
		"a quoted newline":                      "X-Matrix " + good + ",x=\"\n\"",
		"an escaped NUL":                        "X-Matrix " + good + ",x=\"\\\x00\"",
		"a second challenge":                    `X-Matrix ` + good + `, X-Matrix ` + good,
		"more than 4 KiB":                       `X-Matrix ` + good + `,x="` + strings.Repeat("a", 4<<10) + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, err := homeserver.ParseXMatrix(strings.ReplaceAll(header, "SIG", sig86))
			if !errors.Is(err, homeserver.ErrXMatrix) || x != (homeserver.XMatrix{}) {
				t.Errorf("got %+v, %v", x, err)
			}
		})
	}
}

// What is read is written again in the plainest form and must read the same.
func FuzzParseXMatrix(f *testing.F) {
	for _, s := range []string{
		`X-Matrix origin="origin.hs.example.com",destination="destination.hs.example.com",key="ed25519:key1",sig="SIG"`,
		"x-matrix  ,Origin = a.example:8448 ,\tKEY=ed25519:a_b, signature=\"SIG\",x=\"\\\"\\\\\"",
		`X-Matrix origin="[::1]",key="ed25519:1",sig="SIG",destination="is.example/path\"\,",`,
		`X-Matrix origin="a","`, `X-Matrix =`, `X-Matrix x="\`, `Bearer abc`,
	} {
		f.Add(strings.ReplaceAll(s, "SIG", sig86))
	}
	f.Fuzz(func(t *testing.T, header string) {
		x, err := homeserver.ParseXMatrix(header)
		if err != nil {
			if x != (homeserver.XMatrix{}) {
				t.Errorf("an error and %+v", x)
			}
			return
		}
		plain := "X-Matrix origin=" + quote(x.Origin.String()) + ",key=" + quote(x.Key) + ",sig=" + quote(x.Signature)
		if x.HasDestination {
			plain += ",destination=" + quote(x.Destination)
		}
		if len(plain) > 4<<10 {
			return // escapes made it longer than is read
		}
		if again, err := homeserver.ParseXMatrix(plain); err != nil || again != x {
			t.Errorf("%q is %+v, %q is %+v, %v", header, x, plain, again, err)
		}
	})
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
