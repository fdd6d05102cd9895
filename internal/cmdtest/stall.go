package cmdtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"testing"
)

// TestStall posts half of a body to path of the program that listens at address
// and has a short http.read_timeout: it must answer with 408 and a Matrix error,
// and leave.
func TestStall(t *testing.T, address, path string) {
	t.Helper()
	res, err := stall(t, address, path)
	for err != nil && t.Context().Err() == nil { // so slow a machine that not even the headers were read in time
		res, err = stall(t, address, path)
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

func stall(t *testing.T, address, path string) (*http.Response, error) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", path); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(conn), nil)
}
