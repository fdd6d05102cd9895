package serve

import (
	"context"
	"log"
	"log/slog"
	"regexp"
	"strings"
)

// maxErrorText bounds a line of net/http's own log, which may hold a stack.
const maxErrorText = 1024

// peerAddress finds IPv4 and bracketed IPv6 addresses, with or without a port.
var peerAddress = regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?|\[[0-9A-Fa-f:.]+(?:%[^\]]*)?\](?::\d+)?`)

// slogErrors returns a logger for [net/http.Server.ErrorLog]: what strangers do
// to a public port is worth a debug line, without their addresses.
func slogErrors(to *slog.Logger) *log.Logger {
	return log.New(errorWriter{to}, "", 0)
}

type errorWriter struct{ to *slog.Logger }

// Write logs one line.
func (w errorWriter) Write(line []byte) (int, error) {
	ctx := context.Background() // net/http's log has none
	if w.to.Enabled(ctx, slog.LevelDebug) {
		text := strings.TrimSpace(string(line[:min(len(line), maxErrorText)]))
		w.to.DebugContext(ctx, "http server", "event", peerAddress.ReplaceAllString(text, "[address]"))
	}
	return len(line), nil
}
