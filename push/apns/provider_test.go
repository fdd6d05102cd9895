package apns_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/pushtest"
)

const (
	topic = "org.example.app"
	id    = "3f2a6c1e-1c1f-4d6f-9f57-9a1a2b3c4d5e"
)

// app is a provider with a fake of its own.
type app struct {
	*apns.Provider
	fake *pushtest.APNs
}

// tokenConfig are the settings of an app with a provider token.
func tokenConfig(tb testing.TB, key pushtest.TokenKey, endpoint string) apns.Config {
	tb.Helper()
	return apns.Config{
		Key: conf.Secret(key.P8(tb)), KeyID: key.KeyID, TeamID: key.TeamID, Topic: topic, Endpoint: endpoint,
	}
}

// start opens a provider that talks to a fake with opts; change may change
// its settings.
func start(tb testing.TB, opts pushtest.APNsOptions, change func(*apns.Config)) app {
	tb.Helper()
	key := pushtest.NewTokenKey(tb)
	opts.Key = &key
	fake := pushtest.StartAPNs(tb, opts)
	cfg := tokenConfig(tb, key, fake.URL())
	if change != nil {
		change(&cfg)
	}
	return app{open(tb, connect(tb, apns.Options{RootCAs: fake.CA().Pool()}), cfg), fake}
}

func connect(tb testing.TB, opts apns.Options) *apns.Connections {
	tb.Helper()
	opts.Log = slog.New(slog.DiscardHandler)
	connections := apns.NewConnections(opts)
	tb.Cleanup(connections.Close)
	return connections
}

