package homeserver_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/homeserver"
)

// Conformance (accounts): server names: host, port, IPv6; nothing else; compared byte for byte (≠ Sydent: lower-cased) | 400 `M_INVALID_PARAM` (also TestParseServerNameRefuses, TestServerNamesAreComparedByteForByte, TestRefusals)
func TestParseServerNameTakes(t *testing.T) {
	t.Parallel()
	label := strings.Repeat("a", 63)
	long := strings.Repeat("a.", 127) + "a" // 255 bytes
	tests := map[string]struct {
		host string
		port uint16
	}{
		"matrix.org":             {"matrix.org", 0},
		"matrix.org:8888":        {"matrix.org", 8888},
		"1.2.3.4":                {"1.2.3.4", 0},
		"1.2.3.4:1234":           {"1.2.3.4", 1234},
		"[1234:5678::abcd]":      {"1234:5678::abcd", 0},
		"[1234:5678::abcd]:5678": {"1234:5678::abcd", 5678},
		"[::1]:65535":            {"::1", 65535},
		"[::ffff:1.2.3.4]":       {"::ffff:1.2.3.4", 0},
		"localhost":              {"localhost", 0},
		"hs1:1":                  {"hs1", 1},
		"EXAMPLE.org":            {"EXAMPLE.org", 0},
		"xn--bcher-kva.example":  {"xn--bcher-kva.example", 0},
		"a-.-b.example":          {"a-.-b.example", 0},
		"1.2.3.4.example":        {"1.2.3.4.example", 0},
		"0xg.example.0xyz":       {"0xg.example.0xyz", 0},
		label + ".example":       {label + ".example", 0},
		long:                     {long, 0},
	}
	for in, want := range tests {
		name, err := homeserver.ParseServerName(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		port, has := name.Port()
		if name.String() != in || name.Host() != want.host || port != want.port || has != (want.port != 0) {
			t.Errorf("%q: got %q, host %q, port %d %v", in, name, name.Host(), port, has)
		}
	}
}

func TestParseServerNameRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string][]string{
		"nothing":                      {""},
		"a port without a host":        {":8448"},
		"a bad port":                   {"a.example:", "a.example:0", "a.example:01", "a.example:65536", "a.example:123456", "a.example:-1", "a.example:+1", "a.example:8a", "a.example: 1", "a.example:١", "a.example:1:2"},
		"a URL or part of one":         {"https://a.example", "a.example/", "a.example/..", "a.example?x", "a.example#x", "user@a.example", "a.example\\b"},
		"other characters":             {"a_b.example", "bücher.example", "a b", "a.example\n", " a.example", "a.example\x00", "a%2eexample", "ａ.example"},
		"empty labels":                 {".", "a.example.", ".a.example", "a..example"},
		"a label of 64 bytes":          {strings.Repeat("a", 64) + ".example"},
		"256 bytes":                    {strings.Repeat("a.", 127) + "aa"},
		"IPv6 without brackets":        {"::1", "1234:5678::abcd"},
		"broken IPv6":                  {"[]", "[", "[::1", "[::1]x", "[::1]:", "[::1]]", "[:::1]", "[::12345]", "[fe80::1%eth0]", "[::1%251]", "[a.example]", "[1.2.3.4]", "[::1.2.3]"},
		"numbers inet_aton would take": {"127.1", "2130706433", "0x7f000001", "0x7f.1", "0X7F.0.0.0x1", "0x", "017700000001", "127.0.0.01", "256.1.1.1", "1.2.3.4.5", "a.example.1"},
	}
	for name, inputs := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, in := range inputs {
				if got, err := homeserver.ParseServerName(in); !errors.Is(err, homeserver.ErrServerName) {
					t.Errorf("%q: got %q, %v", in, got, err)
				}
			}
		})
	}
}

