package conf_test

import (
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
)

func TestDurationText(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, test := range []struct {
		text string
		want time.Duration
		back string // what String writes
	}{
		{"25s", 25 * time.Second, "25s"},
		{"500ms", 500 * time.Millisecond, "500ms"},
		{"1h30m", 90 * time.Minute, "1h30m"},
		{"90m", 90 * time.Minute, "1h30m"},
		{"2h", 2 * time.Hour, "2h"},
		{"10m", 10 * time.Minute, "10m"},
		{"1h0m5s", time.Hour + 5*time.Second, "1h0m5s"},
		{"0s", 0, "0s"},
		{"-5s", -5 * time.Second, "-5s"},
		{"7d", 7 * day, "7d"},
		{"0d", 0, "0s"},
		{"1d12h", 36 * time.Hour, "36h"},
		{"24h", day, "1d"},
	} {
		var d conf.Duration
		if err := d.UnmarshalText([]byte(test.text)); err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		if d.Std() != test.want {
			t.Errorf("%q = %v, want %v", test.text, d.Std(), test.want)
		}
		out, err := d.MarshalText()
		if err != nil || string(out) != test.back {
			t.Errorf("%q is written as %q, %v, want %q", test.text, out, err, test.back)
		}
	}
}

func TestDurationRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"a number without unit":             "25",
		"zero without unit":                 "0",
		"a fraction without unit":           "1.5",
		"nothing":                           "",
		"a unit without number":             "d",
		"a fraction of a day":               "1.5d",
		"negative days":                     "-1d",
		"a negative rest after days":        "1d-5s",
		"a rest without unit after days":    "1d0",
		"two counts of days":                "1d1d",
		"words":                             "soon",
		"more days than a duration can":     "300000d",
		"days and hours beyond a duration":  "65535d2000000h",
		"an unknown unit":                   "3w",
		"infinity, which parses as a float": "Inf",
	} {
		d := conf.Duration(time.Minute)
		err := d.UnmarshalText([]byte(text))
		if err == nil {
			t.Errorf("%s (%q) is taken as %v", name, text, d)
			continue
		}
		if d.Std() != time.Minute {
			t.Errorf("%s (%q) is refused but changed the value to %v", name, text, d)
		}
		if !strings.Contains(err.Error(), `"25s"`) {
			t.Errorf("%s: the error %q does not say what to write", name, err)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, seed := range []string{"25s", "7d", "1d12h", "-5s", "0", "1h0m5s", "9223372036854775807ns", "1µs"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d, again conf.Duration
		if d.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%q is %q, which reads back as %v, %v", text, d, again, err)
		}
	})
}
