package apns_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/pushtest"
)

// startGoAway starts a server that answers the first request on each
// connection by leaving it, with debug as its last words, having processed
// streams up to last.
func startGoAway(t *testing.T, last uint32, debug string) (endpoint string, ca *pushtest.CA) {
	t.Helper()
	ca = pushtest.NewCA(t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", ca.ServerTLS(t))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				if err := serveGoAway(conn, last, debug); err != nil {
					t.Errorf("server: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wg.Wait()
	})
	return "https://" + listener.Addr().String(), ca
}

func serveGoAway(conn net.Conn, last uint32, debug string) error {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	for {
		frame, err := framer.ReadFrame()
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = framer.WritePing(true, frame.Data)
			}
		case *http2.HeadersFrame:
			if err := framer.WriteGoAway(last, http2.ErrCodeNo, []byte(debug)); err != nil {
				return err
			}
			if last > 0 { // break off what is said to have been processed
				return nil
			}
		}
		if netErr, ok := errors.AsType[net.Error](err); errors.Is(err, io.EOF) || ok && !netErr.Timeout() {
			return nil // the client has gone
		}
		if err != nil {
			return err
		}
	}
}

func TestTheLastWordsOnAConnectionAreHeard(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		last   uint32
		debug  string
		reason push.Reason
		undone bool
		detail string
	}{
		"a refused certificate":             {0, `{"reason":"BadCertificate"}`, push.ReasonCredentials, true, "BadCertificate"},
		"a refused provider token":          {0, `{"reason":"InvalidProviderToken"}`, push.ReasonCredentials, true, "InvalidProviderToken"},
		"something else":                    {0, `{"reason":"Shutdown"}`, push.ReasonConnection, true, "Shutdown"},
		"no words":                          {0, ``, push.ReasonConnection, true, ""},
		"words after processing the push":   {1, `{"reason":"BadCertificate"}`, push.ReasonUncertain, false, "BadCertificate"},
		"words that repeat what was pushed": {0, `{"reason":"` + hexKey + `"}`, push.ReasonConnection, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			endpoint, ca := startGoAway(t, test.last, test.debug)
			provider := open(t, connect(t, apns.Options{RootCAs: ca.Pool()}), tokenConfig(t, pushtest.NewTokenKey(t), endpoint))
			got := provider.Send(t.Context(), delivery(message("@a:x", "", "hi")))
			evidence := push.EvidenceUnreachable
			if test.reason == push.ReasonCredentials {
				evidence = push.EvidenceRefused
			}
			if got.Kind != push.Temporary || got.Reason != test.reason || got.Evidence != evidence || got.Unprocessed != test.undone || got.Detail != test.detail {
				t.Errorf("got %+v, want %s, unprocessed %t, detail %q", got, test.reason, test.undone, test.detail)
			}
		})
	}
}
