package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/push/pushtest"
)

// replica is one process of the gateway, on a Unix socket that stays the same
// when it is restarted, so that nobody else can take its address meanwhile.
type replica struct {
	program string
	config  string
	socket  string
	client  *http.Client
	metrics *http.Client

	cmd    *exec.Cmd
	admin  string
	log    *replicaLog
	exited chan error

	mu       sync.Mutex
	posting  map[*event]int // what a homeserver waits for here
	counters                // of the processes that have ended
}

// counters are what the metrics of a replica say, its former processes included.
type counters struct {
	uncertain int // attempts cut after the request was written
	alone     int // requests without Redis, and calls of Redis that failed
}

func (c *counters) add(more counters) {
	c.uncertain += more.uncertain
	c.alone += more.alone
}

func newReplica(t *testing.T, dir, config string, n int) *replica {
	t.Helper()
	program := harness.Binary(t)
	r := &replica{program: program, config: config, socket: filepath.Join(dir, strconv.Itoa(n)), posting: make(map[*event]int)}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", r.socket)
		},
		MaxIdleConnsPerHost: 64,
	}
	r.client = &http.Client{Transport: transport}
	r.metrics = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		for range r.exited {
		}
		transport.CloseIdleConnections()
	})
	r.start(t)
	return r
}

// start starts the process and waits until it listens.
func (r *replica) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command(r.program, "-config", r.config)
	r.cmd.Env = append(os.Environ(), "PUSHGW_HTTP_LISTEN=unix:"+r.socket)
	out, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.log = &replicaLog{admin: make(chan string, 1)}
	r.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, log *replicaLog, exited chan<- error) {
		log.read(out)
		exited <- cmd.Wait()
		close(exited)
	}(r.cmd, r.log, r.exited)
	admin, listens := <-r.log.admin
	if !listens {
		t.Fatalf("pushgw does not start:\n%s", r.log.errors())
	}
	r.admin = admin
}

// kill ends the process at once and returns what was in flight there.
func (r *replica) kill(t *testing.T) []*event {
	t.Helper()
	r.retire(t)
	// Nothing is posted to it, and no answer of it is taken note of, between the
	// count and the end.
	r.mu.Lock()
	defer r.mu.Unlock()
	var inFlight []*event
	for e := range r.posting {
		inFlight = append(inFlight, e)
	}
	_ = r.cmd.Process.Kill()
	for range r.exited {
	}
	return inFlight
}

// terminate asks the process to end and waits for it.
func (r *replica) terminate(t *testing.T) {
	t.Helper()
	r.retire(t)
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	err := <-r.exited
	if bad := r.log.errors(); err != nil || bad != "" {
		t.Errorf("a replica that was asked to end: %v\n%s", err, bad)
	}
}

// retire keeps what the process's metrics say, because it is about to end.
func (r *replica) retire(t *testing.T) {
	t.Helper()
	c, _ := r.scrape(t)
	r.add(c)
}

// begin notes that a homeserver posts an event, and returns what notes the end.
func (r *replica) begin(e *event) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.posting[e]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.posting[e]--; r.posting[e] == 0 {
			delete(r.posting, e)
		}
	}
}

// scrape reads the counters of the running process, and the gauges by name.
func (r *replica) scrape(t *testing.T) (counters, map[string]int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.admin+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.metrics.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	sums := make(map[string]int)
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, value, found := strings.Cut(lines.Text(), " ")
		if i := strings.IndexByte(lines.Text(), '}'); i >= 0 {
			name, value, found = lines.Text()[:strings.IndexByte(lines.Text(), '{')], lines.Text()[i+2:], true
		}
		if n, err := strconv.ParseFloat(value, 64); found && err == nil {
			sums[name] += int(n)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return counters{
		uncertain: sums["herald_push_uncertain_total"],
		alone:     sums["herald_push_store_fallbacks_total"] + sums["herald_push_store_errors_total"],
	}, sums
}

// total returns what all processes of the replica have counted.
func (r *replica) total(t *testing.T) counters {
	t.Helper()
	c, _ := r.scrape(t)
	c.add(r.counters)
	return c
}

// replicaLog reads the log of one process.
type replicaLog struct {
	admin chan string // the address, once all listeners are open
	mu    sync.Mutex
	bad   []string
}

func (l *replicaLog) read(out io.Reader) {
	defer close(l.admin)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), `"msg":"request"`) {
			continue // nearly all
		}
		var line struct {
			Level, Msg, Address string
			Admin               bool
		}
		_ = json.Unmarshal(lines.Bytes(), &line) // what is no JSON has no level
		switch {
		case line.Msg == "listening" && line.Admin: // the last
			l.admin <- line.Address
		case line.Level == "" || strings.Contains(line.Msg, "panicked"):
			l.mu.Lock()
			l.bad = append(l.bad, lines.Text())
			l.mu.Unlock()
		}
	}
}

// errors returns what must not be in a log.
func (l *replicaLog) errors() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.bad, "\n")
}

