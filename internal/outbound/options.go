package outbound

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options are what all connections to push services share. The zero value works.
type Options struct {
	// Proxy is an HTTP CONNECT proxy, nil for none; proxy variables of the
	// environment are ignored. It has to refuse private addresses itself.
	Proxy *url.URL
	// RootCAs are the authorities to trust, nil for the system's.
	RootCAs *x509.CertPool
	// Wrap, unless nil, is put around what sends pushes, to trace them. The path of
	// a request may hold a pushkey.
	Wrap func(http.RoundTripper) http.RoundTripper
	Log  *slog.Logger     // default: discard
	Now  func() time.Time // default: time.Now
	// TokenTimeout bounds one request for an access token, default 10 s.
	TokenTimeout time.Duration
	// TokenRetry is the pause after a first failed request for an access token,
	// default 1 s. It doubles with each further failure up to 5 min, and is 30
	// times as long when the account is refused.
	TokenRetry time.Duration
}

// WithDefaults returns o with the defaults in place.
func (o Options) WithDefaults() Options {
	if o.Wrap == nil {
		o.Wrap = func(next http.RoundTripper) http.RoundTripper { return next }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.TokenTimeout = cmp.Or(o.TokenTimeout, 10*time.Second)
	o.TokenRetry = cmp.Or(o.TokenRetry, time.Second)
	return o
}

// TLS returns the settings of connections that show these certificates.
func (o Options) TLS(certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: o.RootCAs, Certificates: certificates, MinVersion: tls.VersionTLS12}
}

// ErrHost says that a text is not the https URL of a host.
var ErrHost = errors.New("not an https URL of a host alone")

// ParseHost reads the https URL of a host, perhaps with a port.
func ParseHost(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, ErrHost
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}
