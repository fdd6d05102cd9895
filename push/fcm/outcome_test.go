package fcm_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/fcm"
	"github.com/matrix-herald/herald/push/pushtest"
)

func answerCases(now time.Time) map[string]struct {
	answer pushtest.FCMAnswer
	want   push.Outcome
} {
	type row = struct {
		answer pushtest.FCMAnswer
		want   push.Outcome
	}
	fcmError, after := pushtest.FCMError, func(a pushtest.FCMAnswer, retryAfter string) pushtest.FCMAnswer {
		a.RetryAfter = retryAfter
		return a
	}
	temporary := func(status int, detail string, reason push.Reason, retryAfter time.Duration) push.Outcome {
		return push.Outcome{Kind: push.Temporary, Reason: reason, Status: status, Detail: detail, RetryAfter: retryAfter}
	}
	reaching := func(r push.Reach, out push.Outcome) push.Outcome {
		out.Reach = r
		return out
	}
	date := func(d time.Duration) string { return now.Add(d).UTC().Format(http.TimeFormat) }
	unavailable := fcmError(503, "UNAVAILABLE", "UNAVAILABLE", "The service is currently unavailable.")
	quota := fcmError(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "Quota exceeded.")
	projectQuota := pushtest.FCMAnswer{Status: 429, Body: `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED",
		"message":"Quota exceeded for quota metric 'Send requests' and limit 'Send requests per minute' of service 'fcm.googleapis.com'.",
		"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"RATE_LIMIT_EXCEEDED","domain":"googleapis.com",
		"metadata":{"quota_unit":"1/min/{project}","quota_limit":"SendsPerMinutePerProject"}},{"metadata":[]}]}}`}
	return map[string]row{
		"200 is accepted": {pushtest.FCMAnswer{}, push.Outcome{Kind: push.Accepted, Reason: push.ReasonSent, Status: 200}},
		"200 without a name is no acceptance": {pushtest.FCMAnswer{Status: 200, Body: `{}`},
			temporary(200, "", push.ReasonUnavailable, 0)},
		"200 with a page is no acceptance": {pushtest.FCMAnswer{Status: 200, Body: `<html>log in</html>`},
			temporary(200, "", push.ReasonUnavailable, 0)},

		"404 UNREGISTERED is a dead token": {fcmError(404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found."),
			push.Outcome{Kind: push.Rejected, Reason: push.ReasonUnregistered, Status: 404, Detail: "UNREGISTERED"}},
		"404 of an unknown project is ours": {fcmError(404, "NOT_FOUND", "", "Requested entity was not found."),
			temporary(404, "NOT_FOUND", push.ReasonConfig, 0)},
		"404 with a page is ours":             {pushtest.FCMAnswer{Status: 404, Body: "<html>"}, temporary(404, "", push.ReasonConfig, 0)},
		"UNREGISTERED needs the right status": {fcmError(500, "INTERNAL", "UNREGISTERED", "odd"), temporary(500, "UNREGISTERED", push.ReasonUnavailable, 10*time.Second)},

		"400 that names the token in its text is a dead token": {pushtest.FCMBadToken(),
			push.Outcome{Kind: push.Rejected, Reason: push.ReasonBadToken, Status: 400, Detail: "INVALID_ARGUMENT"}},
		"400 that names the token's field is a dead token": {pushtest.FCMBadField("message.token"),
			push.Outcome{Kind: push.Rejected, Reason: push.ReasonBadToken, Status: 400, Detail: "INVALID_ARGUMENT"}},
		"400 about another field drops the message": {pushtest.FCMBadField("message.data[0].value"),
			push.Outcome{Kind: push.Dropped, Reason: push.ReasonBadMessage, Status: 400, Detail: "INVALID_ARGUMENT"}},
		"400 without details drops the message": {fcmError(400, "INVALID_ARGUMENT", "", "Request contains an invalid argument."),
			push.Outcome{Kind: push.Dropped, Reason: push.ReasonBadMessage, Status: 400, Detail: "INVALID_ARGUMENT"}},
		"400 with a page is not FCM's": {pushtest.FCMAnswer{Status: 400, Body: "<html>"}, temporary(400, "", push.ReasonUnavailable, 0)},
		"413 drops the message": {pushtest.FCMAnswer{Status: 413, Body: "<html>"},
			push.Outcome{Kind: push.Dropped, Reason: push.ReasonTooLarge, Status: 413}},

		"403 SENDER_ID_MISMATCH is another project's token": {fcmError(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch"),
			push.Outcome{Kind: push.Rejected, Reason: push.ReasonSenderMismatch, Status: 403, Detail: "SENDER_ID_MISMATCH"}},
		"403 PERMISSION_DENIED is the account": {fcmError(403, "PERMISSION_DENIED", "", "Permission denied."),
			temporary(403, "PERMISSION_DENIED", push.ReasonCredentials, 0)},
		"401 is the account": {fcmError(401, "UNAUTHENTICATED", "", "Request had invalid authentication credentials."),
			temporary(401, "UNAUTHENTICATED", push.ReasonCredentials, 0)},
		"401 THIRD_PARTY_AUTH_ERROR is the project's APNs key": {fcmError(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", "Auth error from APNS or Web Push Service"),
			temporary(401, "THIRD_PARTY_AUTH_ERROR", push.ReasonThirdParty, 0)},
		"THIRD_PARTY_AUTH_ERROR with another status is so too": {fcmError(400, "INVALID_ARGUMENT", "THIRD_PARTY_AUTH_ERROR", "Auth error"),
			temporary(400, "THIRD_PARTY_AUTH_ERROR", push.ReasonThirdParty, 0)},

		"429 waits a minute, and may be about the device": {quota,
			reaching(push.ReachUnclear, temporary(429, "QUOTA_EXCEEDED", push.ReasonRateLimited, time.Minute))},
		"429 waits as long as it says": {after(quota, "7"),
			reaching(push.ReachUnclear, temporary(429, "QUOTA_EXCEEDED", push.ReasonRateLimited, 7*time.Second))},
		"429 of the project is for all its devices": {projectQuota,
			reaching(push.ReachQuota, temporary(429, "RESOURCE_EXHAUSTED", push.ReasonRateLimited, time.Minute))},
		"500 waits ten seconds":           {fcmError(500, "INTERNAL", "INTERNAL", "Internal error."), temporary(500, "INTERNAL", push.ReasonUnavailable, 10*time.Second)},
		"503 waits ten seconds":           {unavailable, temporary(503, "UNAVAILABLE", push.ReasonUnavailable, 10*time.Second)},
		"503 waits as long as it says":    {after(unavailable, "120"), reaching(push.ReachQuota, temporary(503, "UNAVAILABLE", push.ReasonUnavailable, 2*time.Minute))},
		"503 waits until the date":        {after(unavailable, date(30*time.Second)), reaching(push.ReachQuota, temporary(503, "UNAVAILABLE", push.ReasonUnavailable, 30*time.Second))},
		"a date in the past says nothing": {after(unavailable, date(-time.Hour)), temporary(503, "UNAVAILABLE", push.ReasonUnavailable, 10*time.Second)},
		"an endless wait is an hour":      {after(unavailable, "9223372036854775807"), reaching(push.ReachQuota, temporary(503, "UNAVAILABLE", push.ReasonUnavailable, time.Hour))},
		"a far date is an hour":           {after(unavailable, date(365*24*time.Hour)), reaching(push.ReachQuota, temporary(503, "UNAVAILABLE", push.ReasonUnavailable, time.Hour))},
		"a negative wait says nothing":    {after(unavailable, "-5"), temporary(503, "UNAVAILABLE", push.ReasonUnavailable, 10*time.Second)},
		"a wait that is no time is none":  {after(unavailable, "soon"), temporary(503, "UNAVAILABLE", push.ReasonUnavailable, 10*time.Second)},
		"502 with a page":                 {pushtest.FCMAnswer{Status: 502, Body: "<html>"}, temporary(502, "", push.ReasonUnavailable, 10*time.Second)},
		"504 with nothing":                {pushtest.FCMAnswer{Status: 504}, temporary(504, "", push.ReasonUnavailable, 10*time.Second)},

		"302 is not followed":            {pushtest.FCMAnswer{Status: 302, Location: "/elsewhere"}, temporary(302, "", push.ReasonUnavailable, 0)},
		"307 is not followed":            {pushtest.FCMAnswer{Status: 307, Location: "/elsewhere"}, temporary(307, "", push.ReasonUnavailable, 0)},
		"418 is nobody's fault":          {pushtest.FCMAnswer{Status: 418, Body: "I'm a teapot"}, temporary(418, "", push.ReasonUnavailable, 0)},
		"418 that says when is honoured": {pushtest.FCMAnswer{Status: 418, RetryAfter: "3"}, reaching(push.ReachUnclear, temporary(418, "", push.ReasonUnavailable, 3*time.Second))},
		"503 of a proxy may be its own": {pushtest.FCMAnswer{Status: 503, Body: "<html>", RetryAfter: "3"},
			reaching(push.ReachUnclear, temporary(503, "", push.ReasonUnavailable, 3*time.Second))},
		"201 is no acceptance":       {pushtest.FCMAnswer{Status: 201, Body: `{"name":"x"}`}, temporary(201, "", push.ReasonUnavailable, 0)},
		"an endless body is cut off": {pushtest.FCMAnswer{Status: 500, Body: strings.Repeat("x", 1<<20)}, temporary(500, "", push.ReasonUnavailable, 10*time.Second)},
		"a code that is a text is not shown": {fcmError(500, "line one; token=abc", "a b", ""),
			temporary(500, "", push.ReasonUnavailable, 10*time.Second)},
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	// The clock stands still so that dates have a distance.
	now := time.Now().Truncate(time.Second)
	cases := answerCases(now)
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
		return cases[caseOf(r.Message.Token)].answer
	}})
	connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool(), Now: func() time.Time { return now }})
	provider := openWith(t, connections, configFor(fake))
	sent := 0
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := message(tokenOf(name))
			got := provider.Send(t.Context(), d)
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(push.Outcome{}, "Err")); diff != "" {
				t.Errorf("the outcome differs (-want +got):\n%s", diff)
			}
			if (got.Err != nil) != (got.Kind == push.Temporary) {
				t.Errorf("the error is %v", got.Err)
			}
			if text := fmt.Sprint(got.Err, got.Detail); strings.Contains(text, d.Device.PushKey) || strings.Contains(text, "secret") {
				t.Errorf("the outcome tells too much: %s", text)
			}
			sent++
			if n := fake.Count(); n != sent {
				t.Errorf("FCM got %d messages instead of one", n-sent+1)
				sent = n
			}
		})
	}
}

