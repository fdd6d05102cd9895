package safehttp

import (
	"crypto/x509"
	"fmt"
	"os"
)

// LoadRootCAs returns the system's certificate authorities and those in the
// PEM file at path. A file without a certificate is an error.
func LoadRootCAs(path string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("load the system's certificate authorities: %w", err)
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load certificate authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load certificate authorities: no certificate in %s", path)
	}
	return pool, nil
}
