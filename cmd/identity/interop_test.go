package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/matrix-herald/herald/identity/storetest"
)

// TestInterop has matrix-js-sdk use the running program with each of its identity
// methods, and invite somebody. `make interop` installs the SDK and names the
// folder of the script.
//
// Conformance (callers): matrix-js-sdk 43: each of its identity methods, and an invite of an address, by way of a homeserver that forwards as Synapse does (`make interop`)
func TestInterop(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("HERALD_INTEROP")
	if dir == "" {
		t.Skip("run make interop: it needs npm")
	}
	w := newWorld(t, storetest.SQLite(t))
	peers, environ := newPeers(t, 1)
	w.allow(t, fmt.Sprintf("trusted_homeservers: {127.0.0.1: [%q]}\n", peers[0].name))
	w.startWith(t, environ)
	hs := &synapse{t: t, world: w, peer: peers[0]}
	server := httptest.NewServer(hs.routes())
	defer server.Close()
	hs.url = server.URL

	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "node_modules", ".bin", "node"), filepath.Join(dir, "interop.mjs"))
	cmd.Env = append(os.Environ(), "HOMESERVER="+server.URL, "SERVER_NAME="+hs.peer.name, "IDENTITY="+w.front.URL)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// synapse is a homeserver's Client-Server API as far as it concerns an identity
// service, to which it passes on what clients ask for as Synapse 1.157 does. An
// access token is the localpart of its user.
type synapse struct {
	t     *testing.T
	world *world
	peer  *peer // its federation API
	url   string

	mu         sync.Mutex
	added      []threePID
	invited    []string
	thirdParty []thirdPartyInvite
}

type threePID struct {
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

// thirdPartyInvite is what the room's state has of an invite.
type thirdPartyInvite struct {
	Token       string `json:"token"`
	DisplayName string `json:"display_name"`
	PublicKeys  []struct {
		PublicKey      string `json:"public_key"`
		KeyValidityURL string `json:"key_validity_url"`
	} `json:"public_keys"`
}

// asked is what clients send, all of it.
type asked struct {
	threePID
	IDServer      string `json:"id_server"`
	IDAccessToken string `json:"id_access_token"`
	SID           string `json:"sid"`
	ClientSecret  string `json:"client_secret"`
	Third         struct {
		MXID       string                       `json:"mxid"`
		Sender     string                       `json:"sender"`
		Token      string                       `json:"token"`
		Signatures map[string]map[string]string `json:"signatures"`
	} `json:"third_party_signed"`
}

func (s *synapse) routes() http.Handler {
	mux := http.NewServeMux()
	const v3 = "/_matrix/client/v3"
	answer := func(pattern string, h func(r *http.Request, user string, body asked) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, h) })
	}
	answer("GET /_matrix/client/versions", func(*http.Request, string, asked) (any, error) {
		return map[string]any{"versions": []string{"v1.11"}}, nil
	})
	answer("POST "+v3+"/user/{user}/openid/request_token", s.openID)
	answer("POST "+v3+"/account/3pid/bind", s.bind)
	answer("POST "+v3+"/account/3pid/unbind", s.unbind)
	answer("POST "+v3+"/account/3pid/delete", s.unbind)
	answer("POST "+v3+"/account/3pid/msisdn/requestToken", s.requestSMS)
	answer("POST "+v3+"/account/3pid/msisdn/submit", s.submitSMS)
	answer("POST "+v3+"/account/3pid/add", s.add)
	answer("GET "+v3+"/account/3pid", func(*http.Request, string, asked) (any, error) {
		return map[string]any{"threepids": s.added}, nil
	})
	answer("POST "+v3+"/rooms/{room}/invite", s.invite)
	answer("POST "+v3+"/join/{room}", s.join)
	answer("GET /interop/sent", s.sent)
	answer("GET /interop/told", s.told)
	answer("GET /interop/room", func(*http.Request, string, asked) (any, error) {
		names := []string{}
		for _, i := range s.thirdParty {
			names = append(names, i.DisplayName)
		}
		return map[string]any{"invited": s.invited, "third_party": names}, nil
	})
	return mux
}

