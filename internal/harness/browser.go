package harness

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Browser starts Chromium until the end of the test: CHROMIUM_PATH, or the program of
// that name. Tabs are made from the context. Without a browser it skips the test,
// or fails it when HERALD_REQUIRE_BROWSER is 1.
func Browser(t *testing.T) context.Context {
	t.Helper()
	path := os.Getenv("CHROMIUM_PATH")
	if path == "" {
		path = "chromium"
	}
	path, err := exec.LookPath(path)
	switch {
	case err != nil && os.Getenv("HERALD_REQUIRE_BROWSER") == "1":
		t.Fatalf("no browser: %v", err)
	case err != nil:
		t.Skipf("no browser: %v", err)
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path)}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses to be root in a sandbox
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute) // a test that needs longer hangs
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx, chromedp.WithAllocatorOptions(options...))
	t.Cleanup(stop)
	if err := chromedp.Do(ctx); err != nil { // or each tab would start a browser of its own
		t.Fatal(err)
	}
	return ctx
}

// Picture keeps a picture of what the tab shows, as name.png in the folder
// HERALD_ARTEFACTS, if that is set.
func Picture(tab context.Context, t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("HERALD_ARTEFACTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.MkdirAll(dir, 0o750)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}
