package httpapi_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/threepid"
)

// Conformance (submitToken): right, also a second time | 200 `{"success":true}` (also TestContract)
func TestEmailIsValidated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	body := `{"client_secret":"monkeys_are_GREAT","email":"Alice@Example.org","send_attempt":1,"next_link":null}`
	res := w.send(t, request{"POST", emailRequest + "?brand=acme", token, body, http.Header{"Accept-Language": {"de, en;q=0.5"}}})
	sid := res.text(t, "sid")
	if diff := cmp.Diff(map[string]any{"sid": sid}, res.object(t)); diff != "" {
		t.Error(diff)
	}
	c := w.mail.last(t)
	got := []string{c.ID.Address, c.To, c.SID, c.ClientSecret, c.Homeserver, c.Brand, c.Language, c.NextLink}
	want := []string{"alice@example.org", "alice@example.org", sid, "monkeys_are_GREAT", "example.org", "acme", "de, en;q=0.5", ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("message: %s", diff)
	}
	for range 2 { // a right token may be sent again
		if diff := cmp.Diff(map[string]any{"success": true}, w.send(t, post(emailSubmit, token, proof(t, c))).object(t)); diff != "" {
			t.Error(diff)
		}
	}
}

// Conformance (requestToken): answer for a number | `sid`, `success`, `msisdn`, `intl_fmt`
func TestPhoneNumberIsValidated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	res := w.send(t, post(msisdnRequest, token, `{"client_secret":"secret","country":"GB","phone_number":"07700 900001","send_attempt":1}`))
	want := map[string]any{"success": true, "sid": res.text(t, "sid"), "msisdn": "447700900001", "intl_fmt": "+44 7700 900001"}
	if diff := cmp.Diff(want, res.object(t)); diff != "" {
		t.Error(diff)
	}
	c := w.sms.last(t)
	if c.To != "447700900001" || c.Region != "GB" {
		t.Errorf("to %s in %s", c.To, c.Region)
	}
	// The token of one medium is none of the other's.
	w.send(t, post(emailSubmit, token, proof(t, c))).refused(t, 400, "M_INVALID_PARAM")
	if diff := cmp.Diff(map[string]any{"success": true}, w.send(t, post(msisdnSubmit, token, proof(t, c))).object(t)); diff != "" {
		t.Error(diff)
	}
}

// Conformance (requestToken): `send_attempt`: an integer, or a string of digits as matrix-js-sdk sends it; nothing else (≠ Sydent: 1.5, true) | else 400 `M_INVALID_PARAM`
func TestSendAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	steps := []struct {
		attempt string
		mails   int // sent until then
	}{
		{`1`, 1}, {`1`, 1}, {`"1"`, 1}, {`0`, 1}, {`2`, 2}, {`"3"`, 3}, {`"\u0034"`, 4}, {`9007199254740993`, 5}, {`-1`, 5},
	}
	var sid string
	for _, step := range steps {
		body := `{"client_secret":"secret","email":"alice@example.org","send_attempt":` + step.attempt + `}`
		got := w.send(t, post(emailRequest, token, body)).text(t, "sid")
		if sid != "" && got != sid {
			t.Errorf("attempt %s: another session", step.attempt)
		}
		sid = got
		if n := len(w.mail.messages()); n != step.mails {
			t.Fatalf("attempt %s: %d mails, want %d", step.attempt, n, step.mails)
		}
	}
	for _, attempt := range []string{`"abc"`, `""`, `1.5`, `"1.5"`, `true`, `[1]`, `{}`, `1e3`, `" 1"`, `"+1"`, `9223372036854775808`} {
		body := `{"client_secret":"secret","email":"alice@example.org","send_attempt":` + attempt + `}`
		w.send(t, post(emailRequest, token, body)).refused(t, 400, "M_INVALID_PARAM")
	}
}

