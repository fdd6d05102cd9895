package httpapi

import (
	"net/http"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

type policiesResponse struct {
	// Policies has an object for each policy: its version, and beside it an
	// object for each language.
	Policies map[string]map[string]any `json:"policies"`
}

type policyText struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// policies handles GET /_matrix/identity/v2/terms.
func (a *api) policies(w http.ResponseWriter, _ *http.Request) error {
	res := policiesResponse{make(map[string]map[string]any)}
	for _, p := range a.Terms.Policies() {
		policy := make(map[string]any, 1+len(p.Languages))
		for language, text := range p.Languages {
			policy[language] = policyText(text)
		}
		policy["version"] = p.Version
		res.Policies[p.ID] = policy
	}
	return mxhttp.WriteJSON(w, http.StatusOK, res)
}

type acceptTermsRequest struct {
	UserAccepts *[]string `json:"user_accepts"`
}

// acceptTerms handles POST /_matrix/identity/v2/terms.
func (a *api) acceptTerms(w http.ResponseWriter, r *http.Request, by caller) error {
	var req acceptTermsRequest
	if err := mxhttp.ReadJSON(w, r, maxBody, &req); err != nil {
		return err
	}
	if err := require(param{"user_accepts", req.UserAccepts != nil}); err != nil {
		return err
	}
	if err := a.Terms.Accept(r.Context(), by.UserID, *req.UserAccepts); err != nil {
		return err
	}
	return mxhttp.WriteJSON(w, http.StatusOK, empty{})
}