func open(tb testing.TB, connections *apns.Connections, cfg apns.Config) *apns.Provider {
	tb.Helper()
	provider, err := connections.Open("app", cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(provider.Close)
	return provider
}

func device() *push.Device { return &push.Device{AppID: topic, PushKey: b64Key} }

func delivery(n *push.Notification) push.Delivery {
	return push.Delivery{Notification: n, Device: device(), ID: id}
}

func TestProviderContract(t *testing.T) {
	t.Parallel()
	pushtest.TestProvider(t, *device(), func(t *testing.T, b pushtest.Behaviour) (push.Provider, pushtest.Peer) {
		if b == pushtest.Refuse {
			endpoint := "https://" + pushtest.RefusedAddr(t)
			return open(t, connect(t, apns.Options{}), tokenConfig(t, pushtest.NewTokenKey(t), endpoint)), nil
		}
		a := start(t, pushtest.APNsOptions{Answer: pushtest.APNsBehaving(b)}, nil)
		return a.Provider, a.fake
	})
}

// responses is what each of Apple's responses becomes. Where nothing else is said
// the device was registered at second 1000.
var responses = []struct {
	name   string
	answer pushtest.APNsAnswer
	want   push.Outcome // without Status and Detail, which are the answer's
}{
	{"taken", pushtest.APNsAnswer{}, sent},
	{"taken, with words that may come", pushtest.APNsAnswer{Status: 200, Body: `{"apns-unique-id":"x"}`}, sent},
	{"a page in place of Apple", pushtest.APNsAnswer{Status: 200, Body: "<html>Please log in</html>"}, unavailable},

	{"unknown token", pushtest.APNsAnswer{Status: 400, Reason: "BadDeviceToken"}, works(push.Rejected, push.ReasonBadToken)},
	{"token of another app", pushtest.APNsAnswer{Status: 400, Reason: "DeviceTokenNotForTopic"}, works(push.Rejected, push.ReasonWrongTopic)},
	{"no payload", pushtest.APNsAnswer{Status: 400, Reason: "PayloadEmpty"}, works(push.Dropped, push.ReasonBadMessage)},
	{"idle", pushtest.APNsAnswer{Status: 400, Reason: "IdleTimeout"}, push.Outcome{Kind: push.Temporary, Reason: push.ReasonConnection, Unprocessed: true}},
	{"bad certificate as a bad request", pushtest.APNsAnswer{Status: 400, Reason: "BadCertificate"}, credentials},
	{"certificate of another platform as a bad request", pushtest.APNsAnswer{Status: 400, Reason: "BadCertificateEnvironment"}, credentials},
	{"topic disallowed", pushtest.APNsAnswer{Status: 400, Reason: "TopicDisallowed"}, config},
	{"bad topic", pushtest.APNsAnswer{Status: 400, Reason: "BadTopic"}, config},
	{"missing topic", pushtest.APNsAnswer{Status: 400, Reason: "MissingTopic"}, config},
	{"missing token", pushtest.APNsAnswer{Status: 400, Reason: "MissingDeviceToken"}, config},
	{"bad expiration", pushtest.APNsAnswer{Status: 400, Reason: "BadExpirationDate"}, config},
	{"bad priority", pushtest.APNsAnswer{Status: 400, Reason: "BadPriority"}, config},
	{"bad collapse id", pushtest.APNsAnswer{Status: 400, Reason: "BadCollapseId"}, config},
	{"bad id", pushtest.APNsAnswer{Status: 400, Reason: "BadMessageId"}, config},
	{"duplicate headers", pushtest.APNsAnswer{Status: 400, Reason: "DuplicateHeaders"}, config},
	{"invalid push type", pushtest.APNsAnswer{Status: 400, Reason: "InvalidPushType"}, config},
	{"a bad request without a reason", pushtest.APNsAnswer{Status: 400}, unavailable},
	{"a bad request to a proxy", pushtest.APNsAnswer{Status: 400, Body: "<html>"}, unavailable},
	{"a dead token's reason without its status", pushtest.APNsAnswer{Status: 400, Reason: "Unregistered"}, config},

	{"bad certificate", pushtest.APNsAnswer{Status: 403, Reason: "BadCertificate"}, credentials},
	{"certificate of another platform", pushtest.APNsAnswer{Status: 403, Reason: "BadCertificateEnvironment"}, credentials},
	{"expired provider token", pushtest.APNsAnswer{Status: 403, Reason: "ExpiredProviderToken"}, credentials},
	{"invalid provider token", pushtest.APNsAnswer{Status: 403, Reason: "InvalidProviderToken"}, credentials},
	{"missing provider token", pushtest.APNsAnswer{Status: 403, Reason: "MissingProviderToken"}, credentials},
	{"unrelated key", pushtest.APNsAnswer{Status: 403, Reason: "UnrelatedKeyIdInToken"}, credentials},
	{"key of another platform", pushtest.APNsAnswer{Status: 403, Reason: "BadEnvironmentKeyIdInToken"}, credentials},
	{"forbidden", pushtest.APNsAnswer{Status: 403, Reason: "Forbidden"}, credentials},
	{"forbidden without a reason", pushtest.APNsAnswer{Status: 403}, unavailable},
	{"forbidden by a proxy", pushtest.APNsAnswer{Status: 403, Body: "<html>"}, unavailable},
	{"a bad token's reason without its status", pushtest.APNsAnswer{Status: 403, Reason: "BadDeviceToken"},
		push.Outcome{Kind: push.Temporary, Reason: push.ReasonCredentials}},

	{"bad path", pushtest.APNsAnswer{Status: 404, Reason: "BadPath"}, config},
	{"method not allowed", pushtest.APNsAnswer{Status: 405, Reason: "MethodNotAllowed"}, config},
	{"not found by a proxy", pushtest.APNsAnswer{Status: 404, Body: "<html>"}, unavailable},

	{"unregistered after the device registered", pushtest.APNsAnswer{Status: 410, Reason: "Unregistered", Timestamp: 1_000_001}, unregistered},
	{"unregistered as the device registered", pushtest.APNsAnswer{Status: 410, Reason: "Unregistered", Timestamp: 1_000_000}, stale},
	{"unregistered before the device registered", pushtest.APNsAnswer{Status: 410, Reason: "Unregistered", Timestamp: 999_999}, stale},
	{"unregistered at an unknown time", pushtest.APNsAnswer{Status: 410, Reason: "Unregistered"}, unregistered},
	{"unregistered at a time of another form", pushtest.APNsAnswer{Status: 410, Body: `{"timestamp":"1","reason":"Unregistered"}`}, unregistered},
	{"expired after the device registered", pushtest.APNsAnswer{Status: 410, Reason: "ExpiredToken", Timestamp: 2_000_000}, unregistered},
	{"expired before the device registered", pushtest.APNsAnswer{Status: 410, Reason: "ExpiredToken", Timestamp: 1}, stale},
	{"gone for another reason", pushtest.APNsAnswer{Status: 410, Reason: "Moved"}, push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnavailable}},
	{"gone without a reason", pushtest.APNsAnswer{Status: 410, Body: "<html>"}, unavailable},

	{"too large", pushtest.APNsAnswer{Status: 413, Reason: "PayloadTooLarge"}, works(push.Dropped, push.ReasonTooLarge)},
	{"too large for a proxy", pushtest.APNsAnswer{Status: 413, Body: "<html>"}, unavailable},
	{"too many pushes to a device", pushtest.APNsAnswer{Status: 429, Reason: "TooManyRequests"}, rateLimited(0)},
	{"too many pushes, with a time to wait", pushtest.APNsAnswer{Status: 429, Reason: "TooManyRequests", RetryAfter: "7"}, rateLimited(7 * time.Second)},
	{"too many provider tokens", pushtest.APNsAnswer{Status: 429, Reason: "TooManyProviderTokenUpdates"}, ofTeam(rateLimited(time.Minute))},
	{"too many provider tokens, with a time to wait", pushtest.APNsAnswer{Status: 429, Reason: "TooManyProviderTokenUpdates", RetryAfter: "9"},
		ofTeam(rateLimited(9 * time.Second))},
	{"too many of something, with a time to wait", pushtest.APNsAnswer{Status: 429, Reason: "TooManySomething", RetryAfter: "9"},
		push.Outcome{Kind: push.Temporary, Reason: push.ReasonRateLimited, RetryAfter: 9 * time.Second, Evidence: push.EvidenceThrottled}},
	{"too many requests for a proxy", pushtest.APNsAnswer{Status: 429, Body: "<html>"}, unavailable},

	{"internal error", pushtest.APNsAnswer{Status: 500, Reason: "InternalServerError"}, again},
	{"unavailable", pushtest.APNsAnswer{Status: 503, Reason: "ServiceUnavailable"}, again},
	{"shutting down", pushtest.APNsAnswer{Status: 503, Reason: "Shutdown"}, again},
	{"unavailable without a reason", pushtest.APNsAnswer{Status: 503, Body: "<html>"}, again},
	{"unavailable, with a time to wait", pushtest.APNsAnswer{Status: 503, Reason: "ServiceUnavailable", RetryAfter: "3"},
		push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnavailable, RetryAfter: 3 * time.Second, Evidence: push.EvidenceUnreachable}},
	{"internal error, with a time to wait that is none", pushtest.APNsAnswer{Status: 500, RetryAfter: "soon"}, unavailable},

	{"a redirect", pushtest.APNsAnswer{Status: 307, Body: "x"}, unavailable},
	{"a teapot", pushtest.APNsAnswer{Status: 418}, unavailable},
	{"a gateway", pushtest.APNsAnswer{Status: 502, Body: "<html>Bad Gateway</html>"}, unavailable},
	{"JSON that is no object", pushtest.APNsAnswer{Status: 502, Body: `["BadDeviceToken"]`}, unavailable},
	{"an endless body", pushtest.APNsAnswer{Status: 502, Body: strings.Repeat("x", 1<<20)}, unavailable},
}

