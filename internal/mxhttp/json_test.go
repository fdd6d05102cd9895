package mxhttp_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

// wire has a member of every shape that requests have.
type wire struct {
	Name   string            `json:"name"`
	Count  int64             `json:"count"`
	Ratio  float64           `json:"ratio"`
	Flag   bool              `json:"flag"`
	List   []string          `json:"list"`
	Nested nested            `json:"nested"`
	Ptr    *nested           `json:"ptr"`
	ByKey  map[string]nested `json:"by_key"`
	Raw    jsontext.Value    `json:"raw"`
}

type nested struct {
	A string `json:"a"`
	B string `json:"b"`
}

func post(body string) *http.Request {
	return httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
}

// code returns the errcode of err, which must be an *Error if it is not nil.
func code(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	answer, ok := errors.AsType[*mxhttp.Error](err)
	if !ok {
		t.Fatalf("error is %T (%v), want *mxhttp.Error", err, err)
	}
	return answer.Code
}

func nest(n int) string { return strings.Repeat(`{"a":`, n-1) + "{}" + strings.Repeat("}", n-1) }

func TestBothReadersRefuseTheSameTexts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		body string
		want string
		msg  string
	}{
		"an object is read":                     {body: ` {"name":"x"} `},
		"64 levels are read":                    {body: nest(64)},
		"brackets in strings do not nest":       {body: `{"name":"` + strings.Repeat(`[{\"`, 100) + `"}`},
		"a lone escaped surrogate is read":      {body: `{"name":"\ud83d"}`},
		"a large number in an unknown member":   {body: `{"other":1e999}`},
		"an empty body is not JSON":             {body: "", want: "M_NOT_JSON"},
		"a form is not JSON":                    {body: "a=b&c=d", want: "M_NOT_JSON"},
		"NaN is not JSON":                       {body: `{"count":NaN}`, want: "M_NOT_JSON"},
		"bad UTF-8 is not JSON":                 {body: "{\"name\":\"\xff\"}", want: "M_NOT_JSON", msg: "The request body is not valid UTF-8"},
		"a byte order mark is not JSON":         {body: "\ufeff{}", want: "M_NOT_JSON"},
		"trailing data is not JSON":             {body: `{} {}`, want: "M_NOT_JSON"},
		"trailing garbage is not JSON":          {body: `{}x`, want: "M_NOT_JSON"},
		"a cut object is not JSON":              {body: `{"name":"x"`, want: "M_NOT_JSON"},
		"wrong shape and bad syntax: no JSON":   {body: `{"name":1,`, want: "M_NOT_JSON"},
		"65 levels are too deep":                {body: nest(65), want: "M_BAD_JSON", msg: "The request body nests deeper than 64 levels"},
		"a number is no object":                 {body: "5", want: "M_BAD_JSON", msg: "The request body is wrong: expected an object"},
		"null is no object":                     {body: "null", want: "M_BAD_JSON", msg: "The request body is wrong: expected an object"},
		"an array is no object":                 {body: "[]", want: "M_BAD_JSON", msg: "The request body is wrong: expected an object"},
		"a string is no object":                 {body: `"x"`, want: "M_BAD_JSON", msg: "The request body is wrong: expected an object"},
		"duplicates within an array: no object": {body: `[{"a":1,"a":2}]`, want: "M_BAD_JSON"},
		"the limit is kept":                     {body: `{"name":"` + strings.Repeat("x", 1<<12) + `"}`, want: "M_TOO_LARGE", msg: "The request body is larger than 4096 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check := func(reader string, err error) {
				if got := code(t, err); got != tc.want {
					t.Errorf("%s: errcode %q (%v), want %q", reader, got, err, tc.want)
				}
				if tc.msg != "" && !strings.HasSuffix(err.Error(), ": "+tc.msg) {
					t.Errorf("%s: %q, want message %q", reader, err, tc.msg)
				}
			}
			var dst wire
			check("ReadJSON", mxhttp.ReadJSON(httptest.NewRecorder(), post(tc.body), 4096, &dst))
			check("Decoder", readObject(post(tc.body), 4096))
		})
	}
}

// readObject reads an object as a handler with a Decoder does.
func readObject(r *http.Request, limit int64) error {
	isObject := false
	err := new(mxhttp.Decoders).ReadBody(httptest.NewRecorder(), r, limit, func(d mxhttp.Decoder) (err error) {
		isObject, err = d.Members(func([]byte) error { return d.SkipValue() })
		return err
	})
	if err == nil && !isObject {
		return mxhttp.ErrNotObject()
	}
	return err
}

