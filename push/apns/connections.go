package apns

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"

	"github.com/sideshow/apns2"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/h2pool"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/push"
)

// Options are what all APNs apps of a process share.
type Options = outbound.Options

// Connections holds the connections to Apple and the provider tokens of all
// apps of a process: one pool for each host and credential. It outlives a
// change of configuration, so that providers opened before the old ones are
// closed take over what both use.
type Connections struct {
	h2pool.Shared[*h2pool.Pool]

	opts Options

	// teams and tokens stay for as long as the process: what Apple allows a team
	// next depends on what was done before. There are as many as were ever
	// configured.
	mu     sync.Mutex
	teams  map[string]*team
	tokens map[string]*tokenSource // by credential
}

// NewConnections returns an empty set of connections.
func NewConnections(opts Options) *Connections {
	return &Connections{opts: opts.WithDefaults(), teams: make(map[string]*team), tokens: make(map[string]*tokenSource)}
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
	cred, err := readCredential(cfg)
	if err != nil {
		return nil, fmt.Errorf("open APNs app %s: %w", name, err)
	}
	p := &Provider{cfg: cfg, now: c.opts.Now}
	if cred.cert != nil {
		p.notAfter = cred.cert.Leaf.NotAfter
		p.cfg.Topic = cmp.Or(cfg.Topic, certificateTopic(cred.cert.Leaf))
		if !bundleID.MatchString(p.cfg.Topic) {
			return nil, fmt.Errorf("open APNs app %s: the certificate names no topic: set topic to the app's bundle id", name)
		}
		if p.now().After(p.notAfter) {
			c.opts.Log.Error("APNs certificate has expired", "app", name, "not_after", p.notAfter)
		}
	}
	voip := strings.HasSuffix(p.cfg.Topic, voipSuffix)
	if cfg.PushType == "" && voip {
		p.cfg.PushType = string(apns2.PushTypeVOIP)
	}
	p.payload = PayloadOptions{
		BadgeCounts: cfg.Badge != BadgeOff, BadgeAlone: cfg.Badge != BadgeOff && cfg.Badge != BadgeWithEvents,
		Tweaks: cfg.SoundAndHighlight, DefaultSound: cfg.DefaultSound, VoIP: voip || p.cfg.PushType == string(apns2.PushTypeVOIP),
	}
	p.fingerprint = push.Fingerprint(strings.Join([]string{host.Host, cred.id, p.cfg.Topic}, "\x00"))
	p.destination = push.Fingerprint(strings.Join([]string{"apns", host.Host, cred.id}, "\x00"))
	if err := c.connect(p, host, cred); err != nil {
		return nil, fmt.Errorf("open APNs app %s: %w", name, err)
	}
	p.url, p.transport = host.String()+"/3/device/", c.opts.Wrap(p.pool.Of)
	return p, nil
}

// connect gives p its share of the provider tokens and connections of cred.
func (c *Connections) connect(p *Provider, host *url.URL, cred credential) (err error) {
	var certificates []tls.Certificate
	if cred.cert != nil {
		certificates = append(certificates, *cred.cert)
	} else if p.tokens, err = c.tokenSource(cred); err != nil {
		return err
	}
	p.pool, err = c.Shared.Open(host.Host+" "+cred.id, func() (*h2pool.Pool, error) {
		return h2pool.New(h2pool.Options{
			Addr: net.JoinHostPort(host.Hostname(), cmp.Or(host.Port(), "443")), TLS: c.opts.TLS(certificates...), Proxy: c.opts.Proxy,
			// Apple's table is small and is not to be filled with paths, provider
			// tokens and ids ("Sending notification requests to APNs").
			FullHeaders: true,
		})
	})
	return err
}

// tokenSource returns the one source of cred's provider tokens.
func (c *Connections) tokenSource(cred credential) (*tokenSource, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.tokens[cred.id]; s != nil {
		return s, nil
	}
	if c.teams[cred.teamID] == nil {
		c.teams[cred.teamID] = new(team)
	}
	s, err := newTokenSource(cred, c.teams[cred.teamID], c.opts.Now)
	if err == nil {
		c.tokens[cred.id] = s
	}
	return s, err
}
