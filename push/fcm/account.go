package fcm

import (
	"crypto/rsa"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v4"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
)

const (
	// googleTokenURL exchanges a service account's assertion for an access
	// token.
	googleTokenURL = "https://oauth2.googleapis.com/token"
	scope          = "https://www.googleapis.com/auth/firebase.messaging"
	// assertionLife is how long an assertion is valid; Google takes at most an
	// hour.
	assertionLife = time.Hour
	// assertionAge makes up for a clock that is a little fast: an assertion of
	// the future is refused.
	assertionAge = 10 * time.Second
)

// projectPattern is a Google Cloud project id or number. It becomes a part of
// the URL's path.
var projectPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.:-]{0,62}$`)

// account is a service account's key, the file that Firebase's console hands
// out.
type account struct {
	projectID string
	email     string
	keyID     string
	tokenURL  string
	key       *rsa.PrivateKey
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
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(file.PrivateKey))
	if err != nil {
		p.Add(path+": private_key", nil, "is not an RSA key in PEM; use the key file as Firebase's console made it")
	}
	return account{file.ProjectID, file.Email, file.KeyID, file.TokenURL, key}
}

// assertion is the signed statement that the token URL exchanges for an access
// token (RFC 7523, section 3).
func (a account) assertion(now time.Time) (string, error) {
	now = now.Add(-assertionAge)
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss":   a.email,
		"scope": scope,
		"aud":   a.tokenURL,
		"iat":   now.Unix(),
		"exp":   now.Add(assertionLife).Unix(),
	})
	token.Header["kid"] = a.keyID
	return token.SignedString(a.key)
}

// identity tells accounts apart without showing one.
func (a account) identity() string {
	return push.Fingerprint(strings.Join([]string{a.email, a.keyID, a.tokenURL, a.key.N.String()}, "\n"))
}
