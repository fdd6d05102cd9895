package webpush_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/health"
	"github.com/matrix-herald/herald/push/pushtest"
	"github.com/matrix-herald/herald/push/webpush"
)

// behaving starts a fake that treats every push as told.
func behaving(t *testing.T, b pushtest.Behaviour) *pushtest.WebPush {
	t.Helper()
	fake := pushtest.StartWebPush(t, func(pushtest.WebPushRequest) pushtest.FCMAnswer {
		switch b {
		case pushtest.Hang:
			return pushtest.FCMAnswer{Hang: true}
		case pushtest.Cut:
			return pushtest.FCMAnswer{Cut: true}
		case pushtest.Garbage:
			return pushtest.FCMAnswer{Status: http.StatusBadGateway, Body: "<html>" + strings.Repeat("x", 1<<20)}
		}
		return pushtest.FCMAnswer{}
	})
	if b == pushtest.Refuse {
		fake.Close()
	}
	return fake
}

func TestProviderContract(t *testing.T) {
	t.Parallel()
	subscription := pushtest.NewSubscription(t)
	device := push.Device{AppID: "app", PushKey: subscription.PushKey(), Data: map[string]any{"endpoint": mozilla, "auth": subscription.Auth()}}
	pushtest.TestProvider(t, device, func(t *testing.T, b pushtest.Behaviour) (push.Provider, pushtest.Peer) {
		fake := behaving(t, b)
		return open(t, fake, nil), fake
	})
}

func TestUnifiedPushContract(t *testing.T) {
	t.Parallel()
	device := push.Device{AppID: "app", PushKey: mozilla}
	pushtest.TestProvider(t, device, func(t *testing.T, b pushtest.Behaviour) (push.Provider, pushtest.Peer) {
		fake := behaving(t, b)
		return openUnified(t, fake, webpush.Options{}, nil), fake
	})
}

// habit is what a push service answers one after the other, and what that means.
type habit struct {
	endpoint string
	answers  []pushtest.FCMAnswer
	kind     push.Kind
	reason   push.Reason
	detail   string
	retry    time.Duration
	requests int // that it takes
}

