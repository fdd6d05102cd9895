package main

import (
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// spy is somebody with an eye on all that a service tells.
type spy struct {
	*world

	database string
	service  *harness.Process
	// addresses may stand in the database, where they are needed, and so may the
	// signing key; secrets are kept as hashes if at all.
	addresses, secrets harness.Secrets
	spans              func() string
}

func newSpy(t *testing.T, database string) *spy {
	t.Helper()
	s := &spy{world: newWorld(t, database), database: database}
	collector, spans := harness.Collector(t)
	s.spans = spans
	s.allow(t, fmt.Sprintf("trusted_homeservers: {192.0.2.7: [%q]}\n", s.homeserver))
	s.service = s.startWith(t, []string{"IDENTITY_TRACING_ENDPOINT=" + collector, "IDENTITY_LOG_LEVEL=debug"})
	s.secrets.Add("the code key", strings.Repeat("0123456789abcdef", 3))
	s.addresses.Add("the signing key", s.signingKey(t))
	return s
}

// signingKey returns the seed of the key that the service made at its start.
func (s *spy) signingKey(t *testing.T) string {
	t.Helper()
	if strings.HasPrefix(s.database, "sqlite:") {
		file, err := os.ReadFile(filepath.Join(filepath.Dir(s.config), "data", "signing.keys"))
		if err != nil {
			t.Fatal(err)
		}
		words := strings.Fields(string(file))
		return words[len(words)-1]
	}
	var seed string
	if err := direct(t, s.database).QueryRow(`SELECT seed FROM signing_keys`).Scan(&seed); err != nil {
		t.Fatal(err)
	}
	return seed
}

// address returns an address that is watched.
func (s *spy) address() string {
	address := "alice." + strings.ToLower(rand.Text()) + "@example.com"
	s.addresses.Add(address, address)
	return address
}

// secret returns a text that is watched.
func (s *spy) secret(name string) string {
	text := rand.Text()
	s.secrets.Add(name, text)
	return text
}

// provoke sends a request that must fail, and looks into the answer.
func (s *spy) provoke(t *testing.T, method, path, token, body string) {
	t.Helper()
	if status, answer := s.ask(t, method, path, token, body); status < http.StatusBadRequest {
		t.Errorf("%s %s: %d %s", method, path, status, answer)
	}
}

// provokePage presses the button of a link that does not work, and looks into the
// page that comes then.
func (s *spy) provokePage(t *testing.T, link *url.URL) {
	t.Helper()
	status, page := press(t, link)
	if found := append(s.addresses.In(page), s.secrets.In(page)...); status < http.StatusBadRequest || len(found) > 0 {
		t.Errorf("%s: %d %s tells %v", link.Path, status, page, found)
	}
}

// ask sends a request and looks into the answer.
func (s *spy) ask(t *testing.T, method, path, token, body string) (status int, answer string) {
	t.Helper()
	status, answer = send(t, method, s.front.URL+path, token, body)
	if found := append(s.addresses.In(answer), s.secrets.In(answer)...); len(found) > 0 {
		t.Errorf("%s %s: the answer %q tells %v", method, path, answer, found)
	}
	return status, answer
}

// TestNothingTellsSecrets takes every way there is through the service, right and
// wrong, and then looks everywhere.
//
// Conformance (attacks): reading logs, metrics, traces, errors | no address, token, code, key or body is in them
func TestNothingTellsSecrets(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		s := newSpy(t, newDatabase(t))
		// The homeserver takes any OpenID token that is a name after "openid-".
		openID := "alice" + strings.ToLower(s.secret("an OpenID token"))
		c := s.register(t, s.front.URL, openID)
		s.secrets.Add("an access token", c.token)
		alice := "@" + openID + ":" + s.homeserver
		s.validate(t, c, alice)
		s.text(t, c)
		s.invite(t, c, alice)
		s.tellHomeserver(t, c, alice)
		s.lookUp(t, c)
		s.failToSend(t, c)
		s.misuse(t, c)
		s.askByVersion1(t)
		metrics := func() string { _, text := fetch(t, s.service.Admin+"/metrics"); return text }()
		c.post(t, "/account/logout", "{}")
		s.look(t, metrics)
	})
}

