package homeserver

import (
	"context"
	"crypto/ed25519"
	"errors"
	"maps"
	"slices"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/identity/signing"
)

// maxAuthHeaders is how many authorizations a request may have: homeservers
// send one for each of their keys.
const maxAuthHeaders = 8

var (
	errNoXMatrix   = errors.New("no X-Matrix authorization")
	errManyXMatrix = errors.New("too many X-Matrix authorizations")
	errOrigins     = errors.New("authorizations name several origins")
)

// VerifyRequest is a request that a homeserver is said to have signed.
type VerifyRequest struct {
	// Method is the HTTP method in capitals.
	Method string
	// URI is the path and query as they were sent, beginning with /_matrix/.
	URI string
	// Headers are the values of all Authorization headers.
	Headers []string
	// Content is the body: one JSON value, or nothing.
	Content []byte
	// OwnNames are the names homeservers may call us by.
	OwnNames []string
}

// VerifyRequest returns the homeserver that signed r (Server-Server API,
// "Request Authentication"). What names us is signed as "destination" according
// to the specification, and as "destination_is" by the homeservers that sign
// requests to identity servers; both are good.
//
// Of several authorizations all must be well-formed and of one origin, and one
// must be signed with a key of that homeserver. It returns
// [identity.ErrWrongDestination], [identity.ErrNotSigned], and while the homeserver's keys are
// not known [identity.ErrUnreachable] or [identity.ErrBusy].
func (c *Client) VerifyRequest(ctx context.Context, r VerifyRequest) (ServerName, error) {
	auths, err := parseAuthorizations(r.Headers)
	if err != nil {
		return ServerName{}, &badSignatureError{cause: err}
	}
	for _, x := range auths {
		if x.HasDestination && !slices.Contains(r.OwnNames, x.Destination) {
			return ServerName{}, identity.ErrWrongDestination
		}
	}
	signed := map[string]any{"method": r.Method, "uri": r.URI}
	if len(r.Content) > 0 {
		if signed["content"], err = signing.Parse(r.Content); err != nil {
			return ServerName{}, &badSignatureError{cause: err}
		}
	}
	var errs []error
	for _, x := range auths {
		key, err := c.key(ctx, x.Origin, x.Key)
		if err == nil {
			err = x.verify(signed, r.OwnNames, key)
		}
		if err == nil {
			return x.Origin, nil
		}
		errs = append(errs, err)
	}
	return ServerName{}, worst(errs)
}

// parseAuthorizations returns the X-Matrix authorizations among headers: at
// least one, all of one origin.
func parseAuthorizations(headers []string) ([]XMatrix, error) {
	var auths []XMatrix
	for _, header := range headers {
		if !isXMatrix(header) {
			continue
		}
		if len(auths) == maxAuthHeaders {
			return nil, errManyXMatrix
		}
		x, err := ParseXMatrix(header)
		if err != nil {
			return nil, err
		}
		if len(auths) > 0 && x.Origin != auths[0].Origin {
			return nil, errOrigins
		}
		auths = append(auths, x)
	}
	if len(auths) == 0 {
		return nil, errNoXMatrix
	}
	return auths, nil
}

// verify checks that x signs request, which lacks the servers' names, for one
// of ownNames.
func (x XMatrix) verify(request map[string]any, ownNames []string, key ed25519.PublicKey) error {
	if x.HasDestination {
		ownNames = []string{x.Destination}
	}
	err := signing.ErrBadSignature
	for _, name := range ownNames {
		for _, member := range [...]string{"destination_is", "destination"} {
			object := map[string]any{
				"origin":     x.Origin.name,
				member:       name,
				"signatures": map[string]any{x.Origin.name: map[string]any{x.Key: x.Signature}},
			}
			maps.Copy(object, request)
			if err = signing.Verify(object, x.Origin.name, x.Key, key); err == nil {
				return nil
			}
		}
	}
	return err
}

// worst returns what became of a request none of whose authorizations proved
// anything. What might have with other keys is not called a bad signature.
func worst(errs []error) error {
	for _, err := range errs {
		if errors.Is(err, identity.ErrUnreachable) || errors.Is(err, identity.ErrBusy) {
			return err
		}
	}
	return &badSignatureError{cause: errors.Join(errs...)}
}
