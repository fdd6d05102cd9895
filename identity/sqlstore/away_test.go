package sqlstore_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	neturl "net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid"
)

// frozen starts a way to the server of a database that stops to carry anything
// once a client sends text, as if its process were frozen or its network cut, and
// closes nothing. It returns the URL by the way and a channel closed then.
func frozen(t *testing.T, url, text string) (through string, stopped chan struct{}) {
	t.Helper()
	stopped = make(chan struct{})
	var stop atomic.Bool
	return way(t, url, func(data []byte, fromClient bool) (carry, cut bool) {
		if fromClient && bytes.Contains(data, []byte(text)) && !stop.Swap(true) {
			close(stopped)
		}
		return !stop.Load(), false
	}), stopped
}

// way starts a way to the server of a database and returns the URL by it. What
// goes over it is carried, or the connection is cut, as look says.
func way(t *testing.T, url string, look func(data []byte, fromClient bool) (carry, cut bool)) string {
	t.Helper()
	u, err := neturl.Parse(url)
	check(t, err)
	server := u.Host
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	var conns sync.WaitGroup
	t.Cleanup(conns.Wait)
	carry := func(from, to net.Conn, fromClient bool) {
		data := make([]byte, 1<<16)
		for {
			n, err := from.Read(data)
			if err != nil {
				return
			}
			carry, cut := look(data[:n], fromClient)
			if cut {
				from.Close()
				to.Close()
				return
			}
			if carry {
				if _, err := to.Write(data[:n]); err != nil {
					return
				}
			}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			backend, err := new(net.Dialer).DialContext(t.Context(), "tcp", server)
			if err != nil {
				client.Close()
				return
			}
			t.Cleanup(func() { client.Close(); backend.Close() })
			conns.Go(func() { carry(client, backend, true) })
			conns.Go(func() { carry(backend, client, false) })
		}
	}()
	u.Host = l.Addr().String()
	return u.String()
}

func mail(address, user string) identity.Binding {
	return identity.Binding{ID: threepid.ID{Medium: threepid.MediumEmail, Address: address}, UserID: user, TS: then}
}

// TestAFrozenReplicaHoldsTheOthersUpForSeconds has one that does not go on in the
// middle of a write while it holds the lock of the directory.
func TestAFrozenReplicaHoldsTheOthersUpForSeconds(t *testing.T) {
	t.Parallel()
	storetest.NeedServer(t)
	url := storetest.PostgreSQL(t)
	other := open(t, url)
	through, stopped := frozen(t, url, "INSERT INTO bindings")
	ctx, cancel := context.WithCancel(t.Context())
	replica := open(t, through)
	ended := make(chan error, 1)
	go func() { ended <- replica.Bind(ctx, mail("a@example.com", "@a:example.org")) }()
	<-stopped
	begun := time.Now()
	if err := other.Bind(t.Context(), mail("b@example.com", "@b:example.org")); err != nil {
		t.Errorf("beside the frozen one: %v", err)
	}
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("a bind took %v", took)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("the frozen one has bound")
	}
	if n, err := other.Bindings(t.Context()); n != 1 || err != nil {
		t.Errorf("%d bindings, %v", n, err)
	}
}

// TestALockIsWaitedForSeconds has somebody hold the lock who does not let go.
func TestALockIsWaitedForSeconds(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url := newDatabase(t)
		db := open(t, url)
		check(t, db.ClaimServerName(t.Context(), "id.example.org", named))
		holder, err := direct(t, url).Conn(t.Context())
		check(t, err)
		defer holder.Close()
		for _, statement := range []string{"BEGIN", "UPDATE directory SET bindings = bindings"} {
			_, err := holder.ExecContext(t.Context(), statement)
			check(t, err)
		}
		const many = 12 // more than there are connections
		errs := make(chan error, many)
		begun := time.Now()
		for range many {
			go func() { errs <- db.Bind(t.Context(), mail("a@example.com", "@a:example.org")) }()
		}
		for range many {
			err := <-errs
			if reason, ok := errors.AsType[*identity.UnavailableError](err); !ok || !errors.Is(err, identity.ErrUnavailable) {
				t.Errorf("got %v", err)
			} else if !slices.Contains([]string{"another process has locked it", "all its connections are in use"}, reason.Reason) {
				t.Errorf("reason %q", reason.Reason)
			}
		}
		if took := time.Since(begun); took > 8*time.Second { // 5 to 7.5, with both locks of a row
			t.Errorf("they waited for %v", took)
		}
	})
}

