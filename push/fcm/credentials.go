package fcm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
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

const scope = "https://www.googleapis.com/auth/firebase.messaging"

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

// fetchToken exchanges an assertion for an access token and its life.
func (a account) fetchToken(ctx context.Context, transport http.RoundTripper, now func() time.Time) (value string, life time.Duration, out push.Outcome) {
	client := &http.Client{
		Transport: inContext{ctx, transport},
		// An assertion is for the endpoint it names and for nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	token, err := a.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client)).Token()
	if err == nil && (token.AccessToken == "" || strings.ContainsAny(token.AccessToken, "\r\n") || token.Expiry.IsZero()) {
		err = errors.New("the token endpoint's answer holds no access token")
	}
	if err != nil {
		return "", 0, tokenOutcome(err, now())
	}
	return token.AccessToken, time.Until(token.Expiry), push.Outcome{}
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

// tokenOutcome says what it means for a push that there is no access token. That is
// about the account if the token endpoint says so in OAuth's form; else about the
// endpoint and the way to it.
func tokenOutcome(err error, now time.Time) push.Outcome {
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
		if wrong := outbound.ClockError(answer.Response.Header.Get("Date"), now); wrong != nil {
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
