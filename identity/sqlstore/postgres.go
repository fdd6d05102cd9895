package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// How long a process that is frozen or cut off may hold the others up.
const (
	// idleInTransaction is for how long PostgreSQL keeps a transaction whose
	// process asks for nothing. lockWait is for how long a statement waits for one
	// lock, also when we are no longer there to wait with it.
	idleInTransaction, lockWait = 2 * time.Second, 2500 * time.Millisecond
	// silence is for how long either side of a connection waits for a sign of the
	// other, and we for a new connection.
	silence = 10 * time.Second
)

func openPostgres(ctx context.Context, o Options) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, errors.New("the URL is not one of PostgreSQL") // err may quote the password
	}
	cfg.ConnConfig.Tracer = o.tracer
	if o.TracerProvider != nil {
		cfg.ConnConfig.Tracer = otelpgx.NewTracer(otelpgx.WithTracerProvider(o.TracerProvider))
	}
	dialer := &net.Dialer{
		Timeout:         silence,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence / 2, Interval: silence / 10, Count: 5},
		Control:         endSilence,
	}
	cfg.ConnConfig.DialFunc = dialer.DialContext
	cfg.ConnConfig.ConnectTimeout = silence
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, settings()+useIndexes)
		return err
	}
	cfg.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool {
		return p.IdleDuration > time.Second || !quiet(p.Conn.PgConn().Conn())
	}
	cfg.PingTimeout = silence / 5
	reading := cfg.Copy()
	reading.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, settings()+useIndexes+planOnce)
		return err
	}
	write, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	read, err := pgxpool.NewWithConfig(ctx, reading)
	if err != nil {
		write.Close()
		return nil, err
	}
	db := &DB{dialect: postgres(), read: pool{DB: stdlib.OpenDBFromPool(read)}, write: pool{stdlib.OpenDBFromPool(write), writeTime, "", new(atomic.Int64)}}
	db.jobs = pool{db.write.DB, jobTime, "", db.write.succeeded}
	db.closers = []func() error{
		db.read.Close, db.write.Close,
		func() error { read.Close(); write.Close(); return nil },
	}
	return db, nil
}

// settings are for each connection. A pooler between us and PostgreSQL would
// refuse them as parameters of the connection.
func settings() string {
	return fmt.Sprintf(`SET idle_in_transaction_session_timeout = %d; SET lock_timeout = %d;
		SET tcp_keepalives_idle = %d; SET tcp_keepalives_interval = %d; SET tcp_keepalives_count = 5; SET tcp_user_timeout = %d;`,
		idleInTransaction.Milliseconds(), lockWait.Milliseconds(),
		int(silence.Seconds()/2), int(silence.Seconds()/10), silence.Milliseconds())
}

// useIndexes makes PostgreSQL use the indexes there are. What it knows of a table
// may be old, and reading all of one that was small then would go on after an
// import has made it large.
const useIndexes = `SET enable_seqscan = off;`

// planOnce makes a connection plan each statement once and not for the values at
// hand. Looking at a thousand digests to find out that they are in an index takes
// as long as finding them there. The statements that write are planned for their
// values: the batches of a rotation are small parts of large tables.
const planOnce = `SET plan_cache_mode = force_generic_plan;`

// endSilence makes a connection end when what was sent on it is not acknowledged:
// keepalives are sent only while nothing else is.
func endSilence(network, _ string, conn syscall.RawConn) error {
	if network == "unix" || runtime.GOOS != "linux" {
		return nil
	}
	const tcpUserTimeout = 18
	var set error
	err := conn.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(silence.Milliseconds()))
	})
	return errors.Join(err, set)
}

// quiet reports whether nothing has arrived on a connection that nobody uses. What
// arrives there is its end, or that it is about to end, and then a statement must
// not begin on it.
func quiet(conn net.Conn) bool {
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = over.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var peeked error
	err = raw.Control(func(fd uintptr) { // and not Read: pgx may be waiting in one
		_, _, peeked = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && errors.Is(peeked, syscall.EAGAIN)
}
