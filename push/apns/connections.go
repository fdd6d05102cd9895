package apns

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
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
	// teams and tokens stay for as long as the process: what Apple allows a team
	// next depends on what was done before. There are as many as were ever
	// configured.
	teams  map[string]*team
	tokens map[string]*tokenSource // by credential
	links  map[string]*link        // by host and credential
	past   h2pool.Stats            // the counters of links that are closed
}

// link are the connections to a host that show one credential. Connections.mu
// guards it.
type link struct {
	key   string
	pool  *h2pool.Pool
	users int // open providers, and pushes on their way
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
		tokens: make(map[string]*tokenSource),
		links:  make(map[string]*link),
	}
}

// Close cuts all connections. Providers that are still open deliver nothing
// any more.
func (c *Connections) Close() {
	c.mu.Lock()
	links := c.links
	c.closed, c.links = true, nil
	c.mu.Unlock()
	for _, l := range links {
		l.pool.Close()
	}
}

// Stats returns the numbers of all connections together, for metrics.
func (c *Connections) Stats() h2pool.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := c.past
	for _, l := range c.links {
		sum = sum.Plus(l.pool.Stats())
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
		settings:    cfg.settings(),
		connections: c,
		log:         cmp.Or(c.opts.Log, slog.New(slog.DiscardHandler)).With("app", name),
		now:         c.opts.Now,
	}
	cred, err := readCredential(cfg)
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
	p.url, p.transport = host.String()+"/3/device/", c.opts.Wrap(p.link.pool)
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

// connect gives p its share of the provider tokens and connections of cred.
func (c *Connections) connect(p *Provider, host *url.URL, cred credential) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	if cred.key != nil {
		if p.tokens, err = c.tokenSource(cred); err != nil {
			return err
		}
	}
	key := host.Host + " " + cred.id
	p.link = c.links[key]
	if p.link == nil {
		pool, err := c.newPool(host, cred.cert)
		if err != nil {
			return err
		}
		p.link = &link{key: key, pool: pool}
		c.links[key] = p.link
	}
	p.link.users++
	return nil
}

// tokenSource returns the one source of cred's provider tokens. The caller holds
// c.mu.
func (c *Connections) tokenSource(cred credential) (*tokenSource, error) {
	if s := c.tokens[cred.id]; s != nil {
		return s, nil
	}
	if c.teams[cred.teamID] == nil {
		c.teams[cred.teamID] = new(team)
	}
	s, err := newTokenSource(cred, c.teams[cred.teamID], c.opts.Now)
	if err != nil {
		return nil, err
	}
	c.tokens[cred.id] = s
	return s, nil
}

// hold counts one more user of l. It reports whether l is still open.
func (c *Connections) hold(l *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.users == 0 {
		return false
	}
	l.users++
	return true
}

// release counts one user of l less. The last closes it.
func (c *Connections) release(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.users--; l.users > 0 {
		return
	}
	delete(c.links, l.key)
	c.past = c.past.Plus(l.pool.Stats().Counters())
	l.pool.Close()
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
