package apns

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

var (
	errKey       = errors.New("the key is not an ECDSA key on the curve P-256 in PKCS #8 PEM form")
	errEncrypted = errors.New("the private key is encrypted; decrypt it with openssl pkey, or use a .p12 file with cert_password")
	errNoCert    = errors.New("no certificate in it: use PEM or PKCS #12 (.p12)")
	errNoKey     = errors.New("no private key for the certificate: append it to the PEM file that cert_file names")
)

// oidUID is the attribute "userid" of a subject (RFC 4519, section 2.39), in
// which Apple writes the topic.
var oidUID = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}

// credential is what an app identifies itself with to Apple: a certificate, or a
// key that signs provider tokens.
type credential struct {
	id            string // the same for the same credential; shows nothing of it
	cert          *tls.Certificate
	key           *ecdsa.PrivateKey
	keyID, teamID string
}

func readCredential(cfg Config) (credential, error) {
	if cfg.CertFile != "" {
		cert, err := loadCertificate(cfg)
		if err != nil {
			return credential{}, err
		}
		sum := sha256.Sum256(cert.Leaf.Raw)
		return credential{id: hex.EncodeToString(sum[:]), cert: cert}, nil
	}
	key, err := parseKey(cfg.Key.Reveal())
	if err != nil {
		return credential{}, fmt.Errorf("read key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return credential{}, fmt.Errorf("read key: %w", err)
	}
	sum := sha256.Sum256(public)
	id := strings.Join([]string{cfg.TeamID, cfg.KeyID, hex.EncodeToString(sum[:])}, "/")
	return credential{id: id, key: key, keyID: cfg.KeyID, teamID: cfg.TeamID}, nil
}

// parseKey reads the text of a .p8 file.
func parseKey(text string) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errKey
	}
	// The parser's own error could quote what it read.
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errKey
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errKey
	}
	return key, nil
}

// loadCertificate reads the certificate of c with its key, Leaf set.
func loadCertificate(c Config) (*tls.Certificate, error) {
	data, err := os.ReadFile(c.CertFile)
	if err != nil {
		return nil, fmt.Errorf("read cert_file: %w", err)
	}
	if block, _ := pem.Decode(data); block == nil {
		cert, err := parseP12(data, c.CertPassword.Reveal())
		if err != nil {
			return nil, fmt.Errorf("read cert_file %s: %w", c.CertFile, err)
		}
		return cert, nil
	}
	cert, err := parsePEM(data)
	if err != nil {
		return nil, fmt.Errorf("read cert_file %s: %w", c.CertFile, err)
	}
	return cert, nil
}

func parseP12(data []byte, password string) (*tls.Certificate, error) {
	key, leaf, chain, err := pkcs12.DecodeChain(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, errors.New("cert_password does not decrypt it")
	case err != nil:
		return nil, errNoCert
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// parsePEM reads certificates and one private key in any order and with any
// text between them, as Apple's tools and openssl write them.
func parsePEM(data []byte) (*tls.Certificate, error) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errEncrypted
		}
	}
	if !bytes.Contains(data, []byte("-----BEGIN CERTIFICATE-----")) {
		return nil, errNoCert
	}
	if !bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		return nil, errNoKey
	}
	// X509KeyPair passes over the blocks it does not look for, reads PKCS #1,
	// PKCS #8 and EC keys, and checks that the key is the certificate's.
	cert, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, err
	}
	return &cert, nil
}

// certificateTopic returns the topic that a certificate is for, "" when it
// names none.
func certificateTopic(cert *x509.Certificate) string {
	for _, name := range cert.Subject.Names {
		if text, ok := name.Value.(string); ok && name.Type.Equal(oidUID) {
			return text
		}
	}
	return ""
}
