package hms_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/hms"
	"github.com/matrix-herald/herald/push/pushtest"
)

// Conformance (Huawei): one attempt, its outcome and what a cut or slow connection means | as for every push service (also TestTroubleOnTheWayLosesNothingAndDoublesNothing)
func TestProviderContract(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]func(*pushtest.HMS) hms.Config{"HarmonyOS": harmonyOS, "Android": android} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pushtest.TestProvider(t, push.Device{AppID: "com.example.app", PushKey: token}, func(t *testing.T, b pushtest.Behaviour) (push.Provider, pushtest.Peer) {
				fake, opts := pushtest.StartHMS(t, pushtest.HMSBehaving(b)), hms.Options{}
				if b == pushtest.Refuse { // messages, and no access token
					opts.Wrap = elsewhere(pushtest.RefusedAddr(t))
				}
				provider := openWith(t, connect(t, fake, opts), cfg(fake))
				return provider, fake
			})
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// elsewhere has messages go to another address.
func elsewhere(addr string) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.URL.Host = addr
			return next.RoundTrip(r)
		})
	}
}

func TestTroubleOnTheWayLosesNothingAndDoublesNothing(t *testing.T) {
	t.Parallel()
	pushtest.TestTrouble(t, func(t *testing.T, trouble pushtest.Trouble, d *pushtest.Troubled) (push.Provider, pushtest.TroubledPeer) {
		fake := pushtest.StartHMS(t, func(r pushtest.HMSRequest) pushtest.FCMAnswer {
			if !d.Meets(r.Token) {
				return pushtest.FCMAnswer{}
			}
			return pushtest.FCMAnswer{GoAway: trouble == pushtest.GoAway, Cut: trouble == pushtest.Drops, Hang: trouble == pushtest.Hanging}
		})
		return open(t, fake, harmonyOS(fake)), fake
	}, nil)
}

// answerCase is what Huawei answers to an app's message, and what that means.
type answerCase struct {
	answer   pushtest.FCMAnswer
	kind     push.Kind
	reason   push.Reason
	evidence push.Evidence
	detail   string
	retry    time.Duration
}

func code(code string) pushtest.FCMAnswer { return pushtest.HMSCode(code, "words of "+token) }

const tooLarge = "80300008"

func with(a pushtest.FCMAnswer, status int, retryAfter string) pushtest.FCMAnswer {
	a.Status, a.RetryAfter = status, retryAfter
	return a
}

func config(a pushtest.FCMAnswer, detail string) answerCase {
	return answerCase{a, push.Temporary, push.ReasonConfig, push.EvidenceWorks, detail, 0}
}

