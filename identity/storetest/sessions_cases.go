package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

const day = 24 * time.Hour

type sessionCases = map[string]func(*testing.T, *Validation)

func requestCases() sessionCases {
	return sessionCases{
		"a first request sends a token and a repeated one does not": func(t *testing.T, v *Validation) {
			c := v.Sent(t, Email("s", 1))
			for _, attempt := range []int64{1, 1, 0, -7} {
				if sid := v.Requested(t, Email("s", attempt)); sid != c.SID {
					t.Errorf("attempt %d is another session", attempt)
				}
			}
			if n := v.Outbox.Len(); n != 1 {
				t.Errorf("%d messages were sent", n)
			}
		},
		"a higher attempt sends a new token for the same session, and only that works": func(t *testing.T, v *Validation) {
			first := v.Sent(t, Email("s", 1))
			second := v.Sent(t, Email("s", 5))
			if first.SID != second.SID || first.Token == second.Token {
				t.Error("not the same session with another token")
			}
			v.refuses(t, first, validation.ErrTokenIncorrect)
			v.accepts(t, second)
			v.Requested(t, Email("s", 3))
			if n := v.Outbox.Len(); n != 2 {
				t.Errorf("an attempt below the last one sent a message")
			}
		},
		"attempts may begin below zero": func(t *testing.T, v *Validation) {
			v.Sent(t, Email("s", -5))
			v.Requested(t, Email("s", -5))
			v.Sent(t, Email("s", 0))
			if n := v.Outbox.Len(); n != 2 {
				t.Errorf("%d messages were sent", n)
			}
		},
		"another client_secret or address is another session with its own attempts": func(t *testing.T, v *Validation) {
			a, b, c := v.Sent(t, Email("s", 3)), v.Sent(t, Email("S", 1)), v.Sent(t, SMS("s", 1))
			other := Email("s", 1)
			other.ID.Address = "bob@example.org"
			d := v.Sent(t, other)
			seen := map[string]bool{}
			for _, x := range []threepid.Challenge{a, b, c, d} {
				seen[x.SID], seen[x.Token] = true, true
				v.accepts(t, x)
			}
			if len(seen) != 8 {
				t.Error("two sessions share a sid or a token")
			}
		},
		"next_link and spelling are those of the last message that was sent": func(t *testing.T, v *Validation) {
			r := Email("s", 1)
			r.NextLink, r.OriginalSpelling = "https://example.org/a", "Alice@example.org"
			v.Sent(t, r)
			r.NextLink, r.OriginalSpelling = "https://example.org/b?x=y", "ALICE@example.org"
			c := v.Sent(t, withAttempt(r, 2))
			r.NextLink, r.OriginalSpelling = "https://example.org/c", "aLICE@example.org"
			v.Requested(t, withAttempt(r, 2)) // sends nothing
			v.Outbox.On(func(context.Context, threepid.Challenge) error { return threepid.ErrSend })
			if _, err := v.Request(t.Context(), withAttempt(r, 3)); !errors.Is(err, threepid.ErrSend) {
				t.Fatal(err)
			}
			s := v.accepts(t, c)
			if want := "https://example.org/b?x=y&sid=" + c.SID; s.NextLink != want {
				t.Errorf("next_link %q, want %q", s.NextLink, want)
			}
			if s.OriginalSpelling != "ALICE@example.org" {
				t.Errorf("given %q", s.OriginalSpelling)
			}
		},
	}
}

