package ratelimit

import (
	"strconv"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
)

// maxPer is the longest time of a Limit.
const maxPer = 366 * 24 * time.Hour

// Limit is how often something may happen: Count times at once, and as often
// again, evenly spread, in each Per. As a budget of distinct members it is Count
// of them in each Per. The zero Limit is off: it lets everything through.
//
// Its text is "5/1h" for five times an hour, or "off".
type Limit struct {
	Count int
	Per   time.Duration
}

// Off reports whether there is no limit.
func (l Limit) Off() bool { return l == Limit{} }

// String returns the text that UnmarshalText reads back as l.
func (l Limit) String() string {
	if l.Off() {
		return "off"
	}
	return strconv.Itoa(l.Count) + "/" + conf.Duration(l.Per).String()
}

// MarshalText implements encoding.TextMarshaler. It never returns an error.
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

const errLimit = conf.Remedy(`not a limit: write how often in how long, such as 5/1h for five times an hour, or off`)

// UnmarshalText implements encoding.TextUnmarshaler. It reads a number from 1, a
// slash and a duration of at least a millisecond and at most 366 days in which
// there is a microsecond for each; or "off", or "0". Its error is a conf.Remedy.
func (l *Limit) UnmarshalText(text []byte) error {
	if s := string(text); s == "off" || s == "0" {
		*l = Limit{}
		return nil
	}
	number, span, _ := strings.Cut(string(text), "/")
	count, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return errLimit
	}
	var per conf.Duration
	if err := per.UnmarshalText([]byte(span)); err != nil {
		return errLimit
	}
	read := Limit{Count: int(count), Per: per.Std()}
	if count == 0 || per.Std() < time.Millisecond || per.Std() > maxPer || read.step() == 0 {
		return errLimit
	}
	*l = read
	return nil
}

// step is the time in microseconds after which one more is allowed.
func (l Limit) step() int64 { return l.Per.Microseconds() / int64(l.Count) }

// room is the time in microseconds that a key may be in debt.
func (l Limit) room() int64 { return l.step() * int64(l.Count) }