// validate proves an address by its link, after failing to, and binds it.
func (s *spy) validate(t *testing.T, c client, user string) {
	t.Helper()
	address, secret := s.address(), s.secret("a client secret")
	sid := c.post(t, "/validate/email/requestToken", `{"client_secret":%q,"email":%q,"send_attempt":1}`, secret, address)["sid"].(string)
	link := s.mailedTo(t, address, "/submitToken")
	token := link.Query().Get("token")
	s.secrets.Add("a mailed token", token)
	const v2 = "/_matrix/identity/v2"
	s.provoke(t, http.MethodPost, v2+"/validate/email/submitToken", c.token, fmt.Sprintf(`{"sid":%q,"client_secret":%q,"token":%q}`, sid, secret, s.secret("a wrong token")))
	wrong := *link
	wrong.RawQuery = url.Values{"sid": {sid}, "client_secret": {secret}, "token": {s.secret("a wrong token in a link")}}.Encode()
	s.provokePage(t, &wrong)
	s.provoke(t, http.MethodPost, v2+"/3pid/bind", c.token, fmt.Sprintf(`{"sid":%q,"client_secret":%q,"mxid":%q}`, sid, secret, user))
	s.provoke(t, http.MethodGet, v2+"/3pid/getValidated3pid?sid="+sid+"&client_secret="+secret, c.token, "")
	if status, page := press(t, link); status != http.StatusOK {
		t.Errorf("the link: %d %s", status, page)
	}
	c.post(t, "/validate/email/submitToken", `{"sid":%q,"client_secret":%q,"token":%q}`, sid, secret, token)
	c.post(t, "/3pid/bind", `{"sid":%q,"client_secret":%q,"mxid":%q}`, sid, secret, user)
	s.provoke(t, http.MethodPost, v2+"/3pid/unbind", "", fmt.Sprintf(`{"mxid":%q,"threepid":{"medium":"email","address":%q}}`, user, address))
	c.post(t, "/3pid/unbind", `{"sid":%q,"client_secret":%q,"mxid":%q,"threepid":{"medium":"email","address":%q}}`, sid, secret, user, address)
	c.post(t, "/3pid/bind", `{"sid":%q,"client_secret":%q,"mxid":%q}`, sid, secret, user)
}

// text proves a number.
func (s *spy) text(t *testing.T, c client) {
	t.Helper()
	const number = "07700900123"
	s.addresses.Add("a number", "447700900123")
	s.addresses.Add("a number as given", number)
	secret := s.secret("a client secret for a number")
	sid := c.post(t, "/validate/msisdn/requestToken", `{"client_secret":%q,"country":"GB","phone_number":%q,"send_attempt":1}`, secret, number)["sid"].(string)
	code := regexp.MustCompile(`\d{6}`).FindString(s.gateway.Wait(t, 1)[0].JSON(t)["text"].(string))
	s.secrets.AddCode("a texted code", code)
	submit := `{"sid":%q,"client_secret":%q,"token":%q}`
	s.provoke(t, http.MethodPost, "/_matrix/identity/v2/validate/msisdn/submitToken", c.token, fmt.Sprintf(submit, sid, secret, "no"+code))
	c.post(t, "/validate/msisdn/submitToken", submit, sid, secret, code)

	// The provider quotes what it was sent.
	s.gateway.Answer(threepidtest.SMSAnswer{Status: 500, Body: `{"error":"cannot text 447700900124: ` + providersWords + `"}`})
	s.addresses.Add("a refused number", "447700900124")
	s.provoke(t, http.MethodPost, "/_matrix/identity/v2/validate/msisdn/requestToken", c.token,
		fmt.Sprintf(`{"client_secret":%q,"country":"GB","phone_number":"07700900124","send_attempt":1}`, secret))
	s.provoke(t, http.MethodPost, "/_matrix/identity/v2/validate/msisdn/requestToken", c.token,
		fmt.Sprintf(`{"client_secret":%q,"country":"FR","phone_number":"0601020304","send_attempt":1}`, secret))
}

