package httpapi_test

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/threepid"
)

const registerPath = "/_matrix/identity/v2/account/register"

func perHour(n int) ratelimit.Limit { return ratelimit.Limit{Count: n, Per: time.Hour} }
func perDay(n int) ratelimit.Limit  { return ratelimit.Limit{Count: n, Per: 24 * time.Hour} }

// limitedWorld is a world with these limits behind a proxy, which says where
// requests are from.
func limitedWorld(t *testing.T, limits httpapi.Limits, change ...func(*settings)) *world {
	t.Helper()
	return newWorld(t, func(s *settings) {
		s.api.Limits = limits
		s.api.TrustedProxies = []string{"127.0.0.1"}
		s.api.TrustedSources = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
		for _, c := range change {
			c(s)
		}
	})
}

// from has a proxy say that a request is from ip.
func (r request) from(ip string) request {
	header := r.header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	header.Set("X-Forwarded-For", ip)
	r.header = header
	return r
}

// limited fails the test unless the answer is that of a limit to wait for so long.
func (a answer) limited(t *testing.T, wait time.Duration) {
	t.Helper()
	object := a.refused(t, http.StatusTooManyRequests, "M_LIMIT_EXCEEDED")
	if msg, _ := object["error"].(string); !strings.Contains(msg, "(limit ") {
		t.Errorf("%q does not name the limit", msg)
	}
	if ms := object["retry_after_ms"]; ms != float64(wait.Milliseconds()) {
		t.Errorf("retry_after_ms %v, want %d", ms, wait.Milliseconds())
	}
	if s := a.header.Get("Retry-After"); s != strconv.FormatFloat(math.Ceil(wait.Seconds()), 'f', 0, 64) {
		t.Errorf("Retry-After %s, want that of %s", s, wait)
	}
}

