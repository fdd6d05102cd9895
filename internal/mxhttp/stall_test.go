package mxhttp_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

// TestABodyThatStallsIsAnsweredWith408 begins a body and goes silent. Only the
// time that the server gives a request ends that.
func TestABodyThatStallsIsAnsweredWith408(t *testing.T) {
	t.Parallel()
	readers := map[string]handler{
		"ReadJSON": func(w http.ResponseWriter, r *http.Request) error { return mxhttp.ReadJSON(w, r, 4096, new(wire)) },
		"Decoder": func(w http.ResponseWriter, r *http.Request) error {
			return new(mxhttp.Decoders).ReadBody(w, r, 4096, mxhttp.Decoder.SkipValue)
		},
	}
	for name, read := range readers {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(fmt.Sprintf("%s over %s", name, protocol), func(t *testing.T) {
				t.Parallel()
				engine, _ := newEngine(t, mxhttp.Options{}, map[string]handler{"POST /": func(w http.ResponseWriter, r *http.Request) error {
					// As the server's ReadTimeout does, but not before the request is here.
					if err := http.NewResponseController(w).SetReadDeadline(time.Now()); err != nil {
						return err
					}
					return read(w, r)
				}})
				server := httptest.NewUnstartedServer(engine)
				server.EnableHTTP2 = protocol == "HTTP/2.0"
				server.StartTLS()
				t.Cleanup(server.Close)
				body, more := io.Pipe()
				defer more.Close()
				go func() { _, _ = io.WriteString(more, `{"name":`) }()
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, body)
				if err != nil {
					t.Fatal(err)
				}
				res, err := server.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				var answer struct{ Errcode, Error string }
				if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
					t.Fatal(err)
				}
				if res.StatusCode != http.StatusRequestTimeout || answer.Errcode != "M_UNKNOWN" || answer.Error == "" || res.Proto != protocol {
					t.Errorf("%s: %d %+v", res.Proto, res.StatusCode, answer)
				}
			})
		}
	}
}
