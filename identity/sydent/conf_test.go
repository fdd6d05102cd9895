package sydent_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/signing"
	"github.com/matrix-herald/herald/identity/sydent"
)

const (
	name     = "[general]\nserver.name = id.example.org\n"
	signing0 = "[crypto]\ned25519.signingkey = ed25519 0 " + seed + "\n"
)

// hexSeed is seed in the form of keys before they had a version.
func hexSeed(t testing.TB) string {
	raw, err := signing.DecodeBase64(seed, 32)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(raw)
}

func TestSigningKey(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		conf string
		id   string
	}{
		"as Sydent writes it":                 {name + "\n" + signing0, "ed25519:0"},
		"with another version":                {name + strings.Replace(signing0, " 0 ", " a_Bcde ", 1), "ed25519:a_Bcde"},
		"in hexadecimal digits":               {name + "[crypto]\ned25519.signingkey = " + hexSeed(t), "ed25519:0"},
		"with padding":                        {name + strings.TrimSpace(signing0) + "=", "ed25519:0"},
		"with Windows line ends":              {strings.ReplaceAll(name+signing0, "\n", "\r\n"), "ed25519:0"},
		"with colons instead of equals signs": {strings.ReplaceAll(name+signing0, " =", ":"), "ed25519:0"},
		"with option names in capitals":       {strings.ReplaceAll(name+signing0, "server.name", "Server.Name"), "ed25519:0"},
		"without sections, as Sydent had it once": {
			"[DEFAULT]\nserver.name = id.example.org\ned25519.signingkey = ed25519 0 " + seed + "\n", "ed25519:0",
		},
		"with an option that overrides the one for all": {"[DEFAULT]\nserver.name = other.example.org\n" + name + signing0, "ed25519:0"},
		"among comments and values of several lines": {
			"# comment\n; comment\n[email]\nemail.blocklist =\n   a = b\n\n   # comment\n   [c]\n" + name + "  \n" + signing0, "ed25519:0",
		},
		"in a value that goes on in the next line": {
			name + "[crypto]\ned25519.signingkey =\n    ed25519 0 " + seed, "ed25519:0",
		},
		"beside an option that refers to another": {"[email]\nemail.invite.subject = %(sender)s\n" + name + signing0, "ed25519:0"},
		"indented": {"  [general]\n  server.name = id.example.org\n" + signing0, "ed25519:0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, err := sydent.SigningKey([]byte(tt.conf), serverName)
			if err != nil {
				t.Fatal(err)
			}
			if want := newKey(t, tt.id, seed); key.ID() != want.ID() || !key.Public().Equal(want.Public()) {
				t.Errorf("got %s, public %s", key.ID(), key.PublicBase64())
			}
		})
	}
}

func TestSigningKeyIsRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ conf, want string }{
		"of another service":             {"[general]\nserver.name = ID.example.org\n" + signing0, `general.server.name is "ID.example.org" and not "id.example.org"`},
		"without a server name":          {signing0, "general.server.name is not set"},
		"with an empty server name":      {"[general]\nserver.name =\n" + signing0, "general.server.name is not set"},
		"without a key":                  {name, "crypto.ed25519.signingkey is not set"},
		"with a key that is none":        {name + "[crypto]\ned25519.signingkey = ed25519 0 secret\n", "crypto.ed25519.signingkey: not an ed25519 key"},
		"with a key that has no version": {name + "[crypto]\ned25519.signingkey = ed25519 " + seed, "crypto.ed25519.signingkey: not an ed25519 key"},
		"with a key of another kind":     {name + strings.Replace(signing0, "ed25519 0", "rsa 0", 1), "crypto.ed25519.signingkey: not a signing key identifier"},
		"with a key that is too short":   {name + "[crypto]\ned25519.signingkey = abcdef", "crypto.ed25519.signingkey: not an ed25519 key"},
		"with a name that refers":        {"[general]\nserver.name = %(host)s\n" + signing0, "general.server.name refers to another option"},
		"with a key that refers":         {name + "[crypto]\ned25519.signingkey = %(secret)s\n", "crypto.ed25519.signingkey refers to another option"},
		"that begins with an option":     {"server.name = secret\n" + signing0, "line 1: an option before the first section"},
		"with a line that is nothing":    {name + "secret\n", "line 3: neither a section nor an option"},
		"with an option twice":           {name + "server.name = secret", "line 3: an option without a name, or for the second time"},
		"with a nameless option":         {name + "= secret", "line 3: an option without a name"},
		"with a section twice":           {name + signing0 + name, "line 5: a section for the second time"},
		"with a section that is open":    {name + "[secret\n", "line 3: not the name of a section"},
		"that is a configuration in YAML": {
			"general:\n  server.name: secret\n", "line 1: an option before the first section",
		},
		"that is empty": {"", "general.server.name is not set"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := sydent.SigningKey([]byte(tt.conf), serverName)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), seed) {
				t.Errorf("the error quotes the file: %v", err)
			}
			if other := strings.HasPrefix(name, "of another"); errors.Is(err, sydent.ErrServerName) != other {
				t.Errorf("got %v; ErrServerName is for another name only", err)
			}
		})
	}
}

func FuzzSigningKey(f *testing.F) {
	f.Add([]byte(name + signing0))
	f.Add([]byte("[DEFAULT]\nserver.name: id.example.org\n # c\n[crypto]\ned25519.signingkey =\n\t" + hexSeed(f)))
	f.Add([]byte("[a\n[]\n=\n%(x)s"))
	f.Fuzz(func(t *testing.T, conf []byte) {
		key, err := sydent.SigningKey(conf, serverName)
		if err != nil {
			return
		}
		again, err := sydent.SigningKey([]byte(name+"[crypto]\ned25519.signingkey = "+key.Line()), serverName)
		if err != nil || again.ID() != key.ID() || !again.Public().Equal(key.Public()) {
			t.Errorf("key %s does not survive being written and read: %v", key.ID(), err)
		}
		if !strings.Contains(strings.ToLower(string(conf)), "server.name") {
			t.Error("a key without a server name")
		}
	})
}
