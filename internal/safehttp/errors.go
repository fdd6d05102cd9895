package safehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

var (
	// ErrBlocked means the address is not on the public internet and not in
	// Options.AllowNets.
	ErrBlocked = errors.New("address not allowed")
	// ErrTooLarge means the body is larger than Options.MaxBody.
	ErrTooLarge = errors.New("answer too large")
	// ErrRedirect means there were more redirects than Options.MaxRedirects.
	ErrRedirect = errors.New("too many redirects")
	// ErrScheme means the URL, or a redirect, is not https where https is
	// required, or not HTTP at all.
	ErrScheme = errors.New("URL scheme not allowed")
	// ErrProxy means the proxy did not open the tunnel.
	ErrProxy = errors.New("proxy refused the connection")
)

// requestError is what happened to one request. Its text is put together from
// parts known to be harmless. The cause, whose text may quote the URL or what
// the peer sent, stays reachable for errors.Is and errors.As only.
type requestError struct {
	host  string
	cause error
}

// newRequestError strips the url.Error of http.Client, which quotes the URL.
func newRequestError(host string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &requestError{host: host, cause: err}
}

func (e *requestError) Error() string { return "request to " + e.host + ": " + describe(e.cause) }

func (e *requestError) Unwrap() error { return e.cause }

// Timeout reports whether time ran out, as net.Error does.
func (e *requestError) Timeout() bool { return timedOut(e.cause) }

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

func describe(err error) string {
	for _, known := range [...]error{ErrBlocked, ErrTooLarge, ErrRedirect, ErrScheme, ErrProxy} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	var (
		dns  *net.DNSError
		cert *tls.CertificateVerificationError
		op   *net.OpError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case timedOut(err):
		return "timed out"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns):
		return "name lookup failed"
	case errors.As(err, &cert):
		return describeCertificate(cert.Err)
	case errors.As(err, &op):
		var errno syscall.Errno
		if errors.As(op.Err, &errno) {
			return op.Op + ": " + errno.Error()
		}
		return op.Op + ": connection failed"
	default:
		return "no valid HTTP answer"
	}
}

func describeCertificate(err error) string {
	var (
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
	)
	switch {
	case errors.As(err, &host):
		return "certificate is for another name"
	case errors.As(err, &unknown):
		return "certificate from an unknown authority"
	default:
		return "certificate not valid"
	}
}

// tooLarge translates the error of http.MaxBytesReader.
func tooLarge(err error) error {
	var limit *http.MaxBytesError
	if errors.As(err, &limit) {
		return ErrTooLarge
	}
	return err
}