// invite invites somebody, and fails to.
func (s *spy) invite(t *testing.T, c client, sender string) {
	t.Helper()
	const request = `{"medium":"email","address":%q,"room_id":"!tea:example.org","sender":%q,"room_name":%q}`
	address := s.address()
	c.post(t, "/store-invite", request, address, sender, "the room "+rand.Text())
	link := s.mailedTo(t, address, "/invite")
	key := link.Query().Get("private_key")
	if key == "" {
		key = regexp.MustCompile(`private_key(?:=|%3D)([A-Za-z0-9_-]{20,})`).FindStringSubmatch(link.String())[1]
	}
	s.secrets.Add("an invite's private key", strings.TrimRight(key, "="))
	if status, page := send(t, http.MethodGet, link.String(), "", ""); status != http.StatusOK {
		t.Errorf("the invite's page: %d %s", status, page)
	}
	s.provoke(t, http.MethodPost, "/_matrix/identity/v2/sign-ed25519", c.token, fmt.Sprintf(`{"mxid":%q,"token":%q,"private_key":%q}`, sender, s.secret("a wrong invite"), key))
	s.provoke(t, http.MethodPost, "/_matrix/identity/v2/sign-ed25519?mxid="+url.QueryEscape(sender)+"&token=wrong&private_key="+url.QueryEscape(key), "", "")
	s.relay.Fail(threepidtest.Fault{At: threepidtest.Recipient, Reply: &smtp.SMTPError{Code: 550, Message: "no such user"}})
	s.provoke(t, http.MethodPost, "/_matrix/identity/v2/store-invite", c.token, fmt.Sprintf(request, s.address(), sender, "Tea"))
}

// tellHomeserver binds an address with an invite, of which the homeserver hears
// and refuses in words that quote what it heard.
func (s *spy) tellHomeserver(t *testing.T, c client, user string) {
	t.Helper()
	address := s.address()
	c.post(t, "/store-invite", `{"medium":"email","address":%q,"room_id":"!tea:example.org","sender":%q}`, address, user)
	s.bind(t, c, user, address)
	s.service.Await(t, "homeserver refused to hear about a binding")
}

// lookUp looks up addresses that are nobody's, in every right and wrong way.
func (s *spy) lookUp(t *testing.T, c client) {
	t.Helper()
	pepper := c.get(t, "/hash_details")["lookup_pepper"]
	address := s.address()
	c.post(t, "/lookup", `{"algorithm":"none","pepper":%q,"addresses":[%q]}`, pepper, address+" email")
	for _, body := range []string{
		fmt.Sprintf(`{"algorithm":"none","pepper":"wrong","addresses":[%q]}`, address+" email"),
		fmt.Sprintf(`{"algorithm":%q,"pepper":%q,"addresses":[]}`, s.secret("an algorithm"), pepper),
		fmt.Sprintf(`{"algorithm":"none","pepper":%q,"addresses":[{"%s email":1}]}`, pepper, address),
		fmt.Sprintf(`{"algorithm":"none","pepper":%q,"addresses":[%q`, pepper, address),
	} {
		s.provoke(t, http.MethodPost, "/_matrix/identity/v2/lookup", c.token, body)
	}
}

// relaysWords and providersWords are what the log, and nobody else, learns of refusals.
const relaysWords, providersWords = "https://relay.example/help", "the gateway is full"