func TestServerNamesAreComparedByteForByte(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{
		{"matrix.org", "MATRIX.org"}, {"matrix.org", "matrix.org:8448"}, {"[::1]", "[0::1]"}, {"[::a]", "[::A]"},
	} {
		if parse(t, pair[0]) == parse(t, pair[1]) {
			t.Errorf("%s equals %s", pair[0], pair[1])
		}
	}
	if again := parse(t, "[::1]:8448"); again != parse(t, "[::1]:8448") {
		t.Error("a name does not equal itself")
	}
}

func parse(t testing.TB, s string) homeserver.ServerName {
	t.Helper()
	name, err := homeserver.ParseServerName(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return name
}

func TestParseUserID(t *testing.T) {
	t.Parallel()
	fits := "@" + strings.Repeat("a", 255-len("@:a.example")) + ":a.example"
	for in, server := range map[string]string{
		"@alice:a.example":        "a.example",
		"@a.b_c=d-e/f+g0:1.2.3.4": "1.2.3.4",
		"@alice:a.example:8448":   "a.example:8448",
		"@alice:[::1]:8448":       "[::1]:8448",
		"@Alice:A.example":        "A.example",
		"@:a.example":             "a.example",
		"@al ice\n:a.example":     "a.example",
		"@@älice☃:a.example":      "a.example",
		fits:                      "a.example",
	} {
		id, err := homeserver.ParseUserID(in)
		if err != nil || id.String() != in || id.Server() != parse(t, server) {
			t.Errorf("%q: got %q on %q, %v", in, id, id.Server(), err)
		}
	}
	for _, in := range []string{
		"", "@", ":", "@:", "alice", "@alice", "alice:a.example", "#alice:a.example", "@alice:", "@alice: a.example",
		"@alice:a.example:", "@alice:bob:a.example", "@alice\x00:a.example", "@\xff:a.example", "@alice:a..example",
		strings.Replace(fits, "@", "@a", 1),
	} {
		if id, err := homeserver.ParseUserID(in); !errors.Is(err, homeserver.ErrUserID) {
			t.Errorf("%q: got %q, %v", in, id, err)
		}
	}
}

func FuzzParseServerName(f *testing.F) {
	for _, s := range []string{
		"matrix.org", "matrix.org:8888", "1.2.3.4:1", "[1234:5678::abcd]:5678", "[::ffff:1.2.3.4]", "", "a..b", "0x7f.1", "[::1%lo]", "a:b:c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := homeserver.ParseServerName(s)
		if err != nil {
			if name != (homeserver.ServerName{}) {
				t.Fatalf("%q: an error and a name", s)
			}
			return
		}
		if name.String() != s || len(s) > 255 {
			t.Fatalf("%q became %q", s, name)
		}
		for _, c := range []byte(s) {
			if !strings.ContainsRune("[]:.-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", rune(c)) {
				t.Fatalf("%q holds %q", s, c)
			}
		}
		// The host is either an address or can never be taken for one.
		if _, err := netip.ParseAddr(name.Host()); err != nil && strings.Contains(name.Host(), ":") {
			t.Fatalf("%q: host %q", s, name.Host())
		}
		if again, err := homeserver.ParseServerName(s); err != nil || again != name {
			t.Fatalf("%q does not equal itself", s)
		}
	})
}

func FuzzParseUserID(f *testing.F) {
	for _, s := range []string{"@alice:a.example", "@:1.2.3.4:5", "@a\x00:b", "@ä:[::1]", "alice", "@a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := homeserver.ParseUserID(s)
		if err != nil {
			return
		}
		if id.String() != s || len(s) > 255 || !strings.HasSuffix(s, ":"+id.Server().String()) || s[0] != '@' {
			t.Fatalf("%q became %q on %q", s, id, id.Server())
		}
		if strings.Contains(strings.TrimSuffix(s, ":"+id.Server().String()), ":") {
			t.Fatalf("%q: a colon in the localpart", s)
		}
	})
}
