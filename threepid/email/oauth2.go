package email

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/threepid/sending"
)

// tokenTimeout bounds one request for an access token.
const tokenTimeout = 10 * time.Second

// OAuth2Config is how access tokens for the relay are fetched: with the client
// credentials of an application (Microsoft 365), or with the key of a service account
// that may act for the mailbox (Google).
type OAuth2Config struct {
	// TokenURL is where access tokens come from.
	TokenURL string `yaml:"token_url"`
	// ClientID is the id of the application.
	ClientID string `yaml:"client_id"`
	// ClientSecret is its secret, or the JSON key of one of Google's service
	// accounts, which holds the other two as well.
	ClientSecret     conf.Secret `yaml:"client_secret"`
	ClientSecretFile string      `yaml:"client_secret_file"`
	// Scopes are what the tokens are for.
	Scopes []string `yaml:"scopes"`
}

func (c OAuth2Config) configured() bool {
	return c.TokenURL != "" || c.ClientID != "" || c.ClientSecret != "" || len(c.Scopes) > 0
}

func (c OAuth2Config) validate(path string, p *conf.Problems) {
	if c.ClientSecret == "" {
		p.Add(path+".client_secret", nil, "is missing: write it here or its file's name in client_secret_file")
	}
	endpoint := c.TokenURL
	if key, isKey, err := c.serviceAccount(); isKey {
		if block, _ := pem.Decode(key.PrivateKey); err != nil || block == nil || key.Email == "" {
			p.Add(path+".client_secret", nil, "is not the JSON key of a service account")
		}
		endpoint = key.TokenURL
	} else if c.ClientID == "" {
		p.Add(path+".client_id", nil, "is missing: the ID of the application that may send mail")
	}
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "https" || u.Host == "" {
		p.Add(path+".token_url", nil, "must be the https URL of the token endpoint, such as https://login.microsoftonline.com/TENANT/oauth2/v2.0/token")
	}
	if len(c.Scopes) == 0 {
		p.Add(path+".scopes", nil, "is missing: [https://outlook.office365.com/.default] for Microsoft 365, [https://mail.google.com/] for Google")
	}
}

// serviceAccount reads ClientSecret if it is the key of a service account.
func (c OAuth2Config) serviceAccount() (account *jwt.Config, isKey bool, err error) {
	text := c.ClientSecret.Reveal()
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return nil, false, nil
	}
	var key struct {
		Email        string `json:"client_email"`
		PrivateKey   string `json:"private_key"`
		PrivateKeyID string `json:"private_key_id"`
		TokenURL     string `json:"token_uri"`
	}
	err = json.Unmarshal([]byte(text), &key)
	return &jwt.Config{
		Email: key.Email, PrivateKey: []byte(key.PrivateKey), PrivateKeyID: key.PrivateKeyID, Scopes: c.Scopes,
		TokenURL: cmp.Or(c.TokenURL, key.TokenURL),
	}, true, err
}

// tokens keeps an access token. The library's own source would have mails wait for
// each other's requests for longer than they have time (docs/upstream.md).
type tokens struct {
	held   chan *oauth2.Token // whoever takes the token out may replace it
	source func(context.Context) oauth2.TokenSource
	client *http.Client
}

// newTokens returns the tokens with which mailbox logs in.
func newTokens(c OAuth2Config, mailbox string, config *tls.Config) (*tokens, error) {
	t := &tokens{held: make(chan *oauth2.Token, 1), client: &http.Client{
		Timeout:       tokenTimeout,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: config.RootCAs, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	t.held <- nil
	account, isKey, err := c.serviceAccount()
	if isKey {
		account.Subject = mailbox
		t.source = account.TokenSource
		return t, err
	}
	t.source = (&clientcredentials.Config{
		ClientID: c.ClientID, ClientSecret: c.ClientSecret.Reveal(), TokenURL: c.TokenURL, Scopes: c.Scopes,
	}).TokenSource
	return t, nil
}

// get returns a token that is valid and not the one that was refused.
func (t *tokens) get(ctx context.Context, refused string) (string, error) {
	var token *oauth2.Token
	select {
	case token = <-t.held:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { t.held <- token }()
	if token.Valid() && token.AccessToken != refused {
		return token.AccessToken, nil
	}
	fresh, err := t.source(context.WithValue(ctx, oauth2.HTTPClient, t.client)).Token()
	if err != nil {
		return "", explainToken(err)
	}
	token = fresh
	return token.AccessToken, nil
}

// explainToken says why there is no token.
func explainToken(err error) error {
	f := sending.Failed(sending.Unreachable, "the token endpoint gave no token")
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		f = sending.Failed(sending.Auth, "the token endpoint answered "+answer.Response.Status)
		f.Said = string(answer.Body)
		if answer.Response.StatusCode >= http.StatusInternalServerError {
			f.Outcome = sending.Unavailable
		}
	} else {
		f.Said = err.Error()
	}
	return f
}
