package pushtest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

// FCMMessage is a message as FCM's reference has it; blocks that FCM only
// passes on stay as they were sent.
type FCMMessage struct {
	Token     string            `json:"token"`
	FID       string            `json:"fid"`
	Topic     string            `json:"topic"`
	Condition string            `json:"condition"`
	Data      map[string]string `json:"data"`
	Android   struct {
		Priority    string            `json:"priority"`
		CollapseKey string            `json:"collapse_key"`
		TTL         string            `json:"ttl"`
		Data        map[string]string `json:"data"`

		RestrictedPackageName  string          `json:"restricted_package_name"`
		DirectBootOK           bool            `json:"direct_boot_ok"`
		BandwidthConstrainedOK bool            `json:"bandwidth_constrained_ok"`
		RestrictedSatelliteOK  bool            `json:"restricted_satellite_ok"`
		Notification           json.RawMessage `json:"notification"`
		FCMOptions             json.RawMessage `json:"fcm_options"`
	} `json:"android"`
	Notification json.RawMessage `json:"notification"`
	Webpush      json.RawMessage `json:"webpush"`
	APNS         json.RawMessage `json:"apns"`
	FCMOptions   json.RawMessage `json:"fcm_options"`
}

// parse reads a request and returns the text of FCM's complaint about it, "" if
// there is none.
func (m *FCMMessage) parse(body []byte) string {
	var request struct {
		ValidateOnly bool        `json:"validate_only"`
		Message      *FCMMessage `json:"message"`
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&request); err != nil {
		return "Invalid JSON payload received. " + err.Error()
	}
	if request.Message == nil {
		return "The message is not set."
	}
	*m = *request.Message
	var targets int
	for _, target := range []string{m.Token, m.FID, m.Topic, m.Condition} {
		if target != "" {
			targets++
		}
	}
	if targets != 1 {
		return "Recipient of the message is not set."
	}
	switch m.Android.Priority {
	case "", "normal", "high", "NORMAL", "HIGH":
	default:
		return fmt.Sprintf("Invalid value at 'message.android.priority': %q", m.Android.Priority)
	}
	if m.urgentAndSilent() {
		return "Invalid value at 'message.apns.headers': a background push has priority 10"
	}
	size := 0
	for key, value := range m.Data {
		if key == "" || key == "from" || key == "message_type" || strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm") {
			return "Invalid data payload key: " + key
		}
		size += len(key) + len(value)
	}
	if size > 4096 {
		return "Android message is too big"
	}
	return ""
}

// urgentAndSilent reports whether the message asks APNs for what Apple refuses: a
// push that only wakes the app, at once.
func (m *FCMMessage) urgentAndSilent() bool {
	var apns struct {
		Headers map[string]string
		Payload struct{ Aps map[string]any }
	}
	_ = json.Unmarshal(m.APNS, &apns)
	_, wakes := apns.Payload.Aps["content-available"]
	return wakes && len(apns.Payload.Aps) == 1 && m.Notification == nil && apns.Headers["apns-priority"] == "10"
}

// FCMError returns an error in FCM's form. The errorCode, which stands in the
// error's details, may be "".
func FCMError(status int, googleStatus, errorCode, message string) FCMAnswer {
	detail := ""
	if errorCode != "" {
		detail = fmt.Sprintf(`{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":%q}`, errorCode)
	}
	return fcmError(status, googleStatus, message, detail)
}

// FCMBadToken is how FCM refuses a token that it cannot read.
func FCMBadToken() FCMAnswer {
	return FCMError(http.StatusBadRequest, "INVALID_ARGUMENT", "INVALID_ARGUMENT",
		"The registration token is not a valid FCM registration token")
}

// FCMBadField is how FCM refuses a message because of members, such as
// "message.token".
func FCMBadField(fields ...string) FCMAnswer {
	var violations []string
	for _, field := range fields {
		violations = append(violations, fmt.Sprintf(`{"field":%q,"description":"Invalid value"}`, field))
	}
	return fcmError(http.StatusBadRequest, "INVALID_ARGUMENT", "Request contains an invalid argument.", fmt.Sprintf(
		`{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INVALID_ARGUMENT"},`+
			`{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[%s]}`, strings.Join(violations, ",")))
}

func fcmError(status int, googleStatus, message, details string) FCMAnswer {
	text, _ := json.Marshal(message) // a string cannot fail
	return FCMAnswer{Status: status, Body: fmt.Sprintf(`{"error":{"code":%d,"message":%s,"status":%q,"details":[%s]}}`,
		status, text, googleStatus, details)}
}

// serveToken exchanges the assertion of a service account for an access token,
// as Google does (RFC 7523).
func (f *FCM) serveToken(w http.ResponseWriter, r *http.Request) {
	// The body is read before anything else, or a client that goes away during
	// a hang would not be noticed.
	err := r.ParseForm()
	f.tokens.add(struct{}{})
	if on := f.onToken.Load(); on != nil {
		if answer := (*on)(); answer != (FCMAnswer{}) {
			f.write(w, r, answer)
			return
		}
	}
	if err != nil || r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		f.write(w, r, FCMAnswer{Status: http.StatusBadRequest, Body: `{"error":"unsupported_grant_type"}`})
		return
	}
	if fault := f.checkAssertion(r.PostForm.Get("assertion")); fault != "" {
		f.write(w, r, FCMAnswer{Status: http.StatusBadRequest,
			Body: fmt.Sprintf(`{"error":"invalid_grant","error_description":%q}`, fault)})
		return
	}
	bearer := rand.Text()
	f.bearers.Store(bearer, time.Now().Add(f.opts.TokenLife))
	f.write(w, r, FCMAnswer{Body: fmt.Sprintf(`{"access_token":%q,"expires_in":%d,"token_type":"Bearer"}`,
		bearer, int(f.opts.TokenLife/time.Second))})
}

// checkAssertion returns what Google would find wrong with an assertion.
func (f *FCM) checkAssertion(text string) string {
	claims := jwt.MapClaims{}
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"})).ParseWithClaims(text, claims,
		func(*jwt.Token) (any, error) { return f.key.Public(), nil })
	if err != nil {
		return "Invalid JWT: " + err.Error()
	}
	issuer, _ := claims["iss"].(string)
	scopes, _ := claims["scope"].(string)
	issued, _ := claims["iat"].(float64)
	expires, _ := claims["exp"].(float64)
	switch {
	case !strings.HasSuffix(issuer, f.email("")):
		return "Invalid grant: account not found"
	case !claims.VerifyAudience(f.tokenURL(), true):
		return "Invalid JWT: wrong audience"
	case !strings.Contains(" "+scopes+" ", " https://www.googleapis.com/auth/firebase.messaging "):
		return "Invalid OAuth scope"
	case issued == 0 || expires-issued > 3600:
		return "Invalid JWT: Token must be a short-lived token (60 minutes)"
	}
	return ""
}
