package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

func sendingCases() sessionCases {
	return sessionCases{
		"a first message that fails leaves nothing behind": func(t *testing.T, v *Validation) {
			v.fails(t, Email("s", 1))
			c := v.Outbox.All()[0]
			v.refuses(t, c, threepid.ErrNoSession)
			if again := v.Sent(t, Email("s", 1)); again.SID == c.SID || again.Token == c.Token {
				t.Error("the failed session lives on")
			}
		},
		"a further message that fails leaves the old token good and is sent when asked for again": func(t *testing.T, v *Validation) {
			old := v.Sent(t, Email("s", 1))
			v.fails(t, Email("s", 2))
			failed := v.Outbox.All()[1]
			v.refuses(t, failed, validation.ErrTokenIncorrect)
			v.accepts(t, old)
			c := v.Sent(t, Email("s", 2))
			v.refuses(t, failed, validation.ErrTokenIncorrect)
			v.refuses(t, old, validation.ErrTokenIncorrect)
			v.accepts(t, c)
		},
		"while a message is sent both tokens are good, then only the new one": func(t *testing.T, v *Validation) {
			old := v.Sent(t, Email("s", 1))
			v.Outbox.On(func(context.Context, threepid.Challenge) error {
				v.accepts(t, old)
				return nil
			})
			c := v.Sent(t, Email("s", 2))
			v.refuses(t, old, validation.ErrTokenIncorrect)
			v.accepts(t, c)
		},
		"a token that comes back before the relay has answered validates, and counts as sent whatever the answer": func(t *testing.T, v *Validation) {
			old := v.Sent(t, Email("s", 1))
			v.Outbox.On(func(_ context.Context, c threepid.Challenge) error {
				v.accepts(t, c)
				v.refuses(t, old, validation.ErrTokenIncorrect)
				return threepid.ErrSend
			})
			c := v.Sent(t, Email("s", 2))
			v.accepts(t, c)
			v.Outbox.On(nil)
			v.Requested(t, Email("s", 2))
			if n := v.Outbox.Len(); n != 2 {
				t.Errorf("%d messages were sent", n)
			}
		},
		"guesses during sending are counted against both codes": func(t *testing.T, v *Validation) {
			old := v.Sent(t, SMS("s", 1))
			v.Outbox.On(func(_ context.Context, c threepid.Challenge) error {
				guess := wrong(c, old.Token)
				for range 10 {
					v.refuses(t, guess, validation.ErrTokenIncorrect)
				}
				v.refuses(t, old, validation.ErrTokenIncorrect)
				return nil
			})
			v.refuses(t, v.Sent(t, SMS("s", 2)), validation.ErrTokenIncorrect)
			if n := v.Count(t, "guesses", "msisdn", "wrong"); n != 10 {
				t.Errorf("%d guesses were compared", n)
			}
		},
		"a message lost to a crash is sent once more when its lease is over": func(t *testing.T, v *Validation) {
			crashed := v.crash(t, Email("s", 1))
			for range 10 {
				v.refuses(t, wrong(crashed), validation.ErrTokenIncorrect)
			}
			v.Clock.Advance(time.Minute - time.Millisecond)
			v.awaitsOutcome(t, Email("s", 1))
			v.Clock.Advance(time.Millisecond)
			v.accepts(t, v.Sent(t, Email("s", 1)))
		},
		"a request that waits for a crashed one takes over when the lease is over": func(t *testing.T, v *Validation) {
			crashed := v.crash(t, Email("s", 1))
			watched := watch(v.Store)
			w := v.Replica(t, watched)
			var wg sync.WaitGroup
			wg.Go(func() { w.Requested(t, Email("s", 1)) })
			watched.waitFor(t.Context(), 1)
			v.Clock.Advance(time.Minute)
			wg.Wait()
			all := v.Outbox.All()
			if len(all) != 2 {
				t.Fatalf("%d messages were sent, not two", len(all))
			}
			v.refuses(t, crashed, validation.ErrTokenIncorrect)
			v.accepts(t, all[1])
		},
		"the token of a message whose sender crashed after sending is good": func(t *testing.T, v *Validation) {
			crashed := v.crash(t, Email("s", 1))
			v.accepts(t, crashed)
			if sid := v.Requested(t, Email("s", 1)); sid != crashed.SID {
				t.Error("another session")
			}
			if n := v.Outbox.Len(); n != 1 {
				t.Errorf("%d messages were sent", n)
			}
		},
		"a sender that lost its lease changes nothing": func(t *testing.T, v *Validation) {
			var winner threepid.Challenge
			v.Outbox.On(func(context.Context, threepid.Challenge) error {
				v.Outbox.On(nil)
				v.Clock.Advance(time.Minute) // as if this process had been suspended
				v.Requested(t, Email("s", 1))
				winner = v.Outbox.All()[1]
				return nil
			})
			v.Requested(t, Email("s", 1)) // the attempt was sent, if by somebody else
			v.refuses(t, v.Outbox.All()[0], validation.ErrTokenIncorrect)
			v.accepts(t, winner)
		},
		"a session that expires while its message is sent is not revived": func(t *testing.T, v *Validation) {
			old := v.Sent(t, Email("s", 1))
			v.Clock.Advance(24*time.Hour - time.Second)
			v.Outbox.On(func(context.Context, threepid.Challenge) error {
				v.Clock.Advance(time.Second)
				v.sweep(t)
				return nil
			})
			if _, err := v.Request(t.Context(), Email("s", 2)); !errors.Is(err, threepid.ErrSend) {
				t.Errorf("request: %v", err)
			}
			v.expired(t, old)
			v.Outbox.On(nil)
			v.accepts(t, v.Sent(t, Email("s", 2)))
		},
	}
}

