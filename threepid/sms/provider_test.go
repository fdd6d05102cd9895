package sms_test

import (
	"context"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/sms"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// accepted is Twilio's answer to a message it takes.
func accepted() threepidtest.SMSAnswer {
	return threepidtest.SMSAnswer{Status: 201, Body: `{"sid": "SM0123", "status": "queued", "error_code": null, "to": "+447700900001"}`}
}

// failure is an answer of Twilio's that quotes the number.
func failure(status int, code string) threepidtest.SMSAnswer {
	return threepidtest.SMSAnswer{Status: status, Body: `{"code": ` + code + `, "message": "no: +447700900001", "status": 400}`}
}

func TestTwiliosRequest(t *testing.T) {
	t.Parallel()
	gateway := threepidtest.NewSMS(t)
	config := twilio(gateway)
	config.Twilio.KeySID = "SK0123456789abcdef0123456789abcdef"
	gateway.Answer(accepted(), accepted())
	if err := newSender(t, config).Send(t.Context(), challenge()); err != nil {
		t.Fatal(err)
	}
	if err := newSender(t, twilio(gateway)).Send(t.Context(), challenge()); err != nil {
		t.Fatal(err)
	}
	for i, username := range []string{config.Twilio.KeySID, account} {
		r := gateway.Wait(t, 2)[i]
		user, password, _ := (&http.Request{Header: r.Header}).BasicAuth()
		if r.Method != "POST" || r.URL.Path != "/2010-04-01/Accounts/"+account+"/Messages.json" || user != username || password != "hunter2" {
			t.Errorf("%s %s as %s", r.Method, r.URL, user)
		}
		form := r.Form(t)
		if len(form) != 3 || form.Get("To") != "+447700900001" || form.Get("From") != "+15005550006" || !strings.HasPrefix(form.Get("Body"), "123456 ") {
			t.Errorf("form %v", form)
		}
	}
}

func TestTwiliosAnswers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer  threepidtest.SMSAnswer
		kind    error // nil for success
		reason  string
		outcome string
	}{
		"accepted":                {accepted(), nil, "", "sent"},
		"a region denied":         {failure(400, "21408"), threepid.ErrDestinationRejected, "21408", "country"},
		"an invalid number":       {failure(400, "21211"), threepid.ErrNoNumber, "error 21211", "no_recipient"},
		"a landline":              {failure(400, "21614"), threepid.ErrLandline, "error 21614", "no_recipient"},
		"somebody who wrote STOP": {failure(400, "21610"), threepid.ErrOptedOut, "error 21610", "no_recipient"},
		"another refusal":         {failure(400, "21612"), threepid.ErrSend, "400 with its error 21612", "refused"},
		"a wrong password":        {failure(401, "20003"), threepid.ErrSend, "401 with its error 20003", "auth"},
		"a wrong address":         {failure(404, "20404"), threepid.ErrSend, "404", "refused"},
		"too many requests":       {failure(429, "20429"), threepid.ErrSend, "429", "limited"},
		"a fault of Twilio's":     {threepidtest.SMSAnswer{Status: 503, Body: "<html>"}, threepid.ErrSend, "503", "unavailable"},
		"a redirect": {
			threepidtest.SMSAnswer{Status: 307, Header: http.Header{"Location": {"/elsewhere"}}}, threepid.ErrSend, "307", "refused",
		},
		"a failed message":     {threepidtest.SMSAnswer{Status: 201, Body: `{"sid": "SM1", "status": "failed"}`}, threepid.ErrSend, "does not accept", "refused"},
		"a message in error":   {threepidtest.SMSAnswer{Status: 201, Body: `{"sid": "SM1", "status": "queued", "error_code": 30001}`}, threepid.ErrSend, "30001", "refused"},
		"not a message":        {threepidtest.SMSAnswer{Status: 200, Body: `{}`}, threepid.ErrSend, "does not accept", "refused"},
		"a page of some proxy": {threepidtest.SMSAnswer{Status: 200, Body: `<html>log in</html>`}, threepid.ErrSend, "does not accept", "refused"},
		"a cut connection":     {threepidtest.SMSAnswer{}, threepid.ErrSend, "127.0.0.1", "unreachable"},
		"an endless answer":    {threepidtest.SMSAnswer{Status: 201, Body: strings.Repeat(" ", 65<<10)}, threepid.ErrSend, "too large", "unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gateway := threepidtest.NewSMS(t)
			gateway.Answer(tc.answer)
			s := newSender(t, twilio(gateway))
			err := s.Send(t.Context(), challenge())
			s.outcomes(t, tc.outcome, 1)
			if n := len(gateway.Requests()); n != 1 {
				t.Errorf("%d requests", n)
			}
			if tc.kind == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			checkError(t, err, tc.kind, tc.reason)
			// What is not the operator's own wish is logged, with Twilio's words.
			logged := strings.Contains(s.log.String(), "level=WARN") && strings.Contains(s.log.String(), "outcome="+tc.outcome)
			if logged != (tc.outcome != "country") || strings.Contains(s.log.String(), `said="no: …"`) != (logged && strings.Contains(tc.answer.Body, "no: ")) {
				t.Errorf("logged: %s", s.log)
			}
		})
	}
}

