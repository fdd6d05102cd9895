package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// TestARequestThatStallsIsAnsweredWith408 sends half of a body.
func TestARequestThatStallsIsAnsweredWith408(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	listening, code := make(chan string, 1), make(chan int, 1)
	p := program{
		stdout: io.Discard, stderr: io.Discard,
		environ:   []string{"PUSHGW_HTTP_LISTEN=127.0.0.1:0", "PUSHGW_HTTP_ADMIN_LISTEN=", "PUSHGW_HTTP_DRAIN_DELAY=0s", "PUSHGW_HTTP_READ_TIMEOUT=300ms"},
		listening: func(api []net.Addr, _ net.Addr) { listening <- api[0].String() },
	}
	go func() { code <- p.run(ctx, []string{"-dev"}) }()
	t.Cleanup(func() { stop(); <-code })
	address := <-listening
	stall := func() (*http.Response, error) {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := fmt.Fprint(conn, "POST /_matrix/push/v1/notify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"); err != nil {
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
