package push_test

import (
	"strings"
	"testing"

	"github.com/matrix-herald/herald/push"
)

func apps(names ...string) []push.App {
	var out []push.App
	for _, n := range names {
		out = append(out, push.App{Name: n, MaxInFlight: 1})
	}
	return out
}

// Conformance (answers): globs match the whole app_id, case matters, an exact name wins
func TestFind(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		apps  []push.App
		appID string
		want  string
	}{
		"an exact name is found":                          {apps("com.example.ios"), "com.example.ios", "com.example.ios"},
		"an exact name wins over a glob":                  {apps("com.example.*", "com.example.ios"), "com.example.ios", "com.example.ios"},
		"a star matches a run with dots":                  {apps("com.example.*"), "com.example.ios.prod", "com.example.*"},
		"a star matches nothing":                          {apps("com.example*"), "com.example", "com.example*"},
		"a question mark matches one character":           {apps("com.example.?"), "com.example.é", "com.example.?"},
		"a question mark does not match none":             {apps("com.example.?"), "com.example.", ""},
		"a question mark does not match two":              {apps("com.example.?"), "com.example.ab", ""},
		"a glob matches the whole app_id":                 {apps("com.*.ios"), "com.example.ios.dev", ""},
		"a glob is anchored at the start":                 {apps("com.*"), "org.com.x", ""},
		"a dot in a glob is a dot":                        {apps("com.example*"), "comXexample", ""},
		"a bracket in a glob is a bracket":                {apps("com.[ab]*"), "com.[ab]x", "com.[ab]*"},
		"case matters":                                    {apps("com.Example"), "com.example", ""},
		"a line break is a character like any other":      {apps("com.*"), "com.a\nb", "com.*"},
		"a trailing line break is not the end":            {apps("com.?"), "com.a\n", ""},
		"an unknown app_id is not found":                  {apps("com.example.ios"), "com.example.android", ""},
		"an app_id that looks like a glob is no wild key": {apps("com.example.ios"), "*", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := push.NewApps(tt.apps)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if app := a.Find(tt.appID); app != nil {
				got = app.Name
			}
			if got != tt.want {
				t.Errorf("Find(%q) = %q, want %q", tt.appID, got, tt.want)
			}
		})
	}
}

// Conformance (answers): two globs that meet (≠ Sygnal: rejected) | a fault of the configuration
func TestNewAppsRefusesAmbiguity(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		apps []push.App
		ok   bool
	}{
		"one glob inside another":            {apps("com.example.*", "com.*"), false},
		"globs that overlap in the middle":   {apps("com.*", "*.ios"), false},
		"a question mark under a star":       {apps("com.?", "com.*"), false},
		"a star that stands for nothing":     {apps("a*b", "?b"), false},
		"stars on both sides":                {apps("*a*", "*b*"), false},
		"the same name twice":                {apps("com.example", "com.example"), false},
		"globs with different starts":        {apps("com.a*", "com.b*"), true},
		"globs with different ends":          {apps("*.ios", "*.android"), true},
		"globs of different lengths":         {apps("a?", "a??"), true},
		"a glob beside an exact name":        {apps("com.*", "com.example"), true},
		"a question mark and another letter": {apps("a?c", "?bd"), true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := push.NewApps(tt.apps)
			if tt.ok {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, a := range tt.apps {
				if !strings.Contains(err.Error(), `"`+a.Name+`"`) {
					t.Errorf("error %q does not name %q", err, a.Name)
				}
			}
		})
	}
}
