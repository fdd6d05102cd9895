package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestARequestThatStallsIsAnsweredWith408 sends half of a body.
func TestARequestThatStallsIsAnsweredWith408(t *testing.T) {
	t.Parallel()
	s := startHere(t, ephemeral("IDENTITY_SERVER_NAME=id.example.org", "IDENTITY_PUBLIC_BASE_URL=https://id.example.org",
		"IDENTITY_DATA_DIR="+t.TempDir(), "IDENTITY_HTTP_DRAIN_DELAY=0s", "IDENTITY_HTTP_READ_TIMEOUT=300ms"))
	address := strings.TrimPrefix(s.api, "http://")
	stall := func() (*http.Response, error) {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := fmt.Fprint(conn, "POST /_matrix/identity/v2/account/register HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"); err != nil {
			return nil, err
		}
		return http.ReadResponse(bufio.NewReader(conn), nil)
	}
	res, err := stall()
	for err != nil && t.Context().Err() == nil { // so slow a machine that not even the headers were read in time
		res, err = stall()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct{ Errcode, Error string }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusRequestTimeout || answer.Errcode != "M_UNKNOWN" || answer.Error == "" || !res.Close {
		t.Errorf("%s %+v, closes: %t", res.Status, answer, res.Close)
	}
}
