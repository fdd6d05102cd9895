// Package doctor runs the checks of the doctor commands one after the other and
// prints what each of them saw. The programs decide what to check.
package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/matrix-herald/herald/internal/redisconn"
)

const (
	// patience is for one check.
	patience = 15 * time.Second
	// atOnce is how many checks run at the same time.
	atOnce = 8
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
)

var errSlow = fmt.Errorf("no answer within %s", patience)

// Check is one thing to look at.
type Check struct {
	Name string
	// Look returns what it saw in a few words, or why all is not well. It must
	// return when its context ends.
	Look func(context.Context) (saw string, err error)
	// Remedy says what to do if all is not well.
	Remedy string
}

// Run writes a line for each check, in their order, and under what failed its
// remedy. It returns an error if anything failed.
func Run(ctx context.Context, w io.Writer, checks []Check) error {
	type result struct {
		saw  string
		err  error
		took time.Duration
	}
	results := make([]chan result, len(checks))
	slots := make(chan struct{}, atOnce)
	for i, c := range checks {
		results[i] = make(chan result, 1)
		go func() { // ends within patience; Run waits for its result
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeoutCause(ctx, patience, errSlow)
			defer cancel()
			start := time.Now()
			saw, err := c.Look(ctx)
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			results[i] <- result{saw, err, time.Since(start)}
		}()
	}
	failed := 0
	for i, c := range checks {
		r := <-results[i]
		word, text := "ok", r.saw
		if r.err != nil {
			failed++
			word, text = "FAILED", r.err.Error()
		}
		fmt.Fprintf(w, "%-6s %5d ms  %s: %s\n", word, r.took.Milliseconds(), c.Name, printable(text))
		if r.err != nil {
			fmt.Fprintf(w, "%17s%s\n", "", c.Remedy)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(checks))
	}
	return nil
}

// printable puts what others wrote on one line that plays no tricks on a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return ' '
	}, s)
}

// Redis checks that Redis answers; none if there is no Redis.
func Redis(c redisconn.Config) []Check {
	if !c.Enabled() {
		return nil
	}
	return []Check{{
		Name: "redis " + strings.Join(c.Addresses(), ", "),
		Look: func(ctx context.Context) (string, error) {
			client, err := c.Open()
			if err != nil {
				return "", err
			}
			defer client.Close()
			if err := client.Ping(ctx).Err(); err != nil {
				return "", err
			}
			return "answers", nil
		},
		Remedy: "redis: is it running, does a firewall let this machine in, are username, password and tls right?",
	}}
}

// Get asks url, which may have a certificate of one of roots (nil: the system's),
// and returns status and body of the answer. It follows no redirect.
func Get(ctx context.Context, url string, roots *x509.CertPool) (status int, body string, err error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return res.StatusCode, string(data), err
}