// refusals returns how many requests a limit has refused.
func (w *world) refusals(t *testing.T, limit string) float64 {
	t.Helper()
	families, err := w.registry.Gather()
	check(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "herald_identity_limited_total" && m.GetLabel()[0].GetValue() == limit {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no limit is called %s", limit)
	return 0
}

func mailTo(t testing.TB, token, email, secret string) request {
	t.Helper()
	return post(emailRequest, token, encode(t, map[string]any{"client_secret": secret, "email": email, "send_attempt": 1}))
}

func textTo(t testing.TB, token, country, number, secret string) request {
	t.Helper()
	return post(msisdnRequest, token, encode(t, map[string]any{"client_secret": secret, "country": country, "phone_number": number, "send_attempt": 1}))
}

func registration(t testing.TB, user string) request {
	t.Helper()
	_, server, _ := strings.Cut(user, ":")
	return post(registerPath, "", encode(t, map[string]string{"access_token": user, "matrix_server_name": server}))
}

// step is a request and whether it is let through.
type step struct {
	request request
	through bool
}

// Conformance (security): requests for messages are limited by address, number, account and client, text messages by country of the number and in all; tries of a token by session, account and client; registrations by client and homeserver; bindings by account; 429 `M_LIMIT_EXCEEDED`, without a mail, a message or a write (ADR 8) (also TestALimitTellsWhenToComeBack, TestOnlyMessagesThatAreSentCountForTheirCap, TestLimitsOfSubmitToken, TestLimitsOfLinks, TestLimitsOfRegistration, TestLimitOfBindings)
// Conformance (attacks): mail bombs, SMS pumping | limits by address, number, account, country and in all; countries on a list, known by the number itself (also TestOnlyMessagesThatAreSentCountForTheirCap, TestLimitsOfInvites, TestCountries)
func TestLimitsOfRequestToken(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limit  string
		limits httpapi.Limits
		steps  func(t *testing.T, a, b, c string) []step // with the tokens of three accounts
	}{
		"by email address, however it is spelt": {"request_token_address", httpapi.Limits{RequestTokenAddress: perHour(2)}, func(t *testing.T, a, b, c string) []step {
			return []step{
				{mailTo(t, a, "carol@example.net", "s1"), true},
				{mailTo(t, b, "Carol@Example.NET", "s2"), true},
				{mailTo(t, a, "CAROL@example.net", "s3"), false},
				{mailTo(t, a, "dave@example.net", "s4"), true},
			}
		}},
		"by telephone number": {"request_token_number", httpapi.Limits{RequestTokenNumber: perHour(1)}, func(t *testing.T, a, b, c string) []step {
			return []step{
				{textTo(t, a, "GB", "07700900001", "s1"), true},
				{textTo(t, b, "FR", "+447700900001", "s2"), false},
				{textTo(t, b, "GB", "07700900002", "s3"), true},
			}
		}},
		"by account, for both media": {"request_token_account", httpapi.Limits{RequestTokenAccount: perHour(2)}, func(t *testing.T, a, b, c string) []step {
			return []step{
				{mailTo(t, a, "carol@example.net", "s1"), true},
				{textTo(t, a, "GB", "07700900001", "s2"), true},
				{mailTo(t, a, "dave@example.net", "s3"), false},
				{mailTo(t, b, "dave@example.net", "s4"), true},
			}
		}},
		"by client, not by trusted source": {"request_token_ip", httpapi.Limits{RequestTokenIP: perHour(1)}, func(t *testing.T, a, b, c string) []step {
			return []step{
				{mailTo(t, a, "1@example.net", "s1").from("2001:db8::1"), true},
				{mailTo(t, b, "2@example.net", "s2").from("2001:db8::ffff"), false},
				{mailTo(t, b, "3@example.net", "s3").from("192.0.2.1"), true},
				{mailTo(t, b, "4@example.net", "s4").from("203.0.113.1"), true},
				{mailTo(t, b, "5@example.net", "s5").from("203.0.113.1"), true},
			}
		}},
		"by country of the number, whatever the request says": {"sms_country", httpapi.Limits{SMSCountry: perHour(1)}, func(t *testing.T, a, b, c string) []step {
			return []step{
				{textTo(t, a, "GB", "07700900001", "s1"), true},
				{textTo(t, b, "US", "+447700900002", "s2"), false},
				{textTo(t, b, "US", "+12015550123", "s3"), true},
				{mailTo(t, b, "carol@example.net", "s4"), true},
			}
		}},
		"by country, with a cap of its own": {"sms_country", httpapi.Limits{SMSCountry: perHour(1), SMSCountries: map[string]ratelimit.Limit{"GB": perHour(2)}}, func(t *testing.T, a, b, c string) []step {
			return []step{
				{textTo(t, a, "GB", "07700900001", "s1"), true},
				{textTo(t, b, "GB", "07700900002", "s2"), true},
				{textTo(t, c, "GB", "07700900003", "s3"), false},
				{textTo(t, a, "US", "+12015550123", "s4"), true},
				{textTo(t, b, "US", "+12015550124", "s5"), false},
			}
		}},
		"all text messages together": {"sms_total", httpapi.Limits{SMSTotal: perHour(2), SMSCountry: perHour(9)}, func(t *testing.T, a, b, c string) []step {
			return []step{
				{textTo(t, a, "GB", "07700900001", "s1"), true},
				{textTo(t, b, "US", "+12015550123", "s2"), true},
				{textTo(t, c, "FR", "0612345678", "s3"), false},
				{mailTo(t, a, "carol@example.net", "s4"), true},
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := limitedWorld(t, tt.limits)
			a, b, c := w.register(t, alice), w.register(t, "@bob:example.com"), w.register(t, "@carol:example.net") // homeservers have shares
			through, refused := 0, 0
			for i, s := range tt.steps(t, a, b, c) {
				res := w.send(t, s.request)
				if !s.through {
					refused++
					res.refused(t, http.StatusTooManyRequests, "M_LIMIT_EXCEEDED")
					continue
				}
				through++
				if res.status != http.StatusOK {
					t.Errorf("request %d: %d %s", i+1, res.status, res.body)
				}
			}
			if n := len(w.mail.messages()) + len(w.sms.messages()); n != through {
				t.Errorf("%d messages for %d requests let through", n, through)
			}
			if n := w.refusals(t, tt.limit); n != float64(refused) {
				t.Errorf("%v refusals counted, want %d", n, refused)
			}
		})
	}
}

func TestALimitTellsWhenToComeBack(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{RequestTokenAddress: perHour(2)})
	token := w.register(t, alice)
	for i := range 2 {
		w.send(t, mailTo(t, token, "carol@example.net", fmt.Sprint("s", i))).object(t)
	}
	w.send(t, mailTo(t, token, "carol@example.net", "s2")).limited(t, 30*time.Minute)
	w.clock.advance(30*time.Minute - 1500*time.Millisecond)
	w.send(t, mailTo(t, token, "carol@example.net", "s2")).limited(t, 1500*time.Millisecond)
	w.clock.advance(1500 * time.Millisecond)
	w.send(t, mailTo(t, token, "carol@example.net", "s2")).object(t)
	if strings.Contains(w.log.String(), "carol") {
		t.Error("the log holds an address")
	}
}

// Messages that are not sent do not use up what those may cost that are.
func TestOnlyMessagesThatAreSentCountForTheirCap(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{SMSCountry: perHour(1), SMSTotal: perHour(1)})
	token := w.register(t, alice)
	w.sms.fail(threepid.ErrDestinationRejected)
	for i := range 3 {
		w.send(t, textTo(t, token, "GB", "07700900001", fmt.Sprint("s", i))).refused(t, 400, "M_DESTINATION_REJECTED")
	}
	w.sms.fail(&threepid.BusyError{RetryAfter: time.Second})
	w.send(t, textTo(t, token, "GB", "07700900001", "s3")).refused(t, 429, "M_LIMIT_EXCEEDED") // all slots are taken
	w.sms.fail(nil)
	w.send(t, textTo(t, token, "GB", "07700900001", "s4")).object(t)
	w.send(t, textTo(t, token, "GB", "07700900002", "s5")).limited(t, time.Hour)
}

