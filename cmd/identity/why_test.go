package main

import (
	"regexp"
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
)

// TestWhyTellsWhatIsKeptAndRemovesIt asks about people with something in every
// table, beside a running service, and removes it.
//
// Conformance (identity): who holds an address, and why a message, an invite or a homeserver is silent | `why` says it; `-unbind` and `-erase` remove it, and who did so is remembered
func TestWhyTellsWhatIsKeptAndRemovesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	peers, environ := newPeers(t, 2)
	one, two := peers[0], peers[1]
	w.startWith(t, environ)
	why := func(args ...string) string {
		t.Helper()
		code, out, errs := command(t, nil, append([]string{"-config", w.config, "why"}, args...)...)
		if code != 0 || errs != "" {
			t.Fatalf("why %q: exit status %d\n%s%s", args, code, out, errs)
		}
		return out
	}
	told := func(out string, want ...string) {
		t.Helper()
		for _, line := range want {
			if !regexp.MustCompile(`(?m)^` + line).MatchString(out) {
				t.Errorf("no line %s in\n%s", line, out)
			}
		}
	}

	user, other := two.user("erika"), one.user("anna")
	erika, anna := registerAt(t, w.front.URL, two, "erika"), registerAt(t, w.front.URL, one, "anna")
	anna.invite(t, other, "erika@example.com", "!tea:example.org")
	two.die() // so that there is something to be told
	w.bind(t, erika, user, "erika@example.com")
	w.bind(t, anna, other, "anna@example.com")
	erika.post(t, "/validate/email/requestToken", `{"client_secret":"other","email":"erika@example.com","send_attempt":1}`)

	const at = ` 20\d\d-\d\d-\d\d \d\d:\d\d UTC`
	told(why("Erika@Example.com"),
		`erika@example.com is bound to `+user+` since`+at+`\.$`,
		`A validation session of erika@example.com was begun by `+user+`: the last message sent was number 1; it is completed on`+at,
		`A validation session of erika@example.com was begun by `+user+`: .* it is not completed, the code is valid until`+at+`, and 0 wrong ones were tried`,
		`Invite \d+ by `+other+` to !tea:example.org, made on`+at+` for erika@example.com, went to `+user+`, whose homeserver is being told\.`,
		`The homeserver `+two.name+` is still to be told of invite \d+; it was asked \d+ times`,
	)
	told(why(user),
		`erika@example.com is bound to `+user, user+` is registered, with 1 access tokens; the last use was on`,
		`They accepted https://`, `Invite \d+ by `+other,
	)
	if out := why("nobody@example.com"); out != "nobody@example.com is bound to nobody.\nNothing else is known.\n" {
		t.Errorf("of nobody: %s", out)
	}
	told(why("+44 7700 900001"), `\+447700900001 is bound to nobody\.$`)

	told(why("-unbind", "anna@example.com"), `anna@example.com is not bound to `+other+` any more\.`)
	by := regexp.QuoteMeta(byOperator().By)
	told(why("anna@example.com"), `anna@example.com is bound to nobody\.$`, `A binding was removed on`+at+` by the operator `+by+`;`)
	told(why("erika@example.com", "-erase"), `bindings +1 +0$`, `sessions +2 +0$`, `invites +1 +0$`)
	told(why("erika@example.com"), `The address was erased on`+at+` by the operator `+by)
	if out := why(user, "-unbind"); out != "Nothing was bound.\n" {
		t.Errorf("to unbind what is not bound: %s", out)
	}
}
