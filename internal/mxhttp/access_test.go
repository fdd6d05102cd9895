package mxhttp_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

func TestTheAccessLineHoldsTheRouteAndNoAddress(t *testing.T) {
	t.Parallel()
	engine, logs := newEngine(t, mxhttp.Options{}, map[string]handler{
		"GET /key/:id/*rest": func(w http.ResponseWriter, r *http.Request) error {
			mxhttp.AddLogAttrs(r.Context(), slog.Int("devices", 3))
			if r.PathValue("id") != "alice@example.org" || r.PathValue("rest") != "/a/b" || r.Pattern != "/key/:id/*rest" {
				t.Errorf("path values %q and %q, pattern %q", r.PathValue("id"), r.PathValue("rest"), r.Pattern)
			}
			if got := mxhttp.ClientAddr(r.Context()).String(); got != "192.0.2.1" {
				t.Errorf("client %s", got)
			}
			return mxhttp.WriteJSON(w, 200, mxhttp.RequestID(r.Context()))
		},
	})
	w := do(engine, "GET", "/key/alice@example.org/a/b?access_token=sekrit")
	id := w.Header().Get("X-Request-Id")
	if len(id) < 20 || w.Body.String() != `"`+id+`"` {
		t.Errorf("request id %q in the header, %s in the handler", id, w.Body)
	}
	lines := logs.lines(t, "request")
	if len(lines) != 1 {
		t.Fatalf("%d lines, want 1", len(lines))
	}
	line := lines[0]
	if took, ok := line["took"].(float64); !ok || took <= 0 {
		t.Errorf("took %v", line["took"])
	}
	delete(line, "time")
	delete(line, "took")
	want := map[string]any{
		"level": "INFO", "msg": "request", "method": "GET", "route": "/key/:id/*rest", "status": 200.0,
		"client": "192.0.2.1", "request_id": id, "bytes": float64(w.Body.Len()), "devices": 3.0,
	}
	if diff := cmp.Diff(want, line); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
	do(engine, "GET", "/unknown/alice@example.org?access_token=sekrit")
	do(engine, "ALICE", "/key/1/2")
	if s := strings.ToLower(logs.String()); strings.Contains(s, "alice") || strings.Contains(s, "sekrit") {
		t.Errorf("the log tells too much:\n%s", s)
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	engine, _ := newEngine(t, mxhttp.Options{}, map[string]handler{"GET /x": ok})
	for name, tc := range map[string]struct {
		id   string
		kept bool
	}{
		"a well-formed id is kept":        {"req-1.A_b", true},
		"64 characters are kept":          {strings.Repeat("a", 64), true},
		"65 characters are not":           {strings.Repeat("a", 65), false},
		"other characters are not":        {"a b", false},
		"line breaks are not":             {"a\nb", false},
		"no id means a new one":           {"", false},
		"characters beyond ASCII are not": {"ä", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/x", nil)
			r.Header.Set("X-Request-Id", tc.id)
			w := httptest.NewRecorder()
			engine.ServeHTTP(w, r)
			got := w.Header().Get("X-Request-Id")
			if (got == tc.id) != tc.kept || got == "" {
				t.Errorf("got %q for %q", got, tc.id)
			}
		})
	}
}

// Conformance (security): X-Forwarded-For is believed from trusted proxies alone, from the right (also TestOnlyHomeserversMaySpeakForTheirUsers)
// Conformance (attacks): X-Forwarded-For of one's own choice | believed from configured proxies only, read from the right
func TestClientAddress(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		trusted   []string
		remote    string
		forwarded string
		realIP    string
		want      string
	}{
		"nobody is trusted by default":                       {nil, "10.0.0.1:99", "6.6.6.6", "", "10.0.0.1"},
		"a trusted proxy is believed":                        {[]string{"10.0.0.0/8"}, "10.0.0.1:99", "6.6.6.6", "", "6.6.6.6"},
		"only as far as the last untrusted hop":              {[]string{"10.0.0.0/8"}, "10.0.0.1:99", "1.1.1.1, 6.6.6.6, 10.0.0.2", "", "6.6.6.6"},
		"a line of the proxy's own counts, not the client's": {[]string{"10.0.0.0/8"}, "10.0.0.1:99", "1.1.1.1\n6.6.6.6", "", "6.6.6.6"},
		"what is no address is not looked behind":            {[]string{"10.0.0.0/8"}, "10.0.0.1:99", "1.1.1.1, x, 10.0.0.2", "", "10.0.0.1"},
		"others are not believed":                            {[]string{"10.0.0.0/8"}, "11.0.0.1:99", "6.6.6.6", "", "11.0.0.1"},
		"a forwarded IPv4 address in IPv6 is unmapped":       {[]string{"10.0.0.0/8"}, "10.0.0.1:99", "::ffff:6.6.6.6", "", "6.6.6.6"},
		"X-Real-IP is not read":                              {[]string{"10.0.0.0/8"}, "10.0.0.1:99", "", "6.6.6.6", "10.0.0.1"},
		"an IPv6 address":                                    {nil, "[2001:db8::1]:99", "", "", "2001:db8::1"},
		"an IPv4 address in IPv6 is unmapped":                {nil, "[::ffff:192.0.2.9]:99", "", "", "192.0.2.9"},
		"an address that is none stays unknown":              {nil, "@", "", "", "invalid IP"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got string
			engine, _ := newEngine(t, mxhttp.Options{TrustedProxies: tc.trusted}, map[string]handler{
				"GET /x": func(w http.ResponseWriter, r *http.Request) error {
					got = mxhttp.ClientAddr(r.Context()).String()
					return ok(w, r)
				},
			})
			r := httptest.NewRequest("GET", "/x", nil)
			r.RemoteAddr = tc.remote
			for line := range strings.Lines(tc.forwarded) {
				r.Header.Add("X-Forwarded-For", strings.TrimSpace(line))
			}
			r.Header.Set("X-Real-IP", tc.realIP)
			engine.ServeHTTP(httptest.NewRecorder(), r)
			if got != tc.want {
				t.Errorf("client %s, want %s", got, tc.want)
			}
		})
	}
}

