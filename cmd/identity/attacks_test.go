package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/mail"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

// TestACodeCannotBeGuessedInParallel has 400 clients guess a code of six digits
// at two replicas at once, which limit nobody. No more than ten guesses are
// compared, and the right code is worth nothing afterwards.
func TestACodeCannotBeGuessedInParallel(t *testing.T) {
	t.Parallel()
	storetest.NeedServer(t)
	w := newWorld(t, storetest.PostgreSQL(t))
	unlimited := []string{"IDENTITY_LIMITS_SUBMIT_TOKEN_SESSION=off", "IDENTITY_LIMITS_SUBMIT_TOKEN_ACCOUNT=off"}
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

// TestAHomeserverCannotBeImpersonated lets others answer in its name.
func TestAHomeserverCannotBeImpersonated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	ca, stranger := safehttptest.NewCA(t), safehttptest.NewCA(t)
	userOf := func(sub string) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(rw).Encode(map[string]string{"sub": sub})
		})
	}
	// Each server is asked by its own address; {} in the sub is that.
	servers := map[string]struct {
		name func() string
		want int
	}{}
	add := func(what, sub string, want int, ca *safehttptest.CA, names ...string) {
		mux := http.NewServeMux()
		srv := ca.Server(t, "127.0.0.1:0", mux, names...)
		name := strings.TrimPrefix(srv.URL, "https://")
		mux.Handle("/", userOf(strings.ReplaceAll(sub, "{}", name)))
		servers[what] = struct {
			name func() string
			want int
		}{func() string { return name }, want}
	}
	add("the server itself", "@alice:{}", http.StatusOK, ca, "127.0.0.1")
	add("a certificate for another name", "@alice:{}", http.StatusBadGateway, ca, "matrix.example.org")
	add("a certificate nobody vouches for", "@alice:{}", http.StatusBadGateway, stranger, "127.0.0.1")
	add("a user of another server", "@alice:matrix.org", http.StatusUnauthorized, ca, "127.0.0.1")
	add("a user of a longer name", "@alice:{}.evil.example", http.StatusUnauthorized, ca, "127.0.0.1")
	add("a user of another port", "@alice:127.0.0.1", http.StatusUnauthorized, ca, "127.0.0.1")
	add("a user with two servers", "@alice:matrix.org:{}", http.StatusUnauthorized, ca, "127.0.0.1")
	add("no user", "{}", http.StatusUnauthorized, ca, "127.0.0.1")
	add("nobody", "", http.StatusUnauthorized, ca, "127.0.0.1")
	p := w.startWith(t, []string{"IDENTITY_HOMESERVERS_CA_FILE=" + ca.File(t)})
	for what, server := range servers {
		status, answer := send(t, http.MethodPost, p.API+"/_matrix/identity/v2/account/register", "",
			fmt.Sprintf(`{"access_token":"t","token_type":"Bearer","matrix_server_name":%q,"expires_in":3600}`, server.name()))
		if status != server.want || status != http.StatusOK && strings.Contains(answer, `"token"`) {
			t.Errorf("%s: %d %s, want %d", what, status, answer, server.want)
		}
	}
}

