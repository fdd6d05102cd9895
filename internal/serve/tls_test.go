package serve_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// pair is a certificate and its key in files.
type pair struct {
	cert, key string
	written   time.Time
}

func newPair(t *testing.T) *pair {
	t.Helper()
	dir := t.TempDir()
	return &pair{cert: dir + "/cert.pem", key: dir + "/key.pem", written: time.Now()}
}

// write makes a certificate with this common name.
func (p *pair) write(t *testing.T, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter:     time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p.put(t, p.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	p.put(t, p.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// put writes a file, each time with a later modification time: the clock of the
// file system is too coarse to tell the writes of a test apart.
func (p *pair) put(t *testing.T, path string, data []byte) {
	t.Helper()
	p.written = p.written.Add(time.Second)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, p.written, p.written); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) clientConfig() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true} // the name in the certificate is what is tested
}

// served returns the common name of the certificate that addr serves, to a
// client that speaks at most this version of TLS.
func (p *pair) served(t *testing.T, addr net.Addr, version uint16) (string, error) {
	t.Helper()
	c := p.clientConfig()
	c.MaxVersion = version
	conn, err := (&tls.Dialer{Config: c}).DialContext(t.Context(), "tcp", addr.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// Conformance (pushgw): the certificate follows its files; a fault of them is logged once, and a metric shows it
func TestTheCertificateFollowsItsFiles(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.write(t, "one")
	o := options(hello)
	o.Config.TLS.CertFile, o.Config.TLS.KeyFile = p.cert, p.key
	o.Config.TLS.ReloadInterval = 0 // looks at every handshake
	reg := prometheus.NewRegistry()
	o.Registerer = reg
	s := start(t, o)
	good := func(want int) {
		t.Helper()
		if err := testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`# HELP herald_http_certificate_last_reload_successful 1, or 0 while the files of the certificate cannot be used and the old one stays in use.
# TYPE herald_http_certificate_last_reload_successful gauge
herald_http_certificate_last_reload_successful %d
`, want))); err != nil {
			t.Error(err)
		}
	}
	good(1)
	expect := func(want string) {
		t.Helper()
		if got, err := p.served(t, s.api[0], tls.VersionTLS13); got != want || err != nil {
			t.Errorf("serves %q (%v), want %q", got, err, want)
		}
	}
	expect("one")
	p.write(t, "two")
	expect("two")
	p.put(t, p.key, []byte("half of a key"))
	expect("two")
	expect("two")
	const refused = "new tls certificate cannot be used"
	if n := strings.Count(s.logs.String(), refused); n != 1 {
		t.Errorf("the bad pair was logged %d times, want once", n)
	}
	if err := os.Remove(p.key); err != nil {
		t.Fatal(err)
	}
	expect("two")
	expect("two")
	if n := strings.Count(s.logs.String(), "level=WARN msg=\"tls certificate cannot be looked at"); n != 1 {
		t.Errorf("the missing file was logged %d times, want once", n)
	}
	good(0)
	p.write(t, "three")
	expect("three")
	good(1)
}

func TestTheFilesAreNotLookedAtMoreOftenThanTold(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.write(t, "one")
	o := options(hello)
	o.Config.TLS.CertFile, o.Config.TLS.KeyFile = p.cert, p.key
	o.Config.TLS.ReloadInterval *= 1000
	s := start(t, o)
	p.write(t, "two")
	if got, err := p.served(t, s.api[0], tls.VersionTLS13); got != "one" || err != nil {
		t.Errorf("serves %q (%v), want \"one\"", got, err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.write(t, "one")
	o := options(hello)
	o.Config.TLS.CertFile, o.Config.TLS.KeyFile = p.cert, p.key
	s := start(t, o)
	if _, err := p.served(t, s.api[0], tls.VersionTLS12); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	if _, err := p.served(t, s.api[0], tls.VersionTLS11); err == nil {
		t.Error("TLS 1.1 was taken")
	}
}

func TestStrangersAtThePortAreLoggedWithoutTheirAddress(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.write(t, "one")
	o := options(hello)
	o.Config.TLS.CertFile, o.Config.TLS.KeyFile = p.cert, p.key
	s := start(t, o)
	conn := dial(t, s)
	if _, err := io.WriteString(conn, "no TLS at all, but long enough for a header\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil { // the server logs, then closes
		t.Logf("read: %v", err)
	}
	s.stop()
	close(s.abort)
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}
	var found bool
	for line := range strings.Lines(s.logs.String()) {
		if strings.Contains(line, "TLS handshake error") {
			found = strings.Contains(line, "level=DEBUG") && strings.Contains(line, "[address]") && !strings.Contains(line, "127.0.0.1")
		}
	}
	if !found {
		t.Errorf("log:\n%s", s.logs)
	}
}

func TestAUnixSocketSpeaksNoTLS(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.write(t, "one")
	o := options(hello)
	o.Config.TLS.CertFile, o.Config.TLS.KeyFile = p.cert, p.key
	o.Config.Listen = []string{"unix:" + t.TempDir() + "/s"}
	if got := ask(t, dial(t, start(t, o))); got != http.StatusOK {
		t.Errorf("status %d", got)
	}
}
