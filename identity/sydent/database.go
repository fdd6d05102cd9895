package sydent

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"time"

	"modernc.org/sqlite" // and the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// schemaVersion is the user_version of the databases of Sydent 2.7.
const schemaVersion = 5

// Database is a Sydent's SQLite database as it was at one moment. Nothing is
// ever written to it.
type Database struct {
	db *sql.DB
	tx *sql.Tx
}

// Open opens the database in the file at path for as long as ctx lives. A Sydent
// that runs cannot write once something was read. Errors name the file.
func Open(ctx context.Context, path string) (*Database, error) {
	d, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open Sydent's database %s: %w", path, explain(err))
	}
	return d, nil
}

func open(ctx context.Context, path string) (*Database, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("it cannot be read by the user with the number %d, who imports", os.Getuid())
	case err != nil:
		return nil, errors.Unwrap(err) // err names the file again
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if info.IsDir() { // SQLite calls that an I/O error
		return nil, errors.New("it is a folder")
	}
	query := url.Values{"mode": {"ro"}, "_pragma": {"query_only(1)", "busy_timeout(3000)", "temp_store(2)"}}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	d := &Database{db: db, tx: tx}
	if err := d.check(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// explain puts what SQLite says of a file that cannot be read into a sentence that
// says what to do.
func explain(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	const primary = 0xff
	switch e.Code() & primary {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("Sydent is writing to it: stop Sydent first (%w)", err) //nolint:staticcheck // a name
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("Sydent was ended in the middle of a change, which a file beside the database remembers: "+ //nolint:staticcheck // a name
			"start Sydent and stop it properly first (%w)", err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("it is damaged, or not a SQLite database; nothing was imported. Take a copy from before, or what "+
			"`sqlite3 sydent.db .recover` can save (%w)", err)
	}
	return err
}

// check sees that the file is whole and the tables are those this package knows.
func (d *Database) check(ctx context.Context) error {
	var version int
	if err := d.tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return err
	}
	switch {
	case version == schemaVersion:
		return d.whole(ctx)
	case version > schemaVersion:
		return fmt.Errorf("its schema has version %d, and only version %d of Sydent 2 is known here", version, schemaVersion)
	default:
		return fmt.Errorf("its schema has version %d and not %d: is it Sydent's? An old one is brought up to date by "+
			"starting Sydent 2.7 on it once", version, schemaVersion)
	}
}

// whole sees that all of the file can be read.
func (d *Database) whole(ctx context.Context) error {
	var found string
	if err := d.tx.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&found); err != nil {
		return err
	}
	if found != "ok" {
		return fmt.Errorf("it is damaged; nothing was imported. Take a copy from before, or what `sqlite3 sydent.db .recover` can save (%s)", found)
	}
	return nil
}

// size returns how many rows there may be to import.
func (d *Database) size(ctx context.Context) (n int, err error) {
	err = d.tx.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM global_threepid_associations)
		+ (SELECT COUNT(*) FROM local_threepid_associations WHERE mxid IS NULL) + (SELECT COUNT(*) FROM tokens)
		+ (SELECT COUNT(*) FROM accepted_terms_urls) + (SELECT COUNT(*) FROM invite_tokens) + (SELECT COUNT(*) FROM ephemeral_public_keys)`).Scan(&n)
	return n, err
}

// Close closes the database.
func (d *Database) Close() error {
	err := d.tx.Rollback()
	if errors.Is(err, sql.ErrTxDone) { // the end of Open's context was the end of the transaction
		err = nil
	}
	return errors.Join(err, d.db.Close())
}

// association is a row of one of the two tables of bindings. Times are in
// milliseconds, 0 where there is none.
type association struct {
	table                   string
	id                      int64
	medium, address, userID string
	removed                 bool // remembers that the address is bound to nobody any more
	ts, notBefore, notAfter int64
}

// associations yields the bindings and removals since a moment, the newest
// first; the zero time means all, also those without a time. Sydent answers from
// the global table, to which it copies each row of the local one; a local row
// without a copy is newer than a crash of Sydent, or remembers a removal.
func (d *Database) associations(ctx context.Context, since time.Time) iter.Seq2[association, error] {
	return rows(ctx, d.tx, func(r *sql.Rows) (a association, err error) {
		var userID sql.NullString
		err = r.Scan(&a.table, &a.id, &a.medium, &a.address, &userID, &a.ts, &a.notBefore, &a.notAfter)
		a.userID, a.removed = userID.String, !userID.Valid
		return a, err
	}, `SELECT tab, id, medium, address, mxid, ms, CAST(COALESCE(nb, 0) AS INTEGER), CAST(COALESCE(na, 0) AS INTEGER) FROM (
			SELECT 'global_threepid_associations' AS tab, id, medium, address, mxid,
				CAST(COALESCE(ts, 0) AS INTEGER) AS ms, notBefore AS nb, notAfter AS na
				FROM global_threepid_associations
			UNION ALL
			SELECT 'local_threepid_associations', id, medium, address, mxid,
				CAST(COALESCE(ts, 0) AS INTEGER), notBefore, notAfter
				FROM local_threepid_associations AS l
				WHERE NOT EXISTS (SELECT 1 FROM global_threepid_associations AS g WHERE g.medium = l.medium
					AND g.address = l.address AND g.mxid = l.mxid AND g.ts = l.ts)
		) WHERE ms >= $1 ORDER BY ms DESC, mxid IS NULL DESC, mxid, tab, id`, since0(since))
}

// token is an access token and its user.
type token struct {
	token, userID string
	account       bool // Sydent accepts the token
}

// tokens yields the access tokens of the accounts since a moment, and of no
// account if the moment is the zero time.
func (d *Database) tokens(ctx context.Context, since time.Time) iter.Seq2[token, error] {
	return rows(ctx, d.tx, func(r *sql.Rows) (t token, err error) {
		err = r.Scan(&t.token, &t.userID, &t.account)
		return t, err
	}, `SELECT t.token, t.user_id, a.user_id IS NOT NULL FROM tokens AS t
			LEFT JOIN accounts AS a ON a.user_id = t.user_id
			WHERE $1 = 0 OR a.created_ts >= $1`, since0(since))
}

// acceptance says that a user accepted a document.
type acceptance struct{ userID, url string }

// acceptances yields what the accounts since a moment accepted, and what anybody
// accepted if it is the zero time.
func (d *Database) acceptances(ctx context.Context, since time.Time) iter.Seq2[acceptance, error] {
	return rows(ctx, d.tx, func(r *sql.Rows) (a acceptance, err error) {
		err = r.Scan(&a.userID, &a.url)
		return a, err
	}, `SELECT t.user_id, t.url FROM accepted_terms_urls AS t
			LEFT JOIN accounts AS a ON a.user_id = t.user_id
			WHERE $1 = 0 OR a.created_ts >= $1 ORDER BY t.user_id, t.url`, since0(since))
}

// pendingInvite is an invite for an address that nobody has bound since.
type pendingInvite struct {
	id                                   int64
	medium, address, room, sender, token string
	received                             int64 // in seconds, 0 if unknown
}

// invites yields the pending invites received since a moment.
func (d *Database) invites(ctx context.Context, since time.Time) iter.Seq2[pendingInvite, error] {
	return rows(ctx, d.tx, func(r *sql.Rows) (p pendingInvite, err error) {
		err = r.Scan(&p.id, &p.medium, &p.address, &p.room, &p.sender, &p.token, &p.received)
		return p, err
	}, `SELECT id, medium, address, room_id, sender, token, CAST(COALESCE(received_ts, 0) AS INTEGER) FROM invite_tokens
			WHERE sent_ts IS NULL AND COALESCE(received_ts, 0) * 1000 >= $1 ORDER BY id`, since0(since))
}

// inviteKey is the public half of a key in the mail of some invite.
type inviteKey struct {
	id     int64
	public string
	kept   int64 // since when, in seconds, 0 if unknown
}

// inviteKeys yields the keys of invites kept since a moment.
func (d *Database) inviteKeys(ctx context.Context, since time.Time) iter.Seq2[inviteKey, error] {
	return rows(ctx, d.tx, func(r *sql.Rows) (k inviteKey, err error) {
		err = r.Scan(&k.id, &k.public, &k.kept)
		return k, err
	}, `SELECT id, public_key, CAST(COALESCE(persistence_ts, 0) AS INTEGER) FROM ephemeral_public_keys
			WHERE COALESCE(persistence_ts, 0) * 1000 >= $1 ORDER BY id`, since0(since))
}

// pepper returns the lookup pepper, "" if there is none.
func (d *Database) pepper(ctx context.Context) (string, error) {
	var value sql.NullString
	err := d.tx.QueryRowContext(ctx, `SELECT lookup_pepper FROM hashing_metadata ORDER BY id LIMIT 1`).Scan(&value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", err
	}
	return value.String, nil
}

// leftovers counts, by what they are called in a report, the rows that are not
// brought over. Sydent has no index of tokens by user: NOT IN makes one once,
// where NOT EXISTS would walk over all tokens for each account.
func (d *Database) leftovers(ctx context.Context) ([]Part, error) {
	parts := []Part{
		{Name: "accounts without a token", Note: "their users register again by themselves"},
		{Name: "validation sessions", Note: "left behind: who is just validating an address begins again"},
		{Name: "peers", Note: "left behind: nothing is exchanged with other identity servers"},
	}
	err := d.tx.QueryRowContext(ctx, `SELECT
			(SELECT COUNT(*) FROM accounts WHERE user_id NOT IN (SELECT user_id FROM tokens)),
			(SELECT COUNT(*) FROM threepid_validation_sessions),
			(SELECT COUNT(*) FROM peers)`).
		Scan(&parts[0].Read, &parts[1].Read, &parts[2].Read)
	return parts, err
}

// since0 returns a time in milliseconds, 0 for the zero time.
func since0(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// rows yields what scan reads from each row that the query finds, and at last
// the error that ended it early.
func rows[T any](ctx context.Context, tx *sql.Tx, scan func(*sql.Rows) (T, error), query string, args ...any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		found, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			yield(none, err)
			return
		}
		defer found.Close()
		for found.Next() {
			one, err := scan(found)
			if !yield(one, err) || err != nil {
				return
			}
		}
		if err := found.Err(); err != nil {
			yield(none, err)
		}
	}
}
