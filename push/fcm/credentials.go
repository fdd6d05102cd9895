package fcm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	gojwt "github.com/golang-jwt/jwt/v4"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
)

const (
	// googleTokenURL exchanges a service account's assertion for an access
	// token.
	googleTokenURL = "https://oauth2.googleapis.com/token"
	scope          = "https://www.googleapis.com/auth/firebase.messaging"
	// tokenMargin is how long before its end an access token is renewed, a
	// quarter of its life at most.
	tokenMargin  = 5 * time.Minute
	maxTokenLife = 24 * time.Hour
	// tokenMinAge is how old a token must be before FCM's refusal of it leads
	// to a new one.
	tokenMinAge = time.Minute
	// The backoff between failed token requests starts with Options.TokenRetry
	// and doubles up to maxTokenRetry. For a refused account it starts higher,
	// because only an operator can mend that.
	maxTokenRetry       = 5 * time.Minute
	refusedRetryFactor  = 30
	maxTokenDescription = 200 // bytes
)

// account is a service account's key, the file that Firebase's console hands
// out.
type account struct {
	id        string // the same for the same account; shows nothing of it
	projectID string
	jwt       jwt.Config
}

// parseAccount reads the key file's text. Its faults go to p and never quote
// the text. ownEndpoint says that the app talks to another host than Google's,
// which then has its own token URL.
func parseAccount(path, text string, ownEndpoint bool, p *conf.Problems) account {
	var file struct {
		Type       string `json:"type"`
		ProjectID  string `json:"project_id"`
		Email      string `json:"client_email"`
		KeyID      string `json:"private_key_id"`
		PrivateKey string `json:"private_key"`
		TokenURL   string `json:"token_uri"`
	}
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		p.Add(path, nil, "is not the JSON key of a service account; create one in Firebase's console, "+
			"Project settings, Service accounts")
		return account{}
	}
	if file.Type != "service_account" {
		p.Add(path+": type", file.Type, `must be "service_account"; other Google credentials cannot send messages on their own`)
	}
	if file.Email == "" {
		p.Add(path+": client_email", nil, "is missing; use the key file as Firebase's console made it")
	}
	if !ownEndpoint && file.TokenURL != googleTokenURL {
		p.Add(path+": token_uri", file.TokenURL, "must be "+googleTokenURL+
			": whoever answers there receives proofs of this account; another one needs the option endpoint")
	}
	if u, err := url.Parse(file.TokenURL); ownEndpoint && (err != nil || u.Scheme != "https" || u.Host == "") {
		p.Add(path+": token_uri", file.TokenURL, "must be an https URL")
	}
	if _, err := gojwt.ParseRSAPrivateKeyFromPEM([]byte(file.PrivateKey)); err != nil {
		p.Add(path+": private_key", nil, "is not an RSA key in PEM; use the key file as Firebase's console made it")
	}
	return account{
		id:        push.Fingerprint(strings.Join([]string{file.Email, file.KeyID, file.TokenURL, file.PrivateKey}, "\n")),
		projectID: file.ProjectID,
		jwt: jwt.Config{
			Email: file.Email, PrivateKey: []byte(file.PrivateKey), PrivateKeyID: file.KeyID,
			Scopes: []string{scope}, TokenURL: file.TokenURL,
		},
	}
}

// tokens keeps one service account's access token fresh. x/oauth2 makes the
// requests. Its own cache is not used: with that all pushes would wait in line,
// each for a request of its own and beyond its deadline, while the token
// endpoint does not answer.
type tokens struct {
	account   jwt.Config
	transport http.RoundTripper
	timeout   time.Duration // of one request
	retry     time.Duration // the first backoff
	log       *slog.Logger
	now       func() time.Time
	requests  sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	cancel   context.CancelFunc
	fetching chan struct{} // closed with the end of the request under way; nil without one
	value    string
	fetched  time.Time
	expires  time.Time
	dueAt    time.Time   // no further request before
	failure  *tokenError // of the last request, nil after a good one
	failures int         // requests that failed in a row
}

var errStopped = errors.New("the provider is closed")

// get returns a valid access token. Without one it waits for the request that
// is under way; in the backoff after a failed one it returns that failure, a
// *tokenError, at once.
func (t *tokens) get(ctx context.Context) (string, error) {
	for {
		t.mu.Lock()
		t.fetchIfDue()
		closed, value, valid := t.closed, t.value, t.now().Before(t.expires)
		fetching, failure := t.fetching, t.failure
		t.mu.Unlock()
		switch {
		case closed:
			return "", errStopped
		case valid:
			return value, nil
		case fetching == nil:
			return "", failure
		}
		select {
		case <-fetching:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for an access token: %w", context.Cause(ctx))
		}
	}
}

// prefetch asks for a token before the first push needs it.
func (t *tokens) prefetch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fetchIfDue()
}

// fetchIfDue starts a request if one is due. The mutex is held.
func (t *tokens) fetchIfDue() {
	if t.closed || t.fetching != nil || t.now().Before(t.dueAt) {
		return
	}
	// The token is for all pushes, not for the one that found it missing.
	ctx, cancel := context.WithTimeoutCause(context.Background(), t.timeout, errTokenTimeout)
	t.cancel, t.fetching = cancel, make(chan struct{})
	t.requests.Go(func() {
		defer cancel()
		t.fetch(ctx)
	})
}

