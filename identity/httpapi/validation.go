package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/internal/ratelimit"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/validation"
)

var (
	// errMailNotSent is threepid.ErrSend for mails, which has its own code.
	errMailNotSent = errors.New("mail not sent")
	// errNothingToSubmit is threepid.ErrNoSession for submitToken, which has
	// another code than elsewhere.
	errNothingToSubmit = errors.New("no session to submit the token to")
)

// tokenRequest is what the requests for a mail and for a text message share.
type tokenRequest struct {
	ClientSecret *string        `json:"client_secret"`
	SendAttempt  jsontext.Value `json:"send_attempt"`
	NextLink     string         `json:"next_link"`
}

// params are the required parameters, in the order in which they are named.
func (t tokenRequest) params() []param {
	return []param{
		{"client_secret", t.ClientSecret != nil},
		{"send_attempt", len(t.SendAttempt) > 0 && t.SendAttempt.Kind() != 'n'},
	}
}

// request begins the domain's request. It needs all params to be present.
func (t tokenRequest) request(r *http.Request, by caller) (validation.Request, error) {
	attempt, err := parseAttempt(t.SendAttempt)
	if err != nil {
		return validation.Request{}, err
	}
	return validation.Request{
		Owner: by.Owner, ClientSecret: *t.ClientSecret, SendAttempt: attempt, NextLink: t.NextLink,
		Homeserver: by.Homeserver, Brand: r.URL.Query().Get("brand"), Language: r.Header.Get("Accept-Language"),
	}, nil
}

// parseAttempt reads send_attempt, an integer that matrix-js-sdk sends as a
// string.
func parseAttempt(v jsontext.Value) (int64, error) {
	text := string(v)
	if v.Kind() == '"' {
		unquoted, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			return 0, invalidParam("send_attempt: expected an integer")
		}
		text = string(unquoted)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || text[0] == '+' { // no number of JSON has that sign
		return 0, invalidParam("send_attempt: expected an integer")
	}
	return n, nil
}

type emailTokenRequest struct {
	Email *string `json:"email"`
	tokenRequest
}

type emailTokenResponse struct {
	SID string `json:"sid"`
}

// requestEmailToken handles POST
// /_matrix/identity/v2/validate/email/requestToken.
func (a *api) requestEmailToken(w http.ResponseWriter, r *http.Request, by caller) error {
	var body emailTokenRequest
	if err := mxhttp.ReadJSON(w, r, maxBody, &body); err != nil {
		return err
	}
	if err := require(append(body.params(), param{"email", body.Email != nil})...); err != nil {
		return err
	}
	email, err := threepid.ParseEmail(*body.Email)
	if err != nil {
		return err
	}
	req, err := body.request(r, by)
	if err != nil {
		return err
	}
	req.ID, req.To, req.OriginalSpelling = email.ID(), email.MailAddress(), *body.Email
	sid, err := a.requestToken(r.Context(), by, req)
	if errors.Is(err, threepid.ErrSend) {
		return fmt.Errorf("%w: %w", errMailNotSent, err)
	}
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, emailTokenResponse{sid})
}

type smsTokenRequest struct {
	Country     *string `json:"country"`
	PhoneNumber *string `json:"phone_number"`
	tokenRequest
}

// smsTokenResponse says more than the specification asks for: Element shows the
// number as it was understood.
type smsTokenResponse struct {
	Success       bool   `json:"success"`
	SID           string `json:"sid"`
	MSISDN        string `json:"msisdn"`
	International string `json:"intl_fmt"`
}

