package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/harness"
)

// curlEnv makes the test binary a curl for machines without one.
const curlEnv = "IDENTITY_TEST_AS_CURL"

// curlMain does what the example asks of curl, if the test binary was started
// in its place.
func curlMain() {
	if os.Getenv(curlEnv) == "" {
		return
	}
	code := func() int {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "", http.NoBody)
		if err != nil {
			return 1
		}
		for args := os.Args[1:]; len(args) > 0; args = args[1:] {
			switch args[0] {
			case "-s":
			case "-H":
				name, value, _ := strings.Cut(args[1], ": ")
				r.Header.Set(name, value)
				args = args[1:]
			case "-d":
				r.Method, r.Body = http.MethodPost, io.NopCloser(strings.NewReader(args[1]))
				if args[1] == "@-" {
					r.Body = os.Stdin
				}
				args = args[1:]
			default:
				if r.URL, err = r.URL.Parse(args[0]); err != nil {
					return 3
				}
			}
		}
		res, err := (&http.Client{Timeout: time.Minute}).Do(r)
		if err != nil {
			return 7
		}
		defer res.Body.Close()
		if _, err := io.Copy(os.Stdout, res.Body); err != nil {
			return 56
		}
		return 0
	}()
	os.Exit(code)
}

// withCurl returns the environment of a shell that finds curl.
func withCurl(t *testing.T) []string {
	t.Helper()
	environ := os.Environ()
	if _, err := exec.LookPath("curl"); err == nil {
		return environ
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "curl")); err != nil {
		t.Fatal(err)
	}
	return append(environ, curlEnv+"=1", "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// exampleLines returns the indented lines from the one that registers to the one
// that looks up.
func exampleLines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if len(lines) > 0 || strings.HasPrefix(line, "token=$(curl") {
			lines = append(lines, line)
			if strings.Contains(line, "/_matrix/identity/v2/lookup") {
				break
			}
		}
	}
	return lines
}

// TestTheLinesOfStartIdentityWork pastes the lines of docs/start-identity.md into a
// shell.
func TestTheLinesOfStartIdentityWork(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../docs/start-identity.md")
	if err != nil {
		t.Fatal(err)
	}
	s := startBinary(t, ephemeral(), "-dev")
	s.Out.Await(t, "/_matrix/identity/v2/lookup")
	api := strings.TrimPrefix(s.API, "http://")
	printed := exampleLines(s.Out.String())
	homeserver := regexp.MustCompile(`@alice:([0-9.:]+)/`).FindStringSubmatch(printed[0])[1]
	lines := exampleLines(strings.NewReplacer("127.0.0.1:8090", api, "127.0.0.1:8091", homeserver).Replace(string(readme)))
	if len(lines) != 6 || strings.Join(lines, "\n") != strings.Join(printed, "\n") {
		t.Fatalf("docs/start-identity.md shows\n%s\nand -dev prints\n%s", strings.Join(lines, "\n"), strings.Join(printed, "\n"))
	}

	shell := exec.CommandContext(t.Context(), "sh", "-c", strings.Join(lines, "\n"))
	shell.Env = withCurl(t)
	out, err := shell.Output()
	if err != nil {
		t.Fatal(err)
	}
	user := "@alice:" + homeserver
	for _, want := range []string{
		`{"success":true}`, `"mxid":"` + user + `"`, `{"mappings":{"4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc":"` + user + `"}}`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the answers lack %s:\n%s", want, out)
		}
	}
	s.Out.Await(t, "alice@example.com")
	s.Stop(t)
	for _, secret := range []string{"alice@example.com", "monkeys", "4kenr7N9"} {
		if strings.Contains(s.Log.String(), secret) {
			t.Errorf("the log has %q:\n%s", secret, s.Log)
		}
	}
}

func TestDevelopmentKeepsNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	working := t.TempDir()
	t.Chdir(working)
	s := startHere(t, ephemeral(), "-dev")
	if inside, err := os.ReadDir(temp); err != nil || len(inside) != 1 {
		t.Errorf("the data is not where it is looked for: %v %v", inside, err)
	}
	if code := s.Stop(); code != 0 {
		t.Errorf("exit status %d:\n%s", code, s.Errs)
	}
	for _, dir := range []string{temp, working} {
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("something stays in %s: %v %v", dir, left, err)
		}
	}
}

// devRegister registers a user of the homeserver of development.
func devRegister(t *testing.T, s *harness.Serving) (token, user string) {
	t.Helper()
	user = "@bob:" + regexp.MustCompile(`@alice:([0-9.:]+)/`).FindStringSubmatch(s.Out.String())[1]
	status, openID := send(t, http.MethodPost, s.API+"/_matrix/client/v3/user/"+user+"/openid/request_token", "", "{}")
	if status != http.StatusOK {
		t.Fatalf("OpenID token: %d %s", status, openID)
	}
	status, answer := send(t, http.MethodPost, s.API+"/_matrix/identity/v2/account/register", "", openID)
	if status != http.StatusOK {
		t.Fatalf("register: %d %s", status, answer)
	}
	return member(t, answer, "token"), user
}

