package main

import (
	"net/http"
	"syscall"
	"testing"
)

func TestHangupDoesNotEndTheService(t *testing.T) {
	t.Parallel()
	p := startBinary(t, ephemeral("IDENTITY_SERVER_NAME=id.example.org", "IDENTITY_PUBLIC_BASE_URL=https://id.example.org",
		"IDENTITY_HTTP_DRAIN_DELAY=0s", "IDENTITY_DATA_DIR="+t.TempDir()))
	for range 2 {
		if err := p.Cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.Await(t, "SIGHUP changes nothing: options and secrets are read at the start only")
	}
	if status, body := fetch(t, p.API+"/health"); status != http.StatusOK {
		t.Errorf("after SIGHUP: %d %s", status, body)
	}
	p.Stop(t)
}
