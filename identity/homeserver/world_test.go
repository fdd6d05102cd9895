package homeserver_test

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

const token = "sEcReT+/token"

// world is a small internet: a name server, a certificate authority, and one
// server for the .well-known files of every host.
type world struct {
	dns *safehttptest.DNS
	ca  *safehttptest.CA

	wellKnownPort uint16
	now           atomic.Int64 // nanoseconds since 1970

	mu    sync.Mutex
	files map[string]http.HandlerFunc // by Host header
	hits  map[string]int
}

// newWorld returns a world in which hosts are known to DNS, at 127.0.0.1, and
// whose .well-known files are all 404.
func newWorld(t *testing.T, hosts ...string) *world {
	t.Helper()
	w := &world{
		dns:   safehttptest.NewDNS(t),
		ca:    safehttptest.NewCA(t),
		files: make(map[string]http.HandlerFunc),
		hits:  make(map[string]int),
	}
	w.now.Store(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC).UnixNano())
	for _, host := range hosts {
		w.dns.Host(host, "127.0.0.1")
	}
	srv := w.ca.Server(t, "127.0.0.1:0", http.HandlerFunc(w.serveWellKnown), hosts...)
	w.wellKnownPort = safehttptest.Port(srv)
	return w
}

func (w *world) serveWellKnown(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	host := strings.ToLower(r.Host)
	w.hits[host]++
	h, ok := w.files[host]
	w.mu.Unlock()
	if !ok || r.Method != http.MethodGet || r.URL.Path != "/.well-known/matrix/server" && r.URL.Path != "/moved" {
		http.NotFound(rw, r)
		return
	}
	h(rw, r)
}

// wellKnown sets the .well-known file of host.
func (w *world) wellKnown(host string, h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[host] = h
}

func (w *world) delegate(host, to string) {
	w.wellKnown(host, func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintf(rw, `{"m.server":%q}`, to) })
}

func (w *world) fetches(host string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hits[host]
}

func (w *world) options() homeserver.Options {
	return homeserver.Options{
		Timeout:   5 * time.Second,
		AllowNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		RootCAs:   w.ca.Pool(),
		Resolver:  w.dns.Resolver(),
		UserAgent: "Herald/test",
		Now:       func() time.Time { return time.Unix(0, w.now.Load()) },
	}.WithWellKnownPort(w.wellKnownPort)
}

func (w *world) client(t *testing.T) *homeserver.Client { return newClient(t, w.options()) }

func newClient(t *testing.T, opts homeserver.Options) *homeserver.Client {
	t.Helper()
	c, err := homeserver.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func newResolver(t *testing.T, opts homeserver.Options) *homeserver.Resolver {
	t.Helper()
	r, err := homeserver.NewResolver(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.CloseIdleConnections)
	return r
}

func (w *world) advance(d time.Duration) { w.now.Add(int64(d)) }

// hs is a homeserver that answers userinfo.
type hs struct {
	port uint16

	mu   sync.Mutex
	seen []string // "Host|SNI" of each request
}

// homeserver starts a homeserver whose certificate holds certNames and whose
// answer to the token is user.
func (w *world) homeserver(t *testing.T, user string, certNames ...string) *hs {
	t.Helper()
	return w.custom(t, func(rw http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/_matrix/federation/v1/openid/userinfo" || len(q) != 1 || q.Get("access_token") != token {
			rw.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(rw, `{"errcode":"M_UNKNOWN_TOKEN","error":"Access token unknown or expired"}`)
			return
		}
		fmt.Fprintf(rw, `{"sub":%q}`, user)
	}, certNames...)
}

func (w *world) custom(t *testing.T, h http.HandlerFunc, certNames ...string) *hs {
	t.Helper()
	s := new(hs)
	srv := w.ca.Server(t, "127.0.0.1:0", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Host+"|"+r.TLS.ServerName)
		s.mu.Unlock()
		h(rw, r)
	}), certNames...)
	s.port = safehttptest.Port(srv)
	return s
}

// answer is a handler that always says the same.
func answer(status int, body string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(status)
		fmt.Fprint(rw, body)
	}
}

func (s *hs) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// closedPort returns a port on 127.0.0.1 where nobody listens.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return netip.MustParseAddrPort(ln.Addr().String()).Port()
}

// silentPort returns a port on 127.0.0.1 where connections are taken and
// nothing is ever said.
func silentPort(t *testing.T) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return netip.MustParseAddrPort(ln.Addr().String()).Port()
}
