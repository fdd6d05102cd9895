package apns

import (
	"crypto"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

const (
	// tokenWindow is how long one provider token is used. Apple refuses tokens
	// that are older than an hour.
	tokenWindow = 30 * time.Minute
	// minTokenAge is the shortest time between two updates of a team's token
	// ("Establishing a token-based connection to APNs").
	minTokenAge = 20 * time.Minute
	// maxStepBack is how far the clock may be set back before a token that was
	// made before is taken to come from the future.
	maxStepBack = time.Minute
)

// team holds what all provider tokens of one developer team share: Apple
// counts updates per team, whatever the key and the server.
type team struct {
	mu      sync.Mutex
	renewed time.Time // the last update out of turn
	updated time.Time // the last update of any kind
}

// tokenSource makes the provider tokens of one key of one team. A token is
// issued at the start of the current half hour and signed deterministically
// (RFC 6979), so that all processes with the same key use the same token and
// Apple does not see them outbid each other.
type tokenSource struct {
	credential
	team *team
	now  func() time.Time

	// The rest is guarded by team.mu.
	bearer  string
	issued  time.Time // of bearer
	updated time.Time // when bearer came into use
}

// newTokenSource checks the key by making a first token.
func newTokenSource(cred credential, t *team, now func() time.Time) (*tokenSource, error) {
	s := &tokenSource{credential: cred, team: t, now: now}
	if _, err := s.token(); err != nil {
		return nil, err
	}
	return s, nil
}

// token returns the token to use now.
func (s *tokenSource) token() (string, error) {
	s.team.mu.Lock()
	defer s.team.mu.Unlock()
	now := s.clock()
	window := time.Unix(now.Unix()-now.Unix()%int64(tokenWindow/time.Second), 0)
	var err error
	switch {
	case s.bearer == "", now.Add(maxStepBack).Before(s.issued):
		// The other servers of this team have used this token since the window
		// began; that is when Apple saw the update.
		err = s.replace(window, window)
	case window.After(s.issued) && now.Sub(s.updated) >= minTokenAge && now.Sub(s.team.renewed) >= minTokenAge:
		err = s.replace(window, now)
	}
	return s.bearer, err
}

// clock reads the wall clock, because that is what Apple compares with: the
// monotonic clock stands still while a machine is suspended. What lies in the
// future since the clock was set back is forgotten. The caller holds team.mu.
func (s *tokenSource) clock() time.Time {
	now := s.now().Round(0)
	for _, t := range []*time.Time{&s.team.renewed, &s.team.updated, &s.updated} {
		if t.After(now.Add(maxStepBack)) {
			*t = time.Time{}
		}
	}
	return now
}

// renew is told that Apple calls the token refused expired. It reports whether
// there is another one to try: one that is in use already, or a new one if
// the team's tokens have not been updated in the last 20 minutes.
func (s *tokenSource) renew(refused string) (bool, error) {
	s.team.mu.Lock()
	defer s.team.mu.Unlock()
	if s.bearer != refused {
		return true, nil
	}
	now := s.clock()
	if now.Sub(s.team.updated) < minTokenAge || !now.After(s.issued) {
		return false, nil
	}
	s.team.renewed = now
	if err := s.replace(now, now); err != nil {
		return false, err
	}
	return true, nil
}

// hold is told that Apple finds that the team updates its tokens too often:
// there is no update for the next 20 minutes. Further complaints do not extend
// them, or the token would grow too old.
func (s *tokenSource) hold() {
	s.team.mu.Lock()
	defer s.team.mu.Unlock()
	if now := s.clock(); now.Sub(s.team.renewed) >= minTokenAge {
		s.team.renewed, s.team.updated = now, now
	}
}

// replace makes a new token. The caller holds team.mu.
func (s *tokenSource) replace(issued, updated time.Time) error {
	bearer, err := sign(s.credential, issued)
	if err != nil {
		return err
	}
	s.bearer, s.issued, s.updated = bearer, issued, updated
	if updated.After(s.team.updated) {
		s.team.updated = updated
	}
	return nil
}

// sign makes a JSON Web Token as Apple wants it: ES256, with the key's id in
// the header, the team as issuer and the time of issue.
func sign(cred credential, issued time.Time) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.RegisteredClaims{Issuer: cred.teamID, IssuedAt: jwt.NewNumericDate(issued)})
	token.Header["kid"] = cred.keyID
	text, err := token.SigningString()
	if err != nil {
		return "", fmt.Errorf("sign provider token: %w", err)
	}
	// The library would draw a random number. Without a source of randomness the
	// signature is deterministic.
	digest := sha256.Sum256([]byte(text))
	der, err := cred.key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("sign provider token: %w", err)
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return "", fmt.Errorf("sign provider token: %w", err)
	}
	var raw [64]byte // r and s, 32 bytes each (RFC 7518, section 3.4)
	sig.R.FillBytes(raw[:32])
	sig.S.FillBytes(raw[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(raw[:]), nil
}
