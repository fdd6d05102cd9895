package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"go.opentelemetry.io/otel/trace"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Options say which database to open.
type Options struct {
	// URL is "postgres://…" as libpq and pgx understand it, or "sqlite:" and the
	// path of a file, which is made if need be. pool_max_conns in the former
	// bounds the connections that read and those that write, each.
	URL string
	// TracerProvider gets a span for each PostgreSQL statement, without the
	// values in it. Nil traces nothing.
	TracerProvider trace.TracerProvider
}

// DB is the store. Close it when nothing uses it any more.
type DB struct {
	dialect dialect
	// SQLite lets one connection write at a time. With a pool of one for all that
	// writes, writers wait in Go, where their deadlines end the wait, and never
	// meet SQLITE_BUSY. Another process that writes, such as a subcommand beside
	// the server, is waited for inside SQLite, at most busyTimeout and whatever
	// the deadline. With PostgreSQL, too, those that read need not wait for a
	// connection while writers wait for each other.
	read, write *sql.DB
	// lookup is the statement of Lookup, if the driver has to be told to prepare it.
	lookup  *sql.Stmt
	closers []func() error
}

// sqliteReaders is how many lookups may read from SQLite at once.
const sqliteReaders = 8

// busyTimeout is far longer than this program holds a write lock: a batch of a
// pepper rotation takes tens of milliseconds.
const busyTimeout = 10 * time.Second

// Open opens the database, sees that it answers and brings its schema up to
// date; any number of processes may do so at once. It returns ErrNewer for a
// database that a later release has changed. Errors do not quote the URL.
func Open(ctx context.Context, o Options) (*DB, error) {
	var db *DB
	var err error
	if path, ok := strings.CutPrefix(o.URL, "sqlite:"); ok {
		db, err = openSQLite(path)
	} else if strings.HasPrefix(o.URL, "postgres://") || strings.HasPrefix(o.URL, "postgresql://") {
		db, err = openPostgres(ctx, o)
	} else {
		err = errors.New(`the URL begins neither with "postgres://" nor with "sqlite:"`)
	}
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if err := db.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the database: %w", err), db.Close())
	}
	return db, nil
}

func (db *DB) start(ctx context.Context) error {
	if err := db.write.PingContext(ctx); err != nil {
		return err
	}
	if err := db.migrate(ctx); err != nil {
		return err
	}
	if !db.dialect.prepares {
		return nil
	}
	var err error
	if db.lookup, err = db.read.PrepareContext(ctx, db.dialect.lookup); err != nil {
		return err
	}
	db.closers = append([]func() error{db.lookup.Close}, db.closers...)
	return nil
}

func openPostgres(ctx context.Context, o Options) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, errors.New("the URL is not one of PostgreSQL") // err may quote the password
	}
	if o.TracerProvider != nil {
		cfg.ConnConfig.Tracer = otelpgx.NewTracer(otelpgx.WithTracerProvider(o.TracerProvider))
	}
	reading := cfg.Copy()
	reading.AfterConnect = planOnce
	write, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	read, err := pgxpool.NewWithConfig(ctx, reading)
	if err != nil {
		write.Close()
		return nil, err
	}
	db := &DB{dialect: postgres(), read: stdlib.OpenDBFromPool(read), write: stdlib.OpenDBFromPool(write)}
	db.closers = []func() error{
		db.read.Close, db.write.Close,
		func() error { read.Close(); write.Close(); return nil },
	}
	return db, nil
}

// planOnce makes a connection plan each statement once and not for the values at
// hand. Looking at a thousand digests to find out that they are in an index takes
// as long as finding them there. It uses the indexes there are, because reading
// all of a table that is small when a statement is planned would go on after an
// import has made it large. The statements that write are planned for their
// values: the batches of a rotation are small parts of large tables.
func planOnce(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
	return err
}

func openSQLite(path string) (*DB, error) {
	if path == "" || strings.HasPrefix(path, ":") {
		return nil, errors.New("the URL names no file") // ":memory:" is another database for each connection
	}
	// SQLite would make it readable for everybody, and its other files alike.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	busy := fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds())
	pool := func(conns int, txlock string, pragmas ...string) (*sql.DB, error) {
		query := url.Values{"_txlock": {txlock}, "_pragma": append(pragmas, busy, "foreign_keys(1)")}
		u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}
		db, err := sql.Open("sqlite", u.String())
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(conns)
		db.SetMaxIdleConns(conns)
		return db, nil
	}
	// FAST overwrites what is deleted within a page that is written anyway.
	write, err := pool(1, "immediate", "journal_mode(WAL)", "secure_delete(FAST)")
	if err != nil {
		return nil, err
	}
	read, err := pool(sqliteReaders, "deferred", "query_only(1)")
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	return &DB{dialect: sqlite(), read: read, write: write, closers: []func() error{read.Close, write.Close}}, nil
}

// Close closes the database and waits for statements that are running.
func (db *DB) Close() error {
	var errs []error
	for _, c := range db.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	if _, err := db.read.ExecContext(ctx, "SELECT 1"); err != nil {
		return fmt.Errorf("ask the database: %w", err)
	}
	return nil
}

// tx runs f in one transaction, which is rolled back if f returns an error.
func (db *DB) tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		if e := tx.Rollback(); e != nil && !errors.Is(e, sql.ErrTxDone) {
			return errors.Join(err, e)
		}
		return err
	}
	return tx.Commit()
}
