package pushtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// CA is a certificate authority that exists for one test.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes an authority of its own.
func NewCA(tb testing.TB) *CA {
	tb.Helper()
	ca := &CA{key: newKey(tb)}
	ca.cert = ca.sign(tb, ca.key, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "pushtest authority"},
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	})
	return ca
}

// Pool returns the certificates a client must trust to trust this authority.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// PEM returns the authority's certificate.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// ServerTLS returns the TLS settings of an HTTP/2 server on 127.0.0.1, which
// also answers to localhost and to names.
func (ca *CA) ServerTLS(tb testing.TB, names ...string) *tls.Config {
	tb.Helper()
	key := newKey(tb)
	cert := ca.sign(tb, key, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "pushtest server"},
		NotAfter:    time.Now().Add(24 * time.Hour),
		DNSNames:    append([]string{"localhost"}, names...),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}},
		NextProtos:   []string{"h2"},
		MinVersion:   tls.VersionTLS12,
	}
}

// ClientCertificate is a certificate with its key, as an operator holds it.
type ClientCertificate struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
	ca   *x509.Certificate
}

// ClientCertificate issues a certificate such as Apple issues to the provider
// of one app: its subject's UID is the topic.
func (ca *CA) ClientCertificate(tb testing.TB, topic string, notAfter time.Time) ClientCertificate {
	tb.Helper()
	uid := asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}
	key := newKey(tb)
	cert := ca.sign(tb, key, &x509.Certificate{
		Subject: pkix.Name{
			CommonName: "Apple Push Services: " + topic,
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: uid, Value: topic}},
		},
		NotAfter:    notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return ClientCertificate{Cert: cert, Key: key, ca: ca.cert}
}

// CertPEM returns the certificate alone.
func (c ClientCertificate) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Cert.Raw})
}

// P12 returns certificate, key and chain as an encrypted PKCS #12 file, in the
// form OpenSSL 3 writes.
func (c ClientCertificate) P12(tb testing.TB, password string) []byte {
	tb.Helper()
	data, err := pkcs12.Modern.Encode(c.Key, c.Cert, []*x509.Certificate{c.ca}, password)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// sign completes and signs template; the authority signs itself when it has
// no certificate yet.
func (ca *CA) sign(tb testing.TB, key *ecdsa.PrivateKey, template *x509.Certificate) *x509.Certificate {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-48 * time.Hour)
	parent := ca.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), ca.key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}
