package safehttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

const secret = "sEcReT"

func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

func newClient(t *testing.T, opts safehttp.Options) *safehttp.Client {
	t.Helper()
	c, err := safehttp.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func plainServer(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// get returns the status and body, or the first error of either.
func get(t *testing.T, c *safehttp.Client, url string) (int, string, error) {
	t.Helper()
	return exchange(c.Do(request(t, http.MethodGet, url, nil)))
}

func exchange(resp *http.Response, err error) (int, string, error) {
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// wantError fails unless err is target and says nothing it should not.
func wantError(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
	if strings.Contains(err.Error(), secret) {
		t.Fatalf("the error holds the secret: %v", err)
	}
}

func TestDoReturnsTheAnswerOfAnAllowedServer(t *testing.T) {
	t.Parallel()
	srv := plainServer(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, r.UserAgent())
	})
	c := newClient(t, safehttp.Options{AllowNets: loopback(), UserAgent: "Herald/1"})
	status, body, err := get(t, c, srv.URL+"/x")
	if err != nil || status != 200 || body != "GET /x Herald/1" {
		t.Errorf("got %d %q %v", status, body, err)
	}

	req := request(t, http.MethodGet, srv.URL, nil)
	req.Header.Set("User-Agent", "own")
	if _, body, err := exchange(c.Do(req)); err != nil || body != "GET / own" {
		t.Errorf("a request's own User-Agent is replaced: %q %v", body, err)
	}
}

func TestDoRefusesAddressesThatAreNotPublic(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	srv := plainServer(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	port := strings.TrimPrefix(srv.URL, "http://127.0.0.1:")
	ns := safehttptest.NewDNS(t)
	ns.Host("private.example", "127.0.0.1")
	ns.Host("metadata.example", "169.254.169.254")
	ns.Host("both.example", "10.0.0.1", "127.0.0.1")
	c := newClient(t, safehttp.Options{Resolver: ns.Resolver()})
	for _, host := range []string{
		"127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0", "private.example", "metadata.example", "both.example",
	} {
		t.Run(host, func(t *testing.T) {
			_, _, err := get(t, c, "http://"+host+":"+port+"/?token="+secret)
			wantError(t, err, safehttp.ErrBlocked)
		})
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("the loopback server was reached %d times", n)
	}
}

// A name that resolves to an allowed address at first and to a forbidden one
// later must not reach the second, although a server listens there.
//
// Conformance (attacks): a name whose address changes between check and use | each connection is checked, not the name
func TestDoChecksTheAddressOfEveryConnectionNotOfTheFirstLookup(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	handler := func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		w.Header().Set("Connection", "close")
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	var err error
	_ = srv.Listener.Close()
	if srv.Listener, err = net.Listen("tcp4", "0.0.0.0:0"); err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(srv.Close)

	ns := safehttptest.NewDNS(t)
	ns.Host("rebind.example", "127.0.0.2")
	ns.Host("rebind.example", "127.0.0.1")
	c := newClient(t, safehttp.Options{
		Resolver:  ns.Resolver(),
		AllowNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")},
	})
	target := fmt.Sprintf("http://rebind.example:%d/", safehttptest.Port(srv))
	if _, _, err := get(t, c, target); err != nil {
		t.Fatalf("first answer: %v", err)
	}
	_, _, err = get(t, c, target)
	wantError(t, err, safehttp.ErrBlocked)
	if n := hits.Load(); n != 1 {
		t.Errorf("%d requests arrived, want 1", n)
	}
}

func TestDoRefusesSchemes(t *testing.T) {
	t.Parallel()
	c := newClient(t, safehttp.Options{AllowNets: loopback()})
	strict := newClient(t, safehttp.Options{AllowNets: loopback(), RequireHTTPS: true})
	for name, tc := range map[string]struct {
		client *safehttp.Client
		url    string
	}{
		"http where https is required": {strict, "http://127.0.0.1:1/"},
		"file":                         {c, "file:///etc/passwd"},
		"gopher":                       {c, "gopher://127.0.0.1:1/"},
		"none":                         {c, "//127.0.0.1:1/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := &closeRecorder{Reader: strings.NewReader("x")}
			req := request(t, http.MethodPost, tc.url, body)
			_, _, err := exchange(tc.client.Do(req))
			wantError(t, err, safehttp.ErrScheme)
			if !body.closed {
				t.Error("the request's body was not closed")
			}
		})
	}
}

type closeRecorder struct {
	io.Reader
	closed bool
}

func (c *closeRecorder) Close() error { c.closed = true; return nil }

func TestErrorsDoNotQuoteThePeerOrTheURL(t *testing.T) {
	t.Parallel()
	raw := func(answer string) string {
		srv := plainServer(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		})
		return srv.URL
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	ns := safehttptest.NewDNS(t)
	c := newClient(t, safehttp.Options{AllowNets: loopback(), Resolver: ns.Resolver(), MaxRedirects: 3})
	tests := map[string]struct{ url, want string }{
		"no HTTP at all":        {raw(secret + "\r\n\r\n"), "no valid HTTP answer"},
		"a broken header":       {raw("HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n"), "no valid HTTP answer"},
		"a broken redirect":     {raw("HTTP/1.1 302 Found\r\nLocation: http://[" + secret + "\r\nContent-Length: 0\r\n\r\n"), "no valid HTTP answer"},
		"a broken length":       {raw("HTTP/1.1 200 OK\r\nContent-Length: " + secret + "\r\n\r\n"), "no valid HTTP answer"},
		"connection refused":    {closed.URL, "connection refused"},
		"an unknown host":       {"http://nobody.example", "no such host"},
		"TLS to a plain server": {strings.Replace(raw(secret), "http:", "https:", 1), ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := get(t, c, tc.url+"/"+secret+"?access_token="+secret)
			if err == nil {
				t.Fatal("no error")
			}
			if quoting := (*url.Error)(nil); errors.As(err, &quoting) {
				t.Errorf("an error that quotes the URL can be had: %v", quoting)
			}
			if strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, want it to say %q and not the secret", err, tc.want)
			}
		})
	}
}

