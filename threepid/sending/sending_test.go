package sending_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/sending"
	"github.com/matrix-herald/herald/threepid/templates"
)

// fixture are slots with their metrics and log.
type fixture struct {
	*sending.Slots
	reg *prometheus.Registry
	log *bytes.Buffer
}

func newSlots(config sending.Config) fixture {
	f := fixture{reg: prometheus.NewRegistry(), log: new(bytes.Buffer)}
	f.Slots = sending.New(sending.Options{
		Config: config.WithDefaults(), One: "mail", Many: "mails", Templates: []string{"hello"}, Registerer: f.reg,
		Log: slog.New(slog.NewTextHandler(f.log, nil)),
	})
	return f
}

// counts checks the metrics about outcomes that were met.
func (f fixture) counts(t *testing.T, want string) {
	t.Helper()
	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for range int(m.GetCounter().GetValue()) {
				got = append(got, m.GetLabel()[0].GetValue())
			}
		}
	}
	if s := strings.Join(got, " "); s != want {
		t.Errorf("counted %s, want %s", s, want)
	}
}

// Conformance (requestToken): too many mails at once | a request waits 5 s, then 429 `M_LIMIT_EXCEEDED` with `retry_after_ms`; nothing is sent after its answer (also TestFailedSending)
func TestFullSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(sending.Config{MaxSending: 2})
		release := make(chan struct{})
		var running sync.WaitGroup
		for range 2 {
			running.Go(func() {
				if err := s.Send(t.Context(), "hello", nil, func(context.Context) error { <-release; return nil }); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		const inFlight = "# HELP herald_identity_mails_in_flight Messages of this kind being sent, each in one slot.\n# TYPE herald_identity_mails_in_flight gauge\nherald_identity_mails_in_flight "
		if err := testutil.GatherAndCompare(s.reg, strings.NewReader(inFlight+"2\n"), "herald_identity_mails_in_flight"); err != nil {
			t.Error(err)
		}
		begun := time.Now()
		err := s.Send(t.Context(), "hello", nil, func(context.Context) error { t.Error("sent without a slot"); return nil })
		var busy *threepid.BusyError
		if !errors.As(err, &busy) || busy.RetryAfter != 5*time.Second || time.Since(begun) != 5*time.Second || errors.Is(err, threepid.ErrSend) {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		// Who comes back in time gets the slot that becomes free.
		running.Go(func() {
			if err := s.Send(t.Context(), "hello", nil, func(context.Context) error { return nil }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		close(release)
		running.Wait()
		s.counts(t, "busy sent sent sent")
		if err := testutil.GatherAndCompare(s.reg, strings.NewReader(inFlight+"0\n"), "herald_identity_mails_in_flight"); err != nil {
			t.Error(err)
		}
		if !strings.Contains(s.log.String(), "outcome=busy") {
			t.Errorf("log: %s", s.log)
		}
	})
}

func TestAMessageHasItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, begun := newSlots(sending.Config{Timeout: conf.Duration(time.Second)}), time.Now()
		_ = s.Send(t.Context(), "hello", nil, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if took := time.Since(begun); took != time.Second {
			t.Errorf("after %v", took)
		}
	})
}

func TestWhatIsNotSentIsLoggedUnlessTheOperatorWantsIt(t *testing.T) {
	t.Parallel()
	for _, o := range sending.Outcomes() {
		s := newSlots(sending.Config{})
		failure := &sending.Failure{Outcome: o, Kind: threepid.ErrNoMailbox, Reason: "for a reason", Said: "no"}
		err := s.Send(t.Context(), "hello", failure, func(context.Context) error { t.Error("sent"); return nil })
		if !errors.Is(err, threepid.ErrNoMailbox) || !errors.Is(err, threepid.ErrSend) || !strings.HasSuffix(err.Error(), ": for a reason") {
			t.Errorf("%s: %v", o, err)
		}
		s.counts(t, string(o))
		logged := strings.Contains(s.log.String(), "level=WARN") && strings.Contains(s.log.String(), " kind=mail template=hello outcome="+string(o)) &&
			strings.Contains(s.log.String(), "for a reason") && strings.Contains(s.log.String(), " said=no")
		if want := o != sending.Sent && o != sending.Disabled && o != sending.Country; logged != want {
			t.Errorf("%s: logged %v: %s", o, logged, s.log)
		}
	}
}

func TestMetricsBeginAtZero(t *testing.T) {
	t.Parallel()
	s := newSlots(sending.Config{})
	if n := testutil.CollectAndCount(s.reg, "herald_identity_mails_total"); n != len(sending.Outcomes()) {
		t.Errorf("%d outcomes", n)
	}
	if problems, err := testutil.GatherAndLint(s.reg); err != nil || len(problems) != 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// Conformance (attacks): an answer of a relay or provider that quotes the address, the number or the link, or is made to mess up a terminal | the log alone has it: on one line, cut, without addresses, numbers, tokens and control characters (also FuzzRedact, TestNothingTellsSecrets, TestTestMessages)
func TestRedact(t *testing.T) {
	t.Parallel()
	private := []string{"alice+matrix", "alice", "example.org", "TOKEN", "al"}
	for in, want := range map[string]string{
		"5.1.1 <Alice@Example.org>: no such user\nin this table":            "5.1.1 <…>: no such user in this table",
		"5.1.1 user alice at EXAMPLE.ORG unknown":                           "5.1.1 user … at … unknown",
		"bob@example.net is not allowed, b%40x, b=40x":                      "… is not allowed, …, …",
		"blocked: https://id.example/v?token=token":                         "blocked: https://id.example/v?…=…",
		"The 'To' number +44 7700 900-001 is not valid (21211)":             "The 'To' number … is not valid (21211)",
		"4.7.1 Client host [192.0.2.1] blocked, see https://spam.example/1": "4.7.1 Client host [192.0.2.1] blocked, see https://spam.example/1",
		"al\u200bice\u202e\x1b[2J":                                          "…[2J",
		"":                                                                  "",
		strings.Repeat("x ", 1000):                                          strings.Repeat("x ", 149) + "x…",
	} {
		if got := sending.Redact(in, private...); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("5.1.1 <alice@example.org>: no such user", "alice")
	f.Add("al@ice\x00 0123456", "ice")
	f.Add("0", "00\x85")
	f.Fuzz(func(t *testing.T, said, private string) {
		got := sending.Redact(said, private)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > 300 || strings.ContainsAny(got, "@\r\n") {
			t.Errorf("%q", got)
		}
		private = templates.Clean(private, len(private)+1)
		if len(private) > 2 && !strings.Contains(private, "…") && strings.Contains(got, private) {
			t.Errorf("%q tells %q", got, private)
		}
	})
}

func TestOptionsOutOfBounds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config sending.Config
		want   string // "" for none
	}{
		"nothing at all":                   {sending.Config{}, ""},
		"the most":                         {sending.Config{MaxSending: 1000, MaxWait: conf.Duration(5 * time.Second), Timeout: conf.Duration(50 * time.Second)}, ""},
		"a language that is none":          {sending.Config{DefaultLanguage: "german please"}, "x.default_language: value"},
		"no message at once":               {sending.Config{MaxSending: -1}, "x.max_sending: value"},
		"more at once than a relay takes":  {sending.Config{MaxSending: 1001}, "x.max_sending: value"},
		"a longer wait than a client's":    {sending.Config{MaxWait: conf.Duration(6 * time.Second)}, "x.max_wait: value"},
		"more time than a session is held": {sending.Config{Timeout: conf.Duration(51 * time.Second)}, "x.timeout: value"},
		"negative time":                    {sending.Config{Timeout: -1}, "x.timeout: value"},
	} {
		var p conf.Problems
		tc.config.WithDefaults().Validate("x", &p)
		if err := p.Err(); (err == nil) != (tc.want == "") || err != nil && !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}