// Conformance (Web Push): VAPID: audience, end within 24 h, contact, a token for each service, used for half its life (also TestAVAPIDTokenIsUsedForHalfItsLife, TestConfigFaults)
// Conformance (Web Push): the answers of Mozilla, Google, Apple, Windows and others (≠ Sygnal: 200, lost) | 404 and 410 rejected; 413 once more with ids alone; 400 Topic once more without; ours 502; 429 and Windows' 406 429; 5xx 502 (also FuzzResponse)
func TestServicesHabits(t *testing.T) {
	t.Parallel()
	const (
		mozillaV1 = "https://updates.push.services.mozilla.com/wpush/v1/gAAAA"
		google    = "https://fcm.googleapis.com/fcm/send/token"
		apple     = "https://web.push.apple.com/QAAA"
		windows   = "https://wns2-by3p.notify.windows.com/w/?token=secret"
	)
	moz := func(status, errno int, after string) pushtest.FCMAnswer {
		return pushtest.FCMAnswer{Status: status, RetryAfter: after, Body: fmt.Sprintf(`{"code":%d,"errno":%d,"error":"x","message":"secret"}`, status, errno)}
	}
	reason := func(status int, reason string) pushtest.FCMAnswer {
		return pushtest.FCMAnswer{Status: status, Body: fmt.Sprintf(`{"reason":%q}`, reason)}
	}
	only := func(status int) pushtest.FCMAnswer { return pushtest.FCMAnswer{Status: status} }
	ok := pushtest.FCMAnswer{}
	for name, h := range map[string]habit{
		"Mozilla: taken":                     {mozilla, []pushtest.FCMAnswer{{Location: "https://x/m/1"}}, push.Accepted, push.ReasonSent, "", 0, 1},
		"Mozilla: bad token":                 {mozilla, []pushtest.FCMAnswer{moz(404, 102, "")}, push.Rejected, push.ReasonUnregistered, "errno 102", 0, 1},
		"Mozilla: gone":                      {mozilla, []pushtest.FCMAnswer{moz(410, 106, "")}, push.Rejected, push.ReasonUnregistered, "errno 106", 0, 1},
		"Mozilla: another key":               {mozilla, []pushtest.FCMAnswer{moz(401, 109, ""), moz(401, 109, "")}, push.Temporary, push.ReasonConfig, "errno 109", 0, 2},
		"Mozilla: the older key":             {mozilla, []pushtest.FCMAnswer{moz(401, 109, ""), ok}, push.Accepted, push.ReasonSent, "", 0, 2},
		"Mozilla: a token it does not take":  {mozillaV1, []pushtest.FCMAnswer{moz(401, 109, "")}, push.Temporary, push.ReasonCredentials, "errno 109", 0, 1},
		"Mozilla: too large for Android":     {mozilla, []pushtest.FCMAnswer{moz(413, 104, ""), ok}, push.Accepted, push.ReasonSent, "", 0, 2},
		"Mozilla: too large for all":         {mozilla, []pushtest.FCMAnswer{moz(413, 104, ""), moz(413, 104, "")}, push.Dropped, push.ReasonTooLarge, "errno 104", 0, 2},
		"Mozilla: no topic":                  {mozilla, []pushtest.FCMAnswer{moz(400, 113, ""), ok}, push.Accepted, push.ReasonSent, "", 0, 2},
		"Mozilla: a wrong TTL":               {mozilla, []pushtest.FCMAnswer{moz(400, 112, "")}, push.Temporary, push.ReasonConfig, "errno 112", 0, 1},
		"Mozilla: back off":                  {mozilla, []pushtest.FCMAnswer{moz(503, 201, "120")}, push.Temporary, push.ReasonUnavailable, "errno 201", 2 * time.Minute, 1},
		"Mozilla: try again at once":         {mozilla, []pushtest.FCMAnswer{moz(503, 202, "120")}, push.Temporary, push.ReasonUnavailable, "errno 202", 0, 1},
		"Mozilla: a bridge's credentials":    {mozilla, []pushtest.FCMAnswer{moz(502, 901, "")}, push.Temporary, push.ReasonThirdParty, "errno 901", 0, 1},
		"Mozilla: a bridge's timeout":        {mozilla, []pushtest.FCMAnswer{moz(502, 903, "")}, push.Temporary, push.ReasonUnavailable, "errno 903", 0, 1},
		"Google: another key, in words":      {google, []pushtest.FCMAnswer{{Status: 403, Body: "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions."}, ok}, push.Accepted, push.ReasonSent, "", 0, 2},
		"Google: forbidden":                  {google, []pushtest.FCMAnswer{only(403)}, push.Temporary, push.ReasonCredentials, "", 0, 1},
		"Google: no VAPID":                   {google, []pushtest.FCMAnswer{{Status: 400, Body: "<TITLE>UnauthorizedRegistration</TITLE>"}}, push.Temporary, push.ReasonCredentials, "UnauthorizedRegistration", 0, 1},
		"Google: unsubscribed":               {google, []pushtest.FCMAnswer{{Status: 410, Body: "push subscription has unsubscribed or expired."}}, push.Rejected, push.ReasonUnregistered, "", 0, 1},
		"Google: too many":                   {google, []pushtest.FCMAnswer{only(429)}, push.Temporary, push.ReasonRateLimited, "", time.Minute, 1},
		"Apple: another key":                 {apple, []pushtest.FCMAnswer{reason(403, "VapidPkHashMismatch"), ok}, push.Accepted, push.ReasonSent, "", 0, 2},
		"Apple: a bad token":                 {apple, []pushtest.FCMAnswer{reason(403, "BadJwtToken")}, push.Temporary, push.ReasonCredentials, "BadJwtToken", 0, 1},
		"Apple: a bad topic":                 {apple, []pushtest.FCMAnswer{reason(400, "BadWebPushTopic"), ok}, push.Accepted, push.ReasonSent, "", 0, 2},
		"Apple: a bad urgency":               {apple, []pushtest.FCMAnswer{reason(400, "BadUrgency")}, push.Temporary, push.ReasonConfig, "BadUrgency", 0, 1},
		"Apple: a bad request":               {apple, []pushtest.FCMAnswer{reason(400, "BadWebPushRequest")}, push.Dropped, push.ReasonBadMessage, "BadWebPushRequest", 0, 1},
		"Apple: unregistered":                {apple, []pushtest.FCMAnswer{reason(410, "Unregistered")}, push.Rejected, push.ReasonUnregistered, "Unregistered", 0, 1},
		"Apple: words that nobody knows":     {apple, []pushtest.FCMAnswer{reason(400, "https://secret")}, push.Dropped, push.ReasonBadMessage, "", 0, 1},
		"Windows: throttled":                 {windows, []pushtest.FCMAnswer{only(406)}, push.Temporary, push.ReasonRateLimited, "", 15 * time.Minute, 1},
		"Windows: throttled for a time":      {windows, []pushtest.FCMAnswer{{Status: 406, RetryAfter: "900"}}, push.Temporary, push.ReasonRateLimited, "", 15 * time.Minute, 1},
		"Windows: a TTL against its policy":  {windows, []pushtest.FCMAnswer{{Status: 400, Header: "X-WNS-ERROR-DESCRIPTION: Ttl value conflicts: TTL"}}, push.Temporary, push.ReasonConfig, "BadTtl", 0, 1},
		"Windows: a revoked channel":         {windows, []pushtest.FCMAnswer{only(410)}, push.Rejected, push.ReasonUnregistered, "", 0, 1},
		"anybody: 406":                       {"https://push.example.org/x", []pushtest.FCMAnswer{only(406)}, push.Temporary, push.ReasonConfig, "", 0, 1},
		"anybody: Retry-After of a day":      {"https://push.example.org/x", []pushtest.FCMAnswer{{Status: 429, RetryAfter: "86400"}}, push.Temporary, push.ReasonRateLimited, "", time.Hour, 1},
		"anybody: a redirect":                {"https://push.example.org/x", []pushtest.FCMAnswer{{Status: 301, Location: "https://127.0.0.1/"}}, push.Temporary, push.ReasonConfig, "", 0, 1},
		"anybody: no space (507)":            {"https://push.example.org/x", []pushtest.FCMAnswer{only(507)}, push.Temporary, push.ReasonUnavailable, "", 0, 1},
		"anybody: what nobody has heard of":  {"https://push.example.org/x", []pushtest.FCMAnswer{only(418)}, push.Temporary, push.ReasonConfig, "", 0, 1},
		"anybody: a number that is no errno": {"https://push.example.org/x", []pushtest.FCMAnswer{moz(400, 123456789, "")}, push.Dropped, push.ReasonBadMessage, "", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h.check(t)
		})
	}
}

