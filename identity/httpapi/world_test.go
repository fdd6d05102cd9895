package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/identity/httpapi/httpapitest"
	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

const (
	serverName = "is.example.org"
	baseURL    = "https://id.example.org"
	alice      = "@alice:example.org"
	bob        = "@bob:example.org"
)

// world is a running identity service with the real domain on a real database.
// Only the outside is played: homeservers, the relay, the SMS provider and time.
type world struct {
	handler  http.Handler
	url      string
	client   *http.Client // follows no redirect
	registry *prometheus.Registry
	log      *buffer
	clock    *clock
	mail     *messenger
	sms      *messenger
	servers  *federation
	db       *sqlstore.DB
	keys     *identity.Keyring
	peppers  *identity.Peppers
}

// settings are what tests change about a world.
type settings struct {
	api      httpapi.Options  // what New is called with, but for the domain
	options  *httpapi.Options // unless nil, gets what New is called with
	pages    string
	policies []identity.Policy
	hashOnly bool
}

func newWorld(t testing.TB, change func(*settings)) *world {
	t.Helper()
	var set settings
	if change != nil {
		change(&set)
	}
	w := &world{
		registry: prometheus.NewRegistry(), log: &buffer{}, mail: &messenger{}, sms: &messenger{}, servers: &federation{},
		clock: &clock{now: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)},
	}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	db, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: storetest.SQLite(t)})
	check(t, err)
	t.Cleanup(func() { db.Close() })
	w.db = db
	metrics := identity.NewMetrics(w.registry)
	set.api.Sessions, err = validation.New(validation.Options{
		Store:      db,
		Messengers: map[threepid.Medium]validation.Messenger{threepid.MediumEmail: w.mail, threepid.MediumMSISDN: w.sms},
		CodeKey:    bytes.Repeat([]byte{7}, validation.MinCodeKey),
		Now:        w.clock.Now, Log: log, Registerer: w.registry,
	})
	check(t, err)
	w.keys, err = identity.OpenKeyring(t.Context(), identity.KeyringOptions{Store: db, Now: w.clock.Now, Log: log})
	check(t, err)
	w.peppers, err = identity.OpenPeppers(t.Context(), identity.PeppersOptions{
		Store: db, Directory: db, Now: w.clock.Now, Log: log, Metrics: metrics,
	})
	check(t, err)
	set.api.Accounts, err = identity.NewAccounts(identity.AccountsOptions{
		Store: db, OpenID: homeservers{}, Now: w.clock.Now, Log: log, Metrics: metrics,
	})
	check(t, err)
	set.api.Terms, err = identity.NewTerms(identity.TermsOptions{Policies: set.policies, Store: db, Now: w.clock.Now})
	check(t, err)
	set.api.Directory, err = identity.NewDirectory(identity.DirectoryOptions{
		Store: db, Peppers: w.peppers, Keys: w.keys, Proofs: proofs{set.api.Sessions}, ServerName: serverName,
		PlainLookup: !set.hashOnly, Now: w.clock.Now, Metrics: metrics,
	})
	check(t, err)
	set.api.Invites, err = identity.NewInvites(identity.InvitesOptions{
		Store: db, Keys: w.keys, Mailer: w.mail, ServerName: serverName, Now: w.clock.Now, Log: log, Metrics: metrics,
	})
	check(t, err)
	set.api.Homeservers, set.api.BaseURL = w.servers, baseURL
	set.api.Clients = []httpapi.Client{{Name: "Element", URL: "https://app.element.example"}, {Name: "Other", URL: "https://other.example/chat/"}}
	set.api.Pages, err = httpapi.LoadPages(set.pages)
	check(t, err)
	set.api.Keys, set.api.Log, set.api.Registerer = w.keys, log, w.registry
	if set.api.Timeout == 0 {
		set.api.Timeout = time.Minute
	}
	set.api.Limiter, err = ratelimit.New(ratelimit.Options{
		Names: httpapi.LimitNames(), Service: "identity", Log: log, Registerer: w.registry, Now: w.clock.Now,
	})
	check(t, err)
	if set.options != nil {
		*set.options = set.api
	}
	h, err := httpapi.New(set.api)
	check(t, err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	w.handler, w.url, w.client = h, server.URL, server.Client()
	w.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return w
}

