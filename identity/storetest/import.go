package storetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/threepid"
)

// ImportStore is what RunImports tests.
type ImportStore interface {
	Store
	LastImport(ctx context.Context) (begun time.Time, err error)
	FinishImport(ctx context.Context, begun time.Time) error
	ImportBindings(ctx context.Context, bindings []identity.Binding) (identity.Imported, error)
	ImportRemovals(ctx context.Context, removals []identity.Binding) (removed int, err error)
	ImportTokens(ctx context.Context, users map[identity.Digest]string, now time.Time) (identity.Imported, error)
	ImportTerms(ctx context.Context, users map[string][]string, now time.Time) (identity.Imported, error)
	ImportInvites(ctx context.Context, invites []identity.Invite) (identity.Imported, error)
	ImportKeys(ctx context.Context, keys []identity.InviteKey) (identity.Imported, error)
}

// RunImports tests how the stores that open returns, an empty one for each
// subtest, take over what another identity server knows.
func RunImports(t *testing.T, open func(t *testing.T) ImportStore) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, ImportStore){
		"the last import is the one that came to its end last":            testLastImport,
		"imported bindings are found under every spelling and pepper":     testImportBindings,
		"the newer of an imported binding and the one that is there wins": testImportNewer,
		"a removal elsewhere removes what is not newer":                   testImportRemovals,
		"more bindings than one statement takes are all imported":         testImportMany,
		"imports and binds at once keep the count right":                  testImportRace,
		"imported tokens leave those that are there as they are":          testImportTokens,
		"imported terms leave those that are there as they are":           testImportTerms,
		"imported invites wait for their address as any other":            testImportInvites,
		"imported keys are valid until they expire and are swept then":    testImportKeys,
		"an empty import changes nothing":                                 testImportNothing,
		"no import brings back what was removed here":                     testImportRemoved,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func testLastImport(t *testing.T, s ImportStore) {
	ctx := t.Context()
	if last := must(s.LastImport(ctx))(t); !last.IsZero() {
		t.Errorf("at first: %v", last)
	}
	for _, begun := range []time.Time{begin(), begin().Add(time.Hour)} {
		ok(t, s.FinishImport(ctx, begun))
		if last := must(s.LastImport(ctx))(t); !last.Equal(begun) {
			t.Errorf("got %v, want %v", last, begun)
		}
	}
}

func testImportBindings(t *testing.T, s ImportStore) {
	ctx := t.Context()
	first := current(t, s, "pepper1")
	ok(t, s.BeginPepper(ctx, "pepper2", first.ID))
	b := identity.Binding{
		ID:     threepid.ID{Medium: threepid.MediumEmail, Address: "strauss@bücher.example"},
		UserID: "@user1:example.org", OriginalSpelling: "strauß@bücher.example", TS: begin(),
	}
	phone := identity.Binding{
		ID: threepid.ID{Medium: threepid.MediumMSISDN, Address: "18005552067"}, UserID: "@user2:example.org", TS: begin(),
	}
	if n := must(s.ImportBindings(ctx, []identity.Binding{b, phone}))(t).New; n != 2 {
		t.Errorf("changed %d bindings, want 2", n)
	}
	if n := must(s.Bindings(ctx))(t); n != 2 {
		t.Errorf("%d bindings are counted, want 2", n)
	}
	for _, p := range []identity.Pepper{first, live(t, s, identity.PepperNext)} {
		want := []string{b.UserID, b.UserID, b.UserID} // folded, with A-labels, and as given
		if diff := cmp.Diff(want, users(t, s, p, b)); diff != "" {
			t.Errorf("under %s: %s", p.Value, diff)
		}
		if diff := cmp.Diff([]string{phone.UserID}, users(t, s, p, phone)); diff != "" {
			t.Errorf("under %s: %s", p.Value, diff)
		}
	}
}

func testImportNewer(t *testing.T, s ImportStore) {
	ctx := t.Context()
	p := current(t, s, "pepper1")
	for _, local := range []string{"older", "same", "newer"} {
		ok(t, s.Bind(ctx, binding(1, local)))
	}
	imported := []identity.Binding{binding(2, "older"), binding(2, "same"), binding(2, "newer"), binding(2, "other")}
	imported[0].TS = begin().Add(-time.Millisecond)
	imported[2].TS = begin().Add(time.Millisecond)
	if n := must(s.ImportBindings(ctx, imported))(t).New; n != 2 {
		t.Errorf("changed %d bindings, want 2", n)
	}
	for local, want := range map[string]string{
		"older": "@user1:example.org", "same": "@user1:example.org", "newer": "@user2:example.org", "other": "@user2:example.org",
	} {
		if diff := cmp.Diff([]string{want}, users(t, s, p, binding(0, local))); diff != "" {
			t.Errorf("%s: %s", local, diff)
		}
	}
	if n := must(s.Bindings(ctx))(t); n != 4 {
		t.Errorf("%d bindings are counted, want 4", n)
	}
	if n := must(s.ImportBindings(ctx, imported))(t).New; n != 0 {
		t.Errorf("a second time: changed %d bindings, want none", n)
	}
}

func testImportRemovals(t *testing.T, s ImportStore) {
	ctx := t.Context()
	p := current(t, s, "pepper1")
	for _, local := range []string{"older", "same", "newer", "untouched"} {
		ok(t, s.Bind(ctx, binding(1, local)))
	}
	removals := []identity.Binding{binding(9, "older"), binding(9, "same"), binding(9, "newer"), binding(9, "unknown")}
	removals[0].TS = begin().Add(time.Millisecond)
	removals[2].TS = begin().Add(-time.Millisecond)
	if n := must(s.ImportRemovals(ctx, removals))(t); n != 2 {
		t.Errorf("removed %d bindings, want 2", n)
	}
	for local, want := range map[string]int{"older": 0, "same": 0, "newer": 1, "untouched": 1} {
		if n := len(users(t, s, p, binding(1, local))); n != want {
			t.Errorf("%s: found %d users, want %d", local, n, want)
		}
	}
	if n := must(s.Bindings(ctx))(t); n != 2 {
		t.Errorf("%d bindings are counted, want 2", n)
	}
}

func testImportMany(t *testing.T, s ImportStore) {
	ctx := t.Context()
	p := current(t, s, "pepper1")
	const many = 601
	var all []identity.Binding
	for i := range many {
		all = append(all, binding(i, fmt.Sprint("a", i)))
	}
	if n := must(s.ImportBindings(ctx, all))(t).New; n != many {
		t.Errorf("changed %d bindings, want %d", n, many)
	}
	for _, b := range all {
		if got := users(t, s, p, b); !slices.Equal(got, []string{b.UserID}) {
			t.Fatalf("%s: found %v", b.UserID, got)
		}
	}
	tokens := make(map[identity.Digest]string)
	for _, b := range all {
		tokens[digest(b.UserID)] = b.UserID
	}
	if n := must(s.ImportTokens(ctx, tokens, begin()))(t).New; n != many {
		t.Errorf("added %d tokens, want %d", n, many)
	}
}

func testImportRace(t *testing.T, s ImportStore) {
	ctx := t.Context()
	current(t, s, "pepper1")
	for _, err := range together(16, func(i int) error {
		if i%2 == 0 {
			_, err := s.ImportBindings(ctx, []identity.Binding{binding(i, "a"), binding(i, "b"), binding(i, fmt.Sprint("c", i))})
			return err
		}
		return s.Bind(ctx, binding(i, "a"))
	}) {
		ok(t, err)
	}
	if n := must(s.Bindings(ctx))(t); n != 10 {
		t.Errorf("%d bindings are counted, want 10", n)
	}
}

func testImportTokens(t *testing.T, s ImportStore) {
	ctx, later := t.Context(), begin().Add(time.Hour)
	ok(t, s.AddToken(ctx, digest("there"), "@a:example.org", begin()))
	tokens := map[identity.Digest]string{digest("there"): "@a:example.org", digest("new"): "@b:example.org"}
	if n := must(s.ImportTokens(ctx, tokens, later))(t).New; n != 1 {
		t.Errorf("added %d tokens, want 1", n)
	}
	for token, want := range map[string]time.Time{"there": begin(), "new": later} {
		user, used, err := s.Token(ctx, digest(token), time.Time{})
		ok(t, err)
		if user != tokens[digest(token)] || !used.Equal(want) {
			t.Errorf("token %q is %s's, used %v; want %v", token, user, used, want)
		}
	}
}

func testImportTerms(t *testing.T, s ImportStore) {
	ctx := t.Context()
	ok(t, s.AcceptTerms(ctx, "@a:example.org", []string{"u1"}, begin()))
	accepted := map[string][]string{"@a:example.org": {"u2", "u1"}, "@b:example.org": {"u1"}}
	if n := must(s.ImportTerms(ctx, accepted, begin().Add(time.Hour)))(t).New; n != 2 {
		t.Errorf("added %d documents, want 2", n)
	}
	for user, want := range map[string][]string{"@a:example.org": {"u1", "u2"}, "@b:example.org": {"u1"}} {
		got := must(s.AcceptedTerms(ctx, user))(t)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", user, diff)
		}
	}
	// Who has neither a token nor a binding accepted what was there before first.
	if n := must(s.SweepAccounts(ctx, begin(), 10))(t); n != 1 {
		t.Errorf("swept %d rows, want the one from before", n)
	}
}