func (h habit) check(t *testing.T) {
	t.Helper()
	answers := make(chan pushtest.FCMAnswer, len(h.answers))
	for _, a := range h.answers {
		answers <- a
	}
	fake := pushtest.StartWebPush(t, func(pushtest.WebPushRequest) pushtest.FCMAnswer { return <-answers })
	first, public := newKey(t)
	second, _ := newKey(t)
	provider := open(t, fake, func(c *webpush.Config) { c.VAPIDKey = conf.Secret(first + second) })
	d := message(browser(fake, h.endpoint))
	d.Device.Data["only_last_per_room"] = true
	out := provider.Send(t.Context(), d)
	expect(t, out, h.kind, h.reason)
	if out.Detail != h.detail || out.RetryAfter != h.retry || fake.Count() != h.requests {
		t.Errorf("detail %q, retry after %s, %d requests; want %q, %s, %d", out.Detail, out.RetryAfter, fake.Count(), h.detail, h.retry, h.requests)
	}
	if text := fmt.Sprint(out.Err, out.Detail); strings.Contains(text, "secret") || strings.Contains(text, "wpush") {
		t.Errorf("the outcome shows what the service said, or the endpoint: %s", text)
	}
	if out.Evidence == push.EvidenceRefused {
		t.Error("an endpoint of somebody's choice speaks against the app")
	}
	if again := h.detail == "errno 202"; out.Unprocessed != again {
		t.Errorf("it may be sent again at once: %v", out.Unprocessed)
	}
	all := fake.Requests()
	if all[0].Key != public || all[0].Text == "" {
		t.Errorf("the first request is signed with %s and holds %q", all[0].Key, all[0].Text)
	}
	if len(all) == 2 && all[0].Key == all[1].Key && all[0].Text == all[1].Text && all[1].Header.Get("Topic") != "" {
		t.Error("the second request is the same as the first")
	}
}

// Conformance (Web Push): an answer without end | cut
func TestAnAnswerWithoutEndIsCut(t *testing.T) {
	t.Parallel()
	for status, kind := range map[int]push.Kind{201: push.Accepted, 410: push.Rejected, 500: push.Temporary} {
		left := make(chan int, 1)
		fake := pushtest.StartWebPush(t, func(pushtest.WebPushRequest) pushtest.FCMAnswer {
			return pushtest.FCMAnswer{Status: status, Endless: left}
		})
		if out := open(t, fake, nil).Send(t.Context(), message(browser(fake, "https://push.example.org/x"))); out.Kind != kind {
			t.Errorf("%d: %s (%s)", status, out.Kind, out.Reason)
		}
		if n := <-left; n > 16<<20 { // a few may be on their way
			t.Errorf("%d: %d bytes left", status, n)
		}
	}
}

func TestWhatIsTooLargeIsSentOnceMoreWithIDsAlone(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, func(r pushtest.WebPushRequest) pushtest.FCMAnswer {
		if strings.Contains(r.Text+string(r.Body), "hallo") {
			return pushtest.FCMAnswer{Status: 413}
		}
		return pushtest.FCMAnswer{}
	})
	expect(t, open(t, fake, nil).Send(t.Context(), message(browser(fake, mozilla))), push.Accepted, push.ReasonSent)
	newest := func() pushtest.WebPushRequest { return fake.Requests()[fake.Count()-1] }
	if got := newest().Text; got != `{"event_id":"$e:x","room_id":"!r:x","unread":2}` {
		t.Errorf("the browser gets %s", got)
	}
	unified := openUnified(t, fake, webpush.Options{}, nil)
	expect(t, unified.Send(t.Context(), message(&push.Device{AppID: "app", PushKey: "https://ntfy.example.org/up"})), push.Accepted, push.ReasonSent)
	if got := string(newest().Body); got != `{"notification":{"counts":{"unread":2},"event_id":"$e:x","prio":"high","room_id":"!r:x"}}` {
		t.Errorf("the phone gets %s", got)
	}
}

// Somebody else who has the same p256dh says nothing about the device.
func TestTheAddressIsTheEndpointWithBothKeys(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, nil)
	web, unified := open(t, fake, nil), openUnified(t, fake, webpush.Options{}, nil)
	p256dh, auth, other := fake.Subscription.PushKey(), fake.Subscription.Auth(), pushtest.NewSubscription(t)
	device := func(pushKey, endpoint, p256dh, auth string) *push.Device {
		d := &push.Device{AppID: "app", PushKey: pushKey, Data: map[string]any{"auth": auth}}
		for name, value := range map[string]string{"endpoint": endpoint, "p256dh": p256dh} {
			if value != "" {
				d.Data[name] = value
			}
		}
		return d
	}
	addresses := map[string]string{
		"a browser":                  web.Address(device(p256dh, mozilla, "", auth)),
		"another endpoint":           web.Address(device(p256dh, mozilla+"B", "", auth)),
		"another auth":               web.Address(device(p256dh, mozilla, "", other.Auth())),
		"another p256dh":             web.Address(device(other.PushKey(), mozilla, "", auth)),
		"a phone at another":         unified.Address(device(mozilla+"C", "", p256dh, auth)),
		"its auth is another":        unified.Address(device(mozilla+"C", "", p256dh, other.Auth())),
		"its p256dh is another":      unified.Address(device(mozilla+"C", "", other.PushKey(), auth)),
		"a phone that takes it open": unified.Address(&push.Device{AppID: "app", PushKey: mozilla + "C"}),
	}
	seen := make(map[string]string)
	for name, address := range addresses {
		if address == "" || seen[address] != "" {
			t.Errorf("%s: %q, as %s", name, address, seen[address])
		}
		seen[address] = name
	}
	if web.Address(device(" "+p256dh+"=", "https://UPDATES.push.services.mozilla.com:443/wpush/v2/gAAAA", "", auth)) != addresses["a browser"] {
		t.Error("one browser, written in another way, has two addresses")
	}
}