// TestAnswers: nothing that a token or a message can cause is evidence against Huawei
// or the project.
//
// Conformance (Huawei): 80300007, and 80100000 that lists the token, v1 and v2; v3 with tokenFormatError or tokenPlatformNotSupport | rejected
// Conformance (Huawei): v3's other reasons (noRight, noPushTypeRight, …), rights, reviews and penalties | 502; nobody else's pushes wait
// Conformance (Huawei): access tokens that have expired, 401 | 502, and again with a new one (also TestAnAccessTokenThatIsRefusedIsRenewed)
// Conformance (Huawei): 80200001, which a token of another system causes too | 502; nobody else's pushes wait
// Conformance (Huawei): a message that Huawei calls wrong or sensitive | dropped, 200; 502 where most of an app's are wrong (also TestMessagesThatAreAllWrongAreTheConfiguration)
// Conformance (Huawei): 503 and 429, and 503 without a body | 429; all wait where Huawei says for how long
// Conformance (Huawei): 200 without success's code, pages of others of any status, 5xx | 502
func TestAnswers(t *testing.T) {
	t.Parallel()
	illegal := func(reason string) pushtest.FCMAnswer { return pushtest.HMSIllegal("80300007", reason, token) }
	unavailable := func(a pushtest.FCMAnswer, detail string, retry time.Duration) answerCase {
		return answerCase{a, push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable, detail, retry}
	}
	limited := func(a pushtest.FCMAnswer, evidence push.Evidence, detail string, retry time.Duration) answerCase {
		return answerCase{a, push.Temporary, push.ReasonRateLimited, evidence, detail, retry}
	}
	refused := func(a pushtest.FCMAnswer, evidence push.Evidence, detail string) answerCase {
		return answerCase{a, push.Temporary, push.ReasonCredentials, evidence, detail, 0}
	}
	works := func(a pushtest.FCMAnswer, kind push.Kind, reason push.Reason, detail string) answerCase {
		return answerCase{a, kind, reason, push.EvidenceWorks, detail, 0}
	}
	page := pushtest.FCMAnswer{Body: "<html>" + token}
	both := map[string]answerCase{
		"success":               works(code("80000000"), push.Accepted, push.ReasonSent, ""),
		"success of status 500": unavailable(with(code("80000000"), 500, ""), "", 0),

		"wrong parameters":  works(with(code("80100001"), 400, ""), push.Dropped, push.ReasonBadMessage, "80100001"),
		"wrong structure":   works(code("80100003"), push.Dropped, push.ReasonBadMessage, "80100003"),
		"sensitive content": works(code("80100016"), push.Dropped, push.ReasonBadMessage, "80100016"),
		"too large":         works(code(tooLarge), push.Dropped, push.ReasonTooLarge, "80300008"),

		"authentication":            refused(code("80200001"), push.EvidenceNone, "80200001"),
		"an expired OAuth token":    refused(code("80200003"), push.EvidenceRefused, "80200003"),
		"an expired JWT":            refused(with(code("80200005"), 401, ""), push.EvidenceRefused, "80200005"),
		"a JWT that lives too long": refused(code("80300036"), push.EvidenceRefused, "80300036"),
		"OAuth failed":              refused(code("80600003"), push.EvidenceRefused, "80600003"),
		"401 of somebody else's":    unavailable(with(page, 401, ""), "", 0),

		"no permission":      config(code("80300002"), "80300002"),
		"a penalty":          config(code("80300037"), "80300037"),
		"under review":       config(code("80100018"), "80100018"),
		"a wrong ttl":        config(code("80100004"), "80100004"),
		"404 of Huawei's":    config(with(code("80999999"), 404, ""), "80999999"),
		"an unknown code":    {code("80999999"), push.Temporary, push.ReasonUnavailable, push.EvidenceNone, "80999999", 0},
		"an unknown failure": unavailable(with(code("80999999"), 502, ""), "80999999", 0),

		"an inner error":         unavailable(code("81000001"), "81000001", 0),
		"500":                    unavailable(with(code("81000001"), 500, "20"), "81000001", 20*time.Second),
		"200 without a code":     unavailable(with(pushtest.FCMAnswer{Body: "{}"}, 200, ""), "", 0),
		"a code that is none":    unavailable(code("token"), "", 0),
		"a page of a proxy":      unavailable(with(page, 200, ""), "", 0),
		"404 of somebody else's": unavailable(with(page, 404, ""), "", 0),

		"flow control":                  limited(with(code("80300099"), 503, ""), push.EvidenceThrottled, "80300099", time.Minute),
		"flow control without words":    limited(with(pushtest.FCMAnswer{Body: "\n"}, 503, "5"), push.EvidenceThrottled, "", 5*time.Second),
		"503 of somebody else's":        unavailable(with(page, 503, "5"), "", 5*time.Second),
		"429 of somebody else's":        unavailable(with(page, 429, ""), "", 0),
		"flow control for a time":       limited(with(code("80300099"), 503, "7"), push.EvidenceQuota, "80300099", 7*time.Second),
		"too many":                      limited(with(code("80300099"), 429, ""), push.EvidenceThrottled, "80300099", time.Minute),
		"success that is flow control?": limited(with(code("80000000"), 503, ""), push.EvidenceThrottled, "", time.Minute),
	}
	rejected := func(a pushtest.FCMAnswer, detail string) answerCase {
		return works(a, push.Rejected, push.ReasonBadToken, detail)
	}
	v1 := map[string]answerCase{
		"a bad token":               rejected(code("80300007"), "80300007"),
		"a bad token among one":     rejected(pushtest.HMSCode("80100000", `{"success":0,"failure":1,"illegal_tokens":["`+token+`"]}`), "80100000"),
		"another's fault":           config(pushtest.HMSCode("80100000", `{"success":0,"failure":1,"illegal_tokens":[]}`), "80100000"),
		"a fault without a list":    config(code("80100000"), "80100000"),
		"a bad token of status 400": rejected(with(code("80300007"), 400, ""), "80300007"),
	}
	v3 := map[string]answerCase{
		"a token of no form":               rejected(illegal("tokenFormatError"), "80300007 tokenFormatError"),
		"a token of another system":        rejected(illegal("tokenPlatformNotSupport"), "80300007 tokenPlatformNotSupport"),
		"a token of no form among one":     rejected(pushtest.HMSIllegal("80100000", "tokenFormatError", token), "80100000 tokenFormatError"),
		"another project's token":          config(illegal("noRight"), "80300007 noRight"),
		"no right to such messages":        config(illegal("noPushTypeRight"), "80300007 noPushTypeRight"),
		"a penalty because of the token":   config(illegal("disableSendHuaweiMsgBecauseOfPenalty"), "80300007 disableSendHuaweiMsgBecauseOfPenalty"),
		"a bad token without a reason":     config(code("80300007"), "80300007"),
		"a reason that is not a word":      config(illegal(token), "80300007"),
		"no right to urgent messages (v3)": config(code("80300011"), "80300011"),
	}
	for name, app := range map[string]struct {
		config func(*pushtest.HMS) hms.Config
		cases  map[string]answerCase
	}{"Android": {android, v1}, "HarmonyOS": {harmonyOS, v3}} {
		for _, cases := range []map[string]answerCase{both, app.cases} {
			for kind, c := range cases {
				t.Run(name+": "+kind, func(t *testing.T) {
					t.Parallel()
					fake := pushtest.StartHMS(t, func(pushtest.HMSRequest) pushtest.FCMAnswer { return c.answer })
					c.check(t, open(t, fake, app.config(fake)).Send(t.Context(), message()))
				})
			}
		}
	}
}

