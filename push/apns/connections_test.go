package apns_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/apns"
	"github.com/matrix-herald/herald/push/pushtest"
)

func TestAppsShareConnections(t *testing.T) {
	t.Parallel()
	key := pushtest.NewTokenKey(t)
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{})
	connections := connect(t, apns.Options{RootCAs: fake.CA().Pool()})
	sendOne := func(p *apns.Provider) {
		t.Helper()
		send(t, app{p, fake}, delivery(message("@a:x", "", "hi")))
	}
	expect := func(why string, want int) {
		t.Helper()
		if got := fake.Connections(); got != want {
			t.Errorf("%s: %d connections have been made, want %d", why, got, want)
		}
	}
	cfg := tokenConfig(t, key, fake.URL())
	first := open(t, connections, cfg)
	cfg.Topic = "org.example.second"
	second := open(t, connections, cfg)
	sendOne(first)
	sendOne(second)
	expect("two apps with one key", 1)

	// A change of configuration opens the new providers before it closes the
	// old ones.
	third := open(t, connections, cfg)
	first.Close()
	first.Close() // again is nothing
	second.Close()
	sendOne(third)
	expect("a provider opened while the old ones were there", 1)

	other := tokenConfig(t, pushtest.NewTokenKey(t), fake.URL())
	sendOne(open(t, connections, other))
	expect("an app with another key", 2)
	if got := connections.Stats(); got.Open != 2 || got.Dials != 2 || got.InFlight != 0 {
		t.Errorf("the numbers are %+v, want two connections at rest", got)
	}

	third.Close()
	last := open(t, connections, cfg)
	sendOne(last)
	expect("a provider opened after the last was closed", 3)
	if got := connections.Stats(); got.Open != 2 || got.Dials != 3 {
		t.Errorf("the numbers are %+v, want two connections and three dials", got)
	}
	connections.Close()
	got := last.Send(t.Context(), delivery(message("@a:x", "", "hi")))
	if _, err := connections.Open("app", cfg); err == nil || got.Reason != push.ReasonConnection || !got.Unprocessed {
		t.Errorf("closed connections: got %+v, and an app opens with %v", got, err)
	}
}

func TestPushesOnTheirWayOutliveAClosedProvider(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan struct{}), make(chan struct{})
	a := start(t, pushtest.APNsOptions{Answer: func(pushtest.APNsRequest) pushtest.APNsAnswer {
		close(arrived)
		<-answer
		return pushtest.APNsAnswer{}
	}}, nil)
	got := make(chan push.Outcome)
	go func() { got <- a.Send(t.Context(), delivery(message("@a:x", "", "hi"))) }()
	<-arrived
	a.Close()
	close(answer)
	if got := <-got; got.Kind != push.Accepted {
		t.Errorf("got %+v, want accepted", got)
	}
	if got := a.Send(t.Context(), delivery(message("@a:x", "", "hi"))); got.Reason != push.ReasonConnection || !got.Unprocessed {
		t.Errorf("afterwards got %+v, want a connection that processed nothing", got)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRequestsAreMadeThroughWrap(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{})
	wrapped := 0
	connections := connect(t, apns.Options{RootCAs: fake.CA().Pool(), Wrap: func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			wrapped++
			return next.RoundTrip(r)
		})
	}})
	send(t, app{open(t, connections, tokenConfig(t, pushtest.NewTokenKey(t), fake.URL())), fake}, delivery(message("@a:x", "", "hi")))
	if wrapped != 1 {
		t.Errorf("%d requests were made through Wrap, want 1", wrapped)
	}
}

