package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

func erasing() map[string]func(*testing.T, Store) {
	return map[string]func(*testing.T, Store){
		"erasing removes all of a user and nothing of another": testErase,
		"what is kept of a person is told":                     testAbout,
		"erasing nobody removes nothing":                       testEraseNobody,
		"an invite of oneself is erased once":                  testEraseOwnInvite,
		"erasing an address removes what is about it":          testEraseAddress,
		"erasing goes on where it was broken off":              testEraseMany,
		"erasing races with what adds rows":                    testEraseRace,
	}
}

// session has somebody begin a validation session of an address.
func session(t *testing.T, s Store, owner, sid string, id threepid.ID) {
	t.Helper()
	_, err := s.ClaimSession(t.Context(), validation.Claim{
		ID: "claim-" + sid, Until: begin().Add(time.Minute), SID: sid, SessionExpires: begin().Add(24 * time.Hour),
		Key: validation.Key{ID: id, Secret: digest("secret"), Owner: owner}, Attempt: 1, Code: digest("code"),
		CodeExpires: begin().Add(time.Hour), Now: begin(),
	})
	ok(t, err)
}

// guessWrong tries a wrong code in a session of session's.
func guessWrong(t *testing.T, s Store, sid string, medium threepid.Medium) {
	t.Helper()
	_, verdict, err := s.GuessCode(t.Context(), validation.Guess{
		SID: sid, Medium: medium, Secret: digest("secret"), Code: digest("wrong"), MaxTries: 10, Short: true, MaxToday: 10,
		Now: begin(), Since: begin().Add(-day), SessionExpires: begin().Add(day),
	})
	ok(t, err)
	if verdict != validation.Wrong {
		t.Errorf("a wrong code: verdict %d", verdict)
	}
}

// sessionExists reports whether a session of session's is there.
func sessionExists(t *testing.T, s Store, sid string) bool {
	t.Helper()
	_, err := s.FindSession(t.Context(), sid, digest("secret"), begin())
	if err != nil && !errors.Is(err, threepid.ErrNoSession) {
		t.Fatal(err)
	}
	return err == nil
}

// eraseCounts are the tables of a report with a number of rows in each.
func eraseCounts(tokens, terms, bindings, guesses, sessions, invites, deliveries, hashes int) map[string]int {
	return map[string]int{
		"tokens": tokens, "terms": terms, "bindings": bindings, "guesses": guesses, "sessions": sessions, "invites": invites,
		"deliveries": deliveries, "hashes": hashes,
	}
}

// found erases a user and returns how many rows there were. None may be left.
func found(t *testing.T, s Store, userID string) map[string]int {
	t.Helper()
	return foundOf(t, s, identity.Person{UserID: userID, Addresses: must(s.BoundAddresses(t.Context(), userID))(t)})
}

func foundOf(t *testing.T, s Store, p identity.Person) map[string]int {
	t.Helper()
	counts, all := make(map[string]int), 0
	progress := new(Progress)
	for _, e := range must(s.Erase(t.Context(), p, by(), progress.Add))(t) {
		counts[e.Table] = e.Found
		all += e.Found
		if e.Left != 0 {
			t.Errorf("%d rows of %s are left", e.Left, e.Table)
		}
	}
	progress.Ended(t, "rows erased", all)
	return counts
}

// Progress keeps what an identity.Progress is told.
type Progress struct {
	what        string
	done, total int
	calls       int
	back        bool
}

// Add implements identity.Progress.
func (p *Progress) Add(what string, done, total int) {
	p.back = p.back || p.calls > 0 && (done < p.done || total != p.total || what != p.what)
	p.what, p.done, p.total, p.calls = what, done, total, p.calls+1
}

// Ended checks that what was done went on to the end and never back.
func (p *Progress) Ended(t testing.TB, what string, total int) {
	t.Helper()
	if p.back || p.calls == 0 || p.what != what || p.done != total || p.total != total {
		t.Errorf("the progress ended with %d of %d %s, want %d %s", p.done, p.total, p.what, total, what)
	}
}

