package safehttp_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

// tunnel is a CONNECT proxy that leads everywhere to one address.
type tunnel struct {
	to string

	mu    sync.Mutex
	asked []string // "host:port credentials"
}

func (p *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, strings.TrimSpace(r.Host+" "+r.Header.Get("Proxy-Authorization")))
	p.mu.Unlock()
	if r.Method != http.MethodConnect || strings.HasPrefix(r.Host, "forbidden.example") {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	server, err := new(net.Dialer).DialContext(r.Context(), "tcp", p.to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer server.Close()
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	_, _ = io.Copy(client, server)
	_ = client.Close()
	wg.Wait()
}

func (p *tunnel) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) == 0 {
		return ""
	}
	return p.asked[len(p.asked)-1]
}

func TestProxy(t *testing.T) {
	t.Parallel()
	ca := safehttptest.NewCA(t)
	srv := ca.Server(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.ServerName)
	}), "server.example")
	p := &tunnel{to: srv.Listener.Addr().String()}
	overTLS := ca.Server(t, "127.0.0.1:0", p, "127.0.0.1")
	plain := httptest.NewServer(p)
	t.Cleanup(plain.Close)

	for _, proxyURL := range []string{plain.URL, overTLS.URL} {
		u, err := url.Parse(proxyURL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("herald", secret)
		t.Run(u.Scheme, func(t *testing.T) {
			var logged bytes.Buffer
			c := newClient(t, safehttp.Options{
				Proxy: u, RootCAs: ca.Pool(), Log: slog.New(slog.NewTextHandler(&logged, nil)),
			})
			if out := logged.String(); !strings.Contains(out, "level=WARN") || strings.Contains(out, secret) {
				t.Errorf("logged %q, want a warning without the password", out)
			}
			auth := " Basic " + base64.StdEncoding.EncodeToString([]byte("herald:"+secret))

			_, body, err := get(t, c, "https://server.example/")
			if err != nil || body != "server.example" || p.last() != "server.example:443"+auth {
				t.Errorf("got %q, %v; the proxy was asked for %q", body, err, p.last())
			}
			_, body, err = exchange(c.DoAt(request(t, http.MethodGet, "https://server.example:1/", nil), "target.example.:8448"))
			if err != nil || body != "server.example" || p.last() != "target.example:8448"+auth {
				t.Errorf("got %q, %v; the proxy was asked for %q", body, err, p.last())
			}
			_, _, err = get(t, c, "https://forbidden.example/?"+secret)
			wantError(t, err, safehttp.ErrProxy)

			before := p.last()
			_, _, err = get(t, c, "https://169.254.169.254/?"+secret)
			wantError(t, err, safehttp.ErrBlocked)
			if p.last() != before {
				t.Error("the proxy was asked for a private address")
			}
		})
	}
}

func TestAProxyThatDoesNotAnswerTimesOut(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	c := newClient(t, safehttp.Options{
		Proxy:   &url.URL{Scheme: "http", Host: ln.Addr().String()},
		Timeout: 50 * time.Millisecond,
	})
	_, _, err = get(t, c, "https://server.example/?"+secret)
	wantError(t, err, context.DeadlineExceeded)
}