var (
	credentials  = push.Outcome{Kind: push.Temporary, Reason: push.ReasonCredentials, Evidence: push.EvidenceRefused}
	config       = push.Outcome{Kind: push.Temporary, Reason: push.ReasonConfig}
	sent         = works(push.Accepted, push.ReasonSent)
	unregistered = works(push.Rejected, push.ReasonUnregistered)
	stale        = works(push.Temporary, push.ReasonStaleReport)
	unavailable  = push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnavailable, Evidence: push.EvidenceUnreachable}
	again        = push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnavailable, Evidence: push.EvidenceUnreachable, Unprocessed: true}
)

// works is an outcome that shows that Apple works and takes our credentials.
func works(kind push.Kind, reason push.Reason) push.Outcome {
	return push.Outcome{Kind: kind, Reason: reason, Evidence: push.EvidenceWorks}
}

func rateLimited(wait time.Duration) push.Outcome {
	return push.Outcome{Kind: push.Temporary, Reason: push.ReasonRateLimited, RetryAfter: wait}
}

// ofTeam is an outcome that concerns all pushes with the same credentials.
func ofTeam(out push.Outcome) push.Outcome {
	out.Evidence = push.EvidenceQuota
	return out
}

// Conformance (APNs): every status and reason of Apple, and what it says about Apple and our credentials: nothing that a token, a payload or an app's settings can cause holds back other pushes (also FuzzResponse)
// Conformance (APNs): an answer of any status that is not in Apple's own form, such as a proxy's page (≠ Sygnal: dropped, rejected or taken) | 502
// Conformance (APNs): 410 for a token registered again since | temporary
func TestResponses(t *testing.T) {
	t.Parallel()
	byToken := make(map[string]pushtest.APNsAnswer)
	tokenOf := func(i int) string { return fmt.Sprintf("%064x", i) }
	for i, test := range responses {
		byToken[tokenOf(i)] = test.answer
	}
	a := start(t, pushtest.APNsOptions{
		Answer: func(r pushtest.APNsRequest) pushtest.APNsAnswer { return byToken[r.Token] },
	}, nil)
	for i, test := range responses {
		t.Run(test.name, func(t *testing.T) {
			d := delivery(message("@a:x", "", "hi"))
			d.Device.PushKey, d.Device.PushKeyTS = tokenOf(i), 1000
			got := a.Send(t.Context(), d)
			want := test.want
			want.Status, want.Detail = test.answer.Status, test.answer.Reason
			if want.Status == 0 {
				want.Status = http.StatusOK
			}
			if strings.Contains(test.answer.Body, "Unregistered") {
				want.Detail = "Unregistered"
			}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	t.Run("unregistered at any time when the device's registration is unknown", func(t *testing.T) {
		i := indexOf(t, "unregistered before the device registered")
		d := delivery(message("@a:x", "", "hi"))
		d.Device.PushKey = tokenOf(i)
		if got := a.Send(t.Context(), d); got.Kind != push.Rejected {
			t.Errorf("got %+v, want rejected", got)
		}
	})
	t.Run("unregistered when the device registered beyond the end of time", func(t *testing.T) {
		i := indexOf(t, "unregistered after the device registered")
		d := delivery(message("@a:x", "", "hi"))
		d.Device.PushKey, d.Device.PushKeyTS = tokenOf(i), 1<<62
		if got := a.Send(t.Context(), d); got.Reason != push.ReasonStaleReport {
			t.Errorf("got %+v, want a stale report", got)
		}
	})
}

func indexOf(t *testing.T, name string) int {
	t.Helper()
	for i, test := range responses {
		if test.name == name {
			return i
		}
	}
	t.Fatalf("no response %q", name)
	return 0
}

// Conformance (APNs): a provider token that is refused because the clock is wrong | the error names by how much (also TestClockError)
func TestAWrongClockIsNamed(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"ExpiredProviderToken", "InvalidProviderToken"} {
		fake := pushtest.StartAPNs(t, pushtest.APNsOptions{Answer: func(pushtest.APNsRequest) pushtest.APNsAnswer {
			return pushtest.APNsAnswer{Status: 403, Reason: reason}
		}})
		slow := func() time.Time { return time.Now().Add(-47 * time.Minute) }
		connections := connect(t, apns.Options{RootCAs: fake.CA().Pool(), Now: slow})
		got := open(t, connections, tokenConfig(t, pushtest.NewTokenKey(t), fake.URL())).Send(t.Context(), delivery(message("@a:x", "", "hi")))
		if got.Reason != push.ReasonCredentials || fmt.Sprint(got.Err) != "the clock is 47 minutes slow" {
			t.Errorf("%s: got %+v, want the clock to be named", reason, got)
		}
	}
}

func TestReasonsFromElsewhereAreNotRepeated(t *testing.T) {
	t.Parallel()
	a := start(t, pushtest.APNsOptions{Answer: func(r pushtest.APNsRequest) pushtest.APNsAnswer {
		return pushtest.APNsAnswer{Status: 400, Reason: "no token " + r.Token}
	}}, nil)
	got := a.Send(t.Context(), delivery(message("@a:x", "", "hi")))
	if got.Detail != "" || got.Reason != push.ReasonUnavailable {
		t.Errorf("got %+v, want no detail", got)
	}
}

func TestWhatIsNotSent(t *testing.T) {
	t.Parallel()
	a := start(t, pushtest.APNsOptions{}, nil)
	long := strings.Repeat("x", 5000)
	for name, test := range map[string]struct {
		n      *push.Notification
		change func(*push.Device)
		kind   push.Kind
		reason push.Reason
	}{
		"a join":                 {&push.Notification{EventID: push.NewText("$e"), Type: push.NewText("m.room.member")}, func(*push.Device) {}, push.Accepted, push.ReasonNothingToSend},
		"a malformed pushkey":    {message("a", "", "b"), func(d *push.Device) { d.PushKey = "../../x?y#z" }, push.Rejected, push.ReasonMalformedPushKey},
		"malformed data":         {message("a", "", "b"), func(d *push.Device) { d.Data = map[string]any{"default_payload": nil} }, push.Rejected, push.ReasonMalformedData},
		"data that is too large": {message("a", "", "b"), func(d *push.Device) { d.Data = map[string]any{"default_payload": map[string]any{"x": long}} }, push.Rejected, push.ReasonMalformedData},
	} {
		d := delivery(test.n)
		test.change(d.Device)
		if got := a.Send(t.Context(), d); got.Kind != test.kind || got.Reason != test.reason {
			t.Errorf("%s: got %+v, want %s (%s)", name, got, test.kind, test.reason)
		}
	}
	if n := a.fake.Count(); n != 0 {
		t.Errorf("%d requests were made, want none", n)
	}
}

// BenchmarkSend measures a whole push, the fake's part included.
func BenchmarkSend(b *testing.B) {
	a := start(b, pushtest.APNsOptions{Discard: true}, nil)
	d := delivery(message("@a:x", "Room", "hello"))
	b.ReportAllocs()
	b.SetParallelism(50)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if got := a.Send(b.Context(), d); got.Kind != push.Accepted {
				b.Errorf("got %+v, want accepted", got)
			}
		}
	})
}