// refusal is an answer of the identity service that is passed on.
type refusal struct {
	status int
	body   []byte
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s", r.status, r.body) }

func (s *synapse) answer(w http.ResponseWriter, r *http.Request, h func(r *http.Request, user string, body asked) (any, error)) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	var body asked
	if len(data) > 0 {
		if err := json.Unmarshal(data, &body); err != nil {
			s.t.Errorf("%s: %v", r.URL.Path, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := h(r, s.peer.user(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")), body)
	w.Header().Set("Content-Type", "application/json")
	if refused, ok := errors.AsType[*refusal](err); ok {
		w.WriteHeader(refused.status)
		_, _ = w.Write(refused.body)
		return
	}
	if err != nil {
		s.t.Errorf("%s: %v", r.URL.Path, err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(v)
}

// forward asks the identity service.
func (s *synapse) forward(method, path, token string, body, into any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.world.front.URL+"/_matrix/identity"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	status, answer := do(s.t, r)
	if status != http.StatusOK {
		return &refusal{status, []byte(answer)}
	}
	return json.Unmarshal([]byte(answer), into)
}

func (s *synapse) openID(_ *http.Request, user string, _ asked) (any, error) {
	localpart, _, _ := strings.Cut(strings.TrimPrefix(user, "@"), ":")
	return map[string]any{"access_token": localpart, "token_type": "Bearer", "matrix_server_name": s.peer.name, "expires_in": 3600}, nil
}

func (s *synapse) bind(_ *http.Request, user string, a asked) (any, error) {
	var bound threePID
	err := s.forward(http.MethodPost, "/v2/3pid/bind", a.IDAccessToken, map[string]any{"sid": a.SID, "client_secret": a.ClientSecret, "mxid": user}, &bound)
	if err == nil && (bound.Medium == "" || bound.Address == "") {
		err = fmt.Errorf("bound %+v", bound)
	}
	return struct{}{}, err
}

func (s *synapse) unbind(_ *http.Request, user string, a asked) (any, error) {
	u := s.peer.unbind(user, a.Address, strings.TrimPrefix(s.world.front.URL, "http://"))
	u.content["threepid"] = map[string]any{"medium": a.Medium, "address": a.Address}
	u.signed["content"] = u.content
	result := "success"
	if status, answer := u.send(s.t, s.world.front.URL); status != http.StatusOK {
		result = "no-support: " + answer
	}
	return map[string]string{"id_server_unbind_result": result}, nil
}

func (s *synapse) requestSMS(r *http.Request, _ string, _ asked) (any, error) {
	var body, answer map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, err
	}
	err := s.forward(http.MethodPost, "/api/v1/validate/msisdn/requestToken", "", body, &answer)
	if err == nil {
		answer["submit_url"] = s.url + "/_matrix/client/v3/account/3pid/msisdn/submit"
	}
	return answer, err
}

func (s *synapse) submitSMS(r *http.Request, _ string, _ asked) (any, error) {
	var body, answer map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, err
	}
	return &answer, s.forward(http.MethodPost, "/api/v1/validate/msisdn/submitToken", "", body, &answer)
}

func (s *synapse) add(_ *http.Request, _ string, a asked) (any, error) {
	var proved threePID
	query := url.Values{"sid": {a.SID}, "client_secret": {a.ClientSecret}}
	err := s.forward(http.MethodGet, "/api/v1/3pid/getValidated3pid?"+query.Encode(), "", nil, &proved)
	s.added = append(s.added, proved)
	return struct{}{}, err
}

// invite looks the address up, the pepper with a token in the query, and invites
// the user or, failing that, the address.
func (s *synapse) invite(r *http.Request, user string, a asked) (any, error) {
	var details struct {
		Pepper string `json:"lookup_pepper"`
	}
	if err := s.forward(http.MethodGet, "/v2/hash_details?access_token="+url.QueryEscape(a.IDAccessToken), "", nil, &details); err != nil {
		return nil, err
	}
	var found struct{ Mappings map[string]string }
	h := hash(a.Address, a.Medium, details.Pepper)
	err := s.forward(http.MethodPost, "/v2/lookup", a.IDAccessToken,
		map[string]any{"addresses": []string{h}, "algorithm": "sha256", "pepper": details.Pepper}, &found)
	if err != nil {
		return nil, err
	}
	if mxid := found.Mappings[h]; mxid != "" {
		s.invited = append(s.invited, mxid)
		return struct{}{}, nil
	}
	var stored thirdPartyInvite
	err = s.forward(http.MethodPost, "/v2/store-invite", a.IDAccessToken, map[string]any{
		"medium": a.Medium, "address": a.Address, "room_id": r.PathValue("room"), "sender": user, "room_alias": "", "room_avatar_url": "",
		"room_join_rules": "invite", "room_name": "Tea", "sender_display_name": "Bob", "sender_avatar_url": nil,
	}, &stored)
	s.thirdParty = append(s.thirdParty, stored)
	return struct{}{}, err
}

// join lets somebody in whom a key of an invite in the room vouches for, if that
// is still valid.
func (s *synapse) join(r *http.Request, user string, a asked) (any, error) {
	at := slices.IndexFunc(s.thirdParty, func(i thirdPartyInvite) bool { return i.Token == a.Third.Token })
	if at < 0 || a.Third.MXID != user {
		return nil, fmt.Errorf("no such invite of %s: %+v", user, a.Third)
	}
	signed := map[string]any{"mxid": a.Third.MXID, "sender": a.Third.Sender, "token": a.Third.Token}
	key := s.thirdParty[at].PublicKeys[1] // the one in the mail
	checkSignature(s.t, key.PublicKey, signed, a.Third.Signatures[serverName]["ed25519:0"])
	if _, answer := send(s.t, http.MethodGet, key.KeyValidityURL+"?public_key="+url.QueryEscape(key.PublicKey), "", ""); answer != `{"valid":true}` {
		return nil, fmt.Errorf("the key is not valid: %s", answer)
	}
	return map[string]string{"room_id": r.PathValue("room")}, nil
}

// sent is the last mail or text message to somebody.
func (s *synapse) sent(r *http.Request, _ string, _ asked) (any, error) {
	to := r.URL.Query().Get("to")
	for _, m := range slices.Backward(s.world.relay.Messages()) {
		if m.To[0] == to {
			return map[string]string{"text": m.Text(s.t)}, nil
		}
	}
	for _, m := range slices.Backward(s.world.gateway.Requests()) {
		if body := m.JSON(s.t); body["to"] == to {
			return map[string]any{"text": body["text"]}, nil
		}
	}
	return nil, fmt.Errorf("nothing was sent to %s", to)
}

// told is what the homeserver has heard of a user's binding.
func (s *synapse) told(r *http.Request, _ string, _ asked) (any, error) {
	for n := 1; ; n++ {
		if told := s.peer.awaitTold(s.t, n)[n-1].object; told["mxid"] == r.URL.Query().Get("mxid") {
			return told, nil
		}
	}
}
