package sms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/matrix-herald/herald/internal/safehttp"
)

// maxAnswer is the largest answer of a provider in bytes.
const maxAnswer = 64 << 10

// newClient returns a client for a provider. Private addresses must be in one
// of the allowed networks, and certificate authorities beside the system's in
// the PEM file.
func newClient(timeout time.Duration, allow []netip.Prefix, caFile string) (*safehttp.Client, error) {
	opts := safehttp.Options{Timeout: timeout, MaxBody: maxAnswer, AllowNets: allow, UserAgent: "herald-identity"}
	if caFile != "" {
		roots, err := safehttp.LoadRootCAs(caFile)
		if err != nil {
			return nil, err
		}
		opts.RootCAs = roots
	}
	return safehttp.New(opts)
}

// exchange sends a request and returns the status and body of the answer, or a
// *failure without one.
func exchange(client *safehttp.Client, req *http.Request) (status int, body []byte, err error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, noAnswer(req.Context(), err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, noAnswer(req.Context(), err)
	}
	return resp.StatusCode, body, nil
}

// noAnswer describes an error of safehttp, which names the host and nothing
// else of the request.
func noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return failed(outcomeTimeout, "the provider did not answer in time")
	}
	return failed(outcomeUnreachable, err.Error())
}

// refused describes an answer that does not accept the message. code is the
// provider's own number for it, 0 for none.
func refused(status, code int) error {
	text := fmt.Sprintf("the provider answered %d", status)
	if code != 0 {
		text += " with its error " + strconv.Itoa(code)
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return failed(outcomeAuth, text)
	case status == http.StatusTooManyRequests:
		return failed(outcomeLimited, text)
	case status >= http.StatusInternalServerError:
		return failed(outcomeUnavailable, text)
	default:
		return failed(outcomeRefused, text)
	}
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
