package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/matrix-herald/herald/push/pushtest"
)

// residentBound bounds the memory of a process that is offered ten times what it may take, in MB, over a thousand connections
// at most.
const residentBound = 256

// crowded is a fake push service's view of how many pushes it has at once.
type crowded struct {
	arrived chan struct{}
	hold    chan struct{} // answers wait until it is closed

	mu        sync.Mutex
	now, most int
	events    map[string]int
}

func newCrowded() *crowded {
	return &crowded{arrived: make(chan struct{}, 1<<16), hold: make(chan struct{}), events: make(map[string]int)}
}

// answer is the Answer of a fake APNs.
func (c *crowded) answer(r pushtest.APNsRequest) pushtest.APNsAnswer {
	var payload struct {
		EventID string `json:"event_id"`
	}
	_ = json.Unmarshal(r.Body, &payload) // what is no JSON is of no event
	c.mu.Lock()
	c.events[payload.EventID]++
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.now--
	}()
	c.arrived <- struct{}{}
	<-c.hold
	return pushtest.APNsAnswer{}
}

// busyApp is an app of apns with room for 50.
const busyApp = "{type: apns, topic: org.example.ios, key_file: key.p8, key_id: %s, team_id: %s, endpoint: %q, concurrency: 50}"

// startBusy runs the program with such an app.
func startBusy(tb testing.TB, apns *pushtest.APNs) *contender {
	tb.Helper()
	key := pushtest.NewTokenKey(tb)
	dir := tb.TempDir()
	writeFile(tb, filepath.Join(dir, "key.p8"), string(key.P8(tb)))
	return startBenchGateway(tb, dir, apns.CA(), fmt.Sprintf(busyApp, key.KeyID, key.TeamID, apns.URL()))
}

var errBusy = errors.New("503 with Retry-After")

// offer posts an event. It returns errBusy if the answer is what a gateway at
// its limit says.
func (c *contender) offer(ctx context.Context, body string) error {
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
	switch {
	case err != nil:
		return err
	case res.StatusCode == http.StatusOK && string(bytes.TrimSpace(answer)) == `{"rejected":[]}`:
		return nil
	case res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != "":
		return errBusy
	}
	return fmt.Errorf("%s: %s", res.Status, answer)
}

// TestBeyondItsLimitAnAppIsRefused offers an app with room for 50 many times as
// much: what is accepted is delivered once, all else is told to come back, and
// nothing piles up.
func TestBeyondItsLimitAnAppIsRefused(t *testing.T) {
	t.Parallel()
	const places, room, clients, each = 50, 25, 150, 20 // a new pushkey has half of the places
	service := newCrowded()
	g := startBusy(t, pushtest.StartAPNs(t, pushtest.APNsOptions{Answer: service.answer, Discard: true}))
	body := bodies(strings.Repeat("0123456789abcdef", 4))

	// While the push service answers none, exactly as many are taken as there is
	// room for.
	verdicts := make(chan error, clients)
	for range clients {
		go func() { verdicts <- g.offer(t.Context(), body()) }()
	}
	for range clients - room {
		if err := <-verdicts; !errors.Is(err, errBusy) {
			t.Fatalf("beyond the limit: %v", err)
		}
	}
	for range room {
		<-service.arrived
	}
	close(service.hold)
	for range room {
		if err := <-verdicts; err != nil {
			t.Errorf("within the limit: %v", err)
		}
	}

	// While it answers, some are taken all the time.
	var taken atomic.Int64
	var load sync.WaitGroup
	for range clients {
		load.Go(func() {
			for range each {
				switch err := g.offer(t.Context(), body()); {
				case err == nil:
					taken.Add(1)
				case !errors.Is(err, errBusy):
					t.Error(err)
				}
			}
		})
	}
	load.Wait()
	if taken.Load() == 0 {
		t.Error("nothing is delivered under load")
	}
	service.mu.Lock()
	defer service.mu.Unlock()
	if service.most > places {
		t.Errorf("the push service had %d pushes at once", service.most)
	}
	if want := room + int(taken.Load()); len(service.events) != want {
		t.Errorf("%d events are delivered, %d were accepted", len(service.events), want)
	}
	for event, n := range service.events {
		if n != 1 {
			t.Errorf("%s is delivered %d times", event, n)
		}
	}
	if most := g.memory(t, "VmHWM"); most > residentBound {
		t.Errorf("the process has taken %.0f MB of memory", most)
	}
}

// memory returns what the system says about the memory of the program: VmRSS for
// what it has, VmHWM for the most it has had, in MB; 0 where there is no /proc.
func (c *contender) memory(tb testing.TB, what string) float64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	if err != nil {
		return 0
	}
	m := regexp.MustCompile(`(?m)^` + what + `:\s+(\d+) kB$`).FindSubmatch(text)
	if m == nil {
		tb.Fatalf("no %s in\n%s", what, text)
	}
	kb, err := strconv.Atoi(string(m[1]))
	if err != nil {
		tb.Fatal(err)
	}
	return float64(kb) * 1024 / 1e6
}
