package fcm

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"firebase.google.com/go/v4/messaging"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/api/option"

	"github.com/matrix-herald/herald/internal/conf"
)

// blocks are the members of fcm_options, as the SDK's types have them, which
// follow FCM's reference of projects.messages.
var blocks = map[string]any{
	"notification": messaging.Notification{},
	"android":      messaging.AndroidConfig{},
	"webpush":      messaging.WebpushConfig{},
	"apns":         messaging.APNSConfig{},
	"fcm_options":  messaging.FCMOptions{},
}

// The SDK's own decoders drop members that they do not know without a word. So
// these types stand in for those of the SDK that have one, with the members that
// it reads by hand.
type (
	sdkAndroid       messaging.AndroidConfig
	sdkNotification  messaging.AndroidNotification
	sdkWebpush       messaging.WebpushNotification
	sdkAps           messaging.Aps
	sdkAlert         messaging.ApsAlert
	sdkCriticalSound messaging.CriticalSound

	// others are members of the app's own.
	others struct {
		Members jsontext.Value `json:",inline"`
	}
	androidConfig struct {
		sdkAndroid

		TTL duration `json:"ttl"`
	}
	androidNotification struct {
		sdkNotification

		EventTime      string     `json:"event_time"`
		Priority       string     `json:"notification_priority"`
		Visibility     string     `json:"visibility"`
		Proxy          string     `json:"proxy"`
		VibrateTimings []duration `json:"vibrate_timings"`
		BypassProxy    bool       `json:"bypass_proxy_notification"` // which the SDK does not know
		LightSettings  lights     `json:"light_settings"`
	}
	webpushNotification struct {
		sdkWebpush
		others
	}
	webpushFCMOptions struct {
		messaging.WebpushFCMOptions

		AnalyticsLabel string `json:"analytics_label"` // which the SDK does not know
	}
	apnsPayload struct {
		others

		Aps *messaging.Aps `json:"aps"`
	}
	aps struct {
		sdkAps
		others

		Alert            textOr[sdkAlert]         `json:"alert"`
		Sound            textOr[sdkCriticalSound] `json:"sound"`
		ContentAvailable int                      `json:"content-available"`
		MutableContent   int                      `json:"mutable-content"`
	}
	criticalSound struct {
		sdkCriticalSound

		Critical int `json:"critical"`
	}
)

// strict decodes the SDK's types and takes nothing that they do not have.
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

// remedy is an error that says what to do.
type remedy string

func (r remedy) Error() string { return string(r) }

// duration is FCM's text of a duration.
type duration struct{}

var durationPattern = regexp.MustCompile(`^"[0-9]{1,9}(\.[0-9]{1,9})?s"$`)

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (*duration) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if text, err := d.ReadValue(); err != nil || !durationPattern.Match(text) {
		return remedy(`write seconds with an "s", such as "3600s" or "0.5s"`)
	}
	return nil
}

// lights are light_settings, which the SDK misreads.
type lights struct{}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (*lights) UnmarshalJSONFrom(*jsontext.Decoder) error {
	return remedy("use default_light_settings; Android 8 and later ignore it for channels")
}

// remedies say what to write where a value is wrong.
var remedies = map[reflect.Kind]remedy{
	reflect.String: "write a text (in quotes if it looks like a number)", reflect.Bool: "write true or false",
	reflect.Int: "write a whole number", reflect.Int64: "write a whole number", reflect.Float64: "write a number",
	reflect.Slice: "write a list", reflect.Struct: "write an object", reflect.Map: "write an object", reflect.Pointer: "write an object",
}

