package safehttp_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/internal/safehttp"
	"github.com/matrix-herald/herald/internal/safehttp/safehttptest"
)

// countdown redirects from /n to /n-1 and answers at /0.
func countdown(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil || n == 0 {
		_, _ = io.WriteString(w, "arrived by "+r.Method)
		return
	}
	http.Redirect(w, r, fmt.Sprintf("/%d", n-1), http.StatusTemporaryRedirect)
}

func TestRedirectsAreCounted(t *testing.T) {
	t.Parallel()
	srv := plainServer(t, countdown)
	tests := map[string]struct {
		method     string
		max, hops  int
		wantStatus int
		wantErr    error
	}{
		"as many as allowed are followed":        {http.MethodGet, 5, 5, 200, nil},
		"one more is an error":                   {http.MethodGet, 5, 6, 0, safehttp.ErrRedirect},
		"with none allowed the redirect returns": {http.MethodGet, 0, 1, 307, nil},
		"a HEAD is redirected":                   {http.MethodHead, 5, 1, 200, nil},
		"a POST is never redirected":             {http.MethodPost, 5, 1, 307, nil},
		"a PUT is never redirected":              {http.MethodPut, 5, 1, 307, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, safehttp.Options{AllowNets: loopback(), MaxRedirects: tc.max})
			status, _, err := exchange(c.Do(request(t, tc.method, fmt.Sprintf("%s/%d", srv.URL, tc.hops), nil)))
			if tc.wantErr != nil {
				wantError(t, err, tc.wantErr)
				return
			}
			if err != nil || status != tc.wantStatus {
				t.Errorf("got %d %v, want %d", status, err, tc.wantStatus)
			}
		})
	}
}

// Conformance (attacks): redirects to private addresses, to http, without end | each is checked; five at most, none where the specification has none (also TestRedirectsAreCounted)
func TestEveryRedirectIsChecked(t *testing.T) {
	t.Parallel()
	ca := safehttptest.NewCA(t)
	plain := plainServer(t, countdown)
	srv := ca.Server(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(http.StatusFound)
	}), "127.0.0.1")
	location := srv.URL + "/?token=" + secret + "&to="
	ns := safehttptest.NewDNS(t)
	ns.Host("metadata.example", "169.254.169.254")
	opts := safehttp.Options{AllowNets: loopback(), MaxRedirects: 5, RootCAs: ca.Pool(), Resolver: ns.Resolver()}
	tests := map[string]struct {
		to   string
		want error
	}{
		"to the metadata service":        {"https://169.254.169.254/latest", safehttp.ErrBlocked},
		"to a name of a private address": {"https://metadata.example/", safehttp.ErrBlocked},
		"from https to http":             {plain.URL, safehttp.ErrScheme},
		"to a file":                      {"file:///etc/passwd", safehttp.ErrScheme},
		"to itself without end":          {"", safehttp.ErrRedirect},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := location + tc.to
			if tc.to == "" {
				loop := ca.Server(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, r.URL.String(), http.StatusFound)
				}), "127.0.0.1")
				target = loop.URL + "/?token=" + secret
			}
			_, _, err := get(t, newClient(t, opts), target)
			wantError(t, err, tc.want)
		})
	}
}

func TestARedirectDoesNotCarryTheFormerURLOrCredentials(t *testing.T) {
	t.Parallel()
	var got http.Header
	end := plainServer(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() })
	// Another host name, because http.Client keeps credentials on one host.
	other := strings.Replace(end.URL, "127.0.0.1", "other.example", 1)
	start := plainServer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusFound) })
	ns := safehttptest.NewDNS(t)
	ns.Host("other.example", "127.0.0.1")
	c := newClient(t, safehttp.Options{AllowNets: loopback(), MaxRedirects: 1, Resolver: ns.Resolver()})
	req := request(t, http.MethodGet, start.URL+"/?access_token="+secret, nil)
	req.Header.Set("Authorization", "Bearer "+secret)
	if _, _, err := exchange(c.Do(req)); err != nil {
		t.Fatal(err)
	}
	if got == nil || strings.Contains(fmt.Sprint(got), secret) {
		t.Errorf("the second host received %v", got)
	}
}

func TestDoAtConnectsElsewhereButKeepsNameAndHost(t *testing.T) {
	t.Parallel()
	ca := safehttptest.NewCA(t)
	echo := func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Host, r.TLS.ServerName) }
	srv := ca.Server(t, "127.0.0.1:0", http.HandlerFunc(echo), "matrix.example")
	wrong := ca.Server(t, "127.0.0.1:0", http.HandlerFunc(echo), "target.example")
	ns := safehttptest.NewDNS(t)
	ns.Host("target.example", "127.0.0.1")
	c := newClient(t, safehttp.Options{AllowNets: loopback(), RootCAs: ca.Pool(), Resolver: ns.Resolver()})

	at := func(t *testing.T, addr string) (string, error) {
		req := request(t, http.MethodGet, "https://matrix.example:8448/", nil)
		req.Host = "matrix.example"
		_, body, err := exchange(c.DoAt(req, addr))
		return body, err
	}
	t.Run("the certificate must hold the name in the URL", func(t *testing.T) {
		_, err := at(t, fmt.Sprintf("target.example:%d", safehttptest.Port(wrong)))
		if err == nil || !strings.Contains(err.Error(), "certificate is for another name") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the guard checks the address", func(t *testing.T) {
		_, err := at(t, "10.0.0.1:443")
		wantError(t, err, safehttp.ErrBlocked)
	})
	t.Run("host header and server name are kept", func(t *testing.T) {
		body, err := at(t, fmt.Sprintf("target.example:%d", safehttptest.Port(srv)))
		if err != nil || body != "matrix.example matrix.example" {
			t.Errorf("got %q %v", body, err)
		}
	})
}

func TestDoAtTakesADetourForItsOwnHostOnly(t *testing.T) {
	t.Parallel()
	end := plainServer(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	start := plainServer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, end.URL, http.StatusFound) })
	c := newClient(t, safehttp.Options{AllowNets: loopback(), MaxRedirects: 1})
	req := request(t, http.MethodGet, "http://start.example", nil) // port 80 is understood
	_, body, err := exchange(c.DoAt(req, strings.TrimPrefix(start.URL, "http://")))
	if err != nil || "http://"+body != end.URL {
		t.Errorf("got %q %v, want the server at %s", body, err, end.URL)
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	t.Parallel()
	ca, stranger := safehttptest.NewCA(t), safehttptest.NewCA(t)
	roots, err := safehttp.LoadRootCAs(ca.File(t))
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, safehttp.Options{AllowNets: loopback(), RootCAs: roots})
	tests := map[string]struct {
		srv  *httptest.Server
		want string
	}{
		"a certificate for the address is accepted": {ca.Server(t, "127.0.0.1:0", http.NotFoundHandler(), "127.0.0.1"), ""},
		"a certificate for another name is not":     {ca.Server(t, "127.0.0.1:0", http.NotFoundHandler(), "a.example"), "another name"},
		"a certificate of a stranger is not":        {stranger.Server(t, "127.0.0.1:0", http.NotFoundHandler(), "127.0.0.1"), "unknown authority"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := get(t, c, tc.srv.URL)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestLoadRootCAsRefusesFilesWithoutCertificates(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"redirect_test.go", "missing.pem"} {
		if _, err := safehttp.LoadRootCAs(path); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
}
