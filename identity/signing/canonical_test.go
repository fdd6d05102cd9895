package signing_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/signing"
)

// Conformance (canonical forms): integers within ±(2^53−1) however they are written; fractions, duplicate keys, invalid UTF-8 | plain decimal; refused (also TestCanonicalJSONRefuses)
func TestCanonicalJSON(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ in, want string }{
		// The examples of the specification, in its order.
		"an empty object":       {"{}", "{}"},
		"insignificant space":   {"{\n    \"one\": 1,\n    \"two\": \"Two\"\n}", `{"one":1,"two":"Two"}`},
		"members are sorted":    {`{"b": "2", "a": "1"}`, `{"a":"1","b":"2"}`},
		"no space at all":       {`{"b":"2","a":"1"}`, `{"a":"1","b":"2"}`},
		"a nested object":       {nested, nestedCanonical},
		"text beyond ASCII":     {`{"a": "日本語"}`, `{"a":"日本語"}`},
		"names beyond ASCII":    {`{"本": 2, "日": 1}`, `{"日":1,"本":2}`},
		"an escaped character":  {`{"a": "\u65E5"}`, `{"a":"日"}`},
		"null":                  {`{"a": null}`, `{"a":null}`},
		"minus zero and 1e10":   {`{"a": -0, "b": 1e10}`, `{"a":0,"b":10000000000}`},
		"a document of a value": {" true ", "true"},

		"names are sorted by code point, not by UTF-16 unit": {`{"😀":2,"ﬃ":1,"\uFF3A":3,"a":0}`, `{"a":0,"ﬃ":1,"Ｚ":3,"😀":2}`},
		"a shorter name comes first":                         {`{"aa":1,"a":2,"":3}`, `{"":3,"a":2,"aa":1}`},
		"what HTML escapes is left alone":                    {`"\u003cscript\u003e&\u2028\u2029\/"`, "\"<script>&\u2028\u2029/\""},
		"each short escape":                                  {`"\u0008\u0009\u000A\u000C\u000D\u0022\u005C"`, `"\b\t\n\f\r\"\\"`},
		"each long escape": {
			`"\u0000\u0001\u0007\u000B\u000E\u000F\u0010\u001A\u001F"`, `"\u0000\u0001\u0007\u000b\u000e\u000f\u0010\u001a\u001f"`,
		},
		"DEL and C1 controls are not escaped":        {`"\u007F\u0080\uFEFF"`, "\"\u007f\u0080\ufeff\""},
		"a surrogate pair":                           {`"\uD83D\uDE00\ud83d\ude00"`, `"😀😀"`},
		"an escaped backslash before a u":            {`"\\uD83D"`, `"\\uD83D"`},
		"a replacement character that was sent":      {`"\uFFFD"`, "\"\uFFFD\""},
		"an array keeps its order":                   {`[3, "a", [], {}, 1, false]`, `[3,"a",[],{},1,false]`},
		"integers written in other ways":             {`[1.0,-1.50e1,0.001e3,1000e-3,1E+2,0e99999999999999999999,-0.0e-5]`, `[1,-15,1,1,100,0,0]`},
		"the largest and the smallest integer":       {`[9007199254740991,-9007199254740991,9007199254740.991e3]`, `[9007199254740991,-9007199254740991,9007199254740991]`},
		"a long way to write one":                    {"1" + strings.Repeat("0", 100) + "e-100", "1"},
		"another long way to write one":              {"0." + strings.Repeat("0", 99) + "1e100", "1"},
		"64 levels of arrays":                        {strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 64) + strings.Repeat("]", 64)},
		"brackets in a string are no nesting":        {`"` + strings.Repeat("[", 100) + `\"` + strings.Repeat("{", 100) + `"`, `"` + strings.Repeat("[", 100) + `\"` + strings.Repeat("{", 100) + `"`},
		"siblings are no nesting":                    {"[" + strings.Repeat("[],", 99) + "{}]", "[" + strings.Repeat("[],", 99) + "{}]"},
		"names that differ in normalisation or case": {`{"e\u0301":1,"\u00e9":2,"É":3}`, "{\"e\u0301\":1,\"É\":3,\"é\":2}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := signing.CanonicalJSON([]byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, string(got)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

const nested = `{
    "auth": {
        "success": true,
        "mxid": "@john.doe:example.com",
        "profile": {
            "display_name": "John Doe",
            "three_pids": [
                {"medium": "email", "address": "john.doe@example.org"},
                {"medium": "msisdn", "address": "123456789"}
            ]
        }
    }
}`

const nestedCanonical = `{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}`

func TestCanonicalJSONRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in  string
		err error
	}{
		"nothing":                                   {"", signing.ErrSyntax},
		"half a document":                           {`{"a":`, signing.ErrSyntax},
		"two documents":                             {`{} {}`, signing.ErrSyntax},
		"trailing data":                             {`{}x`, signing.ErrSyntax},
		"a trailing comma":                          {`[1,]`, signing.ErrSyntax},
		"a leading comma":                           {`[,1]`, signing.ErrSyntax},
		"a byte order mark":                         {"\ufeff{}", signing.ErrSyntax},
		"a raw control character in a string":       {"\"a\nb\"", signing.ErrSyntax},
		"a leading zero":                            {`01`, signing.ErrSyntax},
		"an unknown escape":                         {`"\x41"`, signing.ErrSyntax},
		"a broken Unicode escape":                   {`"\uD83`, signing.ErrSyntax},
		"a member name that is no string":           {`{1:2}`, signing.ErrSyntax},
		"a stray bracket":                           {`]`, signing.ErrSyntax},
		"NaN":                                       {`NaN`, signing.ErrSyntax},
		"invalid UTF-8 in a string":                 {"\"\xff\"", signing.ErrUTF8},
		"invalid UTF-8 in a name":                   {"{\"\xc0\xaf\":1}", signing.ErrUTF8},
		"a surrogate in UTF-8":                      {"\"\xed\xa0\x80\"", signing.ErrUTF8},
		"a lone high surrogate":                     {`"\uD83D"`, signing.ErrUTF8},
		"a lone low surrogate":                      {`"\uDE00"`, signing.ErrUTF8},
		"surrogates the wrong way round":            {`"\uDE00\uD83D"`, signing.ErrUTF8},
		"two high surrogates":                       {`"\uD83D\uD83D"`, signing.ErrUTF8},
		"a high surrogate before another character": {`"\uD83Dabcdef"`, signing.ErrUTF8},
		"a high surrogate before another escape":    {`"\uD83D\nabcdef"`, signing.ErrUTF8},
		"a lone surrogate in a name":                {`{"\uD83D":1}`, signing.ErrUTF8},
		"a member twice":                            {`{"a":1,"b":2,"a":1}`, signing.ErrDuplicate},
		"a member twice, once escaped":              {`{"a":1,"\u0061":2}`, signing.ErrDuplicate},
		"a member twice, deep inside":               {`[{"b":{"a":1,"a":2}}]`, signing.ErrDuplicate},
		"65 levels of arrays":                       {strings.Repeat("[", 65) + strings.Repeat("]", 65), signing.ErrDepth},
		"65 levels of objects":                      {strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65), signing.ErrDepth},
		"a megabyte of open brackets":               {strings.Repeat("[", 1<<20), signing.ErrDepth},
		"a fraction":                                {`1.5`, signing.ErrNumber},
		"a fraction far behind the point":           {`1.00000000000000000000000001`, signing.ErrNumber},
		"a small fraction":                          {`1e-1`, signing.ErrNumber},
		"an exponent beyond int":                    {`1e99999999999999999999`, signing.ErrNumber},
		"a negative exponent beyond int":            {`1e-99999999999999999999`, signing.ErrNumber},
		"the greatest exponent that is an int":      {`10e9223372036854775807`, signing.ErrNumber},
		"the least exponent that is an int":         {`0.1e-9223372036854775808`, signing.ErrNumber},
		"a bomb":                                    {`1e999999999`, signing.ErrNumber},
		"2^53":                                      {`9007199254740992`, signing.ErrNumber},
		"-2^53":                                     {`-9007199254740992`, signing.ErrNumber},
		"2^53+1, which a float rounds down":         {`9007199254740993`, signing.ErrNumber},
		"2^53 with an exponent":                     {`9007199254740.992e3`, signing.ErrNumber},
		"2^64":                                      {`18446744073709551616`, signing.ErrNumber},
		"2^64 with a point":                         {`18446744073709551616.0`, signing.ErrNumber},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := signing.CanonicalJSON([]byte(tc.in)); !errors.Is(err, tc.err) {
				t.Errorf("%s, %v; want %v", got, err, tc.err)
			}
		})
	}
}

