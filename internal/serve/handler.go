package serve

import (
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

const (
	// maxScrapes bounds the simultaneous requests for metrics.
	maxScrapes = 4
	// scrapeTimeout bounds each of them.
	scrapeTimeout = 10 * time.Second
)

// apiHandler puts /health, /ready and /version before the API. Other paths reach
// the API exactly as they came, which http.ServeMux would not leave them.
func apiHandler(o Options, h *Health) http.Handler {
	health, ready := readOnly(h.serveHealth), readOnly(h.serveReady)
	version := readOnly(h.serveVersion(o.Name, o.Version))
	return lastResponse(h, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/health":
			health(w, r)
		case "/ready":
			ready(w, r)
		case "/version":
			version(w, r)
		default:
			o.Handler.ServeHTTP(w, r)
		}
	}))
}

// adminHandler serves administrators. The paths of the API's health work here,
// too.
func adminHandler(o Options, h *Health) http.Handler {
	paths := map[string]http.HandlerFunc{
		"/version": readOnly(h.serveVersion(o.Name, o.Version)),
		"/metrics": readOnly(promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
			MaxRequestsInFlight: maxScrapes,
			Timeout:             scrapeTimeout,
		}).ServeHTTP),
		"/debug/pprof/cmdline": readOnly(pprof.Cmdline),
		"/debug/pprof/profile": readOnly(pprof.Profile),
		"/debug/pprof/symbol":  pprof.Symbol, // takes POST
		"/debug/pprof/trace":   readOnly(pprof.Trace),
	}
	for _, path := range []string{"/health", "/healthz"} {
		paths[path] = readOnly(h.serveHealth)
	}
	for _, path := range []string{"/ready", "/readyz"} {
		paths[path] = readOnly(h.serveReady)
	}
	profiles := readOnly(pprof.Index)
	return lastResponse(h, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if serve, ok := paths[r.URL.Path]; ok {
			serve(w, r)
		} else if strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
			profiles(w, r)
		} else {
			unrecognized(w, http.StatusNotFound, "Unrecognized request: there is no such endpoint")
		}
	}))
}

// readOnly refuses methods other than GET and HEAD.
func readOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			unrecognized(w, http.StatusMethodNotAllowed, "Unrecognized request: this endpoint takes only GET")
			return
		}
		next(w, r)
	}
}

func unrecognized(w http.ResponseWriter, status int, msg string) {
	// The only possible error is that of a client which has gone.
	_ = mxhttp.WriteError(w, &mxhttp.Error{Status: status, Code: "M_UNRECOGNIZED", Msg: msg})
}

// lastResponse makes each response the last one on its connection once the
// service is draining, so that clients open their next connection elsewhere.
// HTTP/2 turns the header into GOAWAY.
func lastResponse(h *Health, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lw := &lastWriter{ResponseWriter: w, health: h}
		next.ServeHTTP(lw, r)
		lw.begin()
	})
}

// lastWriter looks at the health at the last moment: a response that began
// before draining may end after it.
type lastWriter struct {
	http.ResponseWriter

	health *Health
	begun  bool
}

func (w *lastWriter) begin() {
	if !w.begun {
		w.begun = true
		if w.health.Draining() {
			w.Header().Set("Connection", "close")
		}
	}
}

// WriteHeader implements [http.ResponseWriter].
func (w *lastWriter) WriteHeader(status int) {
	if status >= http.StatusOK { // others are not the response yet
		w.begin()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *lastWriter) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b) //nolint:wrapcheck // a plain pass-through
}

// Flush implements [http.Flusher], which gin asks for by assertion.
func (w *lastWriter) Flush() {
	w.begin()
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap serves [http.ResponseController].
func (w *lastWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