func testImportInvites(t *testing.T, s ImportStore) {
	ctx := t.Context()
	current(t, s, "pepper1")
	must(s.ImportBindings(ctx, []identity.Binding{binding(2, "bound")}))(t)
	there, fresh := invite(t, 1, "there"), invite(t, 1, "fresh")
	ok(t, s.AddInvite(ctx, there))
	again := there
	again.Sender = "@user3:example.org"
	fresh.Ephemeral = identity.ImportedEphemeral(fresh.Token)
	all := []identity.Invite{again, fresh, invite(t, 1, "bound")}
	for _, want := range []int{1, 0} {
		if diff := cmp.Diff(identity.Imported{New: want, Bound: 1}, must(s.ImportInvites(ctx, all))(t)); diff != "" {
			t.Error(diff)
		}
	}
	if got := must(s.LiveInvite(ctx, there.Token, begin(), begin().Add(-used)))(t); got.Sender != there.Sender {
		t.Errorf("the invite that was there is now %s's", got.Sender)
	}
	if !liveAt(t, s, fresh, begin()) || liveAt(t, s, all[2], begin()) {
		t.Error("the imported invite is not live, or the one of a bound address is")
	}
	ok(t, s.Bind(ctx, binding(3, "fresh")))
	got := claim(t, s, "c", begin(), 10)
	if len(got) != 1 || got[0].Invite == nil || got[0].Invite.Token != fresh.Token {
		t.Errorf("nobody is told about the imported invite: %v", got)
	}
}

