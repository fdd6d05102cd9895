package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push/pushtest"
)

// TestTheExpiryOfACertificateIsShown begins with a certificate that soon expires,
// and renews it.
func TestTheExpiryOfACertificateIsShown(t *testing.T) {
	t.Parallel()
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	ca := pushtest.NewCA(t)
	renew := func(notAfter time.Time) {
		cert := ca.ClientCertificate(t, "org.example.cert", notAfter)
		writeFile(t, filepath.Join(s.dir, "cert.pem"), string(slices.Concat(cert.CertPEM(), cert.KeyPEM(t))))
	}
	soon := time.Now().Add(time.Hour)
	renew(soon)
	s.configure(t, "ABCDE12345", "FGHIJ67890", "  org.example.cert: {type: apns, cert_file: cert.pem}\n")
	g := startGateway(t, s.client, "-config", s.config)
	check := func(notAfter time.Time) {
		t.Helper()
		metrics := g.get(t, g.Admin+"/metrics")
		for _, want := range []string{
			`herald_push_certificate_expiry_timestamp_seconds{app="org.example.cert",provider="apns"} %v`,
			`sygnal_client_cert_expiry{pushkin="org.example.cert"} %v`,
		} {
			if want := fmt.Sprintf(want, float64(notAfter.Unix())) + "\n"; !strings.Contains(metrics, want) {
				t.Errorf("/metrics lacks %s", want)
			}
		}
	}
	check(soon)

	later := soon.Add(24 * time.Hour)
	renew(later)
	g.Await(t, "apps reloaded")
	check(later)
}
