package homeserver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// These tests are internal because only a bubble without sockets knows when
// every caller is waiting.

func TestFlightsShareOneLookupPerName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f flights[Destination]
		var lookups atomic.Int32
		errGone := errors.New("gone")
		release := make(chan struct{})
		var wg sync.WaitGroup
		for _, key := range []string{"a", "b"} {
			for range 50 {
				wg.Go(func() {
					got, err := f.do(t.Context(), key, func() (Destination, error) {
						lookups.Add(1)
						<-release
						return Destination{Host: key}, errGone
					})
					if got.Host != key || !errors.Is(err, errGone) {
						t.Errorf("%s: got %v, %v", key, got, err)
					}
				})
			}
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		if n := lookups.Load(); n != 2 {
			t.Errorf("%d lookups for 2 names", n)
		}
		if len(f.current) != 0 {
			t.Errorf("%d flights left behind", len(f.current))
		}
	})
}

func TestFlightsAreTakenOverWhenTheFirstCallerGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f flights[Destination]
		var wg sync.WaitGroup
		// Each caller has a second more than the one before; the last one's
		// lookup succeeds.
		const callers = 5
		for i := range callers {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Second)
				defer cancel()
				_, err := f.do(ctx, "a", func() (Destination, error) {
					if i == callers-1 {
						return Destination{}, nil
					}
					<-ctx.Done()
					return Destination{}, ctx.Err()
				})
				if last := i == callers-1; last != (err == nil) {
					t.Errorf("caller %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
	})
}

func TestAFlightEndsWhenItsLookupPanics(t *testing.T) {
	t.Parallel()
	var f flights[Destination]
	func() {
		defer func() { _ = recover() }()
		_, _ = f.do(t.Context(), "a", func() (Destination, error) { panic("lookup") })
	}()
	if _, err := f.do(t.Context(), "a", func() (Destination, error) { return Destination{}, nil }); err != nil {
		t.Error(err)
	}
}
