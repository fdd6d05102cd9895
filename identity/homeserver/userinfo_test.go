package homeserver_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/homeserver"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

// Conformance (accounts): `sub` is a user ID of the very server that was asked | else 401 `M_UNAUTHORIZED` (also TestParseUserID, TestRegistrationsThatFail, TestRefusals)
// Conformance (accounts): a refused OpenID token (≠ Sydent: 500) | 401 `M_UNAUTHORIZED` (also TestRefusals)
// Conformance (security): `sub` is a user of the server that was asked (also TestParseUserID)
// Conformance (attacks): passing for a homeserver: another certificate, a `sub` of another server | certificate and name are verified; `sub` has to be of the very server (also TestUserInfoRefusesCertificatesForOtherNames)
func TestUserInfoReadsTheAnswer(t *testing.T) {
	t.Parallel()
	matrixError := func(status int, code string) http.HandlerFunc {
		return answer(status, fmt.Sprintf(`{"errcode":%q,"error":"no"}`, code))
	}
	padded := `{"sub":"@alice:SERVER"}`
	tests := map[string]struct {
		handler http.HandlerFunc
		want    error
	}{
		"an unknown token":                     {matrixError(401, "M_UNKNOWN_TOKEN"), identity.ErrOpenIDRefused},
		"a token that is missed":               {matrixError(401, "M_MISSING_PARAM"), identity.ErrOpenIDRefused},
		"federation denied":                    {matrixError(403, "M_FORBIDDEN"), identity.ErrOpenIDRefused},
		"an unknown token as a bad request":    {matrixError(400, "M_UNKNOWN_TOKEN"), identity.ErrOpenIDRefused},
		"a missing parameter as a bad request": {matrixError(400, "M_MISSING_PARAM"), identity.ErrOpenIDRefused},
		"a bad request of another kind":        {matrixError(400, "M_UNKNOWN"), identity.ErrUnreachable},
		"a 401 page of something else":         {answer(401, "<html>Log in</html>"), identity.ErrUnreachable},
		"a 403 without errcode":                {answer(403, `{"message":"blocked"}`), identity.ErrUnreachable},
		"federation switched off":              {matrixError(404, "M_UNRECOGNIZED"), identity.ErrUnreachable},
		"a rate limit":                         {matrixError(429, "M_LIMIT_EXCEEDED"), identity.ErrUnreachable},
		"a server error":                       {matrixError(500, "M_UNKNOWN"), identity.ErrUnreachable},
		"a gateway error":                      {answer(502, "<html>Bad gateway</html>"), identity.ErrUnreachable},
		"an HTML page":                         {answer(200, "<html>It works!</html>"), identity.ErrUnreachable},
		"nothing":                              {answer(200, ""), identity.ErrUnreachable},
		"no content":                           {func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(204) }, identity.ErrUnreachable},
		"another 2xx":                          {answer(201, padded), identity.ErrUnreachable},
		"null":                                 {answer(200, "null"), identity.ErrUnreachable},
		"no sub":                               {answer(200, "{}"), identity.ErrUnreachable},
		"a sub in another case":                {answer(200, `{"Sub":"@alice:SERVER"}`), identity.ErrUnreachable},
		"a sub that is null":                   {answer(200, `{"sub":null}`), identity.ErrUnreachable},
		"a sub that is a number":               {answer(200, `{"sub":1}`), identity.ErrUnreachable},
		"a sub with half a surrogate pair":     {answer(200, `{"sub":"@\ud800:SERVER"}`), identity.ErrUnreachable},
		"trailing data":                        {answer(200, padded+padded), identity.ErrUnreachable},
		"bytes that are not UTF-8":             {answer(200, "{\"sub\":\"@\xff:SERVER\"}"), identity.ErrUnreachable},
		"more than 5 KiB":                      {answer(200, padded+strings.Repeat(" ", 5<<10)), identity.ErrUnreachable},
		"a redirect": {
			func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, r.URL.String(), http.StatusFound) }, identity.ErrUnreachable,
		},
		"a user of another server":    {answer(200, `{"sub":"@alice:b.example"}`), identity.ErrOpenIDMismatch},
		"a user of a subdomain":       {answer(200, `{"sub":"@alice:x.SERVER"}`), identity.ErrOpenIDMismatch},
		"a user without the port":     {answer(200, `{"sub":"@alice:a.example"}`), identity.ErrOpenIDMismatch},
		"a server in another case":    {answer(200, `{"sub":"@alice:A.SERVER"}`), identity.ErrOpenIDMismatch},
		"a second server in the name": {answer(200, `{"sub":"@alice:b.example:SERVER"}`), identity.ErrOpenIDMismatch},
		"no sigil":                    {answer(200, `{"sub":"alice:SERVER"}`), identity.ErrOpenIDMismatch},
		"an empty sub":                {answer(200, `{"sub":""}`), identity.ErrOpenIDMismatch},
		"a server name as the user":   {answer(200, `{"sub":"SERVER"}`), identity.ErrOpenIDMismatch},
		"a user ID of over 255 bytes": {answer(200, `{"sub":"@`+strings.Repeat("a", 255)+`:SERVER"}`), identity.ErrOpenIDMismatch},
		"a user":                      {answer(200, padded), nil},
		"a user and other members":    {answer(200, `{"x":[{}],"sub":"@alice:SERVER","Sub":"@eve:SERVER"}`), nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example")
			server := w.custom(t, func(rw http.ResponseWriter, r *http.Request) {
				tc.handler(replacing{rw, r.Host}, r)
			}, "a.example")
			serverName := fmt.Sprintf("a.example:%d", server.port)
			got, err := w.client(t).UserInfo(t.Context(), parse(t, serverName), token)
			if tc.want != nil {
				wantError(t, err, tc.want)
				return
			}
			if err != nil || got != "@alice:"+serverName {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// replacing writes the server's name in place of SERVER, in upper case (where
// there are letters) in place of A.SERVER.
type replacing struct {
	http.ResponseWriter
	host string
}

func (r replacing) Write(p []byte) (int, error) {
	s := strings.ReplaceAll(string(p), ":A.SERVER", ":"+strings.ToUpper(r.host))
	_, err := r.ResponseWriter.Write([]byte(strings.ReplaceAll(s, "SERVER", r.host)))
	return len(p), err
}

func TestUserInfoAsksNobodyForAnEmptyToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	_, err := w.client(t).UserInfo(t.Context(), parse(t, "a.example"), "")
	wantError(t, err, identity.ErrOpenIDRefused)
	if n := w.fetches("a.example"); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// FuzzUserInfo lets a homeserver answer with anything. It can vouch for a user of
// its own, or for nobody.
func FuzzUserInfo(f *testing.F) {
	for _, body := range []string{
		`{"sub":"@alice:SERVER"}`, `{"sub":"@alice:b.example"}`, `{"sub":"@a:b:SERVER"}`, `{"sub":"@\ud800:SERVER"}`, `{"sub":1,"sub":"@alice:SERVER"}`,
		`{"errcode":"M_UNKNOWN_TOKEN"}`, ``, `null`, `[]`, `<html>`, "{\"sub\":\"@\xff:SERVER\"}",
	} {
		for _, status := range []uint16{200, 204, 302, 400, 401, 500} {
			f.Add(status, body)
		}
	}
	type said struct {
		status uint16
		body   string
	}
	var saying atomic.Pointer[said]
	ca := safehttptest.NewCA(f)
	srv := ca.Server(f, "127.0.0.1:0", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		s := saying.Load()
		rw.WriteHeader(int(s.status))
		_, _ = rw.Write([]byte(s.body))
	}), "127.0.0.1")
	host := srv.Listener.Addr().String()
	server, err := homeserver.ParseServerName(host)
	if err != nil {
		f.Fatal(err)
	}
	c, err := homeserver.New(homeserver.Options{AllowNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, RootCAs: ca.Pool()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(c.CloseIdleConnections)
	f.Fuzz(func(t *testing.T, status uint16, body string) {
		if status < 200 || status > 999 {
			t.Skip("no status that net/http writes")
		}
		saying.Store(&said{status, strings.ReplaceAll(body, "SERVER", host)})
		user, err := c.UserInfo(t.Context(), server, token)
		switch {
		case err == nil:
			if id, err := homeserver.ParseUserID(user); status != http.StatusOK || err != nil || id.Server() != server {
				t.Errorf("%d %q: %q", status, body, user)
			}
		case !errors.Is(err, identity.ErrOpenIDRefused) && !errors.Is(err, identity.ErrUnreachable) && !errors.Is(err, identity.ErrOpenIDMismatch):
			t.Errorf("%d %q: %v", status, body, err)
		case strings.Contains(err.Error(), token):
			t.Errorf("%d %q: the error tells the token", status, body)
		}
	})
}