// Conformance (security): a cap on text messages that is hit stands in the log, by country (also TestOneProcessLimitsByItself)
func TestACapOnTextMessagesStandsInTheLogOnce(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{SMSCountry: perHour(1), RequestTokenNumber: perDay(9)})
	token := w.register(t, alice)
	for i := range 4 {
		for _, number := range []string{"+44770090000", "+1201555010"} {
			w.send(t, textTo(t, token, "GB", fmt.Sprint(number, i), fmt.Sprint("s", number[1:], i)))
		}
	}
	const line = "text messages have reached their cap"
	if n := strings.Count(w.log.String(), line); n != 2 {
		t.Errorf("%d lines about two countries:\n%s", n, w.log)
	}
	for _, country := range []string{"GB", "US"} {
		if !strings.Contains(w.log.String(), `msg="`+line+`" limit=sms_country country=`+country) {
			t.Errorf("no line about %s:\n%s", country, w.log)
		}
	}
}

func TestLimitsOfSubmitToken(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{SubmitTokenSession: perHour(1)})
	token := w.register(t, alice)
	c := w.session(t, token, "carol@example.net", "secret")
	wrong := c
	wrong.Token = "wrong"
	w.send(t, post(emailSubmit, token, proof(t, wrong))).refused(t, 400, "M_TOKEN_INCORRECT")
	res := w.send(t, post(emailSubmit, token, proof(t, c)))
	res.limited(t, time.Hour)
	if success := res.refused(t, 429, "M_LIMIT_EXCEEDED")["success"]; success != false {
		t.Errorf("success is %v", success)
	}
	if w.isValidated(t, token, c) {
		t.Error("a refused request validated the session")
	}
	w.clock.advance(time.Hour)
	w.prove(t, token, c)

	w = limitedWorld(t, httpapi.Limits{SubmitTokenAccount: perHour(1)})
	token, other := w.register(t, alice), w.register(t, bob)
	first, second := w.session(t, token, "1@example.net", "secret"), w.session(t, token, "2@example.net", "secret")
	w.prove(t, token, first)
	w.send(t, post(emailSubmit, token, proof(t, second))).limited(t, time.Hour)
	w.prove(t, other, second)
}

// Conformance (submitToken): too many links from an address | a page with 429 that says how long to wait (also TestLimitsOfLinks)
func TestLimitPageSaysHowLongToWait(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]string{
		time.Second: "a minute", time.Minute: "a minute", 61 * time.Second: "2 minutes", 59 * time.Minute: "59 minutes",
		time.Hour: "an hour", 61 * time.Minute: "2 hours", 24 * time.Hour: "24 hours",
	} {
		w := limitedWorld(t, httpapi.Limits{SubmitTokenIP: ratelimit.Limit{Count: 1, Per: wait}})
		broken := get(emailSubmit+"?sid=1&client_secret=1&token=1", "").from("192.0.2.1")
		w.send(t, broken)
		if res := w.send(t, broken); !strings.Contains(string(res.body), "Wait "+want+" and open") {
			t.Errorf("%v: %s", wait, res.body)
		}
	}
}