func testImportKeys(t *testing.T, s ImportStore) {
	ctx := t.Context()
	a := identity.InviteKey{Public: identity.ImportedEphemeral("a"), Expires: begin().Add(week)}
	b := identity.InviteKey{Public: identity.ImportedEphemeral("b"), Expires: begin().Add(2 * week)}
	longer := a
	longer.Expires = b.Expires
	for _, c := range []struct {
		keys []identity.InviteKey
		want int
	}{{[]identity.InviteKey{a, a}, 1}, {[]identity.InviteKey{longer, b}, 1}} {
		if n := must(s.ImportKeys(ctx, c.keys))(t).New; n != c.want {
			t.Errorf("added %d keys, want %d", n, c.want)
		}
	}
	for _, c := range []struct {
		after time.Duration
		a, b  bool
		swept int
	}{{week - time.Millisecond, true, true, 0}, {week, false, true, 1}, {2 * week, false, false, 1}} {
		now := begin().Add(c.after)
		for _, k := range []struct {
			key  identity.InviteKey
			want bool
		}{{a, c.a}, {b, c.b}} {
			live := must(s.LiveKey(ctx, k.key.Public, now, now.Add(-used)))(t)
			imported := must(s.ImportedKey(ctx, k.key.Public, now))(t)
			if live != k.want || imported != k.want {
				t.Errorf("after %v: valid: %v and %v, want %v", c.after, live, imported, k.want)
			}
		}
		if n := must(s.SweepInvites(ctx, now, now.Add(-used), 10))(t); n != c.swept {
			t.Errorf("after %v: swept %d rows, want %d", c.after, n, c.swept)
		}
	}
	i := invite(t, 1, "native")
	ok(t, s.AddInvite(ctx, i))
	if must(s.ImportedKey(ctx, i.Ephemeral, begin()))(t) {
		t.Error("the key of an invite of our own counts as imported")
	}
}

