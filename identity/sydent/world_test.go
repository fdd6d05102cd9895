package sydent_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/identity/sqlstore"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/identity/sydent"
	"github.com/matrix-herald/herald/threepid"
)

const (
	serverName = "id.example.org"
	pepper     = "kX9aQ" // as short as Sydent makes them
	// seed is the one of the specification's test vectors.
	seed = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
)

// now is when tests import; before is when what they import was made.
func now() time.Time    { return time.UnixMilli(1_800_000_000_123) }
func before() time.Time { return now().Add(-24 * time.Hour) }

// old is a Sydent's database.
type old struct {
	path string
	db   *sql.DB
}

// newOld makes the database of a Sydent that has a pepper and nothing else.
func newOld(t testing.TB) *old {
	t.Helper()
	schema, err := os.ReadFile("testdata/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	o := &old{path: filepath.Join(t.TempDir(), "sydent.db")}
	if o.db, err = sql.Open("sqlite", o.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.db.Close() })
	o.exec(t, string(schema))
	o.exec(t, `INSERT INTO hashing_metadata (id, lookup_pepper) VALUES (0, ?)`, pepper)
	return o
}

func (o *old) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if _, err := o.db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// local adds a row to the table of the bindings made here, as Sydent does:
// in place of the one for the same address. A nil user is a removal.
func (o *old) local(t *testing.T, medium, address string, user any, ts time.Time) {
	t.Helper()
	var notBefore, notAfter any
	if user != nil {
		notBefore, notAfter = ts.UnixMilli(), ts.AddDate(100, 0, 0).UnixMilli()
	}
	o.exec(t, `REPLACE INTO local_threepid_associations (medium, address, mxid, ts, notBefore, notAfter)
		VALUES (?, ?, ?, ?, ?, ?)`, medium, address, user, ts.UnixMilli(), notBefore, notAfter)
}

// global adds a row to the table that Sydent answers from.
func (o *old) global(t *testing.T, medium, address string, user any, ts time.Time) {
	t.Helper()
	o.exec(t, `INSERT INTO global_threepid_associations
			(medium, address, mxid, ts, notBefore, notAfter, originServer, originId, sgAssoc)
		SELECT ?, ?, ?, ?, ?, ?, ?, COALESCE(MAX(originId), 0) + 1, '{}' FROM global_threepid_associations`,
		medium, address, user, ts.UnixMilli(), ts.UnixMilli(), ts.AddDate(100, 0, 0).UnixMilli(), serverName)
}

// bind does what Sydent does on a bind: it adds a row to both tables.
func (o *old) bind(t *testing.T, medium, address string, user any, ts time.Time) {
	t.Helper()
	o.local(t, medium, address, user, ts)
	o.global(t, medium, address, user, ts)
}

// unbind does what Sydent does on an unbind.
func (o *old) unbind(t *testing.T, medium, address string, ts time.Time) {
	t.Helper()
	o.local(t, medium, address, nil, ts)
	o.exec(t, `DELETE FROM global_threepid_associations WHERE medium = ? AND address = ?`, medium, address)
}

// account adds an account with tokens.
func (o *old) account(t *testing.T, user string, created time.Time, tokens ...string) {
	t.Helper()
	o.exec(t, `INSERT INTO accounts (user_id, created_ts) VALUES (?, ?)`, user, created.UnixMilli())
	for _, token := range tokens {
		o.exec(t, `INSERT INTO tokens (token, user_id) VALUES (?, ?)`, token, user)
	}
}

// open opens the database as an import does, for the length of the test or until
// it is closed.
func (o *old) open(t testing.TB) *sydent.Database {
	t.Helper()
	db, err := sydent.Open(t.Context(), o.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.close(t, db) })
	return db
}

func (o *old) close(t testing.TB, db *sydent.Database) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Errorf("close Sydent's database: %v", err)
	}
}

// herald is the identity service over one database.
type herald struct {
	db *sqlstore.DB
}

