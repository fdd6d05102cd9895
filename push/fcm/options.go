package fcm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"firebase.google.com/go/v4/messaging"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/api/option"

	"github.com/matrix-herald/herald/internal/conf"
)

// fcmOptions is the option fcm_options as the SDK's types have it, which follow
// FCM's reference of projects.messages. The SDK's own decoders drop members that
// they do not know without a word; so the types below stand in for those that
// have one, with the members which it reads by hand.
type fcmOptions struct {
	Notification *messaging.Notification  `json:"notification"`
	Android      *messaging.AndroidConfig `json:"android"`
	Webpush      *messaging.WebpushConfig `json:"webpush"`
	APNS         *messaging.APNSConfig    `json:"apns"`
	FCMOptions   *messaging.FCMOptions    `json:"fcm_options"`
}

type (
	sdkAndroid       messaging.AndroidConfig
	sdkNotification  messaging.AndroidNotification
	sdkWebpush       messaging.WebpushNotification
	sdkAps           messaging.Aps
	sdkAlert         messaging.ApsAlert
	sdkCriticalSound messaging.CriticalSound

	androidConfig struct {
		sdkAndroid

		TTL  duration `json:"ttl"`
		Data refused  `json:"data"`
	}
	androidNotification struct {
		sdkNotification

		EventTime      string     `json:"event_time"`
		Priority       string     `json:"notification_priority"`
		Visibility     string     `json:"visibility"`
		Proxy          string     `json:"proxy"`
		VibrateTimings []duration `json:"vibrate_timings"`
		// What the SDK does not know, or reads wrong.
		BypassProxy   bool           `json:"bypass_proxy_notification"`
		LightSettings map[string]any `json:"light_settings"`
	}
	webpushNotification struct {
		sdkWebpush

		Others jsontext.Value `json:",inline"` // the app's own
	}
	webpushFCMOptions struct {
		messaging.WebpushFCMOptions

		AnalyticsLabel string `json:"analytics_label"`
	}
	apnsPayload struct {
		Aps    *messaging.Aps `json:"aps"`
		Others jsontext.Value `json:",inline"`
	}
	aps struct {
		sdkAps

		Alert            textOr[sdkAlert]         `json:"alert"`
		Sound            textOr[sdkCriticalSound] `json:"sound"`
		ContentAvailable int                      `json:"content-available"`
		MutableContent   int                      `json:"mutable-content"`
		Others           jsontext.Value           `json:",inline"`
	}
	criticalSound struct {
		sdkCriticalSound

		Critical int `json:"critical"`
	}
)

// strict decodes into fcmOptions and takes nothing that it does not know.
var strict = json.JoinOptions(json.RejectUnknownMembers(true), json.WithUnmarshalers(json.JoinUnmarshalers(
	as[messaging.AndroidConfig, androidConfig](),
	as[messaging.AndroidNotification, androidNotification](),
	as[messaging.WebpushNotification, webpushNotification](),
	as[messaging.WebpushFCMOptions, webpushFCMOptions](),
	as[messaging.APNSPayload, apnsPayload](),
	as[messaging.Aps, aps](),
	as[sdkCriticalSound, criticalSound](),
)))

// as checks a type of the SDK's by another one.
func as[SDK, Ours any]() *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(d *jsontext.Decoder, _ *SDK) error { return json.UnmarshalDecode(d, new(Ours)) })
}

// textOr is a text or an object.
type textOr[Object any] struct{}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (*textOr[Object]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '"' {
		return d.SkipValue()
	}
	return json.UnmarshalDecode(d, new(Object))
}

// duration is FCM's text of a duration.
type duration struct{}

var (
	durationPattern = regexp.MustCompile(`^"[0-9]{1,9}(\.[0-9]{1,9})?s"$`)
	errDuration     = errors.New(`write seconds with an "s", such as "3600s" or "0.5s"`)
	errRefused      = errors.New("leave it out: it would replace the data of every push")
)

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (*duration) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if text, err := d.ReadValue(); err != nil || !durationPattern.Match(text) {
		return errDuration
	}
	return nil
}

// refused is a member that is in no message of ours.
type refused struct{}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (*refused) UnmarshalJSONFrom(*jsontext.Decoder) error {
	return errRefused
}

