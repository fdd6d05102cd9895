package identity_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/threepid"
)

const alice = "@alice:example.org"

// bind binds a validated address to alice, or ends the test.
func bind(t testing.TB, s *service, d *identity.Directory, sid, medium, address string) identity.Association {
	t.Helper()
	s.proofs.add(t, sid, medium, address)
	a, err := d.Bind(t.Context(), identity.BindRequest{Account: alice, UserID: alice, SID: sid, ClientSecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestBindSignsWhatItBound(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	a := bind(t, s, d, "1", "email", "Alice@Example.com")

	key, err := s.keyring(t).Active(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wire, err := json.Marshal(a.Signed)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signing.ParseObject(wire)
	if err != nil {
		t.Fatal(err)
	}
	if err := signing.Verify(signed, serverName, key.ID(), key.Public()); err != nil {
		t.Error(err)
	}
	delete(signed, "signatures")
	ts := s.clock.Now().UnixMilli()
	want := map[string]any{
		"medium": "email", "address": "alice@example.com", "mxid": alice,
		"ts":         json.Number(fmt.Sprint(ts)),
		"not_before": json.Number(fmt.Sprint(ts)),
		"not_after":  json.Number(fmt.Sprint(ts + 3_153_600_000_000)),
	}
	if diff := cmp.Diff(want, signed); diff != "" {
		t.Error(diff)
	}
	if a.UserID != alice || a.TS.UnixMilli() != ts || a.NotAfter.Sub(a.NotBefore).Milliseconds() != 3_153_600_000_000 {
		t.Errorf("got %v", a)
	}
}

func TestBindsThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		request identity.BindRequest
		session error
		want    error
	}{
		"another user": {
			request: identity.BindRequest{Account: alice, UserID: "@bob:example.org", SID: "1", ClientSecret: "secret"},
			want:    identity.ErrNotYours,
		},
		"the user in other case": {
			request: identity.BindRequest{Account: alice, UserID: "@Alice:example.org", SID: "1", ClientSecret: "secret"},
			want:    identity.ErrNotYours,
		},
		"nobody": {
			request: identity.BindRequest{SID: "1", ClientSecret: "secret"},
			want:    identity.ErrNotYours,
		},
		"no such session": {
			request: identity.BindRequest{Account: alice, UserID: alice, SID: "2", ClientSecret: "secret"},
			want:    threepid.ErrNoSession,
		},
		"another secret": {
			request: identity.BindRequest{Account: alice, UserID: alice, SID: "1", ClientSecret: "guess"},
			want:    threepid.ErrNoSession,
		},
		"a session that is not validated": {
			request: identity.BindRequest{Account: alice, UserID: alice, SID: "1", ClientSecret: "secret"},
			session: threepid.ErrNotValidated, want: threepid.ErrNotValidated,
		},
		"a session that has expired": {
			request: identity.BindRequest{Account: alice, UserID: alice, SID: "1", ClientSecret: "secret"},
			session: threepid.ErrSessionExpired, want: threepid.ErrSessionExpired,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			id := s.proofs.add(t, "1", "email", "a@example.com")
			s.proofs.all["1"] = proof{Proof: identity.Proof{ID: id}, err: c.session}
			d := s.directory(t, s.peppers(t, nil), nil)
			if _, err := d.Bind(t.Context(), c.request); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if n, err := s.db.Bindings(t.Context()); n != 0 || err != nil {
				t.Errorf("%d bindings, %v", n, err)
			}
		})
	}
}

// Conformance (bind): binding again, to another user too | the latest wins, with a new time, and the homeserver is told again (also TestAHundredBindsOfOneAddressAtOnce, TestContract)
func TestBindingAgainReplacesTheUser(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	first := bind(t, s, d, "1", "msisdn", "447700900001")
	s.clock.advance(5 * time.Millisecond)
	again := bind(t, s, d, "1", "msisdn", "447700900001")
	if got := again.TS.Sub(first.TS); got != 5*time.Millisecond {
		t.Errorf("bound again %v later, want 5ms", got)
	}
	const bob = "@bob:example.org"
	r := identity.BindRequest{Account: bob, UserID: bob, SID: "1", ClientSecret: "secret"}
	if _, err := d.Bind(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"447700900001 msisdn": bob}, plainLookup(t, d, "447700900001 msisdn")); diff != "" {
		t.Error(diff)
	}
}

