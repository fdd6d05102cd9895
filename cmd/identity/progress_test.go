package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgressIsLoggedEveryTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		show := newProgress(&out, slog.New(slog.NewTextHandler(&out, nil)))
		for done := range 61 {
			show("rows imported", done*100, 12000)
			<-time.After(500 * time.Millisecond)
		}
		if n := strings.Count(out.String(), "\n"); n != 3 {
			t.Errorf("%d lines in 30 s:\n%s", n, &out)
		}
		if want := `msg=working on="rows imported" done=4000 of=12000 per_second=200 left=40s`; !strings.Contains(out.String(), want) {
			t.Errorf("no line %s in\n%s", want, &out)
		}
	})
}

func TestProgressIsABarOnATerminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		show := progressBar(&out)
		for done := range 11 {
			show("rows imported", done*10, 400)
			<-time.After(time.Second)
		}
		for _, want := range []string{"rows imported", "25%", "(100/400", "10 it/s", ":30s]"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s is not shown: %q", want, out.String())
			}
		}
	})
}
