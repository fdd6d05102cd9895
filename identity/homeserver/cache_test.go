package homeserver_test

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
)

func TestWellKnownAnswersAreRemembered(t *testing.T) {
	t.Parallel()
	const file = `{"m.server":"b.example:1"}`
	tests := map[string]struct {
		status int
		header map[string]string
		body   string
		want   time.Duration // 0: asked again at once
	}{
		"24 hours by default":                          {200, nil, file, 24 * time.Hour},
		"as long as max-age says":                      {200, map[string]string{"Cache-Control": "public, max-age=600"}, file, 10 * time.Minute},
		"not longer than 48 hours":                     {200, map[string]string{"Cache-Control": "max-age=31536000"}, file, 48 * time.Hour},
		"not at all with no-store":                     {200, map[string]string{"Cache-Control": "no-store"}, file, 0},
		"a missing file for an hour":                   {404, nil, "", time.Hour},
		"a missing file not longer because of max-age": {404, map[string]string{"Cache-Control": "max-age=86400"}, "", time.Hour},
		"a missing file shorter because of max-age":    {404, map[string]string{"Cache-Control": "max-age=60"}, "", time.Minute},
		"a broken file for an hour":                    {200, nil, "<html>", time.Hour},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example")
			w.wellKnown("a.example", func(rw http.ResponseWriter, _ *http.Request) {
				for k, v := range tc.header {
					rw.Header().Set(k, v)
				}
				rw.WriteHeader(tc.status)
				fmt.Fprint(rw, tc.body)
			})
			r := newResolver(t, w.options())
			ask := func(server string, wantFetches int) {
				t.Helper()
				if _, err := r.Resolve(t.Context(), parse(t, server)); err != nil {
					t.Fatal(err)
				}
				if n := w.fetches("a.example"); n != wantFetches {
					t.Fatalf("%d fetches, want %d", n, wantFetches)
				}
			}
			ask("a.example", 1)
			if tc.want == 0 {
				ask("a.example", 2)
				return
			}
			w.advance(tc.want - time.Second)
			ask("A.Example", 1) // DNS folds case, so the file is the same
			w.advance(time.Second)
			ask("a.example", 2)
		})
	}
}

func TestAWellKnownServerThatCannotBeReachedIsRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := w.homeserver(t, "@u:a.example", "a.example")
	w.dns.Host("a.example", "127.0.0.1")
	w.dns.SRV("_matrix-fed._tcp.a.example", net.SRV{Target: "a.example", Port: server.port})
	opts := w.options().WithWellKnownPort(closedPort(t))
	c := newClient(t, opts)
	ask := func() {
		t.Helper()
		if _, err := c.UserInfo(t.Context(), parse(t, "a.example"), token); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	lookups := w.dns.Lookups("a.example", 1)
	ask() // on the same connection
	if n := w.dns.Lookups("a.example", 1); n != lookups {
		t.Errorf("asked again within the hour: %d lookups, then %d", lookups, n)
	}
}

// When nothing can be reached, it may be our own network: the server must be
// asked for its .well-known file again as soon as somebody tries.
func TestAFailureOfEverythingIsNotRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example", "b.example")
	server := w.homeserver(t, "@u:a.example", "b.example")
	down := true
	w.wellKnown("a.example", func(rw http.ResponseWriter, _ *http.Request) {
		if down {
			conn, _, err := http.NewResponseController(rw).Hijack()
			if err != nil { // HTTP/2 has no Hijack
				panic(http.ErrAbortHandler)
			}
			_ = conn.Close()
			return
		}
		fmt.Fprintf(rw, `{"m.server":"b.example:%d"}`, server.port)
	})
	w.dns.SRV("_matrix-fed._tcp.a.example", net.SRV{Target: "a.example", Port: closedPort(t)})
	c := w.client(t)
	_, err := c.UserInfo(t.Context(), parse(t, "a.example"), token)
	wantError(t, err, identity.ErrUnreachable)
	down = false
	if _, err := c.UserInfo(t.Context(), parse(t, "a.example"), token); err != nil {
		t.Errorf("after the network came back: %v", err)
	}
}

