package main

import (
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/storetest"
)

// says is an answer of a homeserver.
func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// awaitAttempts waits until so many attempts at the one delivery for a homeserver
// have failed and it waits for the next. Where that takes long there are more.
func awaitAttempts(t *testing.T, db *sql.DB, p *peer, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("attempt %d has failed", n), func() bool {
		return count(t, db, `deliveries d JOIN delivery_servers s ON s.server = d.server WHERE d.server = $1 AND s.claim = '' AND d.attempts >= $2`, p.name, n) == 1
	})
}

// count counts rows.
func count(t *testing.T, db *sql.DB, what string, args ...any) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM `+what, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// change changes rows as time would, or whoever is imitated.
func change(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// later makes every pause end, but not what is being done at the moment.
func later(t *testing.T, db *sql.DB) {
	t.Helper()
	change(t, db, `UPDATE deliveries SET due_ms = 0 WHERE server IN (SELECT server FROM delivery_servers WHERE claim = '')`)
	change(t, db, `UPDATE delivery_servers SET due_ms = 0 WHERE claim = ''`)
}

// TestWhatHomeserversAnswerDecidesAnInvite has homeservers answer what they should
// not, and then come to themselves.
//
// Conformance (federation): an onbind that fails | the log names invite, room and why
func TestWhatHomeserversAnswerDecidesAnInvite(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		answer http.HandlerFunc
		want   string // what the operator sees then
	}{
		{"refused for good", says(403, `{"errcode":"M_FORBIDDEN","error":"no"}`), "failed M_FORBIDDEN"},
		{"an endpoint it does not know", says(404, `{"errcode":"M_UNRECOGNIZED","error":"?"}`), "delivering"},
		{"busy", says(429, `{"errcode":"M_LIMIT_EXCEEDED","error":"later","retry_after_ms":1}`), "delivering"},
		{"a proxy without its homeserver", says(502, `<html>Bad Gateway</html>`), "delivering"},
		{"a refusal that is not Matrix", says(403, `Forbidden`), "delivering"},
		{"a fault", says(500, `{"errcode":"M_UNKNOWN","error":"oops"}`), "delivering"},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "" { // else it would be told
				http.Redirect(w, r, r.URL.Path+"?again", http.StatusTemporaryRedirect)
			}
		}, "delivering"},
		{"it hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "delivering"},
	}
	database := storetest.SQLite(t)
	w := newWorld(t, database)
	peers, environ := newPeers(t, 1+len(cases))
	one, others := peers[0], peers[1:]
	service := w.startWith(t, environ)
	db := direct(t, database)
	inviter := registerAt(t, w.front.URL, one, "a")
	address := func(i int) string { return fmt.Sprintf("b%d@example.com", i) }
	stored := make([]map[string]any, len(cases))
	for i, c := range cases {
		stored[i] = inviter.invite(t, one.user("a"), address(i), "!room:example.org")
		others[i].answers(c.answer)
		w.bind(t, registerAt(t, w.front.URL, others[i], "b"), others[i].user("b"), address(i))
	}
	for i, c := range cases {
		others[i].awaitTold(t, 1)
		if c.want == "delivering" {
			awaitAttempts(t, db, others[i], 1)
		} else {
			eventually(t, "the delivery is given up", func() bool {
				return count(t, db, `deliveries WHERE server = $1`, others[i].name) == 0
			})
		}
		if got := w.outcomes(t)[address(i)]; got != c.want {
			t.Errorf("%s: the invite is %q, want %q", c.name, got, c.want)
		}
		if diff := cmp.Diff([]string{`{"valid":true}`, `{"valid":true}`}, keysValid(t, stored[i])); diff != "" {
			t.Errorf("%s: the keys: %s", c.name, diff)
		}
		others[i].answers(accept)
	}
	line := service.Await(t, "homeserver refused to hear about a binding")
	if line["server"] != others[0].name || line["room"] != "!room:example.org" || line["invite"] == nil {
		t.Errorf("the log says %v", line)
	}
	later(t, db)
	for i, c := range cases {
		if c.want == "delivering" {
			eventually(t, "the invite is used", func() bool { return w.outcomes(t)[address(i)] == "used" })
			continue
		}
		if all := others[i].allTold(); len(all) != 1 {
			t.Errorf("%s: told %d times", c.name, len(all))
		}
	}
}

// TestAHomeserverThatHangsAndDies holds up what is for it and nothing else, and
// hears of it when it is back.
func TestAHomeserverThatHangsAndDies(t *testing.T) {
	t.Parallel()
	database := storetest.SQLite(t)
	w := newWorld(t, database)
	peers, environ := newPeers(t, 3)
	one, two, three := peers[0], peers[1], peers[2]
	w.startWith(t, environ)
	db := direct(t, database)
	inviter := registerAt(t, w.front.URL, one, "a")
	b, c := registerAt(t, w.front.URL, two, "b"), registerAt(t, w.front.URL, three, "c")
	for _, address := range []string{"b@example.com", "c@example.com"} {
		inviter.invite(t, one.user("a"), address, "!room:example.org")
	}

	two.answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	w.bind(t, b, two.user("b"), "b@example.com")
	two.awaitTold(t, 1)
	w.bind(t, c, three.user("c"), "c@example.com")
	three.awaitTold(t, 1)
	eventually(t, "the other homeserver has its invite", func() bool { return w.outcomes(t)["c@example.com"] == "used" })
	if got := w.outcomes(t)["b@example.com"]; got != "delivering" {
		t.Errorf("while the homeserver hangs the invite is %s", got)
	}

	two.die()
	awaitAttempts(t, db, two, 1)
	later(t, db)
	awaitAttempts(t, db, two, 2)
	if got := w.outcomes(t)["b@example.com"]; got != "delivering" || len(two.allTold()) != 1 {
		t.Errorf("while the homeserver is dead the invite is %s", got)
	}
	two.answers(accept)
	two.live()
	later(t, db)
	two.awaitTold(t, 2)
	eventually(t, "the invite is used", func() bool { return w.outcomes(t)["b@example.com"] == "used" })
	if n := len(two.allTold()) + len(three.allTold()); n != 3 {
		t.Errorf("told %d things, want 3", n)
	}
}

// TestAKillBeforeTheHomeserverIsToldLosesNothing ends the service with SIGKILL
// when it has acknowledged a binding and told nobody. Whoever starts next tells
// the homeserver, once.
func TestAKillBeforeTheHomeserverIsToldLosesNothing(t *testing.T) {
	t.Parallel()
	database := storetest.SQLite(t)
	w := newWorld(t, database)
	peers, environ := newPeers(t, 2)
	one, two := peers[0], peers[1]
	p := w.startWith(t, environ)
	db := direct(t, database)
	stored := registerAt(t, w.front.URL, one, "a").invite(t, one.user("a"), "b@example.com", "!room:example.org")
	b := registerAt(t, w.front.URL, two, "b")
	sid := w.prove(t, b, "b@example.com")
	two.die()
	b.post(t, "/3pid/bind", `{"sid":%q,"client_secret":"monkeys","mxid":%q}`, sid, two.user("b"))
	p.Kill()
	if n, all := count(t, db, `deliveries`), two.allTold(); n != 1 || len(all) != 0 {
		t.Fatalf("%d deliveries are to be made, and %d were", n, len(all))
	}

	two.live()
	// Whether it was killed within an attempt or before.
	change(t, db, `UPDATE deliveries SET due_ms = 0`)
	change(t, db, `UPDATE delivery_servers SET due_ms = 0, claim = '', lease_ms = 0`)
	w.startWith(t, environ)
	heard := two.awaitTold(t, 1)[0].object
	if invite := heard["invites"].([]any)[0].(map[string]any); invite["token"] != stored["token"] {
		t.Errorf("told of %v", invite)
	}
	eventually(t, "the invite is used", func() bool { return w.outcomes(t)["b@example.com"] == "used" })
	if n, all := count(t, db, `deliveries`), two.allTold(); n != 0 || len(all) != 1 {
		t.Errorf("%d deliveries are left, and %d were made", n, len(all))
	}
}

// TestInvitesEndForEverybody lets the keys of an invite become invalid in each of
// the ways there are, and nothing else.
func TestInvitesEndForEverybody(t *testing.T) {
	t.Parallel()
	database := storetest.SQLite(t)
	w := newWorld(t, database)
	peers, environ := newPeers(t, 2)
	one, two := peers[0], peers[1]
	w.startWith(t, environ)
	db := direct(t, database)
	inviter, invitee := registerAt(t, w.front.URL, one, "a"), registerAt(t, w.front.URL, two, "b")
	ago := func(column string, d time.Duration) func(address, _ string) {
		return func(address, _ string) {
			change(t, db, `UPDATE invites SET `+column+` = $1 WHERE address = $2`, time.Now().Add(-d).UnixMilli(), address)
		}
	}
	cases := []struct {
		name string
		do   func(address, token string)
		live bool
	}{
		{"waiting", func(string, string) {}, true},
		{"used", func(string, string) {}, true},
		{"used-23-hours-ago", ago("used_ms", 23*time.Hour), true},
		{"used-a-day-ago", ago("used_ms", 24*time.Hour), false},
		{"expired", ago("expires_ms", 0), false},
		{"cancelled-by-sender", func(_, token string) { inviter.cancel(t, token) }, false},
		{"cancelled-by-operator", func(_, token string) { command(t, nil, "-config", w.config, "invites", "cancel", token) }, false},
	}
	stored := make(map[string]map[string]any)
	for _, c := range cases {
		address := c.name + "@example.com"
		stored[c.name] = inviter.invite(t, one.user("a"), address, "!room:example.org")
		if strings.HasPrefix(c.name, "used") {
			w.bind(t, invitee, two.user("b"), address)
		}
	}
	eventually(t, "the invites are used", func() bool { return count(t, db, `invites WHERE used_ms IS NOT NULL`) == 3 })
	for _, c := range cases {
		link := w.mailedTo(t, c.name+"@example.com", "/invite")
		c.do(c.name+"@example.com", stored[c.name]["token"].(string))
		valid := []string{`{"valid":true}`, fmt.Sprintf(`{"valid":%v}`, c.live)}
		if diff := cmp.Diff(valid, keysValid(t, stored[c.name])); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		want := http.StatusNotFound
		if c.live {
			want = http.StatusOK
		}
		page, _ := send(t, http.MethodGet, link.String(), "", "")
		signed, answer := client{base: w.front.URL}.ask(t, http.MethodPost, "/sign-ed25519?mxid=@b:example.org&"+link.RawQuery, "")
		if page != want || signed != want {
			t.Errorf("%s: the page answers %d, signing %d %v; want %d", c.name, page, signed, answer, want)
		}
	}
}

// cancel takes back an invite of the client's user.
func (c client) cancel(t *testing.T, token string) {
	t.Helper()
	status, answer := send(t, http.MethodDelete, c.base+"/_matrix/identity/herald/v1/invites/"+token, c.token, "")
	if status != http.StatusOK {
		t.Fatalf("cancel: %d %s", status, answer)
	}
}
