package apns_test

import (
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/push/apns"
)

const (
	hexKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	b64Key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	// altKey has the characters that the two base64 alphabets differ in.
	altKey = "+/+/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxw="
	altHex = "fbffbf000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c"
)

// Conformance (APNs): pushkeys: hex, base64, base64url, unpadded, with white space (≠ Sygnal: 500, or a wrong token); nothing else reaches the URL (also FuzzDeviceToken, TestWhatIsNotSent)
func TestDeviceToken(t *testing.T) {
	t.Parallel()
	url := strings.NewReplacer("+", "-", "/", "_")
	for name, test := range map[string]struct {
		pushkey string
		want    string // "" for refused
	}{
		"base64":                                {b64Key, hexKey},
		"base64 without padding":                {strings.TrimRight(b64Key, "="), hexKey},
		"base64 for URLs":                       {url.Replace(altKey), altHex},
		"base64 for URLs without padding":       {url.Replace(strings.TrimRight(altKey, "=")), altHex},
		"base64 with plus and slash":            {altKey, altHex},
		"base64 of both alphabets":              {"+/-_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxw=", ""},
		"hexadecimal":                           {hexKey, hexKey},
		"capital hexadecimal":                   {strings.ToUpper(hexKey), hexKey},
		"longer hexadecimal":                    {hexKey + hexKey[:32], hexKey + hexKey[:32]},
		"hexadecimal below 64 digits is base64": {hexKey[:60], base64ToHex(t, hexKey[:60])},
		"an odd number of hexadecimal digits":   {hexKey + "0", ""},
		"the longest":                           {strings.Repeat("ab", 256), strings.Repeat("ab", 256)},
		"longer than any":                       {strings.Repeat("ab", 257), ""},
		"shorter than any":                      {"AAECAwQFBgcICQoLDA0O", ""},
		"nothing":                               {"", ""},
		"padding alone":                         {"====", ""},
		"too much padding":                      {b64Key + "=", ""},
		"a path":                                {"../../x?y#z", ""},
		"a path in hexadecimal":                 {hexKey + "/..", ""},
		"a space before it":                     {" " + b64Key, hexKey},
		"a line break in the middle":            {b64Key[:4] + "\n" + b64Key[4:], hexKey},
		"a line break at the end":               {b64Key + "\r\n", hexKey},
		"groups of hexadecimal digits":          {hexKey[:32] + " " + hexKey[32:], hexKey},
		"white space alone":                     {" \t\r\n", ""},
		"an FCM token":                          {"cXyZ:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx", ""},
		"a full-width digit":                    {hexKey[:62] + "\uff10", ""},
	} {
		if got := apns.DeviceToken(test.pushkey); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func base64ToHex(t *testing.T, s string) string {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(data)
}

func FuzzDeviceToken(f *testing.F) {
	f.Add(b64Key)
	f.Add(hexKey)
	f.Add(altKey)
	f.Add("../../x?y#z")
	clean := regexp.MustCompile(`^([0-9a-f]{2}){16,256}$`)
	f.Fuzz(func(t *testing.T, pushkey string) {
		token := apns.DeviceToken(pushkey)
		if token != "" && !clean.MatchString(token) {
			t.Errorf("%q is not a device token", token)
		}
		if again := apns.DeviceToken(token); len(token) >= 64 && again != token {
			t.Errorf("%q becomes %q", token, again)
		}
	})
}
