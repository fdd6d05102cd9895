package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
)

func accounts() map[string]func(*testing.T, Store) {
	return map[string]func(*testing.T, Store){
		"a token is found with its user and its last use":            testToken,
		"a token is idle from the moment given":                      testIdleToken,
		"touching moves the last use forward only":                   testTouch,
		"deleting a token leaves the user's others":                  testDeleteToken,
		"a sweep removes idle tokens up to its limit":                testSweepTokens,
		"a sweep removes what nobody who is left accepted":           testSweepTerms,
		"a database keeps the first server name and no other":        testServerName,
		"a name that meant nothing gives way while nothing is bound": testProvisionalName,
		"a server name that several claim at once is the first's":    testServerNameRace,
	}
}

func testToken(t *testing.T, s Store) {
	ctx := t.Context()
	ok(t, s.AddToken(ctx, digest("a"), "@a:example.org", begin()))
	user, used, err := s.Token(ctx, digest("a"), begin().Add(-time.Hour))
	ok(t, err)
	if user != "@a:example.org" || !used.Equal(begin()) {
		t.Errorf("got %s, used %v", user, used)
	}
	if _, _, err := s.Token(ctx, digest("b"), begin().Add(-time.Hour)); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("another token: got %v, want ErrNotFound", err)
	}
}

func testIdleToken(t *testing.T, s Store) {
	ctx := t.Context()
	ok(t, s.AddToken(ctx, digest("a"), "@a:example.org", begin()))
	if _, _, err := s.Token(ctx, digest("a"), begin().Add(-time.Millisecond)); err != nil {
		t.Errorf("used a millisecond after: got %v", err)
	}
	if _, _, err := s.Token(ctx, digest("a"), begin()); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("used at that moment: got %v, want ErrNotFound", err)
	}
	if err := s.DeleteToken(ctx, digest("a"), begin(), by()); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("delete an idle token: got %v, want ErrNotFound", err)
	}
}

func testTouch(t *testing.T, s Store) {
	ctx, later := t.Context(), begin().Add(time.Hour)
	ok(t, s.AddToken(ctx, digest("a"), "@a:example.org", begin()))
	ok(t, s.TouchToken(ctx, digest("a"), later))
	ok(t, s.TouchToken(ctx, digest("a"), begin()))
	if _, used, err := s.Token(ctx, digest("a"), time.Time{}); err != nil || !used.Equal(later) {
		t.Errorf("got %v, %v; want %v", used, err, later)
	}
	ok(t, s.TouchToken(ctx, digest("gone"), later))
}

func testDeleteToken(t *testing.T, s Store) {
	ctx := t.Context()
	ok(t, s.AddToken(ctx, digest("a1"), "@a:example.org", begin()))
	ok(t, s.AddToken(ctx, digest("a2"), "@a:example.org", begin()))
	ok(t, s.DeleteToken(ctx, digest("a1"), time.Time{}, by()))
	if err := s.DeleteToken(ctx, digest("a1"), time.Time{}, by()); !errors.Is(err, identity.ErrNotFound) {
		t.Errorf("second deletion: got %v, want ErrNotFound", err)
	}
	if _, _, err := s.Token(ctx, digest("a2"), time.Time{}); err != nil {
		t.Errorf("the other token: %v", err)
	}
}

func testSweepTokens(t *testing.T, s Store) {
	ctx := t.Context()
	for _, name := range []string{"a", "b", "c"} {
		ok(t, s.AddToken(ctx, digest(name), "@a:example.org", begin()))
	}
	ok(t, s.AddToken(ctx, digest("fresh"), "@a:example.org", begin().Add(time.Millisecond)))
	var swept []int
	for range 3 {
		swept = append(swept, must(s.SweepAccounts(ctx, begin(), 2))(t))
	}
	if want := []int{2, 1, 0}; !slices.Equal(swept, want) {
		t.Errorf("swept %v, want %v", swept, want)
	}
	if _, _, err := s.Token(ctx, digest("fresh"), time.Time{}); err != nil {
		t.Errorf("the token that was used: %v", err)
	}
}

