package fcm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"firebase.google.com/go/v4/messaging"

	"github.com/matrix-herald/herald/internal/conf"
)

// decodeOptions turns the option fcm_options into the message that every push
// of the app starts from. The SDK's own decoding drops members it does not
// know without a word, so each member is checked against FCM's reference
// first. Faults are added to p under path; the message is nil if there are any.
func decodeOptions(path string, options map[string]any, p *conf.Problems) *messaging.Message {
	text, err := json.Marshal(options)
	if err != nil {
		p.Add(path, nil, "write an object of FCM's message, with texts as its keys")
		return nil
	}
	var value any
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	if err := dec.Decode(&value); err != nil {
		p.Add(path, nil, "write an object of FCM's message")
		return nil
	}
	before := p.Len()
	value = messageRule()(path, value, p)
	if p.Len() > before {
		return nil
	}

	msg := new(messaging.Message)
	if text, err = json.Marshal(value); err == nil {
		err = json.Unmarshal(text, msg)
	}
	if err == nil {
		if msg.APNS != nil && msg.APNS.Payload != nil && msg.APNS.Payload.Aps == nil {
			msg.APNS.Payload.Aps = new(messaging.Aps) // the SDK would write null
		}
		err = checkMessage(context.Background(), *msg)
	}
	if err != nil {
		p.Add(path, nil, "the Firebase library refuses it: "+err.Error())
		return nil
	}
	return msg
}

// A rule checks one value of fcm_options, adds its faults to p and returns the
// value in the form the SDK decodes.
type rule func(path string, value any, p *conf.Problems) any

// messageRule is FCM's reference of projects.messages, in the REST API's
// snake_case spelling.
func messageRule() rule {
	label := object(map[string]rule{"analytics_label": str})
	perMessage := refuse("leave it out: every push brings its own")
	return object(map[string]rule{
		"notification": object(map[string]rule{"title": str, "body": str, "image": str}),
		"android":      androidRule(),
		"webpush":      webpushRule(),
		"apns":         apnsRule(),
		"fcm_options":  label,
		"data":         perMessage,
		"token":        perMessage,
		"topic":        perMessage,
		"condition":    perMessage,
	})
}

func androidRule() rule {
	return object(map[string]rule{
		"collapse_key": str,
		// Each push sets its own priority; one in the options is checked and
		// overridden, as existing configurations have it.
		"priority":                str,
		"ttl":                     duration,
		"restricted_package_name": str,
		"data":                    refuse("leave it out: it would replace the data of every push"),
		"direct_boot_ok":          boolean,
		"fcm_options":             object(map[string]rule{"analytics_label": str}),
		"notification": object(map[string]rule{
			"title": str, "body": str, "icon": str, "color": str, "sound": str, "tag": str,
			"click_action": str, "body_loc_key": str, "body_loc_args": list(str),
			"title_loc_key": str, "title_loc_args": list(str), "channel_id": str, "image": str,
			"ticker": str, "sticky": boolean, "event_time": str, "local_only": boolean,
			"notification_priority": str, "visibility": str, "proxy": str,
			"vibrate_timings": list(duration), "default_vibrate_timings": boolean,
			"default_sound": boolean, "default_light_settings": boolean, "notification_count": integer,
			// The SDK misreads colours whose components are below 16.
			"light_settings": refuse("use default_light_settings; Android 8 and later ignore it for channels"),
		}),
	})
}

func webpushRule() rule {
	return object(map[string]rule{
		"headers":     table(str),
		"data":        table(str),
		"fcm_options": object(map[string]rule{"link": httpsURL}),
		"notification": open(map[string]rule{
			"actions": list(object(map[string]rule{"action": str, "title": str, "icon": str})),
			"title":   str, "body": str, "icon": str, "badge": str, "dir": str, "image": str, "lang": str,
			"renotify": boolean, "requireInteraction": boolean, "silent": boolean, "tag": str,
			"timestamp": integer, "vibrate": list(integer),
		}),
	})
}

