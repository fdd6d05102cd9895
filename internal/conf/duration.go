package conf

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// day is what the unit "d" stands for. Configured durations are spans of
// time, not calendar dates, so a day has always 24 hours.
const day = 24 * time.Hour

const errDuration = Remedy(`not a duration: write a number and a unit, such as "500ms", "25s", "1h30m" or "7d"`)

// Duration is a span of time in a configuration: the text of
// time.ParseDuration, optionally led by whole days ("25s", "1h30m", "7d",
// "1d12h"). A number without a unit is refused, also 0, because nobody
// remembers which unit it would be in.
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the shortest text that UnmarshalText reads back as d.
func (d Duration) String() string {
	std := d.Std()
	if std >= day && std%day == 0 {
		return strconv.FormatInt(int64(std/day), 10) + "d"
	}
	text := std.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// MarshalText implements encoding.TextMarshaler. It never returns an error.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. The error says what to
// write instead and does not repeat the text.
func (d *Duration) UnmarshalText(text []byte) error {
	var days time.Duration
	clock := string(text)
	number, after, hasDays := strings.Cut(clock, "d")
	if hasDays {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return errDuration
		}
		days, clock = time.Duration(n)*day, after
	}
	var rest time.Duration
	if !hasDays || clock != "" {
		if _, err := strconv.ParseFloat(clock, 64); err == nil {
			return errDuration // no unit; time.ParseDuration would take "0"
		}
		var err error
		if rest, err = time.ParseDuration(clock); err != nil {
			return errDuration
		}
	}
	if hasDays && (rest < 0 || rest > math.MaxInt64-days) {
		return errDuration
	}
	*d = Duration(days + rest)
	return nil
}
