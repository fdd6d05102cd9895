package httpapi_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/httpapi"
	"github.com/matrix-herald/herald/threepid"
)

const (
	storeInvitePath = "/_matrix/identity/v2/store-invite"
	signPath        = "/_matrix/identity/v2/sign-ed25519"
	isValidPath     = "/_matrix/identity/v2/pubkey/isvalid"
	ephemeralPath   = "/_matrix/identity/v2/pubkey/ephemeral/isvalid"
	invitePath      = "/_matrix/identity/herald/v1/invite"
	invitesPath     = "/_matrix/identity/herald/v1/invites/"
)

// inviteBody is a request as Synapse sends it.
func inviteBody(t testing.TB, change map[string]any) string {
	t.Helper()
	body := map[string]any{
		"medium": "email", "address": "Carol@Example.net", "room_id": "!room:example.org", "sender": alice,
		"room_alias": "", "room_avatar_url": "mxc://example.org/tea", "room_join_rules": "invite", "room_name": "Tea & cake",
		"room_type": nil, "sender_display_name": "Alice", "sender_avatar_url": "", "other": []any{1},
	}
	for name, value := range change {
		body[name] = value
	}
	return encode(t, body)
}

// stored is the answer to store-invite.
type stored struct {
	Token       string `json:"token"`
	PublicKey   string `json:"public_key"`
	DisplayName string `json:"display_name"`
	PublicKeys  []struct {
		PublicKey      string `json:"public_key"`
		KeyValidityURL string `json:"key_validity_url"`
	} `json:"public_keys"`
}

// invite invites somebody and returns what the room and the mail say.
func (w *world) invite(t testing.TB, token string, change map[string]any) (stored, threepid.Invitation) {
	t.Helper()
	a := w.send(t, post(storeInvitePath, token, inviteBody(t, change)))
	a.object(t)
	var s stored
	check(t, json.Unmarshal(a.body, &s))
	return s, w.mail.invitation(t)
}

// isValid asks whether a key is valid, as homeservers do with the URL of a room.
func (w *world) isValid(t testing.TB, key, validityURL string) bool {
	t.Helper()
	path, ok := strings.CutPrefix(validityURL, baseURL)
	if !ok {
		t.Fatalf("%s is elsewhere", validityURL)
	}
	a := w.send(t, get(path+"?"+url.Values{"public_key": {key}}.Encode(), ""))
	valid, ok := a.object(t)["valid"].(bool)
	if !ok {
		t.Fatalf("%s", a.body)
	}
	return valid
}

// Conformance (invites): the answer: two keys whose URLs are ours and answer at once (≠ Sydent: v1 URLs, also when v1 is off), `public_key` for Dendrite and Synapse (also TestHomeserversCanCheckWhatTheyAreTold)
// Conformance (invites): a token of at most 255 of `0-9a-zA-Z.=_-`
// Conformance (callers): Synapse: store-invite with all optional members, empty or null; reads `token`, `public_keys` or `public_key`, `display_name`; asks the validity URLs (also TestInviteWithStrangeDetails)
// Conformance (security): the private key of an invite is in its mail alone (also TestInvitePage)
func TestStoreInviteTellsTheRoomAndTheInvitee(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	room, mail := w.invite(t, token, map[string]any{"address": "Carol@Bücher.example", "room_type": "m.space"})
	if !regexp.MustCompile(`^[0-9a-zA-Z.=_-]{20,255}$`).MatchString(room.Token) || room.DisplayName != "car...@büc..." {
		t.Errorf("token %q, display name %q", room.Token, room.DisplayName)
	}
	if len(room.PublicKeys) != 2 || room.PublicKey != room.PublicKeys[0].PublicKey ||
		room.PublicKeys[0].KeyValidityURL != baseURL+isValidPath || room.PublicKeys[1].KeyValidityURL != baseURL+ephemeralPath {
		t.Fatalf("public keys %+v", room.PublicKeys)
	}
	for _, k := range room.PublicKeys {
		if !w.isValid(t, k.PublicKey, k.KeyValidityURL) {
			t.Errorf("%s is not valid at %s", k.PublicKey, k.KeyValidityURL)
		}
	}
	want := threepid.Invitation{
		ID: threepid.ID{Medium: "email", Address: "carol@bücher.example"}, To: "carol@xn--bcher-kva.example",
		Token: room.Token, PrivateKey: mail.PrivateKey, Sender: alice, SenderName: "Alice", RoomName: "Tea & cake", Space: true,
		Homeserver: "example.org",
		ValidFor:   90 * 24 * time.Hour,
	}
	if mail != want {
		t.Error("the mail says something else")
	}
	// Nothing but the mail holds the private half of the ephemeral key.
	seed, err := base64.RawURLEncoding.DecodeString(mail.PrivateKey)
	check(t, err)
	if public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey); base64.RawURLEncoding.EncodeToString(public) != room.PublicKeys[1].PublicKey {
		t.Error("the keys do not belong together")
	}
	if strings.Contains(w.log.String(), mail.PrivateKey) || strings.Contains(w.log.String(), "carol") {
		t.Error("the log tells the key or the address")
	}
}