func apnsRule() rule {
	alert := object(map[string]rule{
		"title": str, "subtitle": str, "body": str, "loc-key": str, "loc-args": list(str),
		"title-loc-key": str, "title-loc-args": list(str), "subtitle-loc-key": str,
		"subtitle-loc-args": list(str), "action-loc-key": str, "launch-image": str,
	})
	sound := object(map[string]rule{"critical": integer, "name": str, "volume": number})
	return object(map[string]rule{
		"headers":             table(str),
		"live_activity_token": str,
		"fcm_options":         object(map[string]rule{"analytics_label": str, "image": str}),
		"payload": open(map[string]rule{
			"aps": open(map[string]rule{
				"alert": strOr(alert), "sound": strOr(sound), "badge": integer,
				"content-available": integer, "mutable-content": integer,
				"category": str, "thread-id": str,
			}),
		}),
	})
}

// object allows the given members and no others.
func object(known map[string]rule) rule { return members(known, false) }

// open allows also members it does not know, which are the app's own.
func open(known map[string]rule) rule { return members(known, true) }

func members(known map[string]rule, others bool) rule {
	return func(path string, value any, p *conf.Problems) any {
		m, ok := value.(map[string]any)
		if !ok {
			p.Add(path, value, "write an object")
			return value
		}
		checked := make(map[string]any, len(m))
		for _, key := range slices.Sorted(maps.Keys(m)) {
			check := known[key]
			switch {
			case check != nil:
				checked[key] = check(member(path, key), m[key], p)
			case others:
				checked[key] = m[key]
			default:
				p.Add(member(path, key), nil, "FCM knows no such member here; it knows "+
					strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			}
		}
		return checked
	}
}

// table allows any member, each under the same rule.
func table(of rule) rule {
	return func(path string, value any, p *conf.Problems) any {
		m, ok := value.(map[string]any)
		if !ok {
			p.Add(path, value, "write an object")
			return value
		}
		for _, key := range slices.Sorted(maps.Keys(m)) {
			m[key] = of(member(path, key), m[key], p)
		}
		return m
	}
}

func list(of rule) rule {
	return func(path string, value any, p *conf.Problems) any {
		l, ok := value.([]any)
		if !ok {
			p.Add(path, value, "write a list")
			return value
		}
		for i := range l {
			l[i] = of(fmt.Sprintf("%s[%d]", path, i), l[i], p)
		}
		return l
	}
}

func refuse(remedy string) rule {
	return func(path string, value any, p *conf.Problems) any {
		p.Add(path, nil, remedy)
		return value
	}
}

func strOr(other rule) rule {
	return func(path string, value any, p *conf.Problems) any {
		if _, ok := value.(string); ok {
			return value
		}
		return other(path, value, p)
	}
}

func str(path string, value any, p *conf.Problems) any {
	if _, ok := value.(string); !ok {
		p.Add(path, value, "write a text (in quotes if it looks like a number)")
	}
	return value
}

func httpsURL(path string, value any, p *conf.Problems) any {
	s, _ := value.(string)
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" {
		p.Add(path, value, "write an https URL")
	}
	return value
}

func boolean(path string, value any, p *conf.Problems) any {
	if _, ok := value.(bool); !ok {
		p.Add(path, value, "write true or false")
	}
	return value
}

func integer(path string, value any, p *conf.Problems) any {
	n, ok := value.(json.Number)
	if i, err := n.Int64(); !ok || err != nil || i > math.MaxInt32 && !strings.HasSuffix(path, ".timestamp") {
		p.Add(path, value, "write a whole number")
	}
	return value
}

func number(path string, value any, p *conf.Problems) any {
	if _, ok := value.(json.Number); !ok {
		p.Add(path, value, "write a number")
	}
	return value
}

var durationPattern = regexp.MustCompile(`^([0-9]{1,9})(?:\.([0-9]{1,9}))?s$`)

// duration accepts FCM's text of a duration. The SDK takes "1.5s" for one
// second and five nanoseconds, so a fraction is filled up to nine digits.
func duration(path string, value any, p *conf.Problems) any {
	s, _ := value.(string)
	m := durationPattern.FindStringSubmatch(s)
	if m == nil {
		p.Add(path, value, `write seconds with an "s", such as "3600s" or "0.5s"`)
		return value
	}
	if strings.Trim(m[2], "0") == "" {
		return m[1] + "s"
	}
	return m[1] + "." + m[2] + strings.Repeat("0", 9-len(m[2])) + "s"
}

// member is the path of a member, quoted if it holds a dot.
func member(path, key string) string {
	if strings.ContainsAny(key, `.[" `) || key == "" {
		return fmt.Sprintf("%s[%q]", path, key)
	}
	return path + "." + key
}
