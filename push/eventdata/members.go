package eventdata

import (
	"regexp"

	"github.com/matrix-herald/herald/push"
)

var (
	passable = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	// ours are members that pushes have anyway, and those that push services keep
	// for themselves.
	ours = regexp.MustCompile(`^(event_id|type|room_(id|name|alias)|sender|sender_display_name|membership|user_is_target|prio|content(_.*)?|` +
		`counts|unread(_count)?|missed_calls|devices|aps|sound|highlight|from|message_type|(google|gcm).*)$`)
)

// Passable reports whether an app may have members of that name passed on.
func Passable(name string) bool { return passable.MatchString(name) && !ours.MatchString(name) }

// Entry is a device as its homeserver listed it, for apps that look for themselves
// among the devices.
func Entry(d *push.Device) map[string]any {
	m := map[string]any{"app_id": d.AppID, "pushkey": d.PushKey}
	if d.PushKeyTS != 0 {
		m["pushkey_ts"] = d.PushKeyTS
	}
	if d.Data != nil {
		m["data"] = d.Data
	}
	tweaks := make(map[string]any, 2)
	if d.Tweaks.Sound != "" {
		tweaks["sound"] = d.Tweaks.Sound
	}
	if d.Tweaks.Highlight {
		tweaks["highlight"] = true
	}
	if len(tweaks) > 0 {
		m["tweaks"] = tweaks
	}
	return m
}
