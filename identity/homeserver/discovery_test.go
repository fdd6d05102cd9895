package homeserver_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/matrix-herald/herald/identity/homeserver"
)

// The cases are the steps of "Resolving server names" in the Server-Server API.
//
// Conformance (accounts): the homeserver is found by discovery, its certificate has its name, its answer is bounded (also TestUserInfoRefusesCertificatesForOtherNames, TestUserInfoReadsTheAnswer)
func TestResolveFollowsTheSpecification(t *testing.T) {
	t.Parallel()
	const fed, deprecated = "_matrix-fed._tcp.", "_matrix._tcp."
	at := func(certName, host string, addrs ...string) homeserver.Destination {
		return homeserver.Destination{CertName: certName, Host: host, Addrs: addrs}
	}
	srv := func(target string, port uint16) net.SRV { return net.SRV{Target: target, Port: port, Priority: 10} }
	tests := map[string]struct {
		name  string
		setup func(*world)
		want  homeserver.Destination
	}{
		"1: an IPv4 literal":           {"1.2.3.4", nil, at("1.2.3.4", "1.2.3.4", "1.2.3.4:8448")},
		"1: an IPv4 literal with port": {"1.2.3.4:5", nil, at("1.2.3.4", "1.2.3.4:5", "1.2.3.4:5")},
		"1: an IPv6 literal":           {"[2001:db8::1]", nil, at("2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:8448")},
		"1: an IPv6 literal with port": {"[2001:db8::1]:5", nil, at("2001:db8::1", "[2001:db8::1]:5", "[2001:db8::1]:5")},
		"2: an explicit port asks neither .well-known nor SRV": {
			"a.example:8448", func(w *world) {
				w.delegate("a.example", "b.example:1")
				w.dns.SRV(fed+"a.example", srv("t.example", 2))
			}, at("a.example", "a.example:8448", "a.example.:8448"),
		},
		"2: a name of one label is looked up as it is": {"a:1", nil, at("a", "a:1", "a:1")},
		"3.1: delegation to an IPv4 literal":           {"a.example", func(w *world) { w.delegate("a.example", "1.2.3.4") }, at("1.2.3.4", "1.2.3.4", "1.2.3.4:8448")},
		"3.1: delegation to an IP literal with port":   {"a.example", func(w *world) { w.delegate("a.example", "[2001:db8::1]:5") }, at("2001:db8::1", "[2001:db8::1]:5", "[2001:db8::1]:5")},
		"3.2: delegation to a name with port asks no SRV": {
			"a.example", func(w *world) {
				w.delegate("a.example", "b.example:5")
				w.dns.SRV(fed+"b.example", srv("t.example", 2))
			}, at("b.example", "b.example:5", "b.example.:5"),
		},
		"3.3: SRV of the delegated name, certificate and Host of the delegated name": {
			"a.example", func(w *world) {
				w.delegate("a.example", "b.example")
				w.dns.SRV(fed+"b.example", srv("t.example", 5))
				w.dns.SRV(deprecated+"b.example", srv("old.example", 6))
				w.dns.SRV(fed+"a.example", srv("wrong.example", 7))
			}, at("b.example", "b.example", "t.example.:5"),
		},
		"3.4: deprecated SRV of the delegated name": {
			"a.example", func(w *world) {
				w.delegate("a.example", "b.example")
				w.dns.SRV(deprecated+"b.example", srv("old.example", 6))
			}, at("b.example", "b.example", "old.example.:6"),
		},
		"3.5: delegated name on 8448": {
			"a.example", func(w *world) { w.delegate("a.example", "b.example") }, at("b.example", "b.example", "b.example.:8448"),
		},
		"4: SRV of the name itself": {
			"a.example", func(w *world) { w.dns.SRV(fed+"a.example", srv("t.example", 5)) },
			at("a.example", "a.example", "t.example.:5"),
		},
		"5: deprecated SRV of the name itself": {
			"a.example", func(w *world) { w.dns.SRV(deprecated+"a.example", srv("t.example", 5)) },
			at("a.example", "a.example", "t.example.:5"),
		},
		"6: the name itself on 8448":             {"a.example", nil, at("a.example", "a.example", "a.example.:8448")},
		"6: a name without a .well-known server": {"nowhere.example", nil, at("nowhere.example", "nowhere.example", "nowhere.example.:8448")},
		"the delegated server's own .well-known is not asked": {
			"a.example", func(w *world) {
				w.delegate("a.example", "b.example")
				w.delegate("b.example", "c.example")
			}, at("b.example", "b.example", "b.example.:8448"),
		},
		"the case of the name is kept towards the server": {
			"A.example", func(w *world) { w.dns.SRV(fed+"a.example", srv("t.example", 5)) },
			at("A.example", "A.example", "t.example.:5"),
		},
		"SRV targets come in order of priority, and a target of . among others is none": {
			"a.example", func(w *world) {
				w.dns.SRV(fed+"a.example", net.SRV{Target: "third.example", Port: 3, Priority: 30},
					net.SRV{Target: "first.example", Port: 1, Priority: 10}, net.SRV{Target: ".", Priority: 5},
					net.SRV{Target: "second.example", Port: 2, Priority: 20})
			}, at("a.example", "a.example", "first.example.:1", "second.example.:2", "third.example.:3"),
		},
		"no more than eight SRV targets are tried": {
			"a.example", func(w *world) {
				var records []net.SRV
				for i := range uint16(20) {
					records = append(records, net.SRV{Target: "t.example", Port: i + 1, Priority: i})
				}
				w.dns.SRV(fed+"a.example", records...)
			}, at("a.example", "a.example", "t.example.:1", "t.example.:2", "t.example.:3", "t.example.:4",
				"t.example.:5", "t.example.:6", "t.example.:7", "t.example.:8"),
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example", "b.example")
			if tc.setup != nil {
				tc.setup(w)
			}
			got, err := newResolver(t, w.options()).Resolve(t.Context(), parse(t, tc.name))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("destination (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResolveFailsWhenDNSDoesNotSay(t *testing.T) {
	t.Parallel()
	good := net.SRV{Target: "b.example", Port: 1}
	tests := map[string]func(*world){
		"SERVFAIL is not the lack of a record": func(w *world) {
			w.dns.FailSRV("_matrix-fed._tcp.a.example")
			w.dns.SRV("_matrix._tcp.a.example", good)
		},
		"SERVFAIL of the deprecated service is not the lack of a record": func(w *world) {
			w.dns.FailSRV("_matrix._tcp.a.example")
		},
		"silence is not the lack of a record": func(w *world) {
			w.dns.IgnoreSRV("_matrix-fed._tcp.a.example")
			w.dns.SRV("_matrix._tcp.a.example", good)
		},
		"a target of . says there is no service": func(w *world) {
			w.dns.SRV("_matrix-fed._tcp.a.example", net.SRV{Target: "."})
			w.dns.SRV("_matrix._tcp.a.example", good)
		},
		"a record without a port is no service": func(w *world) {
			w.dns.SRV("_matrix-fed._tcp.a.example", net.SRV{Target: "b.example"})
		},
	}
	for name, setup := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example")
			setup(w)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if got, err := newResolver(t, w.options()).Resolve(ctx, parse(t, "a.example")); err == nil {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestAnInvalidWellKnownFileIsAsGoodAsNone(t *testing.T) {
	t.Parallel()
	write := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	tests := map[string]http.HandlerFunc{
		"no JSON":                  write("<html>welcome</html>"),
		"nothing":                  write(""),
		"null":                     write("null"),
		"an array":                 write(`["b.example:1"]`),
		"trailing data":            write(`{"m.server":"b.example:1"} x`),
		"no m.server":              write(`{"m.homeserver":"b.example:1"}`),
		"another case":             write(`{"M.Server":"b.example:1"}`),
		"a number":                 write(`{"m.server":1}`),
		"null as the name":         write(`{"m.server":null}`),
		"an empty name":            write(`{"m.server":""}`),
		"a URL as the name":        write(`{"m.server":"https://b.example:1"}`),
		"a path after the name":    write(`{"m.server":"b.example:1/x"}`),
		"bytes that are not UTF-8": write("{\"x\":\"\xff\",\"m.server\":\"b.example:1\"}"),
		"more than 64 KiB":         write(`{"m.server":"b.example:1"}` + strings.Repeat(" ", 64<<10)),
		"an endless file": func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		},
		"a status other than 200": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, `{"m.server":"b.example:1"}`)
		},
		"a redirect to itself": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		},
		"a redirect to the metadata service": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://169.254.169.254/latest/meta-data", http.StatusFound)
		},
		"a redirect to http": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://b.example/", http.StatusFound)
		},
		"a server that hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a file that trickles": func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
					_, _ = w.Write([]byte(" "))
					_ = http.NewResponseController(w).Flush()
				}
			}
		},
	}
	for name, handler := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example", "b.example")
			w.wellKnown("a.example", handler)
			opts := w.options()
			opts.Timeout = time.Second
			got, err := newResolver(t, opts).Resolve(t.Context(), parse(t, "a.example"))
			if err != nil || got.CertName != "a.example" || !cmp.Equal(got.Addrs, []string{"a.example.:8448"}) {
				t.Errorf("got %v, %v; want a.example itself", got, err)
			}
		})
	}
}

