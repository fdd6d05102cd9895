package homeserver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/safehttp"
)

// wantError fails unless err is target, has its text only, and none of the
// token in it.
func wantError(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
	if err.Error() != target.Error() {
		t.Errorf("the text tells more than it should: %q", err)
	}
	if text := fmt.Sprintf("%+v", err); strings.Contains(text, "sEcReT") {
		t.Errorf("the error holds the token: %s", text)
	}
}

func TestUserInfoFindsTheServer(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		name     func(port uint16) string
		setup    func(w *world, port uint16)
		certName string
		wantHost string // in which %d is the port
		wantSNI  string
	}{
		"by an explicit port": {
			func(port uint16) string { return fmt.Sprintf("a.example:%d", port) },
			nil, "a.example", "a.example:%d", "a.example",
		},
		"by an IP literal, with a certificate for the address and no SNI": {
			func(port uint16) string { return fmt.Sprintf("127.0.0.1:%d", port) },
			nil, "127.0.0.1", "127.0.0.1:%d", "",
		},
		"by delegation to a name with port": {
			func(uint16) string { return "a.example" },
			func(w *world, port uint16) { w.delegate("a.example", fmt.Sprintf("b.example:%d", port)) },
			"b.example", "b.example:%d", "b.example",
		},
		"by delegation to an IP literal": {
			func(uint16) string { return "a.example" },
			func(w *world, port uint16) { w.delegate("a.example", fmt.Sprintf("127.0.0.1:%d", port)) },
			"127.0.0.1", "127.0.0.1:%d", "",
		},
		"by delegation and SRV, with a certificate for the delegated name": {
			func(uint16) string { return "a.example" },
			func(w *world, port uint16) {
				w.delegate("a.example", "b.example")
				w.dns.SRV("_matrix-fed._tcp.b.example", net.SRV{Target: "target.example", Port: port})
			},
			"b.example", "b.example", "b.example",
		},
		"by SRV, with a certificate for the server name": {
			func(uint16) string { return "a.example" },
			func(w *world, port uint16) {
				w.dns.SRV("_matrix-fed._tcp.a.example", net.SRV{Target: "target.example", Port: port})
			},
			"a.example", "a.example", "a.example",
		},
		"by the deprecated SRV": {
			func(uint16) string { return "a.example" },
			func(w *world, port uint16) {
				w.dns.SRV("_matrix._tcp.a.example", net.SRV{Target: "target.example", Port: port})
			},
			"a.example", "a.example", "a.example",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example", "b.example")
			w.dns.Host("target.example", "127.0.0.1")
			var user string
			server := w.custom(t, func(rw http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/_matrix/federation/v1/openid/userinfo" ||
					r.URL.RawQuery != "access_token="+url.QueryEscape(token) || r.UserAgent() != "Herald/test" {
					t.Errorf("request %s %s by %q", r.Method, r.URL, r.UserAgent())
				}
				fmt.Fprintf(rw, `{"sub":%q}`, user)
			}, tc.certName)
			if tc.setup != nil {
				tc.setup(w, server.port)
			}
			serverName := tc.name(server.port)
			user = "@alice:" + serverName
			got, err := w.client(t).UserInfo(t.Context(), parse(t, serverName), token)
			if err != nil || got != user {
				t.Fatalf("got %q, %v; want %q", got, err, user)
			}
			host := strings.ReplaceAll(tc.wantHost, "%d", fmt.Sprint(server.port))
			if diff := cmp.Diff([]string{host + "|" + tc.wantSNI}, server.requests()); diff != "" {
				t.Errorf("Host|SNI (-want +got):\n%s", diff)
			}
		})
	}
}