// Conformance (requestToken): sending fails (≠ Sydent: 500) | 400 `M_EMAIL_SEND_ERROR`, `M_SEND_ERROR`
// Conformance (requestToken): no such mailbox or number; a landline, or somebody who opted out (Twilio's errors, RFC 3463) | 400 `M_INVALID_EMAIL`, `M_INVALID_ADDRESS`; `M_SEND_ERROR`; the message says which (also TestWhatTheRelayRefusesIsAnError, TestTwiliosAnswers)
// Conformance (requestToken): no relay, no SMS provider | 400 `M_EMAIL_SEND_ERROR`, `M_DESTINATION_REJECTED`, which say that it is switched off (also TestWithoutARelayNothingIsSent, TestWithoutAProviderEveryNumberIsRefused)
func TestFailedSending(t *testing.T) {
	t.Parallel()
	const (
		mail = `{"client_secret":"secret","email":"alice@example.org","send_attempt":1}`
		sms  = `{"client_secret":"secret","country":"GB","phone_number":"07700900001","send_attempt":1}`
	)
	tests := map[string]struct {
		path, body string
		err        error
		status     int
		errcode    string
		retry      any
	}{
		"a mail that the relay refuses":         {emailRequest, mail, threepid.ErrSend, 400, "M_EMAIL_SEND_ERROR", nil},
		"a text that the provider refuses":      {msisdnRequest, sms, threepid.ErrSend, 400, "M_SEND_ERROR", nil},
		"a text to a country that is not meant": {msisdnRequest, sms, threepid.ErrDestinationRejected, 400, "M_DESTINATION_REJECTED", nil},
		"a mail to no mailbox":                  {emailRequest, mail, threepid.ErrNoMailbox, 400, "M_INVALID_EMAIL", nil},
		"a mail without a relay":                {emailRequest, mail, threepid.ErrMailOff, 400, "M_EMAIL_SEND_ERROR", nil},
		"a text to no number":                   {msisdnRequest, sms, threepid.ErrNoNumber, 400, "M_INVALID_ADDRESS", nil},
		"a text to a landline":                  {msisdnRequest, sms, threepid.ErrLandline, 400, "M_SEND_ERROR", nil},
		"a text to somebody who wants none":     {msisdnRequest, sms, threepid.ErrOptedOut, 400, "M_SEND_ERROR", nil},
		"a text without a provider":             {msisdnRequest, sms, threepid.ErrSMSOff, 400, "M_DESTINATION_REJECTED", nil},
		"a mail while all slots are taken":      {emailRequest, mail, &threepid.BusyError{RetryAfter: 1500 * time.Millisecond}, 429, "M_LIMIT_EXCEEDED", 1500.0},
		"a text while all slots are taken":      {msisdnRequest, sms, &threepid.BusyError{RetryAfter: 2 * time.Second}, 429, "M_LIMIT_EXCEEDED", 2000.0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			token := w.register(t, alice)
			w.mail.fail(tt.err)
			w.sms.fail(tt.err)
			refusal := w.send(t, post(tt.path, token, tt.body)).refused(t, tt.status, tt.errcode)
			if refusal["retry_after_ms"] != tt.retry {
				t.Errorf("retry_after_ms %v, want %v", refusal["retry_after_ms"], tt.retry)
			}
			// To come back is good advice only where it helps.
			later := tt.retry != nil || errors.Is(tt.err, threepid.ErrSend) && !errors.Is(tt.err, threepid.ErrNoRecipient) && !errors.Is(tt.err, threepid.ErrMailOff)
			if strings.Contains(refusal["error"].(string), "try again later") != later {
				t.Errorf("error %q", refusal["error"])
			}
			w.mail.fail(nil)
			w.sms.fail(nil)
			// The attempt was not counted, so the very same request sends.
			w.send(t, post(tt.path, token, tt.body)).text(t, "sid")
			if n := len(w.mail.messages()) + len(w.sms.messages()); n != 1 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// TestFormsAreTakenWhereTheSpecificationHasThem takes an address and a number to
// their bindings by forms, in both spellings of their type.
//
// Conformance (version 1): version 2 takes forms where the specification still allows them: requestToken, submitToken, bind; in both spellings of their type | elsewhere 400 `M_NOT_JSON`
func TestFormsAreTakenWhereTheSpecificationHasThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	for secret, mediaType := range map[string]string{"s1": "application/x-www-form-urlencoded", "s2": "application/x-form-www-urlencoded; charset=utf-8"} {
		t.Run(mediaType, func(t *testing.T) {
			form := func(path string, values url.Values) answer {
				return w.send(t, request{"POST", path, token, values.Encode(), http.Header{"Content-Type": {mediaType}}})
			}
			session := url.Values{"client_secret": {secret}, "send_attempt": {"1"}, "email": {"alice@example.org"}, "country": {"GB"}, "phone_number": {"07700900001"}}
			prove := func(request, submit string, to *messenger) {
				t.Helper()
				form(request, session).object(t)
				c := to.last(t)
				form(submit, url.Values{"sid": {c.SID}, "client_secret": {secret}, "token": {c.Token}}).object(t)
				bound := form(bindPath, url.Values{"sid": {c.SID}, "client_secret": {secret}, "mxid": {alice}})
				if got := bound.text(t, "address"); got != c.ID.Address {
					t.Errorf("bound %s", got)
				}
			}
			prove(emailRequest, emailSubmit, w.mail)
			prove(msisdnRequest, msisdnSubmit, w.sms)
			form(bindPath, nil).refused(t, 400, "M_MISSING_PARAMS")
			form(bindPath+"?sid=s&client_secret=s", url.Values{"mxid": {alice}}).refused(t, 400, "M_MISSING_PARAMS")
			form(bindPath, url.Values{"sid": {strings.Repeat("x", 64<<10)}}).refused(t, 413, "M_TOO_LARGE")
			for _, path := range []string{registerPath, termsPath, lookupPath, storeInvitePath, signPath, unbindPath} {
				form(path, session).refused(t, 400, "M_NOT_JSON")
			}
		})
	}
}

// Conformance (submitToken): wrong token (≠ Sydent: 200, or 404) | 400 `M_TOKEN_INCORRECT`
// Conformance (submitToken): the right token after ten wrong ones, or too late | 400 `M_TOKEN_INCORRECT`, which says to ask for a new one (also TestContract)
// Conformance (submitToken): unknown sid, wrong secret: not told apart | 400 `M_INVALID_PARAM`
// Conformance (submitToken): expired | 400 `M_SESSION_EXPIRED` (also TestContract)
// Conformance (submitToken): every refusal | has `"success": false` for old clients
func TestRefusedTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	c := w.session(t, token, "alice@example.org", "secret")
	submit := func(change func(*threepid.Challenge)) answer {
		guess := c
		change(&guess)
		return w.send(t, post(emailSubmit, token, proof(t, guess)))
	}
	tests := []struct {
		name    string
		change  func(*threepid.Challenge)
		errcode string
	}{
		{"a wrong token", func(c *threepid.Challenge) { c.Token = "wrong" }, "M_TOKEN_INCORRECT"},
		{"an empty token", func(c *threepid.Challenge) { c.Token = "" }, "M_TOKEN_INCORRECT"},
		{"an endless token", func(c *threepid.Challenge) { c.Token = strings.Repeat("x", 10_000) }, "M_TOKEN_INCORRECT"},
		{"an unknown sid", func(c *threepid.Challenge) { c.SID = "unknown" }, "M_INVALID_PARAM"},
		{"a wrong client_secret", func(c *threepid.Challenge) { c.ClientSecret = "wrong" }, "M_INVALID_PARAM"},
		{"a malformed sid", func(c *threepid.Challenge) { c.SID = "a b" }, "M_INVALID_PARAM"},
		{"a malformed client_secret", func(c *threepid.Challenge) { c.ClientSecret = "" }, "M_INVALID_PARAM"},
	}
	answers := make(map[string]string)
	for _, tt := range tests {
		a := submit(tt.change)
		if refusal := a.refused(t, 400, tt.errcode); refusal["success"] != false {
			t.Errorf("%s: no success: false in %v", tt.name, refusal)
		}
		answers[tt.name] = string(a.body)
	}
	if answers["an unknown sid"] != answers["a wrong client_secret"] {
		t.Error("the answers tell an unknown sid from a wrong client_secret")
	}
	refusal := w.send(t, post(emailSubmit, token, `{"sid":"x"}`)).refused(t, 400, "M_MISSING_PARAMS")
	if refusal["error"] != "Missing parameters: client_secret, token" || refusal["success"] != false {
		t.Errorf("%v", refusal)
	}
	w.send(t, textTo(t, token, "GB", "07700900001", "secret")).object(t)
	texted := w.sms.last(t)
	guess := texted
	guess.Token = "wrong"
	for range 10 {
		w.send(t, post(msisdnSubmit, token, proof(t, guess))).refused(t, 400, "M_TOKEN_INCORRECT")
	}
	refusal = w.send(t, post(msisdnSubmit, token, proof(t, texted))).refused(t, 400, "M_TOKEN_INCORRECT")
	if text, _ := refusal["error"].(string); !strings.HasPrefix(text, "Too many wrong codes") {
		t.Errorf("the right token after ten wrong ones: %v", refusal)
	}
	w.clock.advance(24 * time.Hour)
	if refusal := submit(func(*threepid.Challenge) {}).refused(t, 400, "M_SESSION_EXPIRED"); refusal["success"] != false {
		t.Errorf("an expired session: no success: false in %v", refusal)
	}
}

// Conformance (security): logs and traces hold no address, token, code or query (also TestTheAccessLineHoldsTheRouteAndNoAddress, TestNothingTellsSecrets)
func TestLogHoldsNoAddressesAndNoSecrets(t *testing.T) {
	t.Parallel()
	w, token := bound(t, "alice.secretive@example.org")
	w.mail.fail(threepid.ErrSend)
	w.send(t, post(emailRequest, token, `{"client_secret":"hidden","email":"alice.secretive@example.org","send_attempt":9}`)).
		refused(t, 400, "M_EMAIL_SEND_ERROR")
	w.send(t, post(msisdnRequest, token, `{"client_secret":"hidden","country":"GB","phone_number":"07700900001","send_attempt":1}`))
	w.send(t, get(hashDetails+"?access_token="+token, ""))
	c := w.mail.last(t)
	w.send(t, get(emailSubmit+query(c)+"&token="+c.Token, ""))
	log := w.log.String()
	if !strings.Contains(log, "route="+emailRequest) || !strings.Contains(log, "threepid=email:") || !strings.Contains(log, "could not be sent") {
		t.Errorf("the log does not tell what happened: %s", log)
	}
	for _, secret := range []string{"secretive", "7700", "hidden", token, c.Token, c.SID, "bearer", "Bearer"} {
		if strings.Contains(log, secret) {
			t.Errorf("%q is in the log: %s", secret, log)
		}
	}
}
