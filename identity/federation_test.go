package identity_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
	"github.com/matrix-herald/herald/threepid"
)

const bob = "@bob:example.org"

// invitees are the mailboxes of those who are invited.
type invitees struct {
	mu  sync.Mutex
	all []threepid.Invitation
	err error
}

func (m *invitees) SendInvitation(_ context.Context, i threepid.Invitation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, i)
	return m.err
}

// network is where homeservers are.
type network struct {
	ca     *safehttptest.CA
	client *homeserver.Client
}

func newNetwork(t testing.TB) *network {
	t.Helper()
	n := &network{ca: safehttptest.NewCA(t)}
	var err error
	n.client, err = homeserver.New(homeserver.Options{
		AllowNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, RootCAs: n.ca.Pool(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.client.CloseIdleConnections)
	return n
}

// OnBind implements identity.Homeservers.
func (n *network) OnBind(ctx context.Context, server string, body []byte) error {
	name, err := homeserver.ParseServerName(server)
	if err != nil {
		return err
	}
	return n.client.OnBind(ctx, name, body)
}

// remote is a homeserver that keeps what it is told and answers as it is told to.
type remote struct {
	name  string
	heard chan notification

	mu      sync.Mutex
	answers []http.HandlerFunc // the next ones; then 200
}

// notification is the body of onbind.
type notification struct {
	raw     map[string]any
	User    string `json:"mxid"`
	Address string `json:"address"`
	Invites []struct {
		Token  string `json:"token"`
		RoomID string `json:"room_id"`
		Sender string `json:"sender"`
		User   string `json:"mxid"`
		Signed map[string]any
	} `json:"invites"`
}

// remote starts a homeserver at address, such as 127.0.0.1:0.
func (n *network) remote(t *testing.T, address string, answers ...http.HandlerFunc) *remote {
	t.Helper()
	r := &remote{heard: make(chan notification, 1000), answers: answers}
	server := n.ca.Server(t, address, r, "127.0.0.1")
	r.name = server.Listener.Addr().String()
	return r
}

func (r *remote) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var n notification
	if err != nil || json.Unmarshal(body, &n) != nil || json.Unmarshal(body, &n.raw) != nil ||
		req.Method != http.MethodPost || req.URL.Path != "/_matrix/federation/v1/3pid/onbind" || req.Header.Get("Authorization") != "" {
		http.Error(w, "?", http.StatusTeapot)
		return
	}
	r.mu.Lock()
	answer := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }
	if len(r.answers) > 0 {
		answer, r.answers = r.answers[0], r.answers[1:]
	}
	r.mu.Unlock()
	r.heard <- n
	answer(w, req)
}

// user returns a user of the homeserver.
func (r *remote) user(local string) string { return "@" + local + ":" + r.name }

// next waits for what the homeserver is told next.
func (r *remote) next(t *testing.T) notification {
	t.Helper()
	select {
	case n := <-r.heard:
		return n
	case <-time.After(30 * time.Second):
		t.Fatal("the homeserver was told nothing")
		return notification{}
	}
}

// Answers of a remote.

func status(code int, errcode string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"errcode":%q,"error":"x"}`, errcode)
	}
}

// hang answers when nobody waits any more.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// die breaks the connection.
func die(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// verify checks a signature as other implementations do it, with nothing of
// ours. The objects of these tests are such that encoding/json writes canonical
// JSON.
func verify(t *testing.T, signed map[string]any, keyID, public string) {
	t.Helper()
	bare := make(map[string]any)
	for k, v := range signed {
		if k != "signatures" {
			bare[k] = exact(v)
		}
	}
	message, err := json.Marshal(bare)
	if err != nil {
		t.Fatal(err)
	}
	signatures, _ := signed["signatures"].(map[string]any)
	ours, _ := signatures[serverName].(map[string]any)
	text, _ := ours[keyID].(string)
	signature, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(ours) != 1 {
		t.Fatalf("signatures %v: %v", signatures, err)
	}
	key, err := base64.RawStdEncoding.DecodeString(public)
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(key, message, signature) {
		t.Errorf("the signature with %s does not match %s", keyID, message)
	}
}

// exact turns the numbers of encoding/json into integers again.
func exact(v any) any {
	if f, ok := v.(float64); ok {
		return int64(f)
	}
	return v
}

// invites returns Invites with a mailbox for all.
func (s *service) invites(t testing.TB, change func(*identity.InvitesOptions)) (*identity.Invites, *invitees) {
	t.Helper()
	mail := &invitees{}
	o := identity.InvitesOptions{
		Store: s.db, Keys: s.keyring(t), Mailer: mail, ServerName: serverName, Now: s.clock.Now, Log: s.log, Metrics: s.metrics,
	}
	if change != nil {
		change(&o)
	}
	i, err := identity.NewInvites(o)
	if err != nil {
		t.Fatal(err)
	}
	return i, mail
}

// deliver runs the deliveries until the test ends or stop is called, which waits
// for them.
func (s *service) deliver(t testing.TB, n *network, change func(*identity.DeliveriesOptions)) (stop func()) {
	t.Helper()
	start := time.Now()
	o := identity.DeliveriesOptions{
		Store: s.db, Keys: s.keyring(t), Homeservers: n, ServerName: serverName, Log: s.log, Metrics: s.metrics,
		Retry: time.Millisecond, Interval: 5 * time.Millisecond,
		Now: func() time.Time { return s.clock.Now().Add(time.Since(start)) },
	}
	if change != nil {
		change(&o)
	}
	d, err := identity.NewDeliveries(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// invited invites an address and returns the token.
func invited(t testing.TB, i *identity.Invites, address string) string {
	t.Helper()
	stored, err := i.Store(t.Context(), identity.InviteRequest{
		Account: bob, Sender: bob, Medium: "email", Address: address, RoomID: "!room:example.org",
	})
	if err != nil {
		t.Fatal(err)
	}
	return stored.Token
}

// bindAs binds an address to a user of a homeserver.
func bindAs(t testing.TB, s *service, d *identity.Directory, user, address string) {
	t.Helper()
	s.proofs.add(t, address, "email", address)
	_, err := d.Bind(t.Context(), identity.BindRequest{Account: user, UserID: user, SID: address, ClientSecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
}

// record waits until an invite has come into a state.
func record(t *testing.T, s identity.InviteStore, token string, state identity.InviteState) identity.InviteRecord {
	t.Helper()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for end := time.After(30 * time.Second); ; {
		records, err := s.Invites(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		var last identity.InviteState
		for _, r := range records {
			if r.Token == token {
				last = r.State
				if r.State == state {
					return r
				}
			}
		}
		select {
		case <-poll.C:
		case <-end:
			t.Fatalf("the invite is %q, want %q", last, state)
		}
	}
}