// Conformance (Web Push): a subscription made with another key (≠ Sygnal: lost) | the next key is tried and remembered; none left: 502 (also TestServicesHabits)
func TestTheKeyOfASubscriptionIsRemembered(t *testing.T) {
	t.Parallel()
	first, _ := newKey(t)
	second, public := newKey(t)
	fake := pushtest.StartWebPush(t, func(r pushtest.WebPushRequest) pushtest.FCMAnswer {
		if r.Key != public {
			return pushtest.FCMAnswer{Status: 403, Body: `{"reason":"VapidPkHashMismatch"}`}
		}
		return pushtest.FCMAnswer{}
	})
	provider := open(t, fake, func(c *webpush.Config) { c.VAPIDKey = conf.Secret(first + second) })
	for range 2 {
		expect(t, provider.Send(t.Context(), message(browser(fake, "https://web.push.apple.com/Q"))), push.Accepted, push.ReasonSent)
	}
	if n := fake.Count(); n != 3 {
		t.Errorf("%d requests for two notifications, want 3", n)
	}
	expect(t, open(t, fake, nil).Send(t.Context(), message(browser(fake, "https://web.push.apple.com/Q"))), push.Temporary, push.ReasonConfig)
}

func TestAVAPIDTokenIsUsedForHalfItsLife(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, nil)
	now := time.Now()
	cfg := webpush.Config{Common: common(t)}
	provider, err := connect(t, fake, webpush.Options{Wrap: to(fake), Now: func() time.Time { return now }}).Open("app", cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	send := func(endpoint string) string {
		expect(t, provider.Send(t.Context(), message(browser(fake, endpoint))), push.Accepted, push.ReasonSent)
		all := fake.Requests()
		return all[len(all)-1].Header.Get("Authorization")
	}
	one := send(mozilla)
	now = now.Add(5 * time.Hour)
	if send(mozilla) != one {
		t.Error("each push has a token of its own")
	}
	if send("https://fcm.googleapis.com/wp/x") == one {
		t.Error("two services get the same token")
	}
	now = now.Add(2 * time.Hour)
	if send(mozilla) == one {
		t.Error("a token is used for longer than half its life")
	}
}

// Conformance (Web Push): endpoints without https, with a user, an address, a port or a host that is not listed, a gateway's own | rejected or dropped; nobody is asked (also FuzzEndpoint)
func TestWhatCannotBeSentAsksNobody(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, nil)
	provider := open(t, fake, func(c *webpush.Config) {
		c.AllowedEndpoints, c.DeniedEndpoints = []string{"*.example.org", "push.example.com:8443"}, []string{"bad.example.org"}
	})
	set := func(name string, v any) func(*push.Device) { return func(d *push.Device) { d.Data[name] = v } }
	for name, tc := range map[string]struct {
		change func(*push.Device)
		kind   push.Kind
		reason push.Reason
	}{
		"no data":                   {func(d *push.Device) { d.Data = nil }, push.Rejected, push.ReasonMalformedData},
		"no endpoint":               {set("endpoint", nil), push.Rejected, push.ReasonMalformedData},
		"an endpoint without TLS":   {set("endpoint", "http://a.example.org/x"), push.Rejected, push.ReasonMalformedData},
		"an endpoint with a user":   {set("endpoint", "https://u:p@a.example.org/x"), push.Rejected, push.ReasonMalformedData},
		"an address":                {set("endpoint", "https://192.0.2.1/x"), push.Rejected, push.ReasonMalformedData},
		"an address of IPv6":        {set("endpoint", "https://[2001:db8::1]/x"), push.Rejected, push.ReasonMalformedData},
		"a host that is not listed": {set("endpoint", "https://a.example.net/x"), push.Dropped, push.ReasonNotAllowed},
		"a host that is denied":     {set("endpoint", "https://BAD.example.org./x"), push.Dropped, push.ReasonNotAllowed},
		"a port that is not listed": {set("endpoint", "https://a.example.org:8443/x"), push.Dropped, push.ReasonNotAllowed},
		"a gateway":                 {set("endpoint", "https://a.example.org/_matrix/push/v1/notify"), push.Dropped, push.ReasonNotAllowed},
		"no auth":                   {set("auth", nil), push.Rejected, push.ReasonMalformedData},
		"no key":                    {func(d *push.Device) { d.PushKey = "" }, push.Rejected, push.ReasonMalformedPushKey},
		"default_payload is a text": {set("default_payload", "x"), push.Rejected, push.ReasonMalformedData},
		"default_payload leaves no room": {set("default_payload", map[string]any{"x": strings.Repeat("x", 3500)}), push.Rejected,
			push.ReasonMalformedData},
	} {
		d := browser(fake, "https://a.example.org/x")
		tc.change(d)
		out := provider.Send(t.Context(), message(d))
		if out.Kind != tc.kind || out.Reason != tc.reason {
			t.Errorf("%s: %s (%s)", name, out.Kind, out.Reason)
		}
	}
	if n := fake.Count(); n > 0 {
		t.Errorf("%d requests", n)
	}
	expect(t, provider.Send(t.Context(), message(browser(fake, "https://push.example.com:8443/x"))), push.Accepted, push.ReasonSent)
	expect(t, provider.Send(t.Context(), message(browser(fake, "https://A.example.org:443/x"))), push.Accepted, push.ReasonSent)
}