// Conformance (federation): an address in another spelling than it was bound with (≠ Sydent: refused) | the same address (also TestUnbindByHomeserver)
func TestUnbindNeedsAProofOfTheVeryAddress(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		request identity.UnbindRequest
		session error
		want    error
		removed bool
	}{
		"the address as it was bound": {
			request: identity.UnbindRequest{Medium: "email", Address: "strauß@bücher.example", SID: "1", ClientSecret: "secret"},
			removed: true,
		},
		"another spelling of it": {
			request: identity.UnbindRequest{Medium: "email", Address: "STRAUSS@xn--bcher-kva.example", SID: "1", ClientSecret: "secret"},
			removed: true,
		},
		"another user's binding": {
			request: identity.UnbindRequest{UserID: "@bob:example.org", Medium: "email", Address: "strauß@bücher.example", SID: "1", ClientSecret: "secret"},
		},
		"another address": {
			request: identity.UnbindRequest{Medium: "email", Address: "other@bücher.example", SID: "1", ClientSecret: "secret"},
			want:    identity.ErrForbidden,
		},
		"what is no address": {
			request: identity.UnbindRequest{Medium: "email", Address: "strauß", SID: "1", ClientSecret: "secret"},
			want:    identity.ErrForbidden,
		},
		"another medium": {
			request: identity.UnbindRequest{Medium: "msisdn", Address: "447700900001", SID: "1", ClientSecret: "secret"},
			want:    identity.ErrForbidden,
		},
		"an unknown medium": {
			request: identity.UnbindRequest{Medium: "fax", Address: "447700900001", SID: "1", ClientSecret: "secret"},
			want:    identity.ErrForbidden,
		},
		"no such session": {
			request: identity.UnbindRequest{Medium: "email", Address: "strauß@bücher.example", SID: "2", ClientSecret: "secret"},
			want:    identity.ErrForbidden,
		},
		"another secret": {
			request: identity.UnbindRequest{Medium: "email", Address: "strauß@bücher.example", SID: "1", ClientSecret: "guess"},
			want:    identity.ErrForbidden,
		},
		"a session that is not validated": {
			request: identity.UnbindRequest{Medium: "email", Address: "strauß@bücher.example", SID: "1", ClientSecret: "secret"},
			session: threepid.ErrNotValidated, want: identity.ErrForbidden,
		},
		"a session that has expired": {
			request: identity.UnbindRequest{Medium: "email", Address: "strauß@bücher.example", SID: "1", ClientSecret: "secret"},
			session: threepid.ErrSessionExpired, want: identity.ErrForbidden,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			d := s.directory(t, s.peppers(t, nil), nil)
			bind(t, s, d, "1", "email", "strauß@bücher.example")
			id := s.proofs.all["1"].ID
			s.proofs.all["1"] = proof{Proof: identity.Proof{ID: id}, err: c.session}
			if c.request.UserID == "" {
				c.request.UserID = alice
			}
			for range 2 { // what is removed can be removed again
				if err := d.UnbindBySession(t.Context(), c.request); !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			}
			n, err := s.db.Bindings(t.Context())
			if err != nil || (n == 0) != c.removed {
				t.Errorf("%d bindings, %v", n, err)
			}
		})
	}
}

func TestAFailingProofIsNotForbidden(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	id := s.proofs.add(t, "1", "email", "a@example.com")
	away := errors.New("away")
	s.proofs.all["1"] = proof{Proof: identity.Proof{ID: id}, err: away}
	err := d.UnbindBySession(t.Context(), identity.UnbindRequest{
		UserID: alice, Medium: "email", Address: "a@example.com", SID: "1", ClientSecret: "secret",
	})
	if !errors.Is(err, away) || errors.Is(err, identity.ErrForbidden) {
		t.Errorf("got %v", err)
	}
}

func TestAHundredBindsOfOneAddressAtOnce(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	s.proofs.add(t, "1", "email", "a@example.com")
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			user := fmt.Sprintf("@user%d:example.org", i)
			r := identity.BindRequest{Account: user, UserID: user, SID: "1", ClientSecret: "secret"}
			if _, err := d.Bind(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(plainLookup(t, d, "a@example.com email")); n != 1 {
		t.Errorf("%d users", n)
	}
	if n, err := s.db.Bindings(t.Context()); n != 1 || err != nil {
		t.Errorf("%d bindings, %v", n, err)
	}
	if n := testutil.CollectAndCount(s.registry, "herald_identity_binds_total"); n != 6 {
		t.Errorf("%d series, want one for each outcome", n)
	}
}

// TestTheSpellingGivenIsThatOfTheAddress covers a proof whose spelling does not
// read as the address it proves: it must not bind another address.
func TestTheSpellingGivenIsThatOfTheAddress(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	s.proofs.all["1"] = proof{Proof: identity.Proof{
		ID:               threepid.ID{Medium: threepid.MediumEmail, Address: "a@example.com"},
		OriginalSpelling: "victim@example.com",
	}}
	r := identity.BindRequest{Account: alice, UserID: alice, SID: "1", ClientSecret: "secret"}
	if _, err := d.Bind(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a@example.com email": alice}
	if diff := cmp.Diff(want, plainLookup(t, d, "a@example.com email", "victim@example.com email")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{}, hashLookup(t, d, "email", "victim@example.com")); diff != "" {
		t.Error(diff)
	}
}
