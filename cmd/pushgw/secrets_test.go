package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/push/pushtest"
)

// spy is somebody with an eye on all that a gateway tells.
type spy struct {
	*services

	web     *pushtest.WebPush
	g       *gateway
	secrets harness.Secrets
	spans   func() string
}

// newSpy starts a gateway whose push services quote what they are sent when they
// refuse it.
func newSpy(t *testing.T, redisOptions string) *spy {
	t.Helper()
	s := new(spy)
	quoted := func(status int, r pushtest.FCMRequest) pushtest.FCMAnswer {
		return pushtest.FCMError(status, "INVALID_ARGUMENT", "", "cannot take "+r.Message.Token+" with "+string(r.Body))
	}
	s.services = startServices(t,
		pushtest.APNsOptions{Answer: func(r pushtest.APNsRequest) pushtest.APNsAnswer {
			token, _ := hex.DecodeString(r.Token)
			switch {
			case bytes.HasPrefix(token, []byte("dead")):
				return pushtest.APNsAnswer{Status: 410, Reason: "Unregistered"}
			case bytes.HasPrefix(token, []byte("odd")):
				return pushtest.APNsAnswer{Status: 418, Reason: r.Token + string(r.Body)}
			case bytes.HasPrefix(token, []byte("down")):
				return pushtest.APNsAnswer{Status: 503, Reason: r.Token, RetryAfter: r.Token}
			case bytes.HasPrefix(token, []byte("cut")):
				return pushtest.APNsAnswer{Cut: true}
			}
			return pushtest.APNsAnswer{}
		}},
		pushtest.FCMOptions{Answer: func(r pushtest.FCMRequest) pushtest.FCMAnswer {
			switch {
			case strings.HasPrefix(r.Message.Token, "bad"):
				return quoted(400, r)
			case strings.HasPrefix(r.Message.Token, "gone"):
				return quoted(404, r)
			case strings.HasPrefix(r.Message.Token, "down"):
				return quoted(503, r)
			case strings.HasPrefix(r.Message.Token, "moved"):
				return pushtest.FCMAnswer{Status: 302, Location: "https://127.0.0.1:1/" + r.Message.Token}
			case strings.HasPrefix(r.Message.Token, "html"):
				return pushtest.FCMAnswer{Status: 500, Body: "<html>" + r.Message.Token}
			}
			return pushtest.FCMAnswer{}
		}})
	s.web = s.addEndpoints(t, func(r pushtest.WebPushRequest) pushtest.FCMAnswer {
		said, _ := json.Marshal(map[string]any{"code": 400, "errno": r.Path, "reason": r.Path, "message": r.Text + string(r.Body)})
		answer := pushtest.FCMAnswer{Body: string(said), Header: "X-WNS-Error-Description: TTL " + r.Path}
		switch kind := r.Path[1:]; {
		case strings.HasPrefix(kind, "dead"):
			answer.Status = 410
		case strings.HasPrefix(kind, "bad"):
			answer.Status = 400
		case strings.HasPrefix(kind, "odd"):
			answer.Status = 418
		case strings.HasPrefix(kind, "large"):
			answer.Status = 413
		case strings.HasPrefix(kind, "no"):
			answer.Status = 403
		case strings.HasPrefix(kind, "down"):
			answer.Status, answer.RetryAfter = 503, r.Path
		case strings.HasPrefix(kind, "moved"):
			answer.Status, answer.Location = 302, "https://localhost:1"+r.Path
		case strings.HasPrefix(kind, "cut"):
			answer.Cut = true
		}
		return answer
	})
	s.secrets.Add("the p256dh", s.web.Subscription.PushKey())
	s.secrets.Add("the auth secret", s.web.Subscription.Auth())
	collector, spans := harness.Collector(t)
	s.spans = spans
	for name, file := range map[string]string{"the APNs key": "key.p8", "the service account's key": "firebase.json", "the VAPID key": "vapid.pem"} {
		text, err := os.ReadFile(filepath.Join(s.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		var account struct {
			Key string `json:"private_key"`
		}
		if json.Unmarshal(text, &account) == nil && account.Key != "" {
			text = []byte(account.Key)
		}
		line := regexp.MustCompile(`[A-Za-z0-9+/]{40,}`).Find(text)
		if line == nil {
			t.Fatalf("%s has no key", file)
		}
		s.secrets.Add(name, string(line))
	}
	config, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config, fmt.Sprintf("tracing: {endpoint: %q}\n%s%s", collector, redisOptions, config))
	s.g = startGateway(t, s.client, "-config", s.config)
	return s
}

// secret returns a text that is watched.
func (s *spy) secret(name string) string {
	text := rand.Text()
	s.secrets.Add(name, text)
	return text
}

// iosToken returns a watched pushkey of 32 bytes that begin with kind.
func (s *spy) iosToken(kind string) string {
	token := kind + rand.Text() + rand.Text()
	s.secrets.Add("the pushkey of a device that is "+kind, token[:32])
	return iosPushkey(token[:32])
}

func (s *spy) androidToken(kind string) string {
	token := kind + rand.Text()
	s.secrets.Add("the token of an Android that is "+kind, token)
	return token
}

// post sends a body and looks into the answer. Only pushkeys that are rejected
// are told to the homeserver, which knows them.
func (s *spy) post(t *testing.T, body string) {
	t.Helper()
	status, answer, err := s.g.notify(t.Context(), body)
	if err != nil {
		t.Fatal(err)
	}
	if found := s.secrets.In(answer); status != http.StatusOK && len(found) > 0 {
		t.Errorf("%d: the answer %q tells %v", status, answer, found)
	}
}

// TestNothingTellsSecrets sends notifications of every fate, and then looks
// everywhere.
//
// Conformance (hostile input): secrets in logs, metrics, traces, answers, databases | none
// Conformance (attacks): reading logs, metrics, traces, Redis | fingerprints only
func TestNothingTellsSecrets(t *testing.T) {
	t.Parallel()
	section := redisSection(t)
	s := newSpy(t, section)
	type device = map[string]any
	notify := func(devices ...device) {
		t.Helper()
		body, err := json.Marshal(map[string]any{"notification": map[string]any{
			"event_id": "$" + rand.Text(), "room_id": "!room:example.org", "type": "m.room.message",
			"sender": "@" + s.secret("the sender") + ":example.org", "sender_display_name": s.secret("the sender's name"),
			"room_name": s.secret("the room's name"), "room_alias": "#" + s.secret("the room's alias") + ":example.org",
			"user_is_target": true, "prio": "high", "counts": map[string]any{"unread": 3},
			"content": map[string]any{"msgtype": "m.text", "body": s.secret("the message"), "formatted_body": s.secret("the formatted message")},
			"devices": devices,
		}})
		if err != nil {
			t.Fatal(err)
		}
		s.post(t, string(body))
		s.post(t, string(body)) // duplicates and remembered rejections
	}
	ios := func(pushKey string) device {
		return device{
			"app_id": iosApp, "pushkey": pushKey, "pushkey_ts": 1,
			"data": map[string]any{"format": "full", "default_payload": map[string]any{"cs": s.secret("a client's secret")}},
		}
	}
	android := func(pushKey string) device { return device{"app_id": androidApp, "pushkey": pushKey} }
	for _, kind := range []string{"living", "dead", "odd", "down", "cut"} {
		notify(ios(s.iosToken(kind)))
	}
	for _, kind := range []string{"living", "bad", "gone", "down", "moved", "html"} {
		notify(android(s.androidToken(kind)))
	}
	endpoints := func(host, kind string) {
		keys := func(members device) device {
			members["auth"], members["default_payload"] = s.web.Subscription.Auth(), device{"cs": s.secret("a client's secret")}
			return members
		}
		path := "https://" + host + "/" + kind
		notify(
			device{"app_id": "web", "pushkey": s.web.Subscription.PushKey(), "data": keys(device{"endpoint": path + s.secret("the path of a browser that is "+kind)})},
			device{"app_id": "up", "pushkey": path + s.secret("the path of a phone that is "+kind)},
			device{
				"app_id": "up", "pushkey": path + s.secret("the path of a phone with keys that is "+kind),
				"data": keys(device{"p256dh": s.web.Subscription.PushKey()}),
			},
		)
	}
	for _, kind := range []string{"living", "dead", "bad", "odd", "large", "no", "down", "moved", "cut"} {
		endpoints(s.web.Addr(), kind)
	}
	if n := s.web.Count(); n < 27 {
		t.Errorf("only %d messages came to endpoints", n)
	}
	for kind, host := range map[string]string{"not there": "localhost:1", "not listed": "push.example.org", "not public": "10.0.0.1", "none": "%"} {
		endpoints(host, kind)
	}
	notify(ios(s.iosToken("living")), ios(s.iosToken("down")), android(s.androidToken("living")), android(s.androidToken("html")))
	notify(device{"app_id": "org.example.nobody", "pushkey": s.secret("its pushkey")})
	notify(ios("no token "+s.secret("a pushkey that is none")), ios(strings.Repeat(s.secret("a long pushkey"), 40)))
	notify(device{"app_id": 1, "pushkey": s.secret("a device's pushkey, wrong")}, device{"pushkey": []string{s.secret("a list")}})
	for _, body := range []string{`{"%s":`, `"%s"`, `{"notification":{"devices":"%s"}}`, `{"notification":{"counts":{"unread":"%s"},"devices":[{"app_id":"a","pushkey":"b"}]}}`, `%s`} {
		s.post(t, fmt.Sprintf(body, s.secret("a bad body")))
	}
	s.get(t, "/_matrix/push/v1/notify/"+s.secret("a path")+"?access_token="+s.secret("a query"))
	metrics := s.g.get(t, s.g.Admin+"/metrics")
	s.look(t, metrics, redisDump(t, section))
}

func (s *spy) get(t *testing.T, path string) {
	t.Helper()
	if answer := s.g.get(t, s.g.API+path); len(s.secrets.In(answer)) > 0 {
		t.Errorf("%s: %q", path, answer)
	}
}

// look looks everywhere.
func (s *spy) look(t *testing.T, metrics, memory string) {
	t.Helper()
	s.g.Stop(t) // sends the last spans
	for name, text := range map[string]string{
		"the log": s.g.Log.String(), "the metrics": metrics, "the traces": s.spans(), "Redis": memory,
	} {
		if len(text) < 500 {
			t.Errorf("%s: only %q", name, text)
		}
		if found := s.secrets.In(text); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
}

// redisDump returns the keys of a configuration and what is in them.
func redisDump(t *testing.T, section string) string {
	t.Helper()
	prefix := regexp.MustCompile(`key_prefix: "([^"]+)"`).FindStringSubmatch(section)[1]
	opts, err := redis.ParseURL(os.Getenv("TEST_REDIS_URL"))
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(opts)
	defer c.Close()
	var all strings.Builder
	keys := c.Scan(t.Context(), 0, prefix+"*", 1000).Iterator()
	for keys.Next(t.Context()) {
		fmt.Fprintf(&all, "%q: %v\n", keys.Val(), redisValue(t.Context(), c, keys.Val()))
	}
	if err := keys.Err(); err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// redisValue returns a value of whatever type.
func redisValue(ctx context.Context, c *redis.Client, key string) any {
	switch c.Type(ctx, key).Val() {
	case "string":
		return c.Get(ctx, key).Val()
	case "hash":
		return c.HGetAll(ctx, key).Val()
	case "set":
		return c.SMembers(ctx, key).Val()
	case "zset":
		return c.ZRangeWithScores(ctx, key, 0, -1).Val()
	default:
		return c.Dump(ctx, key).Val()
	}
}
