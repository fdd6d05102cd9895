package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/safehttp"
)

const (
	defaultPort = 8448

	// maxTargets bounds the SRV targets tried for one request.
	maxTargets = 8
)

// errNoService means SRV records say that there is no federation here.
var errNoService = errors.New("the SRV record names no target")

// Destination is where and how a homeserver is reached.
type Destination struct {
	// CertName is the host name or IP address the certificate must hold.
	CertName string
	// Host is the Host header.
	Host string
	// Addrs are host:port to connect to, in the order to try them.
	Addrs []string
}

// Resolver finds out where homeservers are (Server-Server API, "Resolving
// server names"). It is safe for concurrent use.
type Resolver struct {
	http          *safehttp.Client
	dns           *net.Resolver
	now           func() time.Time
	cache         cache[entry]
	flights       flights[Destination]
	wellKnownPort uint16
}

// NewResolver returns a resolver that looks up .well-known files and DNS
// records as opts say.
func NewResolver(opts Options) (*Resolver, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	client, err := safehttp.New(safehttp.Options{
		// A server that hangs leaves time for the other ways to find it.
		Timeout:      opts.Timeout / 2,
		MaxBody:      maxWellKnownBytes,
		MaxRedirects: maxWellKnownRedirects,
		RequireHTTPS: true,
		AllowNets:    opts.AllowNets,
		RootCAs:      opts.RootCAs,
		Proxy:        opts.Proxy,
		Resolver:     opts.Resolver,
		UserAgent:    opts.UserAgent,
		Connecting:   connecting,
		Log:          opts.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Resolver{
		http:          client,
		dns:           opts.Resolver,
		now:           opts.Now,
		cache:         newCache[entry](maxCached),
		wellKnownPort: opts.wellKnownPort,
	}, nil
}

// Resolve returns the destination of name. Concurrent calls for one name do the
// work once. It fails when DNS does not say whether there are SRV records, when
// they say there is no service, and with ctx.
func (r *Resolver) Resolve(ctx context.Context, name ServerName) (Destination, error) {
	if name.isExplicit() {
		return name.direct(), nil
	}
	return r.flights.do(ctx, name.name, func() (Destination, error) { return r.discover(ctx, name) })
}

// CloseIdleConnections closes connections that are not in use.
func (r *Resolver) CloseIdleConnections() { r.http.CloseIdleConnections() }

// discover follows steps 3 to 6. Every step after .well-known treats the
// delegated name just as it would treat the original one.
func (r *Resolver) discover(ctx context.Context, name ServerName) (Destination, error) {
	delegated, err := r.wellKnown(ctx, name.host)
	if err != nil {
		return Destination{}, err
	}
	if delegated.name != "" {
		name = delegated
	}
	if ctx.Err() != nil {
		return Destination{}, context.Cause(ctx)
	}
	if name.isExplicit() {
		return name.direct(), nil
	}
	targets, err := r.lookupSRV(ctx, name.host)
	if err != nil {
		return Destination{}, err
	}
	d := name.direct()
	if len(targets) > 0 {
		d.Addrs = targets
	}
	return d, nil
}

// isExplicit reports whether name itself says where to connect to.
func (n ServerName) isExplicit() bool { return n.addr.IsValid() || n.port != 0 }

// direct is the destination of a name without further lookups but that of its
// address: steps 1, 2, 3.1, 3.2, 3.5 and 6.
func (n ServerName) direct() Destination {
	port := n.port
	if port == 0 {
		port = defaultPort
	}
	return Destination{
		CertName: n.host,
		Host:     n.name,
		Addrs:    []string{joinHostPort(n.host, port)},
	}
}

// lookupSRV returns the targets of the SRV records of host (steps 3.3, 3.4, 4
// and 5), and none when there is no record. The records of the registered
// service hide those of the deprecated one.
func (r *Resolver) lookupSRV(ctx context.Context, host string) ([]string, error) {
	for _, service := range [...]string{"matrix-fed", "matrix"} {
		// The final dot keeps the machine's search list out of it.
		_, records, err := r.dns.LookupSRV(ctx, service, "tcp", host+".")
		if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
			continue
		}
		// Malformed records come as an error beside the good ones.
		if err != nil && len(records) == 0 {
			return nil, fmt.Errorf("look up SRV records: %w", err)
		}
		return srvTargets(records)
	}
	return nil, nil
}

// srvTargets returns the addresses of records, which are in the order of
// priority and weight. A target of "." means that the service is decidedly not
// available (RFC 2782), which is not the same as no record.
func srvTargets(records []*net.SRV) ([]string, error) {
	var targets []string
	for _, record := range records {
		if record.Target == "." || record.Port == 0 {
			continue
		}
		targets = append(targets, joinHostPort(record.Target, record.Port))
		if len(targets) == maxTargets {
			break
		}
	}
	if len(targets) == 0 {
		return nil, errNoService
	}
	return targets, nil
}

// joinHostPort makes an address to connect to. A host name of more than one
// label gets a final dot, which keeps the machine's search list out of it.
func joinHostPort(host string, port uint16) string {
	_, err := netip.ParseAddr(host)
	if isName := err != nil; isName && strings.Contains(host, ".") && !strings.HasSuffix(host, ".") {
		host += "."
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
