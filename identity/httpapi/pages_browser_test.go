package httpapi_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/threepid"
)

// screen is what a page is looked at on.
type screen struct {
	width  int64
	scheme string // "light" or "dark"
}

// newTab opens a tab with a screen and without scripts.
func newTab(browser context.Context, t *testing.T, s screen) context.Context {
	t.Helper()
	tab, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	check(t, chromedp.Do(tab, chromedp.EmulateViewport(s.width, 740), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		if _, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: s.scheme}},
		})
		return err
	})))
	return tab
}

// look is what a browser made of a page.
type look struct {
	Lang, Heading, Background string
	Headings                  int
	Width, ScrollWidth        int64
	Texts                     []struct {
		Text  string
		Ratio float64 // contrast with the background, WCAG 2.2
	}
}

// inspect returns a look. It runs beside the page, not in it.
const inspect = `(() => {
	const parse = c => c.match(/[\d.]+/g).map(Number);
	const opaque = c => { const p = parse(c); return p.length < 4 || p[3] > 0; };
	const luminance = c => {
		const [r, g, b] = parse(c).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const background = e => {
		for (; e; e = e.parentElement) {
			const c = getComputedStyle(e).backgroundColor;
			if (opaque(c)) return c;
		}
		return "rgb(255, 255, 255)";
	};
	const contrast = (a, b) => {
		const [x, y] = [luminance(a), luminance(b)].sort((m, n) => n - m);
		return (x + 0.05) / (y + 0.05);
	};
	const texts = [];
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const text = walk.currentNode.data.trim(), e = walk.currentNode.parentElement;
		if (text) texts.push({Text: text, Ratio: contrast(getComputedStyle(e).color, background(e))});
	}
	for (const e of document.querySelectorAll("svg")) {
		texts.push({Text: "picture", Ratio: contrast(getComputedStyle(e).stroke, background(e))});
	}
	const h1 = document.querySelectorAll("h1");
	return {
		Lang: document.documentElement.lang, Headings: h1.length, Heading: h1[0] ? h1[0].innerText : "",
		Background: getComputedStyle(document.body).backgroundColor,
		Width: innerWidth, ScrollWidth: document.documentElement.scrollWidth, Texts: texts,
	};
})()`

// view opens a page, checks how it looks and keeps a picture of it.
func view(tab context.Context, t *testing.T, s screen, name, address, heading string) {
	t.Helper()
	check(t, chromedp.Do(tab, chromedp.Navigate(address)))
	got, err := chromedp.Run(tab, chromedp.Evaluate[look](inspect))
	check(t, err)
	if got.Lang != "en" || got.Headings != 1 || got.Heading != heading {
		t.Errorf("lang %q, %d headings, %q; want one in English: %q", got.Lang, got.Headings, got.Heading, heading)
	}
	if got.Width != s.width || got.ScrollWidth > s.width {
		t.Errorf("scrolls to %d of %d pixels", got.ScrollWidth, got.Width)
	}
	if len(got.Texts) < 3 {
		t.Errorf("only %d texts", len(got.Texts))
	}
	for _, text := range got.Texts {
		if text.Ratio < 4.5 {
			t.Errorf("%q has a contrast of %.2f", text.Text, text.Ratio)
		}
	}
	if dark := got.Background == "rgb(16, 19, 23)"; dark != (s.scheme == "dark") {
		t.Errorf("background %s on a %s screen", got.Background, s.scheme)
	}
	harness.Picture(tab, t, fmt.Sprintf("page-%s-%d-%s", name, s.width, s.scheme))
}

