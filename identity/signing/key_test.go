package signing_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/signing"
)

const (
	// The public half of the vectors' key, as OpenSSL computes it.
	vectorPublic = "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"
	// The vectors' seed with its two spare bits, which carry nothing, cleared.
	plainSeed = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA0"
)

func generate(t *testing.T, version string) signing.Key {
	t.Helper()
	key, err := signing.GenerateKey(version)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKeysAreReadFromEveryFormTheyAreStoredIn(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func() (signing.Key, error){
		"a seed":        func() (signing.Key, error) { return signing.NewKey("ed25519:a_1", vectorSeed) },
		"a padded seed": func() (signing.Key, error) { return signing.NewKey("ed25519:a_1", vectorSeed+"=") },
		"a URL-safe seed": func() (signing.Key, error) {
			return signing.NewKey("ed25519:a_1", strings.ReplaceAll(vectorSeed, "+", "-"))
		},
		"a line":                  func() (signing.Key, error) { return signing.ParseKey("ed25519 a_1 " + vectorSeed) },
		"a line with a line feed": func() (signing.Key, error) { return signing.ParseKey("ed25519 a_1 " + vectorSeed + "\n") },
		"a line with CRLF, tabs":  func() (signing.Key, error) { return signing.ParseKey("ed25519\ta_1\t" + vectorSeed + "\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, err := read()
			if err != nil {
				t.Fatal(err)
			}
			if key.ID() != "ed25519:a_1" || key.Seed() != plainSeed || key.PublicBase64() != vectorPublic {
				t.Errorf("read %s with public half %s", key.ID(), key.PublicBase64())
			}
			if got, want := key.Line(), "ed25519 a_1 "+plainSeed; got != want {
				t.Error("the key's line is not the one it was read from")
			}
		})
	}
}

func TestKeysAreRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		line string
		err  error
	}{
		"nothing":                         {"", signing.ErrKey},
		"no seed":                         {"ed25519 a_1", signing.ErrKey},
		"four fields":                     {"ed25519 a_1 " + vectorSeed + " x", signing.ErrKey},
		"two keys":                        {"ed25519 a " + vectorSeed + "\ned25519 b " + vectorSeed, signing.ErrKey},
		"a short seed":                    {"ed25519 a_1 " + vectorSeed[:42], signing.ErrKey},
		"a private key instead of a seed": {"ed25519 a_1 " + strings.Repeat("A", 86), signing.ErrKey},
		"no base64":                       {"ed25519 a_1 " + strings.Repeat("!", 43), signing.ErrKey},
		"another algorithm":               {"rsa a_1 " + vectorSeed, signing.ErrKeyID},
		"another version alphabet":        {"ed25519 a-1 " + vectorSeed, signing.ErrKeyID},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := signing.ParseKey(tc.line)
			if !errors.Is(err, tc.err) {
				t.Fatalf("%v, want %v", err, tc.err)
			}
			if strings.Contains(err.Error(), vectorSeed[:8]) {
				t.Error("the error quotes the seed")
			}
		})
	}
	if _, err := signing.GenerateKey("a:b"); !errors.Is(err, signing.ErrKeyID) {
		t.Errorf("a generated key with a bad version: %v", err)
	}
}

func TestValidKeyID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"ed25519:0": true, "ed25519:a_RXGa": true, "ed25519:Z9_": true, "ed25519:" + strings.Repeat("a", 128): true,
		"": false, "ed25519": false, "ed25519:": false, "ed25519:a:b": false, "ed25519:a-b": false, "ed25519:a\n": false, "ed25519:é": false,
		"ED25519:a": false, "rsa:a": false, " ed25519:a": false, "ed25519:" + strings.Repeat("a", 129): false,
	} {
		if got := signing.ValidKeyID(id); got != want {
			t.Errorf("%q: %v", id, got)
		}
	}
}

