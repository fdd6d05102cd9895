package sydent_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/identity/sydent"
	"github.com/matrix-herald/herald/threepid"
)

const (
	alice = "@alice:example.org"
	bob   = "@bob:example.org"
	carol = "@carol:example.org"
)

// secrets are what must not show anywhere.
func secrets() []string {
	return []string{"alice", "bob", "carol", "example.com", "4477009", "aliceToken", "lostToken", seed, pepper, "https:"}
}

// everything makes a Sydent's database with some of each kind of rows.
func everything(t *testing.T) *old {
	t.Helper()
	o := newOld(t)
	o.bind(t, "email", "Alice@Example.com", alice, before())
	o.bind(t, "email", "bob@example.com", alice, before())
	o.bind(t, "email", "bob@example.com", bob, before().Add(time.Hour))
	o.bind(t, "msisdn", "447700900001", bob, before())
	o.bind(t, "msisdn", "077009", bob, before())
	o.bind(t, "irc", "carol", carol, before())
	o.bind(t, "email", "carol@example.com", carol, before())
	o.unbind(t, "email", "carol@example.com", before().Add(time.Minute))

	o.account(t, alice, before(), "aliceToken1", "aliceToken2")
	o.account(t, bob, before(), "bobToken")
	o.account(t, carol, before())
	o.account(t, "nobody", before(), "nobodyToken", "")
	o.exec(t, `INSERT INTO tokens (token, user_id) VALUES ('lostToken', '@lost:example.org')`)
	for _, row := range [][2]string{
		{alice, "https://example.com/terms/1"}, {alice, "https://example.com/privacy"}, {bob, "https://example.com/terms/1"},
		{bob, "https://example.com/\x00"}, {"nobody", "https://example.com/terms/1"},
	} {
		o.exec(t, `INSERT INTO accepted_terms_urls (user_id, url) VALUES (?, ?)`, row[0], row[1])
	}

	o.exec(t, `INSERT INTO invite_tokens (medium, address, room_id, sender, token, received_ts, sent_ts) VALUES
		('email', 'dave@example.com', '!r:example.org', '@alice:example.org', 'x', ?1, NULL),
		('email', 'alice@example.com', '!r:example.org', '@alice:example.org', 'y', ?1, NULL),
		('email', 'bob@example.com', '!r:example.org', '@alice:example.org', 'z', ?1, ?1)`, before().Unix())
	o.exec(t, `INSERT INTO ephemeral_public_keys (public_key, persistence_ts) VALUES (?1, ?2), ('b', ?2)`, seed, before().Unix())
	o.exec(t, `INSERT INTO threepid_validation_sessions (medium, address, clientSecret, mtime) VALUES ('email', 'a@example.com', 's', 1)`)
	o.exec(t, `INSERT INTO peers (name) VALUES ('peer.example.com')`)
	return o
}

// wanted is the report of the first import of everything.
func wanted() sydent.Report {
	const account = "of no account, so that Sydent does not accept it either"
	return sydent.Report{KeyID: "ed25519:0", Parts: []sydent.Part{
		{Name: "lookup pepper", Read: 1, Done: 1},
		{Name: "bindings", Read: 6, Done: 3, Skipped: []sydent.Skip{
			{Reason: "another entry for the same address is as new or newer", Count: 1, Examples: []string{
				"global_threepid_associations 2 (" + fingerprint("email", "bob@example.com") + ")",
			}},
			{Reason: "not a telephone number that can exist", Count: 1, Examples: []string{
				"global_threepid_associations 5 (" + fingerprint("msisdn", "077009") + ")",
			}},
			{Reason: "the medium is neither email nor msisdn", Count: 1, Examples: []string{"global_threepid_associations 6"}},
		}},
		{Name: "removals", Read: 1},
		{Name: "access tokens", Read: 6, Done: 3, Skipped: []sydent.Skip{
			{Reason: "not a user ID", Count: 2}, {Reason: account, Count: 1},
		}},
		{Name: "accepted terms", Read: 5, Done: 3, Skipped: []sydent.Skip{
			{Reason: "empty, or not text that can be stored", Count: 1}, {Reason: "not a user ID", Count: 1},
		}},
		{Name: "pending invites", Read: 2, Done: 1, Skipped: []sydent.Skip{
			{Reason: "the address is bound already", Count: 1},
		}},
		{Name: "keys of invites", Read: 2, Done: 1, Skipped: []sydent.Skip{
			{Reason: "not a public key", Count: 1, Examples: []string{"ephemeral_public_keys 2"}},
		}},
		{Name: "accounts without a token", Read: 1, Note: "their users register again by themselves"},
		{Name: "validation sessions", Read: 1, Note: "left behind: who is just validating an address begins again"},
		{Name: "peers", Read: 1, Note: "left behind: nothing is exchanged with other identity servers"},
	}}
}

