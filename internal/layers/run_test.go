//go:build unix

package layers_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// waits is a service that ends when it is told to. A shell that has only just
// begun to become a sleep can miss another signal than this 9.
const waits = `trap 'kill -9 $!; echo stopping; exit 0' TERM
sleep 1000 &
echo "started $*"
wait
`

// TestMakeRunStopsEverything runs what "make run" does after the build, with
// services that are scripts.
func TestMakeRunStopsEverything(t *testing.T) {
	// Whoever started the tests may have told them to ignore Ctrl-C, which a
	// script could not undo.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	defer signal.Stop(signals)
	for name, tt := range map[string]struct {
		two     string // bin/two; bin/one waits
		started int    // so many have to have started before something happens
		happens func(root string, leader int) error
		status  int
		want    []string
	}{
		"Ctrl-C": {
			two: waits, started: 2, status: 0, want: []string{"one      | stopping", "two      | stopping"},
			happens: func(_ string, leader int) error { return syscall.Kill(-leader, syscall.SIGINT) },
		},
		"one of them ends": {
			two: "read line <ready\nexit 3\n", started: 1, status: 1, want: []string{"two      | ended with status 3", "one      | stopping"},
			happens: func(root string, _ int) error { return os.WriteFile(filepath.Join(root, "ready"), []byte("\n"), 0o600) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			script, err := os.ReadFile("../../scripts/run")
			if err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{
				"scripts/run": string(script), "cmd/one/main.go": "", "cmd/two/main.go": "",
				"bin/one": "#!/bin/sh\n" + waits, "bin/two": "#!/bin/sh\n" + tt.two,
			} {
				file = filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := syscall.Mkfifo(filepath.Join(root, "ready"), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(root, "scripts/run"))
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a terminal has it
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var output strings.Builder
			started := 0
			for lines := bufio.NewScanner(stdout); lines.Scan(); {
				output.WriteString(lines.Text() + "\n")
				if !strings.HasSuffix(lines.Text(), "started -dev") {
					continue
				}
				if started++; started == tt.started {
					if err := tt.happens(root, cmd.Process.Pid); err != nil {
						t.Fatal(err)
					}
				}
			}
			err = cmd.Wait()
			if ended, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ok && ended.ExitCode() != tt.status || err == nil && tt.status != 0 {
				t.Errorf("%v, want status %d", err, tt.status)
			}
			for _, want := range tt.want {
				if !strings.Contains(output.String(), want) {
					t.Errorf("the output lacks %q:\n%s", want, &output)
				}
			}
		})
	}
}
