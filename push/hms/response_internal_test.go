package hms

import (
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/matrix-herald/herald/push"
)

// FuzzResponse reads answers of whoever pretends to be Huawei. Only Huawei's codes
// about a token give a pushkey up, only those about our account speak against that, and
// nothing of an answer is repeated but codes and single words.
func FuzzResponse(f *testing.F) {
	for _, body := range []string{
		``, `<html>`, `null`, `[]`, `{"code":80000000}`, `{"code":"80000000","msg":"Success"}`, `{"code":"80300007","msg":"All the tokens are invalid."}`,
		`{"code":"80300007","msg":"{\"illegalTokens\":{\"tokenFormatError\":[\"x\"],\"noRight\":[\"y\"]},\"failure\":1}"}`,
		`{"code":"80100000","msg":"{\"success\":0,\"failure\":1,\"illegal_tokens\":[\"x\"]}"}`, `{"code":"80100000","msg":"{\"illegal_tokens\":[]}"}`,
		`{"code":"80200001","msg":"Authentication Error."}`, `{"code":"80200005"}`, `{"code":"80100003","msg":"Illegal payload"}`, `{"code":"secret"}`,
	} {
		for _, status := range []int{200, 302, 400, 401, 404, 429, 500, 503} {
			f.Add(status, body, "7", true)
			f.Add(status, body, "", false)
		}
	}
	now, detail := time.Unix(1_800_000_000, 0), regexp.MustCompile(`^(8[0-9]{7}( [A-Za-z]{1,64})?)?$`)
	f.Fuzz(func(t *testing.T, status int, body, retryAfter string, harmonyOS bool) {
		r := parseResponse(status, http.Header{"Retry-After": {retryAfter}}, []byte(body), now)
		out := r.outcome(harmonyOS)
		rejects := r.code == "80300007" || r.code == "80100000" && (r.illegal || harmonyOS)
		if harmonyOS {
			rejects = rejects && (r.reason == "tokenFormatError" || r.reason == "tokenPlatformNotSupport")
		}
		switch {
		case out.Kind == push.Rejected && !rejects, out.Kind == push.Accepted && (status != 200 || r.code != codeSuccess):
			t.Errorf("%d %q: %v", status, body, out.Kind)
		case (rejects || r.code == "") && out.Evidence == push.EvidenceRefused, out.Evidence == push.EvidenceQuota && (status != 503 && status != 429 || out.RetryAfter == 0):
			t.Errorf("%d %q: evidence %d", status, body, out.Evidence)
		case !detail.MatchString(out.Detail):
			t.Errorf("%d %q: tells %q", status, body, out.Detail)
		case out.RetryAfter < 0 || out.RetryAfter > time.Hour:
			t.Errorf("%q: wait %v", retryAfter, out.RetryAfter)
		}
	})
}
