package eventdata

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/matrix-herald/herald/push"
)

const (
	// maxData is what the push services let names and values weigh together, in
	// bytes; some count more than those.
	maxData = 4096
	// maxField is what one member of an event may weigh in bytes, before all
	// of them together are measured.
	maxField = 1024
	// maxID is the longest id of a room or an event (Appendices, "Common
	// Identifier Format"). No app finds anything by a longer one.
	maxID = 255

	ellipsis      = "…"
	contentPrefix = "content_"
)

// field is a member of the data.
type field struct{ key, value string }

func (f field) size() int { return len(f.key) + len(f.value) }

// event is what a notification brings to the data of every message about it. It
// is made once for all devices of a request.
type event struct {
	members []field
	content content
}

func newEvent(n *push.Notification) *event {
	e := &event{content: flatten(n.Content)}
	for _, m := range [...]struct {
		key   string
		value push.Member
	}{
		{"event_id", n.EventID},
		{"room_id", n.RoomID},
		{"type", n.Type},
		{"sender", n.Sender},
		{"room_name", n.RoomName},
		{"room_alias", n.RoomAlias},
		{"membership", n.Membership},
		{"sender_display_name", n.SenderDisplayName},
	} {
		if s, ok := m.value.Text(); ok && (len(s) <= maxID || !strings.HasSuffix(m.key, "_id")) {
			e.members = append(e.members, field{m.key, Cut(s, maxField)})
		}
	}
	prio := "high"
	if n.Low {
		prio = "normal"
	}
	e.members = append(e.members, field{"prio", prio})
	return e
}

// content is what the content of an event brings.
type content struct {
	// known are the members that apps show.
	known []field
	// others are the other members, or a content that is not an object, shortest
	// first: as many as a message has room for if it holds nothing else.
	others []encoded
}

// encoded is a field with its text in JSON: a hundred devices get the same.
type encoded struct {
	field

	json []byte
}

func encode(f field) encoded {
	text := make([]byte, 0, f.size()+8)
	text, _ = jsontext.AppendQuote(text, f.key) // what is not UTF-8 has been left out
	text, _ = jsontext.AppendQuote(append(text, ':'), f.value)
	return encoded{f, text}
}

// flatten returns the texts of an event's content as content_<key>.
func flatten(v any) content {
	members, ok := v.(map[string]any)
	if !ok {
		f := field{key: "content"}
		if f.value, ok = text(v); !ok || v == nil || f.size() > maxData {
			return content{}
		}
		return content{others: []encoded{encode(f)}}
	}
	var c content
	var others shortest
	for key, value := range members {
		s, ok := value.(string)
		switch {
		case !ok || len(key) > maxData || !utf8.ValidString(key):
		case key == "body" || key == "msgtype":
			c.known = append(c.known, field{contentPrefix + key, Cut(s, maxField)})
		default:
			others.add(field{key, Cut(s, maxField)})
		}
	}
	for _, f := range others.fitting() {
		c.others = append(c.others, encode(field{contentPrefix + f.key, f.value}))
	}
	return c
}

// shortest keeps the shortest of many members, as many as fit into a message, by
// name where they are equally short. It never holds many more than that.
type shortest struct {
	fields []field // without their prefix
	size   int
	beyond *field // the first that did not fit
}

func (s *shortest) add(f field) {
	if s.beyond != nil && compare(f, *s.beyond) > 0 {
		return
	}
	s.fields = append(s.fields, f)
	if s.size += len(contentPrefix) + f.size(); s.size > 4*maxData {
		s.fields = s.fitting()
	}
}

// fitting returns those that fit.
func (s *shortest) fitting() []field {
	slices.SortFunc(s.fields, compare)
	s.size = 0
	for i, f := range s.fields {
		size := s.size + len(contentPrefix) + f.size()
		if size > maxData {
			s.beyond = &f
			return s.fields[:i]
		}
		s.size = size
	}
	return s.fields
}

func compare(a, b field) int {
	return cmp.Or(cmp.Compare(a.size(), b.size()), cmp.Compare(a.key, b.key))
}

// text returns a string as it is and anything else as its JSON text; false
// for what has none.
func text(value any) (string, bool) {
	if s, ok := value.(string); ok {
		return strings.ToValidUTF8(s, "\uFFFD"), true
	}
	text, err := push.EncodeJSON(value)
	return string(text), err == nil
}

// Cut returns s if it has at most limit bytes, else as much of its beginning as
// fits before an ellipsis without splitting a character. Where not even the
// ellipsis fits it returns "".
func Cut(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= limit {
		return s
	}
	end := limit - len(ellipsis)
	if end < 0 {
		return ""
	}
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}
