package main

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestHangupDoesNotEndTheService(t *testing.T) {
	t.Parallel()
	p := startBinary(t, ephemeral("IDENTITY_SERVER_NAME=id.example.org", "IDENTITY_PUBLIC_BASE_URL=https://id.example.org",
		"IDENTITY_HTTP_TEST_DRAIN_DELAY=0s", "IDENTITY_DATA_DIR="+t.TempDir()))
	for range 2 {
		p.Signal(t, syscall.SIGHUP)
		p.Await(t, "SIGHUP changes nothing: options and secrets are read at the start only")
	}
	if status, body := fetch(t, p.API+"/health"); status != http.StatusOK {
		t.Errorf("after SIGHUP: %d %s", status, body)
	}
	p.Stop(t)
}

// TestAFileThatIsGoneIsAWarning removes the configuration, what it names, and the
// keys that were made in the data folder.
//
// Conformance (security): a configuration, key or secret file that is gone while the service runs is a warning (also TestWatchReportsALossOnce)
func TestAFileThatIsGoneIsAWarning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "identity.yaml")
	writeFile(t, filepath.Join(dir, "password"), "secret")
	writeFile(t, config, "data_dir: .\nemail: {host: mail.example.org, from: id@example.org, username: id, password_file: password}\n")
	cfg, err := loadConfig(config, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"identity.yaml", "password", "signing.keys", "code.key"}
	for _, name := range names[2:] {
		writeFile(t, filepath.Join(dir, name), "x")
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	output, log := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = watchFiles(cfg, config, slog.New(slog.NewTextHandler(log, nil)), time.Millisecond)(ctx)
		log.Close()
	})
	lines := bufio.NewScanner(output)
	for range names {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		names = slices.DeleteFunc(names, func(name string) bool {
			return strings.Contains(lines.Text(), name) && strings.Contains(lines.Text(), "level=WARN")
		})
	}
	if len(names) > 0 {
		t.Errorf("nothing was said about %v", names)
	}
	stop()
	watching.Wait()
}