func TestGeneratedKeysDiffer(t *testing.T) {
	t.Parallel()
	a, b := generate(t, "1"), generate(t, "1")
	if a.Seed() == b.Seed() || a.PublicBase64() == b.PublicBase64() {
		t.Error("two generated keys are the same")
	}
	again, err := signing.ParseKey(a.Line())
	if err != nil || again.PublicBase64() != a.PublicBase64() || again.ID() != a.ID() {
		t.Errorf("a generated key does not come back from its line: %v", err)
	}
	public, err := signing.ParsePublicKey(a.PublicBase64())
	if err != nil || !public.Equal(a.Public()) {
		t.Errorf("a public half does not come back: %v", err)
	}
	if _, err := signing.ParsePublicKey(a.PublicBase64()[1:]); !errors.Is(err, signing.ErrKey) {
		t.Errorf("a short public key: %v", err)
	}
}

// Whatever is printed, the seed does not show, in any encoding that fmt knows.
func TestNothingPrintsASeed(t *testing.T) {
	t.Parallel()
	key := vectorKey(t)
	type private struct{ key signing.Key }
	type public struct{ Key signing.Key }
	raw, err := base64.RawStdEncoding.DecodeString(vectorSeed)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, v := range []any{key, &key, []signing.Key{key}, private{key}, &private{key}, public{key}, map[string]any{"key": key}, private{}.key} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "v", v)
		b, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		out.Write(b)
	}
	for _, secret := range []string{
		vectorSeed[:10], string(raw[:6]), fmt.Sprintf("%x", raw[:6]), fmt.Sprintf("%X", raw[:6]), fmt.Sprintf("% x", raw[:6]),
		strings.Trim(fmt.Sprintf("%d", raw[:6]), "[]"), strings.TrimSuffix(fmt.Sprintf("%#v", raw[:3]), "}")[len("[]byte{"):],
	} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q shows:\n%s", secret, out.String())
		}
	}
	if !strings.Contains(out.String(), vectorKeyID) {
		t.Error("the key's identifier does not show")
	}
	if key.String() != vectorKeyID || key.LogValue().String() != vectorKeyID {
		t.Errorf("prints as %q, logs as %q", key.String(), key.LogValue())
	}
}

func TestTheZeroKeyHoldsNothing(t *testing.T) {
	t.Parallel()
	var key signing.Key
	if key.ID() != "" || key.Public() != nil || key.PublicBase64() != "" || key.Seed() != "" {
		t.Error("the zero key holds something")
	}
}

func TestDecodeBase64(t *testing.T) {
	t.Parallel()
	value := bytes.Repeat([]byte{0xfb, 0xff, 0xbe}, 22)[:ed25519.SignatureSize]
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		for size := range len(value) + 1 {
			got, err := signing.DecodeBase64(e.EncodeToString(value[:size]), size)
			if err != nil || !bytes.Equal(got, value[:size]) {
				t.Errorf("%d bytes: %x, %v", size, got, err)
			}
		}
	}
	if got, err := signing.DecodeBase64("Zh", 1); err != nil || string(got) != "f" {
		t.Errorf("spare bits: %q, %v", got, err)
	}
	for name, tc := range map[string]struct {
		in   string
		size int
	}{
		"too short":             {"Zm9v", 4},
		"too long":              {"Zm9v", 2},
		"both alphabets":        {"+-+-", 3},
		"half of the padding":   {"Zg=", 1},
		"too much padding":      {"Zg===", 1},
		"padding in the middle": {"Z=g=", 2},
		"padding where none is": {"Zm9v====", 3},
		"only padding":          {"====", 0},
		"a space":               {"Zm 9v", 3},
		"a line feed":           {"Zm9\n", 3},
		"a line feed more":      {"Zm9v\n", 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := signing.DecodeBase64(tc.in, tc.size); !errors.Is(err, signing.ErrBase64) {
				t.Errorf("%x, %v", got, err)
			}
		})
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("ed25519 a_1 " + vectorSeed)
	f.Add("ed25519 1 " + vectorSeed + "=\n")
	f.Add("rsa 1 x")
	f.Fuzz(func(t *testing.T, line string) {
		key, err := signing.ParseKey(line)
		if err != nil {
			return
		}
		again, err := signing.ParseKey(key.Line())
		if err != nil || again.ID() != key.ID() || again.Seed() != key.Seed() {
			t.Errorf("a key changes when it is stored again: %v", err)
		}
	})
}