// Whoever follows a link has no account; people see a page.
func TestLimitsOfLinks(t *testing.T) {
	t.Parallel()
	for name, confirm := range map[string]bool{"at once": false, "with a button": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := limitedWorld(t, httpapi.Limits{SubmitTokenIP: perHour(1)}, func(s *settings) { s.api.ConfirmPage = confirm })
			token := w.register(t, alice)
			c, later := w.session(t, token, "1@example.net", "secret"), w.session(t, token, "2@example.net", "secret")
			follow := func(c threepid.Challenge) request { return get(linkTo(emailSubmit, c), "") }
			if confirm {
				follow = func(c threepid.Challenge) request {
					return request{"POST", strings.TrimSuffix(emailSubmit, "submitToken") + "confirm", "", linkQuery(c).Encode(),
						http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
				}
			}
			w.send(t, follow(c).from("192.0.2.1")).isPage(t, 200, "Email address confirmed")
			res := w.send(t, follow(later).from("192.0.2.1"))
			res.isPage(t, 429, "Too many attempts")
			if got := res.header.Get("Retry-After"); got != "3600" || !strings.Contains(string(res.body), "Wait an hour and") {
				t.Errorf("Retry-After %q on the page %s", got, res.body)
			}
			if w.isValidated(t, token, later) {
				t.Error("a refused link validated the session")
			}
			// Tries with an access token are tries from the same address.
			w.send(t, post(emailSubmit, token, proof(t, later)).from("192.0.2.1")).limited(t, time.Hour)
			w.send(t, follow(later).from("192.0.2.2")).isPage(t, 200, "Email address confirmed")
		})
	}
}

func TestLimitsOfRegistration(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{RegisterIP: perHour(3), RegisterHomeserver: perHour(2)})
	failing := post(registerPath, "", `{"access_token":"refused","matrix_server_name":"example.org"}`)
	for range 3 { // by a stranger, who cannot use up what the homeserver has
		w.send(t, failing.from("192.0.2.66")).refused(t, 401, "M_UNAUTHORIZED")
	}
	w.send(t, failing.from("192.0.2.66")).limited(t, 20*time.Minute)
	w.send(t, registration(t, alice).from("192.0.2.1")).object(t)
	w.send(t, registration(t, bob).from("192.0.2.2")).object(t)
	w.send(t, registration(t, "@carol:example.org").from("192.0.2.3")).limited(t, 30*time.Minute)
	w.send(t, registration(t, "@carol:example.net").from("192.0.2.3")).object(t)
	if ip, homeserver := w.refusals(t, "register_ip"), w.refusals(t, "register_homeserver"); ip != 1 || homeserver != 1 {
		t.Errorf("%v refusals by address, %v by homeserver", ip, homeserver)
	}
}

func TestLimitOfBindings(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{BindAccount: perHour(1)})
	token := w.register(t, alice)
	var proven []threepid.Challenge
	for i := range 2 {
		c := w.session(t, token, fmt.Sprintf("%d@example.net", i), "secret")
		w.prove(t, token, c)
		proven = append(proven, c)
	}
	w.send(t, post(bindPath, token, bindBody(t, proven[0], alice))).object(t)
	w.send(t, post(bindPath, token, bindBody(t, proven[1], alice))).limited(t, time.Hour)
	w.clock.advance(time.Hour)
	w.send(t, post(bindPath, token, bindBody(t, proven[1], alice))).object(t)
}

// lookup asks for the addresses from to to-1.
func lookup(t testing.TB, token, pepper string, from, to int) request {
	t.Helper()
	var addresses []string
	for i := from; i < to; i++ {
		addresses = append(addresses, fmt.Sprintf("%d@example.net email", i))
	}
	return post(lookupPath, token, encode(t, map[string]any{"algorithm": "none", "pepper": pepper, "addresses": addresses}))
}

func (w *world) pepper(t testing.TB, token string) string {
	t.Helper()
	return w.send(t, get(hashDetails, token)).text(t, "lookup_pepper")
}

func TestLimitsOfLookups(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{LookupAccount: perHour(1)})
	token, other := w.register(t, alice), w.register(t, bob)
	pepper := w.pepper(t, token)
	w.send(t, lookup(t, token, pepper, 0, 1)).object(t)
	w.send(t, lookup(t, token, pepper, 0, 1)).limited(t, time.Hour)
	w.send(t, lookup(t, other, pepper, 0, 1)).object(t)

	w = limitedWorld(t, httpapi.Limits{LookupIP: perHour(1)})
	token = w.register(t, alice)
	pepper = w.pepper(t, token)
	w.send(t, lookup(t, token, pepper, 0, 1).from("192.0.2.1")).object(t)
	w.send(t, lookup(t, token, pepper, 0, 1).from("192.0.2.1")).limited(t, time.Hour)
	for range 3 { // a homeserver that asks for its users
		w.send(t, lookup(t, token, pepper, 0, 1).from("203.0.113.7")).object(t)
	}
}

