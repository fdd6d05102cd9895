package httpapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/matrix-herald/herald/identity"
	"github.com/matrix-herald/herald/internal/mxhttp"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/templates"
)

// Where rooms and mails send others to, below Options.BaseURL.
const (
	keyValidPath       = "/_matrix/identity/v2/pubkey/isvalid"
	ephemeralValidPath = "/_matrix/identity/v2/pubkey/ephemeral/isvalid"
	signPath           = "/_matrix/identity/v2/sign-ed25519"
)

// storeInviteRequest leaves out what nothing is done with. Homeservers send
// empty strings and null for what a room does not have.
type storeInviteRequest struct {
	Medium     *string `json:"medium"`
	Address    *string `json:"address"`
	RoomID     *string `json:"room_id"`
	Sender     *string `json:"sender"`
	RoomAlias  string  `json:"room_alias"`
	RoomName   string  `json:"room_name"`
	RoomType   string  `json:"room_type"`
	RoomAvatar string  `json:"room_avatar_url"`
	SenderName string  `json:"sender_display_name"`
	Client     string  `json:"org.matrix.web_client_location"`
}

type invitePublicKey struct {
	PublicKey      string `json:"public_key"`
	KeyValidityURL string `json:"key_validity_url"`
}

type storeInviteResponse struct {
	Token string `json:"token"`
	// PublicKey is the first of PublicKeys, for homeservers from before there were
	// several.
	PublicKey   string            `json:"public_key"`
	PublicKeys  []invitePublicKey `json:"public_keys"`
	DisplayName string            `json:"display_name"`
}

// storeInvite handles POST /_matrix/identity/v2/store-invite.
func (a *api) storeInvite(w http.ResponseWriter, r *http.Request, by caller) error {
	var req storeInviteRequest
	if err := mxhttp.ReadJSON(w, r, maxBody, &req); err != nil {
		return err
	}
	err := require(
		param{"medium", req.Medium != nil},
		param{"address", req.Address != nil},
		param{"room_id", req.RoomID != nil},
		param{"sender", req.Sender != nil},
	)
	if err != nil {
		return err
	}
	if *req.Sender != by.UserID {
		return identity.ErrNotSender // before a limit is asked, and nothing is spent
	}
	if _, err := a.Limiter.Take(r.Context(), a.inviteAsks(r.Context(), by, *req.Medium, *req.Address)...); err != nil {
		return err
	}
	stored, err := a.Invites.Store(r.Context(), identity.InviteRequest{
		Account: by.UserID, Sender: *req.Sender, Medium: *req.Medium, Address: *req.Address, RoomID: *req.RoomID,
		About: identity.InviteDetails{
			RoomName: cmp.Or(req.RoomName, req.RoomAlias), RoomType: req.RoomType, RoomAvatar: req.RoomAvatar,
			SenderName: req.SenderName, Client: a.offered(by.Homeserver, req.Client),
		},
		Brand: r.URL.Query().Get("brand"), Language: r.Header.Get("Accept-Language"),
	})
	if errors.Is(err, threepid.ErrSend) {
		return fmt.Errorf("%w: %w", errMailNotSent, err)
	}
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, storeInviteResponse{
		Token: stored.Token, PublicKey: stored.ServerKey, DisplayName: stored.DisplayName,
		PublicKeys: []invitePublicKey{
			{stored.ServerKey, a.BaseURL + keyValidPath},
			{stored.EphemeralKey, a.BaseURL + ephemeralValidPath},
		},
	})
}

// clientsOf returns the clients to accept an invite with that a user of a
// homeserver sent.
func (a *api) clientsOf(homeserver string) []Client {
	if clients, ok := a.ClientsOf[homeserver]; ok {
		return clients
	}
	return a.Clients
}

// offered returns the address of the client that is at location, "" unless it is
// one of ours to offer: a mail must not lead wherever a stranger likes.
func (a *api) offered(homeserver, location string) string {
	for _, c := range a.clientsOf(homeserver) {
		if strings.TrimRight(c.URL, "/") == strings.TrimRight(location, "/") {
			return c.URL
		}
	}
	return ""
}

type signRequest struct {
	MXID       *string `json:"mxid"`
	Token      *string `json:"token"`
	PrivateKey *string `json:"private_key"`
}

