package harness

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Secrets are what must not be found in what a service tells, by name: in clear, or
// in one of the usual disguises. It is safe for concurrent use.
type Secrets struct {
	mu    sync.Mutex
	forms map[string][]string
	codes map[string]*regexp.Regexp
}

// Add adds a secret of at least eight characters.
func (s *Secrets) Add(name, secret string) {
	if len(secret) < 8 {
		panic("harness: " + name + " is too short to be looked for") // a fault of the test
	}
	forms := []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret),
		hex.EncodeToString([]byte(secret)),
	}
	if quoted, err := json.Marshal(secret); err == nil {
		forms = append(forms, string(quoted[1:len(quoted)-1]))
	}
	// The secret may begin at any of three places of a group of base64; the
	// characters at its ends depend on its neighbours.
	for shift := range 3 {
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := encoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + secret))
			forms = append(forms, text[shift+1:len(text)-1])
		}
	}
	for i, form := range forms {
		forms[i] = strings.ToLower(form)
	}
	slices.Sort(forms)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forms == nil {
		s.forms = make(map[string][]string)
	}
	s.forms[name] = slices.Compact(forms)
}

// AddCode adds a secret of a few digits, which is looked for where it is not a
// part of a number or the value of one.
func (s *Secrets) AddCode(name, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.codes == nil {
		s.codes = make(map[string]*regexp.Regexp)
	}
	s.codes[name] = regexp.MustCompile(`(?:^|[^0-9.:\-])` + regexp.QuoteMeta(code) + `(?:$|[^0-9.])`)
}

// In returns the names of the secrets in text, in whatever case they are
// written.
func (s *Secrets) In(text string) []string {
	lower := strings.ToLower(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	for name, forms := range s.forms {
		if slices.ContainsFunc(forms, func(form string) bool { return strings.Contains(lower, form) }) {
			found = append(found, name)
		}
	}
	for name, code := range s.codes {
		if code.MatchString(text) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// Collector starts a collector of traces that runs until the end of the test.
// It returns its endpoint, and what it was sent so far, unpacked.
func Collector(t testing.TB) (endpoint string, spans func() string) {
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
