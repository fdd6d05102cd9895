package httpapi_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// divergences are the answers that the specification's OpenAPI files do not
// know, each with the reason for it. An empty path stands for all.
var divergences = []struct {
	path   string
	status int
	reason string
}{
	{"", 401, "the prose (Authentication) has 401 M_UNAUTHORIZED wherever credentials are needed; the files list it for logout only"},
	{"", 413, "the prose knows no limits; M_TOO_LARGE is the Client-Server API's answer"},
	{"", 429, "the prose knows no limits; M_LIMIT_EXCEEDED is the Client-Server API's answer"},
	{"", 500, "a fault of ours"},
	{"/account/register", 400, "the prose (API standards) wants a JSON object; a missing member is M_MISSING_PARAMS"},
	{"/account/register", 502, "the files have no answer for a homeserver that cannot be reached"},
	{"/terms", 400, "the prose (API standards) wants a JSON object; a missing member is M_MISSING_PARAMS"},
	{"/pubkey/isvalid", 400, "public_key is required; without it M_MISSING_PARAMS"},
	{"/pubkey/ephemeral/isvalid", 400, "public_key is required; without it M_MISSING_PARAMS"},
	{"/sign-ed25519", 400, "the prose (API standards) wants a JSON object; a missing member is M_MISSING_PARAMS, a bad one M_INVALID_PARAM"},
	{"/3pid/unbind", 502, "the files have no answer for a homeserver that cannot be reached"},
	{"/hash_details", 403, "the prose (Terms of service) has M_TERMS_NOT_SIGNED on every endpoint with authentication"},
	{"/lookup", 403, "the prose (Terms of service) has M_TERMS_NOT_SIGNED on every endpoint with authentication"},
}

// extensions are the endpoints that the files do not know.
var extensions = []string{"/validate/email/confirm", "/validate/msisdn/confirm"}

// validateAgainstSpec holds an answer against the specification's OpenAPI files
// in the folder MATRIX_SPEC_DIR, by default a copy beside the repository.
// Without them it does nothing.
func validateAgainstSpec(t testing.TB, r *http.Request, a answer) {
	t.Helper()
	all, err := specification()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Log("no copy of the specification in MATRIX_SPEC_DIR: answers are not held against it")
		return
	}
	if r.Method == http.MethodOptions || r.Method == http.MethodHead || strings.HasPrefix(r.URL.Path, "/_matrix/identity/herald/") {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/_matrix/identity/v2")
	where := fmt.Sprintf("%s %s: %d %s", r.Method, r.URL.Path, a.status, a.body)
	route, params := find(all, r)
	if route == nil {
		for _, e := range extensions {
			if e == path {
				return
			}
		}
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
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
		Status: a.status, Header: a.header, Options: options, Body: io.NopCloser(bytes.NewReader(a.body)),
	})
	if err == nil {
		return
	}
	for _, d := range divergences {
		if d.status == a.status && (d.path == "" || d.path == path) {
			return
		}
	}
	t.Errorf("%s: %v", where, err)
}

// find returns the specification of the endpoint, nil if there is none.
func find(all []routers.Router, r *http.Request) (*routers.Route, map[string]string) {
	for _, router := range all {
		if route, params, err := router.FindRoute(r); err == nil {
			return route, params
		}
	}
	return nil, nil
}

// specification loads the files once.
var specification = sync.OnceValues(func() ([]routers.Router, error) {
	dir := os.Getenv("MATRIX_SPEC_DIR")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "spec")
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "data", "api", "identity", "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s does not hold the specification", dir)
	}
	var all []routers.Router
	for _, file := range files {
		loader := openapi3.NewLoader()
		loader.IsExternalRefsAllowed = true
		doc, err := loader.LoadFromFile(file)
		if err != nil {
			return nil, err
		}
		base, err := url.Parse(doc.Servers[0].Variables["basePath"].Default)
		if err != nil {
			return nil, err
		}
		doc.Servers = openapi3.Servers{{URL: base.Path}}
		router, err := gorillamux.NewRouter(doc)
		if err != nil {
			return nil, err
		}
		all = append(all, router)
	}
	return all, nil
})
