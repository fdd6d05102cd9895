package validation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

// open returns an empty store. The state machine is tested with every database
// by package storetest; these tests are about what is around it.
func open(t *testing.T) *sqlstore.DB {
	t.Helper()
	db, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: storetest.SQLite(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// options returns what New requires, with o as the Messenger of mails.
func options(store validation.Store, o validation.Messenger) validation.Options {
	return validation.Options{
		Store:      store,
		Messengers: map[threepid.Medium]validation.Messenger{threepid.MediumEmail: o},
		CodeKey:    bytes.Repeat([]byte{1}, validation.MinCodeKey),
		Log:        slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
}

func TestNewRefusesOptionsThatCannotWork(t *testing.T) {
	t.Parallel()
	store := open(t)
	for name, change := range map[string]func(*validation.Options){
		"no store":                  func(o *validation.Options) { o.Store = nil },
		"no messengers":             func(o *validation.Options) { o.Messengers = nil },
		"no logger":                 func(o *validation.Options) { o.Log = nil },
		"no registerer":             func(o *validation.Options) { o.Registerer = nil },
		"a short key":               func(o *validation.Options) { o.CodeKey = o.CodeKey[1:] },
		"a negative number":         func(o *validation.Options) { o.MaxTries = -1 },
		"a negative token life":     func(o *validation.Options) { o.TokenLife = -1 },
		"a negative session life":   func(o *validation.Options) { o.SessionLife = -1 },
		"a negative lease":          func(o *validation.Options) { o.Lease = -1 },
		"everything right (sanity)": func(*validation.Options) {},
	} {
		o := options(store, &storetest.Outbox{})
		change(&o)
		_, err := validation.New(o)
		if (err == nil) != (name == "everything right (sanity)") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheMessengerGetsEverythingItNeeds(t *testing.T) {
	t.Parallel()
	v := storetest.NewValidation(t, open(t))
	mail := storetest.Email("secret", 1)
	mail.NextLink, mail.Homeserver, mail.Brand, mail.Language = "https://example.org/", "example.org", "acme", "de"
	sid := v.Requested(t, mail)
	smsSID := v.Requested(t, storetest.SMS("secret", 1))
	got := v.Outbox.All()
	want := []threepid.Challenge{
		{
			ID: mail.ID, To: "alice@example.org", SID: sid, ClientSecret: "secret", NextLink: "https://example.org/",
			Homeserver: "example.org", Brand: "acme", Language: "de", ValidFor: 24 * time.Hour,
		},
		{
			ID:     threepid.ID{Medium: threepid.MediumMSISDN, Address: "447700900001"},
			To:     "447700900001",
			Region: "GB", SID: smsSID, ClientSecret: "secret", ValidFor: 10 * time.Minute,
		},
	}
	ignoreToken := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Token" }, cmp.Ignore())
	if d := cmp.Diff(want, got, ignoreToken); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// Conformance (requestToken): sid and tokens cannot be guessed, a number's is 6 digits, kept as hashes (also TestSessionsKeepNeitherTokensNorSecrets)
// Conformance (security): tokens, secrets and codes cannot be guessed, and are stored as hashes (also TestSessionsKeepNeitherTokensNorSecrets, TestAnotherKeyKnowsNoSessions)
func TestTokensAndSIDs(t *testing.T) {
	t.Parallel()
	v := storetest.NewValidation(t, open(t))
	forms := map[threepid.Medium]*regexp.Regexp{
		threepid.MediumEmail: regexp.MustCompile(`^[A-Z2-7]{26}$`), threepid.MediumMSISDN: regexp.MustCompile(`^[0-9]{6}$`),
	}
	first := make(map[byte]bool)
	seen := make(map[string]bool)
	const each = 300 // each first digit begins one code in ten
	for i := range each {
		for _, c := range []threepid.Challenge{v.Sent(t, storetest.Email(fmt.Sprint(i), 1)), v.Sent(t, storetest.SMS(fmt.Sprint(i), 1))} {
			if !forms[c.ID.Medium].MatchString(c.Token) {
				t.Fatalf("%s token %q", c.ID.Medium, c.Token)
			}
			if err := validation.CheckSID(c.SID); err != nil || len(c.SID) < 26 {
				t.Fatalf("sid %q: %v", c.SID, err)
			}
			seen[c.SID] = true
			if c.ID.Medium == threepid.MediumEmail {
				seen[c.Token] = true
			} else {
				first[c.Token[0]] = true
			}
		}
	}
	if len(first) != 10 {
		t.Errorf("codes begin with %d different digits", len(first))
	}
	if len(seen) != 3*each {
		t.Errorf("%d different sids and tokens, want %d", len(seen), 3*each)
	}
}

func TestWhatCannotBeValidatedIsRefusedBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	o := options(open(t), &storetest.Outbox{})
	o.NextLinkHosts = []string{"app.example.org"}
	s, err := validation.New(o)
	if err != nil {
		t.Fatal(err)
	}
	good := storetest.Email("s", 1)
	good.NextLink = "https://app.example.org/"
	for name, tc := range map[string]struct {
		change func(*validation.Request)
		want   error
	}{
		"nothing wrong":          {func(*validation.Request) {}, nil},
		"a bad client_secret":    {func(r *validation.Request) { r.ClientSecret = "a b" }, validation.ErrInvalidSecret},
		"a next_link elsewhere":  {func(r *validation.Request) { r.NextLink = "https://example.org/" }, validation.ErrInvalidNextLink},
		"a medium without a way": {func(r *validation.Request) { *r = storetest.SMS("s", 1) }, threepid.ErrUnsupportedMedium},
	} {
		r := good
		tc.change(&r)
		if sid, err := s.Request(t.Context(), r); !errors.Is(err, tc.want) || (sid == "") != (err != nil) {
			t.Errorf("%s: sid %q, %v", name, sid, err)
		}
	}
	if n := o.Messengers[threepid.MediumEmail].(*storetest.Outbox).Len(); n != 1 {
		t.Errorf("%d messages were sent", n)
	}
	for name, tc := range map[string]struct {
		sid, secret string
		want        error
	}{
		"a bad sid":           {"a b", "s", validation.ErrInvalidSID},
		"a bad client_secret": {"a", "", validation.ErrInvalidSecret},
	} {
		if _, err := s.Submit(t.Context(), threepid.MediumEmail, tc.sid, tc.secret, "x"); !errors.Is(err, tc.want) {
			t.Errorf("submit with %s: %v", name, err)
		}
		if _, err := s.Validated(t.Context(), storetest.Owner, tc.sid, tc.secret); !errors.Is(err, tc.want) {
			t.Errorf("read with %s: %v", name, err)
		}
	}
}

func TestErrorsOfTheMessengerArePassedOn(t *testing.T) {
	t.Parallel()
	odd := errors.New("odd")
	for name, tc := range map[string]struct {
		sent, want error
		outcome    string
	}{
		"a relay that refuses":          {fmt.Errorf("relay: %w", threepid.ErrSend), threepid.ErrSend, "send_error"},
		"a country that is not texted":  {threepid.ErrDestinationRejected, threepid.ErrDestinationRejected, "destination_rejected"},
		"a typing error, as no failure": {threepid.ErrNoMailbox, threepid.ErrSend, "destination_rejected"},
		"full slots":                    {&threepid.BusyError{RetryAfter: 7 * time.Second}, threepid.ErrBusy, "busy"},
		"success":                       {nil, nil, "sent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := storetest.NewValidation(t, open(t))
			v.Outbox.On(func(context.Context, threepid.Challenge) error { return tc.sent })
			_, err := v.Request(t.Context(), storetest.Email("s", 1))
			if !errors.Is(err, tc.sent) || !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.sent)
			}
			if n := v.Count(t, "sends", "email", tc.outcome); n != 1 {
				t.Errorf("counted %d times as %s", n, tc.outcome)
			}
		})
	}
	t.Run("an unknown error is a failure to send", func(t *testing.T) {
		t.Parallel()
		v := storetest.NewValidation(t, open(t))
		v.Outbox.On(func(context.Context, threepid.Challenge) error { return odd })
		if _, err := v.Request(t.Context(), storetest.Email("s", 1)); !errors.Is(err, odd) || !errors.Is(err, threepid.ErrSend) {
			t.Error(err)
		}
	})
}

func hang(ctx context.Context, _ threepid.Challenge) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestASenderThatHangsIsCutAtTheDeadline(t *testing.T) {
	t.Parallel()
	v := storetest.NewValidation(t, open(t))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	v.Outbox.On(func(sending context.Context, c threepid.Challenge) error {
		theirs, _ := ctx.Deadline()
		if d, _ := sending.Deadline(); !d.Equal(theirs) {
			t.Errorf("sending may take until %v, the request until %v", d, theirs)
		}
		return hang(sending, c)
	})
	if _, err := v.Request(ctx, storetest.Email("s", 1)); !errors.Is(err, threepid.ErrSend) {
		t.Fatal(err)
	}
	v.Outbox.On(nil)
	v.Sent(t, storetest.Email("s", 1)) // at once: the claim was released
}

func TestASenderThatHangsIsCutWithinTheLease(t *testing.T) {
	t.Parallel()
	outbox := &storetest.Outbox{}
	outbox.On(hang)
	o := options(open(t), outbox)
	o.Lease = 200 * time.Millisecond
	s, err := validation.New(o)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_, err = s.Request(t.Context(), storetest.Email("s", 1))
	if took := time.Since(begin); !errors.Is(err, threepid.ErrSend) || took < 3*o.Lease/4 {
		t.Errorf("after %v: %v", took, err)
	}
}

func TestAClientThatHangsUpDoesNotStopItsMessage(t *testing.T) {
	t.Parallel()
	v := storetest.NewValidation(t, open(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	v.Outbox.On(func(ctx context.Context, _ threepid.Challenge) error {
		cancel()
		return ctx.Err()
	})
	if _, err := v.Request(ctx, storetest.Email("s", 1)); err != nil {
		t.Fatal(err)
	}
	v.Requested(t, storetest.Email("s", 1))
	if n := v.Outbox.Len(); n != 1 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestAClientThatHangsUpWhileItWaitsIsLetGo(t *testing.T) {
	t.Parallel()
	v := storetest.NewValidation(t, open(t))
	sending, done := make(chan struct{}), make(chan struct{})
	v.Outbox.On(func(context.Context, threepid.Challenge) error {
		close(sending)
		<-done
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(func() { v.Requested(t, storetest.Email("s", 1)) })
	<-sending
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		if _, err := v.Request(ctx, storetest.Email("s", 1)); !errors.Is(err, threepid.ErrSend) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(done)
	})
	cancel()
	wg.Wait()
	if n := v.Outbox.Len(); n != 1 {
		t.Errorf("%d messages were sent", n)
	}
}

func TestAnotherKeyKnowsNoSessions(t *testing.T) {
	t.Parallel()
	v := storetest.NewValidation(t, open(t))
	c := v.Sent(t, storetest.Email("s", 1))
	s, err := validation.New(options(v.Store, v.Outbox))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Submit(t.Context(), c.ID.Medium, c.SID, "s", c.Token); !errors.Is(err, threepid.ErrNoSession) {
		t.Error(err)
	}
}

// A database that is away is no answer about a session.
func TestErrorsOfTheStoreAreNoneOfTheProtocol(t *testing.T) {
	t.Parallel()
	db := open(t)
	v := storetest.NewValidation(t, db)
	c := v.Sent(t, storetest.Email("s", 1))
	v.Outbox.On(func(context.Context, threepid.Challenge) error { return db.Close() })
	results := make(map[string]error)
	_, results["a message that cannot be recorded"] = v.Request(t.Context(), storetest.Email("s", 2))
	_, results["request"] = v.Request(t.Context(), storetest.Email("s", 3))
	_, results["submit"] = v.Submit(t.Context(), c.ID.Medium, c.SID, "s", c.Token)
	_, results["read"] = v.Validated(t.Context(), storetest.Owner, c.SID, "s")
	results["sweep"] = v.Sweep(t.Context())
	for name, err := range results {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		for _, known := range []error{threepid.ErrSend, threepid.ErrNoSession, threepid.ErrSessionExpired, validation.ErrTokenIncorrect} {
			if errors.Is(err, known) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if n := v.Outbox.Len(); n != 2 {
		t.Errorf("%d messages were sent", n)
	}
}

// sweeps is a Store that only sweeps.
type sweeps struct {
	validation.Store
	retired, deleted, forgotten []time.Time
	errs                        []error
}

func (s *sweeps) RetireSessions(_ context.Context, expired time.Time, limit int) (int, error) {
	s.retired = append(s.retired, expired)
	if n := len(s.retired); n <= len(s.errs) && s.errs[n-1] != nil {
		return 0, s.errs[n-1]
	}
	if len(s.retired)%2 == 1 {
		return limit, nil // there may be more
	}
	return limit - 1, nil
}

func (s *sweeps) DeleteSessions(_ context.Context, expired time.Time, _ int) (int, error) {
	s.deleted = append(s.deleted, expired)
	return 0, nil
}

func (s *sweeps) ForgetGuesses(_ context.Context, before time.Time, _ int) (int, error) {
	s.forgotten = append(s.forgotten, before)
	return 0, nil
}

func TestRunSweepsEveryTenMinutesUntilItIsStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &sweeps{errs: []error{nil, nil, errors.New("no answer")}}
		var log bytes.Buffer
		o := options(store, &storetest.Outbox{})
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		s, err := validation.New(o)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		at := func(minutes ...int) (all []time.Time) {
			for _, m := range minutes {
				all = append(all, begin.Add(time.Duration(m)*time.Minute))
			}
			return all
		}
		// At 0 two batches; at 10 the error; at 20 one batch that is not full.
		if d := cmp.Diff(at(0, 0, 10, 20), store.retired); d != "" {
			t.Errorf("retired (-want +got):\n%s", d)
		}
		const week = 7 * 24 * 60
		if d := cmp.Diff(at(-week, 20-week), store.deleted); d != "" {
			t.Errorf("deleted (-want +got):\n%s", d)
		}
		const aDay = 24 * 60
		if d := cmp.Diff(at(-aDay, 20-aDay), store.forgotten); d != "" {
			t.Errorf("wrong guesses forgotten (-want +got):\n%s", d)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "no answer") {
			t.Errorf("logged:\n%s", log.String())
		}
	})
}

func TestRequestsAndSessionsShowNothingByAccident(t *testing.T) {
	t.Parallel()
	id := threepid.ID{Medium: threepid.MediumEmail, Address: "alice@example.org"}
	for name, value := range map[string]interface {
		fmt.Stringer
		slog.LogValuer
	}{
		"request": validation.Request{ID: id, To: "alice@example.org", OriginalSpelling: "alice@x", ClientSecret: "the-secret", NextLink: "https://the-link/"},
		"session": validation.Session{ID: id, SID: "the-sid", OriginalSpelling: "alice@x", NextLink: "https://the-link/"},
	} {
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "value", value, "inside", struct{ V any }{value})
		marshalled, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		shown := fmt.Sprintf("%v %+v %#v %q %s %s", value, value, value, value, log.String(), marshalled)
		if strings.Contains(shown, "alice") || strings.Contains(shown, "the-") || !strings.Contains(shown, id.String()) {
			t.Errorf("the %s shows %s", name, shown)
		}
	}
}
