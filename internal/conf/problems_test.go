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

// TestFaultsOfValuesSayWhereTheyWereSet adds faults after reading.
//
// Conformance (pushgw): faults of values and files with their line, or the variable that set them; a missing key file: one fault with its name (also TestFaultsInMapEntriesNameThem, TestSecretFileFaults)
func TestFaultsOfValuesSayWhereTheyWereSet(t *testing.T) {
	t.Parallel()
	var p conf.Problems
	c := defaults()
	p.Load(conf.LoadOptions{
		Name: "test.yaml", Dir: t.TempDir(), EnvPrefix: "TEST_", Environ: []string{"TEST_LOG_LEVEL=x"},
		Data: []byte("http:\n  trusted: [a,\n    b]\napps:\n  a.b:\n    key_file: missing.p8\n    topic: x\nredis: {address: x}\n"),
	}, &c)
	p.Add("http.trusted[1]", "b", "wrong")
	p.Add("http.limit", nil, "missing")
	p.Add(`apps."a.b".topic`, "x", "wrong")
	p.Add(`apps["a.b"].key`, nil, "missing") // follows from its file's
	p.Add("log-level", "x", "wrong")
	p.Add("elsewhere", nil, "wrong")
	checkFaults(t, "values", p.Err(), []string{
		`test.yaml:6: apps["a.b"].key_file: missing.p8: there is no such file`,
		`test.yaml:3: http.trusted[1]: value "b": wrong`,
		"test.yaml:1: http.limit: missing",
		`test.yaml:7: apps."a.b".topic: value "x": wrong`,
		`TEST_LOG_LEVEL: log-level: value "x": wrong`,
		"elsewhere: wrong",
	})
}
