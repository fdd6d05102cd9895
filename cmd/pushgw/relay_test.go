package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/matrix-herald/herald/internal/h2pool"
)

// relayEnv makes the test binary the bare relay that the gateway is measured
// against. It holds a relayConfig.
const relayEnv = "HERALD_BENCH_RELAY"

type relayConfig struct {
	URL     string            // what to POST to
	Header  map[string]string // of each POST
	Body    string
	CA      string // PEM
	Account string // service account to get a bearer token with
}

// runRelay is the least a gateway can do: it decodes the JSON, POSTs a constant
// payload over the same kind of HTTP/2 connections, and answers.
func runRelay(text string) error {
	var cfg relayConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	target, err := url.Parse(cfg.URL)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(cfg.CA))
	pool, err := h2pool.New(h2pool.Options{
		Addr: target.Host, TLS: tlsConfig(roots), FullHeaders: cfg.Account == "", // as the gateway's for APNs
	})
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := cfg.authorise(roots); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	client := &http.Client{Transport: pool}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /_matrix/push/v1/notify", func(w http.ResponseWriter, r *http.Request) {
		if err := cfg.relay(client, r); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"rejected":[]}`)
	})
	mux.HandleFunc("GET /mallocs", func(w http.ResponseWriter, _ *http.Request) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		_, _ = fmt.Fprintf(w, "go_memstats_mallocs_total %d\n", m.Mallocs)
	})
	return http.Serve(listener, mux)
}

// authorise gets a bearer token for the service account, if there is one.
func (c *relayConfig) authorise(roots *x509.CertPool) error {
	if c.Account == "" {
		return nil
	}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig(roots)}})
	account, err := google.JWTConfigFromJSON([]byte(c.Account), "https://www.googleapis.com/auth/firebase.messaging")
	if err != nil {
		return err
	}
	token, err := account.TokenSource(ctx).Token()
	if err != nil {
		return err
	}
	c.Header["Authorization"] = "Bearer " + token.AccessToken
	return nil
}

func (c *relayConfig) relay(client *http.Client, r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var notification any
	if err := json.Unmarshal(body, &notification); err != nil {
		return err
	}
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, c.URL, bytes.NewReader([]byte(c.Body)))
	if err != nil {
		return err
	}
	for name, value := range c.Header {
		out.Header.Set(name, value)
	}
	res, err := client.Do(out)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// relayMain ends the process if it was started as the relay.
func relayMain() {
	text := os.Getenv(relayEnv)
	if text == "" {
		return
	}
	if err := runRelay(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
