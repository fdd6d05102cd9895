package homeserver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity"
)

// TestServersThatNeverAnswerLeavePlacesForThoseThatDo names 64 servers that take
// connections and say nothing, in each way that costs little: hosts below one
// domain, domains at one address, and domains with an address each.
//
// Conformance (security): servers that never answer do not keep those away that do: registrations, keys and deliveries have places of their own, homeservers that have not answered lately half of them, one registered domain or address an eighth (also TestPlaces, TestHonestClientsBesideAttacks)
// Conformance (attacks): many slow homeservers | places of their own for registrations, keys and deliveries, most of them for homeservers that answer; 10 s each, one for each name (also TestConcurrentLookupsOfOneServerAreOne)
func TestServersThatNeverAnswerLeavePlacesForThoseThatDo(t *testing.T) {
	t.Parallel()
	const attackers, places = 64, 16
	for name, tt := range map[string]struct {
		host, address func(i int) string
		held          int // places of the attackers
		strangers     bool
	}{
		"hosts of one domain":    {func(i int) string { return fmt.Sprintf("S%d.evil.example", i) }, func(i int) string { return fmt.Sprintf("127.0.9.%d", i+1) }, places / 8, true},
		"domains at one address": {func(i int) string { return fmt.Sprintf("evil%d.example", i) }, func(int) string { return "127.0.9.1" }, places / 8, true},
		"domains and addresses":  {func(i int) string { return fmt.Sprintf("evil%d.example", i) }, func(i int) string { return fmt.Sprintf("127.0.9.%d", i+1) }, places / 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "known.example", "new.example")
			opts := w.options()
			opts.MaxInFlight, opts.Timeout = places, time.Minute
			c := newClient(t, opts)
			known := w.homeserver(t, "@a:known.example", "known.example", "new.example")
			asks := func(server string) {
				t.Helper()
				_, err := c.UserInfo(t.Context(), parse(t, fmt.Sprintf("%s:%d", server, known.port)), token)
				wantError(t, err, identity.ErrOpenIDMismatch) // it has answered
			}
			asks("known.example")
			// On each address is a port where nothing is ever said.
			ln, err := net.Listen("tcp", "0.0.0.0:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			_, port, _ := net.SplitHostPort(ln.Addr().String())

			attack, stop := context.WithCancel(t.Context())
			var flood sync.WaitGroup
			refused := make(chan error, attackers)
			for i := range attackers {
				w.dns.Host(tt.host(i), tt.address(i))
				flood.Go(func() {
					_, err := c.UserInfo(attack, parse(t, tt.host(i)+":"+port), token)
					refused <- err
				})
			}
			for range attackers - tt.held {
				if err := <-refused; !errors.Is(err, identity.ErrBusy) {
					t.Errorf("an attacker: %v", err)
				}
			}
			for range 10 {
				asks("known.example")
			}
			if tt.strangers {
				asks("new.example")
			}
			// What else homeservers are asked for is not held up at all.
			if err := c.OnBind(t.Context(), parse(t, fmt.Sprintf("new.example:%d", known.port)), []byte("{}")); errors.Is(err, identity.ErrBusy) {
				t.Errorf("a delivery: %v", err)
			}
			stop()
			flood.Wait()
			if len(refused) != tt.held {
				t.Errorf("%d attackers held a place, want %d", len(refused), tt.held)
			}
		})
	}
}

// TestPlacesAreGivenBack uses all places up, of one server and of all.
func TestPlacesAreGivenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	arrived, release := make(chan struct{}), make(chan struct{})
	server := w.custom(t, func(rw http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		fmt.Fprint(rw, `{"sub":"@alice:b.example"}`)
	}, "a.example")
	opts := w.options()
	opts.MaxInFlight = 8
	c := newClient(t, opts)
	ask := func() error {
		_, err := c.UserInfo(t.Context(), parse(t, fmt.Sprintf("a.example:%d", server.port)), token)
		if errors.Is(err, identity.ErrOpenIDMismatch) {
			return nil // it was asked
		}
		return err
	}
	for _, places := range []int{1, 2, 2} { // before it has answered, and afterwards
		var wg sync.WaitGroup
		for range places {
			wg.Go(func() {
				if err := ask(); err != nil {
					t.Error(err)
				}
			})
			<-arrived
		}
		wantError(t, ask(), identity.ErrBusy)
		for range places {
			release <- struct{}{}
		}
		wg.Wait()
	}
}

// TestWhatWasNotAskedIsNotRemembered has the address of a .well-known file be full.
func TestWhatWasNotAskedIsNotRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example", "b.example", "evil.example")
	server := w.homeserver(t, "@alice:a.example", "b.example")
	w.delegate("a.example", fmt.Sprintf("b.example:%d", server.port))
	opts := w.options()
	opts.MaxInFlight = 8
	c := newClient(t, opts)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	attack, stop := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	waiting.Go(func() {
		_, _ = c.UserInfo(attack, parse(t, "evil.example:"+fmt.Sprint(ln.Addr().(*net.TCPAddr).Port)), token)
	})
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = c.UserInfo(t.Context(), parse(t, "a.example"), token)
	wantError(t, err, identity.ErrBusy)
	stop()
	waiting.Wait()
	if user, err := c.UserInfo(t.Context(), parse(t, "a.example"), token); user != "@alice:a.example" || err != nil {
		t.Errorf("%q, %v", user, err)
	}
}