func TestCanonicalOfGoValues(t *testing.T) {
	t.Parallel()
	deep := any("x")
	for range 65 {
		deep = map[string]any{"a": deep}
	}
	for name, tc := range map[string]struct {
		in   any
		want string
		err  error
	}{
		"every integer type":           {[]any{1, int32(-2), int64(3), uint32(4), uint64(5), json.Number("6.0")}, `[1,-2,3,4,5,6]`, nil},
		"nil":                          {nil, `null`, nil},
		"a nil map":                    {map[string]any(nil), `{}`, nil},
		"a nil slice":                  {[]any(nil), `[]`, nil},
		"an int64 that is too large":   {int64(1 << 53), "", signing.ErrNumber},
		"an int64 that is too small":   {int64(math.MinInt64), "", signing.ErrNumber},
		"a uint64 that is too large":   {uint64(math.MaxUint64), "", signing.ErrNumber},
		"a float":                      {1.0, "", signing.ErrUnsupported},
		"another map":                  {map[string]string{"a": "b"}, "", signing.ErrUnsupported},
		"a struct in an array":         {[]any{struct{}{}}, "", signing.ErrUnsupported},
		"invalid UTF-8 in a string":    {"\xff", "", signing.ErrUTF8},
		"invalid UTF-8 in a name":      {map[string]any{"\xff": 1}, "", signing.ErrUTF8},
		"an empty number":              {json.Number(""), "", signing.ErrNumber},
		"a number with space":          {json.Number(" 1"), "", signing.ErrNumber},
		"a number that is more JSON":   {json.Number("1,2"), "", signing.ErrNumber},
		"a hexadecimal number":         {json.Number("0x10"), "", signing.ErrNumber},
		"a number with a plus sign":    {json.Number("+1"), "", signing.ErrNumber},
		"a number with a leading zero": {json.Number("007"), "", signing.ErrNumber},
		"too many objects":             {deep, "", signing.ErrDepth},
		"too many arrays":              {wrapped(65), "", signing.ErrDepth},
		"just enough arrays":           {wrapped(64), strings.Repeat("[", 64) + strings.Repeat("]", 64), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := signing.Canonical(tc.in)
			if !errors.Is(err, tc.err) || string(got) != tc.want {
				t.Errorf("%s, %v; want %s, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

func wrapped(depth int) any {
	v := []any{}
	for range depth - 1 {
		v = []any{v}
	}
	return v
}

func TestParseObjectRefusesOtherValues(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"[]", "null", `"a"`, "1", "true"} {
		if _, err := signing.ParseObject([]byte(in)); !errors.Is(err, signing.ErrSyntax) {
			t.Errorf("%s: %v", in, err)
		}
	}
	if _, err := signing.ParseObject([]byte(`{"a":1,"a":2}`)); !errors.Is(err, signing.ErrDuplicate) {
		t.Errorf("a member twice: %v", err)
	}
	got, err := signing.ParseObject([]byte(`{"a":[1.50,{"b":null}]}`))
	want := map[string]any{"a": []any{json.Number("1.50"), map[string]any{"b": nil}}}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

// What is canonical is JSON with the same value as the input, as encoding/json
// reads both, and is its own canonical form.
func FuzzCanonicalJSON(f *testing.F) {
	for _, s := range []string{
		nested, `{"a":-0,"b":1e10}`, `{"😀":2,"ﬃ":1}`, `"\uD83D\uDE00\u2028\b"`, `[1.0,0.001e3,-9007199254740991]`, `{"a":1,"a":2}`, `"\uD83D"`,
		`[[[[]]]]`, "\"\xff\"", `{} {}`, `1e999999999`, `10e-1`, `0e0`, `"\\\"\/"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := signing.CanonicalJSON(in)
		if err != nil {
			return
		}
		if !json.Valid(out) || !utf8.Valid(out) || bytes.Contains(out, []byte("\n")) {
			t.Fatalf("%q became %q", in, out)
		}
		if d := cmp.Diff(decode(t, in), decode(t, out), cmp.Comparer(sameNumber)); d != "" {
			t.Errorf("%q became %q (-in +out):\n%s", in, out, d)
		}
		if again, err := signing.CanonicalJSON(out); err != nil || !bytes.Equal(again, out) {
			t.Errorf("%q became %q, then %q (%v)", in, out, again, err)
		}
		v, err := signing.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := signing.Canonical(v); err != nil || !bytes.Equal(again, out) {
			t.Errorf("%q became %q, its value %q (%v)", in, out, again, err)
		}
	})
}

func decode(t *testing.T, data []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("encoding/json: %v", err)
	}
	return v
}

func sameNumber(a, b json.Number) bool { return value(a) == value(b) }

// value is the number as a fraction; the fuzzer finds zeros whose exponent no
// library takes.
func value(n json.Number) string {
	mantissa, _, _ := strings.Cut(strings.ToLower(string(n)), "e")
	if strings.Trim(mantissa, "-0.") == "" {
		return "0"
	}
	if r, ok := new(big.Rat).SetString(string(n)); ok {
		return r.RatString()
	}
	return string(n)
}