// Conformance (invites): `/pubkey/ephemeral/isvalid`, in every spelling of the key | false once the invite is cancelled, expired, or was used a day ago (≠ Sydent: for ever true) (also TestInvitesEndForEverybody, TestUsedInvitesStayValidForADay)
func TestEphemeralKeysInEverySpelling(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	room, _ := w.invite(t, token, nil)
	raw, err := base64.RawURLEncoding.DecodeString(room.PublicKeys[1].PublicKey)
	check(t, err)
	standard := base64.StdEncoding.EncodeToString(raw)
	for name, c := range map[string]struct {
		asked string
		want  bool
	}{
		"as issued":                {room.PublicKeys[1].PublicKey, true},
		"standard and padded":      {standard, true},
		"a plus that came a space": {strings.ReplaceAll(standard, "+", " "), true},
		"our long-term key":        {room.PublicKeys[0].PublicKey, false},
		"another key":              {base64.RawURLEncoding.EncodeToString(make([]byte, 32)), false},
		"nothing":                  {"", false},
		"no key":                   {"key", false},
	} {
		if got := w.isValid(t, c.asked, baseURL+ephemeralPath); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if w.isValid(t, room.PublicKeys[1].PublicKey, baseURL+isValidPath) {
		t.Error("the ephemeral key is one of our own")
	}
}

// Conformance (invites): the order of the checks: account, sender, limits, bound already, medium, address | 403 `M_UNAUTHORIZED`, 429 `M_LIMIT_EXCEEDED`, 400 `M_THREEPID_IN_USE` with `mxid`, `M_UNRECOGNIZED`, `M_INVALID_EMAIL` (≠ Sydent: 500 for some) (also TestLimitsOfInvites)
func TestStoreInviteRefusals(t *testing.T) {
	t.Parallel()
	w, token := bound(t, "bound@example.org")
	policies := []identity.Policy{{ID: "tos", Version: "1", Languages: map[string]identity.PolicyText{"en": {Name: "Terms", URL: "https://example.org/tos"}}}}
	unsigned := newWorld(t, func(s *settings) { s.policies = policies })
	for name, c := range map[string]struct {
		body    string
		status  int
		errcode string
	}{
		"no address":                       {`{"medium":"email","room_id":"!r:x","sender":"` + alice + `"}`, 400, "M_MISSING_PARAMS"},
		"a name that is a number":          {inviteBody(t, map[string]any{"room_name": 1}), 400, "M_BAD_JSON"},
		"another's invite":                 {inviteBody(t, map[string]any{"sender": bob}), 403, "M_UNAUTHORIZED"},
		"another's invite of a bound one":  {inviteBody(t, map[string]any{"sender": bob, "address": "bound@example.org"}), 403, "M_UNAUTHORIZED"},
		"another's invite by telephone":    {inviteBody(t, map[string]any{"sender": bob, "medium": "msisdn"}), 403, "M_UNAUTHORIZED"},
		"the sender in other case":         {inviteBody(t, map[string]any{"sender": strings.ToUpper(alice)}), 403, "M_UNAUTHORIZED"},
		"a bound address in other case":    {inviteBody(t, map[string]any{"address": "BOUND@Example.org"}), 400, "M_THREEPID_IN_USE"},
		"a telephone":                      {inviteBody(t, map[string]any{"medium": "msisdn", "address": "447700900001"}), 400, "M_UNRECOGNIZED"},
		"a telephone that is none":         {inviteBody(t, map[string]any{"medium": "msisdn", "address": "x"}), 400, "M_UNRECOGNIZED"},
		"a pigeon":                         {inviteBody(t, map[string]any{"medium": "pigeon"}), 400, "M_UNRECOGNIZED"},
		"what is no address":               {inviteBody(t, map[string]any{"address": "noat"}), 400, "M_INVALID_EMAIL"},
		"two addresses":                    {inviteBody(t, map[string]any{"address": "a@b@c.org"}), 400, "M_INVALID_EMAIL"},
		"a header":                         {inviteBody(t, map[string]any{"address": "a@b.org\nBcc: c@d.org"}), 400, "M_INVALID_EMAIL"},
		"an endless address":               {inviteBody(t, map[string]any{"address": strings.Repeat("a", 500) + "@b.org"}), 400, "M_INVALID_EMAIL"},
		"no room":                          {inviteBody(t, map[string]any{"room_id": ""}), 400, "M_INVALID_PARAM"},
		"an endless room":                  {inviteBody(t, map[string]any{"room_id": "!" + strings.Repeat("r", 255)}), 400, "M_INVALID_PARAM"},
		"a room that no database can hold": {inviteBody(t, map[string]any{"room_id": "!r\x00:x"}), 400, "M_INVALID_PARAM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := w.send(t, post(storeInvitePath, token, c.body)).refused(t, c.status, c.errcode)
			if mxid := got["mxid"]; c.errcode == "M_THREEPID_IN_USE" != (mxid == alice) {
				t.Errorf("mxid %v", mxid)
			}
		})
	}
	w.send(t, post(storeInvitePath, "", `x`)).refused(t, 401, "M_UNAUTHORIZED")
	unsigned.send(t, post(storeInvitePath, unsigned.register(t, alice), `x`)).refused(t, 403, "M_TERMS_NOT_SIGNED")
	if records, err := w.db.Invites(t.Context(), 0, 10); len(records) != 0 || err != nil {
		t.Errorf("%d invites, %v", len(records), err)
	}
}

