package safehttp

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
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
	if fault, ok := errors.AsType[*fs.PathError](err); ok { // whoever asks knows the path
		err = fault.Err
	}
	if err != nil {
		return nil, fmt.Errorf("load certificate authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("load certificate authorities: there is no certificate in it")
	}
	return pool, nil
}