// TestAReplayedSignatureIsWorthNothingElsewhere sends what a homeserver signed once
// more: to another service, for another user or address, and to the same, where it
// finds nothing left to do. The same again after a new binding is a request that
// the homeserver itself would sign alike.
func TestAReplayedSignatureIsWorthNothingElsewhere(t *testing.T) {
	t.Parallel()
	peers, environ := newPeers(t, 1)
	p := peers[0]
	bound := func(w *world, name string) (client, string) {
		t.Helper()
		w.startWith(t, environ)
		c, address := registerAt(t, w.front.URL, p, name), name+"@example.com"
		w.bind(t, c, p.user(name), address)
		return c, address
	}
	here, there := newWorld(t, storetest.SQLite(t)), newWorld(t, storetest.SQLite(t))
	here.rename(t, "one.example.org")
	there.rename(t, "two.example.org")
	first, address := bound(here, "b")
	second, _ := bound(there, "b")
	recorded := func() *unbinding { return p.unbind(p.user("b"), address, "one.example.org") }

	if status, answer := recorded().send(t, there.front.URL); status != http.StatusUnauthorized {
		t.Errorf("at another service: %d %s", status, answer)
	}
	renamed := recorded()
	renamed.header["destination"] = "two.example.org"
	if status, answer := renamed.send(t, there.front.URL); status != http.StatusForbidden {
		t.Errorf("at another service, in its name: %d %s", status, answer)
	}
	for name, change := range map[string]func(u *unbinding){
		"for another address": func(u *unbinding) {
			u.content["threepid"] = map[string]any{"medium": "email", "address": "c@example.com"}
		},
		"for another user": func(u *unbinding) { u.content["mxid"] = p.user("c") },
		"with more in it":  func(u *unbinding) { u.content["x"] = "y" },
	} {
		u := recorded()
		change(u)
		if status, answer := u.send(t, here.front.URL); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	for name, c := range map[string]client{"here": first, "there": second} {
		if hashed, _ := c.lookup(t, address); hashed == nil {
			t.Errorf("%s: unbound by a request that was refused", name)
		}
	}
	for range 2 {
		if status, answer := recorded().send(t, here.front.URL); status != http.StatusOK {
			t.Errorf("as it was signed: %d %s", status, answer)
		}
	}
	if hashed, _ := second.lookup(t, address); hashed == nil {
		t.Error("there: unbound by a request to another service")
	}
}

// rename gives the world's service another name.
func (w *world) rename(t *testing.T, name string) {
	t.Helper()
	config, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, w.config, strings.Replace(string(config), "server_name: "+serverName, "server_name: "+name, 1))
}

// hostile is what an attacker would like to see in a header or a page.
const hostile = "x\r\nBcc: mallory@evil.example\r\n\r\n<script>alert(1)</script><img src=x onerror=alert(1)>\"'><a href=https://evil.example>click</a>{{.Token}}\u202e"

// mailFields are the fields in the header of each of our mails.
var mailFields = []string{"Auto-Submitted", "Content-Language", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To", "X-Auto-Response-Suppress"}

// TestNothingThatAClientSendsBecomesAHeaderOrMarkup puts hostile text into every
// member of every request that leads to a mail, in turn.
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

// TestALinkLeadsNowhereElse asks for redirects that a mailed link must not make:
// by the link, and by the client that asked for the mail.
func TestALinkLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	w.start(t)
	c := w.register(t, w.front.URL, "alice")
	for i, next := range []string{
		"javascript:alert(1)", "data:text/html,<script>alert(1)</script>", "//evil.example/", "/relative", "evil.example", "ftp://evil.example/",
		"https:evil.example", "https:///evil.example", "https://user:password@evil.example/", "http://evil.example\r\nSet-Cookie: a=b", "\tjavascript:alert(1)",
	} {
		body, err := json.Marshal(map[string]any{"client_secret": "s", "email": fmt.Sprintf("alice%d@example.com", i), "send_attempt": 1, "next_link": next})
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := c.ask(t, http.MethodPost, "/validate/email/requestToken", string(body)); status != http.StatusBadRequest {
			t.Errorf("next_link %q: %d %v", next, status, answer)
		}
	}
	c.post(t, "/validate/email/requestToken", `{"client_secret":"s","email":"alice@example.com","send_attempt":1}`)
	link := w.mailedTo(t, "alice@example.com", "/submitToken")
	query := link.Query()
	for _, name := range []string{"next_link", "nextLink", "next", "redirect", "url"} {
		query.Set(name, "https://evil.example/")
	}
	link.RawQuery = query.Encode()
	if status, page := press(t, link); status != http.StatusOK || !strings.Contains(page, "Email address confirmed") {
		t.Errorf("the link with more in it: %d %s", status, page)
	}
}
