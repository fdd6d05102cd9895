package h2pool_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/h2pool"
)

// wantUnprocessed checks the error of a request for which there was no connection.
func wantUnprocessed(t *testing.T, err error, contains ...string) {
	t.Helper()
	if !h2pool.Unprocessed(err) {
		t.Fatalf("error = %v; want an unprocessed one", err)
	}
	for _, s := range contains {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}

func serverTLS(change func(*tls.Config)) serverOption {
	return func(s *http.Server) { change(s.TLSConfig) }
}

func TestServersThatCannotBeUsedAreUnprocessed(t *testing.T) {
	t.Parallel()
	_, otherRoots := newCert(t)
	clientCert, clientRoots := newCert(t)
	onlyHTTP1 := new(http.Protocols)
	onlyHTTP1.SetHTTP1(true)
	tests := []struct {
		name   string
		server serverOption
		pool   func(*h2pool.Options)
		want   string
	}{
		{"one that speaks HTTP/1.1 only", func(s *http.Server) { s.Protocols = onlyHTTP1 }, nil, "no application protocol"},
		{"one with a certificate nobody trusts", nil, func(o *h2pool.Options) { o.TLS.RootCAs = otherRoots }, "unknown authority"},
		{"one with another name in its certificate", nil, func(o *h2pool.Options) { o.ServerName = "api.push.example" }, "api.push.example"},
		{"one that wants a client certificate and gets none", serverTLS(func(c *tls.Config) {
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, clientRoots
		}), nil, "certificate required"},
		{"one that does not accept the client certificate", serverTLS(func(c *tls.Config) {
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, otherRoots
		}), func(o *h2pool.Options) { o.TLS.Certificates = []tls.Certificate{clientCert} }, "certificate"},
		{"one with TLS 1.1", serverTLS(func(c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
		}), func(o *h2pool.Options) { o.TLS.MinVersion = tls.VersionTLS10 }, "protocol version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var options []serverOption
			if tt.server != nil {
				options = append(options, tt.server)
			}
			s := startServer(t, func(http.ResponseWriter, *http.Request) { t.Error("the request was served") }, options...)
			p := s.pool(t, func(o *h2pool.Options) {
				if tt.pool != nil {
					tt.pool(o)
				}
			})
			_, err := post(t.Context(), p, s.addr, "body")
			wantUnprocessed(t, err, s.addr, tt.want)
			if n := p.Stats().DialFailures; n != 1 {
				t.Errorf("%d failed dials, want 1", n)
			}
		})
	}
}

func TestAServerWithoutALPNIsUnprocessed(t *testing.T) {
	t.Parallel()
	cert, roots := newCert(t)
	ln := tls.NewListener(listen(t, "127.0.0.1:0"), &tls.Config{Certificates: []tls.Certificate{cert}})
	serveConns(t, ln, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	_, err := post(t.Context(), newPool(t, ln.Addr().String(), roots), ln.Addr().String(), "body")
	wantUnprocessed(t, err, ln.Addr().String(), "does not speak HTTP/2")
}

func TestClientCertificateIsPresented(t *testing.T) {
	t.Parallel()
	cert, roots := newCert(t)
	s := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, " ", r.TLS.PeerCertificates[0].SerialNumber)
	}, serverTLS(func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, roots }))
	p := s.pool(t, func(o *h2pool.Options) { o.TLS.Certificates = []tls.Certificate{cert} })
	got, err := post(t.Context(), p, s.addr, "body")
	if err != nil || got != "HTTP/2.0 1" {
		t.Errorf("%q, %v", got, err)
	}
}

// silent accepts connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	ln := listen(t, "127.0.0.1:0")
	serveConns(t, ln, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	return ln.Addr().String()
}

func TestDialTimeoutBoundsEveryPhase(t *testing.T) {
	t.Parallel()
	mute := silent(t)
	noSettings := startRaw(t, func(_ int, c *rawConn) { _, _ = io.Copy(io.Discard, c.nc) })
	tests := []struct {
		name  string
		addr  string
		proxy string
		phase string
	}{
		{"a TLS handshake that never ends", mute, "", "TLS handshake"},
		{"a server that never sends SETTINGS", noSettings.addr, "", "SETTINGS"},
		{"a proxy that never answers", "provider.example:443", "http://" + mute, "CONNECT"},
		{"a proxy whose TLS handshake never ends", "provider.example:443", "https://" + mute, "proxy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, tt.addr, noSettings.roots, func(o *h2pool.Options) {
				o.DialTimeout = 100 * time.Millisecond
				if tt.proxy != "" {
					o.Proxy = mustURL(t, tt.proxy)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := post(ctx, p, tt.addr, "body")
			wantUnprocessed(t, err, tt.phase, "no connection within 100ms")
			if errors.Is(err, context.DeadlineExceeded) {
				t.Error("the pool's timeout looks like the caller's")
			}
		})
	}
}

func TestCloseEndsADial(t *testing.T) {
	t.Parallel()
	addr := silent(t)
	p := newPool(t, addr, nil)
	done := start(t.Context(), p, addr, "body")
	eventually(t, "the dial has begun", func() bool { return p.Stats().Dials == 1 })
	p.Close()
	if err := <-done; !errors.Is(err, h2pool.ErrClosed) {
		t.Errorf("error = %v", err)
	}
}