func TestPagesInABrowser(t *testing.T) {
	t.Parallel()
	browser := harness.Browser(t)
	direct, confirming := newWorld(t, nil), newWorld(t, func(s *settings) { s.api.ConfirmPage = true })
	broken, full := newWorld(t, nil), newWorld(t, func(s *settings) { s.api.Limits.SubmitTokenIP = perHour(1) })
	token := direct.register(t, alice)
	expired := direct.session(t, token, "expired@example.org", "secret")
	direct.clock.advance(24 * time.Hour)
	fresh := direct.session(t, token, "alice@example.org", "secret")
	wrong := fresh
	wrong.Token = "wrong"
	someone := threepid.Challenge{SID: "sid", ClientSecret: "secret", Token: "token"}
	long := "Donaudampfschifffahrtskapitän" // as long as the page lets a name be
	_, room := direct.invite(t, direct.register(t, alice), map[string]any{"room_name": long, "sender_display_name": long})
	_, space := direct.invite(t, direct.register(t, alice), map[string]any{"room_name": "", "room_type": "m.space"})
	inviteLink := func(i threepid.Invitation) string {
		return direct.url + invitePath + "?token=" + i.Token + "&private_key=" + i.PrivateKey
	}
	check(t, broken.db.Close())
	full.send(t, get(linkTo(emailSubmit, someone), ""))
	pages := []struct{ name, address, heading string }{
		{"failure-void", direct.url + linkTo(emailSubmit, wrong), "This link is no longer valid"},
		{"success-email", direct.url + linkTo(emailSubmit, fresh), "Email address confirmed"},
		{"failure-expired", direct.url + linkTo(emailSubmit, expired), "This link has expired"},
		{"failure-broken", direct.url + emailSubmit, "This link is incomplete"},
		{"failure-limit", full.url + linkTo(emailSubmit, someone), "Too many attempts"},
		{"failure-unavailable", broken.url + linkTo(emailSubmit, someone), "Something went wrong"},
		{"confirm-email", confirming.url + linkTo(emailSubmit, someone), "Confirm your email address"},
		{"invite-room", inviteLink(room), "You are invited to " + long},
		{"invite-space", inviteLink(space), "You are invited to a space"},
		{"failure-invite", inviteLink(threepid.Invitation{Token: "gone", PrivateKey: "x"}), "This invitation is no longer valid"},
		{"confirm-msisdn", confirming.url + linkTo(msisdnSubmit, someone), "Confirm your phone number"},
	}
	for _, s := range []screen{{360, "light"}, {360, "dark"}, {1280, "light"}, {1280, "dark"}} {
		tab := newTab(browser, t, s)
		for _, p := range pages {
			t.Run(fmt.Sprintf("%s at %d pixels, %s", p.name, s.width, s.scheme), func(t *testing.T) {
				view(tab, t, s, p.name, p.address, p.heading)
			})
		}
	}
}

func TestConfirmButtonInABrowser(t *testing.T) {
	t.Parallel()
	browser := harness.Browser(t)
	referrers := make(chan string, 8)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/done" {
			referrers <- r.Referer()
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<h1>Welcome</h1>")
	}))
	t.Cleanup(app.Close)
	w := newWorld(t, func(s *settings) { s.api.ConfirmPage = true })
	token := w.register(t, alice)
	next := strings.Replace(app.URL, "127.0.0.1", "localhost", 1) + "/done" // another site than the page's
	for name, tt := range map[string]struct{ secret, next, heading string }{
		"it shows that it worked":          {"one", "", "Email address confirmed"},
		"it leads to the client's website": {"two", next, "Welcome"},
	} {
		t.Run(name, func(t *testing.T) {
			body := encode(t, map[string]any{"client_secret": tt.secret, "email": "alice@example.org", "send_attempt": 1, "next_link": tt.next})
			w.send(t, post(emailRequest, token, body)).object(t)
			c := w.mail.last(t)
			tab := newTab(browser, t, screen{360, "light"})
			check(t, chromedp.Do(tab, chromedp.Navigate(w.url+linkTo(emailSubmit, c))))
			_, err := chromedp.Run(tab, chromedp.WaitEvent(page.LoadEventFired, nil, chromedp.Click(chromedp.CSS("button"))))
			check(t, err)
			got, err := chromedp.Run(tab, chromedp.Evaluate[string](`document.querySelector("h1").innerText`))
			check(t, err)
			if got != tt.heading || !w.isValidated(t, token, c) {
				t.Errorf("%q, want %q", got, tt.heading)
			}
		})
	}
	select {
	case referrer := <-referrers:
		if referrer != "" {
			t.Errorf("the website was told the link: %s", referrer)
		}
	default:
		t.Error("nobody came to the website")
	}
}
