package conf_test

import (
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/conf"
)

func TestProblemsListEveryFaultInOrder(t *testing.T) {
	t.Parallel()
	var p conf.Problems
	p.Add("http.listen", "nowhere", "write host:port")
	p.Add("http.drain_delay", conf.Duration(-time.Second), "write 0s or more")
	p.Add("redis.password", conf.Secret("hunter2"), "is too short")
	p.Add("http.max_in_flight", 0, "write 1 or more")
	p.Add("apps", nil, "configure at least one app")

	want := `http.listen: value "nowhere": write host:port
http.drain_delay: value "-1s": write 0s or more
redis.password: value "[redacted]": is too short
http.max_in_flight: value "0": write 1 or more
apps: configure at least one app`
	if got := p.Err().Error(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if p.Len() != 5 {
		t.Errorf("Len() = %d, want 5", p.Len())
	}
	faults, ok := p.Err().(interface{ Unwrap() []error })
	if !ok || len(faults.Unwrap()) != 5 {
		t.Errorf("Err() does not unwrap to the 5 faults")
	}
}

func TestNoProblemsAreNoError(t *testing.T) {
	t.Parallel()
	var p conf.Problems
	if err := p.Err(); err != nil || p.Len() != 0 {
		t.Errorf("Err() = %v, Len() = %d, want nil and 0", err, p.Len())
	}
}