// with returns the same world behind an API with other options.
func (w *world) with(t testing.TB, opts httpapi.Options) *world {
	t.Helper()
	h, err := httpapi.New(opts)
	check(t, err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	other := *w
	other.url = server.URL
	return &other
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// proofs makes identity's Proofs of validation sessions.
type proofs struct{ sessions *validation.Sessions }

func (p proofs) Validated(ctx context.Context, owner, sid, secret string) (identity.Proof, error) {
	return proven(p.sessions.Validated(ctx, owner, sid, secret))
}

func (p proofs) Proven(ctx context.Context, sid, secret string) (identity.Proof, error) {
	return proven(p.sessions.Proven(ctx, sid, secret))
}

func proven(s validation.Session, err error) (identity.Proof, error) {
	return identity.Proof{ID: s.ID, ValidatedAt: s.ValidatedAt, OriginalSpelling: s.OriginalSpelling}, err
}

// homeservers answer for OpenID tokens: a token is the user it belongs to, or
// the name of a failure.
type homeservers struct{}

func (homeservers) UserInfo(_ context.Context, server, token string) (string, error) {
	failures := map[string]error{
		"refused": identity.ErrOpenIDRefused, "mismatch": identity.ErrOpenIDMismatch,
		"unreachable": identity.ErrUnreachable, "busy": identity.ErrBusy,
	}
	switch {
	case strings.ContainsAny(server, "/ "):
		return "", identity.ErrInvalidServerName
	case failures[token] != nil:
		return "", failures[token]
	}
	return token, nil
}

// messenger is a mailbox and a telephone: it keeps what it is sent.
type messenger struct {
	mu   sync.Mutex
	err  error
	sent []threepid.Challenge

	invitations []threepid.Invitation
}

func (m *messenger) SendInvitation(_ context.Context, i threepid.Invitation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.invitations = append(m.invitations, i)
	}
	return m.err
}

// invitation returns the newest invitation.
func (m *messenger) invitation(t testing.TB) threepid.Invitation {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.invitations) == 0 {
		t.Fatal("nobody was invited")
	}
	return m.invitations[len(m.invitations)-1]
}

// federation checks signatures: the header "signed <origin>" is a good one, any
// other one is the name of a failure.
type federation struct {
	mu   sync.Mutex
	seen httpapi.SignedRequest
}

func (f *federation) Signer(_ context.Context, r httpapi.SignedRequest) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = r
	header := strings.Join(r.Authorization, ",")
	switch header {
	case "elsewhere":
		return "", identity.ErrWrongDestination
	case "unreachable":
		return "", identity.ErrUnreachable
	}
	origin, ok := strings.CutPrefix(header, "signed ")
	if !ok {
		return "", identity.ErrNotSigned
	}
	return origin, nil
}

func (m *messenger) Send(_ context.Context, c threepid.Challenge) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.sent = append(m.sent, c)
	}
	return m.err
}

func (m *messenger) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// messages returns everything that was sent.
func (m *messenger) messages() []threepid.Challenge {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]threepid.Challenge(nil), m.sent...)
}

// last returns the newest message.
func (m *messenger) last(t testing.TB) threepid.Challenge {
	t.Helper()
	all := m.messages()
	if len(all) == 0 {
		t.Fatal("nothing was sent")
	}
	return all[len(all)-1]
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// buffer is a log that tests read while it is written.
type buffer struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	written chan struct{} // closed by the next Write
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written != nil {
		close(b.written)
		b.written = nil
	}
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	text, _ := b.read()
	return text
}

// read returns what is there, and what is closed when there is more.
func (b *buffer) read() (string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written == nil {
		b.written = make(chan struct{})
	}
	return b.buf.String(), b.written
}

// logged waits for a line with all parts: a request is answered before it is
// logged.
func (w *world) logged(t testing.TB, parts ...string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		text, more := w.log.read()
		for line := range strings.Lines(text) {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
				return
			}
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("no line with %q in\n%s", parts, text)
		}
	}
}

// request is one request. Body is sent as JSON without saying so, which the
// specification allows.
type request struct {
	method, path string
	token        string // for the Authorization header, "" for none
	body         string
	header       http.Header
}

func get(path, token string) request        { return request{method: "GET", path: path, token: token} }
func post(path, token, body string) request { return request{"POST", path, token, body, nil} }

