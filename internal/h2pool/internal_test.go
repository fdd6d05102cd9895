package h2pool

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

// The two errors for a connection that closes between the pool's choice and
// the request cannot be provoked from outside without luck; the others are met
// in the tests of RoundTrip.
func TestNotProcessedKnowsTheErrorsOfClosedConnections(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	tr := srv.Client().Transport.(*http.Transport)
	for name, used := range map[string]bool{"never used": false, "used before": true} {
		cc, err := tr.NewClientConn(t.Context(), "https", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if used {
			resp, err := cc.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		cc.Close()
		if _, err := cc.RoundTrip(req); err == nil || !notProcessed(err) {
			t.Errorf("%s: notProcessed(%v) = false", name, err)
		}
	}
}

func TestOtherErrorsMayHaveBeenProcessed(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		context.DeadlineExceeded, net.ErrClosed, errors.New("http2: client connection lost"),
		http2.StreamError{StreamID: 1, Code: http2.ErrCodeCancel},
	} {
		if notProcessed(err) {
			t.Errorf("notProcessed(%v) = true", err)
		}
	}
}

// scan returns what a scanner finds in the pieces of a stream.
func scan(pieces ...[]byte) []any {
	var s frameScanner
	var found []any
	for _, b := range pieces {
		for len(b) > 0 {
			n, done := s.next(b)
			b = b[n:]
			if !done {
				continue
			}
			if s.kind() == http2.FrameGoAway {
				found = append(found, s.goAway())
				continue
			}
			limit, named := s.maxStreams()
			found = append(found, [2]any{limit, named})
		}
	}
	return found
}

func serverFrames() []byte {
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 7}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100})
	f.WriteSettingsAck()
	f.WritePing(false, [8]byte{1})
	f.WriteData(1, true, bytes.Repeat([]byte{4}, 100))
	f.WriteSettings()
	f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000})
	f.WriteGoAway(9, http2.ErrCodeEnhanceYourCalm, []byte("calm"))
	f.WriteGoAway(5, http2.ErrCodeNo, bytes.Repeat([]byte{'x'}, 2*maxControl))
	f.WriteRawFrame(http2.FrameGoAway, 0, 0, []byte("short"))
	return b.Bytes()
}

func TestFrameScannerFindsSettingsAndGoAway(t *testing.T) {
	t.Parallel()
	want := []any{
		[2]any{uint32(100), true},
		[2]any{uint32(0), false},
		[2]any{uint32(1000), true},
		&GoAwayError{LastStreamID: 9, Code: http2.ErrCodeEnhanceYourCalm, Debug: "calm"},
		&GoAwayError{LastStreamID: 5, Debug: string(bytes.Repeat([]byte{'x'}, maxControl-8))},
		(*GoAwayError)(nil),
	}
	if diff := cmp.Diff(want, scan(serverFrames())); diff != "" {
		t.Error(diff)
	}
}

func FuzzFrameScanner(f *testing.F) {
	f.Add(serverFrames(), uint16(1))
	f.Add(serverFrames(), uint16(9))
	f.Add([]byte{0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0, 1, 2, 3}, uint16(4))
	f.Add([]byte{0, 0, 0, 7, 0, 0, 0, 0, 0}, uint16(8))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		size := int(cut)%64 + 1
		var pieces [][]byte
		for b := stream; len(b) > 0; b = b[min(size, len(b)):] {
			pieces = append(pieces, b[:min(size, len(b))])
		}
		found := scan(stream)
		if diff := cmp.Diff(found, scan(pieces...)); diff != "" {
			t.Errorf("the result depends on how the stream is cut: %s", diff)
		}
		if diff := cmp.Diff(frameCount(stream), len(found)); diff != "" {
			t.Errorf("another number of frames than x/net finds: %s", diff)
		}
	})
}

// frameCount counts SETTINGS and GOAWAY frames by x/net's reading of the headers.
func frameCount(stream []byte) (n int) {
	r := bytes.NewBuffer(stream)
	for {
		h, err := http2.ReadFrameHeader(r)
		if err != nil || int(h.Length) > r.Len() {
			return n
		}
		r.Next(int(h.Length))
		if h.Type == http2.FrameGoAway || h.Type == http2.FrameSettings && !h.Flags.Has(http2.FlagSettingsAck) {
			n++
		}
	}
}
