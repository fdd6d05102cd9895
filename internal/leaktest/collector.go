package leaktest

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// NewCollector starts a collector of traces that runs until the end of the test.
// It returns its endpoint, and what it was sent so far, unpacked.
func NewCollector(t testing.TB) (endpoint string, spans func() string) {
	t.Helper()
	var mu sync.Mutex
	var sent bytes.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			unzipped, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Errorf("spans that cannot be unpacked: %v", err)
				return
			}
			body = unzipped
		}
		mu.Lock()
		defer mu.Unlock()
		if _, err := sent.ReadFrom(body); err != nil {
			t.Errorf("spans that broke off: %v", err)
		}
	}))
	t.Cleanup(collector.Close)
	return collector.URL, func() string {
		mu.Lock()
		defer mu.Unlock()
		return sent.String()
	}
}