// Conformance (invites): details that are empty, null or absent, as Synapse and Dendrite send them; names of any length, control characters; a `room_id` of any form | taken, cut at 255 characters; mails show 20 of a name and 30 of a room (also TestInvitationsSayWhoInvitesWhereto, TestDendritesCalls)
func TestInviteWithStrangeDetails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	_, mail := w.invite(t, token, map[string]any{
		"room_name": nil, "room_alias": "#tea:example.org", "sender_display_name": "A\x00\nB" + strings.Repeat("ß", 1000), "room_id": "anything",
	})
	if mail.RoomName != "#tea:example.org" || !strings.HasPrefix(mail.SenderName, "ABß") || len([]rune(mail.SenderName)) != 255 {
		t.Errorf("room %q, sender %q", mail.RoomName, mail.SenderName)
	}
}

func TestInviteWhoseMailIsNotSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	for name, c := range map[string]struct {
		err     error
		status  int
		errcode string
	}{
		"the relay refuses":    {threepid.ErrSend, 400, "M_EMAIL_SEND_ERROR"},
		"too much is sent":     {&threepid.BusyError{RetryAfter: 3 * time.Second}, 429, "M_LIMIT_EXCEEDED"},
		"something unforeseen": {fmt.Errorf("out of ink"), 500, "M_UNKNOWN"},
	} {
		w.mail.fail(c.err)
		w.send(t, post(storeInvitePath, token, inviteBody(t, nil))).refused(t, c.status, c.errcode)
		if records, err := w.db.Invites(t.Context(), 0, 10); len(records) != 0 || err != nil {
			t.Errorf("%s: %d invites, %v", name, len(records), err)
		}
	}
}

