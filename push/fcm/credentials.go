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
	"golang.org/x/oauth2/google"
	"golang.org/x/oauth2/jwt"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/eventdata"
)

const (
	scope = "https://www.googleapis.com/auth/firebase.messaging"
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
	maxTokenRetry      = 5 * time.Minute
	refusedRetryFactor = 30
)

// account is a service account's key, the file that Firebase's console hands
// out.
type account struct {
	*jwt.Config

	id        string // the same for the same account; shows nothing of it
	projectID string
}

// parseAccount reads the key file's text. Its faults go to p and never quote
// the text. ownEndpoint says that the app talks to another host than Google's,
// which then has its own token URL.
func parseAccount(path, text string, ownEndpoint bool, p *conf.Problems) account {
	var file struct {
		ProjectID string `json:"project_id"`
	}
	config, err := google.JWTConfigFromJSON([]byte(text), scope)
	if err != nil || json.Unmarshal([]byte(text), &file) != nil {
		const console = "create one in Firebase's console, Project settings, Service accounts"
		if isAppSettings(text) {
			p.Add(path, nil, "is google-services.json, which belongs into the app; pushgw needs the JSON key of a service account: "+console)
		} else {
			p.Add(path, nil, "is not the JSON key of a service account; "+console)
		}
		return account{}
	}
	if config.Email == "" {
		p.Add(path+": client_email", nil, "is missing; use the key file as Firebase's console made it")
	}
	switch u, err := url.Parse(config.TokenURL); {
	case !ownEndpoint && config.TokenURL != google.JWTTokenURL:
		p.Add(path+": token_uri", config.TokenURL, "must be "+google.JWTTokenURL+
			": whoever answers there receives proofs of this account; another one needs the option endpoint")
	case err != nil || u.Scheme != "https" || u.Host == "":
		p.Add(path+": token_uri", config.TokenURL, "must be an https URL")
	}
	if _, err := gojwt.ParseRSAPrivateKeyFromPEM(config.PrivateKey); err != nil {
		p.Add(path+": private_key", nil, "is not an RSA key in PEM; use the key file as Firebase's console made it")
	}
	id := push.Fingerprint(strings.Join([]string{config.Email, config.PrivateKeyID, config.TokenURL, string(config.PrivateKey)}, "\n"))
	return account{config, id, file.ProjectID}
}

// isAppSettings says whether text is the google-services.json of an Android app.
func isAppSettings(text string) bool {
	var file struct {
		Info json.RawMessage `json:"project_info"`
	}
	return json.Unmarshal([]byte(text), &file) == nil && file.Info != nil
}

// tokens keeps one service account's access token fresh. x/oauth2 makes the
// requests. Its own cache is not used: with that all pushes would wait in line,
// each for a request of its own and beyond its deadline, while the token
// endpoint does not answer.
type tokens struct {
	account   account
	transport http.RoundTripper
	timeout   time.Duration // of one request
	retry     time.Duration // the first backoff
	log       *slog.Logger
	now       func() time.Time
	ctx       context.Context // ends with close
	cancel    context.CancelFunc
	requests  sync.WaitGroup

	mu       sync.Mutex
	fetching chan struct{} // closed with the end of the request under way; nil without one
	value    string
	fetched  time.Time
	expires  time.Time
	dueAt    time.Time    // no further request before
	failure  push.Outcome // of the last request
	failures int          // requests that failed in a row
}

var errStopped = errors.New("the connections to FCM are closed")