// The clock of a world begins at noon.
//
// Conformance (security): addresses are not harvested: an account may look up or invite 10,000 different ones a day, a homeserver 100,000, also where store-invite answers M_THREEPID_IN_USE (also TestBudgetOfAddressesOfAHomeserver, TestLimitsOfLookups, TestLimitsOfVersion1)
// Conformance (attacks): harvesting by lookups, or by invites, which tell as much | budgets of different addresses by account, homeserver and address of the client; a pepper that rotates (also TestBudgetOfAddressesOfAHomeserver, TestLimitsOfLookups, TestReplicasShareLimits)
func TestBudgetOfAddressesOfAnAccount(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{LookupAddressesAccount: perDay(10), LookupAccount: perDay(9)})
	token, other := w.register(t, alice), w.register(t, bob)
	pepper := w.pepper(t, token)
	w.send(t, lookup(t, token, pepper, 0, 8)).object(t)
	w.send(t, lookup(t, token, pepper, 0, 8)).object(t) // again, for nothing
	w.send(t, lookup(t, token, pepper, 6, 11)).limited(t, 12*time.Hour)
	w.send(t, lookup(t, token, "stale", 8, 10)).refused(t, 400, "M_INVALID_PEPPER")
	w.send(t, lookup(t, token, pepper, 0, 10_001)).refused(t, 413, "M_TOO_LARGE")
	w.send(t, lookup(t, token, pepper, 8, 9)).object(t) // neither cost anything
	w.send(t, lookup(t, other, pepper, 20, 30)).object(t)
	if n := w.refusals(t, "lookup_addresses_account"); n != 1 {
		t.Errorf("%v refusals counted", n)
	}

	// An invite is a lookup, also one that tells whose the address is.
	c := w.session(t, other, "bob@example.net", "secret")
	w.prove(t, other, c)
	w.send(t, post(bindPath, other, bindBody(t, c, bob))).object(t)
	bound := post(storeInvitePath, token, inviteBody(t, map[string]any{"address": "bob@example.net"}))
	for range 2 { // the second one for nothing
		if mxid := w.send(t, bound).refused(t, 400, "M_THREEPID_IN_USE")["mxid"]; mxid != bob {
			t.Errorf("mxid %v", mxid)
		}
	}
	w.send(t, post(storeInvitePath, token, inviteBody(t, nil))).limited(t, 12*time.Hour)
	if n := len(w.mail.invitations); n != 0 {
		t.Errorf("%d invitations were mailed", n)
	}
	w.clock.advance(12 * time.Hour)
	w.send(t, lookup(t, token, pepper, 10, 20)).object(t)
}

func TestBudgetOfAddressesOfAHomeserver(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{
		LookupAddressesAccount: perDay(10), LookupAddressesHomeserver: perDay(15),
		LookupAddressesHomeservers: map[string]ratelimit.Limit{"big.example": perDay(25)},
	})
	a, b, c := w.register(t, alice), w.register(t, bob), w.register(t, "@carol:example.org")
	pepper := w.pepper(t, a)
	lookup := func(token string, from, to int) answer { // from where nothing else limits
		return w.send(t, lookup(t, token, pepper, from, to).from("203.0.113.9"))
	}
	lookup(a, 0, 10).object(t)
	lookup(b, 0, 10).object(t) // what the homeserver has had is free for it
	lookup(c, 10, 16).limited(t, 12*time.Hour)
	lookup(c, 10, 15).object(t)
	lookup(c, 0, 5).object(t) // a refused one cost the account nothing
	for i, user := range []string{"@1:big.example", "@2:hs.big.example"} {
		lookup(w.register(t, user), 10*i, 10*i+10).object(t)
	}
	lookup(w.register(t, "@3:big.example"), 20, 26).limited(t, 12*time.Hour)
	if n := w.refusals(t, "lookup_addresses_homeserver"); n != 2 {
		t.Errorf("%v refusals counted", n)
	}
}

