package pushtest

import (
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

// jwtCache remembers the last provider token that was verified, as Apple does
// for each connection: in a benchmark the signatures would cost more than the
// pushes.
type jwtCache struct {
	mu   sync.Mutex
	last string
	iat  time.Time
}

// issued verifies a provider token of key and returns when it was issued.
func (c *jwtCache) issued(key *TokenKey, bearer string) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bearer != "" && bearer == c.last {
		return c.iat, true
	}
	issued, ok := ProviderTokenIssued(*key, bearer)
	if ok {
		c.last, c.iat = bearer, issued
	}
	return issued, ok
}

// ProviderTokenIssued verifies a provider token (a JSON Web Token, ES256) as
// Apple would, with the public half of key, and returns when it was issued.
func ProviderTokenIssued(key TokenKey, bearer string) (time.Time, bool) {
	var claims jwt.RegisteredClaims
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithoutClaimsValidation())
	token, err := parser.ParseWithClaims(bearer, &claims, func(*jwt.Token) (any, error) { return &key.Key.PublicKey, nil })
	if err != nil || token.Header["kid"] != key.KeyID || claims.Issuer != key.TeamID || claims.IssuedAt == nil {
		return time.Time{}, false
	}
	return claims.IssuedAt.Time, true
}

// Sign makes a provider token, as another provider of the same team would.
func (k TokenKey) Sign(tb testing.TB, issued time.Time) string {
	tb.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.RegisteredClaims{Issuer: k.TeamID, IssuedAt: jwt.NewNumericDate(issued)})
	token.Header["kid"] = k.KeyID
	text, err := token.SignedString(k.Key)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}