// Conformance (security): certificates of homeservers, relays and gateways: chain and name (also TestAWellKnownServerMustProveItsName, TestCertificatesAreVerified, TestACertificateForAnotherName)
func TestUserInfoRefusesCertificatesForOtherNames(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		setup    func(w *world, port uint16)
		certName string
	}{
		"of the original name where the delegated one is due": {
			func(w *world, port uint16) { w.delegate("a.example", fmt.Sprintf("b.example:%d", port)) }, "a.example",
		},
		"of the SRV target": {
			func(w *world, port uint16) {
				w.dns.SRV("_matrix-fed._tcp.a.example", net.SRV{Target: "target.example", Port: port})
			}, "target.example",
		},
		"of the SRV target of the delegated name": {
			func(w *world, port uint16) {
				w.delegate("a.example", "b.example")
				w.dns.SRV("_matrix-fed._tcp.b.example", net.SRV{Target: "target.example", Port: port})
			}, "target.example",
		},
		"of another address": {
			func(w *world, port uint16) { w.delegate("a.example", fmt.Sprintf("127.0.0.1:%d", port)) }, "127.0.0.2",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example", "b.example")
			w.dns.Host("target.example", "127.0.0.1")
			server := w.homeserver(t, "@alice:a.example", tc.certName)
			tc.setup(w, server.port)
			_, err := w.client(t).UserInfo(t.Context(), parse(t, "a.example"), token)
			wantError(t, err, identity.ErrUnreachable)
			if seen := server.requests(); len(seen) != 0 {
				t.Errorf("the token was sent to %v", seen)
			}
		})
	}
	t.Run("of an unknown authority", func(t *testing.T) {
		t.Parallel()
		w, stranger := newWorld(t, "a.example"), newWorld(t)
		server := stranger.homeserver(t, "@alice:a.example", "a.example")
		_, err := w.client(t).UserInfo(t.Context(), parse(t, fmt.Sprintf("a.example:%d", server.port)), token)
		wantError(t, err, identity.ErrUnreachable)
	})
}

func TestUserInfoTriesTheNextSRVTarget(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, w *world) uint16{
		"when a connection is refused":      func(t *testing.T, _ *world) uint16 { return closedPort(t) },
		"when a certificate is wrong":       func(t *testing.T, w *world) uint16 { return w.homeserver(t, "@x:a.example", "b.example").port },
		"when a target accepts and is mute": func(t *testing.T, _ *world) uint16 { return silentPort(t) },
	}
	for name, broken := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example", "target.example")
			w.dns.Host("blocked.example", "10.0.0.1")
			last := w.homeserver(t, "@last:a.example", "a.example")
			next := w.homeserver(t, "@alice:a.example", "a.example")
			w.dns.SRV("_matrix-fed._tcp.a.example",
				net.SRV{Target: "target.example", Port: last.port, Priority: 5},
				net.SRV{Target: "target.example", Port: broken(t, w), Priority: 1},
				net.SRV{Target: "unknown.example", Port: 1, Priority: 2},
				net.SRV{Target: "blocked.example", Port: 1, Priority: 3},
				net.SRV{Target: "target.example", Port: next.port, Priority: 4},
			)
			opts := w.options()
			opts.Timeout = 2 * time.Second
			got, err := newClient(t, opts).UserInfo(t.Context(), parse(t, "a.example"), token)
			if err != nil || got != "@alice:a.example" || len(last.requests()) != 0 {
				t.Errorf("got %q, %v; the last target was asked %d times", got, err, len(last.requests()))
			}
		})
	}
}