// Conformance (security): strangers are not flooded with invites
func TestLimitsOfInvites(t *testing.T) {
	t.Parallel()
	const carol, dave = "carol@example.net", "dave@example.net"
	for name, tt := range map[string]struct {
		limit  string
		limits httpapi.Limits
		steps  [][2]string // sender and address, the last refused
	}{
		"by sender": {"store_invite_sender", httpapi.Limits{StoreInviteSender: perHour(2)}, [][2]string{
			{alice, carol}, {bob, carol}, {alice, dave}, {alice, dave},
		}},
		"by homeserver": {"store_invite_homeserver", httpapi.Limits{StoreInviteHomeserver: perHour(2)}, [][2]string{
			{alice, carol}, {"@carol:example.net", carol}, {bob, dave}, {bob, carol},
		}},
		"by target": {"store_invite_target", httpapi.Limits{StoreInviteTarget: perHour(2)}, [][2]string{
			{alice, carol}, {alice, dave}, {"@carol:example.net", "CAROL@example.net"}, {bob, "Carol@Example.net"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := limitedWorld(t, tt.limits)
			for i, s := range tt.steps {
				token := w.register(t, s[0])
				// In another's name costs nothing, and is refused as such beyond a limit too.
				w.send(t, post(storeInvitePath, token, inviteBody(t, map[string]any{"sender": "@x:example.org", "address": s[1]}))).refused(t, 403, "M_UNAUTHORIZED")
				res := w.send(t, post(storeInvitePath, token, inviteBody(t, map[string]any{"sender": s[0], "address": s[1]})).from("203.0.113.9"))
				if i == len(tt.steps)-1 {
					res.limited(t, 30*time.Minute)
				} else {
					res.object(t)
				}
			}
			if mails, refused := len(w.mail.invitations), w.refusals(t, tt.limit); mails != len(tt.steps)-1 || refused != 1 {
				t.Errorf("%d mails, %v refusals", mails, refused)
			}
		})
	}
}

// TestNamesOfOneHomeserverHaveOneBudget is the attack of somebody whose homeserver
// has many names, each of which vouches for accounts.
//
// Conformance (security): limits of a homeserver are those of its registered domain or IP address: 40 spellings, 64 subdomains, ports and addresses of one network are one (also TestSites)
// Conformance (attacks): 40 accounts of one homeserver that is spelt `LOCALHOST`, `localhosT:8448`, or has 64 subdomains: 1,200 invites of 1,200; or a domain for each account | budgets of the registered domain or IP address; totals of the client's address (also TestAClientHasOneBudgetForAllItsHomeservers, TestSites, BenchmarkHostileAttacks)
func TestNamesOfOneHomeserverHaveOneBudget(t *testing.T) {
	t.Parallel()
	var spellings, subdomains, ports []string
	for i := range 40 {
		name := []byte("localhost")
		for bit := range name {
			if i>>bit&1 == 1 {
				name[bit] -= 'a' - 'A'
			}
		}
		spellings = append(spellings, string(name))
		ports = append(ports, fmt.Sprintf("[2001:db8:0:7::%x]:%d", i, 8448+i))
	}
	for i := range 64 {
		subdomains = append(subdomains, fmt.Sprintf("s%d.Evil.example:%d", i, 8448+i%3))
	}
	limits := httpapi.Limits{
		RegisterHomeserver: perHour(50), StoreInviteHomeserver: perHour(10), LookupAddressesHomeserver: perDay(20), LookupAddressesAccount: perDay(5),
		StoreInviteSender: perHour(5),
	}
	for name, servers := range map[string][]string{"40 spellings": spellings, "64 subdomains": subdomains, "40 addresses of one network": ports} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := limitedWorld(t, limits)
			registered, looked, invited := 0, 0, 0
			for i, server := range servers {
				user, trusted := fmt.Sprintf("@u%d:%s", i, server), "203.0.113.9" // where nothing else limits
				res := w.send(t, registration(t, user).from(trusted))
				if res.status != http.StatusOK {
					continue
				}
				registered++
				token := res.text(t, "token")
				if w.send(t, lookup(t, token, w.pepper(t, token), 5*i, 5*i+5).from(trusted)).status == http.StatusOK {
					looked += 5
				}
				for range 2 {
					if w.send(t, post(storeInvitePath, token, inviteBody(t, map[string]any{"sender": user})).from(trusted)).status == http.StatusOK {
						invited++
					}
				}
			}
			// Looked-up addresses first used the budget up that an invite needs one of.
			if want := min(50, len(servers)); registered != want || looked != 20 || invited != 0 {
				t.Errorf("%d registrations, %d addresses looked up, %d invites", registered, looked, invited)
			}
			w = limitedWorld(t, limits)
			for i, server := range servers[:40] {
				user := fmt.Sprintf("@u%d:%s", i, server)
				if w.send(t, post(storeInvitePath, w.register(t, user), inviteBody(t, map[string]any{"sender": user})).from("203.0.113.9")).status == http.StatusOK {
					invited++
				}
			}
			if invited != 10 {
				t.Errorf("%d invites", invited)
			}
		})
	}
}

