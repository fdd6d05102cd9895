package main

import (
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/telemetry"
)

// Conformance (version 1): sources that are nobody, everybody, or this machine behind an unnamed proxy | a fault of the configuration; a warning (also TestEveryFaultIsReportedAtOnce)
func TestSourcesOfVersion1AreKnownAtStart(t *testing.T) {
	t.Parallel()
	const (
		here   = "trusted_homeservers: it names this machine"
		names  = "server_name: id.example.org\npublic_base_url: https://id.example.org\n"
		shared = "server_name: example.org\npublic_base_url: https://Example.org\n"
		too    = "public_base_url: Example.org is the name of a homeserver too"
	)
	for name, c := range map[string]struct {
		text, fault, warning string
		delegate             string // what /.well-known/matrix/server says
	}{
		"a host of its own":            {text: names + "trusted_homeservers: {192.0.2.7: [example.org]}", delegate: "id.example.org:443"},
		"a port of its own":            {text: "server_name: x\npublic_base_url: https://id.example.org:8090/id\ntrusted_homeservers: {192.0.2.7: [example.org]}", delegate: "id.example.org:8090"},
		"a homeserver's host":          {text: shared + "trusted_homeservers: {192.0.2.7: [example.com, example.org]}", warning: too},
		"that of one that is allowed":  {text: shared + "homeservers: {allow: [example.com, example.org]}\ntrusted_homeservers: {192.0.2.7: [example.com]}", warning: too},
		"that of one with settings":    {text: shared + "homeservers: {settings: {example.org: {language: de}}}\ntrusted_homeservers: {192.0.2.7: [example.com]}", warning: too},
		"that of one that nobody asks": {text: shared + "homeservers: {allow: [example.org]}"},
		"an address":                   {text: "trusted_homeservers: {192.0.2.7: [example.org]}"},
		"an address of IPv6":           {text: `trusted_homeservers: {"2001:db8::1": ["example.org:8448"]}`},
		"an address of IPv4 in IPv6":   {text: `trusted_homeservers: {"::ffff:192.0.2.7": [example.org]}`},
		"a range of IPv4 in IPv6":      {text: `trusted_homeservers: {"::ffff:192.0.2.0/120": [example.org]}`, fault: "use an address or a range"},
		"all of IPv6":                  {text: `trusted_homeservers: {"::/0": [example.org]}`, fault: "is everybody"},
		"this machine":                 {text: "trusted_homeservers: {127.0.0.1: [example.org]}", warning: here},
		"this machine, behind a proxy": {text: "http: {trusted_proxies: [127.0.0.1]}\ntrusted_homeservers: {127.0.0.1: [example.org]}"},
		"this machine by IPv6":         {text: `trusted_homeservers: {"::1": [example.org]}`, warning: here},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := loadConfig(writeFile(t, filepath.Join(t.TempDir(), "identity.yaml"), c.text), nil, false)
			if (c.fault == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.fault) {
				t.Fatalf("error %v, want %q", err, c.fault)
			}
			if err != nil {
				return
			}
			if got := strings.Join(cfg.warnings(), "\n"); (c.warning == "") != (got == "") || !strings.Contains(got, c.warning) {
				t.Errorf("warnings %q, want %q", got, c.warning)
			}
			if got := cfg.v1().Delegate; got != c.delegate {
				t.Errorf("homeservers are sent to %q, want %q", got, c.delegate)
			}
		})
	}
}

// allow adds to the world's configuration.
func (w *world) allow(t *testing.T, text string) {
	t.Helper()
	before, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, w.config, string(before)+text)
}

// form posts a form to an endpoint of version 1.
func form(t *testing.T, base, path string, values url.Values, header http.Header) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/_matrix/identity/api/v1"+path, strings.NewReader(values.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		r.Header[name] = value
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(t, r)
}

