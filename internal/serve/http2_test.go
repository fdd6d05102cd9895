package serve_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is a bare HTTP/2 connection.
type frames struct {
	*http2.Framer

	conn net.Conn
}

// dialHTTP2 opens an HTTP/2 connection to a service with p's certificate.
func dialHTTP2(t *testing.T, s *service, p *pair) frames {
	t.Helper()
	cfg := p.clientConfig()
	cfg.NextProtos = []string{http2.NextProtoTLS}
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", s.api[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := frames{http2.NewFramer(conn, conn), conn}
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f
}

// open begins a request without a body.
func (f frames) open(stream uint32) error {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, field := range []hpack.HeaderField{
		{Name: ":method", Value: http.MethodPost}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: "/"},
	} {
		_ = enc.WriteField(field) // memory takes everything
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
}

// startHTTP2 runs a service with TLS.
func startHTTP2(t *testing.T, h http.HandlerFunc) (*service, *pair) {
	t.Helper()
	o := options(h)
	p := newPair(t)
	p.write(t, "x")
	o.Config.TLS.CertFile, o.Config.TLS.KeyFile = p.cert, p.key
	return start(t, o), p
}

// servesOthers asks for an answer over a connection of its own.
func servesOthers(t *testing.T, s *service, p *pair) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: p.clientConfig(), ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	res, err := c.Get("https://" + s.api[0].String() + "/well-behaved")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		t.Errorf("%s %s", res.Proto, res.Status)
	}
}

// TestRapidResetsKeepNobodyBusy is CVE-2023-44487: requests that are taken back
// at once. However many are begun, no more handlers run than streams are allowed.
//
// Conformance (hostile input): HTTP/2 resets and streams | 250 handlers for a connection
// Conformance (attacks): HTTP/2: rapid resets, more streams than allowed | 250 streams and as many handlers for each connection
func TestRapidResetsKeepNobodyBusy(t *testing.T) {
	t.Parallel()
	var atWork, most atomic.Int32
	release := make(chan struct{})
	s, p := startHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/well-behaved" {
			return
		}
		n := atWork.Add(1)
		defer atWork.Add(-1)
		for old := most.Load(); n > old; old = most.Load() {
			most.CompareAndSwap(old, n)
		}
		<-release // a handler that does not notice
	})
	t.Cleanup(func() { close(release) })
	attacker := dialHTTP2(t, s, p)
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		_, _ = io.Copy(io.Discard, attacker.conn)
	}()
	for i := range uint32(2000) {
		if attacker.open(2*i+1) != nil || attacker.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
			break // the service has had enough
		}
	}
	servesOthers(t, s, p)
	if got := most.Load(); got > 250 {
		t.Errorf("%d handlers at work for one connection", got)
	}
	attacker.conn.Close()
	<-reading
}