// verifySigned checks what sign-ed25519 answered as a homeserver does, with
// nothing of ours.
func verifySigned(t testing.TB, object map[string]any, key, mxid, token string) {
	t.Helper()
	public, err := base64.RawURLEncoding.DecodeString(key)
	check(t, err)
	signature, _ := object["signatures"].(map[string]any)[serverName].(map[string]any)["ed25519:0"].(string)
	raw, err := base64.RawStdEncoding.DecodeString(signature)
	check(t, err)
	delete(object, "signatures")
	if diff := cmp.Diff(map[string]any{"mxid": mxid, "sender": alice, "token": token}, object); diff != "" {
		t.Error(diff)
	}
	message := fmt.Sprintf(`{"mxid":%q,"sender":%q,"token":%q}`, mxid, alice, token)
	if !ed25519.Verify(public, []byte(message), raw) {
		t.Error("the signature does not match")
	}
}

// Conformance (invites): `/sign-ed25519` with a body and an access token, or with a query and neither; every base64 | signed with the invite's own key alone (≠ Sydent: any) (also TestSignInviteRefusals, FuzzOpen)
// Conformance (invites): ephemeral signatures have the key ID `ed25519:0`, as from Sydent; only the key counts (also TestLinksOfFormerServers)
func TestSignInvite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	room, mail := w.invite(t, token, nil)
	raw, err := base64.RawURLEncoding.DecodeString(mail.PrivateKey)
	check(t, err)
	for name, key := range map[string]string{
		"as mailed": mail.PrivateKey, "standard": base64.RawStdEncoding.EncodeToString(raw),
		"standard and padded": base64.StdEncoding.EncodeToString(raw), "URL-safe and padded": base64.URLEncoding.EncodeToString(raw),
	} {
		for how, r := range map[string]request{
			"JSON with a token":            post(signPath, w.register(t, bob), encode(t, map[string]any{"mxid": bob, "token": room.Token, "private_key": key})),
			"a query without anything":     post(signPath+"?"+url.Values{"mxid": {bob}, "token": {room.Token}, "private_key": {key}}.Encode(), "", ""),
			"a query with a broken token":  post(signPath+"?"+url.Values{"mxid": {bob}, "token": {room.Token}, "private_key": {key}}.Encode(), "broken", "x"),
			"a query that does not escape": post(signPath+"?mxid="+bob+"&token="+room.Token+"&private_key="+key, "", ""),
		} {
			t.Run(name+" in "+how, func(t *testing.T) {
				verifySigned(t, w.send(t, r).object(t), room.PublicKeys[1].PublicKey, bob, room.Token)
			})
		}
	}
}