func (c answerCase) check(t *testing.T, out push.Outcome) {
	t.Helper()
	expect(t, out, c.kind, c.reason, c.evidence)
	status := c.answer.Status
	if status == 0 {
		status = http.StatusOK
	}
	if out.Status != status || out.Detail != c.detail || out.RetryAfter != c.retry {
		t.Errorf("status %d, detail %q, retry after %v; want %d, %q, %v", out.Status, out.Detail, out.RetryAfter, status, c.detail, c.retry)
	}
	if strings.Contains(fmt.Sprint(out.Err), token) {
		t.Errorf("the error shows the token: %v", out.Err)
	}
	if (out.Kind == push.Temporary) != (out.Err != nil) {
		t.Errorf("the error is %v", out.Err)
	}
}

// Conformance (Huawei): an app without the right to urgent messages (80300011) | sent again as a normal one, and the log says so
func TestWithoutTheRightMessagesAreNotUrgent(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartHMS(t, func(r pushtest.HMSRequest) pushtest.FCMAnswer {
		if r.Message.Message.Android.Urgency == "HIGH" {
			return code("80300011")
		}
		return pushtest.FCMAnswer{}
	})
	var log bytes.Buffer
	provider := openWith(t, connect(t, fake, hms.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}), android(fake))
	for range 3 {
		expect(t, provider.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	}
	if fake.Count() != 4 {
		t.Errorf("%d messages for three, want one that was refused besides", fake.Count())
	}
	if strings.Count(log.String(), "no right to urgent messages") != 1 {
		t.Errorf("the log: %s", log.String())
	}
}

// Conformance (Huawei): a message that is too large (80300008) | sent again with the event's ids alone, then dropped, 200
func TestAMessageThatIsTooLargeGoesOutWithIDsAlone(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]func(*pushtest.HMS) hms.Config{"HarmonyOS": harmonyOS, "Android": android} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var first atomic.Bool
			fake := pushtest.StartHMS(t, func(pushtest.HMSRequest) pushtest.FCMAnswer {
				if first.CompareAndSwap(false, true) {
					return code(tooLarge)
				}
				return pushtest.FCMAnswer{}
			})
			d := message()
			d.Common = new(push.Common)
			d.Device.Data = map[string]any{"default_payload": map[string]any{"cs": "secret"}}
			d.Notification.Further = map[string]any{"x": "y"}
			expect(t, open(t, fake, cfg(fake)).Send(t.Context(), d), push.Accepted, push.ReasonSent, push.EvidenceWorks)
			r := sent(t, fake)
			var data map[string]string
			if shown := r.Message.Payload; shown != nil {
				data = shown.Notification.ClickAction.Data
				if n := shown.Notification; n.Title != "Matrix" || n.Body != "New message" {
					t.Errorf("shown: %q, %q", n.Title, n.Body)
				}
			} else {
				data = dataOf(t, r)
			}
			// Apps find the account by what is the pusher's own.
			if want := map[string]string{"cs": "secret", "event_id": "$e:x", "room_id": "!r:x", "prio": "high", "unread": "2"}; !maps.Equal(data, want) {
				t.Errorf("arrived: %v", data)
			}
		})
	}
}

