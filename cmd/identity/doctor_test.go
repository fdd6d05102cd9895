package main

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// TestDoctor has the doctor look at surroundings that are well, and then at ones
// of which nothing works.
func TestDoctor(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		database := newDatabase(t)
		w := newWorld(t, database)
		w.start(t)
		_, private, _ := strings.Cut(w.homeserver, ":")
		private = "localhost:" + private // whose certificate is for 127.0.0.1
		lines := func(want int, environ ...string) string {
			t.Helper()
			code, out, errs := command(t, environ, "-config", w.config, "doctor")
			if code != want {
				t.Errorf("exit status %d\n%s%s", code, out, errs)
			}
			return out
		}
		check := func(out string, wants ...string) {
			t.Helper()
			for _, want := range wants {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
		}
		out := lines(0, "IDENTITY_HOMESERVERS_ALLOW="+w.homeserver)
		check(out, "mail relay localhost:", ": takes mail from this service", "SMS gateway: can be connected to", w.front.URL+"/_matrix/identity/v2: identity answers", "homeserver "+w.homeserver+": answers, and does not know")
		if strings.HasPrefix(database, "sqlite:") {
			check(out, "database: SQLite can be written")
		} else {
			check(out, "database: PostgreSQL 1", "redis "+w.redis.Addresses()[0]+": answers")
		}

		if n := len(w.gateway.Requests()); n > 0 {
			t.Errorf("the gateway was sent %d requests", n)
		}

		w.front.Close()
		w.relay.Fail(threepidtest.Fault{At: threepidtest.Hello, Reply: &smtp.SMTPError{Code: 554, Message: "go away"}})
		w.relay.Fail(threepidtest.Fault{At: threepidtest.Hello, Reply: &smtp.SMTPError{Code: 554, Message: "go away"}})
		out = lines(1, "IDENTITY_HOMESERVERS_ALLOW="+private+",127.0.0.1:1", "IDENTITY_REDIS_URL=redis://127.0.0.1:1", "IDENTITY_SMS_WEBHOOK_URL=http://127.0.0.1:1",
			"IDENTITY_DATABASE_TEST_PATH=", "IDENTITY_DATABASE_URL=postgres://herald:hunter2@127.0.0.1:1/herald")
		check(out, "FAILED", "database: failed to connect", "redis 127.0.0.1:1: dial tcp", "SMS gateway: request to 127.0.0.1:1: dial: connection refused", "/v2: dial tcp", "the relay answered 554 5.0.0 at EHLO: ", "go away",
			"homeserver "+private+": request to "+private+": certificate is for another name", "homeserver 127.0.0.1:1: request to 127.0.0.1:1: dial: connection refused")
		if strings.Contains(out, "hunter2") {
			t.Errorf("the output has a password:\n%s", out)
		}
	})
}

func TestDoctorOfAServiceThatWasNeverStarted(t *testing.T) {
	t.Parallel()
	config := writeFile(t, filepath.Join(t.TempDir(), "identity.yaml"), "http: {listen: [\"127.0.0.1:1\"]}\n")
	code, out, _ := command(t, nil, "-config", config, "doctor")
	if code != 1 || !strings.Contains(out, "database: there is none yet") || !strings.Contains(out, "/v2: dial tcp 127.0.0.1:1: connect: connection refused") {
		t.Errorf("exit status %d\n%s", code, out)
	}
}

func TestDoctorLooksForTheServiceAsDendriteDoes(t *testing.T) {
	t.Parallel()
	ca := safehttptest.NewCA(t)
	answer := ""
	server := ca.Server(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/matrix/server" || answer == "" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, answer)
	}), "127.0.0.1")
	cfg := defaultConfig()
	cfg.PublicBaseURL, cfg.RootCAs = server.URL+"/id", ca.Pool()
	cfg.TrustedHomeservers = map[string][]string{"192.0.2.7": {"example.org"}}
	host := server.Listener.Addr().String()
	checks := cfg.publicChecks()
	if len(checks) != 2 {
		t.Fatalf("%d checks", len(checks))
	}
	for _, c := range []struct{ answer, want string }{
		{fmt.Sprintf(`{"m.server":%q}`, host), "leads to " + host},
		{`{"m.server":"example.org:443"}`, `leads to "example.org:443", not to "` + host + `"`},
		{"", "something else answers 404"},
		{"<html>", "something else answers 200"},
	} {
		answer = c.answer
		saw, err := checks[1].Look(t.Context())
		if got := saw; got != c.want && (err == nil || err.Error() != c.want) {
			t.Errorf("%s: %q, %v", c.answer, saw, err)
		}
	}
}

func TestDoctorAsksTwilio(t *testing.T) {
	t.Parallel()
	gateway := threepidtest.NewSMS(t)
	config := writeFile(t, filepath.Join(t.TempDir(), "identity.yaml"), `http: {listen: ["127.0.0.1:1"]}
allow_networks: [127.0.0.0/8]
sms:
  provider: twilio
  countries: [GB]
  from: {default: Herald}
  twilio: {account_sid: AC0123456789abcdef0123456789abcdef, auth_token: hunter2, base_url: "`+gateway.URL+`"}
`)
	for status, want := range map[string]string{"active": "Twilio: its account may be used", "suspended": `Twilio: the account is "suspended"`} {
		gateway.Answer(threepidtest.SMSAnswer{Status: http.StatusOK, Body: fmt.Sprintf(`{"status":%q}`, status)})
		if _, out, _ := command(t, nil, "-config", config, "doctor"); !strings.Contains(out, want) || strings.Contains(out, "hunter2") {
			t.Errorf("%s: the output lacks %q:\n%s", status, want, out)
		}
	}
}
