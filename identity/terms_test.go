package identity_test

import (
	"testing"

	"github.com/matrix-herald/herald/identity"
)

func policies() []identity.Policy {
	return []identity.Policy{
		{ID: "privacy", Version: "1.2", Languages: map[string]identity.PolicyText{
			"en": {Name: "Privacy", URL: "https://example.org/privacy-1.2-en"},
			"de": {Name: "Datenschutz", URL: "https://example.org/privacy-1.2-de"},
		}},
		{ID: "terms", Version: "2", Languages: map[string]identity.PolicyText{
			"en": {Name: "Terms", URL: "https://example.org/terms-2-en"},
			"de": {Name: "Bedingungen", URL: "https://example.org/terms-2-de"},
		}},
	}
}

// Conformance (terms): accepted is a user who accepted every policy in at least one language, in one request or several, with any token (also TestTermsAreAcceptedPieceByPiece)
// Conformance (terms): one accepted URL of any policy (what ma1sd takes) | is not enough
func TestTermsAreAcceptedPolicyByPolicy(t *testing.T) {
	t.Parallel()
	const base = "https://example.org/"
	for name, c := range map[string]struct {
		posts [][]string
		want  bool
	}{
		"nothing":                       {nil, false},
		"an empty list":                 {[][]string{{}}, false},
		"one policy in both languages":  {[][]string{{base + "privacy-1.2-en", base + "privacy-1.2-de"}}, false},
		"both in one language":          {[][]string{{base + "privacy-1.2-en", base + "terms-2-en"}}, true},
		"both, each in another":         {[][]string{{base + "privacy-1.2-en", base + "terms-2-de"}}, true},
		"one after the other":           {[][]string{{base + "privacy-1.2-en"}, {base + "terms-2-en"}}, true},
		"one more than once":            {[][]string{{base + "terms-2-en", base + "terms-2-en"}, {base + "terms-2-en"}}, false},
		"what is no policy":             {[][]string{{base + "other", ""}}, false},
		"what is no policy beside both": {[][]string{{base + "privacy-1.2-en", base + "other", base + "terms-2-en"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			terms, err := identity.NewTerms(identity.TermsOptions{Policies: policies(), Store: s.db, Now: s.clock.Now})
			if err != nil {
				t.Fatal(err)
			}
			for _, urls := range c.posts {
				if err := terms.Accept(t.Context(), "@a:example.org", urls); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := terms.Accepted(t.Context(), "@a:example.org"); err != nil || got != c.want {
				t.Errorf("got %v, %v; want %v", got, err, c.want)
			}
			if got, err := terms.Accepted(t.Context(), "@b:example.org"); err != nil || got {
				t.Errorf("another user: got %v, %v; want false", got, err)
			}
			kept, err := s.db.AcceptedTerms(t.Context(), "@a:example.org")
			if err != nil {
				t.Fatal(err)
			}
			for _, url := range kept {
				if url == "" || url == base+"other" {
					t.Errorf("stored the unknown URL %q", url)
				}
			}
		})
	}
}

func TestWithoutPoliciesEverybodyHasAccepted(t *testing.T) {
	t.Parallel()
	s := newService(t)
	terms, err := identity.NewTerms(identity.TermsOptions{Store: s.db, Now: s.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := terms.Accepted(t.Context(), "@a:example.org"); err != nil || !got {
		t.Errorf("got %v, %v", got, err)
	}
	if n := len(terms.Policies()); n != 0 {
		t.Errorf("%d policies", n)
	}
}

// Conformance (terms): acceptance is of URLs; a new URL has to be accepted
func TestANewVersionHasToBeAccepted(t *testing.T) {
	t.Parallel()
	s := newService(t)
	accepted := func(p []identity.Policy, urls ...string) bool {
		terms, err := identity.NewTerms(identity.TermsOptions{Policies: p, Store: s.db, Now: s.clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		if err := terms.Accept(t.Context(), "@a:example.org", urls); err != nil {
			t.Fatal(err)
		}
		ok, err := terms.Accepted(t.Context(), "@a:example.org")
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	p := policies()[:1]
	if !accepted(p, "https://example.org/privacy-1.2-en") {
		t.Fatal("not accepted at first")
	}
	p[0].Version = "1.3"
	if !accepted(p) {
		t.Error("a version with the same text asks again: URLs identify texts")
	}
	p[0].Languages = map[string]identity.PolicyText{"en": {Name: "Privacy", URL: "https://example.org/privacy-1.3-en"}}
	if accepted(p) {
		t.Error("a new text counts as accepted")
	}
}

func TestPoliciesThatAreRefused(t *testing.T) {
	t.Parallel()
	en := map[string]identity.PolicyText{"en": {Name: "n", URL: "u"}}
	for name, p := range map[string][]identity.Policy{
		"no ID":         {{Version: "1", Languages: en}},
		"no version":    {{ID: "a", Languages: en}},
		"no language":   {{ID: "a", Version: "1"}},
		"no URL":        {{ID: "a", Version: "1", Languages: map[string]identity.PolicyText{"en": {Name: "n"}}}},
		"no name":       {{ID: "a", Version: "1", Languages: map[string]identity.PolicyText{"en": {URL: "u"}}}},
		"one ID, twice": {{ID: "a", Version: "1", Languages: en}, {ID: "a", Version: "2", Languages: en}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			if _, err := identity.NewTerms(identity.TermsOptions{Policies: p, Store: s.db, Now: s.clock.Now}); err == nil {
				t.Error("accepted")
			}
		})
	}
}