// TestConnectionsThatTheServerEndedAreNotUsed restarts, as far as clients can
// tell, a server that they have just used.
func TestConnectionsThatTheServerEndedAreNotUsed(t *testing.T) {
	t.Parallel()
	storetest.NeedServer(t)
	url := storetest.PostgreSQL(t)
	db, admin := open(t, url), direct(t, url)
	check(t, db.ClaimServerName(t.Context(), "id.example.org", named))
	for range 10 {
		crowd(t, func() error { return db.Try(t.Context()) })()
		crowd(t, func() error { _, err := db.Bindings(t.Context()); return err })()
		var ended int
		// With a timeout the function returns once the others have ended.
		check(t, admin.QueryRowContext(t.Context(), `SELECT COUNT(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&ended))
		if ended == 0 {
			t.Fatal("nobody was connected")
		}
		if err := db.Try(t.Context()); err != nil {
			t.Errorf("a write: %v", err)
		}
		if _, err := db.Bindings(t.Context()); err != nil {
			t.Errorf("a query: %v", err)
		}
	}
}

// TestWhatWasNotBegunIsTriedOnAFreshConnection cuts connections, as poolers do,
// when a transaction is about to begin on them: once, and then each time.
func TestWhatWasNotBegunIsTriedOnAFreshConnection(t *testing.T) {
	t.Parallel()
	storetest.NeedServer(t)
	var cuts atomic.Int32
	db := open(t, way(t, storetest.PostgreSQL(t), func(data []byte, fromClient bool) (carry, cut bool) {
		return true, fromClient && bytes.Contains(data, []byte("begin")) && cuts.Add(-1) >= 0
	}))
	check(t, db.Bind(t.Context(), mail("a@example.com", "@a:example.org")))
	cuts.Store(1)
	check(t, db.Bind(t.Context(), mail("b@example.com", "@b:example.org")))
	cuts.Store(100)
	if err := db.Bind(t.Context(), mail("c@example.com", "@c:example.org")); !errors.Is(err, identity.ErrUnavailable) || cuts.Load() != 98 {
		t.Errorf("after %d tries: %v", 100-cuts.Load(), err)
	}
	if n, err := db.Bindings(t.Context()); n != 2 || err != nil {
		t.Errorf("%d bindings, %v", n, err)
	}
}

// TestTryTellsWhatIsWrong tries databases that can be read and not written to.
func TestTryTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) string) {
		url := newDatabase(t)
		db := open(t, url)
		check(t, db.ClaimServerName(t.Context(), "id.example.org", named))
		check(t, db.Try(t.Context()))
		if strings.HasPrefix(url, "sqlite:") {
			file := direct(t, url)
			_, err := file.ExecContext(t.Context(), "CREATE TRIGGER full BEFORE UPDATE ON service BEGIN SELECT RAISE(FAIL, 'no'); END")
			check(t, err)
			if err := db.Try(t.Context()); err == nil {
				t.Error("a write that fails was not tried")
			}
			_, err = file.ExecContext(t.Context(), "DROP TRIGGER full; PRAGMA wal_checkpoint(TRUNCATE)")
			check(t, err)
			content, err := os.OpenFile(strings.TrimPrefix(url, "sqlite:"), os.O_RDWR, 0)
			check(t, err)
			_, err = content.WriteAt(bytes.Repeat([]byte{7}, 4096), 0)
			check(t, errors.Join(err, content.Close()))
			err = db.Try(t.Context())
			if reason, ok := errors.AsType[*identity.UnavailableError](err); !ok || reason.Reason != "its file is damaged" {
				t.Errorf("of a damaged file: %v", err)
			}
			return
		}
		readOnly := open(t, url+"&default_transaction_read_only=on") // as after a failover
		err := readOnly.Try(t.Context())
		if reason, ok := errors.AsType[*identity.UnavailableError](err); !ok || reason.Reason != "it cannot be written to" {
			t.Errorf("got %v", err)
		}
	})
}
