package apns

import (
	"fmt"
	"maps"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/matrix-herald/herald/push"
)

// idRoom is what a default_payload must leave free, in bytes: the ids and
// counts that every notification brings. Ids of events and rooms have at most
// 255 bytes (Client-Server API, "Size limits").
const idRoom = 2*255 + 90

// fit encodes root in at most limit bytes, counted as they are sent: escaped,
// so that one "<" is six bytes. To make room the longest texts of the alert
// are cut to one length, without an ellipsis. The work grows linearly with the
// payload.
func fit(root map[string]any, limit int) ([]byte, error) {
	body, err := push.EncodeJSON(root)
	if err != nil {
		return nil, fmt.Errorf("encode payload: %w", err)
	}
	if len(body) <= limit {
		return body, nil
	}
	texts, set := alertTexts(root)
	room := limit - len(body) // for the texts, in encoded bytes; negative when too long
	for _, text := range texts {
		room += encodedLen(text)
	}
	if room < 0 {
		return nil, tooLong(root, limit-room, limit)
	}
	level(texts, room)
	set(texts)
	if body, err = push.EncodeJSON(root); err != nil {
		return nil, fmt.Errorf("encode payload: %w", err)
	}
	return body, nil
}

// tooLong says whose fault it is that a payload still has size bytes without
// its texts: only the app's own part may cost a device its pusher.
func tooLong(root map[string]any, size, limit int) error {
	for _, id := range []string{"room_id", "event_id"} {
		if v, err := push.EncodeJSON(root[id]); err == nil {
			size -= len(v)
		}
	}
	if size > limit-idRoom {
		return fmt.Errorf("%w: %d bytes that cannot be cut", ErrMalformedData, size)
	}
	return ErrTooLarge
}

// alertTexts returns the texts of root that may be cut, aps.alert or its body
// and loc-args, and a function that puts others in their place. The maps
// behind root are not changed but replaced, because the app's own lie there.
func alertTexts(root map[string]any) (texts []string, set func([]string)) {
	aps, _ := root["aps"].(map[string]any)
	setAlert := func(v any) {
		changed := maps.Clone(aps)
		changed["alert"] = v
		root["aps"] = changed
	}
	switch v := aps["alert"].(type) {
	case string:
		return []string{v}, func(texts []string) { setAlert(texts[0]) }
	case map[string]any:
		body, hasBody := v["body"].(string)
		if hasBody {
			texts = append(texts, body)
		}
		args, _ := v["loc-args"].([]any)
		for _, arg := range args {
			if s, ok := arg.(string); ok {
				texts = append(texts, s)
			}
		}
		return texts, func(texts []string) {
			changed := maps.Clone(v)
			if hasBody {
				changed["body"], texts = texts[0], texts[1:]
			}
			if args != nil {
				changed["loc-args"] = replaceTexts(args, texts)
			}
			setAlert(changed)
		}
	}
	return nil, func([]string) {}
}

// replaceTexts returns args with its strings replaced by texts, in order.
func replaceTexts(args []any, texts []string) []any {
	replaced := slices.Clone(args)
	for i, arg := range replaced {
		if _, ok := arg.(string); ok {
			replaced[i], texts = texts[0], texts[1:]
		}
	}
	return replaced
}

// level cuts the longest of texts to one length, so that together they have at
// most room bytes when encoded.
func level(texts []string, room int) {
	lengths := make([]int, len(texts))
	for i, text := range texts {
		lengths[i] = encodedLen(text)
	}
	// Give each text its length, shortest first, for as long as all that are
	// left could have the same; the others share the rest.
	sorted := slices.Clone(lengths)
	slices.Sort(sorted)
	longest := len(sorted)
	for _, n := range sorted {
		if n*longest > room {
			break
		}
		room -= n
		longest--
	}
	if longest == 0 {
		return
	}
	share, spare := room/longest, room%longest
	for i, text := range texts {
		// sorted[len-longest] is the shortest text that is cut.
		if lengths[i] < sorted[len(sorted)-longest] {
			continue
		}
		texts[i] = cut(text, share+spare, perEncoded)
		spare += share - encodedLen(texts[i])
	}
}

// cut returns the longest prefix of s that costs at most limit and does not
// end within what a reader takes for one character. That is judged by code
// points alone: marks, variation selectors, skin tones and joined emoji stay
// with their base and flags stay whole; conjoining Hangul may be split.
func cut(s string, limit int, cost func(r rune, size int) int) string {
	end, total := 0, 0 // end is the last good place to cut
	var before rune
	flags := 0 // regional indicators in a row, before this rune
	for i, r := range s {
		if !joins(before, r, flags) {
			end = i
		}
		size := utf8.RuneLen(r)
		if r == utf8.RuneError {
			_, size = utf8.DecodeRuneInString(s[i:])
		}
		if total += cost(r, size); total > limit {
			return s[:end]
		}
		before = r
		if isFlag(r) {
			flags++
		} else {
			flags = 0
		}
	}
	return s
}

// joins reports whether r belongs to the character that before is part of.
func joins(before, r rune, flags int) bool {
	const zeroWidthJoiner = '\u200d'
	switch {
	case r < 0x300: // the most frequent case: nothing below combines
		return before == zeroWidthJoiner
	case before == zeroWidthJoiner, r == zeroWidthJoiner:
		return true
	case isFlag(r):
		return flags%2 == 1
	case r >= 0x1f3fb && r <= 0x1f3ff: // skin tones
		return true
	case r >= 0xe0020 && r <= 0xe007f: // tags, as in the flag of Scotland
		return true
	}
	return unicode.Is(unicode.M, r)
}

func isFlag(r rune) bool { return r >= 0x1f1e6 && r <= 0x1f1ff }

// shorten cuts s to at most limit characters.
func shorten(s string, limit int) string {
	if len(s) <= limit { // there are never more characters than bytes
		return s
	}
	return cut(s, limit, perCharacter)
}

// perCharacter costs one for each character.
func perCharacter(rune, int) int { return 1 }

// perEncoded costs what a character takes in a JSON string as push.EncodeJSON
// writes it, in bytes.
func perEncoded(r rune, size int) int {
	switch r {
	case '"', '\\', '\b', '\f', '\n', '\r', '\t':
		return 2
	case '<', '>', '&', '\u2028', '\u2029':
		return 6
	case utf8.RuneError: // not UTF-8, and written as this character
		return utf8.RuneLen(r)
	}
	if r < ' ' {
		return 6
	}
	return size
}

// encodedLen is the length of s in a JSON string, without its quotes.
func encodedLen(s string) int {
	n := 0
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		n += perEncoded(r, size)
		i += size
	}
	return n
}
