package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	driversqlite "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/matrix-herald/herald/identity"
)

// How long a write waits for a connection, and in SQLite for the lock: writeTime for
// one that a client waits for, and jobTime for a step of an operator's command or of a
// rotation, and for what would else be done again. While other writes succeed nobody
// holds a lock for good, and a crowd of writes may take jobTime, too. PostgreSQL's
// locks are waited for as its settings say, and a deadline would cost a connection.
const (
	writeTime = 2500 * time.Millisecond
	jobTime   = 20 * time.Second
)

// pool is the connections that read, or those that write. What it returns is an
// *identity.UnavailableError while the database is away, locked or full.
type pool struct {
	*sql.DB
	most time.Duration // to wait for a connection that writes
	// patience says for how many milliseconds locks are waited for, where the end of
	// a context does not end that.
	patience string
	// succeeded is when a write last did, in nanoseconds.
	succeeded *atomic.Int64
}

// ExecContext runs a statement that writes.
func (p pool) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	var r sql.Result
	err := p.with(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		r, err = conn.ExecContext(ctx, query, args...)
		return err
	})
	return r, err
}

// QueryContext runs a statement that reads.
func (p pool) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := p.DB.QueryContext(ctx, query, args...)
	return rows, unavailable(err)
}

// QueryRowContext runs a statement that reads one row.
func (p pool) QueryRowContext(ctx context.Context, query string, args ...any) row {
	return row{p.DB.QueryRowContext(ctx, query, args...)}
}

// row is what QueryRowContext returns.
type row struct{ *sql.Row }

// scanner is a row of a pool or of a transaction.
type scanner interface{ Scan(to ...any) error }

// Scan copies the columns of the row.
func (r row) Scan(to ...any) error { return unavailable(r.Row.Scan(to...)) }

// tx runs f in one transaction, which is rolled back if f returns an error.
func (p pool) tx(ctx context.Context, f func(context.Context, *sql.Tx) error) error {
	return p.with(ctx, func(ctx context.Context, conn *sql.Conn) error {
		tx, err := conn.BeginTx(ctx, nil)
		if lostConnection(err) {
			return errors.Join(errNotBegun, err)
		}
		if err != nil {
			return err
		}
		if err := f(ctx, tx); err != nil {
			if e := tx.Rollback(); e != nil && !errors.Is(e, sql.ErrTxDone) {
				err = errors.Join(err, e)
			}
			return err
		}
		return tx.Commit()
	})
}

// errNotBegun says that a connection was lost before anything was written.
var errNotBegun = errors.New("nothing was begun")

// with runs f, which writes, on one of the connections and with the time that a
// write has; and once more on another connection after errNotBegun.
func (p pool) with(ctx context.Context, f func(context.Context, *sql.Conn) error) error {
	begun := time.Now()
	err := p.once(ctx, begun, f)
	if errors.Is(err, errNotBegun) {
		err = p.once(ctx, begun, f)
	}
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return &identity.UnavailableError{Reason: "all its connections are in use", Err: err}
	}
	return unavailable(err)
}

func (p pool) once(ctx context.Context, begun time.Time, f func(context.Context, *sql.Conn) error) error {
	conn, err := p.conn(ctx, begun)
	if err != nil {
		return err
	}
	defer conn.Close()
	if p.patience != "" {
		left := time.Until(begun.Add(max(2*writeTime, p.most))) // nobody waits for a second lock
		if _, err := conn.ExecContext(ctx, fmt.Sprintf(p.patience, max(left, writeTime).Milliseconds())); err != nil {
			return err
		}
	}
	if err := f(ctx, conn); err != nil {
		return err
	}
	p.succeeded.Store(time.Now().UnixNano())
	return nil
}

// conn waits for a connection.
func (p pool) conn(ctx context.Context, begun time.Time) (*sql.Conn, error) {
	for {
		end := p.end(begun)
		within, cancel := context.WithDeadline(ctx, end)
		conn, err := p.Conn(within)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) || !p.end(begun).After(end) {
			return conn, err
		}
	}
}

// end is when a write that began at begun gives up waiting for a connection.
func (p pool) end(begun time.Time) time.Time {
	end, last := begun.Add(p.most), begun.Add(jobTime)
	if later := time.Unix(0, p.succeeded.Load()).Add(p.most); later.After(end) {
		end = later
	}
	if end.After(last) {
		return last
	}
	return end
}

// unavailable returns an *identity.UnavailableError for an error that says
// nothing about the statement, but that the database cannot serve it now, and
// any other error as it is.
func unavailable(err error) error {
	if _, ok := errors.AsType[*identity.UnavailableError](err); ok || err == nil ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	reason := ""
	if e, ok := errors.AsType[*driversqlite.Error](err); ok {
		reason = sqliteReason(e.Code())
	} else if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		reason = postgresReason(e.Code)
	} else if lostConnection(err) {
		reason = "it cannot be reached"
	}
	if reason == "" {
		return err
	}
	return &identity.UnavailableError{Reason: reason, Err: err}
}

func sqliteReason(code int) string {
	const primary = 0xff
	switch code & primary {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return "another process has locked it"
	case sqlite3.SQLITE_FULL:
		return "the disk is full"
	case sqlite3.SQLITE_READONLY:
		return "it cannot be written to"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return "its file is damaged"
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		return "its file cannot be read or written"
	}
	return ""
}

// postgresReason knows the codes of PostgreSQL's appendix A, "Error Codes".
func postgresReason(code string) string {
	switch code {
	case "55P03", "40P01", "40001":
		return "another process has locked it"
	case "53100":
		return "the disk is full"
	case "25006":
		return "it cannot be written to"
	case "25P03", "57P05":
		return "a transaction took too long"
	}
	switch code[:min(2, len(code))] {
	case "53":
		return "it is overloaded"
	case "57", "08":
		return "it is being restarted"
	case "58":
		return "its files cannot be read or written"
	}
	return ""
}

func lostConnection(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	for _, lost := range []error{pgconn.ErrConnClosed, io.EOF, io.ErrUnexpectedEOF, driver.ErrBadConn} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

// doing says what was being done when err came, if it came.
func doing(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
}