// fleet is a number of replicas before fakes of push services, with a Redis of
// their own unless they have none.
type fleet struct {
	replicas []*replica
	redis    *redisServer
	apns     *pushtest.APNs
	fcm      *pushtest.FCM
	web      *pushtest.WebPush // and a push server of UnifiedPush
	hms      *pushtest.HMS
	account  *account
	pushers  int // that there have been
}

func (f *fleet) closeConnections() {
	f.apns.CloseConnections()
	f.fcm.CloseConnections()
	f.web.CloseConnections()
	f.hms.CloseConnections()
}

// fleetOptions say how a fleet is built.
type fleetOptions struct {
	replicas       int
	redis          bool
	budget         time.Duration // of Redis; 0 is the longest there is
	attemptTimeout time.Duration // 0 is the default
	requestTimeout time.Duration // 0 is the default
}

// serviceLatency is how long the fakes take at most to answer for a push that
// they have taken.
const serviceLatency = 80 * time.Millisecond

func startFleet(t *testing.T, o fleetOptions) *fleet {
	t.Helper()
	f := &fleet{account: newAccount()}
	key := pushtest.NewTokenKey(t)
	f.apns = pushtest.StartAPNs(t, pushtest.APNsOptions{
		Key: &key, Topics: []string{iosApp}, Discard: true, Latency: serviceLatency / 8, Answer: f.account.apns,
	})
	f.fcm = pushtest.StartFCM(t, pushtest.FCMOptions{
		Discard: true, Latency: serviceLatency / 8, MaxConcurrentStreams: 100, Answer: f.account.fcm,
	})
	f.web, f.hms = pushtest.StartWebPush(t, f.account.web), pushtest.StartHMS(t, f.account.hms)
	dir := shortDir(t)
	writeFile(t, filepath.Join(dir, "ca.pem"), string(f.apns.CA().PEM())+string(f.fcm.CA().PEM())+string(f.web.CA().PEM())+string(f.hms.CA().PEM()))
	writeFile(t, filepath.Join(dir, "vapid.pem"), vapidKey(t))
	writeFile(t, filepath.Join(dir, "key.p8"), string(key.P8(t)))
	writeFile(t, filepath.Join(dir, "huawei.secret"), pushtest.HMSSecret)
	writeFile(t, filepath.Join(dir, "firebase.json"), string(f.fcm.ServiceAccount("example")))
	section := ""
	if o.redis {
		f.redis = startRedis(t)
		if o.budget == 0 {
			o.budget = 5 * time.Second // what a loaded machine takes must not look like a Redis that is away
		}
		section = fmt.Sprintf("redis: {url: %q, test_budget: %v}\n", "redis://"+f.redis.address(), o.budget)
	}
	if o.attemptTimeout == 0 {
		o.attemptTimeout = defaultConfig().Delivery.AttemptTimeout.Std()
	}
	if o.requestTimeout == 0 {
		o.requestTimeout = defaultConfig().HTTP.RequestTimeout.Std()
	}
	config := writeFile(t, filepath.Join(dir, "pushgw.yaml"), section+fmt.Sprintf(`
http: {admin_listen: 127.0.0.1:0, test_drain_delay: 300ms, test_read_timeout: 1s, test_request_timeout: %v}
test_attempt_timeout: %v
test_retry_wait: 20ms
ca_file: ca.pem
log: {format: json}
apps:
  org.example.ios:
    {type: apns, topic: org.example.ios, key_file: key.p8, key_id: %s, team_id: %s, endpoint: %q}
  org.example.android*:
    {type: fcm, service_account_file: firebase.json, endpoint: %q}
  org.example.web:
    {type: webpush, vapid_key_file: vapid.pem, vapid_contact: "mailto:push@example.org", allowed_endpoints: [%[7]q], allow_networks: [127.0.0.1]}
  org.example.unified:
    {type: unifiedpush, allowed_endpoints: [%[7]q], allow_networks: [127.0.0.1]}
  org.example.huawei:
    {type: hms, client_id: %[8]q, client_secret_file: huawei.secret, endpoint: %[9]q}
`, o.requestTimeout, o.attemptTimeout, key.KeyID, key.TeamID, f.apns.URL(), f.fcm.URL(), f.web.Addr(), pushtest.HMSApp, f.hms.URL()))
	for n := range o.replicas {
		f.replicas = append(f.replicas, newReplica(t, dir, config, n))
	}
	return f
}

// total returns what all replicas have counted.
func (f *fleet) total(t *testing.T) (sum counters) {
	t.Helper()
	for _, r := range f.replicas {
		sum.add(r.total(t))
	}
	return sum
}

// await looks at a gauge of every replica until it is as wanted.
func (f *fleet) await(ctx context.Context, t *testing.T, gauge string, want int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, r := range f.replicas {
		for {
			if _, gauges := r.scrape(t); gauges[gauge] == want {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%s does not become %d", gauge, want)
			}
		}
	}
}

// shortDir makes a folder whose path is short enough for sockets in it, which
// that of t.TempDir with the name of the test is not.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "herald") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
