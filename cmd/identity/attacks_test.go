package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
)

// TestACodeCannotBeGuessedInParallel has 400 clients guess a code of six digits
// at two replicas at once, which limit nobody. No more than ten guesses are
// compared, and the right code is worth nothing afterwards.
//
// Conformance (attacks): guessing a code of six digits: in parallel, at all replicas, in five sessions of one number (1,250 guesses a day) | ten wrong guesses at a code, and at a number in a day over all sessions, counted before they are compared; then codes have twelve digits, so that the number's owner is not locked out; limits by session, account and address (also TestContract, TestLimitsOfSubmitToken)
func TestACodeCannotBeGuessedInParallel(t *testing.T) {
	t.Parallel()
	storetest.NeedServer(t)
	w := newWorld(t, storetest.PostgreSQL(t))
	unlimited := []string{"IDENTITY_LIMITS_TEST_SUBMIT_TOKEN_SESSION=off", "IDENTITY_LIMITS_TEST_SUBMIT_TOKEN_ACCOUNT=off"}
	replicas := []*harness.Process{w.startWith(t, unlimited), w.startWith(t, unlimited)}
	c := w.register(t, w.front.URL, "alice")
	sid := c.post(t, "/validate/msisdn/requestToken", `{"client_secret":"s","country":"GB","phone_number":"07700900001","send_attempt":1}`)["sid"]
	code := regexp.MustCompile(`\d{6}`).FindString(w.gateway.Wait(t, 1)[0].JSON(t)["text"].(string))
	right, err := strconv.Atoi(code)
	if err != nil {
		t.Fatal(err)
	}
	const guesses, most = 400, 10
	var guessing sync.WaitGroup
	for i := range guesses {
		guessing.Go(func() {
			wrong := fmt.Sprintf("%06d", (right+1+i)%1_000_000)
			status, answer := send(t, http.MethodPost, replicas[i%2].API+"/_matrix/identity/v2/validate/msisdn/submitToken", c.token,
				fmt.Sprintf(`{"sid":%q,"client_secret":"s","token":%q}`, sid, wrong))
			if status < http.StatusBadRequest {
				t.Errorf("a wrong code: %d %s", status, answer)
			}
		})
	}
	guessing.Wait()
	compared := 0
	for _, p := range replicas {
		_, metrics := fetch(t, p.Admin+"/metrics")
		for _, m := range regexp.MustCompile(`(?m)^herald_identity_validation_guesses_total\{medium="msisdn",outcome="wrong"\} (\d+)$`).FindAllStringSubmatch(metrics, -1) {
			n, _ := strconv.Atoi(m[1])
			compared += n
		}
	}
	if compared != most {
		t.Errorf("%d guesses were compared, want %d", compared, most)
	}
	for _, p := range replicas {
		status, answer := send(t, http.MethodPost, p.API+"/_matrix/identity/v2/validate/msisdn/submitToken", c.token,
			fmt.Sprintf(`{"sid":%q,"client_secret":"s","token":%q}`, sid, code))
		if status != http.StatusBadRequest || member(t, answer, "errcode") != "M_TOKEN_INCORRECT" {
			t.Errorf("the right code after all the wrong ones: %d %s", status, answer)
		}
	}
}

// hostile is what an attacker would like to see in a header or a page.
const hostile = "x\r\nBcc: mallory@evil.example\r\n\r\n<script>alert(1)</script><img src=x onerror=alert(1)>\"'><a href=https://evil.example>click</a>{{.Token}}\u202e"

