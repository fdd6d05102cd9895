package webpush

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v4"

	"github.com/matrix-herald/herald/push"
)

const (
	// tokenLife is how long a VAPID token is valid. The limit is 24 h (RFC 8292,
	// section 2), and clocks differ.
	tokenLife = 12 * time.Hour
	// tokenUse is how long it is used: services remember one that they checked.
	tokenUse = tokenLife / 2
)

// vapidKey is an application server's key (RFC 8292). Browsers bind a
// subscription to it.
type vapidKey struct {
	private *ecdsa.PrivateKey
	public  string // as browsers take it, the applicationServerKey
}

var errVAPIDKey = errors.New("is not an EC key on P-256, as PEM or base64url; pushgw vapid new makes one")

// parseVAPIDKeys reads one or more keys: PEM blocks one after the other, or
// texts in base64url of a raw or a DER key, one a line.
func parseVAPIDKeys(text string) ([]vapidKey, error) {
	var found []*ecdsa.PrivateKey
	if strings.Contains(text, "-----BEGIN") {
		for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "EC PARAMETERS" { // openssl writes them before the key
				found = append(found, parseECKey(block.Bytes))
			}
		}
	} else {
		for line := range strings.FieldsSeq(text) {
			raw, _ := decode64(line) // what breaks off is not a key
			found = append(found, parseECKey(raw))
		}
	}
	var list []vapidKey
	for _, private := range found {
		if private == nil || private.Curve != elliptic.P256() {
			return nil, errVAPIDKey
		}
		public, err := private.PublicKey.Bytes()
		if err != nil {
			return nil, errVAPIDKey
		}
		list = append(list, vapidKey{private, base64.RawURLEncoding.EncodeToString(public)})
	}
	if len(list) == 0 {
		return nil, errVAPIDKey
	}
	return list, nil
}

// parseECKey returns an EC key, raw or in SEC 1 or PKCS #8, nil if text is not one.
func parseECKey(text []byte) *ecdsa.PrivateKey {
	if private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), text); err == nil {
		return private
	}
	if private, err := x509.ParseECPrivateKey(text); err == nil {
		return private
	}
	key, _ := x509.ParsePKCS8PrivateKey(text)
	private, _ := key.(*ecdsa.PrivateKey)
	return private
}

// NewVAPIDKey makes a key and returns it as PEM, with its public half as browsers
// take it.
func NewVAPIDKey() (private, public string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", fmt.Errorf("write the key: %w", err)
	}
	private = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	list, err := PublicKeys(private)
	if err != nil {
		return "", "", err
	}
	return private, list[0], nil
}

// PublicKeys returns the public halves of the keys in text, as browsers take
// them (applicationServerKey).
func PublicKeys(text string) ([]string, error) {
	list, err := parseVAPIDKeys(text)
	var public []string
	for _, k := range list {
		public = append(public, k.public)
	}
	return public, err
}

// checkContact reports whether push services take a contact as sub: Apple
// refuses names that are not public, and signs around an address.
func checkContact(contact string) bool {
	var host string
	if address, ok := strings.CutPrefix(contact, "mailto:"); ok {
		parsed, err := mail.ParseAddress(address)
		if err != nil || parsed.Address != address {
			return false
		}
		host = address[strings.LastIndexByte(address, '@')+1:]
	} else {
		u, err := url.Parse(contact)
		if err != nil || u.Scheme != "https" || u.User != nil {
			return false
		}
		host = u.Hostname()
	}
	dot := strings.LastIndexByte(host, '.')
	switch tld := host[dot+1:]; {
	case dot <= 0 || tld == "", strings.ContainsAny(contact, " <>"):
		return false
	case tld == "local" || tld == "invalid" || tld == "localhost":
		return false
	default:
		return tld[0] > '9' // an address of a machine has no name
	}
}

// token is a signed VAPID token.
type token struct {
	text  string
	until time.Time // then a new one is made
}

// authorization returns the header Authorization for an origin, signed with the
// key of that number.
func (p *Provider) authorization(number int, origin string) (string, error) {
	now, id := p.connections.opts.Now(), push.Fingerprint(strconv.Itoa(number)+origin)
	key := p.keys[number]
	t, ok := p.tokens.get(id)
	if !ok || now.After(t.until) {
		claims := jwt.MapClaims{"aud": origin, "exp": now.Add(tokenLife).Unix()}
		if p.contact != "" {
			claims["sub"] = p.contact
		}
		text, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key.private)
		if err != nil {
			return "", fmt.Errorf("sign a VAPID token: %w", err)
		}
		t = token{text, now.Add(tokenUse)}
		p.tokens.put(id, t)
	}
	return "vapid t=" + t.text + ", k=" + key.public, nil
}
