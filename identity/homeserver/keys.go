package homeserver

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
)

const (
	// maxKeyServers is the number of homeservers whose keys are remembered.
	maxKeyServers = 1024
	// maxKeys is the number of keys one homeserver may have.
	maxKeys = 32

	// maxKeyLifetime is how long keys are good whatever their server says
	// (Server-Server API, "Publishing Keys").
	maxKeyLifetime = 7 * 24 * time.Hour
	// keyInterval passes between two requests for the keys of one server.
	keyInterval = time.Minute
)

var (
	errUnknownKey = errors.New("homeserver has no such key")
	errKeyExpired = errors.New("homeserver's keys have expired")
)

// serverKeys is what is known of a homeserver's keys.
type serverKeys struct {
	keys       map[string]ed25519.PublicKey // by key ID
	validUntil time.Time

	asked time.Time // when they were last asked for
	err   error     // why that gave no keys; the ones before remain
}

// find returns the key id if it is good at now.
func (k serverKeys) find(id string, now time.Time) (ed25519.PublicKey, error) {
	key, known := k.keys[id]
	switch {
	case known && now.Before(k.validUntil):
		return key, nil
	case k.err != nil:
		return nil, k.err
	case known:
		return nil, errKeyExpired
	default:
		return nil, errUnknownKey
	}
}

// key returns the public half of the key id of server. It asks server when it
// has to, but not twice a minute: whoever sends us requests chooses the servers
// and the keys. It returns identity.ErrBusy, an unreachableError, errUnknownKey or
// errKeyExpired.
func (c *Client) key(ctx context.Context, server ServerName, id string) (ed25519.PublicKey, error) {
	known, _ := c.keys.get(server.name, c.now())
	if key, err := known.find(id, c.now()); err == nil {
		return key, nil
	}
	known, err := c.keyFlights.do(ctx, server.name, func() (serverKeys, error) { return c.refreshKeys(ctx, server) })
	switch {
	case err == nil:
		return known.find(id, c.now())
	case errors.Is(err, identity.ErrBusy) || errors.Is(err, identity.ErrUnreachable):
		return nil, err
	default: // ctx ended while another caller was asking
		return nil, &unreachableError{cause: err}
	}
}

// refreshKeys returns what is known of the keys of server after asking for them,
// or without if that was done less than a minute ago. It fails only when this
// call says nothing about server: when ctx ended, or there are too many
// exchanges.
func (c *Client) refreshKeys(ctx context.Context, server ServerName) (serverKeys, error) {
	now := c.now()
	known, ok := c.keys.get(server.name, now)
	if ok && now.Before(known.asked.Add(keyInterval)) {
		return known, nil
	}
	fetched, err := c.fetchKeys(ctx, server, now)
	switch {
	case err == nil:
		known = fetched
	case ctx.Err() != nil || errors.Is(err, identity.ErrBusy):
		return serverKeys{}, err
	}
	known.asked, known.err = now, err
	expires := now.Add(keyInterval)
	if known.validUntil.After(expires) {
		expires = known.validUntil
	}
	c.keys.put(server.name, known, expires, now)
	return known, nil
}

// fetchKeys asks server for its keys (Server-Server API, "Retrieving server
// keys"). It returns identity.ErrBusy or an unreachableError.
func (c *Client) fetchKeys(ctx context.Context, server ServerName, now time.Time) (serverKeys, error) {
	r, err := c.exchange(ctx, server, request{purpose: forKeys, method: http.MethodGet, uri: "/_matrix/key/v2/server", timeout: c.timeout})
	if err != nil {
		return serverKeys{}, err
	}
	if r.status != http.StatusOK {
		return serverKeys{}, &unreachableError{cause: fmt.Errorf("status %d", r.status)}
	}
	keys, err := parseServerKeys(r.body, server, now)
	if err != nil {
		return serverKeys{}, &unreachableError{cause: fmt.Errorf("keys: %w", err)}
	}
	return keys, nil
}

// parseServerKeys returns the keys in body, the answer of server at now. A key
// counts only if the answer is signed with it, which proves that the server has
// its other half. Keys of the past (old_verify_keys) sign no requests.
func parseServerKeys(body []byte, server ServerName, now time.Time) (serverKeys, error) {
	object, err := signing.ParseObject(body)
	if err != nil {
		return serverKeys{}, err
	}
	if name, ok := object["server_name"].(string); !ok || name != server.name {
		return serverKeys{}, errors.New("not this server's")
	}
	until, ok := object["valid_until_ts"].(json.Number)
	if !ok {
		return serverKeys{}, errors.New("no valid_until_ts")
	}
	ms, err := strconv.ParseInt(until.String(), 10, 64)
	if err != nil {
		return serverKeys{}, errors.New("valid_until_ts is not an integer")
	}
	published, ok := object["verify_keys"].(map[string]any)
	if !ok || len(published) > maxKeys {
		return serverKeys{}, errors.New("no verify_keys, or too many")
	}
	found := serverKeys{
		keys:       make(map[string]ed25519.PublicKey, len(published)),
		validUntil: time.UnixMilli(min(ms, now.Add(maxKeyLifetime).UnixMilli())),
	}
	for id, v := range published {
		key, ok := publicKey(v)
		if ok && validKeyName(id) && signing.Verify(object, server.name, id, key) == nil {
			found.keys[id] = key
		}
	}
	if len(found.keys) == 0 {
		return serverKeys{}, errors.New("signed with none of them")
	}
	return found, nil
}

func publicKey(verifyKey any) (ed25519.PublicKey, bool) {
	object, _ := verifyKey.(map[string]any)
	text, _ := object["key"].(string)
	key, err := signing.ParsePublicKey(text)
	return key, err == nil
}
