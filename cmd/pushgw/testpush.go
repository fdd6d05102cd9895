package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/matrix-herald/herald/internal/cmdline"
	"github.com/matrix-herald/herald/internal/telemetry"
	"github.com/matrix-herald/herald/push"
)

// testPush sends one notification to one device with the settings of its app,
// and prints what the push service answered and what Herald makes of it.
func (p *program) testPush(ctx context.Context, f cmdline.Line, args []string) error {
	set := flag.NewFlagSet("test-push", flag.ContinueOnError)
	set.SetOutput(p.stderr)
	appID := set.String("app", "", "the device's `app_id`")
	pushKey := set.String("pushkey", "", "the device's `pushkey`")
	data := set.String("data", "{}", "the pusher's data as `JSON`: Web Push needs endpoint and auth")
	body := set.String("body", "This is a test notification", "the message's `text`")
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil || *appID == "" || *pushKey == "" || set.NArg() > 0:
		fmt.Fprintln(p.stderr, "usage: pushgw -config FILE test-push -app APP_ID -pushkey PUSHKEY [-data JSON]")
		return cmdline.ErrUsage
	}
	cfg, err := loadConfig(f.Config, p.environ)
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(p.stderr, cfg.Log)
	if err != nil {
		return err
	}
	name, err := cfg.appFor(*appID)
	if err != nil {
		return err
	}
	var heard answer
	shared := newConnections(cfg, log, heard.listen)
	defer shared.close()
	app, release, err := openApp(name, cfg.Apps[name], shared)
	if err != nil {
		return fmt.Errorf("apps[%q]: %w", name, err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, cfg.Delivery.AttemptTimeout.Std())
	defer cancel()
	start := time.Now()
	d := testDelivery(*appID, *pushKey, *body)
	if err := json.Unmarshal([]byte(*data), &d.Device.Data); err != nil {
		return errors.New("test-push: -data is no JSON object")
	}
	app = *app.For(d.Device)
	out := app.Provider.Send(ctx, d)
	if out.Reason == push.ReasonNothingToSend { // a VoIP topic carries calls alone
		d.Notification.Type = push.NewText("m.call.invite")
		out = app.Provider.Send(ctx, d)
	}
	took := time.Since(start)
	heard.print(p.stdout)
	return p.printOutcome(app, d.Device, out, took)
}

// appFor returns the name of the app that is configured for an app_id.
func (c *Config) appFor(appID string) (string, error) {
	var names []push.App
	for _, name := range c.appNames() {
		names = append(names, push.App{Name: name})
	}
	apps, err := push.NewApps(names)
	if err != nil {
		return "", err
	}
	found := apps.Find(appID)
	if found == nil {
		return "", fmt.Errorf("no app is configured for the app_id %q", appID)
	}
	return found.Name, nil
}

// answer is what the push service answered, in full: it is shown to the person
// who sent the test, and to nobody else.
type answer struct {
	status string
	header http.Header
	body   []byte
}

// maxHeard bounds what is shown of an answer's body, in bytes.
const maxHeard = 16 << 10

// listen returns a transport that notes the last answer.
func (a *answer) listen(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		a.status, a.header = res.Status, res.Header.Clone()
		body, err := io.ReadAll(io.LimitReader(res.Body, maxHeard))
		if err != nil {
			return nil, errors.Join(err, res.Body.Close())
		}
		a.body = body
		res.Body = struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(body), res.Body}
		return res, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (a *answer) print(w io.Writer) {
	if a.status == "" {
		return
	}
	fmt.Fprintf(w, "%s\n", a.status)
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		fmt.Fprintf(w, "%s: %s\n", name, quoted(strings.Join(a.header[name], ", ")))
	}
	for line := range strings.Lines(string(a.body)) {
		fmt.Fprintf(w, "  %s\n", printable(strings.TrimRight(line, "\r\n")))
	}
	fmt.Fprintln(w)
}

func testDelivery(appID, pushKey, body string) push.Delivery {
	unread := int64(1)
	return push.Delivery{
		ID: uuid.NewString(),
		Notification: &push.Notification{
			EventID:           push.NewMember("$herald-test-push"),
			Type:              push.NewMember("m.room.message"),
			RoomID:            push.NewMember("!herald-test-push:localhost"),
			RoomName:          push.NewMember("Herald"),
			Sender:            push.NewMember("@herald:localhost"),
			SenderDisplayName: push.NewMember("Herald"),
			Content:           map[string]any{"msgtype": "m.text", "body": body},
			Counts:            push.Counts{Unread: &unread},
		},
		Device: &push.Device{AppID: appID, PushKey: pushKey},
	}
}

// meaning says what a homeserver would be told.
func meaning(out push.Outcome) string {
	switch {
	case out.Kind == push.Accepted:
		return "200: the push service took it"
	case out.Reason == push.ReasonBadToken || out.Reason == push.ReasonWrongTopic || out.Reason == push.ReasonSenderMismatch:
		return "502 until a push of this app was accepted, and the homeserver tries again; " +
			"from then on 200 with the pushkey rejected, and it deletes the pusher"
	case out.Kind == push.Rejected:
		return "200 with the pushkey rejected: the homeserver deletes the pusher"
	case out.Kind == push.Dropped:
		return "200: this message can never be delivered, the pusher stays"
	}
	return "502, 429 or 503: the homeserver tries again"
}

func (p *program) printOutcome(app push.App, d *push.Device, out push.Outcome, took time.Duration) error {
	fmt.Fprintf(p.stdout, "app       %s (%s)\n", app.Name, app.ProviderName)
	if provider, ok := app.Provider.(interface{ AddressedBy(d *push.Device) string }); ok {
		fmt.Fprintf(p.stdout, "pushkey   %s\n", provider.AddressedBy(d))
	}
	fmt.Fprintf(p.stdout, "took      %s\n", took.Round(time.Millisecond))
	if out.Status != 0 {
		fmt.Fprintf(p.stdout, "answer    HTTP %d %s\n", out.Status, out.Detail)
	}
	if out.RetryAfter > 0 {
		fmt.Fprintf(p.stdout, "wait      %s\n", out.RetryAfter)
	}
	if out.Err != nil {
		fmt.Fprintf(p.stdout, "error     %v\n", out.Err)
	}
	fmt.Fprintf(p.stdout, "outcome   %s (%s)\n", out.Kind, out.Reason)
	fmt.Fprintf(p.stdout, "meaning   %s\n", meaning(out))
	if provider, ok := app.Provider.(interface{ Advice(out push.Outcome) string }); ok {
		if advice := provider.Advice(out); advice != "" {
			fmt.Fprintf(p.stdout, "remedy    %s\n", advice)
		}
	}
	if out.Kind != push.Accepted {
		return errors.New("the test notification was not accepted")
	}
	return nil
}
