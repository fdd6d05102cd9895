package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/threepid"
)

// TestDevelopmentKeepsWhatCameLast fills the outbox and the list of OpenID
// tokens, and looks for the first and the last of each.
func TestDevelopmentKeepsWhatCameLast(t *testing.T) {
	t.Parallel()
	b, err := newOutbox(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	cfg := defaultConfig()
	cfg.PublicBaseURL = "https://id.example.org"
	m, err := b.messengers(cfg, nil, environment{reg: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxOutbox + 1 {
		phone := fmt.Sprint(447700900000 + i)
		err := m.sms.Send(t.Context(), threepid.Challenge{
			ID: threepid.ID{Medium: threepid.MediumMSISDN, Address: phone}, To: phone, Region: "GB", Token: "123456",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, first, last := len(b.messages), b.messages[maxOutbox-1].To, b.messages[0].To; n != 100 || first != "447700900001" || last != "447700900100" {
		t.Errorf("%d messages from %s to %s", n, first, last)
	}

	h := &devHomeserver{name: "localhost", tokens: make(map[string]devToken)}
	ask := func(handle http.HandlerFunc, method, target string) (status int, token string) {
		r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
		r.SetPathValue("userId", "@alice:localhost")
		w := httptest.NewRecorder()
		handle(w, r)
		var answer struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		return w.Code, answer.AccessToken
	}
	known := func(token string) bool {
		status, _ := ask(h.userInfo, http.MethodGet, "/?access_token="+token)
		return status == http.StatusOK
	}
	var tokens [devMaxTokens + 1]string
	for i := range tokens {
		_, tokens[i] = ask(h.issue, http.MethodPost, "/")
	}
	if known(tokens[0]) || !known(tokens[1]) || !known(tokens[devMaxTokens]) {
		t.Errorf("known: the first %t, the second %t, the last %t", known(tokens[0]), known(tokens[1]), known(tokens[devMaxTokens]))
	}
}
