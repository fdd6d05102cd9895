package httpapi_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/httpapi"
)

// limitedAPI returns an API with an app "app" and one for "com.example.*".
func limitedAPI(t *testing.T, p push.Provider, limits httpapi.Limits) http.Handler {
	t.Helper()
	return newAPI(t, p, func(o *httpapi.Options) {
		apps, err := push.NewApps([]push.App{
			{Name: "app", ProviderName: "apns", Provider: p, MaxInFlight: 100},
			{Name: "com.example.*", ProviderName: "apns", Provider: p, MaxInFlight: 100},
		})
		if err != nil {
			t.Fatal(err)
		}
		o.Gateway.SetApps(apps)
		o.Limits = limits
		o.TrustedProxies = []string{"10.0.0.0/8"}
		o.TrustedSources = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:aaaa::/48")}
		o.Limiter, err = ratelimit.New(ratelimit.Options{
			Names: httpapi.LimitNames(), Service: "push", Log: slog.New(slog.DiscardHandler), Registerer: o.Registerer,
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// notify posts a notification for devices of these apps from an address, and
// returns the answer.
func notify(t *testing.T, h http.Handler, from string, appIDs ...string) *http.Response {
	t.Helper()
	var devices []string
	for i, id := range appIDs {
		devices = append(devices, `{"app_id":"`+id+`","pushkey":"k`+strconv.Itoa(i)+`"}`)
	}
	body := `{"notification":{"devices":[` + strings.Join(devices, ",") + `]}}`
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/_matrix/push/v1/notify", strings.NewReader(body))
	r.RemoteAddr = "10.1.2.3:4567"
	r.Header.Set("X-Forwarded-For", from)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// Conformance (answers): more requests for an app, or from an address or /64, than `limits` lets through (off by default) | 429 M_LIMIT_EXCEEDED with retry_after_ms and Retry-After; nothing of the request is delivered; replicas count together; trusted sources are exempt (also TestALimitTellsWhenToComeBack, TestReplicasShareLimits)
func TestLimits(t *testing.T) {
	t.Parallel()
	month := func(n int) ratelimit.Limit { return ratelimit.Limit{Count: n, Per: 30 * 24 * time.Hour} }
	type request struct {
		from   string
		apps   []string
		status int
	}
	app := []string{"app"}
	tests := map[string]struct {
		limits   httpapi.Limits
		requests []request
		pushes   int
	}{
		"none by default": {httpapi.Limits{}, []request{{"192.0.2.1", app, 200}, {"192.0.2.1", app, 200}, {"192.0.2.1", app, 200}}, 3},
		"by address": {httpapi.Limits{IP: month(1)}, []request{
			{"192.0.2.1", app, 200}, {"192.0.2.1", app, 429}, {"192.0.2.1", []string{"com.example.ios"}, 429}, {"192.0.2.2", app, 200},
		}, 2},
		"by /64 of IPv6": {httpapi.Limits{IP: month(1)}, []request{
			{"2001:db8::1", app, 200}, {"2001:db8::ffff:2", app, 429}, {"2001:db8:0:1::1", app, 200},
		}, 2},
		"by app": {httpapi.Limits{App: month(1)}, []request{
			{"192.0.2.1", app, 200}, {"192.0.2.2", app, 429}, {"192.0.2.2", []string{"com.example.ios"}, 200},
		}, 2},
		"by the app of the configuration, whatever the app_id": {httpapi.Limits{App: month(2)}, []request{
			{"192.0.2.1", []string{"com.example.a"}, 200}, {"192.0.2.1", []string{"com.example.b"}, 200}, {"192.0.2.1", []string{"com.example.c"}, 429},
		}, 2},
		"an app_id of no app uses nothing up": {httpapi.Limits{App: month(1)}, []request{
			{"192.0.2.1", []string{"other"}, 502}, {"192.0.2.1", []string{"other"}, 502}, {"192.0.2.1", app, 200},
		}, 1},
		"a request counts once for each app": {httpapi.Limits{App: month(1)}, []request{
			{"192.0.2.1", []string{"app", "com.example.a", "app", "com.example.b"}, 200}, {"192.0.2.1", app, 429},
		}, 4},
		"as a whole, and the rest is given back": {httpapi.Limits{App: month(1)}, []request{
			{"192.0.2.1", app, 200}, {"192.0.2.1", []string{"com.example.a", "app"}, 429}, {"192.0.2.1", []string{"com.example.a"}, 200},
		}, 2},
		"trusted sources neither are limited nor use up what others have": {httpapi.Limits{IP: month(1), App: month(1)}, []request{
			{"203.0.113.9", app, 200}, {"203.0.113.9", app, 200}, {"2001:db8:aaaa::1", app, 200}, {"192.0.2.1", app, 200}, {"192.0.2.2", app, 429},
			{"203.0.113.9", app, 200},
		}, 5},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &phone{}
			h := limitedAPI(t, p, tt.limits)
			for i, r := range tt.requests {
				if res := notify(t, h, r.from, r.apps...); res.StatusCode != r.status {
					t.Errorf("request %d: %d, want %d", i+1, res.StatusCode, r.status)
				}
			}
			if len(p.devices) != tt.pushes {
				t.Errorf("%d pushes, want %d", len(p.devices), tt.pushes)
			}
		})
	}
}

func TestALimitTellsWhenToComeBack(t *testing.T) {
	t.Parallel()
	var reg prometheus.Registerer
	h := newAPI(t, &phone{}, func(o *httpapi.Options) {
		o.Limits.App = ratelimit.Limit{Count: 1, Per: time.Hour}
		reg = o.Registerer
		var err error
		o.Limiter, err = ratelimit.New(ratelimit.Options{Names: httpapi.LimitNames(), Service: "push", Log: o.Log, Registerer: o.Registerer})
		if err != nil {
			t.Fatal(err)
		}
	})
	notify(t, h, "192.0.2.1", "app")
	res := notify(t, h, "192.0.2.1", "app")
	var body struct {
		Errcode      string
		RetryAfterMS int64 `json:"retry_after_ms"`
	}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.ParseInt(res.Header.Get("Retry-After"), 10, 64)
	if err != nil || seconds < 1 || seconds > 3600 || body.RetryAfterMS > seconds*1000 || body.RetryAfterMS <= (seconds-1)*1000 {
		t.Errorf("Retry-After %q and %d ms", res.Header.Get("Retry-After"), body.RetryAfterMS)
	}
	if res.StatusCode != http.StatusTooManyRequests || body.Errcode != "M_LIMIT_EXCEEDED" {
		t.Errorf("%d %s", res.StatusCode, body.Errcode)
	}
	families, err := reg.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, f := range families {
		if f.GetName() == "herald_push_limited_total" {
			for _, m := range f.GetMetric() {
				counted += m.GetCounter().GetValue()
			}
		}
	}
	if counted != 1 {
		t.Errorf("%v refusals are counted", counted)
	}
}

func TestLimitsNeedALimiter(t *testing.T) {
	t.Parallel()
	_, err := httpapi.New(httpapi.Options{Log: slog.New(slog.DiscardHandler), Limits: httpapi.Limits{IP: ratelimit.Limit{Count: 1, Per: time.Hour}}})
	if err == nil {
		t.Error("limits that nobody counts are accepted")
	}
}
