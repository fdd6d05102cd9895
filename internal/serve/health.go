package serve

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/matrix-herald/herald/internal/mxhttp"
)

const (
	// probeBudget is the time all checks together may take.
	probeBudget = 2 * time.Second
	// probeEvery is the least time between two rounds of checks: anybody may
	// ask /ready as often as they like.
	probeEvery = time.Second
)

// draining is the reason for which a service on its way out is not ready.
const draining = "draining"

// Check is one thing a service needs to be ready, such as its database.
type Check struct {
	// Name stands for the check in the answer of /ready, which is public.
	Name string
	// Probe returns nil if all is well. It must return when its context ends,
	// which is at most 2 s after its start. Its error is logged; of its text only
	// what a method PublicReason returns is told.
	Probe func(context.Context) error
}

// reasoned is an error that says in words for everybody what is wrong.
type reasoned interface {
	error
	PublicReason() string
}

// Health is the state that /health and /ready report, the same on every
// listener.
type Health struct {
	log      *slog.Logger
	checks   []Check
	draining atomic.Bool

	mu      sync.Mutex // held during a round, so that there is one at a time
	reasons []string   // the names of the checks that failed in the last round
	checked time.Time
}

// NewHealth returns the health of a service that is ready when all checks are
// well. Changes are logged to log.
func NewHealth(log *slog.Logger, checks ...Check) *Health {
	return &Health{log: log, checks: checks}
}

// Drain makes the service unready for good.
func (h *Health) Drain() { h.draining.Store(true) }

// Draining reports whether Drain was called.
func (h *Health) Draining() bool { return h.draining.Load() }

// Reasons returns why the service is not ready: the names of failed checks with
// their reasons, or "draining". It returns nil when the service is ready. Answers may be a second
// old.
func (h *Health) Reasons(ctx context.Context) []string {
	if h.Draining() {
		return []string{draining}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.checked.IsZero() && time.Since(h.checked) < probeEvery {
		return h.reasons
	}
	before := len(h.reasons)
	h.reasons = h.probe(ctx)
	h.checked = time.Now()
	if before > 0 && len(h.reasons) == 0 {
		h.log.InfoContext(ctx, "ready again")
	}
	return h.reasons
}

// probe runs all checks side by side and returns the names of those that failed,
// in order.
func (h *Health) probe(ctx context.Context) []string {
	// Others will read the result, so the asker's leaving must not spoil it.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), probeBudget,
		errors.New("the check took longer than 2 s"))
	defer cancel()
	errs := make([]error, len(h.checks))
	var wg sync.WaitGroup
	for i, c := range h.checks {
		wg.Go(func() { errs[i] = c.Probe(ctx) })
	}
	wg.Wait()
	var failed []string
	for i, err := range errs {
		if err != nil {
			reason := h.checks[i].Name
			if why, ok := errors.AsType[reasoned](err); ok {
				reason += ": " + why.PublicReason()
			}
			failed = append(failed, reason)
			if !slices.Contains(h.reasons, reason) { // else it is known
				h.log.WarnContext(ctx, "not ready", "check", h.checks[i].Name, "err", err)
			}
		}
	}
	return failed
}

// serveHealth answers that the process is alive.
func (h *Health) serveHealth(w http.ResponseWriter, r *http.Request) {
	h.write(w, r, http.StatusOK, statusResponse{Status: "ok"})
}

// serveReady answers whether requests should be sent here.
func (h *Health) serveReady(w http.ResponseWriter, r *http.Request) {
	if reasons := h.Reasons(r.Context()); len(reasons) > 0 {
		h.write(w, r, http.StatusServiceUnavailable, statusResponse{Status: "unavailable", Reasons: reasons})
		return
	}
	h.write(w, r, http.StatusOK, statusResponse{Status: "ok"})
}

type statusResponse struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"`
}

type versionResponse struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Go      string `json:"go"`
}

func (h *Health) serveVersion(name, version string) http.HandlerFunc {
	v := versionResponse{Name: name, Version: version, Go: runtime.Version()}
	return func(w http.ResponseWriter, r *http.Request) { h.write(w, r, http.StatusOK, v) }
}

func (h *Health) write(w http.ResponseWriter, r *http.Request, status int, v any) {
	w.Header().Set("Cache-Control", "no-store")
	if err := mxhttp.WriteJSON(w, status, v); err != nil {
		h.log.DebugContext(r.Context(), "health answer not written", "err", err)
	}
}
