package apns

import (
	"encoding/json"
	"strings"

	"github.com/matrix-herald/herald/push"
)

const (
	// maxName is the longest name of a sender or a room in an alert, in
	// characters.
	maxName = 1024
	// maxScalar bounds a message body that is no text, in bytes of JSON: a
	// number cannot be cut to fit.
	maxScalar = 64
)

// alert is a localised alert: the key of a format string in the app and its
// arguments. The zero alert shows nothing.
type alert struct {
	key  string
	args []any
}

// alertOf chooses the alert for n. Keys and the order of their arguments are
// what the apps' translations have been written for.
func alertOf(n *push.Notification) alert {
	kind, _ := n.Type.Text()
	from, room := senderName(n), roomName(n)
	switch kind {
	case "m.room.message", "m.room.encrypted":
		return messageAlert(n, from, room)
	case "m.call.invite":
		if offersVideo(n.Content) {
			return alert{"VIDEO_CALL_FROM_USER", []any{from}}
		}
		return alert{"VOICE_CALL_FROM_USER", []any{from}}
	case "m.room.member":
		if !n.UserIsTarget || n.Membership.String() != "invite" {
			return alert{}
		}
		if room != "" {
			return alert{"USER_INVITE_TO_NAMED_ROOM", []any{from, room}}
		}
		return alert{"USER_INVITE_TO_CHAT", []any{from}}
	}
	if n.Type.Truthy() {
		return alert{"MSG_FROM_USER", []any{from}}
	}
	return alert{}
}

func messageAlert(n *push.Notification, from, room string) alert {
	msgtype, body, known := message(n.Content)
	switch {
	case known && msgtype == "m.image" && room != "":
		return alert{"IMAGE_FROM_USER_IN_ROOM", []any{from, body, room}}
	case known && msgtype == "m.image":
		return alert{"IMAGE_FROM_USER", []any{from, body}}
	case known && msgtype == "m.emote" && room != "":
		return alert{"ACTION_FROM_USER_IN_ROOM", []any{room, from, body}}
	case known && msgtype == "m.emote":
		return alert{"ACTION_FROM_USER", []any{from, body}}
	case known && push.NewMember(body).Truthy() && room != "":
		return alert{"MSG_FROM_USER_IN_ROOM_WITH_CONTENT", []any{from, room, body}}
	case known && push.NewMember(body).Truthy():
		return alert{"MSG_FROM_USER_WITH_CONTENT", []any{from, body}}
	case room != "":
		return alert{"MSG_FROM_USER_IN_ROOM", []any{from, room}}
	}
	return alert{"MSG_FROM_USER", []any{from}}
}

// message returns the msgtype and the body of a message's content, if it has
// both. A body is text, or a short number or boolean; anything else cannot be
// shown and might not fit, and an event must not cost a device its pusher.
func message(content any) (msgtype any, body any, known bool) {
	m, _ := content.(map[string]any)
	msgtype, hasType := m["msgtype"]
	switch b := m["body"].(type) {
	case string:
		return msgtype, shorten(b, MaxVoIPPayload), hasType // more never fits
	case bool:
		return msgtype, b, hasType
	case json.Number:
		return msgtype, b, hasType && len(b) <= maxScalar
	}
	return nil, nil, false
}

// offersVideo reports whether the session description of a call's offer
// (Client-Server API, "m.call.invite") has a video stream.
func offersVideo(content any) bool {
	m, _ := content.(map[string]any)
	offer, _ := m["offer"].(map[string]any)
	sdp, _ := offer["sdp"].(string)
	return strings.Contains(sdp, "m=video")
}

// senderName is the name to show for the sender, a space when there is none,
// because the apps' formats cannot do without.
func senderName(n *push.Notification) string {
	name, named := n.SenderDisplayName.Text()
	if name == "" && n.Sender.String() == "" {
		return " "
	}
	if !named {
		name = n.Sender.String()
	}
	return shorten(name, maxName)
}

// roomName is the name to show for the room, "" when there is none.
func roomName(n *push.Notification) string {
	name := n.RoomName.String()
	if name == "" {
		name = n.RoomAlias.String()
	}
	return shorten(name, maxName)
}
