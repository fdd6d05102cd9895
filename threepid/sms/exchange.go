package sms

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/threepid/sending"
)

// maxAnswer is the largest answer of a provider in bytes.
const maxAnswer = 64 << 10

// newClient returns a client for a provider. Private addresses must be in one
// of the allowed networks, and certificate authorities beside the system's in
// the PEM file.
func newClient(timeout time.Duration, allow []netip.Prefix, roots *x509.CertPool) (*safehttp.Client, error) {
	return safehttp.New(safehttp.Options{Timeout: timeout, MaxBody: maxAnswer, AllowNets: allow, RootCAs: roots, UserAgent: "herald-identity"})
}

// response is what a provider answered.
type response struct {
	status int
	body   []byte
}

// roundTrip sends a message in a request and returns the answer, or a failure
// without one.
func roundTrip(client *safehttp.Client, req *http.Request, m message) (response, error) {
	m.say("> %s %s://%s%s", req.Method, req.URL.Scheme, req.URL.Host, req.URL.Path) // a query may hold a secret
	resp, err := client.Do(req)
	if err != nil {
		return response{}, noAnswer(req.Context(), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return response{}, noAnswer(req.Context(), err)
	}
	m.say("< %s", resp.Status)
	m.say("< %s", body)
	return response{resp.StatusCode, body}, nil
}

// noAnswer describes an error of safehttp, which names the host and nothing
// else of the request.
func noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return sending.Failed(sending.Timeout, "the provider did not answer in time")
	}
	if errors.Is(err, safehttp.ErrBlocked) {
		return sending.Failed(sending.Unreachable, err.Error()+": only providers in allow_networks may have a private address")
	}
	return sending.Failed(sending.Unreachable, err.Error())
}

// refused describes an answer that does not accept the message. code is the
// provider's own number for it, 0 for none, and said are its words, redacted.
func refused(status, code int, said string) error {
	f := sending.Failed(sending.Refused, fmt.Sprintf("the provider answered %d", status))
	f.Said = said
	if code != 0 {
		f.Reason += " with its error " + strconv.Itoa(code)
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		f.Outcome = sending.Auth
	case status == http.StatusTooManyRequests:
		f.Outcome = sending.Limited
	case status >= http.StatusInternalServerError:
		f.Outcome = sending.Unavailable
	}
	return f
}

// parseNetworks reads networks in CIDR form.
func parseNetworks(list []string) ([]netip.Prefix, error) {
	networks := make([]netip.Prefix, len(list))
	for i, s := range list {
		var err error
		if networks[i], err = netip.ParsePrefix(s); err != nil {
			return nil, err
		}
	}
	return networks, nil
}