// Nobody but the operator decides about whose health anything is remembered.
func TestOnlyNamedOriginsAreDestinations(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, nil)
	provider := open(t, fake, func(c *webpush.Config) { c.AllowedEndpoints = []string{"*", "ntfy.example.org"} })
	for endpoint, named := range map[string]bool{
		mozilla: true, "https://ntfy.example.org/a": true, "https://NTFY.example.org.:443/b": true, "https://other.example.org/": false,
		"https://ntfy.example.org:8443/": false, "x": false,
	} {
		if got := provider.Destination(browser(fake, endpoint)); (got != "") != named {
			t.Errorf("%s: the destination is %q", endpoint, got)
		}
	}
	ntfy, all := provider.Destination(browser(fake, "https://ntfy.example.org/a")), provider.Destinations()
	if ntfy != provider.Destination(browser(fake, "https://NTFY.example.org/b")) {
		t.Error("one origin has two destinations")
	}
	if other := provider.Destination(browser(fake, mozilla)); other == ntfy || !slices.Contains(all, ntfy) || !slices.Contains(all, other) {
		t.Errorf("the destinations %q and %q, of %q", ntfy, other, all)
	}
}

// Whoever sets a pusher chooses the path: what answers there may be another server
// behind the operator's proxy, or a phone behind Mozilla's. That some path fails
// says nothing about the host, as long as it can be reached.
//
// Conformance (Web Push): 5xx, or no answer, from a path at a host that the operator lists | nothing against the host: only that it cannot be reached opens its breaker
func TestAPathThatFailsIsNothingAgainstItsHost(t *testing.T) {
	t.Parallel()
	const listed = "https://ntfy.example.org/other"
	var answer atomic.Pointer[pushtest.FCMAnswer] // a handler whose connection was cut may still run
	fake := pushtest.StartWebPush(t, func(pushtest.WebPushRequest) pushtest.FCMAnswer { return *answer.Load() })
	provider := open(t, fake, func(c *webpush.Config) { c.AllowedEndpoints = []string{"*", "ntfy.example.org"} })
	for name, tc := range map[string]struct {
		endpoint string
		answer   pushtest.FCMAnswer
		evidence push.Evidence
	}{
		"a listed host fails":            {listed, pushtest.FCMAnswer{Status: 500}, push.EvidenceNone},
		"its proxy finds nobody":         {listed, pushtest.FCMAnswer{Status: 502, Body: "<html>"}, push.EvidenceNone},
		"it has no time":                 {listed, pushtest.FCMAnswer{Status: 503}, push.EvidenceNone},
		"it cuts the connection":         {listed, pushtest.FCMAnswer{Cut: true}, push.EvidenceNone},
		"Mozilla's bridge fails":         {mozilla, pushtest.FCMAnswer{Status: 502, Body: `{"code":502,"errno":902}`}, push.EvidenceWorks},
		"Mozilla's bridge says no more":  {mozilla, pushtest.FCMAnswer{Status: 502, Body: `{"code":502}`}, push.EvidenceWorks},
		"Mozilla itself fails":           {mozilla, pushtest.FCMAnswer{Status: 502, Body: "<html>"}, push.EvidenceUnreachable},
		"Mozilla itself cuts the stream": {mozilla, pushtest.FCMAnswer{Cut: true}, push.EvidenceUnreachable},
	} {
		answer.Store(&tc.answer)
		if out := provider.Send(t.Context(), message(browser(fake, tc.endpoint))); out.Kind != push.Temporary || out.Evidence != tc.evidence {
			t.Errorf("%s: %s (%s), evidence %d, want %d", name, out.Kind, out.Reason, out.Evidence, tc.evidence)
		}
	}
	gone := pushtest.StartWebPush(t, nil)
	gone.Close()
	provider = open(t, gone, func(c *webpush.Config) { c.AllowedEndpoints = []string{"ntfy.example.org"} })
	if out := provider.Send(t.Context(), message(browser(gone, listed))); out.Evidence != push.EvidenceUnreachable {
		t.Errorf("a host that cannot be reached: %s (%s), evidence %d", out.Kind, out.Reason, out.Evidence)
	}
}

