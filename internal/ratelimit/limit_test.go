package ratelimit_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/ratelimit"
)

func TestTextOfALimit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]ratelimit.Limit{
		"5/1h":          {Count: 5, Per: time.Hour},
		"10000/1d":      {Count: 10000, Per: 24 * time.Hour},
		"1/1m30s":       {Count: 1, Per: 90 * time.Second},
		"1000/1ms":      {Count: 1000, Per: time.Millisecond},
		"1/366d":        {Count: 1, Per: 366 * 24 * time.Hour},
		"off":           {},
		"2147483647/1d": {Count: 1<<31 - 1, Per: 24 * time.Hour},
	} {
		var got ratelimit.Limit
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if back, err := got.MarshalText(); string(back) != text || err != nil {
			t.Errorf("%q is written as %q, %v", text, back, err)
		}
		if got.Off() != (text == "off") {
			t.Errorf("%q: off is %t", text, got.Off())
		}
	}
	zero := ratelimit.Limit{Count: 5, Per: time.Hour}
	if err := zero.UnmarshalText([]byte("0")); err != nil || !zero.Off() {
		t.Errorf("0: %v, %v", zero, err)
	}
}

func TestTextThatIsNoLimit(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "5", "/1h", "5/", "0/1h", "-1/1h", "+5/1h", "5/1", "5/0s", "5/1us", "5/-1h", "5/367d", "1001/1ms", "2147483648/1d", "5/1h/2", "5 / 1h", "Off", "5.5/1h",
	} {
		was := ratelimit.Limit{Count: 5, Per: time.Hour}
		got := was
		err := got.UnmarshalText([]byte(text))
		if _, ok := errors.AsType[conf.Remedy](err); !ok || got != was {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestAFaultInAFileSaysWhatToWrite(t *testing.T) {
	t.Parallel()
	cfg := struct {
		Limit ratelimit.Limit `yaml:"limit"`
		Off   ratelimit.Limit `yaml:"off"`
	}{Off: ratelimit.Limit{Count: 1, Per: time.Hour}}
	err := conf.Load(conf.LoadOptions{Name: "f.yaml", Data: []byte("limit: 5 an hour\noff: off\n")}, &cfg)
	const want = "f.yaml:1: limit: not a limit: write how often in how long, such as 5/1h for five times an hour, or off"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	err = conf.Load(conf.LoadOptions{
		Name: "f.yaml", Data: []byte("limit: 7/2h\noff: 0\n"), EnvPrefix: "X_", Environ: []string{"X_LIMIT=5/1h"},
	}, &cfg)
	if err != nil || cfg.Limit != (ratelimit.Limit{Count: 5, Per: time.Hour}) || !cfg.Off.Off() {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")}
	for ip, want := range map[string]string{
		"198.51.100.7":         "198.51.100.7",
		"::ffff:198.51.100.7":  "198.51.100.7",
		"2001:db8:2:3:4:5:6:7": "2001:db8:2:3::/64",
		"2001:db8:2:3:ff::1":   "2001:db8:2:3::/64",
		"2001:db8:2:4::1":      "2001:db8:2:4::/64",
		"fe80::1%eth0":         "fe80::/64",
		"192.0.2.9":            "",
		"::ffff:192.0.2.9":     "",
		"2001:db8:1:ffff::1":   "",
	} {
		key, limited := ratelimit.Source(netip.MustParseAddr(ip), trusted)
		if key != want || limited != (want != "") {
			t.Errorf("%s: %q, %t", ip, key, limited)
		}
	}
	if key, limited := ratelimit.Source(netip.Addr{}, nil); key != "" || limited {
		t.Errorf("an unknown client: %q, %t", key, limited)
	}
}

func TestSites(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{
		"example.org":                   "example.org",
		"Matrix.EXAMPLE.org:8448":       "example.org",
		"a.b.c.example.co.uk":           "example.co.uk",
		"co.uk":                         "co.uk",
		"alice.github.io":               "alice.github.io",
		"hs.alice.github.io":            "alice.github.io",
		"localhost":                     "localhost",
		"LocalHost:1234":                "localhost",
		"a.b.localhost":                 "localhost",
		"hs.lan":                        "hs.lan",
		"one.hs.lan:80":                 "hs.lan",
		"homeserver":                    "homeserver",
		"192.0.2.1:8448":                "192.0.2.1",
		"[2001:db8:1:2:3::4]:8448":      "2001:db8:1:2::/64",
		"[2001:DB8:1:2::5]":             "2001:db8:1:2::/64",
		"[::ffff:192.0.2.1]:80":         "192.0.2.1",
		"www.xn--bcher-kva.example:443": "xn--bcher-kva.example",
		"":                              "",
	} {
		if got := ratelimit.Site(server); got != want {
			t.Errorf("%q: %q, want %q", server, got, want)
		}
	}
}

func FuzzSite(f *testing.F) {
	for _, s := range []string{"a.example.org:1", "[::1]:2", ".", "..", "a..b", "[", "\xff.example", strings.Repeat("a.", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if lower := strings.ToLower(s); ratelimit.Site(lower) != ratelimit.Site(s) {
			t.Errorf("%q depends on case", s)
		}
	})
}
