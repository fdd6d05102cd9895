package fcm_test

import (
	"bytes"
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

type responseCase struct {
	answer pushtest.FCMAnswer
	want   push.Outcome
}

func responseCases(now time.Time) map[string]responseCase {
	fcmError, after := pushtest.FCMError, func(a pushtest.FCMAnswer, retryAfter string) pushtest.FCMAnswer {
		a.RetryAfter = retryAfter
		return a
	}
	temporary := func(status int, detail string, reason push.Reason, evidence push.Evidence, retryAfter time.Duration) push.Outcome {
		return push.Outcome{Kind: push.Temporary, Reason: reason, Evidence: evidence, Status: status, Detail: detail, RetryAfter: retryAfter}
	}
	unavailable := func(status int, detail string, retryAfter time.Duration) push.Outcome {
		return temporary(status, detail, push.ReasonUnavailable, push.EvidenceUnreachable, retryAfter)
	}
	works := func(kind push.Kind, status int, detail string, reason push.Reason) push.Outcome {
		return push.Outcome{Kind: kind, Reason: reason, Evidence: push.EvidenceWorks, Status: status, Detail: detail}
	}
	badArgument := func(message string) pushtest.FCMAnswer {
		return fcmError(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", message)
	}
	config := temporary(400, "INVALID_ARGUMENT", push.ReasonConfig, push.EvidenceWorks, 0)
	dropped := works(push.Dropped, 400, "INVALID_ARGUMENT", push.ReasonBadMessage)
	badToken := works(push.Rejected, 400, "INVALID_ARGUMENT", push.ReasonBadToken)
	away := fcmError(503, "UNAVAILABLE", "UNAVAILABLE", "The service is currently unavailable.")
	quota := fcmError(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "Quota exceeded.")
	projectQuota := pushtest.FCMAnswer{Status: 429, Body: `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED",
		"message":"Quota exceeded for quota metric 'Send requests' and limit 'Send requests per minute' of service 'fcm.googleapis.com'.",
		"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"RATE_LIMIT_EXCEEDED","domain":"googleapis.com",
		"metadata":{"quota_unit":"1/min/{project}","quota_limit":"SendsPerMinutePerProject"}},{"metadata":[]}]}}`}
	cases := map[string]responseCase{
		"200 is accepted":                     {pushtest.FCMAnswer{}, works(push.Accepted, 200, "", push.ReasonSent)},
		"200 without a name is no acceptance": {pushtest.FCMAnswer{Status: 200, Body: `{}`}, unavailable(200, "", 0)},
		"201 is no acceptance":                {pushtest.FCMAnswer{Status: 201, Body: `{"name":"x"}`}, unavailable(201, "", 0)},

		"404 UNREGISTERED is a dead token": {fcmError(404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found."),
			works(push.Rejected, 404, "UNREGISTERED", push.ReasonUnregistered)},
		// The text is that of UNREGISTERED too: a token cannot be ruled out.
		"404 of an unknown project says nothing about the others": {fcmError(404, "NOT_FOUND", "", "Requested entity was not found."),
			temporary(404, "NOT_FOUND", push.ReasonConfig, push.EvidenceNone, 0)},
		"UNREGISTERED needs the right status": {fcmError(500, "INTERNAL", "UNREGISTERED", "odd"), unavailable(500, "UNREGISTERED", 10*time.Second)},

		"400 that names the token in its text is a dead token":     {pushtest.FCMBadToken(), badToken},
		"400 that names the token's field is a dead token":         {pushtest.FCMBadField("message.token"), badToken},
		"400 that names the installation ID's field is a dead one": {pushtest.FCMBadField("message.fid"), badToken},
		"400 about the data drops the message":                     {pushtest.FCMBadField("message.data[0].value"), dropped},
		"400 about the size drops the message":                     {badArgument("Android message is too big"), dropped},
		"400 about a key drops the message":                        {badArgument("Invalid data payload key: from"), dropped},
		"400 that names nothing drops the message":                 {badArgument("Request contains an invalid argument."), dropped},
		"400 about another field is the app's settings":            {pushtest.FCMBadField("message.android.ttl"), config},
		"400 about a member it does not know is so too":            {pushtest.FCMBadField("message"), config},
		"400 about the package is so too":                          {badArgument("Invalid package name."), config},
		"400 about the token and the settings costs no pushkey":    {pushtest.FCMBadField("message.token", "message.webpush"), config},
		"400 FAILED_PRECONDITION is the project": {fcmError(400, "FAILED_PRECONDITION", "", "Precondition check failed."),
			temporary(400, "FAILED_PRECONDITION", push.ReasonConfig, push.EvidenceWorks, 0)},
		"413 drops the message": {fcmError(413, "INVALID_ARGUMENT", "", "Request payload size exceeds the limit."),
			works(push.Dropped, 413, "INVALID_ARGUMENT", push.ReasonTooLarge)},

		"403 SENDER_ID_MISMATCH is another project's token": {fcmError(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch"),
			works(push.Rejected, 403, "SENDER_ID_MISMATCH", push.ReasonSenderMismatch)},
		"403 that says so in words alone is so too": {fcmError(403, "PERMISSION_DENIED", "", "SenderId mismatch"),
			works(push.Rejected, 403, "SENDER_ID_MISMATCH", push.ReasonSenderMismatch)},
		"403 PERMISSION_DENIED is the account": {fcmError(403, "PERMISSION_DENIED", "", "Permission denied."),
			temporary(403, "PERMISSION_DENIED", push.ReasonCredentials, push.EvidenceRefused, 0)},
		"401 is the account": {fcmError(401, "UNAUTHENTICATED", "", "Request had invalid authentication credentials."),
			temporary(401, "UNAUTHENTICATED", push.ReasonCredentials, push.EvidenceRefused, 0)},
		"401 THIRD_PARTY_AUTH_ERROR is the project's APNs key": {fcmError(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", "Auth error from APNS or Web Push Service"),
			temporary(401, "THIRD_PARTY_AUTH_ERROR", push.ReasonThirdParty, push.EvidenceWorks, 0)},
		"THIRD_PARTY_AUTH_ERROR with another status is so too": {fcmError(400, "INVALID_ARGUMENT", "THIRD_PARTY_AUTH_ERROR", "Auth error"),
			temporary(400, "THIRD_PARTY_AUTH_ERROR", push.ReasonThirdParty, push.EvidenceWorks, 0)},

		"429 waits a minute, and may be about the device": {quota, temporary(429, "QUOTA_EXCEEDED", push.ReasonRateLimited, push.EvidenceThrottled, time.Minute)},
		"429 waits as long as it says":                    {after(quota, "7"), temporary(429, "QUOTA_EXCEEDED", push.ReasonRateLimited, push.EvidenceThrottled, 7*time.Second)},
		"429 of the project is for all its devices":       {projectQuota, temporary(429, "RESOURCE_EXHAUSTED", push.ReasonRateLimited, push.EvidenceQuota, time.Minute)},
		"500 waits ten seconds":                           {fcmError(500, "INTERNAL", "INTERNAL", "Internal error."), unavailable(500, "INTERNAL", 10*time.Second)},
		"503 waits ten seconds":                           {away, unavailable(503, "UNAVAILABLE", 10*time.Second)},
		"503 waits as long as it says":                    {after(away, "120"), unavailable(503, "UNAVAILABLE", 2*time.Minute)},
		"503 waits until the date":                        {after(away, now.Add(30*time.Second).UTC().Format(http.TimeFormat)), unavailable(503, "UNAVAILABLE", 30*time.Second)},
		"what FCM has never said is nobody's fault": {fcmError(409, "ABORTED", "", "Conflict."),
			temporary(409, "ABORTED", push.ReasonUnavailable, push.EvidenceNone, 0)},

		"a page that says when is honoured":  {pushtest.FCMAnswer{Status: 429, Body: "<html>", RetryAfter: "3"}, unavailable(429, "", 3*time.Second)},
		"an endless body is cut off":         {pushtest.FCMAnswer{Status: 500, Body: strings.Repeat("x", 1<<20)}, unavailable(500, "", 10*time.Second)},
		"a code that is a text is not shown": {fcmError(500, "line one; token=abc", "a b", ""), unavailable(500, "", 10*time.Second)},
	}
	for _, status := range []int{200, 302, 307, 400, 401, 403, 404, 405, 410, 413, 418} {
		cases[fmt.Sprintf("%d with a page is not FCM's", status)] = responseCase{
			pushtest.FCMAnswer{Status: status, Body: "<html>log in</html>", Location: "/elsewhere"}, unavailable(status, "", 0)}
	}
	for _, status := range []int{502, 503, 504} {
		cases[fmt.Sprintf("%d with nothing is not FCM's", status)] = responseCase{pushtest.FCMAnswer{Status: status}, unavailable(status, "", 10*time.Second)}
	}
	return cases
}

// Conformance (FCM): every status and errorCode of FCM; 404 is a dead token only with UNREGISTERED (≠ Sygnal: always); 503 and 429 are never answered 200 (≠ Sygnal: lost) (also FuzzResponse)
// Conformance (FCM): 400 about the token; about the data; about anything else, or FAILED_PRECONDITION | rejected; dropped; 502 `config`, an error in the log that names the member (also TestFaultsOfTheSettingsAreTold, TestTheFirstRefusalIsTold)
// Conformance (FCM): an answer that is not FCM's own JSON, of any status | unavailable
// Conformance (FCM): SENDER_ID_MISMATCH, THIRD_PARTY_AUTH_ERROR and what else a token or a message can cause | says nothing against FCM or the account, and drops no access token (also TestATokenThatFCMRefusesIsReplaced)
// Conformance (FCM): one attempt for each; the SDK's client, which repeats by itself, sends nothing (also TestContract)
func TestResponses(t *testing.T) {
	t.Parallel()
	// The clock stands still so that dates have a distance.
	now := time.Now().Truncate(time.Second)
	cases := responseCases(now)
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

func TestFaultsOfTheSettingsAreTold(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{Answer: func(pushtest.FCMRequest) pushtest.FCMAnswer {
		return pushtest.FCMBadField("message.android.ttl")
	}})
	got := open(t, fake).Send(t.Context(), message("token"))
	if want := "fcm answered 400 INVALID_ARGUMENT about message.android.ttl"; fmt.Sprint(got.Err) != want {
		t.Errorf("the error is %v, want %s", got.Err, want)
	}
}

// A message that FCM finds wrong is lost; if most are, it is hardly their fault.
//
// Conformance (FCM): 400 for most of an app's messages | 502 `config`, an error in the log
func TestMostMessagesRefusedIsAFaultOfTheSettings(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) (answer pushtest.FCMAnswer) {
		if strings.HasPrefix(r.Message.Token, "bad") {
			answer = pushtest.FCMError(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "Request contains an invalid argument.")
		}
		return answer
	}})
	provider := open(t, fake)
	send := func(times int, token string, kind push.Kind, reason push.Reason) {
		t.Helper()
		for range times {
			expect(t, provider.Send(t.Context(), message(token)), kind, reason)
		}
	}
	send(9, "bad", push.Dropped, push.ReasonBadMessage)
	send(1, "bad", push.Temporary, push.ReasonConfig)
	send(22, "good", push.Accepted, push.ReasonSent)
	send(4, "bad", push.Dropped, push.ReasonBadMessage)
}

// Conformance (FCM): pushkeys that are installation IDs (≠ Sygnal: sent as tokens) | `message.fid`, by form or as `target` says
func TestTargets(t *testing.T) {
	t.Parallel()
	const fid, token = "cRZd_8-Yq0WFk1cPl2mN3o", "cRZd_8-Yq0WFk1cPl2mN3o:APA91bH"
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool()})
	for name, c := range map[string]struct{ target, pushKey, wantToken, wantFID string }{
		"an installation ID":               {"", fid, "", fid},
		"a registration token":             {"auto", token, token, ""},
		"22 characters that begin with a":  {"auto", "a" + fid[1:], "a" + fid[1:], ""},
		"23 characters":                    {"auto", fid + "x", fid + "x", ""},
		"an installation ID as a token":    {"token", fid, fid, ""},
		"whatever as an installation ID":   {"fid", "whatever", "", "whatever"},
		"an installation ID with a space ": {"auto", " " + fid + "\n", "", fid},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configFor(fake)
			cfg.Target = c.target
			expect(t, openWith(t, connections, cfg).Send(t.Context(), message(c.pushKey)), push.Accepted, push.ReasonSent)
			requests := fake.Requests()
			if got := requests[len(requests)-1].Message; got.Token != c.wantToken || got.FID != c.wantFID {
				t.Errorf("token %q, fid %q", got.Token, got.FID)
			}
		})
	}
}

// Conformance (FCM): white space in a pushkey | left out
func TestMalformedPushKeysNeverReachFCM(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	provider := open(t, fake)
	for name, key := range map[string]string{
		"empty": "", "white space": " \r\n", "not ASCII": "tökën", "a control character": "a\x7f",
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
		"white space around it": " a\r\nb ", "512 bytes": strings.Repeat("a", 512), "a path": "../../x?y#z", "a usual one": "dQw4w9WgXcQ:APA91b-_~!",
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
	if !bytes.Contains(requests[0].Body, []byte(`"content_body":"a <secret> & text"`)) {
		t.Errorf("the message is %s", requests[0].Body)
	}
	if n := fake.TokenCount(); n != 1 {
		t.Errorf("two projects of one account needed %d tokens", n)
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
