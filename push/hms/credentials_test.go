package hms_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/hms"
	"github.com/matrix-herald/herald/push/pushtest"
)

// clock is a time that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Conformance (Huawei): v3 with a service account's own token (PS256), v1 and v2 with an OAuth client's
func TestEachInterfaceHasItsCredentials(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartHMS(t, nil)
	connections := connect(t, fake, hms.Options{})
	project := android(fake)
	project.ProjectID = pushtest.HMSProject
	for version, cfg := range map[string]hms.Config{"v1": android(fake), "v2": project, "v3": harmonyOS(fake)} {
		before := fake.TokenCount()
		provider := openWith(t, connections, cfg)
		for range 3 {
			expect(t, provider.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
		}
		if r := sent(t, fake); r.Version != version {
			t.Errorf("the message went to %s %s, want %s", r.Version, r.ID, version)
		}
		if asked := fake.TokenCount() - before; asked != map[string]int{"v1": 1, "v2": 1, "v3": 0}[version] {
			t.Errorf("%s: %d requests for an access token", version, asked)
		}
	}
}

func TestAnAccessTokenThatIsRefusedIsRenewed(t *testing.T) {
	t.Parallel()
	fake, now := pushtest.StartHMS(t, nil), newClock()
	fake.SetClock(now.Now)
	connections := connect(t, fake, hms.Options{Now: now.Now})
	for name, cfg := range map[string]hms.Config{"OAuth": android(fake), "JWT": harmonyOS(fake)} {
		provider := openWith(t, connections, cfg)
		expect(t, provider.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
		fake.Revoke()
		fake.SetClock(func() time.Time { return now.Now().Add(2 * time.Hour) }) // Huawei's jumps, and ends all tokens
		out := provider.Send(t.Context(), message())
		expect(t, out, push.Temporary, push.ReasonCredentials, push.EvidenceRefused)
		if out.Unprocessed {
			t.Errorf("%s: a token that is as new as this is asked for again", name)
		}
		now.Add(2 * time.Minute)
		out = provider.Send(t.Context(), message())
		expect(t, out, push.Temporary, push.ReasonCredentials, push.EvidenceRefused)
		if !out.Unprocessed || out.RetryAfter != 0 {
			t.Errorf("%s: the gateway does not try again with another token: %+v", name, out)
		}
		fake.SetClock(now.Now)
		expect(t, provider.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	}
}

// TestATokenOfAnotherSystemEndsNoAccessToken: anybody can have pushes sent to a token
// that an older interface does not know, and is answered that the access token is wrong.
func TestATokenOfAnotherSystemEndsNoAccessToken(t *testing.T) {
	t.Parallel()
	now := newClock()
	fake := pushtest.StartHMS(t, func(r pushtest.HMSRequest) pushtest.FCMAnswer {
		if r.Token == "odd" {
			return code("80200001")
		}
		return pushtest.FCMAnswer{}
	})
	provider := openWith(t, connect(t, fake, hms.Options{Now: now.Now, TokenRetry: time.Hour}), android(fake))
	expect(t, provider.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	fake.OnToken(func() pushtest.FCMAnswer { return pushtest.FCMAnswer{Status: 503} })
	odd := message()
	odd.Device.PushKey = "odd"
	for range 20 {
		now.Add(2 * time.Minute)
		expect(t, provider.Send(t.Context(), odd), push.Temporary, push.ReasonCredentials, push.EvidenceNone)
		expect(t, provider.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	}
}

// Conformance (Huawei): Huawei refuses the OAuth client | 502; the log says why and shows no secret
func TestWithoutAnAccessToken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		secret   string
		answer   pushtest.FCMAnswer
		reason   push.Reason
		evidence push.Evidence
		says     string
	}{
		"a wrong secret": {"wrong-client-secret", pushtest.FCMAnswer{}, push.ReasonCredentials, push.EvidenceRefused, "400 1101/20171"},
		"flow control":   {pushtest.HMSSecret, pushtest.FCMAnswer{Status: 503, Body: `{"error":1101}`}, push.ReasonUnavailable, push.EvidenceUnreachable, "503"},
		"too many":       {pushtest.HMSSecret, pushtest.FCMAnswer{Status: 429, Body: `{"error":1101}`}, push.ReasonUnavailable, push.EvidenceUnreachable, "429"},
		"a page":         {pushtest.HMSSecret, pushtest.FCMAnswer{Status: 403, Body: "<html>secret-of-a-page"}, push.ReasonUnavailable, push.EvidenceUnreachable, "403"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := pushtest.StartHMS(t, nil)
			fake.OnToken(func() pushtest.FCMAnswer { return c.answer })
			var log bytes.Buffer
			cfg := android(fake)
			cfg.ClientSecret = conf.Secret(c.secret)
			opts := hms.Options{Log: slog.New(slog.NewTextHandler(&log, nil)), TokenRetry: time.Minute}
			provider := openWith(t, connect(t, fake, opts), cfg)
			out := provider.Send(t.Context(), message())
			expect(t, out, push.Temporary, c.reason, c.evidence)
			if out.RetryAfter <= 0 || !strings.Contains(fmt.Sprint(out.Err), c.says) {
				t.Errorf("retry after %v: %v", out.RetryAfter, out.Err)
			}
			if fake.Count() > 0 || fake.TokenCount() != 1 {
				t.Errorf("%d messages and %d requests for a token", fake.Count(), fake.TokenCount())
			}
			provider.Close()
			if text := log.String() + fmt.Sprint(out.Err); !strings.Contains(text, "no access token from") || strings.Contains(text, "secret") {
				t.Errorf("the log: %s", text)
			}
		})
	}
}

func TestAWrongClockIsNamed(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartHMS(t, nil)
	slow := func() time.Time { return time.Now().Add(-3 * time.Hour) }
	provider := openWith(t, connect(t, fake, hms.Options{Now: slow}), harmonyOS(fake))
	out := provider.Send(t.Context(), message())
	expect(t, out, push.Temporary, push.ReasonCredentials, push.EvidenceRefused)
	if !strings.Contains(fmt.Sprint(out.Err), "the clock is 180 minutes slow") {
		t.Errorf("the error is %v", out.Err)
	}
}

// TestAKeyIsRotated opens the app anew, as a reload does, while the old one still sends.
func TestAKeyIsRotated(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartHMS(t, nil)
	connections := connect(t, fake, hms.Options{})
	before := openWith(t, connections, harmonyOS(fake))
	expect(t, before.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	cfg := harmonyOS(fake)
	cfg.ServiceAccount = conf.Secret(fake.ServiceAccount("key-2"))
	after := openWith(t, connections, cfg)
	expect(t, before.Send(t.Context(), message()), push.Temporary, push.ReasonCredentials, push.EvidenceNone)
	expect(t, after.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	if before.Fingerprint() == after.Fingerprint() || before.Destination(nil) != after.Destination(nil) {
		t.Error("the credentials are another's, and the project is the same")
	}
	before.Close()
	expect(t, after.Send(t.Context(), message()), push.Accepted, push.ReasonSent, push.EvidenceWorks)
	connections.Close()
	expect(t, after.Send(t.Context(), message()), push.Temporary, push.ReasonConnection, push.EvidenceNone)
}
