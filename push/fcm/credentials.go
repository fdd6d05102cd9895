package fcm

import (
	"context"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"

	gojwt "github.com/golang-jwt/jwt/v4"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"golang.org/x/oauth2/jwt"

	"github.com/matrix-herald/herald/internal/conf"
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

// Token implements accesstoken.Account: it exchanges an assertion for a token.
func (a account) Token(ctx context.Context) (*oauth2.Token, error) { return a.TokenSource(ctx).Token() }

// oauthCode is the form of the error codes of RFC 6749, such as invalid_grant.
var oauthCode = regexp.MustCompile(`^[a-z_]{1,64}$`)

// Refusal implements accesstoken.Account.
func (account) Refusal(body []byte) string {
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &answer) != nil || !oauthCode.MatchString(answer.Error) {
		return ""
	}
	return strings.TrimSuffix(answer.Error+": "+shown(answer.Description), ": ")
}

// shown returns what Google says about an account as far as a log may show it:
// words that are not addresses, and too short for a key or a token.
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
