package homeserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/safehttp"
)

const notification = `{"address":"sEcReT@b.example","invites":[],"medium":"email","mxid":"@alice:a.example"}`

// Conformance (federation): the homeserver is found as any other, no redirect is followed, its answer is bounded, and it has its own time (also TestOnBindTriesTheNextSRVTarget, TestOnBindHasATimeoutOfItsOwn, TestOnBindTellsFinalRefusalsFromOthers)
func TestOnBindPostsTheNotification(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example", "b.example")
	type seen struct{ Line, Host, ContentType, Accept, UserAgent, Authorization, Body string }
	var got []seen
	server := w.custom(t, func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = append(got, seen{
			r.Method + " " + r.RequestURI, r.Host, r.Header.Get("Content-Type"), r.Header.Get("Accept"), r.UserAgent(),
			r.Header.Get("Authorization"), string(body),
		})
		fmt.Fprint(rw, "{}")
	}, "b.example")
	w.delegate("a.example", fmt.Sprintf("b.example:%d", server.port))
	if err := w.client(t).OnBind(t.Context(), parse(t, "a.example"), []byte(notification)); err != nil {
		t.Fatal(err)
	}
	want := []seen{{
		"POST /_matrix/federation/v1/3pid/onbind", fmt.Sprintf("b.example:%d", server.port), "application/json", "application/json",
		"Herald/test", "", notification,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestOnBindTellsFinalRefusalsFromOthers(t *testing.T) {
	t.Parallel()
	matrixError := func(status int, code string) http.HandlerFunc {
		return answer(status, fmt.Sprintf(`{"errcode":%q,"error":"sEcReT@b.example"}`, code))
	}
	later := func(status int, after string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Retry-After", after)
			matrixError(status, "M_LIMIT_EXCEEDED")(rw, r)
		}
	}
	final := func(_ int, code string) string { return "homeserver refused for good: " + code }
	retry := func(status int) string { return fmt.Sprintf("after 0s: homeserver answered %d", status) }
	retryAfter := func(status int, after time.Duration) string {
		return fmt.Sprintf("after %v: homeserver answered %d", after, status)
	}
	tests := map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"200":                                   {answer(200, "{}"), "<nil>"},
		"200 without a body":                    {answer(200, ""), "<nil>"},
		"201":                                   {answer(201, "{}"), retry(201)},
		"204":                                   {func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(204) }, retry(204)},
		"400 with an errcode":                   {matrixError(400, "M_UNSUPPORTED_ROOM_VERSION"), final(400, "M_UNSUPPORTED_ROOM_VERSION")},
		"403 with an errcode":                   {matrixError(403, "M_FORBIDDEN"), final(403, "M_FORBIDDEN")},
		"404 with an errcode":                   {matrixError(404, "M_NOT_FOUND"), final(404, "M_NOT_FOUND")},
		"an errcode of somebody's own":          {matrixError(400, "org.example.no-rooms_1"), final(400, "org.example.no-rooms_1")},
		"an endpoint that is not there":         {matrixError(404, "M_UNRECOGNIZED"), retry(404)},
		"a method that is not there":            {matrixError(405, "M_UNRECOGNIZED"), retry(405)},
		"a rate limit":                          {matrixError(429, "M_LIMIT_EXCEEDED"), retry(429)},
		"a rate limit in seconds":               {later(429, "120"), retryAfter(429, 2*time.Minute)},
		"a rate limit until a time":             {later(429, "Sat, 21 Nov 2026 12:05:00 GMT"), retryAfter(429, 5*time.Minute)},
		"a rate limit until a time in the past": {later(429, "Sat, 21 Nov 2026 11:05:00 GMT"), retry(429)},
		"a rate limit of years":                 {later(429, "99999999999999999999"), retry(429)},
		"a rate limit that makes no sense":      {later(429, "-5"), retry(429)},
		"maintenance for a while":               {later(503, "60"), retryAfter(503, time.Minute)},
		"4xx without a body":                    {answer(404, ""), retry(404)},
		"4xx with a page":                       {answer(403, "<html>sEcReT</html>"), retry(403)},
		"4xx with another object":               {answer(400, `{"Err":"sEcReT"}`), retry(400)},
		"4xx with an empty errcode":             {answer(400, `{"errcode":""}`), retry(400)},
		"4xx with errcode in another case":      {answer(400, `{"Errcode":"M_FORBIDDEN"}`), retry(400)},
		"4xx with an errcode that is a number":  {answer(400, `{"errcode":1}`), retry(400)},
		"4xx with an address for an errcode":    {matrixError(400, "sEcReT@b.example"), retry(400)},
		"4xx with a long errcode":               {matrixError(400, "M_"+strings.Repeat("A", 63)), retry(400)},
		"4xx with two documents":                {answer(400, `{"errcode":"M_FORBIDDEN"}{}`), retry(400)},
		"500 as Dendrite sends it":              {answer(500, `{"Err":"sEcReT"}`), retry(500)},
		"5xx with an errcode":                   {matrixError(500, "M_FORBIDDEN"), retry(500)},
		"a gateway error":                       {answer(502, "<html>Bad gateway</html>"), retry(502)},
		"a redirect with an errcode": {func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Location", r.URL.String())
			matrixError(307, "M_FORBIDDEN")(rw, r)
		}, retry(307)},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example")
			server := w.custom(t, tc.handler, "a.example")
			err := w.client(t).OnBind(t.Context(), parse(t, fmt.Sprintf("a.example:%d", server.port)), []byte(notification))
			got := fmt.Sprint(err)
			if later, ok := errors.AsType[*identity.LaterError](err); ok {
				got = fmt.Sprintf("after %v: %v", later.After, later.Err)
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if err != nil && strings.Contains(fmt.Sprintf("%+v", err), "sEcReT") {
				t.Errorf("the error tells more than it should: %+v", err)
			}
			if n := len(server.requests()); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestOnBindWithoutAnAnswerMayBeRetried(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		handler http.HandlerFunc
		change  func(*homeserver.Options)
		want    error
	}{
		"a server that hangs": {
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			func(o *homeserver.Options) { o.OnBindTimeout = 200 * time.Millisecond }, context.DeadlineExceeded,
		},
		"a server that breaks off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil, identity.ErrUnreachable},
		"an answer of more than 64 KiB": {
			answer(200, strings.Repeat(" ", 64<<10+1)), nil, safehttp.ErrTooLarge,
		},
		"a refusal of more than 64 KiB": {
			answer(400, `{"errcode":"M_FORBIDDEN"}`+strings.Repeat(" ", 64<<10)), nil, safehttp.ErrTooLarge,
		},
		"an endless answer": {
			func(rw http.ResponseWriter, _ *http.Request) {
				for {
					if _, err := rw.Write(make([]byte, 4<<10)); err != nil {
						return
					}
				}
			}, nil, safehttp.ErrTooLarge,
		},
		"a private address": {answer(200, "{}"), func(o *homeserver.Options) { o.AllowNets = nil }, safehttp.ErrBlocked},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example")
			server := w.custom(t, tc.handler, "a.example")
			opts := w.options()
			if tc.change != nil {
				tc.change(&opts)
			}
			err := newClient(t, opts).OnBind(t.Context(), parse(t, fmt.Sprintf("a.example:%d", server.port)), []byte(notification))
			wantRetry(t, err, tc.want)
		})
	}
}