func raceCases() sessionCases {
	const many = 10
	return sessionCases{
		"ten simultaneous requests in two processes send one message": func(t *testing.T, v *Validation) {
			processes := []*Validation{v, v.Replica(t, v.Store)}
			for attempt := range int64(3) {
				before := v.Outbox.Len()
				sids := make(map[string]bool)
				var mu sync.Mutex
				parallel(many, func(i int) {
					sid, err := processes[i%2].Request(t.Context(), Email("s", attempt))
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					sids[sid] = true
				})
				if sent := v.Outbox.Len() - before; sent != 1 || len(sids) != 1 {
					t.Errorf("attempt %d: %d messages, %d sessions", attempt, sent, len(sids))
				}
			}
		},
		"ten simultaneous requests replace an expired session once": func(t *testing.T, v *Validation) {
			old := v.Sent(t, Email("s", 1))
			v.Clock.Advance(24 * time.Hour)
			parallel(many, func(int) { v.Requested(t, Email("s", 1)) })
			if n := v.Outbox.Len(); n != 2 {
				t.Errorf("%d messages were sent, not two", n)
			}
			v.expired(t, old)
			v.accepts(t, v.Outbox.All()[1])
		},
		"ten simultaneous requests share the failure of the one that sends": func(t *testing.T, v *Validation) {
			watched := watch(v.Store)
			w := v.Replica(t, watched)
			v.Outbox.On(func(ctx context.Context, _ threepid.Challenge) error {
				watched.waitFor(ctx, many-1)
				return threepid.ErrSend
			})
			parallel(many, func(int) {
				if _, err := w.Request(t.Context(), Email("s", 1)); !errors.Is(err, threepid.ErrSend) {
					t.Error(err)
				}
			})
			if n := v.Outbox.Len(); n != 1 {
				t.Errorf("%d messages were sent", n)
			}
			v.Outbox.On(nil)
			v.Sent(t, Email("s", 1))
		},
		"a higher attempt waits for the lower one and is sent after it": func(t *testing.T, v *Validation) {
			watched := watch(v.Store)
			w := v.Replica(t, watched)
			for i, outcome := range []error{nil, threepid.ErrSend} {
				low := int64(10 * i)
				sending := make(chan struct{})
				v.Outbox.On(func(ctx context.Context, _ threepid.Challenge) error {
					v.Outbox.On(nil)
					close(sending)
					watched.waitFor(ctx, 1)
					return outcome
				})
				var wg sync.WaitGroup
				wg.Go(func() {
					if _, err := v.Request(t.Context(), Email("s", low)); !errors.Is(err, outcome) {
						t.Error(err)
					}
				})
				<-sending
				w.Requested(t, Email("s", low+1))
				wg.Wait()
			}
			all := v.Outbox.All()
			if len(all) != 4 {
				t.Fatalf("%d messages were sent, not four", len(all))
			}
			v.accepts(t, all[3])
		},
		"of a thousand simultaneous guesses ten are compared": func(t *testing.T, v *Validation) {
			c := v.Sent(t, SMS("s", 1))
			parallel(1000, func(int) { v.refuses(t, wrong(c), validation.ErrTokenIncorrect) })
			if n := v.Count(t, "guesses", "msisdn", "wrong"); n != 10 {
				t.Errorf("%d guesses were compared", n)
			}
			v.refuses(t, c, validation.ErrTokenIncorrect)
		},
		"simultaneous guesses in five sessions of one number are ten together": func(t *testing.T, v *Validation) {
			var sessions []threepid.Challenge
			for i := range 5 {
				sessions = append(sessions, v.Sent(t, SMS(fmt.Sprint("s", i), 1)))
			}
			parallel(50, func(i int) { v.refuses(t, wrong(sessions[i%5]), validation.ErrTokenIncorrect) })
			if n := v.Count(t, "guesses", "msisdn", "wrong"); n != 10 {
				t.Errorf("%d guesses were compared", n)
			}
		},
		"the right token amid wrong ones validates or comes too late, and never both": func(t *testing.T, v *Validation) {
			c := v.Sent(t, SMS("s", 1))
			var right error
			parallel(40, func(i int) {
				if i == 20 {
					_, right = v.submit(t, c)
				} else {
					v.refuses(t, wrong(c), validation.ErrTokenIncorrect)
				}
			})
			_, err := v.Validated(t.Context(), Owner, c.SID, c.ClientSecret)
			switch {
			case right == nil && err == nil:
			case errors.Is(right, validation.ErrTokenIncorrect) && errors.Is(err, threepid.ErrNotValidated):
			default:
				t.Errorf("submitted: %v, read: %v", right, err)
			}
			if n := v.Count(t, "guesses", "msisdn", "wrong"); n != 10 {
				t.Errorf("%d wrong guesses were compared", n)
			}
		},
		"simultaneous right tokens validate once": func(t *testing.T, v *Validation) {
			c := v.Sent(t, Email("s", 1))
			parallel(many, func(int) { v.accepts(t, c) })
			if right, repeated := v.Count(t, "guesses", "email", "right"), v.Count(t, "guesses", "email", "repeated"); right != 1 || repeated != many-1 {
				t.Errorf("%d right and %d repeated", right, repeated)
			}
		},
		"submitting, sending and sweeping at once disturb nobody": func(t *testing.T, v *Validation) {
			c := v.Sent(t, Email("s", 1))
			// Nine submissions: a tenth of what has become an old token could void the
			// new one.
			parallel(36, func(i int) {
				switch i % 4 {
				case 0:
					if _, err := v.submit(t, c); err != nil && !errors.Is(err, validation.ErrTokenIncorrect) {
						t.Error(err)
					}
				case 1:
					v.Requested(t, Email("s", int64(i)))
				case 2:
					v.sweep(t)
				default:
					v.Requested(t, Email("other"+strings.Repeat("x", i), 1))
				}
			})
			all := v.Outbox.All()
			var last threepid.Challenge
			for _, m := range all {
				if m.SID == c.SID {
					last = m
				}
			}
			v.accepts(t, last)
		},
	}
}

