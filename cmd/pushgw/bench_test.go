package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/matrix-herald/herald/internal/harness"
	"github.com/matrix-herald/herald/push/pushtest"
	"github.com/matrix-herald/herald/push/webpush"
)

func tlsConfig(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// contender is a running program that takes notifications: the gateway or the
// bare relay.
type contender struct {
	url     string // of the notify endpoint
	mallocs string // URL of a page that tells its allocations
	pid     int
	client  *http.Client
}

func benchClient(b testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 1024, MaxIdleConns: 2048, DisableCompression: true}
	b.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (c *contender) notify(ctx context.Context, body string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, answer)
	}
	return err
}

// allocations returns how many objects the program has allocated so far.
func (c *contender) allocations(b *testing.B) float64 {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, c.mallocs, http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	res, err := c.client.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^go_memstats_mallocs_total (\S+)$`).FindSubmatch(text)
	if m == nil {
		b.Fatal("the program does not tell its allocations")
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// cpu returns the CPU time the program has used so far, 0 where the system has
// no /proc.
func (c *contender) cpu() time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

// cost is what a program has used so far, or of that for each notification.
type cost struct {
	cpu           float64 // microseconds
	reads, writes float64 // system calls, of the log too; 0 where the system has no /proc
}

func (c *contender) cost() cost {
	u := cost{cpu: float64(c.cpu().Microseconds())}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", c.pid)); err == nil {
		var bytes int64
		_, _ = fmt.Sscanf(string(data), "rchar: %d\nwchar: %d\nsyscr: %f\nsyscw: %f", &bytes, &bytes, &u.reads, &u.writes)
	}
	return u
}

// since returns what was used for each of n notifications since an earlier cost.
func (c *contender) since(before cost, n int64) cost {
	u := c.cost()
	return cost{(u.cpu - before.cpu) / float64(n), (u.reads - before.reads) / float64(n), (u.writes - before.writes) / float64(n)}
}

// rate sends bodies with inFlight workers for a while and returns how many a
// second were answered.
func (c *contender) rate(b *testing.B, body func() string, inFlight int, d time.Duration) (perSecond float64, done int64) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), d)
	defer cancel()
	var n, failed atomic.Int64
	var first atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for range inFlight {
		wg.Go(func() {
			for ctx.Err() == nil {
				n.Add(1)
				// Not cut off at the end of the round: what was begun counts.
				if err := c.notify(b.Context(), body()); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	if failed.Load() > 0 {
		b.Fatalf("%d of %d notifications failed: %v", failed.Load(), n.Load(), *first.Load())
	}
	return float64(n.Load()) / took.Seconds(), n.Load()
}

// arena is a pair of contenders in front of the same fakes.
type arena struct {
	gateway, relay *contender
	body           func() string
}

const benchBody = `{"notification":{"content":{"body":"I'm floating in a most peculiar way","msgtype":"m.text"},"counts":{"unread":2},` +
	`"devices":[{"app_id":%q,"data":{"default_payload":{"aps":{"mutable-content":1},"cs":"account"}},"pushkey":%q,"pushkey_ts":1795294577,` +
	`"tweaks":{"sound":"default"}}],"event_id":"$%d:example.com","id":"$%d:example.com","prio":"high","room_id":"!slw48:example.com","room_name":"Mission Control",` +
	`"sender":"@major:example.com","sender_display_name":"Major Tom","type":"m.room.message"}}`

// bodies returns a function that makes notifications of different events for
// one device.
func bodies(pushKey string) func() string {
	var event atomic.Int64
	return func() string {
		i := event.Add(1)
		return fmt.Sprintf(benchBody, "app", pushKey, i, i)
	}
}

func apnsArena(b *testing.B, latency time.Duration) arena {
	key := pushtest.NewTokenKey(b)
	apns := pushtest.StartAPNs(b, pushtest.APNsOptions{Discard: true, Latency: latency})
	dir := b.TempDir()
	app := apnsApp(b, dir, apns, key)
	return arena{
		gateway: startBenchGateway(b, dir, apns.CA(), app),
		relay:   apnsRelay(b, apns, key),
		body:    bodies(benchToken),
	}
}

const benchToken = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// apnsApp returns the configuration of an app of apns, with its key in dir.
func apnsApp(b testing.TB, dir string, apns *pushtest.APNs, key pushtest.TokenKey) string {
	b.Helper()
	writeFile(b, filepath.Join(dir, "key.p8"), string(key.P8(b)))
	return fmt.Sprintf("{type: apns, topic: org.example.ios, key_file: key.p8, key_id: %s, team_id: %s, endpoint: %q}", key.KeyID, key.TeamID, apns.URL())
}

func apnsRelay(b *testing.B, apns *pushtest.APNs, key pushtest.TokenKey) *contender {
	return startRelay(b, relayConfig{
		URL: apns.URL() + "/3/device/" + benchToken, CA: string(apns.CA().PEM()),
		Header: map[string]string{
			"Authorization": "bearer " + key.Sign(b, time.Now()), "Apns-Topic": "org.example.ios", "Apns-Push-Type": "alert", "Apns-Priority": "10",
			"Content-Type": "application/json; charset=utf-8",
		},
		Body: `{"aps":{"alert":{"loc-key":"MSG_FROM_USER_IN_ROOM_WITH_CONTENT","loc-args":["Major Tom","Mission Control","I'm floating in a most peculiar way"]},"badge":2,"mutable-content":1},"cs":"account","room_id":"!slw48:example.com","event_id":"$1"}`,
	})
}

// fcmStreams is how many pushes Google takes on one connection at a time.
const fcmStreams = 100

func fcmArena(b *testing.B, latency time.Duration) arena {
	fcm := pushtest.StartFCM(b, pushtest.FCMOptions{Discard: true, Latency: latency, MaxConcurrentStreams: fcmStreams})
	dir := b.TempDir()
	app, account := fcmApp(b, dir, fcm)
	return arena{
		gateway: startBenchGateway(b, dir, fcm.CA(), app),
		relay:   fcmRelay(b, fcm, account),
		body:    bodies("token"),
	}
}

// fcmApp returns the configuration of an app of fcm, with its service account in
// dir.
func fcmApp(b testing.TB, dir string, fcm *pushtest.FCM) (app, account string) {
	b.Helper()
	account = string(fcm.ServiceAccount("example"))
	writeFile(b, filepath.Join(dir, "firebase.json"), account)
	return fmt.Sprintf("{type: fcm, service_account_file: firebase.json, endpoint: %q}", fcm.URL()), account
}

func fcmRelay(b *testing.B, fcm *pushtest.FCM, account string) *contender {
	return startRelay(b, relayConfig{
		URL: fcm.URL() + "/v1/projects/example/messages:send", CA: string(fcm.CA().PEM()), Account: account,
		Header: map[string]string{"Content-Type": "application/json"},
		Body:   `{"message":{"data":{"event_id":"$1","type":"m.room.message","sender":"@major:example.com","room_name":"Mission Control","sender_display_name":"Major Tom","room_id":"!slw48:example.com","content_msgtype":"m.text","content_body":"I'm floating in a most peculiar way","prio":"high","unread":"2"},"android":{"priority":"high"},"token":"token"}}`,
	})
}

// webPushArena compares a gateway and a relay that both encrypt. The push service
// only reads and answers: to decrypt would cost more than it measures.
func webPushArena(b *testing.B, latency time.Duration) arena {
	service := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-time.After(latency)
		w.WriteHeader(http.StatusCreated)
	}))
	service.EnableHTTP2, service.Config.HTTP2 = true, &http.HTTP2Config{MaxConcurrentStreams: 1000}
	service.StartTLS()
	b.Cleanup(service.Close)
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: service.Certificate().Raw}))
	subscription, dir := pushtest.NewSubscription(b), b.TempDir()
	private, public, err := webpush.NewVAPIDKey()
	if err != nil {
		b.Fatal(err)
	}
	writeFile(b, filepath.Join(dir, "vapid.pem"), private)
	p256dh, _ := base64.RawURLEncoding.DecodeString(subscription.PushKey())
	auth, _ := base64.RawURLEncoding.DecodeString(subscription.Auth())
	var event atomic.Int64
	return arena{
		gateway: startBenchApps(b, dir, authority, fmt.Sprintf("{app: {type: webpush, vapid_key_file: vapid.pem, vapid_contact: 'mailto:push@example.org', "+
			"allowed_endpoints: [%q], allow_networks: [127.0.0.1]}}", service.Listener.Addr())),
		relay: startRelay(b, relayConfig{
			URL: service.URL + "/x", CA: authority, P256dh: p256dh, Auth: auth,
			Header: map[string]string{
				"Authorization": "vapid t=" + strings.Repeat("x", 260) + ", k=" + public, "Content-Type": "application/octet-stream",
				"Content-Encoding": "aes128gcm", "Ttl": "86400", "Urgency": "high",
			},
			Body: `{"content":{"body":"I'm floating in a most peculiar way","msgtype":"m.text"},"cs":"account","event_id":"$1:example.com","room_id":"!slw48:example.com","room_name":"Mission Control","sender":"@major:example.com","sender_display_name":"Major Tom","type":"m.room.message","unread":2}` + strings.Repeat(" ", 100),
		}),
		body: func() string {
			i := event.Add(1)
			return strings.Replace(fmt.Sprintf(benchBody, "app", subscription.PushKey(), i, i),
				`"data":{`, fmt.Sprintf(`"data":{"endpoint":"%s/x","auth":%q,`, service.URL, subscription.Auth()), 1)
		},
	}
}

// startBenchGateway runs the real binary with one app.
func startBenchGateway(b testing.TB, dir string, ca *pushtest.CA, app string) *contender {
	b.Helper()
	return startBenchApps(b, dir, string(ca.PEM()), "{app: "+app+"}")
}

// startAPNsBenchGateway does so with an app of apns.
func startAPNsBenchGateway(b testing.TB, apns *pushtest.APNs, key pushtest.TokenKey) *contender {
	b.Helper()
	dir := b.TempDir()
	return startBenchGateway(b, dir, apns.CA(), apnsApp(b, dir, apns, key))
}

// benchConfig writes a configuration with these apps, and these authorities (PEM).
func benchConfig(b testing.TB, dir, authorities, apps string) (file string) {
	b.Helper()
	writeFile(b, filepath.Join(dir, "ca.pem"), authorities)
	return writeFile(b, filepath.Join(dir, "pushgw.yaml"), `
http: {listen: ["127.0.0.1:0"], admin_listen: 127.0.0.1:0, test_drain_delay: 0s}
ca_file: ca.pem
log: {format: json}
apps: `+apps+"\n")
}

// startBenchApps runs the real binary with these apps, and these authorities (PEM).
func startBenchApps(b testing.TB, dir, authorities, apps string) *contender {
	b.Helper()
	return startContender(b, benchConfig(b, dir, authorities, apps))
}

func startContender(b testing.TB, config string) *contender {
	b.Helper()
	p := harness.Start(b, nil, "-config", config)
	c := &contender{client: benchClient(b), pid: p.Cmd.Process.Pid}
	c.url, c.mallocs = p.API+"/_matrix/push/v1/notify", p.Admin+"/metrics"
	return c
}

// startRelay runs the test binary as the bare relay.
func startRelay(b *testing.B, cfg relayConfig) *contender {
	b.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		b.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), relayEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	address := make(chan string, 1)
	c := &contender{client: benchClient(b)}
	c.pid = startProcess(b, cmd, func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		address <- strings.TrimSpace(line)
	})
	at := <-address
	c.url, c.mallocs = "http://"+at+"/_matrix/push/v1/notify", "http://"+at+"/mallocs"
	return c
}

// startProcess starts cmd and reads its output until the benchmark ends.
func startProcess(b testing.TB, cmd *exec.Cmd, read func()) (pid int) {
	b.Helper()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(read)
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		reading.Wait()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// BenchmarkNotify compares the gateway with the bare relay, in turns, so that
// whatever else the machine does meets both.
func BenchmarkNotify(b *testing.B) {
	const rounds, roundTime = 11, 300 * time.Millisecond
	for name, open := range map[string]func(*testing.B, time.Duration) arena{"apns": apnsArena, "fcm": fcmArena, "webpush": webPushArena} {
		a := open(b, 0)
		for _, inFlight := range []int{1, 64, 512} {
			b.Run(fmt.Sprintf("%s/%d", name, inFlight), func(b *testing.B) {
				for range b.N {
					var ratios, ours, theirs []float64
					var total, theirTotal int64
					a.gateway.rate(b, a.body, inFlight, roundTime) // connections are opened
					a.relay.rate(b, a.body, inFlight, roundTime)
					mallocs, before, theirsBefore := a.gateway.allocations(b), a.gateway.cost(), a.relay.cost()
					for range rounds {
						mine, done := a.gateway.rate(b, a.body, inFlight, roundTime)
						bare, relayed := a.relay.rate(b, a.body, inFlight, roundTime)
						ours, theirs, ratios = append(ours, mine), append(theirs, bare), append(ratios, mine/bare)
						total, theirTotal = total+done, theirTotal+relayed
					}
					b.ReportMetric(0, "ns/op")
					b.ReportMetric(median(ours), "notify/s")
					b.ReportMetric(median(theirs), "relay/s")
					b.ReportMetric(median(ratios), "ratio")
					b.ReportMetric((a.gateway.allocations(b)-mallocs)/float64(total), "allocs/notify")
					used, theirUse := a.gateway.since(before, total), a.relay.since(theirsBefore, theirTotal)
					b.ReportMetric(used.cpu, "cpu-us/notify")
					b.ReportMetric(used.reads, "reads/notify")
					b.ReportMetric(used.writes, "writes/notify")
					b.ReportMetric(theirUse.cpu, "relay-cpu-us")
					b.ReportMetric(theirUse.reads, "relay-reads")
					b.ReportMetric(theirUse.writes, "relay-writes")
				}
			})
		}
	}
}

// BenchmarkTenDevices posts notifications for ten devices, five of each push
// service, and compares the CPU time of a request with what the relays take for
// one push.
func BenchmarkTenDevices(b *testing.B) {
	const rounds, roundTime, inFlight = 11, 300 * time.Millisecond, 1
	key, dir := pushtest.NewTokenKey(b), b.TempDir()
	apns := pushtest.StartAPNs(b, pushtest.APNsOptions{Discard: true})
	fcm := pushtest.StartFCM(b, pushtest.FCMOptions{Discard: true, MaxConcurrentStreams: fcmStreams})
	ios := apnsApp(b, dir, apns, key)
	android, account := fcmApp(b, dir, fcm)
	gateway := startBenchApps(b, dir, string(apns.CA().PEM())+string(fcm.CA().PEM()), "{ios: "+ios+", android: "+android+"}")
	relays := []*contender{apnsRelay(b, apns, key), fcmRelay(b, fcm, account)}
	var devices []string
	for i := range 5 {
		devices = append(devices, fmt.Sprintf(`{"app_id":"ios","data":{"default_payload":{"aps":{"mutable-content":1},"cs":"account"}},"pushkey":"%064x"}`, i),
			fmt.Sprintf(`{"app_id":"android","data":{},"pushkey":"token%d"}`, i))
	}
	_, rest, _ := strings.Cut(benchBody, `"event_id"`)
	head, _, _ := strings.Cut(benchBody, `"devices"`)
	var event atomic.Int64
	body := func() string {
		i := event.Add(1)
		return head + `"devices":[` + strings.Join(devices, ",") + `],"event_id"` + fmt.Sprintf(rest, i, i)
	}
	for range b.N {
		all := append(relays, gateway)
		before, done := make([]cost, len(all)), make([]int64, len(all))
		for i, c := range all {
			before[i] = c.cost()
		}
		for range rounds {
			for i, c := range all {
				of := bodies("x")
				if c == gateway {
					of = body
				}
				_, n := c.rate(b, of, inFlight, roundTime)
				done[i] += n
			}
		}
		used := make([]cost, len(all))
		for i, c := range all {
			used[i] = c.since(before[i], done[i])
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(used[2].cpu, "cpu-us/request")
		b.ReportMetric(used[2].reads, "reads/request")
		b.ReportMetric(used[2].writes, "writes/request")
		b.ReportMetric(2*used[2].cpu/(used[0].cpu+used[1].cpu), "pushes-of-a-relay")
	}
}

// BenchmarkLatency sends a quarter of the rate that 512 in flight reach, evenly
// spread, and compares the 99th percentile with the push service's own latency.
func BenchmarkLatency(b *testing.B) {
	const latency, duration = 100 * time.Millisecond, 5 * time.Second
	for name, open := range map[string]func(*testing.B, time.Duration) arena{"apns": apnsArena, "fcm": fcmArena} {
		a := open(b, latency)
		b.Run(name, func(b *testing.B) {
			for range b.N {
				a.gateway.rate(b, a.body, 1, latency) // until then the pushkey has half of the places
				a.gateway.rate(b, a.body, 512, time.Second)
				fastest, _ := a.gateway.rate(b, a.body, 512, 2*time.Second)
				took := a.gateway.paced(b, a.body, fastest/4, duration)
				p99 := took[len(took)*99/100]
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(fastest, "notify/s")
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
				b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
				b.ReportMetric(float64(p99)/float64(latency), "p99/latency")
			}
		})
	}
}

// paced sends perSecond notifications a second, whether or not earlier ones
// have been answered, and returns their times in ascending order.
func (c *contender) paced(b *testing.B, body func() string, perSecond float64, d time.Duration) []time.Duration {
	b.Helper()
	took := make([]time.Duration, int(perSecond*d.Seconds()))
	var failed atomic.Int64
	var wg sync.WaitGroup
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	start := time.Now()
	for first := 0; first < len(took); {
		sent := first // of this turn
		due := min(int(time.Since(start).Seconds()*perSecond)+1, len(took))
		for i := range due - sent {
			wg.Go(func() {
				begin := time.Now()
				if err := c.notify(b.Context(), body()); err != nil {
					failed.Add(1)
				}
				took[sent+i] = time.Since(begin)
			})
		}
		first = due
		<-ticker.C
	}
	wg.Wait()
	if failed.Load() > 0 {
		b.Fatalf("%d of %d notifications failed", failed.Load(), len(took))
	}
	slices.Sort(took)
	return took
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// BenchmarkResident delivers a hundred thousand notifications, each of an event of
// its own, and reports how many were delivered a second, what they cost and the
// memory that the process has afterwards and had at most.
func BenchmarkResident(b *testing.B) {
	const notifications = 100_000
	for _, inFlight := range []int{64, 500} {
		b.Run(fmt.Sprint(inFlight), func(b *testing.B) {
			for range b.N {
				key := pushtest.NewTokenKey(b)
				gateway := startAPNsBenchGateway(b, pushtest.StartAPNs(b, pushtest.APNsOptions{Discard: true}), key)
				body := bodies(strings.Repeat("0123456789abcdef", 4))
				start := time.Now()
				var left atomic.Int64
				left.Store(notifications)
				var working sync.WaitGroup
				for range inFlight {
					working.Go(func() {
						for left.Add(-1) >= 0 {
							if err := gateway.notify(b.Context(), body()); err != nil {
								b.Error(err)
							}
						}
					})
				}
				working.Wait()
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(notifications/time.Since(start).Seconds(), "notify/s")
				b.ReportMetric(float64(gateway.cpu().Microseconds())/notifications, "cpu-us/notify")
				b.ReportMetric(gateway.memory(b, "VmRSS"), "rss-MB")
				b.ReportMetric(gateway.memory(b, "VmHWM"), "most-MB")
			}
		})
	}
}