// TestAHomeserverWithoutAccessTokens runs what Dendrite and Synapse ask for by
// version 1 against the real program, by way of a proxy, and asks for the same
// from elsewhere.
//
// Conformance (attacks): a version 1 request in a homeserver's name | its address has to be configured
func TestAHomeserverWithoutAccessTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	w.allow(t, fmt.Sprintf("trusted_homeservers: {192.0.2.7: [%q]}\n", w.homeserver))
	p := w.start(t)
	alice, bob := "@alice:"+w.homeserver, "@bob:"+w.homeserver
	from := http.Header{"X-Forwarded-For": {"192.0.2.7"}} // as the proxy here says
	const api = "/_matrix/identity/api/v1"
	ask := func(path string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.API+api+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = from
		status, answer := do(t, r)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
		return answer
	}
	submit := func(path string, values url.Values) string {
		t.Helper()
		status, answer := form(t, p.API, path, values, from)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
		return answer
	}

	sid := member(t, submit("/validate/email/requestToken", url.Values{
		"client_secret": {"monkeys"}, "email": {"alice@example.com"}, "send_attempt": {"1"},
	}), "sid")
	if status, page := press(t, w.mailed(t, 1)); status != http.StatusOK {
		t.Fatalf("the link in the mail: %d %s", status, page)
	}
	query := url.Values{"sid": {sid}, "client_secret": {"monkeys"}}
	if got := member(t, ask("/3pid/getValidated3pid?"+query.Encode()), "address"); got != "alice@example.com" {
		t.Errorf("validated %s", got)
	}
	query.Set("mxid", "@alice:example.org")
	if status, answer := form(t, p.API, "/3pid/bind", query, from); status != http.StatusForbidden {
		t.Errorf("another server's user: %d %s", status, answer)
	}
	query.Set("mxid", alice)
	submit("/3pid/bind", query)
	const lookup = "/lookup?medium=email&address=alice%40example.com"
	found := ask(lookup)
	if got := member(t, found, "mxid"); got != alice {
		t.Errorf("found %s", got)
	}
	invite := url.Values{"medium": {"email"}, "address": {"carol@example.net"}, "room_id": {"!tea:example.org"}, "sender": {bob}}
	room := submit("/store-invite", invite)
	valid := api + "/pubkey/isvalid?public_key=" + url.QueryEscape(member(t, room, "public_key"))
	if _, answer := send(t, http.MethodGet, w.front.URL+valid, "", ""); answer != `{"valid":true}` {
		t.Errorf("the key in the room: %s", answer)
	}
	number := `{"country":"GB","phone_number":"07700900001","client_secret":"monkeys","send_attempt":1}`
	for path, body := range map[string]string{"/validate/msisdn/requestToken": number, "/lookup": ""} {
		method := http.MethodPost
		if body == "" {
			method, path = http.MethodGet, lookup
		}
		if status, answer := send(t, method, w.front.URL+api+path, "", body); status != http.StatusForbidden {
			t.Errorf("%s from elsewhere: %d %s", path, status, answer)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.API+api+"/validate/msisdn/requestToken", strings.NewReader(number))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = from
	if status, answer := do(t, r); status != http.StatusOK || member(t, answer, "msisdn") != "447700900001" {
		t.Errorf("a telephone number: %d %s", status, answer)
	}
}

