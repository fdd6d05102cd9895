package hms

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
)

const (
	// tokenLife is what Huawei advises; more than a day is refused.
	tokenLife = time.Hour
	// clockSkew is how far this machine's clock may be ahead of Huawei's.
	clockSkew = time.Minute
)

// credentials are what access tokens are made of.
type credentials interface {
	// token returns an access token and its life. Without one the outcome says what
	// that means for a push.
	token(ctx context.Context, opts outbound.Options, transport http.RoundTripper) (string, time.Duration, push.Outcome)
	// id is the same for the same credentials, and secret.
	id() string
}

// account is a service account, which signs its access tokens itself.
type account struct {
	ProjectID  string `json:"project_id"`
	KeyID      string `json:"key_id"`
	SubAccount string `json:"sub_account"`
	PrivateKey string `json:"private_key"`

	key *rsa.PrivateKey
}

// parseAccount reads the text of a key file. Its faults go to p and never quote it.
func parseAccount(path, text string, p *conf.Problems) *account {
	a := new(account)
	err := json.Unmarshal([]byte(text), a)
	if err != nil || a.KeyID == "" || a.SubAccount == "" || a.ProjectID == "" {
		p.Add(path, nil, "is not the JSON key of a service account of Huawei's, with project_id, key_id, sub_account and private_key; "+
			"create one in the API console of AppGallery Connect")
		return a
	}
	if a.key, err = jwt.ParseRSAPrivateKeyFromPEM([]byte(a.PrivateKey)); err != nil {
		p.Add(path+": private_key", nil, "is not an RSA key in PEM; use the key file as the API console made it")
	}
	return a
}

func (a *account) id() string {
	return strings.Join([]string{a.KeyID, a.SubAccount, a.PrivateKey}, "\n")
}

func (a *account) token(_ context.Context, opts outbound.Options, _ http.RoundTripper) (string, time.Duration, push.Outcome) {
	issued := opts.Now().Add(-clockSkew)
	token := jwt.NewWithClaims(jwt.SigningMethodPS256, jwt.MapClaims{
		"iss": a.SubAccount, "aud": huaweiLogin + tokenPath, "iat": issued.Unix(), "exp": issued.Add(tokenLife).Unix(),
	})
	token.Header["kid"] = a.KeyID
	text, err := token.SignedString(a.key)
	return text, tokenLife - clockSkew, push.Outcome{Kind: push.Temporary, Reason: push.ReasonInternal, Err: err}
}

// client is an app's OAuth client, which asks for its access tokens.
type client struct {
	clientID string
	secret   conf.Secret
	url      string
}

func (c client) id() string { return c.clientID + "\n" + c.secret.Reveal() + "\n" + c.url }

func (c client) token(ctx context.Context, opts outbound.Options, transport http.RoundTripper) (string, time.Duration, push.Outcome) {
	cfg := clientcredentials.Config{ClientID: c.clientID, ClientSecret: c.secret.Reveal(), TokenURL: c.url, AuthStyle: oauth2.AuthStyleInParams}
	token, err := cfg.Token(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{
		Transport: transport,
		// The secret is for Huawei and nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}))
	if err == nil && (strings.ContainsAny(token.AccessToken, "\r\n") || token.Expiry.IsZero()) {
		err = errors.New("the answer holds none")
	}
	if err == nil {
		return token.AccessToken, time.Until(token.Expiry), push.Outcome{}
	}
	out := push.NoAnswer(context.WithoutCancel(ctx), err, true)
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		out = tokenRefusal(answer.Response, answer.Body, opts.Now())
	}
	out.Err = fmt.Errorf("no access token from Huawei: %w", out.Err)
	return "", 0, out
}

// tokenRefusal says what an answer without a token means. It is about the client if
// it has the form of Huawei's errors, which are numbers.
func tokenRefusal(res *http.Response, body []byte, now time.Time) push.Outcome {
	var parsed struct {
		Error    int `json:"error"`
		SubError int `json:"sub_error"`
	}
	out := push.Outcome{Kind: push.Temporary, Reason: push.ReasonUnavailable, Evidence: push.EvidenceUnreachable, Status: res.StatusCode}
	if json.Unmarshal(body, &parsed) == nil && parsed.Error != 0 && res.StatusCode/100 == 4 && res.StatusCode != http.StatusTooManyRequests {
		out.Reason, out.Evidence, out.Detail = push.ReasonCredentials, push.EvidenceRefused, fmt.Sprintf("%d/%d", parsed.Error, parsed.SubError)
	}
	out.Err = errors.Join(fmt.Errorf("it answered %d %s", res.StatusCode, out.Detail), outbound.ClockError(res.Header.Get("Date"), now))
	return out
}
