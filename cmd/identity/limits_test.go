package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
	"github.com/matrix-herald/herald/internal/harness"
)

// limited fails the test unless a request is refused by a limit.
func (c client) limited(t *testing.T, path, body string, args ...any) {
	t.Helper()
	status, answer := c.ask(t, http.MethodPost, path, fmt.Sprintf(body, args...))
	wait, _ := answer["retry_after_ms"].(json.Number)
	if status != http.StatusTooManyRequests || answer["errcode"] != "M_LIMIT_EXCEEDED" || wait == "" {
		t.Errorf("POST %s: %d %v, want a refusal by a limit", path, status, answer)
	}
}

func lookupBody(t *testing.T, pepper any, addresses ...string) string {
	t.Helper()
	body, err := json.Marshal(map[string]any{"algorithm": "none", "pepper": pepper, "addresses": addresses})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// Conformance (security): replicas count limits together; when Redis is away, each by itself (also TestRedisIsKilledAndComesBack, TestBackends, TestCluster)
func TestReplicasShareLimits(t *testing.T) {
	t.Parallel()
	storetest.NeedServer(t)
	w := newWorld(t, storetest.PostgreSQL(t))
	environ := []string{
		"IDENTITY_LIMITS_MAIL_PER_ADDRESS=2/30d", "IDENTITY_LIMITS_LOOKUPS_PER_ACCOUNT=3/30d", "IDENTITY_LIMITS_TEST_REGISTER_IP=2/30d",
		"IDENTITY_LIMITS_TEST_PRIVATE=192.0.2.0/24",
	}
	one, other := startBinary(t, environ, "-config", w.config), startBinary(t, environ, "-config", w.config)
	c := w.register(t, one.API, "alice")
	d := w.register(t, other.API, "bob")
	client{base: one.API}.limited(t, "/account/register", `{"access_token":"openid-carol","matrix_server_name":%q}`, w.homeserver)
	at := client{other.API, c.token}

	const request = `{"client_secret":%q,"email":"carol@example.com","send_attempt":1}`
	c.post(t, "/validate/email/requestToken", request, "one")
	d.post(t, "/validate/email/requestToken", request, "two")
	c.limited(t, "/validate/email/requestToken", request, "three")
	d.limited(t, "/validate/email/requestToken", request, "four")
	if n := len(w.relay.Messages()); n != 2 {
		t.Errorf("%d mails", n)
	}

	pepper := c.get(t, "/hash_details")["lookup_pepper"]
	c.post(t, "/lookup", "%s", lookupBody(t, pepper, "1@example.com email", "2@example.com email"))
	at.limited(t, "/lookup", "%s", lookupBody(t, pepper, "2@example.com email", "3@example.com email", "4@example.com email"))
	at.post(t, "/lookup", "%s", lookupBody(t, pepper, "1@example.com email", "2@example.com email", "3@example.com email"))
	c.limited(t, "/lookup", "%s", lookupBody(t, pepper, "4@example.com email"))

	redis, err := w.redis.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer redis.Close()
	keys, err := redis.Keys(t.Context(), w.redis.KeyPrefix+"*").Result()
	if err != nil || len(keys) == 0 {
		t.Errorf("%d keys in Redis, %v", len(keys), err)
	}
	for _, p := range []*harness.Process{one, other} {
		_, metrics := fetch(t, p.Admin+"/metrics")
		if !strings.Contains(metrics, "herald_identity_store_fallbacks_total 0\n") {
			t.Error("a process did without Redis")
		}
		if !strings.Contains(metrics, `herald_identity_limited_total{limit="request_token_address"} 1`) {
			t.Error("a refusal is not counted")
		}
	}
}

func TestOneProcessLimitsByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.SQLite(t))
	p := startBinary(t, []string{"IDENTITY_LIMITS_TEST_BIND_ACCOUNT=1/30d", "IDENTITY_LIMITS_TEST_SMS_COUNTRY=1/30d"}, "-config", w.config)
	c := w.register(t, p.API, "alice")
	const text = `{"client_secret":"monkeys","country":"US","phone_number":%q,"send_attempt":1}`
	c.post(t, "/validate/msisdn/requestToken", text, "+447700900001")
	c.limited(t, "/validate/msisdn/requestToken", text, "+447700900002")
	p.Await(t, "text messages have reached their cap")
	const bind = `{"sid":"none","client_secret":"monkeys","mxid":"@alice:example.org"}`
	if status, _ := c.ask(t, http.MethodPost, "/3pid/bind", bind); status == http.StatusTooManyRequests {
		t.Error("the first request is refused")
	}
	c.limited(t, "/3pid/bind", bind)
}