// TestAClientHasOneBudgetForAllItsHomeservers is the same attack with a domain for
// each account.
//
// Conformance (security): a client has totals of invites and of looked-up addresses over all homeservers that it makes accounts at
func TestAClientHasOneBudgetForAllItsHomeservers(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{StoreInviteHomeserver: perHour(10), LookupAddressesHomeserver: perDay(20)})
	looked, invited := 0, 0
	for i := range 20 {
		user := fmt.Sprintf("@u:s%d.example", i)
		token := w.register(t, user)
		invite := post(storeInvitePath, token, inviteBody(t, map[string]any{"sender": user}))
		if w.send(t, invite.from("192.0.2.1")).status == http.StatusOK {
			invited++
		}
		w.send(t, invite.from(fmt.Sprintf("192.0.2.%d", 2+i))).object(t)
		if i < 5 {
			continue
		}
		if w.send(t, lookup(t, token, w.pepper(t, token), 2*i, 2*i+2).from("192.0.2.1")).status == http.StatusOK {
			looked += 2
		}
	}
	if invited != 10 || looked != 18 { // and the one address that was invited
		t.Errorf("%d invites, %d addresses", invited, looked)
	}
	if n := w.refusals(t, "store_invite_ip") + w.refusals(t, "lookup_addresses_ip"); n == 0 {
		t.Error("the refusals are not counted")
	}
}

// TestWhatNeedsNoTokenIsLimitedByAddress is about everything that asks a database, or
// another server, for anybody.
//
// Conformance (security): what needs no access token, or has one that is not valid, is limited by address; the static answers (versions, terms) cost less than a limit
func TestWhatNeedsNoTokenIsLimitedByAddress(t *testing.T) {
	t.Parallel()
	const stranger = "192.0.2.66"
	link := threepid.Challenge{SID: "sid", ClientSecret: "secret", Token: "token"}
	for name, r := range map[string]request{
		"unbinding":                      post(unbindPath, "", `{"mxid":"@a:example.org","threepid":{"medium":"email","address":"a@b.org"}}`),
		"accepting an invite":            post("/_matrix/identity/v2/sign-ed25519?mxid=x&token=y&private_key=z", "", ""),
		"accepting an invite, version 1": post(v1+"/sign-ed25519?mxid=x&token=y&private_key=z", "", ""),
		"a key":                          get("/_matrix/identity/v2/pubkey/ed25519:x", ""),
		"whether a key is valid":         get("/_matrix/identity/v2/pubkey/isvalid?public_key=x", ""),
		"whether an ephemeral one is":    get("/_matrix/identity/v2/pubkey/ephemeral/isvalid?public_key=x", ""),
		"whether one is, version 1":      get(v1+"/pubkey/ephemeral/isvalid?public_key=x", ""),
		"the page of an invite":          get(invitePath+"?token=x&private_key=y", ""),
		"the page of a link":             get(linkTo(emailSubmit, link), ""),
		"a token that is not valid":      get("/_matrix/identity/v2/account", "unknown"),
		"logging out":                    post("/_matrix/identity/v2/account/logout", "unknown", ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := limitedWorld(t, httpapi.Limits{OpenIP: perHour(3)}, func(s *settings) {
				s.api.ConfirmPage = true
				s.api.V1 = httpapi.V1{Keys: true, Links: true}
			})
			for range 3 {
				if a := w.send(t, r.from(stranger)); a.status == http.StatusTooManyRequests {
					t.Fatalf("refused at once: %s", a.body)
				}
			}
			a := w.send(t, r.from(stranger))
			if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") != "1200" {
				t.Errorf("%d, Retry-After %q: %s", a.status, a.header.Get("Retry-After"), a.body)
			}
			for _, other := range []string{"192.0.2.1", "203.0.113.1"} {
				if a := w.send(t, r.from(other)); a.status == http.StatusTooManyRequests {
					t.Errorf("from %s: %s", other, a.body)
				}
			}
			token := w.register(t, alice)
			w.send(t, get("/_matrix/identity/v2/account", token).from(stranger)).object(t) // with a token that is valid
		})
	}
}