// addPerson adds something to each table for the user with the number: two
// tokens, one document, two bindings under one pepper, one of them with somebody
// else's session and a wrong guess, a session of an address that is not theirs,
// two invites taken with their deliveries, and one sent.
func addPerson(t *testing.T, s Store, user int) {
	t.Helper()
	ctx := t.Context()
	home, work := binding(user, fmt.Sprint("home", user)), binding(user, fmt.Sprint("work", user))
	ok(t, s.AddToken(ctx, digest(home.UserID), home.UserID, begin()))
	ok(t, s.AddToken(ctx, digest(work.UserID+"2"), home.UserID, begin()))
	ok(t, s.AcceptTerms(ctx, home.UserID, []string{"https://example.org/terms"}, begin()))
	session(t, s, "@mallory:example.org", fmt.Sprint("sid", user), home.ID)
	session(t, s, home.UserID, fmt.Sprint("begun", user), threepid.ID{Medium: threepid.MediumEmail, Address: fmt.Sprintf("new%d@example.org", user)})
	guessWrong(t, s, fmt.Sprint("sid", user), home.ID.Medium)
	for _, b := range []identity.Binding{home, work} {
		i := invite(t, 9, "x")
		i.Address = b.ID
		ok(t, s.AddInvite(ctx, i))
		ok(t, s.Bind(ctx, b))
	}
	ok(t, s.AddInvite(ctx, invite(t, user, fmt.Sprint("friend", user))))
}

func testErase(t *testing.T, s Store) {
	ctx := t.Context()
	current(t, s, "pepper1")
	addPerson(t, s, 1)
	addPerson(t, s, 2)
	// The user once had an address that is another's now, with an invite that has
	// been told, and a session that somebody else began.
	was := binding(1, "shared")
	ok(t, s.Bind(ctx, was))
	must(s.Unbind(ctx, was.ID, was.UserID, by()))(t)
	ok(t, s.Bind(ctx, binding(2, "shared")))
	session(t, s, "@mallory:example.org", "another's", was.ID)
	guessWrong(t, s, "another's", was.ID.Medium)
	// Somebody bound what the user had invited.
	ok(t, s.AddInvite(ctx, invite(t, 1, "taken")))
	ok(t, s.Bind(ctx, binding(3, "taken")))

	bound := must(s.BoundAddresses(ctx, "@user1:example.org"))(t)
	slices.SortFunc(bound, func(a, b threepid.ID) int { return strings.Compare(a.Address, b.Address) })
	if !slices.Equal(bound, []threepid.ID{binding(1, "home1").ID, binding(1, "work1").ID}) {
		t.Errorf("bound: %v", bound)
	}
	if diff := cmp.Diff(eraseCounts(2, 1, 2, 1, 2, 4, 3, 2), found(t, s, "@user1:example.org")); diff != "" {
		t.Errorf("the first: %s", diff)
	}
	if n := must(s.Bindings(ctx))(t); n != 4 {
		t.Errorf("%d bindings are said to be left, want 4", n)
	}
	if _, _, err := s.Token(ctx, digest("@user1:example.org"), time.Time{}); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("the token: %v", err)
	}
	for user, want := range map[int]int{1: 0, 2: 1} {
		b := binding(user, fmt.Sprint("home", user))
		pepper := must(s.Peppers(ctx))(t)[0]
		if n := len(must(s.Lookup(ctx, pepper.ID, b.Digests(pepper.Value)))(t)); n != want {
			t.Errorf("the address of user %d is found %d times", user, n)
		}
	}
	for sid, want := range map[string]bool{"sid1": false, "begun1": false, "sid2": true, "begun2": true, "another's": true} {
		if sessionExists(t, s, sid) != want {
			t.Errorf("session %s: %v", sid, !want)
		}
	}
	if diff := cmp.Diff(eraseCounts(0, 0, 0, 0, 0, 0, 0, 0), found(t, s, "@user1:example.org")); diff != "" {
		t.Errorf("again: %s", diff)
	}
	// The other one's is all there: two invites were sent by somebody to each.
	if diff := cmp.Diff(eraseCounts(2, 1, 3, 2, 3, 3, 3, 3), found(t, s, "@user2:example.org")); diff != "" {
		t.Errorf("the second: %s", diff)
	}
}

