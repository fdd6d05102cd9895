package webpush

import (
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v4"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/pushtest"
)

// The values of RFC 8291, Appendix A.
const (
	rfcText    = "When I grow up, I want to be a watermelon"
	rfcAuth    = "BTBZMqHH6r4Tts7J_aSIgg"
	rfcSalt    = "DGv6ra1nlYgDCS1FRnbzlw"
	rfcPrivate = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
	rfcPublic  = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
	rfcBody    = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_" +
		"yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)

func raw(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parseKeys(t testing.TB, p256dh, auth string) keys {
	t.Helper()
	public, err := parsePublicKey(p256dh)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := parseAuth(auth)
	if err != nil {
		t.Fatal(err)
	}
	return keys{public, secret}
}

// Conformance (Web Push): RFC 8291, Appendix A; RFC 8292, section 2.4 | byte for byte; verified (also TestTheTokenOfRFC8292Verifies)
func TestTheBodyIsThatOfRFC8291(t *testing.T) {
	t.Parallel()
	private, err := ecdh.P256().NewPrivateKey(raw(t, rfcPrivate))
	if err != nil {
		t.Fatal(err)
	}
	body, err := parseKeys(t, rfcPublic, rfcAuth).seal(private, raw(t, rfcSalt), []byte(rfcText), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := base64.RawURLEncoding.EncodeToString(body); got != rfcBody {
		t.Errorf("got %s", got)
	}
}

func TestTheTokenOfRFC8292Verifies(t *testing.T) {
	t.Parallel()
	const (
		token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0." +
			"i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA"
		key = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
	)
	parser := jwt.NewParser(jwt.WithoutClaimsValidation())
	if _, err := parser.Parse(token, func(*jwt.Token) (any, error) { return pushtest.VAPIDPublic(t, key), nil }); err != nil {
		t.Error(err)
	}
}

// Conformance (Web Push): one record of 4096 bytes, padded in steps of 128 | more than 3993 bytes of text are not sent (also FuzzSubscription)
func TestTextsArePaddedInStepsUpToOneRecord(t *testing.T) {
	t.Parallel()
	browser := pushtest.NewSubscription(t)
	k := parseKeys(t, browser.PushKey(), browser.Auth())
	for _, tc := range []struct{ length, body int }{
		{1, 128 + 103}, {128, 128 + 103}, {129, 256 + 103}, {3969, 4096}, {maxPlain, 4096},
	} {
		text := strings.Repeat("x", tc.length)
		body, err := k.encrypt([]byte(text))
		if err != nil || len(body) != tc.body {
			t.Errorf("%d bytes became %d, want %d (%v)", tc.length, len(body), tc.body, err)
		}
		if got, err := browser.Decrypt(body); err != nil || string(got) != text {
			t.Errorf("%d bytes: the browser reads %d bytes, %v", tc.length, len(got), err)
		}
	}
	if _, err := k.encrypt(make([]byte, maxPlain+1)); !errors.Is(err, errTooLong) {
		t.Errorf("a text too long: %v", err)
	}
}

// Conformance (Web Push): `p256dh` and `auth` in either alphabet of base64, with padding or white space; not on the curve, 15 or 17 bytes (≠ Sygnal: 500) | taken; rejected (also TestProviderContract)
func TestKeysOfASubscription(t *testing.T) {
	t.Parallel()
	off := raw(t, rfcPublic)
	off[64]++ // no point of the curve
	for name, tc := range map[string]struct {
		p256dh, auth string
		ok           bool
	}{
		"as browsers write them":    {rfcPublic, rfcAuth, true},
		"with padding":              {rfcPublic + "=", rfcAuth + "==", true},
		"of the other alphabet":     {strings.NewReplacer("-", "+", "_", "/").Replace(rfcPublic), "+/+/" + rfcAuth[4:], true},
		"with white space":          {" " + rfcPublic[:9] + "\n" + rfcPublic[9:], rfcAuth, true},
		"not on the curve":          {base64.RawURLEncoding.EncodeToString(off), rfcAuth, false},
		"a key cut short":           {rfcPublic[:80], rfcAuth, false},
		"no key":                    {"", rfcAuth, false},
		"an auth of 15 bytes":       {rfcPublic, base64.RawURLEncoding.EncodeToString(make([]byte, 15)), false},
		"an auth of 17 bytes":       {rfcPublic, base64.RawURLEncoding.EncodeToString(make([]byte, 17)), false},
		"foreign characters":        {rfcPublic, rfcAuth[:20] + "!!", false},
		"a compressed point":        {base64.RawURLEncoding.EncodeToString(append([]byte{2}, off[1:33]...)), rfcAuth, false},
		"characters out of base64s": {"é" + rfcPublic[1:], rfcAuth, false},
	} {
		_, err := parsePublicKey(tc.p256dh)
		_, authErr := parseAuth(tc.auth)
		if ok := err == nil && authErr == nil; ok != tc.ok {
			t.Errorf("%s: %v, %v", name, err, authErr)
		}
	}
}

func FuzzSubscription(f *testing.F) {
	f.Add(rfcPublic, rfcAuth, "text")
	f.Add(rfcPublic+"=", rfcAuth+"==", strings.Repeat("x", maxPlain))
	f.Add("", "é", "")
	f.Fuzz(func(t *testing.T, p256dh, auth, text string) {
		public, err := parsePublicKey(p256dh)
		secret, authErr := parseAuth(auth)
		if err != nil || authErr != nil {
			return
		}
		body, err := keys{public, secret}.encrypt([]byte(text))
		if (err == nil) != (len(text) <= maxPlain) || len(body) > recordSize {
			t.Errorf("%d bytes became %d: %v", len(text), len(body), err)
		}
	})
}

// Conformance (Web Push): what is remembered of endpoints | 4096 entries of each kind
func TestMemoriesAreBounded(t *testing.T) {
	t.Parallel()
	var b bounded[int]
	for i := range 3 * maxRemembered {
		b.put(strconv.Itoa(i), i)
		if v, ok := b.get(strconv.Itoa(i)); !ok || v != i {
			t.Fatalf("what was remembered last is %d, %t", v, ok)
		}
	}
	if len(b.entries) != maxRemembered {
		t.Errorf("%d entries", len(b.entries))
	}
}

func FuzzResponse(f *testing.F) {
	f.Add(400, "push.example.org", "/wpush/v2/x", `{"errno":109,"reason":"BadJwtToken"}`)
	f.Add(403, "web.push.apple.com", "", `{"errno":"1e9","reason":["x"]}`)
	f.Add(503, "wns.notify.windows.com", "/w/", "<html>do not correspond")
	f.Fuzz(func(t *testing.T, status int, host, path, body string) {
		r := &response{status: status, host: host, path: path}
		r.parse([]byte(body))
		for _, unified := range []bool{false, true} {
			out := r.outcome(unified)
			if out.Reason == "" || out.Evidence == push.EvidenceRefused || out.Kind == push.Accepted && (status < 200 || status > 299) {
				t.Errorf("%+v", out)
			}
			if !regexp.MustCompile(`^(errno \d{3}|[A-Za-z]*)$`).MatchString(out.Detail) {
				t.Errorf("the detail is %q", out.Detail)
			}
		}
	})
}

func FuzzEndpoint(f *testing.F) {
	for _, text := range []string{"https://fcm.googleapis.com/fcm/send/a:b", "https://[::1]:8443/x?y#z", "https://user@host/", "http://h", "https://h%00/", "https://xn--h/"} {
		f.Add(text)
	}
	h := newHosts([]string{"*.example.org", "push.example.com:8443"}, []string{"bad.example.org"})
	f.Fuzz(func(t *testing.T, text string) {
		e := parseEndpoint(text)
		if e == nil {
			return
		}
		again := parseEndpoint(e.url)
		if again == nil || *again != *e {
			t.Errorf("%q is %+v, and then %+v", text, e, again)
		}
		if h.allow(e) && !strings.HasSuffix(e.name, ".example.org") && e.host != "push.example.com:8443" {
			t.Errorf("%q is allowed", text)
		}
	})
}