// proxy answers CONNECT and counts.
type proxy struct {
	addr   string
	status atomic.Int32 // what to answer instead of connecting
	auth   string       // the Proxy-Authorization that is required
	opened atomic.Int32
}

func startProxy(t *testing.T, auth string, cfg *tls.Config) *proxy {
	t.Helper()
	ln := listen(t, "127.0.0.1:0")
	p := &proxy{addr: ln.Addr().String(), auth: auth}
	if cfg != nil {
		ln = tls.NewListener(ln, cfg)
	}
	serveConns(t, ln, p.serve)
	return p
}

// serve answers one CONNECT and forwards what follows.
func (p *proxy) serve(in net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(in))
	if err != nil {
		return
	}
	status := int(p.status.Load())
	var out net.Conn
	switch {
	case r.Method != http.MethodConnect:
		status = http.StatusMethodNotAllowed
	case r.Header.Get("Proxy-Authorization") != p.auth:
		status = http.StatusProxyAuthRequired
	case status == 0:
		if out, err = new(net.Dialer).DialContext(r.Context(), "tcp", r.Host); err != nil {
			status = http.StatusBadGateway
		}
	}
	if out == nil {
		fmt.Fprintf(in, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(status))
		return
	}
	p.opened.Add(1)
	fmt.Fprint(in, "HTTP/1.1 200 Connection established\r\n\r\n")
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
		wg.Go(func() {
			defer pair[0].Close()
			_, _ = io.Copy(pair[0], pair[1])
		})
	}
	wg.Wait()
}

func through(u *url.URL) func(*h2pool.Options) {
	return func(o *h2pool.Options) { o.Proxy = u }
}

func basic(userinfo string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(userinfo))
}

// Conformance (connections): CONNECT proxy with basic authentication, recovering after its failure (also TestAProxyFailureIsUnprocessedAndForgotten)
func TestRequestsGoThroughTheProxy(t *testing.T) {
	t.Parallel()
	cert, roots := newCert(t)
	tests := []struct {
		name   string
		scheme string
		user   *url.Userinfo
		auth   string
	}{
		{"plain", "http", nil, ""},
		{"with basic authentication", "http", url.UserPassword("herald", "s:e@c/ret"), basic("herald:s:e@c/ret")},
		{"over TLS with basic authentication", "https", url.UserPassword("herald", "secret"), basic("herald:secret")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, func(_ http.ResponseWriter, r *http.Request) {
				if len(r.TLS.PeerCertificates) != 1 {
					t.Error("the provider was not shown the client certificate")
				}
			}, serverTLS(func(c *tls.Config) {
				c.Certificates, c.ClientAuth = []tls.Certificate{cert}, tls.RequestClientCert
			}))
			var cfg *tls.Config
			if tt.scheme == "https" {
				cfg = &tls.Config{
					Certificates: []tls.Certificate{cert},
					ClientAuth:   tls.RequestClientCert,
					VerifyConnection: func(state tls.ConnectionState) error {
						if len(state.PeerCertificates) != 0 {
							t.Error("the proxy was shown the client certificate")
						}
						return nil
					},
				}
			}
			px := startProxy(t, tt.auth, cfg)
			p := newPool(t, s.addr, roots, func(o *h2pool.Options) {
				o.TLS.Certificates = []tls.Certificate{cert}
				o.Proxy = &url.URL{Scheme: tt.scheme, Host: px.addr, User: tt.user}
			})
			mustPost(t, p, s.addr, "body")
			if n := px.opened.Load(); n != 1 {
				t.Errorf("%d tunnels, want 1", n)
			}
		})
	}
}

func TestAProxyFailureIsUnprocessedAndForgotten(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(http.ResponseWriter, *http.Request) {})
	px := startProxy(t, basic("herald:secret"), nil)
	for _, status := range []int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusForbidden, http.StatusProxyAuthRequired} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			px.status.Store(int32(status))
			p := s.pool(t, through(&url.URL{Scheme: "http", Host: px.addr, User: url.UserPassword("herald", "secret")}))
			_, err := post(t.Context(), p, s.addr, "body")
			wantUnprocessed(t, err, "proxy", px.addr, http.StatusText(status))
			px.status.Store(0)
			mustPost(t, p, s.addr, "body")
		})
	}
	t.Run("a wrong password is not repeated in the error", func(t *testing.T) {
		p := s.pool(t, through(&url.URL{Scheme: "http", Host: px.addr, User: url.UserPassword("herald", "hunter2")}))
		_, err := post(t.Context(), p, s.addr, "body")
		wantUnprocessed(t, err, "407")
		for _, secret := range []string{"hunter2", basic("herald:hunter2")[6:]} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("error %q holds the password", err)
			}
		}
	})
	t.Run("a proxy that is away and comes back", func(t *testing.T) {
		ln := listen(t, "127.0.0.1:0")
		ln.Close()
		r := &url.URL{Scheme: "http", Host: ln.Addr().String(), User: url.UserPassword("herald", "secret")}
		p := s.pool(t, through(r))
		_, err := post(t.Context(), p, s.addr, "body")
		wantUnprocessed(t, err, "proxy", "refused")
		serveConns(t, listen(t, r.Host), px.serve)
		mustPost(t, p, s.addr, "body")
	})
}