func TestABodyOfUnknownLengthIsLimitedToo(t *testing.T) {
	t.Parallel()
	r := post(`{"name":"` + strings.Repeat("x", 100) + `"}`)
	r.ContentLength = -1
	err := mxhttp.ReadJSON(httptest.NewRecorder(), r, 50, new(wire))
	if got := code(t, err); got != "M_TOO_LARGE" {
		t.Errorf("errcode %q, want M_TOO_LARGE", got)
	}
	if status := err.(*mxhttp.Error).Status; status != http.StatusRequestEntityTooLarge { //nolint:errorlint // code checked it
		t.Errorf("status %d, want 413", status)
	}
}

func TestABodyThatBreaksOffIsNotJSON(t *testing.T) {
	t.Parallel()
	r := post("")
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{}"), errReader{}))
	if got := code(t, mxhttp.ReadJSON(httptest.NewRecorder(), r, 50, new(wire))); got != "M_NOT_JSON" {
		t.Errorf("errcode %q, want M_NOT_JSON", got)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestReadJSON(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		body string
		want wire
		err  string
	}{
		"names match in exact case only":      {body: `{"Name":"x","NAME":"y","count":2}`, want: wire{Count: 2}},
		"null leaves the zero value":          {body: `{"name":null,"list":null,"ptr":null}`},
		"unknown members are ignored":         {body: `{"x":{"y":[1,2]},"name":"n"}`, want: wire{Name: "n"}},
		"the last duplicate wins":             {body: `{"name":"a","name":"b"}`, want: wire{Name: "b"}},
		"duplicate objects are not merged":    {body: `{"nested":{"a":"1","b":"2"},"nested":{"a":"3"}}`, want: wire{Nested: nested{A: "3"}}},
		"duplicates keep large numbers whole": {body: `{"count":1,"count":9007199254740993}`, want: wire{Count: 9007199254740993}},
		"a raw member stays as it came":       {body: `{"raw":{"b":1.0,"a":[]}}`, want: wire{Raw: jsontext.Value(`{"b":1.0,"a":[]}`)}},
		"a lone surrogate becomes U+FFFD":     {body: `{"name":"x\ud83dy"}`, want: wire{Name: "x\ufffdy"}},
		"a number for a string":               {body: `{"name":1}`, err: "name: expected a string"},
		"a string for an integer":             {body: `{"count":"1"}`, err: "count: expected an integer in range"},
		"a fraction for an integer":           {body: `{"count":1.5}`, err: "count: expected an integer in range"},
		"an integer out of range":             {body: `{"count":9223372036854775808}`, err: "count: expected an integer in range"},
		"a number out of range":               {body: `{"ratio":1e400}`, err: "ratio: expected a number in range"},
		"a string for true or false":          {body: `{"flag":"yes"}`, err: "flag: expected true or false"},
		"an object for an array":              {body: `{"list":{}}`, err: "list: expected an array"},
		"an array for an object":              {body: `{"nested":[]}`, err: "nested: expected an object"},
		"an array for an optional object":     {body: `{"ptr":[]}`, err: "ptr: expected an object"},
		"the path leads into arrays":          {body: `{"list":["a","b",3]}`, err: "list.2: expected a string"},
		"the path leads into objects":         {body: `{"by_key":{"k/1":{"a":{}}}}`, err: "by_key.k/1.a: expected a string"},
		"a long path is cut at a character":   {body: `{"by_key":{"` + strings.Repeat("ä", 100) + `":1}}`, err: "by_key." + strings.Repeat("ä", 60) + ": expected an object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got wire
			err := mxhttp.ReadJSON(httptest.NewRecorder(), post(tc.body), 4096, &got)
			if tc.err != "" {
				if code(t, err) != "M_BAD_JSON" || err.Error() != "M_BAD_JSON: "+tc.err {
					t.Errorf("error %v, want M_BAD_JSON: %s", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("ReadJSON: %v", err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeObjectKeepsNumbersAndTheLastDuplicate(t *testing.T) {
	t.Parallel()
	got, err := mxhttp.DecodeObject([]byte(`{"a":1,"a":{"x":1},"a":{"y":9007199254740993},"A":[1.0,true,null]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"a": map[string]any{"y": json.Number("9007199254740993")},
		"A": []any{json.Number("1.0"), true, nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

// Deep nesting, long strings of escapes and many members are what makes careless
// decoders slow: the time for a byte must not grow with the size.
// TestWhatWasDecodedOutlivesTheDecoder reads one body with the memory of another.
func TestWhatWasDecodedOutlivesTheDecoder(t *testing.T) {
	var decoders mxhttp.Decoders
	decode := func(body string) (v any) {
		if err := decoders.ReadBody(httptest.NewRecorder(), post(body), 1000, func(d mxhttp.Decoder) (err error) {
			v, err = d.Value()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := decode(`["plain","esc\u0061ped",{"name":1}]`)
	for range 100 {
		decode(`["other","ano\u0074her",{"more":2}]`)
	}
	want := []any{"plain", "escaped", map[string]any{"name": json.Number("1")}}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("wanted (-), got (+):\n%s", diff)
	}
}

func BenchmarkHostileBodies(b *testing.B) {
	for name, body := range map[string]func(n int) string{
		"opening brackets": func(n int) string { return strings.Repeat("[", n) },
		"open objects":     func(n int) string { return strings.Repeat(`{"a":`, n/5) },
		"escapes":          func(n int) string { return `{"a":"` + strings.Repeat(`\\\"`, n/4) + `"}` },
		"duplicate names":  func(n int) string { return `{` + strings.Repeat(`"a":1,`, n/6) + `"a":1}` },
		"different names":  func(n int) string { return `{` + manyNames(n/12) + `"a":1}` },
	} {
		for _, size := range []int{8 << 10, 64 << 10, 512 << 10} {
			text := body(size)
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					_ = mxhttp.ReadJSON(httptest.NewRecorder(), post(text), int64(2*size), &map[string]jsontext.Value{})
					_ = readObject(post(text), int64(2*size))
				}
			})
		}
	}
}

func manyNames(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `"a%07d":1,`, i)
	}
	return text.String()
}

func TestWriteJSON(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	if err := mxhttp.WriteJSON(w, http.StatusAccepted, map[string]any{"html": "<a href=\"x\">&</a>"}); err != nil {
		t.Fatal(err)
	}
	if got, want := w.Body.String(), `{"html":"<a href=\"x\">&</a>"}`; got != want {
		t.Errorf("body %q, want %q", got, want)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" || w.Code != http.StatusAccepted {
		t.Errorf("Content-Type %q and status %d", got, w.Code)
	}
}

func TestWriteJSONWritesNothingThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	if err := mxhttp.WriteJSON(w, http.StatusOK, make(chan int)); err == nil {
		t.Error("no error for a channel")
	}
	if w.Body.Len() > 0 || len(w.Header()) > 0 {
		t.Errorf("wrote %q with %v", w.Body, w.Header())
	}
}

func FuzzReaders(f *testing.F) {
	for _, seed := range []string{
		`{"notification":{"devices":[{"app_id":"a","pushkey":"k","data":null}],"counts":{"unread":1}}}`,
		`{"a":1,"a":{"b":[]}}`, `[]`, `5`, `null`, `"x"`, ``, `{}x`, `{"a":NaN}`, "{\"\xff\":1}", `{"\ud800":"\udc00"}`,
		nest(64), nest(65), `{"a":"\\\"[[[{"}`, `{"a":1e999,"b":-0}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		object, err := mxhttp.DecodeObject(data)
		wellFormed := utf8.Valid(data) && json.Valid(data)
		if err == nil && !wellFormed {
			t.Fatalf("%q was accepted", data)
		}
		if c := code(t, err); c == "M_NOT_JSON" && wellFormed {
			t.Fatalf("%q was called no JSON", data)
		}
		var members map[string]jsontext.Value
		err2 := mxhttp.ReadJSON(httptest.NewRecorder(), post(string(data)), 1<<20, &members)
		if a, b := code(t, err), code(t, err2); a != b {
			t.Fatalf("%q: DecodeObject says %q, ReadJSON %q (%v)", data, a, b, err2)
		}
		slow := post("")
		slow.Body = io.NopCloser(iotest.OneByteReader(bytes.NewReader(data)))
		if c := code(t, mxhttp.ReadJSON(httptest.NewRecorder(), slow, 1<<20, new(map[string]jsontext.Value))); c != code(t, err2) {
			t.Fatalf("%q byte by byte: %q, and %v at once", data, c, err2)
		}
		if len(members) != len(object) {
			t.Fatalf("%q: ReadJSON finds %d members, DecodeObject %d", data, len(members), len(object))
		}
		for name, raw := range members {
			again, err := mxhttp.DecodeObject([]byte(`{"v":` + string(raw) + `}`))
			if err != nil {
				continue // the wrapping made it too deep
			}
			if diff := cmp.Diff(object[name], again["v"]); diff != "" {
				t.Fatalf("%q: member %q differs:\n%s", data, name, diff)
			}
		}
	})
}