// TestTextMessagesOfWhoDoesNotSubmitTheirCodes has four accounts of one homeserver
// ask for as many messages as there may be in an hour.
//
// Conformance (security): no homeserver uses up what text messages may cost for all: its share is a quarter of each cap, and codes that are submitted do not count
// Conformance (attacks): using up the text messages of a country: four accounts, 60 requests | a homeserver has a quarter of the cap for messages whose codes are not submitted
func TestTextMessagesOfWhoDoesNotSubmitTheirCodes(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{SMSCountry: perHour(60), SMSTotal: perHour(200)})
	var accounts []string
	for i := range 4 {
		accounts = append(accounts, w.register(t, fmt.Sprintf("@m%d:s%d.evil.example", i, i)))
	}
	ask := func(token string, i int) answer {
		return w.send(t, textTo(t, token, "GB", fmt.Sprintf("077009%05d", i), fmt.Sprint("s", i)))
	}
	sent := 0
	for i := range 60 {
		if ask(accounts[i%4], i).status == http.StatusOK {
			sent++
		}
	}
	if sent != 15 {
		t.Errorf("%d messages, want a quarter", sent)
	}
	honest := w.register(t, alice)
	for i := range 40 { // more than a share, and each code comes back
		ask(honest, 100+i).object(t)
		w.send(t, post(msisdnSubmit, honest, proof(t, w.sms.last(t)))).object(t)
	}
	w.send(t, post(msisdnSubmit, honest, proof(t, w.sms.last(t)))).object(t) // which gives nothing back once more
	for i := range 5 {
		ask(honest, 200+i).object(t)
	}
	ask(honest, 300).refused(t, 429, "M_LIMIT_EXCEEDED") // the cap itself
	if capped, shared := w.refusals(t, "sms_country"), w.refusals(t, "sms_share"); capped != 1 || shared != 45 {
		t.Errorf("%v refusals by the cap, %v by the share", capped, shared)
	}
	if n := strings.Count(w.log.String(), "do not submit their codes"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}

// A homeserver asks for all of its users from one address, and version 1 knows it
// by that. Its lookups have no account that pays.
func TestLimitsOfVersion1(t *testing.T) {
	t.Parallel()
	find := func(address string) request {
		return get(v1+"/lookup?"+url.Values{"medium": {"email"}, "address": {address}}.Encode(), "")
	}
	legacy := func(s *settings) { s.api.V1 = everything() }
	w := limitedWorld(t, httpapi.Limits{RequestTokenIP: perHour(1), RequestTokenAccount: perHour(1), RequestTokenAddress: perHour(1), LookupIP: perHour(3)}, legacy)
	for i := range 3 {
		body := fmt.Sprintf("client_secret=s&email=%d%%40example.net&send_attempt=1", i)
		w.send(t, form("/validate/email/requestToken", body)).object(t)
		w.send(t, form("/validate/email/requestToken", strings.Replace(body, "=s&", "=t&", 1))).limited(t, time.Hour)
		w.send(t, find("carol@example.net")).object(t)
	}
	w.send(t, find("carol@example.net")).limited(t, 20*time.Minute)

	w = limitedWorld(t, httpapi.Limits{LookupAddressesHomeserver: perDay(2), LookupIP: perHour(9)}, legacy)
	for _, address := range []string{"carol@example.net", "Carol@Example.net", "dave@example.net", "no address"} {
		w.send(t, find(address)).object(t)
	}
	w.send(t, find("erin@example.net")).limited(t, 12*time.Hour)
	// The users of the homeserver have the same budget by version 2.
	token := w.register(t, alice)
	w.send(t, lookup(t, token, w.pepper(t, token), 0, 1)).limited(t, 12*time.Hour)
}

func TestDefaultLimitsHaveNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, name := range httpapi.LimitNames() {
		if n := w.refusals(t, name); n != 0 {
			t.Errorf("%s has refused %v requests", name, n)
		}
	}
}

// TestLimitsCountAProxyThatIsNotNamed has a proxy on this machine, whose addresses
// are trusted as sources, forward for many clients.
//
// Conformance (security): behind a proxy that `http.trusted_proxies` does not name, limits by address count the proxy, and a warning says so once (also TestAProxyThatIsNotTrustedIsNoticedOnce)
func TestLimitsCountAProxyThatIsNotNamed(t *testing.T) {
	t.Parallel()
	w := limitedWorld(t, httpapi.Limits{RegisterIP: perHour(2)}, func(s *settings) {
		s.api.TrustedProxies = nil
		s.api.TrustedSources = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	body := encode(t, map[string]any{"access_token": alice, "matrix_server_name": "example.org"})
	for i := range 3 {
		w.send(t, post(registerPath, "", body)).object(t) // from the homeserver next door
		if a := w.send(t, post(registerPath, "", body).from(fmt.Sprintf("192.0.2.%d", i))); i < 2 {
			a.object(t)
		} else {
			a.limited(t, 30*time.Minute)
		}
	}
}