// checkOptions checks the option fcm_options and adds every fault to p, under
// path. It returns what is to be sent, and what the SDK understands of it.
func checkOptions(path string, options map[string]any, p *conf.Problems) (map[string]jsontext.Value, messaging.Message) {
	var message messaging.Message
	text, err := json.Marshal(options, json.Deterministic(true))
	if err != nil {
		p.Add(path, nil, "write an object of FCM's message, with texts as its keys")
		return nil, message
	}
	before := p.Len()
	for {
		err := json.Unmarshal(text, new(fcmOptions), strict)
		fault, ok := errors.AsType[*json.SemanticError](err)
		if !ok {
			break
		}
		value, rest := remove(text, fault.JSONPointer)
		if errors.Is(fault.Err, json.ErrUnknownName) || errors.Is(fault.Err, errRefused) {
			value = nil
		}
		p.Add(path+dotted(fault.JSONPointer), value, remedy(fault))
		text = rest
	}
	var members map[string]jsontext.Value
	err = json.Unmarshal(text, &members)
	if err == nil {
		_, known := remove(text, "/android/notification/light_settings") // they would make the SDK panic
		err = message.UnmarshalJSON(known)
	}
	if err == nil {
		err = checkMessage(message)
	}
	switch {
	case p.Len() > before:
	case err != nil:
		p.Add(path, nil, "the Firebase library refuses it: "+err.Error())
	default:
		checkCombinations(path, message, p)
	}
	return members, message
}

// remove returns text without the member or item at pointer, and its value.
func remove(text jsontext.Value, pointer jsontext.Pointer) (value any, rest jsontext.Value) {
	var root any
	if json.Unmarshal(text, &root) != nil {
		return nil, text
	}
	parent := root
	for token := range pointer.Parent().Tokens() {
		switch p := parent.(type) {
		case map[string]any:
			parent = p[token]
		case []any:
			i, _ := strconv.Atoi(token)
			parent = p[i]
		}
	}
	switch p := parent.(type) {
	case map[string]any:
		value = p[pointer.LastToken()]
		delete(p, pointer.LastToken())
	case []any: // the others keep their places
		i, _ := strconv.Atoi(pointer.LastToken())
		value, p[i] = p[i], nil
	}
	rest, _ = json.Marshal(root, json.Deterministic(true)) // it was decoded from JSON
	return value, rest
}

// dotted is a pointer as the rest of a path, with names quoted that hold a dot.
func dotted(pointer jsontext.Pointer) string {
	var b strings.Builder
	for token := range pointer.Tokens() {
		switch _, err := strconv.Atoi(token); {
		case err == nil:
			fmt.Fprintf(&b, "[%s]", token)
		case strings.ContainsAny(token, `.[" `) || token == "":
			fmt.Fprintf(&b, "[%q]", token)
		default:
			b.WriteString("." + token)
		}
	}
	return b.String()
}

// remedy says what to do about a fault.
func remedy(fault *json.SemanticError) string {
	switch {
	case errors.Is(fault.Err, json.ErrUnknownName):
		if slices.Contains([]jsontext.Pointer{"/data", "/token", "/fid", "/topic", "/condition"}, fault.JSONPointer) {
			return "leave it out: every push brings its own"
		}
		return "FCM knows no such member here; it knows " + strings.Join(memberNames(fault.GoType), ", ")
	case errors.Is(fault.Err, errDuration), errors.Is(fault.Err, errRefused):
		return fault.Err.Error()
	}
	switch fault.GoType.Kind() {
	case reflect.String:
		return "write a text (in quotes if it looks like a number)"
	case reflect.Bool:
		return "write true or false"
	case reflect.Int, reflect.Int64:
		return "write a whole number"
	case reflect.Float64:
		return "write a number"
	case reflect.Slice:
		return "write a list"
	default:
		return "write an object"
	}
}