// Conformance (Web Push): a host that no operator names and that hangs, fails, sends a Retry-After of a day or accepts and rejects in turns | a twentieth of the app's places, and half for all of its kind; its devices alone (also TestOnlyNamedOriginsAreDestinations, TestAHostileEndpointHarmsItselfAlone)
func TestAnOriginThatNobodyNamesTakesATwentiethOfThePlaces(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, func(pushtest.WebPushRequest) pushtest.FCMAnswer { return pushtest.FCMAnswer{Hang: true} })
	provider := open(t, fake, func(c *webpush.Config) {
		c.AllowedEndpoints = []string{"*", "*.notify.windows.com", "*.org", "*.duckdns.org"}
	}) // of 100 places
	outcomes := make(chan push.Outcome, 100)
	send := func(endpoint string, n int) {
		for range n {
			go func() { outcomes <- provider.Send(t.Context(), message(browser(fake, endpoint))) }()
		}
	}
	wait := func(n int) {
		if err := fake.Wait(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	busy := func(endpoint string) {
		out := provider.Send(t.Context(), message(browser(fake, endpoint)))
		expect(t, out, push.Temporary, push.ReasonBusy)
		if out.RetryAfter == 0 {
			t.Error("it says nothing of when to come back")
		}
	}
	send("https://tarpit.example.org/x", 5)
	wait(5)
	busy("https://tarpit.example.org/y")
	for i := range 45 {
		send(fmt.Sprintf("https://tarpit%d.example.org/x", i), 1)
	}
	wait(50)
	busy("https://another.example.org/x")
	busy("https://mine.duckdns.org/x") // a domain in which anybody has names
	send(mozilla, 25)
	send("https://wns2-par02p.notify.windows.com/w/?token=x", 25) // of a domain that the operator names
	wait(100)
	fake.Close()
	for range 100 {
		<-outcomes
	}
	if n := provider.Strays(); n != 0 {
		t.Errorf("%d origins are remembered after the last push", n)
	}
}

// tarpits are so many origins that take connections and never say a word.
func tarpits(t *testing.T, n int) (origins []string, came <-chan net.Conn) {
	t.Helper()
	conns := make(chan net.Conn, 2*n)
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				conns <- conn
			}
		}()
		t.Cleanup(func() {
			_ = l.Close()
			<-done
		})
		_, port, _ := net.SplitHostPort(l.Addr().String())
		origins = append(origins, "https://localhost:"+port)
	}
	return origins, conns
}

// Conformance (Web Push): a thousand hosts that hang at once | a connection each, within half of the app's places; the others go on
func TestAThousandOriginsThatHangLeaveOthersTheirPlaces(t *testing.T) {
	t.Parallel()
	const n = 1000
	origins, came := tarpits(t, n)
	fake := pushtest.StartWebPush(t, nil)
	cfg := webpush.Config{Common: common(t)}
	cfg.AllowedEndpoints, cfg.AllowNetworks = []string{"localhost:*", "*"}, []string{"127.0.0.1", "::1"}
	services := func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Hostname() == "localhost" {
				return next.RoundTrip(r)
			}
			return to(fake)(next).RoundTrip(r)
		})
	}
	provider, err := connect(t, fake, webpush.Options{Wrap: services}).Open("app", cfg, 2*n)
	if err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	outcomes := make(chan push.Outcome, n)
	for _, origin := range origins {
		go func() { outcomes <- provider.Send(ctx, message(browser(fake, origin+"/x"))) }()
	}
	var conns []net.Conn
	for range n {
		conns = append(conns, <-came)
	}
	for _, origin := range origins {
		expect(t, provider.Send(ctx, message(browser(fake, origin+"/y"))), push.Temporary, push.ReasonBusy)
	}
	expect(t, provider.Send(ctx, message(browser(fake, mozilla))), push.Accepted, push.ReasonSent)
	if more := len(came); more > 0 {
		t.Errorf("%d connections more than pushes", more)
	}
	giveUp()
	for range n {
		expect(t, <-outcomes, push.Temporary, push.ReasonTimeout)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	if left := provider.Strays(); left != 0 {
		t.Errorf("%d origins are remembered after the last push", left)
	}
}

// localhost is a name that leads to a private address.
//
// Conformance (Web Push): an endpoint whose name leads into a private network | dropped, and nothing is connected to
func TestAPrivateAddressIsNotConnectedTo(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, nil)
	_, port, _ := net.SplitHostPort(fake.Addr())
	cfg := webpush.UnifiedPush{Common: webpush.Common{Endpoints: webpush.Endpoints{AllowedEndpoints: []string{"localhost:*"}}}}
	device := &push.Device{AppID: "app", PushKey: "https://localhost:" + port + "/up"}
	for networks, want := range map[string]push.Reason{"": push.ReasonNotAllowed, "127.0.0.0/8 ::1": push.ReasonSent} {
		cfg.AllowNetworks = strings.Fields(networks)
		provider, err := connect(t, fake, webpush.Options{}).Open("app", cfg, 100)
		if err != nil {
			t.Fatal(err)
		}
		if out := provider.Send(t.Context(), message(device)); out.Reason != want || strings.Contains(fmt.Sprint(out.Err), "/up") {
			t.Errorf("%q: %s (%s), %v", networks, out.Kind, out.Reason, out.Err)
		}
	}
	if n := fake.Connections(); n != 1 {
		t.Errorf("%d connections, want the one that is allowed", n)
	}
}

