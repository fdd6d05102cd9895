package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
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
	// P256dh and Auth are the keys of the subscription that Body is encrypted for, nil
	// for none.
	P256dh, Auth []byte
}

// runRelay is the least a gateway can do: it decodes the JSON, POSTs a constant
// payload over net/http's HTTP/2, which writes each frame by itself, and answers.
func runRelay(text string) error {
	var cfg relayConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(cfg.CA))
	if err := cfg.authorise(roots); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	client := &http.Client{Transport: cfg.transport(roots)}
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

// transport opens as many connections as the push service's bound of streams makes
// necessary, with the settings that internal/h2pool gives to its connections.
func (c *relayConfig) transport(roots *x509.CertPool) *http.Transport {
	var h2 http.Protocols
	h2.SetHTTP2(true)
	transport := &http.Transport{
		TLSClientConfig: tlsConfig(roots), Protocols: &h2, DisableCompression: true,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 5 * time.Second, MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 1 << 20,
		},
	}
	if c.Account == "" {
		transport.HTTP2.MaxEncoderHeaderTableSize = 1 // as the gateway's for APNs
	}
	return transport
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
	payload := []byte(c.Body)
	if c.P256dh != nil {
		if payload, err = c.encrypt(); err != nil {
			return err
		}
	}
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, c.URL, bytes.NewReader(payload))
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
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated {
		return errors.New(res.Status)
	}
	return nil
}

// encrypt returns the body as Web Push has it (RFC 8291), with a key and a salt of
// its own each time.
func (c *relayConfig) encrypt() ([]byte, error) {
	public, err := ecdh.P256().NewPublicKey(c.P256dh)
	if err != nil {
		return nil, err
	}
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	shared, err := private.ECDH(public)
	if err != nil {
		return nil, err
	}
	own, salt := private.PublicKey().Bytes(), make([]byte, 16)
	_, _ = rand.Read(salt)
	ikm, _ := hkdf.Key(sha256.New, shared, c.Auth, "WebPush: info\x00"+string(c.P256dh)+string(own), 32)
	key, _ := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: aes128gcm\x00", 16)
	nonce, _ := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: nonce\x00", 12)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	body := append(binary.BigEndian.AppendUint32(salt, 4096), 65)
	return gcm.Seal(append(body, own...), nonce, append([]byte(c.Body), 2), nil), nil
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
