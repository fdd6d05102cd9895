package apns_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-herald/herald/push"
	"github.com/matrix-herald/herald/push/pushtest"
)

// TestTroubleOnTheWayLosesNothingAndDoublesNothing has a gateway deliver to many
// devices at once through each trouble that connections have, and posts again
// what failed, as a homeserver does.
func TestTroubleOnTheWayLosesNothingAndDoublesNothing(t *testing.T) {
	t.Parallel()
	const devices = 30
	for name, tt := range map[string]struct {
		first   pushtest.APNsAnswer // to a device's first push, every third one's
		timeout time.Duration       // of an attempt
		slowTLS bool
		certain bool // nothing is repeated
	}{
		"GOAWAY":                   {first: pushtest.APNsAnswer{GoAway: true}, timeout: 20 * time.Second, certain: true},
		"a handshake that is slow": {slowTLS: true, timeout: 20 * time.Second, certain: true},
		"dropped connections":      {first: pushtest.APNsAnswer{Cut: true}, timeout: 20 * time.Second},
		"hung streams":             {first: pushtest.APNsAnswer{Hang: true}, timeout: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			arrived, accepted := make(map[string]int), make(map[string]int)
			answer := func(r pushtest.APNsRequest) pushtest.APNsAnswer {
				mu.Lock()
				defer mu.Unlock()
				arrived[r.Token]++
				a := pushtest.APNsAnswer{}
				if n := len(arrived); arrived[r.Token] == 1 && n%3 == 0 {
					a = tt.first
				}
				if !a.Cut && !a.Hang {
					accepted[r.Token]++
				}
				return a
			}
			app := start(t, pushtest.APNsOptions{Answer: answer}, nil)
			provider, fake := app.Provider, app.fake
			apps, err := push.NewApps([]push.App{{Name: "app", ProviderName: "apns", Provider: provider, MaxInFlight: devices}})
			if err != nil {
				t.Fatal(err)
			}
			reg := prometheus.NewRegistry()
			gateway, err := push.NewGateway(apps, push.Options{
				Log: slog.New(slog.DiscardHandler), Metrics: push.NewMetrics(reg, false), UnknownApp: push.UnknownAppFail,
				AttemptTimeout: tt.timeout, RetryWait: 10 * time.Millisecond,
			})
			if err != nil {
				t.Fatal(err)
			}
			release, before := func() {}, fake.Connections()
			if tt.slowTLS {
				release = fake.HoldHandshakes()
			}
			var wg sync.WaitGroup
			var posts [devices]int
			for i := range devices {
				wg.Go(func() {
					d := push.Device{AppID: "app", PushKey: fmt.Sprintf("%064x", i)}
					n := &push.Notification{EventID: push.NewMember("$e:x"), RoomID: push.NewMember("!r:x"), Type: push.NewMember("m.room.message")}
					for out := (push.Outcome{Kind: push.Temporary}); out.Kind == push.Temporary && t.Context().Err() == nil; {
						posts[i]++
						ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
						out = gateway.Deliver(ctx, n, []push.Device{d})[0]
						cancel()
						if out.Kind != push.Temporary && out.Reason != push.ReasonSent && out.Reason != push.ReasonDuplicate {
							t.Errorf("device %d: %+v", i, out)
						}
					}
				})
			}
			if tt.slowTLS {
				for fake.Connections() == before && t.Context().Err() == nil {
					<-time.After(time.Millisecond)
				}
			}
			release()
			wg.Wait()

			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			uncertain := 0
			for _, f := range families {
				if f.GetName() == "herald_push_uncertain_total" {
					uncertain = int(f.GetMetric()[0].GetCounter().GetValue())
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total := 0
			for i := range devices {
				n := accepted[fmt.Sprintf("%064x", i)]
				if n == 0 {
					t.Errorf("device %d got nothing", i)
				}
				total += n
			}
			if total > devices+uncertain || tt.certain && uncertain > 0 {
				t.Errorf("%d pushes for %d devices, %d uncertain", total, devices, uncertain)
			}
			if !tt.certain && uncertain == 0 {
				t.Error("there was no trouble")
			}
			// What is repeated has the same id, by which Apple may tell.
			ids := make(map[string][]string)
			for _, r := range fake.Requests() {
				if id := r.Header.Get("Apns-Id"); !slices.Contains(ids[r.Token], id) {
					ids[r.Token] = append(ids[r.Token], id)
				}
			}
			for i := range devices {
				if n := len(ids[fmt.Sprintf("%064x", i)]); n > posts[i] {
					t.Errorf("device %d was posted for %d times and got pushes of %d ids", i, posts[i], n)
				}
			}
		})
	}
}