// checkOptions checks the option fcm_options and adds a fault for each of its
// members to p, under path. It returns what the SDK understands of it.
func checkOptions(path string, options map[string]any, p *conf.Problems) messaging.Message {
	var message messaging.Message
	before := p.Len()
	for _, name := range slices.Sorted(maps.Keys(options)) {
		err := checkBlock(name, options[name])
		if err == nil {
			continue
		}
		at, todo := path+"."+name, remedy("write what FCM's reference says")
		if fault, ok := errors.AsType[*json.SemanticError](err); ok {
			at += strings.ReplaceAll(string(fault.JSONPointer), "/", ".")
			todo = remedies[fault.GoType.Kind()]
		}
		if own, ok := errors.AsType[remedy](err); ok {
			todo = own
		} else if errors.Is(err, json.ErrUnknownName) {
			todo = "FCM knows no such member here"
		}
		p.Add(at, nil, string(todo))
	}
	if p.Len() > before {
		return message
	}
	if err := understand(options, &message); err != nil {
		p.Add(path, nil, "the Firebase library refuses it: "+err.Error())
		return message
	}
	checkCombinations(path, message, p)
	return message
}

func checkBlock(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return remedy("write an object with texts as its keys")
	}
	switch block := blocks[name]; {
	case block != nil:
		return json.Unmarshal(text, reflect.New(reflect.TypeOf(block)).Interface(), strict)
	case slices.Contains([]string{"data", "token", "fid", "topic", "condition"}, name):
		return remedy("leave it out: every push brings its own")
	default:
		return remedy("FCM knows no such member here; it knows " + strings.Join(slices.Sorted(maps.Keys(blocks)), ", "))
	}
}

// understand has the SDK read a message, and returns what it finds wrong. It
// checks only in Send, hence the send to nowhere. messaging.NewClient's parameter
// has a type that is internal to the SDK, so configOf names it by inference: the
// documented way, by the root package, would link Firestore, Cloud Storage and
// gRPC into the program.
func understand(options map[string]any, m *messaging.Message) error {
	text, err := json.Marshal(options)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, m); err != nil {
		return err
	}
	if w := m.Webpush; w != nil && w.FCMOptions != nil && w.FCMOptions.Link == "" {
		w.FCMOptions = nil // the SDK knows no options without a link
	}
	cfg := configOf(messaging.NewClient)
	cfg.ProjectID, cfg.Opts = "check", []option.ClientOption{option.WithHTTPClient(&http.Client{Transport: acceptAll{}})}
	client, err := messaging.NewClient(context.Background(), cfg)
	if err != nil {
		return err
	}
	sent := *m
	sent.Fid = "check"
	_, err = client.Send(context.Background(), &sent)
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

var labelPattern = regexp.MustCompile(`^[A-Za-z0-9\-_.~%]{0,50}$`)

// checkCombinations finds what FCM refuses although each member is what it should
// be: it would refuse every message of the app.
func checkCombinations(path string, m messaging.Message, p *conf.Problems) {
	if m.Android != nil && m.Android.Data != nil {
		p.Add(path+".android.data", nil, "leave it out: it would replace the data of every push")
	}
	if m.FCMOptions != nil && !labelPattern.MatchString(m.FCMOptions.AnalyticsLabel) {
		p.Add(path+".fcm_options.analytics_label", m.FCMOptions.AnalyticsLabel, "use at most 50 letters, digits and -_.~%")
	}
	if m.APNS == nil {
		return
	}
	priority, silent := m.APNS.Headers["apns-priority"], m.APNS.Headers["apns-push-type"] == "background"
	if payload := m.APNS.Payload; payload != nil && payload.Aps != nil && m.Notification == nil {
		a := payload.Aps
		_, alert := a.CustomData["alert"] // an empty one
		shows := alert || a.Alert != nil || a.AlertString != "" || a.Badge != nil || a.Sound != "" || a.CriticalSound != nil
		silent = silent || a.ContentAvailable && !shows
	}
	switch {
	case !slices.Contains([]string{"", "1", "5", "10"}, priority):
		p.Add(path+".apns.headers.apns-priority", priority, `must be "10", "5" or "1"`)
	case priority == "10" && silent:
		p.Add(path+".apns.headers.apns-priority", priority, `FCM refuses it for a push that shows nothing; use "5", or add an alert`)
	}
}
