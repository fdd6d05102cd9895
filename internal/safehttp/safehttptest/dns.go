// Package safehttptest has what tests of outbound HTTP need on the loopback
// interface: a name server whose answers the test chooses, and a certificate
// authority with TLS servers. It opens no connection itself.
package safehttptest

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// DNS is a name server on 127.0.0.1. It answers NXDOMAIN for names it was not
// told about. It is safe for concurrent use.
type DNS struct {
	addr string

	mu      sync.Mutex
	records map[question][]answer
	asked   map[question]int
}

type question struct {
	name  string // lower case, with the final dot
	qtype uint16
}

// answer is one reply; the last one of a question is repeated.
type answer struct {
	rcode   int
	silent  bool
	records []dns.RR
}

// NewDNS starts a name server that stops at the end of the test.
func NewDNS(t testing.TB) *DNS {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &DNS{
		addr:    conn.LocalAddr().String(),
		records: make(map[question][]answer),
		asked:   make(map[question]int),
	}
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: conn, Handler: d, NotifyStartedFunc: func() { close(started) }}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.ActivateAndServe(); err != nil {
			t.Errorf("name server: %v", err)
		}
	})
	<-started
	t.Cleanup(func() {
		if err := srv.Shutdown(); err != nil {
			t.Errorf("stop the name server: %v", err)
		}
		wg.Wait()
	})
	return d
}

// Resolver returns a resolver that asks only this server.
func (d *DNS) Resolver() *net.Resolver {
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", d.addr)
		},
	}
}

// Host adds an answer for the addresses of name. Called again for the same
// name, it says what the next lookup answers; the last answer stays.
func (d *DNS) Host(name string, addrs ...string) {
	var v4, v6 []dns.RR
	for _, s := range addrs {
		if a := netip.MustParseAddr(s); a.Is4() {
			v4 = append(v4, &dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()})
		} else {
			v6 = append(v6, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	d.add(name, dns.TypeA, answer{records: v4})
	d.add(name, dns.TypeAAAA, answer{records: v6})
}

// SRV adds an answer for the SRV records of name, such as
// "_matrix-fed._tcp.example.org".
func (d *DNS) SRV(name string, records ...net.SRV) {
	var rrs []dns.RR
	for _, r := range records {
		rrs = append(rrs, &dns.SRV{
			Hdr: header(name, dns.TypeSRV), Priority: r.Priority, Weight: r.Weight, Port: r.Port, Target: dns.Fqdn(r.Target),
		})
	}
	d.add(name, dns.TypeSRV, answer{records: rrs})
}

// FailSRV makes SRV lookups of name end with SERVFAIL.
func (d *DNS) FailSRV(name string) {
	d.add(name, dns.TypeSRV, answer{rcode: dns.RcodeServerFailure})
}

// IgnoreSRV leaves SRV lookups of name without any answer.
func (d *DNS) IgnoreSRV(name string) { d.add(name, dns.TypeSRV, answer{silent: true}) }

// Lookups returns how often a record type (dns.TypeA, dns.TypeSRV, …) of name
// was asked for.
func (d *DNS) Lookups(name string, qtype uint16) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[key(name, qtype)]
}

// ServeDNS implements dns.Handler.
func (d *DNS) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	reply := new(dns.Msg).SetReply(req)
	reply.RecursionAvailable = true
	if len(req.Question) == 1 {
		a := d.next(key(req.Question[0].Name, req.Question[0].Qtype))
		if a.silent {
			return
		}
		reply.Rcode = a.rcode
		reply.Answer = a.records
	}
	_ = w.WriteMsg(reply) // the asking side may be gone
}

func (d *DNS) next(q question) answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[q]++
	queue := d.records[q]
	if len(queue) == 0 {
		return answer{rcode: dns.RcodeNameError}
	}
	if len(queue) > 1 {
		d.records[q] = queue[1:]
	}
	return queue[0]
}

func (d *DNS) add(name string, qtype uint16, a answer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := key(name, qtype)
	d.records[q] = append(d.records[q], a)
}

func key(name string, qtype uint16) question {
	return question{name: strings.ToLower(dns.Fqdn(name)), qtype: qtype}
}

func header(name string, qtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: dns.Fqdn(name), Rrtype: qtype, Class: dns.ClassINET}
}
