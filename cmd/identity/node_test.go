package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// site is what a service needs around it: a database, a relay and a homeserver,
// in the words of a configuration. It stays when the service is killed.
type site struct {
	database   string // URL, as sqlstore.Open takes it
	config     string // the name of the file
	relay      *threepidtest.SMTP
	homeserver string // the server name
	caFile     string // of relay and homeserver
}

// newSite makes a site with a database. Of the homeserver's users, whatever name it
// is called by, an OpenID token is the user ID; any other token is refused.
func newSite(t testing.TB, database, more string) *site {
	t.Helper()
	s := &site{database: database, relay: threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})}
	ca := safehttptest.NewCA(t)
	hs := ca.Server(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.URL.Query().Get("access_token")
		if port := s.homeserver[strings.LastIndex(s.homeserver, ":"):]; !strings.HasSuffix(token, port) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errcode":"M_UNKNOWN_TOKEN","error":"unknown"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"sub": token})
	}), "127.0.0.1", "localhost")
	s.homeserver = hs.Listener.Addr().String()

	s.caFile = authorities(t, s.relay.CAFile, ca.File(t))
	where := fmt.Sprintf("url: %q", database)
	if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
		where = fmt.Sprintf("test_path: %q", path)
	}
	s.config = writeFile(t, filepath.Join(t.TempDir(), "identity.yaml"), fmt.Sprintf(`
server_name: is.example.org
public_base_url: https://is.example.org
data_dir: data
secret_key: the-code-key-of-the-tests-0123456789
http: {listen: ["127.0.0.1:0"], admin_listen: 127.0.0.1:0, test_drain_delay: 0s}
database: {%s}
email: {host: %q, from: noreply@example.org}
allow_networks: [127.0.0.0/8]
ca_file: %q
log: {format: json}
%s
%s
`, where, s.relay.Addr, s.caFile, noLimits(), more))
	return s
}

// noLimits is the section of a configuration for tests that ask for more than
// people do.
func noLimits() string {
	const named = "limits: {mail_per_address: off, messages_per_client: off, sms_total: off, lookups_per_account: off, invites_per_account: off"
	var rest []string
	for _, name := range []string{
		"request_token_number", "request_token_ip", "sms_country", "submit_token_session", "submit_token_account", "submit_token_ip", "register_homeserver", "register_ip",
		"bind_account", "lookup_account", "lookup_ip", "lookup_addresses_homeserver", "store_invite_homeserver", "store_invite_target",
	} {
		rest = append(rest, ", test_"+name+": off")
	}
	return named + strings.Join(rest, "") + "}"
}

// node is a running identity binary, and a client of it.
type node struct {
	*harness.Process

	client *http.Client
}

// start runs the binary on the site until the test ends.
func (s *site) start(t testing.TB) *node {
	t.Helper()
	return (&node{Process: harness.Start(t, nil, "-config", s.config)}).with(t, &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true})
}

// with returns another client of the same service.
func (n *node) with(t testing.TB, transport *http.Transport) *node {
	t.Helper()
	t.Cleanup(transport.CloseIdleConnections)
	return &node{n.Process, &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// reply is an answer of the service.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request; an empty body is none.
func (n *node) do(ctx context.Context, method, path, token, body string) (*http.Request, reply, error) {
	r, err := http.NewRequestWithContext(ctx, method, n.API+path, strings.NewReader(body))
	if err != nil {
		return nil, reply{}, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := n.client.Do(r)
	if err != nil {
		return r, reply{}, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return r, reply{res.StatusCode, res.Header, answer}, err
}

// ask sends a request of version 2 and decodes the answer, which must be a 200,
// into into.
func (n *node) ask(ctx context.Context, method, path, token, body string, into any) error {
	_, a, err := n.do(ctx, method, "/_matrix/identity/v2"+path, token, body)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("%s %s: %d %s", method, path, a.status, a.body)
	}
	return json.Unmarshal(a.body, into)
}

// register returns an access token of a user.
func (n *node) register(ctx context.Context, server, user string) (token string, err error) {
	var answer struct{ Token string }
	body := fmt.Sprintf(`{"matrix_server_name":%q,"access_token":%q,"token_type":"Bearer","expires_in":3600}`, server, user)
	return answer.Token, n.ask(ctx, http.MethodPost, "/account/register", "", body, &answer)
}

// clientSecret is that of all sessions.
const clientSecret = "monkeys_are_GREAT"

// session asks for a mail.
func (n *node) session(ctx context.Context, token, address string) (sid string, err error) {
	var answer struct{ SID string }
	body := fmt.Sprintf(`{"client_secret":%q,"email":%q,"send_attempt":1}`, clientSecret, address)
	return answer.SID, n.ask(ctx, http.MethodPost, "/validate/email/requestToken", token, body, &answer)
}

// submit sends the token of a mail back.
func (n *node) submit(ctx context.Context, token, sid, mailed string) error {
	var answer struct{ Success bool }
	body := fmt.Sprintf(`{"client_secret":%q,"sid":%q,"token":%q}`, clientSecret, sid, mailed)
	err := n.ask(ctx, http.MethodPost, "/validate/email/submitToken", token, body, &answer)
	if err == nil && !answer.Success {
		err = fmt.Errorf("the token was not accepted")
	}
	return err
}

// bind binds the address of a validated session.
func (n *node) bind(ctx context.Context, token, sid, user string) error {
	var answer map[string]any
	body := fmt.Sprintf(`{"client_secret":%q,"sid":%q,"mxid":%q}`, clientSecret, sid, user)
	return n.ask(ctx, http.MethodPost, "/3pid/bind", token, body, &answer)
}

// pepper returns the announced pepper.
func (n *node) pepper(ctx context.Context, token string) (string, error) {
	var answer struct {
		Pepper string `json:"lookup_pepper"`
	}
	return answer.Pepper, n.ask(ctx, http.MethodGet, "/hash_details", token, "", &answer)
}

// lookup returns the users of what is bound among addresses, by the string in
// the request.
func (n *node) lookup(ctx context.Context, token, algorithm, pepper string, addresses []string) (map[string]string, error) {
	body, err := json.Marshal(map[string]any{"algorithm": algorithm, "pepper": pepper, "addresses": addresses})
	if err != nil {
		return nil, err
	}
	var answer struct{ Mappings map[string]string }
	return answer.Mappings, n.ask(ctx, http.MethodPost, "/lookup", token, string(body), &answer)
}

var mailedLink = regexp.MustCompile(`https://is\.example\.org/\S+`)

// mailedTokens returns what the mails of a site hold, by the address they were
// sent to.
func (s *site) mailedTokens(t testing.TB) map[string]string {
	t.Helper()
	tokens := make(map[string]string)
	for _, m := range s.relay.Messages() {
		link, err := url.Parse(mailedLink.FindString(m.Text(t)))
		if err != nil {
			t.Fatal(err)
		}
		tokens[m.To[0]] = link.Query().Get("token")
	}
	return tokens
}
