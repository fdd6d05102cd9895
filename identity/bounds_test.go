package identity_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity"
)

// TestNoMoreHomeserversAreToldAtOnceThanAllowed has five of them take their
// time.
func TestNoMoreHomeserversAreToldAtOnceThanAllowed(t *testing.T) {
	t.Parallel()
	s, n := newService(t), newNetwork(t)
	d := s.directory(t, s.peppers(t, nil), nil)
	var mu sync.Mutex
	var running, most int
	goOn := make(chan struct{})
	takeTime := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
		mu.Lock()
		running--
		mu.Unlock()
		fmt.Fprint(w, "{}")
	}
	var all []*remote
	for i := range 5 {
		r := n.remote(t, "127.0.0.1:0", takeTime)
		bindAs(t, s, d, r.user("alice"), fmt.Sprintf("%d@example.com", i))
		all = append(all, r)
	}
	s.deliver(t, n, func(o *identity.DeliveriesOptions) { o.MaxInFlight = 2 })
	for range all {
		goOn <- struct{}{}
	}
	for _, r := range all {
		r.next(t)
	}
	mu.Lock()
	defer mu.Unlock()
	if most > 2 {
		t.Errorf("%d homeservers were told at once, want at most 2", most)
	}
}

// usedLongAgo has every token, none of which was used today, and counts what is
// noted.
type usedLongAgo struct {
	identity.AccountStore
	now   func() time.Time
	noted chan identity.Digest
}

func (u usedLongAgo) Token(context.Context, identity.Digest, time.Time) (string, time.Time, error) {
	return "@alice:example.org", u.now().Add(-25 * time.Hour), nil
}

func (u usedLongAgo) TouchToken(_ context.Context, token identity.Digest, _ time.Time) error {
	u.noted <- token
	return nil
}

// TestUsesThatWaitToBeNotedAreBounded uses more tokens than may wait before
// anything is noted. Those that found no place are noted when they are used
// again.
func TestUsesThatWaitToBeNotedAreBounded(t *testing.T) {
	t.Parallel()
	const uses, bound = 1500, 1000
	s := newService(t)
	store := usedLongAgo{AccountStore: s.db, now: s.clock.Now, noted: make(chan identity.Digest)}
	a, err := identity.NewAccounts(identity.AccountsOptions{
		Store: store, OpenID: s.openID, Now: s.clock.Now, Log: s.log, Metrics: s.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	use := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if _, err := a.Account(t.Context(), fmt.Sprint("token", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	use(0, uses)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	noted := make(map[identity.Digest]bool)
	for range bound {
		noted[<-store.noted] = true
	}
	use(bound, uses)
	for range uses - bound {
		noted[<-store.noted] = true
	}
	if len(noted) != uses {
		t.Errorf("%d uses were noted, want %d", len(noted), uses)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
