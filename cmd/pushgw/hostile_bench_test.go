package main

import (
	"fmt"
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
	dir := b.TempDir()
	writeFile(b, filepath.Join(dir, "key.p8"), string(key.P8(b)))
	gateway := startBenchGateway(b, dir, apns.CA(), fmt.Sprintf("{type: apns, topic: org.example.ios, key_file: key.p8, key_id: %s, team_id: %s, endpoint: %q}",
		key.KeyID, key.TeamID, apns.URL()))
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