// TestLinksNeverLeadToWhatIsOff makes the service write links and addresses of
// keys under every combination of switches, and follows all of them.
//
// Conformance (invites): validity URLs and links are below our own public base URL and never lead to what is switched off (≠ Sydent) | version 2, whatever is on
func TestLinksNeverLeadToWhatIsOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	w.allow(t, fmt.Sprintf("trusted_homeservers: {127.0.0.1: [%q]}\n", w.homeserver))
	cfg, err := loadConfig(w.config, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	tracer, stop, err := telemetry.Tracing(t.Context(), cfg.Tracing, "identity", version, log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stop(t.Context()) }()
	env := environment{log: log, reg: prometheus.NewRegistry(), tracer: tracer}
	made, err := newParts(cfg, env, newMessengers)
	if err != nil {
		t.Fatal(err)
	}
	db, err := openStore(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	servers, err := homeserver.New(made.homeservers)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newService(t.Context(), cfg, db, made.messengers, servers, env)
	if err != nil {
		t.Fatal(err)
	}
	f := follower{world: w}
	trusted := cfg.TrustedHomeservers
	for switches := range 1 << 3 {
		on := func(i int) bool { return switches&(1<<i) != 0 }
		cfg.TrustedHomeservers, cfg.V1.Lookup, cfg.Validation.ConfirmPage = nil, on(1), on(2)
		if on(0) {
			cfg.TrustedHomeservers = trusted
		}
		t.Run(fmt.Sprintf("%03b", switches), func(t *testing.T) {
			env := env
			env.reg = prometheus.NewRegistry()
			handler, err := newHandler(cfg, s, made.pages, env)
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(handler)
			defer server.Close()
			u, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			w.target.Store(u)
			f.all(t, cfg)
		})
	}
}

// follower follows the links of a world.
type follower struct {
	*world

	mails int
	users int
}

// all has links written by version 2, and by version 1 if it is on.
func (f *follower) all(t *testing.T, cfg *Config) {
	t.Helper()
	f.users++
	name := fmt.Sprintf("user%d", f.users)
	c, user := f.register(t, f.front.URL, name), "@"+name+":"+f.homeserver
	sender := url.QueryEscape(user)
	request := "client_secret=s&send_attempt=1&email=" + name + "%40"
	invite := "medium=email&room_id=!r&sender=" + sender + "&address=" + name + "%40"
	c.post(t, "/validate/email/requestToken", `{"client_secret":"s","send_attempt":1,"email":%q}`, name+"@two.example")
	f.proves(t, cfg.Validation.ConfirmPage)
	_, room := send(t, http.MethodPost, f.front.URL+"/_matrix/identity/v2/store-invite", c.token,
		fmt.Sprintf(`{"medium":"email","address":%q,"room_id":"!r","sender":%q}`, name+"@invited.two.example", user))
	f.invites(t, room)
	if !cfg.trustsHomeservers() {
		return
	}
	submit := func(path, values string) string {
		t.Helper()
		parsed, err := url.ParseQuery(values)
		if err != nil {
			t.Fatal(err)
		}
		status, answer := form(t, f.front.URL, path, parsed, nil)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
		return answer
	}
	submit("/validate/email/requestToken", request+"one.example")
	f.proves(t, cfg.Validation.ConfirmPage)
	f.invites(t, submit("/store-invite", invite+"invited.one.example"))
}

// next returns the link in the next mail.
func (f *follower) next(t *testing.T) *url.URL {
	t.Helper()
	f.mails++
	return f.mailed(t, f.mails)
}

// proves follows the link of the next mail, and presses the button.
func (f *follower) proves(t *testing.T, button bool) {
	t.Helper()
	link := f.next(t)
	var status int
	var page string
	if button {
		status, page = press(t, link)
	} else {
		status, page = send(t, http.MethodGet, link.String(), "", "")
	}
	if status != http.StatusOK || !strings.Contains(page, "Email address confirmed") {
		t.Errorf("%s: %d %s", link.Path, status, page)
	}
}

var (
	validityURL = regexp.MustCompile(`"public_key":"([^"]*)","key_validity_url":"([^"]*)"`)
	clientLink  = regexp.MustCompile(`href="(https://app\.element\.io/[^"]*)"`)
)

// invites asks for the keys of a room, opens the mail and the client that it
// leads to, and accepts.
func (f *follower) invites(t *testing.T, room string) {
	t.Helper()
	keys := validityURL.FindAllStringSubmatch(room, -1)
	if len(keys) != 2 {
		t.Fatalf("%s", room)
	}
	for _, k := range keys {
		if status, answer := send(t, http.MethodGet, k[2]+"?public_key="+url.QueryEscape(k[1]), "", ""); answer != `{"valid":true}` {
			t.Errorf("%s: %d %s", k[2], status, answer)
		}
	}
	status, page := send(t, http.MethodGet, f.next(t).String(), "", "")
	href := clientLink.FindStringSubmatch(page)
	if status != http.StatusOK || href == nil {
		t.Fatalf("%d %s", status, page)
	}
	_, query, _ := strings.Cut(html.UnescapeString(href[1]), "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	if status, signed := send(t, http.MethodPost, values.Get("signurl")+"&mxid=%40a%3Aexample.org", "", ""); status != http.StatusOK {
		t.Errorf("%s: %d %s", values.Get("signurl"), status, signed)
	}
}