func submitCases() sessionCases {
	return sessionCases{
		"a session is validated when the token comes back": func(t *testing.T, v *Validation) {
			c := v.Sent(t, Email("s", 1))
			if _, err := v.Validated(t.Context(), Owner, c.SID, "s"); !errors.Is(err, threepid.ErrNotValidated) {
				t.Fatalf("before: %v", err)
			}
			v.Clock.Advance(3*time.Hour + 1234*time.Millisecond)
			s := v.accepts(t, c)
			got, err := v.Validated(t.Context(), Owner, c.SID, "s")
			if err != nil || got != s || s.ID != c.ID || !s.ValidatedAt.Equal(v.Clock.Now()) || s.NextLink != "" {
				t.Errorf("submitted %v at %v, read %v at %v, %v", s, s.ValidatedAt, got, got.ValidatedAt, err)
			}
		},
		"the same token again is right again and changes nothing": func(t *testing.T, v *Validation) {
			c := v.Sent(t, SMS("s", 1))
			first := v.accepts(t, c)
			v.Clock.Advance(23 * time.Hour) // long after the code would have been too old
			first.Again = true
			if again := v.accepts(t, c); again != first {
				t.Errorf("validated at %v, then at %v", first.ValidatedAt, again.ValidatedAt)
			}
			if right, repeated := v.Count(t, "guesses", "msisdn", "right"), v.Count(t, "guesses", "msisdn", "repeated"); right != 1 || repeated != 1 {
				t.Errorf("%d right and %d repeated guesses", right, repeated)
			}
			v.Clock.Advance(time.Hour)
			v.refuses(t, c, threepid.ErrSessionExpired)
		},
		"a new token validates again": func(t *testing.T, v *Validation) {
			v.accepts(t, v.Sent(t, Email("s", 1)))
			v.Clock.Advance(20 * time.Hour)
			c := v.Sent(t, Email("s", 2))
			if s := v.accepts(t, c); !s.ValidatedAt.Equal(v.Clock.Now()) {
				t.Errorf("validated at %v", s.ValidatedAt)
			}
			v.Clock.Advance(20 * time.Hour)
			v.accepts(t, c)
		},
		"what is wrong of sid, client_secret and medium is not told": func(t *testing.T, v *Validation) {
			c := v.Sent(t, Email("s", 1))
			for name, submit := range map[string]struct {
				medium      threepid.Medium
				sid, secret string
			}{
				"sid":    {threepid.MediumEmail, "x" + c.SID, "s"},
				"secret": {threepid.MediumEmail, c.SID, "S"},
				"medium": {threepid.MediumMSISDN, c.SID, "s"},
			} {
				_, err := v.Submit(t.Context(), submit.medium, submit.sid, submit.secret, c.Token)
				//nolint:errorlint // not even a wrapping may tell the cases apart
				if err != threepid.ErrNoSession {
					t.Errorf("wrong %s: %v", name, err)
				}
			}
			for name, pair := range map[string][2]string{"sid": {"x", "s"}, "secret": {c.SID, "x"}} {
				//nolint:errorlint // as above
				if _, err := v.Validated(t.Context(), Owner, pair[0], pair[1]); err != threepid.ErrNoSession {
					t.Errorf("wrong %s: %v", name, err)
				}
			}
			v.accepts(t, c)
		},
		"a token of one session is wrong in another": func(t *testing.T, v *Validation) {
			a, b := v.Sent(t, Email("a", 1)), v.Sent(t, Email("b", 1))
			a.Token, b.Token = b.Token, a.Token
			v.refuses(t, a, validation.ErrTokenIncorrect)
			v.refuses(t, b, validation.ErrTokenIncorrect)
		},
		"a session belongs to who began it": func(t *testing.T, v *Validation) {
			of := func(owner string) validation.Request {
				r := Email("s", 1)
				r.Owner = owner
				return r
			}
			mine, theirs := v.Sent(t, of(Owner)), v.Sent(t, of("@mallory:example.org"))
			if mine.SID == theirs.SID {
				t.Error("somebody else's request with the same client_secret is of the same session")
			}
			for range 2 { // before it is validated and afterwards
				//nolint:errorlint // as above
				if _, err := v.Validated(t.Context(), Owner, theirs.SID, "s"); err != threepid.ErrNoSession {
					t.Errorf("somebody else's session: %v", err)
				}
				v.accepts(t, theirs)
			}
			if s, err := v.Proven(t.Context(), theirs.SID, "s"); err != nil || s.Owner != "@mallory:example.org" {
				t.Errorf("for whomever: %q, %v", s.Owner, err)
			}
			if again := v.Requested(t, of(Owner)); again != mine.SID {
				t.Error("one's own request began another session")
			}
		},
		"ten wrong guesses at a number in a day void its codes in all sessions, and the next one is too long to guess": func(t *testing.T, v *Validation) {
			ask := func(i int, attempt int64) threepid.Challenge {
				r := SMS(fmt.Sprint("s", i), attempt)
				r.Owner = fmt.Sprintf("@user%d:example.org", i)
				return v.Sent(t, r)
			}
			other := SMS("other", 1)
			other.ID.Address, other.To = "447700900002", "447700900002"
			untouched := v.Sent(t, other)
			var sessions []threepid.Challenge
			for i := range 5 {
				sessions = append(sessions, ask(i, 1))
			}
			for i := range 10 {
				v.refuses(t, wrong(sessions[i%5]), validation.ErrTokenIncorrect)
			}
			for _, c := range sessions {
				v.refuses(t, c, validation.ErrSpent)
			}
			v.accepts(t, untouched)
			for i, c := range []threepid.Challenge{ask(0, 2), ask(9, 1)} {
				if len(c.Token) != 12 {
					t.Errorf("message %d has a code of %d characters", i+1, len(c.Token))
				}
				for range 20 {
					v.refuses(t, wrong(c), validation.ErrTokenIncorrect)
				}
				v.refuses(t, sessions[1], validation.ErrSpent)
				v.accepts(t, c)
			}
			v.Clock.Advance(day)
			v.sweep(t)
			if c := ask(1, 1); len(c.Token) != 6 {
				t.Errorf("a day later the code has %d characters", len(c.Token))
			}
		},
		"what is too long to guess is not counted": func(t *testing.T, v *Validation) {
			c := v.Sent(t, Email("s", 1))
			for range 30 {
				v.refuses(t, wrong(c), validation.ErrTokenIncorrect)
			}
			v.accepts(t, c)
		},
		"ten wrong guesses void a code, and a new code may be guessed at again": func(t *testing.T, v *Validation) {
			c := v.Sent(t, SMS("s", 1))
			for range 10 {
				v.refuses(t, wrong(c), validation.ErrTokenIncorrect)
			}
			v.refuses(t, c, validation.ErrSpent)
			if wrong, spent := v.Count(t, "guesses", "msisdn", "wrong"), v.Count(t, "guesses", "msisdn", "spent"); wrong != 10 || spent != 1 {
				t.Errorf("%d wrong guesses, %d of a spent code", wrong, spent)
			}
			if _, err := v.Validated(t.Context(), Owner, c.SID, "s"); !errors.Is(err, threepid.ErrNotValidated) {
				t.Errorf("the session: %v", err)
			}
			c = v.Sent(t, SMS("s", 2))
			for range 9 {
				v.refuses(t, wrong(c), validation.ErrTokenIncorrect)
			}
			v.accepts(t, c)
		},
		"right guesses are not counted": func(t *testing.T, v *Validation) {
			c := v.Sent(t, Email("s", 1))
			for range 30 {
				v.accepts(t, c)
			}
		},
		"voiding the code of a validated session leaves it validated": func(t *testing.T, v *Validation) {
			c := v.Sent(t, SMS("s", 1))
			v.accepts(t, c)
			for range 10 {
				v.refuses(t, wrong(c), validation.ErrTokenIncorrect)
			}
			v.refuses(t, c, validation.ErrTokenIncorrect)
			if _, err := v.Validated(t.Context(), Owner, c.SID, "s"); err != nil {
				t.Error(err)
			}
		},
	}
}

