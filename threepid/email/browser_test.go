package email_test

import (
	"context"
	_ "embed"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/threepid"
	"github.com/matrix-herald/herald/threepid/threepidtest"
)

// measure is a script that answers how wide the page is and the contrast of
// each text in it.
//
//go:embed testdata/measure.js
var measure string

// TestTheMailIsReadable looks at each mail as a browser does, on a telephone and
// on a desk, light and dark, and as plain text: no text is hard to read, nothing
// sticks out.
// HERALD_ARTEFACTS is a folder to keep pictures in.
func TestTheMailIsReadable(t *testing.T) {
	t.Parallel()
	browser := harness.Browser(t)
	relay := threepidtest.NewSMTP(t, threepidtest.SMTPOptions{})
	s := newSender(t, config(relay))
	mails := 0
	show := func(name, language string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		mails++
		m := relay.Wait(t, mails)[mails-1]
		name += "-" + language
		html, text := served(t, "text/html", m.HTML(t)), served(t, "text/plain", m.Text(t))
		for _, width := range []int{360, 1280} {
			for _, scheme := range []string{"light", "dark"} {
				look(browser, t, html, name+"-"+strconv.Itoa(width)+"-"+scheme, width, scheme, 7)
			}
		}
		look(browser, t, text, name+"-text", 360, "light", 1)
	}
	for _, language := range []string{"en", "de"} {
		show("mail", language, s.Send(t.Context(), longest(language)))
		room := longestInvitation(language)
		show("invitation", language, s.SendInvitation(t.Context(), room))
		if language != "en" {
			continue // the same words less
		}
		space := room
		space.Space = true
		show("invitation-space", language, s.SendInvitation(t.Context(), space))
		nameless := room
		nameless.SenderName, nameless.RoomName = "", ""
		show("invitation-nameless", language, s.SendInvitation(t.Context(), nameless))
	}
}

// served returns where a browser finds a text.
func served(t *testing.T, contentType, text string) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType+"; charset=utf-8")
		_, _ = w.Write([]byte(text))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// longestInvitation is an invitation with everything in it as long as it gets.
func longestInvitation(language string) threepid.Invitation {
	i := invitation()
	i.Language, i.To = language, longest(language).To
	i.Sender = "@" + strings.Repeat("long.localpart.", 12) + ":" + strings.Repeat("long-domain.", 4) + "example.org"
	i.SenderName, i.RoomName = strings.Repeat("Wilhelmina", 5), strings.Repeat("Donaudampfschifffahrt", 5)
	i.Token, i.PrivateKey = strings.Repeat("TOKEN", 5)+"X", strings.Repeat("s", 43)
	return i
}

// longest is a challenge with everything in it as long as it gets in practice.
func longest(language string) threepid.Challenge {
	c := challenge()
	c.Language = language
	c.To = strings.Repeat("a.very.long.name.", 5) + "x@" + strings.Repeat("long-domain.", 4) + "example.org"
	c.Token, c.SID, c.ClientSecret = strings.Repeat("ABCDEFGH", 4), strings.Repeat("s1", 16), strings.Repeat("secret", 20)
	return c
}

// found is what the script measured.
type found struct {
	Width  int
	Failed []string
	Texts  int
	Dark   bool
}

// look opens the mail, as a mail program without scripts, and checks its width,
// its contrasts and that it has so many texts.
func look(browser context.Context, t *testing.T, url, name string, width int, scheme string, texts int) {
	t.Helper()
	tab, closeTab := chromedp.NewContext(browser)
	defer closeTab()
	err := chromedp.Do(tab, chromedp.EmulateViewport(int64(width), 800), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		if _, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}), chromedp.Navigate(url))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	got, err := chromedp.Run(tab, chromedp.Evaluate[found](measure))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if got.Width > width || len(got.Failed) > 0 || got.Texts < texts || got.Dark != (scheme == "dark") {
		t.Errorf("%s: %+v", name, got)
	}
	harness.Picture(tab, t, name)
}