// Conformance (invites): an unknown token at `/sign-ed25519`; what is no key (≠ Sydent: 500) | 404 `M_UNRECOGNIZED`; 400 `M_INVALID_PARAM`
// Conformance (attacks): signing with somebody else's invite | the private key is in the mail alone, and signs for its own invite (also FuzzOpen)
func TestSignInviteRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	room, mail := w.invite(t, token, nil)
	_, other := w.invite(t, token, map[string]any{"address": "other@example.net"})
	for name, c := range map[string]struct {
		mxid, token, key string
		status           int
		errcode          string
	}{
		"an unknown token":              {bob, "unknown", mail.PrivateKey, 404, "M_UNRECOGNIZED"},
		"a token that cannot be":        {bob, "?\x00", mail.PrivateKey, 404, "M_UNRECOGNIZED"},
		"an empty token":                {bob, "", mail.PrivateKey, 404, "M_UNRECOGNIZED"},
		"another invite's key":          {bob, room.Token, other.PrivateKey, 400, "M_INVALID_PARAM"},
		"the public key":                {bob, room.Token, room.PublicKeys[1].PublicKey, 400, "M_INVALID_PARAM"},
		"a key that is none":            {bob, room.Token, "key", 400, "M_INVALID_PARAM"},
		"no key":                        {bob, room.Token, "", 400, "M_INVALID_PARAM"},
		"nobody":                        {"", room.Token, mail.PrivateKey, 400, "M_INVALID_PARAM"},
		"a user without a server":       {"@bob", room.Token, mail.PrivateKey, 400, "M_INVALID_PARAM"},
		"a user that is too long":       {"@" + strings.Repeat("b", 255) + ":x", room.Token, mail.PrivateKey, 400, "M_INVALID_PARAM"},
		"a user that is no text at all": {"@\xff:x", room.Token, mail.PrivateKey, 400, "M_INVALID_PARAM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			query := url.Values{"mxid": {c.mxid}, "token": {c.token}, "private_key": {c.key}}.Encode()
			w.send(t, post(signPath+"?"+query, "", "")).refused(t, c.status, c.errcode)
		})
	}
	for name, c := range map[string]struct {
		request
		status  int
		errcode string
	}{
		"JSON without an access token": {post(signPath, "", encode(t, map[string]any{"mxid": bob, "token": room.Token, "private_key": mail.PrivateKey})), 401, "M_UNAUTHORIZED"},
		"a query without the key":      {post(signPath+"?mxid=x&token="+room.Token, "", ""), 401, "M_UNAUTHORIZED"},
		"a query without a user":       {post(signPath+"?private_key=x&token="+room.Token, "", ""), 400, "M_MISSING_PARAMS"},
		"JSON without a user":          {post(signPath, token, `{"token":"x","private_key":"x"}`), 400, "M_MISSING_PARAMS"},
		"by GET":                       {get(signPath+"?mxid=x&private_key=x&token="+room.Token, ""), 405, "M_UNRECOGNIZED"},
	} {
		t.Run(name, func(t *testing.T) {
			w.send(t, c.request).refused(t, c.status, c.errcode)
		})
	}
}

// Conformance (invites): taking an invite back (our own `DELETE …/herald/v1/invites/{token}`) | by its sender (also TestSendersCancellationsAreCounted)
func TestInvitesEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token, stranger := w.register(t, alice), w.register(t, bob)
	room, mail := w.invite(t, token, nil)
	expiring, expiringMail := w.invite(t, token, map[string]any{"address": "dora@example.net"})
	usable := func(room stored, mail threepid.Invitation) bool {
		t.Helper()
		query := url.Values{"mxid": {bob}, "token": {room.Token}, "private_key": {mail.PrivateKey}}.Encode()
		signs := w.send(t, post(signPath+"?"+query, "", "")).status == http.StatusOK
		valid := w.isValid(t, room.PublicKeys[1].PublicKey, baseURL+ephemeralPath)
		if signs != valid {
			t.Errorf("signs: %v, valid: %v", signs, valid)
		}
		return valid
	}
	cancel := func(token, invite string) request {
		return request{method: http.MethodDelete, path: invitesPath + invite, token: token}
	}
	w.send(t, cancel("", room.Token)).refused(t, 401, "M_UNAUTHORIZED")
	w.send(t, cancel(stranger, room.Token)).refused(t, 404, "M_NOT_FOUND")
	w.send(t, cancel(token, "unknown")).refused(t, 404, "M_NOT_FOUND")
	w.send(t, cancel(token, "%00")).refused(t, 404, "M_NOT_FOUND")
	if !usable(room, mail) {
		t.Fatal("the invite is gone")
	}
	w.send(t, cancel(token, room.Token)).object(t)
	w.send(t, cancel(token, room.Token)).refused(t, 404, "M_NOT_FOUND")
	if usable(room, mail) {
		t.Error("a cancelled invite can be accepted")
	}
	w.clock.advance(90*24*time.Hour - time.Millisecond)
	if !usable(expiring, expiringMail) {
		t.Error("an invite ended early")
	}
	w.clock.advance(time.Millisecond)
	if usable(expiring, expiringMail) {
		t.Error("an invite does not expire")
	}
}

