package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/push/httpapi"
)

func TestSources(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		remote, forwarded       string
		otherRemote, otherForwd string
		same                    bool
	}{
		"one address, two connections":         {"192.0.2.1:1000", "", "192.0.2.1:2000", "", true},
		"two addresses":                        {"192.0.2.1:1000", "", "192.0.2.2:1000", "", false},
		"an address and the same behind IPv6":  {"192.0.2.1:1000", "", "[::ffff:192.0.2.1]:1000", "", true},
		"two addresses of one /64":             {"[2001:db8::1]:1000", "", "[2001:db8::ffff:0:0:1]:1000", "", true},
		"two networks":                         {"[2001:db8::1]:1000", "", "[2001:db8:0:1::1]:1000", "", false},
		"two homeservers behind a proxy":       {"10.0.0.1:1000", "192.0.2.1", "10.0.0.1:1000", "192.0.2.2", false},
		"one homeserver behind two proxies":    {"10.0.0.1:1000", "192.0.2.1", "10.0.0.2:1000", "192.0.2.1", true},
		"a header of somebody who is no proxy": {"192.0.2.1:1000", "198.51.100.1", "192.0.2.1:1000", "198.51.100.2", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := new(phone)
			h := newAPI(t, p, func(o *httpapi.Options) { o.TrustedProxies = []string{"10.0.0.0/8"} })
			post := func(remote, forwarded string) {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/_matrix/push/v1/notify", strings.NewReader(notification("")))
				r.RemoteAddr = remote
				if forwarded != "" {
					r.Header.Set("X-Forwarded-For", forwarded)
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					t.Fatalf("status %d", w.Code)
				}
			}
			post(tt.remote, tt.forwarded)
			post(tt.otherRemote, tt.otherForwd)
			if same := p.notifications[0].Source == p.notifications[1].Source; same != tt.same {
				t.Errorf("one source: %v, want %v", same, tt.same)
			}
		})
	}
}
