package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity/storetest"
)

// invite has a user invite an address and returns what the room is told.
func (c client) invite(t *testing.T, sender, address, room string) map[string]any {
	t.Helper()
	return c.post(t, "/store-invite", `{"medium":"email","address":%q,"room_id":%q,"sender":%q}`, address, room, sender)
}

// keysValid returns what the URLs answer that a room checks an invite's keys with:
// ours first, the invite's own second.
func keysValid(t *testing.T, told map[string]any) (valid []string) {
	t.Helper()
	for _, k := range told["public_keys"].([]any) {
		k := k.(map[string]any)
		_, answer := send(t, http.MethodGet, k["key_validity_url"].(string)+"?public_key="+url.QueryEscape(k["public_key"].(string)), "", "")
		valid = append(valid, answer)
	}
	return valid
}

// cells returns the words of each line of a table but the first.
func cells(table string) (lines []string) {
	for line := range strings.Lines(table) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines[1:]
}

// Conformance (invites): what became of invites, and cancelling them by the operator (`identity invites`) | beside running servers (also TestOperatorRemovesAnybodysInvite)
func TestOperatorSeesAndCancelsInvites(t *testing.T) {
	t.Parallel()
	database := storetest.SQLite(t)
	w := newWorld(t, database)
	w.start(t)
	invites := func(args ...string) (code int, stdout, stderr string) {
		t.Helper()
		return command(t, nil, append([]string{"-config", w.config, "invites"}, args...)...)
	}
	list := func(args ...string) string {
		t.Helper()
		code, out, errs := invites(append([]string{"list"}, args...)...)
		if code != 0 || errs != "" {
			t.Fatalf("list: exit status %d\n%s", code, errs)
		}
		return out
	}
	if out := list(); out != "There are no invites.\n" {
		t.Errorf("without any: %q", out)
	}

	bob := w.register(t, w.front.URL, "bob")
	sender := "@bob:" + w.homeserver
	var told []map[string]any
	for i, name := range []string{"waiting", "refused", "taken", "stranded", "told", "expired"} {
		told = append(told, bob.invite(t, sender, name+"@example.com", fmt.Sprintf("!room%d:example.org", i)))
	}
	db := direct(t, database)
	for _, change := range []string{
		`UPDATE invites SET taken_by = '@x:example.org' WHERE address <> 'waiting@example.com'`,
		`UPDATE invites SET failure = 'M_FORBIDDEN', room_id = '!tricky' WHERE address = 'refused@example.com'`,
		`UPDATE invites SET room_id = room_id || char(27) || '[2J' WHERE address = 'refused@example.com'`,
		`INSERT INTO deliveries (invite_id, medium, address, user_id, server, ts_ms, until_ms, due_ms)
			SELECT id, medium, address, '@x:example.org', 'example.org', created_ms, expires_ms, expires_ms
			FROM invites WHERE address = 'taken@example.com'`,
		`UPDATE invites SET used_ms = created_ms WHERE address = 'told@example.com'`,
		fmt.Sprintf(`UPDATE invites SET created_ms = %d WHERE address = 'told@example.com'`, time.Now().Add(-50*time.Hour).UnixMilli()),
		fmt.Sprintf(`UPDATE invites SET expires_ms = %d WHERE address = 'expired@example.com'`, time.Now().UnixMilli()),
	} {
		if _, err := db.ExecContext(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	day := time.Now().Add(90 * 24 * time.Hour).UTC().Format("2006-01-02")
	want := []string{
		"1 waiting 0m DAY wai...@exa... HS !room0:example.org",
		"2 failed 0m DAY ref...@exa... HS !tricky\uFFFD[2J (M_FORBIDDEN)",
		"3 delivering 0m DAY tak...@exa... HS !room2:example.org",
		"4 stranded 0m DAY str...@exa... HS !room3:example.org",
		"5 used 2d DAY tol...@exa... HS !room4:example.org",
		"6 expired 0m TODAY exp...@exa... HS !room5:example.org",
	}
	tidy := func(lines []string) []string {
		for i, line := range lines {
			words := strings.Fields(strings.ReplaceAll(line, w.homeserver, "HS"))
			switch {
			case i == 5:
				words[3] = "TODAY"
			case words[3] >= day:
				words[3] = "DAY"
			}
			if strings.HasSuffix(words[2], "m") { // a slow machine may take minutes
				words[2] = "0m"
			}
			lines[i] = strings.Join(append(words[:4:4], words[5:]...), " ")
		}
		return lines
	}
	out := list()
	if diff := cmp.Diff(want, tidy(cells(out))); diff != "" {
		t.Error(diff)
	}
	if out := list("-addresses"); !strings.Contains(out, " waiting@example.com ") {
		t.Errorf("an address that was asked for is missing:\n%s", out)
	}

	live := []string{`{"valid":true}`, `{"valid":true}`}
	if diff := cmp.Diff(live, keysValid(t, told[0])); diff != "" {
		t.Error(diff)
	}
	code, out, errs := invites("cancel", "1", "77", told[2]["token"].(string), "no-such-token")
	if code != 1 || strings.Count(out, "is cancelled") != 2 ||
		!strings.Contains(errs, `"77": no such invite`) || !strings.Contains(errs, `"no-such-token": no such invite`) {
		t.Errorf("cancel: exit status %d\n%s%s", code, out, errs)
	}
	for _, i := range []int{0, 2} { // the running service follows at once
		if diff := cmp.Diff([]string{`{"valid":true}`, `{"valid":false}`}, keysValid(t, told[i])); diff != "" {
			t.Error(diff)
		}
	}
	if left := cells(list()); len(left) != 4 {
		t.Errorf("left: %q", left)
	}
}