// Conformance (invites): the private key is in the mail alone, whose link leads to a page of ours, and that to the clients on offer (also TestInvitePageOfNoInvite, TestPagesInABrowser)
// Conformance (invites): the client that a homeserver names (`org.matrix.web_client_location`) | comes first if it is one of ours, else nothing of it is shown (also TestInvitePageOfNoInvite)
func TestInvitePage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	_, mail := w.invite(t, token, map[string]any{
		"room_type": "m.space", "sender_display_name": "Alice <b>", "org.matrix.web_client_location": "https://other.example/chat",
	})
	query := "?" + url.Values{"token": {mail.Token}, "private_key": {mail.PrivateKey}}.Encode()
	page := w.send(t, get(invitePath+query, ""))
	page.isPage(t, 200, "You are invited to Tea &amp; cake")
	body := string(page.body)
	if !strings.Contains(body, "Alice &lt;b&gt; ("+alice+") invites you to a space") {
		t.Errorf("%s", body)
	}
	hrefs := regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(body, -1)
	if len(hrefs) != 2 {
		t.Fatalf("links %q", hrefs)
	}
	for i, client := range []string{"https://other.example/chat", "https://app.element.example"} { // the one the sender uses first
		rest, ok := strings.CutPrefix(html.UnescapeString(hrefs[i][1]), client+"/#/room/")
		room, fragment, _ := strings.Cut(rest, "?")
		if room, err := url.PathUnescape(room); !ok || err != nil || room != "!room:example.org" || strings.Contains(fragment, "+") {
			t.Fatalf("link %s", hrefs[i][1])
		}
		values, err := url.ParseQuery(fragment)
		check(t, err)
		signURL, err := url.Parse(values.Get("signurl"))
		check(t, err)
		values.Del("signurl")
		want := url.Values{
			"email": {"carol@example.net"}, "room_name": {"Tea & cake"}, "inviter_name": {"Alice <b>"}, "room_type": {"m.space"},
			"room_avatar_url": {"mxc://example.org/tea"},
		}
		if diff := cmp.Diff(want, values); diff != "" {
			t.Error(diff)
		}
		// A client adds the user and posts nothing at all.
		q := signURL.Query()
		q.Set("mxid", bob)
		if signURL.Host != "id.example.org" {
			t.Errorf("signurl %s", signURL)
		}
		w.send(t, post(signURL.Path+"?"+q.Encode(), "", "")).object(t)
	}
	head := w.send(t, request{method: http.MethodHead, path: invitePath + query})
	if head.status != http.StatusOK || len(head.body) != 0 {
		t.Errorf("HEAD: %d", head.status)
	}
}

