package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/crowdtest"
)

// TestTenThousandIdleConnections has nothing to say about time: every request
// that is made beside them, on connections old and new, is answered.
func TestTenThousandIdleConnections(t *testing.T) { // not parallel: others would wait for the machine
	n := newSite(t, storetest.SQLite(t), "").start(t)
	fresh := *n
	fresh.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func() {
		t.Helper()
		for range 5 {
			for how, through := range map[string]*node{"kept": n, "new": &fresh} {
				if err := through.versions(t); err != nil {
					t.Fatalf("on a %s connection: %v", how, err)
				}
			}
		}
	}
	crowd := crowdtest.Start(t, crowdtest.Options{
		Addr: strings.TrimPrefix(n.url, "http://"), Manners: crowdtest.Silent, Count: 10_000, EveryMillis: 1000,
	})
	ask()
	if report := crowd.Stop(t); report.Open == 0 {
		t.Error("nobody was there")
	}
	ask()
}

// versions asks for what costs the service least.
func (n *node) versions(t testing.TB) error {
	_, a, err := n.do(t.Context(), http.MethodGet, "/_matrix/identity/versions", "", "")
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("%d %s", a.status, a.body)
	}
	return err
}

// BenchmarkHostileClients looks up addresses while ten thousand clients of each
// kind of bad manners are connected, over a connection that is kept and over a
// new one each time.
func BenchmarkHostileClients(b *testing.B) {
	s := newSite(b, storetest.SQLite(b), "")
	n := s.start(b)
	token, err := n.register(b.Context(), s.homeserver, "@alice:"+s.homeserver)
	if err != nil {
		b.Fatal(err)
	}
	pepper, err := n.pepper(b.Context(), token)
	if err != nil {
		b.Fatal(err)
	}
	var hashes []string
	for i := range 100 {
		hashes = append(hashes, hash(filledAddress(i), "email", pepper))
	}
	fresh := *n
	fresh.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	lookup := func(n *node) func() error {
		return func() error {
			_, err := n.lookup(b.Context(), token, "sha256", pepper, hashes)
			return err
		}
	}
	crowdtest.Compare(b, crowdtest.Options{
		Addr: strings.TrimPrefix(n.url, "http://"), Path: "/_matrix/identity/v2/lookup", Count: 10_000, EveryMillis: 1000,
	}, 3*time.Second, map[string]func() error{"kept": lookup(n), "new": lookup(&fresh)})
}