// Through the gateway: whatever such a host answers, Mozilla's is asked as before.
func TestAHostileEndpointHarmsItselfAlone(t *testing.T) {
	t.Parallel()
	var turn atomic.Int64
	fake := pushtest.StartWebPush(t, func(r pushtest.WebPushRequest) pushtest.FCMAnswer {
		if r.Host != "evil.example.org" {
			return pushtest.FCMAnswer{}
		}
		return []pushtest.FCMAnswer{
			{}, {Status: 410}, {Status: 500}, {Status: 403}, {Status: 429, RetryAfter: "86400"}, {Status: 503, Body: strings.Repeat("x", 1<<20)},
			{Status: 302, Location: "https://127.0.0.1/"}, {Cut: true},
		}[turn.Add(1)%8]
	})
	reg := prometheus.NewRegistry()
	gateway := newGateway(t, reg, health.New(health.Options{}), open(t, fake, nil))
	evil := func(i int) push.Device { return *browser(fake, fmt.Sprintf("https://evil.example.org/%d", i)) }
	for i := range 200 {
		n := message(nil).Notification
		n.EventID = push.NewText(fmt.Sprintf("$e%d:x", i))
		expect(t, gateway.Deliver(t.Context(), n, []push.Device{evil(i), *browser(fake, mozilla)})[1], push.Accepted, push.ReasonSent)
	}
	turn.Store(2) // 403 is next
	expect(t, gateway.Deliver(t.Context(), message(nil).Notification, []push.Device{evil(1000)})[0], push.Temporary, push.ReasonCredentials)
	if err := testutil.GatherAndCompare(reg, strings.NewReader("# HELP herald_push_app_refused 1 since the push service refused the app's credentials or settings, until it accepts a push.\n"+
		"# TYPE herald_push_app_refused gauge\nherald_push_app_refused{app=\"app\",provider=\"webpush\"} 0\n"), "herald_push_app_refused"); err != nil {
		t.Error(err)
	}
}

// Conformance (attacks): a hundred endpoints at a host of one's own that accept, and are then called dead | they count for no guard: an honest phone that is gone is still rejected, and the operator sleeps
func TestAHostOfAStrangersTripsNoGuard(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, func(r pushtest.WebPushRequest) pushtest.FCMAnswer {
		if strings.Contains(r.Text, "$dead") {
			return pushtest.FCMAnswer{Status: 410}
		}
		return pushtest.FCMAnswer{}
	})
	reg := prometheus.NewRegistry()
	gateway := newGateway(t, reg, health.New(health.Options{}), open(t, fake, nil))
	deliver := func(endpoint, id string) push.Outcome {
		n := message(nil).Notification
		n.EventID = push.NewText(id)
		return gateway.Deliver(t.Context(), n, []push.Device{*browser(fake, endpoint)})[0]
	}
	expect(t, deliver(mozilla, "$1:x"), push.Accepted, push.ReasonSent)
	evil := func(i int) string { return fmt.Sprintf("https://evil.example.org/%d", i) }
	for i := range 60 {
		deliver(evil(i), "$1:x")
		if i < 49 {
			deliver(evil(i), "$2:x")
		}
	}
	for i := range 60 {
		expect(t, deliver(evil(i), "$dead:x"), push.Rejected, push.ReasonUnregistered)
	}
	expect(t, deliver(evil(0), "$3:x"), push.Rejected, push.ReasonRemembered)
	expect(t, deliver(mozilla, "$dead:x"), push.Rejected, push.ReasonUnregistered)
	if err := testutil.GatherAndCompare(reg, strings.NewReader("# HELP herald_push_guard_tripped 1 while too many of the app's pushkeys are called dead to be believed.\n"+
		"# TYPE herald_push_guard_tripped gauge\nherald_push_guard_tripped{app=\"app\",provider=\"webpush\"} 0\n"), "herald_push_guard_tripped"); err != nil {
		t.Error(err)
	}
}

// Conformance (UnifiedPush): 404, 410; 401, 403, 405, 406; 400; 429, 507; 5xx; no connection | rejected; 502; dropped; 429; 502; 502 (also TestUnifiedPushContract)
func TestUnifiedPushHabits(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]struct {
		kind   push.Kind
		reason push.Reason
	}{
		200: {push.Accepted, push.ReasonSent}, 204: {push.Accepted, push.ReasonSent},
		400: {push.Dropped, push.ReasonBadMessage}, 401: {push.Temporary, push.ReasonConfig}, 403: {push.Temporary, push.ReasonConfig},
		404: {push.Temporary, push.ReasonConfig}, 405: {push.Temporary, push.ReasonConfig}, 406: {push.Temporary, push.ReasonConfig},
		410: {push.Rejected, push.ReasonUnregistered}, 413: {push.Dropped, push.ReasonTooLarge},
		429: {push.Temporary, push.ReasonRateLimited}, 507: {push.Temporary, push.ReasonRateLimited}, 502: {push.Temporary, push.ReasonUnavailable},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			fake := pushtest.StartWebPush(t, func(pushtest.WebPushRequest) pushtest.FCMAnswer { return pushtest.FCMAnswer{Status: status} })
			provider := openUnified(t, fake, webpush.Options{}, nil)
			out := provider.Send(t.Context(), message(&push.Device{AppID: "app", PushKey: "https://ntfy.example.org/upSecret"}))
			expect(t, out, want.kind, want.reason)
			if strings.Contains(fmt.Sprint(out.Err), "upSecret") {
				t.Errorf("the error shows the endpoint: %v", out.Err)
			}
		})
	}
}

