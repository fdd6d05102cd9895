package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
)

// field is a service with the limits that it has by default, behind a proxy that
// says who asks: honest clients with an address each, and attackers.
type field struct {
	*node
	t          testing.TB
	homeserver string
	honest     atomic.Int64
	silent     string       // a port on which nothing is ever said, on each address of this machine
	reached    atomic.Int64 // connections to it
}

func newField(t testing.TB) *field {
	t.Helper()
	s := newSite(t, storetest.SQLite(t), "")
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(config), noLimits(), "", 1)
	writeFile(t, s.config, strings.Replace(text, "http: {", "http: {trusted_proxies: [127.0.0.1], ", 1))
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	_, silent, _ := net.SplitHostPort(ln.Addr().String())
	f := &field{node: s.start(t), t: t, homeserver: s.homeserver, silent: silent}
	var held sync.WaitGroup
	t.Cleanup(held.Wait)
	t.Cleanup(func() { ln.Close() })
	held.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			f.reached.Add(1)
			defer conn.Close()
		}
	})
	return f
}

// from sends a request of a client at ip, and decodes a successful answer.
func (f *field) from(ctx context.Context, ip, method, path, authorization string, body []byte, into any) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, method, f.API+"/_matrix/identity/v2"+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("X-Forwarded-For", ip)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	res, err := f.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode == http.StatusOK && into != nil {
		err = json.Unmarshal(answer, into)
	}
	return res.StatusCode, err
}

// registerFrom returns an access token, "" if there is none to be had.
func (f *field) registerFrom(ctx context.Context, ip, server, user string) string {
	var answer struct{ Token string }
	body := fmt.Sprintf(`{"matrix_server_name":%q,"access_token":"@%s:%s","token_type":"Bearer","expires_in":3600}`, server, user, server)
	_, _ = f.from(ctx, ip, http.MethodPost, "/account/register", "", []byte(body), &answer)
	return answer.Token
}

// seen is what honest clients saw.
type seen struct {
	asked, answered int
	took            []time.Duration
}

func (s *seen) add(ok bool, took time.Duration) {
	s.asked++
	if ok {
		s.answered++
		s.took = append(s.took, took)
	}
}

func (s *seen) median() time.Duration {
	slices.Sort(s.took)
	return s.took[len(s.took)/2]
}

// live has one honest client after the other register and look addresses up, each
// on a connection of its own.
func (f *field) live(clients int) (registrations, lookups seen) {
	f.t.Helper()
	ctx := f.t.Context()
	for range clients {
		n := f.honest.Add(1)
		ip := fmt.Sprintf("2001:db8:%x::1", n)
		transport := new(http.Transport)
		f := &field{node: f.with(f.t, transport), t: f.t, homeserver: f.homeserver}
		begin := time.Now()
		token := f.registerFrom(ctx, ip, f.homeserver, fmt.Sprint("honest", n))
		registrations.add(token != "", time.Since(begin))
		if token == "" {
			continue
		}
		var details struct {
			Pepper string `json:"lookup_pepper"`
		}
		if _, err := f.from(ctx, ip, http.MethodGet, "/hash_details", "Bearer "+token, nil, &details); err != nil {
			f.t.Fatal(err)
		}
		var hashes []string
		for i := range 100 {
			hashes = append(hashes, hash(filledAddress(int(n)*100+i), "email", details.Pepper))
		}
		body, err := json.Marshal(map[string]any{"algorithm": "sha256", "pepper": details.Pepper, "addresses": hashes})
		if err != nil {
			f.t.Fatal(err)
		}
		begin = time.Now()
		status, _ := f.from(ctx, ip, http.MethodPost, "/lookup", "Bearer "+token, body, nil)
		lookups.add(status == http.StatusOK, time.Since(begin))
		transport.CloseIdleConnections()
	}
	return registrations, lookups
}

// attack is what attackers do again and again, so often in a second and so many at
// once at most. i counts. The machine that measures makes the attack as well: one
// as fast as it can would tell what it takes to make it.
type attack struct {
	name string
	// asks says that the service is made to ask servers which never answer.
	asks            bool
	attackers, rate int
	prepare         func(f *field) func(ctx context.Context, i int)
}

