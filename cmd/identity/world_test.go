package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/httpapi/httpapitest"
	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/internal/redisconn"
	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	curlMain()
	harness.Main(m)
}

// startBinary runs the binary until stop or the end of the test and waits until
// it listens.
func startBinary(t *testing.T, environ []string, args ...string) *harness.Process {
	t.Helper()
	return harness.Start(t, append([]string{"IDENTITY_LOG_FORMAT=json", "TMPDIR=" + t.TempDir()}, environ...), args...)
}

// world is what an identity service needs around it, with a configuration that
// uses it.
type world struct {
	relay      *threepidtest.SMTP
	gateway    *threepidtest.SMS
	homeserver string // server name
	front      *httptest.Server
	config     string           // file name
	redis      redisconn.Config // with PostgreSQL

	target atomic.Pointer[url.URL] // where front leads to
}

const serverName = "id.example.org"

// newWorld makes a world whose identity service keeps its data in a database as
// storetest names them.
func newWorld(t *testing.T, database string) *world {
	t.Helper()
	w := &world{relay: threepidtest.NewSMTP(t, threepidtest.SMTPOptions{}), gateway: threepidtest.NewSMS(t)}
	// A reverse proxy with the public address, as in front of a real service.
	w.front = httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(w.target.Load())
		r.SetXForwarded()
	}})
	t.Cleanup(w.front.Close)
	ca := safehttptest.NewCA(t)
	hs := ca.Server(t, "127.0.0.1:0", http.HandlerFunc(w.userInfo), "127.0.0.1")
	w.homeserver = strings.TrimPrefix(hs.URL, "https://")

	where := fmt.Sprintf("{url: %q}", database)
	if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
		where = fmt.Sprintf("{test_path: %q}", path)
	}
	shared := ""
	if !strings.HasPrefix(database, "sqlite:") {
		// Several processes share a database, and count limits together.
		w.redis = redistest.Shared(t)
		shared = redistest.Section(w.redis)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "code_key"), strings.Repeat("0123456789abcdef", 3)+"\n")
	w.config = writeFile(t, filepath.Join(dir, "identity.yaml"), fmt.Sprintf(`
server_name: %s
public_base_url: %s
data_dir: data
secret_key_file: code_key
http: {listen: ["127.0.0.1:0"], admin_listen: "127.0.0.1:0", test_drain_delay: 100ms, trusted_proxies: [127.0.0.1]}
database: %s
email: {host: %q, from: "Herald <noreply@id.example.org>"}
sms:
  provider: webhook
  countries: [GB]
  webhook: {url: %s, body: '{"to": {{json .To}}, "text": {{json .Text}}}'}
homeservers: {names_for_us: []}
allow_networks: [127.0.0.0/8]
ca_file: %s
log: {format: json, level: debug}
terms:
  privacy: {version: "1.0", languages: {en: {name: Privacy, url: "https://id.example.org/privacy-1.0-en"}}}
%s`, serverName, w.front.URL, where, w.relay.Addr, w.gateway.URL, authorities(t, w.relay.CAFile, ca.File(t)), shared))
	return w
}

// authorities returns a file with the certificates of several.
func authorities(t testing.TB, files ...string) string {
	t.Helper()
	var all []byte
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	return writeFile(t, filepath.Join(t.TempDir(), "ca.pem"), string(all))
}

// userInfo is the homeserver's answer: an OpenID token is "openid-" and the
// localpart of its user. All else it refuses, and quotes what it was asked.
func (w *world) userInfo(rw http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Query().Get("access_token"), "openid-")
	if !ok || r.URL.Path != "/_matrix/federation/v1/openid/userinfo" {
		body, _ := io.ReadAll(r.Body) // what there is of it
		rw.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(rw).Encode(map[string]string{"errcode": "M_UNKNOWN_TOKEN", "error": r.RequestURI + string(body)})
		return
	}
	fmt.Fprintf(rw, `{"sub":%q}`, "@"+name+":"+w.homeserver)
}

// start runs identity and makes it what the public address leads to.
func (w *world) start(t *testing.T) *harness.Process {
	t.Helper()
	return w.startWith(t, nil)
}

