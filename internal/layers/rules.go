package layers

import "strings"

// module is the path that import paths of this module begin with.
const module = "github.com/matrix-herald/herald"

// maxLines bounds a source file; a test file may be longer, since a table of
// cases grows without getting harder to read.
const maxLines = 450

// kind says what a package is for; some rules apply to one kind only.
type kind int

const (
	// adapter knows one technology: a database, a provider's SDK, HTTP.
	adapter kind = iota
	// domain holds the nouns and rules of the specification and nothing else.
	domain
	// testOnly packages serve tests: nothing else may import them.
	testOnly
	// command is a main package.
	command
)

// pkg is one row of the table: a package and the packages of this module that
// its code (without tests) may import. A trailing "/*" stands for everything
// below, "*" for everything.
type pkg struct {
	path    string
	kind    kind
	imports []string
}

// packages is the table. A package that is not listed is refused, so that a new
// one is placed here before it gathers imports.
func packages() []pkg {
	return []pkg{
		{"push", domain, nil},
		{"threepid", domain, nil},
		{"threepid/validation", domain, []string{"threepid"}},
		{"identity", domain, []string{"threepid", "identity/signing"}},
		{"identity/signing", domain, nil},

		{"push/apns", adapter, outbound("push")},
		{"push/fcm", adapter, outbound("push")},
		{"push/webpush", adapter, outbound("push")},
		{"push/redisstore", adapter, []string{"push", "internal/redisconn"}},
		{"push/sygnal", adapter, []string{"internal/conf"}},
		{"push/httpapi", adapter, []string{"push", "internal/mxhttp", "internal/ratelimit"}},
		{"threepid/wording", adapter, nil},
		{"threepid/sending", adapter, []string{"threepid", "threepid/wording", "internal/conf"}},
		{"threepid/email", adapter, outbound("threepid", "threepid/sending", "threepid/wording")},
		{"threepid/sms", adapter, outbound("threepid", "threepid/sending", "threepid/wording")},
		{"identity/homeserver", adapter, outbound("identity/signing")},
		{"identity/sqlstore", adapter, outbound("identity", "threepid", "threepid/validation")},
		{"identity/sydent", adapter, []string{"identity", "identity/signing", "threepid"}},
		{"identity/httpapi", adapter, []string{
			"identity", "identity/signing", "threepid", "threepid/validation", "threepid/wording",
			"internal/mxhttp", "internal/ratelimit",
		}},

		{"push/pushtest", testOnly, outbound("push")},
		{"threepid/threepidtest", testOnly, outbound("threepid")},
		{"identity/httpapi/httpapitest", testOnly, nil},
		{"identity/storetest", testOnly, []string{"identity", "identity/signing", "threepid", "threepid/validation"}},

		{"internal/browsertest", testOnly, nil},
		{"internal/cmdline", adapter, nil},
		{"internal/cmdtest", testOnly, nil},
		{"internal/conf", adapter, []string{"internal/*"}},
		{"internal/conf/conftest", testOnly, []string{"internal/conf"}},
		{"internal/crowdtest", testOnly, nil},
		{"internal/h2pool", adapter, []string{"internal/*"}},
		{"internal/layers", adapter, nil},
		{"internal/leaktest", testOnly, nil},
		{"internal/mxhttp", adapter, []string{"internal/*"}},
		{"internal/ratelimit", adapter, []string{"internal/*"}},
		{"internal/doctor", adapter, []string{"internal/redisconn"}},
		{"internal/redisconn", adapter, []string{"internal/*"}},
		{"internal/redisconn/redistest", testOnly, []string{"internal/conf", "internal/redisconn"}},
		{"internal/safehttp", adapter, []string{"internal/*"}},
		{"internal/safehttp/safehttptest", testOnly, nil},
		{"internal/serve", adapter, []string{"internal/*"}},
		{"internal/telemetry", adapter, []string{"internal/*"}},

		{"cmd/pushgw", command, []string{"*"}},
		{"cmd/identity", command, []string{"*"}},
	}
}