func testImportNothing(t *testing.T, s ImportStore) {
	ctx := t.Context()
	for _, r := range []identity.Imported{
		must(s.ImportBindings(ctx, nil))(t), must(s.ImportTokens(ctx, nil, begin()))(t), must(s.ImportTerms(ctx, nil, begin()))(t),
		must(s.ImportInvites(ctx, nil))(t), must(s.ImportKeys(ctx, nil))(t), {New: must(s.ImportRemovals(ctx, nil))(t)},
	} {
		if r != (identity.Imported{}) {
			t.Errorf("changed %+v", r)
		}
	}
	if n := must(s.Bindings(ctx))(t); n != 0 {
		t.Errorf("%d bindings", n)
	}
}

// testImportRemoved imports everything, removes it in each way there is, and
// imports it again.
func testImportRemoved(t *testing.T, s ImportStore) {
	ctx, later := t.Context(), begin().Add(time.Hour)
	removal := identity.Removal{At: later}
	erased, address := "@user1:example.org", binding(3, "erased")
	bindings := []identity.Binding{binding(1, "one"), binding(2, "unbound"), address, binding(4, "kept")}
	tokens := map[identity.Digest]string{digest("1"): erased, digest("2"): "@user2:example.org", digest("4"): "@user4:example.org"}
	terms := map[string][]string{erased: {"u"}, "@user4:example.org": {"u"}}
	invites := []identity.Invite{invite(t, 1, "a"), invite(t, 4, "cancelled"), invite(t, 4, "late"), invite(t, 4, "waiting")}
	invites[2].Address = threepid.ID{Medium: threepid.MediumEmail, Address: "invited@example.com"}
	for i := range invites {
		invites[i].Ephemeral = identity.ImportedEphemeral(invites[i].Token)
	}
	imports := func() []identity.Imported {
		return []identity.Imported{
			must(s.ImportBindings(ctx, bindings))(t), must(s.ImportTokens(ctx, tokens, later))(t),
			must(s.ImportTerms(ctx, terms, later))(t), must(s.ImportInvites(ctx, invites))(t),
		}
	}
	if diff := cmp.Diff([]identity.Imported{{New: 4}, {New: 3}, {New: 2}, {New: 4}}, imports()); diff != "" {
		t.Fatal(diff)
	}
	// Invites that the user took: for an address that they have, and for one they had.
	taken := []identity.Invite{invite(t, 4, "has"), invite(t, 4, "had")}
	for i := range taken {
		taken[i].Ephemeral = identity.ImportedEphemeral(taken[i].Token)
	}
	must(s.ImportInvites(ctx, taken))(t)
	has, had := binding(1, "has"), binding(1, "had")
	ok(t, s.Bind(ctx, has))
	ok(t, s.Bind(ctx, had))
	must(s.Unbind(ctx, had.ID, erased, removal))(t)
	erase := func(p identity.Person) { must(s.Erase(ctx, p, removal, func(string, int, int) {}))(t) }
	erase(identity.Person{UserID: erased, Addresses: []threepid.ID{bindings[0].ID, has.ID}})
	waits := invite(t, 4, "has") // that was imported nowhere yet
	waits.Ephemeral = identity.ImportedEphemeral(waits.Token)
	if diff := cmp.Diff(identity.Imported{Removed: 3}, must(s.ImportInvites(ctx, append(taken, waits)))(t)); diff != "" {
		t.Errorf("invites of an erased user: %s", diff)
	}
	erase(identity.Person{Addresses: []threepid.ID{address.ID, invites[2].Address}})
	must(s.Unbind(ctx, bindings[1].ID, bindings[1].UserID, removal))(t)
	ok(t, s.DeleteToken(ctx, digest("2"), time.Time{}, removal))
	ok(t, s.DeleteInvite(ctx, invites[1].Token, "", removal))
	if diff := cmp.Diff([]identity.Imported{{Removed: 3}, {Removed: 2}, {Removed: 1}, {Removed: 3}}, imports()); diff != "" {
		t.Errorf("again: %s", diff)
	}
	// What was made elsewhere after that is new, and an address may be bound here.
	bindings[1].TS = later.Add(time.Millisecond)
	if diff := cmp.Diff(identity.Imported{New: 1, Removed: 2}, must(s.ImportBindings(ctx, bindings))(t)); diff != "" {
		t.Errorf("made again elsewhere: %s", diff)
	}
	ok(t, s.Bind(ctx, address))
}