func TestAWellKnownFileMayBeRedirectedFiveTimes(t *testing.T) {
	t.Parallel()
	for hops, followed := range map[int]bool{1: true, 5: true, 6: false} {
		t.Run(fmt.Sprint(hops), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "a.example", "www.example")
			hop := func(rw http.ResponseWriter, r *http.Request) {
				n := len(r.URL.RawQuery)
				if n == hops {
					fmt.Fprint(rw, `{"m.server":"b.example:1"}`)
					return
				}
				to := fmt.Sprintf("https://www.example:%d/moved?%s", w.wellKnownPort, strings.Repeat("x", n+1))
				http.Redirect(rw, r, to, http.StatusMovedPermanently)
			}
			w.wellKnown("a.example", hop)
			w.wellKnown(fmt.Sprintf("www.example:%d", w.wellKnownPort), hop)
			got, err := newResolver(t, w.options()).Resolve(t.Context(), parse(t, "a.example"))
			if err != nil || (got.CertName == "b.example") != followed {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestAWellKnownServerMustProveItsName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	w.dns.Host("b.example", "127.0.0.1") // not in the certificate
	w.delegate("b.example", "evil.example:1")
	got, err := newResolver(t, w.options()).Resolve(t.Context(), parse(t, "b.example"))
	if err != nil || got.CertName != "b.example" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestConcurrentLookupsOfOneServerAreOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	arrived, release := make(chan struct{}), make(chan struct{})
	w.wellKnown("a.example", func(rw http.ResponseWriter, _ *http.Request) {
		select {
		case arrived <- struct{}{}:
		case <-release:
		}
		<-release
		fmt.Fprint(rw, `{"m.server":"b.example"}`)
	})
	r := newResolver(t, w.options())
	name := parse(t, "a.example")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := r.Resolve(t.Context(), name); err != nil || got.CertName != "b.example" {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	<-arrived
	// A waiting caller gives up without hurting the others.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Resolve(ctx, name); err == nil {
		t.Error("a canceled caller got an answer")
	}
	close(release)
	wg.Wait()
	if n := w.fetches("a.example"); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

func TestALookupGivenUpIsTakenOverAndNotRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	arrived := make(chan struct{})
	w.wellKnown("a.example", func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	r := newResolver(t, w.options())
	name := parse(t, "a.example")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := r.Resolve(ctx, name); err == nil {
			t.Error("the canceled caller got an answer")
		}
	})
	<-arrived
	w.delegate("a.example", "b.example:1")
	wg.Go(func() {
		if got, err := r.Resolve(t.Context(), name); err != nil || got.CertName != "b.example" {
			t.Errorf("got %v, %v", got, err)
		}
	})
	cancel()
	wg.Wait()
}

func TestSRVRecordsAreLookedUpUnderAbsoluteNamesOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a.example")
	if _, err := newResolver(t, w.options()).Resolve(t.Context(), parse(t, "a.example")); err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"_matrix-fed._tcp.a.example", "_matrix._tcp.a.example"} {
		if n := w.dns.Lookups(service, dns.TypeSRV); n != 1 {
			t.Errorf("%s was asked for %d times", service, n)
		}
	}
}