type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends r, without following redirects, and holds the answer against the
// specification.
func (w *world) send(t testing.TB, r request) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, w.url+r.path, strings.NewReader(r.body))
	check(t, err)
	for name, values := range r.header {
		req.Header[name] = values
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	res, err := w.client.Do(req)
	check(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	check(t, err)
	a := answer{res.StatusCode, res.Header, body}
	checkConventions(t, req, a)
	httpapitest.Check(t, req, a.status, a.header, a.body)
	return a
}

// checkConventions holds an answer against what the specification says about
// all of them.
func checkConventions(t testing.TB, r *http.Request, a answer) {
	t.Helper()
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":  "*",
		"Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
		"Access-Control-Allow-Headers": "Origin, X-Requested-With, Content-Type, Accept, Authorization",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s %s: %s: %q, want %q", r.Method, r.URL.Path, name, got, want)
		}
	}
	if a.header.Get("Content-Type") != "application/json" {
		return
	}
	var object map[string]any
	if err := json.Unmarshal(a.body, &object); err != nil {
		t.Errorf("%s %s: %q: %v", r.Method, r.URL.Path, a.body, err)
	}
	code, _ := object["errcode"].(string)
	text, _ := object["error"].(string)
	if failed := a.status >= 400; failed && (code == "" || text == "") {
		t.Errorf("%s %s: %d without errcode or error: %s", r.Method, r.URL.Path, a.status, a.body)
	}
}

// object returns the JSON object of a successful answer.
func (a answer) object(t testing.TB) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(a.body, &object); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return object
}

// text returns a member of a successful answer.
func (a answer) text(t testing.TB, name string) string {
	t.Helper()
	s, ok := a.object(t)[name].(string)
	if !ok {
		t.Fatalf("no string %s in %s", name, a.body)
	}
	return s
}

// refused fails the test unless the answer is this error. It returns its object.
func (a answer) refused(t testing.TB, status int, errcode string) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(a.body, &object); err != nil || a.status != status || object["errcode"] != errcode {
		t.Fatalf("%d %s, want %d %s", a.status, a.body, status, errcode)
	}
	return object
}

// encode returns v as JSON.
func encode(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	check(t, err)
	return string(data)
}

// register returns an access token of a user.
func (w *world) register(t testing.TB, user string) string {
	t.Helper()
	_, server, _ := strings.Cut(user, ":")
	body := encode(t, map[string]any{"access_token": user, "matrix_server_name": server, "token_type": "Bearer", "expires_in": 3600})
	return w.send(t, post("/_matrix/identity/v2/account/register", "", body)).text(t, "token")
}

const (
	emailRequest  = "/_matrix/identity/v2/validate/email/requestToken"
	emailSubmit   = "/_matrix/identity/v2/validate/email/submitToken"
	msisdnRequest = "/_matrix/identity/v2/validate/msisdn/requestToken"
	msisdnSubmit  = "/_matrix/identity/v2/validate/msisdn/submitToken"
	getValidated  = "/_matrix/identity/v2/3pid/getValidated3pid"
	bindPath      = "/_matrix/identity/v2/3pid/bind"
	unbindPath    = "/_matrix/identity/v2/3pid/unbind"
	lookupPath    = "/_matrix/identity/v2/lookup"
	hashDetails   = "/_matrix/identity/v2/hash_details"
	termsPath     = "/_matrix/identity/v2/terms"
)

// session asks for a mail and returns what it says.
func (w *world) session(t testing.TB, token, email, secret string) threepid.Challenge {
	t.Helper()
	body := encode(t, map[string]any{"client_secret": secret, "email": email, "send_attempt": 1})
	w.send(t, post(emailRequest, token, body)).text(t, "sid")
	return w.mail.last(t)
}

// prove sends the token of a mail back.
func (w *world) prove(t testing.TB, token string, c threepid.Challenge) {
	t.Helper()
	if a := w.send(t, post(emailSubmit, token, proof(t, c))); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
}

// proof is the body of submitToken.
func proof(t testing.TB, c threepid.Challenge) string {
	t.Helper()
	return encode(t, map[string]string{"sid": c.SID, "client_secret": c.ClientSecret, "token": c.Token})
}
