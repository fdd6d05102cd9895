package sms

import (
	"encoding/json"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/matrix-herald/herald/internal/conf"
)

func (c WebhookConfig) validate(path string, p *conf.Problems) {
	if c.Method != "" && !slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodGet}, c.Method) {
		p.Add(path+".method", c.Method, "must be POST, PUT or GET")
	}
	if c.Method == http.MethodGet && c.Body != "" {
		p.Add(path+".body", nil, "must not be there with method GET")
	}
	for _, status := range c.SuccessStatus {
		if status < 200 || status > 599 {
			p.Add(path+".success_status", status, "must be a status code of HTTP")
		}
	}
	if strings.ContainsFunc(c.Secret.Reveal(), unicode.IsControl) {
		p.Add(path+".secret", nil, "must be one line")
	}
	networks, err := parseNetworks(c.AllowNetworks)
	if err != nil {
		p.Add(path+".allow_networks", nil, "must be networks such as 10.0.0.0/8")
	}
	if c.URL == "" {
		p.Add(path+".url", nil, "is missing: where the gateway takes messages")
		return
	}
	if u, err := url.Parse(c.URL); err == nil && u.Scheme != "https" && (u.Scheme != "http" || len(networks) == 0) {
		p.Add(path+".url", nil, "must be an https URL; http only for a private network in allow_networks")
	}
	w, err := c.compile()
	if err != nil {
		p.Add(path, nil, err.Error())
		return
	}
	c.try(w, path, p)
}

// try makes a request with characters that need escaping and checks that the
// gateway would read them as they are.
func (c WebhookConfig) try(w *webhook, path string, p *conf.Problems) {
	sample := fields{To: "4915112345678", From: "A&B", Text: "1 \"2\"\n3+4=5&6%7\\ é😀", Secret: "secret"}
	f, err := w.fill(sample)
	if err != nil {
		p.Add(path, nil, "does not work with a sample message: check the fields of url, headers and body, and use {{form .Text}} or {{json .Text}}")
		return
	}
	values := slices.Concat(slices.Collect(maps.Values(f.url.Query()))...)
	if f.body != "" {
		kind, _, _ := mime.ParseMediaType(f.header.Get("Content-Type")) // "" like one that is not known
		switch kind {
		case "application/json":
			var v any
			if err := json.Unmarshal([]byte(f.body), &v); err != nil {
				p.Add(path+".body", nil, "is not JSON once it is filled in: write fields as {{json .Text}}")
				return
			}
			values = append(values, leaves(v)...)
		case "application/x-www-form-urlencoded":
			form, err := url.ParseQuery(f.body)
			if err != nil {
				p.Add(path+".body", nil, "is not a form once it is filled in: write fields as {{form .Text}}")
				return
			}
			values = append(values, slices.Concat(slices.Collect(maps.Values(form))...)...)
		default: // the operator knows
			return
		}
	}
	if !slices.Contains(values, sample.Text) {
		p.Add(path, nil, "does not pass on the text: write {{json .Text}} in JSON or {{form .Text}} in a form or query")
	}
}

// leaves returns the strings in a JSON value.
func leaves(v any) (all []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, item := range v {
			all = append(all, leaves(item)...)
		}
	case map[string]any:
		for _, item := range v {
			all = append(all, leaves(item)...)
		}
	}
	return all
}
