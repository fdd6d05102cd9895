package push_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/push"
)

// FuzzEncodeJSON compares with encoding/json, byte for byte but for escapes.
func FuzzEncodeJSON(f *testing.F) {
	for _, text := range []string{
		`null`, `{}`, `[]`, `""`, `[[],{},[null,true,false]]`, `1e400`, `-0.0`, `[123456789012345678901234567890]`,
		`{"b":1,"a":{"z":"<>&","":"\u2028\u2029"},"é":["\u0000\b\f\n\r\t\u001f\u007f\"\\/"]}`, `"\ud83d\ude00"`,
		`{"aps":{"alert":{"loc-args":["a","b"],"loc-key":"K"},"badge":3,"mutable-content":1},"room_id":"!r:x"}`,
		`{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":1,"k":2,"l":3,"m":4,"n":5,"o":6,"p":7,"q":8,"r":9}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return // is refused before it is decoded
		}
		decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
		decoder.UseNumber()
		var v any
		if decoder.Decode(&v) != nil {
			return
		}
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := push.EncodeJSON(v)
		if err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		var escaped bytes.Buffer
		json.HTMLEscape(&escaped, got)
		if diff := cmp.Diff(string(want), escaped.String()); diff != "" {
			t.Errorf("encoding/json (-), ours (+):\n%s", diff)
		}
	})
}

func TestEncodeJSONOfOtherTypes(t *testing.T) {
	for name, tt := range map[string]struct {
		v    any
		want string // "" is an error
	}{
		"integer":         {map[string]any{"n": int64(-3)}, `{"n":-3}`},
		"HTML":            {"<b>&\u2028", "\"<b>&\u2028\""},
		"struct":          {[]any{struct{ A int }{1}}, `[{"A":1}]`},
		"channel":         {map[string]any{"n": make(chan int)}, ""},
		"no number":       {[]any{json.Number("x")}, ""},
		"after an error":  {[]any{"whole"}, `["whole"]`},
		"nil of a type":   {[]any{map[string]any(nil), []any(nil)}, `[null,null]`},
		"an empty number": {json.Number(""), "0"}, // as encoding/json has it
	} {
		t.Run(name, func(t *testing.T) {
			got, err := push.EncodeJSON(tt.v)
			if string(got) != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("%s, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func BenchmarkEncodeJSON(b *testing.B) {
	payload := map[string]any{
		"aps": map[string]any{
			"alert":           map[string]any{"loc-key": "MSG_FROM_USER_IN_ROOM_WITH_CONTENT", "loc-args": []any{"Major Tom", "Mission Control", "I'm floating in a most peculiar way"}},
			"badge":           int64(2),
			"mutable-content": json.Number("1"),
		},
		"cs": "account", "room_id": "!slw48:example.com", "event_id": "$1",
	}
	for name, encode := range map[string]func(any) ([]byte, error){"own": push.EncodeJSON, "encoding-json": json.Marshal} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := encode(payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
