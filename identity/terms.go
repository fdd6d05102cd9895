package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Policy is a document that users have to accept, in one or more languages.
type Policy struct {
	ID        string
	Version   string
	Languages map[string]PolicyText // by language tag, such as "en"
}

// PolicyText is a policy in one language.
type PolicyText struct {
	Name string
	URL  string // identifies the text; a new version has a new URL
}

// TermsOptions configure Terms. Store and Now are required.
type TermsOptions struct {
	Policies []Policy // none: nothing has to be accepted
	Store    TermsStore
	Now      func() time.Time
}

// Terms knows which policies there are and who accepted them.
type Terms struct {
	opts TermsOptions
	urls map[string]bool // every URL of every policy
}

// NewTerms returns Terms, or an error if an option is missing, a policy has no
// ID, version, language, name or URL, or two share an ID.
func NewTerms(o TermsOptions) (*Terms, error) {
	if o.Store == nil || o.Now == nil {
		return nil, errors.New("identity: terms: an option is missing")
	}
	t := &Terms{opts: o, urls: make(map[string]bool)}
	t.opts.Policies = nil
	ids := make(map[string]bool)
	for _, p := range o.Policies {
		if p.ID == "" || p.Version == "" || len(p.Languages) == 0 {
			return nil, fmt.Errorf("identity: terms: policy %q needs an ID, a version and a language", p.ID)
		}
		if ids[p.ID] {
			return nil, fmt.Errorf("identity: terms: policy %q occurs twice", p.ID)
		}
		ids[p.ID] = true
		for language, text := range p.Languages {
			if text.Name == "" || text.URL == "" {
				return nil, fmt.Errorf("identity: terms: policy %q needs a name and a URL in language %q", p.ID, language)
			}
			t.urls[text.URL] = true
		}
		p.Languages = maps.Clone(p.Languages)
		t.opts.Policies = append(t.opts.Policies, p)
	}
	return t, nil
}

// Policies returns the configured policies. They are the caller's to read only.
func (t *Terms) Policies() []Policy { return t.opts.Policies }

// Accept adds to what the user accepted those urls that belong to a policy, and
// ignores the others.
func (t *Terms) Accept(ctx context.Context, userID string, urls []string) error {
	known := make([]string, 0, min(len(urls), len(t.urls)))
	for _, u := range urls {
		if t.urls[u] && !slices.Contains(known, u) {
			known = append(known, u)
		}
	}
	if len(known) == 0 {
		return nil
	}
	if err := t.opts.Store.AcceptTerms(ctx, userID, known, t.opts.Now()); err != nil {
		return fmt.Errorf("accept terms: %w", err)
	}
	return nil
}

// Accepted reports whether the user accepted every policy, each in at least one
// language (Identity Service API, "Terms of Service").
func (t *Terms) Accepted(ctx context.Context, userID string) (bool, error) {
	if len(t.opts.Policies) == 0 {
		return true, nil
	}
	urls, err := t.opts.Store.AcceptedTerms(ctx, userID)
	if err != nil {
		return false, fmt.Errorf("accepted terms: %w", err)
	}
	for _, p := range t.opts.Policies {
		if !slices.ContainsFunc(urls, p.has) {
			return false, nil
		}
	}
	return true, nil
}

// has reports whether url is the policy in one of its languages.
func (p Policy) has(url string) bool {
	for _, text := range p.Languages {
		if text.URL == url {
			return true
		}
	}
	return false
}
