package conf_test

import (
	"testing"

	"github.com/matrix-herald/herald/internal/conf"
)

func TestNetworksAreRangesOrAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.0.0/8":      "10.0.0.0/8",
		"10.0.0.1":        "10.0.0.1/32",
		"::ffff:10.0.0.1": "10.0.0.1/32",
		"2001:db8::/32":   "2001:db8::/32",
		"2001:db8::1":     "2001:db8::1/128",
		"fe80::1%eth0":    "fe80::1/128",
		"10.0.0.0/33":     "",
		"example.org":     "",
		"":                "",
	} {
		got, err := conf.ParseNetwork(text)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%q is %v, %v; want %q", text, got, err, want)
		}
	}
}