// parallel calls f with 0 to n-1 at once and waits for all calls.
func parallel(n int, f func(i int)) {
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// fails makes a request whose message is refused by the relay.
func (v *Validation) fails(t *testing.T, r validation.Request) {
	t.Helper()
	v.Outbox.On(func(context.Context, threepid.Challenge) error { return threepid.ErrSend })
	defer v.Outbox.On(nil)
	if sid, err := v.Request(t.Context(), r); !errors.Is(err, threepid.ErrSend) || sid != "" {
		t.Fatalf("request: %q, %v", sid, err)
	}
}

// crash makes a request whose process dies when the relay has taken the
// message, and returns that.
func (v *Validation) crash(t *testing.T, r validation.Request) threepid.Challenge {
	t.Helper()
	v.Outbox.On(func(context.Context, threepid.Challenge) error { panic("crash") })
	defer v.Outbox.On(nil)
	func() {
		defer func() {
			if recover() == nil {
				t.Fatal("the sender did not crash")
			}
		}()
		_, _ = v.Request(t.Context(), r)
	}()
	all := v.Outbox.All()
	return all[len(all)-1]
}

// awaitsOutcome makes a request that must still wait for somebody else's
// message at its deadline.
func (v *Validation) awaitsOutcome(t *testing.T, r validation.Request) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	before := v.Outbox.Len()
	_, err := v.Request(ctx, r)
	if !errors.Is(err, threepid.ErrSend) || !errors.Is(err, context.DeadlineExceeded) || v.Outbox.Len() != before {
		t.Errorf("request: %v, %d messages", err, v.Outbox.Len()-before)
	}
}

// watchedStore tells when a request lost the race for a claim and waits.
type watchedStore struct {
	validation.Store
	lost chan struct{}
}

func watch(s validation.Store) *watchedStore {
	const enough = 100 // more requests than any case here makes
	return &watchedStore{Store: s, lost: make(chan struct{}, enough)}
}

// ClaimSession asks the store and tells if it refused.
func (w *watchedStore) ClaimSession(ctx context.Context, c validation.Claim) (validation.ClaimResult, error) {
	r, err := w.Store.ClaimSession(ctx, c)
	if err == nil && !r.Won {
		w.lost <- struct{}{}
	}
	return r, err
}

func (w *watchedStore) waitFor(ctx context.Context, lost int) {
	for range lost {
		select {
		case <-w.lost:
		case <-ctx.Done():
			return
		}
	}
}