func TestLifetime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		header http.Header
		want   time.Duration
	}{
		"without headers":                     {nil, 24 * time.Hour},
		"max-age":                             {http.Header{"Cache-Control": {"max-age=60"}}, time.Minute},
		"max-age in capitals, quoted, spaced": {http.Header{"Cache-Control": {`public , Max-Age="60" `}}, time.Minute},
		"the smaller of two max-ages":         {http.Header{"Cache-Control": {"max-age=60", "max-age=30"}}, 30 * time.Second},
		"max-age less Age":                    {http.Header{"Cache-Control": {"max-age=60"}, "Age": {"20"}}, 40 * time.Second},
		"an Age beyond max-age":               {http.Header{"Cache-Control": {"max-age=60"}, "Age": {"61"}}, 0},
		"a negative Age is ignored":           {http.Header{"Cache-Control": {"max-age=60"}, "Age": {"-10"}}, time.Minute},
		"max-age=0":                           {http.Header{"Cache-Control": {"max-age=0"}}, 0},
		"a negative max-age":                  {http.Header{"Cache-Control": {"max-age=-1"}}, 0},
		"a max-age that is no number":         {http.Header{"Cache-Control": {"max-age=soon"}}, 0},
		"a max-age beyond 64 bits":            {http.Header{"Cache-Control": {"max-age=99999999999999999999999"}}, 48 * time.Hour},
		"no-cache beats max-age":              {http.Header{"Cache-Control": {"max-age=60, no-cache"}}, 0},
		"other directives":                    {http.Header{"Cache-Control": {"private, s-maxage=5, ,=,immutable"}}, 24 * time.Hour},
		"Expires":                             {http.Header{"Expires": {"Sat, 21 Nov 2026 13:00:00 GMT"}}, time.Hour},
		"Expires counts from Date":            {http.Header{"Expires": {"Sat, 21 Nov 2026 13:00:00 GMT"}, "Date": {"Sat, 21 Nov 2026 12:30:00 GMT"}}, 30 * time.Minute},
		"Expires in the past":                 {http.Header{"Expires": {"Sat, 21 Nov 2026 11:00:00 GMT"}}, 0},
		"Expires far ahead":                   {http.Header{"Expires": {"Sat, 21 Nov 2099 11:00:00 GMT"}}, 48 * time.Hour},
		"Expires: 0":                          {http.Header{"Expires": {"0"}}, 0},
		"max-age beats Expires":               {http.Header{"Cache-Control": {"max-age=60"}, "Expires": {"0"}}, time.Minute},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := homeserver.Lifetime(tc.header, now); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func FuzzLifetime(f *testing.F) {
	f.Add("max-age=60", "10", "", "")
	f.Add(`public, max-age="99999999999999999999"`, "-1", "0", "")
	f.Add("no-store,,=", "", "Sat, 21 Nov 2026 13:00:00 GMT", "Sat, 21 Nov 2026 12:30:00 GMT")
	f.Add("", "", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT")
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, cacheControl, age, expires, date string) {
		h := http.Header{"Cache-Control": {cacheControl}, "Age": {age}, "Expires": {expires}, "Date": {date}}
		if got := homeserver.Lifetime(h, now); got < 0 || got > 48*time.Hour {
			t.Errorf("lifetime %v", got)
		}
	})
}

func FuzzParseWellKnown(f *testing.F) {
	for _, s := range []string{`{"m.server":"b.example:1"}`, `{"m.server":null}`, `{"M.Server":"x"}`, `[]`, `{"m.server":"[::1]"}`, "{\"m.server\":\"\xff\"}", `{"m.server":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		name, err := homeserver.ParseWellKnown(body)
		if err != nil {
			return
		}
		if again, err := homeserver.ParseServerName(name.String()); err != nil || again != name {
			t.Errorf("%q gave %q, which is no server name", body, name)
		}
	})
}