// outbound adds to an adapter's own imports the leaves that an adapter with a
// connection to the outside may use.
func outbound(own ...string) []string {
	return append(own, "internal/conf", "internal/safehttp", "internal/h2pool")
}

// technology is a group of import paths that only some packages may use.
type technology struct {
	name  string
	paths []string // an import path, or with a trailing "/" everything below it
	in    []string // packages, as in pkg.imports; commands may use all but gin
	tests bool     // tests are held to it as well
}

// technologies lists what must stay where it is known.
func technologies() []technology {
	return []technology{
		{
			name:  "gin",
			paths: []string{"github.com/gin-gonic/", "github.com/gin-contrib/"},
			in:    []string{"internal/mxhttp", "push/httpapi", "identity/httpapi"},
			tests: true,
		},
		{
			name: "SQL",
			paths: []string{
				"database/sql", "database/sql/", "github.com/jackc/", "github.com/exaring/",
				"github.com/pressly/goose/", "modernc.org/sqlite", "modernc.org/sqlite/",
			},
			in: []string{"identity/sqlstore", "identity/sydent"},
		},
		{
			name:  "Redis",
			paths: []string{"github.com/redis/"},
			in:    []string{"internal/redisconn", "internal/redisconn/redistest", "internal/ratelimit", "push/redisstore"},
		},
		{
			name:  "YAML",
			paths: []string{"github.com/goccy/go-yaml", "github.com/goccy/go-yaml/"},
			in:    []string{"internal/conf", "push/sygnal"},
		},
		{
			name:  "the APNs client",
			paths: []string{"github.com/sideshow/apns2", "github.com/sideshow/apns2/"},
			in:    []string{"push/apns"},
		},
		{
			name:  "Google's SDK",
			paths: []string{"firebase.google.com/", "cloud.google.com/", "google.golang.org/api/"},
			in:    []string{"push/fcm"},
		},
		{
			name:  "OAuth",
			paths: []string{"golang.org/x/oauth2", "golang.org/x/oauth2/"},
			in:    []string{"push/fcm", "threepid/email"},
		},
		{
			name:  "the mail client",
			paths: []string{"net/smtp", "github.com/wneessen/go-mail", "github.com/wneessen/go-mail/"},
			in:    []string{"threepid/email"},
		},
	}
}

// testLibraries lists what code outside tests and test-only packages must not link.
func testLibraries() []string {
	return []string{
		"testing", "testing/", "net/http/httptest", "github.com/google/go-cmp/", "go.uber.org/goleak",
		"github.com/alicebob/miniredis/", "github.com/getkin/kin-openapi/", "github.com/chromedp/",
		"github.com/emersion/go-smtp", "github.com/miekg/dns",
	}
}

// domainLibraries lists the only foreign imports of a domain package: values and
// algorithms, no connection to anything.
func domainLibraries() []string {
	return []string{
		"github.com/prometheus/client_golang/", "github.com/google/uuid", "github.com/nyaruka/phonenumbers",
		"github.com/cenkalti/backoff/", "github.com/failsafe-go/failsafe-go", "github.com/failsafe-go/failsafe-go/",
		"github.com/go-json-experiment/json", "github.com/go-json-experiment/json/jsontext", "golang.org/x/",
	}
}

// family returns the folders that the tests of a package may import beside what
// its code may: those of the same service, so that they run against the real
// neighbours instead of mocks.
func family(path string) []string {
	switch top, _, _ := strings.Cut(path, "/"); top {
	case "push":
		return []string{"push", "push/*", "internal/*"}
	case "threepid", "identity":
		return []string{"identity", "identity/*", "threepid", "threepid/*", "internal/*"}
	default:
		return nil
	}
}

// matches reports whether one of the patterns of the table covers path.
func matches(patterns []string, path string) bool {
	for _, p := range patterns {
		if p == "*" || p == path {
			return true
		}
		if dir, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(path, dir) {
			return true
		}
	}
	return false
}

// covers reports whether one of the import paths of a technology is path or,
// ending in a slash, a folder above it.
func covers(paths []string, path string) bool {
	for _, p := range paths {
		if p == path || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}