func TestAProxyThatIsNotTrustedIsNoticedOnce(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		trusted   []string
		remote    string
		forwarded string
		want      string // the proxy's address, "" for no notice
	}{
		"a private address that forwards":      {nil, "10.0.0.1:99", "6.6.6.6", "10.0.0.1"},
		"one of another range":                 {[]string{"192.168.0.0/16", "10.0.0.2"}, "10.0.0.1:99", "6.6.6.6", "10.0.0.1"},
		"the same host":                        {nil, "[::1]:99", "6.6.6.6", "::1"},
		"an IPv4 address in IPv6":              {nil, "[::ffff:10.0.0.1]:99", "6.6.6.6", "10.0.0.1"},
		"a proxy of a trusted range":           {[]string{"10.0.0.0/8"}, "10.0.0.1:99", "6.6.6.6", ""},
		"one that is named in the other way":   {[]string{"::ffff:10.0.0.1"}, "10.0.0.1:99", "6.6.6.6", ""},
		"a trusted proxy":                      {[]string{"10.0.0.1"}, "10.0.0.1:99", "6.6.6.6", ""},
		"a trusted one that forwards nonsense": {[]string{"10.0.0.1"}, "10.0.0.1:99", "x", ""},
		"a client without a proxy":             {nil, "10.0.0.1:99", "", ""},
		"a stranger who sends the header":      {nil, "11.0.0.1:99", "6.6.6.6", ""},
		"a Unix socket":                        {nil, "@", "6.6.6.6", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, logs := newEngine(t, mxhttp.Options{TrustedProxies: tc.trusted}, map[string]handler{
				"GET /x": func(w http.ResponseWriter, r *http.Request) error {
					if proxied := mxhttp.Proxied(r.Context()); proxied != (tc.want != "") {
						t.Errorf("proxied: %t", proxied)
					}
					return ok(w, r)
				},
			})
			for range 3 {
				r := httptest.NewRequest("GET", "/x", nil)
				r.RemoteAddr = tc.remote
				if tc.forwarded != "" {
					r.Header.Set("X-Forwarded-For", tc.forwarded)
				}
				engine.ServeHTTP(httptest.NewRecorder(), r)
			}
			var got []string
			for line := range strings.Lines(logs.String()) {
				if strings.Contains(line, "trusted_proxies") {
					got = append(got, line)
				}
			}
			switch {
			case tc.want == "" && len(got) > 0:
				t.Errorf("noticed: %s", got)
			case tc.want != "" && (len(got) != 1 || !strings.Contains(got[0], `"proxy":"`+tc.want+`"`) || !strings.Contains(got[0], `"WARN"`)):
				t.Errorf("noticed %d times: %s", len(got), got)
			}
		})
	}
}

func TestMetricsHaveClosedLabels(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	engine, _ := newEngine(t, mxhttp.Options{Registerer: reg}, map[string]handler{
		"GET /key/:id": func(w http.ResponseWriter, r *http.Request) error {
			if n := gauge(t, reg, "herald_http_requests_in_flight"); n != 1 {
				t.Errorf("%v requests in flight, want 1", n)
			}
			return ok(w, r)
		},
	})
	for i := range 20 {
		do(engine, "GET", fmt.Sprintf("/key/%d", i))
		do(engine, "GET", fmt.Sprintf("/other/%d", i))
		do(engine, fmt.Sprintf("M%d", i), "/key/1")
	}
	want := `# HELP herald_http_requests_total Answered HTTP requests.
# TYPE herald_http_requests_total counter
herald_http_requests_total{code="200",method="GET",route="/key/:id"} 20
herald_http_requests_total{code="404",method="GET",route="unmatched"} 20
herald_http_requests_total{code="405",method="other",route="unmatched"} 20
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "herald_http_requests_total"); err != nil {
		t.Error(err)
	}
	if n := gauge(t, reg, "herald_http_requests_in_flight"); n != 0 {
		t.Errorf("%v requests in flight, want 0", n)
	}
	if n, err := testutil.GatherAndCount(reg, "herald_http_request_duration_seconds"); n != 2 || err != nil {
		t.Errorf("%d duration series (%v), want 2", n, err)
	}
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