func fingerprint(medium, address string) string {
	return threepid.ID{Medium: threepid.Medium(medium), Address: address}.String()
}

// state is what the service answers.
type state struct {
	Users  map[string]string
	Tokens map[string]string
	Terms  map[string][]string
}

func (h herald) state(t *testing.T) state {
	t.Helper()
	s := state{Tokens: make(map[string]string), Terms: make(map[string][]string)}
	s.Users = h.lookUp(t, pepper, "email alice@example.com", "email bob@example.com", "email carol@example.com",
		"msisdn 447700900001", "msisdn 077009", "irc carol")
	for _, token := range []string{"aliceToken1", "aliceToken2", "bobToken", "nobodyToken", "lostToken", ""} {
		if user := h.user(t, token); user != "" {
			s.Tokens[token] = user
		}
	}
	for _, user := range []string{alice, bob, carol, "nobody"} {
		urls, err := h.db.AcceptedTerms(t.Context(), user)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(urls)
		if len(urls) > 0 {
			s.Terms[user] = urls
		}
	}
	return s
}

func wantedState() state {
	return state{
		Users:  map[string]string{"email alice@example.com": alice, "email bob@example.com": bob, "msisdn 447700900001": bob},
		Tokens: map[string]string{"aliceToken1": alice, "aliceToken2": alice, "bobToken": bob},
		Terms: map[string][]string{
			alice: {"https://example.com/privacy", "https://example.com/terms/1"}, bob: {"https://example.com/terms/1"},
		},
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		o, h := everything(t), newHeraldOn(t, newDatabase(t))
		first := h.imports(t, o)
		if diff := cmp.Diff(wanted(), first); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(wantedState(), h.state(t)); diff != "" {
			t.Errorf("state (-want +got):\n%s", diff)
		}

		second := h.imports(t, o)
		if !second.Since.Equal(now()) {
			t.Errorf("the second import looks back to %v, want %v", second.Since, now())
		}
		for _, p := range second.Parts {
			if p.Done != 0 {
				t.Errorf("the second import brought over %d %s", p.Done, p.Name)
			}
		}
		if diff := cmp.Diff(wantedState(), h.state(t)); diff != "" {
			t.Errorf("state after the second import (-want +got):\n%s", diff)
		}
	})
}

func TestReportShowsNobody(t *testing.T) {
	t.Parallel()
	o, h := everything(t), newHerald(t)
	first, second := h.imports(t, o), h.imports(t, o)
	for _, r := range []sydent.Report{first, second} {
		text := r.String()
		for _, secret := range secrets() {
			if strings.Contains(text, secret) {
				t.Errorf("the report shows %q:\n%s", secret, text)
			}
		}
	}
	for _, want := range []string{
		"signing key              ed25519:0\n",
		"bindings                 6 read, 3 brought over\n    1 skipped: another entry for the same address is as new or newer\n        global_threepid_associations 2 (email:",
		"pending invites          2 read, 1 brought over\n    1 skipped: the address is bound already\n",
	} {
		if !strings.Contains(first.String(), want) {
			t.Errorf("the first report lacks %q:\n%s", want, first)
		}
	}
	for _, want := range []string{
		"An import begun at 2027-01-15T08:00:00Z came to its end before: only what is newer was looked at.\n",
		"lookup pepper            1 read, 0 brought over, 1 there already\n",
	} {
		if !strings.Contains(second.String(), want) {
			t.Errorf("the second report lacks %q:\n%s", want, second)
		}
	}
}

