package apns

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sideshow/apns2"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/push"
)

// Options are what all APNs apps of a process share.
type Options struct {
	Proxy   *url.URL       // answers CONNECT; nil is none
	RootCAs *x509.CertPool // nil is the system's
	Log     *slog.Logger
	Now     func() time.Time // nil is time.Now
	// Wrap, unless nil, is put around what makes the requests, to trace them.
	// The path of a request ends in a device token.
	Wrap func(http.RoundTripper) http.RoundTripper
}

var errClosed = errors.New("connections to APNs are closed")

// Connections holds the connections to Apple and the provider tokens of all
// apps of a process: one pool for each host and credential. It outlives a
// change of configuration, so that providers opened before the old ones are
// closed take over what both use.
type Connections struct {
	opts Options

	mu     sync.Mutex
	closed bool
	// teams stay for as long as the process: what Apple allows a team next
	// depends on what was done before. There are as many as were ever
	// configured.
	teams  map[string]*team
	tokens map[string]*shared[*tokenSource]
	pools  map[string]*shared[*h2pool.Pool]
	past   h2pool.Stats // the counters of pools that are closed
}

type shared[T any] struct {
	value T
	users int
}

// NewConnections returns an empty set of connections.
func NewConnections(opts Options) *Connections {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Wrap == nil {
		opts.Wrap = func(next http.RoundTripper) http.RoundTripper { return next }
	}
	return &Connections{
		opts:   opts,
		teams:  make(map[string]*team),
		tokens: make(map[string]*shared[*tokenSource]),
		pools:  make(map[string]*shared[*h2pool.Pool]),
	}
}

// Close cuts all connections. Providers that are still open deliver nothing
// any more.
func (c *Connections) Close() {
	c.mu.Lock()
	pools := c.pools
	c.closed, c.pools = true, nil
	c.mu.Unlock()
	for _, pool := range pools {
		pool.value.Close()
	}
}

// Stats returns the numbers of all connections together, for metrics.
func (c *Connections) Stats() h2pool.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := c.past
	for _, pool := range c.pools {
		sum = sum.Plus(pool.value.Stats())
	}
	return sum
}

// Open returns a provider for the app called name in logs. It checks the
// credentials as far as that is possible without asking Apple: the errors are
// those of Config.Validate, an unusable key or certificate, and files that
// cannot be read. A certificate that has expired is only logged, because the
// other apps of the process go on.
func (c *Connections) Open(name string, cfg Config) (*Provider, error) {
	var problems conf.Problems
	cfg.Validate(name, &problems)
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("open APNs app: %w", err)
	}
	host, err := cfg.host()
	if err != nil {
		return nil, fmt.Errorf("open APNs app %s: %w", name, err)
	}
	p := &Provider{
		settings: cfg.settings(),
		log:      cmp.Or(c.opts.Log, slog.New(slog.DiscardHandler)).With("app", name),
		now:      c.opts.Now,
		users:    1,
	}
	cred, err := c.credential(cfg)
	if err != nil {
		return nil, fmt.Errorf("open APNs app %s: %w", name, err)
	}
	if cred.cert != nil {
		p.notAfter = cred.cert.Leaf.NotAfter
		p.settings.topic = cmp.Or(p.settings.topic, certificateTopic(cred.cert.Leaf))
		if !bundleID.MatchString(p.settings.topic) {
			return nil, fmt.Errorf("open APNs app %s: the certificate names no topic: set topic to the app's bundle id", name)
		}
		if p.now().After(p.notAfter) {
			p.log.Error("APNs certificate has expired", "not_after", p.notAfter)
		}
	}
	p.settings.deriveVoIP()
	p.fingerprint = push.Fingerprint(strings.Join([]string{host.Host, cred.id, p.settings.topic}, "\x00"))
	p.destination = push.Fingerprint(strings.Join([]string{"apns", host.Host, cred.id}, "\x00"))
	if err := c.connect(p, host, cred); err != nil {
		return nil, fmt.Errorf("open APNs app %s: %w", name, err)
	}
	return p, nil
}

// settings returns what each push needs of c.
func (c Config) settings() settings {
	s := settings{
		topic:       c.Topic,
		pushType:    apns2.EPushType(c.PushType),
		priority:    c.Priority,
		format:      c.PushKeyFormat,
		collapse:    c.Collapse,
		rejectTopic: c.RejectTopicDisallowed,
		payload: PayloadOptions{
			BadgeCounts: c.SendBadgeCounts == nil || *c.SendBadgeCounts, BadgeAlone: c.SendBadgeAlone == nil || *c.SendBadgeAlone,
			Tweaks: c.Tweaks, DefaultSound: c.DefaultSound,
		},
	}
	if c.Expiration != nil {
		s.expiration = new(c.Expiration.Std())
	}
	return s
}

