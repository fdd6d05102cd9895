package httpapi

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

// retryBusy is when to come back after finding all exchanges with homeservers in
// use, each of which ends within seconds, or the database locked or restarting.
const retryBusy = 5 * time.Second

// errNoOwnInvite is identity.ErrNoInvite for its sender, with another code than
// for whom it is.
var errNoOwnInvite = errors.New("no such invite of this account")

// answers says how each error of the domain is answered. The first row that
// matches counts; an error in no row is a fault of ours.
var answers = []struct {
	err       error
	status    int
	code, msg string
}{
	{identity.ErrUnavailable, http.StatusServiceUnavailable, "M_UNKNOWN", "This service's database is not available right now; try again later"},
	{identity.ErrUnauthorized, http.StatusUnauthorized, "M_UNAUTHORIZED", "The access token is missing or not valid; register again"},
	{identity.ErrUnknownToken, http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "This access token is not known, or not any more"},
	{errTermsNotSigned, http.StatusForbidden, "M_TERMS_NOT_SIGNED", "Accept the terms of service first; GET /_matrix/identity/v2/terms lists them"},

	{errNotAllowed, http.StatusForbidden, "M_FORBIDDEN", "This service is for the users of other homeservers"},
	{identity.ErrInvalidServerName, http.StatusBadRequest, "M_INVALID_PARAM", "matrix_server_name is not a server name"},
	{identity.ErrOpenIDRefused, http.StatusUnauthorized, "M_UNAUTHORIZED", "The homeserver does not know this OpenID token; ask it for a new one"},
	{identity.ErrOpenIDMismatch, http.StatusUnauthorized, "M_UNAUTHORIZED", "The homeserver answered for a user who is not its own"},
	{identity.ErrUnreachable, http.StatusBadGateway, "M_UNKNOWN", "The homeserver did not give a usable answer; try again later"},
	{identity.ErrBusy, http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "Too many homeservers are being asked right now; try again later"},

	{identity.ErrBadAlgorithm, http.StatusBadRequest, "M_INVALID_PARAM", "algorithm is not one of those that GET /_matrix/identity/v2/hash_details offers"},
	{identity.ErrTooMany, http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "addresses: more than 10000; send them in several requests"},
	{identity.ErrBadPepper, http.StatusBadRequest, "M_INVALID_PEPPER", "The pepper is not valid, or not any more; hash with the current lookup_pepper"},
	{identity.ErrNoKey, http.StatusNotFound, "M_NOT_FOUND", "There is no such public key"},

	{threepid.ErrInvalidEmail, http.StatusBadRequest, "M_INVALID_EMAIL", "The email address is not valid"},
	{threepid.ErrInvalidPhone, http.StatusBadRequest, "M_INVALID_ADDRESS", "The phone number is not valid"},
	{threepid.ErrInvalidCountry, http.StatusBadRequest, "M_INVALID_ADDRESS", "country is not the two-letter code of a country, such as GB"},
	{threepid.ErrMailOff, http.StatusBadRequest, "M_EMAIL_SEND_ERROR", "Mail is switched off here"},
	{threepid.ErrSMSOff, http.StatusBadRequest, "M_DESTINATION_REJECTED", "Text messages are switched off here"},
	{threepid.ErrNoMailbox, http.StatusBadRequest, "M_INVALID_EMAIL", "There is no such mailbox; check the address"},
	{threepid.ErrNoNumber, http.StatusBadRequest, "M_INVALID_ADDRESS", "There is no such phone number; check it"},
	{threepid.ErrLandline, http.StatusBadRequest, "M_SEND_ERROR", "This phone number takes no text messages; use a mobile phone's"},
	{threepid.ErrOptedOut, http.StatusBadRequest, "M_SEND_ERROR", "This phone number has opted out of text messages; answer START to the last one, or use another"},
	{threepid.ErrDestinationRejected, http.StatusBadRequest, "M_DESTINATION_REJECTED", "This service does not send text messages to this country"},
	{threepid.ErrBusy, http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "Too many messages are being sent right now; try again later"},
	{errMailNotSent, http.StatusBadRequest, "M_EMAIL_SEND_ERROR", "The mail could not be sent; try again later"},
	{threepid.ErrSend, http.StatusBadRequest, "M_SEND_ERROR", "The text message could not be sent; try again later"},

	{identity.ErrNotSender, http.StatusForbidden, "M_UNAUTHORIZED", "sender is not the user of this access token"},
	{identity.ErrInvalidRoom, http.StatusBadRequest, "M_INVALID_PARAM", "room_id: expected the ID of a room, at most 255 bytes"},
	{identity.ErrInUse, http.StatusBadRequest, "M_THREEPID_IN_USE", "This address belongs to a user: invite mxid instead"},
	{identity.ErrMedium, http.StatusBadRequest, "M_UNRECOGNIZED", "medium: only email addresses can be invited"},
	{identity.ErrNoInvite, http.StatusNotFound, "M_UNRECOGNIZED", "There is no invite with this token, or not any more"},
	{errNoOwnInvite, http.StatusNotFound, "M_NOT_FOUND", "You have no invite with this token, or not any more"},
	{identity.ErrInviteKey, http.StatusBadRequest, "M_INVALID_PARAM", "private_key is not the one from the invitation"},
	{identity.ErrInvalidUser, http.StatusBadRequest, "M_INVALID_PARAM", "mxid is not a user ID"},

	{validation.ErrInvalidSecret, http.StatusBadRequest, "M_INVALID_PARAM", "client_secret: expected 1 to 255 characters of 0-9, a-z, A-Z and .=_-"},
	{validation.ErrInvalidSID, http.StatusBadRequest, "M_INVALID_PARAM", "sid: expected 1 to 255 characters of 0-9, a-z, A-Z and .=_-"},
	{validation.ErrInvalidNextLink, http.StatusBadRequest, "M_INVALID_PARAM", "next_link: expected an http or https URL that this service allows"},
	{errNothingToSubmit, http.StatusBadRequest, "M_INVALID_PARAM", "There is no session with this sid and client_secret"},
	{validation.ErrSpent, http.StatusBadRequest, "M_TOKEN_INCORRECT", "Too many wrong codes, or the code is too old: ask for a new one"},
	{validation.ErrTokenIncorrect, http.StatusBadRequest, "M_TOKEN_INCORRECT", "The token is wrong or has been replaced; use the newest message, or ask for another"},
	{threepid.ErrSessionExpired, http.StatusBadRequest, "M_SESSION_EXPIRED", "The session has expired; begin another"},
	{threepid.ErrNotValidated, http.StatusBadRequest, "M_SESSION_NOT_VALIDATED", "The session has not been completed: the token has not been submitted yet"},
	{threepid.ErrNoSession, http.StatusNotFound, "M_NO_VALID_SESSION", "There is no session with this sid and client_secret"},

	{identity.ErrNotYours, http.StatusForbidden, "M_UNAUTHORIZED", "mxid is not the user of this access token"},
	{identity.ErrNotItsUser, http.StatusForbidden, "M_FORBIDDEN", "mxid is not a user of the homeserver that signed this request"},
	{identity.ErrNotSigned, http.StatusForbidden, "M_FORBIDDEN", "Invalid homeserver signature, and no sid and client_secret of a session instead"},
	{identity.ErrWrongDestination, http.StatusUnauthorized, "M_UNAUTHORIZED", "This request is signed for another server"},
	{errNoSource, http.StatusForbidden, "M_FORBIDDEN", "No homeserver that may use version 1 of this API is known to be at this address; use version 2"},
	{errForeignUser, http.StatusForbidden, "M_FORBIDDEN", "The user is not one of the homeservers that are known to be at this address"},
	{errNoLookup, http.StatusForbidden, "M_FORBIDDEN", "Lookups by version 1 of this API are switched off; use version 2"},
	{identity.ErrForbidden, http.StatusForbidden, "M_FORBIDDEN", "sid and client_secret do not prove that this address is yours"},
}