func testSweepTerms(t *testing.T, s Store) {
	ctx, later := t.Context(), begin().Add(time.Hour)
	for _, user := range []string{"@user1:example.org", "@token:example.org", "@gone:example.org"} {
		ok(t, s.AcceptTerms(ctx, user, []string{"https://example.org/1", "https://example.org/2"}, begin()))
	}
	ok(t, s.AcceptTerms(ctx, "@new:example.org", []string{"https://example.org/1"}, later))
	ok(t, s.Bind(ctx, binding(1, "a")))
	ok(t, s.AddToken(ctx, digest("a"), "@token:example.org", later))
	if n := must(s.SweepAccounts(ctx, begin(), 100))(t); n != 2 {
		t.Errorf("swept %d rows, want the 2 of the user who is gone", n)
	}
	for user, want := range map[string]int{
		"@user1:example.org": 2, "@token:example.org": 2, "@new:example.org": 1, "@gone:example.org": 0,
	} {
		if n := len(must(s.AcceptedTerms(ctx, user))(t)); n != want {
			t.Errorf("%s has accepted %d documents, want %d", user, n, want)
		}
	}
}

func testServerName(t *testing.T, s Store) {
	ctx := t.Context()
	ok(t, s.ClaimServerName(ctx, "id.example.org", named))
	ok(t, s.ClaimServerName(ctx, "id.example.org", named))
	if err := s.ClaimServerName(ctx, "ID.example.org", named); !errors.Is(err, identity.ErrServerName) {
		t.Errorf("another name: got %v, want ErrServerName", err)
	}
}

// named is for a server name that stays.
func named(string) bool { return false }

func testProvisionalName(t *testing.T, s Store) {
	ctx := t.Context()
	tried := func(kept string) bool { return kept == "127.0.0.1:8090" }
	ok(t, s.ClaimServerName(ctx, "127.0.0.1:8090", tried))
	i := invite(t, 1, "a")
	ok(t, s.AddInvite(ctx, i))
	refused := func(name string) {
		t.Helper()
		if other, is := errors.AsType[*identity.ServerNameError](s.ClaimServerName(ctx, name, tried)); !is || other.Kept == name {
			t.Errorf("%s: got %v, want a ServerNameError", name, other)
		}
	}
	refused("id.example.org") // somebody is invited
	ok(t, s.DeleteInvite(ctx, i.Token, "", by()))
	b := binding(1, "a")
	ok(t, s.Bind(ctx, b))
	refused("id.example.org") // somebody is bound
	must(s.Unbind(ctx, b.ID, b.UserID, by()))(t)
	ok(t, s.ClaimServerName(ctx, "id.example.org", tried))
	refused("127.0.0.1:8090")
}

func testServerNameRace(t *testing.T, s Store) {
	ctx := t.Context()
	errs := together(8, func(i int) error { return s.ClaimServerName(ctx, string(rune('a'+i)), named) })
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, identity.ErrServerName) {
			t.Errorf("got %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d claims succeeded, want 1", won)
	}
}

func terms() map[string]func(*testing.T, Store) {
	return map[string]func(*testing.T, Store){
		"accepted terms add up for each user": func(t *testing.T, s Store) {
			ctx := t.Context()
			ok(t, s.AcceptTerms(ctx, "@a:example.org", []string{"u1"}, begin()))
			ok(t, s.AcceptTerms(ctx, "@a:example.org", []string{"u2", "u1"}, begin()))
			ok(t, s.AcceptTerms(ctx, "@b:example.org", []string{"u3"}, begin()))
			got := must(s.AcceptedTerms(ctx, "@a:example.org"))(t)
			slices.Sort(got)
			if diff := cmp.Diff([]string{"u1", "u2"}, got); diff != "" {
				t.Error(diff)
			}
		},
		"the same terms accepted at once in any order are no conflict": func(t *testing.T, s Store) {
			ctx := t.Context()
			for _, err := range together(20, func(i int) error {
				urls := []string{"u1", "u2", "u3"}
				if i%2 == 0 {
					slices.Reverse(urls)
				}
				return s.AcceptTerms(ctx, "@a:example.org", urls, begin())
			}) {
				ok(t, err)
			}
			if n := len(must(s.AcceptedTerms(ctx, "@a:example.org"))(t)); n != 3 {
				t.Errorf("accepted %d documents, want 3", n)
			}
		},
	}
}
