package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/crowdtest"
	"github.com/matrix-herald/herald/push/pushtest"
)

// BenchmarkHostileClients sends notifications while ten thousand clients of each
// kind of bad manners are connected, over a connection that is kept and over a
// new one each time.
func BenchmarkHostileClients(b *testing.B) {
	key := pushtest.NewTokenKey(b)
	apns := pushtest.StartAPNs(b, pushtest.APNsOptions{Discard: true})
	gateway := startAPNsBenchGateway(b, apns, key)
	target, err := url.Parse(gateway.url)
	if err != nil {
		b.Fatal(err)
	}
	stranger := *gateway
	stranger.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	body := bodies(strings.Repeat("0123456789abcdef", 4))
	crowdtest.Compare(b, crowdtest.Options{Addr: target.Host, Path: target.Path, Count: 10_000, EveryMillis: 1000}, 3*time.Second, map[string]func() error{
		"kept": func() error { return gateway.notify(b.Context(), body()) },
		"new":  func() error { return stranger.notify(b.Context(), body()) },
	})
}

// startAPNsBenchGateway runs the real binary with one app, whose name is app.
func startAPNsBenchGateway(b *testing.B, apns *pushtest.APNs, key pushtest.TokenKey) *contender {
	b.Helper()
	dir := b.TempDir()
	writeFile(b, filepath.Join(dir, "key.p8"), string(key.P8(b)))
	return startBenchGateway(b, dir, apns.CA(), fmt.Sprintf("{type: apns, topic: org.example.ios, key_file: key.p8, key_id: %s, team_id: %s, endpoint: %q}",
		key.KeyID, key.TeamID, apns.URL()))
}

// answered posts a body and returns the time to the answer, whatever it is.
func (c *contender) answered(b *testing.B, body string) time.Duration {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, c.url, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	res, err := c.client.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		b.Fatal(err)
	}
	return time.Since(begin)
}