// failToSend lets the relay refuse mails in words that quote them.
func (s *spy) failToSend(t *testing.T, c client) {
	t.Helper()
	for i, stage := range []threepidtest.Stage{threepidtest.Mail, threepidtest.Recipient, threepidtest.Data} {
		for _, code := range []int{421, 550} { // after the former mails are sent again
			address, secret := s.address(), s.secret("a client secret")
			s.relay.Fail(threepidtest.Fault{At: stage, Reply: &smtp.SMTPError{
				Code: code, Message: "<" + address + "> refused for " + secret + ", see " + relaysWords,
			}})
			status, answer := s.ask(t, http.MethodPost, "/_matrix/identity/v2/validate/email/requestToken", c.token,
				fmt.Sprintf(`{"client_secret":%q,"email":%q,"send_attempt":%d}`, secret, address, i+1))
			if code == 550 && status < http.StatusBadRequest || strings.Contains(answer, relaysWords) {
				t.Errorf("a refused mail: %d %s", status, answer)
			}
		}
	}
}

// misuse sends secrets where none belong.
func (s *spy) misuse(t *testing.T, c client) {
	t.Helper()
	const v2 = "/_matrix/identity/v2"
	s.provoke(t, http.MethodPost, v2+"/account/register", "", fmt.Sprintf(`{"access_token":%q,"matrix_server_name":%q}`, s.secret("a refused OpenID token"), s.homeserver))
	s.provoke(t, http.MethodPost, v2+"/account/register", "", fmt.Sprintf(`{"access_token":%q,"matrix_server_name":"127.0.0.1:1"}`, s.secret("an OpenID token for nobody")))
	s.provoke(t, http.MethodPost, v2+"/account/register", "", fmt.Sprintf(`{"access_token":%q,"matrix_server_name":%q}`, s.secret("an OpenID token"), s.secret("a server name")+"/"))
	s.provoke(t, http.MethodGet, v2+"/account", s.secret("an unknown access token"), "")
	s.provoke(t, http.MethodGet, v2+"/account?access_token="+c.token, "", "")
	s.provoke(t, http.MethodGet, v2+"/account/"+url.PathEscape(s.address()), c.token, "")
	s.provoke(t, http.MethodGet, v2+"/pubkey/"+s.secret("a key's name"), "", "")
	s.provoke(t, "X"+s.secret("a method"), v2+"/account", c.token, "")
	for _, endpoint := range []string{
		"/validate/email/requestToken", "/validate/msisdn/requestToken", "/validate/email/submitToken", "/3pid/bind", "/3pid/unbind", "/lookup", "/store-invite", "/sign-ed25519",
	} {
		for _, body := range []string{`{"%s":`, `{"%[1]s":{"%[1]s":1}}`, `{"email":["%s"],"address":["%[1]s"],"sid":{"%[1]s":1},"addresses":"%[1]s","token":1}`} {
			s.provoke(t, http.MethodPost, v2+endpoint, c.token, fmt.Sprintf(body, s.address()))
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.front.URL+v2+"/3pid/unbind", strings.NewReader(fmt.Sprintf(`{"mxid":"@a:b","threepid":{"medium":"email","address":%q}}`, s.address())))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", fmt.Sprintf(`X-Matrix origin=%q,key="ed25519:a",sig=%q`, s.homeserver, s.secret("a signature")))
	r.Header.Set("X-Request-Id", s.secret("a request id with an address")+"@example.com")
	if status, answer := do(t, r); status < http.StatusBadRequest || len(s.secrets.In(answer)) > 0 {
		t.Errorf("a wrong signature: %d %s", status, answer)
	}
}

// askByVersion1 is what a homeserver and a stranger ask for without tokens.
func (s *spy) askByVersion1(t *testing.T) {
	t.Helper()
	const v1 = "/_matrix/identity/api/v1"
	homeserver := http.Header{"X-Forwarded-For": {"192.0.2.7"}} // as the proxy says
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.service.API+v1+"/lookup?medium=email&address="+url.QueryEscape(s.address()), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = homeserver
	if status, answer := do(t, r); status != http.StatusOK || answer != "{}" {
		t.Errorf("a homeserver's lookup: %d %s", status, answer)
	}
	request := url.Values{"email": {s.address()}, "client_secret": {s.secret("a homeserver's client secret")}, "send_attempt": {"1"}}
	if status, answer := form(t, s.service.API, "/validate/email/requestToken", request, homeserver); status != http.StatusOK {
		t.Errorf("a homeserver's request for a mail: %d %s", status, answer)
	}
	s.provoke(t, http.MethodGet, v1+"/lookup?medium=email&address="+url.QueryEscape(s.address()), "", "")
	s.provoke(t, http.MethodPost, v1+"/bulk_lookup", "", fmt.Sprintf(`{"threepids":[["email",%q]]}`, s.address()))
	s.provoke(t, http.MethodPost, v1+"/validate/email/requestToken", "", url.Values{"email": {s.address()}, "client_secret": {s.secret("a client secret in a form")}, "send_attempt": {"1"}}.Encode())
	link, err := url.Parse(s.front.URL + v1 + "/validate/email/submitToken?sid=1&client_secret=" + s.secret("a client secret in a link") + "&token=" + s.secret("a token in a link"))
	if err != nil {
		t.Fatal(err)
	}
	s.provokePage(t, link)
}

// look looks everywhere.
func (s *spy) look(t *testing.T, metrics string) {
	t.Helper()
	s.service.Stop(t) // sends the last spans
	for name, text := range map[string]string{
		"the log": s.service.Log.String(), "standard output": s.service.Out.String(), "the metrics": metrics, "the traces": s.spans(),
	} {
		if found := append(s.addresses.In(text), s.secrets.In(text)...); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
	for what, text := range map[string]string{"log": s.service.Log.String(), "metrics": metrics, "traces": s.spans()} {
		if len(text) < 1000 {
			t.Errorf("the %s: %q", what, text)
		}
	}
	for _, name := range []string{"send mail", "homeserver openid/userinfo", "POST /_matrix/identity/v2/3pid/bind"} {
		if !strings.Contains(s.spans(), name) {
			t.Errorf("no span is called %q", name)
		}
	}
	for _, words := range []string{relaysWords, providersWords} {
		if !strings.Contains(s.service.Log.String(), words) || strings.Contains(metrics+s.spans(), words) {
			t.Errorf("%q is not in the log, or elsewhere", words)
		}
	}
	cells := 0
	for table, text := range dump(t, direct(t, s.database)) {
		cells += strings.Count(text, "\n")
		if found := s.secrets.In(text); len(found) > 0 {
			t.Errorf("table %s: %v", table, found)
		}
	}
	if cells < 100 {
		t.Errorf("only %d values in the database", cells)
	}
}

// dump returns the values of each table, one a line: texts in quotes, bytes as
// they are and as hexadecimal.
func dump(t *testing.T, db *sql.DB) map[string]string {
	t.Helper()
	const inSQLite = `SELECT name FROM sqlite_master WHERE type = 'table'`
	const inPostgreSQL = `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`
	names, err := texts(db, inSQLite)
	if err != nil {
		if names, err = texts(db, inPostgreSQL); err != nil {
			t.Fatal(err)
		}
	}
	tables := make(map[string]string)
	for _, name := range names {
		if tables[name], err = values(db, `SELECT * FROM "`+name+`"`); err != nil {
			t.Fatal(err)
		}
	}
	return tables
}

func texts(db *sql.DB, query string) (all []string, err error) {
	rows, err := db.Query(query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, rows.Err()
}

func values(db *sql.DB, query string) (string, error) {
	rows, err := db.Query(query)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return "", err
	}
	row, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range row {
		into[i] = &row[i]
	}
	var all strings.Builder
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return "", err
		}
		for _, value := range row {
			switch value := value.(type) {
			case []byte:
				fmt.Fprintf(&all, "\"%s\" \"%s\"\n", value, hex.EncodeToString(value))
			case string:
				fmt.Fprintf(&all, "\"%s\"\n", value)
			default:
				fmt.Fprintf(&all, ":%v\n", value)
			}
		}
	}
	return all.String(), rows.Err()
}
