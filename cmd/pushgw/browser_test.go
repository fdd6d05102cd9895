package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/serviceworker"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/push/pushtest"
)

// Chromium has a push of the real program decrypted by a page, and shows it with the
// service worker of docs/apps.md. The page makes the subscription's keys itself:
// Google's push service cannot be reached.
//
// Conformance (Web Push): a push in Chromium, from the subscription's keys to the notification that is shown
func TestABrowserShowsWhatPushgwSends(t *testing.T) {
	t.Parallel()
	tab, closeTab := chromedp.NewContext(harness.Browser(t))
	t.Cleanup(closeTab)
	var worker string
	for _, b := range blocks(t) {
		if b[2] == "worker" {
			worker = b[3]
		}
	}
	client := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/worker.js" {
			http.ServeFile(w, r, "testdata/browser/page.html")
			return
		}
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, worker)
	}))
	t.Cleanup(client.Close)
	registered := make(chan serviceworker.RegistrationID, 100)
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try(chromedp.Listen(tab, func(ev any) {
		if e, ok := ev.(*serviceworker.EventWorkerRegistrationUpdated); ok {
			for _, r := range e.Registrations {
				registered <- r.RegistrationID
			}
		}
	}))
	_, err := chromedp.CallBrowser(tab, browser.SetPermission, browser.SetPermissionParams{
		Permission: &browser.PermissionDescriptor{Name: "notifications"}, Setting: browser.PermissionSettingGranted, Origin: client.URL,
	})
	try(err)
	_, err = chromedp.Call(tab, serviceworker.Enable, struct{}{})
	try(err)
	try(chromedp.Do(tab, chromedp.Navigate(client.URL)))
	subscription, err := chromedp.Run(tab, chromedp.Evaluate[map[string]string]("subscribe()", chromedp.EvalAwaitPromise))
	try(err)

	fake := pushtest.StartWebPush(t, nil)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "vapid.pem"), vapidKey(t))
	writeFile(t, filepath.Join(dir, "ca.pem"), string(fake.CA().PEM()))
	config := writeFile(t, filepath.Join(dir, "pushgw.yaml"), fmt.Sprintf(`
http: {listen: ["127.0.0.1:0"], admin_listen: "127.0.0.1:0"}
ca_file: ca.pem
log: {format: json}
apps:
  web:
    type: webpush
    vapid_key_file: vapid.pem
    vapid_contact: mailto:push@example.org
    allowed_endpoints: [%q]
    allow_networks: [127.0.0.1]
`, fake.Addr()))
	g := startGateway(t, new(http.Client), "-config", config)
	body, _ := json.Marshal(map[string]any{"notification": map[string]any{
		"event_id": "$e:x", "room_id": "!r:x", "type": "m.room.message", "sender": "@alice:x", "sender_display_name": "Älice",
		"room_name": "Lunch", "content": map[string]any{"msgtype": "m.text", "body": "Noodles 🍜?"},
		"devices": []any{map[string]any{"app_id": "web", "pushkey": subscription["p256dh"], "data": map[string]any{
			"endpoint": "https://" + fake.Addr() + "/a", "auth": subscription["auth"],
		}}},
	}})
	if status, answer, err := g.notify(t.Context(), string(body)); err != nil || status != 200 || answer != `{"rejected":[]}` {
		t.Fatal(status, answer, err)
	}

	text, err := chromedp.Run(tab, chromedp.Evaluate[string](
		fmt.Sprintf("decrypt(%q)", base64.RawURLEncoding.EncodeToString(fake.Requests()[0].Body)), chromedp.EvalAwaitPromise))
	try(err)
	id := <-registered
	var got []map[string]string
	// Chromium forgets a notification that somebody asks for in the moment before it
	// is displayed. Another one of its tag takes its place.
	for len(got) == 0 {
		_, err = chromedp.Call(tab, serviceworker.DeliverPushMessage, serviceworker.DeliverPushMessageParams{
			Origin: client.URL, RegistrationID: id, Data: text,
		})
		try(err)
		got, err = chromedp.Run(tab, chromedp.Evaluate[[]map[string]string]("shown()", chromedp.EvalAwaitPromise))
		try(err)
	}
	want := []map[string]string{{"title": "Lunch", "body": "Älice: Noodles 🍜?", "tag": "!r:x"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("notifications (-want +got):\n%s", diff)
	}
}
