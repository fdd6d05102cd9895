package push

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// App is one configured app: which devices it is for and how to reach them.
type App struct {
	// Name is the app_id it is for, or a glob over app_ids in which * stands
	// for any run of characters and ? for exactly one. It is the app's label in
	// metrics and logs.
	Name string
	// ProviderName is the push service's short name, such as "apns".
	ProviderName string
	Provider     Provider
	// MaxInFlight is how many deliveries of this app may be under way at once;
	// one more is answered at once with a Temporary outcome. It is at least 1.
	MaxInFlight int
	// Fingerprint stands for the provider's settings on which it depends whether
	// a pushkey is one of the app's, such as a project or a topic with its host.
	// Apps that share them share what is known about pushkeys, and when they
	// change it is forgotten. Empty are settings of the app's own.
	Fingerprint string
	// PassOn names further members of notifications that the app gets as they are,
	// such as those of encrypted notifications (MSC3013).
	PassOn []string
	// UnifiedPush says that pushkeys of the app may be endpoints of UnifiedPush.
	UnifiedPush bool
	// URLs is for those pushkeys of the app that are https URLs, nil where the app
	// itself is. It shares the app's places and nothing else: what the one push
	// service says is nothing for or against the other.
	URLs *App
	// CertificateExpiry is when the credentials stop working, zero when they
	// do not expire.
	CertificateExpiry time.Time

	id  string // by which its state is kept
	key Key    // of the settings
}

// For returns the app that d's pushkey belongs to: a, or its URLs.
func (a *App) For(d *Device) *App {
	if a.URLs != nil && strings.HasPrefix(strings.TrimSpace(d.PushKey), "https://") {
		return a.URLs
	}
	return a
}

// destinations returns all destinations of the app's.
func (a *App) destinations() []string {
	if several, ok := a.Provider.(interface{ Destinations() []string }); ok {
		return several.Destinations()
	}
	return []string{a.Provider.Destination(&Device{})}
}

// setKeys sets what an app is known by.
func (a *App) setKeys(id string) {
	a.id = id
	if a.key = keyOf("settings", a.Fingerprint); a.Fingerprint == "" {
		a.key = keyOf("name", a.id)
	}
}

// Apps finds the app an app_id belongs to. It does not change once made.
type Apps struct {
	exact map[string]*App
	globs []glob
	all   []*App
}

type glob struct {
	re  *regexp.Regexp
	app *App
}

// NewApps checks and indexes apps. Two apps of one name, and two globs that
// some app_id would match both, are errors that name both.
func NewApps(apps []App) (*Apps, error) {
	a := &Apps{exact: make(map[string]*App)}
	for i := range apps {
		app := &apps[i]
		app.setKeys(app.Name)
		a.all = append(a.all, app)
		if app.URLs != nil {
			app.URLs.setKeys(app.Name + "\nURLs")
			a.all = append(a.all, app.URLs)
		}
		if !strings.ContainsAny(app.Name, "*?") {
			if a.exact[app.Name] != nil {
				return nil, fmt.Errorf("app %q is configured twice", app.Name)
			}
			a.exact[app.Name] = app
			continue
		}
		for _, other := range a.globs {
			if globsMeet([]rune(app.Name), []rune(other.app.Name)) {
				return nil, fmt.Errorf("apps %q and %q can match the same app_id; make one of them narrower", other.app.Name, app.Name)
			}
		}
		a.globs = append(a.globs, glob{Glob(app.Name), app})
	}
	return a, nil
}

// Find returns the app with exactly this name, else the app whose glob matches
// the whole app_id, else nil. Case matters.
func (a *Apps) Find(appID string) *App {
	if app := a.exact[appID]; app != nil {
		return app
	}
	for _, g := range a.globs {
		if g.re.MatchString(appID) {
			return g.app
		}
	}
	return nil
}

// All returns the apps in the order they were given, each with its URLs behind it.
func (a *Apps) All() []*App { return a.all }

// Glob returns what matches the whole of what a glob is for: * stands for any run of
// characters and ? for exactly one.
func Glob(pattern string) *regexp.Regexp {
	expr := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile(`^(?s:` + expr + `)$`)
}

// globsMeet reports whether some string matches both globs. It walks both
// patterns at once and remembers, for the current position in p, the positions
// in q from which the rests still have to meet.
func globsMeet(p, q []rune) bool {
	// meet[j] says that p[i:] and q[j:] meet, for the i of the round.
	meet := make([]bool, len(q)+1)
	for i := len(p); i >= 0; i-- {
		next := make([]bool, len(q)+1)
		for j := len(q); j >= 0; j-- {
			switch {
			case i == len(p) && j == len(q):
				next[j] = true
			case i < len(p) && p[i] == '*':
				// The star stands for nothing, or swallows what q has here.
				next[j] = meet[j] || j < len(q) && next[j+1]
			case j < len(q) && q[j] == '*':
				next[j] = next[j+1] || i < len(p) && meet[j]
			case i < len(p) && j < len(q):
				next[j] = (p[i] == q[j] || p[i] == '?' || q[j] == '?') && meet[j+1]
			}
		}
		meet = next
	}
	return meet[0]
}
