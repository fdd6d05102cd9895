package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/doctor"
	"github.com/matrix-herald/herald/push"
)

// notifyPath is where homeservers post.
const notifyPath = "/_matrix/push/v1/notify"

// doctor checks the configuration, then asks Redis, the push service of every app,
// and pushgw itself where homeservers reach it if that is named.
func (p *program) doctor(ctx context.Context, f cmdline.Line, args []string) error {
	if len(args) > 1 || len(args) == 1 && !strings.HasPrefix(args[0], "http") {
		fmt.Fprintln(p.stderr, "usage: pushgw -config FILE doctor [https://push.example.org]")
		return cmdline.ErrUsage
	}
	if err := p.check(f); err != nil {
		return err
	}
	cfg, err := loadConfig(f.Config, p.environ)
	if err != nil {
		return err
	}
	shared := newConnections(cfg, slog.New(slog.DiscardHandler), dryRun)
	defer shared.close()
	checks := doctor.Redis(cfg.Redis)
	for _, name := range cfg.appNames() {
		checks = append(checks, doctor.Check{
			Name: fmt.Sprintf("app %s (%s)", name, cfg.Apps[name].Type),
			Look: func(ctx context.Context) (string, error) {
				app, release, err := openApp(name, cfg.Apps[name], shared)
				if err != nil {
					return "", err
				}
				defer release()
				return probeApp(ctx, app)
			},
			Remedy: "the key or the service account, with key_id and team_id; topic, platform and project; " +
				"proxy, ca_file and the firewall: test-push shows the whole answer",
		})
	}
	if len(args) == 1 {
		url := strings.TrimSuffix(strings.TrimRight(args[0], "/"), notifyPath) + notifyPath
		checks = append(checks, doctor.Check{
			Name: url, Look: func(ctx context.Context) (string, error) { return probeNotify(ctx, url, cfg.RootCAs) },
			Remedy: "is pushgw running, and does the proxy pass this very path on? A network may also keep its own machines from its public address",
		})
	}
	return doctor.Run(ctx, p.stdout, checks)
}

// probeApp pushes to a device that there is not. That shows whether the push
// service is reached and takes the app's credentials; whether the topic fits to
// real devices only those show.
func probeApp(ctx context.Context, app push.App) (string, error) {
	key := strings.Repeat("00", 32) // as long as a device token of Apple's
	out := app.Provider.Send(ctx, testDelivery(app.Name, key, "Herald's doctor"))
	answer := "no answer"
	if out.Status != 0 {
		answer = strings.TrimSpace(fmt.Sprintf("answers %d %s", out.Status, out.Detail))
	}
	switch {
	case out.Reason == push.ReasonUnsupported, out.Status == 0 && out.Kind != push.Temporary:
		return "there is nothing to ask without a device", nil
	case out.Kind == push.Temporary && out.Err != nil:
		return "", fmt.Errorf("%s (%s): %w", answer, out.Reason, out.Err)
	case out.Kind == push.Temporary:
		return "", fmt.Errorf("%s (%s)", answer, out.Reason)
	}
	saw := answer + " to a made-up device, so it takes the credentials"
	if !app.CertificateExpiry.IsZero() {
		saw += "; the certificate ends on " + app.CertificateExpiry.UTC().Format(time.DateOnly)
	}
	return saw, nil
}

// dryRun has FCM, or Push Kit before its v3, look at a message and deliver nothing,
// should the device exist after all.
func dryRun(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if !strings.HasSuffix(r.URL.Path, "/messages:send") {
			return next.RoundTrip(r)
		}
		var message map[string]any
		err := json.NewDecoder(r.Body).Decode(&message)
		if err := errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
		if message["message"] != nil {
			message["validate_only"] = true
		}
		data, err := json.Marshal(message)
		if err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		return next.RoundTrip(r)
	})
}

// probeNotify looks for pushgw at its public URL: it refuses a GET in words of
// Matrix, or answers one as UnifiedPush's discovery has it.
func probeNotify(ctx context.Context, url string, roots *x509.CertPool) (string, error) {
	status, body, err := doctor.Get(ctx, url, roots)
	switch {
	case err != nil:
		return "", err
	case status == http.StatusMethodNotAllowed && strings.Contains(body, "M_UNRECOGNIZED"), status == http.StatusOK && strings.Contains(body, "unifiedpush"):
		return "pushgw answers", nil
	default:
		return "", fmt.Errorf("something else answers %d", status)
	}
}