// testAbout has told of a user and of an address what erasing them finds.
func testAbout(t *testing.T, s Store) {
	ctx := t.Context()
	current(t, s, "pepper1")
	addPerson(t, s, 1)
	addPerson(t, s, 2)
	address := binding(1, "home1").ID
	for name, c := range map[string]struct {
		who  identity.Person
		want map[string]int
	}{
		"a user":     {identity.Person{UserID: "@user1:example.org", Addresses: []threepid.ID{address, binding(1, "work1").ID}}, eraseCounts(2, 1, 2, 1, 2, 3, 2, 0)},
		"an address": {identity.Person{Addresses: []threepid.ID{address}}, eraseCounts(0, 0, 1, 1, 1, 1, 1, 0)},
		"nobody":     {identity.Person{UserID: "@user:example.org"}, eraseCounts(0, 0, 0, 0, 0, 0, 0, 0)},
	} {
		a := must(s.About(ctx, c.who))(t)
		got := eraseCounts(len(a.Tokens), len(a.Terms), len(a.Bindings), len(a.Guesses), len(a.Sessions), len(a.Invites), len(a.Deliveries), 0)
		if diff := cmp.Diff(c.want, got); diff != "" || len(a.Removals) > 0 {
			t.Errorf("%s: %s, %d removals", name, diff, len(a.Removals))
		}
	}
	a := must(s.About(ctx, identity.Person{Addresses: []threepid.ID{address}}))(t)
	if b, g := a.Bindings[0], a.Guesses[0]; b.ID != address || b.UserID != "@user1:example.org" || !b.TS.Equal(begin()) || g.Wrong != 1 || !g.Since.Equal(begin()) {
		t.Errorf("%+v, %+v", b, g)
	}
	if d := a.Deliveries[0]; d.Binding.UserID != "@user1:example.org" || d.Binding.ID != address || d.Attempts != 0 || d.Until.Before(begin()) {
		t.Errorf("%+v", d)
	}
	erase := identity.Removal{At: begin().Add(day), By: "op"}
	must(s.Erase(ctx, identity.Person{UserID: "@user1:example.org", Addresses: []threepid.ID{address}}, erase, func(string, int, int) {}))(t)
	a = must(s.About(ctx, identity.Person{UserID: "@user1:example.org"}))(t)
	if diff := cmp.Diff([]identity.RemovalRecord{{Removal: erase, Kind: "user"}}, a.Removals); diff != "" {
		t.Errorf("afterwards: %s", diff)
	}
}

func testEraseNobody(t *testing.T, s Store) {
	addPerson(t, s, 1)
	for _, user := range []string{"@user:example.org", "@USER1:example.org", "@user1:example", "%", ""} {
		if diff := cmp.Diff(eraseCounts(0, 0, 0, 0, 0, 0, 0, 0), found(t, s, user)); diff != "" {
			t.Errorf("%q: %s", user, diff)
		}
	}
}