func lifeCases() sessionCases {
	return sessionCases{
		"the code of an SMS works for ten minutes": func(t *testing.T, v *Validation) {
			c := v.Sent(t, SMS("s", 1))
			if c.ValidFor != 10*time.Minute {
				t.Errorf("the message says %v", c.ValidFor)
			}
			v.Clock.Advance(10*time.Minute - time.Millisecond)
			late := v.Sent(t, SMS("late", 1))
			v.accepts(t, c)
			v.Clock.Advance(10 * time.Minute)
			v.refuses(t, late, validation.ErrTokenIncorrect)
			v.accepts(t, v.Sent(t, SMS("late", 2)))
		},
		"a session expires a day after it began, sending again or not": func(t *testing.T, v *Validation) {
			v.Sent(t, Email("s", 1))
			v.Clock.Advance(day - time.Millisecond)
			c := v.Sent(t, Email("s", 2))
			if c.ValidFor != time.Millisecond {
				t.Errorf("the second message says %v", c.ValidFor)
			}
			if _, err := v.Validated(t.Context(), Owner, c.SID, "s"); !errors.Is(err, threepid.ErrNotValidated) {
				t.Errorf("a millisecond before: %v", err)
			}
			v.Clock.Advance(time.Millisecond)
			v.expired(t, c)
		},
		"a validated session expires a day after it was validated": func(t *testing.T, v *Validation) {
			c := v.Sent(t, Email("s", 1))
			v.Clock.Advance(day - time.Millisecond)
			v.accepts(t, c)
			v.Clock.Advance(day - time.Millisecond)
			v.accepts(t, c)
			v.Clock.Advance(time.Millisecond)
			v.expired(t, c)
		},
		"an expired session is replaced, not revived": func(t *testing.T, v *Validation) {
			old := v.Sent(t, Email("s", 1))
			v.accepts(t, old)
			v.Clock.Advance(day)
			c := v.Sent(t, Email("s", 1)) // the attempts begin anew
			if c.SID == old.SID || c.Token == old.Token {
				t.Error("the old session lives on")
			}
			v.expired(t, old)
			if _, err := v.Validated(t.Context(), Owner, c.SID, "s"); !errors.Is(err, threepid.ErrNotValidated) {
				t.Errorf("the new session: %v", err)
			}
			v.refuses(t, threepid.Challenge{ID: c.ID, SID: c.SID, ClientSecret: "s", Token: old.Token}, validation.ErrTokenIncorrect)
			v.accepts(t, c)
			if n := v.Count(t, "sessions", "replaced"); n != 1 {
				t.Errorf("%d sessions were replaced", n)
			}
		},
		"an expired session says so for seven days, swept or not": func(t *testing.T, v *Validation) {
			a, b := v.Sent(t, Email("a", 1)), v.Sent(t, SMS("b", 1))
			v.Clock.Advance(day)
			v.Sent(t, Email("a", 1)) // replaces a, not b
			for range 7 {
				v.sweep(t)
				v.expired(t, a)
				v.expired(t, b)
				v.Clock.Advance(day - time.Millisecond)
			}
			v.Clock.Advance(7 * time.Millisecond)
			v.sweep(t)
			for _, c := range []threepid.Challenge{a, b} {
				v.refuses(t, c, threepid.ErrNoSession)
			}
			v.sweep(t)
			if retired, gone := v.Count(t, "sessions", "expired"), v.Count(t, "sessions", "deleted"); retired != 2 || gone != 2 {
				t.Errorf("%d sessions expired, %d were deleted", retired, gone)
			}
		},
		"sweeping leaves live sessions alone": func(t *testing.T, v *Validation) {
			done, open := v.Sent(t, Email("done", 1)), v.Sent(t, Email("open", 1))
			v.accepts(t, done)
			v.Clock.Advance(day - time.Millisecond)
			v.sweep(t)
			v.accepts(t, done)
			v.accepts(t, open)
		},
		"a sweep goes on until nothing is left": func(t *testing.T, v *Validation) {
			const sessions = 12
			for i := range sessions {
				v.Sent(t, Email(fmt.Sprint(i), 1))
			}
			v.Clock.Advance(8 * day)
			for _, step := range []func(context.Context, time.Time, int) (int, error){v.Store.RetireSessions, v.Store.DeleteSessions} {
				for _, want := range []int{5, 5, 2, 0} {
					if n, err := step(t.Context(), v.Clock.Now(), 5); err != nil || n != want {
						t.Errorf("%d sessions of a batch of 5, %v; want %d", n, err, want)
					}
				}
			}
		},
	}
}