func TestDryRunReportsTheSameAndChangesNothing(t *testing.T) {
	t.Parallel()
	o, h := everything(t), newHerald(t)
	r, err := sydent.DryRun(t.Context(), sydent.Options{Database: o.open(t), Key: newKey(t, "ed25519:0", seed), Now: now, Progress: silent})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h.imports(t, o), r); diff != "" {
		t.Errorf("import and dry run (-import +dry run):\n%s", diff)
	}
}

func TestPlainLookupsFindWhatWasImported(t *testing.T) {
	t.Parallel()
	h := newHerald(t)
	h.imports(t, everything(t))
	got, err := h.directory(t).Lookup(t.Context(), identity.LookupRequest{
		Algorithm: identity.AlgorithmNone, Pepper: pepper, Addresses: []string{"ALICE@example.com email", "+447700900001 msisdn"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"ALICE@example.com email": alice, "+447700900001 msisdn": bob}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRotationReplacesTheImportedPepper(t *testing.T) {
	t.Parallel()
	h := newHerald(t)
	h.imports(t, everything(t))
	peppers := h.peppers(t)
	current, err := peppers.Current(t.Context())
	if err != nil || current.Value != pepper || !current.Since.Equal(now()) {
		t.Fatalf("current since %v, %v: %v", current.Since, current.Value, err)
	}
	if err := peppers.Rotate(t.Context(), silent); err != nil {
		t.Fatal(err)
	}
	if current, err = peppers.Current(t.Context()); err != nil || current.Value == pepper {
		t.Fatalf("not rotated: %v", err)
	}
	for _, value := range []string{pepper, current.Value} { // the old one is honoured for a while
		if got := h.lookUp(t, value, "email alice@example.com"); got["email alice@example.com"] != alice {
			t.Errorf("under %s: found %v", value, got)
		}
	}
}

// sgAssoc is an association as Sydent signed it, put together without the code
// that verifies it.
func sgAssoc(t *testing.T) []byte {
	t.Helper()
	raw, err := base64.RawStdEncoding.DecodeString(seed)
	if err != nil {
		t.Fatal(err)
	}
	const signed = `{"address":"alice@example.com","medium":"email","mxid":"@alice:example.org",` +
		`"not_after":4923936000123,"not_before":1770336000123,"ts":1770336000123}`
	sig := base64.RawStdEncoding.EncodeToString(ed25519.Sign(ed25519.NewKeyFromSeed(raw), []byte(signed)))
	return []byte(strings.TrimSuffix(signed, "}") + `,"signatures":{"id.example.org":{"ed25519:0":"` + sig + `"}}}`)
}

func TestImportedKeyVerifiesOldSignatures(t *testing.T) {
	t.Parallel()
	h := newHerald(t)
	h.imports(t, everything(t))
	keys := h.keyring(t)
	public, err := keys.Public(t.Context(), "ed25519:0")
	if err != nil {
		t.Fatal(err)
	}
	key, err := signing.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	assoc, err := signing.ParseObject(sgAssoc(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := signing.Verify(assoc, serverName, "ed25519:0", key); err != nil {
		t.Errorf("an association that Sydent signed: %v", err)
	}
	if !keys.Valid(t.Context(), public) {
		t.Error("Sydent's key is not valid")
	}
	if active, err := keys.Active(t.Context()); err != nil || active.ID() != "ed25519:0" {
		t.Errorf("signing with %v: %v", active, err)
	}
}

// An import into a service that was started before: it has a pepper, a key and
// bindings of its own.
func TestImportIntoAServiceThatWasStarted(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		ctx, h := t.Context(), newHeraldOn(t, newDatabase(t))
		own, err := h.keyring(t).Active(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ownPepper, err := h.peppers(t).Current(ctx)
		if err != nil {
			t.Fatal(err)
		}
		newer := identity.Binding{
			ID: threepid.ID{Medium: threepid.MediumEmail, Address: "alice@example.com"}, UserID: carol, TS: before().Add(time.Second),
		}
		older := identity.Binding{
			ID: threepid.ID{Medium: threepid.MediumEmail, Address: "bob@example.com"}, UserID: carol, TS: before(),
		}
		for _, b := range []identity.Binding{newer, older} {
			if err := h.db.Bind(ctx, b); err != nil {
				t.Fatal(err)
			}
		}
		if r := h.imports(t, everything(t)); part(t, r, "bindings").Done != 2 || part(t, r, "bindings").Known != 1 {
			t.Errorf("bindings: %+v", part(t, r, "bindings"))
		}
		want := map[string]string{"email alice@example.com": carol, "email bob@example.com": bob}
		for _, value := range []string{pepper, ownPepper.Value} {
			got := h.lookUp(t, value, slices.Collect(maps.Keys(want))...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("under %s: %s", value, diff)
			}
		}
		if current, err := h.peppers(t).Current(ctx); err != nil || current.Value != pepper {
			t.Errorf("the current pepper is %q: %v", current.Value, err)
		}
		keys := h.keyring(t)
		if active, err := keys.Active(ctx); err != nil || active.ID() != "ed25519:0" {
			t.Errorf("signing with %v: %v", active, err)
		}
		if !keys.Valid(ctx, own.PublicBase64()) {
			t.Error("what the service signed before is not valid any more")
		}
	})
}

func TestLaterImportBringsWhatIsNewAndNothingBack(t *testing.T) {
	t.Parallel()
	ctx, o, h := t.Context(), everything(t), newHerald(t)
	h.imports(t, o)
	phone := threepid.ID{Medium: threepid.MediumMSISDN, Address: "447700900001"}
	if removed, err := h.db.Unbind(ctx, phone, bob, identity.Removal{At: now()}); err != nil || !removed {
		t.Fatalf("unbind: %v, %v", removed, err)
	}
	if err := h.accounts(t).Logout(ctx, "aliceToken1"); err != nil {
		t.Fatal(err)
	}
	if err := h.peppers(t).Rotate(ctx, silent); err != nil {
		t.Fatal(err)
	}

	later := now().Add(time.Millisecond)
	o.bind(t, "email", "alice@example.com", carol, later)
	o.unbind(t, "email", "bob@example.com", later)
	o.bind(t, "email", "dave@example.com", "@dave:example.org", later)
	o.account(t, "@dave:example.org", later, "daveToken")
	o.exec(t, `INSERT INTO accepted_terms_urls (user_id, url) VALUES ('@dave:example.org', 'https://example.com/terms/2')`)
	// Sydent sets the time of a row before it writes it.
	o.bind(t, "email", "early@example.com", "@dave:example.org", now().Add(-time.Second))

	opts := h.options(t, o)
	opts.Now = func() time.Time { return now().Add(time.Hour) }
	r, err := sydent.Import(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	current, err := h.peppers(t).Current(ctx)
	if err != nil || current.Value == pepper {
		t.Fatalf("the pepper that was replaced is back: %v", err)
	}
	users := h.lookUp(t, current.Value, "email alice@example.com", "email bob@example.com", "email dave@example.com",
		"email early@example.com", "msisdn 447700900001")
	want := map[string]string{
		"email alice@example.com": carol, "email dave@example.com": "@dave:example.org", "email early@example.com": "@dave:example.org",
	}
	if diff := cmp.Diff(want, users); diff != "" {
		t.Errorf("lookup (-want +got):\n%s", diff)
	}
	for token, want := range map[string]string{"daveToken": "@dave:example.org", "aliceToken1": "", "aliceToken2": alice} {
		if got := h.user(t, token); got != want {
			t.Errorf("token %s is %q's, want %q", token, got, want)
		}
	}
	if urls, err := h.db.AcceptedTerms(ctx, "@dave:example.org"); err != nil || len(urls) != 1 {
		t.Errorf("accepted terms: %v, %v", urls, err)
	}
	if p := part(t, r, "removals"); p.Read != 1 || p.Done != 1 {
		t.Errorf("removals: %+v", p)
	}
}

// TestNoImportBringsBackWhatWasRemovedHere imports again right after people were
// unbound and logged out, when Sydent's rows are still young enough to be looked at.
//
// Conformance (identity): a removal here (unbound, logged out, cancelled, erased) and a later import | stays removed, unless it was made anew elsewhere since (also TestContract)
func TestNoImportBringsBackWhatWasRemovedHere(t *testing.T) {
	t.Parallel()
	ctx, o, h := t.Context(), newOld(t), newHerald(t)
	young := now().Add(-time.Second)
	o.bind(t, "email", "alice@example.com", alice, young)
	o.account(t, alice, young, "aliceToken1")
	h.imports(t, o)
	mail := threepid.ID{Medium: threepid.MediumEmail, Address: "alice@example.com"}
	if removed, err := h.db.Unbind(ctx, mail, alice, identity.Removal{At: now()}); err != nil || !removed {
		t.Fatalf("unbind: %v, %v", removed, err)
	}
	if err := h.accounts(t).Logout(ctx, "aliceToken1"); err != nil {
		t.Fatal(err)
	}
	opts := h.options(t, o)
	opts.Now = func() time.Time { return now().Add(10 * time.Second) }
	r, err := sydent.Import(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bindings", "access tokens"} {
		if p := part(t, r, name); p.Read != 1 || p.Done != 0 || len(p.Skipped) != 1 || !strings.HasPrefix(p.Skipped[0].Reason, "removed here") {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if users := h.lookUp(t, pepper, "email alice@example.com"); len(users) != 0 {
		t.Errorf("found %v", users)
	}
	if user := h.user(t, "aliceToken1"); user != "" {
		t.Errorf("the token is %s's again", user)
	}
}

// failing is a store whose connection ends at the given call.
type failing struct {
	sydent.Store

	calls int
}

func silent(string, int, int) {}

var errGone = errors.New("connection lost")

func (f *failing) step() error {
	if f.calls--; f.calls <= 0 {
		return errGone
	}
	return nil
}

func (f *failing) BeginPepper(ctx context.Context, value string, current int64) error {
	return errors.Join(f.Store.BeginPepper(ctx, value, current), f.step()) // done, but who asked does not hear of it
}

func (f *failing) ImportBindings(ctx context.Context, b []identity.Binding) (identity.Imported, error) {
	if err := f.step(); err != nil {
		return identity.Imported{}, err
	}
	return f.Store.ImportBindings(ctx, b)
}

func (f *failing) ImportTokens(ctx context.Context, users map[identity.Digest]string, at time.Time) (identity.Imported, error) {
	n, err := f.Store.ImportTokens(ctx, users, at)
	return n, errors.Join(err, f.step())
}

func (f *failing) ImportTerms(ctx context.Context, users map[string][]string, at time.Time) (identity.Imported, error) {
	if err := f.step(); err != nil {
		return identity.Imported{}, err
	}
	return f.Store.ImportTerms(ctx, users, at)
}

func (f *failing) FinishImport(ctx context.Context, begun time.Time) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Store.FinishImport(ctx, begun)
}

// Conformance (identity): an import, a rotation, an erasure that is stopped | goes on when it is started again (also TestRotationResumesAfterACrash, TestContract)
func TestInterruptedImportGoesOn(t *testing.T) {
	t.Parallel()
	const many = 1100 // two batches of bindings and of tokens
	o := everything(t)
	tx, err := o.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range many {
		user := fmt.Sprintf("@u%d:example.org", i)
		for _, statement := range []string{
			`INSERT INTO global_threepid_associations (medium, address, mxid, ts, notBefore, notAfter, originServer, originId, sgAssoc)
				VALUES ('email', $1 || '@example.net', $2, $3, $3, $3 * 2, 'peer.example.com', $3, '')`,
			`INSERT INTO accounts (user_id, created_ts) VALUES ($2, $3)`,
			`INSERT INTO tokens (token, user_id) VALUES ('token' || $1, $2)`,
			`INSERT INTO accepted_terms_urls (user_id, url) VALUES ($2, 'https://example.com/terms/1')`,
		} {
			if _, err := tx.ExecContext(t.Context(), statement, i, user, before().UnixMilli()+int64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}

	h := newHerald(t)
	interrupted := 0
	for calls := 1; ; calls += 2 {
		opts := h.options(t, o)
		opts.Store = &failing{Store: h.db, calls: calls}
		_, err := sydent.Import(t.Context(), opts)
		if err == nil {
			break
		}
		if !errors.Is(err, errGone) {
			t.Fatal(err)
		}
		interrupted++
	}
	if interrupted < 4 {
		t.Errorf("interrupted %d times only", interrupted)
	}
	if diff := cmp.Diff(wantedState(), h.state(t)); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	if n, err := h.db.Bindings(t.Context()); err != nil || n != many+3 {
		t.Errorf("%d bindings, want %d: %v", n, many+3, err)
	}
	for _, i := range []int{0, 99, 100, many - 1} {
		address, user := fmt.Sprintf("email %d@example.net", i), fmt.Sprintf("@u%d:example.org", i)
		if got := h.lookUp(t, pepper, address)[address]; got != user {
			t.Errorf("%s is bound to %q", address, got)
		}
		if got := h.user(t, fmt.Sprint("token", i)); got != user {
			t.Errorf("token %d is %q's", i, got)
		}
	}
	if r := h.imports(t, o); !r.Since.Equal(now()) {
		t.Error("the end of the import was not noted")
	}
}

func TestImportRefusesAnotherKeyOfTheSameName(t *testing.T) {
	t.Parallel()
	o, h := everything(t), newHerald(t)
	other, err := signing.GenerateKey("0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.db.ActivateKey(t.Context(), "", identity.StoredKey{Key: other, State: identity.KeyActive}); err != nil {
		t.Fatal(err)
	}
	_, err = sydent.Import(t.Context(), h.options(t, o))
	if !errors.Is(err, identity.ErrConflict) || !strings.Contains(err.Error(), "ed25519:0") {
		t.Errorf("got %v, want ErrConflict for ed25519:0", err)
	}
	if peppers, err := h.db.Peppers(t.Context()); err != nil || len(peppers) != 0 {
		t.Errorf("changed before it was refused: %v, %v", peppers, err)
	}
}

func TestImportOfAnEmptySydent(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"that has no pepper yet":           `DELETE FROM hashing_metadata`,
		"whose pepper is null":             `UPDATE hashing_metadata SET lookup_pepper = NULL`,
		"whose pepper is not to be stored": `UPDATE hashing_metadata SET lookup_pepper = 'a' || char(0)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, h := newOld(t), newHerald(t)
			o.exec(t, statement)
			r := h.imports(t, o)
			if p := part(t, r, "lookup pepper"); p.Done != 0 {
				t.Errorf("pepper: %+v", p)
			}
			if current, err := h.peppers(t).Current(t.Context()); err != nil || len(current.Value) < 16 {
				t.Errorf("the service has not made a pepper of its own: %v", err)
			}
		})
	}
}

func TestImportEndsWithItsContext(t *testing.T) {
	t.Parallel()
	o, h := everything(t), newHerald(t)
	opts := h.options(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sydent.Import(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Errorf("import: got %v", err)
	}
	if _, err := sydent.DryRun(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Errorf("dry run: got %v", err)
	}
}