func testEraseAddress(t *testing.T, s Store) {
	ctx := t.Context()
	current(t, s, "pepper1")
	addPerson(t, s, 1)
	addPerson(t, s, 2)
	p := identity.Person{Addresses: []threepid.ID{binding(1, "home1").ID}}
	if diff := cmp.Diff(eraseCounts(0, 0, 1, 1, 1, 1, 1, 1), foundOf(t, s, p)); diff != "" {
		t.Error(diff)
	}
	if n := must(s.Bindings(ctx))(t); n != 3 {
		t.Errorf("%d bindings are said to be left, want 3", n)
	}
	// Whose address it was keeps everything else.
	if diff := cmp.Diff(eraseCounts(2, 1, 1, 0, 1, 2, 1, 1), found(t, s, "@user1:example.org")); diff != "" {
		t.Errorf("of its user: %s", diff)
	}
}

// testEraseMany erases a user with more than is removed in one step, and breaks off
// first.
func testEraseMany(t *testing.T, s Store) {
	const many = 1100
	ctx, cancel := context.WithCancel(t.Context())
	user := binding(1, "").UserID
	for i := range many {
		ok(t, s.AddToken(ctx, digest(fmt.Sprint(i)), user, begin()))
	}
	ok(t, s.Bind(ctx, binding(1, "a")))
	p := identity.Person{UserID: user, Addresses: []threepid.ID{binding(1, "a").ID}}
	_, err := s.Erase(ctx, p, by(), func(_ string, done, total int) {
		if cancel(); done < 1 || total != many+2 {
			t.Errorf("%d of %d done, want some of %d", done, total, many+2)
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	counts := found(t, s, user)
	if n := counts["tokens"]; n == 0 || n == many || counts["bindings"] != 1 {
		t.Errorf("%d tokens and %d bindings were left when it was broken off", n, counts["bindings"])
	}
}

func testEraseOwnInvite(t *testing.T, s Store) {
	ctx := t.Context()
	current(t, s, "pepper1")
	ok(t, s.AddInvite(ctx, invite(t, 1, "a")))
	ok(t, s.Bind(ctx, binding(1, "a")))
	if diff := cmp.Diff(eraseCounts(0, 0, 1, 0, 0, 1, 1, 1), found(t, s, "@user1:example.org")); diff != "" {
		t.Error(diff)
	}
}

// testEraseRace erases people while they act. Each call succeeds, what was there
// before is gone, and the number of bindings stays right.
func testEraseRace(t *testing.T, s Store) {
	ctx := t.Context()
	current(t, s, "pepper1")
	for _, err := range together(12, func(n int) error {
		for round := range 4 {
			user := n / 4 % 2
			b := binding(user, fmt.Sprint("a", n%4))
			switch n % 4 {
			case 0:
				p := identity.Person{UserID: b.UserID, Addresses: []threepid.ID{b.ID}}
				if _, err := s.Erase(ctx, p, by(), func(string, int, int) {}); err != nil {
					return err
				}
			case 1:
				if err := s.Bind(ctx, b); err != nil {
					return err
				}
			case 2:
				err := s.AddInvite(ctx, invite(t, user, fmt.Sprint("a", n%3)))
				if err != nil && !errors.Is(err, identity.ErrInUse) {
					return err
				}
			default:
				if err := s.AddToken(ctx, digest(fmt.Sprint(n, "-", round)), b.UserID, begin()); err != nil {
					return err
				}
				claimed, err := s.ClaimDeliveries(ctx, fmt.Sprint(n, "-", round), begin(), begin().Add(time.Minute), 5)
				if err != nil {
					return err
				}
				var results []identity.DeliveryResult
				for _, d := range claimed {
					results = append(results, delivered(d))
				}
				if err := s.SettleDeliveries(ctx, results, begin()); err != nil {
					return err
				}
			}
		}
		return nil
	}) {
		ok(t, err)
	}
	for user := range 2 {
		found(t, s, binding(user, "a").UserID)
		if diff := cmp.Diff(eraseCounts(0, 0, 0, 0, 0, 0, 0, 0), found(t, s, binding(user, "a").UserID)); diff != "" {
			t.Error(diff)
		}
	}
	if n := must(s.Bindings(ctx))(t); n != 0 {
		t.Errorf("%d bindings are said to be left", n)
	}
}
