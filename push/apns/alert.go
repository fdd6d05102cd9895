package apns

import (
	"encoding/json"
	"strconv"

	"github.com/matrix-herald/herald/push"
)

// maxName is the longest name of a sender or a room in an alert, in characters.
const maxName = 1024

// alert is a localised alert: the key of a format string in the app and its
// arguments. The zero alert shows nothing.
type alert struct {
	key  string
	args []string
}

// alertOf chooses the alert for n. Keys and the order of their arguments are
// what the apps' translations have been written for. No argument is longer than
// a payload.
func alertOf(n *push.Notification, call push.Call) alert {
	kind, _ := n.Type.Text()
	from, room := senderName(n), roomName(n)
	switch {
	case kind == "m.room.message", kind == "m.room.encrypted":
		return messageAlert(n, from, room)
	case call.Rings() && call.Video:
		return alert{"VIDEO_CALL_FROM_USER", []string{from}}
	case call.Rings():
		return alert{"VOICE_CALL_FROM_USER", []string{from}}
	case call.Quiet:
	case kind == "m.room.member":
		if !n.UserIsTarget || n.Membership.String() != "invite" {
			return alert{}
		}
		if room != "" {
			return alert{"USER_INVITE_TO_NAMED_ROOM", []string{from, room}}
		}
		return alert{"USER_INVITE_TO_CHAT", []string{from}}
	case n.Type.Truthy():
		return alert{"MSG_FROM_USER", []string{from}}
	}
	return alert{}
}

func messageAlert(n *push.Notification, from, room string) alert {
	msgtype, body, shown, known := message(n.Content)
	switch {
	case known && msgtype == "m.image" && room != "":
		return alert{"IMAGE_FROM_USER_IN_ROOM", []string{from, body, room}}
	case known && msgtype == "m.image":
		return alert{"IMAGE_FROM_USER", []string{from, body}}
	case known && msgtype == "m.emote" && room != "":
		return alert{"ACTION_FROM_USER_IN_ROOM", []string{room, from, body}}
	case known && msgtype == "m.emote":
		return alert{"ACTION_FROM_USER", []string{from, body}}
	case shown && room != "":
		return alert{"MSG_FROM_USER_IN_ROOM_WITH_CONTENT", []string{from, room, body}}
	case shown:
		return alert{"MSG_FROM_USER_WITH_CONTENT", []string{from, body}}
	case room != "":
		return alert{"MSG_FROM_USER_IN_ROOM", []string{from, room}}
	}
	return alert{"MSG_FROM_USER", []string{from}}
}

// message returns the msgtype and the body of a message's content, known if it
// has both, and shown if the body is worth it: not empty, false or zero. A body
// that is a number or a boolean becomes its text, because Apple takes no other
// arguments; an object or a list cannot be shown.
func message(content any) (msgtype any, body string, shown, known bool) {
	m, _ := content.(map[string]any)
	msgtype, known = m["msgtype"]
	switch b := m["body"].(type) {
	case string:
		body = b
	case bool:
		body = strconv.FormatBool(b)
	case json.Number:
		body = b.String()
	default:
		return nil, "", false, false
	}
	return msgtype, cut(body, MaxPayload), known && push.NewMember(m["body"]).Truthy(), known
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
