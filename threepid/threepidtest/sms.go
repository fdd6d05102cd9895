package threepidtest

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

// SMS is a running HTTP gateway for text messages. It takes any request and
// stops when the test ends.
type SMS struct {
	// URL is its address, http://127.0.0.1:port.
	URL string

	requests *journal[SMSRequest]
	stop     chan struct{}

	mu      sync.Mutex
	answers []SMSAnswer
}

// SMSRequest is one request to the gateway.
type SMSRequest struct {
	Method string
	URL    *url.URL
	Header http.Header
	Body   []byte
}

// SMSAnswer is one answer of the gateway. It waits for Delay, then for Until to
// be closed (nil: not at all). Status 0 cuts the connection.
type SMSAnswer struct {
	Delay  time.Duration
	Until  <-chan struct{}
	Status int
	Header http.Header
	Body   string
}

// NewSMS starts a gateway that answers 200 and {} unless Answer says otherwise.
func NewSMS(t testing.TB) *SMS {
	t.Helper()
	return newSMS(t, httptest.NewServer)
}

func newSMS(t testing.TB, start func(http.Handler) *httptest.Server) *SMS {
	t.Helper()
	s := &SMS{requests: newJournal[SMSRequest](), stop: make(chan struct{})}
	server := start(s)
	s.URL = server.URL
	t.Cleanup(func() {
		close(s.stop)
		server.Close()
	})
	return s
}

// Answer queues answers, one for each of the next requests.
func (s *SMS) Answer(answers ...SMSAnswer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, answers...)
}

// Requests returns the requests so far, those not answered yet included.
func (s *SMS) Requests() []SMSRequest { return s.requests.all() }

// Wait returns the requests once there are n of them. It ends the test if they
// do not come.
func (s *SMS) Wait(t testing.TB, n int) []SMSRequest {
	t.Helper()
	return s.requests.wait(t, n)
}

// ServeHTTP keeps the request and gives the next answer.
func (s *SMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "request too large", http.StatusRequestEntityTooLarge)
		return
	}
	answer := s.next()
	s.requests.add(SMSRequest{Method: r.Method, URL: r.URL, Header: r.Header.Clone(), Body: body})
	pause(answer.Delay, answer.Until, s.stop)
	if answer.Status == 0 {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), answer.Header)
	w.WriteHeader(answer.Status)
	_, _ = io.WriteString(w, answer.Body)
}

func (s *SMS) next() SMSAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answers) == 0 {
		return SMSAnswer{Status: http.StatusOK, Body: "{}"}
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	return answer
}

// Form returns the body as a form. It ends the test if it is none.
func (r SMSRequest) Form(t testing.TB) url.Values {
	t.Helper()
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		t.Fatal(err)
	}
	return form
}

// JSON returns the body as a JSON object. It ends the test if it is none.
func (r SMSRequest) JSON(t testing.TB) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(r.Body, &object); err != nil {
		t.Fatal(err)
	}
	return object
}