// memberNames lists the members of a struct in JSON.
func memberNames(t reflect.Type) []string {
	names := make(map[string]bool)
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// headerRules are the headers of a message by way of APNs and Web Push that FCM
// checks, as far as a value can be wrong.
var headerRules = map[string]*regexp.Regexp{
	"apns-priority":    regexp.MustCompile(`^(1|5|10)$`),
	"apns-expiration":  regexp.MustCompile(`^[0-9]{1,10}$`),
	"apns-collapse-id": regexp.MustCompile(`^.{1,64}$`),
	"ttl":              regexp.MustCompile(`^[0-9]{1,10}$`),
	"urgency":          regexp.MustCompile(`^(very-low|low|normal|high)$`),
}

var labelPattern = regexp.MustCompile(`^[A-Za-z0-9\-_.~%]{0,50}$`)

// checkCombinations finds what FCM refuses although each member is what it should
// be: it would refuse every message of the app.
func checkCombinations(path string, m messaging.Message, p *conf.Problems) {
	headers := func(path string, headers map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(headers)) {
			if rule := headerRules[strings.ToLower(name)]; rule != nil && !rule.MatchString(headers[name]) {
				p.Add(path+"."+name, headers[name], "FCM refuses it: it must match "+rule.String())
			}
		}
	}
	label := func(path, label string) {
		if !labelPattern.MatchString(label) {
			p.Add(path+".analytics_label", label, "use at most 50 letters, digits and -_.~%")
		}
	}
	if m.FCMOptions != nil {
		label(path+".fcm_options", m.FCMOptions.AnalyticsLabel)
	}
	if m.Android != nil && m.Android.FCMOptions != nil {
		label(path+".android.fcm_options", m.Android.FCMOptions.AnalyticsLabel)
	}
	if m.Webpush != nil {
		headers(path+".webpush.headers", m.Webpush.Headers)
	}
	if m.APNS == nil {
		return
	}
	headers(path+".apns.headers", m.APNS.Headers)
	if m.APNS.FCMOptions != nil {
		label(path+".apns.fcm_options", m.APNS.FCMOptions.AnalyticsLabel)
	}
	silent := m.Notification == nil && m.APNS.Payload != nil && m.APNS.Payload.Aps != nil && isSilent(m.APNS.Payload.Aps)
	if (silent || m.APNS.Headers["apns-push-type"] == "background") && m.APNS.Headers["apns-priority"] == "10" {
		p.Add(path+".apns.headers.apns-priority", "10", `FCM refuses it for a push that shows nothing; use "5", or add an alert`)
	}
}

// isSilent reports whether a push only wakes the app.
func isSilent(a *messaging.Aps) bool {
	_, alert := a.CustomData["alert"] // an empty one
	return a.ContentAvailable && a.Alert == nil && a.AlertString == "" && !alert && a.Badge == nil && a.Sound == "" && a.CriticalSound == nil
}

// checkMessage returns what the SDK itself finds wrong with a message. It does
// so only in Send, hence the send to nowhere. messaging.NewClient's parameter has
// a type that is internal to the SDK, so configOf names it by inference: the
// documented way, by the root package, would link Firestore, Cloud Storage and
// gRPC into the program.
func checkMessage(m messaging.Message) error {
	cfg := configOf(messaging.NewClient)
	cfg.ProjectID, cfg.Opts = "check", []option.ClientOption{option.WithHTTPClient(&http.Client{Transport: acceptAll{}})}
	client, err := messaging.NewClient(context.Background(), cfg)
	if err != nil {
		return err
	}
	if m.Webpush != nil {
		webpush := *m.Webpush
		if webpush.Notification == nil {
			webpush.Notification = new(messaging.WebpushNotification) // or it does not look at the link
		}
		if webpush.FCMOptions != nil && webpush.FCMOptions.Link == "" {
			webpush.FCMOptions = nil
		}
		m.Webpush = &webpush
	}
	m.Fid = "check"
	_, err = client.Send(context.Background(), &m)
	return err
}

func configOf[C any](func(context.Context, *C) (*messaging.Client, error)) *C { return new(C) }

// acceptAll answers like FCM does to a message it accepted.
type acceptAll struct{}

// RoundTrip implements http.RoundTripper.
func (acceptAll) RoundTrip(req *http.Request) (*http.Response, error) {
	_ = req.Body.Close() // it is a buffer
	return &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 2, Header: http.Header{}, Request: req,
		Body: io.NopCloser(strings.NewReader(`{"name":"accepted"}`)),
	}, nil
}
