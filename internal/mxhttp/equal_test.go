package mxhttp_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

// FuzzDecodeObject compares the decoder with encoding/json: what one takes the
// other takes with the same value.
func FuzzDecodeObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1,"a":2}`, `{"a":[1.50,-0,1e5,true,false,null,"x\u00e9\ud83d\ude00\ud800"]}`, `{"\u0061":{"b":[{}]}}`, `{1:2}`,
		`{"a":01}`, `{"a" 1}`, `{"a":"\x"}`, `[{}]`, "{\"a\":\"\x01\"}", `{"a":1,}`, `{"a":tru}`, "{} \n", `{}{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := mxhttp.DecodeObject(data)
		if err != nil {
			if e, ok := errors.AsType[*mxhttp.Error](err); ok && e.Code == "M_NOT_JSON" && utf8.Valid(data) && json.Valid(data) {
				t.Errorf("refused as %v", err)
			}
			return
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		var want map[string]any
		if err := dec.Decode(&want); err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-encoding/json +got:\n%s", diff)
		}
	})
}
