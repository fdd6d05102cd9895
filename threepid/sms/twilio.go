package sms

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/sending"
)

const twilioURL = "https://api.twilio.com"

// twilioErrors are those of Twilio's errors that lie with the number (Twilio,
// "Error and Warning Dictionary").
var twilioErrors = map[int]sending.Failure{
	21211: {Outcome: sending.NoRecipient, Kind: threepid.ErrNoNumber},
	21217: {Outcome: sending.NoRecipient, Kind: threepid.ErrNoNumber},
	21408: {Outcome: sending.Country, Kind: threepid.ErrDestinationRejected}, // our account may not send there
	21610: {Outcome: sending.NoRecipient, Kind: threepid.ErrOptedOut},
	21614: {Outcome: sending.NoRecipient, Kind: threepid.ErrLandline},
	21635: {Outcome: sending.NoRecipient, Kind: threepid.ErrLandline},
}

var (
	twilioAccount    = regexp.MustCompile(`^AC[0-9a-f]{32}$`)
	messagingService = regexp.MustCompile(`^MG[0-9a-f]{32}$`)
	twilioKey        = regexp.MustCompile(`^SK[0-9a-f]{32}$`)
)

// TwilioConfig is an account with Twilio (twilio.com).
type TwilioConfig struct {
	// AccountSID is the account, AC and 32 digits.
	AccountSID string `yaml:"account_sid"`
	// KeySID is an API key, SK and 32 digits.
	KeySID string `yaml:"key_sid"`
	// AuthToken is the account's token, or the secret of the API key.
	AuthToken     conf.Secret `yaml:"auth_token"`
	AuthTokenFile string      `yaml:"auth_token_file"`
	// BaseURL is another address of the API. Default https://api.twilio.com.
	BaseURL string `yaml:"base_url"`
	// AllowNetworks lists private networks, as in 10.0.0.0/8, that BaseURL may lead
	// to.
	AllowNetworks []string
}

func (c TwilioConfig) validate(path string, p *conf.Problems) {
	if !twilioAccount.MatchString(c.AccountSID) {
		p.Add(path+".account_sid", c.AccountSID, "must be the account SID from Twilio's console: AC and 32 hexadecimal digits")
	}
	if c.KeySID != "" && !twilioKey.MatchString(c.KeySID) {
		p.Add(path+".key_sid", c.KeySID, "must be an API key's SID from Twilio's console: SK and 32 hexadecimal digits")
	}
	if c.AuthToken == "" {
		p.Add(path+".auth_token", nil, "is missing: write the auth token from Twilio's console here or its file's name in auth_token_file")
	}
	networks, err := parseNetworks(c.AllowNetworks)
	if err != nil {
		p.Add(path+".allow_networks", nil, "must be networks such as 10.0.0.0/8")
	}
	if c.BaseURL != "" {
		u, err := url.Parse(c.BaseURL)
		secure := err == nil && (u.Scheme == "https" || u.Scheme == "http" && len(networks) > 0)
		if !secure || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			p.Add(path+".base_url", nil, "must be an https URL without a query; http only for a private network in allow_networks")
		}
	}
}

// twilio sends through Twilio's Messages API (Twilio, "Messages resource",
// create).
type twilio struct {
	client   *safehttp.Client
	account  string // its URL
	username string
	password conf.Secret
}

func newTwilio(c TwilioConfig, timeout time.Duration) (*twilio, error) {
	networks, err := parseNetworks(c.AllowNetworks)
	if err != nil {
		return nil, err
	}
	client, err := newClient(timeout, networks, nil)
	if err != nil {
		return nil, err
	}
	t := &twilio{client: client, username: cmp.Or(c.KeySID, c.AccountSID), password: c.AuthToken}
	t.account, err = url.JoinPath(cmp.Or(c.BaseURL, twilioURL), "2010-04-01/Accounts", c.AccountSID)
	return t, err
}

// probe reads the account, if its own token is there: API keys may not (Twilio,
// "Account resource").
func (t *twilio) probe(ctx context.Context) error {
	if strings.HasPrefix(t.username, "SK") {
		return nil
	}
	var account struct {
		Status string `json:"status"`
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.account+".json", nil)
	if err != nil {
		return err
	}
	req.SetBasicAuth(t.username, t.password.Reveal())
	got, err := roundTrip(t.client, req, message{say: func(string, ...any) {}})
	switch {
	case err != nil:
		return err
	case got.status != http.StatusOK || json.Unmarshal(got.body, &account) != nil:
		return refused(got.status, 0, sending.Redact(string(got.body)))
	case account.Status != "active":
		return sending.Failed(sending.Auth, "the account is "+strconv.Quote(account.Status))
	}
	return nil
}

func (t *twilio) send(ctx context.Context, m message) error {
	form := url.Values{"To": {"+" + m.to}, "Body": {m.text}}
	if messagingService.MatchString(m.from) {
		form.Set("MessagingServiceSid", m.from)
	} else {
		form.Set("From", m.from)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.account+"/Messages.json", strings.NewReader(form.Encode()))
	if err != nil {
		return sending.Failed(sending.Invalid, "no request could be made of it")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.SetBasicAuth(t.username, t.password.Reveal())
	got, err := roundTrip(t.client, req, m)
	if err != nil {
		return err
	}
	var said struct {
		SID       string          `json:"sid"`
		Status    json.RawMessage `json:"status"` // text of a message, a number in an error
		Code      int             `json:"code"`
		ErrorCode int             `json:"error_code"` // null for none
		Message   string          `json:"message"`    // of an error
	}
	malformed := json.Unmarshal(got.body, &said) != nil
	code := max(said.Code, said.ErrorCode)
	if f, known := twilioErrors[code]; known {
		f.Reason, f.Said = "Twilio's error "+strconv.Itoa(code), sending.Redact(said.Message, m.to)
		return &f
	}
	switch state := string(said.Status); {
	case got.status/100 != 2 || code != 0:
		return refused(got.status, code, sending.Redact(said.Message, m.to))
	case malformed || said.SID == "" || state == `"failed"` || state == `"undelivered"` || state == `"canceled"`:
		return sending.Failed(sending.Refused, "Twilio's answer does not accept the message")
	}
	return nil
}
