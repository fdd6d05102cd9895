package redisstore_test

import (
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/matrix-herald/herald/internal/redisconn/redistest"
	"github.com/matrix-herald/herald/push"
)

// FuzzValues reads what another version, or somebody else, has left in Redis.
func FuzzValues(f *testing.F) {
	for _, seed := range []string{"", "c1", "c", "d0", "d99999999999", "f1:2:0:busy", "f1:300:x:", "f1", "1:2", ":", "x", "c\x00", "f1:1:99999999999999999999:r"} {
		f.Add(seed, seed, "1")
	}
	server := miniredis.RunT(f)
	cfg := redistest.Config(server.Addr())
	s := openStore(f, cfg, push.DefaultTerms())
	q := query("$1", 1)
	if _, err := s.Begin(f.Context(), []push.Query{q}); err != nil {
		f.Fatal(err)
	}
	event := server.Keys()[0]
	if _, err := s.End(f.Context(), []push.Result{{Query: q, Held: true, Rejection: push.Rejection{Known: true}, Verdict: push.Alive}}); err != nil {
		f.Fatal(err)
	}
	var dead, app string
	for _, name := range server.Keys() {
		switch kind := server.Type(name); {
		case kind == "hash":
			app = name
		case name != event:
			dead = name
		}
	}
	f.Fuzz(func(t *testing.T, eventValue, deadValue, appValue string) {
		for name, value := range map[string]string{event: eventValue, dead: deadValue} {
			if err := server.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
		server.HSet(app, "proven", appValue, "trips", appValue)
		findings, err := s.Begin(t.Context(), []push.Query{q})
		if err != nil || len(findings) != 1 || findings[0].State > push.Ended {
			t.Fatalf("%+v %v", findings, err)
		}
		if _, err := s.End(t.Context(), []push.Result{{Query: q, Held: true, Verdict: push.Dead}}); err != nil {
			t.Fatal(err)
		}
	})
}