func TestTheEnvironmentsProxyIsIgnored(t *testing.T) { // not parallel: t.Setenv
	var hits atomic.Int32
	proxy := plainServer(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	t.Setenv("NO_PROXY", "")
	ns := safehttptest.NewDNS(t)
	ns.Host("server.example", "127.0.0.1") // localhost would not be proxied anyway
	srv := plainServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "direct") })
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, safehttp.Options{AllowNets: loopback(), Resolver: ns.Resolver()})
	_, body, err := get(t, c, "http://server.example:"+u.Port())
	if err != nil || body != "direct" || hits.Load() != 0 {
		t.Errorf("got %q, %v; the proxy was asked %d times", body, err, hits.Load())
	}
}

func TestNewRefusesOptionsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	tests := map[string]safehttp.Options{
		"a negative timeout":           {Timeout: -1},
		"a negative body limit":        {MaxBody: -1},
		"negative redirects":           {MaxRedirects: -1},
		"a network that is not set":    {AllowNets: []netip.Prefix{{}}},
		"a network in mapped form":     {AllowNets: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}},
		"a proxy of an unknown scheme": {Proxy: &url.URL{Scheme: "socks5", Host: "127.0.0.1:1080"}},
		"a proxy without a host":       {Proxy: &url.URL{Scheme: "http", Host: ":3128"}},
	}
	for name, opts := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := safehttp.New(opts); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestConnectionsMayBeRefused(t *testing.T) {
	t.Parallel()
	type key struct{}
	srv := plainServer(t, func(http.ResponseWriter, *http.Request) {})
	full := errors.New("full")
	var asked []any
	c := newClient(t, safehttp.Options{AllowNets: loopback(), Connecting: func(ctx context.Context, addr netip.Addr) error {
		asked = append(asked, ctx.Value(key{}), addr.String())
		return full
	}})
	req := request(t, http.MethodGet, srv.URL, nil)
	_, err := c.Do(req.WithContext(context.WithValue(req.Context(), key{}, "mine")))
	if !errors.Is(err, full) || strings.Contains(err.Error(), "full") {
		t.Errorf("%v", err)
	}
	if diff := cmp.Diff([]any{"mine", "127.0.0.1"}, asked); diff != "" {
		t.Error(diff)
	}
	if _, _, err := get(t, c, "http://10.0.0.1/"); !errors.Is(err, safehttp.ErrBlocked) || len(asked) != 2 {
		t.Errorf("a private address: %v", err)
	}
}