// classify returns the answer to a domain error, nil for an error it does not
// know.
func classify(err error) *mxhttp.Error {
	if refused, ok := errors.AsType[*ratelimit.Refused](err); ok {
		return limited(refused)
	}
	for _, row := range answers {
		if !errors.Is(err, row.err) {
			continue
		}
		e := &mxhttp.Error{Status: row.status, Code: row.code, Msg: row.msg}
		if bad, ok := errors.AsType[*identity.BadPepperError](err); ok {
			// MSC2134: the client need not ask hash_details again.
			e.Extra = map[string]any{"algorithm": bad.Algorithm, "lookup_pepper": bad.Pepper}
		}
		if used, ok := errors.AsType[*identity.InUseError](err); ok {
			e.Extra = map[string]any{"mxid": used.UserID}
		}
		if busy, ok := errors.AsType[*threepid.BusyError](err); ok {
			e.RetryAfter = busy.RetryAfter
		} else if row.status == http.StatusTooManyRequests || row.status == http.StatusServiceUnavailable {
			e.RetryAfter = retryBusy
		}
		return e
	}
	return nil
}

// param is a required parameter and whether the request has it.
type param struct {
	name    string
	present bool
}

// require returns an error that names all params the request does not have.
func require(params ...param) error {
	var absent []string
	for _, p := range params {
		if !p.present {
			absent = append(absent, p.name)
		}
	}
	if len(absent) == 0 {
		return nil
	}
	return &mxhttp.Error{
		Status: http.StatusBadRequest, Code: "M_MISSING_PARAMS", Msg: "Missing parameters: " + strings.Join(absent, ", "),
	}
}

func invalidParam(msg string) error {
	return &mxhttp.Error{Status: http.StatusBadRequest, Code: "M_INVALID_PARAM", Msg: msg}
}