// TestStrangersWordsOnThePageOfAnInvite is about what a spammer would put where
// the page names a person and a room.
func TestStrangersWordsOnThePageOfAnInvite(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	token := w.register(t, alice)
	for name, words := range map[string]string{
		"a long text":       "Security alert: your account is locked, call us now. " + strings.Repeat("x", 200),
		"a number to call":  "Call +1 900 555-0199",
		"a link":            "https://evil.example/",
		"a domain":          "see evil.example",
		"a reversed text":   "\u202eelpmaxe.live",
		"invisible letters": "Bank\u200b\u2066 of Tea",
	} {
		_, mail := w.invite(t, token, map[string]any{"room_name": words, "sender_display_name": words})
		page := w.send(t, get(invitePath+"?token="+mail.Token+"&private_key="+mail.PrivateKey, ""))
		shown := strings.ReplaceAll(string(page.body), "\u2060", "!") // what keeps a link from being one
		if page.status != http.StatusOK {
			t.Errorf("%s: %d", name, page.status)
		}
		if bad := regexp.MustCompile(`evil\.example|https://evil|0199|live\.|locked|[\x{200b}\x{202e}\x{2066}]`).FindString(shown); bad != "" {
			t.Errorf("%s: %q in\n%s", name, bad, shown)
		}
		fragment := html.UnescapeString(regexp.MustCompile(`href="([^"]*)"`).FindStringSubmatch(shown)[1])
		if values, err := url.ParseQuery(fragment[strings.Index(fragment, "?")+1:]); err != nil || utf8.RuneCountInString(values.Get("room_name")) > 35 {
			t.Errorf("%s: %q goes to the client, %v", name, values.Get("room_name"), err)
		}
	}
}

