package h2pool_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/matrix-herald/herald/internal/h2pool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newCert returns a certificate for 127.0.0.1 and the pool that trusts it.
func newCert(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// server is a real HTTP/2 server.
type server struct {
	addr   string
	roots  *x509.CertPool
	conns  atomic.Int32 // TCP connections accepted
	config *http.Server
}

type serverOption func(*http.Server)

func maxStreams(n int) serverOption {
	return func(s *http.Server) { s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: n} }
}

// sameCert lets a server appear as the other one's successor.
func sameCert(other *server) serverOption {
	return func(s *http.Server) { s.TLSConfig = other.config.TLSConfig.Clone() }
}

func startServer(t testing.TB, h http.HandlerFunc, options ...serverOption) *server {
	t.Helper()
	return serveOn(t, listen(t, "127.0.0.1:0"), h, options...)
}

func serveOn(t testing.TB, ln net.Listener, h http.HandlerFunc, options ...serverOption) *server {
	t.Helper()
	cert, roots := newCert(t)
	s := &server{addr: ln.Addr().String(), roots: roots, config: &http.Server{
		Handler:   h,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		ErrorLog:  log.New(io.Discard, "", 0),
	}}
	s.config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	for _, option := range options {
		option(s.config)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.config.ServeTLS(ln, "", "") })
	t.Cleanup(func() {
		s.config.Close()
		wg.Wait()
	})
	return s
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func (s *server) pool(t testing.TB, change ...func(*h2pool.Options)) *h2pool.Pool {
	t.Helper()
	return newPool(t, s.addr, s.roots, change...)
}

func newPool(t testing.TB, addr string, roots *x509.CertPool, change ...func(*h2pool.Options)) *h2pool.Pool {
	t.Helper()
	o := h2pool.Options{Addr: addr, TLS: &tls.Config{RootCAs: roots}}
	for _, c := range change {
		c(&o)
	}
	p, err := h2pool.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func maxConns(n int) func(*h2pool.Options) {
	return func(o *h2pool.Options) { h2pool.SetMaxConns(o, n) }
}

// post sends one request and reads the answer to its end.
func post(ctx context.Context, p *h2pool.Pool, addr, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+"/push", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := p.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func mustPost(t *testing.T, p *h2pool.Pool, addr, body string) {
	t.Helper()
	if _, err := post(t.Context(), p, addr, body); err != nil {
		t.Fatalf("request %q: %v", body, err)
	}
}

// burst sends n requests at once and returns their errors.
func burst(ctx context.Context, p *h2pool.Pool, addr string, n int) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { _, errs[i] = post(ctx, p, addr, "body") })
	}
	wg.Wait()
	return errs
}

// eventually waits for a condition that announces itself only in Stats.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// rawServer speaks HTTP/2 frame by frame, for what a well-behaved server does not do.
type rawServer struct {
	addr  string
	roots *x509.CertPool
	conns atomic.Int32
}

// startRaw runs handle on each connection, numbered from 0, after the
// connection preface. The connection ends when handle returns.
func startRaw(t testing.TB, handle func(n int, c *rawConn)) *rawServer {
	t.Helper()
	cert, roots := newCert(t)
	ln := tls.NewListener(listen(t, "127.0.0.1:0"), &tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"},
	})
	s := &rawServer{addr: ln.Addr().String(), roots: roots}
	serveConns(t, ln, func(nc net.Conn) {
		n := int(s.conns.Add(1)) - 1
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(nc, preface); err != nil {
			return
		}
		c := &rawConn{Framer: http2.NewFramer(nc, nc), nc: nc}
		c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		handle(n, c)
	})
	return s
}

// serveConns runs serve on each connection until the test has ended; it closes
// the connection when serve returns.
func serveConns(t testing.TB, ln net.Listener, serve func(net.Conn)) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				defer context.AfterFunc(t.Context(), func() { c.Close() })()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
}

func (s *rawServer) pool(t testing.TB, change ...func(*h2pool.Options)) *h2pool.Pool {
	t.Helper()
	return newPool(t, s.addr, s.roots, change...)
}

type rawConn struct {
	*http2.Framer
	nc net.Conn
}

func (c *rawConn) limit(n uint32) {
	c.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n})
}

// request returns the stream of the next complete request, or false at the end
// of the connection.
func (c *rawConn) request() (uint32, bool) {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return 0, false
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				return f.StreamID, true
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return f.StreamID, true
			}
		}
	}
}

// answer responds 200 without a body.
func (c *rawConn) answer(stream uint32) {
	var b bytes.Buffer
	hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: b.Bytes(), EndStream: true, EndHeaders: true,
	})
}

// answerAll answers every further request.
func (c *rawConn) answerAll() {
	for {
		id, ok := c.request()
		if !ok {
			return
		}
		c.answer(id)
	}
}
