package hms

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/matrix-herald/herald/internal/conf"
)

const (
	// tokenLife is what Huawei advises; more than a day is refused.
	tokenLife = time.Hour
	// clockSkew is how far this machine's clock may be ahead of Huawei's.
	clockSkew = time.Minute
)

// account is a service account, which signs its access tokens itself. It implements
// accesstoken.Account.
type account struct {
	ProjectID  string `json:"project_id"`
	KeyID      string `json:"key_id"`
	SubAccount string `json:"sub_account"`
	PrivateKey string `json:"private_key"`

	key *rsa.PrivateKey
	now func() time.Time
}

// parseAccount reads the text of a key file. Its faults go to p and never quote it.
func parseAccount(path, text string, p *conf.Problems) (a account) {
	err := json.Unmarshal([]byte(text), &a)
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

func (a account) Token(context.Context) (*oauth2.Token, error) {
	issued := a.now().Add(-clockSkew)
	token := jwt.NewWithClaims(jwt.SigningMethodPS256, jwt.MapClaims{
		"iss": a.SubAccount, "aud": huaweiLogin + tokenPath, "iat": issued.Unix(), "exp": issued.Add(tokenLife).Unix(),
	})
	token.Header["kid"] = a.KeyID
	text, err := token.SignedString(a.key)
	return &oauth2.Token{AccessToken: text, Expiry: time.Now().Add(tokenLife - clockSkew)}, err
}

func (account) Refusal([]byte) string { return "" } // nobody was asked

// client is an app's OAuth client, which asks for its access tokens. It implements
// accesstoken.Account.
type client struct{ *clientcredentials.Config }

// Refusal implements accesstoken.Account: Huawei's errors are numbers.
func (client) Refusal(body []byte) string {
	var answer struct {
		Error    int `json:"error"`
		SubError int `json:"sub_error"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Error == 0 {
		return ""
	}
	return strings.TrimSuffix(fmt.Sprintf("%d/%d", answer.Error, answer.SubError), "/0")
}