func withAttempt(r validation.Request, attempt int64) validation.Request {
	r.SendAttempt = attempt
	return r
}

// wrong returns c with a token of the same form that is not right, nor one of
// the others.
func wrong(c threepid.Challenge, others ...string) threepid.Challenge {
	right := c.Token
	for _, digit := range "234567" {
		c.Token = right[:len(right)-1] + string(digit)
		if c.Token != right && !slices.Contains(others, c.Token) {
			break
		}
	}
	return c
}

func (v *Validation) submit(t *testing.T, c threepid.Challenge) (validation.Session, error) {
	t.Helper()
	return v.Submit(t.Context(), c.ID.Medium, c.SID, c.ClientSecret, c.Token)
}

func (v *Validation) accepts(t *testing.T, c threepid.Challenge) validation.Session {
	t.Helper()
	s, err := v.submit(t, c)
	if err != nil || s.SID != c.SID {
		t.Errorf("submit: session %s, %v", s.SID, err)
	}
	return s
}

func (v *Validation) refuses(t *testing.T, c threepid.Challenge, want error) {
	t.Helper()
	if _, err := v.submit(t, c); !errors.Is(err, want) {
		t.Errorf("submit: %v, want %v", err, want)
	}
}

func (v *Validation) expired(t *testing.T, c threepid.Challenge) {
	t.Helper()
	v.refuses(t, c, threepid.ErrSessionExpired)
	v.refuses(t, wrong(c), threepid.ErrSessionExpired)
	if _, err := v.Validated(t.Context(), Owner, c.SID, c.ClientSecret); !errors.Is(err, threepid.ErrSessionExpired) {
		t.Errorf("read: %v", err)
	}
	if _, err := v.Validated(t.Context(), Owner, c.SID, "x"+c.ClientSecret); !errors.Is(err, threepid.ErrNoSession) {
		t.Errorf("read with a wrong secret: %v", err)
	}
}

func (v *Validation) sweep(t *testing.T) {
	t.Helper()
	if err := v.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}