// TestInvitesLeadToTheClientsOfTheirHomeserver is about the page, and about which
// clients a homeserver may ask for.
//
// Conformance (homeservers): clients: the page of an invite has those of the sender's homeserver, which may choose among them
func TestInvitesLeadToTheClientsOfTheirHomeserver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(s *settings) {
		s.api.ClientsOf = map[string][]httpapi.Client{"example.com": {{Name: "Own", URL: "https://chat.example.com"}, {Name: "Beta", URL: "https://beta.example.com"}}}
	})
	const own, other = "@alice:example.com", alice
	for name, c := range map[string]struct {
		sender, location string
		want             []string
	}{
		"a user of the homeserver":                        {own, "", []string{"https://chat.example.com", "https://beta.example.com"}},
		"a user of the homeserver, with one of its own":   {own, "https://beta.example.com/", []string{"https://beta.example.com", "https://chat.example.com"}},
		"a user of the homeserver, with one of another's": {own, "https://app.element.example", []string{"https://chat.example.com", "https://beta.example.com"}},
		"a user of another one":                           {other, "", []string{"https://app.element.example", "https://other.example/chat"}},
		"a user of another one, with one of its own":      {other, "https://chat.example.com", []string{"https://app.element.example", "https://other.example/chat"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, mail := w.invite(t, w.register(t, c.sender), map[string]any{"sender": c.sender, "org.matrix.web_client_location": c.location})
			page := string(w.send(t, get(invitePath+"?token="+mail.Token+"&private_key="+mail.PrivateKey, "")).body)
			var got []string
			for _, href := range regexp.MustCompile(`href="(.*?)/#/room/`).FindAllStringSubmatch(page, -1) {
				got = append(got, href[1])
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestInvitePageOfNoInvite(t *testing.T) {
	t.Parallel()
	w, broken := newWorld(t, nil), newWorld(t, nil)
	token := w.register(t, alice)
	_, mail := w.invite(t, token, map[string]any{"org.matrix.web_client_location": "https://evil.example"})
	page := string(w.send(t, get(invitePath+"?token="+mail.Token+"&private_key="+mail.PrivateKey, "")).body)
	if strings.Contains(page, "evil") {
		t.Error("a mail leads to a client of a stranger's choice")
	}
	gone := "This invitation is no longer valid"
	// Everybody in the room knows the token, and the page knows the address.
	w.send(t, get(invitePath+"?token="+mail.Token+"&private_key=AAAA", "")).isPage(t, 404, gone)
	w.send(t, get(invitePath+"?token=unknown&private_key="+mail.PrivateKey, "")).isPage(t, 404, gone)
	w.send(t, get(invitePath+"?token="+mail.Token, "")).isPage(t, 400, "This link is incomplete")
	w.send(t, get(invitePath, "")).isPage(t, 400, "This link is incomplete")
	check(t, broken.db.Close())
	broken.send(t, get(invitePath+"?token="+mail.Token+"&private_key="+mail.PrivateKey, "")).isPage(t, 500, "Something went wrong")
	w.clock.advance(91 * 24 * time.Hour)
	w.send(t, get(invitePath+"?token="+mail.Token+"&private_key="+mail.PrivateKey, "")).isPage(t, 404, gone)
}

// Conformance (federation): nothing bound, bound to another user | 200
// Conformance (federation): a homeserver whose keys cannot be had (≠ Sydent: 500), which Synapse does not take for "unsupported" | 502 `M_UNKNOWN`
func TestUnbindByHomeserver(t *testing.T) {
	t.Parallel()
	w, token := bound(t, "alice@example.org")
	isBound := func() bool { return len(w.lookup(t, token, "none", "alice@example.org email")) == 1 }
	body := func(mxid, medium, address string) string {
		return encode(t, map[string]any{"mxid": mxid, "threepid": map[string]string{"medium": medium, "address": address}})
	}
	unbind := func(body, authorization string) answer {
		r := post(unbindPath, "", body)
		if authorization != "" {
			r.header = http.Header{"Authorization": {authorization}}
		}
		return w.send(t, r)
	}
	good := body(alice, "email", "Alice@example.org")
	for name, c := range map[string]struct {
		body, authorization string
		status              int
		errcode             string
	}{
		"no signature":              {good, "", 403, "M_FORBIDDEN"},
		"a bad signature":           {good, "bad", 403, "M_FORBIDDEN"},
		"an access token":           {good, "Bearer " + token, 403, "M_FORBIDDEN"},
		"for another server":        {good, "elsewhere", 401, "M_UNAUTHORIZED"},
		"of nobody to be found":     {good, "unreachable", 502, "M_UNKNOWN"},
		"another server's user":     {good, "signed example.com", 403, "M_FORBIDDEN"},
		"a server ending alike":     {good, "signed org", 403, "M_FORBIDDEN"},
		"the server in other case":  {good, "signed Example.org", 403, "M_FORBIDDEN"},
		"a server with a port":      {good, "signed example.org:8448", 403, "M_FORBIDDEN"},
		"what is no user":           {body("alice:example.org", "email", "alice@example.org"), "signed example.org", 403, "M_FORBIDDEN"},
		"a user nobody could store": {body("@alice\x00:example.org", "email", "alice@example.org"), "signed example.org", 403, "M_FORBIDDEN"},
		"nothing to unbind":         {`{}`, "signed example.org", 400, "M_MISSING_PARAMS"},
		"more than fits":            {`{"x":"` + strings.Repeat("x", 64<<10) + `"}`, "signed example.org", 413, "M_TOO_LARGE"},
	} {
		t.Run(name, func(t *testing.T) {
			unbind(c.body, c.authorization).refused(t, c.status, c.errcode)
		})
	}
	for name, b := range map[string]string{
		"another user's":       body(bob, "email", "alice@example.org"),
		"nobody's":             body(alice, "email", "nobody@example.org"),
		"what is no address":   body(alice, "email", "alice"),
		"a medium of the past": body(alice, "pigeon", "alice@example.org"),
	} {
		t.Run("nothing is bound: "+name, func(t *testing.T) { unbind(b, "signed example.org").object(t) })
	}
	if !isBound() {
		t.Fatal("unbound by somebody else")
	}
	for range 2 {
		unbind(good, "signed example.org").object(t)
	}
	if isBound() {
		t.Error("still bound")
	}
	seen := w.servers.seen
	if seen.Method != http.MethodPost || seen.URI != unbindPath || string(seen.Content) != good {
		t.Errorf("checked the signature of %s %s", seen.Method, seen.URI)
	}
}