// A pushkey has no spaces, a case's name has.
func tokenOf(name string) string { return strings.ReplaceAll(name, " ", "+") }
func caseOf(token string) string { return strings.ReplaceAll(token, "+", " ") }

func TestSenderMismatchCanBeAFaultOfTheConfiguration(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{Answer: func(pushtest.FCMRequest) pushtest.FCMAnswer {
		return pushtest.FCMError(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch")
	}})
	cfg := configFor(fake)
	cfg.RejectSenderMismatch = new(bool)
	provider := openWith(t, connect(t, fcm.Options{RootCAs: fake.CA().Pool()}), cfg)
	got := provider.Send(t.Context(), message("token"))
	if got.Kind != push.Temporary || got.Reason != push.ReasonConfig {
		t.Errorf("got %s (%s)", got.Kind, got.Reason)
	}
}

func TestMalformedPushKeysNeverReachFCM(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	provider := open(t, fake)
	for name, key := range map[string]string{
		"empty": "", "a space": "a b", "a line break": "a\nb", "not ASCII": "tökën", "a control character": "a\x7f",
		"513 bytes": strings.Repeat("a", 513), "not UTF-8": "a\xff",
	} {
		if got := provider.Send(t.Context(), message(key)); got.Kind != push.Rejected || got.Reason != push.ReasonMalformedPushKey {
			t.Errorf("%s: got %s (%s)", name, got.Kind, got.Reason)
		}
	}
	if n := fake.Count(); n != 0 {
		t.Fatalf("FCM got %d messages", n)
	}
	for name, key := range map[string]string{
		"512 bytes": strings.Repeat("a", 512), "a path": "../../x?y#z", "a usual one": "dQw4w9WgXcQ:APA91b-_~!",
	} {
		if got := provider.Send(t.Context(), message(key)); got.Reason != push.ReasonSent {
			t.Errorf("%s: got %s (%s)", name, got.Kind, got.Reason)
		}
	}
}