func TestTheProxyIsUsed(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{})
	proxy := &url.URL{Scheme: "http", Host: pushtest.RefusedAddr(t)}
	connections := connect(t, apns.Options{RootCAs: fake.CA().Pool(), Proxy: proxy})
	provider := open(t, connections, tokenConfig(t, pushtest.NewTokenKey(t), fake.URL()))
	if got := provider.Send(t.Context(), delivery(message("@a:x", "", "hi"))); got.Reason != push.ReasonConnection {
		t.Errorf("got %+v, want no connection through a proxy that is not there", got)
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	key := pushtest.NewTokenKey(t)
	connections := connect(t, apns.Options{})
	base := tokenConfig(t, key, "")
	fingerprint := func(change func(*apns.Config)) string {
		cfg := base
		change(&cfg)
		return open(t, connections, cfg).Fingerprint()
	}
	same := fingerprint(func(*apns.Config) {})
	for name, change := range map[string]func(*apns.Config){
		"host":    func(c *apns.Config) { c.Platform = apns.PlatformSandbox },
		"topic":   func(c *apns.Config) { c.Topic = "org.example.second" },
		"team":    func(c *apns.Config) { c.TeamID = "OTHERTEAM0" },
		"key id":  func(c *apns.Config) { c.KeyID = "OTHERKEY00" },
		"the key": func(c *apns.Config) { c.Key = conf.Secret(pushtest.NewTokenKey(t).P8(t)) },
	} {
		if fingerprint(change) == same {
			t.Errorf("%s: another one has the same fingerprint", name)
		}
	}
	for name, change := range map[string]func(*apns.Config){
		"the platform's own endpoint": func(c *apns.Config) { c.Endpoint = "https://api.push.apple.com/" },
		"what shapes the payload":     func(c *apns.Config) { c.SoundAndHighlight, c.Collapse = true, apns.CollapseRoom },
	} {
		if fingerprint(change) != same {
			t.Errorf("%s: changes the fingerprint", name)
		}
	}
	destination := func(change func(*apns.Config)) string {
		cfg := base
		change(&cfg)
		return open(t, connections, cfg).Destination(nil)
	}
	ours := destination(func(*apns.Config) {})
	if destination(func(c *apns.Config) { c.Topic = "org.example.second" }) != ours {
		t.Error("two topics of one key have two destinations")
	}
	if destination(func(c *apns.Config) { c.Platform = apns.PlatformSandbox }) == ours || destination(func(c *apns.Config) { c.TeamID = "OTHERTEAM0" }) == ours {
		t.Error("two hosts or teams share a destination")
	}
	if strings.Contains(same, topic) || strings.Contains(same, key.KeyID) {
		t.Errorf("the fingerprint %q shows what it stands for", same)
	}
}

// Conformance (APNs): certificates: PEM in all forms, PKCS #12 of OpenSSL 3 (also TestUnusableCredentials)
func TestCertificates(t *testing.T) {
	t.Parallel()
	ca := pushtest.NewCA(t)
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{ClientCA: ca})
	notAfter := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	cert := ca.ClientCertificate(t, topic, notAfter)
	for name, test := range map[string]struct {
		file, key []byte
		password  conf.Secret
	}{
		"PEM with its key":                {file: slices.Concat(cert.CertPEM(), cert.KeyPEM(t))},
		"PEM after its key":               {file: slices.Concat([]byte("Bag Attributes\n"), cert.KeyPEM(t), cert.CertPEM())},
		"PEM with an EC key":              {file: slices.Concat(cert.CertPEM(), ecKey(t, cert.Key))},
		"PEM with its chain":              {file: slices.Concat(cert.CertPEM(), ca.PEM(), cert.KeyPEM(t))},
		"PKCS #12 with a password":        {file: cert.P12(t, "secret"), password: "secret"},
		"PKCS #12 with an empty password": {file: cert.P12(t, "")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := apns.Config{CertFile: write(t, test.file), CertPassword: test.password, Endpoint: fake.URL()}
			provider := open(t, connect(t, apns.Options{RootCAs: fake.CA().Pool()}), cfg)
			if got := provider.NotAfter(); !got.Equal(notAfter) {
				t.Errorf("the certificate expires %v, want %v", got, notAfter)
			}
			if got := provider.Send(t.Context(), delivery(message("@a:x", "", "hi"))); got.Kind != push.Accepted {
				t.Fatalf("got %+v, want accepted", got)
			}
		})
	}
	t.Cleanup(func() {
		for _, r := range fake.Requests() {
			if r.Header.Get("apns-topic") != topic || r.Header.Get("authorization") != "" {
				t.Errorf("topic %q and authorization %q, want the certificate's topic alone", r.Header.Get("apns-topic"), r.Header.Get("authorization"))
			}
		}
	})
}

