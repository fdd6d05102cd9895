package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

const smallDirectory, bigDirectory = 10_000, 1_000_000

// arena is a directory behind the service and behind the bare query.
type arena struct {
	size  int
	site  *site
	node  *node
	token string
	bare  *bareLookup

	conn    net.Conn
	answers *bufio.Reader
}

func newArena(b *testing.B, database string, size int) *arena {
	b.Helper()
	fill(b, database, size)
	for _, budget := range []string{"ACCOUNT", "HOMESERVER"} { // counted as always, but never spent
		b.Setenv("IDENTITY_LIMITS_LOOKUP_ADDRESSES_"+budget, "1000000/24h")
	}
	a := &arena{size: size, site: newSite(b, database, ""), bare: newBareLookup(b, database)}
	a.node = a.site.start(b)
	var err error
	if a.token, err = a.node.register(b.Context(), a.site.homeserver, "@bench:"+a.site.homeserver); err != nil {
		b.Fatal(err)
	}
	return a
}

// connect opens a new connection to the service.
func (a *arena) connect(b *testing.B) {
	b.Helper()
	conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", strings.TrimPrefix(a.node.API, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	a.conn, a.answers = conn, bufio.NewReader(conn)
}

// question is one list of hashes, ready for both.
type question struct {
	request []byte // of HTTP
	list    any
	bound   int
}

// questions are enough that few are asked twice in a turn.
func (a *arena) questions(b *testing.B, hashes int) []question {
	b.Helper()
	random := rand.New(rand.NewPCG(uint64(a.size), uint64(hashes)))
	all := make([]question, 200)
	for i := range all {
		list := mixedHashes(random, a.size, hashes)
		body, err := json.Marshal(map[string]any{"algorithm": "sha256", "pepper": firstPepper, "addresses": list})
		if err != nil {
			b.Fatal(err)
		}
		request := fmt.Appendf(nil, "POST /_matrix/identity/v2/lookup HTTP/1.1\r\nHost: is.example.org\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
			a.token, len(body), body)
		all[i] = question{request, a.bare.list(list), (hashes + 1) / 2}
	}
	return all
}

// askService looks up one question with the service, on a connection that is
// kept: the goroutines of Go's client are no part of what the service takes.
func (a *arena) askService(b *testing.B, q question) {
	if _, err := a.conn.Write(q.request); err != nil {
		b.Fatal(err)
	}
	res, err := http.ReadResponse(a.answers, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	answer := make([]byte, res.ContentLength)
	if _, err := io.ReadFull(res.Body, answer); err != nil || res.StatusCode != http.StatusOK {
		b.Fatalf("%s %s %v", res.Status, answer, err)
	}
	if n := bytes.Count(answer, []byte(":example.org")); n != q.bound {
		b.Fatalf("%d of %d found", n, q.bound)
	}
}

// askBare looks up one question with the bare query.
func (a *arena) askBare(b *testing.B, q question) {
	if n := a.bare.find(b, q.list); n != q.bound {
		b.Fatalf("%d of %d found", n, q.bound)
	}
}

// asker asks questions one after the other, by and by all of them.
type asker struct {
	questions []question
	ask       func(*testing.B, question)
	next      int
}

// turn asks for a while and returns the median time of a question in
// microseconds.
func (a *asker) turn(b *testing.B, d time.Duration) float64 {
	b.Helper()
	var took []float64
	for start := time.Now(); time.Since(start) < d || len(took) < 5; {
		begin := time.Now()
		a.ask(b, a.questions[a.next%len(a.questions)])
		took = append(took, float64(time.Since(begin).Nanoseconds())/1000)
		a.next++
	}
	return median(took)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// BenchmarkLookup compares lookups by the service, over HTTP, with the bare
// query, in directories of two sizes and in turns, so that whatever else the
// machine does meets all four. Its metrics, from medians:
//
//	small-us, big-us            a lookup by the service
//	small-ratio, big-ratio      the same divided by the bare query's time
//	growth-ratio                how much slower the service is in the big directory,
//	                            divided by how much slower the bare query is
func BenchmarkLookup(b *testing.B) {
	storetest.EachBench(b, func(b *testing.B, newDatabase func(testing.TB) string) {
		small, big := newArena(b, newDatabase(b), smallDirectory), newArena(b, newDatabase(b), bigDirectory)
		for _, hashes := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("hashes=%d", hashes), func(b *testing.B) {
				for range b.N {
					compare(b, small, big, hashes)
				}
			})
		}
	})
}

func compare(b *testing.B, small, big *arena, hashes int) {
	const rounds, turnTime = 40, 50 * time.Millisecond
	qSmall, qBig := small.questions(b, hashes), big.questions(b, hashes)
	small.connect(b)
	big.connect(b)
	askers := []*asker{
		{questions: qSmall, ask: small.askService}, {questions: qSmall, ask: small.askBare},
		{questions: qBig, ask: big.askService}, {questions: qBig, ask: big.askBare},
	}
	for _, a := range askers { // connections are opened and caches filled
		a.turn(b, 10*turnTime)
	}
	var smallTimes, bigTimes, smallRatios, bigRatios, growth []float64
	for i := range rounds {
		var took [4]float64
		for j := range askers { // nobody is always first
			k := (i + j) % len(askers)
			took[k] = askers[k].turn(b, turnTime)
		}
		smallRatio, bigRatio := took[0]/took[1], took[2]/took[3]
		smallTimes, bigTimes = append(smallTimes, took[0]), append(bigTimes, took[2])
		smallRatios, bigRatios, growth = append(smallRatios, smallRatio), append(bigRatios, bigRatio), append(growth, bigRatio/smallRatio)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(smallTimes), "small-us")
	b.ReportMetric(median(bigTimes), "big-us")
	b.ReportMetric(median(smallRatios), "small-ratio")
	b.ReportMetric(median(bigRatios), "big-ratio")
	b.ReportMetric(median(growth), "growth-ratio")
}

// BenchmarkRequestToken has 32 clients ask for mails to ever new addresses, through
// a relay whose TLS handshake takes 2 ms.
func BenchmarkRequestToken(b *testing.B) {
	relay := threepidtest.NewSMTP(b, threepidtest.SMTPOptions{Handshake: 2 * time.Millisecond})
	b.Setenv("IDENTITY_EMAIL_HOST", relay.Addr)
	storetest.EachBench(b, func(b *testing.B, newDatabase func(testing.TB) string) {
		s := newSite(b, newDatabase(b), "")
		b.Setenv("IDENTITY_CA_FILE", authorities(b, relay.CAFile, s.caFile))
		n := s.start(b)
		token, err := n.register(b.Context(), s.homeserver, "@bench:"+s.homeserver)
		if err != nil {
			b.Fatal(err)
		}
		var asked atomic.Int64
		b.SetParallelism(32 / runtime.GOMAXPROCS(0))
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				body := fmt.Sprintf(`{"client_secret":"secret","email":"bench%d@example.com","send_attempt":1}`, asked.Add(1))
				_, a, err := n.do(b.Context(), http.MethodPost, "/_matrix/identity/v2/validate/email/requestToken", token, body)
				if err != nil || a.status != http.StatusOK {
					b.Errorf("%v, %d %s", err, a.status, a.body)
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	})
}