func TestRequestsAreWhatFCMExpects(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool()})
	cfg := configFor(fake)
	cfg.ProjectID = "other-project"
	if got := openWith(t, connections, cfg).Send(t.Context(), message("token")); got.Reason != push.ReasonSent {
		t.Fatalf("got %s (%s) %v", got.Kind, got.Reason, got.Err)
	}
	if got := openWith(t, connections, configFor(fake)).Send(t.Context(), message("token")); got.Reason != push.ReasonSent {
		t.Fatalf("got %s (%s) %v", got.Kind, got.Reason, got.Err)
	}
	requests := fake.Requests()
	if got := []string{requests[0].Project, requests[1].Project}; !cmp.Equal(got, []string{"other-project", "demo"}) {
		t.Errorf("the projects are %q", got)
	}
	if got := requests[0].Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("the content type is %q", got)
	}
	// Without this header FCM leaves its error codes out.
	if got := requests[0].Header.Get("X-Goog-Api-Format-Version"); got != "2" {
		t.Errorf("the format version is %q", got)
	}
	if n := fake.TokenCount(); n != 1 {
		t.Errorf("two projects of one account needed %d tokens", n)
	}
}

func TestTheSDKDoesNotRetry(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]pushtest.FCMAnswer{
		"503":                      {Status: 503},
		"503 with a Retry-After":   {Status: 503, RetryAfter: "1"},
		"500":                      {Status: 500},
		"429":                      {Status: 429, RetryAfter: "1"},
		"404":                      {Status: 404},
		"a connection that is cut": {Cut: true},
		"a bare 302":               {Status: 302},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := pushtest.StartFCM(t, pushtest.FCMOptions{Answer: func(pushtest.FCMRequest) pushtest.FCMAnswer { return answer }})
			provider := open(t, fake)
			if got := provider.Send(t.Context(), message("token")); got.Kind != push.Temporary {
				t.Errorf("got %s (%s)", got.Kind, got.Reason)
			}
			if n := fake.Count(); n != 1 {
				t.Errorf("FCM got %d messages", n)
			}
		})
	}
}

func TestContract(t *testing.T) {
	t.Parallel()
	device := push.Device{AppID: "com.example.app", PushKey: "dQw4w9WgXcQ:APA91b"}
	pushtest.TestProvider(t, device, func(t *testing.T, b pushtest.Behaviour) (push.Provider, pushtest.Peer) {
		answers := map[pushtest.Behaviour]pushtest.FCMAnswer{
			pushtest.Hang:    {Hang: true},
			pushtest.Cut:     {Cut: true},
			pushtest.Garbage: {Status: http.StatusBadGateway, Body: "<html>Bad Gateway</html>"},
		}
		fake := pushtest.StartFCM(t, pushtest.FCMOptions{Answer: func(pushtest.FCMRequest) pushtest.FCMAnswer { return answers[b] }})
		provider := open(t, fake)
		if b == pushtest.Refuse {
			fake.Close()
		}
		return provider, fake
	})
}
