package doctor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/matrix-herald/herald/internal/conf"
	"github.com/matrix-herald/herald/internal/doctor"
	"github.com/matrix-herald/herald/internal/redisconn"
)

func TestRunSaysWhatItSaw(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		after := func(d time.Duration, saw string, err error) func(context.Context) (string, error) {
			return func(ctx context.Context) (string, error) {
				timer := time.NewTimer(d)
				defer timer.Stop()
				select {
				case <-timer.C:
					return saw, err
				case <-ctx.Done():
					return "", ctx.Err()
				}
			}
		}
		var out strings.Builder
		err := doctor.Run(t.Context(), &out, []doctor.Check{
			{"one", after(2*time.Second, "answers", nil), "never shown"},
			{"two", after(3*time.Millisecond, "", errors.New("no\x1b[31m such\nhost")), "look at two"},
			{"three", after(time.Hour, "", nil), "look at three"},
		})
		want := "ok      2000 ms  one: answers\n" +
			"FAILED     3 ms  two: no [31m such host\n" +
			"                 look at two\n" +
			"FAILED 15000 ms  three: no answer within 15s\n" +
			"                 look at three\n"
		if diff := cmp.Diff(want, out.String()); diff != "" || err == nil || err.Error() != "2 of 3 checks failed" {
			t.Errorf("%v\n%s", err, diff)
		}
		if err := doctor.Run(t.Context(), &out, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestRedis(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	server.RequireAuth("secret")
	cfg := redisconn.DefaultConfig("test:")
	if got := doctor.Redis(cfg); len(got) != 0 {
		t.Errorf("no Redis: %d checks", len(got))
	}
	cfg.URL = conf.Secret("redis://:secret@" + server.Addr())
	if _, err := doctor.Redis(cfg)[0].Look(t.Context()); err != nil {
		t.Error(err)
	}
	cfg.URL = conf.Secret("redis://:another@" + server.Addr())
	if _, err := doctor.Redis(cfg)[0].Look(t.Context()); err == nil || strings.Contains(err.Error(), "another") {
		t.Errorf("a wrong password: %v", err)
	}
}