// wantRetry fails unless err is an identity.LaterError without an answer, whose text
// is the same for all reasons, with identity.ErrUnreachable and reason behind it.
func wantRetry(t *testing.T, err, reason error) {
	t.Helper()
	if later, ok := errors.AsType[*identity.LaterError](err); !ok || later.After != 0 {
		t.Fatalf("got %#v", err)
	}
	if !errors.Is(err, identity.ErrUnreachable) || !errors.Is(err, reason) {
		t.Errorf("%v cannot be found behind the error", reason)
	}
	if want := identity.ErrUnreachable.Error(); err.Error() != want {
		t.Errorf("the text tells more than it should: %q", err)
	}
}

// A homeserver joins rooms before it answers, which takes longer than to say who
// a token belongs to.
func TestOnBindHasATimeoutOfItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	opts := w.options()
	opts.Timeout, opts.OnBindTimeout = 200*time.Millisecond, time.Minute
	c := newClient(t, opts)
	arrived, release := make(chan struct{}), make(chan struct{})
	server := w.custom(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			<-r.Context().Done()
			return
		}
		close(arrived)
		<-release
		fmt.Fprint(rw, "{}")
	}, "a.example")
	name := parse(t, fmt.Sprintf("a.example:%d", server.port))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.OnBind(t.Context(), name, []byte(notification)); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	// What begins now and runs out of time does so after OnBind would have, were
	// its time the same.
	_, err := c.UserInfo(t.Context(), name, token)
	wantError(t, err, identity.ErrUnreachable)
	close(release)
	wg.Wait()
}

func TestOnBindEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	ctx, cancel := context.WithCancel(t.Context())
	server := w.custom(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}, "a.example")
	err := w.client(t).OnBind(ctx, parse(t, fmt.Sprintf("a.example:%d", server.port)), []byte(notification))
	wantRetry(t, err, context.Canceled)
}

func TestOnBindTriesTheNextSRVTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	var body []byte
	server := w.custom(t, func(rw http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		fmt.Fprint(rw, "{}")
	}, "a.example")
	w.dns.SRV("_matrix-fed._tcp.a.example",
		net.SRV{Target: "a.example", Port: closedPort(t), Priority: 1},
		net.SRV{Target: "a.example", Port: server.port, Priority: 2})
	if err := w.client(t).OnBind(t.Context(), parse(t, "a.example"), []byte(notification)); err != nil || string(body) != notification {
		t.Errorf("got %q, %v", body, err)
	}
}

func FuzzErrcode(f *testing.F) {
	for _, s := range []string{`{"errcode":"M_FORBIDDEN"}`, `{"errcode":"\ud800"}`, `{"errcode":"a b"}`, `{"Errcode":"M_X"}`, `[]`, ``, "{\"errcode\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
		if code := homeserver.Errcode(body); len(code) > 64 || strings.Trim(code, allowed) != "" {
			t.Errorf("%q gave %q", body, code)
		}
	})
}
