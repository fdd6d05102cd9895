package apns

import (
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/matrix-herald/herald/push"
)

// maxSound is the longest name of a sound, in encoded bytes.
const maxSound = 64

// eventRoom is what a default_payload must leave free, in bytes: the ids, counts
// and tweaks that a notification may bring.
const eventRoom = 2*maxID + maxSound + 130

// fit encodes root in at most limit bytes, counted as they are sent: a quote is
// two. To make room the longest texts of the alert are cut to one length,
// without an ellipsis. The work grows linearly with the payload. It returns nil where
// the app's own part is too long.
func fit(root map[string]any, limit int) []byte {
	texts, set := alertTexts(root)
	lengths, total := encodedLens(texts)
	if total <= limit {
		if body := encode(root); len(body) <= limit {
			return body
		}
	}
	set(make([]string, len(texts)))
	empty := encode(root)
	if len(empty) > limit {
		set(texts)
		return fitWithoutIDs(root, len(empty), limit)
	}
	set(level(texts, lengths, limit-len(empty)))
	return encode(root)
}

func encode(v any) []byte {
	text, _ := push.EncodeJSON(v) // what was decoded from JSON cannot fail
	return text
}

// fitWithoutIDs is for a payload that has size bytes without its texts, more than
// limit. Where that is the fault of the app's own part, the pusher is useless;
// else it is that of ids full of characters that need escapes.
func fitWithoutIDs(root map[string]any, size, limit int) []byte {
	for _, name := range []string{"room_id", "event_id"} {
		size -= len(encode(root[name]))
		delete(root, name)
	}
	if size > limit-eventRoom {
		return nil
	}
	return fit(root, limit)
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

// level returns texts, of these lengths when encoded, with the longest cut to one
// length, so that together they have at most room bytes.
func level(texts []string, lengths []int, room int) []string {
	// Give each text its length, shortest first, for as long as all that are
	// left could have the same; the others share the rest.
	sorted := slices.Sorted(slices.Values(lengths))
	longest := len(sorted)
	for _, n := range sorted {
		if n*longest > room {
			break
		}
		room -= n
		longest--
	}
	if longest == 0 {
		return texts
	}
	share, spare := room/longest, room%longest
	leveled := slices.Clone(texts)
	for i, text := range texts {
		// sorted[len-longest] is the shortest text that is cut.
		if lengths[i] < sorted[len(sorted)-longest] {
			continue
		}
		leveled[i] = cut(text, share+spare)
		spare += share - encodedLen(leveled[i])
	}
	return leveled
}

// maxCharacter is the longest that readers' characters are taken to be, in bytes:
// what goes on beyond it is a heap of marks on one letter.
const maxCharacter = 100

// cut returns the longest prefix of s that takes at most limit bytes in a JSON
// string and does not end within what a reader takes for one character.
func cut(s string, limit int) string {
	used := 0
	for i := range len(s) {
		if used += encodedSize(s[i]); used > limit {
			for i > 0 && !utf8.RuneStart(s[i]) {
				i--
			}
			return s[:characterStart(s, i)]
		}
	}
	return s
}

// shorten returns at most the first limit code points of s, and no part of what a
// reader takes for one character.
func shorten(s string, limit int) string {
	for i := range s {
		if limit == 0 {
			return s[:characterStart(s, i)]
		}
		limit--
	}
	return s
}

// characterStart returns the start of the character that goes on at i, if it does.
// That is judged by code points alone: marks, variation selectors, skin tones and
// joined emoji stay with their base and flags stay whole; conjoining Hangul may be
// split.
func characterStart(s string, i int) int {
	for start := i; start > 0 && i-start < maxCharacter; {
		if !joins(s[:start], s[start:]) {
			return start
		}
		_, size := utf8.DecodeLastRuneInString(s[:start])
		start -= size
	}
	return i
}

// joins reports whether after goes on with the last character of before.
func joins(before, after string) bool {
	const zeroWidthJoiner = '\u200d'
	last, _ := utf8.DecodeLastRuneInString(before)
	r, _ := utf8.DecodeRuneInString(after)
	switch {
	case last == zeroWidthJoiner, r == zeroWidthJoiner:
		return true
	case isFlag(r): // the second of two
		letters := utf8.RuneCountInString(before[len(strings.TrimRightFunc(before, isFlag)):])
		return letters%2 == 1
	case r >= 0x1f3fb && r <= 0x1f3ff: // skin tones
		return true
	case r >= 0xe0020 && r <= 0xe007f: // tags, as in the flag of Scotland
		return true
	}
	return unicode.Is(unicode.M, r)
}

func isFlag(r rune) bool { return r >= 0x1f1e6 && r <= 0x1f1ff }

// encodedLens are the lengths of texts in JSON strings, without their quotes, and
// their sum.
func encodedLens(texts []string) (lengths []int, total int) {
	lengths = make([]int, len(texts))
	for i, text := range texts {
		lengths[i] = encodedLen(text)
		total += lengths[i]
	}
	return lengths, total
}

func encodedLen(s string) int {
	n := 0
	for i := range len(s) {
		n += encodedSize(s[i])
	}
	return n
}

// encodedSize is what a byte of UTF-8 takes in a JSON string as push.EncodeJSON
// writes it.
func encodedSize(c byte) int {
	switch {
	case c > '\\':
		return 1
	case c == '"', c == '\\', c == '\b', c == '\f', c == '\n', c == '\r', c == '\t':
		return 2
	case c < ' ':
		return 6
	}
	return 1
}
