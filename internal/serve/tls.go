package serve

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// keyPair is a certificate that follows its files.
type keyPair struct {
	c    TLSConfig
	log  *slog.Logger
	good prometheus.Gauge // 1 while the files are as they should be

	mu      sync.Mutex
	cert    *tls.Certificate
	seen    [2]fs.FileInfo // the files as they were when last read
	lost    bool           // they could not be looked at
	checked time.Time
}

// openKeyPair reads the files for the first time.
func openKeyPair(c TLSConfig, log *slog.Logger) (*keyPair, error) {
	k := &keyPair{c: c, log: log, checked: time.Now(), good: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "herald_http_certificate_last_reload_successful",
		Help: "1, or 0 while the files of the certificate cannot be used and the old one stays in use.",
	})}
	k.good.Set(1)
	var err error
	if k.seen, err = k.stat(); err != nil {
		return nil, err
	}
	if k.cert, err = k.load(); err != nil {
		return nil, err
	}
	return k, nil
}

// config returns the settings of a TLS server with this certificate.
func (k *keyPair) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return k.current(time.Now()), nil
		},
	}
}

// current returns the certificate, after looking for a new one if it is time. It
// reads files under the lock: they are small and seldom change.
func (k *keyPair) current(now time.Time) *tls.Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.checked) < k.c.ReloadInterval.Std() {
		return k.cert
	}
	k.checked = now
	// The state is taken before reading, so that a change in between is seen the
	// next time; it is kept also when reading fails, to log each fault once.
	seen, err := k.stat()
	if err != nil {
		if !k.lost {
			k.log.Warn("tls certificate cannot be looked at, the old one stays", "err", err)
		}
		k.lost = true
		k.good.Set(0)
		return k.cert
	}
	k.lost = false
	if unchanged(seen[0], k.seen[0]) && unchanged(seen[1], k.seen[1]) {
		return k.cert
	}
	k.seen = seen
	cert, err := k.load()
	if err != nil {
		k.log.Error("new tls certificate cannot be used, the old one stays", "err", err)
		k.good.Set(0)
		return k.cert
	}
	k.good.Set(1)
	k.cert = cert
	k.log.Info("tls certificate reloaded", "not_after", cert.Leaf.NotAfter)
	return k.cert
}

func (k *keyPair) stat() (seen [2]fs.FileInfo, err error) {
	for i, name := range []string{k.c.CertFile, k.c.KeyFile} {
		if seen[i], err = os.Stat(name); err != nil {
			return seen, fmt.Errorf("find the tls files: %w", err)
		}
	}
	return seen, nil
}

func (k *keyPair) load() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(k.c.CertFile, k.c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the tls files: %w", err)
	}
	return &cert, nil
}

func unchanged(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