// signInvite handles POST /_matrix/identity/v2/sign-ed25519. The clients that
// open a link of ours have no access token and post to its signurl with nothing
// but a query; token and private key together prove enough.
func (a *api) signInvite(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	if !query.Has("token") || !query.Has("private_key") {
		return a.authenticated(bearer, a.requireTerms(a.signInviteJSON))(w, r)
	}
	if err := require(param{"mxid", query.Has("mxid")}); err != nil {
		return err
	}
	return a.sign(w, r, query.Get("token"), query.Get("private_key"), query.Get("mxid"))
}

func (a *api) signInviteJSON(w http.ResponseWriter, r *http.Request, _ caller) error {
	var req signRequest
	if err := mxhttp.ReadJSON(w, r, maxBody, &req); err != nil {
		return err
	}
	err := require(
		param{"mxid", req.MXID != nil},
		param{"token", req.Token != nil},
		param{"private_key", req.PrivateKey != nil},
	)
	if err != nil {
		return err
	}
	return a.sign(w, r, *req.Token, *req.PrivateKey, *req.MXID)
}

func (a *api) sign(w http.ResponseWriter, r *http.Request, token, privateKey, mxid string) error {
	// A query turns the "+" of base64 into a space if the client did not escape it.
	signed, err := a.Invites.Sign(r.Context(), token, strings.ReplaceAll(privateKey, " ", "+"), mxid)
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, signed)
}

// cancelInvite handles DELETE /_matrix/identity/herald/v1/invites/{token}, with
// which a sender takes an invite back. The specification has nothing for it.
func (a *api) cancelInvite(w http.ResponseWriter, r *http.Request, by caller) error {
	err := a.Invites.Cancel(r.Context(), by.UserID, r.PathValue("token"))
	if errors.Is(err, identity.ErrNoInvite) {
		return errNoOwnInvite
	}
	if err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, empty{})
}

// showInvite handles GET /_matrix/identity/herald/v1/invite, the page that mails
// lead to. It offers the clients to accept the invite with, and changes nothing:
// mail scanners follow links.
func (a *api) showInvite(w http.ResponseWriter, r *http.Request) error {
	query, pages := r.URL.Query(), a.pages(r)
	token, privateKey := query.Get("token"), strings.ReplaceAll(query.Get("private_key"), " ", "+")
	if token == "" || privateKey == "" {
		return pages.failure(w, http.StatusBadRequest, threepid.MediumEmail, reasonBroken)
	}
	invite, err := a.Invites.Open(r.Context(), token, privateKey)
	switch {
	case errors.Is(err, identity.ErrNoInvite) || errors.Is(err, identity.ErrInviteKey):
		return pages.failure(w, http.StatusNotFound, threepid.MediumEmail, reasonInvite)
	case err != nil && r.Context().Err() != nil:
		return err // nobody is there any more to look at a page
	case err != nil:
		a.Log.ErrorContext(r.Context(), "invite not shown", "err", err)
		return pages.failure(w, http.StatusInternalServerError, threepid.MediumEmail, reasonUnavailable)
	}
	return pages.invite(w, invite, a.clientLinks(invite, token, privateKey))
}

// clientLinks returns where to accept an invite: what the sender named first.
func (a *api) clientLinks(i identity.Invite, token, privateKey string) []clientLink {
	sign := a.BaseURL + signPath + "?" + url.Values{"token": {token}, "private_key": {privateKey}}.Encode()
	fragment := url.Values{"email": {i.Address.Address}, "signurl": {sign}}
	for name, value := range map[string]string{
		"room_name": templates.Name(i.About.RoomName, templates.MaxRoom), "inviter_name": templates.Name(i.About.SenderName, templates.MaxInviter),
		"room_avatar_url": i.About.RoomAvatar, "room_type": i.About.RoomType,
	} {
		if value != "" {
			fragment.Set(name, value)
		}
	}
	// Clients read "+" in a fragment as it stands.
	room := "/#/room/" + url.PathEscape(i.RoomID) + "?" + strings.ReplaceAll(fragment.Encode(), "+", "%20")
	sender, _ := identity.UserServer(i.Sender)
	clients := a.clientsOf(sender)
	links := make([]clientLink, 0, len(clients))
	for _, c := range clients {
		l := clientLink{Name: c.Name, URL: strings.TrimRight(c.URL, "/") + room}
		if c.URL == i.About.Client {
			links = slices.Insert(links, 0, l)
		} else {
			links = append(links, l)
		}
	}
	return links
}
