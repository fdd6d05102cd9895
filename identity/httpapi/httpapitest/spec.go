// Package httpapitest compares the answers of the Identity Service with the
// OpenAPI files of the Matrix specification, for the tests of its API and of the
// whole program. It sees only what is on the wire.
package httpapitest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

const (
	prefix = "/_matrix/identity/v2"
	// legacyPrefix begins the endpoints of version 1. The specification does not
	// have them any more; what they answer is what those of version 2 do.
	legacyPrefix = "/_matrix/identity/api/v1"
)

// divergence is an answer that the specification's OpenAPI files do not know.
type divergence struct {
	path   string // without the prefix; empty for all
	status int
	reason string
}

// divergences are all of them, each with the reason for it.
func divergences() []divergence {
	return []divergence{
		{"", 401, "the prose (Authentication) has 401 M_UNAUTHORIZED wherever credentials are needed; the files list it for logout only"},
		{"", 413, "the prose knows no limits; M_TOO_LARGE is the Client-Server API's answer"},
		{"", 429, "the prose knows no limits; M_LIMIT_EXCEEDED is the Client-Server API's answer"},
		{"", 500, "a fault of ours"},
		{"", 503, "the database is away, or the service has no memory for the request: worth trying again"},
		{"/account/register", 400, "the prose (API standards) wants a JSON object; a missing member is M_MISSING_PARAMS"},
		{"/account/register", 502, "the files have no answer for a homeserver that cannot be reached"},
		{"/account/register", 403, "a homeserver that may not use the service is M_FORBIDDEN"},
		{"/terms", 403, "a homeserver that may not use the service is M_FORBIDDEN"},
		{"/terms", 400, "the prose (API standards) wants a JSON object; a missing member is M_MISSING_PARAMS"},
		{"/pubkey/isvalid", 400, "public_key is required; without it M_MISSING_PARAMS"},
		{"/pubkey/ephemeral/isvalid", 400, "public_key is required; without it M_MISSING_PARAMS"},
		{"/sign-ed25519", 400, "the prose (API standards) wants a JSON object; a missing member is M_MISSING_PARAMS, a bad one M_INVALID_PARAM"},
		{"/3pid/unbind", 502, "the files have no answer for a homeserver that cannot be reached"},
		{"/hash_details", 403, "the prose (Terms of service) has M_TERMS_NOT_SIGNED on every endpoint with authentication"},
		{"/lookup", 403, "the prose (Terms of service) has M_TERMS_NOT_SIGNED on every endpoint with authentication"},
	}
}

func diverges(path string, status int) bool {
	return slices.ContainsFunc(divergences(), func(d divergence) bool {
		return d.status == status && (d.path == "" || d.path == path)
	})
}

// extensions are the endpoints that the files do not know. The lookups are those
// of version 1.
func extensions() []string {
	return []string{"/validate/email/confirm", "/validate/msisdn/confirm", "/lookup", "/bulk_lookup", "/.well-known/matrix/server"}
}

// ownPrefix begins the endpoints that are none of the specification's business.
const ownPrefix = "/_matrix/identity/herald/"

// Check holds an answer to r, body in full, against the OpenAPI files in the
// folder MATRIX_SPEC_DIR, by default a copy of the specification beside the
// repository, and fails the test if they have another one. Where there are no
// files it says so in the test's log and does nothing else. Answers to HEAD and
// OPTIONS, and those of our own endpoints, are not in the files.
func Check(t testing.TB, r *http.Request, status int, header http.Header, body []byte) {
	t.Helper()
	all, err := specification()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Log("no copy of the specification in MATRIX_SPEC_DIR: answers are not held against it")
		return
	}
	if r.Method == http.MethodOptions || r.Method == http.MethodHead || strings.HasPrefix(r.URL.Path, ownPrefix) {
		return
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, legacyPrefix); ok {
		if status == http.StatusNotFound || status == http.StatusMethodNotAllowed {
			return // it may be switched off
		}
		r = r.Clone(r.Context())
		r.URL.Path = prefix + rest
	}
	path := strings.TrimPrefix(r.URL.Path, prefix)
	where := fmt.Sprintf("%s %s: %d %s", r.Method, r.URL.Path, status, body)
	route, params := find(all, r)
	if route == nil {
		if !slices.Contains(extensions(), path) && status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
			t.Errorf("%s: not an endpoint of the specification", where)
		}
		return
	}
	options := &openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, MultiError: true,
	}
	err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: r, PathParams: params, Route: route, Options: options,
		},
		Status: status, Header: header, Options: options, Body: io.NopCloser(bytes.NewReader(body)),
	})
	if err != nil && !diverges(path, status) {
		t.Errorf("%s: %v", where, err)
	}
}

// Endpoints returns "METHOD /path" of every endpoint in the OpenAPI files,
// in order; none where there are no files.
func Endpoints(t testing.TB) []string {
	t.Helper()
	all, err := specification()
	if err != nil {
		t.Fatal(err)
	}
	var endpoints []string
	for _, s := range all {
		for path, item := range s.doc.Paths.Map() {
			for method := range item.Operations() {
				endpoints = append(endpoints, method+" "+s.base+path)
			}
		}
	}
	slices.Sort(endpoints)
	return endpoints
}

// find returns the specification of the endpoint, nil if there is none.
func find(all []file, r *http.Request) (*routers.Route, map[string]string) {
	for _, f := range all {
		if route, params, err := f.router.FindRoute(r); err == nil {
			return route, params
		}
	}
	return nil, nil
}

// file is one file of the specification.
type file struct {
	doc    *openapi3.T
	base   string // before its paths
	router routers.Router
}

// specification loads the files once.
var specification = sync.OnceValues(func() ([]file, error) {
	dir := os.Getenv("MATRIX_SPEC_DIR")
	if dir == "" {
		root, err := repository()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(filepath.Dir(root), "shared", "spec")
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "data", "api", "identity", "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s does not hold the specification", dir)
	}
	var all []file
	for _, name := range names {
		f, err := load(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, f)
	}
	return all, nil
})

func load(name string) (f file, err error) {
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	if f.doc, err = loader.LoadFromFile(name); err != nil {
		return f, err
	}
	base, err := url.Parse(f.doc.Servers[0].Variables["basePath"].Default)
	if err != nil {
		return f, err
	}
	f.base = base.Path
	f.doc.Servers = openapi3.Servers{{URL: f.base}}
	f.router, err = gorillamux.NewRouter(f.doc)
	return f, err
}

// repository returns the folder of go.mod, in or above that of the test.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("there is no go.mod")
		}
		dir = parent
	}
}
