package serve_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
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

// headerBlock returns the headers of a request, and more.
func headerBlock(more ...hpack.HeaderField) []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, field := range append([]hpack.HeaderField{
		{Name: ":method", Value: http.MethodPost}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: "/"},
	}, more...) {
		_ = enc.WriteField(field) // memory takes everything
	}
	return block.Bytes()
}

// open begins a request.
func (f frames) open(stream uint32, end bool) error {
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: headerBlock(), EndHeaders: true, EndStream: end})
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
// Conformance (hostile input): HTTP/2 resets and streams | 250 handlers for a connection (also TestStreamsOfAConnectionAreBounded)
// Conformance (attacks): HTTP/2: rapid resets, more streams than allowed | 250 streams and as many handlers for each connection (also TestStreamsOfAConnectionAreBounded)
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
		if attacker.open(2*i+1, true) != nil || attacker.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
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

func TestStreamsOfAConnectionAreBounded(t *testing.T) {
	t.Parallel()
	s, p := startHTTP2(t, readAll)
	attacker := dialHTTP2(t, s, p)
	opening := make(chan struct{})
	go func() {
		defer close(opening)
		for i := range uint32(1000) {
			if attacker.open(2*i+1, false) != nil { // requests whose bodies never come
				return
			}
		}
	}()
	refused := 0
	for refused == 0 {
		frame, err := attacker.ReadFrame()
		if err != nil {
			break // the connection was ended
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			if frame.ErrCode == http2.ErrCodeRefusedStream {
				refused++
			}
		case *http2.GoAwayFrame:
			refused++
		}
	}
	servesOthers(t, s, p)
	attacker.conn.Close()
	<-opening
}

// TestHeadersWithoutEndAreCutOff is CVE-2023-45288.
func TestHeadersWithoutEndAreCutOff(t *testing.T) {
	t.Parallel()
	s, p := startHTTP2(t, readAll)
	attacker := dialHTTP2(t, s, p)
	block := headerBlock(hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 1000)})
	err := attacker.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block})
	for err == nil {
		err = attacker.WriteContinuation(1, false, block)
	}
	servesOthers(t, s, p)
}

// TestFloodsOfFramesHoldUpNobody is about floods that cost the sender as much.
func TestFloodsOfFramesHoldUpNobody(t *testing.T) {
	t.Parallel()
	s, p := startHTTP2(t, readAll)
	for name, send := range map[string]func(f frames, stream uint32) error{
		"pings":          func(f frames, _ uint32) error { return f.WritePing(false, [8]byte{}) },
		"settings":       func(f frames, _ uint32) error { return f.WriteSettings() },
		"empty data":     func(f frames, stream uint32) error { return f.WriteData(stream, false, nil) },
		"window updates": func(f frames, _ uint32) error { return f.WriteWindowUpdate(0, 1) },
		// A name of 3 kB in the table of the other side, named by a byte each time.
		"headers that grow": func() func(f frames, stream uint32) error {
			var block bytes.Buffer
			enc := hpack.NewEncoder(&block)
			for block.Len() < 16<<10-8 {
				_ = enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 3000)}) // memory takes everything
			}
			return func(f frames, stream uint32) error {
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
			}
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attacker := dialHTTP2(t, s, p)
			reading := make(chan struct{})
			go func() {
				defer close(reading)
				_, _ = io.Copy(io.Discard, attacker.conn)
			}()
			for i := range uint32(100) {
				if send(attacker, 2*i+1) != nil {
					break // the service has had enough
				}
			}
			servesOthers(t, s, p)
			attacker.conn.Close()
			<-reading
		})
	}
}
