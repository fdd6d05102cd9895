package leaktest_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"testing"

	"github.com/matrix-herald/herald/internal/leaktest"
)

func TestTheCollectorUnpacksWhatItIsSent(t *testing.T) {
	t.Parallel()
	endpoint, spans := leaktest.NewCollector(t)
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	if _, err := zip.Write([]byte("packed ")); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	send := func(encoding string, body *bytes.Buffer) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint+"/v1/traces", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Encoding", encoding)
		res, err := new(http.Transport).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	send("gzip", &packed)
	send("", bytes.NewBufferString("and plain"))
	if got := spans(); got != "packed and plain" {
		t.Errorf("got %q", got)
	}
}