func TestAProviderThatHangs(t *testing.T) {
	t.Parallel()
	gateway := threepidtest.NewSMS(t)
	gateway.Answer(threepidtest.SMSAnswer{Until: make(chan struct{}), Status: 200}, threepidtest.SMSAnswer{Until: make(chan struct{}), Status: 200})
	config := webhook(gateway)
	config.Timeout = conf.Duration(50 * time.Millisecond)
	s := newSender(t, config)
	checkError(t, s.Send(t.Context(), challenge()), threepid.ErrSend, "did not answer in time")

	config.Timeout = 0
	patient := newSender(t, config)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- patient.Send(ctx, challenge()) }()
	gateway.Wait(t, 2)
	cancel()
	checkError(t, <-result, threepid.ErrSend, "did not answer in time")
	s.outcomes(t, "timeout", 1)
	patient.outcomes(t, "timeout", 1)
}

func TestWebhookRequests(t *testing.T) {
	t.Parallel()
	type request struct{ Method, URL, ContentType, Authorization, Body string }
	const text = "123456 is your code for id.example.org. It works for 10 minutes. Do not pass it on."
	for name, tc := range map[string]struct {
		config sms.WebhookConfig
		want   request
	}{
		"JSON": {
			sms.WebhookConfig{
				URL: "/send", Body: `{"to": {{json .To}}, "from": {{json .From}}, "text": {{json .Text}}}`,
				Headers: map[string]string{"Authorization": "Bearer {{.Secret}}"},
			},
			request{"POST", "/send", "application/json", "Bearer hunter2", `{"to": "447700900001", "from": "Herald", "text": "` + text + `"}`},
		},
		"a form": {
			sms.WebhookConfig{URL: "/", Method: "PUT", Body: `to=%2B{{.To}}&key={{form .Secret}}&text={{form .Text}}`},
			request{"PUT", "/", "application/x-www-form-urlencoded", "", `to=%2B447700900001&key=hunter2&text=` + strings.ReplaceAll(text, " ", "+")},
		},
		"a query": {
			sms.WebhookConfig{URL: "/sms?to={{.To}}&text={{form .Text}}", Method: "GET"},
			request{"GET", "/sms?to=447700900001&text=" + strings.ReplaceAll(text, " ", "+"), "", "", ""},
		},
		"another type": {
			sms.WebhookConfig{URL: "/", Body: `<sms to="{{.To}}">{{html .Text}}</sms>`, Headers: map[string]string{"content-type": "text/xml"}},
			request{"POST", "/", "text/xml", "", `<sms to="447700900001">` + text + `</sms>`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gateway := threepidtest.NewSMS(t)
			config := webhook(gateway)
			tc.config.URL = gateway.URL + tc.config.URL
			tc.config.Secret, tc.config.AllowNetworks = "hunter2", config.Webhook.AllowNetworks
			config.Webhook, config.Originators = tc.config, map[string]string{"44": "Herald"}
			if err := newSender(t, config).Send(t.Context(), challenge()); err != nil {
				t.Fatal(err)
			}
			r := gateway.Wait(t, 1)[0]
			got := request{r.Method, r.URL.String(), r.Header.Get("Content-Type"), r.Header.Get("Authorization"), string(r.Body)}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestWebhookAnswers(t *testing.T) {
	t.Parallel()
	vonage := `"status":\s*"0"`
	for name, tc := range map[string]struct {
		status  []int
		pattern string
		answer  threepidtest.SMSAnswer
		reason  string // "" for success
		outcome string
	}{
		"any success":               {nil, "", threepidtest.SMSAnswer{Status: 204}, "", "sent"},
		"no success":                {nil, "", threepidtest.SMSAnswer{Status: 400}, "answered 400", "refused"},
		"a redirect":                {nil, "", threepidtest.SMSAnswer{Status: 302, Header: http.Header{"Location": {"/x"}}}, "answered 302", "refused"},
		"a listed status":           {[]int{409}, "", threepidtest.SMSAnswer{Status: 409}, "", "sent"},
		"a status that is not":      {[]int{201, 202}, "", threepidtest.SMSAnswer{Status: 200}, "answered 200", "refused"},
		"the body of a success":     {nil, vonage, threepidtest.SMSAnswer{Status: 200, Body: `{"messages":[{"status": "0"}]}`}, "", "sent"},
		"the body of a refusal":     {nil, vonage, threepidtest.SMSAnswer{Status: 200, Body: `{"messages":[{"status": "4"}]}`}, "success_pattern", "refused"},
		"the body of another error": {nil, vonage, threepidtest.SMSAnswer{Status: 500, Body: `{"messages":[{"status": "0"}]}`}, "answered 500", "unavailable"},
		"nobody there":              {nil, "", threepidtest.SMSAnswer{}, "127.0.0.1", "unreachable"},
		"words with the secret":     {nil, "", threepidtest.SMSAnswer{Status: 400, Body: "bad key hunter2\nfor +44 7700 900001"}, "answered 400", "refused"},
		"forbidden":                 {nil, "", threepidtest.SMSAnswer{Status: 403}, "answered 403", "auth"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gateway := threepidtest.NewSMS(t)
			gateway.Answer(tc.answer)
			config := webhook(gateway)
			config.Webhook.SuccessStatus, config.Webhook.SuccessPattern = tc.status, tc.pattern
			s := newSender(t, config)
			err := s.Send(t.Context(), challenge())
			s.outcomes(t, tc.outcome, 1)
			if tc.reason != "" {
				checkError(t, err, threepid.ErrSend, tc.reason)
				if name == "words with the secret" && !strings.Contains(s.log.String(), `said="bad key … for …"`) {
					t.Errorf("logged: %s", s.log)
				}
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPrivateNetworksAreReachedOnlyWhenListed(t *testing.T) {
	t.Parallel()
	ca := safehttptest.NewCA(t)
	server := ca.Server(t, "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "127.0.0.1")
	for name, tc := range map[string]struct {
		networks []string
		roots    *x509.CertPool
		reason   string // "" for success
	}{
		"listed":                         {[]string{"127.0.0.1/32"}, ca.Pool(), ""},
		"not listed":                     {nil, ca.Pool(), "not allowed: only providers in allow_networks"},
		"another network":                {[]string{"10.0.0.0/8"}, ca.Pool(), "not allowed"},
		"listed, with an unknown issuer": {[]string{"127.0.0.1/32"}, nil, "unknown authority"},
	} {
		config := webhook(&threepidtest.SMS{URL: server.URL})
		config.Webhook.AllowNetworks, config.Webhook.RootCAs = tc.networks, tc.roots
		s := newSender(t, config)
		err := s.Send(t.Context(), challenge())
		switch {
		case tc.reason != "":
			checkError(t, err, threepid.ErrSend, tc.reason)
		case err != nil:
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheAccountWithTwilioIsAsked is about the doctor's question. API keys may not
// read accounts, so those are not asked.
func TestTheAccountWithTwilioIsAsked(t *testing.T) {
	t.Parallel()
	gateway := threepidtest.NewSMS(t)
	for _, tc := range []struct {
		answer threepidtest.SMSAnswer
		want   string // "" for none
	}{
		{threepidtest.SMSAnswer{Status: 200, Body: `{"status":"active"}`}, ""},
		{threepidtest.SMSAnswer{Status: 200, Body: `{"status":"suspended"}`}, `the account is "suspended"`},
		{threepidtest.SMSAnswer{Status: 200, Body: `<html>`}, "the provider answered 200"},
		{threepidtest.SMSAnswer{Status: 401, Body: `{"code":20003}`}, "the provider answered 401"},
		{threepidtest.SMSAnswer{}, "request to"},
	} {
		gateway.Answer(tc.answer)
		if err := newSender(t, twilio(gateway)).Probe(t.Context()); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.answer.Body, err)
		}
	}
	asked := gateway.Requests()
	if user, _, _ := (&http.Request{Header: asked[0].Header}).BasicAuth(); asked[0].URL.Path != "/2010-04-01/Accounts/"+account+".json" || user != account {
		t.Errorf("%s asked for %s", user, asked[0].URL)
	}
	key := twilio(gateway)
	key.Twilio.KeySID = "SK0123456789abcdef0123456789abcdef"
	for _, config := range []sms.Config{key, webhook(gateway)} {
		if err := newSender(t, config).Probe(t.Context()); err != nil || len(gateway.Requests()) != len(asked) {
			t.Errorf("%s: %v", config.Provider, err)
		}
	}
}
