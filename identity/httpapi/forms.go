package httpapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

// formToo lets a handler of JSON take a form as well, which the specification
// allows some endpoints for compatibility.
func formToo(h accountHandler) accountHandler {
	return func(w http.ResponseWriter, r *http.Request, by caller) error {
		form, err := readForm(w, r)
		if err != nil {
			return err
		}
		if form != nil {
			params := make(map[string]jsontext.Value)
			if err := addParams(params, form); err != nil {
				return err
			}
			if err := setBody(r, params); err != nil {
				return err
			}
		}
		return h(w, r, by)
	}
}

// readForm reads the body of a request if it is a form. It returns nil, and leaves
// the body as it is, if it is not; what calls itself a form may be JSON.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	// The second is how the specification spells it.
	if mediaType != "application/x-www-form-urlencoded" && mediaType != "application/x-form-www-urlencoded" {
		return nil, nil
	}
	body := bufio.NewReader(r.Body)
	first, _ := body.Peek(1) // an error comes again
	r.Body = io.NopCloser(body)
	if string(first) == "{" {
		return nil, nil
	}
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &mxhttp.Error{Status: http.StatusRequestEntityTooLarge, Code: "M_TOO_LARGE", Msg: "The form is too large"}
	}
	form, malformed := url.ParseQuery(string(content))
	if errors.Join(err, malformed) != nil {
		return nil, invalidParam("The form is malformed")
	}
	return form, nil
}

// addParams adds the values that params do not have yet, the first of each name,
// as JSON.
func addParams(params map[string]jsontext.Value, values url.Values) (err error) {
	for name := range values {
		if p := params[name]; len(p) > 0 && p.Kind() != 'n' {
			continue
		}
		if params[name], err = jsontext.AppendQuote(nil, values.Get(name)); err != nil {
			return invalidParam("The parameters are not valid UTF-8")
		}
	}
	return nil
}

// setBody makes params the body of a request.
func setBody(r *http.Request, params map[string]jsontext.Value) error {
	content, err := json.Marshal(params)
	if err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(content)), int64(len(content))
	return nil
}