func newHerald(t *testing.T) herald { return newHeraldOn(t, storetest.SQLite(t)) }

func newHeraldOn(t *testing.T, url string) herald {
	t.Helper()
	db, err := sqlstore.Open(t.Context(), sqlstore.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return herald{db: db}
}

// options are those of an import from o.
func (h herald) options(t *testing.T, o *old) sydent.Options {
	t.Helper()
	return sydent.Options{Database: o.open(t), Key: newKey(t, "ed25519:0", seed), Store: h.db, Keys: h.db, Now: now, Progress: silent}
}

// imports imports from o and returns the report.
func (h herald) imports(t *testing.T, o *old) sydent.Report {
	t.Helper()
	opts := h.options(t, o)
	r, err := sydent.Import(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	o.close(t, opts.Database)
	return r
}

func newKey(t testing.TB, id, seed string) signing.Key {
	t.Helper()
	key, err := signing.NewKey(id, seed)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (h herald) keyring(t *testing.T) *identity.Keyring {
	t.Helper()
	k, err := identity.OpenKeyring(t.Context(), identity.KeyringOptions{
		Store: h.db, Now: now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h herald) peppers(t *testing.T) *identity.Peppers {
	t.Helper()
	p, err := identity.OpenPeppers(t.Context(), identity.PeppersOptions{
		Store: h.db, Directory: h.db, Now: now, Log: slog.New(slog.DiscardHandler),
		Metrics: identity.NewMetrics(prometheus.NewRegistry()),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (h herald) directory(t *testing.T) *identity.Directory {
	t.Helper()
	d, err := identity.NewDirectory(identity.DirectoryOptions{
		Store: h.db, Peppers: h.peppers(t), Keys: h.keyring(t), Proofs: noProofs{}, ServerName: serverName,
		PlainLookup: true, Now: now, Metrics: identity.NewMetrics(prometheus.NewRegistry()),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// lookUp returns the users of addresses, "email alice@example.com" and the like,
// as a client finds them that hashes them with the value of a pepper.
func (h herald) lookUp(t *testing.T, value string, addresses ...string) map[string]string {
	t.Helper()
	asked := make(map[string]string)
	r := identity.LookupRequest{Algorithm: identity.AlgorithmSHA256, Pepper: value}
	for _, a := range addresses {
		medium, address := cut(a)
		hash := threepid.LookupHash(address, medium, value)
		asked[hash] = a
		r.Addresses = append(r.Addresses, hash)
	}
	found, err := h.directory(t).Lookup(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	users := make(map[string]string)
	for hash, user := range found {
		users[asked[hash]] = user
	}
	return users
}

func (h herald) accounts(t *testing.T) *identity.Accounts {
	t.Helper()
	a, err := identity.NewAccounts(identity.AccountsOptions{
		Store: h.db, OpenID: noOpenID{}, Now: now, Log: slog.New(slog.DiscardHandler),
		Metrics: identity.NewMetrics(prometheus.NewRegistry()),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// user returns whose token it is, "" if it is not valid.
func (h herald) user(t *testing.T, token string) string {
	t.Helper()
	a, err := h.accounts(t).Account(t.Context(), token)
	if err != nil && !errors.Is(err, identity.ErrUnauthorized) {
		t.Fatal(err)
	}
	return a.UserID
}

type noProofs struct{}

func (noProofs) Proven(context.Context, string, string) (identity.Proof, error) {
	return identity.Proof{}, threepid.ErrNoSession
}

func (noProofs) Validated(context.Context, string, string, string) (identity.Proof, error) {
	return identity.Proof{}, threepid.ErrNoSession
}

type noOpenID struct{}

func (noOpenID) UserInfo(context.Context, string, string) (string, error) {
	return "", identity.ErrOpenIDRefused
}

// part returns the part of a report with that name.
func part(t testing.TB, r sydent.Report, name string) sydent.Part {
	t.Helper()
	for _, p := range r.Parts {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("the report has no part %q", name)
	return sydent.Part{}
}
