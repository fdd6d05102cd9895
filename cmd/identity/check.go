package main

import (
	"crypto/tls"
	"fmt"
	"net/url"

	"github.com/matrix-herald/herald/internal/serve"
)

// warnings say what of the configuration works but should not stay so.
func (c *Config) warnings() []string {
	u, err := url.Parse(c.PublicBaseURL)
	if err != nil || u.Scheme != "http" || isLoopbackHost(u.Hostname()) {
		return nil
	}
	return []string{"public_base_url: it is not https, so tokens and codes can be read on their way"}
}

// checkPair reports whether the API's certificate and key can be used.
func checkPair(c serve.TLSConfig) error {
	if c.CertFile == "" || c.KeyFile == "" {
		return nil
	}
	if _, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile); err != nil {
		return fmt.Errorf("http.tls: cert_file and key_file must be a certificate chain and its key in PEM form: %w", err)
	}
	return nil
}