// mailFields are the fields in the header of each of our mails.
var mailFields = []string{"Auto-Submitted", "Content-Language", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To", "X-Auto-Response-Suppress"}

// TestNothingThatAClientSendsBecomesAHeaderOrMarkup puts hostile text into every
// member of every request that leads to a mail, in turn.
//
// Conformance (attacks): headers or markup by way of names, rooms, links | header encoding, escaping, short texts, links to the service alone (also TestNothingInAChallengeBecomesAHeaderOrMarkup, TestStrangersWordsInInvitations)
func TestNothingThatAClientSendsBecomesAHeaderOrMarkup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	w.start(t)
	c := w.register(t, w.front.URL, "alice")
	alice := "@alice:" + w.homeserver
	requests := map[string]map[string]any{
		"/store-invite": {
			"medium": "email", "address": "bob@example.com", "room_id": "!r:example.org", "sender": alice, "room_alias": "#tea:example.org", "room_name": "Tea",
			"room_type": "m.space", "room_avatar_url": "mxc://example.org/a", "sender_display_name": "Alice", "sender_avatar_url": "mxc://example.org/b",
			"org.matrix.web_client_location": "https://app.element.io", "guest_access_token": "g", "guest_user_id": "@g:example.org",
		},
		"/validate/email/requestToken": {
			"client_secret": "s", "email": "carol@example.com", "send_attempt": 1, "next_link": "https://example.com/next", "brand": "b", "language": "en",
			"org.matrix.brand": "b",
		},
	}
	sent := 0
	for path, request := range requests {
		for name, value := range request {
			if _, text := value.(string); !text {
				continue
			}
			// Every mail goes to somebody else: limits are by address.
			for _, address := range []string{"address", "email"} {
				if _, there := request[address]; there {
					request[address] = fmt.Sprintf("to-%s@example.com", regexp.MustCompile(`\W`).ReplaceAllString(name, "-"))
				}
			}
			before := request[name]
			request[name] = hostile
			body, err := json.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			request[name] = before
			status, answer := c.ask(t, http.MethodPost, path, string(body))
			if status >= http.StatusInternalServerError {
				t.Errorf("%s with %s: %d %v", path, name, status, answer)
			}
			mails := w.relay.Messages()
			if status != http.StatusOK {
				if len(mails) != sent {
					t.Errorf("%s with %s: refused, and mailed", path, name)
				}
				sent = len(mails)
				continue
			}
			if sent++; len(mails) != sent {
				t.Fatalf("%s with %s: %d mails, want %d", path, name, len(mails), sent)
			}
			m := mails[sent-1]
			parsed, err := mail.ReadMessage(bytes.NewReader(m.Data))
			if err != nil {
				t.Fatal(err)
			}
			fields := slices.Sorted(maps.Keys(parsed.Header))
			if diff := cmp.Diff(mailFields, fields); diff != "" || len(m.To) != 1 || strings.Contains(m.Header(t, "To"), "mallory") {
				t.Errorf("%s with %s: to %q, fields (-want +got):\n%s", path, name, m.To, diff)
			}
			if html := m.HTML(t); strings.Contains(html, "<script") || strings.Contains(html, "<img src=x") || strings.Contains(html, `href="https://evil`) || strings.Contains(html, "href=https://evil") {
				t.Errorf("%s with %s: markup\n%s", path, name, html)
			}
			if text := m.Text(t) + m.HTML(t); strings.Contains(text, "\u202e") {
				t.Errorf("%s with %s: text that turns round\n%s", path, name, text)
			}
			for _, link := range webLink.FindAllString(m.Text(t), -1) {
				if strings.Contains(link, "evil.example") && !strings.HasPrefix(link, w.front.URL) {
					t.Errorf("%s with %s: a link to %s", path, name, link)
				}
			}
		}
	}
	if sent < 5 {
		t.Errorf("only %d mails", sent)
	}
}

// TestPagesShowNothingThatAVisitorBrings opens every page with hostile text in
// every parameter.
//
// Conformance (attacks): markup in pages by way of a link | pages show nothing that a visitor brings; no script, a strict policy (also TestPagesInABrowser)
func TestPagesShowNothingThatAVisitorBrings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	w.start(t)
	for _, path := range []string{
		"/_matrix/identity/v2/validate/email/submitToken", "/_matrix/identity/v2/validate/msisdn/submitToken",
		"/_matrix/identity/api/v1/validate/email/submitToken", "/invite", "/_matrix/identity/herald/v1/invite", "/" + url.PathEscape(hostile),
	} {
		query := url.Values{}
		for _, name := range []string{"sid", "client_secret", "token", "next_link", "nextLink", "email", "private_key", "signurl", "room_name", "lang"} {
			query.Set(name, hostile)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.front.URL+path+"?"+query.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Language", "<script>alert(1)</script>")
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("Forwarded", "host=evil.example")
		status, page := do(t, r)
		if strings.Contains(page, "<script>alert") || strings.Contains(page, "<img src=x") || strings.Contains(page, "evil.example") {
			t.Errorf("%s: %d\n%s", path, status, page)
		}
	}
}