func TestARefusedCertificateIsAboutCredentials(t *testing.T) {
	t.Parallel()
	fake := pushtest.StartAPNs(t, pushtest.APNsOptions{ClientCA: pushtest.NewCA(t)})
	cert := pushtest.NewCA(t).ClientCertificate(t, topic, time.Now().Add(time.Hour))
	cfg := apns.Config{CertFile: write(t, slices.Concat(cert.CertPEM(), cert.KeyPEM(t))), Endpoint: fake.URL()}
	provider := open(t, connect(t, apns.Options{RootCAs: fake.CA().Pool()}), cfg)
	got := provider.Send(t.Context(), delivery(message("@a:x", "", "hi")))
	if got.Kind != push.Temporary || got.Reason != push.ReasonCredentials || got.Evidence != push.EvidenceRefused || !got.Unprocessed {
		t.Errorf("got %+v, want credentials", got)
	}
}

func TestAnExpiredCertificateIsLogged(t *testing.T) {
	t.Parallel()
	cert := pushtest.NewCA(t).ClientCertificate(t, topic, time.Now().Add(-time.Hour))
	var log bytes.Buffer
	connections := apns.NewConnections(apns.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	t.Cleanup(connections.Close)
	provider := open(t, connections, apns.Config{CertFile: write(t, slices.Concat(cert.CertPEM(), cert.KeyPEM(t)))})
	if !strings.Contains(log.String(), "level=ERROR") || !provider.NotAfter().Before(time.Now()) {
		t.Errorf("the log says %q", log.String())
	}
}

func TestUnusableCredentials(t *testing.T) {
	t.Parallel()
	ca := pushtest.NewCA(t)
	cert, other := ca.ClientCertificate(t, topic, time.Now().Add(time.Hour)), ca.ClientCertificate(t, topic, time.Now().Add(time.Hour))
	nameless := ca.ClientCertificate(t, "", time.Now().Add(time.Hour))
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})
	legacy := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte{1}})
	certFile := func(parts ...[]byte) apns.Config { return apns.Config{CertFile: write(t, slices.Concat(parts...))} }
	withPassword := certFile(cert.P12(t, "secret"))
	withPassword.CertPassword = "wrong"
	for name, test := range map[string]struct {
		cfg  apns.Config
		want string
	}{
		"no such file":                  {apns.Config{CertFile: filepath.Join(t.TempDir(), "none.pem")}, "no such file"},
		"no certificate at all":         {certFile([]byte("hello")), "no certificate"},
		"an empty file":                 {certFile(), "no certificate"},
		"a key without a certificate":   {certFile(cert.KeyPEM(t)), "no certificate"},
		"a certificate without a key":   {certFile(cert.CertPEM()), "no private key"},
		"a certificate with other key":  {certFile(cert.CertPEM(), other.KeyPEM(t)), "does not match"},
		"an encrypted key":              {certFile(cert.CertPEM(), encrypted), "encrypted"},
		"a key encrypted as of old":     {certFile(cert.CertPEM(), legacy), "encrypted"},
		"a wrong password":              {withPassword, "cert_password"},
		"a certificate without a topic": {certFile(nameless.CertPEM(), nameless.KeyPEM(t)), "topic"},
	} {
		_, err := connect(t, apns.Options{}).Open("app", test.cfg)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: the error is %v, want one about %q", name, err, test.want)
		}
	}
}

func TestUnusableKeys(t *testing.T) {
	t.Parallel()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	key := pushtest.NewTokenKey(t)
	for name, text := range map[string][]byte{
		"a key on another curve":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"a key in another form":      ecKey(t, key.Key),
		"something else in PEM form": pushtest.NewCA(t).PEM(),
		"something else":             []byte("topsecret"),
	} {
		cfg := tokenConfig(t, key, "")
		cfg.Key = conf.Secret(text)
		_, err := connect(t, apns.Options{}).Open("app", cfg)
		if err == nil || !strings.Contains(err.Error(), "P-256") || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: the error is %v, want one about the key", name, err)
		}
	}
}

func ecKey(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

func write(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
