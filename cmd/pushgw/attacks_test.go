package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/push/pushtest"
)

// TestPushkeysStayInTheirPlace sends pushkeys that would reach another path of
// the push services if they were pasted into it.
//
// Conformance (attacks): pushkeys that leave their place in a URL or header | tokens are decoded and written anew (also FuzzDeviceToken)
func TestPushkeysStayInTheirPlace(t *testing.T) {
	t.Parallel()
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	g := startGateway(t, s.client, "-config", s.config)
	pushKeys := []string{
		"../../stats?x=", "..%2f..%2fstats", "/3/device/x", "x#fragment", "x?query", "x/y", "x\r\nApns-Topic: org.evil", "x y", "é", "\x00", "%00", "//evil.example/",
		"https://evil.example/", "169.254.169.254", `\..\..`, strings.Repeat("../", 30), base64.StdEncoding.EncodeToString([]byte("../../stats?x=")),
		base64.StdEncoding.EncodeToString([]byte(strings.Repeat("../", 11))[:32]),
	}
	for _, appID := range []string{iosApp, androidApp} {
		for i, key := range pushKeys {
			body, err := json.Marshal(map[string]any{"notification": map[string]any{
				"event_id": fmt.Sprint("$", i), "type": "m.room.message", "devices": []any{map[string]any{"app_id": appID, "pushkey": key}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			if status, answer, err := g.notify(t.Context(), string(body)); err != nil || status >= http.StatusInternalServerError {
				t.Errorf("%s with %q: %d %s %v", appID, key, status, answer, err)
			}
		}
	}
	token := regexp.MustCompile(`^[0-9a-f]{64,}$`)
	for _, r := range s.apns.Requests() {
		if !token.MatchString(r.Token) || r.Header.Get("Apns-Topic") != iosApp {
			t.Errorf("APNs was asked for %q as %q", r.Token, r.Header.Get("Apns-Topic"))
		}
	}
	for _, r := range s.fcm.Requests() {
		if r.Project != "example" {
			t.Errorf("FCM was asked for the project %q", r.Project)
		}
	}
}

// TestARequestIsOneLine has the push services and the gateway itself refuse many
// devices in every way that a stranger can bring about.
//
// Conformance (pushgw): one line in the log for each request, however many devices fail; pushkeys as fingerprints (also TestTheAccessLogTellsDevicesByFingerprint, TestNothingTellsSecrets)
// Conformance (attacks): a hundred devices whose data is malformed, 20 times a second | one line in the log for each request
func TestARequestIsOneLine(t *testing.T) {
	t.Parallel()
	s := startServices(t,
		pushtest.APNsOptions{Answer: func(pushtest.APNsRequest) pushtest.APNsAnswer {
			return pushtest.APNsAnswer{Status: 400, Reason: "BadDeviceToken"}
		}},
		pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
			if strings.HasPrefix(r.Message.Token, "fast") {
				return pushtest.FCMError(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "slow down")
			}
			return pushtest.FCMBadToken()
		}})
	s.speakPlainHTTP(t)
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, strings.Replace(string(config), "level: debug", "level: info", 1))
	g := startGateway(t, s.client, "-config", s.config)
	for name, device := range map[string]func(i int) string{
		"data that is no object": func(i int) string {
			return fmt.Sprintf(`{"app_id":%q,"pushkey":%q,"data":{"default_payload":1}}`, iosApp, iosKey(i))
		},
		"aps that is no object": func(i int) string {
			return fmt.Sprintf(`{"app_id":%q,"pushkey":%q,"data":{"default_payload":{"aps":1}}}`, iosApp, iosKey(i))
		},
		"data that FCM cannot carry": func(i int) string {
			return fmt.Sprintf(`{"app_id":%q,"pushkey":"a:%d","data":{"default_payload":1}}`, androidApp, i)
		},
		"pushkeys that are none":    func(i int) string { return fmt.Sprintf(`{"app_id":%q,"pushkey":"%d"}`, iosApp, i) },
		"tokens made up for Apple":  func(i int) string { return fmt.Sprintf(`{"app_id":%q,"pushkey":%q}`, iosApp, iosKey(i)) },
		"tokens made up for Google": func(i int) string { return fmt.Sprintf(`{"app_id":%q,"pushkey":"b:%d"}`, androidApp, i) },
		"tokens beyond their quota": func(i int) string { return fmt.Sprintf(`{"app_id":%q,"pushkey":"fast:%d"}`, androidApp, i) },
		"apps that nobody has":      func(i int) string { return fmt.Sprintf(`{"app_id":"other.%d","pushkey":"k"}`, i) },
	} {
		devices := make([]string, 99) // from 100 on the guard has something to say, once
		for i := range devices {
			devices[i] = device(i)
		}
		before := strings.Count(g.Log.String(), "\n")
		if _, _, err := g.notify(t.Context(), `{"notification":{"event_id":"$e:x","type":"m.room.message","devices":[`+strings.Join(devices, ",")+`]}}`); err != nil {
			t.Fatal(err)
		}
		g.Await(t, "request")
		if lines := strings.Count(g.Log.String(), "\n") - before; lines != 1 {
			t.Errorf("%s: %d lines", name, lines)
		}
	}
}

// hostileBodies make bodies of about n bytes that are dear to whoever is careless.
func hostileBodies() map[string]func(n int) string {
	around := func(member string) string {
		return fmt.Sprintf(`{"notification":{%s"event_id":"$e","type":"m.room.message","devices":[{"app_id":%q,"pushkey":%q}]}}`, member, iosApp, iosKey(1))
	}
	repeat := func(before, again, after string) func(n int) string {
		return func(n int) string { return around(before + strings.Repeat(again, n/len(again)) + after) }
	}
	return map[string]func(n int) string{
		"nesting in the content":     repeat(`"content":`, `{"a":`, `1,`), // is no JSON in the end
		"nesting of lists":           func(n int) string { return strings.Repeat("[", n/2) + strings.Repeat("]", n/2) },
		"many members":               func(n int) string { return around(manyMembers(n)) },
		"the same member":            repeat(``, `"room_name":"a",`, ``),
		"a long text":                repeat(`"room_name":"`, `a`, `",`),
		"a long text of escapes":     repeat(`"room_name":"`, `\u003c`, `",`),
		"a text of surrogate pairs":  repeat(`"sender_display_name":"`, `\ud83d\ude00`, `",`),
		"a text of lone surrogates":  repeat(`"sender_display_name":"`, `\ud83d`, `",`),
		"backslashes":                repeat(`"room_name":"`, `\\`, `",`),
		"quotes":                     repeat(`"content":{"msgtype":"m.text","body":"`, `\"`, `"},`),
		"a long body":                repeat(`"content":{"msgtype":"m.text","body":"`, `日`, `"},`),
		"a huge number":              repeat(`"counts":{"unread":1`, `0`, `},`),
		"a huge exponent":            repeat(`"counts":{"unread":1e`, `9`, `},`),
		"a long fraction":            repeat(`"counts":{"unread":0.`, `1`, `},`),
		"numbers with huge exponent": repeat(`"content":{"a":[`, `1e999999999,`, `1]},`),
		"many devices": func(n int) string {
			device := fmt.Sprintf(`{"app_id":%q,"pushkey":%q},`, iosApp, iosKey(1))
			return `{"notification":{"devices":[` + strings.TrimSuffix(strings.Repeat(device, n/len(device)), ",") + `]}}`
		},
		"large data of a device": func(n int) string {
			return fmt.Sprintf(`{"notification":{"event_id":"$e","devices":[{"app_id":%q,"pushkey":%q,"data":{"default_payload":{"x":{%s"y":1}}}}]}}`, iosApp, iosKey(1), manyMembers(n))
		},
		"white space": repeat(strings.Repeat(" ", 10), " \t\r\n", ``),
	}
}

// manyMembers returns about n bytes of members with different names. They are
// texts, which become members of pushes.
func manyMembers(n int) string {
	var text strings.Builder
	for i := 0; text.Len() < n; i++ {
		fmt.Fprintf(&text, `"%x":"a",`, i)
	}
	return text.String()
}

// TestHostileBodiesAreAnswered sends the largest body there may be of each kind:
// none is a fault of the gateway, and it goes on.
//
// Conformance (hostile input): bodies made to be slow to read | time in proportion to size (also BenchmarkHostileNotifications, BenchmarkHostileBodies)
// Conformance (attacks): JSON bombs: depth, many members, huge numbers, escapes, invalid UTF-8 | 512 KiB (pushgw), 64 KiB or 6 MiB (identity), depth 64, one pass; time grows with size (also BenchmarkHostileNotifications, BenchmarkHostileBodies, FuzzReaders, FuzzNotify, FuzzBodies)
func TestHostileBodiesAreAnswered(t *testing.T) {
	t.Parallel()
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	s.speakPlainHTTP(t)
	g := startGateway(t, s.client, "-config", s.config)
	for name, body := range hostileBodies() {
		status, answer, err := g.notify(t.Context(), body(500<<10))
		if err != nil || status >= http.StatusInternalServerError {
			t.Errorf("%s: %d %.200s %v", name, status, answer, err)
		}
		status, answer, err = g.notify(t.Context(), body(600<<10))
		for again := 3; err != nil && again > 0; again-- { // the connection is closed half a second later: on a busy machine the client is still writing then
			status, answer, err = g.notify(t.Context(), body(600<<10))
		}
		if err != nil || status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s, too long: %d %.200s %v", name, status, answer, err)
		}
	}
	g.deliverSome(t, "after the hostile bodies", 0)
}

// BenchmarkHostileNotifications shows that the time for a body is in proportion
// to its size: growth is that for a byte of half a megabyte over that for a byte
// of 32 kB, and 1 if it is.
func BenchmarkHostileNotifications(b *testing.B) {
	const small, large = 32 << 10, 500 << 10
	key := pushtest.NewTokenKey(b)
	apns := pushtest.StartAPNs(b, pushtest.APNsOptions{Discard: true})
	gateway := startAPNsBenchGateway(b, apns, key)
	for name, body := range hostileBodies() {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			event := 0
			perByte := func(size int) float64 {
				text := strings.ReplaceAll(body(size), `"`+iosApp+`"`, `"app"`)
				var took []float64
				for range 20 {
					event++ // the same one would not be pushed again
					took = append(took, gateway.answered(b, strings.ReplaceAll(text, `"$e"`, fmt.Sprintf(`"$%d"`, event))).Seconds())
				}
				return median(took) / float64(len(text)) * 1e9
			}
			for range b.N {
				few, many := perByte(small), perByte(large)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(many, "ns/byte")
				b.ReportMetric(many/few, "growth")
			}
		})
	}
}
