package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/matrix-herald/herald/push/pushtest"
)

// bodiesBound bounds the memory of a process whose
// requests hold as many bytes as they may, in MB.
const bodiesBound = 256

// attacker posts bodies from an address of its own.
type attacker struct {
	target string // host and port
	from   string // a loopback address
}

// post sends a body of a length that it declares, and returns its answer's status.
func (a attacker) post(ctx context.Context, declared int, body string) (int, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(a.from)}}
	conn, err := dialer.DialContext(ctx, "tcp", a.target)
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	sent := make(chan struct{})
	go func() { // the answer may come before all is sent
		defer close(sent)
		_, _ = fmt.Fprintf(conn, "POST /_matrix/push/v1/notify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", declared, body)
	}()
	defer func() { conn.Close(); <-sent }()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// TestStalledBodiesLeaveOthersTheirPlaces has one source send 128 bodies of 512 KiB
// but for their last byte. It holds a quarter of the bytes in flight, and another
// source does not notice.
//
// Conformance (hostile input): many bodies at once, bodies that stall, trickle or take much memory | one budget of bytes for the process, a quarter of it for a source, and half of what the others leave (also TestWhatRequestsHoldIsBounded, TestABodyThatTricklesIsCut)
// Conformance (attacks): many large bodies at once, or bodies that stall or trickle | one budget of bytes in flight, counted as they arrive; a source holds at most a quarter, and half of what the others leave; a slow body is cut (also TestASourceHoldsAQuarterAndHalfOfWhatTheOthersLeave, TestABodyThatTricklesIsCut, TestWhatARequestHoldsIsGivenBack)
// Conformance (attacks): 128 bodies of 512 KiB that never end, from eight addresses | one budget of bytes in flight, for a source a quarter of it and half of what the others leave; slow bodies are cut
func TestStalledBodiesLeaveOthersTheirPlaces(t *testing.T) {
	t.Parallel()
	const bodies, size, places = 128, 512 << 10, 32
	s := startServices(t, pushtest.APNsOptions{}, pushtest.FCMOptions{})
	s.speakPlainHTTP(t)
	g := startGateway(t, s.client, "-config", s.config)
	target, err := url.Parse(g.API)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	answers := make(chan int, bodies)
	var attack sync.WaitGroup
	text := strings.Repeat(" ", size-1)
	for range bodies {
		attack.Go(func() {
			status, _ := attacker{target.Host, "127.0.0.2"}.post(ctx, size, text)
			answers <- status
		})
	}
	for range bodies - places {
		// On a machine that is slow today some count as slow.
		if status := <-answers; status != http.StatusServiceUnavailable && status != http.StatusRequestTimeout {
			t.Errorf("a body beyond a quarter: %d", status)
		}
	}
	g.deliverSome(t, "beside the stalled bodies", 0)
	if !regexp.MustCompile(`herald_http_bodies_refused_total\{reason="source"\} [1-9]`).MatchString(g.get(t, g.Admin+"/metrics")) {
		t.Error("the refusals are not counted")
	}
	stop()
	attack.Wait()
	if most := (&contender{pid: g.Cmd.Process.Pid}).memory(t, "VmHWM"); most > bodiesBound {
		t.Errorf("the process has taken %.0f MB of memory", most)
	}
}

// TestWhatRequestsHoldIsBounded has eight sources post what takes most memory when
// it is decoded, while the push service answers nobody.
func TestWhatRequestsHoldIsBounded(t *testing.T) {
	t.Parallel()
	const sources, each = 8, 12
	service := newCrowded()
	g := startBusy(t, pushtest.StartAPNs(t, pushtest.APNsOptions{Answer: service.answer, Discard: true}))
	target, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	var attack sync.WaitGroup
	for i := range sources {
		for n := range each {
			attack.Go(func() {
				device := fmt.Sprintf(`{"app_id":"app","pushkey":"%064x","data":{"default_payload":{"x":[%s1]}}}`, n, strings.Repeat(`{"a":1},`, 60_000))
				body := fmt.Sprintf(`{"notification":{"event_id":"$%d-%d:x","devices":[%s]}}`, i, n, device)
				if status, err := (attacker{target.Host, fmt.Sprintf("127.0.0.%d", 2+i)}).post(t.Context(), len(body), body); err != nil ||
					!slices.Contains([]int{http.StatusServiceUnavailable, http.StatusOK, http.StatusRequestTimeout}, status) { // slow, on a machine that is slow today
					t.Errorf("%d %v", status, err)
				}
			})
		}
	}
	attack.Wait()
	close(service.hold)
	if most := g.memory(t, "VmHWM"); most > bodiesBound {
		t.Errorf("the process has taken %.0f MB of memory", most)
	}
}
