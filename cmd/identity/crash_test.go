package main

import (
	"context"
	"database/sql"
	"fmt"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/threepid"
)

// eventually calls done until it reports true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	late := time.After(2 * time.Minute)
	for !done() {
		select {
		case <-every.C:
		case <-late:
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

// inParallel calls do for 0 to n-1, in up to 16 goroutines, until it reports
// false.
func inParallel(n int, do func(i int) bool) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || !do(i) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// rotation returns how many peppers are coming and how far the digests of the
// coming one are.
func rotation(t *testing.T, db *sql.DB) (coming int, cursor int64) {
	t.Helper()
	err := db.QueryRowContext(t.Context(), `SELECT COUNT(*), COALESCE(MAX(cursor), 0) FROM peppers WHERE state = 'next'`).Scan(&coming, &cursor)
	if err != nil {
		t.Fatal(err)
	}
	return coming, cursor
}

// TestAKillInTheMiddleLosesNothing ends the service with SIGKILL in the middle
// of a pepper rotation over 10,000 bindings and of 200 binds, starts it again
// and looks up what was acknowledged.
//
// Conformance (bind): kill -9 in the middle of a thousand binds and of a rotation | every acknowledged bind is there
func TestAKillInTheMiddleLosesNothing(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		const there, binds, killAfter = 10_000, 200, 60
		database := newDatabase(t)
		fill(t, database, there)
		s := newSite(t, database, "")
		n := s.start(t)
		user := "@alice:" + s.homeserver
		token, err := n.register(t.Context(), s.homeserver, user)
		if err != nil {
			t.Fatal(err)
		}
		sids := proveAll(t, s, n, token, binds)

		db := direct(t, database)
		rotate(t, s, db)
		acknowledged := bindUntilKilled(t, n, token, user, sids, killAfter)
		coming, cursor := rotation(t, db)
		if coming != 1 || cursor == 0 || cursor >= there {
			t.Fatalf("killed outside of the rotation: %d coming, at binding %d", coming, cursor)
		}
		t.Logf("killed after %d of %d binds, at binding %d of the rotation", len(acknowledged), binds, cursor)

		n = s.start(t)
		before, err := n.pepper(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		checkLookups(t, n, token, before, user, acknowledged, there)
		var after string
		eventually(t, "the rotation goes on and ends", func() bool {
			if after, err = n.pepper(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			return after != before
		})
		checkLookups(t, n, token, after, user, acknowledged, there)
		checkLookups(t, n, token, before, user, acknowledged, there)

		// Who got no answer asks again.
		inParallel(len(sids), func(i int) bool {
			if err := n.bind(t.Context(), token, sids[i], user); err != nil {
				t.Error(err)
			}
			return true
		})
		all := make([]string, binds)
		for i := range all {
			all[i] = crashAddress(i)
		}
		checkLookups(t, n, token, after, user, all, there)
	})
}

func crashAddress(i int) string { return fmt.Sprintf("crash%d@example.org", i) }

// proveAll validates a session for each of n addresses.
func proveAll(t *testing.T, s *site, node *node, token string, n int) (sids []string) {
	t.Helper()
	sids = make([]string, n)
	step := func(do func(i int) error) {
		t.Helper()
		inParallel(n, func(i int) bool {
			if err := do(i); err != nil {
				t.Error(err)
			}
			return true
		})
		if t.Failed() {
			t.FailNow()
		}
	}
	step(func(i int) (err error) {
		sids[i], err = node.session(t.Context(), token, crashAddress(i))
		return err
	})
	mailed := s.mailedTokens(t)
	step(func(i int) error { return node.submit(t.Context(), token, sids[i], mailed[crashAddress(i)]) })
	return sids
}

// rotate begins a rotation by the command, kills that in its middle, too, and
// leaves the rest to the service.
func rotate(t *testing.T, s *site, db *sql.DB) {
	t.Helper()
	name := harness.Binary(t)
	command := exec.Command(name, "-config", s.config, "rotate-pepper")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rotation begins", func() bool {
		_, cursor := rotation(t, db)
		return cursor > 0
	})
	_ = command.Process.Kill()
	_ = command.Wait()
}

// bindUntilKilled binds the sessions' addresses, kills the service when so many
// binds have been acknowledged, and returns the addresses of all that were.
func bindUntilKilled(t *testing.T, n *node, token, user string, sids []string, killAfter int64) (acknowledged []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var count, failed atomic.Int64
	var killing sync.WaitGroup
	inParallel(len(sids), func(i int) bool {
		if err := n.bind(ctx, token, sids[i], user); err != nil {
			failed.Add(1)
			return false
		}
		mu.Lock()
		acknowledged = append(acknowledged, crashAddress(i))
		mu.Unlock()
		if count.Add(1) == killAfter {
			killing.Go(n.Kill)
		}
		return true
	})
	killing.Wait()
	if failed.Load() == 0 {
		t.Fatal("all binds were done before the service was killed")
	}
	return acknowledged
}

// checkLookups fails the test unless the acknowledged addresses are bound to
// user and those that were there to whom they were, with both algorithms.
func checkLookups(t *testing.T, n *node, token, pepper, user string, acknowledged []string, there int) {
	t.Helper()
	want := make(map[string]string)
	for _, a := range acknowledged {
		want[a] = user
	}
	for i := range 1000 {
		number := 1 + i*(there-1)/999 // the first and the last among them
		want[filledAddress(number)] = filledUser(number)
	}
	spelled := map[string]func(address string) string{
		"sha256": func(address string) string { return threepid.LookupHash(address, threepid.MediumEmail, pepper) },
		"none":   func(address string) string { return address + " email" },
	}
	for algorithm, spell := range spelled {
		var asked []string
		for address := range want {
			asked = append(asked, spell(address))
		}
		got, err := n.lookup(t.Context(), token, algorithm, pepper, asked)
		if err != nil {
			t.Fatal(err)
		}
		wrong := 0
		for address, user := range want {
			if got[spell(address)] != user {
				wrong++
			}
		}
		if wrong > 0 || len(got) != len(want) {
			t.Errorf("%s: %d of %d addresses are not found or are another's", algorithm, wrong, len(want))
		}
	}
}
