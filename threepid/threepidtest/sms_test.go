package threepidtest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/threepid/threepidtest"
)

func post(ctx context.Context, url, body string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Authorization", "Bearer x")
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b) + res.Header.Get("Retry-After"), err
}

func TestTheGatewayKeepsRequestsAndAnswersAsTold(t *testing.T) {
	t.Parallel()
	sms := threepidtest.NewSMS(t)
	sms.Answer(
		threepidtest.SMSAnswer{Status: 429, Header: http.Header{"Retry-After": {"7"}}, Body: "slow down ", Delay: time.Millisecond},
		threepidtest.SMSAnswer{},
	)
	if status, body, err := post(t.Context(), sms.URL+"/send?a=b", "To=%2B447700900001&Body=42"); status != 429 || body != "slow down 7" || err != nil {
		t.Errorf("the first answer: %d %q %v", status, body, err)
	}
	if status, _, err := post(t.Context(), sms.URL, "x"); err == nil {
		t.Errorf("the cut connection answered %d", status)
	}
	if status, body, err := post(t.Context(), sms.URL, `{"to":"447700900001"}`); status != 200 || body != "{}" || err != nil {
		t.Errorf("the last answer: %d %q %v", status, body, err)
	}
	got := sms.Wait(t, 3)
	if r := got[0]; r.Method != "POST" || r.URL.String() != "/send?a=b" || r.Header.Get("Authorization") != "Bearer x" ||
		r.Form(t).Get("To") != "+447700900001" || r.Form(t).Get("Body") != "42" {
		t.Errorf("the first request: %+v", r)
	}
	if d := cmp.Diff(map[string]any{"to": "447700900001"}, got[2].JSON(t)); d != "" {
		t.Errorf("the last request (-want +got):\n%s", d)
	}
}

func TestAHeldAnswerIsCountedAndEndsWithTheTest(t *testing.T) {
	t.Parallel()
	sent := make(chan error, 1)
	t.Run("inner", func(t *testing.T) {
		sms := threepidtest.NewSMS(t)
		sms.Answer(threepidtest.SMSAnswer{Status: 200, Until: make(chan struct{})})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, _, err := post(ctx, sms.URL, "x")
			sent <- err
		}()
		sms.Wait(t, 1)
		cancel()
		if err := <-sent; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if n := len(sms.Requests()); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}
