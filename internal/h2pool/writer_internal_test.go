package h2pool

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// frames returns what f writes with a framer.
func frames(f func(*http2.Framer)) []byte {
	var b bytes.Buffer
	f(http2.NewFramer(&b, nil))
	return b.Bytes()
}

func begin(stream uint32) []byte {
	return frames(func(f *http2.Framer) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte("fields"), EndHeaders: true})
	})
}

func rest(stream uint32) []byte {
	return frames(func(f *http2.Framer) { _ = f.WriteData(stream, true, []byte("body")) })
}

// peer takes each write when it is asked to.
type peer struct {
	writes chan []byte
	gone   chan struct{}
}

var errGone = errors.New("gone")

func (p *peer) Write(b []byte) (int, error) {
	select {
	case p.writes <- bytes.Clone(b):
		return len(b), nil
	case <-p.gone:
		return 0, errGone
	}
}

// took returns what the peer is given now, nil for nothing.
func (p *peer) took() []byte {
	synctest.Wait()
	select {
	case b := <-p.writes:
		return b
	default:
		return nil
	}
}

// inWriter runs f in a bubble with a writer to a peer.
func inWriter(t *testing.T, f func(t *testing.T, w *writer, p *peer)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, p := newWriter(), &peer{make(chan []byte), make(chan struct{})}
		ended := make(chan error, 1)
		go func() { ended <- w.run(p) }()
		f(t, w, p)
		close(p.gone)
		_ = w.fail(errGone)
		if err := <-ended; err == nil {
			t.Error("the writer ends without a reason")
		}
	})
}

func write(t *testing.T, w *writer, frames ...[]byte) {
	t.Helper()
	for _, b := range frames {
		if n, err := w.Write(b); n != len(b) || err != nil {
			t.Fatalf("Write took %d of %d bytes: %v", n, len(b), err)
		}
	}
}

func want(t *testing.T, got []byte, frames ...[]byte) {
	t.Helper()
	if !bytes.Equal(got, bytes.Join(frames, nil)) {
		t.Errorf("the peer got %q, want %q", got, frames)
	}
}

func TestWhatIsReadyDuringAWriteSharesTheNext(t *testing.T) {
	inWriter(t, func(t *testing.T, w *writer, p *peer) {
		write(t, w, begin(1), rest(1))
		synctest.Wait() // the peer is given it
		var later [][]byte
		for stream := uint32(3); stream < 100; stream += 2 {
			write(t, w, begin(stream), rest(stream))
			later = append(later, begin(stream), rest(stream))
		}
		want(t, p.took(), begin(1), rest(1))
		want(t, p.took(), later...)
		want(t, p.took())
	})
}

func TestAPeerThatTakesNothingFillsABoundedBuffer(t *testing.T) {
	inWriter(t, func(t *testing.T, w *writer, p *peer) {
		write(t, w, rest(1))
		synctest.Wait()
		chunk := frames(func(f *http2.Framer) { _ = f.WriteData(1, false, make([]byte, 1<<10)) })
		var held int
		blocked := make(chan error)
		go func() {
			for {
				if _, err := w.Write(chunk); err != nil {
					blocked <- err
					return
				}
				held += len(chunk)
			}
		}()
		synctest.Wait()
		if held < maxPending/2 || held > maxPending {
			t.Errorf("%d bytes wait, want almost %d", held, maxPending)
		}
		before := held
		want(t, p.took(), rest(1))
		if got := p.took(); len(got) != before {
			t.Errorf("the peer got %d bytes at once, want all %d", len(got), before)
		}
		synctest.Wait()
		if held == before {
			t.Error("there is no room after a write")
		}
		_ = w.fail(net.ErrClosed)
		if err := <-blocked; !errors.Is(err, net.ErrClosed) {
			t.Errorf("error = %v; want the one that ended the connection", err)
		}
	})
}

// breakable is a connection on which writing fails at some time.
type breakable struct {
	net.Conn
	broken atomic.Bool
}

func (b *breakable) Write(p []byte) (int, error) {
	if b.broken.Load() {
		return 0, errGone
	}
	return b.Conn.Write(p)
}

func TestAFailedWriteEndsTheConnectionForItsReason(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	under := &breakable{Conn: raw}
	settings := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	settings.ServerName = "example.com" // as httptest's certificate has it
	tc, err := handshake(t.Context(), under, settings, "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Addr: srv.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := newConn(p, tc)
	read := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	under.broken.Store(true)
	write(t, c.out, begin(1), rest(1))
	<-c.done
	if err := <-read; !errors.Is(err, errGone) {
		t.Errorf("net/http reads %v, want the reason", err)
	}
	if _, err := c.Write(rest(1)); !errors.Is(err, errGone) {
		t.Errorf("the next write fails with %v, want the reason", err)
	}
}