// requestSMSToken handles POST
// /_matrix/identity/v2/validate/msisdn/requestToken.
func (a *api) requestSMSToken(w http.ResponseWriter, r *http.Request, by caller) error {
	var body smsTokenRequest
	if err := mxhttp.ReadJSON(w, r, maxBody, &body); err != nil {
		return err
	}
	params := append(body.params(), param{"country", body.Country != nil}, param{"phone_number", body.PhoneNumber != nil})
	if err := require(params...); err != nil {
		return err
	}
	phone, err := threepid.ParsePhone(*body.Country, *body.PhoneNumber)
	if err != nil {
		return err
	}
	req, err := body.request(r, by)
	if err != nil {
		return err
	}
	req.ID, req.To, req.Region = phone.ID(), phone.ID().Address, phone.Region()
	sid, err := a.requestToken(r.Context(), by, req)
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, smsTokenResponse{
		Success: true, SID: sid, MSISDN: phone.ID().Address, International: phone.International(),
	})
}

// requestToken asks for a token, unless a limit is in the way. It notes in the
// log for whom, redacted, and why it failed.
func (a *api) requestToken(ctx context.Context, by caller, req validation.Request) (sid string, err error) {
	mxhttp.AddLogAttrs(ctx, slog.Any("threepid", req.ID))
	taken, err := a.Limiter.Take(ctx, a.tokenAsks(ctx, by, req)...)
	if err != nil {
		if refused, ok := errors.AsType[*ratelimit.Refused](err); ok {
			a.capped.note(ctx, a.Log, refused, by.Homeserver, req.Region)
		}
		return "", err
	}
	sid, err = a.Sessions.Request(ctx, req)
	if err != nil {
		mxhttp.AddLogAttrs(ctx, slog.Any("err", err))
	}
	if errors.Is(err, threepid.ErrDestinationRejected) || errors.Is(err, threepid.ErrBusy) {
		taken.Return(ctx, smsCountry, smsTotal, smsShare) // nothing was sent
	}
	return sid, err
}

type submitTokenRequest struct {
	SID          *string `json:"sid"`
	ClientSecret *string `json:"client_secret"`
	Token        *string `json:"token"`
}

type submitTokenResponse struct {
	Success bool `json:"success"`
}

// submitToken handles POST
// /_matrix/identity/v2/validate/{medium}/submitToken.
func (a *api) submitToken(medium threepid.Medium) accountHandler {
	return func(w http.ResponseWriter, r *http.Request, by caller) error {
		if err := a.submit(w, r, by, medium); err != nil {
			return unsuccessful(err)
		}
		return mxhttp.WriteJSON(w, http.StatusOK, submitTokenResponse{true})
	}
}

func (a *api) submit(w http.ResponseWriter, r *http.Request, by caller, medium threepid.Medium) error {
	var req submitTokenRequest
	if err := mxhttp.ReadJSON(w, r, maxBody, &req); err != nil {
		return err
	}
	err := require(
		param{"sid", req.SID != nil},
		param{"client_secret", req.ClientSecret != nil},
		param{"token", req.Token != nil},
	)
	if err != nil {
		return err
	}
	if _, err := a.Limiter.Take(r.Context(),
		ratelimit.Rate(submitTokenSession, a.Limits.SubmitTokenSession, *req.SID),
		perAccount(submitTokenAccount, a.Limits.SubmitTokenAccount, by),
		a.perIP(r.Context(), submitTokenIP, a.Limits.SubmitTokenIP)); err != nil {
		return err
	}
	s, err := a.Sessions.Submit(r.Context(), medium, *req.SID, *req.ClientSecret, *req.Token)
	switch {
	case errors.Is(err, threepid.ErrNoSession):
		return errNothingToSubmit
	case err != nil:
		return err
	}
	a.submitted(r.Context(), s)
	return nil
}

// unsuccessful adds "success": false to the answer, which clients look for that
// are older than the status codes and error codes of MSC4183.
func unsuccessful(err error) error {
	e, ok := errors.AsType[*mxhttp.Error](err)
	if !ok {
		e = classify(err)
	}
	if e == nil {
		return err
	}
	with := *e
	with.Extra = map[string]any{"success": false}
	maps.Copy(with.Extra, e.Extra)
	return &with
}