func TestTheOutboxShowsMailsAndTextMessages(t *testing.T) {
	t.Parallel()
	s := startHere(t, ephemeral(), "-dev")
	token, _ := devRegister(t, s)
	if _, page := fetch(t, s.API+"/dev/outbox"); !strings.Contains(page, "Nothing yet") {
		t.Errorf("the outbox is not empty:\n%s", page)
	}
	for _, request := range [][2]string{
		{"email", `{"client_secret":"s","send_attempt":1,"email":"o'neil&sons@example.com"}`},
		{"msisdn", `{"client_secret":"s","send_attempt":1,"country":"GB","phone_number":"07700900001"}`},
	} {
		target := s.API + "/_matrix/identity/v2/validate/" + request[0] + "/requestToken"
		if status, answer := send(t, http.MethodPost, target, token, request[1]); status != http.StatusOK {
			t.Fatalf("%s: %d %s", request[0], status, answer)
		}
	}
	_, list := fetch(t, s.API+"/dev/outbox.json")
	var messages []struct{ Token, Link, Medium, To, Text string }
	if err := json.Unmarshal([]byte(list), &messages); err != nil || len(messages) != 2 {
		t.Fatalf("%v\n%s", err, list)
	}
	_, page := fetch(t, s.API+"/dev/outbox")
	for _, m := range messages {
		if m.Token == "" || m.To == "" || !strings.Contains(m.Text, m.Token) {
			t.Errorf("not all of a message: %+v", m)
		}
		s.Out.Await(t, m.Text)
		if !strings.Contains(page, m.Token) {
			t.Errorf("the page lacks a message:\n%s", page)
		}
		if m.Medium != "email" {
			continue
		}
		if status, answer := fetch(t, m.Link); status != http.StatusOK {
			t.Errorf("the link in the mail: %d %s", status, answer)
		}
		if strings.Contains(page, m.To) || !strings.Contains(page, "o&#39;neil&amp;sons@example.com") {
			t.Errorf("the page does not escape:\n%s", page)
		}
	}
	if messages[0].Medium != "msisdn" || strings.Index(page, messages[0].Token) > strings.Index(page, messages[1].Token) {
		t.Error("the newest message is not the first")
	}
	s.Stop()
	if log := s.Errs.String(); strings.Contains(log, "neil") || strings.Contains(log, messages[0].Token) || strings.Contains(log, token) {
		t.Errorf("the log shows what it must not:\n%s", log)
	}
}

func TestTheHomeserverOfDevelopmentVouchesForItsOwnUsersOnly(t *testing.T) {
	t.Parallel()
	s := startHere(t, ephemeral(), "-dev")
	if _, user := devRegister(t, s); user == "" {
		t.Fatal("its own user is refused")
	}
	status, answer := send(t, http.MethodPost, s.API+"/_matrix/client/v3/user/@bob:matrix.org/openid/request_token", "", "{}")
	if status != http.StatusForbidden || member(t, answer, "errcode") != "M_FORBIDDEN" {
		t.Errorf("another server's user: %d %s", status, answer)
	}
	name := regexp.MustCompile(`@alice:([0-9.:]+)/`).FindStringSubmatch(s.Out.String())[1]
	status, answer = send(t, http.MethodPost, s.API+"/_matrix/identity/v2/account/register", "",
		`{"access_token":"made up","matrix_server_name":"`+name+`"}`)
	if status != http.StatusUnauthorized {
		t.Errorf("a token it did not issue: %d %s", status, answer)
	}
}

func TestDevelopmentAnswersThisMachineOnly(t *testing.T) {
	t.Parallel()
	s := startHere(t, ephemeral(), "-dev")
	for host, want := range map[string]int{"": http.StatusOK, "localhost:8090": http.StatusOK, "[::1]": http.StatusOK, "attacker.example": http.StatusForbidden} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.API+"/dev/outbox.json", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		if status, _ := do(t, r); status != want {
			t.Errorf("asked for as %q: %d, want %d", host, status, want)
		}
	}
}

func TestWithoutDevelopmentThereIsNoOutbox(t *testing.T) {
	t.Parallel()
	config := writeFile(t, filepath.Join(t.TempDir(), "identity.yaml"),
		"server_name: id.example.org\npublic_base_url: https://id.example.org\nhttp: {test_drain_delay: 0s}\n")
	s := startHere(t, ephemeral(), "-config", config)
	for _, path := range []string{"/dev/outbox", "/dev/outbox.json", "/_matrix/client/v3/user/@bob:matrix.org/openid/request_token"} {
		if status, answer := send(t, http.MethodPost, s.API+path, "", "{}"); status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
}