func TestMessagesThatAreAllWrongAreTheConfiguration(t *testing.T) {
	t.Parallel()
	var good atomic.Bool
	fake := pushtest.StartHMS(t, func(pushtest.HMSRequest) pushtest.FCMAnswer {
		if good.Load() {
			return pushtest.FCMAnswer{}
		}
		return code("80100003")
	})
	provider := open(t, fake, harmonyOS(fake))
	for range 9 {
		expect(t, provider.Send(t.Context(), message()), push.Dropped, push.ReasonBadMessage, push.EvidenceWorks)
	}
	expect(t, provider.Send(t.Context(), message()), push.Temporary, push.ReasonConfig, push.EvidenceWorks)
	good.Store(true)
	for range 12 {
		expect(t, provider.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	}
	good.Store(false)
	expect(t, provider.Send(t.Context(), message()), push.Dropped, push.ReasonBadMessage, push.EvidenceWorks)
}

// TestHostileAnswers: whoever sits in Huawei's place costs neither memory nor time.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	body := "{"
	fake := pushtest.StartHMS(t, func(pushtest.HMSRequest) pushtest.FCMAnswer { return pushtest.FCMAnswer{Body: body} })
	provider := open(t, fake, harmonyOS(fake))
	for _, body = range []string{
		`{"code":"80000000","x":"` + strings.Repeat("x", 4<<20) + `"}`, // more than is read
		strings.Repeat("[", 60<<10), `{"code":"80000000 80300007"}`, `{"code":["80000000"]}`, "\x00\xff",
	} {
		expect(t, provider.Send(t.Context(), message()), push.Temporary, push.ReasonUnavailable, push.EvidenceUnreachable)
	}
	body = `{"code":"80300007","msg":"{\"illegalTokens\":{\"` + strings.Repeat("x", 1000) + `\":[],\"a b\":[]}}"}`
	if out := provider.Send(t.Context(), message()); out.Kind != push.Temporary || out.Detail != "80300007" {
		t.Errorf("got %+v", out)
	}
}

// TestAppsOfACredentialShareItsTokens, across reloads, and what is closed sends nothing.
func TestAppsOfACredentialShareItsTokens(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartHMS(t, nil)
	connections := connect(t, fake, hms.Options{})
	before := openWith(t, connections, android(fake))
	expect(t, before.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	after := openWith(t, connections, android(fake))
	before.Close()
	before.Close()
	expect(t, after.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	if fake.TokenCount() != 1 {
		t.Errorf("%d requests for an access token", fake.TokenCount())
	}
	connections.Close()
	expect(t, after.Send(t.Context(), message()), push.Temporary, push.ReasonConnection, push.EvidenceNone)
	if _, err := connections.Open("late", android(fake)); err == nil {
		t.Error("an app is opened after the end")
	}
}

// TestEachProjectIsADestinationOfItsOwn: what is wrong with one holds nothing of the
// other back.
func TestEachProjectIsADestinationOfItsOwn(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartHMS(t, nil)
	connections := connect(t, fake, hms.Options{})
	one := harmonyOS(fake)
	two := one
	two.ServiceAccount = conf.Secret(fake.ServiceAccountOf(pushtest.HMSOtherProject, "key-of-two"))
	wrong := one
	wrong.ProjectID = pushtest.HMSOtherProject // with the account of the first
	d, destinations := message(), make(map[string]bool)
	for _, app := range []struct {
		cfg     hms.Config
		project string
		reason  push.Reason
	}{{one, pushtest.HMSProject, push.ReasonSent}, {two, pushtest.HMSOtherProject, push.ReasonSent}, {wrong, pushtest.HMSOtherProject, push.ReasonCredentials}} {
		provider := openWith(t, connections, app.cfg)
		if out := provider.Send(t.Context(), d); out.Reason != app.reason {
			t.Errorf("project %s: %+v", app.project, out)
		}
		if got := sent(t, fake).ID; got != app.project {
			t.Errorf("sent to project %s, want %s", got, app.project)
		}
		destinations[provider.Destination(d.Device)] = true
	}
	if len(destinations) != 2 {
		t.Errorf("%d destinations for two projects", len(destinations))
	}
}
