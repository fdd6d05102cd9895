package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
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
	// tracer sees statements and their values, in tests.
	tracer pgx.QueryTracer
}

// DB is the store. Close it when nothing uses it any more.
type DB struct {
	dialect dialect
	// SQLite lets one connection write at a time. With a pool of one for all that
	// writes, writers wait in Go, where their deadlines end the wait, and never
	// meet SQLITE_BUSY. Another process that writes, such as a subcommand beside
	// the server, is waited for inside SQLite. With PostgreSQL, too, those that read
	// need not wait for a connection while writers wait for each other. What jobs
	// write has more time.
	read, write, jobs pool
	salt              string // of fingerprints
	// lookup is the statement of Lookup, if the driver has to be told to prepare it.
	lookup  *sql.Stmt
	closers []func() error
}

// sqliteReaders is how many lookups may read from SQLite at once.
const sqliteReaders = 8

// busyTimeout is how long a connection waits for a lock while it is opened.
const busyTimeout = 10 * time.Second

// inMemory keeps what SQLite sorts in memory: containers have no folder to put it.
const inMemory = "temp_store(2)"

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
	if err := db.read.QueryRowContext(ctx, `SELECT salt FROM directory WHERE id = 1`).Scan(&db.salt); err != nil {
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
	open := func(conns int, txlock string, pragmas ...string) (*sql.DB, error) {
		db, err := sql.Open("sqlite", sqliteURL(path, txlock, append(pragmas, busy, "foreign_keys(1)", inMemory)...))
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(conns)
		db.SetMaxIdleConns(conns)
		return db, nil
	}
	// FAST overwrites what is deleted within a page that is written anyway.
	write, err := open(1, "immediate", "journal_mode(WAL)", "secure_delete(FAST)")
	if err != nil {
		return nil, err
	}
	read, err := open(sqliteReaders, "deferred", "query_only(1)")
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	const patience = "PRAGMA busy_timeout = %d"
	succeeded := new(atomic.Int64)
	return &DB{
		dialect: sqlite(), read: pool{DB: read},
		write: pool{write, writeTime, patience, succeeded}, jobs: pool{write, jobTime, patience, succeeded},
		closers: []func() error{read.Close, write.Close},
	}, nil
}

// sqliteURL names a file for the driver, whatever characters are in its path.
func sqliteURL(path, txlock string, pragmas ...string) string {
	query := url.Values{"_txlock": {txlock}, "_pragma": pragmas}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}
	return u.String()
}

// Close closes the database and waits for statements that are running.
func (db *DB) Close() error {
	var errs []error
	for _, c := range db.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// Try reads and writes something.
func (db *DB) Try(ctx context.Context) error {
	_, err := db.write.ExecContext(ctx, `UPDATE service SET tried_ms = $1 WHERE id IN
		(SELECT id FROM service WHERE id = 1`+db.dialect.skipLocked+`)`, time.Now().UnixMilli())
	return doing("try a write", err)
}