func TestUserInfoDoesNotReachPrivateAddresses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		name  string // in which %d is the port of a homeserver on 127.0.0.1
		setup func(w *world, port uint16)
	}{
		"by literal":        {"127.0.0.1:%d", nil},
		"by mapped literal": {"[::ffff:127.0.0.1]:%d", nil},
		"by name":           {"a.example:%d", nil},
		"by an SRV target": {"a.example", func(w *world, port uint16) {
			w.dns.SRV("_matrix._tcp.a.example", net.SRV{Target: "a.example", Port: port})
		}},
		"by the metadata service": {"169.254.169.254:80", nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example")
			server := w.homeserver(t, "@alice:a.example", "a.example", "127.0.0.1")
			if tc.setup != nil {
				tc.setup(w, server.port)
			}
			opts := w.options()
			opts.AllowNets = nil
			serverName := strings.ReplaceAll(tc.name, "%d", fmt.Sprint(server.port))
			_, err := newClient(t, opts).UserInfo(t.Context(), parse(t, serverName), token)
			wantError(t, err, identity.ErrUnreachable)
			if !errors.Is(err, safehttp.ErrBlocked) {
				t.Error("the reason cannot be found behind the error")
			}
			if len(server.requests())+w.fetches("a.example") != 0 {
				t.Error("a loopback server was reached")
			}
		})
	}
	for name, target := range map[string]string{"literal": "10.0.0.1:8448", "name": "private.example:8448"} {
		t.Run("by delegation to a "+name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example")
			w.dns.Host("private.example", "192.168.1.1")
			w.delegate("a.example", target)
			opts := w.options()
			opts.AllowNets = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
			_, err := newClient(t, opts).UserInfo(t.Context(), parse(t, "a.example"), token)
			wantError(t, err, identity.ErrUnreachable)
			if !errors.Is(err, safehttp.ErrBlocked) {
				t.Errorf("not blocked: %v", errors.Unwrap(err))
			}
		})
	}
}

// Conformance (accounts): a homeserver that cannot be reached, hangs or answers garbage (≠ Sydent: 500) | 502 `M_UNKNOWN`, one text for all (also TestRefusals, TestHomeserversCannotBeUsedToExploreNetworks)
func TestUserInfoTakesNoLongerThanItsTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	w.dns.IgnoreSRV("_matrix-fed._tcp.a.example")
	hangs := w.custom(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "a.example")
	trickles := w.custom(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}, "a.example")
	opts := w.options()
	opts.Timeout = 200 * time.Millisecond
	c := newClient(t, opts)
	for name, server := range map[string]string{
		"a server that hangs":        fmt.Sprintf("a.example:%d", hangs.port),
		"a body that never ends":     fmt.Sprintf("a.example:%d", trickles.port),
		"a server that says nothing": fmt.Sprintf("a.example:%d", silentPort(t)),
		"a name server that is mute": "a.example",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := c.UserInfo(t.Context(), parse(t, server), token)
			wantError(t, err, identity.ErrUnreachable)
			if took := time.Since(start); took > 9*time.Second { // a loaded machine is slow, the resolver's own 10 s slower
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestUserInfoEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	ctx, cancel := context.WithCancel(t.Context())
	server := w.custom(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}, "a.example")
	_, err := w.client(t).UserInfo(ctx, parse(t, fmt.Sprintf("a.example:%d", server.port)), token)
	wantError(t, err, identity.ErrUnreachable)
	if !errors.Is(err, context.Canceled) {
		t.Error("the caller's cancellation cannot be told from the server's silence")
	}
}

func TestEverythingGoesThroughTheProxy(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Method+" "+r.Host)
		mu.Unlock()
		rw.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(proxy.Close)
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "a.example")
	w.dns.SRV("_matrix-fed._tcp.a.example", net.SRV{Target: "target.example", Port: 5})
	opts := w.options().WithWellKnownPort(443)
	opts.Proxy = u
	_, err = newClient(t, opts).UserInfo(t.Context(), parse(t, "a.example"), token)
	wantError(t, err, identity.ErrUnreachable)
	if !errors.Is(err, safehttp.ErrProxy) {
		t.Error("the proxy's refusal cannot be found behind the error")
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]string{"CONNECT a.example:443", "CONNECT target.example:5"}, asked); diff != "" {
		t.Errorf("tunnels (-want +got):\n%s", diff)
	}
}

func TestNewRefusesOptionsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]homeserver.Options{
		"a negative timeout":     {Timeout: -1},
		"a negative bound":       {MaxInFlight: -1},
		"a network that is none": {AllowNets: []netip.Prefix{{}}},
		"a proxy without a host": {Proxy: &url.URL{Scheme: "http"}},
	} {
		if _, err := homeserver.New(opts); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := homeserver.New(homeserver.Options{}); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}