// A proxy that lost its way answers 404 to all.
//
// Conformance (UnifiedPush): 404 of a push server that never took anything | believed the second time, an hour to a day later
func TestAPushServerThatNeverTookAnythingIsBelievedTheSecondTime(t *testing.T) {
	t.Parallel()
	status, now := 404, time.Now()
	fake := pushtest.StartWebPush(t, func(pushtest.WebPushRequest) pushtest.FCMAnswer { return pushtest.FCMAnswer{Status: status} })
	provider := openUnified(t, fake, webpush.Options{Now: func() time.Time { return now }}, nil)
	send := func(endpoint string) push.Outcome {
		return provider.Send(t.Context(), message(&push.Device{AppID: "app", PushKey: endpoint}))
	}
	expect(t, send("https://a.example.org/1"), push.Temporary, push.ReasonConfig)
	now = now.Add(time.Minute)
	expect(t, send("https://a.example.org/1"), push.Temporary, push.ReasonConfig)
	now = now.Add(time.Hour)
	expect(t, send("https://a.example.org/1"), push.Rejected, push.ReasonUnregistered)
	now = now.Add(25 * time.Hour)
	expect(t, send("https://a.example.org/1"), push.Temporary, push.ReasonConfig)
	status = 200
	expect(t, send("https://a.example.org/2"), push.Accepted, push.ReasonSent)
	status = 404
	expect(t, send("https://a.example.org/1"), push.Rejected, push.ReasonUnregistered)
}

// Conformance (UnifiedPush): the notification without its devices, as common-proxies relays it | plain, or encrypted where the pusher has keys; `devices: own` adds the device's entry (also TestUnifiedPushContract)
func TestUnifiedPushRelaysTheNotificationWithoutItsDevices(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartWebPush(t, nil)
	provider := openUnified(t, fake, webpush.Options{}, nil)
	plain := &push.Device{AppID: "app", PushKey: "https://ntfy.example.org/up?up=1", Data: map[string]any{"default_payload": "odd"}}
	want := `{"notification":{"content":{"body":"hallo","msgtype":"m.text"},"counts":{"unread":2},"event_id":"$e:x","prio":"high","room_id":"!r:x","room_name":"R","sender":"@a:x","type":"m.room.message"}}`
	expect(t, provider.Send(t.Context(), message(plain)), push.Accepted, push.ReasonSent)
	got := fake.Requests()[0]
	if string(got.Body) != want || got.Path != "/up?up=1" || got.Key != "" {
		t.Errorf("%s got %s, signed by %q", got.Path, got.Body, got.Key)
	}
	if ttl, urgency := got.Header.Get("Ttl"), got.Header.Get("Urgency"); ttl != "86400" || urgency != "high" {
		t.Errorf("TTL %s, urgency %s", ttl, urgency)
	}
	secret := &push.Device{AppID: "app", PushKey: mozilla, Data: map[string]any{"p256dh": fake.Subscription.PushKey(), "auth": fake.Subscription.Auth()}}
	expect(t, provider.Send(t.Context(), message(secret)), push.Accepted, push.ReasonSent)
	if got := fake.Requests()[1]; got.Text != want {
		t.Errorf("the phone decrypts %q", got.Text)
	}
	secret.Data["auth"] = "x"
	expect(t, provider.Send(t.Context(), message(secret)), push.Rejected, push.ReasonMalformedData)

	own := openUnified(t, fake, webpush.Options{}, func(c *webpush.UnifiedPush) { c.Devices = webpush.DevicesOwn })
	expect(t, own.Send(t.Context(), message(plain)), push.Accepted, push.ReasonSent)
	devices, _ := last(t, fake)["notification"].(map[string]any)["devices"].([]any)
	if text, _ := json.Marshal(devices); string(text) != `[{"app_id":"app","data":{"default_payload":"odd"},"pushkey":"https://ntfy.example.org/up?up=1"}]` {
		t.Errorf("the devices are %s", text)
	}
	for name, change := range map[string]func(push.Delivery){
		"a device that fits with ids alone": func(d push.Delivery) { d.Device.Data["x"] = strings.Repeat("x", 3700) },
		"members to pass on":                func(d push.Delivery) { d.Notification.Further = map[string]any{"x": strings.Repeat("x", 3900)} },
		"a device that fits into none": func(d push.Delivery) {
			d.Device.Data["x"], d.Notification.Further = strings.Repeat("x", 3900), map[string]any{"mac": "m"}
		},
	} {
		d := message(&push.Device{AppID: "app", PushKey: plain.PushKey, Data: map[string]any{}})
		change(d)
		expect(t, own.Send(t.Context(), d), push.Accepted, push.ReasonSent)
		got := last(t, fake)["notification"].(map[string]any)
		if whole := name == "a device that fits into none"; whole != (got["devices"] == nil) || whole && (got["content"] == nil || got["mac"] == nil) || got["event_id"] != "$e:x" {
			t.Errorf("%s: %v", name, got)
		}
	}
}
