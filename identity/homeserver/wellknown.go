package homeserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/matrix-herald/herald/identity"
)

const (
	// maxCached is the number of hosts whose .well-known answer is remembered.
	maxCached = 4096

	maxWellKnownBytes     = 64 << 10
	maxWellKnownRedirects = 5

	defaultLifetime = 24 * time.Hour
	maxLifetime     = 48 * time.Hour
	errorLifetime   = time.Hour
)

// entry is what is known of a host's .well-known file.
type entry struct {
	delegated ServerName // zero: there is no valid file
	expires   time.Time
	answered  bool // an HTTP answer came, whatever it said
}

// wellKnown returns the server name that host delegates to, the zero one if it does
// not. The answer, or the lack of one, comes from the cache where possible. It
// fails with identity.ErrBusy.
func (r *Resolver) wellKnown(ctx context.Context, host string) (ServerName, error) {
	key := strings.ToLower(host)
	e, ok := r.cache.get(key, r.now())
	if !ok {
		var err error
		if e, err = r.fetchWellKnown(ctx, host); err != nil {
			return ServerName{}, err
		}
		// What we broke off ourselves says nothing about the server.
		if ctx.Err() == nil {
			r.cache.put(key, e, e.expires, r.now())
		}
	}
	return e.delegated, nil
}

// unreachable is told that a server could not be reached at the destination
// found for name. Had its .well-known file not been reachable either, the
// failure may be our own network's: it is not held against the server for an
// hour.
func (r *Resolver) unreachable(name ServerName) {
	key := strings.ToLower(name.host)
	if e, ok := r.cache.Peek(key); ok && !e.value.answered {
		r.cache.Remove(key)
	}
}

func (r *Resolver) fetchWellKnown(ctx context.Context, host string) (entry, error) {
	failed := entry{expires: r.now().Add(errorLifetime)}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/.well-known/matrix/server", http.NoBody)
	if err != nil {
		return failed, nil
	}
	resp, err := r.http.DoAt(req, joinHostPort(host, r.wellKnownPort))
	if errors.Is(err, identity.ErrBusy) {
		return entry{}, identity.ErrBusy
	}
	if err != nil {
		return failed, nil
	}
	defer resp.Body.Close()
	fresh := lifetime(resp.Header, r.now())
	failed = entry{expires: r.now().Add(min(fresh, errorLifetime)), answered: true}
	if resp.StatusCode != http.StatusOK {
		return failed, nil
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return failed, nil
	}
	delegated, err := parseWellKnown(body)
	if err != nil {
		return failed, nil
	}
	return entry{delegated: delegated, expires: r.now().Add(fresh), answered: true}, nil
}

// parseWellKnown reads a .well-known/matrix/server file.
func parseWellKnown(body []byte) (ServerName, error) {
	object, err := decodeObject(body)
	if err != nil {
		return ServerName{}, err
	}
	name, err := object.text("m.server")
	if err != nil {
		return ServerName{}, err
	}
	return ParseServerName(name)
}

// object is a JSON object whose member names are compared exactly;
// encoding/json would take "M.Server" for "m.server" in a struct.
type object map[string]json.RawMessage

func decodeObject(body []byte) (object, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("answer is not UTF-8")
	}
	var o object
	if err := json.Unmarshal(body, &o); err != nil || o == nil {
		return nil, errors.New("answer is not a JSON object")
	}
	return o, nil
}

// text returns the string member name. A lone surrogate, which would become
// U+FFFD, is refused: two values must not become one.
func (o object) text(name string) (string, error) {
	var s *string
	if err := json.Unmarshal(o[name], &s); err != nil || s == nil || strings.ContainsRune(*s, utf8.RuneError) {
		return "", fmt.Errorf("answer has no string %s", name)
	}
	return *s, nil
}

// lifetime returns how long an answer with header h may be kept: by
// Cache-Control max-age, else by Expires (RFC 9111, section 4.2), else for the
// recommended 24 hours, and never longer than 48.
func lifetime(h http.Header, now time.Time) time.Duration {
	fresh := defaultLifetime
	if age, ok := maxAge(h); ok {
		fresh = age - seconds(h.Get("Age"))
	} else if expires := h.Get("Expires"); expires != "" {
		until, err := http.ParseTime(expires)
		if err != nil {
			return 0 // "0" and the like mean "already expired"
		}
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		fresh = until.Sub(now)
	}
	return min(max(fresh, 0), maxLifetime)
}

// maxAge reads Cache-Control: the smallest max-age, and 0 when the answer is
// not to be kept.
func maxAge(h http.Header) (age time.Duration, ok bool) {
	age = maxLifetime
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return 0, true
		case "max-age":
			age, ok = min(age, seconds(strings.Trim(value, `"`))), true
		}
	}
	return age, ok
}

// seconds reads a number of seconds. What is not one counts as none, and more
// than the longest lifetime as that.
func seconds(s string) time.Duration {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > int64(maxLifetime/time.Second) {
		return maxLifetime
	}
	return time.Duration(n) * time.Second
}