// deriveVoIP makes the pushes of a VoIP topic VoIP pushes.
func (s *settings) deriveVoIP() {
	if s.pushType == "" && strings.HasSuffix(s.topic, voipSuffix) {
		s.pushType = apns2.PushTypeVOIP
	}
	s.payload.VoIP = s.pushType == apns2.PushTypeVOIP || strings.HasSuffix(s.topic, voipSuffix)
}

// credential is what an app identifies itself with to Apple: one of cert and
// source.
type credential struct {
	id     string // the same for the same credential; shows nothing of it
	cert   *tls.Certificate
	source func(*team) (*tokenSource, error)
	teamID string
}

func (c *Connections) credential(cfg Config) (credential, error) {
	if cfg.CertFile != "" {
		cert, err := loadCertificate(cfg)
		if err != nil {
			return credential{}, err
		}
		sum := sha256.Sum256(cert.Leaf.Raw)
		return credential{id: hex.EncodeToString(sum[:]), cert: cert}, nil
	}
	key, err := parseKey(cfg.Key.Reveal())
	if err != nil {
		return credential{}, fmt.Errorf("read key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return credential{}, fmt.Errorf("read key: %w", err)
	}
	sum := sha256.Sum256(public)
	return credential{
		id:     strings.Join([]string{cfg.TeamID, cfg.KeyID, hex.EncodeToString(sum[:])}, "/"),
		teamID: cfg.TeamID,
		source: func(t *team) (*tokenSource, error) {
			return newTokenSource(key, cfg.KeyID, cfg.TeamID, t, c.opts.Now)
		},
	}, nil
}

// connect gives p its share of the tokens and connections of cred.
func (c *Connections) connect(p *Provider, host *url.URL, cred credential) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	poolKey := strings.Join([]string{host.Host, cred.id}, " ")
	pool, err := take(c.pools, poolKey, func() (*h2pool.Pool, error) { return c.newPool(host, cred.cert) })
	if err != nil {
		return err
	}
	if cred.source != nil {
		t := c.teams[cred.teamID]
		if t == nil {
			t = new(team)
			c.teams[cred.teamID] = t
		}
		p.tokens, err = take(c.tokens, cred.id, func() (*tokenSource, error) { return cred.source(t) })
		if err != nil {
			give(c.pools, poolKey, c.closePool)
			return err
		}
	}
	p.url, p.transport = host.String()+"/3/device/", c.opts.Wrap(pool)
	p.release = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		give(c.tokens, cred.id, func(*tokenSource) {})
		give(c.pools, poolKey, c.closePool)
	}
	return nil
}

// closePool closes a pool that nothing uses any more, and keeps its counters.
// The caller holds c.mu.
func (c *Connections) closePool(pool *h2pool.Pool) {
	c.past = c.past.Plus(pool.Stats().Counters())
	pool.Close()
}

func (c *Connections) newPool(host *url.URL, cert *tls.Certificate) (*h2pool.Pool, error) {
	settings := &tls.Config{RootCAs: c.opts.RootCAs, MinVersion: tls.VersionTLS12}
	if cert != nil {
		settings.Certificates = []tls.Certificate{*cert}
	}
	return h2pool.New(h2pool.Options{
		Addr:  net.JoinHostPort(host.Hostname(), cmp.Or(host.Port(), "443")),
		TLS:   settings,
		Proxy: c.opts.Proxy,
		// Apple's table is small and is not to be filled with paths, provider
		// tokens and ids ("Sending notification requests to APNs").
		FullHeaders: true,
	})
}

// take returns the value at key for one more user, made if there is none.
func take[T any](m map[string]*shared[T], key string, create func() (T, error)) (T, error) {
	s := m[key]
	if s == nil {
		value, err := create()
		if err != nil {
			return value, err
		}
		s = &shared[T]{value: value}
		m[key] = s
	}
	s.users++
	return s.value, nil
}

// give is told that one user of the value at key is gone, and ends the value
// with the last.
func give[T any](m map[string]*shared[T], key string, end func(T)) {
	s := m[key]
	if s == nil {
		return
	}
	if s.users--; s.users == 0 {
		delete(m, key)
		end(s.value)
	}
}
