package pushtest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
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
	parts := strings.Split(bearer, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	var header struct{ Alg, Kid string }
	var claims struct {
		Iss string
		Iat int64
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(sig) != 64 || !decodePart(parts[0], &header) || !decodePart(parts[1], &claims) {
		return time.Time{}, false
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	ok := header.Alg == "ES256" && header.Kid == key.KeyID && claims.Iss == key.TeamID &&
		ecdsa.Verify(&key.Key.PublicKey, digest[:], r, s)
	return time.Unix(claims.Iat, 0), ok
}

func decodePart(part string, dst any) bool {
	data, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(data, dst) == nil
}

// Sign makes a provider token, as another provider of the same team would.
func (k TokenKey) Sign(tb testing.TB, issued time.Time) string {
	tb.Helper()
	enc := base64.RawURLEncoding
	text := enc.EncodeToString(fmt.Appendf(nil, `{"alg":"ES256","kid":%q}`, k.KeyID)) + "." +
		enc.EncodeToString(fmt.Appendf(nil, `{"iss":%q,"iat":%d}`, k.TeamID, issued.Unix()))
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k.Key, digest[:])
	if err != nil {
		tb.Fatal(err)
	}
	var sig [64]byte
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + enc.EncodeToString(sig[:])
}