// refused is told that FCM does not take value. It is given up, unless it is so
// new that another one would fare no better.
func (t *tokens) refused(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if value == t.value && t.now().Sub(t.fetched) >= tokenMinAge {
		t.expires, t.dueAt = time.Time{}, time.Time{}
	}
}

// close ends the request under way and waits for it.
func (t *tokens) close() {
	t.mu.Lock()
	t.closed = true
	if t.fetching != nil {
		t.cancel()
	}
	t.mu.Unlock()
	t.requests.Wait()
}

// fetch makes one request and keeps what comes of it.
func (t *tokens) fetch(ctx context.Context) {
	value, life, failure := t.request(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.fetching)
	t.fetching = nil
	if t.closed {
		return
	}
	now := t.now()
	t.failure = failure
	if failure == nil {
		t.value, t.fetched, t.failures = value, now, 0
		t.expires, t.dueAt = now.Add(life-life/20), now.Add(life-min(tokenMargin, life/4))
		return
	}
	backoff, level := t.retry, slog.LevelWarn
	if failure.reason == push.ReasonCredentials {
		backoff, level = backoff*refusedRetryFactor, slog.LevelError
	}
	backoff = min(backoff<<min(t.failures, 20), maxTokenRetry)
	t.failures++
	t.dueAt = now.Add(backoff)
	failure.retryAt = t.dueAt
	t.log.Log(ctx, level, "no access token from the service account's token endpoint", "err", failure.err,
		"next_try_in", backoff, "valid_token_left", now.Before(t.expires))
}

var errTokenTimeout = errors.New("the token endpoint took longer than the timeout of its request")

// request exchanges an assertion for an access token and its life.
func (t *tokens) request(ctx context.Context) (value string, life time.Duration, failure *tokenError) {
	transport := &tokenTransport{ctx: ctx, next: t.transport}
	client := &http.Client{
		Transport: transport,
		// An assertion is for the endpoint it names and for nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	token, err := t.account.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client)).Token()
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return "", 0, t.refusal(answer)
	}
	if err == nil && (token.AccessToken == "" || strings.ContainsAny(token.AccessToken, "\r\n") || token.Expiry.IsZero()) {
		err = errors.New("the token endpoint's answer holds no access token")
	}
	switch {
	case err == nil:
		return token.AccessToken, min(time.Until(token.Expiry), maxTokenLife), nil
	case transport.answered:
		return "", 0, &tokenError{err: err, reason: push.ReasonUnavailable}
	default:
		return "", 0, &tokenError{err: err, reason: push.ReasonConnection}
	}
}

// tokenTransport ends requests with a context, because x/oauth2 makes its own
// without one, and notes whether there was an answer.
type tokenTransport struct {
	ctx      context.Context
	next     http.RoundTripper
	answered bool
}

// RoundTrip implements http.RoundTripper.
func (t *tokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.next.RoundTrip(r.WithContext(t.ctx))
	t.answered = err == nil
	return res, err
}

// tokenError is why there is no access token.
type tokenError struct {
	err     error
	reason  push.Reason // credentials, unavailable or connection
	retryAt time.Time   // when the next request is due
}

func (e *tokenError) Error() string { return "no access token: " + e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

// outcome says what e means for a push.
func (e *tokenError) outcome(now time.Time) push.Outcome {
	out := push.Outcome{Kind: push.Temporary, Reason: e.reason, Evidence: push.EvidenceUnreachable, Err: e}
	switch e.reason {
	case push.ReasonConnection:
		out.Unprocessed = true
	case push.ReasonCredentials:
		out.Evidence = push.EvidenceRefused
		fallthrough
	default:
		out.RetryAfter = max(time.Second, e.retryAt.Sub(now))
	}
	return out
}

// oauthCode is the form of the error codes of RFC 6749, such as invalid_grant.
var oauthCode = regexp.MustCompile(`^[a-z_]{1,64}$`)

// refusal reads an answer of the token endpoint that brings no token. It is about
// the account if it says so in OAuth's form; else about the state of the endpoint.
func (t *tokens) refusal(answer *oauth2.RetrieveError) *tokenError {
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(answer.Body, &body) // what is no JSON has no error
	status := answer.Response.StatusCode
	err := fmt.Errorf("the token endpoint answered %d", status)
	if !oauthCode.MatchString(body.Error) {
		return &tokenError{err: err, reason: push.ReasonUnavailable}
	}
	err = fmt.Errorf("%w %s", err, body.Error)
	if text := shown(body.Description); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	if wrong := push.ClockError(answer.Response.Header.Get("Date"), t.now()); wrong != nil {
		err = fmt.Errorf("%w; %w", err, wrong)
	}
	if status >= http.StatusInternalServerError || status == http.StatusTooManyRequests {
		return &tokenError{err: err, reason: push.ReasonUnavailable}
	}
	return &tokenError{err: err, reason: push.ReasonCredentials}
}

// shown returns what Google says about an account as far as a log may show it:
// words that are no addresses, and too short for a key or a token.
func shown(text string) string {
	words := strings.Fields(strings.ToValidUTF8(text, "\uFFFD"))
	for i, word := range words {
		if len(word) > 40 || strings.Contains(word, "@") {
			words[i] = ellipsis
		}
	}
	return cut(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' && r != '…' {
			return -1
		}
		return r
	}, strings.Join(words, " ")), maxTokenDescription)
}
