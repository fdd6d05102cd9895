package webpush

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/outbound"
	"github.com/matrix-herald/herald/internal/safehttp"
)

const userAgent = "Herald"

// Options are what all apps of a process share.
type Options = outbound.Options

// Connections are the connections to push services that all apps of a process
// share, across reloads of its configuration.
type Connections struct {
	opts Options

	mu      sync.Mutex
	clients map[string]*safehttp.Client // by the private networks they may reach
}

// NewConnections returns Connections that are not open to anything yet.
func NewConnections(opts Options) *Connections {
	return &Connections{opts: opts.WithDefaults(), clients: make(map[string]*safehttp.Client)}
}

// App is a Config or a UnifiedPush.
type App interface {
	resolve(path string, p *conf.Problems) settings
}

// Open returns the provider of the app with this name, which appears in errors
// and logs, and which has places for so many deliveries at once. Every fault of
// app is in the error.
func (c *Connections) Open(name string, app App, places int) (*Provider, error) {
	var problems conf.Problems
	s := app.resolve(fmt.Sprintf("apps[%q]", name), &problems)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if len(s.keys) == 0 && !s.unified {
		return nil, fmt.Errorf("open app %q: vapid_key_file has not been read", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := fmt.Sprint(s.networks)
	client := c.clients[id]
	if client == nil {
		var err error
		client, err = safehttp.New(safehttp.Options{
			RequireHTTPS: true, AllowNets: s.networks, RootCAs: c.opts.RootCAs, Proxy: c.opts.Proxy, UserAgent: userAgent, Log: c.opts.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("open app %q: %w", name, err)
		}
		c.clients[id] = client
	}
	if len(s.keys) > 0 {
		c.opts.Log.Info("web pages subscribe with this applicationServerKey", "app", name, "key", s.keys[0].public)
	}
	sender := c.opts.Wrap(roundTripper(client.Do))
	return &Provider{settings: s, connections: c, sender: sender, places: places}, nil
}

// Close ends the connections that are idle.
func (c *Connections) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.clients {
		client.CloseIdleConnections()
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
