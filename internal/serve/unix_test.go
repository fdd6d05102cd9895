package serve_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/matrix-herald/herald/internal/serve"
)

// onSocket returns options for a service on a Unix socket at path only.
func onSocket(path string) serve.Options {
	o := options(hello)
	o.Logger = slog.New(slog.DiscardHandler)
	o.Config.Listen = []string{"unix:" + path}
	o.Config.AdminListen = ""
	o.Config.DrainDelay = 0
	return o
}

func TestAUnixSocketHasItsModeAndIsRemoved(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	o := onSocket(path)
	o.Config.SocketMode = 0o600
	s := start(t, o)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), fs.ModeSocket|0o600; got != want {
		t.Errorf("mode %s, want %s", got, want)
	}
	if got := ask(t, dial(t, s)); got != http.StatusOK {
		t.Errorf("status %d", got)
	}
	s.stop()
	if err := <-s.ended; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind (%v)", err)
	}
}

func TestTheSocketOfADeadProcessIsReplaced(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, dial(t, start(t, onSocket(path)))); got != http.StatusOK {
		t.Errorf("status %d", got)
	}
}

func TestTheSocketOfALivingProcessIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	s := start(t, onSocket(path))
	err := serve.Run(t.Context(), onSocket(path))
	if err == nil || !strings.Contains(err.Error(), "listen on unix:"+path+": another process listens there") {
		t.Errorf("error %v", err)
	}
	if got := ask(t, dial(t, s)); got != http.StatusOK {
		t.Errorf("the first service is disturbed: %d", got)
	}
}

func TestAFileThatIsNoSocketIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := serve.Run(t.Context(), onSocket(path))
	if err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("error %v", err)
	}
	if data, err := os.ReadFile(path); string(data) != "precious" || err != nil {
		t.Errorf("the file holds %q (%v)", data, err)
	}
}