func attacks() (all []attack) {
	for _, profile := range harness.Profiles {
		all = append(all, attack{name: string(profile)})
	}
	return append(all, []attack{
		// Lists that are far too long, from one account with many addresses.
		{"lists", false, 20, 20, func(f *field) func(context.Context, int) {
			token := f.registerFrom(f.t.Context(), "192.0.2.1", f.homeserver, "mallory")
			list := []byte(`{"algorithm":"sha256","pepper":"x","addresses":["` + strings.Repeat(`","`, 2<<20-100) + `"]}`)
			return func(ctx context.Context, i int) {
				_, _ = f.from(ctx, fmt.Sprintf("192.0.2.%d", i%20), http.MethodPost, "/lookup", "Bearer "+token, list, nil)
			}
		}},
		// Requests that make the service ask for the keys of servers which never answer:
		// without any account, from many addresses, in the name of many servers. They are
		// signed, and the service does not know that before it has the keys.
		{"unbind", true, 200, 73, func(f *field) func(context.Context, int) {
			_, key, err := ed25519.GenerateKey(nil)
			if err != nil {
				f.t.Fatal(err)
			}
			return func(ctx context.Context, i int) {
				mallory := &peer{name: fmt.Sprintf("127.0.%d.%d:%s", 1+i%4, 1+i%250, f.silent), key: key}
				u := mallory.unbind("@a:"+mallory.name, "a@example.com", "localhost")
				auth := fmt.Sprintf(`X-Matrix origin=%q,key=%q,sig=%q`, mallory.name, peerKey, signature(key, u.signed))
				_, _ = f.from(ctx, fmt.Sprintf("192.0.2.%d", i%250), http.MethodPost, "/3pid/unbind", auth, []byte(canonical(u.content)), nil)
			}
		}},
		{"register", true, 200, 73, func(f *field) func(context.Context, int) {
			return func(ctx context.Context, i int) {
				f.registerFrom(ctx, fmt.Sprintf("2001:db8:ffff:%x::1", i), fmt.Sprintf("127.0.%d.%d:%s", 1+i%4, 1+i%250, f.silent), "mallory")
			}
		}},
		// Accounts of one homeserver under many names, which invite and look up.
		{"spellings", false, 20, 100, func(f *field) func(context.Context, int) {
			var tokens, users []string
			_, port, _ := net.SplitHostPort(f.homeserver)
			for i := range 40 {
				name := []byte("localhost")
				for bit := range name {
					if i>>bit&1 == 1 {
						name[bit] -= 'a' - 'A'
					}
				}
				server := string(name) + ":" + port
				tokens = append(tokens, f.registerFrom(f.t.Context(), fmt.Sprintf("192.0.2.%d", i), server, "mallory"))
				users = append(users, "@mallory:"+server)
			}
			return func(ctx context.Context, i int) {
				who := i % len(tokens)
				body := fmt.Sprintf(`{"medium":"email","address":"victim%d@example.com","room_id":"!r:x","sender":%q}`, i, users[who])
				_, _ = f.from(ctx, fmt.Sprintf("192.0.2.%d", who), http.MethodPost, "/store-invite", "Bearer "+tokens[who], []byte(body), nil)
			}
		}},
	}...)
}

// begin lets the attackers loose and returns what stops them.
func (f *field) begin(a attack) (stop func()) {
	f.t.Helper()
	if a.prepare == nil { // ten thousand clients hold connections
		load := harness.Load{URL: f.API + "/_matrix/identity/v2/lookup", Profile: harness.Profile(a.name), Count: 10_000, Every: time.Second}
		return harness.StartLoad(f.t, load).Leave
	}
	do := a.prepare(f)
	ctx, cancel := context.WithCancel(f.t.Context())
	var attackers, begun sync.WaitGroup
	var count atomic.Int64
	pace := time.NewTicker(time.Second / time.Duration(a.rate))
	begun.Add(1)
	once := sync.OnceFunc(begun.Done)
	for range a.attackers {
		attackers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-pace.C:
				}
				do(ctx, int(count.Add(1)))
				if count.Load() >= int64(a.rate) {
					once()
				}
			}
		})
	}
	begun.Wait() // for the first second
	return func() {
		cancel()
		attackers.Wait()
		pace.Stop()
	}
}

// TestHonestClientsBesideAttacks has them register and look up while servers that
// never answer are named in the ways that need no account.
//
// Conformance (attacks): 73 requests a second without an account that make the service ask servers which never answer (10 of 12 honest registrations were refused) | limits by address on all that needs no token; places for homeservers that answer, and for each kind of question (also TestWhatNeedsNoTokenIsLimitedByAddress, TestPlaces, BenchmarkHostileAttacks)
func TestHonestClientsBesideAttacks(t *testing.T) {
	t.Parallel()
	for _, a := range attacks() {
		if a.name != "unbind" && a.name != "register" {
			continue // BenchmarkHostileAttacks has them all
		}
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			f.live(1) // the homeserver is known then
			stop := f.begin(a)
			defer stop()
			const clients, atLeast = 40, 38
			if r, l := f.live(clients); r.answered < atLeast || l.answered < atLeast {
				t.Errorf("of %d honest clients %d were registered, %d looked up", clients, r.answered, l.answered)
			}
			if f.reached.Load() == 0 {
				t.Error("the attack made the service ask nobody")
			}
		})
	}
}

// sight is what honest clients saw of an attack: of their registrations, and of
// their lookups.
type sight [2]struct{ percent, ratio float64 }

func (s sight) good() bool {
	return s[0].percent >= 95 && s[1].percent >= 95 && s[0].ratio <= 2 && s[1].ratio <= 2
}

// see tries an attack.
func (a attack) see(b *testing.B) (s sight) {
	b.Helper()
	const clients = 200
	f := newField(b)
	var calm, attacked [2]seen
	calm[0], calm[1] = f.live(clients)
	stop := f.begin(a)
	attacked[0], attacked[1] = f.live(clients)
	stop()
	for i := range s {
		s[i].percent = 100 * float64(attacked[i].answered) / clients
		if attacked[i].answered > 0 {
			s[i].ratio = float64(attacked[i].median()) / float64(calm[i].median())
		}
	}
	if a.asks && f.reached.Load() == 0 {
		b.Error("the attack made the service ask nobody")
	}
	return s
}

// BenchmarkHostileAttacks tells what honest clients see beside each attack: how
// many of their registrations and lookups are answered (in percent, at least 95),
// and how long these take compared with calm (the median, at most twice). An attack
// that seems to succeed is tried again, because somebody else may have had the machine
// for a moment: three times at most.
func BenchmarkHostileAttacks(b *testing.B) {
	for _, a := range attacks() {
		b.Run(a.name, func(b *testing.B) {
			for range b.N {
				s := a.see(b)
				for left := 2; left > 0 && !s.good(); left-- {
					s = a.see(b)
				}
				b.ReportMetric(0, "ns/op")
				for i, name := range [...]string{"registrations", "lookups"} {
					b.ReportMetric(s[i].percent, name+"-%")
					b.ReportMetric(s[i].ratio, name+"-ratio")
				}
				if !s.good() {
					b.Errorf("honest clients saw %+v", s)
				}
			}
		})
	}
}