// get returns a valid access token. Without one it waits for the request that
// is under way; in the backoff after a failed one it says at once what that means
// for a push.
func (t *tokens) get(ctx context.Context) (string, push.Outcome) {
	for {
		t.mu.Lock()
		t.fetchIfDue()
		now := t.now()
		value, valid, fetching, failed := t.value, now.Before(t.expires), t.fetching, t.failure
		failed.RetryAfter = max(time.Second, t.dueAt.Sub(now))
		t.mu.Unlock()
		switch {
		case t.ctx.Err() != nil:
			return "", failure(ctx, errStopped, false)
		case valid:
			return value, push.Outcome{}
		case fetching == nil:
			return "", failed
		}
		select {
		case <-fetching:
		case <-ctx.Done():
			return "", failure(ctx, fmt.Errorf("wait for an access token: %w", context.Cause(ctx)), false)
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
	if t.fetching == nil && !t.now().Before(t.dueAt) && t.ctx.Err() == nil {
		t.fetching = make(chan struct{})
		t.requests.Go(t.fetch)
	}
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
	t.cancel()
	t.mu.Unlock()
	t.requests.Wait()
}

// fetch makes one request and keeps what comes of it.
func (t *tokens) fetch() {
	value, life, err := t.request()
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.fetching)
	t.fetching = nil
	now := t.now()
	if err == nil {
		t.value, t.fetched, t.failures = value, now, 0
		t.expires, t.dueAt = now.Add(life-life/20), now.Add(life-min(tokenMargin, life/4))
		return
	}
	t.failure = t.outcome(err)
	backoff, level := t.retry, slog.LevelWarn
	if t.failure.Evidence == push.EvidenceRefused {
		backoff, level = backoff*refusedRetryFactor, slog.LevelError
	}
	backoff = min(backoff<<min(t.failures, 20), maxTokenRetry)
	t.failures++
	t.dueAt = now.Add(backoff)
	if t.ctx.Err() == nil {
		t.log.Log(t.ctx, level, "no access token from the service account's token endpoint", "err", t.failure.Err,
			"next_try_in", backoff, "valid_token_left", now.Before(t.expires))
	}
}

var errTokenTimeout = errors.New("the token endpoint took longer than the timeout of its request")

// request exchanges an assertion for an access token and its life.
func (t *tokens) request() (value string, life time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(t.ctx, t.timeout, errTokenTimeout)
	defer cancel()
	client := &http.Client{
		Transport: inContext{ctx, t.transport},
		// An assertion is for the endpoint it names and for nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	token, err := t.account.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client)).Token()
	if err != nil {
		return "", 0, err
	}
	if token.AccessToken == "" || strings.ContainsAny(token.AccessToken, "\r\n") || token.Expiry.IsZero() {
		return "", 0, errors.New("the token endpoint's answer holds no access token")
	}
	return token.AccessToken, min(time.Until(token.Expiry), maxTokenLife), nil
}

// inContext ends requests with a context: x/oauth2 makes its own without one.
type inContext struct {
	ctx  context.Context
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t inContext) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.next.RoundTrip(r.WithContext(t.ctx))
}

// oauthCode is the form of the error codes of RFC 6749, such as invalid_grant.
var oauthCode = regexp.MustCompile(`^[a-z_]{1,64}$`)

// outcome says what it means for a push that there is no access token. That is
// about the account if the token endpoint says so in OAuth's form; else about the
// endpoint and the way to it.
func (t *tokens) outcome(err error) push.Outcome {
	out := push.Outcome{Kind: push.Temporary, Reason: push.ReasonConnection, Evidence: push.EvidenceUnreachable, Unprocessed: true}
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		status := answer.Response.StatusCode
		out.Reason, out.Unprocessed = push.ReasonUnavailable, false
		err = fmt.Errorf("the token endpoint answered %d", status)
		var body struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		if json.Unmarshal(answer.Body, &body) == nil && oauthCode.MatchString(body.Error) {
			err = fmt.Errorf("%w %s", err, strings.TrimSuffix(body.Error+": "+shown(body.Description), ": "))
			if status >= 400 && status < 500 && status != http.StatusTooManyRequests {
				out.Reason, out.Evidence = push.ReasonCredentials, push.EvidenceRefused
			}
		}
		if wrong := outbound.ClockError(answer.Response.Header.Get("Date"), t.now()); wrong != nil {
			err = fmt.Errorf("%w; %w", err, wrong)
		}
	}
	out.Err = fmt.Errorf("no access token: %w", err)
	return out
}

// shown returns what Google says about an account as far as a log may show it:
// words that are no addresses, and too short for a key or a token.
func shown(text string) string {
	var words []string
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		if len(word) > 40 || strings.Contains(word, "@") {
			word = "…"
		}
		words = append(words, word)
	}
	return eventdata.Cut(strings.Join(words, " "), 200)
}
