package fcm_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/fcm"
	"github.com/matrix-herald/herald/push/pushtest"
)

// TestMain checks that no test, and so no Close, leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAppsOfOneAccountShareConnections(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool()})
	changed := configFor(fake)
	changed.Badge = fcm.BadgeAll // as by a reload
	first, second := openWith(t, connections, configFor(fake)), openWith(t, connections, changed)
	if first.Fingerprint() != second.Fingerprint() {
		t.Error("an option that FCM's judgement does not depend on changed the fingerprint")
	}
	expect(t, first.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
	expect(t, second.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
	first.Close()
	first.Close() // a second time changes nothing
	expect(t, second.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
	if n := fake.Connections(); n != 2 { // one for the token, one for the messages
		t.Errorf("there were %d connections", n)
	}
	second.Close()
	expect(t, second.Send(t.Context(), message("token")), push.Temporary, push.ReasonConnection)
}

// After a reload the old provider is closed while deliveries still use it.
func TestASendUnderWayOutlivesItsProvider(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{Answer: func(pushtest.FCMRequest) pushtest.FCMAnswer {
		<-closed
		return pushtest.FCMAnswer{}
	}})
	provider := open(t, fake)
	got := make(chan push.Outcome, 1)
	go func() { got <- provider.Send(t.Context(), message("token")) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := fake.Wait(ctx, 1); err != nil {
		t.Fatal(err)
	}
	provider.Close()
	close(closed)
	expect(t, <-got, push.Accepted, push.ReasonSent)
	late := provider.Send(t.Context(), message("token"))
	expect(t, late, push.Temporary, push.ReasonConnection)
	if !late.Unprocessed {
		t.Error("the outcome does not say that nothing was processed")
	}
}

// Conformance (FCM): several projects in one process (also TestReload)
func TestAnotherAccountHasItsOwnConnections(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool()})
	other := configFor(fake)
	other.ServiceAccount = conf.Secret(fake.ServiceAccount("another"))
	fingerprints, destinations := make(map[string]bool), make(map[string]bool)
	for _, cfg := range []fcm.Config{configFor(fake), other} {
		provider := openWith(t, connections, cfg)
		expect(t, provider.Send(t.Context(), message("token")), push.Accepted, push.ReasonSent)
		fingerprints[provider.Fingerprint()] = true
		destinations[provider.Destination(nil)] = true
	}
	if n := fake.TokenCount(); n != 2 {
		t.Errorf("there were %d token requests, want 2", n)
	}
	if len(fingerprints) != 2 || len(destinations) != 2 {
		t.Errorf("there are %d fingerprints and %d destinations, want one for each account and project", len(fingerprints), len(destinations))
	}
	guest := configFor(fake)
	guest.ProjectID = "another"
	if !destinations[openWith(t, connections, guest).Destination(nil)] {
		t.Error("the other project's destination depends on the account")
	}
}

// What an app may have in flight is bounded by its concurrency, and by nothing
// of ours below that.
//
// Conformance (FCM): connections | follow what is in flight
func TestConnectionsFollowWhatIsInFlight(t *testing.T) {
	t.Parallel()
	const inFlight, streams = 60, 10
	all := make(chan struct{})
	var arrived atomic.Int32
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{MaxConcurrentStreams: streams, Answer: func(pushtest.FCMRequest) pushtest.FCMAnswer {
		if arrived.Add(1) == inFlight {
			close(all)
		}
		<-all
		return pushtest.FCMAnswer{}
	}})
	provider := open(t, fake)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range inFlight {
		wg.Go(func() { expect(t, provider.Send(ctx, message("token")), push.Accepted, push.ReasonSent) })
	}
	wg.Wait()
	if n := fake.Connections(); n > 1+inFlight/streams { // one is for the token
		t.Errorf("there were %d connections", n)
	}
}

func TestClosedConnectionsAnswerAtOnce(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartFCM(t, pushtest.FCMOptions{})
	fake.OnToken(func() pushtest.FCMAnswer { return pushtest.FCMAnswer{Hang: true} })
	connections := connect(t, fcm.Options{RootCAs: fake.CA().Pool()})
	provider := openWith(t, connections, configFor(fake))
	waitTokens(t, fake, 1)
	got := make(chan push.Outcome, 1)
	go func() { got <- provider.Send(t.Context(), message("token")) }()
	connections.Close()
	select {
	case out := <-got:
		expect(t, out, push.Temporary, push.ReasonConnection)
	case <-time.After(20 * time.Second):
		t.Fatal("Send outlives its connections")
	}
	if _, err := connections.Open("com.example.app", configFor(fake)); err == nil {
		t.Error("closed connections can be opened")
	}
	connections.Close() // a second time changes nothing
}

// proxy is an HTTP proxy that answers CONNECT.
type proxy struct {
	url string
	mu  sync.Mutex
	log []string
	// tunnels end with their connections. Nobody else waits for them: the
	// server forgets connections that are taken over.
	tunnels []chan struct{}
}

func startProxy(t *testing.T) *proxy {
	t.Helper()
	p := new(proxy)
	server := httptest.NewServer(http.HandlerFunc(p.serve))
	p.url = server.URL
	t.Cleanup(func() {
		server.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, done := range p.tunnels {
			<-done
		}
	})
	return p
}

func (p *proxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.log...)
}

func (p *proxy) serve(w http.ResponseWriter, r *http.Request) {
	done := make(chan struct{})
	defer close(done)
	p.mu.Lock()
	p.log = append(p.log, r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization"))
	p.tunnels = append(p.tunnels, done)
	p.mu.Unlock()
	var dialer net.Dialer
	target, err := dialer.DialContext(r.Context(), "tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	// The answer is written after the connection is taken over, or the server
	// would read the client's next bytes.
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, target}, {target, client}} {
		wg.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
		})
	}
	wg.Wait()
}