// startWith is start with further environment variables. Beside authorities that
// they name, the relay's is good.
func (w *world) startWith(t *testing.T, environ []string) *harness.Process {
	t.Helper()
	environ = slices.Clone(environ)
	for i, variable := range environ {
		if file, ok := strings.CutPrefix(variable, "IDENTITY_CA_FILE="); ok {
			environ[i] = "IDENTITY_CA_FILE=" + authorities(t, w.relay.CAFile, file)
		}
	}
	p := startBinary(t, environ, "-config", w.config)
	u, err := url.Parse(p.API)
	if err != nil {
		t.Fatal(err)
	}
	w.target.Store(u)
	return p
}

// press opens the page that a mailed link leads to, and presses its button.
func press(t *testing.T, link *url.URL) (status int, answer string) {
	t.Helper()
	status, page := send(t, http.MethodGet, link.String(), "", "")
	action := regexp.MustCompile(`action="([^"]*)"`).FindStringSubmatch(page)
	if status != http.StatusOK || action == nil {
		t.Fatalf("%s: %d %s", link.Path, status, page)
	}
	to, err := link.Parse(html.UnescapeString(action[1]))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to.String(), strings.NewReader(link.RawQuery))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(t, r)
}

// client is a Matrix client, logged in with token unless that is empty.
type client struct {
	base  string // of the service
	token string
}

// ask sends a request and returns the status and the answer's object.
func (c client) ask(t *testing.T, method, path, body string) (int, map[string]any) {
	t.Helper()
	status, answer := send(t, method, c.base+"/_matrix/identity/v2"+path, c.token, body)
	var object map[string]any
	dec := json.NewDecoder(strings.NewReader(answer))
	dec.UseNumber()
	if err := dec.Decode(&object); err != nil {
		t.Fatalf("%s %s: %d %q: %v", method, path, status, answer, err)
	}
	return status, object
}

// get returns the object that a successful GET is answered with.
func (c client) get(t *testing.T, path string) map[string]any {
	t.Helper()
	status, object := c.ask(t, http.MethodGet, path, "")
	if status != http.StatusOK {
		t.Fatalf("GET %s: %d %v", path, status, object)
	}
	return object
}

// post returns the object that a successful POST is answered with. The body is
// a format of fmt.
func (c client) post(t *testing.T, path, body string, args ...any) map[string]any {
	t.Helper()
	status, object := c.ask(t, http.MethodPost, path, fmt.Sprintf(body, args...))
	if status != http.StatusOK {
		t.Fatalf("POST %s: %d %v", path, status, object)
	}
	return object
}

// register returns a client of a user of the world's homeserver who accepted
// the terms.
func (w *world) register(t *testing.T, base, name string) client {
	t.Helper()
	c := client{base: base}
	c.token = c.post(t, "/account/register", `{"access_token":"openid-%s","token_type":"Bearer","matrix_server_name":%q,"expires_in":3600}`,
		name, w.homeserver)["token"].(string)
	if status, refusal := c.ask(t, http.MethodGet, "/account", ""); refusal["errcode"] != "M_TERMS_NOT_SIGNED" && status != http.StatusOK {
		t.Fatalf("before the terms are accepted: %d %v", status, refusal)
	}
	policies := c.get(t, "/terms")["policies"].(map[string]any)
	document := policies["privacy"].(map[string]any)["en"].(map[string]any)["url"]
	c.post(t, "/terms", `{"user_accepts":[%q]}`, document)
	return c
}

var webLink = regexp.MustCompile(`https?://\S+`)

// mailed returns the link in the n-th mail.
func (w *world) mailed(t *testing.T, n int) *url.URL {
	t.Helper()
	text := w.relay.Wait(t, n)[n-1].Text(t)
	u, err := url.Parse(webLink.FindString(text))
	if err != nil || u.Query().Get("token") == "" {
		t.Fatalf("no link in\n%s", text)
	}
	return u
}

// send sends a request, with a bearer token unless that is empty.
func send(t *testing.T, method, target, token, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return do(t, r)
}

// do sends a request on a connection of its own: services come and go. It holds
// answers of the API against the specification.
func do(t *testing.T, r *http.Request) (status int, answer string) {
	t.Helper()
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(res.Request.URL.Path, "/_matrix/identity/") { // and not where a redirect led to
		httpapitest.Check(t, res.Request, res.StatusCode, res.Header, data)
	}
	return res.StatusCode, string(data)
}

// member returns a string of a JSON object.
func member(t *testing.T, object, name string) string {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(object), &all); err != nil {
		t.Fatal(err)
	}
	s, ok := all[name].(string)
	if !ok {
		t.Fatalf("no string %s in %s", name, object)
	}
	return s
}
